/* pharos train lab: what each number format costs a model, and the smallest assignment of formats within a
 * loss. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/process.h"
#include "cli/cli_int.h"
#include "train/train.h"

struct args {
    const char *model, *text, *data, *out, *keep, *loss, *types, *kernels;
    size_t window, tokens, threads;
    bool untimed, unmixed, plain, again, json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--model", "F", CLI_TEXT, struct args, model,
                "the original: a GGUF file in F32, F16 or BF16"),
     .required = true},
    {CLI_OPTION("--text", "T", CLI_TEXT, struct args, text,
                "a text like those the model will read (\"-\": standard input)")},
    {CLI_OPTION("--data", "F.tokens", CLI_TEXT, struct args, data,
                "instead of a text: the held-out part of a token file (pharos train data)")},
    {CLI_OPTION("--loss", "X", CLI_TEXT, struct args, loss,
                "bound: nats of KL divergence a token, as 0.01, or percent of perplexity, as 1% (0.01)")},
    {CLI_OPTION("--keep", "F", CLI_TEXT, struct args, keep,
                "write the smallest model within the bound to F")},
    {CLI_OPTION("--out", "DIR", CLI_TEXT, struct args, out,
                "folder for lab.csv, lab.md, tensors.csv, loss.svg, speed.svg")},
    {CLI_OPTION("--types", "A,B", CLI_TEXT, struct args, types, "formats to measure (all)")},
    {CLI_OPTION("--tokens", "N", CLI_COUNT, struct args, tokens,
                "tokens to measure on, as many again to learn from (4096)"),
     .min = 16, .max = 1e9},
    {CLI_OPTION("--context", "N", CLI_COUNT, struct args, window, "tokens a window, BOS included (256)"),
     .min = 2, .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("--no-mixed", NULL, CLI_SWITCH, struct args, unmixed, "no search for mixed assignments")},
    {CLI_OPTION("--no-importance", NULL, CLI_SWITCH, struct args, plain, "no rows rounded by importance")},
    {CLI_OPTION("--no-speed", NULL, CLI_SWITCH, struct args, untimed, "no timing")},
    {CLI_OPTION("--again", NULL, CLI_SWITCH, struct args, again,
                "take a file that is quantised already as the original")},
    {CLI_OPTION("--threads", "N", CLI_COUNT, struct args, threads, "threads (one a CPU)"), .min = 1,
     .max = 4096},
    {CLI_OPTION("--kernels", "SET", CLI_TEXT, struct args, kernels,
                "ref, avx2, avx512, amx (the best this CPU has)")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "train lab", "--model F --text T|--data F.tokens [--loss X] [--keep F] [--out DIR] [options]",
    "Quantises a model in memory to every format, plainly and by importance, and measures beside the "
    "original:\n"
    "file size, memory, tokens/s, latency, perplexity, KL divergence. Then finds out how sensitive each "
    "matrix\n"
    "is and searches the smallest mixture of formats within the bound. (Single weights set to zero would "
    "save\n"
    "neither memory nor time: formats store every number; only whole rows, heads and layers can be left "
    "out.)",
    options};

struct job {
    struct args args;
    struct lab_bound bound;
    struct lab *lab;
    struct cli_progress progress;
    const char *what; /* is in progress */
};

static bool show(void *ud, const char *what, uint64_t done, uint64_t total)
{
    struct job *job = ud;
    if (what != job->what) {
        cli_progress_end(&job->progress);
        cli_progress_begin(&job->progress, what);
        job->what = what;
    }
    cli_progress_show(&job->progress, done, total);
    return !process_stop_asked();
}

/* "0.01" nats or "1%" of perplexity. */
static bool parse_bound(const char *text, struct lab_bound *out)
{
    char *end;
    double value = strtod(text, &end);
    out->percent = *end == '%';
    out->value = value;
    return end != text && value >= 0 && value < 1e6 && end[out->percent] == 0;
}

/* Whether the comma-separated list (NULL: everything) has the name. */
static bool wanted(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = list; at && *at; at += strcspn(at, ",")) {
        at += *at == ',';
        if (strcspn(at, ",") == len && strncasecmp(at, name, len) == 0)
            return true;
    }
    return !list;
}

static enum ph_status check_types(const char *list, struct ph_err *err)
{
    struct ph_err unknown;
    enum ph_status status = PH_OK;
    for (const char *at = list; at && *at && status == PH_OK; at += strcspn(at, ",")) {
        char name[32];
        const struct mixture *mixture;
        at += *at == ',';
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, ","), at);
        if (cli_mixture_parse(name, &mixture, &unknown) != PH_OK)
            status = ph_fail(err, PH_ERR_ARG, "--types: %s", unknown.message);
    }
    return status;
}

/* ---- The work */

