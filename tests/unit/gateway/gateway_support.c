#include "gateway/gateway_support.h"

#include <unistd.h>

#include "base/mem.h"
#include "provider/provider_int.h"
#include "test_support.h"

struct script_counts script_counts;
static char flood_text[SCRIPT_FLOOD_BYTES];

/* ---- Providers by script */

struct script_provider {
    struct provider base;
    const char *steps;
};

struct script_call {
    struct provider_call base;
    const char *step;
    struct provider_sink sink;
    struct net_wake *wake;
};

static void call_end(struct script_call *call)
{
    net_wake_close(call->wake);
    mem_free(call);
}

static void set_text(struct chat_event *event, char step)
{
    static const struct chat_token_logprob fair = {1, {"t", 1}, -0.25}, sure = {1, {"t", 1}, -0.01},
                                           unsure = {1, {"t", 1}, -3};
    static const struct {
        char step;
        const char *text;
        const struct chat_token_logprob *logprob;
    } texts[] = {{'a', "a", &fair},
                 {'b', "b", &fair},
                 {'c', "c ", &fair},
                 {'y', "sure", &sure},
                 {'n', "unsure", &unsure}};
    event->kind = CHAT_EVENT_TEXT;
    event->text = (struct chat_text){flood_text, sizeof flood_text};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].step == step) {
            event->text = (struct chat_text){texts[i].text, strlen(texts[i].text)};
            event->logprobs = texts[i].logprob;
            event->logprob_count = 1;
        }
}

static struct chat_event failure(char step, struct chat_fault *fault)
{
    static const struct {
        char step;
        int status;
        enum chat_cause cause;
    } failures[] = {{'!', 502, CHAT_CAUSE_CUT},
                    {'M', 429, CHAT_CAUSE_RATE},
                    {'E', 401, CHAT_CAUSE_KEY},
                    {'L', 400, CHAT_CAUSE_CONTEXT},
                    {'X', 400, CHAT_CAUSE_REQUEST}};
    size_t i = 0;
    while (failures[i].step != step)
        i++;
    chat_fault_set(fault, failures[i].status, step == 'M' ? "rate_limit_exceeded" : NULL, NULL, "scripted %s",
                   chat_cause_name(failures[i].cause));
    fault->retry_after_s = step == 'M' ? 3 : 0;
    fault->cause = failures[i].cause;
    return chat_fault_event(fault, PH_ERR_IO);
}

static struct chat_event event_of(char step, struct chat_fault *fault)
{
    static const char finishes[] = "sltf"; /* in the order of enum chat_finish */
    struct chat_event event = {.kind = CHAT_EVENT_FINISH, .tokens = 1};
    const char *finish = strchr(finishes, step);
    if (finish)
        event.finish = (enum chat_finish)(CHAT_FINISH_STOP + (finish - finishes));
    else if (strchr("!MELX", step))
        return failure(step, fault);
    else
        switch (step) {
        case 'r':
            event.kind = CHAT_EVENT_ROLE;
            break;
        case 'T':
            event.kind = CHAT_EVENT_TOOL_CALL;
            event.tool_call.id = "call_7";
            event.tool_call.name = "look";
            event.tool_call.arguments = (struct chat_text){"{}", 2};
            break;
        case 'u':
            event.kind = CHAT_EVENT_USAGE;
            event.usage.prompt_tokens = 11;
            event.usage.completion_tokens = 7;
            break;
        case '.':
            event.kind = CHAT_EVENT_DONE;
            break;
        default:
            set_text(&event, step);
        }
    return event;
}

static void run_script(void *ud)
{
    struct script_call *call = ud;
    while (*call->step != 'w') {
        struct chat_fault fault;
        char step = *call->step++;
        struct chat_event event = event_of(step, &fault);
        bool more = call->sink.event(call->sink.ud, &event);
        if (strchr(".!MELX", step)) {
            call_end(call);
            return;
        }
        if (!more) {
            atomic_fetch_add(&script_counts.paused, 1);
            return;
        }
    }
}

