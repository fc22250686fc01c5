/* Files on a POSIX system. */
#include "base/bytes.h"
#include "base/file_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define READ_BYTES ((size_t)1 << 16)
#define WRITE_BYTES_MAX ((size_t)1 << 30) /* systems refuse or cut larger single writes */
#define TEMP_PREFIX ".pharos-tmp-"
#define TEMP_RANDOM_BYTES 8
#define ERROR_TEXT_MAX 128

enum ph_status file_fail_os(struct ph_err *err, const char *doing, const char *path)
{
    int code = errno;
    char words[ERROR_TEXT_MAX];
    if (strerror_r(code, words, sizeof words) != 0)
        words[0] = 0;
    enum ph_status status = code == ENOENT ? PH_ERR_NOTFOUND : code == ENOMEM ? PH_ERR_NOMEM : PH_ERR_IO;
    return ph_fail(err, status, "cannot %s %s: %s", doing, path, words);
}

static enum ph_status check_mappable(const struct stat *info, const char *path, struct ph_err *err)
{
    if (S_ISDIR(info->st_mode))
        return ph_fail(err, PH_ERR_ARG, "%s is a directory; name a file in it", path);
    if (!S_ISREG(info->st_mode))
        return ph_fail(err, PH_ERR_ARG, "%s is not a regular file (a device, pipe or socket can't be mapped)",
                       path);
    if ((uintmax_t)info->st_size > SIZE_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s has %jd bytes, more than the address space", path,
                       (intmax_t)info->st_size);
    return PH_OK;
}

static enum ph_status map_descriptor(struct file_map *map, int fd, const char *path, struct ph_err *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return file_fail_os(err, "inspect", path);
    enum ph_status status = check_mappable(&info, path, err);
    if (status != PH_OK || info.st_size == 0)
        return status;
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return file_fail_os(err, "map", path);
    map->data = data;
    map->len = (size_t)info.st_size;
    return PH_OK;
}

enum ph_status file_map_open(struct file_map *map, const char *path, struct ph_err *err)
{
    *map = (struct file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not block us */
    if (fd < 0)
        return file_fail_os(err, "open", path);
    enum ph_status status = map_descriptor(map, fd, path, err);
    close(fd);
    return status;
}

void file_map_release(struct file_map *map)
{
    if (map->data)
        munmap((void *)map->data, map->len);
    *map = (struct file_map){0};
}

static ssize_t read_retrying(int fd, void *bytes, size_t len)
{
    ssize_t got;
    do
        got = read(fd, bytes, len);
    while (got < 0 && errno == EINTR);
    return got;
}

/* Reads up to the buffer's maximum and then one byte more, to tell a full buffer from a longer file. */
enum ph_status file_read_descriptor(int fd, const char *path, struct buf *out, struct ph_err *err)
{
    for (;;) {
        size_t room = out->max - out->len;
        size_t want = room < READ_BYTES ? room : READ_BYTES;
        char probe;
        char *into = want > 0 ? buf_reserve(out, want) : &probe;
        if (!into)
            return ph_fail(err, buf_status(out), "no memory to read %s", path);
        ssize_t got = read_retrying(fd, into, want > 0 ? want : 1);
        if (got < 0)
            return file_fail_os(err, "read", path);
        if (got == 0)
            return PH_OK;
        if (want == 0)
            return ph_fail(err, PH_ERR_LIMIT, "%s is longer than %zu bytes, the most that is read here", path,
                           out->max);
        buf_grew(out, (size_t)got);
    }
}

enum ph_status file_read(const char *path, struct buf *out, struct ph_err *err)
{
    size_t before = out->len;
    bool standard_input = strcmp(path, "-") == 0;
    const char *name = standard_input ? "standard input" : path;
    int fd = standard_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail_os(err, "open", name);
    enum ph_status status = file_read_descriptor(fd, name, out, err);
    if (!standard_input)
        close(fd);
    if (status != PH_OK && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    return status;
}

/* "dir" of "dir/name", "." of "name", "/" of "/name"; the length of its part of the path, 0 for ".". */
static size_t directory_len(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* The name is short and of its own, so that it fits wherever the target's does. */
static char *temp_path(const char *path)
{
    unsigned char random[TEMP_RANDOM_BYTES];
    size_t dir_len = directory_len(path), prefix_len = sizeof TEMP_PREFIX - 1;
    char *temp = mem_alloc(dir_len + prefix_len + 2 * sizeof random + 1);
    if (!temp)
        return NULL;
    if (entropy_fill(random, sizeof random) != 0) {
        mem_free(temp);
        return NULL;
    }
    memcpy(temp, path, dir_len);
    memcpy(temp + dir_len, TEMP_PREFIX, prefix_len);
    bytes_hex(temp + dir_len + prefix_len, random, sizeof random);
    return temp;
}

static int write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t written = write(fd, bytes, len < WRITE_BYTES_MAX ? len : WRITE_BYTES_MAX);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        bytes += written;
        len -= (size_t)written;
    }
    return 0;
}

static int fsync_retrying(int fd)
{
    int result;
    do
        result = fsync(fd);
    while (result != 0 && errno == EINTR);
    return result;
}

/* Makes the rename durable. File systems that can't sync a directory say EINVAL and need not. */
enum ph_status file_sync_directory(const char *path, struct ph_err *err)
{
    size_t len = directory_len(path);
    char *dir = mem_alloc(len + 2);
    if (!dir)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to sync the directory of %s", path);
    memcpy(dir, path, len);
    dir[len] = '.';
    dir[len + 1] = 0;
    enum ph_status status = PH_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (fsync_retrying(fd) != 0 && errno != EINVAL))
        status = file_fail_os(err, "sync the directory of", path);
    if (fd >= 0)
        close(fd);
    mem_free(dir);
    return status;
}

