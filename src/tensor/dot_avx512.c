/* Decode on AVX-512 (VNNI): floats and the formats with blocks of 32.
 *
 * One pass over a weight row serves up to eight input rows: each 64 codes are taken apart once and
 * multiplied with every input. Codes become unsigned by an offset (VPDPBUSD wants u8 x s8); what the
 * offset adds is taken off again through the inputs' block sums, sixteen blocks at a time. Scales of
 * sixteen blocks are collected by a few word permutes and multiplied with the inputs' scales; each
 * pair of blocks then picks its two.
 *
 * For one weight row and one input row the order of additions is the same however many inputs share
 * the pass (T1): pairs alternate between two accumulators, folded at the end. A row that is no
 * multiple of sixteen blocks ends in a zero-padded copy, so nothing past its last block is read. */
#include <immintrin.h>

#include "tensor/kernels_avx512_int.h"

#define CHUNK 16 /* blocks */

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

INLINE void float_row(const uint8_t *w, size_t bytes, __m512 (*weights)(const uint8_t *, __mmask16),
                      const float *x, size_t d, int n, float *y, size_t y_stride)
{
    __m512 even[INPUTS_MAX], odd[INPUTS_MAX];
    for (int i = 0; i < n; i++)
        even[i] = odd[i] = _mm512_setzero_ps();
    size_t j = 0;
    for (; j + 32 <= d; j += 32) {
        _mm_prefetch((const char *)w + j * bytes + 1024, _MM_HINT_T0);
        __m512 a = weights(w + j * bytes, 0xffff), b = weights(w + (j + 16) * bytes, 0xffff);
        for (int i = 0; i < n; i++) {
            even[i] = _mm512_fmadd_ps(a, _mm512_loadu_ps(x + (size_t)i * d + j), even[i]);
            odd[i] = _mm512_fmadd_ps(b, _mm512_loadu_ps(x + (size_t)i * d + j + 16), odd[i]);
        }
    }
    for (; j < d; j += 16) {
        __mmask16 mask = d - j >= 16 ? 0xffff : (__mmask16)((1u << (d - j)) - 1);
        __m512 a = weights(w + j * bytes, mask);
        for (int i = 0; i < n; i++)
            even[i] = _mm512_fmadd_ps(a, _mm512_maskz_loadu_ps(mask, x + (size_t)i * d + j), even[i]);
    }
    for (int i = 0; i < n; i++)
        y[(size_t)i * y_stride] = _mm512_reduce_add_ps(_mm512_add_ps(even[i], odd[i]));
}

INLINE void float_rows(const struct mm_job *job, size_t first, size_t end, size_t bytes,
                       __m512 (*weights)(const uint8_t *, __mmask16))
{
    size_t d = job->w->cols;
    for (size_t r = first; r < end; r++) {
        const uint8_t *w = (const uint8_t *)job->w->data + r * d * bytes;
#define FLOAT_CALL(n) \
    float_row(w, bytes, weights, job->x->x + at * d, d, n, job->y + at * job->y_stride + r, job->y_stride)
        FOR_INPUTS(job->x->n, at, FLOAT_CALL);
    }
}

void dot_avx512_f32(const struct mm_job *job, size_t first, size_t end)
{
    float_rows(job, first, end, 4, weights_f32);
}

void dot_avx512_f16(const struct mm_job *job, size_t first, size_t end)
{
    float_rows(job, first, end, 2, weights_f16);
}

