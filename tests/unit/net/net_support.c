#include "net_support.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct held {
    struct held *next;
    struct test_server *server;
    struct http_exchange *exchange;
    struct net_timer *timer;
    size_t sent;
    bool streams;
};

uint64_t test_now_ms(void)
{
    return uv_hrtime() / 1000000;
}

void test_pause(void)
{
    poll(NULL, 0, 1);
}

/* ---- Handlers ---- */

static struct held *hold(struct test_server *server, struct http_exchange *exchange)
{
    struct held *held = calloc(1, sizeof *held);
    if (!held)
        abort();
    held->server = server;
    held->exchange = exchange;
    held->next = server->held;
    server->held = held;
    server->held_count++;
    return held;
}

static void unhold(struct held *held)
{
    struct held **at = &held->server->held;
    while (*at != held)
        at = &(*at)->next;
    *at = held->next;
    held->server->held_count--;
    net_timer_close(held->timer);
    free(held);
}

static void end_held(struct held *held)
{
    if (held->streams)
        http_stream_end(held->exchange);
    else
        http_reply(held->exchange, 200, "text/plain", "released", 8);
    unhold(held);
}

static void on_held_gone(void *ud)
{
    struct held *held = ud;
    struct test_server *server = held->server;
    end_held(held);
    server->gone_count++;
}

static void on_later(void *ud)
{
    struct held *held = ud;
    http_reply(held->exchange, 200, "text/plain", "late", 4);
    unhold(held);
}

static void handle_hello(struct test_server *server, struct http_exchange *exchange)
{
    (void)server;
    http_reply(exchange, 200, "text/plain", "hello", 5);
}

/* Done only when the client has the reply. */
static void handle_two_steps(struct test_server *server, struct http_exchange *exchange)
{
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    http_reply_send(exchange, 200, "text/plain", "first", 5);
    while (!server->client_has_it && test_now_ms() < until)
        test_pause();
    http_reply_done(exchange);
}

static void handle_echo(struct test_server *server, struct http_exchange *exchange)
{
    (void)server;
    const struct http_request *request = http_exchange_request(exchange);
    http_set_header(exchange, "x-method", request->method);
    http_set_header(exchange, "x-path", request->path);
    http_set_header(exchange, "x-query", request->query);
    http_set_header(exchange, "x-bad", "a\r\nb: c");
    http_set_header(exchange, "content-length", "7");
    http_reply(exchange, 200, "application/octet-stream", request->body, request->body_len);
}

static void handle_length(struct test_server *server, struct http_exchange *exchange)
{
    (void)server;
    char text[32];
    int len = snprintf(text, sizeof text, "%zu", http_exchange_request(exchange)->body_len);
    http_reply(exchange, 200, "text/plain", text, (size_t)len);
}

static void handle_stream(struct test_server *server, struct http_exchange *exchange)
{
    (void)server;
    http_stream_begin(exchange, 200, "text/event-stream", NULL, NULL);
    http_stream_write(exchange, "one", 3);
    http_stream_write(exchange, "", 0);
    http_stream_write(exchange, "two", 3);
    http_stream_write(exchange, "three", 5);
    http_stream_end(exchange);
}

static void handle_abort(struct test_server *server, struct http_exchange *exchange)
{
    (void)server;
    http_stream_begin(exchange, 200, "text/event-stream", NULL, NULL);
    http_stream_write(exchange, "partial", 7);
    http_stream_abort(exchange);
}

/* More than a client's window, less than the kernel takes at once. */
static void handle_big_abort(struct test_server *server, struct http_exchange *exchange)
{
    static const char block[BIG_ABORT_BYTES] = {'x'};
    (void)server;
    http_stream_begin(exchange, 200, "text/event-stream", NULL, NULL);
    http_stream_write(exchange, block, sizeof block);
    http_stream_abort(exchange);
}

