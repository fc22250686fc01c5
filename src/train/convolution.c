/* Convolution along time, full and of each channel by itself.
 *
 * Full: the inputs that one output sees are gathered side by side (columns), so that the layer is a linear
 * one; its gradient scatters columns back. Sequences are gathered one at a time, which bounds the scratch by
 * one sequence whatever the batch. Per channel (`depthwise`): direct sums; each lane owns channels of the
 * parameters' gradients (L3). */
#include <string.h>

#include "train/train_int.h"

/* The input position that tap k of output t reads; out of [0, time): zero. */
static bool tap(const struct convolution *c, size_t t, size_t k, size_t *s)
{
    *s = t * c->stride + k - c->pad;
    return t * c->stride + k >= c->pad && *s < c->time;
}

static size_t gathered_bytes(const struct convolution *c)
{
    return align_bytes(c->time_out * c->kernel * c->in * sizeof(float));
}

size_t convolution_scratch_bytes(const struct convolution *c)
{
    if (c->depthwise)
        return 0;
    return linear_scratch_bytes(c->kernel * c->in, c->out, c->time_out) + 2 * gathered_bytes(c);
}

/* ---- Full ---- */

static struct linear as_linear(const struct convolution *c)
{
    return (struct linear){.in = c->kernel * c->in,
                           .out = c->out,
                           .w = c->w,
                           .bias = c->bias,
                           .dw = c->dw,
                           .dbias = c->dbias,
                           .bf16 = c->bf16};
}

static void gather(struct lane *lane, const struct convolution *c, const float *x, float *columns)
{
    size_t first, end, s;
    while (lane_take(lane, c->time_out, rows_at_once(c->kernel * c->in), &first, &end)) {
        for (size_t i = first * c->kernel; i < end * c->kernel; i++) {
            if (tap(c, i / c->kernel, i % c->kernel, &s))
                memcpy(columns + i * c->in, x + s * c->in, c->in * sizeof *x);
            else
                memset(columns + i * c->in, 0, c->in * sizeof *x);
        }
    }
    lane_barrier(lane);
}

/* Each lane owns input channels, and adds to them in the order of the outputs. */
static void scatter(struct lane *lane, const struct convolution *c, const float *columns, float *dx)
{
    size_t first, end, s;
    while (lane_take(lane, c->in, COLUMNS_AT_ONCE, &first, &end)) {
        for (size_t t = 0; t < c->time; t++)
            memset(dx + t * c->in + first, 0, (end - first) * sizeof *dx);
        for (size_t i = 0; i < c->time_out * c->kernel; i++)
            if (tap(c, i / c->kernel, i % c->kernel, &s))
                tensor_add(lane->kernels, dx + s * c->in + first, columns + i * c->in + first, end - first);
    }
    lane_barrier(lane);
}

static void full_forward(struct lane *lane, const struct convolution *c, const float *x, float *y,
                         void *scratch)
{
    struct linear l = as_linear(c);
    float *columns = (float *)(void *)((uint8_t *)scratch + linear_scratch_bytes(l.in, l.out, c->time_out));
    for (size_t b = 0; b < c->batch; b++) {
        gather(lane, c, x + b * c->time * c->in, columns);
        linear_forward(lane, &l, columns, c->time_out, y + b * c->time_out * c->out, scratch);
    }
}

static void full_backward(struct lane *lane, const struct convolution *c, const float *x, const float *dy,
                          float *dx, void *scratch)
{
    struct linear l = as_linear(c);
    uint8_t *place = (uint8_t *)scratch + linear_scratch_bytes(l.in, l.out, c->time_out);
    float *columns = (float *)(void *)place, *d_columns = (float *)(void *)(place + gathered_bytes(c));
    for (size_t b = 0; b < c->batch; b++) {
        gather(lane, c, x + b * c->time * c->in, columns);
        linear_backward(lane, &l, columns, dy + b * c->time_out * c->out, c->time_out, dx ? d_columns : NULL,
                        false, scratch);
        if (dx)
            scatter(lane, c, d_columns, dx + b * c->time * c->in);
    }
}

/* ---- Each channel by itself ---- */

static void depthwise_forward(struct lane *lane, const struct convolution *c, const float *x, float *y)
{
    size_t first, end, s, d = c->in;
    while (lane_take(lane, c->batch * c->time_out, rows_at_once(d * c->kernel), &first, &end)) {
        for (size_t row = first; row < end; row++) {
            const float *in = x + row / c->time_out * c->time * d;
            float *out = y + row * d;
            for (size_t i = 0; i < d; i++)
                out[i] = c->bias ? c->bias[i] : 0;
            for (size_t k = 0; k < c->kernel; k++) {
                size_t seen = tap(c, row % c->time_out, k, &s) ? d : 0;
                for (size_t i = 0; i < seen; i++)
                    out[i] += c->w[i * c->kernel + k] * in[s * d + i];
            }
        }
    }
    lane_barrier(lane);
}

/* Channels [first, end) of one output row's gradient. */
static void depthwise_row(const struct convolution *c, const float *x, const float *dy, size_t t,
                          size_t first, size_t end, float *dx)
{
    size_t s, d = c->in;
    for (size_t i = first; c->dbias && i < end; i++)
        c->dbias[i] += dy[i];
    for (size_t k = 0; k < c->kernel; k++) {
        if (!tap(c, t, k, &s))
            continue;
        for (size_t i = first; c->dw && i < end; i++)
            c->dw[i * c->kernel + k] += dy[i] * x[s * d + i];
        for (size_t i = first; dx && i < end; i++)
            dx[s * d + i] += dy[i] * c->w[i * c->kernel + k];
    }
}

static void depthwise_backward(struct lane *lane, const struct convolution *c, const float *x,
                               const float *dy, float *dx)
{
    size_t first, end, d = c->in;
    while (lane_take(lane, d, COLUMNS_AT_ONCE, &first, &end)) {
        for (size_t row = 0; dx && row < c->batch * c->time; row++)
            memset(dx + row * d + first, 0, (end - first) * sizeof *dx);
        for (size_t row = 0; row < c->batch * c->time_out; row++) {
            size_t at = row / c->time_out * c->time * d;
            depthwise_row(c, x + at, dy + row * d, row % c->time_out, first, end, dx ? dx + at : NULL);
        }
    }
    lane_barrier(lane);
}

void convolution_forward(struct lane *lane, const struct convolution *c, const float *x, float *y,
                         void *scratch)
{
    if (c->depthwise)
        depthwise_forward(lane, c, x, y);
    else
        full_forward(lane, c, x, y, scratch);
}

void convolution_backward(struct lane *lane, const struct convolution *c, const float *x, const float *dy,
                          float *dx, void *scratch)
{
    if (c->depthwise)
        depthwise_backward(lane, c, x, dy, dx);
    else
        full_backward(lane, c, x, dy, dx, scratch);
}
