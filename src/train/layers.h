/* Layers with explicit forward and backward, losses, an optimiser, and the decoder built of them.
 *
 * A layer is a plain struct of sizes and pointers that owns nothing; x_forward and x_backward work on the
 * caller's arrays. Rows are positions of all sequences, [batch * time][width], row-major.
 *
 * Invariants (assertions cite the number):
 *  L1  Every function that takes a lane is collective: all lanes of the pool call it with the same arguments.
 *      A barrier ends each, so its results are there for all when it returns.
 *  L2  Nothing allocates. Scratch is the caller's, x_scratch_bytes(..) long, 64-byte aligned, one for all
 *      lanes; it carries nothing from one call to the next.
 *  L3  No bit of a result depends on the number of lanes: a sum runs over fixed pieces in a fixed order, and
 *      what is shared out are elements of the result, never terms of a sum.
 *  L4  Gradients of parameters are added to (+=), so that micro-batches accumulate; a NULL one is frozen.
 *      Gradients of inputs are written, or added to where a function takes `add`; NULL: not wanted.
 *
 * Thread: those of the pool; distinct pools are independent. */
#ifndef PHAROS_TRAIN_LAYERS_H
#define PHAROS_TRAIN_LAYERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "tensor/tensor.h"

/* ---- Layers ---- */

/* y [rows][d] = w[token]; tokens are below vocab (the caller's word). */
struct embedding {
    size_t vocab, d;
    const float *w; /* [vocab][d] */
    float *dw;
};

void embedding_forward(struct lane *lane, const struct embedding *e, const int32_t *tokens, size_t rows,
                       float *y);
void embedding_backward(struct lane *lane, const struct embedding *e, const int32_t *tokens, const float *dy,
                        size_t rows);

/* y [rows][out] = x [rows][in] w^T + bias. */
struct linear {
    size_t in, out;
    size_t y_stride;   /* floats from row to row of y and dy; 0: out */
    const float *w;    /* [out][in] */
    const float *bias; /* [out], or NULL */
    float *dw, *dbias;
    bool bf16; /* products of inputs rounded to BF16, sums in F32 */
};

size_t linear_scratch_bytes(size_t in, size_t out, size_t rows);
void linear_forward(struct lane *lane, const struct linear *l, const float *x, size_t rows, float *y,
                    void *scratch);
void linear_backward(struct lane *lane, const struct linear *l, const float *x, const float *dy, size_t rows,
                     float *dx, bool add, void *scratch);

/* RMSNorm (Zhang and Sennrich 2019): y = x / rms(x) * w. LayerNorm (Ba et al. 2016) where `centred`:
 * y = (x - mean) / sd * w + bias. `stats` [rows][2] is kept from forward to backward. */
struct norm {
    size_t d;
    float eps;
    bool centred;
    const float *w;    /* [d] */
    const float *bias; /* [d], or NULL; only where centred */
    float *dw, *dbias;
};

void norm_forward(struct lane *lane, const struct norm *n, const float *x, size_t rows, float *y,
                  float *stats);
void norm_backward(struct lane *lane, const struct norm *n, const float *x, const float *stats,
                   const float *dy, size_t rows, float *dx, bool add);

/* Rotary positions (Su et al. 2021), in place on x [batch * time][heads][head_dim], head_dim even. neox:
 * pairs (i, i + head_dim / 2); else (2i, 2i + 1). A rotation's gradient is the rotation back. */
struct rotary {
    size_t time, heads, head_dim;
    size_t stride; /* floats from row to row of x; 0: heads * head_dim */
    bool neox;
    const float *table; /* [time][head_dim / 2][2], cosine and sine, from rotary_table */
};

void rotary_table(float *table, size_t time, size_t head_dim, double base);
void rotary_forward(struct lane *lane, const struct rotary *r, float *x, size_t rows);
void rotary_backward(struct lane *lane, const struct rotary *r, float *dx, size_t rows);

/* Softmax attention; query head h reads key and value head h / (heads / kv_heads). causal: position t sees
 * 0..t, and what it can't see is not computed. Weights are computed again in backward instead of kept.
 * q, out [batch * time][heads][head_dim]; k, v [batch * time][kv_heads][head_dim]. Rows of q, k, v and of
 * their gradients may be parts of longer ones. */
struct attention {
    size_t batch, time, heads, kv_heads, head_dim;
    size_t q_stride, kv_stride; /* floats from row to row; 0: no longer than they are */
    bool causal, bf16;          /* bf16: products of inputs and weights rounded to BF16, sums in F32 */
};

