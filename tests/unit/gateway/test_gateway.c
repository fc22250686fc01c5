/* The gateway over providers that follow a script: what is sent when an answer fails, floods or stays silent.
 * The loop runs on a thread of its own; the tests talk to it over sockets. */
#include <dirent.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "gateway/gateway_int.h"
#include "net/net_support.h"
#include "provider/provider_int.h"
#include "test_support.h"

/* ---- Providers by script */

struct script_provider {
    struct provider base;
    const struct script_step *steps;
};

enum step_kind {
    STEP_ROLE,
    STEP_TEXT,
    STEP_FLOOD,
    STEP_FINISH,
    STEP_USAGE,
    STEP_DONE,
    STEP_ERROR,    /* 429 */
    STEP_CUT,      /* the connection ended in mid-reply */
    STEP_TOO_LONG, /* context */
    STEP_KEY,      /* 401 */
    STEP_BAD,      /* 400: nobody can do it */
    STEP_SURE,     /* text with log-probabilities near 0 */
    STEP_UNSURE,   /* text with poor ones */
    STEP_WAIT
};

struct script_step {
    enum step_kind kind;
    const char *text;
};

struct script_call {
    struct provider_call base;
    const struct script_step *step;
    struct provider_sink sink;
    struct net_wake *wake;
    size_t flooded;
    bool hung_up;
};

static atomic_size_t cancelled, paused, started;

#define FLOOD_PIECES 2000
static char flood_text[8192];

static void call_end(struct script_call *call)
{
    net_wake_close(call->wake);
    mem_free(call);
}

static bool say(struct script_call *call, const struct chat_event *event)
{
    bool more = call->sink.event(call->sink.ud, event);
    atomic_fetch_add(&paused, !more);
    return more;
}

static struct chat_event failure(struct chat_fault *fault, int status, enum chat_cause cause)
{
    chat_fault_set(fault, status, NULL, NULL, "scripted %s", chat_cause_name(cause));
    fault->cause = cause;
    return chat_fault_event(fault, PH_ERR_IO);
}

static bool take_step(struct script_call *call)
{
    const struct script_step *step = call->step;
    struct chat_event event = {.kind = CHAT_EVENT_TEXT, .tokens = 1};
    struct chat_token_logprob logprob = {1, {"t", 1}, 0};
    struct chat_fault fault;
    switch (step->kind) {
    case STEP_ROLE:
        event.kind = CHAT_EVENT_ROLE;
        break;
    case STEP_TEXT:
        event.text = (struct chat_text){step->text, strlen(step->text)};
        break;
    case STEP_FLOOD:
        event.text = (struct chat_text){flood_text, sizeof flood_text};
        if (++call->flooded < FLOOD_PIECES)
            call->step--; /* once more */
        break;
    case STEP_FINISH:
        event.kind = CHAT_EVENT_FINISH;
        event.finish = CHAT_FINISH_STOP;
        break;
    case STEP_USAGE:
        event.kind = CHAT_EVENT_USAGE;
        break;
    case STEP_DONE:
        event.kind = CHAT_EVENT_DONE;
        break;
    case STEP_ERROR:
        chat_fault_set(&fault, 429, "rate_limit_exceeded", NULL, "%s", step->text);
        fault.retry_after_s = 3;
        event = chat_fault_event(&fault, PH_ERR_BUSY);
        break;
    case STEP_CUT:
        event = failure(&fault, 502, CHAT_CAUSE_CUT);
        break;
    case STEP_TOO_LONG:
        event = failure(&fault, 400, CHAT_CAUSE_CONTEXT);
        break;
    case STEP_KEY:
        event = failure(&fault, 401, CHAT_CAUSE_KEY);
        break;
    case STEP_BAD:
        event = failure(&fault, 400, CHAT_CAUSE_REQUEST);
        break;
    case STEP_SURE:
    case STEP_UNSURE:
        logprob.logprob = step->kind == STEP_SURE ? -0.01 : -3;
        event.text = (struct chat_text){step->text, strlen(step->text)};
        event.logprobs = &logprob;
        event.logprob_count = 1;
        break;
    case STEP_WAIT:
        return false;
    }
    call->step++;
    return say(call, &event);
}

