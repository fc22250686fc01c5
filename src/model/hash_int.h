/* One hash for every look-up table of this module: eight bytes a step, multiply and fold (Steele and Vigna
 * 2021 give the constant). Not keyed; tables that take hostile text stay usable because their size is bounded
 * by the size of the file. */
#ifndef PHAROS_MODEL_HASH_INT_H
#define PHAROS_MODEL_HASH_INT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t hash_mix(uint64_t state, uint64_t word)
{
    state = (state ^ word) * 0xd1342543de82ef95u;
    return state ^ (state >> 32);
}

static inline uint64_t hash_bytes(const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint64_t state = 0x9e3779b97f4a7c15u ^ len, word;
    for (; len >= sizeof word; at += sizeof word, len -= sizeof word) {
        memcpy(&word, at, sizeof word);
        state = hash_mix(state, word);
    }
    word = 0;
    if (len)
        memcpy(&word, at, len);
    return hash_mix(hash_mix(state, word), 0);
}

/* The smallest power of two that leaves a table of `count` entries at most half full. */
static inline size_t hash_slots(size_t count)
{
    size_t slots = 8;
    while (slots < count * 2)
        slots *= 2;
    return slots;
}

#endif
