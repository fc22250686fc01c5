/* A thread that brings days of the journal to the disk, so that the loop never waits for it.
 *
 * It is told days, not descriptors: it opens the file itself, and nobody else's file is closed under it. */
#include <string.h>

#include <uv.h>

#include "base/mem.h"
#include "gateway/ledger_int.h"

struct ledger_sync {
    char *dir;
    uv_thread_t thread;
    uv_mutex_t mutex;
    uv_cond_t asked;
    int64_t day;
    bool busy, stop, failed;
    struct ph_err err;
};

static void sync_days(void *ud)
{
    struct ledger_sync *sync = ud;
    char path[PATH_BYTES_MAX];
    struct ph_err err;
    uv_mutex_lock(&sync->mutex);
    while (sync->busy || !sync->stop) {
        if (!sync->busy) {
            uv_cond_wait(&sync->asked, &sync->mutex);
            continue;
        }
        journal_path(sync->dir, sync->day, "", path);
        uv_mutex_unlock(&sync->mutex);
        enum ph_status status = file_sync(path, &err);
        uv_mutex_lock(&sync->mutex);
        if (status != PH_OK) {
            sync->err = err;
            sync->failed = true;
        }
        sync->busy = false;
    }
    uv_mutex_unlock(&sync->mutex);
}

/* Each step undoes itself when a later one fails. */
static enum ph_status start(struct ledger_sync *sync)
{
    if (uv_mutex_init(&sync->mutex) != 0)
        return PH_ERR_NOMEM;
    if (uv_cond_init(&sync->asked) == 0) {
        if (uv_thread_create(&sync->thread, sync_days, sync) == 0)
            return PH_OK;
        uv_cond_destroy(&sync->asked);
    }
    uv_mutex_destroy(&sync->mutex);
    return PH_ERR_NOMEM;
}

enum ph_status ledger_sync_open(struct ledger_sync **out, const char *dir)
{
    struct ledger_sync *sync = mem_calloc(1, sizeof *sync);
    *out = NULL;
    if (!sync)
        return PH_ERR_NOMEM;
    sync->dir = mem_strdup(dir);
    if (sync->dir && start(sync) == PH_OK) {
        *out = sync;
        return PH_OK;
    }
    mem_free(sync->dir);
    mem_free(sync);
    return PH_ERR_NOMEM;
}

void ledger_sync_close(struct ledger_sync *sync)
{
    if (!sync)
        return;
    uv_mutex_lock(&sync->mutex);
    sync->stop = true;
    uv_cond_signal(&sync->asked);
    uv_mutex_unlock(&sync->mutex);
    uv_thread_join(&sync->thread);
    uv_cond_destroy(&sync->asked);
    uv_mutex_destroy(&sync->mutex);
    mem_free(sync->dir);
    mem_free(sync);
}

bool ledger_sync_ask(struct ledger_sync *sync, int64_t day)
{
    uv_mutex_lock(&sync->mutex);
    bool taken = !sync->busy;
    if (taken) {
        sync->busy = true;
        sync->day = day;
        uv_cond_signal(&sync->asked);
    }
    uv_mutex_unlock(&sync->mutex);
    return taken;
}

bool ledger_sync_failed(struct ledger_sync *sync, struct ph_err *err)
{
    uv_mutex_lock(&sync->mutex);
    bool failed = sync->failed;
    if (failed)
        *err = sync->err;
    sync->failed = false;
    uv_mutex_unlock(&sync->mutex);
    return failed;
}
