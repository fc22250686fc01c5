/* Architectures as a table, and the reading of hyper-parameters.
 *
 * An architecture is a row of switches; two tables say which GGUF key fills which field and within what
 * bounds. What follows from several keys (head sizes, windows, rope variants, scales) is derived and
 * checked below, so that the forward pass can trust every number: no size is zero where it divides, no
 * product of sizes that a buffer is made of exceeds MODEL_DIM_MAX, every float is finite.
 *
 * Meaning of keys: the GGUF specification (ggml docs/gguf.md) and, where that is silent, the behaviour of
 * the reference runtime, measured with small random models. */
#include "model/arch_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"

#define SEQUENTIAL (TRAIT_PRE_NORM | TRAIT_FFN_NORM)
#define GEMMA (SEQUENTIAL | TRAIT_EMBED_ROOT)
#define GRANITE (TRAIT_LOGIT_DIVIDE | TRAIT_ROPE_SWITCH | TRAIT_RENORMALISE)

static const struct arch archs[] = {
    {.name = "llama", .traits = SEQUENTIAL | TRAIT_RENORMALISE},
    {.name = "mistral3", .traits = SEQUENTIAL | TRAIT_RENORMALISE, .keys = KEYS_YARN},
    {.name = "qwen2", .rope = ROPE_NEOX, .traits = SEQUENTIAL},
    {.name = "qwen2moe", .rope = ROPE_NEOX, .traits = SEQUENTIAL | TRAIT_EXPERT_SLICE | TRAIT_SHARED_ROUTER},
    {.name = "qwen3", .rope = ROPE_NEOX, .traits = SEQUENTIAL | TRAIT_QK_NORM_HEAD},
    {.name = "qwen3moe",
     .rope = ROPE_NEOX,
     .traits = SEQUENTIAL | TRAIT_QK_NORM_HEAD | TRAIT_RENORMALISE | TRAIT_EXPERT_SLICE},
    {.name = "gemma", .rope = ROPE_NEOX, .activation = ACT_GELU, .traits = GEMMA},
    {.name = "gemma2",
     .rope = ROPE_NEOX,
     .activation = ACT_GELU,
     .traits = GEMMA | TRAIT_POST_NORMS,
     .keys = KEYS_SOFTCAP | KEYS_ATTN_SOFTCAP,
     .window_period = 2,
     .window_default = 4096,
     .wide_scale_layers = 46,
     .attention_softcap = 50.0f,
     .logit_softcap = 30.0f},
    {.name = "gemma3",
     .rope = ROPE_NEOX,
     .activation = ACT_GELU,
     .traits = GEMMA | TRAIT_POST_NORMS | TRAIT_QK_NORM_HEAD | TRAIT_PLAIN_WINDOW | TRAIT_WINDOW_OPTIONAL,
     .keys = KEYS_SOFTCAP,
     .window_period = 6,
     .window_rope_base = 10000.0,
     .wide_scale_layers = 62},
    {.name = "phi2",
     .rope = ROPE_NEOX,
     .norm = NORM_LAYER,
     .activation = ACT_GELU,
     .traits = TRAIT_PRE_NORM | TRAIT_NORM_BIAS | TRAIT_PLAIN_FFN | TRAIT_PARALLEL},
    {.name = "phi3", .rope = ROPE_NEOX, .traits = SEQUENTIAL},
    {.name = "stablelm",
     .rope = ROPE_NEOX,
     .norm = NORM_LAYER,
     .traits = SEQUENTIAL | TRAIT_NORM_BIAS | TRAIT_QK_NORM_EACH},
    {.name = "starcoder2",
     .rope = ROPE_NEOX,
     .norm = NORM_LAYER,
     .activation = ACT_GELU,
     .traits = SEQUENTIAL | TRAIT_NORM_BIAS | TRAIT_PLAIN_FFN},
    {.name = "internlm2", .traits = SEQUENTIAL},
    {.name = "granite", .traits = SEQUENTIAL | GRANITE, .keys = KEYS_SCALES | KEYS_LOGIT_SCALE},
    {.name = "granitemoe", .traits = SEQUENTIAL | GRANITE, .keys = KEYS_SCALES | KEYS_LOGIT_SCALE},
    {.name = "minicpm", .traits = SEQUENTIAL | TRAIT_LOGIT_DIVIDE, .keys = KEYS_SCALES | KEYS_LOGIT_SCALE},
    {.name = "olmo2",
     .rope = ROPE_NEOX,
     .traits = TRAIT_POST_NORMS | TRAIT_QK_NORM_ROW | TRAIT_PLAIN_WINDOW | TRAIT_WINDOW_OPTIONAL,
     .window_period = 4},
    {.name = "olmoe", .rope = ROPE_NEOX, .traits = SEQUENTIAL | TRAIT_QK_NORM_ROW},
    {.name = "smollm3", .traits = SEQUENTIAL, .no_rope_period = 4},
    {.name = "command-r",
     .norm = NORM_LAYER,
     .traits = TRAIT_PRE_NORM | TRAIT_PARALLEL | TRAIT_QK_NORM_EACH,
     .keys = KEYS_LOGIT_SCALE},
    {.name = "cohere2",
     .norm = NORM_LAYER,
     .traits = TRAIT_PRE_NORM | TRAIT_PARALLEL | TRAIT_ROPE_WINDOWED,
     .keys = KEYS_LOGIT_SCALE,
     .window_period = 4},
    {.name = "exaone", .rope = ROPE_NEOX, .traits = SEQUENTIAL},
    {.name = "seed_oss", .rope = ROPE_NEOX, .traits = TRAIT_PRE_NORM | TRAIT_FFN_NORM_POST},
    {.name = "arcee", .activation = ACT_RELU_SQUARED, .traits = SEQUENTIAL | TRAIT_PLAIN_FFN},
    {.name = "nemotron",
     .rope = ROPE_NEOX,
     .norm = NORM_LAYER,
     .activation = ACT_RELU_SQUARED,
     .traits = SEQUENTIAL | TRAIT_NORM_BIAS | TRAIT_PLAIN_FFN},
    {.name = "glm4", .traits = SEQUENTIAL | TRAIT_POST_NORMS},
    {.name = "ernie4_5", .traits = SEQUENTIAL},
    {.name = "hunyuan-dense",
     .rope = ROPE_NEOX,
     .traits = SEQUENTIAL | TRAIT_QK_NORM_HEAD | TRAIT_QK_NORM_LATE},
    {.name = "deepseek", .traits = SEQUENTIAL, .keys = KEYS_EXPERTS},
    {.name = "dots1", .rope = ROPE_NEOX, .traits = SEQUENTIAL | TRAIT_QK_NORM_HEAD, .keys = KEYS_EXPERTS},
    {.name = "gpt-oss",
     .rope = ROPE_NEOX,
     .activation = ACT_SWIGLU_CLAMPED,
     .traits = TRAIT_PRE_NORM | TRAIT_FFN_NORM_POST | TRAIT_SINKS,
     .window_period = 2,
     .gating = GATING_SOFTMAX_CHOSEN},
    {.name = "bert",
     .norm = NORM_LAYER,
     .activation = ACT_GELU,
     .traits = TRAIT_ENCODER | TRAIT_POSITIONS | TRAIT_PLAIN_FFN},
    {.name = "nomic-bert", .rope = ROPE_NEOX, .norm = NORM_LAYER, .traits = TRAIT_ENCODER},
};

