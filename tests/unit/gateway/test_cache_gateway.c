/* The cache behind the gateway: what is kept, who gets it, and how it is served. Providers follow a script;
 * the loop runs on a thread of its own. */
#include <unistd.h>

#include "gateway/gateway_int.h"
#include "gateway/gateway_support.h"
#include "test_support.h"

static const struct script scripts[] = {
    {"ok", "rabsu.", GATEWAY_PREFIX},       {"long", "rablu.", GATEWAY_TOOLS},
    {"filtered", "rafu.", GATEWAY_TOOLS},   {"tools", "rTtu.", GATEWAY_TOOLS},
    {"flood", "rFFFFFFsu.", GATEWAY_TOOLS}, {"cut", "ra!", GATEWAY_TOOLS},
    {"refused", "E", GATEWAY_TOOLS},        {"unbilled", "rabs!", GATEWAY_TOOLS}};
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

static const struct gateway_cache plain = {.bytes_max = 64 << 20, .ttl_s = 60};

static void fixture_open(struct gateway_fixture *f, bool with_keys, struct gateway_cache cache)
{
    gateway_fixture_open(
        f, &(struct gateway_fixture_params){.scripts = scripts,
                                            .script_count = sizeof scripts / sizeof *scripts,
                                            .routes = test_routes,
                                            .route_count = sizeof test_routes / sizeof *test_routes,
                                            .cache = cache,
                                            .price = {.output = LEDGER_PICO_PER_USD / 1000},
                                            .key_count = with_keys ? 3 : 0,
                                            .last_key_scope = "models:long"});
}

/* ---- Asking */

static char reply[8 << 20];

/* Into `reply`. true: from the cache. */
static bool ask(struct gateway_fixture *f, struct question q)
{
    gateway_read(f, &q, reply, sizeof reply);
    return strstr(reply, "x-pharos-cache: hit\r\n") != NULL;
}

static void expect(const char *text)
{
    expect_text(reply, text, true);
}

static size_t started(void)
{
    return atomic_load(&script_counts.started);
}

/* ---- Tests */

static void a_stream_after_a_whole_reply_and_the_reverse(void **state)
{
    (void)state;
    static const char *const paths[] = {"/v1/chat/completions", "/v1/messages"};
    for (int i = 0; i < 4; i++) {
        struct gateway_fixture fixture, *f = &fixture;
        fixture_open(f, false, plain);
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
        assert_int_equal(started(), 1);
        gateway_fixture_close(f);
    }
}

static void a_hit_costs_nothing_and_is_remembered(void **state)
{
    (void)state;
    struct gateway_fixture fixture, *f = &fixture;
    fixture_open(f, false, plain);
    struct question q = {.model = "ok"};
    assert_false(ask(f, q));
    struct ledger_sum before = ledger_sum(f->ledger, LEDGER_STATION, "");
    assert_true(before.spent_pico > 0);
    assert_true(ask(f, q));
    struct ledger_sum after = ledger_sum(f->ledger, LEDGER_STATION, "");
    assert_true(after.spent_pico == before.spent_pico && after.held_pico == 0);
    char path[160];
    const char *at = strstr(reply, "\"id\":\"");
    assert_non_null(at);
    snprintf(path, sizeof path, "/v1/routes/%.*s", (int)strcspn(at + 6, "\""), at + 6);
    gateway_get(f, path, reply, sizeof reply);
    expect("\"policy\":\"cache\"");
    expect("\"cached\":true");
    expect("\"model\":\"ok\"");
    gateway_get(f, "/metrics", reply, sizeof reply);
    expect("\npharos_cache_hits_total 1\n");
    expect("\npharos_cache_misses_total 1\n");
    expect("\npharos_cache_entries 1\n");
    expect("gen_ai_response_model=\"ok\"} 1\n"); /* one of the model's work, not two */
    gateway_fixture_close(f);
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
        struct gateway_fixture fixture, *f = &fixture;
        fixture_open(f, false, plain);
        struct question q = cases[i].question;
        assert_false(ask(f, q));
        if (ask(f, q) != cases[i].kept)
            fail_msg("%s %s: %.2000s", q.model, cases[i].kept ? "was not kept" : "was kept", reply);
        q.headers = NULL;
        assert_int_equal(ask(f, q), cases[i].kept);
        if (strcmp(q.model, "tools") == 0)
            expect("\"id\":\"call_7\"");
        gateway_fixture_close(f);
    }
}

static void a_request_may_pass_by_the_cache(void **state)
{
    (void)state;
    struct gateway_fixture fixture, *f = &fixture;
    fixture_open(f, false, plain);
    struct question q = {.model = "ok"}, fresh = q, silent = q;
    fresh.headers = "cache-control: no-cache\r\n";
    silent.headers = "cache-control: no-store\r\n";
    assert_false(ask(f, silent) || ask(f, fresh));
    assert_int_equal(started(), 2);
    assert_true(ask(f, q)); /* what no-cache fetched was kept */
    assert_false(ask(f, fresh) || ask(f, silent));
    assert_int_equal(started(), 4);
    gateway_fixture_close(f);
    fixture_open(f, false, (struct gateway_cache){.bytes_max = 0, .ttl_s = 60});
    assert_false(ask(f, q) || ask(f, q));
    gateway_fixture_close(f);
}

static void answers_belong_to_a_key_unless_shared(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        struct gateway_cache cache = plain;
        cache.shared = shared;
        struct gateway_fixture fixture, *f = &fixture;
        fixture_open(f, true, cache);
        char headers[3][KEY_TEXT_MAX + 40];
        for (int i = 0; i < 3; i++)
            snprintf(headers[i], sizeof headers[i], "authorization: Bearer %.*s\r\n", KEY_TEXT_MAX - 1,
                     f->key_texts[i]);
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
        gateway_fixture_close(f);
    }
}

static void a_slow_reader_of_a_hit_is_waited_for(void **state)
{
    (void)state;
    struct gateway_fixture fixture, *f = &fixture;
    fixture_open(f, false, plain);
    struct question q = {.model = "flood", .stream = true};
    assert_false(ask(f, q));
    int slow = gateway_ask(f, &q), end = 0; /* reads nothing for now */
    assert_true(ask(f, (struct question){.model = "flood"}));
    int gone = gateway_ask(f, &q); /* leaves in the middle */
    test_read(gone, reply, 4096, "hit", NULL);
    close(gone);
    size_t got = test_read(slow, reply, sizeof reply, NULL, &end);
    close(slow);
    assert_int_equal(end, 1);
    assert_true(got > 6 * SCRIPT_FLOOD_BYTES);
    expect("x-pharos-cache: hit");
    assert_non_null(strstr(reply + got - 200, "data: [DONE]"));
    assert_int_equal(started(), 1);
    gateway_fixture_close(f);
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
