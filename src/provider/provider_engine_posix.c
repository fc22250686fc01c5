/* Log and process number of a supervised engine.
 *
 * A station that is killed may leave engines behind for a moment, and for good when their watcher is killed
 * with it (net_process.c). Their numbers are in files beside their logs, the group's and the command's, with
 * the time at which the command's process began, in the kernel's count: a number may have gone to somebody
 * else meanwhile, the pair has not. Where the system does not tell that time nothing is ended. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "provider/provider_engine_int.h"

#define GAP " | " /* for the end of a line */
#define STAT_BYTES_MAX 4096
#define STAT_START_FIELD 22 /* proc(5): starttime */

/* ---- Paths */

static char *path_of(const char *dir, const char *model_id, const char *suffix)
{
    struct buf path;
    buf_init(&path, PATH_BYTES_MAX);
    buf_printf(&path, "%s/", dir);
    for (const char *c = model_id; *c; c++) {
        bool fit = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                   *c == '-' || *c == '_' || (*c == '.' && c != model_id);
        buf_putc(&path, fit ? *c : '_');
    }
    buf_puts(&path, suffix);
    if (buf_status(&path) != PH_OK) {
        buf_release(&path);
        return NULL;
    }
    return buf_take(&path);
}

enum ph_status engine_files_init(struct engine_files *files, const char *dir, const char *model_id,
                                 struct ph_err *err)
{
    *files = (struct engine_files){
        .dir = mem_strdup(dir),
        .log = path_of(dir, model_id, ".log"),
        .old_log = path_of(dir, model_id, ".log.1"),
        .pid = path_of(dir, model_id, ".pid"),
        .memory = path_of(dir, model_id, ".memory"),
    };
    if (files->dir && files->log && files->old_log && files->pid && files->memory)
        return PH_OK;
    engine_files_release(files);
    return ph_fail(err, PH_ERR_LIMIT, "%s: the path of a log in %s is too long", model_id, dir);
}

void engine_files_release(struct engine_files *files)
{
    mem_free(files->dir);
    mem_free(files->log);
    mem_free(files->old_log);
    mem_free(files->pid);
    mem_free(files->memory);
    *files = (struct engine_files){0};
}

/* ---- Logs */

enum ph_status engine_files_turn(const struct engine_files *files, struct ph_err *err)
{
    if (rename(files->log, files->old_log) != 0 && errno != ENOENT)
        log_warn("provider", "cannot rename %s: %s", files->log, strerror(errno));
    return file_make_dir(files->dir, err);
}

/* Control characters become blanks, lines are joined by GAP. */
static void append_line(struct buf *out, const char *text, size_t len)
{
    bool gap = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '\n' || c == '\r') {
            gap = true;
            continue;
        }
        if (gap && out->len > 0)
            buf_puts(out, GAP);
        gap = false;
        buf_putc(out, (unsigned char)c < ' ' || c == 0x7f ? ' ' : c);
    }
}

static size_t read_end(const char *path, char *out, size_t size)
{
    struct file_at file = {0};
    struct ph_err err;
    uint64_t len = 0;
    size_t got = 0;
    if (file_at_open(&file, path, false, &err) != PH_OK)
        return 0;
    if (file_at_len(&file, &len, &err) != PH_OK ||
        file_at_read(&file, len > size ? len - size : 0, out, size, &got, &err) != PH_OK)
        got = 0;
    file_at_close(&file);
    return got;
}

