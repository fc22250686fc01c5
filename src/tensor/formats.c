/* Number formats: the table, half-precision conversions, and how a block of each format is taken apart.
 *
 * Layouts follow ggml's published block formats, which GGUF files contain. Arithmetic follows ggml's
 * reference dequantiser operation for operation (scale first, then scale * q - min, no fused multiply-add),
 * so that the values are equal bit for bit. */
#include "tensor/unpack_body.h"

#include <assert.h>
#include <strings.h>

static const struct tensor_format formats[] = {
    {TENSOR_F32, "F32", 1, 4},           {TENSOR_F16, "F16", 1, 2},       {TENSOR_BF16, "BF16", 1, 2},
    {TENSOR_Q4_0, "Q4_0", 32, 18},       {TENSOR_Q4_1, "Q4_1", 32, 20},   {TENSOR_Q5_0, "Q5_0", 32, 22},
    {TENSOR_Q5_1, "Q5_1", 32, 24},       {TENSOR_Q8_0, "Q8_0", 32, 34},   {TENSOR_Q2_K, "Q2_K", 256, 84},
    {TENSOR_Q3_K, "Q3_K", 256, 110},     {TENSOR_Q4_K, "Q4_K", 256, 144}, {TENSOR_Q5_K, "Q5_K", 256, 176},
    {TENSOR_Q6_K, "Q6_K", 256, 210},     {TENSOR_Q8_K, "Q8_K", 256, 292}, {TENSOR_IQ4_NL, "IQ4_NL", 32, 18},
    {TENSOR_IQ4_XS, "IQ4_XS", 256, 136}, {TENSOR_MXFP4, "MXFP4", 32, 17},
};

const int8_t format_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
const int8_t format_fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

const struct tensor_format *tensor_format(uint32_t type_id)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if ((uint32_t)formats[i].type == type_id)
            return &formats[i];
    return NULL;
}

const struct tensor_format *tensor_format_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcasecmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

size_t tensor_row_bytes(enum tensor_type type, size_t len)
{
    const struct tensor_format *f = tensor_format((uint32_t)type);
    assert(f && len % f->block_len == 0);
    return len / f->block_len * f->block_bytes;
}

/* ---- Half precision ---- */

float tensor_f16_to_f32(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    uint32_t rest = bits & 0x7fffu;
    if (rest >= 0x7c00u) /* infinity, or a quieted NaN as F16C makes it */
        return float_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13 | (rest > 0x7c00u ? 0x400000u : 0));
    if (rest >= 0x0400u)
        return float_of_bits(sign | ((rest << 13) + 0x38000000u));
    float magnitude = (float)rest * 0x1p-24f; /* subnormal or zero: exact */
    return float_of_bits(sign | bits_of_float(magnitude));
}

uint16_t tensor_f32_to_f16(float value)
{
    uint32_t bits = bits_of_float(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (rest >> 13 & 0x1ffu));
    if (rest >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (rest < 0x38800000u) { /* subnormal half: adding 0.5 shifts and rounds to nearest even in one step */
        float shifted = float_of_bits(rest) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(shifted) - 0x3f000000u));
    }
    uint32_t odd = rest >> 13 & 1;
    return (uint16_t)(sign | (rest - 0x38000000u + 0xfffu + odd) >> 13);
}

float tensor_bf16_to_f32(uint16_t bits)
{
    return float_of_bits((uint32_t)bits << 16);
}

uint16_t tensor_f32_to_bf16(float value)
{
    uint32_t bits = bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + (0x7fffu + (bits >> 16 & 1))) >> 16);
}

static const struct format_ops ops[FORMAT_TYPES] = {
    [TENSOR_Q4_0] = {32, false, quantize_q4_0},     [TENSOR_Q4_1] = {32, true, quantize_q4_1},
    [TENSOR_Q5_0] = {32, false, quantize_q5_0},     [TENSOR_Q5_1] = {32, true, quantize_q5_1},
    [TENSOR_Q8_0] = {32, false, quantize_q8_0},     [TENSOR_Q2_K] = {16, true, quantize_q2_k},
    [TENSOR_Q3_K] = {16, false, quantize_q3_k},     [TENSOR_Q4_K] = {32, true, quantize_q4_k},
    [TENSOR_Q5_K] = {32, true, quantize_q5_k},      [TENSOR_Q6_K] = {16, false, quantize_q6_k},
    [TENSOR_Q8_K] = {32, false, quantize_q8_k},     [TENSOR_IQ4_NL] = {32, false, quantize_iq4_nl},
    [TENSOR_IQ4_XS] = {32, false, quantize_iq4_xs}, [TENSOR_MXFP4] = {32, false, quantize_mxfp4},
};

const struct format_ops *format_ops(enum tensor_type type)
{
    assert((unsigned)type < FORMAT_TYPES);
    return &ops[type];
}

/* ---- Rows ---- */

static void dequantize_blocks(enum tensor_type type, const uint8_t *src, float *dst, size_t len)
{
    const struct tensor_format *f = tensor_format((uint32_t)type);
    const struct format_ops *op = format_ops(type);
    struct unpacked u;
    for (size_t i = 0; i < len; i += f->block_len, src += f->block_bytes) {
        unpack_block[type](src, &u);
        for (size_t j = 0; j < f->block_len; j++) {
            float v = u.scale[j / op->group] * (float)u.q[j];
            dst[i + j] = op->has_min ? v - u.min[j / op->group] : v;
        }
    }
}

