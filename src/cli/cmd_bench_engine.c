/* pharos bench engine: how fast a model reads (prefill, pp) and writes (decode, tg), beside what the machine
 * allows.
 *
 * Decode reads every active weight once a token: its limit is the read bandwidth over those bytes. Prefill
 * multiplies: its limit is the peak rate of the arithmetic the weights' type is computed in. Memory that
 * others use is as fast as they leave it, and that changes within a tenth of a second; so it is read for a
 * moment between every few steps, and a sample has the limits of its own time. A sample whose threads did not
 * have their cores for at least 90 % of the time (CPU time over wall time and threads), or whose cores were
 * not as fast behind it as before it, says more about the neighbours than about us and is thrown away; when
 * none is left, that is said instead of a figure. Figures are medians. */
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/values.h"
#include "cli/cli_run_int.h"
#include "ops/estimate.h"
#include "ops/probe.h"

#define SAMPLES_MAX 64
#define QUIET_MIN 0.9
#define TRIES_PER_SAMPLE 3
#define STEADY_MAX 1.1 /* of the arithmetic before a sample over that behind it */
#define PEAK_SECONDS 0.03
#define READ_SECONDS 0.01
#define ROW_SECONDS 0.03
#define SLICE_SECONDS 0.1 /* of decoding, between two readings */
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
    "Prefill and decode tokens/s, medians of quiet samples, beside the machine's limits of the same "
    "moments.\n"
    "Teaches `pharos estimate` what share of them this machine reaches, in DATA/efficiency.json.",
    options};

enum limit { BANDWIDTH, PEAK_F32, PEAK_BF16, PEAK_INT8, LIMIT_COUNT }; /* bytes/s, operations/s */

struct limits {
    double of[LIMIT_COUNT];
    double gemv_rates[MACHINE_TYPES_MAX]; /* operations/s of products with one row, by the job's types */
};

struct sample {
    double speed; /* tokens/s */
    struct limits limits;
};

struct test {
    const char *kind; /* "pp", "tg" */
    size_t tokens;
    double limit, speed;                /* tokens/s; speed: the median */
    struct sample samples[SAMPLES_MAX]; /* the quiet ones */
    size_t kept, taken;
    double best_quiet; /* the highest CPU share seen */
};

struct job {
    struct args args;
    struct cli_run run;
    unsigned threads;
    int32_t *ids; /* of the prompt, and to decode */
    float *logits;
    struct read_buffer *buffer;
    enum tensor_type types[MACHINE_TYPES_MAX];
    size_t type_count;
    struct limits before; /* the next sample: as they were last seen */
    struct limits limits; /* medians of the samples' */
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

static void measure_arithmetic(const struct job *job, struct limits *limits)
{
    struct pool *pool = runner_pool(job->run.runner);
    limits->of[PEAK_F32] = tensor_measure_peak_f32(pool, PEAK_SECONDS);
    limits->of[PEAK_BF16] = tensor_measure_peak_bf16(pool, PEAK_SECONDS);
    limits->of[PEAK_INT8] = tensor_measure_peak_int8(pool, PEAK_SECONDS);
    for (size_t i = 0; i < job->type_count; i++)
        limits->gemv_rates[i] = tensor_measure_gemv(pool, job->types[i], ROW_SECONDS);
}

/* The formats that the model is made of. */
static void find_types(struct job *job)
{
    const struct gguf *gguf = model_gguf(job->run.model);
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        enum tensor_type type = gguf_tensor_at(gguf, i)->type;
        size_t at = 0;
        while (at < job->type_count && job->types[at] != type)
            at++;
        if (at == job->type_count && at < MACHINE_TYPES_MAX)
            job->types[job->type_count++] = type;
    }
}

/* ---- Samples */

/* What a sample has taken so far: work and readings of memory take turns. */
struct timing {
    double wall_s, cpu_s;          /* of the work alone */
    double reads, read_s_per_byte; /* the sum over all readings */
};

