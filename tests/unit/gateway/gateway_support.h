/* A gateway on a thread of its own over providers that follow a script, and sockets to ask it by. */
#ifndef PHAROS_TESTS_GATEWAY_SUPPORT_H
#define PHAROS_TESTS_GATEWAY_SUPPORT_H

#include <stdatomic.h>

#include "gateway/gateway.h"
#include "gateway/keys_support.h"
#include "net/net_support.h"

/* A letter an event:
 *   r role        a, b, c "a", "b", "c "      y, n "sure", "unsure", with log-probabilities to match
 *   T a call      F a flood of 'x'            s l f t finish: stop, length, content filter, tool calls
 *   u usage       . done                      ! the connection was cut
 *   M 429         E 401                       L too long        X 400: nobody can do it
 *   w nothing, until it is told to stop */
struct script {
    const char *id, *steps;
    unsigned abilities;
};
#define SCRIPT_FLOOD_BYTES ((size_t)512 << 10)
#define SCRIPTS_MAX 16

/* What providers were asked, since the last gateway_fixture_open. */
struct script_counts {
    atomic_size_t started, cancelled, paused;
};
extern struct script_counts script_counts;

#define FIXTURE_KEYS_MAX 3

struct gateway_fixture_params {
    const struct script *scripts;
    size_t script_count;
    const struct gateway_route *routes;
    size_t route_count;
    struct gateway_cache cache;
    struct ledger_price price;        /* of every model */
    const struct clock_source *clock; /* NULL: the system's */
    uint32_t write_stall_ms;          /* 0: default */
    uint32_t stop_grace_ms;           /* 0: 200 */
    size_t key_count;                 /* 0: nobody needs one */
    int64_t key_concurrency;          /* 0: no limit */
    const char *last_key_scope;       /* NULL: everything, as the others */
};

struct gateway_fixture {
    struct net_loop *loop;
    struct gateway *gateway;
    struct provider *providers[SCRIPTS_MAX];
    size_t provider_count;
    struct ledger *ledger;
    struct keys *keys;
    struct test_dir dir, ledger_dir;
    char key_texts[FIXTURE_KEYS_MAX][KEY_TEXT_MAX];
    struct net_wake *stop;
    uv_thread_t thread;
    uint16_t port;
};

void gateway_fixture_open(struct gateway_fixture *f, const struct gateway_fixture_params *params);
void gateway_fixture_close(struct gateway_fixture *f); /* stops it */

/* ---- Asking */

struct question {
    const char *model, *path, *more, *headers; /* path NULL: OpenAI's; more: ",\"member\":value" */
    bool stream;
};

int gateway_ask(const struct gateway_fixture *f, const struct question *q); /* the socket */
/* The whole reply into out; how it ended, as test_read says it. */
int gateway_read(const struct gateway_fixture *f, const struct question *q, char *out, size_t size);
/* With the first key, where there are some. */
void gateway_get(const struct gateway_fixture *f, const char *path, char *out, size_t size);
/* Fails the test unless the text is there, or is not. */
void expect_text(const char *reply, const char *text, bool there);

#endif
