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
    bool shared;               /* an answer to one account may be given to another */
    const char *default_model; /* whose answers a request without a model gets; not owned */
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
/* Keeps a copy in the place of an older one; what is too large or finds no memory is not kept. age_ns: of an
 * answer that comes from elsewhere, 0 of a new one. */
void cache_put(struct cache *cache, const struct cache_key *key, const struct cache_found *answer);
uint64_t cache_ttl_ns(const struct cache *cache); /* what is so old is not given */
/* The largest recording that is kept: one answer may not push out all the others. */
size_t cache_answer_bytes_max(const struct cache *cache);
enum cache_level { CACHE_MISS, CACHE_MEMORY, CACHE_REDIS };
void cache_count(struct cache *cache, enum cache_level found);
void cache_count_refused(struct cache *cache);

/* ---- Answers outside of this process (cache_value.c) */

#define CACHE_VALUE_NAME_MAX 96
#define CACHE_MODEL_NAME_MAX 1024
#define CACHE_VALUE_EXTRA_BYTES 2048 /* a value beyond its recording, at most */
struct cache_value {
    int64_t made_unix_ms;
    const char *model; /* the name of who said it */
    const char *bytes; /* a recording; after reading: anything at all (recording_is_whole) */
    size_t len;
};
/* The name it has there. */
void cache_value_name(const struct cache_key *key, char out[CACHE_VALUE_NAME_MAX]);
/* false: too large, or no memory. */
bool cache_value_write(struct cache *cache, const struct cache_key *key, const struct cache_value *value,
                       struct buf *out);
/* false: it is none of ours, damaged, or another key's. Points into `bytes`. */
bool cache_value_read(struct cache *cache, const struct cache_key *key, const char *bytes, size_t len,
                      struct cache_value *out);

struct cache_stats {
    uint64_t hits, misses, stored;
    uint64_t redis_hits;    /* of those hits */
    uint64_t redis_refused; /* values found there that are no answer to the request */
    uint64_t evicted;       /* for room */
    uint64_t expired;       /* found too old */
    size_t bytes, bytes_max, entries;
};
void cache_read_stats(const struct cache *cache, struct cache_stats *out);

#endif
