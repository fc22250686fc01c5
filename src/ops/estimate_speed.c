/* Time from physics: bytes over bandwidth, operations over peak, each by the share of its limit that a device
 * reaches with a number format.
 *
 * A decode step reads every weight that takes part once, and every sequence's keys and values; a prefill does
 * 2 operations a parameter and token. Of memory and arithmetic the slower one counts, stage by stage; stages
 * follow each other, for a token needs all of them. What a device reaches is calibrated, or a prior: then its
 * range is as wide as what has been seen of such devices.
 *
 * A single row on a CPU is read and unpacked at once: the two times join, softly (JOIN), for loads are never
 * hidden wholly (the execution-cache-memory model, Hager et al. 2013). Where nobody measured how fast a
 * format is unpacked, memory alone counts. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/estimate_int.h"

#define TYPES_MAX 24
#define BARRIERS_A_LAYER 9 /* of forward.c, products included */
#define BARRIER_S 1e-6
#define LAUNCHES_A_LAYER 10 /* kernels of a GPU engine */
#define LAUNCH_S 2e-6
#define HOP_S 20e-6           /* from stage to stage, beside the bytes */
#define LINK_BYTES_PER_S 16e9 /* where it is not known: PCIe 3.0 x16 */
#define JOIN 3.0              /* sum of powers; fitted to 14 formats, memory between 27 and 67 GB/s */
#define CALIBRATED_ERROR 0.10 /* a range is never narrower */

enum device_class { CLASS_CPU, CLASS_GPU, CLASS_NPU };

/* What is seen of such devices: published measurements of llama.cpp and vLLM against the rooflines. */
struct prior {
    const char *type;                  /* NULL: any format of weights */
    struct estimate_range share[3][2]; /* class, phase */
};

/* Of one row on a CPU whose unpacking was measured: it stands in the joined time already. */
static const struct estimate_range measured_gemv_share = {0.70, 0.95, 1.15};

static const struct prior priors[] = {
    {"attention",
     {{{0.2, 0.5, 0.9}, {0.1, 0.3, 0.7}},
      {{0.3, 0.6, 0.9}, {0.1, 0.3, 0.6}},
      {{0.2, 0.4, 0.7}, {0.1, 0.2, 0.5}}}},
    {"vectors", {{{0.3, 1, 3}, {0.3, 1, 3}}, {{0.3, 0.6, 1}, {0.3, 0.6, 1}}, {{0.2, 0.5, 1}, {0.2, 0.5, 1}}}},
    {"steps", {{{0.2, 0.6, 2}, {0.2, 0.6, 2}}, {{0.3, 1, 2}, {0.3, 1, 2}}, {{0.1, 0.5, 1}, {0.1, 0.5, 1}}}},
    {NULL,
     {{{0.40, 0.70, 0.95}, {0.15, 0.40, 0.85}},
      {{0.50, 0.72, 0.92}, {0.15, 0.40, 0.75}},
      {{0.15, 0.40, 0.75}, {0.10, 0.30, 0.60}}}},
};

/* ---- The machine */

const char *device_name(const struct machine *machine, int device)
{
    return device < 0 ? machine->cpu : machine->devices[device].name;
}

unsigned request_threads(const struct estimate_request *request)
{
    unsigned all = request->machine->threads ? request->machine->threads : 1;
    return request->threads && request->threads < all ? request->threads : all;
}

double device_bandwidth(const struct estimate_request *request, int device)
{
    const struct machine *m = request->machine;
    if (device >= 0 && !m->devices[device].shared_memory)
        return m->devices[device].memory_bytes_per_s;
    if (!m->memory_points)
        return 0;
    unsigned threads = device < 0 ? request_threads(request) : m->memory_points;
    return m->memory_bytes_per_s[(threads < m->memory_points ? threads : m->memory_points) - 1];
}

static bool is_float(const char *type)
{
    return strcmp(type, "F32") == 0 || strcmp(type, "F16") == 0 || strcmp(type, "BF16") == 0;
}

/* The arithmetic that products with weights of that format run on. On a CPU blocks meet blocks in whole
 * numbers, or floats in BF16 where that is faster; on a GPU they are widened to F16 where there is any. */
