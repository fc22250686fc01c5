/* A run in a directory: stopping and going on, damaged checkpoints, full disks, one process at a time. */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/file.h"
#include "train/run_int.h"
#include "train/train.h"
#include "train/training.h"

struct place {
    struct training training;
    struct pool *pool;
    char dir[160], notes[4096];
    uint64_t stop_at; /* steps of this process; 0: never */
    uint64_t steps;
    struct run_result result;
    struct ph_err err;
};

static int open_place(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    training_open(&p->training);
    training_path(&p->training, "run", p->dir);
    p->pool = training_pool(1);
    *state = p;
    return 0;
}

static int close_place(void **state)
{
    struct place *p = *state;
    pool_free(p->pool);
    training_close(&p->training);
    free(p);
    return 0;
}

static void on_step(void *ud, const struct run_report *report)
{
    struct place *p = ud;
    assert_true(report->step.step > 0 && report->tokens_per_s > 0);
    p->steps++;
}

static void on_note(void *ud, const char *text)
{
    struct place *p = ud;
    size_t len = strlen(p->notes);
    snprintf(p->notes + len, sizeof p->notes - len, "%s\n", text);
}

static bool on_stop(void *ud)
{
    const struct place *p = ud;
    return p->stop_at > 0 && p->steps >= p->stop_at;
}

/* Runs until `stop_at` steps were done (0: to the end), with a checkpoint every 5. */
static enum ph_status run(struct place *p, const struct trainer_params *params, uint64_t stop_at)
{
    struct trainer *trainer = training_start(params, p->pool);
    const struct run_params what = {
        .dir = p->dir, .name = "test", .checkpoint_every = 5, .validate_every = 10};
    const struct run_hooks hooks = {.step = on_step, .note = on_note, .stop = on_stop, .ud = p};
    p->stop_at = stop_at;
    p->steps = 0;
    p->notes[0] = 0;
    enum ph_status status = trainer_run(trainer, &what, &hooks, &p->result, &p->err);
    trainer_free(trainer);
    return status;
}

static void must_run(struct place *p, const struct trainer_params *params, uint64_t stop_at)
{
    if (run(p, params, stop_at) != PH_OK)
        fail_msg("%s", p->err.message);
}

static const char *in_run(const struct place *p, const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", p->dir, name);
    return path;
}

static void read_whole(const struct place *p, const char *name, struct buf *text)
{
    buf_init(text, 1 << 24);
    assert_int_equal(file_read(in_run(p, name), text, NULL), PH_OK);
}

static void forget_run(const struct place *p)
{
    static const char *const names[] = {"checkpoint-0", "checkpoint-1", "loss.csv",
                                        "loss.svg",     "model.gguf",   "lock"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_run(p, names[i]));
    rmdir(p->dir);
}

/* Rows of steps 1 to `last`, each once; all but the last column, which is time, goes to `out`. */
static void check_rows(const struct place *p, uint64_t last, struct buf *out)
{
    struct buf text;
    uint64_t step = 0;
    read_whole(p, "loss.csv", &text);
    buf_init(out, 1 << 20);
    const char *row = strchr(text.data, '\n') + 1;
    for (; *row; row = strchr(row, '\n') + 1) {
        assert_int_equal(strtoull(row, NULL, 10), ++step);
        const char *end = strchr(row, '\n');
        while (*end != ',')
            end--;
        buf_append(out, row, (size_t)(end - row));
        buf_putc(out, '\n');
    }
    assert_int_equal(step, last);
    buf_release(&text);
}

