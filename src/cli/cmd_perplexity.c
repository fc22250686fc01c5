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

#include "base/file.h"
#include "base/limits.h"
#include "cli/cli_run_int.h"
#include "train/train.h"

#define WINDOW_DEFAULT 256

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
    bool joined; /* a window begins with the token before it, not with BOS */
    struct windows *windows;
    double row_nll[CLI_RUN_ROWS_MAX];
    const struct window_rows *rows; /* of the step */
    struct score {
        size_t windows, predicted;
        uint64_t bytes; /* of text that the predicted tokens spell */
        double nll;
    } score;
};

static enum ph_status read_text(struct job *job, struct ph_err *err)
{
    enum ph_status status = file_read(job->args.text, &job->text, err);
    if (status != PH_OK)
        return status;
    const char *text = job->text.data ? job->text.data : "";
    return vocab_tokenize(model_vocab(job->run.model), text, job->text.len, false, false, &job->tokens, err);
}

static enum ph_status read_data(struct job *job, struct ph_err *err)
{
    job->joined = true;
    return corpus_join(job->args.data, model_gguf(job->run.model), CORPUS_HELD_OUT, &job->tokens, err);
}

static enum ph_status prepare(struct job *job, struct ph_err *err)
{
    const char *name = job->args.data ? job->args.data : job->args.text;
    enum ph_status status = cli_run_open(&job->run, &job->args.run, job->args.window, CLI_RUN_ROWS_MAX, err);
    if (status == PH_OK)
        status = windows_create(&job->windows, job->run.model, job->run.runner, job->run.seq,
                                job->args.window, CLI_RUN_ROWS_MAX, err);
    if (status != PH_OK)
        return status;
    status = job->args.data ? read_data(job, err) : read_text(job, err);
    if (status == PH_OK && job->tokens.len < job->args.window - 1 + job->joined)
        status = ph_fail(err, PH_ERR_ARG, "%s: %zu tokens do not fill a window of %zu; lower --context", name,
                         job->tokens.len, job->args.window);
    return status;
}

static void score_rows(struct lane *lane, void *ud)
{
    struct job *job = ud;
    const struct window_rows *r = job->rows;
    size_t first, end;
    while (lane_take(lane, r->rows, 4, &first, &end))
        for (size_t i = first; i < end; i++)
            job->row_nll[i] =
                -(double)logits_logprob(r->logits + i * r->n_vocab, r->n_vocab, r->targets[i], NULL, 0);
}

static void score_step(void *ud, const struct window_rows *rows)
{
    struct job *job = ud;
    char piece[VOCAB_TOKEN_BYTES_MAX];
    job->rows = rows;
    pool_run(runner_pool(job->run.runner), score_rows, job);
    for (size_t i = 0; i < rows->rows; i++) {
        job->score.nll += job->row_nll[i];
        job->score.bytes += vocab_piece(model_vocab(job->run.model), rows->targets[i], false, piece);
    }
    job->score.predicted += rows->rows;
}

static enum ph_status measure(struct job *job, struct ph_err *err)
{
    enum ph_status status = prepare(job, err);
    struct cli_progress progress;
    cli_progress_begin(&progress, "perplexity");
    size_t step = job->args.window - 1;
    for (size_t at = job->joined; status == PH_OK && at + step <= job->tokens.len; at += step) {
        const int32_t *tokens = job->tokens.ids + at;
        status = windows_read(job->windows, job->joined ? tokens[-1] : -1, tokens, at, score_step, job, err);
        job->score.windows += status == PH_OK;
        cli_progress_show(&progress, at + step, job->tokens.len);
    }
    cli_progress_end(&progress);
    return status;
}

static void print(const struct job *job)
{
    const struct score *score = &job->score;
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
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    if (!job.args.text == !job.args.data)
        return cli_error(CLI_EXIT_USAGE, "perplexity: give one of --text F and --data F.tokens");
    buf_init(&job.text, CLI_INPUT_BYTES_MAX);
    struct ph_err err;
    enum ph_status status = measure(&job, &err);
    if (status == PH_OK)
        print(&job);
    windows_free(job.windows);
    token_list_release(&job.tokens);
    buf_release(&job.text);
    cli_run_close(&job.run);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
