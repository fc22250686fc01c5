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

/* A checksum of bytes that come in pieces: begin with CORPUS_HASH_BEGIN, go on with corpus_hash_more. */
static inline uint64_t corpus_sum_end(uint64_t state, uint64_t len)
{
    return corpus_mix(state ^ len);
}

static inline uint64_t corpus_sum(const void *bytes, size_t len)
{
    return corpus_sum_end(corpus_hash_more(CORPUS_HASH_BEGIN, bytes, len), len);
}

/* ---- The token file's header (see corpus.h) */
#define CORPUS_MAGIC "PHTOKENS"
#define CORPUS_VERSION 1u
#define CORPUS_HEADER_BYTES 128u
#define CORPUS_DOC_BYTES 24u
#define CORPUS_PPM 1000000u
enum corpus_offset {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_HEADER_BYTES = 12,
    AT_VOCAB = 16,
    AT_WIDTH = 20,
    AT_FLAGS = 24,
    AT_HELD_OUT = 28,
    AT_VOCAB_HASH = 32,
    AT_DOCS = 40,
    AT_TOKENS = 48,
    AT_TEXT_BYTES = 56,
    AT_SEED = 64,
    AT_TARGETS_AT = 72,
    AT_DOCS_AT = 80,
    AT_FILE_BYTES = 88,
    AT_TOKENS_SUM = 96,
    AT_TARGETS_SUM = 104,
    AT_DOCS_SUM = 112,
    AT_HEADER_SUM = 120
};
#define CORPUS_FLAG_TARGETS 1u

static inline size_t corpus_token_width(size_t n_vocab)
{
    return n_vocab <= 65536 ? 2 : 4;
}

static inline uint64_t corpus_align(uint64_t offset)
{
    return (offset + 7) & ~(uint64_t)7;
}

static inline bool corpus_holds_out(uint64_t hash, uint64_t seed, uint32_t held_out_ppm)
{
    return corpus_mix(hash ^ corpus_mix(seed)) % CORPUS_PPM < held_out_ppm;
}

/* Windows of time + 1 tokens in so many joined ones, overlapping by one. */
static inline uint64_t corpus_windows(uint64_t tokens, size_t time)
{
    return tokens > time ? (tokens - 1) / time : 0;
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

/* ---- The conversation that a JSON object holds, as a list of {"role", "content"} in the arena; *out is NULL
 * when it holds none. Errors name the turn. */
struct arena;
struct json;
PH_MUST_USE enum ph_status corpus_messages(struct arena *arena, const struct json *object,
                                           const struct json **out, struct ph_err *err);

#endif
