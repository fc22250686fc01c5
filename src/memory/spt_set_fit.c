/* Training the set transformer: a question's candidates are one sequence; the loss is the linear ranker's own
 * (listwise softmax), of its scores plus the corrections. The last layer begins at 0: the first step starts
 * from what the linear ranker knows. One list at a time, BATCH of them a step of AdamW. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "memory/context_int.h"
#include "memory/spt_set_int.h"

#define EPS 1e-5f
#define BATCH 16
#define RATE 3e-4
#define DECAY 0.05f
#define WARMUP 100
#define NORM_MAX 1.0f
#define LISTS_MAX CANDIDATES_MAX

struct block_kept { /* of a forward, [count] rows each */
    float *in, *normed, *stats, *qkv, *heads, *middle, *normed_2, *stats_2, *up, *gelu;
};

struct set_fit {
    struct set_layout layout;
    struct pool *pool;
    float *memory; /* all below */
    float *w, *g, *m, *v;
    float *inputs, *x, *normed, *stats, *corrections, *tmp, *dx, *dy, *dwide, *dqkv;
    struct block_kept blocks[SET_LAYERS];
    void *scratch;
    size_t count;
    const float *dscores;
    struct adamw adamw;
    float scale;
};

static struct linear linear_of(const struct set_fit *f, size_t slice)
{
    const struct param *p = &f->layout.slices[slice], *bias = p + 1;
    bool has_bias = slice != SET_HEAD;
    return (struct linear){.in = p->cols,
                           .out = p->rows,
                           .w = f->w + p->offset,
                           .dw = f->g + p->offset,
                           .bias = has_bias ? f->w + bias->offset : NULL,
                           .dbias = has_bias ? f->g + bias->offset : NULL};
}

static struct norm norm_of(const struct set_fit *f, size_t slice)
{
    const struct param *p = &f->layout.slices[slice];
    return (struct norm){.d = SET_WIDTH,
                         .eps = EPS,
                         .centred = true,
                         .w = f->w + p->offset,
                         .dw = f->g + p->offset,
                         .bias = f->w + p[1].offset,
                         .dbias = f->g + p[1].offset};
}

static struct attention attention_of(size_t count)
{
    return (struct attention){.batch = 1,
                              .time = count,
                              .heads = SET_HEADS,
                              .kv_heads = SET_HEADS,
                              .head_dim = SET_WIDTH / SET_HEADS,
                              .q_stride = 3 * SET_WIDTH,
                              .kv_stride = 3 * SET_WIDTH};
}

/* ---- Forward and backward, on the pool's lane ---- */

static void forward_block(struct lane *lane, struct set_fit *f, size_t block, float *x)
{
    size_t first = SET_BLOCKS + block * SET_BLOCK_SLICES, n = f->count, len = n * SET_WIDTH;
    struct block_kept *kept = &f->blocks[block];
    struct norm norm_1 = norm_of(f, first + BLOCK_NORM_1), norm_2 = norm_of(f, first + BLOCK_NORM_2);
    struct linear qkv = linear_of(f, first + BLOCK_QKV), out = linear_of(f, first + BLOCK_OUT);
    struct linear up = linear_of(f, first + BLOCK_UP), down = linear_of(f, first + BLOCK_DOWN);
    struct attention attention = attention_of(n);
    memcpy(kept->in, x, len * sizeof *x);
    norm_forward(lane, &norm_1, x, n, kept->normed, kept->stats);
    linear_forward(lane, &qkv, kept->normed, n, kept->qkv, f->scratch);
    attention_forward(lane, &attention, kept->qkv, kept->qkv + SET_WIDTH, kept->qkv + 2 * SET_WIDTH,
                      kept->heads, f->scratch);
    linear_forward(lane, &out, kept->heads, n, f->tmp, f->scratch);
    residual_add(lane, x, f->tmp, len);
    memcpy(kept->middle, x, len * sizeof *x);
    norm_forward(lane, &norm_2, x, n, kept->normed_2, kept->stats_2);
    linear_forward(lane, &up, kept->normed_2, n, kept->up, f->scratch);
    gelu_forward(lane, kept->up, n * SET_INNER, kept->gelu);
    linear_forward(lane, &down, kept->gelu, n, f->tmp, f->scratch);
    residual_add(lane, x, f->tmp, len);
}

static void run_forward(struct lane *lane, void *ud)
{
    struct set_fit *f = ud;
    struct linear in = linear_of(f, SET_IN), head = linear_of(f, SET_HEAD);
    struct norm norm = norm_of(f, SET_NORM);
    linear_forward(lane, &in, f->inputs, f->count, f->x, f->scratch);
    for (size_t block = 0; block < SET_LAYERS; block++)
        forward_block(lane, f, block, f->x);
    norm_forward(lane, &norm, f->x, f->count, f->normed, f->stats);
    linear_forward(lane, &head, f->normed, f->count, f->corrections, f->scratch);
}

