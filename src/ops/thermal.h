/* thermal: how hot the machine is, and what is done about it.
 *
 * Three parts that know nothing of each other: a reader of sensors, a guard that turns temperatures into a
 * level, and a log of what was read. What a level means for requests is its user's to carry out. */
#ifndef PHAROS_OPS_THERMAL_H
#define PHAROS_OPS_THERMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"
#include "ops/machine.h"

/* ---- Reading. Thread: any, one at a time; a sensor may take milliseconds, so not the loop's. */

enum thermal_part { THERMAL_CPU, THERMAL_GPU, THERMAL_OTHER, THERMAL_PART_COUNT };
const char *thermal_part_name(enum thermal_part part); /* "cpu", "gpu", "other" */

#define THERMAL_SENSORS_MAX 64
#define THERMAL_THROTTLE_BYTES 96
struct thermal_sensor {
    enum thermal_part part; /* OTHER (disks, network, mainboard) is shown and guards nothing */
    char name[MACHINE_TEXT_BYTES];
    bool has_temperature, has_power, has_use, has_memory;
    double temperature_c, power_w, use_percent;
    uint64_t memory_used, memory_total;
    double critical_c;                     /* as its maker has it; 0: not said */
    char throttle[THERMAL_THROTTLE_BYTES]; /* why its clocks are low; "": they are not, or it does not say */
    bool throttles_for_heat;
};
struct thermal_view {
    int64_t unix_ms;
    struct thermal_sensor sensors[THERMAL_SENSORS_MAX];
    size_t count;
};

struct thermal_reader;
/* `sysfs` NULL: "/sys". `nvml` NULL: the system's library, if it has one; one that is named must work. */
PH_MUST_USE enum ph_status thermal_reader_open(struct thermal_reader **out, const char *sysfs,
                                               const char *nvml, struct ph_err *err);
void thermal_reader_close(struct thermal_reader *reader); /* NULL is fine */
/* Why NVIDIA's devices are not read although the system has their library; "": they are, or it has none. */
const char *thermal_reader_note(const struct thermal_reader *reader);
/* A sensor that does not answer is left out: a view may be empty. */
void thermal_read(struct thermal_reader *reader, const struct clock_source *clock, struct thermal_view *out);
/* The hottest sensor of a part; NULL: none has a temperature. */
const struct thermal_sensor *thermal_hottest(const struct thermal_view *view, enum thermal_part part);

/* ---- Guarding. Pure: time and temperature go in, a level comes out. */

enum thermal_level {
    THERMAL_NORMAL,
    THERMAL_WARN,       /* it is said */
    THERMAL_ADMIT_LESS, /* fewer requests at a time */
    THERMAL_HOLD,       /* no new ones: they go elsewhere, or are refused */
    THERMAL_STOP,       /* what is running is stopped too */
    THERMAL_LEVEL_COUNT
};
const char *thermal_level_name(enum thermal_level level);   /* "normal", "warn", "admit less", ... */
const char *thermal_level_action(enum thermal_level level); /* what is done in it, in words */

struct thermal_limits {
    double warn_c, critical_c;
    double margin_c; /* cool is a threshold less this */
    double admit_less_after_s, stop_after_s, resume_after_s;
};
void thermal_limits_default(struct thermal_limits *limits);

#define THERMAL_THRESHOLDS 2
struct thermal_guard {
    struct thermal_limits limits;
    enum thermal_level level;
    uint64_t entered_ns;
    bool is_cool[THERMAL_THRESHOLDS];           /* below warn, critical less the margin ... */
    uint64_t cool_since_ns[THERMAL_THRESHOLDS]; /* ... since */
    uint64_t read_ns;                           /* the last temperature */
    double last_c;
};
#define THERMAL_STALE_S 60
void thermal_guard_init(struct thermal_guard *guard, const struct thermal_limits *limits, uint64_t now_ns);
/* A new temperature, or none (is_known false): for THERMAL_STALE_S the last one stands, then the part is
 * taken for cool, as one without a sensor is. Answers whether the level has changed; one step a call. */
bool thermal_guard_step(struct thermal_guard *guard, bool is_known, double celsius, uint64_t now_ns);

/* ---- Logging: a CSV file that never grows beyond bytes_max; then it becomes FILE.1, which was lost. */

#define THERMAL_CSV_BYTES_MAX (8u << 20)
struct thermal_csv;
PH_MUST_USE enum ph_status thermal_csv_open(struct thermal_csv **out, const char *path, size_t bytes_max,
                                            struct ph_err *err);
PH_MUST_USE enum ph_status thermal_csv_write(struct thermal_csv *csv, const struct thermal_view *view,
                                             const enum thermal_level levels[THERMAL_PART_COUNT],
                                             struct ph_err *err);
void thermal_csv_close(struct thermal_csv *csv); /* NULL is fine */

#endif
