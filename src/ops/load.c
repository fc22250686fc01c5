/* A run: who sends the next request when.
 *
 * A client carries one request at a time. In a closed loop it sends the next one when the last has ended; as
 * an agent it thinks in between and keeps a conversation. In an open loop and in a replay the schedule sends,
 * with whichever client is free; arrivals that find none wait in their order, and their latency runs from
 * when they were due. All of it is one loop on the caller's thread:
 *
 *   warming    `warmup` requests from a few clients, kept apart
 *   measuring  until the requests are issued or the time is over
 *   draining   what is in flight ends
 *
 * L1 Every request that was sent leaves exactly one sample.
 * L2 What is random comes from the seed alone: the schedule from one generator, each agent from its own, so
 *    that no answer's speed changes who asks what. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "base/mem.h"
#include "base/process.h"
#include "ops/load_int.h"

#define WARMING_CLIENTS_MAX 8
#define PAUSE_MS 100 /* of a client that was turned away */
#define TICK_MS 500
#define WINDOW_TICKS 2
#define WINDOWS_MAX 16
#define SAMPLES_MAX ((size_t)8 << 20)
#define CHUNKS_MAX ((size_t)128 << 20)
#define HISTORY_BYTES_MAX ((size_t)4 << 20)
#define NEVER_NS 1e18              /* decades: a log with a wrong date in it */
#define GOLDEN 0x9E3779B97F4A7C15u /* spreads seeds */

const char *const load_mode_names[] = {"closed", "open", "replay", "agents", NULL};

enum phase { WARMING, MEASURING, OVER };

struct runner;
struct client {
    struct runner *runner;
    struct load_call call;
    struct net_timer *timer; /* CLOSED, AGENTS */
    struct client *next_idle;
    /* AGENTS */
    struct rng rng;
    struct buf history; /* messages without the closing bracket */
    size_t turn;
    uint64_t due_ns; /* when it has thought */
};

struct runner {
    const struct load_params *params;
    struct load_run *run;
    struct load_wire wire;
    struct net_loop *loop;
    struct client *clients;
    size_t client_count, active;
    struct client *idle; /* OPEN, REPLAY */
    struct net_timer *schedule, *tick;
    struct rng rng;
    enum phase phase;
    size_t issued;         /* in this phase */
    uint64_t prompt_index; /* of all phases */
    uint64_t measure_ns;   /* when measuring began */
    double next_s;         /* OPEN: the next arrival, since then */
    struct buf text;       /* of a prompt */
    enum ph_status status;
    struct ph_err *err;
    /* What is seen while it goes. */
    size_t done, failed, ticks;
    uint64_t window_pieces;
    double window_ttft_ms;
    size_t window_ttfts;
    struct load_level windows[WINDOWS_MAX];
    size_t window_count;
    struct load_live live;
};

static uint64_t now_ns(const struct runner *r)
{
    return load_now_ns(&r->wire);
}

static bool is_scheduled(const struct runner *r)
{
    return r->params->mode == LOAD_OPEN || r->params->mode == LOAD_REPLAY;
}

/* ---- The end */

static void stop(struct runner *r)
{
    if (r->phase == OVER)
        return;
    r->phase = OVER;
    for (size_t i = 0; r->clients && i < r->client_count; i++)
        net_timer_close(r->clients[i].timer);
    net_timer_close(r->schedule);
    net_timer_close(r->tick);
    if (r->wire.client) {
        struct http_client_stats stats;
        http_client_stats(r->wire.client, &stats);
        r->run->connections = stats.connects_total;
        http_client_close(r->wire.client);
    }
    net_loop_stop(r->loop);
}

static void record(struct runner *r, struct load_call *call);

/* Whatever is in flight is given up. */
static void cut_short(struct runner *r)
{
    for (size_t i = 0; i < r->client_count && r->phase != OVER; i++)
        if (r->clients[i].call.http) {
            load_call_cancel(&r->clients[i].call);
            record(r, &r->clients[i].call);
        }
    stop(r);
}

