/* What the station did, for Prometheus.
 *
 * Two vocabularies, so that dashboards made for others work: the engine's as vLLM names it, the gateway's as
 * OpenTelemetry's gen_ai conventions name it in Prometheus spelling. Labels are ours or the configuration's,
 * never text from a request: each series is a place in an array sized when the gateway opens.
 *
 * Counters of tokens and finished requests come from the engines themselves; histograms are kept here. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "gateway/gateway_int.h"

#define BOUNDS_MAX 18
#define STATUS_MAX 600

struct bounds {
    size_t count;
    double le[BOUNDS_MAX];
};

static const struct bounds latency_bounds = {
    16,
    {0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}};
static const struct bounds per_token_bounds = {
    14, {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1}};
static const struct bounds token_bounds = {
    14, {1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864}};
static const struct bounds cache_bounds = {10, {1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1}};
static const struct bounds overhead_bounds = {10,
                                              {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2}};

struct histogram {
    uint64_t buckets[BOUNDS_MAX + 1]; /* not cumulative; the last is +Inf */
    double sum;
};

struct operation_metrics {
    struct histogram duration[OUTCOME_COUNT];
    struct histogram first_token, per_token, input_tokens, output_tokens;
};

struct model_metrics {
    struct operation_metrics operations[OPERATION_COUNT];
    struct histogram queue, prefill, decode, per_token;
    uint64_t prompt_tokens, cached_tokens;
};

struct metrics {
    struct model_metrics *models;
    size_t model_count;
    struct histogram overhead, cache_wait;
    uint64_t aborts_by_client, aborts_by_station, escalations, continuations;
    uint64_t fallbacks[CHAT_CAUSE_COUNT];
    uint64_t statuses[STATUS_MAX];
};

static const char *const operation_names[OPERATION_COUNT] = {"chat", "text_completion", "embeddings"};

struct metrics *metrics_create(size_t model_count)
{
    struct metrics *metrics = mem_calloc(1, sizeof *metrics);
    struct model_metrics *models = mem_calloc(model_count, sizeof *models);
    if (!metrics || !models) {
        mem_free(metrics);
        mem_free(models);
        return NULL;
    }
    metrics->models = models;
    metrics->model_count = model_count;
    return metrics;
}

void metrics_free(struct metrics *metrics)
{
    if (!metrics)
        return;
    mem_free(metrics->models);
    mem_free(metrics);
}

/* ---- Counting */

static void observe(struct histogram *histogram, const struct bounds *bounds, double value)
{
    size_t i = 0;
    while (i < bounds->count && value > bounds->le[i])
        i++;
    histogram->buckets[i]++;
    histogram->sum += value;
}

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

void metrics_answer(struct metrics *metrics, const struct answer_sample *answer)
{
    struct model_metrics *model = &metrics->models[answer->model];
    struct operation_metrics *operation = &model->operations[answer->operation];
    observe(&operation->duration[answer->outcome], &latency_bounds, seconds(answer->duration_ns));
    observe(&metrics->overhead, &overhead_bounds, seconds(answer->overhead_ns));
    if (answer->stream_broken)
        ++*(answer->outcome == OUTCOME_CLIENT_GONE ? &metrics->aborts_by_client
                                                   : &metrics->aborts_by_station);
    if (answer->first_token_ns)
        observe(&operation->first_token, &latency_bounds, seconds(answer->first_token_ns));
    if (answer->outcome != OUTCOME_OK)
        return;
    model->prompt_tokens += answer->prompt_tokens;
    model->cached_tokens += answer->cached_tokens;
    observe(&operation->input_tokens, &token_bounds, (double)answer->prompt_tokens);
    observe(&operation->output_tokens, &token_bounds, (double)answer->completion_tokens);
    if (answer->completion_tokens > 1 && answer->duration_ns > answer->first_token_ns)
        observe(&operation->per_token, &per_token_bounds,
                seconds(answer->duration_ns - answer->first_token_ns) /
                    (double)(answer->completion_tokens - 1));
}

void metrics_cache_wait(struct metrics *metrics, uint64_t ns)
{
    observe(&metrics->cache_wait, &cache_bounds, seconds(ns));
}

