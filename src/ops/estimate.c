/* The whole answer: places the model, adds up memory, times loading, prefill and decode, tries batches and
 * drafts, and prints it. */
#include "ops/estimate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "ops/estimate_int.h"

#define SHEET_LINES 2048
#define LOAD_LOW 0.5           /* of a disk's sequential speed */
#define HASH_BYTES_PER_S 1.5e9 /* SHA-256 with the instructions for it, one thread */
#define DRAFT_LEN_MAX 16
#define PRIOR_SHARE_MAX 0.25 /* of a token: as what is too little of a run to be learnt from */

const char *const estimate_on_names[] = {"any", "cpu", "gpu", "npu", NULL};

void estimate_request_default(struct estimate_request *request)
{
    *request = (struct estimate_request){.prompt = 512,
                                         .generate = 128,
                                         .streams = 1,
                                         .kv_type = TENSOR_F16,
                                         .gpu_layers = SIZE_MAX,
                                         .acceptance = 0.7};
}

static struct estimate_range rate(double amount, const struct estimate_range *s)
{
    return (struct estimate_range){s->high > 0 ? amount / s->high : 0, s->mid > 0 ? amount / s->mid : 0,
                                   s->low > 0 ? amount / s->low : 0};
}

/* ---- Loading */

static void make_load(struct estimate *e, const struct estimate_request *r)
{
    double bytes = (double)(r->model->file_bytes ? r->model->file_bytes : r->model->bytes);
    double disk = r->machine->disk_read_bytes_per_s;
    if (!(disk > 0))
        return;
    sheet_add(&e->load, LINE_SUM, 0, UNIT_NS, 0, "cold load", "nothing of the file is in memory yet");
    sheet_add(&e->load, LINE_PART, 1, UNIT_NS, bytes / disk * 1e9, "read from disk", "%.0f bytes / %.3f GB/s",
              bytes, disk * 1e-9);
    sheet_add(&e->load, LINE_NOTE, 1, UNIT_NS, bytes / HASH_BYTES_PER_S * 1e9,
              "its SHA-256, where it is verified", "%.0f bytes / %.1f GB/s, beside reading", bytes,
              HASH_BYTES_PER_S * 1e-9);
    sheet_sum(&e->load);
    double s = bytes / disk;
    e->load_s = (struct estimate_range){s, s, s / LOAD_LOW};
}

/* ---- Speed */

static size_t decode_position(const struct estimate_request *r)
{
    return r->prompt + r->generate / 2;
}

static void make_speed(struct estimate *e, const struct estimate_request *r)
{
    struct speed speed = {r, r->model, e->stages, e->stage_count};
    struct cost decode = decode_cost(&speed, r->streams, r->streams, decode_position(r), &e->decode, 0);
    sheet_sum(&e->decode);
    e->decode_s = decode.s;
    e->decode_tokens_per_s = rate((double)r->streams, &decode.s);
    e->prior_share = decode.s.mid > 0 ? decode.prior_s / decode.s.mid : 0;
    e->calibrated = e->prior_share <= PRIOR_SHARE_MAX;
    if (r->prompt) {
        struct cost prefill = prefill_cost(&speed, r->prompt, &e->prefill);
        sheet_sum(&e->prefill);
        e->prefill_s = prefill.s;
        e->prefill_tokens_per_s = rate((double)r->prompt, &prefill.s);
    }
    struct estimate_request perfect = *r;
    perfect.perfect = true;
    speed.request = &perfect;
    double s = decode_cost(&speed, r->streams, r->streams, decode_position(r), NULL, 0).s.mid;
    e->ceiling_tokens_per_s = s > 0 ? (double)r->streams / s : 0;
    s = r->prompt ? prefill_cost(&speed, r->prompt, NULL).s.mid : 0;
    e->ceiling_prefill_tokens_per_s = s > 0 ? (double)r->prompt / s : 0;
    e->decode_bytes = decode_bytes_of(r->model);
    e->operations = decode_operations_of(r->model);
}

/* ---- Batches */

/* More streams are more keys and values, on each device those of its layers. */
static bool batch_fits(const struct estimate *e, const struct estimate_request *r, uint64_t memory_bytes)
{
    bool fits = true;
    double extra = (double)memory_bytes - (double)e->memory_bytes;
    for (size_t i = 0; i < e->stage_count; i++) {
        const struct estimate_stage *s = &e->stages[i];
        double share = (double)(s->end - s->first) / (double)r->model->layer_count;
        fits = fits && (double)s->bytes + extra * share <= (double)s->room;
    }
    return fits;
}

