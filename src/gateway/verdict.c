/* A station's verdicts: appended as they come, brought to the disk by a thread, and the thresholds that were
 * calibrated from them.
 *
 * Files are opened for each append: verdicts are rare, judged answers are written a batch a tick, and whoever
 * moves a file away, or another station on the same data that turns it over, is in nobody's way. One write an
 * append, so that lines of several stations never mix. A line that a killed station left without its end is
 * ended first. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uv.h>

#include "base/log.h"
#include "base/mem.h"
#include "gateway/verdict_int.h"

struct verdicts {
    char dir[PATH_BYTES_MAX], verdict_path[PATH_BYTES_MAX], cascade_path[PATH_BYTES_MAX];
    const struct gateway_route *routes;
    double *thresholds; /* one a route; negative: as configured */
    size_t route_count;
    struct file_stamp stamp; /* of the calibration */
    struct buf batch;        /* of judged answers */
    bool is_dirty, has_complained;
    uv_thread_t thread;
    uv_mutex_t mutex;
    uv_cond_t asked;
    bool sync, stop; /* under the mutex */
};

/* ---- Appending */

/* NULL, or what could not be done; errno says why. */
static const char *append_to(int fd, const struct buf *text)
{
    struct stat info;
    char last = '\n';
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        return "inspect";
    if (info.st_size > 0 && pread(fd, &last, 1, info.st_size - 1) != 1)
        return "read";
    if (last != '\n' && write(fd, "\n", 1) != 1)
        return "write";
    ssize_t done;
    do
        done = write(fd, text->data, text->len);
    while (done < 0 && errno == EINTR);
    if (done >= 0 && (size_t)done < text->len)
        errno = ENOSPC;
    return done == (ssize_t)text->len ? NULL : "write";
}

/* Turns a file over that has become too long, unless another station has just done it. */
static void turn_over(int fd, const char *path, uint64_t bytes_max)
{
    char old[PATH_BYTES_MAX + 2];
    struct stat ours, there;
    snprintf(old, sizeof old, "%s.1", path);
    if (fstat(fd, &ours) == 0 && (uint64_t)ours.st_size >= bytes_max && stat(path, &there) == 0 &&
        there.st_ino == ours.st_ino && rename(path, old) != 0)
        log_warn("verdicts", "%s cannot be renamed: %s", path, strerror(errno));
}

