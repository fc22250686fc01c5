/* Decode on AVX2: every format.
 *
 * Codes are multiplied 32 at a time: VPMADDUBSW wants one unsigned side, so signed codes give their
 * magnitude and lend their sign to the inputs; no sum of two products passes 16 bits (128 * 127 * 2 at
 * most). Formats with minima keep their codes unsigned and take the minima from the inputs' sums. One
 * pass over a weight row serves up to four input rows; the order of additions does not depend on how
 * many share it (T1). */
#include "tensor/groups_avx2_int.h"
#include "tensor/kernels_avx2_int.h"

#define INPUTS 4

/* Runs CALL with N inputs at a time. */
#define FOR_FOUR_INPUTS(count, at, CALL) \
    do {                                 \
        size_t at = 0, n_ = (count);     \
        for (; n_ - at >= 4; at += 4)    \
            CALL(4);                     \
        if (n_ - at >= 2) {              \
            CALL(2);                     \
            at += 2;                     \
        }                                \
        if (n_ - at >= 1)                \
            CALL(1);                     \
    } while (0)

INLINE float fold(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* ---- Floats ---- */

INLINE __m256 weights_f32(const uint8_t *p)
{
    return _mm256_loadu_ps((const float *)(const void *)p);
}

INLINE __m256 weights_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE __m256 weights_bf16(const uint8_t *p)
{
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return (__m256)_mm256_slli_epi32(v, 16);
}

INLINE void float_row(const uint8_t *w, size_t bytes, __m256 (*weights)(const uint8_t *), struct act_view x,
                      size_t d, int n, float *y, size_t y_stride)
{
    __m256 even[INPUTS], odd[INPUTS];
    for (int i = 0; i < n; i++)
        even[i] = odd[i] = _mm256_setzero_ps();
    size_t j = 0;
    for (; j + 16 <= d; j += 16) {
        _mm_prefetch((const char *)w + j * bytes + DECODE_AHEAD, _MM_HINT_T0);
        __m256 a = weights(w + j * bytes), b = weights(w + (j + 8) * bytes);
        for (int i = 0; i < n; i++) {
            even[i] = _mm256_fmadd_ps(a, _mm256_loadu_ps(act_row(x, i) + j), even[i]);
            odd[i] = _mm256_fmadd_ps(b, _mm256_loadu_ps(act_row(x, i) + j + 8), odd[i]);
        }
    }
    for (; j < d; j += 8) {
        uint8_t rest[32] = {0};
        size_t len = d - j < 8 ? d - j : 8;
        memcpy(rest, w + j * bytes, len * bytes);
        __m256 a = weights(rest);
        for (int i = 0; i < n; i++) {
            float inputs[8] = {0};
            memcpy(inputs, act_row(x, i) + j, len * sizeof *inputs);
            even[i] = _mm256_fmadd_ps(a, _mm256_loadu_ps(inputs), even[i]);
        }
    }
    for (int i = 0; i < n; i++)
        y[(size_t)i * y_stride] = fold(_mm256_add_ps(even[i], odd[i]));
}

INLINE void float_rows(const struct mm_job *job, size_t first, size_t end, size_t bytes,
                       __m256 (*weights)(const uint8_t *))
{
    size_t d = job->w->cols;
    struct act_view x = act_floats(job->x, job->w->type);
    for (size_t r = first; r < end; r++) {
        const uint8_t *w = (const uint8_t *)job->w->data + r * d * bytes;
#define FLOAT_CALL(n)                                                                       \
    float_row(w, bytes, weights, (struct act_view){x.data + at * x.stride, x.stride}, d, n, \
              job->y + at * job->y_stride + r, job->y_stride)
        FOR_FOUR_INPUTS(job->x->n, at, FLOAT_CALL);
    }
}

void dot_avx2_f32(const struct mm_job *job, size_t first, size_t end)
{
    float_rows(job, first, end, 4, weights_f32);
}

void dot_avx2_f16(const struct mm_job *job, size_t first, size_t end)
{
    float_rows(job, first, end, 2, weights_f16);
}

void dot_avx2_bf16(const struct mm_job *job, size_t first, size_t end)
{
    float_rows(job, first, end, 2, weights_bf16);
}

/* ---- Codes ---- */

/* Products of 32 codes with 32 inputs, summed in pairs. */
INLINE __m256i multiply_unsigned(__m256i codes, __m256i inputs)
{
    return _mm256_maddubs_epi16(codes, inputs);
}

INLINE __m256i multiply_signed(__m256i codes, __m256i inputs)
{
    return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(inputs, codes));
}

