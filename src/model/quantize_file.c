/* Quantising a file: every matrix becomes the format that a mixture (or the caller) names for its place,
 * everything else is copied. Rows go through memory a few megabytes at a time and are shared out over
 * lanes, so a model of any size needs little; the output takes its place only when it is whole.
 *
 * Mixtures are llama.cpp's (its llama-quantize), as data: which places get more bits than the rest. Where a
 * row is no multiple of a format's block, the next larger format with blocks of 32 takes over, else F16. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "model/model.h"

#define CHUNK_FLOATS ((size_t)1 << 20)
#define QUANTIZATION_VERSION 2 /* of the block layouts; ggml's GGML_QNT_VERSION */

static const struct mixture mixtures[] = {
    {"F32", 0, TENSOR_F32, TENSOR_F32, TENSOR_F32, TENSOR_F32, TENSOR_F32, false, 0},
    {"F16", 1, TENSOR_F16, TENSOR_F16, TENSOR_F16, TENSOR_F16, TENSOR_F16, false, 0},
    {"BF16", 32, TENSOR_BF16, TENSOR_BF16, TENSOR_BF16, TENSOR_BF16, TENSOR_BF16, false, 0},
    {"Q8_0", 7, TENSOR_Q8_0, TENSOR_Q8_0, TENSOR_Q8_0, TENSOR_Q8_0, TENSOR_Q8_0, false, 0},
    {"Q4_0", 2, TENSOR_Q4_0, TENSOR_Q4_0, TENSOR_Q4_0, TENSOR_Q4_0, TENSOR_Q6_K, false, 0},
    {"Q4_1", 3, TENSOR_Q4_1, TENSOR_Q4_1, TENSOR_Q4_1, TENSOR_Q4_1, TENSOR_Q6_K, false, 0},
    {"Q5_0", 8, TENSOR_Q5_0, TENSOR_Q5_0, TENSOR_Q5_0, TENSOR_Q5_0, TENSOR_Q6_K, false, 0},
    {"Q5_1", 9, TENSOR_Q5_1, TENSOR_Q5_1, TENSOR_Q5_1, TENSOR_Q5_1, TENSOR_Q6_K, false, 0},
    {"Q2_K", 10, TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q3_K, TENSOR_Q2_K, TENSOR_Q6_K, true, 0},
    {"Q3_K_M", 12, TENSOR_Q3_K, TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q3_K, TENSOR_Q6_K, true, TENSOR_Q5_K},
    {"Q4_K_M", 15, TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q6_K, false, 0},
    {"Q5_K_M", 17, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_Q5_K, TENSOR_Q5_K, TENSOR_Q6_K, false, 0},
    {"Q6_K", 18, TENSOR_Q6_K, TENSOR_Q6_K, TENSOR_Q6_K, TENSOR_Q6_K, TENSOR_Q6_K, false, 0},
    {"IQ4_NL", 25, TENSOR_IQ4_NL, TENSOR_IQ4_NL, TENSOR_IQ4_NL, TENSOR_IQ4_NL, TENSOR_Q6_K, false, 0},
    {"IQ4_XS", 30, TENSOR_IQ4_XS, TENSOR_IQ4_XS, TENSOR_IQ4_XS, TENSOR_IQ4_XS, TENSOR_Q6_K, false, 0},
    {"MXFP4", 38, TENSOR_MXFP4, TENSOR_MXFP4, TENSOR_MXFP4, TENSOR_Q8_0, TENSOR_Q8_0, false, 0},
};

const struct mixture *mixture_at(size_t index)
{
    return index < sizeof mixtures / sizeof *mixtures ? &mixtures[index] : NULL;
}

/* ---- Which format a tensor gets */

/* The first and last eighth of the layers, and every third between. */
static bool has_more(size_t layer, size_t layers)
{
    size_t eighth = layers / 8;
    return layer < eighth || layer >= layers * 7 / 8 || (layer - eighth) % 3 == 2;
}

enum tensor_type mixture_type(const struct mixture *mixture, const char *part, size_t layer, size_t layers)
{
    if (strcmp(part, "token_embd") == 0)
        return mixture->embedding;
    if (strcmp(part, "output") == 0)
        return mixture->output;
    if (strcmp(part, "attn_output") == 0)
        return mixture->attn_output;
    bool is_value = strncmp(part, "attn_v", 6) == 0, is_down = strncmp(part, "ffn_down", 8) == 0;
    if (mixture->first && ((is_value && layer < 2) || (is_down && layer < layers / 16)))
        return mixture->first;
    if (is_value || is_down)
        return mixture->more_everywhere || has_more(layer, layers) ? mixture->more : mixture->main;
    return mixture->main;
}

