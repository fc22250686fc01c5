/* Heat, and the station: what a level of the guard (ops/thermal.h) means for requests and engines.
 *
 *   warn        a line in the log
 *   admit less  models of this machine run a share of their requests at a time; those that run go on
 *   hold        they get no new request: routes answer by other models, who asks for them by name gets 503
 *   stop        what they run is ended, and engines that the station started are stopped
 *
 * CPUs and GPUs are guarded apart. A model in this process runs on the CPUs and heeds theirs; a started
 * engine may run on either and heeds both; a model elsewhere heeds nothing. Sensors are read on a helper
 * thread, one reading at a time; all else happens on the loop. A model that was stopped comes back by itself:
 * it is started, or asked, when the guard lets requests through again. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/station_int.h"

#define GUARDED_PARTS THERMAL_OTHER /* CPU, GPU: those before it */
#define HELD_BYTES 192

struct station_thermal {
    const struct station_config *config;
    const struct station_catalog *catalog;
    struct net_loop *loop;
    const struct clock_source *clock;
    struct gateway *gateway;
    struct net_timer *timer;
    struct thermal_reader *reader;
    struct thermal_csv *csv; /* NULL: none */
    struct thermal_guard guards[GUARDED_PARTS];
    uint64_t entered[GUARDED_PARTS][THERMAL_LEVEL_COUNT]; /* how often */
    enum thermal_level applied[STATION_MODELS_MAX];       /* to each model */
    uint64_t halts;
    char held[GUARDED_PARTS][HELD_BYTES];          /* why */
    struct thermal_view view;                      /* the last reading */
    struct thermal_view fresh;                     /* the helper thread's, while `reading` */
    enum thermal_level levels[THERMAL_PART_COUNT]; /* for its log */
    enum ph_status csv_status;
    struct ph_err csv_err;
    bool reading, stopped, said_blind, said_csv;
};

/* ---- Configuration */

static struct thermal_limits limits_of(const struct station_config *config, enum thermal_part part)
{
    struct thermal_limits limits = config->thermal.limits;
    double warn_c = part == THERMAL_CPU ? config->thermal.cpu.warn_c : config->thermal.gpu.warn_c;
    double critical_c = part == THERMAL_CPU ? config->thermal.cpu.critical_c : config->thermal.gpu.critical_c;
    limits.warn_c = warn_c > 0 ? warn_c : limits.warn_c;
    limits.critical_c = critical_c > 0 ? critical_c : limits.critical_c;
    return limits;
}

enum ph_status station_thermal_check(const struct station_config *config, struct ph_err *err)
{
    for (int part = 0; part < GUARDED_PARTS; part++) {
        struct thermal_limits limits = limits_of(config, (enum thermal_part)part);
        if (!(limits.warn_c < limits.critical_c))
            return ph_fail(err, PH_ERR_ARG,
                           "thermal: warn_c (%g) is not below critical_c (%g) for the %s; lower the one or "
                           "raise the other",
                           limits.warn_c, limits.critical_c, thermal_part_name((enum thermal_part)part));
    }
    return PH_OK;
}

/* ---- Acting */

static bool heeds(const struct provider *provider, enum thermal_part part)
{
    const char *kind = provider_kind(provider);
    if (strcmp(kind, "remote") == 0)
        return false;
    return part == THERMAL_CPU || strcmp(kind, "supervised") == 0;
}

/* The part that holds this model back most. */
static enum thermal_part worst_part(const struct station_thermal *thermal, const struct provider *provider)
{
    enum thermal_part worst = THERMAL_CPU;
    if (heeds(provider, THERMAL_GPU) &&
        thermal->guards[THERMAL_GPU].level > thermal->guards[THERMAL_CPU].level)
        worst = THERMAL_GPU;
    return worst;
}

static void halt(struct station_thermal *thermal, struct provider *provider, const char *why)
{
    struct chat_fault fault;
    chat_fault_set(&fault, 503, "model_unavailable", NULL, "%.100s: %s", provider_model_id(provider), why);
    fault.cause = CHAT_CAUSE_OVERLOADED;
    fault.retry_after_s = (uint32_t)thermal->config->thermal.limits.resume_after_s + 1;
    thermal->halts++;
    provider_halt(provider, &fault);
}

static void apply(struct station_thermal *thermal, size_t model)
{
    struct provider *provider = thermal->catalog->models[model].provider;
    enum thermal_part part = worst_part(thermal, provider);
    enum thermal_level level = thermal->guards[part].level, before = thermal->applied[model];
    if (!heeds(provider, part) || level == before)
        return;
    bool is_held = level >= THERMAL_HOLD;
    struct gateway_brake brake = {
        .share = level >= THERMAL_ADMIT_LESS ? thermal->config->thermal.admit_share : 1,
        .held = is_held ? thermal->held[part] : NULL,
        .retry_after_s = (uint32_t)thermal->config->thermal.limits.resume_after_s + 1};
    thermal->applied[model] = level;
    gateway_set_brake(thermal->gateway, model, &brake);
    if (level == THERMAL_STOP)
        halt(thermal, provider, thermal->held[part]);
}

