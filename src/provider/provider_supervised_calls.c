/* Calls of a supervised engine: a queue of those that wait until it is there, and those that it works on.
 *
 * Invariants:
 *  S2  A call is in the queue (waiting) or has an inner call, never both; in the queue while it is blocked
 *      by its sink although the engine is there.
 *  S3  Nothing is emitted from inside provider_start, _resume or _hang_up: the engine's timer does it. */
#include "base/mem.h"
#include "provider/provider_supervised_int.h"

#define WAIT_MORE_NS (2 * NS_PER_S) /* than a start may take: whose start fails hears why */

/* ---- The queue */

static void enqueue(struct supervised *s, struct supervised_call *call)
{
    call->is_queued = true;
    call->next = NULL;
    *s->queue_end = call;
    s->queue_end = &call->next;
    s->waiting++;
}

static void dequeue(struct supervised_call *call)
{
    struct supervised *s = call->owner;
    struct supervised_call **link = &s->queue;
    if (!call->is_queued)
        return;
    while (*link != call)
        link = &(*link)->next;
    *link = call->next;
    if (s->queue_end == &call->next)
        s->queue_end = link;
    call->is_queued = false;
    s->waiting--;
}

/* ---- Calls */

static void enter(struct supervised_call *call)
{
    call->depth++;
}

static void leave(struct supervised_call *call)
{
    if (--call->depth == 0 && call->dead)
        mem_free(call);
}

/* It counts no more. Its memory goes when nothing further down the stack uses it. */
static void call_end(struct supervised_call *call)
{
    struct supervised *s = call->owner;
    if (call->dead)
        return;
    dequeue(call);
    if (call->inner)
        s->running--;
    call->dead = true;
    if (s->running == 0)
        supervised_is_idle(s);
    if (call->depth == 0)
        mem_free(call);
}

static void call_refuse(struct supervised_call *call, const struct chat_fault *fault)
{
    enter(call);
    call_end(call);
    if (call->embed) {
        call->embed_sink.done(call->embed_sink.ud, NULL, fault);
    } else {
        struct chat_event event = chat_fault_event(fault, PH_ERR_BUSY);
        call->sink.event(call->sink.ud, &event);
    }
    leave(call);
}

void supervised_queue_refuse(struct supervised *s, const struct chat_fault *fault)
{
    for (size_t left = s->waiting; left > 0 && s->queue; left--)
        call_refuse(s->queue, fault);
}

static bool on_inner_event(void *ud, const struct chat_event *event)
{
    struct supervised_call *call = ud;
    bool last = event->kind == CHAT_EVENT_DONE || event->kind == CHAT_EVENT_ERROR;
    enter(call);
    if (last)
        call_end(call);
    bool more = call->sink.event(call->sink.ud, event);
    leave(call);
    return more;
}

static void on_inner_embeddings(void *ud, const struct chat_embeddings *embeddings,
                                const struct chat_fault *fault)
{
    struct supervised_call *call = ud;
    enter(call);
    call_end(call);
    call->embed_sink.done(call->embed_sink.ud, embeddings, fault);
    leave(call);
}

/* The engine is there: the call begins. */
static enum ph_status call_begin(struct supervised_call *call, struct chat_fault *fault)
{
    struct supervised *s = call->owner;
    struct provider_sink sink = {on_inner_event, call};
    struct provider_embed_sink embed_sink = {on_inner_embeddings, call};
    enum ph_status status =
        call->embed ? provider_embed(s->remote, s->params.loop, call->embed, &embed_sink, &call->inner, fault)
                    : provider_start(s->remote, s->params.loop, call->request, &sink, &call->inner, fault);
    if (status != PH_OK)
        return status;
    dequeue(call);
    s->running++;
    return PH_OK;
}

/* Nobody wants it any more, and nothing was generated. */
static void call_end_unbegun(struct supervised_call *call)
{
    struct chat_event usage = {.kind = CHAT_EVENT_USAGE}, done = {.kind = CHAT_EVENT_DONE};
    enter(call);
    (void)call->sink.event(call->sink.ud, &usage);
    if (!call->dead) {
        call_end(call);
        (void)call->sink.event(call->sink.ud, &done);
    }
    leave(call);
}

/* The calls that wait, oldest first; each is looked at once, whatever its sink does to the others. */
void supervised_queue_begin(struct supervised *s)
{
    for (size_t left = s->waiting; left > 0 && s->queue; left--) {
        struct supervised_call *call = s->queue;
        struct chat_fault fault;
        if (call->hung_up) {
            call_end_unbegun(call);
        } else if (call->blocked) { /* to the end of the queue */
            dequeue(call);
            enqueue(s, call);
        } else if (call_begin(call, &fault) != PH_OK) {
            call_refuse(call, &fault);
        }
    }
}

