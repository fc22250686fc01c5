/* The lab's bench: building candidates in memory and running them beside the original.
 *
 * A quantised tensor is made once for each format and kept while there is room (BLOCKS_BYTES_MAX); a
 * candidate is the original's file opened again with its tensors replaced. The original's log probabilities
 * of every position are kept too, which bounds how much text is measured. */
#include "train/lab_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"

#define LOGPROBS_BYTES_MAX ((size_t)1 << 30)
#define BLOCKS_BYTES_MAX ((size_t)2 << 30)
#define ROWS_MAX 512
#define ALIGNMENT 32

enum ph_status lab_tell(const struct lab *lab, const char *what, uint64_t done, uint64_t total,
                        struct ph_err *err)
{
    if (lab->params.progress && !lab->params.progress(lab->params.ud, what, done, total))
        return ph_fail(err, PH_ERR_CANCELLED, "stopped; nothing was written");
    return PH_OK;
}

/* ---- The original */

static bool is_float(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

static enum ph_status list_tensors(struct lab *lab, struct ph_err *err)
{
    size_t count = gguf_tensor_count(lab->gguf);
    lab->tensors = mem_calloc(count, sizeof *lab->tensors);
    if (!lab->tensors)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory", lab->params.model);
    for (size_t i = 0; i < count; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(lab->gguf, i);
        if (!quantize_is_matrix(t))
            continue;
        if (!is_float(t->type) && !lab->params.again)
            return ph_fail(
                err, PH_ERR_ARG,
                "%s: '%s' is %s already: the lab needs the F32, F16 or BF16 file to compare with, or "
                "say --again",
                lab->params.model, t->name, tensor_format((uint32_t)t->type)->name);
        lab->tensors[lab->tensor_count++].tensor = t;
    }
    return lab->tensor_count
               ? PH_OK
               : ph_fail(err, PH_ERR_ARG, "%s: there is no matrix to quantise", lab->params.model);
}

enum ph_status lab_create(struct lab **out, const struct lab_params *params, struct ph_err *err)
{
    *out = NULL;
    struct lab *lab = mem_calloc(1, sizeof *lab);
    if (!lab)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the lab");
    lab->params = *params;
    const struct kernels *kernels = kernels_select(params->kernels);
    enum ph_status status = kernels
                                ? PH_OK
                                : ph_fail(err, PH_ERR_UNSUPPORTED, "kernels \"%s\" cannot run on this CPU",
                                          params->kernels ? params->kernels : "");
    if (status == PH_OK)
        status = gguf_open(&lab->gguf, params->model, err);
    if (status == PH_OK)
        status = list_tensors(lab, err);
    if (status == PH_OK)
        status = model_open(&lab->model, params->model, false, err);
    if (status == PH_OK)
        status = pool_create(&lab->pool, params->threads, 0, kernels, err);
    if (status != PH_OK) {
        lab_free(lab);
        return status;
    }
    lab->n_vocab = model_info(lab->model)->n_vocab;
    *out = lab;
    return PH_OK;
}

static void drop_blocks(struct lab_tensor *t, const enum tensor_type *keep, bool weighted, size_t *bytes)
{
    for (int type = 0; type < LAB_TYPES; type++)
        for (int w = 0; w < 2; w++) {
            if (!t->blocks[type][w] || (keep && (int)*keep == type && w == weighted))
                continue;
            *bytes -=
                tensor_row_bytes((enum tensor_type)type, (size_t)(t->tensor->dims[0] * t->tensor->dims[1] *
                                                                  t->tensor->dims[2] * t->tensor->dims[3]));
            mem_free(t->blocks[type][w]);
            t->blocks[type][w] = NULL;
        }
}

void lab_free(struct lab *lab)
{
    if (!lab)
        return;
    for (size_t i = 0; i < lab->tensor_count; i++) {
        drop_blocks(&lab->tensors[i], NULL, false, &lab->blocks_bytes);
        mem_free(lab->tensors[i].weights);
    }
    for (size_t i = 0; i < lab->row_count; i++)
        mem_free(lab->types[i]);
    mem_free(lab->tensors);
    mem_free(lab->tokens);
    mem_free(lab->learn.logprobs);
    mem_free(lab->test.logprobs);
    importance_free(lab->importance);
    if (lab->pool)
        pool_free(lab->pool);
    model_free(lab->model);
    gguf_free(lab->gguf);
    mem_free(lab);
}

const struct model *lab_model(const struct lab *lab)
{
    return lab->model;
}

const struct lab_row *lab_rows(const struct lab *lab, size_t *count)
{
    *count = lab->row_count;
    return lab->rows;
}

/* ---- Candidates */

static size_t elements(const struct gguf_tensor *t)
{
    return (size_t)(t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]);
}

