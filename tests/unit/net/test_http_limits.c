/* The server against clients that are slow, greedy, rude or gone, and its graceful stop. Deadlines are short here
 * and the tests wait for their effects; nothing sleeps. */
#include "test_support.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/limits.h"
#include "net_support.h"

#define SHORT_MS 150
#define LONG_MS 60000

/* Every deadline long, so that only the one a test shortens can strike. */
static struct http_limits long_limits(void)
{
    struct http_limits limits;
    http_limits_default(&limits);
    limits.header_deadline_ms = limits.body_deadline_ms = limits.idle_deadline_ms = LONG_MS;
    limits.write_stall_deadline_ms = limits.stop_grace_ms = LONG_MS;
    return limits;
}

static void expect_status(int fd, const char *status)
{
    char out[4096];
    int end = 0;
    test_read(fd, out, sizeof out, NULL, &end);
    assert_int_equal(end, 1);
    assert_memory_equal(out, status, strlen(status));
    assert_non_null(strstr(out, "{\"error\""));
}

/* Sends one byte at a time until the server has closed, never fast enough to finish and never pausing for long. */
static uint64_t trickle(int fd, const char *first, const char *drop)
{
    uint64_t began = test_now_ms();
    assert_true(test_send_text(fd, first));
    char out[4096];
    size_t len = 0;
    for (;;) {
        ssize_t n = recv(fd, out + len, sizeof out - 1 - len, MSG_DONTWAIT);
        if (n == 0)
            break;
        if (n > 0)
            len += (size_t)n;
        assert_true(test_now_ms() - began < TEST_DEADLINE_MS);
        if (len == 0)
            (void)test_send_text(fd, drop);
        test_pause();
    }
    out[len] = 0;
    assert_memory_equal(out, "HTTP/1.1 408 ", 13);
    return test_now_ms() - began;
}

static void a_trickled_header_is_cut(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    limits.header_deadline_ms = SHORT_MS;
    struct test_server server;
    test_server_start(&server, &limits);
    int fd = test_connect(server.port);
    assert_true(trickle(fd, "GET / HTTP/1.1\r\nA: ", "x") >= SHORT_MS - 20);
    close(fd);
    test_server_stop(&server);
}

