/* The HTTP client and peers that break the rules: how each reply ends, and what its sink has seen by then. */
#include "test_support.h"

#include "base/limits.h"
#include "client_support.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define OK_HEAD "HTTP/1.1 200 OK\r\n"

static const struct {
    const char *name;
    struct test_script script;
    enum http_call_end how;
    const char *events; /* "BB*" is written "B" */
    const char *body;   /* NULL: whatever */
} cases[] = {
    {"whole by length", {OK_HEAD "content-length: 2\r\n\r\nhi", THEN_CLOSE}, HTTP_CALL_WHOLE, "HBE", "hi"},
    {"whole by chunks",
     {OK_HEAD "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", THEN_CLOSE},
     HTTP_CALL_WHOLE,
     "HBE",
     "hi"},
    {"whole by trailers",
     {OK_HEAD "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-t: 1\r\n\r\n", THEN_CLOSE},
     HTTP_CALL_WHOLE,
     "HBE",
     "hi"},
    {"whole by close", {OK_HEAD "\r\nhi", THEN_CLOSE}, HTTP_CALL_WHOLE, "HBE", "hi"},
    {"whole, HTTP/1.0", {"HTTP/1.0 200 OK\r\n\r\nhi", THEN_CLOSE}, HTTP_CALL_WHOLE, "HBE", "hi"},
    {"whole after 1xx",
     {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" OK_HEAD
      "content-length: 2\r\n\r\nhi",
      THEN_CLOSE},
     HTTP_CALL_WHOLE,
     "HBE",
     "hi"},
    {"no content", {"HTTP/1.1 204 No Content\r\n\r\n", THEN_CLOSE}, HTTP_CALL_WHOLE, "HE", ""},
    {"an error with a body",
     {"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>", THEN_CLOSE},
     HTTP_CALL_WHOLE,
     "HBE",
     "<html>"},
    {"a redirect is not followed",
     {"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", THEN_CLOSE},
     HTTP_CALL_WHOLE,
     "HE",
     ""},
    {"nothing", {"", THEN_CLOSE}, HTTP_CALL_CUT, "E", ""},
    {"reset before a byte", {"", THEN_RESET}, HTTP_CALL_CUT, "E", ""},
    {"cut in the status line", {"HTTP/1.1 20", THEN_CLOSE}, HTTP_CALL_CUT, "E", ""},
    {"cut in the head", {OK_HEAD "content-le", THEN_CLOSE}, HTTP_CALL_CUT, "E", ""},
    {"cut between headers", {OK_HEAD "content-length: 5\r\n", THEN_CLOSE}, HTTP_CALL_CUT, "E", ""},
    {"cut after a 1xx", {"HTTP/1.1 100 Continue\r\n\r\n", THEN_CLOSE}, HTTP_CALL_CUT, "E", ""},
    {"cut before the body", {OK_HEAD "content-length: 5\r\n\r\n", THEN_CLOSE}, HTTP_CALL_CUT, "HE", ""},
    {"cut in the body", {OK_HEAD "content-length: 5\r\n\r\nhel", THEN_CLOSE}, HTTP_CALL_CUT, "HBE", "hel"},
    {"reset in the body", {OK_HEAD "content-length: 5\r\n\r\nhel", THEN_RESET}, HTTP_CALL_CUT, NULL, NULL},
    {"cut in a chunk",
     {OK_HEAD "transfer-encoding: chunked\r\n\r\n5\r\nhel", THEN_CLOSE},
     HTTP_CALL_CUT,
     "HBE",
     "hel"},
    {"cut between chunks",
     {OK_HEAD "transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n", THEN_CLOSE},
     HTTP_CALL_CUT,
     "HBE",
     "hel"},
    {"bad chunk size",
     {OK_HEAD "transfer-encoding: chunked\r\n\r\n3\r\nhel\r\nzz\r\n", THEN_STALL},
     HTTP_CALL_BAD_REPLY,
     "HBE",
     "hel"},
    {"no end of chunk",
     {OK_HEAD "transfer-encoding: chunked\r\n\r\n3\r\nhello\r\n", THEN_STALL},
     HTTP_CALL_BAD_REPLY,
     NULL,
     NULL},
    {"garbage", {"SSH-2.0-OpenSSH_9.2\r\n\r\n", THEN_STALL}, HTTP_CALL_BAD_REPLY, "E", ""},
    {"HTML alone", {"<html><body>502</body></html>\n", THEN_CLOSE}, HTTP_CALL_BAD_REPLY, "E", ""},
    {"a head without colons",
     {OK_HEAD "this is no header\r\n\r\n", THEN_STALL},
     HTTP_CALL_BAD_REPLY,
     "E",
     ""},
    {"a bad length", {OK_HEAD "content-length: -5\r\n\r\n", THEN_STALL}, HTTP_CALL_BAD_REPLY, "E", ""},
    {"no head in time", {"", THEN_STALL}, HTTP_CALL_TIMEOUT_HEAD, "E", ""},
    {"half a head in time", {OK_HEAD "a: b\r\n", THEN_STALL}, HTTP_CALL_TIMEOUT_HEAD, "E", ""},
    {"only a 1xx in time", {"HTTP/1.1 103 Early Hints\r\n\r\n", THEN_STALL}, HTTP_CALL_TIMEOUT_HEAD, "E", ""},
    {"a stalled body",
     {OK_HEAD "content-length: 5\r\n\r\nhel", THEN_STALL},
     HTTP_CALL_TIMEOUT_SILENCE,
     "HBE",
     "hel"},
    {"an endless body", {OK_HEAD "\r\n", THEN_ENDLESS}, HTTP_CALL_TOO_LARGE, NULL, NULL},
    {"an endless head", {OK_HEAD "a: ", THEN_ENDLESS}, HTTP_CALL_TOO_LARGE, "E", ""},
};