/* A rename would put a regular file in the place of a device: root has lost /dev/null that way. */
enum ph_status file_out_check(const char *path, struct ph_err *err)
{
    struct stat info;
    if (stat(path, &info) != 0 || S_ISREG(info.st_mode))
        return PH_OK;
    return ph_fail(err, PH_ERR_ARG, "%s is %s; name a file to write", path,
                   S_ISDIR(info.st_mode) ? "a directory" : "no regular file");
}

enum ph_status file_out_open(struct file_out *out, const char *path, unsigned mode, struct ph_err *err)
{
    *out = (struct file_out){.fd = -1};
    enum ph_status status = file_out_check(path, err);
    if (status != PH_OK)
        return status;
    *out = (struct file_out){.fd = -1, .temp = temp_path(path), .path = mem_strdup(path)};
    if (!out->temp || !out->path) {
        file_out_abandon(out);
        return ph_fail(err, PH_ERR_NOMEM, "no memory or no random numbers to write %s", path);
    }
    out->fd = open(out->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    if (out->fd >= 0)
        return PH_OK;
    status = file_fail_os(err, "create a file beside", path);
    file_out_abandon(out);
    return status;
}

enum ph_status file_out_write(struct file_out *out, const void *bytes, size_t len, struct ph_err *err)
{
    return write_all(out->fd, bytes, len) == 0 ? PH_OK : file_fail_os(err, "write", out->path);
}

enum ph_status file_out_rewrite(struct file_out *out, uint64_t offset, const void *bytes, size_t len,
                                struct ph_err *err)
{
    const char *from = bytes;
    while (len > 0) {
        ssize_t written = pwrite(out->fd, from, len < WRITE_BYTES_MAX ? len : WRITE_BYTES_MAX, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return file_fail_os(err, "write", out->path);
        from += written;
        offset += (uint64_t)written;
        len -= (size_t)written;
    }
    return PH_OK;
}

static enum ph_status commit(struct file_out *out, bool sync, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    if (sync && fsync_retrying(out->fd) != 0)
        status = file_fail_os(err, "sync", out->path);
    if (close(out->fd) != 0 && status == PH_OK && errno != EINTR)
        status = file_fail_os(err, "close", out->path);
    out->fd = -1;
    if (status == PH_OK && rename(out->temp, out->path) != 0)
        status = file_fail_os(err, "replace", out->path);
    if (status == PH_OK) {
        mem_free(out->temp);
        out->temp = NULL;
        status = sync ? file_sync_directory(out->path, err) : PH_OK;
    } else {
        unlink(out->temp);
    }
    file_out_abandon(out);
    return status;
}

enum ph_status file_out_commit(struct file_out *out, struct ph_err *err)
{
    return commit(out, true, err);
}

enum ph_status file_out_commit_unsynced(struct file_out *out, struct ph_err *err)
{
    return commit(out, false, err);
}

void file_out_abandon(struct file_out *out)
{
    if (out->fd >= 0) {
        close(out->fd);
        unlink(out->temp);
    }
    mem_free(out->temp);
    mem_free(out->path);
    *out = (struct file_out){.fd = -1};
}

enum ph_status file_write_atomic(const char *path, const void *bytes, size_t len, unsigned mode,
                                 struct ph_err *err)
{
    struct file_out out;
    enum ph_status status = file_out_open(&out, path, mode, err);
    if (status != PH_OK)
        return status;
    status = file_out_write(&out, bytes, len, err);
    if (status == PH_OK)
        return file_out_commit(&out, err);
    file_out_abandon(&out);
    return status;
}

enum ph_status file_truncate(const char *path, uint64_t len, struct ph_err *err)
{
    return truncate(path, (off_t)len) == 0 ? PH_OK : file_fail_os(err, "cut", path);
}

bool file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

static enum ph_status make_dir(const char *path, unsigned mode, struct ph_err *err)
{
    struct stat info;
    if (mkdir(path, (mode_t)mode) == 0)
        return PH_OK;
    if (errno != EEXIST)
        return file_fail_os(err, "make the directory", path);
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return PH_OK;
    return ph_fail(err, PH_ERR_ARG, "%s is there and is no directory; name another one", path);
}

enum ph_status file_make_dir(const char *path, struct ph_err *err)
{
    return make_dir(path, 0777, err);
}

enum ph_status file_make_dirs(const char *path, unsigned mode, struct ph_err *err)
{
    char *part = mem_strdup(path);
    if (!part)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to make the directory %s", path);
    enum ph_status status = PH_OK;
    for (char *at = part; status == PH_OK && *at && (at = strchr(at + 1, '/')) != NULL; *at = '/') {
        *at = 0;
        if (!file_exists(part)) /* a read-only system refuses before it sees that there is nothing to do */
            status = make_dir(part, mode, err);
    }
    mem_free(part);
    return status == PH_OK ? make_dir(path, mode, err) : status;
}

void file_remove_strays(const char *dir)
{
    DIR *entries = opendir(dir);
    if (!entries)
        return;
    for (struct dirent *e; (e = readdir(entries)) != NULL;)
        if (strncmp(e->d_name, TEMP_PREFIX, sizeof TEMP_PREFIX - 1) == 0)
            (void)unlinkat(dirfd(entries), e->d_name, 0);
    closedir(entries);
}

enum ph_status file_remove_prefixed(const char *dir, const char *prefix, struct ph_err *err)
{
    DIR *entries = opendir(dir);
    enum ph_status status = PH_OK;
    if (!entries)
        return file_fail_os(err, "read", dir);
    for (struct dirent *e; (e = readdir(entries)) != NULL;)
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && unlinkat(dirfd(entries), e->d_name, 0) != 0)
            status = file_fail_os(err, "remove a file of", dir);
    closedir(entries);
    return status;
}

enum ph_status file_remove_dir(const char *path, struct ph_err *err)
{
    DIR *entries = opendir(path);
    if (!entries)
        return errno == ENOENT ? PH_OK : file_fail_os(err, "remove", path);
    for (struct dirent *e; (e = readdir(entries)) != NULL;)
        (void)unlinkat(dirfd(entries), e->d_name, 0);
    closedir(entries);
    return rmdir(path) == 0 ? PH_OK : file_fail_os(err, "remove", path);
}

static enum ph_status fail_locked(int lock, const char *path, struct ph_err *err)
{
    struct flock held = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(lock, F_GETLK, &held) == 0 && held.l_type != F_UNLCK && held.l_pid > 0)
        return ph_fail(err, PH_ERR_BUSY, "%s is locked by another process (pid %ld)", path, (long)held.l_pid);
    return ph_fail(err, PH_ERR_BUSY, "%s is locked by another process", path);
}

enum ph_status file_lock(const char *path, int *lock, struct ph_err *err)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*lock < 0)
        return file_fail_os(err, "open", path);
    if (fcntl(*lock, F_SETLK, &whole) == 0)
        return PH_OK;
    enum ph_status status =
        errno == EACCES || errno == EAGAIN ? fail_locked(*lock, path, err) : file_fail_os(err, "lock", path);
    file_unlock(*lock);
    *lock = -1;
    return status;
}

void file_unlock(int lock)
{
    if (lock >= 0)
        close(lock);
}
