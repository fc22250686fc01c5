/* The parser alone: what it accepts and refuses, and that the cuts between its bytes change nothing. */
#include "test_support.h"

#include "base/mem.h"
#include "net/http_parse_int.h"

#define BODY_MAX 1000
#define H "Host: h\r\n"

struct result {
    enum http_event event;
    int status;
    const char *reason;
    size_t used;
    bool told_head;
    struct http_reader parser;
};

/* Feeds the bytes in pieces cut at `first`, then every `step` bytes. */
static void parse(struct result *result, const char *bytes, size_t len, size_t first, size_t step)
{
    http_reader_init(&result->parser, BODY_MAX);
    result->event = HTTP_EVENT_MORE;
    result->used = 0;
    result->told_head = false;
    size_t end = first;
    while (result->used < len) {
        if (end > len)
            end = len;
        /* a copy of its own size, so that a sanitizer sees a read past the piece */
        size_t size = end - result->used, used = 0;
        char *piece = mem_alloc(size);
        assert_non_null(piece);
        memcpy(piece, bytes + result->used, size);
        result->event = http_reader_feed(&result->parser, piece, size, &used);
        mem_free(piece);
        result->used += used;
        if (result->event == HTTP_EVENT_HEAD) {
            assert_false(result->told_head);
            result->told_head = true;
        }
        if (result->event == HTTP_EVENT_DONE || result->event == HTTP_EVENT_REFUSED)
            break;
        if (result->used == end)
            end += step;
    }
    result->status = result->event == HTTP_EVENT_REFUSED ? result->parser.status : 0;
    result->reason = result->event == HTTP_EVENT_REFUSED ? result->parser.reason : "";
}

static void assert_same(const struct result *a, const struct result *b)
{
    const struct http_reader *p = &a->parser, *q = &b->parser;
    bool is_over = a->event == HTTP_EVENT_DONE;
    assert_int_equal(a->status, b->status);
    assert_string_equal(a->reason, b->reason);
    assert_int_equal(is_over, b->event == HTTP_EVENT_DONE);
    if (!is_over)
        return;
    assert_int_equal(a->used, b->used);
    assert_int_equal(p->text.len, q->text.len);
    assert_memory_equal(p->text.data, q->text.data, p->text.len);
    assert_int_equal(p->body.len, q->body.len);
    if (p->body.len)
        assert_memory_equal(p->body.data, q->body.data, p->body.len);
    assert_int_equal(p->field_count, q->field_count);
    assert_memory_equal(p->fields, q->fields, p->field_count * sizeof *p->fields);
    assert_int_equal(p->path, q->path);
    assert_int_equal(p->query, q->query);
    assert_int_equal(p->keep_alive, q->keep_alive);
    assert_int_equal(p->expects_continue, q->expects_continue);
}

static void check_cuts(const char *bytes, size_t len, const struct result *whole)
{
    struct result cut;
    for (size_t first = 1; first < len; first++) {
        parse(&cut, bytes, len, first, len);
        assert_same(whole, &cut);
        http_reader_release(&cut.parser);
    }
    for (size_t step = 1; step <= 3; step++) {
        parse(&cut, bytes, len, step, step);
        assert_same(whole, &cut);
        http_reader_release(&cut.parser);
    }
}

/* ---- Accepted ---- */

struct accepted {
    const char *bytes;
    const char *method, *path, *query, *body;
    bool keep_alive;
};

