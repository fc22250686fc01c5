/* Unpacking for prefill with AVX-512: a stretch of weight rows to panels of BF16 or F32. */
#include "tensor/unpack_avx512_int.h"

/* Where unpacked numbers go: 64 at a time, in four vectors. */
struct sink {
    size_t bytes; /* of an element */
    void (*put)(uint8_t *to, __m512 a, __m512 b, __m512 c, __m512 d);
};

INLINE void put_bf16(uint8_t *to, __m512 a, __m512 b, __m512 c, __m512 d)
{
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    _mm512_storeu_si512(to + 64, (__m512i)_mm512_cvtne2ps_pbh(d, c));
}

INLINE void put_f32(uint8_t *to, __m512 a, __m512 b, __m512 c, __m512 d)
{
    _mm512_storeu_ps(to, a);
    _mm512_storeu_ps(to + 64, b);
    _mm512_storeu_ps(to + 128, c);
    _mm512_storeu_ps(to + 192, d);
}

INLINE __m512 scaled(__m128i codes, const float *scales, const float *mins)
{
    __m512 v = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
    return _mm512_fmsub_ps(v, _mm512_set1_ps(*scales), _mm512_set1_ps(*mins));
}

/* Sixty-four codes, each sixteen with the scale and minimum named. */
#define PUT_CODES(sink, to, codes, s0, s1, s2, s3)                                      \
    (sink).put(to, scaled(_mm512_extracti32x4_epi32(codes, 0), &scales[s0], &mins[s0]), \
               scaled(_mm512_extracti32x4_epi32(codes, 1), &scales[s1], &mins[s1]),     \
               scaled(_mm512_extracti32x4_epi32(codes, 2), &scales[s2], &mins[s2]),     \
               scaled(_mm512_extracti32x4_epi32(codes, 3), &scales[s3], &mins[s3]))

INLINE void unpack_chunk32(const struct codes32 f, const uint8_t *blocks, int count, const struct sink sink,
                           uint8_t *to)
{
    float scales[CHUNK], mins[CHUNK];
    __m512i words = f.scales ? _mm512_setzero_si512() : f.words(blocks);
    __m512 d = f.scales ? f.scales(blocks) : halves_low(words);
    __m512 zero = _mm512_mul_ps(d, _mm512_set1_ps((float)f.zero));
    _mm512_storeu_ps(scales, d);
    _mm512_storeu_ps(mins, f.has_min ? _mm512_sub_ps(_mm512_setzero_ps(), halves_high(words)) : zero);
    for (int p = 0; p < count; p += 2, to += 64 * sink.bytes) {
        __m512i codes = f.codes(blocks + p * f.stride, blocks + (p + 1) * f.stride);
        PUT_CODES(sink, to, codes, p, p, p + 1, p + 1);
    }
}

INLINE void unpack_row32(const struct codes32 f, const uint8_t *w, size_t len, const struct sink sink,
                         uint8_t *to)
{
    size_t blocks = len / 32, b = 0;
    for (; b + CHUNK <= blocks; b += CHUNK, w += CHUNK * f.stride, to += CHUNK * 32 * sink.bytes)
        unpack_chunk32(f, w, CHUNK, sink, to);
    if (b < blocks) {
        uint8_t rest[CHUNK * 34] = {0};
        memcpy(rest, w, (blocks - b) * (size_t)f.stride);
        unpack_chunk32(f, rest, (int)(blocks - b), sink, to);
    }
}

INLINE void unpack_rowk(const struct codesk f, const uint8_t *w, size_t len, const struct sink sink,
                        uint8_t *to)
{
    float scales[16], mins[16];
    for (size_t b = 0; b < len / 256; b++, w += f.stride) {
        struct groups g = f.groups(w);
        __m512 s = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(g.scales));
        __m512 m = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(g.mins));
        _mm512_storeu_ps(scales, _mm512_mul_ps(s, _mm512_set1_ps(g.d)));
        _mm512_storeu_ps(mins, _mm512_mul_ps(m, _mm512_set1_ps(g.dmin)));
        for (int k = 0; k < 4; k++, to += 64 * sink.bytes) {
            __m512i codes = f.codes(w, k);
            PUT_CODES(sink, to, codes, 4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3);
        }
    }
}

