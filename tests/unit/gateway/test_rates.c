/* Sliding minutes against a record of every take. */
#include "base/limits.h"
#include "gateway/keys_support.h"
#include "gateway/rates.h"

#define S UINT64_C(1000000000)

struct fixture {
    struct test_clock clock;
    struct rates *rates;
    struct rate_take take;
    uint32_t wait;
    const char *which;
};

static int setup(void **state)
{
    struct fixture *f = mem_calloc(1, sizeof *f);
    test_clock_init(&f->clock, 0);
    assert_int_equal(rates_create(&f->rates, &f->clock.source), PH_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    rates_free(f->rates);
    mem_free(f);
    return 0;
}

static bool take(struct fixture *f, const char *who, struct rate_limits limits, uint64_t tokens)
{
    return rates_take(f->rates, who, &limits, tokens, &f->take, &f->wait, &f->which);
}

static void nothing_is_limited_without_limits(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 100000; i++)
        assert_true(take(f, "a", (struct rate_limits){0}, UINT64_MAX));
    rates_give(f->rates, &f->take, 1);
    assert_true(rates_used(f->rates, "a", &(struct rate_limits){0}) == 0);
}

static void requests_come_back_a_minute_later(void **state)
{
    struct fixture *f = *state;
    const struct rate_limits limits = {.rpm = 3};
    f->clock.ns = 1000 * S + S / 2;
    for (int i = 0; i < 3; i++, f->clock.ns += 10 * S)
        assert_true(take(f, "a", limits, 1000000));
    assert_false(take(f, "a", limits, 1));
    assert_string_equal(f->which, "requests");
    assert_int_equal(f->wait, 31); /* the first was at 1000.5; 60 s from it and to the end of that second */
    assert_null(f->take.line);
    assert_true(take(f, "b", limits, 1));
    f->clock.ns = 1060 * S + S - 1;
    assert_false(take(f, "a", limits, 1));
    assert_int_equal(f->wait, 1);
    f->clock.ns++;
    assert_true(take(f, "a", limits, 1));
    assert_false(take(f, "a", limits, 1));
    assert_int_equal(f->wait, 10);
    assert_true(rates_used(f->rates, "a", &limits) == 1);
    f->clock.ns += 1000 * S;
    assert_true(rates_used(f->rates, "a", &limits) == 0);
}

static void tokens_are_put_right_where_they_were_taken(void **state)
{
    struct fixture *f = *state;
    const struct rate_limits limits = {.tpm = 1000};
    struct rate_take first, second;
    assert_true(take(f, "a", limits, 600));
    first = f->take;
    assert_false(take(f, "a", limits, 401));
    assert_string_equal(f->which, "tokens");
    assert_int_equal(f->wait, 61);
    assert_true(take(f, "a", limits, 400));
    second = f->take;
    f->clock.ns += 30 * S;
    rates_give(f->rates, &first, 100); /* 500 too many */
    assert_true(rates_used(f->rates, "a", &limits) == 0.5);
    rates_give(f->rates, &first, 0);    /* given already */
    rates_give(f->rates, &second, 700); /* 300 more, which count from now */
    assert_false(take(f, "a", limits, 201));
    assert_int_equal(f->wait, 31);
    assert_true(take(f, "a", limits, 200));
    f->clock.ns += 31 * S; /* what was taken at first has left: 300 and 200 remain */
    assert_true(rates_used(f->rates, "a", &limits) == 0.5);
    rates_give(f->rates, &f->take, 0);
    assert_true(rates_used(f->rates, "a", &limits) == 0.3);
}

static void what_left_the_window_is_not_given_back_twice(void **state)
{
    struct fixture *f = *state;
    const struct rate_limits limits = {.tpm = 1000};
    struct rate_take old;
    assert_true(take(f, "a", limits, 900));
    old = f->take;
    f->clock.ns += 61 * S;
    assert_true(take(f, "a", limits, 500));
    rates_give(f->rates, &old, 0);
    assert_true(rates_used(f->rates, "a", &limits) == 0.5);
    f->clock.ns += 3 * S; /* 64 after the first: the same place in the ring */
    assert_true(rates_used(f->rates, "a", &limits) == 0.5);
}

