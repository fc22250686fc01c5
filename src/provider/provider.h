/* provider: who can answer a chat request: a model in this process, a model of an account elsewhere, a model
 * of an engine that is started when it is needed. All have the same face.
 *
 * A provider consumes a chat_request and emits chat_events on the loop of the connection that asked. Events
 * of one call come in order: ROLE before TEXT of a choice, FINISH for each choice, USAGE, then DONE; or ERROR
 * at any time. Nothing follows DONE or ERROR. Text in an event is valid during the callback only. Thread:
 * start, resume and cancel on the loop's thread; callbacks there too. */
#ifndef PHAROS_PROVIDER_PROVIDER_H
#define PHAROS_PROVIDER_PROVIDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "chat/chat.h"
#include "engine/embedder.h"
#include "engine/engine.h"
#include "net/net.h"

struct provider;
struct provider_call;

struct provider_sink {
    /* Answers false when it can take no more for now; then nothing comes until provider_resume, but for what
     * a remote provider had already read. DONE and ERROR are always taken. Never called inside
     * provider_start. After DONE, ERROR or provider_cancel the call is gone. */
    bool (*event)(void *ud, const struct chat_event *event);
    void *ud;
};

/* A model in this process. It answers "still loading" until an engine is attached, so that a station can
 * listen at once. `clock` serves templates that ask for the date. */
PH_MUST_USE enum ph_status provider_local_create(struct provider **out, const char *model_id,
                                                 const struct clock_source *clock, struct ph_err *err);
/* Takes the engine, also when it fails. A chat template that cannot be used is no failure: it is logged, and
 * chat requests are refused with the reason. Loop's thread. */
PH_MUST_USE enum ph_status provider_local_attach(struct provider *provider, struct engine *engine,
                                                 struct ph_err *err);
/* An embedding model in this process: it answers provider_embed and nothing else. */
PH_MUST_USE enum ph_status provider_embedder_create(struct provider **out, const char *model_id,
                                                    struct ph_err *err);
/* Takes the embedder. Loop's thread. */
void provider_embedder_attach(struct provider *provider, struct embedder *embedder);
/* The model will not come: requests are refused with this reason (copied). Loop's thread. */
void provider_local_fail(struct provider *provider, const char *reason);
void provider_free(struct provider *provider); /* NULL is fine; no call may be running */

/* ---- Accounts elsewhere, and the models they offer ---- */

struct provider_account; /* an address, a dialect, keys and their state, a circuit breaker */

struct provider_account_params {
    const char *name;     /* of the configuration */
    const char *base_url; /* without a slash at its end */
    const struct chat_codec *codec;
    const char *const *keys;           /* secrets, copied; never logged */
    size_t key_count;                  /* 0: none needed */
    const struct http_header *headers; /* sent with every request, copied */
    size_t header_count;
    /* 0: defaults; a head's default is longer for a whole reply, which begins when it is complete. */
    uint32_t connect_timeout_ms, head_timeout_ms, silence_timeout_ms;
    size_t reply_bytes_max;
    bool max_completion, no_stream_usage; /* see chat_target */
    bool is_drill;                        /* its troubles are no news for the log */
    struct http_client *client;           /* outlives it */
    const struct clock_source *clock;
};
PH_MUST_USE enum ph_status provider_account_create(struct provider_account **out,
                                                   const struct provider_account_params *params,
                                                   struct ph_err *err);
void provider_account_free(struct provider_account *account); /* after its models; NULL is fine */
const char *provider_account_name(const struct provider_account *account);
/* Puts "[key]" where one of its keys, or the value of one of its headers, stands in a text. */
void provider_account_scrub(const struct provider_account *account, char *text);

/* A model of an account. One provider_start is one attempt with the best key there is: whether to try again,
 * and where, is the caller's decision, for which ERROR carries a cause and provider_state says what is
 * usable. */
PH_MUST_USE enum ph_status provider_remote_create(struct provider **out, const char *model_id,
                                                  struct provider_account *account, const char *upstream,
                                                  size_t context_len, struct ph_err *err);

/* ---- Engines that are started when they are needed ---- */

