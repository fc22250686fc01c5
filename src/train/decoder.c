/* The llama architecture, trained: embedding; layers of x += attention(norm(x)), x += swiglu(norm(x)); norm;
 * output with fused loss.
 *
 * All memory is taken when the decoder is made: one block, carved twice by the same function (once to count,
 * once for good). Forward keeps each layer's input and activations. With `recompute` all layers but the last
 * `keep` share one set of activations, and backward runs such a layer's forward again first; the last one's
 * to use the set are still there.
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
    float *normed, *stats, *q, *k, *v, *mixed;                 /* attention */
    float *middle, *ff_normed, *ff_stats, *gate, *up, *hidden; /* feed-forward */
};

struct decoder {
    struct decoder_config config;
    struct pool *pool;
    unsigned lanes;
    size_t batch, time; /* of the workspace */
    struct param *params;
    size_t param_count, len, bytes;
    void *block;
    float *w, *dw, *table;
    float **inputs;           /* [layers + 1], each [rows][d] */
    struct activations *kept; /* [layers], all the same where recomputed */
    float *final, *final_stats, *losses;
    float *flow, *d_normed, *d_mixed, *d_q, *d_k, *d_v, *d_gate, *d_up;
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

static const struct {
    const char *name;
    bool vector;
} slots[SLOTS] = {
    [ATTN_NORM] = {"attn_norm", true}, [ATTN_Q] = {"attn_q", false},        [ATTN_K] = {"attn_k", false},
    [ATTN_V] = {"attn_v", false},      [ATTN_OUT] = {"attn_output", false}, [FFN_NORM] = {"ffn_norm", true},
    [FFN_GATE] = {"ffn_gate", false},  [FFN_UP] = {"ffn_up", false},        [FFN_DOWN] = {"ffn_down", false},
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

static void add_param(struct decoder *t, const char *name, size_t rows, size_t cols)
{
    struct param *p = &t->params[t->param_count++];
    *p = (struct param){.rows = rows,
                        .cols = cols,
                        .offset = t->len,
                        .decay = rows > 1,
                        .hidden = strncmp(name, "blk.", 4) == 0 && rows > 1};
    memcpy(p->name, name, strlen(name) + 1);
    t->len += align_bytes(rows * cols * sizeof(float)) / sizeof(float);
}

/* Order: embedding, layers, final norm, output where it is not the embedding. */
static void lay_out_params(struct decoder *t)
{
    const struct decoder_config *c = &t->config;
    char name[PARAM_NAME_MAX];
    add_param(t, "token_embd.weight", c->vocab, c->d);
    for (size_t l = 0; l < c->layers; l++) {
        for (enum slot s = 0; s < SLOTS; s++) {
            size_t rows, cols;
            slot_shape(c, s, &rows, &cols);
            snprintf(name, sizeof name, "blk.%zu.%s.weight", l, slots[s].name);
            add_param(t, name, rows, cols);
        }
    }
    add_param(t, "output_norm.weight", 1, c->d);
    if (!c->tied)
        add_param(t, "output.weight", c->vocab, c->d);
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
    size_t d = config->d, q = q_width(config), kv = kv_width(config), ff = config->ff;
    a->normed = carve_floats(c, rows * d);
    a->stats = carve_floats(c, rows * 2);
    a->q = carve_floats(c, rows * q);
    a->k = carve_floats(c, rows * kv);
    a->v = carve_floats(c, rows * kv);
    a->mixed = carve_floats(c, rows * q);
    a->middle = carve_floats(c, rows * d);
    a->ff_normed = carve_floats(c, rows * d);
    a->ff_stats = carve_floats(c, rows * 2);
    a->gate = carve_floats(c, rows * ff);
    a->up = carve_floats(c, rows * ff);
    a->hidden = carve_floats(c, rows * ff);
}

static struct attention attention_of(const struct decoder *t, size_t batch, size_t time)
{
    return (struct attention){.batch = batch,
                              .time = time,
                              .heads = t->config.heads,
                              .kv_heads = t->config.kv_heads,
                              .head_dim = t->config.head_dim,
                              .causal = true,
                              .bf16 = t->config.bf16};
}

static size_t step_scratch_bytes(const struct decoder *t)
{
    const struct decoder_config *c = &t->config;
    struct attention a = attention_of(t, t->batch, t->time);
    size_t rows = t->batch * t->time;
    size_t wide = most(most(c->d, c->ff), q_width(c)), products = linear_scratch_bytes(wide, wide, rows);
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
    size_t shared = shared_layers(config), rows = t->batch * t->time, d = config->d, q = q_width(config),
           kv = kv_width(config);
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
    t->losses = carve_floats(c, rows);
    t->flow = carve_floats(c, rows * d);
    t->d_normed = carve_floats(c, rows * d);
    t->d_mixed = carve_floats(c, rows * q);
    t->d_q = carve_floats(c, rows * q);
    t->d_k = carve_floats(c, rows * kv);
    t->d_v = carve_floats(c, rows * kv);
    t->d_gate = carve_floats(c, rows * config->ff);
    t->d_up = carve_floats(c, rows * config->ff);
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
    size_t wide = most(most(c->d, c->ff), c->heads * c->head_dim); /* a shared-out loop counts in 32 bits */
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
    const struct decoder_batch *batch;
    size_t rows;
    float *losses;
    bool backward;
};

static struct linear linear_at(const struct decoder *t, size_t layer, enum slot slot)
{
    size_t offset = slot_offset(t, layer, slot), in, out;
    slot_shape(&t->config, slot, &out, &in);
    return (struct linear){
        .in = in, .out = out, .w = t->w + offset, .dw = t->dw + offset, .bf16 = t->config.bf16};
}

static struct norm norm_at(const struct decoder *t, size_t offset)
{
    return (struct norm){
        .d = t->config.d, .eps = t->config.norm_eps, .w = t->w + offset, .dw = t->dw + offset};
}

static struct rotary rotary_of(const struct pass *p, size_t heads)
{
    return (struct rotary){.time = p->batch->time,
                           .heads = heads,
                           .head_dim = p->t->config.head_dim,
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
                         const float *x, const float *dy, float *dx, bool add)
{
    struct linear l = linear_at(p->t, layer, slot);
    linear_backward(lane, &l, x, dy, p->rows, dx, add, p->t->scratch);
}

/* All of a layer that backward needs. */
static void layer_activations(struct lane *lane, const struct pass *p, size_t layer)
{
    const struct decoder *t = p->t;
    const struct activations *a = &t->kept[layer];
    const float *x = t->inputs[layer];
    struct norm before = norm_at(t, slot_offset(t, layer, ATTN_NORM));
    struct norm between = norm_at(t, slot_offset(t, layer, FFN_NORM));
    struct rotary turn_q = rotary_of(p, t->config.heads), turn_k = rotary_of(p, t->config.kv_heads);
    struct attention attention = attention_of(t, p->batch->batch, p->batch->time);
    norm_forward(lane, &before, x, p->rows, a->normed, a->stats);
    project(lane, p, layer, ATTN_Q, a->normed, a->q);
    project(lane, p, layer, ATTN_K, a->normed, a->k);
    project(lane, p, layer, ATTN_V, a->normed, a->v);
    rotary_forward(lane, &turn_q, a->q, p->rows);
    rotary_forward(lane, &turn_k, a->k, p->rows);
    attention_forward(lane, &attention, a->q, a->k, a->v, a->mixed, t->scratch);
    project(lane, p, layer, ATTN_OUT, a->mixed, a->middle);
    residual_add(lane, a->middle, x, p->rows * t->config.d);
    norm_forward(lane, &between, a->middle, p->rows, a->ff_normed, a->ff_stats);
    project(lane, p, layer, FFN_GATE, a->ff_normed, a->gate);
    project(lane, p, layer, FFN_UP, a->ff_normed, a->up);
    swiglu_forward(lane, a->gate, a->up, p->rows * t->config.ff, a->hidden);
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
    struct rotary turn_q = rotary_of(p, t->config.heads), turn_k = rotary_of(p, t->config.kv_heads);
    struct attention attention = attention_of(t, p->batch->batch, p->batch->time);
    if (layer + 1 < shared_layers(&t->config)) /* the last such layer's are still there */
        layer_activations(lane, p, layer);
    project_back(lane, p, layer, FFN_DOWN, a->hidden, t->flow, t->d_up, false);
    swiglu_backward(lane, a->gate, a->up, t->d_up, p->rows * t->config.ff, t->d_gate, t->d_up);
    project_back(lane, p, layer, FFN_GATE, a->ff_normed, t->d_gate, t->d_normed, false);
    project_back(lane, p, layer, FFN_UP, a->ff_normed, t->d_up, t->d_normed, true);
    norm_backward(lane, &between, a->middle, a->ff_stats, t->d_normed, p->rows, t->flow, true);
    project_back(lane, p, layer, ATTN_OUT, a->mixed, t->flow, t->d_mixed, false);
    attention_backward(lane, &attention, a->q, a->k, a->v, t->d_mixed, t->d_q, t->d_k, t->d_v, t->scratch);
    rotary_backward(lane, &turn_q, t->d_q, p->rows);
    rotary_backward(lane, &turn_k, t->d_k, p->rows);
    project_back(lane, p, layer, ATTN_Q, a->normed, t->d_q, t->d_normed, false);
    project_back(lane, p, layer, ATTN_K, a->normed, t->d_k, t->d_normed, true);
    project_back(lane, p, layer, ATTN_V, a->normed, t->d_v, t->d_normed, true);
    norm_backward(lane, &before, t->inputs[layer], a->stats, t->d_normed, p->rows, t->flow, true);
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
    norm_backward(lane, &norm, t->inputs[c->layers], t->final_stats, t->d_normed, p->rows, t->flow, false);
    for (size_t l = c->layers; l-- > 0;)
        layer_backward(lane, p, l);
    embedding_backward(lane, &embedding, p->batch->tokens, t->flow, p->rows);
}

static double weighted_loss(struct decoder *t, const struct decoder_batch *batch, float *losses,
                            bool backward)
{
    struct pass pass = {.t = t,
                        .batch = batch,
                        .rows = batch->batch * batch->time,
                        .losses = losses ? losses : t->losses,
                        .backward = backward};
    double sum = 0;
    pool_run(t->pool, run_pass, &pass);
    for (size_t r = 0; r < pass.rows; r++)
        sum += (double)batch->weights[r] * (double)pass.losses[r];
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