static double device_peak(const struct estimate_request *request, int device, const char *type)
{
    const struct machine *m = request->machine;
    if (device >= 0) {
        const struct machine_peaks *p = &m->devices[device].peaks;
        double half = p->f16 > p->bf16 ? p->f16 : p->bf16;
        if (strcmp(type, "FP8") == 0 || strcmp(type, "INT8") == 0)
            return p->int8 > half ? p->int8 : half > p->f32 ? half : p->f32;
        return half > p->f32 ? half : is_float(type) || p->int8 <= p->f32 ? p->f32 : p->int8;
    }
    const struct machine_peaks *p = &m->peaks;
    double floating = strcmp(type, "F32") != 0 && p->bf16 > p->f32 ? p->bf16 : p->f32;
    double peak = !is_float(type) && p->int8 > floating ? p->int8 : floating;
    unsigned threads = request_threads(request);
    return m->cores && threads < m->cores ? peak * threads / m->cores : peak;
}

/* Operations a second of products of one row; 0: not known, or not a CPU. */
static double gemv_rate(const struct estimate_request *request, int device, const char *type)
{
    const struct machine *m = request->machine;
    double rate = device < 0 && !request->perfect ? machine_gemv_rate(m, type) : 0;
    unsigned threads = request_threads(request);
    return m->cores && threads < m->cores ? rate * threads / m->cores : rate;
}

/* Seconds in which a device that reaches its limits reads weights for one row, and multiplies. */
static double row_s(const struct estimate_request *request, int device, const char *type, double bytes,
                    double ops)
{
    double rate = gemv_rate(request, device, type), bandwidth = device_bandwidth(request, device);
    double reading = bandwidth > 0 ? bytes / bandwidth : 0, core = rate > 0 ? ops / rate : 0;
    return pow(pow(reading, JOIN) + pow(core, JOIN), 1 / JOIN);
}

static enum device_class class_of(const struct machine *machine, int device)
{
    return device < 0 ? CLASS_CPU : machine->devices[device].kind == MACHINE_NPU ? CLASS_NPU : CLASS_GPU;
}

static struct estimate_range prior_share(const struct estimate_request *request, int device, const char *type,
                                         enum efficiency_phase phase)
{
    if (phase == EFFICIENCY_DECODE && gemv_rate(request, device, type) > 0)
        return measured_gemv_share;
    size_t i = 0;
    while (priors[i].type && strcmp(priors[i].type, type) != 0)
        i++;
    return priors[i].share[class_of(request->machine, device)][phase];
}

static struct share find_share(const struct estimate_request *request, int device, const char *type,
                               enum efficiency_phase phase)
{
    if (request->perfect)
        return (struct share){{1, 1, 1}, true};
    const struct efficiency_row *row = NULL;
    if (device < 0) {
        char name[EFFICIENCY_DEVICE_BYTES];
        efficiency_device(request->machine, request_threads(request), name);
        row = efficiency_find(request->efficiency, name, type, phase);
    }
    if (!row)
        return (struct share){prior_share(request, device, type, phase), false};
    double mid = 1 / row->ratio,
           error = 2 * row->spread > CALIBRATED_ERROR ? 2 * row->spread : CALIBRATED_ERROR;
    return (struct share){{mid / (1 + error), mid, mid * (1 + error)}, true};
}

/* ---- What is in a stage */

struct tally {
    const char *type;
    double bytes; /* read by a step */
    double ops;   /* of a row */
};

struct tallies {
    struct tally items[TYPES_MAX];
    size_t count;
};

static struct tally *tally_of(struct tallies *t, const char *type)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->items[i].type, type) == 0)
            return &t->items[i];
    if (t->count == TYPES_MAX)
        return &t->items[TYPES_MAX - 1];
    t->items[t->count] = (struct tally){.type = type};
    return &t->items[t->count++];
}

double experts_touched(const struct runner_widths *w, double rows)
{
    double e = (double)w->n_expert, k = (double)w->n_expert_used;
    return e * (1 - pow(1 - k / e, rows));
}

