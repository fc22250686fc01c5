/* Opening models: what a file must hold, what is said when it does not, and the sizes reported. */
#include "tiny_model.h"

/* Opens the tiny model and expects `status` with `words` in the message. */
static void expect(struct tiny tiny, enum ph_status status, const char *words)
{
    struct model *model = NULL;
    struct ph_err err = {0};
    tiny_write(&tiny);
    enum ph_status got = model_open(&model, tiny.path, false, &err);
    if (got != status || (words && !strstr(err.message, words)))
        fail_msg("wanted %s with \"%s\", got %s: %s", ph_status_name(status), words, ph_status_name(got),
                 err.message);
    assert_true((model != NULL) == (got == PH_OK));
    model_free(model);
    tiny_remove(&tiny);
}

static void sound_models_open(void **state)
{
    (void)state;
    expect((struct tiny){0}, PH_OK, NULL);
    expect((struct tiny){.tied = true, .type = TENSOR_Q8_0}, PH_OK, NULL);
    expect((struct tiny){.norm_type = TENSOR_BF16}, PH_OK, NULL);
    expect((struct tiny){.experts = 4, .used = 2}, PH_OK, NULL);
    expect((struct tiny){.extra = "blk.0.attn_rot_embd.weight"}, PH_OK, NULL);
}

static void unknown_architectures_are_named(void **state)
{
    (void)state;
    expect((struct tiny){.architecture = "hal9000"}, PH_ERR_UNSUPPORTED,
           "\"hal9000\" is not known; known: llama");
}

static void bad_tensors_are_named(void **state)
{
    (void)state;
    expect((struct tiny){.without = "blk.1.ffn_up.weight"}, PH_ERR_FORMAT, "blk.1.ffn_up.weight is missing");
    expect((struct tiny){.without = "token_embd.weight"}, PH_ERR_FORMAT, "token_embd.weight is missing");
    expect((struct tiny){.widened = "blk.0.attn_k.weight"}, PH_ERR_FORMAT,
           "blk.0.attn_k.weight is [64, 33, 1], must be [64, 32, 1]");
    expect((struct tiny){.widened = "blk.1.ffn_norm.weight"}, PH_ERR_FORMAT, "must be [64, 1, 1]");
    expect((struct tiny){.widened = "output.weight"}, PH_ERR_FORMAT, "output.weight is [64, 65, 1]");
    expect((struct tiny){.widened = "token_embd.weight"}, PH_ERR_FORMAT, "must be [64, 64, 1]");
    expect((struct tiny){.extra = "blk.1.attn_q_norm.weight"}, PH_ERR_UNSUPPORTED,
           "blk.1.attn_q_norm.weight has no meaning");
    expect((struct tiny){.extra = "blk.2.attn_norm.weight"}, PH_ERR_UNSUPPORTED, "blk.2.attn_norm.weight");
    expect((struct tiny){.extra = "mystery"}, PH_ERR_UNSUPPORTED, "mystery");
    expect((struct tiny){.experts = 4, .used = 2, .widened = "blk.0.ffn_up_exps.weight"}, PH_ERR_FORMAT,
           "[64, 97, 4], must be [64, 96, 4]");
}

static void hostile_hyper_parameters_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        double value;
        bool is_float;
        const char *words;
    } cases[] = {
        {"attention.head_count", 0, false, "attention.head_count is 0"},
        {"attention.head_count", 6, false, "not a multiple"},
        {"attention.head_count", 3, false, "3 heads cannot share 2"},
        {"attention.head_count", 1025, false, "attention.head_count is 1025"},
        {"attention.head_count", 1.5, true, "not a whole number"},
        {"attention.head_count_kv", 0, false, "attention.head_count_kv is 0"},
        {"attention.head_count_kv", 3, false, "cannot share 3"},
        {"block_count", 0, false, "block_count is 0"},
        {"block_count", 513, false, "block_count is 513"},
        {"block_count", 4294967295.0, false, "block_count is"},
        {"block_count", 3, false, "blk.2.attn_norm.weight is missing"},
        {"embedding_length", 0, false, "embedding_length is 0"},
        {"embedding_length", 4294967295.0, false, "embedding_length"},
        {"embedding_length", 128, false, "must be [128"},
        {"context_length", 0, false, "context_length is 0"},
        {"feed_forward_length", 0, false, "feed_forward_length is missing or 0"},
        {"feed_forward_length", 4294967295.0, false, "feed_forward_length"},
        {"attention.layer_norm_rms_epsilon", NAN, true, "epsilon is"},
        {"attention.layer_norm_rms_epsilon", -1, true, "epsilon is -1"},
        {"attention.layer_norm_rms_epsilon", INFINITY, true, "epsilon is"},
        {"rope.freq_base", 0, true, "rope.freq_base is 0"},
        {"rope.freq_base", NAN, true, "rope.freq_base"},
        {"rope.dimension_count", 15, false, "must be even"},
        {"rope.dimension_count", 18, false, "at most the head size 16"},
        {"rope.scaling.factor", -1, true, "rope.scaling.factor"},
        {"rope.scaling.original_context_length", 0, false, "original_context_length is 0"},
        {"attention.key_length", 0, false, "key_length is 0"},
        {"attention.key_length", 1048576, false, "heads of 1048576 values"},
        {"attention.value_length", 24, false, "must be [64, 48, 1]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect((struct tiny){.key = cases[i].key, .value = cases[i].value, .value_float = cases[i].is_float},
               strstr(cases[i].words, "heads of") ? PH_ERR_LIMIT : PH_ERR_FORMAT, cases[i].words);
    expect((struct tiny){.without = "block_count"}, PH_ERR_FORMAT, "llama.block_count is missing");
    expect((struct tiny){.without = "attention.head_count"}, PH_ERR_FORMAT, "head_count is missing");
    expect((struct tiny){.without = "attention.layer_norm_rms_epsilon"}, PH_ERR_FORMAT, "epsilon is missing");
}

