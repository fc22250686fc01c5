/* Prefill with AVX-512 FMA in F32, and the AVX-512 table. */
#include <immintrin.h>

#define VECTOR_BYTES 64
#define GEMM_ROWS 16
#include "tensor/gemm_body.h"
#include "tensor/unpack_avx512_int.h"

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

const struct gemm gemm_avx512_f32 = GEMM_TABLE(gemm_write_avx512);

#define PANELS(unpack)                                                           \
    {                                                                            \
        gemm_run, FORM_BIT(FORM_F32T), GEMM_PANEL_ROWS, &gemm_avx512_f32, unpack \
    }

const struct kernels kernels_avx512 = {.name = "avx512",
                                       .vector = &vector_avx512,
                                       .peak = &peak_avx512,
                                       .decode = DECODE_AVX512,
                                       .prefill = {
                                           [TENSOR_F32] = PANELS(unpack_f32_f32),
                                           [TENSOR_F16] = PANELS(unpack_f32_f16),
                                           [TENSOR_BF16] = PANELS(unpack_f32_bf16),
                                           [TENSOR_Q4_0] = PANELS(unpack_f32_q4_0),
                                           [TENSOR_Q4_1] = PANELS(unpack_f32_q4_1),
                                           [TENSOR_Q5_0] = PANELS(unpack_f32_q5_0),
                                           [TENSOR_Q5_1] = PANELS(unpack_f32_q5_1),
                                           [TENSOR_Q8_0] = PANELS(unpack_f32_q8_0),
                                           [TENSOR_Q2_K] = PANELS(unpack_f32_q2_k),
                                           [TENSOR_Q3_K] = PANELS(unpack_f32_q3_k),
                                           [TENSOR_Q4_K] = PANELS(unpack_f32_q4_k),
                                           [TENSOR_Q5_K] = PANELS(unpack_f32_q5_k),
                                           [TENSOR_Q6_K] = PANELS(unpack_f32_q6_k),
                                           [TENSOR_Q8_K] = PANELS(unpack_f32_q8_k),
                                           [TENSOR_IQ4_NL] = PANELS(unpack_f32_iq4_nl),
                                           [TENSOR_IQ4_XS] = PANELS(unpack_f32_iq4_xs),
                                           [TENSOR_MXFP4] = PANELS(unpack_f32_mxfp4),
                                       }};
