/* The forward pass: one sequence of operations for every architecture, run by all lanes together.
 *
 * A layer is: project q, k, v; shape them (bias, norm, rotation) and store k and v; attend; project; add;
 * then the feed-forward part; add. What an architecture leaves out is a NULL tensor or a trait. Lanes share
 * rows out on demand and meet at barriers; a product (tensor_matmul) ends with a barrier of its own.
 *
 * Invariants:
 *  F1  All lanes take the same path: every branch depends on the model and the step, never on a lane.
 *  F2  A row's numbers depend on its own sequence, the weights and the phase alone (T1): no sum runs over
 *      rows.
 *  F3  In the last layer only rows that want logits go on after their keys and values are stored. Their
 *      places close up: from then on row i means the i-th wanted row. */
#include <math.h>
#include <string.h>

#include "model/forward_int.h"

/* ---- Products */
static void add_low_rank(struct lane *lane, struct runner *r, const struct lora_pair *pair, size_t expert,
                         float scale, struct act *x, float *y, size_t stride)
{
    struct matrix a = pair->a, b = pair->b;
    a.data = (const uint8_t *)a.data + expert * matrix_bytes(&a);
    b.data = (const uint8_t *)b.data + expert * matrix_bytes(&b);
    tensor_matmul(lane, &a, x, r->ws.low, a.rows, r->phase);
    struct act low;
    act_init(&low, r->ws.low, x->n, a.rows, r->ws.low_act);
    tensor_matmul(lane, &b, &low, r->ws.low_out, b.rows, r->phase);
    size_t first, end;
    while (lane_take(lane, x->n, 1, &first, &end))
        for (size_t i = first; i < end; i++)
            tensor_axpy(lane->kernels, y + i * stride, scale, r->ws.low_out + i * b.rows, b.rows);
    lane_barrier(lane);
}

static float pair_scale(const struct lora_use *use, size_t rank)
{
    return use->lora->alpha != 0 ? use->scale * use->lora->alpha / (float)rank : use->scale;
}

static void project_low_rank(struct lane *lane, struct runner *r, size_t layer, const struct projection *p,
                             struct act *x)
{
    for (size_t i = 0; i < r->lora_count; i++) {
        const struct lora_use *use = &r->loras[i];
        const struct lora_pair *pair = &use->lora->pairs[layer * W_COUNT + p->slot];
        if (pair->a.data)
            add_low_rank(lane, r, pair, p->expert, pair_scale(use, pair->a.rows), x, p->y, p->y_stride);
    }
}

/* The caller's lane tells its watcher, who may look until this lane joins the product. */
static void show_input(const struct lane *lane, const struct runner *r, const struct matrix *w, size_t expert,
                       const struct act *x)
{
    if (r->watch.see && lane->index == 0)
        r->watch.see(r->watch.ud, w->data, expert, x->x, x->n, x->d);
}

void forward_project(struct lane *lane, struct runner *r, size_t layer, const struct projection *projections,
                     size_t count, struct act *x)
{
    struct matmul matmuls[MATMULS_MAX] = {0};
    for (size_t i = 0; i < count; i++) {
        const struct projection *p = &projections[i];
        struct matrix w = r->model->layers[layer].weight[p->slot];
        show_input(lane, r, &w, p->expert, x);
        w.data = (const uint8_t *)w.data + p->expert * matrix_bytes(&w);
        matmuls[i] = (struct matmul){w, p->y, p->y_stride};
    }
    tensor_matmuls(lane, matmuls, count, x, r->phase);
    for (size_t i = 0; i < count; i++)
        project_low_rank(lane, r, layer, &projections[i], x);
}

/* ---- Rows */
static void norm_row(const struct runner *r, float *y, const float *x, const float *weight, const float *bias)
{
    size_t d = r->model->hp.n_embd;
    if (!weight) {
        if (y != x)
            memcpy(y, x, d * sizeof *y);
    } else if (r->model->arch->norm == NORM_RMS) {
        tensor_rms_norm(r->kernels, y, x, weight, d, r->model->hp.norm_eps);
    } else {
        tensor_layer_norm(r->kernels, y, x, weight, bias ? bias : r->ws.zeros, d, r->model->hp.norm_eps);
    }
}

