/* gateway: what its files share. */
#ifndef PHAROS_GATEWAY_GATEWAY_INT_H
#define PHAROS_GATEWAY_GATEWAY_INT_H

#include "base/limits.h"
#include "gateway/cache.h"
#include "gateway/gate.h"
#include "gateway/gateway.h"
#include "gateway/rates.h"
#include "memory/memory.h"

#define JSON_TYPE "application/json"
#define ROUTE_HEADER "x-pharos-route"
#define CACHE_HEADER "x-pharos-cache"

/* ---- Metrics (gateway_metrics.c) */

enum operation { OPERATION_CHAT, OPERATION_COMPLETION, OPERATION_EMBEDDINGS, OPERATION_COUNT };

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
struct answer_sample {
    size_t model; /* index: who answered, or was asked last */
    enum operation operation;
    enum outcome outcome;
    bool stream_broken; /* it ended before its end was said */
    uint64_t duration_ns, first_token_ns, overhead_ns;
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
};

/* One choice's share of it. */
struct choice_sample {
    uint64_t queue_ns, prefill_ns, decode_ns, tokens;
};

struct metrics *metrics_create(size_t model_count); /* NULL: out of memory */
void metrics_free(struct metrics *metrics);
void metrics_answer(struct metrics *metrics, const struct answer_sample *sample);
void metrics_choice(struct metrics *metrics, size_t model, const struct choice_sample *choice);
void metrics_status(struct metrics *metrics, int http_status);
void metrics_fallback(struct metrics *metrics,
                      enum chat_cause cause); /* an attempt failed and another came */
void metrics_escalation(struct metrics *metrics);
void metrics_continuation(struct metrics *metrics);
void metrics_cache_wait(struct metrics *metrics, uint64_t ns); /* for the shared cache */
/* Prometheus text format 0.0.4. */
void metrics_write(const struct metrics *metrics, const struct gateway *gateway, struct buf *out);

/* ---- The gateway (gateway.c) */

struct model_speed { /* exponential averages of what was seen; 0: nothing yet */
    double first_token_s, token_s;
    double predicted_prefill_tokens_s, predicted_decode_tokens_s; /* from outside; 0: not known */
};

struct gateway {
    struct net_loop *loop;
    struct http_server *server; /* NULL once it has stopped */
    struct net_timer *timer;    /* the tick */
    const struct clock_source *clock;
    struct rng rng;
    struct gateway_model *models; /* owned array of others' providers */
    struct model_speed *speeds;   /* one a model */
    struct gate **gates;          /* one a model: who is next */
    struct gateway_brake *brakes; /* one a model */
    size_t model_count;
    const struct gateway_route *routes;
    size_t route_count;
    const struct gateway_account *accounts;
    size_t account_count;
    struct ledger *ledger;
    struct keys *keys;
    struct rates *rates;
    struct cache *cache;        /* NULL: answers are not kept */
    struct redis_client *redis; /* behind it; NULL: none */
    uint32_t redis_wait_ms;
    struct ledger_price premium; /* of the first premium model: what the others' traffic is compared with */
    struct metrics *metrics;
    struct route_book *book;
    struct verdicts *verdicts;   /* NULL: none are kept */
    struct chat_exchange *chats; /* running */
    size_t open_chats; /* those, and those that nobody waits for and that are counted to their end */
    bool drills;
    const char *data;
    struct drill *drill;   /* NULL: none is on */
    struct memory *memory; /* NULL: nothing is remembered */
    struct mail *mail;     /* what the store's writer has to say; with memory */
    int request_log_fd;
    bool request_log_bodies;
    const char *version;
    void (*more_metrics)(void *ud, struct buf *out); /* NULL: none */
    void *more_metrics_ud;
    int64_t started_unix_s;
    uint64_t ticks;
    bool local_only; /* listening on loopback: only this machine's pages may call */
    bool stopping;
    void (*stopped)(void *ud);
    void *stopped_ud;
};