static void a_trickled_body_is_cut(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    limits.body_deadline_ms = SHORT_MS;
    struct test_server server;
    test_server_start(&server, &limits);
    int fd = test_connect(server.port);
    assert_true(trickle(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n", "x") >=
                SHORT_MS - 20);
    close(fd);
    fd = test_connect(server.port);
    trickle(fd, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n");
    close(fd);
    assert_int_equal(server.handled_count, 0);
    test_server_stop(&server);
}

/* The second request's deadline counts from its own first byte, not from the connection's. */
static void an_idle_connection_is_closed(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    limits.idle_deadline_ms = SHORT_MS;
    struct test_server server;
    test_server_start(&server, &limits);
    char out[1000];
    int end = 0, silent = test_connect(server.port), used = test_connect(server.port);
    assert_true(test_send_text(used, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"));
    test_read(used, out, sizeof out, NULL, &end);
    assert_int_equal(end, 1);
    assert_non_null(strstr(out, "hello"));
    assert_int_equal(test_read(silent, out, sizeof out, NULL, &end), 0);
    assert_int_equal(end, 1);
    close(silent);
    close(used);
    test_server_stop(&server);
}

/* A handler may think for as long as it likes. */
static void no_deadline_strikes_a_thinking_handler(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    limits.header_deadline_ms = limits.body_deadline_ms = limits.idle_deadline_ms = SHORT_MS;
    limits.write_stall_deadline_ms = SHORT_MS;
    struct test_server server;
    test_server_start(&server, &limits);
    char out[1000];
    int end = 0, held = test_connect(server.port), idle = test_connect(server.port);
    assert_true(test_send_text(held, "GET /held-stream HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(test_wait_count(&server.held_count, 1));
    test_read(idle, out, sizeof out, NULL,
              &end); /* its deadline has passed now, and so have all the others */
    assert_int_equal(end, 1);
    close(idle);
    idle = test_connect(server.port);
    test_read(idle, out, sizeof out, NULL, &end);
    test_server_release(&server);
    test_read(held, out, sizeof out, "0\r\n\r\n", &end);
    assert_non_null(strstr(out, "5\r\nbegun\r\n0\r\n\r\n"));
    assert_int_equal(server.gone_count, 0);
    close(held);
    close(idle);
    test_server_stop(&server);
}

static void oversize_is_refused_even_while_the_client_sends(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    limits.body_bytes_max = 100000;
    struct test_server server;
    test_server_start(&server, &limits);
    char *junk = malloc(1 << 20);
    assert_non_null(junk);
    memset(junk, 'x', 1 << 20);
    static const struct {
        const char *head;
        size_t junk_len;
        const char *status;
    } cases[] = {
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n", 1 << 20, "HTTP/1.1 413 "},
        {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n186A1\r\n", 1 << 20,
         "HTTP/1.1 413 "},
        {"GET / HTTP/1.1\r\nHost: h\r\nA: ", 40000, "HTTP/1.1 431 "},
        {"GET /", 40000, "HTTP/1.1 414 "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = test_connect(server.port);
        assert_true(test_send_text(fd, cases[i].head));
        assert_true(test_send(fd, junk, cases[i].junk_len)); /* the reply must survive what is on its way */
        expect_status(fd, cases[i].status);
        close(fd);
    }
    assert_int_equal(server.handled_count, 0);
    free(junk);
    test_server_stop(&server);
}

static void takes_a_large_chunked_upload(void **state)
{
    (void)state;
    enum { CHUNKS = 500, CHUNK = 8000 };
    struct test_server server;
    test_server_start(&server, NULL);
    char *chunk = malloc(CHUNK + 100), out[1000];
    assert_non_null(chunk);
    int head = snprintf(chunk, 100, "%x;x=y\r\n", CHUNK);
    memset(chunk + head, 'x', CHUNK);
    memcpy(chunk + head + CHUNK, "\r\n", 2);
    int fd = test_connect(server.port);
    assert_true(test_send_text(fd, "POST /length HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for (int i = 0; i < CHUNKS; i++)
        assert_true(test_send(fd, chunk, (size_t)head + CHUNK + 2));
    assert_true(test_send_text(fd, "0\r\n\r\n"));
    test_read(fd, out, sizeof out, "\r\n\r\n4000000", NULL);
    assert_non_null(strstr(out, "\r\n\r\n4000000"));
    close(fd);
    free(chunk);
    test_server_stop(&server);
}

static void a_full_table_says_so(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    limits.connections_max = 3;
    struct test_server server;
    test_server_start(&server, &limits);
    int fds[3];
    char out[1000];
    for (size_t i = 0; i < 3; i++) {
        fds[i] = test_connect(server.port);
        assert_true(test_send_text(fds[i], "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"));
        test_read(fds[i], out, sizeof out, "hello", NULL);
    }
    for (int i = 0; i < 10; i++) {
        int fd = test_connect(server.port), end = 0;
        test_read(fd, out, sizeof out, NULL, &end);
        assert_int_equal(end, 1);
        assert_memory_equal(out, "HTTP/1.1 503 ", 13);
        assert_non_null(strstr(out, "\r\nretry-after: 1\r\n"));
        close(fd);
    }
    struct http_stats stats = test_server_stats(&server);
    assert_int_equal(stats.connections, 3);
    assert_int_equal(stats.refused_total, 10);
    close(fds[0]); /* a place becomes free */
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (test_server_stats(&server).connections == 3 && test_now_ms() < until)
        test_pause();
    fds[0] = test_connect(server.port);
    assert_true(test_send_text(fds[0], "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"));
    test_read(fds[0], out, sizeof out, "hello", NULL);
    assert_non_null(strstr(out, "200 OK"));
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
    test_server_stop(&server);
}

/* A client that sends requests without end while its first is thought about is read no further than the limit. */
static void reads_ahead_only_so_far(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    struct test_server server;
    test_server_start(&server, &limits);
    int fd = test_connect(server.port);
    static const char hold[] = "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n";
    static const char hello[] = "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_true(test_send_text(fd, hold));
    assert_true(test_wait_count(&server.held_count, 1));
    size_t sent = 0, at = 0, limit = sizeof hold - 1 + HTTP_PIPELINE_BYTES_MAX;
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (test_now_ms() < until) { /* until the server has read its fill and the kernel has, too */
        ssize_t n = send(fd, hello + at, sizeof hello - 1 - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            at = (at + (size_t)n) % (sizeof hello - 1);
            sent += (size_t)n;
        } else if (test_server_stats(&server).bytes_read >= limit) {
            break;
        }
    }
    assert_true(sent > 2 * HTTP_PIPELINE_BYTES_MAX);
    assert_int_equal(test_server_stats(&server).bytes_read, limit);
    assert_int_equal(server.handled_count, 1);
    test_server_release(&server);
    char *out = malloc(1 << 16);
    assert_non_null(out);
    assert_true(test_read(fd, out, 1 << 16, NULL, NULL) ==
                (1 << 16) - 1); /* and it goes on when that is over */
    assert_true(test_wait_count(&server.handled_count, 100));
    free(out);
    close(fd);
    test_server_stop(&server);
}

/* Requests whose replies nobody reads are not begun. */
static void replies_that_nobody_reads_do_not_pile_up(void **state)
{
    (void)state;
    enum { N = 100 };
    struct http_limits limits = long_limits();
    struct test_server server;
    test_server_start(&server, &limits);
    int fd = test_connect(server.port);
    for (int i = 0; i < N; i++)
        assert_true(test_send_text(fd, "GET /big HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(test_wait_count(&server.handled_count, 1));
    for (int i = 0; i < 50; i++)
        (void)test_server_stats(&server); /* 50 rounds of the loop */
    assert_true(server.handled_count < N / 2);
    char *out = malloc(BIG_BYTES);
    assert_non_null(out);
    for (size_t left = N * BIG_BYTES; left;) {
        size_t n = test_read(fd, out, left < BIG_BYTES ? left + 1 : BIG_BYTES, NULL, NULL);
        assert_int_not_equal(n, 0);
        left -= n;
    }
    assert_true(test_wait_count(&server.handled_count, N));
    free(out);
    close(fd);
    test_server_stop(&server);
}

/* A flood of pipelined requests, each answered in the same round of events in which the next are read. */
static void a_flood_of_pipelined_requests_is_all_answered(void **state)
{
    (void)state;
    static const char soon[] = "GET /soon HTTP/1.1\r\nHost: h\r\n\r\n";
    enum { BATCH = 200, N = 20000 };
    struct http_limits limits = long_limits();
    struct test_server server;
    test_server_start(&server, &limits);
    struct buf batch;
    buf_init(&batch, 1 << 20);
    for (int i = 0; i < BATCH; i++)
        buf_puts(&batch, soon);
    int fd = test_connect(server.port);
    size_t sent = 0, total = N * (sizeof soon - 1), at = 0, replies = 0;
    char out[4097];
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    char before = 0;
    while (replies < N && test_now_ms() < until) {
        ssize_t n = sent < total ? send(fd, batch.data + at, batch.len - at, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        if (n > 0) {
            sent += (size_t)n;
            at = (at + (size_t)n) % batch.len;
        }
        n = recv(fd, out, sizeof out - 1, sent < total ? MSG_DONTWAIT : 0);
        assert_int_not_equal(n, 0);
        for (ssize_t i = 0; i < n; i++) { /* the empty line, once in a reply */
            replies += before == '\n' && out[i] == '\r';
            before = out[i];
        }
    }
    assert_int_equal(replies, N);
    buf_release(&batch);
    close(fd);
    test_server_stop(&server);
}

static void a_client_that_reads_nothing_is_cut(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    limits.write_stall_deadline_ms = SHORT_MS;
    struct test_server server;
    test_server_start(&server, &limits);
    int fd = test_connect(server.port);
    assert_true(test_send_text(fd, "GET /flood HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(test_wait_count(&server.gone_count, 1));
    close(fd);
    test_server_stop(&server);
}

static void a_handler_that_ignores_back_pressure_is_cut(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    struct test_server server;
    test_server_start(&server, &limits);
    int fd = test_connect(server.port);
    assert_true(test_send_text(fd, "GET /rude HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(test_wait_count(&server.gone_count, 1));
    close(fd);
    test_server_stop(&server);
}

static void going_in_the_middle_of_anything_is_noticed(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    struct test_server server;
    test_server_start(&server, &limits);
    static const char *const beginnings[] = {
        "GET /hel",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
        "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /hold HTTP/1.1\r\nHost: h\r\n\r\nGET /hold HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /held-stream HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /flood HTTP/1.1\r\nHost: h\r\n\r\n",
        "",
    };
    size_t count = sizeof beginnings / sizeof *beginnings, going = 0;
    for (size_t round = 0; round < 3 * count; round++) {
        const char *text = beginnings[round % count];
        size_t handled = server.handled_count;
        int fd = test_connect(server.port);
        if (round >= count) { /* by a reset instead of a close */
            struct linger hard = {.l_onoff = 1, .l_linger = 0};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        }
        assert_true(test_send_text(fd, text));
        if (strncmp(text, "GET /h", 6) == 0 && strstr(text, "\r\n\r\n")) {
            assert_true(test_wait_count(&server.handled_count, handled + 1));
            going++;
        }
        if (strncmp(text, "GET /f", 6) == 0) {
            assert_true(test_wait_count(&server.stall_count, 1 + round / count));
            going++;
        }
        if (round >= 2 * count)
            shutdown(fd, SHUT_WR); /* half a close is a whole one to a request that is not answered */
        else
            close(fd);
        assert_true(test_wait_count(&server.gone_count, going));
        if (round >= 2 * count)
            close(fd);
    }
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (test_server_stats(&server).connections && test_now_ms() < until)
        test_pause();
    assert_int_equal(test_server_stats(&server).connections, 0);
    assert_int_equal(test_server_stats(&server).exchanges, 0);
    test_server_stop(&server);
}

/* What nc and scripts do: send, shut the sending half, read. Replies made at once arrive. */
static void a_half_close_keeps_a_reply_that_was_made(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, NULL);
    char out[4000];
    int end = 0, fd = test_connect(server.port);
    assert_true(
        test_send_text(fd, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\nGET /stream HTTP/1.1\r\nHost: h\r\n\r\n"));
    shutdown(fd, SHUT_WR);
    test_read(fd, out, sizeof out, NULL, &end);
    assert_int_equal(end, 1);
    assert_non_null(strstr(out, "hello"));
    assert_non_null(strstr(out, "0\r\n\r\n"));
    close(fd);
    test_server_stop(&server);
}

/* ---- The graceful stop ---- */

/* Waits until the server has five connections and has read so many bytes. */
static void wait_until_read(struct test_server *server, size_t bytes)
{
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    struct http_stats stats = test_server_stats(server);
    while ((stats.bytes_read < bytes || stats.connections < 5) && test_now_ms() < until) {
        test_pause();
        stats = test_server_stats(server);
    }
    assert_int_equal(stats.bytes_read, bytes);
    assert_int_equal(stats.connections, 5);
}

/* The server's end of a connection of this process, by what it is connected to. */
static int server_end_of(int client)
{
    struct sockaddr_in own, peer;
    socklen_t len = sizeof own;
    assert_int_equal(getsockname(client, (struct sockaddr *)&own, &len), 0);
    for (int fd = 3; fd < 1024; fd++) {
        len = sizeof peer;
        if (fd != client && getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
            peer.sin_family == AF_INET && peer.sin_port == own.sin_port)
            return fd;
    }
    fail_msg("the server has no end of the connection");
    return -1;
}

static int option_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

/* The network cannot be cut here, so this looks at what the system was asked to do then. */
static void a_vanished_host_would_be_noticed(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, NULL);
    int fd = test_connect(server.port);
    assert_true(test_send_text(fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(test_wait_count(&server.held_count, 1));
    int end = server_end_of(fd);
    assert_int_equal(option_of(end, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option_of(end, IPPROTO_TCP, TCP_KEEPIDLE), HTTP_PEER_PROBE_S);
    assert_int_equal(option_of(end, IPPROTO_TCP, TCP_KEEPINTVL), HTTP_PEER_PROBE_S);
    assert_int_equal(option_of(end, IPPROTO_TCP, TCP_USER_TIMEOUT), HTTP_PEER_SILENCE_MS);
    close(fd);
    assert_true(test_wait_count(&server.gone_count, 1));
    test_server_stop(&server);
}

static void a_stop_closes_the_idle_and_lets_the_others_finish(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    struct test_server server;
    test_server_start(&server, &limits);
    char out[4000];
    int end = 0, fresh = test_connect(server.port), idle = test_connect(server.port);
    int held = test_connect(server.port), late = test_connect(server.port), half = test_connect(server.port);
    assert_true(test_send_text(idle, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"));
    test_read(idle, out, sizeof out, "hello", NULL);
    assert_true(test_send_text(held, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(test_send_text(late, "GET /held-stream HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(test_wait_count(&server.held_count, 2));
    assert_true(test_send_text(half, "GET /hello HTTP/1.1\r\n"));
    wait_until_read(&server, 32 + 31 + 38 + 21);
    test_server_begin_stop(&server);
    assert_int_equal(test_read(fresh, out, sizeof out, NULL, &end), 0);
    assert_int_equal(end, 1);
    assert_int_equal(test_read(idle, out, sizeof out, NULL, &end), 0);
    assert_int_equal(end, 1);
    assert_true(test_send_text(half, "Host: h\r\n\r\n"));
    test_read(half, out, sizeof out, NULL, &end);
    assert_non_null(strstr(out, "connection: close\r\n"));
    assert_non_null(strstr(out, "hello"));
    assert_false(server.has_stopped);
    test_server_release(&server);
    test_read(held, out, sizeof out, NULL, &end);
    assert_int_equal(end, 1);
    assert_non_null(strstr(out, "connection: close\r\n"));
    assert_non_null(strstr(out, "released"));
    test_read(late, out, sizeof out, NULL, &end);
    assert_int_equal(end, 1);
    assert_non_null(strstr(out, "0\r\n\r\n"));
    close(fresh), close(idle), close(held), close(late), close(half);
    test_server_join(&server);
    assert_true(server.has_stopped);
    assert_int_equal(server.gone_count, 0);
    assert_int_equal(server.stats.connections, 0);
}

static void a_stop_cuts_after_its_grace(void **state)
{
    (void)state;
    struct http_limits limits = long_limits();
    limits.stop_grace_ms = SHORT_MS;
    struct test_server server;
    test_server_start(&server, &limits);
    char out[4000];
    int end = 0, fd = test_connect(server.port);
    assert_true(test_send_text(fd, "GET /held-stream HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_true(test_wait_count(&server.held_count, 1));
    uint64_t began = test_now_ms();
    test_server_stop(&server);
    assert_true(test_now_ms() - began >= SHORT_MS - 20);
    assert_true(server.has_stopped);
    assert_int_equal(server.gone_count, 1); /* told, and it ended its exchange */
    test_read(fd, out, sizeof out, NULL, &end);
    assert_int_equal(end, 2);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trickled_header_is_cut),
        cmocka_unit_test(a_trickled_body_is_cut),
        cmocka_unit_test(an_idle_connection_is_closed),
        cmocka_unit_test(no_deadline_strikes_a_thinking_handler),
        cmocka_unit_test(oversize_is_refused_even_while_the_client_sends),
        cmocka_unit_test(takes_a_large_chunked_upload),
        cmocka_unit_test(a_full_table_says_so),
        cmocka_unit_test(reads_ahead_only_so_far),
        cmocka_unit_test(replies_that_nobody_reads_do_not_pile_up),
        cmocka_unit_test(a_flood_of_pipelined_requests_is_all_answered),
        cmocka_unit_test(a_client_that_reads_nothing_is_cut),
        cmocka_unit_test(a_handler_that_ignores_back_pressure_is_cut),
        cmocka_unit_test(going_in_the_middle_of_anything_is_noticed),
        cmocka_unit_test(a_half_close_keeps_a_reply_that_was_made),
        cmocka_unit_test(a_vanished_host_would_be_noticed),
        cmocka_unit_test(a_stop_closes_the_idle_and_lets_the_others_finish),
        cmocka_unit_test(a_stop_cuts_after_its_grace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
