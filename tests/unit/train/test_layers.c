/* Each layer's backward against central differences of its FP64 forward, and one lane against three. */
#include "test_support.h"

#include <math.h>

#include "base/mem.h"
#include "train/peer.h"
#include "train/reference.h"

enum { BATCH = 2, ROWS_MAX = 2 * 7, LEN_MAX = 2048, ARRAYS_MAX = 6, VOCAB = 37 };

/* One layer at one size: its inputs and parameters are arrays x[i] of len[i]; `added` has a bit for each
 * whose gradient is added to. run makes y and grad from f and dy; reference makes y from x. */
struct trial;
struct layer_case {
    const char *name;
    void (*run)(struct lane *lane, void *trial);
    void (*reference)(const struct layer_case *c, double *const *x, double *y);
    size_t arrays, len[ARRAYS_MAX], out_len;
    unsigned added;
    size_t batch, time, heads, kv_heads, head_dim, in, out;
    bool flag; /* neox, causal, centred */
};

struct trial {
    const struct layer_case *c;
    double x[ARRAYS_MAX][LEN_MAX], reference_y[LEN_MAX];
    float f[ARRAYS_MAX][LEN_MAX], grad[ARRAYS_MAX][LEN_MAX], y[LEN_MAX], dy[LEN_MAX];
    int32_t tokens[ROWS_MAX];
    float stats[ROWS_MAX * 2], table[LEN_MAX], kept[4 * LEN_MAX];
    void *scratch;
    unsigned without; /* a bit for each array whose gradient is not asked for */
};

#define ADDED_TO 0.25f

static float *grad_of(struct trial *t, size_t array)
{
    return t->without >> array & 1 ? NULL : t->grad[array];
}

static void fill_tokens(int32_t *tokens, size_t rows)
{
    for (size_t r = 0; r < rows; r++)
        tokens[r] = (int32_t)(r * 11 % VOCAB / 3); /* some several times */
}

/* ---- The layers ---- */

static void run_embedding(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    struct embedding e = {.vocab = VOCAB, .d = t->c->out, .w = t->f[0], .dw = grad_of(t, 0)};
    embedding_forward(lane, &e, t->tokens, t->c->in, t->y);
    embedding_backward(lane, &e, t->tokens, t->dy, t->c->in);
}

static void reference_embedding(const struct layer_case *c, double *const *x, double *y)
{
    int32_t tokens[ROWS_MAX];
    fill_tokens(tokens, c->in);
    for (size_t i = 0; i < c->in * c->out; i++)
        y[i] = x[0][(size_t)tokens[i / c->out] * c->out + i % c->out];
}

static void run_linear(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    const struct layer_case *c = t->c;
    struct linear l = {.in = c->in,
                       .out = c->out,
                       .w = t->f[1],
                       .bias = t->f[2],
                       .dw = grad_of(t, 1),
                       .dbias = grad_of(t, 2)};
    linear_forward(lane, &l, t->f[0], c->batch, t->y, t->scratch);
    linear_backward(lane, &l, t->f[0], t->dy, c->batch, grad_of(t, 0), c->added & 1, t->scratch);
}

static void reference_of_linear(const struct layer_case *c, double *const *x, double *y)
{
    reference_linear(x[0], x[1], x[2], c->batch, c->in, c->out, y);
}

static void run_norm(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    const struct layer_case *c = t->c;
    struct norm n = {.d = c->in, .eps = 1e-5f, .centred = c->flag, .w = t->f[1], .dw = grad_of(t, 1)};
    n.bias = c->flag ? t->f[2] : NULL;
    n.dbias = c->flag ? grad_of(t, 2) : NULL;
    norm_forward(lane, &n, t->f[0], c->batch, t->y, t->stats);
    norm_backward(lane, &n, t->f[0], t->stats, t->dy, c->batch, grad_of(t, 0), c->added & 1);
}

static void reference_of_norm(const struct layer_case *c, double *const *x, double *y)
{
    reference_norm(x[0], x[1], c->flag ? x[2] : NULL, c->batch, c->in, (double)1e-5f, c->flag, y);
}

static void run_rotary(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    const struct layer_case *c = t->c;
    struct rotary r = {
        .time = c->time, .heads = c->heads, .head_dim = c->head_dim, .neox = c->flag, .table = t->table};
    size_t rows = c->batch * c->time;
    if (lane->index == 0) {
        memcpy(t->y, t->f[0], c->out_len * sizeof *t->y);
        memcpy(t->grad[0], t->dy, c->out_len * sizeof *t->y);
    }
    lane_barrier(lane);
    rotary_forward(lane, &r, t->y, rows);
    rotary_backward(lane, &r, t->grad[0], rows);
}

static void reference_of_rotary(const struct layer_case *c, double *const *x, double *y)
{
    memcpy(y, x[0], c->out_len * sizeof *y);
    reference_rotary(y, c->batch * c->time, c->time, c->heads, c->head_dim, 100, c->flag);
}

