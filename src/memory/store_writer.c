/* The writer: one thread, one connection, group commit.
 *
 * It takes whatever waits in the queue, applies it in one transaction and calls every `done` when that is
 * durable; while it waits for the disk the next group gathers, so that the price of a sync is shared by as
 * many as come in that time, and a lone write waits for one sync only.
 *
 * W1. A job's `done` is called once, after the commit of the transaction that holds it, or after its failure.
 * W2. When a transaction fails because the server was lost, and it is known that nothing of it was kept, the
 *     group is tried again as it is. When it fails otherwise, each of its jobs is tried again in one of its
 *     own: what one of them can't have (or the disk refuses) is not the others' fault. What then fails is
 *     told so; it is written nowhere, or, where a commit's outcome is not known, it is there in whole and was
 *     not tried again.
 * W3. Nothing is remembered between transactions of what the database holds: others may write to it.
 *
 * Between two groups, and when there is nothing to do, it does chores (store_train.c). */
#include <string.h>

#include "base/log.h"
#include "memory/store_int.h"

#define SCRATCH_BYTES ((size_t)512 << 20)
#define NS_PER_MS UINT64_C(1000000)
#define TRIES_MAX 8 /* of a group that loses its server each time */

/* ---- Groups */

struct group {
    struct store_job *first, **last;
    size_t count, rows;
};

static void group_add(struct group *group, struct store_job *job)
{
    job->next = NULL;
    *group->last = job;
    group->last = &job->next;
    group->count++;
    group->rows += job->rows;
}

/* Waits for jobs, at most wait_ns; false: the queue is closed and empty. */
static bool take_group(struct store_queue *queue, struct group *group, uint64_t wait_ns)
{
    *group = (struct group){.last = &group->first};
    uv_mutex_lock(&queue->mutex);
    while (!queue->first && !queue->closed && wait_ns) {
        if (wait_ns == UINT64_MAX)
            uv_cond_wait(&queue->filled, &queue->mutex);
        else if (uv_cond_timedwait(&queue->filled, &queue->mutex, wait_ns) != 0)
            break;
    }
    while (queue->first && group->count < STORE_BATCH_MAX &&
           (group->count == 0 || group->rows + queue->first->rows <= STORE_BATCH_MESSAGES_MAX)) {
        struct store_job *job = queue->first;
        queue->first = job->next;
        group_add(group, job);
    }
    if (!queue->first)
        queue->last = &queue->first;
    bool more = group->first || !queue->closed;
    uv_mutex_unlock(&queue->mutex);
    return more;
}

static void finish(struct store *store, struct store_job *job)
{
    if (job->done.fn)
        job->done.fn(job->done.ud, job->status, &job->result, job->status == PH_OK ? NULL : &job->err);
    uv_mutex_lock(&store->queue.mutex);
    store->queue.count--;
    store->queue.bytes -= job->bytes;
    uv_cond_broadcast(&store->queue.drained);
    uv_mutex_unlock(&store->queue.mutex);
    store_job_free(job);
}

/* ---- Transactions */

static enum ph_status apply_all(struct store_writer *writer, struct store_job *first, struct ph_err *err)
{
    enum ph_status status = writer->db->driver->begin(writer->db, STORE_DB_WRITE, err);
    if (status == PH_OK)
        status = store_state_lock(writer, err);
    for (struct store_job *job = first; status == PH_OK && job; job = job->next)
        status = store_apply(writer, job, err);
    if (status == PH_OK)
        status = store_state_write(writer, err);
    if (status == PH_OK)
        return writer->db->driver->commit(writer->db, err);
    writer->db->driver->rollback(writer->db);
    return status;
}

static void tell_failure(struct store_job *job, enum ph_status status, const struct ph_err *err)
{
    job->status = status == PH_ERR_CANCELLED ? PH_ERR_IO : status; /* nobody asked for it */
    job->err = *err;
    job->err.code = job->status;
    job->result = (struct store_result){.user = 0};
}

static void apply_alone(struct store_writer *writer, struct store_job *job)
{
    struct store_job *next = job->next;
    struct ph_err err = {.code = PH_OK};
    job->next = NULL;
    enum ph_status status = apply_all(writer, job, &err);
    job->next = next;
    if (status != PH_OK)
        tell_failure(job, status, &err);
}

