/* Quantisers of the formats with blocks of 256 ("K" formats and IQ4_XS).
 *
 * Two levels: each group of 16 or 32 gets its best scale (and minimum) by a search with least-squares refits;
 * the groups' scales are then themselves rounded to 4, 6 or 8 bits of one block scale, and the codes are
 * chosen last, against the scales as the decoder will see them. Elements count by their magnitude, since
 * large weights do most of the work in a product; or by weights from outside, and then the rounding of a
 * group's scales is searched as well: the neighbours of the nearest code may serve its elements better. */
#include "tensor/quantize_int.h"

static const float *part(const float *w, int at)
{
    return w ? w + at : NULL;
}

/* Codes of one group against the scale and minimum the decoder will see. */
static void choose_codes(const float *x, int len, struct quant_fit fit, int lo, int hi, uint8_t *q)
{
    float inverse = quant_inverse(fit.scale);
    for (int j = 0; j < len; j++)
        q[j] = (uint8_t)(quant_nearest((x[j] + fit.min) * inverse, lo, hi) - lo);
}

/* Rounds unsigned group scales (or minima) to integers of one block scale, which is stored as F16. */
static float round_scales(const float *scales, int count, int top, uint8_t *field, uint8_t *codes)
{
    float most = 0.0f;
    for (int g = 0; g < count; g++)
        most = fmaxf(most, scales[g]);
    quant_store_scale(field, most / (float)top);
    float d = load_f16(field), inverse = quant_inverse(d);
    for (int g = 0; g < count; g++)
        codes[g] = (uint8_t)quant_nearest(scales[g] * inverse, 0, top);
    return d;
}

/* The same for signed group scales in [-half, half - 1]. */
static float round_signed_scales(const float *scales, int count, int half, uint8_t *field, int8_t *codes)
{
    float most = 0.0f;
    for (int g = 0; g < count; g++)
        if (fabsf(scales[g]) > fabsf(most))
            most = scales[g];
    quant_store_scale(field, most / (float)-half);
    float d = load_f16(field), inverse = quant_inverse(d);
    for (int g = 0; g < count; g++)
        codes[g] = (int8_t)quant_nearest(scales[g] * inverse, -half, half - 1);
    return d;
}

/* ---- Affine formats ---- */

struct affine_block {
    uint8_t q[256], scales[16], mins[16];
};

/* Codes of one group's scale and minimum, nearest or next to it, by the error of the group. */
static void search_scale_codes(const float *x, const float *w, int len, int top, int scale_top, float d,
                               float dmin, uint8_t *scale, uint8_t *min)
{
    int s = *scale, m = *min;
    float least = INFINITY;
    for (int ds = -2; ds <= 2; ds++)
        for (int dm = -2; dm <= 2; dm++) {
            if (s + ds < 0 || s + ds > scale_top || m + dm < 0 || m + dm > scale_top)
                continue;
            struct quant_fit fit = {d * (float)(s + ds), dmin * (float)(m + dm)};
            float error = quant_fit_error(x, w, len, fit, 0, top);
            if (error < least) {
                least = error;
                *scale = (uint8_t)(s + ds);
                *min = (uint8_t)(m + dm);
            }
        }
}

static void quantize_affine(const float *x, const float *w, int group, int top, int scale_top,
                            uint8_t *d_field, uint8_t *dmin_field, struct affine_block *out)
{
    int count = 256 / group;
    float scales[16] = {0}, mins[16] = {0};
    for (int g = 0; g < count; g++) {
        struct quant_fit fit = quant_fit_affine(x + g * group, part(w, g * group), group, top, false);
        scales[g] = fit.scale;
        mins[g] = fit.min;
    }
    float d = round_scales(scales, count, scale_top, d_field, out->scales);
    float dmin = round_scales(mins, count, scale_top, dmin_field, out->mins);
    for (int g = 0; g < count; g++) {
        if (w)
            search_scale_codes(x + g * group, w + g * group, group, top, scale_top, d, dmin, &out->scales[g],
                               &out->mins[g]);
        struct quant_fit fit = {d * (float)out->scales[g], dmin * (float)out->mins[g]};
        choose_codes(x + g * group, group, fit, 0, top, out->q + g * group);
    }
}

