/* The embedder's thread, and what callers do with it.
 *
 * The thread gathers a run: texts of the waiting jobs in the order of the queue, as many as rows_max tokens
 * hold; then it computes without the lock. Between runs a job that is not finished goes to the end of the
 * queue. Everything that changes is guarded by one mutex, which is held for moments only.
 *
 * A job has two references, its owner's and the queue's, and outlives the embedder for as long as its owner
 * wants; the bell (mutex and condition) is counted for that.
 *
 * Invariants:
 *  B1  A job is in a queue or in the run in progress (or both) until it is over; only the thread moves it.
 *      Between runs no text of it is half done.
 *  B2  The callback runs under the mutex, so that after embedder_job_free nobody calls it. */
#include "engine/embedder.h"

#include <stdatomic.h>
#include <string.h>

#include <uv.h>

#include "base/mem.h"

struct bell {
    uv_mutex_t mutex;
    uv_cond_t work; /* something for the thread */
    uv_cond_t over; /* a job is over, or the thread has started */
    atomic_uint refs;
};

struct embedder_job {
    struct bell *bell;
    struct embedder_job *next;
    unsigned refs; /* under the mutex */
    struct embedder_text *texts;
    float *vectors;
    size_t count, taken, done; /* texts: in all, given to runs, computed */
    size_t width;
    bool background, raw, over;
    bool abandoned; /* its owner has gone */
    enum ph_status status;
    void (*callback)(void *ud); /* NULL: none, or its owner has gone */
    void *ud;
};

struct queue {
    struct embedder_job *first, **end;
};

struct embedder {
    struct model *model;
    struct encoder *encoder; /* the thread's */
    struct bell *bell;
    uv_thread_t thread;
    struct embedder_params params;
    size_t context_len, rows_max;
    bool started, stop; /* under the mutex, as all that follows */
    enum ph_status start_status;
    struct ph_err start_err;
    struct queue queues[2]; /* those who wait, background */
    struct embedder_stats stats;
    /* the run in progress, the thread's own */
    struct encoder_text texts[EMBEDDER_TEXTS_MAX];
    struct embedder_job *owners[EMBEDDER_TEXTS_MAX];
};

/* ---- The bell */
static struct bell *bell_create(void)
{
    struct bell *bell = mem_calloc(1, sizeof *bell);
    if (!bell)
        return NULL;
    if (uv_mutex_init(&bell->mutex) != 0) {
        mem_free(bell);
        return NULL;
    }
    bool work = uv_cond_init(&bell->work) == 0;
    if (!work || uv_cond_init(&bell->over) != 0) {
        if (work)
            uv_cond_destroy(&bell->work);
        uv_mutex_destroy(&bell->mutex);
        mem_free(bell);
        return NULL;
    }
    atomic_init(&bell->refs, 1);
    return bell;
}

static void bell_unref(struct bell *bell)
{
    if (!bell || atomic_fetch_sub_explicit(&bell->refs, 1, memory_order_acq_rel) != 1)
        return;
    uv_cond_destroy(&bell->work);
    uv_cond_destroy(&bell->over);
    uv_mutex_destroy(&bell->mutex);
    mem_free(bell);
}

/* ---- Jobs and queues (under the mutex) */
static void queue_push(struct queue *queue, struct embedder_job *job)
{
    job->next = NULL;
    *queue->end = job;
    queue->end = &job->next;
}

static struct embedder_job *queue_pop(struct queue *queue)
{
    struct embedder_job *job = queue->first;
    if (!job)
        return NULL;
    queue->first = job->next;
    if (!queue->first)
        queue->end = &queue->first;
    return job;
}

static void job_unref(struct embedder_job *job)
{
    if (--job->refs)
        return;
    mem_free(job->texts);
    mem_free(job->vectors);
    mem_free(job);
}

static void job_end(struct embedder_job *job, enum ph_status status)
{
    job->over = true;
    job->status = status;
    if (job->callback)
        job->callback(job->ud);
    uv_cond_broadcast(&job->bell->over);
    job_unref(job);
}

/* ---- The thread */
struct gathered {
    size_t count, rows;
    bool full;
};