static struct attention attention_of(const struct layer_case *c)
{
    return (struct attention){.batch = c->batch,
                              .time = c->time,
                              .heads = c->heads,
                              .kv_heads = c->kv_heads,
                              .head_dim = c->head_dim,
                              .causal = c->flag};
}

static void run_attention(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    struct attention a = attention_of(t->c);
    attention_forward(lane, &a, t->f[0], t->f[1], t->f[2], t->y, t->scratch);
    attention_backward(lane, &a, t->f[0], t->f[1], t->f[2], t->dy, t->grad[0], t->grad[1], t->grad[2],
                       t->scratch);
}

static void reference_of_attention(const struct layer_case *c, double *const *x, double *y)
{
    struct attention a = attention_of(c);
    reference_attention(&a, x[0], x[1], x[2], y);
}

static void run_swiglu(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    struct swiglu s = {.rows = 1, .width = t->c->out_len};
    swiglu_forward(lane, &s, t->f[0], t->f[1], t->y);
    swiglu_backward(lane, &s, t->f[0], t->f[1], t->dy, t->grad[0], t->grad[1]);
}

static void reference_swiglu(const struct layer_case *c, double *const *x, double *y)
{
    for (size_t i = 0; i < c->out_len; i++)
        y[i] = reference_silu(x[0][i]) * x[1][i];
}

static void run_gelu(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    gelu_forward(lane, t->f[0], t->c->out_len, t->y);
    gelu_backward(lane, t->f[0], t->dy, t->c->out_len, t->grad[0]);
}

static void reference_of_gelu(const struct layer_case *c, double *const *x, double *y)
{
    for (size_t i = 0; i < c->out_len; i++)
        y[i] = reference_gelu(x[0][i]);
}

static void run_silu(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    silu_forward(lane, t->f[0], t->c->out_len, t->y);
    silu_backward(lane, t->f[0], t->dy, t->c->out_len, t->grad[0]);
}

static void reference_of_silu(const struct layer_case *c, double *const *x, double *y)
{
    for (size_t i = 0; i < c->out_len; i++)
        y[i] = reference_silu(x[0][i]);
}

/* `heads` is the stride, `kv_heads` the padding, `head_dim` the kernel, `flag` says depthwise. */
static struct convolution convolution_of(const struct layer_case *c)
{
    return (struct convolution){.batch = c->batch,
                                .time = c->time,
                                .time_out = c->out_len / c->batch / c->out,
                                .in = c->in,
                                .out = c->out,
                                .kernel = c->head_dim,
                                .stride = c->heads,
                                .pad = c->kv_heads,
                                .depthwise = c->flag};
}

static void run_convolution(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    struct convolution c = convolution_of(t->c);
    c.w = t->f[1];
    c.bias = t->f[2];
    c.dw = grad_of(t, 1);
    c.dbias = grad_of(t, 2);
    convolution_forward(lane, &c, t->f[0], t->y, t->scratch);
    convolution_backward(lane, &c, t->f[0], t->dy, grad_of(t, 0), t->scratch);
}

static void reference_of_convolution(const struct layer_case *c, double *const *x, double *y)
{
    struct convolution convolution = convolution_of(c);
    reference_convolution(&convolution, x[0], x[1], x[2], y);
}

static void run_mean_pool(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    mean_pool_forward(lane, t->f[0], t->c->batch, t->c->time, t->c->in, t->y);
    mean_pool_backward(lane, t->dy, t->c->batch, t->c->time, t->c->in, t->grad[0]);
}

static void reference_mean_pool(const struct layer_case *c, double *const *x, double *y)
{
    memset(y, 0, c->out_len * sizeof *y);
    for (size_t i = 0; i < c->len[0]; i++)
        y[i / c->in / c->time * c->in + i % c->in] += x[0][i] / (double)c->time;
}

static void run_softmax_pool(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    struct softmax_pool p = {
        .batch = t->c->batch, .time = t->c->time, .d = t->c->in, .w = t->f[1], .dw = grad_of(t, 1)};
    softmax_pool_forward(lane, &p, t->f[0], t->y, t->stats);
    softmax_pool_backward(lane, &p, t->f[0], t->y, t->stats, t->dy, grad_of(t, 0), t->scratch);
}

static void reference_softmax_pool(const struct layer_case *c, double *const *x, double *y)
{
    memset(y, 0, c->out_len * sizeof *y);
    for (size_t b = 0; b < c->batch; b++) {
        double sum = 0, share[ROWS_MAX];
        for (size_t t = 0; t < c->time; t++) {
            reference_linear(x[0] + (b * c->time + t) * c->in, x[1], NULL, 1, c->in, 1, share + t);
            sum += share[t] = exp(share[t]);
        }
        for (size_t i = 0; i < c->time * c->in; i++)
            y[b * c->in + i % c->in] += share[i / c->in] / sum * x[0][b * c->time * c->in + i];
    }
}