static enum ph_status script_start(struct provider *provider, struct net_loop *loop,
                                   const struct chat_request *request, const struct provider_sink *sink,
                                   struct provider_call **out, struct chat_fault *fault)
{
    (void)request, (void)fault;
    struct script_call *call = mem_calloc(1, sizeof *call);
    assert_non_null(call);
    call->base.ops = provider->ops;
    call->step = ((struct script_provider *)provider)->steps;
    call->sink = *sink;
    assert_int_equal(net_wake_open(&call->wake, loop, run_script, call), PH_OK);
    net_wake_call(call->wake);
    atomic_fetch_add(&script_counts.started, 1);
    *out = &call->base;
    return PH_OK;
}

static void script_resume(struct provider_call *base)
{
    net_wake_call(((struct script_call *)base)->wake);
}

static void script_hang_up(struct provider_call *base, uint32_t drain_ms)
{
    (void)drain_ms;
    atomic_fetch_add(&script_counts.cancelled, 1);
    ((struct script_call *)base)->step = ".";
    script_resume(base);
}

static void script_cancel(struct provider_call *base)
{
    atomic_fetch_add(&script_counts.cancelled, 1);
    call_end((struct script_call *)base);
}

static struct engine *script_engine(const struct provider *provider)
{
    (void)provider;
    return NULL;
}

static void script_free(struct provider *provider)
{
    mem_free(provider);
}

static struct provider *script_provider(const struct script *script)
{
    static const struct provider_ops ops = {.kind = "script",
                                            .start = script_start,
                                            .resume = script_resume,
                                            .cancel = script_cancel,
                                            .hang_up = script_hang_up,
                                            .engine = script_engine,
                                            .free = script_free};
    struct script_provider *provider = mem_calloc(1, sizeof *provider);
    assert_non_null(provider);
    assert_int_equal(provider_init(&provider->base, &ops, script->id), 0);
    provider->base.ready = true;
    provider->steps = script->steps;
    return &provider->base;
}

/* ---- The gateway */

static void on_stopped(void *ud)
{
    net_loop_stop(((struct gateway_fixture *)ud)->loop);
}

static void on_stop(void *ud)
{
    struct gateway_fixture *f = ud;
    net_wake_close(f->stop);
    gateway_stop(f->gateway, on_stopped, f);
}

static void run_loop(void *ud)
{
    net_loop_run(((struct gateway_fixture *)ud)->loop);
}

static void make_keys(struct gateway_fixture *f, const struct gateway_fixture_params *params)
{
    struct ph_err err;
    for (size_t i = 0; i < params->key_count; i++) {
        struct key made,
            spec = {.name = "test", .budget_usd_month = -1, .concurrency = params->key_concurrency};
        if (i + 1 == params->key_count && params->last_key_scope) {
            snprintf(spec.scopes[0], sizeof spec.scopes[0], "%s", params->last_key_scope);
            spec.scope_count = 1;
        }
        assert_int_equal(keys_create(f->dir.path, clock_system(), &spec, &made, f->key_texts[i], &err),
                         PH_OK);
    }
}