const struct arch *arch_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strlen(archs[i].name) == len && memcmp(archs[i].name, name, len) == 0)
            return &archs[i];
    return NULL;
}

void arch_list(char *out, size_t cap)
{
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof archs / sizeof *archs && len < cap; i++)
        len += (size_t)snprintf(out + len, cap - len, "%s%s", i ? ", " : "", archs[i].name);
}

/* ---- Keys */
#define KEY_BYTES_MAX 128

struct keys {
    const struct gguf *gguf;
    const char *prefix;
    char key[KEY_BYTES_MAX]; /* the last one asked for */
    struct ph_err *err;
};

static const char *key_name(struct keys *k, const char *suffix)
{
    snprintf(k->key, sizeof k->key, "%s.%s", k->prefix, suffix);
    return k->key;
}

static enum ph_status out_of_range(struct keys *k, double value, double min, double max)
{
    return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is %g, must be between %g and %g", gguf_path(k->gguf),
                   k->key, value, min, max);
}

/* Keeps *out when the key is absent. */
static enum ph_status get_size(struct keys *k, const char *suffix, size_t min, size_t max, size_t *out)
{
    uint64_t value;
    if (!gguf_has(k->gguf, key_name(k, suffix)))
        return PH_OK;
    if (!gguf_get_uint(k->gguf, k->key, &value))
        return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is not a whole number", gguf_path(k->gguf), k->key);
    if (value < min || value > max)
        return out_of_range(k, (double)value, (double)min, (double)max);
    *out = (size_t)value;
    return PH_OK;
}

