/* The event loop: libuv with our ownership rules on top.
 *
 * Every handle is one allocation that frees itself in its close callback, so an owner closes and forgets.
 * net_loop_run returns when net_loop_stop was called and every handle is closed: the loop closes what is its
 * own (the stop message, the signals), owners close what is theirs. A wake-up or timer that its owner forgot
 * keeps the loop running, which a test sees at once; a loop that returned over their heads would free memory
 * in use.
 *
 * Jobs of net_work run on libuv's pool (four threads unless UV_THREADPOOL_SIZE says otherwise) in the order
 * they came; NET_WORK_MAX bounds them. */
#include <assert.h>
#include <signal.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/process.h"
#include "net/net_int.h"

struct net_signal {
    uv_signal_t handle;
    struct net_signal *next;
    void (*fn)(void *ud, int signal_number);
    void *ud;
};

struct net_loop {
    uv_loop_t uv;
    uv_async_t stop;
    bool is_stopping;
    struct net_signal *signals;
    size_t work_count;
};

struct net_wake {
    uv_async_t handle;
    void (*fn)(void *ud);
    void *ud;
};

struct net_timer {
    uv_timer_t handle;
    void (*fn)(void *ud);
    void *ud;
};

struct net_work {
    uv_work_t request;
    struct net_loop *loop;
    void (*work)(void *ud);
    void (*done)(void *ud);
    void *ud;
};

static void free_handle(uv_handle_t *handle)
{
    mem_free(handle->data);
}

static void close_own_handles(struct net_loop *loop)
{
    if (loop->is_stopping)
        return;
    loop->is_stopping = true;
    uv_close((uv_handle_t *)&loop->stop, NULL);
    for (struct net_signal *s = loop->signals; s; s = s->next)
        uv_close((uv_handle_t *)&s->handle, free_handle);
    loop->signals = NULL;
}

static void on_stop(uv_async_t *handle)
{
    close_own_handles(handle->data);
}

enum ph_status net_loop_create(struct net_loop **out, struct ph_err *err)
{
    struct net_loop *loop = mem_calloc(1, sizeof *loop);
    if (!loop)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for an event loop");
    process_keep_on_bad_writes(); /* whoever has a loop has peers that may go */
    int rc = uv_loop_init(&loop->uv);
    if (rc == 0) {
        rc = uv_async_init(&loop->uv, &loop->stop, on_stop);
        if (rc != 0)
            uv_loop_close(&loop->uv);
    }
    if (rc != 0) {
        mem_free(loop);
        return ph_fail(err, PH_ERR_IO, "cannot make an event loop: %s", uv_strerror(rc));
    }
    loop->stop.data = loop;
    *out = loop;
    return PH_OK;
}

