/* Claims, judged: each is held against what physics allows (all limits reached), against the range that such
 * hardware reaches, and against what a review made of it.
 *
 * A claim is data: what, of which model on which hardware, how many streams, from a to b. The verdict follows
 * from three numbers alone:
 *     the claim's low end beyond what physics allows            impossible
 *     its high end beyond it                                    partly impossible
 *     all of it beyond the range that such hardware reaches     optimistic
 *     all of it below that range                                too modest (for times and sizes the reverse)
 *     else                                                      plausible
 * A review is judged in the same way, and its own slips are named: a bandwidth that is a whole part of the
 * memory's (one channel of two), an aggregate of many streams offered for one, a correction that its own
 * physics contradicts. What follows from no formula here (a protocol's latency) is judged by stated
 * assumptions, and the verdict says so. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/estimate_int.h"

#define REVIEWED_CHANNEL_ERROR 0.03
#define TEXT_MAX 320
#define ROUNDING 1.02 /* claims are round numbers */

enum quantity {
    CLAIM_DECODE,
    CLAIM_TTFT,
    CLAIM_PREFILL,
    CLAIM_MEMORY,
    CLAIM_WEIGHTS,
    CLAIM_LOAD,
    CLAIM_LATENCY
};
static const char *const quantity_names[] = {"decode_tokens_per_s", "ttft_ms",    "prefill_tokens_per_s",
                                             "memory_gb",           "weights_gb", "load_s",
                                             "latency_ms",          NULL};
static const char *const quantity_units[] = {"tokens/s", "ms", "tokens/s", "GB", "GB", "s", "ms"};

struct range_row {
    double low, high;
};

struct review_row {
    double low, high, physics, gb_per_s;
    int64_t streams;
};

struct claim {
    char *name, *model, *type, *hardware, *source;
    int quantity, on;
    int64_t prompt, generate, streams, gpu_layers, context;
    double low, high;
    struct review_row review;
    struct range_row assumed;
    char *assuming;
    bool has_gpu_layers;
};

struct claims_file {
    struct config_list claims;
};

#define NUMBER(struct_, member_)                                                                       \
    {                                                                                                  \
        .key = #member_, .type = CONFIG_DOUBLE, .offset = offsetof(struct struct_, member_), .min = 0, \
        .max = 1e9                                                                                     \
    }
#define COUNT(struct_, member_, max_)                                                               \
    {                                                                                               \
        .key = #member_, .type = CONFIG_INT, .offset = offsetof(struct struct_, member_), .min = 0, \
        .max = (max_)                                                                               \
    }
#define TEXT(member_)                                                                     \
    {                                                                                     \
        .key = #member_, .type = CONFIG_STRING, .offset = offsetof(struct claim, member_) \
    }

static const struct config_field review_fields[] = {
    NUMBER(review_row, low),      NUMBER(review_row, high),         NUMBER(review_row, physics),
    NUMBER(review_row, gb_per_s), COUNT(review_row, streams, 4096), {0},
};

static const struct config_field assumed_fields[] = {
    NUMBER(range_row, low),
    NUMBER(range_row, high),
    {0},
};

static const struct config_field claim_fields[] = {
    {.key = "name", .type = CONFIG_STRING, .offset = offsetof(struct claim, name), .required = true},
    TEXT(model),
    TEXT(type),
    TEXT(hardware),
    TEXT(source),
    TEXT(assuming),
    {.key = "quantity",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct claim, quantity),
     .required = true,
     .names = quantity_names},
    {.key = "on", .type = CONFIG_ENUM, .offset = offsetof(struct claim, on), .names = estimate_on_names},
    COUNT(claim, prompt, 1000000),
    COUNT(claim, generate, 1000000),
    COUNT(claim, context, 1000000),
    COUNT(claim, streams, 4096),
    COUNT(claim, gpu_layers, 512),
    {.key = "split", .type = CONFIG_BOOL, .offset = offsetof(struct claim, has_gpu_layers)},
    {.key = "low",
     .type = CONFIG_DOUBLE,
     .offset = offsetof(struct claim, low),
     .required = true,
     .min = 0,
     .max = 1e9},
    NUMBER(claim, high),
    {.key = "review",
     .type = CONFIG_STRUCT,
     .offset = offsetof(struct claim, review),
     .fields = review_fields},
    {.key = "assumed",
     .type = CONFIG_STRUCT,
     .offset = offsetof(struct claim, assumed),
     .fields = assumed_fields},
    {0},
};