/* `in` channels, `out` states */
static struct scan_layer scan_of(const struct layer_case *c)
{
    return (struct scan_layer){.batch = c->batch, .time = c->time, .channels = c->in, .states = c->out};
}

static void run_scan(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    struct scan_layer s = scan_of(t->c);
    struct scan_inputs in = {.x = t->f[0], .delta = t->f[1], .b = t->f[2], .c = t->f[3]};
    struct scan_gradients out = {
        .dx = grad_of(t, 0), .ddelta = grad_of(t, 1), .db = grad_of(t, 2), .dc = grad_of(t, 3)};
    s.a_log = t->f[4];
    s.skip = t->f[5];
    s.da_log = grad_of(t, 4);
    s.dskip = grad_of(t, 5);
    scan_forward(lane, &s, &in, t->y, t->table, t->scratch);
    scan_backward(lane, &s, &in, t->table, t->dy, &out, t->scratch);
}

static void reference_of_scan(const struct layer_case *c, double *const *x, double *y)
{
    struct scan_layer s = scan_of(c);
    reference_scan(&s, (const double *const *)x, y);
}

/* `in` is d, `out` inner; 3 states, rank 2, kernel 4 */
static struct mamba mamba_of(const struct layer_case *c)
{
    return (struct mamba){
        .batch = c->batch, .time = c->time, .d = c->in, .inner = c->out, .states = 3, .rank = 2, .kernel = 4};
}

static void run_mamba(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    struct mamba m = mamba_of(t->c);
    m.w = t->f[1];
    m.dw = grad_of(t, 1);
    mamba_forward(lane, &m, t->f[0], t->y, t->kept, t->scratch);
    mamba_backward(lane, &m, t->f[0], t->kept, t->dy, grad_of(t, 0), t->c->added & 1, t->scratch);
}

static void reference_mamba(const struct layer_case *c, double *const *x, double *y)
{
    static double xs[LEN_MAX], z[LEN_MAX], active[LEN_MAX], low[LEN_MAX], b[LEN_MAX], cs[LEN_MAX],
        delta[LEN_MAX];
    struct mamba m = mamba_of(c);
    struct mamba_layout l = mamba_layout(&m);
    size_t rows = c->batch * c->time, inner = c->out;
    const double *w = x[1], *x_proj = w + l.x_proj;
    struct convolution conv = {.batch = c->batch, .time = c->time, .time_out = c->time, .in = inner};
    struct scan_layer s = {.batch = c->batch, .time = c->time, .channels = inner, .states = 3};
    const double *const in[] = {active, delta, b, cs, w + l.a_log, w + l.skip};
    conv.out = inner;
    conv.kernel = 4;
    conv.stride = 1;
    conv.pad = 3;
    conv.depthwise = true;
    reference_linear(x[0], w + l.in_proj, NULL, rows, c->in, inner, xs);
    reference_linear(x[0], w + l.in_proj + inner * c->in, NULL, rows, c->in, inner, z);
    reference_convolution(&conv, xs, w + l.conv, w + l.conv_bias, active);
    for (size_t i = 0; i < rows * inner; i++)
        active[i] = reference_silu(active[i]);
    reference_linear(active, x_proj, NULL, rows, inner, 2, low);
    reference_linear(active, x_proj + 2 * inner, NULL, rows, inner, 3, b);
    reference_linear(active, x_proj + 5 * inner, NULL, rows, inner, 3, cs);
    reference_linear(low, w + l.dt_proj, w + l.dt_bias, rows, 2, inner, delta);
    reference_scan(&s, in, xs);
    for (size_t i = 0; i < rows * inner; i++)
        xs[i] *= reference_silu(z[i]);
    reference_linear(xs, w + l.out_proj, NULL, rows, inner, c->in, y);
}

/* The weights of rows are what the losses' gradient is taken with. */
static void run_output(struct lane *lane, void *ud)
{
    struct trial *t = ud;
    struct output o = {.vocab = VOCAB, .d = t->c->in, .w = t->f[1], .dw = grad_of(t, 1)};
    output_loss(lane, &o, t->f[0], t->tokens, t->dy, t->c->batch, t->y, grad_of(t, 0), t->scratch);
}

static void reference_output(const struct layer_case *c, double *const *x, double *y)
{
    int32_t targets[ROWS_MAX];
    fill_tokens(targets, c->batch);
    reference_losses(x[0], x[1], targets, c->batch, VOCAB, c->in, y);
}

