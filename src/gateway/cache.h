/* cache: answers to requests that were made before, word for word.
 *
 * A key is SHA-256 over what decides an answer: the dialect, whose request it is, the name asked for and the
 * body, but for members that cannot change the answer; members count in any order and numbers by value. A
 * value is a recording: the events as the client's encoder was given them, so that a stream can be replayed
 * as a whole reply and the reverse. Bounded by bytes, the least recently used goes first, nothing is older
 * than its time to live.
 *
 * Owner: the gateway. Thread: the loop's. */
#ifndef PHAROS_GATEWAY_CACHE_H
#define PHAROS_GATEWAY_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/status.h"
#include "chat/chat.h"

struct cache;

struct cache_params {
    size_t bytes_max; /* of everything, the cache's own tables too */
    uint64_t ttl_ns;
    bool shared; /* an answer to one account may be given to another */
    const struct clock_source *clock;
};

PH_MUST_USE enum ph_status cache_create(struct cache **out, const struct cache_params *params);
void cache_free(struct cache *cache);

#define CACHE_KEY_BYTES 32
struct cache_key {
    unsigned char bytes[CACHE_KEY_BYTES];
};

/* `dialect`: whose encoder it is. The arena is for scratch. false: out of memory, there is no key. */
bool cache_key_make(struct cache *cache, struct arena *arena, const char *dialect, const char *account,
                    const struct chat_request *request, struct cache_key *out);

struct cache_found {
    const char *bytes; /* a recording; until the next cache_put or cache_find */
    size_t len, model;
    uint64_t age_ns;
};
/* An answer found is the most recently used one from now on. Counts nothing: the caller may refuse it. */
bool cache_find(struct cache *cache, const struct cache_key *key, struct cache_found *out);
/* Keeps a copy in the place of an older one; what is too large or finds no memory is not kept. */
void cache_put(struct cache *cache, const struct cache_key *key, size_t model, const char *bytes, size_t len);
/* The largest recording that is kept: one answer may not push out all the others. */
size_t cache_answer_bytes_max(const struct cache *cache);
void cache_count(struct cache *cache, bool hit);

struct cache_stats {
    uint64_t hits, misses, stored;
    uint64_t evicted; /* for room */
    uint64_t expired; /* found too old */
    size_t bytes, bytes_max, entries;
};
void cache_read_stats(const struct cache *cache, struct cache_stats *out);

#endif