/* One that answers nobody by itself: no server, no timer, no verdicts. Its owner calls its ticks;
 * gateway_free takes it back when open_chats is 0. */
PH_MUST_USE enum ph_status gateway_new(struct gateway **out, struct net_loop *loop,
                                       const struct gateway_params *params, struct ph_err *err);

/* Replies, counted. Each ends the exchange. */
void gateway_reply(struct gateway *gateway, struct http_exchange *exchange, int status, const char *type,
                   const struct buf *body);
/* In the dialect of the path it came by. */
void gateway_reply_fault(struct gateway *gateway, struct http_exchange *exchange,
                         const struct chat_fault *fault);
const struct chat_edge *gateway_edge(const struct http_request *request);

/* The request's body as JSON. false: the fault says why. */
bool gateway_body(struct http_exchange *exchange, struct json **out, struct chat_fault *fault);
/* Who answers a request that names no model: the first that writes text; for embeddings the first that does
 * nothing else, if there is one. */
size_t gateway_default(const struct gateway *gateway, unsigned needs);
/* A model by id; NULL, "" and "default" are the default for text. false: model_not_found. */
bool gateway_find(const struct gateway *gateway, const char *model, size_t *index, struct chat_fault *fault);
const struct gateway_account *gateway_account(const struct gateway *gateway, size_t model); /* NULL: none */

/* ---- Who may call (gateway_origin.c, admission.c) */

/* A Host header that a page from elsewhere cannot have made up: an address, localhost, or a name that public
 * DNS does not give out. */
bool origin_host_is_safe(const char *host);
/* May a page with this Origin call us, when we are reached as `host`? */
bool origin_is_allowed(const char *origin, const char *host);

struct caller {
    const struct key *key; /* NULL: nobody needs one here */
    struct rate_take take; /* what this request took of the key's minute */
};
/* Whose rates, budget and turns: the key's account; "" without a key. */
const char *caller_account(const struct caller *caller);
/* Is the record of an answer (/v1/routes) for this caller: of its own key, or may it see all? */
bool caller_may_see(const struct gateway *gateway, const struct caller *caller, const char *record,
                    size_t len);
/* false: the fault says what is wrong with the key, or that one is needed. `scope` NULL: anybody. */
bool admission_check(struct gateway *gateway, const struct http_request *request, const char *scope,
                     struct caller *out, struct chat_fault *fault);
/* Takes the request out of the key's minute; false: too much for now. admission_end gives it back. */
bool admission_begin(struct gateway *gateway, struct caller *caller, uint64_t tokens,
                     struct chat_fault *fault);
void admission_end(struct gateway *gateway, struct caller *caller, uint64_t tokens_used);

/* What a handler gets besides the exchange. */
struct visit {
    const struct caller *caller; /* to be copied */
    const char *rest;            /* of the path, where the route has a place for it */
};

/* ---- Routing (route.c): who is asked, in which order */

struct route_candidate {
    size_t model;
    unsigned stage;
    const char *skipped; /* why it is not asked; NULL: it is */
    enum chat_cause why; /* ... as a cause */
    double finish_s, cost_usd, score;
    size_t prompt_tokens;
    unsigned tried; /* how often it was begun */
};

struct route_choice {
    const char *name;                  /* as asked for */
    const struct gateway_route *route; /* NULL: a model by its own name */
    struct route_candidate
        *list; /* [count_max], in the arena: those to ask first, in order; then the skipped */
    size_t usable, count, count_max;
    uint64_t retry_after_s;
};

/* false: nobody can do it; the fault says why, `out` who was looked at. */
bool route_choose(struct gateway *gateway, struct arena *arena, const struct chat_request *request,
                  unsigned needs, const struct caller *caller, struct route_choice *out,
                  struct chat_fault *fault);
