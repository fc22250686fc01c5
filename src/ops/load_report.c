/* What a person reads and what a script reads: the same figures by the same names. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "ops/load_int.h"

/* ---- Samples */

void load_put_sample(const struct load_stage *of, size_t stage, size_t number, struct buf *out)
{
    const struct load_run *run = of->run;
    const struct load_sample *s = &run->samples[number];
    static const char *const counted[] = {"null", "\"usage\"", "\"chunks\""};
    buf_printf(out,
               "{\"n\":%zu,\"stage\":%zu,\"warmup\":%s,\"stream\":%s,\"intended_ns\":%llu,\"sent_ns\":%llu,"
               "\"end_ns\":%llu,\"status\":%d,",
               number, stage, s->is_warmup ? "true" : "false", s->is_stream ? "true" : "false",
               (unsigned long long)s->intended_ns, (unsigned long long)s->sent_ns,
               (unsigned long long)s->end_ns, s->status);
    if (s->error == LOAD_OK)
        buf_puts(out, "\"error\":null");
    else
        buf_printf(out, "\"error\":\"%s\"", load_error_names[s->error]);
    buf_printf(out, ",\"tokens_in\":%llu,\"tokens_out\":%llu,\"counted\":%s,\"chunks_ns\":[",
               (unsigned long long)s->tokens_in, (unsigned long long)s->tokens_out, counted[s->counted]);
    for (size_t i = 0; i < s->chunk_count; i++) {
        if (i)
            buf_putc(out, ',');
        buf_put_uint(out, run->chunks_ns[s->chunk_first + i]);
    }
    buf_puts(out, "]}\n");
}

/* ---- JSON */

static void put_number(struct buf *out, double value)
{
    if (isfinite(value))
        json_write_double(out, value);
    else
        buf_puts(out, "null");
}

static void put_text(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "\"%s\":", name);
    if (text)
        json_write_string(out, text, strlen(text));
    else
        buf_puts(out, "null");
}

static void put_errors(const struct load_stage *stage, struct buf *out)
{
    bool any = false;
    buf_puts(out, "\"errors\":{");
    for (size_t i = LOAD_OK + 1; i < LOAD_ERROR_COUNT; i++)
        if (stage->summary.errors[i] > 0) {
            buf_printf(out, "%s\"%s\":%.0f", any ? "," : "", load_error_names[i], stage->summary.errors[i]);
            any = true;
        }
    buf_puts(out, "},\"error_examples\":{");
    any = false;
    for (size_t i = LOAD_OK + 1; i < LOAD_ERROR_COUNT; i++)
        if (stage->run->words[i][0]) {
            buf_puts(out, any ? "," : "");
            put_text(out, load_error_names[i], stage->run->words[i]);
            any = true;
        }
    buf_putc(out, '}');
}

const char *load_counted_words(const struct load_summary *s)
{
    return s->counted_usage > 0 && s->counted_chunks > 0 ? "usage and chunks"
           : s->counted_usage > 0                        ? "usage"
           : s->counted_chunks > 0                       ? "chunks"
                                                         : "not counted";
}

static void put_stage(const struct load_stage *stage, size_t index, struct buf *out)
{
    char date[CLOCK_UTC_TEXT_MAX];
    const struct load_params *p = &stage->params;
    clock_format_utc(stage->run->started_unix_ms, date);
    buf_printf(out, "{\"stage\":%zu,", index);
    put_text(out, "name", stage->name);
    buf_printf(out, ",\"mode\":\"%s\",\"concurrency\":%zu,\"rate_per_s\":", load_mode_names[p->mode],
               p->concurrency);
    put_number(out, p->mode == LOAD_OPEN ? p->rate_per_s : NAN);
    buf_printf(out,
               ",\"max_tokens\":%zu,\"warmup\":%zu,\"streamed\":%s,\"seed\":%llu,\"started\":\"%s\","
               "\"interrupted\":%s,\"over_saturated\":%s,\"connections\":%llu,\"cpu_ms\":%.3f,",
               p->max_tokens, p->warmup, p->whole ? "false" : "true", (unsigned long long)p->seed, date,
               stage->run->was_interrupted ? "true" : "false", stage->run->was_saturated ? "true" : "false",
               (unsigned long long)stage->run->connections, (double)stage->run->cpu_ns * 1e-6);
    put_text(out, "tokens_counted_by", load_counted_words(&stage->summary));
    buf_puts(out, ",\"metrics\":{");
    for (const struct load_metric *m = load_metrics; m->name; m++) {
        buf_printf(out, "%s\"%s\":", m == load_metrics ? "" : ",", m->name);
        put_number(out, load_metric_value(m, &stage->summary));
    }
    buf_puts(out, "},");
    put_errors(stage, out);
    buf_putc(out, '}');
}

