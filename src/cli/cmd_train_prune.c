/* pharos train prune: a smaller model of the heads and columns that matter most, trained again for a while.
 *
 * Three models are measured alike: the given one, the pruned one, the recovered one. The loss is that of the
 * weights as they are in training; size and speed are those of the file, in the number format of the given
 * one unless told otherwise. */
#include <string.h>

#include <uv.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/process.h"
#include "cli/cli_run_int.h"
#include "train/train.h"

#define NS_PER_S 1e9
#define SPEED_ROUNDS_MIN 5
#define SPEED_SECONDS 1.0
#define SPEED_TOKENS ((size_t)64)
#define STAGES 3

struct args {
    const char *model, *out, *type;
    struct cli_list data;
    size_t heads, ff, windows, recover, batch, time, seed, threads;
    double keep, rate;
    bool bf16, json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--model", "IN.gguf", CLI_TEXT, struct args, model, "the model (architecture llama)"),
     .required = true},
    {CLI_OPTION("--data", "F.tokens", CLI_LIST, struct args, data,
                "token file of its vocabulary (pharos train data), or several"),
     .required = true},
    {CLI_OPTION("--out", "OUT.gguf", CLI_TEXT, struct args, out, "file to write"), .required = true},
    {CLI_OPTION("--heads", "K", CLI_COUNT, struct args, heads,
                "heads that stay in each layer, whole groups of shared keys (by --keep)"),
     .min = 1, .max = MODEL_HEADS_MAX},
    {CLI_OPTION("--ff", "N", CLI_COUNT, struct args, ff,
                "feed-forward columns that stay, a multiple of 16 (by --keep); Q8_0 likes 32, K types 256"),
     .min = 1, .max = MODEL_DIM_MAX},
    {CLI_OPTION("--keep", "SHARE", CLI_NUMBER, struct args, keep,
                "share of heads and columns that stays where no number is given (1)"),
     .min = 1e-6, .max = 1},
    {CLI_OPTION("--windows", "N", CLI_COUNT, struct args, windows,
                "windows of the data whose gradients decide (128)"),
     .min = 1, .max = 1 << 24},
    {CLI_OPTION("--recover", "STEPS", CLI_COUNT, struct args, recover, "steps of training afterwards (0)"),
     .max = 1e9},
    {CLI_OPTION("--rate", "X", CLI_NUMBER, struct args, rate, "learning rate of these (0.0003)"), .max = 100},
    {CLI_OPTION("--batch", "N", CLI_COUNT, struct args, batch, "windows a step (16)"), .min = 1,
     .max = 65536},
    {CLI_OPTION("--time", "N", CLI_COUNT, struct args, time, "tokens a window (256, or the context)"),
     .min = 1, .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("--bf16", NULL, CLI_SWITCH, struct args, bf16, "products of BF16, sums and weights of F32")},
    {CLI_OPTION("--type", "T", CLI_TEXT, struct args, type, "number format of OUT (that of IN)")},
    {CLI_OPTION("--seed", "N", CLI_COUNT, struct args, seed, "of the order of data (0)"), .max = 1e15},
    {CLI_OPTION("--threads", "N", CLI_COUNT, struct args, threads, "threads (one a CPU)"), .max = 1024},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "train prune", "--model IN --data F.tokens --out OUT --heads K | --ff N | --keep SHARE [options]",
    "Removes whole attention heads and feed-forward columns, those that matter least to the loss, and "
    "trains\n"
    "what remains again. The file gets smaller and every token cheaper. Setting single weights to zero "
    "would\n"
    "do neither: dense rows keep their bytes, and zeros are read and multiplied like any other number.",
    options};

struct measured {
    const char *name;
    double parameters, tokens_per_s;
    uint64_t bytes;
    size_t heads, ff;
    struct trainer_validation validation;
};

struct job {
    struct args args;
    struct pool *pool;
    struct trainer *trainer;
    const struct mixture *type;
    struct cli_progress progress;
    struct measured stages[STAGES];
    size_t stage_count;
    uint64_t steps; /* of recovery, done */
};

/* ---- Measuring */

