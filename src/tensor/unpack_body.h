/* How a block of each format is taken apart, written as plain loops over bytes and compiled for each
 * instruction set by the files that include this (formats.c for any CPU): the compiler makes vectors
 * of them.
 *
 * Layouts follow ggml's published block formats, which GGUF files contain. Arithmetic follows ggml's
 * reference dequantiser operation for operation (scale first, then scale * q - min, no fused multiply-
 * add), so that the values are equal bit for bit. */
#include "tensor/formats_int.h"

/* ---- Blocks of 32 ---- */

/* Sixteen bytes hold thirty-two nibbles: low ones first. */
static inline void unpack_nibbles(const uint8_t *qs, int8_t *q, int offset)
{
    for (int j = 0; j < 16; j++) {
        q[j] = (int8_t)((qs[j] & 15) - offset);
        q[j + 16] = (int8_t)((qs[j] >> 4) - offset);
    }
}

static inline void unpack_fifth_bit(uint32_t high, int8_t *q)
{
    for (int j = 0; j < 32; j++)
        q[j] = (int8_t)(q[j] + (int)(high >> j & 1) * 16);
}

static inline void unpack_values(const uint8_t *qs, int8_t *q, const int8_t *values)
{
    for (int j = 0; j < 16; j++) {
        q[j] = values[qs[j] & 15];
        q[j + 16] = values[qs[j] >> 4];
    }
}

static inline void unpack_q4_0(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    unpack_nibbles(block + 2, out->q, 8);
}

static inline void unpack_q4_1(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    out->min[0] = -load_f16(block + 2);
    unpack_nibbles(block + 4, out->q, 0);
}

static inline void unpack_q5_0(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    unpack_nibbles(block + 6, out->q, 16);
    unpack_fifth_bit(load_u32(block + 2), out->q);
}

static inline void unpack_q5_1(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    out->min[0] = -load_f16(block + 2);
    unpack_nibbles(block + 8, out->q, 0);
    unpack_fifth_bit(load_u32(block + 4), out->q);
}

static inline void unpack_q8_0(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    memcpy(out->q, block + 2, 32);
}

static inline void unpack_iq4_nl(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = load_f16(block);
    unpack_values(block + 2, out->q, format_iq4_values);
}

static inline void unpack_mxfp4(const uint8_t *block, struct unpacked *out)
{
    out->scale[0] = e8m0_half(block[0]);
    unpack_values(block + 1, out->q, format_fp4_values);
}

/* ---- Blocks of 256 ---- */

/* 2-bit codes: each half of 128 is four planes of 32 in one run of bytes. */
static inline void unpack_pairs(const uint8_t *qs, int8_t *q)
{
    for (int half = 0; half < 2; half++)
        for (int part = 0; part < 4; part++)
            for (int l = 0; l < 32; l++)
                q[half * 128 + part * 32 + l] = qs[half * 32 + l] >> (part * 2) & 3;
}

/* 4-bit codes: each 64 is two planes of 32 in one run of bytes. */
static inline void unpack_nibbles_k(const uint8_t *qs, int8_t *q)
{
    for (int part = 0; part < 4; part++) {
        for (int l = 0; l < 32; l++) {
            q[part * 64 + l] = qs[part * 32 + l] & 15;
            q[part * 64 + 32 + l] = (int8_t)(qs[part * 32 + l] >> 4);
        }
    }
}

/* scales[16] (low nibble scale, high nibble min), qs[64] (2 bits), d, dmin */
static inline void unpack_q2_k(const uint8_t *block, struct unpacked *out)
{
    const uint8_t *qs = block + 16;
    float d = load_f16(block + 80), dmin = load_f16(block + 82);
    for (int g = 0; g < 16; g++) {
        out->scale[g] = d * (float)(block[g] & 15);
        out->min[g] = dmin * (float)(block[g] >> 4);
    }
    unpack_pairs(qs, out->q);
}