static enum ph_status make_blocks(struct lab *lab, struct lab_tensor *t, enum tensor_type type, bool weighted,
                                  struct ph_err *err)
{
    void **blocks = &t->blocks[type][weighted];
    size_t bytes = tensor_row_bytes(type, elements(t->tensor));
    if (*blocks)
        return PH_OK;
    *blocks = mem_alloc_aligned(64, bytes);
    if (!*blocks)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for '%s' as %s (%zu bytes)", lab->params.model,
                       t->tensor->name, tensor_format((uint32_t)type)->name, bytes);
    lab->blocks_bytes += bytes;
    const struct tensor_conversion conversion = {
        .gguf = lab->gguf, .tensor = t->tensor, .type = type, .weights = weighted ? t->weights : NULL};
    return tensor_convert(&conversion, lab->pool, 0, elements(t->tensor) / (size_t)t->tensor->dims[0],
                          *blocks, err);
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

enum ph_status lab_build(struct lab *lab, const enum tensor_type *types, bool weighted,
                         struct lab_candidate *out, struct ph_err *err)
{
    struct gguf *gguf;
    *out = (struct lab_candidate){.file_bytes = gguf_file_bytes(lab->gguf)};
    for (size_t i = 0; lab->blocks_bytes > BLOCKS_BYTES_MAX && i < lab->tensor_count; i++)
        drop_blocks(&lab->tensors[i], &types[i], weighted, &lab->blocks_bytes);
    enum ph_status status = gguf_open(&gguf, lab->params.model, err);
    if (status != PH_OK)
        return status;
    for (size_t i = 0; status == PH_OK && i < lab->tensor_count; i++) {
        struct lab_tensor *t = &lab->tensors[i];
        if (types[i] == t->tensor->type)
            continue;
        status = make_blocks(lab, t, types[i], weighted, err);
        if (status == PH_OK)
            status = gguf_tensor_replace(gguf, t->tensor->name, types[i], t->blocks[types[i]][weighted], err);
        out->file_bytes -= aligned(t->tensor->bytes);
        out->file_bytes += aligned(tensor_row_bytes(types[i], elements(t->tensor)));
    }
    if (status != PH_OK) {
        gguf_free(gguf);
        return status;
    }
    status = model_open_gguf(&out->model, gguf, false, err);
    if (status == PH_OK)
        out->weight_bytes = model_info(out->model)->weight_bytes;
    return status;
}

/* ---- Running over a set */

struct run {
    struct lab *lab;
    const struct lab_set *set;
    bool record; /* the original: keep what it says */
    const struct window_rows *rows;
    float *scratch; /* [lanes][2][n_vocab] */
    double nll[ROWS_MAX], kl[ROWS_MAX];
    bool agrees[ROWS_MAX];
    struct {
        double nll, kl, agree, kl_window, kl_squares;
    } sum;
};

static double log_sum_exp(const struct kernels *k, const float *logits, size_t len, float *scratch,
                          size_t *best)
{
    size_t top = 0;
    for (size_t i = 1; i < len; i++)
        top = logits[i] > logits[top] ? i : top;
    memcpy(scratch, logits, len * sizeof *scratch);
    tensor_softmax(k, scratch, len);
    *best = top;
    return (double)logits[top] - log((double)scratch[top]);
}

/* Kullback-Leibler divergence of the row's prediction from the original's: sum of p (log p - log q). */
static void compare_row(struct run *run, const struct lane *lane, size_t i)
{
    const struct window_rows *rows = run->rows;
    size_t len = rows->n_vocab, best, original = 0;
    const float *q = rows->logits + i * len;
    float *scratch = run->scratch + lane->index * 2 * len, *p = scratch + len;
    float *logp = run->set->logprobs + (rows->first + i) * len;
    double log_q = log_sum_exp(lane->kernels, q, len, scratch, &best), kl = 0;
    if (run->record)
        for (size_t j = 0; j < len; j++)
            logp[j] = (float)((double)q[j] - log_q);
    run->nll[i] = log_q - (double)q[rows->targets[i]];
    memcpy(p, logp, len * sizeof *p);
    tensor_softmax(lane->kernels, p, len);
    for (size_t j = 0; j < len; j++) {
        kl += (double)p[j] * ((double)logp[j] - ((double)q[j] - log_q));
        original = logp[j] > logp[original] ? j : original;
    }
    run->kl[i] = kl < 0 ? 0 : kl; /* no number stays one: it must not pass for no loss */
    run->agrees[i] = best == original;
}

