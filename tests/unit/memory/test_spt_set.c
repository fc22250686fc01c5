/* The set transformer of the selector: gradients, order, BF16 against F32, learning, files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/context_int.h"
#include "memory/spt_set_int.h"
#include "test_support.h"

struct list {
    float rows[CANDIDATES_MAX][FEATURE_COUNT];
    const float *features[CANDIDATES_MAX];
    int8_t bytes[CANDIDATES_MAX][SPT_WIDTH], query[SPT_WIDTH];
    const int8_t *vectors[CANDIDATES_MAX];
    float scores[CANDIDATES_MAX];
    struct set_list list;
};

static struct list *make_list(size_t count, uint64_t seed)
{
    struct list *l = test_malloc(sizeof *l);
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t k = 0; k < SPT_WIDTH; k++)
        l->query[k] = (int8_t)(rng_u64(&rng) % 41) - 20;
    for (size_t i = 0; i < count; i++) {
        for (size_t f = 0; f < FEATURE_COUNT; f++)
            l->rows[i][f] = rng_float(&rng);
        for (size_t k = 0; k < SPT_WIDTH; k++)
            l->bytes[i][k] = (int8_t)(rng_u64(&rng) % 41) - 20;
        l->vectors[i] = l->bytes[i];
        l->features[i] = l->rows[i];
        l->scores[i] = 6 * rng_float(&rng);
    }
    l->list = (struct set_list){.count = count,
                                .features = l->features,
                                .vectors = l->vectors,
                                .query = l->query,
                                .scores = l->scores,
                                .talk = TALK_PEOPLE};
    return l;
}

/* Weights of which none is idle: the last layer begins at 0. */
static struct set_fit *make_fit(uint64_t seed)
{
    struct set_fit *fit;
    struct set_layout layout;
    struct ph_err err;
    struct rng rng;
    assert_int_equal(set_fit_create(&fit, seed, &err), PH_OK);
    set_layout_make(&layout);
    rng_init(&rng, seed);
    for (size_t i = 0; i < layout.len; i++)
        set_fit_weights(fit)[i] += 0.2f * (rng_float(&rng) - 0.5f);
    return fit;
}

static double weighted(struct set_fit *fit, const struct set_list *list)
{
    float scores[CANDIDATES_MAX];
    double sum = 0;
    set_fit_forward(fit, list, scores);
    for (size_t i = 0; i < list->count; i++)
        sum += sin((double)i + 1) * (double)scores[i];
    return sum;
}

static void test_gradients(void **state)
{
    (void)state;
    struct list *l = make_list(19, 3);
    struct set_fit *fit = make_fit(5);
    struct set_layout layout;
    float dscores[CANDIDATES_MAX];
    set_layout_make(&layout);
    for (size_t i = 0; i < l->list.count; i++)
        dscores[i] = (float)sin((double)i + 1);
    weighted(fit, &l->list);
    set_fit_backward(fit, dscores);
    float *w = set_fit_weights(fit), *g = set_fit_gradients(fit);
    for (size_t s = 0; s < SET_SLICES; s++) {
        const struct param *p = &layout.slices[s];
        double error = 0, size = 0;
        for (size_t k = 0; k < 12; k++) {
            size_t at = p->offset + k * 7919 % (p->rows * p->cols);
            float kept = w[at], step = 4e-3f;
            w[at] = kept + step;
            double up = weighted(fit, &l->list);
            w[at] = kept - step;
            double down = weighted(fit, &l->list);
            w[at] = kept;
            double numeric = (up - down) / (2 * (double)step);
            error += (numeric - (double)g[at]) * (numeric - (double)g[at]);
            size += numeric * numeric;
        }
        if (sqrt(error) > 0.02 * sqrt(size) + 1e-3)
            fail_msg("%s: gradients differ by %.3g of %.3g", p->name, sqrt(error), sqrt(size));
    }
    set_fit_free(fit);
    test_free(l);
}

static const char *path; /* of a file that a test may write */

static int make_path(void **state)
{
    static char name[] = "/tmp/pharos-set-XXXXXX";
    (void)state;
    int file = mkstemp(name);
    path = name;
    return file < 0 ? -1 : close(file);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static struct spt_set *open_weights(const float *w)
{
    struct gguf_writer *writer;
    struct gguf *gguf;
    struct spt_set *set;
    struct set_layout layout;
    struct ph_err err;
    set_layout_make(&layout);
    assert_int_equal(gguf_writer_open(&writer, path, &err), PH_OK);
    spt_set_describe(writer, &layout);
    spt_set_write(writer, &layout, w);
    assert_int_equal(gguf_writer_close(writer, &err), PH_OK);
    assert_int_equal(gguf_open(&gguf, path, &err), PH_OK);
    assert_int_equal(spt_set_open(&set, gguf, &err), PH_OK);
    assert_non_null(set);
    gguf_free(gguf);
    return set;
}

/* What a station computes in BF16 is what training computed, for every size of a list. */
static void test_run(void **state)
{
    (void)state;
    const size_t counts[] = {1, 2, 17, 64, 255, 256};
    struct set_fit *fit = make_fit(7);
    struct spt_set *set = open_weights(set_fit_weights(fit));
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        struct list *l = make_list(counts[c], 11 + c);
        float expected[CANDIDATES_MAX], corrections[CANDIDATES_MAX];
        double error = 0, size = 0;
        struct arena arena;
        arena_init(&arena, 16 << 20);
        set_fit_forward(fit, &l->list, expected);
        assert_int_equal(spt_set_run(set, &l->list, &arena, corrections), PH_OK);
        for (size_t i = 0; i < counts[c]; i++) {
            double want = (double)(expected[i] - l->scores[i]);
            error += (want - (double)corrections[i]) * (want - (double)corrections[i]);
            size += want * want;
        }
        if (sqrt(error) > 0.03 * sqrt(size))
            fail_msg("%zu candidates: %.3g of %.3g", counts[c], sqrt(error), sqrt(size));
        arena_release(&arena);
        test_free(l);
    }
    spt_set_close(set);
    set_fit_free(fit);
}

