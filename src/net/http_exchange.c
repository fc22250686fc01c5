/* One exchange: the request as its handler sees it, and the reply.
 *
 * An exchange outlives its connection: when the client goes, the exchange is orphaned (conn NULL), the
 * handler is told through on_gone in a later turn of the loop, and whatever it still writes goes nowhere
 * until it ends the exchange. So a handler has one duty, to end every exchange once, and no race to think
 * about.
 *
 * Framing is net's alone: content-length, transfer-encoding, connection and x-request-id of a handler are
 * dropped, except that `connection: close` is obeyed. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/id.h"
#include "base/mem.h"
#include "net/http_int.h"

#define OUT_FLUSH_BYTES ((size_t)64 << 10) /* do not gather more than this for the end of the turn */
#define ERROR_BODY_BYTES_MAX ((size_t)16 << 10)

/* ---- The request ---- */

static const char *request_id(struct http_exchange *exchange)
{
    const char *sent = http_request_header(&exchange->request, "x-request-id");
    size_t len = sent ? strlen(sent) : 0;
    bool is_sane = len > 0 && len <= HTTP_REQUEST_ID_BYTES_MAX;
    for (size_t i = 0; is_sane && i < len; i++)
        is_sane = http_char_is((unsigned char)sent[i], HTTP_CHAR_HOST);
    if (is_sane)
        return sent;
    char made[ID_TEXT_MAX];
    id_make(&exchange->server->rng, "req-", made);
    return arena_strdup(&exchange->arena, made);
}

/* One copy of the parser's text serves all the strings of the request. */
static bool fill_request(struct http_exchange *exchange, const struct http_conn *conn,
                         struct http_reader *parser)
{
    struct arena *arena = &exchange->arena;
    struct http_request *request = &exchange->request;
    char *text = arena_alloc(arena, parser->text.len);
    struct http_header *headers = arena_alloc(arena, parser->field_count * sizeof *headers);
    if (!text || !headers)
        return false;
    memcpy(text, parser->text.data, parser->text.len);
    for (size_t i = 0; i < parser->field_count; i++) {
        const struct http_field *field = &parser->fields[i];
        headers[i] = (struct http_header){text + field->name, text + field->value};
        request->header_names |= NAME_BIT(headers[i].name, field->value - field->name - 1);
    }
    request->method = text;
    request->path = text + parser->path;
    request->query = text + parser->query;
    request->headers = headers;
    request->header_count = parser->field_count;
    request->peer = arena_strdup(arena, conn->peer);
    request->id = request_id(exchange);
    request->received_ns = conn->received_ns;
    request->body_len = parser->body.len;
    exchange->server->body_bytes += parser->body.len;
    exchange->body = buf_take(&parser->body);
    request->body = exchange->body ? exchange->body : "";
    return request->peer && request->id;
}

static void free_exchange(struct http_exchange *exchange)
{
    http_link_remove(&exchange->gone_link);
    arena_release(&exchange->arena);
    mem_free(exchange->body);
    exchange->server->body_bytes -= exchange->request.body_len;
    exchange->server->stats.exchanges--;
    if (exchange->server->is_stopping)
        http_server_wake(exchange->server);
    mem_free(exchange);
}

struct http_exchange *http_exchange_create(struct http_conn *conn, struct http_reader *parser)
{
    struct http_exchange *exchange = mem_calloc(1, sizeof *exchange);
    if (!exchange)
        return NULL;
    exchange->server = conn->server;
    exchange->server->stats.exchanges++;
    arena_init_pooled(&exchange->arena, HTTP_REQUEST_ARENA_BYTES_MAX, &exchange->server->pool);
    http_link_init(&exchange->gone_link);
    exchange->headers_end = &exchange->headers;
    exchange->is_head = parser->is_head;
    exchange->is_http10 = parser->version < 11;
    exchange->keep_alive = parser->keep_alive;
    if (!fill_request(exchange, conn, parser)) {
        free_exchange(exchange);
        return NULL;
    }
    exchange->conn = conn;
    return exchange;
}

const struct http_request *http_exchange_request(const struct http_exchange *exchange)
{
    return &exchange->request;
}

const char *http_header_find(const struct http_header *headers, size_t count, const char *lower_name)
{
    for (size_t i = 0; i < count; i++)
        if (headers[i].name[0] == lower_name[0] && strcmp(headers[i].name, lower_name) == 0)
            return headers[i].value;
    return NULL;
}

struct arena *http_exchange_arena(struct http_exchange *exchange)
{
    return &exchange->arena;
}

/* ---- A client that goes ---- */

static void tell_gone_soon(struct http_exchange *exchange)
{
    if (!exchange->on_gone || exchange->was_told_gone || !http_link_is_alone(&exchange->gone_link))
        return;
    http_link_append(&exchange->server->gone, &exchange->gone_link);
    http_server_wake(exchange->server);
}

void http_on_gone(struct http_exchange *exchange, void (*fn)(void *ud), void *ud)
{
    exchange->on_gone = fn;
    exchange->gone_ud = ud;
    if (!exchange->conn)
        tell_gone_soon(exchange);
}

