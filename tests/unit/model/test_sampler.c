#include <float.h>
#include <math.h>

#include "base/file.h"
#include "model/model.h"
#include "model/sampler_int.h"
#include "test_support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define VOCAB_MAX 256

struct fixture {
    float logits[VOCAB_MAX];
    size_t n_vocab;
    uint32_t counts[VOCAB_MAX];
    struct logit_bias bias[VOCAB_MAX];
    size_t bias_count;
};

static double as_double(const struct json *value)
{
    double number = 0;
    assert_true(json_to_double(value, &number));
    return number;
}

static double number(const struct json *object, const char *key, double fallback)
{
    double value;
    return json_to_double(json_get(object, key), &value) ? value : fallback;
}

static void load_fixture(struct fixture *f, const struct json *test_case)
{
    *f = (struct fixture){0};
    const struct json *logits = json_get(test_case, "logits");
    f->n_vocab = json_count(logits);
    assert_in_range(f->n_vocab, 1, VOCAB_MAX);
    for (size_t i = 0; i < f->n_vocab; i++)
        f->logits[i] = (float)as_double(json_at(logits, i));
}

static void load_bias(struct fixture *f, const struct json *stage)
{
    const struct json *pairs = json_get(stage, "logit_bias");
    pairs = pairs ? pairs : json_get(stage, "bias");
    f->bias_count = json_count(pairs);
    for (size_t i = 0; i < f->bias_count; i++) {
        const struct json *pair = json_at(pairs, i);
        f->bias[i].id = (int32_t)as_double(json_at(pair, 0));
        f->bias[i].bias = (float)as_double(json_at(pair, 1));
    }
}

static void count_window(struct fixture *f, const struct json *history, int last_n)
{
    memset(f->counts, 0, sizeof f->counts);
    size_t len = json_count(history);
    size_t first = last_n >= 0 && (size_t)last_n < len ? len - (size_t)last_n : 0;
    for (size_t i = first; i < len; i++)
        f->counts[(size_t)as_double(json_at(history, i))]++;
}

static void apply_stage(struct fixture *f, struct candidate_set *set, const struct json *stage,
                        const struct json *history)
{
    const char *type = json_text(json_get(stage, "type"), "");
    size_t min_keep = (size_t)number(stage, "min_keep", 1);
    float p = (float)number(stage, "p", 1);
    if (!strcmp(type, "top_k")) {
        candidates_top_k(set, (size_t)number(stage, "k", 0));
    } else if (!strcmp(type, "top_p")) {
        candidates_top_p(set, p, min_keep);
    } else if (!strcmp(type, "min_p")) {
        candidates_min_p(set, p, min_keep);
    } else if (!strcmp(type, "typical")) {
        candidates_typical(set, p, min_keep);
    } else if (!strcmp(type, "temp")) {
        candidates_temperature(set, (float)number(stage, "t", 1));
    } else if (!strcmp(type, "top_n_sigma")) {
        candidates_top_n_sigma(set, (float)number(stage, "n", 0));
    } else if (!strcmp(type, "penalties")) {
        count_window(f, history, (int)number(stage, "last_n", 0));
        candidates_penalize(set, f->counts, (float)number(stage, "repeat", 1),
                            (float)number(stage, "freq", 0), (float)number(stage, "present", 0));
    } else if (!strcmp(type, "logit_bias")) {
        load_bias(f, stage);
        candidates_bias(set, f->bias, f->bias_count);
    } else {
        fail_msg("unknown stage %s", type);
    }
}

