/* A folder that looks like /sys, made file by file. */
#ifndef PHAROS_TESTS_SYSFS_SUPPORT_H
#define PHAROS_TESTS_SYSFS_SUPPORT_H

#include "test_support.h"

struct test_sysfs {
    char path[64];
};
void test_sysfs_make(struct test_sysfs *sysfs);
void test_sysfs_remove(struct test_sysfs *sysfs);
void test_sysfs_put(const struct test_sysfs *sysfs, const char *name, const char *text);
void test_sysfs_drop(const struct test_sysfs *sysfs, const char *name); /* a file */

#endif