static bool in_stage(const struct estimate_stage *s, const struct estimate_tensor *t)
{
    if (t->place == ESTIMATE_OUTPUT)
        return s->outputs;
    return t->place != ESTIMATE_EMBED && t->layer >= s->first && t->layer < s->end;
}

/* prefill: only what all rows of a prompt go through; the last layer's end and the output are for one row. */
static void take_tally(struct tallies *out, const struct estimate_model *m, const struct estimate_stage *s,
                       double rows, bool prefill)
{
    *out = (struct tallies){0};
    const struct runner_widths *w = &m->widths;
    for (size_t i = 0; i < m->tensor_count; i++) {
        const struct estimate_tensor *t = &m->tensors[i];
        if (!in_stage(s, t))
            continue;
        struct tally *tally = tally_of(out, t->type);
        bool experts = t->place == ESTIMATE_EXPERTS && w->n_expert;
        bool all_rows = t->place != ESTIMATE_OUTPUT && !(t->is_late && t->layer + 1 == m->layer_count);
        tally->bytes += (double)t->bytes * (experts ? experts_touched(w, rows) / (double)w->n_expert : 1);
        if (t->place != ESTIMATE_VECTOR && (all_rows || !prefill))
            tally->ops +=
                2.0 * (double)t->params * (experts ? (double)w->n_expert_used / (double)w->n_expert : 1);
    }
}

uint64_t decode_bytes_of(const struct estimate_model *model)
{
    struct tallies t;
    double bytes = 0;
    take_tally(&t, model, &(struct estimate_stage){.end = model->layer_count, .outputs = true}, 1, false);
    for (size_t i = 0; i < t.count; i++)
        bytes += t.items[i].bytes;
    return (uint64_t)(bytes + 0.5);
}

double decode_operations_of(const struct estimate_model *model)
{
    struct tallies t;
    double ops = 0;
    take_tally(&t, model, &(struct estimate_stage){.end = model->layer_count, .outputs = true}, 1, false);
    for (size_t i = 0; i < t.count; i++)
        ops += t.items[i].ops;
    return ops;
}

size_t kv_row_bytes(const struct estimate_request *request, const struct estimate_model *model)
{
    enum tensor_type type = (enum tensor_type)request->kv_type;
    return tensor_row_bytes(type, model->widths.head_dim_k) +
           tensor_row_bytes(type, model->widths.head_dim_v);
}

/* Bytes of keys and values that a row at `position` looks at, in a stage. */
static double kv_read_bytes(const struct speed *sp, const struct estimate_stage *s, double position)
{
    double bytes = 0;
    for (size_t i = s->first; i < s->end; i++) {
        const struct estimate_layer *l = &sp->model->layers[i];
        double seen = l->window && (double)l->window < position ? (double)l->window : position;
        bytes += seen * (double)(l->heads_kv * kv_row_bytes(sp->request, sp->model));
    }
    return bytes;
}

/* Operations of attention for a whole prompt. Of the last layer only the last row is wanted. */
static double attention_ops(const struct speed *sp, const struct estimate_stage *s, double n)
{
    const struct runner_widths *w = &sp->model->widths;
    double ops = 0;
    for (size_t i = s->first; i < s->end && i + 1 < sp->model->layer_count; i++) {
        const struct estimate_layer *l = &sp->model->layers[i];
        double window = l->window ? (double)l->window : n;
        double pairs = window >= n ? n * (n + 1) / 2 : window * (window + 1) / 2 + (n - window) * window;
        ops += 2.0 * pairs * (double)(l->heads * (w->head_dim_k + w->head_dim_v));
    }
    return ops;
}

/* Norms, rotations, activations, conversions of inputs: floats read and written for a row, in bytes. */
static double vector_bytes(const struct speed *sp, const struct estimate_stage *s)
{
    const struct runner_widths *w = &sp->model->widths;
    size_t ffn = w->n_expert ? w->n_expert_used * w->n_ff_expert * 2 + w->gate + w->up : w->gate + w->up;
    return 4.0 * (double)(s->end - s->first) * (double)(10 * w->n_embd + 3 * w->qkv + 2 * w->attn + 2 * ffn);
}

/* ---- Costs */

struct ledger {
    struct cost cost;
    struct estimate_sheet *sheet;
    unsigned depth;
};

