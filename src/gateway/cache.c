/* The cache's store: a table of chains over a list in order of use.
 *
 * Keys are hashes already, so their first bytes choose the chain. An entry is one allocation, its recording
 * behind it. Everything counts against the limit: entries with what the allocator adds, and the table, which
 * is made once for the size of the cache and never grows.
 *
 * Invariants:
 *  C1  An entry is in one chain and in the list, or freed.
 *  C2  stats.bytes is the table's and all entries' bytes, and at most params.bytes_max. */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "gateway/cache_int.h"

#define BYTES_A_SLOT 2048 /* about an answer */
#define SLOTS_MIN 64
#define SLOTS_MAX ((size_t)1 << 22)
#define SHARE_MAX 8        /* one answer: at most one part in so many */
#define ALLOCATOR_BYTES 16 /* what an allocation costs besides */

struct cache_entry {
    struct cache_entry *chain, *newer, *older;
    struct cache_key key;
    uint64_t made_ns;
    size_t model, len;
    char bytes[];
};

static size_t bytes_of(size_t len)
{
    return sizeof(struct cache_entry) + len + ALLOCATOR_BYTES;
}

/* ---- Life */

enum ph_status cache_create(struct cache **out, const struct cache_params *params)
{
    struct cache *cache = *out = mem_calloc(1, sizeof *cache);
    if (!cache)
        return PH_ERR_NOMEM;
    cache->params = *params;
    cache->slot_count = SLOTS_MIN;
    while (cache->slot_count < SLOTS_MAX && cache->slot_count * BYTES_A_SLOT < params->bytes_max)
        cache->slot_count *= 2;
    cache->slots = mem_calloc(cache->slot_count, sizeof(struct cache_entry *));
    cache->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    cache->hasher = EVP_MD_CTX_new();
    cache->stats.bytes = cache->slot_count * sizeof(struct cache_entry *);
    cache->stats.bytes_max = params->bytes_max;
    if (cache->slots && cache->sha256 && cache->hasher)
        return PH_OK;
    cache_free(cache);
    *out = NULL;
    return PH_ERR_NOMEM;
}

void cache_free(struct cache *cache)
{
    if (!cache)
        return;
    for (struct cache_entry *entry = cache->newest, *older; entry; entry = older) {
        older = entry->older;
        mem_free(entry);
    }
    mem_free(cache->slots);
    EVP_MD_CTX_free(cache->hasher);
    EVP_MD_free(cache->sha256);
    mem_free(cache);
}

/* ---- The chains and the list */

/* Where the key's entry hangs, or would. */
static struct cache_entry **link_of(const struct cache *cache, const struct cache_key *key)
{
    uint64_t hash;
    memcpy(&hash, key->bytes, sizeof hash);
    struct cache_entry **link = &cache->slots[hash & (cache->slot_count - 1)];
    while (*link && memcmp((*link)->key.bytes, key->bytes, CACHE_KEY_BYTES) != 0)
        link = &(*link)->chain;
    return link;
}

static void unlist(struct cache *cache, struct cache_entry *entry)
{
    *(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void list_as_newest(struct cache *cache, struct cache_entry *entry)
{
    entry->newer = NULL;
    entry->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

/* `link`: where the entry hangs. */
static void drop(struct cache *cache, struct cache_entry **link)
{
    struct cache_entry *entry = *link;
    *link = entry->chain;
    unlist(cache, entry);
    cache->stats.bytes -= bytes_of(entry->len);
    cache->stats.entries--;
    mem_free(entry);
}

/* ---- Finding and keeping */

uint64_t cache_ttl_ns(const struct cache *cache)
{
    return cache->params.ttl_ns;
}

bool cache_find(struct cache *cache, const struct cache_key *key, struct cache_found *out)
{
    struct cache_entry **link = link_of(cache, key), *entry = *link;
    if (!entry)
        return false;
    uint64_t age_ns = clock_monotonic_ns(cache->params.clock) - entry->made_ns;
    if (age_ns >= cache->params.ttl_ns) {
        cache->stats.expired++;
        drop(cache, link);
        return false;
    }
    unlist(cache, entry);
    list_as_newest(cache, entry);
    *out = (struct cache_found){entry->bytes, entry->len, entry->model, age_ns};
    return true;
}

size_t cache_answer_bytes_max(const struct cache *cache)
{
    size_t share = cache->params.bytes_max / SHARE_MAX;
    return share < CACHE_ANSWER_BYTES_MAX ? share : CACHE_ANSWER_BYTES_MAX;
}

void cache_put(struct cache *cache, const struct cache_key *key, const struct cache_found *answer)
{
    size_t len = answer->len;
    if (!len || len > cache_answer_bytes_max(cache))
        return;
    struct cache_entry *entry = mem_alloc(sizeof *entry + len);
    if (!entry)
        return;
    struct cache_entry **link = link_of(cache, key);
    if (*link)
        drop(cache, link);
    while (cache->oldest && cache->stats.bytes + bytes_of(len) > cache->params.bytes_max) {
        cache->stats.evicted++;
        drop(cache, link_of(cache, &cache->oldest->key));
    }
    if (cache->stats.bytes + bytes_of(len) > cache->params.bytes_max) { /* C2: the table alone is too much */
        mem_free(entry);
        return;
    }
    entry->key = *key;
    entry->made_ns = clock_monotonic_ns(cache->params.clock) - answer->age_ns; /* modulo 2^64 */
    entry->model = answer->model;
    entry->len = len;
    memcpy(entry->bytes, answer->bytes, len);
    link = link_of(cache, key); /* its old place may have gone with an eviction */
    entry->chain = NULL;
    *link = entry;
    list_as_newest(cache, entry);
    cache->stats.bytes += bytes_of(len);
    cache->stats.entries++;
    cache->stats.stored++;
}

void cache_count(struct cache *cache, enum cache_level found)
{
    ++*(found == CACHE_MISS ? &cache->stats.misses : &cache->stats.hits);
    cache->stats.redis_hits += found == CACHE_REDIS;
}

void cache_count_refused(struct cache *cache)
{
    cache->stats.redis_refused++;
}

void cache_read_stats(const struct cache *cache, struct cache_stats *out)
{
    *out = cache->stats;
}
