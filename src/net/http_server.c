/* The HTTP server: the listener, the table of connections, deadlines, the graceful stop.
 *
 * Deadlines: five kinds, each of one length, each a list to whose end a new deadline is appended; so every
 * list is ordered by expiry and setting, moving and cancelling cost O(1). One timer runs for the earliest
 * head of the five. It is never moved back when a deadline is cancelled: firing for nothing once in a while
 * is cheaper than keeping it exact at every request.
 *
 * Turns: what must not run inside a handler's call (the next pipelined request, on_gone, `stopped`) or is
 * better done once for several calls (writing) waits in `ready` and `gone`. An idle handle, active only while
 * one of them has something, drains both before the loop sleeps.
 *
 * The end: `stopped` runs when the last connection is closed and the last exchange was ended by its handler;
 * the server then closes its own handles and frees itself in the last close callback. */
#include <string.h>

#include "base/mem.h"
#include "net/http_int.h"

#define READ_BUFFER_BYTES ((size_t)64 << 10)
#define LISTEN_BACKLOG 1024

void http_limits_default(struct http_limits *limits)
{
    *limits = (struct http_limits){
        .body_bytes_max = HTTP_BODY_BYTES_MAX,
        .connections_max = HTTP_CONNECTIONS_MAX,
        .header_deadline_ms = HTTP_HEADER_DEADLINE_MS,
        .body_deadline_ms = HTTP_BODY_DEADLINE_MS,
        .idle_deadline_ms = HTTP_IDLE_DEADLINE_MS,
        .write_stall_deadline_ms = HTTP_WRITE_STALL_DEADLINE_MS,
        .stop_grace_ms = HTTP_STOP_GRACE_MS,
    };
}

/* ---- Opening ---- */

static enum ph_status resolve(const char *host, uint16_t port, struct sockaddr_storage *address,
                              struct ph_err *err)
{
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)address) == 0 ||
        uv_ip6_addr(host, port, (struct sockaddr_in6 *)address) == 0)
        return PH_OK;
    return ph_fail(err, PH_ERR_ARG,
                   "cannot listen on \"%s\": give a numeric address such as 127.0.0.1 or ::", host);
}

static void on_connection(uv_stream_t *listener, int status)
{
    if (status == 0)
        http_conn_accept(listener->data);
}

static enum ph_status start_listening(struct http_server *server, const struct http_server_params *params,
                                      struct ph_err *err)
{
    struct sockaddr_storage address = {0};
    enum ph_status status = resolve(params->host, params->port, &address, err);
    if (status != PH_OK)
        return status;
    int len = sizeof address;
    int rc = uv_tcp_bind(&server->listener, (const struct sockaddr *)&address, 0);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&server->listener, LISTEN_BACKLOG, on_connection);
    if (rc == 0)
        rc = uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &len);
    if (rc != 0)
        return ph_fail(err, PH_ERR_IO, "cannot listen on %s port %u: %s", params->host,
                       (unsigned)params->port, uv_strerror(rc));
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;
    server->port = ntohs(address.ss_family == AF_INET6 ? v6->sin6_port : v4->sin_port);
    return PH_OK;
}

static void free_server(struct http_server *server)
{
    for (size_t i = 0; i < server->spare_parser_count; i++) {
        http_reader_release(server->spare_parsers[i]);
        mem_free(server->spare_parsers[i]);
    }
    buf_release(&server->spare_out);
    arena_pool_release(&server->pool);
    tls_context_free(server->tls);
    mem_free(server->plain_buffer);
    mem_free(server->reserve);
    mem_free(server->read_buffer);
    mem_free(server);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http_server *server = handle->data;
    if (--server->handles_open == 0)
        free_server(server);
}

static void close_handle(void *handle)
{
    uv_close(handle, on_handle_closed);
}

static void close_handles(struct http_server *server)
{
    if (!uv_is_closing((uv_handle_t *)&server->listener))
        close_handle(&server->listener);
    close_handle(&server->timer);
    close_handle(&server->grace);
    close_handle(&server->turn);
}

static void init_handles(struct http_server *server)
{
    uv_tcp_init(server->uv, &server->listener);
    uv_timer_init(server->uv, &server->timer);
    uv_timer_init(server->uv, &server->grace);
    uv_idle_init(server->uv, &server->turn);
    server->listener.data = server->timer.data = server->grace.data = server->turn.data = server;
    server->handles_open = 4;
}

