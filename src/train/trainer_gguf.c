/* Model files: beginning from one, and writing one.
 *
 * The decoder's slices carry GGUF's names and shapes, and "llama" keeps q and k in the order of interleaved
 * rotary pairs, which is the decoder's own: so both ways are a walk over decoder_params. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "train/trainer_int.h"

#define ARCHITECTURE "llama"

/* ---- Beginning from a model */

static enum ph_status get_size(const struct gguf *gguf, const char *key, size_t *out, struct ph_err *err)
{
    uint64_t value;
    if (!gguf_get_uint(gguf, key, &value) || value == 0 || value > UINT32_MAX)
        return ph_fail(err, PH_ERR_FORMAT, "%s: %s is missing or is no size", gguf_path(gguf), key);
    *out = (size_t)value;
    return PH_OK;
}

static enum ph_status unsupported(const struct gguf *gguf, const char *what, struct ph_err *err)
{
    return ph_fail(err, PH_ERR_UNSUPPORTED, "%s: %s, which can't be trained here", gguf_path(gguf), what);
}

/* What the decoder has no place for. */
static enum ph_status check_trainable(const struct gguf *gguf, struct ph_err *err)
{
    struct gguf_string text;
    uint64_t value;
    double factor;
    if (!gguf_get_string(gguf, "general.architecture", &text) || text.len != strlen(ARCHITECTURE) ||
        memcmp(text.text, ARCHITECTURE, text.len) != 0)
        return unsupported(gguf, "its architecture is not " ARCHITECTURE, err);
    if (gguf_get_string(gguf, "llama.rope.scaling.type", &text) &&
        !(text.len == 4 && memcmp(text.text, "none", 4) == 0))
        return unsupported(gguf, "its positions are scaled", err);
    if (gguf_get_float(gguf, "llama.rope.scale_linear", &factor) && factor > 0 && !(factor == 1))
        return unsupported(gguf, "its positions are scaled", err);
    if (gguf_get_uint(gguf, "llama.expert_count", &value) && value > 0)
        return unsupported(gguf, "it is a mixture of experts", err);
    return PH_OK;
}

/* A head's width: embedding length / heads where no key says otherwise; all keys that do must agree. */
static enum ph_status get_head_dim(const struct gguf *gguf, const struct decoder_config *c, size_t *out,
                                   struct ph_err *err)
{
    static const char *const keys[] = {"llama.attention.key_length", "llama.attention.value_length",
                                       "llama.rope.dimension_count"};
    uint64_t value;
    *out = c->d / c->heads;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!gguf_get_uint(gguf, keys[i], &value))
            continue;
        if (i == 0)
            *out = (size_t)value;
        else if (value != *out)
            return unsupported(gguf, "keys, values and rotation of its heads differ in width", err);
    }
    return PH_OK;
}

/* What was asked for must be what the file has. */
static enum ph_status adopt(const struct gguf *gguf, const char *name, size_t *asked, size_t has,
                            struct ph_err *err)
{
    if (*asked != 0 && *asked != has)
        return ph_fail(err, PH_ERR_ARG, "%s is given as %zu, but %s has %zu; leave it out", name, *asked,
                       gguf_path(gguf), has);
    *asked = has;
    return PH_OK;
}

enum ph_status import_config(const struct gguf *gguf, struct decoder_config *c, struct ph_err *err)
{
    struct decoder_config has = {0};
    const struct {
        const char *name, *key;
        size_t *asked, *has;
    } sizes[] = {{"d", "llama.embedding_length", &c->d, &has.d},
                 {"layers", "llama.block_count", &c->layers, &has.layers},
                 {"heads", "llama.attention.head_count", &c->heads, &has.heads},
                 {"ff", "llama.feed_forward_length", &c->ff, &has.ff},
                 {"kv_heads", "llama.attention.head_count_kv", &c->kv_heads, &has.kv_heads},
                 {"context", "llama.context_length", NULL, &has.context}};
    double value;
    enum ph_status status = check_trainable(gguf, err);
    for (size_t i = 0; status == PH_OK && i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i].has == &has.kv_heads && !gguf_has(gguf, sizes[i].key))
            has.kv_heads = has.heads;
        else
            status = get_size(gguf, sizes[i].key, sizes[i].has, err);
        if (status == PH_OK && sizes[i].asked)
            status = adopt(gguf, sizes[i].name, sizes[i].asked, *sizes[i].has, err);
    }
    if (status == PH_OK)
        status = get_head_dim(gguf, c, &has.head_dim, err);
    if (status == PH_OK)
        status = adopt(gguf, "head_dim", &c->head_dim, has.head_dim, err);
    if (status != PH_OK)
        return status;
    if (c->context == 0)
        c->context = has.context;
    if (!(c->rope_base > 0) && gguf_get_float(gguf, "llama.rope.freq_base", &value))
        c->rope_base = value;
    if (gguf_get_float(gguf, "llama.attention.layer_norm_rms_epsilon", &value))
        c->norm_eps = (float)value;
    c->tied = gguf_tensor_find(gguf, "output.weight") == NULL;
    return PH_OK;
}

