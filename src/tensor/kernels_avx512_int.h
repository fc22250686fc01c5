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

#define DECODE_AVX512                                                                           \
    {                                                                                           \
        [TENSOR_F32] = DOT(dot_avx512_f32), [TENSOR_F16] = DOT(dot_avx512_f16),                 \
        [TENSOR_BF16] = DOT(dot_avx512_bf16), [TENSOR_Q4_0] = DOT_Q8(dot_avx512_q4_0),          \
        [TENSOR_Q4_1] = DOT_Q8(dot_avx512_q4_1), [TENSOR_Q5_0] = DOT_Q8(dot_avx512_q5_0),       \
        [TENSOR_Q5_1] = DOT_Q8(dot_avx512_q5_1), [TENSOR_Q8_0] = DOT_Q8(dot_avx512_q8_0),       \
        [TENSOR_IQ4_NL] = DOT_Q8(dot_avx512_iq4_nl), [TENSOR_MXFP4] = DOT_Q8(dot_avx512_mxfp4), \
        [TENSOR_Q2_K] = DOT_Q8K(dot_avx512_q2_k), [TENSOR_Q3_K] = DOT_Q8K(dot_avx512_q3_k),     \
        [TENSOR_Q4_K] = DOT_Q8K(dot_avx512_q4_k), [TENSOR_Q5_K] = DOT_Q8K(dot_avx512_q5_k),     \
        [TENSOR_Q6_K] = DOT_Q8K(dot_avx512_q6_k), [TENSOR_IQ4_XS] = DOT_Q8K(dot_avx512_iq4_xs), \
        [TENSOR_Q8_K] = DOT_Q8K(mm_ref_q8k)                                                     \
    }

extern const struct gemm gemm_avx512_f32;

void gemm_write_avx512(const float *sums, size_t rows, size_t columns, float *y, size_t y_stride);

#define PREFILL_AVX512_F32                                                  \
    {                                                                       \
        gemm_run, FORM_BIT(FORM_F32T), 32, &gemm_avx512_f32, unpack_f32_f32 \
    }

#endif
