/* pharos train lm: trains a language model from token files, resumably, and writes it as GGUF.
 *
 * Settings come from flags and a YAML file, by one table. The run itself is train's; here are its words:
 * what is about to happen, a line of progress, what came of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "base/limits.h"
#include "base/process.h"
#include "cli/cli_int.h"
#include "train/train.h"

#define ARENA_BYTES_MAX ((size_t)16 << 20)
#define PEAK_SECONDS 0.3
#define REDRAW_NS 200000000u
#define NS_PER_S 1e9
#define LINE_BYTES_MAX 512
#define WHOLE 9007199254740992.0

struct args {
    const char *config, *tokenizer, *init, *out, *name, *type;
    struct cli_list data;
    size_t d, layers, heads, kv_heads, head_dim, ff, context, batch, accumulate, time, steps, tokens, warmup,
        seed, validation_windows, validate_every, checkpoint_every, export_every, cool_now, threads, memory;
    double rope_base, rate, floor, cooldown, decay, beta1, beta2, eps, clip, checkpoint_minutes, log_seconds;
    int schedule, recompute;
    bool untied, muon, bf16, adapt, json;
};

static const char *const recompute_names[] = {"auto", "always", "never", NULL};
static const char *const schedule_names[] = {"cosine", "wsd", "wsd-sqrt", NULL};

static const struct cli_option options[] = {
    {CLI_OPTION("--data", "F.tokens[:WEIGHT]", CLI_LIST, struct args, data,
                "token file, or several with their shares of the windows (by size)")},
    {CLI_OPTION("--tokenizer", "T.gguf", CLI_TEXT, struct args, tokenizer,
                "the vocabulary that the data were made with (that of --init)")},
    {CLI_OPTION("--out", "DIR|M.gguf", CLI_TEXT, struct args, out,
                "directory of the run: checkpoints, loss.csv, model.gguf (or M.run beside M.gguf)")},
    {CLI_OPTION("--config", "F.yaml", CLI_TEXT, struct args, config,
                "settings by the names below, as in kv_heads: 4; flags win")},
    {CLI_OPTION("--init", "M.gguf", CLI_TEXT, struct args, init,
                "begin from this model (architecture llama) instead of random weights")},
    {CLI_OPTION("--d", "N", CLI_COUNT, struct args, d, "width (256)"), .min = 1, .max = 65536},
    {CLI_OPTION("--layers", "N", CLI_COUNT, struct args, layers, "layers (6)"), .min = 1,
     .max = MODEL_LAYERS_MAX},
    {CLI_OPTION("--heads", "N", CLI_COUNT, struct args, heads, "attention heads (width / 64)"), .min = 0,
     .max = 65536},
    {CLI_OPTION("--kv-heads", "N", CLI_COUNT, struct args, kv_heads, "heads of keys and values (as heads)"),
     .min = 0, .max = 65536},
    {CLI_OPTION("--head-dim", "N", CLI_COUNT, struct args, head_dim, "width of a head (width / heads)"),
     .min = 0, .max = 65536},
    {CLI_OPTION("--ff", "N", CLI_COUNT, struct args, ff, "width of the feed-forward (8/3 width, rounded up)"),
     .min = 0, .max = 1 << 20},
    {CLI_OPTION("--context", "N", CLI_COUNT, struct args, context, "longest context of the model (time)"),
     .min = 0, .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("--rope-base", "X", CLI_NUMBER, struct args, rope_base, "base of rotary positions (10000)"),
     .min = 1, .max = 1e12},
    {CLI_OPTION("--untied", NULL, CLI_SWITCH, struct args, untied, "output weights of their own")},
    {CLI_OPTION("--time", "N", CLI_COUNT, struct args, time, "tokens a window (256)"), .min = 0,
     .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("--batch", "N", CLI_COUNT, struct args, batch, "windows at once (16)"), .min = 1,
     .max = 65536},
    {CLI_OPTION("--accumulate", "N", CLI_COUNT, struct args, accumulate, "times that make a step (1)"),
     .min = 1, .max = 65536},
    {CLI_OPTION("--steps", "N", CLI_COUNT, struct args, steps, "steps in all (one epoch)"), .min = 0,
     .max = WHOLE},
    {CLI_OPTION("--tokens", "N", CLI_COUNT, struct args, tokens, "instead of --steps: tokens in all"),
     .min = 0, .max = WHOLE},
    {CLI_OPTION("--rate", "X", CLI_NUMBER, struct args, rate, "learning rate at its peak (0.001)"), .min = 0,
     .max = 100},
    {CLI_OPTION("--floor", "X", CLI_NUMBER, struct args, floor,
                "rate at the end (cosine: a tenth of the peak, wsd: 0)"),
     .min = 0, .max = 100},
    {CLI_OPTION("--warmup", "N", CLI_COUNT, struct args, warmup,
                "steps in which the rate rises (a tenth, at most 100)"),
     .min = 0, .max = WHOLE},
    {CLI_OPTION("--schedule", "cosine|wsd|wsd-sqrt", CLI_CHOICE, struct args, schedule,
                "after it: half a cosine, or constant with a fall at the end (cosine)"),
     .names = schedule_names},
    {CLI_OPTION("--cooldown", "X", CLI_NUMBER, struct args, cooldown, "wsd: share of the fall (0.2)"),
     .min = 0, .max = 1},
    {CLI_OPTION("--cool-now", "N", CLI_COUNT, struct args, cool_now,
                "wsd: from the checkpoint on, fall over N steps and end")},
    {CLI_OPTION("--decay", "X", CLI_NUMBER, struct args, decay, "weight decay, decoupled (0.1)"), .min = 0,
     .max = 100},
    {CLI_OPTION("--beta1", "X", CLI_NUMBER, struct args, beta1, "AdamW's first moment (0.9)"), .min = 0,
     .max = 1},
    {CLI_OPTION("--beta2", "X", CLI_NUMBER, struct args, beta2, "AdamW's second moment (0.95)"), .min = 0,
     .max = 1},
    {CLI_OPTION("--eps", "X", CLI_NUMBER, struct args, eps, "AdamW's epsilon (1e-8)"), .min = 1e-30,
     .max = 1},
    {CLI_OPTION("--clip", "X", CLI_NUMBER, struct args, clip, "largest norm of the gradient, 0: any (1)"),
     .min = 0, .max = 1e9},
    {CLI_OPTION("--muon", NULL, CLI_SWITCH, struct args, muon,
                "matrices between activations by Muon, the rest by AdamW: learns more from each token")},
    {CLI_OPTION("--seed", "N", CLI_COUNT, struct args, seed, "of first weights and order of data (0)"),
     .min = 0, .max = WHOLE},
    {CLI_OPTION("--bf16", NULL, CLI_SWITCH, struct args, bf16,
                "products of BF16, sums and weights of F32: about twice as fast where the CPU has them")},
    {CLI_OPTION("--memory", "MIB", CLI_COUNT, struct args, memory,
                "memory that training may take (75 % of what is available)"),
     .min = 1, .max = WHOLE / (1 << 20)},
    {CLI_OPTION("--recompute", "auto|always|never", CLI_CHOICE, struct args, recompute,
                "activations computed twice instead of kept; auto: those that memory has no room for"),
     .names = recompute_names},
    {CLI_OPTION("--validate-every", "N", CLI_COUNT, struct args, validate_every,
                "steps between validations (250)"),
     .min = 0, .max = WHOLE},
    {CLI_OPTION("--validation-windows", "N", CLI_COUNT, struct args, validation_windows,
                "held-out windows of each; 0: none, nor all of them at the end (64)"),
     .min = 0, .max = 1 << 20},
    {CLI_OPTION("--checkpoint-every", "N", CLI_COUNT, struct args, checkpoint_every,
                "steps between checkpoints, 0: by time only (0)"),
     .min = 0, .max = WHOLE},
    {CLI_OPTION("--checkpoint-minutes", "X", CLI_NUMBER, struct args, checkpoint_minutes,
                "minutes between checkpoints, 0: by steps only (5)"),
     .min = 0, .max = 1e6},
    {CLI_OPTION("--export-every", "N", CLI_COUNT, struct args, export_every,
                "steps between model files on the way, 0: at the end only (0)"),
     .min = 0, .max = WHOLE},
    {CLI_OPTION("--log-seconds", "X", CLI_NUMBER, struct args, log_seconds,
                "seconds between lines where stderr is no terminal (10)"),
     .min = 0, .max = 1e6},
    {CLI_OPTION("--name", "NAME", CLI_TEXT, struct args, name, "general.name of the model (from --out)")},
    {CLI_OPTION("--type", "T", CLI_TEXT, struct args, type,
                "number format of the model file: F32, F16, BF16, Q8_0, ... (F32)")},
    {CLI_OPTION("--threads", "N", CLI_COUNT, struct args, threads,
                "threads (one a CPU); no bit depends on it"),
     .min = 0, .max = 1024},
    {CLI_OPTION("--adapt", NULL, CLI_SWITCH, struct args, adapt,
                "go on from a checkpoint of other settings with these")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the summary as JSON")},
    CLI_OPTIONS_END,
};
static const char *const not_in_config[] = {"--config", "--adapt", "--cool-now", "--json", NULL};

static const struct cli_usage usage = {
    "train lm", "--data F.tokens --tokenizer T.gguf --out DIR [options]",
    "Trains a language model of the llama architecture and writes it as GGUF. Started again with the\n"
    "same --out it goes on from the last checkpoint, exactly as if it had never stopped; Ctrl-C stops it\n"
    "after the step with a checkpoint. DIR/loss.csv has a row a step.",
    options};

struct job {
    struct args args;
    struct arena arena;
    struct pool *pool;
    struct ranks *ranks;
    struct trainer *trainer;
    const struct mixture *type; /* NULL: F32 */
    struct run_params run;
    struct run_result result;
    char dir[PATH_BYTES_MAX], name[PATH_BYTES_MAX];
    double peak;                          /* FLOP/s of the products' kind */
    struct trainer_validation validation; /* the last one */
    double losses;                        /* of the steps since the last line that stays */
    uint64_t loss_count;
    bool terminal, drawn;
    uint64_t shown_ns;
};

