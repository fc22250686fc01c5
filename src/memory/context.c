/* Building a context: the newest turns that are always in, then the best of the rest by the strategy's
 * score, packed under the budget, in the order of the conversation. */
#include <stdlib.h>
#include <string.h>

#include "memory/context_int.h"
#include "memory/spt_int.h"

#define PREVIOUS_BONUS \
    0.5f /* for what was chosen for the turn before: caches hit where the choice is close */

struct building {
    const struct memory_index *index;
    const struct context_request *request;
    struct arena *arena;
    struct context_scope scope;
    struct context_query query;
    struct context_search search;
    struct context_candidates candidates;
    float *scores;
    bool *in;     /* [scope.count] chosen */
    bool *recent; /* [scope.count] because it is new */
    uint32_t tokens;
};

static enum ph_status find_candidates(struct building *b)
{
    enum ph_status status = context_scope_find(b->index, b->request, b->arena, &b->scope);
    if (!status)
        status = context_query_read(&b->scope, b->request, b->arena, &b->query);
    if (!status)
        status = context_search(&b->scope, b->request, &b->query, b->arena, &b->search);
    if (!status)
        status = context_candidates_find(&b->scope, &b->query, &b->search, b->arena, &b->candidates);
    if (status)
        return status;
    b->scores = arena_alloc(b->arena, (b->candidates.count + 1) * sizeof *b->scores);
    if (!b->scores)
        return PH_ERR_NOMEM;
    return context_score(&b->scope, b->request, &b->query, &b->candidates, b->arena, b->scores);
}

static int by_score(const void *a, const void *b)
{
    const struct context_ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->message < y->message ? 1 : x->message > y->message ? -1 : 0;
}

enum ph_status context_rank(const struct memory_index *index, const struct context_request *request,
                            struct arena *arena, struct context_ranked **ranked, size_t *count,
                            struct ph_err *err)
{
    struct building b = {.index = index, .request = request, .arena = arena};
    if (find_candidates(&b))
        return ph_fail(err, PH_ERR_NOMEM, "out of memory for a context");
    *count = b.candidates.count;
    *ranked = arena_alloc(arena, (*count + 1) * sizeof **ranked);
    if (!*ranked)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory for a context");
    for (size_t i = 0; i < *count; i++)
        (*ranked)[i] = (struct context_ranked){
            .message = index->turns[b.scope.turns[b.candidates.slots[i]]].message, .score = b.scores[i]};
    qsort(*ranked, *count, sizeof **ranked, by_score);
    return PH_OK;
}

static uint32_t cost_of(const struct building *b, uint32_t slot)
{
    const struct index_turn_row *row = &b->index->turns[b->scope.turns[slot]];
    return b->request->cost ? b->request->cost(b->request->cost_ud, row->message) : row->tokens;
}

static bool is_system(const struct building *b, uint32_t slot)
{
    return b->index->turns[b->scope.turns[slot]].flags & (TURN_SYSTEM | TURN_FORGOTTEN);
}

/* The newest turns, from the end; without a query as many as the budget takes. */
static void take_recent(struct building *b, uint32_t count)
{
    for (uint32_t slot = b->scope.count; slot-- > 0 && count;) {
        if (is_system(b, slot))
            continue;
        uint32_t tokens = cost_of(b, slot);
        if (b->tokens + tokens > b->request->budget_tokens)
            return;
        b->in[slot] = b->recent[slot] = true;
        b->tokens += tokens;
        count--;
    }
}

static bool was_chosen(const struct context_request *request, int64_t message)
{
    size_t low = 0, high = request->previous_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (request->previous[middle] < message)
            low = middle + 1;
        else
            high = middle;
    }
    return low < request->previous_count && request->previous[low] == message;
}

static uint32_t entry_of_slot(const struct pack_entry *entries, size_t count, uint32_t slot)
{
    size_t low = 0, high = count; /* they ascend */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (entries[middle].slot < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && entries[low].slot == slot ? (uint32_t)low : INDEX_NONE;
}

/* A question and its answer are worth more together. */
static void find_partners(const struct building *b, struct pack_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct index_turn_row *row = &b->index->turns[b->scope.turns[entries[i].slot]];
        if (row->before == INDEX_NONE || !(b->index->turns[row->before].flags & TURN_ASKS))
            continue;
        uint32_t slot = context_scope_slot(&b->scope, row->before);
        uint32_t question = slot == INDEX_NONE ? INDEX_NONE : entry_of_slot(entries, count, slot);
        if (question != INDEX_NONE && entries[question].partner == INDEX_NONE) {
            entries[i].partner = question;
            entries[question].partner = (uint32_t)i;
        }
    }
}