static enum ph_status get_double(struct keys *k, const char *suffix, double min, double max, double *out)
{
    double value;
    if (!gguf_has(k->gguf, key_name(k, suffix)))
        return PH_OK;
    if (!gguf_get_float(k->gguf, k->key, &value))
        return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is not a number", gguf_path(k->gguf), k->key);
    if (!(value >= min && value <= max)) /* NaN fails too */
        return out_of_range(k, value, min, max);
    *out = value;
    return PH_OK;
}

/* One number for all layers, or an array with one for each. */
static enum ph_status get_layer_size(struct keys *k, const char *suffix, size_t layer, size_t min, size_t max,
                                     size_t *out)
{
    struct gguf_array array;
    if (!gguf_get_array(k->gguf, key_name(k, suffix), &array))
        return get_size(k, suffix, min, max, out);
    if (layer >= array.count || array.type == GGUF_STRING)
        return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s has no number for layer %zu", gguf_path(k->gguf),
                       k->key, layer);
    double value = gguf_array_number(&array, layer);
    if (!(value >= (double)min && value <= (double)max))
        return out_of_range(k, value, (double)min, (double)max);
    *out = (size_t)value;
    return PH_OK;
}

struct size_key {
    const char *suffix;
    size_t offset; /* in struct hparams */
    size_t min, max;
    bool required;
};

static const struct size_key size_keys[] = {
    {"block_count", offsetof(struct hparams, n_layer), 1, MODEL_LAYERS_MAX, true},
    {"embedding_length", offsetof(struct hparams, n_embd), 1, MODEL_DIM_MAX, true},
    {"context_length", offsetof(struct hparams, n_context), 1, UINT32_MAX, true},
    {"attention.key_length", offsetof(struct hparams, head_dim_k), 1, MODEL_DIM_MAX, false},
    {"attention.value_length", offsetof(struct hparams, head_dim_v), 1, MODEL_DIM_MAX, false},
    {"rope.dimension_count", offsetof(struct hparams, rope_dims), 0, MODEL_DIM_MAX, false},
    {"attention.sliding_window", offsetof(struct hparams, window), 0, UINT32_MAX, false},
    {"expert_count", offsetof(struct hparams, n_expert), 0, MODEL_EXPERTS_MAX, false},
    {"expert_used_count", offsetof(struct hparams, n_expert_used), 0, MODEL_EXPERTS_MAX, false},
    {"expert_feed_forward_length", offsetof(struct hparams, n_ff_expert), 1, MODEL_DIM_MAX, false},
    {"expert_shared_feed_forward_length", offsetof(struct hparams, n_ff_shared), 0, MODEL_DIM_MAX, false},
    {"expert_shared_count", offsetof(struct hparams, n_expert_shared), 0, MODEL_EXPERTS_MAX, false},
    {"leading_dense_block_count", offsetof(struct hparams, n_layer_dense), 0, MODEL_LAYERS_MAX, false},
};

static enum ph_status read_sizes(struct keys *k, struct hparams *hp)
{
    for (size_t i = 0; i < sizeof size_keys / sizeof *size_keys; i++) {
        const struct size_key *row = &size_keys[i];
        size_t *field = (size_t *)(void *)((char *)hp + row->offset);
        enum ph_status status = get_size(k, row->suffix, row->min, row->max, field);
        if (status != PH_OK)
            return status;
        if (row->required && *field == 0)
            return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is missing", gguf_path(k->gguf), k->key);
    }
    if (hp->n_context > MODEL_CONTEXT_MAX)
        hp->n_context = MODEL_CONTEXT_MAX;
    return PH_OK;
}

struct float_key {
    const char *suffix;
    size_t offset; /* of a float in struct hparams */
    unsigned group;
    bool required;
    double min, max;
};

#define SCALE_MAX 1e6

