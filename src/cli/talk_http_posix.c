/* A station over HTTP: a small blocking client for one request at a time, enough for `pharos chat`.
 *
 * Each turn is a connection of its own with "connection: close", so that a reply's end is never in doubt: the
 * body is chunked or ends with the connection. Server-sent events are read line by line. Ctrl-C interrupts
 * the read; closing the socket is what tells the station to stop.
 *
 * Plain HTTP only: TLS belongs to a proxy in front. */
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/talk_int.h"

#define LINE_BYTES_MAX (4u << 20) /* one event */
#define BODY_BYTES_MAX (64u << 20)
#define ARENA_BYTES_MAX (64u << 20)

static volatile sig_atomic_t interrupted; /* the signal flag */

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

/* SA_RESTART: at the prompt, where an interrupt means nothing; 0: recv must return. */
static void watch_interrupts(int flags)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

struct talk_http {
    struct talk base;
    char *host, *port, *prefix; /* "http://host:port/prefix" */
    char *model, *conversation; /* NULL: not said */
};

/* One reply being read. */
struct stream {
    int fd;
    char raw[16384];
    size_t at, len;
    bool chunked;
    size_t chunk_left; /* of the body, when chunked */
    bool first_chunk, ended;
    struct buf line;
    struct ph_err *err;
};

/* ---- Bytes */

static enum ph_status fail_errno(struct ph_err *err, const char *what)
{
    if (interrupted)
        return ph_fail(err, PH_ERR_CANCELLED, "interrupted");
    return ph_fail(err, PH_ERR_IO, "%s: %s", what, strerror(errno));
}

/* -1: the end, or a failure (then status says so). */
static int raw_byte(struct stream *s, enum ph_status *status)
{
    if (s->at == s->len) {
        ssize_t got = interrupted ? -1 : recv(s->fd, s->raw, sizeof s->raw, 0);
        if (got < 0)
            *status = fail_errno(s->err, "reading the reply");
        if (got <= 0)
            return -1;
        s->at = 0;
        s->len = (size_t)got;
    }
    return (unsigned char)s->raw[s->at++];
}

/* A line without its end, from the bytes under the chunks. */
static enum ph_status raw_line(struct stream *s, struct buf *line)
{
    enum ph_status status = PH_OK;
    int byte;
    buf_clear(line);
    while ((byte = raw_byte(s, &status)) >= 0 && byte != '\n')
        buf_putc(line, (char)byte);
    if (status == PH_OK && byte < 0)
        return ph_fail(s->err, PH_ERR_FORMAT, "the station hung up in the middle of its reply");
    if (line->len && line->data[line->len - 1] == '\r')
        line->data[--line->len] = 0;
    return status == PH_OK ? buf_status(line) : status;
}

static enum ph_status next_chunk(struct stream *s)
{
    struct buf line;
    buf_init(&line, 4096);
    enum ph_status status = s->first_chunk ? PH_OK : raw_line(s, &line); /* the end of the last chunk */
    s->first_chunk = false;
    if (status == PH_OK)
        status = raw_line(s, &line);
    if (status == PH_OK) {
        char *end = NULL;
        s->chunk_left = line.len ? (size_t)strtoul(line.data, &end, 16) : 0;
        if (!end || end == line.data)
            status = ph_fail(s->err, PH_ERR_FORMAT, "the reply's chunks are damaged");
        s->ended = s->chunk_left == 0;
    }
    buf_release(&line);
    return status;
}

/* -1: the body's end, or a failure. */
static int body_byte(struct stream *s, enum ph_status *status)
{
    if (s->chunked && s->chunk_left == 0 && !s->ended)
        *status = next_chunk(s);
    if (s->ended || *status != PH_OK)
        return -1;
    if (s->chunked)
        s->chunk_left--;
    int byte = raw_byte(s, status);
    if (byte < 0 && *status == PH_OK) {
        s->ended = true;
        if (s->chunked)
            *status = ph_fail(s->err, PH_ERR_FORMAT, "the station broke off its reply");
    }
    return byte;
}

/* ---- Requests */

static enum ph_status connect_to(const struct talk_http *t, int *fd, struct ph_err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int rc = getaddrinfo(t->host, t->port, &hints, &list);
    if (rc != 0)
        return ph_fail(err, PH_ERR_IO, "%s: %s", t->host, gai_strerror(rc));
    *fd = -1;
    for (struct addrinfo *a = list; a && *fd < 0; a = a->ai_next) {
        *fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (*fd >= 0 && connect(*fd, a->ai_addr, a->ai_addrlen) != 0) {
            int kept = errno;
            close(*fd);
            errno = kept;
            *fd = -1;
        }
    }
    freeaddrinfo(list);
    if (*fd >= 0)
        return PH_OK;
    return ph_fail(err, PH_ERR_IO, "no station at %s port %s: %s; start one with pharos serve", t->host,
                   t->port, strerror(errno));
}

