/* Encoders against llama.cpp's vectors, and what must hold of any: company does not matter, odd lengths,
 * refusals, files that lack something. */
#include "forward_support.h"
#include "tiny_bert.h"

#define TOKENS_MAX 600

static struct encoder *open_encoder(struct model **model, const char *path, struct encoder_params params)
{
    struct encoder *encoder = NULL;
    struct ph_err err = {0};
    if (!params.threads)
        params.threads = 2;
    if (model_open(model, path, false, &err) != PH_OK ||
        encoder_create(&encoder, *model, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    return encoder;
}

static void close_encoder(struct encoder *encoder, struct model *model)
{
    encoder_free(encoder);
    model_free(model);
}

static void encode(struct encoder *encoder, const struct encoder_text *texts, size_t count)
{
    struct ph_err err = {0};
    if (encoder_run(encoder, texts, count, &err) != PH_OK)
        fail_msg("%s", err.message);
}

/* ---- The conformance pack */
static void check_tokens(const struct model *model, const struct json *input, const int32_t *ids,
                         size_t count)
{
    const struct json *text = json_get(input, "text");
    struct token_list list = {0};
    if (!json_is(text, JSON_STRING))
        return;
    assert_int_equal(
        vocab_tokenize(model_vocab(model), text->u.str.text, text->u.str.len, true, true, &list, NULL),
        PH_OK);
    assert_int_equal(list.len, count);
    assert_memory_equal(list.ids, ids, count * sizeof *ids);
    token_list_release(&list);
}

static void check_model(const struct json *entry, struct arena *arena, const char *kernels)
{
    struct model *model;
    struct encoder *encoder =
        open_encoder(&model, conformance_path(arena, json_text(json_get(entry, "model"), "")),
                     (struct encoder_params){.kernels = kernels});
    size_t d = model_info(model)->n_embd, count = json_count(json_get(entry, "inputs")), i = 0;
    const float *want = conformance_floats(arena, json_text(json_get(entry, "vectors"), ""), count * d);
    float *got = arena_alloc(arena, d * sizeof *got);
    assert_string_equal(model_info(model)->pooling, json_text(json_get(entry, "pooling"), "?"));
    JSON_EACH (input, json_get(entry, "inputs")) {
        int32_t ids[TOKENS_MAX];
        size_t n = json_ids(json_get(input, "ids"), ids, TOKENS_MAX);
        check_tokens(model, input, ids, n);
        encode(encoder, &(struct encoder_text){ids, n, got}, 1);
        double distance = rel_l2(got, want + i * d, d);
        if (!(distance <= 1e-3))
            fail_msg("%s input %zu (%zu tokens): relative L2 %.3g", json_text(json_get(entry, "model"), "?"),
                     i, n, distance);
        i++;
    }
    close_encoder(encoder, model);
}

static void test_conformance(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const char *const sets[] = {"ref", "avx2", "avx512", NULL};
    struct arena arena;
    arena_init(&arena, 64u << 20);
    struct json *document = conformance_json(&arena, "expected/bert.json");
    for (size_t i = 0; sets[i]; i++)
        JSON_EACH (entry, json_get(document, "models"))
            if (kernels_select(sets[i]))
                check_model(entry, &arena, sets[i]);
    arena_release(&arena);
}

/* ---- Any encoder */
static size_t fill_tokens(int32_t *ids, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)((seed = seed * 1664525u + 1013904223u) >> 8) % TINY_BERT_VOCAB;
    return count;
}

/* A text says the same alone and among others, on one thread and on three, whatever the type. */
static void test_company(void **state)
{
    (void)state;
    static const size_t lens[] = {1, 2, 3, 17, 31, 32, 33, 64, 65, 100, 127};
    enum { COUNT = sizeof lens / sizeof *lens };
    static const struct tiny_bert kinds[] = {
        {.type = TENSOR_F32},
        {.type = TENSOR_F16},
        {.type = TENSOR_Q8_0},
        {.type = TENSOR_F32, .nomic = true},
        {.type = TENSOR_Q4_0, .nomic = true, .fused = true, .pooling = 3},
        {.type = TENSOR_F32, .fused = true, .pooling = 2},
    };
    static float together[COUNT][TINY_BERT_EMBD], alone[TINY_BERT_EMBD];
    static int32_t ids[COUNT][128];
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        struct tiny_bert tiny = kinds[kind];
        struct model *model;
        struct encoder_text texts[COUNT];
        tiny_bert_write(&tiny);
        for (size_t i = 0; i < COUNT; i++)
            texts[i] = (struct encoder_text){ids[i], fill_tokens(ids[i], lens[i], (uint32_t)i), together[i]};
        struct encoder *encoder = open_encoder(&model, tiny.path, (struct encoder_params){.threads = 3});
        encode(encoder, texts, COUNT);
        close_encoder(encoder, model);
        encoder = open_encoder(&model, tiny.path, (struct encoder_params){.threads = 1});
        for (size_t i = 0; i < COUNT; i++) {
            encode(encoder, &(struct encoder_text){ids[i], lens[i], alone}, 1);
            for (size_t k = 0; k < TINY_BERT_EMBD; k++)
                assert_true(isfinite(alone[k]));
            if (memcmp(alone, together[i], sizeof alone) != 0)
                fail_msg("kind %zu: a text of %zu tokens differs in company", kind, lens[i]);
        }
        close_encoder(encoder, model);
        tiny_bert_remove(&tiny);
    }
}

