/* Arena: a list of blocks, each twice the last up to a ceiling; allocation bumps a cursor in the newest. A
 * request that is larger than the next block would be gets a block of its own, so no size is special. A pool
 * keeps small blocks of whatever size; the next one that is wanted is the one that came last, if it holds the
 * need. */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

#define ARENA_ALIGN 16
#define ARENA_BLOCK_BYTES_MIN ((size_t)4096)
#define ARENA_BLOCK_BYTES_MAX ((size_t)1 << 20)
#define POOL_BLOCK_BYTES_MAX ((size_t)8192)
#define POOL_BLOCKS_MAX 64

struct arena_block {
    struct arena_block *older;
    size_t used, size;
    alignas(ARENA_ALIGN) unsigned char bytes[];
};

struct arena_cleanup {
    struct arena_cleanup *older;
    void (*fn)(void *ud);
    void *ud;
};

void arena_init_pooled(struct arena *arena, size_t bytes_max, struct arena_pool *pool)
{
    *arena = (struct arena){.bytes_max = bytes_max, .pool = pool};
}

void arena_init(struct arena *arena, size_t bytes_max)
{
    arena_init_pooled(arena, bytes_max, NULL);
}

void arena_pool_release(struct arena_pool *pool)
{
    while (pool->blocks) {
        struct arena_block *older = pool->blocks->older;
        mem_free(pool->blocks);
        pool->blocks = older;
    }
    pool->count = 0;
}

static void free_block(struct arena_pool *pool, struct arena_block *block)
{
    if (!pool || block->size > POOL_BLOCK_BYTES_MAX || pool->count == POOL_BLOCKS_MAX) {
        mem_free(block);
        return;
    }
    block->older = pool->blocks;
    pool->blocks = block;
    pool->count++;
}

/* NULL: the pool has none that holds the need within the room. */
static struct arena_block *take_block(struct arena_pool *pool, size_t need, size_t room)
{
    struct arena_block *block = pool ? pool->blocks : NULL;
    if (!block || block->size < need || block->size > room)
        return NULL;
    pool->blocks = block->older;
    pool->count--;
    return block;
}

void arena_clear(struct arena *arena)
{
    for (struct arena_cleanup *c = arena->cleanups; c; c = c->older)
        c->fn(c->ud);
    struct arena_block *block = arena->blocks;
    while (block && (block->older || block->size > ARENA_BLOCK_BYTES_MIN)) {
        struct arena_block *older = block->older;
        free_block(arena->pool, block);
        block = older;
    }
    arena_init_pooled(arena, arena->bytes_max, arena->pool);
    if (!block)
        return;
    block->used = 0;
    arena->blocks = block;
    arena->bytes = block->size;
}

void arena_release(struct arena *arena)
{
    arena_clear(arena);
    if (arena->blocks)
        free_block(arena->pool, arena->blocks);
    arena_init_pooled(arena, arena->bytes_max, arena->pool);
}

/* What was kept of the last use does not count against the budget of this one. */
static void drop_unused_block(struct arena *arena)
{
    struct arena_block *block = arena->blocks;
    if (!block || block->used)
        return;
    arena->blocks = block->older;
    arena->bytes -= block->size;
    free_block(arena->pool, block);
}

static struct arena_block *add_block(struct arena *arena, size_t need)
{
    drop_unused_block(arena);
    size_t room = arena->bytes_max - arena->bytes;
    size_t size = arena->blocks ? arena->blocks->size * 2 : ARENA_BLOCK_BYTES_MIN;
    struct arena_block *block = take_block(arena->pool, need, room);
    if (block)
        size = block->size;
    if (size > ARENA_BLOCK_BYTES_MAX)
        size = ARENA_BLOCK_BYTES_MAX;
    if (size > room)
        size = room;
    if (size < need)
        size = need;
    if (size > room)
        return NULL;
    if (!block)
        block = mem_alloc(sizeof *block + size);
    if (!block)
        return NULL;
    *block = (struct arena_block){.older = arena->blocks, .size = size};
    arena->blocks = block;
    arena->bytes += size;
    return block;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    if (size > SIZE_MAX - ARENA_ALIGN)
        return NULL;
    size_t need = size ? (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1) : ARENA_ALIGN;
    struct arena_block *block = arena->blocks;
    if (!block || block->size - block->used < need)
        block = add_block(arena, need);
    if (!block)
        return NULL;
    void *memory = block->bytes + block->used;
    block->used += need;
    return memory;
}

void *arena_calloc(struct arena *arena, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size)
        return NULL;
    void *memory = arena_alloc(arena, count * size);
    return memory ? memset(memory, 0, count * size) : NULL;
}

char *arena_strndup(struct arena *arena, const char *text, size_t len)
{
    char *copy = len < SIZE_MAX ? arena_alloc(arena, len + 1) : NULL;
    if (!copy)
        return NULL;
    if (len)
        memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

int arena_on_release(struct arena *arena, void (*fn)(void *ud), void *ud)
{
    struct arena_cleanup *cleanup = arena_alloc(arena, sizeof *cleanup);
    if (!cleanup)
        return -1;
    *cleanup = (struct arena_cleanup){.older = arena->cleanups, .fn = fn, .ud = ud};
    arena->cleanups = cleanup;
    return 0;
}
