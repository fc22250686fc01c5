/* Encoders: models of the BERT family (Devlin et al. 2018), which read a text in both directions at once and
 * make one vector of it.
 *
 * A run takes whole texts, short ones together: the rows of all texts go through each product in one step,
 * and attention stays within a text. There is no cache: a layer's keys and values are needed once, so they
 * lie in two buffers, a head's rows of all texts one after the other, and attention reads a text's stretch
 * of them as pages. Norms come after each half (post-norm), so the residual stream is always normed and is
 * the input of the next product.
 *
 * Invariants:
 *  E1  All lanes take the same path (F1 of forward.c).
 *  E2  A row's numbers depend on its own text and the weights alone: no sum runs over texts. Every product is
 *      computed as prefill, so that a text's vector is the same alone and in company, bit for bit.
 *  E3  A refused run changes nothing. */
#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "model/forward_int.h"

#define ROWS_DEFAULT 1024
#define TILE_QUERIES 64 /* rows of one text that attend together */

struct row {
    int32_t token;
    uint32_t position;
};

struct tile {
    uint32_t first, rows;       /* queries */
    uint32_t text_first, count; /* keys: all rows of their text */
};

struct encoder {
    const struct model *model;
    const struct kernels *kernels;
    struct pool *pool;
    size_t context_len, rows_max;
    size_t page_scratch_bytes; /* of a lane's scratch, for page pointers; the rest serves attention */
    void *memory;
    /* the workspace */
    float *x;       /* [rows][n_embd] the residual stream, normed */
    float *out;     /* [rows][n_embd] what a half adds */
    float *qkv;     /* [rows][q + k + v of the layer] */
    float *k, *v;   /* [n_head_kv][rows_max][head_dim] */
    float *attn;    /* [rows][n_head * head_dim_v] */
    float *gate;    /* [rows][feed-forward width] */
    float *up;      /* [rows][feed-forward width, twice when fused] */
    float *cos_sin; /* [context][pairs][2]; NULL: no rotary embedding */
    double *freq;
    void *act;
    struct row *rows;
    struct tile *tiles;
    /* the run in progress; lanes read it */
    const struct encoder_text *texts;
    size_t n_texts, n_rows, n_tiles;
};

/* ---- Rows */
static void add_bias(const struct kernels *k, float *y, const float *bias, size_t len)
{
    if (bias)
        tensor_add(k, y, bias, len);
}

static void norm(const struct encoder *e, float *x, const float *weight, const float *bias)
{
    tensor_layer_norm(e->kernels, x, x, weight, bias, e->model->hp.n_embd, e->model->hp.norm_eps);
}

static void table_row(const struct matrix *table, size_t row, float *out)
{
    size_t bytes = tensor_row_bytes(table->type, table->cols);
    tensor_dequantize(table->type, (const uint8_t *)table->data + row * bytes, out, table->cols);
}

static void embed_row(const struct encoder *e, size_t index)
{
    const struct model *m = e->model;
    const struct row *row = &e->rows[index];
    float *x = e->x + index * m->hp.n_embd, *part = e->out + index * m->hp.n_embd;
    table_row(&m->weight[G_EMBED], (size_t)row->token, x);
    if (m->weight[G_TYPES].data) { /* one text is all of the first type */
        table_row(&m->weight[G_TYPES], 0, part);
        tensor_add(e->kernels, x, part, m->hp.n_embd);
    }
    if (m->weight[G_POSITIONS].data) {
        table_row(&m->weight[G_POSITIONS], row->position, part);
        tensor_add(e->kernels, x, part, m->hp.n_embd);
    }
    norm(e, x, m->vector[G_EMBED_NORM], m->vector[G_EMBED_NORM_B]);
}

static void rotate(const struct encoder *e, const struct model_layer *l, float *x, size_t heads, size_t row)
{
    size_t pairs = e->model->hp.rope_dims / 2;
    if (!l->rotary)
        return;
    const float *table = e->cos_sin + e->rows[row].position * 2 * pairs;
    for (size_t h = 0; h < heads; h++)
        tensor_rope(e->kernels, x + h * e->model->hp.head_dim_k, table, pairs,
                    e->model->arch->rope == ROPE_NEOX);
}

