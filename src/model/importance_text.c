/* Collecting an importance matrix: reads a text with the model as it is and watches its products. */
#include "model/model.h"

#define ROWS_MAX 512

struct reading {
    const struct importance_job *job;
    struct runner *runner;
    struct kv_seq *seq;
    struct windows *windows;
};

static void ignore(void *ud, const struct window_rows *rows)
{
    (void)ud;
    (void)rows;
}

static enum ph_status read_all(struct reading *r, size_t *windows, struct ph_err *err)
{
    const struct importance_job *job = r->job;
    size_t each = job->window - 1;
    for (size_t at = 0; at + each <= job->count; at += each) {
        /* every row wants its logits: those that don't are left out of the last layer's products */
        enum ph_status status = windows_read(r->windows, -1, job->tokens + at, at, ignore, NULL, err);
        if (status != PH_OK)
            return status;
        ++*windows;
        if (job->progress && !job->progress(job->ud, at + each, job->count))
            return ph_fail(err, PH_ERR_CANCELLED, "stopped while collecting importance");
    }
    return PH_OK;
}

enum ph_status importance_collect(struct importance **out, const struct importance_job *job,
                                  struct ph_err *err)
{
    struct reading r = {.job = job};
    size_t windows = 0;
    *out = NULL;
    if (job->count < job->window - 1)
        return ph_fail(err, PH_ERR_ARG, "%s: %zu tokens do not fill a window of %zu: give a longer text",
                       job->dataset, job->count, job->window);
    enum ph_status status = importance_create(out, model_gguf(job->model), err);
    if (status != PH_OK)
        return status;
    const struct runner_params params = {.threads = job->threads,
                                         .kernels = job->kernels,
                                         .kv_type = TENSOR_F32,
                                         .context_len = job->window,
                                         .rows_max = ROWS_MAX,
                                         .outputs_max = ROWS_MAX,
                                         .sequences_max = 1,
                                         .watch = {importance_add, *out}};
    status = runner_create(&r.runner, job->model, &params, err);
    if (status == PH_OK) {
        r.seq = kv_seq_take(r.runner);
        status = windows_create(&r.windows, job->model, r.runner, r.seq, job->window, ROWS_MAX, err);
    }
    if (status == PH_OK)
        status = read_all(&r, &windows, err);
    importance_describe(*out, job->dataset, windows, job->window);
    windows_free(r.windows);
    if (r.seq)
        kv_seq_give(r.runner, r.seq);
    runner_free(r.runner);
    if (status != PH_OK) {
        importance_free(*out);
        *out = NULL;
    }
    return status;
}
