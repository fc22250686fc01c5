/* One connection: bytes in, bytes out, and the way from one to the next.
 *
 *   IDLE -> HEAD -> (BODY ->) BUSY -> IDLE ...         a request, its exchange, the next request
 *                    any of them -> ENDING -> LINGER   a last reply, our end shut, the client's close awaited
 *                                        \-> reset     an aborted stream
 *                    any of them -> CLOSED             the client has gone, or a deadline passed
 *
 * Reading. All connections share the server's buffer; what arrives while an exchange is BUSY is kept in
 * `pending` up to HTTP_PIPELINE_BYTES_MAX, beyond which the socket is not read until the exchange is over.
 * Reading goes on while BUSY because it is how a client's going is noticed: end of file means it has gone,
 * although a client might merely have shut its sending half. nginx and Node judge the same way, and the case
 * that matters is the person who closed the window while a machine is computing an answer. A reply that was
 * complete when the end of file came is still delivered. A client that has filled `pending` is noticed at the
 * next write only.
 *
 * Writing. Bytes gather in `out` and are offered to the socket at the end of the read callback or of the
 * loop's turn: one system call for a small reply, for all the replies to a pipelined batch, for all tokens of
 * one wake-up. What the socket does not take at once moves to `writing`, which libuv owns until it is
 * written, while `out` gathers anew. An empty `out` goes back to the server: an idle connection holds no
 * buffer.
 *
 * TLS, where the server has it, stands between the socket and both: what is read is opened record by record
 * (on_sealed), what is in `out` is sealed when it is offered to the socket (to_wire). A handshake has the
 * time that a head has. A clean end says so in TLS, too; a reset does not, so that a client can tell them
 * apart.
 *
 * Ending. A close with unread bytes in the socket makes TCP send a reset, which may destroy the reply on its
 * way (RFC 9112, 9.6). So: shut our end, read and drop for at most HTTP_LINGER_DEADLINE_MS, then close. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/http_int.h"

#define READ_BYTES ((size_t)64 << 10)
_Static_assert(READ_BYTES <= HTTP_PIPELINE_BYTES_MAX, "what one read leaves over must fit into `pending`");
#define OUT_KEPT_BYTES_MAX ((size_t)64 << 10)
#define FULL_TABLE_MESSAGE "the server has as many connections as it can serve; try again in a second"

struct http_write {
    uv_write_t request;
    struct buf bytes;
    size_t left_at_check; /* of the stall deadline */
};

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer);

/* ---- Writing ---- */

void http_conn_soon(struct http_conn *conn)
{
    if (conn->phase == HTTP_CONN_CLOSED || !http_link_is_alone(&conn->ready))
        return;
    http_link_append(&conn->server->ready, &conn->ready);
    http_server_wake(conn->server);
}

struct buf *http_conn_out(struct http_conn *conn)
{
    struct buf *spare = &conn->server->spare_out;
    if (conn->phase == HTTP_CONN_CLOSED)
        return NULL;
    if (!conn->out.data && spare->data) {
        conn->out = *spare;
        buf_init(spare, SIZE_MAX);
    }
    http_conn_soon(conn);
    return &conn->out;
}

void http_conn_put(struct http_conn *conn, const void *bytes, size_t len)
{
    struct buf *out = http_conn_out(conn);
    if (out)
        buf_append(out, bytes, len);
}

/* An emptied buffer. */
static void return_out(struct http_conn *conn, struct buf *out)
{
    struct buf *spare = &conn->server->spare_out;
    if (spare->data || out->cap > OUT_KEPT_BYTES_MAX) {
        buf_release(out);
        return;
    }
    buf_clear(out);
    *spare = *out;
    buf_init(out, SIZE_MAX);
}

size_t http_conn_queue_len(const struct http_conn *conn)
{
    size_t sealed = conn->tls ? tls_conn_wire(conn->tls)->len : 0;
    return conn->out.len + sealed + uv_stream_get_write_queue_size((const uv_stream_t *)&conn->tcp);
}

