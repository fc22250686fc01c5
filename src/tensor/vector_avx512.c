/* Vector operations for AVX-512. */
#include <immintrin.h>

#define VECTOR_BYTES 64
#define VECTOR_TABLE vector_avx512
#include "tensor/vector_body.h"

static inline vf vector_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline vf vector_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline void vector_store_f16(uint16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

/* VPDPBUSD takes one operand without sign: codes + 128, and 128 times the query's sum too much. */
static inline int32_t codes_dot(const int8_t *query, const int8_t *row, size_t len, int32_t query_sum)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    __m512i sum = _mm512_setzero_si512();
    size_t i = 0;
    for (; i + 64 <= len; i += 64)
        sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(_mm512_loadu_si512(row + i), flip),
                                  _mm512_loadu_si512(query + i));
    if (i < len) {
        __mmask64 rest = ~(__mmask64)0 >> (64 - (len - i));
        sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(_mm512_maskz_loadu_epi8(rest, row + i), flip),
                                  _mm512_maskz_loadu_epi8(rest, query + i));
    }
    return _mm512_reduce_add_epi32(sum) - 128 * query_sum;
}

static inline __mmask16 lanes_under(size_t len)
{
    return (__mmask16)((1u << len) - 1); /* len is below 16 */
}

static inline vf load_part(const float *p, size_t len)
{
    return _mm512_maskz_loadu_ps(lanes_under(len), p);
}

static inline void store_part(float *p, vf v, size_t len)
{
    _mm512_mask_storeu_ps(p, lanes_under(len), v);
}

static inline vf max_of(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}

static inline vf min_of(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}

static inline float fold_sum(vf v)
{
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

static inline float fold_max(vf v)
{
    __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 top = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    top = _mm_max_ps(top, _mm_movehl_ps(top, top));
    return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
}

static inline vf times_power(vf v, vi k)
{
    return _mm512_scalef_ps(v, _mm512_cvtepi32_ps((__m512i)k));
}

static inline vf vector_swap(vf v)
{
    return _mm512_permute_ps(v, 0xb1);
}

static inline vf vector_even(vf v)
{
    return _mm512_moveldup_ps(v);
}

static inline vf vector_odd(vf v)
{
    return _mm512_movehdup_ps(v);
}
