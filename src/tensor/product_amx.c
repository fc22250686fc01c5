/* Products of floats rounded to BF16 on AMX tiles: TDPBF16PS adds 16 x 16 x 32 products in 16 cycles.
 *
 * The micro-tile is 32 x 32 in tiles 0..3; tiles 4 and 5 hold two times sixteen rows of a, 6 and 7 two times
 * sixteen columns of b, 32 depths of each. Packed a is the tiles themselves, one after the other; packed b is
 * [pair of depths][32]. Sums begin with c's values, in c's place or, at the edges, in a copy. */
#include <string.h>

#include "tensor/product_pairs_body.h"
#include "tensor/tiles_amx_int.h"

#define SIDE ((size_t)32)
#define STEP ((size_t)32) /* depths in a tile */
#define TILE_BYTES 1024

static void tiles_begin(void)
{
    tiles_configure();
}

/* ---- Multiply ---- */

/* `lower` and `right`: whether the second sixteen rows and columns are wanted; constants where called. */
INLINE void tile_sums(const uint8_t *a, const uint8_t *b, size_t depth, bool lower, bool right, float *c,
                      size_t c_stride, bool add)
{
    size_t stride = c_stride * sizeof *c;
    float *below = c + 16 * c_stride;
    for (size_t r = 0; r < SIDE && lower && right; r++) { /* c comes while the sums are made */
        __builtin_prefetch(c + r * c_stride, 1);
        __builtin_prefetch(c + r * c_stride + 16, 1);
    }
    if (add) {
        _tile_loadd(0, c, stride);
        if (right)
            _tile_loadd(1, c + 16, stride);
        if (lower)
            _tile_loadd(2, below, stride);
        if (lower && right)
            _tile_loadd(3, below + 16, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t k = 0; k < depth; k += STEP, a += 2 * TILE_BYTES, b += 2 * TILE_BYTES) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 128);
        _tile_dpbf16ps(0, 4, 6);
        if (right) {
            _tile_loadd(7, b + 64, 128);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (lower) {
            _tile_loadd(5, a + TILE_BYTES, 64);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (lower && right)
            _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, stride);
    if (right)
        _tile_stored(1, c + 16, stride);
    if (lower)
        _tile_stored(2, below, stride);
    if (lower && right)
        _tile_stored(3, below + 16, stride);
}

static void tile_whole(const uint8_t *a, const uint8_t *b, size_t depth, float *c, size_t c_stride, bool add)
{
    tile_sums(a, b, depth, true, true, c, c_stride, add);
}

static void tile_edge(const uint8_t *a, const uint8_t *b, size_t depth, size_t rows, size_t columns, float *c,
                      size_t c_stride, bool add)
{
    _Alignas(64) float sums[SIDE * SIDE];
    for (size_t r = 0; add && r < SIDE; r++) {
        size_t have = r < rows ? columns : 0;
        memcpy(sums + r * SIDE, c + (have ? r * c_stride : 0), have * sizeof *c);
        memset(sums + r * SIDE + have, 0, (SIDE - have) * sizeof *c);
    }
    if (rows > 16 && columns > 16)
        tile_sums(a, b, depth, true, true, sums, SIDE, add);
    else if (rows > 16)
        tile_sums(a, b, depth, true, false, sums, SIDE, add);
    else if (columns > 16)
        tile_sums(a, b, depth, false, true, sums, SIDE, add);
    else
        tile_sums(a, b, depth, false, false, sums, SIDE, add);
    for (size_t r = 0; r < rows; r++)
        memcpy(c + r * c_stride, sums + r * SIDE, columns * sizeof *c);
}

static void multiply(const struct product_block *block)
{
    const uint8_t *b = block->b;
    size_t panel_bytes = (block->depth + STEP - 1) / STEP * 2 * TILE_BYTES;
    size_t b_panel_bytes = (block->b_depth + STEP - 1) / STEP * 2 * TILE_BYTES;
    tiles_begin();
    for (size_t j = 0; j < block->columns; j += SIDE, b += b_panel_bytes) {
        size_t columns = block->columns - j;
        const uint8_t *a = block->a;
        for (size_t i = 0; i < block->rows; i += SIDE, a += panel_bytes) {
            size_t rows = block->rows - i;
            float *c = block->c + i * block->c_stride + j;
            if (rows >= SIDE && columns >= SIDE)
                tile_whole(a, b, block->depth, c, block->c_stride, block->add);
            else
                tile_edge(a, b, block->depth, rows < SIDE ? rows : SIDE, columns < SIDE ? columns : SIDE, c,
                          block->c_stride, block->add);
        }
    }
    _tile_release();
}

/* ---- Packing ---- */

/* Rows stored along the depth are rows of tiles, */
static void pack_along(const struct product_strip *s, uint8_t *to)
{
    size_t steps = (s->depth + STEP - 1) / STEP, rows = (s->rows + SIDE - 1) / SIDE * SIDE;
    for (size_t row = 0; row < rows; row++) {
        uint8_t *tile = to + row / SIDE * steps * 2 * TILE_BYTES + row % SIDE * 64;
        const float *p = s->data + row * s->stride;
        for (size_t k = 0; k < steps * STEP; k += STEP, tile += 2 * TILE_BYTES)
            _mm512_storeu_si512(tile,
                                row < s->rows ? units_along(p + k, s->depth - k) : _mm512_setzero_si512());
    }
}

/* others are transposed. */
static void pack_across(const struct product_strip *s, uint8_t *to)
{
    size_t steps = (s->depth + STEP - 1) / STEP;
    for (size_t k = 0; k < s->depth; k += STEP)
        for (size_t row = 0; row < (s->rows + SIDE - 1) / SIDE * SIDE; row += SQUARE) {
            uint8_t *tile = to + (row / SIDE * steps + k / STEP) * 2 * TILE_BYTES + row % SIDE * 64;
            __m512i square[SQUARE];
            square_of_units(s, row, row < s->rows ? s->rows - row : 0, k, square);
            square_transpose(square);
            UNROLLED for (size_t i = 0; i < SQUARE; i++) _mm512_storeu_si512(tile + i * 64, square[i]);
        }
}

static void pack_a(const struct product_strip *strip, void *panels)
{
    if (strip->across)
        pack_across(strip, panels);
    else
        pack_along(strip, panels);
}

static void pack_b(const struct product_strip *strip, void *panels)
{
    squares_pack(strip, SIDE, STEP, panels);
}

const struct product_kernel product_amx = {SIDE, SIDE, STEP, 512, 2, 256, false, pack_a, pack_b, multiply};
