/* Attempts: one model asked once.
 *
 *   WAITING  in the model's gate, until it is its turn
 *   RUNNING  it has its place, its share of the account's rate, its hold in the ledger, and a provider's call
 *   DRAINING nobody wants the answer any more; what was bought is counted to its end
 *   OVER     settled: place, rate and hold given back
 *
 * This is the one place where output is metered: every token that passes is counted in the hold before it
 * goes on, whatever the dialect, and when the hold is used up the provider is told to stop there.
 *
 * Invariant: an attempt's memory is its exchange's, so an exchange may end only when all its attempts are
 * OVER; answer.c sees to it. */
#include <stdio.h>
#include <string.h>

#include "gateway/gateway_int.h"

#define DRAIN_MS 1500
#define BOUND_SLACK_TOKENS 32
#define BUSY_RETRY_S 1

struct attempt *attempt_new(struct answer *answer, struct gateway *gateway, struct arena *arena, size_t model,
                            const struct chat_request *request)
{
    struct attempt *attempt = arena_calloc(arena, 1, sizeof *attempt);
    if (!attempt)
        return NULL;
    attempt->answer = answer;
    attempt->gateway = gateway;
    attempt->model = model;
    attempt->request = *request;
    attempt->start_ns = clock_monotonic_ns(gateway->clock);
    attempt->confidence = -1;
    recording_init(&attempt->recording, CHAT_REPLY_BYTES_MAX);
    return attempt;
}

static const struct gateway_model *model_of(const struct attempt *attempt)
{
    return &attempt->gateway->models[attempt->model];
}

static bool is_priced(const struct ledger_price *price)
{
    return price->input || price->output || price->cached_input || price->cache_write;
}

/* ---- The end */

static void learn_speed(struct attempt *attempt)
{
    double first_s =
        attempt->first_token_ns ? (double)(attempt->first_token_ns - attempt->sent_ns) * 1e-9 : 0;
    double rest_s = attempt->first_token_ns ? (double)(attempt->end_ns - attempt->first_token_ns) * 1e-9 : 0;
    route_saw_speed(attempt->gateway, attempt->model, first_s,
                    attempt->counted > 8 ? rest_s / (double)(attempt->counted - 1) : 0);
}

static void take_note(struct attempt *attempt)
{
    struct provider_call_note note = {0};
    if (!attempt->call)
        return;
    provider_call_note(attempt->call, &note);
    attempt->http_status = note.http_status;
    attempt->key_hint = note.key_hint;
}

/* Gives everything back. What was used is what the provider said, else what was counted. */
static void settle(struct attempt *attempt, enum ledger_outcome outcome)
{
    struct gateway *gateway = attempt->gateway;
    if (!attempt->has_usage)
        attempt->usage = (struct ledger_usage){
            .prompt_tokens = attempt->prompt_tokens, .output_tokens = attempt->counted, .estimated = true};
    if (!attempt->has_sums && attempt->usage.output_tokens < attempt->counted)
        attempt->usage.output_tokens = attempt->counted; /* sums of the middle lag behind */
    if (outcome == LEDGER_UNUSED)
        attempt->usage = (struct ledger_usage){0};
    if (attempt->hold)
        ledger_settle(gateway->ledger, attempt->hold, &attempt->usage, outcome);
    rates_give(gateway->rates, &attempt->take, attempt->usage.prompt_tokens + attempt->usage.output_tokens);
    attempt->hold = NULL;
    attempt->call = NULL;
    attempt->end_ns = clock_monotonic_ns(gateway->clock);
    attempt->outcome = outcome;
    attempt->cost_pico = ledger_cost(&model_of(attempt)->price, &attempt->usage);
    attempt->state = ATTEMPT_OVER;
    if (outcome == LEDGER_WHOLE)
        learn_speed(attempt);
    if (attempt->ticket.gate)
        gate_leave(&attempt->ticket);
}

static bool fail(struct attempt *attempt, const struct chat_fault *fault)
{
    bool was_used = attempt->counted > 0 || attempt->has_usage;
    attempt->failed = true;
    attempt->fault = *fault;
    settle(attempt, was_used ? LEDGER_FAILED : LEDGER_UNUSED);
    return false;
}

