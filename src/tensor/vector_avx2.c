/* Vector operations for AVX2 with FMA and F16C. */
#include <immintrin.h>

#define VECTOR_BYTES 32
#define VECTOR_TABLE vector_avx2
#include "tensor/vector_body.h"

static inline vf vector_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline vf vector_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline void vector_store_f16(uint16_t *p, vf v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

static inline __m256i lanes_under(size_t len)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)len), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* VPMADDUBSW takes one operand without sign: |row|, and the query with the row's signs. Two products of at
 * most 127 * 127 fit into 16 bits. */
static inline int32_t codes_dot(const int8_t *query, const int8_t *row, size_t len, int32_t query_sum)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    size_t i = 0;
    (void)query_sum;
    for (; i + 32 <= len; i += 32) {
        __m256i r = _mm256_loadu_si256((const __m256i *)(const void *)(row + i));
        __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)(query + i));
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(r), _mm256_sign_epi8(q, r));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    int32_t total = _mm_cvtsi128_si32(half);
    for (; i < len; i++)
        total += query[i] * row[i];
    return total;
}

static inline vf load_part(const float *p, size_t len)
{
    return _mm256_maskload_ps(p, lanes_under(len));
}

static inline void store_part(float *p, vf v, size_t len)
{
    _mm256_maskstore_ps(p, lanes_under(len), v);
}

static inline vf max_of(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}

static inline vf min_of(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}

static inline float fold_sum(vf v)
{
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

static inline float fold_max(vf v)
{
    __m128 top = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    top = _mm_max_ps(top, _mm_movehl_ps(top, top));
    return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
}

static inline vf times_power(vf v, vi k)
{
    return plain_times_power(v, k);
}

static inline vf vector_swap(vf v)
{
    return _mm256_permute_ps(v, 0xb1);
}

static inline vf vector_even(vf v)
{
    return _mm256_moveldup_ps(v);
}

static inline vf vector_odd(vf v)
{
    return _mm256_movehdup_ps(v);
}
