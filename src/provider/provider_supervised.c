/* An engine that is started when it is needed: a program with an HTTP API of its own on a port of this
 * machine, and inside this provider a remote one (provider_remote.c) that talks to it.
 *
 * The engine's life:
 *
 *            a call          health says yes           idle for ttl_s, release, stop
 *   STOPPED ---------> STARTING -----------> RUNNING --------------------------------> STOPPING --> STOPPED
 *      ^                  | dies, or not in time |  dies, or does not answer any more
 *      |<-----------------+                      v
 *      |     (a call, after a back-off)      RESTING --> STARTING     (after a back-off, by itself)
 *
 * However many calls come while it starts, it is started once: they wait in a queue, get PROGRESS now and
 * then, and begin when it is there, or are refused: all when the start fails, each when it has waited as long
 * as a start may take. Whoever comes during the back-off after a failed start is refused at once, with the
 * time.
 *
 * One timer drives it all: tick() looks at what the state asks for. It exists while there is something to
 * drive, so that a stopped engine holds nothing of the loop.
 *
 * Invariants:
 *  S1  There is a process in STARTING, RUNNING and STOPPING, and in no other state.
 *  S2  A call is in the queue (waiting) or has an inner call, never both; in the queue while it is blocked
 *      by its sink although the engine is there.
 *  S3  Nothing is emitted from inside provider_start, _resume or _hang_up: tick() does it. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "provider/provider_account_int.h"
#include "provider/provider_engine_int.h"
#include "provider/provider_int.h"
#include "provider/provider_remote_int.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define URL_BYTES_MAX 512
#define HEALTH_TIMEOUT_MS 5000
#define WAIT_MORE_NS (2 * NS_PER_S) /* than a start may take: whose start fails hears why */
#define PORT_MARK "{port}"

enum engine_state { ENGINE_STOPPED, ENGINE_STARTING, ENGINE_RUNNING, ENGINE_STOPPING, ENGINE_RESTING };

struct supervised {
    struct provider base;
    struct provider_supervised_params params; /* strings owned */
    char *command, *base_path, *health_path;
    struct engine_files files;
    struct provider_account *account;
    struct provider *remote;

    enum engine_state state;
    struct net_process *process;
    struct net_timer *timer;
    unsigned port;
    uint64_t since_ns;            /* the state's beginning */
    uint64_t retry_ns;            /* after a failure: not before */
    unsigned failures;            /* in a row */
    char why[PH_ERR_MESSAGE_MAX]; /* of the last one */
    uint64_t idle_ns;             /* since when nobody uses it */

    struct http_call *health;
    bool health_fallback; /* /health is not known there: the list of models is asked for */
    int health_status;
    uint64_t health_ns; /* when it was last asked */
    unsigned misses;

    struct supervised_call *queue, **queue_end;
    size_t waiting, running;
    uint64_t progress_ns;
    void (*stopped)(void *ud); /* provider_stop */
    void *stopped_ud;
    bool leaving;
};

struct supervised_call {
    struct provider_call base;
    struct supervised *owner;
    struct supervised_call *next; /* in the queue */
    const struct chat_request *request;
    const struct chat_embed_request *embed; /* or this */
    struct provider_sink sink;
    struct provider_embed_sink embed_sink;
    struct provider_call *inner; /* NULL: waiting */
    uint64_t since_ns;
    bool is_queued, blocked, hung_up, dead;
    unsigned depth;
};

static void tick(void *ud);

static uint64_t now_ns(const struct supervised *s)
{
    return clock_monotonic_ns(s->params.clock);
}

static void enter_state(struct supervised *s, enum engine_state state)
{
    s->state = state;
    s->since_ns = now_ns(s);
}

/* tick() comes in a turn of the loop, and then every interval. */
static void drive(struct supervised *s)
{
    uint64_t interval = s->state == ENGINE_STARTING ? SUPERVISED_LOOK_MS : SUPERVISED_TICK_MS;
    if (!s->timer && net_timer_open(&s->timer, s->params.loop, tick, s) != PH_OK) {
        log_error("provider", "%s: no memory for a timer", s->base.model_id);
        return;
    }
    net_timer_start(s->timer, 0, interval);
}