static enum ph_status append(const char *path, const struct buf *text, uint64_t bytes_max, struct ph_err *err)
{
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return ph_fail(err, PH_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    const char *failed = append_to(fd, text);
    if (failed)
        (void)ph_fail(err, PH_ERR_IO, "cannot %s %s: %s", failed, path, strerror(errno));
    else
        turn_over(fd, path, bytes_max);
    close(fd);
    return failed ? PH_ERR_IO : PH_OK;
}

enum ph_status verdicts_add(struct verdicts *verdicts, const struct buf *line, struct ph_err *err)
{
    struct buf text;
    buf_init(&text, VERDICT_LINE_BYTES_MAX);
    buf_append(&text, line->data, line->len);
    buf_putc(&text, '\n');
    enum ph_status status = buf_status(line) == PH_OK ? buf_status(&text) : buf_status(line);
    if (status != PH_OK)
        (void)ph_fail(err, status, "the verdict is longer than %d bytes", VERDICT_LINE_BYTES_MAX);
    else
        status = append(verdicts->verdict_path, &text, VERDICTS_FILE_BYTES_MAX, err);
    verdicts->is_dirty = verdicts->is_dirty || status == PH_OK;
    buf_release(&text);
    return status;
}

void verdicts_note(struct verdicts *verdicts, const struct buf *line)
{
    struct buf *batch = &verdicts->batch;
    if (buf_status(line) != PH_OK || line->len + 1 > batch->max - batch->len)
        return;
    buf_append(batch, line->data, line->len);
    buf_putc(batch, '\n');
}

void verdicts_tick(struct verdicts *verdicts)
{
    struct ph_err err;
    if (!verdicts->batch.len)
        return;
    bool ok = buf_status(&verdicts->batch) == PH_OK &&
              append(verdicts->cascade_path, &verdicts->batch, CASCADE_FILE_BYTES_MAX, &err) == PH_OK;
    if (!ok && !verdicts->has_complained)
        log_warn("verdicts", "judged answers are not being kept for pharos route calibrate: %s",
                 buf_status(&verdicts->batch) == PH_OK ? err.message : "out of memory");
    verdicts->has_complained = !ok;
    buf_clear(&verdicts->batch);
}

/* ---- The disk */

static void sync_file(void *ud)
{
    struct verdicts *verdicts = ud;
    struct ph_err err;
    uv_mutex_lock(&verdicts->mutex);
    while (verdicts->sync || !verdicts->stop) {
        if (!verdicts->sync) {
            uv_cond_wait(&verdicts->asked, &verdicts->mutex);
            continue;
        }
        verdicts->sync = false;
        uv_mutex_unlock(&verdicts->mutex);
        enum ph_status status = file_sync(verdicts->verdict_path, &err);
        if (status != PH_OK && status != PH_ERR_NOTFOUND) /* turned over a moment ago */
            log_warn("verdicts", "%s", err.message);
        uv_mutex_lock(&verdicts->mutex);
    }
    uv_mutex_unlock(&verdicts->mutex);
}

static void tell(struct verdicts *verdicts, bool stop)
{
    uv_mutex_lock(&verdicts->mutex);
    verdicts->sync = verdicts->sync || verdicts->is_dirty;
    verdicts->stop = stop;
    uv_cond_signal(&verdicts->asked);
    uv_mutex_unlock(&verdicts->mutex);
    verdicts->is_dirty = false;
}

/* ---- Thresholds */

static void take_calibration(struct verdicts *verdicts, const struct calibration *calibration)
{
    for (size_t i = 0; i < verdicts->route_count; i++) {
        const struct gateway_route *route = &verdicts->routes[i];
        const struct calibration_entry *entry = calibration_find(calibration, route->name);
        double threshold = entry ? entry->escalate_below : -1;
        if (route->policy == GATEWAY_CASCADE && threshold != verdicts->thresholds[i])
            log_info("verdicts", "route %s escalates below %.3g, as %s", route->name,
                     entry ? threshold : route->escalate_below, entry ? "calibrated" : "configured");
        verdicts->thresholds[i] = threshold;
    }
}

static void read_calibration(struct verdicts *verdicts)
{
    char path[PATH_BYTES_MAX + sizeof CALIBRATION_FILE + 1];
    struct calibration calibration;
    struct file_stamp stamp;
    struct ph_err err;
    snprintf(path, sizeof path, "%s/%s", verdicts->dir, CALIBRATION_FILE);
    file_stamp(path, &stamp);
    if (file_stamp_equal(&stamp, &verdicts->stamp))
        return;
    verdicts->stamp = stamp;
    if (calibration_read(&calibration, verdicts->dir, &err) == PH_OK)
        take_calibration(verdicts, &calibration);
    else
        log_warn("verdicts", "%s (thresholds stay as they are)", err.message);
    calibration_release(&calibration);
}

double verdicts_threshold(const struct verdicts *verdicts, const struct gateway_route *route)
{
    double calibrated = verdicts ? verdicts->thresholds[route - verdicts->routes] : -1;
    return calibrated >= 0 ? calibrated : route->escalate_below;
}

void verdicts_second(struct verdicts *verdicts)
{
    if (verdicts->is_dirty)
        tell(verdicts, false);
    read_calibration(verdicts);
}

/* ---- Life */

/* Each step undoes itself when a later one fails. */
static enum ph_status start(struct verdicts *verdicts)
{
    if (uv_mutex_init(&verdicts->mutex) != 0)
        return PH_ERR_NOMEM;
    if (uv_cond_init(&verdicts->asked) == 0) {
        if (uv_thread_create(&verdicts->thread, sync_file, verdicts) == 0)
            return PH_OK;
        uv_cond_destroy(&verdicts->asked);
    }
    uv_mutex_destroy(&verdicts->mutex);
    return PH_ERR_NOMEM;
}

static bool name_files(struct verdicts *verdicts, const char *dir)
{
    int lens[] = {snprintf(verdicts->dir, sizeof verdicts->dir, "%s", dir),
                  snprintf(verdicts->verdict_path, sizeof verdicts->verdict_path, "%s/" VERDICTS_FILE, dir),
                  snprintf(verdicts->cascade_path, sizeof verdicts->cascade_path, "%s/" CASCADE_FILE, dir)};
    bool ok = true;
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++)
        ok = ok && lens[i] >= 0 && lens[i] < PATH_BYTES_MAX;
    return ok;
}

enum ph_status verdicts_open(struct verdicts **out, const char *dir, const struct gateway_route *routes,
                             size_t route_count, struct ph_err *err)
{
    struct verdicts *verdicts = mem_calloc(1, sizeof *verdicts);
    *out = NULL;
    if (!verdicts)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    bool named = name_files(verdicts, dir);
    verdicts->routes = routes;
    verdicts->route_count = route_count;
    verdicts->thresholds = mem_calloc(route_count + 1, sizeof *verdicts->thresholds);
    buf_init(&verdicts->batch, VERDICT_BATCH_BYTES_MAX);
    if (!named || !verdicts->thresholds || start(verdicts) != PH_OK) {
        mem_free(verdicts->thresholds);
        mem_free(verdicts);
        return named ? ph_fail(err, PH_ERR_NOMEM, "out of memory")
                     : ph_fail(err, PH_ERR_LIMIT, "the name of the data directory is too long");
    }
    for (size_t i = 0; i < route_count; i++)
        verdicts->thresholds[i] = -1;
    read_calibration(verdicts);
    *out = verdicts;
    return PH_OK;
}

void verdicts_close(struct verdicts *verdicts)
{
    if (!verdicts)
        return;
    verdicts_tick(verdicts);
    tell(verdicts, true);
    uv_thread_join(&verdicts->thread);
    uv_cond_destroy(&verdicts->asked);
    uv_mutex_destroy(&verdicts->mutex);
    buf_release(&verdicts->batch);
    mem_free(verdicts->thresholds);
    mem_free(verdicts);
}
