/* The trainer: exact resumption, mixtures, accumulation, validation, model files, and that a step allocates
 * nothing (this program brings its own base/mem.h functions, so that it can count). */
#include <math.h>
#include <stdatomic.h>

#include "base/mem.h"
#include "train/reference.h"
#include "train/train.h"
#include "train/training.h"

/* ---- The allocator, counting */
static atomic_size_t allocations;

void *mem_alloc(size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return malloc(size ? size : 1);
}

void *mem_calloc(size_t count, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return calloc(count ? count : 1, size ? size : 1);
}

void *mem_realloc(void *old, size_t count, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    if (size != 0 && count > SIZE_MAX / size)
        return NULL;
    return realloc(old, count * size > 0 ? count * size : 1);
}

void *mem_alloc_aligned(size_t alignment, size_t size)
{
    void *memory = NULL;
    atomic_fetch_add(&allocations, 1);
    if (posix_memalign(&memory, alignment, size ? size : 1) != 0)
        return NULL;
    return memset(memory, 0, size ? size : 1);
}

char *mem_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = mem_alloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

void mem_free(void *memory)
{
    free(memory);
}

static int open_training(void **state)
{
    struct training *t = malloc(sizeof *t);
    training_open(t);
    *state = t;
    return 0;
}

static int close_training(void **state)
{
    training_close(*state);
    free(*state);
    return 0;
}

/* ---- Going on exactly */

enum { STEPS = 30 };

static void check_resumed(struct training *t, const struct trainer_params *params, size_t at)
{
    char path[160];
    double whole[STEPS], parts[STEPS];
    struct ph_err err;
    struct pool *three = training_pool(3), *one = training_pool(1);
    training_path(t, "checkpoint", path);
    struct trainer *undisturbed = training_start(params, three);
    training_steps(undisturbed, STEPS, whole);
    struct trainer *first = training_start(params, three);
    training_steps(first, at, parts);
    assert_int_equal(trainer_save(first, path, NULL), PH_OK);
    training_steps(first, 2, NULL); /* lost */
    trainer_free(first);
    struct trainer *second = training_start(params, one); /* lanes don't matter */
    if (trainer_load(second, path, false, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_int_equal(trainer_step_at(second), at);
    training_steps(second, STEPS - at, parts + at);
    for (size_t i = 0; i < STEPS; i++)
        if (memcmp(&whole[i], &parts[i], sizeof whole[i]) != 0)
            fail_msg("step %zu: loss %.17g, not %.17g", i + 1, parts[i], whole[i]);
    assert_same_state(undisturbed, second);
    assert_true(trainer_epoch(undisturbed) > 1); /* an epoch has ended on the way */
    trainer_free(undisturbed);
    trainer_free(second);
    pool_free(three);
    pool_free(one);
}

static void a_resumed_run_is_the_undisturbed_one(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t);
    p.batch = 8;
    check_resumed(t, &p, 0);
    check_resumed(t, &p, 17);
    p.source_count = TRAINING_FILES;
    p.accumulate = 3;
    p.model.bf16 = true;
    p.model.tied = false;
    check_resumed(t, &p, 13);
    p.schedule = SCHEDULE_SQRT;
    p.cooldown = 0.5;
    p.recompute = RECOMPUTE_ALWAYS;
    p.muon = true;
    check_resumed(t, &p, 20);
}

static void cooling_down_is_resumed_too(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t);
    char path[160];
    double rates[2][8];
    struct trainer_report report;
    struct pool *pool = training_pool(2);
    p.schedule = SCHEDULE_LINEAR;
    p.steps = 1000;
    p.warmup = 5;
    training_path(t, "checkpoint", path);
    struct trainer *trainer = training_start(&p, pool), *second = training_start(&p, pool);
    training_steps(trainer, 10, NULL);
    assert_int_equal(trainer_cool_down(trainer, 8, NULL), PH_OK);
    assert_int_equal(trainer_step_end(trainer), 18);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(trainer_step(trainer, &report, NULL), PH_OK);
        rates[0][i] = report.rate;
        assert_near(report.rate, 0.01 * (double)(7 - i) / 8, 1e-12);
        if (i == 2)
            assert_int_equal(trainer_save(trainer, path, NULL), PH_OK);
    }
    assert_int_equal(trainer_load(second, path, false, NULL), PH_OK);
    assert_int_equal(trainer_cool_down(second, 99, NULL), PH_OK); /* asked again: it is the same one */
    for (size_t i = 3; i < 8; i++) {
        assert_int_equal(trainer_step(second, &report, NULL), PH_OK);
        rates[1][i] = report.rate;
        assert_near(rates[1][i], rates[0][i], 0);
    }
    assert_same_state(trainer, second);
    trainer_free(trainer);
    trainer_free(second);
    p.schedule = SCHEDULE_COSINE;
    trainer = training_start(&p, pool);
    assert_int_equal(trainer_cool_down(trainer, 8, NULL), PH_ERR_ARG);
    trainer_free(trainer);
    p.schedule = SCHEDULE_LINEAR;
    p.steps = 12;
    p.cooldown = 0.5;
    trainer = training_start(&p, pool);
    training_steps(trainer, 8, NULL);
    assert_int_equal(trainer_cool_down(trainer, 8, NULL), PH_ERR_ARG); /* falling already */
    trainer_free(trainer);
    pool_free(pool);
}