/* ---- Rows of a panel ---- */

INLINE const uint8_t *row_at(const struct matrix *w, size_t row, size_t from)
{
    return (const uint8_t *)w->data + row * tensor_row_bytes(w->type, w->cols) +
           tensor_row_bytes(w->type, from);
}

#define TO_BF16 ((struct sink){2, put_bf16})
#define TO_F32 ((struct sink){4, put_f32})

#define UNPACKER(name, unpack_row, format, sink)                                                        \
    void name(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, uint8_t *panel, \
              size_t stride)                                                                            \
    {                                                                                                   \
        for (size_t r = 0; r < rows; r++)                                                               \
            unpack_row(format, row_at(w, row + r, from), len, sink, panel + r * stride);                \
    }

#define UNPACKERS(name, unpack_row, format)                   \
    UNPACKER(unpack_bf16_##name, unpack_row, format, TO_BF16) \
    UNPACKER(unpack_f32_##name, unpack_row, format, TO_F32)

UNPACKERS(q8_0, unpack_row32, CODES_Q8_0)
UNPACKERS(q4_0, unpack_row32, CODES_Q4_0)
UNPACKERS(q4_1, unpack_row32, CODES_Q4_1)
UNPACKERS(q5_0, unpack_row32, CODES_Q5_0)
UNPACKERS(q5_1, unpack_row32, CODES_Q5_1)
UNPACKERS(iq4_nl, unpack_row32, CODES_IQ4_NL)
UNPACKERS(mxfp4, unpack_row32, CODES_MXFP4)
UNPACKERS(q2_k, unpack_rowk, CODES_Q2_K)
UNPACKERS(q3_k, unpack_rowk, CODES_Q3_K)
UNPACKERS(q4_k, unpack_rowk, CODES_Q4_K)
UNPACKERS(q5_k, unpack_rowk, CODES_Q5_K)
UNPACKERS(q6_k, unpack_rowk, CODES_Q6_K)
UNPACKERS(iq4_xs, unpack_rowk, CODES_IQ4_XS)

/* Q8_K, an activation format, is rare as a weight: through the plain description. */
static void unpack_row_q8_k(const uint8_t *w, size_t len, const struct sink sink, uint8_t *to)
{
    float x[256];
    for (size_t i = 0; i < len; i += 256, w += 292) {
        tensor_dequantize(TENSOR_Q8_K, w, x, 256);
        for (size_t j = 0; j < 256; j += 64, to += 64 * sink.bytes)
            sink.put(to, _mm512_loadu_ps(x + j), _mm512_loadu_ps(x + j + 16), _mm512_loadu_ps(x + j + 32),
                     _mm512_loadu_ps(x + j + 48));
    }
}

#define PLAIN_ROW(format, w, len, sink, to) unpack_row_q8_k(w, len, sink, to)

UNPACKERS(q8_k, PLAIN_ROW, 0)

/* ---- Floats to F32 ---- */

INLINE void unpack_floats(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len,
                          uint8_t *panel, size_t stride, __m512 (*weights)(const uint8_t *, __mmask16))
{
    size_t bytes = w->type == TENSOR_F32 ? 4 : 2;
    for (size_t r = 0; r < rows; r++, panel += stride) {
        const uint8_t *p = row_at(w, row + r, from);
        for (size_t i = 0; i < (len + 31) / 32 * 32; i += 16) {
            __mmask16 mask = lanes_below(i, len);
            _mm512_storeu_ps(panel + i * 4, weights(p + i * bytes, mask));
        }
    }
}

#define FLOAT_UNPACKER(name)                                                   \
    UNPACKER_DECLARED(unpack_f32_##name)                                       \
    {                                                                          \
        unpack_floats(w, row, rows, from, len, panel, stride, weights_##name); \
    }

FLOAT_UNPACKER(f32)
FLOAT_UNPACKER(f16)
FLOAT_UNPACKER(bf16)
