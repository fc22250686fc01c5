/* What a caller asks of the HTTP client: start, resume, cancel, hang up.
 *
 * A call is one easy handle of curl with what we know beside it. Both are made once and used again: a call
 * that is over goes to the client's spares with its handle, its memory for headers and the URL it had, newest
 * first, so that the next request to the same place finds everything in the cache and sets four options.
 *
 * A call leaves curl (http_call_finish) before its sink hears of the end, so that its connection is free for
 * what the sink starts next. Its struct stays valid until `end` returns. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/http_client_int.h"
#include "net/http_parse_int.h"

#define SPARE_CALLS_MAX 256
#define RECEIVE_BYTES 8192L /* curl's buffer, one a running call */
#define NODES_EXTRA 2       /* headers that take out what curl would add */

/* ---- One call's easy handle ---- */

void http_call_destroy(struct http_call *call)
{
    curl_easy_cleanup(call->easy);
    buf_release(&call->strings);
    buf_release(&call->head);
    buf_release(&call->body);
    mem_free(call->nodes);
    mem_free(call->url);
    mem_free(call);
}

/* What all calls of a client have in common. */
static bool set_constant_options(struct http_call *call)
{
    CURL *easy = call->easy;
    struct http_client *client = call->client;
    CURLcode bad = CURLE_OK;
    bad |= curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    bad |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_message);
    bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    bad |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    bad |= curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    bad |= curl_easy_setopt(easy, CURLOPT_USERAGENT, client->user_agent);
    bad |= curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, http_call_on_header);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, http_call_on_body);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    bad |= curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, http_call_on_ready);
    bad |= curl_easy_setopt(easy, CURLOPT_PREREQDATA, call);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, http_client_open_socket);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, client);
    bad |= curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, http_client_close_socket);
    bad |= curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, client);
    if (client->roots) {
        bad |= curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, tls_roots_on_context);
        bad |= curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, client->roots);
    }
    return bad == CURLE_OK;
}

static struct http_call *create(struct http_client *client)
{
    struct http_call *call = mem_calloc(1, sizeof *call);
    if (!call)
        return NULL;
    call->client = client;
    http_link_init(&call->link);
    http_link_init(&call->news);
    buf_init(&call->strings, SIZE_MAX);
    buf_init(&call->head, HTTP_CALL_HEAD_BYTES_MAX);
    buf_init(&call->body, SIZE_MAX);
    call->easy = curl_easy_init();
    if (!call->easy || !set_constant_options(call)) {
        http_call_destroy(call);
        return NULL;
    }
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
    if (client->spare_count >= SPARE_CALLS_MAX || client->is_closing) {
        http_call_destroy(call);
        return;
    }
    client->spare_count++;
    http_link_append(client->spares.next, &call->link); /* that is, at the front */
}

/* ---- The request ---- */

static bool is_token(const char *text)
{
    for (const char *at = text; *at; at++)
        if (!http_char_is((unsigned char)*at, HTTP_CHAR_TOKEN))
            return false;
    return *text != 0;
}

static bool is_visible(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++)
        if ((*at < ' ' && *at != '\t') || *at == 0x7f)
            return false;
    return true;
}

static enum ph_status check(const struct http_call_params *params, struct ph_err *err)
{
    const char *url = params->url ? params->url : "";
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return ph_fail(err, PH_ERR_ARG, "the address of a request must begin with http:// or https://");
    if (!is_visible(url) || strchr(url, ' '))
        return ph_fail(err, PH_ERR_ARG, "the address of a request has a blank or control character in it");
    if (!params->method || !is_token(params->method))
        return ph_fail(err, PH_ERR_ARG, "the method of a request must be a word such as GET");
    for (size_t i = 0; i < params->header_count; i++) {
        const struct http_header *header = &params->headers[i];
        if (!is_token(header->name))
            return ph_fail(err, PH_ERR_ARG, "\"%s\" is not a header's name", header->name);
        if (!is_visible(header->value))
            return ph_fail(err, PH_ERR_ARG, "the value of header %s has a control character in it",
                           header->name);
    }
    return PH_OK;
}

