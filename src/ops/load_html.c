/* The report as one HTML file that opens anywhere: no script, no font, no picture from outside. Every text
 * that came from elsewhere (names, addresses, a server's words) is escaped. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/plot.h"
#include "base/utf8.h"
#include "base/values.h"
#include "ops/load_int.h"

#define CURVE_POINTS_MAX 2000
#define WINDOWS_MAX 1200

static void put_escaped(struct buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '<')
            buf_puts(out, "&lt;");
        else if (*text == '>')
            buf_puts(out, "&gt;");
        else if (*text == '&')
            buf_puts(out, "&amp;");
        else if (*text == '"')
            buf_puts(out, "&quot;");
        else
            buf_putc(out, (unsigned char)*text < ' ' ? ' ' : *text);
    }
}

/* A plot within the page: without the line that makes a document of it. */
static void put_plot(struct buf *out, const struct plot *plot)
{
    struct buf svg;
    buf_init(&svg, PLOT_BYTES_MAX);
    plot_svg(plot, &svg);
    const char *body = buf_status(&svg) == PH_OK && svg.data ? strstr(svg.data, "<svg") : NULL;
    if (body)
        buf_append(out, body, svg.len - (size_t)(body - svg.data));
    buf_release(&svg);
}

/* ---- Curves of one run */

enum curve { CURVE_TTFT, CURVE_TPOT, CURVE_E2E, CURVE_COUNT };
static const char *const curve_names[CURVE_COUNT] = {"time to first token", "time per output token",
                                                     "end to end"};

static double value_of(const struct load_run *run, const struct load_sample *s, enum curve curve)
{
    return curve == CURVE_TTFT   ? load_ttft_ms(run, s)
           : curve == CURVE_TPOT ? load_tpot_ms(run, s)
                                 : (double)(s->end_ns - s->intended_ns) * 1e-6;
}

struct curves { /* what the plots point into */
    double *x[CURVE_COUNT], *y[CURVE_COUNT];
    size_t count[CURVE_COUNT];
};

static bool take_curves(struct curves *c, size_t room)
{
    *c = (struct curves){0};
    for (int i = 0; i < CURVE_COUNT; i++) {
        c->x[i] = mem_calloc(room + 1, sizeof(double));
        c->y[i] = mem_calloc(room + 1, sizeof(double));
        if (!c->x[i] || !c->y[i])
            return false;
    }
    return true;
}

static void free_curves(struct curves *c)
{
    for (int i = 0; i < CURVE_COUNT; i++) {
        mem_free(c->x[i]);
        mem_free(c->y[i]);
    }
}

static void put_curves(struct buf *out, const struct curves *c, const char *title, struct plot_axis x,
                       struct plot_axis y, const char *const names[CURVE_COUNT], enum plot_kind kind)
{
    struct plot_series series[CURVE_COUNT];
    size_t count = 0;
    for (int i = 0; i < CURVE_COUNT; i++)
        if (c->count[i])
            series[count++] = (struct plot_series){
                .name = names[i], .kind = kind, .count = c->count[i], .x = c->x[i], .y = c->y[i]};
    if (count)
        put_plot(out,
                 &(struct plot){.title = title, .x = x, .y = y, .series = series, .series_count = count});
}

/* How many requests took at most so long. */
static void put_distribution(struct buf *out, const struct load_run *run)
{
    struct curves c;
    bool fits = take_curves(&c, run->count);
    for (int curve = 0; fits && curve < CURVE_COUNT; curve++) {
        double *x = c.x[curve], *y = c.y[curve];
        size_t n = 0, shown = 0;
        for (size_t i = 0; i < run->count; i++) {
            double value = value_of(run, &run->samples[i], (enum curve)curve);
            if (load_is_measured(&run->samples[i]) && run->samples[i].error == LOAD_OK && isfinite(value))
                x[n++] = value;
        }
        values_sort(x, n);
        size_t step = n / CURVE_POINTS_MAX + 1;
        for (size_t i = 0; i < n; i++)
            if (i % step == 0 || i + 1 == n) {
                x[shown] = x[i];
                y[shown++] = 100 * (double)(i + 1) / (double)n;
            }
        c.count[curve] = shown;
    }
    if (fits)
        put_curves(out, &c, "how many requests took at most so long", (struct plot_axis){"ms", true},
                   (struct plot_axis){"% of requests", false}, curve_names, PLOT_LINE);
    free_curves(&c);
}

/* When what was slow: each request at its intended send. */
static void put_over_time(struct buf *out, const struct load_run *run)
{
    struct curves c;
    bool fits = take_curves(&c, CURVE_POINTS_MAX + 1);
    size_t step = run->count / CURVE_POINTS_MAX + 1;
    for (size_t i = 0; fits && i < run->count; i += step) {
        const struct load_sample *s = &run->samples[i];
        for (int curve = 0; curve < CURVE_COUNT; curve++)
            if (load_is_measured(s) && s->error == LOAD_OK && isfinite(value_of(run, s, (enum curve)curve))) {
                c.x[curve][c.count[curve]] = (double)s->intended_ns * 1e-9;
                c.y[curve][c.count[curve]++] = value_of(run, s, (enum curve)curve);
            }
    }
    if (fits)
        put_curves(out, &c, "each request, by when it was due", (struct plot_axis){"s", false},
                   (struct plot_axis){"ms", true}, curve_names, PLOT_POINTS);
    free_curves(&c);
}

