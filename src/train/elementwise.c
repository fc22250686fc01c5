/* SwiGLU, GELU, residual sums: each element by itself, shared out in runs.
 *
 * silu(x) = x sigmoid(x) comes from tensor's vector kernel; sigmoid is taken from it as silu(x) / x, and
 * silu'(x) = sigmoid(x) + silu(x) (1 - sigmoid(x)). */
#include <math.h>
#include <string.h>

#include "train/train_int.h"

#define PIECE ((size_t)256)

void swiglu_forward(struct lane *lane, const float *gate, const float *up, size_t len, float *y)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end)) {
        memcpy(y + first, gate + first, (end - first) * sizeof *y);
        tensor_silu_mul(lane->kernels, y + first, up + first, end - first);
    }
    lane_barrier(lane);
}

static float slope_of_silu(float x, float silu)
{
    float sigmoid = fabsf(x) < 1e-30f ? 0.5f : silu / x;
    return sigmoid + silu * (1 - sigmoid);
}

static void swiglu_piece(const struct kernels *kernels, const float *gate, const float *up, const float *dy,
                         size_t len, float *dgate, float *dup)
{
    float silu[PIECE];
    memcpy(silu, gate, len * sizeof *silu);
    tensor_silu(kernels, silu, len);
    for (size_t i = 0; i < len; i++) {
        float grad = dy[i], other = up[i];
        dgate[i] = grad * other * slope_of_silu(gate[i], silu[i]);
        dup[i] = grad * silu[i];
    }
}

static void silu_piece(const struct kernels *kernels, const float *x, const float *dy, size_t len, float *dx)
{
    float silu[PIECE];
    memcpy(silu, x, len * sizeof *silu);
    tensor_silu(kernels, silu, len);
    for (size_t i = 0; i < len; i++)
        dx[i] = dy[i] * slope_of_silu(x[i], silu[i]);
}

void swiglu_backward(struct lane *lane, const float *gate, const float *up, const float *dy, size_t len,
                     float *dgate, float *dup)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        for (size_t i = first; i < end; i += PIECE)
            swiglu_piece(lane->kernels, gate + i, up + i, dy + i, least(PIECE, end - i), dgate + i, dup + i);
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
        for (size_t i = first; i < end; i += PIECE)
            silu_piece(lane->kernels, x + i, dy + i, least(PIECE, end - i), dx + i);
    lane_barrier(lane);
}

#define GELU_SCALE 0.797884560802865355879892119868763737f /* sqrt(2 / pi) */
#define GELU_CUBE 0.044715f

void gelu_forward(struct lane *lane, const float *x, size_t len, float *y)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        for (size_t i = first; i < end; i++)
            y[i] = 0.5f * x[i] * (1 + tanhf(GELU_SCALE * (x[i] + GELU_CUBE * x[i] * x[i] * x[i])));
    lane_barrier(lane);
}

void gelu_backward(struct lane *lane, const float *x, const float *dy, size_t len, float *dx)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end)) {
        for (size_t i = first; i < end; i++) {
            float t = tanhf(GELU_SCALE * (x[i] + GELU_CUBE * x[i] * x[i] * x[i]));
            float inner = GELU_SCALE * (1 + 3 * GELU_CUBE * x[i] * x[i]);
            dx[i] = dy[i] * 0.5f * (1 + t + x[i] * (1 - t * t) * inner);
        }
    }
    lane_barrier(lane);
}

void residual_add(struct lane *lane, float *y, const float *x, size_t len)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        tensor_add(lane->kernels, y + first, x + first, end - first);
    lane_barrier(lane);
}
