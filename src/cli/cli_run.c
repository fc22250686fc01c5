#include "cli/cli_run_int.h"

static enum ph_status open_loras(struct cli_run *run, const struct cli_list *items, float *scales,
                                 struct ph_err *err)
{
    struct arena arena;
    const char *const *paths;
    float *parsed;
    arena_init(&arena, 1 << 20);
    enum ph_status status = cli_loras_parse(&arena, items, &paths, &parsed, err);
    for (size_t i = 0; status == PH_OK && i < items->count; i++) {
        scales[i] = parsed[i];
        status = lora_open(&run->loras[i], run->model, paths[i], err);
        run->lora_count += status == PH_OK;
    }
    arena_release(&arena);
    return status;
}

enum ph_status cli_run_open(struct cli_run *run, const struct cli_run_args *args, size_t context_len,
                            size_t outputs_max, struct ph_err *err)
{
    float scales[CLI_LIST_MAX];
    enum ph_status status = model_open(&run->model, args->model, false, err);
    if (status == PH_OK)
        status = open_loras(run, &args->loras, scales, err);
    if (status != PH_OK)
        return status;
    run->n_vocab = model_info(run->model)->n_vocab;
    const struct runner_params params = {
        .threads = (unsigned)args->threads,
        .kernels = args->kernels,
        .kv_type = cli_kv_type(args->kv),
        .context_len = context_len ? context_len : args->context_len,
        .rows_max = CLI_RUN_ROWS_MAX,
        .outputs_max = outputs_max,
        .sequences_max = 1,
        .loras = (const struct lora *const *)run->loras,
        .lora_scales = scales,
        .lora_count = run->lora_count,
    };
    status = runner_create(&run->runner, run->model, &params, err);
    if (status != PH_OK)
        return status;
    run->seq = kv_seq_take(run->runner);
    return run->seq ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "%s: no room for a sequence", args->model);
}

void cli_run_close(struct cli_run *run)
{
    if (run->seq)
        kv_seq_give(run->runner, run->seq);
    runner_free(run->runner);
    for (size_t i = 0; i < run->lora_count; i++)
        lora_free(run->loras[i]);
    model_free(run->model);
}

void cli_run_forget(struct cli_run *run)
{
    kv_seq_truncate(run->runner, run->seq, 0);
}

static enum ph_status step(struct cli_run *run, size_t count, enum phase phase, struct ph_err *err)
{
    size_t len = kv_seq_len(run->seq) + count;
    enum ph_status status = kv_seq_reserve(run->runner, run->seq, len);
    if (status != PH_OK)
        return ph_fail(err, status, "%zu tokens are too many, the context holds %zu; is there a --context?",
                       len, runner_context_len(run->runner));
    return runner_step(run->runner, run->rows, count, phase, err);
}

enum ph_status cli_run_step(struct cli_run *run, const int32_t *ids, size_t count, enum phase phase,
                            float *logits, struct ph_err *err)
{
    for (size_t i = 0; i < count; i++)
        run->rows[i] = (struct runner_row){run->seq, ids[i], logits ? logits + i * run->n_vocab : NULL};
    return step(run, count, phase, err);
}

enum ph_status cli_run_feed(struct cli_run *run, const int32_t *ids, size_t count, float *last_logits,
                            struct cli_progress *progress, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t at = 0; at < count && status == PH_OK;) {
        size_t rows = count - at < CLI_RUN_ROWS_MAX ? count - at : CLI_RUN_ROWS_MAX;
        for (size_t i = 0; i < rows; i++)
            run->rows[i] = (struct runner_row){run->seq, ids[at + i], NULL};
        at += rows;
        if (at == count)
            run->rows[rows - 1].logits = last_logits;
        status = step(run, rows, PHASE_PREFILL, err);
        if (progress)
            cli_progress_show(progress, at, count);
    }
    return status;
}
