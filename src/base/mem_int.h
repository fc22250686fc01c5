/* What mem.c asks of the system. */
#ifndef PHAROS_BASE_MEM_INT_H
#define PHAROS_BASE_MEM_INT_H

#include "base/mem.h"

#define MEM_HUGE_PAGE ((size_t)2 << 20)

/* Matrices are read down their columns too, where each row lies on a page of its own: with large pages the
 * processor knows all their addresses at once. A wish only; for memory that was not used yet. */
void mem_like_huge_pages(void *memory, size_t size);

#endif