static bool is_steady(double before, double after)
{
    return before < STEADY_MAX * after && after < STEADY_MAX * before;
}

/* Whether the cores were as fast behind a sample as before it; its limits are the means of both. */
static bool join_limits(const struct job *job, const struct limits *before, const struct limits *after,
                        struct limits *out)
{
    bool steady = true;
    for (size_t i = 0; i < LIMIT_COUNT; i++) {
        steady = steady && (i == BANDWIDTH || before->of[i] == 0 || is_steady(before->of[i], after->of[i]));
        out->of[i] = (before->of[i] + after->of[i]) / 2;
    }
    for (size_t i = 0; i < job->type_count; i++)
        out->gemv_rates[i] = (before->gemv_rates[i] + after->gemv_rates[i]) / 2;
    return steady;
}

static void read_memory(const struct job *job, struct timing *t)
{
    double rate = tensor_measure_read(runner_pool(job->run.runner), job->buffer, READ_SECONDS);
    if (rate > 0) {
        t->reads++;
        t->read_s_per_byte += 1 / rate;
    }
}

/* Decodes from token `at` on, for a slice of time or to the end. */
static enum ph_status decode_slice(struct job *job, size_t tokens, size_t *at, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    uint64_t end = uv_hrtime() + (uint64_t)(SLICE_SECONDS * 1e9);
    do
        status = cli_run_step(&job->run, job->ids + (*at)++, 1, PHASE_DECODE, job->logits, err);
    while (status == PH_OK && *at < tokens && uv_hrtime() < end);
    return status;
}

static enum ph_status run_once(struct job *job, const struct test *test, struct timing *t, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    cli_run_forget(&job->run);
    read_memory(job, t);
    for (size_t at = 0; at < test->tokens && status == PH_OK;) {
        double cpu = clock_cpu_seconds();
        uint64_t start = uv_hrtime();
        if (test->kind[0] == 'p') {
            status = cli_run_feed(&job->run, job->ids, test->tokens, job->logits, NULL, err);
            at = test->tokens;
        } else {
            status = decode_slice(job, test->tokens, &at, err);
        }
        t->wall_s += (double)(uv_hrtime() - start) * 1e-9;
        t->cpu_s += clock_cpu_seconds() - cpu;
        read_memory(job, t);
    }
    return status;
}

