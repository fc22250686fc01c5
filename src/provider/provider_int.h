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
};

struct provider {
    const struct provider_ops *ops;
    char *model_id; /* owned */
    char *problem;  /* owned; NULL: none */
    bool ready;
};

struct provider_call {
    const struct provider_ops *ops;
};

/* Sets up what is common; 0, or -1 when out of memory. */
int provider_init(struct provider *provider, const struct provider_ops *ops, const char *model_id);
void provider_set_problem(struct provider *provider, const char *reason);

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

/* NULL: out of memory. */
struct prompt_job *prompt_job_new(const struct prompt_maker *maker, const struct chat_request *request);
void prompt_job_free(struct prompt_job *job);
void prompt_job_run(struct prompt_job *job); /* fills prompts, status, fault; any thread */
/* CHAT: the rendered text only. */
PH_MUST_USE enum ph_status prompt_job_render(struct prompt_job *job, struct buf *out);

#endif
