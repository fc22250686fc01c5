/* The llama architecture, trained: embedding; layers of x += attention(norm(x)), x += swiglu(norm(x)); norm;
 * output with fused loss.
 *
 * All memory is taken when the decoder is made: one block, carved twice by the same function (once to count,
 * once for good). Forward keeps each layer's input and activations. With `recompute` all layers but the last
 * `keep` share one set of activations, and backward runs such a layer's forward again first; the last one's
 * to use the set are still there.
 *
 * Queries, keys and values are one product, gate and up another: their matrices follow each other in the
 * parameters, their results are parts of common rows, [q, k, v] and [gate, up].
 *
 * A batch is taken in pieces of whole sequences, forward and backward, whose activations the caches nearly
 * hold. A piece has a multiple of SUM_ROWS positions: over so many rows a sum is taken apart anyway
 * (products, norms), so that pieces, whose size depends on the lanes, change no bit (L3).
 *
 * The gradient of the residual stream is one array that every branch adds to: `flow`. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/process.h"
#include "train/train_int.h"

enum slot { ATTN_NORM, ATTN_Q, ATTN_K, ATTN_V, ATTN_OUT, FFN_NORM, FFN_GATE, FFN_UP, FFN_DOWN, SLOTS };

/* What a layer's backward needs of its forward. */
struct activations {
    float *normed, *stats, *qkv, *mixed;                     /* attention */
    float *middle, *ff_normed, *ff_stats, *gate_up, *hidden; /* feed-forward */
};

struct decoder {
    struct decoder_config config;
    struct pool *pool;
    unsigned lanes;
    size_t batch, time; /* the most of a call */
    size_t piece;       /* sequences at a time: what the workspace is for */
    struct param *params;
    size_t param_count, len, bytes;
    void *block;
    float *w, *dw, *table;
    float **inputs;           /* [layers + 1], each [rows][d] */
    struct activations *kept; /* [layers], all the same where recomputed */
    float *final, *final_stats, *losses;
    float *flow, *d_normed, *d_mixed, *d_qkv, *d_hidden, *d_gate_up;
    void *scratch;
};

/* ---- Parameters ---- */

static size_t q_width(const struct decoder_config *c)
{
    return c->head_dim * c->heads;
}

static size_t kv_width(const struct decoder_config *c)
{
    return c->head_dim * c->kv_heads;
}

static size_t qkv_width(const struct decoder_config *c)
{
    return q_width(c) + 2 * kv_width(c);
}

static size_t qkv_stride(const struct decoder_config *c)
{
    return spread_row(qkv_width(c));
}

static size_t gate_up_stride(const struct decoder_config *c)
{
    return spread_row(2 * c->ff);
}

static const struct {
    const char *name;
    bool vector;
    bool joined; /* the next one follows without a gap */
} slots[SLOTS] = {
    [ATTN_NORM] = {"attn_norm", true, false},   [ATTN_Q] = {"attn_q", false, true},
    [ATTN_K] = {"attn_k", false, true},         [ATTN_V] = {"attn_v", false, false},
    [ATTN_OUT] = {"attn_output", false, false}, [FFN_NORM] = {"ffn_norm", true, false},
    [FFN_GATE] = {"ffn_gate", false, true},     [FFN_UP] = {"ffn_up", false, false},
    [FFN_DOWN] = {"ffn_down", false, false},
};

static void slot_shape(const struct decoder_config *c, enum slot slot, size_t *rows, size_t *cols)
{
    *rows = slots[slot].vector                   ? 1
            : slot == ATTN_Q                     ? q_width(c)
            : slot == ATTN_K || slot == ATTN_V   ? kv_width(c)
            : slot == FFN_GATE || slot == FFN_UP ? c->ff
                                                 : c->d;
    *cols = slot == ATTN_OUT ? q_width(c) : slot == FFN_DOWN ? c->ff : c->d;
}

