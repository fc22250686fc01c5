/* tensor: number formats, kernels, worker pool. Knows nothing of models.
 *
 * Conventions. Row-major everywhere. `x [n][d]` means n rows of d floats. A weight matrix `w [m][d]` has m
 * output rows of d inputs, as GGUF stores them (dimension 0 = d is contiguous). All sizes are elements unless
 * a name says bytes.
 *
 * Invariants (assertions cite the number):
 *  T1  A result row depends on its own input row, the weights and the `phase` only: not on how many rows
 *      share the call, not on the number of lanes. 32 streams together therefore say what each says alone.
 *  T2  Kernels allocate nothing. Scratch belongs to the pool and is sized when the pool is made.
 *  T3  Every kernel set computes what kernels_ref computes, within the bounds that tests/unit/tensor states.
 *
 * Thread: a pool and what runs on it belong to one owner thread; distinct pools are independent. */
#ifndef PHAROS_TENSOR_TENSOR_H
#define PHAROS_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* ---- Number formats ---- */
/* Numbers are GGUF's tensor type ids (ggml's `docs/gguf.md`). Blocks are little-endian, as in the file. */
enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q2_K = 10,
    TENSOR_Q3_K = 11,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_Q8_K = 15,
    TENSOR_IQ4_NL = 20,
    TENSOR_IQ4_XS = 23,
    TENSOR_BF16 = 30,
    TENSOR_MXFP4 = 39
};

struct tensor_format {
    enum tensor_type type;
    const char *name;   /* "Q4_K" */
    uint32_t block_len; /* elements a block */
    uint32_t block_bytes;
};

const struct tensor_format *tensor_format(uint32_t type_id);         /* NULL: not a format we know */
const struct tensor_format *tensor_format_by_name(const char *name); /* case-insensitive; NULL: unknown */
size_t tensor_row_bytes(enum tensor_type type, size_t len);          /* len must be a multiple of block_len */

void tensor_dequantize(enum tensor_type type, const void *src, float *dst, size_t len);
/* Reference quantisers for every format above; `len` a multiple of block_len. Never fails: non-finite input
 * is clamped. */
void tensor_quantize(enum tensor_type type, const float *src, void *dst, size_t len);
/* The same where elements do not count alike: scales are searched for the least sum of weights[i] times the
 * squared error, and no block comes out worse in that sum than tensor_quantize's. weights [len], not
 * negative; NULL, or all 0 in a block: all alike. */
void tensor_quantize_weighted(enum tensor_type type, const float *src, const float *weights, void *dst,
                              size_t len);

uint16_t tensor_f32_to_f16(float value);
float tensor_f16_to_f32(uint16_t bits);
uint16_t tensor_f32_to_bf16(float value);
float tensor_bf16_to_f32(uint16_t bits);

/* ---- Kernel sets ---- */
/* One table of function pointers for each instruction set, whole files: kernels_ref.c, kernels_avx2.c, ... */
struct kernels;

/* The best set this CPU can run; `limit` names a lower one ("ref", "avx2", "avx512", "avx512bf16", "amx") or
 * is NULL. NULL: the named set is unknown or cannot run here. The table is static and immutable. */
const struct kernels *kernels_select(const char *limit);
const char *kernels_name(const struct kernels *kernels);

/* ---- Worker pool ---- */
/* The calling thread is lane 0; lanes 1.. are threads of the pool. pool_run lets every lane run fn once and
 * returns when all have. Between runs, and at barriers, lanes spin for a short while and then sleep, so that
 * a waiting pool costs nothing and a busy neighbour is not fought for its core. Work inside is shared out in
 * chunks on demand (lane_take), so that a lane that lost its core for a moment does not hold up the others
 * for its whole share. */
struct pool;

struct lane {
    struct pool *pool;
    const struct kernels *kernels;
    unsigned index;
    unsigned count;
    void *scratch;  /* pool's scratch_bytes for this lane alone, 64-byte aligned */
    void *panel;    /* the matrix products' own scratch (private to tensor) */
    uint32_t round; /* how many shared loops this lane has finished (private to the pool) */
};

/* lanes 0 = one for each CPU this process may use. */
PH_MUST_USE enum ph_status pool_create(struct pool **out, unsigned lanes, size_t scratch_bytes,
                                       const struct kernels *kernels, struct ph_err *err);