static void compare_rows(struct lane *lane, void *ud)
{
    struct run *run = ud;
    size_t first, end;
    while (lane_take(lane, run->rows->rows, 4, &first, &end))
        for (size_t i = first; i < end; i++)
            compare_row(run, lane, i);
}

static void see_rows(void *ud, const struct window_rows *rows)
{
    struct run *run = ud;
    run->rows = rows;
    pool_run(run->lab->pool, compare_rows, run);
    for (size_t i = 0; i < rows->rows; i++) {
        run->sum.nll += run->nll[i];
        run->sum.kl_window += run->kl[i];
        run->sum.agree += run->agrees[i];
    }
}

static enum ph_status run_windows(struct run *run, struct windows *windows, const char *what,
                                  struct ph_err *err)
{
    size_t each = run->lab->params.window - 1;
    for (size_t w = 0; w < run->set->windows; w++) {
        run->sum.kl_window = 0;
        enum ph_status status =
            windows_read(windows, -1, run->set->tokens + w * each, w * each, see_rows, run, err);
        if (status == PH_OK)
            status = lab_tell(run->lab, what, w + 1, run->set->windows, err);
        if (status != PH_OK)
            return status;
        double mean = run->sum.kl_window / (double)each;
        run->sum.kl += mean;
        run->sum.kl_squares += mean * mean;
    }
    return PH_OK;
}

static enum ph_status run_set(struct lab *lab, const struct model *model, const struct lab_set *set,
                              bool record, struct lab_result *out, struct ph_err *err)
{
    const struct runner_params params = {.threads = lab->params.threads,
                                         .kernels = lab->params.kernels,
                                         .kv_type = TENSOR_F32,
                                         .context_len = lab->params.window,
                                         .rows_max = ROWS_MAX,
                                         .outputs_max = ROWS_MAX,
                                         .sequences_max = 1};
    struct run *run = mem_calloc(1, sizeof *run);
    struct runner *runner = NULL;
    struct kv_seq *seq = NULL;
    struct windows *windows = NULL;
    enum ph_status status = PH_OK;
    if (run) {
        *run = (struct run){.lab = lab, .set = set, .record = record};
        run->scratch = mem_alloc(pool_lanes(lab->pool) * 2 * lab->n_vocab * sizeof *run->scratch);
    }
    if (!run || !run->scratch)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory to compare predictions");
    if (status == PH_OK)
        status = runner_create(&runner, model, &params, err);
    if (status == PH_OK) {
        seq = kv_seq_take(runner);
        status = windows_create(&windows, model, runner, seq, lab->params.window, ROWS_MAX, err);
    }
    if (status == PH_OK)
        status = run_windows(run, windows, record ? "original" : "measuring", err);
    if (status == PH_OK) {
        double n = (double)set->windows, tokens = n * (double)(lab->params.window - 1),
               mean = run->sum.kl / n;
        double spread = run->sum.kl_squares / n - mean * mean;
        *out = (struct lab_result){.nll = run->sum.nll / tokens,
                                   .kl = mean,
                                   .kl_error = n > 1 && spread > 0 ? sqrt(spread / (n - 1)) : 0,
                                   .top1 = run->sum.agree / tokens};
    }
    windows_free(windows);
    if (seq)
        kv_seq_give(runner, seq);
    runner_free(runner);
    if (run)
        mem_free(run->scratch);
    mem_free(run);
    return status;
}

enum ph_status lab_run(struct lab *lab, const struct model *model, const struct lab_set *set,
                       struct lab_result *out, struct ph_err *err)
{
    return run_set(lab, model, set, false, out, err);
}

/* ---- The text */

