/* The Mamba block, composed of linear layers, a depthwise convolution, the scan and a gate.
 *
 * Parts of a product's outputs (x and z; the low-rank delta, B and C) are products with slices of the same
 * matrix, so that nothing is copied apart. Kept for backward: every product's inputs, the scan's states. */
#include <math.h>

#include "base/clock.h"
#include "train/train_int.h"

struct mamba_layout mamba_layout(const struct mamba *m)
{
    struct mamba_layout l = {0};
    const struct {
        size_t *offset, count;
    } parts[] = {{&l.in_proj, 2 * m->inner * m->d}, {&l.conv, m->inner * m->kernel},
                 {&l.conv_bias, m->inner},          {&l.x_proj, (m->rank + 2 * m->states) * m->inner},
                 {&l.dt_proj, m->inner * m->rank},  {&l.dt_bias, m->inner},
                 {&l.a_log, m->inner * m->states},  {&l.skip, m->inner},
                 {&l.out_proj, m->d * m->inner}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].offset = l.len;
        l.len += parts[i].count;
    }
    return l;
}

/* ---- First weights ---- */

static void fill_uniform(struct rng *rng, float *w, size_t len, size_t inputs)
{
    float bound = 1 / sqrtf((float)inputs);
    for (size_t i = 0; i < len; i++)
        w[i] = bound * (2 * rng_float(rng) - 1);
}

void mamba_init_weights(const struct mamba *m, uint64_t seed, float *w)
{
    struct mamba_layout l = mamba_layout(m);
    struct rng rng;
    rng_init(&rng, seed);
    fill_uniform(&rng, w + l.in_proj, l.conv - l.in_proj, m->d);
    fill_uniform(&rng, w + l.conv, l.x_proj - l.conv, m->kernel);
    fill_uniform(&rng, w + l.x_proj, l.dt_proj - l.x_proj, m->inner);
    fill_uniform(&rng, w + l.dt_proj, l.dt_bias - l.dt_proj, m->rank);
    fill_uniform(&rng, w + l.out_proj, l.len - l.out_proj, m->inner);
    for (size_t i = 0; i < m->inner; i++) {
        double step = exp(log(0.001) + rng_double(&rng) * (log(0.1) - log(0.001)));
        w[l.dt_bias + i] = (float)log(expm1(step));
        w[l.skip + i] = 1;
        for (size_t n = 0; n < m->states; n++)
            w[l.a_log + i * m->states + n] = logf((float)(n + 1));
    }
}

/* ---- Memory ---- */

struct kept {
    float *x, *z, *convolved, *active, *low, *b, *c, *delta, *scanned, *gated, *states;
};

/* Pieces of `place` in turn; returns floats in all. Each begins on a cache line. */
static size_t divide(float *place, float **parts[], const size_t lens[], size_t count)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        *parts[i] = place ? place + used : NULL;
        used += align_bytes(lens[i] * sizeof(float)) / sizeof(float);
    }
    return used;
}

static struct scan_layer scan_of(const struct mamba *m, const struct mamba_layout *l)
{
    return (struct scan_layer){.batch = m->batch,
                               .time = m->time,
                               .channels = m->inner,
                               .states = m->states,
                               .a_log = m->w + l->a_log,
                               .skip = m->w + l->skip,
                               .da_log = m->dw ? m->dw + l->a_log : NULL,
                               .dskip = m->dw ? m->dw + l->skip : NULL};
}

static size_t divide_kept(const struct mamba *m, float *place, struct kept *k)
{
    size_t rows = m->batch * m->time, wide = rows * m->inner, few = rows * m->states;
    struct scan_layer s = {.batch = m->batch, .time = m->time, .channels = m->inner, .states = m->states};
    float **parts[] = {&k->x, &k->z,     &k->convolved, &k->active, &k->low,   &k->b,
                       &k->c, &k->delta, &k->scanned,   &k->gated,  &k->states};
    const size_t lens[] = {wide, wide, wide, wide, rows * m->rank,   few,
                           few,  wide, wide, wide, scan_kept_len(&s)};
    return divide(place, parts, lens, sizeof lens / sizeof *lens);
}

size_t mamba_kept_len(const struct mamba *m)
{
    struct kept k;
    return divide_kept(m, NULL, &k);
}

struct backward_space {
    float *gated, *scanned, *z, *active, *delta, *low, *b, *c;
};

static size_t divide_space(const struct mamba *m, float *place, struct backward_space *g)
{
    size_t rows = m->batch * m->time, wide = rows * m->inner, few = rows * m->states;
    float **parts[] = {&g->gated, &g->scanned, &g->z, &g->active, &g->delta, &g->low, &g->b, &g->c};
    const size_t lens[] = {wide, wide, wide, wide, wide, rows * m->rank, few, few};
    return divide(place, parts, lens, sizeof lens / sizeof *lens);
}

/* What the layers inside need, which is the first part of the scratch; gradients of activations follow. */
static size_t inner_bytes(const struct mamba *m, unsigned lanes)
{
    struct scan_layer s = {.batch = m->batch, .time = m->time, .channels = m->inner, .states = m->states};
    size_t widest = most(most(m->d, m->inner), most(m->rank, m->states));
    return most(linear_scratch_bytes(widest, widest, m->batch * m->time), scan_scratch_bytes(&s, lanes));
}

