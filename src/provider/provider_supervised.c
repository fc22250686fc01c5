/* An engine that is started when it is needed: a program with an HTTP API of its own on a port of this
 * machine, and inside this provider a remote one (provider_remote.c) that talks to it.
 *
 * The engine's life:
 *
 *            a call          health says yes     idle for ttl_s, its memory is needed, stop
 *   STOPPED ---------> STARTING -----------> RUNNING --------------------------------> STOPPING --> STOPPED
 *      ^                  | dies, or not in time |  dies, or answers no more (after STOPPING)
 *      |<-----------------+                      v
 *      |     (a call, after a back-off)      RESTING --> STARTING     (after a back-off, by itself)
 *
 * However many calls come while it starts, it is started once: they wait in a queue, get PROGRESS now and
 * then, and begin when it is there, or are refused: all when the start fails, each when it has waited as long
 * as a start may take. Whoever comes during the back-off after a failed start is refused at once, with the
 * time.
 *
 * Before it starts, the room that engines share is asked (provider_room.c): it may have to wait until others
 * have left. What it needs is what the operator said, or what its processes had when it last ran, or the size
 * of its model files. While it runs, a helper thread looks at it now and then (provider_engine_look.c).
 *
 * One timer drives it all: tick() looks at what the state asks for. It exists while there is something to
 * drive, so that a stopped engine holds nothing of the loop.
 *
 * Invariants:
 *  S1  There is a process in STARTING, RUNNING and STOPPING, and in no other state.
 *  S2, S3 are of its calls: provider_supervised_calls.c.
 *  S4  No look is under way when it starts: a look has the log of the run before. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "provider/provider_account_int.h"
#include "provider/provider_remote_int.h"
#include "provider/provider_supervised_int.h"

#define URL_BYTES_MAX 512
#define HEALTH_TIMEOUT_MS 5000
#define PORT_MARK "{port}"

static void tick(void *ud);
static void on_ended(void *ud, int code);
static void stop_engine(struct supervised *s, enum provider_engine_end end);

uint64_t supervised_now_ns(const struct supervised *s)
{
    return clock_monotonic_ns(s->params.clock);
}

/* Somebody may be waiting for what this engine has. */
static void tell_room(struct supervised *s)
{
    if (s->params.room)
        room_changed(s->params.room);
}

static void enter_state(struct supervised *s, enum engine_state state)
{
    s->state = state;
    s->since_ns = supervised_now_ns(s);
    if (state == ENGINE_STARTING || state == ENGINE_RUNNING)
        s->idle_ns = s->since_ns;
    tell_room(s);
}

void supervised_is_idle(struct supervised *s)
{
    s->idle_ns = supervised_now_ns(s);
    tell_room(s);
}

/* tick() comes in a turn of the loop, and then every interval. */
void supervised_drive(struct supervised *s)
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

/* ---- Failing */

uint64_t supervised_start_timeout_ns(const struct supervised *s)
{
    uint32_t seconds = s->params.start_timeout_s ? s->params.start_timeout_s : SUPERVISED_START_TIMEOUT_S;
    return seconds * NS_PER_S;
}

static uint32_t retry_after_s(const struct supervised *s)
{
    uint64_t now = supervised_now_ns(s);
    return s->retry_ns > now ? (uint32_t)((s->retry_ns - now + NS_PER_S - 1) / NS_PER_S) : 1;
}

void supervised_failed_fault(const struct supervised *s, struct chat_fault *fault)
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
    s->retry_ns = supervised_now_ns(s) + wait_ms * NS_PER_MS;
    snprintf(s->why, sizeof s->why, "%s", why);
}

void supervised_stopping_fault(struct chat_fault *fault)
{
    chat_fault_set(fault, 503, "server_stopping", NULL, "the station is stopping");
}

void supervised_waiting_fault(const struct supervised *s, struct chat_fault *fault)
{
    char why[256];
    if (s->wants_room)
        room_say(&s->figures, why, sizeof why);
    chat_fault_set(fault, 503, "model_loading", "model", "%s %s%s", s->base.model_id,
                   s->wants_room ? "waits for memory: " : "is still being started", s->wants_room ? why : "");
    fault->retry_after_s = SUPERVISED_RETRY_MS / 1000;
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
    supervised_failed_fault(s, &fault);
    supervised_queue_refuse(s, &fault);
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
        start_failed(s, "out of memory");
        stop_engine(s, ENGINE_END_FAILED);
        return;
    }
    remote_forget(s->remote);
    log_info("provider", "%s is ready on port %u after %.1f s", s->base.model_id, s->port,
             (double)(supervised_now_ns(s) - s->since_ns) / (double)NS_PER_S);
    enter_state(s, ENGINE_RUNNING);
    s->port_tries = 0;
    s->misses = 0;
    s->ran = s->look_soon = true;
    supervised_drive(s);
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
    stop_engine(s, ENGINE_END_SILENT); /* on_ended sees to the rest */
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
    s->health_ns = supervised_now_ns(s);
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

