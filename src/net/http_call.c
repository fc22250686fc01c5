/* What a caller asks of the HTTP client: start, resume, cancel, hang up.
 *
 * A request's head is made once, in one piece of memory that is kept until the call is over: should its
 * connection turn out to be dead, it is sent again. Calls that are over go to the client's spares with their
 * memory, newest first.
 *
 * A call gives its connection back, or closes it (http_call_finish), before its sink hears of the end, so
 * that what the sink starts next can have it. The struct stays valid until `end` returns. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/http_client_int.h"
#include "net/http_parse_int.h"

#define SPARE_CALLS_MAX 256
#define REQUEST_KEPT_BYTES_MAX ((size_t)8192) /* a spare call holds no more */

void http_call_destroy(struct http_call *call)
{
    buf_release(&call->request);
    http_reply_release(&call->reply);
    mem_free(call);
}

static struct http_call *create(struct http_client *client)
{
    struct http_call *call = mem_calloc(1, sizeof *call);
    if (!call)
        return NULL;
    call->client = client;
    http_link_init(&call->link);
    http_link_init(&call->news);
    http_link_init(&call->waiting);
    buf_init(&call->request, SIZE_MAX);
    http_reply_init(&call->reply);
    return call;
}

static struct http_call *take_spare(struct http_client *client)
{
    if (http_link_is_alone(&client->spares))
        return create(client);
    struct http_call *call = HTTP_CONTAINER(client->spares.next, struct http_call, link);
    http_link_remove(&call->link);
    client->spare_count--;
    return call;
}

void http_call_give_back(struct http_call *call)
{
    struct http_client *client = call->client;
    http_origin_leave(call->origin);
    call->origin = NULL;
    if (client->spare_count >= SPARE_CALLS_MAX || client->is_closing) {
        http_call_destroy(call);
        return;
    }
    if (call->request.cap > REQUEST_KEPT_BYTES_MAX)
        buf_release(&call->request);
    client->spare_count++;
    http_link_append(client->spares.next, &call->link); /* that is, at the front */
}

/* ---- The request ---- */

static size_t run_len(const char *text, unsigned char_class)
{
    size_t n = 0;
    while (http_char_is((unsigned char)text[n], char_class))
        n++;
    return n;
}

/* Framing is ours. */
static bool is_ours(const char *name)
{
    static const char *const ours[] = {"content-length", "transfer-encoding", "connection", "expect"};
    if (*name != 'c' && *name != 't' && *name != 'e')
        return false;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strcmp(name, ours[i]) == 0)
            return true;
    return false;
}

static bool has_header(const struct http_call_params *params, const char *name)
{
    for (size_t i = 0; i < params->header_count; i++)
        if (strcmp(params->headers[i].name, name) == 0)
            return true;
    return false;
}

static void put_line(struct buf *out, const char *name, size_t name_len, const char *value, size_t value_len)
{
    char *at = buf_reserve(out, name_len + value_len + 4);
    if (!at)
        return;
    memcpy(at, name, name_len);
    at += name_len;
    *at++ = ':';
    if (value_len)
        *at++ = ' ';
    memcpy(at, value, value_len);
    memcpy(at + value_len, "\r\n", 2);
    buf_grew(out, name_len + value_len + (value_len ? 4 : 3));
}

static enum ph_status put_headers(struct buf *out, const struct http_call_params *params, struct ph_err *err)
{
    for (size_t i = 0; i < params->header_count; i++) {
        const struct http_header *header = &params->headers[i];
        size_t name_len = run_len(header->name, HTTP_CHAR_TOKEN);
        size_t value_len = run_len(header->value, HTTP_CHAR_VALUE);
        if (!name_len || header->name[name_len])
            return ph_fail(err, PH_ERR_ARG, "\"%s\" is not a header's name", header->name);
        if (header->value[value_len])
            return ph_fail(err, PH_ERR_ARG, "the value of header %s has a control character in it",
                           header->name);
        if (!is_ours(header->name))
            put_line(out, header->name, name_len, header->value, value_len);
    }
    return PH_OK;
}

/* By a proxy without a tunnel, the target is the whole address (RFC 9112, 3.2.2). */
static void put_request_line(struct buf *out, const struct http_call *call, const char *method,
                             const struct http_url *url)
{
    buf_puts(out, method);
    buf_putc(out, ' ');
    if (call->origin->has_proxy && !url->is_tls) {
        buf_puts(out, "http://");
        buf_puts(out, call->origin->authority);
    }
    if (!url->path.len || *url->path.at != '/')
        buf_putc(out, '/');
    buf_append(out, url->path.at, url->path.len);
    buf_puts(out, " HTTP/1.1\r\n");
}

