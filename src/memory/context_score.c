/* Strategies are rows of weights over the same features; a new one is a new row. */
#include <math.h>
#include <string.h>

#include "memory/context_int.h"
#include "memory/spt_int.h"

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

static float decay(const struct context_scope *scope, uint32_t slot, int64_t now)
{
    int64_t at = scope->index->turns[scope->turns[slot]].created_at;
    if (!now)
        now = scope->index->turns[scope->turns[scope->count - 1]].created_at;
    double age = at && now > at ? (double)(now - at) : 0;
    return (float)exp2(-age / HALF_LIFE_S);
}

void context_score(const struct context_scope *scope, const struct context_request *request,
                   const struct context_candidates *candidates, float *scores)
{
    const float *weights = context_weights(request->strategy, scope);
    for (size_t i = 0; i < candidates->count; i++) {
        float sum = 0;
        for (size_t f = 0; weights && f < FEATURE_COUNT; f++)
            sum += weights[f] * candidates->features[i][f];
        if (request->strategy == CONTEXT_TEMPORAL_DECAY)
            sum *= decay(scope, candidates->slots[i], request->now);
        scores[i] = weights ? sum : (float)candidates->slots[i];
    }
}
