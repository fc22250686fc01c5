/* Opening a model: which tensors a layer must have, with what shape, as a table of rules.
 *
 * A rule applies to a layer when all of its `when` bits are among the layer's traits and facts. Shapes are
 * written in symbols that the hyper-parameters give numbers. A tensor that is missing or has another shape is
 * an error that names it; so is a tensor of a layer that no rule knows, because computing without it would
 * give wrong answers silently. Matrices stay where they are, in the map; vectors (norms, biases) are used in
 * the map when they are F32 and aligned, else widened into the model's arena.
 *
 * Everything a model owns hangs on its arena, map and vocabulary; an open model is immutable. */
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "model/arch_int.h"

enum dim {
    DIM_END, /* no further dimension */
    DIM_EMBD,
    DIM_Q,
    DIM_K,
    DIM_V,
    DIM_QKV,
    DIM_O,
    DIM_HEAD_K,
    DIM_HEADS,
    DIM_HEADS_KV,
    DIM_FF,
    DIM_FF_TWICE,
    DIM_EXPERTS,
    DIM_FF_EXPERT,
    DIM_FF_EXPERT_TWICE,
    DIM_FF_SHARED,
    DIM_VOCAB,
    DIM_ROPE_PAIRS,
    DIM_CONTEXT,
    DIM_TYPES
};

struct rule {
    const char *suffix; /* after "blk.N." */
    bool matrix;        /* slot is a weight_slot, else a vector_slot */
    bool optional;
    uint8_t slot;
    unsigned when;
    enum dim dims[3];
};

#define MATRIX(name, slot_, when_, ...)  \
    {                                    \
        name, true, false, slot_, when_, \
        {                                \
            __VA_ARGS__                  \
        }                                \
    }
#define VECTOR(name, slot_, when_, ...)   \
    {                                     \
        name, false, false, slot_, when_, \
        {                                 \
            __VA_ARGS__                   \
        }                                 \
    }
#define OPTIONAL(name, slot_, when_, ...) \
    {                                     \
        name, false, true, slot_, when_,  \
        {                                 \
            __VA_ARGS__                   \
        }                                 \
    }