static void charge(struct ledger *l, double perfect_s, const struct share *share, const char *name,
                   const char *how)
{
    if (!(perfect_s > 0))
        return;
    struct estimate_range s = {perfect_s / share->value.high, perfect_s / share->value.mid,
                               perfect_s / share->value.low};
    l->cost.s.low += s.low;
    l->cost.s.mid += s.mid;
    l->cost.s.high += s.high;
    l->cost.perfect_s += perfect_s;
    l->cost.prior_s += share->calibrated ? 0 : s.mid;
    sheet_add(l->sheet, LINE_PART, l->depth, UNIT_NS, s.mid * 1e9, name, "%s x %.3f (%s)", how,
              share->value.mid, share->calibrated ? "calibrated" : "prior");
}

struct site { /* where it happens, for charges */
    const struct speed *speed;
    const struct estimate_stage *stage;
    enum efficiency_phase phase;
};

static void charge_bytes(struct ledger *l, const struct site *at, const char *type, double bytes,
                         const char *name)
{
    char how[128];
    double bandwidth = device_bandwidth(at->speed->request, at->stage->device);
    struct share share = find_share(at->speed->request, at->stage->device, type, at->phase);
    snprintf(how, sizeof how, "%.0f bytes / %.2f GB/s", bytes, bandwidth * 1e-9);
    charge(l, bandwidth > 0 ? bytes / bandwidth : 0, &share, name, how);
}

/* Weights for one row. */
static void charge_row(struct ledger *l, const struct site *at, const char *type, double bytes, double ops,
                       const char *name)
{
    char how[160];
    const struct estimate_request *r = at->speed->request;
    int device = at->stage->device;
    double rate = gemv_rate(r, device, type);
    struct share share = find_share(r, device, type, EFFICIENCY_DECODE);
    if (!(rate > 0) || !(ops > 0)) {
        struct site decode = *at;
        decode.phase = EFFICIENCY_DECODE;
        charge_bytes(l, &decode, type, bytes, name);
        return;
    }
    snprintf(how, sizeof how, "%.0f bytes / %.2f GB/s joined with %.4g operations / %.4g/s", bytes,
             device_bandwidth(r, device) * 1e-9, ops, rate);
    charge(l, row_s(r, device, type, bytes, ops), &share, name, how);
}

static void charge_ops(struct ledger *l, const struct site *at, const char *type, const char *peak_type,
                       double ops, const char *name)
{
    char how[128];
    double peak = device_peak(at->speed->request, at->stage->device, peak_type);
    struct share share = find_share(at->speed->request, at->stage->device, type, at->phase);
    snprintf(how, sizeof how, "%.4g operations / %.4g/s", ops, peak);
    charge(l, peak > 0 ? ops / peak : 0, &share, name, how);
}

static void charge_steps(struct ledger *l, const struct site *at, double steps)
{
    char how[128];
    const struct estimate_request *r = at->speed->request;
    double layers = (double)(at->stage->end - at->stage->first) + (at->stage->outputs ? 1 : 0);
    bool gpu = at->stage->device >= 0;
    double each = gpu ? LAUNCHES_A_LAYER * LAUNCH_S : BARRIERS_A_LAYER * BARRIER_S;
    if (r->perfect || (!gpu && request_threads(r) == 1))
        return;
    struct share share = find_share(r, at->stage->device, "steps", at->phase);
    snprintf(how, sizeof how, "%.0f x %.0f layers x %d %s x %.0f us", steps, layers,
             gpu ? LAUNCHES_A_LAYER : BARRIERS_A_LAYER, gpu ? "kernels" : "barriers",
             (gpu ? LAUNCH_S : BARRIER_S) * 1e6);
    charge(l, steps * layers * each, &share, "starting and meeting", how);
}

/* `times` over, each for many rows or for one. */
static void charge_weights(struct ledger *l, const struct site *at, const struct tallies *t, double times,
                           bool one_row)
{
    char name[72];
    for (size_t i = 0; i < t->count; i++) {
        const struct tally *tally = &t->items[i];
        snprintf(name, sizeof name, "%s weights read", tally->type);
        charge_row(l, at, tally->type, times * tally->bytes, one_row ? tally->ops : 0, name);
    }
}