void metrics_choice(struct metrics *metrics, size_t index, const struct choice_sample *choice)
{
    struct model_metrics *model = &metrics->models[index];
    observe(&model->queue, &latency_bounds, seconds(choice->queue_ns));
    observe(&model->prefill, &latency_bounds, seconds(choice->prefill_ns));
    observe(&model->decode, &latency_bounds, seconds(choice->decode_ns));
    if (choice->tokens > 1)
        observe(&model->per_token, &per_token_bounds,
                seconds(choice->decode_ns) / (double)(choice->tokens - 1));
}

void metrics_status(struct metrics *metrics, int http_status)
{
    if (http_status >= 0 && http_status < STATUS_MAX)
        metrics->statuses[http_status]++;
}

void metrics_fallback(struct metrics *metrics, enum chat_cause cause)
{
    metrics->fallbacks[cause]++;
}

void metrics_escalation(struct metrics *metrics)
{
    metrics->escalations++;
}

void metrics_continuation(struct metrics *metrics)
{
    metrics->continuations++;
}

/* ---- Writing */

/* A label value: quotes, backslashes and newlines escaped. */
static void write_label(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\n')
            buf_puts(out, "\\n");
        else if (*value == '"' || *value == '\\')
            buf_printf(out, "\\%c", *value);
        else
            buf_putc(out, *value);
    }
    buf_putc(out, '"');
}

static void write_type(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* `labels` is what stands in the braces before le; it may be "". */
static void write_histogram(struct buf *out, const char *name, const char *labels,
                            const struct histogram *histogram, const struct bounds *bounds)
{
    uint64_t count = 0;
    const char *separator = labels[0] ? "," : "", *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";
    for (size_t i = 0; i < bounds->count; i++) {
        count += histogram->buckets[i];
        buf_printf(out, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, labels, separator, bounds->le[i],
                   (unsigned long long)count);
    }
    count += histogram->buckets[bounds->count];
    buf_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, separator, (unsigned long long)count);
    buf_printf(out, "%s_sum%s%s%s %.9g\n", name, open, labels, close, histogram->sum);
    buf_printf(out, "%s_count%s%s%s %llu\n", name, open, labels, close, (unsigned long long)count);
}

static bool is_empty(const struct histogram *histogram, const struct bounds *bounds)
{
    for (size_t i = 0; i <= bounds->count; i++)
        if (histogram->buckets[i])
            return false;
    return true;
}

static void merge(struct histogram *into, const struct histogram *from)
{
    for (size_t i = 0; i <= BOUNDS_MAX; i++)
        into->buckets[i] += from->buckets[i];
    into->sum += from->sum;
}

/* ---- The engine's vocabulary */

enum { ENGINE_VALUES = 11 };

static const struct {
    const char *name, *type, *help, *label; /* label: more of them, or "" */
} engine_rows[ENGINE_VALUES] = {
    {"vllm:num_requests_running", "gauge", "Sequences decoding.", ""},
    {"vllm:num_requests_waiting", "gauge", "Sequences waiting.", ""},
    {"vllm:kv_cache_usage_perc", "gauge", "KV cache in use, 0 to 1.", ""},
    {"vllm:num_preemptions_total", "counter", "Sequences put back and recomputed.", ""},
    {"vllm:prompt_tokens_total", "counter", "Prompt tokens.", ""},
    {"vllm:generation_tokens_total", "counter", "Generated tokens.", ""},
    {"vllm:request_success_total", "counter", "Finished sequences by reason.", ",finished_reason=\"stop\""},
    {"vllm:request_success_total", "", "", ",finished_reason=\"length\""},
    {"vllm:request_success_total", "", "", ",finished_reason=\"abort\""},
    {"vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.", ""},
    {"vllm:prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.", ""},
};

/* In the order of the rows. */
static void read_engine(const struct provider *provider, const struct model_metrics *model,
                        double out[ENGINE_VALUES])
{
    struct engine *engine = provider_engine(provider);
    struct engine_stats s = {0};
    if (engine)
        engine_stats_read(engine, &s);
    const double values[ENGINE_VALUES] = {
        (double)s.running,
        (double)s.waiting,
        s.kv_pages_total ? (double)s.kv_pages_used / (double)s.kv_pages_total : 0,
        (double)s.preemptions,
        (double)s.prompt_tokens,
        (double)s.generated_tokens,
        (double)s.finished_stop,
        (double)s.finished_length,
        (double)s.finished_cancelled,
        (double)model->prompt_tokens,
        (double)model->cached_tokens,
    };
    memcpy(out, values, sizeof values);
}