#define ATTENTION_CASE(label, b, t, h, kv, hd, causal)                                                \
    {                                                                                                 \
        .name = label, .run = run_attention, .reference = reference_of_attention, .arrays = 3,        \
        .len = {(b) * (t) * (h) * (hd), (b) * (t) * (kv) * (hd), (b) * (t) * (kv) * (hd)},            \
        .out_len = (b) * (t) * (h) * (hd), .batch = (b), .time = (t), .heads = (h), .kv_heads = (kv), \
        .head_dim = (hd), .flag = (causal)                                                            \
    }
#define ROTARY_CASE(label, hd, neox)                                                               \
    {                                                                                              \
        .name = label, .run = run_rotary, .reference = reference_of_rotary, .arrays = 1,           \
        .len = {BATCH * 7 * 3 * (hd)}, .out_len = BATCH * 7 * 3 * (hd), .batch = BATCH, .time = 7, \
        .heads = 3, .head_dim = (hd), .flag = (neox)                                               \
    }
#define NORM_CASE(label, rows, d, is_centred, bits)                                                     \
    {                                                                                                   \
        .name = label, .run = run_norm, .reference = reference_of_norm, .arrays = (is_centred) ? 3 : 2, \
        .len = {(rows) * (d), (d), (d)}, .out_len = (rows) * (d), .added = (bits), .batch = (rows),     \
        .in = (d), .flag = (is_centred)                                                                 \
    }
#define CONVOLUTION_CASE(label, b, t, t_out, n, m, k, s, p, depthwise)                                      \
    {                                                                                                       \
        .name = label, .run = run_convolution, .reference = reference_of_convolution, .arrays = 3,          \
        .len = {(b) * (t) * (n), (m) * (k) * ((depthwise) ? 1 : (n)), (m)}, .out_len = (b) * (t_out) * (m), \
        .added = 6, .batch = (b), .time = (t), .heads = (s), .kv_heads = (p), .head_dim = (k), .in = (n),   \
        .out = (m), .flag = (depthwise)                                                                     \
    }
#define SCAN_CASE(label, b, t, d, n)                                                                 \
    {                                                                                                \
        .name = label, .run = run_scan, .reference = reference_of_scan, .arrays = 6,                 \
        .len = {(b) * (t) * (d), (b) * (t) * (d), (b) * (t) * (n), (b) * (t) * (n), (d) * (n), (d)}, \
        .out_len = (b) * (t) * (d), .added = 48, .batch = (b), .time = (t), .in = (d), .out = (n)    \
    }
#define MAMBA_LEN(d, e) (2 * (e) * (d) + 5 * (e) + 8 * (e) + 3 * (e) + 4 * (e) + (d) * (e))
#define MAMBA_CASE(label, b, t, d, e, bits)                                                     \
    {                                                                                           \
        .name = label, .run = run_mamba, .reference = reference_mamba, .arrays = 2,             \
        .len = {(b) * (t) * (d), MAMBA_LEN(d, e)}, .out_len = (b) * (t) * (d), .added = (bits), \
        .batch = (b), .time = (t), .in = (d), .out = (e)                                        \
    }
#define LINEAR_CASE(label, rows, n, m, bits)                                                              \
    {                                                                                                     \
        .name = label, .run = run_linear, .reference = reference_of_linear, .arrays = 3,                  \
        .len = {(rows) * (n), (n) * (m), (m)}, .out_len = (rows) * (m), .added = (bits), .batch = (rows), \
        .in = (n), .out = (m)                                                                             \
    }

