/* pharos bench probe: what this machine is and what it can do, shown and kept for estimates and placement. */
#include <string.h>

#include "base/file.h"
#include "cli/cli_int.h"
#include "ops/probe.h"
#include "tensor/tensor.h"

#define TEXT_BYTES_MAX (1u << 20)
#define RATES_A_LINE 8

struct args {
    const char *data, *sysfs, *nvml;
    bool quick, json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--data", "DIR", CLI_TEXT, struct args, data, CLI_DATA_HELP)},
    {CLI_OPTION("--quick", NULL, CLI_SWITCH, struct args, quick, "measure for a fifth of the time: rougher")},
    {CLI_OPTION("--sysfs", "DIR", CLI_TEXT, struct args, sysfs, "where the kernel shows devices (/sys)")},
    {CLI_OPTION("--nvml", "LIB", CLI_TEXT, struct args, nvml,
                "NVIDIA's management library (libnvidia-ml.so.1, if there is one)")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the profile as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "bench probe", "[--data DIR] [--quick] [--json]",
    "Measures this machine: memory, arithmetic and disk speed, and lists its devices. The profile is kept in "
    "DIR/" MACHINE_FILE ".",
    options};

/* ---- The table */

static void put_rate(struct buf *out, double value, double unit, const char *words)
{
    if (value > 0)
        buf_printf(out, "%.1f %s", value / unit, words);
    else
        buf_printf(out, "unknown");
}

static void put_gib(struct buf *out, uint64_t bytes)
{
    buf_printf(out, "%.1f GiB", (double)bytes / (double)(1u << 30));
}

/* 1, 2, 4 ... and all of them. */
static void put_bandwidths(struct buf *out, const struct machine *m)
{
    buf_puts(out, "reads      ");
    for (unsigned i = 1; i <= m->memory_points; i++)
        if ((i & (i - 1)) == 0 || i == m->memory_points)
            buf_printf(out, "%s%.1f GB/s by %u", i > 1 ? ", " : "", m->memory_bytes_per_s[i - 1] * 1e-9, i);
    buf_puts(out, m->memory_points > 1 ? " threads\n" : " thread\n");
}

static void put_peaks(struct buf *out, const struct machine_peaks *peaks)
{
    const struct {
        const char *name;
        double value;
    } rows[] = {{"f32", peaks->f32}, {"bf16", peaks->bf16}, {"int8", peaks->int8}};
    buf_puts(out, "arithmetic ");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        buf_printf(out, "%s%s ", i ? ", " : "", rows[i].name);
        if (rows[i].value > 0)
            buf_printf(out, "%.0f", rows[i].value * 1e-9);
        else
            buf_puts(out, "not in its instructions");
    }
    buf_puts(out, " Gop/s\n");
}

/* How fast weights of a format are read, unpacked and multiplied when caches hold them. */
static void put_gemv_rates(struct buf *out, const struct machine *m)
{
    for (size_t i = 0; i < m->gemv_rate_count; i++) {
        const struct machine_gemv_rate *rate = &m->gemv_rates[i];
        const struct tensor_format *f = tensor_format_by_name(rate->type);
        double bytes = f ? rate->ops_per_s / 2 * f->block_bytes / f->block_len : 0;
        const char *before = i == 0 ? "unpacks    " : i % RATES_A_LINE ? ", " : ",\n           ";
        buf_printf(out, "%s%s %.0f", before, rate->type, bytes * 1e-9);
    }
    if (m->gemv_rate_count)
        buf_puts(out, " GB/s\n");
}

static void put_disk(struct buf *out, const struct machine *m, const struct probe_notes *notes)
{
    buf_puts(out, "disk       ");
    if (m->disk_read_bytes_per_s > 0)
        buf_printf(out, "reads %.2f GB/s: ", m->disk_read_bytes_per_s * 1e-9);
    buf_printf(out, "%s\n", notes->disk);
    if (m->fsync_s > 0)
        buf_printf(out, "           fsync %.3g ms\n", m->fsync_s * 1e3);
}

