/* Decode on AVX-512 (VNNI): floats and the formats with blocks of 32.
 *
 * One pass over a weight row serves up to eight input rows: each 64 codes are taken apart once and
 * multiplied with every input. Codes become unsigned by an offset (VPDPBUSD wants u8 x s8); what the
 * offset adds is taken off again through the inputs' block sums, sixteen blocks at a time. Scales of
 * sixteen blocks are collected by a few word permutes and multiplied with the inputs' scales; each
 * pair of blocks then picks its two.
 *
 * For one weight row and one input row the order of additions is the same however many inputs share
 * the pass (T1): pairs alternate between two accumulators, folded at the end. Where a row ends before
 * its sixteenth block, what lies behind it is the next row, whose scales are masked; only at the
 * matrix's end a zero-padded copy stands in, so nothing past the last block is read. (Copying every
 * short row made narrow models decode quantised weights slower than floats: the loads wait for the
 * copy's stores.) */
#include "tensor/codes_avx512_int.h"

/* ---- Floats ---- */

INLINE void float_row(const uint8_t *w, size_t bytes, __m512 (*weights)(const uint8_t *, __mmask16),
                      struct act_view x, size_t d, int n, float *y, size_t y_stride)
{
    __m512 even[INPUTS_MAX], odd[INPUTS_MAX];
    for (int i = 0; i < n; i++)
        even[i] = odd[i] = _mm512_setzero_ps();
    size_t j = 0;
    for (; j + 32 <= d; j += 32) {
        for (size_t line = 0; line < 32 * bytes; line += 64)
            _mm_prefetch((const char *)w + j * bytes + DECODE_AHEAD + line, _MM_HINT_T0);
        __m512 a = weights(w + j * bytes, 0xffff), b = weights(w + (j + 16) * bytes, 0xffff);
        for (int i = 0; i < n; i++) {
            even[i] = _mm512_fmadd_ps(a, _mm512_loadu_ps(act_row(x, i) + j), even[i]);
            odd[i] = _mm512_fmadd_ps(b, _mm512_loadu_ps(act_row(x, i) + j + 16), odd[i]);
        }
    }
    for (; j < d; j += 16) {
        __mmask16 mask = lanes_below(j, d);
        __m512 a = weights(w + j * bytes, mask);
        for (int i = 0; i < n; i++)
            even[i] = _mm512_fmadd_ps(a, _mm512_maskz_loadu_ps(mask, act_row(x, i) + j), even[i]);
    }
    for (int i = 0; i < n; i++)
        y[(size_t)i * y_stride] = _mm512_reduce_add_ps(_mm512_add_ps(even[i], odd[i]));
}