void pool_free(struct pool *pool);
unsigned pool_lanes(const struct pool *pool);
size_t pool_scratch_bytes(unsigned lanes, size_t scratch_bytes); /* that so many lanes would take */
void pool_run(struct pool *pool, void (*fn)(struct lane *lane, void *ud), void *ud);

/* Collective steps: every lane must make the same sequence of these calls inside one pool_run. */
void lane_barrier(struct lane *lane);
/* Shares [0, total) out in chunks: `while (lane_take(lane, total, chunk, &first, &end)) ...`. Each loop is
 * one collective step; the loop has no barrier at its end. */
bool lane_take(struct lane *lane, size_t total, size_t chunk, size_t *first, size_t *end);
/* The same in chunks that shrink towards the end: long runs first, single elements last, so that lanes seldom
 * ask and yet end together. */
bool lane_take_tapered(struct lane *lane, size_t total, size_t *first, size_t *end);

/* ---- Matrix products (collective: every lane calls with the same arguments; a barrier ends each) ---- */
struct matrix {
    enum tensor_type type;
    size_t rows; /* m, outputs */
    size_t cols; /* d, inputs; a multiple of the format's block_len */
    const void *data;
};

/* Decode: few rows, each must be quick and independent of its neighbours: bound by memory bandwidth.
 * Prefill: many rows; a weight tile is unpacked once for all of them: bound by arithmetic. */
enum phase { PHASE_DECODE, PHASE_PREFILL };

/* Input rows, and their forms that kernels ask for (quantised blocks, BF16): converted once, used by several
 * products. */
struct act {
    const float *x; /* [n][d] */
    size_t n, d;
    void *workspace; /* act_workspace_bytes(n_max, d_max) bytes, 64-byte aligned, owned by the caller */
    uint32_t ready;  /* which forms are valid (private) */
};

size_t act_workspace_bytes(size_t n_max, size_t d_max);
/* Points `act` at new rows and forgets old forms; lane-local and cheap: every lane may hold its own copy. */
void act_init(struct act *act, const float *x, size_t n, size_t d, void *workspace);

/* y [n][y_stride >= m] = x [n][d] * w^T. */
void tensor_matmul(struct lane *lane, const struct matrix *w, struct act *x, float *y, size_t y_stride,
                   enum phase phase);

struct matmul {
    struct matrix w;
    float *y;
    size_t y_stride;
};

/* Products of several matrices with the same inputs (q, k and v; gate and up) as one step: one sharing-out,
 * one barrier. The same bits as one tensor_matmul for each. */
#define MATMULS_MAX 16
void tensor_matmuls(struct lane *lane, const struct matmul *matmuls, size_t count, struct act *x,
                    enum phase phase);

/* ---- Products of floats, for training (collective; a barrier ends each) ---- */
/* c [m][n] = a b, or += with `accumulate`. a is [m][k], or stored [k][m] when a_transposed; b is [k][n], or
 * stored [n][k] when b_transposed. Strides are floats from stored row to stored row. `bf16`: the inputs are
 * rounded to BF16, the sums stay F32. c overlaps neither input. No bit depends on the number of lanes.
 * The three products of a layer y = x w^T, w [out][in], x [tokens][in]:
 *   y = x w^T: m tokens, n out, k in, b_transposed;   dx = dy w: m tokens, n in, k out;
 *   dw += dy^T x: m out, n in, k tokens, a_transposed, accumulate. */
struct product {
    size_t m, n, k;
    const float *a, *b;
    size_t a_stride, b_stride, c_stride;
    bool a_transposed, b_transposed, accumulate, bf16;
    float *c;
    void *workspace; /* tensor_product_workspace_bytes(m, n, k), 64-byte aligned, one for all lanes */
};

/* Grows with each of m, n, k: the bytes for the largest of each serve all smaller products. */
size_t tensor_product_workspace_bytes(size_t m, size_t n, size_t k);
void tensor_product(struct lane *lane, const struct product *p);

/* The same inside one lane (not collective), with a right operand that is packed once and used several times.
 * A left operand holds rows of the result, a right one its columns. */
struct operand {
    const float *data;
    size_t rows, depth, stride; /* a right operand's rows are the result's columns */
    bool across;                /* stored [depth][rows], else [rows][depth] */
};

size_t tensor_packed_bytes(size_t rows, size_t depth); /* grows with both */
void tensor_pack_right(const struct kernels *k, const struct operand *o, bool bf16, void *packed);

/* c [left.rows][columns] = left right, or += with `accumulate`: the first columns of the right operand, and
 * the first left.depth of its depth. Sums run over all the depth in order. */
