/* A command's options read from YAML: every type, what is no key, and errors that name the line. */
#include <unistd.h>

#include "base/arena.h"
#include "base/file.h"
#include "cli/cli_int.h"
#include "test_support.h"

struct values {
    const char *text, *config;
    struct cli_list list;
    size_t count, any;
    double number;
    int choice;
    bool on, off;
};

static const char *const names[] = {"red", "green", NULL};
static const struct cli_option options[] = {
    {CLI_OPTION("FILE", NULL, CLI_LIST, struct values, list, "")},
    {CLI_OPTION("-n", "N", CLI_COUNT, struct values, any, "")},
    {CLI_OPTION("--config", "F", CLI_TEXT, struct values, config, "")},
    {CLI_OPTION("--some-text", "T", CLI_TEXT, struct values, text, "")},
    {CLI_OPTION("--list", "T", CLI_LIST, struct values, list, "")},
    {CLI_OPTION("--count", "N", CLI_COUNT, struct values, count, ""), .min = 1, .max = 9},
    {CLI_OPTION("--any", "N", CLI_COUNT, struct values, any, "")},
    {CLI_OPTION("--number", "X", CLI_NUMBER, struct values, number, ""), .min = 0, .max = 1},
    {CLI_OPTION("--choice", "C", CLI_CHOICE, struct values, choice, ""), .names = names},
    {CLI_OPTION("--on", NULL, CLI_SWITCH, struct values, on, "")},
    {CLI_OPTION("--off", NULL, CLI_SWITCH, struct values, off, "")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {"test", NULL, "", options};
static const char *const not_there[] = {"--config", NULL};

static enum ph_status read_yaml(struct arena *arena, const char *yaml, struct values *v, struct ph_err *err)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/pharos-test-%d.yaml", (int)getpid());
    assert_int_equal(file_write_atomic(path, yaml, strlen(yaml), 0600, NULL), PH_OK);
    enum ph_status status = cli_config_read(arena, path, &usage, not_there, v, sizeof *v, err);
    unlink(path);
    return status;
}

static void every_type_is_read_and_silence_changes_nothing(void **state)
{
    (void)state;
    struct arena arena;
    struct values v = {.count = 3, .any = 4, .number = 0.5, .off = true, .config = "kept"};
    struct ph_err err;
    arena_init(&arena, 1 << 20);
    if (read_yaml(
            &arena,
            "some_text: a b\nlist: [one, two]\nany: 9000000000000000\nchoice: green\non: true\noff: false\n",
            &v, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_string_equal(v.text, "a b");
    assert_string_equal(v.config, "kept");
    assert_int_equal(v.list.count, 2);
    assert_string_equal(v.list.items[0], "one");
    assert_string_equal(v.list.items[1], "two");
    assert_int_equal(v.count, 3);
    assert_true(v.any == 9000000000000000);
    assert_true(v.number > 0.4 && v.number < 0.6);
    assert_int_equal(v.choice, 1);
    assert_true(v.on && !v.off);
    assert_int_equal(read_yaml(&arena, "number: 1\n", &v, &err), PH_OK);
    assert_int_equal(v.list.count, 2); /* a list that is not there changes nothing either */
    assert_true(v.number > 0.9);
    arena_release(&arena);
}

static void what_is_wrong_is_named_with_its_line(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"count: 3\nnumbr: 1\n", ".yaml:2: unknown key \"numbr\""},
        {"some-text: x\n", ".yaml:1: unknown key"},
        {"config: x\n", ".yaml:1: unknown key"},
        {"count: 10\n", ".yaml:1: count"},
        {"any: -1\n", ".yaml:1: any"},
        {"number: much\n", ".yaml:1: number"},
        {"choice: blue\n", ".yaml:1: "},
        {"list: one\n", ".yaml:1: list"},
        {"on: 3\n", ".yaml:1: on"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct arena arena;
        struct values v = {.count = 3};
        struct ph_err err = {0};
        arena_init(&arena, 1 << 20);
        if (read_yaml(&arena, rows[i][0], &v, &err) == PH_OK || !strstr(err.message, rows[i][1]))
            fail_msg("%s: \"%s\"", rows[i][0], err.message);
        assert_int_equal(v.count, 3);
        arena_release(&arena);
    }
}

static void a_list_has_a_longest_length(void **state)
{
    (void)state;
    struct arena arena;
    struct values v = {0};
    struct ph_err err;
    char yaml[1024] = "list: [a";
    for (int i = 1; i <= CLI_LIST_MAX; i++)
        memcpy(yaml + strlen(yaml), ", a", 4);
    memcpy(yaml + strlen(yaml), "]\n", 3);
    arena_init(&arena, 1 << 20);
    assert_int_equal(read_yaml(&arena, yaml, &v, &err), PH_ERR_LIMIT);
    assert_non_null(strstr(err.message, "65 items"));
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_read_and_silence_changes_nothing),
        cmocka_unit_test(what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(a_list_has_a_longest_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
