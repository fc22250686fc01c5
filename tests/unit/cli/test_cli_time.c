#include "cli/cli_int.h"
#include "test_support.h"

static void spans_have_units(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } cases[] = {{"0", 0},       {"0d", 0},        {"90s", 90},     {"30m", 1800},
                 {"24h", 86400}, {"30d", 2592000}, {"2w", 1209600}, {"36600d", INT64_C(3162240000)}};
    struct ph_err err;
    int64_t seconds;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(cli_duration_parse(cases[i].text, &seconds, &err), PH_OK);
        assert_int_equal(seconds, cases[i].seconds);
    }
    const char *const bad[] = {
        "", "30", "d", "-1d", "+1d", " 1d", "1dd", "1.5h", "36601d", "99999999999999999999w", "1y"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(cli_duration_parse(bad[i], &seconds, &err), PH_ERR_ARG);
}

static void a_day_is_over_at_its_end(void **state)
{
    struct ph_err err;
    int64_t unix_s;
    (void)state;
    assert_int_equal(cli_until_parse("30d", 1000, &unix_s, &err), PH_OK);
    assert_int_equal(unix_s, 1000 + 30 * 86400);
    assert_int_equal(cli_until_parse("1970-01-02", 1000, &unix_s, &err), PH_OK);
    assert_int_equal(unix_s, 2 * 86400);
    assert_int_equal(cli_until_parse("1970-02-30", 1000, &unix_s, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "1970-02-30"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_have_units),
        cmocka_unit_test(a_day_is_over_at_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
