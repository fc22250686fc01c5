/* Products that the AVX2 table (gemm_avx2.c) is made of. */
#ifndef PHAROS_TENSOR_KERNELS_AVX2_INT_H
#define PHAROS_TENSOR_KERNELS_AVX2_INT_H

#include "tensor/kernels_int.h"

void dot_avx2_f32(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_f16(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_bf16(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q8_0(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q4_0(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q4_1(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q5_0(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q5_1(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_iq4_nl(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_mxfp4(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q2_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q3_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q4_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q5_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_q6_k(const struct mm_job *job, size_t first, size_t end);
void dot_avx2_iq4_xs(const struct mm_job *job, size_t first, size_t end);

#endif
