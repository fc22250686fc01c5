/* Differential test against http-parser, an independent implementation in wide use: whatever we accept, it
 * must accept with the same method, target, fields, body and end. Where we refuse there is nothing to compare:
 * we mean to be stricter. Requests are grown from a grammar and then damaged; every run sees the same ones. */
#include "test_support.h"

#include <http_parser.h>

#include "base/clock.h"
#include "net/http_parse_int.h"

#define BODY_MAX 4000
#define ROUNDS 60000

struct seen {
    struct buf text; /* url 0 name 0 value 0 ... as http-parser tells them */
    struct buf body;
    size_t field_count;
    bool in_value, is_complete, in_trailers;
    char last; /* 'u' url, 'n' name, 'v' value */
};

static int on_url(http_parser *p, const char *at, size_t len)
{
    struct seen *seen = p->data;
    buf_append(&seen->text, at, len);
    seen->last = 'u';
    return 0;
}

static int on_name(http_parser *p, const char *at, size_t len)
{
    struct seen *seen = p->data;
    if (seen->in_trailers)
        return 0;
    if (seen->last != 'n') {
        buf_putc(&seen->text, 0);
        seen->field_count++;
    }
    for (size_t i = 0; i < len; i++)
        buf_putc(&seen->text, (char)(at[i] >= 'A' && at[i] <= 'Z' ? at[i] + 32 : at[i]));
    seen->last = 'n';
    return 0;
}

static int on_value(http_parser *p, const char *at, size_t len)
{
    struct seen *seen = p->data;
    if (seen->in_trailers)
        return 0;
    if (seen->last != 'v')
        buf_putc(&seen->text, 0);
    buf_append(&seen->text, at, len);
    seen->last = 'v';
    return 0;
}

static int on_headers_complete(http_parser *p)
{
    struct seen *seen = p->data;
    buf_putc(&seen->text, 0);
    seen->in_trailers = true;
    return 0;
}

static int on_body(http_parser *p, const char *at, size_t len)
{
    buf_append(&((struct seen *)p->data)->body, at, len);
    return 0;
}

static int on_complete(http_parser *p)
{
    ((struct seen *)p->data)->is_complete = true;
    http_parser_pause(p, 1);
    return 0;
}

static const char *after(const char *text)
{
    return text + strlen(text) + 1;
}

static void compare_fields(const struct http_reader *ours, const struct seen *seen)
{
    const char *at = after(seen->text.data);
    assert_int_equal(ours->field_count, seen->field_count);
    for (size_t i = 0; i < ours->field_count; i++) {
        assert_string_equal(ours->text.data + ours->fields[i].name, at);
        at = after(at);
        size_t len = strlen(at);
        while (len && (at[len - 1] == ' ' || at[len - 1] == '\t'))
            len--;
        assert_int_equal(strlen(ours->text.data + ours->fields[i].value), len);
        assert_memory_equal(ours->text.data + ours->fields[i].value, at, len);
        at = after(at);
    }
}

static void decode(const char *from, size_t len, char *to)
{
    for (size_t i = 0; i < len; i++) {
        unsigned byte = (unsigned char)from[i];
        if (byte == '%') {
            char hex[3] = {from[i + 1], from[i + 2], 0};
            byte = (unsigned)strtoul(hex, NULL, 16);
            i += 2;
        }
        *to++ = (char)byte;
    }
    *to = 0;
}

static void compare_target(const struct http_reader *ours, const struct seen *seen)
{
    const char *url = seen->text.data;
    struct http_parser_url parts;
    char path[8300] = "/", query[8300] = "";
    http_parser_url_init(&parts);
    if (strcmp(url, "*") != 0) {
        if (http_parser_parse_url(url, strlen(url), 0, &parts) != 0)
            fail_msg("target accepted here only: %s", url);
        if (parts.field_set & 1 << UF_PATH)
            decode(url + parts.field_data[UF_PATH].off, parts.field_data[UF_PATH].len, path);
        if (parts.field_set & 1 << UF_QUERY)
            memcpy(query, url + parts.field_data[UF_QUERY].off, parts.field_data[UF_QUERY].len);
    }
    assert_string_equal(ours->text.data + ours->path, path);
    assert_string_equal(ours->text.data + ours->query, query);
}

/* What RFC 9110 and 9112 allow and http-parser refuses: methods that it has no number for, a tab behind a
 * length or coding; and it takes any name that begins with "transfer-encoding" for that field. */
static bool is_only_stricter(enum http_errno error, const struct http_reader *ours, const char *bytes,
                             size_t len)
{
    for (size_t i = 0; i < ours->field_count; i++) {
        const char *name = ours->text.data + ours->fields[i].name;
        if (strncmp(name, "transfer-encoding", 17) == 0 && name[17])
            return true;
    }
    bool has_tab = memchr(bytes, '\t', len) != NULL;
    return error == HPE_INVALID_METHOD ||
           (has_tab && (error == HPE_INVALID_CONTENT_LENGTH || error == HPE_INVALID_TRANSFER_ENCODING));
}