/* Abilities that a chat or completion asks for. */
unsigned route_needs(const struct chat_request *request);
/* About how many tokens the prompt has, from its bytes: for rates and comparisons, not for money. */
size_t route_estimate_tokens(const struct chat_request *request);
/* Tokens of output to reckon with. */
size_t route_output_tokens(const struct gateway_model *model, const struct chat_request *request,
                           size_t prompt_tokens);
void route_saw_speed(struct gateway *gateway, size_t model, double first_token_s, double token_s);

/* ---- Recordings (recording.c): an answer's events, to be played later */

struct recording {
    struct buf bytes;
};
void recording_init(struct recording *recording, size_t bytes_max);
void recording_release(struct recording *recording);
void recording_add(struct recording *recording, const struct chat_event *event);
/* Reads the event at *at and moves on; false: the end. Texts point into the recording; arrays into `arena`,
 * which may be cleared between calls. */
bool recording_next(const struct recording *recording, size_t *at, struct arena *arena,
                    struct chat_event *out);

/* ---- Recordings from elsewhere (recording_check.c) */

/* May an answer that ends so be given again? */
bool recording_end_is_fit(const struct chat_request *request, enum chat_finish finish);
/* Is it one whole answer to this request, whoever wrote it? */
bool recording_is_whole(const struct recording *recording, const struct chat_request *request,
                        struct arena *scratch);

/* ---- Answers (answer.c): attempts until one holds */

struct answer;

struct answer_params {
    struct gateway *gateway;
    const struct chat_request *request; /* outlives the answer */
    const struct caller *caller;
    const char *request_id;
    uint64_t deadline_ns; /* monotonic; 0: none */
    /* As provider_sink.event. When DONE or ERROR comes, all attempts are over and the arena may go. */
    bool (*event)(void *ud, const struct chat_event *event);
    /* Forget all events so far; false: too late, they were seen. */
    bool (*restart)(void *ud);
    void *ud;
};

/* Events never come inside. false: nothing was begun; the fault says why, and the record is kept. */
bool answer_start(struct arena *arena, const struct answer_params *params, struct answer **out,
                  struct chat_fault *fault);
void answer_resume(struct answer *answer);
/* The client has gone: no events any more. true: it is over. false: what was bought is still being counted to
 * its end; `over` is called once, later. */
bool answer_abandon(struct answer *answer, void (*over)(void *ud), void *ud);
/* "model=...; provider=...; attempts=N; tier=..." of what is being said now. */
void answer_route_text(const struct answer *answer, struct buf *out);
bool answer_was_retried(const struct answer *answer); /* more than one attempt went out */
size_t answer_model(const struct answer *answer);     /* index: who speaks, or was asked last */
/* At DONE: is it what one model said to its end, as it was asked, and nothing less was settled for? */
bool answer_is_whole(const struct answer *answer);

/* ---- What a request has to do with the cache (cache_visit.c) */

struct cache_visit {
    struct gateway *gateway;
    const struct chat_request *request;
    const struct caller *caller;
    struct cache_key key;
    bool asks; /* the answer may come from a cache */
    bool is_hit;
    enum cache_level level;
    bool keeps;                 /* the answer is recorded */
    bool is_unfit;              /* ... but not to be kept */
    struct recording recording; /* being made, or played */
    size_t play_at;
    struct arena play_arena;
    size_t model; /* of a hit */
    uint64_t age_ns;
    uint64_t ticket, asked_ns; /* of the shared cache; ticket 0: it is not being asked */
    void (*looked_up)(void *ud);
    void *ud;
};

/* Looks the request up. is_hit: its answer is to be played. The visit lies in the request's arena, the caller
 * lives as long. */
void cache_visit_begin(struct cache_visit *visit, struct gateway *gateway, const struct http_request *http,
                       const char *dialect, const struct caller *caller, const struct chat_request *request);