static void make_batches(struct estimate *e, const struct estimate_request *r)
{
    const struct speed speed = {r, r->model, e->stages, e->stage_count};
    for (size_t n = 1; e->batch_count < ESTIMATE_BATCHES_MAX; n *= 2) {
        struct estimate_batch *b = &e->batches[e->batch_count++];
        struct cost cost = decode_cost(&speed, n, n, decode_position(r), NULL, 0);
        uint64_t bytes = memory_of_streams(r, e, n);
        *b = (struct estimate_batch){n, rate((double)n, &cost.s), bytes, batch_fits(e, r, bytes),
                                     cost.is_arithmetic};
        if (b->is_arithmetic && !e->knee)
            e->knee = n;
    }
}

/* ---- Speculation (Leviathan et al. 2023): a draft of g tokens, each accepted with probability a */

static void try_draft(struct estimate *e, const struct estimate_request *r, size_t g,
                      struct estimate_sheet *sheet)
{
    struct estimate_stage where = e->stages[0];
    where.first = 0;
    where.end = r->draft->layer_count;
    where.outputs = true;
    const struct speed draft = {r, r->draft, &where, 1}, target = {r, r->model, e->stages, e->stage_count};
    size_t position = decode_position(r);
    double a = r->acceptance, tokens = a < 1 ? (1 - pow(a, (double)g + 1)) / (1 - a) : (double)g + 1;
    struct cost guess = decode_cost(&draft, 1, 1, position, NULL, 0);
    struct cost check = decode_cost(&target, g + 1, 1, position, NULL, 0);
    struct estimate_range s = {(double)g * guess.s.low + check.s.low, (double)g * guess.s.mid + check.s.mid,
                               (double)g * guess.s.high + check.s.high};
    struct estimate_range speed = rate(tokens, &s);
    sheet_add(sheet, LINE_SUM, 0, UNIT_NS, 0, "one draft and its check",
              "(1 - a^(g+1)) / (1 - a) = %.2f tokens at a = %.2f, g = %zu", tokens, a, g);
    sheet_add(sheet, LINE_PART, 1, UNIT_NS, (double)g * guess.s.mid * 1e9, "drafting", "%zu x %.0f ns", g,
              guess.s.mid * 1e9);
    sheet_add(sheet, LINE_PART, 1, UNIT_NS, check.s.mid * 1e9, "checking", "%zu rows in one step", g + 1);
    if (!sheet && speed.mid <= e->draft_tokens_per_s.mid)
        return;
    e->draft_tokens_per_s = speed;
    e->draft_len = g;
    e->draft_tokens_per_step = tokens;
}

static void make_draft(struct estimate *e, const struct estimate_request *r)
{
    const struct speed target = {r, r->model, e->stages, e->stage_count};
    if (r->draft_len)
        e->draft_len = r->draft_len;
    else
        for (size_t g = 1; g <= DRAFT_LEN_MAX; g++)
            try_draft(e, r, g, NULL);
    try_draft(e, r, e->draft_len, &e->draft);
    sheet_sum(&e->draft);
    double alone = decode_cost(&target, 1, 1, decode_position(r), NULL, 0).s.mid;
    e->draft_speedup = e->draft_tokens_per_s.mid * alone;
}

/* ---- Everything */

static enum ph_status check_request(const struct estimate_request *r, struct ph_err *err)
{
    const struct estimate_model *m = r->model;
    const struct tensor_format *kv = tensor_format((uint32_t)r->kv_type);
    if (m->widths.head_dim_k % kv->block_len || m->widths.head_dim_v % kv->block_len)
        return ph_fail(err, PH_ERR_ARG,
                       "%s: heads of %zu values do not fill blocks of a %s KV cache; take --kv f16", m->name,
                       m->widths.head_dim_k, kv->name);
    if (r->draft &&
        (r->draft->widths.head_dim_k % kv->block_len || r->draft->widths.head_dim_v % kv->block_len))
        return ph_fail(err, PH_ERR_ARG,
                       "%s: heads of %zu values do not fill blocks of a %s KV cache; take --kv f16",
                       r->draft->name, r->draft->widths.head_dim_k, kv->name);
    if (r->streams == 0 || r->prompt + r->generate > MODEL_CONTEXT_MAX)
        return ph_fail(err, PH_ERR_ARG, "at least one stream, and at most %u tokens", MODEL_CONTEXT_MAX);
    return PH_OK;
}

