/* Routing: which models are asked for a request, in which order, and why not the others.
 *
 * 1. The name asked for is a route's, or a model's own.
 * 2. Every member is looked at: is the caller allowed, is it alive, can it do what is asked for, does the
 *    prompt fit, has its account room in its windows? Who fails is kept at the end of the list with the
 *    reason, for the record.
 * 3. The policy gives each of the others a score; the list is sorted by stage and score.
 *
 * Finish time: the wait for a place, the prompt that is not cached yet over the prefill speed, the expected
 * output over the decode speed. In this process all of that is known from the engine itself; for others it is
 * what their last answers were like. Nothing here waits or calls out: microseconds. What of a prompt is
 * cached is known only when it was made, which takes ten times as long as all the rest: so that is asked only
 * where it decides. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "gateway/gateway_int.h"

#define BYTES_A_TOKEN 4.0
#define IMAGE_TOKENS 1000        /* what most providers count for a picture, roughly */
#define OUTPUT_GUESS 300.0       /* tokens of an answer whose length nobody limits: for comparing only */
#define OUTPUT_MAX_DEFAULT 32768 /* to reckon with, where neither client nor configuration says */
#define SPEED_SMOOTHING 0.2
#define FIRST_TOKEN_GUESS_S 1.0
#define TOKEN_GUESS_S 0.02

struct chooser {
    struct gateway *gateway;
    struct arena *arena;
    const struct chat_request *request;
    const struct caller *caller;
    struct route_choice *out;
    size_t prompt_tokens; /* estimated */
    double output;        /* tokens that are expected */
    struct key_models allowed;
    unsigned needs; /* abilities */
    /* As the list, before it is sorted; only those that were looked at are filled. */
    struct provider_state states[ROUTE_CANDIDATES_MAX];
    double best_score[ROUTE_CANDIDATES_MAX]; /* were all of its prompt cached */
};

const char *gateway_policy_name(enum gateway_policy policy)
{
    static const char *const names[GATEWAY_POLICY_COUNT] = {"fallback", "weighted", "fastest", "cheapest",
                                                            "tiers",    "cascade",  "task"};
    return names[policy];
}

/* ---- What the request needs */

size_t route_estimate_tokens(const struct chat_request *request)
{
    double bytes = 0, images = 0;
    for (size_t i = 0; i < request->message_count; i++) {
        const struct chat_message *m = &request->messages[i];
        bytes += (double)m->content.len + 16;
        for (size_t k = 0; k < m->tool_call_count; k++)
            bytes += (double)m->tool_calls[k].arguments.len + 32;
        for (size_t k = 0; k < m->part_count; k++)
            images += m->parts[k].kind == CHAT_PART_IMAGE;
    }
    for (size_t i = 0; i < request->prompt_count; i++)
        bytes += (double)request->prompts[i].text.len + BYTES_A_TOKEN * (double)request->prompts[i].id_count;
    return (size_t)(bytes / BYTES_A_TOKEN + images * IMAGE_TOKENS) + 1;
}

static bool has_images(const struct chat_request *request)
{
    for (size_t i = 0; i < request->message_count; i++)
        for (size_t k = 0; k < request->messages[i].part_count; k++)
            if (request->messages[i].parts[k].kind == CHAT_PART_IMAGE)
                return true;
    return false;
}

unsigned route_needs(const struct chat_request *request)
{
    bool json = !json_is_absent(request->response_format) &&
                !json_text_is(json_get(request->response_format, "type"), "text");
    return (request->tools ? GATEWAY_TOOLS : 0u) | (has_images(request) ? GATEWAY_IMAGES : 0u) |
           (request->logprobs ? GATEWAY_LOGPROBS : 0u) | (json ? GATEWAY_JSON : 0u) |
           (request->choices > 1 ? GATEWAY_CHOICES : 0u) |
           (request->kind == CHAT_KIND_COMPLETION ? GATEWAY_COMPLETION : 0u);
}