static enum ph_status take_best(struct building *b)
{
    size_t count = 0;
    struct pack_entry *entries = arena_alloc(b->arena, (b->candidates.count + 1) * sizeof *entries);
    if (!entries)
        return PH_ERR_NOMEM;
    for (size_t i = 0; i < b->candidates.count; i++) {
        uint32_t slot = b->candidates.slots[i];
        if (b->in[slot])
            continue;
        float bonus =
            was_chosen(b->request, b->index->turns[b->scope.turns[slot]].message) ? PREVIOUS_BONUS : 0;
        entries[count++] = (struct pack_entry){
            .slot = slot, .tokens = cost_of(b, slot), .score = b->scores[i] + bonus, .partner = INDEX_NONE};
    }
    find_partners(b, entries, count);
    b->tokens += context_pack(entries, count, b->request->budget_tokens - b->tokens, b->arena);
    for (size_t i = 0; i < count; i++)
        b->in[entries[i].slot] = b->in[entries[i].slot] || entries[i].taken;
    return PH_OK;
}

/* Its place among the candidates, which ascend; their count: it is none. */
static size_t candidate_of(const struct building *b, uint32_t slot)
{
    size_t low = 0, high = b->candidates.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (b->candidates.slots[middle] < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low < b->candidates.count && b->candidates.slots[low] == slot ? low : b->candidates.count;
}

static enum ph_status write_item(struct building *b, uint32_t slot, struct context_item *item)
{
    const struct index_turn_row *row = &b->index->turns[b->scope.turns[slot]];
    size_t at = candidate_of(b, slot);
    bool scored = at < b->candidates.count && b->scores;
    *item = (struct context_item){.message = row->message,
                                  .conversation = b->index->conversations[row->conversation].number,
                                  .tokens = cost_of(b, slot),
                                  .score = scored ? b->scores[at] : 0,
                                  .is_recent = b->recent[slot]};
    const float *weights = scored ? context_weights(b->request->strategy, &b->scope) : NULL;
    const float *features = scored ? b->candidates.features[at] : NULL;
    float others =
        weights && b->request->strategy == CONTEXT_SPT ? item->score - context_linear(weights, features) : 0;
    return context_explain(&b->scope, &b->query, weights, features, others, slot, b->arena, item);
}

/* The next slot that is in; the scope's count: none. */
static uint32_t next_in(const struct building *b, uint32_t slot)
{
    const bool *at = slot < b->scope.count ? memchr(b->in + slot, true, b->scope.count - slot) : NULL;
    return at ? (uint32_t)(at - b->in) : b->scope.count;
}

static enum ph_status write_result(struct building *b, struct context_result *result)
{
    size_t count = 0, end = b->scope.count;
    for (uint32_t slot = next_in(b, 0); slot < end; slot = next_in(b, slot + 1))
        count++;
    result->items = arena_alloc(b->arena, (count + 1) * sizeof *result->items);
    if (!result->items)
        return PH_ERR_NOMEM;
    for (uint32_t slot = next_in(b, 0); slot < end; slot = next_in(b, slot + 1))
        if (write_item(b, slot, &result->items[result->count++]))
            return PH_ERR_NOMEM;
    result->tokens = b->tokens;
    result->turns = b->scope.count;
    result->candidates = (uint32_t)b->candidates.count;
    return PH_OK;
}

enum ph_status context_build(const struct memory_index *index, const struct context_request *request,
                             struct arena *arena, struct context_result *result, struct ph_err *err)
{
    struct building b = {.index = index, .request = request, .arena = arena};
    *result = (struct context_result){0};
    bool by_age = request->strategy == CONTEXT_RECENT_ONLY || !request->query_len;
    enum ph_status status =
        by_age ? context_scope_find(index, request, arena, &b.scope) : find_candidates(&b);
    if (!status) {
        b.in = arena_calloc(arena, b.scope.count + 1u, sizeof *b.in);
        b.recent = arena_calloc(arena, b.scope.count + 1u, sizeof *b.recent);
        status = b.in && b.recent ? PH_OK : PH_ERR_NOMEM;
    }
    if (!status)
        take_recent(&b, by_age ? UINT32_MAX : request->keep_recent);
    if (!status && !by_age)
        status = take_best(&b);
    if (!status)
        status = write_result(&b, result);
    return status ? ph_fail(err, status, "out of memory for a context of %u turns", b.scope.count) : PH_OK;
}
