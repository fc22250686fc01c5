/* The HTTP server over real loopback sockets: requests, replies, keep-alive, pipelining, streams. */
#include "test_support.h"

#include "net_support.h"

static int setup(void **state)
{
    struct test_server *server = malloc(sizeof *server);
    assert_non_null(server);
    test_server_start(server, NULL);
    *state = server;
    return 0;
}

static int teardown(void **state)
{
    test_server_stop(*state);
    free(*state);
    return 0;
}

/* Sends a request and reads until the connection is closed. */
static char *ask_once(struct test_server *server, const char *request, char *out, size_t size)
{
    int end = 0, fd = test_connect(server->port);
    assert_true(test_send_text(fd, request));
    test_read(fd, out, size, NULL, &end);
    close(fd);
    assert_int_equal(end, 1);
    return out;
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what))
        n++;
    return n;
}

static void replies_with_length_and_request_id(void **state)
{
    char out[4096];
    ask_once(*state, "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Request-Id: mine-1\r\n\r\n",
             out, sizeof out);
    assert_non_null(strstr(out, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(out, "\r\ncontent-length: 5\r\n"));
    assert_non_null(strstr(out, "\r\ncontent-type: text/plain\r\n"));
    assert_non_null(strstr(out, "\r\nx-request-id: mine-1\r\n"));
    assert_non_null(strstr(out, "\r\nconnection: close\r\n"));
    assert_non_null(strstr(out, "\r\n\r\nhello"));
    assert_non_null(strstr(out, "\r\ndate: "));
    assert_non_null(strstr(out, " GMT\r\n"));
}

static void makes_an_id_where_the_clients_is_not_sane(void **state)
{
    char out[4096];
    ask_once(*state, "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Request-Id: a b\"\r\n\r\n",
             out, sizeof out);
    assert_non_null(strstr(out, "\r\nx-request-id: req-"));
}

static void echoes_method_path_query_body(void **state)
{
    char out[4096];
    ask_once(*state,
             "POST http://h/%65cho?a=%20b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
             "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n",
             out, sizeof out);
    assert_non_null(strstr(out, "\r\nx-method: POST\r\n"));
    assert_non_null(strstr(out, "\r\nx-path: /echo\r\n"));
    assert_non_null(strstr(out, "\r\nx-query: a=%20b\r\n"));
    assert_non_null(strstr(out, "\r\ncontent-length: 5\r\n"));
    assert_int_equal(count(out, "content-length"), 1);
    assert_null(strstr(out, "x-bad"));
    assert_non_null(strstr(out, "\r\n\r\nabcde"));
}

static void head_has_no_body(void **state)
{
    char out[4096];
    ask_once(*state,
             "HEAD /hello HTTP/1.1\r\nHost: h\r\n\r\nHEAD /stream HTTP/1.1\r\nHost: h\r\n\r\n"
             "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
             out, sizeof out);
    assert_int_equal(count(out, "HTTP/1.1 200 OK"), 3);
    assert_int_equal(count(out, "hello"), 1);
    assert_null(strstr(out, "three"));
    assert_int_equal(count(out, "content-length: 5"), 2);
}

static void http10_closes_unless_asked(void **state)
{
    char out[4096];
    ask_once(*state, "GET /hello HTTP/1.0\r\n\r\n", out, sizeof out);
    assert_non_null(strstr(out, "connection: close\r\n"));
    assert_non_null(strstr(out, "\r\n\r\nhello"));
    ask_once(*state, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", out, sizeof out);
    assert_null(strstr(out, "chunked"));
    assert_non_null(strstr(out, "\r\n\r\nonetwothree"));
    ask_once(*state, "GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /hello HTTP/1.0\r\n\r\n", out,
             sizeof out);
    assert_int_equal(count(out, "hello"), 2);
    assert_int_equal(count(out, "connection: keep-alive"), 1);
}

static void streams_in_chunks(void **state)
{
    char out[4096];
    ask_once(*state, "GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", out, sizeof out);
    assert_non_null(strstr(out, "transfer-encoding: chunked\r\n"));
    assert_null(strstr(out, "content-length"));
    assert_non_null(strstr(out, "\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"));
}

static void answers_later_and_keeps_alive(void **state)
{
    struct test_server *server = *state;
    char out[4096];
    int fd = test_connect(server->port);
    for (int i = 0; i < 20; i++) {
        assert_true(test_send_text(fd, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n"));
        test_read(fd, out, sizeof out, "late", NULL);
        assert_non_null(strstr(out, "\r\n\r\nlate"));
    }
    close(fd);
    assert_int_equal(test_server_stats(server).accepted_total, 1);
}

static void pipelines_in_order(void **state)
{
    enum { N = 1000 };
    struct test_server *server = *state;
    struct buf all;
    buf_init(&all, 1 << 20);
    for (int i = 0; i < N; i++) {
        const char *path = i % 7 == 3 ? "later" : i % 5 == 2 ? "stream" : "echo";
        buf_printf(&all, "POST /%s?n=%d HTTP/1.1\r\nHost: h\r\n%sContent-Length: 2\r\n\r\nhi", path, i,
                   i == N - 1 ? "Connection: close\r\n" : "");
    }
    int fd = test_connect(server->port);
    assert_true(test_send(fd, all.data, all.len));
    size_t size = 1 << 20;
    char *out = malloc(size);
    int end = 0;
    assert_non_null(out);
    test_read(fd, out, size, NULL, &end);
    assert_int_equal(end, 1);
    const char *at = out;
    for (int i = 0; i < N; i++) {
        char want[64];
        snprintf(want, sizeof want, "x-query: n=%d\r\n", i);
        at = strstr(at, i % 7 == 3 ? "late" : i % 5 == 2 ? "three\r\n0\r\n\r\n" : want);
        assert_non_null(at);
        at++;
    }
    assert_int_equal(count(out, "HTTP/1.1 200 OK"), N);
    assert_int_equal(server->handled_count, N);
    close(fd);
    free(out);
    buf_release(&all);
}

static void bytes_may_come_one_by_one(void **state)
{
    struct test_server *server = *state;
    static const char request[] = "\r\nPOST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
                                  "Connection: close\r\n\r\nhello";
    char out[4096];
    int fd = test_connect(server->port), end = 0;
    for (size_t i = 0; request[i]; i++)
        assert_true(test_send(fd, request + i, 1));
    test_read(fd, out, sizeof out, NULL, &end);
    assert_int_equal(end, 1);
    assert_non_null(strstr(out, "\r\n\r\nhello"));
    close(fd);
}

static void says_continue_when_asked(void **state)
{
    struct test_server *server = *state;
    char out[4096];
    int fd = test_connect(server->port);
    assert_true(test_send_text(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                                   "Content-Length: 3\r\nConnection: close\r\n\r\n"));
    test_read(fd, out, sizeof out, "\r\n\r\n", NULL);
    assert_string_equal(out, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_true(test_send_text(fd, "abc"));
    test_read(fd, out, sizeof out, NULL, NULL);
    assert_non_null(strstr(out, "\r\n\r\nabc"));
    close(fd);
}

static void refuses_with_status_and_close(void **state)
{
    static const struct {
        const char *request, *status;
    } cases[] = {
        {"GET /hello HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
        {"GET /hello HTTP/2.0\r\nHost: h\r\n\r\n", "HTTP/1.1 505 "},
        {"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 400 "},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n",
         "HTTP/1.1 413 "},
        {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501 "},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 400 "},
    };
    char out[4096];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ask_once(*state, cases[i].request, out, sizeof out);
        assert_memory_equal(out, cases[i].status, strlen(cases[i].status));
        assert_non_null(strstr(out, "{\"error\":{\"message\":"));
        assert_non_null(strstr(out, "connection: close\r\n"));
    }
}

static void abort_is_visible(void **state)
{
    struct test_server *server = *state;
    char out[4096];
    int end = 0, fd = test_connect(server->port);
    assert_true(test_send_text(fd, "GET /abort HTTP/1.1\r\nHost: h\r\n\r\n"));
    test_read(fd, out, sizeof out, NULL, &end);
    close(fd);
    assert_int_equal(end, 2);
    assert_non_null(strstr(out, "\r\n\r\n7\r\npartial\r\n"));
    assert_null(strstr(out, "\r\n0\r\n"));
}

/* All that was written before the abort arrives, though the client was slow to read it. */
static void abort_delivers_what_was_written(void **state)
{
    struct test_server *server = *state;
    size_t size = BIG_ABORT_BYTES + 4096;
    char *out = malloc(size);
    assert_non_null(out);
    int end = 0, fd = test_connect(server->port);
    assert_true(test_send_text(fd, "GET /big-abort HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(test_wait_count(&server->handled_count, 1));
    assert_int_equal(test_server_stats(server).exchanges, 0); /* aborted before a byte was read here */
    size_t len = test_read(fd, out, size, NULL, &end);
    assert_int_equal(end, 2);
    char *body = strstr(out, "\r\n\r\n");
    assert_non_null(body);
    assert_int_equal(len - (size_t)(body + 4 - out), BIG_ABORT_BYTES + strlen("16e360\r\n\r\n"));
    close(fd);
    free(out);
}

static void tells_that_the_client_has_gone(void **state)
{
    struct test_server *server = *state;
    static const char *const requests[] = {"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n",
                                           "GET /held-stream HTTP/1.1\r\nHost: h\r\n\r\n"};
    for (size_t i = 0; i < 2; i++) {
        int fd = test_connect(server->port);
        assert_true(test_send_text(fd, requests[i]));
        assert_true(test_wait_count(&server->handled_count, i + 1));
        close(fd);
        assert_true(test_wait_count(&server->gone_count, i + 1));
    }
}

static void obeys_back_pressure(void **state)
{
    struct test_server *server = *state;
    int fd = test_connect(server->port);
    assert_true(test_send_text(fd, "GET /flood HTTP/1.0\r\n\r\n"));
    assert_true(test_wait_count(&server->stall_count, 1));
    size_t size = FLOOD_BYTES + 4096;
    char *out = malloc(size);
    assert_non_null(out);
    int end = 0;
    size_t len = test_read(fd, out, size, NULL, &end); /* slower than the server can write */
    assert_int_equal(end, 1);
    char *body = strstr(out, "\r\n\r\n");
    assert_non_null(body);
    assert_int_equal(len - (size_t)(body + 4 - out), FLOOD_BYTES);
    assert_true(server->drain_count > 1);
    free(out);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(replies_with_length_and_request_id, setup, teardown),
        cmocka_unit_test_setup_teardown(makes_an_id_where_the_clients_is_not_sane, setup, teardown),
        cmocka_unit_test_setup_teardown(echoes_method_path_query_body, setup, teardown),
        cmocka_unit_test_setup_teardown(head_has_no_body, setup, teardown),
        cmocka_unit_test_setup_teardown(http10_closes_unless_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(streams_in_chunks, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_later_and_keeps_alive, setup, teardown),
        cmocka_unit_test_setup_teardown(pipelines_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_may_come_one_by_one, setup, teardown),
        cmocka_unit_test_setup_teardown(says_continue_when_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_with_status_and_close, setup, teardown),
        cmocka_unit_test_setup_teardown(abort_is_visible, setup, teardown),
        cmocka_unit_test_setup_teardown(abort_delivers_what_was_written, setup, teardown),
        cmocka_unit_test_setup_teardown(tells_that_the_client_has_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(obeys_back_pressure, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
