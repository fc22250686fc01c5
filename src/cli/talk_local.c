/* A model in this process, asked through the same provider that serves the station: the same template, the
 * same stops, the same text.
 *
 * The provider wants a loop, so one runs on a thread of its own; the main thread hands over a request, waits
 * on a semaphore, and touches nothing of the reply meanwhile. Ctrl-C arrives on the loop and cancels the
 * call. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "cli/talk_int.h"
#include "engine/engine.h"
#include "provider/provider.h"

#define TALK_ARENA_BYTES_MAX (64u << 20)

struct talk_local {
    struct talk base;
    struct net_loop *loop;
    struct net_wake *ask, *quit;
    uv_thread_t thread;
    uv_sem_t answered;
    struct provider *provider;
    struct provider_call *call; /* loop's thread */
    /* One turn; the main thread's before `ask` and after `answered`, the loop's between. */
    const struct chat_request *request;
    struct buf *reply;
    enum ph_status status;
    struct chat_fault fault;
};

static void finish_turn(struct talk_local *t, enum ph_status status)
{
    t->call = NULL;
    t->status = status;
    uv_sem_post(&t->answered);
}

static void cancel_turn(struct talk_local *t)
{
    provider_cancel(t->call);
    finish_turn(t, PH_ERR_CANCELLED);
}

static bool on_event(void *ud, const struct chat_event *event)
{
    struct talk_local *t = ud;
    if (event->kind == CHAT_EVENT_TEXT) {
        buf_append(t->reply, event->text.text, event->text.len);
        if (!talk_show(event->text.text, event->text.len))
            cancel_turn(t);
    } else if (event->kind == CHAT_EVENT_ERROR) {
        chat_fault_set(&t->fault, event->error.http_status, NULL, NULL, "%s", event->error.message);
        finish_turn(t, PH_ERR_INTERNAL);
    } else if (event->kind == CHAT_EVENT_DONE) {
        finish_turn(t, PH_OK);
    }
    return true;
}

static void on_ask(void *ud)
{
    struct talk_local *t = ud;
    struct provider_sink sink = {on_event, t};
    enum ph_status status = provider_start(t->provider, t->loop, t->request, &sink, &t->call, &t->fault);
    if (status != PH_OK)
        finish_turn(t, status);
}

static void on_signal(void *ud, int signal_number)
{
    static const char hint[] = "\n(Ctrl-D or /exit ends)\n";
    struct talk_local *t = ud;
    if (signal_number != SIGINT)
        _exit(128 + signal_number);
    if (!t->call) {
        talk_show(hint, sizeof hint - 1);
        return;
    }
    cancel_turn(t);
}

static void on_quit(void *ud)
{
    struct talk_local *t = ud;
    net_wake_close(t->ask);
    net_wake_close(t->quit);
    net_loop_stop(t->loop);
}

static void run_loop(void *ud)
{
    struct talk_local *t = ud;
    net_loop_run(t->loop);
}

/* ---- Turns */

static bool fill_messages(struct arena *arena, const struct json *messages, struct chat_request *request,
                          struct chat_fault *fault)
{
    struct json *body = json_new(arena, JSON_OBJECT);
    return json_set(arena, body, "messages", json_copy(arena, messages)) &&
           chat_edge_openai.decode(arena, CHAT_KIND_CHAT, body, request, fault) == PH_OK;
}

static enum ph_status local_reply(struct talk *base, const struct json *messages, struct buf *reply,
                                  struct ph_err *err)
{
    struct talk_local *t = (struct talk_local *)base;
    struct arena arena;
    struct chat_request request;
    arena_init(&arena, TALK_ARENA_BYTES_MAX);
    t->fault = (struct chat_fault){.message = "out of memory"};
    t->status = PH_ERR_ARG;
    if (fill_messages(&arena, messages, &request, &t->fault)) {
        t->request = &request;
        t->reply = reply;
        net_wake_call(t->ask);
        uv_sem_wait(&t->answered);
    }
    arena_release(&arena);
    if (t->status != PH_OK)
        return ph_fail(err, t->status, "%s", t->fault.message);
    return PH_OK;
}

/* ---- Life */

static void local_close(struct talk *base)
{
    struct talk_local *t = (struct talk_local *)base;
    net_wake_call(t->quit);
    uv_thread_join(&t->thread);
    provider_free(t->provider);
    net_loop_free(t->loop);
    uv_sem_destroy(&t->answered);
    mem_free(t);
}

static enum ph_status load(struct talk_local *t, const char *path, struct ph_err *err)
{
    struct engine_params params;
    struct engine *engine;
    engine_params_default(&params);
    params.model_path = path;
    params.sequences_max = 1;
    enum ph_status status = provider_local_create(&t->provider, path, clock_system(), err);
    if (status == PH_OK)
        status = engine_open(&engine, &params, err);
    return status == PH_OK ? provider_local_attach(t->provider, engine, err) : status;
}

static enum ph_status start_loop(struct talk_local *t, struct ph_err *err)
{
    enum ph_status status = net_loop_create(&t->loop, err);
    if (status != PH_OK)
        return status;
    if (net_wake_open(&t->ask, t->loop, on_ask, t) != PH_OK ||
        net_wake_open(&t->quit, t->loop, on_quit, t) != PH_OK ||
        net_on_signal(t->loop, on_signal, t) != PH_OK || uv_sem_init(&t->answered, 0) != 0)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    if (uv_thread_create(&t->thread, run_loop, t) == 0)
        return PH_OK;
    uv_sem_destroy(&t->answered);
    return ph_fail(err, PH_ERR_NOMEM, "the system gives no thread");
}

enum ph_status talk_local_open(struct talk **out, const char *model_path, struct ph_err *err)
{
    static const struct talk_ops ops = {local_reply, local_close};
    struct talk_local *t = mem_calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    t->base.ops = &ops;
    enum ph_status status = load(t, model_path, err);
    if (status == PH_OK)
        status = start_loop(t, err);
    if (status == PH_OK) {
        *out = &t->base;
        return PH_OK;
    }
    net_wake_close(t->ask);
    net_wake_close(t->quit);
    net_loop_free(t->loop);
    provider_free(t->provider);
    mem_free(t);
    return status;
}