static enum ph_status start_process(struct supervised *s, struct ph_err *err)
{
    struct buf command;
    s->port = net_free_port();
    bool ok = make_command(s, &command);
    struct net_process_params params = {
        .command = command.data, .log_path = s->files.log, .ended = on_ended, .ud = s};
    enum ph_status status = ok && s->port ? PH_OK : ph_fail(err, PH_ERR_IO, "no port is free, or no memory");
    if (status == PH_OK)
        status = engine_files_turn(&s->files, err);
    if (status == PH_OK)
        status = net_process_start(&s->process, s->params.loop, &params, err);
    buf_release(&command);
    return status;
}

static void start_engine(struct supervised *s)
{
    struct ph_err err = {0};
    bool is_restart = s->state == ENGINE_RESTING;
    s->wants_room = false;
    s->ran = false;
    s->peak = 0;
    s->taken = (struct process_memory){0};
    if (start_process(s, &err) != PH_OK) {
        enter_state(s, ENGINE_STOPPED);
        s->stats.ends[ENGINE_END_FAILED]++;
        start_failed(s, err.message);
        return;
    }
    s->stats.starts++;
    s->stats.restarts += is_restart;
    engine_files_note(&s->files, net_process_pid(s->process), net_process_group(s->process));
    enter_state(s, ENGINE_STARTING);
    log_info("provider", "%s is started on port %u", s->base.model_id, s->port);
    supervised_drive(s);
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

static void after_failed_start(struct supervised *s, const char *how)
{
    char why[128];
    enter_state(s, ENGINE_STOPPED);
    if (s->port_tries + 1 < SUPERVISED_PORT_TRIES && !net_port_is_free((uint16_t)s->port)) {
        s->port_tries++;
        log_warn("provider", "%s: somebody else has taken port %u; it is started on another one",
                 s->base.model_id, s->port);
        return;
    }
    s->port_tries = 0;
    snprintf(why, sizeof why, "the engine did not start: %s", how);
    start_failed(s, why);
}

static void after_death(struct supervised *s, enum provider_engine_end end, const char *how)
{
    char why[128];
    if (supervised_now_ns(s) - s->since_ns > SUPERVISED_STEADY_S * NS_PER_S)
        s->failures = 0;
    enter_state(s, ENGINE_RESTING);
    snprintf(why, sizeof why,
             end == ENGINE_END_SILENT ? "the engine answered no more" : "the engine died: %s", how);
    note_failure(s, why);
    log_warn("provider", "%s: %s; it is started anew in %u s", s->base.model_id, s->why, retry_after_s(s));
}

/* The process is gone, by its own will or ours. */
static void on_ended(void *ud, int code)
{
    struct supervised *s = ud;
    enum engine_state was = s->state;
    enum provider_engine_end end = was == ENGINE_STOPPING   ? s->end
                                   : was == ENGINE_STARTING ? ENGINE_END_FAILED
                                                            : ENGINE_END_DIED;
    char how[64];
    describe_end(code, how, sizeof how);
    net_process_free(s->process);
    s->process = NULL;
    forget_health(s);
    engine_files_forget(&s->files);
    if (s->ran && s->peak)
        engine_need_remember(&s->files, s->command, s->peak);
    s->taken = (struct process_memory){0};
    s->stats.ends[end]++;
    if (was == ENGINE_STARTING) {
        after_failed_start(s, how);
    } else if (!s->leaving && (end == ENGINE_END_DIED || end == ENGINE_END_SILENT)) {
        after_death(s, end, how);
    } else {
        enter_state(s, ENGINE_STOPPED);
        log_info("provider", "%s has stopped", s->base.model_id);
    }
    supervised_drive(s);
}

static void stop_engine(struct supervised *s, enum provider_engine_end end)
{
    forget_health(s);
    s->end = end;
    enter_state(s, ENGINE_STOPPING);
    net_process_stop(s->process, SUPERVISED_STOP_GRACE_MS);
}

/* ---- Memory */

static void see_need(struct supervised *s)
{
    s->guessed = false;
    s->need = s->params.memory_bytes;
    if (!s->need)
        s->need = engine_need_recall(&s->files, s->command);
    if (s->need)
        return;
    s->need = engine_need_guess(s->command);
    s->guessed = true;
}

static struct supervised *of_member(const struct room_member *member)
{
    return (struct supervised *)(uintptr_t)((const char *)member - offsetof(struct supervised, member));
}

static void member_view(const struct room_member *member, struct room_view *out)
{
    const struct supervised *s = of_member(member);
    bool runs = s->state == ENGINE_STARTING || s->state == ENGINE_RUNNING;
    bool measured = s->guessed ? s->ran && s->peak : s->peak > s->need;
    *out = (struct room_view){.part = ROOM_AWAY,
                              .since_ns = s->wants_room ? s->wants_room_ns : s->idle_ns,
                              .need = measured && !s->params.memory_bytes ? s->peak : s->need,
                              .stated = s->params.memory_bytes != 0,
                              .taken = s->taken};
    if (s->state == ENGINE_STOPPING)
        out->part = ROOM_LEAVING;
    else if (runs)
        out->part = s->running || s->waiting ? ROOM_BUSY : ROOM_IDLE;
    else if (s->wants_room)
        out->part = ROOM_WAITS;
}

static void member_leave(struct room_member *member)
{
    struct supervised *s = of_member(member);
    log_info("provider", "%s is stopped: its memory is needed", s->base.model_id);
    s->failures = 0;
    stop_engine(s, ENGINE_END_MEMORY);
}

static void member_wake(struct room_member *member)
{
    supervised_drive(of_member(member));
}

bool provider_supervised_release(struct provider *provider)
{
    struct supervised *s = (struct supervised *)provider;
    struct room_view view;
    member_view(&s->member, &view);
    if (view.part != ROOM_IDLE)
        return false;
    member_leave(&s->member);
    return true;
}

static void on_seen(void *ud, const struct process_memory *memory)
{
    struct supervised *s = ud;
    s->look = NULL;
    if (memory && s->process) {
        s->taken = *memory;
        s->peak = memory->resident > s->peak ? memory->resident : s->peak;
        tell_room(s);
    }
    if (!s->process)
        supervised_drive(s); /* who waited for the look's end */
}

/* Every interval; sooner when there is a reason, but not twice within a second. */
static void look(struct supervised *s, uint64_t interval_s)
{
    struct engine_look_sink sink = {on_seen, s};
    struct file_stamp log;
    uint64_t now = supervised_now_ns(s);
    file_stamp(s->files.log, &log);
    if (s->look_soon || log.bytes > SUPERVISED_LOG_BYTES_MAX)
        interval_s = 1;
    if (s->look || now - s->look_ns < interval_s * NS_PER_S)
        return;
    s->look_ns = now;
    s->look_soon = false;
    s->look = engine_look_start(s->params.loop, &s->files, net_process_group(s->process), &sink);
}

/* There will be no room soon: those who wait are told, with the figures. */
static void has_no_room(struct supervised *s)
{
    struct chat_fault fault;
    char figures[256];
    room_say(&s->figures, figures, sizeof figures);
    chat_fault_set(&fault, 503, "model_unavailable", "model",
                   "%s: there is not enough memory to start it: %s", s->base.model_id, figures);
    fault.retry_after_s = SUPERVISED_ROOM_RETRY_S;
    log_warn("provider", "%s", fault.message);
    supervised_queue_refuse(s, &fault);
}

static void start_if_room(struct supervised *s)
{
    enum room_answer answer = ROOM_YES;
    if (s->look)
        return; /* S4 */
    see_need(s);
    if (s->params.room)
        answer = room_ask(s->params.room, &s->member, s->waiting > 0, &s->figures);
    if (answer == ROOM_YES) {
        start_engine(s);
        return;
    }
    if (answer == ROOM_LATER && s->waiting) {
        if (!s->wants_room) {
            char figures[256];
            room_say(&s->figures, figures, sizeof figures);
            log_info("provider", "%s waits for memory: %s", s->base.model_id, figures);
            s->wants_room_ns = supervised_now_ns(s);
        }
        s->wants_room = true;
        return;
    }
    s->wants_room = false;
    if (s->state == ENGINE_RESTING)
        enter_state(s, ENGINE_STOPPED); /* it is started when it is asked for */
    has_no_room(s);
}

/* ---- What a turn of the timer does */

static void tick_running(struct supervised *s)
{
    uint64_t now = supervised_now_ns(s);
    supervised_queue_begin(s);
    if (s->state != ENGINE_RUNNING)
        return;
    look(s, SUPERVISED_MEASURE_S);
    if (s->running || s->waiting)
        return;
    if (s->params.ttl_s && now - s->idle_ns >= s->params.ttl_s * NS_PER_S) {
        log_info("provider", "%s is stopped: nobody has asked it for %u s", s->base.model_id,
                 s->params.ttl_s);
        s->failures = 0;
        stop_engine(s, ENGINE_END_IDLE);
    } else if (now - s->health_ns >= SUPERVISED_HEALTH_S * NS_PER_S) {
        ask_health(s);
    }
}

static void tick_starting(struct supervised *s)
{
    if (supervised_now_ns(s) - s->since_ns <= supervised_start_timeout_ns(s)) {
        ask_health(s);
        look(s, 1);
        return;
    }
    start_failed(s, "the engine did not become ready in time");
    stop_engine(s, ENGINE_END_FAILED);
}

/* The station stops: nobody waits any more, and when there is no process it is over. */
static void tick_leaving(struct supervised *s)
{
    struct chat_fault fault;
    supervised_stopping_fault(&fault);
    supervised_queue_refuse(s, &fault);
    if (!s->process && !s->look)
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
        supervised_queue_wait(s);
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
        if (s->waiting == 0) {
            s->wants_room = false;
            rest_timer(s);
        } else if (supervised_now_ns(s) >= s->retry_ns) {
            start_if_room(s);
        }
        break;
    case ENGINE_RESTING:
        if (supervised_now_ns(s) >= s->retry_ns)
            start_if_room(s);
        break;
    }
}

