#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/file.h"
#include "test_support.h"

struct fixture {
    char dir[64];
    char path[128];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/test_file.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/file", f->dir);
    *state = f;
    return 0;
}

/* Removes the directory's files and answers how many there were. */
static int empty_dir(const char *path)
{
    int count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char name[512];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        remove(name);
        count++;
    }
    closedir(dir);
    return count;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    empty_dir(f->dir);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void assert_content(const char *path, const char *expected)
{
    struct buf buf;
    struct ph_err err = {0};
    buf_init(&buf, 1 << 20);
    if (file_read(path, &buf, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_string_equal(buf.data ? buf.data : "", expected);
    buf_release(&buf);
}

static void written_files_are_read_and_mapped(void **state)
{
    struct fixture *f = *state;
    struct ph_err err = {0};
    struct file_map map;
    assert_false(file_exists(f->path));
    assert_int_equal(file_write_atomic(f->path, "first", 5, 0640, &err), PH_OK);
    assert_content(f->path, "first");
    assert_int_equal(file_write_atomic(f->path, "the second", 10, 0640, &err), PH_OK);
    assert_content(f->path, "the second");
    assert_true(file_exists(f->path));
    assert_int_equal(file_map_open(&map, f->path, &err), PH_OK);
    assert_int_equal(map.len, 10);
    assert_memory_equal(map.data, "the second", 10);
    struct stat info;
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_int_equal(file_write_atomic(f->path, "third", 5, 0640, &err), PH_OK);
    assert_memory_equal(map.data, "the second", 10); /* a map outlives the replacement */
    file_map_release(&map);
    file_map_release(&map);
    assert_int_equal(file_write_atomic(f->path, NULL, 0, 0600, &err), PH_OK);
    assert_int_equal(file_map_open(&map, f->path, &err), PH_OK);
    assert_null(map.data);
    assert_int_equal(map.len, 0);
    file_map_release(&map);
    assert_int_equal(empty_dir(f->dir), 1);
}

static void names_without_a_slash_work(void **state)
{
    struct fixture *f = *state;
    struct ph_err err = {0};
    char before[512];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(f->dir), 0);
    enum ph_status status = file_write_atomic("plain", "x", 1, 0600, &err);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(status, PH_OK);
    assert_int_equal(empty_dir(f->dir), 1);
}

static void what_cannot_be_mapped_is_named(void **state)
{
    struct fixture *f = *state;
    struct file_map map;
    char fifo[128];
    snprintf(fifo, sizeof fifo, "%s/fifo", f->dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    const struct {
        const char *path;
        enum ph_status status;
        const char *words;
    } cases[] = {
        {f->dir, PH_ERR_ARG, "is a directory"},          {fifo, PH_ERR_ARG, "not a regular file"},
        {"/dev/null", PH_ERR_ARG, "not a regular file"}, {f->path, PH_ERR_NOTFOUND, "No such file"},
        {"/dev/null/x", PH_ERR_IO, "Not a directory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ph_err err = {0};
        assert_int_equal(file_map_open(&map, cases[i].path, &err), cases[i].status);
        assert_non_null(strstr(err.message, cases[i].words));
        assert_non_null(strstr(err.message, cases[i].path));
        assert_null(map.data);
    }
}

static void reads_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct ph_err err = {0};
    char *big = malloc(300000);
    for (size_t i = 0; i < 300000; i++)
        big[i] = (char)('a' + i % 26);
    assert_int_equal(file_write_atomic(f->path, big, 300000, 0600, &err), PH_OK);
    struct buf buf;
    buf_init(&buf, 300003);
    buf_puts(&buf, "abc");
    assert_int_equal(file_read(f->path, &buf, &err), PH_OK);
    assert_int_equal(buf.len, 300003);
    assert_memory_equal(buf.data + 3, big, 300000);
    buf_release(&buf);
    for (size_t max = 299999; max <= 300002; max++) {
        buf_init(&buf, max);
        buf_puts(&buf, "abc");
        assert_int_equal(file_read(f->path, &buf, &err), PH_ERR_LIMIT);
        assert_non_null(strstr(err.message, f->path));
        assert_string_equal(buf.data, "abc");
        buf_release(&buf);
    }
    buf_init(&buf, 1000);
    assert_int_equal(file_read("/dev/zero", &buf, &err), PH_ERR_LIMIT);
    assert_int_equal(file_read(f->dir, &buf, &err), PH_ERR_IO);
    assert_non_null(strstr(err.message, "directory"));
    buf_release(&buf);
    free(big);
}

static void a_dash_reads_standard_input(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "from a pipe", 11), 11);
    close(ends[1]);
    int saved = dup(STDIN_FILENO);
    dup2(ends[0], STDIN_FILENO);
    close(ends[0]);
    assert_content("-", "from a pipe");
    dup2(saved, STDIN_FILENO);
    close(saved);
}

