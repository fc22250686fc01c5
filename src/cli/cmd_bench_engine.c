/* pharos bench engine: how fast a model reads (prefill, pp) and writes (decode, tg), beside what the machine
 * allows.
 *
 * Decode reads every active weight once a token: its limit is the read bandwidth over those bytes. Prefill
 * multiplies: its limit is the peak rate of the arithmetic the weights' type is computed in. Both limits are
 * measured before every round of samples, for on a machine that others use they change by the second. A
 * sample whose threads did not have their cores for at least 90 % of the time (CPU time over wall time and
 * threads) says more about the neighbours than about us and is thrown away; when none is left, that is said
 * instead of a figure. Figures are medians. */
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli_run_int.h"
#include "ops/estimate.h"
#include "ops/probe.h"

#define SAMPLES_MAX 64
#define QUIET_MIN 0.9
#define TRIES_PER_SAMPLE 3
#define LIMIT_SECONDS 0.1
#define ROUNDS_MAX (SAMPLES_MAX * TRIES_PER_SAMPLE)
#define BANDWIDTH_BYTES ((size_t)256 << 20)

struct args {
    struct cli_run_args run;
    size_t prompt, generate, samples;
    const char *data;
    bool json, no_learn;
};

static const struct cli_option options[] = {
    CLI_RUN_OPTIONS(struct args, run),
    {CLI_OPTION("-t", "N", CLI_COUNT, struct args, run.threads, "the same as --threads"), .min = 1,
     .max = 4096},
    {CLI_OPTION("-p", "N", CLI_COUNT, struct args, prompt, "tokens of a prompt (512); 0: leave it out"),
     .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("-n", "N", CLI_COUNT, struct args, generate, "tokens to generate (64); 0: leave it out"),
     .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("-r", "N", CLI_COUNT, struct args, samples, "samples of each (5)"), .min = 1,
     .max = SAMPLES_MAX},
    {CLI_OPTION("--data", "DIR", CLI_TEXT, struct args, data, CLI_DATA_HELP)},
    {CLI_OPTION("--no-learn", NULL, CLI_SWITCH, struct args, no_learn,
                "leave what `pharos estimate` has learnt of this machine as it is")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "bench engine", "--model F [-p N] [-n N] [-t N] [options]",
    "Prefill and decode tokens/s, medians of quiet samples, beside the machine's limits of the same minute.\n"
    "Teaches `pharos estimate` what share of them this machine reaches, in DATA/efficiency.json.",
    options};

enum limit { BANDWIDTH, PEAK_F32, PEAK_BF16, PEAK_INT8, LIMIT_COUNT }; /* bytes/s, operations/s */

struct test {
    const char *kind; /* "pp", "tg" */
    size_t tokens;
    double limit;               /* tokens/s */
    double speeds[SAMPLES_MAX]; /* tokens/s, of quiet samples */
    size_t kept, taken;
    double best_quiet; /* the highest CPU share seen */
};

struct job {
    struct args args;
    struct cli_run run;
    unsigned threads;
    int32_t *ids; /* of the prompt, and to decode */
    float *logits;
    double limits_seen[LIMIT_COUNT][ROUNDS_MAX], limits[LIMIT_COUNT]; /* limits: the medians */
    size_t rounds;
    struct test tests[2];
    size_t test_count;
};

/* ---- Limits */

/* The type that most of the weights' bytes have. */
static enum tensor_type main_type(const struct gguf *gguf)
{
    enum tensor_type best = TENSOR_F32;
    size_t best_bytes = 0, count = gguf_tensor_count(gguf);
    for (size_t i = 0; i < count; i++) {
        enum tensor_type type = gguf_tensor_at(gguf, i)->type;
        size_t bytes = 0;
        for (size_t j = i; j < count; j++)
            bytes += gguf_tensor_at(gguf, j)->type == type ? gguf_tensor_at(gguf, j)->bytes : 0;
        if (bytes > best_bytes) {
            best = type;
            best_bytes = bytes;
        }
    }
    return best;
}

/* The fastest arithmetic this machine has for weights of that type. */
static double peak_for(const double limits[LIMIT_COUNT], enum tensor_type type)
{
    if (type == TENSOR_F32)
        return limits[PEAK_F32];
    double floating = limits[PEAK_BF16] > limits[PEAK_F32] ? limits[PEAK_BF16] : limits[PEAK_F32];
    if (type == TENSOR_F16 || type == TENSOR_BF16)
        return floating;
    return limits[PEAK_INT8] > floating ? limits[PEAK_INT8] : floating;
}

static void measure_limits(struct job *job)
{
    struct pool *pool = runner_pool(job->run.runner);
    size_t at = job->rounds++;
    job->limits_seen[BANDWIDTH][at] = tensor_measure_read_bandwidth(pool, BANDWIDTH_BYTES, LIMIT_SECONDS);
    job->limits_seen[PEAK_F32][at] = tensor_measure_peak_f32(pool, LIMIT_SECONDS);
    job->limits_seen[PEAK_BF16][at] = tensor_measure_peak_bf16(pool, LIMIT_SECONDS);
    job->limits_seen[PEAK_INT8][at] = tensor_measure_peak_int8(pool, LIMIT_SECONDS);
}

/* ---- Samples */

static double cpu_seconds(void)
{
    uv_rusage_t usage_now;
    if (uv_getrusage(&usage_now) != 0)
        return 0;
    return (double)(usage_now.ru_utime.tv_sec + usage_now.ru_stime.tv_sec) +
           (double)(usage_now.ru_utime.tv_usec + usage_now.ru_stime.tv_usec) * 1e-6;
}

static enum ph_status run_once(struct job *job, const struct test *test, struct ph_err *err)
{
    cli_run_forget(&job->run);
    if (test->kind[0] == 'p')
        return cli_run_feed(&job->run, job->ids, test->tokens, job->logits, NULL, err);
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < test->tokens && status == PH_OK; i++)
        status = cli_run_step(&job->run, job->ids + i, 1, PHASE_DECODE, job->logits, err);
    return status;
}