/* Biases and rotation; keys and values go to where attention finds them. */
static void shape_row(const struct encoder *e, const struct model_layer *l, size_t row)
{
    const struct model *m = e->model;
    size_t q_dim = layer_q_dim(m, l), k_dim = layer_k_dim(m, l), v_dim = layer_v_dim(m, l);
    size_t hk = m->hp.head_dim_k, hv = m->hp.head_dim_v;
    float *q = e->qkv + row * (q_dim + k_dim + v_dim), *k = q + q_dim, *v = k + k_dim;
    add_bias(e->kernels, q, l->vector[V_QKV_B], q_dim + k_dim + v_dim);
    add_bias(e->kernels, q, l->vector[V_Q_B], q_dim);
    add_bias(e->kernels, k, l->vector[V_K_B], k_dim);
    add_bias(e->kernels, v, l->vector[V_V_B], v_dim);
    rotate(e, l, q, l->n_head + l->n_head_kv, row);
    for (size_t h = 0; h < l->n_head_kv; h++) {
        memcpy(e->k + (h * e->rows_max + row) * hk, k + h * hk, hk * sizeof *k);
        memcpy(e->v + (h * e->rows_max + row) * hv, v + h * hv, hv * sizeof *v);
    }
}

/* x = norm(x + out + bias) */
static void close_half(const struct encoder *e, size_t row, const float *bias, const float *weight,
                       const float *norm_bias)
{
    size_t d = e->model->hp.n_embd;
    float *x = e->x + row * d, *out = e->out + row * d;
    add_bias(e->kernels, out, bias, d);
    tensor_add(e->kernels, x, out, d);
    norm(e, x, weight, norm_bias);
}

/* ---- Steps of all lanes */
static void embed(struct lane *lane, const struct encoder *e)
{
    size_t first, end;
    while (lane_take(lane, e->n_rows, 4, &first, &end))
        for (size_t i = first; i < end; i++)
            embed_row(e, i);
    lane_barrier(lane);
}

static void attend_tile(const struct lane *lane, const struct encoder *e, const struct model_layer *l,
                        const struct tile *tile, size_t kv_head)
{
    const struct hparams *hp = &e->model->hp;
    const void **pages = lane->scratch;
    size_t page_count = (tile->count + KV_PAGE_LEN - 1) / KV_PAGE_LEN, group = l->n_head / l->n_head_kv;
    size_t q_stride = layer_q_dim(e->model, l) + layer_k_dim(e->model, l) + layer_v_dim(e->model, l);
    size_t o_stride = layer_o_dim(e->model, l), head = kv_head * group;
    for (size_t p = 0; p < page_count; p++) {
        size_t row = kv_head * e->rows_max + tile->text_first + p * KV_PAGE_LEN;
        pages[p] = e->k + row * hp->head_dim_k;
        pages[page_count + p] = e->v + row * hp->head_dim_v;
    }
    struct attn attn = {.type = TENSOR_F32,
                        .page_len = KV_PAGE_LEN,
                        .head_dim_k = hp->head_dim_k,
                        .head_dim_v = hp->head_dim_v,
                        .k_pages = pages,
                        .v_pages = pages + page_count,
                        .end = tile->count,
                        .both_ways = true,
                        .scale = hp->attention_scale};
    tensor_attend_rows(e->kernels, &attn, 0, e->qkv + tile->first * q_stride + head * hp->head_dim_k,
                       q_stride, tile->rows, group, e->attn + tile->first * o_stride + head * hp->head_dim_v,
                       o_stride, (uint8_t *)lane->scratch + e->page_scratch_bytes);
}

static void attention_half(struct lane *lane, const struct encoder *e, const struct model_layer *l)
{
    const struct model *m = e->model;
    size_t q = layer_q_dim(m, l), k = layer_k_dim(m, l), stride = q + k + layer_v_dim(m, l), first, end;
    struct act in;
    act_init(&in, e->x, e->n_rows, m->hp.n_embd, e->act);
    const struct matmul fused = {l->weight[W_QKV], e->qkv, stride};
    const struct matmul split[] = {{l->weight[W_Q], e->qkv, stride},
                                   {l->weight[W_K], e->qkv + q, stride},
                                   {l->weight[W_V], e->qkv + q + k, stride}};
    if (l->traits & FACT_QKV_FUSED)
        tensor_matmuls(lane, &fused, 1, &in, PHASE_PREFILL);
    else
        tensor_matmuls(lane, split, 3, &in, PHASE_PREFILL);
    while (lane_take(lane, e->n_rows, 4, &first, &end))
        for (size_t i = first; i < end; i++)
            shape_row(e, l, i);
    lane_barrier(lane);
    while (lane_take(lane, e->n_tiles * l->n_head_kv, 1, &first, &end))
        attend_tile(lane, e, l, &e->tiles[first / l->n_head_kv], first % l->n_head_kv);
    lane_barrier(lane);
    act_init(&in, e->attn, e->n_rows, layer_o_dim(m, l), e->act);
    tensor_matmul(lane, &l->weight[W_O], &in, e->out, m->hp.n_embd, PHASE_PREFILL);
    while (lane_take(lane, e->n_rows, 4, &first, &end))
        for (size_t i = first; i < end; i++)
            close_half(e, i, l->vector[V_O_B], l->vector[V_POST_ATTN], l->vector[V_POST_ATTN_B]);
    lane_barrier(lane);
}