/* Tokens a second, one after the other, in the fastest of some rounds: what else runs only slows down. */
static enum ph_status decode_speed(const char *path, size_t threads, double *out, struct ph_err *err)
{
    const struct cli_run_args args = {.model = path, .threads = threads, .kv = CLI_KV_F16};
    struct cli_run *run = mem_calloc(1, sizeof *run);
    uint64_t begun_ns = uv_hrtime(), fastest_ns = UINT64_MAX;
    enum ph_status status = run ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory to measure %s", path);
    if (status == PH_OK)
        status = cli_run_open(run, &args, SPEED_TOKENS, 1, err);
    float *logits = status == PH_OK ? mem_calloc(run->n_vocab, sizeof *logits) : NULL;
    for (size_t r = 0; status == PH_OK && logits; r++) {
        uint64_t start_ns = uv_hrtime();
        if (r >= SPEED_ROUNDS_MIN && (double)(start_ns - begun_ns) > SPEED_SECONDS * NS_PER_S)
            break;
        cli_run_forget(run);
        for (size_t i = 0; status == PH_OK && i < SPEED_TOKENS; i++) {
            int32_t id = (int32_t)(i % run->n_vocab);
            status = cli_run_step(run, &id, 1, PHASE_DECODE, logits, err);
        }
        uint64_t took_ns = uv_hrtime() - start_ns;
        fastest_ns = took_ns < fastest_ns ? took_ns : fastest_ns;
    }
    *out = SPEED_TOKENS * NS_PER_S / (double)fastest_ns;
    mem_free(logits);
    if (run)
        cli_run_close(run);
    mem_free(run);
    return status;
}

static enum ph_status measure(struct job *job, const char *name, const char *path, struct ph_err *err)
{
    struct measured *m = &job->stages[job->stage_count++];
    struct file_map map;
    size_t count;
    const struct param *params = decoder_params(trainer_decoder(job->trainer), &count);
    const struct decoder_config *c = &trainer_params(job->trainer)->model;
    *m = (struct measured){.name = name, .heads = c->heads, .ff = c->ff};
    for (size_t i = 0; i < count; i++)
        m->parameters += (double)params[i].rows * (double)params[i].cols;
    enum ph_status status = file_map_open(&map, path, err);
    if (status != PH_OK)
        return status;
    m->bytes = map.len;
    file_map_release(&map);
    status = trainer_validate(job->trainer, true, &m->validation, err);
    if (status == PH_OK)
        status = decode_speed(path, job->args.threads, &m->tokens_per_s, err);
    return status;
}

/* ---- The work */

static enum ph_status choose_type(struct job *job, struct ph_err *err)
{
    struct gguf *gguf;
    uint64_t file_type = 0;
    if (job->type)
        return PH_OK;
    enum ph_status status = gguf_open(&gguf, job->args.model, err);
    if (status != PH_OK)
        return status;
    if (!gguf_get_uint(gguf, "general.file_type", &file_type))
        file_type = 0;
    gguf_free(gguf);
    for (size_t i = 0; (job->type = mixture_at(i)) != NULL && job->type->file_type != file_type;)
        i++;
    if (!job->type)
        return ph_fail(err, PH_ERR_ARG, "%s is of a type that can't be written; give --type",
                       job->args.model);
    return PH_OK;
}

static enum ph_status create(struct job *job, struct ph_err *err)
{
    const struct args *a = &job->args;
    struct trainer_source sources[CLI_LIST_MAX];
    struct trainer_params p;
    for (size_t i = 0; i < a->data.count; i++)
        sources[i] = (struct trainer_source){.path = a->data.items[i]};
    trainer_params_default(&p);
    p.model = (struct decoder_config){.bf16 = a->bf16}; /* the rest is the file's */
    p.sources = sources;
    p.source_count = a->data.count;
    p.init = a->model;
    p.batch = a->batch;
    p.time = a->time;
    p.steps = a->recover;
    p.rate = a->rate;
    p.seed = a->seed;
    enum ph_status status = pool_create(&job->pool, (unsigned)a->threads, 0, kernels_select(NULL), err);
    return status == PH_OK ? trainer_create(&job->trainer, job->pool, &p, err) : status;
}

static enum ph_status write_model(struct job *job, struct ph_err *err)
{
    return trainer_export_as(job->trainer, job->args.out, "pruned", job->type, err);
}

static void on_progress(void *ud, uint64_t done, uint64_t total)
{
    cli_progress_show(ud, done, total);
}