static const struct config_field file_fields[] = {
    {.key = "claims",
     .type = CONFIG_LIST,
     .offset = offsetof(struct claims_file, claims),
     .required = true,
     .fields = claim_fields,
     .item_size = sizeof(struct claim)},
    {0},
};

/* ---- What physics says of it */

struct judged {
    const struct claim *claim;
    double limit; /* the best that physics allows: a most for speeds, a least for times and sizes */
    struct estimate_range range;
    bool fits, follows; /* follows from formulas, not from assumptions */
    char how[TEXT_MAX];
    const char *verdict, *review_verdict;
    char notes[4][TEXT_MAX];
    size_t note_count;
};

static bool more_is_better(int quantity)
{
    return quantity == CLAIM_DECODE || quantity == CLAIM_PREFILL;
}

static void note(struct judged *j, const char *text)
{
    if (j->note_count < sizeof j->notes / sizeof *j->notes)
        snprintf(j->notes[j->note_count++], TEXT_MAX, "%s", text);
}

/* The bandwidth that sets the pace: of the stage that reads the most time. */
static double slowest_bandwidth(const struct estimate_request *r, const struct estimate *e)
{
    double slowest = 0;
    for (size_t i = 0; i < e->stage_count; i++) {
        double bandwidth = device_bandwidth(r, e->stages[i].device);
        if (slowest == 0 || bandwidth < slowest)
            slowest = bandwidth;
    }
    return slowest;
}

static void explain_decode(struct judged *j, const struct estimate_request *r, const struct estimate *e)
{
    size_t len = 0;
    for (size_t i = 0; i < e->stage_count && len < TEXT_MAX; i++) {
        const struct estimate_stage *s = &e->stages[i];
        const struct estimate_line *line = NULL;
        size_t stage = 0;
        for (size_t k = 0; k < e->decode.count && !line; k++)
            if (e->decode.lines[k].depth == 1 && stage++ == i)
                line = &e->decode.lines[k];
        len += (size_t)snprintf(j->how + len, TEXT_MAX - len, "%s%s %zu layers at %.4g GB/s: %.4g ms",
                                i ? " + " : "", device_name(r->machine, s->device), s->end - s->first,
                                device_bandwidth(r, s->device) * 1e-9, line ? (double)line->value * 1e-6 : 0);
    }
    if (len < TEXT_MAX && e->stage_count == 1)
        snprintf(j->how + len, TEXT_MAX - len, " a step; %.4g GB a token / %.4g GB/s = %.4g tokens/s at most",
                 (double)e->decode_bytes * 1e-9, device_bandwidth(r, e->stages[0].device) * 1e-9,
                 e->ceiling_tokens_per_s);
}

static struct estimate_range scaled(const struct estimate_range *v, double by)
{
    return (struct estimate_range){v->low * by, v->mid * by, v->high * by};
}

static void measure(struct judged *j, const struct estimate_request *r, const struct estimate *e)
{
    const struct estimate_model *m = r->model;
    j->fits = e->fits;
    j->follows = true;
    switch ((enum quantity)j->claim->quantity) {
    case CLAIM_DECODE:
        j->limit = e->ceiling_tokens_per_s;
        j->range = e->decode_tokens_per_s;
        explain_decode(j, r, e);
        break;
    case CLAIM_PREFILL:
        j->limit = e->ceiling_prefill_tokens_per_s;
        j->range = e->prefill_tokens_per_s;
        snprintf(j->how, TEXT_MAX, "%.3g operations a token", e->operations);
        break;
    case CLAIM_TTFT:
        j->limit = e->ceiling_prefill_tokens_per_s > 0
                       ? 1e3 * (double)r->prompt / e->ceiling_prefill_tokens_per_s
                       : 0;
        j->range = scaled(&e->prefill_s, 1e3);
        snprintf(j->how, TEXT_MAX, "a prompt of %zu tokens takes %.3g operations", r->prompt,
                 e->operations * (double)r->prompt);
        break;
    case CLAIM_MEMORY:
        j->limit = (double)m->bytes * 1e-9;
        j->range = (struct estimate_range){(double)e->memory_bytes * 0.97e-9, (double)e->memory_bytes * 1e-9,
                                           (double)e->memory_bytes * 1.10e-9};
        snprintf(j->how, TEXT_MAX, "%.4g GB of weights + %.3g GB of KV cache, buffers, program",
                 (double)m->bytes * 1e-9, (double)(e->memory_bytes - m->bytes) * 1e-9);
        break;
    case CLAIM_WEIGHTS:
        j->limit = (double)m->bytes * 1e-9;
        j->range = (struct estimate_range){j->limit * 0.99, j->limit, j->limit * 1.01};
        snprintf(j->how, TEXT_MAX, "%.4g B parameters in %s, as model files have it",
                 (double)m->params * 1e-9, m->type);
        break;
    case CLAIM_LOAD:
        j->limit = e->load_s.low;
        j->range = e->load_s;
        snprintf(j->how, TEXT_MAX, "%.4g GB / %.3g GB/s of disk", (double)m->bytes * 1e-9,
                 r->machine->disk_read_bytes_per_s * 1e-9);
        break;
    case CLAIM_LATENCY:
        break;
    }
}

