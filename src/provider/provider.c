/* The common face of providers: each call goes to the functions of its kind; what a kind does not have is
 * answered here. */
#include "base/mem.h"
#include "provider/provider_int.h"

int provider_init(struct provider *provider, const struct provider_ops *ops, const char *model_id)
{
    *provider = (struct provider){.ops = ops, .model_id = mem_strdup(model_id), .name = ops->kind};
    return provider->model_id ? 0 : -1;
}

void provider_set_problem(struct provider *provider, const char *reason)
{
    mem_free(provider->problem);
    provider->problem = mem_strdup(reason);
    provider->ready = false;
}

enum ph_status provider_check_loaded(const struct provider *provider, struct chat_fault *fault)
{
    if (provider->ready)
        return PH_OK;
    if (provider->problem) {
        chat_fault_set(fault, 503, "model_unavailable", "model", "%s could not be loaded: %s",
                       provider->model_id, provider->problem);
        return PH_ERR_UNSUPPORTED;
    }
    chat_fault_set(fault, 503, "model_loading", "model", "%s is still loading", provider->model_id);
    fault->retry_after_s = 2;
    return PH_ERR_BUSY;
}

void provider_free(struct provider *provider)
{
    if (!provider)
        return;
    mem_free(provider->model_id);
    mem_free(provider->problem);
    provider->ops->free(provider);
}

/* ---- What it is */

const char *provider_model_id(const struct provider *provider)
{
    return provider->model_id;
}

const char *provider_kind(const struct provider *provider)
{
    return provider->ops->kind;
}

const char *provider_name(const struct provider *provider)
{
    return provider->name;
}

struct engine *provider_engine(const struct provider *provider)
{
    return provider->ops->engine ? provider->ops->engine(provider) : NULL;
}

const struct model *provider_model(const struct provider *provider)
{
    return provider->ops->model ? provider->ops->model(provider) : NULL;
}

bool provider_is_embedder(const struct provider *provider)
{
    return provider->ops->embedder != NULL;
}

struct embedder *provider_embedder(const struct provider *provider)
{
    return provider->ops->embedder ? provider->ops->embedder(provider) : NULL;
}

bool provider_ready(const struct provider *provider)
{
    return provider->ready;
}

const char *provider_problem(const struct provider *provider)
{
    return provider->problem;
}

size_t provider_context_len(const struct provider *provider)
{
    const struct engine *engine = provider_engine(provider);
    return engine ? engine_context_len(engine) : provider->context_len;
}

void provider_state(const struct provider *provider, struct provider_state *out)
{
    *out = (struct provider_state){.usable = provider->ready, .why = CHAT_CAUSE_OURS};
    if (provider->ops->state)
        provider->ops->state(provider, out);
}

/* ---- Engines that are started */

const char *provider_engine_end_name(enum provider_engine_end end)
{
    static const char *const names[ENGINE_END_COUNT] = {"idle", "memory", "station", "failed",
                                                        "died", "silent", "halt"};
    return names[end];
}

bool provider_engine_stats(const struct provider *provider, struct provider_engine_stats *out)
{
    *out = (struct provider_engine_stats){0};
    if (provider->ops->engine_stats)
        provider->ops->engine_stats(provider, out);
    return provider->ops->engine_stats != NULL;
}

void provider_halt(struct provider *provider, const struct chat_fault *fault)
{
    if (provider->ops->halt)
        provider->ops->halt(provider, fault);
}

/* ---- Answering */

enum ph_status provider_start(struct provider *provider, struct net_loop *loop,
                              const struct chat_request *request, const struct provider_sink *sink,
                              struct provider_call **out, struct chat_fault *fault)
{
    return provider->ops->start(provider, loop, request, sink, out, fault);
}

void provider_resume(struct provider_call *call)
{
    call->ops->resume(call);
}

void provider_cancel(struct provider_call *call)
{
    call->ops->cancel(call);
}

void provider_hang_up(struct provider_call *call, uint32_t drain_ms)
{
    if (call->ops->hang_up)
        call->ops->hang_up(call, drain_ms);
    else
        call->ops->cancel(call);
}

void provider_call_note(const struct provider_call *call, struct provider_call_note *out)
{
    *out = (struct provider_call_note){0};
    if (call->ops->note)
        call->ops->note(call, out);
}

static enum ph_status unable(const struct provider *provider, struct chat_fault *fault, const char *what)
{
    chat_fault_set(fault, 400, "unsupported", "model", "%s (%s) %s", provider->model_id, provider->name,
                   what);
    fault->cause = CHAT_CAUSE_UNABLE;
    return PH_ERR_UNSUPPORTED;
}

enum ph_status provider_embed(struct provider *provider, struct net_loop *loop,
                              const struct chat_embed_request *request,
                              const struct provider_embed_sink *sink, struct provider_call **out,
                              struct chat_fault *fault)
{
    *out = NULL;
    if (!provider->ops->embed)
        return unable(provider, fault, "makes no embeddings");
    return provider->ops->embed(provider, loop, request, sink, out, fault);
}

enum ph_status provider_prompt(struct provider *provider, const struct chat_request *request, struct buf *out,
                               struct chat_fault *fault)
{
    if (!provider->ops->prompt)
        return unable(provider, fault, "does not run in this process: its prompts are made elsewhere");
    return provider->ops->prompt(provider, request, out, fault);
}

/* ---- Tokens */

size_t provider_count_tokens(struct provider *provider, const struct chat_request *request, bool *exact)
{
    bool is_exact = false;
    size_t tokens;
    if (provider->ops->count) {
        tokens = provider->ops->count(provider, request, &is_exact);
    } else {
        struct prompt_weight weight = prompt_weigh(request);
        tokens = prompt_estimate(&weight, &(struct token_ratio){0});
    }
    if (exact)
        *exact = is_exact;
    return tokens;
}

size_t provider_cached_tokens(struct provider *provider, const struct chat_request *request)
{
    return provider->ops->cached ? provider->ops->cached(provider, request) : 0;
}

bool provider_knows_cached(const struct provider *provider)
{
    return provider->ops->cached != NULL;
}

/* ---- Stopping */

struct farewell {
    struct net_wake *wake;
    void (*stopped)(void *ud);
    void *ud;
};

static void say_stopped(void *ud)
{
    struct farewell farewell = *(struct farewell *)ud;
    mem_free(ud);
    net_wake_close(farewell.wake);
    farewell.stopped(farewell.ud);
}

void provider_stop(struct provider *provider, struct net_loop *loop, void (*stopped)(void *ud), void *ud)
{
    if (provider->ops->stop) {
        provider->ops->stop(provider, stopped, ud);
        return;
    }
    struct farewell *farewell = mem_alloc(sizeof *farewell);
    if (farewell) {
        *farewell = (struct farewell){.stopped = stopped, .ud = ud};
        if (net_wake_open(&farewell->wake, loop, say_stopped, farewell) == PH_OK) {
            net_wake_call(farewell->wake);
            return;
        }
    }
    mem_free(farewell);
    stopped(ud); /* better early than never */
}