static enum ph_status take_sample(struct job *job, struct test *test, struct ph_err *err)
{
    struct timing t = {.wall_s = 0};
    struct limits before = job->before;
    struct sample sample;
    enum ph_status status = run_once(job, test, &t, err);
    double quiet = t.cpu_s / (t.wall_s * job->threads);
    measure_arithmetic(job, &job->before);
    bool steady = join_limits(job, &before, &job->before, &sample.limits);
    test->taken++;
    if (quiet > test->best_quiet)
        test->best_quiet = quiet;
    sample.limits.of[BANDWIDTH] = job->before.of[BANDWIDTH] = t.reads > 0 ? t.reads / t.read_s_per_byte : 0;
    sample.speed = (double)test->tokens / t.wall_s;
    if (steady && quiet >= QUIET_MIN)
        test->samples[test->kept++] = sample;
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
    for (size_t i = 0; i < job->test_count && status == PH_OK; i++) {
        struct test warm = job->tests[i];
        struct timing unused = {.wall_s = 0};
        warm.tokens = warm.tokens < 8 ? warm.tokens : 8;
        status = run_once(job, &warm, &unused, err);
    }
    measure_arithmetic(job, &job->before); /* once for nothing: clocks rise for a while */
    measure_arithmetic(job, &job->before);
    cli_progress_begin(&progress, "bench");
    for (size_t round = 0; round < samples * TRIES_PER_SAMPLE && status == PH_OK && !is_done(job); round++) {
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

/* ---- The job */

static void add_test(struct job *job, const char *kind, size_t tokens)
{
    if (tokens)
        job->tests[job->test_count++] = (struct test){.kind = kind, .tokens = tokens};
}

/* Medians over samples: of a test's speeds, of a limit over all tests. */
static void settle(struct job *job)
{
    const struct model_info *info = model_info(job->run.model);
    double values[2 * SAMPLES_MAX];
    for (size_t i = 0; i < LIMIT_COUNT; i++) {
        size_t count = 0;
        for (size_t k = 0; k < job->test_count; k++)
            for (size_t s = 0; s < job->tests[k].kept; s++)
                values[count++] = job->tests[k].samples[s].limits.of[i];
        job->limits.of[i] = count ? values_median(values, count) : job->before.of[i];
    }
    double peak = peak_for(job->limits.of, main_type(model_gguf(job->run.model)));
    for (size_t k = 0; k < job->test_count; k++) {
        struct test *test = &job->tests[k];
        for (size_t s = 0; s < test->kept; s++)
            values[s] = test->samples[s].speed;
        test->speed = values_median(values, test->kept);
        test->limit = test->kind[0] == 'p' ? peak / (double)info->flops_per_token
                                           : job->limits.of[BANDWIDTH] / (double)info->decode_bytes;
    }
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
    job->buffer = tensor_read_buffer_create(runner_pool(job->run.runner), BANDWIDTH_BYTES);
    if (!job->ids || !job->logits || !job->buffer)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu tokens", longest);
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t i = 0; i < longest; i++)
        job->ids[i] = (int32_t)(rng_u64(&rng) % job->run.n_vocab);
    job->threads = pool_lanes(runner_pool(job->run.runner));
    add_test(job, "pp", job->args.prompt);
    add_test(job, "tg", job->args.generate);
    find_types(job);
    status = run_tests(job, err);
    settle(job);
    return status;
}

/* ---- What estimates learn from it */

static void describe_machine(const struct job *job, const struct limits *limits, struct machine *m)
{
    *m = (struct machine){0};
    probe_cpu(m);
    m->cores = m->threads = m->memory_points = job->threads;
    snprintf(m->isa, sizeof m->isa, "%s", kernels_name(kernels_select(job->args.run.kernels)));
    for (unsigned i = 0; i < job->threads && i < MACHINE_THREADS_MAX; i++) /* only that of all is asked for */
        m->memory_bytes_per_s[i] = limits->of[BANDWIDTH];
    m->peaks = (struct machine_peaks){
        .f32 = limits->of[PEAK_F32], .bf16 = limits->of[PEAK_BF16], .int8 = limits->of[PEAK_INT8]};
    for (size_t i = 0; i < job->type_count; i++)
        machine_set_gemv_rate(m, tensor_format((uint32_t)job->types[i])->name, limits->gemv_rates[i]);
}

static enum ph_status learn_tests(const struct job *job, struct arena *arena, struct efficiency *calibration,
                                  struct ph_err *err)
{
    struct estimate_model model;
    struct machine machine;
    struct estimate_request request;
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
        for (size_t k = 0; status == PH_OK && k < test->kept; k++) {
            describe_machine(job, &test->samples[k].limits, &machine);
            status = estimate_learn(calibration, &request,
                                    test->kind[0] == 'p' ? EFFICIENCY_PREFILL : EFFICIENCY_DECODE,
                                    test->tokens, (double)test->tokens / test->samples[k].speed, now_s, err);
        }
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

static void print_text(const struct job *job)
{
    const struct model_info *info = model_info(job->run.model);
    const double *limits = job->limits.of;
    printf("model   %s, %.2f B parameters, %.0f MiB of weights, mostly %s\n", info->name,
           (double)info->n_params * 1e-9, (double)info->weight_bytes / (1 << 20),
           tensor_format((uint32_t)main_type(model_gguf(job->run.model)))->name);
    printf("here    %u threads, kernels %s, KV %s\n", job->threads,
           kernels_name(kernels_select(job->args.run.kernels)), cli_kv_names[job->args.run.kv]);
    printf("limits  read %.1f GB/s, f32 %.0f, bf16 %.0f, int8 %.0f Gop/s\n", limits[BANDWIDTH] * 1e-9,
           limits[PEAK_F32] * 1e-9, limits[PEAK_BF16] * 1e-9, limits[PEAK_INT8] * 1e-9);
    printf("%-8s %10s %10s %9s  %s\n", "test", "tokens/s", "limit", "of limit", "quiet samples");
    for (size_t i = 0; i < job->test_count; i++) {
        const struct test *test = &job->tests[i];
        char name[32];
        snprintf(name, sizeof name, "%s%zu", test->kind, test->tokens);
        if (test->kept)
            printf("%-8s %10.2f %10.2f %7.1f %%  %zu of %zu\n", name, test->speed, test->limit,
                   100 * test->speed / test->limit, test->kept, test->taken);
        else
            printf("%-8s %10s %10.2f %9s  none of %zu: the machine is busy, the threads had their cores for "
                   "%.0f %% at best, or these were slower at one end of a sample\n",
                   name, "-", test->limit, "-", test->taken, 100 * test->best_quiet);
    }
}

/* The object stays open: more may follow. */
static void put_limits(struct buf *out, const double limits[LIMIT_COUNT])
{
    buf_printf(out,
               "\"limits\":{\"read_bytes_per_s\":%.0f,\"f32_flops\":%.0f,\"bf16_flops\":%.0f,"
               "\"int8_ops\":%.0f",
               limits[BANDWIDTH], limits[PEAK_F32], limits[PEAK_BF16], limits[PEAK_INT8]);
}

static void put_sample(struct buf *out, const struct job *job, const struct sample *sample)
{
    buf_printf(out, "{\"tokens_per_s\":%.4f,", sample->speed);
    put_limits(out, sample->limits.of);
    buf_puts(out, ",\"gemv_ops_per_s\":{");
    for (size_t i = 0; i < job->type_count; i++)
        buf_printf(out, "%s\"%s\":%.0f", i ? "," : "", tensor_format((uint32_t)job->types[i])->name,
                   sample->limits.gemv_rates[i]);
    buf_puts(out, "}}}");
}

static void put_test(struct buf *out, const struct job *job, const struct test *test)
{
    buf_printf(out, "{\"test\":\"%s\",\"tokens\":%zu,\"tokens_per_s\":", test->kind, test->tokens);
    if (test->kept)
        buf_printf(out, "%.4f", test->speed);
    else
        buf_puts(out, "null");
    buf_printf(out, ",\"limit_tokens_per_s\":%.4f,\"samples_kept\":%zu,\"samples_taken\":%zu", test->limit,
               test->kept, test->taken);
    buf_puts(out, ",\"samples\":[");
    for (size_t i = 0; i < test->kept; i++) {
        buf_puts(out, i ? "," : "");
        put_sample(out, job, &test->samples[i]);
    }
    buf_puts(out, "]}");
}

static void print_json(const struct job *job)
{
    const struct model_info *info = model_info(job->run.model);
    struct buf out;
    buf_init(&out, 1 << 20);
    buf_puts(&out, "{\"model\":");
    json_write_string(&out, info->name, strlen(info->name));
    buf_printf(&out,
               ",\"params\":%llu,\"weight_bytes\":%llu,\"type\":\"%s\",\"threads\":%u,\"kernels\":\"%s\",",
               (unsigned long long)info->n_params, (unsigned long long)info->weight_bytes,
               tensor_format((uint32_t)main_type(model_gguf(job->run.model)))->name, job->threads,
               kernels_name(kernels_select(job->args.run.kernels)));
    put_limits(&out, job->limits.of);
    buf_puts(&out, "},\"tests\":[");
    for (size_t i = 0; i < job->test_count; i++) {
        buf_puts(&out, i ? "," : "");
        put_test(&out, job, &job->tests[i]);
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
    tensor_read_buffer_free(job.buffer);
    cli_run_close(&job.run);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