static void activate_row(const struct encoder *e, const struct model_layer *l, size_t row)
{
    size_t width = l->n_ff;
    enum activation activation = e->model->arch->activation;
    const struct glu glu = {activation, l->vector[V_GATE_B], l->vector[V_UP_B]};
    float *gate = e->gate + row * width;
    if (l->traits & FACT_PLAIN) {
        add_bias(e->kernels, gate, l->vector[V_UP_B], width);
        forward_activate(e->kernels, activation, gate, width);
    } else if (l->traits & FACT_GATE_FUSED) {
        float *both = e->up + row * 2 * width;
        memcpy(gate, both, width * sizeof *gate);
        forward_glu(e->kernels, &glu, gate, both + width, width);
    } else {
        forward_glu(e->kernels, &glu, gate, e->up + row * width, width);
    }
}

static void ffn_half(struct lane *lane, const struct encoder *e, const struct model_layer *l)
{
    const struct model *m = e->model;
    size_t first, end;
    struct act in;
    act_init(&in, e->x, e->n_rows, m->hp.n_embd, e->act);
    const struct matmul plain = {l->weight[W_UP], e->gate, l->n_ff};
    const struct matmul fused = {l->weight[W_UP], e->up, 2 * l->n_ff};
    const struct matmul split[] = {{l->weight[W_GATE], e->gate, l->n_ff}, {l->weight[W_UP], e->up, l->n_ff}};
    if (l->traits & FACT_GATE_SPLIT)
        tensor_matmuls(lane, split, 2, &in, PHASE_PREFILL);
    else
        tensor_matmuls(lane, l->traits & FACT_PLAIN ? &plain : &fused, 1, &in, PHASE_PREFILL);
    while (lane_take(lane, e->n_rows, 4, &first, &end))
        for (size_t i = first; i < end; i++)
            activate_row(e, l, i);
    lane_barrier(lane);
    act_init(&in, e->gate, e->n_rows, l->n_ff, e->act);
    tensor_matmul(lane, &l->weight[W_DOWN], &in, e->out, m->hp.n_embd, PHASE_PREFILL);
    while (lane_take(lane, e->n_rows, 4, &first, &end))
        for (size_t i = first; i < end; i++)
            close_half(e, i, l->vector[V_DOWN_B], l->vector[V_POST_FFN], l->vector[V_POST_FFN_B]);
    lane_barrier(lane);
}

static void pool_text(const struct encoder *e, const struct encoder_text *text, const float *rows)
{
    size_t d = e->model->hp.n_embd;
    if (e->model->hp.pooling == POOLING_LAST)
        rows += (text->len - 1) * d;
    memcpy(text->out, rows, d * sizeof *rows);
    if (e->model->hp.pooling != POOLING_MEAN)
        return;
    for (size_t i = 1; i < text->len; i++)
        tensor_add(e->kernels, text->out, rows + i * d, d);
    tensor_scale(e->kernels, text->out, 1.0f / (float)text->len, d);
}

static void encode_lane(struct lane *lane, void *ud)
{
    const struct encoder *e = ud;
    size_t first, end, row = 0, next = 0;
    embed(lane, e);
    for (size_t i = 0; i < e->model->hp.n_layer; i++) {
        attention_half(lane, e, &e->model->layers[i]);
        ffn_half(lane, e, &e->model->layers[i]);
    }
    while (lane_take(lane, e->n_texts, 1, &first, &end)) {
        for (; next < first; next++)
            row += e->texts[next].len;
        pool_text(e, &e->texts[first], e->x + row * e->model->hp.n_embd);
    }
}