/* Rank of a stage in sampler_sample's order, or -1 when its parameters cannot be expressed there. */
static int set_param(struct fixture *f, struct sampler_params *params, const struct json *stage)
{
    const char *type = json_text(json_get(stage, "type"), "");
    float p = (float)number(stage, "p", 1);
    if (number(stage, "min_keep", 1) > 1)
        return -1;
    if (!strcmp(type, "logit_bias")) {
        load_bias(f, stage);
        params->bias = f->bias;
        params->bias_count = f->bias_count;
        return 0;
    }
    if (!strcmp(type, "penalties")) {
        params->penalty_last_n = (int32_t)number(stage, "last_n", 0);
        params->repeat_penalty = (float)number(stage, "repeat", 1);
        params->frequency_penalty = (float)number(stage, "freq", 0);
        params->presence_penalty = (float)number(stage, "present", 0);
        return 1;
    }
    const struct {
        const char *type;
        float *target;
        float value;
    } floats[] = {{"top_n_sigma", &params->top_n_sigma, (float)number(stage, "n", 0)},
                  {"top_k", NULL, 0},
                  {"typical", &params->typical_p, p},
                  {"top_p", &params->top_p, p},
                  {"min_p", &params->min_p, p},
                  {"temp", &params->temperature, (float)number(stage, "t", 1)}};
    for (size_t i = 0; i < COUNT(floats); i++) {
        if (strcmp(type, floats[i].type) != 0)
            continue;
        if (floats[i].target)
            *floats[i].target = floats[i].value;
        else
            params->top_k = (int32_t)number(stage, "k", 0);
        return 2 + (int)i;
    }
    return -1;
}

static int by_id(const void *a, const void *b)
{
    return ((const struct candidate *)a)->id - ((const struct candidate *)b)->id;
}

static void check_kept(const struct json *test_case, const struct candidate *items, size_t count,
                       const char *how)
{
    const struct json *kept = json_get(test_case, "kept");
    int id = (int)as_double(json_get(test_case, "id"));
    if (count != json_count(kept))
        fail_msg("case %d %s: %zu candidates, not %zu", id, how, count, json_count(kept));
    for (size_t i = 0; i < count; i++) {
        const struct json *pair = json_at(kept, i);
        if (items[i].id != (int32_t)as_double(json_at(pair, 0)))
            fail_msg("case %d %s: candidate %zu is %d", id, how, i, items[i].id);
        double wanted = as_double(json_at(pair, 1));
        if (fabs((double)items[i].p - wanted) > 1e-5)
            fail_msg("case %d %s: p of %d is %g, not %g", id, how, items[i].id, (double)items[i].p, wanted);
    }
}

static void check_by_stages(struct fixture *f, const struct json *test_case)
{
    struct candidate items[VOCAB_MAX];
    struct candidate_set set = {.items = items};
    candidates_load(&set, f->logits, f->n_vocab);
    const struct json *chain = json_get(test_case, "chain");
    for (size_t i = 0; i < json_count(chain); i++)
        apply_stage(f, &set, json_at(chain, i), json_get(test_case, "history"));
    candidates_softmax(&set);
    qsort(items, set.len, sizeof *items, by_id);
    check_kept(test_case, items, set.len, "by stages");
}

/* true when the fixed chain can express the case and agreed */
static bool check_by_sampler(struct fixture *f, const struct json *test_case)
{
    struct sampler_params params;
    sampler_params_default(&params);
    const struct json *chain = json_get(test_case, "chain");
    int last_rank = -1;
    for (size_t i = 0; i < json_count(chain); i++) {
        int rank = set_param(f, &params, json_at(chain, i));
        if (rank <= last_rank)
            return false;
        last_rank = rank;
    }
    struct sampler *sampler = NULL;
    assert_int_equal(sampler_create(&sampler, &params, f->n_vocab, NULL), PH_OK);
    const struct json *history = json_get(test_case, "history");
    for (size_t i = 0; i < json_count(history); i++)
        sampler_accept(sampler, (int32_t)as_double(json_at(history, i)));
    int32_t drawn = sampler_sample(sampler, f->logits);
    size_t count = 0;
    const struct candidate *items = sampler_candidates(sampler, &count);
    check_kept(test_case, items, count, "by sampler_sample");
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found = found || items[i].id == drawn;
    assert_true(found);
    sampler_free(sampler);
    return true;
}

static void chain_agrees_with_the_reference(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct arena arena;
    struct buf text;
    struct json *pack = NULL;
    arena_init(&arena, 16 << 20);
    buf_init(&text, 16 << 20);
    assert_int_equal(file_read(TEST_SHARED_DIR "/conformance/sampler/cases.json", &text, NULL), PH_OK);
    assert_int_equal(json_parse(&arena, text.data, text.len, &pack, NULL), PH_OK);
    const struct json *cases = json_get(pack, "cases");
    assert_true(json_count(cases) >= 24);
    size_t expressed = 0;
    for (size_t i = 0; i < json_count(cases); i++) {
        struct fixture f;
        load_fixture(&f, json_at(cases, i));
        check_by_stages(&f, json_at(cases, i));
        expressed += check_by_sampler(&f, json_at(cases, i));
    }
    assert_int_equal(expressed, json_count(cases));
    arena_release(&arena);
    buf_release(&text);
}