static void rest_timer(struct supervised *s)
{
    net_timer_close(s->timer);
    s->timer = NULL;
}

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
    if (s->running == 0)
        s->idle_ns = now_ns(s);
    call->dead = true;
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

/* ---- Failing */

static uint64_t start_timeout_ns(const struct supervised *s)
{
    uint32_t seconds = s->params.start_timeout_s ? s->params.start_timeout_s : SUPERVISED_START_TIMEOUT_S;
    return seconds * NS_PER_S;
}

static uint32_t retry_after_s(const struct supervised *s)
{
    uint64_t now = now_ns(s);
    return s->retry_ns > now ? (uint32_t)((s->retry_ns - now + NS_PER_S - 1) / NS_PER_S) : 1;
}

static void failed_fault(const struct supervised *s, struct chat_fault *fault)
{
    chat_fault_set(fault, 503, "model_unavailable", "model", "%s: %s", s->base.model_id, s->why);
    fault->retry_after_s = retry_after_s(s);
}

static void note_failure(struct supervised *s, const char *why)
{
    uint64_t wait_ms = SUPERVISED_RETRY_MS;
    for (unsigned i = 0; i < s->failures && wait_ms < SUPERVISED_RETRY_MAX_MS; i++)
        wait_ms *= 2;
    if (wait_ms > SUPERVISED_RETRY_MAX_MS)
        wait_ms = SUPERVISED_RETRY_MAX_MS;
    s->failures++;
    s->retry_ns = now_ns(s) + wait_ms * NS_PER_MS;
    snprintf(s->why, sizeof s->why, "%s", why);
}

/* Everybody who waits now; those that come meanwhile are not meant. */
static void refuse_queue(struct supervised *s, const struct chat_fault *fault)
{
    for (size_t left = s->waiting; left > 0 && s->queue; left--)
        call_refuse(s->queue, fault);
}

static void stopping_fault(struct chat_fault *fault)
{
    chat_fault_set(fault, 503, "server_stopping", NULL, "the station is stopping");
}

/* Everybody who waits hears why, with the last words of the log; so does who comes during the back-off. */
static void start_failed(struct supervised *s, const char *why)
{
    struct chat_fault fault;
    struct buf message;
    buf_init(&message, PH_ERR_MESSAGE_MAX);
    buf_printf(&message, "%s; its log ends with: ", why);
    size_t before = message.len;
    engine_files_tail(&s->files, SUPERVISED_LOG_TAIL_BYTES, &message);
    bool complete = buf_status(&message) == PH_OK && message.len > before;
    if (complete)
        chat_scrub(message.data);
    note_failure(s, complete ? message.data : why);
    log_error("provider", "%s: %s (%s)", s->base.model_id, s->why, s->files.log);
    failed_fault(s, &fault);
    refuse_queue(s, &fault);
    buf_release(&message);
}

/* ---- Health */

static void health_head(void *ud, int status, const struct http_header *headers, size_t count)
{
    struct supervised *s = ud;
    (void)headers;
    (void)count;
    s->health_status = status;
}

static bool health_body(void *ud, const char *bytes, size_t len)
{
    (void)ud;
    (void)bytes;
    (void)len;
    return true;
}

static void engine_is_there(struct supervised *s)
{
    char url[URL_BYTES_MAX];
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", s->port, s->base_path);
    if (!account_move(s->account, url)) {
        net_process_stop(s->process, SUPERVISED_STOP_GRACE_MS);
        return;
    }
    remote_forget(s->remote);
    log_info("provider", "%s is ready on port %u after %.1f s", s->base.model_id, s->port,
             (double)(now_ns(s) - s->since_ns) / (double)NS_PER_S);
    enter_state(s, ENGINE_RUNNING);
    s->idle_ns = s->since_ns;
    s->misses = 0;
    drive(s);
}