/* ---- Events */

static void fault_of(const struct chat_event *event, struct chat_fault *out)
{
    chat_fault_set(out, event->error.http_status, event->error.code, event->error.param, "%s",
                   event->error.message);
    out->type = event->error.type;
    out->retry_after_s = event->error.retry_after_s;
    out->cause = event->error.cause;
}

/* Sums that grow with the text say better than an estimate what was written so far. One before any text is a
 * placeholder (Anthropic's 1), but for thoughts; one that stays as it was lags behind. false: stop. */
static bool keep_running_sum(struct attempt *attempt, const struct chat_event *event)
{
    uint64_t output = event->usage.completion_tokens;
    bool has_begun = attempt->counted || attempt->has_usage || event->usage.reasoning_tokens;
    bool grew = output > attempt->said;
    attempt->said = output;
    if (!has_begun || !grew)
        return true;
    attempt->counted = output;
    attempt->sum_was_last = true;
    bool is_obeyed = !attempt->output_limit || output <= attempt->output_limit;
    return !attempt->hold || (ledger_count(attempt->hold, output) && is_obeyed);
}

/* Sums after the last choice's end are what is billed, whatever an estimate of the text said. Those of the
 * provider module, which has none, are made of what was counted here. */
static void keep_usage(struct attempt *attempt, const struct chat_event *event)
{
    bool is_final = attempt->finished >= chat_choice_count(&attempt->request);
    bool is_said = !event->usage.estimated, goes_on = !is_said || keep_running_sum(attempt, event);
    attempt->has_sums = is_final;
    attempt->has_usage = true;
    attempt->usage =
        (struct ledger_usage){.prompt_tokens = event->usage.prompt_tokens,
                              .cached_tokens = event->usage.cached_tokens,
                              .cache_write_tokens = event->usage.cache_write_tokens,
                              .output_tokens = is_final && is_said ? attempt->said : attempt->counted,
                              .estimated = event->usage.estimated};
    if (attempt->hold && !ledger_count_prompt(attempt->hold, event->usage.prompt_tokens,
                                              event->usage.cached_tokens, event->usage.cache_write_tokens))
        goes_on = false;
    if (!goes_on && !attempt->has_sums && is_priced(&model_of(attempt)->price))
        attempt->is_cut = true;
}

/* false: the hold is used up by this event. What costs nothing is counted too, and never cut: its hold was
 * reckoned from an estimate of the prompt. Where a sum came with every delta so far, this one's decides. */
static bool count(struct attempt *attempt, const struct chat_event *event)
{
    bool sum_follows = attempt->sum_was_last;
    attempt->sum_was_last = false;
    attempt->counted += event->tokens;
    attempt->finished += event->kind == CHAT_EVENT_FINISH;
    if (!attempt->first_token_ns && event->kind != CHAT_EVENT_FINISH)
        attempt->first_token_ns = clock_monotonic_ns(attempt->gateway->clock);
    bool is_paid_for = !attempt->hold || ledger_count(attempt->hold, attempt->counted);
    return is_paid_for || sum_follows || !is_priced(&model_of(attempt)->price);
}

static bool is_content(const struct chat_event *event)
{
    return event->kind == CHAT_EVENT_TEXT || event->kind == CHAT_EVENT_REASONING ||
           event->kind == CHAT_EVENT_TOOL_CALL || event->kind == CHAT_EVENT_FINISH;
}

static bool on_last_event(struct attempt *attempt, const struct chat_event *event)
{
    struct chat_fault fault;
    bool was_dropped = attempt->state == ATTEMPT_DRAINING;
    take_note(attempt);
    if (was_dropped) {
        settle(attempt, attempt->outcome);
    } else if (event->kind == CHAT_EVENT_DONE) {
        settle(attempt, LEDGER_WHOLE);
    } else {
        fault_of(event, &fault);
        (void)fail(attempt, &fault);
    }
    answer_attempt_ended(attempt);
    return true; /* the attempt may be gone */
}