static void on_written(uv_write_t *request, int status)
{
    struct http_write *write = HTTP_CONTAINER(request, struct http_write, request);
    struct http_conn *conn = request->data;
    buf_release(&write->bytes);
    mem_free(write);
    conn->writing = NULL;
    if (conn->phase == HTTP_CONN_CLOSED)
        return;
    http_deadline_cancel(&conn->write_deadline);
    if (status != 0)
        http_conn_close(conn, false);
    else
        http_conn_turn(conn);
}

/* What the socket did not take: libuv goes on with it as the client reads. */
static void write_later(struct http_conn *conn, struct buf *wire, size_t from)
{
    struct http_write *write = mem_alloc(sizeof *write);
    if (!write) {
        http_conn_close(conn, true);
        return;
    }
    write->bytes = *wire;
    buf_init(wire, SIZE_MAX);
    write->request.data = conn;
    write->left_at_check = write->bytes.len - from;
    uv_buf_t piece = {.base = write->bytes.data + from, .len = write->bytes.len - from};
    if (uv_write(&write->request, (uv_stream_t *)&conn->tcp, &piece, 1, on_written) != 0) {
        buf_release(&write->bytes);
        mem_free(write);
        http_conn_close(conn, true);
        return;
    }
    conn->writing = write;
    conn->server->stats.bytes_written += piece.len;
    http_deadline_set(conn->server, &conn->write_deadline, HTTP_DEADLINE_STALL);
}

/* The bytes that are for the socket; NULL: some are missing in the middle. */
static struct buf *to_wire(struct http_conn *conn)
{
    struct buf *wire = conn->tls ? tls_conn_wire(conn->tls) : &conn->out;
    if (conn->tls && conn->out.len && tls_conn_is_open(conn->tls)) {
        if (!tls_conn_seal(conn->tls, conn->out.data, conn->out.len))
            return NULL;
        return_out(conn, &conn->out);
    }
    return buf_status(wire) == PH_OK ? wire : NULL;
}

void http_conn_flush(struct http_conn *conn)
{
    if (conn->phase == HTTP_CONN_CLOSED || conn->writing)
        return;
    struct buf *wire = buf_status(&conn->out) == PH_OK ? to_wire(conn) : NULL;
    if (!wire) { /* no way to go on */
        http_conn_close(conn, true);
        return;
    }
    if (!wire->len)
        return;
    uv_buf_t piece = {.base = wire->data, .len = wire->len};
    int n = uv_try_write((uv_stream_t *)&conn->tcp, &piece, 1);
    if (n < 0 && n != UV_EAGAIN) {
        http_conn_close(conn, false);
        return;
    }
    size_t taken = n > 0 ? (size_t)n : 0;
    conn->server->stats.bytes_written += taken;
    if (taken == wire->len)
        return_out(conn, wire);
    else
        write_later(conn, wire, taken);
}

/* The last word of TLS; a client whose socket takes no more has no use for it. */
static void say_end(struct http_conn *conn)
{
    if (!conn->tls || conn->writing)
        return;
    struct buf *wire = tls_conn_wire(conn->tls);
    tls_conn_say_end(conn->tls);
    uv_buf_t piece = {.base = wire->data, .len = wire->len};
    if (wire->len && buf_status(wire) == PH_OK)
        (void)uv_try_write((uv_stream_t *)&conn->tcp, &piece, 1);
    buf_release(wire);
}

/* ---- Ending ---- */

/* Accounts for the body's bytes so far; false: those of all requests together are too many. */
static bool hold_body(struct http_conn *conn, size_t len)
{
    conn->server->body_bytes += len - conn->body_bytes;
    conn->body_bytes = len;
    return conn->server->body_bytes <= HTTP_BODIES_BYTES_MAX;
}

static void drop_parser(struct http_conn *conn)
{
    http_server_give_parser(conn->server, conn->parser);
    conn->parser = NULL;
    hold_body(conn, 0);
}

static void on_closed(uv_handle_t *handle)
{
    struct http_conn *conn = handle->data;
    tls_conn_free(conn->tls);
    http_server_lost_conn(conn);
}