static const struct accepted accepted_cases[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", "GET", "/", "", "", true},
    {"\r\nGET / HTTP/1.1\r\n" H "\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.0\r\n\r\n", "GET", "/", "", "", false},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "GET", "/", "", "", false},
    {"GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n", "GET", "/", "", "", false},
    {"GET / HTTP/1.1\r\n" H "Connection: ,x , CLOSE\t\r\n\r\n", "GET", "/", "", "", false},
    {"GET / HTTP/1.1\r\n" H "Connection: x\r\nConnection: close\r\n\r\n", "GET", "/", "", "", false},
    {"GET / HTTP/1.1\r\n" H "Connection: closed\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\n" H "Connection: x close, close y\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\n" H "Connection: clos\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\n" H "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", "GET", "/", "", "",
     true},
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS", "/", "", "", true},
    {"M-SEARCH /x HTTP/1.1\r\n" H "\r\n", "M-SEARCH", "/x", "", "", true},
    {"get /x HTTP/1.1\r\n" H "\r\n", "get", "/x", "", "", true},
    {"BREW /pot HTTP/1.1\r\n" H "\r\n", "BREW", "/pot", "", "", true},
    {"GET /a/b?c=d&e HTTP/1.1\r\n" H "\r\n", "GET", "/a/b", "c=d&e", "", true},
    {"GET /?a?b HTTP/1.1\r\n" H "\r\n", "GET", "/", "a?b", "", true},
    {"GET /? HTTP/1.1\r\n" H "\r\n", "GET", "/", "", "", true},
    {"GET /%61%2Fb%3f?%61 HTTP/1.1\r\n" H "\r\n", "GET", "/a/b?", "%61", "", true},
    {"GET /%C3%A4 HTTP/1.1\r\n" H "\r\n", "GET", "/\xc3\xa4", "", "", true},
    {"GET /%25%30 HTTP/1.1\r\n" H "\r\n", "GET", "/%0", "", "", true},
    {"GET /?%00%zz HTTP/1.1\r\n" H "\r\n", "GET", "/", "%00%zz", "", true},
    {"GET //evil/../x HTTP/1.1\r\n" H "\r\n", "GET", "//evil/../x", "", "", true},
    {"GET /a;b=c,@:!$&'()*+~_-. HTTP/1.1\r\n" H "\r\n", "GET", "/a;b=c,@:!$&'()*+~_-.", "", "", true},
    {"GET /?a[]=1 HTTP/1.1\r\n" H "\r\n", "GET", "/", "a[]=1", "", true},
    {"GET http://example.org/a?b HTTP/1.1\r\n" H "\r\n", "GET", "/a", "b", "", true},
    {"GET HTTP://example.org:80/a HTTP/1.1\r\n" H "\r\n", "GET", "/a", "", "", true},
    {"GET https://[::1]:8443/a HTTP/1.1\r\n" H "\r\n", "GET", "/a", "", "", true},
    {"GET http://example.org HTTP/1.1\r\n" H "\r\n", "GET", "/", "", "", true},
    {"GET http://e HTTP/1.1\r\n" H "\r\n", "GET", "/", "", "", true},
    {"GET http://e?q=1 HTTP/1.1\r\n" H "\r\n", "GET", "/", "q=1", "", true},
    {"GET / HTTP/1.1\r\nhOsT:h:80\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\nHost: \t 127.0.0.1:8080 \t \r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\n" H "A:b\r\nA: b\r\nA:\r\n!#$%&'*+-.^_`|~09az: x\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\n" H "A: \t\"x\" \xff\x80 (y)\t z\r\n\r\n", "GET", "/", "", "", true},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello", "POST", "/", "", "hello", true},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n", "POST", "/", "", "hello",
     true},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "POST", "/", "", "", true},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0003\r\n\r\nabc", "POST", "/", "", "abc", true},
    {"POST / HTTP/1.1\r\n" H "content-length:3\t\r\n\r\na\r\n", "POST", "/", "", "a\r\n", true},
    {"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", "POST", "/", "", "ab", false},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nab", "GET", "/", "", "ab", true},
    {"POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", "POST", "/", "", "x",
     true},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST", "/", "", "", true},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked \r\n\r\n3\r\nabc\r\n0\r\n\r\nx", "POST", "/", "",
     "abc", true},
    {"POST / HTTP/1.1\r\n" H
     "Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0a\r\n0123456789\r\n0\r\n\r\n",
     "POST", "/", "", "01234567890123456789", true},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3;a=b;c=\"d e\"\r\nabc\r\n000;x\r\n\r\n",
     "POST", "/", "", "abc", true},
    {"POST / HTTP/1.1\r\n" H
     "Transfer-Encoding: chunked\r\n\r\n1\r\n\r\r\n1\r\n\n\r\n0\r\nA: b\r\nC:\r\n\r\n",
     "POST", "/", "", "\r\n", true},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0000000000000001\r\nx\r\n0\r\n\r\n", "POST",
     "/", "", "x", true},
};

