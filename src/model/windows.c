/* A text in windows: the loop under perplexity, and under everything that compares models on a text. */
#include "base/mem.h"
#include "model/model.h"

#define LOGITS_BYTES_MAX ((size_t)64 << 20) /* of one step */

struct windows {
    struct runner *runner;
    struct kv_seq *seq;
    size_t len, n_vocab;
    size_t step_rows; /* rows a step, so that their logits stay within LOGITS_BYTES_MAX */
    int32_t first;
    float *logits; /* [step_rows][n_vocab] */
    struct runner_row *rows;
};

enum ph_status windows_create(struct windows **out, const struct model *model, struct runner *runner,
                              struct kv_seq *seq, size_t len, size_t rows_max, struct ph_err *err)
{
    const struct vocab_info *info = vocab_info(model_vocab(model));
    struct windows *w = mem_calloc(1, sizeof *w);
    *out = w;
    if (!w)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a window of %zu tokens", len);
    *w = (struct windows){.runner = runner, .seq = seq, .len = len, .n_vocab = info->n_tokens};
    size_t rows = LOGITS_BYTES_MAX / (w->n_vocab * sizeof *w->logits);
    rows = rows < rows_max ? rows : rows_max;
    rows = rows < len - 1 ? rows : len - 1;
    w->step_rows = rows ? rows : 1;
    w->first = info->bos >= 0 ? info->bos : info->eos;
    w->logits = mem_alloc(w->step_rows * w->n_vocab * sizeof *w->logits);
    w->rows = mem_calloc(w->step_rows, sizeof *w->rows);
    enum ph_status status = PH_OK;
    if (w->first < 0)
        status = ph_fail(err, PH_ERR_UNSUPPORTED, "%s: the vocabulary has no BOS to begin a window with",
                         gguf_path(model_gguf(model)));
    else if (!w->logits || !w->rows)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for a window of %zu tokens", len);
    if (status != PH_OK) {
        windows_free(w);
        *out = NULL;
    }
    return status;
}

void windows_free(struct windows *windows)
{
    if (!windows)
        return;
    mem_free(windows->logits);
    mem_free(windows->rows);
    mem_free(windows);
}

enum ph_status windows_read(struct windows *w, int32_t head, const int32_t *tokens, size_t first,
                            void (*see)(void *ud, const struct window_rows *rows), void *ud,
                            struct ph_err *err)
{
    size_t count = w->len - 1, rows;
    kv_seq_truncate(w->runner, w->seq, 0);
    enum ph_status status = kv_seq_reserve(w->runner, w->seq, count);
    if (status != PH_OK)
        return ph_fail(err, status, "a window of %zu tokens is too long, the context holds %zu", w->len,
                       runner_context_len(w->runner));
    for (size_t at = 0; at < count; at += rows) {
        rows = count - at < w->step_rows ? count - at : w->step_rows;
        for (size_t i = 0; i < rows; i++)
            w->rows[i] = (struct runner_row){w->seq,
                                             at + i     ? tokens[at + i - 1]
                                             : head < 0 ? w->first
                                                        : head,
                                             w->logits + i * w->n_vocab};
        status = runner_step(w->runner, w->rows, rows, PHASE_PREFILL, err);
        if (status != PH_OK)
            return status;
        see(ud, &(struct window_rows){w->logits, tokens + at, rows, w->n_vocab, first + at});
    }
    return PH_OK;
}
