/* ops, private: reading the kernel's small files under a root that tests choose. Texts are cut at their
 * buffer's end; what is absent, empty or no number is simply not there. Thread: any; a file may block, so not
 * the loop's. */
#ifndef PHAROS_OPS_SYSFS_INT_H
#define PHAROS_OPS_SYSFS_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"

#define SYSFS_ROOT "/sys"
#define SYSFS_TEXT_BYTES 256
#define SYSFS_ENTRIES_MAX 512 /* CPUs, mostly; of one directory */

/* ROOT/a/b into out; false: too long. `name` NULL: the directory alone. */
bool sysfs_path(char out[PATH_BYTES_MAX], const char *dir, const char *name);

/* The first line, without white space at its ends. false: absent or empty. */
bool sysfs_text(const char *dir, const char *name, char out[SYSFS_TEXT_BYTES]);
/* Decimal, or hexadecimal with 0x. */
bool sysfs_number(const char *dir, const char *name, int64_t *out);
/* A line "KEY=value" of `uevent`. */
bool sysfs_event(const char *dir, const char *key, char out[SYSFS_TEXT_BYTES]);

/* The numbers N of the entries PREFIX<N>SUFFIX, ascending; how many. */
size_t sysfs_numbered(const char *dir, const char *prefix, const char *suffix,
                      unsigned out[SYSFS_ENTRIES_MAX]);

#endif