static enum ph_status prune(struct job *job, struct ph_err *err)
{
    const struct args *a = &job->args;
    const struct prune_params p = {.heads = a->heads, .ff = a->ff, .keep = a->keep, .windows = a->windows};
    cli_progress_begin(&job->progress, "gradients");
    enum ph_status status = trainer_prune(job->trainer, &p, on_progress, &job->progress, err);
    cli_progress_end(&job->progress);
    if (status == PH_OK)
        status = write_model(job, err);
    return status == PH_OK ? measure(job, "pruned", a->out, err) : status;
}

static enum ph_status recover(struct job *job, struct ph_err *err)
{
    struct trainer_report report;
    enum ph_status status = PH_OK;
    if (job->args.recover == 0)
        return PH_OK;
    process_catch_stop();
    cli_progress_begin(&job->progress, "training");
    while (status == PH_OK && job->steps < job->args.recover && !process_stop_asked()) {
        status = trainer_step(job->trainer, &report, err);
        cli_progress_show(&job->progress, ++job->steps, job->args.recover);
    }
    cli_progress_end(&job->progress);
    if (status == PH_OK)
        status = write_model(job, err);
    return status == PH_OK ? measure(job, "recovered", job->args.out, err) : status;
}

/* ---- What came of it */

static void report_json(const struct job *job)
{
    printf("{\"steps\":%llu", (unsigned long long)job->steps);
    for (size_t i = 0; i < job->stage_count; i++) {
        const struct measured *m = &job->stages[i];
        printf(",\"%s\":{\"parameters\":%.0f,\"heads\":%zu,\"ff\":%zu,\"bytes\":%llu,\"loss\":%.6f,"
               "\"bits_per_byte\":%.6f,\"held_out_tokens\":%llu,\"tokens_per_s\":%.2f}",
               m->name, m->parameters, m->heads, m->ff, (unsigned long long)m->bytes, m->validation.loss,
               m->validation.bits_per_byte, (unsigned long long)m->validation.tokens, m->tokens_per_s);
    }
    puts("}");
}

static void report_text(const struct job *job)
{
    printf("%-10s %12s %6s %6s %12s %10s %9s %9s\n", "", "parameters", "heads", "ff", "file bytes",
           "held out", "bit/byte", "tok/s");
    for (size_t i = 0; i < job->stage_count; i++) {
        const struct measured *m = &job->stages[i];
        printf("%-10s %12.0f %6zu %6zu %12llu ", m->name, m->parameters, m->heads, m->ff,
               (unsigned long long)m->bytes);
        if (m->validation.windows)
            printf("%10.4f %9.4f ", m->validation.loss, m->validation.bits_per_byte);
        else
            printf("%10s %9s ", "-", "-");
        printf("%9.1f\n", m->tokens_per_s);
    }
    if (job->steps)
        printf("%llu steps of training after pruning\n", (unsigned long long)job->steps);
    printf("%s, %s\n", job->args.out, job->type->name);
}

static enum ph_status work(struct job *job, struct ph_err *err)
{
    enum ph_status status = choose_type(job, err);
    if (status == PH_OK)
        status = create(job, err);
    if (status == PH_OK)
        status = measure(job, "before", job->args.model, err);
    if (status == PH_OK)
        status = prune(job, err);
    if (status == PH_OK)
        status = recover(job, err);
    if (status == PH_OK && job->args.json)
        report_json(job);
    else if (status == PH_OK)
        report_text(job);
    return status;
}

int cmd_train_prune(int argc, char **argv)
{
    struct job job = {.args = {.keep = 1, .windows = 128, .rate = 3e-4, .batch = 16}};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    if (job.args.heads == 0 && job.args.ff == 0 && job.args.keep >= 1)
        return cli_error(CLI_EXIT_USAGE, "train prune: say what stays: --heads K, --ff N or --keep SHARE");
    if (job.args.type && cli_mixture_parse(job.args.type, &job.type, &err) != PH_OK)
        return cli_error(CLI_EXIT_USAGE, "train prune: --type: %s", err.message);
    exit_code = work(&job, &err) == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
    trainer_free(job.trainer);
    if (job.pool)
        pool_free(job.pool);
    return exit_code;
}
