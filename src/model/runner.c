/* Runner: the memory and the threads that run one model, made once; and the checking of a step's rows.
 *
 * The workspace is planned twice with the same code: first from address 0, to learn its size, then from the
 * memory of that size. It is zeroed memory of the operating system's, touched only as far as steps are large.
 * A step validates all rows before it changes anything, so that a refused step leaves no trace. */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "model/forward_int.h"

#define ROWS_DEFAULT 512

/* ---- Workspace */
static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

void model_widths(const struct model *m, struct runner_widths *out)
{
    struct runner_widths w = {.n_embd = m->hp.n_embd,
                              .n_vocab = m->hp.n_vocab,
                              .head_dim_k = m->hp.head_dim_k,
                              .head_dim_v = m->hp.head_dim_v,
                              .rope_dims = m->hp.rope_dims,
                              .windowed = m->hp.window > 0};
    bool moe = false;
    for (size_t i = 0; i < m->hp.n_layer; i++) {
        const struct model_layer *l = &m->layers[i];
        size_t qkv = layer_q_dim(m, l) + layer_k_dim(m, l) + layer_v_dim(m, l);
        size_t dense = l->traits & FACT_MOE ? 0 : l->n_ff;
        w.kv_heads += l->n_head_kv;
        w.qkv = larger(w.qkv, qkv);
        w.attn = larger(w.attn, layer_o_dim(m, l));
        w.gate = larger(w.gate, dense);
        w.up = larger(w.up, l->traits & FACT_GATE_FUSED ? 2 * dense : dense);
        w.group = larger(w.group, l->n_head / l->n_head_kv);
        moe = moe || (l->traits & FACT_MOE);
    }
    if (moe) {
        w.gate = larger(w.gate, m->hp.n_ff_shared);
        w.up = larger(w.up, m->hp.n_ff_shared);
        w.n_expert = m->hp.n_expert;
        w.n_expert_used = m->hp.n_expert_used;
        w.n_ff_expert = m->hp.n_ff_expert;
    }
    *out = w;
}

static size_t widest_input(const struct runner_widths *w)
{
    return larger(larger(w->n_embd, w->n_ff_expert), larger(w->attn, w->gate));
}

static size_t widest_output(const struct runner_widths *w)
{
    return larger(larger(w->n_vocab, w->n_embd), larger(w->qkv, w->up));
}

static void plan_experts(struct plan *p, struct runner *r)
{
    const struct runner_widths *w = &r->widths;
    size_t slots = r->rows_max * w->n_expert_used;
    struct workspace *ws = &r->ws;
    ws->router = plan_take(p, r->rows_max * w->n_expert, sizeof(float));
    ws->chosen = plan_take(p, slots, sizeof(uint32_t));
    ws->chosen_weight = plan_take(p, slots, sizeof(float));
    ws->place = plan_take(p, slots, sizeof(uint32_t));
    ws->source = plan_take(p, slots, sizeof(uint32_t));
    ws->owner = plan_take(p, slots, sizeof(uint32_t));
    ws->first = plan_take(p, w->n_expert + 1, sizeof(uint32_t));
    ws->expert_x = plan_take(p, slots * w->n_embd, sizeof(float));
    ws->expert_gate = plan_take(p, slots * w->n_ff_expert, sizeof(float));
    ws->expert_up = plan_take(p, slots * w->n_ff_expert, sizeof(float));
}

static void plan_loras(struct plan *p, struct runner *r)
{
    const struct runner_widths *w = &r->widths;
    r->low_row_len = 2 * w->lora_rank;
    r->ws.low = plan_take(p, r->rows_max * r->low_row_len, sizeof(float));
    r->ws.low_out =
        plan_take(p, larger(r->rows_max * widest_output(w), r->outputs_max * w->n_vocab), sizeof(float));
    r->ws.low_act = plan_take(p, act_workspace_bytes(r->rows_max, w->lora_rank), 1);
}

