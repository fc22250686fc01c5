/* Arena: a list of blocks, each twice the last up to a ceiling; allocation bumps a cursor in the newest. A
 * request that is larger than the next block would be gets a block of its own, so no size is special. */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

#define ARENA_ALIGN 16
#define ARENA_BLOCK_BYTES_MIN ((size_t)4096)
#define ARENA_BLOCK_BYTES_MAX ((size_t)1 << 20)

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

void arena_init(struct arena *arena, size_t bytes_max)
{
    *arena = (struct arena){.bytes_max = bytes_max};
}

void arena_clear(struct arena *arena)
{
    for (struct arena_cleanup *c = arena->cleanups; c; c = c->older)
        c->fn(c->ud);
    struct arena_block *block = arena->blocks;
    while (block && (block->older || block->size > ARENA_BLOCK_BYTES_MIN)) {
        struct arena_block *older = block->older;
        mem_free(block);
        block = older;
    }
    arena_init(arena, arena->bytes_max);
    if (!block)
        return;
    block->used = 0;
    arena->blocks = block;
    arena->bytes = block->size;
}

void arena_release(struct arena *arena)
{
    arena_clear(arena);
    mem_free(arena->blocks);
    arena_init(arena, arena->bytes_max);
}

/* What was kept of the last use does not count against the budget of this one. */
static void drop_unused_block(struct arena *arena)
{
    struct arena_block *block = arena->blocks;
    if (!block || block->used)
        return;
    arena->blocks = block->older;
    arena->bytes -= block->size;
    mem_free(block);
}

static struct arena_block *add_block(struct arena *arena, size_t need)
{
    drop_unused_block(arena);
    size_t room = arena->bytes_max - arena->bytes;
    size_t size = arena->blocks ? arena->blocks->size * 2 : ARENA_BLOCK_BYTES_MIN;
    if (size > ARENA_BLOCK_BYTES_MAX)
        size = ARENA_BLOCK_BYTES_MAX;
    if (size > room)
        size = room;
    if (size < need)
        size = need;
    if (size > room)
        return NULL;
    struct arena_block *block = mem_alloc(sizeof *block + size);
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