static const struct layer_case cases[] = {
    {.name = "embedding",
     .run = run_embedding,
     .reference = reference_embedding,
     .arrays = 1,
     .len = {VOCAB * 18},
     .out_len = 14 * 18,
     .added = 1,
     .in = 14,
     .out = 18},
    LINEAR_CASE("linear", 14, 19, 23, 6),
    LINEAR_CASE("linear, one row, input added to", 1, 5, 3, 7),
    NORM_CASE("RMSNorm", 14, 19, false, 2),
    NORM_CASE("RMSNorm, input added to", 3, 33, false, 3),
    NORM_CASE("LayerNorm", 14, 19, true, 6),
    NORM_CASE("LayerNorm, wide", 3, 83, true, 6),
    NORM_CASE("LayerNorm, one row, input added to", 1, 18, true, 7),
    ROTARY_CASE("rotary, interleaved", 6, false),
    ROTARY_CASE("rotary, interleaved, wide heads", 44, false),
    ROTARY_CASE("rotary, NeoX", 6, true),
    ATTENTION_CASE("causal attention", 2, 7, 3, 3, 6, true),
    ATTENTION_CASE("causal attention, heads shared", 2, 7, 3, 1, 6, true),
    ATTENTION_CASE("causal attention of one position", 2, 1, 4, 2, 5, true),
    ATTENTION_CASE("bidirectional attention, heads shared", 1, 7, 4, 2, 10, false),
    ATTENTION_CASE("causal attention of several tiles", 1, 67, 2, 1, 4, true),
    ATTENTION_CASE("bidirectional attention of several tiles", 1, 41, 2, 2, 5, false),
    {.name = "SwiGLU",
     .run = run_swiglu,
     .reference = reference_swiglu,
     .arrays = 2,
     .len = {301, 301},
     .out_len = 301},
    {.name = "GELU",
     .run = run_gelu,
     .reference = reference_of_gelu,
     .arrays = 1,
     .len = {301},
     .out_len = 301},
    {.name = "SiLU",
     .run = run_silu,
     .reference = reference_of_silu,
     .arrays = 1,
     .len = {301},
     .out_len = 301},
    CONVOLUTION_CASE("causal convolution", 2, 7, 7, 5, 9, 4, 1, 3, false),
    CONVOLUTION_CASE("convolution with stride", 2, 7, 4, 18, 3, 3, 2, 1, false),
    CONVOLUTION_CASE("convolution of one position", 1, 1, 1, 3, 5, 4, 1, 3, false),
    CONVOLUTION_CASE("depthwise causal convolution", 2, 7, 7, 19, 19, 4, 1, 3, true),
    CONVOLUTION_CASE("depthwise convolution with stride", 2, 7, 3, 5, 5, 3, 3, 1, true),
    {.name = "mean pooling",
     .run = run_mean_pool,
     .reference = reference_mean_pool,
     .arrays = 1,
     .len = {2 * 7 * 19},
     .out_len = 2 * 19,
     .batch = 2,
     .time = 7,
     .in = 19},
    {.name = "softmax pooling",
     .run = run_softmax_pool,
     .reference = reference_softmax_pool,
     .arrays = 2,
     .len = {2 * 7 * 19, 19},
     .out_len = 2 * 19,
     .added = 2,
     .batch = 2,
     .time = 7,
     .in = 19},
    SCAN_CASE("scan over two stretches", 2, 35, 9, 3),
    MAMBA_CASE("Mamba block", 2, 7, 5, 11, 2),
    MAMBA_CASE("Mamba block, input added to", 1, 1, 3, 6, 3),
    SCAN_CASE("scan of one position", 2, 1, 19, 5),
    {.name = "output and loss",
     .run = run_output,
     .reference = reference_output,
     .arrays = 2,
     .len = {14 * 18, VOCAB * 18},
     .out_len = 14,
     .added = 2,
     .batch = 14,
     .in = 18},
};

/* ---- The checks ---- */

static const struct layer_kind {
    void (*run)(struct lane *lane, void *trial);
    const char *name;  /* in peer_torch.py */
    unsigned optional; /* a bit for each array whose gradient may be left out */
} layer_kinds[] = {
    {run_embedding, "embedding", 1}, {run_linear, "linear", 7},
    {run_norm, "norm", 7},           {run_rotary, "rotary", 0},
    {run_attention, "attention", 0}, {run_swiglu, "swiglu", 0},
    {run_gelu, "gelu", 0},           {run_silu, "silu", 0},
    {run_mean_pool, "mean_pool", 0}, {run_softmax_pool, "softmax_pool", 3},
    {run_scan, "scan", 48},          {run_convolution, "convolution", 7},
    {run_mamba, "mamba", 3},         {run_output, "output", 2},
};

static const struct layer_kind *kind_of(const struct layer_case *c)
{
    for (size_t i = 0; i < sizeof layer_kinds / sizeof *layer_kinds; i++)
        if (layer_kinds[i].run == c->run)
            return &layer_kinds[i];
    fail_msg("%s is of no known kind", c->name);
    return NULL;
}

static void run_trial_on(struct trial *t, const struct layer_case *c, unsigned lanes, unsigned without,
                         const char *set)
{
    struct pool *pool;
    memset(t, 0, sizeof *t);
    t->c = c;
    t->without = without;
    for (size_t i = 0; i < c->arrays; i++) {
        fill_random(7 + i, 1.5, t->f[i], t->x[i], c->len[i]);
        for (size_t j = 0; j < c->len[i]; j++)
            t->grad[i][j] = c->added >> i & 1 ? ADDED_TO : 99; /* what is written must overwrite this */
    }
    fill_random(99, 1, t->dy, NULL, c->out_len);
    fill_tokens(t->tokens, ROWS_MAX);
    rotary_table(t->table, 7, c->run == run_rotary ? c->head_dim : 2, 100);
    t->scratch = mem_alloc_aligned(64, 1 << 20);
    assert_int_equal(pool_create(&pool, lanes, 0, kernels_select(set), NULL), PH_OK);
    pool_run(pool, c->run, t);
    pool_free(pool);
    mem_free(t->scratch);
    t->scratch = NULL;
    for (size_t i = 0; i < c->arrays; i++)
        for (size_t j = 0; j < c->len[i] && c->added >> i & 1; j++)
            t->grad[i][j] -= ADDED_TO;
}

