/* What the doctor says of clocks, modes, disks and models, on a made-up machine. */
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "ops/doctor.h"
#include "test_support.h"

struct fixture {
    char root[64], data[96];
    int64_t now_ms;
    struct clock_source clock;
    struct doctor_subject subject;
    struct {
        char check[32], what[600], advice[600];
        enum doctor_level level;
    } lines[64];
    size_t count;
};

static int64_t fake_unix_ms(void *ud)
{
    return ((struct fixture *)ud)->now_ms;
}

static uint64_t fake_monotonic_ns(void *ud)
{
    return (uint64_t)((struct fixture *)ud)->now_ms * 1000000;
}

static void on_line(void *ud, const struct doctor_line *line)
{
    struct fixture *f = ud;
    assert_true(f->count < 64);
    snprintf(f->lines[f->count].check, 32, "%s", line->check);
    snprintf(f->lines[f->count].what, 600, "%s", line->what);
    snprintf(f->lines[f->count].advice, 600, "%s", line->advice);
    f->lines[f->count++].level = line->level;
    assert_true(line->level == DOCTOR_OK || line->level == DOCTOR_SKIP || line->advice[0]);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->root, sizeof f->root, "/tmp/test_doctor.XXXXXX");
    assert_non_null(mkdtemp(f->root));
    snprintf(f->data, sizeof f->data, "%s/data", f->root);
    assert_int_equal(mkdir(f->data, 0700), 0);
    f->now_ms = INT64_C(1795313423000); /* 2026-11-22 */
    f->clock = (struct clock_source){fake_monotonic_ns, fake_unix_ms, f};
    f->subject = (struct doctor_subject){.data = f->data,
                                         .host = "127.0.0.1",
                                         .root = f->root,
                                         .has_store = true,
                                         .clock = &f->clock,
                                         .tell = on_line,
                                         .ud = f};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", f->root);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* Runs one check of the table; answers its worst level. */
static enum doctor_level look(struct fixture *f, const char *check)
{
    static const int gravity[DOCTOR_LEVELS] = {[DOCTOR_OK] = 1, [DOCTOR_WARN] = 2, [DOCTOR_FAIL] = 3};
    enum doctor_level worst = DOCTOR_SKIP;
    f->count = 0;
    for (const struct doctor_check *row = doctor_checks; row->name; row++) {
        struct doctor doctor = {.subject = &f->subject};
        const struct doctor_check alone[] = {*row, {NULL, NULL}};
        if (strcmp(row->name, check) == 0)
            doctor_run(&doctor, alone);
    }
    assert_true(f->count > 0);
    for (size_t i = 0; i < f->count; i++) {
        assert_string_equal(f->lines[i].check, check);
        worst = gravity[f->lines[i].level] > gravity[worst] ? f->lines[i].level : worst;
    }
    return worst;
}

static void write_file(const struct fixture *f, const char *name, const char *text, mode_t mode,
                       char path[128])
{
    snprintf(path, 128, "%s/%s", f->root, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    assert_int_equal(file_make_dirs(path, 0700, NULL), PH_OK);
    *slash = '/';
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, NULL), PH_OK);
    assert_int_equal(chmod(path, mode), 0);
}

static void a_clock_is_believed_within_reason(void **state)
{
    struct fixture *f = *state;
    char program[128], synchronised[128];
    write_file(f, "program", "", 0700, program);
    const struct timespec built[2] = {{.tv_sec = 1790000000}, {.tv_sec = 1790000000}};
    assert_int_equal(utimensat(AT_FDCWD, program, built, 0), 0);
    f->subject.program = program;
    write_file(f, "run/systemd/timesync/synchronized", "", 0600, synchronised);
    assert_int_equal(look(f, "clock"), DOCTOR_OK);
    assert_non_null(strstr(f->lines[0].what, "2026-11-22"));
    static const int64_t wrong_s[] = {0, 946684800, 1789999999,
                                      INT64_C(4200000000)}; /* 1970, 2000, ..., 2103 */
    for (size_t i = 0; i < sizeof wrong_s / sizeof *wrong_s; i++) {
        f->now_ms = wrong_s[i] * 1000;
        assert_int_equal(look(f, "clock"), DOCTOR_FAIL);
        assert_non_null(strstr(f->lines[0].advice, "timedatectl"));
    }
}