/* Formats with blocks of 256, and what serves rows they do not fit. */
enum tensor_type quantize_fitting(enum tensor_type type, uint64_t cols)
{
    static const enum tensor_type narrower[][2] = {
        {TENSOR_Q2_K, TENSOR_IQ4_NL}, {TENSOR_Q3_K, TENSOR_IQ4_NL}, {TENSOR_IQ4_XS, TENSOR_IQ4_NL},
        {TENSOR_Q4_K, TENSOR_Q5_0},   {TENSOR_Q5_K, TENSOR_Q5_1},   {TENSOR_Q6_K, TENSOR_Q8_0},
    };
    for (size_t i = 0; i < sizeof narrower / sizeof *narrower; i++)
        if (narrower[i][0] == type && cols % tensor_format((uint32_t)type)->block_len != 0)
            type = narrower[i][1];
    return cols % tensor_format((uint32_t)type)->block_len == 0 ? type : TENSOR_F16;
}

/* Not what is small and delicate: norms, routers, position tables, convolutions. */
bool quantize_is_matrix(const struct gguf_tensor *t)
{
    static const char *const kept[] = {"_norm.",        "ffn_gate_inp.", "rope_",
                                       "position_embd", "token_types",   "ssm_"};
    size_t len = strlen(t->name);
    if (t->bytes == 0 || t->n_dims < 2 || len < 7 || strcmp(t->name + len - 7, ".weight") != 0)
        return false;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strstr(t->name, kept[i]))
            return false;
    return true;
}

/* "blk.12.ffn_down_exps.weight" is part "ffn_down_exps" of layer 12. */
enum tensor_type mixture_tensor_type(const struct mixture *mixture, const struct gguf *gguf,
                                     const struct gguf_tensor *t)
{
    char part[64], arch_key[96];
    size_t layer = 0;
    const char *at = t->name;
    struct gguf_string arch;
    uint64_t layers = 0;
    if (!quantize_is_matrix(t))
        return t->type;
    if (gguf_get_string(gguf, "general.architecture", &arch) && arch.len < 64) {
        snprintf(arch_key, sizeof arch_key, "%.*s.block_count", (int)arch.len, arch.text);
        (void)gguf_get_uint(gguf, arch_key, &layers);
    }
    if (strncmp(at, "blk.", 4) == 0)
        for (at += 4; *at >= '0' && *at <= '9' && layer < MODEL_LAYERS_MAX; at++)
            layer = layer * 10 + (size_t)(*at - '0');
    at += *at == '.';
    snprintf(part, sizeof part, "%.*s", (int)strcspn(at, "."), at);
    bool is_output = strcmp(part, "token_embd") == 0 && !gguf_tensor_find(gguf, "output.weight");
    return quantize_fitting(mixture_type(mixture, is_output ? "output" : part, layer, (size_t)layers),
                            t->dims[0]);
}

/* ---- Converting rows */

struct chunk {
    const struct tensor_conversion *conversion;
    size_t first, rows;
    float *rows_of_lanes; /* [lanes][cols] */
    uint8_t *out;
    atomic_bool bad; /* a number that is not finite */
};

static void convert_rows(struct lane *lane, void *ud)
{
    struct chunk *c = ud;
    const struct gguf_tensor *t = c->conversion->tensor;
    enum tensor_type type = c->conversion->type;
    size_t cols = (size_t)t->dims[0], matrix_rows = (size_t)t->dims[1], i, end;
    size_t from_bytes = tensor_row_bytes(t->type, cols), to_bytes = tensor_row_bytes(type, cols);
    float *x = c->rows_of_lanes + lane->index * cols;
    const float *weights = c->conversion->weights;
    while (lane_take(lane, c->rows, 1, &i, &end)) {
        size_t row = c->first + i;
        tensor_dequantize(t->type, (const uint8_t *)t->data + row * from_bytes, x, cols);
        for (size_t j = 0; j < cols; j++)
            if (!isfinite(x[j]))
                atomic_store_explicit(&c->bad, true, memory_order_relaxed);
        tensor_quantize_weighted(type, x, weights ? weights + row / matrix_rows * cols : NULL,
                                 c->out + i * to_bytes, cols);
    }
}

enum ph_status tensor_convert(const struct tensor_conversion *conversion, struct pool *pool, size_t first,
                              size_t rows, void *out, struct ph_err *err)
{
    const struct gguf_tensor *t = conversion->tensor;
    struct chunk c = {.conversion = conversion, .first = first, .rows = rows, .out = out};
    c.rows_of_lanes = mem_calloc(pool_lanes(pool), (size_t)t->dims[0] * sizeof *c.rows_of_lanes);
    if (!c.rows_of_lanes)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for rows of '%s'", gguf_path(conversion->gguf),
                       t->name);
    pool_run(pool, convert_rows, &c);
    mem_free(c.rows_of_lanes);
    return atomic_load(&c.bad)
               ? ph_fail(err, PH_ERR_FORMAT, "%s: tensor '%s' holds a number that is not finite",
                         gguf_path(conversion->gguf), t->name)
               : PH_OK;
}

/* ---- The work */

struct work {
    const struct quantize_job *job;
    struct gguf *gguf;
    struct gguf_writer *writer;
    struct pool *pool;
    struct quantize_result *result;
};

static enum tensor_type new_type(const struct work *w, const struct gguf_tensor *t)
{
    return w->job->choose ? w->job->choose(w->job->ud, t) : mixture_tensor_type(w->job->mixture, w->gguf, t);
}

