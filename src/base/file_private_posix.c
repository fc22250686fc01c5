/* Files that hold secrets, on a POSIX system: nobody but their owner may read them, and it is checked on the
 * open descriptor, so that what was checked is what is read. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file_int.h"

#define OTHERS (S_IRWXG | S_IRWXO)
#define OTHERS_WRITE (S_IWGRP | S_IWOTH)
#define LOCK_RETRY_MS 2

static int64_t ns_of(const struct timespec *time)
{
    return (int64_t)time->tv_sec * 1000000000 + (int64_t)time->tv_nsec;
}

static void stamp_of(const struct stat *info, struct file_stamp *out)
{
    *out = (struct file_stamp){.device = (uint64_t)info->st_dev,
                               .inode = (uint64_t)info->st_ino,
                               .bytes = (uint64_t)info->st_size,
                               .modified_ns = ns_of(&info->st_mtim),
                               .changed_ns = ns_of(&info->st_ctim)};
}

void file_stamp(const char *path, struct file_stamp *out)
{
    struct stat info;
    *out = (struct file_stamp){0};
    if (stat(path, &info) == 0)
        stamp_of(&info, out);
}

bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           a->modified_ns == b->modified_ns && a->changed_ns == b->changed_ns;
}

static enum ph_status check_owner(const struct stat *info, const char *path, struct ph_err *err)
{
    if (info->st_uid == geteuid() || info->st_uid == 0)
        return PH_OK;
    return ph_fail(err, PH_ERR_ARG, "%s belongs to another user; run: chown %lu %s", path,
                   (unsigned long)geteuid(), path);
}

static enum ph_status check_private(const struct stat *info, const char *path, struct ph_err *err)
{
    if (!S_ISREG(info->st_mode))
        return ph_fail(err, PH_ERR_ARG, "%s is no regular file; name one", path);
    if (info->st_mode & OTHERS)
        return ph_fail(err, PH_ERR_ARG, "%s is open to other users (mode %03o); run: chmod 600 %s", path,
                       (unsigned)info->st_mode & 0777, path);
    return check_owner(info, path, err);
}

enum ph_status file_read_private(const char *path, struct buf *out, struct file_stamp *stamp,
                                 struct ph_err *err)
{
    struct stat info;
    size_t before = out->len;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not block us */
    if (fd < 0)
        return file_fail_os(err, "open", path);
    enum ph_status status =
        fstat(fd, &info) == 0 ? check_private(&info, path, err) : file_fail_os(err, "inspect", path);
    if (status == PH_OK)
        status = file_read_descriptor(fd, path, out, err);
    close(fd);
    if (status == PH_OK && stamp)
        stamp_of(&info, stamp);
    if (status != PH_OK && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    return status;
}

enum ph_status file_make_private_dir(const char *path, struct ph_err *err)
{
    struct stat info;
    enum ph_status status = file_make_dirs(path, S_IRWXU, err);
    if (status != PH_OK)
        return status;
    if (stat(path, &info) != 0)
        return file_fail_os(err, "inspect", path);
    if (info.st_mode & OTHERS_WRITE)
        return ph_fail(err, PH_ERR_ARG, "other users may write in %s (mode %03o); run: chmod 700 %s", path,
                       (unsigned)info.st_mode & 0777, path);
    return check_owner(&info, path, err);
}

enum ph_status file_lock_wait(const char *path, unsigned timeout_ms, int *lock, struct ph_err *err)
{
    const struct timespec pause = {.tv_nsec = LOCK_RETRY_MS * 1000000};
    for (unsigned waited_ms = 0;; waited_ms += LOCK_RETRY_MS) {
        enum ph_status status = file_lock(path, lock, err);
        if (status != PH_ERR_BUSY || waited_ms >= timeout_ms)
            return status;
        nanosleep(&pause, NULL);
    }
}
