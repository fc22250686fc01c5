/* What an engine leaves on the disk: a bounded log, and how much memory it needs. */
#include "provider/provider_engine_int.h"
#include "test_support.h"

#include <unistd.h>

#include "base/file.h"

struct fixture {
    char dir[64];
    struct engine_files files;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct ph_err err;
    assert_non_null(f);
    memcpy(f->dir, "/tmp/pharos-engine-XXXXXX", sizeof "/tmp/pharos-engine-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(engine_files_init(&f->files, f->dir, "org/mine", &err), PH_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[80];
    engine_files_release(&f->files);
    snprintf(command, sizeof command, "rm -r %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

static void put(const char *path, const void *bytes, size_t len)
{
    struct ph_err err;
    if (file_write_atomic(path, bytes, len, 0600, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static uint64_t size_of(const char *path)
{
    struct file_stamp stamp;
    file_stamp(path, &stamp);
    return stamp.bytes;
}

/* ---- The log */

static void a_long_log_becomes_the_old_one(void **state)
{
    struct fixture *f = *state;
    struct ph_err err;
    struct buf old;
    enum { LONG = 50000, KEPT = 20000 };
    char *text = malloc(LONG);
    assert_non_null(text);
    for (size_t i = 0; i < LONG; i++)
        text[i] = (char)('a' + i * 7 % 26);
    put(f->files.log, text, LONG);
    engine_files_bound_log(&f->files, LONG); /* not beyond it */
    assert_int_equal(size_of(f->files.log), LONG);
    assert_false(file_exists(f->files.old_log));
    engine_files_bound_log(&f->files, KEPT);
    assert_int_equal(size_of(f->files.log), 0);
    buf_init(&old, LONG);
    assert_int_equal(file_read(f->files.old_log, &old, &err), PH_OK);
    assert_int_equal(old.len, KEPT);
    assert_memory_equal(old.data, text + LONG - KEPT, KEPT);
    buf_release(&old);
    free(text);
}

static void the_tail_begins_with_a_line(void **state)
{
    struct fixture *f = *state;
    static const char log[] = "a long first line that is cut off\nsecond\nthird line\n";
    struct buf out;
    put(f->files.log, log, sizeof log - 1);
    buf_init(&out, 1000);
    engine_files_tail(&f->files, 30, &out);
    assert_string_equal(out.data, "second | third line");
    buf_clear(&out);
    engine_files_tail(&f->files, 300, &out);
    assert_string_equal(out.data, "a long first line that is cut off | second | third line");
    buf_clear(&out);
    engine_files_tail(&f->files, 8, &out); /* rather a part of a line than nothing */
    assert_string_equal(out.data, "ird line");
    buf_release(&out);
}

/* ---- Memory */

static void a_need_is_kept_for_its_command(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(engine_need_recall(&f->files, "serve a"), 0);
    engine_need_remember(&f->files, "serve a", UINT64_C(5000000000));
    assert_int_equal(engine_need_recall(&f->files, "serve a"), UINT64_C(5000000000));
    assert_int_equal(engine_need_recall(&f->files, "serve b"), 0); /* another model, another need */
    static const char *const bad[] = {"", "x", "12", "12 ", "-1 zz", "99999999999999999999999999999999 1\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put(f->files.memory, bad[i], strlen(bad[i]));
        assert_int_equal(engine_need_recall(&f->files, "serve a"), 0);
    }
}

static void model_files_of_a_command_are_summed(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *name;
        size_t len;
    } models[] = {{"one.gguf", 1000},
                  {"two.gguf", 200},
                  {"big-00001-of-00003.gguf", 30},
                  {"big-00002-of-00003.gguf", 40},
                  {"big-00003-of-00003.gguf", 50}};
    static const struct {
        const char *command; /* % is the folder */
        uint64_t sum;
    } cases[] = {
        {"llama-server -m %/one.gguf --port {port}", 1000},
        {"llama-server --model=%/one.gguf --mmproj '%/two.gguf' --port {port}", 1200},
        {"sh -c \"llama-server -m %/one.gguf\"; echo {port}", 1000},
        {"llama-server -m %/big-00001-of-00003.gguf --port {port}", 120},
        {"llama-server -m %/big-0000x-of-00003.gguf -m %/big-00001-of-00003.gguf", 120},
        {"llama-server -m %/absent.gguf -m $MODEL.gguf -m .gguf", 0},
        {"vllm serve mistralai/Mistral-7B --port {port}", 0},
        {"", 0},
    };
    char path[160], data[1000] = {0}, command[400];
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, models[i].name);
        put(path, data, models[i].len);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = 0;
        for (const char *c = cases[i].command; *c; c++)
            len += (size_t)snprintf(command + len, sizeof command - len, *c == '%' ? "%s" : "%.1s",
                                    *c == '%' ? f->dir : c);
        command[len] = '\0';
        assert_int_equal(engine_need_guess(command), cases[i].sum);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_long_log_becomes_the_old_one, setup, teardown),
        cmocka_unit_test_setup_teardown(the_tail_begins_with_a_line, setup, teardown),
        cmocka_unit_test_setup_teardown(a_need_is_kept_for_its_command, setup, teardown),
        cmocka_unit_test_setup_teardown(model_files_of_a_command_are_summed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