void http_conn_close(struct http_conn *conn, bool reset)
{
    if (conn->phase == HTTP_CONN_CLOSED)
        return;
    if (!reset)
        say_end(conn);
    conn->phase = HTTP_CONN_CLOSED;
    http_deadline_cancel(&conn->read_deadline);
    http_deadline_cancel(&conn->write_deadline);
    http_link_remove(&conn->ready);
    drop_parser(conn);
    buf_release(&conn->pending);
    buf_release(&conn->out);
    if (conn->exchange)
        http_exchange_orphan(conn->exchange);
    conn->exchange = NULL;
    if (!reset || uv_tcp_close_reset(&conn->tcp, on_closed) != 0)
        uv_close((uv_handle_t *)&conn->tcp, on_closed);
}

static void start_reading(struct http_conn *conn);

static void on_shutdown(uv_shutdown_t *request, int status)
{
    (void)request;
    (void)status; /* the linger deadline or the end of file closes */
}

static void linger(struct http_conn *conn)
{
    say_end(conn);
    if (conn->saw_eof || uv_shutdown(&conn->shutdown, (uv_stream_t *)&conn->tcp, on_shutdown) != 0) {
        http_conn_close(conn, false);
        return;
    }
    conn->phase = HTTP_CONN_LINGER;
    http_deadline_set(conn->server, &conn->read_deadline, HTTP_DEADLINE_LINGER);
    start_reading(conn);
}

/* A reset throws away what the kernel has not delivered. So it waits for the client's acknowledgement as long
 * as that makes progress, and HTTP_LINGER_DEADLINE_MS beyond. */
static void reset_when_delivered(struct http_conn *conn)
{
    uint32_t left = (uint32_t)net_socket_unacknowledged(&conn->tcp);
    if (left != conn->unacknowledged)
        conn->looks_left = HTTP_LINGER_DEADLINE_MS / HTTP_RESET_LOOK_MS;
    conn->unacknowledged = left;
    if (left == 0 || conn->looks_left-- == 0)
        http_conn_close(conn, true);
    else
        http_deadline_set(conn->server, &conn->read_deadline, HTTP_DEADLINE_RESET);
}

static void end_after_flush(struct http_conn *conn, bool reset)
{
    conn->phase = HTTP_CONN_ENDING;
    conn->ends_by_reset = reset;
    http_deadline_cancel(&conn->read_deadline);
    drop_parser(conn);
    buf_release(&conn->pending);
    start_reading(conn);
    http_conn_soon(conn);
}

static void become_idle(struct http_conn *conn)
{
    conn->phase = HTTP_CONN_IDLE;
    http_deadline_set(conn->server, &conn->read_deadline, HTTP_DEADLINE_IDLE);
}

void http_conn_finish(struct http_conn *conn, bool keep_alive, bool reset)
{
    conn->exchange = NULL;
    conn->wants_drain = false;
    if (keep_alive && !reset && !conn->server->is_stopping) {
        become_idle(conn);
        http_conn_soon(conn);
    } else {
        end_after_flush(conn, reset);
    }
}

void http_conn_stop(struct http_conn *conn)
{
    if (conn->phase == HTTP_CONN_IDLE && http_conn_queue_len(conn))
        end_after_flush(conn, false);
    else if (conn->phase == HTTP_CONN_IDLE)
        http_conn_close(conn, false);
}

static void refuse(struct http_conn *conn, int status, const char *reason)
{
    http_put_error(conn, status, reason, conn->parser && conn->parser->is_head);
    end_after_flush(conn, false);
}

