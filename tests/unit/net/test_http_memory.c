/* The server's memory. This program defines base/mem.h's functions itself: they count the bytes in use and can be
 * told to fail. */
#include "test_support.h"

#include <malloc.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "net_support.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thousands_of_connections_cost_little_and_leave_nothing),
        cmocka_unit_test(survives_any_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
