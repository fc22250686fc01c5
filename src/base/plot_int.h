/* An axis of a chart: where a value lies, and which values are worth a tick (plot_axis.c). */
#ifndef PHAROS_BASE_PLOT_INT_H
#define PHAROS_BASE_PLOT_INT_H

#include "base/plot.h"

#define PLOT_TICKS_MAX 16
#define PLOT_TICK_TEXT 24

struct plot_tick {
    double value;
    char text[PLOT_TICK_TEXT];
};

struct plot_scale {
    bool log;
    double lo, hi;       /* of the axis; logarithms to base 10 when log; hi > lo */
    double at_lo, at_hi; /* where they lie in the picture */
    struct plot_tick ticks[PLOT_TICKS_MAX];
    size_t tick_count;
};

bool plot_drawable(double value, bool log);
double plot_place(const struct plot_scale *scale, double value);

/* The range of count drawable values lo..hi (count 0: none was seen) with a margin, and its ticks. */
void plot_scale_init(struct plot_scale *scale, bool log, size_t count, double lo, double hi, double margin,
                     size_t ticks_wanted);

#endif