/* ---- Verdicts */

static const char *verdict(const struct judged *j, double low, double high)
{
    bool up = more_is_better(j->claim->quantity);
    double limit = up ? j->limit * ROUNDING : j->limit / ROUNDING;
    if (!j->fits)
        return "does not fit";
    if (up ? low > limit : high < limit)
        return "impossible";
    if (up ? high > limit : low < limit)
        return "partly impossible";
    if (up ? low > j->range.high * ROUNDING : high * ROUNDING < j->range.low)
        return "optimistic";
    if (up ? high * ROUNDING < j->range.low : low > j->range.high * ROUNDING)
        return "too modest";
    return "plausible";
}

/* A bandwidth that is a whole part of the memory's: channels were forgotten. */
static void check_channels(struct judged *j, double bandwidth)
{
    double reviewed = j->claim->review.gb_per_s * 1e9;
    if (!(reviewed > 0) || !(bandwidth > 0))
        return;
    double parts = bandwidth / reviewed;
    char text[TEXT_MAX];
    if (parts > 1.5 && fabs(parts - round(parts)) < REVIEWED_CHANNEL_ERROR * parts)
        snprintf(text, sizeof text,
                 "the review reckons with %.4g GB/s, which is one channel of %.0f: the memory has %.4g GB/s",
                 reviewed * 1e-9, round(parts), bandwidth * 1e-9);
    else if (fabs(parts - 1) > 0.3)
        snprintf(text, sizeof text, "the review reckons with %.4g GB/s, the hardware has %.4g GB/s",
                 reviewed * 1e-9, bandwidth * 1e-9);
    else
        return;
    note(j, text);
}

static void check_review(struct judged *j, double bandwidth)
{
    const struct review_row *review = &j->claim->review;
    char text[TEXT_MAX];
    const char *unit = quantity_units[j->claim->quantity];
    if (!(review->high > 0))
        return;
    j->review_verdict = verdict(j, review->low, review->high);
    check_channels(j, bandwidth);
    int64_t streams = j->claim->streams ? j->claim->streams : 1;
    if (review->streams > streams) {
        snprintf(text, sizeof text,
                 "the review's figure is the sum of %lld streams, the claim is about %lld: one stream does "
                 "not get faster by company",
                 (long long)review->streams, (long long)streams);
        note(j, text);
    }
    if (review->physics > 0 && more_is_better(j->claim->quantity) &&
        (review->physics > 2 * review->high || review->physics < review->low)) {
        snprintf(text, sizeof text,
                 "the review contradicts itself: its own physics gives %.4g %s, its correction says %.4g to "
                 "%.4g",
                 review->physics, unit, review->low, review->high);
        note(j, text);
    }
}

static enum ph_status judge(struct judged *j, const struct estimate_data *data, struct arena *arena,
                            struct ph_err *err)
{
    const struct claim *c = j->claim;
    struct estimate_model model;
    struct machine machine;
    struct estimate_request r;
    struct estimate *e;
    double high = c->high > 0 ? c->high : c->low;
    if (c->assumed.high > 0) {
        j->fits = true;
        j->range =
            (struct estimate_range){c->assumed.low, (c->assumed.low + c->assumed.high) / 2, c->assumed.high};
        j->limit = more_is_better(c->quantity) ? c->assumed.high : c->assumed.low;
        snprintf(j->how, TEXT_MAX, "assumed: %s", c->assuming ? c->assuming : "without a reason");
        j->verdict = verdict(j, c->low, high);
        check_review(j, 0);
        return PH_OK;
    }
    if (!c->model || !c->hardware || c->quantity == CLAIM_LATENCY)
        return ph_fail(err, PH_ERR_ARG, "claim \"%.60s\": needs model and hardware, or an assumed range",
                       c->name);
    estimate_request_default(&r);
    r.prompt = c->prompt ? (size_t)c->prompt : r.prompt;
    r.generate = c->generate ? (size_t)c->generate : r.generate;
    r.context = (size_t)c->context;
    r.streams = c->streams ? (size_t)c->streams : 1;
    r.on = (enum estimate_on)c->on;
    if (c->has_gpu_layers)
        r.gpu_layers = (size_t)c->gpu_layers;
    enum ph_status status =
        estimate_model_shape(&model, arena, data, c->model, c->type ? c->type : "Q4_K_M", err);
    if (status == PH_OK)
        status = estimate_machine(data, c->hardware, &machine, err);
    r.model = &model;
    r.machine = &machine;
    if (status == PH_OK)
        status = estimate_make(&e, arena, &r, err);
    if (status != PH_OK)
        return status;
    measure(j, &r, e);
    if (!e->fits)
        note(j, e->why_not);
    j->verdict = verdict(j, c->low, high);
    check_review(j, slowest_bandwidth(&r, e));
    return PH_OK;
}