static struct sampler *make(const struct sampler_params *params, size_t n_vocab)
{
    struct sampler *sampler = NULL;
    struct ph_err err = {0};
    if (sampler_create(&sampler, params, n_vocab, &err) != PH_OK)
        fail_msg("%s", err.message);
    return sampler;
}

static void greedy_takes_the_lowest_of_equals(void **state)
{
    (void)state;
    const float logits[] = {NAN, 1, 3, 3, -INFINITY, 2};
    struct sampler_params params;
    sampler_params_default(&params);
    params.temperature = 0;
    struct sampler *sampler = make(&params, COUNT(logits));
    assert_int_equal(sampler_sample(sampler, logits), 2);
    sampler_free(sampler);

    const struct logit_bias bias[] = {{2, -INFINITY}, {3, 0}};
    params.bias = bias;
    params.bias_count = COUNT(bias);
    sampler = make(&params, COUNT(logits));
    assert_int_equal(sampler_sample(sampler, logits), 3);
    sampler_free(sampler);
}

static void all_forbidden_is_minus_one(void **state)
{
    (void)state;
    const float logits[] = {NAN, -INFINITY, NAN};
    for (int greedy = 0; greedy < 2; greedy++) {
        struct sampler_params params;
        sampler_params_default(&params);
        params.temperature = greedy ? 0 : 1;
        params.top_p = params.typical_p = params.min_p = 0.5f;
        params.top_n_sigma = 1;
        struct sampler *sampler = make(&params, COUNT(logits));
        assert_int_equal(sampler_sample(sampler, logits), -1);
        sampler_free(sampler);
    }
}

static void extreme_logits_are_survived(void **state)
{
    (void)state;
    const float logits[] = {FLT_MAX, -FLT_MAX, INFINITY, 0, NAN, FLT_MIN};
    const float values[] = {0, 1e-30f, 0.5f, 1, 1e30f};
    for (size_t i = 0; i < COUNT(values); i++) {
        struct sampler_params params;
        sampler_params_default(&params);
        params.temperature = values[i];
        params.top_p = params.typical_p = params.min_p = 0.9f;
        params.top_n_sigma = 2;
        params.penalty_last_n = -1;
        params.repeat_penalty = 1e-30f;
        struct sampler *sampler = make(&params, COUNT(logits));
        for (int32_t id = -2; id < 10; id++)
            sampler_accept(sampler, id);
        for (int n = 0; n < 10; n++)
            assert_in_range(sampler_sample(sampler, logits), 0, 5);
        sampler_free(sampler);
    }
}

static void seeds_repeat_and_differ(void **state)
{
    (void)state;
    float logits[100];
    for (size_t i = 0; i < COUNT(logits); i++)
        logits[i] = (float)(i % 7) * 0.3f;
    int32_t drawn[3][50];
    const uint64_t seeds[3] = {1, 1, 2};
    for (int s = 0; s < 3; s++) {
        struct sampler_params params;
        sampler_params_default(&params);
        params.seed = seeds[s];
        struct sampler *sampler = make(&params, COUNT(logits));
        for (int n = 0; n < 50; n++)
            drawn[s][n] = sampler_sample(sampler, logits);
        sampler_free(sampler);
    }
    assert_memory_equal(drawn[0], drawn[1], sizeof drawn[0]);
    assert_memory_not_equal(drawn[0], drawn[2], sizeof drawn[0]);
}

static void draws_follow_the_probabilities(void **state)
{
    (void)state;
    const float logits[] = {0, logf(2), logf(5), -INFINITY};
    struct sampler_params params;
    sampler_params_default(&params);
    struct sampler *sampler = make(&params, COUNT(logits));
    int seen[4] = {0};
    for (int n = 0; n < 80000; n++)
        seen[sampler_sample(sampler, logits)]++;
    assert_in_range(seen[0], 9600, 10400);
    assert_in_range(seen[1], 19500, 20500);
    assert_in_range(seen[2], 49400, 50600);
    assert_int_equal(seen[3], 0);
    sampler_free(sampler);
}

