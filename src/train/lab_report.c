/* What the lab found, as tables and pictures. */
#include "train/lab_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/plot.h"

#define MB 1e6
#define REPORT_BYTES_MAX ((size_t)16 << 20)
#define CELL_MAX 32

/* ---- Tables: columns as data */

struct column {
    const char *head; /* of the table, and of the CSV */
    const char *key;
    double (*value)(const struct lab *lab, const struct lab_row *row);
    int decimals; /* in the table */
    bool timed;
};

static double file_mb(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return (double)row->file_bytes / MB;
}

static double memory_mb(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return (double)row->memory_bytes / MB;
}

static double decode_speed(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return row->speed.decode;
}

static double of_limit(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return row->speed.decode_limit > 0 ? 100 * row->speed.decode / row->speed.decode_limit : 0;
}

static double p50(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return row->speed.p50_ms;
}

static double p95(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return row->speed.p95_ms;
}

static double prefill_speed(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return row->speed.prefill;
}

static double perplexity(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return row->ppl;
}

static double ppl_percent(const struct lab *lab, const struct lab_row *row)
{
    return lab_loss(lab, row, true);
}

static double divergence(const struct lab *lab, const struct lab_row *row)
{
    return lab_loss(lab, row, false);
}

static double divergence_error(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return row->kl_error;
}

static double agreement(const struct lab *lab, const struct lab_row *row)
{
    (void)lab;
    return 100 * row->top1;
}

static const struct column columns[] = {
    {"file MB", "file_mb", file_mb, 2, false},
    {"memory MB", "memory_mb", memory_mb, 2, false},
    {"decode t/s", "decode_tokens_per_s", decode_speed, 0, true},
    {"of limit %", "decode_percent_of_limit", of_limit, 0, true},
    {"p50 ms", "latency_p50_ms", p50, 3, true},
    {"p95 ms", "latency_p95_ms", p95, 3, true},
    {"prefill t/s", "prefill_tokens_per_s", prefill_speed, 0, true},
    {"ppl", "perplexity", perplexity, 4, false},
    {"ppl +%", "perplexity_percent", ppl_percent, 2, false},
    {"KL nats", "kl_nats", divergence, 5, false},
    {"+-", "kl_standard_error", divergence_error, 5, false},
    {"top-1 %", "top1_percent", agreement, 2, false},
};
#define COLUMNS (sizeof columns / sizeof *columns)

static bool shown(const struct lab *lab, const struct column *column)
{
    return lab->params.timed || !column->timed;
}

/* "Q4_K_M", and "Q4_K_M*" rounded by importance. */
static void row_name(const struct lab_row *row, char out[CELL_MAX])
{
    snprintf(out, CELL_MAX, "%s%s", row->name, row->weighted ? "*" : "");
}

static int by_size(const void *a, const void *b)
{
    const struct lab_row *const *x = a, *const *y = b;
    if ((*x)->file_bytes != (*y)->file_bytes)
        return ((*x)->file_bytes < (*y)->file_bytes) - ((*x)->file_bytes > (*y)->file_bytes);
    return ((*x)->kl > (*y)->kl) - ((*x)->kl < (*y)->kl);
}

static void sorted_rows(const struct lab *lab, const struct lab_row *out[LAB_ROWS_MAX])
{
    for (size_t i = 0; i < lab->row_count; i++)
        out[i] = &lab->rows[i];
    qsort(out, lab->row_count, sizeof *out, by_size);
}

static void put_cell(bool markdown, const char *text, struct buf *out)
{
    if (markdown)
        buf_printf(out, " %s |", text);
    else
        buf_printf(out, " %11s", text);
}

static void put_name(bool markdown, const char *name, struct buf *out)
{
    if (markdown)
        buf_printf(out, "| %s |", name);
    else
        buf_printf(out, "%-10s", name);
}

static void put_row(const struct lab *lab, const struct lab_row *row, bool markdown, struct buf *out)
{
    char cell[CELL_MAX];
    row_name(row, cell);
    put_name(markdown, cell, out);
    for (size_t c = 0; c < COLUMNS; c++) {
        if (!shown(lab, &columns[c]))
            continue;
        snprintf(cell, sizeof cell, "%.*f%s", columns[c].decimals, columns[c].value(lab, row),
                 columns[c].timed && !row->speed.quiet ? "~" : "");
        put_cell(markdown, cell, out);
    }
    buf_putc(out, '\n');
}