static void put_verdicts(const struct load_report *report, struct buf *out)
{
    buf_puts(out, "\"criteria\":[");
    for (size_t i = 0; i < report->verdict_count; i++) {
        const struct load_verdict *v = &report->verdicts[i];
        buf_puts(out, i ? ",{" : "{");
        put_text(out, "test", v->test);
        buf_putc(out, ',');
        put_text(out, "wanted", v->want->text);
        buf_puts(out, ",\"measured\":");
        put_number(out, v->measured);
        buf_printf(out, ",\"holds\":%s}", v->holds ? "true" : "false");
    }
    buf_puts(out, "],");
}

void load_put_json(const struct load_report *report, struct buf *out)
{
    const struct load_target *target = &report->stages[0].params.target;
    buf_putc(out, '{');
    put_text(out, "url", target->url);
    buf_putc(out, ',');
    put_text(out, "model", target->model);
    buf_puts(out, ",\"slo\":{\"ttft_s\":");
    put_number(out, report->slo.ttft_s);
    buf_puts(out, ",\"tpot_s\":");
    put_number(out, report->slo.tpot_s);
    buf_puts(out, ",\"e2e_s\":");
    put_number(out, report->slo.e2e_s);
    buf_puts(out, "},\"stages\":[");
    for (size_t i = 0; i < report->count; i++) {
        buf_puts(out, i ? "," : "");
        put_stage(&report->stages[i], i, out);
    }
    buf_puts(out, "],");
    if (report->load_name) {
        put_text(out, "raised", report->load_name);
        buf_printf(out, ",\"knee\":%zu,\"knee_found\":%s,", report->knee,
                   report->found_knee ? "true" : "false");
    }
    if (report->verdict_count)
        put_verdicts(report, out);
    buf_puts(out, "\"definitions\":{");
    for (const struct load_definition *d = load_definitions; d->name; d++) {
        buf_puts(out, d == load_definitions ? "" : ",");
        put_text(out, d->name, d->text);
    }
    buf_puts(out, "}}\n");
}

/* ---- Text */

static void put_dist(struct buf *out, const char *name, const struct load_dist *dist)
{
    if (dist->count)
        buf_printf(out, "  %-26s %10.1f %10.1f %10.1f %10.1f ms\n", name, dist->p50, dist->p95, dist->p99,
                   dist->max);
}

static void put_failures(const struct load_stage *stage, struct buf *out)
{
    for (size_t i = LOAD_OK + 1; i < LOAD_UNFINISHED; i++)
        if (stage->summary.errors[i] > 0)
            buf_printf(out, "  %-26s %10.0f %s%s\n", load_error_names[i], stage->summary.errors[i],
                       stage->run->words[i][0] ? "  " : "", stage->run->words[i]);
}

void load_put_load_name(const struct load_params *p, struct buf *out)
{
    if (p->mode == LOAD_OPEN)
        buf_printf(out, "%g requests/s, Poisson", p->rate_per_s);
    else if (p->mode == LOAD_REPLAY)
        buf_printf(out, "replay at speed %g", p->speed);
    else
        buf_printf(out, "%zu %s%s", p->concurrency, p->mode == LOAD_AGENTS ? "agent" : "client",
                   p->concurrency > 1 ? "s" : "");
}

