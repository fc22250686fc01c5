/* provider: what its kinds share. A kind is one file with a table of these functions; struct provider and
 * struct provider_call are the first members of its own structures. */
#ifndef PHAROS_PROVIDER_PROVIDER_INT_H
#define PHAROS_PROVIDER_PROVIDER_INT_H

#include "provider/provider.h"

struct provider_ops {
    const char *kind;
    enum ph_status (*start)(struct provider *provider, struct net_loop *loop,
                            const struct chat_request *request, const struct provider_sink *sink,
                            struct provider_call **out, struct chat_fault *fault);
    void (*resume)(struct provider_call *call);
    void (*cancel)(struct provider_call *call);
    enum ph_status (*prompt)(struct provider *provider, const struct chat_request *request, struct buf *out,
                             struct chat_fault *fault);
    struct engine *(*engine)(const struct provider *provider);
    void (*free)(struct provider *provider);
    /* From here on NULL is fine: provider.c then says what holds for a kind that has no such thing. */
    void (*hang_up)(struct provider_call *call, uint32_t drain_ms); /* NULL: cancelled, USAGE not said */
    void (*note)(const struct provider_call *call, struct provider_call_note *out);
    void (*state)(const struct provider *provider, struct provider_state *out);
    size_t (*count)(struct provider *provider, const struct chat_request *request, bool *exact);
    size_t (*cached)(struct provider *provider, const struct chat_request *request);
    enum ph_status (*embed)(struct provider *provider, struct net_loop *loop,
                            const struct chat_embed_request *request, const struct provider_embed_sink *sink,
                            struct provider_call **out, struct chat_fault *fault);
    const struct model *(*model)(const struct provider *provider);
    struct embedder *(*embedder)(const struct provider *provider); /* NULL: it is no embedding model */
    void (*engine_stats)(const struct provider *provider, struct provider_engine_stats *out);
    void (*stop)(struct provider *provider, void (*stopped)(void *ud), void *ud);
    void (*halt)(struct provider *provider, const struct chat_fault *fault);
};

struct provider {
    const struct provider_ops *ops;
    char *model_id;   /* owned */
    char *problem;    /* owned; NULL: none */
    const char *name; /* lives as long as the provider */
    size_t context_len;
    bool ready;
};

struct provider_call {
    const struct provider_ops *ops;
};

/* Sets up what is common; 0, or -1 when out of memory. */
int provider_init(struct provider *provider, const struct provider_ops *ops, const char *model_id);
void provider_set_problem(struct provider *provider, const char *reason);
/* For models in this process: refuses while there is none. */
PH_MUST_USE enum ph_status provider_check_loaded(const struct provider *provider, struct chat_fault *fault);

/* ---- Counting tokens where no tokenizer is at hand (provider_tokens.c)
 *
 * A fixed rule weighs a text; what replies reported against those weights teaches a ratio. */

struct token_ratio {
    double mean, spread; /* tokens a unit of weight; spread: mean distance from the mean */
    unsigned samples;    /* up to the length of the running average */
};
void token_ratio_learn(struct token_ratio *ratio, double weight, double tokens);
/* The mean; 1 while nothing was learned. */
double token_ratio_mean(const struct token_ratio *ratio);
/* Above nearly all that was seen; while little was, above the rule. */
double token_ratio_upper(const struct token_ratio *ratio);

/* Roughly the tokens of a text: a unit for four ASCII bytes, or for two others. */
double token_weight_text(const char *text, size_t len);
double token_weight_json(const struct json *value);

struct prompt_weight {
    double text;  /* what the ratio applies to */
    size_t known; /* tokens that came as ids */
    size_t media; /* tokens of images, sound and files, by constants */
};
struct prompt_weight prompt_weigh(const struct chat_request *request);
/* For reservations, leaning upwards. */
size_t prompt_estimate(const struct prompt_weight *weight, const struct token_ratio *ratio);
/* For sums, leaning nowhere once something was learned. */
size_t prompt_guess(const struct prompt_weight *weight, const struct token_ratio *ratio);

/* Generated tokens, counted from deltas. */
struct delta_count {
    double weight; /* of the deltas so far */
    double tokens; /* counted for them */
    size_t deltas;
};
/* Weighs a delta of so many bytes, and answers for how many whole tokens it stands. `known`: as the codec
 * knows; 0: it does not. */
size_t delta_count_add(struct delta_count *count, const struct token_ratio *ratio, size_t bytes,
                       size_t known);

/* ---- Prompts of local models (provider_prompt.c) */

struct prompt_maker; /* a model's vocabulary and template; immutable, any thread */

/* `model` must outlive it. */
PH_MUST_USE enum ph_status prompt_maker_create(struct prompt_maker **out, const struct model *model,
                                               const struct clock_source *clock, struct ph_err *err);
void prompt_maker_free(struct prompt_maker *maker);
/* Why chats cannot be rendered (a template that does not compile); NULL: they can. */
const char *prompt_maker_problem(const struct prompt_maker *maker);
/* The text that also ends a reply, because the model has neither template nor turn tokens; NULL: none. */
const char *prompt_maker_stop(const struct prompt_maker *maker);

/* One request's prompts, from request to token ids. It holds copies of all it needs, so that a helper thread
 * may run it while the request goes away. */
struct prompt_job {
    const struct prompt_maker *maker;
    struct arena arena;
    struct json *vars;           /* CHAT: what the template sees */
    struct chat_text unfinished; /* CHAT: the last message, when it is to be continued */
    struct chat_text *texts;     /* COMPLETION: one a prompt; text NULL: ids were given */
    struct token_list *prompts;  /* the result */
    size_t prompt_count;
    size_t input_bytes;    /* a measure of the work to do */
    enum ph_status status; /* of prompt_job_run */
    struct chat_fault fault;
};

/* Refuses what a model that reads text cannot be given: images, files, tools that are no functions. */
PH_MUST_USE enum ph_status prompt_check(const struct chat_request *request, struct chat_fault *fault);

/* NULL: out of memory. */
struct prompt_job *prompt_job_new(const struct prompt_maker *maker, const struct chat_request *request);
void prompt_job_free(struct prompt_job *job);
void prompt_job_run(struct prompt_job *job); /* fills prompts, status, fault; any thread */
/* CHAT: the rendered text only. */
PH_MUST_USE enum ph_status prompt_job_render(struct prompt_job *job, struct buf *out);

#endif
