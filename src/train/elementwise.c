/* SwiGLU, SiLU, GELU, residual sums: each element by itself, shared out in runs. */
#include <string.h>

#include "train/train_int.h"

/* The runs of a row's part lie in no other row: a place in [0, rows * width) and how far it goes on. */
struct stretch {
    size_t dense, strided, len;
};

static struct stretch stretch_at(const struct swiglu *s, size_t at, size_t end)
{
    size_t row = at / s->width, column = at % s->width, stride = s->stride ? s->stride : s->width;
    size_t len = stride == s->width ? end - at : least(end - at, s->width - column);
    return (struct stretch){.dense = at, .strided = row * stride + column, .len = len};
}

void swiglu_forward(struct lane *lane, const struct swiglu *s, const float *gate, const float *up, float *y)
{
    size_t first, end;
    while (lane_take(lane, s->rows * s->width, ELEMENTS_AT_ONCE, &first, &end)) {
        while (first < end) {
            struct stretch t = stretch_at(s, first, end);
            tensor_swiglu(lane->kernels, gate + t.strided, up + t.strided, y + t.dense, t.len);
            first += t.len;
        }
    }
    lane_barrier(lane);
}

void swiglu_backward(struct lane *lane, const struct swiglu *s, const float *gate, const float *up,
                     const float *dy, float *dgate, float *dup)
{
    size_t first, end;
    while (lane_take(lane, s->rows * s->width, ELEMENTS_AT_ONCE, &first, &end)) {
        while (first < end) {
            struct stretch t = stretch_at(s, first, end);
            tensor_swiglu_backward(lane->kernels, gate + t.strided, up + t.strided, dy + t.dense,
                                   dgate + t.strided, dup + t.strided, t.len);
            first += t.len;
        }
    }
    lane_barrier(lane);
}

void silu_forward(struct lane *lane, const float *x, size_t len, float *y)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end)) {
        memcpy(y + first, x + first, (end - first) * sizeof *y);
        tensor_silu(lane->kernels, y + first, end - first);
    }
    lane_barrier(lane);
}

void silu_backward(struct lane *lane, const float *x, const float *dy, size_t len, float *dx)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        tensor_silu_backward(lane->kernels, x + first, dy + first, dx + first, end - first);
    lane_barrier(lane);
}

void gelu_forward(struct lane *lane, const float *x, size_t len, float *y)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        tensor_gelu_exact(lane->kernels, x + first, y + first, end - first);
    lane_barrier(lane);
}

void gelu_backward(struct lane *lane, const float *x, const float *dy, size_t len, float *dx)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        tensor_gelu_backward(lane->kernels, x + first, dy + first, dx + first, end - first);
    lane_barrier(lane);
}

void residual_add(struct lane *lane, float *y, const float *x, size_t len)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        tensor_add(lane->kernels, y + first, x + first, end - first);
    lane_barrier(lane);
}