/* The norm that what leaves layer `index` goes through: the next layer's first, or the last of all. */
static void norm_for_next(const struct runner *r, size_t index, size_t row)
{
    const struct model *m = r->model;
    size_t d = m->hp.n_embd;
    float *xn = r->ws.xn + row * d;
    const float *x = r->ws.x + row * d;
    if (index == m->hp.n_layer)
        norm_row(r, xn, x, m->vector[G_OUTPUT_NORM], m->vector[G_OUTPUT_NORM_B]);
    else
        norm_row(r, xn, x, m->layers[index].vector[V_ATTN_NORM], m->layers[index].vector[V_ATTN_NORM_B]);
}

/* An adapter of the embedding table holds A a row for each token: x += scale * B A[token]. */
static void embed_low_rank(const struct runner *r, int32_t token, float *scratch, float *x)
{
    for (size_t i = 0; i < r->lora_count; i++) {
        const struct lora_pair *pair = &r->loras[i].lora->global[G_EMBED];
        if (!pair->a.data)
            continue;
        size_t rank = pair->a.cols, d = pair->b.rows;
        float scale = pair_scale(&r->loras[i], rank), *a = scratch, *b = scratch + rank;
        size_t a_bytes = tensor_row_bytes(pair->a.type, rank), b_bytes = tensor_row_bytes(pair->b.type, rank);
        tensor_dequantize(pair->a.type, (const uint8_t *)pair->a.data + (size_t)token * a_bytes, a, rank);
        for (size_t j = 0; j < d; j++) {
            tensor_dequantize(pair->b.type, (const uint8_t *)pair->b.data + j * b_bytes, b, rank);
            x[j] += scale * tensor_dot(r->kernels, a, b, rank);
        }
    }
}

static void embed_row(const struct runner *r, size_t row)
{
    const struct hparams *hp = &r->model->hp;
    const struct matrix *table = &r->model->weight[G_EMBED];
    int32_t token = r->rows[row].token;
    float *x = r->ws.x + row * hp->n_embd;
    size_t bytes = tensor_row_bytes(table->type, table->cols);
    tensor_dequantize(table->type, (const uint8_t *)table->data + (size_t)token * bytes, x, hp->n_embd);
    if (r->lora_count)
        embed_low_rank(r, token, r->ws.low + row * r->low_row_len, x);
    if (hp->embedding_scale != 1.0f)
        tensor_scale(r->kernels, x, hp->embedding_scale, hp->n_embd);
    for (int i = 0; i < ROPE_COUNT; i++)
        if (r->ws.cos_sin[i])
            rope_table(&r->rope[i], r->rows[row].position, r->ws.cos_sin[i] + row * 2 * r->rope[i].pairs);
    norm_for_next(r, 0, row);
}

static void embed(struct lane *lane, struct runner *r)
{
    size_t first, end;
    while (lane_take(lane, r->n_rows, 1, &first, &end))
        for (size_t i = first; i < end; i++)
            embed_row(r, i);
    lane_barrier(lane);
}

/* ---- Attention */
struct qkv {
    size_t q, k, v, stride; /* widths of the parts, and of a row */
};

static struct qkv qkv_widths(const struct model *m, const struct model_layer *l)
{
    struct qkv w = {.q = layer_q_dim(m, l), .k = layer_k_dim(m, l), .v = layer_v_dim(m, l)};
    w.stride = w.q + w.k + w.v;
    return w;
}

static void project_qkv(struct lane *lane, struct runner *r, size_t index)
{
    const struct model_layer *l = &r->model->layers[index];
    struct qkv w = qkv_widths(r->model, l);
    struct act xn;
    act_init(&xn, r->ws.xn, r->n_rows, r->model->hp.n_embd, r->ws.act);
    float *q = r->ws.qkv, *k = q + w.q, *v = k + w.k;
    const struct projection fused = {W_QKV, 0, q, w.stride};
    const struct projection split[] = {{W_Q, 0, q, w.stride}, {W_K, 0, k, w.stride}, {W_V, 0, v, w.stride}};
    if (l->traits & FACT_QKV_FUSED)
        forward_project(lane, r, index, &fused, 1, &xn);
    else
        forward_project(lane, r, index, split, 3, &xn);
}