void dot_avx512_bf16(const struct mm_job *job, size_t first, size_t end)
{
    float_rows(job, first, end, 2, weights_bf16);
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

typedef short words __attribute__((vector_size(64)));

/* Fills the lanes of `v` whose words lie in the 64 bytes at `from`: all constants, one permute. */
#define PICK(v, blocks, s, from)                                                          \
    _mm512_mask_permutexvar_epi16(v, BITS(s, 0, from) | BITS(s, 2, from),                 \
                                  (__m512i)(words){WORDS(s, 0, from), WORDS(s, 2, from)}, \
                                  _mm512_loadu_si512((blocks) + (from)))

/* First words of sixteen blocks in the low half, second words in the high half. Steps overlap, so that
 * no word is cut in two, and end with the last block. */
INLINE __m512i first_words_18(const uint8_t *blocks)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 18, 0);
    v = PICK(v, blocks, 18, 62);
    v = PICK(v, blocks, 18, 124);
    v = PICK(v, blocks, 18, 186);
    v = PICK(v, blocks, 18, 224);
    return v;
}

INLINE __m512i first_words_20(const uint8_t *blocks)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 20, 0);
    v = PICK(v, blocks, 20, 62);
    v = PICK(v, blocks, 20, 124);
    v = PICK(v, blocks, 20, 186);
    v = PICK(v, blocks, 20, 248);
    v = PICK(v, blocks, 20, 256);
    return v;
}

INLINE __m512i first_words_22(const uint8_t *blocks)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 22, 0);
    v = PICK(v, blocks, 22, 62);
    v = PICK(v, blocks, 22, 124);
    v = PICK(v, blocks, 22, 186);
    v = PICK(v, blocks, 22, 248);
    v = PICK(v, blocks, 22, 288);
    return v;
}

INLINE __m512i first_words_24(const uint8_t *blocks)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 24, 0);
    v = PICK(v, blocks, 24, 62);
    v = PICK(v, blocks, 24, 124);
    v = PICK(v, blocks, 24, 186);
    v = PICK(v, blocks, 24, 248);
    v = PICK(v, blocks, 24, 310);
    v = PICK(v, blocks, 24, 320);
    return v;
}

INLINE __m512i first_words_34(const uint8_t *blocks)
{
    __m512i v = _mm512_setzero_si512();
    v = PICK(v, blocks, 34, 0);
    v = PICK(v, blocks, 34, 62);
    v = PICK(v, blocks, 34, 124);
    v = PICK(v, blocks, 34, 186);
    v = PICK(v, blocks, 34, 248);
    v = PICK(v, blocks, 34, 310);
    v = PICK(v, blocks, 34, 372);
    v = PICK(v, blocks, 34, 434);
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
    __m512i (*words)(const uint8_t *blocks);
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
    float scales[CHUNK];
    for (int b = 0; b < CHUNK; b++)
        scales[b] = e8m0_half(blocks[b * 17]);
    return _mm512_loadu_ps(scales);
}

/* ---- Rows of blocks of 32 ---- */

struct input32 {
    const uint8_t *base; /* FORM_Q8 rows */
    size_t stride, d;
    int n;
};

struct sums32 {
    __m512 even[INPUTS_MAX], odd[INPUTS_MAX], offset[INPUTS_MAX];
};

INLINE const float *plane(const struct input32 *x, int i, size_t offset, size_t block)
{
    return (const float *)(const void *)(x->base + (size_t)i * x->stride + offset) + block;
}