static void plan_workspace(struct plan *p, struct runner *r)
{
    const struct runner_widths *w = &r->widths;
    struct workspace *ws = &r->ws;
    size_t rows = r->rows_max;
    r->rows = plan_take(p, rows, sizeof *r->rows);
    r->wanted = plan_take(p, rows, sizeof *r->wanted);
    r->tiles = plan_take(p, rows, sizeof *r->tiles);
    r->wanted_tiles = plan_take(p, rows, sizeof *r->wanted_tiles);
    ws->x = plan_take(p, rows * w->n_embd, sizeof(float));
    ws->xn = plan_take(p, rows * w->n_embd, sizeof(float));
    ws->out = plan_take(p, rows * w->n_embd, sizeof(float));
    ws->qkv = plan_take(p, rows * w->qkv, sizeof(float));
    ws->attn = plan_take(p, rows * w->attn, sizeof(float));
    ws->gate = plan_take(p, rows * w->gate, sizeof(float));
    ws->up = plan_take(p, rows * w->up, sizeof(float));
    ws->logits = plan_take(p, r->outputs_max > 1 ? r->outputs_max * w->n_vocab : 0, sizeof(float));
    ws->zeros = plan_take(p, larger(w->n_embd, w->qkv), sizeof(float));
    ws->act = plan_take(p, act_workspace_bytes(rows, widest_input(w)), 1);
    for (int i = 0; i < ROPE_COUNT; i++) {
        bool used = w->rope_dims > 0 && (i == ROPE_FULL || w->windowed);
        r->rope[i].freq = plan_take(p, w->rope_dims / 2, sizeof(double));
        ws->cos_sin[i] = used ? plan_take(p, rows * w->rope_dims, sizeof(float)) : NULL;
    }
    if (w->n_expert)
        plan_experts(p, r);
    if (w->lora_count)
        plan_loras(p, r);
}

static size_t page_scratch_bytes(size_t pages_seq_max)
{
    return (2 * pages_seq_max * sizeof(void *) + 63) & ~(size_t)63;
}

static size_t lane_scratch_bytes(const struct runner_widths *w, size_t pages_seq_max)
{
    size_t one = tensor_attend_scratch_bytes(w->group, KV_PAGE_LEN, w->head_dim_k, w->head_dim_v);
    size_t tile =
        tensor_attend_rows_scratch_bytes(ATTN_TILE_ROWS, w->group, KV_PAGE_LEN, w->head_dim_k, w->head_dim_v);
    return page_scratch_bytes(pages_seq_max) + larger(one, tile);
}

void runner_memory(const struct runner_widths *widths, const struct runner_params *params,
                   struct runner_memory *out)
{
    struct runner r = {.widths = *widths, .rows_max = params->rows_max, .outputs_max = params->outputs_max};
    struct plan plan = {0};
    plan_workspace(&plan, &r);
    size_t page = kv_page_bytes(widths->kv_heads, tensor_row_bytes(params->kv_type, widths->head_dim_k),
                                tensor_row_bytes(params->kv_type, widths->head_dim_v));
    size_t pages_seq_max = (params->context_len + KV_PAGE_LEN - 1) / KV_PAGE_LEN;
    *out = (struct runner_memory){
        .workspace = plan.bytes,
        .kv_page = page,
        .kv_page_len = KV_PAGE_LEN,
        .kv_pages = params->kv_bytes_max ? params->kv_bytes_max / page : pages_seq_max,
        .lanes = pool_scratch_bytes(params->threads, lane_scratch_bytes(widths, pages_seq_max)),
    };
}

static enum ph_status make_workspace(struct runner *r, struct ph_err *err)
{
    struct plan plan = {0};
    plan_workspace(&plan, r);
    r->memory = mem_calloc(plan.bytes + 64, 1);
    if (!r->memory)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for a workspace of %zu bytes (%zu rows a step)",
                       r->model->info.name, plan.bytes, r->rows_max);
    plan = (struct plan){.base = (uint8_t *)(((uintptr_t)r->memory + 63) & ~(uintptr_t)63)};
    plan_workspace(&plan, r);
    return PH_OK;
}