/* ---- Steps */

static void steps_allocate_nothing(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t);
    struct pool *pool = training_pool(2);
    p.source_count = TRAINING_FILES;
    p.accumulate = 2;
    for (int other = 0; other < 2; other++) {
        if (other) {
            p.model.bf16 = p.muon = true;
            p.model.tied = false;
            p.recompute = RECOMPUTE_ALWAYS;
        }
        struct trainer *trainer = training_start(&p, pool);
        size_t before = atomic_load(&allocations);
        training_steps(trainer, 60, NULL); /* beyond an epoch */
        assert_int_equal(atomic_load(&allocations), before);
        assert_true(trainer_epoch(trainer) > 1);
        trainer_free(trainer);
    }
    pool_free(pool);
}

static void micro_batches_are_one_larger_batch(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t);
    struct pool *pool = training_pool(2);
    double whole[10], parts[10];
    p.source_count = TRAINING_FILES; /* rows that do not count are spread unevenly over the parts */
    p.batch = 6;
    struct trainer *trainer = training_start(&p, pool);
    training_steps(trainer, 10, whole);
    trainer_free(trainer);
    p.batch = 2;
    p.accumulate = 3;
    trainer = training_start(&p, pool);
    training_steps(trainer, 10, parts);
    for (size_t i = 0; i < 10; i++)
        assert_near(parts[i], whole[i], 2e-5);
    trainer_free(trainer);
    pool_free(pool);
}

static void a_model_learns_its_text(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t);
    struct trainer_validation before, after;
    struct pool *pool = training_pool(2);
    double losses[200];
    p.model.d = 16;
    p.steps = 200;
    struct trainer *trainer = training_start(&p, pool);
    assert_int_equal(trainer_validate(trainer, false, &before, NULL), PH_OK);
    training_steps(trainer, 200, losses);
    assert_int_equal(trainer_validate(trainer, false, &after, NULL), PH_OK);
    print_message("loss %.3f to %.3f, held out %.3f to %.3f\n", losses[0], losses[199], before.loss,
                  after.loss);
    assert_near(losses[0], log((double)p.model.vocab + 280), 0.5);
    assert_true(losses[199] < losses[0] - 2 && after.loss < before.loss - 2);
    trainer_free(trainer);
    pool_free(pool);
}

