/* Peaks of AVX-512 with BF16: pair products; the rest as in peak_avx512.c. */
#include <immintrin.h>

#include "tensor/kernels_int.h"

#define CHAINS 16

static uint64_t peak_bf16(uint64_t rounds)
{
    __m512 sums[CHAINS];
    const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f7f), b = (__m512bh)_mm512_set1_epi16(0x3a83);
    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm512_set1_ps((float)i);
    for (uint64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
    for (int i = 1; i < CHAINS; i++)
        sums[0] = _mm512_add_ps(sums[0], sums[i]);
    volatile float sink = _mm512_reduce_add_ps(sums[0]);
    (void)sink;
    return rounds * CHAINS * 32 * 2;
}

static uint64_t peak_f32(uint64_t rounds)
{
    return peak_avx512.f32(rounds);
}

static uint64_t peak_int8(uint64_t rounds)
{
    return peak_avx512.int8(rounds);
}

static uint64_t read_all(const void *data, size_t bytes)
{
    return peak_avx512.read(data, bytes);
}

const struct peak_kernels peak_avx512bf16 = {peak_f32, peak_bf16, peak_int8, read_all};
