/* Small random encoders in GGUF files (bert, or nomic-bert), with a WordPiece vocabulary of the letters. One
 * tensor or key may be left out or spoilt. */
#ifndef PHAROS_TESTS_TINY_BERT_H
#define PHAROS_TESTS_TINY_BERT_H

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "model/model.h"
#include "test_support.h"

#define TINY_BERT_VOCAB 64
#define TINY_BERT_EMBD 64
#define TINY_BERT_HEADS 4
#define TINY_BERT_FF 96
#define TINY_BERT_LAYERS 2
#define TINY_BERT_CONTEXT 128
#define TINY_BERT_POOLING_ABSENT 99

struct tiny_bert {
    enum tensor_type type; /* of matrices */
    bool nomic;            /* rotary, gated, without positions */
    bool fused;            /* one matrix for q, k and v */
    uint32_t pooling;      /* 0: mean */
    bool causal, experts;
    const char *without; /* a tensor or key left out */
    const char *widened; /* a tensor whose second dimension (first of vectors) is larger */
    const char *extra;   /* one more tensor, of 64 floats */
    char path[64];       /* filled: remove it with tiny_bert_remove */
};

struct tiny_bert_writer {
    const struct tiny_bert *tiny;
    struct gguf_writer *w;
    struct rng rng;
    bool data; /* second round: bytes */
};

static inline bool tiny_bert_is(const char *a, const char *b)
{
    return a && strcmp(a, b) == 0;
}

static inline void tiny_bert_tensor(struct tiny_bert_writer *t, const char *name, enum tensor_type type,
                                    size_t d0, size_t d1)
{
    static float values[1 << 15];
    static uint8_t bytes[sizeof values];
    uint64_t dims[2] = {d0, d1};
    if (tiny_bert_is(t->tiny->without, name))
        return;
    if (tiny_bert_is(t->tiny->widened, name))
        dims[d1 ? 1 : 0] += d1 ? 1 : 32;
    size_t count = (size_t)(dims[0] * (d1 ? dims[1] : 1));
    assert_true(count <= sizeof values / sizeof *values);
    if (!t->data) {
        gguf_writer_describe(t->w, name, type, d1 ? 2 : 1, dims);
        return;
    }
    bool norm = !d1 && strstr(name, "norm.weight");
    float spread = d1 ? 3.0f / sqrtf((float)d0) : 0.2f;
    for (size_t i = 0; i < count; i++)
        values[i] = (norm ? 1.0f : 0.0f) + spread * (rng_float(&t->rng) - 0.5f);
    tensor_quantize(type, values, bytes, count);
    gguf_writer_data(t->w, bytes, tensor_row_bytes(type, count));
}

static inline void tiny_bert_layer(struct tiny_bert_writer *t, size_t index)
{
    const bool nomic = t->tiny->nomic, fused = t->tiny->fused;
    const size_t d = TINY_BERT_EMBD, ff = TINY_BERT_FF;
    const struct {
        const char *suffix;
        size_t d0, d1;
        bool when;
    } tensors[] = {
        {"attn_q.weight", d, d, !fused},         {"attn_k.weight", d, d, !fused},
        {"attn_v.weight", d, d, !fused},         {"attn_q.bias", d, 0, !fused && !nomic},
        {"attn_k.bias", d, 0, !fused},           {"attn_v.bias", d, 0, !fused && !nomic},
        {"attn_qkv.weight", d, 3 * d, fused},    {"attn_qkv.bias", 3 * d, 0, fused && !nomic},
        {"attn_output.weight", d, d, true},      {"attn_output.bias", d, 0, !nomic},
        {"attn_output_norm.weight", d, 0, true}, {"attn_output_norm.bias", d, 0, true},
        {"ffn_gate.weight", d, ff, nomic},       {"ffn_up.weight", d, ff, true},
        {"ffn_up.bias", ff, 0, !nomic},          {"ffn_down.weight", ff, d, true},
        {"ffn_down.bias", d, 0, !nomic},         {"layer_output_norm.weight", d, 0, true},
        {"layer_output_norm.bias", d, 0, true},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%zu.%s", index, tensors[i].suffix);
        if (tensors[i].when)
            tiny_bert_tensor(t, name, tensors[i].d1 ? t->tiny->type : TENSOR_F32, tensors[i].d0,
                             tensors[i].d1);
    }
}

static inline void tiny_bert_tensors(struct tiny_bert_writer *t)
{
    tiny_bert_tensor(t, "token_embd.weight", t->tiny->type, TINY_BERT_EMBD, TINY_BERT_VOCAB);
    tiny_bert_tensor(t, "token_types.weight", TENSOR_F32, TINY_BERT_EMBD, 2);
    tiny_bert_tensor(t, "token_embd_norm.weight", TENSOR_F32, TINY_BERT_EMBD, 0);
    tiny_bert_tensor(t, "token_embd_norm.bias", TENSOR_F32, TINY_BERT_EMBD, 0);
    if (!t->tiny->nomic)
        tiny_bert_tensor(t, "position_embd.weight", TENSOR_F32, TINY_BERT_EMBD, TINY_BERT_CONTEXT);
    for (size_t i = 0; i < TINY_BERT_LAYERS; i++)
        tiny_bert_layer(t, i);
    if (t->tiny->extra)
        tiny_bert_tensor(t, t->tiny->extra, TENSOR_F32, 64, 0);
}

