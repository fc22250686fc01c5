/* The parser of HTTP replies: what is whole, what is not HTTP, and that cuts change nothing. */
#include "test_support.h"

#include <string.h>

#include "base/limits.h"
#include "net/http_reply_int.h"

#define OK "HTTP/1.1 200 OK\r\n"
#define CHUNKED OK "transfer-encoding: chunked\r\n\r\n"
#define GOES_ON HTTP_REPLY_GOES_ON
#define WHOLE HTTP_REPLY_WHOLE
#define BAD HTTP_REPLY_BAD
#define TOO_LARGE HTTP_REPLY_TOO_LARGE

static const struct reply_case {
    const char *bytes;
    enum http_reply_state state;
    const char *body;
    bool keeps_alive;
    const char *fields; /* "name=value\n" each; NULL: whatever */
} cases[] = {
    /* ends by length, by chunks, by the status alone, by the close */
    {OK "content-length: 2\r\n\r\nhi", WHOLE, "hi", true, "content-length=2\n"},
    {OK "Content-Length: 0\r\n\r\n", WHOLE, "", true, NULL},
    {OK "content-length: 2\r\ncontent-length: 2\r\n\r\nhi", WHOLE, "hi", true, NULL},
    {CHUNKED "2\r\nhi\r\n3\r\n ho\r\n0\r\n\r\n", WHOLE, "hi ho", true, NULL},
    {CHUNKED "0002;x=\"y\"\r\nhi\r\n0;z\r\na: b\r\nc: d\r\n\r\n", WHOLE, "hi", true, NULL},
    {CHUNKED "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", WHOLE, "01234567890123456789", true, NULL},
    {CHUNKED "2 \r\nhi\r\n0\r\n\r\n", WHOLE, "hi", true, NULL},
    {CHUNKED "0\r\n\r\n", WHOLE, "", true, NULL},
    {"HTTP/1.1 204 No Content\r\n\r\n", WHOLE, "", true, ""},
    {"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", WHOLE, "", true, NULL},
    {OK "\r\nall of it", GOES_ON, "all of it", false, ""},
    /* lines as some servers write them */
    {"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\nx", WHOLE, "x", true, NULL},
    {"HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\nx", WHOLE, "x", true, NULL},
    {"HTTP/1.1 200 OK\ncontent-length: 1\n\nx", WHOLE, "x", true, "content-length=1\n"},
    {OK "transfer-encoding: chunked\n\n2\nhi\n0\n\n", WHOLE, "hi", true, NULL},
    {OK "X-A :  b c \t\r\nX-Empty:\r\ncontent-length:1\r\n\r\nx", WHOLE, "x", true,
     "x-a=b c\nx-empty=\ncontent-length=1\n"},
    {OK "a: b\r\n c\r\n\t d\r\ncontent-length: 0\r\n\r\n", WHOLE, "", true, "a=b c d\ncontent-length=0\n"},
    {OK "a:\r\n b\r\ncontent-length: 0\r\n\r\n", WHOLE, "", true, "a= b\ncontent-length=0\n"},
    {OK "a: \xe2\x82\xac\r\ncontent-length: 0\r\n\r\n", WHOLE, "", true, NULL},
    /* interim heads */
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" OK
     "content-length: 1\r\n\r\nx",
     WHOLE, "x", true, "content-length=1\n"},
    {"HTTP/1.1 100 Continue\r\n\r\n", GOES_ON, "", false, NULL},
    {"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", BAD, "", false, NULL},
    /* what keeps the connection */
    {OK "content-length: 0\r\nconnection: close\r\n\r\n", WHOLE, "", false, NULL},
    {OK "content-length: 0\r\nConnection: x, Close\r\n\r\n", WHOLE, "", false, NULL},
    {"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", WHOLE, "", false, NULL},
    {"HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: Keep-Alive\r\n\r\n", WHOLE, "", true, NULL},
    {OK "content-length: 2\r\n\r\nhi!", WHOLE, "hi", false, NULL},
    {OK "content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", WHOLE, "hi", false,
     NULL},
    {OK "transfer-encoding: identity\r\n\r\nhi", GOES_ON, "hi", false, NULL},
    /* not yet */
    {"HTT", GOES_ON, "", false, NULL},
    {OK "content-le", GOES_ON, "", false, NULL},
    {OK "content-length: 5\r\n\r\nhel", GOES_ON, "hel", true, NULL},
    {CHUNKED "5\r\nhel", GOES_ON, "hel", true, NULL},
    {CHUNKED "3\r\nhel\r\n0\r\n", GOES_ON, "hel", true, NULL},
    /* not HTTP */
    {"SSH-2.0-OpenSSH_9.2\r\n", BAD, "", false, NULL},
    {"\r\n" OK "\r\n", BAD, "", false, NULL},
    {"HTTP/2 200\r\n\r\n", BAD, "", false, NULL},
    {"HTTP/1.1  200 OK\r\n\r\n", BAD, "", false, NULL},
    {"HTTP/1.1 20x OK\r\n\r\n", BAD, "", false, NULL},
    {"HTTP/1.1 2000 OK\r\n\r\n", BAD, "", false, NULL},
    {"HTTP/1.1 099 Low\r\n\r\n", BAD, "", false, NULL},
    {OK "no colon here\r\n\r\n", BAD, "", false, NULL},
    {OK ": no name\r\n\r\n", BAD, "", false, NULL},
    {OK "a b: two words\r\n\r\n", BAD, "", false, NULL},
    {OK " folded: nothing before\r\n\r\n", BAD, "", false, NULL},
    {OK "a: b\rc\r\n\r\n", BAD, "", false, NULL},
    {OK "a: \x01\r\n\r\n", BAD, "", false, NULL},
    {OK "content-length: -5\r\n\r\n", BAD, "", false, NULL},
    {OK "content-length: 5, 5\r\n\r\n", BAD, "", false, NULL},
    {OK "content-length:\r\n\r\n", BAD, "", false, NULL},
    {OK "content-length: 99999999999999999999\r\n\r\n", BAD, "", false, NULL},
    {OK "content-length: 1\r\ncontent-length: 2\r\n\r\n", BAD, "", false, NULL},
    {OK "transfer-encoding: gzip, chunked\r\n\r\n", BAD, "", false, NULL},
    {OK "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", BAD, "", false, NULL},
    {CHUNKED "3\r\nhel\r\nzz\r\n", BAD, "hel", true, NULL},
    {CHUNKED "3\r\nhello\r\n", BAD, "hel", true, NULL},
    {CHUNKED "3\r\nhel\r\r\n", BAD, "hel", true, NULL},
    {CHUNKED "\r\n", BAD, "", true, NULL},
    {CHUNKED "-1\r\n", BAD, "", true, NULL},
    {CHUNKED "0x2\r\nhi\r\n", BAD, "", true, NULL},
    {CHUNKED "00000000000000002\r\nhi", BAD, "", true, NULL},
    {CHUNKED "ffffffffffffffff\r\nhi", GOES_ON, "hi", true, NULL},
};