static enum ph_status take_sample(struct job *job, struct test *test, struct ph_err *err)
{
    double cpu = cpu_seconds();
    uint64_t start = uv_hrtime();
    enum ph_status status = run_once(job, test, err);
    double wall = (double)(uv_hrtime() - start) * 1e-9;
    double quiet = (cpu_seconds() - cpu) / (wall * job->threads);
    test->taken++;
    if (quiet > test->best_quiet)
        test->best_quiet = quiet;
    if (quiet >= QUIET_MIN)
        test->speeds[test->kept++] = (double)test->tokens / wall;
    return status;
}

static bool is_done(const struct job *job)
{
    size_t done = 0;
    for (size_t i = 0; i < job->test_count; i++)
        done += job->tests[i].kept == job->args.samples;
    return done == job->test_count;
}

static enum ph_status run_tests(struct job *job, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    size_t samples = job->args.samples, done = 0;
    struct cli_progress progress;
    for (size_t i = 0; i < job->test_count && status == PH_OK; i++) { /* warm up */
        struct test warm = job->tests[i];
        warm.tokens = warm.tokens < 8 ? warm.tokens : 8;
        status = run_once(job, &warm, err);
    }
    cli_progress_begin(&progress, "bench");
    for (size_t round = 0; round < samples * TRIES_PER_SAMPLE && status == PH_OK && !is_done(job); round++) {
        measure_limits(job);
        for (size_t i = 0; i < job->test_count && status == PH_OK; i++) {
            if (job->tests[i].kept == samples)
                continue;
            status = take_sample(job, &job->tests[i], err);
            cli_progress_show(&progress, ++done, samples * job->test_count);
        }
    }
    cli_progress_end(&progress);
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n) /* sorts them */
{
    if (n == 0)
        return 0;
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ---- The job */

static void add_test(struct job *job, const char *kind, size_t tokens)
{
    if (tokens)
        job->tests[job->test_count++] = (struct test){.kind = kind, .tokens = tokens};
}

static void settle_limits(struct job *job)
{
    const struct model_info *info = model_info(job->run.model);
    for (size_t i = 0; i < LIMIT_COUNT; i++)
        job->limits[i] = median(job->limits_seen[i], job->rounds);
    double peak = peak_for(job->limits, main_type(model_gguf(job->run.model)));
    for (size_t i = 0; i < job->test_count; i++)
        job->tests[i].limit = job->tests[i].kind[0] == 'p'
                                  ? peak / (double)info->flops_per_token
                                  : job->limits[BANDWIDTH] / (double)info->decode_bytes;
}

static enum ph_status measure(struct job *job, struct ph_err *err)
{
    size_t longest = job->args.prompt > job->args.generate ? job->args.prompt : job->args.generate;
    if (longest == 0)
        return ph_fail(err, PH_ERR_ARG, "bench engine: -p and -n are both 0, nothing is left to measure");
    enum ph_status status = cli_run_open(&job->run, &job->args.run, longest, 1, err);
    if (status != PH_OK)
        return status;
    job->ids = mem_calloc(longest, sizeof *job->ids);
    job->logits = mem_calloc(job->run.n_vocab, sizeof *job->logits);
    if (!job->ids || !job->logits)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu tokens", longest);
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t i = 0; i < longest; i++)
        job->ids[i] = (int32_t)(rng_u64(&rng) % job->run.n_vocab);
    job->threads = pool_lanes(runner_pool(job->run.runner));
    add_test(job, "pp", job->args.prompt);
    add_test(job, "tg", job->args.generate);
    status = run_tests(job, err);
    settle_limits(job);
    return status;
}