static const struct rule rules[] = {
    VECTOR("attn_norm.weight", V_ATTN_NORM, TRAIT_PRE_NORM, DIM_EMBD),
    VECTOR("attn_norm.bias", V_ATTN_NORM_B, TRAIT_PRE_NORM | TRAIT_NORM_BIAS, DIM_EMBD),
    MATRIX("attn_qkv.weight", W_QKV, FACT_QKV_FUSED, DIM_EMBD, DIM_QKV),
    OPTIONAL("attn_qkv.bias", V_QKV_B, FACT_QKV_FUSED, DIM_QKV),
    MATRIX("attn_q.weight", W_Q, FACT_QKV_SPLIT, DIM_EMBD, DIM_Q),
    MATRIX("attn_k.weight", W_K, FACT_QKV_SPLIT, DIM_EMBD, DIM_K),
    MATRIX("attn_v.weight", W_V, FACT_QKV_SPLIT, DIM_EMBD, DIM_V),
    OPTIONAL("attn_q.bias", V_Q_B, FACT_QKV_SPLIT, DIM_Q),
    OPTIONAL("attn_k.bias", V_K_B, FACT_QKV_SPLIT, DIM_K),
    OPTIONAL("attn_v.bias", V_V_B, FACT_QKV_SPLIT, DIM_V),
    VECTOR("attn_q_norm.weight", V_Q_NORM, TRAIT_QK_NORM_HEAD, DIM_HEAD_K),
    VECTOR("attn_k_norm.weight", V_K_NORM, TRAIT_QK_NORM_HEAD, DIM_HEAD_K),
    VECTOR("attn_q_norm.weight", V_Q_NORM, TRAIT_QK_NORM_ROW, DIM_Q),
    VECTOR("attn_k_norm.weight", V_K_NORM, TRAIT_QK_NORM_ROW, DIM_K),
    OPTIONAL("attn_q_norm.weight", V_Q_NORM, TRAIT_QK_NORM_EACH, DIM_HEAD_K, DIM_HEADS),
    OPTIONAL("attn_k_norm.weight", V_K_NORM, TRAIT_QK_NORM_EACH, DIM_HEAD_K, DIM_HEADS_KV),
    VECTOR("attn_sinks.weight", V_SINKS, TRAIT_SINKS, DIM_HEADS),
    MATRIX("attn_output.weight", W_O, 0, DIM_O, DIM_EMBD),
    OPTIONAL("attn_output.bias", V_O_B, 0, DIM_EMBD),
    VECTOR("post_attention_norm.weight", V_POST_ATTN, TRAIT_POST_NORMS, DIM_EMBD),
    VECTOR("attn_output_norm.weight", V_POST_ATTN, TRAIT_ENCODER, DIM_EMBD),
    VECTOR("attn_output_norm.bias", V_POST_ATTN_B, TRAIT_ENCODER, DIM_EMBD),
    VECTOR("ffn_norm.weight", V_FFN_NORM, TRAIT_FFN_NORM, DIM_EMBD),
    VECTOR("ffn_norm.bias", V_FFN_NORM_B, TRAIT_FFN_NORM | TRAIT_NORM_BIAS, DIM_EMBD),
    VECTOR("post_attention_norm.weight", V_FFN_NORM, TRAIT_FFN_NORM_POST, DIM_EMBD),
    MATRIX("ffn_gate.weight", W_GATE, FACT_GATE_SPLIT, DIM_EMBD, DIM_FF),
    MATRIX("ffn_up.weight", W_UP, FACT_GATE_SPLIT, DIM_EMBD, DIM_FF),
    MATRIX("ffn_down.weight", W_DOWN, FACT_GATE_SPLIT, DIM_FF, DIM_EMBD),
    OPTIONAL("ffn_gate.bias", V_GATE_B, FACT_GATE_SPLIT, DIM_FF),
    OPTIONAL("ffn_up.bias", V_UP_B, FACT_GATE_SPLIT, DIM_FF),
    OPTIONAL("ffn_down.bias", V_DOWN_B, FACT_GATE_SPLIT, DIM_EMBD),
    MATRIX("ffn_up.weight", W_UP, FACT_GATE_FUSED, DIM_EMBD, DIM_FF_TWICE),
    MATRIX("ffn_down.weight", W_DOWN, FACT_GATE_FUSED, DIM_FF, DIM_EMBD),
    MATRIX("ffn_up.weight", W_UP, FACT_PLAIN, DIM_EMBD, DIM_FF),
    MATRIX("ffn_down.weight", W_DOWN, FACT_PLAIN, DIM_FF, DIM_EMBD),
    OPTIONAL("ffn_up.bias", V_UP_B, FACT_PLAIN, DIM_FF),
    OPTIONAL("ffn_down.bias", V_DOWN_B, FACT_PLAIN, DIM_EMBD),
    MATRIX("ffn_gate_inp.weight", W_ROUTER, FACT_MOE, DIM_EMBD, DIM_EXPERTS),
    OPTIONAL("ffn_gate_inp.bias", V_ROUTER_B, FACT_MOE, DIM_EXPERTS),
    OPTIONAL("exp_probs_b.bias", V_CHOICE_B, FACT_MOE, DIM_EXPERTS),
    MATRIX("ffn_gate_exps.weight", W_GATE_EXPERTS, FACT_MOE, DIM_EMBD, DIM_FF_EXPERT, DIM_EXPERTS),
    MATRIX("ffn_up_exps.weight", W_UP_EXPERTS, FACT_MOE, DIM_EMBD, DIM_FF_EXPERT, DIM_EXPERTS),
    MATRIX("ffn_down_exps.weight", W_DOWN_EXPERTS, FACT_MOE, DIM_FF_EXPERT, DIM_EMBD, DIM_EXPERTS),
    OPTIONAL("ffn_gate_exps.bias", V_GATE_EXPERTS_B, FACT_MOE, DIM_FF_EXPERT, DIM_EXPERTS),
    OPTIONAL("ffn_up_exps.bias", V_UP_EXPERTS_B, FACT_MOE, DIM_FF_EXPERT, DIM_EXPERTS),
    OPTIONAL("ffn_down_exps.bias", V_DOWN_EXPERTS_B, FACT_MOE, DIM_EMBD, DIM_EXPERTS),
    VECTOR("ffn_gate_inp_shexp.weight", V_SHARED_ROUTER, FACT_SHARED | TRAIT_SHARED_ROUTER, DIM_EMBD),
    MATRIX("ffn_gate_shexp.weight", W_GATE_SHARED, FACT_SHARED, DIM_EMBD, DIM_FF_SHARED),
    MATRIX("ffn_up_shexp.weight", W_UP_SHARED, FACT_SHARED, DIM_EMBD, DIM_FF_SHARED),
    MATRIX("ffn_down_shexp.weight", W_DOWN_SHARED, FACT_SHARED, DIM_FF_SHARED, DIM_EMBD),
    VECTOR("post_ffw_norm.weight", V_POST_FFN, TRAIT_POST_NORMS, DIM_EMBD),
    VECTOR("layer_output_norm.weight", V_POST_FFN, TRAIT_ENCODER, DIM_EMBD),
    VECTOR("layer_output_norm.bias", V_POST_FFN_B, TRAIT_ENCODER, DIM_EMBD),
};