static void add_param(struct decoder *t, const char *name, size_t rows, size_t cols, bool joined)
{
    struct param *p = &t->params[t->param_count++];
    *p = (struct param){.rows = rows,
                        .cols = cols,
                        .offset = t->len,
                        .decay = rows > 1,
                        .hidden = strncmp(name, "blk.", 4) == 0 && rows > 1};
    memcpy(p->name, name, strlen(name) + 1);
    t->len += rows * cols;
    if (!joined)
        t->len = align_bytes(t->len * sizeof(float)) / sizeof(float);
}

/* Order: embedding, layers, final norm, output where it is not the embedding. */
static void lay_out_params(struct decoder *t)
{
    const struct decoder_config *c = &t->config;
    char name[PARAM_NAME_MAX];
    add_param(t, "token_embd.weight", c->vocab, c->d, false);
    for (size_t l = 0; l < c->layers; l++) {
        for (enum slot s = 0; s < SLOTS; s++) {
            size_t rows, cols;
            slot_shape(c, s, &rows, &cols);
            snprintf(name, sizeof name, "blk.%zu.%s.weight", l, slots[s].name);
            add_param(t, name, rows, cols, slots[s].joined);
        }
    }
    add_param(t, "output_norm.weight", 1, c->d, false);
    if (!c->tied)
        add_param(t, "output.weight", c->vocab, c->d, false);
}

static size_t slot_offset(const struct decoder *t, size_t layer, enum slot slot)
{
    return t->params[1 + layer * SLOTS + slot].offset;
}

/* ---- Memory ---- */

struct carver {
    uint8_t *base; /* NULL while counting */
    size_t used;
};

static void *carve(struct carver *c, size_t bytes)
{
    void *place = c->base ? c->base + c->used : NULL;
    c->used += align_bytes(bytes);
    return place;
}

static float *carve_floats(struct carver *c, size_t count)
{
    return carve(c, count * sizeof(float));
}

static void carve_activations(struct carver *c, const struct decoder_config *config, size_t rows,
                              struct activations *a)
{
    size_t d = config->d, q = q_width(config), ff = config->ff;
    a->normed = carve_floats(c, rows * d);
    a->stats = carve_floats(c, rows * 2);
    a->qkv = carve_floats(c, rows * qkv_stride(config));
    a->mixed = carve_floats(c, rows * q);
    a->middle = carve_floats(c, rows * d);
    a->ff_normed = carve_floats(c, rows * d);
    a->ff_stats = carve_floats(c, rows * 2);
    a->gate_up = carve_floats(c, rows * gate_up_stride(config));
    a->hidden = carve_floats(c, rows * ff);
}

static struct attention attention_of(const struct decoder *t, size_t batch, size_t time)
{
    return (struct attention){.batch = batch,
                              .time = time,
                              .heads = t->config.heads,
                              .kv_heads = t->config.kv_heads,
                              .head_dim = t->config.head_dim,
                              .q_stride = qkv_stride(&t->config),
                              .kv_stride = qkv_stride(&t->config),
                              .causal = true,
                              .bf16 = t->config.bf16};
}

#define PIECE_ROWS_PER_LANE ((size_t)512)

/* The fewest sequences with a multiple of SUM_ROWS positions together. */
static size_t unit_of(size_t time)
{
    return SUM_ROWS / least(time & (~time + 1), SUM_ROWS); /* what divides both is a power of two */
}

/* As many units as so many lanes like. */
static size_t piece_of(size_t batch, size_t time, unsigned lanes)
{
    size_t unit = unit_of(time), wanted = PIECE_ROWS_PER_LANE * lanes / (unit * time);
    return least(batch, unit * most(wanted, 1));
}

/* How many sequences of a call go at a time: whole units, or else a number that does not depend on lanes. */
static size_t sequences_at_once(const struct decoder *t, size_t time)
{
    size_t fit = t->piece * t->time, always = piece_of(t->batch, t->time, 1) * t->time, unit = unit_of(time);
    return unit * time <= always ? fit / (unit * time) * unit : most(1, always / time);
}

