/* The figures of a run, from its samples and nothing else; and what a series of runs says together.
 *
 * Percentiles are exact: every value is kept and sorted. The window of all rates is from the first intended
 * send to the last end, of measured requests only; tokens count where the answer was whole. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/values.h"
#include "ops/load_int.h"

#define KNEE_SHARE 0.95
#define RISE 1.1            /* by less, noise might have done it */
#define GAIN 1.05           /* more throughput than that is worth the load */
#define DROWNING_WINDOWS 10 /* seconds looked at */
#define DROWNING_RISES 7    /* of the steps between them */
#define DROWNING_TIMES 2.0  /* and so much more in the end */

const char *const load_error_names[LOAD_ERROR_COUNT] = {"ok",        "refused",  "timeout",   "http_429",
                                                        "http_4xx",  "http_5xx", "in_stream", "cut",
                                                        "bad_reply", "empty",    "ours",      "unfinished"};

#define METRIC(name_, member_)                                            \
    {                                                                     \
        .name = (name_), .offset = offsetof(struct load_summary, member_) \
    }
#define METRICS_OF(name_, member_)                                                  \
    METRIC(name_ "_mean_ms", member_.mean), METRIC(name_ "_p50_ms", member_.p50),   \
        METRIC(name_ "_p95_ms", member_.p95), METRIC(name_ "_p99_ms", member_.p99), \
        METRIC(name_ "_max_ms", member_.max)

const struct load_metric load_metrics[] = {
    METRIC("requests", requests),
    METRIC("succeeded", succeeded),
    METRIC("failed", failed),
    METRIC("unfinished", unfinished),
    METRIC("success_percent", success_percent),
    METRIC("goodput_percent", goodput_percent),
    METRIC("goodput_per_s", goodput_per_s),
    METRIC("seconds", seconds),
    METRIC("requests_per_s", requests_per_s),
    METRIC("tokens_in", tokens_in),
    METRIC("tokens_out", tokens_out),
    METRIC("tokens_in_per_s", tokens_in_per_s),
    METRIC("tokens_out_per_s", tokens_out_per_s),
    METRIC("stream_tokens_per_s", stream_tokens_per_s),
    METRIC("in_flight_mean", in_flight_mean),
    METRIC("in_flight_max", in_flight_max),
    METRICS_OF("ttft", ttft),
    METRICS_OF("tpot", tpot),
    METRICS_OF("itl", itl),
    METRICS_OF("e2e", e2e),
    METRICS_OF("late", late),
    {.name = NULL},
};

const struct load_definition load_definitions[] = {
    {"intended send",
     "when the schedule wants a request: in a closed loop when its client is free, at a rate "
     "the moment of the Poisson process, in a replay the recorded moment divided by the "
     "speed, of an agent the end of its thinking. All latencies count from it."},
    {"late", "from the intended send to the real one: what this program, or its limit of requests in flight, "
             "added. It is within TTFT and end-to-end."},
    {"ttft",
     "time to first token: from the intended send to the first piece of text. Streamed answers only."},
    {"tpot",
     "time per output token: from the first piece to the last one, divided by the tokens less one, so "
     "the first token is not in it. One value an answer."},
    {"itl", "inter-token latency: each gap between two pieces of an answer as they arrived. Servers that put "
            "several tokens into a piece have longer gaps."},
    {"e2e", "end to end: from the intended send to the end of the answer."},
    {"percentiles",
     "p50, p95, p99: the least value that at least so many percent of all values are not above "
     "(nearest rank). Exact, from every value."},
    {"rates",
     "per second of the window from the first intended send to the last end. Tokens of whole answers "
     "only."},
    {"stream tokens/s", "what one reader sees: 1000 / median TPOT."},
    {"tokens", "as the server counts them (usage) where it does, else a piece of the stream counts as one."},
    {"success", "share of finished requests whose answer was whole and had a token. What was in flight when "
                "the run was ended counts as neither."},
    {"goodput",
     "share of finished requests that succeeded within every SLO given; and such requests a second. "
     "A figure that cannot be had (TTFT of a whole answer) is not within."},
    {"in flight",
     "mean: time from real send to end, summed over requests, divided by the window; and the most "
     "at one moment."},
    {"over-saturated",
     "more requests in flight and a longer TTFT than at the level before, for less than 5 % "
     "more throughput. The knee is the least load with 95 % of the best throughput."},
    {NULL, NULL},
};

double load_gap_s(double rate_per_s, double u)
{
    return -log1p(-u) / rate_per_s;
}

/* ---- Metrics */

double load_metric_value(const struct load_metric *metric, const struct load_summary *summary)
{
    double value;
    memcpy(&value, (const char *)summary + metric->offset, sizeof value);
    return value;
}

const struct load_metric *load_metric_find(const char *name, size_t len)
{
    for (const struct load_metric *m = load_metrics; m->name; m++)
        if (strlen(m->name) == len && memcmp(m->name, name, len) == 0)
            return m;
    return NULL;
}

/* ---- One request */