/* Takes a job's next texts into the run, as many as fit. */
static void gather_job(struct embedder *e, struct embedder_job *job, struct gathered *run)
{
    while (job->taken < job->count) {
        const struct embedder_text *text = &job->texts[job->taken];
        if (run->count == EMBEDDER_TEXTS_MAX || run->rows + text->len > e->rows_max) {
            run->full = true;
            return;
        }
        e->texts[run->count] =
            (struct encoder_text){text->tokens, text->len, job->vectors + job->taken * job->width};
        e->owners[run->count++] = job;
        run->rows += text->len;
        job->taken++;
    }
}

/* Each queue gives what it has, background jobs only to a run that would be empty. Jobs that are not all
 * taken go behind the others. */
static struct gathered gather(struct embedder *e)
{
    struct gathered run = {0};
    for (size_t q = 0; q < 2 && run.count == 0; q++)
        while (!run.full && e->queues[q].first) {
            struct embedder_job *job = queue_pop(&e->queues[q]);
            if (job->abandoned) { /* between runs nothing of it is being computed */
                e->stats.waiting--;
                job_end(job, PH_ERR_CANCELLED);
                continue;
            }
            gather_job(e, job, &run);
            if (job->taken < job->count)
                queue_push(&e->queues[q], job);
        }
    return run;
}

static void finish(struct embedder *e, const struct gathered *run, enum ph_status status, uint64_t ns)
{
    e->stats.runs++;
    e->stats.texts += run->count;
    e->stats.tokens += run->rows;
    e->stats.busy_ns += ns;
    for (size_t i = 0; i < run->count; i++) {
        struct embedder_job *job = e->owners[i];
        job->done++;
        if (status != PH_OK)
            job->status = status;
        if (job->done == job->count) {
            e->stats.waiting--;
            job_end(job, job->status);
        }
    }
}

static void cancel_all(struct embedder *e)
{
    for (size_t q = 0; q < 2; q++)
        for (struct embedder_job *job; (job = queue_pop(&e->queues[q]));) {
            e->stats.waiting--;
            job_end(job, PH_ERR_CANCELLED);
        }
}

static void compute(struct embedder *e, const struct gathered *run, enum ph_status *status)
{
    *status = encoder_run(e->encoder, e->texts, run->count, NULL);
    for (size_t i = 0; i < run->count && *status == PH_OK; i++)
        if (!e->owners[i]->raw)
            encoder_normalise(e->texts[i].out, e->owners[i]->width);
}

static void serve(struct embedder *e)
{
    uv_mutex_lock(&e->bell->mutex);
    while (!e->stop) {
        struct gathered run = gather(e);
        if (run.count == 0) {
            if (!e->queues[0].first && !e->queues[1].first)
                uv_cond_wait(&e->bell->work, &e->bell->mutex);
            continue;
        }
        uv_mutex_unlock(&e->bell->mutex);
        enum ph_status status;
        uint64_t start = uv_hrtime();
        compute(e, &run, &status);
        uint64_t ns = uv_hrtime() - start;
        uv_mutex_lock(&e->bell->mutex);
        finish(e, &run, status, ns);
    }
    cancel_all(e);
    uv_mutex_unlock(&e->bell->mutex);
}

static void thread_main(void *ud)
{
    struct embedder *e = ud;
    const struct encoder_params params = {.threads = e->params.threads,
                                          .kernels = e->params.kernels,
                                          .context_len = e->params.context_len,
                                          .rows_max = e->params.rows_max};
    struct ph_err err = {0};
    enum ph_status status = encoder_create(&e->encoder, e->model, &params, &err);
    uv_mutex_lock(&e->bell->mutex);
    e->started = true;
    e->start_status = status;
    e->start_err = err;
    if (status == PH_OK) {
        e->context_len = encoder_context_len(e->encoder);
        e->rows_max = encoder_rows_max(e->encoder);
    }
    uv_cond_broadcast(&e->bell->over);
    uv_mutex_unlock(&e->bell->mutex);
    if (status == PH_OK)
        serve(e);
    encoder_free(e->encoder);
}

/* ---- Opening and closing */
static void release(struct embedder *e)
{
    model_free(e->model);
    bell_unref(e->bell);
    mem_free(e);
}

