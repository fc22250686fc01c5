#include <stdbool.h>
#include <time.h>

#include "base/clock.h"
#include "base/id.h"
#include "test_support.h"

static uint64_t fake_monotonic(void *ud)
{
    return (*(uint64_t *)ud)++;
}

static int64_t fake_unix(void *ud)
{
    return (int64_t) * (uint64_t *)ud;
}

static void a_clock_is_a_parameter(void **state)
{
    (void)state;
    uint64_t ticks = 41;
    struct clock_source fake = {fake_monotonic, fake_unix, &ticks};
    assert_int_equal(clock_monotonic_ns(&fake), 41);
    assert_int_equal(clock_unix_ms(&fake), 42);
}

static void the_system_clock_moves_on(void **state)
{
    (void)state;
    const struct clock_source *clock = clock_system();
    uint64_t start = clock_monotonic_ns(clock), last = start;
    while (last == start) {
        uint64_t now = clock_monotonic_ns(clock);
        assert_true(now >= last);
        last = now;
    }
    int64_t now_ms = clock_unix_ms(clock);
    assert_true(now_ms / 1000 >= (int64_t)time(NULL) - 2 && now_ms / 1000 <= (int64_t)time(NULL) + 2);
}

static void times_are_written_in_utc(void **state)
{
    (void)state;
    static const struct {
        int64_t unix_ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {951782400000 - 1, "2000-02-28T23:59:59.999Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {1709210096007, "2024-02-29T12:34:56.007Z"},
        {4107542399999, "2100-02-28T23:59:59.999Z"},
        {4107542400000, "2100-03-01T00:00:00.000Z"},
        {-62135596800000, "0001-01-01T00:00:00.000Z"},
    };
    char text[CLOCK_UTC_TEXT_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        clock_format_utc(cases[i].unix_ms, text);
        assert_string_equal(text, cases[i].text);
    }
    for (int64_t day = -40000; day < 80000; day++) {
        time_t seconds = (time_t)(day * 86400 + 3661);
        struct tm tm;
        char expected[64];
        assert_non_null(gmtime_r(&seconds, &tm));
        strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%S.000Z", &tm);
        clock_format_utc((int64_t)seconds * 1000, text);
        assert_string_equal(text, expected);
    }
}

/* First outputs of xoshiro256** from the state {1, 2, 3, 4}, as other implementations publish them. */
static void days_are_read_as_they_are_written(void **state)
{
    (void)state;
    char text[CLOCK_UTC_TEXT_MAX];
    int64_t days;
    for (int64_t day = -719528; day < 2932897; day += 17) { /* years 0 to 9999 */
        clock_format_utc(day * 86400000, text);
        text[10] = 0;
        assert_true(clock_date_parse(text, &days));
        assert_int_equal(days, day);
    }
    assert_true(clock_date_parse("2024-02-29", &days));
    assert_int_equal(days, 19782);
    const char *const none[] = {"",           "2023-02-29", "2024-13-01", "2024-00-10",
                                "2024-04-31", "2024-01-00", "2024-1-01",  "24-01-01",
                                "2024/01/01", "2024-01-1x", "2024-01-011"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_false(clock_date_parse(none[i], &days));
}

static void the_generator_is_xoshiro256starstar(void **state)
{
    (void)state;
    static const uint64_t expected[] = {
        11520u, 0u, 1509978240u, 1215971899390074240u, 1216172134540287360u, 607988272756665600u,
    };
    struct rng rng = {{1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_true(rng_u64(&rng) == expected[i]);
    rng_init(&rng, 0); /* splitmix64 from 0 */
    assert_true(rng.state[0] == 0xE220A8397B1DCDAFu);
    assert_true(rng.state[1] == 0x6E789E6AA1B965F4u);
}

static void uniform_numbers_fill_the_unit_interval(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 5);
    double sum = 0, min = 1, max = 0;
    for (int i = 0; i < 100000; i++) {
        float f = rng_float(&rng);
        double d = rng_double(&rng);
        assert_true(f >= 0 && f < 1 && d >= 0 && d < 1);
        sum += (double)f + d;
        min = d < min ? d : min;
        max = d > max ? d : max;
    }
    assert_true(sum / 200000 > 0.495 && sum / 200000 < 0.505);
    assert_true(min < 0.001 && max > 0.999);
}

static void entropy_differs_from_call_to_call(void **state)
{
    (void)state;
    unsigned char a[4096] = {0}, b[4096] = {0};
    assert_int_equal(entropy_fill(a, sizeof a), 0);
    assert_int_equal(entropy_fill(b, sizeof b), 0);
    assert_memory_not_equal(a, b, sizeof a);
    unsigned counts[256] = {0};
    for (size_t i = 0; i < sizeof a; i++)
        counts[a[i]]++;
    for (int i = 0; i < 256; i++)
        assert_true(counts[i] < 64);
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void ids_are_letters_digits_and_unique(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static char ids[COUNT][ID_TEXT_MAX];
    unsigned counts[128] = {0};
    struct rng rng;
    rng_init(&rng, 9);
    for (int i = 0; i < COUNT; i++) {
        id_make(&rng, "chatcmpl-", ids[i]);
        assert_int_equal(strlen(ids[i]), 8 + 1 + 24);
        assert_memory_equal(ids[i], "chatcmpl-", 9);
        assert_int_equal(strspn(ids[i] + 9, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"),
                         24);
        for (int k = 9; k < 33; k++)
            counts[(unsigned char)ids[i][k]]++;
    }
    for (int c = 0; c < 128; c++)
        assert_true(counts[c] == 0 || (counts[c] > 7200 && counts[c] < 8300)); /* 7742 expected, 6 sigma */
    qsort(ids, COUNT, sizeof ids[0], compare_ids);
    for (int i = 1; i < COUNT; i++)
        assert_string_not_equal(ids[i - 1], ids[i]);
}

static void a_long_prefix_fits(void **state)
{
    (void)state;
    struct rng rng;
    char id[ID_TEXT_MAX];
    rng_init(&rng, 1);
    id_make(&rng, "12345678901234567890", id);
    assert_int_equal(strlen(id), 44);
}

/* Day after day over eight centuries: each date follows the one before, and leads back to its day. */
static void days_and_dates_are_the_same(void **state)
{
    (void)state;
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct clock_date last = clock_date(-146098);
    for (int64_t day = -146097; day < 146097; day++) {
        struct clock_date date = clock_date(day);
        bool leap = (last.year % 4 == 0 && last.year % 100 != 0) || last.year % 400 == 0;
        bool ends = last.day == lengths[last.month - 1] + (leap && last.month == 2);
        bool year_ends = ends && last.month == 12;
        assert_int_equal(date.day, ends ? 1 : last.day + 1);
        assert_int_equal(date.month, year_ends ? 1 : last.month + ends);
        assert_int_equal(date.year, last.year + year_ends);
        assert_int_equal(clock_day_of(date), day);
        last = date;
    }
    assert_int_equal(clock_day(-1), -1);
    assert_int_equal(clock_day(0), 0);
    assert_int_equal(clock_day_of((struct clock_date){2026, 13, 1}),
                     clock_day_of((struct clock_date){2027, 1, 1}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clock_is_a_parameter),
        cmocka_unit_test(the_system_clock_moves_on),
        cmocka_unit_test(times_are_written_in_utc),
        cmocka_unit_test(days_and_dates_are_the_same),
        cmocka_unit_test(days_are_read_as_they_are_written),
        cmocka_unit_test(the_generator_is_xoshiro256starstar),
        cmocka_unit_test(uniform_numbers_fill_the_unit_interval),
        cmocka_unit_test(entropy_differs_from_call_to_call),
        cmocka_unit_test(ids_are_letters_digits_and_unique),
        cmocka_unit_test(a_long_prefix_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