/* Fed in pieces of `step` bytes; the body is gathered. */
static void feed(struct http_reply *reply, const char *bytes, size_t len, size_t step, struct buf *body)
{
    char piece[4096];
    buf_clear(body);
    for (size_t at = 0; at < len; at += step) {
        size_t n = len - at < step ? len - at : step, body_len = 0;
        memcpy(piece, bytes + at, n);
        if (reply->state != HTTP_REPLY_GOES_ON) {
            reply->keeps_alive = false; /* what the channel would see */
            return;
        }
        http_reply_feed(reply, piece, n, &body_len);
        assert_true(body_len <= n);
        buf_append(body, piece, body_len);
    }
}

static void list_fields(const struct http_reply *reply, struct buf *out)
{
    const char *at = reply->text.data;
    buf_clear(out);
    for (size_t i = 0; i < reply->field_count; i++) {
        const char *value = at + strlen(at) + 1;
        buf_puts(out, at);
        buf_putc(out, '=');
        buf_puts(out, value);
        buf_putc(out, '\n');
        at = value + strlen(value) + 1;
    }
}

static const char *text_of(const struct buf *buf)
{
    return buf->data ? buf->data : "";
}

static void each_reply_is_read_however_it_is_cut(void **state)
{
    (void)state;
    struct http_reply reply;
    struct buf body, fields;
    http_reply_init(&reply);
    buf_init(&body, SIZE_MAX);
    buf_init(&fields, SIZE_MAX);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct reply_case *c = &cases[i];
        for (size_t step = 1; step <= strlen(c->bytes); step++) {
            http_reply_clear(&reply, false, 1000);
            feed(&reply, c->bytes, strlen(c->bytes), step, &body);
            bool is_right = reply.state == c->state && strcmp(text_of(&body), c->body) == 0 &&
                            (c->state == BAD || reply.keeps_alive == c->keeps_alive);
            if (is_right && c->fields) {
                list_fields(&reply, &fields);
                is_right = strcmp(text_of(&fields), c->fields) == 0;
            }
            if (!is_right)
                fail_msg("case %zu in steps of %zu: state %d (%s), body \"%s\", fields \"%s\"\n%s", i, step,
                         (int)reply.state, reply.why ? reply.why : "", text_of(&body), text_of(&fields),
                         c->bytes);
            assert_true((reply.state == BAD) == (reply.why != NULL));
        }
    }
    buf_release(&body);
    buf_release(&fields);
    http_reply_release(&reply);
}

