/* gateway: what its files share. */
#ifndef PHAROS_GATEWAY_GATEWAY_INT_H
#define PHAROS_GATEWAY_GATEWAY_INT_H

#include "gateway/gateway.h"

#define JSON_TYPE "application/json"
#define ROUTE_HEADER "x-pharos-route"

/* ---- Metrics (gateway_metrics.c) */

enum operation { OPERATION_CHAT, OPERATION_COMPLETION, OPERATION_COUNT };

enum outcome { /* how an answer ended; all but OK are error types */
               OUTCOME_OK,
               OUTCOME_INVALID,      /* 4xx but 429 */
               OUTCOME_RATE_LIMITED, /* 429 */
               OUTCOME_SERVER,       /* 5xx */
               OUTCOME_CLIENT_GONE,
               OUTCOME_COUNT
};

struct metrics;

/* What one answer was like; times are 0 when unknown. */
struct answer {
    size_t provider; /* index */
    enum operation operation;
    enum outcome outcome;
    bool stream_broken; /* it ended before its end was said */
    uint64_t duration_ns, first_token_ns, overhead_ns;
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
};

/* One choice's share of it. */
struct answer_choice {
    uint64_t queue_ns, prefill_ns, decode_ns, tokens;
};

struct metrics *metrics_create(size_t provider_count); /* NULL: out of memory */
void metrics_free(struct metrics *metrics);
void metrics_answer(struct metrics *metrics, const struct answer *answer);
void metrics_choice(struct metrics *metrics, size_t provider, const struct answer_choice *choice);
void metrics_status(struct metrics *metrics, int http_status);
/* Prometheus text format 0.0.4. */
void metrics_write(const struct metrics *metrics, const struct gateway *gateway, struct buf *out);

/* ---- The gateway (gateway.c) */

struct gateway {
    struct net_loop *loop;
    struct http_server *server; /* NULL once it has stopped */
    struct net_timer *timer;    /* keep-alive comments in silent streams */
    const struct clock_source *clock;
    struct rng rng;
    struct provider **providers; /* owned array of others' providers */
    size_t provider_count;
    struct metrics *metrics;
    struct chat_exchange *chats; /* running */
    const char *version;
    int64_t started_unix_s;
    bool local_only; /* listening on loopback: only this machine's pages may call */
    bool stopping;
    void (*stopped)(void *ud);
    void *stopped_ud;
};

/* Replies, counted. Each ends the exchange. */
void gateway_reply(struct gateway *gateway, struct http_exchange *exchange, int status, const char *type,
                   const struct buf *body);
void gateway_reply_fault(struct gateway *gateway, struct http_exchange *exchange,
                         const struct chat_fault *fault);

/* The request's body as JSON. false: the fault says why. */
bool gateway_body(struct http_exchange *exchange, struct json **out, struct chat_fault *fault);
/* The provider of a model by id; NULL, "" and "default" are the first. false: model_not_found. */
bool gateway_find(const struct gateway *gateway, const char *model, size_t *index, struct chat_fault *fault);
/* x-pharos-route: why this answer comes from where it does. */
void gateway_set_route(struct http_exchange *exchange, const struct provider *provider);

/* ---- Who may call (gateway_origin.c) */

bool origin_is_loopback_address(const char *host);
/* A Host header that a page from elsewhere cannot have made up: an address, localhost, or a name that public
 * DNS does not give out. */
bool origin_host_is_safe(const char *host);
/* May a page with this Origin call us, when we are reached as `host`? */
bool origin_is_allowed(const char *origin, const char *host);

/* ---- Handlers */

void handle_chat_completions(struct gateway *gateway, struct http_exchange *exchange, const char *rest);
void handle_completions(struct gateway *gateway, struct http_exchange *exchange, const char *rest);
void gateway_chats_tick(struct gateway *gateway);

void handle_models(struct gateway *gateway, struct http_exchange *exchange, const char *rest);
void handle_model(struct gateway *gateway, struct http_exchange *exchange, const char *rest);
void handle_tokenize(struct gateway *gateway, struct http_exchange *exchange, const char *rest);
void handle_detokenize(struct gateway *gateway, struct http_exchange *exchange, const char *rest);
void handle_apply_template(struct gateway *gateway, struct http_exchange *exchange, const char *rest);
void handle_health(struct gateway *gateway, struct http_exchange *exchange, const char *rest);
void handle_ready(struct gateway *gateway, struct http_exchange *exchange, const char *rest);
void handle_metrics(struct gateway *gateway, struct http_exchange *exchange, const char *rest);

#endif