static size_t step_scratch_bytes(const struct decoder *t)
{
    const struct decoder_config *c = &t->config;
    struct attention a = attention_of(t, t->piece, t->time);
    size_t rows = t->piece * t->time;
    size_t wide = most(most(c->d, 2 * c->ff), qkv_width(c));
    size_t products = linear_scratch_bytes(wide, wide, rows);
    size_t others = most(attention_scratch_bytes(&a, t->lanes), gradient_norm_scratch_bytes(t->len));
    others = most(others, muon_scratch_bytes(t->params, t->param_count));
    return most(most(products, others), output_scratch_bytes(c->vocab, c->d, rows));
}

/* The first so many layers use one set of activations. */
static size_t shared_layers(const struct decoder_config *c)
{
    return c->recompute && c->keep < c->layers ? c->layers - c->keep : 0;
}

static void carve_all(struct decoder *t, struct carver *c)
{
    const struct decoder_config *config = &t->config;
    size_t shared = shared_layers(config), rows = t->piece * t->time, d = config->d;
    t->w = carve_floats(c, t->len);
    t->dw = carve_floats(c, t->len);
    t->table = carve_floats(c, t->time * config->head_dim);
    for (size_t l = 0; l <= config->layers; l++)
        t->inputs[l] = carve_floats(c, rows * d);
    for (size_t l = 0; l < config->layers; l++) {
        if (l == 0 || l >= shared)
            carve_activations(c, config, rows, &t->kept[l]);
        else
            t->kept[l] = t->kept[0];
    }
    t->final = carve_floats(c, rows * d);
    t->final_stats = carve_floats(c, rows * 2);
    t->losses = carve_floats(c, t->batch * t->time);
    t->flow = carve_floats(c, t->batch * t->time * d);
    t->d_normed = carve_floats(c, rows * d);
    t->d_mixed = carve_floats(c, rows * q_width(config));
    t->d_qkv = carve_floats(c, rows * qkv_stride(config));
    t->d_hidden = carve_floats(c, rows * config->ff);
    t->d_gate_up = carve_floats(c, rows * gate_up_stride(config));
    t->scratch = carve(c, step_scratch_bytes(t));
}

/* ---- Life ---- */

#define SIZE_EACH_MAX ((size_t)1 << 24)

static enum ph_status check_config(const struct decoder_config *c, size_t batch, size_t time,
                                   struct ph_err *err)
{
    const struct {
        const char *name;
        size_t value;
    } sizes[] = {{"vocabulary", c->vocab}, {"embedding length", c->d}, {"layers", c->layers},
                 {"heads", c->heads},      {"kv heads", c->kv_heads},  {"feed-forward length", c->ff},
                 {"context", c->context},  {"batch", batch},           {"sequence length", time}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value == 0 || sizes[i].value > SIZE_EACH_MAX)
            return ph_fail(err, PH_ERR_ARG, "%s is %zu; it must be between 1 and %zu", sizes[i].name,
                           sizes[i].value, SIZE_EACH_MAX);
    if (c->head_dim == 0 && (c->d % c->heads != 0 || c->d / c->heads % 2 != 0))
        return ph_fail(err, PH_ERR_ARG, "embedding length %zu is not an even number of times %zu heads", c->d,
                       c->heads);
    if (c->head_dim % 2 != 0 || c->head_dim > SIZE_EACH_MAX / c->heads)
        return ph_fail(err, PH_ERR_ARG, "a head's width of %zu is not even, or %zu such heads are too many",
                       c->head_dim, c->heads);
    if (c->heads % c->kv_heads != 0)
        return ph_fail(err, PH_ERR_ARG, "%zu heads can't share %zu kv heads evenly", c->heads, c->kv_heads);
    if (time > c->context)
        return ph_fail(err, PH_ERR_ARG, "sequences of %zu are longer than the context of %zu", time,
                       c->context);
    size_t all_heads = c->head_dim ? c->heads * c->head_dim : c->d;
    size_t wide = most(2 * c->ff, 3 * all_heads); /* a shared-out loop counts in 32 bits */
    wide = most(wide, c->d);
    if (batch * time >= UINT32_MAX / wide || wide >= UINT32_MAX / wide || c->vocab >= UINT32_MAX / c->d)
        return ph_fail(err, PH_ERR_LIMIT,
                       "%zu x %zu positions of %zu, or a matrix of these sizes, are more "
                       "than a step can hold; use a smaller batch and accumulate",
                       batch, time, wide);
    return PH_OK;
}

