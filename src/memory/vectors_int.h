/* memory, private: what the files of vectors share. */
#ifndef PHAROS_MEMORY_VECTORS_INT_H
#define PHAROS_MEMORY_VECTORS_INT_H

#include "base/limits.h"
#include "memory/vectors.h"

struct vector_home {
    char dir[PATH_BYTES_MAX];
    int lock; /* -1: another process has the files; vectors live in memory */
};

const char *vectors_space(const struct vectors *vectors);
int64_t vectors_user(const struct vectors *vectors);
/* The count of deletions (store_user) that the vectors are of. */
int64_t vectors_deletions(const struct vectors *vectors);
void vectors_set_deletions(struct vectors *vectors, int64_t deletions);
const uint16_t *vectors_halves(const struct vectors *vectors, int64_t message); /* NULL: none */

#endif