static enum ph_status convert_chunks(struct work *w, const struct tensor_conversion *c, size_t each,
                                     uint8_t *blocks, struct ph_err *err)
{
    const struct gguf_tensor *t = c->tensor;
    size_t cols = (size_t)t->dims[0], rows = (size_t)(t->dims[1] * t->dims[2] * t->dims[3]), now;
    enum ph_status status = PH_OK;
    for (size_t first = 0; status == PH_OK && first < rows; first += now) {
        now = rows - first < each ? rows - first : each;
        status = tensor_convert(c, w->pool, first, now, blocks, err);
        gguf_writer_data(w->writer, blocks, now * tensor_row_bytes(c->type, cols));
        w->result->bytes_read += now * tensor_row_bytes(t->type, cols);
        if (status == PH_OK && w->job->progress &&
            !w->job->progress(w->job->ud, w->result->bytes_read, gguf_file_bytes(w->gguf)))
            status = ph_fail(err, PH_ERR_CANCELLED, "%s: stopped, nothing is written", w->job->out);
    }
    return status;
}

static enum ph_status convert(struct work *w, const struct gguf_tensor *t, enum tensor_type type,
                              struct ph_err *err)
{
    size_t cols = (size_t)t->dims[0], matrices = (size_t)(t->dims[2] * t->dims[3]);
    size_t rows = (size_t)t->dims[1] * matrices, most = CHUNK_FLOATS / cols + 1;
    size_t each = rows < most ? rows : most;
    struct tensor_conversion c = {.gguf = w->gguf, .tensor = t, .type = type};
    uint8_t *blocks = mem_alloc(each * tensor_row_bytes(type, cols));
    float *weights = w->job->importance ? mem_calloc(matrices * cols, sizeof *weights) : NULL;
    enum ph_status status = PH_OK;
    if (!blocks || (w->job->importance && !weights))
        status = ph_fail(err, PH_ERR_NOMEM, "%s: no memory for %zu rows of '%s'", w->job->in, each, t->name);
    else if (weights && importance_weights(w->job->importance, t, weights))
        c.weights = weights;
    if (status == PH_OK)
        status = convert_chunks(w, &c, each, blocks, err);
    w->result->weighted += c.weights != NULL;
    mem_free(blocks);
    mem_free(weights);
    return status;
}

static void copy_keys(struct work *w)
{
    for (size_t i = 0; i < gguf_key_count(w->gguf); i++) {
        enum gguf_type type;
        gguf_writer_copy_key(w->writer, w->gguf, gguf_key(w->gguf, i, &type));
    }
    gguf_writer_set_uint(w->writer, "general.file_type", w->job->mixture->file_type);
    gguf_writer_set_uint(w->writer, "general.quantization_version", QUANTIZATION_VERSION);
}

static bool is_float(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

/* Rounded once, and now to something else. F32 holds every format's numbers. */
static bool rounds_again(enum tensor_type from, enum tensor_type to)
{
    return to != from && to != TENSOR_F32 && !is_float(from);
}

static enum ph_status describe(struct work *w, struct ph_err *err)
{
    for (size_t i = 0; i < gguf_tensor_count(w->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(w->gguf, i);
        enum tensor_type type = new_type(w, t);
        if (rounds_again(t->type, type) && !w->job->again)
            return ph_fail(
                err, PH_ERR_ARG,
                "%s: '%s' is %s already, and rounding twice loses more: start from the F32, F16 or BF16 "
                "file, or say --again",
                w->job->in, t->name, tensor_format((uint32_t)t->type)->name);
        gguf_writer_describe(w->writer, t->name, type, t->n_dims, t->dims);
        *(type == t->type ? &w->result->kept : &w->result->converted) += 1;
        w->result->bytes_written +=
            tensor_row_bytes(type, (size_t)t->dims[0]) * t->dims[1] * t->dims[2] * t->dims[3];
    }
    return PH_OK;
}

static enum ph_status write_all(struct work *w, struct ph_err *err)
{
    copy_keys(w);
    enum ph_status status = describe(w, err);
    for (size_t i = 0; status == PH_OK && i < gguf_tensor_count(w->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(w->gguf, i);
        enum tensor_type type = new_type(w, t);
        if (type != t->type) {
            status = convert(w, t, type, err);
        } else {
            gguf_writer_data(w->writer, t->data, t->bytes);
            w->result->bytes_read += t->bytes;
        }
    }
    return status;
}

enum ph_status gguf_quantize(const struct quantize_job *job, struct quantize_result *result,
                             struct ph_err *err)
{
    struct work w = {.job = job, .result = result};
    *result = (struct quantize_result){0};
    enum ph_status status = gguf_open(&w.gguf, job->in, err);
    if (status == PH_OK)
        status = pool_create(&w.pool, job->threads, 0, kernels_select(NULL), err);
    if (status == PH_OK)
        status = gguf_writer_open(&w.writer, job->out, err);
    if (status == PH_OK) {
        status = write_all(&w, err);
        if (status == PH_OK)
            status = gguf_writer_close(w.writer, err);
        else
            gguf_writer_abandon(w.writer);
    }
    if (w.pool)
        pool_free(w.pool);
    gguf_free(w.gguf);
    return status;
}
