/* Arena: memory that dies together.
 *
 * A request owns an arena; everything the request needs is allocated from it and never freed singly. Files
 * and references hang on it as cleanups, run in reverse order. Blocks grow geometrically up to the arena's
 * byte budget. Owner: whoever holds the struct. Thread: one at a time. */
#ifndef PHAROS_BASE_ARENA_H
#define PHAROS_BASE_ARENA_H

#include <stddef.h>

struct arena_block;
struct arena_cleanup;

/* Blocks of arenas that are gone, for those that come: arenas that live as long as a request come and go by
 * thousands a second, and malloc finds their blocks the hard way. Thread: that of its arenas. */
struct arena_pool {
    struct arena_block *blocks;
    size_t count;
};
void arena_pool_release(struct arena_pool *pool); /* after the last of its arenas */

struct arena {
    struct arena_block *blocks;     /* newest first */
    struct arena_cleanup *cleanups; /* newest first */
    size_t bytes;                   /* taken from the allocator so far */
    size_t bytes_max;               /* budget; a request beyond it returns NULL */
    struct arena_pool *pool;        /* NULL: none */
};

void arena_init(struct arena *arena, size_t bytes_max);
void arena_init_pooled(struct arena *arena, size_t bytes_max, struct arena_pool *pool); /* NULL is fine */
void arena_release(
    struct arena *arena); /* runs cleanups, frees every block; the struct may be initialised again */
/* Release, then ready for use with the same budget: a first block of the usual size is kept for it. */
void arena_clear(struct arena *arena);

/* Aligned to 16 bytes, uninitialised; NULL when the budget or memory is exhausted. size 0 gives a valid
 * pointer. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_calloc(struct arena *arena, size_t count, size_t size);     /* zeroed, overflow-checked */
char *arena_strndup(struct arena *arena, const char *text, size_t len); /* adds a terminator */
char *arena_strdup(struct arena *arena, const char *text);

/* Calls fn(ud) when the arena is released. Returns 0, or -1 when out of memory (fn is then NOT registered).
 */
int arena_on_release(struct arena *arena, void (*fn)(void *ud), void *ud);

#endif