struct packed_product {
    struct operand left;
    const void *right;
    size_t columns;
    size_t right_depth; /* to which the right one was packed */
    bool accumulate, bf16;
    float *c;
    size_t c_stride;
    void *workspace; /* tensor_packed_bytes(left.rows, left.depth), 64-byte aligned as packed operands are */
};

void tensor_multiply_packed(const struct kernels *k, const struct packed_product *p);

/* ---- Vector operations (not collective: the caller shares rows out) ---- */
float tensor_dot(const struct kernels *k, const float *a, const float *b, size_t len);
void tensor_axpy(const struct kernels *k, float *y, float alpha, const float *x,
                 size_t len); /* y += alpha x */
void tensor_add(const struct kernels *k, float *y, const float *x, size_t len);
void tensor_mul(const struct kernels *k, float *y, const float *x, size_t len);
void tensor_scale(const struct kernels *k, float *y, float alpha, size_t len);
/* y = x / rms(x) * weight; weight may be NULL; y may be x. (Zhang and Sennrich 2019) */
void tensor_rms_norm(const struct kernels *k, float *y, const float *x, const float *weight, size_t len,
                     float eps);
void tensor_layer_norm(const struct kernels *k, float *y, const float *x, const float *weight,
                       const float *bias, size_t len, float eps);
void tensor_softmax(const struct kernels *k, float *x, size_t len); /* in place, max-shifted */
/* x = softmax(scale x), scale > 0; and its backward: dp = scale p (dp - sum of p dp), dp [len] in place */
void tensor_softmax_scaled(const struct kernels *k, float *x, size_t len, float scale);
void tensor_softmax_backward(const struct kernels *k, const float *p, float *dp, size_t len, float scale);
void tensor_silu_mul(const struct kernels *k, float *gate, const float *up,
                     size_t len); /* gate = silu(gate) * up */
void tensor_gelu_mul(const struct kernels *k, float *gate, const float *up,
                     size_t len); /* tanh form, in F16 between -10 and 10, as llama.cpp has it */
void tensor_silu(const struct kernels *k, float *x, size_t len);
void tensor_gelu(const struct kernels *k, float *x, size_t len);
void tensor_softcap(const struct kernels *k, float *x, size_t len, float cap); /* cap * tanh(x / cap) */

/* Rotary position embedding (Su et al. 2021) on one head vector, dimensions [0, 2 * pairs). cos_sin
 * [pairs][2] is the table for this position, its magnitude scale included. neox: pair (i, i + pairs); else
 * (2i, 2i + 1). */
void tensor_rope(const struct kernels *k, float *x, const float *cos_sin, size_t pairs, bool neox);

/* ---- Vectors to search among (not collective) ---- */
/* codes [len], each -127 .. 127; x is about the returned scale times them. What is not finite counts as 0. */
float tensor_codes_make(const float *x, int8_t *codes, size_t len);
/* out [n] = the query's codes [len] times each of rows [n][len]; exact. No code may be -128. */
void tensor_codes_dot(const struct kernels *k, const int8_t *query, const int8_t *rows, size_t n, size_t len,
                      int32_t *out);
float tensor_dot_f16(const struct kernels *k, const float *a, const uint16_t *halves, size_t len);

/* ---- Vector operations of training (not collective); outputs may be inputs ---- */
/* -log softmax(logits)[target]; the logits become its gradient times `weight`. */
float tensor_softmax_loss(const struct kernels *k, float *logits, size_t len, size_t target, float weight);

/* A row of RMSNorm, or of LayerNorm where centred: y = (x - mean) * inverse * w + bias. stats = mean (0 in
 * RMSNorm) and inverse. */
struct norm_row {
    size_t len;
    float eps;
    bool centred;
    const float *w, *bias; /* bias may be NULL */
};

void tensor_norm_row(const struct kernels *k, const struct norm_row *n, const float *x, float *y,
                     float stats[2]);
/* dx = or, with `add`, += the gradient. */
void tensor_norm_row_backward(const struct kernels *k, const struct norm_row *n, const float *x,
                              const float stats[2], const float *dy, float *dx, bool add);
/* dw [len] += sum over rows of dy (x - mean) inverse, dbias += sum of dy, in the order of the rows; either
 * may be NULL. Rows of x and dy are `stride` apart, stats [rows][2]. */
void tensor_norm_columns(const struct kernels *k, const float *x, const float *stats, const float *dy,
                         size_t rows, size_t stride, size_t len, float *dw, float *dbias);

