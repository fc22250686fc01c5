/* Holds that grow while their streams run: how far, when not, and that sums are those of a plain ledger that
 * counts token by token. */
#include "gateway/ledger_test.h"

#define GROW 64 /* as the ledger's */

static struct ledger_ask growing(uint64_t max, uint64_t bound)
{
    struct ledger_ask ask = usual();
    ask.output_tokens_max = max;
    ask.output_tokens_bound = bound;
    return ask;
}

static void a_hold_grows_while_there_is_room(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = growing(100, 182);
    budget(f->ledger, LEDGER_STATION, "", 300 + 15 * 1000);
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    for (uint64_t n = 1; n <= 100; n++)
        assert_true(ledger_count(hold, n));
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 300 + 15 * 100); /* what is not needed is not taken */
    assert_true(ledger_count(hold, 101));
    assert_int_equal(ledger_hold_output_max(hold), 101 + GROW);
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 300 + 15 * (101 + GROW));
    for (uint64_t n = 102; n < 182; n++)
        assert_true(ledger_count(hold, n));
    assert_int_equal(ledger_hold_output_max(hold), 182);
    assert_false(ledger_count(hold, 182)); /* that is how far a provider is believed */
    ledger_settle(f->ledger, hold, &(struct ledger_usage){.prompt_tokens = 100, .output_tokens = 90},
                  LEDGER_CUT);
    assert_sum(f->ledger, LEDGER_STATION, "", 300 + 15 * 90, 0);
}

static void every_budget_keeps_a_hold_from_growing(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = growing(10, 1000);
    static const char *const names[] = {"", "premium", "openai", "abcd1234"};
    for (int i = 0; i < LEDGER_SCOPE_COUNT; i++) {
        enum ledger_scope scope = (enum ledger_scope)i;
        int64_t spent = ledger_sum(f->ledger, scope, names[i]).spent_pico;
        budget(f->ledger, scope, names[i], spent + 300 + 15 * 30);
        struct ledger_hold *hold = reserve(f->ledger, &ask);
        for (uint64_t n = 1; n < 30; n++)
            assert_true(ledger_count(hold, n));
        assert_int_equal(ledger_hold_output_max(hold), 30);
        assert_false(ledger_count(hold, 30));
        ledger_settle(f->ledger, hold, NULL, LEDGER_CUT);
        assert_sum(f->ledger, scope, names[i], spent + 300 + 15 * 30, 0); /* to the token */
        budget(f->ledger, scope, names[i], -1);
    }
    budget(f->ledger, LEDGER_STATION, "", ledger_sum(f->ledger, LEDGER_STATION, "").spent_pico + 300 + 150);
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    assert_true(ledger_count(hold, 10));
    assert_false(ledger_count(hold, 11)); /* it was told 10: no room beyond, so no growing */
    assert_int_equal(ledger_hold_output_max(hold), 10);
    ledger_settle(f->ledger, hold, NULL, LEDGER_CUT);
}

/* The stream ends before the delta that nothing pays for, not after it. */
static void large_deltas_stop_in_time(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = growing(100, 1000);
    budget(f->ledger, LEDGER_STATION, "", 300 + 15 * 200);
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    uint64_t n = 30;
    while (ledger_count(hold, n))
        n += 30;
    assert_int_equal(n, 180);
    ledger_settle(f->ledger, hold, NULL, LEDGER_CUT);
    assert_sum(f->ledger, LEDGER_STATION, "", 300 + 15 * 180, 0);
    budget(f->ledger, LEDGER_STATION, "", -1);
    hold = reserve(f->ledger, &ask);
    assert_true(ledger_count(hold, 99));
    assert_true(ledger_count(hold, 400)); /* more at once than a step */
    assert_int_equal(ledger_hold_output_max(hold), 400 + 301);
    ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
}

static void what_was_shortened_grows_back(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = growing(100, 100);
    budget(f->ledger, LEDGER_STATION, "", 2 * 300 + 15 * 150);
    struct ledger_hold *a = reserve(f->ledger, &ask), *b = reserve(f->ledger, &ask);
    assert_int_equal(ledger_hold_output_max(b), 50);
    ledger_settle(f->ledger, a, NULL, LEDGER_UNUSED); /* its money is free again */
    for (uint64_t n = 1; n <= 99; n++)
        assert_true(ledger_count(b, n));
    assert_false(ledger_count(b, 100)); /* it was told 50, so it does not know */
    ledger_settle(f->ledger, b, NULL, LEDGER_CUT);
}

static void an_estimate_is_put_right(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = growing(100, 1000);
    budget(f->ledger, LEDGER_STATION, "", 300 + 15 * 100);
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    assert_false(ledger_count(hold, 110)); /* a provider that says the truth at once */
    assert_true(ledger_count(hold, 80));
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 300 + 15 * 100);
    assert_true(ledger_count(hold, 100));
    ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
    assert_sum(f->ledger, LEDGER_STATION, "", 300 + 15 * 100, 0);
}

