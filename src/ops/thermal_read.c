/* Sensors: NVIDIA's by their library, the others' by hwmon, and what has no hwmon by thermal zones.
 *
 * One sensor a chip. A processor's chip has a temperature for each core and one for the whole: the hottest
 * counts. An AMD card has three: "edge", which its makers' limits are about, counts; the junction runs hotter
 * by design. A thermal zone that repeats a chip is left out.
 *
 * A processor's power, use and throttling and an NPU's use are shown as sums that grow: they are known from
 * the second reading on. (Since 2020 kernels show a processor's energy to root only.)
 *
 * Formats: the kernel's ABI documents of sysfs; proc_stat(5), proc_meminfo(5). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "ops/nvml_int.h"
#include "ops/sysfs_int.h"
#include "ops/thermal.h"

#define METERS_MAX 16 /* of a kind */
#define MEMINFO_BYTES_MAX ((size_t)64 << 10)
#define STAT_COLUMNS 8 /* user, nice, system, idle, iowait, irq, softirq, steal */
#define STAT_IDLE 3
#define STAT_WAITING 4

/* A sum that grows. */
struct meter {
    int64_t value;
    uint64_t read_ns; /* 0: not yet */
};

struct thermal_reader {
    char hwmon[PATH_BYTES_MAX], zones[PATH_BYTES_MAX], powercap[PATH_BYTES_MAX], accel[PATH_BYTES_MAX];
    char cpus[PATH_BYTES_MAX], proc[PATH_BYTES_MAX];
    uint64_t cpu_busy, cpu_ticks; /* of the last reading; ticks 0: not yet */
    int64_t throttled;            /* how often, all cores, until then */
    struct nvml *nvml;
    struct ph_err nvml_err;                            /* of a library that was not asked for by name */
    struct meter energy[METERS_MAX], busy[METERS_MAX]; /* microjoules of packages, microseconds of NPUs */
};

static const struct {
    const char *name; /* of a chip, or the type of a zone */
    enum thermal_part part;
} known[] = {{"coretemp", THERMAL_CPU},    {"k10temp", THERMAL_CPU},     {"zenpower", THERMAL_CPU},
             {"via_cputemp", THERMAL_CPU}, {"cpu_thermal", THERMAL_CPU}, {"x86_pkg_temp", THERMAL_CPU},
             {"cpu-thermal", THERMAL_CPU}, {"soc_thermal", THERMAL_CPU}, {"soc-thermal", THERMAL_CPU},
             {"amdgpu", THERMAL_GPU},      {"radeon", THERMAL_GPU},      {"nouveau", THERMAL_GPU},
             {"i915", THERMAL_GPU},        {"xe", THERMAL_GPU},          {"gpu-thermal", THERMAL_GPU}};

const char *thermal_part_name(enum thermal_part part)
{
    static const char *const names[THERMAL_PART_COUNT] = {"cpu", "gpu", "other"};
    return names[part];
}

static enum thermal_part part_of(const char *name)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].part;
    return THERMAL_OTHER;
}

enum ph_status thermal_reader_open(struct thermal_reader **out, const char *sysfs, const char *nvml,
                                   struct ph_err *err)
{
    const char *root = sysfs ? sysfs : SYSFS_ROOT;
    struct thermal_reader *reader = *out = mem_calloc(1, sizeof *reader);
    if (!reader)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    enum ph_status status = PH_OK;
    if (!sysfs_path(reader->hwmon, root, "class/hwmon") ||
        !sysfs_path(reader->zones, root, "class/thermal") ||
        !sysfs_path(reader->powercap, root, "class/powercap") ||
        !sysfs_path(reader->accel, root, "class/accel") ||
        !sysfs_path(reader->cpus, root, "devices/system/cpu") ||
        !sysfs_path(reader->proc, sysfs ? root : "/", "proc"))
        status = ph_fail(err, PH_ERR_LIMIT, "the name of the directory %.100s is too long", root);
    else if (nvml)
        status = nvml_open(&reader->nvml, nvml, err);
    else if (nvml_open(&reader->nvml, NULL, &reader->nvml_err) == PH_OK)
        reader->nvml_err.message[0] = 0;
    if (status == PH_OK)
        return PH_OK;
    thermal_reader_close(reader);
    *out = NULL;
    return status;
}

void thermal_reader_close(struct thermal_reader *reader)
{
    if (!reader)
        return;
    nvml_close(reader->nvml);
    mem_free(reader);
}

const char *thermal_reader_note(const struct thermal_reader *reader)
{
    return reader->nvml_err.message;
}

