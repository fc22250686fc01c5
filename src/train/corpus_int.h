/* What the files about text share: a hash, growing arrays, sets of texts. */
#ifndef PHAROS_TRAIN_CORPUS_INT_H
#define PHAROS_TRAIN_CORPUS_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/status.h"

/* ---- One 64-bit hash for checksums, identities and splits. It is part of the token file's format: eight
 * bytes a step, little-endian, multiply and fold; finished by the mixer of splitmix64 (Steele, Lea and Flood
 * 2014). Not keyed: it finds damage and duplicates, not forgery. */
#define CORPUS_HASH_BEGIN 0x6a09e667f3bcc908u

static inline uint64_t corpus_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Goes on from `state`. What was hashed in several calls hashes alike only when all but the last had a
 * multiple of eight bytes. */
static inline uint64_t corpus_hash_more(uint64_t state, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint64_t word;
    for (; len >= sizeof word; at += sizeof word, len -= sizeof word) {
        memcpy(&word, at, sizeof word);
        state = (state ^ word) * 0xd1342543de82ef95u;
        state ^= state >> 32;
    }
    word = 0;
    for (size_t i = 0; i < len; i++)
        word |= (uint64_t)at[i] << (8 * i);
    if (len) {
        state = (state ^ word ^ (uint64_t)len << 56) * 0xd1342543de82ef95u;
        state ^= state >> 32;
    }
    return state;
}

static inline uint64_t corpus_hash(const void *bytes, size_t len)
{
    return corpus_mix(corpus_hash_more(CORPUS_HASH_BEGIN ^ len, bytes, len));
}

/* Room for `count` items of `size` bytes in the array whose pointer lies at `items`; the old ones stay. */
static inline bool corpus_room(void *items, size_t *cap, size_t count, size_t size)
{
    void *old;
    if (count <= *cap)
        return true;
    size_t larger = *cap ? *cap : 64;
    while (larger < count)
        larger *= 2;
    memcpy(&old, items, sizeof old);
    void *grown = mem_realloc(old, larger, size);
    if (!grown)
        return false;
    memcpy(items, &grown, sizeof grown);
    *cap = larger;
    return true;
}

/* ---- A set of texts, numbered in order of arrival */
struct text_span {
    size_t at;
    uint32_t len;
};

struct text_set {
    struct buf text;
    struct text_span *spans;
    size_t count, cap;
    uint32_t *slots; /* index + 1; 0: empty */
    size_t slot_count;
};
#define TEXT_SET_NONE UINT32_MAX

void text_set_init(struct text_set *set, size_t bytes_max);
void text_set_release(struct text_set *set);
uint32_t text_set_find(const struct text_set *set, const char *text, size_t len); /* TEXT_SET_NONE: absent */
/* The text's number, new or old. false: no memory, or more than bytes_max. */
PH_MUST_USE bool text_set_put(struct text_set *set, const char *text, size_t len, uint32_t *index);

static inline const char *text_set_at(const struct text_set *set, uint32_t index, size_t *len)
{
    *len = set->spans[index].len;
    return set->text.data + set->spans[index].at;
}

#endif