/* ---- Printing */

static void print_text(const struct judged *j, struct buf *out)
{
    const struct claim *c = j->claim;
    const char *unit = quantity_units[c->quantity];
    buf_printf(out, "%s\n", c->name);
    buf_printf(out, "  claimed    %.4g", c->low);
    if (c->high > c->low)
        buf_printf(out, " to %.4g", c->high);
    buf_printf(out, " %s%s: %s\n", unit, more_is_better(c->quantity) && c->high <= 0 ? " or more" : "",
               j->verdict);
    buf_printf(out, "  physics    %s %.4g %s (%s)\n", more_is_better(c->quantity) ? "at most" : "at least",
               j->limit, unit, j->how);
    buf_printf(out, "  corrected  %.3g to %.3g %s%s\n", j->range.low, j->range.high, unit,
               j->follows ? "" : " (an assumption, not arithmetic)");
    if (j->review_verdict)
        buf_printf(out, "  reviewed   %.4g to %.4g %s: %s\n", c->review.low, c->review.high, unit,
                   j->review_verdict);
    for (size_t i = 0; i < j->note_count; i++)
        buf_printf(out, "             %s\n", j->notes[i]);
}

static void print_member(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, ",\"%s\":", name);
    json_write_string(out, text, strlen(text));
}

static void print_json(const struct judged *j, struct buf *out)
{
    const struct claim *c = j->claim;
    buf_puts(out, "{\"name\":");
    json_write_string(out, c->name, strlen(c->name));
    buf_printf(
        out,
        ",\"quantity\":\"%s\",\"claimed\":{\"low\":%.6g,\"high\":%.6g},\"verdict\":\"%s\",\"physics\":%.6g,"
        "\"corrected\":{\"low\":%.6g,\"value\":%.6g,\"high\":%.6g},\"assumed\":%s",
        quantity_names[c->quantity], c->low, c->high > 0 ? c->high : c->low, j->verdict, j->limit,
        j->range.low, j->range.mid, j->range.high, j->follows ? "false" : "true");
    print_member(out, "how", j->how);
    if (j->review_verdict)
        buf_printf(out, ",\"review\":{\"low\":%.6g,\"high\":%.6g,\"verdict\":\"%s\"}", c->review.low,
                   c->review.high, j->review_verdict);
    buf_puts(out, ",\"notes\":[");
    for (size_t i = 0; i < j->note_count; i++) {
        buf_puts(out, i ? "," : "");
        json_write_string(out, j->notes[i], strlen(j->notes[i]));
    }
    buf_puts(out, "]}");
}

enum ph_status estimate_check(const struct estimate_data *data, struct arena *arena, const char *source,
                              const char *text, size_t len, bool json, struct buf *out, struct ph_err *err)
{
    struct claims_file file = {0};
    enum ph_status status = config_parse(arena, source, text, len, file_fields, &file, err);
    const struct claim *claims = file.claims.items;
    if (json)
        buf_putc(out, '[');
    for (size_t i = 0; status == PH_OK && i < file.claims.count; i++) {
        struct judged j = {.claim = &claims[i]};
        struct ph_err why;
        struct arena scratch;
        arena_init(&scratch, ESTIMATE_ARENA_BYTES_MAX);
        status = judge(&j, data, &scratch, &why);
        arena_release(&scratch);
        if (status != PH_OK)
            return ph_fail(err, status, "%s: claim \"%.60s\": %s", source, claims[i].name, why.message);
        buf_puts(out, i ? json ? ",\n" : "\n" : "");
        (json ? print_json : print_text)(&j, out);
    }
    if (json)
        buf_puts(out, "]\n");
    return status;
}
