/* Keys and breakers of an account, by a clock of our own. */
#include "provider/provider_account_int.h"
#include "test_support.h"

#define SECOND UINT64_C(1000000000)

struct fixture {
    uint64_t now;
    struct clock_source clock;
    struct provider_account *account;
    struct account_lane *lane, *other;
    struct chat_fault fault;
};

static uint64_t read_now(void *ud)
{
    return ((struct fixture *)ud)->now;
}

static int64_t read_unix(void *ud)
{
    (void)ud;
    return 0;
}

static void open_fixture(struct fixture *f, size_t key_count)
{
    static const char *const keys[] = {"sk-first-secret", "sk-second-secret", "sk-third-secret"};
    struct ph_err err;
    *f = (struct fixture){.now = 1000 * SECOND};
    f->clock = (struct clock_source){read_now, read_unix, f};
    struct provider_account_params params = {.name = "cloud",
                                             .base_url = "http://127.0.0.1:1/v1",
                                             .keys = keys,
                                             .key_count = key_count,
                                             .clock = &f->clock};
    if (provider_account_create(&f->account, &params, &err) != PH_OK ||
        account_lane_create(&f->lane, f->account, &err) != PH_OK ||
        account_lane_create(&f->other, f->account, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static void close_fixture(struct fixture *f)
{
    account_lane_free(f->lane);
    account_lane_free(f->other);
    provider_account_free(f->account);
}

static void pass_time(struct fixture *f, uint64_t seconds)
{
    f->now += seconds * SECOND;
}

/* Which key the next call would get, 1 ...; 0: none. The pass stays out. */
static int enter(struct fixture *f, struct account_lane *lane, uint64_t sticky, struct account_pass *pass)
{
    if (account_enter(lane, sticky, pass, &f->fault) != PH_OK)
        return 0;
    const char *hint = account_pass_hint(pass);
    return hint ? hint[0] - '0' : 9;
}

static void leave(struct account_pass *pass, enum chat_cause cause, int http_status, uint64_t hint_ms)
{
    struct chat_fault fault = {.cause = cause};
    account_leave(pass, &fault, http_status, hint_ms);
}

static void succeed(struct account_pass *pass)
{
    account_pass_alive(pass);
    account_leave(pass, NULL, 200, 0);
}

static struct provider_state look(struct account_lane *lane)
{
    struct provider_state state = {0};
    account_state(lane, &state);
    return state;
}

/* One whole call; answers for its key. */
static int call(struct fixture *f, struct account_lane *lane, uint64_t sticky)
{
    struct account_pass pass;
    int key = enter(f, lane, sticky, &pass);
    if (key)
        succeed(&pass);
    return key;
}

static int failing_call(struct fixture *f, struct account_lane *lane, enum chat_cause cause, int http_status,
                        uint64_t hint_ms)
{
    struct account_pass pass;
    int key = enter(f, lane, 0, &pass);
    if (key)
        leave(&pass, cause, http_status, hint_ms);
    return key;
}

/* ---- Keys */

static void limited_keys_rest_and_others_take_over(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 3);
    assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_RATE, 429, 10000), 1);
    pass_time(&f, 1);
    assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_RATE, 429, 20000), 2);
    assert_int_equal(call(&f, f.lane, 0), 3);
    assert_int_equal(call(&f, f.other, 0), 1); /* limits are counted by model */
    assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_RATE, 429, 30000), 3);
    struct provider_state s = look(f.lane);
    assert_false(s.usable);
    assert_int_equal(s.why, CHAT_CAUSE_RATE);
    assert_int_equal(s.usable_at_ns, f.now + 9 * SECOND);
    struct account_pass pass;
    assert_int_equal(enter(&f, f.lane, 0, &pass), 0);
    assert_int_equal(f.fault.cause, CHAT_CAUSE_RATE);
    assert_int_equal(f.fault.http_status, 429);
    assert_int_equal(f.fault.retry_after_s, 9);
    pass_time(&f, 9);
    assert_true(look(f.lane).usable);
    assert_int_equal(call(&f, f.lane, 0), 1);
    pass_time(&f, 60);
    assert_int_equal(call(&f, f.lane, 0), 1); /* all are good: the one limited least recently */
    close_fixture(&f);
}

static void rests_without_a_word_grow(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 1);
    uint64_t expected = ACCOUNT_REST_MS;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_RATE, 429, 0), 1);
        assert_int_equal(look(f.lane).usable_at_ns - f.now, expected * 1000000);
        f.now = look(f.lane).usable_at_ns;
        expected = expected * 2 < ACCOUNT_REST_MAX_MS ? expected * 2 : ACCOUNT_REST_MAX_MS;
    }
    assert_int_equal(call(&f, f.lane, 0), 1); /* a success, and it begins anew */
    assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_RATE, 429, 0), 1);
    assert_int_equal(look(f.lane).usable_at_ns - f.now, ACCOUNT_REST_MS * UINT64_C(1000000));
    close_fixture(&f);
}

