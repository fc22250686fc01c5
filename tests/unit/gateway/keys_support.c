#include "gateway/keys_support.h"

#include <dirent.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"

static uint64_t test_ns(void *ud)
{
    return ((struct test_clock *)ud)->ns;
}

static int64_t test_unix_ms(void *ud)
{
    return ((struct test_clock *)ud)->unix_ms;
}

void test_clock_init(struct test_clock *clock, int64_t unix_s)
{
    *clock = (struct test_clock){{test_ns, test_unix_ms, clock}, 1000000000, unix_s * 1000};
}

double test_cpu_ns(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

void test_dir_make(struct test_dir *dir)
{
    snprintf(dir->path, sizeof dir->path, "/tmp/pharos-test-keys.XXXXXX");
    assert_non_null(mkdtemp(dir->path));
}

static const char *inside(const struct test_dir *dir, const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir->path, name);
    return path;
}

void test_dir_remove(struct test_dir *dir)
{
    DIR *entries = opendir(dir->path);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            assert_int_equal(remove(inside(dir, entry->d_name)), 0);
    closedir(entries);
    assert_int_equal(rmdir(dir->path), 0);
}

void test_dir_write(const struct test_dir *dir, const char *name, const char *text, unsigned mode)
{
    assert_int_equal(file_write_atomic(inside(dir, name), text, strlen(text), 0600, NULL), PH_OK);
    assert_int_equal(chmod(inside(dir, name), (mode_t)mode), 0);
}

char *test_dir_read(const struct test_dir *dir, const char *name)
{
    struct buf text;
    buf_init(&text, 16u << 20);
    assert_int_equal(file_read(inside(dir, name), &text, NULL), PH_OK);
    buf_puts(&text, "");
    return buf_take(&text);
}

void test_keys_equal(const struct key *a, const struct key *b)
{
    assert_string_equal(a->id, b->id);
    assert_string_equal(a->account, b->account);
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->scope_count, b->scope_count);
    for (size_t i = 0; i < a->scope_count; i++)
        assert_string_equal(a->scopes[i], b->scopes[i]);
    assert_true(a->budget_usd_month == b->budget_usd_month);
    assert_int_equal(a->rpm, b->rpm);
    assert_int_equal(a->tpm, b->tpm);
    assert_int_equal(a->concurrency, b->concurrency);
    assert_int_equal(a->created_unix_s, b->created_unix_s);
    assert_int_equal(a->expires_unix_s, b->expires_unix_s);
    assert_int_equal(a->revoked_unix_s, b->revoked_unix_s);
    assert_string_equal(a->replaced_by, b->replaced_by);
    assert_memory_equal(a->hash, b->hash, sizeof a->hash);
}
