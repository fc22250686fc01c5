/* Packing for products on AVX-512, in squares of sixteen rows by sixteen units of depth: a unit is 32 bits,
 * one float or two in BF16. The including file defines before:
 *
 *   unit_depth             depths in a unit
 *   units_along(p, left)   sixteen units of a row from p on, zero after `left` depths
 *   units_across(p, stride, rows, left)   one unit of sixteen rows side by side, the next depth of it
 *                          `stride` further; zero likewise
 *
 * Rows stored along the depth come as vectors of one row each, depths stored across the rows as vectors of
 * one unit of sixteen rows each; what is wanted the other way round is transposed in registers. Memory is
 * read in the order in which it lies, as far as squares allow. */
#include "tensor/kernels_avx512_int.h"
#include "tensor/product_int.h"

#define SQUARE ((size_t)16)

INLINE void square_transpose(__m512i r[SQUARE])
{
    __m512i t[SQUARE];
    UNROLLED for (size_t i = 0; i < 8; i++)
    {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    UNROLLED for (size_t i = 0; i < 16; i += 4)
    {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLLED for (size_t i = 0; i < 4; i++)
    { /* r[4 g + i]: columns i, 4 + i, 8 + i, 12 + i of rows 4 g .. 4 g + 3 */
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
    UNROLLED for (size_t i = 0; i < 4; i++)
    {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* Up to 16 rows of a strip from `row` on, 16 units from depth k on, the rest zero: a vector for each row, */
INLINE void square_of_rows(const struct product_strip *s, size_t row, size_t rows, size_t k,
                           __m512i square[SQUARE])
{
    const float *p = s->data + row * s->stride + k;
    UNROLLED for (size_t i = 0; i < SQUARE; i++) square[i] =
        i < rows ? units_along(p + i * s->stride, s->depth - k) : _mm512_setzero_si512();
}

/* and a vector for each unit. */
INLINE void square_of_units(const struct product_strip *s, size_t row, size_t rows, size_t k,
                            __m512i square[SQUARE])
{
    __mmask16 mask = lanes_below(0, rows);
    UNROLLED for (size_t i = 0; i < SQUARE; i++, k += unit_depth) square[i] =
        k < s->depth ? units_across(s->data + k * s->stride + row, s->stride, mask, s->depth - k)
                     : _mm512_setzero_si512();
}

INLINE size_t squares_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Micro-panels [units][width]: depths stored across are copied, some of them to one panel after the other,
 * which the nearest cache holds. The next ones are asked of memory, which can't guess where rows lie. */
INLINE void units_pack(const struct product_strip *s, size_t width, size_t units, uint32_t *panels)
{
    for (size_t from = 0; from < units; from += SQUARE) {
        size_t end = squares_least(from + SQUARE, units);
        for (size_t row = 0; row < s->rows; row += width)
            for (size_t unit = from; unit < end; unit++) {
                size_t k = unit * unit_depth, later = squares_least(k + SQUARE * unit_depth, s->depth - 1);
                for (size_t i = 0; i < width; i += SQUARE) {
                    __mmask16 wanted = lanes_below(i, width);
                    __mmask16 rows = k < s->depth ? wanted & lanes_below(row + i, s->rows) : 0;
                    const float *p = s->data + k * s->stride + row + i;
                    __builtin_prefetch(s->data + later * s->stride + row + i);
                    _mm512_mask_storeu_epi32(panels + row * units + unit * width + i, wanted,
                                             units_across(p, s->stride, rows, s->depth - k));
                }
            }
    }
}

/* Rows stored along the depth are transposed, a micro-panel after the other. */
INLINE void rows_pack(const struct product_strip *s, size_t width, size_t units, uint32_t *panels)
{
    for (size_t row = 0; row < s->rows; row += width)
        for (size_t i = 0; i < width; i += SQUARE) {
            size_t most = squares_least(width - i, SQUARE);
            size_t rows = row + i < s->rows ? squares_least(s->rows - row - i, most) : 0;
            for (size_t unit = 0; unit < units; unit += SQUARE) {
                uint32_t *to = panels + row * units + unit * width + i;
                __m512i square[SQUARE];
                square_of_rows(s, row + i, rows, unit * unit_depth, square);
                square_transpose(square);
                UNROLLED for (size_t j = 0; j < SQUARE; j++) if (unit + j < units)
                    _mm512_mask_storeu_epi32(to + j * width, lanes_below(0, most), square[j]);
            }
        }
}

/* The whole strip, its depth rounded up to depth_step. */
INLINE void squares_pack(const struct product_strip *s, size_t width, size_t depth_step, void *panels)
{
    size_t units = (s->depth + depth_step - 1) / depth_step * depth_step / unit_depth;
    if (s->across)
        units_pack(s, width, units, panels);
    else
        rows_pack(s, width, units, panels);
}
