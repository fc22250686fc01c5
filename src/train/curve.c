/* loss.csv: one row a step, appended. On going on from a checkpoint the rows after it are cut off, because
 * their steps are done again. loss.svg is drawn from it: the loss as means over runs of steps, or its noise
 * would hide its course, and the held-out loss as it is. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/plot.h"
#include "train/run_int.h"

#define ROW_BYTES_MAX ((size_t)4096)

static const char header[] = "step,tokens,loss,validation_loss,bits_per_byte,rate,norm,tokens_per_s\n";

/* Where the rows after `step` begin; a last row without its end goes too. */
static size_t kept_len(const struct buf *text, uint64_t step)
{
    size_t at = sizeof header - 1;
    if (text->len < at || memcmp(text->data, header, at) != 0)
        return 0;
    while (at < text->len) {
        const char *end = memchr(text->data + at, '\n', text->len - at);
        if (!end || strtoull(text->data + at, NULL, 10) > step)
            break;
        at = (size_t)(end - text->data) + 1;
    }
    return at;
}

enum ph_status curve_open(struct curve *curve, const char *path, uint64_t step, struct ph_err *err)
{
    struct buf text;
    *curve = (struct curve){.path = path};
    buf_init(&text, CURVE_BYTES_MAX);
    enum ph_status status = file_exists(path) ? file_read(path, &text, err) : PH_OK;
    size_t len = status == PH_OK ? kept_len(&text, step) : 0;
    if (status == PH_OK && len == 0)
        status = file_write_atomic(path, header, sizeof header - 1, 0644, err);
    else if (status == PH_OK && len < text.len)
        status = file_write_atomic(path, text.data, len, 0644, err);
    curve->len = len ? len : sizeof header - 1;
    buf_release(&text);
    if (status != PH_OK)
        return status;
    curve->file = fopen(path, "ae");
    return curve->file ? PH_OK : ph_fail(err, PH_ERR_IO, "cannot open %s to add to it", path);
}

/* A disk that was full may have taken a part of a row, to which the next one must not be joined. */
static bool reopen(struct curve *curve)
{
    struct ph_err ignored;
    if (curve->file)
        fclose(curve->file);
    curve->file = NULL;
    if (file_truncate(curve->path, curve->len, &ignored) == PH_OK)
        curve->file = fopen(curve->path, "ae");
    return curve->file != NULL;
}

bool curve_add(struct curve *curve, const struct run_report *r)
{
    const struct trainer_validation *v = r->validation;
    struct buf row;
    buf_init(&row, ROW_BYTES_MAX);
    buf_printf(&row, "%" PRIu64 ",%" PRIu64 ",%.6f,", r->step.step, r->step.tokens, r->step.loss);
    if (v)
        buf_printf(&row, "%.6f,%.6f", v->loss, v->bits_per_byte);
    else
        buf_putc(&row, ',');
    buf_printf(&row, ",%.6g,%.4f,%.1f\n", r->step.rate, r->step.norm, r->tokens_per_s);
    bool ok = buf_status(&row) == PH_OK && (curve->file || reopen(curve));
    if (ok) {
        ok = fwrite(row.data, 1, row.len, curve->file) == row.len && fflush(curve->file) == 0;
        if (ok)
            curve->len += row.len;
        else
            (void)reopen(curve);
    }
    buf_release(&row);
    return ok;
}

void curve_close(struct curve *curve)
{
    if (curve->file)
        fclose(curve->file);
    *curve = (struct curve){0};
}

/* ---- The picture */

#define BINS ((size_t)400)

struct points {
    double *x, *y;
    size_t count;
};

struct drawing {
    struct points loss, held_out; /* a row each; then `loss` is means */
};

static bool points_open(struct points *points, size_t rows)
{
    points->x = mem_calloc(rows + 1, sizeof *points->x);
    points->y = mem_calloc(rows + 1, sizeof *points->y);
    return points->x && points->y;
}

static void points_release(struct points *points)
{
    mem_free(points->x);
    mem_free(points->y);
}

static void points_add(struct points *points, double x, const char *y)
{
    points->x[points->count] = x;
    points->y[points->count++] = strtod(y, NULL);
}

/* The text behind the n-th comma; "" where there is none. */
static const char *column(const char *row, size_t n)
{
    for (; n > 0; n--) {
        row += strcspn(row, ",\n");
        if (*row != ',')
            return "";
        row++;
    }
    return row;
}

static void read_rows(struct drawing *d, const char *text)
{
    for (const char *row = strchr(text, '\n'); row && row[1]; row = strchr(row + 1, '\n')) {
        double step = strtod(row + 1, NULL);
        const char *held_out = column(row + 1, 3);
        points_add(&d->loss, step, column(row + 1, 2));
        if (*held_out && *held_out != ',')
            points_add(&d->held_out, step, held_out);
    }
}

static void average(struct points *points)
{
    size_t each = (points->count + BINS - 1) / BINS, out = 0;
    for (size_t at = 0; at < points->count; at += each, out++) {
        size_t end = at + each < points->count ? at + each : points->count;
        double x = 0, y = 0;
        for (size_t i = at; i < end; i++) {
            x += points->x[i];
            y += points->y[i];
        }
        points->x[out] = x / (double)(end - at);
        points->y[out] = y / (double)(end - at);
    }
    points->count = out;
}

static enum ph_status draw(const struct drawing *d, const char *path, const char *title, struct ph_err *err)
{
    const struct plot_series series[] = {
        {.name = "training", .kind = PLOT_LINE, .count = d->loss.count, .x = d->loss.x, .y = d->loss.y},
        {.name = "held out",
         .kind = PLOT_LINE,
         .count = d->held_out.count,
         .x = d->held_out.x,
         .y = d->held_out.y}};
    const struct plot plot = {.title = title,
                              .x = {.title = "step"},
                              .y = {.title = "loss, nats a token"},
                              .series = series,
                              .series_count = d->held_out.count > 0 ? 2 : 1};
    return plot_write(&plot, path, err);
}

static size_t count_lines(const struct buf *text)
{
    size_t lines = 0;
    for (size_t i = 0; i < text->len; i++)
        lines += text->data[i] == '\n';
    return lines;
}

enum ph_status curve_draw(const char *csv, const char *svg, const char *title, struct ph_err *err)
{
    struct buf text;
    struct drawing d = {0};
    buf_init(&text, CURVE_BYTES_MAX);
    enum ph_status status = file_read(csv, &text, err);
    if (status == PH_OK) {
        size_t rows = count_lines(&text);
        if (points_open(&d.loss, rows) && points_open(&d.held_out, rows)) {
            read_rows(&d, text.data ? text.data : "");
            average(&d.loss);
            status = draw(&d, svg, title, err);
        } else {
            status = ph_fail(err, PH_ERR_NOMEM, "no memory to draw %zu rows of %s", rows, csv);
        }
    }
    points_release(&d.loss);
    points_release(&d.held_out);
    buf_release(&text);
    return status;
}