void http_exchange_orphan(struct http_exchange *exchange)
{
    exchange->conn = NULL;
    tell_gone_soon(exchange);
}

void http_exchange_tell_gone(struct http_exchange *exchange)
{
    exchange->was_told_gone = true;
    if (exchange->on_gone)
        exchange->on_gone(exchange->gone_ud);
}

/* ---- Reply heads ---- */

static const struct status_text {
    int status;
    const char *text;
} status_texts[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {424, "Failed Dependency"},
    {425, "Too Early"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
    {529, "Overloaded"},
};

static const char *status_text(int status)
{
    for (size_t i = 0; i < sizeof status_texts / sizeof *status_texts; i++)
        if (status_texts[i].status == status)
            return status_texts[i].text;
    return "Unknown";
}

/* Civil date from days since 1970 (Hinnant, "chrono-compatible low-level date algorithms"). */
static void format_date(int64_t unix_s, char out[32])
{
    static const char days[] = "ThuFriSatSunMonTueWed";
    static const char months[] = "MarAprMayJunJulAugSepOctNovDecJanFeb";
    int64_t day = unix_s / 86400, second = unix_s % 86400;
    int64_t z = day + 719468, era = z / 146097, in_era = z % 146097;
    int64_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * in_year + 2) / 153; /* 0 is March */
    int64_t in_month = in_year - (153 * month + 2) / 5 + 1;
    snprintf(out, 32, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * (day % 7), (int)in_month % 100,
             months + 3 * month, (int)((year + era * 400 + (month >= 10)) % 10000), (int)(second / 3600),
             (int)(second / 60 % 60), (int)(second % 60));
}

static const char *date_now(struct http_server *server)
{
    int64_t now_s = clock_unix_ms(server->clock) / 1000;
    if (now_s < 0)
        now_s = 0;
    if (now_s != server->date_s)
        format_date(now_s, server->date);
    server->date_s = now_s;
    return server->date;
}

struct reply_head {
    int status;
    const char *content_type; /* NULL: none */
    const char *id;
    const char *connection; /* NULL: say nothing */
    const struct http_reply_header *headers;
    bool is_chunked;
    bool has_length;
    size_t length;
};

static void put_line(struct buf *out, const char *name, const char *value)
{
    buf_puts(out, name);
    buf_puts(out, ": ");
    buf_puts(out, value);
    buf_puts(out, "\r\n");
}

static void put_head(struct http_conn *conn, const struct reply_head *head)
{
    struct buf *out = http_conn_out(conn);
    if (!out)
        return;
    buf_puts(out, "HTTP/1.1 ");
    buf_put_uint(out, (uint64_t)head->status);
    buf_putc(out, ' ');
    buf_puts(out, status_text(head->status));
    buf_puts(out, "\r\n");
    put_line(out, "date", date_now(conn->server));
    if (head->content_type)
        put_line(out, "content-type", head->content_type);
    put_line(out, "x-request-id", head->id);
    for (const struct http_reply_header *h = head->headers; h; h = h->next)
        put_line(out, h->name, h->value);
    if (head->connection)
        put_line(out, "connection", head->connection);
    if (head->is_chunked)
        put_line(out, "transfer-encoding", "chunked");
    if (head->has_length) {
        buf_puts(out, "content-length: ");
        buf_put_uint(out, head->length);
        buf_puts(out, "\r\n");
    }
    buf_puts(out, "\r\n");
}

