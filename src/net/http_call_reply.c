/* What comes back to a call: curl's callbacks, how a reply ended, and what its sink is told.
 *
 * Curl parses the reply; its callbacks here only keep what it hands over, and judge where curl is laxer than
 * the contract: the size of head and body, and a reply that stops within its head, which curl takes for a
 * whole one. A callback cannot end its call: it notes the verdict and tells curl to stop.
 *
 * Memory: a body's pieces gather in the client's spare buffer, which goes back as soon as its sink has seen
 * them; a call that waits for its reply holds no buffer of its own but curl's. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/http_client_int.h"

#define BODY_KEPT_BYTES_MAX ((size_t)64 << 10)

/* Stops curl: its callback returns this. */
static size_t judge(struct http_call *call, enum http_call_end how, const char *message)
{
    call->is_judged = true;
    call->how = how;
    snprintf(call->message, sizeof call->message, "%s", message);
    return 0;
}

/* ---- The head ---- */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* A line that begins with a blank goes on with the value before it (RFC 9112, 5.2). */
static void continue_field(struct http_call *call, const char *text, size_t len)
{
    call->head.len--; /* the terminator of that value */
    buf_putc(&call->head, ' ');
    buf_append(&call->head, text, len);
    buf_putc(&call->head, 0);
}

static void keep_field(struct http_call *call, const char *line, size_t name_len, const char *value,
                       size_t value_len)
{
    char *at = buf_reserve(&call->head, name_len + value_len + 2);
    if (!at)
        return; /* the buffer remembers */
    for (size_t i = 0; i < name_len; i++)
        at[i] = lower(line[i]);
    at[name_len] = 0;
    memcpy(at + name_len + 1, value, value_len);
    at[name_len + 1 + value_len] = 0;
    buf_grew(&call->head, name_len + value_len + 2);
    call->field_count++;
}

static bool take_field(struct http_call *call, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len);
    bool continues = is_blank(*line);
    const char *value = continues ? line : colon ? colon + 1 : NULL;
    if (!value || colon == line || memchr(line, 0, len) || (continues && !call->field_count))
        return false;
    const char *end = line + len;
    while (value < end && is_blank(*value))
        value++;
    while (end > value && is_blank(end[-1]))
        end--;
    if (continues)
        continue_field(call, value, (size_t)(end - value));
    else
        keep_field(call, line, (size_t)(colon - line), value, (size_t)(end - value));
    return true;
}

/* The blank line. A head of 1xx is forgotten: the final one follows. */
static void end_head(struct http_call *call)
{
    long status = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200) {
        buf_clear(&call->head);
        call->field_count = 0;
        call->expects_status_line = true;
        return;
    }
    call->status = (int)status;
    call->head_is_whole = true;
    call->phase = HTTP_CALL_READING;
    if (!call->is_draining)
        call->phase_due_ms = uv_now(call->client->uv) + call->silence_ms;
    http_client_arm(call->client, http_call_due_ms(call));
    http_client_tell(call);
}

/* Curl hands over one line of the head, or of the trailers. */
size_t http_call_on_header(char *line, size_t size, size_t count, void *ud)
{
    struct http_call *call = ud;
    size_t whole = size * count, len = whole;
    if (call->head_is_whole)
        return whole;
    call->head_bytes += len;
    if (call->head_bytes > HTTP_CALL_HEAD_BYTES_MAX)
        return judge(call, HTTP_CALL_TOO_LARGE, "the head of the reply is too large");
    while (len && (line[len - 1] == '\n' || line[len - 1] == '\r'))
        len--;
    if (call->expects_status_line)
        call->expects_status_line = false;
    else if (len == 0)
        end_head(call);
    else if (!take_field(call, line, len))
        return judge(call, HTTP_CALL_BAD_REPLY, "the head of the reply has a line that is no header");
    if (buf_status(&call->head) != PH_OK)
        return judge(call, HTTP_CALL_FAILED, "no memory for the head of a reply");
    return whole;
}

/* ---- The body ---- */

static void take_spare_body(struct http_call *call)
{
    struct buf *spare = &call->client->spare_body;
    if (call->body.data || !spare->data)
        return;
    call->body = *spare;
    buf_init(spare, SIZE_MAX);
}

static void return_body(struct http_client *client, struct buf *body)
{
    struct buf *spare = &client->spare_body;
    if (spare->data || body->cap > BODY_KEPT_BYTES_MAX || client->is_closing) {
        buf_release(body);
        return;
    }
    buf_clear(body);
    *spare = *body;
}

size_t http_call_on_body(char *bytes, size_t size, size_t count, void *ud)
{
    struct http_call *call = ud;
    size_t len = size * count;
    call->body_bytes += len;
    if (call->body_bytes > call->body_bytes_max)
        return judge(call, HTTP_CALL_TOO_LARGE, "the body of the reply is too large");
    take_spare_body(call);
    buf_append(&call->body, bytes, len);
    if (buf_status(&call->body) != PH_OK)
        return judge(call, HTTP_CALL_FAILED, "no memory for the body of a reply");
    if (!call->is_draining)
        call->phase_due_ms = uv_now(call->client->uv) + call->silence_ms;
    http_client_tell(call);
    return len;
}

/* Connected: the request goes out now. */
int http_call_on_ready(void *ud, char *remote, char *local, int remote_port, int local_port)
{
    (void)remote;
    (void)local;
    (void)remote_port;
    (void)local_port;
    struct http_call *call = ud;
    http_client_connected(call);
    call->phase = HTTP_CALL_ASKING;
    call->phase_due_ms = uv_now(call->client->uv) + call->head_ms;
    http_client_arm(call->client, http_call_due_ms(call));
    return CURL_PREREQFUNC_OK;
}

