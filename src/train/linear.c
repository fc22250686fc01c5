/* Embedding and linear layers.
 *
 * Sums over rows (a token's gradient, a bias's) are shared out by columns, so that each element of the result
 * is one lane's and is added up in the order of the rows (L3). */
#include <string.h>

#include "train/train_int.h"

/* ---- Embedding ---- */

void embedding_forward(struct lane *lane, const struct embedding *e, const int32_t *tokens, size_t rows,
                       float *y)
{
    size_t first, end;
    while (lane_take(lane, rows, rows_at_once(e->d), &first, &end))
        for (size_t r = first; r < end; r++)
            memcpy(y + r * e->d, e->w + (size_t)tokens[r] * e->d, e->d * sizeof *y);
    lane_barrier(lane);
}

void embedding_backward(struct lane *lane, const struct embedding *e, const int32_t *tokens, const float *dy,
                        size_t rows)
{
    size_t first, end;
    while (e->dw && lane_take(lane, e->d, COLUMNS_AT_ONCE, &first, &end))
        for (size_t r = 0; r < rows; r++)
            tensor_add(lane->kernels, e->dw + (size_t)tokens[r] * e->d + first, dy + r * e->d + first,
                       end - first);
    lane_barrier(lane);
}

/* ---- Linear ---- */

size_t linear_scratch_bytes(size_t in, size_t out, size_t rows)
{
    size_t widest = most(in, out), deepest = most(widest, rows);
    return align_bytes(tensor_product_workspace_bytes(most(rows, out), widest, deepest));
}

static size_t stride_of(const struct linear *l)
{
    return l->y_stride ? l->y_stride : l->out;
}

static void add_bias(struct lane *lane, const struct linear *l, size_t rows, float *y)
{
    size_t first, end;
    while (lane_take(lane, rows, rows_at_once(l->out), &first, &end))
        for (size_t r = first; r < end; r++)
            tensor_add(lane->kernels, y + r * stride_of(l), l->bias, l->out);
    lane_barrier(lane);
}

void linear_forward(struct lane *lane, const struct linear *l, const float *x, size_t rows, float *y,
                    void *scratch)
{
    struct product p = {.m = rows,
                        .n = l->out,
                        .k = l->in,
                        .a = x,
                        .b = l->w,
                        .c = y,
                        .a_stride = l->in,
                        .b_stride = l->in,
                        .c_stride = stride_of(l),
                        .b_transposed = true,
                        .bf16 = l->bf16,
                        .workspace = scratch};
    tensor_product(lane, &p);
    if (l->bias)
        add_bias(lane, l, rows, y);
}

static void backward_weights(struct lane *lane, const struct linear *l, const float *x, const float *dy,
                             size_t rows, void *scratch)
{
    struct product p = {.m = l->out,
                        .n = l->in,
                        .k = rows,
                        .a = dy,
                        .b = x,
                        .c = l->dw,
                        .a_stride = stride_of(l),
                        .b_stride = l->in,
                        .c_stride = l->in,
                        .a_transposed = true,
                        .accumulate = true,
                        .bf16 = l->bf16,
                        .workspace = scratch};
    tensor_product(lane, &p);
}

static void backward_input(struct lane *lane, const struct linear *l, const float *dy, size_t rows, float *dx,
                           bool add, void *scratch)
{
    struct product p = {.m = rows,
                        .n = l->in,
                        .k = l->out,
                        .a = dy,
                        .b = l->w,
                        .c = dx,
                        .a_stride = stride_of(l),
                        .b_stride = l->in,
                        .c_stride = l->in,
                        .accumulate = add,
                        .bf16 = l->bf16,
                        .workspace = scratch};
    tensor_product(lane, &p);
}

void linear_backward(struct lane *lane, const struct linear *l, const float *x, const float *dy, size_t rows,
                     float *dx, bool add, void *scratch)
{
    size_t first, end;
    if (l->dw)
        backward_weights(lane, l, x, dy, rows, scratch);
    if (dx)
        backward_input(lane, l, dy, rows, dx, add, scratch);
    while (l->dbias && lane_take(lane, l->out, COLUMNS_AT_ONCE, &first, &end))
        for (size_t r = 0; r < rows; r++)
            tensor_add(lane->kernels, l->dbias + first, dy + r * stride_of(l) + first, end - first);
    lane_barrier(lane);
}