static void init_lists(struct http_server *server)
{
    http_link_init(&server->conns);
    http_link_init(&server->ready);
    http_link_init(&server->gone);
    for (int kind = 0; kind < HTTP_DEADLINE_COUNT; kind++)
        http_link_init(&server->deadlines[kind]);
    server->timer_due_ms = UINT64_MAX;
}

static enum ph_status open_tls(struct http_server *server, const struct http_server_params *params,
                               struct ph_err *err)
{
    if (!params->tls_certificate && !params->tls_key)
        return PH_OK;
    if (!params->tls_certificate || !params->tls_key)
        return ph_fail(err, PH_ERR_ARG, "TLS needs both a certificate and its key: %s is missing",
                       params->tls_key ? "the certificate" : "the key");
    server->plain_buffer = mem_alloc(TLS_RECORD_BYTES_MAX);
    if (!server->plain_buffer)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for TLS");
    return tls_server_context(&server->tls, params->tls_certificate, params->tls_key, err);
}

enum ph_status http_server_open(struct http_server **out, struct net_loop *loop,
                                const struct http_server_params *params, struct ph_err *err)
{
    struct http_server *server = mem_calloc(1, sizeof *server);
    char *read_buffer = mem_alloc(READ_BUFFER_BYTES);
    struct http_conn *reserve = mem_alloc(sizeof *reserve);
    uint64_t seed = 0;
    if (!server || !read_buffer || !reserve || entropy_fill(&seed, sizeof seed) != 0) {
        mem_free(server);
        mem_free(read_buffer);
        mem_free(reserve);
        return ph_fail(err, PH_ERR_NOMEM, "no memory or no entropy for an HTTP server");
    }
    server->uv = net_loop_uv(loop);
    server->clock = params->clock;
    server->limits = params->limits;
    server->handle = params->handle;
    server->encode_error = params->encode_error;
    server->ud = params->ud;
    server->read_buffer = read_buffer;
    server->reserve = reserve;
    server->date_s = -1;
    rng_init(&server->rng, seed);
    buf_init(&server->spare_out, SIZE_MAX);
    init_lists(server);
    init_handles(server);
    enum ph_status status = open_tls(server, params, err);
    if (status == PH_OK)
        status = start_listening(server, params, err);
    if (status != PH_OK)
        close_handles(server); /* and then free_server, when the loop runs or is freed */
    else
        *out = server;
    return status;
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

void http_server_stats(const struct http_server *server, struct http_stats *out)
{
    *out = server->stats;
}

/* ---- Turns ---- */

static void end_if_stopped(struct http_server *server)
{
    if (!server->is_stopping || server->has_stopped || !http_link_is_alone(&server->conns) ||
        server->stats.exchanges)
        return;
    server->has_stopped = true;
    if (server->stopped)
        server->stopped(server->stopped_ud);
    close_handles(server);
}

static void on_turn(uv_idle_t *handle)
{
    struct http_server *server = handle->data;
    while (!http_link_is_alone(&server->gone)) {
        struct http_exchange *exchange = HTTP_CONTAINER(server->gone.next, struct http_exchange, gone_link);
        http_link_remove(&exchange->gone_link);
        http_exchange_tell_gone(exchange);
    }
    /* Only those that are there now: a connection that asks for another turn gets it after the others of the
     * loop had theirs. */
    struct http_link now;
    http_link_init(&now);
    while (!http_link_is_alone(&server->ready)) {
        struct http_link *link = server->ready.next;
        http_link_remove(link);
        http_link_append(&now, link);
    }
    while (!http_link_is_alone(&now)) {
        struct http_conn *conn = HTTP_CONTAINER(now.next, struct http_conn, ready);
        http_link_remove(&conn->ready);
        http_conn_turn(conn);
    }
    if (http_link_is_alone(&server->ready) && http_link_is_alone(&server->gone))
        uv_idle_stop(&server->turn);
    end_if_stopped(server);
}

void http_server_wake(struct http_server *server)
{
    if (!uv_is_closing((uv_handle_t *)&server->turn))
        uv_idle_start(&server->turn, on_turn);
}

/* ---- Deadlines ---- */

static void on_deadline(uv_timer_t *timer);

static uint32_t deadline_ms(const struct http_server *server, enum http_deadline_kind kind)
{
    const struct http_limits *limits = &server->limits;
    const uint32_t lengths[HTTP_DEADLINE_COUNT] = {
        [HTTP_DEADLINE_IDLE] = limits->idle_deadline_ms,
        [HTTP_DEADLINE_HEAD] = limits->header_deadline_ms,
        [HTTP_DEADLINE_BODY] = limits->body_deadline_ms,
        [HTTP_DEADLINE_LINGER] = HTTP_LINGER_DEADLINE_MS,
        [HTTP_DEADLINE_RESET] = HTTP_RESET_LOOK_MS,
        [HTTP_DEADLINE_STALL] = limits->write_stall_deadline_ms,
    };
    return lengths[kind];
}

static void run_timer(struct http_server *server, uint64_t due_ms)
{
    if (due_ms >= server->timer_due_ms || uv_is_closing((uv_handle_t *)&server->timer))
        return;
    server->timer_due_ms = due_ms;
    uint64_t now_ms = uv_now(server->uv);
    uv_timer_start(&server->timer, on_deadline, due_ms > now_ms ? due_ms - now_ms : 0, 0);
}

void http_deadline_set(struct http_server *server, struct http_deadline *deadline,
                       enum http_deadline_kind kind)
{
    http_link_remove(&deadline->link);
    http_link_append(&server->deadlines[kind], &deadline->link);
    deadline->due_ms = uv_now(server->uv) + deadline_ms(server, kind);
    run_timer(server, deadline->due_ms);
}

void http_deadline_cancel(struct http_deadline *deadline)
{
    http_link_remove(&deadline->link);
}

static void expire(struct http_server *server, enum http_deadline_kind kind)
{
    struct http_link *list = &server->deadlines[kind];
    while (!http_link_is_alone(list)) {
        struct http_deadline *deadline = HTTP_CONTAINER(list->next, struct http_deadline, link);
        if (deadline->due_ms > uv_now(server->uv)) {
            run_timer(server, deadline->due_ms);
            return;
        }
        http_link_remove(&deadline->link);
        struct http_conn *conn = kind == HTTP_DEADLINE_STALL
                                     ? HTTP_CONTAINER(deadline, struct http_conn, write_deadline)
                                     : HTTP_CONTAINER(deadline, struct http_conn, read_deadline);
        http_conn_expired(conn, kind);
    }
}

static void on_deadline(uv_timer_t *timer)
{
    struct http_server *server = timer->data;
    server->timer_due_ms = UINT64_MAX;
    for (int kind = 0; kind < HTTP_DEADLINE_COUNT; kind++)
        expire(server, (enum http_deadline_kind)kind);
}

/* ---- Parsers: needed only while a request arrives, so a few serve thousands of connections ---- */

struct http_reader *http_server_take_parser(struct http_server *server)
{
    if (server->spare_parser_count)
        return server->spare_parsers[--server->spare_parser_count];
    struct http_reader *parser = mem_alloc(sizeof *parser);
    if (parser)
        http_reader_init(parser, server->limits.body_bytes_max);
    return parser;
}

void http_server_give_parser(struct http_server *server, struct http_reader *parser)
{
    if (!parser)
        return;
    if (server->spare_parser_count < HTTP_SPARE_PARSERS) {
        http_reader_clear(parser);
        server->spare_parsers[server->spare_parser_count++] = parser;
        return;
    }
    http_reader_release(parser);
    mem_free(parser);
}

/* ---- The end ---- */

void http_server_lost_conn(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    http_link_remove(&conn->link);
    if (conn->is_refused)
        server->refusing--;
    else
        server->stats.connections--;
    if (conn->is_reserve)
        server->reserve = conn;
    else
        mem_free(conn);
    if (server->is_stopping) {
        http_server_wake(server);
    } else if (server->accept_waits) {
        server->accept_waits = false;
        http_conn_accept(server);
    }
}

static void on_grace_over(uv_timer_t *timer)
{
    struct http_server *server = timer->data;
    for (struct http_link *link = server->conns.next; link != &server->conns; link = link->next)
        http_conn_close(HTTP_CONTAINER(link, struct http_conn, link), true);
}

void http_server_stop(struct http_server *server, void (*stopped)(void *ud), void *ud)
{
    if (server->is_stopping)
        return;
    server->is_stopping = true;
    server->stopped = stopped;
    server->stopped_ud = ud;
    close_handle(&server->listener);
    uv_timer_start(&server->grace, on_grace_over, server->limits.stop_grace_ms, 0);
    for (struct http_link *link = server->conns.next; link != &server->conns; link = link->next)
        http_conn_stop(HTTP_CONTAINER(link, struct http_conn, link));
    http_server_wake(server);
}
