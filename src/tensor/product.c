/* Products of two float matrices, for training: the loops around a kernel set's micro-kernel.
 *
 * Method: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008). b is packed, a
 * chunk of its columns and depth at a time, by all lanes together into the caller's workspace; then lanes
 * take blocks of c. For each stretch of depth a lane packs its rows of a into its own scratch, where they
 * stay in the second-level cache while b's micro-panels go by, each of which stays in the nearest one.
 *
 * An element of c is the sum over stretches of depth, in order, of sums over one stretch, in order. How many
 * rows and columns a lane takes is chosen by the number of lanes and changes no bit. */
#include "tensor/kernels_int.h"
#include "tensor/pool_int.h"
#include "tensor/product_int.h"

#include <assert.h>

#define ROWS_MAX ((size_t)256)          /* of a block, and what whole micro-tiles add */
#define CHUNK_COLUMNS ((size_t)96 * 32) /* of packed b: a multiple of every tile_columns */
#define CHUNK_DEPTH ((size_t)PRODUCT_DEPTH_MAX * 8)
#define BLOCKS_PER_LANE ((size_t)8)
#define PANELS_AT_ONCE 8
#define TILE_COLUMNS_MAX ((size_t)32)

_Static_assert((ROWS_MAX + 32) * PRODUCT_DEPTH_MAX * sizeof(float) <= POOL_PANEL_BYTES,
               "packed rows fit in the scratch");

