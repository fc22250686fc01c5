/* The HTTP/1.1 reply parser (RFC 9112).
 *
 * Job: turn what a server sends, in whatever pieces, into a head and the bytes of a body. A head gathers as
 * it came until its empty line, and is then taken apart in place. A body is never copied: its bytes are moved
 * to the front of the piece they came in, over the framing between them.
 *
 * Servers are read more kindly than clients (http_parse.c), where that cannot change what a reply means:
 * lines may end in LF alone, fields may be folded, reason phrases are free, interim heads (1xx) are skipped.
 * What says where a reply ends is read strictly: a second, different Content-Length, a coding other than
 * chunked, a chunk without its end are no HTTP. Transfer-Encoding beside Content-Length wins, and the
 * connection is not used again (RFC 9112, 6.3).
 *
 * Invariants: each turn of the loop in http_reply_feed takes a byte or ends; memory follows the bytes
 * received, never what a length promises. */
#include <string.h>

#include "base/limits.h"
#include "net/http_parse_int.h"
#include "net/http_reply_int.h"

#define TEXT_KEPT_BYTES_MAX ((size_t)8192)
#define CHUNK_SIZE_DIGITS_MAX 16
#define PREFIX "HTTP/1."
#define PREFIX_LEN (sizeof PREFIX - 1)

enum step {
    STEP_HEAD,
    STEP_SIZED,      /* a body by its length */
    STEP_UNSIZED,    /* a body until the connection closes */
    STEP_CHUNK_SIZE, /* its digits */
    STEP_CHUNK_LINE, /* the rest of that line */
    STEP_CHUNK_DATA,
    STEP_CHUNK_END, /* the line end behind the data */
    STEP_TRAILERS
};

void http_reply_init(struct http_reply *reply)
{
    *reply = (struct http_reply){0};
    buf_init(&reply->text, HTTP_CALL_HEAD_BYTES_MAX);
}

void http_reply_release(struct http_reply *reply)
{
    buf_release(&reply->text);
}

void http_reply_clear(struct http_reply *reply, bool is_for_head, size_t body_bytes_max)
{
    struct buf text = reply->text;
    if (text.cap > TEXT_KEPT_BYTES_MAX)
        buf_release(&text);
    buf_clear(&text);
    *reply = (struct http_reply){.is_for_head = is_for_head,
                                 .text = text,
                                 .head_room = HTTP_CALL_HEAD_BYTES_MAX,
                                 .body_room = body_bytes_max};
}

static void end(struct http_reply *reply, enum http_reply_state state, const char *why)
{
    reply->state = state;
    reply->why = why;
}

static void refuse(struct http_reply *reply, const char *why)
{
    end(reply, HTTP_REPLY_BAD, why);
}

/* ---- Fields ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct span {
    char *at, *end;
};

static struct span trimmed(char *at, char *end)
{
    while (at < end && is_blank(*at))
        at++;
    while (end > at && is_blank(end[-1]))
        end--;
    return (struct span){at, end};
}

/* Lower case, checked; false: this is no name. Blanks before the colon are no part of it (RFC 9112, 5.1). */
static bool tidy_name(struct span *name)
{
    while (name->end > name->at && is_blank(name->end[-1]))
        name->end--;
    for (char *c = name->at; c < name->end; c++) {
        if (!http_char_is((unsigned char)*c, HTTP_CHAR_TOKEN))
            return false;
        *c = http_lower(*c);
    }
    return name->end > name->at;
}

static bool is_value(struct span value)
{
    for (const char *c = value.at; c < value.end; c++)
        if (!http_char_is((unsigned char)*c, HTTP_CHAR_VALUE))
            return false;
    return true;
}

static char *put(char *out, struct span piece)
{
    size_t len = (size_t)(piece.end - piece.at);
    memmove(out, piece.at, len);
    out[len] = 0;
    return out + len + 1;
}

/* Takes the fields apart, each line into no more room than it had. `at` stands behind the status line, `out`
 * is where the text may be written from. */
