/* Memory as a POSIX system gives it. */
#define _DEFAULT_SOURCE /* madvise */
#include <sys/mman.h>

#include "base/mem_int.h"

void mem_like_huge_pages(void *memory, size_t size)
{
#ifdef MADV_HUGEPAGE /* Linux */
    (void)madvise(memory, size, MADV_HUGEPAGE);
#else
    (void)memory, (void)size;
#endif
}