static enum ph_status send_all(int fd, const struct buf *bytes, struct ph_err *err)
{
    for (size_t at = 0; at < bytes->len;) {
        ssize_t sent = send(fd, bytes->data + at, bytes->len - at, MSG_NOSIGNAL);
        if (sent < 0)
            return fail_errno(err, "sending the request");
        at += (size_t)sent;
    }
    return PH_OK;
}

static void write_body(const struct talk_http *t, const struct json *messages, struct buf *out)
{
    buf_puts(out, "{\"stream\":true,");
    if (t->model) {
        buf_puts(out, "\"model\":");
        json_write_string(out, t->model, strlen(t->model));
        buf_putc(out, ',');
    }
    if (t->conversation) {
        buf_puts(out, "\"metadata\":{\"conversation_id\":");
        json_write_string(out, t->conversation, strlen(t->conversation));
        buf_puts(out, "},");
    }
    buf_puts(out, "\"messages\":");
    json_write(out, messages);
    buf_putc(out, '}');
}

static enum ph_status send_request(const struct talk_http *t, int fd, const struct json *messages,
                                   struct ph_err *err)
{
    struct buf body, request;
    buf_init(&body, BODY_BYTES_MAX);
    buf_init(&request, BODY_BYTES_MAX + 65536);
    write_body(t, messages, &body);
    buf_printf(&request,
               "POST %s/v1/chat/completions HTTP/1.1\r\nhost: %s:%s\r\ncontent-type: application/json\r\n"
               "accept: text/event-stream\r\nconnection: close\r\ncontent-length: %zu\r\n\r\n",
               t->prefix, t->host, t->port, body.len);
    buf_append(&request, body.data, body.len);
    enum ph_status status = buf_status(&body);
    if (status == PH_OK)
        status = buf_status(&request);
    if (status == PH_OK)
        status = send_all(fd, &request, err);
    else
        status = ph_fail(err, status, "the conversation has become too long; /new begins another");
    buf_release(&body);
    buf_release(&request);
    return status;
}

/* ---- Replies */

static enum ph_status read_head(struct stream *s, int *http_status)
{
    struct buf line;
    buf_init(&line, 65536);
    enum ph_status status = raw_line(s, &line);
    *http_status = status == PH_OK && line.len > 12 ? (int)strtol(line.data + 9, NULL, 10) : 0;
    if (status == PH_OK && *http_status < 100)
        status = ph_fail(s->err, PH_ERR_FORMAT, "what answers there does not speak HTTP");
    while (status == PH_OK && line.len) {
        status = raw_line(s, &line);
        if (line.len && strncasecmp(line.data, "transfer-encoding:", 18) == 0 && strstr(line.data, "chunked"))
            s->chunked = true;
    }
    s->first_chunk = true;
    buf_release(&line);
    return status;
}

static enum ph_status fail_with(struct ph_err *err, const struct json *error, int http_status)
{
    const char *message = json_text(json_get(error, "message"), NULL);
    if (message)
        return ph_fail(err, PH_ERR_ARG, "%s", message);
    return ph_fail(err, PH_ERR_ARG, "the station answers with status %d", http_status);
}

/* A reply that is no stream: an error. */
static enum ph_status read_error(struct stream *s, int http_status, struct arena *arena)
{
    enum ph_status status = PH_OK;
    struct json *body = NULL;
    int byte;
    while ((byte = body_byte(s, &status)) >= 0)
        buf_putc(&s->line, (char)byte);
    if (status != PH_OK)
        return status;
    if (!s->line.len || json_parse(arena, s->line.data, s->line.len, &body, NULL) != PH_OK)
        body = NULL;
    return fail_with(s->err, json_get(body, "error"), http_status);
}

/* One line of the stream. */
static enum ph_status take_line(struct stream *s, struct buf *reply, bool *done)
{
    struct arena arena;
    struct json *chunk;
    enum ph_status status = buf_status(&s->line);
    if (status != PH_OK || s->line.len < 6 || strncmp(s->line.data, "data: ", 6) != 0)
        return status;
    const char *data = s->line.data + 6;
    *done = strcmp(data, "[DONE]") == 0;
    if (*done)
        return PH_OK;
    arena_init(&arena, ARENA_BYTES_MAX);
    status = json_parse(&arena, data, s->line.len - 6, &chunk, s->err);
    if (status == PH_OK && json_get(chunk, "error"))
        status = fail_with(s->err, json_get(chunk, "error"), 200);
    if (status == PH_OK) {
        const struct json *delta = json_get(json_first(json_get(chunk, "choices")), "delta");
        const struct json *text = json_get(delta, "content");
        if (json_is(text, JSON_STRING)) {
            buf_append(reply, text->u.str.text, text->u.str.len);
            if (!talk_show(text->u.str.text, text->u.str.len))
                status = ph_fail(s->err, PH_ERR_CANCELLED, "nobody reads the reply");
        }
    }
    arena_release(&arena);
    return status;
}