/* Prometheus wants all series of a name together, so the outer loop is over names. */
static void write_engine(const struct metrics *metrics, const struct gateway *gateway, char **labels,
                         struct buf *out)
{
    double(*values)[ENGINE_VALUES] = mem_calloc(metrics->model_count, sizeof *values);
    for (size_t i = 0; values && i < metrics->model_count; i++)
        read_engine(gateway->models[i].provider, &metrics->models[i], values[i]);
    for (size_t row = 0; values && row < ENGINE_VALUES; row++) {
        if (engine_rows[row].type[0])
            write_type(out, engine_rows[row].name, engine_rows[row].type, engine_rows[row].help);
        for (size_t i = 0; i < metrics->model_count; i++)
            buf_printf(out, "%s{%s%s} %.15g\n", engine_rows[row].name, labels[i], engine_rows[row].label,
                       values[i][row]);
    }
    mem_free(values);
}

/* What was predicted from physics beside what the model does: whoever predicts is to be checked. */
static void write_speeds(const struct metrics *metrics, const struct gateway *gateway, char **labels,
                         struct buf *out)
{
    static const char *const names[2] = {"pharos_prefill_tokens_per_second",
                                         "pharos_decode_tokens_per_second"};
    static const char *const help[2] = {"Speed at prompts, predicted and measured (0: not known yet).",
                                        "Speed of one answer, predicted and measured (0: not known yet)."};
    for (size_t kind = 0; kind < 2; kind++) {
        write_type(out, names[kind], "gauge", help[kind]);
        for (size_t i = 0; i < metrics->model_count; i++) {
            const struct model_speed *speed = &gateway->speeds[i];
            struct provider_state state;
            provider_state(gateway->models[i].provider, &state);
            buf_printf(out, "%s{%s,source=\"predicted\"} %.6g\n%s{%s,source=\"measured\"} %.6g\n",
                       names[kind], labels[i],
                       kind ? speed->predicted_decode_tokens_s : speed->predicted_prefill_tokens_s,
                       names[kind], labels[i], kind ? state.decode_tokens_s : state.prefill_tokens_s);
        }
    }
}

struct engine_histogram {
    const char *name, *help;
    const struct bounds *bounds;
    size_t offset;    /* in struct model_metrics, */
    size_t operation; /* or in struct operation_metrics, plus 1: summed over operations */
};

static const struct engine_histogram engine_histograms[] = {
    {"vllm:time_to_first_token_seconds", "Time to the first token.", &latency_bounds, 0,
     offsetof(struct operation_metrics, first_token) + 1},
    {"vllm:time_per_output_token_seconds", "Time a token after the first.", &per_token_bounds,
     offsetof(struct model_metrics, per_token), 0},
    {"vllm:e2e_request_latency_seconds", "Whole requests.", &latency_bounds, 0,
     offsetof(struct operation_metrics, duration) + 1},
    {"vllm:request_queue_time_seconds", "Waiting for a place.", &latency_bounds,
     offsetof(struct model_metrics, queue), 0},
    {"vllm:request_prefill_time_seconds", "Reading the prompt.", &latency_bounds,
     offsetof(struct model_metrics, prefill), 0},
    {"vllm:request_decode_time_seconds", "Writing the reply.", &latency_bounds,
     offsetof(struct model_metrics, decode), 0},
};

static void write_engine_histograms(const struct metrics *metrics, char **labels, struct buf *out)
{
    for (size_t row = 0; row < sizeof engine_histograms / sizeof engine_histograms[0]; row++) {
        const struct engine_histogram *h = &engine_histograms[row];
        write_type(out, h->name, "histogram", h->help);
        for (size_t i = 0; i < metrics->model_count; i++) {
            const struct model_metrics *m = &metrics->models[i];
            struct histogram sum = {0};
            if (!h->operation)
                merge(&sum, (const void *)((const char *)m + h->offset));
            for (size_t o = 0; h->operation && o < OPERATION_COUNT; o++)
                merge(&sum, (const void *)((const char *)&m->operations[o] + h->operation - 1));
            write_histogram(out, h->name, labels[i], &sum, h->bounds);
        }
    }
}

