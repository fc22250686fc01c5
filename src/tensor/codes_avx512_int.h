/* Taking blocks apart with AVX-512: scales of blocks, and codes as unsigned bytes in their natural
 * order. Shared by the decode products and by the unpackers of prefill; everything here melts into its
 * caller. */
#ifndef PHAROS_TENSOR_CODES_AVX512_INT_H
#define PHAROS_TENSOR_CODES_AVX512_INT_H

#include <immintrin.h>

#include "tensor/groups_avx2_int.h"
#include "tensor/kernels_avx512_int.h"

#define CHUNK 16 /* blocks of 32 whose scales are collected together */

/* ---- Floats ---- */

INLINE __m512 weights_f32(const uint8_t *p, __mmask16 mask)
{
    return _mm512_maskz_loadu_ps(mask, p);
}

INLINE __m512 weights_f16(const uint8_t *p, __mmask16 mask)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
}

INLINE __m512 weights_bf16(const uint8_t *p, __mmask16 mask)
{
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16);
}

/* ---- Scales of sixteen blocks ---- */

/* Word `at` + b * stride of block b as an index into the 64 bytes at `from`, and whether it lies there. */
#define IN_REACH(stride, at, from, b) \
    ((b) * (stride) + (at) >= (from) && (b) * (stride) + (at) + 2 <= (from) + 64)
#define WORD(s, at, from, b) (short)(IN_REACH(s, at, from, b) ? ((b) * (s) + (at) - (from)) / 2 : 0)
#define WORDS4(s, at, f, b) \
    WORD(s, at, f, b), WORD(s, at, f, b + 1), WORD(s, at, f, b + 2), WORD(s, at, f, b + 3)
#define WORDS(s, at, f) WORDS4(s, at, f, 0), WORDS4(s, at, f, 4), WORDS4(s, at, f, 8), WORDS4(s, at, f, 12)
#define BIT(s, at, f, b) (uint32_t) IN_REACH(s, at, f, b) << ((at) / 2 * 16 + (b))
#define BITS4(s, at, f, b) \
    (BIT(s, at, f, b) | BIT(s, at, f, b + 1) | BIT(s, at, f, b + 2) | BIT(s, at, f, b + 3))
#define BITS(s, at, f) (BITS4(s, at, f, 0) | BITS4(s, at, f, 4) | BITS4(s, at, f, 8) | BITS4(s, at, f, 12))

typedef short word_vector __attribute__((vector_size(64)));

/* Fills the lanes of `v` whose words lie in the 64 bytes at `from`: all constants, one permute. */
#define PICK(v, blocks, s, from)                                                                \
    _mm512_mask_permutexvar_epi16(v, BITS(s, 0, from) | BITS(s, 2, from),                       \
                                  (__m512i)(word_vector){WORDS(s, 0, from), WORDS(s, 2, from)}, \
                                  _mm512_loadu_si512((blocks) + (from)))

/* First words of sixteen blocks in the low half, second words in the high half. Steps overlap, so that
 * no word is cut in two, and end with the last block. Of fewer blocks, `len` bytes, some may be left out. */
INLINE __m512i first_words_18(const uint8_t *blocks, int len)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 18, 0);
    if (len > 62)
        v = PICK(v, blocks, 18, 62);
    if (len > 124)
        v = PICK(v, blocks, 18, 124);
    if (len > 186)
        v = PICK(v, blocks, 18, 186);
    if (len > 224)
        v = PICK(v, blocks, 18, 224);
    return v;
}

INLINE __m512i first_words_20(const uint8_t *blocks, int len)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 20, 0);
    if (len > 62)
        v = PICK(v, blocks, 20, 62);
    if (len > 124)
        v = PICK(v, blocks, 20, 124);
    if (len > 186)
        v = PICK(v, blocks, 20, 186);
    if (len > 248)
        v = PICK(v, blocks, 20, 248);
    if (len > 256)
        v = PICK(v, blocks, 20, 256);
    return v;
}

