/* What is told about an answer: the header x-pharos-route, and the record behind /v1/routes/ID. */
#include <string.h>

#include "gateway/answer_int.h"

#define RECORD_BYTES_USUAL 1000

static const struct gateway_model *model_at(const struct answer *answer, size_t index)
{
    return &answer->params.gateway->models[index];
}

static const char *policy_of(const struct answer *answer)
{
    return answer->choice.route ? gateway_policy_name(answer->choice.route->policy) : "fixed";
}

void answer_route_text(const struct answer *answer, struct buf *out)
{
    const struct gateway_model *model = model_at(answer, answer_model(answer));
    buf_puts(out, "model=");
    buf_puts(out, provider_model_id(model->provider));
    buf_puts(out, "; provider=");
    buf_puts(out, provider_name(model->provider));
    buf_puts(out, "; attempts=");
    buf_put_uint(out, answer->attempt_count);
    buf_puts(out, "; tier=");
    buf_puts(out, ledger_tier_name(model->tier));
    buf_puts(out, "; policy=");
    buf_puts(out, policy_of(answer));
    if (answer->escalations) {
        buf_puts(out, "; escalations=");
        buf_put_uint(out, answer->escalations);
    }
}

/* ---- The record */

/* The record is written for every answer, so nothing here goes through printf, and a member's name is a
 * literal with all that stands around it. */
#define FIRST(name) "{\"" name "\":"
#define NEXT(name) ",\"" name "\":"

static inline void put_string(struct buf *out, const char *name, const char *value)
{
    buf_puts(out, name);
    if (value)
        json_write_string(out, value, strlen(value));
    else
        buf_puts(out, "null");
}

static inline void put_bool(struct buf *out, const char *name, bool value)
{
    buf_puts(out, name);
    buf_puts(out, value ? "true" : "false");
}

static inline void put_number(struct buf *out, const char *name, uint64_t value)
{
    buf_puts(out, name);
    buf_put_uint(out, value);
}

/* To a thousandth of its unit. */
static inline void put_real(struct buf *out, const char *name, double value)
{
    buf_puts(out, name);
    buf_put_fixed(out, (int64_t)(value * 1000 + (value < 0 ? -0.5 : 0.5)), 3);
}

static inline void put_ms(struct buf *out, const char *name, uint64_t from_ns, uint64_t to_ns)
{
    if (to_ns < from_ns || !to_ns)
        return;
    buf_puts(out, name);
    buf_put_fixed(out, (int64_t)((to_ns - from_ns) / 1000), 3);
}

static inline void put_usd(struct buf *out, const char *name, int64_t pico)
{
    buf_puts(out, name);
    buf_put_fixed(out, pico, 12);
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
    put_string(out, FIRST("model"), provider_model_id(model->provider));
    put_string(out, NEXT("provider"), provider_name(model->provider));
    put_string(out, NEXT("tier"), ledger_tier_name(model->tier));
    put_string(out, NEXT("outcome"), outcome_of(answer, attempt));
    if (attempt->key_hint)
        put_string(out, NEXT("key"), attempt->key_hint);
    if (attempt->failed) {
        put_string(out, NEXT("cause"), chat_cause_name(attempt->fault.cause));
        put_string(out, NEXT("error"), attempt->fault.message);
    }
    if (attempt->http_status)
        put_number(out, NEXT("status"), (uint64_t)attempt->http_status);
    if (attempt->is_continuation)
        put_bool(out, NEXT("continued"), true);
    if (attempt->is_judged)
        put_real(out, NEXT("confidence"), attempt->confidence);
    put_ms(out, NEXT("started_ms"), answer->start_ns, attempt->start_ns);
    put_ms(out, NEXT("first_token_ms"), answer->start_ns, attempt->first_token_ns);
    put_ms(out, NEXT("ended_ms"), answer->start_ns, attempt->end_ns);
    put_number(out, NEXT("prompt_tokens"), attempt->usage.prompt_tokens);
    put_number(out, NEXT("cached_tokens"), attempt->usage.cached_tokens);
    put_number(out, NEXT("completion_tokens"), attempt->usage.output_tokens);
    put_usd(out, NEXT("cost_usd"), attempt->cost_pico);
    buf_putc(out, '}');
}

/* The list is newest first; the record is not. */
static void write_attempts(const struct answer *answer, struct buf *out)
{
    const struct attempt *in_order[ROUTE_ATTEMPTS_MAX];
    size_t count = answer->attempt_count, at = count;
    for (const struct attempt *a = answer->attempts; a; a = a->next)
        in_order[--at] = a;
    buf_puts(out, NEXT("attempts") "[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            buf_putc(out, ',');
        write_attempt(answer, in_order[i], out);
    }
    buf_putc(out, ']');
}

static void write_candidates(const struct answer *answer, struct buf *out)
{
    buf_puts(out, NEXT("candidates") "[");
    for (size_t i = 0; i < answer->choice.count; i++) {
        const struct route_candidate *c = &answer->choice.list[i];
        if (i)
            buf_putc(out, ',');
        put_string(out, FIRST("model"), provider_model_id(model_at(answer, c->model)->provider));
        if (c->skipped) {
            put_string(out, NEXT("skipped"), c->skipped);
        } else if (answer->choice.route) {
            put_real(out, NEXT("finish_s"), c->finish_s);
            put_usd(out, NEXT("cost_usd"), (int64_t)(c->cost_usd * (double)LEDGER_PICO_PER_USD));
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

static void write_judgement(const struct answer *answer, struct buf *out)
{
    put_real(out, NEXT("confidence"), answer->confidence);
    put_real(out, NEXT("escalate_below"), answer->escalate_below);
    put_number(out, NEXT("escalations"), answer->escalations);
    put_bool(out, NEXT("settled_for_less"), answer->settled_for_less);
    if (!answer->was_judged)
        return;
    put_real(out, NEXT("first_confidence"), answer->first_confidence);
    put_bool(out, NEXT("cheap"), answer->speaking && answer_is_first_stage(answer, answer->speaking));
}

void answer_write_record(const struct answer *answer, const char *response_id, struct buf *out)
{
    const struct answer_params *params = &answer->params;
    const struct gateway_model *model = model_at(answer, answer_model(answer));
    bool failed = answer->ending == ENDING_BADLY || !answer->has_spoken;
    if (!buf_reserve(out, RECORD_BYTES_USUAL)) /* once, instead of doubling its way up */
        return;
    put_string(out, FIRST("id"), response_id);
    put_string(out, NEXT("request_id"), params->request_id);
    put_number(out, NEXT("created"), (uint64_t)(clock_unix_ms(params->gateway->clock) / 1000));
    put_string(out, NEXT("asked_for"), answer->choice.name);
    put_string(out, NEXT("policy"), policy_of(answer));
    put_string(out, NEXT("key"), params->caller->key ? params->caller->key->id : NULL);
    put_string(out, NEXT("conversation"), params->request->conversation);
    put_string(out, NEXT("model"), answer->speaking ? provider_model_id(model->provider) : NULL);
    put_string(out, NEXT("tier"), answer->speaking ? ledger_tier_name(model->tier) : NULL);
    if (answer->is_cascade)
        write_judgement(answer, out);
    if (answer->fault.message[0] && failed)
        put_string(out, NEXT("error"), answer->fault.message);
    put_usd(out, NEXT("cost_usd"), total_cost(answer));
    write_candidates(answer, out);
    write_attempts(answer, out);
    buf_putc(out, '}');
}
