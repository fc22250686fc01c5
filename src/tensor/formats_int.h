/* What the files of `tensor` share about number formats: how a block is taken apart.
 *
 * Every quantised format is the same thing at heart: small integers q in groups of 16 or 32, and for each
 * group a scale and a minimum, so that w = scale[g] * q - min[g]. `unpack` states a format in these terms;
 * the reference dequantiser and the reference products follow from it. */
#ifndef PHAROS_TENSOR_FORMATS_INT_H
#define PHAROS_TENSOR_FORMATS_INT_H

#include <stdint.h>
#include <string.h>

#include "tensor/tensor.h"

#define FORMAT_TYPES 40 /* type ids are below this */
#define FORMAT_BLOCK_MAX 256
#define FORMAT_GROUPS_MAX 16
#define FORMAT_BLOCK_BYTES_MAX 292

/* A block taken apart; `min` counts only where the format has minima. */
struct unpacked {
    int8_t q[FORMAT_BLOCK_MAX];
    float scale[FORMAT_GROUPS_MAX];
    float min[FORMAT_GROUPS_MAX];
};

struct format_ops {
    uint32_t group; /* elements that share a scale; 0: not a quantised format */
    bool has_min;
    /* w [block_len]: what an element's squared error counts, the greatest 1; NULL: the format's own rule */
    void (*quantize)(const float *x, const float *w, uint8_t *block);
};

const struct format_ops *format_ops(enum tensor_type type);

/* The sixteen values of IQ4_NL and IQ4_XS, and of MXFP4 (twice the FP4 value). */
extern const int8_t format_iq4_values[16];
extern const int8_t format_fp4_values[16];

void quantize_q4_0(const float *x, const float *w, uint8_t *block);
void quantize_q4_1(const float *x, const float *w, uint8_t *block);
void quantize_q5_0(const float *x, const float *w, uint8_t *block);
void quantize_q5_1(const float *x, const float *w, uint8_t *block);
void quantize_q8_0(const float *x, const float *w, uint8_t *block);
void quantize_iq4_nl(const float *x, const float *w, uint8_t *block);
void quantize_mxfp4(const float *x, const float *w, uint8_t *block);
void quantize_q2_k(const float *x, const float *w, uint8_t *block);
void quantize_q3_k(const float *x, const float *w, uint8_t *block);
void quantize_q4_k(const float *x, const float *w, uint8_t *block);
void quantize_q5_k(const float *x, const float *w, uint8_t *block);
void quantize_q6_k(const float *x, const float *w, uint8_t *block);
void quantize_q8_k(const float *x, const float *w, uint8_t *block);
void quantize_iq4_xs(const float *x, const float *w, uint8_t *block);

static inline uint16_t load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void store_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float load_f16(const uint8_t *p)
{
    return tensor_f16_to_f32(load_u16(p));
}

/* 2^(e - 128): half of an E8M0 scale, because the FP4 table holds twice the value. */
static inline float e8m0_half(uint8_t e)
{
    return float_of_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

#endif