static const struct rule global_rules[] = {
    {"token_embd.weight", true, false, G_EMBED, 0, {DIM_EMBD, DIM_VOCAB}},
    {"output.weight", true, true, G_OUTPUT, FACT_DECODER, {DIM_EMBD, DIM_VOCAB}},
    {"output.bias", false, true, G_OUTPUT_B, FACT_DECODER, {DIM_VOCAB}},
    {"output_norm.weight", false, false, G_OUTPUT_NORM, FACT_DECODER, {DIM_EMBD}},
    {"output_norm.bias", false, false, G_OUTPUT_NORM_B, TRAIT_NORM_BIAS, {DIM_EMBD}},
    {"token_embd_norm.weight", false, false, G_EMBED_NORM, TRAIT_ENCODER, {DIM_EMBD}},
    {"token_embd_norm.bias", false, false, G_EMBED_NORM_B, TRAIT_ENCODER, {DIM_EMBD}},
    {"position_embd.weight", true, false, G_POSITIONS, TRAIT_POSITIONS, {DIM_EMBD, DIM_CONTEXT}},
    {"token_types.weight", true, true, G_TYPES, TRAIT_ENCODER, {DIM_EMBD, DIM_TYPES}},
    {"rope_freqs.weight", false, true, G_ROPE_FREQS, 0, {DIM_ROPE_PAIRS}},
    {"rope_factors_long.weight", false, true, G_ROPE_LONG, 0, {DIM_ROPE_PAIRS}},
    {"rope_factors_short.weight", false, true, G_ROPE_SHORT, 0, {DIM_ROPE_PAIRS}},
};

/* Tensors of old converters that hold nothing the hyper-parameters do not say. */
static const char *const ignored_suffixes[] = {"attn_rot_embd.weight", "attn.masked_bias",
                                               "attn_rotary_emb.inv_freq"};

#define RULE_COUNT (sizeof rules / sizeof *rules)
#define NAME_BYTES_MAX 96

struct binder {
    struct model *model;
    const struct model_layer *layer; /* NULL: global rules */
    size_t bound;                    /* tensors some rule has taken */
    struct ph_err *err;
};

