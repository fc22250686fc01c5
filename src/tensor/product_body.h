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

/* `rows` and `vectors` are constants where this is called. */
INLINE void product_tile(const float *a, struct product_steps steps, const float *b, size_t depth,
                         size_t rows, size_t vectors, float *c, size_t c_stride, bool add)
{
    product_vector sums[PRODUCT_ROWS][PRODUCT_VECTORS] = {{{0}}};
    UNROLLED for (size_t r = 0; r < rows; r++) /* c comes while the sums are made */
        UNROLLED for (size_t v = 0; v < vectors; v++)
            __builtin_prefetch(c + r * c_stride + v * PRODUCT_LANES, 1);
    for (size_t k = 0; k < depth; k++, a += steps.depth, b += PRODUCT_COLUMNS) {
        product_vector row[PRODUCT_VECTORS];
        UNROLLED for (size_t v = 0; v < vectors; v++) row[v] =
            *(const product_vector *)(const void *)(b + v * PRODUCT_LANES);
        UNROLLED for (size_t r = 0; r < rows; r++) UNROLLED for (size_t v = 0; v < vectors; v++) sums[r][v] =
            product_fma(a + r * steps.row, row[v], sums[r][v]);
    }
    UNROLLED for (size_t r = 0; r < rows; r++) UNROLLED for (size_t v = 0; v < vectors; v++)
    {
        float *to = c + r * c_stride + v * PRODUCT_LANES;
        product_vector before = {0};
        if (add)
            before = product_load(to);
        *(product_vector_any *)(void *)to = before + sums[r][v];
    }
}

#define PRODUCT_PACKED ((struct product_steps){1, PRODUCT_ROWS})

static void product_tile_whole(const float *a, const float *b, size_t depth, float *c, size_t c_stride,
                               bool add)
{
    product_tile(a, PRODUCT_PACKED, b, depth, PRODUCT_ROWS, PRODUCT_VECTORS, c, c_stride, add);
}

/* Of a as it lies in memory: rows stored along the depth, and across. */
static void product_tile_rows(const float *a, size_t row_step, const float *b, size_t depth, float *c,
                              size_t c_stride, bool add)
{
    product_tile(a, (struct product_steps){row_step, 1}, b, depth, PRODUCT_ROWS, PRODUCT_VECTORS, c, c_stride,
                 add);
}

static void product_tile_columns(const float *a, size_t depth_step, const float *b, size_t depth, float *c,
                                 size_t c_stride, bool add)
{
    product_tile(a, (struct product_steps){1, depth_step}, b, depth, PRODUCT_ROWS, PRODUCT_VECTORS, c,
                 c_stride, add);
}

static void product_tile_in_place(const struct product_block *block, size_t row, const float *b, size_t depth,
                                  float *c, size_t c_stride, bool add)
{
    const float *a = block->place + row * block->row_step;
    if (block->row_step == 1)
        product_tile_columns(a, block->depth_step, b, depth, c, c_stride, add);
    else
        product_tile_rows(a, block->row_step, b, depth, c, c_stride, add);
}

#define PRODUCT_TILE_OF(rows_, vectors_)                                                    \
    if (rows <= (rows_) && vectors <= (vectors_)) {                                         \
        product_tile(a, PRODUCT_PACKED, b, depth, (rows_), (vectors_), c, c_stride, false); \
        return;                                                                             \
    }

/* The smallest tile that holds rows x vectors. */
static void product_tile_part(const float *a, const float *b, size_t depth, size_t rows, size_t vectors,
                              float *c, size_t c_stride)
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
    product_tile(a, PRODUCT_PACKED, b, depth, PRODUCT_ROWS, PRODUCT_VECTORS, c, c_stride, false);
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
    size_t rows = block->rows - row < PRODUCT_ROWS ? block->rows - row : PRODUCT_ROWS;
    if (block->place && rows == PRODUCT_ROWS)
        product_tile_in_place(block, row, b, depth, sums, PRODUCT_COLUMNS, false);
    else
        product_tile_part(panel, b, depth, rows, (columns + PRODUCT_LANES - 1) / PRODUCT_LANES, sums,
                          PRODUCT_COLUMNS);
    product_copy_part(sums, rows, columns, c, block->c_stride, block->add);
}

/* A micro-panel of b stays in the nearest cache while the micro-panels of a go by. */
static void product_multiply(const struct product_block *block)
{
    const float *b = block->b;
    size_t depth = (block->depth + PRODUCT_UNIT - 1) / PRODUCT_UNIT;
    size_t b_depth = (block->b_depth + PRODUCT_UNIT - 1) / PRODUCT_UNIT;
    size_t panel_step = block->place ? 0 : PRODUCT_ROWS * depth; /* one panel is packed, the last */
    for (size_t j = 0; j < block->columns; j += PRODUCT_COLUMNS, b += PRODUCT_COLUMNS * b_depth) {
        size_t columns = block->columns - j < PRODUCT_COLUMNS ? block->columns - j : PRODUCT_COLUMNS;
        const float *panel = block->a;
        for (size_t i = 0; i < block->rows; i += PRODUCT_ROWS, panel += panel_step) {
            float *c = block->c + i * block->c_stride + j;
            if (block->rows - i < PRODUCT_ROWS || columns < PRODUCT_COLUMNS)
                product_tile_edge(block, i, panel, b, depth, columns, c);
            else if (block->place)
                product_tile_in_place(block, i, b, depth, c, block->c_stride, block->add);
            else
                product_tile_whole(panel, b, depth, c, block->c_stride, block->add);
        }
    }
}

#define PRODUCT_KERNEL(depth, pack_a, pack_b)                                                       \
    {                                                                                               \
        PRODUCT_ROWS, PRODUCT_COLUMNS, PRODUCT_UNIT, (depth), 4 / PRODUCT_UNIT, 128 * PRODUCT_UNIT, \
            PRODUCT_UNIT == 1, pack_a, pack_b, product_multiply                                     \
    }