static void run_trial(struct trial *t, const struct layer_case *c, unsigned lanes)
{
    run_trial_on(t, c, lanes, 0, NULL);
}

static void reference_y(struct trial *t)
{
    double *x[ARRAYS_MAX];
    for (size_t i = 0; i < ARRAYS_MAX; i++)
        x[i] = t->x[i];
    t->c->reference(t->c, x, t->reference_y);
}

static double reference_loss(void *ud)
{
    struct trial *t = ud;
    double loss = 0;
    reference_y(t);
    for (size_t i = 0; i < t->c->out_len; i++)
        loss += (double)t->dy[i] * t->reference_y[i];
    return loss;
}

static void gradients_are_central_differences(void **state)
{
    (void)state;
    struct trial *t = mem_calloc(1, sizeof *t);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        run_trial(t, &cases[c], 2);
        reference_y(t);
        for (size_t i = 0; i < cases[c].out_len; i++)
            if (!(fabs((double)t->y[i] - t->reference_y[i]) <= 2e-5 * (1 + fabs(t->reference_y[i]))))
                fail_msg("%s: output %zu is %.9g, not %.9g", cases[c].name, i, (double)t->y[i],
                         t->reference_y[i]);
        for (size_t i = 0; i < cases[c].arrays; i++)
            check_gradient(cases[c].name, t->x[i], t->grad[i], cases[c].len[i], 1, reference_loss, t);
    }
    mem_free(t);
}

static void lanes_change_no_bit(void **state)
{
    (void)state;
    struct trial *one = mem_calloc(1, sizeof *one), *three = mem_calloc(1, sizeof *three);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        run_trial(one, &cases[c], 1);
        run_trial(three, &cases[c], 3);
        assert_memory_equal(one->y, three->y, sizeof one->y);
        assert_memory_equal(one->grad, three->grad, sizeof one->grad);
    }
    mem_free(one);
    mem_free(three);
}

static void a_gradient_left_out_changes_no_other(void **state)
{
    (void)state;
    struct trial *all = mem_calloc(1, sizeof *all), *some = mem_calloc(1, sizeof *some);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        unsigned optional = kind_of(&cases[c])->optional;
        run_trial(all, &cases[c], 2);
        for (unsigned without = 1; without < 1u << cases[c].arrays; without++) {
            if (without & ~optional)
                continue;
            run_trial_on(some, &cases[c], 2, without, NULL);
            assert_memory_equal(some->y, all->y, sizeof all->y);
            for (size_t i = 0; i < cases[c].arrays; i++)
                if (!(without >> i & 1) && memcmp(some->grad[i], all->grad[i], sizeof all->grad[i]) != 0)
                    fail_msg("%s: gradient %zu is another without those of mask %u", cases[c].name, i,
                             without);
        }
    }
    mem_free(all);
    mem_free(some);
}

/* ---- What a position can't see is not computed: were it, then as zero times no number, which is none */

enum { SEEN = 64, ALL = 256, HEAD = 8 };

struct long_attention {
    float q[ALL * HEAD], k[ALL * HEAD], v[ALL * HEAD], out[ALL * HEAD];
    float dout[ALL * HEAD], dq[ALL * HEAD], dk[ALL * HEAD], dv[ALL * HEAD];
    void *scratch;
};

static void run_long_attention(struct lane *lane, void *ud)
{
    struct long_attention *t = ud;
    struct attention a = {
        .batch = 1, .time = ALL, .heads = 1, .kv_heads = 1, .head_dim = HEAD, .causal = true};
    attention_forward(lane, &a, t->q, t->k, t->v, t->out, t->scratch);
    attention_backward(lane, &a, t->q, t->k, t->v, t->dout, t->dq, t->dk, t->dv, t->scratch);
}

static void later_keys_are_not_touched(void **state)
{
    (void)state;
    struct pool *pool;
    struct long_attention *t = mem_calloc(1, sizeof *t);
    const struct attention a = {
        .batch = 1, .time = ALL, .heads = 1, .kv_heads = 1, .head_dim = HEAD, .causal = true};
    float *const arrays[] = {t->q, t->k, t->v, t->dout};
    t->scratch = mem_alloc_aligned(64, attention_scratch_bytes(&a, 1));
    for (size_t i = 0; i < 4; i++)
        fill_random(i, 1, arrays[i], NULL, ALL * HEAD);
    for (size_t i = (ALL - SEEN) * HEAD; i < ALL * HEAD; i++)
        t->k[i] = t->v[i] = NAN;
    assert_int_equal(pool_create(&pool, 1, 0, kernels_select(NULL), NULL), PH_OK);
    pool_run(pool, run_long_attention, t);
    for (size_t i = 0; i < (ALL - SEEN) * HEAD; i++)
        assert_true(isfinite(t->out[i]) && isfinite(t->dq[i]));
    assert_true(isnan(t->out[ALL * HEAD - 1]));
    pool_free(pool);
    mem_free(t->scratch);
    mem_free(t);
}