/* Sixteen bytes of nibbles: the low ones, then the high ones. */
INLINE __m256i nibbles(const uint8_t *p)
{
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(v, 4), v), _mm256_set1_epi8(15));
}

/* 16 where the bit is set. */
INLINE __m256i fifth_bits(const uint8_t *p)
{
    const __m256i which = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int)load_u32(p)), which);
    v = _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
    return _mm256_and_si256(v, _mm256_set1_epi8(16));
}

INLINE __m256i look_up(const int8_t *values, __m256i codes)
{
    __m128i table = _mm_loadu_si128((const __m128i *)(const void *)values);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes);
}

/* ---- Blocks of 32 ---- */

struct codes32 {
    size_t stride; /* block bytes */
    bool has_min;  /* w = scale * code + second word, codes unsigned; else codes are signed */
    bool e8m0;     /* the scale is one byte, an exponent */
    __m256i (*codes)(const uint8_t *block);
};

INLINE __m256i codes_q8_0(const uint8_t *block)
{
    return load256(block + 2);
}

INLINE __m256i codes_q4_0(const uint8_t *block)
{
    return _mm256_sub_epi8(nibbles(block + 2), _mm256_set1_epi8(8));
}

INLINE __m256i codes_q4_1(const uint8_t *block)
{
    return nibbles(block + 4);
}

INLINE __m256i codes_q5_0(const uint8_t *block)
{
    __m256i v = _mm256_or_si256(nibbles(block + 6), fifth_bits(block + 2));
    return _mm256_sub_epi8(v, _mm256_set1_epi8(16));
}

INLINE __m256i codes_q5_1(const uint8_t *block)
{
    return _mm256_or_si256(nibbles(block + 8), fifth_bits(block + 4));
}

INLINE __m256i codes_iq4_nl(const uint8_t *block)
{
    return look_up(format_iq4_values, nibbles(block + 2));
}

INLINE __m256i codes_mxfp4(const uint8_t *block)
{
    return look_up(format_fp4_values, nibbles(block + 1));
}

INLINE void row32(const struct codes32 f, const uint8_t *w, const uint8_t *x, size_t stride, size_t d, int n,
                  float *y, size_t y_stride)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 sums[2][INPUTS];
    float offset[INPUTS] = {0};
    for (int i = 0; i < n; i++)
        sums[0][i] = sums[1][i] = _mm256_setzero_ps();
    for (size_t b = 0; b < d / 32; b++, w += f.stride) {
        _mm_prefetch((const char *)w + DECODE_AHEAD, _MM_HINT_T0);
        float scale = f.e8m0 ? e8m0_half(*w) : _cvtsh_ss(load_u16(w)),
              min = f.has_min ? _cvtsh_ss(load_u16(w + 2)) : 0;
        __m256i codes = f.codes(w);
        for (int i = 0; i < n; i++) {
            const uint8_t *row = x + (size_t)i * stride;
            __m256i input = load256(row + 32 * b);
            __m256i pairs = f.has_min ? multiply_unsigned(codes, input) : multiply_signed(codes, input);
            __m256 dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, ones));
            float input_scale = ((const float *)(const void *)(row + q8_scales(d)))[b];
            sums[b % 2][i] = _mm256_fmadd_ps(dot, _mm256_set1_ps(scale * input_scale), sums[b % 2][i]);
            if (f.has_min)
                offset[i] += min * ((const float *)(const void *)(row + q8_scaled_sums(d)))[b];
        }
    }
    for (int i = 0; i < n; i++)
        y[(size_t)i * y_stride] = fold(_mm256_add_ps(sums[0][i], sums[1][i])) + offset[i];
}