/* A set has no order: what comes out follows what goes in. */
static void test_order(void **state)
{
    (void)state;
    struct list *l = make_list(40, 23), *turned = make_list(40, 23);
    struct set_fit *fit = make_fit(9);
    float scores[CANDIDATES_MAX], back[CANDIDATES_MAX];
    for (size_t i = 0; i < 40; i++) {
        turned->features[i] = l->rows[39 - i];
        turned->vectors[i] = l->bytes[39 - i];
        turned->scores[i] = l->scores[39 - i];
    }
    set_fit_forward(fit, &l->list, scores);
    set_fit_forward(fit, &turned->list, back);
    for (size_t i = 0; i < 40; i++)
        assert_float_equal(scores[i], back[39 - i], 1e-4);
    set_fit_free(fit);
    test_free(l);
    test_free(turned);
}

/* Which of two candidates is right depends on whether a third is there: no sum of features can know it. */
static void test_learns_of_others(void **state)
{
    (void)state;
    enum { QUESTIONS = 400, CANDIDATES = 12 };
    static float features[QUESTIONS][CANDIDATES][FEATURE_COUNT], relevance[QUESTIONS][CANDIDATES];
    static int8_t vectors[CANDIDATES][SPT_WIDTH];
    static const float weights[TALK_COUNT][FEATURE_COUNT];
    struct spt_example *examples = test_calloc(QUESTIONS, sizeof *examples);
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t q = 0; q < QUESTIONS; q++) {
        bool third = rng_u64(&rng) & 1;
        features[q][0][F_NAMES] = features[q][1][F_GRAMS] = 1;
        features[q][2][F_DATE] = third;
        relevance[q][third] = 1;
        examples[q] = (struct spt_example){.count = CANDIDATES,
                                           .features = features[q],
                                           .vectors = vectors,
                                           .relevance = relevance[q],
                                           .weight = 1,
                                           .talk = TALK_PEOPLE};
    }
    struct set_fit *fit;
    struct ph_err err;
    double loss;
    assert_int_equal(set_fit_create(&fit, 1, &err), PH_OK);
    assert_int_equal(set_fit_learn(fit, examples, QUESTIONS, weights, 60, 1, &loss), PH_OK);
    assert_true(loss < 0.1); /* log 2 without the third */
    set_fit_free(fit);
    test_free(examples);
}

/* A file whose tensors are not those of a set transformer says which. */
static void test_wrong_tensors(void **state)
{
    (void)state;
    struct set_fit *fit = make_fit(7);
    struct set_layout layout;
    struct gguf *gguf;
    struct spt_set *set;
    struct ph_err err;
    set_layout_make(&layout);
    for (int wrong = 0; wrong < 3; wrong++) {
        struct gguf_writer *writer;
        float bad = NAN;
        uint64_t dims[] = {wrong == 1 ? SET_WIDTH + 1 : SET_WIDTH, 1};
        assert_int_equal(gguf_writer_open(&writer, path, &err), PH_OK);
        gguf_writer_describe(writer, wrong == 2 ? "other" : "set.in.weight", TENSOR_F32, 2, dims);
        for (size_t i = 0; i < dims[0]; i++)
            gguf_writer_data(writer, &bad, sizeof bad);
        assert_int_equal(gguf_writer_close(writer, &err), PH_OK);
        assert_int_equal(gguf_open(&gguf, path, &err), PH_OK);
        assert_int_equal(spt_set_open(&set, gguf, &err), PH_ERR_FORMAT);
        assert_non_null(strstr(err.message, "set.in.weight"));
        gguf_free(gguf);
    }
    set_fit_weights(fit)[layout.slices[SET_HEAD].offset] = NAN;
    struct gguf_writer *writer;
    assert_int_equal(gguf_writer_open(&writer, path, &err), PH_OK);
    spt_set_describe(writer, &layout);
    spt_set_write(writer, &layout, set_fit_weights(fit));
    assert_int_equal(gguf_writer_close(writer, &err), PH_OK);
    assert_int_equal(gguf_open(&gguf, path, &err), PH_OK);
    assert_int_equal(spt_set_open(&set, gguf, &err), PH_ERR_FORMAT);
    assert_non_null(strstr(err.message, "set.head.weight"));
    gguf_free(gguf);
    set_fit_free(fit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),     cmocka_unit_test(test_run),
        cmocka_unit_test(test_order),         cmocka_unit_test(test_learns_of_others),
        cmocka_unit_test(test_wrong_tensors),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