static void accepts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof accepted_cases / sizeof *accepted_cases; i++) {
        const struct accepted *c = &accepted_cases[i];
        struct result r;
        parse(&r, c->bytes, strlen(c->bytes), SIZE_MAX, 1);
        if (r.event != HTTP_EVENT_DONE)
            fail_msg("case %zu: event %d, %d %s: %s", i, (int)r.event, r.status, r.reason, c->bytes);
        const char *text = r.parser.text.data;
        assert_string_equal(http_reader_method(&r.parser), c->method);
        assert_string_equal(text + r.parser.path, c->path);
        assert_string_equal(text + r.parser.query, c->query);
        assert_int_equal(r.parser.body.len, strlen(c->body));
        if (*c->body)
            assert_string_equal(r.parser.body.data, c->body);
        assert_int_equal(r.parser.keep_alive, c->keep_alive);
        check_cuts(c->bytes, strlen(c->bytes), &r);
        http_reader_release(&r.parser);
    }
}

static void keeps_names_lower_and_values_trimmed(void **state)
{
    (void)state;
    static const char bytes[] = "GET / HTTP/1.1\r\n" H "X-Two:  a  b \t\r\nX-TWO:\r\nZ: \t \r\n\r\n";
    struct result r;
    parse(&r, bytes, sizeof bytes - 1, SIZE_MAX, 1);
    const char *text = r.parser.text.data;
    static const char *const want[][2] = {{"host", "h"}, {"x-two", "a  b"}, {"x-two", ""}, {"z", ""}};
    assert_int_equal(r.parser.field_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(text + r.parser.fields[i].name, want[i][0]);
        assert_string_equal(text + r.parser.fields[i].value, want[i][1]);
    }
    http_reader_release(&r.parser);
}

/* ---- Refused ---- */

struct refused {
    int status;
    size_t len;
    const char *bytes;
};

#define R(status_, text)                \
    {                                   \
        status_, sizeof(text) - 1, text \
    }
#define HEAD(text) "POST / HTTP/1.1\r\n" H text "\r\n\r\n"
#define CHUNKED "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"

