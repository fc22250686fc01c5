/* Machines as JSON. One table says which members there are; reading, checking and writing all walk it, so
 * that what is written is what is read. A profile may come from elsewhere (another machine's, a hand-made
 * one): nothing in it is believed beyond the table's bounds. */
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "ops/machine.h"

#define FORMAT 2 /* 1 had no rates of gemv, without which decoding cannot be predicted */
#define ARENA_BYTES_MAX (16u << 20)
#define RATE_MAX 1e18 /* operations or bytes a second */
#define BYTES_MAX 1e18

enum member_type { MEMBER_TEXT, MEMBER_BOOL, MEMBER_UNSIGNED, MEMBER_BYTES, MEMBER_TIME, MEMBER_DOUBLE };

struct member {
    const char *name; /* NULL ends a table */
    enum member_type type;
    size_t offset;
    double max;
};

#define ROW(name_, type_, struct_, member_, max_)                    \
    {                                                                \
        (name_), MEMBER_##type_, offsetof(struct_, member_), (max_), \
    }
#define PEAK_ROWS(struct_)                                       \
    ROW("peak_f32", DOUBLE, struct_, peaks.f32, RATE_MAX),       \
        ROW("peak_f16", DOUBLE, struct_, peaks.f16, RATE_MAX),   \
        ROW("peak_bf16", DOUBLE, struct_, peaks.bf16, RATE_MAX), \
        ROW("peak_int8", DOUBLE, struct_, peaks.int8, RATE_MAX)

static const struct member machine_members[] = {
    ROW("name", TEXT, struct machine, name, 0),
    ROW("about", TEXT, struct machine, about, 0),
    ROW("measured", BOOL, struct machine, measured, 0),
    ROW("measured_at", TIME, struct machine, measured_unix_s, 1e12),
    ROW("disturbed", BOOL, struct machine, disturbed, 0),
    ROW("cpu", TEXT, struct machine, cpu, 0),
    ROW("isa", TEXT, struct machine, isa, 0),
    ROW("cores", UNSIGNED, struct machine, cores, 65536),
    ROW("threads", UNSIGNED, struct machine, threads, 65536),
    ROW("memory_bytes", BYTES, struct machine, memory_bytes, BYTES_MAX),
    ROW("memory_available_bytes", BYTES, struct machine, memory_available_bytes, BYTES_MAX),
    PEAK_ROWS(struct machine),
    ROW("disk_read_bytes_per_s", DOUBLE, struct machine, disk_read_bytes_per_s, RATE_MAX),
    ROW("disk_is_cached", BOOL, struct machine, disk_is_cached, 0),
    ROW("fsync_s", DOUBLE, struct machine, fsync_s, 1e6),
    ROW("sensors", UNSIGNED, struct machine, sensors, 65536),
    ROW("load_w", DOUBLE, struct machine, load_w, 1e9),
    ROW("idle_w", DOUBLE, struct machine, idle_w, 1e9),
    ROW("price_usd", DOUBLE, struct machine, price_usd, 1e12),
    {.name = NULL},
};

static const struct member device_members[] = {
    ROW("name", TEXT, struct machine_device, name, 0),
    ROW("vendor", TEXT, struct machine_device, vendor, 0),
    ROW("driver", TEXT, struct machine_device, driver, 0),
    ROW("address", TEXT, struct machine_device, address, 0),
    ROW("shared_memory", BOOL, struct machine_device, shared_memory, 0),
    ROW("memory_bytes", BYTES, struct machine_device, memory_bytes, BYTES_MAX),
    ROW("memory_free_bytes", BYTES, struct machine_device, memory_free_bytes, BYTES_MAX),
    ROW("memory_bytes_per_s", DOUBLE, struct machine_device, memory_bytes_per_s, RATE_MAX),
    ROW("link_bytes_per_s", DOUBLE, struct machine_device, link_bytes_per_s, RATE_MAX),
    PEAK_ROWS(struct machine_device),
    ROW("power_limit_w", DOUBLE, struct machine_device, power_limit_w, 1e9),
    ROW("price_usd", DOUBLE, struct machine_device, price_usd, 1e12),
    {.name = NULL},
};