/* Framing is curl's. */
static bool is_ours(const char *name)
{
    static const char *const ours[] = {"content-length", "transfer-encoding", "connection", "expect"};
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

/* Room for curl's list of `count` headers, together `len` bytes of text. */
static char *make_room(struct http_call *call, size_t count, size_t len)
{
    if (count > call->node_room) {
        struct curl_slist *nodes = mem_realloc(call->nodes, count, sizeof *nodes);
        if (!nodes)
            return NULL;
        call->nodes = nodes;
        call->node_room = count;
    }
    buf_clear(&call->strings);
    return buf_reserve(&call->strings, len);
}

/* Appends "name<between>value" to the list; answers where the next goes. */
static char *add_header(struct http_call *call, size_t *count, char *at, const char *name,
                        const char *between, const char *value)
{
    const char *const pieces[] = {name, between, value};
    if (*count)
        call->nodes[*count - 1].next = &call->nodes[*count];
    call->nodes[(*count)++] = (struct curl_slist){.data = at};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        size_t len = strlen(pieces[i]);
        memcpy(at, pieces[i], len);
        at += len;
    }
    *at++ = 0;
    return at;
}

/* Curl's list of headers, without its allocations. In it "name:" takes a header of curl's own out and "name;"
 * stands for one with an empty value. */
static bool set_headers(struct http_call *call, const struct http_call_params *params)
{
    size_t count = 0, len = sizeof "expect:" + sizeof "content-type:";
    for (size_t i = 0; i < params->header_count; i++)
        len += strlen(params->headers[i].name) + strlen(params->headers[i].value) + sizeof ": ";
    char *at = make_room(call, params->header_count + NODES_EXTRA, len);
    if (!at)
        return false;
    at = add_header(call, &count, at, "expect", ":", "");
    if (params->body_len && !has_header(params, "content-type"))
        at = add_header(call, &count, at, "content-type", ":", "");
    for (size_t i = 0; i < params->header_count; i++) {
        const struct http_header *header = &params->headers[i];
        if (!is_ours(header->name))
            at = add_header(call, &count, at, header->name, *header->value ? ": " : ";", header->value);
    }
    return curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->nodes) == CURLE_OK;
}

static bool set_method(struct http_call *call, const struct http_call_params *params)
{
    CURL *easy = call->easy;
    const char *method = params->method;
    bool posts = params->body_len || strcmp(method, "POST") == 0;
    bool is_head = !posts && strcmp(method, "HEAD") == 0;
    bool is_plain = strcmp(method, posts ? "POST" : is_head ? "HEAD" : "GET") == 0;
    CURLcode bad = CURLE_OK;
    if (posts) {
        bad |= curl_easy_setopt(easy, CURLOPT_POST, 1L);
        bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)params->body_len);
        bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, params->body_len ? params->body : "");
    } else if (is_head) {
        bad |= curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else {
        bad |= curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    bad |= curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, is_plain ? NULL : method);
    return bad == CURLE_OK;
}

/* A proxy of the environment is not for this machine. */
static bool is_loopback(const char *url)
{
    static const char *const hosts[] = {"localhost", "127.", "[::1]"};
    const char *host = strstr(url, "://") + 3;
    const char *end = host + strcspn(host, "/?#");
    for (const char *at = host; at < end; at++)
        if (*at == '@')
            host = at + 1;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (strncmp(host, hosts[i], strlen(hosts[i])) == 0)
            return true;
    return false;
}

static bool set_url(struct http_call *call, const char *url)
{
    if (call->url && strcmp(call->url, url) == 0)
        return true;
    mem_free(call->url);
    call->url = mem_strdup(url);
    bool is_set = call->url && curl_easy_setopt(call->easy, CURLOPT_URL, url) == CURLE_OK &&
                  curl_easy_setopt(call->easy, CURLOPT_PROXY, is_loopback(url) ? "" : NULL) == CURLE_OK;
    if (!is_set) {
        mem_free(call->url);
        call->url = NULL;
    }
    return is_set;
}

static bool set_request(struct http_call *call, const struct http_call_params *params)
{
    if (call->forbids_reuse) {
        call->forbids_reuse = false;
        curl_easy_setopt(call->easy, CURLOPT_FORBID_REUSE, 0L);
    }
    return set_url(call, params->url) && set_headers(call, params) && set_method(call, params);
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
    call->connect_ms = or_default(params->connect_timeout_ms, HTTP_CALL_CONNECT_TIMEOUT_MS);
    call->head_ms = or_default(params->head_timeout_ms, HTTP_CALL_HEAD_TIMEOUT_MS);
    call->silence_ms = or_default(params->silence_timeout_ms, HTTP_CALL_SILENCE_TIMEOUT_MS);
    call->body_bytes_max = params->body_bytes_max ? params->body_bytes_max : HTTP_CALL_BODY_BYTES_MAX;
    call->phase = HTTP_CALL_CONNECTING;
    call->fd = CURL_SOCKET_BAD;
    call->phase_due_ms = now_ms + call->connect_ms;
    call->total_due_ms = params->total_timeout_ms ? now_ms + params->total_timeout_ms : UINT64_MAX;
    call->is_attached = call->is_paused = call->is_draining = false;
    call->is_over = call->is_judged = call->has_left = false;
    call->expects_status_line = true;
    call->head_is_whole = call->head_is_told = false;
    call->field_count = call->head_bytes = call->body_bytes = 0;
    call->status = 0;
    call->message[0] = call->curl_message[0] = 0;
    buf_clear(&call->head);
}

