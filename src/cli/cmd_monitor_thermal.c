/* pharos monitor thermal: the sensors as the station's guard sees them, every few seconds until Ctrl-C, with
 * the level that its default thresholds would have. It changes nothing. */
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "base/json.h"
#include "base/process.h"
#include "cli/cli_int.h"
#include "ops/thermal.h"

#define TEXT_BYTES_MAX (1u << 20)
#define INTERVAL_S 5
#define NAP_MS 50 /* how soon Ctrl-C is heeded */
#define CLEAR "\x1b[H\x1b[J"

struct args {
    double interval_s;
    const char *csv, *sysfs, *nvml;
    bool once, json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--interval", "S", CLI_NUMBER, struct args, interval_s, "seconds between readings (5)"),
     .min = 0.1, .max = 3600},
    {CLI_OPTION("--once", NULL, CLI_SWITCH, struct args, once, "one reading, then end")},
    {CLI_OPTION("--csv", "F", CLI_TEXT, struct args, csv,
                "append readings to a file; at 8 MiB it becomes F.1 and begins anew")},
    {CLI_OPTION("--sysfs", "DIR", CLI_TEXT, struct args, sysfs, "where the kernel shows sensors (/sys)")},
    {CLI_OPTION("--nvml", "LIB", CLI_TEXT, struct args, nvml,
                "NVIDIA's management library (libnvidia-ml.so.1, if there is one)")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "a JSON object a reading, one a line")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "monitor thermal", "[--interval S] [--once] [--csv F] [--json]",
    "Shows temperatures, power, use and throttling, and the level of heat by the default thresholds (warn "
    "85, "
    "critical 90 degrees). A running station guards itself: see `thermal:` in its configuration.",
    options};

struct monitor {
    struct args args;
    struct thermal_reader *reader;
    struct thermal_csv *csv;
    struct thermal_guard guards[THERMAL_PART_COUNT];
    struct thermal_view view;
    bool is_screen; /* a terminal: the view stays in place */
    struct buf out;
};

/* ---- Showing */

static void put_number(struct buf *out, bool is_known, double value, const char *unit)
{
    char text[32] = "-";
    if (is_known)
        snprintf(text, sizeof text, "%.0f %s", value, unit);
    buf_printf(out, " %9s", text);
}

static void put_sensor(struct buf *out, const struct thermal_sensor *s)
{
    buf_printf(out, "%-5s %-36.36s", thermal_part_name(s->part), s->name);
    put_number(out, s->has_temperature, s->temperature_c, "C");
    put_number(out, s->has_power, s->power_w, "W");
    put_number(out, s->has_use, s->use_percent, "%");
    put_number(out, s->has_memory, (double)s->memory_used / (1 << 20), "MiB");
    buf_printf(out, "  %s\n", s->throttle);
}

static bool has_temperature(const struct thermal_view *view)
{
    bool has = false;
    for (int part = 0; part < THERMAL_PART_COUNT; part++)
        has = has || thermal_hottest(view, (enum thermal_part)part);
    return has;
}

static void put_table(struct monitor *m)
{
    char time[CLOCK_UTC_TEXT_MAX];
    struct buf *out = &m->out;
    clock_format_utc(m->view.unix_ms, time);
    buf_printf(out, "%s%s\n", m->is_screen ? CLEAR : "", time);
    if (*thermal_reader_note(m->reader))
        buf_printf(out, "NVIDIA's devices are not read: %s\n", thermal_reader_note(m->reader));
    if (!has_temperature(&m->view))
        buf_puts(out,
                 "This machine shows no sensor of heat: no hwmon chip, no thermal zone, no NVIDIA device. A "
                 "virtual machine seldom has any; its host has them.\n");
    if (m->view.count == 0)
        return;
    buf_printf(out, "%-5s %-36s %9s %9s %9s %9s  %s\n", "part", "sensor", "heat", "power", "use", "memory",
               "throttled");
    for (size_t i = 0; i < m->view.count; i++)
        put_sensor(out, &m->view.sensors[i]);
    for (int part = 0; part < THERMAL_OTHER; part++)
        if (thermal_hottest(&m->view, (enum thermal_part)part))
            buf_printf(out, "%s: %s (%s)\n", thermal_part_name((enum thermal_part)part),
                       thermal_level_name(m->guards[part].level),
                       thermal_level_action(m->guards[part].level));
}

