/* Rotary position embedding: frequencies for the scalings that GGUF names.
 *
 * Every scaling in use turns pair i by position * freq[i] with a fixed freq[i], so all of it is settled
 * once, in double precision, when a runner is made: linear interpolation (Chen et al. 2023), YaRN (Peng et
 * al. 2023), Llama 3's and LongRoPE's divisors, which come as tensors. A step then needs cosines and sines
 * only. */
#include <math.h>

#include "model/forward_int.h"

const float *rope_factors(const struct model *model, size_t context_len)
{
    const struct rope_params *params = &model->hp.rope[ROPE_FULL];
    if (model->vector[G_ROPE_FREQS])
        return model->vector[G_ROPE_FREQS];
    return model->vector[context_len > params->context_original ? G_ROPE_LONG : G_ROPE_SHORT];
}

/* The (fractional) pair that makes `turns` full turns over the original context: YaRN, section 3.2. */
static double yarn_pair(const struct rope_params *p, size_t dims, double turns)
{
    const double two_pi = 6.283185307179586;
    return (double)dims * log((double)p->context_original / (turns * two_pi)) / (2 * log(p->base));
}

static double yarn_magnitude(double factor, double multiplier)
{
    return factor <= 1 ? 1 : 0.1 * multiplier * log(factor) + 1;
}

void rope_init(struct rope *rope, const struct rope_params *p, size_t dims, const float *factors,
               double *freq)
{
    double factor = p->scaling == ROPE_SCALING_NONE || p->factor == 0 ? 1 : p->factor;
    double low = 0, high = 0, magnitude = p->attn_factor;
    bool yarn = p->scaling == ROPE_SCALING_YARN;
    if (yarn) {
        low = fmax(0, floor(yarn_pair(p, dims, p->beta_fast)));
        high = fmin((double)dims - 1, ceil(yarn_pair(p, dims, p->beta_slow)));
        magnitude *= yarn_magnitude(factor, 1);
        if (p->log_multiplier != 0)
            magnitude /= yarn_magnitude(factor, p->log_multiplier);
    }
    for (size_t i = 0; i < dims / 2; i++) {
        double plain = pow(p->base, -2.0 * (double)i / (double)dims) / (factors ? (double)factors[i] : 1.0);
        /* YaRN: fast pairs keep their frequency, slow ones are interpolated, a ramp between */
        double ramp = fmin(1, fmax(0, ((double)i - low) / fmax(0.001, high - low)));
        double keep = yarn ? 1 - ramp : 0;
        freq[i] = plain * (keep + (1 - keep) / factor);
    }
    *rope = (struct rope){.pairs = dims / 2, .freq = freq, .magnitude = (float)magnitude};
}

void rope_table(const struct rope *rope, size_t position, float *cos_sin)
{
    for (size_t i = 0; i < rope->pairs; i++) {
        double angle = (double)position * rope->freq[i];
        cos_sin[2 * i] = (float)cos(angle) * rope->magnitude;
        cos_sin[2 * i + 1] = (float)sin(angle) * rope->magnitude;
    }
}