static const struct float_key float_keys[] = {
    {"embedding_scale", offsetof(struct hparams, embedding_scale), KEYS_SCALES, false, -SCALE_MAX, SCALE_MAX},
    {"residual_scale", offsetof(struct hparams, residual_scale), KEYS_SCALES, false, -SCALE_MAX, SCALE_MAX},
    {"attention.scale", offsetof(struct hparams, attention_scale), KEYS_SCALES, false, 0, SCALE_MAX},
    {"logit_scale", offsetof(struct hparams, logit_scale), KEYS_LOGIT_SCALE, true, -SCALE_MAX, SCALE_MAX},
    {"attn_logit_softcapping", offsetof(struct hparams, attention_softcap), KEYS_ATTN_SOFTCAP, false, 0,
     SCALE_MAX},
    {"final_logit_softcapping", offsetof(struct hparams, logit_softcap), KEYS_SOFTCAP, false, 0, SCALE_MAX},
    {"attention.temperature_scale", offsetof(struct hparams, temperature_scale), KEYS_YARN, false, 0,
     SCALE_MAX},
    {"expert_weights_scale", offsetof(struct hparams, expert_scale), KEYS_EXPERTS, false, 0, SCALE_MAX},
};

static enum ph_status read_floats(struct keys *k, const struct arch *arch, struct hparams *hp)
{
    hp->attention_softcap = arch->attention_softcap;
    hp->logit_softcap = arch->logit_softcap;
    for (size_t i = 0; i < sizeof float_keys / sizeof *float_keys; i++) {
        const struct float_key *row = &float_keys[i];
        float *field = (float *)(void *)((char *)hp + row->offset);
        double value = (double)*field;
        if (!(row->group & arch->keys))
            continue;
        enum ph_status status = get_double(k, row->suffix, row->min, row->max, &value);
        if (status != PH_OK)
            return status;
        if (row->required && !gguf_has(k->gguf, k->key))
            return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is missing", gguf_path(k->gguf), k->key);
        *field = (float)value;
    }
    const char *eps_key = arch->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon" //
                                                 : "attention.layer_norm_epsilon";
    double eps = -1;
    enum ph_status status = get_double(k, eps_key, 0, 1, &eps);
    if (status == PH_OK && eps < 0)
        status = ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is missing", gguf_path(k->gguf), k->key);
    hp->norm_eps = (float)eps;
    return status;
}

/* ---- What follows from several keys */
static enum ph_status derive_heads(struct keys *k, struct hparams *hp, size_t n_head)
{
    if ((hp->head_dim_k == 0 || hp->head_dim_v == 0) && hp->n_embd % n_head != 0)
        return ph_fail(k->err, PH_ERR_FORMAT,
                       "%s: %s.embedding_length %zu is not a multiple of attention.head_count %zu, and "
                       "attention.key_length is not given",
                       gguf_path(k->gguf), k->prefix, hp->n_embd, n_head);
    if (hp->head_dim_k == 0)
        hp->head_dim_k = hp->n_embd / n_head;
    if (hp->head_dim_v == 0)
        hp->head_dim_v = hp->n_embd / n_head;
    if (!gguf_has(k->gguf, key_name(k, "rope.dimension_count")))
        hp->rope_dims = hp->head_dim_k;
    if (hp->rope_dims % 2 != 0 || hp->rope_dims > hp->head_dim_k)
        return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is %zu: must be even and at most the head size %zu",
                       gguf_path(k->gguf), k->key, hp->rope_dims, hp->head_dim_k);
    return PH_OK;
}

static enum ph_status derive_experts(struct keys *k, const struct arch *arch, struct hparams *hp)
{
    uint64_t gating = arch->gating ? arch->gating : GATING_SOFTMAX;
    bool renormalise = (arch->traits & TRAIT_RENORMALISE) != 0;
    if (arch->keys & KEYS_EXPERTS) {
        gguf_get_bool(k->gguf, key_name(k, "expert_weights_norm"), &renormalise);
        gguf_get_uint(k->gguf, key_name(k, "expert_gating_func"), &gating);
    } else {
        hp->n_layer_dense = hp->n_expert_shared = 0;
    }
    if (gating < GATING_SOFTMAX || gating > GATING_SOFTMAX_CHOSEN)
        return ph_fail(k->err, PH_ERR_UNSUPPORTED, "%s: %s %llu is not known", gguf_path(k->gguf), k->key,
                       (unsigned long long)gating);
    hp->gating = (enum gating)gating;
    hp->expert_renormalise = renormalise;
    if (hp->expert_scale == 0.0f)
        hp->expert_scale = 1.0f;
    if (hp->n_expert > 0 && (hp->n_expert_used == 0 || hp->n_expert_used > hp->n_expert))
        return ph_fail(k->err, PH_ERR_FORMAT,
                       "%s: %s.expert_used_count %zu must be between 1 and expert_count %zu",
                       gguf_path(k->gguf), k->prefix, hp->n_expert_used, hp->n_expert);
    return PH_OK;
}

