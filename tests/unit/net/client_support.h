/* For the tests of the HTTP client: a loop to be turned by hand, a record of what a sink was told, and a peer
 * that sends exactly the bytes it was given and then closes, resets, falls silent or never ends. */
#ifndef PHAROS_TESTS_CLIENT_SUPPORT_H
#define PHAROS_TESTS_CLIENT_SUPPORT_H

#include "net/net_int.h"
#include "net_support.h"

struct test_client {
    struct net_loop *loop;
    struct http_client *http;
};

void test_client_open(struct test_client *client,
                      const struct http_client_params *params); /* NULL: defaults */
void test_client_close(struct test_client *client);
/* Turns the loop until *done; false: TEST_DEADLINE_MS passed. */
bool test_client_turn(struct test_client *client, const bool *done);
void test_client_turn_for(struct test_client *client, uint64_t ms);

/* What a sink was told, in order: H a head, B a piece of body, E the end. */
struct test_reply {
    char events[4096];
    int status;
    char head[4096]; /* "name=value\n" each */
    char *body;
    size_t body_len;
    enum http_call_end how;
    char message[300];
    bool ended;
    bool pauses;          /* the sink answers false ... */
    size_t pauses_beyond; /* ... once there is more than this */
    struct http_call *call;
    struct test_client *client;
    void (*on_event)(struct test_reply *reply, char event); /* after it was noted */
    void *ud;
};

void test_reply_init(struct test_reply *reply, struct test_client *client);
void test_reply_release(struct test_reply *reply);
/* Starts a call to 127.0.0.1; params may be NULL, its url is replaced by port and path. */
enum ph_status test_call_start(struct test_reply *reply, uint16_t port, const char *path,
                               const struct http_call_params *params);
/* ... and turns the loop until it has ended. */
void test_call(struct test_reply *reply, uint16_t port, const char *path,
               const struct http_call_params *params);

enum test_then {
    THEN_CLOSE,
    THEN_RESET,
    THEN_STALL,   /* until the client closes */
    THEN_ENDLESS, /* goes on sending 'x' until the client closes */
    THEN_KEEP     /* reads the next request on this connection */
};

struct test_script {
    const char *bytes; /* sent when a request's head has come */
    enum test_then then;
};

/* Serves its scripts in order, the last one again and again. */
struct test_peer {
    const struct test_script *scripts;
    size_t script_count, next;
    int listener;
    uint16_t port;
    uv_thread_t thread;
    atomic_size_t connections, requests, half_closed;
    char request[8192]; /* the last one's head, and what came with it */
};

void test_peer_start(struct test_peer *peer, const struct test_script *scripts, size_t script_count);
void test_peer_stop(struct test_peer *peer);

#endif