static void health_end(void *ud, enum http_call_end how, const char *message)
{
    struct supervised *s = ud;
    (void)message;
    s->health = NULL;
    int status = how == HTTP_CALL_WHOLE ? s->health_status : 0;
    if (status == 404 && !s->params.health_path)
        s->health_fallback = true;
    bool well = status >= 200 && status < 300;
    if (s->state == ENGINE_STARTING && well)
        engine_is_there(s);
    if (s->state != ENGINE_RUNNING)
        return;
    s->misses = well || status != 0 ? 0 : s->misses + 1;
    if (s->misses < SUPERVISED_HEALTH_MISSES)
        return;
    log_warn("provider", "%s does not answer any more: it is started anew", s->base.model_id);
    net_process_stop(s->process, SUPERVISED_STOP_GRACE_MS); /* on_ended sees to the rest */
    s->misses = 0;
}

static void ask_health(struct supervised *s)
{
    char url[URL_BYTES_MAX];
    struct ph_err err;
    if (s->health)
        return;
    if (s->params.health_path)
        snprintf(url, sizeof url, "http://127.0.0.1:%u%s", s->port, s->health_path);
    else if (s->health_fallback)
        snprintf(url, sizeof url, "http://127.0.0.1:%u%s/models", s->port, s->base_path);
    else
        snprintf(url, sizeof url, "http://127.0.0.1:%u/health", s->port);
    struct http_call_params params = {.method = "GET",
                                      .url = url,
                                      .connect_timeout_ms = HEALTH_TIMEOUT_MS,
                                      .head_timeout_ms = HEALTH_TIMEOUT_MS,
                                      .silence_timeout_ms = HEALTH_TIMEOUT_MS};
    struct http_call_sink sink = {health_head, health_body, health_end, s};
    s->health_ns = now_ns(s);
    s->health_status = 0;
    if (http_call_start(&s->health, s->params.client, &params, &sink, &err) != PH_OK)
        log_warn("provider", "%s: %s", s->base.model_id, err.message);
}

static void forget_health(struct supervised *s)
{
    if (s->health)
        http_call_cancel(s->health);
    s->health = NULL;
}

/* ---- Starting and ending */

static bool make_command(const struct supervised *s, struct buf *out)
{
    char port[16];
    snprintf(port, sizeof port, "%u", s->port);
    buf_init(out, SUPERVISED_COMMAND_BYTES_MAX);
    const char *at = s->command;
    for (const char *mark; (mark = strstr(at, PORT_MARK)) != NULL; at = mark + strlen(PORT_MARK)) {
        buf_append(out, at, (size_t)(mark - at));
        buf_puts(out, port);
    }
    buf_puts(out, at);
    return buf_status(out) == PH_OK;
}

static void on_ended(void *ud, int code);

static void start_engine(struct supervised *s)
{
    struct ph_err err = {0};
    struct buf command;
    s->port = net_free_port();
    bool ok = make_command(s, &command);
    struct net_process_params params = {
        .command = command.data, .log_path = s->files.log, .ended = on_ended, .ud = s};
    enum ph_status status = ok && s->port ? PH_OK : ph_fail(&err, PH_ERR_IO, "no port is free, or no memory");
    if (status == PH_OK)
        status = engine_files_turn(&s->files, &err);
    if (status == PH_OK)
        status = net_process_start(&s->process, s->params.loop, &params, &err);
    buf_release(&command);
    if (status != PH_OK) {
        enter_state(s, ENGINE_STOPPED);
        start_failed(s, err.message);
        return;
    }
    engine_files_note(&s->files, net_process_pid(s->process));
    enter_state(s, ENGINE_STARTING);
    log_info("provider", "%s is started on port %u", s->base.model_id, s->port);
    drive(s);
}

