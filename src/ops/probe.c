/* The probe: names from the system, figures from measurements.
 *
 * A sample counts as quiet when its threads had their processors for 90 % of the time (processor time over
 * wall time and threads). Of up to TRIES samples the first quiet one is taken; when there is none, the
 * fastest, and the profile says that it was disturbed: others slow us down, nobody makes us faster. */
#include "ops/probe.h"

#include <string.h>

#include <uv.h>

#include "base/process.h"
#include "ops/probe_int.h"
#include "ops/sysfs_int.h"
#include "ops/thermal.h"
#include "tensor/tensor.h"

#define QUIET_MIN 0.9
#define TRIES 3
#define SECONDS 0.25
#define QUICK_SHARE 0.2
#define BUFFER_BYTES ((size_t)256 << 20) /* more than caches hold */
#define BUFFER_MEMORY_SHARE 4            /* at most one part in so many of what is available */

struct probe {
    const struct probe_params *params;
    struct machine *out;
    struct probe_notes *notes;
    double seconds; /* of a sample */
    size_t buffer_bytes;
    uint64_t done, total; /* steps */
};

static void step(struct probe *probe)
{
    probe->done++;
    if (probe->params->progress)
        probe->params->progress(probe->params->ud, probe->done, probe->total);
}

/* ---- What the system says */

void probe_cpu(struct machine *out)
{
    uv_cpu_info_t *list;
    int count;
    if (uv_cpu_info(&list, &count) == 0) {
        if (count > 0 && list[0].model)
            machine_set_text(out->cpu, list[0].model, strlen(list[0].model));
        uv_free_cpu_info(list, count);
    }
    const char *isa = kernels_name(kernels_select(NULL));
    machine_set_text(out->isa, isa, strlen(isa));
    out->threads = uv_available_parallelism();
}

/* Processors that share a core count once; of all that there are, this process may use fewer. */
static void see_cores(struct machine *out, const char *root)
{
    unsigned numbers[SYSFS_ENTRIES_MAX], cores = 0;
    int64_t seen[SYSFS_ENTRIES_MAX];
    char cpus[PATH_BYTES_MAX], dir[PATH_BYTES_MAX], name[64];
    size_t count =
        sysfs_path(cpus, root, "devices/system/cpu") ? sysfs_numbered(cpus, "cpu", "", numbers) : 0;
    for (size_t i = 0; i < count; i++) {
        int64_t core, package;
        snprintf(name, sizeof name, "cpu%u/topology", numbers[i]);
        if (!sysfs_path(dir, cpus, name) || !sysfs_number(dir, "core_id", &core) ||
            !sysfs_number(dir, "physical_package_id", &package))
            continue;
        int64_t place = package * ((int64_t)1 << 32) + core;
        unsigned at = 0;
        while (at < cores && seen[at] != place)
            at++;
        seen[at] = place;
        cores = at == cores ? cores + 1 : cores;
    }
    out->cores = cores && cores < out->threads ? cores : out->threads;
}

static void see_system(struct machine *out, const char *root)
{
    char host[UV_MAXHOSTNAMESIZE];
    size_t size = sizeof host;
    uint64_t limit = uv_get_constrained_memory();
    if (uv_os_gethostname(host, &size) == 0)
        machine_set_text(out->name, host, strlen(host));
    probe_cpu(out);
    see_cores(out, root);
    out->memory_bytes = uv_get_total_memory();
    if (limit && limit < out->memory_bytes)
        out->memory_bytes = limit;
    out->memory_available_bytes = process_memory_available();
}

static void see_sensors(struct machine *out, const struct probe_params *params)
{
    struct thermal_reader *reader;
    struct thermal_view view;
    if (thermal_reader_open(&reader, params->sysfs, params->nvml, NULL) != PH_OK)
        return;
    thermal_read(reader, params->clock, &view);
    for (size_t i = 0; i < view.count; i++)
        out->sensors += view.sensors[i].has_temperature;
    thermal_reader_close(reader);
}

/* ---- Measuring */