/* Everything but the block itself. */
static bool plan(struct decoder *t, const struct pool *pool, const struct decoder_config *config,
                 size_t batch, size_t time)
{
    struct carver counter = {0};
    *t = (struct decoder){.config = *config, .lanes = pool_lanes(pool), .batch = batch, .time = time};
    t->piece = piece_of(batch, time, t->lanes);
    if (config->head_dim == 0)
        t->config.head_dim = config->d / config->heads;
    t->params = mem_calloc(3 + config->layers * SLOTS, sizeof *t->params);
    t->inputs = mem_calloc(config->layers + 1, sizeof *t->inputs);
    t->kept = mem_calloc(config->layers, sizeof *t->kept);
    if (!t->params || !t->inputs || !t->kept)
        return false;
    lay_out_params(t);
    carve_all(t, &counter);
    t->bytes = counter.used;
    return true;
}

static void release(struct decoder *t)
{
    mem_free(t->block);
    mem_free(t->kept);
    mem_free(t->inputs);
    mem_free(t->params);
}

enum ph_status decoder_create(struct decoder **out, struct pool *pool, const struct decoder_config *config,
                              size_t batch, size_t time, struct ph_err *err)
{
    *out = NULL;
    enum ph_status status = check_config(config, batch, time, err);
    if (status != PH_OK)
        return status;
    struct decoder *t = mem_calloc(1, sizeof *t);
    if (!t)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a decoder");
    if (plan(t, pool, config, batch, time))
        t->block = mem_alloc_aligned(TRAIN_ALIGN, t->bytes);
    if (!t->block) {
        size_t bytes = t->bytes;
        decoder_free(t);
        return ph_fail(err, PH_ERR_NOMEM,
                       "no memory to train: %zu MiB wanted; use a smaller batch, or recompute activations",
                       bytes >> 20);
    }
    t->pool = pool;
    carve_all(t, &(struct carver){.base = t->block});
    rotary_table(t->table, time, t->config.head_dim, config->rope_base);
    *out = t;
    return PH_OK;
}

/* ---- Fitting into memory */

uint64_t decoder_bytes_wanted(const struct decoder_config *config, const struct pool *pool, size_t batch,
                              size_t time)
{
    struct decoder t;
    uint64_t bytes = 0;
    if (plan(&t, pool, config, batch, time))
        bytes = t.bytes + 2 * (uint64_t)t.len * sizeof(float);
    release(&t);
    return bytes;
}

static unsigned long long mib(uint64_t bytes)
{
    return (bytes + (1 << 20) - 1) >> 20;
}

static enum ph_status refuse(const struct decoder_config *c, const struct pool *pool, size_t batch,
                             size_t time, uint64_t budget, struct ph_err *err)
{
    size_t fits = 0, beyond = batch; /* `fits` windows fit, `beyond` don't */
    unsigned long long wanted = mib(decoder_bytes_wanted(c, pool, batch, time)), allowed = budget >> 20;
    while (beyond - fits > 1) {
        size_t middle = fits + (beyond - fits) / 2;
        bool fit = decoder_bytes_wanted(c, pool, middle, time) <= budget;
        fits = fit ? middle : fits;
        beyond = fit ? beyond : middle;
    }
    if (fits > 0)
        return ph_fail(err, PH_ERR_NOMEM,
                       "%zu windows of %zu at once want %llu MiB, activations recomputed, and training may "
                       "use %llu MiB: reduce the batch to %zu and accumulate more of them",
                       batch, time, wanted, allowed, fits);
    return ph_fail(err, PH_ERR_NOMEM,
                   "even one window of %zu wants %llu MiB, activations recomputed, and training may use "
                   "%llu MiB: reduce the windows' length, the vocabulary, the layers or their width",
                   time, mib(decoder_bytes_wanted(c, pool, 1, time)), allowed);
}

