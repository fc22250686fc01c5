/* Products that the AVX-512 table is made of (dot_avx512.c, dotk_avx512.c). */
#ifndef PHAROS_TENSOR_KERNELS_AVX512_INT_H
#define PHAROS_TENSOR_KERNELS_AVX512_INT_H

#include "tensor/kernels_int.h"

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

#define DECODE_AVX512                                                                             \
    {                                                                                             \
        [TENSOR_F32] = {dot_avx512_f32, 0, 1, NULL}, [TENSOR_F16] = {dot_avx512_f16, 0, 1, NULL}, \
        [TENSOR_BF16] = {dot_avx512_bf16, 0, 1, NULL},                                            \
        [TENSOR_Q4_0] = {dot_avx512_q4_0, FORM_BIT(FORM_Q8), 1, NULL},                            \
        [TENSOR_Q4_1] = {dot_avx512_q4_1, FORM_BIT(FORM_Q8), 1, NULL},                            \
        [TENSOR_Q5_0] = {dot_avx512_q5_0, FORM_BIT(FORM_Q8), 1, NULL},                            \
        [TENSOR_Q5_1] = {dot_avx512_q5_1, FORM_BIT(FORM_Q8), 1, NULL},                            \
        [TENSOR_Q8_0] = {dot_avx512_q8_0, FORM_BIT(FORM_Q8), 1, NULL},                            \
        [TENSOR_IQ4_NL] = {dot_avx512_iq4_nl, FORM_BIT(FORM_Q8), 1, NULL},                        \
        [TENSOR_MXFP4] = {dot_avx512_mxfp4, FORM_BIT(FORM_Q8), 1, NULL},                          \
        [TENSOR_Q2_K] = {dot_avx512_q2_k, FORM_BIT(FORM_Q8K), 1, NULL},                           \
        [TENSOR_Q3_K] = {dot_avx512_q3_k, FORM_BIT(FORM_Q8K), 1, NULL},                           \
        [TENSOR_Q4_K] = {dot_avx512_q4_k, FORM_BIT(FORM_Q8K), 1, NULL},                           \
        [TENSOR_Q5_K] = {dot_avx512_q5_k, FORM_BIT(FORM_Q8K), 1, NULL},                           \
        [TENSOR_Q6_K] = {dot_avx512_q6_k, FORM_BIT(FORM_Q8K), 1, NULL},                           \
        [TENSOR_Q8_K] = {mm_ref_q8k, FORM_BIT(FORM_Q8K), 1, NULL}, [TENSOR_IQ4_XS] = {            \
            dot_avx512_iq4_xs,                                                                    \
            FORM_BIT(FORM_Q8K),                                                                   \
            1,                                                                                    \
            NULL                                                                                  \
        }                                                                                         \
    }

extern const struct gemm gemm_amx_blocks, gemm_amx_bf16, gemm_amx_f16;

#endif
