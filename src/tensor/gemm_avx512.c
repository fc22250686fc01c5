/* Prefill with AVX-512: F32 FMA for floats, VNNI for codes; and the AVX-512 table. */
#include <immintrin.h>

#define VECTOR_BYTES 64
#define GEMM_ROWS 16
#define Q8_ROWS 4
#define Q8_VECTORS 2
#include "tensor/gemm_body.h"
#include "tensor/gemm_q8_body.h"
#include "tensor/kernels_avx512_int.h"

static inline gemm_vector gemm_fma(gemm_vector a, gemm_vector b, gemm_vector c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* Sixteen by sixteen: pairs, quads, then 128-bit lanes twice. */
static void transpose_16(const float *sums, float *y, size_t y_stride, size_t columns)
{
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++)
        a[i] = _mm512_loadu_ps(sums + i * TILE_ROWS);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* a[i + j]: columns j, j + 4, j + 8, j + 12 of rows i to i + 3 */
        a[i] = (__m512)_mm512_unpacklo_pd((__m512d)b[i], (__m512d)b[i + 2]);
        a[i + 1] = (__m512)_mm512_unpackhi_pd((__m512d)b[i], (__m512d)b[i + 2]);
        a[i + 2] = (__m512)_mm512_unpacklo_pd((__m512d)b[i + 1], (__m512d)b[i + 3]);
        a[i + 3] = (__m512)_mm512_unpackhi_pd((__m512d)b[i + 1], (__m512d)b[i + 3]);
    }
    for (int j = 0; j < 4; j++) {
        __m512 even0 = _mm512_shuffle_f32x4(a[j], a[j + 4], 0x88),
               odd0 = _mm512_shuffle_f32x4(a[j], a[j + 4], 0xdd);
        __m512 even1 = _mm512_shuffle_f32x4(a[j + 8], a[j + 12], 0x88);
        __m512 odd1 = _mm512_shuffle_f32x4(a[j + 8], a[j + 12], 0xdd);
        b[j] = _mm512_shuffle_f32x4(even0, even1, 0x88);
        b[j + 8] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
        b[j + 4] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
        b[j + 12] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
    }
    for (size_t c = 0; c < columns; c++)
        _mm512_storeu_ps(y + c * y_stride, b[c]);
}

void gemm_write_avx512(const float *sums, size_t rows, size_t columns, float *y, size_t y_stride)
{
    size_t r = 0;
    for (; r + 16 <= rows; r += 16)
        transpose_16(sums + r * TILE_ROWS, y + r, y_stride, columns);
    if (r < rows)
        gemm_write(sums + r * TILE_ROWS, rows - r, columns, y + r, y_stride);
}

const struct gemm gemm_avx512_f32 = GEMM_FLOATS(FORM_F32T, gemm_write_avx512);
const struct gemm gemm_avx512_f16 = GEMM_FLOATS(FORM_F16T, gemm_write_avx512);
static const struct gemm gemm_bf16 = GEMM_FLOATS(FORM_BF16T, gemm_write_avx512);

/* ---- Quantised weights ---- */

INLINE q8_floats q8_fma(q8_floats a, q8_floats b, q8_floats c)
{
    return _mm512_fmadd_ps(a, b, c);
}

INLINE q8_ints q8_dot(q8_ints sums, q8_ints codes, q8_ints inputs, bool wide)
{
    (void)wide;
    return (q8_ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)codes, (__m512i)inputs);
}

Q8_MULTIPLY(multiply_32, .group = 32, .block = 32)
Q8_MULTIPLY(multiply_32_offset, .group = 32, .block = 32, .has_offset = true)
Q8_MULTIPLY(multiply_k32, .group = 32, .block = 256)
Q8_MULTIPLY(multiply_k32_offset, .group = 32, .block = 256, .has_offset = true)
Q8_MULTIPLY(multiply_k16, .group = 16, .block = 256)
Q8_MULTIPLY(multiply_k16_offset, .group = 16, .block = 256, .has_offset = true)

const struct gemm gemm_avx512_32 = Q8_GEMM(FORM_Q8T, multiply_32, gemm_write_avx512);
const struct gemm gemm_avx512_32_offset = Q8_GEMM(FORM_Q8T, multiply_32_offset, gemm_write_avx512);
const struct gemm gemm_avx512_k32 = Q8_GEMM(FORM_Q8KT, multiply_k32, gemm_write_avx512);
const struct gemm gemm_avx512_k32_offset = Q8_GEMM(FORM_Q8KT, multiply_k32_offset, gemm_write_avx512);
const struct gemm gemm_avx512_k16 = Q8_GEMM(FORM_Q8KT, multiply_k16, gemm_write_avx512);
const struct gemm gemm_avx512_k16_offset = Q8_GEMM(FORM_Q8KT, multiply_k16_offset, gemm_write_avx512);

const struct kernels kernels_avx512 = {.name = "avx512",
                                       .vector = &vector_avx512,
                                       .peak = &peak_avx512,
                                       .product = {&product_avx512, &product_avx512},
                                       .decode = DECODE_AVX512,
                                       .prefill = {
                                           PREFILL_AVX512,
                                           [TENSOR_F16] = PREFILL_AVX512_F16,
                                           [TENSOR_BF16] = PANELS(FORM_BF16T, gemm_bf16, unpack_f32_bf16),
                                       }};
