/* The HTTP/1.1 request parser (RFC 9112).
 *
 * Job: turn bytes, in whatever pieces they arrive, into one request, or into a status and a reason.
 * Method: a table of steps. Each step takes as many bytes as it understands, up to all of a token, and names
 * the next step; the loop in http_reader_feed offers it what is there. Text is copied, terminated, into one
 * buffer and referred to by offset, because the buffer moves as it grows.
 *
 * Invariants:
 *  1. The result is a function of the bytes alone, never of how they were cut: a limit is compared before a
 * byte is looked at, and a step that stops early leaves all it knows in the struct.
 *  2. Every step takes a byte, changes the step, or refuses: the loop ends.
 *  3. Memory follows the bytes received. A Content-Length is a promise of the client's; nothing is allocated
 * for it.
 *  4. One reading only. Whatever two parsers could read differently is refused: bare CR, bare LF, NUL and
 * other controls, obsolete folding, space before a colon, a second Content-Length even when equal,
 * Content-Length beside Transfer-Encoding, any coding but a single chunked, Transfer-Encoding in HTTP/1.0,
 * space after a chunk size, framing fields among the trailers. The one thing tolerated is one empty line
 * (CRLF) before the request line, as RFC 9112, 2.2 asks.
 *
 * Trailers and chunk extensions are checked, counted and dropped. */
#include "net/http_parse_int.h"

#include <string.h>

#define CHUNK_SIZE_DIGITS_MAX 16
#define NAME_STEP_BYTES ((size_t)64)       /* of a longer name, the rest is another step */
#define TEXT_KEPT_BYTES_MAX ((size_t)4096) /* a cleared parser holds no more */

enum step {
    STEP_START,
    STEP_BLANK_LF,
    STEP_METHOD,
    STEP_TARGET,
    STEP_VERSION,
    STEP_LINE_CR,
    STEP_LINE_LF,
    STEP_FIELD,
    STEP_NAME,
    STEP_VALUE_SPACE,
    STEP_VALUE,
    STEP_FIELD_LF,
    STEP_SECTION_LF,
    STEP_BODY,
    STEP_CHUNK_SIZE,
    STEP_CHUNK_EXTENSION,
    STEP_CHUNK_SIZE_LF,
    STEP_CHUNK_DATA,
    STEP_CHUNK_CR,
    STEP_CHUNK_LF
};

struct step_rule {
    size_t (*take)(struct http_reader *parser, const char *bytes, size_t len);
    bool is_head;       /* its bytes count against head_room */
    char expected;      /* take_expected only: the one byte that may come ... */
    enum step next;     /* ... the step after it ... */
    const char *reason; /* ... and what to say otherwise */
};

static const struct step_rule rules[STEP_CHUNK_LF + 1];

/* Bits of HTTP_CHAR_*; bytes from 0x80 on are obs-text and may stand in values only. */
/* clang-format off */
const unsigned char http_char_classes[256] = {
    /* controls; tab */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    /* space ! " # to / */
    0x04, 0x07, 0x04, 0x05, 0x07, 0x07, 0x07, 0x07, 0x06, 0x06, 0x07, 0x07, 0x06, 0x0f, 0x0f, 0x06,
    /* 0 to ? */
    0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0e, 0x06, 0x04, 0x06, 0x04, 0x06,
    /* @ to O */
    0x06, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f,
    /* P to _ */
    0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x06, 0x04, 0x06, 0x05, 0x0f,
    /* ` to o */
    0x05, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f,
    /* p to ~ */
    0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x04, 0x05, 0x04, 0x07, 0x00,
    /* from 0x80 on */
    0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04,
    0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04,
    0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04,
    0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04,
    0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04,
    0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04,
    0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04,
    0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04,
};
/* clang-format on */

static size_t run_len(const char *bytes, size_t len, unsigned char_class)
{
    size_t n = 0;
    while (n < len && http_char_is((unsigned char)bytes[n], char_class))
        n++;
    return n;
}

/* The same for a field's value, which is most of a head: eight bytes a step while none of them is a control
 * (Mycroft's test, see Warren, Hacker's Delight, 6-1). */