static void put_stage_text(const struct load_stage *stage, struct buf *out)
{
    const struct load_summary *s = &stage->summary;
    buf_puts(out, stage->name ? stage->name : "");
    buf_puts(out, stage->name ? ": " : "");
    load_put_load_name(&stage->params, out);
    buf_printf(out, ", %.1f s%s%s\n", s->seconds, stage->run->was_interrupted ? ", interrupted" : "",
               stage->run->was_saturated ? ", stopped: over-saturated" : "");
    buf_printf(out,
               "  %.0f requests: %.0f whole, %.0f failed, %.0f unfinished; in flight %.1f mean, %.0f most\n",
               s->requests, s->succeeded, s->failed, s->unfinished, s->in_flight_mean, s->in_flight_max);
    put_failures(stage, out);
    if (s->succeeded <= 0)
        return;
    buf_printf(out, "  %.2f requests/s, %.1f tokens/s out", s->requests_per_s, s->tokens_out_per_s);
    if (isfinite(s->tokens_in_per_s))
        buf_printf(out, ", %.1f tokens/s in", s->tokens_in_per_s);
    if (isfinite(s->stream_tokens_per_s))
        buf_printf(out, ", one stream %.1f tokens/s", s->stream_tokens_per_s);
    buf_printf(out, " (counted by: %s)\n", load_counted_words(s));
    if (isfinite(s->goodput_percent))
        buf_printf(out, "  goodput %.1f %% of requests, %.2f requests/s within the SLOs\n",
                   s->goodput_percent, s->goodput_per_s);
    buf_printf(out, "  %-26s %10s %10s %10s %10s\n", "", "p50", "p95", "p99", "most");
    put_dist(out, "time to first token", &s->ttft);
    put_dist(out, "time per output token", &s->tpot);
    put_dist(out, "inter-token latency", &s->itl);
    put_dist(out, "end to end", &s->e2e);
    put_dist(out, "late (in the above)", &s->late);
}

static void put_sweep(const struct load_report *report, struct buf *out)
{
    buf_printf(out, "%-20s %10s %12s %12s %12s %12s %8s\n", "load", "in flight", "tokens/s", "requests/s",
               "TTFT p50 ms", "TTFT p95 ms", "failed");
    for (size_t i = 0; i < report->count; i++) {
        const struct load_summary *s = &report->stages[i].summary;
        buf_printf(out, "%-20s %10.1f %12.1f %12.2f %12.1f %12.1f %8.0f%s\n", report->stages[i].name,
                   s->in_flight_mean, s->tokens_out_per_s, s->requests_per_s, s->ttft.p50, s->ttft.p95,
                   s->failed, i == report->knee ? "  <- knee" : "");
    }
    if (report->found_knee)
        buf_printf(out, "over-saturated at %s; the knee is at %s\n", report->stages[report->count - 1].name,
                   report->stages[report->knee].name);
    else
        buf_printf(out, "not over-saturated yet: sweep further\n");
}

static void put_criteria(const struct load_report *report, struct buf *out)
{
    buf_printf(out, "%-34s %-34s %12s  %s\n", "test", "wanted", "measured", "verdict");
    for (size_t i = 0; i < report->verdict_count; i++) {
        const struct load_verdict *v = &report->verdicts[i];
        char measured[32] = "nothing";
        if (isfinite(v->measured))
            snprintf(measured, sizeof measured, "%.2f", v->measured);
        buf_printf(out, "%-34s %-34s %12s  ", v->test, v->want->text, measured);
        load_put_verdict(v, out);
        buf_putc(out, '\n');
    }
}

void load_put_text(const struct load_report *report, struct buf *out)
{
    buf_printf(out, "%s, model %s\n", report->stages[0].params.target.url,
               report->stages[0].params.target.model);
    if (report->load_name)
        put_sweep(report, out);
    for (size_t i = 0; !report->load_name && i < report->count; i++)
        put_stage_text(&report->stages[i], out);
    if (report->verdict_count)
        put_criteria(report, out);
}