void http_conn_expired(struct http_conn *conn, enum http_deadline_kind kind)
{
    if (kind == HTTP_DEADLINE_HEAD && conn->parser && http_reader_has_begun(conn->parser)) {
        refuse(conn, 408, "the request's header did not arrive in time");
    } else if (kind == HTTP_DEADLINE_BODY) {
        refuse(conn, 408, "the request's body did not arrive in time");
    } else if (kind == HTTP_DEADLINE_RESET) {
        reset_when_delivered(conn);
    } else if (kind == HTTP_DEADLINE_STALL && conn->writing &&
               uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp) < conn->writing->left_at_check) {
        conn->writing->left_at_check = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);
        http_deadline_set(conn->server, &conn->write_deadline, HTTP_DEADLINE_STALL);
    } else {
        http_conn_close(conn, kind == HTTP_DEADLINE_STALL);
    }
}

/* ---- Reading ---- */

/* No further request is begun for a client that does not read the replies to those before. */
static bool wants_bytes(const struct http_conn *conn)
{
    return conn->phase < HTTP_CONN_BUSY &&
           (conn->phase != HTTP_CONN_IDLE || http_conn_queue_len(conn) <= HTTP_WRITE_QUEUE_BYTES_MAX);
}

static void begin_request(struct http_conn *conn)
{
    conn->parser = http_server_take_parser(conn->server);
    if (!conn->parser) {
        refuse(conn, 503, "the server has no memory for this request now");
        return;
    }
    conn->phase = HTTP_CONN_HEAD;
    conn->received_ns = clock_monotonic_ns(conn->server->clock);
    http_deadline_set(conn->server, &conn->read_deadline, HTTP_DEADLINE_HEAD);
}

static void begin_body(struct http_conn *conn, bool is_here_already)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    conn->phase = HTTP_CONN_BODY;
    http_deadline_set(conn->server, &conn->read_deadline, HTTP_DEADLINE_BODY);
    if (conn->parser->expects_continue && !is_here_already)
        http_conn_put(conn, go_on, sizeof go_on - 1);
}

static void dispatch(struct http_conn *conn)
{
    struct http_exchange *exchange = http_exchange_create(conn, conn->parser);
    if (!exchange) {
        refuse(conn, 503, "the server has no memory for this request now");
        return;
    }
    drop_parser(conn); /* the exchange has taken over its body, and accounts for it */
    conn->exchange = exchange;
    conn->phase = HTTP_CONN_BUSY;
    http_deadline_cancel(&conn->read_deadline);
    conn->server->stats.requests_total++;
    conn->server->handle(conn->server->ud, exchange);
}

/* Takes bytes for as long as they are wanted; answers how many. */
static size_t take(struct http_conn *conn, const char *bytes, size_t len)
{
    size_t at = 0;
    while (at < len && wants_bytes(conn)) {
        if (conn->phase == HTTP_CONN_IDLE)
            begin_request(conn);
        if (!conn->parser)
            break;
        size_t used = 0;
        enum http_event event = http_reader_feed(conn->parser, bytes + at, len - at, &used);
        at += used;
        if (!hold_body(conn, conn->parser->body.len)) {
            refuse(conn, 503, "the server holds as many request bodies as it can; try again in a second");
            break;
        }
        if (event == HTTP_EVENT_HEAD)
            begin_body(conn, at < len);
        else if (event == HTTP_EVENT_DONE)
            dispatch(conn);
        else if (event == HTTP_EVENT_REFUSED)
            refuse(conn, conn->parser->status, conn->parser->reason);
    }
    return at;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    struct http_conn *conn = handle->data;
    bool is_ahead = conn->pending.len || !wants_bytes(conn); /* what comes now goes behind `pending` */
    size_t room = is_ahead ? HTTP_PIPELINE_BYTES_MAX - conn->pending.len : READ_BYTES;
    *buffer = uv_buf_init(conn->server->read_buffer, (unsigned)(room < READ_BYTES ? room : READ_BYTES));
}

static void start_reading(struct http_conn *conn)
{
    if (conn->is_reading || conn->saw_eof || conn->phase == HTTP_CONN_CLOSED)
        return;
    if (uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read) == 0)
        conn->is_reading = true;
    else
        http_conn_close(conn, false);
}

static void stop_reading(struct http_conn *conn)
{
    if (conn->is_reading)
        uv_read_stop((uv_stream_t *)&conn->tcp);
    conn->is_reading = false;
}

