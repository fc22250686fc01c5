/* The memory of server, client and child processes. This program defines base/mem.h's functions itself: they count the bytes in use and can be
 * told to fail. */
#include "test_support.h"

#include <malloc.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "client_support.h"
#include "tls_support.h"

struct counts {
    atomic_llong bytes;      /* in use */
    atomic_llong fail_after; /* allocations that still succeed; negative: all do */
    atomic_bool fail_once;   /* and after the first that failed, all do again */
    atomic_llong failures;
};

static struct counts counts = {.fail_after = -1};

static bool may_allocate(void)
{
    long long left = counts.fail_after;
    while (left >= 0) {
        if (left == 0) {
            counts.failures++;
            if (counts.fail_once)
                counts.fail_after = -1;
            return false;
        }
        if (atomic_compare_exchange_weak(&counts.fail_after, &left, left - 1))
            return true;
    }
    return true;
}

static void *note(void *memory)
{
    if (memory)
        counts.bytes += (long long)malloc_usable_size(memory);
    return memory;
}

void *mem_alloc(size_t size)
{
    return may_allocate() ? note(malloc(size ? size : 1)) : NULL;
}

void *mem_calloc(size_t count, size_t size)
{
    return may_allocate() ? note(calloc(count ? count : 1, size ? size : 1)) : NULL;
}

void *mem_realloc(void *old, size_t count, size_t size)
{
    if (!may_allocate())
        return NULL;
    long long before = old ? (long long)malloc_usable_size(old) : 0;
    void *memory = realloc(old, count * size + 1);
    if (memory)
        counts.bytes += (long long)malloc_usable_size(memory) - before;
    return memory;
}

void *mem_alloc_aligned(size_t alignment, size_t size)
{
    void *memory = NULL;
    if (!may_allocate() || posix_memalign(&memory, alignment, size ? size : 1) != 0)
        return NULL;
    return note(memset(memory, 0, size));
}

char *mem_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = mem_alloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

void mem_free(void *memory)
{
    if (memory)
        counts.bytes -= (long long)malloc_usable_size(memory);
    free(memory);
}

/* ---- */

static const char hello[] = "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n";

static void wait_for_connections(struct test_server *server, size_t want)
{
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (test_server_stats(server).connections != want && test_now_ms() < until)
        test_pause();
    assert_int_equal(test_server_stats(server).connections, want);
}

static size_t descriptors_to_use(void)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    size_t room = ((size_t)limit.rlim_cur - 100) / 2; /* both ends are ours */
    return room < 2000 ? room : 2000;
}

static void thousands_of_connections_cost_little_and_leave_nothing(void **state)
{
    (void)state;
    size_t n = descriptors_to_use();
    int *fds = malloc(n * sizeof *fds);
    char out[1000];
    assert_non_null(fds);
    struct test_server server;
    test_server_start(&server, NULL);
    long long before = 0;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < n; i++) {
            fds[i] = test_connect(server.port);
            assert_true(test_send(fds[i], hello, sizeof hello - 1));
            test_read(fds[i], out, sizeof out, "\r\n\r\nhello", NULL);
            assert_non_null(strstr(out, "\r\n\r\nhello"));
        }
        wait_for_connections(&server, n);
        if (round) {
            long long each = (counts.bytes - before) / (long long)n;
            if (round == 1)
                printf("%zu idle connections, %lld bytes each\n", n, each);
            assert_true(each < 1024);
        }
        for (size_t i = 0; i < n; i++)
            close(fds[i]);
        wait_for_connections(&server, 0);
        if (round == 0)
            before = counts.bytes;
        assert_true(counts.bytes <= before + 4096);
    }
    free(fds);
    test_server_stop(&server);
    assert_int_equal(counts.bytes, 0);
}

/* Sends what exercises every path that allocates, and takes whatever comes: a right reply, an error, a close. */
static void converse(struct test_server *server)
{
    static const char *const requests[] = {
        "GET /hello HTTP/1.1\r\nHost: h\r\n\r\nGET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        ("POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\n"
         "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"),
        "GET /stream HTTP/1.1\r\nHost: h\r\n\r\nGET /abort HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    };
    char out[4000];
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        int end = 0, fd = test_connect(server->port);
        (void)test_send_text(fd, requests[i]);
        test_read(fd, out, sizeof out, NULL, &end);
        assert_int_not_equal(end, 0);
        if (*out) { /* a beginning of a reply, or whole ones: never garbage */
            size_t len = strlen(out) < 9 ? strlen(out) : 9;
            assert_memory_equal(out, "HTTP/1.1 ", len);
        }
        close(fd);
    }
}

static void survives_any_failed_allocation(void **state)
{
    (void)state;
    struct test_server server;
    test_server_start(&server, NULL);
    converse(&server);
    for (int nth = 0;; nth++) {
        long long failures = counts.failures;
        for (int once = 0; once < 2; once++) {
            counts.fail_once = once;
            counts.fail_after = nth;
            converse(&server);
            counts.fail_after = -1;
        }
        converse(&server);
        if (counts.failures == failures)
            break;
        assert_true(nth < 500);
    }
    assert_true(counts.failures > 20);
    char out[1000];
    int fd = test_connect(server.port);
    assert_true(test_send(fd, hello, sizeof hello - 1));
    test_read(fd, out, sizeof out, "\r\n\r\nhello", NULL);
    assert_non_null(strstr(out, "\r\n\r\nhello"));
    close(fd);
    test_server_stop(&server);
    assert_int_equal(counts.bytes, 0);
}