/* ---- Settings */

static struct args default_args(void)
{
    struct trainer_params p;
    trainer_params_default(&p);
    return (struct args){.d = p.model.d,
                         .layers = p.model.layers,
                         .rope_base = p.model.rope_base,
                         .batch = p.batch,
                         .accumulate = p.accumulate,
                         .time = p.time,
                         .rate = p.rate,
                         .floor = p.floor,
                         .warmup = p.warmup,
                         .cooldown = p.cooldown,
                         .decay = p.decay,
                         .beta1 = p.beta1,
                         .beta2 = p.beta2,
                         .eps = p.eps,
                         .clip = p.clip,
                         .validation_windows = p.validation_windows,
                         .validate_every = 250,
                         .checkpoint_minutes = 5,
                         .log_seconds = 10};
}

/* "F[:WEIGHT]", as adapters have it. */
static enum ph_status parse_data(struct job *job, struct trainer_source **out, struct ph_err *err)
{
    const char *const *paths;
    float *weights;
    const struct cli_list *data = &job->args.data;
    enum ph_status status = cli_loras_parse(&job->arena, data, &paths, &weights, err);
    *out = arena_calloc(&job->arena, data->count, sizeof **out);
    if (status == PH_OK && !*out)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for %zu data files", data->count);
    for (size_t i = 0; status == PH_OK && i < data->count; i++) {
        bool weighted = strlen(paths[i]) != strlen(data->items[i]);
        if (weighted && !(weights[i] > 0))
            return ph_fail(err, PH_ERR_ARG, "--data %s: a weight must be above 0", data->items[i]);
        (*out)[i] = (struct trainer_source){paths[i], weighted ? (double)weights[i] : 0};
    }
    return status;
}

