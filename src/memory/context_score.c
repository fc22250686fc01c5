/* Strategies are rows of weights over the same features; a new one is a new row. The learned one goes on: of
 * the best by that sum, the set transformer says what the others beside it change. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memory/context_int.h"
#include "memory/spt_int.h"
#include "memory/spt_set_int.h"

#define HALF_LIFE_S (30.0 * 86400)

static const char *const names[CONTEXT_STRATEGY_COUNT] = {
    [CONTEXT_RECENT_ONLY] = "recent_only",
    [CONTEXT_SEMANTIC_FOCUS] = "semantic_focus",
    [CONTEXT_TEMPORAL_DECAY] = "temporal_decay",
    [CONTEXT_HYBRID] = "hybrid",
    [CONTEXT_SPT] = "spt",
};

/* By itself: words, letters, meaning of the turn. */
static const float focus[FEATURE_COUNT] = {[F_WORDS] = 6, [F_GRAMS] = 1, [F_MEANING] = 1};

/* By hand: everything that helps on average, in parts that were measured (docs/MEMORY.md). */
const float context_hybrid[FEATURE_COUNT] = {
    [F_WORDS] = 0.5f,
    [F_GRAMS] = 0.7f,
    [F_WINDOW] = 0.5f,
    [F_COVERAGE] = 1.5f,
    [F_COVERAGE_AROUND] = 2.0f,
    [F_GENERAL] = 0.5f,
    [F_RANK_WINDOW] = 0.5f,
    [F_RANK_SESSION] = 0.6f,
    [F_RANK_GRAMS] = 0.5f,
    [F_MEANING] = 1.0f,
    [F_RANK_MEANING] = 0.7f,
    [F_SOFT] = 1.8f,
    [F_FEEDBACK] = 0.3f,
    [F_RANK_FEEDBACK] = 0.4f,
    [F_SPEAKER] = 0.5f,
    [F_ANSWERS] = 0.2f,
    [F_ANSWERS_WORDS] = 0.4f,

    [F_WHEN_TIME] = 0.7f,
    [F_MANY_NUMBER] = 0.8f,
    [F_DATE] = 1.5f,
    [F_GROUP_AGE] = 16.0f,
    [F_GROUP_ADDRESSED] = 5.0f,
    [F_GROUP_ADDRESSES] = 3.0f,
    [F_GROUP_SAME] = 2.0f,
    [F_GROUP_RECENT_ADDRESSED] = 2.0f,
    [F_GROUP_ADDRESSES_LAST] = 2.5f,
    [F_GROUP_SAME_LAST] = 4.0f,
    [F_GROUP_ASKS] = 2.0f,
};

const char *context_strategy_name(enum context_strategy strategy)
{
    return names[strategy];
}

bool context_strategy_find(const char *name, enum context_strategy *strategy)
{
    for (int i = 0; i < CONTEXT_STRATEGY_COUNT; i++)
        if (!strcmp(name, names[i])) {
            *strategy = (enum context_strategy)i;
            return true;
        }
    return false;
}

const float *context_weights(enum context_strategy strategy, const struct context_scope *scope)
{
    const struct spt *spt = scope->index->params.spt;
    switch (strategy) {
    case CONTEXT_SEMANTIC_FOCUS:
    case CONTEXT_TEMPORAL_DECAY:
        return focus;
    case CONTEXT_SPT:
        return spt ? spt_weights(spt, scope->talk) : context_hybrid;
    case CONTEXT_HYBRID:
        return context_hybrid;
    case CONTEXT_RECENT_ONLY:
    case CONTEXT_STRATEGY_COUNT:
        break;
    }
    return NULL;
}

float context_linear(const float *weights, const float *features)
{
    float sum = 0;
    for (size_t f = 0; f < FEATURE_COUNT; f++)
        sum += weights[f] * features[f];
    return sum;
}

static float decay(const struct context_scope *scope, uint32_t slot, int64_t now)
{
    int64_t at = scope->index->turns[scope->turns[slot]].created_at;
    if (!now)
        now = scope->index->turns[scope->turns[scope->count - 1]].created_at;
    double age = at && now > at ? (double)(now - at) : 0;
    return (float)exp2(-age / HALF_LIFE_S);
}

static int better_first(const void *a, const void *b)
{
    const struct context_place *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->at < y->at ? -1 : x->at > y->at;
}

void context_sort(struct context_place *places, size_t count)
{
    qsort(places, count, sizeof *places, better_first);
}

/* The best SET_READ by their scores, in the order of the candidates. Returns how many. */
static size_t choose_for_set(const struct context_candidates *candidates, const float *scores,
                             uint32_t *chosen)
{
    struct context_place order[CANDIDATES_MAX];
    bool in[CANDIDATES_MAX] = {false};
    size_t count = 0;
    for (size_t i = 0; i < candidates->count; i++)
        order[i] = (struct context_place){.score = scores[i], .at = (uint32_t)i};
    context_sort(order, candidates->count);
    for (size_t i = 0; i < candidates->count && i < SET_READ; i++)
        in[order[i].at] = true;
    for (uint32_t i = 0; i < candidates->count; i++)
        if (in[i])
            chosen[count++] = i;
    return count;
}

/* What the set transformer has to say of the best, less its mean: only differences mean something. */
static enum ph_status correct(const struct context_scope *scope, const struct context_query *query,
                              const struct context_candidates *candidates, struct arena *arena, float *scores)
{
    float share, corrections[SET_READ], linear[SET_READ], mean = 0;
    uint32_t chosen[CANDIDATES_MAX];
    const float *features[SET_READ];
    const int8_t *vectors[SET_READ];
    const struct spt *spt = scope->index->params.spt;
    const struct spt_set *set = spt ? spt_set_of(spt, scope->talk, &share) : NULL;
    size_t count = set ? choose_for_set(candidates, scores, chosen) : 0;
    for (size_t i = 0; i < count; i++) {
        linear[i] = scores[chosen[i]];
        features[i] = candidates->features[chosen[i]];
        vectors[i] = scope->index->vectors + (size_t)scope->turns[candidates->slots[chosen[i]]] * SPT_WIDTH;
    }
    const struct set_list list = {.count = count,
                                  .features = features,
                                  .vectors = vectors,
                                  .query = query->direction,
                                  .scores = linear,
                                  .talk = scope->talk};
    enum ph_status status = count ? spt_set_run(set, &list, arena, corrections) : PH_OK;
    for (size_t i = 0; !status && i < count; i++)
        mean += corrections[i] / (float)count;
    for (size_t i = 0; !status && i < count; i++)
        scores[chosen[i]] += share * (corrections[i] - mean);
    return status;
}

enum ph_status context_score(const struct context_scope *scope, const struct context_request *request,
                             const struct context_query *query, const struct context_candidates *candidates,
                             struct arena *arena, float *scores)
{
    const float *weights = context_weights(request->strategy, scope);
    for (size_t i = 0; i < candidates->count; i++) {
        float sum = weights ? context_linear(weights, candidates->features[i]) : 0;
        if (request->strategy == CONTEXT_TEMPORAL_DECAY)
            sum *= decay(scope, candidates->slots[i], request->now);
        scores[i] = weights ? sum : (float)candidates->slots[i];
    }
    return request->strategy == CONTEXT_SPT ? correct(scope, query, candidates, arena, scores) : PH_OK;
}