static bool on_event(void *ud, const struct chat_event *event)
{
    struct attempt *attempt = ud;
    if (event->kind == CHAT_EVENT_DONE || event->kind == CHAT_EVENT_ERROR)
        return on_last_event(attempt, event);
    bool goes_on = true;
    if (event->kind == CHAT_EVENT_USAGE)
        keep_usage(attempt, event);
    else if (is_content(event))
        goes_on = count(attempt, event);
    if (attempt->state == ATTEMPT_DRAINING)
        return true;
    bool more = answer_attempt_event(attempt, event);
    bool can_stop = attempt->request.stream; /* a whole reply is complete when it comes, and paid for */
    if (can_stop && (!goes_on || attempt->is_cut) && attempt->state == ATTEMPT_RUNNING) {
        attempt->is_cut = true;
        (void)attempt_drop(attempt, LEDGER_CUT);
    }
    return more;
}

/* ---- The beginning */

static bool take_rate(struct attempt *attempt, struct chat_fault *fault)
{
    const struct gateway_account *account = gateway_account(attempt->gateway, attempt->model);
    if (!account || (!account->rpm && !account->tpm))
        return true;
    struct rate_limits limits = {account->rpm, account->tpm, 0};
    uint32_t retry_after_s = 0;
    const char *which = "";
    char who[80];
    snprintf(who, sizeof who, "provider:%.64s", account->name);
    if (rates_take(attempt->gateway->rates, who, &limits, attempt->prompt_tokens, &attempt->take,
                   &retry_after_s, &which))
        return true;
    chat_fault_set(fault, 429, "rate_limit_exceeded", NULL,
                   "the account %.60s has used its %s of this minute; try again in %u s", account->name,
                   which, (unsigned)retry_after_s);
    fault->retry_after_s = retry_after_s;
    return false;
}

static void explain_refusal(const struct ledger_refusal *refusal, struct chat_fault *fault)
{
    static const char *const whose[LEDGER_SCOPE_COUNT] = {"the station's", "the tier's", "the account's",
                                                          "the key's"};
    char day[CLOCK_UTC_TEXT_MAX];
    clock_format_utc(refusal->renews_unix_s * 1000, day);
    chat_fault_set(
        fault, 429, "insufficient_quota", NULL,
        "%s budget%s%.60s of %.2f USD a month is used up (%.4f spent, %.4f held by running requests); "
        "it renews on %.10s",
        whose[refusal->scope], refusal->name[0] ? " " : "", refusal->name, ledger_usd(refusal->limit_pico),
        ledger_usd(refusal->spent_pico), ledger_usd(refusal->held_pico), day);
    fault->type = "insufficient_quota";
    fault->cause = CHAT_CAUSE_BUDGET;
}

/* How far a count may go that may be an estimate, before the provider is not believed to keep to the limit;
 * where there is none the budgets are. */
static uint64_t output_bound(uint64_t limit)
{
    return limit ? limit + limit / 2 + BOUND_SLACK_TOKENS : UINT64_MAX;
}

static bool reserve(struct attempt *attempt, const struct caller *caller, const char *request_id,
                    struct chat_fault *fault)
{
    const struct gateway_model *model = model_of(attempt);
    struct ledger_refusal refusal;
    bool priced = is_priced(&model->price);
    if (priced)
        attempt->prompt_tokens = provider_count_tokens(model->provider, &attempt->request, NULL);
    size_t asked = route_output_tokens(model, &attempt->request, attempt->prompt_tokens);
    attempt->output_limit = attempt->request.max_tokens * chat_choice_count(&attempt->request);
    struct ledger_ask ask = {.request_id = request_id,
                             .key_id = caller_account(caller),
                             .model = provider_model_id(model->provider),
                             .provider = provider_name(model->provider),
                             .tier = model->tier,
                             .price = model->price,
                             .premium = attempt->gateway->premium,
                             .prompt_tokens = attempt->prompt_tokens,
                             .output_tokens_max = asked,
                             .output_tokens_bound = output_bound(attempt->output_limit)};
    enum ph_status status = ledger_reserve(attempt->gateway->ledger, &ask, &attempt->hold, &refusal);
    if (status == PH_ERR_LIMIT) {
        explain_refusal(&refusal, fault);
        return false;
    }
    if (status != PH_OK) {
        chat_fault_set(fault, 429, "rate_limit_exceeded", NULL, "too many requests are on their way");
        fault->retry_after_s = BUSY_RETRY_S;
        return false;
    }
    uint64_t granted = ledger_hold_output_max(attempt->hold) / chat_choice_count(&attempt->request);
    if (priced && granted < asked && (!attempt->request.max_tokens || granted < attempt->request.max_tokens))
        attempt->request.max_tokens = granted ? granted : 1;
    return true;
}