static size_t value_len(const char *bytes, size_t len)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    size_t n = 0;
    for (uint64_t word; len - n >= sizeof word; n += sizeof word) {
        memcpy(&word, bytes + n, sizeof word);
        uint64_t is_del = (word ^ ones * 0x7f) - ones, is_control = word - ones * 0x20;
        if ((is_del | is_control) & ~word & high)
            break;
    }
    return n + run_len(bytes + n, len - n, HTTP_CHAR_VALUE);
}

void http_reader_init(struct http_reader *parser, size_t body_bytes_max)
{
    *parser = (struct http_reader){.body_bytes_max = body_bytes_max, .head_room = HTTP_HEADER_BYTES_MAX};
    buf_init(&parser->text, HTTP_HEADER_BYTES_MAX + HTTP_TRAILER_BYTES_MAX);
    buf_init(&parser->body, body_bytes_max);
}

void http_reader_release(struct http_reader *parser)
{
    buf_release(&parser->text);
    buf_release(&parser->body);
}

void http_reader_clear(struct http_reader *parser)
{
    struct buf text = parser->text;
    buf_release(&parser->body);
    size_t fields_at = offsetof(struct http_reader, fields);
    size_t body_bytes_max = parser->body_bytes_max;
    memset(parser, 0, fields_at); /* the fields are garbage beyond field_count anyway */
    parser->body_bytes_max = body_bytes_max;
    parser->head_room = HTTP_HEADER_BYTES_MAX;
    buf_init(&parser->body, body_bytes_max);
    parser->text = text;
    if (text.cap > TEXT_KEPT_BYTES_MAX)
        buf_release(&parser->text);
    buf_clear(&parser->text);
}

static size_t refuse(struct http_reader *parser, int status, const char *reason)
{
    parser->event = HTTP_EVENT_REFUSED;
    parser->status = status;
    parser->reason = reason;
    return 0;
}

static void refuse_for_space(struct http_reader *parser)
{
    if (!parser->trailing)
        refuse(parser, 431, "the request line and header fields are larger than this server accepts");
    else
        refuse(parser, 400, "the chunk extensions and trailers are larger than this server accepts");
}

enum http_event http_reader_feed(struct http_reader *parser, const char *bytes, size_t len, size_t *used)
{
    size_t at = 0;
    parser->event = HTTP_EVENT_MORE;
    while (at < len && parser->event == HTTP_EVENT_MORE) {
        const struct step_rule *rule = &rules[parser->step];
        size_t offered = len - at;
        if (rule->is_head) {
            if (parser->head_room == 0) {
                refuse_for_space(parser);
                break;
            }
            if (offered > parser->head_room)
                offered = parser->head_room;
        }
        size_t taken = rule->take(parser, bytes + at, offered);
        if (rule->is_head)
            parser->head_room -= taken;
        at += taken;
        if (parser->event != HTTP_EVENT_REFUSED &&
            (buf_status(&parser->text) != PH_OK || buf_status(&parser->body) != PH_OK))
            refuse(parser, 503, "the server has no memory for this request now");
    }
    *used = at;
    return parser->event;
}

/* ---- Request line ---- */

static void begin_token(struct http_reader *parser, enum step step)
{
    parser->token = parser->text.len;
    parser->step = (int)step;
}

static uint32_t end_token(struct http_reader *parser)
{
    buf_putc(&parser->text, 0);
    return (uint32_t)parser->token;
}

static size_t take_expected(struct http_reader *parser, const char *bytes, size_t len)
{
    (void)len;
    const struct step_rule *rule = &rules[parser->step];
    if (*bytes != rule->expected)
        return refuse(parser, 400, rule->reason);
    parser->step = (int)rule->next;
    return 1;
}

static size_t take_start(struct http_reader *parser, const char *bytes, size_t len)
{
    (void)len;
    if (*bytes == '\r' && !parser->saw_blank_line) {
        parser->saw_blank_line = true;
        parser->step = STEP_BLANK_LF;
        return 1;
    }
    begin_token(parser, STEP_METHOD);
    return 0;
}

