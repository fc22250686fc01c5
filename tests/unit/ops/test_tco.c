#include "ops/tco.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "test_support.h"

struct test {
    struct arena arena;
    struct tco tco;
    struct tco_report report;
    struct ph_err err;
    char path[64];
};

static int set_up(void **state)
{
    static struct test test;
    test = (struct test){.path = "/tmp/pharos-tco-XXXXXX"};
    arena_init(&test.arena, 1 << 22);
    int fd = mkstemp(test.path);
    *state = &test;
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    struct test *test = *state;
    arena_release(&test->arena);
    return unlink(test->path);
}

static enum ph_status read_text(struct test *test, const char *text)
{
    assert_int_equal(file_write_atomic(test->path, text, strlen(text), 0600, &test->err), PH_OK);
    enum ph_status status = tco_read(&test->arena, test->path, &test->tco, &test->err);
    return status == PH_OK ? tco_price(&test->arena, NULL, &test->tco, &test->err) : status;
}

static void compute(struct test *test, const char *text, const struct tco_counted *counted)
{
    enum ph_status status = read_text(test, text);
    if (status == PH_OK)
        status = tco_compute(&test->arena, &test->tco, counted, &test->report, &test->err);
    if (status != PH_OK)
        fail_msg("%s", test->err.message);
}

static void near(double found, double wanted, double by)
{
    if (!(fabs(found - wanted) <= by))
        fail_msg("%.10g is not %.10g", found, wanted);
}

/* By hand: 2,500 USD over three years, 470 W for 8 hours and 100 W for 16, 0.12 USD. */
static void test_a_desktop(void **state)
{
    struct test *test = *state;
    compute(test,
            "days_month: 30\nhardware: [{name: desktop, price_usd: 2500, years: 3}]\n"
            "power: {load_w: 470, load_hours_day: 8, idle_w: 100, idle_hours_day: 16, usd_per_kwh: 0.12}\n"
            "tokens: {input_month: 60000000, output_month: 12000000}\ncontexts_month: 500000\n"
            "compare: [gpt-4o, {name: rtx4090-rental, hours_month: 800}, {name: mine, usd_month: 50}]\n",
            NULL);
    near(test->report.total_usd, 88.74, 0.005);
    near(test->report.running_usd, 19.296, 1e-9);
    near(test->report.usd_per_mtok, 88.74044 / 72, 1e-5);
    near(test->report.usd_per_mcontext, 2 * 88.74044, 1e-3);
    assert_int_equal(test->report.compared_count, 3);
    near(test->report.compared[0].offer.usd_month, 60 * 2.5 + 12 * 10, 1e-9);
    near(test->report.compared[0].saved_usd, 270 - 88.74044, 1e-4);
    near(test->report.compared[0].payback_months, 2500 / (270 - 19.296), 1e-6);
    near(test->report.compared[1].offer.usd_month, 312, 1e-9); /* the price is the list's, the hours ours */
    near(test->report.compared[2].saved_usd, 50 - 88.74044, 1e-4);
    near(test->report.compared[2].saved_share, 1 - 88.74044 / 50, 1e-4);
}

/* A published sum of 757 USD, of which 420 run on. */
static void test_a_cluster(void **state)
{
    struct test *test = *state;
    compute(test,
            "hardware: [{name: cards, price_usd: 1040, years: 1}, {name: owned, price_usd: 3000, years: 1}]\n"
            "power: {kwh_month: 400, usd_per_kwh: 0.10}\nsubscriptions: [{name: Together, usd_month: 200}]\n"
            "premium_usd_month: 180\ntokens: {input_month: 1000000, output_month: 0}\n"
            "compare: [a100-rental, all-premium]\n",
            NULL);
    near(test->report.total_usd, 756.67, 0.005);
    near(test->report.running_usd, 420, 1e-9);
    near(test->report.compared[0].offer.usd_month, 2380, 1e-9); /* accounts are needed beside it */
    near(test->report.compared[1].offer.usd_month, 5000, 1e-9);
    near(test->report.compared[1].payback_months, 4040 / 4580.0, 1e-9);
}

static void test_the_ledger_fills_in(void **state)
{
    struct test *test = *state;
    const struct tco_counted week = {
        .days = 7, .input = 7e6, .output = 0.7e6, .requests = 700, .paid_usd = 14};
    const struct tco_counted none = {.days = 0};
    const char *text = "days_month: 30\nhardware: []\npower: {kwh_month: 1, usd_per_kwh: 0.5}\n";
    compute(test, text, &week);
    near(test->report.total_usd, 60.5, 1e-9);
    near(test->report.input, 30e6, 1e-3);
    near(test->report.output, 3e6, 1e-3);
    near(test->report.contexts, 3000, 1e-9);
    assert_int_equal(tco_compute(&test->arena, &test->tco, &none, &test->report, &test->err), PH_ERR_ARG);
    assert_non_null(strstr(test->err.message, "how many tokens"));
}

