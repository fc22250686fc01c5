/* Speed of the products of training beside the machine's measured peaks.
 *
 *   build/bench_product [lanes [set [seconds]]]
 *
 * For each shape of a layer (tokens, outputs, inputs): y = x w^T, dx = dy w, dw += dy^T x, in F32 and in
 * BF16, as GFLOP/s and percent of the best F32 peak seen. The best of many runs, each timed by the
 * CPU time of the lane that used most: a neighbour on a shared machine takes time away, not work. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tensor/tensor.h"

#define TOKENS_MAX ((size_t)4096)
#define SIDE_MAX ((size_t)4096)
#define LANES_MAX 64

static const struct layer {
    size_t tokens, out, in;
} layers[] = {
    {4096, 96, 96},   {4096, 128, 128},  {4096, 352, 128}, {4096, 128, 352},
    {4096, 172, 96},  {4096, 256, 256},  {4096, 512, 512}, {4096, 512, 172},
    {4096, 4096, 96}, {4096, 4096, 256}, {256, 4096, 256}, {4096, 4096, 512},
};

struct timing {
    struct product p;
    double spent[LANES_MAX]; /* CPU seconds of each lane */
};

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void run_product(struct lane *lane, void *ud)
{
    struct timing *t = ud;
    double start = thread_seconds();
    tensor_product(lane, &t->p);
    t->spent[lane->index % LANES_MAX] = thread_seconds() - start;
}

static double now(void)
{
    return (double)clock_monotonic_ns(clock_system()) * 1e-9;
}

/* GFLOP/s of the best run; *peak: the best F32 peak so far, in GFLOP/s. */
static double best_rate(struct pool *pool, struct timing *t, double seconds, double *peak)
{
    double start = now(), best = 1e9;
    for (size_t rounds = 0; rounds < 5 || now() - start < seconds; rounds++) {
        double most = 0.0;
        pool_run(pool, run_product, t);
        for (unsigned i = 0; i < pool_lanes(pool) && i < LANES_MAX; i++)
            most = t->spent[i] > most ? t->spent[i] : most;
        best = most < best ? most : best;
        if (rounds % 8 == 0) {
            double rate = tensor_measure_peak_f32(pool, 0.002) * 1e-9;
            *peak = rate > *peak ? rate : *peak;
        }
    }
    return 2e-9 * (double)t->p.m * (double)t->p.n * (double)t->p.k / best;
}

struct buffers {
    float *x, *w, *y;
    void *workspace;
};

/* The three products of a layer. */
static struct product product_of(const struct layer *l, const struct buffers *b, int which)
{
    struct product p = {.workspace = b->workspace};
    if (which == 0)
        p = (struct product){.m = l->tokens,
                             .n = l->out,
                             .k = l->in,
                             .a = b->x,
                             .a_stride = l->in,
                             .b = b->w,
                             .b_stride = l->in,
                             .b_transposed = true,
                             .c = b->y,
                             .c_stride = l->out};
    else if (which == 1)
        p = (struct product){.m = l->tokens,
                             .n = l->in,
                             .k = l->out,
                             .a = b->y,
                             .a_stride = l->out,
                             .b = b->w,
                             .b_stride = l->in,
                             .c = b->x,
                             .c_stride = l->in};
    else
        p = (struct product){.m = l->out,
                             .n = l->in,
                             .k = l->tokens,
                             .a = b->y,
                             .a_stride = l->out,
                             .a_transposed = true,
                             .b = b->x,
                             .b_stride = l->in,
                             .c = b->w,
                             .c_stride = l->in,
                             .accumulate = true};
    p.workspace = b->workspace;
    return p;
}

static void fill(struct rng *rng, float *x, size_t len)
{
    for (size_t i = 0; i < len; i++)
        x[i] = rng_float(rng) - 0.5f;
}

static void bench_layer(struct pool *pool, const struct layer *l, double seconds, double *peak)
{
    struct buffers b = {mem_alloc_aligned(64, l->tokens * l->in * 4),
                        mem_alloc_aligned(64, l->out * l->in * 4),
                        mem_alloc_aligned(64, l->tokens * l->out * 4), NULL};
    size_t most = l->tokens > l->out ? l->tokens : l->out;
    b.workspace = mem_alloc_aligned(64, tensor_product_workspace_bytes(most, most, most));
    struct rng rng;
    rng_init(&rng, 1);
    printf("%5zu %5zu %5zu", l->tokens, l->out, l->in);
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int which = 0; which < 3; which++) {
            struct timing t = {.p = product_of(l, &b, which)};
            t.p.bf16 = bf16;
            fill(&rng, b.x, l->tokens * l->in);
            fill(&rng, b.w, l->out * l->in);
            fill(&rng, b.y, l->tokens * l->out);
            double rate = best_rate(pool, &t, seconds, peak);
            printf(" %6.0f %4.0f%%", rate, 100.0 * rate / *peak);
            fflush(stdout);
        }
    printf("\n");
    mem_free(b.x);
    mem_free(b.w);
    mem_free(b.y);
    mem_free(b.workspace);
}

int main(int argc, char **argv)
{
    unsigned lanes = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    const struct kernels *k = kernels_select(argc > 2 ? argv[2] : NULL);
    double seconds = argc > 3 ? strtod(argv[3], NULL) : 0.2, peak = 0.0, peak_bf16 = 0.0;
    struct pool *pool;
    struct ph_err err;
    if (!k || pool_create(&pool, lanes, 0, k, &err) != PH_OK) {
        fprintf(stderr, "bench_product: no such kernel set here, or no pool\n");
        return 1;
    }
    for (int i = 0; i < 8; i++) {
        double f32 = tensor_measure_peak_f32(pool, seconds / 8) * 1e-9,
               bf16 = tensor_measure_peak_bf16(pool, seconds / 8) * 1e-9;
        peak = f32 > peak ? f32 : peak;
        peak_bf16 = bf16 > peak_bf16 ? bf16 : peak_bf16;
    }
    printf("%s, %u lanes: FMA %.0f GFLOP/s, BF16 %.0f GFLOP/s; GFLOP/s and %% of FMA\n", kernels_name(k),
           pool_lanes(pool), peak, peak_bf16);
    printf("tokens   out    in    x w^T        dy w         dy^T x       BF16 x w^T   BF16 dy w    BF16 dy^T "
           "x\n");
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        bench_layer(pool, &layers[i], seconds, &peak);
    pool_free(pool);
    return 0;
}
