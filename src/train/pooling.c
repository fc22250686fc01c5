/* Pooling a sequence into one vector: the mean, or a sum weighted by the softmax of a learned score (Hassani
 * et al. 2021). A sequence belongs to one lane; parameters' gradients run over sequences in order (L3). */
#include <string.h>

#include "train/train_int.h"

void mean_pool_forward(struct lane *lane, const float *x, size_t batch, size_t time, size_t d, float *y)
{
    size_t b, end;
    while (lane_take(lane, batch, 1, &b, &end)) {
        memset(y + b * d, 0, d * sizeof *y);
        for (size_t t = 0; t < time; t++)
            tensor_axpy(lane->kernels, y + b * d, 1 / (float)time, x + (b * time + t) * d, d);
    }
    lane_barrier(lane);
}

void mean_pool_backward(struct lane *lane, const float *dy, size_t batch, size_t time, size_t d, float *dx)
{
    size_t first, end;
    while (lane_take(lane, batch * time, rows_at_once(d), &first, &end)) {
        for (size_t row = first; row < end; row++) {
            memcpy(dx + row * d, dy + row / time * d, d * sizeof *dx);
            tensor_scale(lane->kernels, dx + row * d, 1 / (float)time, d);
        }
    }
    lane_barrier(lane);
}

void softmax_pool_forward(struct lane *lane, const struct softmax_pool *p, const float *x, float *y,
                          float *shares)
{
    size_t b, end, d = p->d;
    while (lane_take(lane, p->batch, 1, &b, &end)) {
        const float *in = x + b * p->time * d;
        float *share = shares + b * p->time;
        for (size_t t = 0; t < p->time; t++)
            share[t] = tensor_dot(lane->kernels, in + t * d, p->w, d);
        tensor_softmax(lane->kernels, share, p->time);
        memset(y + b * d, 0, d * sizeof *y);
        for (size_t t = 0; t < p->time; t++)
            tensor_axpy(lane->kernels, y + b * d, share[t], in + t * d, d);
    }
    lane_barrier(lane);
}

/* The gradient of score t is share_t (dy . x_t - sum of share dy . x) = share_t dy . (x_t - y). */
void softmax_pool_backward(struct lane *lane, const struct softmax_pool *p, const float *x, const float *y,
                           const float *shares, const float *dy, float *dx, void *scratch)
{
    size_t b, first, end, d = p->d;
    float *d_scores = scratch;
    while (lane_take(lane, p->batch, 1, &b, &end)) {
        float mean = tensor_dot(lane->kernels, dy + b * d, y + b * d, d);
        for (size_t row = b * p->time; row < end * p->time; row++) {
            d_scores[row] = shares[row] * (tensor_dot(lane->kernels, dy + b * d, x + row * d, d) - mean);
            if (!dx)
                continue;
            memset(dx + row * d, 0, d * sizeof *dx);
            tensor_axpy(lane->kernels, dx + row * d, shares[row], dy + b * d, d);
            tensor_axpy(lane->kernels, dx + row * d, d_scores[row], p->w, d);
        }
    }
    lane_barrier(lane);
    while (p->dw && lane_take(lane, d, COLUMNS_AT_ONCE, &first, &end))
        for (size_t row = 0; row < p->batch * p->time; row++)
            tensor_axpy(lane->kernels, p->dw + first, d_scores[row], x + row * d + first, end - first);
    lane_barrier(lane);
}

size_t softmax_pool_scratch_bytes(const struct softmax_pool *p)
{
    return align_bytes(p->batch * p->time * sizeof(float));
}