/* ---- A plain ledger */

#define STREAMS 14
#define KEYS 2
#define ACCOUNTS (1 + KEYS) /* the station's first */

struct stream {
    struct ledger_hold *hold;
    size_t key;
    int64_t prompt, price;
    uint64_t told, max, bound, count, stride;
};

struct plain {
    struct stream streams[STREAMS];
    int64_t limits[ACCOUNTS], spent[ACCOUNTS];
};

static const char *const account_names[ACCOUNTS] = {"", "one", "two"};

static bool uses(const struct stream *s, size_t account)
{
    return account == 0 || account == 1 + s->key;
}

static int64_t cost(const struct stream *s)
{
    return s->prompt + s->price * (int64_t)(s->count > s->max ? s->count : s->max);
}

static int64_t plain_held(const struct plain *p, size_t account, const struct stream *but)
{
    int64_t sum = 0;
    for (size_t i = 0; i < STREAMS; i++)
        if (p->streams[i].hold && &p->streams[i] != but && uses(&p->streams[i], account))
            sum += cost(&p->streams[i]);
    return sum;
}

/* Whether all its budgets pay for so many tokens of it. */
static bool is_paid(const struct plain *p, const struct stream *s, uint64_t tokens)
{
    for (size_t a = 0; a < ACCOUNTS; a++) {
        int64_t would = p->spent[a] + plain_held(p, a, s) + s->prompt + s->price * (int64_t)tokens;
        if (uses(s, a) && p->limits[a] >= 0 && would > p->limits[a])
            return false;
    }
    return true;
}

static bool is_used_up(const struct stream *s)
{
    if (s->max == s->told)
        return s->count > s->max;
    return s->count + (s->max > s->told ? s->stride : 1) > s->max;
}

static void plain_give_back(const struct plain *p, struct stream *s)
{
    int64_t excess = 0;
    for (size_t a = 0; a < ACCOUNTS; a++) {
        int64_t over = p->spent[a] + plain_held(p, a, NULL) - p->limits[a];
        if (uses(s, a) && p->limits[a] >= 0 && over > excess)
            excess = over;
    }
    for (; excess > 0 && s->max > s->count; excess -= s->price)
        s->max--;
}

static bool plain_count(struct plain *p, struct stream *s, uint64_t count)
{
    uint64_t delta = count > s->count ? count - s->count : 1;
    s->count = count;
    plain_give_back(p, s);
    if (is_used_up(s)) {
        uint64_t wish = count + (delta > GROW ? delta : GROW), from = s->max;
        wish = wish < s->bound ? wish : s->bound;
        while (s->max < wish && is_paid(p, s, s->max + 1))
            s->max++;
        if (s->max > from)
            s->stride = delta;
    }
    return !is_used_up(s);
}

static bool plain_reserve(const struct plain *p, struct stream *s, uint64_t asked)
{
    if (!is_paid(p, s, asked ? 1 : 0))
        return false;
    while (s->max < asked && is_paid(p, s, s->max + 1))
        s->max++;
    s->told = s->max;
    return true;
}

/* ---- Both side by side */

struct walk {
    struct fixture *f;
    struct plain plain;
    struct rng rng;
    size_t refused, cut, grown, shrunk;
};

static uint64_t below(struct walk *w, uint64_t n)
{
    return rng_u64(&w->rng) % n;
}

static void compare(struct walk *w)
{
    const struct plain *p = &w->plain;
    for (size_t a = 0; a < ACCOUNTS; a++) {
        struct ledger_sum sum =
            ledger_sum(w->f->ledger, a ? LEDGER_BY_KEY : LEDGER_STATION, account_names[a]);
        assert_int_equal(sum.spent_pico, p->spent[a]);
        assert_int_equal(sum.held_pico, plain_held(p, a, NULL));
    }
    for (size_t i = 0; i < STREAMS; i++)
        if (p->streams[i].hold)
            assert_int_equal(ledger_hold_output_max(p->streams[i].hold), p->streams[i].max);
}

static void walk_reserve(struct walk *w, struct stream *s)
{
    static const int64_t prices[] = {7, 15, 40};
    *s = (struct stream){.key = below(w, KEYS), .price = prices[below(w, 3)], .stride = 1};
    struct ledger_ask ask = usual();
    ask.key_id = account_names[1 + s->key];
    ask.price = (struct ledger_price){3, 0, 0, s->price};
    ask.prompt_tokens = 1 + below(w, 200);
    ask.output_tokens_max = below(w, 300);
    ask.output_tokens_bound = below(w, 4) ? ask.output_tokens_max * 3 / 2 + below(w, 40) : UINT64_MAX;
    s->prompt = 3 * (int64_t)ask.prompt_tokens;
    s->bound = ask.output_tokens_bound;
    struct ledger_hold *hold = NULL;
    bool want = plain_reserve(&w->plain, s, ask.output_tokens_max);
    enum ph_status status = ledger_reserve(w->f->ledger, &ask, &hold, NULL);
    assert_int_equal(status, want ? PH_OK : PH_ERR_LIMIT);
    w->refused += !want;
    s->hold = hold;
}