static double cpu_seconds(void)
{
    uv_rusage_t now;
    if (uv_getrusage(&now) != 0)
        return 0;
    return (double)(now.ru_utime.tv_sec + now.ru_stime.tv_sec) +
           (double)(now.ru_utime.tv_usec + now.ru_stime.tv_usec) * 1e-6;
}

static double read_bandwidth(struct pool *pool, const struct probe *probe)
{
    return tensor_measure_read_bandwidth(pool, probe->buffer_bytes, probe->seconds);
}

static double peak_f32(struct pool *pool, const struct probe *probe)
{
    return tensor_measure_peak_f32(pool, probe->seconds);
}

static double peak_bf16(struct pool *pool, const struct probe *probe)
{
    return tensor_measure_peak_bf16(pool, probe->seconds);
}

static double peak_int8(struct pool *pool, const struct probe *probe)
{
    return tensor_measure_peak_int8(pool, probe->seconds);
}

static double measure(struct probe *probe, struct pool *pool,
                      double (*sample)(struct pool *pool, const struct probe *probe))
{
    double best = 0, best_share = 0;
    for (int i = 0; i < TRIES; i++) {
        double cpu = cpu_seconds();
        uint64_t start = uv_hrtime();
        double rate = sample(pool, probe);
        double wall = (double)(uv_hrtime() - start) * 1e-9;
        double share = (cpu_seconds() - cpu) / (wall * pool_lanes(pool));
        if (share >= QUIET_MIN || rate == 0) {
            step(probe);
            return rate;
        }
        best = rate > best ? rate : best;
        best_share = share > best_share ? share : best_share;
    }
    probe->out->disturbed = true;
    if (probe->notes->cpu_share == 0 || best_share < probe->notes->cpu_share)
        probe->notes->cpu_share = best_share;
    step(probe);
    return best;
}

static enum ph_status measure_bandwidths(struct probe *probe, struct ph_err *err)
{
    struct machine *out = probe->out;
    unsigned most = out->threads < MACHINE_THREADS_MAX ? out->threads : MACHINE_THREADS_MAX;
    for (unsigned threads = 1; threads <= most; threads++) {
        struct pool *pool;
        enum ph_status status = pool_create(&pool, threads, 0, kernels_select(NULL), err);
        if (status != PH_OK)
            return status;
        out->memory_bytes_per_s[threads - 1] = measure(probe, pool, read_bandwidth);
        out->memory_points = threads;
        pool_free(pool);
    }
    return PH_OK;
}

static enum ph_status measure_peaks(struct probe *probe, struct ph_err *err)
{
    struct machine_peaks *peaks = &probe->out->peaks;
    struct pool *pool;
    enum ph_status status = pool_create(&pool, probe->out->threads, 0, kernels_select(NULL), err);
    if (status != PH_OK)
        return status;
    peaks->f32 = measure(probe, pool, peak_f32);
    peaks->bf16 = measure(probe, pool, peak_bf16);
    peaks->int8 = measure(probe, pool, peak_int8);
    pool_free(pool);
    return PH_OK;
}

enum ph_status probe_machine(struct machine *out, const struct probe_params *params,
                             struct probe_notes *notes, struct ph_err *err)
{
    double scale = params->quick ? QUICK_SHARE : 1;
    *out = (struct machine){.measured = true, .measured_unix_s = clock_unix_ms(params->clock) / 1000};
    *notes = (struct probe_notes){.cpu_share = 0};
    see_system(out, params->sysfs ? params->sysfs : SYSFS_ROOT);
    probe_devices(out, params->sysfs, params->nvml, notes);
    see_sensors(out, params);
    size_t most = (size_t)(out->memory_available_bytes / BUFFER_MEMORY_SHARE);
    struct probe probe = {.params = params,
                          .out = out,
                          .notes = notes,
                          .seconds = SECONDS * scale,
                          .buffer_bytes = most < BUFFER_BYTES ? most : BUFFER_BYTES,
                          .total = out->threads + 4};
    if (params->dir)
        probe_disk(out, params->dir, scale, notes);
    step(&probe);
    enum ph_status status = measure_peaks(&probe, err);
    return status == PH_OK ? measure_bandwidths(&probe, err) : status;
}