/* Both directions: the first token's vector knows the last token; a decoder's would not. */
static void test_both_ways(void **state)
{
    (void)state;
    struct tiny_bert tiny = {.pooling = 2};
    struct model *model;
    float a[TINY_BERT_EMBD], b[TINY_BERT_EMBD];
    int32_t ids[50];
    tiny_bert_write(&tiny);
    struct encoder *encoder = open_encoder(&model, tiny.path, (struct encoder_params){0});
    fill_tokens(ids, 50, 1);
    encode(encoder, &(struct encoder_text){ids, 50, a}, 1);
    ids[49] = (ids[49] + 1) % TINY_BERT_VOCAB;
    encode(encoder, &(struct encoder_text){ids, 50, b}, 1);
    assert_true(rel_l2(a, b, TINY_BERT_EMBD) > 1e-5);
    close_encoder(encoder, model);
    tiny_bert_remove(&tiny);
}

static void test_refusals(void **state)
{
    (void)state;
    struct tiny_bert tiny = {0};
    struct model *model;
    struct ph_err err = {0};
    float out[TINY_BERT_EMBD], *at = out;
    int32_t ids[TINY_BERT_CONTEXT + 1] = {0}, wrong[] = {0, TINY_BERT_VOCAB}, below[] = {-1};
    tiny_bert_write(&tiny);
    struct encoder *encoder = open_encoder(&model, tiny.path, (struct encoder_params){0});
    assert_int_equal(encoder_context_len(encoder), TINY_BERT_CONTEXT);
    assert_int_equal(encoder_run(encoder, &(struct encoder_text){ids, 0, at}, 1, &err), PH_ERR_ARG);
    assert_int_equal(encoder_run(encoder, &(struct encoder_text){ids, TINY_BERT_CONTEXT + 1, at}, 1, &err),
                     PH_ERR_LIMIT);
    assert_non_null(strstr(err.message, "129 tokens"));
    assert_int_equal(encoder_run(encoder, &(struct encoder_text){wrong, 2, at}, 1, &err), PH_ERR_ARG);
    assert_int_equal(encoder_run(encoder, &(struct encoder_text){below, 1, at}, 1, &err), PH_ERR_ARG);
    struct encoder *other;
    const struct encoder_params long_one = {.context_len = TINY_BERT_CONTEXT + 1};
    assert_int_equal(encoder_create(&other, model, &long_one, &err), PH_ERR_LIMIT);
    struct runner *runner;
    assert_int_equal(runner_create(&runner, model, &(struct runner_params){0}, &err), PH_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "embedding model"));
    close_encoder(encoder, model);
    tiny_bert_remove(&tiny);
}

static void expect_bad(struct tiny_bert tiny, const char *says)
{
    struct model *model;
    struct ph_err err = {0};
    tiny_bert_write(&tiny);
    enum ph_status status = model_open(&model, tiny.path, false, &err);
    tiny_bert_remove(&tiny);
    if (status == PH_OK)
        fail_msg("a model with a wrong %s was opened", says);
    if (!strstr(err.message, says))
        fail_msg("\"%s\" does not name %s", err.message, says);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const char *const needed[] = {"token_embd.weight",
                                         "token_embd_norm.weight",
                                         "token_embd_norm.bias",
                                         "position_embd.weight",
                                         "blk.1.attn_q.weight",
                                         "blk.0.attn_output.weight",
                                         "blk.0.ffn_up.weight",
                                         "blk.1.ffn_down.weight",
                                         "blk.0.attn_output_norm.weight",
                                         "blk.1.attn_output_norm.bias",
                                         "blk.1.layer_output_norm.weight",
                                         "blk.0.layer_output_norm.bias"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        expect_bad((struct tiny_bert){.without = needed[i]}, needed[i]);
        expect_bad((struct tiny_bert){.widened = needed[i]}, needed[i]);
    }
    expect_bad((struct tiny_bert){.widened = "token_types.weight"}, "token_types.weight");
    expect_bad((struct tiny_bert){.extra = "cls.output.weight"}, "cls.output.weight");
    expect_bad((struct tiny_bert){.extra = "output_norm.weight"}, "output_norm.weight");
    expect_bad((struct tiny_bert){.without = "attention.layer_norm_epsilon"}, "layer_norm_epsilon");
    expect_bad((struct tiny_bert){.pooling = 4}, "rank");
    expect_bad((struct tiny_bert){.pooling = 9}, "pooling_type");
    expect_bad((struct tiny_bert){.causal = true}, "attention.causal");
    expect_bad((struct tiny_bert){.experts = true}, "experts");
}

/* Without token types, without a pooling type: what the file does not have is not needed. */
static void test_sparse_file(void **state)
{
    (void)state;
    struct tiny_bert tiny = {.without = "token_types.weight", .pooling = TINY_BERT_POOLING_ABSENT};
    struct model *model;
    float out[TINY_BERT_EMBD] = {0};
    int32_t ids[5] = {1, 2, 3, 4, 5};
    tiny_bert_write(&tiny);
    struct encoder *encoder = open_encoder(&model, tiny.path, (struct encoder_params){0});
    assert_string_equal(model_info(model)->pooling, "mean");
    encode(encoder, &(struct encoder_text){ids, 5, out}, 1);
    encoder_normalise(out, TINY_BERT_EMBD);
    double sum = 0;
    for (size_t i = 0; i < TINY_BERT_EMBD; i++)
        sum += (double)out[i] * (double)out[i];
    assert_true(fabs(sum - 1) < 1e-5);
    close_encoder(encoder, model);
    tiny_bert_remove(&tiny);
}

static void test_normalise_zero(void **state)
{
    (void)state;
    float zeros[3] = {0, 0, 0};
    encoder_normalise(zeros, 3);
    assert_true(zeros[0] == 0.0f && zeros[2] == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conformance),    cmocka_unit_test(test_company),
        cmocka_unit_test(test_both_ways),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bad_files),      cmocka_unit_test(test_sparse_file),
        cmocka_unit_test(test_normalise_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
