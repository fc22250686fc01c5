/* pharos train ngram: the baseline of a language model, an n-gram model of the same tokens. */
#include <math.h>

#include <uv.h>

#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "train/train.h"

struct args {
    struct cli_list data;
    const char *tokenizer;
    size_t order, time;
    bool json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--data", "F.tokens", CLI_LIST, struct args, data,
                "a token file, of pharos train data; one or several"),
     .required = true},
    {CLI_OPTION("--order", "N", CLI_COUNT, struct args, order, "the N of n-grams (5)"), .min = 1,
     .max = NGRAM_ORDER_MAX},
    {CLI_OPTION("--time", "N", CLI_COUNT, struct args, time,
                "measure on the tokens that windows of N predict, as train lm does (all but the first)"),
     .min = 1, .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("--tokenizer", "F.gguf", CLI_TEXT, struct args, tokenizer,
                "count bytes token by token (from the size of the held-out text)")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "train ngram", "--data F.tokens... [options]",
    "Trains an interpolated modified Kneser-Ney model on the training documents of token files and\n"
    "measures it on the held-out ones: what a language model must beat. Documents are joined end to end.\n"
    "Where not every token counts in a model's loss, compare it with what is said of those in loss.",
    options};

struct job {
    struct args args;
    struct corpus *corpora[CLI_LIST_MAX];
    uint32_t *piece_bytes; /* [n_vocab], or NULL */
    struct ngram *model;
    struct ngram_score score, scores[CLI_LIST_MAX]; /* of all files, of each */
    struct cli_progress progress;
    uint64_t train_ns, score_ns;
};

/* ---- Input */

static enum ph_status open_data(struct job *job, struct ph_err *err)
{
    uint64_t held_out = 0;
    const struct cli_list *data = &job->args.data;
    for (size_t i = 0; i < data->count; i++) {
        enum ph_status status = corpus_open(&job->corpora[i], data->items[i], err);
        if (status != PH_OK)
            return status;
        if (corpus_params(job->corpora[i])->vocab_hash != corpus_params(job->corpora[0])->vocab_hash)
            return ph_fail(err, PH_ERR_ARG,
                           "%s was made with another tokenizer than %s; make one of them again with pharos "
                           "train data --model",
                           data->items[i], data->items[0]);
        held_out += corpus_totals(job->corpora[i], CORPUS_HELD_OUT)->tokens;
    }
    if (held_out == 0)
        return ph_fail(err, PH_ERR_ARG,
                       "%s: no document is held out to measure on; make it again with pharos train data "
                       "--held-out",
                       data->items[0]);
    return PH_OK;
}

static enum ph_status fill_piece_bytes(struct job *job, const struct gguf *gguf, struct ph_err *err)
{
    struct vocab *vocab;
    if (corpus_vocab_hash(gguf) != corpus_params(job->corpora[0])->vocab_hash)
        return ph_fail(err, PH_ERR_ARG, "%s has another vocabulary than %s was made with",
                       job->args.tokenizer, job->args.data.items[0]);
    enum ph_status status = vocab_create(&vocab, gguf, err);
    if (status != PH_OK)
        return status;
    size_t n_vocab = vocab_info(vocab)->n_tokens;
    job->piece_bytes = corpus_piece_bytes(vocab);
    vocab_free(vocab);
    return job->piece_bytes ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for %zu tokens", n_vocab);
}

static enum ph_status open_tokenizer(struct job *job, struct ph_err *err)
{
    struct gguf *gguf;
    if (!job->args.tokenizer)
        return PH_OK;
    enum ph_status status = gguf_open(&gguf, job->args.tokenizer, err);
    if (status == PH_OK) {
        status = fill_piece_bytes(job, gguf, err);
        gguf_free(gguf);
    }
    return status;
}

/* ---- Work */

static void show(void *ud, uint64_t done, uint64_t total)
{
    cli_progress_show(&((struct job *)ud)->progress, done, total);
}

static enum ph_status train(struct job *job, struct ph_err *err)
{
    uint64_t start_ns = uv_hrtime();
    cli_progress_begin(&job->progress, "counting n-grams");
    enum ph_status status = ngram_train(&job->model, (const struct corpus *const *)job->corpora,
                                        job->args.data.count, job->args.order, show, job, err);
    cli_progress_end(&job->progress);
    job->train_ns = uv_hrtime() - start_ns;
    return status;
}

static void add_loss(struct ngram_loss *sum, const struct ngram_loss *part)
{
    sum->tokens += part->tokens;
    sum->nats += part->nats;
    sum->bytes += part->bytes;
}