static struct thermal_sensor *next_sensor(struct thermal_view *view)
{
    if (view->count == THERMAL_SENSORS_MAX)
        return NULL;
    struct thermal_sensor *sensor = &view->sensors[view->count];
    *sensor = (struct thermal_sensor){.part = THERMAL_OTHER};
    return sensor;
}

/* ---- NVIDIA */

static void read_nvidia(struct nvml *nvml, struct thermal_view *view)
{
    for (size_t i = 0; i < nvml_count(nvml); i++) {
        struct thermal_sensor *sensor = next_sensor(view);
        struct nvml_sample now;
        struct machine_device device;
        if (!sensor || !nvml_sample(nvml, i, &now) || !nvml_describe(nvml, i, &device))
            continue;
        sensor->part = THERMAL_GPU;
        snprintf(sensor->name, sizeof sensor->name, "%.60s %.30s", device.name, device.address);
        sensor->has_temperature = now.has_temperature;
        sensor->temperature_c = now.temperature_c;
        sensor->has_power = now.has_power;
        sensor->power_w = now.power_w;
        sensor->has_use = now.has_use;
        sensor->use_percent = now.use_percent;
        sensor->has_memory = now.has_memory;
        sensor->memory_used = now.memory_used;
        sensor->memory_total = now.memory_total;
        if (now.has_throttle)
            nvml_throttle_words(now.throttle, sensor->throttle, sizeof sensor->throttle);
        sensor->throttles_for_heat = now.has_throttle && nvml_throttle_is_heat(now.throttle);
        view->count++;
    }
}

/* ---- hwmon */

#define SANE_C 250 /* beyond this, in either direction, a sensor is broken */

static bool read_degrees(const char *dir, const char *name, double *out)
{
    int64_t value;
    if (!sysfs_number(dir, name, &value) || value < -SANE_C * 1000 || value > SANE_C * 1000)
        return false;
    *out = (double)value / 1000;
    return true;
}

/* temp<N>_<what>. */
static const char *file_of(char out[64], unsigned number, const char *what)
{
    snprintf(out, 64, "temp%u_%s", number, what);
    return out;
}

static void read_temperatures(const char *dir, struct thermal_sensor *sensor, char label[SYSFS_TEXT_BYTES])
{
    unsigned numbers[SYSFS_ENTRIES_MAX];
    char file[64], text[SYSFS_TEXT_BYTES];
    size_t count = sysfs_numbered(dir, "temp", "_input", numbers);
    bool is_card = sensor->part == THERMAL_GPU;
    for (size_t i = 0; i < count; i++) {
        double celsius;
        if (!read_degrees(dir, file_of(file, numbers[i], "input"), &celsius))
            continue;
        sysfs_text(dir, file_of(file, numbers[i], "label"), text);
        bool is_edge = is_card && strcmp(text, "edge") == 0;
        if (sensor->has_temperature && !is_edge && (is_card || celsius <= sensor->temperature_c))
            continue;
        sensor->has_temperature = true;
        sensor->temperature_c = celsius;
        memcpy(label, text, SYSFS_TEXT_BYTES);
        sensor->critical_c = 0;
        if (!read_degrees(dir, file_of(file, numbers[i], "crit"), &sensor->critical_c))
            sensor->critical_c = 0;
    }
}

static void read_power(const char *dir, struct thermal_sensor *sensor)
{
    int64_t value;
    if (!sysfs_number(dir, "power1_average", &value) && !sysfs_number(dir, "power1_input", &value))
        return;
    sensor->has_power = value >= 0;
    sensor->power_w = (double)value / 1e6;
}

static void read_card(const char *dir, struct thermal_sensor *sensor)
{
    char device[PATH_BYTES_MAX];
    int64_t use, total, used;
    if (!sysfs_path(device, dir, "device"))
        return;
    if (sysfs_number(device, "gpu_busy_percent", &use) && use >= 0 && use <= 100) {
        sensor->has_use = true;
        sensor->use_percent = (double)use;
    }
    if (sysfs_number(device, "mem_info_vram_total", &total) && total > 0 &&
        sysfs_number(device, "mem_info_vram_used", &used) && used >= 0) {
        sensor->has_memory = true;
        sensor->memory_used = (uint64_t)used;
        sensor->memory_total = (uint64_t)total;
    }
}

static void read_chip(const char *dir, struct thermal_view *view)
{
    char name[SYSFS_TEXT_BYTES], label[SYSFS_TEXT_BYTES] = "";
    struct thermal_sensor *sensor = next_sensor(view);
    if (!sensor || !sysfs_text(dir, "name", name))
        return;
    sensor->part = part_of(name);
    read_temperatures(dir, sensor, label);
    read_power(dir, sensor);
    if (sensor->part == THERMAL_GPU)
        read_card(dir, sensor);
    if (!sensor->has_temperature && !sensor->has_power && !sensor->has_use)
        return;
    char whole[2 * SYSFS_TEXT_BYTES + 2];
    int len = snprintf(whole, sizeof whole, "%s%s%s", name, *label ? " " : "", label);
    machine_set_text(sensor->name, whole, (size_t)len);
    view->count++;
}

