#include "base/values.h"

#include "test_support.h"

static void test_medians(void **state)
{
    double odd[] = {3, -1, 2}, even[] = {4, 1, 3, 2}, same[] = {5, 5};
    (void)state;
    assert_true(values_median(odd, 3) == 2);
    assert_true(values_median(even, 4) == 2.5);
    assert_true(values_median(same, 2) == 5);
    assert_true(values_median(odd, 1) == -1); /* sorted they stay */
    assert_true(values_median(NULL, 0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_medians)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