/* ---- Making and freeing */
static enum ph_status take_loras(struct runner *r, const struct runner_params *params, struct ph_err *err)
{
    if (params->lora_count > RUNNER_LORAS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%zu adapters are more than %d", params->lora_count,
                       RUNNER_LORAS_MAX);
    r->loras = mem_calloc(params->lora_count, sizeof *r->loras);
    if (!r->loras)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for adapters");
    for (size_t i = 0; i < params->lora_count; i++) {
        if (params->loras[i]->model != r->model)
            return ph_fail(err, PH_ERR_ARG, "adapter %s was opened for another model",
                           gguf_path(params->loras[i]->gguf));
        r->loras[i] =
            (struct lora_use){params->loras[i], params->lora_scales ? params->lora_scales[i] : 1.0f};
    }
    r->lora_count = r->widths.lora_count = params->lora_count;
    for (size_t i = 0; i < r->lora_count; i++)
        r->widths.lora_rank = larger(r->widths.lora_rank, r->loras[i].lora->rank_max);
    return PH_OK;
}

static enum ph_status take_params(struct runner *r, const struct runner_params *params, struct ph_err *err)
{
    const struct hparams *hp = &r->model->hp;
    r->rows_max = params->rows_max ? params->rows_max : ROWS_DEFAULT;
    r->outputs_max = params->outputs_max ? params->outputs_max : 1;
    if (r->rows_max > RUNNER_ROWS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%zu rows a step are more than %d", r->rows_max, RUNNER_ROWS_MAX);
    if (r->outputs_max > r->rows_max)
        r->outputs_max = r->rows_max;
    if (params->sequences_max > RUNNER_SEQUENCES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%zu sequences are more than %d", params->sequences_max,
                       RUNNER_SEQUENCES_MAX);
    r->kv.context_len = params->context_len ? params->context_len : hp->n_context;
    if (r->kv.context_len > MODEL_CONTEXT_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "a context of %zu tokens is more than %u", r->kv.context_len,
                       MODEL_CONTEXT_MAX);
    r->watch = params->watch;
    r->kernels = kernels_select(params->kernels);
    if (!r->kernels)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "kernels \"%s\" are unknown or cannot run on this CPU",
                       params->kernels ? params->kernels : "");
    return take_loras(r, params, err);
}

static void make_rope(struct runner *r)
{
    const struct model *m = r->model;
    const float *factors = rope_factors(m, r->kv.context_len);
    for (int i = 0; i < ROPE_COUNT; i++) {
        bool plain = i == ROPE_WINDOWED && (m->arch->traits & TRAIT_PLAIN_WINDOW);
        rope_init(&r->rope[i], &m->hp.rope[i], m->hp.rope_dims, plain ? NULL : factors, r->rope[i].freq);
    }
}

static enum ph_status make_pool(struct runner *r, unsigned threads, struct ph_err *err)
{
    size_t pages = r->kv.pages_seq_max;
    r->page_scratch_bytes = page_scratch_bytes(pages);
    return pool_create(&r->pool, threads, lane_scratch_bytes(&r->widths, pages), r->kernels, err);
}

enum ph_status runner_create(struct runner **out, const struct model *model,
                             const struct runner_params *params, struct ph_err *err)
{
    *out = NULL;
    if (!model->arch)
        return ph_fail(err, PH_ERR_ARG, "%s was opened for its vocabulary only", model->info.name);
    if (model_is_encoder(model))
        return ph_fail(err, PH_ERR_UNSUPPORTED,
                       "%s is an embedding model (%s): it makes vectors of texts and writes none",
                       model->info.name, model->info.architecture);
    struct runner *r = mem_calloc(1, sizeof *r);
    if (!r)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for a runner", model->info.name);
    r->model = model;
    model_widths(model, &r->widths);
    enum ph_status status = take_params(r, params, err);
    if (status == PH_OK)
        status = kv_create(&r->kv, model, params->kv_type, r->kv.context_len, params->kv_bytes_max,
                           params->sequences_max ? params->sequences_max : 1, err);
    if (status == PH_OK)
        status = make_workspace(r, err);
    if (status == PH_OK)
        status = make_pool(r, params->threads, err);
    if (status == PH_OK) {
        make_rope(r);
        *out = r;
    } else {
        runner_free(r);
    }
    return status;
}