/* Compares one request that we accepted. Answers whether http-parser could read it at all. */
static bool compare(const struct http_reader *ours, const char *bytes, size_t len)
{
    static const http_parser_settings settings = {.on_url = on_url,
                                                  .on_header_field = on_name,
                                                  .on_header_value = on_value,
                                                  .on_headers_complete = on_headers_complete,
                                                  .on_body = on_body,
                                                  .on_message_complete = on_complete};
    struct seen seen = {0};
    http_parser theirs;
    buf_init(&seen.text, 1 << 20);
    buf_init(&seen.body, 1 << 20);
    http_parser_init(&theirs, HTTP_REQUEST);
    theirs.data = &seen;
    http_parser_execute(&theirs, &settings, bytes, len);
    enum http_errno error = HTTP_PARSER_ERRNO(&theirs);
    bool is_known = !is_only_stricter(error, ours, bytes, len);
    if (is_known) {
        if (!seen.is_complete || (error != HPE_PAUSED && error != HPE_OK))
            fail_msg("accepted here, but there: %s\n%.*s", http_errno_description(error), (int)len, bytes);
        assert_string_equal(http_reader_method(ours), http_method_str((enum http_method)theirs.method));
        assert_int_equal(ours->version, theirs.http_major * 10 + theirs.http_minor);
        /* To close where the other would not is always safe (two Connection fields that disagree); a tab hides
         * the word before it from http-parser. */
        if (ours->keep_alive && !http_should_keep_alive(&theirs) && !memchr(bytes, '\t', len))
            fail_msg("keep-alive here %d:\n%.*s", ours->keep_alive, (int)len, bytes);
        compare_target(ours, &seen);
        compare_fields(ours, &seen);
        assert_int_equal(ours->body.len, seen.body.len);
        if (seen.body.len)
            assert_memory_equal(ours->body.data, seen.body.data, seen.body.len);
    }
    buf_release(&seen.text);
    buf_release(&seen.body);
    return is_known;
}

/* ---- Requests from a grammar ---- */

static size_t below(struct rng *rng, size_t n)
{
    return (size_t)(rng_u64(rng) % n);
}

#define PICK(rng, list) ((list)[below(rng, sizeof(list) / sizeof *(list))])

static void put_field(struct rng *rng, struct buf *out)
{
    static const char *const names[] = {"Accept",     "X-A",          "x-b",         "Authorization",
                                        "User-Agent", "Connection",   "Upgrade",     "Trailer",
                                        "Cookie",     "X-Request-Id", "X-Connection"};
    static const char *const values[] = {"",           "a",          "*/*",   "close",
                                         "keep-alive", "Bearer x y", "\"q\"", "\xe4\xff",
                                         "a, b ,c",    "chunked",    "h2c",   "x  y\tz"};
    static const char *const spaces[] = {"", " ", "  ", "\t", " \t "};
    buf_printf(out, "%s:%s%s%s\r\n", PICK(rng, names), PICK(rng, spaces), PICK(rng, values),
               PICK(rng, spaces));
}

static void put_chunks(struct rng *rng, struct buf *out)
{
    static const char *const extensions[] = {"", "", "", ";a", ";a=b", ";a=\"b c\"", ";;x"};
    for (size_t n = below(rng, 4); n > 0; n--) {
        size_t len = 1 + below(rng, 40);
        buf_printf(out, below(rng, 2) ? "%zx%s\r\n" : "0%zX%s\r\n", len, PICK(rng, extensions));
        for (size_t i = 0; i < len; i++)
            buf_putc(out, (char)below(rng, 256));
        buf_puts(out, "\r\n");
    }
    buf_printf(out, "0%s\r\n", PICK(rng, extensions));
    if (below(rng, 4) == 0)
        buf_puts(out, "X-Sum: 1\r\n");
    buf_puts(out, "\r\n");
}