void net_loop_run(struct net_loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void net_loop_stop(struct net_loop *loop)
{
    uv_async_send(&loop->stop);
}

void net_loop_free(struct net_loop *loop)
{
    if (!loop)
        return;
    close_own_handles(loop); /* it may never have run */
    uv_run(&loop->uv, UV_RUN_NOWAIT);
    int rc = uv_loop_close(&loop->uv);
    assert(rc == 0 && "a wake-up, timer, job or server of this loop was not closed");
    (void)rc;
    mem_free(loop);
}

uv_loop_t *net_loop_uv(struct net_loop *loop)
{
    return &loop->uv;
}

/* ---- Wake-ups and timers ---- */

static void on_wake(uv_async_t *handle)
{
    struct net_wake *wake = handle->data;
    wake->fn(wake->ud);
}

enum ph_status net_wake_open(struct net_wake **out, struct net_loop *loop, void (*fn)(void *ud), void *ud)
{
    struct net_wake *wake = mem_alloc(sizeof *wake);
    if (!wake)
        return PH_ERR_NOMEM;
    if (uv_async_init(&loop->uv, &wake->handle, on_wake) != 0) {
        mem_free(wake);
        return PH_ERR_IO;
    }
    wake->handle.data = wake;
    wake->fn = fn;
    wake->ud = ud;
    *out = wake;
    return PH_OK;
}

void net_wake_call(struct net_wake *wake)
{
    uv_async_send(&wake->handle);
}

void net_wake_close(struct net_wake *wake)
{
    if (wake)
        uv_close((uv_handle_t *)&wake->handle, free_handle);
}

static void on_timer(uv_timer_t *handle)
{
    struct net_timer *timer = handle->data;
    timer->fn(timer->ud);
}

enum ph_status net_timer_open(struct net_timer **out, struct net_loop *loop, void (*fn)(void *ud), void *ud)
{
    struct net_timer *timer = mem_alloc(sizeof *timer);
    if (!timer)
        return PH_ERR_NOMEM;
    uv_timer_init(&loop->uv, &timer->handle);
    timer->handle.data = timer;
    timer->fn = fn;
    timer->ud = ud;
    *out = timer;
    return PH_OK;
}

void net_timer_start(struct net_timer *timer, uint64_t delay_ms, uint64_t repeat_ms)
{
    uv_update_time(timer->handle.loop); /* the delay counts from now, not from the loop's last turn */
    uv_timer_start(&timer->handle, on_timer, delay_ms, repeat_ms);
}

void net_timer_stop(struct net_timer *timer)
{
    uv_timer_stop(&timer->handle);
}

void net_timer_close(struct net_timer *timer)
{
    if (timer)
        uv_close((uv_handle_t *)&timer->handle, free_handle);
}

/* ---- Signals ---- */

static void on_signal(uv_signal_t *handle, int signal_number)
{
    struct net_signal *s = handle->data;
    s->fn(s->ud, signal_number);
}

static enum ph_status watch_signal(struct net_loop *loop, int number, void (*fn)(void *, int), void *ud)
{
    struct net_signal *s = mem_alloc(sizeof *s);
    if (!s)
        return PH_ERR_NOMEM;
    if (uv_signal_init(&loop->uv, &s->handle) != 0) {
        mem_free(s);
        return PH_ERR_IO;
    }
    s->handle.data = s;
    s->fn = fn;
    s->ud = ud;
    s->next = loop->signals;
    loop->signals = s; /* closed with the loop, also when starting it fails now */
    return uv_signal_start(&s->handle, on_signal, number) == 0 ? PH_OK : PH_ERR_IO;
}

enum ph_status net_on_signal(struct net_loop *loop, void (*fn)(void *ud, int signal_number), void *ud)
{
    enum ph_status status = watch_signal(loop, SIGTERM, fn, ud);
    return status == PH_OK ? watch_signal(loop, SIGINT, fn, ud) : status;
}

/* ---- Jobs for helper threads ---- */

static void do_work(uv_work_t *request)
{
    struct net_work *job = request->data;
    job->work(job->ud);
}

static void finish_work(uv_work_t *request, int status)
{
    (void)status; /* never cancelled: `done` is always owed */
    struct net_work *job = request->data;
    job->loop->work_count--;
    void (*done)(void *) = job->done;
    void *ud = job->ud;
    mem_free(job);
    done(ud);
}

enum ph_status net_work(struct net_loop *loop, void (*work)(void *ud), void (*done)(void *ud), void *ud)
{
    if (loop->work_count >= NET_WORK_MAX)
        return PH_ERR_BUSY;
    struct net_work *job = mem_alloc(sizeof *job);
    if (!job)
        return PH_ERR_NOMEM;
    *job = (struct net_work){.loop = loop, .work = work, .done = done, .ud = ud};
    job->request.data = job;
    if (uv_queue_work(&loop->uv, &job->request, do_work, finish_work) != 0) {
        mem_free(job);
        return PH_ERR_IO;
    }
    loop->work_count++;
    return PH_OK;
}