static bool any_busy(const struct lab *lab)
{
    bool busy = false;
    for (size_t i = 0; lab->params.timed && i < lab->row_count; i++)
        busy = busy || !lab->rows[i].speed.quiet;
    return busy;
}

void lab_table(const struct lab *lab, bool markdown, struct buf *out)
{
    const struct lab_row *rows[LAB_ROWS_MAX];
    sorted_rows(lab, rows);
    put_name(markdown, "type", out);
    for (size_t c = 0; c < COLUMNS; c++)
        if (shown(lab, &columns[c]))
            put_cell(markdown, columns[c].head, out);
    buf_putc(out, '\n');
    if (markdown) {
        buf_puts(out, "| --- |");
        for (size_t c = 0; c < COLUMNS; c++)
            buf_puts(out, shown(lab, &columns[c]) ? " ---: |" : "");
        buf_putc(out, '\n');
    }
    for (size_t i = 0; i < lab->row_count; i++)
        put_row(lab, rows[i], markdown, out);
    size_t tokens = lab->test.windows * (lab->params.window - 1);
    buf_printf(
        out,
        "\n* rounded by importance, from text that is not measured. KL, ppl and top-1 beside the original "
        "on %zu tokens in windows of %zu.\nMemory is the weights and the KV cache (F16) of one full "
        "context.%s\n",
        tokens, lab->params.window,
        lab->params.timed ? " Speeds are medians; the limit is reading the weights once a token." : "");
    buf_puts(out,
             "Quantised formats multiply in INT8: activations are rounded to INT8 in blocks as they come "
             "(Q8_0: INT8 weights, INT8 activations).\n");
    if (any_busy(lab))
        buf_puts(out, "~ the machine was busy: the threads did not have their cores for 90 % of the time.\n");
}

void lab_csv(const struct lab *lab, struct buf *out)
{
    buf_puts(out, "type,weighted,file_bytes,weight_bytes");
    for (size_t c = 0; c < COLUMNS; c++)
        if (shown(lab, &columns[c]))
            buf_printf(out, ",%s", columns[c].key);
    buf_puts(out, lab->params.timed ? ",quiet\n" : "\n");
    for (size_t i = 0; i < lab->row_count; i++) {
        const struct lab_row *row = &lab->rows[i];
        buf_printf(out, "%s,%d,%llu,%llu", row->name, row->weighted, (unsigned long long)row->file_bytes,
                   (unsigned long long)row->weight_bytes);
        for (size_t c = 0; c < COLUMNS; c++)
            if (shown(lab, &columns[c]))
                buf_printf(out, ",%.9g", columns[c].value(lab, row));
        if (lab->params.timed)
            buf_printf(out, ",%d", row->speed.quiet);
        buf_putc(out, '\n');
    }
}

static void put_json_number(double value, struct buf *out)
{
    if (isfinite(value))
        buf_printf(out, "%.9g", value);
    else
        buf_puts(out, "null");
}

static void json_row(const struct lab *lab, const struct lab_row *row, struct buf *out)
{
    buf_printf(out, "{\"type\":\"%s\",\"weighted\":%s,\"file_bytes\":%llu", row->name,
               row->weighted ? "true" : "false", (unsigned long long)row->file_bytes);
    for (size_t c = 0; c < COLUMNS; c++)
        if (shown(lab, &columns[c])) {
            buf_printf(out, ",\"%s\":", columns[c].key);
            put_json_number(columns[c].value(lab, row), out);
        }
    if (lab->params.timed)
        buf_printf(out, ",\"quiet\":%s", row->speed.quiet ? "true" : "false");
    buf_putc(out, '}');
}

void lab_json(const struct lab *lab, struct lab_bound bound, struct buf *out)
{
    const struct lab_row *best = lab_smallest(lab, bound);
    buf_puts(out, "{\"model\":");
    json_write_string(out, lab->params.model, strlen(lab->params.model));
    buf_printf(out, ",\"tokens\":%zu,\"window\":%zu,\"loss\":{\"%s\":%.9g},\"smallest\":",
               lab->test.windows * (lab->params.window - 1), lab->params.window,
               bound.percent ? "perplexity_percent" : "kl_nats", bound.value);
    if (best)
        json_row(lab, best, out);
    else
        buf_puts(out, "null");
    buf_puts(out, ",\"rows\":[");
    for (size_t i = 0; i < lab->row_count; i++) {
        buf_puts(out, i ? "," : "");
        json_row(lab, &lab->rows[i], out);
    }
    buf_puts(out, "]}\n");
}

