/* Which device holds what, and how much that is.
 *
 * Devices are filled from the fastest on, whole layers at a time, in order; what is left goes to the next and
 * at last to the CPU. A model that fits into the fastest device is not split. Since a token passes stages one
 * after the other, every byte is best where it is read fastest, so filling in that order is the best split.
 * On the CPU the sizes are our engine's own (model.h: runner_memory); on other devices, whose engines are
 * others', the same sizes and a fixed overhead. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/estimate_int.h"

#define ROWS_DEFAULT 512 /* a prefill step of `pharos complete`, and of llama.cpp */
#define GPU_OVERHEAD_BYTES \
    420e6 /* context and kernels of the driver, as CUDA 12 takes on cards of 2016 to 2024 */
#define GPU_ROOM 0.97
#define HOST_ROOM 0.94             /* the rest is the system's, where nobody measured what is available */
#define PROGRAM_BYTES 7e6          /* binary, libraries, stacks: resident beside an empty model */
#define VOCAB_BYTES_A_TOKEN 96.0   /* tables of the tokenizer, and its part of the file */
#define SAMPLER_BYTES_A_TOKEN 20.0 /* candidates, counts, logits */
#define FAULT_BYTES 65536.0 /* a page fault in a mapped file brings its neighbours (fault_around_bytes) */

size_t request_rows(const struct estimate_request *request)
{
    return request->rows_max ? request->rows_max : ROWS_DEFAULT;
}

size_t request_context(const struct estimate_request *request)
{
    size_t needed = request->prompt + request->generate;
    return request->context ? request->context : needed ? needed : 1;
}

uint64_t lora_bytes(const struct estimate_model *model, size_t rank)
{
    const struct runner_widths *w = &model->widths;
    size_t ffn = w->n_expert ? w->n_expert * w->n_ff_expert : w->gate;
    size_t ends = w->n_embd + w->qkv + w->attn + w->n_embd + 3 * (w->n_embd + ffn);
    return rank ? 2 * (uint64_t)rank * ends * model->layer_count : 0;
}

/* ---- Sizes */

static void sizes(const struct estimate_request *r, const struct estimate_model *m, size_t streams,
                  struct runner_memory *out)
{
    size_t rows = request_rows(r), used = r->prompt > streams ? r->prompt : streams;
    struct runner_widths w = m->widths;
    w.lora_count = r->lora_rank > 0 && m == r->model;
    w.lora_rank = w.lora_count ? r->lora_rank : 0;
    const struct runner_params params = {
        .threads = request_threads(r),
        .kv_type = (enum tensor_type)r->kv_type,
        .context_len = request_context(r),
        .rows_max = used < rows ? used : rows, /* a workspace is touched as far as steps have rows */
        .outputs_max = streams,
        .sequences_max = streams,
    };
    runner_memory(&w, &params, out);
}

/* Keys and values of a part of the layers. */
static uint64_t kv_bytes(const struct estimate_request *r, const struct estimate_model *m, size_t streams,
                         size_t first, size_t end)
{
    struct runner_memory memory;
    sizes(r, m, streams, &memory);
    size_t heads = 0;
    for (size_t i = first; i < end; i++)
        heads += m->layers[i].heads_kv;
    double pages = ceil((double)request_context(r) / (double)memory.kv_page_len);
    double head_page = (double)memory.kv_page / (double)m->widths.kv_heads;
    return (uint64_t)((double)streams * pages * head_page * (double)heads);
}

static uint64_t layer_bytes(const struct estimate_model *m, size_t layer)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->tensor_count; i++) {
        const struct estimate_tensor *t = &m->tensors[i];
        if (t->layer == layer && t->place != ESTIMATE_EMBED && t->place != ESTIMATE_OUTPUT)
            bytes += t->bytes;
    }
    return bytes;
}

static uint64_t place_bytes(const struct estimate_model *m, enum estimate_place place)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->tensor_count; i++)
        bytes += m->tensors[i].place == place ? m->tensors[i].bytes : 0;
    return bytes;
}

