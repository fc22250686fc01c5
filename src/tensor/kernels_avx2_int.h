/* What the AVX2 table is made of. */
#ifndef PHAROS_TENSOR_KERNELS_AVX2_INT_H
#define PHAROS_TENSOR_KERNELS_AVX2_INT_H

#include "tensor/kernels_int.h"

extern const struct gemm gemm_avx2;

void unpack_avx2(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, uint8_t *panel,
                 size_t stride);

#define PANELS_AVX2                                                \
    {                                                              \
        gemm_run, FORM_BIT(FORM_F32T), 32, &gemm_avx2, unpack_avx2 \
    }
#define PREFILL_AVX2                                                                             \
    {                                                                                            \
        [TENSOR_F32] = PANELS_AVX2, [TENSOR_F16] = PANELS_AVX2, [TENSOR_BF16] = PANELS_AVX2,     \
        [TENSOR_Q4_0] = PANELS_AVX2, [TENSOR_Q4_1] = PANELS_AVX2, [TENSOR_Q5_0] = PANELS_AVX2,   \
        [TENSOR_Q5_1] = PANELS_AVX2, [TENSOR_Q8_0] = PANELS_AVX2, [TENSOR_Q2_K] = PANELS_AVX2,   \
        [TENSOR_Q3_K] = PANELS_AVX2, [TENSOR_Q4_K] = PANELS_AVX2, [TENSOR_Q5_K] = PANELS_AVX2,   \
        [TENSOR_Q6_K] = PANELS_AVX2, [TENSOR_Q8_K] = PANELS_AVX2, [TENSOR_IQ4_NL] = PANELS_AVX2, \
        [TENSOR_IQ4_XS] = PANELS_AVX2, [TENSOR_MXFP4] = PANELS_AVX2                              \
    }

#endif
