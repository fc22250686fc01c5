/* AdamW, the gradient's norm, the schedule of the learning rate. */
#include <math.h>

#include "train/train_int.h"

#define NORM_PIECE ((size_t)4096)

static void adamw_run(const struct adamw *a, float decay, float *w, const float *g, float *m, float *v,
                      size_t len, float scale)
{
    double step = (double)a->step;
    float correct1 = (float)(1 / (1 - pow((double)a->beta1, step)));
    float correct2 = (float)(1 / (1 - pow((double)a->beta2, step)));
    float b1 = a->beta1, b2 = a->beta2, eps = a->eps, rate = a->rate, keep = 1 - rate * decay;
    for (size_t i = 0; i < len; i++) {
        float grad = g[i] * scale;
        m[i] = b1 * m[i] + (1 - b1) * grad;
        v[i] = b2 * v[i] + (1 - b2) * grad * grad;
        w[i] = keep * w[i] - rate * (m[i] * correct1) / (sqrtf(v[i] * correct2) + eps);
    }
}

void adamw_step(struct lane *lane, const struct adamw *a, const struct param *params, size_t count, float *w,
                const float *g, float scale, void *scratch)
{
    for (size_t p = 0; p < count; p++) {
        size_t first, end;
        if (a->muon && params[p].hidden) {
            muon_step(lane, a, &params[p], w, g, scale, scratch);
            continue;
        }
        while (lane_take(lane, params[p].rows * params[p].cols, ELEMENTS_AT_ONCE, &first, &end)) {
            size_t at = params[p].offset + first;
            adamw_run(a, params[p].decay ? a->decay : 0, w + at, g + at, a->m + at, a->v + at, end - first,
                      scale);
        }
    }
    lane_barrier(lane);
}

size_t gradient_norm_scratch_bytes(size_t len)
{
    return align_bytes((len + NORM_PIECE - 1) / NORM_PIECE * sizeof(double));
}

double gradient_norm(struct lane *lane, const float *g, size_t len, void *scratch)
{
    size_t pieces = (len + NORM_PIECE - 1) / NORM_PIECE, first, end;
    double *sums = scratch, total = 0;
    while (lane_take(lane, pieces, 1, &first, &end)) {
        size_t from = first * NORM_PIECE;
        sums[first] = tensor_sum_squares(lane->kernels, g + from, least(NORM_PIECE, len - from));
    }
    lane_barrier(lane);
    for (size_t p = 0; p < pieces; p++)
        total += sums[p];
    lane_barrier(lane); /* the scratch is free again */
    return sqrt(total);
}

float clip_scale(double norm, double norm_max)
{
    return norm_max > 0 && norm > norm_max ? (float)(norm_max / norm) : 1;
}

/* The share of the way from peak to floor that is still to go. */
static double left_of_fall(const struct schedule *s, uint64_t step)
{
    bool cosine = s->kind == SCHEDULE_COSINE;
    uint64_t fall = cosine ? s->steps - s->warmup : s->cooldown < s->steps ? s->cooldown : s->steps;
    if (step <= s->steps - fall)
        return 1;
    double done = (double)(step - (s->steps - fall)) / (double)fall;
    return cosine                       ? 0.5 * (1 + cos(3.14159265358979323846 * done))
           : s->kind == SCHEDULE_LINEAR ? 1 - done
                                        : 1 - sqrt(done);
}

double schedule_rate(const struct schedule *s, uint64_t step)
{
    if (step < s->warmup)
        return s->peak * (double)step / (double)s->warmup;
    bool falls = s->kind == SCHEDULE_COSINE ? s->steps > s->warmup : s->cooldown > 0;
    if (step >= s->steps)
        return falls ? s->floor : s->peak;
    return s->floor + (s->peak - s->floor) * left_of_fall(s, step);
}
