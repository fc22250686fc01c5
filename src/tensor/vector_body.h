/* Vector operations and attention, written once with the compiler's vector types and compiled for each
 * instruction set by vector_ref.c, vector_avx2.c, vector_avx512.c, which define before including this:
 *
 *   VECTOR_BYTES          width of a vector
 *   VECTOR_TABLE          name of the table to define
 *   vector_fma(a, b, c)   a * b + c, fused where the set can
 *   vector_load_f16(p)    VECTOR_LEN halves to floats
 *   vector_store_f16(p, v)
 *   codes_dot(q, row, len, sum of q)    sum of products of codes, none of which is -128
 *   vector_swap(v)        neighbours changed: 1 0 3 2 ..
 *   vector_even(v), vector_odd(v)   0 0 2 2 .., 1 1 3 3 ..
 *   load_part, store_part, max_of, min_of, fold_sum, fold_max, times_power
 *                         as the plain_* below, which it may name
 *
 * Sums run in several accumulators that are folded in a fixed order, so a result depends on the length and
 * the values only. A tail shorter than a vector is worked on with zeros for what is not there. */
#include <math.h>
#include <string.h>

#include "tensor/kernels_int.h"

#define VECTOR_LEN ((size_t)VECTOR_BYTES / 4)

typedef float vf __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t vi __attribute__((vector_size(VECTOR_BYTES)));
typedef float vf_any __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

static inline vf vector_fma(vf a, vf b, vf c);
static inline vf vector_load_f16(const uint16_t *p);
static inline void vector_store_f16(uint16_t *p, vf v);
static inline int32_t codes_dot(const int8_t *query, const int8_t *row, size_t len, int32_t query_sum);
static inline vf vector_swap(vf v);
static inline vf vector_even(vf v);
static inline vf vector_odd(vf v);
static inline vf load_part(const float *p, size_t len);
static inline void store_part(float *p, vf v, size_t len);
static inline vf max_of(vf a, vf b);
static inline vf min_of(vf a, vf b);
static inline float fold_sum(vf v);
static inline float fold_max(vf v);
static inline vf times_power(vf v, vi k);

static inline vf load(const float *p)
{
    return *(const vf_any *)(const void *)p;
}

static inline void store(float *p, vf v)
{
    *(vf_any *)(void *)p = v;
}

static inline vf splat(float v)
{
    return v - (vf){0};
}

