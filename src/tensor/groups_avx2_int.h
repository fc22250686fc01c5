/* Group scales and minima of the formats with blocks of 256, with AVX2; the wider sets use them as well. */
#ifndef PHAROS_TENSOR_GROUPS_AVX2_INT_H
#define PHAROS_TENSOR_GROUPS_AVX2_INT_H

#include <immintrin.h>

#include "tensor/kernels_int.h"

/* Sixteen group scales and minima as 16-bit words (one for each 16 codes), and the factors they stand for. */
struct groups {
    __m256i scales, mins;
    float d, dmin; /* w = d * scale * code - dmin * min */
};

INLINE __m256i load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE struct groups groups_k4(const uint8_t *block)
{
    uint32_t a = load_u32(block + 4), b = load_u32(block + 8), c = load_u32(block + 12);
    uint32_t scales[2] = {a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | (a >> 6 & 0x03030303) << 4};
    uint32_t mins[2] = {b & 0x3f3f3f3f, (c >> 4 & 0x0f0f0f0f) | (b >> 6 & 0x03030303) << 4};
    __m128i s = _mm_cvtsi64_si128((long long)((uint64_t)scales[1] << 32 | scales[0]));
    __m128i m = _mm_cvtsi64_si128((long long)((uint64_t)mins[1] << 32 | mins[0]));
    struct groups g = {_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(s, s)),
                       _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(m, m)), _cvtsh_ss(load_u16(block)),
                       _cvtsh_ss(load_u16(block + 2))};
    return g;
}

INLINE struct groups groups_q6_k(const uint8_t *block)
{
    __m256i s = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(block + 192)));
    float d = _cvtsh_ss(load_u16(block + 208));
    return (struct groups){s, s, d, d * 32};
}

INLINE struct groups groups_q2_k(const uint8_t *block)
{
    __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)block);
    __m128i low = _mm_and_si128(packed, _mm_set1_epi8(15));
    __m128i high = _mm_and_si128(_mm_srli_epi16(packed, 4), _mm_set1_epi8(15));
    return (struct groups){_mm256_cvtepu8_epi16(low), _mm256_cvtepu8_epi16(high),
                           _cvtsh_ss(load_u16(block + 80)), _cvtsh_ss(load_u16(block + 82))};
}

INLINE struct groups groups_q3_k(const uint8_t *block)
{
    const __m128i twice = _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9),
                  last = _mm_setr_epi8(10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13);
    __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)(block + 94)); /* to the block's end */
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi8(packed, twice), _mm_setr_epi32(0, 0, 4, 4));
    __m128i top = _mm_srlv_epi32(_mm_shuffle_epi8(packed, last), _mm_setr_epi32(0, 2, 4, 6));
    low = _mm_and_si128(low, _mm_set1_epi8(15));
    __m128i s = _mm_or_si128(low, _mm_slli_epi16(_mm_and_si128(top, _mm_set1_epi8(3)), 4));
    __m256i words = _mm256_sub_epi16(_mm256_cvtepu8_epi16(s), _mm256_set1_epi16(32));
    float d = _cvtsh_ss(load_u16(block + 108));
    return (struct groups){words, words, d, d * 4};
}

INLINE struct groups groups_iq4_xs(const uint8_t *block)
{
    const __m256i group = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int)load_u32(block + 4)), _mm256_slli_epi32(group, 2));
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(load_u16(block + 2)), _mm256_slli_epi32(group, 1));
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    high = _mm256_and_si256(high, _mm256_set1_epi32(3));
    __m256i s = _mm256_or_si256(low, _mm256_slli_epi32(high, 4)); /* eight groups of 32 codes */
    s = _mm256_or_si256(s, _mm256_slli_epi32(s, 16));
    s = _mm256_sub_epi16(s, _mm256_set1_epi16(32));
    float d = _cvtsh_ss(load_u16(block));
    return (struct groups){s, s, d, d * 128};
}

#endif
