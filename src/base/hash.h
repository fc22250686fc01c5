/* Hashes for tables in memory. Not for secrets, nor against inputs made to collide. Thread: any. */
#ifndef PHAROS_BASE_HASH_H
#define PHAROS_BASE_HASH_H

#include <stdint.h>

/* FNV-1a of 64 bits (Fowler, Noll, Vo), folded so that low bits know of high ones. */
uint64_t hash_text(const char *text);

#endif
