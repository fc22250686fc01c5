/* RMSNorm and LayerNorm: y = (x - mean) * inverse * w + bias, where RMSNorm has mean 0.
 * stats keep mean and inverse of each row. */
#include "train/train_int.h"

#define NORM_ROWS (SUM_ROWS / 4) /* sums over so many at a time */
#define NORM_COLUMNS (4 * COLUMNS_AT_ONCE)

static struct norm_row row_of(const struct norm *n)
{
    return (struct norm_row){.len = n->d, .eps = n->eps, .centred = n->centred, .w = n->w, .bias = n->bias};
}

void norm_forward(struct lane *lane, const struct norm *n, const float *x, size_t rows, float *y,
                  float *stats)
{
    size_t first, end;
    struct norm_row row = row_of(n);
    while (lane_take(lane, rows, rows_at_once(n->d), &first, &end))
        for (size_t r = first; r < end; r++)
            tensor_norm_row(lane->kernels, &row, x + r * n->d, y + r * n->d, stats + 2 * r);
    lane_barrier(lane);
}

void norm_backward(struct lane *lane, const struct norm *n, const float *x, const float *stats,
                   const float *dy, size_t rows, float *dx, bool add)
{
    size_t first, end;
    struct norm_row row = row_of(n);
    while ((n->dw || n->dbias) && lane_take(lane, n->d, NORM_COLUMNS, &first, &end))
        for (size_t r = 0; r < rows; r += NORM_ROWS)
            tensor_norm_columns(lane->kernels, x + r * n->d + first, stats + 2 * r, dy + r * n->d + first,
                                least(NORM_ROWS, rows - r), n->d, end - first, n->dw ? n->dw + first : NULL,
                                n->dbias ? n->dbias + first : NULL);
    lane_barrier(lane); /* dx may be dy */
    while (dx && lane_take(lane, rows, rows_at_once(n->d), &first, &end))
        for (size_t r = first; r < end; r++)
            tensor_norm_row_backward(lane->kernels, &row, x + r * n->d, stats + 2 * r, dy + r * n->d,
                                     dx + r * n->d, add);
    lane_barrier(lane);
}