static enum ph_status record(struct lab *lab, struct lab_set *set, struct lab_result *result,
                             struct ph_err *err)
{
    size_t rows = set->windows * (lab->params.window - 1);
    set->logprobs = mem_alloc(rows * lab->n_vocab * sizeof *set->logprobs);
    if (!set->logprobs)
        return ph_fail(err, PH_ERR_NOMEM,
                       "no memory for the original's predictions of %zu tokens; lower --tokens", rows);
    enum ph_status status = run_set(lab, lab->model, set, true, result, err);
    set->nll = result->nll;
    return status;
}

static enum ph_status learn_importance(struct lab *lab, const char *dataset, struct ph_err *err)
{
    const struct importance_job job = {.model = lab->model,
                                       .dataset = dataset,
                                       .tokens = lab->learn.tokens,
                                       .count = lab->learn.windows * (lab->params.window - 1),
                                       .window = lab->params.window,
                                       .threads = lab->params.threads,
                                       .kernels = lab->params.kernels};
    enum ph_status status = importance_collect(&lab->importance, &job, err);
    for (size_t i = 0; status == PH_OK && i < lab->tensor_count; i++) {
        struct lab_tensor *t = &lab->tensors[i];
        size_t len = (size_t)(t->tensor->dims[0] * t->tensor->dims[2] * t->tensor->dims[3]);
        t->weights = mem_calloc(len, sizeof *t->weights);
        if (!t->weights)
            return ph_fail(err, PH_ERR_NOMEM, "no memory for importance");
        if (!importance_weights(lab->importance, t->tensor, t->weights)) {
            mem_free(t->weights);
            t->weights = NULL;
        }
    }
    return status;
}

enum ph_status lab_read(struct lab *lab, const int32_t *tokens, size_t count, const char *dataset,
                        struct ph_err *err)
{
    size_t each = lab->params.window - 1, windows = count / each, most = lab->params.tokens_max / each;
    size_t room = LOGPROBS_BYTES_MAX / (lab->n_vocab * sizeof(float)) / each / 2;
    if (windows < 2)
        return ph_fail(
            err, PH_ERR_ARG,
            "%s: %zu tokens are less than two windows of %zu: give a longer text, or lower --context",
            dataset, count, lab->params.window);
    most = most < room ? most : room;
    most = most < windows / 2 ? most : windows / 2;
    most = most ? most : 1;
    lab->tokens = mem_calloc(2 * most * each, sizeof *lab->tokens);
    if (!lab->tokens)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu tokens", 2 * most * each);
    memcpy(lab->tokens, tokens, 2 * most * each * sizeof *lab->tokens);
    lab->learn = (struct lab_set){.tokens = lab->tokens, .windows = most};
    lab->test = (struct lab_set){.tokens = lab->tokens + most * each, .windows = most};
    struct lab_result result;
    enum ph_status status = record(lab, &lab->learn, &result, err);
    if (status == PH_OK)
        status = record(lab, &lab->test, &result, err);
    if (status == PH_OK)
        status = learn_importance(lab, dataset, err);
    enum tensor_type *types = mem_calloc(lab->tensor_count, sizeof *types);
    if (status == PH_OK && !types)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory");
    for (size_t i = 0; types && i < lab->tensor_count; i++)
        types[i] = lab->tensors[i].tensor->type;
    if (status == PH_OK)
        status = lab_add_row(lab, "original", types, false, err);
    mem_free(types);
    return status;
}

/* ---- Rows */

static enum ph_status measure(struct lab *lab, struct lab_row *row, const enum tensor_type *types,
                              struct ph_err *err)
{
    struct lab_candidate candidate;
    struct lab_result result;
    enum ph_status status = lab_build(lab, types, row->weighted, &candidate, err);
    if (status == PH_OK)
        status = lab_run(lab, candidate.model, &lab->test, &result, err);
    if (status == PH_OK && lab->params.timed)
        status = lab_time(lab, candidate.model, &row->speed, err);
    if (status == PH_OK) {
        const struct model_info *info = model_info(candidate.model);
        size_t context = info->n_context_train < ENGINE_CONTEXT_DEFAULT_MAX ? info->n_context_train
                                                                            : ENGINE_CONTEXT_DEFAULT_MAX;
        row->file_bytes = candidate.file_bytes;
        row->weight_bytes = candidate.weight_bytes;
        row->memory_bytes = candidate.weight_bytes + info->kv_bytes_per_token_f16 * context;
        row->nll = result.nll;
        row->ppl = exp(result.nll);
        row->kl = result.kl;
        row->kl_error = result.kl_error;
        row->top1 = result.top1;
    }
    model_free(candidate.model);
    return status;
}