static const enum tensor_type *mixed_types(const struct lab *lab)
{
    for (size_t i = 0; i < lab->row_count; i++)
        if (strcmp(lab->rows[i].name, "mixed") == 0)
            return lab->types[i];
    return NULL;
}

void lab_tensors_csv(const struct lab *lab, struct buf *out)
{
    const enum tensor_type *types = mixed_types(lab);
    buf_puts(out, "tensor,columns,rows,kl_alone_8_bits,kl_alone_4_bits,mixed\n");
    for (size_t i = 0; i < lab->tensor_count; i++) {
        const struct lab_tensor *t = &lab->tensors[i];
        const uint64_t *dims = t->tensor->dims;
        buf_printf(out, "%s,%llu,%llu", t->tensor->name, (unsigned long long)dims[0],
                   (unsigned long long)(dims[1] * dims[2] * dims[3]));
        if (t->sensitive)
            buf_printf(out, ",%.6g,%.6g", t->kl_high, t->kl_low);
        else
            buf_puts(out, ",,");
        buf_printf(out, ",%s\n", types ? tensor_format((uint32_t)types[i])->name : "");
    }
}

/* ---- Pictures */

struct cloud {
    double x[LAB_ROWS_MAX], y[LAB_ROWS_MAX];
    const char *labels[LAB_ROWS_MAX];
    size_t count;
};

/* Of two points of one format, above each other, one has the label. */
static bool has_weighted_twin(const struct lab *lab, const struct lab_row *row)
{
    for (size_t i = 0; !row->weighted && i < lab->row_count; i++)
        if (lab->rows[i].weighted && strcmp(lab->rows[i].name, row->name) == 0)
            return true;
    return false;
}

static void add_point(const struct lab *lab, struct cloud *cloud, const struct lab_row *row, double y)
{
    cloud->x[cloud->count] = (double)row->file_bytes / MB;
    cloud->y[cloud->count] = y;
    cloud->labels[cloud->count++] = has_weighted_twin(lab, row) ? NULL : row->name;
}

static struct plot_series points_of(const char *name, const struct cloud *cloud)
{
    return (struct plot_series){.name = cloud->count ? name : NULL,
                                .kind = PLOT_POINTS,
                                .count = cloud->count,
                                .x = cloud->x,
                                .y = cloud->y,
                                .labels = cloud->labels};
}

/* Rows with floats cost next to nothing and would leave the others no room: not all pictures have them. */
static bool is_of_floats(const struct lab_row *row)
{
    return strcmp(row->name, "original") == 0 || strcmp(row->name, "F16") == 0 ||
           strcmp(row->name, "BF16") == 0;
}

static void split_rows(const struct lab *lab, double (*value)(const struct lab *, const struct lab_row *),
                       bool floats, struct cloud *plain, struct cloud *weighted, struct cloud *mixed)
{
    for (size_t i = 0; i < lab->row_count; i++) {
        const struct lab_row *row = &lab->rows[i];
        struct cloud *cloud = strcmp(row->name, "mixed") == 0 ? mixed : row->weighted ? weighted : plain;
        if (floats || !is_of_floats(row))
            add_point(lab, cloud, row, value(lab, row));
    }
}

static int by_file_bytes(const void *a, const void *b)
{
    const struct lab_point *x = a, *y = b;
    return (x->file_bytes > y->file_bytes) - (x->file_bytes < y->file_bytes);
}

/* The assignments that were tried, from small to large: a line through what mixtures can do. */
static size_t tried_line(const struct lab *lab, double x[LAB_POINTS_MAX], double y[LAB_POINTS_MAX])
{
    struct lab_point points[LAB_POINTS_MAX];
    size_t count = 0;
    memcpy(points, lab->points, lab->point_count * sizeof *points);
    qsort(points, lab->point_count, sizeof *points, by_file_bytes);
    for (size_t i = 0; i < lab->point_count; i++) {
        if (points[i].kl < 1e-4) /* near the floats */
            continue;
        x[count] = points[i].file_bytes / MB;
        y[count++] = points[i].kl;
    }
    return count;
}