/* The system refuses in the middle of the data, as on a full disk. */
static void a_failed_write_leaves_the_old_content_alone(void **state)
{
    struct fixture *f = *state;
    struct ph_err err = {0};
    struct rlimit before, small = {10000, 10000};
    char *big = calloc(1, 100000);
    assert_int_equal(file_write_atomic(f->path, "old", 3, 0600, &err), PH_OK);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    enum ph_status status = file_write_atomic(f->path, big, 100000, 0600, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, PH_ERR_IO);
    assert_non_null(strstr(err.message, "File too large"));
    assert_content(f->path, "old");
    assert_int_equal(empty_dir(f->dir), 1);
    free(big);
}

static void a_write_that_cannot_begin_or_end_says_why(void **state)
{
    struct fixture *f = *state;
    struct ph_err err = {0};
    char inside[160], sub[160];
    snprintf(inside, sizeof inside, "%s/absent/file", f->dir);
    assert_int_equal(file_write_atomic(inside, "x", 1, 0600, &err), PH_ERR_NOTFOUND);
    assert_non_null(strstr(err.message, inside));
    snprintf(sub, sizeof sub, "%s/sub", f->dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    assert_int_equal(file_write_atomic(sub, "x", 1, 0600, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, sub));
    assert_int_equal(empty_dir(f->dir), 1);
}

/* Links to files, and to nothing, are replaced; what is no file stays what it is. */
static void only_files_are_replaced(void **state)
{
    struct fixture *f = *state;
    struct ph_err err = {0};
    struct stat info;
    char link_path[160];
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_int_equal(file_write_atomic(f->path, "x", 1, 0600, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "no regular file"));
    assert_true(stat(f->path, &info) == 0 && S_ISFIFO(info.st_mode));
    snprintf(link_path, sizeof link_path, "%s/link", f->dir);
    assert_int_equal(symlink(f->path, link_path), 0);
    assert_int_equal(file_out_check(link_path, &err), PH_ERR_ARG);
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(file_out_check(link_path, &err), PH_OK);
    assert_int_equal(file_write_atomic(link_path, "x", 1, 0600, &err), PH_OK);
    assert_content(link_path, "x");
    assert_int_equal(empty_dir(f->dir), 1);
}

static void files_are_cut(void **state)
{
    struct fixture *f = *state;
    struct ph_err err = {0};
    assert_int_equal(file_truncate(f->path, 2, &err), PH_ERR_NOTFOUND);
    assert_int_equal(file_write_atomic(f->path, "abcd", 4, 0600, &err), PH_OK);
    assert_int_equal(file_truncate(f->path, 2, &err), PH_OK);
    assert_content(f->path, "ab");
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

enum { VERSION_BYTES = 1 << 20, KILLS = 24 };

/* Writes one version after another until it is killed, and says so after each. */
static void write_forever(const char *path, char *version, int first, int tell)
{
    for (int i = first;; i++) {
        memset(version, 'A' + i % 26, VERSION_BYTES);
        if (file_write_atomic(path, version, VERSION_BYTES, 0600, NULL) != PH_OK || write(tell, "x", 1) != 1)
            _exit(1);
    }
}

static char assert_one_version(const char *path, char *expected)
{
    struct file_map map;
    assert_int_equal(file_map_open(&map, path, NULL), PH_OK);
    assert_int_equal(map.len, VERSION_BYTES);
    char first = (char)map.data[0];
    memset(expected, first, VERSION_BYTES);
    assert_memory_equal(map.data, expected, VERSION_BYTES);
    file_map_release(&map);
    return first;
}

/* A writer that has replaced the file at least once is killed at moments spread over two writes; a reader must
 * always find one whole version. */
static void a_killed_writer_leaves_a_whole_file(void **state)
{
    struct fixture *f = *state;
    char *version = calloc(1, VERSION_BYTES);
    uint64_t start = now_ns();
    assert_int_equal(file_write_atomic(f->path, version, VERSION_BYTES, 0600, NULL), PH_OK);
    uint64_t step_ns = (now_ns() - start) * 2 / KILLS;
    for (int i = 0; i < KILLS; i++) {
        int ends[2];
        char told;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0)
            write_forever(f->path, version, i, ends[1]);
        close(ends[1]);
        assert_int_equal(read(ends[0], &told, 1), 1);
        uint64_t pause_ns = step_ns * (uint64_t)i;
        struct timespec pause = {(time_t)(pause_ns / 1000000000u), (long)(pause_ns % 1000000000u)};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        close(ends[0]);
        assert_true(assert_one_version(f->path, version) >= 'A');
    }
    free(version);
}

static void directories_are_made_once_and_strays_go(void **state)
{
    const struct fixture *f = *state;
    char dir[160], path[200];
    struct ph_err err;
    snprintf(dir, sizeof dir, "%s/new", f->dir);
    assert_int_equal(file_make_dir(dir, &err), PH_OK);
    assert_int_equal(file_make_dir(dir, &err), PH_OK);
    snprintf(path, sizeof path, "%s/.pharos-tmp-1", dir);
    assert_int_equal(file_write_atomic(path, "x", 1, 0644, &err), PH_OK);
    snprintf(path, sizeof path, "%s/kept", dir);
    assert_int_equal(file_write_atomic(path, "x", 1, 0644, &err), PH_OK);
    file_remove_strays(dir);
    assert_int_equal(file_make_dir(path, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "no directory"));
    assert_int_equal(empty_dir(dir), 1);
    rmdir(dir);
    snprintf(dir, sizeof dir, "%s/no/way", f->dir);
    assert_int_equal(file_make_dir(dir, &err), PH_ERR_NOTFOUND);
    file_remove_strays(dir); /* nothing there, nothing to do */
}

static void directories_are_made_with_those_above(void **state)
{
    struct fixture *f = *state;
    struct ph_err err = {0};
    char path[192];
    struct stat info;
    snprintf(path, sizeof path, "%s//a/b/c/", f->dir);
    assert_int_equal(file_make_dirs(path, 0700, &err), PH_OK);
    assert_int_equal(file_make_dirs(path, 0700, &err), PH_OK);
    for (size_t cut = 4; cut <= 8; cut += 2) { /* from the deepest, as they have to be removed */
        snprintf(path, sizeof path, "%s/%.*s", f->dir, (int)(9 - cut), "a/b/c");
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0700);
        assert_int_equal(rmdir(path), 0);
    }
    assert_int_equal(file_write_atomic(f->path, "", 0, 0600, &err), PH_OK);
    snprintf(path, sizeof path, "%s/below/it", f->path);
    assert_int_not_equal(file_make_dirs(path, 0700, &err), PH_OK);
    assert_non_null(strstr(err.message, "Not a directory"));
    assert_int_equal(file_make_dirs("", 0700, &err), PH_ERR_NOTFOUND);
}