/* ---- What estimates learn from it */

static void describe_machine(const struct job *job, struct machine *m)
{
    *m = (struct machine){0};
    probe_cpu(m);
    m->cores = m->threads = m->memory_points = job->threads;
    snprintf(m->isa, sizeof m->isa, "%s", kernels_name(kernels_select(job->args.run.kernels)));
    for (unsigned i = 0; i < job->threads && i < MACHINE_THREADS_MAX; i++) /* only that of all is asked for */
        m->memory_bytes_per_s[i] = job->limits[BANDWIDTH];
    m->peaks = (struct machine_peaks){
        .f32 = job->limits[PEAK_F32], .bf16 = job->limits[PEAK_BF16], .int8 = job->limits[PEAK_INT8]};
}

static enum ph_status learn_tests(const struct job *job, struct arena *arena, struct efficiency *calibration,
                                  struct ph_err *err)
{
    struct estimate_model model;
    struct machine machine;
    struct estimate_request request;
    describe_machine(job, &machine);
    estimate_request_default(&request);
    request.model = &model;
    request.machine = &machine;
    request.efficiency = calibration;
    request.rows_max = CLI_RUN_ROWS_MAX;
    request.kv_type = (size_t)cli_kv_type(job->args.run.kv);
    request.threads = job->threads;
    enum ph_status status = estimate_model_file(&model, arena, job->args.run.model, err);
    int64_t now_s = clock_unix_ms(clock_system()) / 1000;
    for (size_t i = job->test_count; i-- > 0;) { /* decode first: a prefill ends with a bit of it */
        const struct test *test = &job->tests[i];
        for (size_t k = 0; status == PH_OK && k < test->kept; k++)
            status = estimate_learn(calibration, &request,
                                    test->kind[0] == 'p' ? EFFICIENCY_PREFILL : EFFICIENCY_DECODE,
                                    test->tokens, (double)test->tokens / test->speeds[k], now_s, err);
    }
    return status;
}

static enum ph_status learn(const struct job *job, struct ph_err *err)
{
    char dir[PATH_BYTES_MAX], path[PATH_BYTES_MAX];
    struct arena arena;
    bool seen = false;
    for (size_t i = 0; i < job->test_count; i++)
        seen = seen || job->tests[i].kept;
    if (job->args.no_learn || !seen || job->args.run.loras.count)
        return PH_OK;
    enum ph_status status = cli_data_dir(job->args.data, dir, err);
    if (status == PH_OK)
        status = cli_data_file(job->args.data, EFFICIENCY_FILE, path, err);
    if (status != PH_OK)
        return status;
    arena_init(&arena, ESTIMATE_ARENA_BYTES_MAX);
    struct efficiency *calibration = arena_calloc(&arena, 1, sizeof *calibration);
    status = calibration ? efficiency_read(calibration, path, err)
                         : ph_fail(err, PH_ERR_NOMEM, "no memory for a calibration");
    if (status == PH_OK)
        status = learn_tests(job, &arena, calibration, err);
    if (status == PH_OK)
        status = file_make_dirs(dir, 0700, err);
    if (status == PH_OK)
        status = efficiency_write(calibration, path, err);
    arena_release(&arena);
    return status;
}