enum ph_status decoder_fit(struct decoder_config *config, const struct pool *pool, size_t batch, size_t time,
                           uint64_t budget, struct ph_err *err)
{
    enum ph_status status = check_config(config, batch, time, err);
    if (status != PH_OK)
        return status;
    if (budget == 0)
        budget = process_memory_available() / 100 * TRAIN_MEMORY_PERCENT;
    config->recompute = false;
    config->keep = 0;
    uint64_t all = decoder_bytes_wanted(config, pool, batch, time);
    if (all <= budget)
        return PH_OK;
    config->recompute = true;
    uint64_t none = decoder_bytes_wanted(config, pool, batch, time);
    if (none > budget)
        return refuse(config, pool, batch, time, budget, err);
    config->keep = (size_t)((budget - none) / ((all - none) / (config->layers - 1)));
    return PH_OK;
}

void decoder_free(struct decoder *t)
{
    if (!t)
        return;
    release(t);
    mem_free(t);
}

const struct decoder_config *decoder_config(const struct decoder *t)
{
    return &t->config;
}

const struct param *decoder_params(const struct decoder *t, size_t *count)
{
    *count = t->param_count;
    return t->params;
}

size_t decoder_len(const struct decoder *t)
{
    return t->len;
}

float *decoder_weights(struct decoder *t)
{
    return t->w;
}

float *decoder_gradients(struct decoder *t)
{
    return t->dw;
}

size_t decoder_bytes(const struct decoder *t)
{
    return t->bytes;
}

static float normal(struct rng *rng)
{
    double u = 1 - rng_double(rng), v = rng_double(rng);
    return (float)(sqrt(-2 * log(u)) * cos(6.28318530717958647692 * v)); /* Box and Muller 1958 */
}

void decoder_init_weights(struct decoder *t, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    memset(t->w, 0, t->len * sizeof *t->w);
    for (size_t p = 0; p < t->param_count; p++) {
        const struct param *param = &t->params[p];
        size_t slot = (p - 1) % SLOTS;
        bool to_stream = p > 0 && p <= t->config.layers * SLOTS && (slot == ATTN_OUT || slot == FFN_DOWN);
        float deviation = to_stream ? 0.02f / sqrtf(2 * (float)t->config.layers) : 0.02f;
        bool one = strstr(param->name, "norm") != NULL;
        for (size_t i = 0; i < param->rows * param->cols; i++)
            t->w[param->offset + i] = one ? 1 : deviation * normal(&rng);
    }
}

/* ---- One layer ---- */

struct pass {
    const struct decoder *t;
    const struct decoder_batch *batch, *whole; /* the piece's, and the call's */
    size_t rows;
    float *losses, *flow;
    bool backward, last;
};

/* With those that are joined to it. */
static struct linear linear_at(const struct decoder *t, size_t layer, enum slot slot)
{
    size_t offset = slot_offset(t, layer, slot), in, out;
    slot_shape(&t->config, slot, &out, &in);
    struct linear l = {
        .in = in, .out = out, .w = t->w + offset, .dw = t->dw + offset, .bf16 = t->config.bf16};
    if (slot == ATTN_Q) {
        l.out = qkv_width(&t->config);
        l.y_stride = qkv_stride(&t->config);
    } else if (slot == FFN_GATE) {
        l.out = 2 * out;
        l.y_stride = gate_up_stride(&t->config);
    }
    return l;
}

static struct norm norm_at(const struct decoder *t, size_t offset)
{
    return (struct norm){
        .d = t->config.d, .eps = t->config.norm_eps, .w = t->w + offset, .dw = t->dw + offset};
}

/* Of queries and keys, which lie side by side. */
static struct rotary rotary_of(const struct pass *p)
{
    const struct decoder_config *c = &p->t->config;
    return (struct rotary){.time = p->batch->time,
                           .heads = c->heads + c->kv_heads,
                           .head_dim = c->head_dim,
                           .stride = qkv_stride(c),
                           .neox = p->t->config.rope_neox,
                           .table = p->t->table};
}

static void project(struct lane *lane, const struct pass *p, size_t layer, enum slot slot, const float *x,
                    float *y)
{
    struct linear l = linear_at(p->t, layer, slot);
    linear_forward(lane, &l, x, p->rows, y, p->t->scratch);
}

