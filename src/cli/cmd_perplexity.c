/* pharos perplexity: mean negative log-likelihood of a text, in windows.
 *
 * The text is tokenised without BOS and cut into windows of N - 1 tokens. Each window is read from an empty
 * cache behind a BOS, so every one of its tokens is predicted from BOS and what precedes it in the window. An
 * incomplete last window is dropped. (llama-perplexity scores only the second half of its windows; its figure
 * is lower by that much more context.) */
#include <math.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli_run_int.h"

#define WINDOW_DEFAULT 256
#define LOGITS_BYTES_MAX ((size_t)64 << 20) /* of one step */

struct args {
    struct cli_run_args run;
    const char *text;
    size_t window;
    bool json;
};

static const struct cli_option options[] = {
    CLI_RUN_OPTIONS(struct args, run),
    {CLI_OPTION("--text", "F", CLI_TEXT, struct args, text, "the text (\"-\": standard input)"),
     .required = true},
    {CLI_OPTION("--context", "N", CLI_COUNT, struct args, window, "tokens a window, BOS included (256)"),
     .min = 2, .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {"perplexity", "--model F --text FILE [--context N] [options]",
                                       "Mean negative log-likelihood (nats) and perplexity of a text. The KV "
                                       "cache is F32 unless told otherwise.",
                                       options};

struct job {
    struct args args;
    struct cli_run run;
    struct buf text;
    struct token_list tokens;
    size_t step_rows; /* rows a step, so that their logits stay within LOGITS_BYTES_MAX */
    float *logits;    /* [step_rows][n_vocab] */
    double *row_nll;  /* [step_rows] */
    const int32_t *targets;
    size_t target_count;
    int32_t *window; /* [args.window - 1]: BOS and all tokens but the last */
};

struct score {
    size_t windows, predicted;
    double nll;
};

static enum ph_status prepare(struct job *job, struct ph_err *err)
{
    enum ph_status status = file_read(job->args.text, &job->text, err);
    if (status == PH_OK)
        status = cli_run_open(&job->run, &job->args.run, job->args.window, CLI_RUN_ROWS_MAX, err);
    if (status != PH_OK)
        return status;
    size_t rows = LOGITS_BYTES_MAX / (job->run.n_vocab * sizeof *job->logits);
    job->step_rows = rows < 1 ? 1 : rows < CLI_RUN_ROWS_MAX ? rows : CLI_RUN_ROWS_MAX;
    job->logits = mem_alloc(job->step_rows * job->run.n_vocab * sizeof *job->logits);
    job->row_nll = mem_calloc(job->step_rows, sizeof *job->row_nll);
    job->window = mem_calloc(job->args.window, sizeof *job->window);
    if (!job->logits || !job->row_nll || !job->window)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a window of %zu tokens", job->args.window);
    const struct vocab *vocab = model_vocab(job->run.model);
    const struct vocab_info *info = vocab_info(vocab);
    job->window[0] = info->bos >= 0 ? info->bos : info->eos;
    if (job->window[0] < 0)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "%s: the vocabulary has no BOS to begin a window with",
                       job->args.run.model);
    const char *text = job->text.data ? job->text.data : "";
    status = vocab_tokenize(vocab, text, job->text.len, false, false, &job->tokens, err);
    if (status == PH_OK && job->tokens.len < job->args.window - 1)
        status = ph_fail(err, PH_ERR_ARG, "%s: %zu tokens do not fill a window of %zu; lower --context",
                         job->args.text, job->tokens.len, job->args.window);
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
    for (size_t i = 1; i < count; i++)
        job->window[i] = tokens[i - 1];
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
    for (size_t at = 0; status == PH_OK && at + step <= job->tokens.len; at += step) {
        status = score_window(job, job->tokens.ids + at, score, err);
        cli_progress_show(&progress, at + step, job->tokens.len);
    }
    cli_progress_end(&progress);
    return status;
}

static void print(const struct job *job, const struct score *score)
{
    double mean = score->nll / (double)score->predicted;
    if (job->args.json)
        printf("{\"mean_nll\":%.6f,\"ppl\":%.4f,\"windows\":%zu,\"predicted\":%zu,\"context\":%zu,"
               "\"tokens\":%zu}\n",
               mean, exp(mean), score->windows, score->predicted, job->args.window, job->tokens.len);
    else
        printf("mean nll %.6f\nppl      %.4f\nwindows  %zu of %zu tokens, %zu predicted\n", mean, exp(mean),
               score->windows, job->args.window, score->predicted);
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
