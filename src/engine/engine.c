/* Opening, closing and submitting: what callers do with an engine besides reading a sequence. The scheduler
 * (engine_loop.c) runs on its own thread; it makes the runner there, because a runner belongs to the thread
 * that made it. bell->mutex guards the way in (incoming, held, tickets, stop) and the published stats. */
#include <string.h>

#include "base/mem.h"
#include "engine/engine_int.h"

#define PAGES_SLACK_LEN 64 /* positions by which whole pages may exceed a context */

/* ---- Parameters */

void engine_params_default(struct engine_params *params)
{
    *params = (struct engine_params){.kv_type = TENSOR_F16};
}

static size_t or_default(size_t value, size_t fallback)
{
    return value ? value : fallback;
}

static size_t default_context(const struct model_info *info)
{
    size_t trained = or_default(info->n_context_train, ENGINE_CONTEXT_DEFAULT_MAX);
    return trained < ENGINE_CONTEXT_DEFAULT_MAX ? trained : ENGINE_CONTEXT_DEFAULT_MAX;
}

static double kv_bytes_per_token(const struct model_info *info, enum tensor_type type)
{
    const struct tensor_format *format = tensor_format((uint32_t)type);
    double bytes_per_value = (double)format->block_bytes / format->block_len;
    return (double)info->kv_bytes_per_token_f16 / 2 * bytes_per_value;
}

/* Room for a full context of every sequence, as long as that is a modest part of what the weights leave free.
 * Pages nobody has used cost nothing, so small models may be generous. */
static size_t default_kv_bytes(const struct model_info *info, const struct engine_params *params)
{
    uint64_t machine = uv_get_total_memory(), allowed = uv_get_constrained_memory();
    if (allowed != 0 && allowed < machine)
        machine = allowed;
    double left = machine > info->weight_bytes ? (double)(machine - info->weight_bytes) : 0;
    double context =
        kv_bytes_per_token(info, params->kv_type) * (double)(params->context_len + PAGES_SLACK_LEN);
    double wanted = context * (double)params->sequences_max;
    double share = left / ENGINE_KV_MEMORY_SHARE;
    double bytes = wanted < share ? wanted : share;
    return (size_t)(bytes > context ? bytes : 0); /* 0: the runner makes exactly one full context */
}

static enum ph_status resolve_params(struct engine *engine, struct ph_err *err)
{
    struct engine_params *p = &engine->params;
    const struct model_info *info = model_info(engine->model);
    p->context_len = or_default(p->context_len, default_context(info));
    p->sequences_max = or_default(p->sequences_max, ENGINE_SEQUENCES_DEFAULT);
    p->queue_max = or_default(p->queue_max, ENGINE_QUEUE_DEFAULT);
    p->prefill_chunk = or_default(p->prefill_chunk, ENGINE_PREFILL_CHUNK_DEFAULT);
    if (p->context_len < 2 || p->context_len > MODEL_CONTEXT_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: a context of %zu tokens is asked for, 2 to %u are possible",
                       p->model_path, p->context_len, MODEL_CONTEXT_MAX);
    if (p->sequences_max > ENGINE_SEQUENCES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%zu sequences at once are asked for, at most %d are possible",
                       p->sequences_max, ENGINE_SEQUENCES_MAX);
    if (p->queue_max > ENGINE_QUEUE_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "a queue of %zu is asked for, at most %d is possible", p->queue_max,
                       ENGINE_QUEUE_MAX);
    if (p->prefill_chunk > ENGINE_PREFILL_CHUNK_MAX)
        p->prefill_chunk = ENGINE_PREFILL_CHUNK_MAX;
    if (p->prefill_chunk > p->context_len)
        p->prefill_chunk = p->context_len;
    if (p->kv_bytes_max == 0)
        p->kv_bytes_max = default_kv_bytes(info, p);
    return PH_OK;
}

/* ---- Opening */

static enum ph_status open_loras(struct engine *engine, struct ph_err *err)
{
    size_t count = engine->params.lora_count;
    engine->loras = mem_calloc(count, sizeof *engine->loras);
    engine->lora_scales = mem_calloc(count, sizeof *engine->lora_scales);
    if (!engine->loras || !engine->lora_scales)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu adapters", count);
    for (size_t i = 0; i < count; i++) {
        engine->lora_scales[i] = engine->params.lora_scales ? engine->params.lora_scales[i] : 1.0f;
        enum ph_status status =
            lora_open(&engine->loras[i], engine->model, engine->params.lora_paths[i], err);
        if (status != PH_OK)
            return status;
    }
    return PH_OK;
}

static enum ph_status make_buffers(struct engine *engine, struct ph_err *err)
{
    size_t sequences = engine->params.sequences_max;
    engine->rows_max = engine->params.prefill_chunk > sequences ? engine->params.prefill_chunk : sequences;
    engine->rows = mem_calloc(engine->rows_max, sizeof *engine->rows);
    engine->running = mem_calloc(sequences, sizeof *engine->running);
    engine->outputs = mem_calloc(sequences, sizeof *engine->outputs);
    engine->logits = mem_alloc(sequences * engine->n_vocab * sizeof(float));
    bool shelf = shelf_open(&engine->shelf, engine->params.context_len);
    if (!shelf || !engine->rows || !engine->running || !engine->outputs || !engine->logits)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu sequences with a vocabulary of %zu", sequences,
                       engine->n_vocab);
    return PH_OK;
}

