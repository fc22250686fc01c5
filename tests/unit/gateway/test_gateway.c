/* The gateway over providers that follow a script: what is sent when an answer fails, floods or stays silent.
 * The loop runs on a thread of its own; the tests talk to it over sockets. */
#include <stdatomic.h>
#include <unistd.h>

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
    STEP_ERROR,
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

static bool take_step(struct script_call *call)
{
    const struct script_step *step = call->step;
    struct chat_event event = {.kind = CHAT_EVENT_TEXT};
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
    case STEP_WAIT:
        return false;
    }
    call->step++;
    return say(call, &event);
}

static void run_script(void *ud)
{
    struct script_call *call = ud;
    for (;;) {
        bool last = call->step->kind == STEP_DONE || call->step->kind == STEP_ERROR;
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

static const struct {
    const char *id;
    const struct script_step *steps;
} scripts[] = {{"ok", ok_steps},         {"breaks", breaks_steps}, {"fails", fails_steps},
               {"floods", floods_steps}, {"silent", silent_steps}, {"hangs", hangs_steps}};

#define SCRIPT_COUNT (sizeof scripts / sizeof scripts[0])

/* ---- A gateway on a thread */

struct fixture {
    struct net_loop *loop;
    struct gateway *gateway;
    struct provider *providers[SCRIPT_COUNT];
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

static struct fixture *fixture_open_with(uint32_t stall_ms)
{
    static const struct provider_ops ops = {.kind = "script",
                                            .start = script_start,
                                            .resume = script_resume,
                                            .cancel = script_cancel,
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
    struct gateway_params params = {.host = "127.0.0.1",
                                    .providers = f->providers,
                                    .provider_count = SCRIPT_COUNT,
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
    expect_text(reply, "x-pharos-route: model=ok; provider=script; attempts=1\r\n", true);
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
        cmocka_unit_test(hosts_and_origins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