/* ---- The gateway's vocabulary */

struct gen_ai_histogram {
    const char *name, *help, *label;
    const struct bounds *bounds;
    size_t offset; /* in struct operation_metrics */
};

#define DURATION(outcome) \
    (offsetof(struct operation_metrics, duration) + (outcome) * sizeof(struct histogram))

static const struct gen_ai_histogram gen_ai_histograms[] = {
    {"gen_ai_server_request_duration_seconds", "Whole requests.", "", &latency_bounds, DURATION(OUTCOME_OK)},
    {"gen_ai_server_request_duration_seconds", "", "invalid_request", &latency_bounds,
     DURATION(OUTCOME_INVALID)},
    {"gen_ai_server_request_duration_seconds", "", "rate_limit", &latency_bounds,
     DURATION(OUTCOME_RATE_LIMITED)},
    {"gen_ai_server_request_duration_seconds", "", "server_error", &latency_bounds, DURATION(OUTCOME_SERVER)},
    {"gen_ai_server_request_duration_seconds", "", "client_gone", &latency_bounds,
     DURATION(OUTCOME_CLIENT_GONE)},
    {"gen_ai_server_time_to_first_token_seconds", "Time to the first token.", "", &latency_bounds,
     offsetof(struct operation_metrics, first_token)},
    {"gen_ai_server_time_per_output_token_seconds", "Time a token after the first.", "", &per_token_bounds,
     offsetof(struct operation_metrics, per_token)},
    {"gen_ai_client_token_usage", "Tokens a request.", "input", &token_bounds,
     offsetof(struct operation_metrics, input_tokens)},
    {"gen_ai_client_token_usage", "", "output", &token_bounds,
     offsetof(struct operation_metrics, output_tokens)},
};

static void write_gen_ai_labels(struct buf *out, const struct gateway *gateway, size_t model,
                                size_t operation, const struct gen_ai_histogram *h)
{
    const struct provider *provider = gateway->models[model].provider;
    write_label(out, "gen_ai_operation_name", operation_names[operation]);
    buf_putc(out, ',');
    write_label(out, "gen_ai_provider_name", provider_name(provider));
    buf_putc(out, ',');
    write_label(out, "gen_ai_request_model", provider_model_id(provider));
    buf_putc(out, ',');
    write_label(out, "gen_ai_response_model", provider_model_id(provider));
    if (h->label[0]) {
        buf_putc(out, ',');
        write_label(out, h->bounds == &token_bounds ? "gen_ai_token_type" : "error_type", h->label);
    }
}

static void write_gen_ai(const struct metrics *metrics, const struct gateway *gateway, struct buf *out)
{
    struct buf labels;
    buf_init(&labels, 1 << 16);
    for (size_t row = 0; row < sizeof gen_ai_histograms / sizeof gen_ai_histograms[0]; row++) {
        const struct gen_ai_histogram *h = &gen_ai_histograms[row];
        if (h->help[0])
            write_type(out, h->name, "histogram", h->help);
        for (size_t i = 0; i < metrics->model_count; i++)
            for (size_t o = 0; o < OPERATION_COUNT; o++) {
                const struct histogram *histogram =
                    (const void *)((const char *)&metrics->models[i].operations[o] + h->offset);
                if (is_empty(histogram, h->bounds))
                    continue;
                buf_clear(&labels);
                write_gen_ai_labels(&labels, gateway, i, o, h);
                if (buf_status(&labels) == PH_OK)
                    write_histogram(out, h->name, labels.data, histogram, h->bounds);
            }
    }
    buf_release(&labels);
}

/* ---- Ours */

static void write_routing(const struct metrics *metrics, struct buf *out)
{
    write_type(out, "pharos_fallbacks_total", "counter",
               "Attempts that failed before another one was made, by cause.");
    for (int i = 0; i < CHAT_CAUSE_COUNT; i++)
        buf_printf(out, "pharos_fallbacks_total{cause=\"%s\"} %llu\n", chat_cause_name((enum chat_cause)i),
                   (unsigned long long)metrics->fallbacks[i]);
    write_type(out, "pharos_escalations_total", "counter", "Cheap answers that were not trusted.");
    buf_printf(out, "pharos_escalations_total %llu\n", (unsigned long long)metrics->escalations);
    write_type(out, "pharos_continuations_total", "counter",
               "Answers continued by another attempt after their first token.");
    buf_printf(out, "pharos_continuations_total %llu\n", (unsigned long long)metrics->continuations);
}

