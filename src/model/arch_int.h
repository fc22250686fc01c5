/* What a language model is, as data. arch.c knows the architectures; model.c binds tensors by the rules here;
 * forward*.c computes from hyper-parameters and slots and never asks for an architecture's name.
 *
 * Included only inside src/model. */
#ifndef PHAROS_MODEL_ARCH_INT_H
#define PHAROS_MODEL_ARCH_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "model/model.h"

enum norm_kind { NORM_RMS, NORM_LAYER };
enum rope_kind { ROPE_NORM, ROPE_NEOX };
enum activation { ACT_SILU, ACT_GELU, ACT_RELU_SQUARED, ACT_SWIGLU_CLAMPED };
enum gating { /* numbers of the GGUF key expert_gating_func */
              GATING_SOFTMAX = 1,
              GATING_SIGMOID = 2,
              GATING_SOFTMAX_CHOSEN = 3 /* softmax over the chosen experts' logits alone */
};

/* What a layer has. Traits of the architecture and facts of the file together choose which tensor rules of
 * model.c apply; the forward pass reads some of them too. */
enum trait {
    TRAIT_PRE_NORM = 1 << 0,       /* attn_norm before attention (all but OLMo 2) */
    TRAIT_FFN_NORM = 1 << 1,       /* ffn_norm before the feed-forward part */
    TRAIT_POST_NORMS = 1 << 2,     /* each half's output is normed before it is added */
    TRAIT_FFN_NORM_POST = 1 << 3,  /* the ffn_norm is called post_attention_norm in the file */
    TRAIT_NORM_BIAS = 1 << 4,      /* norms carry a bias */
    TRAIT_QK_NORM_HEAD = 1 << 5,   /* q and k are normed a head at a time, all heads with one weight */
    TRAIT_QK_NORM_ROW = 1 << 6,    /* q and k are normed as whole rows */
    TRAIT_QK_NORM_EACH = 1 << 7,   /* optional; each head has its own weight */
    TRAIT_PLAIN_FFN = 1 << 8,      /* up, activation, down: no gate */
    TRAIT_PARALLEL = 1 << 9,       /* attention and feed-forward read the same normed input */
    TRAIT_EMBED_ROOT = 1 << 10,    /* embeddings are multiplied by sqrt(n_embd) */
    TRAIT_LOGIT_DIVIDE = 1 << 11,  /* logit_scale divides */
    TRAIT_ROPE_WINDOWED = 1 << 12, /* full-attention layers have no rotary embedding */
    TRAIT_PLAIN_WINDOW = 1 << 13,  /* windowed layers ignore rope scaling */
    TRAIT_ROPE_SWITCH = 1 << 14,   /* rope.scaling.finetuned = false turns rotary embedding off */
    TRAIT_RENORMALISE = 1 << 15,   /* chosen experts' weights are made to sum to 1 */
    TRAIT_SINKS = 1 << 16,         /* one extra attention logit a head */
    TRAIT_SHARED_ROUTER = 1 << 17, /* the shared expert is weighted by a sigmoid */
    TRAIT_EXPERT_SLICE = 1 << 18, /* without expert_feed_forward_length: feed_forward_length / used experts */
    TRAIT_WINDOW_OPTIONAL = 1 << 19, /* without attention.sliding_window there is no window */
    TRAIT_QK_NORM_LATE = 1 << 20,    /* q and k are normed after rotation */

    /* facts of a layer of a file */
    FACT_QKV_FUSED = 1 << 21,
    FACT_QKV_SPLIT = 1 << 22,
    FACT_GATE_SPLIT = 1 << 23, /* dense: gate and up are two tensors */
    FACT_GATE_FUSED = 1 << 24, /* dense: ffn_up holds gate, then up */
    FACT_MOE = 1 << 25,
    FACT_PLAIN = 1 << 26,  /* dense, without a gate */
    FACT_SHARED = 1 << 27, /* a shared expert beside the chosen ones */

    /* of a whole model */
    TRAIT_ENCODER = 1 << 28,   /* reads texts in both directions and makes vectors (encoder.c) */
    TRAIT_POSITIONS = 1 << 29, /* positions have learned embeddings */
    FACT_DECODER = 1 << 30     /* not an encoder: it has an output norm, and logits */
};

/* Groups of keys that an architecture reads; a key of another group means nothing to it, whatever it holds.
 * */
enum key_group {
    KEYS_SCALES = 1 << 0,      /* embedding_scale, residual_scale, attention.scale */
    KEYS_LOGIT_SCALE = 1 << 1, /* logit_scale, required */
    KEYS_SOFTCAP = 1 << 2,     /* final_logit_softcapping */
    KEYS_ATTN_SOFTCAP = 1 << 3,
    KEYS_YARN = 1 << 4,   /* YaRN's finer knobs, attention.temperature_scale */
    KEYS_EXPERTS = 1 << 5 /* how experts are weighted, shared ones, and which layers have none */
};

struct arch {
    const char *name; /* general.architecture, and the prefix of its keys */
    enum rope_kind rope;
    enum norm_kind norm;
    enum activation activation;
    unsigned traits, keys;
    unsigned window_period;  /* windowed: every layer but each period-th; 0: keys about windows are ignored */
    unsigned window_default; /* when the key is absent */
    double window_rope_base; /* 0: as the other layers */
    unsigned no_rope_period; /* each period-th layer has no rotary embedding; 0: none */
    unsigned wide_scale_layers; /* a model of that many layers scales attention by n_embd / n_head */
    float attention_softcap, logit_softcap; /* when the keys are absent */
    enum gating gating;
};

enum pooling { /* numbers of the GGUF key pooling_type */
               POOLING_NONE,
               POOLING_MEAN,
               POOLING_CLS,
               POOLING_LAST,
               POOLING_RANK
};

enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_YARN, ROPE_SCALING_LONGROPE };

struct rope_params {
    enum rope_scaling scaling;
    double base, factor, attn_factor;
    double beta_fast, beta_slow, log_multiplier;
    size_t context_original;
};

enum { ROPE_FULL, ROPE_WINDOWED, ROPE_COUNT };

struct hparams {
    size_t n_vocab, n_layer, n_embd, n_context;
    size_t head_dim_k, head_dim_v, rope_dims;
    size_t window;        /* 0: none */
    size_t n_types;       /* token types (BERT's segments) */
    enum pooling pooling; /* of an encoder */
    size_t n_expert, n_expert_used, n_ff_expert, n_ff_shared, n_expert_shared, n_layer_dense;
    enum gating gating;
    bool expert_renormalise;
    float expert_scale;
    float norm_eps, embedding_scale, residual_scale, logit_scale, attention_scale;
    float attention_softcap, logit_softcap; /* 0: none */
    float temperature_scale; /* attention sharpens with the position's logarithm; 0: it does not */
    struct rope_params rope[ROPE_COUNT];
};

enum weight_slot {
    W_Q,
    W_K,
    W_V,
    W_QKV,
    W_O,
    W_GATE,
    W_UP,
    W_DOWN,
    W_ROUTER,
    W_GATE_EXPERTS,
    W_UP_EXPERTS,
    W_DOWN_EXPERTS,
    W_GATE_SHARED,
    W_UP_SHARED,
    W_DOWN_SHARED,
    W_COUNT
};

enum vector_slot {
    V_ATTN_NORM,
    V_ATTN_NORM_B,
    V_Q_NORM,
    V_K_NORM,
    V_Q_B,
    V_K_B,
    V_V_B,
    V_QKV_B,
    V_O_B,
    V_SINKS,
    V_POST_ATTN,
    V_POST_ATTN_B,
    V_FFN_NORM,
    V_FFN_NORM_B,
    V_GATE_B,
    V_UP_B,
    V_DOWN_B,
    V_POST_FFN,
    V_POST_FFN_B,
    V_ROUTER_B,
    V_CHOICE_B,
    V_GATE_EXPERTS_B,
    V_UP_EXPERTS_B,
    V_DOWN_EXPERTS_B,
    V_SHARED_ROUTER,
    V_COUNT
};

struct model_layer {
    size_t n_head, n_head_kv, n_ff;
    unsigned traits; /* enum trait, facts included */
    size_t window;   /* 0: all earlier positions */
    bool rotary;
    unsigned rope;                 /* ROPE_FULL or ROPE_WINDOWED */
    struct matrix weight[W_COUNT]; /* data NULL: absent. Experts: the first one; the others follow */
    const float *vector[V_COUNT];  /* NULL: absent */
};

enum global_weight { G_EMBED, G_OUTPUT, G_POSITIONS, G_TYPES, G_WEIGHT_COUNT };
enum global_vector {
    G_OUTPUT_NORM,
    G_OUTPUT_NORM_B,
    G_OUTPUT_B,
    G_EMBED_NORM,
    G_EMBED_NORM_B,
    G_ROPE_FREQS,
    G_ROPE_LONG,
    G_ROPE_SHORT,
    G_VECTOR_COUNT
};

struct model {
    struct arena arena; /* everything below that is not in the map */
    struct gguf *gguf;
    struct vocab *vocab;
    const struct arch *arch; /* NULL: vocabulary only */
    struct hparams hp;
    struct model_layer *layers;
    struct matrix weight[G_WEIGHT_COUNT];
    const float *vector[G_VECTOR_COUNT];
    struct model_info info;
};

/* NULL: unknown. */
const struct arch *arch_find(const char *name, size_t len);
/* "llama, qwen2, ..." for an error message; cut with "..." when out is small. */
void arch_list(char *out, size_t cap);
/* Reads and checks the hyper-parameters (all but n_vocab, which the tokens decide) and makes the layers. */
PH_MUST_USE enum ph_status arch_read(struct model *model, struct ph_err *err);

static inline size_t layer_q_dim(const struct model *m, const struct model_layer *l)
{
    return l->n_head * m->hp.head_dim_k;
}

static inline size_t layer_k_dim(const struct model *m, const struct model_layer *l)
{
    return l->n_head_kv * m->hp.head_dim_k;
}

static inline size_t layer_v_dim(const struct model *m, const struct model_layer *l)
{
    return l->n_head_kv * m->hp.head_dim_v;
}

static inline size_t layer_o_dim(const struct model *m, const struct model_layer *l)
{
    return l->n_head * m->hp.head_dim_v;
}

/* Of one matrix; for experts, of one expert. */
static inline size_t matrix_bytes(const struct matrix *w)
{
    return w->rows * tensor_row_bytes(w->type, w->cols);
}

/* ---- Low-rank adapters (lora.c) */
struct lora_pair {
    struct matrix a, b; /* a [rank][in], b [out][rank]; experts follow each other. a.data NULL: none */
};

struct lora {
    struct arena arena;
    struct gguf *gguf;
    const struct model *model;
    float alpha; /* 0: the scale is used as it is */
    size_t rank_max, out_max;
    struct lora_pair *pairs; /* [n_layer][W_COUNT] */
    struct lora_pair global[G_WEIGHT_COUNT];
};

/* "blk.3.attn_q.weight" -> 3, "attn_q.weight". false: not a name of that form. */
bool layer_name_split(const char *name, size_t *layer, const char **suffix);
/* The matrix slot that a layer with these traits has for "attn_q.weight". */
bool weight_slot_find(unsigned traits, const char *suffix, enum weight_slot *slot);

#endif
