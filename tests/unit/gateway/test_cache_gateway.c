/* The cache behind the gateway: what is kept, who gets it, and how it is served. Providers follow a script;
 * the loop runs on a thread of its own. */
#include <stdatomic.h>
#include <unistd.h>

#include "base/mem.h"
#include "gateway/gateway_int.h"
#include "gateway/keys_support.h"
#include "net/net_support.h"
#include "provider/provider_int.h"
#include "test_support.h"

/* ---- Providers by script: a letter an event. r role, a-c text, F a flood of it, s l f t finish, u usage,
 * . done, ! cut, E refused */

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

static atomic_size_t started;
static char flood_text[512 << 10];

static void call_end(struct script_call *call)
{
    net_wake_close(call->wake);
    mem_free(call);
}

static struct chat_event event_of(char step, struct chat_fault *fault)
{
    static const struct chat_token_logprob logprob = {1, {"t", 1}, -0.25};
    struct chat_event event = {.kind = CHAT_EVENT_FINISH, .tokens = 1};
    switch (step) {
    case 'r':
        event.kind = CHAT_EVENT_ROLE;
        break;
    case 's':
        event.finish = CHAT_FINISH_STOP;
        break;
    case 'l':
        event.finish = CHAT_FINISH_LENGTH;
        break;
    case 'f':
        event.finish = CHAT_FINISH_CONTENT_FILTER;
        break;
    case 't':
        event.finish = CHAT_FINISH_TOOL_CALLS;
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
    case '!':
    case 'E':
        chat_fault_set(fault, 502, NULL, NULL, "scripted");
        fault->cause = step == '!' ? CHAT_CAUSE_CUT : CHAT_CAUSE_KEY;
        event = chat_fault_event(fault, PH_ERR_IO);
        break;
    default:
        event.kind = CHAT_EVENT_TEXT;
        event.logprobs = &logprob;
        event.logprob_count = 1;
        event.text = (struct chat_text){step == 'F'   ? flood_text
                                        : step == 'a' ? "a"
                                                      : "b",
                                        step == 'F' ? sizeof flood_text : 1};
    }
    return event;
}

