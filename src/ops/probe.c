/* The probe: names from the system, figures from measurements.
 *
 * Everything is measured once a round, for a moment: what others do on the machine changes from one tenth
 * of a second to the next, and so no figure rests on one moment. A sample counts as quiet when its threads
 * had their processors for 90 % of the time (processor time over wall time and threads). Of the quiet ones
 * the median is taken; when there is none, the fastest, and the profile says that it was disturbed. */
#include "ops/probe.h"

#include <string.h>

#include <uv.h>

#include "base/mem.h"
#include "base/process.h"
#include "base/values.h"
#include "ops/probe_int.h"
#include "ops/sysfs_int.h"
#include "ops/thermal.h"
#include "tensor/tensor.h"

#define QUIET_MIN 0.9
#define ROUNDS 5
#define SECONDS 0.05 /* of a sample */
#define QUICK_SHARE 0.2
#define ROW_SHARE 0.3                    /* of that, for each format's products with one row */
#define BUFFER_BYTES ((size_t)256 << 20) /* more than caches hold */
#define BUFFER_MEMORY_SHARE 4            /* at most one part in so many of what is available */

struct probe {
    const struct probe_params *params;
    struct machine *out;
    struct probe_notes *notes;
    double seconds; /* of a sample */
    struct read_buffer *buffer;
    struct series *series;
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

static const enum tensor_type gemv_types[] = {
    /* of weights: what files are made of */
    TENSOR_F32,  TENSOR_F16,    TENSOR_BF16,   TENSOR_Q8_0,  TENSOR_Q4_0, TENSOR_Q4_1,
    TENSOR_Q5_0, TENSOR_Q5_1,   TENSOR_Q2_K,   TENSOR_Q3_K,  TENSOR_Q4_K, TENSOR_Q5_K,
    TENSOR_Q6_K, TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4,
};
#define GEMV_TYPES (sizeof gemv_types / sizeof *gemv_types)

/* What is measured in every round, in this order; behind it the bandwidths of 1..n threads. */
enum { SERIES_F32, SERIES_BF16, SERIES_INT8, SERIES_GEMV, SERIES_READS = SERIES_GEMV + GEMV_TYPES };

struct series {
    double rates[ROUNDS]; /* the quiet ones */
    size_t quiet;
    double best, best_share; /* of the others */
};

static double sample(const struct probe *probe, struct pool *pool, size_t what)
{
    switch (what) {
    case SERIES_F32:
        return tensor_measure_peak_f32(pool, probe->seconds);
    case SERIES_BF16:
        return tensor_measure_peak_bf16(pool, probe->seconds);
    case SERIES_INT8:
        return tensor_measure_peak_int8(pool, probe->seconds);
    default:
        return what < SERIES_READS
                   ? tensor_measure_gemv(pool, gemv_types[what - SERIES_GEMV], ROW_SHARE * probe->seconds)
                   : tensor_measure_read(pool, probe->buffer, probe->seconds);
    }
}

static void measure(struct probe *probe, struct pool *pool, size_t what)
{
    struct series *series = &probe->series[what];
    double cpu = clock_cpu_seconds();
    uint64_t start = uv_hrtime();
    double rate = sample(probe, pool, what);
    double wall = (double)(uv_hrtime() - start) * 1e-9;
    double share = (clock_cpu_seconds() - cpu) / (wall * pool_lanes(pool));
    if (share >= QUIET_MIN || rate == 0)
        series->rates[series->quiet++] = rate;
    series->best = rate > series->best ? rate : series->best;
    series->best_share = share > series->best_share ? share : series->best_share;
    step(probe);
}

static enum ph_status run_round(struct probe *probe, struct pool *all, struct ph_err *err)
{
    for (size_t what = 0; what < SERIES_READS; what++)
        measure(probe, all, what);
    for (unsigned threads = 1; threads <= probe->out->memory_points; threads++) {
        struct pool *pool;
        enum ph_status status = pool_create(&pool, threads, 0, kernels_select(NULL), err);
        if (status != PH_OK)
            return status;
        measure(probe, pool, SERIES_READS + threads - 1);
        pool_free(pool);
    }
    return PH_OK;
}

/* The median of the quiet samples; where there is none, the best: others only ever slow us down. */
static double settle(struct probe *probe, size_t what)
{
    struct series *series = &probe->series[what];
    if (series->quiet)
        return values_median(series->rates, series->quiet);
    probe->out->disturbed = true;
    if (probe->notes->cpu_share == 0 || series->best_share < probe->notes->cpu_share)
        probe->notes->cpu_share = series->best_share;
    return series->best;
}

static void settle_all(struct probe *probe)
{
    struct machine *out = probe->out;
    out->peaks = (struct machine_peaks){.f32 = settle(probe, SERIES_F32),
                                        .bf16 = settle(probe, SERIES_BF16),
                                        .int8 = settle(probe, SERIES_INT8)};
    for (size_t i = 0; i < GEMV_TYPES; i++)
        machine_set_gemv_rate(out, tensor_format(gemv_types[i])->name, settle(probe, SERIES_GEMV + i));
    for (size_t i = 0; i < out->memory_points; i++)
        out->memory_bytes_per_s[i] = settle(probe, SERIES_READS + i);
}

static enum ph_status measure_all(struct probe *probe, struct ph_err *err)
{
    struct pool *all;
    enum ph_status status = pool_create(&all, probe->out->threads, 0, kernels_select(NULL), err);
    if (status != PH_OK)
        return status;
    size_t most = (size_t)(probe->out->memory_available_bytes / BUFFER_MEMORY_SHARE);
    probe->series = mem_calloc(SERIES_READS + probe->out->memory_points, sizeof *probe->series);
    probe->buffer = tensor_read_buffer_create(all, most < BUFFER_BYTES ? most : BUFFER_BYTES);
    if (!probe->series || !probe->buffer)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory to measure with");
    for (int i = 0; i < ROUNDS && status == PH_OK; i++)
        status = run_round(probe, all, err);
    if (status == PH_OK)
        settle_all(probe);
    mem_free(probe->series);
    tensor_read_buffer_free(probe->buffer);
    pool_free(all);
    return status;
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
    out->memory_points = out->threads < MACHINE_THREADS_MAX ? out->threads : MACHINE_THREADS_MAX;
    struct probe probe = {.params = params,
                          .out = out,
                          .notes = notes,
                          .seconds = SECONDS * scale,
                          .total = 1 + (uint64_t)ROUNDS * (SERIES_READS + out->memory_points)};
    if (params->dir)
        probe_disk(out, params->dir, scale, notes);
    step(&probe);
    return measure_all(&probe, err);
}