size_t attention_scratch_bytes(const struct attention *a, unsigned lanes);
void attention_forward(struct lane *lane, const struct attention *a, const float *q, const float *k,
                       const float *v, float *out, void *scratch);
/* Writes dq, dk, dv, all of them wanted. */
void attention_backward(struct lane *lane, const struct attention *a, const float *q, const float *k,
                        const float *v, const float *dout, float *dq, float *dk, float *dv, void *scratch);

/* Convolution along time: y[t] = bias + sum over k of w[k] x[t * stride + k - pad], x zero outside. Causal:
 * pad = kernel - 1, stride 1, time_out = time. x [batch][time][in], y [batch][time_out][out]. Full: w
 * [out][kernel][in]. depthwise (each channel by itself, out = in): w [in][kernel]. */
struct convolution {
    size_t batch, time, time_out, in, out, kernel, stride, pad;
    bool depthwise, bf16;
    const float *w, *bias; /* bias [out], or NULL */
    float *dw, *dbias;
};

size_t convolution_scratch_bytes(const struct convolution *c);
void convolution_forward(struct lane *lane, const struct convolution *c, const float *x, float *y,
                         void *scratch);
void convolution_backward(struct lane *lane, const struct convolution *c, const float *x, const float *dy,
                          float *dx, void *scratch);

/* A sequence's mean: x [batch][time][d] -> y [batch][d]. */
void mean_pool_forward(struct lane *lane, const float *x, size_t batch, size_t time, size_t d, float *y);
void mean_pool_backward(struct lane *lane, const float *dy, size_t batch, size_t time, size_t d, float *dx);

/* y = sum over t of share_t x_t, shares = softmax over t of (w . x_t). (A bias would change nothing.) y and
 * shares [batch][time] are kept for backward. */
struct softmax_pool {
    size_t batch, time, d;
    const float *w; /* [d] */
    float *dw;
};

size_t softmax_pool_scratch_bytes(const struct softmax_pool *p);
void softmax_pool_forward(struct lane *lane, const struct softmax_pool *p, const float *x, float *y,
                          float *shares);
void softmax_pool_backward(struct lane *lane, const struct softmax_pool *p, const float *x, const float *y,
                           const float *shares, const float *dy, float *dx, void *scratch);

/* Selective state space (Gu and Dao 2023), the scan: step = softplus(delta), h = exp(step A) h + step b x,
 * y = c . h + skip x, from h = 0 at each sequence's start, A = -exp(a_log). `kept` [scan_kept_len] carries
 * states from forward to backward. */
struct scan_layer {
    size_t batch, time, channels, states;
    const float *a_log; /* [channels][states] */
    const float *skip;  /* [channels] */
    float *da_log, *dskip;
};

struct scan_inputs {
    const float *x, *delta; /* [batch * time][channels] */
    const float *b, *c;     /* [batch * time][states] */
};

struct scan_gradients { /* written, all of them wanted */
    float *dx, *ddelta, *db, *dc;
};

size_t scan_kept_len(const struct scan_layer *s);
size_t scan_scratch_bytes(const struct scan_layer *s, unsigned lanes);
void scan_forward(struct lane *lane, const struct scan_layer *s, const struct scan_inputs *in, float *y,
                  float *kept, void *scratch);
void scan_backward(struct lane *lane, const struct scan_layer *s, const struct scan_inputs *in,
                   const float *kept, const float *dy, const struct scan_gradients *out, void *scratch);

/* A Mamba block: x, z = split(in_proj u); x = silu(depthwise causal convolution of x); delta, B, C from x;
 * y = scan; out = out_proj (y silu(z)). The residual sum and its norm are the caller's. One flat array of
 * parameters in this order: in_proj [2 inner][d], conv [inner][kernel] and bias, x_proj
 * [rank + 2 states][inner], dt_proj [inner][rank] and bias, a_log [inner][states], skip [inner], out_proj
 * [d][inner], at the offsets that mamba_layout tells. No decay on a_log and skip. */
struct mamba {
    size_t batch, time, d, inner, states, rank, kernel;
    bool bf16;
    const float *w; /* [mamba_layout(..).len] */
    float *dw;      /* the same layout, or NULL: nothing is trained and backward gives du only */
};

struct mamba_layout {
    size_t in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, a_log, skip, out_proj, len;
};

struct mamba_layout mamba_layout(const struct mamba *m);
/* The paper's start: a_log = log(1..states), skip 1, dt_bias inverse softplus of exp(U[log .001, log .1]),
 * matrices U(+-1 / sqrt(inputs)). */