static void run_script(void *ud)
{
    struct script_call *call = ud;
    static const struct chat_event done = {.kind = CHAT_EVENT_DONE};
    if (call->hung_up) {
        call->sink.event(call->sink.ud, &done);
        call_end(call);
        return;
    }
    for (;;) {
        enum step_kind kind = call->step->kind;
        bool last = kind >= STEP_DONE && kind <= STEP_BAD;
        bool more = take_step(call);
        if (last) {
            call_end(call);
            return;
        }
        if (!more)
            return;
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
    atomic_fetch_add(&started, 1);
    *out = &call->base;
    return PH_OK;
}

static void script_resume(struct provider_call *base)
{
    net_wake_call(((struct script_call *)base)->wake);
}

static void script_hang_up(struct provider_call *base, uint32_t drain_ms)
{
    struct script_call *call = (struct script_call *)base;
    (void)drain_ms;
    atomic_fetch_add(&cancelled, 1);
    call->hung_up = true;
    net_wake_call(call->wake);
}

static void script_cancel(struct provider_call *base)
{
    atomic_fetch_add(&cancelled, 1);
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

static const struct script_step ok_steps[] = {{STEP_ROLE, ""},   {STEP_TEXT, "a"}, {STEP_TEXT, "b"},
                                              {STEP_FINISH, ""}, {STEP_USAGE, ""}, {STEP_DONE, ""}};
static const struct script_step breaks_steps[] = {
    {STEP_ROLE, ""}, {STEP_TEXT, "a"}, {STEP_ERROR, "it broke"}};
static const struct script_step fails_steps[] = {{STEP_ERROR, "too many"}};
static const struct script_step floods_steps[] = {
    {STEP_ROLE, ""}, {STEP_FLOOD, ""}, {STEP_FINISH, ""}, {STEP_USAGE, ""}, {STEP_DONE, ""}};
static const struct script_step silent_steps[] = {{STEP_WAIT, ""}};
static const struct script_step hangs_steps[] = {{STEP_ROLE, ""}, {STEP_TEXT, "a"}, {STEP_WAIT, ""}};

static const struct script_step cut_steps[] = {{STEP_ROLE, ""}, {STEP_TEXT, "c "}, {STEP_CUT, ""}};
static const struct script_step long_steps[] = {{STEP_TOO_LONG, ""}};
static const struct script_step key_steps[] = {{STEP_KEY, ""}};
static const struct script_step bad_steps[] = {{STEP_BAD, ""}};
static const struct script_step sure_steps[] = {
    {STEP_ROLE, ""}, {STEP_SURE, "sure"}, {STEP_FINISH, ""}, {STEP_USAGE, ""}, {STEP_DONE, ""}};
static const struct script_step unsure_steps[] = {
    {STEP_ROLE, ""}, {STEP_UNSURE, "unsure"}, {STEP_FINISH, ""}, {STEP_USAGE, ""}, {STEP_DONE, ""}};

static const struct {
    const char *id;
    const struct script_step *steps;
} scripts[] = {{"ok", ok_steps},         {"breaks", breaks_steps}, {"fails", fails_steps},
               {"floods", floods_steps}, {"silent", silent_steps}, {"hangs", hangs_steps},
               {"cut", cut_steps},       {"long", long_steps},     {"key", key_steps},
               {"bad", bad_steps},       {"sure", sure_steps},     {"unsure", unsure_steps}};

enum { OK, BREAKS, FAILS, FLOODS, SILENT, HANGS, CUT, LONG, KEY, BAD, SURE, UNSURE };

#define ROUTE(name_, policy_, members_)                          \
    .name = (name_), .policy = (policy_), .members = (members_), \
    .member_count = sizeof(members_) / sizeof *(members_)

static const struct gateway_member second[] = {{FAILS, 0, 1}, {OK, 0, 1}};
static const struct gateway_member third[] = {{KEY, 0, 1}, {FAILS, 0, 1}, {OK, 0, 1}};
static const struct gateway_member continued[] = {{CUT, 0, 1}, {OK, 0, 1}};
static const struct gateway_member nobody[] = {{FAILS, 0, 1}, {KEY, 0, 1}};
static const struct gateway_member wrong[] = {{BAD, 0, 1}, {OK, 0, 1}};
static const struct gateway_member longer[] = {{LONG, 0, 1}, {SILENT, 0, 1}};
static const struct gateway_member hedged[] = {{SILENT, 0, 1}, {OK, 0, 1}};
static const struct gateway_member trusted[] = {{SURE, 0, 1}, {OK, 1, 1}};
static const struct gateway_member doubted[] = {{UNSURE, 0, 1}, {OK, 1, 1}};
static const struct gateway_member alone[] = {{UNSURE, 0, 1}, {KEY, 1, 1}};
static const struct gateway_member disagreeing[] = {{SURE, 0, 1}, {UNSURE, 0, 1}, {OK, 1, 1}};
static const size_t only_ok[] = {OK};

static const struct gateway_route test_routes[] = {
    {ROUTE("second", GATEWAY_FALLBACK, second)},
    {ROUTE("third", GATEWAY_FALLBACK, third)},
    {ROUTE("continued", GATEWAY_FALLBACK, continued)},
    {ROUTE("nobody", GATEWAY_FALLBACK, nobody)},
    {ROUTE("wrong", GATEWAY_FALLBACK, wrong)},
    {ROUTE("longer", GATEWAY_FALLBACK, longer), .too_long = only_ok, .too_long_count = 1},
    {ROUTE("hedged", GATEWAY_FALLBACK, hedged), .hedge_ms = 30},
    {ROUTE("trusted", GATEWAY_CASCADE, trusted), .escalate_below = 0.6},
    {ROUTE("doubted", GATEWAY_CASCADE, doubted), .escalate_below = 0.6},
    {ROUTE("doubted, nothing better", GATEWAY_CASCADE, alone), .escalate_below = 0.6},
    {ROUTE("disagreeing", GATEWAY_CASCADE, disagreeing), .escalate_below = 0.6, .agree = 2},
};

#define SCRIPT_COUNT (sizeof scripts / sizeof scripts[0])

/* ---- A gateway on a thread */

struct fixture {
    struct net_loop *loop;
    struct gateway *gateway;
    struct provider *providers[SCRIPT_COUNT];
    struct ledger *ledger;
    char dir[64];
    struct net_wake *stop;
    uv_thread_t thread;
    uint16_t port;
    struct clock_source clock;
    atomic_uint_fast64_t ahead_ns; /* the gateway's clock runs ahead by this */
};

static uint64_t fixture_now(void *ud)
{
    struct fixture *f = ud;
    return clock_monotonic_ns(clock_system()) + atomic_load(&f->ahead_ns);
}

static int64_t fixture_unix_ms(void *ud)
{
    (void)ud;
    return 1700000000000;
}

static void on_stopped(void *ud)
{
    struct fixture *f = ud;
    net_loop_stop(f->loop);
}

static void on_stop(void *ud)
{
    struct fixture *f = ud;
    net_wake_close(f->stop);
    gateway_stop(f->gateway, on_stopped, f);
}

static void run_loop(void *ud)
{
    struct fixture *f = ud;
    net_loop_run(f->loop);
}

/* A flat one. */
static void remove_dir(const char *path)
{
    char name[512];
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        snprintf(name, sizeof name, "%s/%.200s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(name);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

static struct fixture *fixture_open_with(uint32_t stall_ms)
{
    static const struct provider_ops ops = {.kind = "script",
                                            .start = script_start,
                                            .resume = script_resume,
                                            .cancel = script_cancel,
                                            .hang_up = script_hang_up,
                                            .engine = script_engine,
                                            .free = script_free};
    struct fixture *f = mem_calloc(1, sizeof *f);
    struct ph_err err;
    assert_non_null(f);
    memset(flood_text, 'x', sizeof flood_text);
    atomic_store(&cancelled, 0);
    atomic_store(&paused, 0);
    atomic_store(&started, 0);
    f->clock = (struct clock_source){fixture_now, fixture_unix_ms, f};
    for (size_t i = 0; i < SCRIPT_COUNT; i++) {
        struct script_provider *provider = mem_calloc(1, sizeof *provider);
        assert_int_equal(provider_init(&provider->base, &ops, scripts[i].id), 0);
        provider->base.ready = true;
        provider->steps = scripts[i].steps;
        f->providers[i] = &provider->base;
    }
    struct gateway_model models[SCRIPT_COUNT];
    for (size_t i = 0; i < SCRIPT_COUNT; i++)
        models[i] = (struct gateway_model){.provider = f->providers[i],
                                           .abilities = GATEWAY_LOGPROBS | (i == OK ? GATEWAY_PREFIX : 0u)};
    snprintf(f->dir, sizeof f->dir, "/tmp/pharos-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    struct ledger_params ledger = {.dir = f->dir, .clock = &f->clock};
    if (ledger_open(&f->ledger, &ledger, NULL, &err) != PH_OK)
        fail_msg("%s", err.message);
    struct gateway_params params = {.host = "127.0.0.1",
                                    .models = models,
                                    .model_count = SCRIPT_COUNT,
                                    .routes = test_routes,
                                    .route_count = sizeof test_routes / sizeof *test_routes,
                                    .ledger = f->ledger,
                                    .data = f->dir,
                                    .request_log_fd = -1,
                                    .clock = &f->clock,
                                    .seed = 1,
                                    .version = "test"};
    http_limits_default(&params.limits);
    params.limits.stop_grace_ms = 200;
    params.limits.write_stall_deadline_ms = stall_ms;
    assert_int_equal(net_loop_create(&f->loop, &err), PH_OK);
    assert_int_equal(net_wake_open(&f->stop, f->loop, on_stop, f), PH_OK);
    if (gateway_open(&f->gateway, f->loop, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    f->port = gateway_port(f->gateway);
    assert_int_equal(uv_thread_create(&f->thread, run_loop, f), 0);
    return f;
}

static struct fixture *fixture_open(void)
{
    return fixture_open_with(HTTP_WRITE_STALL_DEADLINE_MS);
}

static void fixture_close(struct fixture *f)
{
    net_wake_call(f->stop);
    uv_thread_join(&f->thread);
    gateway_free(f->gateway);
    for (size_t i = 0; i < SCRIPT_COUNT; i++)
        provider_free(f->providers[i]);
    net_loop_free(f->loop);
    ledger_close(f->ledger);
    remove_dir(f->dir);
    mem_free(f);
}

static int ask(const struct fixture *f, const char *model, bool stream)
{
    char body[256], request[512];
    snprintf(body, sizeof body,
             "{\"model\":\"%s\",\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", model,
             stream ? "true" : "false");
    snprintf(request, sizeof request,
             "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
             "content-length: %zu\r\n\r\n%s",
             strlen(body), body);
    int fd = test_connect(f->port);
    assert_true(fd >= 0 && test_send_text(fd, request));
    return fd;
}

static void expect_text(const char *reply, const char *text, bool there)
{
    if ((strstr(reply, text) != NULL) != there)
        fail_msg("%s \"%s\" in: %s", there ? "no" : "unexpected", text, reply);
}

/* ---- Tests */

static void answers_whole_and_streamed(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int fd = ask(f, "ok", false), end = 0;
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    assert_int_equal(end, 1);
    expect_text(reply, "HTTP/1.1 200 OK\r\n", true);
    expect_text(reply, "\"content\":\"ab\"", true);
    expect_text(reply, "x-pharos-route: model=ok; provider=script; attempts=1; tier=local; policy=fixed\r\n",
                true);
    expect_text(reply, "x-request-id: ", true);
    fd = ask(f, "ok", true);
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    assert_int_equal(end, 1);
    expect_text(reply, "content-type: text/event-stream\r\n", true);
    expect_text(reply, "data: [DONE]\n\n\r\n0\r\n\r\n", true);
    fixture_close(f);
}

static void a_failure_before_the_first_event_keeps_its_status(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    for (int stream = 0; stream < 2; stream++) {
        int fd = ask(f, "fails", stream), end = 0;
        test_read(fd, reply, sizeof reply, NULL, &end);
        close(fd);
        assert_int_equal(end, 1);
        expect_text(reply, "HTTP/1.1 429 Too Many Requests\r\n", true);
        expect_text(reply, "retry-after: 3\r\n", true);
        expect_text(reply, "\"code\":\"rate_limit_exceeded\"", true);
        expect_text(reply, "\"message\":\"too many\"", true);
    }
    fixture_close(f);
}

static void a_failure_in_mid_stream_breaks_the_connection(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int fd = ask(f, "breaks", true), end = 0;
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    expect_text(reply, "HTTP/1.1 200 OK\r\n", true);
    expect_text(reply, "\"content\":\"a\"", true);
    expect_text(reply, "data: {\"error\":{\"message\":\"it broke\"", true);
    expect_text(reply, "[DONE]", false);
    expect_text(reply, "\r\n0\r\n\r\n", false);
    fd = ask(f, "breaks", false); /* not streamed: nothing was sent yet, so the status tells */
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    expect_text(reply, "HTTP/1.1 429", true);
    expect_text(reply, "\"content\":\"a\"", false);
    fixture_close(f);
}

static void a_client_that_goes_cancels(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int fd = ask(f, "hangs", true);
    test_read(fd, reply, sizeof reply, "\"a\"", NULL);
    close(fd);
    assert_true(test_wait_count(&cancelled, 1));
    fd = ask(f, "silent", false);
    assert_true(test_wait_count(&started, 2));
    close(fd);
    assert_true(test_wait_count(&cancelled, 2));
    fixture_close(f);
}

static void a_slow_client_pauses_its_own_call(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int slow = ask(f, "floods", true), end = 0;
    assert_true(test_wait_count(&paused, 1));
    int fd = ask(f, "ok", false);
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    expect_text(reply, "\"content\":\"ab\"", true);
    size_t total = 0, got;
    while ((got = test_read(slow, reply, sizeof reply, NULL, &end)) > 0 && end == 0)
        total += got;
    total += got;
    close(slow);
    assert_int_equal(end, 1);
    assert_true(total > FLOOD_PIECES * sizeof flood_text);
    expect_text(reply, "data: [DONE]", true);
    fixture_close(f);
}

static void a_client_that_never_reads_is_cut(void **state)
{
    (void)state;
    struct fixture *f = fixture_open_with(100);
    int fd = ask(f, "floods", true);
    assert_true(test_wait_count(&paused, 1));
    assert_true(test_wait_count(&cancelled, 1));
    close(fd);
    fixture_close(f);
}

static void a_silent_stream_gets_comments(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int fd = ask(f, "silent", true);
    assert_true(test_wait_count(&started, 1));
    atomic_store(&f->ahead_ns, (uint64_t)CHAT_KEEPALIVE_MS * 1000000);
    test_read(fd, reply, sizeof reply, ": keep-alive\n\n", NULL);
    expect_text(reply, "HTTP/1.1 200 OK\r\n", true);
    expect_text(reply, ": keep-alive\n\n", true);
    close(fd);
    assert_true(test_wait_count(&cancelled, 1));
    fixture_close(f);
}

static void stopping_cuts_what_does_not_end(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int fd = ask(f, "hangs", true), end = 0;
    test_read(fd, reply, sizeof reply, "\"a\"", NULL);
    fixture_close(f); /* returns: the call was cancelled after the grace time */
    assert_int_equal(atomic_load(&cancelled), 1);
    test_read(fd, reply, sizeof reply, NULL, &end);
    assert_int_not_equal(end, 0);
    close(fd);
}

static void metrics_count_what_happened(void **state)
{
    (void)state;
    static char reply[1 << 18];
    static const char *const expected[] = {
        "gen_ai_server_request_duration_seconds_count{gen_ai_operation_name=\"chat\",gen_ai_provider_name="
        "\"script\","
        "gen_ai_request_model=\"ok\",gen_ai_response_model=\"ok\"} 1\n",
        "gen_ai_response_model=\"fails\",error_type=\"rate_limit\"} 1\n",
        "pharos_stream_aborts_total{side=\"station\"} 1\n",
        "pharos_http_responses_total{status=\"429\"} 1\n",
        "pharos_overhead_seconds_count 3\n",
        "vllm:num_requests_running{model_name=\"ok\"} 0\n",
    };
    static const char *const models[] = {"ok", "fails", "breaks"};
    struct fixture *f = fixture_open();
    for (size_t i = 0; i < 3; i++) {
        int fd = ask(f, models[i], true);
        test_read(fd, reply, sizeof reply, NULL, NULL);
        close(fd);
    }
    int fd = test_connect(f->port);
    assert_true(test_send_text(fd, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    test_read(fd, reply, sizeof reply, NULL, NULL);
    close(fd);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        expect_text(reply, expected[i], true);
    fixture_close(f);
}

static void hosts_and_origins(void **state)
{
    (void)state;
    static const char *const safe[] = {
        "127.0.0.1",  "127.0.0.1:8080", "localhost",        "LOCALHOST:1", "a.localhost:80",
        "[::1]:8080", "[::1]",          "192.168.1.5:8080", "localhost.",  "host.docker.internal:8080"};
    static const char *const unsafe[] = {"",
                                         "evil.example",
                                         "127.0.0.1.evil.example",
                                         "localhost.evil.example",
                                         "1.2.3.4.5",
                                         "1.2.3",
                                         "1.2.3.400",
                                         "internal",
                                         "xlocalhost",
                                         "0x7f.0.0.1",
                                         "[::1",
                                         "evil.example:127.0.0.1",
                                         ":8080",
                                         "nas.local:8080"};
    for (size_t i = 0; i < sizeof safe / sizeof safe[0]; i++)
        if (!origin_host_is_safe(safe[i]))
            fail_msg("refused: %s", safe[i]);
    for (size_t i = 0; i < sizeof unsafe / sizeof unsafe[0]; i++)
        if (origin_host_is_safe(unsafe[i]))
            fail_msg("accepted: %s", unsafe[i]);
    assert_true(origin_is_allowed("http://localhost:3000", "127.0.0.1:8080"));
    assert_true(origin_is_allowed("https://127.0.0.1", "127.0.0.1:8080"));
    assert_true(origin_is_allowed("http://[::1]:3000", "127.0.0.1:8080"));
    assert_true(origin_is_allowed("http://nas:8080", "nas:8080")); /* its own pages */
    assert_true(origin_is_allowed("chrome-extension://abcdef", "127.0.0.1:8080"));
    assert_false(origin_is_allowed("null", "127.0.0.1:8080"));
    assert_false(origin_is_allowed("http://evil.example", "127.0.0.1:8080"));
    assert_false(origin_is_allowed("http://192.168.1.66", "127.0.0.1:8080"));
    assert_false(origin_is_allowed("http://localhost.evil.example", "127.0.0.1:8080"));
    assert_false(origin_is_allowed("http://nas:8081", "nas:8080"));
    assert_false(origin_is_allowed("http://evil.example", NULL));
    assert_true(origin_is_loopback_address("127.0.0.1") && origin_is_loopback_address("::1") &&
                origin_is_loopback_address("localhost"));
    assert_false(origin_is_loopback_address("0.0.0.0") || origin_is_loopback_address("::") ||
                 origin_is_loopback_address("192.168.1.5"));
}

/* ---- Routes */

static void expect_route(const char *route, bool stream, const char *text, bool there)
{
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int fd = ask(f, route, stream), end = 0;
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    expect_text(reply, text, there);
    fixture_close(f);
}

static void a_fallback_is_invisible(void **state)
{
    (void)state;
    static char reply[1 << 16];
    static const struct {
        const char *route, *header;
    } cases[] = {{"second", "attempts=2"}, {"third", "attempts=3"}, {"longer", "attempts=2"}};
    struct fixture *f = fixture_open();
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        int fd = ask(f, cases[i / 2].route, i % 2), end = 0;
        test_read(fd, reply, sizeof reply, NULL, &end);
        close(fd);
        assert_int_equal(end, 1);
        expect_text(reply, "HTTP/1.1 200 OK\r\n", true);
        expect_text(reply, cases[i / 2].header, true);
        expect_text(reply, "model=ok; ", true);
        expect_text(reply, i % 2 ? "\"content\":\"b\"" : "\"content\":\"ab\"", true);
        expect_text(reply, "error", false);
    }
    fixture_close(f);
}

static void a_cut_stream_is_continued(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int fd = ask(f, "continued", true), end = 0;
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    assert_int_equal(end, 1);
    expect_text(reply, "\"content\":\"c \"", true);
    expect_text(reply, "\"content\":\"a\"", true);
    expect_text(reply, "\"finish_reason\":\"stop\"", true);
    expect_text(reply, "[DONE]", true);
    fd = ask(f, "continued", false); /* nobody has seen the beginning: it is thrown away */
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    expect_text(reply, "\"content\":\"ab\"", true);
    fixture_close(f);
}

static void faults_of_all_become_one(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int fd = ask(f, "nobody", false), end = 0;
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    expect_text(reply, "HTTP/1.1 502", true); /* the client's key is not blamed */
    expect_text(reply, "\"code\":\"provider_key_refused\"", true);
    expect_text(reply, "x-should-retry: false\r\n", true);
    fd = ask(f, "wrong", true);
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    expect_text(reply, "HTTP/1.1 400", true);
    expect_text(reply, "scripted request", true);
    fixture_close(f);
}

static void a_hedge_wins(void **state)
{
    (void)state;
    expect_route("hedged", true, "\"content\":\"a\"", true);
    assert_int_equal(atomic_load(&cancelled), 1); /* the silent one */
}

static void a_cascade_trusts_or_escalates(void **state)
{
    (void)state;
    expect_route("trusted", true, "\"content\":\"sure\"", true);
    assert_int_equal(atomic_load(&started), 1);
    expect_route("trusted", false, "\"content\":\"sure\"", true);
    expect_route("trusted", false, "logprobs\":null", true); /* asked of the model, not by the client */
    expect_route("doubted", true, "unsure", false);
    assert_int_equal(atomic_load(&started), 2);
    expect_route("doubted", false, "\"content\":\"ab\"", true);
    expect_route("doubted, nothing better", true, "\"content\":\"unsure\"", true);
    expect_route("disagreeing", true, "\"content\":\"b\"", true);
    assert_int_equal(atomic_load(&started), 3);
}

static void give_feedback(const struct fixture *f, const char *id, const char *more, const char *expected)
{
    static char reply[1 << 16], request[1024];
    char body[512];
    snprintf(body, sizeof body, "{\"response_id\":\"%s\"%s}", id, more);
    snprintf(request, sizeof request,
             "POST /v1/feedback HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: "
             "%zu\r\n\r\n%s",
             strlen(body), body);
    int fd = test_connect(f->port);
    assert_true(fd >= 0 && test_send_text(fd, request));
    test_read(fd, reply, sizeof reply, NULL, NULL);
    close(fd);
    expect_text(reply, expected, true);
}

static void feedback_is_kept(void **state)
{
    (void)state;
    static const char *const routes[] = {"trusted", "doubted", "doubted, nothing better"};
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    struct buf text;
    struct ph_err err;
    char path[128], id[64], kept[128];
    give_feedback(f, "nobody", ",\"score\":1", "HTTP/1.1 404");
    for (size_t i = 0; i < 3; i++) {
        int fd = ask(f, routes[i], false);
        test_read(fd, reply, sizeof reply, NULL, NULL);
        close(fd);
        const char *at = strstr(reply, "\"id\":\"");
        assert_non_null(at);
        snprintf(id, sizeof id, "%.*s", (int)strcspn(at + 6, "\""), at + 6);
        give_feedback(f, id, ",\"score\":1.5", "\"param\":\"score\"");
        give_feedback(f, id, ",\"score\":\"1\"", "HTTP/1.1 400");
        give_feedback(f, id, ",\"score\":1,\"note\":7", "\"param\":\"note\"");
        give_feedback(f, id, ",\"score\":-0.5,\"note\":\"so so\"", "HTTP/1.1 200 OK\r\n");
    }
    snprintf(path, sizeof path, "%s/verdicts.jsonl", f->dir);
    buf_init(&text, 1 << 16);
    assert_int_equal(file_read_private(path, &text, NULL, &err), PH_OK);
    snprintf(kept, sizeof kept, "\"response_id\":\"%s\"", id);
    expect_text(text.data, kept, true);
    expect_text(text.data, "\"route\":\"trusted\",\"policy\":\"cascade\",\"model\":\"sure\"", true);
    expect_text(text.data, "\"cheap\":true,\"escalations\":0", true);
    expect_text(text.data, "\"cheap\":false,\"escalations\":1", true);
    expect_text(text.data, "\"cheap\":true,\"escalations\":1", true); /* settled for less */
    expect_text(text.data, "\"score\":-0.5,\"note\":\"so so\"}\n", true);
    buf_clear(&text);
    snprintf(path, sizeof path, "%s/cascade.jsonl", f->dir);
    for (int i = 0; i < 200 && !file_exists(path); i++)
        uv_sleep(20); /* the gateway's tick */
    assert_int_equal(file_read_private(path, &text, NULL, &err), PH_OK);
    expect_text(text.data, "\"route\":\"trusted\",\"confidence\":0.99", true);
    buf_release(&text);
    fixture_close(f);
}

static void a_route_is_remembered(void **state)
{
    (void)state;
    static char reply[1 << 16], request[512];
    struct fixture *f = fixture_open();
    int fd = ask(f, "third", false);
    test_read(fd, reply, sizeof reply, NULL, NULL);
    close(fd);
    const char *id = strstr(reply, "\"id\":\"");
    assert_non_null(id);
    id += 6;
    snprintf(request, sizeof request,
             "GET /v1/routes/%.*s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
             (int)strcspn(id, "\""), id);
    fd = test_connect(f->port);
    assert_true(test_send_text(fd, request));
    test_read(fd, reply, sizeof reply, NULL, NULL);
    close(fd);
    expect_text(reply, "\"asked_for\":\"third\"", true);
    expect_text(reply, "\"cause\":\"key\"", true);
    expect_text(reply, "\"cause\":\"rate\"", true);
    expect_text(reply, "\"outcome\":\"answered\"", true);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_whole_and_streamed),
        cmocka_unit_test(a_failure_before_the_first_event_keeps_its_status),
        cmocka_unit_test(a_failure_in_mid_stream_breaks_the_connection),
        cmocka_unit_test(a_client_that_goes_cancels),
        cmocka_unit_test(a_slow_client_pauses_its_own_call),
        cmocka_unit_test(a_client_that_never_reads_is_cut),
        cmocka_unit_test(a_silent_stream_gets_comments),
        cmocka_unit_test(stopping_cuts_what_does_not_end),
        cmocka_unit_test(metrics_count_what_happened),
        cmocka_unit_test(a_fallback_is_invisible),
        cmocka_unit_test(a_cut_stream_is_continued),
        cmocka_unit_test(faults_of_all_become_one),
        cmocka_unit_test(a_hedge_wins),
        cmocka_unit_test(a_cascade_trusts_or_escalates),
        cmocka_unit_test(a_route_is_remembered),
        cmocka_unit_test(feedback_is_kept),
        cmocka_unit_test(hosts_and_origins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
