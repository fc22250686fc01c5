/* The disk: how fast it reads what is not in memory, and how long an fsync takes.
 *
 * A scratch file is written and synced, its pages are dropped (POSIX_FADV_DONTNEED), and it is read past the
 * page cache by O_DIRECT where the file system takes that. Whether the pages have gone is asked (mincore):
 * where they have not, as in a file system of memory, which may take O_DIRECT and not mean it, the figure is
 * the cache's and is called that. A virtual machine's disk may still be in its host's memory, which nobody in
 * here can see. The scratch file has no name while it is used, so that a killed probe leaves nothing behind.
 */
#define _GNU_SOURCE /* O_DIRECT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <uv.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/values.h"
#include "ops/probe_int.h"

#define FILE_BYTES ((size_t)256 << 20)
#define CHUNK_BYTES ((size_t)4 << 20)
#define ALIGNMENT 4096
#define FREE_SHARE 8      /* the scratch file takes at most one part in so many of what is free */
#define RESIDENT_SHARE 10 /* more than one page in so many in memory: the figure is not the disk's */
#define SYNCS_MAX 64

struct scratch {
    int fd;
    uint8_t *chunk; /* [CHUNK_BYTES] */
    size_t bytes;
    bool is_direct;
};

static void say(struct probe_notes *notes, const char *what, int error)
{
    snprintf(notes->disk, sizeof notes->disk, "%s%s%s", what, error ? ": " : "",
             error ? strerror(error) : "");
}

static size_t file_bytes(const char *dir, double scale)
{
    struct statvfs disk;
    uint64_t wanted = (uint64_t)((double)FILE_BYTES * scale);
    if (statvfs(dir, &disk) == 0) {
        uint64_t most = (uint64_t)disk.f_bavail * disk.f_frsize / FREE_SHARE;
        wanted = wanted < most ? wanted : most;
    }
    return (size_t)wanted / CHUNK_BYTES * CHUNK_BYTES;
}

static int open_scratch(const char *dir)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s/.pharos-tmp-probe-XXXXXX", dir);
    if (len < 0 || (size_t)len >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = mkstemp(path);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static bool write_all(int fd, const uint8_t *bytes, size_t len, size_t at)
{
    while (len > 0) {
        ssize_t done = pwrite(fd, bytes, len, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        bytes += done;
        at += (size_t)done;
        len -= (size_t)done;
    }
    return true;
}

/* Random bytes: a file system that compresses gets nothing for free. */
static bool fill(const struct scratch *scratch)
{
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t at = 0; at < scratch->bytes; at += CHUNK_BYTES) {
        for (size_t i = 0; i < CHUNK_BYTES; i += sizeof(uint64_t)) {
            uint64_t word = rng_u64(&rng);
            memcpy(scratch->chunk + i, &word, sizeof word);
        }
        if (!write_all(scratch->fd, scratch->chunk, CHUNK_BYTES, at))
            return false;
    }
    return fsync(scratch->fd) == 0;
}

/* Whether any of it is in the page cache. */
static bool is_in_memory(const struct scratch *scratch)
{
    size_t pages = scratch->bytes / ALIGNMENT, resident = 0;
    unsigned char *flags = mem_calloc(pages, 1);
    void *map = mmap(NULL, scratch->bytes, PROT_READ, MAP_SHARED, scratch->fd, 0);
    bool known = flags && map != MAP_FAILED && mincore(map, scratch->bytes, flags) == 0;
    for (size_t i = 0; known && i < pages; i++)
        resident += flags[i] & 1;
    if (map != MAP_FAILED)
        munmap(map, scratch->bytes);
    mem_free(flags);
    return !known || resident > pages / RESIDENT_SHARE;
}

static bool read_all(const struct scratch *scratch)
{
    for (size_t at = 0; at < scratch->bytes;) {
        ssize_t got = pread(scratch->fd, scratch->chunk, CHUNK_BYTES, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += (size_t)got;
    }
    return true;
}

static void measure_read(struct scratch *scratch, struct machine *out, struct probe_notes *notes)
{
    int flags = fcntl(scratch->fd, F_GETFL);
    posix_fadvise(scratch->fd, 0, 0, POSIX_FADV_DONTNEED);
    scratch->is_direct = flags >= 0 && fcntl(scratch->fd, F_SETFL, flags | O_DIRECT) == 0;
    bool is_cached = is_in_memory(scratch);
    uint64_t start = uv_hrtime();
    bool ok = read_all(scratch);
    if (!ok && scratch->is_direct && errno == EINVAL) { /* promised and not kept */
        fcntl(scratch->fd, F_SETFL, flags);
        scratch->is_direct = false;
        is_cached = is_in_memory(scratch);
        start = uv_hrtime();
        ok = read_all(scratch);
    }
    double seconds = (double)(uv_hrtime() - start) * 1e-9;
    fcntl(scratch->fd, F_SETFL, flags);
    if (!ok) {
        say(notes, "the scratch file cannot be read", errno);
        return;
    }
    out->disk_read_bytes_per_s = (double)scratch->bytes / seconds;
    out->disk_is_cached = is_cached;
    say(notes,
        is_cached ? "this file system stays in memory: the speed is that of the page cache, not of a disk"
        : scratch->is_direct ? "read past the page cache (O_DIRECT)"
                             : "read after its pages were dropped from the page cache",
        0);
}

static void measure_sync(const struct scratch *scratch, size_t count, struct machine *out,
                         struct probe_notes *notes)
{
    double seconds[SYNCS_MAX];
    for (size_t i = 0; i < count; i++) {
        scratch->chunk[0] = (uint8_t)i;
        uint64_t start = uv_hrtime();
        if (!write_all(scratch->fd, scratch->chunk, ALIGNMENT, scratch->bytes + i * ALIGNMENT) ||
            fsync(scratch->fd) != 0) {
            say(notes, "fsync fails on the scratch file", errno);
            return;
        }
        seconds[i] = (double)(uv_hrtime() - start) * 1e-9;
    }
    out->fsync_s = values_median(seconds, count);
}

void probe_disk(struct machine *out, const char *dir, double scale, struct probe_notes *notes)
{
    struct scratch scratch = {.fd = -1, .bytes = file_bytes(dir, scale)};
    if (scratch.bytes == 0) {
        say(notes, "too little of the disk is free for a scratch file: it was not measured", 0);
        return;
    }
    scratch.chunk = mem_alloc_aligned(ALIGNMENT, CHUNK_BYTES);
    scratch.fd = scratch.chunk ? open_scratch(dir) : -1;
    if (!scratch.chunk)
        say(notes, "no memory to read into", 0);
    else if (scratch.fd < 0)
        say(notes, "no scratch file can be made in the data directory", errno);
    else if (!fill(&scratch))
        say(notes, "the scratch file cannot be written", errno);
    else {
        measure_read(&scratch, out, notes);
        measure_sync(&scratch, scale < 1 ? SYNCS_MAX / 4 : SYNCS_MAX, out, notes);
    }
    if (scratch.fd >= 0)
        close(scratch.fd);
    mem_free(scratch.chunk);
}