/* `count` blocks (of sixteen there; what lacks is zero) against all inputs, from block `at` of the row on. */
INLINE void chunk32(const struct codes32 f, const uint8_t *blocks, const struct input32 *x, size_t at,
                    int count, struct sums32 *sums)
{
    const __m512i pick = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    __mmask16 mask = (__mmask16)((1u << count) - 1);
    __m512i word = f.scales ? _mm512_setzero_si512() : f.words(blocks);
    __m512 d = f.scales ? f.scales(blocks) : halves_low(word);
    __m512 scale[INPUTS_MAX];
    for (int i = 0; i < x->n; i++) {
        scale[i] = _mm512_mul_ps(d, _mm512_maskz_loadu_ps(mask, plane(x, i, q8_scales(x->d), at)));
        if (f.has_min) {
            __m512 scaled = _mm512_maskz_loadu_ps(mask, plane(x, i, q8_scaled_sums(x->d), at));
            sums->offset[i] = _mm512_fmadd_ps(halves_high(word), scaled, sums->offset[i]);
        } else {
            __m512 sum = _mm512_maskz_loadu_ps(mask, plane(x, i, q8_sums(x->d), at));
            __m512 surplus = _mm512_mul_ps(sum, _mm512_set1_ps((float)f.zero));
            sums->offset[i] = _mm512_fnmadd_ps(scale[i], surplus, sums->offset[i]);
        }
    }
    for (int p = 0; p < count; p += 2) {
        __m512i codes = f.codes(blocks + p * f.stride, blocks + (p + 1) * f.stride);
        __m512i which = _mm512_add_epi32(pick, _mm512_set1_epi32(p));
        for (int i = 0; i < x->n; i++) {
            __m512i input = _mm512_loadu_si512(x->base + (size_t)i * x->stride + 32 * (at + (size_t)p));
            __m512 dot = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, input));
            __m512 s = _mm512_permutexvar_ps(which, scale[i]);
            if (p % 4 == 0)
                sums->even[i] = _mm512_fmadd_ps(dot, s, sums->even[i]);
            else
                sums->odd[i] = _mm512_fmadd_ps(dot, s, sums->odd[i]);
        }
    }
}

INLINE void row32(const struct codes32 f, const uint8_t *w, const struct input32 *x, float *y,
                  size_t y_stride)
{
    struct sums32 sums;
    for (int i = 0; i < x->n; i++)
        sums.even[i] = sums.odd[i] = sums.offset[i] = _mm512_setzero_ps();
    size_t blocks = x->d / 32, b = 0;
    for (; b + CHUNK <= blocks; b += CHUNK, w += CHUNK * f.stride) {
        for (int line = 0; line < CHUNK * f.stride; line += 64)
            _mm_prefetch((const char *)w + 2048 + line, _MM_HINT_T0);
        chunk32(f, w, x, b, CHUNK, &sums);
    }
    if (b < blocks) {
        uint8_t rest[CHUNK * 34] = {0};
        memcpy(rest, w, (blocks - b) * (size_t)f.stride);
        chunk32(f, rest, x, b, (int)(blocks - b), &sums);
    }
    for (int i = 0; i < x->n; i++) {
        __m512 sum = _mm512_add_ps(_mm512_add_ps(sums.even[i], sums.odd[i]), sums.offset[i]);
        y[(size_t)i * y_stride] = _mm512_reduce_add_ps(sum);
    }
}

INLINE void rows32(const struct codes32 f, const struct mm_job *job, size_t first, size_t end)
{
    struct act_view view = act_view(job->x, FORM_Q8);
    size_t row_bytes = job->w->cols / 32 * (size_t)f.stride;
    for (size_t r = first; r < end; r++) {
        const uint8_t *w = (const uint8_t *)job->w->data + r * row_bytes;
#define CALL32(count)                                                                              \
    row32(f, w, &(struct input32){view.data + at * view.stride, view.stride, job->w->cols, count}, \
          job->y + at * job->y_stride + r, job->y_stride)
        FOR_INPUTS(job->x->n, at, CALL32);
    }
}

#define FORMAT32(name, ...)                                                    \
    void dot_avx512_##name(const struct mm_job *job, size_t first, size_t end) \
    {                                                                          \
        rows32((struct codes32){__VA_ARGS__, codes_##name}, job, first, end);  \
    }

FORMAT32(q8_0, 34, 128, false, first_words_34, NULL)
FORMAT32(q4_0, 18, 8, false, first_words_18, NULL)
FORMAT32(q4_1, 20, 0, true, first_words_20, NULL)
FORMAT32(q5_0, 22, 16, false, first_words_22, NULL)
FORMAT32(q5_1, 24, 0, true, first_words_24, NULL)
FORMAT32(iq4_nl, 18, 128, false, first_words_18, NULL)
FORMAT32(mxfp4, 17, 12, false, NULL, scales_mxfp4)