static double ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-6 : 0;
}

double load_ttft_ms(const struct load_run *run, const struct load_sample *sample)
{
    if (!sample->is_stream || !sample->chunk_count)
        return NAN;
    return ms_between(sample->intended_ns, run->chunks_ns[sample->chunk_first]);
}

double load_tpot_ms(const struct load_run *run, const struct load_sample *sample)
{
    if (!sample->is_stream || sample->chunk_count < 2 || sample->tokens_out < 2)
        return NAN;
    const uint64_t *chunks = run->chunks_ns + sample->chunk_first;
    return ms_between(chunks[0], chunks[sample->chunk_count - 1]) / (double)(sample->tokens_out - 1);
}

static bool within(double ms, double limit_s)
{
    return limit_s <= 0 || ms <= limit_s * 1e3; /* NAN is not */
}

static bool is_good(const struct load_run *run, const struct load_sample *s, const struct load_slo *slo)
{
    return s->error == LOAD_OK && within(load_ttft_ms(run, s), slo->ttft_s) &&
           /* an answer of one token has no gap to be too long */
           (s->tokens_out == 1 || within(load_tpot_ms(run, s), slo->tpot_s)) &&
           within(ms_between(s->intended_ns, s->end_ns), slo->e2e_s);
}

/* ---- Distributions */

double load_percentile(const double *sorted, size_t count, double p)
{
    if (!count)
        return NAN;
    double rank = ceil(p / 100 * (double)count);
    size_t at = rank < 1 ? 0 : (size_t)rank - 1;
    return sorted[at < count ? at : count - 1];
}

struct values {
    double *items;
    size_t count;
};

static void add(struct values *values, double value)
{
    if (isfinite(value))
        values->items[values->count++] = value;
}

static struct load_dist dist_of(struct values *values)
{
    double sum = 0;
    size_t n = values->count;
    if (!n)
        return (struct load_dist){0, NAN, NAN, NAN, NAN, NAN};
    values_sort(values->items, n);
    for (size_t i = 0; i < n; i++)
        sum += values->items[i];
    struct load_dist dist = {.count = n,
                             .mean = sum / (double)n,
                             .p50 = load_percentile(values->items, n, 50),
                             .p95 = load_percentile(values->items, n, 95),
                             .p99 = load_percentile(values->items, n, 99),
                             .max = values->items[n - 1]};
    values->count = 0;
    return dist;
}

/* Each in the same memory, one after the other. */
static void put_dists(const struct load_run *run, struct values *values, struct load_summary *out)
{
    const struct load_sample *end = run->samples + run->count;
    for (const struct load_sample *s = run->samples; s < end; s++)
        if (load_is_measured(s) && s->error == LOAD_OK)
            add(values, load_ttft_ms(run, s));
    out->ttft = dist_of(values);
    for (const struct load_sample *s = run->samples; s < end; s++)
        if (load_is_measured(s) && s->error == LOAD_OK)
            add(values, load_tpot_ms(run, s));
    out->tpot = dist_of(values);
    for (const struct load_sample *s = run->samples; s < end; s++)
        for (size_t i = 1; s->is_stream && load_is_measured(s) && s->error == LOAD_OK && i < s->chunk_count;
             i++)
            add(values,
                ms_between(run->chunks_ns[s->chunk_first + i - 1], run->chunks_ns[s->chunk_first + i]));
    out->itl = dist_of(values);
    for (const struct load_sample *s = run->samples; s < end; s++)
        if (load_is_measured(s) && s->error == LOAD_OK)
            add(values, ms_between(s->intended_ns, s->end_ns));
    out->e2e = dist_of(values);
    for (const struct load_sample *s = run->samples; s < end; s++)
        if (load_is_measured(s))
            add(values, ms_between(s->intended_ns, s->sent_ns));
    out->late = dist_of(values);
    out->stream_tokens_per_s = out->tpot.p50 > 0 ? 1e3 / out->tpot.p50 : NAN;
}

/* ---- Sums */

bool load_is_measured(const struct load_sample *sample)
{
    return !sample->is_warmup;
}

struct sums {
    uint64_t first_ns, last_ns, busy_ns;
    double good;
};

static void count_sample(const struct load_run *run, const struct load_sample *s, const struct load_slo *slo,
                         struct load_summary *out, struct sums *sums)
{
    out->requests++;
    out->errors[s->error]++;
    sums->first_ns = s->intended_ns < sums->first_ns ? s->intended_ns : sums->first_ns;
    sums->last_ns = s->end_ns > sums->last_ns ? s->end_ns : sums->last_ns;
    sums->busy_ns += s->end_ns - s->sent_ns;
    if (s->error != LOAD_OK)
        return;
    out->tokens_in += (double)s->tokens_in;
    out->tokens_out += (double)s->tokens_out;
    out->counted_usage += s->counted == LOAD_COUNTED_USAGE;
    out->counted_chunks += s->counted == LOAD_COUNTED_CHUNKS;
    sums->good += is_good(run, s, slo);
}