static void split_fields(struct http_reply *reply, char *at, char *end_of_text)
{
    char *out = reply->text.data;
    while (at < end_of_text) {
        char *line_end = memchr(at, '\n', (size_t)(end_of_text - at));
        char *next = line_end + 1;
        if (line_end > at && line_end[-1] == '\r')
            line_end--;
        char *colon = memchr(at, ':', (size_t)(line_end - at));
        bool continues = is_blank(*at) && reply->field_count;
        struct span name = {at, colon ? colon : at};
        struct span value = trimmed(continues ? at : colon ? colon + 1 : at, line_end);
        if (line_end == at)
            break;
        if (!is_value(value) || (!continues && (!colon || !tidy_name(&name)))) {
            refuse(reply, "the head of the reply has a line that is no header");
            return;
        }
        if (continues) {
            out[-1] = ' ';
        } else {
            out = put(out, name);
            reply->field_count++;
        }
        out = put(out, value);
        at = next;
    }
    reply->text.len = (size_t)(out - reply->text.data);
}

/* ---- What the head says about the message ---- */

struct framing {
    bool has_length, is_chunked, has_coding, closes, keeps;
    uint64_t length;
};

static bool note_length(struct framing *framing, const char *value)
{
    uint64_t length = 0;
    const char *c = value;
    for (; *c >= '0' && *c <= '9'; c++) {
        if (length > (UINT64_MAX - 9) / 10)
            return false;
        length = length * 10 + (uint64_t)(*c - '0');
    }
    bool is_good = c > value && !*c && (!framing->has_length || framing->length == length);
    framing->has_length = true;
    framing->length = length;
    return is_good;
}

static void note_connection(struct framing *framing, const char *value)
{
    while (*value) {
        value += strspn(value, " \t,");
        size_t len = strcspn(value, " \t,");
        framing->closes |= http_word_is(value, len, "close");
        framing->keeps |= http_word_is(value, len, "keep-alive");
        value += len;
    }
}

static void note_field(struct http_reply *reply, struct framing *framing, const char *name, const char *value)
{
    if (strcmp(name, "content-length") == 0) {
        if (!note_length(framing, value))
            refuse(reply, "the reply's content-length is no number, or there are two");
    } else if (strcmp(name, "transfer-encoding") == 0) {
        bool is_chunked = http_word_is(value, strlen(value), "chunked");
        if (framing->has_coding || (!is_chunked && !http_word_is(value, strlen(value), "identity")))
            refuse(reply, "the reply has a transfer-encoding that was not asked for");
        framing->has_coding = true;
        framing->is_chunked = is_chunked;
    } else if (strcmp(name, "connection") == 0) {
        note_connection(framing, value);
    }
}

static void begin_chunk_size(struct http_reply *reply)
{
    reply->step = STEP_CHUNK_SIZE;
    reply->missing = 0;
    reply->digits = 0;
    reply->line = 0;
}

static void read_framing(struct http_reply *reply)
{
    struct framing framing = {0};
    const char *at = reply->text.data;
    for (size_t i = 0; i < reply->field_count && reply->state == HTTP_REPLY_GOES_ON; i++) {
        const char *value = at + strlen(at) + 1;
        if (*at == 'c' || *at == 't')
            note_field(reply, &framing, at, value);
        at = value + strlen(value) + 1;
    }
    if (reply->state != HTTP_REPLY_GOES_ON)
        return;
    reply->has_head = true;
    reply->keeps_alive = !framing.closes && (reply->version > 10 || framing.keeps);
    if (framing.has_coding && (framing.has_length || reply->version == 10))
        reply->keeps_alive = false;
    bool has_body = !reply->is_for_head && reply->status != 204 && reply->status != 304;
    reply->missing = framing.length;
    if (!has_body || (!framing.is_chunked && framing.has_length && !framing.length)) {
        end(reply, HTTP_REPLY_WHOLE, NULL);
    } else if (framing.is_chunked) {
        begin_chunk_size(reply);
    } else if (framing.has_length) {
        reply->step = STEP_SIZED;
    } else {
        reply->step = STEP_UNSIZED;
        reply->ends_by_close = true;
        reply->keeps_alive = false;
    }
    reply->head_room = HTTP_TRAILER_BYTES_MAX;
}

