/* names: what is kept for each name, found by it. Entries are their owner's structs, which begin with a
 * struct name_entry; names come from keys and configuration only, so that nobody outside can choose them to
 * collide. */
#ifndef PHAROS_GATEWAY_NAMES_INT_H
#define PHAROS_GATEWAY_NAMES_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct name_entry {
    struct name_entry *next; /* in its chain */
    uint64_t hash;
    const char *name; /* within the entry's own memory */
};

struct names {
    struct name_entry **chains;
    size_t chain_count; /* a power of two, or 0 */
    size_t count;
};

void *names_find(const struct names *names, const char *name);
/* A new entry of `bytes`, zeroed but for its name, which is not there yet; NULL: out of memory. */
void *names_add(struct names *names, const char *name, size_t bytes);
/* Frees every entry that `over` (NULL: all) says is. */
void names_sweep(struct names *names, bool (*over)(const struct name_entry *entry, void *ud), void *ud);
void names_release(struct names *names); /* the entries too */

#endif