static void fail(struct runner *r, enum ph_status status)
{
    if (r->status == PH_OK)
        r->status = status;
    cut_short(r);
}

static void on_signal(void *ud, int signal_number)
{
    struct runner *r = ud;
    (void)signal_number;
    if (r->phase == OVER)
        return;
    r->run->was_interrupted = true;
    cut_short(r);
}

/* ---- Samples */

static bool grow(void **items, size_t *room, size_t wanted, size_t most, size_t item)
{
    size_t next = *room ? *room * 2 : 1024;
    while (next < wanted)
        next *= 2;
    if (wanted <= *room)
        return true;
    void *grown = wanted <= most ? mem_realloc(*items, next, item) : NULL;
    if (!grown)
        return false;
    *items = grown;
    *room = next;
    return true;
}

static void record(struct runner *r, struct load_call *call)
{
    struct load_run *run = r->run;
    struct load_sample *sample = &call->sample;
    void *samples = run->samples, *chunks = run->chunks_ns;
    bool fits = grow(&samples, &run->room, run->count + 1, SAMPLES_MAX, sizeof *run->samples);
    run->samples = samples;
    fits = fits && grow(&chunks, &run->chunk_room, run->chunk_count + sample->chunk_count + 1, CHUNKS_MAX,
                        sizeof *run->chunks_ns);
    run->chunks_ns = chunks;
    if (!fits) {
        if (r->status == PH_OK)
            r->status = ph_fail(
                r->err, PH_ERR_NOMEM,
                "no memory for the times of more than %zu requests: measure for a shorter time", run->count);
        return;
    }
    sample->chunk_first = run->chunk_count;
    if (sample->chunk_count)
        memcpy(run->chunks_ns + run->chunk_count, call->times.data,
               sample->chunk_count * sizeof *run->chunks_ns);
    run->chunk_count += sample->chunk_count;
    run->samples[run->count++] = *sample;
    if (call->words[0] && !run->words[sample->error][0])
        memcpy(run->words[sample->error], call->words, sizeof call->words);
    r->done++;
    r->failed += sample->error != LOAD_OK && sample->error != LOAD_UNFINISHED;
    if (sample->chunk_count) {
        r->window_ttft_ms += (double)(run->chunks_ns[sample->chunk_first] - sample->intended_ns) * 1e-6;
        r->window_ttfts++;
    }
}

/* ---- What is asked */

static const struct load_prompt *next_prompt(struct runner *r, uint64_t *index)
{
    const struct load_prompts *prompts = &r->params->prompts;
    *index = r->prompt_index++;
    return prompts->count ? &prompts->items[*index % prompts->count] : NULL;
}

static void put_words(struct runner *r, uint64_t index, size_t tokens)
{
    buf_clear(&r->text);
    load_prompt_words(&r->params->prompts, r->params->seed, index, tokens, &r->text);
}

static void write_body(struct runner *r, struct client *c, const struct load_prompt *prompt, uint64_t index)
{
    const struct load_params *p = r->params;
    struct load_body body = {.max_tokens = prompt && prompt->max_tokens ? prompt->max_tokens : p->max_tokens,
                             .whole = p->whole,
                             .ignore_end = p->ignore_end};
    if (prompt && prompt->text) {
        body.messages = prompt->messages;
        body.text = prompt->text;
        body.text_len = strlen(prompt->text);
    } else {
        put_words(r, index, prompt && prompt->tokens ? prompt->tokens : p->prompts.tokens);
        body.text = r->text.data ? r->text.data : "";
        body.text_len = r->text.len;
    }
    buf_clear(&c->call.body);
    load_put_body(&p->target, &body, &c->call.body);
}

static void put_turn(struct buf *history, const char *role, const char *text, size_t len)
{
    buf_puts(history, history->len ? ",{\"role\":\"" : "[{\"role\":\"");
    buf_puts(history, role);
    buf_puts(history, "\",\"content\":");
    json_write_string(history, text, len);
    buf_putc(history, '}');
}

static void forget_turns(struct client *c)
{
    buf_release(&c->history);
    buf_init(&c->history, HISTORY_BYTES_MAX);
    c->turn = 0;
}