#define FORMAT32(name, ...)                                                             \
    void dot_avx2_##name(const struct mm_job *job, size_t first, size_t end)            \
    {                                                                                   \
        const struct codes32 f = {__VA_ARGS__, codes_##name};                           \
        struct act_view view = act_view(job->x, FORM_Q8);                               \
        size_t d = job->w->cols;                                                        \
        for (size_t r = first; r < end; r++) {                                          \
            const uint8_t *w = (const uint8_t *)job->w->data + r * (d / 32) * f.stride; \
            FOR_FOUR_INPUTS(job->x->n, at, CALL32);                                     \
        }                                                                               \
    }
#define CALL32(n)                                                                                 \
    row32(f, w, view.data + at * view.stride, view.stride, d, n, job->y + at * job->y_stride + r, \
          job->y_stride)

FORMAT32(q8_0, 34, false, false)
FORMAT32(q4_0, 18, false, false)
FORMAT32(q4_1, 20, true, false)
FORMAT32(q5_0, 22, false, false)
FORMAT32(q5_1, 24, true, false)
FORMAT32(iq4_nl, 18, false, false)
FORMAT32(mxfp4, 17, false, true)

/* ---- Blocks of 256 ---- */

struct codesk {
    size_t stride;
    bool
        has_offset; /* unsigned codes, minima (or the codes' zero) from the inputs' sums; else signed codes */
    struct groups (*groups)(const uint8_t *block);
    __m256i (*codes)(const uint8_t *block, int k); /* codes [32 k, 32 k + 32) */
};

INLINE __m256i codes_q4_k(const uint8_t *block, int k)
{
    __m256i v = load256(block + 16 + k / 2 * 32);
    return _mm256_and_si256(k % 2 ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
}

/* Bit k of each of 32 bytes, as `value` where it is set. */
INLINE __m256i plane_bit(const uint8_t *p, int k, int value)
{
    __m256i v = _mm256_and_si256(_mm256_srl_epi16(load256(p), _mm_cvtsi32_si128(k)), _mm256_set1_epi8(1));
    return _mm256_and_si256(_mm256_sub_epi8(_mm256_setzero_si256(), v), _mm256_set1_epi8((char)value));
}

INLINE __m256i codes_q5_k(const uint8_t *block, int k)
{
    return _mm256_or_si256(codes_q4_k(block + 32, k), plane_bit(block + 16, k, 16));
}

INLINE __m256i codes_q6_k(const uint8_t *block, int k)
{
    __m256i low = load256(block + k / 4 * 64 + k % 2 * 32), high = load256(block + 128 + k / 4 * 32);
    low = _mm256_and_si256(k % 4 / 2 ? _mm256_srli_epi16(low, 4) : low, _mm256_set1_epi8(15));
    high = _mm256_and_si256(_mm256_srl_epi16(high, _mm_cvtsi32_si128(k % 4 * 2)), _mm256_set1_epi8(3));
    return _mm256_or_si256(low, _mm256_slli_epi16(high, 4));
}

INLINE __m256i pair_plane(const uint8_t *p, int k)
{
    __m256i v = _mm256_srl_epi16(load256(p + k / 4 * 32), _mm_cvtsi32_si128(k % 4 * 2));
    return _mm256_and_si256(v, _mm256_set1_epi8(3));
}

INLINE __m256i codes_q2_k(const uint8_t *block, int k)
{
    return pair_plane(block + 16, k);
}

INLINE __m256i codes_q3_k(const uint8_t *block, int k)
{
    return _mm256_or_si256(pair_plane(block + 32, k), plane_bit(block, k, 4));
}

INLINE __m256i codes_iq4_xs(const uint8_t *block, int k)
{
    return look_up(format_iq4_values, nibbles(block + 8 + 16 * k));
}

/* The scales of codes [32 k, 32 k + 32), each for its sixteen codes (eight sums of pairs). */
INLINE __m256i spread(__m256i scales, int k)
{
    __m256i lane = k < 4 ? _mm256_permute2x128_si256(scales, scales, 0x00)
                         : _mm256_permute2x128_si256(scales, scales, 0x11);
    int word = k % 4 * 4; /* bytes */
    __m256i low = _mm256_set1_epi16((short)((word + 1) << 8 | word));
    __m256i high = _mm256_set1_epi16((short)((word + 3) << 8 | (word + 2)));
    return _mm256_shuffle_epi8(lane, _mm256_blend_epi32(low, high, 0xf0));
}

INLINE void rowk(const struct codesk f, const uint8_t *w, const uint8_t *x, size_t stride, size_t d, int n,
                 float *y, size_t y_stride)
{
    __m256 sums[INPUTS], offsets[INPUTS];
    for (int i = 0; i < n; i++)
        sums[i] = offsets[i] = _mm256_setzero_ps();
    for (size_t b = 0; b < d / 256; b++, w += f.stride) {
        for (size_t line = 0; line < f.stride; line += 64)
            _mm_prefetch((const char *)w + DECODE_AHEAD + line, _MM_HINT_T0);
        struct groups g = f.groups(w);
        __m256i sum[INPUTS];
        for (int i = 0; i < n; i++)
            sum[i] = _mm256_setzero_si256();
        for (int k = 0; k < 8; k++) {
            __m256i codes = f.codes(w, k), scales = spread(g.scales, k);
            for (int i = 0; i < n; i++) {
                __m256i input = load256(x + (size_t)i * stride + 256 * b + 32 * (size_t)k);
                __m256i pairs =
                    f.has_offset ? multiply_unsigned(codes, input) : multiply_signed(codes, input);
                sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs, scales));
            }
        }
        for (int i = 0; i < n; i++) {
            const uint8_t *row = x + (size_t)i * stride;
            float scale = ((const float *)(const void *)(row + q8k_scales(d)))[b];
            sums[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[i]), _mm256_set1_ps(g.d * scale), sums[i]);
            if (f.has_offset) {
                __m256i offset = _mm256_madd_epi16(load256(row + q8k_sums(d) + 32 * b), g.mins);
                offsets[i] =
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(offset), _mm256_set1_ps(g.dmin * scale), offsets[i]);
            }
        }
    }
    for (int i = 0; i < n; i++)
        y[(size_t)i * y_stride] = fold(_mm256_sub_ps(sums[i], offsets[i]));
}

#define FORMATK(name, ...)                                                               \
    void dot_avx2_##name(const struct mm_job *job, size_t first, size_t end)             \
    {                                                                                    \
        const struct codesk f = {__VA_ARGS__, codes_##name};                             \
        struct act_view view = act_view(job->x, FORM_Q8K);                               \
        size_t d = job->w->cols;                                                         \
        for (size_t r = first; r < end; r++) {                                           \
            const uint8_t *w = (const uint8_t *)job->w->data + r * (d / 256) * f.stride; \
            FOR_FOUR_INPUTS(job->x->n, at, CALLK);                                       \
        }                                                                                \
    }
#define CALLK(n)                                                                                 \
    rowk(f, w, view.data + at * view.stride, view.stride, d, n, job->y + at * job->y_stride + r, \
         job->y_stride)

FORMATK(q2_k, 84, true, groups_q2_k)
FORMATK(q3_k, 110, true, groups_q3_k)
FORMATK(q4_k, 144, true, groups_k4)
FORMATK(q5_k, 176, true, groups_k4)
FORMATK(q6_k, 210, true, groups_q6_k)
FORMATK(iq4_xs, 136, false, groups_iq4_xs)