static void charge_products(struct ledger *l, const struct site *at, const struct tallies *t, double rows)
{
    char name[72];
    for (size_t i = 0; i < t->count; i++) {
        snprintf(name, sizeof name, "%s products", t->items[i].type);
        struct site prefill = *at;
        prefill.phase = EFFICIENCY_PREFILL; /* of many rows */
        charge_ops(l, &prefill, t->items[i].type, t->items[i].type, rows * t->items[i].ops, name);
    }
}

static void charge_vectors(struct ledger *l, const struct site *at, double rows)
{
    double bytes = rows * vector_bytes(at->speed, at->stage);
    if (!at->speed->request->perfect)
        charge_bytes(l, at, "vectors", bytes, "norms, rotations, activations");
}

/* An adapter of rank r beside every matrix: r (in + out) more parameters each, in F16. */
static void charge_lora(struct ledger *l, const struct site *at, double rows, bool arithmetic)
{
    const struct estimate_request *r = at->speed->request;
    if (!r->lora_rank || at->speed->model != r->model)
        return;
    double bytes = (double)lora_bytes(r->model, r->lora_rank) * (double)(at->stage->end - at->stage->first) /
                   (double)r->model->layer_count;
    if (arithmetic)
        charge_ops(l, at, "F16", "F16", rows * bytes, "adapter products"); /* 2 bytes, 2 operations */
    else
        charge_bytes(l, at, "F16", bytes, "adapter read");
}

static void charge_hop(struct ledger *l, const struct speed *sp, size_t stage, double rows)
{
    if (stage == 0)
        return;
    int a = sp->stages[stage - 1].device, b = sp->stages[stage].device;
    const struct machine *m = sp->request->machine;
    double link = a >= 0 ? m->devices[a].link_bytes_per_s : 0,
           other = b >= 0 ? m->devices[b].link_bytes_per_s : 0;
    if (!(link > 0) || (other > 0 && other < link))
        link = other > 0 ? other : LINK_BYTES_PER_S;
    double bytes = rows * 4 * (double)sp->model->widths.n_embd;
    char how[128];
    struct share share = {{0.5, 1, 2}, false};
    snprintf(how, sizeof how, "%.0f bytes / %.1f GB/s + %.0f us", bytes, link * 1e-9, HOP_S * 1e6);
    if (!sp->request->perfect)
        charge(l, bytes / link + HOP_S, &share, "to the next device", how);
}

/* Two sides of a stage; the slower one counts. */

struct sides {
    void (*memory)(struct ledger *l, const struct site *at, void *ud);
    void (*arithmetic)(struct ledger *l, const struct site *at, void *ud);
    void *ud;
};

static bool settle(struct cost *total, const struct site *at, const struct sides *sides, bool may_compute,
                   struct estimate_sheet *sheet, unsigned depth)
{
    struct ledger memory = {0}, arithmetic = {0};
    sides->memory(&memory, at, sides->ud);
    sides->arithmetic(&arithmetic, at, sides->ud);
    bool computes = may_compute && arithmetic.cost.s.mid > memory.cost.s.mid;
    struct ledger chosen = {.sheet = sheet, .depth = depth};
    (computes ? sides->arithmetic : sides->memory)(&chosen, at, sides->ud);
    const struct cost *hidden = computes ? &memory.cost : &arithmetic.cost;
    if (hidden->s.mid > 0)
        sheet_add(sheet, LINE_NOTE, depth, UNIT_NS, hidden->s.mid * 1e9,
                  computes ? "reading meanwhile" : "arithmetic meanwhile",
                  may_compute ? "the quicker side: hidden behind the other"
                              : "held by the share of bandwidth");
    total->s.low += chosen.cost.s.low;
    total->s.mid += chosen.cost.s.mid;
    total->s.high += chosen.cost.s.high;
    total->perfect_s += chosen.cost.perfect_s;
    total->prior_s += chosen.cost.prior_s;
    return computes;
}

/* ---- Decode */

struct decode_work {
    double rows, streams, position;
    struct tallies tallies;
    size_t stage;
};

