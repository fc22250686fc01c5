/* The trainer: settings made complete, memory taken once, steps and validation.
 *
 * A step draws the windows of all its micro-batches first, because a row's weight is 1 / (predicted rows of
 * the whole step); then gradients add up micro-batch by micro-batch, and one update ends it. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/process.h"
#include "train/trainer_int.h"

#define WARMUP_STEPS_MAX 100u
#define FF_MULTIPLE ((size_t)32)
#define HEAD_DIM_WANTED ((size_t)64)
#define TIME_WANTED ((size_t)256)
#define STEP_TOKENS_MAX (1u << 28) /* whose windows, 17 bytes a token, all wait for the step */

/* ---- Settings */

void trainer_params_default(struct trainer_params *params)
{
    *params = (struct trainer_params){.model = {.tied = true},
                                      .batch = 16,
                                      .accumulate = 1,
                                      .rate = 1e-3,
                                      .floor = -1,
                                      .warmup = UINT64_MAX,
                                      .cooldown = 0.2,
                                      .decay = 0.1,
                                      .beta1 = 0.9,
                                      .beta2 = 0.95,
                                      .eps = 1e-8,
                                      .clip = 1,
                                      .validation_windows = 64};
}

static void choose(size_t *size, size_t wanted)
{
    if (*size == 0)
        *size = wanted;
}

/* Heads of about 64, an even number of elements each. */
static size_t heads_for(size_t d)
{
    size_t heads = d > HEAD_DIM_WANTED ? d / HEAD_DIM_WANTED : 1;
    while (heads > 1 && (d % heads != 0 || d / heads % 2 != 0))
        heads--;
    return heads;
}

/* 256 wide, 6 layers, heads of 64, a SwiGLU of 8/3 the width, a context of one window. */
static void choose_sizes(struct decoder_config *c, size_t time)
{
    choose(&c->d, 256);
    choose(&c->layers, 6);
    choose(&c->heads, heads_for(c->d));
    choose(&c->kv_heads, c->heads);
    choose(&c->ff, (c->d * 8 / 3 + FF_MULTIPLE - 1) / FF_MULTIPLE * FF_MULTIPLE);
    choose(&c->context, time);
    if (!(c->rope_base > 0))
        c->rope_base = 10000;
    if (!(c->norm_eps > 0))
        c->norm_eps = 1e-5f;
}

/* What depends on the length of the data. */
static void choose_length(struct trainer_params *p, uint64_t windows)
{
    uint64_t step_windows = p->batch * p->accumulate, step_tokens = step_windows * p->time;
    if (p->steps == 0)
        p->steps = p->tokens ? (p->tokens + step_tokens - 1) / step_tokens : windows / step_windows;
    if (p->steps == 0)
        p->steps = 1;
    if (p->warmup == UINT64_MAX)
        p->warmup = p->steps / 10 < WARMUP_STEPS_MAX ? p->steps / 10 : WARMUP_STEPS_MAX;
    if (p->floor < 0)
        p->floor = p->schedule == SCHEDULE_COSINE ? p->rate / 10 : 0;
}

static enum ph_status check_params(const struct trainer_params *p, struct ph_err *err)
{
    if (p->batch == 0 || p->accumulate == 0)
        return ph_fail(err, PH_ERR_ARG, "batch and accumulate must be at least 1");
    if (p->batch % ranks_count(p->ranks) != 0)
        return ph_fail(err, PH_ERR_ARG, "a batch of %zu can't be shared evenly by %u processes", p->batch,
                       ranks_count(p->ranks));
    if (!(p->rate >= 0) || !(p->floor <= p->rate))
        return ph_fail(err, PH_ERR_ARG, "the rate must not fall from %g to a floor of %g above it", p->rate,
                       p->floor);
    if (!(p->beta1 >= 0 && p->beta1 < 1 && p->beta2 >= 0 && p->beta2 < 1 && p->eps > 0))
        return ph_fail(err, PH_ERR_ARG, "beta1 %g and beta2 %g must be in [0, 1), eps %g above 0", p->beta1,
                       p->beta2, p->eps);
    if (!p->tokenizer && !p->init)
        return ph_fail(err, PH_ERR_ARG, "no tokenizer is given; name a GGUF file with the data's vocabulary");
    return PH_OK;
}

