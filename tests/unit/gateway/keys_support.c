#include "gateway/keys_support.h"

#include <dirent.h>
#include <sys/stat.h>

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
