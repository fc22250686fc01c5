/* What the layers share: small helpers of size and sharing out. */
#ifndef PHAROS_TRAIN_TRAIN_INT_H
#define PHAROS_TRAIN_TRAIN_INT_H

#include "train/layers.h"

#define TRAIN_ALIGN ((size_t)64)
#define COLUMNS_AT_ONCE ((size_t)16) /* one cache line of floats */
#define SUM_ROWS ((size_t)512) /* a sum over rows is taken apart into sums over so many, or a part of it */
#define ELEMENTS_AT_ONCE ((size_t)4096)

static inline size_t align_bytes(size_t bytes)
{
    return (bytes + TRAIN_ALIGN - 1) / TRAIN_ALIGN * TRAIN_ALIGN;
}

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The stride of rows of so many floats, an odd number of cache lines: a column of a matrix is then spread
 * over all sets of a cache, where lines a power of two apart would fall into few. */
static inline size_t spread_row(size_t width)
{
    return (width + COLUMNS_AT_ONCE - 1) / COLUMNS_AT_ONCE * COLUMNS_AT_ONCE | COLUMNS_AT_ONCE;
}

/* Rows of `width` to take at once: enough work to be worth the asking. */
static inline size_t rows_at_once(size_t width)
{
    return most(1, ELEMENTS_AT_ONCE / most(width, 1));
}

#endif