static void on_level(struct station_thermal *thermal, enum thermal_part part, enum thermal_level before,
                     const struct thermal_sensor *hottest)
{
    const struct thermal_guard *guard = &thermal->guards[part];
    char reading[HELD_BYTES] = "no sensor answers";
    if (hottest)
        snprintf(reading, sizeof reading, "%.60s has %.1f degrees", hottest->name, hottest->temperature_c);
    thermal->entered[part][guard->level]++;
    if (guard->level > before)
        log_warn("thermal", "%s: %s, so %s: %s", thermal_part_name(part), reading,
                 thermal_level_name(guard->level), thermal_level_action(guard->level));
    else
        log_info("thermal", "%s: %s, so %s: %s", thermal_part_name(part), reading,
                 thermal_level_name(guard->level), thermal_level_action(guard->level));
}

static void on_reading(struct station_thermal *thermal)
{
    uint64_t now = clock_monotonic_ns(thermal->clock);
    bool any = false;
    thermal->view = thermal->fresh;
    for (int i = 0; i < GUARDED_PARTS; i++) {
        enum thermal_part part = (enum thermal_part)i;
        const struct thermal_sensor *hottest = thermal_hottest(&thermal->view, part);
        enum thermal_level before = thermal->guards[i].level;
        any = any || hottest;
        if (thermal_guard_step(&thermal->guards[i], hottest != NULL, hottest ? hottest->temperature_c : 0,
                               now))
            on_level(thermal, part, before, hottest);
    }
    for (size_t i = 0; i < thermal->catalog->model_count; i++)
        apply(thermal, i);
    if (!any && !thermal->said_blind)
        log_info("thermal", "no temperature of a CPU or GPU can be read here: heat is not guarded");
    thermal->said_blind = true;
    if (thermal->csv_status != PH_OK && !thermal->said_csv)
        log_warn("thermal", "%s", thermal->csv_err.message);
    thermal->said_csv = thermal->csv_status != PH_OK;
}

/* ---- Reading */

static void read_work(void *ud) /* helper thread */
{
    struct station_thermal *thermal = ud;
    thermal_read(thermal->reader, thermal->clock, &thermal->fresh);
    if (thermal->csv)
        thermal->csv_status =
            thermal_csv_write(thermal->csv, &thermal->fresh, thermal->levels, &thermal->csv_err);
}

static void read_done(void *ud)
{
    struct station_thermal *thermal = ud;
    thermal->reading = false;
    if (!thermal->stopped)
        on_reading(thermal);
}

/* A reading that takes longer than the interval: the next one waits for its turn. */
static void on_timer(void *ud)
{
    struct station_thermal *thermal = ud;
    if (thermal->reading)
        return;
    for (int part = 0; part < GUARDED_PARTS; part++)
        thermal->levels[part] = thermal->guards[part].level;
    thermal->reading = net_work(thermal->loop, read_work, read_done, thermal) == PH_OK;
}

/* ---- Life */

enum ph_status station_thermal_open(struct station_thermal **out, const struct station_config *config,
                                    const struct station_catalog *catalog, struct net_loop *loop,
                                    const struct clock_source *clock, struct ph_err *err)
{
    struct station_thermal *thermal = *out = mem_calloc(1, sizeof *thermal);
    if (!thermal)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    *thermal = (struct station_thermal){.config = config, .catalog = catalog, .loop = loop, .clock = clock};
    for (int part = 0; part < GUARDED_PARTS; part++) {
        struct thermal_limits limits = limits_of(config, (enum thermal_part)part);
        thermal_guard_init(&thermal->guards[part], &limits, clock_monotonic_ns(clock));
        snprintf(thermal->held[part], HELD_BYTES,
                 "the machine's %s is too hot (critical: %g degrees); it resumes when it has cooled",
                 part == THERMAL_CPU ? "CPU" : "GPU", limits.critical_c);
    }
    enum ph_status status =
        thermal_reader_open(&thermal->reader, config->thermal.sysfs, config->thermal.nvml, err);
    if (status == PH_OK && *thermal_reader_note(thermal->reader))
        log_warn("thermal", "the heat of NVIDIA's devices is not guarded: %s",
                 thermal_reader_note(thermal->reader));
    if (status == PH_OK && config->thermal.csv)
        status = thermal_csv_open(&thermal->csv, config->thermal.csv,
                                  (size_t)config->thermal.csv_max_mb << 20, err);
    if (status == PH_OK && net_timer_open(&thermal->timer, loop, on_timer, thermal) != PH_OK)
        status = ph_fail(err, PH_ERR_NOMEM, "out of memory");
    return status;
}

