/* Files that hold secrets: who may see them, and how a change is noticed. */
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/file.h"
#include "test_support.h"

struct fixture {
    char dir[64], path[128];
    struct ph_err err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/test_file_private.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/secret", f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    unlink(f->path);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void spill(struct fixture *f, const char *text, mode_t mode)
{
    assert_int_equal(file_write_atomic(f->path, text, strlen(text), 0600, NULL), PH_OK);
    assert_int_equal(chmod(f->path, mode), 0);
}

static void only_its_owner_may_have_it(void **state)
{
    struct fixture *f = *state;
    for (mode_t mode = 0; mode <= 0777; mode++) {
        struct buf text;
        buf_init(&text, 100);
        buf_puts(&text, "before ");
        spill(f, "secret", mode);
        enum ph_status status = file_read_private(f->path, &text, NULL, &f->err);
        bool readable = (mode & S_IRUSR) || geteuid() == 0;
        assert_int_equal(status, mode & 077 ? PH_ERR_ARG : readable ? PH_OK : PH_ERR_IO);
        assert_string_equal(text.data, status == PH_OK ? "before secret" : "before ");
        if (status == PH_ERR_ARG) {
            char words[200];
            snprintf(words, sizeof words, "chmod 600 %s", f->path);
            assert_non_null(strstr(f->err.message, words));
        }
        buf_release(&text);
    }
}

static void what_is_no_file_is_refused(void **state)
{
    struct fixture *f = *state;
    struct buf text;
    buf_init(&text, 100);
    assert_int_equal(file_read_private(f->path, &text, NULL, &f->err), PH_ERR_NOTFOUND);
    assert_int_equal(file_read_private(f->dir, &text, NULL, &f->err), PH_ERR_ARG);
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_int_equal(file_read_private(f->path, &text, NULL, &f->err), PH_ERR_ARG); /* and does not wait */
    buf_release(&text);
}

static void too_much_is_refused_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct buf text;
    buf_init(&text, 5);
    spill(f, "secret", 0600);
    assert_int_equal(file_read_private(f->path, &text, NULL, &f->err), PH_ERR_LIMIT);
    assert_int_equal(text.len, 0);
    buf_release(&text);
}

static void a_stamp_tells_changes(void **state)
{
    struct fixture *f = *state;
    struct file_stamp none = {0}, first, same, other;
    struct buf text;
    buf_init(&text, 100);
    file_stamp(f->path, &first);
    assert_true(file_stamp_equal(&first, &none));
    spill(f, "secret", 0600);
    assert_int_equal(file_read_private(f->path, &text, &first, &f->err), PH_OK);
    file_stamp(f->path, &same);
    assert_true(file_stamp_equal(&first, &same));
    assert_false(file_stamp_equal(&first, &none));
    spill(f, "s3cret", 0600); /* as long, perhaps within the same tick, but another file */
    file_stamp(f->path, &other);
    assert_false(file_stamp_equal(&first, &other));
    const struct timespec tick = {.tv_nsec = 1000000};
    do {
        nanosleep(&tick, NULL);
        assert_int_equal(chmod(f->path, 0400), 0);
        file_stamp(f->path, &same);
    } while (file_stamp_equal(&other, &same)); /* its mode alone */
    buf_release(&text);
}

static void a_private_directory_is_made_or_refused(void **state)
{
    struct fixture *f = *state;
    char inner[160];
    struct stat info;
    snprintf(inner, sizeof inner, "%s/deeper", f->path);
    mode_t before = umask(0);
    assert_int_equal(file_make_private_dir(inner, &f->err), PH_OK);
    umask(before);
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_int_equal(file_make_private_dir(inner, &f->err), PH_OK);
    assert_int_equal(chmod(inner, 0755), 0); /* others may look at names */
    assert_int_equal(file_make_private_dir(inner, &f->err), PH_OK);
    for (unsigned mode = 0702; mode <= 0720; mode += 016) {
        assert_int_equal(chmod(inner, (mode_t)mode), 0);
        assert_int_equal(file_make_private_dir(inner, &f->err), PH_ERR_ARG);
        assert_non_null(strstr(f->err.message, "chmod 700 "));
    }
    assert_int_equal(rmdir(inner), 0);
    assert_int_equal(rmdir(f->path), 0);
}

/* Only the superuser can try what the superuser does for others. */
static void what_root_writes_is_the_directory_owners(void **state)
{
    enum { OTHER = 65534 };
    struct fixture *f = *state;
    struct stat info;
    struct buf text;
    int lock;
    if (geteuid() != 0)
        skip();
    buf_init(&text, 100);
    assert_int_equal(chown(f->dir, OTHER, OTHER), 0);
    assert_int_equal(file_make_private_dir(f->dir, &f->err), PH_OK);
    assert_int_equal(file_write_private(f->path, "secret", 6, &f->err), PH_OK);
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_uid, OTHER);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(file_read_private(f->path, &text, NULL, &f->err), PH_OK);
    unlink(f->path);
    assert_int_equal(file_lock_wait(f->path, 0, &lock, &f->err), PH_OK);
    file_unlock(lock);
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_uid, OTHER);
    assert_int_equal(chown(f->path, 0, 0), 0); /* as if it were a link to a file of root's */
    char other[160];
    snprintf(other, sizeof other, "%s2", f->path);
    assert_int_equal(link(f->path, other), 0);
    assert_int_equal(file_lock_wait(f->path, 0, &lock, &f->err), PH_ERR_ARG);
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_uid, 0);
    unlink(other);
    pid_t child = fork(); /* and what is another's, one who is not root does not read */
    if (child == 0) {
        bool as_should = chmod(f->dir, 0755) == 0 && chown(f->path, 1, 1) == 0 && setuid(OTHER) == 0;
        as_should &= file_read_private(f->path, &text, NULL, NULL) == PH_ERR_ARG;
        _exit(!as_should);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    buf_release(&text);
}

/* A lock that another process holds: waited for as long as was said, and had once that is gone. */
static void a_lock_is_waited_for(void **state)
{
    struct fixture *f = *state;
    int lock, ready[2], go[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    pid_t child = fork();
    if (child == 0) {
        bool held = file_lock(f->path, &lock, NULL) == PH_OK;
        held &= write(ready[1], "x", 1) == 1 && read(go[0], &byte, 1) == 1;
        _exit(!held);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(file_lock_wait(f->path, 10, &lock, &f->err), PH_ERR_BUSY);
    assert_int_equal(write(go[1], "x", 1), 1);
    assert_int_equal(file_lock_wait(f->path, 60000, &lock, &f->err), PH_OK);
    file_unlock(lock);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(only_its_owner_may_have_it),
        TEST(what_is_no_file_is_refused),
        TEST(too_much_is_refused_and_leaves_nothing),
        TEST(a_stamp_tells_changes),
        TEST(a_private_directory_is_made_or_refused),
        TEST(what_root_writes_is_the_directory_owners),
        TEST(a_lock_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