static void more_than_a_minute_has_waits_for_an_empty_one(void **state)
{
    struct fixture *f = *state;
    const struct rate_limits limits = {.tpm = 1000};
    assert_true(take(f, "a", limits, 1));
    f->clock.ns += 5 * S;
    assert_false(take(f, "a", limits, 5000));
    assert_int_equal(f->wait, 56);
    f->clock.ns += 56 * S;
    assert_true(take(f, "a", limits, 5000));
    assert_false(take(f, "a", limits, 1));
    assert_int_equal(f->wait, 61);
}

static void only_so_many_run_together(void **state)
{
    struct fixture *f = *state;
    const struct rate_limits limits = {.concurrency = 2, .rpm = 1000};
    struct rate_take first;
    assert_true(take(f, "a", limits, 1));
    first = f->take;
    assert_true(take(f, "a", limits, 1));
    assert_false(take(f, "a", limits, 1));
    assert_int_equal(f->wait, 1);
    assert_string_equal(f->which, "concurrent requests");
    f->clock.ns += 1000 * S; /* they still run */
    assert_false(take(f, "a", limits, 1));
    assert_true(rates_used(f->rates, "a", &limits) == 1);
    rates_give(f->rates, &first, 1);
    assert_true(take(f, "a", limits, 1));
    assert_false(take(f, "a", limits, 1));
}

/* ---- Against a record */

enum { TAKES_MAX = 4000, NAMES = 3 };

struct record {
    struct {
        uint64_t second, tokens; /* as they count */
        bool is_take;
    } at[TAKES_MAX];
    size_t count;
    int64_t running;
};

static void sums(const struct record *record, uint64_t second, uint64_t *requests, uint64_t *tokens)
{
    *requests = *tokens = 0;
    for (size_t i = 0; i < record->count; i++)
        if (record->at[i].second + 61 > second) {
            *requests += record->at[i].is_take;
            *tokens += record->at[i].tokens;
        }
}

/* What a request of `tokens` would be told at this second. */
static bool allowed(const struct record *record, const struct rate_limits *limits, uint64_t tokens,
                    uint64_t second)
{
    uint64_t requests, used;
    sums(record, second, &requests, &used);
    return (!limits->rpm || requests < (uint64_t)limits->rpm) &&
           (!limits->tpm || used == 0 || used + tokens <= (uint64_t)limits->tpm) &&
           (!limits->concurrency || record->running < limits->concurrency);
}