static void a_burst_is_one_refusal(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 1);
    struct account_pass passes[5];
    for (int i = 0; i < 5; i++)
        assert_int_equal(enter(&f, f.lane, 0, &passes[i]), 1);
    f.now++;
    for (int i = 0; i < 4; i++)
        leave(&passes[i], CHAT_CAUSE_RATE, 429, 0);
    assert_int_equal(look(f.lane).usable_at_ns - f.now, ACCOUNT_REST_MS * UINT64_C(1000000));
    succeed(&passes[4]); /* it began before: no news */
    assert_false(look(f.lane).usable);
    for (int i = 0; i < 5; i++) {
        f.now = look(f.lane).usable_at_ns ? look(f.lane).usable_at_ns : f.now;
        assert_int_equal(enter(&f, f.lane, 0, &passes[i]), 1);
    }
    for (int i = 0; i < 5; i++)
        leave(&passes[i], CHAT_CAUSE_KEY, 401, 0);
    assert_int_equal(look(f.lane).usable_at_ns - f.now, ACCOUNT_ASIDE_S * SECOND);
    close_fixture(&f);
}

static void refused_keys_are_tried_again_by_one(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 2);
    struct account_pass trial, more;
    assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_KEY, 401, 0), 1);
    assert_int_equal(call(&f, f.lane, 0), 2);
    assert_int_equal(call(&f, f.other, 0), 2); /* refused for all models */
    pass_time(&f, ACCOUNT_ASIDE_S);
    assert_int_equal(enter(&f, f.lane, 0, &trial), 1); /* due: it comes back by itself */
    assert_int_equal(call(&f, f.lane, 0), 2);          /* one at a time */
    leave(&trial, CHAT_CAUSE_KEY, 402, 0);
    pass_time(&f, ACCOUNT_ASIDE_S);
    assert_int_equal(call(&f, f.lane, 0), 2); /* later now */
    pass_time(&f, ACCOUNT_ASIDE_S);
    assert_int_equal(enter(&f, f.lane, 0, &trial), 1);
    account_abandon(&trial); /* no verdict: the next one tries */
    assert_int_equal(enter(&f, f.lane, 0, &trial), 1);
    leave(&trial, CHAT_CAUSE_TIMEOUT, 0, 0); /* nor is this one */
    assert_int_equal(enter(&f, f.lane, 0, &trial), 1);
    account_pass_alive(&trial);                       /* good again, from its first word on */
    assert_int_equal(enter(&f, f.lane, 0, &more), 2); /* the one with fewer calls */
    assert_int_equal(call(&f, f.lane, 0), 1);
    succeed(&trial);
    succeed(&more);
    close_fixture(&f);
}

static void a_key_may_be_refused_for_one_model(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 1);
    assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_KEY, 403, 0), 1);
    struct provider_state s = look(f.lane);
    assert_false(s.usable);
    assert_int_equal(s.why, CHAT_CAUSE_KEY);
    assert_int_equal(s.usable_at_ns, f.now + ACCOUNT_ASIDE_S * SECOND);
    struct account_pass pass;
    assert_int_equal(enter(&f, f.lane, 0, &pass), 0);
    assert_int_equal(f.fault.http_status, 502); /* the caller's own key is not blamed */
    assert_string_equal(f.fault.code, "provider_keys_rejected");
    assert_int_equal(call(&f, f.other, 0), 1);
    close_fixture(&f);
}

static void conversations_keep_their_key(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 3);
    struct account_pass busy[6];
    int key = enter(&f, f.lane, 77, &busy[0]);
    for (int i = 1; i < 6; i++) /* by then every key is as busy as the others */
        assert_int_equal(enter(&f, f.lane, 0, &busy[i]), i % 3 + 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(call(&f, f.lane, 77), key);
    for (int i = 0; i < 6; i++)
        succeed(&busy[i]);
    struct account_pass pass;
    assert_int_equal(enter(&f, f.lane, 77, &pass), key);
    leave(&pass, CHAT_CAUSE_RATE, 429, 5000);
    int next = call(&f, f.lane, 77);
    assert_int_not_equal(next, key);
    pass_time(&f, 10);
    assert_int_equal(call(&f, f.lane, 77), next); /* where its cache is now */
    close_fixture(&f);
}

static void no_key_is_a_key_too(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 0);
    struct account_pass pass;
    assert_int_equal(enter(&f, f.lane, 5, &pass), 9);
    assert_null(account_pass_secret(&pass));
    leave(&pass, CHAT_CAUSE_RATE, 429, 2000);
    assert_int_equal(look(f.lane).why, CHAT_CAUSE_RATE);
    pass_time(&f, 2);
    assert_int_equal(call(&f, f.lane, 0), 9);
    close_fixture(&f);
}

static void secrets_are_taken_out(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 1);
    struct account_pass pass;
    char text[] = "key sk-first-secret is bad, sk-first-secretsk-first-secret!";
    assert_int_equal(enter(&f, f.lane, 0, &pass), 1);
    account_pass_scrub(&pass, text);
    assert_string_equal(text, "key [key] is bad, [key][key]!");
    account_abandon(&pass);
    assert_null(account_params(f.account)->keys);
    close_fixture(&f);
}