static enum ph_status start_scheduler(struct engine *engine, struct ph_err *err)
{
    if (uv_thread_create(&engine->thread, engine_scheduler, engine) != 0)
        return ph_fail(err, PH_ERR_NOMEM, "the system gives no thread for the scheduler");
    uv_mutex_lock(&engine->bell->mutex);
    while (!engine->opened)
        uv_cond_wait(&engine->bell->cond, &engine->bell->mutex);
    enum ph_status status = engine->open_status;
    uv_mutex_unlock(&engine->bell->mutex);
    if (status == PH_OK)
        return PH_OK;
    uv_thread_join(&engine->thread);
    return ph_fail(err, status, "%s", engine->open_err.message);
}

static void release(struct engine *engine)
{
    for (size_t i = 0; engine->loras && i < engine->params.lora_count; i++)
        lora_free(engine->loras[i]);
    mem_free(engine->loras);
    mem_free(engine->lora_scales);
    mem_free(engine->rows);
    mem_free(engine->running);
    mem_free(engine->outputs);
    mem_free(engine->logits);
    shelf_release(&engine->shelf);
    model_free(engine->model);
    doorbell_unref(engine->bell);
    mem_free(engine);
}

enum ph_status engine_open(struct engine **out, const struct engine_params *params, struct ph_err *err)
{
    *out = NULL;
    struct engine *engine = mem_calloc(1, sizeof *engine);
    if (!engine)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for an engine");
    engine->params = *params;
    engine->clock = params->clock ? params->clock : clock_system();
    engine->incoming_end = &engine->incoming;
    engine->bell = doorbell_create();
    enum ph_status status =
        engine->bell ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for an engine's locks");
    if (status == PH_OK)
        status = model_open(&engine->model, params->model_path, false, err);
    if (status == PH_OK) {
        engine->vocab = model_vocab(engine->model);
        engine->n_vocab = model_info(engine->model)->n_vocab;
        status = resolve_params(engine, err);
    }
    if (status == PH_OK)
        status = open_loras(engine, err);
    if (status == PH_OK)
        status = make_buffers(engine, err);
    if (status == PH_OK)
        status = start_scheduler(engine, err);
    if (status != PH_OK) {
        release(engine);
        return status;
    }
    /* The caller's strings need not outlive this call. */
    engine->params.model_path = NULL;
    engine->params.kernels = NULL;
    engine->params.lora_paths = NULL;
    engine->params.lora_scales = NULL;
    *out = engine;
    return PH_OK;
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    uv_mutex_lock(&engine->bell->mutex);
    engine->stop = true;
    uv_cond_broadcast(&engine->bell->cond);
    uv_mutex_unlock(&engine->bell->mutex);
    uv_thread_join(&engine->thread);
    release(engine);
}

const struct model *engine_model(const struct engine *engine)
{
    return engine->model;
}

size_t engine_context_len(const struct engine *engine)
{
    return engine->params.context_len;
}

size_t engine_capacity(const struct engine *engine)
{
    return engine->params.sequences_max + engine->params.queue_max;
}

/* ---- Submitting */

/* All that are not over count, not only those that wait: so whether there is room never depends on how soon
 * the scheduler looks at what has arrived. The bell's mutex is held. */
static enum ph_status check_room(const struct engine *engine, struct ph_err *err)
{
    if (engine->held < engine_capacity(engine))
        return PH_OK;
    return ph_fail(err, PH_ERR_BUSY, "%zu sequences run or wait already; try again later", engine->held);
}

static enum ph_status enqueue(struct engine *engine, struct engine_seq *seq, struct ph_err *err)
{
    uv_mutex_lock(&engine->bell->mutex);
    enum ph_status status = check_room(engine, err);
    if (status == PH_OK) {
        seq->ticket = ++engine->tickets;
        atomic_fetch_add_explicit(&seq->refs, 1, memory_order_relaxed);
        *engine->incoming_end = seq;
        engine->incoming_end = &seq->next;
        engine->held++;
        engine->bell->rung = true;
        uv_cond_broadcast(&engine->bell->cond);
    }
    uv_mutex_unlock(&engine->bell->mutex);
    return status;
}

enum ph_status engine_submit(struct engine *engine, const struct engine_request *request,
                             struct engine_seq **out, struct ph_err *err)
{
    *out = NULL;
    uv_mutex_lock(&engine->bell->mutex);
    enum ph_status status = check_room(engine, err); /* before anything is made for the request */
    uv_mutex_unlock(&engine->bell->mutex);
    if (status != PH_OK)
        return status;
    struct engine_seq *seq;
    status = seq_create(&seq, engine, request, err);
    if (status != PH_OK)
        return status;
    seq->submit_ns = clock_monotonic_ns(engine->clock);
    status = enqueue(engine, seq, err);
    if (status != PH_OK) {
        seq_unref(seq);
        return status;
    }
    *out = seq;
    return PH_OK;
}

/* ---- Stats */

void engine_stats_read(struct engine *engine, struct engine_stats *out)
{
    uv_mutex_lock(&engine->bell->mutex);
    *out = engine->stats;
    out->waiting = engine->held - engine->stats.running;
    uv_mutex_unlock(&engine->bell->mutex);
}

size_t engine_cached_tokens(struct engine *engine, const int32_t *prompt, size_t prompt_len)
{
    return prompt_len ? shelf_look(engine, prompt, prompt_len - 1) : 0;
}

void engine_publish(struct engine *engine)
{
    struct engine_stats *counts = &engine->counts;
    counts->running = engine->active;
    counts->sequences_max = engine->params.sequences_max;
    counts->kv_page_len = runner_kv_page_len(engine->runner);
    counts->kv_pages_total = runner_kv_pages_total(engine->runner);
    counts->kv_pages_used =
        counts->kv_pages_total - runner_kv_pages_free(engine->runner) - engine->shelf.pages;
    uv_mutex_lock(&engine->bell->mutex);
    engine->stats = *counts;
    engine->held -= engine->ended;
    uv_mutex_unlock(&engine->bell->mutex);
    engine->ended = 0;
}