/* Prometheus wants all series of a name together, so each row is written for all engines. */
static void write_engine_row(const struct gateway *gateway, char **labels, struct buf *out, const char *name,
                             const char *type, const char *help, size_t offset)
{
    bool any = false;
    for (size_t i = 0; i < gateway->model_count; i++) {
        struct provider_engine_stats s;
        if (!provider_engine_stats(gateway->models[i].provider, &s))
            continue;
        if (!any)
            write_type(out, name, type, help);
        any = true;
        buf_printf(out, "%s{%s} %llu\n", name, labels[i],
                   (unsigned long long)*(const uint64_t *)(const void *)((const char *)&s + offset));
    }
}

static void write_engine_ends(const struct gateway *gateway, char **labels, struct buf *out)
{
    bool any = false;
    for (size_t i = 0; i < gateway->model_count; i++) {
        struct provider_engine_stats s;
        if (!provider_engine_stats(gateway->models[i].provider, &s))
            continue;
        if (!any)
            write_type(out, "pharos_engine_ends_total", "counter", "Ends of started engines, by reason.");
        any = true;
        for (int end = 0; end < ENGINE_END_COUNT; end++)
            buf_printf(out, "pharos_engine_ends_total{%s,reason=\"%s\"} %llu\n", labels[i],
                       provider_engine_end_name((enum provider_engine_end)end),
                       (unsigned long long)s.ends[end]);
    }
}

static void write_engines(const struct gateway *gateway, char **labels, struct buf *out)
{
    static const struct {
        const char *name, *type, *help;
        size_t offset; /* of an uint64_t */
    } rows[] = {{"pharos_engine_up", "gauge", "1: the started engine is ready.",
                 offsetof(struct provider_engine_stats, running)},
                {"pharos_engine_starts_total", "counter", "Engines started.",
                 offsetof(struct provider_engine_stats, starts)},
                {"pharos_engine_restarts_total", "counter", "Of them, after a death.",
                 offsetof(struct provider_engine_stats, restarts)},
                {"pharos_engine_requests_waiting", "gauge", "Requests that wait for an engine to start.",
                 offsetof(struct provider_engine_stats, waiting)},
                {"pharos_engine_waits_for_memory", "gauge",
                 "1: it waits for others to stop or to become idle.",
                 offsetof(struct provider_engine_stats, waits_for_memory)},
                {"pharos_engine_memory_bytes", "gauge", "What its processes have, as last measured.",
                 offsetof(struct provider_engine_stats, memory)},
                {"pharos_engine_memory_need_bytes", "gauge", "What it counts for when it starts; 0: unknown.",
                 offsetof(struct provider_engine_stats, memory_need)}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        write_engine_row(gateway, labels, out, rows[i].name, rows[i].type, rows[i].help, rows[i].offset);
    write_engine_ends(gateway, labels, out);
}

struct plain_metric {
    const char *name, *type, *help;
    uint64_t value;
};

static void write_plain(struct buf *out, const struct plain_metric *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        write_type(out, rows[i].name, rows[i].type, rows[i].help);
        buf_printf(out, "%s %llu\n", rows[i].name, (unsigned long long)rows[i].value);
    }
}