INLINE __m512i first_words_22(const uint8_t *blocks, int len)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 22, 0);
    if (len > 62)
        v = PICK(v, blocks, 22, 62);
    if (len > 124)
        v = PICK(v, blocks, 22, 124);
    if (len > 186)
        v = PICK(v, blocks, 22, 186);
    if (len > 248)
        v = PICK(v, blocks, 22, 248);
    if (len > 288)
        v = PICK(v, blocks, 22, 288);
    return v;
}

INLINE __m512i first_words_24(const uint8_t *blocks, int len)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 24, 0);
    if (len > 62)
        v = PICK(v, blocks, 24, 62);
    if (len > 124)
        v = PICK(v, blocks, 24, 124);
    if (len > 186)
        v = PICK(v, blocks, 24, 186);
    if (len > 248)
        v = PICK(v, blocks, 24, 248);
    if (len > 310)
        v = PICK(v, blocks, 24, 310);
    if (len > 320)
        v = PICK(v, blocks, 24, 320);
    return v;
}

INLINE __m512i first_words_34(const uint8_t *blocks, int len)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 34, 0);
    if (len > 62)
        v = PICK(v, blocks, 34, 62);
    if (len > 124)
        v = PICK(v, blocks, 34, 124);
    if (len > 186)
        v = PICK(v, blocks, 34, 186);
    if (len > 248)
        v = PICK(v, blocks, 34, 248);
    if (len > 310)
        v = PICK(v, blocks, 34, 310);
    if (len > 372)
        v = PICK(v, blocks, 34, 372);
    if (len > 434)
        v = PICK(v, blocks, 34, 434);
    if (len > 480)
        v = PICK(v, blocks, 34, 480);
    return v;
}

INLINE __m512 halves_low(__m512i v)
{
    return _mm512_cvtph_ps(_mm512_castsi512_si256(v));
}

INLINE __m512 halves_high(__m512i v)
{
    return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1));
}

/* ---- Codes of two blocks, as unsigned bytes ---- */

/* Nibbles of two blocks whose sixteen bytes lie at a and b: a low, a high, b low, b high. */
INLINE __m512i nibbles(const uint8_t *a, const uint8_t *b)
{
    const __m512i shifts = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    __m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)a));
    v = _mm512_mask_broadcast_i32x4(v, 0xff00, _mm_loadu_si128((const __m128i *)(const void *)b));
    return _mm512_and_si512(_mm512_srlv_epi64(v, shifts), _mm512_set1_epi8(15));
}

INLINE __m512i fifth_bits(__m512i codes, const uint8_t *a, const uint8_t *b)
{
    __mmask64 mask = (__mmask64)load_u32(a) | (__mmask64)load_u32(b) << 32;
    return _mm512_or_si512(codes, _mm512_maskz_mov_epi8(mask, _mm512_set1_epi8(16)));
}

struct codes32 {
    int stride;   /* block bytes */
    int zero;     /* code of the value 0 (symmetric formats) */
    bool has_min; /* w = scale * code + second word (Q4_1, Q5_1) */
    __m512i (*words)(const uint8_t *blocks, int len);
    __m512 (*scales)(const uint8_t *blocks); /* instead of F16 in the first word */
    __m512i (*codes)(const uint8_t *a, const uint8_t *b);
};

INLINE __m512i codes_q8_0(const uint8_t *a, const uint8_t *b)
{
    __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)(a + 2)));
    v = _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)(const void *)(b + 2)), 1);
    return _mm512_xor_si512(v, _mm512_set1_epi8(-128));
}

INLINE __m512i codes_q4_0(const uint8_t *a, const uint8_t *b)
{
    return nibbles(a + 2, b + 2);
}

INLINE __m512i codes_q4_1(const uint8_t *a, const uint8_t *b)
{
    return nibbles(a + 4, b + 4);
}

