/* What is told about an answer: the header x-pharos-route, and the record behind /v1/routes/ID. */
#include <stdio.h>
#include <string.h>

#include "gateway/answer_int.h"

static const struct gateway_model *model_at(const struct answer *answer, size_t index)
{
    return &answer->params.gateway->models[index];
}

static const char *policy_of(const struct answer *answer)
{
    return answer->choice.route ? gateway_policy_name(answer->choice.route->policy) : "fixed";
}

void answer_route_text(const struct answer *answer, char *out, size_t size)
{
    const struct gateway_model *model = model_at(answer, answer_model(answer));
    int len = snprintf(out, size, "model=%s; provider=%s; attempts=%zu; tier=%s; policy=%s",
                       provider_model_id(model->provider), provider_name(model->provider),
                       answer->attempt_count, ledger_tier_name(model->tier), policy_of(answer));
    if (answer->escalations && len > 0 && (size_t)len < size)
        snprintf(out + len, size - (size_t)len, "; escalations=%u", answer->escalations);
}

/* ---- The record */

static void put_string(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, "\"%s\":", key);
    if (value)
        json_write_string(out, value, strlen(value));
    else
        buf_puts(out, "null");
}

static void put_ms(struct buf *out, const char *key, uint64_t from_ns, uint64_t to_ns)
{
    if (to_ns >= from_ns && to_ns)
        buf_printf(out, ",\"%s\":%.3f", key, (double)(to_ns - from_ns) * 1e-6);
}

static void put_usd(struct buf *out, const char *key, int64_t pico)
{
    buf_printf(out, ",\"%s\":%.9g", key, (double)pico / (double)LEDGER_PICO_PER_USD);
}

static const char *outcome_of(const struct answer *answer, const struct attempt *attempt)
{
    if (attempt->failed)
        return "failed";
    if (attempt->is_judged && answer->speaking != attempt)
        return "not_trusted";
    switch (attempt->outcome) {
    case LEDGER_WHOLE:
        return "answered";
    case LEDGER_CUT:
        return "budget_ended";
    default:
        return "dropped";
    }
}

static void write_attempt(const struct answer *answer, const struct attempt *attempt, struct buf *out)
{
    const struct gateway_model *model = model_at(answer, attempt->model);
    buf_putc(out, '{');
    put_string(out, "model", provider_model_id(model->provider));
    buf_putc(out, ',');
    put_string(out, "provider", provider_name(model->provider));
    buf_putc(out, ',');
    put_string(out, "tier", ledger_tier_name(model->tier));
    buf_putc(out, ',');
    put_string(out, "outcome", outcome_of(answer, attempt));
    if (attempt->key_hint[0]) {
        buf_putc(out, ',');
        put_string(out, "key", attempt->key_hint);
    }
    if (attempt->failed) {
        buf_putc(out, ',');
        put_string(out, "cause", chat_cause_name(attempt->fault.cause));
        buf_putc(out, ',');
        put_string(out, "error", attempt->fault.message);
    }
    if (attempt->http_status)
        buf_printf(out, ",\"status\":%d", attempt->http_status);
    if (attempt->is_continuation)
        buf_puts(out, ",\"continued\":true");
    if (attempt->is_judged)
        buf_printf(out, ",\"confidence\":%.4g", attempt->confidence);
    put_ms(out, "started_ms", answer->start_ns, attempt->start_ns);
    put_ms(out, "first_token_ms", answer->start_ns, attempt->first_token_ns);
    put_ms(out, "ended_ms", answer->start_ns, attempt->end_ns);
    buf_printf(out, ",\"prompt_tokens\":%llu,\"cached_tokens\":%llu,\"completion_tokens\":%llu",
               (unsigned long long)attempt->usage.prompt_tokens,
               (unsigned long long)attempt->usage.cached_tokens,
               (unsigned long long)attempt->usage.output_tokens);
    put_usd(out, "cost_usd", attempt->cost_pico);
    buf_putc(out, '}');
}

/* The list is newest first; the record is not. */
static void write_attempts(const struct answer *answer, struct buf *out)
{
    const struct attempt *in_order[ROUTE_ATTEMPTS_MAX];
    size_t count = answer->attempt_count;
    size_t at = count;
    for (const struct attempt *a = answer->attempts; a; a = a->next)
        in_order[--at] = a;
    buf_puts(out, ",\"attempts\":[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            buf_putc(out, ',');
        write_attempt(answer, in_order[i], out);
    }
    buf_putc(out, ']');
}

static void write_candidates(const struct answer *answer, struct buf *out)
{
    buf_puts(out, ",\"candidates\":[");
    for (size_t i = 0; i < answer->choice.count; i++) {
        const struct route_candidate *c = &answer->choice.list[i];
        buf_puts(out, i ? ",{" : "{");
        put_string(out, "model", provider_model_id(model_at(answer, c->model)->provider));
        if (c->skipped) {
            buf_putc(out, ',');
            put_string(out, "skipped", c->skipped);
        } else if (answer->choice.route) {
            buf_printf(out, ",\"finish_s\":%.4g,\"cost_usd\":%.4g", c->finish_s, c->cost_usd);
        }
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static int64_t total_cost(const struct answer *answer)
{
    int64_t sum = 0;
    for (const struct attempt *a = answer->attempts; a; a = a->next)
        sum += a->cost_pico;
    return sum;
}

void answer_write_record(const struct answer *answer, const char *response_id, struct buf *out)
{
    const struct answer_params *params = &answer->params;
    const struct gateway_model *model = model_at(answer, answer_model(answer));
    buf_putc(out, '{');
    put_string(out, "id", response_id);
    buf_putc(out, ',');
    put_string(out, "request_id", params->request_id);
    buf_printf(out, ",\"created\":%lld,", (long long)(clock_unix_ms(params->gateway->clock) / 1000));
    put_string(out, "asked_for", answer->choice.name);
    buf_putc(out, ',');
    put_string(out, "policy", policy_of(answer));
    buf_putc(out, ',');
    put_string(out, "key", params->caller->key ? params->caller->key->id : NULL);
    buf_putc(out, ',');
    put_string(out, "conversation", params->request->conversation);
    buf_putc(out, ',');
    put_string(out, "model", answer->speaking ? provider_model_id(model->provider) : NULL);
    buf_putc(out, ',');
    put_string(out, "tier", answer->speaking ? ledger_tier_name(model->tier) : NULL);
    if (answer->is_cascade)
        buf_printf(out,
                   ",\"confidence\":%.4g,\"escalate_below\":%.4g,\"escalations\":%u,\"settled_for_less\":%s",
                   answer->confidence, answer->choice.route->escalate_below, answer->escalations,
                   answer->settled_for_less ? "true" : "false");
    if (answer->fault.message[0] && (answer->ending == ENDING_BADLY || !answer->has_spoken)) {
        buf_putc(out, ',');
        put_string(out, "error", answer->fault.message);
    }
    put_usd(out, "cost_usd", total_cost(answer));
    write_candidates(answer, out);
    write_attempts(answer, out);
    buf_putc(out, '}');
}