static void supervised_state(const struct provider *provider, struct provider_state *out)
{
    const struct supervised *s = (const struct supervised *)provider;
    provider_state(s->remote, out); /* speeds, and the breaker's state */
    if (s->state != ENGINE_RUNNING) {
        bool failed = s->state == ENGINE_STOPPED && supervised_now_ns(s) < s->retry_ns;
        out->usable = !failed && !s->leaving && s->waiting < SUPERVISED_WAITING_MAX;
        out->why = CHAT_CAUSE_OURS;
        out->usable_at_ns = failed ? s->retry_ns : 0;
    }
    out->running = s->running + s->waiting;
    out->waiting = s->waiting;
    out->starting = s->state != ENGINE_RUNNING;
}

static size_t supervised_count(struct provider *provider, const struct chat_request *request, bool *exact)
{
    return provider_count_tokens(((struct supervised *)provider)->remote, request, exact);
}

static void supervised_stats(const struct provider *provider, struct provider_engine_stats *out)
{
    const struct supervised *s = (const struct supervised *)provider;
    struct room_view view;
    member_view(&s->member, &view);
    *out = s->stats;
    out->running = s->state == ENGINE_RUNNING;
    out->waiting = s->waiting;
    out->waits_for_memory = s->wants_room;
    out->memory = s->taken.resident;
    out->memory_need = view.need;
}