void mamba_init_weights(const struct mamba *m, uint64_t seed, float *w);
size_t mamba_kept_len(const struct mamba *m); /* floats from forward to backward */
size_t mamba_scratch_bytes(const struct mamba *m, unsigned lanes);
void mamba_forward(struct lane *lane, const struct mamba *m, const float *u, float *y, float *kept,
                   void *scratch);
void mamba_backward(struct lane *lane, const struct mamba *m, const float *u, const float *kept,
                    const float *dy, float *du, bool add, void *scratch);

/* Elementwise. SwiGLU (Shazeer 2020): y [rows][width] = silu(gate) * up, where rows of gate and up and of
 * their gradients may be parts of longer ones. backward: dgate may be gate, dup may be up, or dy where the
 * strides agree. GELU in its tanh form (Hendrycks and Gimpel 2016), SiLU: dx may be dy. */
struct swiglu {
    size_t rows, width;
    size_t stride; /* floats from row to row of gate and up; 0: width */
};

void swiglu_forward(struct lane *lane, const struct swiglu *s, const float *gate, const float *up, float *y);
void swiglu_backward(struct lane *lane, const struct swiglu *s, const float *gate, const float *up,
                     const float *dy, float *dgate, float *dup);
void silu_forward(struct lane *lane, const float *x, size_t len, float *y);
void silu_backward(struct lane *lane, const float *x, const float *dy, size_t len, float *dx);
void gelu_forward(struct lane *lane, const float *x, size_t len, float *y);
void gelu_backward(struct lane *lane, const float *x, const float *dy, size_t len, float *dx);
void residual_add(struct lane *lane, float *y, const float *x, size_t len); /* y += x */

/* ---- Losses ---- */

/* The output layer with softmax and cross-entropy fused: logits exist for one chunk of rows at a time and
 * become their own gradient in place. Returns through `losses` [rows] -log p(target) of each row (0 where its
 * weight is 0: such rows are not predicted and their target is not read). dx [rows][d] is the gradient of
 * sum over rows of weights[r] * losses[r]; with dx NULL nothing but the losses is computed. */
struct output {
    size_t vocab, d;
    const float *w; /* [vocab][d]: the embedding's where tied */
    float *dw;
    bool bf16;
};

size_t output_scratch_bytes(size_t vocab, size_t d, size_t rows);
void output_loss(struct lane *lane, const struct output *o, const float *x, const int32_t *targets,
                 const float *weights, size_t rows, float *losses, float *dx, void *scratch);

/* Row weights for output_loss, over a whole step's examples (all micro-batches): targets below 0 are not
 * predicted. Token mean: 1 / predicted. Quality: q_i / (predicted of example i * sum of q), q clipped to
 * [LOSS_QUALITY_MIN, 1]; examples that predict nothing don't count. Not collective. */
#define LOSS_QUALITY_MIN 0.05f
void loss_weights_token_mean(const int32_t *targets, size_t rows, float *weights);
void loss_weights_quality(const int32_t *targets, const float *quality, size_t examples, size_t time,
                          float *weights);

/* Ranking. Pairwise logistic: mean over pairs of log(1 + exp(-(score of better - score of worse))).
 * Listwise softmax: -sum over i of share_i log softmax(scores)_i, shares = relevance / sum of relevance; 0
 * where nothing is relevant. dscores is written (NULL: not wanted). Not collective. */
double loss_pairwise(const float *better, const float *worse, size_t pairs, float *dbetter, float *dworse);
double loss_listwise(const float *scores, const float *relevance, size_t count, float *dscores);

/* ---- Optimiser ---- */

/* A named slice of one flat array of parameters. */
#define PARAM_NAME_MAX 48
struct param {
    char name[PARAM_NAME_MAX]; /* GGUF's: "blk.0.attn_q.weight" */
    size_t rows, cols, offset;
    bool decay;  /* takes part in weight decay: matrices, not norms or biases */
    bool hidden; /* a matrix between activations, which Muon can train: no embedding, no output */
};

/* AdamW (Loshchilov and Hutter 2019). m and v have the parameters' layout and begin at 0. */
struct adamw {
    float rate, beta1, beta2, eps, decay;
    uint64_t step; /* 1 at the first */
    bool muon;     /* hidden matrices by Muon, which uses their m only */
    float *m, *v;
};

/* One step with gradients g * scale. The slices cover disjoint ranges. */
void adamw_step(struct lane *lane, const struct adamw *a, const struct param *params, size_t count, float *w,
                const float *g, float scale, void *scratch);
