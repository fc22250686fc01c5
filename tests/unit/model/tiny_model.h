/* Small random models in GGUF files, made by the test that needs them: llama with or without experts. One
 * key or one tensor may be spoilt. */
#ifndef PHAROS_TESTS_TINY_MODEL_H
#define PHAROS_TESTS_TINY_MODEL_H

#include <math.h>

#include "base/clock.h"
#include "model/model.h"
#include "test_support.h"

#define TINY_VOCAB 64
#define TINY_EMBD 64
#define TINY_HEADS 4
#define TINY_HEADS_KV 2
#define TINY_FF 96
#define TINY_LAYERS 2

struct tiny {
    const char *architecture;   /* NULL: llama */
    uint32_t experts, used;     /* 0: dense */
    enum tensor_type type;      /* of matrices; TENSOR_F32 is 0 */
    enum tensor_type norm_type; /* of norms */
    bool tied;
    const char *key; /* after the architecture's name: written with `value` instead */
    double value;
    bool value_float;    /* as a float; else as an unsigned number */
    const char *without; /* a tensor or key left out */
    const char *widened; /* a tensor whose second dimension (first of vectors) is one block larger */
    const char *extra;   /* one more tensor, of 32 floats */
    char path[64];       /* filled: remove it with tiny_remove */
};

struct tiny_writer {
    struct tiny *tiny;
    struct gguf_writer *w;
    struct rng rng;
    bool data; /* second round: bytes */
};

static inline bool tiny_is(const char *a, const char *b)
{
    return a && strcmp(a, b) == 0;
}

static inline void tiny_key(struct tiny_writer *t, const char *suffix, double value, bool is_float)
{
    const char *arch = t->tiny->architecture ? t->tiny->architecture : "llama";
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, suffix);
    if (tiny_is(t->tiny->without, suffix))
        return;
    if (tiny_is(t->tiny->key, suffix)) {
        value = t->tiny->value;
        is_float = t->tiny->value_float;
    }
    if (is_float)
        gguf_writer_set_float(t->w, key, (float)value);
    else
        gguf_writer_set_uint(t->w, key, (uint32_t)value);
}

static inline void tiny_tensor(struct tiny_writer *t, const char *name, enum tensor_type type, size_t d0,
                               size_t d1, size_t d2)
{
    static float values[1 << 17];
    static uint8_t bytes[sizeof values];
    uint64_t dims[3] = {d0, d1, d2};
    if (tiny_is(t->tiny->without, name))
        return;
    if (tiny_is(t->tiny->widened, name))
        dims[d1 ? 1 : 0] += d1 ? 1 : 32;
    uint32_t n_dims = d2 ? 3 : d1 ? 2 : 1;
    size_t count = (size_t)(dims[0] * (d1 ? dims[1] : 1) * (d2 ? dims[2] : 1));
    assert_true(count <= sizeof values / sizeof *values);
    if (!t->data) {
        gguf_writer_describe(t->w, name, type, n_dims, dims);
        return;
    }
    float spread = n_dims == 1 ? 0.2f : 3.0f / sqrtf((float)d0);
    for (size_t i = 0; i < count; i++)
        values[i] = (n_dims == 1 ? 1.0f : 0.0f) + spread * (rng_float(&t->rng) - 0.5f);
    tensor_quantize(type, values, bytes, count);
    gguf_writer_data(t->w, bytes, tensor_row_bytes(type, count));
}

static inline void tiny_layer(struct tiny_writer *t, size_t index)
{
    enum tensor_type type = t->tiny->type, norm = t->tiny->norm_type;
    size_t d = TINY_EMBD, kv = TINY_EMBD / TINY_HEADS * TINY_HEADS_KV, e = t->tiny->experts;
    const struct {
        const char *suffix;
        enum tensor_type type;
        size_t d0, d1, d2;
        bool when;
    } tensors[] = {
        {"attn_norm.weight", norm, d, 0, 0, true},
        {"attn_q.weight", type, d, d, 0, true},
        {"attn_k.weight", type, d, kv, 0, true},
        {"attn_v.weight", type, d, kv, 0, true},
        {"attn_output.weight", type, d, d, 0, true},
        {"ffn_norm.weight", norm, d, 0, 0, true},
        {"ffn_gate.weight", type, d, TINY_FF, 0, e == 0},
        {"ffn_up.weight", type, d, TINY_FF, 0, e == 0},
        {"ffn_down.weight", type, TINY_FF, d, 0, e == 0},
        {"ffn_gate_inp.weight", TENSOR_F32, d, e, 0, e > 0},
        {"ffn_gate_exps.weight", type, d, TINY_FF, e, e > 0},
        {"ffn_up_exps.weight", type, d, TINY_FF, e, e > 0},
        {"ffn_down_exps.weight", type, TINY_FF, d, e, e > 0},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%zu.%s", index, tensors[i].suffix);
        if (tensors[i].when)
            tiny_tensor(t, name, tensors[i].type, tensors[i].d0, tensors[i].d1, tensors[i].d2);
    }
}

