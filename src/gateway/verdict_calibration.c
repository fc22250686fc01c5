/* calibration.json: {"routes": [{"route", "escalate_below", ...}]}. Small, written as a whole. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "gateway/verdict.h"

#define ARENA_BYTES_MAX (16u << 20)
#define LOCK_WAIT_MS 5000

static enum ph_status join(const char *dir, const char *name, char out[PATH_BYTES_MAX], struct ph_err *err)
{
    int len = snprintf(out, PATH_BYTES_MAX, "%s/%s", dir, name);
    return len > 0 && len < PATH_BYTES_MAX
               ? PH_OK
               : ph_fail(err, PH_ERR_LIMIT, "the name of the data directory is too long");
}

static double number(const struct json *object, const char *name)
{
    double value = 0;
    return json_to_double(json_get(object, name), &value) ? value : 0;
}

static enum ph_status read_entry(const struct json *item, const char *path, struct calibration_entry *out,
                                 struct ph_err *err)
{
    *out = (struct calibration_entry){.route = json_text(json_get(item, "route"), ""),
                                      .target = json_text(json_get(item, "target"), ""),
                                      .quality = number(item, "quality"),
                                      .low = number(item, "low"),
                                      .high = number(item, "high"),
                                      .escalated = number(item, "escalated"),
                                      .usd_month = number(item, "usd_month"),
                                      .verdicts = (int64_t)number(item, "verdicts"),
                                      .at = (int64_t)number(item, "at")};
    if (!out->route[0])
        return ph_fail(err, PH_ERR_FORMAT, "%s: an entry names no route; write it again", path);
    if (!json_to_double(json_get(item, "escalate_below"), &out->escalate_below) || out->escalate_below < 0 ||
        out->escalate_below > 1)
        return ph_fail(err, PH_ERR_FORMAT,
                       "%s: route %.100s has no escalate_below from 0 to 1; calibrate it again", path,
                       out->route);
    return PH_OK;
}

static enum ph_status parse(struct calibration *calibration, const char *path, const struct buf *text,
                            struct ph_err *err)
{
    struct json *root = NULL;
    struct ph_err reason;
    enum ph_status status =
        json_parse(&calibration->arena, text->data ? text->data : "", text->len, &root, &reason);
    const struct json *routes = json_get(root, "routes");
    if (status != PH_OK)
        return ph_fail(err, status, "%s: %s; calibrate again", path, reason.message);
    if (!json_is(routes, JSON_ARRAY))
        return ph_fail(err, PH_ERR_FORMAT, "%s has no list \"routes\"; calibrate again", path);
    size_t count = json_count(routes);
    calibration->list = arena_calloc(&calibration->arena, count, sizeof *calibration->list);
    if (!calibration->list)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %s", path);
    JSON_EACH (item, routes) {
        status = read_entry(item, path, &calibration->list[calibration->count], err);
        if (status != PH_OK)
            return status;
        calibration->count++;
    }
    return PH_OK;
}

enum ph_status calibration_read(struct calibration *calibration, const char *dir, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct buf text;
    *calibration = (struct calibration){.count = 0};
    arena_init(&calibration->arena, ARENA_BYTES_MAX);
    buf_init(&text, CALIBRATION_BYTES_MAX);
    enum ph_status status = join(dir, CALIBRATION_FILE, path, err);
    bool there = status == PH_OK && file_exists(path);
    if (there)
        status = file_read(path, &text, err);
    if (there && status == PH_OK)
        status = parse(calibration, path, &text, err);
    if (status != PH_OK)
        calibration->count = 0;
    buf_release(&text);
    return status;
}

void calibration_release(struct calibration *calibration)
{
    arena_release(&calibration->arena);
    *calibration = (struct calibration){.count = 0};
}

const struct calibration_entry *calibration_find(const struct calibration *calibration, const char *route)
{
    for (size_t i = 0; i < calibration->count; i++)
        if (strcmp(calibration->list[i].route, route) == 0)
            return &calibration->list[i];
    return NULL;
}

static void put_number(struct buf *out, const char *name, double value)
{
    buf_printf(out, ",\"%s\":", name);
    json_write_double(out, value);
}

static void write_entry(struct buf *out, const struct calibration_entry *entry)
{
    buf_puts(out, "{\"route\":");
    json_write_string(out, entry->route, strlen(entry->route));
    put_number(out, "escalate_below", entry->escalate_below);
    buf_puts(out, ",\"target\":");
    json_write_string(out, entry->target, strlen(entry->target));
    put_number(out, "quality", entry->quality);
    put_number(out, "low", entry->low);
    put_number(out, "high", entry->high);
    put_number(out, "escalated", entry->escalated);
    put_number(out, "usd_month", entry->usd_month);
    buf_printf(out, ",\"verdicts\":%lld,\"at\":%lld}", (long long)entry->verdicts, (long long)entry->at);
}

static enum ph_status write_all(const char *dir, const struct calibration *calibration,
                                const struct calibration_entry *entry, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct buf text;
    enum ph_status status = join(dir, CALIBRATION_FILE, path, err);
    if (status != PH_OK)
        return status;
    buf_init(&text, CALIBRATION_BYTES_MAX);
    buf_puts(&text, "{\"routes\":[\n");
    write_entry(&text, entry);
    for (size_t i = 0; i < calibration->count; i++)
        if (strcmp(calibration->list[i].route, entry->route) != 0) {
            buf_puts(&text, ",\n");
            write_entry(&text, &calibration->list[i]);
        }
    buf_puts(&text, "\n]}\n");
    status = buf_status(&text);
    if (status != PH_OK)
        status = ph_fail(err, status, "%s would be longer than %u bytes", path, CALIBRATION_BYTES_MAX);
    else
        status = file_write_private(path, text.data, text.len, err);
    buf_release(&text);
    return status;
}

enum ph_status calibration_put(const char *dir, const struct calibration_entry *entry, struct ph_err *err)
{
    struct calibration calibration;
    char path[PATH_BYTES_MAX];
    int lock;
    enum ph_status status = join(dir, "calibration.lock", path, err);
    if (status == PH_OK)
        status = file_lock_wait(path, LOCK_WAIT_MS, &lock, err);
    if (status != PH_OK)
        return status;
    status = calibration_read(&calibration, dir, err);
    if (status == PH_ERR_FORMAT) { /* nothing of it can be used: it is replaced */
        calibration.count = 0;
        status = PH_OK;
    }
    if (status == PH_OK)
        status = write_all(dir, &calibration, entry, err);
    calibration_release(&calibration);
    file_unlock(lock);
    return status;
}
