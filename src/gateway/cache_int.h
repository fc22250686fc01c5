/* cache: what cache.c (who stays) and cache_key.c (what is equal) share. */
#ifndef PHAROS_GATEWAY_CACHE_INT_H
#define PHAROS_GATEWAY_CACHE_INT_H

#include <openssl/evp.h>

#include "gateway/cache.h"

struct cache_entry;

struct cache {
    struct cache_params params;
    struct cache_entry **slots; /* chains, by the key's first bytes */
    size_t slot_count;          /* a power of two */
    struct cache_entry *newest, *oldest;
    struct cache_stats stats;
    EVP_MD *sha256;
    EVP_MD_CTX *hasher;
};

#endif
