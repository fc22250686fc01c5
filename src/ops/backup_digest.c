/* Sums by which everything in a repository is known, and a table of them. */
#include <openssl/evp.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "ops/backup_int.h"

#define MAP_CAPACITY_MIN 1024

bool digest_equal(const struct digest *a, const struct digest *b)
{
    return memcmp(a->bytes, b->bytes, DIGEST_BYTES) == 0;
}

void digest_text(const struct digest *digest, char out[DIGEST_TEXT_BYTES])
{
    bytes_hex(out, digest->bytes, DIGEST_BYTES);
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool digest_parse(const char *text, size_t len, struct digest *out)
{
    if (len != 2 * DIGEST_BYTES)
        return false;
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* ---- Hashing */

enum ph_status hasher_open(struct hasher *hasher, struct ph_err *err)
{
    *hasher = (struct hasher){.context = EVP_MD_CTX_new()};
    return hasher->context ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory to compute SHA-256");
}

void hasher_close(struct hasher *hasher)
{
    EVP_MD_CTX_free(hasher->context);
    hasher->context = NULL;
}

void hasher_begin(struct hasher *hasher)
{
    hasher->failed = EVP_DigestInit_ex2(hasher->context, EVP_sha256(), NULL) != 1;
}

void hasher_add(struct hasher *hasher, const void *bytes, size_t len)
{
    if (!hasher->failed && len)
        hasher->failed = EVP_DigestUpdate(hasher->context, bytes, len) != 1;
}

bool hasher_end(struct hasher *hasher, struct digest *out)
{
    return !hasher->failed && EVP_DigestFinal_ex(hasher->context, out->bytes, NULL) == 1;
}

/* ---- The table: open addressing; a sum's own bytes are its hash */

struct digest_slot {
    struct digest digest;
    bool is_used;
    int64_t value;
};

static struct digest_slot *slot_of(const struct digest_map *map, const struct digest *digest)
{
    uint64_t hash;
    memcpy(&hash, digest->bytes, sizeof hash);
    for (size_t i = (size_t)hash & (map->capacity - 1);; i = (i + 1) & (map->capacity - 1))
        if (!map->slots[i].is_used || digest_equal(&map->slots[i].digest, digest))
            return &map->slots[i];
}

static bool grow(struct digest_map *map)
{
    struct digest_map larger = {.capacity = map->capacity ? 2 * map->capacity : MAP_CAPACITY_MIN,
                                .count = map->count};
    larger.slots = mem_calloc(larger.capacity, sizeof *larger.slots);
    if (!larger.slots)
        return false;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].is_used)
            *slot_of(&larger, &map->slots[i].digest) = map->slots[i];
    mem_free(map->slots);
    *map = larger;
    return true;
}

int64_t *digest_map_at(struct digest_map *map, const struct digest *digest)
{
    if (map->count >= map->capacity / 2 && !grow(map))
        return NULL;
    struct digest_slot *slot = slot_of(map, digest);
    if (!slot->is_used) {
        *slot = (struct digest_slot){.digest = *digest, .is_used = true};
        map->count++;
    }
    return &slot->value;
}

bool digest_map_find(const struct digest_map *map, const struct digest *digest, int64_t *value)
{
    if (!map->count)
        return false;
    const struct digest_slot *slot = slot_of(map, digest);
    if (slot->is_used && value)
        *value = slot->value;
    return slot->is_used;
}

void digest_map_release(struct digest_map *map)
{
    mem_free(map->slots);
    *map = (struct digest_map){0};
}