static void decode_common(struct ledger *l, const struct site *at, const struct decode_work *w)
{
    charge_bytes(l, at, "attention", w->streams * kv_read_bytes(at->speed, at->stage, w->position),
                 "keys and values read");
    charge_vectors(l, at, w->rows);
    charge_steps(l, at, 1);
    charge_hop(l, at->speed, w->stage, w->rows);
}

static void decode_memory(struct ledger *l, const struct site *at, void *ud)
{
    const struct decode_work *w = ud;
    charge_weights(l, at, &w->tallies, 1, w->rows == 1);
    charge_lora(l, at, w->rows, false);
    decode_common(l, at, w);
}

static void decode_arithmetic(struct ledger *l, const struct site *at, void *ud)
{
    const struct decode_work *w = ud;
    charge_products(l, at, &w->tallies, w->rows);
    charge_lora(l, at, w->rows, true);
    decode_common(l, at, w);
}

static void begin_stage(struct estimate_sheet *sheet, const struct speed *sp, size_t i, unsigned depth)
{
    const struct estimate_stage *s = &sp->stages[i];
    sheet_add(sheet, LINE_SUM, depth, UNIT_NS, 0, device_name(sp->request->machine, s->device),
              "layers %zu to %zu%s", s->first, s->end ? s->end - 1 : 0, s->outputs ? ", output" : "");
}

struct cost decode_cost(const struct speed *speed, size_t rows, size_t streams, size_t position,
                        struct estimate_sheet *sheet, unsigned depth)
{
    struct cost total = {0};
    sheet_add(sheet, LINE_SUM, depth, UNIT_NS, 0, rows > 1 ? "one step" : "one token",
              "%zu rows, %zu sequences at position %zu", rows, streams, position);
    for (size_t i = 0; i < speed->stage_count; i++) {
        const struct site at = {speed, &speed->stages[i], EFFICIENCY_DECODE};
        struct decode_work work = {(double)rows, (double)streams, (double)position, {.count = 0}, i};
        const struct sides sides = {decode_memory, decode_arithmetic, &work};
        take_tally(&work.tallies, speed->model, at.stage, (double)rows, false);
        begin_stage(sheet, speed, i, depth + 1);
        bool may = rows > 1 || at.stage->device >= 0 || speed->request->perfect;
        if (settle(&total, &at, &sides, may, sheet, depth + 2))
            total.is_arithmetic = true;
    }
    return total;
}

/* ---- Prefill */

struct prefill_work {
    double tokens, chunks;
    struct tallies rows, all; /* what every row goes through; everything */
    size_t stage;
};

static void prefill_common(struct ledger *l, const struct site *at, const struct prefill_work *w)
{
    charge_vectors(l, at, w->tokens);
    charge_steps(l, at, w->chunks);
    charge_hop(l, at->speed, w->stage, w->tokens);
}

static void prefill_memory(struct ledger *l, const struct site *at, void *ud)
{
    const struct prefill_work *w = ud;
    charge_weights(l, at, &w->all, w->chunks, false);
    prefill_common(l, at, w);
}

/* The output matrix, and the end of the last layer, serve one row: they are read. */
static void prefill_arithmetic(struct ledger *l, const struct site *at, void *ud)
{
    const struct prefill_work *w = ud;
    charge_products(l, at, &w->rows, w->tokens);
    charge_ops(l, at, "attention", "F32", attention_ops(at->speed, at->stage, w->tokens), "attention");
    charge_lora(l, at, w->tokens, true);
    for (size_t i = 0; at->stage->outputs && i < at->speed->model->tensor_count; i++) {
        const struct estimate_tensor *t = &at->speed->model->tensors[i];
        if (t->place == ESTIMATE_OUTPUT)
            charge_row(l, at, t->type, (double)t->bytes, 2.0 * (double)t->params, "output matrix read");
    }
    prefill_common(l, at, w);
}

