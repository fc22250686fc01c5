/* Products that the AVX-512 table is made of (dot_avx512.c, dotk_avx512.c). */
#ifndef PHAROS_TENSOR_KERNELS_AVX512_INT_H
#define PHAROS_TENSOR_KERNELS_AVX512_INT_H

#include <immintrin.h>

#include "tensor/kernels_int.h"

/* The lanes of [from, from + 16) that lie below `end`. */
INLINE __mmask16 lanes_below(size_t from, size_t end)
{
    unsigned left = from >= end ? 0 : end - from >= 16 ? 16 : (unsigned)(end - from);
    return (__mmask16)(((1u << left) - 1) & 0xffff);
}

void dot_avx512_f32(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_f16(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_bf16(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q8_0(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q4_0(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q4_1(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q5_0(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q5_1(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_iq4_nl(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_mxfp4(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q2_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q3_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q4_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q5_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_q6_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx512_iq4_xs(const struct mm_job *job, size_t first, size_t end);

#define DECODE_AVX512                                                                                \
    {                                                                                                \
        [TENSOR_F32] = DOT(dot_avx512_f32), [TENSOR_F16] = DOT_OF(FORM_F16, dot_avx512_f16),         \
        [TENSOR_BF16] = DOT_OF(FORM_BF16, dot_avx512_bf16), [TENSOR_Q4_0] = DOT_Q8(dot_avx512_q4_0), \
        [TENSOR_Q4_1] = DOT_Q8(dot_avx512_q4_1), [TENSOR_Q5_0] = DOT_Q8(dot_avx512_q5_0),            \
        [TENSOR_Q5_1] = DOT_Q8(dot_avx512_q5_1), [TENSOR_Q8_0] = DOT_Q8(dot_avx512_q8_0),            \
        [TENSOR_IQ4_NL] = DOT_Q8(dot_avx512_iq4_nl), [TENSOR_MXFP4] = DOT_Q8(dot_avx512_mxfp4),      \
        [TENSOR_Q2_K] = DOT_Q8K(dot_avx512_q2_k), [TENSOR_Q3_K] = DOT_Q8K(dot_avx512_q3_k),          \
        [TENSOR_Q4_K] = DOT_Q8K(dot_avx512_q4_k), [TENSOR_Q5_K] = DOT_Q8K(dot_avx512_q5_k),          \
        [TENSOR_Q6_K] = DOT_Q8K(dot_avx512_q6_k), [TENSOR_IQ4_XS] = DOT_Q8K(dot_avx512_iq4_xs),      \
        [TENSOR_Q8_K] = DOT_Q8K(mm_ref_q8k)                                                          \
    }

/* ---- Prefill ---- */

extern const struct gemm gemm_avx512_f32, gemm_avx512_f16;
extern const struct gemm gemm_avx512_32, gemm_avx512_32_offset;
extern const struct gemm gemm_avx512_k32, gemm_avx512_k32_offset, gemm_avx512_k16, gemm_avx512_k16_offset;

void gemm_write_avx512(const float *sums, size_t rows, size_t columns, float *y, size_t y_stride);

/* struct mm_kernel's `unpack`: quantised formats to a struct q8_panel, floats to F32. */
#define UNPACKER(name)                                                                                  \
    void name(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, uint8_t *panel, \
              size_t stride)
UNPACKER(unpack_q4_0);
UNPACKER(unpack_q4_1);
UNPACKER(unpack_q5_0);
UNPACKER(unpack_q5_1);
UNPACKER(unpack_q8_0);
UNPACKER(unpack_iq4_nl);
UNPACKER(unpack_mxfp4);
UNPACKER(unpack_q2_k);
UNPACKER(unpack_q3_k);
UNPACKER(unpack_q4_k);
UNPACKER(unpack_q5_k);
UNPACKER(unpack_q6_k);
UNPACKER(unpack_iq4_xs);
UNPACKER(unpack_f32_f32);
UNPACKER(unpack_f32_f16);
UNPACKER(unpack_f32_bf16);
UNPACKER(unpack_bf16);

INLINE const uint8_t *weights_at(const struct matrix *w, size_t row, size_t from)
{
    return (const uint8_t *)w->data + row * tensor_row_bytes(w->type, w->cols) +
           tensor_row_bytes(w->type, from);
}

#define PANELS(form, gemm, unpack)                      \
    {                                                   \
        gemm_run, FORM_BIT(form), 32, &(gemm), (unpack) \
    }
#define PREFILL_AVX512                                                      \
    [TENSOR_F32] = PANELS(FORM_F32T, gemm_avx512_f32, unpack_f32_f32),      \
    [TENSOR_Q4_0] = PANELS(FORM_Q8T, gemm_avx512_32, unpack_q4_0),          \
    [TENSOR_Q4_1] = PANELS(FORM_Q8T, gemm_avx512_32_offset, unpack_q4_1),   \
    [TENSOR_Q5_0] = PANELS(FORM_Q8T, gemm_avx512_32, unpack_q5_0),          \
    [TENSOR_Q5_1] = PANELS(FORM_Q8T, gemm_avx512_32_offset, unpack_q5_1),   \
    [TENSOR_Q8_0] = PANELS(FORM_Q8T, gemm_avx512_32, unpack_q8_0),          \
    [TENSOR_IQ4_NL] = PANELS(FORM_Q8T, gemm_avx512_32, unpack_iq4_nl),      \
    [TENSOR_MXFP4] = PANELS(FORM_Q8T, gemm_avx512_32, unpack_mxfp4),        \
    [TENSOR_Q2_K] = PANELS(FORM_Q8KT, gemm_avx512_k16_offset, unpack_q2_k), \
    [TENSOR_Q3_K] = PANELS(FORM_Q8KT, gemm_avx512_k16, unpack_q3_k),        \
    [TENSOR_Q4_K] = PANELS(FORM_Q8KT, gemm_avx512_k32_offset, unpack_q4_k), \
    [TENSOR_Q5_K] = PANELS(FORM_Q8KT, gemm_avx512_k32_offset, unpack_q5_k), \
    [TENSOR_Q6_K] = PANELS(FORM_Q8KT, gemm_avx512_k16, unpack_q6_k),        \
    [TENSOR_IQ4_XS] = PANELS(FORM_Q8KT, gemm_avx512_k32, unpack_iq4_xs), [TENSOR_Q8_K] = DOT_Q8K(mm_ref_q8k)

#define PREFILL_AVX512_F16 PANELS(FORM_F16T, gemm_avx512_f16, unpack_f32_f16)

#endif