/* The deletion of a user is done when the last trace has gone. */
static bool is_put_off(struct store_writer *writer, struct store_job *job)
{
    if ((job->write.kind != STORE_DELETE_USER && job->write.kind != STORE_TIDY) || job->status != PH_OK)
        return false;
    job->next = NULL;
    *writer->waiting_last = job;
    writer->waiting_last = &job->next;
    writer->chores = true;
    writer->chore_next_ns = writer->chore_until_ns = 0;
    return true;
}

static void run_group(struct store_writer *writer, struct group *group)
{
    struct ph_err err = {.code = PH_OK};
    enum ph_status status = PH_ERR_CANCELLED;
    for (int i = 0; status == PH_ERR_CANCELLED && i < TRIES_MAX; i++)
        status = apply_all(writer, group->first, &err);
    bool alone = group->count > 1 && status != PH_ERR_TIMEOUT; /* no server: there is none for any of them */
    for (struct store_job *job = group->first; status != PH_OK && job; job = job->next) {
        if (alone)
            apply_alone(writer, job);
        else
            tell_failure(job, status, &err);
    }
    if (status == PH_OK)
        atomic_store(&writer->store->dictionary, writer->state.dictionary);
    for (struct store_job *next, *job = group->first; job; job = next) {
        next = job->next;
        if (!is_put_off(writer, job))
            finish(writer->store, job);
    }
}

/* ---- The thread */

static void finish_waiting(struct store_writer *writer)
{
    for (struct store_job *next, *job = writer->waiting; job; job = next) {
        next = job->next;
        finish(writer->store, job);
    }
    writer->waiting = NULL;
    writer->waiting_last = &writer->waiting;
}

/* Another process may read, or write, for longer than anybody wants to wait; the disk may be full. */
static void tell_unfinished(struct store_writer *writer)
{
    const struct ph_err *why = &writer->chore_err;
    for (struct store_job *job = writer->waiting; job; job = job->next)
        if (job->write.kind == STORE_DELETE_USER)
            job->status = ph_fail(&job->err, why->code,
                                  "the user is deleted, but traces may be left in the files: %s; it is tried "
                                  "again as long as a station runs",
                                  why->code == PH_ERR_BUSY ? "others are using the store" : why->message);
    finish_waiting(writer);
}

static uint64_t do_chores(struct store_writer *writer)
{
    if (!writer->chores)
        return UINT64_MAX;
    uint64_t wait_ns = store_chore(writer);
    writer->chores = wait_ns != UINT64_MAX;
    if (!writer->chores)
        finish_waiting(writer);
    else if (writer->chore_until_ns && uv_hrtime() > writer->chore_until_ns)
        tell_unfinished(writer);
    return wait_ns;
}

void store_writer_run(void *ud)
{
    struct store *store = ud;
    struct store_writer *writer = &store->writer;
    struct group group;
    uint64_t wait_ns = 0;
    while (take_group(&store->queue, &group, wait_ns)) {
        if (group.first)
            run_group(writer, &group);
        store_train_look(writer);
        wait_ns = do_chores(writer);
    }
    /* Closing: a training that runs is kept, and a user who was deleted leaves no trace. */
    do {
        store_train_join(writer);
        while (take_group(&store->queue, &group, 0))
            run_group(writer, &group);
        wait_ns = writer->waiting ? do_chores(writer) : UINT64_MAX;
        if (wait_ns && wait_ns != UINT64_MAX)
            uv_sleep((unsigned)(wait_ns / NS_PER_MS) + 1);
    } while (writer->waiting);
}

void store_writer_init(struct store_writer *writer, struct store *store)
{
    writer->store = store;
    writer->waiting_last = &writer->waiting;
    writer->upgrade = STORE_UPGRADE_NONE;
    writer->chores = true; /* what a killed process left */
    arena_init(&writer->scratch, SCRATCH_BYTES);
}

void store_writer_release(struct store_writer *writer)
{
    arena_release(&writer->scratch);
    if (writer->db)
        writer->db->driver->close(writer->db);
    writer->db = NULL;
}
