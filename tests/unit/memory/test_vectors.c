/* Vectors of a user: searching as the definition says, the file and what may happen to it. */
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "memory/vectors.h"
#include "tensor/tensor.h"
#include "test_support.h"

#define WIDTH 96
#define ROWS 1500

struct fixture {
    char dir[64];
    struct vector_home *home;
    struct vectors *vectors;
    struct ph_err err;
};

static void fixture_open(struct fixture *f)
{
    struct vectors_params params = {.home = f->home, .user = 7, .space = "test", .width = WIDTH};
    if (vectors_open(&f->vectors, &params, &f->err) != PH_OK)
        fail_msg("%s", f->err.message);
}

static int setup(void **state)
{
    static struct fixture f;
    f = (struct fixture){.dir = "/tmp/pharos-vectors-XXXXXX"};
    assert_non_null(mkdtemp(f.dir));
    assert_int_equal(vector_home_open(&f.home, f.dir, &f.err), PH_OK);
    assert_true(vector_home_is_ours(f.home));
    fixture_open(&f);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    vectors_close(f->vectors);
    vector_home_close(f->home);
    return file_remove_dir(f->dir, NULL) == PH_OK ? 0 : -1;
}

static void reopen(struct fixture *f)
{
    vectors_close(f->vectors);
    fixture_open(f);
}

/* The vector of a row: of length 1, near its neighbours. */
static void vector_of(size_t row, float out[WIDTH])
{
    struct rng rng;
    double sum = 0;
    rng_init(&rng, row + 1);
    for (size_t i = 0; i < WIDTH; i++) {
        out[i] = rng_float(&rng) - 0.5f;
        sum += (double)out[i] * (double)out[i];
    }
    for (size_t i = 0; i < WIDTH; i++)
        out[i] = (float)((double)out[i] / sqrt(sum));
}

static int64_t message_of(size_t row)
{
    return (int64_t)(10 + 3 * row);
}

static void fill(struct fixture *f, size_t rows)
{
    float x[WIDTH];
    for (size_t row = vectors_count(f->vectors); row < rows; row++) {
        vector_of(row, x);
        if (vectors_add(f->vectors, message_of(row), (int64_t)(row % 5 + 1), x, &f->err) != PH_OK)
            fail_msg("%s", f->err.message);
    }
}

static void expect_rows(const struct fixture *f, size_t rows)
{
    float x[WIDTH], got[WIDTH];
    assert_int_equal(vectors_count(f->vectors), rows);
    assert_int_equal(vectors_last(f->vectors), rows ? message_of(rows - 1) : 0);
    for (size_t row = 0; row < rows; row += 1 + row / 50) {
        vector_of(row, x);
        assert_true(vectors_get(f->vectors, message_of(row), got));
        assert_false(vectors_get(f->vectors, message_of(row) + 1, got));
        for (size_t i = 0; i < WIDTH; i++)
            assert_true(fabsf(x[i] - got[i]) <= 1e-3f * fabsf(x[i]) + 1e-6f);
    }
}

static bool only_even(void *ud, int64_t message)
{
    (void)ud;
    return message % 2 == 0;
}

static bool passes(const struct vectors_filter *filter, size_t row)
{
    int64_t message = message_of(row);
    return (!filter->conversation || filter->conversation == (int64_t)(row % 5 + 1)) &&
           (!filter->after || message > filter->after) && (!filter->before || message < filter->before) &&
           (!filter->keep || filter->keep(filter->ud, message));
}

/* Exact: the definition's best, in its order, with its scores. */
static void expect_search(const struct fixture *f, size_t rows, const struct vectors_filter *filter, size_t k)
{
    struct vectors_hit hits[ROWS];
    float query[WIDTH], x[WIDTH];
    bool taken[ROWS] = {false};
    vector_of(12345, query);
    size_t found = vectors_search(f->vectors, query, k, filter, hits);
    for (size_t h = 0; h < k; h++) {
        double best = -2;
        size_t at = rows;
        for (size_t row = 0; row < rows; row++) {
            double score = 0;
            if (taken[row] || !passes(filter, row))
                continue;
            vector_of(row, x);
            for (size_t i = 0; i < WIDTH; i++)
                score += (double)query[i] * (double)tensor_f16_to_f32(tensor_f32_to_f16(x[i]));
            if (score >= best) {
                best = score;
                at = row;
            }
        }
        if (at == rows) {
            assert_int_equal(found, h);
            return;
        }
        taken[at] = true;
        assert_true(h < found);
        assert_int_equal(hits[h].message, message_of(at));
        assert_true(fabs((double)hits[h].score - best) < 1e-5);
    }
    assert_int_equal(found, k);
}