/* Special tokens, letters that begin a word ("\u2581a"), letters that go on with one, padding. */
static inline void tiny_bert_vocab(struct tiny_bert_writer *t)
{
    static const char *const special[5] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    static uint8_t packed[TINY_BERT_VOCAB * 24];
    static int32_t kinds[TINY_BERT_VOCAB];
    size_t at = 0;
    for (size_t i = 0; i < TINY_BERT_VOCAB; i++) {
        char text[16];
        if (i < 5)
            snprintf(text, sizeof text, "%s", special[i]);
        else if (i < 31)
            snprintf(text, sizeof text, "\xe2\x96\x81%c", (char)('a' + (i - 5)));
        else if (i < 57)
            snprintf(text, sizeof text, "%c", (char)('a' + (i - 31)));
        else
            snprintf(text, sizeof text, "[unused%zu]", i);
        uint64_t len = strlen(text);
        memcpy(packed + at, &len, 8);
        memcpy(packed + at + 8, text, (size_t)len);
        at += 8 + (size_t)len;
        kinds[i] = i == 1 ? 2 : i < 5 ? 3 : 1;
    }
    struct gguf_array tokens = {GGUF_STRING, TINY_BERT_VOCAB, packed, at};
    struct gguf_array ints = {GGUF_INT32, TINY_BERT_VOCAB, (const uint8_t *)kinds, sizeof kinds};
    gguf_writer_set_string(t->w, "tokenizer.ggml.model", "bert", 4);
    gguf_writer_set_array(t->w, "tokenizer.ggml.tokens", &tokens);
    gguf_writer_set_array(t->w, "tokenizer.ggml.token_type", &ints);
    gguf_writer_set_uint(t->w, "tokenizer.ggml.padding_token_id", 0);
    gguf_writer_set_uint(t->w, "tokenizer.ggml.unknown_token_id", 1);
    gguf_writer_set_uint(t->w, "tokenizer.ggml.cls_token_id", 2);
    gguf_writer_set_uint(t->w, "tokenizer.ggml.seperator_token_id", 3);
    gguf_writer_set_uint(t->w, "tokenizer.ggml.mask_token_id", 4);
    gguf_writer_set_uint(t->w, "tokenizer.ggml.token_type_count", 2);
}

static inline void tiny_bert_keys(struct tiny_bert_writer *t)
{
    const char *arch = t->tiny->nomic ? "nomic-bert" : "bert";
    const struct {
        const char *suffix;
        uint32_t value;
        bool when;
    } keys[] = {
        {"block_count", TINY_BERT_LAYERS, true},
        {"embedding_length", TINY_BERT_EMBD, true},
        {"context_length", TINY_BERT_CONTEXT, true},
        {"feed_forward_length", TINY_BERT_FF, true},
        {"attention.head_count", TINY_BERT_HEADS, true},
        {"pooling_type", t->tiny->pooling ? t->tiny->pooling : 1,
         t->tiny->pooling != TINY_BERT_POOLING_ABSENT},
        {"expert_count", 2, t->tiny->experts},
        {"expert_used_count", 1, t->tiny->experts},
    };
    char key[96];
    gguf_writer_set_string(t->w, "general.architecture", arch, strlen(arch));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, keys[i].suffix);
        if (keys[i].when && !tiny_bert_is(t->tiny->without, keys[i].suffix))
            gguf_writer_set_uint(t->w, key, keys[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_epsilon", arch);
    if (!tiny_bert_is(t->tiny->without, "attention.layer_norm_epsilon"))
        gguf_writer_set_float(t->w, key, 1e-12f);
    snprintf(key, sizeof key, "%s.attention.causal", arch);
    gguf_writer_set_bool(t->w, key, t->tiny->causal);
}

/* Writes the file and fills tiny->path. */
static inline void tiny_bert_write(struct tiny_bert *tiny)
{
    struct ph_err err = {0};
    snprintf(tiny->path, sizeof tiny->path, "/tmp/pharos-bert-XXXXXX");
    int fd = mkstemp(tiny->path);
    assert_true(fd >= 0);
    close(fd);
    struct tiny_bert_writer t = {.tiny = tiny};
    rng_init(&t.rng, 11);
    if (gguf_writer_open(&t.w, tiny->path, &err) != PH_OK)
        fail_msg("%s", err.message);
    tiny_bert_keys(&t);
    tiny_bert_vocab(&t);
    tiny_bert_tensors(&t);
    t.data = true;
    tiny_bert_tensors(&t);
    if (gguf_writer_close(t.w, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static inline void tiny_bert_remove(const struct tiny_bert *tiny)
{
    remove(tiny->path);
}

#endif