static void add_bias(const struct kernels *k, float *y, const float *bias, size_t len)
{
    if (bias)
        tensor_add(k, y, bias, len);
}

/* Norms the heads of q or of k. */
static void norm_heads(const struct runner *r, const struct model_layer *l, float *x, size_t heads,
                       const float *weight)
{
    const struct hparams *hp = &r->model->hp;
    if (!weight)
        return;
    bool row = (l->traits & TRAIT_QK_NORM_ROW) != 0;
    size_t len = row ? heads * hp->head_dim_k : hp->head_dim_k;
    size_t step = l->traits & TRAIT_QK_NORM_EACH ? len : 0;
    for (size_t h = 0; h < (row ? 1 : heads); h++)
        if (r->model->arch->norm == NORM_RMS)
            tensor_rms_norm(r->kernels, x + h * len, x + h * len, weight + h * step, len, hp->norm_eps);
        else
            tensor_layer_norm(r->kernels, x + h * len, x + h * len, weight + h * step, r->ws.zeros, len,
                              hp->norm_eps);
}

static void norm_qk(const struct runner *r, const struct model_layer *l, float *q, float *k)
{
    norm_heads(r, l, q, l->n_head, l->vector[V_Q_NORM]);
    norm_heads(r, l, k, l->n_head_kv, l->vector[V_K_NORM]);
}

/* Query heads and key heads follow each other. */
static void rotate_heads(const struct runner *r, const struct model_layer *l, float *x, size_t heads,
                         size_t row)
{
    if (!l->rotary)
        return;
    const struct rope *rope = &r->rope[l->rope];
    const float *table = r->ws.cos_sin[l->rope] + row * 2 * rope->pairs;
    for (size_t h = 0; h < heads; h++)
        tensor_rope(r->kernels, x + h * r->model->hp.head_dim_k, table, rope->pairs,
                    r->model->arch->rope == ROPE_NEOX);
}

static void store_kv(const struct runner *r, const struct model_layer *l, size_t index,
                     const struct step_row *row, const float *k, const float *v)
{
    const struct kv_cache *kv = &r->kv;
    const struct hparams *hp = &r->model->hp;
    uint8_t *page = kv_page(kv, row->seq, row->position / KV_PAGE_LEN);
    size_t at = row->position % KV_PAGE_LEN;
    for (size_t h = 0; h < l->n_head_kv; h++) {
        uint8_t *k_row = page + kv->layers[index].k + (h * KV_PAGE_LEN + at) * kv->k_row_bytes;
        uint8_t *v_row = page + kv->layers[index].v + (h * KV_PAGE_LEN + at) * kv->v_row_bytes;
        tensor_kv_store(r->kernels, kv->type, k + h * hp->head_dim_k, k_row, hp->head_dim_k);
        tensor_kv_store(r->kernels, kv->type, v + h * hp->head_dim_v, v_row, hp->head_dim_v);
    }
}

/* Models with a temperature sharpen attention beyond the context they were first trained with. */
static float temperature(const struct hparams *hp, size_t position)
{
    double original = (double)hp->rope[ROPE_FULL].context_original;
    double growth = log(floor((double)position / original) + 1);
    return (float)(growth * (double)hp->temperature_scale + 1);
}

static void shape_row(const struct runner *r, size_t index, size_t row)
{
    const struct model_layer *l = &r->model->layers[index];
    struct qkv w = qkv_widths(r->model, l);
    float *q = r->ws.qkv + row * w.stride, *k = q + w.q, *v = k + w.k;
    add_bias(r->kernels, q, l->vector[V_QKV_B], w.stride);
    add_bias(r->kernels, q, l->vector[V_Q_B], w.q);
    add_bias(r->kernels, k, l->vector[V_K_B], w.k);
    add_bias(r->kernels, v, l->vector[V_V_B], w.v);
    if (l->traits & TRAIT_QK_NORM_LATE) {
        rotate_heads(r, l, q, l->n_head + l->n_head_kv, row);
        norm_qk(r, l, q, k);
    } else {
        norm_qk(r, l, q, k);
        rotate_heads(r, l, q, l->n_head + l->n_head_kv, row);
    }
    if (r->model->hp.temperature_scale != 0)
        tensor_scale(r->kernels, q, temperature(&r->model->hp, r->rows[row].position), w.q);
    store_kv(r, l, index, &r->rows[row], k, v);
}