static void project_back(struct lane *lane, const struct pass *p, size_t layer, enum slot slot,
                         const float *x, const float *dy, float *dx)
{
    struct linear l = linear_at(p->t, layer, slot);
    linear_backward(lane, &l, x, dy, p->rows, dx, false, p->t->scratch);
}

static struct swiglu swiglu_of(const struct pass *p)
{
    size_t ff = p->t->config.ff;
    return (struct swiglu){.rows = p->rows, .width = ff, .stride = gate_up_stride(&p->t->config)};
}

/* All of a layer that backward needs. */
static void layer_activations(struct lane *lane, const struct pass *p, size_t layer)
{
    const struct decoder *t = p->t;
    const struct activations *a = &t->kept[layer];
    const float *x = t->inputs[layer];
    struct norm before = norm_at(t, slot_offset(t, layer, ATTN_NORM));
    struct norm between = norm_at(t, slot_offset(t, layer, FFN_NORM));
    struct rotary turn = rotary_of(p);
    struct attention attention = attention_of(t, p->batch->batch, p->batch->time);
    struct swiglu swiglu = swiglu_of(p);
    const float *k = a->qkv + q_width(&t->config), *v = k + kv_width(&t->config);
    norm_forward(lane, &before, x, p->rows, a->normed, a->stats);
    project(lane, p, layer, ATTN_Q, a->normed, a->qkv);
    rotary_forward(lane, &turn, a->qkv, p->rows);
    attention_forward(lane, &attention, a->qkv, k, v, a->mixed, t->scratch);
    project(lane, p, layer, ATTN_OUT, a->mixed, a->middle);
    residual_add(lane, a->middle, x, p->rows * t->config.d);
    norm_forward(lane, &between, a->middle, p->rows, a->ff_normed, a->ff_stats);
    project(lane, p, layer, FFN_GATE, a->ff_normed, a->gate_up);
    swiglu_forward(lane, &swiglu, a->gate_up, a->gate_up + t->config.ff, a->hidden);
}

static void layer_forward(struct lane *lane, const struct pass *p, size_t layer)
{
    const struct activations *a = &p->t->kept[layer];
    float *y = p->t->inputs[layer + 1];
    layer_activations(lane, p, layer);
    project(lane, p, layer, FFN_DOWN, a->hidden, y);
    residual_add(lane, y, a->middle, p->rows * p->t->config.d);
}

static void layer_backward(struct lane *lane, const struct pass *p, size_t layer)
{
    const struct decoder *t = p->t;
    const struct activations *a = &t->kept[layer];
    struct norm before = norm_at(t, slot_offset(t, layer, ATTN_NORM));
    struct norm between = norm_at(t, slot_offset(t, layer, FFN_NORM));
    struct rotary turn = rotary_of(p);
    struct attention attention = attention_of(t, p->batch->batch, p->batch->time);
    struct swiglu swiglu = swiglu_of(p);
    size_t ff = t->config.ff, k = q_width(&t->config), v = k + kv_width(&t->config);
    if (layer + 1 < shared_layers(&t->config)) /* the last such layer's are still there */
        layer_activations(lane, p, layer);
    project_back(lane, p, layer, FFN_DOWN, a->hidden, p->flow, t->d_hidden);
    swiglu_backward(lane, &swiglu, a->gate_up, a->gate_up + ff, t->d_hidden, t->d_gate_up, t->d_gate_up + ff);
    project_back(lane, p, layer, FFN_GATE, a->ff_normed, t->d_gate_up, t->d_normed);
    norm_backward(lane, &between, a->middle, a->ff_stats, t->d_normed, p->rows, p->flow, true);
    project_back(lane, p, layer, ATTN_OUT, a->mixed, p->flow, t->d_mixed);
    attention_backward(lane, &attention, a->qkv, a->qkv + k, a->qkv + v, t->d_mixed, t->d_qkv, t->d_qkv + k,
                       t->d_qkv + v, t->scratch);
    rotary_backward(lane, &turn, t->d_qkv, p->rows);
    project_back(lane, p, layer, ATTN_Q, a->normed, t->d_qkv, t->d_normed);
    norm_backward(lane, &before, t->inputs[layer], a->stats, t->d_normed, p->rows, p->flow, true);
}