static size_t dim_value(const struct binder *b, enum dim dim)
{
    const struct model *m = b->model;
    const struct model_layer *l = b->layer;
    switch (dim) {
    case DIM_END:
        return 1;
    case DIM_EMBD:
        return m->hp.n_embd;
    case DIM_Q:
        return layer_q_dim(m, l);
    case DIM_K:
        return layer_k_dim(m, l);
    case DIM_V:
        return layer_v_dim(m, l);
    case DIM_QKV:
        return layer_q_dim(m, l) + layer_k_dim(m, l) + layer_v_dim(m, l);
    case DIM_O:
        return layer_o_dim(m, l);
    case DIM_HEAD_K:
        return m->hp.head_dim_k;
    case DIM_HEADS:
        return l->n_head;
    case DIM_HEADS_KV:
        return l->n_head_kv;
    case DIM_FF:
        return l->n_ff;
    case DIM_FF_TWICE:
        return 2 * l->n_ff;
    case DIM_EXPERTS:
        return m->hp.n_expert;
    case DIM_FF_EXPERT:
        return m->hp.n_ff_expert;
    case DIM_FF_EXPERT_TWICE:
        return 2 * m->hp.n_ff_expert;
    case DIM_FF_SHARED:
        return m->hp.n_ff_shared;
    case DIM_VOCAB:
        return m->hp.n_vocab;
    case DIM_ROPE_PAIRS:
        return m->hp.rope_dims / 2;
    case DIM_CONTEXT:
        return m->hp.n_context;
    case DIM_TYPES:
        return m->hp.n_types;
    }
    return 0;
}

static enum ph_status check_shape(struct binder *b, const struct rule *rule, const struct gguf_tensor *t)
{
    size_t want[3];
    bool same = t->dims[3] == 1;
    for (int i = 0; i < 3; i++) {
        want[i] = dim_value(b, rule->dims[i]);
        same = same && t->dims[i] == want[i];
    }
    if (same)
        return PH_OK;
    return ph_fail(
        b->err, PH_ERR_FORMAT,
        "%s: tensor %s is [%llu, %llu, %llu], must be [%zu, %zu, %zu] by the file's hyper-parameters",
        gguf_path(b->model->gguf), t->name, (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
        (unsigned long long)t->dims[2], want[0], want[1], want[2]);
}

static enum ph_status bind_vector(struct binder *b, const struct gguf_tensor *t, const float **out)
{
    size_t len = (size_t)(t->dims[0] * t->dims[1] * t->dims[2]);
    if (t->type == TENSOR_F32 && (uintptr_t)t->data % sizeof(float) == 0) {
        *out = t->data;
        return PH_OK;
    }
    float *copy = arena_alloc(&b->model->arena, len * sizeof(float));
    if (!copy)
        return ph_fail(b->err, PH_ERR_NOMEM, "%s: no memory for %s", gguf_path(b->model->gguf), t->name);
    tensor_dequantize(t->type, t->data, copy, len);
    *out = copy;
    return PH_OK;
}

static enum ph_status bind_one(struct binder *b, const struct rule *rule, const char *name,
                               struct matrix *weight, const float **vector)
{
    const struct gguf_tensor *t = gguf_tensor_find(b->model->gguf, name);
    if (!t && rule->optional)
        return PH_OK;
    if (!t)
        return ph_fail(b->err, PH_ERR_FORMAT, "%s: tensor %s is missing, architecture %s needs it",
                       gguf_path(b->model->gguf), name, b->model->arch->name);
    enum ph_status status = check_shape(b, rule, t);
    if (status != PH_OK)
        return status;
    b->bound++;
    if (!rule->matrix)
        return bind_vector(b, t, vector);
    *weight = (struct matrix){
        .type = t->type, .rows = (size_t)t->dims[1], .cols = (size_t)t->dims[0], .data = t->data};
    return PH_OK;
}

/* ---- Which rules apply */
static bool has_traits(unsigned traits, unsigned when)
{
    return (traits & when) == when;
}

static unsigned global_traits(const struct model *model)
{
    return model->arch->traits | (model_is_encoder(model) ? 0 : FACT_DECODER);
}

/* ---- Facts of a layer, seen from the tensors that are there */
static bool layer_has(const struct model *model, size_t index, const char *suffix)
{
    char name[NAME_BYTES_MAX];
    snprintf(name, sizeof name, "blk.%zu.%s", index, suffix);
    return gguf_tensor_find(model->gguf, name) != NULL;
}

static void find_facts(const struct model *model, size_t index, struct model_layer *layer)
{
    layer->traits |= layer_has(model, index, "attn_qkv.weight") ? FACT_QKV_FUSED : FACT_QKV_SPLIT;
    if (layer->traits & FACT_MOE) {
        if (model->hp.n_ff_shared > 0)
            layer->traits |= FACT_SHARED;
    } else if (layer->traits & TRAIT_PLAIN_FFN) {
        layer->traits |= FACT_PLAIN;
    } else {
        layer->traits |= layer_has(model, index, "ffn_gate.weight") ? FACT_GATE_SPLIT : FACT_GATE_FUSED;
    }
    /* StableLM 2 12B: one norm feeds both halves */
    if ((layer->traits & TRAIT_QK_NORM_EACH) && !layer_has(model, index, "ffn_norm.weight")) {
        layer->traits &= ~(unsigned)TRAIT_FFN_NORM;
        layer->traits |= TRAIT_PARALLEL;
    }
}

static enum ph_status bind_layer(struct binder *b, size_t index)
{
    struct model_layer *layer = &b->model->layers[index];
    find_facts(b->model, index, layer);
    b->layer = layer;
    for (size_t i = 0; i < RULE_COUNT; i++) {
        const struct rule *rule = &rules[i];
        if (!has_traits(layer->traits, rule->when))
            continue;
        char name[NAME_BYTES_MAX];
        snprintf(name, sizeof name, "blk.%zu.%s", index, rule->suffix);
        enum ph_status status = bind_one(b, rule, name, rule->matrix ? &layer->weight[rule->slot] : NULL,
                                         rule->matrix ? NULL : &layer->vector[rule->slot]);
        if (status != PH_OK)
            return status;
    }
    return PH_OK;
}

/* ---- Tensors nobody asked for */
static bool is_ignored(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof ignored_suffixes / sizeof *ignored_suffixes; i++) {
        size_t n = strlen(ignored_suffixes[i]);
        if (len > n && strcmp(name + len - n, ignored_suffixes[i]) == 0)
            return true;
    }
    return false;
}

