/* What the engine's tests share: the small trained model and its expected texts, requests in one line, reading a
 * sequence to its end. */
#ifndef PHAROS_TESTS_ENGINE_TEST_H
#define PHAROS_TESTS_ENGINE_TEST_H

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "engine/engine.h"
#include "test_support.h"

#define CONFORMANCE TEST_SHARED_DIR "/conformance/"
#define MODEL_F32 CONFORMANCE "models/stories260K-F32.gguf"
#define IDS_MAX 600
#define TEXT_MAX 8192

struct result {
    int32_t ids[IDS_MAX];
    size_t count;
    char text[TEXT_MAX];
    size_t text_len;
    struct engine_event last;
};

static inline struct engine *open_engine(const char *path, struct engine_params params)
{
    struct engine *engine;
    struct ph_err err;
    params.model_path = path;
    if (!params.threads)
        params.threads = 2;
    if (engine_open(&engine, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    return engine;
}

static inline struct engine_seq *submit(struct engine *engine, const struct engine_request *request)
{
    struct engine_seq *seq;
    struct ph_err err;
    if (engine_submit(engine, request, &seq, &err) != PH_OK)
        fail_msg("%s", err.message);
    return seq;
}

static inline void take(struct result *result, const struct engine_event *event)
{
    assert_true(result->text_len + event->text_len < TEXT_MAX);
    memcpy(result->text + result->text_len, event->text, event->text_len);
    result->text_len += event->text_len;
    result->text[result->text_len] = 0;
    if (event->kind == ENGINE_TOKEN)
        result->ids[result->count++] = event->token;
    result->last = *event;
}

static inline void read_to_end(struct engine_seq *seq, struct result *result)
{
    struct engine_event event;
    *result = (struct result){.count = 0};
    while (engine_wait(seq, &event, UINT64_MAX))
        take(result, &event);
    assert_int_equal(result->last.kind, ENGINE_FINISH);
    assert_false(engine_read(seq, &event));
}

static inline void run(struct engine *engine, const struct engine_request *request, struct result *result)
{
    struct engine_seq *seq = submit(engine, request);
    read_to_end(seq, result);
    engine_seq_free(seq);
}

static inline struct engine_request greedy(const int32_t *prompt, size_t len, size_t max_tokens)
{
    struct engine_request request = {.prompt = prompt, .prompt_len = len, .max_tokens = max_tokens};
    sampler_params_default(&request.sampling);
    request.sampling.temperature = 0;
    return request;
}

static inline struct engine_stats stats_of(struct engine *engine)
{
    struct engine_stats stats;
    engine_stats_read(engine, &stats);
    return stats;
}

/* expected/stories.json, the entry of one model. */
static inline const struct json *expected_model(struct arena *arena, const char *id)
{
    struct buf text;
    struct json *root;
    struct ph_err err;
    buf_init(&text, 64 << 20);
    arena_init(arena, 256 << 20);
    assert_int_equal(file_read(CONFORMANCE "expected/stories.json", &text, &err), PH_OK);
    assert_int_equal(json_parse(arena, text.data, text.len, &root, &err), PH_OK);
    buf_release(&text);
    JSON_EACH (model, json_get(root, "models"))
        if (json_text_is(json_get(model, "id"), id))
            return model;
    fail_msg("no model %s", id);
    return NULL;
}

static inline size_t ids_of(const struct json *list, int32_t *out)
{
    size_t count = 0;
    JSON_EACH (item, list) {
        int64_t id = -1;
        assert_true(count < IDS_MAX && json_to_int64(item, &id));
        out[count++] = (int32_t)id;
    }
    return count;
}

#endif
