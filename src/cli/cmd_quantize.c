/* pharos quantize: a GGUF file with its matrices in smaller number formats, if wanted with regard to which of
 * their inputs matter. */
#include "base/file.h"
#include "base/limits.h"
#include "base/process.h"
#include "cli/cli_int.h"

#define WINDOW 256 /* tokens of the text read at a time, as perplexity does */

struct args {
    const char *in, *out, *type, *importance, *text, *keep;
    bool again, json;
    size_t threads, tokens;
};

static const struct cli_option options[] = {
    {CLI_OPTION("IN.gguf", "F", CLI_TEXT, struct args, in, "model to read, F32, F16 or BF16"),
     .required = true},
    {CLI_OPTION("OUT.gguf", "F", CLI_TEXT, struct args, out, "file to write"), .required = true},
    {CLI_OPTION("TYPE", "T", CLI_TEXT, struct args, type,
                "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_1, Q5_0, Q4_K_M, Q4_1, Q4_0, IQ4_NL, IQ4_XS, MXFP4, "
                "Q3_K_M, Q2_K"),
     .required = true},
    {CLI_OPTION("--importance", "F", CLI_TEXT, struct args, importance,
                "importance matrix (GGUF or .dat, also llama.cpp's): columns that matter come out nearer")},
    {CLI_OPTION("--text", "T", CLI_TEXT, struct args, text,
                "the same from a text like those the model will read (\"-\": standard input)")},
    {CLI_OPTION("--tokens", "N", CLI_COUNT, struct args, tokens, "most tokens of the text to read (65536)"),
     .min = WINDOW, .max = 1e9},
    {CLI_OPTION("--keep-importance", "F", CLI_TEXT, struct args, keep,
                "also write the importance matrix of --text to F, as GGUF")},
    {CLI_OPTION("--again", NULL, CLI_SWITCH, struct args, again, "round what is quantised already again")},
    {CLI_OPTION("--threads", "N", CLI_COUNT, struct args, threads, "threads (one a CPU)"), .min = 1,
     .max = 1024},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the summary as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "quantize", "IN.gguf OUT.gguf TYPE [--importance F | --text T] [--again]",
    "Writes a model with its matrices in the number format TYPE, in llama.cpp's mixtures: delicate places "
    "get\n"
    "more bits, norms and routers stay as they are. With an importance matrix rounding errors are put where\n"
    "they cost least. pharos train lab measures what each TYPE costs. Setting single weights to zero would\n"
    "save nothing: every format stores a zero like any other number; only whole rows, heads or layers do.",
    options};

static bool show(void *ud, uint64_t done, uint64_t total)
{
    cli_progress_show(ud, done, total);
    return !process_stop_asked();
}

static void print(const struct args *args, const struct quantize_result *r)
{
    const double mib = 1 << 20;
    char weighted[48] = "";
    if (args->importance || args->text)
        snprintf(weighted, sizeof weighted, " (%zu by importance)", r->weighted);
    if (args->json)
        printf(
            "{\"converted\":%zu,\"weighted\":%zu,\"kept\":%zu,\"bytes_read\":%llu,\"bytes_written\":%llu}\n",
            r->converted, r->weighted, r->kept, (unsigned long long)r->bytes_read,
            (unsigned long long)r->bytes_written);
    else
        printf("%s: %zu tensors converted%s, %zu kept, %.1f MiB of weights from %.1f\n", args->out,
               r->converted, weighted, r->kept, (double)r->bytes_written / mib, (double)r->bytes_read / mib);
}

/* ---- Importance */

static enum ph_status collect(const struct args *args, const struct model *model, struct importance **out,
                              struct ph_err *err)
{
    struct buf text;
    struct token_list tokens = {0};
    struct cli_progress progress;
    buf_init(&text, CLI_INPUT_BYTES_MAX);
    enum ph_status status = file_read(args->text, &text, err);
    if (status == PH_OK)
        status = vocab_tokenize(model_vocab(model), text.data ? text.data : "", text.len, false, false,
                                &tokens, err);
    if (status == PH_OK) {
        const struct importance_job job = {.model = model,
                                           .dataset = args->text,
                                           .tokens = tokens.ids,
                                           .count = tokens.len < args->tokens ? tokens.len : args->tokens,
                                           .window = WINDOW,
                                           .threads = (unsigned)args->threads,
                                           .progress = show,
                                           .ud = &progress};
        cli_progress_begin(&progress, "reading the text");
        status = importance_collect(out, &job, err);
        cli_progress_end(&progress);
    }
    token_list_release(&tokens);
    buf_release(&text);
    return status;
}

/* *model: what a collected matrix refers to; the caller frees both. */
static enum ph_status get_importance(const struct args *args, struct model **model, struct importance **out,
                                     struct ph_err *err)
{
    if (args->importance)
        return importance_open(out, args->importance, err);
    if (!args->text)
        return PH_OK;
    enum ph_status status = model_open(model, args->in, false, err);
    if (status == PH_OK)
        status = collect(args, *model, out, err);
    if (status == PH_OK && args->keep)
        status = importance_write(*out, args->keep, err);
    return status;
}

static enum ph_status quantize(const struct args *args, struct quantize_job *job,
                               struct quantize_result *result, struct ph_err *err)
{
    struct model *model = NULL;
    struct importance *importance = NULL;
    struct cli_progress progress;
    enum ph_status status = get_importance(args, &model, &importance, err);
    if (status == PH_OK) {
        job->importance = importance;
        job->ud = &progress;
        cli_progress_begin(&progress, "quantising");
        status = gguf_quantize(job, result, err);
        cli_progress_end(&progress);
        if (status == PH_OK && importance && result->converted && !result->weighted)
            fprintf(stderr,
                    "pharos: warning: %s names no tensor of %s with these shapes: nothing was weighted\n",
                    args->importance ? args->importance : args->text, args->in);
    }
    importance_free(importance);
    model_free(model);
    return status;
}

int cmd_quantize(int argc, char **argv)
{
    struct args args = {.tokens = 65536};
    struct quantize_result result;
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    if (args.importance && args.text)
        return cli_error(CLI_EXIT_USAGE, "quantize: --importance and --text say the same thing: give one");
    if (args.keep && !args.text)
        return cli_error(CLI_EXIT_USAGE, "quantize: --keep-importance needs --text to make one from");
    struct quantize_job job = {.in = args.in,
                               .out = args.out,
                               .again = args.again,
                               .threads = (unsigned)args.threads,
                               .progress = show};
    if (cli_mixture_parse(args.type, &job.mixture, &err) != PH_OK)
        return cli_error(CLI_EXIT_USAGE, "%s", err.message);
    process_catch_stop();
    if (quantize(&args, &job, &result, &err) != PH_OK)
        return err.code == PH_ERR_CANCELLED ? cli_error(CLI_EXIT_FAILURE, "%s", err.message) : cli_fail(&err);
    print(&args, &result);
    return CLI_EXIT_OK;
}