static void the_close_ends_what_has_no_other_end(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        enum http_reply_state state;
    } ends[] = {{OK "\r\nhi", WHOLE},
                {OK "\r\n", WHOLE},
                {"HTTP/1.0 200 OK\r\n\r\nhi", WHOLE},
                {OK "content-length: 3\r\n\r\nhi", GOES_ON},
                {CHUNKED "2\r\nhi\r\n", GOES_ON},
                {OK, GOES_ON},
                {"", GOES_ON}};
    struct http_reply reply;
    struct buf body;
    http_reply_init(&reply);
    buf_init(&body, SIZE_MAX);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        http_reply_clear(&reply, false, 1000);
        feed(&reply, ends[i].bytes, strlen(ends[i].bytes), 7, &body);
        http_reply_end(&reply);
        assert_int_equal(reply.state, ends[i].state);
        assert_false(reply.state == WHOLE && reply.keeps_alive);
    }
    buf_release(&body);
    http_reply_release(&reply);
}

static void a_reply_to_head_has_no_body(void **state)
{
    (void)state;
    static const char *const heads[] = {OK "content-length: 5\r\n\r\n", CHUNKED, OK "\r\n"};
    struct http_reply reply;
    struct buf body;
    http_reply_init(&reply);
    buf_init(&body, SIZE_MAX);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        http_reply_clear(&reply, true, 1000);
        feed(&reply, heads[i], strlen(heads[i]), 1000, &body);
        assert_int_equal(reply.state, WHOLE);
        assert_true(reply.keeps_alive);
    }
    buf_release(&body);
    http_reply_release(&reply);
}

/* `count` times `unit` behind `begin`: the state after that. */
static enum http_reply_state repeat(const char *begin, const char *unit, size_t count, size_t body_bytes_max)
{
    struct http_reply reply;
    char piece[256];
    size_t body_len = 0;
    http_reply_init(&reply);
    http_reply_clear(&reply, false, body_bytes_max);
    snprintf(piece, sizeof piece, "%s", begin);
    http_reply_feed(&reply, piece, strlen(piece), &body_len);
    for (size_t i = 0; i < count && reply.state == HTTP_REPLY_GOES_ON; i++) {
        snprintf(piece, sizeof piece, "%s", unit);
        http_reply_feed(&reply, piece, strlen(piece), &body_len);
    }
    enum http_reply_state end = reply.state;
    assert_true(reply.text.cap <= 2 * HTTP_CALL_HEAD_BYTES_MAX);
    http_reply_release(&reply);
    return end;
}

static void everything_has_a_limit(void **state)
{
    (void)state;
    assert_int_equal(repeat(OK, "a: b\r\n", HTTP_CALL_HEAD_BYTES_MAX / 6 + 1, 0), TOO_LARGE);
    assert_int_equal(repeat(OK "a: ", "bbbb", HTTP_CALL_HEAD_BYTES_MAX / 4 + 1, 0), TOO_LARGE);
    assert_int_equal(repeat("", "HTTP/1.1 100 Continue\r\n\r\n", HTTP_CALL_HEAD_BYTES_MAX / 25 + 1, 0),
                     TOO_LARGE);
    assert_int_equal(repeat(CHUNKED "1;", "xxxx", HTTP_TRAILER_BYTES_MAX / 4 + 1, 9), TOO_LARGE);
    assert_int_equal(repeat(CHUNKED "0\r\n", "a: b\r\n", HTTP_TRAILER_BYTES_MAX / 4 + 1, 9), TOO_LARGE);
    assert_int_equal(repeat(CHUNKED, "1\r\nx\r\n", 100000, 100000), GOES_ON); /* plain framing is free */
    assert_int_equal(repeat(CHUNKED, "1\r\nx\r\n", 100001, 100000), TOO_LARGE);
    assert_int_equal(repeat(OK "\r\n", "xxxx", 25001, 100000), TOO_LARGE);
    assert_int_equal(repeat(OK "content-length: 100001\r\n\r\n", "xxxx", 25001, 100000), TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_reply_is_read_however_it_is_cut),
        cmocka_unit_test(the_close_ends_what_has_no_other_end),
        cmocka_unit_test(a_reply_to_head_has_no_body),
        cmocka_unit_test(everything_has_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
