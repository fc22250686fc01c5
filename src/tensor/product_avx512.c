/* Products of floats on AVX-512: a micro-tile of 12 x 32 in twenty-four of the thirty-two registers. */
#include <immintrin.h>

#define VECTOR_BYTES 64
#define PRODUCT_ROWS 12
#define PRODUCT_VECTORS 2
#define PRODUCT_UNIT 1
#include "tensor/kernels_avx512_int.h"
#include "tensor/product_body.h"

static inline product_vector product_fma(const float *a, product_vector b, product_vector c)
{
    return _mm512_fmadd_ps(_mm512_set1_ps(*a), b, c);
}

/* ---- Packing ---- */

enum { unit_depth = 1 };

INLINE __m512i units_along(const float *p, size_t left)
{
    return _mm512_maskz_loadu_epi32(lanes_below(0, left), p);
}

INLINE __m512i units_across(const float *p, size_t stride, __mmask16 rows, size_t left)
{
    (void)stride, (void)left;
    return _mm512_maskz_loadu_epi32(rows, p);
}

#include "tensor/product_squares_body.h"

static void pack(const struct product_strip *s, size_t width, void *panels)
{
    squares_pack(s, width, 1, panels);
    if (s->bf16)
        vector_avx512.round_bf16(panels, panels, (s->rows + width - 1) / width * width * s->depth);
}

static void pack_a(const struct product_strip *strip, void *panels)
{
    pack(strip, PRODUCT_ROWS, panels);
}

static void pack_b(const struct product_strip *strip, void *panels)
{
    pack(strip, PRODUCT_COLUMNS, panels);
}

const struct product_kernel product_avx512 = PRODUCT_KERNEL(256, pack_a, pack_b);