static void penalties_look_back_only_so_far(void **state)
{
    (void)state;
    const float logits[] = {3, 2.5f, 2, 0};
    struct sampler_params params;
    sampler_params_default(&params);
    params.temperature = 0;
    params.penalty_last_n = 2;
    params.presence_penalty = 10;
    struct sampler *sampler = make(&params, COUNT(logits));
    const int32_t wanted[] = {0, 1, 2, 0, 1, 2};
    for (size_t i = 0; i < COUNT(wanted); i++) {
        int32_t id = sampler_sample(sampler, logits);
        assert_int_equal(id, wanted[i]);
        sampler_accept(sampler, id);
    }
    sampler_free(sampler);
}

/* A nucleus of thousands: the fewest that reach the mass, and none left out that is better. */
static void top_p_of_a_flat_vocabulary(void **state)
{
    (void)state;
    enum { N = 20000 };
    float *logits = test_malloc(N * sizeof *logits);
    struct candidate *items = test_malloc(N * sizeof *items);
    uint32_t x = 12345;
    for (size_t i = 0; i < N; i++) {
        x = x * 1664525u + 1013904223u;
        logits[i] = (float)(x >> 8) / 16777216.0f;
    }
    struct candidate_set set = {.items = items};
    candidates_load(&set, logits, N);
    candidates_top_p(&set, 0.5f, 1);
    assert_in_range(set.len, N / 4, N / 2);
    float least = INFINITY, least_p = INFINITY;
    double total = 0;
    for (size_t i = 0; i < set.len; i++) {
        least = fminf(least, items[i].logit);
        least_p = fminf(least_p, items[i].p);
        total += (double)items[i].p;
    }
    assert_true(total >= 0.5 && total - (double)least_p < 0.5);
    size_t above = 0;
    for (size_t i = 0; i < N; i++)
        above += logits[i] > least;
    assert_true(above < set.len);
    test_free(items);
    test_free(logits);
}

static void bad_parameters_are_refused(void **state)
{
    (void)state;
    const struct logit_bias far = {10, 1}, nan_bias = {1, NAN};
    struct sampler_params base, bad[8];
    sampler_params_default(&base);
    for (size_t i = 0; i < COUNT(bad); i++)
        bad[i] = base;
    bad[0].temperature = NAN;
    bad[1].repeat_penalty = 0;
    bad[2].penalty_last_n = -2;
    bad[3].top_k = -1;
    bad[4].bias = &far, bad[4].bias_count = 1;
    bad[5].bias = &nan_bias, bad[5].bias_count = 1;
    bad[6].top_p = INFINITY;
    bad[7].frequency_penalty = -INFINITY;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct sampler *sampler = NULL;
        struct ph_err err = {0};
        assert_int_equal(sampler_create(&sampler, &bad[i], 10, &err), PH_ERR_ARG);
        assert_null(sampler);
        assert_true(err.message[0] != 0);
    }
}

static void logprobs_are_stable(void **state)
{
    (void)state;
    const float logits[] = {1000, 999, NAN, 1000, -INFINITY, 900};
    struct candidate top[8];
    float lp = logits_logprob(logits, COUNT(logits), 1, top, COUNT(top));
    double sum = 2 + exp(-1);
    assert_true(fabs((double)lp - (-1 - log(sum))) < 1e-6);
    const int32_t ids[] = {0, 3, 1, 5, 4, -1, -1, -1};
    for (size_t i = 0; i < COUNT(ids); i++)
        assert_int_equal(top[i].id, ids[i]);
    assert_true(fabs((double)top[0].p + log(sum)) < 1e-6);
    assert_true(isinf(logits_logprob(logits, COUNT(logits), 4, NULL, 0)));
    assert_true(isinf(logits_logprob(logits, COUNT(logits), 6, NULL, 0)));
    lp = logits_logprob(logits, COUNT(logits), 0, top, 2);
    assert_true(fabs((double)lp + log(sum)) < 1e-6);
    assert_int_equal(top[1].id, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain_agrees_with_the_reference),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(all_forbidden_is_minus_one),
        cmocka_unit_test(extreme_logits_are_survived),
        cmocka_unit_test(seeds_repeat_and_differ),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(penalties_look_back_only_so_far),
        cmocka_unit_test(top_p_of_a_flat_vocabulary),
        cmocka_unit_test(bad_parameters_are_refused),
        cmocka_unit_test(logprobs_are_stable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
