/* A remote model against a provider that plays every fault. */
#include "fake_provider.h"
#include "test_support.h"

#define SECRET "sk-fake-secret-1"

struct fixture {
    struct fake_provider fake;
    struct provider_account *account;
    struct provider *provider;
};

/* An account that plays `scene`; url NULL: at the fake provider. */
static void open_scene(struct fixture *f, const char *scene, const char *url, size_t keys)
{
    static const char *const secrets[] = {SECRET, "sk-fake-secret-2"};
    static const struct http_header headers[] = {{"x-extra", "yes"}};
    struct ph_err err;
    char base[128];
    fake_open(&f->fake);
    snprintf(base, sizeof base, "%s/%s", url ? url : f->fake.url, scene);
    struct provider_account_params params = {.name = "cloud",
                                             .base_url = base,
                                             .codec = &chat_codec_openai,
                                             .keys = secrets,
                                             .key_count = keys,
                                             .headers = headers,
                                             .header_count = 1,
                                             .connect_timeout_ms = 2000,
                                             .head_timeout_ms = 300,
                                             .silence_timeout_ms = 300,
                                             .client = f->fake.client,
                                             .clock = clock_system()};
    if (provider_account_create(&f->account, &params, &err) != PH_OK ||
        provider_remote_create(&f->provider, "mine", f->account, "theirs", 4096, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static void close_scene(struct fixture *f)
{
    struct provider_state state;
    provider_state(f->provider, &state);
    assert_int_equal(state.running, 0);
    provider_free(f->provider);
    provider_account_free(f->account);
    fake_close(&f->fake);
}

static void check_text(struct ask *ask, const char *expected)
{
    buf_append(&ask->text, "", 0);
    assert_string_equal(ask->text.data ? ask->text.data : "", expected);
}

/* ---- Whole replies */

static void a_stream_comes_in_order(void **state)
{
    (void)state;
    static const enum chat_event_kind order[] = {CHAT_EVENT_ROLE,   CHAT_EVENT_TEXT,  CHAT_EVENT_TEXT,
                                                 CHAT_EVENT_FINISH, CHAT_EVENT_USAGE, CHAT_EVENT_DONE};
    struct fixture f;
    struct ask ask;
    open_scene(&f, "good", NULL, 1);
    ask_init(&ask, &f.fake, true);
    ask_run(&ask, f.provider);
    assert_int_equal(ask.count, 6);
    assert_memory_equal(ask.kinds, order, sizeof order);
    check_text(&ask, "Hello");
    assert_int_equal(ask.tokens, 2);
    assert_int_equal(ask.prompt_tokens, 12);
    assert_int_equal(ask.completion_tokens, 2);
    assert_false(ask.usage_estimated);
    assert_string_equal(ask.key_hint, "1");
    assert_string_equal(ask.upstream_id, "up-1");
    assert_int_equal(ask.upstream_status, 200);
    assert_string_equal(f.fake.authorization, "Bearer " SECRET);
    assert_string_equal(f.fake.request_id, "req-of-client");
    assert_string_equal(f.fake.path, "/good/chat/completions");
    assert_non_null(strstr(f.fake.body, "\"theirs\""));
    assert_string_equal(provider_name(f.provider), "cloud");
    assert_int_equal(provider_context_len(f.provider), 4096);
    ask_release(&ask);
    close_scene(&f);
}

static void json_to_a_stream_is_a_reply_too(void **state)
{
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        struct fixture f;
        struct ask ask;
        open_scene(&f, "whole", NULL, 1);
        ask_init(&ask, &f.fake, stream);
        ask_run(&ask, f.provider);
        assert_true(ask.is_done);
        check_text(&ask, "Hello there");
        assert_int_equal(ask.completion_tokens, 2);
        assert_int_equal(ask.kinds[0], CHAT_EVENT_ROLE);
        ask_release(&ask);
        close_scene(&f);
    }
}

static void usage_is_estimated_when_nobody_says_it(void **state)
{
    (void)state;
    struct fixture f;
    struct ask ask;
    open_scene(&f, "no-usage", NULL, 1);
    ask_init(&ask, &f.fake, true);
    ask_run(&ask, f.provider);
    assert_true(ask.is_done);
    assert_true(ask.usage_estimated);
    assert_int_equal(ask.completion_tokens, 3);
    assert_in_range(ask.prompt_tokens, 5, 30);
    assert_int_equal(ask.kinds[ask.count - 2], CHAT_EVENT_USAGE);
    ask_release(&ask);
    close_scene(&f);
}

static void a_cut_behind_the_end_is_none(void **state)
{
    (void)state;
    struct fixture f;
    struct ask ask;
    open_scene(&f, "late-cut", NULL, 1);
    ask_init(&ask, &f.fake, true);
    ask_run(&ask, f.provider);
    assert_true(ask.is_done);
    check_text(&ask, "Hel");
    ask_release(&ask);
    close_scene(&f);
}

static void embeddings_come_as_vectors(void **state)
{
    (void)state;
    struct fixture f;
    struct ask ask;
    open_scene(&f, "good", NULL, 1);
    ask_init(&ask, &f.fake, false);
    ask_embed(&ask, f.provider);
    fake_run_until(&f.fake, &ask.over);
    assert_int_equal(ask.embed_count, 2);
    assert_int_equal(ask.embed_width, 2);
    assert_true(ask.embed_first == 0.5f);
    assert_int_equal(ask.prompt_tokens, 5);
    assert_string_equal(f.fake.path, "/good/embeddings");
    ask_release(&ask);
    close_scene(&f);
    open_scene(&f, "broken", NULL, 1);
    ask_init(&ask, &f.fake, false);
    ask_embed(&ask, f.provider);
    fake_run_until(&f.fake, &ask.over);
    assert_int_equal(ask.embed_count, 0);
    assert_int_equal(ask.fault.cause, CHAT_CAUSE_SERVER);
    ask_release(&ask);
    close_scene(&f);
}

/* ---- Faults */

static const struct fault_case {
    const char *scene, *url; /* url NULL: the fake provider's */
    enum chat_cause cause;
    int http_status, upstream_status;
    const char *message; /* a part of it */
    const char *text;    /* what came before */
    uint32_t retry_after_s;
} fault_cases[] = {
    {"refused", NULL, CHAT_CAUSE_KEY, 502, 401, "cloud refused key 1 (401)", "", 0},
    {"unpaid", NULL, CHAT_CAUSE_KEY, 502, 402, "Insufficient credits", "", 0},
    {"forbidden", NULL, CHAT_CAUSE_KEY, 502, 403, "no access", "", 0},
    {"limited", NULL, CHAT_CAUSE_RATE, 429, 429, "cloud: slow down", "", 7},
    {"broken", NULL, CHAT_CAUSE_SERVER, 502, 500, "cloud: boom", "", 0},
    {"gateway", NULL, CHAT_CAUSE_SERVER, 502, 502, "cloud", "", 0},
    {"busy", NULL, CHAT_CAUSE_OVERLOADED, 503, 503, "cloud: overloaded", "", 3},
    {"moved", NULL, CHAT_CAUSE_NO_MODEL, 502, 302, "base_url", "", 0},
    {"unknown", NULL, CHAT_CAUSE_NO_MODEL, 502, 404, "no such model", "", 0},
    {"bad-request", NULL, CHAT_CAUSE_REQUEST, 400, 400, "temperature is wrong", "", 0},
    {"html", NULL, CHAT_CAUSE_SERVER, 502, 200, "text/html", "", 0},
    {"error-200", NULL, CHAT_CAUSE_SERVER, 502, 200, "quietly broken", "", 0},
    {"half-line", NULL, CHAT_CAUSE_SERVER, 502, 200, "cloud", "Hel", 0},
    {"mid-error", NULL, CHAT_CAUSE_SERVER, 502, 200, "fell over", "Hel", 0},
    {"short", NULL, CHAT_CAUSE_CUT, 502, 200, "cloud", "Hel", 0},
    {"cut", NULL, CHAT_CAUSE_CUT, 502, 200, "cloud", "Hello", 0},
    {"stall", NULL, CHAT_CAUSE_TIMEOUT, 504, 200, "cloud", "Hello!", 0},
    {"silent", NULL, CHAT_CAUSE_TIMEOUT, 504, 0, "cloud", "", 0},
    {"endless-error", NULL, CHAT_CAUSE_SERVER, 502, 500, "cloud", "", 0},
    {"x", "http://127.0.0.1:1", CHAT_CAUSE_NETWORK, 502, 0, "cloud", "", 0},
    {"x", "http://no-such-host.invalid", CHAT_CAUSE_NETWORK, 502, 0, "cloud", "", 0},
};

static void check_fault(const struct fault_case *c)
{
    struct fixture f;
    struct ask ask;
    open_scene(&f, c->scene, c->url, 1);
    ask_init(&ask, &f.fake, true);
    ask_run(&ask, f.provider);
    if (ask.is_done || ask.fault.cause != c->cause || ask.fault.http_status != c->http_status ||
        !strstr(ask.fault.message, c->message))
        fail_msg("%s %s: done %d, cause %s, status %d: %s", c->scene, c->url ? c->url : "", ask.is_done,
                 chat_cause_name(ask.fault.cause), ask.fault.http_status, ask.fault.message);
    assert_int_equal(ask.kinds[ask.count - 1], CHAT_EVENT_ERROR);
    assert_int_equal(ask.upstream_status, c->upstream_status);
    assert_int_equal(ask.fault.retry_after_s, c->retry_after_s);
    assert_null(strstr(ask.fault.message, "secret"));
    check_text(&ask, c->text);
    ask_release(&ask);
    close_scene(&f);
}

static void every_fault_has_its_cause(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof fault_cases / sizeof fault_cases[0]; i++)
        check_fault(&fault_cases[i]);
}

static struct provider *next_provider; /* for the callback below */
static struct ask *next_ask;

static void ask_next(struct ask *ask)
{
    (void)ask;
    ask_start(next_ask, next_provider);
}

/* The next attempt starts inside the last event of the one before, and finds the key set aside. */
static void the_next_attempt_takes_another_key(void **state)
{
    (void)state;
    struct fixture f;
    struct ask first, second, third;
    open_scene(&f, "refused", NULL, 2);
    ask_init(&first, &f.fake, true);
    ask_init(&second, &f.fake, true);
    ask_init(&third, &f.fake, true);
    next_provider = f.provider;
    next_ask = &second;
    first.at_end = ask_next;
    ask_start(&first, f.provider);
    fake_run_until(&f.fake, &second.over);
    assert_string_equal(first.key_hint, "1");
    assert_string_equal(second.key_hint, "2");
    assert_string_equal(f.fake.authorization, "Bearer sk-fake-secret-2");
    ask_start(&third, f.provider); /* none is left */
    assert_true(third.over);
    assert_int_equal(third.fault.cause, CHAT_CAUSE_KEY);
    assert_int_equal(f.fake.request_count, 2);
    struct provider_state s;
    provider_state(f.provider, &s);
    assert_false(s.usable);
    assert_int_equal(s.why, CHAT_CAUSE_KEY);
    assert_true(s.usable_at_ns > clock_monotonic_ns(clock_system()));
    ask_release(&first);
    ask_release(&second);
    ask_release(&third);
    close_scene(&f);
}

/* ---- Callers that stop, pause or hang up */

static void cancelled_calls_say_nothing_more(void **state)
{
    (void)state;
    struct fixture f;
    struct ask ask;
    open_scene(&f, "stall", NULL, 1);
    ask_init(&ask, &f.fake, true);
    ask.cancel_at = 2; /* from inside the sink */
    ask_run(&ask, f.provider);
    assert_int_equal(ask.texts, 2);
    ask_release(&ask);
    ask_init(&ask, &f.fake, true); /* at once */
    ask_start(&ask, f.provider);
    provider_cancel(ask.call);
    ask_release(&ask);
    ask_init(&ask, &f.fake, false); /* and embeddings */
    ask_embed(&ask, f.provider);
    provider_cancel(ask.call);
    assert_int_equal(ask.count, 0);
    ask_release(&ask);
    close_scene(&f);
}

static void a_slow_reader_holds_the_provider_back(void **state)
{
    (void)state;
    struct fixture f;
    struct ask ask;
    open_scene(&f, "flood", NULL, 1);
    ask_init(&ask, &f.fake, true);
    ask.pause_at = 997;
    ask_run(&ask, f.provider);
    assert_true(ask.is_done);
    assert_int_equal(ask.texts, 20000);
    assert_int_equal(ask.bytes, 100000);
    assert_int_equal(ask.tokens, 20000);
    assert_int_equal(ask.completion_tokens, 20000);
    assert_false(ask.usage_estimated);
    ask_release(&ask);
    ask_init(&ask, &f.fake, true); /* it never goes on: the flood stops */
    f.fake.flooded = 0;
    ask.stop_at = 10;
    ask_start(&ask, f.provider);
    struct fake_wait wait;
    fake_wait_begin(&wait, &f.fake, 200);
    fake_run_until(&f.fake, &wait.over);
    assert_in_range(f.fake.flooded, 10, 19999);
    assert_false(ask.over);
    provider_cancel(ask.call);
    ask_release(&ask);
    close_scene(&f);
}

static void what_was_hung_up_is_counted(void **state)
{
    (void)state;
    struct fixture f;
    struct ask ask;
    open_scene(&f, "stall", NULL, 1);
    ask_init(&ask, &f.fake, true);
    ask.hang_up_at = 1;
    ask.drain_ms = 100;
    ask_run(&ask, f.provider);
    assert_true(ask.is_done);
    assert_true(ask.usage_estimated);
    assert_int_equal(ask.completion_tokens, 3); /* what was on its way counts too */
    assert_in_range(ask.prompt_tokens, 5, 30);
    assert_int_equal(f.fake.gone_count, 1); /* and the provider was told */
    ask_release(&ask);
    close_scene(&f);
    open_scene(&f, "silent", NULL, 1); /* before anything came */
    ask_init(&ask, &f.fake, true);
    ask_start(&ask, f.provider);
    provider_hang_up(ask.call, 100);
    fake_run_until(&f.fake, &ask.over);
    assert_true(ask.is_done);
    assert_int_equal(ask.completion_tokens, 0);
    assert_int_equal(ask.prompt_tokens, 0); /* it was not even sent */
    assert_int_equal(f.fake.request_count, 0);
    ask_release(&ask);
    ask_init(&ask, &f.fake, true); /* but this one was */
    ask_start(&ask, f.provider);
    struct fake_wait wait;
    fake_wait_begin(&wait, &f.fake, 50);
    fake_run_until(&f.fake, &wait.over);
    assert_int_equal(f.fake.request_count, 1);
    provider_hang_up(ask.call, 100);
    fake_run_until(&f.fake, &ask.over);
    assert_true(ask.is_done);
    assert_in_range(ask.prompt_tokens, 5, 30);
    assert_true(ask.usage_estimated);
    ask_release(&ask);
    close_scene(&f);
}

static void estimates_learn_from_replies(void **state)
{
    (void)state;
    struct fixture f;
    struct ask ask;
    bool exact;
    open_scene(&f, "good", NULL, 1);
    ask_init(&ask, &f.fake, true);
    size_t before = provider_count_tokens(f.provider, &ask.request, &exact);
    assert_false(exact);
    ask_release(&ask);
    for (int i = 0; i < 30; i++) {
        ask_init(&ask, &f.fake, true);
        ask_run(&ask, f.provider);
        ask_release(&ask);
    }
    ask_init(&ask, &f.fake, true);
    size_t after = provider_count_tokens(f.provider, &ask.request, &exact);
    assert_in_range(before, 8, 40);
    assert_in_range(after, 12, 13); /* the provider says 12 */
    ask_release(&ask);
    struct http_client_stats stats;
    http_client_stats(f.fake.client, &stats);
    assert_int_equal(stats.connects_total, 1); /* one connection for all */
    close_scene(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_comes_in_order),
        cmocka_unit_test(json_to_a_stream_is_a_reply_too),
        cmocka_unit_test(usage_is_estimated_when_nobody_says_it),
        cmocka_unit_test(a_cut_behind_the_end_is_none),
        cmocka_unit_test(embeddings_come_as_vectors),
        cmocka_unit_test(every_fault_has_its_cause),
        cmocka_unit_test(the_next_attempt_takes_another_key),
        cmocka_unit_test(cancelled_calls_say_nothing_more),
        cmocka_unit_test(a_slow_reader_holds_the_provider_back),
        cmocka_unit_test(what_was_hung_up_is_counted),
        cmocka_unit_test(estimates_learn_from_replies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