static void on_bytes(struct http_conn *conn, const char *bytes, size_t len)
{
    conn->server->stats.bytes_read += len;
    size_t taken = conn->pending.len ? 0 : take(conn, bytes, len);
    if (conn->phase >= HTTP_CONN_ENDING)
        taken = len; /* nobody will want it */
    if (taken < len) {
        buf_append(&conn->pending, bytes + taken, len - taken);
        if (buf_status(&conn->pending) != PH_OK)
            http_conn_close(conn, true);
        else if (conn->pending.len >= HTTP_PIPELINE_BYTES_MAX)
            stop_reading(conn);
    }
}

static void on_read_end(struct http_conn *conn, bool is_clean)
{
    conn->saw_eof = true;
    stop_reading(conn);
    /* A reply that is on its way goes on; everything else has lost its reader. */
    bool owes_bytes =
        conn->phase == HTTP_CONN_ENDING || (conn->phase == HTTP_CONN_IDLE && http_conn_queue_len(conn));
    if (!is_clean || !owes_bytes)
        http_conn_close(conn, false);
    else if (conn->phase == HTTP_CONN_IDLE)
        end_after_flush(conn, false);
}

static void on_tls_event(struct http_conn *conn, enum tls_event event)
{
    if (event == TLS_BROKEN) {
        http_conn_flush(conn); /* tells why */
        http_conn_close(conn, false);
    } else if (event == TLS_END) {
        on_read_end(conn, true);
    } else if (tls_conn_wire(conn->tls)->len) {
        http_conn_soon(conn);
    }
}

/* Bytes of TLS. They are all opened at once, so that none waits inside OpenSSL where no event would come for
 * it; `pending` has room for the record whose beginning came earlier. */
static void on_sealed(struct http_conn *conn, const char *bytes, size_t len)
{
    char *plain = conn->server->plain_buffer;
    enum tls_event event = TLS_BYTES;
    tls_conn_feed(conn->tls, bytes, len);
    while (event == TLS_BYTES && conn->phase < HTTP_CONN_ENDING) {
        size_t n = 0;
        bool was_open = tls_conn_is_open(conn->tls);
        event = tls_conn_read(conn->tls, plain, TLS_RECORD_BYTES_MAX, &n);
        if (!was_open && tls_conn_is_open(conn->tls))
            become_idle(conn);
        if (event == TLS_BYTES)
            on_bytes(conn, plain, n);
    }
    if (conn->phase != HTTP_CONN_CLOSED)
        on_tls_event(conn, event);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct http_conn *conn = stream->data;
    if (n < 0)
        on_read_end(conn, n == UV_EOF);
    else if (n > 0 && conn->tls)
        on_sealed(conn, buffer->base, (size_t)n);
    else if (n > 0)
        on_bytes(conn, buffer->base, (size_t)n);
    if (n > 0 && !http_link_is_alone(&conn->ready)) {
        http_link_remove(&conn->ready);
        http_conn_turn(conn);
    }
}

/* ---- Turns ---- */

static void take_pending(struct http_conn *conn)
{
    if (!conn->pending.len || !wants_bytes(conn))
        return;
    struct buf pending = conn->pending; /* a close inside take() must not free it under our feet */
    buf_init(&conn->pending, pending.max);
    size_t taken = take(conn, pending.data, pending.len);
    if (conn->phase >= HTTP_CONN_ENDING || taken == pending.len) {
        buf_release(&pending);
    } else {
        buf_consume(&pending, taken);
        conn->pending = pending;
    }
    if (conn->phase != HTTP_CONN_CLOSED && conn->pending.len < HTTP_PIPELINE_BYTES_MAX)
        start_reading(conn);
}