static enum ph_status read_text(struct job *job, struct token_list *tokens, struct ph_err *err)
{
    const struct args *args = &job->args;
    const struct model *model = lab_model(job->lab);
    if (args->data)
        return corpus_join(args->data, model_gguf(model), CORPUS_HELD_OUT, tokens, err);
    struct buf text;
    buf_init(&text, CLI_INPUT_BYTES_MAX);
    enum ph_status status = file_read(args->text, &text, err);
    if (status == PH_OK)
        status = vocab_tokenize(model_vocab(model), text.data ? text.data : "", text.len, false, false,
                                tokens, err);
    buf_release(&text);
    return status;
}

static bool gains_by_importance(const struct mixture *mixture)
{
    return mixture->main != TENSOR_F32 && mixture->main != TENSOR_F16 && mixture->main != TENSOR_BF16;
}

static enum ph_status measure_all(struct job *job, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; mixture_at(i) && status == PH_OK; i++) {
        const struct mixture *mixture = mixture_at(i);
        if (mixture->main == TENSOR_F32 || !wanted(job->args.types, mixture->name))
            continue;
        status = lab_measure(job->lab, mixture, false, err);
        if (status == PH_OK && !job->args.plain && gains_by_importance(mixture))
            status = lab_measure(job->lab, mixture, true, err);
    }
    return status;
}

static enum ph_status run(struct job *job, struct ph_err *err)
{
    const struct args *args = &job->args;
    struct token_list tokens = {0};
    const struct lab_params params = {.model = args->model,
                                      .window = args->window,
                                      .tokens_max = args->tokens,
                                      .threads = (unsigned)args->threads,
                                      .kernels = args->kernels,
                                      .timed = !args->untimed,
                                      .again = args->again,
                                      .progress = show,
                                      .ud = job};
    cli_progress_begin(&job->progress, "reading");
    enum ph_status status = lab_create(&job->lab, &params, err);
    if (status == PH_OK)
        status = read_text(job, &tokens, err);
    if (status == PH_OK)
        status = lab_read(job->lab, tokens.ids, tokens.len, args->data ? args->data : args->text, err);
    if (status == PH_OK)
        status = measure_all(job, err);
    if (status == PH_OK && !args->unmixed)
        status = lab_search(job->lab, job->bound, err);
    cli_progress_end(&job->progress);
    token_list_release(&tokens);
    return status;
}

static void print(const struct job *job, const struct lab_row *best, struct buf *out)
{
    if (job->args.json) {
        lab_json(job->lab, job->bound, out);
        return;
    }
    lab_table(job->lab, false, out);
    const char *unit = job->bound.percent ? "% of perplexity" : "nats of KL divergence a token";
    if (best)
        buf_printf(out, "\nsmallest within %g %s: %s%s, %.2f MB, loss %.5g\n", job->bound.value, unit,
                   best->name, best->weighted ? " by importance" : "", (double)best->file_bytes / 1e6,
                   lab_loss(job->lab, best, job->bound.percent));
    else
        buf_printf(out, "\nnothing is within %g %s: give a greater --loss\n", job->bound.value, unit);
}

static enum ph_status finish(struct job *job, struct ph_err *err)
{
    const struct lab_row *best = lab_smallest(job->lab, job->bound);
    struct buf out;
    enum ph_status status = PH_OK;
    buf_init(&out, CLI_INPUT_BYTES_MAX);
    print(job, best, &out);
    status = cli_flush(&out, err);
    buf_release(&out);
    if (status == PH_OK && job->args.out)
        status = lab_report(job->lab, job->bound, job->args.out, err);
    if (status == PH_OK && job->args.keep && !best)
        status = ph_fail(err, PH_ERR_ARG, "nothing is within --loss %s, so %s is not written", job->args.loss,
                         job->args.keep);
    if (status == PH_OK && job->args.keep)
        status = lab_write(job->lab, best, job->args.keep, err);
    return status;
}

int cmd_train_lab(int argc, char **argv)
{
    struct job job = {.args = {.window = 256, .tokens = 4096, .loss = "0.01"}};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    if (!job.args.text == !job.args.data)
        return cli_error(CLI_EXIT_USAGE, "train lab: give one of --text T (a text like those the model will "
                                         "read) and --data F.tokens");
    if (!parse_bound(job.args.loss, &job.bound))
        return cli_error(CLI_EXIT_USAGE,
                         "train lab: --loss \"%s\" is neither nats, as 0.01, nor percent, as 1%%",
                         job.args.loss);
    if (check_types(job.args.types, &err) != PH_OK)
        return cli_error(CLI_EXIT_USAGE, "%s", err.message);
    process_catch_stop();
    enum ph_status status = run(&job, &err);
    if (status == PH_OK)
        status = finish(&job, &err);
    lab_free(job.lab);
    if (status == PH_OK)
        return CLI_EXIT_OK;
    return process_stop_asked() ? cli_error(CLI_EXIT_FAILURE, "%s", err.message) : cli_fail(&err);
}
