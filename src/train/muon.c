/* Muon (Jordan et al. 2024): the momentum of a matrix is replaced by the nearest orthogonal one, so that all
 * its directions are learnt at the same pace. Five steps of a Newton-Schulz iteration come near enough; its
 * products run in BF16, as its authors do. The step's size is matched to AdamW's, 0.2 sqrt(longer side), so
 * that one rate and one decay serve both (Liu et al. 2025). */
#include <math.h>

#include "train/train_int.h"

#define ITERATIONS 5
#define MOMENTUM 0.95f
#define MATCHED 0.2f

struct shape {
    size_t rows, cols, side; /* side: the shorter one */
    bool tall;
};

/* One matrix's scratch, in this order. */
struct working {
    float *x, *y;       /* [rows][cols] */
    float *gram, *poly; /* [side][side] */
    void *products;
};

static struct shape shape_of(const struct param *p)
{
    return (struct shape){
        .rows = p->rows, .cols = p->cols, .side = least(p->rows, p->cols), .tall = p->rows > p->cols};
}

static size_t matrix_bytes(size_t rows, size_t cols)
{
    return align_bytes(rows * cols * sizeof(float));
}

static size_t products_bytes(const struct shape *s)
{
    size_t longest = most(s->rows, s->cols);
    return align_bytes(most(tensor_product_workspace_bytes(s->rows, s->cols, s->side),
                            tensor_product_workspace_bytes(s->side, s->side, longest)));
}

static struct working working_of(const struct shape *s, void *scratch)
{
    uint8_t *at = scratch;
    size_t whole = matrix_bytes(s->rows, s->cols), square = matrix_bytes(s->side, s->side);
    return (struct working){.x = (float *)(void *)at,
                            .y = (float *)(void *)(at + whole),
                            .gram = (float *)(void *)(at + 2 * whole),
                            .poly = (float *)(void *)(at + 2 * whole + square),
                            .products = at + 2 * whole + 2 * square};
}

size_t muon_scratch_bytes(const struct param *params, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        struct shape s = shape_of(&params[i]);
        size_t sums = gradient_norm_scratch_bytes(s.rows * s.cols);
        if (params[i].hidden)
            bytes = most(bytes, 2 * matrix_bytes(s.rows, s.cols) + 2 * matrix_bytes(s.side, s.side) +
                                    most(products_bytes(&s), sums));
    }
    return bytes;
}

/* x = momentum, looking one step ahead (Nesterov). */
static void take_momentum(struct lane *lane, const float *g, float scale, float *m, float *x, size_t len)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end)) {
        for (size_t i = first; i < end; i++) {
            float grad = g[i] * scale;
            m[i] = MOMENTUM * m[i] + (1 - MOMENTUM) * grad;
            x[i] = MOMENTUM * m[i] + (1 - MOMENTUM) * grad;
        }
    }
    lane_barrier(lane);
}

/* y = a x + b y */
static void blend(struct lane *lane, float a, const float *x, float b, float *y, size_t len)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end))
        for (size_t i = first; i < end; i++)
            y[i] = a * x[i] + b * y[i];
    lane_barrier(lane);
}

static void multiply(struct lane *lane, const struct working *k, struct product p)
{
    p.bf16 = true;
    p.workspace = k->products;
    tensor_product(lane, &p);
}

/* y = a x + (b G + c G G) x, where G = x x^T; of a tall matrix the same from the other side. */
static void iterate(struct lane *lane, const struct shape *s, const struct working *k)
{
    static const float a = 3.4445f, b = -4.7750f, c = 2.0315f; /* Jordan et al. 2024 */
    size_t side = s->side, cols = s->cols;
    multiply(lane, k,
             (struct product){.m = side,
                              .n = side,
                              .k = s->tall ? s->rows : cols,
                              .a = k->x,
                              .b = k->x,
                              .c = k->gram,
                              .a_stride = cols,
                              .b_stride = cols,
                              .c_stride = side,
                              .a_transposed = s->tall,
                              .b_transposed = !s->tall});
    multiply(lane, k,
             (struct product){.m = side,
                              .n = side,
                              .k = side,
                              .a = k->gram,
                              .b = k->gram,
                              .c = k->poly,
                              .a_stride = side,
                              .b_stride = side,
                              .c_stride = side});
    blend(lane, b, k->gram, c, k->poly, side * side);
    multiply(lane, k,
             (struct product){.m = s->rows,
                              .n = cols,
                              .k = side,
                              .a = s->tall ? k->x : k->poly,
                              .b = s->tall ? k->poly : k->x,
                              .c = k->y,
                              .a_stride = s->tall ? cols : side,
                              .b_stride = s->tall ? side : cols,
                              .c_stride = cols});
    blend(lane, a, k->x, 1, k->y, s->rows * cols);
}

void muon_step(struct lane *lane, const struct adamw *a, const struct param *param, float *w, const float *g,
               float scale, void *scratch)
{
    struct shape s = shape_of(param);
    struct working k = working_of(&s, scratch);
    size_t len = s.rows * s.cols, at = param->offset;
    take_momentum(lane, g + at, scale, a->m + at, k.x, len);
    double norm = gradient_norm(lane, k.x, len, k.products);
    blend(lane, 0, k.x, norm > 0 ? (float)(1 / norm) : 0, k.x, len);
    for (int i = 0; i < ITERATIONS; i++) {
        iterate(lane, &s, &k);
        float *x = k.x;
        k.x = k.y;
        k.y = x;
    }
    blend(lane, -a->rate * MATCHED * sqrtf((float)most(s.rows, s.cols)), k.x, 1 - a->rate * a->decay, w + at,
          len);
}