/* Of an embedding table only the pages around the rows of tokens that came are read. */
static uint64_t touched_embedding(const struct estimate_request *r, const struct estimate_model *m,
                                  size_t streams)
{
    double bytes = (double)place_bytes(m, ESTIMATE_EMBED), chunks = ceil(bytes / FAULT_BYTES);
    double tokens = (double)streams * (double)(r->prompt + r->generate);
    if (chunks < 1)
        return 0;
    return (uint64_t)(bytes * (1 - pow(1 - 1 / chunks, tokens)));
}

/* ---- Placing */

struct candidate_device {
    int device;
    double bandwidth;
    double room, overhead; /* what is there; what of it is not for layers */
};

static void host_room(const struct machine *m, double *room)
{
    *room = m->measured && m->memory_available_bytes ? (double)m->memory_available_bytes
                                                     : HOST_ROOM * (double)m->memory_bytes;
}

static size_t find_devices(const struct estimate_request *r, const struct runner_memory *memory,
                           struct candidate_device out[ESTIMATE_STAGES_MAX])
{
    const struct machine *m = r->machine;
    size_t count = 0;
    for (size_t i = 0; i < m->device_count; i++) {
        const struct machine_device *d = &m->devices[i];
        bool npu = d->kind == MACHINE_NPU;
        if (r->on == ESTIMATE_ON_CPU || (npu && r->on != ESTIMATE_ON_NPU) ||
            (!npu && r->on == ESTIMATE_ON_NPU) || (!npu && r->gpu_layers == 0))
            continue;
        struct candidate_device *c = &out[count];
        *c = (struct candidate_device){(int)i, device_bandwidth(r, (int)i), 0, 0};
        host_room(m, &c->room);
        if (!d->shared_memory) {
            c->room = GPU_ROOM * (double)(d->memory_free_bytes ? d->memory_free_bytes : d->memory_bytes);
            c->overhead = GPU_OVERHEAD_BYTES + (double)memory->workspace;
        }
        count += c->bandwidth > 0;
    }
    if (r->on <= ESTIMATE_ON_CPU && m->memory_points) {
        out[count] = (struct candidate_device){-1, device_bandwidth(r, -1), 0, 0};
        host_room(m, &out[count++].room);
    }
    for (size_t i = 1; i < count; i++) /* the fastest first, as they come where they are alike */
        for (size_t k = i; k > 0 && out[k].bandwidth > out[k - 1].bandwidth; k--) {
            struct candidate_device swap = out[k];
            out[k] = out[k - 1];
            out[k - 1] = swap;
        }
    return count;
}

struct placing {
    const struct estimate_request *request;
    struct estimate *e;
    size_t streams, next; /* layer */
    uint64_t output_bytes;
    bool is_whole;
};

static void fill_device(struct placing *p, const struct candidate_device *c, bool is_last)
{
    const struct estimate_model *m = p->request->model;
    struct estimate_stage s = {
        .device = c->device, .first = p->next, .end = p->next, .room = (uint64_t)(c->room > 0 ? c->room : 0)};
    double left = c->room - c->overhead;
    size_t most = c->device >= 0 ? p->request->gpu_layers : SIZE_MAX, gpu_layers = 0;
    for (size_t i = 0; i < p->e->stage_count; i++)
        gpu_layers += p->e->stages[i].device >= 0 ? p->e->stages[i].end - p->e->stages[i].first : 0;
    while (p->next < m->layer_count && gpu_layers < most) {
        uint64_t bytes = layer_bytes(m, p->next) + kv_bytes(p->request, m, p->streams, p->next, p->next + 1);
        if ((double)bytes > left && !is_last)
            break;
        left -= (double)bytes;
        s.bytes += bytes;
        s.end = ++p->next;
        gpu_layers++;
    }
    bool output_fits = (double)p->output_bytes <= left || is_last;
    if (p->next == m->layer_count && !p->is_whole && output_fits) {
        s.outputs = p->is_whole = true;
        s.bytes += p->output_bytes;
    }
    if (s.end > s.first || s.outputs)
        p->e->stages[p->e->stage_count++] = s;
}

/* ---- The memory sheet */

static bool is_here(const struct estimate_stage *s, const struct estimate_tensor *t)
{
    if (t->place == ESTIMATE_OUTPUT)
        return s->outputs;
    return t->place != ESTIMATE_EMBED && t->layer >= s->first && t->layer < s->end;
}