static enum ph_status create(struct job *job, struct ph_err *err)
{
    const struct args *a = &job->args;
    struct trainer_params p;
    struct trainer_source *sources;
    enum ph_status status = parse_data(job, &sources, err);
    if (status == PH_OK)
        status = pool_create(&job->pool, (unsigned)a->threads, 0, kernels_select(NULL), err);
    if (status != PH_OK)
        return status;
    trainer_params_default(&p);
    p.sources = sources;
    p.source_count = a->data.count;
    p.ranks = job->ranks;
    p.tokenizer = a->tokenizer;
    p.init = a->init;
    p.model.d = a->d;
    p.model.layers = a->layers;
    p.model.heads = a->heads;
    p.model.kv_heads = a->kv_heads;
    p.model.head_dim = a->head_dim;
    p.model.ff = a->ff;
    p.model.context = a->context;
    p.model.rope_base = a->rope_base;
    p.model.tied = !a->untied;
    p.model.bf16 = a->bf16;
    p.muon = a->muon;
    p.recompute = (enum trainer_recompute)a->recompute;
    p.memory = (uint64_t)a->memory << 20;
    p.batch = a->batch;
    p.accumulate = a->accumulate;
    p.time = a->time;
    p.steps = a->steps;
    p.tokens = a->tokens;
    p.rate = a->rate;
    p.floor = a->floor;
    p.warmup = a->warmup;
    p.schedule = (enum schedule_kind)a->schedule;
    p.cooldown = a->cooldown;
    p.decay = a->decay;
    p.beta1 = a->beta1;
    p.beta2 = a->beta2;
    p.eps = a->eps;
    p.clip = a->clip;
    p.seed = a->seed;
    p.validation_windows = a->validation_windows;
    return trainer_create(&job->trainer, job->pool, &p, err);
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len > end_len && strcmp(text + len - end_len, end) == 0;
}