static enum ph_status derive_expert_widths(struct keys *k, const struct arch *arch, struct hparams *hp,
                                           size_t n_ff)
{
    if (hp->n_expert == 0)
        return PH_OK;
    if (hp->n_ff_expert == 0)
        hp->n_ff_expert = arch->traits & TRAIT_EXPERT_SLICE ? n_ff / hp->n_expert_used : n_ff;
    if (hp->n_ff_expert == 0)
        return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is missing", gguf_path(k->gguf),
                       key_name(k, "expert_feed_forward_length"));
    if (hp->n_ff_shared == 0)
        hp->n_ff_shared = arch->traits & TRAIT_SHARED_ROUTER ? n_ff : hp->n_ff_expert * hp->n_expert_shared;
    if (hp->n_ff_shared > MODEL_DIM_MAX)
        return ph_fail(k->err, PH_ERR_LIMIT, "%s: shared experts of %zu values are more than %u",
                       gguf_path(k->gguf), hp->n_ff_shared, MODEL_DIM_MAX);
    return PH_OK;
}

static enum ph_status read_yarn(struct keys *k, struct rope_params *p)
{
    enum ph_status status;
    if ((status = get_double(k, "rope.scaling.yarn_beta_fast", 0, 1e9, &p->beta_fast)) != PH_OK ||
        (status = get_double(k, "rope.scaling.yarn_beta_slow", 0, 1e9, &p->beta_slow)) != PH_OK)
        return status;
    return get_double(k, "rope.scaling.yarn_log_multiplier", 0, 1e6, &p->log_multiplier);
}

static enum ph_status read_rope(struct keys *k, const struct arch *arch, struct hparams *hp)
{
    struct rope_params *full = &hp->rope[ROPE_FULL], *windowed = &hp->rope[ROPE_WINDOWED];
    *full = (struct rope_params){.scaling = ROPE_SCALING_LINEAR,
                                 .base = 10000.0,
                                 .attn_factor = 1.0,
                                 .beta_fast = 32.0,
                                 .beta_slow = 1.0,
                                 .context_original = hp->n_context};
    double window_base = arch->window_rope_base;
    enum ph_status status;
    if ((status = get_double(k, "rope.freq_base", 1e-3, 1e15, &full->base)) != PH_OK ||
        (status = get_double(k, "rope.freq_base_swa", 1e-3, 1e15, &window_base)) != PH_OK ||
        (status = get_double(k, "rope.scale_linear", 0, 1e9, &full->factor)) != PH_OK ||
        (status = get_double(k, "rope.scaling.factor", 0, 1e9, &full->factor)) != PH_OK ||
        (status = get_double(k, "rope.scaling.attn_factor", 0, 1e6, &full->attn_factor)) != PH_OK ||
        (status = get_size(k, "rope.scaling.original_context_length", 1, UINT32_MAX,
                           &full->context_original)) != PH_OK)
        return status;
    if ((arch->keys & KEYS_YARN) && (status = read_yarn(k, full)) != PH_OK)
        return status;
    static const char *const names[] = {"none", "linear", "yarn", "longrope"};
    struct gguf_string type;
    if (gguf_get_string(k->gguf, key_name(k, "rope.scaling.type"), &type)) {
        size_t i = 0;
        while (i < 4 && !(strlen(names[i]) == type.len && memcmp(names[i], type.text, type.len) == 0))
            i++;
        if (i == 4)
            return ph_fail(k->err, PH_ERR_UNSUPPORTED,
                           "%s: %s \"%.*s\" is none of none, linear, yarn, longrope", gguf_path(k->gguf),
                           k->key, (int)(type.len < 40 ? type.len : 40), type.text);
        full->scaling = (enum rope_scaling)i;
    }
    *windowed = *full;
    if (window_base > 0)
        windowed->base = window_base;
    if (arch->traits & TRAIT_PLAIN_WINDOW) {
        windowed->scaling = ROPE_SCALING_NONE;
        windowed->attn_factor = 1.0;
    }
    return PH_OK;
}