void tensor_swiglu(const struct kernels *k, const float *gate, const float *up, float *y, size_t len);
void tensor_swiglu_backward(const struct kernels *k, const float *gate, const float *up, const float *dy,
                            float *dgate, float *dup, size_t len);
void tensor_silu_backward(const struct kernels *k, const float *x, const float *dy, float *dx, size_t len);
/* GELU in its tanh form, without tensor_gelu's rounding. */
void tensor_gelu_exact(const struct kernels *k, const float *x, float *y, size_t len);
void tensor_gelu_backward(const struct kernels *k, const float *x, const float *dy, float *dx, size_t len);
/* tensor_rope, or with `back` its inverse. */
void tensor_rotate(const struct kernels *k, float *x, const float *cos_sin, size_t pairs, bool neox,
                   bool back);
double tensor_sum_squares(const struct kernels *k, const float *x, size_t len); /* in double */

/* ---- Attention over a paged KV cache (not collective) ---- */
/* One KV head, one group of query heads that share it, one query position. Keys and values lie in pages of
 * `page_len` positions: page p holds k [page_len][head_dim_k] then is found at k_pages[p] (v likewise,
 * [page_len][head_dim_v]), rows in `type` (F32, F16 or Q8_0). Keys [first, end) take part. Softmax is
 * computed online, page by page from the first absolute page on, which keeps T1. */
struct attn {
    enum tensor_type type;
    size_t page_len, head_dim_k, head_dim_v;
    const void *const *k_pages;
    const void *const *v_pages;
    size_t first, end;
    float scale;        /* multiplies q.k */
    float softcap;      /* 0 = none; applied after scale */
    const float *sinks; /* NULL, or one extra logit for each query head of the group (attention sinks) */
    bool both_ways;     /* tensor_attend_rows: every row sees the keys before `end`, later ones included */
};

/* q [group][head_dim_k] -> out [group][head_dim_v]; scratch >= tensor_attend_scratch_bytes. */
void tensor_attend(const struct kernels *k, const struct attn *attn, const float *q, size_t group, float *out,
                   void *scratch);
size_t tensor_attend_scratch_bytes(size_t group, size_t page_len, size_t head_dim_k, size_t head_dim_v);

/* The same for `rows` consecutive query positions at once, for prefill: row i is at q + i * q_stride, sees
 * the keys before attn->end + i (attn->first is ignored; window > 0: the last `window` of them only) and
 * goes to out + i * out_stride. With both_ways every row sees all keys before attn->end (window must be 0). A
 * row's result does not depend on the other rows of the call; it may differ from tensor_attend's in
 * rounding. */
void tensor_attend_rows(const struct kernels *k, const struct attn *attn, size_t window, const float *q,
                        size_t q_stride, size_t rows, size_t group, float *out, size_t out_stride,
                        void *scratch);
size_t tensor_attend_rows_scratch_bytes(size_t rows, size_t group, size_t page_len, size_t head_dim_k,
                                        size_t head_dim_v);

/* Stores one row of len floats as KV cache rows of `type`. */
void tensor_kv_store(const struct kernels *k, enum tensor_type type, const float *src, void *dst, size_t len);

/* ---- The machine's limits, measured (for bench and estimate) ---- */
/* Each runs about `seconds` on all lanes. */
/* Real pages near the lanes that will read them; `bytes` are more than caches hold. NULL: no memory. */
struct read_buffer;
struct read_buffer *tensor_read_buffer_create(struct pool *pool, size_t bytes);
void tensor_read_buffer_free(struct read_buffer *buffer);
double tensor_measure_read(struct pool *pool, const struct read_buffer *buffer, double seconds); /* bytes/s */
double tensor_measure_read_bandwidth(struct pool *pool, size_t bytes,
                                     double seconds);               /* the same over a buffer of its own */
double tensor_measure_peak_f32(struct pool *pool, double seconds);  /* FLOP/s, FMA counted as two */
double tensor_measure_peak_bf16(struct pool *pool, double seconds); /* 0: no such instructions in this set */
double tensor_measure_peak_int8(struct pool *pool, double seconds);
/* Operations/s of a decode's products with weights of `type` that caches hold: what unpacking and multiplying
 * reach when no memory holds them up (the in-core part of the execution-cache-memory model, Hager et al.
 * 2013). 0: no memory. */
double tensor_measure_gemv(struct pool *pool, enum tensor_type type, double seconds);

#endif