/* In flight, ends and pieces of text, second by second (or longer windows in long runs). */
static void put_flow(struct buf *out, const struct load_run *run)
{
    static const char *const names[CURVE_COUNT] = {"in flight", "requests ended/s", "pieces of text/s"};
    struct curves c;
    uint64_t last_ns = 1;
    for (size_t i = 0; i < run->count; i++)
        last_ns = run->samples[i].end_ns > last_ns ? run->samples[i].end_ns : last_ns;
    double width_s = (double)last_ns * 1e-9 / WINDOWS_MAX;
    width_s = width_s < 1 ? 1 : ceil(width_s);
    size_t count = (size_t)((double)last_ns * 1e-9 / width_s) + 1;
    bool fits = take_curves(&c, count);
    for (size_t i = 0; fits && i < run->count; i++) {
        const struct load_sample *s = &run->samples[i];
        double from = (double)s->sent_ns * 1e-9 / width_s, to = (double)s->end_ns * 1e-9 / width_s;
        for (size_t w = (size_t)from; w <= (size_t)to && w < count; w++) {
            double begin = from > (double)w ? from : (double)w, end = to < (double)w + 1 ? to : (double)w + 1;
            c.y[0][w] += end - begin;
        }
        c.y[1][(size_t)to < count ? (size_t)to : count - 1] += 1 / width_s;
        for (size_t k = 0; k < s->chunk_count; k++) {
            size_t w = (size_t)((double)run->chunks_ns[s->chunk_first + k] * 1e-9 / width_s);
            c.y[2][w < count ? w : count - 1] += 1 / width_s;
        }
    }
    for (int i = 0; fits && i < CURVE_COUNT; i++) {
        for (size_t w = 0; w < count; w++)
            c.x[i][w] = ((double)w + 0.5) * width_s;
        c.count[i] = count;
    }
    if (fits)
        put_curves(out, &c, "what went on", (struct plot_axis){"s", false}, (struct plot_axis){NULL, true},
                   names, PLOT_LINE);
    free_curves(&c);
}

/* ---- A sweep */

static void put_sweep(struct buf *out, const struct load_report *report)
{
    static const char *const names[CURVE_COUNT] = {"TTFT p50", "TTFT p95", "end to end p50"};
    struct curves c;
    double *tokens = mem_calloc(report->count, sizeof *tokens),
           *load = mem_calloc(report->count, sizeof *load);
    bool fits = take_curves(&c, report->count) && tokens && load;
    for (size_t i = 0; fits && i < report->count; i++) {
        const struct load_summary *s = &report->stages[i].summary;
        const double y[CURVE_COUNT] = {s->ttft.p50, s->ttft.p95, s->e2e.p50};
        tokens[i] = s->tokens_out_per_s;
        load[i] = report->stages[i].params.mode == LOAD_OPEN ? report->stages[i].params.rate_per_s
                                                             : (double)report->stages[i].params.concurrency;
        for (int k = 0; k < CURVE_COUNT; k++) {
            c.x[k][i] = load[i];
            c.y[k][i] = y[k];
            c.count[k] = report->count;
        }
    }
    if (fits) {
        const char *labels[] = {"knee"};
        const struct plot_series series[] = {
            {.name = "tokens/s out", .kind = PLOT_LINE, .count = report->count, .x = load, .y = tokens},
            {.name = NULL,
             .kind = PLOT_POINTS,
             .count = 1,
             .x = &load[report->knee],
             .y = &tokens[report->knee],
             .labels = labels}};
        put_plot(out, &(struct plot){.title = "throughput by load",
                                     .x = {report->load_name, true},
                                     .y = {"tokens/s", false},
                                     .series = series,
                                     .series_count = 2});
        put_curves(out, &c, "latency by load", (struct plot_axis){report->load_name, true},
                   (struct plot_axis){"ms", true}, names, PLOT_LINE);
    }
    free_curves(&c);
    mem_free(tokens);
    mem_free(load);
}

/* ---- The page */

static void put_metrics(struct buf *out, const struct load_report *report)
{
    buf_puts(out, "<h2>Figures</h2>\n<div class=wide><table>\n<tr><th></th>");
    for (size_t i = 0; i < report->count; i++) {
        buf_puts(out, "<th>");
        if (report->stages[i].name)
            put_escaped(out, report->stages[i].name);
        else
            load_put_load_name(&report->stages[i].params, out);
        buf_puts(out, "</th>");
    }
    buf_puts(out, "</tr>\n");
    for (const struct load_metric *m = load_metrics; m->name; m++) {
        buf_printf(out, "<tr><td>%s</td>", m->name);
        for (size_t i = 0; i < report->count; i++) {
            double value = load_metric_value(m, &report->stages[i].summary);
            if (isfinite(value))
                buf_printf(out, "<td class=n>%.*f</td>", value == floor(value) ? 0 : 2, value);
            else
                buf_puts(out, "<td class=n>-</td>");
        }
        buf_puts(out, "</tr>\n");
    }
    buf_puts(out, "<tr><td>tokens counted by</td>");
    for (size_t i = 0; i < report->count; i++)
        buf_printf(out, "<td class=n>%s</td>", load_counted_words(&report->stages[i].summary));
    buf_puts(out, "</tr>\n</table></div>\n");
}