/* ---- The client ---- */

#define REPLY "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"

static const struct test_script peer_script = {REPLY "5\r\nhello\r\n0\r\n\r\n", THEN_KEEP};

/* A client's life with one call: whatever fails, every call that began ends once. */
static void live_as_client(struct test_peer *peer)
{
    struct test_client client;
    struct http_client_params client_params = {.clock = clock_system()};
    struct http_header header = {"authorization", "Bearer x"};
    struct http_call_params params = {.method = "POST",
                                      .headers = &header,
                                      .header_count = 1,
                                      .body = "{}",
                                      .body_len = 2,
                                      .connect_timeout_ms = 100,
                                      .head_timeout_ms = 100};
    struct test_reply reply;
    if (net_loop_create(&client.loop, NULL) != PH_OK)
        return;
    client_params.loop = client.loop;
    if (http_client_open(&client.http, &client_params, NULL) == PH_OK) {
        test_reply_init(&reply, &client);
        if (test_call_start(&reply, peer->port, "/", &params) == PH_OK) {
            assert_true(test_client_turn(&client, &reply.ended));
            assert_int_equal(strchr(reply.events, 'E') - reply.events + 1, strlen(reply.events));
            if (reply.how == HTTP_CALL_WHOLE)
                assert_string_equal(reply.body, "hello");
        }
        test_reply_release(&reply);
        http_client_close(client.http);
    }
    net_loop_free(client.loop);
}

static void a_client_survives_any_failed_allocation(void **state)
{
    (void)state;
    struct test_peer peer;
    test_peer_start(&peer, &peer_script, 1);
    long long before = counts.bytes, all = counts.failures;
    for (int nth = 0;; nth++) {
        long long failures = counts.failures;
        for (int once = 0; once < 2; once++) {
            counts.fail_once = once;
            counts.fail_after = nth;
            live_as_client(&peer);
            counts.fail_after = -1;
            assert_int_equal(counts.bytes, before);
        }
        if (counts.failures == failures)
            break;
        assert_true(nth < 200);
    }
    assert_true(counts.failures - all > 10);
    test_peer_stop(&peer);
}

static void calls_leave_nothing_behind(void **state)
{
    (void)state;
    struct test_peer peer;
    struct test_client client;
    struct test_reply reply;
    long long before = 0;
    test_peer_start(&peer, &peer_script, 1);
    test_client_open(&client, NULL);
    for (int i = 0; i < 300; i++) {
        test_reply_init(&reply, &client);
        test_call(&reply, peer.port, "/", NULL);
        assert_int_equal(reply.how, HTTP_CALL_WHOLE);
        test_reply_release(&reply);
        if (i == 10)
            before = counts.bytes;
    }
    assert_int_equal(counts.bytes, before);
    test_client_close(&client);
    test_peer_stop(&peer);
}

/* ---- TLS ---- */

static void tls_survives_any_failed_allocation(void **state)
{
    (void)state;
    char cert[] = "/tmp/pharos-cert-XXXXXX", key[] = "/tmp/pharos-key-XXXXXX", out[2000];
    static const char request[] = "GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    close(mkstemp(cert));
    close(mkstemp(key));
    test_make_certificate(cert, key, "IP:127.0.0.1", 2);
    long long before = counts.bytes, all = counts.failures;
    struct test_server server;
    test_server_start_tls(&server, NULL, cert, key);
    for (int nth = 0, served = 0; served < 3; nth++) {
        struct test_tls tls;
        counts.fail_once = nth % 2;
        counts.fail_after = nth / 2;
        served = test_tls_connect(&tls, server.port, TLS1_3_VERSION, NULL) == 1 &&
                         SSL_write(tls.ssl, request, sizeof request - 1) > 0 &&
                         test_tls_read(&tls, out, sizeof out) == SSL_ERROR_ZERO_RETURN &&
                         strstr(out, "\r\n0\r\n\r\n")
                     ? served + 1
                     : 0;
        counts.fail_after = -1;
        test_tls_close(&tls);
        assert_true(nth < 200);
    }
    assert_true(counts.failures - all > 5);
    test_server_stop(&server);
    assert_int_equal(counts.bytes, before);
    unlink(cert);
    unlink(key);
}

/* ---- Processes ---- */

static void on_process_ended(void *ud, int code)
{
    assert_int_equal(code, 0);
    *(bool *)ud = true;
}

static void a_process_needs_its_memory_to_start_only(void **state)
{
    (void)state;
    struct test_client client;
    enum ph_status status = PH_ERR_NOMEM;
    bool ended = false;
    assert_int_equal(net_loop_create(&client.loop, NULL), PH_OK);
    for (int nth = 0; status != PH_OK; nth++) {
        struct net_process *process = NULL;
        struct net_process_params params = {.command = "true", .ended = on_process_ended, .ud = &ended};
        counts.fail_after = nth;
        status = net_process_start(&process, client.loop, &params, NULL);
        if (status == PH_OK)
            assert_true(test_client_turn(&client, &ended));
        counts.fail_after = -1;
        net_process_free(process);
        assert_true(nth < 20);
    }
    net_loop_free(client.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thousands_of_connections_cost_little_and_leave_nothing),
        cmocka_unit_test(survives_any_failed_allocation),
        cmocka_unit_test(a_client_survives_any_failed_allocation),
        cmocka_unit_test(calls_leave_nothing_behind),
        cmocka_unit_test(tls_survives_any_failed_allocation),
        cmocka_unit_test(a_process_needs_its_memory_to_start_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
