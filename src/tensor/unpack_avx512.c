/* Unpacking for prefill with AVX-512: a stretch of weight rows to a panel. */
#include "tensor/codes_avx512_int.h"
#include "tensor/gemm_q8_int.h"

/* ---- Quantised formats ---- */

INLINE void unpack_chunk32(const struct codes32 f, const uint8_t *blocks, int count, struct q8_panel *to,
                           size_t r)
{
    __m512i words = f.scales ? _mm512_setzero_si512() : f.words(blocks, CHUNK * f.stride);
    _mm512_storeu_ps(to->scales[r], f.scales ? f.scales(blocks) : halves_low(words));
    if (f.has_min)
        _mm512_storeu_ps(to->offsets[r], halves_high(words));
    for (int p = 0; p < count; p += 2)
        _mm512_storeu_si512(to->codes[r] + 32 * p,
                            f.codes(blocks + p * f.stride, blocks + (p + 1) * f.stride));
}

INLINE void unpack_row32(const struct codes32 f, const uint8_t *w, size_t len, struct q8_panel *to, size_t r)
{
    size_t blocks = len / 32;
    _Static_assert(TILE_STRETCH / 32 == CHUNK, "a stretch is one chunk");
    if (blocks == CHUNK) {
        unpack_chunk32(f, w, CHUNK, to, r);
    } else {
        uint8_t rest[CHUNK * 34] = {0};
        memcpy(rest, w, blocks * (size_t)f.stride);
        unpack_chunk32(f, rest, (int)blocks, to, r);
    }
}

INLINE void unpack_rowk(const struct codesk f, const uint8_t *w, size_t len, struct q8_panel *to, size_t r)
{
    for (size_t b = 0; b < len / 256; b++, w += f.stride) {
        struct groups g = f.groups(w);
        __m512 s = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(g.scales));
        __m512 m = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(g.mins));
        _mm512_storeu_ps(to->scales[r] + 16 * b, _mm512_mul_ps(s, _mm512_set1_ps(g.d)));
        if (f.has_min)
            _mm512_storeu_ps(to->offsets[r] + 16 * b, _mm512_mul_ps(m, _mm512_set1_ps(-g.dmin)));
        for (int k = 0; k < 4; k++)
            _mm512_storeu_si512(to->codes[r] + 256 * b + 64 * k, f.codes(w, k));
    }
}

#define DEFINE(name, unpack_row, format)                                  \
    UNPACKER(unpack_##name)                                               \
    {                                                                     \
        (void)stride;                                                     \
        struct q8_panel *to = (struct q8_panel *)(void *)panel;           \
        to->zero = (format).zero;                                         \
        for (size_t r = 0; r < rows; r++)                                 \
            unpack_row(format, weights_at(w, row + r, from), len, to, r); \
    }

DEFINE(q8_0, unpack_row32, CODES_Q8_0)
DEFINE(q4_0, unpack_row32, CODES_Q4_0)
DEFINE(q4_1, unpack_row32, CODES_Q4_1)
DEFINE(q5_0, unpack_row32, CODES_Q5_0)
DEFINE(q5_1, unpack_row32, CODES_Q5_1)
DEFINE(iq4_nl, unpack_row32, CODES_IQ4_NL)
DEFINE(mxfp4, unpack_row32, CODES_MXFP4)
DEFINE(q2_k, unpack_rowk, CODES_Q2_K)
DEFINE(q3_k, unpack_rowk, CODES_Q3_K)
DEFINE(q4_k, unpack_rowk, CODES_Q4_K)
DEFINE(q5_k, unpack_rowk, CODES_Q5_K)
DEFINE(q6_k, unpack_rowk, CODES_Q6_K)
DEFINE(iq4_xs, unpack_rowk, CODES_IQ4_XS)

/* ---- Floats to F32 ---- */

INLINE void unpack_floats(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len,
                          uint8_t *panel, size_t stride, __m512 (*weights)(const uint8_t *, __mmask16))
{
    size_t bytes = w->type == TENSOR_F32 ? 4 : 2;
    for (size_t r = 0; r < rows; r++, panel += stride) {
        const uint8_t *p = weights_at(w, row + r, from);
        for (size_t i = 0; i < (len + 31) / 32 * 32; i += 16) {
            __mmask16 mask = lanes_below(i, len);
            _mm512_storeu_ps(panel + i * 4, weights(p + i * bytes, mask));
        }
    }
}

#define FLOAT_UNPACKER(name)                                                   \
    UNPACKER(unpack_f32_##name)                                                \
    {                                                                          \
        unpack_floats(w, row, rows, from, len, panel, stride, weights_##name); \
    }

FLOAT_UNPACKER(f32)
FLOAT_UNPACKER(f16)
FLOAT_UNPACKER(bf16)

/* ---- BF16 as it is ---- */

UNPACKER(unpack_bf16)
{
    for (size_t r = 0; r < rows; r++, panel += stride) {
        memcpy(panel, weights_at(w, row + r, from), len * 2);
        memset(panel + len * 2, 0, -len % 32 * 2);
    }
}