/* One hidden matrix's step by Muon (muon.c). Collective. scratch: muon_scratch_bytes of all params. */
size_t muon_scratch_bytes(const struct param *params, size_t count);
void muon_step(struct lane *lane, const struct adamw *a, const struct param *param, float *w, const float *g,
               float scale, void *scratch);
/* The global L2 norm of g; every lane gets it. scratch: gradient_norm_scratch_bytes(len). */
size_t gradient_norm_scratch_bytes(size_t len);
double gradient_norm(struct lane *lane, const float *g, size_t len, void *scratch);
float clip_scale(double norm, double norm_max); /* min(1, norm_max / norm); 1 when norm_max is 0 */

/* Linear warm-up to `peak`, then down to `floor` at `steps`, `floor` from there on. COSINE: by half a cosine
 * from the warm-up's end. LINEAR and SQRT (warm-up, stable, decay: Hu et al. 2024; 1 - sqrt: Haegele et al.
 * 2024): `peak` until the last `cooldown` steps. */
enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_SQRT };

struct schedule {
    double peak, floor;
    uint64_t warmup, steps;
    enum schedule_kind kind;
    uint64_t cooldown;
};

double schedule_rate(const struct schedule *s, uint64_t step); /* step 1 is the first */

/* ---- Decoder: the llama architecture ---- */
struct decoder_config {
    size_t vocab, d, layers, heads, kv_heads, ff, context;
    size_t head_dim; /* 0: d / heads */
    double rope_base;
    float norm_eps;
    bool tied;      /* output weights are the embedding */
    bool rope_neox; /* GGUF's "llama" is not */
    bool bf16;
    bool recompute; /* keep only each layer's input; its activations are computed again in backward ... */
    size_t keep;    /* ... but for so many last layers, which keep theirs */
};

/* One batch. A row of weight 0 is not predicted. */
struct decoder_batch {
    size_t batch, time;     /* within those of decoder_create */
    const int32_t *tokens;  /* [batch][time], below vocab */
    const int32_t *targets; /* [batch][time] */
    const float *weights;   /* [batch][time], from loss_weights_* */
};

struct decoder;

/* Sets recompute and keep so that a step and AdamW's moments fit into `budget` bytes: all activations are
 * kept, or those of as many layers as there is room for. budget 0: TRAIN_MEMORY_PERCENT of what is available
 * now. No result depends on it. PH_ERR_NOMEM says what is wanted and which batch would fit. */
PH_MUST_USE enum ph_status decoder_fit(struct decoder_config *config, const struct pool *pool, size_t batch,
                                       size_t time, uint64_t budget, struct ph_err *err);
/* What decoder_create would allocate, with the moments. 0: no memory to find out. The sizes are possible. */
uint64_t decoder_bytes_wanted(const struct decoder_config *config, const struct pool *pool, size_t batch,
                              size_t time);
/* Allocates parameters, gradients and the workspace of steps of up to batch x time. Errors name the size that
 * is not acceptable. The pool stays the caller's and outlives the decoder. */
PH_MUST_USE enum ph_status decoder_create(struct decoder **out, struct pool *pool,
                                          const struct decoder_config *config, size_t batch, size_t time,
                                          struct ph_err *err);
void decoder_free(struct decoder *decoder);
const struct decoder_config *decoder_config(const struct decoder *decoder); /* head_dim is never 0 here */
const struct param *decoder_params(const struct decoder *decoder, size_t *count);
size_t decoder_len(const struct decoder *decoder);   /* parameters in all */
float *decoder_weights(struct decoder *decoder);     /* [decoder_len] */
float *decoder_gradients(struct decoder *decoder);   /* [decoder_len] */
size_t decoder_bytes(const struct decoder *decoder); /* all memory it holds */
/* Normal, deviation 0.02, that of projections into the residual stream divided by sqrt(2 layers); norms 1. */
void decoder_init_weights(struct decoder *decoder, uint64_t seed);

void decoder_clear_gradients(struct decoder *decoder);
/* Adds the batch's gradients and returns its weighted loss. Not collective: runs the pool. */
double decoder_accumulate(struct decoder *decoder, const struct decoder_batch *batch);
/* The weighted loss alone; losses [batch * time] of each row where not NULL. */
double decoder_evaluate(struct decoder *decoder, const struct decoder_batch *batch, float *losses);
/* Clips gradients to norm_max (0: not) and takes one AdamW step. Returns the norm before clipping. */
double decoder_update(struct decoder *decoder, const struct adamw *adamw, double norm_max);

#endif
