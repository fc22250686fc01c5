/* A ring behind one mutex and one condition. A put wakes one waiter; closing wakes all. */
#include "base/queue.h"

#include <assert.h>

#include <uv.h>

#include "base/mem.h"

#define WAIT_NS_MAX ((uint64_t)3600 * 1000000000u) /* one sleep; longer waits sleep again */

struct queue {
    uv_mutex_t mutex;
    uv_cond_t filled; /* or closed */
    size_t first, len, len_max;
    bool closed;
    void *items[];
};

enum ph_status queue_create(struct queue **out, size_t len_max)
{
    *out = NULL;
    if (len_max == 0)
        return PH_ERR_ARG;
    if (len_max > (SIZE_MAX - sizeof(struct queue)) / sizeof(void *))
        return PH_ERR_NOMEM;
    struct queue *queue = mem_calloc(1, sizeof *queue + len_max * sizeof(void *));
    if (!queue)
        return PH_ERR_NOMEM;
    queue->len_max = len_max;
    if (uv_mutex_init(&queue->mutex) != 0) {
        mem_free(queue);
        return PH_ERR_NOMEM;
    }
    if (uv_cond_init(&queue->filled) != 0) {
        uv_mutex_destroy(&queue->mutex);
        mem_free(queue);
        return PH_ERR_NOMEM;
    }
    *out = queue;
    return PH_OK;
}

void queue_free(struct queue *queue)
{
    if (!queue)
        return;
    uv_cond_destroy(&queue->filled);
    uv_mutex_destroy(&queue->mutex);
    mem_free(queue);
}

enum ph_status queue_put(struct queue *queue, void *item)
{
    assert(item); /* NULL is the answer "nothing there" */
    enum ph_status status = PH_OK;
    uv_mutex_lock(&queue->mutex);
    if (queue->closed) {
        status = PH_ERR_CANCELLED;
    } else if (queue->len == queue->len_max) {
        status = PH_ERR_BUSY;
    } else {
        queue->items[(queue->first + queue->len) % queue->len_max] = item;
        queue->len++;
        uv_cond_signal(&queue->filled);
    }
    uv_mutex_unlock(&queue->mutex);
    return status;
}

static void *take_first(struct queue *queue)
{
    if (queue->len == 0)
        return NULL;
    void *item = queue->items[queue->first];
    queue->first = (queue->first + 1) % queue->len_max;
    queue->len--;
    return item;
}

void *queue_get(struct queue *queue)
{
    uv_mutex_lock(&queue->mutex);
    void *item = take_first(queue);
    uv_mutex_unlock(&queue->mutex);
    return item;
}

void *queue_wait(struct queue *queue, uint64_t timeout_ns)
{
    uint64_t start = uv_hrtime();
    uv_mutex_lock(&queue->mutex);
    while (queue->len == 0 && !queue->closed) {
        uint64_t waited = uv_hrtime() - start;
        if (waited >= timeout_ns)
            break;
        uint64_t left = timeout_ns - waited;
        uv_cond_timedwait(&queue->filled, &queue->mutex, left < WAIT_NS_MAX ? left : WAIT_NS_MAX);
    }
    void *item = take_first(queue);
    uv_mutex_unlock(&queue->mutex);
    return item;
}

void queue_close(struct queue *queue)
{
    uv_mutex_lock(&queue->mutex);
    queue->closed = true;
    uv_cond_broadcast(&queue->filled);
    uv_mutex_unlock(&queue->mutex);
}

size_t queue_len(struct queue *queue)
{
    uv_mutex_lock(&queue->mutex);
    size_t len = queue->len;
    uv_mutex_unlock(&queue->mutex);
    return len;
}
