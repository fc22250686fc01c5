/* Heat: sensors from a made-up sysfs and NVML, the guard on ramps and noise, the log's rotation. */
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "gateway/keys_support.h"
#include "ops/sysfs_support.h"
#include "ops/thermal.h"

#define S UINT64_C(1000000000)

/* ---- Sensors */

struct fixture {
    struct test_sysfs sysfs;
    struct thermal_view view;
    struct thermal_reader *reader;
};

static int setup(void **state)
{
    struct fixture *f = mem_calloc(1, sizeof *f);
    test_sysfs_make(&f->sysfs);
    unsetenv("FAKE_NVML_STATE");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    thermal_reader_close(f->reader);
    test_sysfs_remove(&f->sysfs);
    mem_free(f);
    return 0;
}

static void read_now(struct fixture *f, const char *nvml)
{
    struct ph_err err;
    thermal_reader_close(f->reader);
    assert_int_equal(thermal_reader_open(&f->reader, f->sysfs.path, nvml, &err), PH_OK);
    thermal_read(f->reader, clock_system(), &f->view);
}

static void no_sensor_is_no_error(void **state)
{
    struct fixture *f = *state;
    read_now(f, NULL);
    assert_int_equal(f->view.count, 0);
    assert_null(thermal_hottest(&f->view, THERMAL_CPU));
}