/* ---- Breakers */

static void failures_open_and_probes_close(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 1);
    for (int i = 0; i < BREAKER_FAILURES_MAX; i++) {
        assert_true(look(f.lane).usable);
        assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_SERVER, 500, 0), 1);
    }
    struct provider_state s = look(f.lane);
    assert_false(s.usable);
    assert_int_equal(s.why, CHAT_CAUSE_OVERLOADED);
    assert_int_equal(s.usable_at_ns, f.now + BREAKER_OPEN_S * SECOND);
    struct account_pass probe;
    assert_int_equal(enter(&f, f.lane, 0, &probe), 0);
    assert_int_equal(f.fault.http_status, 503);
    assert_int_equal(f.fault.retry_after_s, BREAKER_OPEN_S);
    assert_true(look(f.other).usable); /* another model may be well */
    uint64_t wait = BREAKER_OPEN_S;
    for (int i = 0; i < 8; i++) {
        pass_time(&f, wait);
        assert_int_equal(enter(&f, f.lane, 0, &probe), 1);
        assert_false(look(f.lane).usable); /* one at a time */
        assert_int_equal(look(f.lane).usable_at_ns, 0);
        leave(&probe, CHAT_CAUSE_CUT, 200, 0);
        wait = wait * 2 < BREAKER_OPEN_MAX_S ? wait * 2 : BREAKER_OPEN_MAX_S;
        assert_int_equal(look(f.lane).usable_at_ns - f.now, wait * SECOND);
    }
    pass_time(&f, wait);
    assert_int_equal(enter(&f, f.lane, 0, &probe), 1);
    account_abandon(&probe); /* its client went away */
    assert_int_equal(enter(&f, f.lane, 0, &probe), 1);
    account_pass_alive(&probe);
    assert_true(look(f.lane).usable);
    succeed(&probe);
    close_fixture(&f);
}

static void few_failures_among_many_do_not_matter(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 1);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(call(&f, f.lane, 0), 1);
        if (i % 3 == 0)
            assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_SERVER, 500, 0), 1);
    }
    assert_true(look(f.lane).usable);
    for (int i = 0; i < 100; i++) { /* and old ones do not count */
        pass_time(&f, BREAKER_WINDOW_S);
        assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_SERVER, 500, 0), 1);
    }
    assert_true(look(f.lane).usable);
    close_fixture(&f);
}

static void no_connection_is_the_account_s(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 1);
    for (int i = 0; i < BREAKER_FAILURES_MAX; i++)
        assert_int_equal(failing_call(&f, i % 2 ? f.lane : f.other, CHAT_CAUSE_NETWORK, 0, 0), 1);
    assert_int_equal(look(f.lane).why, CHAT_CAUSE_OVERLOADED);
    assert_int_equal(look(f.other).why, CHAT_CAUSE_OVERLOADED);
    pass_time(&f, BREAKER_OPEN_S);
    assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_SERVER, 500, 0), 1); /* it answered */
    assert_true(look(f.other).usable);
    close_fixture(&f);
}

static void the_provider_s_word_is_waited_for(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 1);
    for (int i = 0; i < BREAKER_FAILURES_MAX; i++)
        assert_int_equal(failing_call(&f, f.lane, CHAT_CAUSE_OVERLOADED, 529, 40000), 1);
    assert_int_equal(look(f.lane).usable_at_ns - f.now, 40 * SECOND);
    close_fixture(&f);
}

static void bad_requests_harm_nobody(void **state)
{
    (void)state;
    static const enum chat_cause causes[] = {CHAT_CAUSE_REQUEST,  CHAT_CAUSE_CONTEXT, CHAT_CAUSE_REFUSED,
                                             CHAT_CAUSE_NO_MODEL, CHAT_CAUSE_OURS,    CHAT_CAUSE_UNABLE};
    struct fixture f;
    open_fixture(&f, 1);
    for (int i = 0; i < 60; i++)
        assert_int_equal(failing_call(&f, f.lane, causes[i % 6], 400, 0), 1);
    assert_true(look(f.lane).usable);
    assert_int_equal(look(f.lane).running, 0);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limited_keys_rest_and_others_take_over),
        cmocka_unit_test(rests_without_a_word_grow),
        cmocka_unit_test(a_burst_is_one_refusal),
        cmocka_unit_test(refused_keys_are_tried_again_by_one),
        cmocka_unit_test(a_key_may_be_refused_for_one_model),
        cmocka_unit_test(conversations_keep_their_key),
        cmocka_unit_test(no_key_is_a_key_too),
        cmocka_unit_test(secrets_are_taken_out),
        cmocka_unit_test(failures_open_and_probes_close),
        cmocka_unit_test(few_failures_among_many_do_not_matter),
        cmocka_unit_test(no_connection_is_the_account_s),
        cmocka_unit_test(the_provider_s_word_is_waited_for),
        cmocka_unit_test(bad_requests_harm_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
