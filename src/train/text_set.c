/* A set of texts: one buffer, a span a text, and a flat table of slots that is never more than half full. */
#include "train/corpus_int.h"

#define SLOTS_MIN 64

void text_set_init(struct text_set *set, size_t bytes_max)
{
    *set = (struct text_set){.spans = NULL};
    buf_init(&set->text, bytes_max);
}

void text_set_release(struct text_set *set)
{
    buf_release(&set->text);
    mem_free(set->spans);
    mem_free(set->slots);
    *set = (struct text_set){.spans = NULL};
}

/* The slot of the text, or the empty one where it belongs. */
static uint32_t *slot_of(const struct text_set *set, const char *text, size_t len)
{
    size_t mask = set->slot_count - 1;
    for (size_t at = (size_t)corpus_hash(text, len) & mask;; at = (at + 1) & mask) {
        uint32_t *slot = &set->slots[at];
        if (*slot == 0)
            return slot;
        const struct text_span *span = &set->spans[*slot - 1];
        if (span->len == len && memcmp(set->text.data + span->at, text, len) == 0)
            return slot;
    }
}

static bool grow(struct text_set *set)
{
    size_t slot_count = set->slot_count ? set->slot_count * 2 : SLOTS_MIN;
    uint32_t *slots = mem_calloc(slot_count, sizeof *slots);
    if (!slots)
        return false;
    mem_free(set->slots);
    set->slots = slots;
    set->slot_count = slot_count;
    for (size_t i = 0; i < set->count; i++)
        *slot_of(set, set->text.data + set->spans[i].at, set->spans[i].len) = (uint32_t)i + 1;
    return true;
}

uint32_t text_set_find(const struct text_set *set, const char *text, size_t len)
{
    return set->slot_count ? *slot_of(set, text, len) - 1 : TEXT_SET_NONE;
}

bool text_set_put(struct text_set *set, const char *text, size_t len, uint32_t *index)
{
    if (set->count * 2 >= set->slot_count && !grow(set))
        return false;
    uint32_t *slot = slot_of(set, text, len);
    if (*slot == 0) {
        if (set->count >= TEXT_SET_NONE - 1 || len > UINT32_MAX ||
            !corpus_room(&set->spans, &set->cap, set->count + 1, sizeof *set->spans))
            return false;
        size_t at = set->text.len;
        buf_append(&set->text, text, len);
        if (buf_status(&set->text) != PH_OK)
            return false;
        set->spans[set->count++] = (struct text_span){at, (uint32_t)len};
        *slot = (uint32_t)set->count;
    }
    *index = *slot - 1;
    return true;
}