struct cost prefill_cost(const struct speed *speed, size_t tokens, struct estimate_sheet *sheet)
{
    struct cost total = {0};
    double rows = (double)request_rows(speed->request);
    sheet_add(sheet, LINE_SUM, 0, UNIT_NS, 0, "prompt", "%zu tokens, %.0f at a time", tokens, rows);
    for (size_t i = 0; i < speed->stage_count; i++) {
        const struct site at = {speed, &speed->stages[i], EFFICIENCY_PREFILL};
        struct prefill_work work = {
            .tokens = (double)tokens, .chunks = ceil((double)tokens / rows), .stage = i};
        const struct sides sides = {prefill_memory, prefill_arithmetic, &work};
        take_tally(&work.rows, speed->model, at.stage, rows, true);
        take_tally(&work.all, speed->model, at.stage, rows, false);
        begin_stage(sheet, speed, i, 1);
        if (settle(&total, &at, &sides, true, sheet, 2))
            total.is_arithmetic = true;
    }
    return total;
}

/* ---- Learning from a run */

struct parts {
    struct efficiency_part items[EFFICIENCY_PARTS_MAX];
    size_t count;
};

static void part(struct parts *p, const struct estimate_request *r, enum efficiency_phase phase,
                 const char *type, double perfect_s)
{
    if (perfect_s > 0 && p->count < EFFICIENCY_PARTS_MAX)
        p->items[p->count++] =
            (struct efficiency_part){type, perfect_s, 1 / prior_share(r, -1, type, phase).mid};
}

static void parts_of(struct parts *p, const struct speed *sp, enum efficiency_phase phase, double n)
{
    const struct estimate_request *r = sp->request;
    const struct estimate_stage *s = sp->stages;
    bool prefill = phase == EFFICIENCY_PREFILL;
    double bandwidth = device_bandwidth(r, -1), layers = (double)(s->end - s->first) + 1;
    double steps = prefill ? ceil(n / (double)request_rows(r)) : n;
    struct tallies t;
    take_tally(&t, sp->model, s, 1, prefill);
    for (size_t i = 0; i < t.count; i++) {
        const struct tally *tally = &t.items[i];
        double peak = device_peak(r, -1, tally->type);
        part(p, r, phase, tally->type,
             prefill ? (peak > 0 ? n * tally->ops / peak : 0)
                     : n * row_s(r, -1, tally->type, tally->bytes, tally->ops));
    }
    double peak = device_peak(r, -1, "F32");
    part(p, r, phase, "attention",
         prefill ? (peak > 0 ? attention_ops(sp, s, n) / peak : 0)
                 : n * kv_read_bytes(sp, s, n / 2) / bandwidth);
    part(p, r, phase, "vectors", n * vector_bytes(sp, s) / bandwidth);
    if (request_threads(r) > 1)
        part(p, r, phase, "steps", steps * layers * BARRIERS_A_LAYER * BARRIER_S);
}

/* What is read at the end of a prefill is decode's: not learnt from, and taken off what was measured. */
static double output_read_s(const struct speed *sp)
{
    double s = 0;
    for (size_t i = 0; i < sp->model->tensor_count; i++) {
        const struct estimate_tensor *t = &sp->model->tensors[i];
        if (t->place == ESTIMATE_OUTPUT)
            s += row_s(sp->request, -1, t->type, (double)t->bytes, 2.0 * (double)t->params) /
                 find_share(sp->request, -1, t->type, EFFICIENCY_DECODE).value.mid;
    }
    return s;
}

enum ph_status estimate_learn(struct efficiency *calibration, const struct estimate_request *request,
                              enum efficiency_phase phase, size_t tokens, double seconds, int64_t unix_s,
                              struct ph_err *err)
{
    char device[EFFICIENCY_DEVICE_BYTES];
    struct parts parts = {.count = 0};
    const struct estimate_stage whole = {.device = -1, .end = request->model->layer_count, .outputs = true};
    const struct speed speed = {request, request->model, &whole, 1};
    if (!(device_bandwidth(request, -1) > 0))
        return ph_fail(err, PH_ERR_ARG,
                       "the machine's bandwidth is not known: run `pharos bench probe` first");
    parts_of(&parts, &speed, phase, (double)tokens);
    if (phase == EFFICIENCY_PREFILL)
        seconds -= output_read_s(&speed);
    efficiency_device(request->machine, request_threads(request), device);
    return efficiency_learn(calibration, device, phase, parts.items, parts.count, seconds, unix_s, err);
}