static void write_redis(const struct metrics *metrics, const struct gateway *gateway,
                        const struct cache_stats *s, struct buf *out)
{
    struct redis_stats r;
    redis_client_stats(gateway->redis, &r);
    const struct plain_metric rows[] = {
        {"pharos_cache_redis_up", "gauge", "Is there a connection to the shared cache?", r.is_ready},
        {"pharos_cache_redis_hits_total", "counter", "Hits that came from it.", s->redis_hits},
        {"pharos_cache_redis_stores_total", "counter", "Answers that it took.", r.stored},
        {"pharos_cache_redis_refused_total", "counter", "Values found there that are no answers of ours.",
         s->redis_refused},
        {"pharos_cache_redis_late_total", "counter", "Look-ups that it did not answer in time.", r.late},
        {"pharos_cache_redis_skipped_total", "counter",
         "Look-ups and answers not sent to it, because it was gone or late.", r.skipped},
        {"pharos_cache_redis_connects_total", "counter", "Connections made.", r.connects},
        {"pharos_cache_redis_failures_total", "counter", "Connections that failed or ended.", r.failures},
        {"pharos_cache_redis_errors_total", "counter", "Errors that it replied.", r.refusals}};
    write_plain(out, rows, sizeof rows / sizeof *rows);
    write_type(out, "pharos_cache_redis_seconds", "histogram", "Time that requests waited for it.");
    write_histogram(out, "pharos_cache_redis_seconds", "", &metrics->cache_wait, &cache_bounds);
}

static void write_cache(const struct metrics *metrics, const struct gateway *gateway, struct buf *out)
{
    struct cache_stats s;
    if (!gateway->cache)
        return;
    cache_read_stats(gateway->cache, &s);
    const struct plain_metric rows[] = {
        {"pharos_cache_hits_total", "counter", "Requests answered from the cache.", s.hits},
        {"pharos_cache_misses_total", "counter", "Requests whose answer was looked for in vain.", s.misses},
        {"pharos_cache_stores_total", "counter", "Answers kept.", s.stored},
        {"pharos_cache_evictions_total", "counter", "Answers dropped for room.", s.evicted},
        {"pharos_cache_expirations_total", "counter", "Answers dropped when found too old.", s.expired},
        {"pharos_cache_bytes", "gauge", "Memory in use.", s.bytes},
        {"pharos_cache_bytes_max", "gauge", "Memory that may be used.", s.bytes_max},
        {"pharos_cache_entries", "gauge", "Answers there.", s.entries}};
    write_plain(out, rows, sizeof rows / sizeof *rows);
    if (gateway->redis)
        write_redis(metrics, gateway, &s, out);
}

static void write_money(const struct gateway *gateway, struct buf *out)
{
    write_type(out, "pharos_cost_usd", "gauge", "Spent this month, by tier.");
    for (int i = 0; i < LEDGER_TIER_COUNT; i++) {
        const char *name = ledger_tier_name((enum ledger_tier)i);
        struct ledger_sum sum = ledger_sum(gateway->ledger, LEDGER_BY_TIER, name);
        buf_printf(out, "pharos_cost_usd{tier=\"%s\"} %.9g\n", name, ledger_usd(sum.spent_pico));
    }
    write_type(out, "pharos_budget_left_usd", "gauge",
               "Neither spent nor held by running requests, this month, by tier.");
    for (int i = 0; i < LEDGER_TIER_COUNT; i++) {
        const char *name = ledger_tier_name((enum ledger_tier)i);
        struct ledger_sum sum = ledger_sum(gateway->ledger, LEDGER_BY_TIER, name);
        if (sum.limit_pico >= 0)
            buf_printf(out, "pharos_budget_left_usd{tier=\"%s\"} %.9g\n", name,
                       ledger_usd(sum.limit_pico - sum.spent_pico - sum.held_pico));
    }
}

static void write_own(const struct metrics *metrics, const struct gateway *gateway, struct buf *out)
{
    struct http_stats http = {0};
    write_type(out, "pharos_overhead_seconds", "histogram",
               "Time from a request's arrival to the model's queue.");
    write_histogram(out, "pharos_overhead_seconds", "", &metrics->overhead, &overhead_bounds);
    write_type(out, "pharos_stream_aborts_total", "counter", "Replies cut before their end, by side.");
    buf_printf(out,
               "pharos_stream_aborts_total{side=\"client\"} %llu\n"
               "pharos_stream_aborts_total{side=\"station\"} %llu\n",
               (unsigned long long)metrics->aborts_by_client, (unsigned long long)metrics->aborts_by_station);
    write_type(out, "pharos_http_responses_total", "counter", "Replies by HTTP status.");
    for (int i = 0; i < STATUS_MAX; i++)
        if (metrics->statuses[i])
            buf_printf(out, "pharos_http_responses_total{status=\"%d\"} %llu\n", i,
                       (unsigned long long)metrics->statuses[i]);
    if (gateway->server)
        http_server_stats(gateway->server, &http);
    write_type(out, "pharos_http_connections", "gauge", "Open connections.");
    buf_printf(out, "pharos_http_connections %zu\n", http.connections);
    write_type(out, "pharos_http_exchanges", "gauge", "Requests being answered.");
    buf_printf(out, "pharos_http_exchanges %zu\n", http.exchanges);
    write_type(out, "pharos_http_bytes_total", "counter", "Bytes read and written.");
    buf_printf(
        out,
        "pharos_http_bytes_total{direction=\"in\"} %llu\npharos_http_bytes_total{direction=\"out\"} %llu\n",
        (unsigned long long)http.bytes_read, (unsigned long long)http.bytes_written);
}