/* The pages of one head of one sequence, as tensor_attend wants them. */
struct head_pages {
    const struct kv_seq *seq;
    size_t head;
    const void **k, **v;
};

static void point_pages(struct head_pages *p, const struct runner *r, size_t index, const struct kv_seq *seq,
                        size_t head)
{
    if (p->seq == seq && p->head == head)
        return;
    const struct kv_cache *kv = &r->kv;
    for (size_t i = 0; i < seq->page_count; i++) {
        const uint8_t *page = kv_page(kv, seq, i);
        p->k[i] = page + kv->layers[index].k + head * KV_PAGE_LEN * kv->k_row_bytes;
        p->v[i] = page + kv->layers[index].v + head * KV_PAGE_LEN * kv->v_row_bytes;
    }
    p->seq = seq;
    p->head = head;
}

/* What attention of a row needs to know; `head` is the first query head. */
static struct attn describe(struct head_pages *pages, const struct runner *r, size_t index,
                            const struct step_row *row, size_t head)
{
    const struct model_layer *l = &r->model->layers[index];
    const struct hparams *hp = &r->model->hp;
    size_t end = row->position + 1;
    point_pages(pages, r, index, row->seq, head / (l->n_head / l->n_head_kv));
    return (struct attn){.type = r->kv.type,
                         .page_len = KV_PAGE_LEN,
                         .head_dim_k = hp->head_dim_k,
                         .head_dim_v = hp->head_dim_v,
                         .k_pages = pages->k,
                         .v_pages = pages->v,
                         .first = l->window && end > l->window ? end - l->window : 0,
                         .end = end,
                         .scale = hp->attention_scale,
                         .softcap = hp->attention_softcap,
                         .sinks = l->vector[V_SINKS] ? l->vector[V_SINKS] + head : NULL};
}

/* A lane's place for page pointers, and the rest of its scratch. */
static struct head_pages scratch_pages(const struct lane *lane, const struct runner *r, void **rest)
{
    const void **pointers = lane->scratch;
    *rest = (uint8_t *)lane->scratch + r->page_scratch_bytes;
    return (struct head_pages){.k = pointers, .v = pointers + r->kv.pages_seq_max};
}

/* Decode: a row and a group of query heads at a time. Where there are fewer of these than lanes, groups are
 * split; a head's result does not depend on its group. */
static void attend_rows(struct lane *lane, const struct runner *r, size_t index, const uint32_t *rows,
                        size_t n)
{
    const struct model_layer *l = &r->model->layers[index];
    const struct hparams *hp = &r->model->hp;
    size_t group = l->n_head / l->n_head_kv, stride = qkv_widths(r->model, l).stride;
    size_t parts = lane->count / (n * l->n_head_kv), first, end;
    parts = parts < 1 ? 1 : parts > group ? group : parts;
    size_t each = (group + parts - 1) / parts, units = l->n_head_kv * parts;
    void *scratch;
    struct head_pages pages = scratch_pages(lane, r, &scratch);
    while (lane_take(lane, n * units, 1, &first, &end)) {
        size_t at = first % n, row = rows ? rows[at] : at, unit = first / n;
        size_t from = unit % parts * each, head = unit / parts * group + from;
        if (from >= group)
            continue;
        struct attn attn = describe(&pages, r, index, &r->rows[row], head);
        tensor_attend(r->kernels, &attn, r->ws.qkv + row * stride + head * hp->head_dim_k,
                      group - from < each ? group - from : each,
                      r->ws.attn + at * layer_o_dim(r->model, l) + head * hp->head_dim_v, scratch);
    }
}

