/* pharos cost report, from argv to stdout, over a journal made here. */
#include <dirent.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/cli_int.h"
#include "gateway/ledger.h"
#include "test_support.h"

#define DAY_MS INT64_C(86400000)
#define NOON (INT64_C(1795176000000)) /* 2026-11-20T12:00:00Z */

struct fixture {
    char data[64], ledger[80], out[128], err[128];
    int64_t now_ms;
    struct buf text, errors;
    int exit_code;
};

static uint64_t no_monotonic(void *ud)
{
    (void)ud;
    return 1;
}

static int64_t set_unix(void *ud)
{
    return *(int64_t *)ud;
}

static void spend(struct ledger *ledger, const char *request, const char *key, const char *model,
                  enum ledger_tier tier, uint64_t output, enum ledger_outcome outcome)
{
    const struct ledger_price price = {2500000, 1250000, 0, 10000000}; /* 2.5 and 10 USD a million */
    static const char *const providers[] = {"local", "together", "openai"};
    struct ledger_ask ask = {.request_id = request,
                             .key_id = key,
                             .model = model,
                             .provider = providers[tier],
                             .tier = tier,
                             .price = tier == LEDGER_PREMIUM ? price : (struct ledger_price){0},
                             .premium = tier == LEDGER_SUBSCRIPTION ? (struct ledger_price){0} : price,
                             .prompt_tokens = 1000,
                             .output_tokens_max = 1000};
    struct ledger_hold *hold;
    assert_int_equal(ledger_reserve(ledger, &ask, &hold, NULL), PH_OK);
    ledger_settle(
        ledger, hold,
        &(struct ledger_usage){.prompt_tokens = 1000, .cached_tokens = 400, .output_tokens = output},
        outcome);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct clock_source clock = {no_monotonic, set_unix, &f->now_ms};
    struct ledger *ledger;
    struct ph_err err;
    snprintf(f->data, sizeof f->data, "/tmp/test_cost.XXXXXX");
    assert_non_null(mkdtemp(f->data));
    snprintf(f->ledger, sizeof f->ledger, "%s/ledger", f->data);
    snprintf(f->out, sizeof f->out, "%s/out", f->data);
    snprintf(f->err, sizeof f->err, "%s/err", f->data);
    f->now_ms = NOON;
    if (ledger_open(&ledger, &(struct ledger_params){f->ledger, &clock}, NULL, &err) != PH_OK)
        fail_msg("%s", err.message);
    spend(ledger, "r1", "anna", "gpt-4o", LEDGER_PREMIUM, 100, LEDGER_WHOLE);
    spend(ledger, "r2", "anna", "small", LEDGER_LOCAL, 50, LEDGER_WHOLE);
    spend(ledger, "r2", "anna", "gpt-4o", LEDGER_PREMIUM, 7, LEDGER_ABORTED); /* the same, tried again */
    f->now_ms += DAY_MS;
    spend(ledger, "r3", "b, \"the\" builder", "small", LEDGER_LOCAL, 10, LEDGER_WHOLE);
    spend(ledger, "r4", "", "llama\n70b", LEDGER_SUBSCRIPTION, 10, LEDGER_FAILED);
    ledger_close(ledger);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char name[512];
    DIR *dir = opendir(f->ledger);
    for (struct dirent *entry; (entry = readdir(dir));) {
        snprintf(name, sizeof name, "%s/%s", f->ledger, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(name);
    }
    closedir(dir);
    rmdir(f->ledger);
    unlink(f->out);
    unlink(f->err);
    rmdir(f->data);
    buf_release(&f->text);
    buf_release(&f->errors);
    free(f);
    return 0;
}

static int redirect(int fd, const char *path)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    int kept = dup(fd);
    dup2(fileno(file), fd);
    fclose(file);
    return kept;
}

static void restore(int fd, int kept)
{
    dup2(kept, fd);
    close(kept);
}

static void slurp(struct buf *buf, const char *path)
{
    buf_release(buf);
    buf_init(buf, 1 << 20);
    assert_int_equal(file_read(path, buf, NULL), PH_OK);
    buf_puts(buf, "");
}

static const char *report(struct fixture *f, const char *const *words)
{
    char *argv[16] = {(char[]){"report"}};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    fflush(stdout);
    int kept_out = redirect(STDOUT_FILENO, f->out), kept_err = redirect(STDERR_FILENO, f->err);
    f->exit_code = cmd_cost_report(argc, argv);
    fflush(stdout);
    restore(STDOUT_FILENO, kept_out);
    restore(STDERR_FILENO, kept_err);
    slurp(&f->text, f->out);
    slurp(&f->errors, f->err);
    return f->text.data;
}
#define REPORT(f, ...)                                                                                 \
    report(f, (const char *const[]){"--data", (f)->data, "--from", "2026-11-01", "--to", "2026-11-30", \
                                    __VA_ARGS__, NULL})

static void the_table_adds_up(void **state)
{
    struct fixture *f = *state;
    static const char want[] =
        "day         requests  tokens in  cached  tokens out  cost $  at premium $  saved $\n"
        "2026-11-20         2       3000    1200         157  0.0051        0.0076   0.0025\n"
        "2026-11-21         2       2000     800          20  0.0000        0.0021   0.0021\n"
        "total              4       5000    2000         177  0.0051        0.0097   0.0046\n";
    assert_string_equal(REPORT(f, "--by", "day"), want);
    assert_int_equal(f->exit_code, CLI_EXIT_OK);
    assert_string_equal(f->errors.data, "");
}

