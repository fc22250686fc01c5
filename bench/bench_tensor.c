/* Speed of the matrix products beside the machine's measured limits.
 *
 *   build/bench_tensor [lanes [set [seconds]]]
 *
 * For each format: decode with 1, 4 and 16 rows and prefill with 32 and 512, on matrices of a model
 * with 1.1 billion parameters, enough of them that no cache holds the weights. Columns: GB/s of
 * weights read against the measured read bandwidth, or GFLOP/s against the peak of the unit. Medians;
 * the CPU share tells how much of the cores we had. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tensor/tensor.h"

#define COPIES 12 /* of a 2048 x 5632 matrix */
#define ROUNDS_MAX 64

struct job {
    struct matrix w[COPIES];
    float *x, *y;
    void *workspace;
    size_t n, next;
    enum phase phase;
};

static void run_all(struct lane *lane, void *ud)
{
    struct job *j = ud;
    for (size_t i = 0; i < COPIES; i++) {
        struct act act;
        act_init(&act, j->x, j->n, j->w[i].cols, j->workspace);
        tensor_matmul(lane, &j->w[i], &act, j->y, j->w[i].rows, j->phase);
    }
}

static double now(void)
{
    return (double)clock_monotonic_ns(clock_system()) * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of one pass over all copies; *share: CPU time over wall time and lanes. */
static double time_job(struct pool *pool, struct job *j, double seconds, double *share)
{
    double times[ROUNDS_MAX];
    size_t rounds = 0;
    pool_run(pool, run_all, j);
    double start = now();
    clock_t cpu = clock();
    while (rounds < 3 || (now() - start < seconds && rounds < ROUNDS_MAX)) {
        double t = now();
        pool_run(pool, run_all, j);
        times[rounds++] = now() - t;
    }
    *share = (double)(clock() - cpu) / CLOCKS_PER_SEC / (now() - start) / pool_lanes(pool);
    qsort(times, rounds, sizeof *times, compare);
    return times[rounds / 2];
}

static void bench_format(struct pool *pool, enum tensor_type type, double bandwidth, double seconds)
{
    enum { ROWS = 5632, COLS = 2048, N_MAX = 512 };
    static const struct {
        enum phase phase;
        size_t n;
    } cases[] = {
        {PHASE_DECODE, 1}, {PHASE_DECODE, 4}, {PHASE_DECODE, 16}, {PHASE_PREFILL, 32}, {PHASE_PREFILL, 512}};
    size_t bytes = tensor_row_bytes(type, COLS) * ROWS;
    struct job j = {.x = mem_calloc(N_MAX * COLS, 4),
                    .y = mem_calloc((size_t)N_MAX * ROWS, 4),
                    .workspace = mem_alloc_aligned(64, act_workspace_bytes(N_MAX, COLS))};
    uint8_t *blocks = mem_alloc(bytes * COPIES);
    float row[COLS];
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t i = 0; i < COLS; i++)
        row[i] = rng_float(&rng) - 0.5f;
    for (size_t i = 0; i < (size_t)N_MAX * COLS; i++)
        j.x[i] = rng_float(&rng) - 0.5f;
    tensor_quantize(type, row, blocks, COLS);
    for (size_t r = 1; r < (size_t)ROWS * COPIES; r++)
        memcpy(blocks + r * (bytes / ROWS), blocks, bytes / ROWS);
    for (size_t i = 0; i < COPIES; i++)
        j.w[i] = (struct matrix){type, ROWS, COLS, blocks + i * bytes};
    printf("%-7s", tensor_format(type)->name);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double share;
        j.phase = cases[c].phase;
        j.n = cases[c].n;
        double t = time_job(pool, &j, seconds, &share);
        double gbs = (double)bytes * COPIES / t * 1e-9;
        double gflops = 2.0 * (double)ROWS * COLS * COPIES * (double)j.n / t * 1e-9;
        if (j.n == 1)
            printf(" | n=1 %5.1f GB/s %3.0f%%", gbs, 100 * gbs / (bandwidth * 1e-9));
        else
            printf(" | n=%zu %6.0f GF/s", j.n, gflops);
        printf(" (%.2f)", share);
        fflush(stdout);
    }
    printf("\n");
    mem_free(blocks);
    mem_free(j.x);
    mem_free(j.y);
    mem_free(j.workspace);
}

int main(int argc, char **argv)
{
    static const enum tensor_type types[] = {TENSOR_F32,  TENSOR_F16,    TENSOR_BF16,   TENSOR_Q8_0,
                                             TENSOR_Q4_0, TENSOR_Q4_K,   TENSOR_Q6_K,   TENSOR_Q5_K,
                                             TENSOR_Q4_1, TENSOR_Q5_0,   TENSOR_Q5_1,   TENSOR_Q2_K,
                                             TENSOR_Q3_K, TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4};
    unsigned lanes = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    const struct kernels *k = kernels_select(argc > 2 ? argv[2] : NULL);
    double seconds = argc > 3 ? strtod(argv[3], NULL) : 0.5;
    const char *only = argc > 4 ? argv[4] : NULL;
    struct pool *pool;
    struct ph_err err;
    if (!k || pool_create(&pool, lanes, 0, k, &err) != PH_OK) {
        fprintf(stderr, "bench_tensor: no such kernel set here, or no pool\n");
        return 1;
    }
    double bandwidth = tensor_measure_read_bandwidth(pool, (size_t)512 << 20, seconds);
    printf("%s, %u lanes: read %.1f GB/s, FMA %.0f GFLOP/s, BF16 %.0f GFLOP/s, INT8 %.0f GOP/s\n",
           kernels_name(k), pool_lanes(pool), bandwidth * 1e-9, tensor_measure_peak_f32(pool, seconds) * 1e-9,
           tensor_measure_peak_bf16(pool, seconds) * 1e-9, tensor_measure_peak_int8(pool, seconds) * 1e-9);
    printf("in brackets: share of the lanes' CPU time; below 0.9 the machine was busy with something else\n");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!only || strcmp(only, tensor_format(types[i])->name) == 0)
            bench_format(pool, types[i], bandwidth, seconds);
    pool_free(pool);
    return 0;
}