static void each_reply_ends_as_it_should(void **state)
{
    (void)state;
    struct http_call_params params = {
        .head_timeout_ms = 150, .silence_timeout_ms = 150, .body_bytes_max = 1000000};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct test_client client;
        struct test_peer peer;
        struct test_reply reply;
        test_client_open(&client, NULL);
        test_peer_start(&peer, &cases[i].script, 1);
        test_reply_init(&reply, &client);
        test_call(&reply, peer.port, "/", &params);
        if (reply.how != cases[i].how || (cases[i].events && strcmp(reply.events, cases[i].events) != 0))
            fail_msg("%s: ended with %d (%s), told %s", cases[i].name, (int)reply.how, reply.message,
                     reply.events);
        if (cases[i].body && strcmp(cases[i].body, reply.body ? reply.body : "") != 0)
            fail_msg("%s: body \"%s\"", cases[i].name, reply.body);
        assert_true((reply.how == HTTP_CALL_WHOLE) == !*reply.message);
        assert_true(reply.body_len <= params.body_bytes_max);
        test_reply_release(&reply);
        test_client_close(&client);
        test_peer_stop(&peer);
    }
}

static void a_head_of_many_lines_is_too_large(void **state)
{
    (void)state;
    size_t lines = 3 * HTTP_CALL_HEAD_BYTES_MAX / 2 / 100;
    char *text = malloc(lines * 100 + 100);
    assert_non_null(text);
    size_t at = (size_t)sprintf(text, OK_HEAD);
    for (size_t i = 0; i < lines; i++)
        at += (size_t)sprintf(text + at, "x-header-%05zu: %080zu\r\n", i, i);
    sprintf(text + at, "content-length: 0\r\n\r\n");
    struct test_script script = {text, THEN_STALL};
    struct test_client client;
    struct test_peer peer;
    struct test_reply reply;
    test_client_open(&client, NULL);
    test_peer_start(&peer, &script, 1);
    test_reply_init(&reply, &client);
    test_call(&reply, peer.port, "/", NULL);
    assert_int_equal(reply.how, HTTP_CALL_TOO_LARGE);
    assert_string_equal(reply.events, "E");
    test_client_close(&client);
    test_peer_stop(&peer);
    free(text);
}

static void headers_are_lower_case_trimmed_and_unfolded(void **state)
{
    (void)state;
    static const struct test_script script = {
        OK_HEAD "Content-TYPE:  text/event-stream;\r\n\tcharset=utf-8 \r\nX-Empty:\r\nRetry-After:7\r\n"
                "content-length: 0\r\n\r\n",
        THEN_CLOSE};
    struct test_client client;
    struct test_peer peer;
    struct test_reply reply;
    test_client_open(&client, NULL);
    test_peer_start(&peer, &script, 1);
    test_reply_init(&reply, &client);
    test_call(&reply, peer.port, "/", NULL);
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_string_equal(reply.head, "content-type=text/event-stream; charset=utf-8\nx-empty=\nretry-after=7\n"
                                    "content-length=0\n");
    test_client_close(&client);
    test_peer_stop(&peer);
}

/* The port of a listener that was closed again. */
static uint16_t dead_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void call_url(struct test_client *client, const char *url, enum http_call_end how)
{
    struct test_reply reply;
    struct http_call_params params = {.url = url};
    test_reply_init(&reply, client);
    test_call(&reply, 0, "/", &params);
    if (reply.how != how)
        fail_msg("%s: ended with %d (%s)", url, (int)reply.how, reply.message);
    assert_string_equal(reply.events, "E");
    assert_true(*reply.message != 0);
    assert_null(strstr(reply.message, "secret"));
}

