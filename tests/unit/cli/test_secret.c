/* Secrets of accounts elsewhere: from a value, from a file, refused without being repeated. */
#include <sys/stat.h>

#include "base/file.h"
#include "base/limits.h"
#include "cli/secret_int.h"
#include "test_support.h"

struct fixture {
    char path[64], value[80];
    struct arena arena;
    const char *const *keys;
    size_t count;
    struct ph_err err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->path, sizeof f->path, "/tmp/test_account_keys.XXXXXX");
    close(mkstemp(f->path));
    snprintf(f->value, sizeof f->value, "file:%s", f->path);
    arena_init(&f->arena, 1u << 20);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    unlink(f->path);
    arena_release(&f->arena);
    free(f);
    return 0;
}

static enum ph_status read_value(struct fixture *f, const char *value)
{
    return secret_read(&f->arena, value, &f->keys, &f->count, &f->err);
}

static enum ph_status read_file(struct fixture *f, const char *text, mode_t mode)
{
    assert_int_equal(file_write_atomic(f->path, text, strlen(text), 0600, NULL), PH_OK);
    assert_int_equal(chmod(f->path, mode), 0);
    return read_value(f, f->value);
}

static void a_value_is_one_key(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_value(f, "sk-abc"), PH_OK);
    assert_int_equal(f->count, 1);
    assert_string_equal(f->keys[0], "sk-abc");
    assert_int_equal(read_value(f, ""), PH_ERR_ARG);
    assert_int_equal(f->count, 0);
    assert_int_equal(read_value(f, "two words"), PH_ERR_FORMAT);
    assert_null(strstr(f->err.message, "words"));
}

static void a_file_has_a_key_a_line(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_file(f, "# ours\n\n  sk-one \t\r\nsk-two\n \t\nsk-three", 0600), PH_OK);
    assert_int_equal(f->count, 3);
    assert_string_equal(f->keys[0], "sk-one");
    assert_string_equal(f->keys[1], "sk-two");
    assert_string_equal(f->keys[2], "sk-three");
    assert_int_equal(read_file(f, "sk-one", 0400), PH_OK);
}

static void a_file_that_others_can_read_is_refused(void **state)
{
    struct fixture *f = *state;
    const mode_t modes[] = {0640, 0604, 0660, 0666, 0610};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(read_file(f, "sk-one\n", modes[i]), PH_ERR_ARG);
        assert_non_null(strstr(f->err.message, "chmod 600 "));
        assert_non_null(strstr(f->err.message, f->path));
        assert_null(strstr(f->err.message, "sk-one"));
    }
}

static void what_is_no_key_is_named_by_line_only(void **state)
{
    struct fixture *f = *state;
    const char *const texts[] = {"sk-good\nsecret here\n", "sk-good\nsecret\x01\n",
                                 "sk-good\nsecr\xc3\xa9t\n"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(read_file(f, texts[i], 0600), PH_ERR_FORMAT);
        assert_non_null(strstr(f->err.message, "line 2:"));
        assert_non_null(strstr(f->err.message, f->path));
        assert_null(strstr(f->err.message, "secr"));
        assert_int_equal(f->count, 0);
    }
    assert_int_equal(read_file(f, "\n# none\n", 0600), PH_ERR_FORMAT);
    assert_int_equal(read_value(f, "file:/nowhere/at/all"), PH_ERR_NOTFOUND);
}

static void there_are_limits(void **state)
{
    struct fixture *f = *state;
    char text[ACCOUNT_KEYS_MAX * 2 + 3] = "";
    for (size_t i = 0; i < ACCOUNT_KEYS_MAX; i++)
        memcpy(text + 2 * i, "k\n", 3);
    assert_int_equal(read_file(f, text, 0600), PH_OK);
    assert_int_equal(f->count, ACCOUNT_KEYS_MAX);
    memcpy(text + 2 * ACCOUNT_KEYS_MAX, "k\n", 3);
    assert_int_equal(read_file(f, text, 0600), PH_ERR_LIMIT);
    char *large = calloc(1, 70000);
    memset(large, 'a', 9000);
    assert_int_equal(read_file(f, large, 0600), PH_ERR_LIMIT);
    memset(large, '\n', 69999);
    assert_int_equal(read_file(f, large, 0600), PH_ERR_LIMIT);
    free(large);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_value_is_one_key),
        TEST(a_file_has_a_key_a_line),
        TEST(a_file_that_others_can_read_is_refused),
        TEST(what_is_no_key_is_named_by_line_only),
        TEST(there_are_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