static enum ph_status start(struct embedder *e, struct ph_err *err)
{
    e->bell = bell_create();
    if (!e->bell || uv_thread_create(&e->thread, thread_main, e) != 0)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no thread to embed on", model_info(e->model)->name);
    uv_mutex_lock(&e->bell->mutex);
    while (!e->started)
        uv_cond_wait(&e->bell->over, &e->bell->mutex);
    uv_mutex_unlock(&e->bell->mutex);
    if (e->start_status == PH_OK)
        return PH_OK;
    uv_thread_join(&e->thread);
    return ph_fail(err, e->start_status, "%s", e->start_err.message);
}

enum ph_status embedder_open_model(struct embedder **out, struct model *model,
                                   const struct embedder_params *params, struct ph_err *err)
{
    *out = NULL;
    struct embedder *e = mem_calloc(1, sizeof *e);
    if (!e) {
        model_free(model);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for an embedder");
    }
    e->model = model;
    e->params = *params;
    e->params.rows_max = params->rows_max ? params->rows_max : EMBEDDER_ROWS_DEFAULT;
    e->params.queue_max = params->queue_max ? params->queue_max : EMBEDDER_QUEUE_DEFAULT;
    for (size_t q = 0; q < 2; q++)
        e->queues[q].end = &e->queues[q].first;
    enum ph_status status = start(e, err);
    if (status == PH_OK)
        *out = e;
    else
        release(e);
    return status;
}

enum ph_status embedder_open(struct embedder **out, const struct embedder_params *params, struct ph_err *err)
{
    struct model *model;
    *out = NULL;
    enum ph_status status = model_open(&model, params->model_path, false, err);
    return status == PH_OK ? embedder_open_model(out, model, params, err) : status;
}

void embedder_free(struct embedder *embedder)
{
    if (!embedder)
        return;
    uv_mutex_lock(&embedder->bell->mutex);
    embedder->stop = true;
    uv_cond_signal(&embedder->bell->work);
    uv_mutex_unlock(&embedder->bell->mutex);
    uv_thread_join(&embedder->thread);
    release(embedder);
}

const struct model *embedder_model(const struct embedder *embedder)
{
    return embedder->model;
}

size_t embedder_width(const struct embedder *embedder)
{
    return model_info(embedder->model)->n_embd;
}

size_t embedder_context_len(const struct embedder *embedder)
{
    return embedder->context_len;
}

void embedder_stats_read(struct embedder *embedder, struct embedder_stats *out)
{
    uv_mutex_lock(&embedder->bell->mutex);
    *out = embedder->stats;
    uv_mutex_unlock(&embedder->bell->mutex);
}

/* ---- Tokens */
enum ph_status embedder_tokenize(const struct embedder *embedder, const char *text, size_t len, size_t *cut,
                                 struct token_list *out, struct ph_err *err)
{
    size_t before = out->len, max = embedder->context_len;
    enum ph_status status = vocab_tokenize(model_vocab(embedder->model), text, len, true, false, out, err);
    if (cut)
        *cut = 0;
    size_t count = out->len - before;
    if (status != PH_OK || count <= max)
        return status;
    if (!cut) {
        out->len = before;
        return ph_fail(err, PH_ERR_LIMIT, "the text has %zu tokens, %s reads at most %zu", count,
                       model_info(embedder->model)->name, max);
    }
    out->ids[before + max - 1] = out->ids[out->len - 1];
    out->len = before + max;
    *cut = count - max;
    return PH_OK;
}

/* ---- Jobs, from outside */
static enum ph_status check_request(const struct embedder *e, const struct embedder_request *request,
                                    size_t *tokens, struct ph_err *err)
{
    size_t n_vocab = model_info(e->model)->n_vocab;
    *tokens = 0;
    for (size_t i = 0; i < request->count; i++) {
        const struct embedder_text *text = &request->texts[i];
        if (text->len == 0)
            return ph_fail(err, PH_ERR_ARG, "text %zu is empty", i);
        if (text->len > e->context_len)
            return ph_fail(err, PH_ERR_LIMIT, "text %zu has %zu tokens, %s reads at most %zu", i, text->len,
                           model_info(e->model)->name, e->context_len);
        for (size_t k = 0; k < text->len; k++)
            if (text->tokens[k] < 0 || (size_t)text->tokens[k] >= n_vocab)
                return ph_fail(err, PH_ERR_ARG, "token id %d of text %zu is not in the vocabulary of %zu",
                               (int)text->tokens[k], i, n_vocab);
        *tokens += text->len;
    }
    return PH_OK;
}

