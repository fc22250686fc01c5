/* memory, private: how a strategy turns features into a score, and how scores become a context. */
#ifndef PHAROS_MEMORY_CONTEXT_INT_H
#define PHAROS_MEMORY_CONTEXT_INT_H

#include "memory/features_int.h"

/* Weights of features that a strategy uses; NULL: it has none (the newest turns). */
const float *context_weights(enum context_strategy strategy, const struct context_scope *scope);

extern const float context_hybrid[FEATURE_COUNT];

/* Scores of candidates, in their order. PH_ERR_NOMEM only. */
PH_MUST_USE enum ph_status context_score(const struct context_scope *scope,
                                         const struct context_request *request,
                                         const struct context_query *query,
                                         const struct context_candidates *candidates, struct arena *arena,
                                         float *scores);

/* Something by its number, and what it is worth. Sorted: the best first, equals by their numbers. */
struct context_place {
    float score;
    uint32_t at;
};
void context_sort(struct context_place *places, size_t count);

struct pack_entry {
    uint32_t slot;
    uint32_t tokens;
    float score;      /* a logit: what it is worth */
    uint32_t partner; /* the entry that it answers or that answers it; INDEX_NONE: none */
    bool taken;
};
/* Takes entries until the budget is full. Returns the tokens taken. */
uint32_t context_pack(struct pack_entry *entries, size_t count, uint32_t budget, struct arena *arena);

/* Fills an item's reasons from its features, and from what the other candidates make of its score.
 * PH_ERR_NOMEM. */
PH_MUST_USE enum ph_status context_explain(const struct context_scope *scope,
                                           const struct context_query *query, const float *weights,
                                           const float *features, float others, uint32_t slot,
                                           struct arena *arena, struct context_item *item);
/* The sum of weights times features. */
float context_linear(const float *weights, const float *features);

#endif