static void a_directory_goes_with_its_files(void **state)
{
    (void)state;
    struct ph_err err;
    char dir[] = "/tmp/pharos-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
    assert_int_equal(file_write_atomic(path, "x", 1, 0600, &err), PH_OK);
    assert_int_equal(file_remove_dir(dir, &err), PH_OK);
    assert_false(file_exists(dir));
    assert_int_equal(file_remove_dir(dir, &err), PH_OK); /* not there any more */
    snprintf(dir, sizeof dir, "/tmp/pharos-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/inner", dir);
    assert_int_equal(file_make_dir(path, &err), PH_OK);
    assert_int_equal(file_remove_dir(dir, &err), PH_ERR_IO); /* what is a directory stays */
    assert_true(file_exists(path));
    assert_int_equal(file_remove_dir(path, &err), PH_OK);
    assert_int_equal(file_remove_dir(dir, &err), PH_OK);
}

static void a_lock_is_one_process_s(void **state)
{
    const struct fixture *f = *state;
    int lock, other, code;
    struct ph_err err;
    assert_int_equal(file_lock(f->path, &lock, &err), PH_OK);
    pid_t child = fork();
    if (child == 0) {
        char pid[32];
        snprintf(pid, sizeof pid, "(pid %d)", (int)getppid());
        bool busy = file_lock(f->path, &other, &err) == PH_ERR_BUSY && other == -1;
        _exit(busy && strstr(err.message, pid) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    file_unlock(lock);
    child = fork();
    if (child == 0)
        _exit(file_lock(f->path, &other, &err) == PH_OK ? 0 : 1);
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    file_unlock(-1);
    assert_int_equal(file_lock("/no/such/place/lock", &lock, &err), PH_ERR_NOTFOUND);
}

static void places_are_read_and_written(void **state)
{
    const struct fixture *f = *state;
    struct ph_err err = {0};
    struct file_at file;
    uint64_t len;
    size_t got;
    char bytes[16];
    assert_int_equal(file_at_open(&file, f->path, false, &err), PH_ERR_NOTFOUND);
    assert_int_equal(file_at_open(&file, f->dir, false, &err), PH_ERR_ARG);
    file_at_close(&file);
    assert_int_equal(file_at_open(&file, f->path, true, &err), PH_OK);
    assert_int_equal(file_at_write(&file, 3, "world", 5, &err), PH_OK);
    assert_int_equal(file_at_write(&file, 0, "abc", 3, &err), PH_OK);
    assert_int_equal(file_at_read(&file, 1, bytes, sizeof bytes, &got, &err), PH_OK);
    assert_int_equal(got, 7);
    assert_memory_equal(bytes, "bcworld", 7);
    assert_int_equal(file_at_cut(&file, 2, &err), PH_OK);
    assert_int_equal(file_at_len(&file, &len, &err), PH_OK);
    assert_int_equal(len, 2);
    file_at_close(&file);
    assert_int_equal(file_sync(f->path, &err), PH_OK);
    struct stat info;
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(file_at_open(&file, f->path, false, &err), PH_OK);
    assert_int_equal(file_at_write(&file, 0, "x", 1, &err), PH_ERR_IO);
    assert_non_null(strstr(err.message, f->path));
    file_at_close(&file);
    unlink(f->path);
    assert_int_equal(file_sync(f->path, &err), PH_ERR_NOTFOUND);
}

static void shared_memory_outlives_a_killed_process(void **state)
{
    const struct fixture *f = *state;
    struct ph_err err = {0};
    struct file_shared map;
    struct stat info;
    pid_t child = fork();
    if (child == 0) {
        if (file_shared_open(&map, f->path, 8192, NULL) == PH_OK) {
            map.data[5] = 42;
            raise(SIGKILL);
        }
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(file_shared_open(&map, f->path, 100000, &err), PH_OK);
    assert_int_equal(map.len, 100000);
    assert_int_equal(map.data[5], 42);
    assert_int_equal(map.data[99999], 0);
    file_shared_release(&map);
    file_shared_release(&map);
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_size, 100000);
    assert_true(info.st_blocks * 512 >= 100000); /* no store can find the disk full */
    assert_int_equal(file_shared_open(&map, f->dir, 100, &err), PH_ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(written_files_are_read_and_mapped, setup, teardown),
        cmocka_unit_test_setup_teardown(names_without_a_slash_work, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_mapped_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dash_reads_standard_input, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_write_leaves_the_old_content_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_that_cannot_begin_or_end_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(only_files_are_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(files_are_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(a_killed_writer_leaves_a_whole_file, setup, teardown),
        cmocka_unit_test_setup_teardown(directories_are_made_once_and_strays_go, setup, teardown),
        cmocka_unit_test_setup_teardown(directories_are_made_with_those_above, setup, teardown),
        cmocka_unit_test(a_directory_goes_with_its_files),
        cmocka_unit_test_setup_teardown(places_are_read_and_written, setup, teardown),
        cmocka_unit_test_setup_teardown(shared_memory_outlives_a_killed_process, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lock_is_one_process_s, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
