/* Structured pruning: what is useless is found exactly, importance is a slope, shapes and refusals. */
#include <math.h>

#include "base/mem.h"
#include "train/reference.h"
#include "train/train.h"
#include "train/training.h"

enum { BATCH = 3, TIME = 9, ROWS = BATCH * TIME, VOCAB = 41, FF = 48, GROUPS = 3, LAYERS = 2 };

static const struct decoder_config shape = {.vocab = VOCAB,
                                            .d = 20,
                                            .layers = LAYERS,
                                            .heads = 6,
                                            .kv_heads = GROUPS,
                                            .head_dim = 4,
                                            .ff = FF,
                                            .context = TIME,
                                            .rope_base = 100,
                                            .norm_eps = 1e-5f};

struct fixture {
    struct pool *pool;
    struct decoder *decoder;
    struct saliency saliency;
    int32_t tokens[ROWS], targets[ROWS];
    float weights[ROWS];
    struct decoder_batch batch;
};

static void open_fixture(struct fixture *f)
{
    assert_int_equal(pool_create(&f->pool, 2, 0, kernels_select(NULL), NULL), PH_OK);
    assert_int_equal(decoder_create(&f->decoder, f->pool, &shape, BATCH, TIME, NULL), PH_OK);
    fill_random(5, 0.5, decoder_weights(f->decoder), NULL, decoder_len(f->decoder));
    for (size_t r = 0; r < ROWS; r++) {
        f->tokens[r] = (int32_t)(r * 5 % VOCAB);
        f->targets[r] = (int32_t)((r * 17 + 3) % VOCAB);
    }
    f->batch = (struct decoder_batch){BATCH, TIME, f->tokens, f->targets, f->weights};
    loss_weights_token_mean(f->targets, ROWS, f->weights);
    assert_int_equal(saliency_init(&f->saliency, f->decoder, NULL), PH_OK);
}

static void close_fixture(struct fixture *f)
{
    saliency_release(&f->saliency);
    decoder_free(f->decoder);
    pool_free(f->pool);
}

static void add_batch(struct fixture *f)
{
    decoder_clear_gradients(f->decoder);
    decoder_accumulate(f->decoder, &f->batch);
    saliency_add(&f->saliency, f->decoder);
}

static float *part(struct decoder *decoder, size_t layer, const char *name, size_t *cols)
{
    size_t count;
    char full[64];
    const struct param *params = decoder_params(decoder, &count);
    snprintf(full, sizeof full, "blk.%zu.%s.weight", layer, name);
    for (size_t i = 0; i < count; i++)
        if (strcmp(params[i].name, full) == 0) {
            *cols = params[i].cols;
            return decoder_weights(decoder) + params[i].offset;
        }
    fail_msg("there is no %s", full);
    return NULL;
}

static void clear_row(struct decoder *decoder, size_t layer, const char *name, size_t row)
{
    size_t cols;
    float *w = part(decoder, layer, name, &cols);
    memset(w + row * cols, 0, cols * sizeof *w);
}

static bool useless_column(size_t layer, size_t column)
{
    return (column * 7 + layer * 5) % 3 == 1; /* 16 of 48 */
}

/* Values of a group are 0; columns are useless by the gate or by what it lets through. */
static void plant(struct decoder *decoder)
{
    static const size_t useless_group[LAYERS] = {1, 0};
    for (size_t l = 0; l < LAYERS; l++) {
        for (size_t i = 0; i < 4; i++)
            clear_row(decoder, l, "attn_v", useless_group[l] * 4 + i);
        for (size_t j = 0; j < FF; j++)
            if (useless_column(l, j))
                clear_row(decoder, l, j % 2 ? "ffn_gate" : "ffn_up", j);
    }
}

static void the_useless_is_found_exactly(void **state)
{
    (void)state;
    struct fixture f;
    struct decoder *smaller;
    open_fixture(&f);
    plant(f.decoder);
    add_batch(&f);
    assert_int_equal(decoder_prune(&smaller, f.pool, f.decoder, &f.saliency, 4, 32, BATCH, TIME, NULL),
                     PH_OK);
    const struct decoder_config *c = decoder_config(smaller);
    assert_true(c->heads == 4 && c->kv_heads == 2 && c->ff == 32 && c->head_dim == 4 && c->d == 20);
    double before = decoder_evaluate(f.decoder, &f.batch, NULL);
    assert_near(decoder_evaluate(smaller, &f.batch, NULL), before, 1e-6); /* nothing was lost */
    for (size_t l = 0; l < LAYERS; l++) {
        size_t old_cols, new_cols, at = 0;
        const float *old = part(f.decoder, l, "ffn_down", &old_cols),
                    *new = part(smaller, l, "ffn_down", &new_cols);
        assert_true(old_cols == FF && new_cols == 32);
        for (size_t j = 0; j < FF; j++)
            if (!useless_column(l, j))
                assert_true(new[at++] == old[j]); /* in their old order */
    }
    decoder_free(smaller);
    /* One more leaves, and that is felt. */
    assert_int_equal(decoder_prune(&smaller, f.pool, f.decoder, &f.saliency, 2, 16, BATCH, TIME, NULL),
                     PH_OK);
    assert_true(fabs(decoder_evaluate(smaller, &f.batch, NULL) - before) > 1e-4);
    decoder_free(smaller);
    close_fixture(&f);
}