/* The texts and, behind them, their tokens are one allocation. */
static struct embedder_job *job_create(const struct embedder *e, const struct embedder_request *request,
                                       size_t tokens)
{
    struct embedder_job *job = mem_calloc(1, sizeof *job);
    size_t width = embedder_width(e);
    if (!job)
        return NULL;
    *job = (struct embedder_job){.bell = e->bell,
                                 .refs = 2,
                                 .count = request->count,
                                 .width = width,
                                 .background = request->background,
                                 .raw = request->raw,
                                 .callback = request->done,
                                 .ud = request->ud};
    job->texts = mem_calloc(1, request->count * sizeof *job->texts + tokens * sizeof(int32_t));
    job->vectors = mem_calloc(request->count * width, sizeof(float));
    if (!job->texts || !job->vectors) {
        mem_free(job->texts);
        mem_free(job->vectors);
        mem_free(job);
        return NULL;
    }
    int32_t *at = (int32_t *)(void *)(job->texts + request->count);
    for (size_t i = 0; i < request->count; i++) {
        memcpy(at, request->texts[i].tokens, request->texts[i].len * sizeof *at);
        job->texts[i] = (struct embedder_text){at, request->texts[i].len};
        at += request->texts[i].len;
    }
    atomic_fetch_add_explicit(&e->bell->refs, 1, memory_order_relaxed);
    return job;
}

enum ph_status embedder_submit(struct embedder *embedder, const struct embedder_request *request,
                               struct embedder_job **out, struct ph_err *err)
{
    size_t tokens;
    *out = NULL;
    enum ph_status status = check_request(embedder, request, &tokens, err);
    if (status != PH_OK)
        return status;
    if (request->count == 0)
        return ph_fail(err, PH_ERR_ARG, "there are no texts to embed");
    struct embedder_job *job = job_create(embedder, request, tokens);
    if (!job)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu embeddings", request->count);
    uv_mutex_lock(&embedder->bell->mutex);
    if (embedder->stats.waiting >= embedder->params.queue_max) {
        status = ph_fail(err, PH_ERR_BUSY, "%zu jobs are waiting to be embedded", embedder->stats.waiting);
        job->refs = 1;
    } else {
        embedder->stats.waiting++;
        queue_push(&embedder->queues[request->background ? 1 : 0], job);
        uv_cond_signal(&embedder->bell->work);
    }
    uv_mutex_unlock(&embedder->bell->mutex);
    if (status == PH_OK)
        *out = job;
    else
        embedder_job_free(job);
    return status;
}

bool embedder_job_over(struct embedder_job *job)
{
    uv_mutex_lock(&job->bell->mutex);
    bool over = job->over;
    uv_mutex_unlock(&job->bell->mutex);
    return over;
}

enum ph_status embedder_job_wait(struct embedder_job *job)
{
    uv_mutex_lock(&job->bell->mutex);
    while (!job->over)
        uv_cond_wait(&job->bell->over, &job->bell->mutex);
    uv_mutex_unlock(&job->bell->mutex);
    return job->status;
}

const float *embedder_job_vectors(const struct embedder_job *job)
{
    return job->vectors;
}

void embedder_job_free(struct embedder_job *job)
{
    if (!job)
        return;
    struct bell *bell = job->bell;
    uv_mutex_lock(&bell->mutex);
    job->abandoned = true;
    job->callback = NULL;
    job_unref(job);
    uv_mutex_unlock(&bell->mutex);
    bell_unref(bell);
}

enum ph_status embedder_run(struct embedder *embedder, const struct embedder_request *request, float *out,
                            struct ph_err *err)
{
    struct embedder_job *job;
    enum ph_status status = embedder_submit(embedder, request, &job, err);
    if (status != PH_OK)
        return status;
    status = embedder_job_wait(job);
    if (status == PH_OK)
        memcpy(out, job->vectors, job->count * job->width * sizeof *out);
    else
        (void)ph_fail(err, status, "the embedding model stopped (%s)", ph_status_name(status));
    embedder_job_free(job);
    return status;
}