void http_conn_turn(struct http_conn *conn)
{
    take_pending(conn);
    http_conn_flush(conn);
    if (conn->phase == HTTP_CONN_CLOSED)
        return;
    size_t queued = http_conn_queue_len(conn);
    if (conn->exchange && conn->wants_drain && queued <= HTTP_WRITE_QUEUE_BYTES_MAX / 2) {
        conn->wants_drain = false;
        if (conn->exchange->on_drain)
            conn->exchange->on_drain(conn->exchange->drain_ud);
    } else if (conn->phase == HTTP_CONN_ENDING && queued == 0) {
        if (conn->ends_by_reset)
            reset_when_delivered(conn);
        else
            linger(conn);
    } else if (conn->pending.len && wants_bytes(conn)) {
        http_conn_soon(conn); /* flushing made room for more replies */
    }
}

/* ---- Accepting ---- */

static void name_peer(struct http_conn *conn)
{
    struct sockaddr_storage address = {0};
    int len = sizeof address;
    char host[46] = "?";
    if (uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&address, &len) != 0)
        address.ss_family = AF_UNSPEC;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;
    if (address.ss_family == AF_INET6) {
        uv_ip6_name(v6, host, sizeof host);
        snprintf(conn->peer, sizeof conn->peer, "[%s]:%u", host, (unsigned)ntohs(v6->sin6_port));
    } else if (address.ss_family == AF_INET) {
        uv_ip4_name(v4, host, sizeof host);
        snprintf(conn->peer, sizeof conn->peer, "%s:%u", host, (unsigned)ntohs(v4->sin_port));
    } else {
        snprintf(conn->peer, sizeof conn->peer, "?");
    }
}

static struct http_conn *create(struct http_server *server)
{
    struct http_conn *conn = mem_alloc(sizeof *conn);
    bool is_reserve = !conn;
    if (is_reserve) {
        conn = server->reserve;
        server->reserve = NULL;
    }
    if (!conn)
        return NULL;
    memset(conn, 0, sizeof *conn);
    uv_tcp_init(server->uv, &conn->tcp);
    conn->tcp.data = conn;
    conn->server = server;
    conn->is_reserve = is_reserve;
    http_link_init(&conn->ready);
    http_link_init(&conn->read_deadline.link);
    http_link_init(&conn->write_deadline.link);
    buf_init(&conn->pending, HTTP_PIPELINE_BYTES_MAX);
    buf_init(&conn->out, SIZE_MAX);
    http_link_append(&server->conns, &conn->link);
    return conn;
}

static void count(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    conn->is_refused = conn->is_reserve || server->stats.connections >= server->limits.connections_max;
    if (conn->is_refused) {
        server->refusing++;
        server->stats.refused_total++;
    } else {
        server->stats.connections++;
        server->stats.accepted_total++;
    }
}

/* A handshake for nothing is not worth its cost: beyond the limit there is none. */
static bool begin_tls(struct http_conn *conn)
{
    if (conn->is_refused)
        return false;
    conn->tls = tls_conn_create(conn->server->tls, NULL);
    conn->pending.max += TLS_RECORD_BYTES_MAX;
    http_deadline_set(conn->server, &conn->read_deadline, HTTP_DEADLINE_HEAD);
    return conn->tls != NULL;
}

/* libuv stops listening until the descriptor that it holds is taken; so with no memory for a connection the
 * reserve takes it and closes it. */
void http_conn_accept(struct http_server *server)
{
    struct http_conn *conn = create(server);
    if (!conn) {
        server->accept_waits = true;
        return;
    }
    count(conn);
    int rc = uv_accept((uv_stream_t *)&server->listener, (uv_stream_t *)&conn->tcp);
    if (rc != 0 || conn->is_reserve || server->refusing > HTTP_REFUSALS_MAX) {
        http_conn_close(conn, true);
        return;
    }
    uv_tcp_nodelay(&conn->tcp, 1);
    net_socket_probe_peer(&conn->tcp, HTTP_PEER_PROBE_S, HTTP_PEER_SILENCE_MS);
    become_idle(conn);
    if (conn->server->tls && !begin_tls(conn)) {
        http_conn_close(conn, true);
    } else if (conn->is_refused) {
        refuse(conn, 503, FULL_TABLE_MESSAGE);
    } else {
        name_peer(conn);
        start_reading(conn);
    }
}
