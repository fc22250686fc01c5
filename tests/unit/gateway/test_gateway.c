/* The gateway over providers that follow a script: what is sent when an answer fails, floods or stays silent.
 * The loop runs on a thread of its own; the tests talk to it over sockets. */
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "gateway/gateway_int.h"
#include "gateway/gateway_support.h"
#include "test_support.h"

#define FLOODS_4 "FFFF"
#define FLOODS_32 FLOODS_4 FLOODS_4 FLOODS_4 FLOODS_4 FLOODS_4 FLOODS_4 FLOODS_4 FLOODS_4

static const struct script scripts[] = {{"ok", "rabsu.", GATEWAY_LOGPROBS | GATEWAY_PREFIX},
                                        {"breaks", "raM", GATEWAY_LOGPROBS},
                                        {"fails", "M", GATEWAY_LOGPROBS},
                                        {"floods", "r" FLOODS_32 "su.", GATEWAY_LOGPROBS},
                                        {"silent", "w", GATEWAY_LOGPROBS},
                                        {"hangs", "raw", GATEWAY_LOGPROBS},
                                        {"cut", "rc!", GATEWAY_LOGPROBS},
                                        {"long", "L", GATEWAY_LOGPROBS},
                                        {"key", "E", GATEWAY_LOGPROBS},
                                        {"bad", "X", GATEWAY_LOGPROBS},
                                        {"sure", "rysu.", GATEWAY_LOGPROBS},
                                        {"unsure", "rnsu.", GATEWAY_LOGPROBS}};

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

/* ---- A gateway with a clock of its own */

struct fixture {
    struct gateway_fixture base;
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

static struct fixture *fixture_open_with(uint32_t stall_ms)
{
    struct fixture *f = mem_calloc(1, sizeof *f);
    assert_non_null(f);
    f->clock = (struct clock_source){fixture_now, fixture_unix_ms, f};
    gateway_fixture_open(
        &f->base, &(struct gateway_fixture_params){.scripts = scripts,
                                                   .script_count = sizeof scripts / sizeof *scripts,
                                                   .routes = test_routes,
                                                   .route_count = sizeof test_routes / sizeof *test_routes,
                                                   .clock = &f->clock,
                                                   .write_stall_ms = stall_ms});
    return f;
}

static struct fixture *fixture_open(void)
{
    return fixture_open_with(0);
}

static void fixture_close(struct fixture *f)
{
    gateway_fixture_close(&f->base);
    mem_free(f);
}

static int ask(const struct fixture *f, const char *model, bool stream)
{
    return gateway_ask(&f->base, &(struct question){.model = model, .stream = stream});
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
        expect_text(reply, "\"message\":\"scripted rate\"", true);
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
    expect_text(reply, "data: {\"error\":{\"message\":\"scripted rate\"", true);
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
    assert_true(test_wait_count(&script_counts.cancelled, 1));
    fd = ask(f, "silent", false);
    assert_true(test_wait_count(&script_counts.started, 2));
    close(fd);
    assert_true(test_wait_count(&script_counts.cancelled, 2));
    fixture_close(f);
}

static void a_slow_client_pauses_its_own_call(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int slow = ask(f, "floods", true), end = 0;
    assert_true(test_wait_count(&script_counts.paused, 1));
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
    assert_true(total > 32 * SCRIPT_FLOOD_BYTES);
    expect_text(reply, "data: [DONE]", true);
    fixture_close(f);
}

static void a_client_that_never_reads_is_cut(void **state)
{
    (void)state;
    struct fixture *f = fixture_open_with(100);
    int fd = ask(f, "floods", true);
    assert_true(test_wait_count(&script_counts.paused, 1));
    assert_true(test_wait_count(&script_counts.cancelled, 1));
    close(fd);
    fixture_close(f);
}

static void a_silent_stream_gets_comments(void **state)
{
    (void)state;
    static char reply[1 << 16];
    struct fixture *f = fixture_open();
    int fd = ask(f, "silent", true);
    assert_true(test_wait_count(&script_counts.started, 1));
    atomic_store(&f->ahead_ns, (uint64_t)CHAT_KEEPALIVE_MS * 1000000);
    test_read(fd, reply, sizeof reply, ": keep-alive\n\n", NULL);
    expect_text(reply, "HTTP/1.1 200 OK\r\n", true);
    expect_text(reply, ": keep-alive\n\n", true);
    close(fd);
    assert_true(test_wait_count(&script_counts.cancelled, 1));
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
    assert_int_equal(atomic_load(&script_counts.cancelled), 1);
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
    int fd = test_connect(f->base.port);
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
    assert_int_equal(atomic_load(&script_counts.cancelled), 1); /* the silent one */
}

static void a_cascade_trusts_or_escalates(void **state)
{
    (void)state;
    expect_route("trusted", true, "\"content\":\"sure\"", true);
    assert_int_equal(atomic_load(&script_counts.started), 1);
    expect_route("trusted", false, "\"content\":\"sure\"", true);
    expect_route("trusted", false, "logprobs\":null", true); /* asked of the model, not by the client */
    expect_route("doubted", true, "unsure", false);
    assert_int_equal(atomic_load(&script_counts.started), 2);
    expect_route("doubted", false, "\"content\":\"ab\"", true);
    expect_route("doubted, nothing better", true, "\"content\":\"unsure\"", true);
    expect_route("disagreeing", true, "\"content\":\"b\"", true);
    assert_int_equal(atomic_load(&script_counts.started), 3);
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
    int fd = test_connect(f->base.port);
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
    snprintf(path, sizeof path, "%s/verdicts.jsonl", f->base.ledger_dir.path);
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
    snprintf(path, sizeof path, "%s/cascade.jsonl", f->base.ledger_dir.path);
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
    fd = test_connect(f->base.port);
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