static void say_stopped(struct supervised *s)
{
    void (*stopped)(void *ud) = s->stopped;
    s->stopped = NULL;
    rest_timer(s);
    if (stopped)
        stopped(s->stopped_ud);
}

static void describe_end(int code, char *out, size_t size)
{
    if (code > 128)
        snprintf(out, size, "it was ended by signal %d", code - 128);
    else
        snprintf(out, size, "it ended with code %d", code);
}

/* The process is gone, by its own will or ours. */
static void on_ended(void *ud, int code)
{
    struct supervised *s = ud;
    enum engine_state was = s->state;
    char how[64], why[128];
    describe_end(code, how, sizeof how);
    net_process_free(s->process);
    s->process = NULL;
    forget_health(s);
    engine_files_forget(&s->files);
    if (was == ENGINE_STOPPING || s->leaving) {
        enter_state(s, ENGINE_STOPPED);
        log_info("provider", "%s has stopped", s->base.model_id);
    } else if (was == ENGINE_STARTING) {
        enter_state(s, ENGINE_STOPPED);
        snprintf(why, sizeof why, "the engine did not start: %s", how);
        start_failed(s, why);
    } else {
        if (now_ns(s) - s->since_ns > SUPERVISED_STEADY_S * NS_PER_S)
            s->failures = 0;
        enter_state(s, ENGINE_RESTING);
        snprintf(why, sizeof why, "the engine died: %s", how);
        note_failure(s, why);
        log_warn("provider", "%s: %s; it is started anew in %u s", s->base.model_id, s->why,
                 retry_after_s(s));
    }
    drive(s);
}

static void stop_engine(struct supervised *s)
{
    forget_health(s);
    enter_state(s, ENGINE_STOPPING);
    net_process_stop(s->process, SUPERVISED_STOP_GRACE_MS);
}

/* ---- What a turn of the timer does */

