/* gateway: the HTTP endpoints, and behind them the decision who answers.
 *
 * Owns the catalogue of models and routes, the dialects' edges, admission, attempts and fallback, records and
 * metrics. One gateway serves one loop. Ledger and keys have headers of their own. Thread: the loop's. */
#ifndef PHAROS_GATEWAY_GATEWAY_H
#define PHAROS_GATEWAY_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"
#include "gateway/keys.h"
#include "gateway/ledger.h"
#include "net/net.h"
#include "provider/provider.h"

struct gateway;
struct memory;

/* ---- The catalogue: what there is */

enum gateway_ability { /* bits */
                       GATEWAY_TOOLS = 1,
                       GATEWAY_IMAGES = 2,
                       GATEWAY_LOGPROBS = 4,
                       GATEWAY_PREFIX = 8,      /* goes on from the beginning of an answer */
                       GATEWAY_JSON = 16,       /* response_format */
                       GATEWAY_CHOICES = 32,    /* n > 1 */
                       GATEWAY_COMPLETION = 64, /* bare prompts */
                       GATEWAY_EMBEDDINGS = 128,
                       GATEWAY_VECTORS_ONLY = 256 /* no ability but a lack: it writes no text */
};

struct gateway_model {
    struct provider *provider; /* not owned; its id is the model's */
    enum ledger_tier tier;
    struct ledger_price price;
    unsigned abilities;
    size_t max_output;         /* tokens; 0: not known */
    size_t concurrency;        /* requests at the same time; 0: GATE_RUNNING_DEFAULT */
    size_t queue_max;          /* that wait for their turn; 0: GATE_WAITING_MAX */
    const struct json *traits; /* family, architecture, parameters, training; NULL: none */
};

/* What an account allows; shared by its models, found by provider_name. */
struct gateway_account {
    const char *name;
    int64_t rpm, tpm;                       /* 0: no limit known */
    int64_t budget_pico_month;              /* negative: none */
    const struct provider_account *account; /* not owned; NULL: no secrets of its are known */
};

enum gateway_policy {
    GATEWAY_FALLBACK, /* in the order given */
    GATEWAY_WEIGHTED, /* one by its share, the same one for a conversation; the others as fallback */
    GATEWAY_FASTEST,  /* predicted finish time */
    GATEWAY_CHEAPEST, /* predicted price, then finish time */
    GATEWAY_TIERS,    /* stage by stage, the fastest of each first */
    GATEWAY_CASCADE,  /* stage by stage; a cheap answer that is not trusted is thrown away */
    GATEWAY_TASK,     /* the request's task names the tier */
    GATEWAY_POLICY_COUNT
};
const char *gateway_policy_name(enum gateway_policy policy);

struct gateway_member {
    size_t model;   /* index */
    unsigned stage; /* members of one stage are equal */
    double weight;
};

#define GATEWAY_ESCALATE_BELOW_DEFAULT 0.6
struct gateway_route {
    const char *name; /* what requests ask for */
    enum gateway_policy policy;
    const struct gateway_member *members;
    size_t member_count;
    double escalate_below;  /* CASCADE: confidence, 0 to 1 */
    unsigned agree;         /* CASCADE: cheap models asked at the same time and compared; 0, 1: one */
    uint32_t hedge_ms;      /* a second model is asked when nothing came for so long; 0: never */
    const size_t *too_long; /* models for prompts that were too long; tried before the rest */
    size_t too_long_count;
    const size_t *refused; /* models for content that another one refused */
    size_t refused_count;
};

/* Answers kept for requests that come again (cache.h). */
struct gateway_cache {
    size_t bytes_max; /* 0: none are kept */
    uint32_t ttl_s;
    bool shared; /* between accounts */
    struct gateway_redis {
        const char *host;            /* NULL: there is none; copied, as the others */
        const char *user, *password; /* NULL: none */
        uint16_t port;
        unsigned database;
        uint32_t wait_ms; /* for an answer of it; 0: CACHE_REDIS_WAIT_MS */
    } redis;              /* behind that in memory, shared with other stations */
};

struct gateway_params {
    const char *host;
    uint16_t port; /* 0: any free one */
    struct http_limits limits;
    const char *tls_certificate, *tls_key; /* NULL: plain */
    const struct gateway_model *models;    /* the first that writes text is the default; copied */
    size_t model_count;
    const struct gateway_route *routes; /* not owned: outlive the gateway; may take a model's name */
    size_t route_count;
    const struct gateway_account *accounts; /* likewise */
    size_t account_count;
    struct gateway_cache cache;
    struct ledger *ledger;   /* not owned */
    struct keys *keys;       /* not owned; NULL: nobody needs one */
    const char *data;        /* where verdicts and calibration are; outlives the gateway; NULL: nowhere */
    struct memory *memory;   /* not owned; NULL: nothing is remembered */
    bool drills;             /* POST /v1/drills opens one (gateway_drill.c) */
    int request_log_fd;      /* JSON lines, one a request; -1: none */
    bool request_log_bodies; /* with what was asked and said */
    void (*metrics)(void *ud, struct buf *out); /* appends to /metrics; NULL: nothing */
    void *metrics_ud;
    const struct clock_source *clock;
    uint64_t seed; /* for ids */
    const char *version;
};

/* Can only this machine reach a station that listens on `host`? */
bool origin_is_loopback_address(const char *host);

PH_MUST_USE enum ph_status gateway_open(struct gateway **out, struct net_loop *loop,
                                        const struct gateway_params *params, struct ph_err *err);
uint16_t gateway_port(const struct gateway *gateway);
/* /ready turns 503, the server stops gracefully; then `stopped` runs once on the loop. */
void gateway_stop(struct gateway *gateway, void (*stopped)(void *ud), void *ud);
void gateway_free(struct gateway *gateway); /* after stopped */

/* What a model should do, tokens a second, until it has been seen to do something: for routes, and for
 * /metrics beside what was measured. Loop's thread. */
void gateway_predict(struct gateway *gateway, size_t model, double prefill_tokens_s, double decode_tokens_s);

/* ---- Braking: a model that must work less for now */

struct gateway_brake {
    double share;     /* of the requests that it may run at a time, or of those that run now where those are
                         fewer; at least one. 1: all of them */
    const char *held; /* why it gets no new request; lives until the next brake. NULL: it gets them */
    uint32_t retry_after_s; /* held: when to ask again */
};
/* Requests that run go on. When it is held, those that wait for their turn and those that come are answered
 * by other models of their route, else refused with 503 and the reason. `model`: an index. Loop's thread. */
void gateway_set_brake(struct gateway *gateway, size_t model, const struct gateway_brake *brake);

#endif