static void chips_are_read(void **state)
{
    struct fixture *f = *state;
    static const char *const files[][2] = {
        {"hwmon/hwmon0/name", "coretemp\n"},
        {"hwmon/hwmon0/temp1_input", "61000\n"},
        {"hwmon/hwmon0/temp1_label", "Package id 0\n"},
        {"hwmon/hwmon0/temp2_input", "63500\n"},
        {"hwmon/hwmon0/temp2_label", "Core 0\n"},
        {"hwmon/hwmon0/temp2_crit", "100000\n"},
        {"hwmon/hwmon1/name", "amdgpu\n"},
        {"hwmon/hwmon1/temp1_input", "90000\n"},
        {"hwmon/hwmon1/temp1_label", "junction\n"},
        {"hwmon/hwmon1/temp2_input", "72000\n"},
        {"hwmon/hwmon1/temp2_label", "edge\n"},
        {"hwmon/hwmon1/power1_average", "213500000\n"},
        {"hwmon/hwmon1/device/gpu_busy_percent", "97\n"},
        {"hwmon/hwmon1/device/mem_info_vram_total", "1000\n"},
        {"hwmon/hwmon1/device/mem_info_vram_used", "600\n"},
        {"hwmon/hwmon2/name", "nvme\n"},
        {"hwmon/hwmon2/temp1_input", "99000\n"},
        {"hwmon/hwmon3/name", "broken\n"},
        {"hwmon/hwmon3/temp1_input", "hot\n"},
        {"thermal/thermal_zone0/type", "x86_pkg_temp\n"}, /* the chip has said it */
        {"thermal/thermal_zone0/temp", "61000\n"},
        {"thermal/thermal_zone1/type", "acpitz\n"},
        {"thermal/thermal_zone1/temp", "27800\n"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char name[128];
        snprintf(name, sizeof name, "class/%s", files[i][0]);
        test_sysfs_put(&f->sysfs, name, files[i][1]);
    }
    read_now(f, NULL);
    assert_int_equal(f->view.count, 4);
    const struct thermal_sensor *cpu = thermal_hottest(&f->view, THERMAL_CPU);
    const struct thermal_sensor *gpu = thermal_hottest(&f->view, THERMAL_GPU);
    assert_string_equal(cpu->name, "coretemp Core 0");
    assert_true(cpu->temperature_c == 63.5 && cpu->critical_c == 100);
    assert_string_equal(gpu->name, "amdgpu edge");
    assert_true(gpu->temperature_c == 72 && gpu->power_w == 213.5 && gpu->use_percent == 97);
    assert_true(gpu->has_memory && gpu->memory_used == 600 && gpu->memory_total == 1000);
    assert_string_equal(thermal_hottest(&f->view, THERMAL_OTHER)->name, "nvme");
}

static void a_zone_stands_in_for_a_chip(void **state)
{
    struct fixture *f = *state;
    test_sysfs_put(&f->sysfs, "class/thermal/thermal_zone0/type", "cpu-thermal\n");
    test_sysfs_put(&f->sysfs, "class/thermal/thermal_zone0/temp", "55123\n");
    read_now(f, NULL);
    assert_true(thermal_hottest(&f->view, THERMAL_CPU)->temperature_c == 55.123);
    test_sysfs_put(&f->sysfs, "class/thermal/thermal_zone0/temp", "999999999\n"); /* cannot be */
    thermal_read(f->reader, clock_system(), &f->view);
    assert_null(thermal_hottest(&f->view, THERMAL_CPU));
}

static void sums_that_grow_are_rates(void **state)
{
    struct fixture *f = *state;
    struct test_clock clock;
    test_clock_init(&clock, 1700000000);
    test_sysfs_put(&f->sysfs, "class/powercap/intel-rapl:0/name", "package-0\n");
    test_sysfs_put(&f->sysfs, "class/powercap/intel-rapl:0/energy_uj", "1000000\n");
    test_sysfs_put(&f->sysfs, "class/powercap/intel-rapl:1/name", "psys\n"); /* the whole board: not again */
    test_sysfs_put(&f->sysfs, "class/powercap/intel-rapl:1/energy_uj", "1\n");
    test_sysfs_put(&f->sysfs, "class/accel/accel0/device/npu_busy_time_us", "500\n");
    test_sysfs_put(&f->sysfs, "class/accel/accel0/device/npu_memory_utilization", "4096\n");
    read_now(f, NULL);
    assert_int_equal(f->view.count, 0); /* one reading is no rate */
    thermal_reader_close(f->reader);
    assert_int_equal(thermal_reader_open(&f->reader, f->sysfs.path, NULL, NULL), PH_OK);
    thermal_read(f->reader, &clock.source, &f->view);
    clock.ns += 2 * S;
    test_sysfs_put(&f->sysfs, "class/powercap/intel-rapl:0/energy_uj", "131000000\n");
    test_sysfs_put(&f->sysfs, "class/accel/accel0/device/npu_busy_time_us", "500500\n");
    thermal_read(f->reader, &clock.source, &f->view);
    assert_int_equal(f->view.count, 2);
    assert_string_equal(f->view.sensors[0].name, "package-0");
    assert_true(f->view.sensors[0].part == THERMAL_CPU && f->view.sensors[0].power_w == 65);
    assert_string_equal(f->view.sensors[1].name, "NPU 0");
    assert_true(f->view.sensors[1].use_percent == 25 && f->view.sensors[1].memory_used == 4096);
    clock.ns += S;
    test_sysfs_put(&f->sysfs, "class/powercap/intel-rapl:0/energy_uj", "5\n"); /* it has turned over */
    thermal_read(f->reader, &clock.source, &f->view);
    assert_int_equal(f->view.count, 1);
}

static void processors_tell_use_memory_and_throttling(void **state)
{
    struct fixture *f = *state;
    test_sysfs_put(&f->sysfs, "proc/stat", "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1 1 1\n");
    test_sysfs_put(&f->sysfs, "proc/meminfo",
                   "MemTotal:       1000 kB\nMemFree:         100 kB\n"
                   "MemAvailable:    400 kB\n");
    test_sysfs_put(&f->sysfs, "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "7\n");
    test_sysfs_put(&f->sysfs, "devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "2\n");
    read_now(f, NULL);
    assert_int_equal(f->view.count, 1);
    const struct thermal_sensor *all = &f->view.sensors[0];
    assert_string_equal(all->name, "all cores");
    assert_true(all->part == THERMAL_CPU && !all->has_temperature && !all->has_use);
    assert_true(all->has_memory && all->memory_used == 600 * 1024 && all->memory_total == 1000 * 1024);
    assert_string_equal(all->throttle, ""); /* that was before us */
    test_sysfs_put(&f->sysfs, "proc/stat", "cpu  150 10 65 900 75 0 0 0 0 0\n");
    test_sysfs_put(&f->sysfs, "devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "3\n");
    thermal_read(f->reader, clock_system(), &f->view);
    assert_true(all->has_use && all->use_percent == 37.5); /* 75 of 200 */
    assert_string_equal(all->throttle, "heat");
    assert_true(all->throttles_for_heat);
    thermal_read(f->reader, clock_system(), &f->view); /* no tick has passed */
    assert_true(!all->has_use && !all->throttles_for_heat);
    test_sysfs_put(&f->sysfs, "proc/stat", "nonsense\n");
    test_sysfs_put(&f->sysfs, "proc/meminfo", "MemTotal: many\n");
    thermal_read(f->reader, clock_system(), &f->view);
    assert_int_equal(f->view.count, 0);
}

static void nvidia_is_read(void **state)
{
    struct fixture *f = *state;
    char path[128];
    test_sysfs_put(&f->sysfs, "nvml", "2 84 612500 99 100\n"); /* 0x64 */
    snprintf(path, sizeof path, "%s/nvml", f->sysfs.path);
    setenv("FAKE_NVML_STATE", path, 1);
    read_now(f, TEST_FAKE_NVML);
    assert_int_equal(f->view.count, 2);
    const struct thermal_sensor *gpu = thermal_hottest(&f->view, THERMAL_GPU);
    assert_string_equal(gpu->name, "NVIDIA H100 80GB HBM3 0000:1b:00.0");
    assert_true(gpu->temperature_c == 84 && gpu->power_w == 612.5 && gpu->use_percent == 99);
    assert_string_equal(gpu->throttle, "power cap, thermal (software), thermal (hardware)");
    assert_true(gpu->throttles_for_heat);
    test_sysfs_put(&f->sysfs, "nvml", "1 -1 612500 99 5\n");
    thermal_read(f->reader, clock_system(), &f->view);
    assert_null(thermal_hottest(&f->view, THERMAL_GPU)); /* the sensor says nothing: neither do we */
    assert_string_equal(f->view.sensors[0].throttle, "power cap");
    assert_false(f->view.sensors[0].throttles_for_heat);
    unsetenv("FAKE_NVML_STATE");
    struct ph_err err;
    struct thermal_reader *none;
    assert_int_equal(thermal_reader_open(&none, f->sysfs.path, "/nowhere/nvml.so", &err), PH_ERR_NOTFOUND);
    test_sysfs_put(&f->sysfs, "nvml", "0 0 0 0 0\n"); /* the driver refuses */
    setenv("FAKE_NVML_STATE", path, 1);
    assert_int_equal(thermal_reader_open(&none, f->sysfs.path, TEST_FAKE_NVML, &err), PH_ERR_IO);
    unsetenv("FAKE_NVML_STATE");
}

/* ---- The guard */

static struct thermal_guard guard_of(void)
{
    struct thermal_guard guard;
    struct thermal_limits limits;
    thermal_limits_default(&limits);
    thermal_guard_init(&guard, &limits, 0);
    return guard;
}

struct moment {
    double celsius;
    unsigned for_s;           /* seconds at it, a reading each */
    enum thermal_level level; /* after them */
};

static void expect(const struct moment *moments, size_t count)
{
    struct thermal_guard guard = guard_of();
    uint64_t now = 0;
    for (size_t i = 0; i < count; i++) {
        for (unsigned s = 0; s < moments[i].for_s; s++, now += S)
            thermal_guard_step(&guard, true, moments[i].celsius, now);
        assert_int_equal(guard.level, moments[i].level);
    }
}

static void a_slow_ramp_takes_every_step(void **state)
{
    (void)state;
    static const struct moment moments[] = {
        {84.9, 100, THERMAL_NORMAL},    {85, 1, THERMAL_WARN},           {85, 29, THERMAL_WARN},
        {85, 1, THERMAL_ADMIT_LESS},    {89.9, 300, THERMAL_ADMIT_LESS}, {90, 1, THERMAL_HOLD},
        {90, 19, THERMAL_HOLD},         {90, 1, THERMAL_STOP},           {86, 300, THERMAL_STOP},
        {84.9, 30, THERMAL_STOP},       {84.9, 1, THERMAL_ADMIT_LESS},   {80, 300, THERMAL_ADMIT_LESS},
        {79.9, 30, THERMAL_ADMIT_LESS}, {79.9, 1, THERMAL_NORMAL}};
    expect(moments, sizeof moments / sizeof *moments);
}

static void a_jump_holds_at_once(void **state)
{
    (void)state;
    static const struct moment moments[] = {{40, 5, THERMAL_NORMAL},      {105, 1, THERMAL_HOLD},
                                            {60, 30, THERMAL_HOLD},       {60, 1, THERMAL_ADMIT_LESS},
                                            {60, 29, THERMAL_ADMIT_LESS}, {60, 1, THERMAL_NORMAL}};
    expect(moments, sizeof moments / sizeof *moments);
}

static void a_sensor_that_falls_silent(void **state)
{
    (void)state;
    struct thermal_guard guard = guard_of();
    thermal_guard_step(&guard, true, 95, S);
    assert_int_equal(guard.level, THERMAL_HOLD);
    uint64_t now = S;
    for (int s = 0; s < THERMAL_STALE_S - 1; s++)
        thermal_guard_step(&guard, false, 0, now += S); /* its last word stands */
    assert_int_equal(guard.level, THERMAL_STOP);
    for (int s = 0; s < 70; s++)
        thermal_guard_step(&guard, false, 0, now += S);
    assert_int_equal(guard.level, THERMAL_NORMAL);
    guard = guard_of();
    assert_false(thermal_guard_step(&guard, false, 0, S)); /* never one */
}

/* Crossings of the whole band, counted by somebody else: up at the threshold, down below it less the margin.
 */
struct crossings {
    double high, low;
    bool is_up;
    unsigned ups, downs;
};

static void cross(struct crossings *c, double celsius)
{
    if (!c->is_up && celsius >= c->high) {
        c->is_up = true;
        c->ups++;
    } else if (c->is_up && celsius < c->low) {
        c->is_up = false;
        c->downs++;
    }
}

/* Random ramps with noise around the thresholds, readings at uneven times. */
static void nothing_flaps(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct thermal_guard guard = guard_of();
        struct crossings warn = {85, 80, false, 0, 0}, critical = {90, 85, false, 0, 0};
        struct rng rng;
        unsigned heats = 0, cools = 0, holds = 0, resumes = 0;
        double mean = 70, slope = 0;
        uint64_t now = 0, cool_for = 0;
        rng_init(&rng, seed);
        for (int i = 0; i < 3000; i++) {
            uint64_t pause = (uint64_t)(rng_double(&rng) * 4e9) + 1;
            now += pause;
            if (rng_double(&rng) < 0.03)
                slope = (rng_double(&rng) - 0.5) * 2;
            mean += slope * (double)pause * 1e-9;
            mean = mean < 60 ? 60 : mean > 100 ? 100 : mean;
            double celsius = mean + (rng_double(&rng) - 0.5) * (double)(seed % 4) * 3;
            enum thermal_level before = guard.level;
            bool changed = thermal_guard_step(&guard, true, celsius, now);
            cross(&warn, celsius);
            cross(&critical, celsius);
            assert_int_equal(changed, before != guard.level);
            assert_true(celsius < 90 || guard.level >= THERMAL_HOLD); /* G1 */
            heats += before == THERMAL_NORMAL && changed;
            cools += guard.level == THERMAL_NORMAL && changed;
            holds += before < THERMAL_HOLD && guard.level >= THERMAL_HOLD;
            resumes += before >= THERMAL_HOLD && guard.level < THERMAL_HOLD;
            assert_true(!changed || guard.level > before || guard.level == THERMAL_ADMIT_LESS ||
                        guard.level == THERMAL_NORMAL);
            cool_for = celsius < 80 ? cool_for + pause : 0;
            assert_true(cool_for < 70 * S || guard.level == THERMAL_NORMAL); /* G3 */
        }
        assert_true(heats <= warn.ups && cools <= warn.downs); /* G2 */
        assert_true(holds <= critical.ups && resumes <= critical.downs);
    }
}

/* ---- The log */

static void the_log_stays_within_its_bytes(void **state)
{
    struct fixture *f = *state;
    char path[128], old[160];
    struct thermal_csv *csv;
    struct ph_err err;
    const enum thermal_level levels[THERMAL_PART_COUNT] = {THERMAL_WARN, THERMAL_NORMAL, THERMAL_NORMAL};
    f->view = (struct thermal_view){.unix_ms = 1700000000000,
                                    .count = 1,
                                    .sensors = {{.part = THERMAL_CPU,
                                                 .name = "a \"chip\", hot",
                                                 .has_temperature = true,
                                                 .temperature_c = 85.25}}};
    snprintf(path, sizeof path, "%s/heat.csv", f->sysfs.path);
    snprintf(old, sizeof old, "%s.1", path);
    for (int run = 0; run < 2; run++) { /* a second run goes on */
        assert_int_equal(thermal_csv_open(&csv, path, 2000, &err), PH_OK);
        for (int i = 0; i < 100; i++) {
            struct stat now;
            assert_int_equal(thermal_csv_write(csv, &f->view, levels, &err), PH_OK);
            assert_int_equal(stat(path, &now), 0);
            assert_true(now.st_size <= 2000);
        }
        thermal_csv_close(csv);
    }
    assert_true(file_exists(old));
    struct buf text;
    buf_init(&text, 4000);
    assert_int_equal(file_read(path, &text, &err), PH_OK);
    assert_ptr_equal(strstr(text.data, "time,part,sensor,"), text.data);
    assert_non_null(
        strstr(text.data, "\n2023-11-14T22:13:20.000Z,cpu,\"a \"\"chip\"\", hot\",85.2,,,,,\"\",warn\n"));
    buf_release(&text);
    assert_int_equal(thermal_csv_open(&csv, "/nowhere/at/all.csv", 2000, &err), PH_ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_sensor_is_no_error, setup, teardown),
        cmocka_unit_test_setup_teardown(chips_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(a_zone_stands_in_for_a_chip, setup, teardown),
        cmocka_unit_test_setup_teardown(sums_that_grow_are_rates, setup, teardown),
        cmocka_unit_test_setup_teardown(processors_tell_use_memory_and_throttling, setup, teardown),
        cmocka_unit_test_setup_teardown(nvidia_is_read, setup, teardown),
        cmocka_unit_test(a_slow_ramp_takes_every_step),
        cmocka_unit_test(a_jump_holds_at_once),
        cmocka_unit_test(a_sensor_that_falls_silent),
        cmocka_unit_test(nothing_flaps),
        cmocka_unit_test_setup_teardown(the_log_stays_within_its_bytes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