static bool is_known(const struct model *model, const char *name)
{
    size_t layer, len = strlen(name);
    const char *suffix = NULL;
    for (size_t i = 0; i < sizeof global_rules / sizeof *global_rules; i++)
        if (has_traits(global_traits(model), global_rules[i].when) &&
            strcmp(global_rules[i].suffix, name) == 0)
            return true;
    if (len > NAME_BYTES_MAX || !layer_name_split(name, &layer, &suffix) || layer >= model->hp.n_layer)
        return false;
    for (size_t i = 0; i < RULE_COUNT; i++)
        if (has_traits(model->layers[layer].traits, rules[i].when) && strcmp(rules[i].suffix, suffix) == 0)
            return true;
    return false;
}

static enum ph_status refuse_unknown(const struct binder *b)
{
    const struct gguf *gguf = b->model->gguf;
    if (b->bound == gguf_tensor_count(gguf))
        return PH_OK;
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const char *name = gguf_tensor_at(gguf, i)->name;
        if (!is_known(b->model, name) && !is_ignored(name))
            return ph_fail(b->err, PH_ERR_UNSUPPORTED,
                           "%s: tensor %s has no meaning known for architecture %s", gguf_path(gguf), name,
                           b->model->arch->name);
    }
    return PH_OK;
}

static enum ph_status bind_tensors(struct model *model, struct ph_err *err)
{
    struct binder b = {.model = model, .err = err};
    for (size_t i = 0; i < sizeof global_rules / sizeof *global_rules; i++) {
        const struct rule *rule = &global_rules[i];
        if (!has_traits(global_traits(model), rule->when))
            continue;
        enum ph_status status =
            bind_one(&b, rule, rule->suffix, rule->matrix ? &model->weight[rule->slot] : NULL,
                     rule->matrix ? NULL : &model->vector[rule->slot]);
        if (status != PH_OK)
            return status;
    }
    if (!model->weight[G_OUTPUT].data && !model_is_encoder(model)) /* tied */
        model->weight[G_OUTPUT] = model->weight[G_EMBED];
    for (size_t i = 0; i < model->hp.n_layer; i++) {
        enum ph_status status = bind_layer(&b, i);
        if (status != PH_OK)
            return status;
    }
    return refuse_unknown(&b);
}