/* true: a shared cache is being asked; `looked_up` comes once, later, and is_hit is known then. */
bool cache_visit_wait(struct cache_visit *visit, uint64_t deadline_ns, void (*looked_up)(void *ud), void *ud);
/* true: it was being asked, and `looked_up` does not come any more. */
bool cache_visit_cancel(struct cache_visit *visit);
/* The next event of a hit; false: no more, which after DONE never happens. */
bool cache_visit_next(struct cache_visit *visit, struct chat_event *event);
/* An answer that was not there: its events as they come, a new beginning, its end. */
void cache_visit_record(struct cache_visit *visit, const struct chat_event *event);
void cache_visit_restart(struct cache_visit *visit);
void cache_visit_keep(struct cache_visit *visit, const struct answer *answer);
/* As for answers: what is told about a hit. */
void cache_visit_route_text(const struct cache_visit *visit, struct buf *out);
void cache_visit_write_record(const struct cache_visit *visit, const struct caller *caller,
                              const char *response_id, struct buf *out);

/* ---- What a request has to do with memory (remember.c) */

/* Letters from the store's writer to the loop. */
struct mail;
PH_MUST_USE enum ph_status mail_open(struct mail **out, struct net_loop *loop);
/* `closed` comes once every letter has; the mail is gone then. NULL mail: at once. */
void mail_close(struct mail *mail, void (*closed)(void *ud), void *ud);

/* A letter that somebody waits for. It is the mail's; who does not wait any more calls letter_forget. */
struct letter;
PH_MUST_USE struct letter *letter_new(struct mail *mail,
                                      void (*come)(void *ud, enum ph_status status, const struct ph_err *err),
                                      void *ud); /* NULL: no memory */
struct store_done letter_done(struct letter *letter);
void letter_forget(struct letter *letter); /* `come` does not come; NULL is fine */
void letter_free(struct letter *letter);   /* nobody was asked to send it; NULL is fine */

/* Whose conversations these are: the key's user; an end user that the header x-user-id, or else `user`,
 * names; both as "KEYUSER/NAME". NULL: nobody said, and nobody needs to. In the arena. false: the fault says
 * why not. */
bool remember_user(struct http_exchange *exchange, const struct caller *caller, const char *user,
                   const char **out, struct chat_fault *fault);
/* What the store's words mean to a client. */
void remember_fault(const struct ph_err *err, struct chat_fault *fault);
/* A budget, a strategy, the newest messages: of the metadata, or of a header. */
struct remember_wishes {
    uint32_t budget_tokens, keep_recent; /* budget 0: not said */
    enum context_strategy strategy;
};
bool remember_wishes(const struct http_request *http, const struct json *metadata,
                     struct remember_wishes *out, struct chat_fault *fault);
/* A model's own counts, where its tokenizer is here. false: it is not. */
bool remember_counter(const struct gateway *gateway, size_t model, struct memory_counter *out);

/* ---- Items by their ids (remember_items.c). These three ask the store: for helper threads. */

/* The message that an item is (part of), and which of its items it is. */
PH_MUST_USE enum ph_status remember_item_find(struct store *store, struct arena *arena, int64_t conversation,
                                              const char *item, struct store_message *out, size_t *index,
                                              struct ph_err *err);
/* The items of a message as an array; NULL: no memory. */
const struct json *remember_items(struct arena *arena, const struct store_message *stored);
/* The items, with those in the place of references that these name, of this user alone, looked for in the
 * conversation first (0: none). NULL: the fault says why not; its param, when it has one, is "input". */
struct json *remember_resolve(struct store *store, struct arena *arena, const char *user,
                              int64_t conversation, const struct json *items, struct chat_fault *fault);
/* The same for the body of a request that refers to items. `ready` comes once, later; NULL: the fault says
 * why not. The exchange must not end before `ready`. */
struct recall;
struct recall *remember_recall(struct gateway *gateway, struct http_exchange *exchange,
                               const struct caller *caller, const struct chat_request *request,
                               void (*ready)(void *ud), void *ud, struct chat_fault *fault);