static void scale_columns(struct decoder *decoder, const char *name, size_t first, size_t count, float by)
{
    size_t cols;
    float *w = part(decoder, 1, name, &cols);
    for (size_t r = 0; r < shape.d; r++)
        for (size_t i = first; i < first + count; i++)
            w[r * cols + i] *= by;
}

static void check_slope(struct fixture *f, const char *name, size_t first, size_t count, double saliency)
{
    const float up = 1.01f, down = 0.99f;
    scale_columns(f->decoder, name, first, count, up);
    double above = decoder_evaluate(f->decoder, &f->batch, NULL);
    scale_columns(f->decoder, name, first, count, down / up);
    double below = decoder_evaluate(f->decoder, &f->batch, NULL);
    scale_columns(f->decoder, name, first, count, 1 / down);
    assert_near(saliency, fabs(above - below) / 0.02, 2e-3 * saliency + 2e-5);
}

static void importance_is_the_slope_of_the_loss(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f);
    add_batch(&f);
    double once = f.saliency.of_columns[FF + 3];
    for (size_t g = 0; g < GROUPS; g++)
        check_slope(&f, "attn_output", g * 8, 8, f.saliency.of_groups[GROUPS + g]);
    for (size_t j = 0; j < FF; j += 5)
        check_slope(&f, "ffn_down", j, 1, f.saliency.of_columns[FF + j]);
    add_batch(&f);
    assert_near(f.saliency.of_columns[FF + 3], 2 * once, 1e-4 * once);
    close_fixture(&f);
}

static void impossible_sizes_are_refused_in_words(void **state)
{
    (void)state;
    struct fixture f;
    struct decoder *smaller;
    struct ph_err err;
    open_fixture(&f);
    const size_t wrong[][2] = {{3, 32}, {8, 32}, {0, 32}, {4, 40}, {4, 64}, {4, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(decoder_prune(&smaller, f.pool, f.decoder, &f.saliency, wrong[i][0], wrong[i][1],
                                       BATCH, TIME, &err),
                         PH_ERR_ARG);
        assert_non_null(strstr(err.message, "multiple of"));
        assert_null(smaller);
    }
    close_fixture(&f);
}

static void a_trainer_goes_on_with_less(void **state)
{
    (void)state;
    struct training t;
    struct trainer_report report;
    struct trainer_validation before, after;
    struct ph_err err = {0};
    char path[160];
    training_open(&t);
    struct pool *pool = training_pool(2);
    struct trainer_params params = training_params(&t);
    params.model.d = 16;
    params.model.heads = 4;
    params.model.kv_heads = 2;
    params.model.ff = 64;
    struct trainer *trainer = training_start(&params, pool);
    double losses[5];
    training_steps(trainer, 5, losses);
    size_t len = decoder_len(trainer_decoder(trainer));
    assert_int_equal(trainer_validate(trainer, true, &before, NULL), PH_OK);
    struct prune_params half = {.keep = 0.5, .windows = 7};
    if (trainer_prune(trainer, &half, NULL, NULL, &err) != PH_OK)
        fail_msg("%s", err.message);
    const struct decoder_config *c = &trainer_params(trainer)->model;
    assert_true(c->heads == 2 && c->kv_heads == 1 && c->ff == 32 && c->head_dim == 4);
    assert_true(decoder_len(trainer_decoder(trainer)) < len);
    assert_int_equal(trainer_validate(trainer, true, &after, NULL), PH_OK);
    assert_int_equal(after.tokens, before.tokens);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(trainer_step(trainer, &report, NULL), PH_OK);
    training_path(&t, "pruned.gguf", path);
    assert_int_equal(trainer_export(trainer, path, "pruned", NULL), PH_OK);
    params.init = path; /* and the file is a model to go on from */
    params.model = (struct decoder_config){0};
    struct trainer *again = training_start(&params, pool);
    assert_true(trainer_params(again)->model.heads == 2 && trainer_params(again)->model.head_dim == 4);
    assert_int_equal(trainer_validate(trainer, true, &before, NULL), PH_OK);
    assert_int_equal(trainer_validate(again, true, &after, NULL), PH_OK);
    assert_near(after.loss, before.loss, 0);
    trainer_free(again);
    struct prune_params none = {.keep = 0, .windows = 7};
    assert_int_equal(trainer_prune(trainer, &none, NULL, NULL, &err), PH_ERR_ARG);
    trainer_free(trainer);
    pool_free(pool);
    training_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_useless_is_found_exactly),
        cmocka_unit_test(importance_is_the_slope_of_the_loss),
        cmocka_unit_test(impossible_sizes_are_refused_in_words),
        cmocka_unit_test(a_trainer_goes_on_with_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