INLINE void float_rows(const struct mm_job *job, size_t first, size_t end, size_t bytes,
                       __m512 (*weights)(const uint8_t *, __mmask16))
{
    size_t d = job->w->cols;
    struct act_view x = act_floats(job->x, job->w->type);
    for (size_t r = first; r < end; r++) {
        const uint8_t *w = (const uint8_t *)job->w->data + r * d * bytes;
#define FLOAT_CALL(n)                                                                       \
    float_row(w, bytes, weights, (struct act_view){x.data + at * x.stride, x.stride}, d, n, \
              job->y + at * job->y_stride + r, job->y_stride)
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

/* `count` blocks (of sixteen that can be read) against all inputs, from block `at` of the row on. */
INLINE void chunk32(const struct codes32 f, const uint8_t *blocks, const struct input32 *x, size_t at,
                    int count, struct sums32 *sums)
{
    const __m512i pick = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    __mmask16 mask = lanes_below(0, (size_t)count);
    __m512i word = f.scales ? _mm512_setzero_si512() : f.words(blocks, count * f.stride);
    __m512 d = _mm512_maskz_mov_ps(mask, f.scales ? f.scales(blocks) : halves_low(word));
    __m512 scale[INPUTS_MAX];
    for (int i = 0; i < x->n; i++) {
        scale[i] = _mm512_mul_ps(d, _mm512_maskz_loadu_ps(mask, plane(x, i, q8_scales(x->d), at)));
        if (f.has_min) {
            __m512 scaled = _mm512_maskz_loadu_ps(mask, plane(x, i, q8_scaled_sums(x->d), at));
            __m512 min = _mm512_maskz_mov_ps(mask, halves_high(word));
            sums->offset[i] = _mm512_fmadd_ps(min, scaled, sums->offset[i]);
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

/* end: of the matrix. */
INLINE void sum_row32(const struct codes32 f, const uint8_t *w, const uint8_t *end, const struct input32 *x,
                      __m512 *out)
{
    struct sums32 sums;
    for (int i = 0; i < x->n; i++)
        sums.even[i] = sums.odd[i] = sums.offset[i] = _mm512_setzero_ps();
    size_t blocks = x->d / 32, b = 0;
    for (; b + CHUNK <= blocks; b += CHUNK, w += CHUNK * f.stride) {
        for (int line = 0; line < CHUNK * f.stride; line += 64)
            _mm_prefetch((const char *)w + DECODE_AHEAD + line, _MM_HINT_T0);
        chunk32(f, w, x, b, CHUNK, &sums);
    }
    if (b < blocks && end - w >= CHUNK * f.stride) {
        chunk32(f, w, x, b, (int)(blocks - b), &sums);
    } else if (b < blocks) {
        uint8_t rest[CHUNK * 34] = {0};
        memcpy(rest, w, (blocks - b) * (size_t)f.stride);
        chunk32(f, rest, x, b, (int)(blocks - b), &sums);
    }
    for (int i = 0; i < x->n; i++)
        out[i] = _mm512_add_ps(_mm512_add_ps(sums.even[i], sums.odd[i]), sums.offset[i]);
}

INLINE __m128 fold_to_four(__m512 v)
{
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* The sums of four vectors, each by the same tree whatever the others are. */
INLINE __m128 fold_four(const __m512 v[4])
{
    __m128 a = fold_to_four(v[0]), b = fold_to_four(v[1]), c = fold_to_four(v[2]), d = fold_to_four(v[3]);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    return _mm_add_ps(_mm_add_ps(a, c), _mm_add_ps(b, d));
}

INLINE void row32(const struct codes32 f, const uint8_t *w, const uint8_t *end, const struct input32 *x,
                  float *y, size_t y_stride)
{
    __m512 sums[INPUTS_MAX + 3];
    float folded[4];
    sum_row32(f, w, end, x, sums);
    for (int i = 0; i < x->n; i += 4) {
        for (int k = x->n; k < i + 4; k++)
            sums[k] = _mm512_setzero_ps();
        _mm_storeu_ps(folded, fold_four(sums + i));
        for (int k = i; k < i + 4 && k < x->n; k++)
            y[(size_t)k * y_stride] = folded[k - i];
    }
}

/* One input: four rows are folded together. */
INLINE void one_input32(const struct codes32 f, const struct mm_job *job, const struct act_view view,
                        size_t first, size_t end)
{
    size_t row_bytes = job->w->cols / 32 * (size_t)f.stride;
    const uint8_t *w = (const uint8_t *)job->w->data, *matrix_end = w + job->w->rows * row_bytes;
    const struct input32 x = {view.data, view.stride, job->w->cols, 1};
    for (size_t r = first; r < end; r += 4) {
        __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
        size_t rows = end - r < 4 ? end - r : 4;
        for (size_t k = 0; k < rows; k++)
            sum_row32(f, w + (r + k) * row_bytes, matrix_end, &x, &sums[k]);
        _mm_mask_storeu_ps(job->y + r, (__mmask8)((1u << rows) - 1), fold_four(sums));
    }
}

INLINE void rows32(const struct codes32 f, const struct mm_job *job, size_t first, size_t end)
{
    struct act_view view = act_view(job->x, FORM_Q8);
    size_t row_bytes = job->w->cols / 32 * (size_t)f.stride;
    const uint8_t *matrix_end = (const uint8_t *)job->w->data + job->w->rows * row_bytes;
    if (job->x->n == 1) {
        one_input32(f, job, view, first, end);
        return;
    }
    for (size_t r = first; r < end; r++) {
        const uint8_t *w = (const uint8_t *)job->w->data + r * row_bytes;
#define CALL32(count)                                                                        \
    row32(f, w, matrix_end,                                                                  \
          &(struct input32){view.data + at * view.stride, view.stride, job->w->cols, count}, \
          job->y + at * job->y_stride + r, job->y_stride)
        FOR_INPUTS(job->x->n, at, CALL32);
    }
}

#define FORMAT32(name, format)                                                 \
    void dot_avx512_##name(const struct mm_job *job, size_t first, size_t end) \
    {                                                                          \
        rows32(format, job, first, end);                                       \
    }

FORMAT32(q8_0, CODES_Q8_0)
FORMAT32(q4_0, CODES_Q4_0)
FORMAT32(q4_1, CODES_Q4_1)
FORMAT32(q5_0, CODES_Q5_0)
FORMAT32(q5_1, CODES_Q5_1)
FORMAT32(iq4_nl, CODES_IQ4_NL)
FORMAT32(mxfp4, CODES_MXFP4)