/* The conversation so far and one more question. */
static void write_turn(struct runner *r, struct client *c)
{
    uint64_t index;
    const struct load_prompt *prompt = next_prompt(r, &index);
    const struct load_params *p = r->params;
    if (!prompt || !prompt->text)
        put_words(r, index, p->prompts.tokens);
    const char *text = prompt && prompt->text ? prompt->text : r->text.data ? r->text.data : "";
    put_turn(&c->history, "user", text, strlen(text));
    if (buf_status(&c->history) != PH_OK) { /* too long: a new conversation begins */
        forget_turns(c);
        put_turn(&c->history, "user", text, strlen(text));
    }
    size_t len = c->history.len;
    buf_putc(&c->history, ']');
    struct load_body body = {.messages = c->history.data ? c->history.data : "[]",
                             .text = text,
                             .text_len = strlen(text),
                             .max_tokens = p->max_tokens,
                             .whole = p->whole,
                             .ignore_end = p->ignore_end};
    buf_clear(&c->call.body);
    load_put_body(&p->target, &body, &c->call.body);
    if (c->history.len > len) { /* the bracket goes: the conversation goes on */
        c->history.len = len;
        c->history.data[len] = 0;
    }
}

static void send_call(struct runner *r, struct client *c, uint64_t intended_ns)
{
    c->call.sample.intended_ns = intended_ns;
    c->call.sample.is_warmup = r->phase == WARMING;
    r->active++;
    r->issued++;
    enum ph_status status = load_call_send(&c->call, r->err);
    if (status != PH_OK) {
        r->active--;
        fail(r, status);
    }
}

static void send_prompt(struct runner *r, struct client *c, uint64_t intended_ns,
                        const struct load_prompt *prompt, uint64_t index)
{
    write_body(r, c, prompt, index);
    send_call(r, c, intended_ns);
}

static void send_next(struct runner *r, struct client *c)
{
    uint64_t index;
    if (r->params->mode == LOAD_AGENTS && r->phase == MEASURING) {
        write_turn(r, c);
        send_call(r, c, c->due_ns);
        return;
    }
    const struct load_prompt *prompt = next_prompt(r, &index);
    send_prompt(r, c, now_ns(r), prompt, index);
}

/* ---- When */

/* May one that is due at `at_ns` still be sent? */
static bool is_issuing(const struct runner *r, uint64_t at_ns)
{
    const struct load_params *p = r->params;
    if (r->phase == WARMING)
        return r->issued < p->warmup;
    if (r->phase == OVER || (p->requests && r->issued >= p->requests))
        return false;
    return p->duration_s <= 0 || (double)(at_ns - r->measure_ns) * 1e-9 < p->duration_s;
}

/* The next arrival of the schedule, since the run began. false: there is none. */
static bool next_arrival(const struct runner *r, uint64_t *at_ns)
{
    const struct load_params *p = r->params;
    if (p->mode == LOAD_OPEN) {
        *at_ns = r->measure_ns + (uint64_t)(r->next_s * 1e9);
    } else {
        if (r->issued >= p->replay.count)
            return false;
        double after_ns = (double)p->replay.items[r->issued].at_ns / p->speed;
        *at_ns = r->measure_ns + (uint64_t)(after_ns < NEVER_NS ? after_ns : NEVER_NS);
    }
    return is_issuing(r, *at_ns);
}

static void end_if_done(struct runner *r);

static void send_due(void *ud)
{
    struct runner *r = ud;
    uint64_t at_ns, index = 0;
    while (r->phase == MEASURING && next_arrival(r, &at_ns)) {
        uint64_t now = now_ns(r);
        if (at_ns > now) {
            net_timer_start(r->schedule, (at_ns - now + 999999) / 1000000, 0);
            return;
        }
        struct client *c = r->idle;
        if (!c)
            return; /* the next answer's end comes here again */
        r->idle = c->next_idle;
        const struct load_prompt *prompt;
        if (r->params->mode == LOAD_REPLAY) {
            prompt = &r->params->replay.items[r->issued].prompt;
            index = r->prompt_index++;
        } else {
            prompt = next_prompt(r, &index);
            r->next_s += load_gap_s(r->params->rate_per_s, rng_double(&r->rng));
        }
        send_prompt(r, c, at_ns, prompt, index);
    }
    end_if_done(r);
}

