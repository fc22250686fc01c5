/* SwiGLU, SiLU, GELU, residual sums: each element by itself, shared out in runs. */
#include <string.h>

#include "train/train_int.h"

void swiglu_forward(struct lane *lane, const float *gate, const float *up, size_t len, float *y)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        tensor_swiglu(lane->kernels, gate + first, up + first, y + first, end - first);
    lane_barrier(lane);
}

void swiglu_backward(struct lane *lane, const float *gate, const float *up, const float *dy, size_t len,
                     float *dgate, float *dup)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        tensor_swiglu_backward(lane->kernels, gate + first, up + first, dy + first, dgate + first,
                               dup + first, end - first);
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