static void random_traffic_is_as_the_record_says(void **state)
{
    struct fixture *f = *state;
    static const char *const names[NAMES] = {"a", "b", "provider:c"};
    static const struct rate_limits limits[NAMES] = {{20, 3000, 0}, {0, 1500, 4}, {35, 0, 9}};
    static struct record records[NAMES];
    struct {
        struct rate_take take;
        size_t who, index;
    } open[64];
    size_t open_count = 0, refused = 0, let_in = 0;
    struct rng rng;
    rng_init(&rng, 42);
    memset(records, 0, sizeof records);
    for (int step = 0; step < 6000; step++) {
        f->clock.ns += rng_u64(&rng) % (rng_u64(&rng) % 200 == 0 ? 90 * S : 3 * S / 2);
        uint64_t second = f->clock.ns / S, tokens = rng_u64(&rng) % 400, requests, used;
        size_t who = rng_u64(&rng) % NAMES;
        struct record *record = &records[who];
        if (record->count > TAKES_MAX - 2)
            break;
        if (open_count && (open_count == 64 || rng_u64(&rng) % 2)) {
            size_t at = rng_u64(&rng) % open_count;
            record = &records[open[at].who];
            uint64_t took = record->at[open[at].index].tokens;
            rates_give(f->rates, &open[at].take, tokens);
            record->running--;
            if (tokens <= took) {
                record->at[open[at].index].tokens = tokens;
            } else {
                record->at[record->count].second = second;
                record->at[record->count++].tokens = tokens - took;
            }
            open[at] = open[--open_count];
            continue;
        }
        bool should = allowed(record, &limits[who], tokens, second);
        assert_int_equal(take(f, names[who], limits[who], tokens), should);
        if (should) {
            record->at[record->count].second = second;
            record->at[record->count].tokens = tokens;
            record->at[record->count].is_take = true;
            record->running++;
            open[open_count].take = f->take;
            open[open_count].who = who;
            open[open_count++].index = record->count++;
            let_in++;
        } else {
            struct record rest = *record;
            rest.running = 0; /* may end at any time */
            assert_true(f->wait >= 1);
            assert_true(allowed(&rest, &limits[who], tokens, second + f->wait));
            assert_true(f->wait == 1 || !allowed(&rest, &limits[who], tokens, second + f->wait - 1));
            refused++;
        }
        sums(record, second, &requests, &used);
        double share = 0;
        if (limits[who].rpm)
            share = (double)requests / (double)limits[who].rpm;
        if (limits[who].tpm && (double)used / (double)limits[who].tpm > share)
            share = (double)used / (double)limits[who].tpm;
        if (limits[who].concurrency && (double)record->running / (double)limits[who].concurrency > share)
            share = (double)record->running / (double)limits[who].concurrency;
        assert_true(rates_used(f->rates, names[who], &limits[who]) == (share > 1 ? 1 : share));
    }
    assert_true(refused > 500 && let_in > 500);
}

/* ---- Memory and time */

static void names_are_bounded_and_forgotten(void **state)
{
    struct fixture *f = *state;
    const struct rate_limits limits = {.rpm = 1};
    char who[32];
    for (int i = 0; i < RATES_NAMES_MAX; i++) {
        snprintf(who, sizeof who, "%d", i);
        assert_true(take(f, who, limits, 1));
        if (i % 2)
            rates_give(f->rates, &f->take, 1);
    }
    assert_false(take(f, "one more", limits, 1));
    f->clock.ns += 61 * S; /* every second one still runs */
    assert_true(take(f, "one more", limits, 1));
    for (int i = 0; i < RATES_NAMES_MAX / 2 - 1; i++) {
        snprintf(who, sizeof who, "new %d", i);
        assert_true(take(f, who, limits, 1));
    }
    assert_false(take(f, "too many", limits, 1));
    assert_int_equal(f->wait, 1);
}

static void a_take_is_cheap(void **state)
{
    struct fixture *f = *state;
    enum { TAKES = SANITIZED ? 20000 : 500000 };
    const struct rate_limits limits = {.rpm = 1 << 30, .tpm = (int64_t)1 << 50, .concurrency = 10};
    struct rates *rates;
    char who[16][16];
    for (int i = 0; i < 16; i++)
        snprintf(who[i], sizeof who[i], "%08d", i);
    assert_int_equal(rates_create(&rates, clock_system()), PH_OK);
    double start = test_cpu_ns();
    for (int i = 0; i < TAKES; i++) {
        assert_true(rates_take(rates, who[i & 15], &limits, 100, &f->take, &f->wait, &f->which));
        rates_give(rates, &f->take, 90);
    }
    double each_ns = (test_cpu_ns() - start) / TAKES;
    print_message("a take and its return take %.0f ns\n", each_ns);
    assert_true(SANITIZED || each_ns < 3000);
    rates_free(rates);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_limited_without_limits),
        TEST(requests_come_back_a_minute_later),
        TEST(tokens_are_put_right_where_they_were_taken),
        TEST(what_left_the_window_is_not_given_back_twice),
        TEST(more_than_a_minute_has_waits_for_an_empty_one),
        TEST(only_so_many_run_together),
        TEST(random_traffic_is_as_the_record_says),
        TEST(names_are_bounded_and_forgotten),
        TEST(a_take_is_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
