/* Decode on AVX-512 (VNNI): formats with blocks of 256 against inputs in FORM_Q8K.
 *
 * All of a block stays in integers: unsigned codes times input codes give pairs of 16 bits
 * (VPMADDUBSW), which are multiplied with their group's scale and summed in 32 bits (VPDPWSSD).
 * Nothing can overflow: 63 * 127 * 2 fits 16 bits, and 128 products of those with a scale of 8 bits
 * fit 32. IQ4_XS, whose codes need all 8 bits, sums to 32 bits first. What the codes' offset or the
 * group minima contribute follows from the inputs' sums of 16. One conversion and one multiplication
 * with the block scales end the block. */
#include "tensor/codes_avx512_int.h"

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
            _mm_prefetch((const char *)w + DECODE_AHEAD + line, _MM_HINT_T0);
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

#define FORMATK(name, format)                                                  \
    void dot_avx512_##name(const struct mm_job *job, size_t first, size_t end) \
    {                                                                          \
        rowsk(format, job, first, end);                                        \
    }

FORMATK(q2_k, CODES_Q2_K)
FORMATK(q3_k, CODES_Q3_K)
FORMATK(q4_k, CODES_Q4_K)
FORMATK(q5_k, CODES_Q5_K)
FORMATK(q6_k, CODES_Q6_K)
FORMATK(iq4_xs, CODES_IQ4_XS)
