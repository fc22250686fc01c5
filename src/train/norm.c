/* RMSNorm and LayerNorm: y = (x - mean) * inverse * w + bias, where RMSNorm has mean 0.
 *
 * With xhat = (x - mean) * inverse and g = dy * w, both have
 *   dx = inverse * (g - mean(g) - xhat * mean(g * xhat)),
 * RMSNorm without the middle term. stats keep mean and inverse of each row. */
#include <math.h>

#include "train/train_int.h"

static void row_stats(const struct norm *n, const float *x, float *stats)
{
    double sum = 0, squares = 0, mean;
    for (size_t i = 0; n->centred && i < n->d; i++)
        sum += (double)x[i];
    mean = sum / (double)n->d;
    for (size_t i = 0; i < n->d; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    stats[0] = (float)mean;
    stats[1] = (float)(1 / sqrt(squares / (double)n->d + (double)n->eps));
}

void norm_forward(struct lane *lane, const struct norm *n, const float *x, size_t rows, float *y,
                  float *stats)
{
    size_t first, end;
    while (lane_take(lane, rows, rows_at_once(n->d), &first, &end)) {
        for (size_t r = first; r < end; r++) {
            const float *in = x + r * n->d;
            float *out = y + r * n->d, *s = stats + 2 * r;
            row_stats(n, in, s);
            for (size_t i = 0; i < n->d; i++)
                out[i] = (in[i] - s[0]) * s[1] * n->w[i];
            if (n->bias)
                tensor_add(lane->kernels, out, n->bias, n->d);
        }
    }
    lane_barrier(lane);
}

static void backward_row(const struct norm *n, const float *x, const float *s, const float *dy, float *dx,
                         bool add)
{
    double sum = 0, along = 0;
    for (size_t i = 0; i < n->d; i++) {
        double g = (double)dy[i] * (double)n->w[i];
        sum += g;
        along += g * (double)(x[i] - s[0]);
    }
    float mean = n->centred ? (float)(sum / (double)n->d) : 0;
    float slope = (float)(along * (double)s[1] * (double)s[1] / (double)n->d);
    for (size_t i = 0; i < n->d; i++) {
        float grad = s[1] * (dy[i] * n->w[i] - mean - (x[i] - s[0]) * slope);
        dx[i] = add ? dx[i] + grad : grad;
    }
}

static void backward_columns(const struct norm *n, const float *x, const float *stats, const float *dy,
                             size_t rows, size_t first, size_t end)
{
    for (size_t r = 0; r < rows; r++) {
        const float *in = x + r * n->d, *grad = dy + r * n->d, *s = stats + 2 * r;
        for (size_t i = first; n->dw && i < end; i++)
            n->dw[i] += grad[i] * (in[i] - s[0]) * s[1];
        for (size_t i = first; n->dbias && i < end; i++)
            n->dbias[i] += grad[i];
    }
}

void norm_backward(struct lane *lane, const struct norm *n, const float *x, const float *stats,
                   const float *dy, size_t rows, float *dx, bool add)
{
    size_t first, end;
    while ((n->dw || n->dbias) && lane_take(lane, n->d, COLUMNS_AT_ONCE, &first, &end))
        backward_columns(n, x, stats, dy, rows, first, end);
    lane_barrier(lane); /* dx may be dy */
    while (dx && lane_take(lane, rows, rows_at_once(n->d), &first, &end))
        for (size_t r = first; r < end; r++)
            backward_row(n, x + r * n->d, stats + 2 * r, dy + r * n->d, dx + r * n->d, add);
    lane_barrier(lane);
}