void quantize_q2_k(const float *x, const float *w, uint8_t *block)
{
    struct affine_block b;
    quantize_affine(x, w, 16, 3, 15, block + 80, block + 82, &b);
    for (int g = 0; g < 16; g++)
        block[g] = (uint8_t)(b.scales[g] | b.mins[g] << 4);
    for (int i = 0; i < 64; i++) {
        const uint8_t *q = b.q + i / 32 * 128 + i % 32;
        block[16 + i] = (uint8_t)(q[0] | q[32] << 2 | q[64] << 4 | q[96] << 6);
    }
}

static void pack_scales_k4(const struct affine_block *b, uint8_t *packed)
{
    for (int g = 0; g < 4; g++) {
        packed[g] = (uint8_t)(b->scales[g] | b->scales[g + 4] >> 4 << 6);
        packed[g + 4] = (uint8_t)(b->mins[g] | b->mins[g + 4] >> 4 << 6);
        packed[g + 8] = (uint8_t)((b->scales[g + 4] & 15) | (b->mins[g + 4] & 15) << 4);
    }
}

static void pack_nibbles_k(const uint8_t *q, uint8_t *qs)
{
    for (int i = 0; i < 128; i++) {
        const uint8_t *p = q + i / 32 * 64 + i % 32;
        qs[i] = (uint8_t)((p[0] & 15) | (p[32] & 15) << 4);
    }
}

void quantize_q4_k(const float *x, const float *w, uint8_t *block)
{
    struct affine_block b;
    quantize_affine(x, w, 32, 15, 63, block, block + 2, &b);
    pack_scales_k4(&b, block + 4);
    pack_nibbles_k(b.q, block + 16);
}

void quantize_q5_k(const float *x, const float *w, uint8_t *block)
{
    struct affine_block b;
    quantize_affine(x, w, 32, 31, 63, block, block + 2, &b);
    pack_scales_k4(&b, block + 4);
    for (int l = 0; l < 32; l++) {
        int bits = 0;
        for (int g = 0; g < 8; g++)
            bits |= (b.q[g * 32 + l] >> 4) << g;
        block[16 + l] = (uint8_t)bits;
    }
    pack_nibbles_k(b.q, block + 48);
}

/* ---- Symmetric formats ---- */

static void search_signed_code(const float *x, const float *w, int half, int scale_half, float d,
                               int8_t *code)
{
    int nearest = *code;
    float least = INFINITY;
    for (int step = -2; step <= 2; step++) {
        int tried = nearest + step;
        if (tried < -scale_half || tried >= scale_half)
            continue;
        float error = quant_fit_error(x, w, 16, (struct quant_fit){d * (float)tried, 0.0f}, -half, half - 1);
        if (error < least) {
            least = error;
            *code = (int8_t)tried;
        }
    }
}

static void quantize_signed(const float *x, const float *w, int half, int scale_half, uint8_t *d_field,
                            int8_t *scale_codes, uint8_t *q)
{
    float scales[16] = {0};
    for (int g = 0; g < 16; g++)
        scales[g] = quant_fit_scale(x + g * 16, part(w, g * 16), 16, -half, half - 1);
    float d = round_signed_scales(scales, 16, scale_half, d_field, scale_codes);
    for (int g = 0; g < 16; g++) {
        if (w)
            search_signed_code(x + g * 16, w + g * 16, half, scale_half, d, &scale_codes[g]);
        struct quant_fit fit = {d * (float)scale_codes[g], 0.0f};
        choose_codes(x + g * 16, 16, fit, -half, half - 1, q + g * 16);
    }
}

void quantize_q3_k(const float *x, const float *w, uint8_t *block)
{
    int8_t scales[16];
    uint8_t q[256];
    quantize_signed(x, w, 4, 32, block + 108, scales, q);
    memset(block, 0, 108);
    for (int i = 0; i < 256; i++) {
        block[32 + i / 128 * 32 + i % 32] |= (uint8_t)((q[i] & 3) << (i % 128 / 32 * 2));
        block[i % 32] |= (uint8_t)(q[i] >> 2 << (i / 32));
    }
    for (int g = 0; g < 16; g++) {
        int code = scales[g] + 32;
        block[96 + g % 8] |= (uint8_t)((code & 15) << (g / 8 * 4));
        block[104 + g % 4] |= (uint8_t)(code >> 4 << (g / 4 * 2));
    }
}