static bool status_has_body(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

static const char *connection_word(const struct http_exchange *exchange)
{
    if (!exchange->keep_alive)
        return "close";
    return exchange->is_http10 ? "keep-alive" : NULL;
}

void http_put_error(struct http_conn *conn, int status, const char *message, bool is_head)
{
    static const struct http_reply_header retry = {NULL, "retry-after", "1"};
    struct http_server *server = conn->server;
    char id[ID_TEXT_MAX];
    struct buf body;
    id_make(&server->rng, "req-", id);
    buf_init(&body, ERROR_BODY_BYTES_MAX);
    server->encode_error(server->ud, status, message, &body);
    if (buf_status(&body) != PH_OK)
        buf_clear(&body);
    struct reply_head head = {.status = status,
                              .content_type = "application/json",
                              .id = id,
                              .connection = "close",
                              .headers = status == 503 ? &retry : NULL,
                              .has_length = true,
                              .length = body.len};
    put_head(conn, &head);
    if (!is_head)
        http_conn_put(conn, body.data, body.len);
    buf_release(&body);
}

/* ---- The handler's reply ---- */

static bool is_clean_header(const char *name, const char *value)
{
    if (!*name)
        return false;
    for (; *name; name++)
        if (!http_char_is((unsigned char)*name, HTTP_CHAR_TOKEN))
            return false;
    for (; *value; value++)
        if (!http_char_is((unsigned char)*value, HTTP_CHAR_VALUE))
            return false;
    return true;
}

static bool is_same_name(const char *a, const char *lower)
{
    while (*a && (*a >= 'A' && *a <= 'Z' ? *a + ('a' - 'A') : *a) == *lower)
        a++, lower++;
    return *a == *lower;
}

static bool is_framing(const char *name)
{
    static const char *const ours[] = {"content-length", "transfer-encoding", "connection", "x-request-id",
                                       "date"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (is_same_name(name, ours[i]))
            return true;
    return false;
}

void http_set_header(struct http_exchange *exchange, const char *name, const char *value)
{
    assert(!exchange->is_streaming);
    if (is_same_name(name, "connection") && is_same_name(value, "close"))
        exchange->keep_alive = false;
    if (!is_clean_header(name, value) || is_framing(name))
        return;
    struct http_reply_header *header = arena_alloc(&exchange->arena, sizeof *header);
    char *kept_name = arena_strdup(&exchange->arena, name);
    char *kept_value = arena_strdup(&exchange->arena, value);
    if (!header || !kept_name || !kept_value)
        return;
    *header = (struct http_reply_header){NULL, kept_name, kept_value};
    *exchange->headers_end = header;
    exchange->headers_end = &header->next;
}

static void finish(struct http_exchange *exchange, bool reset)
{
    if (exchange->conn)
        http_conn_finish(exchange->conn, exchange->keep_alive, reset);
    free_exchange(exchange);
}

/* What every reply begins with; answers false when there is nobody to reply to. */
static bool begin(struct http_exchange *exchange, const struct reply_head *shape)
{
    if (!exchange->conn)
        return false;
    if (exchange->server->is_stopping)
        exchange->keep_alive = false;
    struct reply_head head = *shape;
    head.id = exchange->request.id;
    head.headers = exchange->headers;
    head.connection = connection_word(exchange);
    put_head(exchange->conn, &head);
    return true;
}

static void put_reply(struct http_exchange *exchange, int status, const char *content_type, const void *body,
                      size_t len)
{
    assert(!exchange->is_streaming && status >= 200 && status <= 999);
    bool has_body = status_has_body(status);
    struct reply_head head = {
        .status = status, .content_type = content_type, .has_length = has_body, .length = len};
    if (begin(exchange, &head) && has_body && !exchange->is_head)
        http_conn_put(exchange->conn, body, len);
}

void http_reply(struct http_exchange *exchange, int status, const char *content_type, const void *body,
                size_t len)
{
    put_reply(exchange, status, content_type, body, len);
    finish(exchange, false);
}

void http_reply_send(struct http_exchange *exchange, int status, const char *content_type, const void *body,
                     size_t len)
{
    put_reply(exchange, status, content_type, body, len);
    if (exchange->conn)
        http_conn_flush(exchange->conn);
}

void http_reply_done(struct http_exchange *exchange)
{
    finish(exchange, false);
}

void http_stream_begin(struct http_exchange *exchange, int status, const char *content_type,
                       void (*on_drain)(void *ud), void *ud)
{
    assert(!exchange->is_streaming && status_has_body(status) && status <= 999);
    exchange->on_drain = on_drain;
    exchange->drain_ud = ud;
    if (exchange->is_http10)
        exchange->keep_alive = false; /* the end of the connection is the end of the body */
    struct reply_head head = {
        .status = status, .content_type = content_type, .is_chunked = !exchange->is_http10};
    (void)begin(exchange, &head);
    exchange->is_streaming = true;
}

static void put_chunk_size(struct buf *out, size_t len)
{
    char line[2 * sizeof len + 2];
    size_t at = sizeof line;
    line[--at] = '\n';
    line[--at] = '\r';
    do
        line[--at] = "0123456789abcdef"[len % 16];
    while (len /= 16);
    buf_append(out, line + at, sizeof line - at);
}

bool http_stream_write(struct http_exchange *exchange, const void *bytes, size_t len)
{
    assert(exchange->is_streaming);
    struct http_conn *conn = exchange->conn;
    if (!conn || exchange->is_head || len == 0)
        return true;
    struct buf *out = http_conn_out(conn);
    if (!out)
        return true;
    if (!exchange->is_http10)
        put_chunk_size(out, len);
    buf_append(out, bytes, len);
    if (!exchange->is_http10)
        buf_puts(out, "\r\n");
    if (conn->out.len >= OUT_FLUSH_BYTES)
        http_conn_flush(conn);
    if (conn->phase == HTTP_CONN_CLOSED) /* found gone while flushing */
        return true;
    size_t queued = http_conn_queue_len(conn);
    if (queued > HTTP_STREAM_QUEUE_BYTES_MAX && queued - len > HTTP_STREAM_QUEUE_BYTES_MAX)
        http_conn_close(conn, true);
    conn->wants_drain = queued > HTTP_WRITE_QUEUE_BYTES_MAX;
    return !conn->wants_drain;
}

void http_stream_end(struct http_exchange *exchange)
{
    assert(exchange->is_streaming);
    if (exchange->conn && !exchange->is_head && !exchange->is_http10)
        http_conn_put(exchange->conn, "0\r\n\r\n", 5);
    finish(exchange, false);
}

void http_stream_abort(struct http_exchange *exchange)
{
    finish(exchange, true);
}