void engine_files_tail(const struct engine_files *files, size_t bytes_max, struct buf *out)
{
    char bytes[SUPERVISED_LOG_TAIL_BYTES];
    struct buf line;
    size_t from = 0, len = read_end(files->log, bytes, sizeof bytes);
    buf_init(&line, sizeof bytes * 4);
    append_line(&line, bytes, len);
    from = line.len > bytes_max ? line.len - bytes_max : 0;
    const char *gap = from ? strstr(line.data + from, GAP) : NULL; /* whole lines, where they are short */
    if (gap && (size_t)(gap - line.data) < from + bytes_max / 2)
        from = (size_t)(gap - line.data) + strlen(GAP);
    while (from < line.len && ((unsigned char)line.data[from] & 0xc0) == 0x80)
        from++; /* not within a character */
    buf_append(out, line.len ? line.data + from : "", line.len - from);
    buf_release(&line);
}

/* From an offset to the end as it was. */
static enum ph_status copy_end(const char *from, const char *to, uint64_t at, uint64_t end,
                               struct ph_err *err)
{
    char piece[8192];
    struct file_at in = {0};
    struct file_out out;
    size_t got = sizeof piece;
    enum ph_status status = file_at_open(&in, from, false, err);
    if (status != PH_OK)
        return status;
    status = file_out_open(&out, to, 0600, err);
    if (status == PH_OK) {
        for (; status == PH_OK && got == sizeof piece && at < end; at += got) {
            status = file_at_read(&in, at, piece, sizeof piece, &got, err);
            if (status == PH_OK)
                status = file_out_write(&out, piece, got, err);
        }
        if (status == PH_OK)
            status = file_out_commit(&out, err);
        else
            file_out_abandon(&out);
    }
    file_at_close(&in);
    return status;
}

/* The engine appends: after the cut it goes on at the file's beginning. */
void engine_files_bound_log(const struct engine_files *files, uint64_t bytes_max)
{
    struct file_stamp log;
    struct ph_err err;
    file_stamp(files->log, &log);
    if (log.bytes <= bytes_max)
        return;
    if (copy_end(files->log, files->old_log, log.bytes - bytes_max, log.bytes, &err) != PH_OK)
        log_warn("provider", "%s is cut, and its end is not kept: %s", files->log, err.message);
    if (file_truncate(files->log, 0, &err) != PH_OK)
        log_warn("provider", "%s", err.message);
}

/* ---- Processes */

/* When a process began; 0: it is not there, or the system does not say. */
static unsigned long long started_at(long pid)
{
    char path[64];
    struct buf stat;
    struct ph_err err;
    unsigned long long start = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    buf_init(&stat, STAT_BYTES_MAX);
    if (file_read(path, &stat, &err) == PH_OK && stat.len) {
        const char *at = strrchr(stat.data, ')'); /* the name before it may hold anything */
        for (int field = 2; at && field < STAT_START_FIELD; field++) {
            at = strchr(at, ' ');
            at = at ? at + 1 : NULL;
        }
        start = at ? strtoull(at, NULL, 10) : 0;
    }
    buf_release(&stat);
    return start;
}

void engine_files_note(const struct engine_files *files, int pid, int group)
{
    char line[64];
    struct ph_err err;
    int len = snprintf(line, sizeof line, "%d %d %llu\n", group, pid, started_at(pid));
    if (file_write_atomic(files->pid, line, (size_t)len, 0600, &err) != PH_OK)
        log_warn("provider", "%s", err.message);
}

void engine_files_forget(const struct engine_files *files)
{
    (void)unlink(files->pid);
}

void engine_files_end_orphan(const struct engine_files *files)
{
    struct buf line;
    struct ph_err err;
    if (!file_exists(files->pid))
        return;
    buf_init(&line, 64);
    if (file_read(files->pid, &line, &err) == PH_OK && line.len) {
        char *end = line.data;
        long group = strtol(line.data, &end, 10);
        long pid = strtol(end, &end, 10);
        unsigned long long start = strtoull(end, NULL, 10);
        if (group > 1 && pid > 1 && start && started_at(pid) == start && kill((pid_t)-group, SIGKILL) == 0)
            log_warn("provider", "process group %ld, left behind by a station that was killed, is ended",
                     group);
    }
    buf_release(&line);
    engine_files_forget(files);
}