static void read_chips(const char *root, struct thermal_view *view)
{
    unsigned numbers[SYSFS_ENTRIES_MAX];
    size_t count = sysfs_numbered(root, "hwmon", "", numbers);
    for (size_t i = 0; i < count; i++) {
        char dir[PATH_BYTES_MAX], name[32];
        snprintf(name, sizeof name, "hwmon%u", numbers[i]);
        if (sysfs_path(dir, root, name))
            read_chip(dir, view);
    }
}

/* ---- Thermal zones */

/* A chip has said it already: the same processor, or one of the zone's own name. */
static bool is_repeated(const struct thermal_view *view, enum thermal_part part, const char *type)
{
    for (size_t i = 0; i < view->count; i++)
        if ((part != THERMAL_OTHER && view->sensors[i].part == part && view->sensors[i].has_temperature) ||
            strncmp(view->sensors[i].name, type, strlen(type)) == 0)
            return true;
    return false;
}

static void read_zones(const char *root, struct thermal_view *view)
{
    unsigned numbers[SYSFS_ENTRIES_MAX];
    struct thermal_view chips = *view;
    size_t count = sysfs_numbered(root, "thermal_zone", "", numbers);
    for (size_t i = 0; i < count; i++) {
        char dir[PATH_BYTES_MAX], name[32], type[SYSFS_TEXT_BYTES];
        struct thermal_sensor *sensor = next_sensor(view);
        snprintf(name, sizeof name, "thermal_zone%u", numbers[i]);
        if (!sensor || !sysfs_path(dir, root, name) || !sysfs_text(dir, "type", type))
            continue;
        sensor->part = part_of(type);
        if (is_repeated(&chips, sensor->part, type) || !read_degrees(dir, "temp", &sensor->temperature_c))
            continue;
        sensor->has_temperature = true;
        machine_set_text(sensor->name, type, strlen(type));
        view->count++;
    }
}

/* ---- Sums that grow */

/* What it grew by a second. false: the first reading, or it has begun anew. */
static bool meter_rate(struct meter *meter, int64_t value, uint64_t now_ns, double *per_s)
{
    struct meter before = *meter;
    *meter = (struct meter){value, now_ns};
    if (!before.read_ns || value < before.value || now_ns <= before.read_ns)
        return false;
    *per_s = (double)(value - before.value) / ((double)(now_ns - before.read_ns) * 1e-9);
    return true;
}

static void read_packages(struct thermal_reader *reader, uint64_t now_ns, struct thermal_view *view)
{
    unsigned numbers[SYSFS_ENTRIES_MAX];
    size_t count = sysfs_numbered(reader->powercap, "intel-rapl:", "", numbers);
    for (size_t i = 0; i < count && i < METERS_MAX; i++) {
        char dir[PATH_BYTES_MAX], name[32], zone[SYSFS_TEXT_BYTES];
        struct thermal_sensor *sensor = next_sensor(view);
        int64_t energy;
        double rate;
        snprintf(name, sizeof name, "intel-rapl:%u", numbers[i]);
        if (!sensor || !sysfs_path(dir, reader->powercap, name) || !sysfs_text(dir, "name", zone) ||
            strncmp(zone, "package", strlen("package")) != 0 || !sysfs_number(dir, "energy_uj", &energy) ||
            !meter_rate(&reader->energy[i], energy, now_ns, &rate))
            continue;
        *sensor = (struct thermal_sensor){.part = THERMAL_CPU, .has_power = true, .power_w = rate / 1e6};
        machine_set_text(sensor->name, zone, strlen(zone));
        view->count++;
    }
}

static void read_npus(struct thermal_reader *reader, uint64_t now_ns, struct thermal_view *view)
{
    unsigned numbers[SYSFS_ENTRIES_MAX];
    size_t count = sysfs_numbered(reader->accel, "accel", "", numbers);
    for (size_t i = 0; i < count && i < METERS_MAX; i++) {
        char dir[PATH_BYTES_MAX], name[32];
        struct thermal_sensor *sensor = next_sensor(view);
        int64_t busy_us, memory;
        double rate;
        snprintf(name, sizeof name, "accel%u/device", numbers[i]);
        if (!sensor || !sysfs_path(dir, reader->accel, name) ||
            !sysfs_number(dir, "npu_busy_time_us", &busy_us) ||
            !meter_rate(&reader->busy[i], busy_us, now_ns, &rate))
            continue;
        sensor->has_use = true;
        sensor->use_percent = rate < 1e6 ? rate / 1e4 : 100;
        sensor->has_memory = sysfs_number(dir, "npu_memory_utilization", &memory) && memory >= 0;
        sensor->memory_used = sensor->has_memory ? (uint64_t)memory : 0;
        snprintf(sensor->name, sizeof sensor->name, "NPU %u", numbers[i]);
        view->count++;
    }
}