/* --out DIR: the run is in it. --out M.gguf: the run is in M.run. */
static enum ph_status name_outputs(struct job *job, struct ph_err *err)
{
    const struct args *a = &job->args;
    size_t len = strlen(a->out);
    bool file = ends_with(a->out, ".gguf");
    while (len > 1 && a->out[len - 1] == '/')
        len--;
    if (len + sizeof ".run" > PATH_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "--out: the path is too long");
    snprintf(job->dir, sizeof job->dir, "%.*s%s", (int)(file ? len - 5 : len), a->out, file ? ".run" : "");
    const char *slash = memchr(job->dir, '/', strlen(job->dir)) ? strrchr(job->dir, '/') + 1 : job->dir;
    snprintf(job->name, sizeof job->name, "%.*s", (int)(strlen(slash) - (file ? 4 : 0)), slash);
    job->run = (struct run_params){.dir = job->dir,
                                   .model = file ? a->out : NULL,
                                   .name = a->name ? a->name : job->name,
                                   .validate_every = a->validate_every,
                                   .checkpoint_every = a->checkpoint_every,
                                   .export_every = a->export_every,
                                   .checkpoint_minutes = a->checkpoint_minutes,
                                   .cool_now = a->cool_now,
                                   .adapt = a->adapt,
                                   .type = job->type};
    return PH_OK;
}

/* ---- While it works */

static void wipe(struct job *job)
{
    if (job->drawn)
        fputs("\r\033[K", stderr);
    job->drawn = false;
}

static void on_note(void *ud, const char *text)
{
    wipe(ud);
    fprintf(stderr, "%s\n", text);
}

static bool on_stop(void *ud)
{
    (void)ud;
    return process_stop_asked();
}

static void put_duration(struct buf *out, double seconds)
{
    if (seconds < 100)
        buf_printf(out, "%.0f s", seconds);
    else if (seconds < 6000)
        buf_printf(out, "%.0f min", seconds / 60);
    else
        buf_printf(out, "%.0f h %02.0f min", floor(seconds / 3600), floor(fmod(seconds, 3600) / 60));
}

/* What matters most comes first: a narrow terminal cuts the end. */
static void put_line(struct job *job, const struct run_report *r, struct buf *out)
{
    uint64_t end = trainer_step_end(job->trainer);
    buf_printf(out, "step %llu/%llu %.1f %%  loss %.4f", (unsigned long long)r->step.step,
               (unsigned long long)end, 100 * (double)r->step.step / (double)end,
               job->losses / (double)job->loss_count);
    if (job->validation.windows)
        buf_printf(out, "  held out %.4f, %.4f bit/byte", job->validation.loss,
                   job->validation.bits_per_byte);
    buf_puts(out, "  ");
    put_duration(out, r->left_s);
    buf_printf(out, " left  %.0f tok/s", r->tokens_per_s);
    if (job->peak > 0)
        buf_printf(out, ", %.0f %% of peak",
                   100 * r->tokens_per_s * trainer_flops_per_token(job->trainer) / job->peak);
    buf_printf(out, "  rate %.3g  norm %.3g", r->step.rate, r->step.norm);
}

/* On a terminal one line is drawn over and over, but lines of validations stay. A line's loss is the mean of
 * the steps since the last one. */
