/* Number formats: the table, half-precision conversions, and how a block of each format is taken apart.
 *
 * Layouts follow ggml's published block formats, which GGUF files contain. Arithmetic follows ggml's
 * reference dequantiser operation for operation (scale first, then scale * q - min, no fused multiply-add),
 * so that the values are equal bit for bit. */
#include "tensor/formats_int.h"

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

/* ---- Blocks of 32 ---- */

/* Sixteen bytes hold thirty-two nibbles: low ones first. */
static void unpack_nibbles(const uint8_t *qs, int8_t *q, int offset)
{
    for (int j = 0; j < 16; j++) {
        q[j] = (int8_t)((qs[j] & 15) - offset);
        q[j + 16] = (int8_t)((qs[j] >> 4) - offset);
    }
}

static void unpack_fifth_bit(uint32_t high, int8_t *q)
{
    for (int j = 0; j < 32; j++)
        q[j] = (int8_t)(q[j] + (int)(high >> j & 1) * 16);
}

static void unpack_values(const uint8_t *qs, int8_t *q, const int8_t *values)
{
    for (int j = 0; j < 16; j++) {
        q[j] = values[qs[j] & 15];
        q[j + 16] = values[qs[j] >> 4];
    }
}

static void unpack_q4_0(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    unpack_nibbles(block + 2, out->q, 8);
}

static void unpack_q4_1(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    out->min[0] = -load_f16(block + 2);
    unpack_nibbles(block + 4, out->q, 0);
}

static void unpack_q5_0(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    unpack_nibbles(block + 6, out->q, 16);
    unpack_fifth_bit(load_u32(block + 2), out->q);
}

static void unpack_q5_1(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    out->min[0] = -load_f16(block + 2);
    unpack_nibbles(block + 8, out->q, 0);
    unpack_fifth_bit(load_u32(block + 4), out->q);
}

static void unpack_q8_0(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    memcpy(out->q, block + 2, 32);
}

static void unpack_iq4_nl(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    unpack_values(block + 2, out->q, format_iq4_values);
}

static void unpack_mxfp4(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = e8m0_half(block[0]);
    unpack_values(block + 1, out->q, format_fp4_values);
}

/* ---- Blocks of 256 ---- */

/* scales[16] (low nibble scale, high nibble min), qs[64] (2 bits), d, dmin */
static void unpack_q2_k(const uint8_t *block, struct unpacked *out)
{
    const uint8_t *qs = block + 16;
    float d = load_f16(block + 80), dmin = load_f16(block + 82);
    for (int g = 0; g < 16; g++) {
        out->scale[g] = d * (float)(block[g] & 15);
        out->min[g] = dmin * (float)(block[g] >> 4);
    }
    for (int i = 0; i < 256; i++)
        out->q[i] = qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/* hmask[32], qs[64] (2 bits), scales[12] (sixteen 6-bit scales), d */
static void unpack_q3_k(const uint8_t *block, struct unpacked *out)
{
    const uint8_t *qs = block + 32, *packed = block + 96;
    float d = load_f16(block + 108);
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4;
        int high = packed[8 + g % 4] >> (g / 4 * 2) & 3;
        out->scale[g] = d * (float)((low | high << 4) - 32);
    }
    for (int i = 0; i < 256; i++) {
        int low = qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        int high = block[i % 32] >> (i / 32) & 1;
        out->q[i] = (int8_t)(low + high * 4 - 4);
    }
}

/* d, dmin, scales[12]: eight 6-bit scales and eight 6-bit minima */
static void unpack_scales_k4(const uint8_t *block, struct unpacked *out)
{
    const uint8_t *packed = block + 4;
    float d = load_f16(block), dmin = load_f16(block + 2);
    for (int g = 0; g < 8; g++) {
        int scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | packed[g - 4] >> 6 << 4;
        int min = g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | packed[g] >> 6 << 4;
        out->scale[g] = d * (float)scale;
        out->min[g] = dmin * (float)min;
    }
}

