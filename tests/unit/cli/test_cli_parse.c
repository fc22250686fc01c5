#include "cli/cli_int.h"
#include "test_support.h"

struct values {
    const char *model, *out;
    size_t count;
    double temperature;
    bool json;
    int kv;
    struct cli_list lora, files;
};

static const char *const kv_names[] = {"f32", "f16", "q8_0", NULL};
static const struct cli_option options[] = {
    {CLI_OPTION("--model", "FILE", CLI_TEXT, struct values, model, ""), .required = true},
    {CLI_OPTION("-n", "N", CLI_COUNT, struct values, count, ""), .min = 1, .max = 100},
    {CLI_OPTION("--temperature", "X", CLI_NUMBER, struct values, temperature, "")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct values, json, "")},
    {CLI_OPTION("--kv", "f32|f16|q8_0", CLI_CHOICE, struct values, kv, ""), .names = kv_names},
    {CLI_OPTION("--lora", "FILE", CLI_LIST, struct values, lora, "")},
    {CLI_OPTION("OUT", "OUT", CLI_TEXT, struct values, out, "")},
    {CLI_OPTION("FILES", "FILES", CLI_LIST, struct values, files, "")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {"test", NULL, "A test.", options};

static bool parse(struct values *values, int *exit_code, const char *const *words)
{
    const char *argv[32] = {"test"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = words[argc - 1];
    *values = (struct values){.temperature = 1};
    return cli_parse(&usage, argc, (char **)(uintptr_t)argv, values, exit_code);
}
#define PARSE(...) parse(&values, &exit_code, (const char *const[]){__VA_ARGS__, NULL})

static void options_fill_their_fields(void **state)
{
    (void)state;
    struct values values;
    int exit_code;
    assert_true(PARSE("--model", "m.gguf", "-n", "12", "--temperature=-0.5", "--json", "--kv=q8_0", "--lora",
                      "a", "--lora=b", "out", "x", "--", "--json"));
    assert_string_equal(values.model, "m.gguf");
    assert_int_equal(values.count, 12);
    assert_true(values.temperature == -0.5);
    assert_true(values.json);
    assert_int_equal(values.kv, 2);
    assert_int_equal(values.lora.count, 2);
    assert_string_equal(values.lora.items[1], "b");
    assert_string_equal(values.out, "out");
    assert_int_equal(values.files.count, 2);
    assert_string_equal(values.files.items[1], "--json");
}

static void wrong_usage_is_exit_code_2(void **state)
{
    (void)state;
    static const char *const cases[][4] = {
        {"--modle", "x"},
        {"--model"},
        {"--model=x", "-n", "0"},
        {"--model=x", "-n", "101"},
        {"--model=x", "-n", "-1"},
        {"-n=5"},
        {"--model=x", "-n", "5x"},
        {"--model=x", "-n="},
        {"--model=x", "--json=1"},
        {"--model=x", "--kv", "f64"},
        {"--model=x", "--temperature", "nan"},
        {"--model=x", "--temperature", "hot"},
        {"--model=x", "-n", "99999999999999999999"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct values values;
        int exit_code;
        assert_false(parse(&values, &exit_code, cases[i]));
        assert_int_equal(exit_code, CLI_EXIT_USAGE);
    }
}

static void help_is_exit_code_0(void **state)
{
    (void)state;
    struct values values;
    int exit_code;
    assert_false(PARSE("--json", "--help", "--wrong"));
    assert_int_equal(exit_code, CLI_EXIT_OK);
}

static int seen_argc;
static int run_row(int argc, char **argv)
{
    seen_argc = argc;
    return strcmp(argv[0], "row") == 0 ? 7 : 8;
}

static void dispatch_finds_rows(void **state)
{
    (void)state;
    static const struct cli_command rows[] = {{"row", "", run_row}, {NULL, NULL, NULL}};
    char *known[] = {(char[]){"p"}, (char[]){"row"}, (char[]){"x"}};
    assert_int_equal(cli_dispatch("p", "", rows, 3, known), 7);
    assert_int_equal(seen_argc, 2);
    char *unknown[] = {(char[]){"p"}, (char[]){"rwo"}};
    assert_int_equal(cli_dispatch("p", "", rows, 2, unknown), CLI_EXIT_USAGE);
    assert_int_equal(cli_dispatch("p", "", rows, 1, unknown), CLI_EXIT_USAGE);
    char *version[] = {(char[]){"p"}, (char[]){"--version"}};
    assert_int_equal(cli_dispatch("p", "", rows, 2, version), CLI_EXIT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_fill_their_fields),
        cmocka_unit_test(wrong_usage_is_exit_code_2),
        cmocka_unit_test(help_is_exit_code_0),
        cmocka_unit_test(dispatch_finds_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