static void a_stopped_run_goes_on_and_ends_the_same(void **state)
{
    struct place *p = *state;
    struct trainer_params params = training_params(&p->training);
    struct buf rows[2], models[2];
    params.steps = 23;
    must_run(p, &params, 0);
    assert_int_equal(p->result.ended_at, 23);
    assert_false(p->result.stopped);
    assert_true(p->result.validation.windows > 0);
    check_rows(p, 23, &rows[0]);
    read_whole(p, "model.gguf", &models[0]);
    assert_true(file_exists(in_run(p, "loss.svg")));
    forget_run(p);

    must_run(p, &params, 7); /* begins */
    assert_true(p->result.stopped);
    assert_int_equal(p->result.ended_at, 7);
    assert_false(file_exists(in_run(p, "model.gguf")));
    must_run(p, &params, 4);
    assert_int_equal(p->result.begun_at, 7);
    assert_non_null(strstr(p->notes, "going on from step 7"));
    must_run(p, &params, 0);
    assert_int_equal(p->result.begun_at, 11);
    check_rows(p, 23, &rows[1]);
    read_whole(p, "model.gguf", &models[1]);
    assert_string_equal(rows[0].data, rows[1].data);
    assert_int_equal(models[0].len, models[1].len);
    assert_memory_equal(models[0].data, models[1].data, models[0].len);
    must_run(p, &params, 0); /* again: nothing to do */
    assert_int_equal(p->steps, 0);
    for (int i = 0; i < 2; i++) {
        buf_release(&rows[i]);
        buf_release(&models[i]);
    }
    forget_run(p);
}

static void damage(const struct place *p, const char *name)
{
    int file = open(in_run(p, name), O_RDWR);
    assert_true(file >= 0);
    assert_int_equal(pwrite(file, "?", 1, 3000), 1);
    close(file);
}

static void a_damaged_checkpoint_is_passed_over(void **state)
{
    struct place *p = *state;
    struct trainer_params params = training_params(&p->training);
    struct buf rows;
    must_run(p, &params, 12); /* checkpoints of steps 5, 10, 12 in 0, 1, 0 */
    damage(p, "checkpoint-0");
    must_run(p, &params, 3);
    assert_int_equal(p->result.begun_at, 10);
    assert_non_null(strstr(p->notes, "checkpoint-0: byte 80"));
    check_rows(p, 13, &rows); /* those of 11 and 12 were cut off */
    buf_release(&rows);
    damage(p, "checkpoint-0");
    damage(p, "checkpoint-1");
    assert_int_equal(run(p, &params, 0), PH_ERR_FORMAT);
    assert_non_null(strstr(p->err.message, "no checkpoint that is whole"));
    forget_run(p);
}

static void strays_are_swept_and_half_rows_cut(void **state)
{
    struct place *p = *state;
    struct trainer_params params = training_params(&p->training);
    struct buf rows;
    must_run(p, &params, 6);
    assert_int_equal(file_write_atomic(in_run(p, ".pharos-tmp-0123"), "x", 1, 0600, NULL), PH_OK);
    int file = open(in_run(p, "loss.csv"), O_WRONLY | O_APPEND);
    assert_int_equal(write(file, "7,300", 5), 5);
    close(file);
    must_run(p, &params, 2);
    assert_false(file_exists(in_run(p, ".pharos-tmp-0123")));
    check_rows(p, 8, &rows);
    buf_release(&rows);
    forget_run(p);
}

static void numbers_that_are_lost_leave_the_checkpoints(void **state)
{
    struct place *p = *state;
    struct trainer_params params = training_params(&p->training);
    must_run(p, &params, 6);
    params.rate = 1e30;
    params.floor = 0;
    params.clip = 0;
    assert_int_equal(run(p, &params, 0), PH_ERR_ARG); /* another rate is another run */
    struct trainer *trainer = training_start(&params, p->pool);
    const struct run_params what = {.dir = p->dir, .name = "test", .adapt = true};
    const struct run_hooks hooks = {0};
    assert_int_equal(trainer_run(trainer, &what, &hooks, &p->result, &p->err), PH_ERR_LIMIT);
    assert_non_null(strstr(p->err.message, "step "));
    trainer_free(trainer);
    params = training_params(&p->training);
    must_run(p, &params, 1);
    assert_int_equal(p->result.begun_at, 6);
    forget_run(p);
}

/* A limit on the size of files is the full disk of this test: the model's header fits, the checkpoint not. */
static void a_full_disk_is_said_and_the_last_checkpoint_stays(void **state)
{
    struct place *p = *state;
    struct trainer_params params = training_params(&p->training);
    struct rlimit was, small;
    must_run(p, &params, 6);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = (struct rlimit){.rlim_cur = 8192, .rlim_max = was.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum ph_status status = run(p, &params, 5);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, PH_ERR_IO);
    assert_non_null(strstr(p->err.message, "checkpoint-"));
    assert_int_equal(p->steps, 5); /* a failed checkpoint on the way stops nothing */
    assert_non_null(strstr(p->notes, "tried again later"));
    must_run(p, &params, 1);
    assert_int_equal(p->result.begun_at, 6);
    forget_run(p);
}