INLINE __m512i codes_q5_0(const uint8_t *a, const uint8_t *b)
{
    return fifth_bits(nibbles(a + 6, b + 6), a + 2, b + 2);
}

INLINE __m512i codes_q5_1(const uint8_t *a, const uint8_t *b)
{
    return fifth_bits(nibbles(a + 8, b + 8), a + 4, b + 4);
}

INLINE __m512i codes_iq4_nl(const uint8_t *a, const uint8_t *b)
{
    __m128i values = _mm_loadu_si128((const __m128i *)(const void *)format_iq4_values);
    values = _mm_xor_si128(values, _mm_set1_epi8(-128));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), nibbles(a + 2, b + 2));
}

INLINE __m512i codes_mxfp4(const uint8_t *a, const uint8_t *b)
{
    __m128i values = _mm_loadu_si128((const __m128i *)(const void *)format_fp4_values);
    values = _mm_add_epi8(values, _mm_set1_epi8(12));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), nibbles(a + 1, b + 1));
}

INLINE __m512 scales_mxfp4(const uint8_t *blocks)
{
    const __m512i words = _mm512_set1_epi64(0x0019001100080000); /* bytes 0, 17, 34 and 51 lie in them */
    __m512i v = _mm512_setzero_si512();
    for (int g = 0; g < CHUNK / 4; g++) /* four blocks are 68 bytes */
        v = _mm512_mask_permutexvar_epi16(v, 15u << 4 * g, words, _mm512_loadu_si512(blocks + 68 * g));
    __m256i bytes = _mm256_srlv_epi16(_mm512_castsi512_si256(v), _mm256_set1_epi32(0x00080000));
    __m512i e = _mm512_cvtepu16_epi32(_mm256_and_si256(bytes, _mm256_set1_epi16(255)));
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23); /* as e8m0_half */
    __mmask16 tiny = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, tiny, _mm512_set1_epi32(0x00200000), e));
}

/* ---- The formats with blocks of 32 ---- */

#define CODES_Q8_0 ((struct codes32){34, 128, false, first_words_34, NULL, codes_q8_0})
#define CODES_Q4_0 ((struct codes32){18, 8, false, first_words_18, NULL, codes_q4_0})
#define CODES_Q4_1 ((struct codes32){20, 0, true, first_words_20, NULL, codes_q4_1})
#define CODES_Q5_0 ((struct codes32){22, 16, false, first_words_22, NULL, codes_q5_0})
#define CODES_Q5_1 ((struct codes32){24, 0, true, first_words_24, NULL, codes_q5_1})
#define CODES_IQ4_NL ((struct codes32){18, 128, false, first_words_18, NULL, codes_iq4_nl})
#define CODES_MXFP4 ((struct codes32){17, 12, false, NULL, scales_mxfp4, codes_mxfp4})

/* ---- Blocks of 256 ---- */

struct codesk {
    int stride;
    bool wide; /* codes of 8 bits */
    int zero;  /* code of the value 0 (symmetric formats); the groups' minima say the same */
    bool has_min;
    struct groups (*groups)(const uint8_t *block);
    __m512i (*codes)(const uint8_t *block, int k); /* codes [64 k, 64 k + 64), unsigned */
};

INLINE __m512i both_halves(const uint8_t *p)
{
    return _mm512_broadcast_i64x4(load256(p));
}

/* A word for the low and one for the high half of a vector. */
INLINE __m512i two_words(int low, int high)
{
    return _mm512_inserti64x4(_mm512_set1_epi16((short)low), _mm256_set1_epi16((short)high), 1);
}

INLINE __m512i two_bytes(int low, int high)
{
    return two_words(low * 257, high * 257);
}

/* ---- Q4_K, Q5_K ---- */

