/* Files written in place, on a POSIX system. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_int.h"
#include "base/mem.h"

#define PRIVATE (S_IRUSR | S_IWUSR)

static int open_regular(const char *path, int flags, struct stat *info, struct ph_err *err,
                        enum ph_status *status)
{
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, PRIVATE); /* a pipe must not block us */
    *status = PH_OK;
    if (fd < 0) {
        *status = file_fail_os(err, "open", path);
        return -1;
    }
    if (fstat(fd, info) != 0)
        *status = file_fail_os(err, "inspect", path);
    else if (!S_ISREG(info->st_mode))
        *status = ph_fail(err, PH_ERR_ARG, "%s is no regular file; move it away", path);
    if (*status == PH_OK)
        return fd;
    close(fd);
    return -1;
}

enum ph_status file_at_open(struct file_at *file, const char *path, bool write, struct ph_err *err)
{
    struct stat info;
    enum ph_status status;
    *file = (struct file_at){0};
    int fd = open_regular(path, write ? O_RDWR | O_CREAT : O_RDONLY, &info, err, &status);
    if (fd < 0)
        return status;
    file->path = mem_strdup(path);
    if (file->path) {
        file->fd = fd;
        return PH_OK;
    }
    close(fd);
    return ph_fail(err, PH_ERR_NOMEM, "no memory to open %s", path);
}

enum ph_status file_at_len(const struct file_at *file, uint64_t *len, struct ph_err *err)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return file_fail_os(err, "inspect", file->path);
    *len = (uint64_t)info.st_size;
    return PH_OK;
}

enum ph_status file_at_read(const struct file_at *file, uint64_t offset, void *bytes, size_t len, size_t *got,
                            struct ph_err *err)
{
    *got = 0;
    while (*got < len) {
        ssize_t n = pread(file->fd, (char *)bytes + *got, len - *got, (off_t)(offset + *got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_fail_os(err, "read", file->path);
        if (n == 0)
            break;
        *got += (size_t)n;
    }
    return PH_OK;
}

enum ph_status file_at_write(const struct file_at *file, uint64_t offset, const void *bytes, size_t len,
                             struct ph_err *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(file->fd, (const char *)bytes + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_fail_os(err, "write", file->path);
        done += (size_t)n;
    }
    return PH_OK;
}

enum ph_status file_at_cut(const struct file_at *file, uint64_t len, struct ph_err *err)
{
    return ftruncate(file->fd, (off_t)len) == 0 ? PH_OK : file_fail_os(err, "cut", file->path);
}

void file_at_close(struct file_at *file)
{
    if (file->path)
        close(file->fd);
    mem_free(file->path);
    *file = (struct file_at){0};
}

enum ph_status file_sync(const char *path, struct ph_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return file_fail_os(err, "open", path);
    int result;
    do
        result = fdatasync(fd);
    while (result != 0 && errno == EINTR);
    enum ph_status status = result == 0 ? PH_OK : file_fail_os(err, "sync", path);
    close(fd);
    return status == PH_OK ? file_sync_directory(path, err) : status;
}

/* A store to a page that the disk has no room for would be a signal: the blocks are taken beforehand, also
 * those that a copy of the file may have left out. */
static enum ph_status map_shared(struct file_shared *map, int fd, const char *path, size_t len,
                                 struct ph_err *err)
{
    int code;
    do
        code = posix_fallocate(fd, 0, (off_t)len);
    while (code == EINTR);
    errno = code;
    if (code != 0)
        return file_fail_os(err, "make room for", path);
    void *data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return file_fail_os(err, "map", path);
    *map = (struct file_shared){data, len};
    return PH_OK;
}

enum ph_status file_shared_open(struct file_shared *map, const char *path, size_t len, struct ph_err *err)
{
    struct stat info;
    enum ph_status status;
    *map = (struct file_shared){0};
    int fd = open_regular(path, O_RDWR | O_CREAT, &info, err, &status);
    if (fd < 0)
        return status;
    status = map_shared(map, fd, path, len, err);
    close(fd);
    return status;
}

void file_shared_release(struct file_shared *map)
{
    if (map->data)
        munmap(map->data, map->len);
    *map = (struct file_shared){0};
}
