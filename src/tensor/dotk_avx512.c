/* Decode on AVX-512 (VNNI): formats with blocks of 256 against inputs in FORM_Q8K.
 *
 * All of a block stays in integers: unsigned codes times input codes give pairs of 16 bits
 * (VPMADDUBSW), which are multiplied with their group's scale and summed in 32 bits (VPDPWSSD).
 * Nothing can overflow: 63 * 127 * 2 fits 16 bits, and 128 products of those with a scale of 8 bits
 * fit 32. IQ4_XS, whose codes need all 8 bits, sums to 32 bits first. What the codes' offset or the
 * group minima contribute follows from the inputs' sums of 16. One conversion and one multiplication
 * with the block scales end the block. */
#include <immintrin.h>

#include "tensor/kernels_avx512_int.h"

/* Sixteen group scales and minima as 16-bit words (one for each 16 codes), and the factors they stand for. */
struct groups {
    __m256i scales, mins;
    float d, dmin; /* w = d * scale * code - dmin * min */
};

struct codesk {
    int stride;
    bool wide; /* codes of 8 bits */
    struct groups (*groups)(const uint8_t *block);
    __m512i (*codes)(const uint8_t *block, int k); /* codes [64 k, 64 k + 64), unsigned */
};

INLINE __m256i load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

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

INLINE struct groups groups_q6_k(const uint8_t *block)
{
    __m256i s = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(block + 192)));
    float d = _cvtsh_ss(load_u16(block + 208));
    return (struct groups){s, s, d, d * 32};
}

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

INLINE struct groups groups_q2_k(const uint8_t *block)
{
    __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)block);
    __m128i low = _mm_and_si128(packed, _mm_set1_epi8(15));
    __m128i high = _mm_and_si128(_mm_srli_epi16(packed, 4), _mm_set1_epi8(15));
    return (struct groups){_mm256_cvtepu8_epi16(low), _mm256_cvtepu8_epi16(high),
                           _cvtsh_ss(load_u16(block + 80)), _cvtsh_ss(load_u16(block + 82))};
}

INLINE __m512i pair_planes(const uint8_t *p, int k)
{
    __m512i v = _mm512_srlv_epi16(both_halves(p + k / 2 * 32), two_words(k % 2 * 4, k % 2 * 4 + 2));
    return _mm512_and_si512(v, _mm512_set1_epi8(3));
}

INLINE __m512i codes_q2_k(const uint8_t *block, int k)
{
    return pair_planes(block + 16, k);
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

INLINE __m512i codes_q3_k(const uint8_t *block, int k)
{
    __m512i high = _mm512_srlv_epi16(both_halves(block), two_words(2 * k, 2 * k + 1));
    high = _mm512_slli_epi16(_mm512_and_si512(high, _mm512_set1_epi8(1)), 2);
    return _mm512_or_si512(pair_planes(block + 32, k), high);
}

/* ---- IQ4_XS ---- */

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

/* ---- Rows ---- */

struct inputk {
    const uint8_t *base; /* FORM_Q8K rows */
    size_t stride, d;
    int n;
};

/* The scales of codes [64 k, 64 k + 64), each for its sixteen codes: 32 words, or 16 integers. */
INLINE __m512i spread_words(__m256i scales, int k)
{
    const __m512i group = _mm512_set_epi64(0x0003000300030003, 0x0003000300030003, 0x0002000200020002,
                                           0x0002000200020002, 0x0001000100010001, 0x0001000100010001, 0, 0);
    __m512i index = _mm512_add_epi16(group, _mm512_set1_epi16((short)(4 * k)));
    return _mm512_permutexvar_epi16(index, _mm512_castsi256_si512(scales));
}

INLINE __m512i spread_ints(__m256i scales, int k)
{
    const __m512i group = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    __m512i index = _mm512_add_epi32(group, _mm512_set1_epi32(4 * k));
    return _mm512_permutexvar_epi32(index, _mm512_cvtepi16_epi32(scales));
}

INLINE __m512i add_products(__m512i sum, const struct codesk f, __m512i codes, __m512i input, __m512i scales)
{
    if (f.wide) {
        __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, input);
        return _mm512_add_epi32(sum, _mm512_mullo_epi32(dot, scales));
    }
    return _mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(codes, input), scales);
}

INLINE void rowk(const struct codesk f, const uint8_t *w, const struct inputk *x, float *y, size_t y_stride)
{
    __m512 sums[INPUTS_MAX];
    __m256 offsets[INPUTS_MAX];
    for (int i = 0; i < x->n; i++) {
        sums[i] = _mm512_setzero_ps();
        offsets[i] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < x->d / 256; b++, w += f.stride) {
        for (int line = 0; line < f.stride; line += 64)
            _mm_prefetch((const char *)w + 2048 + line, _MM_HINT_T0);
        struct groups g = f.groups(w);
        __m512i codes[4], scales[4];
        for (int k = 0; k < 4; k++) {
            codes[k] = f.codes(w, k);
            scales[k] = f.wide ? spread_ints(g.scales, k) : spread_words(g.scales, k);
        }
        for (int i = 0; i < x->n; i++) {
            const uint8_t *row = x->base + (size_t)i * x->stride;
            float scale;
            memcpy(&scale, row + q8k_scales(x->d) + 4 * b, 4);
            __m512i sum = _mm512_setzero_si512();
            for (int k = 0; k < 4; k++)
                sum = add_products(sum, f, codes[k], _mm512_loadu_si512(row + 256 * b + 64 * k), scales[k]);
            __m256i offset = _mm256_madd_epi16(load256(row + q8k_sums(x->d) + 32 * b), g.mins);
            sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(g.d * scale), sums[i]);
            offsets[i] =
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(offset), _mm256_set1_ps(g.dmin * scale), offsets[i]);
        }
    }
    for (int i = 0; i < x->n; i++) {
        __m512 sum = _mm512_sub_ps(sums[i], _mm512_castps256_ps512(offsets[i]));
        sum = _mm512_mask_blend_ps(0xff00, sum, sums[i]); /* the upper half of the cast is undefined */
        y[(size_t)i * y_stride] = _mm512_reduce_add_ps(sum);
    }
}

INLINE void rowsk(const struct codesk f, const struct mm_job *job, size_t first, size_t end)
{
    struct act_view view = act_view(job->x, FORM_Q8K);
    size_t row_bytes = job->w->cols / 256 * (size_t)f.stride;
    for (size_t r = first; r < end; r++) {
        const uint8_t *w = (const uint8_t *)job->w->data + r * row_bytes;
#define CALLK(count)                                                                             \
    rowk(f, w, &(struct inputk){view.data + at * view.stride, view.stride, job->w->cols, count}, \
         job->y + at * job->y_stride + r, job->y_stride)
        FOR_INPUTS(job->x->n, at, CALLK);
    }
}

#define FORMATK(name, stride, wide, groups)                                          \
    void dot_avx512_##name(const struct mm_job *job, size_t first, size_t end)       \
    {                                                                                \
        rowsk((struct codesk){stride, wide, groups, codes_##name}, job, first, end); \
    }

FORMATK(q2_k, 84, false, groups_q2_k)
FORMATK(q3_k, 110, false, groups_q3_k)
FORMATK(q4_k, 144, false, groups_k4)
FORMATK(q5_k, 176, false, groups_k4)
FORMATK(q6_k, 210, false, groups_q6_k)
FORMATK(iq4_xs, 136, true, groups_iq4_xs)