static enum ph_status check_step(const struct trainer_params *p, struct ph_err *err)
{
    if (p->batch <= STEP_TOKENS_MAX / p->accumulate && p->batch * p->accumulate <= STEP_TOKENS_MAX / p->time)
        return PH_OK;
    return ph_fail(err, PH_ERR_LIMIT,
                   "a step of %zu x %zu windows of %zu tokens is too large: %u tokens are the most",
                   p->accumulate, p->batch, p->time, STEP_TOKENS_MAX);
}

/* ---- Creation */

static enum ph_status open_tokenizer(struct trainer *t, struct ph_err *err)
{
    const struct trainer_params *p = &t->params;
    struct vocab *vocab;
    enum ph_status status = gguf_open(&t->gguf, p->init ? p->init : p->tokenizer, err);
    if (status == PH_OK)
        status = vocab_create(&vocab, t->gguf, err);
    if (status != PH_OK)
        return status;
    size_t count = vocab_info(vocab)->n_tokens;
    t->params.model.vocab = count;
    t->vocab_hash = corpus_vocab_hash(t->gguf);
    t->piece_bytes = corpus_piece_bytes(vocab);
    vocab_free(vocab);
    return t->piece_bytes ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for %zu tokens", count);
}

/* With both files given, they must agree. */
static enum ph_status check_tokenizer(const struct trainer *t, struct ph_err *err)
{
    const struct trainer_params *p = &t->params;
    struct gguf *other;
    if (!p->init || !p->tokenizer)
        return PH_OK;
    enum ph_status status = gguf_open(&other, p->tokenizer, err);
    if (status != PH_OK)
        return status;
    if (corpus_vocab_hash(other) != t->vocab_hash)
        status = ph_fail(err, PH_ERR_ARG, "%s has another vocabulary than %s", p->tokenizer, p->init);
    gguf_free(other);
    return status;
}

/* What one of the processes on this machine may take. */
static uint64_t memory_budget(const struct trainer_params *p)
{
    uint64_t all = process_memory_available() / 100 * TRAIN_MEMORY_PERCENT;
    return p->memory ? p->memory : all / ranks_here(p->ranks);
}

static enum ph_status take_memory(struct trainer *t, struct ph_err *err)
{
    struct trainer_params *p = &t->params;
    size_t windows = p->batch * p->accumulate, rows = windows * p->time;
    enum ph_status status = PH_OK;
    p->model.recompute = p->recompute == RECOMPUTE_ALWAYS;
    if (p->recompute == RECOMPUTE_AUTO)
        status = decoder_fit(&p->model, t->pool, t->share, p->time, memory_budget(p), err);
    if (status == PH_OK)
        status = decoder_create(&t->decoder, t->pool, &p->model, t->share, p->time, err);
    if (status != PH_OK)
        return status;
    t->params.model = *decoder_config(t->decoder);
    size_t len = decoder_len(t->decoder);
    t->adamw = (struct adamw){.beta1 = (float)p->beta1,
                              .beta2 = (float)p->beta2,
                              .eps = (float)p->eps,
                              .decay = (float)p->decay,
                              .muon = p->muon,
                              .m = mem_alloc_aligned(MEM_CACHE_LINE, len * sizeof(float)),
                              .v = mem_alloc_aligned(MEM_CACHE_LINE, len * sizeof(float))};
    t->windows = mem_calloc(windows, (p->time + 1) * sizeof *t->windows);
    t->flags = mem_calloc(rows, sizeof *t->flags);
    t->inputs = mem_calloc(rows, sizeof *t->inputs);
    t->targets = mem_calloc(rows, sizeof *t->targets);
    t->weights = mem_calloc(rows, sizeof *t->weights);
    if (!t->adamw.m || !t->adamw.v || !t->windows || !t->flags || !t->inputs || !t->targets || !t->weights)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the moments of %zu parameters and %zu positions",
                       len, rows);
    return PH_OK;
}