static void losing_the_numbers_is_said(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t);
    struct trainer_report report;
    struct ph_err err;
    struct pool *pool = training_pool(1);
    char path[160];
    struct trainer *trainer = training_start(&p, pool);
    training_path(t, "no", path);
    training_steps(trainer, 3, NULL);
    decoder_weights(trainer->decoder)[5] = NAN;
    assert_int_equal(trainer_save(trainer, path, &err), PH_ERR_LIMIT);
    assert_non_null(strstr(err.message, "step 3"));
    assert_int_not_equal(access(path, F_OK), 0);
    decoder_weights(trainer->decoder)[5] = 0;
    assert_int_equal(trainer_save(trainer, path, &err), PH_OK);
    unlink(path);
    size_t count; /* a norm: every row goes through it */
    decoder_weights(trainer->decoder)[decoder_params(trainer->decoder, &count)[1].offset] = 3e38f;
    for (size_t i = 0; i < p.time; i++) /* nothing of the last step's first window counted */
        trainer->weights[i] = 0;
    assert_int_equal(trainer_save(trainer, path, &err), PH_ERR_LIMIT); /* finite, and yet too much */
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(trainer_step(trainer, &report, &err), PH_ERR_LIMIT);
    assert_non_null(strstr(err.message, "step 4"));
    trainer_free(trainer);
    pool_free(pool);
}

/* ---- Mixtures */

static void windows_come_by_shares(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t);
    struct pool *pool = training_pool(1);
    const double weights[TRAINING_FILES] = {1, 4, 2.5};
    for (int weighted = 0; weighted < 2; weighted++) {
        double windows[TRAINING_FILES], total = 0;
        p.source_count = TRAINING_FILES;
        for (size_t i = 0; i < TRAINING_FILES; i++)
            t->sources[i].weight = weighted ? weights[i] : 0;
        struct trainer *trainer = training_start(&p, pool);
        for (size_t i = 0; i < TRAINING_FILES; i++)
            windows[i] = weighted ? weights[i] : (double)batcher_windows(trainer->mix.sources[i].batcher);
        for (size_t i = 0; i < TRAINING_FILES; i++)
            total += windows[i];
        for (uint64_t steps = 1; steps <= 25; steps++) {
            training_steps(trainer, 1, NULL);
            assert_int_equal(mix_given(&trainer->mix), 4 * steps);
            for (size_t i = 0; i < TRAINING_FILES; i++) {
                struct batcher *b = trainer->mix.sources[i].batcher;
                struct batcher_position at = batcher_position(b);
                double given = (double)(at.epoch * batcher_windows(b) + at.index);
                assert_near(given, 4 * (double)steps * windows[i] / total, 1.5);
            }
        }
        trainer_free(trainer);
    }
    t->sources[1].weight = 0;
    struct trainer *trainer;
    assert_int_equal(trainer_create(&trainer, pool, &p, NULL), PH_ERR_ARG); /* all weights, or none */
    for (size_t i = 0; i < TRAINING_FILES; i++)
        t->sources[i].weight = 0;
    pool_free(pool);
}

static void refuse(const struct trainer_params *p, enum ph_status wanted, const char *word)
{
    struct pool *pool = training_pool(1);
    struct trainer *trainer;
    struct ph_err err = {0};
    enum ph_status status = trainer_create(&trainer, pool, p, &err);
    if (status != wanted || !strstr(err.message, word))
        fail_msg("%s instead of %s: \"%s\" (%s)", ph_status_name(status), ph_status_name(wanted), err.message,
                 word);
    assert_null(trainer);
    pool_free(pool);
}