/* A big reply at once. */
static void handle_big(struct test_server *server, struct http_exchange *exchange)
{
    static const char block[BIG_BYTES] = {'x'};
    (void)server;
    http_reply(exchange, 200, "text/plain", block, sizeof block);
}

/* Answered from a wake-up, that is, in the same round of events in which more requests are read. */
static void handle_soon(struct test_server *server, struct http_exchange *exchange)
{
    http_on_gone(exchange, on_held_gone, hold(server, exchange));
    net_wake_call(server->soon);
}

static void handle_later(struct test_server *server, struct http_exchange *exchange)
{
    struct held *held = hold(server, exchange);
    if (net_timer_open(&held->timer, server->loop, on_later, held) != PH_OK)
        abort();
    http_on_gone(exchange, on_held_gone, held);
    net_timer_start(held->timer, 1, 0);
}

static void handle_hold(struct test_server *server, struct http_exchange *exchange)
{
    http_on_gone(exchange, on_held_gone, hold(server, exchange));
}

static void handle_held_stream(struct test_server *server, struct http_exchange *exchange)
{
    struct held *held = hold(server, exchange);
    held->streams = true;
    http_on_gone(exchange, on_held_gone, held);
    http_stream_begin(exchange, 200, "text/event-stream", NULL, NULL);
    http_stream_write(exchange, "begun", 5);
}

static void flood(void *ud)
{
    static const char block[10000] = {'x'};
    struct held *held = ud;
    held->server->drain_count++;
    bool goes_on = true;
    while (goes_on && held->sent < FLOOD_BYTES) {
        size_t left = FLOOD_BYTES - held->sent;
        size_t len = left < sizeof block ? left : sizeof block;
        goes_on = http_stream_write(held->exchange, block, len);
        held->sent += len;
    }
    if (goes_on)
        end_held(held);
    else
        held->server->stall_count++;
}

static void handle_flood(struct test_server *server, struct http_exchange *exchange)
{
    struct held *held = hold(server, exchange);
    held->streams = true;
    http_on_gone(exchange, on_held_gone, held);
    http_stream_begin(exchange, 200, "application/octet-stream", flood, held);
    flood(held);
}

static void handle_rude(struct test_server *server, struct http_exchange *exchange)
{
    static const char block[100000] = {'x'};
    struct held *held = hold(server, exchange);
    held->streams = true;
    http_on_gone(exchange, on_held_gone, held);
    http_stream_begin(exchange, 200, "application/octet-stream", NULL, NULL);
    for (int i = 0; i < 1000; i++)
        http_stream_write(exchange, block, sizeof block);
}

static const struct {
    const char *path;
    void (*handle)(struct test_server *server, struct http_exchange *exchange);
} routes[] = {
    {"/hello", handle_hello},
    {"/echo", handle_echo},
    {"/length", handle_length},
    {"/stream", handle_stream},
    {"/abort", handle_abort},
    {"/later", handle_later},
    {"/hold", handle_hold},
    {"/flood", handle_flood},
    {"/held-stream", handle_held_stream},
    {"/rude", handle_rude},
    {"/big", handle_big},
    {"/soon", handle_soon},
    {"/big-abort", handle_big_abort},
    {"/two-steps", handle_two_steps},
};

static void handle(void *ud, struct http_exchange *exchange)
{
    struct test_server *server = ud;
    server->handled_count++;
    const char *path = http_exchange_request(exchange)->path;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(path, routes[i].path) == 0) {
            routes[i].handle(server, exchange);
            return;
        }
    }
    http_reply(exchange, 404, "text/plain", "no such route", 13);
}

static void encode_error(void *ud, int status, const char *message, struct buf *out)
{
    (void)ud;
    buf_printf(out, "{\"error\":{\"message\":\"%s\",\"code\":%d}}", message, status);
}

/* ---- The server's thread ---- */