/* ---- The head ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 OK"; answers where its line ends, NULL: it is none. */
static char *read_status_line(struct http_reply *reply)
{
    const char *line = reply->text.data;
    char *line_end = memchr(line, '\n', reply->text.len);
    bool is_good = line_end - line >= 12 && is_digit(line[7]) && line[8] == ' ' && is_digit(line[9]) &&
                   is_digit(line[10]) && is_digit(line[11]) &&
                   (line[12] == ' ' || line[12] == '\r' || line[12] == '\n');
    if (!is_good)
        return NULL;
    reply->version = line[7] == '0' ? 10 : 11;
    reply->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    return line_end + 1;
}

static void end_head(struct http_reply *reply)
{
    char *fields = read_status_line(reply);
    if (!fields || reply->status < 100 || reply->status == 101) {
        refuse(reply, fields ? "the reply has a status that was not asked for"
                             : "the reply does not begin with a status line");
        return;
    }
    if (reply->status < 200) { /* the final one follows */
        buf_clear(&reply->text);
        reply->line = 0;
        return;
    }
    split_fields(reply, fields, reply->text.data + reply->text.len);
    if (reply->state == HTTP_REPLY_GOES_ON)
        read_framing(reply);
}

/* What does not begin like HTTP is judged at once: it may have no line and no end. */
static bool begins_well(const struct buf *text)
{
    return memcmp(text->data, PREFIX, text->len < PREFIX_LEN ? text->len : PREFIX_LEN) == 0;
}

/* Of a line that ends in LF: is it empty? */
static bool is_empty_line(const char *line, size_t len)
{
    return len == 1 || (len == 2 && *line == '\r');
}

/* Up to the end of a line; answers how many bytes were taken. */
static size_t take_head(struct http_reply *reply, const char *bytes, size_t len)
{
    if (reply->text.len < PREFIX_LEN && len > PREFIX_LEN - reply->text.len)
        len = PREFIX_LEN - reply->text.len; /* judged before anything else is */
    const char *line_end = memchr(bytes, '\n', len);
    size_t taken = line_end ? (size_t)(line_end - bytes) + 1 : len;
    if (taken > reply->head_room) {
        end(reply, HTTP_REPLY_TOO_LARGE, "the head of the reply is too large");
        return 0;
    }
    reply->head_room -= taken;
    buf_append(&reply->text, bytes, taken);
    if (buf_status(&reply->text) != PH_OK)
        end(reply, HTTP_REPLY_NO_MEMORY, "no memory for the head of a reply");
    else if (!begins_well(&reply->text))
        refuse(reply, "the reply does not begin with a status line");
    else if (line_end && is_empty_line(reply->text.data + reply->line, reply->text.len - reply->line))
        end_head(reply);
    else if (line_end)
        reply->line = reply->text.len;
    return taken;
}

/* ---- The body ---- */

static size_t take_chunk_size(struct http_reply *reply, const char *bytes, size_t len)
{
    size_t n = 0;
    for (; n < len && http_hex_value(bytes[n]) >= 0; n++) {
        if (reply->digits++ == CHUNK_SIZE_DIGITS_MAX) {
            refuse(reply, "a chunk of the reply has no believable size");
            return n;
        }
        reply->missing = reply->missing * 16 + (uint64_t)http_hex_value(bytes[n]);
    }
    if (n == len)
        return n;
    if (!reply->digits || !memchr("\r\n; \t", bytes[n], 5))
        refuse(reply, "a chunk of the reply has no size");
    reply->step = STEP_CHUNK_LINE;
    return n;
}

/* Takes up to the end of a line whose text does not matter: counted in `line`, paid from head_room but for
 * one byte, its CR. Answers how many bytes; *is_whole: the line's end was among them. */
