/* A table of chains, doubled when it has as many entries as chains. */
#include "gateway/names_int.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

#define CHAINS_MIN ((size_t)16)

static struct name_entry **chain_of(const struct names *names, uint64_t hash)
{
    return &names->chains[hash & (names->chain_count - 1)];
}

void *names_find(const struct names *names, const char *name)
{
    if (names->count == 0)
        return NULL;
    uint64_t hash = hash_text(name);
    struct name_entry *entry = *chain_of(names, hash);
    while (entry && (entry->hash != hash || strcmp(entry->name, name) != 0))
        entry = entry->next;
    return entry;
}

static bool grow(struct names *names)
{
    struct names wider = {.chain_count = names->chain_count ? 2 * names->chain_count : CHAINS_MIN,
                          .count = names->count};
    wider.chains = mem_calloc(wider.chain_count, sizeof *wider.chains);
    if (!wider.chains)
        return false;
    for (size_t i = 0; i < names->chain_count; i++)
        for (struct name_entry *entry = names->chains[i], *next; entry; entry = next) {
            struct name_entry **chain = chain_of(&wider, entry->hash);
            next = entry->next;
            entry->next = *chain;
            *chain = entry;
        }
    mem_free(names->chains);
    *names = wider;
    return true;
}

void *names_add(struct names *names, const char *name, size_t bytes)
{
    size_t len = strlen(name);
    if (names->count == names->chain_count && !grow(names))
        return NULL;
    struct name_entry *entry = mem_calloc(1, bytes + len + 1);
    if (!entry)
        return NULL;
    memcpy((char *)entry + bytes, name, len);
    entry->name = (char *)entry + bytes;
    entry->hash = hash_text(name);
    struct name_entry **chain = chain_of(names, entry->hash);
    entry->next = *chain;
    *chain = entry;
    names->count++;
    return entry;
}

void names_sweep(struct names *names, bool (*over)(const struct name_entry *entry, void *ud), void *ud)
{
    for (size_t i = 0; i < names->chain_count; i++)
        for (struct name_entry **at = &names->chains[i]; *at;) {
            struct name_entry *entry = *at;
            if (over && !over(entry, ud)) {
                at = &entry->next;
                continue;
            }
            *at = entry->next;
            mem_free(entry);
            names->count--;
        }
}

void names_release(struct names *names)
{
    names_sweep(names, NULL, NULL);
    mem_free(names->chains);
    *names = (struct names){0};
}