static void failures_before_a_connection_have_their_names(void **state)
{
    (void)state;
    struct test_client client;
    struct test_server server;
    char url[100];
    test_client_open(&client, NULL);
    test_server_start(&server, NULL);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/?key=secret", (unsigned)dead_port());
    call_url(&client, url, HTTP_CALL_NO_CONNECTION);
    snprintf(url, sizeof url, "https://127.0.0.1:%u/?key=secret", (unsigned)server.port);
    call_url(&client, url, HTTP_CALL_TLS);
    call_url(&client, "http://nobody.invalid/?key=secret", HTTP_CALL_NO_NAME);
    test_client_close(&client);
    test_server_stop(&server);
}

/* A listener whose queue is full answers nobody. */
static void connecting_has_its_own_limit(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), fillers[8];
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    for (size_t i = 0; i < sizeof fillers / sizeof *fillers; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, len);
    }
    struct test_client client;
    struct test_reply reply;
    struct http_call_params params = {.connect_timeout_ms = 100};
    test_client_open(&client, NULL);
    test_reply_init(&reply, &client);
    test_call(&reply, ntohs(address.sin_port), "/", &params);
    assert_int_equal(reply.how, HTTP_CALL_TIMEOUT_CONNECT);
    /* Hanging up on a call without a connection is its end. */
    test_reply_init(&reply, &client);
    assert_int_equal(test_call_start(&reply, ntohs(address.sin_port), "/", NULL), PH_OK);
    test_client_turn_for(&client, 5);
    http_call_hang_up(reply.call, 1000);
    assert_false(reply.ended);
    assert_true(test_client_turn(&client, &reply.ended));
    assert_int_equal(reply.how, HTTP_CALL_UNSENT);
    test_client_close(&client);
    for (size_t i = 0; i < sizeof fillers / sizeof *fillers; i++)
        close(fillers[i]);
    close(listener);
}

static void what_is_no_request_is_refused(void **state)
{
    (void)state;
    static const struct http_header bad_name = {"a b", "c"}, bad_value = {"a", "b\r\nc: d"};
    static const struct http_call_params params[] = {
        {.method = "GET", .url = "ftp://127.0.0.1/"},
        {.method = "GET", .url = "file:///etc/passwd"},
        {.method = "GET", .url = "http://127.0.0.1/a b"},
        {.method = "GET", .url = "http://127.0.0.1/\r\nx: y"},
        {.method = "GET", .url = "http://[::zz]/"},
        {.method = "GET", .url = "http://[::1/"},
        {.method = "GET", .url = "http://127.0.0.1:65536/"},
        {.method = "GET", .url = "http://127.0.0.1:0/"},
        {.method = "GET", .url = "http://127.0.0.1:1x/"},
        {.method = "GET",
         .url = "http://b\xc3\xbc"
                "cher.example/"},
        {.method = "GET", .url = "http:///v1"},
        {.method = "GET", .url = "http://"},
        {.method = "G T", .url = "http://127.0.0.1/"},
        {.method = "", .url = "http://127.0.0.1/"},
        {.method = "GET", .url = "http://127.0.0.1/", .headers = &bad_name, .header_count = 1},
        {.method = "GET", .url = "http://127.0.0.1/", .headers = &bad_value, .header_count = 1},
    };
    struct test_client client;
    struct http_client_stats stats;
    test_client_open(&client, NULL);
    for (size_t i = 0; i < sizeof params / sizeof *params; i++) {
        struct http_call_sink sink = {0};
        struct http_call *call = NULL;
        struct ph_err err = {0};
        assert_int_equal(http_call_start(&call, client.http, &params[i], &sink, &err), PH_ERR_ARG);
        assert_true(*err.message != 0);
        assert_null(call);
    }
    http_client_stats(client.http, &stats);
    assert_int_equal(stats.calls, 0);
    test_client_close(&client);
}

static void a_dead_kept_connection_is_replaced(void **state)
{
    (void)state;
    /* The second request on the first connection finds it closed, or is met with a close. */
    static const struct test_script scripts[] = {
        {OK_HEAD "content-length: 1\r\n\r\na", THEN_KEEP},
        {"", THEN_CLOSE},
        {OK_HEAD "content-length: 1\r\n\r\nb", THEN_KEEP},
    };
    struct test_client client;
    struct test_peer peer;
    struct test_reply reply;
    struct http_call_params params = {.method = "POST", .body = "{}", .body_len = 2};
    test_client_open(&client, NULL);
    test_peer_start(&peer, scripts, 3);
    for (int i = 0; i < 2; i++) {
        test_reply_init(&reply, &client);
        test_call(&reply, peer.port, "/", &params);
        assert_int_equal(reply.how, HTTP_CALL_WHOLE);
        assert_string_equal(reply.body, i ? "b" : "a");
        test_reply_release(&reply);
    }
    assert_int_equal(peer.connections, 2);
    assert_int_equal(peer.requests, 3);
    test_client_close(&client);
    test_peer_stop(&peer);
}