/* ---- The output layer takes rows in chunks: losses and gradients go on where one ends ---- */

enum { LONG_ROWS = 2 * 256 + 45, LONG_D = 7 };

struct long_output {
    float x[LONG_ROWS * LONG_D], w[VOCAB * LONG_D], dx[LONG_ROWS * LONG_D], dw[VOCAB * LONG_D];
    float weights[LONG_ROWS], losses[LONG_ROWS];
    double x64[LONG_ROWS * LONG_D], w64[VOCAB * LONG_D], dw64[VOCAB * LONG_D], losses64[LONG_ROWS];
    int32_t targets[LONG_ROWS];
    void *scratch;
    bool gradients;
};

static void run_long_output(struct lane *lane, void *ud)
{
    struct long_output *t = ud;
    struct output o = {.vocab = VOCAB, .d = LONG_D, .w = t->w, .dw = t->dw};
    output_loss(lane, &o, t->x, t->targets, t->weights, LONG_ROWS, t->losses, t->gradients ? t->dx : NULL,
                t->scratch);
}

/* dlogits = weight (softmax - one at the target); checks a row's dx and adds to dw64. */
static void check_row(struct long_output *t, size_t r)
{
    double logits[VOCAB], sum = 0, dx[LONG_D] = {0};
    const double *x = t->x64 + r * LONG_D;
    reference_linear(x, t->w64, NULL, 1, LONG_D, VOCAB, logits);
    for (size_t v = 0; v < VOCAB; v++)
        sum += exp(logits[v]);
    for (size_t v = 0; v < VOCAB; v++) {
        double g = (double)t->weights[r] * (exp(logits[v]) / sum - ((int32_t)v == t->targets[r]));
        for (size_t i = 0; i < LONG_D; i++) {
            dx[i] += g * t->w64[v * LONG_D + i];
            t->dw64[v * LONG_D + i] += g * x[i];
        }
    }
    for (size_t i = 0; i < LONG_D; i++)
        assert_near(t->dx[r * LONG_D + i], dx[i], 1e-6);
}

static void chunks_of_the_output_leave_no_seam(void **state)
{
    (void)state;
    struct pool *pool;
    struct long_output *t = mem_calloc(1, sizeof *t);
    assert_int_equal(output_scratch_bytes(VOCAB, LONG_D, 1000 * LONG_ROWS),
                     output_scratch_bytes(VOCAB, LONG_D, LONG_ROWS)); /* never rows x vocabulary */
    t->scratch = mem_alloc_aligned(64, output_scratch_bytes(VOCAB, LONG_D, LONG_ROWS));
    fill_random(1, 1.5, t->x, t->x64, LONG_ROWS * LONG_D);
    fill_random(2, 1.5, t->w, t->w64, VOCAB * LONG_D);
    fill_random(3, 1, t->weights, NULL, LONG_ROWS);
    for (size_t r = 0; r < LONG_ROWS; r++) {
        t->targets[r] = r % 11 == 10 ? -1 : (int32_t)(r * 5 % VOCAB);
        t->weights[r] = t->targets[r] < 0 ? 0 : t->weights[r];
    }
    assert_int_equal(pool_create(&pool, 2, 0, kernels_select(NULL), NULL), PH_OK);
    pool_run(pool, run_long_output, t); /* the losses alone */
    reference_losses(t->x64, t->w64, t->targets, LONG_ROWS, VOCAB, LONG_D, t->losses64);
    for (size_t r = 0; r < LONG_ROWS; r++)
        assert_near(t->losses[r], t->losses64[r], 1e-5);
    memset(t->losses, 0xff, sizeof t->losses);
    t->gradients = true;
    pool_run(pool, run_long_output, t);
    for (size_t r = 0; r < LONG_ROWS; r++) {
        assert_near(t->losses[r], t->losses64[r], 1e-5);
        check_row(t, r);
    }
    for (size_t i = 0; i < VOCAB * LONG_D; i++)
        assert_near(t->dw[i], t->dw64[i], 2e-5);
    pool_free(pool);
    mem_free(t->scratch);
    mem_free(t);
}

/* ---- PyTorch's autograd on the same cases ---- */

static void tell_peer(struct peer *peer, size_t number, const struct trial *t)
{
    const struct layer_case *c = t->c;
    char name[32];
    fprintf(peer->manifest, "layer %s\narrays %zu\nout_len %zu\nbatch %zu\ntime %zu\n", kind_of(c)->name,
            c->arrays, c->out_len, c->batch, c->time);
    fprintf(peer->manifest, "heads %zu\nkv_heads %zu\nhead_dim %zu\nin %zu\nout %zu\nflag %d\n\n", c->heads,
            c->kv_heads, c->head_dim, c->in, c->out, c->flag);
    for (size_t i = 0; i < c->arrays; i++) {
        snprintf(name, sizeof name, "%zu.%zu", number, i);
        peer_put(peer, name, t->f[i], c->len[i] * sizeof(float));
    }
    snprintf(name, sizeof name, "%zu.dy", number);
    peer_put(peer, name, t->dy, c->out_len * sizeof(float));
    peer_put(peer, "tokens", t->tokens, sizeof t->tokens);
}