static const struct refused refused_cases[] = {
    /* request line */
    R(400, " GET / HTTP/1.1\r\n" H "\r\n"),
    R(400, "\nGET / HTTP/1.1\r\n" H "\r\n"),
    R(400, "\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n"),
    R(400, "\rGET / HTTP/1.1\r\n" H "\r\n"),
    R(400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    R(400, "GET  / HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET\t/ HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /  HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET / HTTP/1.1 \r\n" H "\r\n"),
    R(400, "GET /\r\n"),
    R(400, "GET / \r\n"),
    R(400, "GET\r\n"),
    R(400, "G\0T / HTTP/1.1\r\n" H "\r\n"),
    R(400, "G(T / HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET / HTTP/1.1\n" H "\r\n"),
    R(400, "GET / HTTP/1.1\rHost: h\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\r\n" H "\r\n"),
    R(400, "GET / http/1.1\r\n" H "\r\n"),
    R(400, "GET / HTTP 1.1\r\n" H "\r\n"),
    R(400, "GET / HTTP/11\r\n" H "\r\n"),
    R(400, "GET / HTTP/1,1\r\n" H "\r\n"),
    R(400, "GET / HTTP/1.10\r\n" H "\r\n"),
    R(400, "GET / HTTP/01.1\r\n" H "\r\n"),
    R(400, "GET / HTTP/1.x\r\n" H "\r\n"),
    R(400, "GET / HTTPS/1.1\r\n" H "\r\n"),
    R(400, "GET / XTTP/1.1\r\n" H "\r\n"),
    R(505, "GET / HTTP/0.9\r\n" H "\r\n"),
    R(505, "GET / HTTP/1.2\r\n" H "\r\n"),
    R(505, "GET / HTTP/2.0\r\n" H "\r\n"),
    R(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    R(501, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n" H "\r\n"),
    R(501, "CONNECT /x HTTP/1.1\r\n" H "\r\n"),
    /* target */
    R(400, "CONNECT h:80 HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET x HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET * HTTP/1.1\r\n" H "\r\n"),
    R(400, "OPTIONS ** HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET ?a HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET ftp://h/ HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET http:/h/ HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET http:// HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET http:///x HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET http://:80/x HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET http://user@h/x HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET http://h:8x/x HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET http://[::1/x HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET http://h]/x HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /#a HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /a\"b HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /a\\b HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /<b> HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /\x7f HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /\xc3\xa4 HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /a\0b HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /a\rb HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /a\nb HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /%00 HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /a%00b HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /% HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /%4 HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /%4?1 HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /%g1 HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /%1g HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /%-1 HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /%%41 HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /%u0041 HTTP/1.1\r\n" H "\r\n"),
    /* Host */
    R(400, "GET / HTTP/1.1\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHosts: h\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\n" H H "\r\n"),
    R(400, "GET / HTTP/1.0\r\n" H H "\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a:\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a%2f\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: []\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: [v6x]\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: x[::1]\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: h\\x\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n"),
    /* fields */
    R(400, HEAD("A : b")),
    R(400, HEAD("A\t: b")),
    R(400, HEAD(" A: b")),
    R(400, HEAD("\tA: b")),
    R(400, HEAD("A: b\r\n c")),
    R(400, HEAD("A: b\r\n\tc")),
    R(400, "GET / HTTP/1.1\r\n " H "\r\n"),
    R(400, HEAD(": b")),
    R(400, HEAD("A")),
    R(400, HEAD("A b: c")),
    R(400, HEAD("A\0: c")),
    R(400, HEAD("A\xc3: c")),
    R(400, HEAD("A(: c")),
    R(400, HEAD("A\": c")),
    R(400, HEAD("A/: c")),
    R(400, HEAD("A=: c")),
    R(400, HEAD("A\r: c")),
    R(400, HEAD("A\n: c")),
    R(400, HEAD("A: b\0c")),
    R(400, HEAD("A: b\x01")),
    R(400, HEAD("A: b\x7f")),
    R(400, HEAD("A: b\x1b[0m")),
    R(400, HEAD("A: b\nC: d")),
    R(400, HEAD("A: b\rC: d")),
    R(400, HEAD("A: b\r\r\n")),
    R(400, HEAD("A: \n b")),
    R(400, HEAD("A:\nb: c")),
    R(400, "GET / HTTP/1.1\r\n" H "A: b\n\r\n"),
    R(400, "GET / HTTP/1.1\r\n" H "A: b\r\n\n"),
    R(400, "GET / HTTP/1.1\r\n" H "A: b\r\n\rX"),
    R(400, "GET / HTTP/1.1\r\n" H "\n\r\n"),
    /* Content-Length */
    R(400, HEAD("Content-Length: 1\r\nContent-Length: 1") "x"),
    R(400, HEAD("Content-Length: 1\r\nContent-Length: 2") "xx"),
    R(400, HEAD("Content-Length: 1, 1") "x"),
    R(400, HEAD("Content-Length: 1,1") "x"),
    R(400, HEAD("Content-Length: +1") "x"),
    R(400, HEAD("Content-Length: -1") "x"),
    R(400, HEAD("Content-Length: -0")),
    R(400, HEAD("Content-Length: 0x1") "x"),
    R(400, HEAD("Content-Length: 1 1") "x"),
    R(400, HEAD("Content-Length: 1.0") "x"),
    R(400, HEAD("Content-Length: 1e2") "x"),
    R(400, HEAD("Content-Length: 1;") "x"),
    R(400, HEAD("Content-Length: \"1\"") "x"),
    R(400, HEAD("Content-Length:")),
    R(400, HEAD("Content-Length: x")),
    R(400, HEAD("Content-Length: \xd9\xa1")),
    R(400, HEAD("Content-Length: 1\v") "x"),
    R(413, HEAD("Content-Length: 1001")),
    R(413, HEAD("Content-Length: 18446744073709551615")),
    R(413, HEAD("Content-Length: 18446744073709551616")),
    R(413, HEAD("Content-Length: 18446744073709551617")),
    R(413, HEAD("Content-Length: 99999999999999999999999999999999999999999")),
    R(400, HEAD("Content-Length: 99999999999999999999999999999999999999999x")),
    /* Transfer-Encoding */
    R(400, HEAD("Transfer-Encoding: chunked\r\nContent-Length: 1")),
    R(400, HEAD("Content-Length: 1\r\nTransfer-Encoding: chunked")),
    R(400, HEAD("Content-Length: 0\r\nTransfer-Encoding: chunked")),
    R(400, HEAD("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
    R(501, HEAD("Transfer-Encoding: chunked, chunked")),
    R(501, HEAD("Transfer-Encoding: gzip, chunked")),
    R(501, HEAD("Transfer-Encoding: chunked, identity")),
    R(501, HEAD("Transfer-Encoding: identity")),
    R(501, HEAD("Transfer-Encoding: xchunked")),
    R(501, HEAD("Transfer-Encoding: chunkedx")),
    R(501, HEAD("Transfer-Encoding: chunke")),
    R(501, HEAD("Transfer-Encoding: \"chunked\"")),
    R(501, HEAD("Transfer-Encoding: chunked;q=1")),
    R(501, HEAD("Transfer-Encoding: ")),
    R(501, HEAD("Transfer-Encoding: ,chunked")),
    R(400, HEAD("Transfer-Encoding : chunked")),
    R(400, HEAD("Transfer-Encoding:\x0b"
                "chunked")),
    R(400, HEAD("Transfer-Encoding: chunked\0")),
    R(400, HEAD("Transfer-Encoding\0: chunked")),
    R(400, HEAD("X: y\nTransfer-Encoding: chunked")),
    R(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    R(417, HEAD("Expect: 200-ok")),
    R(417, HEAD("Expect: 100-continue, x")),
    R(417, HEAD("Expect:")),
    /* chunks */
    R(400, CHUNKED "\r\n"),
    R(400, CHUNKED "x\r\n"),
    R(400, CHUNKED "0x1\r\n"),
    R(400, CHUNKED "-1\r\n"),
    R(400, CHUNKED "+1\r\n"),
    R(400, CHUNKED " 1\r\n"),
    R(400, CHUNKED "1 \r\nx\r\n"),
    R(400, CHUNKED "1 ;a\r\nx\r\n"),
    R(400, CHUNKED "1\t\r\nx\r\n"),
    R(400, CHUNKED "1\nx\r\n"),
    R(400, CHUNKED "1\rx\r\n"),
    R(400, CHUNKED "1\r\r\nx\r\n"),
    R(400, CHUNKED ";a\r\n"),
    R(400, CHUNKED "1;a\nb\r\nx\r\n"),
    R(400, CHUNKED "1;a\rb\r\nx\r\n"),
    R(400, CHUNKED "1;a\0\r\nx\r\n"),
    R(400, CHUNKED "1\r\nxy\r\n"),
    R(400, CHUNKED "1\r\nx\n"),
    R(400, CHUNKED "1\r\nx\rz"),
    R(400, CHUNKED "1\r\nx0\r\n\r\n"),
    R(400, CHUNKED "2\r\nx\r\n0\r\n\r\n"),
    R(400, CHUNKED "00000000000000001\r\nx\r\n"),
    R(400, CHUNKED "11111111111111111\r\nx\r\n"),
    R(413, CHUNKED "ffffffffffffffff\r\n"),
    R(413, CHUNKED "FFFFFFFFFFFFFFFE\r\n"),
    R(413, CHUNKED "3e9\r\n"),
    R(413, CHUNKED "1\r\nx\r\n3e8\r\n"),
    R(400, CHUNKED "0\r\n x\r\n\r\n"),
    R(400, CHUNKED "0\r\nA : b\r\n\r\n"),
    R(400, CHUNKED "0\r\nA: b\n\r\n"),
    R(400, CHUNKED "0\r\nA: b\r\n\n"),
    R(400, CHUNKED "0\r\nContent-Length: 1\r\n\r\n"),
    R(400, CHUNKED "0\r\ntransfer-encoding: chunked\r\n\r\n"),
    R(400, CHUNKED "0\r\nHost: h\r\n\r\n"),
    R(400, CHUNKED "0\r\nGET / HTTP/1.1\r\n\r\n"),
};

static void refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused_cases / sizeof *refused_cases; i++) {
        const struct refused *c = &refused_cases[i];
        struct result r;
        parse(&r, c->bytes, c->len, SIZE_MAX, 1);
        if (r.status != c->status)
            fail_msg("case %zu: %d (%s) where %d was expected: %s", i, r.status, r.reason, c->status,
                     c->bytes);
        assert_true(strlen(r.reason) > 10);
        check_cuts(c->bytes, c->len, &r);
        http_reader_release(&r.parser);
    }
}

/* Every prefix of a good request asks for more: nothing is refused or accepted too early. */
static void waits_for_the_whole_request(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof accepted_cases / sizeof *accepted_cases; i++) {
        const char *bytes = accepted_cases[i].bytes;
        struct result whole, part;
        parse(&whole, bytes, strlen(bytes), SIZE_MAX, 1);
        for (size_t len = 1; len < whole.used; len++) {
            parse(&part, bytes, len, SIZE_MAX, 1);
            assert_true(part.event == HTTP_EVENT_MORE || part.event == HTTP_EVENT_HEAD);
            assert_int_equal(part.used, len);
            http_reader_release(&part.parser);
        }
        http_reader_release(&whole.parser);
    }
}

/* ---- Each byte in each place, against the grammar written out once more ---- */

static bool is_tchar(int c)
{
    return c && ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                 (c < 128 && strchr("!#$%&'*+-.^_`|~", c)));
}

static bool is_target_char(int c)
{
    return c > 32 && c < 127 && !strchr("#\"<>\\^`{|}", c);
}

static bool is_value_char(int c)
{
    return c == '\t' || (c >= 32 && c != 127);
}

static bool accepts_bytes(const char *before, int c, const char *after)
{
    char bytes[200];
    size_t len = strlen(before);
    memcpy(bytes, before, len);
    bytes[len++] = (char)c;
    memcpy(bytes + len, after, strlen(after));
    len += strlen(after);
    struct result r;
    parse(&r, bytes, len, SIZE_MAX, 1);
    http_reader_release(&r.parser);
    return r.event == HTTP_EVENT_DONE;
}

static void follows_the_grammar_byte_for_byte(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        assert_int_equal(accepts_bytes("GE", c, "T / HTTP/1.1\r\n" H "\r\n"), is_tchar(c));
        assert_int_equal(accepts_bytes("GET /?a", c, "b HTTP/1.1\r\n" H "\r\n"), is_target_char(c));
        assert_int_equal(accepts_bytes("GET / HTTP/1.1\r\n" H "A", c, "b: c\r\n\r\n"),
                         is_tchar(c) || c == ':');
        assert_int_equal(accepts_bytes("GET / HTTP/1.1\r\n" H "A: b", c, "c\r\n\r\n"), is_value_char(c));
        assert_int_equal(accepts_bytes("GET / HTTP/1.1\r\n" H "A:", c, "c\r\n\r\n"), is_value_char(c));
        assert_int_equal(accepts_bytes(CHUNKED "1;", c, "b\r\nx\r\n0\r\n\r\n"), is_value_char(c));
        assert_int_equal(accepts_bytes(CHUNKED "1\r\n", c, "\r\n0\r\n\r\n"), true);
        assert_int_equal(accepts_bytes("GET / HTTP/1.1\r\n" H, c, ": x\r\n\r\n"), is_tchar(c));
        assert_int_equal(accepts_bytes("GET / HTTP/1.1", c, "\n" H "\r\n"), c == '\r');
        assert_int_equal(accepts_bytes("GET / HTTP/1.1\r", c, H "\r\n"), c == '\n');
        assert_int_equal(accepts_bytes("GET / HTTP/1.1\r\n" H "\r", c, ""), c == '\n');
    }
}

/* ---- Limits ---- */

static int status_of(const struct buf *bytes, size_t first, size_t step)
{
    struct result r;
    parse(&r, bytes->data, bytes->len, first, step);
    http_reader_release(&r.parser);
    return r.event == HTTP_EVENT_DONE ? 200 : r.status;
}

/* The same verdict for the whole, for two pieces, and for pieces of one and 1,000 bytes. */
static int verdict(struct buf *bytes)
{
    int status = status_of(bytes, SIZE_MAX, 1);
    assert_int_equal(status_of(bytes, 1, 1), status);
    assert_int_equal(status_of(bytes, 1000, 1000), status);
    assert_int_equal(status_of(bytes, bytes->len - 1, 1), status);
    buf_clear(bytes);
    return status;
}

static void put_many(struct buf *out, const char *text, size_t count)
{
    while (count--)
        buf_puts(out, text);
}

static void keeps_its_limits_exactly(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    for (size_t extra = 0; extra < 2; extra++) {
        buf_puts(&b, "GET /");
        put_many(&b, "a", HTTP_TARGET_BYTES_MAX - 1 + extra);
        buf_puts(&b, " HTTP/1.1\r\n" H "\r\n");
        assert_int_equal(verdict(&b), extra ? 414 : 200);

        put_many(&b, "A", HTTP_METHOD_BYTES_MAX + extra);
        buf_puts(&b, " / HTTP/1.1\r\n" H "\r\n");
        assert_int_equal(verdict(&b), extra ? 501 : 200);

        buf_puts(&b, "GET / HTTP/1.1\r\n" H);
        put_many(&b, "A: b\r\n", HTTP_HEADER_COUNT_MAX - 1 + extra);
        buf_puts(&b, "\r\n");
        assert_int_equal(verdict(&b), extra ? 431 : 200);

        buf_puts(&b, "GET / HTTP/1.1\r\n" H "A:");
        put_many(&b, "x", HTTP_HEADER_BYTES_MAX - b.len - 4 + extra);
        buf_puts(&b, "\r\n\r\n");
        assert_int_equal(verdict(&b), extra ? 431 : 200);

        buf_puts(&b, "GET / HTTP/1.1\r\n" H);
        put_many(&b, "n", HTTP_HEADER_BYTES_MAX - b.len - 5 + extra);
        buf_puts(&b, ":\r\n\r\n");
        assert_int_equal(verdict(&b), extra ? 431 : 200);

        buf_printf(&b, "POST / HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n", BODY_MAX + extra);
        put_many(&b, "x", BODY_MAX + extra);
        assert_int_equal(verdict(&b), extra ? 413 : 200);

        buf_puts(&b, CHUNKED);
        put_many(&b, "1\r\nx\r\n", BODY_MAX + extra);
        buf_puts(&b, "0\r\n\r\n");
        assert_int_equal(verdict(&b), extra ? 413 : 200);

        buf_puts(&b, CHUNKED "1;");
        put_many(&b, "x", HTTP_TRAILER_BYTES_MAX - 3 + extra);
        buf_puts(&b, "\r\nx\r\n0\r\n\r\n");
        assert_int_equal(verdict(&b), extra ? 400 : 200);

        buf_puts(&b, CHUNKED "0\r\n");
        put_many(&b, "A:bb\r\n", (HTTP_TRAILER_BYTES_MAX - 2) / 6 + extra);
        buf_puts(&b, "\r\n");
        assert_int_equal(verdict(&b), extra ? 400 : 200);

        /* a full table of fields leaves trailers their room */
        buf_puts(&b, "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n");
        put_many(&b, "A: b\r\n", HTTP_HEADER_COUNT_MAX - 2);
        buf_puts(&b, "\r\n0\r\nB: c\r\nD: e\r\n\r\n");
        assert_int_equal(verdict(&b), 200);
    }
    buf_release(&b);
}

/* A promise of a large body costs nothing until its bytes come. */
static void memory_follows_the_bytes(void **state)
{
    (void)state;
    static const char head[] = "POST / HTTP/1.1\r\n" H "Content-Length: 1000000000\r\n\r\nabc";
    struct http_reader p;
    size_t used = 0;
    http_reader_init(&p, (size_t)2000000000);
    assert_int_equal(http_reader_feed(&p, head, sizeof head - 1, &used), HTTP_EVENT_HEAD);
    assert_int_equal(http_reader_feed(&p, head + used, 3, &used), HTTP_EVENT_MORE);
    assert_int_equal(p.body.len, 3);
    assert_true(p.body.cap <= 1024);
    http_reader_clear(&p);
    assert_int_equal(p.body.cap, 0);
    http_reader_release(&p);
}

static void is_as_new_after_a_clear(void **state)
{
    (void)state;
    struct http_reader p;
    http_reader_init(&p, BODY_MAX);
    size_t cases = sizeof accepted_cases / sizeof *accepted_cases;
    for (size_t i = 0; i < 3 * cases; i++) {
        const struct refused *bad = &refused_cases[i % (sizeof refused_cases / sizeof *refused_cases)];
        size_t used = 0;
        http_reader_feed(&p, bad->bytes, bad->len, &used);
        http_reader_clear(&p);
        const char *good = accepted_cases[i % cases].bytes;
        size_t at = 0;
        enum http_event event;
        do
            event = http_reader_feed(&p, good + at, strlen(good) - at, &used);
        while (at += used, event == HTTP_EVENT_HEAD);
        assert_int_equal(event, HTTP_EVENT_DONE);
        assert_string_equal(p.text.data + p.path, accepted_cases[i % cases].path);
        http_reader_clear(&p);
    }
    http_reader_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts),
        cmocka_unit_test(keeps_names_lower_and_values_trimmed),
        cmocka_unit_test(refuses),
        cmocka_unit_test(waits_for_the_whole_request),
        cmocka_unit_test(follows_the_grammar_byte_for_byte),
        cmocka_unit_test(keeps_its_limits_exactly),
        cmocka_unit_test(memory_follows_the_bytes),
        cmocka_unit_test(is_as_new_after_a_clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
