#include "cli/cli_int.h"
#include "test_support.h"

static const char *data_dir(const char *given, const char *pharos, const char *xdg, const char *home)
{
    static char dir[PATH_BYTES_MAX];
    struct ph_err err = {0};
    setenv("PHAROS_DATA", pharos, 1);
    setenv("XDG_DATA_HOME", xdg, 1);
    setenv("HOME", home, 1);
    return cli_data_dir(given, dir, &err) == PH_OK ? dir : "";
}

static void the_nearest_wish_wins(void **state)
{
    (void)state;
    assert_string_equal(data_dir("here", "/p", "/x", "/h"), "here");
    assert_string_equal(data_dir(NULL, "/p", "/x", "/h"), "/p");
    assert_string_equal(data_dir(NULL, "", "/x", "/h"), "/x/pharos");
    assert_string_equal(data_dir(NULL, "", "x", "/h"), "/h/.local/share/pharos");
    assert_string_equal(data_dir(NULL, "", "", "/h"), "/h/.local/share/pharos");
}

static void without_a_place_there_is_an_error(void **state)
{
    (void)state;
    static char dir[PATH_BYTES_MAX], name[PATH_BYTES_MAX + 1];
    struct ph_err err = {0};
    assert_string_equal(data_dir(NULL, "", "", ""), "");
    assert_int_equal(cli_data_dir(NULL, dir, &err), PH_ERR_NOTFOUND);
    assert_non_null(strstr(err.message, "--data"));
    assert_int_equal(cli_data_dir("", dir, &err), PH_ERR_ARG);
    memset(name, 'a', PATH_BYTES_MAX);
    assert_int_equal(cli_data_dir(name, dir, &err), PH_ERR_LIMIT);
    name[PATH_BYTES_MAX - 1] = 0;
    assert_int_equal(cli_data_dir(name, dir, &err), PH_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nearest_wish_wins),
        cmocka_unit_test(without_a_place_there_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