static char *model_label(const char *id)
{
    struct buf text;
    buf_init(&text, 1 << 16);
    write_label(&text, "model_name", id);
    return buf_take(&text);
}

static void write_shared_memory(const struct memory_stats *m, struct buf *out)
{
    const struct plain_metric rows[] = {
        {"pharos_memory_redis_up", "gauge", "Is there a connection to the Redis that shares conversations?",
         m->redis.is_ready},
        {"pharos_memory_redis_hits_total", "counter", "Conversations that came from it.", m->shared_hits},
        {"pharos_memory_redis_misses_total", "counter", "Conversations that it did not have, or not in time.",
         m->shared_misses},
        {"pharos_memory_redis_refused_total", "counter",
         "Values found there that are not the conversation as it is stored.", m->shared_refused},
        {"pharos_memory_redis_stores_total", "counter", "Conversations that it took.", m->redis.stored},
        {"pharos_memory_redis_late_total", "counter", "Look-ups that it did not answer in time.",
         m->redis.late},
        {"pharos_memory_redis_skipped_total", "counter",
         "Look-ups and conversations not sent to it, because it was gone or late.", m->redis.skipped},
        {"pharos_memory_redis_connects_total", "counter", "Connections made.", m->redis.connects},
        {"pharos_memory_redis_failures_total", "counter", "Connections that failed or ended.",
         m->redis.failures},
        {"pharos_memory_redis_errors_total", "counter", "Errors that it replied.", m->redis.refusals}};
    write_plain(out, rows, sizeof rows / sizeof *rows);
}

static void write_memory(const struct gateway *gateway, struct buf *out)
{
    struct memory_stats m;
    if (!gateway->memory)
        return;
    memory_stats_read(gateway->memory, &m);
    const struct plain_metric rows[] = {
        {"pharos_memory_users", "gauge", "Users of whose conversations something is in memory.", m.users},
        {"pharos_memory_bytes", "gauge", "Memory that their indexes and conversations take.", m.bytes},
        {"pharos_memory_turns_total", "counter", "Requests that belonged to a conversation.", m.turns},
        {"pharos_memory_hits_total", "counter", "Of them, those whose conversation was in memory.", m.hits}};
    write_plain(out, rows, sizeof rows / sizeof rows[0]);
    if (m.is_shared)
        write_shared_memory(&m, out);
}

void metrics_write(const struct metrics *metrics, const struct gateway *gateway, struct buf *out)
{
    char **labels = mem_calloc(metrics->model_count, sizeof *labels);
    bool ok = labels != NULL;
    for (size_t i = 0; i < metrics->model_count && ok; i++) {
        labels[i] = model_label(provider_model_id(gateway->models[i].provider));
        ok = labels[i] != NULL;
    }
    if (ok) {
        write_engine(metrics, gateway, labels, out);
        write_speeds(metrics, gateway, labels, out);
        write_engine_histograms(metrics, labels, out);
        write_engines(gateway, labels, out);
    }
    write_gen_ai(metrics, gateway, out);
    write_own(metrics, gateway, out);
    write_routing(metrics, out);
    write_cache(metrics, gateway, out);
    write_memory(gateway, out);
    write_money(gateway, out);
    if (gateway->more_metrics)
        gateway->more_metrics(gateway->more_metrics_ud, out);
    for (size_t i = 0; labels && i < metrics->model_count; i++)
        mem_free(labels[i]);
    mem_free(labels);
}