INLINE __m512i nibble_planes(const uint8_t *p)
{
    __m512i v = _mm512_srlv_epi16(both_halves(p), two_words(0, 4));
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

INLINE __m512i codes_q4_k(const uint8_t *block, int k)
{
    return nibble_planes(block + 16 + 32 * k);
}

INLINE __m512i codes_q5_k(const uint8_t *block, int k)
{
    __mmask64 high =
        _mm512_test_epi8_mask(both_halves(block + 16), two_bytes(1 << 2 * k & 127, 2 << 2 * k & 127));
    if (k == 3) /* the top bit makes a negative byte: spelled by itself */
        high = _mm512_test_epi8_mask(both_halves(block + 16), two_words(0x4040, -0x7f80));
    return _mm512_or_si512(nibble_planes(block + 48 + 32 * k),
                           _mm512_maskz_mov_epi8(high, _mm512_set1_epi8(16)));
}

/* ---- Q6_K ---- */

INLINE __m512i codes_q6_k(const uint8_t *block, int k)
{
    __m512i low = _mm512_loadu_si512(block + k / 2 * 64);
    __m512i high = both_halves(block + 128 + k / 2 * 32);
    low = k % 2 ? _mm512_srli_epi16(low, 4) : low;
    high = k % 2 ? _mm512_srlv_epi16(high, two_words(0, 2)) : _mm512_sllv_epi16(high, two_words(4, 2));
    low = _mm512_and_si512(low, _mm512_set1_epi8(15));
    return _mm512_or_si512(low, _mm512_and_si512(high, _mm512_set1_epi8(48)));
}

/* ---- Q2_K, Q3_K ---- */

INLINE __m512i pair_planes(const uint8_t *p, int k)
{
    __m512i v = _mm512_srlv_epi16(both_halves(p + k / 2 * 32), two_words(k % 2 * 4, k % 2 * 4 + 2));
    return _mm512_and_si512(v, _mm512_set1_epi8(3));
}

INLINE __m512i codes_q2_k(const uint8_t *block, int k)
{
    return pair_planes(block + 16, k);
}

INLINE __m512i codes_q3_k(const uint8_t *block, int k)
{
    __m512i high = both_halves(block), low = both_halves(block + 32 + k / 2 * 32);
    high = k ? _mm512_srlv_epi16(high, two_words(2 * k - 2, 2 * k - 1)) /* the bit comes to be the third */
             : _mm512_sllv_epi16(high, two_words(2, 1));
    low = _mm512_srlv_epi16(low, two_words(k % 2 * 4, k % 2 * 4 + 2));
    __m512i both = _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi8(3), 0xe4); /* low where 3 has ones */
    return _mm512_and_si512(both, _mm512_set1_epi8(7));
}

/* ---- IQ4_XS ---- */

INLINE __m512i codes_iq4_xs(const uint8_t *block, int k)
{
    const __m512i shifts = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    __m128i values = _mm_loadu_si128((const __m128i *)(const void *)format_iq4_values);
    const uint8_t *p = block + 8 + 32 * k;
    __m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm512_mask_broadcast_i32x4(v, 0xff00, _mm_loadu_si128((const __m128i *)(const void *)(p + 16)));
    v = _mm512_and_si512(_mm512_srlv_epi64(v, shifts), _mm512_set1_epi8(15));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_xor_si128(values, _mm_set1_epi8(-128))), v);
}

/* ---- The formats with blocks of 256 ---- */

#define CODES_Q2_K ((struct codesk){84, false, 0, true, groups_q2_k, codes_q2_k})
#define CODES_Q3_K ((struct codesk){110, false, 4, false, groups_q3_k, codes_q3_k})
#define CODES_Q4_K ((struct codesk){144, false, 0, true, groups_k4, codes_q4_k})
#define CODES_Q5_K ((struct codesk){176, false, 0, true, groups_k4, codes_q5_k})
#define CODES_Q6_K ((struct codesk){210, false, 32, false, groups_q6_k, codes_q6_k})
#define CODES_IQ4_XS ((struct codesk){136, true, 128, false, groups_iq4_xs, codes_iq4_xs})

#endif