/* ---- The processors together: /proc (ROOT/proc under a root that was chosen) */

static bool read_ticks(const char *proc, uint64_t *busy, uint64_t *ticks)
{
    char line[SYSFS_TEXT_BYTES], *at = line + 3;
    if (!sysfs_text(proc, "stat", line) || strncmp(line, "cpu", 3) != 0)
        return false;
    *busy = *ticks = 0;
    for (int i = 0; i < STAT_COLUMNS; i++) {
        uint64_t column = strtoull(at, &at, 10);
        *ticks += column;
        *busy += i == STAT_IDLE || i == STAT_WAITING ? 0 : column;
    }
    return *ticks > 0;
}

/* "MemTotal:   24042004 kB" */
static bool memory_line(const char *text, const char *name, uint64_t *bytes)
{
    const char *line = strstr(text, name);
    *bytes = line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
    return *bytes > 0;
}

static void read_memory(const char *proc, struct thermal_sensor *sensor)
{
    char path[PATH_BYTES_MAX];
    struct buf text;
    struct ph_err ignored;
    uint64_t total, available;
    buf_init(&text, MEMINFO_BYTES_MAX);
    if (sysfs_path(path, proc, "meminfo") && file_read(path, &text, &ignored) == PH_OK && text.len) {
        sensor->has_memory = memory_line(text.data, "MemTotal:", &total) &&
                             memory_line(text.data, "MemAvailable:", &available) && available <= total;
        sensor->memory_total = sensor->has_memory ? total : 0;
        sensor->memory_used = sensor->has_memory ? total - available : 0;
    }
    buf_release(&text);
}

static int64_t count_throttling(const char *cpus)
{
    unsigned numbers[SYSFS_ENTRIES_MAX];
    size_t count = sysfs_numbered(cpus, "cpu", "", numbers);
    int64_t sum = 0, times;
    for (size_t i = 0; i < count; i++) {
        char dir[PATH_BYTES_MAX], name[48];
        snprintf(name, sizeof name, "cpu%u/thermal_throttle", numbers[i]);
        if (sysfs_path(dir, cpus, name) && sysfs_number(dir, "core_throttle_count", &times) && times > 0)
            sum += times;
    }
    return sum;
}

static void read_processors(struct thermal_reader *reader, struct thermal_view *view)
{
    struct thermal_sensor *sensor = next_sensor(view);
    uint64_t busy, ticks;
    if (!sensor || !read_ticks(reader->proc, &busy, &ticks))
        return;
    int64_t throttled = count_throttling(reader->cpus);
    *sensor = (struct thermal_sensor){.part = THERMAL_CPU, .name = "all cores"};
    sensor->has_use = reader->cpu_ticks > 0 && ticks > reader->cpu_ticks && busy >= reader->cpu_busy;
    if (sensor->has_use)
        sensor->use_percent = 100 * (double)(busy - reader->cpu_busy) / (double)(ticks - reader->cpu_ticks);
    if (reader->cpu_ticks && throttled > reader->throttled) {
        snprintf(sensor->throttle, sizeof sensor->throttle, "heat");
        sensor->throttles_for_heat = true;
    }
    read_memory(reader->proc, sensor);
    reader->cpu_busy = busy;
    reader->cpu_ticks = ticks;
    reader->throttled = throttled;
    view->count++;
}

void thermal_read(struct thermal_reader *reader, const struct clock_source *clock, struct thermal_view *out)
{
    uint64_t now_ns = clock_monotonic_ns(clock);
    out->unix_ms = clock_unix_ms(clock);
    out->count = 0;
    read_nvidia(reader->nvml, out);
    read_chips(reader->hwmon, out);
    read_zones(reader->zones, out);
    read_packages(reader, now_ns, out);
    read_npus(reader, now_ns, out);
    read_processors(reader, out);
}

const struct thermal_sensor *thermal_hottest(const struct thermal_view *view, enum thermal_part part)
{
    const struct thermal_sensor *best = NULL;
    for (size_t i = 0; i < view->count; i++) {
        const struct thermal_sensor *sensor = &view->sensors[i];
        if (sensor->part == part && sensor->has_temperature &&
            (!best || sensor->temperature_c > best->temperature_c))
            best = sensor;
    }
    return best;
}
