/* pharos perplexity: mean negative log-likelihood of a text, in windows.
 *
 * Of a token file the held-out documents are joined end to end, as pharos train lm joins them: windows follow
 * one another, and each predicts its tokens from those before them, beginning with the one before the window.
 *
 * Any other text is tokenised without BOS and cut into windows of N - 1 tokens. Each window is read from an
 * empty cache behind a BOS, so every one of its tokens is predicted from BOS and what precedes it in the
 * window. An incomplete last window is dropped. (llama-perplexity scores only the second half of its windows;
 * its figure is lower by that much more context.) */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli_run_int.h"
#include "train/train.h"

#define WINDOW_DEFAULT 256
#define LOGITS_BYTES_MAX ((size_t)64 << 20) /* of one step */

struct args {
    struct cli_run_args run;
    const char *text, *data;
    size_t window;
    bool json;
};

static const struct cli_option options[] = {
    CLI_RUN_OPTIONS(struct args, run),
    {CLI_OPTION("--text", "F", CLI_TEXT, struct args, text, "the text (\"-\": standard input)")},
    {CLI_OPTION("--data", "F.tokens", CLI_TEXT, struct args, data,
                "instead of a text: the held-out part of a token file (pharos train data)")},
    {CLI_OPTION("--context", "N", CLI_COUNT, struct args, window, "tokens a window, BOS included (256)"),
     .min = 2, .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {"perplexity", "--model F --text FILE|--data F.tokens [options]",
                                       "Mean negative log-likelihood (nats) and perplexity of a text. The KV "
                                       "cache is F32 unless told otherwise.",
                                       options};

struct job {
    struct args args;
    struct cli_run run;
    struct buf text;
    struct token_list tokens;
    bool joined;      /* a window begins with the token before it, not with BOS */
    size_t step_rows; /* rows a step, so that their logits stay within LOGITS_BYTES_MAX */
    float *logits;    /* [step_rows][n_vocab] */
    double *row_nll;  /* [step_rows] */
    const int32_t *targets;
    size_t target_count;
    int32_t *window; /* [args.window - 1]: BOS and all tokens but the last */
};

struct score {
    size_t windows, predicted;
    uint64_t bytes; /* of text that the predicted tokens spell */
    double nll;
};

static enum ph_status read_text(struct job *job, struct ph_err *err)
{
    const struct vocab *vocab = model_vocab(job->run.model);
    const struct vocab_info *info = vocab_info(vocab);
    enum ph_status status = file_read(job->args.text, &job->text, err);
    if (status != PH_OK)
        return status;
    job->window[0] = info->bos >= 0 ? info->bos : info->eos;
    if (job->window[0] < 0)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "%s: the vocabulary has no BOS to begin a window with",
                       job->args.run.model);
    const char *text = job->text.data ? job->text.data : "";
    return vocab_tokenize(vocab, text, job->text.len, false, false, &job->tokens, err);
}

static enum ph_status same_vocabulary(const struct job *job, const struct corpus *corpus, struct ph_err *err)
{
    struct gguf *gguf;
    enum ph_status status = gguf_open(&gguf, job->args.run.model, err);
    if (status != PH_OK)
        return status;
    if (corpus_vocab_hash(gguf) != corpus_params(corpus)->vocab_hash)
        status = ph_fail(err, PH_ERR_ARG, "%s was made with another vocabulary than that of %s",
                         job->args.data, job->args.run.model);
    gguf_free(gguf);
    return status;
}

static enum ph_status read_data(struct job *job, struct ph_err *err)
{
    struct corpus *corpus;
    enum ph_status status = corpus_open(&corpus, job->args.data, err);
    if (status != PH_OK)
        return status;
    status = same_vocabulary(job, corpus, err);
    size_t count = corpus_totals(corpus, CORPUS_HELD_OUT)->tokens;
    if (status == PH_OK && count == 0)
        status = ph_fail(err, PH_ERR_ARG, "%s: no document is held out", job->args.data);
    if (status == PH_OK && !(job->tokens.ids = mem_calloc(count, sizeof *job->tokens.ids)))
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for %zu tokens", count);
    for (uint64_t d = 0; status == PH_OK && d < corpus_totals(corpus, CORPUS_ALL)->documents; d++) {
        struct corpus_doc doc = corpus_doc(corpus, d);
        for (uint64_t i = 0; doc.part == CORPUS_HELD_OUT && i < doc.count; i++)
            job->tokens.ids[job->tokens.len++] = corpus_token(corpus, doc.first + i);
    }
    job->tokens.cap = job->tokens.len;
    job->joined = true;
    corpus_free(corpus);
    return status;
}

static enum ph_status prepare(struct job *job, struct ph_err *err)
{
    const char *name = job->args.data ? job->args.data : job->args.text;
    if (!name || (job->args.data && job->args.text))
        return ph_fail(err, PH_ERR_ARG, "one of --text and --data is needed");
    enum ph_status status = cli_run_open(&job->run, &job->args.run, job->args.window, CLI_RUN_ROWS_MAX, err);
    if (status != PH_OK)
        return status;
    size_t rows = LOGITS_BYTES_MAX / (job->run.n_vocab * sizeof *job->logits);
    job->step_rows = rows < 1 ? 1 : rows < CLI_RUN_ROWS_MAX ? rows : CLI_RUN_ROWS_MAX;
    job->logits = mem_alloc(job->step_rows * job->run.n_vocab * sizeof *job->logits);
    job->row_nll = mem_calloc(job->step_rows, sizeof *job->row_nll);
    job->window = mem_calloc(job->args.window, sizeof *job->window);
    if (!job->logits || !job->row_nll || !job->window)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a window of %zu tokens", job->args.window);
    status = job->args.data ? read_data(job, err) : read_text(job, err);
    if (status == PH_OK && job->tokens.len < job->args.window - 1 + job->joined)
        status = ph_fail(err, PH_ERR_ARG, "%s: %zu tokens do not fill a window of %zu; lower --context", name,
                         job->tokens.len, job->args.window);
    return status;
}

static void score_rows(struct lane *lane, void *ud)
{
    struct job *job = ud;
    size_t first, end, n_vocab = job->run.n_vocab;
    while (lane_take(lane, job->target_count, 4, &first, &end))
        for (size_t i = first; i < end; i++)
            job->row_nll[i] =
                -(double)logits_logprob(job->logits + i * n_vocab, n_vocab, job->targets[i], NULL, 0);
}

static enum ph_status score_window(struct job *job, const int32_t *tokens, struct score *score,
                                   struct ph_err *err)
{
    size_t count = job->args.window - 1;
    char piece[VOCAB_TOKEN_BYTES_MAX];
    if (job->joined)
        job->window[0] = tokens[-1];
    memcpy(job->window + 1, tokens, (count - 1) * sizeof *tokens);
    for (size_t i = 0; i < count; i++)
        score->bytes += vocab_piece(model_vocab(job->run.model), tokens[i], false, piece);
    cli_run_forget(&job->run);
    for (size_t at = 0; at < count; at += job->step_rows) {
        size_t rows = count - at < job->step_rows ? count - at : job->step_rows;
        enum ph_status status =
            cli_run_step(&job->run, job->window + at, rows, PHASE_PREFILL, job->logits, err);
        if (status != PH_OK)
            return status;
        job->targets = tokens + at;
        job->target_count = rows;
        pool_run(runner_pool(job->run.runner), score_rows, job);
        for (size_t i = 0; i < rows; i++)
            score->nll += job->row_nll[i];
    }
    score->windows++;
    score->predicted += count;
    return PH_OK;
}

static enum ph_status measure(struct job *job, struct score *score, struct ph_err *err)
{
    enum ph_status status = prepare(job, err);
    struct cli_progress progress;
    cli_progress_begin(&progress, "perplexity");
    size_t step = job->args.window - 1;
    for (size_t at = job->joined; status == PH_OK && at + step <= job->tokens.len; at += step) {
        status = score_window(job, job->tokens.ids + at, score, err);
        cli_progress_show(&progress, at + step, job->tokens.len);
    }
    cli_progress_end(&progress);
    return status;
}

static void print(const struct job *job, const struct score *score)
{
    double mean = score->nll / (double)score->predicted;
    double bits = score->nll / log(2) / (double)(score->bytes ? score->bytes : 1);
    if (job->args.json)
        printf("{\"mean_nll\":%.6f,\"ppl\":%.4f,\"bits_per_byte\":%.6f,\"windows\":%zu,\"predicted\":%zu,"
               "\"bytes\":%llu,\"context\":%zu,\"tokens\":%zu}\n",
               mean, exp(mean), bits, score->windows, score->predicted, (unsigned long long)score->bytes,
               job->args.window, job->tokens.len);
    else
        printf("mean nll %.6f\nppl      %.4f\nbits     %.4f a byte of text\n"
               "windows  %zu of %zu tokens, %zu predicted\n",
               mean, exp(mean), bits, score->windows, job->args.window, score->predicted);
}

int cmd_perplexity(int argc, char **argv)
{
    struct job job = {.args = {.run.kv = CLI_KV_F32, .window = WINDOW_DEFAULT}};
    struct score score = {0};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    buf_init(&job.text, CLI_INPUT_BYTES_MAX);
    struct ph_err err;
    enum ph_status status = measure(&job, &score, &err);
    if (status == PH_OK)
        print(&job, &score);
    mem_free(job.logits);
    mem_free(job.row_nll);
    mem_free(job.window);
    token_list_release(&job.tokens);
    buf_release(&job.text);
    cli_run_close(&job.run);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
