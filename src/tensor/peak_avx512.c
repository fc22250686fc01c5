/* Loops of arithmetic alone and of reading alone for AVX-512: the limits that products are measured
 * against. */
#include <immintrin.h>

#include "tensor/kernels_int.h"

#define CHAINS 16 /* enough independent sums to hide the latency of any unit */

static uint64_t peak_f32(uint64_t rounds)
{
    __m512 sums[CHAINS];
    const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm512_set1_ps((float)i);
    for (uint64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            sums[i] = _mm512_fmadd_ps(sums[i], a, b);
    for (int i = 1; i < CHAINS; i++)
        sums[0] = _mm512_add_ps(sums[0], sums[i]);
    volatile float sink = _mm512_reduce_add_ps(sums[0]);
    (void)sink;
    return rounds * CHAINS * 16 * 2;
}

static uint64_t peak_int8(uint64_t rounds)
{
    __m512i sums[CHAINS];
    const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-1);
    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm512_set1_epi32(i);
    for (uint64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
    for (int i = 1; i < CHAINS; i++)
        sums[0] = _mm512_add_epi32(sums[0], sums[i]);
    volatile int sink = _mm512_reduce_add_epi32(sums[0]);
    (void)sink;
    return rounds * CHAINS * 64 * 2;
}

static uint64_t read_all(const void *data, size_t bytes)
{
    __m512i sums[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                       _mm512_setzero_si512()};
    for (size_t i = 0; i + 256 <= bytes; i += 256) {
        _mm_prefetch((const char *)data + i + 4096, _MM_HINT_T0);
        for (size_t j = 0; j < 4; j++)
            sums[j] = _mm512_xor_si512(sums[j], _mm512_loadu_si512((const uint8_t *)data + i + 64 * j));
    }
    sums[0] = _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3]));
    return (uint64_t)_mm512_reduce_add_epi64(sums[0]);
}

const struct peak_kernels peak_avx512 = {peak_f32, NULL, peak_int8, read_all};