static void print_text(struct job *job)
{
    const struct model_info *info = model_info(job->run.model);
    const double *limits = job->limits;
    printf("model   %s, %.2f B parameters, %.0f MiB of weights, mostly %s\n", info->name,
           (double)info->n_params * 1e-9, (double)info->weight_bytes / (1 << 20),
           tensor_format((uint32_t)main_type(model_gguf(job->run.model)))->name);
    printf("here    %u threads, kernels %s, KV %s\n", job->threads,
           kernels_name(kernels_select(job->args.run.kernels)), cli_kv_names[job->args.run.kv]);
    printf("limits  read %.1f GB/s, f32 %.0f, bf16 %.0f, int8 %.0f Gop/s\n", limits[BANDWIDTH] * 1e-9,
           limits[PEAK_F32] * 1e-9, limits[PEAK_BF16] * 1e-9, limits[PEAK_INT8] * 1e-9);
    printf("%-8s %10s %10s %9s  %s\n", "test", "tokens/s", "limit", "of limit", "quiet samples");
    for (size_t i = 0; i < job->test_count; i++) {
        struct test *test = &job->tests[i];
        double speed = median(test->speeds, test->kept);
        char name[32];
        snprintf(name, sizeof name, "%s%zu", test->kind, test->tokens);
        if (test->kept)
            printf("%-8s %10.2f %10.2f %7.1f %%  %zu of %zu\n", name, speed, test->limit,
                   100 * speed / test->limit, test->kept, test->taken);
        else
            printf("%-8s %10s %10.2f %9s  none of %zu: the machine is busy, the threads had their cores for "
                   "%.0f %% at best\n",
                   name, "-", test->limit, "-", test->taken, 100 * test->best_quiet);
    }
}

static void print_json(struct job *job)
{
    const struct model_info *info = model_info(job->run.model);
    const double *limits = job->limits;
    struct buf out;
    buf_init(&out, 1 << 20);
    buf_puts(&out, "{\"model\":");
    json_write_string(&out, info->name, strlen(info->name));
    buf_printf(&out,
               ",\"params\":%llu,\"weight_bytes\":%llu,\"type\":\"%s\",\"threads\":%u,\"kernels\":\"%s\"",
               (unsigned long long)info->n_params, (unsigned long long)info->weight_bytes,
               tensor_format((uint32_t)main_type(model_gguf(job->run.model)))->name, job->threads,
               kernels_name(kernels_select(job->args.run.kernels)));
    buf_printf(&out,
               ",\"limits\":{\"read_bytes_per_s\":%.0f,\"f32_flops\":%.0f,\"bf16_flops\":%.0f,"
               "\"int8_ops\":%.0f},\"tests\":[",
               limits[BANDWIDTH], limits[PEAK_F32], limits[PEAK_BF16], limits[PEAK_INT8]);
    for (size_t i = 0; i < job->test_count; i++) {
        struct test *test = &job->tests[i];
        buf_printf(&out, "%s{\"test\":\"%s\",\"tokens\":%zu,\"tokens_per_s\":", i ? "," : "", test->kind,
                   test->tokens);
        if (test->kept)
            buf_printf(&out, "%.4f", median(test->speeds, test->kept));
        else
            buf_puts(&out, "null");
        buf_printf(&out, ",\"limit_tokens_per_s\":%.4f,\"samples_kept\":%zu,\"samples_taken\":%zu}",
                   test->limit, test->kept, test->taken);
    }
    buf_puts(&out, "]}\n");
    fwrite(out.data, 1, out.len, stdout);
    buf_release(&out);
}

int cmd_bench_engine(int argc, char **argv)
{
    struct job job = {.args = {.run.kv = CLI_KV_F16, .prompt = 512, .generate = 64, .samples = 5}};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    struct ph_err err;
    enum ph_status status = measure(&job, &err);
    if (status == PH_OK && job.args.json)
        print_json(&job);
    else if (status == PH_OK)
        print_text(&job);
    if (status == PH_OK && learn(&job, &err) != PH_OK) /* what was asked for is there all the same */
        (void)cli_error(CLI_EXIT_OK, "estimates learnt nothing from this (--no-learn: not even tried): %s",
                        err.message);
    mem_free(job.ids);
    mem_free(job.logits);
    cli_run_close(&job.run);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
