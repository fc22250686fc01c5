/* Searches for the scale (and minimum) of a group of numbers.
 *
 * With the codes held fixed, the best scale and minimum are a least-squares solution; with those held fixed,
 * the best codes are the nearest ones. So: start from several scales near the one that maps the extreme to
 * the end of the codes' range, solve, keep the best. Where the caller says what each element's error counts,
 * outliers may count for little: then scales that cut them off are tried too, and the best start is improved
 * by turns until it stays as it is. */
#include "tensor/quantize_int.h"

#define GROUP_MAX 32
#define TURNS_MAX 6

/* Shares of the range that are tried where weights may make outliers unimportant. */
static const float cuts[] = {0.92f, 0.84f, 0.76f, 0.68f, 0.6f, 0.5f, 0.4f};
#define CUTS ((int)(sizeof cuts / sizeof *cuts))

/* ---- Scale alone */

struct candidate {
    float scale;
    double gain; /* by how much the sum of squares is less than with all codes 0 */
};

static struct candidate solve_scale(const float *x, const float *w, int len, float inverse, int lo, int hi)
{
    double xq = 0, qq = 0;
    for (int j = 0; j < len; j++) {
        double q = quant_nearest(x[j] * inverse, lo, hi), weight = (double)w[j];
        xq += weight * (double)x[j] * q;
        qq += weight * q * q;
    }
    return qq > 0 ? (struct candidate){(float)(xq / qq), xq * xq / qq} : (struct candidate){0.0f, 0};
}

static void keep_better(struct candidate *best, struct candidate candidate)
{
    if (candidate.gain > best->gain)
        *best = candidate;
}

static float extreme(const float *x, int len)
{
    float top = 0.0f;
    for (int j = 0; j < len; j++)
        if (fabsf(x[j]) > fabsf(top))
            top = x[j];
    return top;
}

float quant_fit_scale(const float *x, const float *w, int len, int lo, int hi)
{
    float squares[GROUP_MAX], top = extreme(x, len);
    struct candidate best = {0.0f, 0};
    for (int j = 0; !w && j < len; j++)
        squares[j] = x[j] * x[j];
    const float *weights = w ? w : squares;
    for (int step = -9; step <= 9; step++) {
        float inverse = quant_inverse(top / ((float)lo + 0.1f * (float)step));
        keep_better(&best, solve_scale(x, weights, len, inverse, lo, hi));
    }
    if (!w)
        return best.scale;
    for (int i = -CUTS; i < CUTS; i++) { /* either end of the range may serve the extreme's side */
        float end = (float)(i < 0 ? lo : -lo), cut = cuts[i < 0 ? -i - 1 : i];
        keep_better(&best, solve_scale(x, w, len, quant_inverse(cut * top / end), lo, hi));
    }
    for (int turn = 0; turn < TURNS_MAX; turn++) {
        double gain = best.gain;
        keep_better(&best, solve_scale(x, w, len, quant_inverse(best.scale), lo, hi));
        if (best.gain <= gain)
            break;
    }
    return best.scale;
}

/* ---- Scale and minimum */

float quant_fit_error(const float *x, const float *w, int len, struct quant_fit fit, int lo, int hi)
{
    float inverse = quant_inverse(fit.scale), error = 0.0f;
    for (int j = 0; j < len; j++) {
        float q = (float)quant_nearest((x[j] + fit.min) * inverse, lo, hi);
        float diff = fit.scale * q - fit.min - x[j];
        error += w[j] * diff * diff;
    }
    return error;
}

/* Least squares for scale and minimum with the codes of `fit` held fixed. Most formats store the minimum
 * unsigned: there it may not turn negative. */
static struct quant_fit solve_affine(const float *x, const float *w, int len, struct quant_fit fit, int top,
                                     bool any_min)
{
    float inverse = quant_inverse(fit.scale);
    double sw = 0, wq = 0, wqq = 0, wx = 0, wxq = 0;
    for (int j = 0; j < len; j++) {
        double q = quant_nearest((x[j] + fit.min) * inverse, 0, top);
        double weight = (double)w[j];
        sw += weight;
        wq += weight * q;
        wqq += weight * q * q;
        wx += weight * (double)x[j];
        wxq += weight * (double)x[j] * q;
    }
    double det = sw * wqq - wq * wq;
    if (!(det > 0))
        return fit;
    double scale = (sw * wxq - wq * wx) / det, min = (wq * wxq - wqq * wx) / det;
    if (min < 0 && !any_min) {
        min = 0;
        scale = wxq / wqq;
    }
    return scale > 0 ? (struct quant_fit){(float)scale, (float)min} : fit;
}

struct affine_search {
    const float *x, *w;
    int len, top;
    bool any_min;
    struct quant_fit best;
    float best_error;
};

/* Whether solving from `start` gave something better. */
static bool try_affine(struct affine_search *s, struct quant_fit start)
{
    struct quant_fit tried = solve_affine(s->x, s->w, s->len, start, s->top, s->any_min);
    float error = quant_fit_error(s->x, s->w, s->len, tried, 0, s->top);
    if (!(error < s->best_error))
        return false;
    s->best_error = error;
    s->best = tried;
    return true;
}

/* Ranges that leave out a part of each end. */
static void try_cuts(struct affine_search *s, float lo, float hi)
{
    double sum = 0, sw = 0;
    for (int j = 0; j < s->len; j++) {
        sum += (double)s->w[j] * (double)s->x[j];
        sw += (double)s->w[j];
    }
    float middle = sw > 0 ? (float)(sum / sw) : 0.0f;
    for (int i = 0; i < CUTS; i++) {
        float from = middle + cuts[i] * (lo - middle), to = middle + cuts[i] * (hi - middle);
        if (!s->any_min)
            from = fminf(from, 0.0f);
        (void)try_affine(s, (struct quant_fit){(to - from) / (float)s->top, -from});
    }
    for (int turn = 0; turn < TURNS_MAX && try_affine(s, s->best); turn++)
        ;
}

static float root_mean_square(const float *x, int len)
{
    float sum = 0.0f;
    for (int j = 0; j < len; j++)
        sum += x[j] * x[j];
    return sqrtf(sum / (float)len);
}

struct quant_fit quant_fit_affine(const float *x, const float *w, int len, int top, bool any_min)
{
    float lo = any_min ? x[0] : fminf(x[0], 0.0f), hi = x[0], magnitudes[GROUP_MAX];
    for (int j = 1; j < len; j++) {
        lo = fminf(lo, x[j]);
        hi = fmaxf(hi, x[j]);
    }
    if (!(hi > lo)) /* all equal (and not positive): a minimum alone says it */
        return (struct quant_fit){0.0f, -lo};
    float rms = w ? 0.0f : root_mean_square(x, len);
    for (int j = 0; !w && j < len; j++)
        magnitudes[j] = rms + fabsf(x[j]);
    struct affine_search s = {.x = x, .w = w ? w : magnitudes, .len = len, .top = top, .any_min = any_min};
    s.best = (struct quant_fit){(hi - lo) / (float)top, -lo};
    s.best_error = quant_fit_error(x, s.w, len, s.best, 0, top);
    for (int step = -10; step <= 10; step++)
        (void)try_affine(&s, (struct quant_fit){(hi - lo) / ((float)top + 0.1f * (float)step), -lo});
    if (w)
        try_cuts(&s, lo, hi);
    return s.best;
}