static void on_stopped(void *ud)
{
    struct test_server *server = ud;
    server->has_stopped = true;
    http_server_stats(server->http, &server->stats);
    net_wake_close(server->wake);
    net_wake_close(server->soon);
    net_loop_stop(server->loop);
}

static void do_stop(struct test_server *server)
{
    http_server_stop(server->http, on_stopped, server);
}

static void do_release(struct test_server *server)
{
    while (server->held)
        end_held(server->held);
}

static void do_stats(struct test_server *server)
{
    http_server_stats(server->http, &server->stats);
}

static void on_soon(void *ud)
{
    do_release(ud);
}

static void on_command(void *ud)
{
    struct test_server *server = ud;
    server->command(server);
    uv_sem_post(&server->commanded);
}

static void command(struct test_server *server, void (*fn)(struct test_server *))
{
    server->command = fn;
    net_wake_call(server->wake);
    uv_sem_wait(&server->commanded);
}

static void run(void *ud)
{
    struct test_server *server = ud;
    net_loop_run(server->loop);
}

void test_server_start(struct test_server *server, const struct http_limits *limits)
{
    test_server_start_tls(server, limits, NULL, NULL);
}

void test_server_start_tls(struct test_server *server, const struct http_limits *limits,
                           const char *certificate, const char *key)
{
    struct ph_err err = {0};
    memset(server, 0, sizeof *server);
    struct http_server_params params = {.host = "127.0.0.1",
                                        .clock = clock_system(),
                                        .tls_certificate = certificate,
                                        .tls_key = key,
                                        .handle = handle,
                                        .encode_error = encode_error,
                                        .ud = server};
    http_limits_default(&params.limits);
    if (limits)
        params.limits = *limits;
    if (net_loop_create(&server->loop, &err) != PH_OK ||
        http_server_open(&server->http, server->loop, &params, &err) != PH_OK ||
        net_wake_open(&server->wake, server->loop, on_command, server) != PH_OK ||
        net_wake_open(&server->soon, server->loop, on_soon, server) != PH_OK ||
        uv_sem_init(&server->commanded, 0) != 0 || uv_thread_create(&server->thread, run, server) != 0) {
        fprintf(stderr, "test server: %s\n", err.message);
        abort();
    }
    server->port = http_server_port(server->http);
}

void test_server_begin_stop(struct test_server *server)
{
    command(server, do_stop);
}

void test_server_join(struct test_server *server)
{
    uv_thread_join(&server->thread);
    uv_sem_destroy(&server->commanded);
    net_loop_free(server->loop);
}

void test_server_stop(struct test_server *server)
{
    test_server_begin_stop(server);
    test_server_join(server);
}

void test_server_release(struct test_server *server)
{
    command(server, do_release);
}

struct http_stats test_server_stats(struct test_server *server)
{
    command(server, do_stats);
    return server->stats;
}

bool test_wait_count(atomic_size_t *counter, size_t value)
{
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (*counter < value && test_now_ms() < until)
        test_pause();
    return *counter >= value;
}

/* ---- The client ---- */

int test_connect(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        fprintf(stderr, "test client: %s\n", strerror(errno));
        abort();
    }
    return fd;
}

bool test_send(int fd, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

bool test_send_text(int fd, const char *text)
{
    return test_send(fd, text, strlen(text));
}

size_t test_read(int fd, char *out, size_t size, const char *until, int *end)
{
    uint64_t deadline = test_now_ms() + TEST_DEADLINE_MS;
    size_t len = 0;
    int how = 0;
    out[0] = 0;
    while (len + 1 < size && (!until || !strstr(out, until))) {
        uint64_t now = test_now_ms();
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        if (now >= deadline || poll(&waiting, 1, (int)(deadline - now)) <= 0)
            break;
        ssize_t n = recv(fd, out + len, size - 1 - len, 0);
        if (n <= 0) {
            how = n == 0 ? 1 : 2;
            break;
        }
        len += (size_t)n;
        out[len] = 0;
    }
    if (end)
        *end = how;
    return len;
}