struct chunk {
    const struct product *p;
    const struct product_kernel *kernel;
    size_t column, columns, from, depth;
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

size_t tensor_product_workspace_bytes(size_t m, size_t n, size_t k)
{
    (void)m;
    return smaller(n + TILE_COLUMNS_MAX, CHUNK_COLUMNS) * smaller(round_up(k, 32), CHUNK_DEPTH) *
           sizeof(float);
}

/* Where the micro-panel that begins at `column` of the chunk, at depth `from` of it, is packed. */
static uint8_t *packed_b(const struct chunk *c, size_t column, size_t from)
{
    size_t columns = round_up(c->columns, c->kernel->tile_columns);
    size_t depth = round_up(smaller(c->depth - from, c->kernel->depth), c->kernel->depth_step);
    return (uint8_t *)c->p->workspace + (columns * from + column * depth) * c->kernel->element_bytes;
}

/* Columns that lie side by side are packed together, so that memory is read in its order. */
static void pack_b(struct lane *lane, const struct chunk *c)
{
    const struct product *p = c->p;
    size_t width = c->kernel->tile_columns * (p->b_transposed ? 1 : PANELS_AT_ONCE), first, end;
    size_t right = (c->columns + width - 1) / width;
    size_t stretch = c->kernel->depth, stretches = (c->depth + stretch - 1) / stretch;
    while (lane_take(lane, right * stretches, 1, &first, &end)) {
        size_t column = first % right * width, from = first / right * stretch;
        size_t row = c->column + column, depth = c->from + from;
        struct product_strip strip = {
            .data = p->b + (p->b_transposed ? row * p->b_stride + depth : depth * p->b_stride + row),
            .stride = p->b_stride,
            .across = !p->b_transposed,
            .bf16 = p->bf16,
            .rows = smaller(c->columns - column, width),
            .depth = smaller(c->depth - from, stretch)};
        c->kernel->pack_b(&strip, packed_b(c, column, from));
    }
    lane_barrier(lane);
}

/* c (+=) the rows of `a` times what is packed at b to b_depth. With `in_place` floats are read where they are
 * if the kernel can, but for the rows of a part of a micro-tile. */
static void multiply_strip(const struct product_kernel *kernel, const struct product_strip *a, bool in_place,
                           void *panels, struct product_block *block)
{
    struct product_strip packed = *a;
    block->a = panels;
    block->rows = a->rows;
    block->depth = a->depth;
    if (in_place && kernel->in_place && !a->bf16) {
        size_t whole = a->rows / kernel->tile_rows * kernel->tile_rows;
        block->place = a->data;
        block->row_step = a->across ? 1 : a->stride;
        block->depth_step = a->across ? a->stride : 1;
        packed.data += whole * block->row_step;
        packed.rows -= whole;
    }
    if (packed.rows)
        kernel->pack_a(&packed, panels);
    kernel->multiply(block);
}

static void multiply_block(const struct chunk *c, void *panels, size_t row, size_t rows, size_t column,
                           size_t columns)
{
    const struct product *p = c->p;
    size_t from = 0;
    do {
        size_t at = c->from + from, depth = smaller(c->depth - from, c->kernel->depth);
        struct product_strip strip = {
            .data = p->a + (p->a_transposed ? at * p->a_stride + row : row * p->a_stride + at),
            .stride = p->a_stride,
            .across = p->a_transposed,
            .bf16 = p->bf16,
            .rows = rows,
            .depth = depth};
        struct product_block block = {.b = packed_b(c, column, from),
                                      .columns = columns,
                                      .b_depth = depth,
                                      .c = p->c + row * p->c_stride + c->column + column,
                                      .c_stride = p->c_stride,
                                      .add = p->accumulate || at > 0};
        multiply_strip(c->kernel, &strip, !p->a_transposed, panels, &block);
        from += c->kernel->depth;
    } while (from < c->depth);
}

/* Blocks are whole rows of c, the same number for each lane, of the same number of micro-tiles or one more;
 * where even one each would be too low, columns are shared out too. */
static void multiply(struct lane *lane, const struct chunk *c)
{
    size_t m = c->p->m, lanes = lane->count, tile = c->kernel->tile_rows, first, end;
    size_t liked = smaller(m / (lanes * c->kernel->block_rows) + 1, BLOCKS_PER_LANE);
    size_t each = larger(liked, m / (lanes * ROWS_MAX) + 1), tiles = (m + tile - 1) / tile;
    size_t down = smaller(lanes * each, tiles), parts = down >= lanes ? 1 : lanes / (down + 1) + 1;
    size_t columns = round_up((c->columns + parts - 1) / parts, c->kernel->tile_columns);
    size_t right = (c->columns + columns - 1) / columns;
    while (m > 0 && lane_take(lane, down * right, 1, &first, &end)) {
        size_t block = first / right, column = first % right * columns;
        size_t row = block * tiles / down * tile, below = smaller((block + 1) * tiles / down * tile, m);
        multiply_block(c, lane->panel, row, below - row, column, smaller(c->columns - column, columns));
    }
    lane_barrier(lane);
}

void tensor_product(struct lane *lane, const struct product *p)
{
    struct chunk c = {.p = p, .kernel = lane->kernels->product[p->bf16]};
    for (c.column = 0; c.column < p->n; c.column += CHUNK_COLUMNS) {
        c.columns = smaller(p->n - c.column, CHUNK_COLUMNS);
        c.from = 0;
        do {
            c.depth = smaller(p->k - c.from, CHUNK_DEPTH);
            pack_b(lane, &c);
            multiply(lane, &c);
            c.from += CHUNK_DEPTH;
        } while (c.from < p->k);
    }
}

/* ---- Inside one lane ---- */

size_t tensor_packed_bytes(size_t rows, size_t depth)
{
    return (rows + TILE_COLUMNS_MAX) * round_up(depth, 32) * sizeof(float);
}

static struct product_strip strip_of(const struct operand *o, bool bf16)
{
    return (struct product_strip){.data = o->data,
                                  .stride = o->stride,
                                  .across = o->across,
                                  .bf16 = bf16,
                                  .rows = o->rows,
                                  .depth = o->depth};
}

void tensor_pack_right(const struct kernels *k, const struct operand *o, bool bf16, void *packed)
{
    struct product_strip strip = strip_of(o, bf16);
    k->product[bf16]->pack_b(&strip, packed);
}

void tensor_multiply_packed(const struct kernels *k, const struct packed_product *p)
{
    struct product_strip strip = strip_of(&p->left, p->bf16);
    assert(p->left.depth <= p->right_depth);
    multiply_strip(k->product[p->bf16], &strip, true, p->workspace,
                   &(struct product_block){.b = p->right,
                                           .columns = p->columns,
                                           .b_depth = p->right_depth,
                                           .c = p->c,
                                           .c_stride = p->c_stride,
                                           .add = p->accumulate});
}
