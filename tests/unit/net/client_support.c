#include "client_support.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- The client ---- */

void test_client_open(struct test_client *client, const struct http_client_params *params)
{
    struct ph_err err = {0};
    struct http_client_params p = params ? *params : (struct http_client_params){0};
    if (net_loop_create(&client->loop, &err) != PH_OK)
        abort();
    p.loop = client->loop;
    p.clock = clock_system();
    if (http_client_open(&client->http, &p, &err) != PH_OK) {
        fprintf(stderr, "test client: %s\n", err.message);
        abort();
    }
}

void test_client_close(struct test_client *client)
{
    http_client_close(client->http);
    net_loop_free(client->loop);
}

static void on_late(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

bool test_client_turn(struct test_client *client, const bool *done)
{
    bool is_late = false;
    uv_loop_t *uv = net_loop_uv(client->loop);
    uv_timer_t timer;
    uv_timer_init(uv, &timer);
    timer.data = &is_late;
    uv_update_time(uv);
    uv_timer_start(&timer, on_late, TEST_DEADLINE_MS, 0);
    while (!*done && !is_late)
        uv_run(uv, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(uv, UV_RUN_NOWAIT);
    return *done;
}

void test_client_turn_for(struct test_client *client, uint64_t ms)
{
    uint64_t until = test_now_ms() + ms;
    while (test_now_ms() < until) {
        uv_run(net_loop_uv(client->loop), UV_RUN_NOWAIT);
        test_pause();
    }
}

/* ---- A sink ---- */

static void note(struct test_reply *reply, char event)
{
    size_t len = strlen(reply->events);
    if (len + 1 < sizeof reply->events)
        reply->events[len] = event;
    if (reply->on_event)
        reply->on_event(reply, event);
}

static void on_head(void *ud, int status, const struct http_header *headers, size_t header_count)
{
    struct test_reply *reply = ud;
    size_t at = 0;
    reply->status = status;
    for (size_t i = 0; i < header_count && at < sizeof reply->head; i++)
        at += (size_t)snprintf(reply->head + at, sizeof reply->head - at, "%s=%s\n", headers[i].name,
                               headers[i].value);
    note(reply, 'H');
}

static bool on_body(void *ud, const char *bytes, size_t len)
{
    struct test_reply *reply = ud;
    char *body = realloc(reply->body, reply->body_len + len + 1);
    if (!body)
        abort();
    memcpy(body + reply->body_len, bytes, len);
    reply->body = body;
    reply->body_len += len;
    body[reply->body_len] = 0;
    bool goes_on = !reply->pauses || reply->body_len <= reply->pauses_beyond;
    note(reply, 'B');
    return goes_on;
}

static void on_end(void *ud, enum http_call_end how, const char *message)
{
    struct test_reply *reply = ud;
    reply->how = how;
    snprintf(reply->message, sizeof reply->message, "%s", message);
    reply->ended = true;
    note(reply, 'E');
}

void test_reply_init(struct test_reply *reply, struct test_client *client)
{
    memset(reply, 0, sizeof *reply);
    reply->client = client;
}

void test_reply_release(struct test_reply *reply)
{
    free(reply->body);
    reply->body = NULL;
}

enum ph_status test_call_start(struct test_reply *reply, uint16_t port, const char *path,
                               const struct http_call_params *params)
{
    char url[300];
    struct ph_err err = {0};
    struct http_call_params p = params ? *params : (struct http_call_params){0};
    struct http_call_sink sink = {on_head, on_body, on_end, reply};
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", (unsigned)port, path);
    if (!p.method)
        p.method = "GET";
    if (!p.url)
        p.url = url;
    return http_call_start(&reply->call, reply->client->http, &p, &sink, &err);
}

void test_call(struct test_reply *reply, uint16_t port, const char *path,
               const struct http_call_params *params)
{
    if (test_call_start(reply, port, path, params) != PH_OK || *reply->events ||
        !test_client_turn(reply->client, &reply->ended)) {
        fprintf(stderr, "test call: %s has not ended\n", path);
        abort();
    }
}

/* ---- A peer ---- */

static bool wait_for(int fd)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    return poll(&waiting, 1, TEST_DEADLINE_MS) > 0;
}

/* Reads up to the end of a request's head; false: the client has closed. */
static bool read_request(struct test_peer *peer, int fd)
{
    size_t len = 0;
    peer->request[0] = 0;
    while (!strstr(peer->request, "\r\n\r\n") && len + 1 < sizeof peer->request) {
        ssize_t n = wait_for(fd) ? recv(fd, peer->request + len, sizeof peer->request - 1 - len, 0) : 0;
        if (n <= 0)
            return false;
        len += (size_t)n;
        peer->request[len] = 0;
    }
    peer->requests++;
    return true;
}

static void stall(struct test_peer *peer, int fd)
{
    char bytes[4096];
    ssize_t n = 1;
    while (n > 0)
        n = wait_for(fd) ? recv(fd, bytes, sizeof bytes, 0) : -1;
    if (n == 0)
        peer->half_closed++;
}

static void go_on(int fd)
{
    static const char block[4096] = {'x'};
    while (send(fd, block, sizeof block, MSG_NOSIGNAL) > 0)
        ;
}

static void serve(struct test_peer *peer, int fd)
{
    enum test_then then = THEN_KEEP;
    while (then == THEN_KEEP && read_request(peer, fd)) {
        const struct test_script *script = &peer->scripts[peer->next];
        if (peer->next + 1 < peer->script_count)
            peer->next++;
        then = script->then;
        test_send_text(fd, script->bytes);
        if (then == THEN_STALL)
            stall(peer, fd);
        else if (then == THEN_ENDLESS)
            go_on(fd);
    }
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (then == THEN_RESET)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
}

static void run(void *ud)
{
    struct test_peer *peer = ud;
    for (int fd = accept(peer->listener, NULL, NULL); fd >= 0; fd = accept(peer->listener, NULL, NULL)) {
        peer->connections++;
        serve(peer, fd);
    }
}

void test_peer_start(struct test_peer *peer, const struct test_script *scripts, size_t script_count)
{
    memset(peer, 0, sizeof *peer);
    peer->scripts = scripts;
    peer->script_count = script_count;
    peer->listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof address;
    if (peer->listener < 0 || bind(peer->listener, (struct sockaddr *)&address, len) != 0 ||
        listen(peer->listener, 16) != 0 ||
        getsockname(peer->listener, (struct sockaddr *)&address, &len) != 0 ||
        uv_thread_create(&peer->thread, run, peer) != 0) {
        fprintf(stderr, "test peer: %s\n", strerror(errno));
        abort();
    }
    peer->port = ntohs(address.sin_port);
}

void test_peer_stop(struct test_peer *peer)
{
    shutdown(peer->listener, SHUT_RDWR); /* accept fails */
    uv_thread_join(&peer->thread);
    close(peer->listener);
}