/* Prefill: a tile of rows and a group of query heads at a time. */
static void attend_tiles(struct lane *lane, const struct runner *r, size_t index,
                         const struct attn_tile *tiles, size_t n)
{
    const struct model_layer *l = &r->model->layers[index];
    const struct hparams *hp = &r->model->hp;
    size_t group = l->n_head / l->n_head_kv, stride = qkv_widths(r->model, l).stride, first, end;
    size_t out_stride = layer_o_dim(r->model, l);
    void *scratch;
    struct head_pages pages = scratch_pages(lane, r, &scratch);
    while (lane_take(lane, n * l->n_head_kv, 1, &first, &end)) {
        /* the last tiles see most keys: they go first */
        const struct attn_tile *tile = &tiles[n - 1 - first / l->n_head_kv];
        size_t head = first % l->n_head_kv * group;
        struct attn attn = describe(&pages, r, index, &r->rows[tile->first], head);
        tensor_attend_rows(r->kernels, &attn, l->window,
                           r->ws.qkv + tile->first * stride + head * hp->head_dim_k, stride, tile->rows,
                           group, r->ws.attn + tile->to * out_stride + head * hp->head_dim_v, out_stride,
                           scratch);
    }
}

static void attend(struct lane *lane, const struct runner *r, size_t index, bool last)
{
    if (r->phase == PHASE_PREFILL)
        attend_tiles(lane, r, index, last ? r->wanted_tiles : r->tiles,
                     last ? r->n_wanted_tiles : r->n_tiles);
    else
        attend_rows(lane, r, index, last ? r->wanted : NULL, last ? r->n_wanted : r->n_rows);
}

/* F3: rows that want logits move up in the residual stream. Nobody else reads it meanwhile. */
static void close_up(const struct runner *r)
{
    size_t d = r->model->hp.n_embd;
    for (size_t i = 0; i < r->n_wanted; i++) {
        if (r->wanted[i] == i)
            continue;
        memcpy(r->ws.x + i * d, r->ws.x + r->wanted[i] * d, d * sizeof(float));
        memcpy(r->ws.xn + i * d, r->ws.xn + r->wanted[i] * d, d * sizeof(float));
    }
}

static void add_attention_row(const struct runner *r, const struct model_layer *l, size_t row)
{
    size_t d = r->model->hp.n_embd;
    float *out = r->ws.out + row * d, *x = r->ws.x + row * d, *xn = r->ws.xn + row * d;
    bool parallel = (l->traits & TRAIT_PARALLEL) != 0;
    add_bias(r->kernels, out, l->vector[V_O_B], d);
    if (l->vector[V_POST_ATTN])
        norm_row(r, out, out, l->vector[V_POST_ATTN], NULL);
    if (r->model->hp.residual_scale != 1.0f)
        tensor_scale(r->kernels, out, r->model->hp.residual_scale, d);
    if (parallel && l->vector[V_FFN_NORM])
        norm_row(r, xn, x, l->vector[V_FFN_NORM], l->vector[V_FFN_NORM_B]);
    tensor_add(r->kernels, x, out, d);
    if (!parallel)
        norm_row(r, xn, x, l->vector[V_FFN_NORM], l->vector[V_FFN_NORM_B]);
}

/* Returns how many rows go on (F3). */
static size_t attention_half(struct lane *lane, struct runner *r, size_t index)
{
    const struct model *m = r->model;
    const struct model_layer *l = &m->layers[index];
    bool last = index + 1 == m->hp.n_layer;
    size_t n = last ? r->n_wanted : r->n_rows, first, end;
    project_qkv(lane, r, index);
    while (lane_take(lane, r->n_rows, 1, &first, &end))
        for (size_t i = first; i < end; i++)
            shape_row(r, index, i);
    lane_barrier(lane);
    if (n == 0)
        return 0;
    if (last && lane->index == 0)
        close_up(r);
    attend(lane, r, index, last);
    lane_barrier(lane);
    struct act attn;
    act_init(&attn, r->ws.attn, n, layer_o_dim(m, l), r->ws.act);
    forward_project(lane, r, index, &(struct projection){W_O, 0, r->ws.out, m->hp.n_embd}, 1, &attn);
    while (lane_take(lane, n, 1, &first, &end))
        for (size_t i = first; i < end; i++)
            add_attention_row(r, l, i);
    lane_barrier(lane);
    return n;
}

/* ---- Feed-forward */
static void relu_squared(float *x, size_t len)
{
    for (size_t i = 0; i < len; i++)
        x[i] = x[i] > 0 ? x[i] * x[i] : 0;
}

