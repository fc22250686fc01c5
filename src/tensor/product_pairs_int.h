/* BF16 operands of products: pairs of consecutive depths in 32 bits, as VDPBF16PS and TDPBF16PS read them.
 *
 * Everything is made of squares of sixteen rows by sixteen pairs: sixteen vectors. Rows stored along the
 * depth are rounded to vectors that hold one row each; depths stored across rows, to vectors that hold one
 * pair of sixteen rows each. What is wanted the other way round is transposed in registers. */
#ifndef PHAROS_TENSOR_PRODUCT_PAIRS_INT_H
#define PHAROS_TENSOR_PRODUCT_PAIRS_INT_H

#include "tensor/kernels_avx512_int.h"

#define SQUARE 16

/* 32 floats, rounded: pairs of neighbours. */
INLINE __m512i pairs_along(const float *p, __mmask16 low, __mmask16 high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, p + 16), _mm512_maskz_loadu_ps(low, p));
}

/* 16 floats of one depth and of the next, rounded: pairs across. */
INLINE __m512i pairs_across(__m512 even, __m512 odd)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

INLINE void square_transpose(__m512i r[SQUARE])
{
    __m512i t[SQUARE];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) { /* r[4 g + i]: columns i, 4 + i, 8 + i, 12 + i of rows 4 g .. 4 g + 3 */
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* Up to 16 rows of a strip from `row` and 32 depths from `k` on, the rest zero: a vector for each row, */
INLINE void square_of_rows(const struct product_strip *s, size_t row, size_t k, __m512i square[SQUARE])
{
    const float *p = s->data + row * s->stride + k;
    __mmask16 low = lanes_below(k, s->depth), high = lanes_below(k + 16, s->depth);
    size_t rows = s->rows - row < SQUARE ? s->rows - row : SQUARE;
    for (size_t i = 0; i < SQUARE; i++)
        square[i] = i < rows ? pairs_along(p + i * s->stride, low, high) : _mm512_setzero_si512();
}

/* and a vector for each pair of depths. */
INLINE void square_of_depths(const struct product_strip *s, size_t row, size_t k, __m512i square[SQUARE])
{
    const float *p = s->data + k * s->stride + row;
    __mmask16 rows = lanes_below(row, s->rows);
    for (size_t i = 0; i < SQUARE; i++, k += 2, p += 2 * s->stride)
        square[i] = pairs_across(_mm512_maskz_loadu_ps(k < s->depth ? rows : 0, p),
                                 _mm512_maskz_loadu_ps(k + 1 < s->depth ? rows : 0, p + s->stride));
}

/* Micro-panels [pair of depths][width] of 32 bits. A pointer that runs past the strip is masked off. */
INLINE void pairs_pack(const struct product_strip *s, size_t width, size_t depth_step, void *panels)
{
    uint32_t *to = panels;
    size_t pairs = (s->depth + depth_step - 1) / depth_step * depth_step / 2;
    for (size_t row = 0; row < s->rows; row += width, to += width * pairs)
        for (size_t i = 0; i < width; i += SQUARE) {
            struct product_strip part = *s;
            __mmask16 wanted = lanes_below(i, width);
            part.rows = s->rows < row + width ? s->rows : row + width;
            for (size_t pair = 0; pair < pairs; pair += SQUARE) {
                __m512i square[SQUARE];
                if (row + i >= part.rows) {
                    for (size_t j = 0; j < SQUARE; j++)
                        square[j] = _mm512_setzero_si512();
                } else if (s->across) {
                    square_of_depths(&part, row + i, 2 * pair, square);
                } else {
                    square_of_rows(&part, row + i, 2 * pair, square);
                    square_transpose(square);
                }
                size_t count = pairs - pair < SQUARE ? pairs - pair : SQUARE;
                for (size_t j = 0; j < count; j++)
                    _mm512_mask_storeu_epi32(to + (pair + j) * width + i, wanted, square[j]);
            }
        }
}

#endif
