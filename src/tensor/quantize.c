/* Quantisers of the formats with blocks of 32.
 *
 * The plain formats choose their scale from the extremes of the block, as files in the wild were made;
 * IQ4_NL, whose values are not evenly spaced, searches near that choice for the least squared error. Inputs
 * are finite (tensor_quantize sees to that) and may be as small or large as floats go: scales are clamped to
 * what their field can hold, and a scale too small to invert counts as zero. */
#include "tensor/quantize_int.h"

#include <math.h>

static void pack_nibbles(const uint8_t *q, uint8_t *qs)
{
    for (int j = 0; j < 16; j++)
        qs[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static void pack_fifth_bit(const uint8_t *q, uint8_t *qh)
{
    for (int i = 0; i < 4; i++) {
        int bits = 0;
        for (int j = 0; j < 8; j++)
            bits |= (q[8 * i + j] >> 4 & 1) << j;
        qh[i] = (uint8_t)bits;
    }
}

/* The element of the greatest magnitude, with its sign: the end of a symmetric range. */
static float extreme(const float *x, int len)
{
    float best = 0.0f;
    for (int i = 0; i < len; i++)
        if (fabsf(x[i]) > fabsf(best))
            best = x[i];
    return best;
}

/* codes q = x / d + half with d = extreme / -half, so that the extreme itself is exact */
static void quantize_symmetric(const float *x, int half, uint8_t *scale, uint8_t *q)
{
    float d = quant_store_scale(scale, extreme(x, 32) / (float)-half);
    float inverse = quant_inverse(d);
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)quant_nearest(x[j] * inverse + (float)half, 0, 2 * half - 1);
}

static void quantize_range(const float *x, int top, uint8_t *scale, uint8_t *min, uint8_t *q)
{
    float lo = x[0], hi = x[0];
    for (int j = 1; j < 32; j++) {
        lo = fminf(lo, x[j]);
        hi = fmaxf(hi, x[j]);
    }
    float inverse = quant_inverse(quant_store_scale(scale, (hi - lo) / (float)top));
    lo = quant_store_scale(min, lo);
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)quant_nearest((x[j] - lo) * inverse, 0, top);
}

void quantize_q4_0(const float *x, uint8_t *block)
{
    uint8_t q[32];
    quantize_symmetric(x, 8, block, q);
    pack_nibbles(q, block + 2);
}

void quantize_q4_1(const float *x, uint8_t *block)
{
    uint8_t q[32];
    quantize_range(x, 15, block, block + 2, q);
    pack_nibbles(q, block + 4);
}

void quantize_q5_0(const float *x, uint8_t *block)
{
    uint8_t q[32];
    quantize_symmetric(x, 16, block, q);
    pack_fifth_bit(q, block + 2);
    pack_nibbles(q, block + 6);
}

void quantize_q5_1(const float *x, uint8_t *block)
{
    uint8_t q[32];
    quantize_range(x, 31, block, block + 2, q);
    pack_fifth_bit(q, block + 4);
    pack_nibbles(q, block + 8);
}

void quantize_q8_0(const float *x, uint8_t *block)
{
    float d = quant_clamp_scale(fabsf(extreme(x, 32)) / 127.0f);
    float inverse = quant_inverse(d);
    quant_store_scale(block, d);
    for (int j = 0; j < 32; j++)
        block[2 + j] = (uint8_t)quant_nearest(x[j] * inverse, -127, 127);
}

/* ---- Formats with a table of values ---- */

int quant_nearest_value(const int8_t *values, float x)
{
    int best = 0;
    for (int i = 1; i < 16; i++)
        if (fabsf(x - (float)values[i]) < fabsf(x - (float)values[best]))
            best = i;
    return best;
}

/* Scale for the values of IQ4_*: tries scales around the one that maps the extreme to the table's end, refits
 * each by least squares, keeps the best. */
float quant_fit_iq4(const float *x, int len)
{
    float top = extreme(x, len), best_scale = 0.0f, best_gain = 0.0f;
    for (int step = -7; step <= 7; step++) {
        float inverse = quant_inverse(top / ((float)step + (float)format_iq4_values[0]));
        float xq = 0.0f, qq = 0.0f;
        for (int j = 0; j < len; j++) {
            float v = (float)format_iq4_values[quant_nearest_value(format_iq4_values, x[j] * inverse)];
            float weight = x[j] * x[j];
            xq += weight * x[j] * v;
            qq += weight * v * v;
        }
        if (qq > 0.0f && xq * xq > best_gain * qq) {
            best_gain = xq * xq / qq;
            best_scale = xq / qq;
        }
    }
    return best_scale;
}

void quantize_iq4_nl(const float *x, uint8_t *block)
{
    uint8_t q[32];
    float inverse = quant_inverse(quant_store_scale(block, quant_fit_iq4(x, 32)));
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)quant_nearest_value(format_iq4_values, x[j] * inverse);
    pack_nibbles(q, block + 2);
}

/* OCP Microscaling: the shared exponent is that of the greatest element, less the 2 of FP4's greatest power.
 */
void quantize_mxfp4(const float *x, uint8_t *block)
{
    uint8_t q[32];
    float top = fabsf(extreme(x, 32));
    int exponent = 0;
    if (top > 0.0f)
        (void)frexpf(top, &exponent);
    int e = exponent - 1 - 2 + 127;
    e = top == 0.0f ? 0 : e < 0 ? 0 : e > 254 ? 254 : e;
    block[0] = (uint8_t)e;
    float inverse = quant_inverse(e8m0_half(block[0]));
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)quant_nearest_value(format_fp4_values, x[j] * inverse);
    pack_nibbles(q, block + 1);
}