static void what_can_not_be_trained_is_said(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t), good = p;
    p.tokenizer = t->other_vocab;
    refuse(&p, PH_ERR_ARG, "another tokenizer");
    p = good;
    p.tokenizer = NULL;
    refuse(&p, PH_ERR_ARG, "tokenizer");
    p = good;
    p.time = 100000;
    refuse(&p, PH_ERR_ARG, "0.tokens");
    p = good;
    p.source_count = 0;
    refuse(&p, PH_ERR_ARG, "data");
    p = good;
    p.batch = 0;
    refuse(&p, PH_ERR_ARG, "batch");
    p = good;
    p.batch = p.accumulate = 1 << 20;
    refuse(&p, PH_ERR_LIMIT, "too large");
    p.batch = p.accumulate = 1 << 12;
    p.time = 0; /* 256 */
    refuse(&p, PH_ERR_LIMIT, "windows of 256 tokens is too large");
    p = good;
    p.floor = 1;
    refuse(&p, PH_ERR_ARG, "floor");
    p = good;
    p.beta2 = 1;
    refuse(&p, PH_ERR_ARG, "beta2");
    p = good;
    p.model.heads = 3;
    refuse(&p, PH_ERR_ARG, "heads");
    p = good;
    t->sources[0].path = t->vocab;
    refuse(&p, PH_ERR_FORMAT, "v.gguf");
    t->sources[0].path = t->data[0];
}

static void sizes_left_out_are_chosen(void **state)
{
    struct training *t = *state;
    const size_t rows[][3] = {{2, 1, 32}, {64, 1, 192}, {100, 1, 288}, {288, 4, 768}, {320, 5, 864}};
    struct pool *pool = training_pool(1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct trainer_params p = training_params(t);
        p.model = (struct decoder_config){.d = rows[i][0], .layers = 1};
        struct trainer *trainer = training_start(&p, pool);
        const struct trainer_params *chosen = trainer_params(trainer);
        assert_int_equal(chosen->model.heads, rows[i][1]);
        assert_int_equal(chosen->model.kv_heads, rows[i][1]);
        assert_int_equal(chosen->model.head_dim, rows[i][0] / rows[i][1]);
        assert_int_equal(chosen->model.ff, rows[i][2]);
        assert_int_equal(chosen->model.context, p.time);
        assert_int_equal(chosen->warmup, 3);
        assert_near(chosen->floor, 0.001, 1e-12);
        trainer_free(trainer);
    }
    struct trainer_params p = training_params(t);
    p.steps = 0;
    struct trainer *trainer = training_start(&p, pool);
    assert_int_equal(trainer_params(trainer)->steps, trainer->mix.windows / 4); /* one epoch */
    trainer_free(trainer);
    p.tokens = 481;
    trainer = training_start(&p, pool);
    assert_int_equal(trainer_params(trainer)->steps, 11); /* of 48 tokens */
    trainer_free(trainer);
    pool_free(pool);
}

/* ---- Validation */

/* One window after the other, the loss and the bits of every predicted token's text. */
static void validation_is_the_mean_over_held_out_tokens(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t);
    struct trainer_validation some, again, all;
    struct window_set few;
    struct pool *pool = training_pool(2);
    p.source_count = TRAINING_FILES;
    p.batch = 5; /* the last batch is a part */
    struct trainer *trainer = training_start(&p, pool);
    training_steps(trainer, 5, NULL);
    assert_int_equal(trainer_validate(trainer, false, &some, NULL), PH_OK);
    training_steps(trainer, 1, NULL);
    training_steps(trainer, 0, NULL);
    assert_int_equal(trainer_validate(trainer, false, &again, NULL), PH_OK);
    assert_true(some.windows >= 6 && some.windows <= 10);
    assert_true(some.loss > again.loss); /* a step was made */
    assert_int_equal(window_set_open(&few, &trainer->mix, p.time, 1, NULL), PH_OK);
    assert_int_equal(few.count, TRAINING_FILES); /* one of each, however few are wanted */
    window_set_release(&few);
    assert_int_equal(window_set_open(&few, &trainer->mix, p.time, 0, NULL), PH_OK);
    assert_int_equal(few.count, 0);
    window_set_release(&few);
    assert_int_equal(trainer_validate(trainer, true, &all, NULL), PH_OK);
    struct window_set set;
    assert_int_equal(window_set_open(&set, &trainer->mix, p.time, SIZE_MAX, NULL), PH_OK);
    double loss = 0;
    uint64_t tokens = 0, bytes = 0;
    for (size_t w = 0; w < set.count; w++) {
        float weights[12], losses[12];
        int32_t targets[12];
        for (size_t i = 0; i < 12; i++) {
            bool counts = set.targets[w * 12 + i];
            targets[i] = counts ? set.tokens[w * 13 + i + 1] : -1;
            weights[i] = counts;
            tokens += counts;
            bytes += counts ? trainer->piece_bytes[targets[i]] : 0;
        }
        const struct decoder_batch batch = {1, 12, set.tokens + w * 13, targets, weights};
        loss += decoder_evaluate(trainer->decoder, &batch, losses);
    }
    assert_int_equal(all.windows, set.count);
    assert_int_equal(all.tokens, tokens);
    assert_true(bytes > tokens);
    assert_near(all.loss, loss / (double)tokens, 1e-6);
    assert_near(all.bits_per_byte, loss / log(2) / (double)bytes, 1e-6);
    window_set_release(&set);
    trainer_free(trainer);
    pool_free(pool);
}