/* Sets each layer's window: by a period, or by an array of booleans in the file. */
static enum ph_status derive_windows(struct keys *k, struct model *model)
{
    const struct arch *arch = model->arch;
    struct hparams *hp = &model->hp;
    size_t period = arch->window_period;
    struct gguf_array array = {0};
    if (period == 0)
        hp->window = 0;
    else if (hp->window == 0)
        hp->window = arch->window_default;
    if (hp->window == 0) {
        if (period != 0 && !(arch->traits & TRAIT_WINDOW_OPTIONAL))
            return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is missing", gguf_path(k->gguf),
                           key_name(k, "attention.sliding_window"));
        return PH_OK;
    }
    bool listed = gguf_get_array(k->gguf, key_name(k, "attention.sliding_window_pattern"), &array);
    if (listed && (array.count < hp->n_layer || array.type == GGUF_STRING))
        return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s does not say it for all %zu layers", gguf_path(k->gguf),
                       k->key, hp->n_layer);
    if (!listed) {
        enum ph_status status = get_size(k, "attention.sliding_window_pattern", 0, MODEL_LAYERS_MAX, &period);
        if (status != PH_OK)
            return status;
    }
    for (size_t i = 0; i < hp->n_layer; i++) {
        bool windowed = listed ? gguf_array_number(&array, i) != 0 : period == 0 || i % period < period - 1;
        model->layers[i].window = windowed ? hp->window : 0;
        model->layers[i].rope = windowed ? ROPE_WINDOWED : ROPE_FULL;
    }
    return PH_OK;
}

static enum ph_status read_layer(struct keys *k, struct model *model, size_t index)
{
    struct hparams *hp = &model->hp;
    struct model_layer *layer = &model->layers[index];
    enum ph_status status;
    *layer = (struct model_layer){.traits = model->arch->traits};
    if ((status = get_layer_size(k, "attention.head_count", index, 1, MODEL_HEADS_MAX, &layer->n_head)) !=
        PH_OK)
        return status;
    if (layer->n_head == 0)
        return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s is missing", gguf_path(k->gguf), k->key);
    layer->n_head_kv = layer->n_head;
    if ((status = get_layer_size(k, "attention.head_count_kv", index, 1, MODEL_HEADS_MAX,
                                 &layer->n_head_kv)) != PH_OK)
        return status;
    if (layer->n_head % layer->n_head_kv != 0)
        return ph_fail(k->err, PH_ERR_FORMAT,
                       "%s: layer %zu: %zu heads cannot share %zu key-value heads evenly", gguf_path(k->gguf),
                       index, layer->n_head, layer->n_head_kv);
    if ((status = get_layer_size(k, "feed_forward_length", index, 0, MODEL_DIM_MAX, &layer->n_ff)) != PH_OK)
        return status;
    if (index == 0 && (status = derive_heads(k, hp, layer->n_head)) != PH_OK)
        return status;
    if (layer->n_head * (hp->head_dim_k > hp->head_dim_v ? hp->head_dim_k : hp->head_dim_v) > MODEL_DIM_MAX)
        return ph_fail(k->err, PH_ERR_LIMIT, "%s: layer %zu: %zu heads of %zu values are more than %u",
                       gguf_path(k->gguf), index, layer->n_head, hp->head_dim_k, MODEL_DIM_MAX);
    if (hp->n_expert > 0 && index >= hp->n_layer_dense)
        layer->traits |= FACT_MOE;
    else if (layer->n_ff == 0)
        return ph_fail(k->err, PH_ERR_FORMAT, "%s: %s.feed_forward_length is missing or 0 for layer %zu",
                       gguf_path(k->gguf), k->prefix, index);
    return PH_OK;
}

static void derive_scales(const struct arch *arch, struct hparams *hp, size_t n_head, bool wide)
{
    if (hp->attention_scale == 0.0f)
        hp->attention_scale = 1.0f / sqrtf(wide ? (float)(hp->n_embd / n_head) : (float)hp->head_dim_k);
    if (arch->traits & TRAIT_EMBED_ROOT)
        hp->embedding_scale = sqrtf((float)hp->n_embd);
    if (hp->embedding_scale == 0.0f)
        hp->embedding_scale = 1.0f;
    if (hp->residual_scale == 0.0f)
        hp->residual_scale = 1.0f;
    if (hp->logit_scale == 0.0f)
        hp->logit_scale = 1.0f;
    else if (arch->traits & TRAIT_LOGIT_DIVIDE)
        hp->logit_scale = 1.0f / hp->logit_scale;
}