enum ph_status estimate_make(struct estimate **out, struct arena *arena,
                             const struct estimate_request *request, struct ph_err *err)
{
    enum ph_status status = check_request(request, err);
    if (status != PH_OK)
        return status;
    struct estimate *e = arena_calloc(arena, 1, sizeof *e);
    struct estimate_sheet *sheets[] = {&e->memory, &e->load, &e->prefill, &e->decode, &e->draft};
    bool good = e != NULL;
    for (size_t i = 0; good && i < sizeof sheets / sizeof *sheets; i++)
        good = sheet_open(sheets[i], arena, SHEET_LINES);
    if (!good)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for an estimate");
    *out = e;
    (void)place_model(request, e, request->streams, &e->memory);
    if (!e->stage_count)
        return ph_fail(err, PH_ERR_ARG, "%s", e->why_not);
    e->memory_bytes = e->memory.lines[0].value;
    make_load(e, request);
    make_speed(e, request);
    make_batches(e, request);
    if (request->draft)
        make_draft(e, request);
    for (size_t i = 0; i < sizeof sheets / sizeof *sheets; i++)
        if (sheets[i]->full)
            return ph_fail(err, PH_ERR_LIMIT, "more than %d lines in a sheet", SHEET_LINES);
    return PH_OK;
}

/* ---- Printing */

static void print_stages(const struct estimate_request *r, const struct estimate *e, struct buf *out)
{
    for (size_t i = 0; i < e->stage_count; i++) {
        const struct estimate_stage *s = &e->stages[i];
        char bytes[32], room[32];
        estimate_human_bytes((double)s->bytes, bytes);
        estimate_human_bytes((double)s->room, room);
        buf_printf(out, "  %-24s layers %zu to %zu%s: %s, room %s\n", device_name(r->machine, s->device),
                   s->first, s->end ? s->end - 1 : 0, s->outputs ? " and the output" : "", bytes, room);
    }
}

static void print_rate(struct buf *out, const char *name, const struct estimate_range *v, const char *unit)
{
    buf_printf(out, "%-10s %.4g %s, %.3g to %.3g", name, v->mid, unit, v->low, v->high);
}

static void print_batches(const struct estimate *e, struct buf *out)
{
    buf_puts(out, "streams   together tok/s      each   memory\n");
    for (size_t i = 0; i < e->batch_count; i++) {
        const struct estimate_batch *b = &e->batches[i];
        char bytes[32];
        estimate_human_bytes((double)b->memory_bytes, bytes);
        buf_printf(out, "%7zu %12.4g %15.4g   %s%s%s\n", b->streams, b->tokens_per_s.mid,
                   b->tokens_per_s.mid / (double)b->streams, bytes, b->fits ? "" : ", does not fit",
                   b->streams == e->knee ? "  <- from here on arithmetic sets the pace" : "");
    }
}

static void print_sheets(const struct estimate *e, struct buf *out)
{
    const struct estimate_sheet *sheets[] = {&e->memory, &e->load, &e->prefill, &e->decode, &e->draft};
    buf_puts(out, "\n= sum of the lines below it, + part, . not counted\n");
    for (size_t i = 0; i < sizeof sheets / sizeof *sheets; i++)
        sheet_print(sheets[i], out);
}

void estimate_print(const struct estimate_request *request, const struct estimate *e, bool explain,
                    struct buf *out)
{
    const struct estimate_model *m = request->model;
    char bytes[32], read[32];
    estimate_human_bytes((double)m->bytes, bytes);
    estimate_human_bytes((double)e->decode_bytes, read);
    buf_printf(
        out,
        "model      %s, %s: %.2f B parameters, %s of weights; a token reads %s and takes %.3g operations\n",
        m->name, m->type, (double)m->params * 1e-9, bytes, read, e->operations);
    const struct machine *machine = request->machine;
    buf_printf(out, "machine    %s%s%s%s\n", machine->name, machine->about[0] ? ": " : "", machine->about,
               machine->disturbed ? "; others used it while it was measured: run `pharos bench probe` again"
                                  : "");
    estimate_human_bytes((double)e->memory_bytes, bytes);
    buf_printf(out, "memory     %s%s%s\n", bytes,
               e->fits ? "" : "; DOES NOT FIT: ", e->fits ? "" : e->why_not);
    print_stages(request, e, out);
    if (e->load_s.mid > 0)
        buf_printf(out, "load       %.3g to %.3g s from a cold disk\n", e->load_s.low, e->load_s.high);
    if (request->prompt) {
        print_rate(out, "prefill", &e->prefill_tokens_per_s, "tokens/s");
        buf_printf(out, " (physics allows %.4g); first token of %zu after %.3g to %.3g s\n",
                   e->ceiling_prefill_tokens_per_s, request->prompt, e->prefill_s.low, e->prefill_s.high);
    }
    print_rate(out, "decode", &e->decode_tokens_per_s, "tokens/s");
    buf_printf(out, " (physics allows %.4g)%s\n", e->ceiling_tokens_per_s,
               request->streams > 1 ? ", all streams" : "");
    if (request->draft)
        buf_printf(
            out, "drafting   %.4g tokens/s with %zu tokens of %s, %.2f times as fast (accepted with %.2f)\n",
            e->draft_tokens_per_s.mid, e->draft_len, request->draft->name, e->draft_speedup,
            request->acceptance);
    if (e->calibrated)
        buf_puts(out, "basis      calibrated: this device's own measurements of these formats\n");
    else
        buf_printf(out,
                   "basis      prior: %.0f %% of a token's time rests on formats with fewer than %d samples "
                   "here, hence the "
                   "wide ranges\n",
                   100 * e->prior_share, EFFICIENCY_SAMPLES_MIN);
    print_batches(e, out);
    if (explain)
        print_sheets(e, out);
}

