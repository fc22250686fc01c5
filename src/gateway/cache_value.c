/* An answer as it lies in a cache outside of this process.
 *
 *     "PhA1"  digest [16]  made [8]  name length [2]  name, 0  recording
 *
 * Little-endian; made is Unix milliseconds; the name is the answering model's, because its place in our
 * catalogue means nothing elsewhere. The digest is the beginning of SHA-256 over the key and all that
 * follows, so that a value that was cut, damaged, or put under another key is nobody's answer. It keeps
 * accidents out, not people: whoever can write to the Redis can write answers.
 *
 * The version is in the key's prefix too, so that stations of several versions do not throw out each other's
 * answers; whoever changes this form, or that of recordings, counts both on. */
#include <string.h>

#include "base/bytes.h"
#include "gateway/cache_int.h"

#define MAGIC "PhA1"
#define KEY_PREFIX "pharos:answer:1:"
#define MAGIC_BYTES 4
#define DIGEST_BYTES 16
#define HEAD_BYTES (MAGIC_BYTES + DIGEST_BYTES + 8 + 2)

static bool digest(struct cache *cache, const struct cache_key *key, const char *bytes, size_t len,
                   unsigned char out[EVP_MAX_MD_SIZE])
{
    return EVP_DigestInit_ex2(cache->hasher, cache->sha256, NULL) == 1 &&
           EVP_DigestUpdate(cache->hasher, key->bytes, CACHE_KEY_BYTES) == 1 &&
           EVP_DigestUpdate(cache->hasher, bytes, len) == 1 &&
           EVP_DigestFinal_ex(cache->hasher, out, NULL) == 1;
}

void cache_value_name(const struct cache_key *key, char out[CACHE_VALUE_NAME_MAX])
{
    const size_t prefix = sizeof KEY_PREFIX - 1;
    memcpy(out, KEY_PREFIX, prefix);
    bytes_hex(out + prefix, key->bytes, CACHE_KEY_BYTES);
}

bool cache_value_write(struct cache *cache, const struct cache_key *key, const struct cache_value *value,
                       struct buf *out)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    size_t name_len = strlen(value->model);
    const size_t digested = MAGIC_BYTES + DIGEST_BYTES;
    if (name_len > CACHE_MODEL_NAME_MAX)
        return false;
    char *head = buf_reserve(out, HEAD_BYTES);
    if (!head)
        return false;
    memcpy(head, MAGIC, MAGIC_BYTES);
    bytes_put_le(head + digested, (uint64_t)value->made_unix_ms, 8);
    bytes_put_le(head + digested + 8, name_len, 2);
    buf_grew(out, HEAD_BYTES);
    buf_append(out, value->model, name_len + 1);
    buf_append(out, value->bytes, value->len);
    if (buf_status(out) != PH_OK || !digest(cache, key, out->data + digested, out->len - digested, sum))
        return false;
    memcpy(out->data + MAGIC_BYTES, sum, DIGEST_BYTES);
    return true;
}

bool cache_value_read(struct cache *cache, const struct cache_key *key, const char *bytes, size_t len,
                      struct cache_value *out)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    const size_t digested = MAGIC_BYTES + DIGEST_BYTES;
    if (len < HEAD_BYTES || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0 ||
        !digest(cache, key, bytes + digested, len - digested, sum) ||
        memcmp(bytes + MAGIC_BYTES, sum, DIGEST_BYTES) != 0)
        return false;
    uint64_t made = bytes_get_le(bytes + digested, 8);
    size_t name_len = bytes_get_le(bytes + digested + 8, 2), used = HEAD_BYTES + name_len + 1;
    const char *name = bytes + HEAD_BYTES;
    if (made > INT64_MAX || name_len > CACHE_MODEL_NAME_MAX || used >= len ||
        strnlen(name, name_len + 1) != name_len)
        return false;
    *out = (struct cache_value){(int64_t)made, name, bytes + used, len - used};
    return true;
}