void quantize_q6_k(const float *x, const float *w, uint8_t *block)
{
    int8_t scales[16];
    uint8_t q[256];
    quantize_signed(x, w, 32, 128, block + 208, scales, q);
    memcpy(block + 192, scales, 16);
    for (int i = 0; i < 64; i++) {
        const uint8_t *p = q + i / 32 * 128 + i % 32;
        uint8_t *low = block + i / 32 * 64 + i % 32;
        low[0] = (uint8_t)((p[0] & 15) | (p[64] & 15) << 4);
        low[32] = (uint8_t)((p[32] & 15) | (p[96] & 15) << 4);
        block[128 + i] = (uint8_t)(p[0] >> 4 | p[32] >> 4 << 2 | p[64] >> 4 << 4 | p[96] >> 4 << 6);
    }
}

/* ---- IQ4_XS: a table of values, signed group scales */

static float iq4_error(const float *x, const float *w, float scale)
{
    float inverse = quant_inverse(scale), error = 0.0f;
    for (int j = 0; j < 32; j++) {
        int q = quant_nearest_value(format_iq4_values, x[j] * inverse);
        float diff = scale * (float)format_iq4_values[q] - x[j];
        error += w[j] * diff * diff;
    }
    return error;
}

static void search_iq4_code(const float *x, const float *w, float d, int8_t *code)
{
    int nearest = *code;
    float least = INFINITY;
    for (int tried = nearest - 2; tried <= nearest + 2; tried++) {
        float error = tried < -32 || tried > 31 ? INFINITY : iq4_error(x, w, d * (float)tried);
        if (error < least) {
            least = error;
            *code = (int8_t)tried;
        }
    }
}

void quantize_iq4_xs(const float *x, const float *w, uint8_t *block)
{
    float scales[8] = {0};
    int8_t codes[8];
    for (int g = 0; g < 8; g++)
        scales[g] = quant_fit_iq4(x + 32 * g, part(w, 32 * g), 32);
    float d = round_signed_scales(scales, 8, 32, block, codes);
    memset(block + 2, 0, 6);
    int high = 0;
    for (int g = 0; g < 8; g++) {
        if (w)
            search_iq4_code(x + 32 * g, w + 32 * g, d, &codes[g]);
        int code = codes[g] + 32;
        block[4 + g / 2] |= (uint8_t)((code & 15) << (g % 2 * 4));
        high |= code >> 4 << (2 * g);
        float inverse = quant_inverse(d * (float)codes[g]);
        for (int j = 0; j < 16; j++) {
            const float *p = x + 32 * g + j;
            int low_code = quant_nearest_value(format_iq4_values, p[0] * inverse);
            int high_code = quant_nearest_value(format_iq4_values, p[16] * inverse);
            block[8 + 16 * g + j] = (uint8_t)(low_code | high_code << 4);
        }
    }
    store_u16(block + 2, (uint16_t)high);
}

/* d (F32), qs[256], bsums[16]: the activations' own format. d = extreme / -127. */
void quantize_q8_k(const float *x, const float *w, uint8_t *block)
{
    (void)w; /* never in a file */
    float top = 0.0f;
    for (int j = 0; j < 256; j++)
        if (fabsf(x[j]) > fabsf(top))
            top = x[j];
    float inverse = fabsf(top) < 1e-35f ? 0.0f : -127.0f / top;
    float d = inverse == 0.0f ? 0.0f : 1.0f / inverse;
    uint32_t bits = bits_of_float(d);
    store_u16(block, (uint16_t)bits);
    store_u16(block + 2, (uint16_t)(bits >> 16));
    for (int g = 0; g < 16; g++) {
        int sum = 0;
        for (int j = 0; j < 16; j++) {
            int q = quant_nearest(x[16 * g + j] * inverse, -128, 127);
            block[4 + 16 * g + j] = (uint8_t)q;
            sum += q;
        }
        store_u16(block + 260 + 2 * g, (uint16_t)sum);
    }
}
