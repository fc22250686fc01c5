/* What the HTTP client costs, and net's own server, each on a thread: CPU time of that thread alone.
 *
 *   build/bench_http_client [requests [streams]]
 *
 * First requests of 1 KB with replies of 1 KB over kept connections, 1, 16 and 64 at a time; then streams
 * with an event of 200 bytes every 2 ms each. The bars: 25 us a request, 5 us an event. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "net/net.h"

#define BODY_BYTES 1024
#define EVENT_BYTES 200
#define EVENTS_EACH 500

struct stream {
    struct http_exchange *exchange;
    int sent;
};

struct server {
    struct net_loop *loop;
    struct http_server *http;
    struct net_wake *stop;
    struct net_timer *timer;
    struct stream streams[4096];
    size_t stream_count;
    clockid_t clock;
};

struct client {
    struct net_loop *loop;
    struct http_client *http;
    struct server *server;
    char url[100];
    size_t to_start, running, events;
    bool streams;
    size_t plan_at, requests, streams_wanted;
    double cpu_began, server_cpu_began;
    uint64_t wall_began;
};

static char body[BODY_BYTES];

static double cpu_us(clockid_t clock)
{
    struct timespec used;
    clock_gettime(clock, &used);
    return (double)used.tv_sec * 1e6 + (double)used.tv_nsec / 1e3;
}

/* ---- The server ---- */

static void on_tick(void *ud)
{
    struct server *server = ud;
    for (size_t i = 0; i < server->stream_count; i++) {
        struct stream *stream = &server->streams[i];
        http_stream_write(stream->exchange, body, EVENT_BYTES);
        if (++stream->sent < EVENTS_EACH)
            continue;
        http_stream_end(stream->exchange);
        *stream = server->streams[--server->stream_count];
        i--;
    }
}

static void handle(void *ud, struct http_exchange *exchange)
{
    struct server *server = ud;
    if (strcmp(http_exchange_request(exchange)->path, "/stream") != 0) {
        http_reply(exchange, 200, "application/json", body, sizeof body);
        return;
    }
    http_stream_begin(exchange, 200, "text/event-stream", NULL, NULL);
    server->streams[server->stream_count++] = (struct stream){.exchange = exchange};
}

static void encode_error(void *ud, int status, const char *message, struct buf *out)
{
    (void)ud;
    buf_printf(out, "%d %s", status, message);
}

static void on_stopped(void *ud)
{
    net_loop_stop(((struct server *)ud)->loop);
}

static void on_stop(void *ud)
{
    struct server *server = ud;
    net_timer_close(server->timer);
    net_wake_close(server->stop);
    http_server_stop(server->http, on_stopped, server);
}

static void run_server(void *ud)
{
    net_loop_run(((struct server *)ud)->loop);
}

/* ---- The client ---- */

static void next_plan(struct client *client);

static void on_head(void *ud, int status, const struct http_header *headers, size_t count)
{
    (void)ud;
    (void)headers;
    (void)count;
    if (status != 200)
        abort();
}

static bool on_body(void *ud, const char *bytes, size_t len)
{
    (void)bytes;
    ((struct client *)ud)->events += len / EVENT_BYTES;
    return true;
}

static void start(struct client *client);

static void on_end(void *ud, enum http_call_end how, const char *message)
{
    struct client *client = ud;
    if (how != HTTP_CALL_WHOLE) {
        fprintf(stderr, "%d: %s\n", (int)how, message);
        abort();
    }
    client->running--;
    if (client->to_start)
        start(client);
    else if (!client->running)
        next_plan(client);
}

static void start(struct client *client)
{
    static const struct http_header headers[] = {{"content-type", "application/json"},
                                                 {"authorization", "Bearer sk-0123456789012345678901234567"}};
    struct http_call *call;
    struct ph_err err;
    struct http_call_params params = {.method = "POST",
                                      .url = client->url,
                                      .headers = headers,
                                      .header_count = 2,
                                      .body = body,
                                      .body_len = sizeof body};
    struct http_call_sink sink = {on_head, on_body, on_end, client};
    client->to_start--;
    client->running++;
    if (http_call_start(&call, client->http, &params, &sink, &err) != PH_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
}

static void report(const struct client *client)
{
    double cpu = cpu_us(CLOCK_THREAD_CPUTIME_ID) - client->cpu_began;
    double server_cpu = cpu_us(client->server->clock) - client->server_cpu_began;
    double wall = (double)(uv_hrtime() - client->wall_began) / 1e3;
    size_t n = client->streams ? client->events : client->requests;
    printf("%-8s %8zu in %6.2f s, client %6.2f us CPU each, server %6.2f, client CPU / wall %.2f\n",
           client->streams ? "events" : "requests", n, wall / 1e6, cpu / (double)n, server_cpu / (double)n,
           cpu / wall);
}

static void next_plan(struct client *client)
{
    static const size_t at_once[] = {16, 1, 16, 64, 64}; /* the first to warm up */
    size_t plans = sizeof at_once / sizeof *at_once;
    if (client->wall_began)
        report(client);
    if (client->plan_at > plans || (client->plan_at == plans && !client->streams_wanted)) {
        net_wake_call(client->server->stop);
        http_client_close(client->http);
        net_loop_stop(client->loop);
        return;
    }
    client->streams = client->plan_at == plans;
    size_t together = client->streams ? client->streams_wanted : at_once[client->plan_at];
    client->plan_at++;
    printf("%4zu at once: ", together);
    snprintf(client->url, sizeof client->url, "http://127.0.0.1:%u/%s",
             (unsigned)http_server_port(client->server->http),
             client->streams ? "stream" : "v1/chat/completions");
    client->to_start = client->streams ? together : client->requests;
    client->events = 0;
    client->cpu_began = cpu_us(CLOCK_THREAD_CPUTIME_ID);
    client->server_cpu_began = cpu_us(client->server->clock);
    client->wall_began = uv_hrtime();
    for (size_t i = 0; i < together; i++)
        start(client);
}

int main(int argc, char **argv)
{
    static struct server server;
    struct client client = {.server = &server};
    struct ph_err err = {0};
    uv_thread_t thread;
    client.requests = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 50000;
    client.streams_wanted = argc > 2 ? (size_t)strtoul(argv[2], NULL, 10) : 256;
    memset(body, 'x', sizeof body);
    struct http_server_params params = {.host = "127.0.0.1",
                                        .clock = clock_system(),
                                        .handle = handle,
                                        .encode_error = encode_error,
                                        .ud = &server};
    http_limits_default(&params.limits);
    if (net_loop_create(&server.loop, &err) != PH_OK || net_loop_create(&client.loop, &err) != PH_OK ||
        http_server_open(&server.http, server.loop, &params, &err) != PH_OK ||
        net_wake_open(&server.stop, server.loop, on_stop, &server) != PH_OK ||
        net_timer_open(&server.timer, server.loop, on_tick, &server) != PH_OK ||
        http_client_open(&client.http,
                         &(struct http_client_params){.loop = client.loop, .clock = clock_system()},
                         &err) != PH_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    net_timer_start(server.timer, 2, 2);
    if (uv_thread_create(&thread, run_server, &server) != 0 ||
        pthread_getcpuclockid(thread, &server.clock) != 0)
        return 1;
    next_plan(&client);
    net_loop_run(client.loop);
    uv_thread_join(&thread);
    net_loop_free(server.loop);
    net_loop_free(client.loop);
    return 0;
}