static void walk_settle(struct walk *w, struct stream *s)
{
    uint64_t prompt = (uint64_t)(s->prompt / 3), output = below(w, 2) ? s->count : below(w, s->count + 1);
    ledger_settle(w->f->ledger, s->hold,
                  &(struct ledger_usage){.prompt_tokens = prompt, .output_tokens = output}, LEDGER_WHOLE);
    for (size_t a = 0; a < ACCOUNTS; a++)
        w->plain.spent[a] += uses(s, a) ? s->prompt + s->price * (int64_t)output : 0;
    s->hold = NULL;
}

static void walk_count(struct walk *w, struct stream *s, bool token_by_token)
{
    uint64_t next = s->count + 1;
    if (!token_by_token)
        next = below(w, 10) ? s->count + 1 + below(w, 40) : s->count - below(w, s->count + 1) / 4;
    uint64_t max = s->max;
    bool want = plain_count(&w->plain, s, next);
    assert_int_equal(ledger_count(s->hold, next), want);
    w->grown += s->max > max;
    w->shrunk += s->max < max;
    if (want || (!token_by_token && below(w, 4) == 0)) /* some are put right afterwards */
        return;
    w->cut++;
    walk_settle(w, s);
}

static void walk_limit(struct walk *w)
{
    size_t a = below(w, ACCOUNTS);
    int64_t room = (int64_t)below(w, 30000);
    w->plain.limits[a] = below(w, 8) ? w->plain.spent[a] + room : -1;
    budget(w->f->ledger, a ? LEDGER_BY_KEY : LEDGER_STATION, account_names[a], w->plain.limits[a]);
}

static void walk_step(struct walk *w, bool token_by_token)
{
    struct stream *s = &w->plain.streams[below(w, STREAMS)];
    if (!s->hold)
        walk_reserve(w, s);
    else if (below(w, 300) == 0)
        walk_settle(w, s);
    else
        walk_count(w, s, token_by_token);
    if (below(w, 50) == 0)
        ledger_tick(w->f->ledger);
}

static void walk_init(struct walk *w, struct fixture *f, uint64_t seed)
{
    *w = (struct walk){.f = f};
    rng_init(&w->rng, seed);
    for (size_t a = 0; a < ACCOUNTS; a++)
        w->plain.limits[a] = -1;
    for (size_t i = 0; i < ACCOUNTS * 4; i++)
        walk_limit(w);
}

static void it_grows_as_a_plain_ledger_would(void **state)
{
    struct walk w;
    walk_init(&w, *state, 20261121);
    for (size_t i = 0; i < 40000; i++) {
        walk_step(&w, false);
        if (below(&w, 400) == 0)
            walk_limit(&w);
        compare(&w);
    }
    assert_true(w.refused > 100 && w.cut > 100 && w.grown > 100 && w.shrunk > 100);
    for (size_t i = 0; i < STREAMS; i++)
        if (w.plain.streams[i].hold)
            walk_settle(&w, &w.plain.streams[i]);
    compare(&w);
    assert_sum(w.f->ledger, LEDGER_STATION, "", w.plain.spent[0], 0); /* all of it is given back */
}

/* Whatever grows, nothing is held beyond a limit but one token of each stream. */
static void no_limit_is_passed_by_more_than_a_token_a_stream(void **state)
{
    struct walk w;
    walk_init(&w, *state, 7);
    for (size_t a = 0; a < ACCOUNTS; a++) {
        w.plain.limits[a] = a ? 180000 : 300000;
        budget(w.f->ledger, a ? LEDGER_BY_KEY : LEDGER_STATION, account_names[a], w.plain.limits[a]);
    }
    for (size_t i = 0; i < 60000; i++) {
        walk_step(&w, true);
        for (size_t a = 0; a < ACCOUNTS; a++)
            assert_true(w.plain.spent[a] + plain_held(&w.plain, a, NULL) <= w.plain.limits[a] + 40 * STREAMS);
    }
    compare(&w);
    assert_true(w.plain.spent[0] > 299000);
    assert_true(w.grown > 50 && w.cut > 50 && w.refused > 1000);
}

int main(void)
{
#define WITH_LEDGER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_LEDGER(a_hold_grows_while_there_is_room),
        WITH_LEDGER(every_budget_keeps_a_hold_from_growing),
        WITH_LEDGER(large_deltas_stop_in_time),
        WITH_LEDGER(what_was_shortened_grows_back),
        WITH_LEDGER(an_estimate_is_put_right),
        WITH_LEDGER(it_grows_as_a_plain_ledger_would),
        WITH_LEDGER(no_limit_is_passed_by_more_than_a_token_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