/* When it is ready: the body to decode instead. NULL: the fault says why there is none. */
const struct json *remember_recalled(struct recall *recall, struct chat_fault *fault);

/* A verdict on an answer, for the store. `line` is the reply; NULL: it is the store's to know the answer.
 * Ends the exchange, later. */
struct visit;
void remember_verdict(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit,
                      const struct buf *line, const char *response_id, double score, const char *note);

struct remembering;
bool remember_wants(const struct gateway *gateway, const struct chat_request *request);
/* Begins to load and to build; `ready` comes once, later. NULL: the fault says why not. The exchange must not
 * end before `ready`. */
struct remembering *remember_begin(struct gateway *gateway, struct http_exchange *exchange,
                                   const struct caller *caller, struct chat_request *request,
                                   void (*ready)(void *ud), void *ud, struct chat_fault *fault);
/* When it is ready: the request becomes what the model gets to see. */
bool remember_apply(struct remembering *r, struct chat_fault *fault);
/* The new messages are on their way into the store. */
bool remember_ask(struct remembering *r, struct chat_fault *fault);
/* The reply's events; a new beginning; what came when nobody waits for the rest. All accept NULL. */
void remember_hear(struct remembering *r, const struct chat_event *event);
void remember_restart(struct remembering *r);
void remember_cut(struct remembering *r, const char *reply_id);
/* May this event leave before the reply is durable? */
bool remember_holds(const struct remembering *r);
/* The reply is whole: `stored` comes once, later, with NULL or why it is not. */
bool remember_store(struct remembering *r, const char *reply_id, struct chat_encoder *encoder,
                    void (*stored)(void *ud, const struct chat_fault *fault), struct chat_fault *fault);
void remember_route_text(const struct remembering *r, struct buf *out);

/* ---- Attempts (attempt.c): one model asked once, with its place, its hold and its meter */

enum attempt_state { ATTEMPT_WAITING, ATTEMPT_RUNNING, ATTEMPT_DRAINING, ATTEMPT_OVER };

struct attempt {
    struct answer *answer;
    struct gateway *gateway;
    struct attempt *next;
    size_t model;
    size_t candidate; /* its place in the route's list */
    enum attempt_state state;
    struct chat_request request; /* what is asked: the client's, changed */
    const struct caller *caller;
    const char *request_id;
    struct gate_ticket ticket;
    struct ledger_hold *hold;
    struct provider_call *call;
    struct rate_take take; /* of the account's minute, to be given back */
    bool is_cut;           /* its budget has ended */
    bool is_judged;        /* recorded, not said */
    bool is_continuation;
    bool said_something; /* a token of content came */
    struct recording recording;
    uint64_t prompt_tokens;   /* as reckoned before */
    uint64_t output_limit;    /* the client's, of all choices; 0: none */
    uint64_t counted;         /* output so far: as said, and what came since */
    uint64_t said;            /* by the provider's own running sums */
    bool sum_was_last;        /* the last thing that came was a sum that had grown */
    size_t finished;          /* choices that have ended */
    bool has_usage, has_sums; /* sums: the final ones */
    struct ledger_usage usage;
    uint64_t start_ns, sent_ns, first_token_ns, end_ns;
    enum ledger_outcome outcome;
    bool failed;
    struct chat_fault fault; /* when failed */
    double confidence;       /* judged; negative: not */
    const char *key_hint;    /* of the account, which outlives us; NULL: none */
    int http_status;
    int64_t cost_pico;
};

/* What an attempt tells its answer (answer.c). attempt_ended: it is over and settled; `fault` NULL: whole. */
bool answer_attempt_event(struct attempt *attempt, const struct chat_event *event);
void answer_attempt_ended(struct attempt *attempt);

/* NULL: out of memory. The request is a shallow copy of `request`, to be changed before attempt_start. */
struct attempt *attempt_new(struct answer *answer, struct gateway *gateway, struct arena *arena, size_t model,
                            const struct chat_request *request);