/* They hear that they are not forgotten, and those who have waited too long that it was in vain. */
void supervised_queue_wait(struct supervised *s)
{
    uint64_t now = supervised_now_ns(s);
    bool progress = now - s->progress_ns >= SUPERVISED_TICK_MS * NS_PER_MS;
    if (progress)
        s->progress_ns = now;
    for (size_t left = s->waiting; left > 0 && s->queue; left--) {
        struct supervised_call *call = s->queue;
        dequeue(call);
        enqueue(s, call);
        if (call->hung_up) {
            call_end_unbegun(call);
        } else if (now - call->since_ns > supervised_start_timeout_ns(s) + WAIT_MORE_NS) {
            struct chat_fault fault;
            supervised_waiting_fault(s, &fault);
            call_refuse(call, &fault);
        } else if (progress && !call->blocked && !call->embed) {
            struct chat_event event = {.kind = CHAT_EVENT_PROGRESS};
            enter(call);
            bool more = call->sink.event(call->sink.ud, &event);
            call->blocked = call->blocked || !more;
            leave(call);
        }
    }
}

/* ---- The provider's functions */

static enum ph_status check_room(struct supervised *s, struct chat_fault *fault)
{
    if (s->leaving) {
        supervised_stopping_fault(fault);
        return PH_ERR_CANCELLED;
    }
    if (s->state == ENGINE_STOPPED && supervised_now_ns(s) < s->retry_ns) {
        supervised_failed_fault(s, fault);
        return PH_ERR_BUSY;
    }
    if (s->waiting < SUPERVISED_WAITING_MAX)
        return PH_OK;
    chat_fault_set(fault, 503, "model_loading", "model", "%s is being started, and %d requests wait for it",
                   s->base.model_id, SUPERVISED_WAITING_MAX);
    fault->retry_after_s = SUPERVISED_RETRY_MS / 1000;
    return PH_ERR_BUSY;
}

static enum ph_status begin_or_wait(struct supervised *s, const struct supervised_call *model,
                                    struct provider_call **out, struct chat_fault *fault)
{
    enum ph_status status = check_room(s, fault);
    if (status != PH_OK)
        return status;
    struct supervised_call *call = mem_alloc(sizeof *call);
    if (!call) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return PH_ERR_NOMEM;
    }
    *call = *model;
    call->base.ops = s->base.ops;
    call->owner = s;
    call->since_ns = supervised_now_ns(s);
    if (s->state == ENGINE_RUNNING && s->waiting == 0) {
        status = call_begin(call, fault);
        if (status != PH_OK) {
            mem_free(call);
            return status;
        }
    } else {
        enqueue(s, call);
        if (s->state == ENGINE_STOPPED || s->state == ENGINE_RUNNING)
            supervised_drive(s);
    }
    *out = &call->base;
    return PH_OK;
}

enum ph_status supervised_start(struct provider *provider, struct net_loop *loop,
                                const struct chat_request *request, const struct provider_sink *sink,
                                struct provider_call **out, struct chat_fault *fault)
{
    (void)loop; /* it has its own */
    struct supervised_call call = {.request = request, .sink = *sink};
    *out = NULL;
    return begin_or_wait((struct supervised *)provider, &call, out, fault);
}

enum ph_status supervised_embed(struct provider *provider, struct net_loop *loop,
                                const struct chat_embed_request *request,
                                const struct provider_embed_sink *sink, struct provider_call **out,
                                struct chat_fault *fault)
{
    (void)loop;
    struct supervised_call call = {.embed = request, .embed_sink = *sink};
    return begin_or_wait((struct supervised *)provider, &call, out, fault);
}

void supervised_resume(struct provider_call *base)
{
    struct supervised_call *call = (struct supervised_call *)base;
    if (call->inner) {
        provider_resume(call->inner);
        return;
    }
    call->blocked = false;
    supervised_drive(call->owner);
}

void supervised_cancel(struct provider_call *base)
{
    struct supervised_call *call = (struct supervised_call *)base;
    if (call->inner)
        provider_cancel(call->inner);
    call_end(call);
}

void supervised_hang_up(struct provider_call *base, uint32_t drain_ms)
{
    struct supervised_call *call = (struct supervised_call *)base;
    if (call->embed) {
        supervised_cancel(base);
    } else if (call->inner) {
        provider_hang_up(call->inner, drain_ms);
    } else {
        call->hung_up = true;
        supervised_drive(call->owner);
    }
}

void supervised_note(const struct provider_call *base, struct provider_call_note *out)
{
    const struct supervised_call *call = (const struct supervised_call *)base;
    if (call->inner)
        provider_call_note(call->inner, out);
}