/* Its next question, after some time of thinking and `pause_ms`. */
static void send_later(struct runner *r, struct client *c, uint64_t pause_ms)
{
    double mean_s = r->params->mode == LOAD_AGENTS && r->phase == MEASURING ? r->params->think_s : 0;
    double think_s = mean_s > 0 ? load_gap_s(1 / mean_s, rng_double(&c->rng)) : 0;
    uint64_t wait_ns = (uint64_t)(think_s * 1e9) + pause_ms * 1000000;
    c->due_ns = now_ns(r) + wait_ns;
    if (wait_ns)
        net_timer_start(c->timer, (wait_ns + 999999) / 1000000, 0);
    else
        send_next(r, c);
}

static void begin_measuring(struct runner *r)
{
    r->phase = MEASURING;
    r->issued = 0;
    r->done = r->failed = 0;
    r->measure_ns = now_ns(r);
    for (size_t i = 0; i < r->client_count; i++)
        if (r->clients[i].timer)
            net_timer_stop(r->clients[i].timer); /* one that paused in the warm-up */
    if (is_scheduled(r)) {
        r->idle = NULL;
        for (size_t i = r->client_count; i-- > 0;) {
            r->clients[i].next_idle = r->idle;
            r->idle = &r->clients[i];
        }
        if (r->params->mode == LOAD_OPEN)
            r->next_s = load_gap_s(r->params->rate_per_s, rng_double(&r->rng));
        send_due(r);
        return;
    }
    for (size_t i = 0; i < r->client_count && is_issuing(r, now_ns(r)); i++)
        send_later(r, &r->clients[i], 0);
}

static bool someone_waits(const struct runner *r)
{
    return r->params->mode == LOAD_AGENTS || r->params->mode == LOAD_CLOSED ? is_issuing(r, now_ns(r))
                                                                            : false;
}

static void end_if_done(struct runner *r)
{
    uint64_t at_ns;
    if (r->active || r->phase == OVER)
        return;
    if (r->phase == WARMING) {
        if (!is_issuing(r, 0))
            begin_measuring(r);
    } else if (!(is_scheduled(r) ? next_arrival(r, &at_ns) : someone_waits(r)))
        stop(r);
}

/* A client's turn has come: it was thinking, or paused. */
static void on_turn(void *ud)
{
    struct client *c = ud;
    struct runner *r = c->runner;
    uint64_t now = now_ns(r);
    if (!is_issuing(r, now))
        end_if_done(r);
    else if (c->due_ns > now) /* timers go by a clock of whole milliseconds */
        net_timer_start(c->timer, 1, 0);
    else
        send_next(r, c);
}

static void keep_turn(struct client *c)
{
    const struct load_call *call = &c->call;
    size_t turns = c->runner->params->turns;
    if (call->sample.error == LOAD_OK && ++c->turn < turns) {
        put_turn(&c->history, "assistant", call->answer.data ? call->answer.data : "", call->answer.len);
        return;
    }
    forget_turns(c);
}

static void on_ended(struct load_call *call)
{
    struct client *c = call->ud;
    struct runner *r = c->runner;
    bool is_agent = r->params->mode == LOAD_AGENTS && r->phase == MEASURING;
    enum load_error error = call->sample.error; /* one who was turned away does not knock at once again */
    bool is_away = error == LOAD_REFUSED || error == LOAD_RATE || error == LOAD_SERVER;
    uint64_t pause_ms = is_away ? PAUSE_MS : 0;
    r->active--;
    record(r, call);
    if (r->status != PH_OK) {
        cut_short(r);
        return;
    }
    if (is_agent)
        keep_turn(c);
    if (is_scheduled(r) && r->phase == MEASURING) {
        c->next_idle = r->idle;
        r->idle = c;
        send_due(r);
    } else if (!is_issuing(r, now_ns(r))) {
        end_if_done(r);
    } else {
        send_later(r, c, pause_ms);
    }
}