static void check_array(struct peer *peer, const struct layer_case *c, const char *name, const float *ours,
                        size_t len)
{
    static float theirs[LEN_MAX];
    double greatest = 0;
    peer_get(peer, name, theirs, len * sizeof *theirs);
    for (size_t i = 0; i < len; i++)
        greatest = fmax(greatest, fabs((double)theirs[i]));
    for (size_t i = 0; i < len; i++)
        if (!(fabs((double)ours[i] - (double)theirs[i]) <= 2e-5 * greatest))
            fail_msg("%s, %s: element %zu is %.9g, PyTorch's %.9g", c->name, name, i, (double)ours[i],
                     (double)theirs[i]);
}

static void gradients_are_pytorchs(void **state)
{
    (void)state;
    enum { CASES = sizeof cases / sizeof *cases };
    struct peer peer;
    char name[32];
    if (!peer_open(&peer))
        skip();
    struct trial *trials = mem_calloc(CASES, sizeof *trials);
    for (size_t c = 0; c < CASES; c++) {
        run_trial(&trials[c], &cases[c], 2);
        tell_peer(&peer, c, &trials[c]);
    }
    peer_run(&peer, "layers");
    for (size_t c = 0; c < CASES; c++) {
        snprintf(name, sizeof name, "%zu.y", c);
        check_array(&peer, &cases[c], name, trials[c].y, cases[c].out_len);
        for (size_t i = 0; i < cases[c].arrays; i++) {
            snprintf(name, sizeof name, "%zu.d%zu", c, i);
            check_array(&peer, &cases[c], name, trials[c].grad[i], cases[c].len[i]);
        }
    }
    mem_free(trials);
    peer_close(&peer);
}

static void check_near(const char *name, const char *set, const float *got, const float *wanted, size_t len)
{
    float greatest = 0;
    for (size_t i = 0; i < len; i++)
        greatest = fmaxf(greatest, fabsf(wanted[i]));
    for (size_t i = 0; i < len; i++)
        if (!(fabsf(got[i] - wanted[i]) <= 2e-5f * greatest + 1e-8f))
            fail_msg("%s, %s: %zu is %.9g, with the best kernels %.9g", name, set, i, (double)got[i],
                     (double)wanted[i]);
}

static void every_kernel_set_agrees(void **state)
{
    static const char *const sets[] = {"ref", "avx2", "avx512", "avx512bf16"};
    (void)state;
    struct trial *best = mem_calloc(1, sizeof *best), *other = mem_calloc(1, sizeof *other);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        run_trial(best, &cases[c], 1);
        for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
            if (!kernels_select(sets[s]))
                continue;
            run_trial_on(other, &cases[c], 1, 0, sets[s]);
            check_near(cases[c].name, sets[s], other->y, best->y, cases[c].out_len);
            for (size_t i = 0; i < cases[c].arrays; i++)
                check_near(cases[c].name, sets[s], other->grad[i], best->grad[i], cases[c].len[i]);
        }
    }
    mem_free(best);
    mem_free(other);
}

static void a_mamba_block_starts_as_the_paper_has_it(void **state)
{
    (void)state;
    struct mamba m = {.d = 128, .inner = 256, .states = 16, .rank = 8, .kernel = 4};
    struct mamba_layout l = mamba_layout(&m);
    assert_int_equal(l.len, 116608 - 128); /* the norm before it is not the block's */
    float *w = mem_calloc(l.len, sizeof *w);
    mamba_init_weights(&m, 3, w);
    for (size_t i = 0; i < m.inner; i++) {
        double step = log1p(exp((double)w[l.dt_bias + i]));
        assert_true(step > 0.00099 && step < 0.101);
        assert_true(w[l.skip + i] == 1 && w[l.a_log + i * 16] == 0);
        assert_true(fabs((double)w[l.a_log + i * 16 + 15] - log(16)) < 1e-6);
        assert_true(fabs((double)w[l.dt_proj + i * 8]) <= 1 / sqrt(8));
    }
    mem_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_central_differences),
        cmocka_unit_test(lanes_change_no_bit),
        cmocka_unit_test(a_gradient_left_out_changes_no_other),
        cmocka_unit_test(later_keys_are_not_touched),
        cmocka_unit_test(chunks_of_the_output_leave_no_seam),
        cmocka_unit_test(gradients_are_pytorchs),
        cmocka_unit_test(every_kernel_set_agrees),
        cmocka_unit_test(a_mamba_block_starts_as_the_paper_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
