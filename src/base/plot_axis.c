/* Axes: a range with a little air, and ticks at numbers a person would choose.
 *
 * Linear ticks are multiples of 1, 2 or 5 times a power of ten. Logarithmic ones are 1, or 1, 2 and 5, times
 * powers of ten; where a range is too short for three of those, the linear ones serve. All texts of a linear
 * axis have the same unit and the same decimals. */
#include <math.h>
#include <stdio.h>

#include "base/plot_int.h"

#define VALUE_MAX 1e300 /* beyond it differences overflow */
#define FLAT 1e-12      /* relative: a range narrower than this is one value */

bool plot_drawable(double value, bool log)
{
    return isfinite(value) && fabs(value) < VALUE_MAX && (!log || value > 1 / VALUE_MAX);
}

double plot_place(const struct plot_scale *scale, double value)
{
    double at = scale->log ? log10(value) : value;
    return scale->at_lo + (at - scale->lo) / (scale->hi - scale->lo) * (scale->at_hi - scale->at_lo);
}

/* ---- Texts */

struct unit {
    double size;
    const char *sign;
};

static struct unit unit_of(double most)
{
    static const struct unit units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
    if (most < 1e4 || most >= 1e15)
        return (struct unit){1, ""};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (most >= units[i].size)
            return units[i];
    return (struct unit){1, ""};
}

static bool is_plain(double most)
{
    return most == 0 || (most >= 1e-3 && most < 1e15);
}

/* 5e-7 rather than C's 5e-07. */
static void text_scientific(char *text, double value)
{
    if (value == 0) {
        snprintf(text, PLOT_TICK_TEXT, "0");
        return;
    }
    int exponent = (int)floor(log10(fabs(value)) + 1e-9);
    double mantissa = exponent < -300 ? value * 1e300 / pow(10, exponent + 300) : value / pow(10, exponent);
    snprintf(text, PLOT_TICK_TEXT, "%.4ge%d", mantissa, exponent);
}

static void text_linear(char *text, double value, double step, double most)
{
    if (!is_plain(most)) {
        text_scientific(text, value);
        return;
    }
    struct unit unit = unit_of(most);
    if (step < 0.005 * unit.size) /* 12345 and 12346 differ more than 12.345k and 12.346k */
        unit = (struct unit){1, ""};
    int decimals = (int)ceil(-log10(step / unit.size) - 1e-9);
    snprintf(text, PLOT_TICK_TEXT, "%.*f%s",
             decimals < 0   ? 0
             : decimals > 9 ? 9
                            : decimals,
             value / unit.size, value == 0 ? "" : unit.sign);
}

static void text_log(char *text, double value)
{
    struct unit unit = unit_of(value >= 1e3 ? value * 10 : value);
    if (is_plain(value))
        snprintf(text, PLOT_TICK_TEXT, "%.4g%s", value / unit.size, unit.sign);
    else
        text_scientific(text, value);
}

/* ---- Ticks */

static void linear_ticks(struct plot_scale *scale, double lo, double hi, size_t wanted)
{
    double rough = (hi - lo) / (double)wanted, power = pow(10, floor(log10(rough)));
    double step = rough <= 1.001 * power   ? power
                  : rough <= 2.001 * power ? 2 * power
                  : rough <= 5.001 * power ? 5 * power
                                           : 10 * power;
    double first = ceil(lo / step - 1e-9), last = floor(hi / step + 1e-9);
    double most = fmax(fabs(first), fabs(last)) * step;
    scale->tick_count = 0;
    for (double i = first; i <= last && scale->tick_count < PLOT_TICKS_MAX; i++) {
        struct plot_tick *tick = &scale->ticks[scale->tick_count++];
        tick->value = i == 0 ? 0 : i * step;
        text_linear(tick->text, tick->value, step, most);
    }
}

/* Ticks at mantissas 1 (count 1) or 1, 2, 5 (count 3) of every stride-th power of ten. */
static void log_ticks(struct plot_scale *scale, size_t mantissas, int stride)
{
    static const double mantissa[] = {1, 2, 5};
    int first = (int)floor(scale->lo), last = (int)ceil(scale->hi);
    scale->tick_count = 0;
    for (int e = first; e <= last; e++) {
        for (size_t m = 0; e % stride == 0 && m < mantissas; m++) {
            double value = mantissa[m] * pow(10, e), at = log10(value);
            if (at < scale->lo - 1e-9 || at > scale->hi + 1e-9 || scale->tick_count == PLOT_TICKS_MAX)
                continue;
            struct plot_tick *tick = &scale->ticks[scale->tick_count++];
            tick->value = value;
            text_log(tick->text, value);
        }
    }
}

static void set_ticks(struct plot_scale *scale, size_t wanted)
{
    if (!scale->log) {
        linear_ticks(scale, scale->lo, scale->hi, wanted);
        return;
    }
    double decades = scale->hi - scale->lo;
    if (decades > 3)
        log_ticks(scale, 1, (int)ceil(decades / (1.5 * (double)wanted)));
    else
        log_ticks(scale, 3, 1);
    if (scale->tick_count < 3)
        linear_ticks(scale, pow(10, scale->lo), pow(10, scale->hi), wanted);
    if (decades <= 3 && scale->tick_count > 2 * wanted)
        log_ticks(scale, 1, 1);
}

void plot_scale_init(struct plot_scale *scale, bool log, size_t count, double lo, double hi, double margin,
                     size_t ticks_wanted)
{
    *scale = (struct plot_scale){.log = log};
    if (count == 0) {
        lo = log ? 1 : 0;
        hi = log ? 10 : 1;
    }
    if (log) {
        lo = log10(lo);
        hi = log10(hi);
    }
    double size = fmax(fabs(lo), fabs(hi)), air = (hi - lo) * margin;
    if (hi - lo <= FLAT * size || hi == lo)
        air = log ? 0.1 : size == 0 ? 0.5 : 0.05 * size;
    bool stays_above = !log && lo >= 0 && lo < air; /* nothing lies below 0: the axis doesn't either */
    bool stays_below = !log && hi <= 0 && -hi < air && !stays_above;
    scale->lo = stays_above ? 0 : lo - air;
    scale->hi = stays_below ? 0 : hi + air;
    set_ticks(scale, ticks_wanted);
}