/* gpt-oss: both inputs clamped at 7, x sigmoid(1.702 x) (y + 1). */
static void swiglu_clamped(float *gate, const float *up, size_t len)
{
    const float alpha = 1.702f, limit = 7.0f;
    for (size_t i = 0; i < len; i++) {
        float x = fminf(gate[i], limit), y = fminf(fmaxf(up[i], -limit), limit);
        gate[i] = x / (1.0f + expf(-alpha * x)) * (y + 1.0f);
    }
}

void forward_glu(const struct kernels *k, const struct glu *glu, float *gate, float *up, size_t len)
{
    add_bias(k, gate, glu->gate_bias, len);
    add_bias(k, up, glu->up_bias, len);
    switch (glu->activation) {
    case ACT_SILU:
        tensor_silu_mul(k, gate, up, len);
        return;
    case ACT_GELU:
        tensor_gelu_mul(k, gate, up, len);
        return;
    case ACT_RELU_SQUARED:
        relu_squared(gate, len);
        tensor_mul(k, gate, up, len);
        return;
    case ACT_SWIGLU_CLAMPED:
        swiglu_clamped(gate, up, len);
        return;
    }
}

void forward_activate(const struct kernels *k, enum activation activation, float *x, size_t len)
{
    switch (activation) {
    case ACT_SILU:
    case ACT_SWIGLU_CLAMPED:
        tensor_silu(k, x, len);
        return;
    case ACT_GELU:
        tensor_gelu(k, x, len);
        return;
    case ACT_RELU_SQUARED:
        relu_squared(x, len);
        return;
    }
}

/* One feed-forward part with all rows: the dense one of a layer, or the shared expert. */
struct ffn {
    enum weight_slot gate, up, down;
    size_t width;
    unsigned form; /* FACT_GATE_SPLIT, FACT_GATE_FUSED or FACT_PLAIN */
    struct glu glu;
};

static void ffn_activate_row(const struct runner *r, const struct ffn *ffn, size_t row)
{
    size_t width = ffn->width;
    float *gate = r->ws.gate + row * width;
    if (ffn->form == FACT_PLAIN) {
        add_bias(r->kernels, gate, ffn->glu.up_bias, width);
        forward_activate(r->kernels, ffn->glu.activation, gate, width);
    } else if (ffn->form == FACT_GATE_FUSED) {
        float *both = r->ws.up + row * 2 * width;
        memcpy(gate, both, width * sizeof *gate);
        forward_glu(r->kernels, &ffn->glu, gate, both + width, width);
    } else {
        forward_glu(r->kernels, &ffn->glu, gate, r->ws.up + row * width, width);
    }
}

/* out = down(act(gate(xn)) * up(xn)) */
static void ffn_run(struct lane *lane, struct runner *r, size_t index, const struct ffn *ffn, size_t n)
{
    size_t first, end;
    struct act xn, hidden;
    act_init(&xn, r->ws.xn, n, r->model->hp.n_embd, r->ws.act);
    const struct projection plain = {ffn->up, 0, r->ws.gate, ffn->width};
    const struct projection fused = {ffn->up, 0, r->ws.up, 2 * ffn->width};
    const struct projection split[] = {{ffn->gate, 0, r->ws.gate, ffn->width},
                                       {ffn->up, 0, r->ws.up, ffn->width}};
    if (ffn->form == FACT_GATE_SPLIT)
        forward_project(lane, r, index, split, 2, &xn);
    else
        forward_project(lane, r, index, ffn->form == FACT_PLAIN ? &plain : &fused, 1, &xn);
    while (lane_take(lane, n, 1, &first, &end))
        for (size_t i = first; i < end; i++)
            ffn_activate_row(r, ffn, i);
    lane_barrier(lane);
    act_init(&hidden, r->ws.gate, n, ffn->width, r->ws.act);
    forward_project(lane, r, index, &(struct projection){ffn->down, 0, r->ws.out, r->model->hp.n_embd}, 1,
                    &hidden);
}

static void add_ffn_row(const struct runner *r, size_t index, size_t row)
{
    const struct model_layer *l = &r->model->layers[index];
    size_t d = r->model->hp.n_embd;
    float *out = r->ws.out + row * d;
    add_bias(r->kernels, out, l->vector[V_DOWN_B], d);
    if (l->vector[V_POST_FFN])
        norm_row(r, out, out, l->vector[V_POST_FFN], NULL);
    if (r->model->hp.residual_scale != 1.0f)
        tensor_scale(r->kernels, out, r->model->hp.residual_scale, d);
    tensor_add(r->kernels, r->ws.x + row * d, out, d);
    norm_for_next(r, index + 1, row);
}

