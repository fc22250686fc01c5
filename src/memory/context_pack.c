/* Packing is a knapsack: what is in must be worth its tokens. Entries are taken by score - power *
 * log(tokens), the logarithm of worth over a root of the cost: plain density prefers many short turns that
 * say little, plain score prefers long ones. What does not fit is passed over for what does. */
#include <math.h>
#include <stdlib.h>

#include "memory/context_int.h"

#define COST_POWER 0.5f

struct order {
    float worth;
    uint32_t entry;
};

static int by_worth(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    if (x->worth != y->worth)
        return x->worth < y->worth ? 1 : -1;
    return x->entry < y->entry ? -1 : x->entry > y->entry;
}

uint32_t context_pack(struct pack_entry *entries, size_t count, uint32_t budget, struct arena *arena)
{
    struct order *order = arena_alloc(arena, (count + 1) * sizeof *order);
    if (!order)
        return 0;
    for (size_t i = 0; i < count; i++)
        order[i] = (struct order){.worth = entries[i].score - COST_POWER * logf((float)entries[i].tokens + 1),
                                  .entry = (uint32_t)i};
    qsort(order, count, sizeof *order, by_worth);
    uint32_t taken = 0;
    for (size_t i = 0; i < count; i++) {
        struct pack_entry *entry = &entries[order[i].entry];
        if (entry->tokens > budget - taken)
            continue;
        entry->taken = true;
        taken += entry->tokens;
    }
    return taken;
}
