/* The common face of providers: each call goes to the functions of its kind. */
#include "base/mem.h"
#include "provider/provider_int.h"

int provider_init(struct provider *provider, const struct provider_ops *ops, const char *model_id)
{
    *provider = (struct provider){.ops = ops, .model_id = mem_strdup(model_id)};
    return provider->model_id ? 0 : -1;
}

void provider_set_problem(struct provider *provider, const char *reason)
{
    mem_free(provider->problem);
    provider->problem = mem_strdup(reason);
    provider->ready = false;
}

void provider_free(struct provider *provider)
{
    if (!provider)
        return;
    mem_free(provider->model_id);
    mem_free(provider->problem);
    provider->ops->free(provider);
}

const char *provider_model_id(const struct provider *provider)
{
    return provider->model_id;
}

const char *provider_kind(const struct provider *provider)
{
    return provider->ops->kind;
}

struct engine *provider_engine(const struct provider *provider)
{
    return provider->ops->engine(provider);
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
    return engine ? engine_context_len(engine) : 0;
}

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

enum ph_status provider_prompt(struct provider *provider, const struct chat_request *request, struct buf *out,
                               struct chat_fault *fault)
{
    return provider->ops->prompt(provider, request, out, fault);
}
