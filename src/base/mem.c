#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem_int.h"

void *mem_alloc(size_t size)
{
    return malloc(size ? size : 1);
}

void *mem_calloc(size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size)
        return NULL; /* calloc would see it too, but sanitizers call that a fault */
    return calloc(count ? count : 1, size ? size : 1);
}

void *mem_realloc(void *old, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size)
        return NULL;
    size_t bytes = count * size;
    return realloc(old, bytes > 0 ? bytes : 1);
}

void *mem_alloc_aligned(size_t alignment, size_t size)
{
    void *memory = NULL;
    if (size >= 2 * MEM_HUGE_PAGE && alignment < MEM_HUGE_PAGE)
        alignment = MEM_HUGE_PAGE;
    if (posix_memalign(&memory, alignment, size ? size : 1) != 0)
        return NULL;
    if (size >= 2 * MEM_HUGE_PAGE)
        mem_like_huge_pages(memory, size);
    return memset(memory, 0, size ? size : 1);
}

char *mem_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = mem_alloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

void mem_free(void *memory)
{
    free(memory);
}