static void weights_by_type(struct estimate_sheet *sheet, const struct estimate_model *m,
                            const struct estimate_stage *s)
{
    for (size_t i = 0; i < m->tensor_count; i++) {
        uint64_t bytes = 0, params = 0;
        size_t count = 0, first = i;
        for (size_t k = 0; k < m->tensor_count; k++) {
            const struct estimate_tensor *t = &m->tensors[k];
            if (!is_here(s, t) || strcmp(t->type, m->tensors[i].type) != 0)
                continue;
            first = count++ ? first : k;
            bytes += t->bytes;
            params += t->params;
        }
        char name[72];
        snprintf(name, sizeof name, "%s weights", m->tensors[i].type);
        if (count && first == i)
            sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, (double)bytes, name,
                      "%zu tensors, %llu parameters, %.3f bits each", count, (unsigned long long)params,
                      8.0 * (double)bytes / (double)params);
    }
}

static void kv_line(struct estimate_sheet *sheet, const struct placing *p, const struct estimate_model *m,
                    size_t first, size_t end, const char *name)
{
    const struct estimate_request *r = p->request;
    size_t heads = 0;
    for (size_t i = first; i < end; i++)
        heads += m->layers[i].heads_kv;
    sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, (double)kv_bytes(r, m, p->streams, first, end), name,
              "%zu streams x %zu tokens in pages of 32 x %zu heads x %zu bytes (%s)", p->streams,
              request_context(r), heads, kv_row_bytes(r, m), tensor_format((uint32_t)r->kv_type)->name);
}

static void host_lines(struct estimate_sheet *sheet, const struct placing *p,
                       const struct runner_memory *memory, bool computes)
{
    const struct estimate_request *r = p->request;
    const struct estimate_model *m = r->model;
    double vocab = (double)m->widths.n_vocab;
    sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, (double)touched_embedding(r, m, p->streams), "embedding rows",
              "pages of 64 KiB around %zu tokens' rows, of %llu bytes",
              p->streams * (r->prompt + r->generate), (unsigned long long)place_bytes(m, ESTIMATE_EMBED));
    if (computes) {
        sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, (double)memory->workspace, "workspace",
                  "as the runner plans it for %zu rows a step",
                  r->prompt < request_rows(r) ? r->prompt : request_rows(r));
        sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, (double)memory->lanes, "threads' scratch", "%u threads",
                  request_threads(r));
    }
    sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, SAMPLER_BYTES_A_TOKEN * vocab * (double)p->streams,
              "logits and samplers", "%zu streams x %.0f tokens x %.0f bytes", p->streams, vocab,
              SAMPLER_BYTES_A_TOKEN);
    sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, VOCAB_BYTES_A_TOKEN * vocab, "vocabulary",
              "%.0f tokens x %.0f bytes", vocab, VOCAB_BYTES_A_TOKEN);
    sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, PROGRAM_BYTES, "program",
              "binary, libraries, stacks: measured once");
}

static void stage_lines(struct estimate_sheet *sheet, const struct placing *p, const struct estimate_stage *s,
                        const struct runner_memory *memory)
{
    const struct estimate_request *r = p->request;
    const struct estimate_model *m = r->model;
    char room[32];
    estimate_human_bytes((double)s->room, room);
    sheet_add(sheet, LINE_SUM, 1, UNIT_BYTES, 0, device_name(r->machine, s->device),
              "layers %zu to %zu of %zu%s; room %s", s->first, s->end ? s->end - 1 : 0, m->layer_count,
              s->outputs ? ", output" : "", room);
    weights_by_type(sheet, m, s);
    kv_line(sheet, p, m, s->first, s->end, "keys and values");
    if (r->lora_rank)
        sheet_add(sheet, LINE_PART, 2, UNIT_BYTES,
                  (double)lora_bytes(m, r->lora_rank) * (double)(s->end - s->first) / (double)m->layer_count,
                  "adapter", "rank %zu x inputs and outputs of every matrix x 2 bytes", r->lora_rank);
    if (s->device >= 0 && !r->machine->devices[s->device].shared_memory) {
        sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, (double)memory->workspace, "compute buffers",
                  "as our runner plans them; another engine's differ");
        sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, GPU_OVERHEAD_BYTES, "driver", "context and kernels");
    }
    if (r->draft && s == p->e->stages) {
        sheet_add(sheet, LINE_PART, 2, UNIT_BYTES, (double)r->draft->bytes, "draft model's weights", "%s %s",
                  r->draft->name, r->draft->type);
        kv_line(sheet, p, r->draft, 0, r->draft->layer_count, "draft model's keys and values");
    }
}