static void on_step(void *ud, const struct run_report *r)
{
    struct job *job = ud;
    uint64_t now = uv_hrtime();
    bool last = r->step.step == trainer_step_end(job->trainer);
    double wait_ns = job->terminal ? REDRAW_NS : job->args.log_seconds * NS_PER_S;
    job->losses += r->step.loss;
    job->loss_count++;
    if (r->validation)
        job->validation = *r->validation;
    if (!last && !r->validation && job->shown_ns && (double)(now - job->shown_ns) < wait_ns)
        return;
    struct buf line;
    buf_init(&line, LINE_BYTES_MAX);
    put_line(job, r, &line);
    wipe(job);
    job->drawn = job->terminal && !r->validation && !last;
    unsigned columns = process_terminal_columns(STDERR_FILENO);
    int most = job->drawn && columns > 1 ? (int)columns - 1 : LINE_BYTES_MAX;
    fprintf(stderr, "%.*s%s", most, line.data ? line.data : "", job->drawn ? "" : "\n");
    fflush(stderr);
    buf_release(&line);
    if (!job->drawn) {
        job->losses = 0;
        job->loss_count = 0;
    }
    job->shown_ns = now;
}

static void introduce(struct job *job)
{
    const struct trainer_params *p = trainer_params(job->trainer);
    const struct decoder_config *c = &p->model;
    job->peak = p->model.bf16 ? tensor_measure_peak_bf16(job->pool, PEAK_SECONDS) : 0;
    const char *kind = job->peak > 0 ? "BF16" : "F32";
    if (!(job->peak > 0))
        job->peak = tensor_measure_peak_f32(job->pool, PEAK_SECONDS);
    job->peak *= ranks_count(job->ranks);
    size_t count;
    double weights = 0;
    const struct param *params = decoder_params(trainer_decoder(job->trainer), &count);
    for (size_t i = 0; i < count; i++)
        weights += (double)params[i].rows * (double)params[i].cols;
    fprintf(stderr,
            "%.2f M parameters: %zu wide, %zu layers, %zu heads (%zu of keys), feed-forward %zu, vocabulary "
            "%zu\n",
            weights * 1e-6, c->d, c->layers, c->heads, c->kv_heads, c->ff, c->vocab);
    fprintf(
        stderr, "%llu steps of %llu tokens, rate %g, %s; %zu MiB; peak %.0f GFLOP/s of %s on %u threads\n",
        (unsigned long long)trainer_step_end(job->trainer),
        (unsigned long long)trainer_step_tokens(job->trainer), p->rate, schedule_names[p->schedule],
        decoder_bytes(trainer_decoder(job->trainer)) >> 20, job->peak * 1e-9, kind, pool_lanes(job->pool));
    if (ranks_count(job->ranks) > 1)
        fprintf(stderr, "%u processes, each with %zu of every %zu windows\n", ranks_count(job->ranks),
                p->batch / ranks_count(job->ranks), p->batch);
    if (c->recompute)
        fprintf(stderr, "activations of %zu of %zu layers are computed twice, %s\n", c->layers - c->keep,
                c->layers,
                p->recompute == RECOMPUTE_AUTO ? "because memory is short" : "as --recompute asks for");
}

/* ---- What came of it */

static void report_json(const struct job *job, double seconds)
{
    const struct run_result *r = &job->result;
    const struct decoder_config *c = &trainer_params(job->trainer)->model;
    printf("{\"begun_at\":%llu,\"ended_at\":%llu,\"steps\":%llu,\"stopped\":%s,\"loss\":%.6f,"
           "\"validation\":{\"windows\":%llu,\"tokens\":%llu,\"loss\":%.6f,\"perplexity\":%.4f,"
           "\"bits_per_byte\":%.6f},\"recomputed_layers\":%zu,\"seconds\":%.3f}\n",
           (unsigned long long)r->begun_at, (unsigned long long)r->ended_at,
           (unsigned long long)trainer_step_end(job->trainer), r->stopped ? "true" : "false", r->last.loss,
           (unsigned long long)r->validation.windows, (unsigned long long)r->validation.tokens,
           r->validation.loss, exp(r->validation.loss), r->validation.bits_per_byte,
           c->recompute ? c->layers - c->keep : 0, seconds);
}