static void put_default(struct buf *out, const struct http_call_params *params, const char *name,
                        const char *value)
{
    if (value && !has_header(params, name))
        put_line(out, name, strlen(name), value, strlen(value));
}

static void put_credentials(struct buf *out, const struct http_call_params *params,
                            const struct http_url *url)
{
    if (!url->user.len || has_header(params, "authorization"))
        return;
    buf_puts(out, "authorization: ");
    http_url_put_credentials(out, url->user);
    buf_puts(out, "\r\n");
}

static void put_length(struct buf *out, const struct http_call_params *params)
{
    if (!params->body_len && strcmp(params->method, "POST") != 0 && strcmp(params->method, "PUT") != 0)
        return;
    buf_puts(out, "content-length: ");
    buf_put_uint(out, params->body_len);
    buf_puts(out, "\r\n");
}

static enum ph_status make_request(struct http_call *call, const struct http_call_params *params,
                                   const struct http_url *url, struct ph_err *err)
{
    struct buf *out = &call->request;
    const struct http_origin *origin = call->origin;
    buf_clear(out);
    put_request_line(out, call, params->method, url);
    put_default(out, params, "host", origin->authority);
    put_default(out, params, "user-agent", call->client->user_agent);
    put_default(out, params, "accept", "*/*");
    put_credentials(out, params, url);
    if (origin->has_proxy && !origin->is_tls)
        put_default(out, params, "proxy-authorization", origin->proxy_credentials);
    enum ph_status status = put_headers(out, params, err);
    put_length(out, params);
    buf_puts(out, "\r\n");
    if (status == PH_OK && buf_status(out) != PH_OK)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for a request to another machine");
    return status;
}

/* ---- Starting ---- */

static uint32_t or_default(uint32_t given, uint32_t standard)
{
    return given ? given : standard;
}

static void reset(struct http_call *call, const struct http_call_params *params,
                  const struct http_call_sink *sink)
{
    uint64_t now_ms = uv_now(call->client->uv);
    call->sink = *sink;
    call->body = params->body;
    call->body_len = params->body_len;
    call->is_for_head = strcmp(params->method, "HEAD") == 0;
    call->connect_ms = or_default(params->connect_timeout_ms, HTTP_CALL_CONNECT_TIMEOUT_MS);
    call->head_ms = or_default(params->head_timeout_ms, HTTP_CALL_HEAD_TIMEOUT_MS);
    call->silence_ms = or_default(params->silence_timeout_ms, HTTP_CALL_SILENCE_TIMEOUT_MS);
    call->body_bytes_max = params->body_bytes_max ? params->body_bytes_max : HTTP_CALL_BODY_BYTES_MAX;
    call->phase = HTTP_CALL_CONNECTING;
    call->phase_due_ms = now_ms + call->connect_ms;
    call->total_due_ms = params->total_timeout_ms ? now_ms + params->total_timeout_ms : UINT64_MAX;
    call->is_paused = call->is_draining = call->was_replaced = call->head_is_told = false;
    call->is_over = call->has_left = call->is_late = false;
    call->message[0] = 0;
}

static enum ph_status prepare(struct http_call *call, const struct http_call_params *params,
                              struct ph_err *err)
{
    struct http_url url;
    const char *why = http_url_parse(&url, params->url ? params->url : "");
    size_t method_len = params->method ? run_len(params->method, HTTP_CHAR_TOKEN) : 0;
    if (why)
        return ph_fail(err, PH_ERR_ARG, "%s", why);
    if (!method_len || params->method[method_len])
        return ph_fail(err, PH_ERR_ARG, "the method of a request must be a word such as GET");
    enum ph_status status = http_origin_enter(&call->origin, call->client, &url, err);
    return status == PH_OK ? make_request(call, params, &url, err) : status;
}

