/* Drawing a chart. From the outside in: the title, the legend, the axes' titles and the ticks' texts take
 * what room they need, what is left is the frame of the data.
 *
 * Colours are classes of a style sheet, which has a second set for dark mode. Text widths are estimated,
 * since the font is the viewer's; everything that stands beside a text leaves room for that. A long line has
 * many points in a column of pixels: the first, lowest, highest and last of each draw the same picture. */
#include "base/plot.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/plot_int.h"
#include "base/utf8.h"

#define WIDTH 820.0
#define HEIGHT 500.0
#define EDGE 16.0
#define GLYPH 0.58 /* of the font size: an average character's width */
#define TITLE_SIZE 16.0
#define TEXT_SIZE 12.0
#define LABEL_SIZE 11.0
#define LEGEND_LINE 20.0
#define SWATCH 18.0
#define RADIUS 4.0
#define COLOURS 8
#define LABELS_MAX 512 /* later points get none: nobody could read them */
#define TICKS_X 8
#define TICKS_Y 6

static const char *const light[COLOURS] = {"#1f66d1", "#d4500c", "#23813a", "#8f3bb8",
                                           "#b8860b", "#0c7f8f", "#c22a63", "#62676f"};
static const char *const dark[COLOURS] = {"#6fa8ff", "#ff9757", "#6bc97c", "#cf93ee",
                                          "#e0b548", "#4fc7d6", "#ff86ab", "#a9aeb7"};

struct box {
    double left, top, right, bottom;
};

struct drawing {
    const struct plot *plot;
    struct buf *out;
    struct plot_scale x, y;
    struct box frame;
    struct box taken[LABELS_MAX]; /* by labels and points */
    size_t taken_count;
};

/* ---- Text */

static bool xml_allows(uint32_t c)
{
    return (c >= 0x20 && c != 0x7F && c != 0xFFFE && c != 0xFFFF) || c == '\t' || c == '\n';
}

static void put_text(struct buf *out, const char *text)
{
    size_t len = strlen(text), step;
    for (size_t at = 0; at < len; at += step) {
        uint32_t c;
        char bytes[UTF8_LEN_MAX];
        step = utf8_next(text + at, len - at, &c);
        if (c == '&' || c == '<' || c == '>' || c == '"' || c == '\'')
            buf_printf(out, "&#%u;", (unsigned)c);
        else
            buf_append(out, bytes, utf8_encode(xml_allows(c) ? c : UTF8_REPLACEMENT, bytes));
    }
}

static double text_width(const char *text, double size)
{
    size_t len = strlen(text), count = 0;
    for (size_t at = 0; at < len; count++) {
        uint32_t c;
        at += utf8_next(text + at, len - at, &c);
    }
    return (double)count * GLYPH * size;
}

static void put_label(struct buf *out, const char *class, double x, double y, const char *anchor,
                      const char *text)
{
    buf_printf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", class, x, y, anchor);
    put_text(out, text);
    buf_puts(out, "</text>\n");
}

static void put_palette(struct buf *out, const char *const colours[COLOURS])
{
    for (int i = 0; i < COLOURS; i++)
        buf_printf(out, ".l%d{stroke:%s}.p%d{fill:%s}", i, colours[i], i, colours[i]);
}

static void put_head(const struct drawing *d)
{
    buf_printf(d->out,
               "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
               "viewBox=\"0 0 %.0f %.0f\" role=\"img\">\n<title>",
               WIDTH, HEIGHT, WIDTH, HEIGHT);
    put_text(d->out, d->plot->title ? d->plot->title : "chart");
    buf_puts(d->out, "</title>\n<style>\n"
                     "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
                     "fill:#3b4048}"
                     ".head{font-size:16px;font-weight:600;fill:#16181d}.label{font-size:11px}"
                     ".paper{fill:#fff}.grid{stroke:#e3e6ea}.frame{stroke:#9aa0a8;fill:none}"
                     ".line{fill:none;stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}"
                     ".dash{stroke-dasharray:5 5;stroke-width:1.4}.dot{stroke:#fff}\n");
    put_palette(d->out, light);
    buf_puts(d->out, "\n@media (prefers-color-scheme:dark){"
                     "text{fill:#c3c8d0}.head{fill:#f0f2f5}.paper{fill:#14171c}.grid{stroke:#2a2f37}"
                     ".frame{stroke:#6c737d}.dot{stroke:#14171c}");
    put_palette(d->out, dark);
    buf_printf(d->out, "}\n</style>\n<rect class=\"paper\" width=\"%.0f\" height=\"%.0f\"/>\n", WIDTH,
               HEIGHT);
}