void runner_free(struct runner *runner)
{
    if (!runner)
        return;
    pool_free(runner->pool);
    kv_release(&runner->kv);
    mem_free(runner->memory);
    mem_free(runner->loras);
    mem_free(runner);
}

struct pool *runner_pool(struct runner *runner)
{
    return runner->pool;
}

size_t runner_context_len(const struct runner *runner)
{
    return runner->kv.context_len;
}

/* ---- One step */
static enum ph_status check_row(const struct runner *r, const struct runner_row *rows, size_t i,
                                size_t position, struct ph_err *err)
{
    const struct runner_row *row = &rows[i];
    if (row->token < 0 || (size_t)row->token >= r->model->hp.n_vocab)
        return ph_fail(err, PH_ERR_ARG, "token id %d of row %zu is outside the vocabulary of %zu", row->token,
                       i, r->model->hp.n_vocab);
    if (position >= row->seq->page_count * KV_PAGE_LEN)
        return ph_fail(err, PH_ERR_LIMIT, "row %zu: position %zu has no room reserved", i, position);
    return PH_OK;
}

static enum ph_status take_rows(struct runner *r, const struct runner_row *rows, size_t count,
                                struct ph_err *err)
{
    size_t wanted = 0, position = 0;
    for (size_t i = 0; i < count; i++) {
        struct kv_seq *seq = rows[i].seq;
        bool begins = i == 0 || seq != rows[i - 1].seq;
        if (!seq || seq->cache != &r->kv || !seq->taken)
            return ph_fail(err, PH_ERR_ARG, "row %zu has no sequence of this runner", i);
        if (begins && seq->step == r->step)
            return ph_fail(err, PH_ERR_ARG, "rows of one sequence must follow each other, row %zu does not",
                           i);
        seq->step = r->step;
        position = begins ? seq->len : position + 1;
        enum ph_status status = check_row(r, rows, i, position, err);
        if (status != PH_OK)
            return status;
        r->rows[i] = (struct step_row){seq, position, rows[i].token, rows[i].logits};
        if (!rows[i].logits)
            continue;
        if (wanted == r->outputs_max)
            return ph_fail(err, PH_ERR_LIMIT, "more than %zu rows want logits", r->outputs_max);
        r->wanted[wanted++] = (uint32_t)i;
    }
    r->n_rows = count;
    r->n_wanted = wanted;
    return PH_OK;
}

/* which [n]: rows of the step, ascending; NULL: all. */
static size_t make_tiles(const struct runner *r, const uint32_t *which, size_t n, struct attn_tile *tiles)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t row = which ? which[i] : (uint32_t)i;
        struct attn_tile *last = count ? &tiles[count - 1] : NULL;
        if (last && last->rows < ATTN_TILE_ROWS && last->first + last->rows == row &&
            r->rows[row].seq == r->rows[last->first].seq)
            last->rows++;
        else
            tiles[count++] = (struct attn_tile){.first = row, .rows = 1, .to = (uint32_t)i};
    }
    return count;
}

enum ph_status runner_step(struct runner *runner, const struct runner_row *rows, size_t count,
                           enum phase phase, struct ph_err *err)
{
    if (count == 0)
        return PH_OK;
    if (count > runner->rows_max)
        return ph_fail(err, PH_ERR_LIMIT, "a step of %zu rows is more than the %zu this runner was made for",
                       count, runner->rows_max);
    runner->step++;
    enum ph_status status = take_rows(runner, rows, count, err);
    if (status != PH_OK)
        return status;
    runner->phase = phase;
    runner->n_tiles = make_tiles(runner, NULL, runner->n_rows, runner->tiles);
    runner->n_wanted_tiles = make_tiles(runner, runner->wanted, runner->n_wanted, runner->wanted_tiles);
    pool_run(runner->pool, forward_lane, runner);
    for (size_t i = 0; i < count; i++)
        runner->rows[i].seq->len = runner->rows[i].position + 1;
    return PH_OK;
}
