/* pharos train data: texts and conversations to a token file, ready for training. */
#include <math.h>
#include <string.h>

#include <uv.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/process.h"
#include "cli/cli_int.h"
#include "train/train.h"

struct args {
    const char *out, *model, *template_path, *separator;
    struct cli_list inputs;
    double held_out, near;
    size_t seed;
    int format;
    bool mask, keep_duplicates, json;
};

static const char *const format_names[] = {"auto", "text", "jsonl", NULL};

static const struct cli_option options[] = {
    {CLI_OPTION("FILE", NULL, CLI_LIST, struct args, inputs,
                "text or JSON lines, - for standard input; one or several"),
     .required = true},
    {CLI_OPTION("--model", "F.gguf", CLI_TEXT, struct args, model,
                "whose tokenizer to use; a vocabulary-only file will do"),
     .required = true},
    {CLI_OPTION("--out", "F.tokens", CLI_TEXT, struct args, out, "the token file to write"),
     .required = true},
    {CLI_OPTION("--format", "auto|text|jsonl", CLI_CHOICE, struct args, format,
                "of the inputs (auto: *.jsonl is JSON lines)"),
     .names = format_names},
    {CLI_OPTION("--separator", "LINE", CLI_TEXT, struct args, separator,
                "text: a line that is exactly this ends a document (a file is one document)")},
    {CLI_OPTION("--template", "F.jinja", CLI_TEXT, struct args, template_path,
                "chat template for conversations (the model's, else the built-in one)")},
    {CLI_OPTION("--mask", NULL, CLI_SWITCH, struct args, mask,
                "of conversations only the assistant's tokens count in the loss")},
    {CLI_OPTION("--held-out", "X", CLI_NUMBER, struct args, held_out,
                "share of documents kept for validation (0.01)"),
     .min = 0, .max = 1},
    {CLI_OPTION("--seed", "N", CLI_COUNT, struct args, seed, "chooses which documents are held out (0)"),
     .min = 0, .max = 9007199254740992.0},
    {CLI_OPTION("--near", "X", CLI_NUMBER, struct args, near,
                "drop documents that are this similar to an earlier one, e.g. 0.8 (0: only equal ones)"),
     .min = 0, .max = 1},
    {CLI_OPTION("--keep-duplicates", NULL, CLI_SWITCH, struct args, keep_duplicates, "drop none")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the summary as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "train data", "FILE... --model F.gguf --out F.tokens [options]",
    "Makes a token file for training: documents are cut, tokenised, freed of duplicates, and divided\n"
    "into training and held-out ones by their content alone. JSON lines are {\"text\": ...} or\n"
    "conversations: \"messages\", \"conversations\", \"turns\", \"prompt\" with \"completion\", and the "
    "like.",
    options};

struct job {
    struct args args;
    struct gguf *gguf;
    struct vocab *vocab;
    struct buf source;
    struct chat_template *chat_template;
    struct corpus_build_stats stats;
    struct cli_progress progress;
    uint64_t elapsed_ns;
};

static enum ph_status open_template(struct job *job, struct ph_err *err)
{
    struct gguf_string text;
    struct ph_err inner;
    const char *name = job->args.template_path ? job->args.template_path : job->args.model;
    if (job->args.template_path) {
        enum ph_status status = file_read(job->args.template_path, &job->source, err);
        if (status != PH_OK)
            return status;
    } else if (gguf_get_string(job->gguf, "tokenizer.chat_template", &text)) {
        buf_append(&job->source, text.text, text.len);
    } else {
        buf_puts(&job->source, chat_default_template);
    }
    if (buf_status(&job->source) != PH_OK)
        return ph_fail(err, buf_status(&job->source), "%s: the template is too long", name);
    enum ph_status status = chat_template_create(
        &job->chat_template, job->source.data ? job->source.data : "", job->source.len, &inner);
    return status == PH_OK ? PH_OK : ph_fail(err, status, "%s: chat template: %s", name, inner.message);
}

static bool show(void *ud, uint64_t done, uint64_t total)
{
    cli_progress_show(&((struct job *)ud)->progress, done, total);
    return !process_stop_asked();
}

static enum ph_status build(struct job *job, struct ph_err *err)
{
    const struct args *args = &job->args;
    const struct corpus_build what = {
        .source = {.paths = args->inputs.items,
                   .path_count = args->inputs.count,
                   .format = (enum source_format)args->format,
                   .separator = args->separator},
        .path = args->out,
        .vocab = job->vocab,
        .params = {.n_vocab = vocab_info(job->vocab)->n_tokens,
                   .vocab_hash = corpus_vocab_hash(job->gguf),
                   .targets = args->mask,
                   .held_out_ppm = (uint32_t)lround(args->held_out * 1e6),
                   .split_seed = args->seed},
        .chat_template = job->chat_template,
        .dedup = !args->keep_duplicates,
        .near = args->near,
    };
    uint64_t start_ns = uv_hrtime();
    process_catch_stop();
    cli_progress_begin(&job->progress, "tokenising");
    enum ph_status status = corpus_build(&what, &job->stats, show, job, err);
    cli_progress_end(&job->progress);
    job->elapsed_ns = uv_hrtime() - start_ns;
    return status;
}

/* ---- What came of it */

static double share(uint64_t part, uint64_t whole)
{
    return whole ? (double)part / (double)whole : 0;
}

static void report_json(const struct job *job, const struct corpus *corpus)
{
    const struct corpus_totals *all = corpus_totals(corpus, CORPUS_ALL),
                               *held_out = corpus_totals(corpus, CORPUS_HELD_OUT);
    const struct corpus_build_stats *s = &job->stats;
    printf("{\"documents_read\":%llu,\"exact_duplicates\":%llu,\"near_duplicates\":%llu,\"documents\":%llu,"
           "\"tokens\":%llu,\"targets\":%llu,\"text_bytes\":%llu,\"bytes_per_token\":%.4f,"
           "\"held_out_documents\":%llu,\"held_out_tokens\":%llu,\"held_out_share\":%.6f,\"seconds\":%.3f}\n",
           (unsigned long long)s->documents, (unsigned long long)s->exact, (unsigned long long)s->near,
           (unsigned long long)all->documents, (unsigned long long)all->tokens,
           (unsigned long long)all->targets, (unsigned long long)all->text_bytes,
           share(all->text_bytes, all->tokens), (unsigned long long)held_out->documents,
           (unsigned long long)held_out->tokens, share(held_out->tokens, all->tokens),
           (double)job->elapsed_ns * 1e-9);
}

static void report_text(const struct job *job, const struct corpus *corpus)
{
    const struct corpus_totals *all = corpus_totals(corpus, CORPUS_ALL),
                               *held_out = corpus_totals(corpus, CORPUS_HELD_OUT);
    const struct corpus_build_stats *s = &job->stats;
    double seconds = (double)job->elapsed_ns * 1e-9;
    printf("%s: %llu documents, %llu tokens, %.3f bytes a token\n", job->args.out,
           (unsigned long long)all->documents, (unsigned long long)all->tokens,
           share(all->text_bytes, all->tokens));
    printf("read       %llu documents, %.1f MB in %.1f s\n", (unsigned long long)s->documents,
           (double)s->documents_bytes * 1e-6, seconds);
    printf("dropped    %llu duplicates, %llu near duplicates\n", (unsigned long long)s->exact,
           (unsigned long long)s->near);
    printf("held out   %llu documents, %llu tokens, %.2f %%\n", (unsigned long long)held_out->documents,
           (unsigned long long)held_out->tokens, 100 * share(held_out->tokens, all->tokens));
    if (job->args.mask)
        printf("in loss    %.2f %% of the tokens\n", 100 * share(all->targets, all->tokens));
    if (held_out->documents == 0 && job->args.held_out > 0)
        printf(
            "note       no document is held out: there are too few; --separator cuts a text into several\n");
}

/* The file is opened again, which checks all of it. */
static enum ph_status report(const struct job *job, struct ph_err *err)
{
    struct corpus *corpus;
    enum ph_status status = corpus_open(&corpus, job->args.out, err);
    if (status != PH_OK)
        return status;
    if (job->args.json)
        report_json(job, corpus);
    else
        report_text(job, corpus);
    corpus_free(corpus);
    return PH_OK;
}

int cmd_train_data(int argc, char **argv)
{
    struct job job = {.args = {.held_out = 0.01}};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    struct ph_err err;
    buf_init(&job.source, TEMPLATE_BYTES_MAX);
    enum ph_status status = gguf_open(&job.gguf, job.args.model, &err);
    if (status == PH_OK)
        status = vocab_create(&job.vocab, job.gguf, &err);
    if (status == PH_OK)
        status = open_template(&job, &err);
    if (status == PH_OK)
        status = build(&job, &err);
    if (status == PH_OK)
        status = report(&job, &err);
    chat_template_free(job.chat_template);
    vocab_free(job.vocab);
    gguf_free(job.gguf);
    buf_release(&job.source);
    if (status == PH_ERR_CANCELLED && process_stop_asked())
        return cli_error(CLI_EXIT_FAILURE, "%s", err.message);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
