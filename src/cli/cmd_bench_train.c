/* pharos bench train: how fast decoders of a few shapes learn, beside what the machine allows.
 *
 * A step is forward, backward and AdamW over random tokens. Its limit is arithmetic: the products that the
 * step needs (6 operations a weight and token, attention over the keys that a position sees) at the measured
 * peak of the arithmetic they are done in. A sample is a few steps; one whose threads did not have their
 * cores for at least 90 % of the time is thrown away, as in bench engine. Figures are medians. */
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/values.h"
#include "cli/cli_int.h"
#include "train/train.h"

#define SAMPLES_MAX 64
#define QUIET_MIN 0.9
#define TRIES_PER_SAMPLE 3
#define LIMIT_SECONDS 0.1  /* each, before every test and at the end: the best counts */
#define SAMPLE_SECONDS 0.4 /* at least; several steps where one is quicker */
#define WARM_STEPS 2
#define VOCAB 4096

struct shape {
    const char *name;
    size_t d, layers, heads, ff;
};

static const struct shape shapes[] = {
    {"1m", 96, 5, 3, 256}, {"5m", 256, 5, 8, 688}, {"16m", 384, 8, 6, 1024}};
static const char *const shape_names[] = {"1m", "5m", "16m", "all", NULL};
#define SHAPES (sizeof shapes / sizeof *shapes)

enum precision { PRECISION_F32, PRECISION_MIXED, PRECISIONS, PRECISION_BOTH = PRECISIONS };
static const char *const precision_names[] = {"f32", "mixed", "both", NULL};

struct args {
    int shape, precision;
    const char *kernels;
    size_t threads, batch, time, samples;
    bool cpu, json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--shape", "1m|5m|16m|all", CLI_CHOICE, struct args, shape,
                "llama-shaped, vocabulary 4096, tied: 0.95, 5.0, 15.7 million parameters (all)"),
     .names = shape_names},
    {CLI_OPTION("--precision", "f32|mixed|both", CLI_CHOICE, struct args, precision,
                "products of floats, or of BF16 with sums and weights in F32 (both)"),
     .names = precision_names},
    {CLI_OPTION("--batch", "N", CLI_COUNT, struct args, batch, "sequences a step (16)"), .min = 1,
     .max = 4096},
    {CLI_OPTION("--time", "N", CLI_COUNT, struct args, time, "tokens of a sequence (256)"), .min = 1,
     .max = 65536},
    {CLI_OPTION("-t", "N", CLI_COUNT, struct args, threads, "threads (one a CPU)"), .min = 1, .max = 1024},
    {CLI_OPTION("-r", "N", CLI_COUNT, struct args, samples, "samples of each (5)"), .min = 1,
     .max = SAMPLES_MAX},
    {CLI_OPTION("--kernels", "SET", CLI_TEXT, struct args, kernels,
                "at most this set: ref, avx2, avx512, avx512bf16, amx (the best)")},
    {CLI_OPTION(
        "--cpu-time", NULL, CLI_SWITCH, struct args, cpu,
        "divide by CPU time over threads instead of the clock's, on a machine that others use; waiting "
        "for other threads counts only as far as they spin")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "bench train", "[--shape S] [--precision P] [options]",
    "Training speed in tokens/s, medians of quiet samples, beside the peaks of the same minute.", options};

struct test {
    const struct shape *shape;
    enum precision precision;
    size_t params;
    double flops;               /* of a step */
    double peak;                /* FLOP/s */
    double speeds[SAMPLES_MAX]; /* tokens/s, of quiet samples */
    double best_quiet;          /* the highest CPU share seen */
    size_t kept, taken;
};

struct job {
    struct args args;
    struct pool *pool;
    double peak_f32, peak_bf16;
    struct test tests[SHAPES * PRECISIONS];
    size_t test_count;
};

/* ---- One model */

struct trainee {
    struct decoder *decoder;
    struct adamw adamw;
    struct decoder_batch batch;
    int32_t *tokens; /* and targets: the same, one further */
    float *weights;
};

static void trainee_free(struct trainee *t)
{
    decoder_free(t->decoder);
    mem_free(t->adamw.m);
    mem_free(t->tokens);
    mem_free(t->weights);
}