/* The memory that engines share. Before one starts, what it needs is compared with what is there; idle ones
 * are stopped for it, least recently used first, and it waits for busy ones. Loop's thread. */
struct provider_room;

struct provider_room_params {
    uint64_t limit_bytes; /* for all engines together; 0: as much as there is */
    /* What there is while so many bytes of mapped files stay in memory; NULL: as the system says. */
    uint64_t (*available)(void *ud, uint64_t mapped);
    void *ud;
};
PH_MUST_USE enum ph_status provider_room_create(struct provider_room **out,
                                                const struct provider_room_params *params,
                                                struct ph_err *err);
void provider_room_free(struct provider_room *room); /* after its engines; NULL is fine */
/* A model is about to be loaded into this process: engines are stopped for it, and the bytes count as taken
 * until unclaim, when the system counts them itself. With a limit of their own engines do not care. */
void provider_room_claim(struct provider_room *room, uint64_t bytes);
void provider_room_unclaim(struct provider_room *room, uint64_t bytes);

struct provider_supervised_params {
    const char *model_id, *upstream; /* upstream NULL: the model's id */
    const char *command;             /* "{port}" is replaced by a free one */
    const struct chat_codec *codec;
    const char *base_path;   /* of its API; NULL: "/v1" */
    const char *health_path; /* NULL: "/health", then "/v1/models" */
    const char *log_dir;     /* DIR/<model>.log is kept, the previous one too */
    size_t context_len;
    uint32_t ttl_s;           /* idle time after which it is stopped; 0: never */
    uint32_t start_timeout_s; /* 0: default */
    uint64_t memory_bytes;    /* that it needs; 0: as measured when it last ran, else its model files' size */
    struct provider_room *room; /* outlives it; NULL: nobody asks for memory */
    struct net_loop *loop;
    struct http_client *client;
    const struct clock_source *clock;
};
PH_MUST_USE enum ph_status provider_supervised_create(struct provider **out,
                                                      const struct provider_supervised_params *params,
                                                      struct ph_err *err);
/* Stops the engine when nobody is using it (memory is needed); false: it is in use or not running. */
bool provider_supervised_release(struct provider *provider);

enum provider_engine_end {
    ENGINE_END_IDLE,    /* nobody asked it for ttl_s */
    ENGINE_END_MEMORY,  /* somebody else needed its memory */
    ENGINE_END_STATION, /* the station stopped */
    ENGINE_END_FAILED,  /* it did not start */
    ENGINE_END_DIED,    /* while it ran */
    ENGINE_END_SILENT,  /* it answered no more */
    ENGINE_END_HALT,    /* provider_halt: the machine needs rest */
    ENGINE_END_COUNT
};
const char *provider_engine_end_name(enum provider_engine_end end);

struct provider_engine_stats {
    uint64_t running;          /* 1: ready to work */
    uint64_t starts, restarts; /* restarts: of them, after a death */
    uint64_t ends[ENGINE_END_COUNT];
    uint64_t waiting;             /* requests that wait for it */
    uint64_t waits_for_memory;    /* 1: it would start if others left */
    uint64_t memory, memory_need; /* bytes: now, as last measured; what it counts for. 0: unknown */
};
bool provider_engine_stats(const struct provider *provider,
                           struct provider_engine_stats *out); /* false: no engine */
/* Ends the engine and everything it started; `stopped` comes once, on the loop. Before provider_free. Other
 * kinds answer at once, in a turn of the loop. */
void provider_stop(struct provider *provider, struct net_loop *loop, void (*stopped)(void *ud), void *ud);

/* ---- All of them ---- */

const char *provider_model_id(const struct provider *provider);
const char *provider_kind(const struct provider *provider);      /* "local", "remote", "supervised" */
const char *provider_name(const struct provider *provider);      /* the account's; "local", "supervised" */
struct engine *provider_engine(const struct provider *provider); /* NULL: not local, or not attached */
/* The model, for its vocabulary; NULL: not in this process, or not attached. */
const struct model *provider_model(const struct provider *provider);
bool provider_is_embedder(const struct provider *provider); /* made by provider_embedder_create */
/* What computes its vectors, for others in this process too; lives as long as the provider. NULL: no
 * embedding model of this process, or not attached. */