static inline vf select(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* ---- What a set may do better, in plain C; the same bits either way ---- */

static inline vf plain_load_part(const float *p, size_t len)
{
    float full[VECTOR_LEN] = {0};
    memcpy(full, p, len * sizeof *p);
    return load(full);
}

static inline void plain_store_part(float *p, vf v, size_t len)
{
    float full[VECTOR_LEN];
    store(full, v);
    memcpy(p, full, len * sizeof *p);
}

static inline vf plain_max(vf a, vf b)
{
    return select(a > b, a, b);
}

static inline vf plain_min(vf a, vf b)
{
    return select(a < b, a, b);
}

static inline float plain_fold_sum(vf v)
{
    float part[VECTOR_LEN];
    store(part, v);
    for (size_t half = VECTOR_LEN / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            part[i] += part[i + half];
    return part[0];
}

static inline float plain_fold_max(vf v)
{
    float part[VECTOR_LEN];
    store(part, v);
    for (size_t half = VECTOR_LEN / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            part[i] = part[i] > part[i + half] ? part[i] : part[i + half];
    return part[0];
}

/* v * 2^k in two steps, so that the ends of the range become 0 and infinity by themselves */
static inline vf plain_times_power(vf v, vi k)
{
    vi half = k >> 1;
    return v * (vf)((half + 127) << 23) * (vf)((k - half + 127) << 23);
}

/* ---- exp: 2^k * e^r with |r| <= ln 2 / 2, e^r by its Taylor polynomial of degree 7 (error 4e-9) ---- */

#define ROUND_MAGIC 12582912.0f /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */

static inline vf exp_of(vf x)
{
    x = min_of(max_of(x, splat(-104.0f)), splat(89.0f));
    vf shifted = vector_fma(x, splat(1.44269504f), splat(ROUND_MAGIC));
    vi k = (vi)shifted - (vi)splat(ROUND_MAGIC);
    vf whole = shifted - splat(ROUND_MAGIC);
    vf r = vector_fma(whole, splat(-0.693359375f), x);
    r = vector_fma(whole, splat(2.12194440e-4f), r);
    vf p = splat(1.0f / 5040);
    p = vector_fma(p, r, splat(1.0f / 720));
    p = vector_fma(p, r, splat(1.0f / 120));
    p = vector_fma(p, r, splat(1.0f / 24));
    p = vector_fma(p, r, splat(1.0f / 6));
    p = vector_fma(p, r, splat(0.5f));
    p = vector_fma(p, r, splat(1.0f));
    p = vector_fma(p, r, splat(1.0f));
    return times_power(p, k);
}

static inline vf silu_of(vf x)
{
    return x / (splat(1.0f) + exp_of(-x));
}

/* Rounded to F16; what F16 cannot hold stays as it is. */
static inline vf through_f16(vf x)
{
    uint16_t halves[VECTOR_LEN];
    vector_store_f16(halves, x);
    vf y = vector_load_f16(halves);
    vi beyond = ((vi)y & 0x7fffffff) == 0x7f800000;
    return select(beyond, x, y);
}

/* 0.5 x (1 + tanh(z)) is x / (1 + exp(-2 z)), which loses nothing where tanh is near -1. Between -10 and 10
 * input and output are rounded to F16: llama.cpp looks the function up in a table of halves, and a model
 * should say here what it says there. */
static inline vf gelu_of(vf x)
{
    vf h = through_f16(x);
    vf z = splat(0.79788456080286535588f) * h * (splat(1.0f) + splat(0.044715f) * h * h);
    vf y = through_f16(h / (splat(1.0f) + exp_of(splat(-2.0f) * z)));
    return select(x <= -10.0f, splat(0.0f), select(x >= 10.0f, x, y));
}

static inline vf tanh_of(vf x)
{
    vf e = exp_of(splat(2.0f) * x);
    vf far = select(x > 20.0f, splat(1.0f), (e - splat(1.0f)) / (e + splat(1.0f)));
    vf s = x * x; /* near zero the quotient would cancel: the odd series instead */
    vf near = splat(62.0f / 2835);
    near = vector_fma(near, s, splat(-17.0f / 315));
    near = vector_fma(near, s, splat(2.0f / 15));
    near = vector_fma(near, s, splat(-1.0f / 3));
    near = vector_fma(near * s, x, x);
    return select(s < 0.04f, near, far);
}

/* ---- Elementwise ---- */

/* Runs `expr` over y, with X and Y standing for the vectors of x and y (x may be y). */
#define FOR_EACH_VECTOR(y, x, len, expr)                                             \
    do {                                                                             \
        size_t i_ = 0;                                                               \
        for (; i_ + VECTOR_LEN <= (len); i_ += VECTOR_LEN) {                         \
            vf X = load((x) + i_), Y = load((y) + i_);                               \
            (void)X, (void)Y;                                                        \
            store((y) + i_, (expr));                                                 \
        }                                                                            \
        if (i_ < (len)) {                                                            \
            vf X = load_part((x) + i_, (len)-i_), Y = load_part((y) + i_, (len)-i_); \
            (void)X, (void)Y;                                                        \
            store_part((y) + i_, (expr), (len)-i_);                                  \
        }                                                                            \
    } while (0)

static void vector_axpy(float *y, float alpha, const float *x, size_t len)
{
    FOR_EACH_VECTOR(y, x, len, vector_fma(splat(alpha), X, Y));
}

static void vector_add(float *y, const float *x, size_t len)
{
    FOR_EACH_VECTOR(y, x, len, Y + X);
}

static void vector_mul(float *y, const float *x, size_t len)
{
    FOR_EACH_VECTOR(y, x, len, Y * X);
}

static void vector_scale(float *y, float alpha, size_t len)
{
    FOR_EACH_VECTOR(y, y, len, Y * splat(alpha));
}

static void vector_silu(float *x, size_t len)
{
    FOR_EACH_VECTOR(x, x, len, silu_of(Y));
}

static void vector_gelu(float *x, size_t len)
{
    FOR_EACH_VECTOR(x, x, len, gelu_of(Y));
}

static void vector_silu_mul(float *gate, const float *up, size_t len)
{
    FOR_EACH_VECTOR(gate, up, len, silu_of(Y) * X);
}

static void vector_gelu_mul(float *gate, const float *up, size_t len)
{
    FOR_EACH_VECTOR(gate, up, len, gelu_of(Y) * X);
}

static void vector_softcap(float *x, size_t len, float cap)
{
    FOR_EACH_VECTOR(x, x, len, splat(cap) * tanh_of(Y / splat(cap)));
}

/* ---- Sums ---- */

static float vector_dot(const float *a, const float *b, size_t len)
{
    vf s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    size_t i = 0;
    for (; i + 4 * VECTOR_LEN <= len; i += 4 * VECTOR_LEN) {
        s0 = vector_fma(load(a + i), load(b + i), s0);
        s1 = vector_fma(load(a + i + VECTOR_LEN), load(b + i + VECTOR_LEN), s1);
        s2 = vector_fma(load(a + i + 2 * VECTOR_LEN), load(b + i + 2 * VECTOR_LEN), s2);
        s3 = vector_fma(load(a + i + 3 * VECTOR_LEN), load(b + i + 3 * VECTOR_LEN), s3);
    }
    for (; i + VECTOR_LEN <= len; i += VECTOR_LEN)
        s0 = vector_fma(load(a + i), load(b + i), s0);
    if (i < len)
        s1 = vector_fma(load_part(a + i, len - i), load_part(b + i, len - i), s1);
    return fold_sum((s0 + s1) + (s2 + s3));
}

static float sum_of(const float *x, size_t len)
{
    vf s = {0};
    size_t i = 0;
    for (; i + VECTOR_LEN <= len; i += VECTOR_LEN)
        s += load(x + i);
    if (i < len)
        s += load_part(x + i, len - i);
    return fold_sum(s);
}

static void vector_rms_norm(float *y, const float *x, const float *weight, size_t len, float eps)
{
    float inverse = 1.0f / sqrtf(vector_dot(x, x, len) / (float)len + eps);
    if (weight) {
        size_t i = 0;
        for (; i + VECTOR_LEN <= len; i += VECTOR_LEN)
            store(y + i, load(x + i) * splat(inverse) * load(weight + i));
        for (; i < len; i++)
            y[i] = x[i] * inverse * weight[i];
    } else {
        FOR_EACH_VECTOR(y, x, len, X * splat(inverse));
    }
}

static void vector_layer_norm(float *y, const float *x, const float *weight, const float *bias, size_t len,
                              float eps)
{
    float mean = sum_of(x, len) / (float)len;
    FOR_EACH_VECTOR(y, x, len, X - splat(mean));
    float inverse = 1.0f / sqrtf(vector_dot(y, y, len) / (float)len + eps);
    vector_scale(y, inverse, len);
    if (weight)
        vector_mul(y, weight, len);
    if (bias)
        vector_add(y, bias, len);
}

static float largest(const float *x, size_t len)
{
    vf m = splat(-INFINITY);
    size_t i = 0;
    for (; i + VECTOR_LEN <= len; i += VECTOR_LEN)
        m = max_of(load(x + i), m);
    float best = fold_max(m);
    for (; i < len; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

/* x = exp(scale (x - shift)), returns the sum */
static float exp_shifted(float *x, size_t len, float shift, float scale)
{
    vf s = {0};
    size_t i = 0;
    for (; i + VECTOR_LEN <= len; i += VECTOR_LEN) {
        vf e = exp_of((load(x + i) - splat(shift)) * splat(scale));
        store(x + i, e);
        s += e;
    }
    if (i < len) {
        store_part(x + i, exp_of((load_part(x + i, len - i) - splat(shift)) * splat(scale)), len - i);
        s += load_part(x + i, len - i);
    }
    return fold_sum(s);
}

static void vector_softmax_scaled(float *x, size_t len, float scale)
{
    float top = largest(x, len);
    if (top == -INFINITY) /* everything masked: exp would see inf - inf */
        top = 0.0f;
    float sum = exp_shifted(x, len, top, scale);
    vector_scale(x, 1.0f / sum, len);
}

static void vector_softmax_backward(const float *p, float *dp, size_t len, float scale)
{
    float mean = vector_dot(p, dp, len);
    FOR_EACH_VECTOR(dp, p, len, X * (Y - splat(mean)) * splat(scale));
}

/* ---- Rotation ---- */

static void vector_rope(float *x, const float *cos_sin, size_t pairs, bool neox)
{
    size_t step = neox ? 1 : 2, apart = neox ? pairs : 1;
    for (size_t i = 0; i < pairs; i++) {
        float *a = x + i * step, *b = a + apart;
        float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
        float x0 = *a, x1 = *b;
        *a = x0 * c - x1 * s;
        *b = x0 * s + x1 * c;
    }
}

/* ---- Conversions ---- */

static void vector_to_f16(const float *src, uint16_t *dst, size_t len)
{
    size_t i = 0;
    for (; i + VECTOR_LEN <= len; i += VECTOR_LEN)
        vector_store_f16(dst + i, load(src + i));
    for (; i < len; i++)
        dst[i] = tensor_f32_to_f16(src[i]);
}

static inline vi bf16_of(vf v)
{
    vi bits = (vi)v;
    vi rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    vi nan = (bits & 0x7fffffff) > 0x7f800000;
    return (rounded & ~nan) | ((bits >> 16 | 64) & nan);
}

typedef uint16_t half_vector __attribute__((vector_size(VECTOR_LEN * 2)));

static void vector_to_bf16(const float *src, uint16_t *dst, size_t len)
{
    for (size_t i = 0; i < len; i += VECTOR_LEN) {
        size_t count = len - i < VECTOR_LEN ? len - i : VECTOR_LEN;
        vf x = count == VECTOR_LEN ? load(src + i) : load_part(src + i, count);
        half_vector halves = __builtin_convertvector(bf16_of(x), half_vector);
        memcpy(dst + i, &halves, count * sizeof *dst);
    }
}

static inline vf through_bf16(vf x)
{
    return (vf)(bf16_of(x) << 16);
}

#define ROUND_ALL(round, src, dst, len)                                           \
    do {                                                                          \
        size_t i = 0;                                                             \
        for (; i + VECTOR_LEN <= (len); i += VECTOR_LEN)                          \
            store((dst) + i, round(load((src) + i)));                             \
        if (i < (len))                                                            \
            store_part((dst) + i, round(load_part((src) + i, (len)-i)), (len)-i); \
    } while (0)

static void vector_round_f16(const float *src, float *dst, size_t len)
{
    ROUND_ALL(through_f16, src, dst, len);
}

static void vector_round_bf16(const float *src, float *dst, size_t len)
{
    ROUND_ALL(through_bf16, src, dst, len);
}

/* Blocks of 32 as ggml's x86 kernels make them: inverse 127 / max, codes rounded to even. */
#define CODES_AT_ONCE 16

typedef int8_t code_vector __attribute__((vector_size(VECTOR_LEN)));

static inline float greatest_magnitude(const float *x, size_t len)
{
    vf top = {0};
    for (size_t i = 0; i < len; i += VECTOR_LEN)
        top = max_of((vf)((vi)load(x + i) & 0x7fffffff), top);
    return fold_max(top);
}

/* Sixteen codes; returns their sum. */
static inline int32_t quantize_codes(const float *x, float inverse, float least, int8_t *codes)
{
    vi total = {0};
    for (size_t i = 0; i < CODES_AT_ONCE; i += VECTOR_LEN) {
        vf scaled = min_of(max_of(load(x + i) * splat(inverse), splat(least)), splat(127.0f));
        vi q = (vi)(scaled + splat(ROUND_MAGIC)) - (vi)splat(ROUND_MAGIC);
        total += q;
        code_vector bytes = __builtin_convertvector(q, code_vector);
        memcpy(codes + i, &bytes, sizeof bytes);
    }
    int32_t sum = 0;
    for (size_t j = 0; j < VECTOR_LEN; j++)
        sum += total[j];
    return sum;
}

static void vector_quantize_q8(const float *src, int8_t *codes, float *scales, int32_t *sums, size_t len)
{
    for (size_t b = 0; b < len / 32; b++, src += 32, codes += 32) {
        float most = greatest_magnitude(src, 32);
        float inverse = most > 1e-35f ? 127.0f / most : 0.0f;
        scales[b] = most / 127.0f;
        sums[b] = quantize_codes(src, inverse, -127.0f, codes);
        sums[b] += quantize_codes(src + 16, inverse, -127.0f, codes + 16);
    }
}

/* Blocks of 256 as quantize_q8_k makes them: the first element of greatest magnitude becomes -127. */
static void vector_quantize_q8k(const float *src, int8_t *codes, float *scales, int16_t *sums, size_t len)
{
    for (size_t b = 0; b < len / 256; b++, src += 256, codes += 256, sums += 16) {
        float most = greatest_magnitude(src, 256), inverse = 0.0f;
        for (size_t i = 0; i < 256 && most >= 1e-35f; i++) {
            if (fabsf(src[i]) == most) {
                inverse = -127.0f / src[i];
                break;
            }
        }
        scales[b] = inverse == 0.0f ? 0.0f : 1.0f / inverse;
        for (size_t g = 0; g < 16; g++)
            sums[g] = (int16_t)quantize_codes(src + 16 * g, inverse, -128.0f, codes + 16 * g);
    }
}

/* ---- Attention ---- */

struct attend_state {
    float *scores; /* [group][page_len] */
    float *top;    /* [group] running maximum */
    float *sum;    /* [group] running sum of exponentials */
    float *rows;   /* ATTEND_KEYS key or value rows as floats */
};

/* A cache row as floats: the row itself where it is F32, else converted into `buffer`. */
static const float *cache_row(enum tensor_type type, const void *page, size_t index, size_t len,
                              float *buffer)
{
    if (type == TENSOR_F32)
        return (const float *)page + index * len;
    if (type == TENSOR_F16) {
        const uint16_t *row = (const uint16_t *)page + index * len;
        size_t i = 0;
        for (; i + VECTOR_LEN <= len; i += VECTOR_LEN)
            store(buffer + i, vector_load_f16(row + i));
        for (; i < len; i++)
            buffer[i] = tensor_f16_to_f32(row[i]);
        return buffer;
    }
    size_t row_bytes = tensor_row_bytes(type, len);
    tensor_dequantize(type, (const uint8_t *)page + index * row_bytes, buffer, len);
    return buffer;
}

/* Rows [from, from + count) of a page, count <= ATTEND_KEYS. */
static void cache_rows(enum tensor_type type, const void *page, size_t from, size_t count, size_t len,
                       float *buffer, const float **rows)
{
    for (size_t j = 0; j < count; j++)
        rows[j] = cache_row(type, page, from + j, len, buffer + j * len);
}

/* The sums of VECTOR_LEN vectors, sum j in lane j: each step adds to every lane the one `w` away and
 * keeps of two vectors the half that is to stay. All lanes go through the same tree, so a sum does not
 * depend on which lane it ends in (T1). */
#define OWN(lane, w) ((lane) & (w) ? LANES + (lane) : (lane))
#define OTHER(lane, w) ((lane) & (w) ? LANES + ((lane) ^ (w)) : ((lane) ^ (w)))
#define LIST4(of, l, w) of(l, w), of(l + 1, w), of(l + 2, w), of(l + 3, w)
#define FOLD_STEP(v, w)                                                       \
    for (int i_ = 0; i_ < (w); i_++)                                          \
    (v)[i_] = __builtin_shufflevector((v)[i_], (v)[i_ + (w)], LIST(OWN, w)) + \
              __builtin_shufflevector((v)[i_], (v)[i_ + (w)], LIST(OTHER, w))
#if VECTOR_BYTES == 64
#define LANES 16
#define LIST(of, w) LIST4(of, 0, w), LIST4(of, 4, w), LIST4(of, 8, w), LIST4(of, 12, w)
#elif VECTOR_BYTES == 32
#define LANES 8
#define LIST(of, w) LIST4(of, 0, w), LIST4(of, 4, w)
#else
#define LANES 4
#define LIST(of, w) LIST4(of, 0, w)
#endif

static inline vf fold_each(vf *v)
{
#if VECTOR_BYTES == 64
    FOLD_STEP(v, 8);
#endif
#if VECTOR_BYTES >= 32
    FOLD_STEP(v, 4);
#endif
    FOLD_STEP(v, 2);
    FOLD_STEP(v, 1);
    return v[0];
}

/* scores [count] = q . keys, VECTOR_LEN keys at a time. */
static void score_keys(const float *q, const float *const *keys, size_t count, size_t len, float *scores)
{
    for (size_t at = 0; at < count; at += VECTOR_LEN) {
        vf sums[VECTOR_LEN];
        size_t some = count - at < VECTOR_LEN ? count - at : VECTOR_LEN;
        for (size_t j = 0; j < VECTOR_LEN; j++) {
            const float *key = keys[at + (j < some ? j : 0)];
            vf s = {0};
            size_t i = 0;
            for (; i + VECTOR_LEN <= len; i += VECTOR_LEN)
                s = vector_fma(load(q + i), load(key + i), s);
            if (i < len)
                s = vector_fma(load_part(q + i, len - i), load_part(key + i, len - i), s);
            sums[j] = s;
        }
        vf all = fold_each(sums);
        if (some == VECTOR_LEN)
            store(scores + at, all);
        else
            store_part(scores + at, all, some);
    }
}

/* out += weights [count] * values, four vectors of `out` at a time. */
static void add_values(const float *weights, const float *const *values, size_t count, size_t len, float *out)
{
    size_t i = 0;
    for (; i + 4 * VECTOR_LEN <= len; i += 4 * VECTOR_LEN) {
        vf s0 = load(out + i), s1 = load(out + i + VECTOR_LEN), s2 = load(out + i + 2 * VECTOR_LEN),
           s3 = load(out + i + 3 * VECTOR_LEN);
        for (size_t j = 0; j < count; j++) {
            vf w = splat(weights[j]);
            const float *value = values[j] + i;
            s0 = vector_fma(w, load(value), s0);
            s1 = vector_fma(w, load(value + VECTOR_LEN), s1);
            s2 = vector_fma(w, load(value + 2 * VECTOR_LEN), s2);
            s3 = vector_fma(w, load(value + 3 * VECTOR_LEN), s3);
        }
        store(out + i, s0);
        store(out + i + VECTOR_LEN, s1);
        store(out + i + 2 * VECTOR_LEN, s2);
        store(out + i + 3 * VECTOR_LEN, s3);
    }
    for (size_t j = 0; i < len && j < count; j++)
        vector_axpy(out + i, weights[j], values[j] + i, len - i);
}

/* Dot products of one query vector with some keys become weights exp(score - maximum); what was gathered so
 * far is brought to the new maximum. */
static void attend_soften(const struct attn *a, float *scores, size_t count, float *running_top,
                          float *running_sum, float *out, size_t out_len)
{
    if (count == 0)
        return;
    vector_scale(scores, a->scale, count);
    if (a->softcap > 0.0f)
        vector_softcap(scores, count, a->softcap);
    float top = largest(scores, count);
    top = top > *running_top ? top : *running_top;
    if (top == -INFINITY)
        top = 0.0f;
    float keep = expf(*running_top - top);
    *running_top = top;
    *running_sum = *running_sum * keep + exp_shifted(scores, count, top, 1.0f);
    if (keep != 1.0f)
        vector_scale(out, keep, out_len);
}

/* One page's keys [from, to) (positions within the page). */
static void attend_page(const struct attn *a, const struct attend_state *s, const float *q, size_t group,
                        float *out, size_t page, size_t from, size_t to)
{
    const float *rows[ATTEND_KEYS];
    for (size_t at = from; at < to; at += ATTEND_KEYS) {
        size_t count = to - at < ATTEND_KEYS ? to - at : ATTEND_KEYS;
        cache_rows(a->type, a->k_pages[page], at, count, a->head_dim_k, s->rows, rows);
        for (size_t h = 0; h < group; h++)
            score_keys(q + h * a->head_dim_k, rows, count, a->head_dim_k,
                       s->scores + h * a->page_len + at - from);
    }
    for (size_t h = 0; h < group; h++)
        attend_soften(a, s->scores + h * a->page_len, to - from, &s->top[h], &s->sum[h],
                      out + h * a->head_dim_v, a->head_dim_v);
    for (size_t at = from; at < to; at += ATTEND_KEYS) {
        size_t count = to - at < ATTEND_KEYS ? to - at : ATTEND_KEYS;
        cache_rows(a->type, a->v_pages[page], at, count, a->head_dim_v, s->rows, rows);
        for (size_t h = 0; h < group; h++)
            add_values(s->scores + h * a->page_len + at - from, rows, count, a->head_dim_v,
                       out + h * a->head_dim_v);
    }
}

static void vector_attend(const struct attn *a, const float *q, size_t group, float *out, void *scratch)
{
    uint8_t *place = (uint8_t *)align64((size_t)scratch);
    struct attend_state s = {.scores = (float *)(void *)place};
    s.top = (float *)(void *)(place += align64(group * a->page_len * 4));
    s.sum = (float *)(void *)(place += align64(group * 4));
    s.rows = (float *)(void *)(place + align64(group * 4));
    for (size_t h = 0; h < group; h++) {
        s.top[h] = a->sinks ? a->sinks[h] : -INFINITY;
        s.sum[h] = a->sinks ? 1.0f : 0.0f;
    }
    memset(out, 0, group * a->head_dim_v * sizeof *out);
    for (size_t at = a->first; at < a->end;) {
        size_t page = at / a->page_len, start = page * a->page_len;
        size_t stop = a->end - start < a->page_len ? a->end - start : a->page_len;
        attend_page(a, &s, q, group, out, page, at - start, stop);
        at = start + stop;
    }
    for (size_t h = 0; h < group; h++)
        if (s.sum[h] > 0.0f)
            vector_scale(out + h * a->head_dim_v, 1.0f / s.sum[h], a->head_dim_v);
}

static void vector_codes_dot(const int8_t *query, const int8_t *rows, size_t n, size_t len, int32_t *out)
{
    int32_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += query[i];
    for (size_t r = 0; r < n; r++)
        out[r] = codes_dot(query, rows + r * len, len, sum);
}

static float vector_dot_f16(const float *a, const uint16_t *halves, size_t len)
{
    vf sum = splat(0.0f);
    float rest = 0;
    size_t i = 0;
    for (; i + VECTOR_LEN <= len; i += VECTOR_LEN)
        sum = vector_fma(load(a + i), vector_load_f16(halves + i), sum);
    for (; i < len; i++)
        rest += a[i] * tensor_f16_to_f32(halves[i]);
    return fold_sum(sum) + rest;
}

#include "tensor/attend_body.h"
#include "tensor/learn_body.h"

const struct vector_kernels VECTOR_TABLE = {
    .dot = vector_dot,
    .axpy = vector_axpy,
    .add = vector_add,
    .mul = vector_mul,
    .scale = vector_scale,
    .rms_norm = vector_rms_norm,
    .layer_norm = vector_layer_norm,
    .softmax_scaled = vector_softmax_scaled,
    .softmax_backward = vector_softmax_backward,
    .silu_mul = vector_silu_mul,
    .gelu_mul = vector_gelu_mul,
    .silu = vector_silu,
    .gelu = vector_gelu,
    .softcap = vector_softcap,
    .rope = vector_rope,
    .softmax_loss = learn_softmax_loss,
    .norm_row = learn_norm_row,
    .norm_row_backward = learn_norm_row_backward,
    .norm_columns = learn_norm_columns,
    .swiglu = learn_swiglu,
    .swiglu_backward = learn_swiglu_backward,
    .silu_backward = learn_silu_backward,
    .gelu_exact = learn_gelu,
    .gelu_backward = learn_gelu_backward,
    .rotate = learn_rotate,
    .sum_squares = learn_sum_squares,
    .attend = vector_attend,
    .attend_rows = vector_attend_rows,
    .to_f16 = vector_to_f16,
    .to_bf16 = vector_to_bf16,
    .round_f16 = vector_round_f16,
    .round_bf16 = vector_round_bf16,
    .codes_dot = vector_codes_dot,
    .dot_f16 = vector_dot_f16,
    .quantize_q8 = vector_quantize_q8,
    .quantize_q8k = vector_quantize_q8k,
};
