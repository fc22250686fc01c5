/* Embeddings: the same way as text takes, shorter. One model is asked after the other until one answers; each
 * attempt has its hold in the ledger. There is no stream, so there is nothing to continue. */
#include <stdio.h>

#include "gateway/gateway_int.h"

struct embedding {
    struct gateway *gateway;
    struct http_exchange *exchange;
    struct caller caller;
    struct chat_embed_request request;
    struct chat_request shape; /* for routing: inputs as prompts */
    struct route_choice choice;
    size_t next; /* candidate */
    size_t attempts;
    struct provider_call *call;
    struct ledger_hold *hold;
    struct chat_fault fault;
    uint64_t start_ns;
    struct answer_sample sample;
};

static const struct gateway_model *current_model(const struct embedding *e)
{
    return &e->gateway->models[e->choice.list[e->next].model];
}

static void settle(struct embedding *e, uint64_t tokens, enum ledger_outcome outcome)
{
    struct ledger_usage usage = {.prompt_tokens = tokens};
    if (e->hold)
        ledger_settle(e->gateway->ledger, e->hold, &usage, outcome);
    e->hold = NULL;
    e->call = NULL;
}

static void over(struct embedding *e, enum outcome outcome)
{
    e->sample.outcome = outcome;
    e->sample.duration_ns = clock_monotonic_ns(e->gateway->clock) - e->start_ns;
    admission_end(e->gateway, &e->caller, e->sample.prompt_tokens);
    metrics_answer(e->gateway->metrics, &e->sample);
}

static void set_route(struct embedding *e)
{
    char text[256];
    const struct gateway_model *model = current_model(e);
    snprintf(text, sizeof text, "model=%.60s; provider=%.60s; attempts=%zu; tier=%s",
             provider_model_id(model->provider), provider_name(model->provider), e->attempts,
             ledger_tier_name(model->tier));
    http_set_header(e->exchange, ROUTE_HEADER, text);
}

static void end_with_fault(struct embedding *e)
{
    int status = e->fault.http_status;
    over(e, status == 429 ? OUTCOME_RATE_LIMITED : status >= 500 ? OUTCOME_SERVER : OUTCOME_INVALID);
    gateway_reply_fault(e->gateway, e->exchange, &e->fault);
}

static bool try_next(struct embedding *e);

static void on_done(void *ud, const struct chat_embeddings *embeddings, const struct chat_fault *fault)
{
    struct embedding *e = ud;
    if (!embeddings) {
        e->fault = *fault;
        settle(e, 0, LEDGER_UNUSED);
        metrics_fallback(e->gateway->metrics, fault->cause);
        e->next++;
        if (fault->cause == CHAT_CAUSE_REQUEST || !try_next(e))
            end_with_fault(e);
        return;
    }
    struct buf body;
    buf_init(&body, CHAT_REPLY_BYTES_MAX);
    const char *name = e->request.model && *e->request.model ? e->request.model
                                                             : provider_model_id(current_model(e)->provider);
    chat_embed_encode(&e->request, name, embeddings, &body);
    e->sample.prompt_tokens = embeddings->prompt_tokens;
    settle(e, embeddings->prompt_tokens, LEDGER_WHOLE);
    if (buf_status(&body) == PH_OK) {
        set_route(e);
        over(e, OUTCOME_OK);
        gateway_reply(e->gateway, e->exchange, 200, JSON_TYPE, &body);
    } else {
        chat_fault_set(&e->fault, 500, NULL, NULL, "the reply does not fit into memory");
        end_with_fault(e);
    }
    buf_release(&body);
}

static bool reserve(struct embedding *e, const struct gateway_model *model)
{
    struct ledger_refusal refusal;
    struct ledger_ask ask = {.request_id = http_exchange_request(e->exchange)->id,
                             .key_id = caller_account(&e->caller),
                             .model = provider_model_id(model->provider),
                             .provider = provider_name(model->provider),
                             .tier = model->tier,
                             .price = model->price,
                             .premium = e->gateway->premium,
                             .prompt_tokens = provider_count_tokens(model->provider, &e->shape, NULL)};
    enum ph_status status = ledger_reserve(e->gateway->ledger, &ask, &e->hold, &refusal);
    if (status == PH_OK)
        return true;
    chat_fault_set(&e->fault, 429, status == PH_ERR_LIMIT ? "insufficient_quota" : "rate_limit_exceeded",
                   NULL, "a budget of this month does not pay for these embeddings");
    return false;
}

/* false: nobody is left; e->fault says why. */
static bool try_next(struct embedding *e)
{
    for (; e->next < e->choice.usable && e->attempts < ROUTE_ATTEMPTS_MAX; e->next++) {
        const struct gateway_model *model = current_model(e);
        struct provider_embed_sink sink = {on_done, e};
        e->attempts++;
        e->sample.model = e->choice.list[e->next].model;
        if (!reserve(e, model))
            continue;
        if (provider_embed(model->provider, e->gateway->loop, &e->request, &sink, &e->call, &e->fault) ==
            PH_OK)
            return true;
        settle(e, 0, LEDGER_UNUSED);
    }
    if (e->next >= e->choice.usable && e->next > 0)
        e->next = e->choice.usable - 1;
    return false;
}

static void on_gone(void *ud)
{
    struct embedding *e = ud;
    provider_cancel(e->call);
    e->sample.prompt_tokens = e->choice.list[e->next].prompt_tokens;
    settle(e, e->sample.prompt_tokens, LEDGER_ABORTED);
    over(e, OUTCOME_CLIENT_GONE);
    http_reply(e->exchange, 499, NULL, NULL, 0);
}

static bool begin(struct embedding *e)
{
    struct json *body;
    struct arena *arena = http_exchange_arena(e->exchange);
    if (!gateway_body(e->exchange, &body, &e->fault) ||
        chat_embed_decode(arena, body, &e->request, &e->fault) != PH_OK)
        return false;
    e->shape = (struct chat_request){.arena = arena,
                                     .kind = CHAT_KIND_COMPLETION,
                                     .model = e->request.model,
                                     .prompts = e->request.inputs,
                                     .prompt_count = e->request.input_count,
                                     .choices = 1,
                                     .user = e->request.user,
                                     .raw = body};
    size_t tokens = route_estimate_tokens(&e->shape);
    return admission_begin(e->gateway, &e->caller, tokens, &e->fault) &&
           route_choose(e->gateway, arena, &e->shape, GATEWAY_EMBEDDINGS, &e->caller, &e->choice,
                        &e->fault) &&
           try_next(e);
}

void handle_embeddings(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    struct chat_fault fault;
    struct embedding *e = arena_calloc(http_exchange_arena(exchange), 1, sizeof *e);
    if (!e) {
        chat_fault_set(&fault, 503, NULL, NULL, "out of memory");
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    e->gateway = gateway;
    e->exchange = exchange;
    e->caller = *visit->caller;
    e->start_ns = clock_monotonic_ns(gateway->clock);
    e->sample.operation = OPERATION_EMBEDDINGS;
    if (begin(e))
        http_on_gone(exchange, on_gone, e);
    else
        end_with_fault(e);
}