static enum ph_status trainee_create(struct trainee *t, struct job *job, const struct test *test,
                                     struct ph_err *err)
{
    const struct shape *s = test->shape;
    const struct args *args = &job->args;
    struct decoder_config config = {.vocab = VOCAB,
                                    .d = s->d,
                                    .layers = s->layers,
                                    .heads = s->heads,
                                    .kv_heads = s->heads,
                                    .ff = s->ff,
                                    .context = args->time,
                                    .rope_base = 10000,
                                    .norm_eps = 1e-5f,
                                    .tied = true,
                                    .bf16 = test->precision == PRECISION_MIXED};
    *t = (struct trainee){
        .adamw = {.rate = 1e-4f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.1f}};
    enum ph_status status = decoder_create(&t->decoder, job->pool, &config, args->batch, args->time, err);
    if (status != PH_OK)
        return status;
    size_t rows = args->batch * args->time, len = decoder_len(t->decoder);
    t->adamw.m = mem_calloc(2 * len, sizeof *t->adamw.m);
    t->tokens = mem_calloc(rows + 1, sizeof *t->tokens);
    t->weights = mem_calloc(rows, sizeof *t->weights);
    if (!t->adamw.m || !t->tokens || !t->weights)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the optimiser of %zu parameters", len);
    t->adamw.v = t->adamw.m + len;
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t i = 0; i <= rows; i++)
        t->tokens[i] = (int32_t)(rng_u64(&rng) % VOCAB);
    t->batch = (struct decoder_batch){args->batch, args->time, t->tokens, t->tokens + 1, t->weights};
    loss_weights_token_mean(t->tokens + 1, rows, t->weights);
    decoder_init_weights(t->decoder, 1);
    return PH_OK;
}

static void take_steps(struct trainee *t, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        t->adamw.step++;
        decoder_clear_gradients(t->decoder);
        decoder_accumulate(t->decoder, &t->batch);
        decoder_update(t->decoder, &t->adamw, 1);
    }
}

/* Weights take part in a product forward and in two backward: 6 operations. Attention's two products of
 * time (time + 1) / 2 pairs of positions likewise. */
static double step_flops(const struct args *args, const struct shape *s, size_t *params)
{
    double tokens = (double)(args->batch * args->time);
    size_t matrices = VOCAB * s->d + s->layers * (4 * s->d * s->d + 3 * s->d * s->ff);
    *params = matrices + (2 * s->layers + 1) * s->d;
    return tokens * 6 * ((double)matrices + (double)(s->layers * s->d * (args->time + 1)));
}

/* ---- Samples */

static void take_sample(struct job *job, struct trainee *t, struct test *test, size_t steps)
{
    double cpu = clock_cpu_seconds();
    uint64_t start = uv_hrtime();
    take_steps(t, steps);
    double wall = (double)(uv_hrtime() - start) * 1e-9;
    double used = (clock_cpu_seconds() - cpu) / pool_lanes(job->pool), quiet = used / wall;
    test->taken++;
    if (quiet > test->best_quiet)
        test->best_quiet = quiet;
    if (quiet >= QUIET_MIN || job->args.cpu)
        test->speeds[test->kept++] =
            (double)(steps * t->batch.batch * t->batch.time) / (job->args.cpu ? used : wall);
}

static enum ph_status run_test(struct job *job, struct test *test, struct ph_err *err)
{
    struct trainee t = {0};
    enum ph_status status = trainee_create(&t, job, test, err);
    if (status == PH_OK) {
        take_steps(&t, WARM_STEPS);
        uint64_t start = uv_hrtime();
        take_steps(&t, 1);
        double each = (double)(uv_hrtime() - start) * 1e-9;
        size_t steps = each < SAMPLE_SECONDS ? (size_t)(SAMPLE_SECONDS / each) + 1 : 1;
        for (size_t i = 0; i < job->args.samples * TRIES_PER_SAMPLE && test->kept < job->args.samples; i++)
            take_sample(job, &t, test, steps);
    }
    trainee_free(&t);
    return status;
}

/* ---- The job */

/* The best arithmetic there is for a precision; a set without BF16 products does them in floats. */
static double peak_for(const struct job *job, enum precision precision)
{
    return precision == PRECISION_MIXED && job->peak_bf16 > job->peak_f32 ? job->peak_bf16 : job->peak_f32;
}

static void list_tests(struct job *job)
{
    for (size_t s = 0; s < SHAPES; s++)
        for (enum precision p = 0; p < PRECISIONS; p++) {
            if ((job->args.shape != (int)SHAPES && job->args.shape != (int)s) ||
                (job->args.precision != PRECISION_BOTH && job->args.precision != (int)p))
                continue;
            struct test *test = &job->tests[job->test_count++];
            *test = (struct test){.shape = &shapes[s], .precision = p};
            test->flops = step_flops(&job->args, test->shape, &test->params);
        }
}

static void measure_peak(const struct job *job, double (*of)(struct pool *pool, double seconds), double *best)
{
    double cpu = clock_cpu_seconds();
    uint64_t start = uv_hrtime();
    double rate = of(job->pool, LIMIT_SECONDS), wall = (double)(uv_hrtime() - start) * 1e-9;
    if (job->args.cpu)
        rate *= wall * pool_lanes(job->pool) / (clock_cpu_seconds() - cpu);
    *best = rate > *best ? rate : *best;
}

