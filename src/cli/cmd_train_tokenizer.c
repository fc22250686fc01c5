/* pharos train tokenizer: learns a vocabulary and writes it as a GGUF file with nothing else in it. */
#include <string.h>

#include <uv.h>

#include "base/file.h"
#include "base/limits.h"
#include "cli/cli_int.h"
#include "train/train.h"

struct args {
    const char *out, *pre, *name, *template_path, *turn_end, *separator;
    struct cli_list inputs, specials;
    size_t n_tokens, pair_min, token_bytes_max;
    double coverage;
    int kind, format;
    bool no_chat, json;
};

static const char *const kind_names[] = {"bytes", "spm", NULL};
static const char *const format_names[] = {"auto", "text", "jsonl", NULL};

static const struct cli_option options[] = {
    {CLI_OPTION("FILE", NULL, CLI_LIST, struct args, inputs,
                "text or JSON lines, - for standard input; one or several"),
     .required = true},
    {CLI_OPTION("--out", "F.gguf", CLI_TEXT, struct args, out, "the vocabulary file to write"),
     .required = true},
    {CLI_OPTION("--vocab", "N", CLI_COUNT, struct args, n_tokens,
                "tokens in all, special ones counted (8192)"),
     .min = 257, .max = VOCAB_TOKENS_MAX},
    {CLI_OPTION("--kind", "bytes|spm", CLI_CHOICE, struct args, kind,
                "byte-level as GPT-2's, or llama's with byte fallback (bytes)"),
     .names = kind_names},
    {CLI_OPTION("--pre", "NAME", CLI_TEXT, struct args, pre,
                "pre-tokenizer that cuts words; with gpt-2 and llama-bpe, decoding drops spaces before "
                "punctuation, as is expected of them (smollm)")},
    {CLI_OPTION("--special", "TEXT", CLI_LIST, struct args, specials,
                "a control token; given, they replace the built-in chat's <|user|> and so on")},
    {CLI_OPTION("--turn-end", "TEXT", CLI_TEXT, struct args, turn_end,
                "the special token that ends a turn (" CHAT_DEFAULT_TURN_END " of the built-in chat)")},
    {CLI_OPTION("--template", "F.jinja", CLI_TEXT, struct args, template_path,
                "chat template for the file (the built-in one, unless --special is given)")},
    {CLI_OPTION("--no-chat", NULL, CLI_SWITCH, struct args, no_chat, "no chat template and no chat tokens")},
    {CLI_OPTION("--min-count", "N", CLI_COUNT, struct args, pair_min,
                "a pair seen fewer times is not joined (2)"),
     .min = 1, .max = 1e9},
    {CLI_OPTION("--max-bytes", "N", CLI_COUNT, struct args, token_bytes_max, "longest token, in bytes (32)"),
     .min = 2, .max = VOCAB_TOKEN_BYTES_MAX / 4},
    {CLI_OPTION("--coverage", "X", CLI_NUMBER, struct args, coverage,
                "spm: share of all characters that get tokens (0.9995)"),
     .min = 0.01, .max = 1},
    {CLI_OPTION("--format", "auto|text|jsonl", CLI_CHOICE, struct args, format,
                "of the inputs (auto: *.jsonl is JSON lines)"),
     .names = format_names},
    {CLI_OPTION("--separator", "LINE", CLI_TEXT, struct args, separator,
                "text: a line that is exactly this is left out")},
    {CLI_OPTION("--name", "NAME", CLI_TEXT, struct args, name, "general.name of the file (vocabulary)")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the summary as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "train tokenizer", "FILE... --out F.gguf [options]",
    "Learns a vocabulary by byte pair encoding and writes it as a GGUF file.\n"
    "JSON lines are {\"text\": ...} or conversations (see pharos train data).",
    options};

struct job {
    struct args args;
    struct bpe_trainer *trainer;
    struct buf chat_template;
    struct cli_progress progress;
    uint64_t count_ns, merge_ns;
};

/* ---- Counting and merging */

static enum ph_status take(void *ud, const struct document *document, struct ph_err *err)
{
    struct job *job = ud;
    if (!document->messages)
        return bpe_trainer_add(job->trainer, document->text, document->len, err);
    enum ph_status status = PH_OK;
    JSON_EACH (message, document->messages) {
        const struct json *content = json_get(message, "content");
        if (status == PH_OK)
            status = bpe_trainer_add(job->trainer, content->u.str.text, content->u.str.len, err);
    }
    return status;
}

static void show_reading(void *ud, uint64_t done, uint64_t total)
{
    cli_progress_show(&((struct job *)ud)->progress, done, total);
}

static bool show_merging(void *ud, uint64_t done, uint64_t total)
{
    cli_progress_show(&((struct job *)ud)->progress, done, total);
    return true;
}

static enum ph_status train(struct job *job, struct ph_err *err)
{
    const struct source_params source = {.paths = job->args.inputs.items,
                                         .path_count = job->args.inputs.count,
                                         .format = (enum source_format)job->args.format,
                                         .separator = job->args.separator};
    uint64_t start_ns = uv_hrtime();
    cli_progress_begin(&job->progress, "counting words");
    enum ph_status status = source_each(&source, take, show_reading, job, err);
    cli_progress_end(&job->progress);
    job->count_ns = uv_hrtime() - start_ns;
    if (status != PH_OK)
        return status;
    cli_progress_begin(&job->progress, "joining pairs");
    status = bpe_trainer_run(job->trainer, show_merging, job, err);
    cli_progress_end(&job->progress);
    job->merge_ns = uv_hrtime() - start_ns - job->count_ns;
    return status;
}

/* ---- What to train */

static bool own_chat(const struct args *args)
{
    return !args->no_chat && args->specials.count == 0;
}

static enum ph_status read_template(struct job *job, struct ph_err *err)
{
    struct chat_template *compiled;
    struct ph_err inner;
    if (!job->args.template_path) {
        buf_puts(&job->chat_template, own_chat(&job->args) ? chat_default_template : "");
        return buf_status(&job->chat_template);
    }
    enum ph_status status = file_read(job->args.template_path, &job->chat_template, err);
    if (status != PH_OK)
        return status;
    status = chat_template_create(&compiled, job->chat_template.data, job->chat_template.len, &inner);
    if (status != PH_OK)
        return ph_fail(err, status, "%s: %s", job->args.template_path, inner.message);
    chat_template_free(compiled);
    return PH_OK;
}

static enum ph_status begin(struct job *job, struct ph_err *err)
{
    struct args *args = &job->args;
    bool own = own_chat(args);
    const struct bpe_params params = {
        .kind = (enum bpe_kind)args->kind,
        .pre = args->pre,
        .n_tokens = args->n_tokens,
        .pair_min = args->pair_min,
        .token_bytes_max = args->token_bytes_max,
        .coverage = args->coverage,
        .specials = own ? chat_default_specials : args->specials.items,
        .special_count = own ? chat_default_special_count : args->specials.count,
        .turn_end = args->turn_end ? args->turn_end
                    : own          ? CHAT_DEFAULT_TURN_END
                                   : NULL,
    };
    enum ph_status status = read_template(job, err);
    return status == PH_OK ? bpe_trainer_create(&job->trainer, &params, err) : status;
}

/* ---- What came of it */

static void report(const struct job *job)
{
    struct bpe_stats s;
    bpe_trainer_stats(job->trainer, &s);
    double bytes_per_token = s.corpus_symbols ? (double)s.bytes / (double)s.corpus_symbols : 0;
    double count_s = (double)job->count_ns * 1e-9, merge_s = (double)job->merge_ns * 1e-9;
    if (job->args.json) {
        printf("{\"tokens\":%zu,\"merges\":%zu,\"bytes\":%llu,\"words\":%llu,\"distinct_words\":%zu,"
               "\"bytes_per_token\":%.4f,\"count_s\":%.3f,\"merge_s\":%.3f}\n",
               s.tokens, s.merges, (unsigned long long)s.bytes, (unsigned long long)s.words, s.distinct_words,
               bytes_per_token, count_s, merge_s);
        return;
    }
    printf("%s: %zu tokens, %zu merges\n", job->args.out, s.tokens, s.merges);
    printf("read     %.1f MB, %llu words, %zu distinct, in %.1f s\n", (double)s.bytes * 1e-6,
           (unsigned long long)s.words, s.distinct_words, count_s);
    printf("joined   in %.1f s; about %.3f bytes a token on this text\n", merge_s, bytes_per_token);
    if (s.tokens < job->args.n_tokens)
        printf("note     the text has no more pairs to join: %zu tokens instead of %zu\n", s.tokens,
               job->args.n_tokens);
}

int cmd_train_tokenizer(int argc, char **argv)
{
    struct bpe_params defaults;
    bpe_params_default(&defaults);
    struct job job = {.args = {.pre = defaults.pre,
                               .n_tokens = defaults.n_tokens,
                               .pair_min = (size_t)defaults.pair_min,
                               .token_bytes_max = defaults.token_bytes_max,
                               .coverage = defaults.coverage,
                               .name = "vocabulary"}};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    struct ph_err err;
    buf_init(&job.chat_template, TEMPLATE_BYTES_MAX);
    enum ph_status status = begin(&job, &err);
    if (status == PH_OK)
        status = train(&job, &err);
    if (status == PH_OK)
        status = bpe_trainer_save(job.trainer, job.args.out, job.args.name,
                                  job.chat_template.len ? job.chat_template.data : NULL, &err);
    if (status == PH_OK)
        report(&job);
    bpe_trainer_free(job.trainer);
    buf_release(&job.chat_template);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