/* PH_ERR_ARG unless rank 0's settings are this rank's own; `first` is room for them. */
static enum ph_status compare_ranks(struct trainer *t, const struct buf *own, struct buf *first,
                                    struct ph_err *err)
{
    size_t at = 0, line = 0;
    uint64_t len = own->len;
    ranks_broadcast(t->ranks, &len, sizeof len);
    char *text = buf_reserve(first, len);
    if (!text || buf_status(own) != PH_OK)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to compare settings");
    if (ranks_index(t->ranks) == 0)
        memcpy(text, own->data, len);
    ranks_broadcast(t->ranks, text, len);
    text[len] = '\0'; /* there is room for it */
    for (; at < len && at < own->len && text[at] == own->data[at]; at++)
        line = text[at] == '\n' ? at + 1 : line;
    if (at == len && at == own->len)
        return PH_OK;
    return ph_fail(err, PH_ERR_ARG, "this process has %.*s, the first one %.*s; start them all alike",
                   (int)strcspn(own->data + line, "\n"), own->data + line, (int)strcspn(text + line, "\n"),
                   text + line);
}

/* All ranks do the same work on the same data, from rank 0's weights: their own might differ by their
 * machines' libraries. */
static enum ph_status agree(struct trainer *t, struct ph_err *err)
{
    struct buf own, first;
    if (ranks_count(t->ranks) == 1)
        return PH_OK;
    buf_init(&own, SETTINGS_BYTES_MAX);
    buf_init(&first, SETTINGS_BYTES_MAX);
    settings_write(&own, t);
    enum ph_status status = compare_ranks(t, &own, &first, err);
    buf_release(&own);
    buf_release(&first);
    if (status != PH_OK)
        return status;
    ranks_broadcast(t->ranks, &t->params.steps, sizeof t->params.steps);
    trainer_level(t);
    return PH_OK;
}

static enum ph_status prepare(struct trainer *t, struct ph_err *err)
{
    struct trainer_params *p = &t->params;
    enum ph_status status = check_params(p, err);
    if (status == PH_OK)
        status = open_tokenizer(t, err);
    if (status == PH_OK)
        status = check_tokenizer(t, err);
    if (status == PH_OK && p->init)
        status = import_config(t->gguf, &p->model, err);
    if (status != PH_OK)
        return status;
    choose(&p->time, p->model.context > 0 && p->model.context < TIME_WANTED ? p->model.context : TIME_WANTED);
    choose_sizes(&p->model, p->time);
    status = check_step(p, err);
    if (status != PH_OK)
        return status;
    status = mix_open(&t->mix, p, p->model.vocab, t->vocab_hash, err);
    if (status != PH_OK)
        return status;
    t->share = p->batch / ranks_count(p->ranks);
    t->chose_warmup = p->warmup == UINT64_MAX;
    choose_length(p, t->mix.windows);
    status = take_memory(t, err);
    if (status == PH_OK)
        status = window_set_open(&t->validation, &t->mix, p->time, p->validation_windows, err);
    if (status == PH_OK && p->init)
        status = import_weights(t->gguf, t->decoder, err);
    else if (status == PH_OK)
        decoder_init_weights(t->decoder, p->seed);
    return status == PH_OK ? agree(t, err) : status;
}

enum ph_status trainer_create(struct trainer **out, struct pool *pool, const struct trainer_params *params,
                              struct ph_err *err)
{
    *out = NULL;
    struct trainer *t = mem_calloc(1, sizeof *t);
    if (!t)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a trainer");
    t->params = *params;
    t->pool = pool;
    t->ranks = params->ranks;
    t->from_init = params->init != NULL;
    enum ph_status status = prepare(t, err);
    t->params.sources = NULL; /* the caller's */
    t->params.tokenizer = t->params.init = NULL;
    if (status == PH_OK)
        *out = t;
    else
        trainer_free(t);
    return status;
}

void trainer_free(struct trainer *t)
{
    if (!t)
        return;
    window_set_release(&t->validation);
    mem_free(t->piece_bytes);
    mem_free(t->weights);
    mem_free(t->targets);
    mem_free(t->inputs);
    mem_free(t->flags);
    mem_free(t->windows);
    mem_free(t->adamw.m);
    mem_free(t->adamw.v);
    decoder_free(t->decoder);
    mix_release(&t->mix);
    gguf_free(t->gguf);
    mem_free(t);
}

/* ---- What it is */

const struct trainer_params *trainer_params(const struct trainer *t)
{
    return &t->params;
}

struct decoder *trainer_decoder(struct trainer *t)
{
    return t->decoder;
}

