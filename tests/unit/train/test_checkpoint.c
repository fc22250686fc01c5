/* Checkpoint files: what was saved is there, no byte can change unseen, and settings that differ are named. */
#include <math.h>

#include "base/file.h"
#include "base/mem.h"
#include "train/corpus_int.h"
#include "train/train.h"
#include "train/training.h"

struct place {
    struct training training;
    struct pool *pool;
    char path[160], again[160];
};

static int open_place(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    training_open(&p->training);
    training_path(&p->training, "checkpoint", p->path);
    training_path(&p->training, "again", p->again);
    p->pool = training_pool(1);
    *state = p;
    return 0;
}

static int close_place(void **state)
{
    struct place *p = *state;
    pool_free(p->pool);
    training_close(&p->training);
    free(p);
    return 0;
}

static struct trainer_params small(struct place *p)
{
    struct trainer_params params = training_params(&p->training);
    params.model.d = 4;
    params.model.ff = 2;
    params.source_count = 2;
    return params;
}

static void saved_after(struct place *p, const struct trainer_params *params, size_t steps)
{
    struct ph_err err;
    struct trainer *trainer = training_start(params, p->pool);
    training_steps(trainer, steps, NULL);
    if (trainer_save(trainer, p->path, &err) != PH_OK)
        fail_msg("%s", err.message);
    trainer_free(trainer);
}

static void read_bytes(const char *path, struct buf *bytes)
{
    buf_init(bytes, 1 << 24);
    assert_int_equal(file_read(path, bytes, NULL), PH_OK);
}