/* The calls that wait, oldest first; each is looked at once, whatever its sink does to the others. */
static void queue_begin(struct supervised *s)
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
static void queue_wait(struct supervised *s)
{
    uint64_t now = now_ns(s);
    bool progress = now - s->progress_ns >= SUPERVISED_TICK_MS * NS_PER_MS;
    if (progress)
        s->progress_ns = now;
    for (size_t left = s->waiting; left > 0 && s->queue; left--) {
        struct supervised_call *call = s->queue;
        dequeue(call);
        enqueue(s, call);
        if (call->hung_up) {
            call_end_unbegun(call);
        } else if (now - call->since_ns > start_timeout_ns(s) + WAIT_MORE_NS) {
            struct chat_fault fault;
            chat_fault_set(&fault, 503, "model_loading", "model", "%s is still being started",
                           s->base.model_id);
            fault.retry_after_s = SUPERVISED_RETRY_MS / 1000;
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

static void tick_running(struct supervised *s)
{
    uint64_t now = now_ns(s);
    queue_begin(s);
    if (s->state != ENGINE_RUNNING || s->running || s->waiting)
        return;
    if (s->params.ttl_s && now - s->idle_ns >= s->params.ttl_s * NS_PER_S) {
        log_info("provider", "%s is stopped: nobody has asked it for %u s", s->base.model_id,
                 s->params.ttl_s);
        s->failures = 0;
        stop_engine(s);
    } else if (now - s->health_ns >= SUPERVISED_HEALTH_S * NS_PER_S) {
        ask_health(s);
    }
}

static void tick_starting(struct supervised *s)
{
    if (now_ns(s) - s->since_ns <= start_timeout_ns(s)) {
        ask_health(s);
        return;
    }
    start_failed(s, "the engine did not become ready in time");
    stop_engine(s);
}

/* The station stops: nobody waits any more, and when there is no process it is over. */
static void tick_leaving(struct supervised *s)
{
    struct chat_fault fault;
    stopping_fault(&fault);
    refuse_queue(s, &fault);
    if (!s->process)
        say_stopped(s);
}

static void tick(void *ud)
{
    struct supervised *s = ud;
    if (s->leaving) {
        tick_leaving(s);
        return;
    }
    if (s->state != ENGINE_RUNNING)
        queue_wait(s);
    switch (s->state) {
    case ENGINE_STARTING:
        tick_starting(s);
        break;
    case ENGINE_RUNNING:
        tick_running(s);
        break;
    case ENGINE_STOPPING:
        break;
    case ENGINE_STOPPED:
        if (s->waiting == 0)
            rest_timer(s);
        else if (now_ns(s) >= s->retry_ns)
            start_engine(s);
        break;
    case ENGINE_RESTING:
        if (now_ns(s) >= s->retry_ns)
            start_engine(s);
        break;
    }
}

/* ---- The provider's functions */

static enum ph_status check_room(struct supervised *s, struct chat_fault *fault)
{
    if (s->leaving) {
        stopping_fault(fault);
        return PH_ERR_CANCELLED;
    }
    if (s->state == ENGINE_STOPPED && now_ns(s) < s->retry_ns) {
        failed_fault(s, fault);
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
    call->since_ns = now_ns(s);
    if (s->state == ENGINE_RUNNING && s->waiting == 0) {
        status = call_begin(call, fault);
        if (status != PH_OK) {
            mem_free(call);
            return status;
        }
    } else {
        enqueue(s, call);
        if (s->state == ENGINE_STOPPED || s->state == ENGINE_RUNNING)
            drive(s);
    }
    *out = &call->base;
    return PH_OK;
}

static enum ph_status supervised_start(struct provider *provider, struct net_loop *loop,
                                       const struct chat_request *request, const struct provider_sink *sink,
                                       struct provider_call **out, struct chat_fault *fault)
{
    (void)loop; /* it has its own */
    struct supervised_call call = {.request = request, .sink = *sink};
    *out = NULL;
    return begin_or_wait((struct supervised *)provider, &call, out, fault);
}

static enum ph_status supervised_embed(struct provider *provider, struct net_loop *loop,
                                       const struct chat_embed_request *request,
                                       const struct provider_embed_sink *sink, struct provider_call **out,
                                       struct chat_fault *fault)
{
    (void)loop;
    struct supervised_call call = {.embed = request, .embed_sink = *sink};
    return begin_or_wait((struct supervised *)provider, &call, out, fault);
}

static void supervised_resume(struct provider_call *base)
{
    struct supervised_call *call = (struct supervised_call *)base;
    if (call->inner) {
        provider_resume(call->inner);
        return;
    }
    call->blocked = false;
    drive(call->owner);
}

static void supervised_cancel(struct provider_call *base)
{
    struct supervised_call *call = (struct supervised_call *)base;
    if (call->inner)
        provider_cancel(call->inner);
    call_end(call);
}

static void supervised_hang_up(struct provider_call *base, uint32_t drain_ms)
{
    struct supervised_call *call = (struct supervised_call *)base;
    if (call->embed) {
        supervised_cancel(base);
    } else if (call->inner) {
        provider_hang_up(call->inner, drain_ms);
    } else {
        call->hung_up = true;
        drive(call->owner);
    }
}

static void supervised_note(const struct provider_call *base, struct provider_call_note *out)
{
    const struct supervised_call *call = (const struct supervised_call *)base;
    if (call->inner)
        provider_call_note(call->inner, out);
}

static void supervised_state(const struct provider *provider, struct provider_state *out)
{
    const struct supervised *s = (const struct supervised *)provider;
    provider_state(s->remote, out); /* speeds, and the breaker's state */
    if (s->state != ENGINE_RUNNING) {
        bool failed = s->state == ENGINE_STOPPED && now_ns(s) < s->retry_ns;
        out->usable = !failed && !s->leaving && s->waiting < SUPERVISED_WAITING_MAX;
        out->why = CHAT_CAUSE_OURS;
        out->usable_at_ns = failed ? s->retry_ns : 0;
    }
    out->running = s->running + s->waiting;
    out->waiting = s->waiting;
}

static size_t supervised_count(struct provider *provider, const struct chat_request *request, bool *exact)
{
    return provider_count_tokens(((struct supervised *)provider)->remote, request, exact);
}

bool provider_supervised_release(struct provider *provider)
{
    struct supervised *s = (struct supervised *)provider;
    bool runs = s->state == ENGINE_RUNNING || s->state == ENGINE_STARTING;
    if (!runs || s->running || s->waiting)
        return false;
    log_info("provider", "%s is stopped: its memory is needed", s->base.model_id);
    stop_engine(s);
    return true;
}

static void supervised_stop(struct provider *provider, void (*stopped)(void *ud), void *ud)
{
    struct supervised *s = (struct supervised *)provider;
    s->leaving = true;
    s->stopped = stopped;
    s->stopped_ud = ud;
    if (s->process && s->state != ENGINE_STOPPING)
        stop_engine(s);
    drive(s);
}

static void supervised_free(struct provider *provider)
{
    struct supervised *s = (struct supervised *)provider;
    provider_free(s->remote);
    provider_account_free(s->account);
    engine_files_release(&s->files);
    mem_free(s->command);
    mem_free(s->base_path);
    mem_free(s->health_path);
    mem_free(s);
}

static bool copy_params(struct supervised *s, const struct provider_supervised_params *params)
{
    s->params = *params;
    s->params.model_id = s->base.model_id;
    s->command = mem_strdup(params->command);
    s->base_path = mem_strdup(params->base_path ? params->base_path : "/v1");
    s->health_path = params->health_path ? mem_strdup(params->health_path) : NULL;
    s->params.health_path = s->health_path;
    s->queue_end = &s->queue;
    return s->command && s->base_path && (s->health_path || !params->health_path);
}

static enum ph_status make_remote(struct supervised *s, struct ph_err *err)
{
    const struct provider_supervised_params *p = &s->params;
    struct provider_account_params account = {.name = "supervised",
                                              .base_url = "http://127.0.0.1:0",
                                              .codec = p->codec,
                                              .head_timeout_ms = PROVIDER_WHOLE_TIMEOUT_MS,
                                              .client = p->client,
                                              .clock = p->clock};
    const char *upstream = p->upstream ? p->upstream : s->base.model_id;
    enum ph_status status = provider_account_create(&s->account, &account, err);
    if (status == PH_OK)
        status =
            provider_remote_create(&s->remote, s->base.model_id, s->account, upstream, p->context_len, err);
    return status;
}

enum ph_status provider_supervised_create(struct provider **out,
                                          const struct provider_supervised_params *params, struct ph_err *err)
{
    static const struct provider_ops ops = {
        .kind = "supervised",
        .start = supervised_start,
        .resume = supervised_resume,
        .cancel = supervised_cancel,
        .hang_up = supervised_hang_up,
        .note = supervised_note,
        .embed = supervised_embed,
        .state = supervised_state,
        .count = supervised_count,
        .stop = supervised_stop,
        .free = supervised_free,
    };
    *out = NULL;
    if (!strstr(params->command, PORT_MARK))
        return ph_fail(err, PH_ERR_ARG, "%s: its command does not say %s, where the engine's port belongs",
                       params->model_id, PORT_MARK);
    struct supervised *s = mem_calloc(1, sizeof *s);
    if (!s || provider_init(&s->base, &ops, params->model_id) != 0) {
        mem_free(s);
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    }
    enum ph_status status = copy_params(s, params) ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "out of memory");
    if (status == PH_OK)
        status = engine_files_init(&s->files, params->log_dir, params->model_id, err);
    if (status == PH_OK)
        status = make_remote(s, err);
    if (status != PH_OK) {
        provider_free(&s->base);
        return status;
    }
    s->base.context_len = params->context_len;
    s->base.ready = true;
    engine_files_end_orphan(&s->files);
    *out = &s->base;
    return PH_OK;
}