/* Forward is a multiplication and an addition for every weight of a matrix, and for every pair of positions
 * that see each other twice the width; backward twice that. */
double trainer_flops_per_token(const struct trainer *t)
{
    const struct decoder_config *c = &t->params.model;
    size_t count;
    const struct param *params = decoder_params(t->decoder, &count);
    double weights = c->tied ? (double)c->vocab * (double)c->d : 0;
    for (size_t i = 1; i < count; i++) /* not the embedding, which is looked up */
        weights += params[i].rows > 1 ? (double)params[i].rows * (double)params[i].cols : 0;
    double attention =
        2 * (double)c->layers * (double)(c->heads * c->head_dim) * ((double)t->params.time + 1) / 2;
    return 3 * 2 * (weights + attention);
}

uint64_t trainer_step_tokens(const struct trainer *t)
{
    return t->params.batch * t->params.accumulate * t->params.time;
}

uint64_t trainer_step_at(const struct trainer *t)
{
    return t->adamw.step;
}

uint64_t trainer_step_end(const struct trainer *t)
{
    return t->cool_steps ? t->cool_from + t->cool_steps : t->params.steps;
}

double trainer_epoch(const struct trainer *t)
{
    return (double)mix_given(&t->mix) / (double)t->mix.windows;
}

void trainer_level(struct trainer *t)
{
    size_t bytes = decoder_len(t->decoder) * sizeof(float);
    ranks_broadcast(t->ranks, decoder_weights(t->decoder), bytes);
    ranks_broadcast(t->ranks, t->adamw.m, bytes);
    ranks_broadcast(t->ranks, t->adamw.v, bytes);
}

/* ---- Steps */

static double rate_at(const struct trainer *t, uint64_t step)
{
    const struct trainer_params *p = &t->params;
    struct schedule s = {.peak = p->rate,
                         .floor = p->floor,
                         .warmup = p->warmup,
                         .steps = trainer_step_end(t),
                         .kind = p->schedule,
                         .cooldown = (uint64_t)llround(p->cooldown * (double)p->steps)};
    if (t->cool_steps)
        s.cooldown = t->cool_steps;
    return schedule_rate(&s, step);
}

enum ph_status trainer_cool_down(struct trainer *t, uint64_t steps, struct ph_err *err)
{
    uint64_t step = t->adamw.step;
    if (t->params.schedule == SCHEDULE_COSINE)
        return ph_fail(err, PH_ERR_ARG,
                       "a cosine falls all the time; only a run with the schedule wsd or "
                       "wsd-sqrt can be cooled down from any step on");
    if (t->cool_steps > 0) /* it was asked for before, and this is the same run going on */
        return PH_OK;
    if (step >= t->params.warmup && rate_at(t, step) < t->params.rate)
        return ph_fail(err, PH_ERR_ARG,
                       "step %" PRIu64 " is in the cool-down of the run's last %g of %" PRIu64 " steps "
                       "already; let it end, or give more steps",
                       step, t->params.cooldown, t->params.steps);
    t->cool_from = step;
    t->cool_steps = steps;
    return PH_OK;
}

/* Windows [rows][time + 1] to inputs and targets [rows][time]; what does not count is -1. */
static void split_windows(const int32_t *windows, const uint8_t *flags, size_t rows, size_t time,
                          int32_t *inputs, int32_t *targets)
{
    for (size_t row = 0; row < rows; row++) {
        const int32_t *window = windows + row * (time + 1);
        memcpy(inputs + row * time, window, time * sizeof *inputs);
        for (size_t i = 0; i < time; i++)
            targets[row * time + i] = flags[row * time + i] ? window[i + 1] : -1;
    }
}

/* This rank's part of each micro-batch, then the sum over all. */
static double accumulate(struct trainer *t)
{
    const struct trainer_params *p = &t->params;
    size_t own = ranks_index(t->ranks) * t->share * p->time;
    double loss = 0;
    decoder_clear_gradients(t->decoder);
    for (size_t i = 0; i < p->accumulate; i++) {
        size_t at = i * p->batch * p->time + own;
        const struct decoder_batch batch = {.batch = t->share,
                                            .time = p->time,
                                            .tokens = t->inputs + at,
                                            .targets = t->targets + at,
                                            .weights = t->weights + at};
        loss += decoder_accumulate(t->decoder, &batch);
    }
    ranks_sum(t->ranks, decoder_gradients(t->decoder), decoder_len(t->decoder));
    ranks_sum_doubles(t->ranks, &loss, 1);
    return loss;
}