static void measure_peaks(struct job *job)
{
    measure_peak(job, tensor_measure_peak_f32, &job->peak_f32);
    measure_peak(job, tensor_measure_peak_bf16, &job->peak_bf16);
}

static enum ph_status measure(struct job *job, struct ph_err *err)
{
    const struct kernels *kernels = kernels_select(job->args.kernels);
    if (!kernels)
        return ph_fail(err, PH_ERR_ARG, "--kernels %s: this CPU does not have it", job->args.kernels);
    enum ph_status status = pool_create(&job->pool, (unsigned)job->args.threads, 0, kernels, err);
    if (status != PH_OK)
        return status;
    list_tests(job);
    struct cli_progress progress;
    cli_progress_begin(&progress, "bench");
    for (size_t i = 0; i < job->test_count && status == PH_OK; i++) {
        measure_peaks(job);
        status = run_test(job, &job->tests[i], err);
        cli_progress_show(&progress, i + 1, job->test_count);
    }
    cli_progress_end(&progress);
    measure_peaks(job);
    for (size_t i = 0; i < job->test_count; i++)
        job->tests[i].peak = peak_for(job, job->tests[i].precision);
    return status;
}

static double step_tokens(const struct job *job)
{
    return (double)(job->args.batch * job->args.time);
}

static void print_text(struct job *job)
{
    printf("here    %u threads, kernels %s, steps of %zu x %zu tokens\n", pool_lanes(job->pool),
           kernels_name(kernels_select(job->args.kernels)), job->args.batch, job->args.time);
    printf("peaks   f32 %.0f, bf16 %.0f GFLOP/s\n", job->peak_f32 * 1e-9, job->peak_bf16 * 1e-9);
    printf("%-6s %-6s %10s %10s %10s %9s  %s\n", "params", "", "tokens/s", "GFLOP/s", "limit", "of limit",
           "quiet samples");
    for (size_t i = 0; i < job->test_count; i++) {
        struct test *test = &job->tests[i];
        double speed = values_median(test->speeds, test->kept), flops = test->flops / step_tokens(job);
        printf("%4.1f M %-6s ", (double)test->params * 1e-6, precision_names[test->precision]);
        if (test->kept)
            printf("%10.0f %10.1f %10.0f %7.1f %%  %zu of %zu\n", speed, speed * flops * 1e-9,
                   test->peak / flops, 100 * speed * flops / test->peak, test->kept, test->taken);
        else
            printf("%10s %10s %10.0f %9s  none of %zu: the machine is busy, the threads had their cores for "
                   "%.0f %% at best\n",
                   "-", "-", test->peak / flops, "-", test->taken, 100 * test->best_quiet);
    }
}

static void print_json(struct job *job)
{
    printf("{\"threads\":%u,\"kernels\":\"%s\",\"batch\":%zu,\"time\":%zu,", pool_lanes(job->pool),
           kernels_name(kernels_select(job->args.kernels)), job->args.batch, job->args.time);
    printf("\"limits\":{\"f32_flops\":%.0f,\"bf16_flops\":%.0f},\"tests\":[", job->peak_f32, job->peak_bf16);
    for (size_t i = 0; i < job->test_count; i++) {
        struct test *test = &job->tests[i];
        double flops = test->flops / step_tokens(job);
        printf("%s{\"shape\":\"%s\",\"d\":%zu,\"layers\":%zu,\"heads\":%zu,\"ff\":%zu,\"vocab\":%d,",
               i ? "," : "", test->shape->name, test->shape->d, test->shape->layers, test->shape->heads,
               test->shape->ff, VOCAB);
        printf("\"precision\":\"%s\",\"params\":%zu,\"flops_per_token\":%.0f,\"limit_tokens_per_s\":%.1f,",
               precision_names[test->precision], test->params, flops, test->peak / flops);
        if (test->kept)
            printf("\"tokens_per_s\":%.1f,", values_median(test->speeds, test->kept));
        else
            printf("\"tokens_per_s\":null,");
        printf("\"samples_kept\":%zu,\"samples_taken\":%zu,\"best_cpu_share\":%.3f}", test->kept, test->taken,
               test->best_quiet);
    }
    printf("]}\n");
}

int cmd_bench_train(int argc, char **argv)
{
    struct job job = {
        .args = {.shape = (int)SHAPES, .precision = PRECISION_BOTH, .batch = 16, .time = 256, .samples = 5}};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    struct ph_err err;
    enum ph_status status = measure(&job, &err);
    if (status == PH_OK && job.args.json)
        print_json(&job);
    else if (status == PH_OK)
        print_text(&job);
    pool_free(job.pool);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