static void put_request(struct rng *rng, struct buf *out)
{
    static const char *const methods[] = {"GET",  "POST",    "PUT",   "DELETE",
                                          "HEAD", "OPTIONS", "PATCH", "M-SEARCH"};
    static const char *const targets[] = {
        "/",          "/v1/chat/completions", "/a?b=c",        "/%41%2f?%41",
        "/?",         "http://h/x?y",         "http://h:80",   "https://h?z",
        "/a/../b//c", "/x;y=1,2@:!$&'()*+~",  "/%c3%a4?a[]=1", "*"};
    static const char *const versions[] = {"1.1", "1.1", "1.1", "1.0"};
    if (below(rng, 10) == 0)
        buf_puts(out, "\r\n");
    buf_printf(out, "%s %s HTTP/%s\r\n", PICK(rng, methods), PICK(rng, targets), PICK(rng, versions));
    for (size_t n = below(rng, 4); n > 0; n--)
        put_field(rng, out);
    buf_puts(out, below(rng, 20) ? "Host: example.org:8080\r\n" : "Host:\r\n");
    for (size_t n = below(rng, 4); n > 0; n--)
        put_field(rng, out);
    size_t body = below(rng, 3), len = below(rng, 60);
    if (body == 1)
        buf_printf(out, "Content-Length: %zu\r\n", len);
    else if (body == 2)
        buf_puts(out, "Transfer-Encoding: chunked\r\n");
    buf_puts(out, "\r\n");
    for (size_t i = 0; body == 1 && i < len; i++)
        buf_putc(out, (char)below(rng, 256));
    if (body == 2)
        put_chunks(rng, out);
}

/* One wound where it hurts: among the bytes that carry meaning. */
static void damage(struct rng *rng, struct buf *b)
{
    static const char *const splices[] = {"\r",
                                          "\n",
                                          "\r\n",
                                          " ",
                                          "\t",
                                          ":",
                                          "\r\n ",
                                          "0",
                                          "\0x",
                                          ";",
                                          ",",
                                          "chunked",
                                          "\r\n\r\n",
                                          "Content-Length: 3\r\n",
                                          "Transfer-Encoding: chunked\r\n",
                                          "Content-Length : 3\r\n",
                                          "Transfer-Encoding: xchunked\r\n",
                                          "\nContent-Length: 9\r\n",
                                          "Host: h\r\n",
                                          "%",
                                          "#",
                                          "\x80",
                                          "HTTP/1.1"};
    size_t at = below(rng, b->len + 1);
    struct buf tail;
    buf_init(&tail, 1 << 20);
    switch (below(rng, 4)) {
    case 0:
        b->data[at < b->len ? at : 0] = (char)below(rng, 256);
        break;
    case 1: { /* at the beginning of a line, half of the time */
        char *line = below(rng, 2) ? memchr(b->data + at, '\n', b->len - at) : NULL;
        if (line)
            at = (size_t)(line - b->data) + 1;
        buf_append(&tail, b->data + at, b->len - at);
        b->len = at;
        buf_puts(b, PICK(rng, splices));
        buf_append(b, tail.data, tail.len);
        break;
    }
    case 2: {
        size_t gone = 1 + below(rng, 3);
        gone = gone > b->len - at ? b->len - at : gone;
        buf_append(&tail, b->data + at + gone, b->len - at - gone);
        b->len = at;
        buf_append(b, tail.data, tail.len);
        break;
    }
    default: { /* a piece of it once more */
        size_t len = below(rng, 30);
        len = len > b->len - at ? b->len - at : len;
        buf_append(&tail, b->data + at, b->len - at);
        b->len = at + len;
        buf_append(b, tail.data, tail.len);
        break;
    }
    }
    buf_release(&tail);
}

static void accepts_only_what_the_other_reads_the_same(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 20240607);
    size_t accepted = 0, compared = 0, damaged_accepted = 0;
    struct http_reader ours;
    http_reader_init(&ours, BODY_MAX);
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t wounds = round % 4;
        put_request(&rng, &bytes);
        for (size_t i = 0; i < wounds && bytes.len; i++)
            damage(&rng, &bytes);
        size_t at = 0, used = 0;
        enum http_event event = HTTP_EVENT_MORE;
        do {
            event = http_reader_feed(&ours, bytes.data + at, bytes.len - at, &used);
            at += used;
        } while (event == HTTP_EVENT_HEAD && at < bytes.len);
        if (wounds == 0 && event == HTTP_EVENT_REFUSED && !strstr(bytes.data, " * ") &&
            !strstr(bytes.data, "HTTP/1.0"))
            fail_msg("refused, but well-formed: %s\n%.*s", ours.reason, (int)bytes.len, bytes.data);
        if (event == HTTP_EVENT_DONE) {
            accepted++;
            damaged_accepted += wounds > 0;
            compared += compare(&ours, bytes.data, at);
        }
        http_reader_clear(&ours);
        buf_clear(&bytes);
    }
    printf("%zu accepted (%zu of them damaged), %zu compared\n", accepted, damaged_accepted, compared);
    assert_true(accepted > ROUNDS / 4);
    assert_true(damaged_accepted > ROUNDS / 20);
    assert_true(compared > accepted * 9 / 10);
    buf_release(&bytes);
    http_reader_release(&ours);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(accepts_only_what_the_other_reads_the_same)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