static enum ph_status read_stream(struct stream *s, struct buf *reply)
{
    enum ph_status status = PH_OK;
    bool done = false;
    int byte;
    while (status == PH_OK && !done && (byte = body_byte(s, &status)) >= 0) {
        if (byte == '\n') {
            status = take_line(s, reply, &done);
            buf_clear(&s->line);
        } else if (byte != '\r') {
            buf_putc(&s->line, (char)byte);
        }
    }
    if (status == PH_OK && !done)
        return ph_fail(s->err, PH_ERR_FORMAT, "the station's reply has no end");
    return status;
}

static enum ph_status http_turn(struct talk_http *t, const struct json *messages, struct buf *reply,
                                struct ph_err *err)
{
    struct stream s = {.fd = -1, .err = err};
    struct arena arena;
    int http_status = 0;
    arena_init(&arena, ARENA_BYTES_MAX);
    buf_init(&s.line, LINE_BYTES_MAX);
    enum ph_status status = connect_to(t, &s.fd, err);
    if (status == PH_OK)
        status = send_request(t, s.fd, messages, err);
    if (status == PH_OK)
        status = read_head(&s, &http_status);
    if (status == PH_OK)
        status = http_status == 200 ? read_stream(&s, reply) : read_error(&s, http_status, &arena);
    if (s.fd >= 0)
        close(s.fd);
    buf_release(&s.line);
    arena_release(&arena);
    return status;
}

static enum ph_status http_reply_turn(struct talk *base, const struct json *messages, struct buf *reply,
                                      struct ph_err *err)
{
    interrupted = 0;
    watch_interrupts(0);
    enum ph_status status = http_turn((struct talk_http *)base, messages, reply, err);
    watch_interrupts(SA_RESTART);
    return status;
}

/* ---- Life */

static void http_close(struct talk *base)
{
    struct talk_http *t = (struct talk_http *)base;
    mem_free(t->host);
    mem_free(t->port);
    mem_free(t->prefix);
    mem_free(t->model);
    mem_free(t->conversation);
    mem_free(t);
}

static char *copy_range(const char *from, const char *to)
{
    char *copy = mem_alloc((size_t)(to - from) + 1);
    if (!copy)
        return NULL;
    memcpy(copy, from, (size_t)(to - from));
    copy[to - from] = 0;
    return copy;
}

/* "http://host:port/prefix", "host:port", "host"; a trailing /v1 is what OpenAI clients call the base. */
static enum ph_status parse_url(struct talk_http *t, const char *url, struct ph_err *err)
{
    if (strncmp(url, "https://", 8) == 0)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "%s: this version speaks plain http only", url);
    const char *host = strncmp(url, "http://", 7) == 0 ? url + 7 : url;
    const char *end = host + strcspn(host, "/");
    const char *bracket = *host == '[' ? memchr(host, ']', (size_t)(end - host)) : NULL;
    const char *colon = memchr(bracket ? bracket : host, ':', (size_t)(end - (bracket ? bracket : host)));
    const char *host_end = bracket ? bracket : colon ? colon : end;
    size_t prefix = strlen(end);
    while (prefix && end[prefix - 1] == '/')
        prefix--;
    if (prefix >= 3 && strncmp(end + prefix - 3, "/v1", 3) == 0)
        prefix -= 3;
    host += bracket ? 1 : 0;
    if (host == host_end)
        return ph_fail(err, PH_ERR_ARG, "\"%s\" is not the address of a station; try http://127.0.0.1:8080",
                       url);
    t->host = copy_range(host, host_end);
    t->port = colon ? copy_range(colon + 1, end) : mem_strdup("8080");
    t->prefix = copy_range(end, end + prefix);
    if (!t->host || !t->port || !t->prefix)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    return PH_OK;
}

enum ph_status talk_http_open(struct talk **out, const char *url, const char *model, const char *conversation,
                              struct ph_err *err)
{
    static const struct talk_ops ops = {http_reply_turn, http_close};
    struct talk_http *t = mem_calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    t->base.ops = &ops;
    enum ph_status status = parse_url(t, url, err);
    if (status == PH_OK && model && !(t->model = mem_strdup(model)))
        status = ph_fail(err, PH_ERR_NOMEM, "out of memory");
    if (status == PH_OK && conversation && !(t->conversation = mem_strdup(conversation)))
        status = ph_fail(err, PH_ERR_NOMEM, "out of memory");
    if (status == PH_OK) {
        watch_interrupts(SA_RESTART);
        *out = &t->base;
    } else {
        http_close(&t->base);
    }
    return status;
}
