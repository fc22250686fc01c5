/* The table of names against a plain list. */
#include "base/mem.h"
#include "gateway/names_int.h"
#include "test_support.h"

struct thing {
    struct name_entry name;
    size_t number;
};

static const char *name_of(size_t number)
{
    static char text[32];
    snprintf(text, sizeof text, "name-%zu", number);
    return text;
}

static bool is_odd(const struct name_entry *entry, void *ud)
{
    (*(size_t *)ud)++;
    return ((const struct thing *)entry)->number % 2;
}

static void entries_are_found_until_swept(void **state)
{
    enum { MANY = 1000 };
    struct names names = {0};
    struct thing *things[MANY];
    size_t seen = 0;
    (void)state;
    assert_null(names_find(&names, "anything"));
    for (size_t i = 0; i < MANY; i++) {
        assert_null(names_find(&names, name_of(i)));
        things[i] = names_add(&names, name_of(i), sizeof **things);
        assert_non_null(things[i]);
        assert_string_equal(things[i]->name.name, name_of(i));
        things[i]->number = i;
    }
    assert_int_equal(names.count, MANY);
    for (size_t i = 0; i < MANY; i++)
        assert_ptr_equal(names_find(&names, name_of(i)), things[i]);
    names_sweep(&names, is_odd, &seen);
    assert_int_equal(seen, MANY);
    assert_int_equal(names.count, MANY / 2);
    for (size_t i = 0; i < MANY; i++)
        assert_ptr_equal(names_find(&names, name_of(i)), i % 2 ? NULL : things[i]);
    names_release(&names);
    assert_int_equal(names.count, 0);
    assert_null(names_find(&names, "name-2"));
}

static void an_empty_name_is_a_name(void **state)
{
    struct names names = {0};
    (void)state;
    struct thing *nobody = names_add(&names, "", sizeof *nobody);
    assert_ptr_equal(names_find(&names, ""), nobody);
    assert_null(names_find(&names, "a"));
    names_release(&names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_found_until_swept),
        cmocka_unit_test(an_empty_name_is_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