static void json_range(struct buf *out, const char *name, const struct estimate_range *v)
{
    buf_printf(out, ",\"%s\":{\"low\":%.6g,\"value\":%.6g,\"high\":%.6g}", name, v->low, v->mid, v->high);
}

static void json_stages(const struct estimate_request *r, const struct estimate *e, struct buf *out)
{
    buf_puts(out, ",\"stages\":[");
    for (size_t i = 0; i < e->stage_count; i++) {
        const struct estimate_stage *s = &e->stages[i];
        const char *name = device_name(r->machine, s->device);
        buf_puts(out, i ? ",{\"device\":" : "{\"device\":");
        json_write_string(out, name, strlen(name));
        buf_printf(out, ",\"layers\":[%zu,%zu],\"output\":%s,\"bytes\":%llu,\"room\":%llu}", s->first, s->end,
                   s->outputs ? "true" : "false", (unsigned long long)s->bytes, (unsigned long long)s->room);
    }
    buf_puts(out, "],\"batches\":[");
    for (size_t i = 0; i < e->batch_count; i++) {
        const struct estimate_batch *b = &e->batches[i];
        buf_printf(out, "%s{\"streams\":%zu,\"memory_bytes\":%llu,\"fits\":%s,\"arithmetic\":%s",
                   i ? "," : "", b->streams, (unsigned long long)b->memory_bytes, b->fits ? "true" : "false",
                   b->is_arithmetic ? "true" : "false");
        json_range(out, "tokens_per_s", &b->tokens_per_s);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static void json_sheets(const struct estimate *e, struct buf *out)
{
    static const char *const names[] = {"memory", "load", "prefill", "decode", "draft"};
    const struct estimate_sheet *sheets[] = {&e->memory, &e->load, &e->prefill, &e->decode, &e->draft};
    buf_puts(out, ",\"sheets\":{");
    for (size_t i = 0; i < sizeof sheets / sizeof *sheets; i++) {
        buf_printf(out, "%s\"%s\":", i ? "," : "", names[i]);
        sheet_print_json(sheets[i], out);
    }
    buf_puts(out, "}");
}

void estimate_print_json(const struct estimate_request *request, const struct estimate *e, struct buf *out)
{
    const struct estimate_model *m = request->model;
    buf_puts(out, "{\"model\":");
    json_write_string(out, m->name, strlen(m->name));
    buf_puts(out, ",\"machine\":");
    json_write_string(out, request->machine->name, strlen(request->machine->name));
    buf_printf(
        out,
        ",\"type\":\"%s\",\"params\":%llu,\"weight_bytes\":%llu,\"decode_bytes\":%llu,\"operations\":%.0f,"
        "\"memory_bytes\":%llu,\"fits\":%s,\"calibrated\":%s,\"prior_share\":%.4f,\"knee\":%zu,\"disturbed\":"
        "%s",
        m->type, (unsigned long long)m->params, (unsigned long long)m->bytes,
        (unsigned long long)e->decode_bytes, e->operations, (unsigned long long)e->memory_bytes,
        e->fits ? "true" : "false", e->calibrated ? "true" : "false", e->prior_share, e->knee,
        request->machine->disturbed ? "true" : "false");
    if (!e->fits) {
        buf_puts(out, ",\"why_not\":");
        json_write_string(out, e->why_not, strlen(e->why_not));
    }
    json_range(out, "load_s", &e->load_s);
    json_range(out, "prefill_s", &e->prefill_s);
    json_range(out, "prefill_tokens_per_s", &e->prefill_tokens_per_s);
    json_range(out, "decode_s", &e->decode_s);
    json_range(out, "decode_tokens_per_s", &e->decode_tokens_per_s);
    buf_printf(out, ",\"ceiling\":{\"prefill_tokens_per_s\":%.6g,\"decode_tokens_per_s\":%.6g}",
               e->ceiling_prefill_tokens_per_s, e->ceiling_tokens_per_s);
    if (request->draft) {
        buf_printf(out, ",\"draft\":{\"tokens\":%zu,\"tokens_per_step\":%.6g,\"speedup\":%.6g", e->draft_len,
                   e->draft_tokens_per_step, e->draft_speedup);
        json_range(out, "tokens_per_s", &e->draft_tokens_per_s);
        buf_putc(out, '}');
    }
    json_stages(request, e, out);
    json_sheets(e, out);
    buf_puts(out, "}\n");
}