static const char *const kind_names[] = {[MACHINE_GPU] = "gpu", [MACHINE_NPU] = "npu"};

void machine_set_text(char out[MACHINE_TEXT_BYTES], const char *text, size_t len)
{
    size_t used = 0;
    for (size_t at = 0; at < len;) {
        uint32_t point;
        char bytes[UTF8_LEN_MAX];
        at += utf8_next(text + at, len - at, &point);
        if (point < 0x20 || (point >= 0x7f && point < 0xa0))
            point = '?';
        size_t count = utf8_encode(point, bytes);
        if (used + count >= MACHINE_TEXT_BYTES)
            break;
        memcpy(out + used, bytes, count);
        used += count;
    }
    out[used] = 0;
}

static struct machine_gemv_rate *find_gemv_rate(const struct machine *machine, const char *type)
{
    for (size_t i = 0; i < machine->gemv_rate_count; i++)
        if (strcmp(machine->gemv_rates[i].type, type) == 0)
            return (struct machine_gemv_rate *)&machine->gemv_rates[i];
    return NULL;
}

double machine_gemv_rate(const struct machine *machine, const char *type)
{
    const struct machine_gemv_rate *rate = find_gemv_rate(machine, type);
    return rate ? rate->ops_per_s : 0;
}

void machine_set_gemv_rate(struct machine *machine, const char *type, double ops_per_s)
{
    struct machine_gemv_rate *rate = find_gemv_rate(machine, type);
    if (!rate && machine->gemv_rate_count < MACHINE_TYPES_MAX && strlen(type) < MACHINE_TYPE_BYTES) {
        rate = &machine->gemv_rates[machine->gemv_rate_count++];
        memcpy(rate->type, type, strlen(type) + 1);
    }
    if (rate)
        rate->ops_per_s = ops_per_s;
}

/* ---- Writing */

static void write_name(struct buf *out, const char *name, bool *is_first)
{
    buf_puts(out, *is_first ? "" : ",");
    *is_first = false;
    json_write_string(out, name, strlen(name));
    buf_putc(out, ':');
}

static void write_number(struct buf *out, const char *name, double value, bool *is_first)
{
    if (value == 0)
        return;
    write_name(out, name, is_first);
    json_write_double(out, value);
}

static void write_member(struct buf *out, const struct member *member, const void *values, bool *is_first)
{
    const char *place = (const char *)values + member->offset;
    switch (member->type) {
    case MEMBER_TEXT:
        if (*place) {
            write_name(out, member->name, is_first);
            json_write_string(out, place, strlen(place));
        }
        return;
    case MEMBER_BOOL:
        if (*(const bool *)place) {
            write_name(out, member->name, is_first);
            buf_puts(out, "true");
        }
        return;
    case MEMBER_UNSIGNED:
        write_number(out, member->name, *(const unsigned *)(const void *)place, is_first);
        return;
    case MEMBER_BYTES:
    case MEMBER_TIME: { /* both non-negative, of one size */
        uint64_t value;
        memcpy(&value, place, sizeof value);
        if (value) {
            write_name(out, member->name, is_first);
            buf_put_uint(out, value);
        }
        return;
    }
    case MEMBER_DOUBLE:
        write_number(out, member->name, *(const double *)(const void *)place, is_first);
    }
}

static void write_members(struct buf *out, const struct member *members, const void *values, bool *is_first)
{
    for (const struct member *member = members; member->name; member++)
        write_member(out, member, values, is_first);
}