static enum ph_status read_param(const struct gguf *gguf, const struct param *p, float *w, struct ph_err *err)
{
    const struct gguf_tensor *t = gguf_tensor_find(gguf, p->name);
    if (!t)
        return ph_fail(err, PH_ERR_FORMAT, "%s: tensor '%s' is missing", gguf_path(gguf), p->name);
    if (t->dims[0] != p->cols || t->dims[1] != p->rows || t->dims[2] != 1 || t->dims[3] != 1)
        return ph_fail(err, PH_ERR_FORMAT,
                       "%s: tensor '%s' is %" PRIu64 " x %" PRIu64 ", not %zu x %zu as its keys say",
                       gguf_path(gguf), p->name, t->dims[1], t->dims[0], p->rows, p->cols);
    tensor_dequantize(t->type, t->data, w, p->rows * p->cols);
    return PH_OK;
}

enum ph_status import_weights(const struct gguf *gguf, struct decoder *decoder, struct ph_err *err)
{
    size_t count;
    const struct param *params = decoder_params(decoder, &count);
    for (size_t i = 0; i < count; i++) {
        enum ph_status status =
            read_param(gguf, &params[i], decoder_weights(decoder) + params[i].offset, err);
        if (status != PH_OK)
            return status;
    }
    if (gguf_tensor_count(gguf) != count)
        return unsupported(gguf, "it has tensors that " ARCHITECTURE " models have not", err);
    return PH_OK;
}

/* ---- Writing a model */

static bool is_copied(const struct trainer *t, const char *key)
{
    return strncmp(key, "tokenizer.", 10) == 0 || (t->from_init && strncmp(key, "general.", 8) == 0);
}

static void set_text(struct gguf_writer *w, const char *key, const char *text)
{
    gguf_writer_set_string(w, key, text, strlen(text));
}

static void set_keys(struct gguf_writer *w, const struct trainer *t, const char *name)
{
    const struct decoder_config *c = &t->params.model;
    for (size_t i = 0; i < gguf_key_count(t->gguf); i++) {
        enum gguf_type type;
        const char *key = gguf_key(t->gguf, i, &type);
        if (is_copied(t, key))
            gguf_writer_copy_key(w, t->gguf, key);
    }
    set_text(w, "general.architecture", ARCHITECTURE);
    set_text(w, "general.type", "model");
    set_text(w, "general.name", name);
    gguf_writer_set_uint(w, "general.file_type", 0);
    gguf_writer_set_uint(w, "llama.vocab_size", (uint32_t)c->vocab);
    gguf_writer_set_uint(w, "llama.context_length", (uint32_t)c->context);
    gguf_writer_set_uint(w, "llama.embedding_length", (uint32_t)c->d);
    gguf_writer_set_uint(w, "llama.block_count", (uint32_t)c->layers);
    gguf_writer_set_uint(w, "llama.feed_forward_length", (uint32_t)c->ff);
    gguf_writer_set_uint(w, "llama.attention.head_count", (uint32_t)c->heads);
    gguf_writer_set_uint(w, "llama.attention.head_count_kv", (uint32_t)c->kv_heads);
    gguf_writer_set_float(w, "llama.attention.layer_norm_rms_epsilon", c->norm_eps);
    gguf_writer_set_uint(w, "llama.attention.key_length", (uint32_t)c->head_dim);
    gguf_writer_set_uint(w, "llama.attention.value_length", (uint32_t)c->head_dim);
    gguf_writer_set_uint(w, "llama.rope.dimension_count", (uint32_t)c->head_dim);
    gguf_writer_set_float(w, "llama.rope.freq_base", (float)c->rope_base);
}

enum ph_status trainer_export(struct trainer *t, const char *path, const char *name, struct ph_err *err)
{
    struct gguf_writer *w;
    size_t count;
    const struct param *params = decoder_params(t->decoder, &count);
    enum ph_status status = gguf_writer_open(&w, path, err);
    if (status != PH_OK)
        return status;
    set_keys(w, t, name);
    for (size_t i = 0; i < count; i++) {
        const uint64_t dims[2] = {params[i].cols, params[i].rows};
        gguf_writer_describe(w, params[i].name, TENSOR_F32, params[i].rows > 1 ? 2 : 1, dims);
    }
    for (size_t i = 0; i < count; i++)
        gguf_writer_data(w, decoder_weights(t->decoder) + params[i].offset,
                         params[i].rows * params[i].cols * sizeof(float));
    return gguf_writer_close(w, err);
}

/* By way of a file of floats beside it: whoever looks at `path` finds the old model or the new one. */
enum ph_status trainer_export_as(struct trainer *t, const char *path, const char *name,
                                 const struct mixture *type, struct ph_err *err)
{
    char floats[PATH_BYTES_MAX];
    struct quantize_result ignored;
    if (!type || type->main == TENSOR_F32)
        return trainer_export(t, path, name, err);
    if (snprintf(floats, sizeof floats, "%s.f32", path) >= (int)sizeof floats)
        return ph_fail(err, PH_ERR_LIMIT, "%.100s...: the path is too long", path);
    enum ph_status status = trainer_export(t, floats, name, err);
    const struct quantize_job job = {
        .in = floats, .out = path, .mixture = type, .threads = pool_lanes(t->pool)};
    if (status == PH_OK)
        status = gguf_quantize(&job, &ignored, err);
    (void)remove(floats);
    return status;
}