static inline void tiny_tensors(struct tiny_writer *t)
{
    tiny_tensor(t, "token_embd.weight", t->tiny->type, TINY_EMBD, TINY_VOCAB, 0);
    tiny_tensor(t, "output_norm.weight", t->tiny->norm_type, TINY_EMBD, 0, 0);
    if (!t->tiny->tied)
        tiny_tensor(t, "output.weight", t->tiny->type, TINY_EMBD, TINY_VOCAB, 0);
    for (size_t i = 0; i < TINY_LAYERS; i++)
        tiny_layer(t, i);
    if (t->tiny->extra)
        tiny_tensor(t, t->tiny->extra, TENSOR_F32, 32, 0, 0);
}

/* Tokens "t0", "t1", ... as a packed GGUF string array, with <unk>, <s>, </s> first. */
static inline void tiny_vocab(struct tiny_writer *t)
{
    static uint8_t packed[TINY_VOCAB * 16];
    static float scores[TINY_VOCAB];
    static int32_t kinds[TINY_VOCAB];
    const char *special[3] = {"<unk>", "<s>", "</s>"};
    size_t at = 0;
    for (size_t i = 0; i < TINY_VOCAB; i++) {
        char text[8];
        uint64_t len =
            (uint64_t)snprintf(text, sizeof text, i < 3 ? "%s" : "t%.0s%zu", i < 3 ? special[i] : "", i);
        memcpy(packed + at, &len, 8);
        memcpy(packed + at + 8, text, (size_t)len);
        at += 8 + (size_t)len;
        scores[i] = -(float)i;
        kinds[i] = i == 0 ? 2 : i < 3 ? 3 : 1;
    }
    struct gguf_array tokens = {GGUF_STRING, TINY_VOCAB, packed, at};
    struct gguf_array floats = {GGUF_FLOAT32, TINY_VOCAB, (const uint8_t *)scores, sizeof scores};
    struct gguf_array ints = {GGUF_INT32, TINY_VOCAB, (const uint8_t *)kinds, sizeof kinds};
    gguf_writer_set_string(t->w, "tokenizer.ggml.model", "llama", 5);
    gguf_writer_set_array(t->w, "tokenizer.ggml.tokens", &tokens);
    gguf_writer_set_array(t->w, "tokenizer.ggml.scores", &floats);
    gguf_writer_set_array(t->w, "tokenizer.ggml.token_type", &ints);
    gguf_writer_set_uint(t->w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_set_uint(t->w, "tokenizer.ggml.eos_token_id", 2);
}

static inline void tiny_keys(struct tiny_writer *t)
{
    static const struct {
        const char *suffix;
        double value;
        bool is_float;
    } keys[] = {
        {"block_count", TINY_LAYERS, false},
        {"embedding_length", TINY_EMBD, false},
        {"context_length", 256, false},
        {"feed_forward_length", TINY_FF, false},
        {"attention.head_count", TINY_HEADS, false},
        {"attention.head_count_kv", TINY_HEADS_KV, false},
        {"attention.layer_norm_rms_epsilon", 1e-5, true},
        {"rope.freq_base", 10000, true},
    };
    const char *arch = t->tiny->architecture ? t->tiny->architecture : "llama";
    bool known = false;
    gguf_writer_set_string(t->w, "general.architecture", arch, strlen(arch));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        known = known || tiny_is(t->tiny->key, keys[i].suffix);
        tiny_key(t, keys[i].suffix, keys[i].value, keys[i].is_float);
    }
    if (t->tiny->experts) {
        known = known || tiny_is(t->tiny->key, "expert_count") || tiny_is(t->tiny->key, "expert_used_count");
        tiny_key(t, "expert_count", t->tiny->experts, false);
        tiny_key(t, "expert_used_count", t->tiny->used, false);
    }
    if (t->tiny->key && !known)
        tiny_key(t, t->tiny->key, t->tiny->value, t->tiny->value_float);
}

/* Writes the file and fills tiny->path. */
static inline void tiny_write(struct tiny *tiny)
{
    struct ph_err err = {0};
    snprintf(tiny->path, sizeof tiny->path, "/tmp/pharos-tiny-XXXXXX");
    int fd = mkstemp(tiny->path);
    assert_true(fd >= 0);
    close(fd);
    struct tiny_writer t = {.tiny = tiny};
    rng_init(&t.rng, 7);
    if (gguf_writer_open(&t.w, tiny->path, &err) != PH_OK)
        fail_msg("%s", err.message);
    tiny_keys(&t);
    tiny_vocab(&t);
    tiny_tensors(&t);
    t.data = true;
    tiny_tensors(&t);
    if (gguf_writer_close(t.w, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static inline void tiny_remove(struct tiny *tiny)
{
    remove(tiny->path);
}

#endif