/* ---- A run */
static enum ph_status check_texts(const struct encoder *e, const struct encoder_text *texts, size_t count,
                                  struct ph_err *err)
{
    size_t rows = 0, n_vocab = e->model->hp.n_vocab;
    for (size_t i = 0; i < count; i++) {
        if (texts[i].len == 0)
            return ph_fail(err, PH_ERR_ARG, "text %zu has no tokens", i);
        if (texts[i].len > e->context_len)
            return ph_fail(err, PH_ERR_LIMIT, "text %zu has %zu tokens, %s reads at most %zu", i,
                           texts[i].len, e->model->info.name, e->context_len);
        rows += texts[i].len;
        if (rows > e->rows_max)
            return ph_fail(err, PH_ERR_LIMIT, "the texts of a run have more than %zu tokens", e->rows_max);
        for (size_t k = 0; k < texts[i].len; k++)
            if (texts[i].tokens[k] < 0 || (size_t)texts[i].tokens[k] >= n_vocab)
                return ph_fail(err, PH_ERR_ARG, "token id %d of text %zu is outside the vocabulary of %zu",
                               (int)texts[i].tokens[k], i, n_vocab);
    }
    return PH_OK;
}

static void take_text(struct encoder *e, const struct encoder_text *text)
{
    uint32_t first = (uint32_t)e->n_rows;
    for (size_t k = 0; k < text->len; k++)
        e->rows[e->n_rows++] = (struct row){text->tokens[k], (uint32_t)k};
    for (size_t k = 0; k < text->len; k += TILE_QUERIES) {
        size_t rows = text->len - k < TILE_QUERIES ? text->len - k : TILE_QUERIES;
        e->tiles[e->n_tiles++] =
            (struct tile){first + (uint32_t)k, (uint32_t)rows, first, (uint32_t)text->len};
    }
}

enum ph_status encoder_run(struct encoder *encoder, const struct encoder_text *texts, size_t count,
                           struct ph_err *err)
{
    enum ph_status status = check_texts(encoder, texts, count, err);
    if (status != PH_OK || count == 0)
        return status;
    encoder->texts = texts;
    encoder->n_texts = count;
    encoder->n_rows = encoder->n_tiles = 0;
    for (size_t i = 0; i < count; i++)
        take_text(encoder, &texts[i]);
    pool_run(encoder->pool, encode_lane, encoder);
    return PH_OK;
}

void encoder_normalise(float *x, size_t len)
{
    double sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += (double)x[i] * (double)x[i];
    if (!(sum > 0))
        return;
    float scale = (float)(1.0 / sqrt(sum));
    for (size_t i = 0; i < len; i++)
        x[i] *= scale;
}

/* ---- Making and freeing */
struct widths {
    size_t qkv, k, v, attn, gate, up, input, group;
};

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static struct widths find_widths(const struct model *m)
{
    struct widths w = {.input = m->hp.n_embd};
    for (size_t i = 0; i < m->hp.n_layer; i++) {
        const struct model_layer *l = &m->layers[i];
        w.qkv = larger(w.qkv, layer_q_dim(m, l) + layer_k_dim(m, l) + layer_v_dim(m, l));
        w.k = larger(w.k, layer_k_dim(m, l));
        w.v = larger(w.v, layer_v_dim(m, l));
        w.attn = larger(w.attn, layer_o_dim(m, l));
        w.gate = larger(w.gate, l->n_ff);
        w.up = larger(w.up, l->traits & FACT_GATE_FUSED   ? 2 * l->n_ff
                            : l->traits & FACT_GATE_SPLIT ? l->n_ff
                                                          : 0);
        w.group = larger(w.group, l->n_head / l->n_head_kv);
    }
    w.input = larger(w.input, larger(w.attn, w.gate));
    return w;
}

static void plan_workspace(struct plan *p, struct encoder *e)
{
    const struct hparams *hp = &e->model->hp;
    struct widths w = find_widths(e->model);
    size_t rows = e->rows_max;
    e->rows = plan_take(p, rows, sizeof *e->rows);
    e->tiles = plan_take(p, rows, sizeof *e->tiles);
    e->x = plan_take(p, rows * hp->n_embd, sizeof(float));
    e->out = plan_take(p, rows * hp->n_embd, sizeof(float));
    e->qkv = plan_take(p, rows * w.qkv, sizeof(float));
    e->k = plan_take(p, rows * w.k, sizeof(float));
    e->v = plan_take(p, rows * w.v, sizeof(float));
    e->attn = plan_take(p, rows * w.attn, sizeof(float));
    e->gate = plan_take(p, rows * w.gate, sizeof(float));
    e->up = plan_take(p, rows * w.up, sizeof(float));
    e->act = plan_take(p, act_workspace_bytes(rows, w.input), 1);
    e->freq = plan_take(p, hp->rope_dims / 2, sizeof(double));
    e->cos_sin = hp->rope_dims ? plan_take(p, e->context_len * hp->rope_dims, sizeof(float)) : NULL;
}

