/* A model as a list of tensors with their bytes: read from a file, or made from a named shape by the same
 * mixture rules that `pharos quantize` writes files by. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/limits.h"
#include "ops/estimate_int.h"

/* What GPU engines call their formats: so many bits a weight, whatever scales cost is noise. */
struct plain_type {
    const char *name;
    unsigned bits;
};
static const struct plain_type plain_types[] = {{"FP8", 8}, {"INT8", 8}, {"INT4", 4}};
#define PLAIN_COUNT (sizeof plain_types / sizeof *plain_types)

const char *estimate_type_name(size_t index)
{
    if (index < PLAIN_COUNT)
        return plain_types[index].name;
    const struct mixture *mixture = mixture_at(index - PLAIN_COUNT);
    return mixture ? mixture->name : NULL;
}

static void add_up(struct estimate_model *m)
{
    m->params = m->bytes = 0;
    for (size_t i = 0; i < m->tensor_count; i++) {
        m->params += m->tensors[i].params;
        m->bytes += m->tensors[i].bytes;
    }
}

/* ---- From a file */

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* Of a tensor of a layer: keys and values are made of every row, what comes behind them of wanted ones. */
static bool part_is_late(const char *part)
{
    static const char *const early[] = {"attn_q", "attn_k", "attn_v", "attn_norm"};
    for (size_t i = 0; i < sizeof early / sizeof *early; i++)
        if (begins(part, early[i]))
            return false;
    return true;
}

static void describe(const struct gguf_tensor *t, bool tied, struct estimate_tensor *out)
{
    const char *part = t->name;
    size_t layer = 0;
    bool in_layer = begins(part, "blk.");
    if (in_layer) {
        for (part += 4; *part >= '0' && *part <= '9' && layer < MODEL_LAYERS_MAX; part++)
            layer = layer * 10 + (size_t)(*part - '0');
        part += *part == '.';
    }
    bool matrix = quantize_is_matrix(t) || begins(part, "ffn_gate_inp.");
    *out = (struct estimate_tensor){
        .type = tensor_format((uint32_t)t->type)->name,
        .layer = layer,
        .params = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3],
        .bytes = t->bytes,
    };
    if (in_layer) {
        out->place = !matrix ? ESTIMATE_VECTOR : strstr(part, "_exps.") ? ESTIMATE_EXPERTS : ESTIMATE_MATRIX;
        out->is_late = part_is_late(part);
    } else if (begins(part, "token_embd.")) {
        out->place = tied ? ESTIMATE_OUTPUT : ESTIMATE_EMBED;
    } else {
        out->place = begins(part, "output.weight") ? ESTIMATE_OUTPUT : ESTIMATE_VECTOR;
    }
}

/* "Q4_K_M" by the file's own number, else the format of most bytes. */
static void name_type(struct estimate_model *m, const struct gguf *gguf)
{
    uint64_t file_type, best = 0;
    bool said = gguf_get_uint(gguf, "general.file_type", &file_type);
    const char *name = "mixed";
    for (size_t i = 0; i < m->tensor_count; i++) {
        uint64_t bytes = 0;
        for (size_t k = 0; k < m->tensor_count; k++)
            bytes += m->tensors[k].type == m->tensors[i].type ? m->tensors[k].bytes : 0;
        if (bytes > best) {
            best = bytes;
            name = m->tensors[i].type;
        }
    }
    const struct mixture *mixture;
    for (size_t i = 0; said && (mixture = mixture_at(i)); i++)
        if (mixture->file_type == file_type && strncmp(mixture->name, name, 2) == 0)
            name = mixture->name;
    snprintf(m->type, sizeof m->type, "%s", name);
}

static enum ph_status read_layers(struct estimate_model *m, struct arena *arena, const struct model *model,
                                  struct ph_err *err)
{
    const struct gguf *gguf = model_gguf(model);
    m->layer_count = model_info(model)->n_layer;
    m->tensor_count = gguf_tensor_count(gguf);
    m->layers = arena_calloc(arena, m->layer_count, sizeof *m->layers);
    m->tensors = arena_calloc(arena, m->tensor_count, sizeof *m->tensors);
    if (!m->layers || !m->tensors)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for its description", gguf_path(gguf));
    for (size_t i = 0; i < m->layer_count; i++) {
        struct estimate_layer *l = &m->layers[i];
        model_attention(model, i, &l->heads, &l->heads_kv, &l->window);
    }
    m->tied = !gguf_tensor_find(gguf, "output.weight");
    for (size_t i = 0; i < m->tensor_count; i++)
        describe(gguf_tensor_at(gguf, i), m->tied, &m->tensors[i]);
    name_type(m, gguf);
    add_up(m);
    return PH_OK;
}

