/* What was read, one line a sensor. The file begins with its header; where the next lines would take it
 * beyond its bytes it is renamed to FILE.1 and begun anew, so both together are at most twice that. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "ops/thermal.h"

#define HEADER \
    "time,part,sensor,celsius,watt,use_percent,memory_used_bytes,memory_total_bytes,throttle,level\n"
#define LINES_BYTES_MAX (64u << 10) /* of one view */

struct thermal_csv {
    char *path;
    size_t bytes_max, len;
    int fd;
    struct buf lines;
};

static enum ph_status fail(const struct thermal_csv *csv, const char *what, struct ph_err *err)
{
    return ph_fail(err, PH_ERR_IO, "%s cannot be %s: %s", csv->path, what, strerror(errno));
}

static enum ph_status write_bytes(struct thermal_csv *csv, const char *bytes, size_t len, struct ph_err *err)
{
    while (len > 0) {
        ssize_t done = write(csv->fd, bytes, len);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return fail(csv, "written", err);
        bytes += done;
        len -= (size_t)done;
        csv->len += (size_t)done;
    }
    return PH_OK;
}

/* One that was begun earlier goes on. */
static enum ph_status begin(struct thermal_csv *csv, struct ph_err *err)
{
    struct stat stat;
    csv->fd = open(csv->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (csv->fd < 0 || fstat(csv->fd, &stat) != 0)
        return fail(csv, "opened", err);
    csv->len = (size_t)stat.st_size;
    return csv->len ? PH_OK : write_bytes(csv, HEADER, strlen(HEADER), err);
}

static enum ph_status turn(struct thermal_csv *csv, struct ph_err *err)
{
    char old[PATH_BYTES_MAX + 2];
    snprintf(old, sizeof old, "%.*s.1", PATH_BYTES_MAX - 1, csv->path);
    close(csv->fd);
    csv->fd = -1;
    if (rename(csv->path, old) != 0)
        return fail(csv, "renamed", err);
    return begin(csv, err);
}

enum ph_status thermal_csv_open(struct thermal_csv **out, const char *path, size_t bytes_max,
                                struct ph_err *err)
{
    struct thermal_csv *csv = *out = mem_calloc(1, sizeof *csv);
    if (!csv || !(csv->path = mem_strdup(path))) {
        mem_free(csv);
        *out = NULL;
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    }
    csv->fd = -1;
    csv->bytes_max = bytes_max;
    buf_init(&csv->lines, LINES_BYTES_MAX);
    enum ph_status status = begin(csv, err);
    if (status != PH_OK) {
        thermal_csv_close(csv);
        *out = NULL;
    }
    return status;
}

void thermal_csv_close(struct thermal_csv *csv)
{
    if (!csv)
        return;
    if (csv->fd >= 0)
        close(csv->fd);
    buf_release(&csv->lines);
    mem_free(csv->path);
    mem_free(csv);
}

/* RFC 4180: in quotes, with quotes doubled. */
static void put_text(struct buf *out, const char *text)
{
    buf_putc(out, '"');
    for (; *text; text++) {
        if (*text == '"')
            buf_putc(out, '"');
        buf_putc(out, *text);
    }
    buf_putc(out, '"');
}

static void put_number(struct buf *out, bool is_known, double value)
{
    if (is_known)
        buf_printf(out, ",%.1f", value);
    else
        buf_putc(out, ',');
}

static void put_sensor(struct buf *out, const char *time, const struct thermal_sensor *sensor,
                       enum thermal_level level)
{
    buf_printf(out, "%s,%s,", time, thermal_part_name(sensor->part));
    put_text(out, sensor->name);
    put_number(out, sensor->has_temperature, sensor->temperature_c);
    put_number(out, sensor->has_power, sensor->power_w);
    put_number(out, sensor->has_use, sensor->use_percent);
    if (sensor->has_memory)
        buf_printf(out, ",%llu,%llu,", (unsigned long long)sensor->memory_used,
                   (unsigned long long)sensor->memory_total);
    else
        buf_puts(out, ",,,");
    put_text(out, sensor->throttle);
    buf_printf(out, ",%s\n", thermal_level_name(level));
}

enum ph_status thermal_csv_write(struct thermal_csv *csv, const struct thermal_view *view,
                                 const enum thermal_level levels[THERMAL_PART_COUNT], struct ph_err *err)
{
    char time[CLOCK_UTC_TEXT_MAX];
    clock_format_utc(view->unix_ms, time);
    buf_clear(&csv->lines);
    for (size_t i = 0; i < view->count; i++)
        put_sensor(&csv->lines, time, &view->sensors[i], levels[view->sensors[i].part]);
    enum ph_status status = buf_status(&csv->lines);
    if (status != PH_OK)
        return ph_fail(err, status, "no memory for the sensors' lines");
    if (csv->fd < 0) /* the last turn failed half-way */
        status = begin(csv, err);
    else if (csv->len > strlen(HEADER) && csv->len + csv->lines.len > csv->bytes_max)
        status = turn(csv, err);
    if (status == PH_OK && csv->lines.len)
        status = write_bytes(csv, csv->lines.data, csv->lines.len, err);
    return status;
}