/* The host is there also where every layer is elsewhere: it looks embeddings up and samples. */
static void make_sheet(const struct placing *p, const struct runner_memory *memory,
                       struct estimate_sheet *sheet)
{
    const struct estimate *e = p->e;
    bool hosted = false;
    sheet_add(sheet, LINE_SUM, 0, UNIT_BYTES, 0, "memory", "%s %s", p->request->model->name,
              p->request->model->type);
    for (size_t i = 0; i < e->stage_count; i++) {
        const struct estimate_stage *s = &e->stages[i];
        bool host = s->device < 0 || p->request->machine->devices[s->device].shared_memory;
        stage_lines(sheet, p, s, memory);
        if (host && !hosted)
            host_lines(sheet, p, memory, true);
        hosted = hosted || host;
    }
    if (!hosted) {
        sheet_add(sheet, LINE_SUM, 1, UNIT_BYTES, 0,
                  p->request->machine->cpu[0] ? p->request->machine->cpu : "host", "no layers");
        host_lines(sheet, p, memory, false);
    }
    if (sheet)
        sheet_sum(sheet);
}

/* What the sheet says of each device, against its room. */
static void check_room(struct estimate *e, const struct placing *p, const struct estimate_sheet *sheet)
{
    size_t stage = 0;
    for (size_t i = 0; i < sheet->count && stage < e->stage_count; i++) {
        const struct estimate_line *line = &sheet->lines[i];
        if (line->kind != LINE_SUM || line->depth != 1)
            continue;
        struct estimate_stage *s = &e->stages[stage++];
        s->bytes = line->value;
        double room = (double)s->room;
        if ((double)s->bytes <= room)
            continue;
        char has[32], needs[32];
        estimate_human_bytes(room, has);
        estimate_human_bytes((double)s->bytes, needs);
        e->fits = false;
        snprintf(
            e->why_not, sizeof e->why_not,
            "%.40s has room for %s and would need %s: take a smaller --type or --context, or more memory",
            device_name(p->request->machine, s->device), has, needs);
    }
}

bool place_model(const struct estimate_request *request, struct estimate *e, size_t streams,
                 struct estimate_sheet *sheet)
{
    struct runner_memory memory;
    struct candidate_device devices[ESTIMATE_STAGES_MAX];
    struct placing p = {.request = request,
                        .e = e,
                        .streams = streams,
                        .output_bytes = place_bytes(request->model, ESTIMATE_OUTPUT)};
    sizes(request, request->model, streams, &memory);
    size_t count = find_devices(request, &memory, devices);
    e->stage_count = 0;
    e->fits = count > 0;
    for (size_t i = 0; i < count && !p.is_whole; i++)
        fill_device(&p, &devices[i], i + 1 == count);
    if (count == 0)
        snprintf(e->why_not, sizeof e->why_not,
                 "%.60s has no such device of a known bandwidth: name another with "
                 "--hardware or --on",
                 request->machine->name);
    if (count && !p.is_whole) { /* gpu_layers left some over, and nobody is there to take them */
        e->fits = false;
        e->stage_count = 0;
        snprintf(e->why_not, sizeof e->why_not,
                 "%zu layers have no place: take more --gpu-layers, or a machine with a CPU",
                 request->model->layer_count - p.next);
    }
    if (!e->stage_count)
        return false;
    make_sheet(&p, &memory, sheet);
    check_room(e, &p, sheet);
    return e->fits;
}

uint64_t memory_of_streams(const struct estimate_request *request, const struct estimate *e, size_t streams)
{
    uint64_t one = kv_bytes(request, request->model, 1, 0, request->model->layer_count);
    uint64_t sampling = (uint64_t)(SAMPLER_BYTES_A_TOKEN * (double)request->model->widths.n_vocab);
    size_t base = request->streams;
    return streams >= base ? e->memory_bytes + (streams - base) * (one + sampling)
                           : e->memory_bytes - (base - streams) * (one + sampling);
}