static void put_member(struct buf *out, const char *name, bool is_known, double value)
{
    if (!is_known)
        return;
    buf_printf(out, ",\"%s\":", name);
    json_write_double(out, value);
}

static void put_json(struct monitor *m)
{
    char time[CLOCK_UTC_TEXT_MAX];
    struct buf *out = &m->out;
    clock_format_utc(m->view.unix_ms, time);
    buf_printf(out, "{\"time\":\"%s\",\"sensors\":[", time);
    for (size_t i = 0; i < m->view.count; i++) {
        const struct thermal_sensor *s = &m->view.sensors[i];
        buf_printf(out, "%s{\"part\":\"%s\",\"name\":", i ? "," : "", thermal_part_name(s->part));
        json_write_string(out, s->name, strlen(s->name));
        put_member(out, "celsius", s->has_temperature, s->temperature_c);
        put_member(out, "critical_celsius", s->critical_c > 0, s->critical_c);
        put_member(out, "watt", s->has_power, s->power_w);
        put_member(out, "use_percent", s->has_use, s->use_percent);
        put_member(out, "memory_used_bytes", s->has_memory, (double)s->memory_used);
        put_member(out, "memory_total_bytes", s->has_memory, (double)s->memory_total);
        if (s->throttle[0]) {
            buf_puts(out, ",\"throttle\":");
            json_write_string(out, s->throttle, strlen(s->throttle));
        }
        buf_putc(out, '}');
    }
    buf_puts(out, "],\"levels\":{");
    for (int part = 0; part < THERMAL_OTHER; part++)
        buf_printf(out, "%s\"%s\":\"%s\"", part ? "," : "", thermal_part_name((enum thermal_part)part),
                   thermal_level_name(m->guards[part].level));
    buf_puts(out, "}}\n");
}

/* ---- Watching */

static enum ph_status look(struct monitor *m, struct ph_err *err)
{
    enum thermal_level levels[THERMAL_PART_COUNT] = {THERMAL_NORMAL};
    thermal_read(m->reader, clock_system(), &m->view);
    for (int part = 0; part < THERMAL_OTHER; part++) {
        const struct thermal_sensor *hottest = thermal_hottest(&m->view, (enum thermal_part)part);
        thermal_guard_step(&m->guards[part], hottest != NULL, hottest ? hottest->temperature_c : 0,
                           clock_monotonic_ns(clock_system()));
        levels[part] = m->guards[part].level;
    }
    if (m->args.json)
        put_json(m);
    else
        put_table(m);
    enum ph_status status = cli_flush(&m->out, err);
    if (status == PH_OK && m->csv)
        status = thermal_csv_write(m->csv, &m->view, levels, err);
    return status == PH_OK ? cli_sent(err) : status;
}

static void nap(double seconds)
{
    uint64_t until = uv_hrtime() + (uint64_t)(seconds * 1e9);
    while (!process_stop_asked() && uv_hrtime() < until)
        uv_sleep(NAP_MS);
}

static enum ph_status watch(struct monitor *m, struct ph_err *err)
{
    struct thermal_limits limits;
    thermal_limits_default(&limits);
    for (int part = 0; part < THERMAL_PART_COUNT; part++)
        thermal_guard_init(&m->guards[part], &limits, clock_monotonic_ns(clock_system()));
    enum ph_status status = thermal_reader_open(&m->reader, m->args.sysfs, m->args.nvml, err);
    if (status == PH_OK && m->args.csv)
        status = thermal_csv_open(&m->csv, m->args.csv, THERMAL_CSV_BYTES_MAX, err);
    while (status == PH_OK) {
        status = look(m, err);
        if (m->args.once || process_stop_asked() || status != PH_OK)
            break;
        nap(m->args.interval_s);
    }
    thermal_csv_close(m->csv);
    thermal_reader_close(m->reader);
    return status;
}

int cmd_monitor_thermal(int argc, char **argv)
{
    struct monitor monitor = {.args = {.interval_s = INTERVAL_S}};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &monitor.args, &exit_code))
        return exit_code;
    process_catch_stop();
    monitor.is_screen = !monitor.args.once && isatty(STDOUT_FILENO);
    buf_init(&monitor.out, TEXT_BYTES_MAX);
    enum ph_status status = watch(&monitor, &err);
    buf_release(&monitor.out);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