/* ---- Model files */

static void a_model_file_goes_on_as_its_trainer(void **state)
{
    struct training *t = *state;
    struct trainer_params p = training_params(t);
    struct pool *pool = training_pool(1);
    struct trainer_validation then, now;
    char path[160];
    struct model *model;
    training_path(t, "m.gguf", path);
    p.model.kv_heads = 1;
    p.model.head_dim = 6;
    p.model.rope_base = 500;
    p.model.tied = false;
    struct trainer *trainer = training_start(&p, pool), *second;
    training_steps(trainer, 10, NULL);
    assert_int_equal(trainer_validate(trainer, true, &then, NULL), PH_OK);
    assert_int_equal(trainer_export(trainer, path, "a name", NULL), PH_OK);
    assert_int_equal(model_open(&model, path, false, NULL), PH_OK);
    assert_string_equal(model_info(model)->name, "a name");
    assert_int_equal(model_info(model)->n_context_train, 12);
    model_free(model);
    struct trainer_params from = training_params(t);
    from.init = path;
    from.tokenizer = NULL;
    from.model = (struct decoder_config){.tied = true};
    second = training_start(&from, pool);
    assert_memory_equal(decoder_weights(trainer->decoder), decoder_weights(second->decoder),
                        decoder_len(trainer->decoder) * sizeof(float));
    assert_int_equal(trainer_validate(second, true, &now, NULL), PH_OK);
    assert_near(now.loss, then.loss, 0);
    trainer_free(second);
    from.model.layers = 2;
    refuse(&from, PH_ERR_ARG, "layers");
    from.model.layers = 0;
    from.tokenizer = t->other_vocab;
    refuse(&from, PH_ERR_ARG, "another vocabulary");
    from.init = t->vocab; /* no model in it */
    from.tokenizer = NULL;
    refuse(&from, PH_ERR_FORMAT, "llama.embedding_length");
    trainer_free(trainer);
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_resumed_run_is_the_undisturbed_one),
        cmocka_unit_test(cooling_down_is_resumed_too),
        cmocka_unit_test(steps_allocate_nothing),
        cmocka_unit_test(micro_batches_are_one_larger_batch),
        cmocka_unit_test(a_model_learns_its_text),
        cmocka_unit_test(losing_the_numbers_is_said),
        cmocka_unit_test(windows_come_by_shares),
        cmocka_unit_test(what_can_not_be_trained_is_said),
        cmocka_unit_test(sizes_left_out_are_chosen),
        cmocka_unit_test(validation_is_the_mean_over_held_out_tokens),
        cmocka_unit_test(a_model_file_goes_on_as_its_trainer),
    };
    return cmocka_run_group_tests(tests, open_training, close_training);
}
