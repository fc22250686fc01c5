/* Rotary position embedding: the rotation by a table of cosines and sines, and back. */
#include <math.h>

#include "train/train_int.h"

void rotary_table(float *table, size_t time, size_t head_dim, double base)
{
    size_t pairs = head_dim / 2;
    for (size_t t = 0; t < time; t++) {
        for (size_t i = 0; i < pairs; i++) {
            double angle = (double)t * pow(base, -2.0 * (double)i / (double)head_dim);
            table[(t * pairs + i) * 2] = (float)cos(angle);
            table[(t * pairs + i) * 2 + 1] = (float)sin(angle);
        }
    }
}

static void rotate_rows(struct lane *lane, const struct rotary *r, bool back, float *x, size_t rows)
{
    size_t first, end, width = r->heads * r->head_dim, stride = r->stride ? r->stride : width;
    while (lane_take(lane, rows, rows_at_once(width), &first, &end))
        for (size_t row = first; row < end; row++)
            for (size_t h = 0; h < r->heads; h++)
                tensor_rotate(lane->kernels, x + row * stride + h * r->head_dim,
                              r->table + row % r->time * r->head_dim, r->head_dim / 2, r->neox, back);
    lane_barrier(lane);
}

void rotary_forward(struct lane *lane, const struct rotary *r, float *x, size_t rows)
{
    rotate_rows(lane, r, false, x, rows);
}

void rotary_backward(struct lane *lane, const struct rotary *r, float *dx, size_t rows)
{
    rotate_rows(lane, r, true, dx, rows);
}
