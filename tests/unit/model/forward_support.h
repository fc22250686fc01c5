/* For tests of the forward pass: reference files, comparisons, small runs. */
#ifndef PHAROS_TESTS_FORWARD_SUPPORT_H
#define PHAROS_TESTS_FORWARD_SUPPORT_H

#include <math.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/model.h"
#include "test_support.h"

#define CONFORMANCE TEST_SHARED_DIR "/conformance/"

/* "open:" and "extra:" prefixes, or a path below the conformance folder. */
static inline char *conformance_path(struct arena *arena, const char *name)
{
    const char *folder = CONFORMANCE;
    if (strncmp(name, "extra:", 6) == 0) {
        folder = TEST_SHARED_DIR "/models/";
        name += 6;
    } else if (strncmp(name, "open:", 5) == 0) {
        name += 5;
    }
    size_t size = strlen(folder) + strlen(name) + 1;
    char *path = arena_alloc(arena, size);
    assert_non_null(path);
    snprintf(path, size, "%s%s", folder, name);
    return path;
}

/* Parses a JSON file below the conformance folder; fails the test when it cannot. */
static inline struct json *conformance_json(struct arena *arena, const char *name)
{
    char *path = conformance_path(arena, name);
    struct buf text;
    struct ph_err err = {0};
    struct json *out = NULL;
    buf_init(&text, 64u << 20);
    if (file_read(path, &text, &err) != PH_OK || json_parse(arena, text.data, text.len, &out, &err) != PH_OK)
        fail_msg("%s", err.message);
    buf_release(&text);
    return out;
}

/* Raw little-endian floats; fails the test when the file has not `count`. */
static inline float *conformance_floats(struct arena *arena, const char *name, size_t count)
{
    FILE *file = fopen(conformance_path(arena, name), "rb");
    if (!file)
        fail_msg("cannot read %s", name);
    float *out = arena_alloc(arena, count * sizeof *out);
    assert_non_null(out);
    if (fread(out, sizeof *out, count, file) != count)
        fail_msg("%s is shorter than %zu floats", name, count);
    fclose(file);
    return out;
}

struct session {
    struct model *model;
    struct lora *lora;
    struct runner *runner;
    struct kv_seq *seq;
    size_t n_vocab;
    float *logits; /* [n_vocab] */
};

struct session_params {
    const char *path, *lora;
    float lora_scale;
    unsigned threads;
    enum tensor_type kv_type;
    size_t rows_max, sequences, context_len;
    size_t kv_contexts; /* room for that many full contexts; 0: one */
};

static inline void session_open(struct session *s, const struct session_params *params)
{
    struct ph_err err = {0};
    *s = (struct session){0};
    if (model_open(&s->model, params->path, false, &err) != PH_OK)
        fail_msg("%s", err.message);
    if (params->lora && lora_open(&s->lora, s->model, params->lora, &err) != PH_OK)
        fail_msg("%s", err.message);
    const struct lora *loras[1] = {s->lora};
    size_t context = params->context_len ? params->context_len : model_info(s->model)->n_context_train;
    size_t kv_bytes = (context + 32) * 2 * model_info(s->model)->kv_bytes_per_token_f16; /* F32 */
    struct runner_params rp = {.threads = params->threads ? params->threads : 2,
                               .kv_type = params->kv_type,
                               .context_len = params->context_len,
                               .kv_bytes_max = params->kv_contexts * kv_bytes,
                               .rows_max = params->rows_max ? params->rows_max : 512,
                               .outputs_max = params->rows_max ? params->rows_max : 512,
                               .sequences_max = params->sequences ? params->sequences : 1,
                               .loras = loras,
                               .lora_scales = &params->lora_scale,
                               .lora_count = s->lora ? 1 : 0};
    if (runner_create(&s->runner, s->model, &rp, &err) != PH_OK)
        fail_msg("%s", err.message);
    s->n_vocab = model_info(s->model)->n_vocab;
    s->logits = mem_calloc(s->n_vocab, sizeof(float));
    assert_non_null(s->logits);
    s->seq = kv_seq_take(s->runner);
    assert_non_null(s->seq);
}

static inline void session_close(struct session *s)
{
    kv_seq_give(s->runner, s->seq);
    runner_free(s->runner);
    lora_free(s->lora);
    model_free(s->model);
    mem_free(s->logits);
}

/* An empty sequence. */
static inline void session_restart(struct session *s)
{
    kv_seq_truncate(s->runner, s->seq, 0);
}

/* Appends ids in steps of at most `chunk` rows; s->logits are those of the last. all [count][n_vocab] or
 * NULL. */
static inline void session_feed(struct session *s, const int32_t *ids, size_t count, size_t chunk,
                                enum phase phase, float *all)
{
    static struct runner_row rows[512];
    struct ph_err err = {0};
    size_t len = kv_seq_len(s->seq);
    assert_int_equal(kv_seq_reserve(s->runner, s->seq, len + count), PH_OK);
    for (size_t at = 0; at < count; at += chunk) {
        size_t n = count - at < chunk ? count - at : chunk;
        assert_true(n <= 512);
        for (size_t i = 0; i < n; i++) {
            float *to = all ? all + (at + i) * s->n_vocab : at + i + 1 == count ? s->logits : NULL;
            rows[i] = (struct runner_row){s->seq, ids[at + i], to};
        }
        if (runner_step(s->runner, rows, n, phase, &err) != PH_OK)
            fail_msg("%s", err.message);
    }
    assert_int_equal(kv_seq_len(s->seq), len + count);
}

static inline size_t json_ids(const struct json *list, int32_t *out, size_t cap)
{
    size_t count = 0;
    JSON_EACH (item, list) {
        int64_t value = -1;
        assert_true(json_to_int64(item, &value));
        assert_true(count < cap);
        out[count++] = (int32_t)value;
    }
    return count;
}

static inline double rel_l2(const float *x, const float *reference, size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)x[i] - (double)reference[i];
        difference += d * d;
        norm += (double)reference[i] * (double)reference[i];
    }
    return sqrt(difference / norm);
}

static inline int32_t argmax(const float *x, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}

#endif
