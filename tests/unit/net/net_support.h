/* A server in a thread of its own and plain sockets to talk to it, for the tests of net. Nothing here sleeps:
 * everything waits on a condition with a deadline, and fails the test when it passes. */
#ifndef PHAROS_TESTS_NET_SUPPORT_H
#define PHAROS_TESTS_NET_SUPPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "net/net.h"

#define TEST_DEADLINE_MS 20000

/* The routes of the test server:
 *   /hello   "hello"                    /echo    the body, with x-method, x-path, x-query
 *   /length  the body's length          /stream  "one", "two", "three", chunked
 *   /later   "late", from a timer       /hold    nothing until test_server_release; counts gone ones
 *   /flood   FLOOD_BYTES under back-pressure     /abort   "partial", then an abort
 *   /held-stream  a stream that writes "begun" and is then held as /hold is
 *   /rude    writes without heeding back-pressure, until the server cuts it off
 *   /big-abort  BIG_ABORT_BYTES in one chunk, then an abort      /big  BIG_BYTES at once
 *   /soon    as /hold, released by a wake-up of its own */
#define BIG_BYTES ((size_t)1000000)
#define BIG_ABORT_BYTES ((size_t)1500000)
#define FLOOD_BYTES ((size_t)24 << 20)

struct test_server {
    struct net_loop *loop;
    struct http_server *http;
    struct net_wake *wake, *soon;
    uv_thread_t thread;
    uv_sem_t commanded;
    void (*command)(struct test_server *server);
    uint16_t port;
    struct held *held;
    atomic_bool client_has_it; /* /two-steps waits for it */
    atomic_size_t held_count, gone_count, drain_count, stall_count, handled_count;
    atomic_bool has_stopped;
    struct http_stats stats;
};

void test_server_start(struct test_server *server, const struct http_limits *limits); /* NULL: the defaults */
void test_server_start_tls(struct test_server *server, const struct http_limits *limits,
                           const char *certificate, const char *key);
void test_server_stop(struct test_server *server);       /* gracefully, and waits for the thread */
void test_server_begin_stop(struct test_server *server); /* only asks; test_server_join waits */
void test_server_join(struct test_server *server);
void test_server_release(struct test_server *server); /* answers everything that is held */
struct http_stats test_server_stats(struct test_server *server);

/* Waits until *counter is at least `value`. */
bool test_wait_count(atomic_size_t *counter, size_t value);

int test_connect(uint16_t port);
bool test_send(int fd, const void *bytes, size_t len);
bool test_send_text(int fd, const char *text);
/* Reads into out until `until` appears (NULL: until the end), at most size-1 bytes, and terminates. Returns
 * the bytes read; *end, when not NULL: 0 still open, 1 closed in order, 2 reset. */
size_t test_read(int fd, char *out, size_t size, const char *until, int *end);
uint64_t test_now_ms(void);
void test_pause(void); /* a millisecond, between two looks at a condition */

#endif
