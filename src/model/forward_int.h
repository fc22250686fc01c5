/* What the runner's files share: the paged KV cache, the workspace, the step in progress.
 *
 * Included only inside src/model. */
#ifndef PHAROS_MODEL_FORWARD_INT_H
#define PHAROS_MODEL_FORWARD_INT_H

#include "model/arch_int.h"

#define KV_PAGE_LEN 32

/* ---- KV cache (kv.c). A page holds KV_PAGE_LEN positions of all layers: for each layer K
 * [n_head_kv][page][dim], then V likewise, so that one head's keys of a page are one run of memory. */
struct kv_layer {
    size_t k, v; /* byte offsets in a page */
};

struct kv_cache {
    enum tensor_type type;
    size_t k_row_bytes, v_row_bytes, page_bytes;
    size_t context_len, pages_total, pages_seq_max;
    struct kv_layer *layers;
    uint8_t *pages; /* 64-byte aligned; memory is touched when a page is first written */
    void *pages_raw;
    uint32_t *free_pages; /* a stack: the page given back last is the warmest */
    size_t free_count;
    struct kv_seq *seqs;
    size_t seq_count;
};

struct kv_seq {
    struct kv_cache *cache;
    uint32_t *pages;
    size_t page_count, len;
    uint64_t step; /* the last step it took part in */
    bool taken;
};

PH_MUST_USE enum ph_status kv_create(struct kv_cache *kv, const struct model *model, enum tensor_type type,
                                     size_t context_len, size_t bytes_max, size_t sequences,
                                     struct ph_err *err);
void kv_release(struct kv_cache *kv);
size_t kv_page_bytes(size_t kv_heads, size_t k_row_bytes, size_t v_row_bytes); /* heads of all layers */

static inline uint8_t *kv_page(const struct kv_cache *kv, const struct kv_seq *seq, size_t page)
{
    return kv->pages + seq->pages[page] * kv->page_bytes;
}

/* ---- Rotary embedding (rope.c) */
struct rope {
    size_t pairs;
    double *freq;    /* [pairs] radians a position */
    float magnitude; /* multiplies cosine and sine */
};

/* The divisors of the frequencies that this context length calls for; NULL: none. */
const float *rope_factors(const struct model *model, size_t context_len);
/* freq [rope_dims / 2] is the caller's. */
void rope_init(struct rope *rope, const struct rope_params *params, size_t dims, const float *factors,
               double *freq);
void rope_table(const struct rope *rope, size_t position, float *cos_sin); /* [pairs][2] */

/* ---- A workspace is planned twice with the same code: for its size, then in memory of that size */
struct plan {
    uint8_t *base; /* 64-byte aligned; NULL: only the size is wanted */
    size_t bytes;
};

static inline void *plan_take(struct plan *plan, size_t count, size_t size)
{
    void *memory = plan->base ? plan->base + plan->bytes : NULL;
    plan->bytes += (count * size + 63) & ~(size_t)63;
    return memory;
}

/* ---- The runner (runner.c) */
struct lora_use {
    const struct lora *lora;
    float scale;
};

struct step_row {
    struct kv_seq *seq;
    size_t position;
    int32_t token;
    float *logits;
};

/* Rows of one sequence that follow each other attend together in prefill, at most ATTN_TILE_ROWS of them. */
#define ATTN_TILE_ROWS 32

struct attn_tile {
    uint32_t first, rows; /* of the step */
    uint32_t to;          /* the first one's row in the output */
};

struct workspace {
    float *x;                   /* [rows][n_embd] the residual stream */
    float *xn;                  /* [rows][n_embd] normed */
    float *out;                 /* [rows][n_embd] what a half adds */
    float *qkv;                 /* [rows][q + k + v of the layer] */
    float *attn;                /* [rows][n_head * head_dim_v] */
    float *gate;                /* [rows][feed-forward width] */
    float *up;                  /* [rows][feed-forward width, twice when fused] */
    float *logits;              /* [outputs][n_vocab] */
    float *cos_sin[ROPE_COUNT]; /* [rows][pairs][2] */
    float *zeros;               /* [n_embd]: the bias of norms without one */
    void *act;                  /* forms of the input of a product */
    /* low-rank adapters */
    float *low;     /* [rows][rank] */
    float *low_out; /* [rows][widest output] */
    void *low_act;
    /* experts; a slot is one (row, chosen expert) pair */
    float *router;        /* [rows][n_expert] */
    uint32_t *chosen;     /* [slots] expert */
    float *chosen_weight; /* [slots] */
    uint32_t *place;      /* [slots] where a slot lies when slots are grouped by expert */
    uint32_t *source;     /* [slots] the row at a place */
    uint32_t *owner;      /* [slots] the expert at a place */
    uint32_t *first;      /* [n_expert + 1] first place of an expert */
    float *expert_x;      /* [slots][n_embd], input and then output */
    float *expert_gate;   /* [slots][n_ff_expert] */
    float *expert_up;     /* [slots][n_ff_expert] */
};

struct runner {
    const struct model *model;
    struct runner_widths widths;
    const struct kernels *kernels;
    struct pool *pool;
    struct kv_cache kv;
    struct rope rope[ROPE_COUNT];
    struct lora_use *loras;
    size_t lora_count;
    size_t low_row_len; /* floats of ws.low a row has */
    struct product_watch watch;
    size_t rows_max, outputs_max;
    size_t page_scratch_bytes; /* of a lane's scratch, for page pointers; the rest serves attention */
    struct workspace ws;
    void *memory;
    /* the step in progress; lanes read it */
    uint64_t step;
    struct step_row *rows;
    size_t n_rows;
    uint32_t *wanted; /* rows with logits, ascending */
    size_t n_wanted;
    struct attn_tile *tiles, *wanted_tiles; /* of all rows, and of the wanted ones */
    size_t n_tiles, n_wanted_tiles;
    enum phase phase;
};

/* One lane's part of a step; run by the pool with the runner as ud (forward.c). */
void forward_lane(struct lane *lane, void *ud);

/* A product of a layer: the matrix, by its slot (adapters look it up too), and where it goes. */
struct projection {
    enum weight_slot slot;
    size_t expert;
    float *y;
    size_t y_stride;
};

/* y [n][y_stride] = x W^T plus what the adapters add, for `count` (<= MATMULS_MAX) matrices of the layer as
 * one step. Collective. */
void forward_project(struct lane *lane, struct runner *r, size_t layer, const struct projection *projections,
                     size_t count, struct act *x);

struct glu {
    enum activation activation;
    const float *gate_bias, *up_bias; /* NULL: none */
};

/* gate = act(gate + bias) * (up + bias), [len] each. */
void forward_glu(const struct kernels *k, const struct glu *glu, float *gate, float *up, size_t len);

/* x = act(x), [len]. */
void forward_activate(const struct kernels *k, enum activation activation, float *x, size_t len);

/* out [n][n_embd] (+)= the experts' sum for the normed rows xn (forward_moe.c). Collective. */
void forward_experts(struct lane *lane, struct runner *r, size_t layer, size_t n);

#endif