enum ph_status http_call_start(struct http_call **out, struct http_client *client,
                               const struct http_call_params *params, const struct http_call_sink *sink,
                               struct ph_err *err)
{
    if (client->stats.calls >= HTTP_CALLS_MAX)
        return ph_fail(err, PH_ERR_BUSY, "%d requests to other machines are under way: try again later",
                       HTTP_CALLS_MAX);
    struct http_call *call = take_spare(client);
    if (!call)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a request to another machine");
    enum ph_status status = prepare(call, params, err);
    if (status != PH_OK) {
        http_call_give_back(call);
        return status;
    }
    uv_update_time(client->uv); /* the limits count from now, not from the loop's last turn */
    reset(call, params, sink);
    http_link_append(&client->calls, &call->link);
    client->stats.calls++;
    client->stats.calls_total++;
    http_client_connect(call, false);
    http_client_arm(client, http_call_due_ms(call));
    *out = call;
    return PH_OK;
}

/* ---- Ending ---- */

/* Away from its connection, which is kept where the next call may have it. */
static void detach(struct http_call *call, bool is_whole)
{
    struct http_channel *channel = call->channel;
    http_link_remove(&call->waiting);
    call->channel = NULL;
    if (!channel)
        return;
    if (is_whole && call->reply.keeps_alive && !channel->is_writing && !channel->is_shut)
        http_client_keep(channel);
    else
        http_channel_close(channel);
    http_client_serve_waiting(call->client);
}

void http_call_finish(struct http_call *call, enum http_call_end how, const char *message)
{
    if (!call->is_over) {
        call->is_over = true;
        call->how = how;
        snprintf(call->message, sizeof call->message, "%s", message);
    }
    detach(call, how == HTTP_CALL_WHOLE);
    http_client_tell(call);
}

void http_call_leave(struct http_call *call)
{
    struct http_client *client = call->client;
    if (client->delivering == call)
        client->delivering = NULL;
    http_link_remove(&call->news);
    http_link_remove(&call->link);
    call->has_left = true;
    client->stats.calls--;
    detach(call, false);
}

void http_call_cancel(struct http_call *call)
{
    if (call->has_left) /* inside its own `end` */
        return;
    http_call_leave(call);
    http_call_give_back(call);
}

/* ---- Pausing ---- */

void http_call_resume(struct http_call *call)
{
    if (!call->is_paused)
        return;
    call->is_paused = false;
    if (call->is_over) {
        http_client_tell(call);
        return;
    }
    call->phase_due_ms = uv_now(call->client->uv) + call->silence_ms;
    http_client_arm(call->client, http_call_due_ms(call));
    if (call->channel)
        http_channel_read(call->channel, true);
}

/* ---- Hanging up ---- */

void http_call_hang_up(struct http_call *call, uint32_t drain_ms)
{
    if (call->is_over || call->is_draining) {
        http_call_resume(call);
        return;
    }
    call->is_draining = true;
    if (call->phase == HTTP_CALL_CONNECTING) {
        http_call_finish(call, HTTP_CALL_UNSENT, "hung up before the request was sent");
        return;
    }
    http_channel_shut(call->channel);
    http_call_resume(call);
    call->phase_due_ms = uv_now(call->client->uv) + drain_ms;
    http_client_arm(call->client, http_call_due_ms(call));
}

/* ---- Time limits ---- */

uint64_t http_call_due_ms(const struct http_call *call)
{
    if (call->is_paused)
        return call->total_due_ms;
    if (call->is_over)
        return UINT64_MAX;
    return call->phase_due_ms < call->total_due_ms ? call->phase_due_ms : call->total_due_ms;
}

bool http_call_take_grace(struct http_call *call, uint64_t now_ms)
{
    bool was_late = call->is_late;
    call->is_late = true;
    return !was_late && !call->is_draining && call->total_due_ms > now_ms;
}

void http_call_expire(struct http_call *call, uint64_t now_ms)
{
    static const struct {
        enum http_call_end how;
        const char *message;
    } ends[] = {
        [HTTP_CALL_CONNECTING] = {HTTP_CALL_TIMEOUT_CONNECT, "no connection within the time limit"},
        [HTTP_CALL_ASKING] = {HTTP_CALL_TIMEOUT_HEAD, "no reply within the time limit"},
        [HTTP_CALL_READING] = {HTTP_CALL_TIMEOUT_SILENCE, "the reply stopped in the middle"},
    };
    if (call->total_due_ms <= now_ms) {
        call->is_over = call->is_paused = false; /* what waited for a resume waits no longer */
        http_call_finish(call, HTTP_CALL_TIMEOUT_TOTAL, "the whole reply took longer than its time limit");
    } else if (call->is_draining) {
        http_call_finish(call, HTTP_CALL_CUT, "hung up, and the other end did not finish in time");
    } else {
        http_call_finish(call, ends[call->phase].how, ends[call->phase].message);
    }
}
