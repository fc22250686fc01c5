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