static void unpack_q4_k(const uint8_t *block, struct unpacked *out)
{
    unpack_scales_k4(block, out);
    for (int i = 0; i < 256; i++)
        out->q[i] = block[16 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
}

static void unpack_q5_k(const uint8_t *block, struct unpacked *out)
{
    unpack_scales_k4(block, out);
    for (int i = 0; i < 256; i++) {
        int low = block[48 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
        int high = block[16 + i % 32] >> (i / 32) & 1;
        out->q[i] = (int8_t)(low | high << 4);
    }
}

/* ql[128], qh[64], scales[16] (signed), d */
static void unpack_q6_k(const uint8_t *block, struct unpacked *out)
{
    const uint8_t *ql = block, *qh = block + 128;
    float d = load_f16(block + 208);
    for (int g = 0; g < 16; g++)
        out->scale[g] = d * (float)(int8_t)block[192 + g];
    for (int i = 0; i < 256; i++) {
        int half = i / 128, part = i % 128 / 32, l = i % 32;
        int low = ql[half * 64 + part % 2 * 32 + l] >> (part / 2 * 4) & 15;
        int high = qh[half * 32 + l] >> (part * 2) & 3;
        out->q[i] = (int8_t)((low | high << 4) - 32);
    }
}

static void unpack_q8_k(const uint8_t *block, struct unpacked *out)
{
    float d = float_of_bits(load_u32(block));
    for (int g = 0; g < 8; g++)
        out->scale[g] = d;
    memcpy(out->q, block + 4, 256);
}

/* d, scales_h (u16), scales_l[4], qs[128] */
static void unpack_iq4_xs(const uint8_t *block, struct unpacked *out)
{
    float d = load_f16(block);
    uint16_t high = load_u16(block + 2);
    for (int g = 0; g < 8; g++) {
        int scale = (block[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> (2 * g) & 3) << 4;
        out->scale[g] = d * (float)(scale - 32);
        unpack_values(block + 8 + 16 * g, out->q + 32 * g, format_iq4_values);
    }
}

static const struct format_ops ops[FORMAT_TYPES] = {
    [TENSOR_Q4_0] = {32, false, unpack_q4_0, quantize_q4_0},
    [TENSOR_Q4_1] = {32, true, unpack_q4_1, quantize_q4_1},
    [TENSOR_Q5_0] = {32, false, unpack_q5_0, quantize_q5_0},
    [TENSOR_Q5_1] = {32, true, unpack_q5_1, quantize_q5_1},
    [TENSOR_Q8_0] = {32, false, unpack_q8_0, quantize_q8_0},
    [TENSOR_Q2_K] = {16, true, unpack_q2_k, quantize_q2_k},
    [TENSOR_Q3_K] = {16, false, unpack_q3_k, quantize_q3_k},
    [TENSOR_Q4_K] = {32, true, unpack_q4_k, quantize_q4_k},
    [TENSOR_Q5_K] = {32, true, unpack_q5_k, quantize_q5_k},
    [TENSOR_Q6_K] = {16, false, unpack_q6_k, quantize_q6_k},
    [TENSOR_Q8_K] = {32, false, unpack_q8_k, quantize_q8_k},
    [TENSOR_IQ4_NL] = {32, false, unpack_iq4_nl, quantize_iq4_nl},
    [TENSOR_IQ4_XS] = {32, false, unpack_iq4_xs, quantize_iq4_xs},
    [TENSOR_MXFP4] = {32, false, unpack_mxfp4, quantize_mxfp4},
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
        op->unpack(src, &u);
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

static void quantize_blocks(enum tensor_type type, const float *src, uint8_t *dst, size_t len)
{
    const struct tensor_format *f = tensor_format((uint32_t)type);
    float x[FORMAT_BLOCK_MAX];
    float limit = type == TENSOR_MXFP4 || type == TENSOR_Q8_K ? SCALED_LIMIT : BLOCK_LIMIT;
    for (size_t i = 0; i < len; i += f->block_len, dst += f->block_bytes) {
        for (size_t j = 0; j < f->block_len; j++)
            x[j] = finite(src[i + j], limit);
        format_ops(type)->quantize(x, dst);
    }
}

void tensor_quantize(enum tensor_type type, const float *src, void *dst, size_t len)
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
        quantize_blocks(type, src, bytes, len);
    }
}