static void open_gateway(struct gateway_fixture *f, const struct gateway_fixture_params *params,
                         const struct clock_source *clock)
{
    struct gateway_model models[SCRIPTS_MAX];
    struct ph_err err;
    for (size_t i = 0; i < params->script_count; i++) {
        f->providers[i] = script_provider(&params->scripts[i]);
        models[i] = (struct gateway_model){
            .provider = f->providers[i], .price = params->price, .abilities = params->scripts[i].abilities};
    }
    f->provider_count = params->script_count;
    struct gateway_params gateway = {.host = "127.0.0.1",
                                     .models = models,
                                     .model_count = params->script_count,
                                     .routes = params->routes,
                                     .route_count = params->route_count,
                                     .cache = params->cache,
                                     .ledger = f->ledger,
                                     .keys = f->keys,
                                     .data = f->ledger_dir.path,
                                     .request_log_fd = -1,
                                     .clock = clock,
                                     .seed = 1,
                                     .version = "test"};
    http_limits_default(&gateway.limits);
    gateway.limits.stop_grace_ms = params->stop_grace_ms ? params->stop_grace_ms : 200;
    if (params->write_stall_ms)
        gateway.limits.write_stall_deadline_ms = params->write_stall_ms;
    assert_int_equal(net_loop_create(&f->loop, &err), PH_OK);
    assert_int_equal(net_wake_open(&f->stop, f->loop, on_stop, f), PH_OK);
    if (gateway_open(&f->gateway, f->loop, &gateway, &err) != PH_OK)
        fail_msg("%s", err.message);
    f->port = gateway_port(f->gateway);
}

void gateway_fixture_open(struct gateway_fixture *f, const struct gateway_fixture_params *params)
{
    const struct clock_source *clock = params->clock ? params->clock : clock_system();
    struct ph_err err;
    *f = (struct gateway_fixture){.port = 0};
    memset(flood_text, 'x', sizeof flood_text);
    atomic_store(&script_counts.started, 0);
    atomic_store(&script_counts.cancelled, 0);
    atomic_store(&script_counts.paused, 0);
    test_dir_make(&f->dir);
    test_dir_make(&f->ledger_dir);
    make_keys(f, params);
    assert_int_equal(keys_open(&f->keys, f->dir.path, clock_system(), &err), PH_OK);
    struct ledger_params ledger = {.dir = f->ledger_dir.path, .clock = clock};
    if (ledger_open(&f->ledger, &ledger, NULL, &err) != PH_OK)
        fail_msg("%s", err.message);
    open_gateway(f, params, clock);
    assert_int_equal(uv_thread_create(&f->thread, run_loop, f), 0);
}

void gateway_fixture_close(struct gateway_fixture *f)
{
    net_wake_call(f->stop);
    uv_thread_join(&f->thread);
    gateway_free(f->gateway);
    for (size_t i = 0; i < f->provider_count; i++)
        provider_free(f->providers[i]);
    net_loop_free(f->loop);
    ledger_close(f->ledger);
    keys_close(f->keys);
    test_dir_remove(&f->ledger_dir);
    test_dir_remove(&f->dir);
}

/* ---- Asking */

int gateway_ask(const struct gateway_fixture *f, const struct question *q)
{
    char body[512], request[1024];
    snprintf(body, sizeof body,
             "{\"model\":\"%s\",\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]%s}",
             q->model, q->stream ? "true" : "false", q->more ? q->more : "");
    snprintf(request, sizeof request,
             "POST %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n%scontent-length: %zu\r\n\r\n%s",
             q->path ? q->path : "/v1/chat/completions", q->headers ? q->headers : "", strlen(body), body);
    int fd = test_connect(f->port);
    assert_true(fd >= 0 && test_send_text(fd, request));
    return fd;
}

int gateway_read(const struct gateway_fixture *f, const struct question *q, char *out, size_t size)
{
    int fd = gateway_ask(f, q), end = 0;
    test_read(fd, out, size, NULL, &end);
    close(fd);
    return end;
}

void gateway_get(const struct gateway_fixture *f, const char *path, char *out, size_t size)
{
    char request[512];
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-api-key: %s\r\n\r\n", path,
             f->key_texts[0]);
    int fd = test_connect(f->port);
    assert_true(fd >= 0 && test_send_text(fd, request));
    test_read(fd, out, size, NULL, NULL);
    close(fd);
}

void expect_text(const char *reply, const char *text, bool there)
{
    if ((strstr(reply, text) != NULL) != there)
        fail_msg("%s \"%s\" in: %.3000s", there ? "no" : "unexpected", text, reply);
}