static enum ph_status draw_loss(const struct lab *lab, struct lab_bound bound, const char *path,
                                struct ph_err *err)
{
    struct cloud plain = {0}, weighted = {0}, mixed = {0};
    double path_x[LAB_POINTS_MAX], path_y[LAB_POINTS_MAX], edge_x[2] = {0}, edge_y[2] = {0};
    split_rows(lab, divergence, false, &plain, &weighted, &mixed);
    size_t tried = tried_line(lab, path_x, path_y);
    for (size_t i = 0; i < lab->row_count; i++) {
        double x = (double)lab->rows[i].file_bytes / MB;
        if (is_of_floats(&lab->rows[i]))
            continue;
        edge_x[0] = edge_x[0] == 0 || x < edge_x[0] ? x : edge_x[0];
        edge_x[1] = x > edge_x[1] ? x : edge_x[1];
    }
    edge_y[0] = edge_y[1] = bound.percent ? 0 : bound.value;
    const struct plot_series series[] = {
        points_of("plain", &plain),
        points_of("by importance", &weighted),
        points_of("mixed, within the bound", &mixed),
        {.name = tried ? "mixtures tried" : NULL,
         .kind = PLOT_LINE,
         .count = tried,
         .x = path_x,
         .y = path_y},
        {.name = bound.percent ? NULL : "bound", .kind = PLOT_DASHES, .count = 2, .x = edge_x, .y = edge_y},
    };
    return plot_write(&(struct plot){.title = "What each format costs",
                                     .x = {"file, MB", false},
                                     .y = {"KL divergence from the original, nats a token", true},
                                     .series = series,
                                     .series_count = sizeof series / sizeof *series},
                      path, err);
}

static enum ph_status draw_speed(const struct lab *lab, const char *path, struct ph_err *err)
{
    struct cloud plain = {0}, weighted = {0}, mixed = {0};
    split_rows(lab, decode_speed, true, &plain, &weighted, &mixed);
    const struct plot_series series[] = {points_of("plain", &plain), points_of("by importance", &weighted),
                                         points_of("mixed formats", &mixed)};
    return plot_write(&(struct plot){.title = "How fast each format writes",
                                     .x = {"file, MB", true},
                                     .y = {"decoded tokens a second", false},
                                     .series = series,
                                     .series_count = sizeof series / sizeof *series},
                      path, err);
}

/* ---- Files */

struct report {
    const struct lab *lab;
    struct lab_bound bound;
};

static void write_table(const struct report *r, struct buf *out)
{
    const struct lab_row *best = lab_smallest(r->lab, r->bound);
    char name[CELL_MAX] = "none";
    if (best)
        row_name(best, name);
    buf_printf(out, "Smallest within %.6g %s: %s\n\n", r->bound.value,
               r->bound.percent ? "% of perplexity" : "nats of KL divergence", name);
    lab_table(r->lab, true, out);
}

static void write_csv(const struct report *r, struct buf *out)
{
    lab_csv(r->lab, out);
}

static void write_tensors(const struct report *r, struct buf *out)
{
    lab_tensors_csv(r->lab, out);
}

static const struct {
    const char *name;
    void (*write)(const struct report *r, struct buf *out);
} files[] = {{"lab.csv", write_csv}, {"lab.md", write_table}, {"tensors.csv", write_tensors}};

static bool in_folder(const char *folder, const char *name, char *out, size_t size)
{
    return (size_t)snprintf(out, size, "%s/%s", folder, name) < size;
}

enum ph_status lab_report(const struct lab *lab, struct lab_bound bound, const char *folder,
                          struct ph_err *err)
{
    char path[4096];
    const struct report report = {lab, bound};
    enum ph_status status = PH_OK;
    if (!in_folder(folder, "tensors.csv", path, sizeof path))
        return ph_fail(err, PH_ERR_ARG, "the folder's name is too long");
    status = file_make_dir(folder, err);
    for (size_t i = 0; status == PH_OK && i < sizeof files / sizeof *files; i++) {
        struct buf out;
        buf_init(&out, REPORT_BYTES_MAX);
        files[i].write(&report, &out);
        (void)in_folder(folder, files[i].name, path, sizeof path);
        status = buf_status(&out);
        if (status == PH_OK)
            status = file_write_atomic(path, out.data, out.len, 0644, err);
        else
            status = ph_fail(err, status, "no room for %s", path);
        buf_release(&out);
    }
    if (status == PH_OK && in_folder(folder, "loss.svg", path, sizeof path))
        status = draw_loss(lab, bound, path, err);
    if (status == PH_OK && lab->params.timed && in_folder(folder, "speed.svg", path, sizeof path))
        status = draw_speed(lab, path, err);
    return status;
}