/* ---- Names, for adapters and messages */
bool layer_name_split(const char *name, size_t *layer, const char **suffix)
{
    if (strncmp(name, "blk.", 4) != 0)
        return false;
    const char *c = name + 4;
    size_t index = 0;
    if (*c < '0' || *c > '9')
        return false;
    for (; *c >= '0' && *c <= '9'; c++) {
        index = index * 10 + (size_t)(*c - '0');
        if (index > MODEL_LAYERS_MAX)
            return false;
    }
    if (*c != '.')
        return false;
    *layer = index;
    *suffix = c + 1;
    return true;
}

bool weight_slot_find(unsigned traits, const char *suffix, enum weight_slot *slot)
{
    for (size_t i = 0; i < RULE_COUNT; i++)
        if (rules[i].matrix && (rules[i].when & traits) == rules[i].when &&
            strcmp(rules[i].suffix, suffix) == 0) {
            *slot = (enum weight_slot)rules[i].slot;
            return true;
        }
    return false;
}

/* ---- Sizes for whoever estimates and measures */
static uint64_t experts_of(const struct model *model, int slot)
{
    return slot == W_GATE_EXPERTS || slot == W_UP_EXPERTS || slot == W_DOWN_EXPERTS ? model->hp.n_expert_used
                                                                                    : 1;
}

static void count_layer(struct model *model, const struct model_layer *layer)
{
    struct model_info *info = &model->info;
    const struct hparams *hp = &model->hp;
    for (int i = 0; i < W_COUNT; i++) {
        const struct matrix *w = &layer->weight[i];
        if (!w->data)
            continue;
        info->decode_bytes += matrix_bytes(w) * experts_of(model, i);
        info->flops_per_token += 2 * (uint64_t)w->rows * w->cols * experts_of(model, i);
    }
    info->kv_bytes_per_token_f16 += (uint64_t)layer->n_head_kv * (hp->head_dim_k + hp->head_dim_v) * 2;
}

static void count_all(struct model *model)
{
    struct model_info *info = &model->info;
    const struct hparams *hp = &model->hp;
    for (size_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(model->gguf, i);
        size_t layer;
        const char *suffix;
        enum weight_slot slot;
        bool in_layer = layer_name_split(t->name, &layer, &suffix) && layer < hp->n_layer;
        bool matrix = strcmp(t->name, "token_embd.weight") == 0 || strcmp(t->name, "output.weight") == 0 ||
                      (in_layer && weight_slot_find(model->layers[layer].traits, suffix, &slot));
        info->n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        info->weight_bytes += t->bytes;
        if (!matrix) /* norms and biases are read whole */
            info->decode_bytes += t->bytes;
    }
    for (size_t i = 0; i < hp->n_layer; i++)
        count_layer(model, &model->layers[i]);
    const struct matrix *embed = &model->weight[G_EMBED], *output = &model->weight[G_OUTPUT];
    info->decode_bytes += matrix_bytes(output);
    if (output->data != embed->data)
        info->decode_bytes += tensor_row_bytes(embed->type, embed->cols);
    info->flops_per_token += 2 * (uint64_t)output->rows * output->cols;
}

/* general.name, or the file's name without folder and ending. */
static const char *find_name(struct model *model)
{
    struct gguf_string name;
    if (gguf_get_string(model->gguf, "general.name", &name) && name.len > 0)
        return arena_strndup(&model->arena, name.text, name.len);
    const char *path = gguf_path(model->gguf), *slash = strrchr(path, '/');
    const char *stem = slash ? slash + 1 : path, *dot = strrchr(stem, '.');
    return arena_strndup(&model->arena, stem, dot && dot > stem ? (size_t)(dot - stem) : strlen(stem));
}