/* It may have come to be held while we waited. */
static bool may_run(const struct attempt *attempt, struct chat_fault *fault)
{
    const struct gateway_brake *brake = &attempt->gateway->brakes[attempt->model];
    if (!brake->held)
        return true;
    chat_fault_set(fault, 503, "model_unavailable", NULL, "%.100s: %s",
                   provider_model_id(model_of(attempt)->provider), brake->held);
    fault->cause = CHAT_CAUSE_OVERLOADED;
    fault->retry_after_s = brake->retry_after_s;
    return false;
}

/* It is our turn. */
static bool run(struct attempt *attempt, const struct caller *caller, const char *request_id)
{
    struct chat_fault fault;
    struct provider_sink sink = {on_event, attempt};
    struct gateway *gateway = attempt->gateway;
    if (!may_run(attempt, &fault) || !take_rate(attempt, &fault) ||
        !reserve(attempt, caller, request_id, &fault))
        return fail(attempt, &fault);
    attempt->state = ATTEMPT_RUNNING;
    attempt->sent_ns = clock_monotonic_ns(gateway->clock);
    if (provider_start(model_of(attempt)->provider, gateway->loop, &attempt->request, &sink, &attempt->call,
                       &fault) == PH_OK)
        return true;
    attempt->call = NULL;
    return fail(attempt, &fault);
}

static void on_turn(void *ud)
{
    struct attempt *attempt = ud;
    if (!run(attempt, attempt->caller, attempt->request_id))
        answer_attempt_ended(attempt);
}

bool attempt_start(struct attempt *attempt, const struct caller *caller, const char *request_id,
                   size_t prompt_tokens)
{
    struct gateway *gateway = attempt->gateway;
    struct chat_fault fault;
    bool entered = false;
    attempt->caller = caller;
    attempt->request_id = request_id;
    attempt->prompt_tokens = prompt_tokens;
    uint64_t cost = prompt_tokens + (attempt->request.max_tokens ? attempt->request.max_tokens : 256);
    enum ph_status status = gate_enter(gateway->gates[attempt->model], caller_account(caller), cost,
                                       &attempt->ticket, on_turn, attempt, &entered);
    if (status != PH_OK) {
        attempt->ticket.gate = NULL;
        chat_fault_set(&fault, 429, "rate_limit_exceeded", NULL,
                       "too many requests wait for %.100s; try again shortly",
                       provider_model_id(model_of(attempt)->provider));
        fault.retry_after_s = BUSY_RETRY_S;
        return fail(attempt, &fault);
    }
    return entered ? run(attempt, caller, request_id) : true;
}

void attempt_resume(struct attempt *attempt)
{
    if (attempt->call && attempt->state == ATTEMPT_RUNNING)
        provider_resume(attempt->call);
}

bool attempt_drop(struct attempt *attempt, enum ledger_outcome outcome)
{
    if (attempt->state == ATTEMPT_WAITING)
        settle(attempt, LEDGER_UNUSED);
    if (attempt->state != ATTEMPT_RUNNING)
        return attempt->state == ATTEMPT_OVER;
    attempt->state = ATTEMPT_DRAINING;
    attempt->outcome = outcome;
    provider_hang_up(attempt->call, DRAIN_MS);
    return false;
}