size_t mamba_scratch_bytes(const struct mamba *m, unsigned lanes)
{
    struct backward_space g;
    return inner_bytes(m, lanes) + divide_space(m, NULL, &g) * sizeof(float);
}

/* ---- The parts ---- */

static struct linear slice(const struct mamba *m, size_t offset, size_t out, size_t in)
{
    return (struct linear){
        .in = in, .out = out, .w = m->w + offset, .dw = m->dw ? m->dw + offset : NULL, .bf16 = m->bf16};
}

struct parts {
    struct linear in_x, in_z, low, b, c, dt, out;
    struct convolution conv;
    struct scan_layer scan;
};

static struct parts parts_of(const struct mamba *m)
{
    struct mamba_layout l = mamba_layout(m);
    struct parts p = {
        .in_x = slice(m, l.in_proj, m->inner, m->d),
        .in_z = slice(m, l.in_proj + m->inner * m->d, m->inner, m->d),
        .low = slice(m, l.x_proj, m->rank, m->inner),
        .b = slice(m, l.x_proj + m->rank * m->inner, m->states, m->inner),
        .c = slice(m, l.x_proj + (m->rank + m->states) * m->inner, m->states, m->inner),
        .dt = slice(m, l.dt_proj, m->inner, m->rank),
        .out = slice(m, l.out_proj, m->d, m->inner),
        .conv = {.batch = m->batch,
                 .time = m->time,
                 .time_out = m->time,
                 .in = m->inner,
                 .out = m->inner,
                 .kernel = m->kernel,
                 .stride = 1,
                 .pad = m->kernel - 1,
                 .depthwise = true,
                 .w = m->w + l.conv,
                 .bias = m->w + l.conv_bias,
                 .dw = m->dw ? m->dw + l.conv : NULL,
                 .dbias = m->dw ? m->dw + l.conv_bias : NULL},
        .scan = scan_of(m, &l),
    };
    p.dt.bias = m->w + l.dt_bias;
    p.dt.dbias = m->dw ? m->dw + l.dt_bias : NULL;
    return p;
}

void mamba_forward(struct lane *lane, const struct mamba *m, const float *u, float *y, float *kept,
                   void *scratch)
{
    struct parts p = parts_of(m);
    struct kept k;
    size_t rows = m->batch * m->time, wide = rows * m->inner;
    divide_kept(m, kept, &k);
    linear_forward(lane, &p.in_x, u, rows, k.x, scratch);
    linear_forward(lane, &p.in_z, u, rows, k.z, scratch);
    convolution_forward(lane, &p.conv, k.x, k.convolved, scratch);
    silu_forward(lane, k.convolved, wide, k.active);
    linear_forward(lane, &p.low, k.active, rows, k.low, scratch);
    linear_forward(lane, &p.b, k.active, rows, k.b, scratch);
    linear_forward(lane, &p.c, k.active, rows, k.c, scratch);
    linear_forward(lane, &p.dt, k.low, rows, k.delta, scratch);
    struct scan_inputs in = {.x = k.active, .delta = k.delta, .b = k.b, .c = k.c};
    scan_forward(lane, &p.scan, &in, k.scanned, k.states, scratch);
    swiglu_forward(lane, &(struct swiglu){.rows = rows, .width = m->inner}, k.z, k.scanned, k.gated);
    linear_forward(lane, &p.out, k.gated, rows, y, scratch);
}

void mamba_backward(struct lane *lane, const struct mamba *m, const float *u, const float *kept,
                    const float *dy, float *du, bool add, void *scratch)
{
    struct parts p = parts_of(m);
    struct kept k;
    struct backward_space g;
    size_t rows = m->batch * m->time, wide = rows * m->inner;
    divide_kept(m, (float *)(uintptr_t)kept, &k); /* read only */
    divide_space(m, (float *)(void *)((uint8_t *)scratch + inner_bytes(m, lane->count)), &g);
    struct scan_inputs in = {.x = k.active, .delta = k.delta, .b = k.b, .c = k.c};
    struct scan_gradients out = {.dx = g.active, .ddelta = g.delta, .db = g.b, .dc = g.c};
    linear_backward(lane, &p.out, k.gated, dy, rows, g.gated, false, scratch);
    swiglu_backward(lane, &(struct swiglu){.rows = rows, .width = m->inner}, k.z, k.scanned, g.gated, g.z,
                    g.scanned);
    scan_backward(lane, &p.scan, &in, k.states, g.scanned, &out, scratch);
    linear_backward(lane, &p.dt, k.low, g.delta, rows, g.low, false, scratch);
    linear_backward(lane, &p.low, k.active, g.low, rows, g.active, true, scratch);
    linear_backward(lane, &p.b, k.active, g.b, rows, g.active, true, scratch);
    linear_backward(lane, &p.c, k.active, g.c, rows, g.active, true, scratch);
    silu_backward(lane, k.convolved, g.active, wide, g.active);
    convolution_backward(lane, &p.conv, k.x, g.active, g.gated, scratch); /* g.gated is free again */
    linear_backward(lane, &p.in_x, u, g.gated, rows, du, add, scratch);
    linear_backward(lane, &p.in_z, u, g.z, rows, du, true, scratch);
}