static void test_search(void **state)
{
    struct fixture *f = *state;
    expect_search(f, 0, &(struct vectors_filter){0}, 3);
    fill(f, 1);
    expect_search(f, 1, &(struct vectors_filter){0}, 3);
    fill(f, ROWS);
    expect_rows(f, ROWS);
    expect_search(f, ROWS, &(struct vectors_filter){0}, 20);
    expect_search(f, ROWS, &(struct vectors_filter){.conversation = 3}, 10);
    expect_search(f, ROWS, &(struct vectors_filter){.after = message_of(100), .before = message_of(104)}, 10);
    expect_search(f, ROWS, &(struct vectors_filter){.before = message_of(700), .keep = only_even}, 10);
    expect_search(f, ROWS, &(struct vectors_filter){.after = message_of(ROWS)}, 10);
    assert_int_equal(vectors_search(f->vectors, (float[WIDTH]){0}, 0, NULL, NULL), 0);
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    float x[WIDTH];
    struct vectors *other;
    struct vectors_params params = {.home = f->home, .user = 7, .space = "test", .width = 0};
    fill(f, 2);
    vector_of(0, x);
    assert_int_equal(vectors_add(f->vectors, message_of(1), 1, x, &f->err), PH_ERR_ARG);
    assert_int_equal(vectors_open(&other, &params, &f->err), PH_ERR_LIMIT);
    params.width = 100000;
    assert_int_equal(vectors_open(&other, &params, &f->err), PH_ERR_LIMIT);
}

/* How many files of a user there are; the path of the last one. */
static size_t files_of(const struct fixture *f, const char *prefix, char path[400])
{
    size_t count = 0;
    DIR *dir = opendir(f->dir);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0) {
            snprintf(path, 400, "%s/%s", f->dir, e->d_name);
            count++;
        }
    closedir(dir);
    return count;
}

static void path_of(const struct fixture *f, char path[400])
{
    assert_int_equal(files_of(f, "7-", path), 1);
}

static void test_reopen(void **state)
{
    struct fixture *f = *state;
    struct stat info;
    char path[400];
    fill(f, 700);
    assert_int_equal(vectors_sync(f->vectors, &f->err), PH_OK);
    fill(f, 900);
    reopen(f);
    expect_rows(f, 900);
    path_of(f, path);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(vectors_clear(f->vectors, &f->err), PH_OK);
    reopen(f);
    expect_rows(f, 0);
    fill(f, 300);
    expect_rows(f, 300);
}

static void write_at(const char *path, long at, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, at), len);
    close(fd);
}

/* What never reached the disk: old pages in the middle of what was not synced. Rows before stay. */
static void test_torn(void **state)
{
    struct fixture *f = *state;
    static const uint8_t zeros[4096] = {0};
    char path[400];
    fill(f, 100);
    assert_int_equal(vectors_sync(f->vectors, &f->err), PH_OK);
    fill(f, 250);
    path_of(f, path);
    vectors_close(f->vectors);
    f->vectors = NULL;
    long codes = 4096 + 256 * (8 + 8 + 4 + 4) + 200L * WIDTH; /* of row 200 */
    write_at(path, codes, zeros, 64);
    fixture_open(f);
    expect_rows(f, 200);
    fill(f, 260);
    expect_rows(f, 260);
    expect_search(f, 260, &(struct vectors_filter){0}, 5);
    reopen(f);
    expect_rows(f, 260);
}

static void test_wrong_files(void **state)
{
    struct fixture *f = *state;
    char path[400];
    fill(f, 50);
    path_of(f, path);
    for (int round = 0; round < 3; round++) {
        vectors_close(f->vectors);
        f->vectors = NULL;
        if (round == 0)
            write_at(path, 0, "not a vector file", 17);
        else if (round == 1)
            assert_int_equal(truncate(path, 4096 + 100), 0); /* its rows are gone */
        else
            assert_int_equal(truncate(path, 10), 0);
        fixture_open(f);
        assert_int_equal(vectors_count(f->vectors), 0);
        fill(f, 50);
        expect_rows(f, 50);
    }
    struct vectors *wider;
    struct vectors_params params = {.home = f->home, .user = 7, .space = "test", .width = WIDTH + 1};
    vectors_close(f->vectors);
    f->vectors = NULL;
    assert_int_equal(vectors_open(&wider, &params, &f->err), PH_OK);
    assert_int_equal(vectors_count(wider), 0);
    vectors_close(wider);
}

/* Another process has the folder: the same, without files. */
static void test_two_processes(void **state)
{
    struct fixture *f = *state;
    fill(f, 30);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct fixture mine = {0};
        memcpy(mine.dir, f->dir, sizeof mine.dir);
        bool ok =
            vector_home_open(&mine.home, mine.dir, &mine.err) == PH_OK && !vector_home_is_ours(mine.home);
        if (ok) {
            fixture_open(&mine);
            ok = vectors_count(mine.vectors) == 0;
            fill(&mine, 600);
            ok = ok && vectors_count(mine.vectors) == 600;
            expect_search(&mine, 600, &(struct vectors_filter){0}, 5);
        }
        _exit(ok ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    reopen(f);
    expect_rows(f, 30);
}

static void test_forget(void **state)
{
    struct fixture *f = *state;
    struct vectors_params params = {.home = f->home, .user = 77, .space = "test", .width = WIDTH};
    struct vectors *other;
    char path[400];
    fill(f, 20);
    assert_int_equal(vectors_open(&other, &params, &f->err), PH_OK);
    vectors_close(other);
    vectors_close(f->vectors);
    f->vectors = NULL;
    assert_int_equal(vector_home_forget(f->home, 7, &f->err), PH_OK);
    assert_int_equal(files_of(f, "7-", path), 0);
    assert_int_equal(files_of(f, "77-", path), 1);
    fixture_open(f);
    assert_int_equal(vectors_count(f->vectors), 0);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_search),      TEST(test_refusals),      TEST(test_reopen), TEST(test_torn),
        TEST(test_wrong_files), TEST(test_two_processes), TEST(test_forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
