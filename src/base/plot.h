/* Charts as SVG: lines and labelled points over two axes, each linear or logarithmic.
 *
 * A pure function of its input: no clock, no fonts, no scripts, the same bytes every time. The picture
 * follows the reader's light or dark mode where the viewer knows it, and is light elsewhere. Every text may
 * be any bytes. Thread: any. */
#ifndef PHAROS_BASE_PLOT_H
#define PHAROS_BASE_PLOT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/status.h"

#define PLOT_BYTES_MAX ((size_t)32 << 20) /* a picture plot_write makes */

enum plot_kind {
    PLOT_LINE,   /* the points joined in their order */
    PLOT_DASHES, /* the same, for what is beside the point */
    PLOT_POINTS
};

struct plot_series {
    const char *name; /* in the legend; NULL: not there */
    enum plot_kind kind;
    size_t count;
    const double *x, *y; /* [count]; what can't be drawn (not finite, not above 0 on a log axis) is a gap */
    const char *const *labels; /* PLOT_POINTS: [count], each may be NULL; NULL: none */
};

struct plot_axis {
    const char *title; /* NULL: none */
    bool log;
};

struct plot {
    const char *title; /* NULL: none */
    struct plot_axis x, y;
    const struct plot_series *series;
    size_t series_count;
};

/* Appends a whole SVG document; failure is out's. However long a line is, it takes some hundred
 * kilobytes at most. */
void plot_svg(const struct plot *plot, struct buf *out);

/* The same into a file that is replaced atomically. */
PH_MUST_USE enum ph_status plot_write(const struct plot *plot, const char *path, struct ph_err *err);

#endif