static void rows_are_what_was_asked_for(void **state)
{
    struct fixture *f = *state;
    static const char want[] =
        "tier          model      requests  tokens in  cached  tokens out  cost $  at premium $  saved $\n"
        "local         small             2       2000     800          60  0.0000        0.0046   0.0046\n"
        "premium       gpt-4o            2       2000     800         107  0.0051        0.0051   0.0000\n"
        "subscription  llama?70b         1       1000     400          10  0.0000        0.0000   0.0000\n"
        "total                           4       5000    2000         177  0.0051        0.0097   0.0046\n";
    assert_string_equal(REPORT(f, "--by", "tier,model"), want);
    static const char csv[] =
        "key,requests,attempts,input_tokens,cached_tokens,cache_write_tokens,output_tokens,cost_usd,"
        "premium_usd,saved_usd,aborted,cut,failed,crashed,estimated\n"
        ",1,1,1000,400,0,10,0.00,0.00,0.00,0,0,1,0,0\n"
        "anna,2,3,3000,1200,0,157,0.00507,0.00757,0.0025,1,0,0,0,0\n"
        "\"b, \"\"the\"\" builder\",1,1,1000,400,0,10,0.00,0.0021,0.0021,0,0,0,0,0\n";
    assert_string_equal(REPORT(f, "--by=key", "--csv"), csv);
}

static void json_is_exact(void **state)
{
    struct fixture *f = *state;
    struct arena arena;
    struct json *root;
    struct ph_err err = {0};
    double cost;
    int64_t requests;
    arena_init(&arena, 1 << 20);
    const char *text = REPORT(f, "--json", "--by", "provider");
    if (json_parse(&arena, text, strlen(text), &root, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_true(json_text_is(json_get(root, "from"), "2026-11-01"));
    assert_true(json_text_is(json_get(root, "to"), "2026-11-30"));
    assert_int_equal(json_count(json_get(root, "rows")), 3);
    const struct json *row = json_at(json_get(root, "rows"), 1);
    assert_true(json_text_is(json_get(row, "provider"), "openai"));
    assert_true(json_to_double(json_get(row, "cost_usd"), &cost) && cost == 0.00507);
    assert_true(json_to_int64(json_get(json_get(root, "total"), "requests"), &requests) && requests == 4);
    assert_true(json_to_int64(json_get(root, "damaged"), &requests) && requests == 0);
    arena_release(&arena);
}

static void days_bound_it(void **state)
{
    struct fixture *f = *state;
    const char *text =
        report(f, (const char *const[]){"--data", f->data, "--to", "2026-11-20", "--csv", NULL});
    assert_non_null(strstr(text, "\n2026-11-20,2,3,"));
    assert_null(strstr(text, "2026-11-21"));
    text = report(f, (const char *const[]){"--data", f->data, "--from", "2026-11-21", "--to", "2026-11-21",
                                           "--csv", NULL});
    assert_null(strstr(text, "2026-11-20"));
    assert_non_null(strstr(text, "\n2026-11-21,2,2,"));
    text = report(f, (const char *const[]){"--data", f->data, "--to", "2025-01-31", NULL});
    assert_non_null(strstr(text, "total         0"));
    assert_int_equal(f->exit_code, CLI_EXIT_OK);
}

static void damage_is_told(void **state)
{
    struct fixture *f = *state;
    char path[160];
    snprintf(path, sizeof path, "%s/2026-11-20.journal", f->ledger);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, 256 + 256 + 100, SEEK_SET);
    fputc('!', file);
    fclose(file);
    assert_non_null(strstr(REPORT(f, "--csv"), "\n2026-11-20,2,2,"));
    assert_non_null(strstr(f->errors.data, "1 damaged records were skipped"));
    assert_int_equal(f->exit_code, CLI_EXIT_OK);
    assert_non_null(strstr(REPORT(f, "--json"), "\"damaged\":1}"));
    assert_string_equal(f->errors.data, "");
}

static void wrong_usage_is_named(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *words[4], *say;
        int exit_code;
    } cases[] = {
        {{"--from", "2026-02-30"}, "2026-02-30 is no day", CLI_EXIT_USAGE},
        {{"--to", "20261121xx"}, "is no day", CLI_EXIT_USAGE},
        {{"--to", "heute"}, "is no day", CLI_EXIT_USAGE},
        {{"--from", "2026-11-02", "--to", "2026-11-01"}, "end before it begins", CLI_EXIT_USAGE},
        {{"--by", "day,"}, "--by takes", CLI_EXIT_USAGE},
        {{"--by", "day,day"}, "each once", CLI_EXIT_USAGE},
        {{"--by", "colour"}, "not \"colour\"", CLI_EXIT_USAGE},
        {{"--json", "--csv"}, "not both", CLI_EXIT_USAGE},
        {{"--data", "/no/such/place"}, "no ledger in /no/such/place", CLI_EXIT_FAILURE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *words[5] = {cases[i].words[0], cases[i].words[1], cases[i].words[2], cases[i].words[3]};
        report(f, words);
        assert_int_equal(f->exit_code, cases[i].exit_code);
        assert_non_null(strstr(f->errors.data, cases[i].say));
        assert_string_equal(f->text.data, "");
    }
}

int main(void)
{
#define WITH_JOURNAL(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_JOURNAL(the_table_adds_up), WITH_JOURNAL(rows_are_what_was_asked_for),
        WITH_JOURNAL(json_is_exact),     WITH_JOURNAL(days_bound_it),
        WITH_JOURNAL(damage_is_told),    WITH_JOURNAL(wrong_usage_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