static void what_is_loaded_is_saved_again_as_the_same_bytes(void **state)
{
    struct place *p = *state;
    struct trainer_params params = small(p);
    struct buf one, other;
    struct ph_err err;
    saved_after(p, &params, 7);
    struct trainer *trainer = training_start(&params, p->pool);
    if (trainer_load(trainer, p->path, false, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_int_equal(trainer_save(trainer, p->again, NULL), PH_OK);
    trainer_free(trainer);
    read_bytes(p->path, &one);
    read_bytes(p->again, &other);
    assert_int_equal(one.len, other.len);
    assert_memory_equal(one.data, other.data, one.len);
    buf_release(&one);
    buf_release(&other);
}

static void no_byte_changes_unseen(void **state)
{
    struct place *p = *state;
    struct trainer_params params = small(p);
    struct checkpoint c;
    struct buf bytes;
    saved_after(p, &params, 2);
    read_bytes(p->path, &bytes);
    assert_int_equal(checkpoint_open_memory(&c, bytes.data, bytes.len, "c", NULL), PH_OK);
    assert_int_equal(c.step, 2);
    for (size_t i = 0; i < bytes.len; i += SANITIZED && i > 4000 ? 13 : 1) {
        struct ph_err err = {0};
        char was = bytes.data[i];
        bytes.data[i] = (char)(was ^ (1 << i % 8));
        if (checkpoint_open_memory(&c, bytes.data, bytes.len, "c", &err) != PH_ERR_FORMAT)
            fail_msg("byte %zu of %zu changed unseen", i, bytes.len);
        assert_non_null(strstr(err.message, "c: byte "));
        bytes.data[i] = was;
    }
    for (size_t len = 0; len < bytes.len; len++)
        if (checkpoint_open_memory(&c, bytes.data, len, "c", NULL) != PH_ERR_FORMAT)
            fail_msg("%zu of %zu bytes are taken for whole", len, bytes.len);
    buf_release(&bytes);
}

static void put_u64(char *at, uint64_t value)
{
    for (size_t i = 0; i < 8; i++)
        at[i] = (char)(value >> (8 * i));
}

/* Numbers that lie, with their checksum put right. */
static void sections_beyond_the_file_are_refused(void **state)
{
    static const uint64_t lies[] = {
        0, 1, 7, (uint64_t)1 << 20, (uint64_t)1 << 61, UINT64_MAX / 24, UINT64_MAX - 7, UINT64_MAX};
    struct place *p = *state;
    struct trainer_params params = small(p);
    struct checkpoint c;
    struct buf bytes;
    saved_after(p, &params, 2);
    read_bytes(p->path, &bytes);
    for (size_t at = 8; at <= 40; at += 8) {
        char was[8];
        memcpy(was, bytes.data + at, 8);
        for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
            put_u64(bytes.data + at, lies[i]);
            put_u64(bytes.data + 120, corpus_sum(bytes.data, 120));
            assert_int_equal(checkpoint_open_memory(&c, bytes.data, bytes.len, "c", NULL), PH_ERR_FORMAT);
        }
        memcpy(bytes.data + at, was, 8);
    }
    put_u64(bytes.data + 120, corpus_sum(bytes.data, 120));
    assert_int_equal(checkpoint_open_memory(&c, bytes.data, bytes.len, "c", NULL), PH_OK);
    buf_release(&bytes);
}

/* ---- Settings */

static void expect_load(struct place *p, const struct trainer_params *params, bool adapt,
                        enum ph_status wanted, const char *word)
{
    struct ph_err err = {0};
    struct trainer *trainer = training_start(params, p->pool);
    enum ph_status status = trainer_load(trainer, p->path, adapt, &err);
    if (status != wanted || (wanted != PH_OK && strncmp(err.message, word, strlen(word)) != 0))
        fail_msg("%s with a different %s: %s", ph_status_name(status), word, err.message);
    trainer_free(trainer);
}

static void settings_that_differ_are_named(void **state)
{
    struct place *p = *state;
    struct trainer_params good = small(p), params;
    saved_after(p, &good, 3);
#define EXPECT(member, value, key)                        \
    do {                                                  \
        params = good;                                    \
        params.member = value;                            \
        expect_load(p, &params, false, PH_ERR_ARG, key);  \
        expect_load(p, &params, true, PH_OK, "adapting"); \
    } while (0)
    EXPECT(model.context, 64, "context is 64, but ");
    EXPECT(model.rope_base, 99, "rope_base");
    EXPECT(model.bf16, true, "bf16");
    EXPECT(batch, 5, "batch");
    EXPECT(accumulate, 2, "accumulate");
    EXPECT(rate, 0.02, "rate is 0.02");
    EXPECT(floor, 0.002, "floor");
    EXPECT(warmup, 9, "warmup");
    EXPECT(schedule, SCHEDULE_LINEAR, "schedule is wsd, but ");
    EXPECT(decay, 0, "decay");
    EXPECT(beta1, 0.5, "beta1");
    EXPECT(beta2, 0.5, "beta2");
    EXPECT(eps, 0.1, "eps");
    EXPECT(clip, 0, "clip");
    EXPECT(muon, true, "muon");
    EXPECT(seed, 1, "seed");
    EXPECT(source_count, 1, "data[0]"); /* its share is another one */
    EXPECT(source_count, 3, "data[0]");
#undef EXPECT
    params = good;
    params.model.layers = 2;
    expect_load(p, &params, false, PH_ERR_ARG, "layers is 2, but ");
    expect_load(p, &params, true, PH_ERR_ARG, "layers is 2, but ");
    struct ph_err err;
    struct trainer *trainer = training_start(&params, p->pool);
    assert_int_equal(trainer_load(trainer, p->path, false, &err), PH_ERR_ARG);
    assert_null(strstr(err.message, "--adapt")); /* which would not help */
    trainer_free(trainer);
    params = good;
    params.time = 11; /* the context follows */
    expect_load(p, &params, false, PH_ERR_ARG, "context");
}

static void lengths_of_the_run_may_change(void **state)
{
    struct place *p = *state;
    struct trainer_params params = small(p);
    saved_after(p, &params, 3);
    params.steps = 500; /* would choose a longer warm-up at the beginning */
    params.validation_windows = 2;
    params.recompute = RECOMPUTE_ALWAYS;
    expect_load(p, &params, false, PH_OK, "");
}

static uint64_t given(const struct trainer *trainer, size_t source)
{
    return mix_source_given(&trainer->mix.sources[source]);
}

/* Files known go on where they were, and the new shares hold from there; other windows begin anew. */
static void a_new_mixture_goes_on_in_each_file(void **state)
{
    struct place *p = *state;
    struct trainer_params params = small(p);
    struct trainer_source reversed[] = {p->training.sources[2], p->training.sources[1],
                                        p->training.sources[0]};
    saved_after(p, &params, 10); /* 40 windows of files 0 and 1 */
    struct trainer *trainer = training_start(&params, p->pool);
    assert_int_equal(trainer_load(trainer, p->path, true, NULL), PH_OK);
    uint64_t first = given(trainer, 0), second = given(trainer, 1);
    assert_int_equal(first + second, 40);
    trainer_free(trainer);

    reversed[0].weight = reversed[1].weight = 1;
    reversed[2].weight = 2;
    params.sources = reversed;
    params.source_count = 3;
    trainer = training_start(&params, p->pool);
    assert_int_equal(trainer_load(trainer, p->path, true, NULL), PH_OK);
    assert_int_equal(trainer_step_at(trainer), 10);
    for (uint64_t steps = 0; steps <= 5; steps++) {
        assert_int_equal(given(trainer, 0), steps);
        assert_int_equal(given(trainer, 1), second + steps);
        assert_int_equal(given(trainer, 2), first + 2 * steps);
        if (steps == 3)
            assert_int_equal(trainer_save(trainer, p->path, NULL), PH_OK);
        training_steps(trainer, 1, NULL);
    }
    struct trainer *again = training_start(&params, p->pool);
    assert_int_equal(trainer_load(again, p->path, false, NULL), PH_OK);
    assert_int_equal(given(again, 2), first + 6);
    training_steps(again, 3, NULL);
    assert_same_state(trainer, again);
    trainer_free(again);
    trainer_free(trainer);

    params.seed = 5;
    trainer = training_start(&params, p->pool);
    assert_int_equal(trainer_load(trainer, p->path, true, NULL), PH_OK);
    assert_int_equal(mix_given(&trainer->mix), 0);
    trainer_free(trainer);
}

static void what_is_no_checkpoint_is_said(void **state)
{
    struct place *p = *state;
    struct trainer_params params = small(p);
    struct ph_err err;
    struct trainer *trainer = training_start(&params, p->pool);
    assert_int_equal(trainer_load(trainer, p->training.vocab, false, &err), PH_ERR_FORMAT);
    assert_non_null(strstr(err.message, "v.gguf: byte 0"));
    assert_int_equal(trainer_load(trainer, "/no/such/file", false, &err), PH_ERR_NOTFOUND);
    trainer_free(trainer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_loaded_is_saved_again_as_the_same_bytes),
        cmocka_unit_test(no_byte_changes_unseen),
        cmocka_unit_test(sections_beyond_the_file_are_refused),
        cmocka_unit_test(settings_that_differ_are_named),
        cmocka_unit_test(lengths_of_the_run_may_change),
        cmocka_unit_test(a_new_mixture_goes_on_in_each_file),
        cmocka_unit_test(what_is_no_checkpoint_is_said),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}