/* ---- Legend: entries side by side, in as many lines as it takes. Returns the height. */

static double legend(const struct drawing *d, double top)
{
    double x = EDGE, y = top;
    size_t shown = 0;
    for (size_t i = 0; i < d->plot->series_count; i++) {
        const struct plot_series *s = &d->plot->series[i];
        if (!s->name)
            continue;
        double width = SWATCH + 6 + text_width(s->name, TEXT_SIZE) + 18;
        if (shown++ && x + width > WIDTH - EDGE) {
            x = EDGE;
            y += LEGEND_LINE;
        }
        int colour = (int)(i % COLOURS);
        if (s->kind == PLOT_POINTS)
            buf_printf(d->out, "<circle class=\"dot p%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n", colour,
                       x + SWATCH / 2, y + 8, RADIUS);
        else
            buf_printf(d->out, "<path class=\"line%s l%d\" d=\"M%.1f %.1fh%.1f\"/>\n",
                       s->kind == PLOT_DASHES ? " dash" : "", colour, x, y + 8, SWATCH);
        put_label(d->out, "name", x + SWATCH + 6, y + 12, "start", s->name);
        x += width;
    }
    return shown ? y + LEGEND_LINE - top : 0;
}

/* ---- Axes */

static void put_axes(const struct drawing *d)
{
    const struct box *f = &d->frame;
    for (size_t i = 0; i < d->y.tick_count; i++) {
        double y = plot_place(&d->y, d->y.ticks[i].value);
        buf_printf(d->out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>\n", f->left, y, f->right);
        put_label(d->out, "tick", f->left - 8, y + 4, "end", d->y.ticks[i].text);
    }
    for (size_t i = 0; i < d->x.tick_count; i++) {
        double x = plot_place(&d->x, d->x.ticks[i].value);
        buf_printf(d->out, "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/>\n", x, f->top, f->bottom);
        put_label(d->out, "tick", x, f->bottom + 18, "middle", d->x.ticks[i].text);
    }
    buf_printf(d->out, "<path class=\"frame\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n", f->left, f->top, f->bottom,
               f->right);
    if (d->plot->x.title)
        put_label(d->out, "axis", (f->left + f->right) / 2, HEIGHT - EDGE, "middle", d->plot->x.title);
    if (d->plot->y.title) {
        double y = (f->top + f->bottom) / 2;
        buf_printf(d->out,
                   "<text class=\"axis\" transform=\"translate(%.1f %.1f) rotate(-90)\" "
                   "text-anchor=\"middle\">",
                   EDGE + 10, y);
        put_text(d->out, d->plot->y.title);
        buf_puts(d->out, "</text>\n");
    }
}

/* ---- Lines */

struct point {
    double x, y;
};

/* The points of one column of pixels, in short. */
struct column {
    struct point first, low, high, last;
    size_t low_at, high_at, count;
};

static void column_add(struct column *c, struct point p)
{
    if (c->count == 0)
        *c = (struct column){.first = p, .low = p, .high = p};
    if (p.y < c->low.y) {
        c->low = p;
        c->low_at = c->count;
    }
    if (p.y > c->high.y) {
        c->high = p;
        c->high_at = c->count;
    }
    c->last = p;
    c->count++;
}

static void put_column(struct buf *out, const struct column *c, bool begins)
{
    struct point between[2] = {c->low, c->high};
    if (c->low_at > c->high_at) {
        between[0] = c->high;
        between[1] = c->low;
    }
    buf_printf(out, "%s%.1f %.1f", begins ? "M" : "L", c->first.x, c->first.y);
    for (size_t i = 0; c->count > 2 && i < 2; i++)
        buf_printf(out, "L%.1f %.1f", between[i].x, between[i].y);
    if (c->count > 1)
        buf_printf(out, "L%.1f %.1f", c->last.x, c->last.y);
    else if (begins)
        buf_puts(out, "h0"); /* a dot, should nothing follow */
}

static bool point_at(const struct drawing *d, const struct plot_series *s, size_t i, struct point *p)
{
    if (!plot_drawable(s->x[i], d->x.log) || !plot_drawable(s->y[i], d->y.log))
        return false;
    *p = (struct point){plot_place(&d->x, s->x[i]), plot_place(&d->y, s->y[i])};
    return true;
}

static void put_line(const struct drawing *d, const struct plot_series *s, int colour)
{
    struct column column = {0};
    bool begins = true;
    buf_printf(d->out, "<path class=\"line%s l%d\" d=\"", s->kind == PLOT_DASHES ? " dash" : "", colour);
    for (size_t i = 0; i < s->count; i++) {
        struct point p;
        bool drawn = point_at(d, s, i, &p);
        if (column.count && (!drawn || floor(p.x) != floor(column.first.x))) {
            put_column(d->out, &column, begins);
            column.count = 0;
            begins = false;
        }
        if (drawn)
            column_add(&column, p);
        else
            begins = true;
    }
    if (column.count)
        put_column(d->out, &column, begins);
    buf_puts(d->out, "\"/>\n");
}

/* ---- Points and their labels */

static bool overlap(const struct box *a, const struct box *b)
{
    return a->left < b->right && b->left < a->right && a->top < b->bottom && b->top < a->bottom;
}

static size_t collisions(const struct drawing *d, const struct box *box)
{
    const struct box *f = &d->frame;
    size_t count = 0;
    if (box->left < f->left || box->right > WIDTH - 2 || box->top < f->top - 4 || box->bottom > f->bottom)
        count += LABELS_MAX;
    for (size_t i = 0; i < d->taken_count; i++)
        count += overlap(box, &d->taken[i]);
    return count;
}

static void take(struct drawing *d, struct box box)
{
    if (d->taken_count < LABELS_MAX)
        d->taken[d->taken_count++] = box;
}

/* Tries the places around a point and takes the first that is free, or the least crowded one. */
static void put_point_label(struct drawing *d, struct point p, const char *text)
{
    static const struct {
        double x, y; /* of the text's left edge in widths, and of its base line in font sizes */
        double gap;
    } places[] = {{0, 0.35, 8},  {-1, 0.35, -8}, {-0.5, -0.7, 0}, {-0.5, 1.55, 0},
                  {0, -0.35, 6}, {0, 1.15, 6},   {-1, -0.35, -6}, {-1, 1.15, -6},
                  {0, -1.2, 6},  {0, 2.0, 6},    {-1, -1.2, -6},  {-1, 2.0, -6}};
    double width = text_width(text, LABEL_SIZE);
    struct box best = {0};
    size_t fewest = SIZE_MAX;
    for (size_t i = 0; i < sizeof places / sizeof *places && fewest > 0; i++) {
        double left = p.x + places[i].x * width + places[i].gap, base = p.y + places[i].y * LABEL_SIZE;
        struct box box = {left, base - 0.8 * LABEL_SIZE, left + width, base + 0.2 * LABEL_SIZE};
        size_t count = collisions(d, &box);
        if (count < fewest) {
            fewest = count;
            best = box;
        }
    }
    take(d, best);
    put_label(d->out, "label", best.left, best.bottom - 0.2 * LABEL_SIZE, "start", text);
}

static void put_points(struct drawing *d, const struct plot_series *s, int colour)
{
    for (size_t i = 0; i < s->count; i++) {
        struct point p;
        if (!point_at(d, s, i, &p))
            continue;
        buf_printf(d->out, "<circle class=\"dot p%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"><title>", colour,
                   p.x, p.y, RADIUS);
        if (s->labels && s->labels[i]) {
            put_text(d->out, s->labels[i]);
            buf_puts(d->out, ": ");
        }
        buf_printf(d->out, "%.6g, %.6g</title></circle>\n", s->x[i], s->y[i]);
    }
}

static void put_labels(struct drawing *d, const struct plot_series *s)
{
    struct point p;
    for (size_t i = 0; s->labels && i < s->count && d->taken_count < LABELS_MAX; i++)
        if (s->labels[i] && point_at(d, s, i, &p))
            put_point_label(d, p, s->labels[i]);
}

/* Lines lie lowest, then points, then labels, which keep clear of all points. */
static void put_series(struct drawing *d)
{
    const struct plot *plot = d->plot;
    for (size_t i = 0; i < plot->series_count; i++)
        if (plot->series[i].kind != PLOT_POINTS)
            put_line(d, &plot->series[i], (int)(i % COLOURS));
    for (size_t i = 0; i < plot->series_count; i++) {
        const struct plot_series *s = &plot->series[i];
        if (s->kind == PLOT_POINTS)
            put_points(d, s, (int)(i % COLOURS));
        for (size_t k = 0; s->kind == PLOT_POINTS && k < s->count && d->taken_count < LABELS_MAX / 2; k++) {
            struct point p;
            if (point_at(d, s, k, &p))
                take(d, (struct box){p.x - RADIUS, p.y - RADIUS, p.x + RADIUS, p.y + RADIUS});
        }
    }
    for (size_t i = 0; i < plot->series_count; i++)
        if (plot->series[i].kind == PLOT_POINTS)
            put_labels(d, &plot->series[i]);
}

/* ---- The whole */

struct range {
    size_t count;
    double lo, hi;
};

static void range_add(struct range *range, double value)
{
    range->lo = range->count == 0 ? value : fmin(range->lo, value);
    range->hi = range->count == 0 ? value : fmax(range->hi, value);
    range->count++;
}

static void set_scales(struct drawing *d)
{
    struct range x = {0}, y = {0};
    bool points = false;
    for (size_t i = 0; i < d->plot->series_count; i++) {
        const struct plot_series *s = &d->plot->series[i];
        points |= s->kind == PLOT_POINTS;
        for (size_t k = 0; k < s->count; k++) {
            if (!plot_drawable(s->x[k], d->plot->x.log) || !plot_drawable(s->y[k], d->plot->y.log))
                continue;
            range_add(&x, s->x[k]);
            range_add(&y, s->y[k]);
        }
    }
    plot_scale_init(&d->x, d->plot->x.log, x.count, x.lo, x.hi, points ? 0.05 : 0.01, TICKS_X);
    plot_scale_init(&d->y, d->plot->y.log, y.count, y.lo, y.hi, 0.05, TICKS_Y);
}

static void set_frame(struct drawing *d, double top)
{
    double widest = 0;
    for (size_t i = 0; i < d->y.tick_count; i++)
        widest = fmax(widest, text_width(d->y.ticks[i].text, TEXT_SIZE));
    d->frame = (struct box){.left = EDGE + (d->plot->y.title ? 22 : 0) + widest + 8,
                            .top = top,
                            .right = WIDTH - EDGE - 8,
                            .bottom = HEIGHT - EDGE - (d->plot->x.title ? 44 : 22)};
    d->x.at_lo = d->frame.left;
    d->x.at_hi = d->frame.right;
    d->y.at_lo = d->frame.bottom;
    d->y.at_hi = d->frame.top;
}

void plot_svg(const struct plot *plot, struct buf *out)
{
    struct drawing d = {.plot = plot, .out = out};
    double top = EDGE;
    set_scales(&d);
    put_head(&d);
    if (plot->title) {
        put_label(out, "head", EDGE, top + TITLE_SIZE - 2, "start", plot->title);
        top += TITLE_SIZE + 12;
    }
    top += legend(&d, top) + 8;
    set_frame(&d, fmin(top, HEIGHT / 2));
    put_axes(&d);
    put_series(&d);
    buf_puts(out, "</svg>\n");
}

enum ph_status plot_write(const struct plot *plot, const char *path, struct ph_err *err)
{
    struct buf out;
    buf_init(&out, PLOT_BYTES_MAX);
    plot_svg(plot, &out);
    enum ph_status status = buf_status(&out);
    if (status == PH_OK)
        status = file_write_atomic(path, out.data, out.len, 0644, err);
    else
        status = ph_fail(err, status, "no room to draw %s", path);
    buf_release(&out);
    return status;
}