static void supervised_stop(struct provider *provider, void (*stopped)(void *ud), void *ud)
{
    struct supervised *s = (struct supervised *)provider;
    s->leaving = true;
    s->stopped = stopped;
    s->stopped_ud = ud;
    if (s->process && s->state != ENGINE_STOPPING)
        stop_engine(s, ENGINE_END_STATION);
    supervised_drive(s);
}

static void supervised_halt(struct provider *provider, const struct chat_fault *fault)
{
    struct supervised *s = (struct supervised *)provider;
    if (s->leaving)
        return;
    supervised_queue_refuse(s, fault);
    s->failures = 0;
    if (s->state == ENGINE_RESTING)
        enter_state(s, ENGINE_STOPPED);
    if (s->state != ENGINE_STARTING && s->state != ENGINE_RUNNING)
        return;
    log_warn("provider", "%s is stopped: %s", s->base.model_id, fault->message);
    stop_engine(s, ENGINE_END_HALT);
}

static void supervised_free(struct provider *provider)
{
    struct supervised *s = (struct supervised *)provider;
    if (s->params.room)
        room_exit(s->params.room, &s->member);
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
        .engine_stats = supervised_stats,
        .count = supervised_count,
        .stop = supervised_stop,
        .halt = supervised_halt,
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
    see_need(s);
    s->member = (struct room_member){.view = member_view, .leave = member_leave, .wake = member_wake};
    if (params->room)
        room_enter(params->room, &s->member);
    *out = &s->base;
    return PH_OK;
}