static size_t skip_line(struct http_reply *reply, const char *bytes, size_t len, bool *is_whole)
{
    const char *line_end = memchr(bytes, '\n', len);
    size_t text = line_end ? (size_t)(line_end - bytes) : len;
    if (text > reply->head_room) {
        end(reply, HTTP_REPLY_TOO_LARGE, "the chunk extensions and trailers of the reply are too large");
        return 0;
    }
    reply->head_room -= text;
    reply->is_blank_line = reply->line + text == 0 || (reply->line == 0 && text == 1 && *bytes == '\r') ||
                           (reply->line == 1 && text == 0 && reply->is_blank_line);
    reply->line += text;
    *is_whole = line_end != NULL;
    if (!line_end)
        return len;
    reply->head_room += reply->line > 0;
    reply->line = 0;
    return text + 1;
}

static size_t take_chunk_line(struct http_reply *reply, const char *bytes, size_t len)
{
    bool is_whole = false;
    size_t n = skip_line(reply, bytes, len, &is_whole);
    if (is_whole)
        reply->step = reply->missing ? STEP_CHUNK_DATA : STEP_TRAILERS;
    return n;
}

static size_t take_chunk_end(struct http_reply *reply, const char *bytes, size_t len)
{
    (void)len;
    if (*bytes == '\n')
        begin_chunk_size(reply);
    else if (*bytes == '\r' && !reply->line)
        reply->line = 1;
    else
        refuse(reply, "a chunk of the reply is longer than its size");
    return 1;
}

static size_t take_trailers(struct http_reply *reply, const char *bytes, size_t len)
{
    bool is_whole = false;
    size_t n = skip_line(reply, bytes, len, &is_whole);
    if (is_whole && reply->is_blank_line)
        end(reply, HTTP_REPLY_WHOLE, NULL);
    return n;
}

/* Bytes of the body: to the front with them. */
static size_t take_body(struct http_reply *reply, char *bytes, size_t len, char *front, size_t *body_len)
{
    size_t n = reply->step != STEP_UNSIZED && reply->missing < len ? (size_t)reply->missing : len;
    if (n > reply->body_room) {
        end(reply, HTTP_REPLY_TOO_LARGE, "the body of the reply is too large");
        return 0;
    }
    reply->body_room -= n;
    if (front + *body_len != bytes)
        memmove(front + *body_len, bytes, n);
    *body_len += n;
    if (reply->step == STEP_UNSIZED)
        return n;
    reply->missing -= n;
    if (!reply->missing && reply->step == STEP_SIZED) {
        end(reply, HTTP_REPLY_WHOLE, NULL);
    } else if (!reply->missing) {
        reply->step = STEP_CHUNK_END;
        reply->line = 0;
    }
    return n;
}

void http_reply_feed(struct http_reply *reply, char *bytes, size_t len, size_t *body_len)
{
    size_t at = 0;
    *body_len = 0;
    reply->has_begun |= len > 0;
    while (at < len && reply->state == HTTP_REPLY_GOES_ON) {
        switch (reply->step) {
        case STEP_HEAD:
            at += take_head(reply, bytes + at, len - at);
            break;
        case STEP_CHUNK_SIZE:
            at += take_chunk_size(reply, bytes + at, len - at);
            break;
        case STEP_CHUNK_LINE:
            at += take_chunk_line(reply, bytes + at, len - at);
            break;
        case STEP_CHUNK_END:
            at += take_chunk_end(reply, bytes + at, len - at);
            break;
        case STEP_TRAILERS:
            at += take_trailers(reply, bytes + at, len - at);
            break;
        default:
            at += take_body(reply, bytes + at, len - at, bytes, body_len);
            break;
        }
    }
    if (at < len)
        reply->keeps_alive = false;
}

void http_reply_end(struct http_reply *reply)
{
    if (reply->state == HTTP_REPLY_GOES_ON && reply->has_head && reply->ends_by_close)
        end(reply, HTTP_REPLY_WHOLE, NULL);
}