/* The most at one moment: ends come before sends of the same moment. */
static double most_in_flight(const struct load_run *run, struct values *sent, struct values *ended)
{
    double most = 0, now = 0;
    for (size_t i = 0; i < run->count; i++)
        if (load_is_measured(&run->samples[i])) {
            sent->items[sent->count++] = (double)run->samples[i].sent_ns;
            ended->items[ended->count++] = (double)run->samples[i].end_ns;
        }
    values_sort(sent->items, sent->count);
    values_sort(ended->items, ended->count);
    for (size_t s = 0, e = 0; s < sent->count; s++) {
        for (; e < ended->count && ended->items[e] <= sent->items[s]; e++)
            now--;
        now++;
        most = now > most ? now : most;
    }
    sent->count = ended->count = 0;
    return most;
}

static void put_rates(struct load_summary *out, const struct sums *sums, const struct load_slo *slo)
{
    double finished,
        seconds = sums->last_ns > sums->first_ns ? (double)(sums->last_ns - sums->first_ns) * 1e-9 : 0;
    bool has_slo = slo->ttft_s > 0 || slo->tpot_s > 0 || slo->e2e_s > 0;
    out->seconds = seconds;
    out->succeeded = out->errors[LOAD_OK];
    out->unfinished = out->errors[LOAD_UNFINISHED];
    out->failed = out->requests - out->succeeded - out->unfinished;
    finished = out->succeeded + out->failed;
    out->success_percent = finished > 0 ? 100 * out->succeeded / finished : NAN;
    out->goodput_percent = has_slo && finished > 0 ? 100 * sums->good / finished : NAN;
    out->goodput_per_s = has_slo && seconds > 0 ? sums->good / seconds : NAN;
    out->requests_per_s = seconds > 0 ? out->succeeded / seconds : NAN;
    out->tokens_in_per_s = seconds > 0 && out->counted_usage > 0 ? out->tokens_in / seconds : NAN;
    out->tokens_out_per_s = seconds > 0 ? out->tokens_out / seconds : NAN;
    out->in_flight_mean = seconds > 0 ? (double)sums->busy_ns * 1e-9 / seconds : NAN;
}

enum ph_status load_summarize(const struct load_run *run, const struct load_slo *slo,
                              struct load_summary *out, struct ph_err *err)
{
    struct sums sums = {.first_ns = UINT64_MAX};
    size_t room = (run->count > run->chunk_count ? run->count : run->chunk_count) + 1;
    struct values values = {mem_alloc(room * sizeof(double)), 0};
    struct values more = {mem_alloc((run->count + 1) * sizeof(double)), 0};
    enum ph_status status =
        values.items && more.items
            ? PH_OK
            : ph_fail(err, PH_ERR_NOMEM, "no memory for the figures of %zu requests", run->count);
    *out = (struct load_summary){0};
    if (status == PH_OK) {
        for (size_t i = 0; i < run->count; i++)
            if (load_is_measured(&run->samples[i]))
                count_sample(run, &run->samples[i], slo, out, &sums);
        put_rates(out, &sums, slo);
        put_dists(run, &values, out);
        out->in_flight_max = most_in_flight(run, &values, &more);
    }
    mem_free(values.items);
    mem_free(more.items);
    return status;
}

/* ---- Saturation */

bool load_saturated(const struct load_level *levels, size_t count)
{
    if (count < 2)
        return false;
    const struct load_level *now = &levels[count - 1], *before = now - 1;
    double best = before->throughput;
    for (size_t i = 0; i + 1 < count; i++)
        best = levels[i].throughput > best ? levels[i].throughput : best;
    return now->in_flight > before->in_flight * RISE && now->ttft_ms > before->ttft_ms * RISE &&
           now->throughput < best * GAIN;
}

/* Of the last seconds, most must rise, and the last be far above the first: a burst comes back down. */
static bool only_rises(const struct load_level *windows, double (*value)(const struct load_level *))
{
    int rises = 0;
    for (int i = 1; i < DROWNING_WINDOWS; i++)
        rises += value(&windows[i]) > value(&windows[i - 1]);
    return rises >= DROWNING_RISES &&
           value(&windows[DROWNING_WINDOWS - 1]) > DROWNING_TIMES * value(&windows[0]);
}

static double in_flight_of(const struct load_level *level)
{
    return level->in_flight;
}

static double ttft_of(const struct load_level *level)
{
    return level->ttft_ms;
}

bool load_drowning(const struct load_level *windows, size_t count)
{
    if (count < DROWNING_WINDOWS)
        return false;
    windows += count - DROWNING_WINDOWS;
    return only_rises(windows, in_flight_of) && only_rises(windows, ttft_of);
}

size_t load_knee(const struct load_level *levels, size_t count)
{
    double best = 0;
    for (size_t i = 0; i < count; i++)
        best = levels[i].throughput > best ? levels[i].throughput : best;
    for (size_t i = 0; i < count; i++)
        if (levels[i].throughput >= best * KNEE_SHARE)
            return i;
    return 0;
}
