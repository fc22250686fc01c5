/* Packing is a knapsack: what is in must be worth its tokens. Entries are taken by score - power *
 * log(tokens), the logarithm of worth over a root of the cost: plain density prefers many short turns that
 * say little, plain score prefers long ones. A question and its answer belong together: the one that
 * scores less is worth at least what the other is, less a gap. What does not fit is passed over for what
 * does. */
#include <math.h>

#include "memory/context_int.h"

#define COST_POWER 0.5f
#define PARTNER_GAP 3.0f

static float worth(const struct pack_entry *entry)
{
    return entry->score - COST_POWER * logf((float)entry->tokens + 1);
}

uint32_t context_pack(struct pack_entry *entries, size_t count, uint32_t budget, struct arena *arena)
{
    struct context_place *order = arena_alloc(arena, (count + 1) * sizeof *order);
    if (!order)
        return 0;
    for (size_t i = 0; i < count; i++) {
        float own = worth(&entries[i]), gap = PARTNER_GAP;
        float pulled = entries[i].partner == INDEX_NONE ? own : worth(&entries[entries[i].partner]) - gap;
        order[i] = (struct context_place){.score = pulled > own ? pulled : own, .at = (uint32_t)i};
    }
    context_sort(order, count);
    uint32_t taken = 0;
    for (size_t i = 0; i < count; i++) {
        struct pack_entry *entry = &entries[order[i].at];
        if (entry->tokens > budget - taken)
            continue;
        entry->taken = true;
        taken += entry->tokens;
    }
    return taken;
}