static void put_errors(struct buf *out, const struct load_report *report)
{
    bool any = false;
    for (size_t i = 0; i < report->count; i++)
        for (size_t e = LOAD_OK + 1; e < LOAD_ERROR_COUNT; e++)
            if (report->stages[i].summary.errors[e] > 0) {
                buf_puts(out, any ? ""
                                  : "<h2>What failed</h2>\n<table>\n<tr><th>kind</th><th>requests</th>"
                                    "<th>the first one's words</th></tr>\n");
                any = true;
                buf_printf(out, "<tr><td>%s</td><td class=n>%.0f</td><td>", load_error_names[e],
                           report->stages[i].summary.errors[e]);
                put_escaped(out, report->stages[i].run->words[e]);
                buf_puts(out, "</td></tr>\n");
            }
    buf_puts(out, any ? "</table>\n" : "");
}

static void put_verdicts(struct buf *out, const struct load_report *report)
{
    if (!report->verdict_count)
        return;
    buf_puts(out,
             "<h2>Criteria</h2>\n<table>\n<tr><th>test</th><th>wanted</th><th>measured</th><th>verdict</th>"
             "</tr>\n");
    for (size_t i = 0; i < report->verdict_count; i++) {
        const struct load_verdict *v = &report->verdicts[i];
        struct buf words;
        buf_init(&words, 1024);
        load_put_verdict(v, &words);
        buf_printf(out, "<tr class=%s><td>", v->holds ? "good" : "bad");
        put_escaped(out, v->test);
        buf_puts(out, "</td><td>");
        put_escaped(out, v->want->text);
        buf_printf(out, "</td><td class=n>%.2f</td><td>", v->measured);
        put_escaped(out, words.data ? words.data : "");
        buf_puts(out, "</td></tr>\n");
        buf_release(&words);
    }
    buf_puts(out, "</table>\n");
}

static void put_head(struct buf *out, const struct load_report *report)
{
    char date[CLOCK_UTC_TEXT_MAX];
    const struct load_target *target = &report->stages[0].params.target;
    clock_format_utc(report->stages[0].run->started_unix_ms, date);
    buf_puts(
        out,
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src "
        "'unsafe-inline'\">\n"
        "<meta name=viewport content=\"width=device-width\">\n<title>load test</title>\n<style>\n"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
        "color:#16181d;background:#fff}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}"
        "table{border-collapse:collapse;font-size:.9rem}td,th{padding:.2rem .8rem .2rem 0;text-align:left;"
        "border-bottom:1px solid #8884}.n{text-align:right;font-variant-numeric:tabular-nums}"
        ".wide{overflow-x:auto}.bad td{color:#b3261e}.good td:last-child{color:#1a7f37}"
        "svg{max-width:100%;height:auto;display:block;margin:1rem 0}dt{font-weight:600}dd{margin:0 0 .6rem}\n"
        "@media(prefers-color-scheme:dark){body{color:#f0f2f5;background:#14171c}.bad td{color:#ff8a80}"
        ".good td:last-child{color:#7ee2a0}}\n</style>\n<h1>Load test of ");
    put_escaped(out, target->model);
    buf_puts(out, "</h1>\n<p>");
    put_escaped(out, target->url);
    buf_printf(out, ", %s", date);
    if (report->load_name) {
        buf_puts(out, ". Raised: ");
        put_escaped(out, report->load_name);
        if (report->found_knee) {
            buf_puts(out, "; the knee is at ");
            put_escaped(out, report->stages[report->knee].name);
        } else {
            buf_puts(out, "; not over-saturated yet");
        }
    }
    buf_puts(out, ".</p>\n");
}

void load_put_html(const struct load_report *report, struct buf *out)
{
    put_head(out, report);
    put_verdicts(out, report);
    if (report->load_name)
        put_sweep(out, report);
    for (size_t i = 0; !report->load_name && i < report->count; i++) {
        if (report->stages[i].name) {
            buf_puts(out, "<h2>");
            put_escaped(out, report->stages[i].name);
            buf_puts(out, "</h2>\n");
        }
        put_distribution(out, report->stages[i].run);
        put_over_time(out, report->stages[i].run);
        put_flow(out, report->stages[i].run);
    }
    put_metrics(out, report);
    put_errors(out, report);
    buf_puts(out, "<h2>What the figures mean</h2>\n<dl>\n");
    for (const struct load_definition *d = load_definitions; d->name; d++) {
        buf_printf(out, "<dt>%s</dt><dd>", d->name);
        put_escaped(out, d->text);
        buf_puts(out, "</dd>\n");
    }
    buf_puts(out, "</dl>\n</html>\n");
}