/* A run of a token's characters that may be `max` long in all; SIZE_MAX: too long. Invariant 1: judged before
 * the byte behind the run is. */
static size_t take_run(struct http_reader *parser, const char *bytes, size_t len, unsigned char_class,
                       size_t max)
{
    size_t n = run_len(bytes, len, char_class);
    if (n > max - (parser->text.len - parser->token))
        return SIZE_MAX;
    buf_append(&parser->text, bytes, n);
    return n;
}

static size_t take_method(struct http_reader *parser, const char *bytes, size_t len)
{
    size_t n = take_run(parser, bytes, len, HTTP_CHAR_TOKEN, HTTP_METHOD_BYTES_MAX);
    if (n == SIZE_MAX)
        return refuse(parser, 501, "the request method is not known");
    if (n == len)
        return n;
    if (bytes[n] != ' ' || parser->text.len == parser->token)
        return refuse(parser, 400, "the request does not begin with a method and one space");
    end_token(parser);
    begin_token(parser, STEP_TARGET);
    return n + 1;
}

static size_t take_target(struct http_reader *parser, const char *bytes, size_t len)
{
    size_t n = take_run(parser, bytes, len, HTTP_CHAR_TARGET, HTTP_TARGET_BYTES_MAX);
    if (n == SIZE_MAX)
        return refuse(parser, 414, "the request target is longer than this server accepts");
    if (n == len)
        return n;
    if (bytes[n] != ' ' || parser->text.len == parser->token)
        return refuse(parser, 400,
                      "the request target is empty or has characters that need percent-encoding");
    parser->path = end_token(parser); /* the whole target, until http_target_split */
    parser->step = STEP_VERSION;
    return n + 1;
}

static size_t take_version(struct http_reader *parser, const char *bytes, size_t len)
{
    static const char pattern[] = "HTTP/#.#"; /* #: a digit */
    size_t n = 0;
    for (; n < len && pattern[parser->matched]; n++, parser->matched++) {
        char c = bytes[n], want = pattern[parser->matched];
        if (want == '#' ? c < '0' || c > '9' : c != want)
            return refuse(parser, 400, "the request line does not end in a version such as HTTP/1.1");
        if (want == '#')
            parser->version = parser->version * 10 + (c - '0');
    }
    if (pattern[parser->matched])
        return n;
    if (parser->version != 10 && parser->version != 11)
        return refuse(parser, 505, "this server speaks HTTP/1.1 and HTTP/1.0");
    parser->step = STEP_LINE_CR;
    return n;
}

/* ---- Header and trailer fields: each step goes on with the next one by itself while there are bytes ---- */

static bool is_forbidden_trailer(const char *name)
{
    static const char *const framing[] = {"content-length", "transfer-encoding", "host", "connection",
                                          "expect"};
    for (size_t i = 0; i < sizeof framing / sizeof *framing; i++)
        if (strcmp(name, framing[i]) == 0)
            return true;
    return false;
}

static size_t take_value(struct http_reader *parser, const char *bytes, size_t len)
{
    size_t n = value_len(bytes, len);
    buf_append(&parser->text, bytes, n);
    if (n == len || buf_status(&parser->text) != PH_OK)
        return n;
    if (bytes[n] != '\r')
        return refuse(parser, 400,
                      "a header field's value has a control character or a line feed without CR");
    struct buf *text = &parser->text;
    while (text->len > parser->token &&
           (text->data[text->len - 1] == ' ' || text->data[text->len - 1] == '\t'))
        text->len--;
    struct http_field *field = &parser->fields[parser->field_count];
    field->value = end_token(parser);
    parser->step = STEP_FIELD_LF;
    if (!parser->trailing) {
        parser->field_count++;
    } else if (buf_status(text) == PH_OK) {
        if (is_forbidden_trailer(text->data + field->name))
            return refuse(parser, 400,
                          "a trailer field has no business there (framing belongs in the header)");
        text->len = field->name; /* trailers are dropped */
    }
    return n + 1;
}