static void put_device(struct buf *out, const struct machine_device *d)
{
    buf_printf(out, "%-10s %s", d->kind == MACHINE_GPU ? "GPU" : "NPU", d->name);
    if (d->address[0])
        buf_printf(out, " at %s", d->address);
    if (d->driver[0])
        buf_printf(out, ", driver %s", d->driver);
    buf_puts(out, "\n           ");
    if (d->shared_memory) {
        buf_puts(out, "uses the machine's memory\n");
        return;
    }
    buf_puts(out, "memory ");
    if (d->memory_bytes) {
        put_gib(out, d->memory_bytes);
        if (d->memory_free_bytes) {
            buf_puts(out, ", free ");
            put_gib(out, d->memory_free_bytes);
        }
    } else {
        buf_puts(out, "unknown");
    }
    buf_puts(out, ", bandwidth ");
    put_rate(out, d->memory_bytes_per_s, 1e9, "GB/s");
    buf_puts(out, ", link ");
    put_rate(out, d->link_bytes_per_s, 1e9, "GB/s");
    if (d->power_limit_w > 0)
        buf_printf(out, ", at most %.0f W", d->power_limit_w);
    buf_putc(out, '\n');
}

static void put_table(struct buf *out, const struct machine *m, const struct probe_notes *notes)
{
    buf_printf(out, "%-10s %s, kernels %s\n", m->name, m->cpu[0] ? m->cpu : "processor unknown", m->isa);
    buf_printf(out, "cores      %u, threads %u\nmemory     ", m->cores, m->threads);
    put_gib(out, m->memory_bytes);
    buf_puts(out, ", available ");
    put_gib(out, m->memory_available_bytes);
    buf_putc(out, '\n');
    put_bandwidths(out, m);
    put_peaks(out, &m->peaks);
    put_gemv_rates(out, m);
    put_disk(out, m, notes);
    for (size_t i = 0; i < m->device_count; i++)
        put_device(out, &m->devices[i]);
    if (m->device_count == 0)
        buf_puts(out, "devices    no GPU and no NPU is visible\n");
    if (notes->devices[0])
        buf_printf(out, "           NVIDIA's were not asked: %s\n", notes->devices);
    if (m->sensors)
        buf_printf(out, "sensors    %u of temperature (pharos monitor thermal)\n", m->sensors);
    else
        buf_puts(out, "sensors    none of temperature; a virtual machine seldom has any\n");
    if (m->disturbed)
        buf_printf(out,
                   "disturbed  others used the processors (ours had them for %.0f %% of the time at worst): "
                   "on a quiet machine the figures are higher\n",
                   100 * notes->cpu_share);
}

/* ---- The command */

static void on_progress(void *ud, uint64_t done, uint64_t total)
{
    cli_progress_show(ud, done, total);
}

static enum ph_status file_of(const struct args *args, char dir[PATH_BYTES_MAX],
                              char file[PATH_BYTES_MAX + 32], struct ph_err *err)
{
    enum ph_status status = cli_data_dir(args->data, dir, err);
    if (status == PH_OK)
        status = file_make_private_dir(dir, err);
    if (status == PH_OK)
        snprintf(file, PATH_BYTES_MAX + 32, "%s/" MACHINE_FILE, dir);
    return status;
}

static enum ph_status run(const struct args *args, struct buf *out, struct ph_err *err)
{
    struct machine machine;
    char dir[PATH_BYTES_MAX], file[PATH_BYTES_MAX + 32];
    struct probe_notes notes;
    struct cli_progress progress;
    enum ph_status status = file_of(args, dir, file, err);
    struct probe_params params = {.sysfs = args->sysfs,
                                  .nvml = args->nvml,
                                  .dir = dir,
                                  .quick = args->quick,
                                  .clock = clock_system(),
                                  .progress = on_progress,
                                  .ud = &progress};
    if (status != PH_OK)
        return status;
    cli_progress_begin(&progress, "probe");
    status = probe_machine(&machine, &params, &notes, err);
    cli_progress_end(&progress);
    if (status == PH_OK)
        status = machine_write(&machine, file, err);
    if (status != PH_OK)
        return status;
    if (args->json) {
        machine_format(out, &machine);
        buf_putc(out, '\n');
    } else {
        put_table(out, &machine, &notes);
        buf_printf(out, "kept in    %s\n", file);
    }
    return cli_flush(out, err);
}

int cmd_bench_probe(int argc, char **argv)
{
    struct args args = {.data = NULL};
    struct buf out;
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    buf_init(&out, TEXT_BYTES_MAX);
    enum ph_status status = run(&args, &out, &err);
    buf_release(&out);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