/* dx: gradient of the block's output, and then of its input. */
static void backward_block(struct lane *lane, struct set_fit *f, size_t block, float *dx)
{
    size_t first = SET_BLOCKS + block * SET_BLOCK_SLICES, n = f->count;
    const struct block_kept *kept = &f->blocks[block];
    struct norm norm_1 = norm_of(f, first + BLOCK_NORM_1), norm_2 = norm_of(f, first + BLOCK_NORM_2);
    struct linear qkv = linear_of(f, first + BLOCK_QKV), out = linear_of(f, first + BLOCK_OUT);
    struct linear up = linear_of(f, first + BLOCK_UP), down = linear_of(f, first + BLOCK_DOWN);
    struct attention attention = attention_of(n);
    linear_backward(lane, &down, kept->gelu, dx, n, f->dwide, false, f->scratch);
    gelu_backward(lane, kept->up, f->dwide, n * SET_INNER, f->dwide);
    linear_backward(lane, &up, kept->normed_2, f->dwide, n, f->dy, false, f->scratch);
    norm_backward(lane, &norm_2, kept->middle, kept->stats_2, f->dy, n, dx, true);
    linear_backward(lane, &out, kept->heads, dx, n, f->dy, false, f->scratch);
    attention_backward(lane, &attention, kept->qkv, kept->qkv + SET_WIDTH, kept->qkv + 2 * SET_WIDTH, f->dy,
                       f->dqkv, f->dqkv + SET_WIDTH, f->dqkv + 2 * SET_WIDTH, f->scratch);
    linear_backward(lane, &qkv, kept->normed, f->dqkv, n, f->dy, false, f->scratch);
    norm_backward(lane, &norm_1, kept->in, kept->stats, f->dy, n, dx, true);
}

static void run_backward(struct lane *lane, void *ud)
{
    struct set_fit *f = ud;
    struct linear in = linear_of(f, SET_IN), head = linear_of(f, SET_HEAD);
    struct norm norm = norm_of(f, SET_NORM);
    linear_backward(lane, &head, f->normed, f->dscores, f->count, f->dy, false, f->scratch);
    norm_backward(lane, &norm, f->x, f->stats, f->dy, f->count, f->dx, false);
    for (size_t block = SET_LAYERS; block-- > 0;)
        backward_block(lane, f, block, f->dx);
    linear_backward(lane, &in, f->inputs, f->dx, f->count, NULL, false, f->scratch);
}

static void run_step(struct lane *lane, void *ud)
{
    struct set_fit *f = ud;
    double norm = f->scale * gradient_norm(lane, f->g, f->layout.len, f->scratch);
    adamw_step(lane, &f->adamw, f->layout.slices, SET_SLICES, f->w, f->g,
               f->scale * clip_scale(norm, NORM_MAX), f->scratch);
}

void set_fit_forward(struct set_fit *f, const struct set_list *list, float *scores)
{
    f->count = list->count;
    set_read(list, f->inputs);
    pool_run(f->pool, run_forward, f);
    for (size_t i = 0; i < f->count; i++)
        scores[i] = list->scores[i] + f->corrections[i];
}

void set_fit_backward(struct set_fit *f, const float *dscores)
{
    f->dscores = dscores;
    pool_run(f->pool, run_backward, f);
}

/* ---- Memory ---- */

static size_t scratch_bytes(const struct set_layout *layout)
{
    struct attention attention = attention_of(LISTS_MAX);
    size_t bytes = attention_scratch_bytes(&attention, 1), norm = gradient_norm_scratch_bytes(layout->len);
    size_t widest = linear_scratch_bytes(SET_INPUTS, 3 * SET_WIDTH, LISTS_MAX);
    bytes = bytes > widest ? bytes : widest;
    return bytes > norm ? bytes : norm;
}

/* Places every array in one piece of memory; memory NULL: counts the floats. */
static size_t place(struct set_fit *f, float *memory)
{
    const size_t row = LISTS_MAX, len = f->layout.len;
    struct {
        float **array;
        size_t len;
    } arrays[] = {
        {&f->w, len},
        {&f->g, len},
        {&f->m, len},
        {&f->v, len},
        {&f->inputs, row * SET_INPUTS},
        {&f->x, row * SET_WIDTH},
        {&f->normed, row * SET_WIDTH},
        {&f->stats, row * 2},
        {&f->corrections, row},
        {&f->tmp, row * SET_WIDTH},
        {&f->dx, row * SET_WIDTH},
        {&f->dy, row * SET_WIDTH},
        {&f->dwide, row * SET_INNER},
        {&f->dqkv, row * 3 * SET_WIDTH},
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; used += arrays[i++].len)
        *arrays[i].array = memory ? memory + used : NULL;
    for (size_t b = 0; b < SET_LAYERS; b++) {
        struct block_kept *kept = &f->blocks[b];
        struct {
            float **array;
            size_t width;
        } rows[] = {{&kept->in, SET_WIDTH},       {&kept->normed, SET_WIDTH}, {&kept->stats, 2},
                    {&kept->qkv, 3 * SET_WIDTH},  {&kept->heads, SET_WIDTH},  {&kept->middle, SET_WIDTH},
                    {&kept->normed_2, SET_WIDTH}, {&kept->stats_2, 2},        {&kept->up, SET_INNER},
                    {&kept->gelu, SET_INNER}};
        for (size_t i = 0; i < sizeof rows / sizeof *rows; used += row * rows[i++].width)
            *rows[i].array = memory ? memory + used : NULL;
    }
    return used;
}