static void hostile_experts_are_refused(void **state)
{
    (void)state;
    expect((struct tiny){.experts = 4, .used = 0}, PH_ERR_FORMAT, "expert_used_count 0");
    expect((struct tiny){.experts = 4, .used = 5}, PH_ERR_FORMAT, "expert_used_count 5");
    expect((struct tiny){.experts = 4, .used = 2, .key = "expert_count", .value = 1025}, PH_ERR_FORMAT,
           "expert_count is 1025");
    expect((struct tiny){.experts = 4, .used = 2, .key = "expert_count", .value = 5}, PH_ERR_FORMAT,
           "ffn_gate_inp.weight is [64, 4, 1], must be [64, 5, 1]");
}

/* Counted by hand for the tiny shapes. */
static void sizes_are_exact(void **state)
{
    (void)state;
    const uint64_t d = TINY_EMBD, v = TINY_VOCAB, kv = 32, ff = TINY_FF, layers = TINY_LAYERS;
    const uint64_t attention = 2 * d * d + 2 * d * kv, norms = 2 * d;
    struct model *model = NULL;
    struct ph_err err = {0};
    struct tiny dense = {0}, tied = {.tied = true}, moe = {.experts = 8, .used = 2};
    tiny_write(&dense);
    assert_int_equal(model_open(&model, dense.path, false, &err), PH_OK);
    const struct model_info *info = model_info(model);
    assert_int_equal(info->n_params, 2 * d * v + d + layers * (attention + norms + 3 * d * ff));
    assert_int_equal(info->weight_bytes, 4 * info->n_params);
    assert_int_equal(info->decode_bytes, 4 * (d + d * v + d + layers * (attention + norms + 3 * d * ff)));
    assert_int_equal(info->flops_per_token, 2 * (d * v + layers * (attention + 3 * d * ff)));
    assert_int_equal(info->kv_bytes_per_token_f16, layers * 2 * (16 + 16) * 2);
    assert_int_equal(info->n_head_kv, TINY_HEADS_KV);
    assert_string_equal(info->architecture, "llama");
    model_free(model);
    tiny_write(&tied);
    assert_int_equal(model_open(&model, tied.path, false, &err), PH_OK);
    assert_int_equal(model_info(model)->decode_bytes, model_info(model)->weight_bytes);
    model_free(model);
    tiny_write(&moe);
    assert_int_equal(model_open(&model, moe.path, false, &err), PH_OK);
    assert_int_equal(model_info(model)->flops_per_token,
                     2 * (d * v + layers * (attention + 8 * d + 2 * 3 * d * ff)));
    assert_int_equal(model_info(model)->decode_bytes,
                     4 * (d + d * v + d + layers * (attention + norms + 8 * d + 2 * 3 * d * ff)));
    model_free(model);
    tiny_remove(&dense);
    tiny_remove(&tied);
    tiny_remove(&moe);
}

static void a_vocabulary_opens_alone(void **state)
{
    (void)state;
    struct model *model = NULL;
    struct runner *runner = NULL;
    struct ph_err err = {0};
    struct tiny tiny = {.without = "blk.0.attn_q.weight"};
    tiny_write(&tiny);
    assert_int_equal(model_open(&model, tiny.path, true, &err), PH_OK);
    assert_int_equal(vocab_info(model_vocab(model))->n_tokens, TINY_VOCAB);
    assert_int_equal(runner_create(&runner, model, &(struct runner_params){0}, &err), PH_ERR_ARG);
    assert_null(runner);
    model_free(model);
    tiny_remove(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_models_open),           cmocka_unit_test(unknown_architectures_are_named),
        cmocka_unit_test(bad_tensors_are_named),       cmocka_unit_test(hostile_hyper_parameters_are_refused),
        cmocka_unit_test(hostile_experts_are_refused), cmocka_unit_test(sizes_are_exact),
        cmocka_unit_test(a_vocabulary_opens_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
