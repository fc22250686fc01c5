/* The AMX table: decode as AVX-512 has it, prefill on tiles. */
#define _GNU_SOURCE /* syscall */
#include "tensor/kernels_avx512_int.h"

#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

/* Linux lets a process use tile data after it asked once; another system is taken not to. */
bool kernels_amx_permitted(void)
{
#ifdef __linux__
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

#define BLOCKS                                               \
    {                                                        \
        gemm_run, FORM_BIT(FORM_BF16T), 32, &gemm_amx_blocks \
    }

const struct kernels kernels_amx = {
    .name = "amx",
    .vector = &vector_avx512,
    .peak = &peak_amx,
    .decode = DECODE_AVX512,
    .prefill = {[TENSOR_F32] = {dot_avx512_f32, 0, 1, NULL},
                [TENSOR_F16] = {gemm_run, FORM_BIT(FORM_BF16T) | FORM_BIT(FORM_BF16L), 32, &gemm_amx_f16},
                [TENSOR_BF16] = {gemm_run, FORM_BIT(FORM_BF16T), 32, &gemm_amx_bf16},
                [TENSOR_Q4_0] = BLOCKS,
                [TENSOR_Q4_1] = BLOCKS,
                [TENSOR_Q5_0] = BLOCKS,
                [TENSOR_Q5_1] = BLOCKS,
                [TENSOR_Q8_0] = BLOCKS,
                [TENSOR_Q2_K] = BLOCKS,
                [TENSOR_Q3_K] = BLOCKS,
                [TENSOR_Q4_K] = BLOCKS,
                [TENSOR_Q5_K] = BLOCKS,
                [TENSOR_Q6_K] = BLOCKS,
                [TENSOR_Q8_K] = BLOCKS,
                [TENSOR_IQ4_NL] = BLOCKS,
                [TENSOR_IQ4_XS] = BLOCKS,
                [TENSOR_MXFP4] = BLOCKS}};