/* ---- The whole ---- */

static void run_pass(struct lane *lane, void *ud)
{
    const struct pass *p = ud;
    const struct decoder *t = p->t;
    const struct decoder_config *c = &t->config;
    size_t last = c->layers * SLOTS + 1;
    size_t output = c->tied ? 0 : t->params[last + 1].offset;
    struct embedding embedding = {.vocab = c->vocab, .d = c->d, .w = t->w, .dw = t->dw};
    struct norm norm = norm_at(t, t->params[last].offset);
    struct output o = {
        .vocab = c->vocab, .d = c->d, .w = t->w + output, .dw = t->dw + output, .bf16 = c->bf16};
    embedding_forward(lane, &embedding, p->batch->tokens, p->rows, t->inputs[0]);
    for (size_t l = 0; l < c->layers; l++)
        layer_forward(lane, p, l);
    norm_forward(lane, &norm, t->inputs[c->layers], p->rows, t->final, t->final_stats);
    output_loss(lane, &o, t->final, p->batch->targets, p->batch->weights, p->rows, p->losses,
                p->backward ? t->d_normed : NULL, t->scratch);
    if (!p->backward)
        return;
    norm_backward(lane, &norm, t->inputs[c->layers], t->final_stats, t->d_normed, p->rows, p->flow, false);
    for (size_t l = c->layers; l-- > 0;)
        layer_backward(lane, p, l);
    if (p->last) /* all at once: where tied, the output's gradient comes first, whatever the pieces */
        embedding_backward(lane, &embedding, p->whole->tokens, t->flow, p->whole->batch * p->whole->time);
}

static double weighted_loss(struct decoder *t, const struct decoder_batch *batch, float *losses,
                            bool backward)
{
    double sum = 0;
    size_t sequences = sequences_at_once(t, batch->time);
    losses = losses ? losses : t->losses;
    for (size_t first = 0; first < batch->batch; first += sequences) {
        size_t at = first * batch->time;
        struct decoder_batch piece = {.batch = least(sequences, batch->batch - first),
                                      .time = batch->time,
                                      .tokens = batch->tokens + at,
                                      .targets = batch->targets + at,
                                      .weights = batch->weights + at};
        struct pass pass = {.t = t,
                            .batch = &piece,
                            .whole = batch,
                            .flow = t->flow + at * t->config.d,
                            .last = first + piece.batch == batch->batch,
                            .rows = piece.batch * piece.time,
                            .losses = losses + at,
                            .backward = backward};
        pool_run(t->pool, run_pass, &pass);
    }
    for (size_t r = 0; r < batch->batch * batch->time; r++)
        sum += (double)batch->weights[r] * (double)losses[r];
    return sum;
}

double decoder_accumulate(struct decoder *t, const struct decoder_batch *batch)
{
    return weighted_loss(t, batch, NULL, true);
}

double decoder_evaluate(struct decoder *t, const struct decoder_batch *batch, float *losses)
{
    return weighted_loss(t, batch, losses, false);
}

void decoder_clear_gradients(struct decoder *t)
{
    memset(t->dw, 0, t->len * sizeof *t->dw);
}

struct update {
    struct decoder *t;
    const struct adamw *adamw;
    double norm_max, norm;
};

static void run_update(struct lane *lane, void *ud)
{
    struct update *u = ud;
    struct decoder *t = u->t;
    double norm = gradient_norm(lane, t->dw, t->len, t->scratch);
    if (lane->index == 0)
        u->norm = norm;
    adamw_step(lane, u->adamw, t->params, t->param_count, t->w, t->dw, clip_scale(norm, u->norm_max),
               t->scratch);
}

double decoder_update(struct decoder *t, const struct adamw *adamw, double norm_max)
{
    struct update update = {.t = t, .adamw = adamw, .norm_max = norm_max};
    pool_run(t->pool, run_update, &update);
    return update.norm;
}