/* ---- What is seen meanwhile */

static void close_window(struct runner *r)
{
    double seconds = TICK_MS * WINDOW_TICKS * 1e-3;
    const struct load_level *last = r->window_count ? &r->windows[r->window_count - 1] : NULL;
    struct load_level now = {.in_flight = (double)r->active};
    /* While no first token comes at all, the wait for it is longer by the window. */
    now.ttft_ms = r->window_ttfts ? r->window_ttft_ms / (double)r->window_ttfts
                                  : (last && r->active ? last->ttft_ms : 0) + seconds * 1e3;
    r->live.ttft_ms = r->window_ttfts ? now.ttft_ms : NAN;
    r->live.tokens_out_per_s = (double)(r->wire.pieces - r->window_pieces) / seconds;
    r->window_pieces = r->wire.pieces;
    r->window_ttft_ms = 0;
    r->window_ttfts = 0;
    if (r->phase != MEASURING || !is_scheduled(r))
        return;
    if (r->window_count == WINDOWS_MAX)
        memmove(r->windows, r->windows + 1, --r->window_count * sizeof *r->windows);
    r->windows[r->window_count++] = now;
    if (r->params->stop_saturated && load_drowning(r->windows, r->window_count)) {
        r->run->was_saturated = true;
        cut_short(r);
    }
}

static void on_tick(void *ud)
{
    struct runner *r = ud;
    if (++r->ticks % WINDOW_TICKS == 0)
        close_window(r);
    r->live.seconds = (double)(now_ns(r) - r->measure_ns) * 1e-9;
    r->live.is_warming = r->phase == WARMING;
    r->live.done = r->done;
    r->live.failed = r->failed;
    r->live.in_flight = r->active;
    r->live.wanted = r->phase == WARMING              ? r->params->warmup
                     : r->params->requests            ? r->params->requests
                     : r->params->mode == LOAD_REPLAY ? r->params->replay.count
                                                      : 0;
    if (r->params->progress)
        r->params->progress(r->params->ud, &r->live);
    end_if_done(r); /* the time may be over while nobody has a request in flight */
}

/* ---- The beginning */

static enum ph_status open_wire(struct runner *r)
{
    const struct load_params *p = r->params;
    struct load_wire *w = &r->wire;
    double timeout_s = p->timeout_s > 0 ? p->timeout_s : LOAD_DEFAULT_TIMEOUT_S;
    w->target = &p->target;
    w->clock = p->clock;
    w->timeout_ms = (uint32_t)(timeout_s * 1e3 < 1 ? 1 : timeout_s * 1e3);
    load_put_url(&w->url, &p->target,
                 p->target.api == LOAD_COMPLETION ? "/v1/completions" : "/v1/chat/completions");
    w->header_count = load_headers(&p->target, &w->bearer, w->headers);
    w->request = (struct chat_request){.kind = p->target.api == LOAD_COMPLETION ? CHAT_KIND_COMPLETION
                                                                                : CHAT_KIND_CHAT,
                                       .prompt_count = p->target.api == LOAD_COMPLETION,
                                       .choices = 1,
                                       .stream = !p->whole};
    if (buf_status(&w->url) != PH_OK || buf_status(&w->bearer) != PH_OK)
        return ph_fail(r->err, PH_ERR_LIMIT, "the address or the key is too long");
    return http_client_open(
        &w->client,
        &(struct http_client_params){.loop = r->loop,
                                     .clock = p->clock,
                                     .connections_max = r->client_count,
                                     .idle_connections_max = r->client_count,
                                     .ca_file = p->target.ca_file,
                                     .plain_only = strncmp(w->url.data, "http://", 7) == 0,
                                     .user_agent = "pharos-load"},
        r->err);
}