void station_thermal_start(struct station_thermal *thermal, struct gateway *gateway)
{
    thermal->gateway = gateway;
    net_timer_start(thermal->timer, 0, (uint64_t)(thermal->config->thermal.interval_s * 1000));
}

void station_thermal_stop(struct station_thermal *thermal)
{
    if (!thermal)
        return;
    thermal->stopped = true;
    if (thermal->timer)
        net_timer_close(thermal->timer);
    thermal->timer = NULL;
}

void station_thermal_free(struct station_thermal *thermal)
{
    if (!thermal)
        return;
    station_thermal_stop(thermal);
    thermal_reader_close(thermal->reader);
    thermal_csv_close(thermal->csv);
    mem_free(thermal);
}

/* ---- Metrics */

static void put_label(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            buf_putc(out, '\\');
        buf_putc(out, *value);
    }
    buf_putc(out, '"');
}

static void put_type(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_sensors(const struct thermal_view *view, struct buf *out)
{
    static const struct {
        const char *name, *help;
        size_t has, value; /* offsets; of a bool and a double */
        double scale;
    } rows[] = {
#define ROW(name_, help_, has_, value_, scale_)                                                        \
    {(name_), (help_), offsetof(struct thermal_sensor, has_), offsetof(struct thermal_sensor, value_), \
     (scale_)}
        ROW("pharos_temperature_celsius", "What a sensor says.", has_temperature, temperature_c, 1),
        ROW("pharos_power_watts", "What a device draws.", has_power, power_w, 1),
        ROW("pharos_device_use_ratio", "How busy a device is, 0 to 1.", has_use, use_percent, 0.01),
#undef ROW
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        put_type(out, rows[r].name, "gauge", rows[r].help);
        for (size_t i = 0; i < view->count; i++) {
            const struct thermal_sensor *sensor = &view->sensors[i];
            if (!*(const bool *)((const char *)sensor + rows[r].has))
                continue;
            buf_printf(out, "%s{part=\"%s\",", rows[r].name, thermal_part_name(sensor->part));
            put_label(out, "sensor", sensor->name);
            buf_printf(out, "} %g\n",
                       *(const double *)(const void *)((const char *)sensor + rows[r].value) * rows[r].scale);
        }
    }
    put_type(out, "pharos_device_memory_used_bytes", "gauge", "A device's memory in use.");
    for (size_t i = 0; i < view->count; i++)
        if (view->sensors[i].has_memory) {
            buf_puts(out, "pharos_device_memory_used_bytes{");
            put_label(out, "sensor", view->sensors[i].name);
            buf_printf(out, "} %llu\n", (unsigned long long)view->sensors[i].memory_used);
        }
    put_type(out, "pharos_throttled_by_heat", "gauge", "1: a device lowers its clocks because of heat.");
    for (size_t i = 0; i < view->count; i++)
        if (view->sensors[i].part == THERMAL_GPU) {
            buf_puts(out, "pharos_throttled_by_heat{");
            put_label(out, "sensor", view->sensors[i].name);
            buf_printf(out, "} %d\n", view->sensors[i].throttles_for_heat);
        }
}

void station_thermal_metrics(void *ud, struct buf *out)
{
    const struct station_thermal *thermal = ud;
    put_sensors(&thermal->view, out);
    put_type(out, "pharos_thermal_level", "gauge", "0 normal, 1 warn, 2 admit less, 3 hold, 4 stop.");
    for (int part = 0; part < GUARDED_PARTS; part++)
        buf_printf(out, "pharos_thermal_level{part=\"%s\"} %d\n", thermal_part_name((enum thermal_part)part),
                   (int)thermal->guards[part].level);
    put_type(out, "pharos_thermal_changes_total", "counter", "How often a level was entered.");
    for (int part = 0; part < GUARDED_PARTS; part++)
        for (int level = 0; level < THERMAL_LEVEL_COUNT; level++)
            buf_printf(out, "pharos_thermal_changes_total{part=\"%s\",level=\"%s\"} %llu\n",
                       thermal_part_name((enum thermal_part)part),
                       thermal_level_name((enum thermal_level)level),
                       (unsigned long long)thermal->entered[part][level]);
    put_type(out, "pharos_thermal_model_level", "gauge",
             "The level that a model of this machine is held to.");
    for (size_t i = 0; i < thermal->catalog->model_count; i++)
        if (heeds(thermal->catalog->models[i].provider, THERMAL_CPU)) {
            buf_puts(out, "pharos_thermal_model_level{");
            put_label(out, "model_name", provider_model_id(thermal->catalog->models[i].provider));
            buf_printf(out, "} %d\n", (int)thermal->applied[i]);
        }
    put_type(out, "pharos_thermal_halts_total", "counter", "Models that were stopped because of heat.");
    buf_printf(out, "pharos_thermal_halts_total %llu\n", (unsigned long long)thermal->halts);
}
