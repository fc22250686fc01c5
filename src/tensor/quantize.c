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

/* The scale as the decoder will see it, where a search chose it; else as it was asked for, as files in the
 * wild have it. */
static float store_scale(uint8_t *field, float d, bool searched)
{
    float asked = quant_store_scale(field, d);
    return searched ? load_f16(field) : asked;
}

/* codes q = x / d + half with d = extreme / -half, so that the extreme itself is exact */
static void quantize_symmetric(const float *x, const float *w, int half, uint8_t *scale, uint8_t *q)
{
    float d = w ? quant_fit_scale(x, w, 32, -half, half - 1) : extreme(x, 32) / (float)-half;
    float inverse = quant_inverse(store_scale(scale, d, w != NULL));
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)quant_nearest(x[j] * inverse + (float)half, 0, 2 * half - 1);
}

static void quantize_range(const float *x, const float *w, int top, uint8_t *scale, uint8_t *min, uint8_t *q)
{
    float lo = x[0], hi = x[0];
    for (int j = 1; j < 32; j++) {
        lo = fminf(lo, x[j]);
        hi = fmaxf(hi, x[j]);
    }
    float d = (hi - lo) / (float)top;
    if (w) {
        struct quant_fit fit = quant_fit_affine(x, w, 32, top, true);
        d = fit.scale;
        lo = -fit.min;
    }
    float inverse = quant_inverse(store_scale(scale, d, w != NULL));
    lo = store_scale(min, lo, w != NULL);
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)quant_nearest((x[j] - lo) * inverse, 0, top);
}

void quantize_q4_0(const float *x, const float *w, uint8_t *block)
{
    uint8_t q[32];
    quantize_symmetric(x, w, 8, block, q);
    pack_nibbles(q, block + 2);
}

void quantize_q4_1(const float *x, const float *w, uint8_t *block)
{
    uint8_t q[32];
    quantize_range(x, w, 15, block, block + 2, q);
    pack_nibbles(q, block + 4);
}

void quantize_q5_0(const float *x, const float *w, uint8_t *block)
{
    uint8_t q[32];
    quantize_symmetric(x, w, 16, block, q);
    pack_fifth_bit(q, block + 2);
    pack_nibbles(q, block + 6);
}

void quantize_q5_1(const float *x, const float *w, uint8_t *block)
{
    uint8_t q[32];
    quantize_range(x, w, 31, block, block + 2, q);
    pack_fifth_bit(q, block + 4);
    pack_nibbles(q, block + 8);
}

void quantize_q8_0(const float *x, const float *w, uint8_t *block)
{
    float d = w ? quant_fit_scale(x, w, 32, -127, 127) : fabsf(extreme(x, 32)) / 127.0f;
    float inverse = quant_inverse(store_scale(block, d, w != NULL));
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

struct iq4_fit {
    float scale, gain;
};

static void try_iq4(const float *x, const float *w, int len, float inverse, struct iq4_fit *best)
{
    float xq = 0.0f, qq = 0.0f;
    for (int j = 0; j < len; j++) {
        float v = (float)format_iq4_values[quant_nearest_value(format_iq4_values, x[j] * inverse)];
        float weight = w ? w[j] : x[j] * x[j];
        xq += weight * x[j] * v;
        qq += weight * v * v;
    }
    if (qq > 0.0f && xq * xq > best->gain * qq)
        *best = (struct iq4_fit){xq / qq, xq * xq / qq};
}

/* Scale for the values of IQ4_*: tries scales around the one that maps the extreme to the table's end, refits
 * each by least squares, keeps the best. With weights also scales that cut the extreme off, and both ends. */
float quant_fit_iq4(const float *x, const float *w, int len)
{
    float top = extreme(x, len);
    struct iq4_fit best = {0.0f, 0.0f};
    for (int step = -7; step <= 7; step++)
        try_iq4(x, w, len, quant_inverse(top / ((float)step + (float)format_iq4_values[0])), &best);
    for (int step = -12; w && step <= 6; step++) {
        float reach = powf(2.0f, 0.125f * (float)step);
        try_iq4(x, w, len, quant_inverse(top * reach / (float)format_iq4_values[0]), &best);
        try_iq4(x, w, len, quant_inverse(top * reach / (float)format_iq4_values[15]), &best);
    }
    for (int turn = 0; w && turn < 3; turn++)
        try_iq4(x, w, len, quant_inverse(best.scale), &best);
    return best.scale;
}

void quantize_iq4_nl(const float *x, const float *w, uint8_t *block)
{
    uint8_t q[32];
    float inverse = quant_inverse(store_scale(block, quant_fit_iq4(x, w, 32), w != NULL));
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)quant_nearest_value(format_iq4_values, x[j] * inverse);
    pack_nibbles(q, block + 2);
}

static void mxfp4_codes(const float *x, int e, uint8_t *q)
{
    float inverse = quant_inverse(e8m0_half((uint8_t)e));
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)quant_nearest_value(format_fp4_values, x[j] * inverse);
}

/* Powers of two have few neighbours: with weights, all that may be better are tried. (Beyond 252 the greatest
 * value would overflow.) */
static int mxfp4_exponent(const float *x, const float *w, int e)
{
    int best = e;
    double least = INFINITY;
    for (int tried = e - 3 < 0 ? 0 : e - 3; tried <= e + 1 && tried <= 252; tried++) {
        uint8_t q[32];
        double error = 0, scale = (double)e8m0_half((uint8_t)tried);
        mxfp4_codes(x, tried, q);
        for (int j = 0; j < 32; j++) {
            double diff = scale * (double)format_fp4_values[q[j]] - (double)x[j];
            error += (double)w[j] * diff * diff;
        }
        if (error < least) {
            least = error;
            best = tried;
        }
    }
    return best;
}

/* OCP Microscaling: the shared exponent is that of the greatest element, less the 2 of FP4's greatest power.
 */
void quantize_mxfp4(const float *x, const float *w, uint8_t *block)
{
    uint8_t q[32];
    float top = fabsf(extreme(x, 32));
    int exponent = 0;
    if (top > 0.0f)
        (void)frexpf(top, &exponent);
    int e = exponent - 1 - 2 + 127;
    e = top == 0.0f ? 0 : e < 0 ? 0 : e > 254 ? 254 : e;
    if (w && top > 0.0f)
        e = mxfp4_exponent(x, w, e);
    block[0] = (uint8_t)e;
    mxfp4_codes(x, e, q);
    pack_nibbles(q, block + 1);
}