static void report_text(const struct job *job, double seconds)
{
    const struct run_result *r = &job->result;
    if (r->stopped) {
        printf("stopped at step %llu of %llu; the same command goes on from there\n",
               (unsigned long long)r->ended_at, (unsigned long long)trainer_step_end(job->trainer));
        return;
    }
    printf("%llu steps in %.1f s\n", (unsigned long long)(r->ended_at - r->begun_at), seconds);
    if (r->validation.windows)
        printf("held out   loss %.4f, perplexity %.3f, %.4f bits a byte, on all %llu tokens\n",
               r->validation.loss, exp(r->validation.loss), r->validation.bits_per_byte,
               (unsigned long long)r->validation.tokens);
    else if (job->args.validation_windows > 0)
        printf("held out   nothing is; pharos train data --held-out keeps a share for validation\n");
    if (job->run.model)
        printf("model      %s\n", job->run.model);
    else
        printf("model      %s/model.gguf\n", job->dir);
}

static enum ph_status work(struct job *job, struct ph_err *err)
{
    const struct run_hooks hooks = {.step = on_step, .note = on_note, .stop = on_stop, .ud = job};
    enum ph_status status = ranks_open(&job->ranks, err);
    bool speaks = ranks_index(job->ranks) == 0;
    if (status == PH_OK)
        status = name_outputs(job, err);
    if (status == PH_OK)
        status = create(job, err);
    if (status != PH_OK)
        return status;
    if (speaks)
        introduce(job);
    process_catch_stop();
    uint64_t start_ns = uv_hrtime();
    status = trainer_run(job->trainer, &job->run, &hooks, &job->result, err);
    wipe(job);
    double seconds = (double)(uv_hrtime() - start_ns) / NS_PER_S;
    if (status == PH_OK && speaks && job->args.json)
        report_json(job, seconds);
    else if (status == PH_OK && speaks)
        report_text(job, seconds);
    return status;
}

/* What one process of several can't do ends them all. */
static int fail(struct job *job, const struct ph_err *err)
{
    if (ranks_count(job->ranks) == 1)
        return cli_fail(err);
    cli_error(CLI_EXIT_FAILURE, "process %u of %u: %s", ranks_index(job->ranks) + 1, ranks_count(job->ranks),
              err->message);
    ranks_end_all(job->ranks);
    return CLI_EXIT_FAILURE;
}

/* Flags are read twice: to find the file, and over it. */
static bool read_settings(struct job *job, int argc, char **argv, int *exit_code)
{
    struct ph_err err;
    job->args = default_args();
    if (!cli_parse(&usage, argc, argv, &job->args, exit_code))
        return false;
    const char *config = job->args.config;
    if (config) {
        job->args = default_args();
        if (cli_config_read(&job->arena, config, &usage, not_in_config, &job->args, sizeof job->args, &err) !=
            PH_OK) {
            *exit_code = cli_fail(&err);
            return false;
        }
        struct cli_list data = job->args.data;
        job->args.data.count = 0;
        if (!cli_parse(&usage, argc, argv, &job->args, exit_code))
            return false;
        if (job->args.data.count == 0)
            job->args.data = data;
    }
    const char *missing = job->args.data.count == 0                 ? "--data F.tokens"
                          : !job->args.tokenizer && !job->args.init ? "--tokenizer T.gguf"
                          : !job->args.out                          ? "--out DIR"
                                                                    : NULL;
    if (missing)
        *exit_code =
            cli_error(CLI_EXIT_USAGE, "train lm: %s is missing; see pharos train lm --help", missing);
    else if (job->args.type && cli_mixture_parse(job->args.type, &job->type, &err) != PH_OK)
        *exit_code = cli_error(CLI_EXIT_USAGE, "train lm: --type: %s", err.message);
    return *exit_code == CLI_EXIT_OK;
}

int cmd_train_lm(int argc, char **argv)
{
    struct job job = {.terminal = isatty(STDERR_FILENO) == 1};
    struct ph_err err;
    int exit_code;
    arena_init(&job.arena, ARENA_BYTES_MAX);
    if (read_settings(&job, argc, argv, &exit_code))
        exit_code = work(&job, &err) == PH_OK ? CLI_EXIT_OK : fail(&job, &err);
    trainer_free(job.trainer);
    if (job.pool)
        pool_free(job.pool);
    ranks_close(job.ranks);
    arena_release(&job.arena);
    return exit_code;
}
