/* Helpers that the quantisers share. */
#ifndef PHAROS_TENSOR_QUANTIZE_INT_H
#define PHAROS_TENSOR_QUANTIZE_INT_H

#include <math.h>

#include "tensor/formats_int.h"

int quant_nearest_value(const int8_t *values, float x);
float quant_fit_iq4(const float *x, const float *w, int len);

/* ---- Searches (quantize_fit.c). `w` is NULL or what an element's squared error counts. */
struct quant_fit {
    float scale, min; /* x = scale * q - min */
};

/* Best x = scale * q with q in [lo, hi]; the scale may be negative. Without w, elements count by their
 * square. */
float quant_fit_scale(const float *x, const float *w, int len, int lo, int hi);
/* Best x = scale * q - min with q in [0, top], scale not negative, min neither unless any_min. Without w,
 * elements count by their magnitude. */
struct quant_fit quant_fit_affine(const float *x, const float *w, int len, int top, bool any_min);
/* Sum of w times the squared error, of the nearest codes in [lo, hi]. */
float quant_fit_error(const float *x, const float *w, int len, struct quant_fit fit, int lo, int hi);

static inline int quant_nearest(float x, int lo, int hi)
{
    if (!(x > (float)lo))
        return lo;
    return x < (float)hi ? (int)lrintf(x) : hi;
}

/* 1 / d, or 0 where that would not be a useful number. */
static inline float quant_inverse(float d)
{
    return fabsf(d) < 1e-37f ? 0.0f : 1.0f / d;
}

static inline float quant_clamp_scale(float d)
{
    return d > 65504.0f ? 65504.0f : d < -65504.0f ? -65504.0f : d;
}

/* Stores a scale as F16 and returns the value that was asked for (clamped): codes are chosen by it. */
static inline float quant_store_scale(uint8_t *p, float d)
{
    d = quant_clamp_scale(d);
    store_u16(p, tensor_f32_to_f16(d));
    return d;
}

#endif