static void run_script(void *ud)
{
    struct script_call *call = ud;
    for (;;) {
        struct chat_fault fault;
        char step = *call->step++;
        struct chat_event event = event_of(step, &fault);
        bool more = call->sink.event(call->sink.ud, &event);
        if (strchr(".!E", step)) {
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
    (void)drain_ms;
    ((struct script_call *)base)->step = ".";
    script_resume(base);
}

static void script_cancel(struct provider_call *base)
{
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

static const struct {
    const char *id, *steps;
} scripts[] = {{"ok", "rabsu."},        {"long", "rablu."}, {"filtered", "rafu."}, {"tools", "rTtu."},
               {"flood", "rFFFFFFsu."}, {"cut", "ra!"},     {"refused", "E"},      {"unbilled", "rabs!"}};
#define SCRIPT_COUNT (sizeof scripts / sizeof scripts[0])
enum { OK, LONG, FILTERED, TOOLS, FLOOD, CUT, REFUSED };

static const struct gateway_member continued[] = {{CUT, 0, 1}, {OK, 0, 1}};
static const struct gateway_member second[] = {{REFUSED, 0, 1}, {OK, 0, 1}};
/* Nobody is sure enough, and the dear one cannot be had. */
static const struct gateway_member settled[] = {{OK, 0, 1}, {REFUSED, 1, 1}};
static const struct gateway_route test_routes[] = {
    {.name = "continued", .members = continued, .member_count = 2},
    {.name = "second", .members = second, .member_count = 2},
    {.name = "settled",
     .policy = GATEWAY_CASCADE,
     .members = settled,
     .member_count = 2,
     .escalate_below = 1},
};

/* ---- A gateway on a thread */

struct fixture {
    struct net_loop *loop;
    struct gateway *gateway;
    struct provider *providers[SCRIPT_COUNT];
    struct ledger *ledger;
    struct keys *keys;
    struct test_dir dir;
    struct test_dir ledger_dir;
    char key_texts[3][KEY_TEXT_MAX]; /* 0, 1: everything; 2: the model "long" only */
    struct net_wake *stop;
    uv_thread_t thread;
    uint16_t port;
};

static void on_stopped(void *ud)
{
    net_loop_stop(((struct fixture *)ud)->loop);
}

static void on_stop(void *ud)
{
    struct fixture *f = ud;
    net_wake_close(f->stop);
    gateway_stop(f->gateway, on_stopped, f);
}

static void run_loop(void *ud)
{
    net_loop_run(((struct fixture *)ud)->loop);
}

static void make_keys(struct fixture *f)
{
    struct ph_err err;
    for (int i = 0; i < 3; i++) {
        struct key made, spec = {.name = "test", .budget_usd_month = -1};
        if (i == 2) {
            memcpy(spec.scopes[0], "models:long", 12);
            spec.scope_count = 1;
        }
        assert_int_equal(keys_create(f->dir.path, clock_system(), &spec, &made, f->key_texts[i], &err),
                         PH_OK);
    }
}

static struct fixture *fixture_open(bool with_keys, struct gateway_cache cache)
{
    static const struct provider_ops ops = {.kind = "script",
                                            .start = script_start,
                                            .resume = script_resume,
                                            .cancel = script_cancel,
                                            .hang_up = script_hang_up,
                                            .engine = script_engine,
                                            .free = script_free};
    struct fixture *f = mem_calloc(1, sizeof *f);
    struct gateway_model models[SCRIPT_COUNT];
    struct ph_err err;
    assert_non_null(f);
    memset(flood_text, 'x', sizeof flood_text);
    atomic_store(&started, 0);
    for (size_t i = 0; i < SCRIPT_COUNT; i++) {
        struct script_provider *provider = mem_calloc(1, sizeof *provider);
        assert_int_equal(provider_init(&provider->base, &ops, scripts[i].id), 0);
        provider->base.ready = true;
        provider->steps = scripts[i].steps;
        f->providers[i] = &provider->base;
        models[i] = (struct gateway_model){.provider = &provider->base,
                                           .price = {.output = LEDGER_PICO_PER_USD / 1000},
                                           .abilities = i == OK ? GATEWAY_PREFIX : GATEWAY_TOOLS};
    }
    test_dir_make(&f->dir);
    if (with_keys)
        make_keys(f);
    assert_int_equal(keys_open(&f->keys, f->dir.path, clock_system(), &err), PH_OK);
    test_dir_make(&f->ledger_dir);
    struct ledger_params ledger = {.dir = f->ledger_dir.path, .clock = clock_system()};
    if (ledger_open(&f->ledger, &ledger, NULL, &err) != PH_OK)
        fail_msg("%s", err.message);
    struct gateway_params params = {.host = "127.0.0.1",
                                    .models = models,
                                    .model_count = SCRIPT_COUNT,
                                    .routes = test_routes,
                                    .route_count = sizeof test_routes / sizeof *test_routes,
                                    .cache = cache,
                                    .ledger = f->ledger,
                                    .keys = f->keys,
                                    .request_log_fd = -1,
                                    .clock = clock_system(),
                                    .seed = 1,
                                    .version = "test"};
    http_limits_default(&params.limits);
    params.limits.stop_grace_ms = 200;
    assert_int_equal(net_loop_create(&f->loop, &err), PH_OK);
    assert_int_equal(net_wake_open(&f->stop, f->loop, on_stop, f), PH_OK);
    if (gateway_open(&f->gateway, f->loop, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    f->port = gateway_port(f->gateway);
    assert_int_equal(uv_thread_create(&f->thread, run_loop, f), 0);
    return f;
}

static const struct gateway_cache plain = {.bytes_max = 64 << 20, .ttl_s = 60};

static void fixture_close(struct fixture *f)
{
    net_wake_call(f->stop);
    uv_thread_join(&f->thread);
    gateway_free(f->gateway);
    for (size_t i = 0; i < SCRIPT_COUNT; i++)
        provider_free(f->providers[i]);
    net_loop_free(f->loop);
    ledger_close(f->ledger);
    keys_close(f->keys);
    test_dir_remove(&f->ledger_dir);
    test_dir_remove(&f->dir);
    mem_free(f);
}

/* ---- Asking */

static char reply[8 << 20];

struct question {
    const char *model, *path, *more, *headers;
    bool stream;
};

static int send_question(struct fixture *f, const struct question *q)
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

/* Into `reply`. true: from the cache. */
static bool ask(struct fixture *f, struct question q)
{
    int fd = send_question(f, &q), end = 0;
    test_read(fd, reply, sizeof reply, NULL, &end);
    close(fd);
    return strstr(reply, "x-pharos-cache: hit\r\n") != NULL;
}

static void expect(const char *text)
{
    if (!strstr(reply, text))
        fail_msg("no \"%s\" in: %.3000s", text, reply);
}

static void get(struct fixture *f, const char *path, const char *id, int id_len)
{
    char request[512];
    snprintf(request, sizeof request, "GET %s%.*s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
             path, id_len, id);
    int fd = test_connect(f->port);
    assert_true(test_send_text(fd, request));
    test_read(fd, reply, sizeof reply, NULL, NULL);
    close(fd);
}

/* ---- Tests */

static void a_stream_after_a_whole_reply_and_the_reverse(void **state)
{
    (void)state;
    static const char *const paths[] = {"/v1/chat/completions", "/v1/messages"};
    for (int i = 0; i < 4; i++) {
        struct fixture *f = fixture_open(false, plain);
        struct question q = {
            .model = "ok", .path = paths[i / 2], .stream = i % 2, .more = ",\"max_tokens\":9"};
        assert_false(ask(f, q));
        q.stream = !q.stream;
        assert_true(ask(f, q));
        expect("HTTP/1.1 200 OK\r\n");
        expect("x-pharos-route: model=ok; provider=script; attempts=0; tier=local; policy=cache\r\n");
        if (q.stream) {
            expect("content-type: text/event-stream\r\n");
            expect(i / 2 ? "\"text\":\"b\"" : "\"content\":\"b\"");
            expect(i / 2 ? "event: message_stop" : "data: [DONE]\n\n\r\n0\r\n\r\n");
        } else {
            expect(i / 2 ? "\"text\":\"ab\"" : "\"content\":\"ab\"");
            expect(i / 2 ? "\"output_tokens\":7" : "\"completion_tokens\":7");
        }
        assert_true(ask(f, q)); /* and the same once more */
        assert_int_equal(atomic_load(&started), 1);
        fixture_close(f);
    }
}

static void a_hit_costs_nothing_and_is_remembered(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(false, plain);
    struct question q = {.model = "ok"};
    assert_false(ask(f, q));
    struct ledger_sum before = ledger_sum(f->ledger, LEDGER_STATION, "");
    assert_true(before.spent_pico > 0);
    assert_true(ask(f, q));
    struct ledger_sum after = ledger_sum(f->ledger, LEDGER_STATION, "");
    assert_true(after.spent_pico == before.spent_pico && after.held_pico == 0);
    char id[128];
    const char *at = strstr(reply, "\"id\":\"");
    assert_non_null(at);
    snprintf(id, sizeof id, "%.*s", (int)strcspn(at + 6, "\""), at + 6);
    get(f, "/v1/routes/", id, 127);
    expect("\"policy\":\"cache\"");
    expect("\"cached\":true");
    expect("\"model\":\"ok\"");
    get(f, "/metrics", "", 0);
    expect("\npharos_cache_hits_total 1\n");
    expect("\npharos_cache_misses_total 1\n");
    expect("\npharos_cache_entries 1\n");
    expect("gen_ai_response_model=\"ok\"} 1\n"); /* one of the model's work, not two */
    fixture_close(f);
}

static void only_whole_answers_are_kept(void **state)
{
    (void)state;
    static const struct {
        struct question question;
        bool kept;
    } cases[] = {
        {{.model = "ok"}, true},
        {{.model = "ok", .more = ",\"logprobs\":false,\"seed\":1"}, true},
        {{.model = "long"}, false}, /* the model's own limit */
        {{.model = "long", .more = ",\"max_tokens\":3"}, true},
        {{.model = "filtered"}, false},
        {{.model = "tools", .more = ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"look\"}}]"},
         true},
        {{.model = "cut"}, false},
        {{.model = "cut", .stream = true}, false},
        {{.model = "refused"}, false},
        {{.model = "unbilled", .stream = true}, false},
        {{.model = "continued", .stream = true}, false},
        {{.model = "continued"}, true}, /* began anew: one model said it all */
        {{.model = "second"}, true},
        {{.model = "settled"}, false},
        {{.model = "ok", .headers = "cache-control: max-age=1, No-Store\r\n"}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture *f = fixture_open(false, plain);
        struct question q = cases[i].question;
        assert_false(ask(f, q));
        if (ask(f, q) != cases[i].kept)
            fail_msg("%s %s: %.2000s", q.model, cases[i].kept ? "was not kept" : "was kept", reply);
        q.headers = NULL;
        assert_int_equal(ask(f, q), cases[i].kept);
        if (strcmp(q.model, "tools") == 0)
            expect("\"id\":\"call_7\"");
        fixture_close(f);
    }
}

static void a_request_may_pass_by_the_cache(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(false, plain);
    struct question q = {.model = "ok"}, fresh = q, silent = q;
    fresh.headers = "cache-control: no-cache\r\n";
    silent.headers = "cache-control: no-store\r\n";
    assert_false(ask(f, silent) || ask(f, fresh));
    assert_int_equal(atomic_load(&started), 2);
    assert_true(ask(f, q)); /* what no-cache fetched was kept */
    assert_false(ask(f, fresh) || ask(f, silent));
    assert_int_equal(atomic_load(&started), 4);
    fixture_close(f);
    f = fixture_open(false, (struct gateway_cache){.bytes_max = 0, .ttl_s = 60});
    assert_false(ask(f, q) || ask(f, q));
    fixture_close(f);
}

static void answers_belong_to_a_key_unless_shared(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        struct gateway_cache cache = plain;
        cache.shared = shared;
        struct fixture *f = fixture_open(true, cache);
        char headers[3][160];
        for (int i = 0; i < 3; i++)
            snprintf(headers[i], sizeof headers[i], "authorization: Bearer %s\r\n", f->key_texts[i]);
        struct question mine = {.model = "second", .headers = headers[0]};
        struct question yours = mine, limited = mine, nobodys = mine;
        yours.headers = headers[1];
        limited.headers = headers[2];
        nobodys.headers = NULL;
        assert_false(ask(f, mine));
        assert_true(ask(f, mine));
        assert_int_equal(ask(f, yours), shared);
        assert_false(ask(f, limited)); /* its key does not allow the model that answered */
        expect("HTTP/1.1 403");
        assert_false(ask(f, nobodys));
        expect("HTTP/1.1 401");
        fixture_close(f);
    }
}

static void a_slow_reader_of_a_hit_is_waited_for(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(false, plain);
    struct question q = {.model = "flood", .stream = true};
    assert_false(ask(f, q));
    int slow = send_question(f, &q), end = 0; /* reads nothing for now */
    assert_true(ask(f, (struct question){.model = "flood"}));
    int gone = send_question(f, &q); /* leaves in the middle */
    test_read(gone, reply, 4096, "hit", NULL);
    close(gone);
    size_t got = test_read(slow, reply, sizeof reply, NULL, &end);
    close(slow);
    assert_int_equal(end, 1);
    assert_true(got > 6 * sizeof flood_text);
    expect("x-pharos-cache: hit");
    assert_non_null(strstr(reply + got - 200, "data: [DONE]"));
    assert_int_equal(atomic_load(&started), 1);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_after_a_whole_reply_and_the_reverse),
        cmocka_unit_test(a_hit_costs_nothing_and_is_remembered),
        cmocka_unit_test(only_whole_answers_are_kept),
        cmocka_unit_test(a_request_may_pass_by_the_cache),
        cmocka_unit_test(answers_belong_to_a_key_unless_shared),
        cmocka_unit_test(a_slow_reader_of_a_hit_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