void machine_format(struct buf *out, const struct machine *machine)
{
    bool is_first = false;
    buf_printf(out, "{\"format\":%d", FORMAT);
    write_members(out, machine_members, machine, &is_first);
    buf_puts(out, ",\"memory_bytes_per_s\":[");
    for (unsigned i = 0; i < machine->memory_points; i++) {
        buf_puts(out, i ? "," : "");
        json_write_double(out, machine->memory_bytes_per_s[i]);
    }
    buf_puts(out, "],\"gemv_ops_per_s\":{");
    is_first = true;
    for (size_t i = 0; i < machine->gemv_rate_count; i++)
        write_number(out, machine->gemv_rates[i].type, machine->gemv_rates[i].ops_per_s, &is_first);
    is_first = false;
    buf_puts(out, "},\"devices\":[");
    for (size_t i = 0; i < machine->device_count; i++) {
        const struct machine_device *device = &machine->devices[i];
        buf_printf(out, "%s{\"kind\":\"%s\"", i ? "," : "", kind_names[device->kind]);
        write_members(out, device_members, device, &is_first);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

enum ph_status machine_write(const struct machine *machine, const char *path, struct ph_err *err)
{
    struct buf text;
    buf_init(&text, MACHINE_FILE_BYTES_MAX);
    machine_format(&text, machine);
    buf_putc(&text, '\n');
    enum ph_status status = buf_status(&text);
    if (status == PH_OK)
        status = file_write_atomic(path, text.data, text.len, 0644, err);
    else
        ph_fail(err, status, "no memory to write %s", path);
    buf_release(&text);
    return status;
}

/* ---- Reading */

struct reader {
    const char *source;
    struct ph_err *err;
};

static enum ph_status refuse(const struct reader *reader, const char *where, const char *name,
                             const char *wanted)
{
    return ph_fail(reader->err, PH_ERR_FORMAT,
                   "%s: %s\"%s\" is not %s; measure again with pharos bench probe", reader->source, where,
                   name, wanted);
}

/* The member's number, within 0 and its maximum. */
static bool read_number(const struct json *value, const struct member *member, double *out)
{
    return json_to_double(value, out) && *out >= 0 && *out <= member->max;
}

static enum ph_status read_member(const struct reader *reader, const char *where, const struct member *member,
                                  const struct json *value, void *values)
{
    void *place = (char *)values + member->offset;
    double number;
    int64_t integer;
    switch (member->type) {
    case MEMBER_TEXT:
        if (!json_is(value, JSON_STRING))
            return refuse(reader, where, member->name, "a text");
        machine_set_text(place, value->u.str.text, value->u.str.len);
        return PH_OK;
    case MEMBER_BOOL:
        if (!json_is_bool(value))
            return refuse(reader, where, member->name, "true or false");
        *(bool *)place = json_is(value, JSON_TRUE);
        return PH_OK;
    case MEMBER_DOUBLE:
        if (!read_number(value, member, &number))
            return refuse(reader, where, member->name, "a number that can be");
        *(double *)place = number;
        return PH_OK;
    default:
        break;
    }
    if (!json_to_int64(value, &integer) || integer < 0 || (double)integer > member->max)
        return refuse(reader, where, member->name, "a whole number that can be");
    if (member->type == MEMBER_UNSIGNED)
        *(unsigned *)place = (unsigned)integer;
    else
        memcpy(place, &integer, sizeof integer);
    return PH_OK;
}

static enum ph_status read_members(const struct reader *reader, const char *where,
                                   const struct member *members, const struct json *object, void *values)
{
    enum ph_status status = PH_OK;
    for (const struct member *member = members; member->name && status == PH_OK; member++) {
        const struct json *value = json_get(object, member->name);
        if (!json_is_absent(value))
            status = read_member(reader, where, member, value, values);
    }
    return status;
}

static enum ph_status read_devices(const struct reader *reader, const struct json *list, struct machine *out)
{
    if (!json_is_absent(list) && (!json_is(list, JSON_ARRAY) || json_count(list) > MACHINE_DEVICES_MAX))
        return refuse(reader, "", "devices", "a list of at most 32");
    JSON_EACH (item, list) {
        struct machine_device *device = &out->devices[out->device_count];
        const struct json *kind = json_get(item, "kind");
        if (json_text_is(kind, kind_names[MACHINE_NPU]))
            device->kind = MACHINE_NPU;
        else if (!json_text_is(kind, kind_names[MACHINE_GPU]))
            return refuse(reader, "a device's ", "kind", "\"gpu\" or \"npu\"");
        enum ph_status status = read_members(reader, "a device's ", device_members, item, device);
        if (status != PH_OK)
            return status;
        out->device_count++;
    }
    return PH_OK;
}

static enum ph_status read_bandwidths(const struct reader *reader, const struct json *list,
                                      struct machine *out)
{
    static const struct member rate = {.max = RATE_MAX};
    const char *name = "memory_bytes_per_s";
    if (!json_is_absent(list) && (!json_is(list, JSON_ARRAY) || json_count(list) > MACHINE_THREADS_MAX))
        return refuse(reader, "", name, "a list of at most 256");
    JSON_EACH (item, list) {
        if (!read_number(item, &rate, &out->memory_bytes_per_s[out->memory_points++]))
            return refuse(reader, "", name, "a list of rates that can be");
    }
    return PH_OK;
}

static enum ph_status read_gemv_rates(const struct reader *reader, const struct json *rates,
                                      struct machine *out)
{
    static const struct member rate = {.max = RATE_MAX};
    const char *name = "gemv_ops_per_s";
    double value;
    if (!json_is_absent(rates) && (!json_is(rates, JSON_OBJECT) || json_count(rates) > MACHINE_TYPES_MAX))
        return refuse(reader, "", name, "an object of at most 32 rates");
    JSON_EACH (item, rates) {
        if (item->key_len >= MACHINE_TYPE_BYTES || !read_number(item, &rate, &value))
            return refuse(reader, "", name, "an object of formats and rates that can be");
        machine_set_gemv_rate(out, item->key, value);
    }
    return PH_OK;
}

static enum ph_status read_root(const struct reader *reader, const struct json *root, struct machine *out)
{
    int64_t format;
    if (!json_to_int64(json_get(root, "format"), &format) || format != FORMAT)
        return refuse(reader, "", "format", "the 2 of a machine's profile");
    enum ph_status status = read_members(reader, "", machine_members, root, out);
    if (status == PH_OK)
        status = read_bandwidths(reader, json_get(root, "memory_bytes_per_s"), out);
    if (status == PH_OK)
        status = read_gemv_rates(reader, json_get(root, "gemv_ops_per_s"), out);
    return status == PH_OK ? read_devices(reader, json_get(root, "devices"), out) : status;
}

enum ph_status machine_parse(struct machine *out, const char *source, const char *text, size_t len,
                             struct ph_err *err)
{
    struct reader reader = {source, err};
    struct ph_err why;
    struct arena arena;
    struct json *root = NULL;
    *out = (struct machine){.cores = 0};
    arena_init(&arena, ARENA_BYTES_MAX);
    enum ph_status status = json_parse(&arena, text, len, &root, &why);
    status =
        status == PH_OK ? read_root(&reader, root, out) : ph_fail(err, status, "%s: %s", source, why.message);
    arena_release(&arena);
    if (status != PH_OK)
        *out = (struct machine){.cores = 0};
    return status;
}

enum ph_status machine_read(struct machine *out, const char *path, struct ph_err *err)
{
    struct buf text;
    buf_init(&text, MACHINE_FILE_BYTES_MAX);
    enum ph_status status = file_read(path, &text, err);
    if (status == PH_OK)
        status = machine_parse(out, path, text.len ? text.data : "", text.len, err);
    buf_release(&text);
    return status;
}
