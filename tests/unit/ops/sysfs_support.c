#include "ops/sysfs_support.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include "base/file.h"

void test_sysfs_make(struct test_sysfs *sysfs)
{
    snprintf(sysfs->path, sizeof sysfs->path, "/tmp/pharos-sysfs-XXXXXX");
    assert_non_null(mkdtemp(sysfs->path));
}

void test_sysfs_remove(struct test_sysfs *sysfs)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execlp("rm", "rm", "-rf", sysfs->path, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
}

void test_sysfs_put(const struct test_sysfs *sysfs, const char *name, const char *text)
{
    char path[512], dir[512];
    struct ph_err err;
    snprintf(path, sizeof path, "%s/%s", sysfs->path, name);
    snprintf(dir, sizeof dir, "%s", path);
    *strrchr(dir, '/') = 0;
    assert_int_equal(file_make_dirs(dir, 0700, &err), PH_OK);
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, &err), PH_OK);
}

void test_sysfs_drop(const struct test_sysfs *sysfs, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", sysfs->path, name);
    assert_int_equal(unlink(path), 0);
}
