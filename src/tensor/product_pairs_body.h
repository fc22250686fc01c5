/* Packing for products of BF16: a unit is a pair of consecutive depths, the operand of VDPBF16PS and
 * TDPBF16PS. */
#include <immintrin.h>

#include "tensor/kernels_avx512_int.h"

enum { unit_depth = 2 };

INLINE __m512i units_along(const float *p, size_t left)
{
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(lanes_below(16, left), p + 16),
                                        _mm512_maskz_loadu_ps(lanes_below(0, left), p));
}

INLINE __m512i units_across(const float *p, size_t stride, __mmask16 rows, size_t left)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512 even = _mm512_maskz_loadu_ps(rows, p);
    __m512 odd = _mm512_maskz_loadu_ps(left > 1 ? rows : 0, p + stride);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

#include "tensor/product_squares_body.h"