static void ffn_half(struct lane *lane, struct runner *r, size_t index, size_t n)
{
    const struct model_layer *l = &r->model->layers[index];
    enum activation activation = r->model->arch->activation;
    size_t first, end;
    if (l->traits & FACT_MOE) {
        struct ffn shared = {.gate = W_GATE_SHARED,
                             .up = W_UP_SHARED,
                             .down = W_DOWN_SHARED,
                             .width = r->model->hp.n_ff_shared,
                             .form = FACT_GATE_SPLIT,
                             .glu = {.activation = activation}};
        if (l->traits & FACT_SHARED)
            ffn_run(lane, r, index, &shared, n);
        forward_experts(lane, r, index, n);
    } else {
        struct ffn dense = {.gate = W_GATE,
                            .up = W_UP,
                            .down = W_DOWN,
                            .width = l->n_ff,
                            .form = l->traits & (FACT_GATE_SPLIT | FACT_GATE_FUSED | FACT_PLAIN),
                            .glu = {activation, l->vector[V_GATE_B], l->vector[V_UP_B]}};
        ffn_run(lane, r, index, &dense, n);
    }
    while (lane_take(lane, n, 1, &first, &end))
        for (size_t i = first; i < end; i++)
            add_ffn_row(r, index, i);
    lane_barrier(lane);
}

/* ---- Logits */
#define LOGIT_CHUNK ((size_t)4096)

static void finish_logits(const struct runner *r, size_t row, const float *from, size_t first, size_t len)
{
    const struct hparams *hp = &r->model->hp;
    float *to = r->rows[r->wanted[row]].logits + first;
    if (from != to)
        memcpy(to, from, len * sizeof *to);
    if (hp->logit_scale != 1.0f)
        tensor_scale(r->kernels, to, hp->logit_scale, len);
    if (r->model->vector[G_OUTPUT_B])
        tensor_add(r->kernels, to, r->model->vector[G_OUTPUT_B] + first, len);
    if (hp->logit_softcap != 0)
        tensor_softcap(r->kernels, to, len, hp->logit_softcap);
}

static void emit(struct lane *lane, struct runner *r, size_t n)
{
    const struct model *m = r->model;
    size_t n_vocab = m->hp.n_vocab, parts = (n_vocab + LOGIT_CHUNK - 1) / LOGIT_CHUNK, first, end;
    /* a single row is computed where its owner wants it */
    float *y = n == 1 ? r->rows[r->wanted[0]].logits : r->ws.logits;
    struct act xn;
    act_init(&xn, r->ws.xn, n, m->hp.n_embd, r->ws.act);
    show_input(lane, r, &m->weight[G_OUTPUT], 0, &xn);
    tensor_matmul(lane, &m->weight[G_OUTPUT], &xn, y, n_vocab, r->phase);
    for (size_t i = 0; i < r->lora_count; i++) {
        const struct lora_pair *pair = &r->loras[i].lora->global[G_OUTPUT];
        if (pair->a.data)
            add_low_rank(lane, r, pair, 0, pair_scale(&r->loras[i], pair->a.rows), &xn, y, n_vocab);
    }
    while (lane_take(lane, n * parts, 1, &first, &end))
        for (size_t i = first; i < end; i++) {
            size_t row = i / parts, from = i % parts * LOGIT_CHUNK;
            size_t len = n_vocab - from < LOGIT_CHUNK ? n_vocab - from : LOGIT_CHUNK;
            finish_logits(r, row, y + row * n_vocab + from, from, len);
        }
}

void forward_lane(struct lane *lane, void *ud)
{
    struct runner *r = ud;
    size_t n = r->n_rows;
    embed(lane, r);
    for (size_t i = 0; i < r->model->hp.n_layer && n > 0; i++) {
        n = attention_half(lane, r, i);
        if (n > 0)
            ffn_half(lane, r, i, n);
    }
    if (n > 0)
        emit(lane, r, n);
}
