/* The micro-kernel of float products, written once with the compiler's vector types for the sets that include
 * it, which define before:
 *
 *   VECTOR_BYTES      width of a vector
 *   PRODUCT_ROWS      rows of the micro-tile, a multiple of 4
 *   PRODUCT_VECTORS   vectors of columns of the micro-tile
 *   PRODUCT_UNIT      depths in one element of 32 bits: 1 float, or 2 in BF16
 *   product_fma(a, b, c)   c + *a * b
 *
 * The micro-tile's sums stay in registers for a whole stretch of depth; a column of a's micro-panel is
 * broadcast, or floats of a where they are; a row of b's is loaded. At the lower edge the tile has 4 rows or
 * a multiple, at the right edge fewer vectors, and what is not wanted of those is cut off in a copy. */
#include <string.h>

#include "tensor/kernels_int.h"
#include "tensor/product_int.h"

#define PRODUCT_LANES ((size_t)VECTOR_BYTES / 4)
#define PRODUCT_COLUMNS (PRODUCT_VECTORS * PRODUCT_LANES)
#define PRODUCT_SUMS ((size_t)PRODUCT_ROWS * PRODUCT_COLUMNS)

typedef float product_vector __attribute__((vector_size(VECTOR_BYTES)));
typedef float product_vector_any __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef float product_quad __attribute__((vector_size(16)));
typedef float product_quad_any __attribute__((vector_size(16), aligned(4), may_alias));

static inline product_vector product_fma(const float *a, product_vector b, product_vector c);

/* ---- Micro-kernel ---- */

static inline product_vector product_load(const float *p)
{
    return *(const product_vector_any *)(const void *)p;
}

/* Where a's rows and depths are: `row` and `depth` floats apart. */
struct product_steps {
    size_t row, depth;
};

#define PRODUCT_PACE ((size_t)4)   /* depths from row to row of the next tile of c */
#define PRODUCT_SHARE ((size_t)16) /* a cache line of b in this time; whole tiles' shares fill a panel */

typedef product_vector product_sums[PRODUCT_ROWS][PRODUCT_VECTORS];

/* One depth. */
INLINE void product_step(const float *a, size_t row_step, const float *b, size_t rows, size_t vectors,
                         product_sums sums)
{
    product_vector row[PRODUCT_VECTORS];
    UNROLLED for (size_t v = 0; v < vectors; v++) row[v] =
        *(const product_vector *)(const void *)(b + v * PRODUCT_LANES);
    UNROLLED for (size_t r = 0; r < rows; r++) UNROLLED for (size_t v = 0; v < vectors; v++) sums[r][v] =
        product_fma(a + r * row_step, row[v], sums[r][v]);
}

/* A tile of c, and what memory is asked for meanwhile: the tile that comes after it (or the same), a part of
 * b's next micro-panel (or of this one). */
struct product_place {
    float *c;
    const float *next, *coming;
    size_t stride;
    bool add;
};

/* `rows` and `vectors` are constants where this is called. While the sums are made, the next tile's place
 * comes from memory, a row now and then: all at once they would hold up a and b. */
INLINE void product_tile(const float *a, struct product_steps steps, const float *b, size_t depth,
                         size_t rows, size_t vectors, struct product_place to)
{
    product_sums sums = {{{0}}};
    size_t k = 0, left = rows;
    for (; k + PRODUCT_PACE <= depth; k += PRODUCT_PACE) {
        __builtin_prefetch(to.next, 1);
        __builtin_prefetch(to.next + (vectors - 1) * PRODUCT_LANES, 1);
        __builtin_prefetch(to.coming, 0, 2);
        to.coming += PRODUCT_SHARE;
        to.next += left > 1 ? to.stride : 0;
        left -= left > 1;
        UNROLLED for (size_t u = 0; u < PRODUCT_PACE; u++, a += steps.depth, b += PRODUCT_COLUMNS)
            product_step(a, steps.row, b, rows, vectors, sums);
    }
    for (; k < depth; k++, a += steps.depth, b += PRODUCT_COLUMNS)
        product_step(a, steps.row, b, rows, vectors, sums);
    UNROLLED for (size_t r = 0; r < rows; r++) UNROLLED for (size_t v = 0; v < vectors; v++)
    {
        float *place = to.c + r * to.stride + v * PRODUCT_LANES;
        product_vector before = {0};
        if (to.add)
            before = product_load(place);
        *(product_vector_any *)(void *)place = before + sums[r][v];
    }
}

#define PRODUCT_PACKED ((struct product_steps){1, PRODUCT_ROWS})

static void product_tile_whole(const float *a, const float *b, size_t depth, struct product_place to)
{
    product_tile(a, PRODUCT_PACKED, b, depth, PRODUCT_ROWS, PRODUCT_VECTORS, to);
}

/* Of a as it lies in memory: rows stored along the depth, and across. */
static void product_tile_rows(const float *a, size_t row_step, const float *b, size_t depth,
                              struct product_place to)
{
    product_tile(a, (struct product_steps){row_step, 1}, b, depth, PRODUCT_ROWS, PRODUCT_VECTORS, to);
}

static void product_tile_columns(const float *a, size_t depth_step, const float *b, size_t depth,
                                 struct product_place to)
{
    product_tile(a, (struct product_steps){1, depth_step}, b, depth, PRODUCT_ROWS, PRODUCT_VECTORS, to);
}

