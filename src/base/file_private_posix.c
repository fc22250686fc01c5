/* Files that hold secrets, on a POSIX system: nobody but their owner may read them, and it is checked on the
 * open descriptor, so that what was checked is what is read. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file_int.h"
#include "base/limits.h"

#define OTHERS (S_IRWXG | S_IRWXO)
#define OTHERS_WRITE (S_IWGRP | S_IWOTH)
#define LOCK_RETRY_MS 2

/* The superuser sees to others' stations, whose files are theirs. */
static enum ph_status check_owner(const struct stat *info, const char *path, struct ph_err *err)
{
    if (geteuid() == 0 || info->st_uid == geteuid() || info->st_uid == 0)
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
        file_stamp_of(&info, stamp);
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

/* What the superuser makes in a directory belongs to the directory's owner, who could not use it else. */
static enum ph_status hand_over(int fd, const char *path, struct ph_err *err)
{
    struct stat dir, own;
    char name[PATH_BYTES_MAX];
    const char *slash = strrchr(path, '/');
    int len = snprintf(name, sizeof name, "%.*s.", slash ? (int)(slash - path + 1) : 0, path);
    if (geteuid() != 0)
        return PH_OK;
    if (len < 0 || (size_t)len >= sizeof name)
        return ph_fail(err, PH_ERR_LIMIT, "%s is too long a path", path);
    if (stat(name, &dir) != 0 || fstat(fd, &own) != 0)
        return file_fail_os(err, "inspect", path);
    if (dir.st_uid == own.st_uid)
        return PH_OK;
    if (own.st_nlink != 1) /* who may write there may have linked anybody's file to this name */
        return ph_fail(err, PH_ERR_ARG, "%s has a second name; remove it", path);
    if (fchown(fd, dir.st_uid, dir.st_gid) == 0)
        return PH_OK;
    return file_fail_os(err, "give to its directory's owner", path);
}

enum ph_status file_write_private(const char *path, const void *bytes, size_t len, struct ph_err *err)
{
    struct file_out out;
    enum ph_status status = file_out_open(&out, path, S_IRUSR | S_IWUSR, err);
    if (status != PH_OK)
        return status;
    status = hand_over(out.fd, path, err);
    if (status == PH_OK)
        status = file_out_write(&out, bytes, len, err);
    if (status == PH_OK)
        return file_out_commit(&out, err);
    file_out_abandon(&out);
    return status;
}

enum ph_status file_lock_wait(const char *path, unsigned timeout_ms, int *lock, struct ph_err *err)
{
    const struct timespec pause = {.tv_nsec = LOCK_RETRY_MS * 1000000};
    enum ph_status status = file_lock(path, lock, err);
    for (unsigned waited_ms = 0; status == PH_ERR_BUSY && waited_ms < timeout_ms;
         waited_ms += LOCK_RETRY_MS) {
        nanosleep(&pause, NULL);
        status = file_lock(path, lock, err);
    }
    if (status == PH_OK)
        status = hand_over(*lock, path, err);
    if (status != PH_OK) {
        file_unlock(*lock);
        *lock = -1;
    }
    return status;
}