/* The head of the request is enough for a refusal; nobody reads the body. */
static void an_answer_before_the_whole_request_counts(void **state)
{
    (void)state;
    static const struct test_script refuses = {
        "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nno!", THEN_ENDLESS};
    size_t len = 30000000;
    char *body = calloc(1, len);
    struct test_client client;
    struct test_peer peer;
    struct test_reply reply;
    struct http_client_stats stats;
    struct http_call_params params = {.method = "POST", .body = body, .body_len = len};
    assert_non_null(body);
    test_client_open(&client, NULL);
    test_peer_start(&peer, &refuses, 1);
    test_reply_init(&reply, &client);
    test_call(&reply, peer.port, "/", &params);
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_int_equal(reply.status, 413);
    assert_string_equal(reply.body, "no!");
    http_client_stats(client.http, &stats);
    assert_int_equal(stats.connections, 0); /* the rest of the request would have been the next one's */
    test_reply_release(&reply);
    test_client_close(&client);
    test_peer_stop(&peer);
    free(body);
}

/* ---- Hanging up ---- */

static void hang_up_at_body(struct test_reply *reply, char event)
{
    if (event == 'B' && strcmp(reply->events, "HB") == 0)
        http_call_hang_up(reply->call, 100);
}

static void hanging_up_shuts_our_half_and_drains(void **state)
{
    (void)state;
    static const struct test_script stalls = {OK_HEAD "\r\nabc", THEN_STALL};
    struct test_client client;
    struct test_peer peer;
    struct test_reply reply;
    struct http_client_stats stats;
    test_client_open(&client, NULL);
    test_peer_start(&peer, &stalls, 1); /* sees our end and closes: the body is whole by that */
    test_reply_init(&reply, &client);
    reply.on_event = hang_up_at_body;
    test_call(&reply, peer.port, "/", NULL);
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_int_equal(peer.half_closed, 1);
    test_reply_release(&reply);
    test_peer_stop(&peer);
    http_client_stats(client.http, &stats);
    assert_int_equal(stats.connections, 0);
    test_client_close(&client);
}

static void draining_ends_in_time(void **state)
{
    (void)state;
    static const struct test_script goes_on = {OK_HEAD "\r\nabc", THEN_ENDLESS};
    struct test_client client;
    struct test_peer peer;
    struct test_reply reply;
    test_client_open(&client, NULL);
    test_peer_start(&peer, &goes_on, 1);
    test_reply_init(&reply, &client);
    reply.on_event = hang_up_at_body;
    reply.pauses = true; /* does not count any more */
    struct http_call_params params = {.body_bytes_max = SIZE_MAX};
    uint64_t began = test_now_ms();
    test_call(&reply, peer.port, "/", &params);
    assert_int_equal(reply.how, HTTP_CALL_CUT);
    assert_true(test_now_ms() - began >= 95);
    assert_true(reply.body_len > 100000); /* it went on coming */
    test_reply_release(&reply);
    test_client_close(&client);
    test_peer_stop(&peer);
}

static void a_paused_call_can_hang_up(void **state)
{
    (void)state;
    static const struct test_script goes_on = {OK_HEAD "\r\nabc", THEN_ENDLESS};
    struct test_client client;
    struct test_peer peer;
    struct test_reply reply;
    test_client_open(&client, NULL);
    test_peer_start(&peer, &goes_on, 1);
    test_reply_init(&reply, &client);
    reply.pauses = true;
    struct http_call_params params = {.body_bytes_max = SIZE_MAX};
    assert_int_equal(test_call_start(&reply, peer.port, "/", &params), PH_OK);
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (!reply.body && test_now_ms() < until)
        test_client_turn_for(&client, 1);
    test_client_turn_for(&client, 20);
    size_t before = reply.body_len;
    http_call_hang_up(reply.call, 50);
    assert_int_equal(reply.body_len, before);
    assert_true(test_client_turn(&client, &reply.ended));
    assert_int_equal(reply.how, HTTP_CALL_CUT);
    assert_true(reply.body_len > before);
    test_reply_release(&reply);
    test_client_close(&client);
    test_peer_stop(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_reply_ends_as_it_should),
        cmocka_unit_test(a_head_of_many_lines_is_too_large),
        cmocka_unit_test(headers_are_lower_case_trimmed_and_unfolded),
        cmocka_unit_test(failures_before_a_connection_have_their_names),
        cmocka_unit_test(connecting_has_its_own_limit),
        cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(a_dead_kept_connection_is_replaced),
        cmocka_unit_test(an_answer_before_the_whole_request_counts),
        cmocka_unit_test(hanging_up_shuts_our_half_and_drains),
        cmocka_unit_test(draining_ends_in_time),
        cmocka_unit_test(a_paused_call_can_hang_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