static enum ph_status score(struct job *job, struct ph_err *err)
{
    uint64_t start_ns = uv_hrtime();
    cli_progress_begin(&job->progress, "measuring");
    for (size_t i = 0; i < job->args.data.count; i++) {
        ngram_score(job->model, job->corpora[i], CORPUS_HELD_OUT, job->args.time, job->piece_bytes,
                    &job->scores[i], show, job);
        add_loss(&job->score.all, &job->scores[i].all);
        add_loss(&job->score.targets, &job->scores[i].targets);
    }
    cli_progress_end(&job->progress);
    job->score_ns = uv_hrtime() - start_ns;
    return job->score.all.tokens > 0
               ? PH_OK
               : ph_fail(err, PH_ERR_ARG,
                         "%s: what is held out is too short for a window of %zu tokens; lower --time",
                         job->args.data.items[0], job->args.time ? job->args.time : 1);
}

/* ---- What came of it */

static double mean_nats(const struct ngram_loss *loss)
{
    return loss->tokens ? loss->nats / (double)loss->tokens : 0;
}

static double bits_per_byte(const struct ngram_loss *loss)
{
    return loss->bytes > 0 ? loss->nats / log(2) / loss->bytes : 0;
}

static void json_loss(const char *name, const struct ngram_loss *loss)
{
    printf("\"%s\":{\"tokens\":%llu,\"text_bytes\":%.0f,\"loss\":%.6f,\"perplexity\":%.4f,\"bits_per_byte\":%"
           ".6f}",
           name, (unsigned long long)loss->tokens, loss->bytes, mean_nats(loss), exp(mean_nats(loss)),
           bits_per_byte(loss));
}

static void report_json(const struct job *job, const struct ngram_stats *s)
{
    printf("{\"order\":%zu,\"train_tokens\":%llu,\"ngrams\":[", s->order, (unsigned long long)s->tokens);
    for (size_t k = 0; k < s->order; k++)
        printf("%s%llu", k ? "," : "", (unsigned long long)s->grams[k]);
    printf("],\"discounts\":[");
    for (size_t k = 0; k < s->order; k++)
        printf("%s[%.6f,%.6f,%.6f]", k ? "," : "", s->discounts[k][0], s->discounts[k][1],
               s->discounts[k][2]);
    printf("],");
    json_loss("validation", &job->score.all);
    putchar(',');
    json_loss("validation_targets", &job->score.targets);
    printf(",\"files\":[");
    for (size_t i = 0; i < job->args.data.count; i++) {
        printf(i ? ",{" : "{");
        json_loss("validation", &job->scores[i].all);
        putchar(',');
        json_loss("validation_targets", &job->scores[i].targets);
        putchar('}');
    }
    printf("],\"memory_bytes\":%llu,\"train_seconds\":%.3f,\"score_seconds\":%.3f}\n",
           (unsigned long long)s->bytes_peak, (double)job->train_ns * 1e-9, (double)job->score_ns * 1e-9);
}

static void text_loss(const char *name, const struct ngram_loss *loss)
{
    printf("%-10s %llu tokens, %.0f bytes: loss %.4f, perplexity %.2f, %.4f bits per byte\n", name,
           (unsigned long long)loss->tokens, loss->bytes, mean_nats(loss), exp(mean_nats(loss)),
           bits_per_byte(loss));
}

static void report_text(const struct job *job, const struct ngram_stats *s)
{
    printf("order      %zu, Kneser-Ney\n", s->order);
    printf("trained    on %llu tokens in %.1f s, %.0f MB\n", (unsigned long long)s->tokens,
           (double)job->train_ns * 1e-9, (double)s->bytes_peak * 1e-6);
    printf("n-grams   ");
    for (size_t k = 0; k < s->order; k++)
        printf(" %llu", (unsigned long long)s->grams[k]);
    putchar('\n');
    text_loss("held out", &job->score.all);
    if (job->score.targets.tokens < job->score.all.tokens)
        text_loss("in loss", &job->score.targets);
    for (size_t i = 0; job->args.data.count > 1 && i < job->args.data.count; i++)
        text_loss(job->args.data.items[i], &job->scores[i].all);
    printf("measured   in %.1f s\n", (double)job->score_ns * 1e-9);
}

int cmd_train_ngram(int argc, char **argv)
{
    struct job job = {.args = {.order = 5}};
    struct ngram_stats stats;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    struct ph_err err;
    enum ph_status status = open_data(&job, &err);
    if (status == PH_OK)
        status = open_tokenizer(&job, &err);
    if (status == PH_OK)
        status = train(&job, &err);
    if (status == PH_OK)
        status = score(&job, &err);
    if (status == PH_OK) {
        ngram_stats(job.model, &stats);
        (job.args.json ? report_json : report_text)(&job, &stats);
    }
    ngram_free(job.model);
    mem_free(job.piece_bytes);
    for (size_t i = 0; i < job.args.data.count; i++)
        corpus_free(job.corpora[i]);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