/* hmask[32], qs[64] (2 bits), scales[12] (sixteen 6-bit scales), d */
static inline void unpack_q3_k(const uint8_t *block, struct unpacked *out)
{
    const uint8_t *qs = block + 32, *packed = block + 96;
    float d = load_f16(block + 108);
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4;
        int high = packed[8 + g % 4] >> (g / 4 * 2) & 3;
        out->scale[g] = d * (float)((low | high << 4) - 32);
    }
    unpack_pairs(qs, out->q);
    for (int part = 0; part < 8; part++)
        for (int l = 0; l < 32; l++)
            out->q[part * 32 + l] = (int8_t)(out->q[part * 32 + l] + (block[l] >> part & 1) * 4 - 4);
}

/* d, dmin, scales[12]: eight 6-bit scales and eight 6-bit minima */
static inline void unpack_scales_k4(const uint8_t *block, struct unpacked *out)
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

static inline void unpack_q4_k(const uint8_t *block, struct unpacked *out)
{
    unpack_scales_k4(block, out);
    unpack_nibbles_k(block + 16, out->q);
}

static inline void unpack_q5_k(const uint8_t *block, struct unpacked *out)
{
    unpack_scales_k4(block, out);
    unpack_nibbles_k(block + 48, out->q);
    for (int part = 0; part < 8; part++)
        for (int l = 0; l < 32; l++)
            out->q[part * 32 + l] = (int8_t)(out->q[part * 32 + l] | (block[16 + l] >> part & 1) << 4);
}

/* ql[128], qh[64], scales[16] (signed), d */
static inline void unpack_q6_k(const uint8_t *block, struct unpacked *out)
{
    const uint8_t *ql = block, *qh = block + 128;
    float d = load_f16(block + 208);
    for (int g = 0; g < 16; g++)
        out->scale[g] = d * (float)(int8_t)block[192 + g];
    for (int half = 0; half < 2; half++) {
        for (int part = 0; part < 4; part++) {
            const uint8_t *low = ql + half * 64 + part % 2 * 32, *high = qh + half * 32;
            int8_t *q = out->q + half * 128 + part * 32;
            for (int l = 0; l < 32; l++)
                q[l] = (int8_t)(((low[l] >> (part / 2 * 4) & 15) | (high[l] >> (part * 2) & 3) << 4) - 32);
        }
    }
}

static inline void unpack_q8_k(const uint8_t *block, struct unpacked *out)
{
    float d = float_of_bits(load_u32(block));
    for (int g = 0; g < 8; g++)
        out->scale[g] = d;
    memcpy(out->q, block + 4, 256);
}

/* d, scales_h (u16), scales_l[4], qs[128] */
static inline void unpack_iq4_xs(const uint8_t *block, struct unpacked *out)
{
    float d = load_f16(block);
    uint16_t high = load_u16(block + 2);
    for (int g = 0; g < 8; g++) {
        int scale = (block[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> (2 * g) & 3) << 4;
        out->scale[g] = d * (float)(scale - 32);
        unpack_values(block + 8 + 16 * g, out->q + 32 * g, format_iq4_values);
    }
}

static void (*const unpack_block[FORMAT_TYPES])(const uint8_t *block, struct unpacked *out) = {
    [TENSOR_Q4_0] = unpack_q4_0,     [TENSOR_Q4_1] = unpack_q4_1,   [TENSOR_Q5_0] = unpack_q5_0,
    [TENSOR_Q5_1] = unpack_q5_1,     [TENSOR_Q8_0] = unpack_q8_0,   [TENSOR_Q2_K] = unpack_q2_k,
    [TENSOR_Q3_K] = unpack_q3_k,     [TENSOR_Q4_K] = unpack_q4_k,   [TENSOR_Q5_K] = unpack_q5_k,
    [TENSOR_Q6_K] = unpack_q6_k,     [TENSOR_Q8_K] = unpack_q8_k,   [TENSOR_IQ4_NL] = unpack_iq4_nl,
    [TENSOR_IQ4_XS] = unpack_iq4_xs, [TENSOR_MXFP4] = unpack_mxfp4,
};
