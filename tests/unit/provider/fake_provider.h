/* A provider elsewhere, played by net's own server on the same loop, and a caller that asks it. */
#ifndef PHAROS_TESTS_FAKE_PROVIDER_H
#define PHAROS_TESTS_FAKE_PROVIDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "provider/provider.h"

#define FAKE_HELD_MAX 8
#define ASK_EVENTS_MAX 512

/* What the last path but "chat/completions" says is what it plays: see fake_provider.c. */
struct fake_provider {
    struct net_loop *loop;
    struct http_server *server;
    struct http_client *client;
    struct net_timer *deadline;
    struct http_exchange *held[FAKE_HELD_MAX];
    bool held_silent[FAKE_HELD_MAX]; /* no head was sent */
    size_t held_count, gone_count, request_count;
    char authorization[128], request_id[64], path[128], body[512];
    size_t flooded;
    char url[64];
};

void fake_open(struct fake_provider *fake);
void fake_close(struct fake_provider *fake); /* runs the loop until everything is gone */
void fake_run_until(struct fake_provider *fake, const bool *flag); /* fails the test when it takes too long */

/* So long, in ms, for what must not happen meanwhile. */
struct fake_wait {
    struct net_timer *timer;
    bool over;
};
void fake_wait_begin(struct fake_wait *wait, struct fake_provider *fake, uint64_t ms);

/* One request and what came of it. */
struct ask {
    struct fake_provider *fake;
    struct arena arena;
    struct chat_request request;
    struct chat_embed_request embed;
    struct provider_call *call;
    bool over;
    enum chat_event_kind kinds[ASK_EVENTS_MAX];
    size_t count, texts, tokens, bytes;
    struct buf text;
    bool is_done, usage_estimated;
    uint64_t prompt_tokens, completion_tokens;
    struct chat_fault fault;
    char fault_code[64], key_hint[8], upstream_id[64];
    int upstream_status;
    size_t embed_count, embed_width;
    float embed_first;
    /* What to do at the n-th text (1 ...; 0: never): */
    size_t cancel_at, hang_up_at, pause_at, stop_at; /* pause_at: at each n-th; stop_at: for good */
    uint32_t drain_ms;
    bool paused;
    void (*at_end)(struct ask *ask); /* inside the last event */
    struct net_timer *timer;
};

void ask_init(struct ask *ask, struct fake_provider *fake, bool stream);
void ask_start(struct ask *ask, struct provider *provider);
void ask_embed(struct ask *ask, struct provider *provider);
void ask_run(struct ask *ask, struct provider *provider); /* start, and run until it is over */
void ask_release(struct ask *ask);

#endif