enum ph_status estimate_model_file(struct estimate_model *out, struct arena *arena, const char *path,
                                   struct ph_err *err)
{
    struct model *model;
    *out = (struct estimate_model){0};
    if (model_file_is_encoder(path))
        return ph_fail(err, PH_ERR_UNSUPPORTED,
                       "%s is an embedding model, which writes no text: only language "
                       "models are estimated",
                       path);
    enum ph_status status = model_open(&model, path, false, err);
    if (status != PH_OK)
        return status;
    const struct model_info *info = model_info(model);
    snprintf(out->name, sizeof out->name, "%s", info->name);
    out->context_train = info->n_context_train;
    out->file_bytes = gguf_file_bytes(model_gguf(model));
    model_widths(model, &out->widths);
    status = read_layers(out, arena, model, err);
    model_free(model);
    return status;
}

/* ---- From a shape */

struct maker {
    struct estimate_model *model;
    const struct shape *shape;
    const struct mixture *mixture; /* or */
    const struct plain_type *plain;
    size_t cap;
};

static enum ph_status find_type(struct maker *k, const char *name, struct ph_err *err)
{
    for (size_t i = 0; i < PLAIN_COUNT; i++)
        if (strcasecmp(plain_types[i].name, name) == 0)
            k->plain = &plain_types[i];
    const struct mixture *mixture;
    for (size_t i = 0; (mixture = mixture_at(i)) != NULL; i++)
        if (strcasecmp(mixture->name, name) == 0)
            k->mixture = mixture;
    if (k->plain || k->mixture)
        return PH_OK;
    char known[PH_ERR_MESSAGE_MAX - 100];
    size_t len = 0;
    const char *each;
    for (size_t i = 0; (each = estimate_type_name(i)) && len < sizeof known; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", each);
    return ph_fail(err, PH_ERR_ARG, "--type \"%.30s\" is none of %s", name, known);
}

static struct estimate_tensor *add(struct maker *k, enum estimate_place place, size_t layer, const char *part)
{
    struct estimate_tensor *t = &k->model->tensors[k->model->tensor_count++];
    *t = (struct estimate_tensor){.place = place, .layer = layer, .is_late = part_is_late(part)};
    return t;
}

static void vector(struct maker *k, size_t layer, const char *part, int64_t len)
{
    struct estimate_tensor *t = add(k, ESTIMATE_VECTOR, layer, part);
    t->type = "F32";
    t->params = (uint64_t)len;
    t->bytes = 4 * t->params;
}

static void matrix(struct maker *k, enum estimate_place place, size_t layer, const char *part, int64_t cols,
                   int64_t rows)
{
    struct estimate_tensor *t = add(k, place, layer, part);
    bool is_end = place == ESTIMATE_EMBED || place == ESTIMATE_OUTPUT;
    t->params = (uint64_t)(cols * rows);
    if (strcmp(part, "ffn_gate_inp") == 0) { /* routers are delicate and stay */
        t->type = "F32";
        t->bytes = 4 * t->params;
        return;
    }
    if (k->plain && !is_end) {
        t->type = k->plain->name;
        t->bytes = t->params * k->plain->bits / 8;
        return;
    }
    enum tensor_type type =
        k->plain ? TENSOR_F16
                 : quantize_fitting(mixture_type(k->mixture, part, layer, (size_t)k->shape->layers),
                                    (uint64_t)cols);
    t->type = tensor_format((uint32_t)type)->name;
    t->bytes = (uint64_t)rows * tensor_row_bytes(type, (size_t)cols);
}

static void attention(struct maker *k, size_t i)
{
    const struct shape *s = k->shape;
    int64_t d = s->width, q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    if (s->fused) {
        matrix(k, ESTIMATE_MATRIX, i, "attn_qkv", d, q + 2 * kv);
    } else {
        matrix(k, ESTIMATE_MATRIX, i, "attn_q", d, q);
        matrix(k, ESTIMATE_MATRIX, i, "attn_k", d, kv);
        matrix(k, ESTIMATE_MATRIX, i, "attn_v", d, kv);
    }
    matrix(k, ESTIMATE_MATRIX, i, "attn_output", q, d);
    if (s->qkv_bias || s->biases)
        vector(k, i, "attn_qkv_bias", q + 2 * kv);
    if (s->qk_norm)
        vector(k, i, "attn_qk_norm", 2 * s->head_dim);
}

static void feed_forward(struct maker *k, size_t i)
{
    const struct shape *s = k->shape;
    int64_t d = s->width, e = s->experts;
    if (e) {
        matrix(k, ESTIMATE_MATRIX, i, "ffn_gate_inp", d, e);
        matrix(k, ESTIMATE_EXPERTS, i, "ffn_gate_exps", d, s->expert_ffn * e);
        matrix(k, ESTIMATE_EXPERTS, i, "ffn_up_exps", d, s->expert_ffn * e);
        matrix(k, ESTIMATE_EXPERTS, i, "ffn_down_exps", s->expert_ffn, d * e);
    } else if (s->fused) {
        matrix(k, ESTIMATE_MATRIX, i, "ffn_up", d, 2 * s->ffn);
        matrix(k, ESTIMATE_MATRIX, i, "ffn_down", s->ffn, d);
    } else {
        if (!s->plain)
            matrix(k, ESTIMATE_MATRIX, i, "ffn_gate", d, s->ffn);
        matrix(k, ESTIMATE_MATRIX, i, "ffn_up", d, s->ffn);
        matrix(k, ESTIMATE_MATRIX, i, "ffn_down", s->ffn, d);
    }
    if (s->biases)
        vector(k, i, "ffn_bias", 2 * d + s->ffn); /* attention's output, both of the feed-forward part */
}

static void tensors(struct maker *k)
{
    const struct shape *s = k->shape;
    int64_t norm = s->biases ? 2 * s->width : s->width, norms = s->norms ? s->norms : 2;
    if (s->tied) {
        matrix(k, ESTIMATE_OUTPUT, 0, "output", s->width, s->vocab);
    } else {
        matrix(k, ESTIMATE_EMBED, 0, "token_embd", s->width, s->vocab);
        matrix(k, ESTIMATE_OUTPUT, 0, "output", s->width, s->vocab);
    }
    for (size_t i = 0; i < (size_t)s->layers; i++) {
        vector(k, i, "norms", norm * norms);
        attention(k, i);
        feed_forward(k, i);
    }
    vector(k, 0, "output_norm", norm);
    if (s->biases)
        vector(k, 0, "output_bias", s->vocab);
}

static void widths(const struct shape *s, struct runner_widths *w)
{
    size_t q = (size_t)(s->heads * s->head_dim), kv = (size_t)(s->kv_heads * s->head_dim);
    size_t ffn = s->experts ? 0 : (size_t)s->ffn;
    *w = (struct runner_widths){
        .n_embd = (size_t)s->width,
        .n_vocab = (size_t)s->vocab,
        .head_dim_k = (size_t)s->head_dim,
        .head_dim_v = (size_t)s->head_dim,
        .rope_dims = (size_t)s->head_dim,
        .kv_heads = (size_t)(s->kv_heads * s->layers),
        .qkv = q + 2 * kv,
        .attn = q,
        .gate = ffn,
        .up = s->fused ? 2 * ffn : ffn,
        .group = (size_t)(s->heads / s->kv_heads),
        .windowed = s->window > 0,
        .n_expert = (size_t)s->experts,
        .n_expert_used = (size_t)s->experts_used,
        .n_ff_expert = (size_t)s->expert_ffn,
    };
}

#define LAYER_TENSORS_MAX 16
#define OTHER_TENSORS_MAX 8

enum ph_status estimate_model_shape(struct estimate_model *out, struct arena *arena,
                                    const struct estimate_data *data, const char *name, const char *type,
                                    struct ph_err *err)
{
    struct maker k = {.model = out, .shape = shape_find(data, name)};
    const struct shape *s = k.shape;
    *out = (struct estimate_model){0};
    if (!s) {
        char known[PH_ERR_MESSAGE_MAX - 170];
        shape_list(data, known, sizeof known);
        return ph_fail(err, PH_ERR_NOTFOUND,
                       "no file and no shape is named \"%.60s\": add it with --shapes, or name one "
                       "of %s",
                       name, known);
    }
    enum ph_status status = find_type(&k, type, err);
    if (status != PH_OK)
        return status;
    snprintf(out->name, sizeof out->name, "%s", s->name);
    snprintf(out->type, sizeof out->type, "%s", k.plain ? k.plain->name : k.mixture->name);
    out->layer_count = (size_t)s->layers;
    out->layers = arena_calloc(arena, out->layer_count, sizeof *out->layers);
    out->tensors =
        arena_calloc(arena, out->layer_count * LAYER_TENSORS_MAX + OTHER_TENSORS_MAX, sizeof *out->tensors);
    if (!out->layers || !out->tensors)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the shape of %s", s->name);
    for (size_t i = 0; i < out->layer_count; i++) {
        bool windowed = s->window && (!s->window_period || s->window_period == 1 ||
                                      (i + 1) % (size_t)s->window_period != 0);
        out->layers[i] =
            (struct estimate_layer){(size_t)s->heads, (size_t)s->kv_heads, windowed ? (size_t)s->window : 0};
    }
    out->tied = s->tied;
    out->context_train = (size_t)s->context;
    out->published_params = (uint64_t)s->parameters;
    widths(s, &out->widths);
    tensors(&k);
    add_up(out);
    return PH_OK;
}
