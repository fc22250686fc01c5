/* Loops of arithmetic alone and of reading alone for AVX2. */
#include <immintrin.h>

#include "tensor/kernels_int.h"

#define CHAINS 12

static uint64_t peak_f32(uint64_t rounds)
{
    __m256 sums[CHAINS];
    const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm256_set1_ps((float)i);
    for (uint64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            sums[i] = _mm256_fmadd_ps(sums[i], a, b);
    for (int i = 1; i < CHAINS; i++)
        sums[0] = _mm256_add_ps(sums[0], sums[i]);
    volatile float sink = _mm_cvtss_f32(_mm256_castps256_ps128(sums[0]));
    (void)sink;
    return rounds * CHAINS * 8 * 2;
}

/* Three instructions make 32 products and their sums: multiply, widen, add. */
static uint64_t peak_int8(uint64_t rounds)
{
    __m256i sums[CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-1);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm256_set1_epi32(i);
    for (uint64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++) {
            __asm__ volatile("" : "+x"(a)); /* else the product would be made once */
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    for (int i = 1; i < CHAINS; i++)
        sums[0] = _mm256_add_epi32(sums[0], sums[i]);
    volatile int sink = _mm256_extract_epi32(sums[0], 0);
    (void)sink;
    return rounds * CHAINS * 32 * 2;
}

static uint64_t read_all(const void *data, size_t bytes)
{
    __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                       _mm256_setzero_si256()};
    for (size_t i = 0; i + 128 <= bytes; i += 128) {
        _mm_prefetch((const char *)data + i + 4096, _MM_HINT_T0);
        _mm_prefetch((const char *)data + i + 4096 + 64, _MM_HINT_T0);
        for (size_t j = 0; j < 4; j++)
            sums[j] = _mm256_xor_si256(
                sums[j],
                _mm256_loadu_si256((const __m256i *)(const void *)((const uint8_t *)data + i + 32 * j)));
    }
    sums[0] = _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
    return (uint64_t)_mm256_extract_epi64(sums[0], 0) ^ (uint64_t)_mm256_extract_epi64(sums[0], 3);
}

const struct peak_kernels peak_avx2 = {peak_f32, NULL, peak_int8, read_all};