/* ---- The end ---- */

static const struct {
    CURLcode code;
    enum http_call_end how;
} judgements[] = {
    {CURLE_COULDNT_RESOLVE_HOST, HTTP_CALL_NO_NAME},
    {CURLE_COULDNT_RESOLVE_PROXY, HTTP_CALL_NO_NAME},
    {CURLE_COULDNT_CONNECT, HTTP_CALL_NO_CONNECTION},
    {CURLE_PROXY, HTTP_CALL_NO_CONNECTION},
    {CURLE_SSL_CONNECT_ERROR, HTTP_CALL_TLS},
    {CURLE_PEER_FAILED_VERIFICATION, HTTP_CALL_TLS},
    {CURLE_SSL_CERTPROBLEM, HTTP_CALL_TLS},
    {CURLE_SSL_CIPHER, HTTP_CALL_TLS},
    {CURLE_SSL_CACERT_BADFILE, HTTP_CALL_TLS},
    {CURLE_SSL_ISSUER_ERROR, HTTP_CALL_TLS},
    {CURLE_SSL_INVALIDCERTSTATUS, HTTP_CALL_TLS},
    {CURLE_OPERATION_TIMEDOUT, HTTP_CALL_TIMEOUT_CONNECT}, /* the only limit that is curl's: 300 s */
    {CURLE_PARTIAL_FILE, HTTP_CALL_CUT},
    {CURLE_GOT_NOTHING, HTTP_CALL_CUT},
    {CURLE_SEND_ERROR, HTTP_CALL_CUT},
    {CURLE_RECV_ERROR, HTTP_CALL_CUT},
    {CURLE_UNSUPPORTED_PROTOCOL, HTTP_CALL_BAD_REPLY}, /* no status line: it says HTTP/0.9 */
    {CURLE_WEIRD_SERVER_REPLY, HTTP_CALL_BAD_REPLY},
    {CURLE_BAD_CONTENT_ENCODING, HTTP_CALL_BAD_REPLY},
};

static enum http_call_end end_of(const struct http_call *call, CURLcode code)
{
    /* Curl calls a broken chunk a failed reception, and a line beyond its own limit a lack of memory. */
    if (code == CURLE_RECV_ERROR && strstr(call->curl_message, "chunked-encoding"))
        return HTTP_CALL_BAD_REPLY;
    if (code == CURLE_OUT_OF_MEMORY && call->phase == HTTP_CALL_ASKING)
        return HTTP_CALL_TOO_LARGE;
    for (size_t i = 0; i < sizeof judgements / sizeof *judgements; i++)
        if (judgements[i].code == code)
            return judgements[i].how;
    return HTTP_CALL_FAILED;
}

void http_call_conclude(struct http_call *call, CURLcode code)
{
    const char *why = *call->curl_message ? call->curl_message : curl_easy_strerror(code);
    if (call->is_judged)
        http_call_finish(call, call->how, call->message);
    else if (code != CURLE_OK)
        http_call_finish(call, end_of(call, code), why);
    else if (!call->head_is_whole)
        http_call_finish(call, HTTP_CALL_CUT, "the connection ended within the head of the reply");
    else
        http_call_finish(call, HTTP_CALL_WHOLE, "");
}

/* ---- Telling the sink ---- */

static bool make_fields(struct http_client *client, size_t count)
{
    if (count <= client->field_room)
        return true;
    struct http_header *fields = mem_realloc(client->fields, count, sizeof *fields);
    if (!fields)
        return false;
    client->fields = fields;
    client->field_room = count;
    return true;
}

static void tell_head(struct http_call *call)
{
    struct http_client *client = call->client;
    const char *at = call->head.data;
    call->head_is_told = true;
    if (!make_fields(client, call->field_count)) {
        call->is_over = call->is_paused = false;
        http_call_finish(call, HTTP_CALL_FAILED, "no memory for the head of a reply");
        buf_release(&call->body);
        return;
    }
    for (size_t i = 0; i < call->field_count; i++) {
        client->fields[i].name = at;
        at += strlen(at) + 1;
        client->fields[i].value = at;
        at += strlen(at) + 1;
    }
    call->sink.head(call->sink.ud, call->status, client->fields, call->field_count);
}

/* The bytes are ours while the sink looks at them, whatever it does to the call. */
static void tell_body(struct http_call *call)
{
    struct http_client *client = call->client;
    struct buf body = call->body;
    buf_init(&call->body, SIZE_MAX);
    bool goes_on = call->sink.body(call->sink.ud, body.data, body.len);
    return_body(client, &body);
    if (client->delivering != call || goes_on || call->is_draining)
        return;
    call->is_paused = true;
    if (call->is_attached)
        curl_easy_pause(call->easy, CURLPAUSE_RECV);
}

/* It leaves first: the sink may close the client now. */
static void tell_end(struct http_call *call)
{
    http_call_leave(call);
    call->sink.end(call->sink.ud, call->how, call->message);
    http_call_give_back(call);
}

void http_call_deliver(struct http_call *call)
{
    struct http_client *client = call->client;
    client->delivering = call;
    if (call->head_is_whole && !call->head_is_told)
        tell_head(call);
    if (client->delivering == call && call->body.len && !call->is_paused)
        tell_body(call);
    if (client->delivering == call && call->is_over && !call->is_paused)
        tell_end(call);
    client->delivering = NULL;
}
