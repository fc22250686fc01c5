/* The only door to the allocator: `make lint` refuses malloc and its family everywhere else.
 *
 * All functions return NULL when memory is short or a size computation would overflow; callers turn that into
 * PH_ERR_NOMEM. Thread: any. */
#ifndef PHAROS_BASE_MEM_H
#define PHAROS_BASE_MEM_H

#include <stddef.h>

#define MEM_CACHE_LINE 64

void *mem_alloc(size_t size);                            /* uninitialised */
void *mem_calloc(size_t count, size_t size);             /* zeroed; overflow-checked */
void *mem_realloc(void *old, size_t count, size_t size); /* overflow-checked; `old` survives a failure */
void *mem_alloc_aligned(size_t alignment, size_t size);  /* power of two; zeroed; release with mem_free */
char *mem_strdup(const char *text);
void mem_free(void *memory); /* NULL is fine */

#endif