static size_t take_value_space(struct http_reader *parser, const char *bytes, size_t len)
{
    size_t n = 0;
    while (n < len && (bytes[n] == ' ' || bytes[n] == '\t'))
        n++;
    if (n == len)
        return n;
    parser->step = STEP_VALUE;
    return n + take_value(parser, bytes + n, len - n);
}

/* The characters of a token in lower case; 0: it is none. */
static const char lower_tokens[256] = "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                      "\0!\0#$%&'\0\0*+\0-.\0"
                                      "0123456789\0\0\0\0\0\0"
                                      "\0abcdefghijklmnopqrstuvwxyz\0\0\0^_"
                                      "`abcdefghijklmnopqrstuvwxyz\0|\0~";

static size_t take_name(struct http_reader *parser, const char *bytes, size_t len)
{
    size_t n = 0, most = len < NAME_STEP_BYTES ? len : NAME_STEP_BYTES;
    char *name = buf_reserve(&parser->text, most);
    if (!name)
        return 0;
    for (char c; n < most && (c = lower_tokens[(unsigned char)bytes[n]]); n++)
        name[n] = c;
    buf_grew(&parser->text, n);
    if (n == most)
        return n;
    if (bytes[n] != ':' || parser->text.len == parser->token)
        return refuse(parser, 400,
                      "a header field's name is empty, has a space, or is not followed by a colon");
    parser->fields[parser->field_count].name = end_token(parser);
    begin_token(parser, STEP_VALUE_SPACE);
    return n + 1 + take_value_space(parser, bytes + n + 1, len - n - 1);
}

static size_t take_field(struct http_reader *parser, const char *bytes, size_t len)
{
    if (*bytes == '\r') {
        parser->step = STEP_SECTION_LF;
        return 1;
    }
    if (*bytes == ' ' || *bytes == '\t')
        return refuse(parser, 400, "a header field begins with white space (line folding is obsolete)");
    if (parser->field_count == HTTP_HEADER_COUNT_MAX && !parser->trailing)
        return refuse(parser, 431, "the request has more header fields than this server accepts");
    begin_token(parser, STEP_NAME);
    return take_name(parser, bytes, len);
}

/* ---- What the head says about the message ---- */

struct framing {
    size_t host_count, length_count, coding_count;
    size_t length;
    bool is_too_large;
    bool says_close, says_keep_alive, says_continue;
    int status; /* of the first complaint; 0: none */
    const char *reason;
};

static void complain(struct framing *framing, int status, const char *reason)
{
    if (framing->status == 0) {
        framing->status = status;
        framing->reason = reason;
    }
}

bool http_word_is(const char *text, size_t len, const char *lower)
{
    for (size_t i = 0; i < len; i++) {
        if (lower[i] == 0 || http_lower(text[i]) != lower[i])
            return false;
    }
    return lower[len] == 0;
}

static void note_host(struct framing *framing, const char *value)
{
    framing->host_count++;
    if (!http_authority_is_valid(value, strlen(value)))
        complain(framing, 400, "the Host field is not a host and an optional port");
}

static void note_length(struct framing *framing, const char *value)
{
    if (framing->length_count++ > 0)
        complain(framing, 400, "there is more than one Content-Length");
    if (*value == 0)
        complain(framing, 400, "Content-Length is empty");
    for (; *value; value++) {
        if (*value < '0' || *value > '9') {
            complain(framing, 400, "Content-Length is not a plain decimal number");
            return;
        }
        if (framing->length > (SIZE_MAX - 9) / 10)
            framing->is_too_large = true;
        else
            framing->length = framing->length * 10 + (size_t)(*value - '0');
    }
}

static void note_coding(struct framing *framing, const char *value)
{
    if (framing->coding_count++ > 0)
        complain(framing, 400, "there is more than one Transfer-Encoding");
    if (!http_word_is(value, strlen(value), "chunked"))
        complain(framing, 501, "the only Transfer-Encoding known here is chunked");
}

