/* Low-rank adapters: what is refused, and that two of them add up. Their numbers are test_forward's business. */
#include "forward_support.h"

#define MODELS CONFORMANCE "models/"

static struct model *open_model(const char *path)
{
    struct model *model = NULL;
    struct ph_err err = {0};
    if (model_open(&model, path, false, &err) != PH_OK)
        fail_msg("%s", err.message);
    return model;
}

static void adapters_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const struct {
        const char *model, *adapter;
        enum ph_status status;
        const char *words;
    } cases[] = {
        {MODELS "base-F32.gguf", MODELS "base-F32.gguf", PH_ERR_FORMAT, "general.type is \"\""},
        {MODELS "qwen2-bpe.gguf", MODELS "base-lora-r8.gguf", PH_ERR_FORMAT,
         "general.architecture is \"llama\", must be \"qwen2\""},
        {MODELS "stories260K-F32.gguf", MODELS "base-lora-r8.gguf", PH_ERR_FORMAT,
         "the pair of blk.0.attn_q.weight is [256, 8, 1] and [8, 256, 1], which does not fit [64, 64, 1]"},
        {MODELS "base-F32.gguf", MODELS "absent.gguf", PH_ERR_NOTFOUND, "absent.gguf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model *model = open_model(cases[i].model);
        struct lora *lora = NULL;
        struct ph_err err = {0};
        enum ph_status got = lora_open(&lora, model, cases[i].adapter, &err);
        if (got != cases[i].status || !strstr(err.message, cases[i].words))
            fail_msg("wanted %s with \"%s\", got %s: %s", ph_status_name(cases[i].status), cases[i].words,
                     ph_status_name(got), err.message);
        assert_null(lora);
        model_free(model);
    }
}

static void adapters_belong_to_their_model(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct model *a = open_model(MODELS "base-F32.gguf"), *b = open_model(MODELS "base-F16.gguf");
    struct lora *lora = NULL;
    struct runner *runner = NULL;
    struct ph_err err = {0};
    assert_int_equal(lora_open(&lora, a, MODELS "base-lora-r8.gguf", &err), PH_OK);
    const struct lora *loras[1] = {lora};
    assert_int_equal(
        runner_create(&runner, b, &(struct runner_params){.loras = loras, .lora_count = 1}, &err),
        PH_ERR_ARG);
    assert_null(runner);
    lora_free(lora);
    model_free(b);
    model_free(a);
}

static void run_with(const struct model *model, const struct lora *lora, const float *scales, size_t count,
                     float *logits)
{
    const struct lora *loras[2] = {lora, lora};
    struct runner *runner = NULL;
    struct ph_err err = {0};
    const struct runner_params params = {
        .threads = 2, .context_len = 64, .loras = loras, .lora_scales = scales, .lora_count = count};
    if (runner_create(&runner, model, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    struct kv_seq *seq = kv_seq_take(runner);
    assert_int_equal(kv_seq_reserve(runner, seq, 3), PH_OK);
    const struct runner_row rows[3] = {{seq, 1, NULL}, {seq, 40, NULL}, {seq, 300, logits}};
    assert_int_equal(runner_step(runner, rows, 3, PHASE_PREFILL, &err), PH_OK);
    runner_free(runner);
}

static void scales_add_up(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct model *model = open_model(MODELS "base-F32.gguf");
    struct lora *lora = NULL;
    struct ph_err err = {0};
    static float base[512], none[512], whole[512], halves[512];
    assert_int_equal(model_info(model)->n_vocab, 512);
    assert_int_equal(lora_open(&lora, model, MODELS "base-lora-r8.gguf", &err), PH_OK);
    run_with(model, NULL, NULL, 0, base);
    run_with(model, lora, (const float[]){0.0f}, 1, none);
    run_with(model, lora, (const float[]){1.0f}, 1, whole);
    run_with(model, lora, (const float[]){0.25f, 0.75f}, 2, halves);
    assert_true(rel_l2(none, base, 512) < 1e-6);
    assert_true(rel_l2(whole, base, 512) > 1e-2);
    assert_true(rel_l2(halves, whole, 512) < 1e-5);
    lora_free(lora);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_that_do_not_fit_are_refused),
        cmocka_unit_test(adapters_belong_to_their_model),
        cmocka_unit_test(scales_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
