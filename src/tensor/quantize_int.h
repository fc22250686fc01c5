/* Helpers that the quantisers share. */
#ifndef PHAROS_TENSOR_QUANTIZE_INT_H
#define PHAROS_TENSOR_QUANTIZE_INT_H

#include <math.h>

#include "tensor/formats_int.h"

int quant_nearest_value(const int8_t *values, float x);
float quant_fit_iq4(const float *x, int len);

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
