/* pharos embed: lines of text to vectors. Lines are gathered so that many go through the model together, and
 * are printed in their order. */
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "engine/embedder.h"

#define TEXTS_MAX EMBEDDER_TEXTS_MAX

struct args {
    const char *model, *kernels;
    size_t threads, context_len;
    bool raw, truncate, json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--model", "F", CLI_TEXT, struct args, model, "GGUF file of an embedding model"),
     .required = true},
    {CLI_OPTION("--truncate", NULL, CLI_SWITCH, struct args, truncate,
                "of a line that is too long take what the model reads; else it is an error")},
    {CLI_OPTION("--raw", NULL, CLI_SWITCH, struct args, raw, "vectors as they are pooled, not of length 1")},
    {CLI_OPTION("--context", "N", CLI_COUNT, struct args, context_len,
                "tokens of the longest line (what the model was trained with)"),
     .min = 1, .max = RUNNER_ROWS_MAX},
    {CLI_OPTION("--threads", "N", CLI_COUNT, struct args, threads, "threads (one a CPU)"), .min = 1,
     .max = 4096},
    {CLI_OPTION("--kernels", "SET", CLI_TEXT, struct args, kernels,
                "ref, avx2, avx512, amx (the best this CPU has)")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "changes nothing: a vector is a JSON array")},
    CLI_OPTIONS_END,
};

/* Lines on their way through the model: tokens one after the other, and where each line's end. */
struct batch {
    struct token_list tokens;
    size_t ends[TEXTS_MAX];
    size_t count;
    float *vectors; /* [TEXTS_MAX][width] */
};

struct job {
    struct args args;
    struct embedder *embedder;
    struct buf input, out;
    struct batch batch;
    size_t line; /* number of the next one */
};

static void print_vector(struct buf *out, const float *values, size_t width)
{
    for (size_t i = 0; i < width; i++)
        buf_printf(out, "%c%.9g", i ? ',' : '[', (double)values[i]);
    buf_puts(out, "]\n");
}

static enum ph_status embed_batch(struct job *job, struct ph_err *err)
{
    struct embedder_text texts[TEXTS_MAX];
    struct batch *b = &job->batch;
    size_t width = embedder_width(job->embedder), from = 0;
    for (size_t i = 0; i < b->count; i++) {
        texts[i] = (struct embedder_text){b->tokens.ids + from, b->ends[i] - from};
        from = b->ends[i];
    }
    struct embedder_request request = {.texts = texts, .count = b->count, .raw = job->args.raw};
    enum ph_status status = b->count ? embedder_run(job->embedder, &request, b->vectors, err) : PH_OK;
    for (size_t i = 0; i < b->count && status == PH_OK; i++)
        print_vector(&job->out, b->vectors + i * width, width);
    b->count = b->tokens.len = 0;
    return status == PH_OK ? cli_flush(&job->out, err) : status;
}

static enum ph_status take_line(struct job *job, const char *line, size_t len, struct ph_err *err)
{
    struct batch *b = &job->batch;
    struct ph_err inner;
    size_t cut = 0;
    if (len && line[len - 1] == '\r')
        len--;
    enum ph_status status =
        embedder_tokenize(job->embedder, line, len, job->args.truncate ? &cut : NULL, &b->tokens, &inner);
    if (status != PH_OK)
        return ph_fail(err, status, "standard input, line %zu: %s%s", job->line, inner.message,
                       status == PH_ERR_LIMIT ? "; --truncate takes the beginning" : "");
    b->ends[b->count++] = b->tokens.len;
    return PH_OK;
}

static enum ph_status each_line(struct job *job, struct ph_err *err)
{
    size_t cursor = 0, len;
    const char *line;
    enum ph_status status = PH_OK;
    struct cli_progress progress;
    cli_progress_begin(&progress, "lines");
    for (job->line = 1;
         status == PH_OK && cli_next_line(job->input.data, job->input.len, &cursor, &line, &len);
         job->line++) {
        status = take_line(job, line, len, err);
        if (status == PH_OK && job->batch.count == TEXTS_MAX)
            status = embed_batch(job, err);
        cli_progress_show(&progress, cursor, job->input.len);
    }
    if (status == PH_OK)
        status = embed_batch(job, err);
    cli_progress_end(&progress);
    return status;
}

int cmd_embed(int argc, char **argv)
{
    static const struct cli_usage usage = {
        "embed", "--model F.gguf [options] < TEXT",
        "Reads text from standard input; writes the vector of each line, of length 1, as a JSON array.",
        options};
    struct job job = {.embedder = NULL};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    struct ph_err err;
    const struct embedder_params params = {.model_path = job.args.model,
                                           .threads = (unsigned)job.args.threads,
                                           .kernels = job.args.kernels,
                                           .context_len = job.args.context_len};
    buf_init(&job.input, CLI_INPUT_BYTES_MAX);
    buf_init(&job.out, SIZE_MAX / 4);
    enum ph_status status = embedder_open(&job.embedder, &params, &err);
    if (status == PH_OK) {
        job.batch.vectors = mem_calloc(TEXTS_MAX * embedder_width(job.embedder), sizeof(float));
        status = job.batch.vectors ? file_read("-", &job.input, &err)
                                   : ph_fail(&err, PH_ERR_NOMEM, "embed: no memory for the vectors");
    }
    if (status == PH_OK)
        status = each_line(&job, &err);
    embedder_free(job.embedder);
    mem_free(job.batch.vectors);
    token_list_release(&job.batch.tokens);
    buf_release(&job.input);
    buf_release(&job.out);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
