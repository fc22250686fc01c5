/* Directories and what is in them, on a POSIX system. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file_int.h"

static int64_t ns_of(const struct timespec *time)
{
    return (int64_t)time->tv_sec * 1000000000 + (int64_t)time->tv_nsec;
}

void file_stamp_of(const struct stat *info, struct file_stamp *out)
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
        file_stamp_of(&info, out);
}

bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           a->modified_ns == b->modified_ns && a->changed_ns == b->changed_ns;
}

static bool inspect_at(int dir, const char *name, struct file_entry *out)
{
    struct stat info;
    *out = (struct file_entry){.name = name};
    if (fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    out->is_link = S_ISLNK(info.st_mode);
    if (out->is_link && fstatat(dir, name, &info, 0) != 0)
        return true;
    out->is_regular = S_ISREG(info.st_mode);
    out->is_dir = S_ISDIR(info.st_mode);
    out->mode = (unsigned)info.st_mode & 07777;
    out->owner = info.st_uid;
    file_stamp_of(&info, &out->stamp);
    return true;
}

enum ph_status file_inspect(const char *path, struct file_entry *out, struct ph_err *err)
{
    return inspect_at(AT_FDCWD, path, out) ? PH_OK : file_fail_os(err, "look at", path);
}

enum ph_status file_each(const char *dir, enum ph_status (*fn)(void *ud, const struct file_entry *entry),
                         void *ud, struct ph_err *err)
{
    DIR *entries = opendir(dir);
    enum ph_status status = PH_OK;
    if (!entries)
        return file_fail_os(err, "read the directory", dir);
    for (struct dirent *e; status == PH_OK && (e = readdir(entries)) != NULL;) {
        struct file_entry entry;
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            inspect_at(dirfd(entries), e->d_name, &entry))
            status = fn(ud, &entry);
    }
    closedir(entries);
    return status;
}

enum ph_status file_free_bytes(const char *path, uint64_t *out, struct ph_err *err)
{
    struct statvfs info;
    if (statvfs(path, &info) != 0)
        return file_fail_os(err, "look at the file system of", path);
    *out = (uint64_t)info.f_bavail * info.f_frsize;
    return PH_OK;
}

enum ph_status file_rename(const char *from, const char *to, struct ph_err *err)
{
    if (rename(from, to) != 0)
        return file_fail_os(err, "rename to", to);
    return file_sync_directory(to, err);
}

enum ph_status file_remove(const char *path, struct ph_err *err)
{
    return unlink(path) == 0 ? PH_OK : file_fail_os(err, "remove", path);
}

enum ph_status file_set_mode(const char *path, unsigned mode, struct ph_err *err)
{
    return chmod(path, (mode_t)mode) == 0 ? PH_OK : file_fail_os(err, "set the mode of", path);
}