static void derive_rotary(struct keys *k, struct model *model)
{
    const struct arch *arch = model->arch;
    bool on = true;
    if (arch->traits & TRAIT_ROPE_SWITCH)
        gguf_get_bool(k->gguf, key_name(k, "rope.scaling.finetuned"), &on);
    for (size_t i = 0; i < model->hp.n_layer; i++) {
        struct model_layer *layer = &model->layers[i];
        bool skipped = arch->no_rope_period && (i + 1) % arch->no_rope_period == 0;
        bool full = (arch->traits & TRAIT_ROPE_WINDOWED) && layer->window == 0;
        layer->rotary = model->hp.rope_dims > 0 && on && !skipped && !full;
    }
}

/* What is particular to encoders. A file that does not say how tokens become one vector means the mean. */
static enum ph_status read_encoder(struct keys *k, struct model *model)
{
    static const char *const names[] = {"none", "mean", "cls", "last", "rank"};
    struct hparams *hp = &model->hp;
    bool causal = false;
    uint64_t types = 0;
    size_t pooling = POOLING_MEAN;
    if (model->arch->traits & TRAIT_POSITIONS)
        hp->rope_dims = 0;
    if (hp->n_expert > 0)
        return ph_fail(k->err, PH_ERR_UNSUPPORTED, "%s: %s models with experts are not known",
                       gguf_path(k->gguf), k->prefix);
    if (gguf_get_bool(k->gguf, key_name(k, "attention.causal"), &causal) && causal)
        return ph_fail(k->err, PH_ERR_UNSUPPORTED, "%s: %s is true, an encoder looks in both directions",
                       gguf_path(k->gguf), k->key);
    enum ph_status status = get_size(k, "pooling_type", POOLING_NONE, POOLING_RANK, &pooling);
    if (status != PH_OK)
        return status;
    if (pooling == POOLING_RANK)
        return ph_fail(k->err, PH_ERR_UNSUPPORTED,
                       "%s: its pooling is \"%s\": it ranks pairs of texts and makes no embeddings",
                       gguf_path(k->gguf), names[pooling]);
    hp->pooling = pooling == POOLING_NONE ? POOLING_MEAN : (enum pooling)pooling;
    model->info.pooling = names[hp->pooling];
    const struct gguf_tensor *table = gguf_tensor_find(k->gguf, "token_types.weight");
    if (!gguf_get_uint(k->gguf, "tokenizer.ggml.token_type_count", &types) && table)
        types = table->dims[1];
    hp->n_types = types < MODEL_DIM_MAX ? (size_t)types : MODEL_DIM_MAX;
    return PH_OK;
}

enum ph_status arch_read(struct model *model, struct ph_err *err)
{
    struct hparams *hp = &model->hp;
    const struct arch *arch = model->arch;
    struct keys keys = {.gguf = model->gguf, .prefix = arch->name, .err = err};
    enum ph_status status;
    if ((status = read_sizes(&keys, hp)) != PH_OK)
        return status;
    if ((status = read_floats(&keys, arch, hp)) != PH_OK ||
        (status = derive_experts(&keys, arch, hp)) != PH_OK)
        return status;
    model->layers = arena_calloc(&model->arena, hp->n_layer, sizeof *model->layers);
    if (!model->layers)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for %zu layers", gguf_path(model->gguf),
                       hp->n_layer);
    for (size_t i = 0; i < hp->n_layer; i++)
        if ((status = read_layer(&keys, model, i)) != PH_OK)
            return status;
    size_t n_head = model->layers[0].n_head;
    if ((status = derive_expert_widths(&keys, arch, hp, model->layers[0].n_ff)) != PH_OK ||
        (status = read_rope(&keys, arch, hp)) != PH_OK || (status = derive_windows(&keys, model)) != PH_OK)
        return status;
    derive_scales(arch, hp, n_head, arch->wide_scale_layers != 0 && arch->wide_scale_layers == hp->n_layer);
    if (model_is_encoder(model) && (status = read_encoder(&keys, model)) != PH_OK)
        return status;
    derive_rotary(&keys, model);
    return PH_OK;
}