static enum ph_status take_params(struct encoder *e, const struct encoder_params *params, struct ph_err *err)
{
    size_t trained = e->model->hp.n_context;
    bool bound = e->model->weight[G_POSITIONS].data != NULL;
    e->context_len = params->context_len                     ? params->context_len
                     : trained < ENCODER_CONTEXT_DEFAULT_MAX ? trained
                                                             : ENCODER_CONTEXT_DEFAULT_MAX;
    if (bound && e->context_len > trained)
        return ph_fail(err, PH_ERR_LIMIT, "%s knows %zu positions, a context of %zu tokens is too long",
                       e->model->info.name, trained, e->context_len);
    e->rows_max = larger(params->rows_max ? params->rows_max : ROWS_DEFAULT, e->context_len);
    if (e->rows_max > RUNNER_ROWS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%zu tokens in one run are more than %d", e->rows_max,
                       RUNNER_ROWS_MAX);
    e->kernels = kernels_select(params->kernels);
    if (!e->kernels)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "kernels \"%s\" are unknown or cannot run on this CPU",
                       params->kernels ? params->kernels : "");
    return PH_OK;
}

static enum ph_status make_workspace(struct encoder *e, struct ph_err *err)
{
    struct plan plan = {0};
    plan_workspace(&plan, e);
    e->memory = mem_calloc(plan.bytes + 64, 1);
    if (!e->memory)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for a workspace of %zu bytes (%zu tokens a run)",
                       e->model->info.name, plan.bytes, e->rows_max);
    plan = (struct plan){.base = (uint8_t *)(((uintptr_t)e->memory + 63) & ~(uintptr_t)63)};
    plan_workspace(&plan, e);
    return PH_OK;
}

static void make_rope(struct encoder *e)
{
    struct rope rope = {.freq = e->freq};
    size_t dims = e->model->hp.rope_dims;
    if (!e->cos_sin)
        return;
    rope_init(&rope, &e->model->hp.rope[ROPE_FULL], dims, rope_factors(e->model, e->context_len), e->freq);
    for (size_t i = 0; i < e->context_len; i++)
        rope_table(&rope, i, e->cos_sin + i * dims);
}

static enum ph_status make_pool(struct encoder *e, unsigned threads, struct ph_err *err)
{
    const struct hparams *hp = &e->model->hp;
    size_t pages = (e->context_len + KV_PAGE_LEN - 1) / KV_PAGE_LEN;
    e->page_scratch_bytes = (2 * pages * sizeof(void *) + 63) & ~(size_t)63;
    size_t tile = tensor_attend_rows_scratch_bytes(TILE_QUERIES, find_widths(e->model).group, KV_PAGE_LEN,
                                                   hp->head_dim_k, hp->head_dim_v);
    return pool_create(&e->pool, threads, e->page_scratch_bytes + tile, e->kernels, err);
}

enum ph_status encoder_create(struct encoder **out, const struct model *model,
                              const struct encoder_params *params, struct ph_err *err)
{
    *out = NULL;
    if (!model_is_encoder(model))
        return ph_fail(err, PH_ERR_UNSUPPORTED, "%s is no embedding model (architecture %s)",
                       model->info.name, model->info.architecture);
    struct encoder *e = mem_calloc(1, sizeof *e);
    if (!e)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for an encoder", model->info.name);
    e->model = model;
    enum ph_status status = take_params(e, params, err);
    if (status == PH_OK)
        status = make_workspace(e, err);
    if (status == PH_OK)
        status = make_pool(e, params->threads, err);
    if (status == PH_OK) {
        make_rope(e);
        *out = e;
    } else {
        encoder_free(e);
    }
    return status;
}

void encoder_free(struct encoder *encoder)
{
    if (!encoder)
        return;
    pool_free(encoder->pool);
    mem_free(encoder->memory);
    mem_free(encoder);
}

size_t encoder_context_len(const struct encoder *encoder)
{
    return encoder->context_len;
}

size_t encoder_rows_max(const struct encoder *encoder)
{
    return encoder->rows_max;
}