static const char *missing_ability(unsigned missing)
{
    static const struct {
        unsigned bit;
        const char *text;
    } rows[] = {{GATEWAY_TOOLS, "it cannot call tools"},
                {GATEWAY_IMAGES, "it cannot see images"},
                {GATEWAY_LOGPROBS, "it gives no log-probabilities"},
                {GATEWAY_JSON, "it cannot be held to a response format"},
                {GATEWAY_CHOICES, "it gives one choice only"},
                {GATEWAY_COMPLETION, "it answers chats only"},
                {GATEWAY_EMBEDDINGS, "it makes no embeddings"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (missing & rows[i].bit)
            return rows[i].text;
    return NULL;
}

size_t route_output_tokens(const struct gateway_model *model, const struct chat_request *request,
                           size_t prompt_tokens)
{
    size_t context = provider_context_len(model->provider);
    size_t most = model->max_output ? model->max_output : OUTPUT_MAX_DEFAULT;
    if (request->max_tokens)
        most = model->max_output && model->max_output < request->max_tokens ? most : request->max_tokens;
    if (context && most > context - (prompt_tokens < context ? prompt_tokens : context))
        most = context - (prompt_tokens < context ? prompt_tokens : context);
    return most * chat_choice_count(request);
}

/* ---- Who can be asked */

static void skip(struct route_candidate *c, enum chat_cause why, const char *text)
{
    c->skipped = text;
    c->why = why;
}

static const char *unusable_text(enum chat_cause why)
{
    switch (why) {
    case CHAT_CAUSE_KEY:
        return "every key of the account has been refused";
    case CHAT_CAUSE_RATE:
        return "every key of the account rests after too many requests";
    case CHAT_CAUSE_OVERLOADED:
        return "the circuit breaker is open: it failed too often";
    default:
        return "it is not ready";
    }
}

static struct provider_state *state_of(struct chooser *c, const struct route_candidate *candidate)
{
    return &c->states[candidate - c->out->list];
}

static void skip_for(struct chooser *c, struct route_candidate *candidate, uint64_t wait_s,
                     enum chat_cause why, const char *text)
{
    if (!c->out->retry_after_s || wait_s < c->out->retry_after_s)
        c->out->retry_after_s = wait_s;
    skip(candidate, why, text);
}

static void look_at_state(struct chooser *c, struct route_candidate *candidate)
{
    struct provider_state *state = state_of(c, candidate);
    provider_state(c->gateway->models[candidate->model].provider, state);
    if (state->usable)
        return;
    uint64_t now = clock_monotonic_ns(c->gateway->clock);
    uint64_t wait_s = state->usable_at_ns > now ? (state->usable_at_ns - now) / 1000000000 + 1 : 1;
    skip_for(c, candidate, wait_s, state->why, unusable_text(state->why));
}

/* One model is asked whatever its state is, unless it is held: it explains itself better than a route could.
 */
static void look_at(struct chooser *c, struct route_candidate *candidate)
{
    const struct gateway_model *model = &c->gateway->models[candidate->model];
    const struct gateway_brake *brake = &c->gateway->brakes[candidate->model];
    size_t context = provider_context_len(model->provider);
    unsigned missing = c->needs & ~model->abilities;
    bool vectors = (c->needs & GATEWAY_EMBEDDINGS) != 0; /* each input has the context for itself */
    if (!key_models_have(&c->allowed, provider_model_id(model->provider)))
        skip(candidate, CHAT_CAUSE_KEY, "the caller's key does not allow it");
    else if (brake->held)
        skip_for(c, candidate, brake->retry_after_s, CHAT_CAUSE_OVERLOADED, brake->held);
    else if (!c->out->route)
        return;
    else if (missing)
        skip(candidate, CHAT_CAUSE_UNABLE, missing_ability(missing));
    else if (!vectors && (model->abilities & GATEWAY_VECTORS_ONLY))
        skip(candidate, CHAT_CAUSE_UNABLE, "it makes embeddings and writes no text");
    else if (!vectors && context &&
             c->prompt_tokens > context + context / 4) /* surely too long; the rest is tried */
        skip(candidate, CHAT_CAUSE_CONTEXT, "the prompt is longer than its context");
    else
        look_at_state(c, candidate);
}

/* ---- Scores */

static double expected_output(const struct chat_request *request)
{
    double most = request->max_tokens ? (double)request->max_tokens : OUTPUT_GUESS;
    return most < OUTPUT_GUESS ? most : OUTPUT_GUESS;
}

/* What was measured counts before what was predicted, that before a guess. */
static double token_s(const struct provider_state *state, const struct model_speed *speed)
{
    if (state->decode_tokens_s > 0)
        return 1 / state->decode_tokens_s;
    if (speed->token_s > 0)
        return speed->token_s;
    return speed->predicted_decode_tokens_s > 0 ? 1 / speed->predicted_decode_tokens_s : TOKEN_GUESS_S;
}

static double predict_finish_s(struct chooser *c, const struct route_candidate *candidate, size_t cached)
{
    struct gateway *gateway = c->gateway;
    const struct model_speed *speed = &gateway->speeds[candidate->model];
    const struct provider_state *state = state_of(c, candidate);
    double decode_s = c->output * token_s(state, speed);
    double prefill_tokens_s =
        state->prefill_tokens_s > 0 ? state->prefill_tokens_s : speed->predicted_prefill_tokens_s;
    double waiting = (double)(state->waiting + gate_waiting(gateway->gates[candidate->model]));
    double rounds =
        state->sequences_max ? (waiting + (double)state->running) / (double)state->sequences_max : 0;
    if (prefill_tokens_s > 0) {
        double fresh = (double)(c->prompt_tokens > cached ? c->prompt_tokens - cached : 0);
        double evicts = state->kv_tokens_free && fresh > (double)state->kv_tokens_free ? decode_s : 0;
        return floor(rounds) * decode_s + evicts + fresh / prefill_tokens_s + decode_s;
    }
    double first_s = speed->first_token_s > 0 ? speed->first_token_s : FIRST_TOKEN_GUESS_S;
    return floor(rounds) * decode_s + first_s + decode_s;
}

static double predict_cost_usd(struct chooser *c, const struct route_candidate *candidate)
{
    const struct ledger_price *price = &c->gateway->models[candidate->model].price;
    double pico = (double)price->input * (double)c->prompt_tokens + (double)price->output * c->output;
    return pico * (1 / (double)LEDGER_PICO_PER_USD);
}

/* The same conversation, or person, goes to the same member: its caches are there. */
static double sticky_fraction(struct chooser *c)
{
    const char *who = c->request->conversation ? c->request->conversation : c->request->user;
    if (!who || !*who)
        return rng_double(&c->gateway->rng);
    uint64_t hash = UINT64_C(14695981039346656037);
    for (; *who; who++)
        hash = (hash ^ (unsigned char)*who) * UINT64_C(1099511628211);
    hash ^= hash >> 31;
    hash *= UINT64_C(0x9E3779B97F4A7C15);
    return (double)(hash >> 11) * 0x1p-53;
}

/* The chosen one has score 0, the others follow by weight. */
static void score_weighted(struct chooser *c, const struct gateway_route *route)
{
    double total = 0, at = sticky_fraction(c), sum = 0;
    size_t chosen = SIZE_MAX;
    for (size_t i = 0; i < route->member_count; i++)
        total += route->members[i].weight;
    for (size_t i = 0; i < route->member_count && chosen == SIZE_MAX; i++) {
        sum += route->members[i].weight;
        if (at * total < sum)
            chosen = i;
    }
    for (size_t i = 0; i < c->out->count; i++)
        c->out->list[i].score = i == chosen ? 0 : 1 + 1 / (1e-9 + route->members[i].weight);
}

/* "nuance" wants the best there is, "diversity" another family than ours, anything else stays here. */
static enum ledger_tier tier_of_task(const struct chat_request *request)
{
    const char *task = json_text(json_get(request->metadata, "task"), "");
    return strcmp(task, "nuance") == 0      ? LEDGER_PREMIUM
           : strcmp(task, "diversity") == 0 ? LEDGER_SUBSCRIPTION
                                            : LEDGER_LOCAL;
}

static void set_stages(struct chooser *c, enum gateway_policy policy)
{
    enum ledger_tier first = tier_of_task(c->request);
    for (size_t i = 0; i < c->out->count; i++) {
        struct route_candidate *candidate = &c->out->list[i];
        enum ledger_tier tier = c->gateway->models[candidate->model].tier;
        if (policy == GATEWAY_TASK)
            candidate->stage = tier == first ? 0 : 1 + (unsigned)tier;
        else if (policy != GATEWAY_TIERS && policy != GATEWAY_CASCADE)
            candidate->stage = 0;
    }
}

/* One nanodollar a second decides between equals. */
static double score_of(enum gateway_policy policy, const struct route_candidate *candidate, double finish_s)
{
    return policy == GATEWAY_CHEAPEST ? candidate->cost_usd + 1e-9 * finish_s : finish_s;
}

/* Could its place change with what is cached of its prompt? */
static bool is_undecided(const struct chooser *c, size_t index)
{
    const struct route_candidate *list = c->out->list;
    if (list[index].skipped || c->best_score[index] >= list[index].score)
        return false;
    for (size_t i = 0; i < c->out->count; i++)
        if (i != index && !list[i].skipped && list[i].stage == list[index].stage &&
            c->best_score[i] <= list[index].score && list[i].score >= c->best_score[index])
            return true;
    return false;
}

/* As if nothing were cached; then, where that is not enough to tell, as it is. */
static void score_by_time(struct chooser *c, enum gateway_policy policy)
{
    struct route_candidate *list = c->out->list;
    for (size_t i = 0; i < c->out->count; i++) {
        const struct provider *provider = c->gateway->models[list[i].model].provider;
        if (list[i].skipped)
            continue;
        list[i].score = c->best_score[i] = score_of(policy, &list[i], list[i].finish_s);
        if (provider_knows_cached(provider))
            c->best_score[i] = score_of(policy, &list[i], predict_finish_s(c, &list[i], SIZE_MAX));
    }
    for (size_t i = 0; i < c->out->count; i++) {
        if (!is_undecided(c, i))
            continue;
        size_t cached = provider_cached_tokens(c->gateway->models[list[i].model].provider, c->request);
        list[i].finish_s = predict_finish_s(c, &list[i], cached);
        list[i].score = c->best_score[i] = score_of(policy, &list[i], list[i].finish_s);
    }
}

static void score(struct chooser *c)
{
    const struct gateway_route *route = c->out->route;
    if (!route)
        return;
    for (size_t i = 0; i < c->out->count; i++) {
        struct route_candidate *candidate = &c->out->list[i];
        if (candidate->skipped)
            continue;
        candidate->cost_usd = predict_cost_usd(c, candidate);
        candidate->finish_s = predict_finish_s(c, candidate, 0);
        candidate->score = (double)i;
    }
    set_stages(c, route->policy);
    if (route->policy == GATEWAY_WEIGHTED)
        score_weighted(c, route);
    else if (route->policy != GATEWAY_FALLBACK)
        score_by_time(c, route->policy);
}

static bool comes_before(const struct route_candidate *a, const struct route_candidate *b)
{
    if (!a->skipped != !b->skipped)
        return !a->skipped;
    if (a->stage != b->stage)
        return a->stage < b->stage;
    return a->score < b->score;
}

/* By insertion, of places instead of what stands there; equals stay in the order of the configuration. */
static size_t place_of(const struct route_candidate *list, const uint8_t *order, size_t at)
{
    size_t low = 0, high = at;
    if (at == 0 || !comes_before(&list[at], &list[order[at - 1]]))
        return at;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (comes_before(&list[at], &list[order[middle]]))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void sort(struct route_choice *choice)
{
    struct route_candidate copy[ROUTE_CANDIDATES_MAX];
    uint8_t order[ROUTE_CANDIDATES_MAX];
    bool moved = false;
    static_assert(ROUTE_CANDIDATES_MAX <= UINT8_MAX, "a place fits");
    for (size_t i = 0; i < choice->count; i++) {
        size_t at = place_of(choice->list, order, i);
        moved = moved || at < i;
        memmove(&order[at + 1], &order[at], i - at);
        order[at] = (uint8_t)i;
    }
    if (moved) {
        memcpy(copy, choice->list, choice->count * sizeof *copy);
        for (size_t i = 0; i < choice->count; i++)
            choice->list[i] = copy[order[i]];
    }
    choice->usable = 0;
    while (choice->usable < choice->count && !choice->list[choice->usable].skipped)
        choice->usable++;
}

/* ---- The choice */

static bool find(struct chooser *c, struct chat_fault *fault)
{
    struct gateway *gateway = c->gateway;
    struct route_choice *out = c->out;
    const char *name = c->request->model;
    for (size_t i = 0; name && i < gateway->route_count && !out->route; i++)
        if (strcmp(gateway->routes[i].name, name) == 0)
            out->route = &gateway->routes[i];
    const struct gateway_route *route = out->route;
    out->count_max = route ? route->member_count + route->too_long_count + route->refused_count : 1;
    out->count_max = out->count_max < ROUTE_CANDIDATES_MAX ? out->count_max : ROUTE_CANDIDATES_MAX;
    out->list = arena_calloc(c->arena, out->count_max, sizeof *out->list);
    if (!out->list) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return false;
    }
    if (route) {
        for (size_t i = 0; i < out->route->member_count && i < out->count_max; i++)
            out->list[out->count++] = (struct route_candidate){.model = out->route->members[i].model,
                                                               .stage = out->route->members[i].stage};
        out->name = out->route->name;
        return true;
    }
    size_t index;
    bool unnamed = !name || !*name || strcmp(name, "default") == 0;
    if (!gateway_find(gateway, name, &index, fault))
        return false;
    if (unnamed)
        index = gateway_default(gateway, c->needs);
    out->list[out->count++] = (struct route_candidate){.model = index};
    out->name = provider_model_id(gateway->models[index].provider);
    return true;
}

/* Nobody is left: the reason that a caller can do most about. */
static void explain(const struct chooser *c, struct chat_fault *fault)
{
    static const struct {
        enum chat_cause why;
        int status;
        const char *code, *param;
    } rows[] = {{CHAT_CAUSE_CONTEXT, 400, "context_length_exceeded", "messages"},
                {CHAT_CAUSE_UNABLE, 400, "unsupported_parameter", NULL},
                {CHAT_CAUSE_RATE, 429, "rate_limit_exceeded", NULL},
                {CHAT_CAUSE_OVERLOADED, 503, "model_unavailable", NULL},
                {CHAT_CAUSE_OURS, 503, "model_unavailable", NULL}};
    const struct route_choice *choice = c->out;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t i = 0; i < choice->count; i++)
            if (choice->list[i].why == rows[r].why) {
                const struct gateway_model *model = &c->gateway->models[choice->list[i].model];
                chat_fault_set(fault, rows[r].status, rows[r].code, rows[r].param,
                               "no model of \"%.100s\" can answer this: %.100s: %s", choice->name,
                               provider_model_id(model->provider), choice->list[i].skipped);
                fault->cause = rows[r].why;
                if (rows[r].status != 400)
                    fault->retry_after_s = (uint32_t)choice->retry_after_s;
                return;
            }
    bool not_allowed =
        choice->count && choice->list[0].skipped &&
        !key_models_have(&c->allowed, provider_model_id(c->gateway->models[choice->list[0].model].provider));
    chat_fault_set(fault, not_allowed ? 403 : 502, not_allowed ? "model_not_allowed" : "model_unavailable",
                   not_allowed ? "model" : NULL, "no model of \"%.100s\" can be asked: %s", choice->name,
                   choice->count ? choice->list[0].skipped : "the route is empty");
}

bool route_choose(struct gateway *gateway, struct arena *arena, const struct chat_request *request,
                  unsigned needs, const struct caller *caller, struct route_choice *out,
                  struct chat_fault *fault)
{
    struct chooser c; /* not all of it is filled, on purpose */
    c.gateway = gateway;
    c.arena = arena;
    c.request = request;
    c.caller = caller;
    c.out = out;
    c.needs = needs;
    *out = (struct route_choice){.route = NULL};
    if (!find(&c, fault))
        return false;
    c.prompt_tokens = route_estimate_tokens(request);
    c.output = expected_output(request);
    c.allowed.all = true;
    c.allowed.count = 0;
    if (caller->key)
        key_models_of(caller->key, &c.allowed);
    for (size_t i = 0; i < out->count; i++) {
        out->list[i].prompt_tokens = c.prompt_tokens;
        look_at(&c, &out->list[i]);
    }
    score(&c);
    sort(out);
    if (out->usable)
        return true;
    explain(&c, fault);
    return false;
}

void route_saw_speed(struct gateway *gateway, size_t model, double first_token_s, double token_s)
{
    struct model_speed *speed = &gateway->speeds[model];
    double a = SPEED_SMOOTHING;
    if (first_token_s > 0)
        speed->first_token_s =
            speed->first_token_s > 0 ? (1 - a) * speed->first_token_s + a * first_token_s : first_token_s;
    if (token_s > 0)
        speed->token_s = speed->token_s > 0 ? (1 - a) * speed->token_s + a * token_s : token_s;
}
