/* The kernel's small files: bounded, and quiet about what is not there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/sysfs_int.h"

#define FILE_BYTES 4096

bool sysfs_path(char out[PATH_BYTES_MAX], const char *dir, const char *name)
{
    int len = snprintf(out, PATH_BYTES_MAX, name ? "%s/%s" : "%s", dir, name);
    return len >= 0 && len < PATH_BYTES_MAX;
}

static bool read_file(const char *dir, const char *name, char out[FILE_BYTES])
{
    char path[PATH_BYTES_MAX];
    size_t len = 0;
    if (!sysfs_path(path, dir, name))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    while (len < FILE_BYTES - 1) {
        ssize_t got = read(fd, out + len, FILE_BYTES - 1 - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        len += (size_t)got;
    }
    close(fd);
    out[len] = 0;
    return len > 0;
}

/* A line's text, trimmed, up to where it ends. */
static bool take_line(const char *from, char out[SYSFS_TEXT_BYTES])
{
    from += strspn(from, " \t");
    size_t len = strcspn(from, "\n");
    while (len > 0 && strchr(" \t\r", from[len - 1]))
        len--;
    len = len < SYSFS_TEXT_BYTES ? len : SYSFS_TEXT_BYTES - 1;
    memcpy(out, from, len);
    out[len] = 0;
    return len > 0;
}

bool sysfs_text(const char *dir, const char *name, char out[SYSFS_TEXT_BYTES])
{
    char text[FILE_BYTES];
    out[0] = 0;
    return read_file(dir, name, text) && take_line(text, out);
}

bool sysfs_number(const char *dir, const char *name, int64_t *out)
{
    char text[SYSFS_TEXT_BYTES], *end;
    if (!sysfs_text(dir, name, text))
        return false;
    errno = 0;
    long long value = strtoll(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    if (errno || end == text || *end)
        return false;
    *out = value;
    return true;
}

bool sysfs_event(const char *dir, const char *key, char out[SYSFS_TEXT_BYTES])
{
    char text[FILE_BYTES];
    size_t len = strlen(key);
    out[0] = 0;
    if (!read_file(dir, "uevent", text))
        return false;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0 && line[len] == '=')
            return take_line(line + len + 1, out);
    }
    return false;
}

/* N of PREFIX<N>SUFFIX. */
static bool number_of(const char *name, const char *prefix, const char *suffix, unsigned *out)
{
    size_t len = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, len) != 0 || name[len] < '0' || name[len] > '9')
        return false;
    unsigned long value = strtoul(name + len, &end, 10);
    if (strcmp(end, suffix) != 0 || value > 1000000)
        return false;
    *out = (unsigned)value;
    return true;
}

static int by_value(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

size_t sysfs_numbered(const char *dir, const char *prefix, const char *suffix,
                      unsigned out[SYSFS_ENTRIES_MAX])
{
    size_t count = 0;
    DIR *entries = opendir(dir);
    if (!entries)
        return 0;
    for (struct dirent *entry; count < SYSFS_ENTRIES_MAX && (entry = readdir(entries)) != NULL;)
        count += number_of(entry->d_name, prefix, suffix, &out[count]);
    closedir(entries);
    qsort(out, count, sizeof *out, by_value);
    return count;
}