struct embedder *provider_embedder(const struct provider *provider);
bool provider_ready(const struct provider *provider);
const char *provider_problem(const struct provider *provider); /* why it will never be ready; NULL: none */
/* Longest prompt and reply together, in tokens; 0 while unknown. */
size_t provider_context_len(const struct provider *provider);

/* Ends what is running here: calls in this process end with the fault, an engine is stopped and its waiting
 * calls end so (those that it works on are cut). Whoever asks next starts it again, so ask for it only when
 * nobody is let through. Models elsewhere: nothing. Not inside a sink's callback. */
void provider_halt(struct provider *provider, const struct chat_fault *fault);

/* Begins to answer; `request` must live until the call is gone. A fault means nothing was begun. */
PH_MUST_USE enum ph_status provider_start(struct provider *provider, struct net_loop *loop,
                                          const struct chat_request *request,
                                          const struct provider_sink *sink, struct provider_call **out,
                                          struct chat_fault *fault);
void provider_resume(struct provider_call *call);
void provider_cancel(struct provider_call *call); /* no callback any more */

/* Can it be asked now? */
struct provider_state {
    bool usable;
    enum chat_cause why;   /* not usable: KEY, RATE, OVERLOADED (the breaker is open), OURS (failed) */
    uint64_t usable_at_ns; /* not usable: when that may change; 0: unknown */
    size_t running;        /* calls now */
    size_t waiting;        /* of them, not being worked on yet, as far as it is known */
    bool starting;         /* they wait for an engine that is not there yet */
    size_t sequences_max;  /* that it works on together; 0: unknown */
    double prefill_tokens_s, decode_tokens_s; /* measured; 0: not yet. Decode: of one sequence */
    size_t kv_tokens_free;                    /* 0: unknown */
};
void provider_state(const struct provider *provider, struct provider_state *out);

/* Tokens that this request's prompt has: exact where the tokenizer is at hand, else an estimate from bytes
 * that leans upwards and learns from what replies reported. `exact` may be NULL. */
size_t provider_count_tokens(struct provider *provider, const struct chat_request *request, bool *exact);
/* Of them, those that a running engine would not have to compute again; 0: unknown. Makes the prompt, when
 * that is short enough to be made on the loop. */
size_t provider_cached_tokens(struct provider *provider, const struct chat_request *request);
bool provider_knows_cached(const struct provider *provider); /* false: it is always 0 */

/* What happened to a call, for records; valid until the call's last event has returned. */
struct provider_call_note {
    const char *key_hint;      /* which key: its place, "1" ...; NULL: none. Never the key */
    int http_status;           /* of the provider's reply; 0: none came */
    const char *upstream_id;   /* the provider's id of the reply; NULL: not said */
    uint64_t sent_ns, head_ns; /* clock; 0: not yet */
};
void provider_call_note(const struct provider_call *call, struct provider_call_note *out);

/* Like provider_cancel, but what was already generated is still counted: events go on for at most drain_ms
 * and end with USAGE (estimated from what came when the provider did not say) and DONE, or with ERROR. */
void provider_hang_up(struct provider_call *call, uint32_t drain_ms);

/* Embeddings: `done` comes once, on the loop, never inside the call; embeddings NULL: the fault says why. */
struct provider_embed_sink {
    void (*done)(void *ud, const struct chat_embeddings *embeddings, const struct chat_fault *fault);
    void *ud;
};
PH_MUST_USE enum ph_status provider_embed(struct provider *provider, struct net_loop *loop,
                                          const struct chat_embed_request *request,
                                          const struct provider_embed_sink *sink, struct provider_call **out,
                                          struct chat_fault *fault);

/* The exact prompt of a chat request for this provider's model (what /apply-template shows). */
PH_MUST_USE enum ph_status provider_prompt(struct provider *provider, const struct chat_request *request,
                                           struct buf *out, struct chat_fault *fault);

#endif
