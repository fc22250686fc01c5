/* Model files: beginning from one, and writing one.
 *
 * The decoder's slices carry GGUF's names and shapes, and "llama" keeps q and k in the order of interleaved
 * rotary pairs, which is the decoder's own: so both ways are a walk over decoder_params. */
#include <inttypes.h>
#include <string.h>

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
static enum ph_status check_trainable(const struct gguf *gguf, const struct decoder_config *c,
                                      struct ph_err *err)
{
    static const char *const head_keys[] = {"llama.rope.dimension_count", "llama.attention.key_length",
                                            "llama.attention.value_length"};
    struct gguf_string text;
    uint64_t value;
    double factor;
    for (size_t i = 0; i < sizeof head_keys / sizeof *head_keys; i++)
        if (gguf_get_uint(gguf, head_keys[i], &value) && value != c->d / c->heads)
            return unsupported(gguf, "its heads are not as wide as embedding length / heads", err);
    if (gguf_get_string(gguf, "llama.rope.scaling.type", &text) &&
        !(text.len == 4 && memcmp(text.text, "none", 4) == 0))
        return unsupported(gguf, "its positions are scaled", err);
    if (gguf_get_float(gguf, "llama.rope.scale_linear", &factor) && factor > 0 && !(factor == 1))
        return unsupported(gguf, "its positions are scaled", err);
    if (gguf_get_uint(gguf, "llama.expert_count", &value) && value > 0)
        return unsupported(gguf, "it is a mixture of experts", err);
    return PH_OK;
}

enum ph_status import_config(const struct gguf *gguf, struct decoder_config *c, struct ph_err *err)
{
    const struct {
        const char *key;
        size_t *out;
    } sizes[] = {{"llama.embedding_length", &c->d},
                 {"llama.block_count", &c->layers},
                 {"llama.attention.head_count", &c->heads},
                 {"llama.feed_forward_length", &c->ff},
                 {"llama.context_length", &c->context}};
    struct gguf_string architecture;
    double value;
    if (!gguf_get_string(gguf, "general.architecture", &architecture) ||
        architecture.len != strlen(ARCHITECTURE) ||
        memcmp(architecture.text, ARCHITECTURE, architecture.len) != 0)
        return unsupported(gguf, "its architecture is not " ARCHITECTURE, err);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        enum ph_status status = get_size(gguf, sizes[i].key, sizes[i].out, err);
        if (status != PH_OK)
            return status;
    }
    c->kv_heads = c->heads;
    if (gguf_has(gguf, "llama.attention.head_count_kv")) {
        enum ph_status status = get_size(gguf, "llama.attention.head_count_kv", &c->kv_heads, err);
        if (status != PH_OK)
            return status;
    }
    c->rope_base = gguf_get_float(gguf, "llama.rope.freq_base", &value) ? value : 10000;
    if (gguf_get_float(gguf, "llama.attention.layer_norm_rms_epsilon", &value))
        c->norm_eps = (float)value;
    c->tied = gguf_tensor_find(gguf, "output.weight") == NULL;
    c->rope_neox = false;
    return check_trainable(gguf, c, err);
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
    gguf_writer_set_uint(w, "llama.rope.dimension_count", (uint32_t)(c->d / c->heads));
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