static void note_connection(struct framing *framing, const char *value)
{
    while (*value) {
        value += strspn(value, " \t,");
        size_t whole = strcspn(value, ","), len = whole;
        while (len && (value[len - 1] == ' ' || value[len - 1] == '\t'))
            len--;
        framing->says_close |= http_word_is(value, len, "close");
        framing->says_keep_alive |= http_word_is(value, len, "keep-alive");
        value += whole;
    }
}

static void note_expect(struct framing *framing, const char *value)
{
    if (http_word_is(value, strlen(value), "100-continue"))
        framing->says_continue = true;
    else
        complain(framing, 417, "the only expectation known here is 100-continue");
}

static const struct note {
    const char *name;
    void (*note)(struct framing *framing, const char *value);
} notes[] = {
    {"host", note_host},
    {"connection", note_connection},
    {"content-length", note_length},
    {"transfer-encoding", note_coding},
    {"expect", note_expect},
};

static void read_framing(const struct http_reader *parser, struct framing *framing)
{
    for (size_t i = 0; i < parser->field_count; i++) {
        const char *name = parser->text.data + parser->fields[i].name;
        for (size_t k = 0; k < sizeof notes / sizeof *notes; k++)
            if (*name == *notes[k].name && strcmp(name, notes[k].name) == 0)
                notes[k].note(framing, parser->text.data + parser->fields[i].value);
    }
    if (framing->host_count > 1)
        complain(framing, 400, "there is more than one Host field");
    if (framing->host_count == 0 && parser->version >= 11)
        complain(framing, 400, "an HTTP/1.1 request needs a Host field");
    if (framing->coding_count && framing->length_count)
        complain(framing, 400, "Transfer-Encoding and Content-Length exclude each other");
    if (framing->coding_count && parser->version < 11)
        complain(framing, 400, "HTTP/1.0 has no Transfer-Encoding");
    if (framing->is_too_large || framing->length > parser->body_bytes_max)
        complain(framing, 413, "the body is larger than this server accepts");
}

/* The head is all there: judges it, and chooses how the body is read. */
static void end_head(struct http_reader *parser)
{
    struct framing framing = {0};
    parser->is_head = strcmp(http_reader_method(parser), "HEAD") == 0;
    read_framing(parser, &framing);
    const char *complaint = http_target_split(parser, parser->path);
    if (complaint)
        complain(&framing, 400, complaint);
    if (strcmp(http_reader_method(parser), "CONNECT") == 0)
        complain(&framing, 501, "this server is not a proxy");
    if (framing.status) {
        refuse(parser, framing.status, framing.reason);
        return;
    }
    parser->keep_alive = !framing.says_close && (parser->version >= 11 || framing.says_keep_alive);
    parser->is_chunked = framing.coding_count > 0;
    parser->missing = framing.length;
    parser->trailing = true; /* any further field, and all head_room, is the trailers' */
    parser->head_room = HTTP_TRAILER_BYTES_MAX + 1; /* the line feed being taken counts yet */
    parser->expects_continue = framing.says_continue && parser->version >= 11;
    parser->matched = 0;
    parser->step = parser->is_chunked ? STEP_CHUNK_SIZE : STEP_BODY;
    parser->event = parser->is_chunked || parser->missing ? HTTP_EVENT_HEAD : HTTP_EVENT_DONE;
}

static size_t take_section_end(struct http_reader *parser, const char *bytes, size_t len)
{
    (void)len;
    if (*bytes != '\n')
        return refuse(parser, 400, "a CR is not followed by a line feed");
    if (parser->trailing)
        parser->event = HTTP_EVENT_DONE;
    else if (buf_status(&parser->text) == PH_OK)
        end_head(parser);
    return 1;
}

/* ---- Body ---- */

static size_t take_content(struct http_reader *parser, const char *bytes, size_t len)
{
    size_t n = len < parser->missing ? len : parser->missing;
    buf_append(&parser->body, bytes, n);
    parser->missing -= n;
    return n;
}