static void start_weights(struct set_fit *f, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < SET_SLICES; i++) {
        const struct param *p = &f->layout.slices[i];
        bool is_gain = strstr(p->name, "norm") && strstr(p->name, "weight");
        float reach = p->decay && i != SET_HEAD ? 1 / sqrtf((float)p->cols) : 0;
        for (size_t k = 0; k < p->rows * p->cols; k++)
            f->w[p->offset + k] = is_gain ? 1 : reach * (2 * rng_float(&rng) - 1);
    }
}

enum ph_status set_fit_create(struct set_fit **out, uint64_t seed, struct ph_err *err)
{
    struct set_fit *f = mem_calloc(1, sizeof *f);
    if (!f)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory for training the selector");
    set_layout_make(&f->layout);
    f->memory = mem_calloc(place(f, NULL), sizeof *f->memory);
    f->scratch = mem_alloc_aligned(64, scratch_bytes(&f->layout));
    enum ph_status status = f->memory && f->scratch
                                ? pool_create(&f->pool, 1, 0, kernels_select(NULL), err)
                                : ph_fail(err, PH_ERR_NOMEM, "out of memory for training the selector");
    if (status) {
        set_fit_free(f);
        return status;
    }
    place(f, f->memory);
    start_weights(f, seed);
    f->adamw =
        (struct adamw){.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .decay = DECAY, .m = f->m, .v = f->v};
    *out = f;
    return PH_OK;
}

void set_fit_free(struct set_fit *f)
{
    if (!f)
        return;
    pool_free(f->pool);
    mem_free(f->scratch);
    mem_free(f->memory);
    mem_free(f);
}

float *set_fit_weights(struct set_fit *f)
{
    return f->w;
}

float *set_fit_gradients(struct set_fit *f)
{
    return f->g;
}

/* ---- Learning ---- */

/* One example's loss; its gradient, times its weight, is added. */
static double learn(struct set_fit *f, const struct spt_example *example, const float *weights)
{
    float linear[LISTS_MAX], scores[LISTS_MAX], judged[LISTS_MAX], relevance[LISTS_MAX], slopes[LISTS_MAX];
    const int8_t *vectors[LISTS_MAX];
    const float *features[LISTS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < example->count; i++) {
        linear[i] = context_linear(weights, example->features[i]);
        vectors[i] = example->vectors[i];
        features[i] = example->features[i];
    }
    set_fit_forward(f,
                    &(struct set_list){.count = example->count,
                                       .features = features,
                                       .vectors = vectors,
                                       .query = example->query,
                                       .scores = linear,
                                       .talk = example->talk},
                    scores);
    for (size_t i = 0; i < example->count; i++)
        if (example->relevance[i] >= 0) {
            judged[count] = scores[i];
            relevance[count++] = example->relevance[i];
        }
    double loss = loss_listwise(judged, relevance, count, slopes);
    for (size_t i = example->count; i-- > 0;) /* count is at most i + 1 here */
        scores[i] = example->relevance[i] >= 0 ? example->weight * slopes[--count] : 0;
    set_fit_backward(f, scores);
    return loss;
}

static double learn_epoch(struct set_fit *f, const struct spt_example *examples, const uint64_t *order,
                          size_t count, const float weights[TALK_COUNT][FEATURE_COUNT],
                          const struct schedule *schedule)
{
    double losses = 0, total = 0;
    float batch = 0;
    for (size_t i = 0; i < count; i++) {
        const struct spt_example *example = &examples[order[i]];
        losses += (double)example->weight * learn(f, example, weights[example->talk]);
        total += (double)example->weight;
        batch += example->weight;
        if ((i + 1) % BATCH && i + 1 < count)
            continue;
        f->adamw.step++;
        f->adamw.rate = (float)schedule_rate(schedule, f->adamw.step);
        f->scale = 1 / batch;
        pool_run(f->pool, run_step, f);
        memset(f->g, 0, f->layout.len * sizeof *f->g);
        batch = 0;
    }
    return losses / total;
}

enum ph_status set_fit_learn(struct set_fit *f, const struct spt_example *examples, size_t count,
                             const float weights[TALK_COUNT][FEATURE_COUNT], size_t epochs, uint64_t seed,
                             double *loss)
{
    struct rng rng;
    uint64_t *order = mem_alloc((count + 1) * sizeof *order);
    if (!order)
        return PH_ERR_NOMEM;
    const struct schedule schedule = {.peak = RATE, .warmup = WARMUP, .steps = epochs * (count / BATCH + 1)};
    rng_init(&rng, seed);
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t epoch = 0; epoch < epochs; epoch++) {
        rng_shuffle(&rng, order, count);
        *loss = learn_epoch(f, examples, order, count, weights, &schedule);
    }
    mem_free(order);
    return PH_OK;
}