static enum ph_status fill_info(struct model *model, struct ph_err *err)
{
    struct model_info *info = &model->info;
    struct gguf_string text;
    info->name = find_name(model);
    if (!gguf_get_string(model->gguf, "general.architecture", &text))
        text = (struct gguf_string){"unknown", 7};
    info->architecture = arena_strndup(&model->arena, text.text, text.len);
    if (gguf_get_string(model->gguf, "tokenizer.chat_template", &text)) {
        info->chat_template = text.text;
        info->chat_template_len = text.len;
    }
    info->n_vocab = vocab_info(model->vocab)->n_tokens;
    if (!info->name || !info->architecture)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for its description", gguf_path(model->gguf));
    return PH_OK;
}

static enum ph_status read_network(struct model *model, struct ph_err *err)
{
    const char *name = model->info.architecture;
    struct hparams *hp = &model->hp;
    model->arch = arch_find(name, strlen(name));
    if (!model->arch) {
        char known[400];
        arch_list(known, sizeof known);
        return ph_fail(err, PH_ERR_UNSUPPORTED, "%s: architecture \"%.40s\" is not known; known: %s",
                       gguf_path(model->gguf), name, known);
    }
    enum ph_status status = arch_read(model, err);
    if (status != PH_OK)
        return status;
    hp->n_vocab = vocab_info(model->vocab)->n_tokens;
    if ((status = bind_tensors(model, err)) != PH_OK)
        return status;
    const struct model_layer *first = &model->layers[0];
    model->info.n_layer = hp->n_layer;
    model->info.n_embd = hp->n_embd;
    model->info.n_head = first->n_head;
    model->info.n_head_kv = first->n_head_kv;
    model->info.n_context_train = hp->n_context;
    count_all(model);
    return PH_OK;
}

#define MODEL_ARENA_BYTES_MAX ((size_t)1 << 32)

enum ph_status model_open(struct model **out, const char *path, bool vocab_only, struct ph_err *err)
{
    struct gguf *gguf;
    *out = NULL;
    enum ph_status status = gguf_open(&gguf, path, err);
    return status == PH_OK ? model_open_gguf(out, gguf, vocab_only, err) : status;
}

enum ph_status model_open_gguf(struct model **out, struct gguf *gguf, bool vocab_only, struct ph_err *err)
{
    *out = NULL;
    struct model *model = mem_calloc(1, sizeof *model);
    if (!model) {
        enum ph_status failed = ph_fail(err, PH_ERR_NOMEM, "%s: no memory", gguf_path(gguf));
        gguf_free(gguf);
        return failed;
    }
    arena_init(&model->arena, MODEL_ARENA_BYTES_MAX);
    model->gguf = gguf;
    enum ph_status status = vocab_create(&model->vocab, model->gguf, err);
    if (status == PH_OK)
        status = fill_info(model, err);
    if (status == PH_OK && !vocab_only)
        status = read_network(model, err);
    if (status == PH_OK)
        *out = model;
    else
        model_free(model);
    return status;
}

void model_free(struct model *model)
{
    if (!model)
        return;
    vocab_free(model->vocab);
    gguf_free(model->gguf);
    arena_release(&model->arena);
    mem_free(model);
}

bool model_is_encoder(const struct model *model)
{
    return model->arch && (model->arch->traits & TRAIT_ENCODER);
}

bool model_file_is_encoder(const char *path)
{
    struct gguf *gguf;
    struct gguf_string name;
    if (gguf_open(&gguf, path, NULL) != PH_OK)
        return false;
    bool named = gguf_get_string(gguf, "general.architecture", &name);
    const struct arch *arch = named ? arch_find(name.text, name.len) : NULL;
    gguf_free(gguf);
    return arch && (arch->traits & TRAIT_ENCODER);
}

const struct model_info *model_info(const struct model *model)
{
    return &model->info;
}

const struct vocab *model_vocab(const struct model *model)
{
    return model->vocab;
}

const struct gguf *model_gguf(const struct model *model)
{
    return model->gguf;
}

void model_attention(const struct model *model, size_t layer, size_t *heads, size_t *heads_kv, size_t *window)
{
    const struct model_layer *l = &model->layers[layer];
    *heads = l->n_head;
    *heads_kv = l->n_head_kv;
    *window = l->window;
}