static size_t take_body(struct http_reader *parser, const char *bytes, size_t len)
{
    size_t n = take_content(parser, bytes, len);
    if (parser->missing == 0)
        parser->event = HTTP_EVENT_DONE;
    return n;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Sixteen digits fill 64 bits and no more, so `missing` can't overflow; 413 waits for the size's end. */
static size_t take_chunk_size(struct http_reader *parser, const char *bytes, size_t len)
{
    (void)len;
    int digit = hex_value(*bytes);
    if (digit >= 0) {
        if (parser->matched++ == CHUNK_SIZE_DIGITS_MAX)
            return refuse(parser, 400, "a chunk size has too many digits");
        parser->missing = parser->missing << 4 | (size_t)digit;
        return 1;
    }
    if (parser->matched == 0 || (*bytes != '\r' && *bytes != ';'))
        return refuse(parser, 400, "a chunk size is not a plain hexadecimal number");
    if (parser->missing > parser->body_bytes_max - parser->body.len)
        return refuse(parser, 413, "the body is larger than this server accepts");
    parser->step = *bytes == '\r' ? STEP_CHUNK_SIZE_LF : STEP_CHUNK_EXTENSION;
    return 1;
}

static size_t take_chunk_extension(struct http_reader *parser, const char *bytes, size_t len)
{
    size_t n = run_len(bytes, len, HTTP_CHAR_VALUE);
    if (n == len)
        return n;
    if (bytes[n] != '\r')
        return refuse(parser, 400, "a chunk extension has a control character or a line feed without CR");
    parser->step = STEP_CHUNK_SIZE_LF;
    return n + 1;
}

static size_t take_chunk_size_end(struct http_reader *parser, const char *bytes, size_t len)
{
    (void)len;
    if (*bytes != '\n')
        return refuse(parser, 400, "a CR is not followed by a line feed");
    parser->step = parser->missing ? STEP_CHUNK_DATA : STEP_FIELD;
    return 1;
}

static size_t take_chunk_data(struct http_reader *parser, const char *bytes, size_t len)
{
    size_t n = take_content(parser, bytes, len);
    if (parser->missing == 0) {
        parser->step = STEP_CHUNK_CR;
        parser->matched = 0;
    }
    return n;
}

static const char no_line_end[] = "a CR is not followed by a line feed";
static const char chunk_too_long[] = "a chunk's data is longer than its size says";

static const struct step_rule rules[STEP_CHUNK_LF + 1] = {
    [STEP_START] = {.take = take_start, .is_head = true},
    [STEP_BLANK_LF] = {take_expected, true, '\n', STEP_START, no_line_end},
    [STEP_METHOD] = {.take = take_method, .is_head = true},
    [STEP_TARGET] = {.take = take_target, .is_head = true},
    [STEP_VERSION] = {.take = take_version, .is_head = true},
    [STEP_LINE_CR] = {take_expected, true, '\r', STEP_LINE_LF, "the request line does not end in CR LF"},
    [STEP_LINE_LF] = {take_expected, true, '\n', STEP_FIELD, no_line_end},
    [STEP_FIELD] = {.take = take_field, .is_head = true},
    [STEP_NAME] = {.take = take_name, .is_head = true},
    [STEP_VALUE_SPACE] = {.take = take_value_space, .is_head = true},
    [STEP_VALUE] = {.take = take_value, .is_head = true},
    [STEP_FIELD_LF] = {take_expected, true, '\n', STEP_FIELD, no_line_end},
    [STEP_SECTION_LF] = {.take = take_section_end, .is_head = true},
    [STEP_BODY] = {.take = take_body},
    [STEP_CHUNK_SIZE] = {.take = take_chunk_size},
    [STEP_CHUNK_EXTENSION] = {.take = take_chunk_extension, .is_head = true},
    [STEP_CHUNK_SIZE_LF] = {.take = take_chunk_size_end},
    [STEP_CHUNK_DATA] = {.take = take_chunk_data},
    [STEP_CHUNK_CR] = {take_expected, false, '\r', STEP_CHUNK_LF, chunk_too_long},
    [STEP_CHUNK_LF] = {take_expected, false, '\n', STEP_CHUNK_SIZE, chunk_too_long},
};
