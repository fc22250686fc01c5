/* A look goes over the users whose newest message is above the greatest that the last look began with, and
 * gives their messages vectors, as work that lets others go first. A failure (a store that is gone, a full
 * disk) is logged once, and the next look tries again. */
#include <uv.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "memory/embed.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)

struct embed_worker {
    struct embed_worker_params params;
    struct embed_space *space;
    uv_thread_t thread;
    uv_mutex_t mutex; /* all below */
    uv_cond_t cond;
    bool stop;
    struct embed_worker_stats stats;
    int64_t seen; /* the thread's own: messages up to this were looked at */
};

static bool is_stopping(struct embed_worker *w)
{
    uv_mutex_lock(&w->mutex);
    bool stop = w->stop;
    uv_mutex_unlock(&w->mutex);
    return stop;
}

static bool goes_on(void *ud, int64_t done, int64_t total)
{
    (void)done;
    (void)total;
    return !is_stopping(ud);
}

/* The greatest number of a message there is. */
static enum ph_status newest(struct store *store, int64_t *out, struct ph_err *err)
{
    struct arena arena;
    struct store_users users = {.more = true};
    int64_t after = 0;
    enum ph_status status = PH_OK;
    *out = 0;
    arena_init(&arena, ARENA_BYTES_MAX);
    while (users.more && status == PH_OK) {
        arena_clear(&arena);
        status = store_list_users(store, &arena, after, STORE_PAGE_MAX, &users, err);
        for (size_t i = 0; i < users.count && status == PH_OK; i++) {
            after = users.items[i].number;
            *out = users.items[i].last_message > *out ? users.items[i].last_message : *out;
        }
    }
    arena_release(&arena);
    return status;
}

static enum ph_status look(struct embed_worker *w, struct store *store, int64_t *embedded, struct ph_err *err)
{
    int64_t newest_message;
    struct embed_index_result result = {0};
    enum ph_status status = newest(store, &newest_message, err);
    if (status != PH_OK || newest_message <= w->seen)
        return status;
    const struct embed_index_params params = {.store = store,
                                              .space = w->space,
                                              .after = w->seen,
                                              .background = true,
                                              .progress = goes_on,
                                              .ud = w};
    status = embed_index(&params, &result, err);
    *embedded = result.embedded;
    if (status == PH_OK)
        w->seen = newest_message;
    return status;
}

static void tell(struct embed_worker *w, enum ph_status status, int64_t embedded, const struct ph_err *err)
{
    bool failed = status != PH_OK && status != PH_ERR_CANCELLED;
    uv_mutex_lock(&w->mutex);
    bool news = failed && !w->stats.failed;
    w->stats.embedded += embedded;
    w->stats.looks++;
    w->stats.failed = failed;
    uv_mutex_unlock(&w->mutex);
    if (news)
        log_warn("memory", "messages get no vectors for now: %s", err->message);
    else if (embedded)
        log_debug("memory", "%lld messages got vectors", (long long)embedded);
}

static void worker_main(void *ud)
{
    struct embed_worker *w = ud;
    uint64_t wait_ns = (uint64_t)w->params.interval_ms * 1000000;
    while (!is_stopping(w)) {
        struct store *store = w->params.store(w->params.ud);
        struct ph_err err = {0};
        int64_t embedded = 0;
        if (store) {
            enum ph_status status = look(w, store, &embedded, &err);
            tell(w, status, embedded, &err);
        }
        uv_mutex_lock(&w->mutex);
        if (!w->stop)
            (void)uv_cond_timedwait(&w->cond, &w->mutex, wait_ns);
        uv_mutex_unlock(&w->mutex);
    }
}

static enum ph_status start(struct embed_worker *w, struct ph_err *err)
{
    if (uv_mutex_init(&w->mutex) != 0)
        return ph_fail(err, PH_ERR_NOMEM, "no lock for indexing");
    if (uv_cond_init(&w->cond) == 0) {
        if (uv_thread_create(&w->thread, worker_main, w) == 0)
            return PH_OK;
        uv_cond_destroy(&w->cond);
    }
    uv_mutex_destroy(&w->mutex);
    return ph_fail(err, PH_ERR_NOMEM, "no thread for indexing");
}

enum ph_status embed_worker_start(struct embed_worker **out, const struct embed_worker_params *params,
                                  struct ph_err *err)
{
    *out = NULL;
    struct embed_worker *w = mem_calloc(1, sizeof *w);
    if (!w)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for indexing");
    w->params = *params;
    if (!w->params.interval_ms)
        w->params.interval_ms = EMBED_WORKER_INTERVAL_MS;
    enum ph_status status = embed_space_of_model(&w->space, params->embedder, err);
    if (status == PH_OK)
        status = start(w, err);
    if (status == PH_OK) {
        *out = w;
        return PH_OK;
    }
    embed_space_free(w->space);
    mem_free(w);
    return status;
}

void embed_worker_stats_read(struct embed_worker *worker, struct embed_worker_stats *out)
{
    uv_mutex_lock(&worker->mutex);
    *out = worker->stats;
    uv_mutex_unlock(&worker->mutex);
}

void embed_worker_stop(struct embed_worker *worker)
{
    if (!worker)
        return;
    uv_mutex_lock(&worker->mutex);
    worker->stop = true;
    uv_cond_signal(&worker->cond);
    uv_mutex_unlock(&worker->mutex);
    uv_thread_join(&worker->thread);
    uv_cond_destroy(&worker->cond);
    uv_mutex_destroy(&worker->mutex);
    embed_space_free(worker->space);
    mem_free(worker);
}