static void product_tile_in_place(const struct product_block *block, size_t row, const float *b, size_t depth,
                                  struct product_place to)
{
    const float *a = block->place + row * block->row_step;
    if (block->row_step == 1)
        product_tile_columns(a, block->depth_step, b, depth, to);
    else
        product_tile_rows(a, block->row_step, b, depth, to);
}

#define PRODUCT_TILE_OF(rows_, vectors_)                                      \
    if (rows <= (rows_) && vectors <= (vectors_)) {                           \
        product_tile(a, PRODUCT_PACKED, b, depth, (rows_), (vectors_), sums); \
        return;                                                               \
    }

/* The smallest tile that holds rows x vectors. */
static void product_tile_part(const float *a, const float *b, size_t depth, size_t rows, size_t vectors,
                              struct product_place sums)
{
#if PRODUCT_VECTORS > 1
    PRODUCT_TILE_OF(4, 1)
    PRODUCT_TILE_OF(PRODUCT_ROWS, 1)
#endif
#if PRODUCT_VECTORS > 2
    PRODUCT_TILE_OF(4, 2)
    PRODUCT_TILE_OF(PRODUCT_ROWS, 2)
#endif
#if PRODUCT_ROWS > 4
    PRODUCT_TILE_OF(4, PRODUCT_VECTORS)
#endif
#if PRODUCT_ROWS > 8
    PRODUCT_TILE_OF(8, PRODUCT_VECTORS)
#endif
    product_tile(a, PRODUCT_PACKED, b, depth, PRODUCT_ROWS, PRODUCT_VECTORS, sums);
}

static void product_copy_part(const float *sums, size_t rows, size_t columns, float *c, size_t c_stride,
                              bool add)
{
    for (size_t r = 0; r < rows; r++) {
        const float *from = sums + r * PRODUCT_COLUMNS;
        float *to = c + r * c_stride;
        for (size_t j = 0; j < columns; j++)
            to[j] = add ? to[j] + from[j] : from[j];
    }
}

/* A tile that sticks out of c; its a is packed, or in place and then has all its rows. */
static void product_tile_edge(const struct product_block *block, size_t row, const float *panel,
                              const float *b, size_t depth, size_t columns, float *c)
{
    float sums[PRODUCT_SUMS];
    struct product_place to = {.c = sums, .next = sums, .coming = b, .stride = PRODUCT_COLUMNS};
    size_t rows = block->rows - row < PRODUCT_ROWS ? block->rows - row : PRODUCT_ROWS;
    if (block->place && rows == PRODUCT_ROWS)
        product_tile_in_place(block, row, b, depth, to);
    else
        product_tile_part(panel, b, depth, rows, (columns + PRODUCT_LANES - 1) / PRODUCT_LANES, to);
    product_copy_part(sums, rows, columns, c, block->c_stride, block->add);
}

static size_t product_units(size_t depth)
{
    return (depth + PRODUCT_UNIT - 1) / PRODUCT_UNIT;
}

/* The tile of c at (row, column), after which comes the one below or the next column's first. b is its
 * micro-panel. */
static struct product_place product_place_of(const struct product_block *block, const float *b, size_t row,
                                             size_t column)
{
    float *c = block->c + row * block->c_stride + column;
    bool below = row + PRODUCT_ROWS < block->rows, right = column + PRODUCT_COLUMNS < block->columns;
    size_t panel = PRODUCT_COLUMNS * product_units(block->b_depth);
    size_t asked = row / PRODUCT_ROWS * (product_units(block->depth) / PRODUCT_PACE) * PRODUCT_SHARE;
    return (struct product_place){.c = c,
                                  .next = below   ? c + PRODUCT_ROWS * block->c_stride
                                          : right ? block->c + column + PRODUCT_COLUMNS
                                                  : c,
                                  .coming = right && asked < panel ? b + panel + asked : b,
                                  .stride = block->c_stride,
                                  .add = block->add};
}

/* A micro-panel of b stays in the nearest cache while the micro-panels of a go by. */
static void product_multiply(const struct product_block *block)
{
    const float *b = block->b;
    size_t depth = product_units(block->depth), b_depth = product_units(block->b_depth);
    size_t panel_step = block->place ? 0 : PRODUCT_ROWS * depth; /* one panel is packed, the last */
    for (size_t j = 0; j < block->columns; j += PRODUCT_COLUMNS, b += PRODUCT_COLUMNS * b_depth) {
        size_t columns = block->columns - j < PRODUCT_COLUMNS ? block->columns - j : PRODUCT_COLUMNS;
        const float *panel = block->a;
        for (size_t i = 0; i < block->rows; i += PRODUCT_ROWS, panel += panel_step) {
            struct product_place to = product_place_of(block, b, i, j);
            if (block->rows - i < PRODUCT_ROWS || columns < PRODUCT_COLUMNS)
                product_tile_edge(block, i, panel, b, depth, columns, to.c);
            else if (block->place)
                product_tile_in_place(block, i, b, depth, to);
            else
                product_tile_whole(panel, b, depth, to);
        }
    }
}

#define PRODUCT_KERNEL(depth, pack_a, pack_b)                                                       \
    {                                                                                               \
        PRODUCT_ROWS, PRODUCT_COLUMNS, PRODUCT_UNIT, (depth), 4 / PRODUCT_UNIT, 128 * PRODUCT_UNIT, \
            PRODUCT_UNIT == 1, pack_a, pack_b, product_multiply                                     \
    }