static void what_others_may_see_is_found(void **state)
{
    struct fixture *f = *state;
    char keys[128], store[128], secret[128], memory[128], command[160];
    write_file(f, "data/keys.jsonl", "", 0600, keys);
    write_file(f, "data/memory/store.db", "", 0600, store);
    write_file(f, "secret", "", 0600, secret);
    const struct doctor_secret secrets[] = {{secret, "together"}, {"/nowhere/at/all", "openai"}};
    f->subject.secrets = secrets;
    f->subject.secret_count = 1;
    assert_int_equal(look(f, "data"), DOCTOR_OK);
    assert_int_equal(look(f, "secrets"), DOCTOR_OK);
    snprintf(memory, sizeof memory, "%s/memory", f->data);
    const struct {
        const char *path, *check;
        mode_t bad, good;
        enum doctor_level level;
    } cases[] = {{f->data, "data", 0770, 0700, DOCTOR_FAIL}, {f->data, "data", 0755, 0700, DOCTOR_WARN},
                 {memory, "data", 0750, 0700, DOCTOR_FAIL},  {keys, "data", 0644, 0600, DOCTOR_FAIL},
                 {store, "data", 0660, 0600, DOCTOR_FAIL},   {secret, "secrets", 0604, 0600, DOCTOR_FAIL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(chmod(cases[i].path, cases[i].bad), 0);
        assert_int_equal(look(f, cases[i].check), cases[i].level);
        snprintf(command, sizeof command, "chmod %o %s", (unsigned)cases[i].good, cases[i].path);
        assert_string_equal(f->lines[0].advice, command);
        assert_int_equal(system(f->lines[0].advice), 0); /* what is advised helps */
        assert_int_equal(look(f, cases[i].check), DOCTOR_OK);
    }
    f->subject.secret_count = 2;
    assert_int_equal(look(f, "secrets"), DOCTOR_FAIL);
}

static void what_is_not_there_is_skipped(void **state)
{
    struct fixture *f = *state;
    f->subject.data = "/nowhere/at/all";
    static const char *const checks[] = {"data",      "secrets", "models", "disk",
                                         "providers", "store",   "sensors"};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        assert_int_equal(look(f, checks[i]), DOCTOR_SKIP);
    f->subject.has_store = false;
    assert_int_equal(look(f, "store"), DOCTOR_SKIP);
    assert_int_equal(look(f, "libraries"), DOCTOR_OK);
    assert_int_equal(look(f, "port"), DOCTOR_OK);
}

static void a_hot_processor_is_warned_of(void **state)
{
    struct fixture *f = *state;
    char path[128];
    write_file(f, "sys/class/hwmon/hwmon0/name", "k10temp\n", 0600, path);
    write_file(f, "sys/class/hwmon/hwmon0/temp1_label", "Tctl\n", 0600, path);
    write_file(f, "sys/class/hwmon/hwmon0/temp1_input", "54000\n", 0600, path);
    assert_int_equal(look(f, "sensors"), DOCTOR_OK);
    write_file(f, "sys/class/hwmon/hwmon0/temp1_input", "91000\n", 0600, path);
    assert_int_equal(look(f, "sensors"), DOCTOR_WARN);
}

static void files_that_are_no_models_are_named(void **state)
{
    struct fixture *f = *state;
    char path[128];
    write_file(f, "x.gguf", "GGUF", 0600, path);
    const struct doctor_model models[] = {{"x", path}, {"gone", "/nowhere/x.gguf"}};
    f->subject.models = models;
    f->subject.model_count = 2;
    assert_int_equal(look(f, "models"), DOCTOR_FAIL);
    assert_int_equal(f->count, 2);
    assert_non_null(strstr(f->lines[0].advice, "fetch the file again"));
    assert_non_null(strstr(f->lines[1].advice, "set its path"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_clock_is_believed_within_reason, setup, teardown),
        cmocka_unit_test_setup_teardown(what_others_may_see_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_there_is_skipped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hot_processor_is_warned_of, setup, teardown),
        cmocka_unit_test_setup_teardown(files_that_are_no_models_are_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
