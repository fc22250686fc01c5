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
    uint32_t a = load_u32(block + 96), b = load_u32(block + 100), top = load_u32(block + 104);
    const uint32_t low = 0x0f0f0f0f, two = 0x03030303;
    __m128i s = _mm_set_epi32((int)((b >> 4 & low) | (top >> 6 & two) << 4),
                              (int)((a >> 4 & low) | (top >> 4 & two) << 4),
                              (int)((b & low) | (top >> 2 & two) << 4), (int)((a & low) | (top & two) << 4));
    __m256i words = _mm256_sub_epi16(_mm256_cvtepu8_epi16(s), _mm256_set1_epi16(32));
    float d = _cvtsh_ss(load_u16(block + 108));
    return (struct groups){words, words, d, d * 4};
}

INLINE struct groups groups_iq4_xs(const uint8_t *block)
{
    uint32_t low = load_u32(block + 4), high = load_u16(block + 2);
    uint16_t words[16];
    for (int g = 0; g < 8; g++)
        words[2 * g] = words[2 * g + 1] = (uint16_t)(((low >> 4 * g & 15) | (high >> 2 * g & 3) << 4) - 32);
    __m256i s = load256((const uint8_t *)words);
    float d = _cvtsh_ss(load_u16(block));
    return (struct groups){s, s, d, d * 128};
}

#endif