enum ph_status http_call_start(struct http_call **out, struct http_client *client,
                               const struct http_call_params *params, const struct http_call_sink *sink,
                               struct ph_err *err)
{
    enum ph_status status = check(params, err);
    if (status != PH_OK)
        return status;
    if (client->stats.calls >= HTTP_CALLS_MAX)
        return ph_fail(err, PH_ERR_BUSY, "%d requests to other machines are under way: try again later",
                       HTTP_CALLS_MAX);
    struct http_call *call = take_spare(client);
    if (!call)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a request to another machine");
    uv_update_time(client->uv); /* the limits count from now, not from the loop's last turn */
    reset(call, params, sink);
    if (!set_request(call, params) || curl_multi_add_handle(client->multi, call->easy) != CURLM_OK) {
        http_call_give_back(call);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a request to another machine");
    }
    call->is_attached = true;
    http_link_append(&client->calls, &call->link);
    client->stats.calls++;
    client->stats.calls_total++;
    http_client_count(client);
    http_client_arm(client, http_call_due_ms(call));
    *out = call;
    return PH_OK;
}

/* ---- Ending ---- */

static void detach(struct http_call *call)
{
    if (call->is_attached)
        curl_multi_remove_handle(call->client->multi, call->easy);
    call->is_attached = false;
}

void http_call_finish(struct http_call *call, enum http_call_end how, const char *message)
{
    detach(call);
    if (!call->is_over) {
        call->is_over = true;
        call->how = how;
        if (message != call->message)
            snprintf(call->message, sizeof call->message, "%s", message);
    }
    http_client_tell(call);
}

void http_call_leave(struct http_call *call)
{
    struct http_client *client = call->client;
    detach(call);
    http_client_part(call);
    if (client->delivering == call)
        client->delivering = NULL;
    http_link_remove(&call->news);
    http_link_remove(&call->link);
    buf_release(&call->body);
    call->has_left = true;
    client->stats.calls--;
    http_client_count(client);
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
    if (call->is_attached) {
        call->phase_due_ms = uv_now(call->client->uv) + call->silence_ms;
        http_client_arm(call->client, http_call_due_ms(call));
        CURLcode code = curl_easy_pause(call->easy, CURLPAUSE_CONT); /* may bring what curl kept */
        if (code != CURLE_OK)
            http_call_conclude(call, code);
    }
    if (call->body.len || call->is_over)
        http_client_tell(call);
    http_client_wake(call->client);
}

/* ---- Hanging up ---- */

void http_call_hang_up(struct http_call *call, uint32_t drain_ms)
{
    if (call->is_over || call->is_draining) {
        http_call_resume(call);
        return;
    }
    call->is_draining = true;
    if (call->phase == HTTP_CALL_CONNECTING || call->fd == CURL_SOCKET_BAD) {
        bool is_unsent = call->phase == HTTP_CALL_CONNECTING; /* else its connection has just closed */
        http_call_finish(call, is_unsent ? HTTP_CALL_UNSENT : HTTP_CALL_CUT,
                         is_unsent ? "hung up before the request was sent" : "hung up");
        http_client_wake(call->client);
        return;
    }
    call->forbids_reuse = true;
    curl_easy_setopt(call->easy, CURLOPT_FORBID_REUSE, 1L);
    net_socket_shut(call->fd);
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
        buf_release(&call->body);
        http_call_finish(call, HTTP_CALL_TIMEOUT_TOTAL, "the whole reply took longer than its time limit");
    } else if (call->is_draining) {
        http_call_finish(call, HTTP_CALL_CUT, "hung up, and the other end did not finish in time");
    } else {
        http_call_finish(call, ends[call->phase].how, ends[call->phase].message);
    }
}