static void test_power_is_measured(void **state)
{
    struct test *test = *state;
    char log[] = "/tmp/pharos-watts-XXXXXX", text[512];
    static const char lines[] =
        "time,part,sensor,celsius,watt,use_percent,memory_used_bytes,memory_total_bytes,throttle,level\n"
        "2026-01-01T00:00:00Z,gpu,0,50,100.5,10,1,2,,normal\n2026-01-01T00:00:00Z,cpu,package,40,49.5,,,,,"
        "normal\n"
        "2026-01-01T00:00:00Z,cpu,board,40,,,,,,normal\n2026-01-01T00:00:05Z,gpu,0,50,250,10,1,2,,normal\n";
    assert_int_equal(close(mkstemp(log)), 0);
    assert_int_equal(file_write_atomic(log, lines, sizeof lines - 1, 0600, &test->err), PH_OK);
    snprintf(text, sizeof text,
             "days_month: 30\nhardware: []\npower: {csv: %s, rest_w: 50, usd_per_kwh: 1}\n"
             "tokens: {input_month: 0, output_month: 0}\n",
             log);
    compute(test, text, NULL);
    near(test->report.total_usd, (200 + 50) * 24 * 30 / 1000.0, 1e-9);
    near(test->report.usd_per_mtok, -1, 0); /* nothing is served */
    assert_int_equal(file_write_atomic(log, "time\n", 5, 0600, &test->err), PH_OK);
    assert_int_equal(tco_compute(&test->arena, &test->tco, NULL, &test->report, &test->err), PH_ERR_FORMAT);
    assert_int_equal(file_write_atomic(log, lines, strcspn(lines, "\n") + 1, 0600, &test->err), PH_OK);
    assert_int_equal(tco_compute(&test->arena, &test->tco, NULL, &test->report, &test->err), PH_ERR_FORMAT);
    assert_non_null(strstr(test->err.message, "no sensor"));
    unlink(log);
}

#define TOKENS "\ntokens: {input_month: 1, output_month: 1}\n"
#define POWER "\npower: {kwh_month: 1, usd_per_kwh: 1}"

static void test_what_is_refused(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"hardware: [{name: gift, price_usd: 0, years: 3}]" POWER TOKENS, "not free"},
        {"hardware: [{name: gift, years: 3}]" POWER TOKENS, "price_usd"},
        {"hardware: [{name: a, price_usd: 1, years: 3, residual_usd: 2}]" POWER TOKENS, "more than it cost"},
        {"hardware: [{name: a, price_usd: 1, years: 3}, {name: a, price_usd: 1, years: 3}]" POWER TOKENS,
         "twice"},
        {"hardware: []" TOKENS, "nothing runs without it"},
        {"power: {kwh_month: 1, load_w: 1, load_hours_day: 1, usd_per_kwh: 1}" TOKENS, "several"},
        {"power: {load_w: 1, load_hours_day: 20, idle_hours_day: 5, usd_per_kwh: 1}" TOKENS, "24 hours"},
        {"power: {kwh_month: 1}" TOKENS, "usd_per_kwh"},
        {"compare: [nobody-knows]" POWER TOKENS, "nobody-knows"},
        {"power: {csv: /nowhere, usd_per_kwh: 1}" TOKENS, "/nowhere"},
        {"hardwear: []" POWER TOKENS, "hardware"},
    };
    struct test *test = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum ph_status status = read_text(test, cases[i].text);
        if (status == PH_OK)
            status = tco_compute(&test->arena, &test->tco, NULL, &test->report, &test->err);
        if (status == PH_OK || !strstr(test->err.message, cases[i].message))
            fail_msg("%s: %s", cases[i].text, status == PH_OK ? "is taken" : test->err.message);
    }
}

/* Every total is the sum of its lines, and every line has its arithmetic. */
static void test_totals_are_sums(void **state)
{
    struct test *test = *state;
    struct rng rng;
    rng_init(&rng, 7);
    for (int round = 0; round < 200; round++) {
        struct tco_hardware hardware[4] = {{0}};
        struct tco_subscription subscriptions[3] = {{0}};
        char names[4][2] = {"a", "b", "c", "d"};
        for (int i = 0; i < 4; i++)
            hardware[i] = (struct tco_hardware){names[i], 1 + 5000 * rng_double(&rng),
                                                0.5 + 5 * rng_double(&rng), rng_double(&rng)};
        for (int i = 0; i < 3; i++)
            subscriptions[i] = (struct tco_subscription){names[i], 300 * rng_double(&rng)};
        const struct tco tco = {
            .days_month = 28 + 3 * rng_double(&rng),
            .hardware = {hardware, rng_u64(&rng) % 5},
            .power = {.kwh_month = 1 + 999 * rng_double(&rng), .usd_per_kwh = 0.1 + rng_double(&rng)},
            .subscriptions = {subscriptions, rng_u64(&rng) % 4},
            .premium_usd_month = 100 * rng_double(&rng),
            .tokens = {1e9 * rng_double(&rng), 1e8 * rng_double(&rng)},
            .contexts_month = -1};
        double sum = 0, running = 0;
        assert_int_equal(tco_compute(&test->arena, &tco, NULL, &test->report, &test->err), PH_OK);
        for (size_t i = 0; i < test->report.line_count; i++) {
            sum += test->report.lines[i].usd_month;
            running += i < tco.hardware.count ? 0 : test->report.lines[i].usd_month;
            assert_true(strlen(test->report.lines[i].arithmetic) > 4);
        }
        assert_int_equal(test->report.line_count, tco.hardware.count + tco.subscriptions.count + 2);
        near(test->report.total_usd, sum, 1e-9);
        near(test->report.running_usd, running, 1e-9);
    }
}

static void test_what_is_shipped_is_read(void **state)
{
    struct test *test = *state;
    char text[8192];
    struct tco_text example = tco_example();
    assert_true(example.len < sizeof text);
    memcpy(text, example.text, example.len);
    text[example.len] = 0;
    compute(test, text, NULL);
    assert_int_equal(test->report.compared_count, 5);
    for (size_t i = 0; i < test->report.compared_count; i++)
        assert_non_null(test->report.compared[i].date);
}

#define CASE(test_) cmocka_unit_test_setup_teardown(test_, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_a_desktop),
        CASE(test_a_cluster),
        CASE(test_the_ledger_fills_in),
        CASE(test_power_is_measured),
        CASE(test_what_is_refused),
        CASE(test_totals_are_sums),
        CASE(test_what_is_shipped_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