static enum ph_status diverged(const struct trainer_report *r, const char *what, double value,
                               struct ph_err *err)
{
    return ph_fail(err, PH_ERR_LIMIT,
                   "step %" PRIu64 ": the %s is %g, training has come apart at a rate of %g; go on from the "
                   "last checkpoint with a lower rate (and --adapt), or with a smaller clip",
                   r->step, what, value, r->rate);
}

enum ph_status trainer_step(struct trainer *t, struct trainer_report *report, struct ph_err *err)
{
    const struct trainer_params *p = &t->params;
    size_t windows = p->batch * p->accumulate;
    mix_next(&t->mix, windows, p->time, t->windows, t->flags);
    split_windows(t->windows, t->flags, windows, p->time, t->inputs, t->targets);
    loss_weights_token_mean(t->targets, windows * p->time, t->weights);
    t->adamw.step++;
    t->tokens += windows * p->time;
    *report = (struct trainer_report){
        .step = t->adamw.step, .tokens = t->tokens, .rate = rate_at(t, t->adamw.step)};
    t->adamw.rate = (float)report->rate;
    report->loss = accumulate(t);
    if (!isfinite(report->loss))
        return diverged(report, "loss", report->loss, err);
    report->norm = decoder_update(t->decoder, &t->adamw, p->clip);
    return isfinite(report->norm) ? PH_OK : diverged(report, "gradient's norm", report->norm, err);
}

/* ---- Validation */

static void add_rows(const struct trainer *t, const float *losses, const int32_t *targets, size_t rows,
                     struct trainer_validation *out, uint64_t *bytes)
{
    for (size_t r = 0; r < rows; r++) {
        if (targets[r] < 0)
            continue;
        out->loss += (double)losses[r];
        out->tokens++;
        *bytes += t->piece_bytes[targets[r]];
    }
}

static void sum_validation(const struct trainer *t, struct trainer_validation *out, uint64_t *bytes)
{
    double sums[3] = {out->loss, (double)out->tokens, (double)*bytes};
    ranks_sum_doubles(t->ranks, sums, 3);
    out->loss = sums[0];
    out->tokens = (uint64_t)sums[1];
    *bytes = (uint64_t)sums[2];
}

static enum ph_status validate_on(struct trainer *t, const struct window_set *set,
                                  struct trainer_validation *out, struct ph_err *err)
{
    size_t time = t->params.time, turn = 0;
    uint64_t bytes = 0;
    float *losses = mem_calloc(t->share * time, sizeof *losses);
    if (!losses)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the losses of %zu rows", t->share * time);
    for (size_t at = 0, rows; at < set->count; at += rows) {
        rows = set->count - at < t->share ? set->count - at : t->share;
        if (turn++ % ranks_count(t->ranks) != ranks_index(t->ranks))
            continue;
        split_windows(set->tokens + at * (time + 1), set->targets + at * time, rows, time, t->inputs,
                      t->targets);
        loss_weights_token_mean(t->targets, rows * time, t->weights);
        const struct decoder_batch batch = {
            .batch = rows, .time = time, .tokens = t->inputs, .targets = t->targets, .weights = t->weights};
        decoder_evaluate(t->decoder, &batch, losses);
        add_rows(t, losses, t->targets, rows * time, out, &bytes);
    }
    mem_free(losses);
    sum_validation(t, out, &bytes);
    out->windows = set->count;
    out->bits_per_byte = bytes ? out->loss / log(2) / (double)bytes : 0;
    out->loss = out->tokens ? out->loss / (double)out->tokens : 0;
    return PH_OK;
}

enum ph_status trainer_validate(struct trainer *t, bool all, struct trainer_validation *out,
                                struct ph_err *err)
{
    struct window_set whole;
    *out = (struct trainer_validation){0};
    if (!all)
        return validate_on(t, &t->validation, out, err);
    enum ph_status status = window_set_open(&whole, &t->mix, t->params.time, SIZE_MAX, err);
    if (status == PH_OK)
        status = validate_on(t, &whole, out, err);
    window_set_release(&whole);
    return status;
}