void tensor_dequantize(enum tensor_type type, const void *src, float *dst, size_t len)
{
    const uint8_t *bytes = src;
    switch (type) {
    case TENSOR_F32:
        memcpy(dst, src, len * sizeof *dst);
        return;
    case TENSOR_F16:
        for (size_t i = 0; i < len; i++)
            dst[i] = load_f16(bytes + 2 * i);
        return;
    case TENSOR_BF16:
        for (size_t i = 0; i < len; i++)
            dst[i] = tensor_bf16_to_f32(load_u16(bytes + 2 * i));
        return;
    default:
        dequantize_blocks(type, bytes, dst, len);
    }
}

/* A number that is no number becomes 0, and what lies beyond a format's reach its end: quantisers see finite
 * values only, whose squares do not overflow where they are formed. */
static float finite(float x, float limit)
{
    if (x != x)
        return 0.0f;
    return x > limit ? limit : x < -limit ? -limit : x;
}

#define FLOAT_LIMIT 3.4028235e38f
#define SCALED_LIMIT 3e38f /* leaves room for the rounding of a scale and its product */
#define F16_LIMIT 65504.0f
#define BLOCK_LIMIT 1e9f /* beyond what any format with F16 scales can say */

/* Weights as quantisers want them: not negative, the greatest 1. false: no number among them is of use. */
static bool normalise_weights(const float *weights, size_t len, float *w)
{
    float most = 0.0f;
    for (size_t j = 0; j < len; j++) {
        w[j] = finite(weights[j], FLOAT_LIMIT);
        most = w[j] > most ? w[j] : most;
    }
    if (!(most > 0.0f))
        return false;
    for (size_t j = 0; j < len; j++)
        w[j] = w[j] > 0.0f ? w[j] / most : 0.0f;
    return true;
}

static double weighted_distance(enum tensor_type type, const uint8_t *block, const float *x, const float *w,
                                size_t len)
{
    float y[FORMAT_BLOCK_MAX];
    double sum = 0;
    tensor_dequantize(type, block, y, len);
    for (size_t j = 0; j < len; j++) {
        double diff = (double)y[j] - (double)x[j];
        sum += (double)w[j] * diff * diff;
    }
    return sum;
}

/* Searches are heuristics, the plain rule one more of them: the better block stays. */
static void quantize_weighted_block(const struct tensor_format *f, const float *x, const float *w,
                                    uint8_t *block)
{
    uint8_t plain[FORMAT_BLOCK_BYTES_MAX];
    format_ops(f->type)->quantize(x, NULL, plain);
    format_ops(f->type)->quantize(x, w, block);
    if (weighted_distance(f->type, plain, x, w, f->block_len) <=
        weighted_distance(f->type, block, x, w, f->block_len))
        memcpy(block, plain, f->block_bytes);
}

static void quantize_blocks(enum tensor_type type, const float *src, const float *weights, uint8_t *dst,
                            size_t len)
{
    const struct tensor_format *f = tensor_format((uint32_t)type);
    float x[FORMAT_BLOCK_MAX], w[FORMAT_BLOCK_MAX];
    float limit = type == TENSOR_MXFP4 || type == TENSOR_Q8_K ? SCALED_LIMIT : BLOCK_LIMIT;
    for (size_t i = 0; i < len; i += f->block_len, dst += f->block_bytes) {
        for (size_t j = 0; j < f->block_len; j++)
            x[j] = finite(src[i + j], limit);
        if (weights && normalise_weights(weights + i, f->block_len, w))
            quantize_weighted_block(f, x, w, dst);
        else
            format_ops(type)->quantize(x, NULL, dst);
    }
}

void tensor_quantize(enum tensor_type type, const float *src, void *dst, size_t len)
{
    tensor_quantize_weighted(type, src, NULL, dst, len);
}

void tensor_quantize_weighted(enum tensor_type type, const float *src, const float *weights, void *dst,
                              size_t len)
{
    uint8_t *bytes = dst;
    switch (type) {
    case TENSOR_F32:
        for (size_t i = 0; i < len; i++) {
            float v = finite(src[i], FLOAT_LIMIT);
            memcpy(bytes + 4 * i, &v, sizeof v);
        }
        return;
    case TENSOR_F16:
        for (size_t i = 0; i < len; i++) {
            store_u16(bytes + 2 * i, tensor_f32_to_f16(finite(src[i], F16_LIMIT)));
        }
        return;
    case TENSOR_BF16:
        for (size_t i = 0; i < len; i++) {
            uint16_t v = tensor_f32_to_bf16(finite(src[i], FLOAT_LIMIT));
            bool overflow = (v & 0x7fffu) == 0x7f80u; /* rounding up reached infinity */
            store_u16(bytes + 2 * i, (uint16_t)(v - overflow));
        }
        return;
    default:
        quantize_blocks(type, src, weights, bytes, len);
    }
}