/* false: it has failed at once (attempt->fault), and is over. Events come later. */
bool attempt_start(struct attempt *attempt, const struct caller *caller, const char *request_id,
                   size_t prompt_tokens);
void attempt_resume(struct attempt *attempt);
/* Not wanted any more. true: it is over (nothing more is called). false: it is counted to its end, then
 * answer_attempt_ended comes. */
bool attempt_drop(struct attempt *attempt, enum ledger_outcome outcome);

/* ---- Judging (cascade.c) */

/* How far the recorded answer may be trusted, 0 to 1, from its log-probabilities, its length and its end;
 * negative: nothing to judge by. */
double cascade_confidence(const struct recording *recording);
/* How far two answers say the same, 0 to 1. */
double cascade_agreement(const struct recording *a, const struct recording *b);

/* ---- Records (route_book.c): why an answer came from where it did */

struct route_book;
struct route_book *route_book_create(size_t count_max); /* NULL: out of memory */
void route_book_free(struct route_book *book);
/* Keeps a record under two names; the oldest goes. Takes the JSON text. */
void route_book_add(struct route_book *book, const char *response_id, const char *request_id,
                    const struct buf *json);
const char *route_book_find(const struct route_book *book, const char *id, size_t *len); /* NULL: not there */
/* The record of an answer that is over. */
void answer_write_record(const struct answer *answer, const char *response_id, struct buf *out);
/* Keeps what a calibration needs to know of a judged one (verdict_endpoint.c). */
void feedback_note_answer(const struct answer *answer, const char *response_id);

/* ---- The request log (request_log.c) */

struct request_log_entry;
/* What one exchange says, for its line; lies in the exchange's arena. NULL: nobody wants it, which the others
 * know. */
struct request_log_entry *request_log_begin(const struct gateway *gateway, struct http_exchange *exchange,
                                            const struct chat_request *request);
void request_log_hear(struct request_log_entry *entry, const struct chat_event *event);
void request_log_forget(struct request_log_entry *entry); /* the answer begins anew */
void request_log_write(const struct gateway *gateway, struct request_log_entry *entry,
                       const struct buf *record);

/* ---- Drills (gateway_drill.c) */

/* Who answers this request: `gateway`, or, when it asks for a model of a drill that is on and may, the
 * drill's own. */
struct gateway *drill_gateway(struct gateway *gateway, const struct chat_request *request,
                              const struct caller *caller);
/* Of an answer of the drill that is on; NULL: none. */
const char *drill_find_route(const struct gateway *gateway, const char *id, size_t *len);
void drill_tick(struct gateway *gateway);
/* The station stops, and no request is running: `over` is called once, at once when no drill is on. */
void drill_stop(struct gateway *gateway, void (*over)(void *ud), void *ud);

/* ---- Handlers */

void handle_chat_completions(struct gateway *gateway, struct http_exchange *exchange,
                             const struct visit *visit);
void handle_completions(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_messages(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_count_tokens(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_responses(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_embeddings(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void gateway_chats_tick(struct gateway *gateway);

void handle_models(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_model(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_route(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_feedback(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_tokenize(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_detokenize(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_apply_template(struct gateway *gateway, struct http_exchange *exchange,
                           const struct visit *visit);
void handle_conversation_create(struct gateway *gateway, struct http_exchange *exchange,
                                const struct visit *visit);
void handle_conversation_get(struct gateway *gateway, struct http_exchange *exchange,
                             const struct visit *visit);
void handle_conversation_post(struct gateway *gateway, struct http_exchange *exchange,
                              const struct visit *visit);
void handle_conversation_delete(struct gateway *gateway, struct http_exchange *exchange,
                                const struct visit *visit);
void handle_response_get(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_response_delete(struct gateway *gateway, struct http_exchange *exchange,
                            const struct visit *visit);
void handle_context(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_drill_begin(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_drill_end(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_health(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_ready(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
void handle_metrics(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);

#endif