enum ph_status lab_add_row(struct lab *lab, const char *name, const enum tensor_type *types, bool weighted,
                           struct ph_err *err)
{
    struct lab_row row = {.weighted = weighted};
    if (lab->row_count == LAB_ROWS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "more than %d rows", LAB_ROWS_MAX);
    snprintf(row.name, sizeof row.name, "%s", name);
    enum tensor_type *copy = mem_calloc(lab->tensor_count, sizeof *copy);
    if (!copy)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a row");
    memcpy(copy, types, lab->tensor_count * sizeof *copy);
    enum ph_status status = measure(lab, &row, types, err);
    if (status != PH_OK) {
        mem_free(copy);
        return status;
    }
    lab->types[lab->row_count] = copy;
    lab->rows[lab->row_count++] = row;
    return PH_OK;
}

enum ph_status lab_measure(struct lab *lab, const struct mixture *mixture, bool weighted, struct ph_err *err)
{
    enum tensor_type *types = mem_calloc(lab->tensor_count, sizeof *types);
    if (!types)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a row");
    for (size_t i = 0; i < lab->tensor_count; i++)
        types[i] = mixture_tensor_type(mixture, lab->gguf, lab->tensors[i].tensor);
    enum ph_status status = lab_add_row(lab, mixture->name, types, weighted, err);
    mem_free(types);
    return status;
}

double lab_loss(const struct lab *lab, const struct lab_row *row, bool percent)
{
    return percent ? 100 * (exp(row->nll - lab->rows[0].nll) - 1) : row->kl;
}

const struct lab_row *lab_smallest(const struct lab *lab, struct lab_bound bound)
{
    const struct lab_row *best = NULL;
    for (size_t i = 1; i < lab->row_count; i++) {
        const struct lab_row *row = &lab->rows[i];
        if (lab_loss(lab, row, bound.percent) <= bound.value && (!best || row->file_bytes < best->file_bytes))
            best = row;
    }
    return best;
}

/* ---- Keeping */

struct keeping {
    const struct lab *lab;
    const enum tensor_type *types;
};

static enum tensor_type kept_type(void *ud, const struct gguf_tensor *tensor)
{
    const struct keeping *keeping = ud;
    for (size_t i = 0; i < keeping->lab->tensor_count; i++)
        if (strcmp(keeping->lab->tensors[i].tensor->name, tensor->name) == 0)
            return keeping->types[i];
    return tensor->type;
}

static bool keep_going(void *ud, uint64_t done, uint64_t total)
{
    const struct keeping *keeping = ud;
    return lab_tell(keeping->lab, "writing", done, total, NULL) == PH_OK;
}

/* The mixture whose main format most bytes have: the file type that other programs show. */
static const struct mixture *nearest_mixture(const struct lab *lab, const enum tensor_type *types)
{
    uint64_t bytes[LAB_TYPES] = {0};
    enum tensor_type most = types[0];
    for (size_t i = 0; i < lab->tensor_count; i++)
        bytes[types[i]] += tensor_row_bytes(types[i], elements(lab->tensors[i].tensor));
    for (int type = 0; type < LAB_TYPES; type++)
        most = bytes[type] > bytes[most] ? (enum tensor_type)type : most;
    const struct mixture *best = mixture_at(0);
    for (size_t i = 0; mixture_at(i); i++)
        if (mixture_at(i)->main == most)
            best = mixture_at(i);
    return best;
}

enum ph_status lab_write(struct lab *lab, const struct lab_row *row, const char *path, struct ph_err *err)
{
    const enum tensor_type *types = lab->types[row - lab->rows];
    struct keeping keeping = {lab, types};
    struct quantize_result result;
    const struct quantize_job job = {.in = lab->params.model,
                                     .out = path,
                                     .mixture = nearest_mixture(lab, types),
                                     .choose = kept_type,
                                     .importance = row->weighted ? lab->importance : NULL,
                                     .again = lab->params.again,
                                     .threads = lab->params.threads,
                                     .progress = keep_going,
                                     .ud = &keeping};
    return gguf_quantize(&job, &result, err);
}