/* The disk is full in the middle of a row, and then it is not. */
static void half_a_row_is_taken_back(void **state)
{
    struct place *p = *state;
    struct curve curve;
    struct buf text;
    struct rlimit was, small;
    struct run_report report = {.step = {.step = 1, .tokens = 96, .loss = 2.5}, .tokens_per_s = 7};
    assert_int_equal(file_make_dir(p->dir, NULL), PH_OK);
    assert_int_equal(curve_open(&curve, in_run(p, "loss.csv"), 0, NULL), PH_OK);
    char path[256];
    snprintf(path, sizeof path, "%s", in_run(p, "loss.csv"));
    curve.path = path;
    assert_true(curve_add(&curve, &report));
    read_whole(p, "loss.csv", &text);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = (struct rlimit){.rlim_cur = text.len + 5, .rlim_max = was.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    report.step.step = 2;
    assert_false(curve_add(&curve, &report));
    assert_false(curve_add(&curve, &report));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    signal(SIGXFSZ, handler);
    report.step.step = 3;
    assert_true(curve_add(&curve, &report));
    curve_close(&curve);
    size_t before = text.len;
    buf_release(&text);
    read_whole(p, "loss.csv", &text);
    assert_memory_equal(text.data + before, "3,96,2.500000,,,", 16);
    buf_release(&text);
    forget_run(p);
}

static void two_processes_do_not_share_a_directory(void **state)
{
    struct place *p = *state;
    struct trainer_params params = training_params(&p->training);
    int ready[2], go[2], lock, code;
    char byte;
    must_run(p, &params, 1);
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    pid_t child = fork();
    if (child == 0) {
        bool ok = file_lock(in_run(p, "lock"), &lock, NULL) == PH_OK && write(ready[1], "x", 1) == 1;
        _exit(ok && read(go[0], &byte, 1) == 1 ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(run(p, &params, 1), PH_ERR_BUSY);
    assert_non_null(strstr(p->err.message, "another process"));
    assert_int_equal(write(go[1], "x", 1), 1);
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    must_run(p, &params, 1);
    forget_run(p);
}

static void a_directory_that_can_not_be_is_said(void **state)
{
    struct place *p = *state;
    struct trainer_params params = training_params(&p->training);
    char dir[160];
    memcpy(dir, p->dir, sizeof dir);
    snprintf(p->dir, sizeof p->dir, "%.100s", p->training.vocab);
    assert_int_equal(run(p, &params, 0), PH_ERR_ARG);
    assert_non_null(strstr(p->err.message, "no directory"));
    snprintf(p->dir, sizeof p->dir, "/no/such/place");
    assert_int_equal(run(p, &params, 0), PH_ERR_NOTFOUND);
    memcpy(p->dir, dir, sizeof dir);
    assert_int_equal(file_make_dir(p->dir, NULL), PH_OK);
    assert_int_equal(file_make_dir(in_run(p, "model.gguf"), NULL), PH_OK);
    assert_int_equal(run(p, &params, 0), PH_ERR_ARG);
    assert_non_null(strstr(p->err.message, "model.gguf is a directory"));
    assert_int_equal(p->steps, 0); /* before the first step, not after the last */
    rmdir(in_run(p, "model.gguf"));
    forget_run(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_run_goes_on_and_ends_the_same),
        cmocka_unit_test(a_damaged_checkpoint_is_passed_over),
        cmocka_unit_test(strays_are_swept_and_half_rows_cut),
        cmocka_unit_test(numbers_that_are_lost_leave_the_checkpoints),
        cmocka_unit_test(a_full_disk_is_said_and_the_last_checkpoint_stays),
        cmocka_unit_test(half_a_row_is_taken_back),
        cmocka_unit_test(two_processes_do_not_share_a_directory),
        cmocka_unit_test(a_directory_that_can_not_be_is_said),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}