static enum ph_status open_clients(struct runner *r)
{
    bool has_timers = !is_scheduled(r) || r->params->warmup;
    r->clients = mem_calloc(r->client_count, sizeof *r->clients);
    if (!r->clients)
        return ph_fail(r->err, PH_ERR_NOMEM, "no memory for %zu clients", r->client_count);
    for (size_t i = 0; i < r->client_count; i++) {
        struct client *c = &r->clients[i];
        c->runner = r;
        load_call_init(&c->call, &r->wire, on_ended, c);
        c->call.keep_answer = r->params->mode == LOAD_AGENTS;
        buf_init(&c->history, HISTORY_BYTES_MAX);
        rng_init(&c->rng, r->params->seed + GOLDEN * (i + 1));
        if (has_timers && net_timer_open(&c->timer, r->loop, on_turn, c) != PH_OK)
            return ph_fail(r->err, PH_ERR_NOMEM, "no memory for %zu clients", r->client_count);
    }
    return PH_OK;
}

static enum ph_status open_runner(struct runner *r)
{
    const struct load_params *p = r->params;
    uint64_t files = process_allow_files();
    r->client_count = p->concurrency;
    if (files < r->client_count + 64)
        return ph_fail(r->err, PH_ERR_LIMIT,
                       "%zu connections need more open files than the %llu allowed: ulimit -n",
                       r->client_count, (unsigned long long)files);
    enum ph_status status = net_loop_create(&r->loop, r->err);
    if (status == PH_OK)
        status = open_wire(r);
    if (status == PH_OK)
        status = open_clients(r);
    if (status == PH_OK && (net_timer_open(&r->schedule, r->loop, send_due, r) != PH_OK ||
                            net_timer_open(&r->tick, r->loop, on_tick, r) != PH_OK ||
                            net_on_signal(r->loop, on_signal, r) != PH_OK))
        status = ph_fail(r->err, PH_ERR_NOMEM, "no memory for timers");
    return status;
}

static void begin(struct runner *r)
{
    size_t warming = r->client_count < WARMING_CLIENTS_MAX ? r->client_count : WARMING_CLIENTS_MAX;
    net_timer_start(r->tick, TICK_MS, TICK_MS);
    if (!r->params->warmup)
        begin_measuring(r);
    for (size_t i = 0; i < warming && r->phase == WARMING && is_issuing(r, 0); i++)
        send_next(r, &r->clients[i]);
}

static uint64_t cpu_ns(void)
{
    uv_rusage_t used;
    if (uv_getrusage(&used) != 0)
        return 0;
    return (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000u +
           (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000u;
}

static void close_runner(struct runner *r)
{
    for (size_t i = 0; r->clients && i < r->client_count; i++) {
        load_call_release(&r->clients[i].call);
        buf_release(&r->clients[i].history);
    }
    mem_free(r->clients);
    arena_pool_release(&r->wire.pool);
    buf_release(&r->wire.url);
    buf_release(&r->wire.bearer);
    buf_release(&r->text);
}

enum ph_status load_run(const struct load_params *params, struct load_run *run, struct ph_err *err)
{
    struct runner r = {.params = params, .run = run, .err = err, .live = {.ttft_ms = NAN}};
    *run = (struct load_run){.started_unix_ms = clock_unix_ms(params->clock)};
    rng_init(&r.rng, params->seed);
    buf_init(&r.wire.url, LOAD_URL_BYTES_MAX);
    buf_init(&r.wire.bearer, LOAD_BEARER_BYTES_MAX);
    buf_init(&r.text, LOAD_BODY_BYTES_MAX);
    uint64_t cpu_before = cpu_ns();
    r.wire.start_ns = clock_monotonic_ns(params->clock);
    r.status = open_runner(&r);
    if (r.status == PH_OK)
        begin(&r);
    else if (r.loop)
        stop(&r);
    if (r.loop) {
        net_loop_run(r.loop);
        net_loop_free(r.loop);
    }
    run->cpu_ns = cpu_ns() - cpu_before;
    close_runner(&r);
    return r.status;
}

void load_run_release(struct load_run *run)
{
    mem_free(run->samples);
    mem_free(run->chunks_ns);
    *run = (struct load_run){0};
}
