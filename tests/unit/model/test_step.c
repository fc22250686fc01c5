/* Steps: what a row's logits may depend on (T1), what a step refuses, and that it allocates nothing.
 *
 * This program brings its own base/mem.h functions, so that it can count. */
#include <stdatomic.h>

#include "forward_support.h"
#include "tiny_model.h"

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
    size_t bytes = count * size;
    return realloc(old, bytes > 0 ? bytes : 1);
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

/* ---- Independence of the company a row keeps */
#define PROMPT 70
#define STREAMS 20

static void make_ids(int32_t *ids, size_t count, size_t n_vocab, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < count; i++)
        ids[i] = i == 0 ? 1 : (int32_t)(3 + rng_u64(&rng) % (n_vocab - 3));
}

static void assert_same(const float *a, const float *b, size_t count, const char *what)
{
    for (size_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: value %zu is %.9g, was %.9g", what, i, (double)b[i], (double)a[i]);
}

/* All positions' logits of a prompt fed in several ways, by several numbers of lanes. */
static void chunks_do_not_matter(const char *path, enum tensor_type kv)
{
    static const struct {
        size_t chunk;
        unsigned threads;
        enum phase phase;
    } ways[] = {{1, 2, PHASE_PREFILL},      {7, 3, PHASE_PREFILL}, {64, 1, PHASE_PREFILL},
                {PROMPT, 2, PHASE_PREFILL}, {1, 1, PHASE_DECODE},  {5, 2, PHASE_DECODE},
                {PROMPT, 3, PHASE_DECODE},  {1, 3, PHASE_DECODE}};
    float *first = NULL, *all = NULL;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct session s;
        int32_t ids[PROMPT];
        session_open(&s, &(struct session_params){
                             .path = path, .threads = ways[i].threads, .kv_type = kv, .rows_max = PROMPT});
        if (!all) {
            first = mem_calloc(PROMPT * s.n_vocab, sizeof *first);
            all = mem_calloc(PROMPT * s.n_vocab, sizeof *all);
        }
        make_ids(ids, PROMPT, s.n_vocab, 11);
        bool reference = i == 0 || ways[i].phase != ways[i - 1].phase;
        session_feed(&s, ids, PROMPT, ways[i].chunk, ways[i].phase, reference ? first : all);
        if (!reference)
            assert_same(first, all, PROMPT * s.n_vocab, path);
        session_close(&s);
    }
    mem_free(first);
    mem_free(all);
}

/* Sequences of 1 to 20 tokens, prefilled in one step and then decoded together for some steps. */
static void streams_together(struct session *s, float *out, size_t steps)
{
    struct kv_seq *seqs[STREAMS];
    static struct runner_row rows[STREAMS * STREAMS];
    int32_t ids[STREAMS + 8];
    struct ph_err err = {0};
    size_t n = 0, v = s->n_vocab;
    for (size_t i = 0; i < STREAMS; i++) {
        seqs[i] = kv_seq_take(s->runner);
        assert_non_null(seqs[i]);
        assert_int_equal(kv_seq_reserve(s->runner, seqs[i], i + 1 + steps), PH_OK);
        make_ids(ids, i + 1, v, i);
        for (size_t j = 0; j <= i; j++)
            rows[n++] = (struct runner_row){seqs[i], ids[j], j == i ? out + i * v : NULL};
    }
    assert_int_equal(runner_step(s->runner, rows, n, PHASE_PREFILL, &err), PH_OK);
    for (size_t step = 0; step < steps; step++) {
        for (size_t i = 0; i < STREAMS; i++)
            rows[i] = (struct runner_row){seqs[i], argmax(out + i * v, v), out + i * v};
        assert_int_equal(runner_step(s->runner, rows, STREAMS, PHASE_DECODE, &err), PH_OK);
    }
    for (size_t i = 0; i < STREAMS; i++)
        kv_seq_give(s->runner, seqs[i]);
}

static void company_does_not_matter(const char *path, enum tensor_type kv)
{
    const size_t steps = 6;
    struct session s;
    session_open(&s, &(struct session_params){
                         .path = path, .kv_type = kv, .sequences = STREAMS + 1, .kv_contexts = STREAMS + 1});
    float *together = mem_calloc(STREAMS * s.n_vocab, sizeof *together);
    streams_together(&s, together, steps);
    for (size_t i = 0; i < STREAMS; i++) {
        int32_t ids[STREAMS];
        make_ids(ids, i + 1, s.n_vocab, i);
        session_restart(&s);
        session_feed(&s, ids, i + 1, i + 1, PHASE_PREFILL, NULL);
        for (size_t step = 0; step < steps; step++) {
            int32_t next = argmax(s.logits, s.n_vocab);
            session_feed(&s, &next, 1, 1, PHASE_DECODE, NULL);
        }
        assert_same(s.logits, together + i * s.n_vocab, s.n_vocab, path);
    }
    mem_free(together);
    session_close(&s);
}

static void independent(const char *path, enum tensor_type kv)
{
    chunks_do_not_matter(path, kv);
    company_does_not_matter(path, kv);
}

static void tiny_rows_are_independent(void **state)
{
    (void)state;
    struct tiny models[] = {{0},
                            {.type = TENSOR_Q8_0, .tied = true},
                            {.type = TENSOR_F16},
                            {.experts = 8, .used = 3},
                            {.experts = 12, .used = 11}, /* more products of one row than make one step */
                            {.experts = 4, .used = 1, .type = TENSOR_Q4_0}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        tiny_write(&models[i]);
        independent(models[i].path, i % 2 ? TENSOR_F16 : TENSOR_F32);
        tiny_remove(&models[i]);
    }
}

static void recorded_models_are_independent(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const struct {
        const char *name;
        enum tensor_type kv;
    } models[] = {{"gemma3", TENSOR_F32},        {"gemma2", TENSOR_F16},      {"llama-moe", TENSOR_F16},
                  {"phi3-longrope", TENSOR_F32}, {"base-Q4_K_M", TENSOR_F16}, {"base-Q8_0", TENSOR_Q8_0},
                  {"base-BF16", TENSOR_F32}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[128];
        snprintf(path, sizeof path, CONFORMANCE "models/%s.gguf", models[i].name);
        independent(path, models[i].kv);
    }
}

/* F16 and Q8_0 caches lose little. */
static void cache_types_agree(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const struct {
        enum tensor_type type;
        double allowed;
    } types[] = {{TENSOR_F16, 2e-3}, {TENSOR_Q8_0, 3e-2}};
    int32_t ids[300];
    struct session exact, s;
    const struct session_params params = {.path = CONFORMANCE "models/base-F32.gguf"};
    session_open(&exact, &params);
    make_ids(ids, 300, exact.n_vocab, 3);
    session_feed(&exact, ids, 300, 300, PHASE_PREFILL, NULL);
    for (size_t i = 0; i < 2; i++) {
        session_open(&s, &(struct session_params){.path = params.path, .kv_type = types[i].type});
        session_feed(&s, ids, 300, 300, PHASE_PREFILL, NULL);
        double distance = rel_l2(s.logits, exact.logits, s.n_vocab);
        assert_true(distance > 0 && distance < types[i].allowed);
        session_close(&s);
    }
    session_close(&exact);
}

/* ---- Refusals */
static void bad_rows_are_refused(void **state)
{
    (void)state;
    struct tiny tiny = {0};
    struct session s, other;
    struct ph_err err = {0};
    tiny_write(&tiny);
    const struct session_params params = {.path = tiny.path, .rows_max = 4, .sequences = 3, .kv_contexts = 3};
    session_open(&s, &params);
    session_open(&other, &params);
    struct kv_seq *a = s.seq, *b = kv_seq_take(s.runner);
    assert_int_equal(kv_seq_reserve(s.runner, a, 32), PH_OK);
    assert_int_equal(kv_seq_reserve(s.runner, b, 32), PH_OK);
    const struct {
        struct runner_row rows[5];
        size_t count;
        enum ph_status status;
    } cases[] = {
        {{{a, -1, NULL}}, 1, PH_ERR_ARG},
        {{{a, TINY_VOCAB, NULL}}, 1, PH_ERR_ARG},
        {{{a, 1, NULL}, {b, 1, NULL}, {a, 1, NULL}}, 3, PH_ERR_ARG},
        {{{NULL, 1, NULL}}, 1, PH_ERR_ARG},
        {{{other.seq, 1, NULL}}, 1, PH_ERR_ARG},
        {{{a, 1, NULL}, {a, 1, NULL}, {a, 1, NULL}, {a, 1, NULL}, {a, 1, NULL}}, 5, PH_ERR_LIMIT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(runner_step(s.runner, cases[i].rows, cases[i].count, PHASE_DECODE, &err),
                         cases[i].status);
        assert_int_equal(kv_seq_len(a), 0);
    }
    kv_seq_truncate(s.runner, b, 0); /* no room any more */
    const struct runner_row row = {b, 1, NULL};
    assert_int_equal(runner_step(s.runner, &row, 1, PHASE_DECODE, &err), PH_ERR_LIMIT);
    assert_int_equal(runner_step(s.runner, NULL, 0, PHASE_DECODE, &err), PH_OK);
    kv_seq_give(s.runner, b);
    session_close(&s);
    session_close(&other);
    tiny_remove(&tiny);
}

static void bad_params_are_refused(void **state)
{
    (void)state;
    struct tiny tiny = {0};
    struct model *model;
    struct runner *runner;
    struct ph_err err = {0};
    tiny_write(&tiny);
    assert_int_equal(model_open(&model, tiny.path, false, &err), PH_OK);
    static const struct {
        struct runner_params params;
        enum ph_status status;
    } cases[] = {
        {{.kernels = "abacus"}, PH_ERR_UNSUPPORTED},
        {{.kv_type = TENSOR_Q4_0}, PH_ERR_ARG},
        {{.kv_type = TENSOR_Q8_0}, PH_ERR_UNSUPPORTED}, /* heads of 16 */
        {{.kv_bytes_max = 100}, PH_ERR_ARG},
        {{.context_len = SIZE_MAX}, PH_ERR_LIMIT},
        {{.rows_max = SIZE_MAX}, PH_ERR_LIMIT},
        {{.sequences_max = SIZE_MAX}, PH_ERR_LIMIT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err.message[0] = 0;
        assert_int_equal(runner_create(&runner, model, &cases[i].params, &err), cases[i].status);
        assert_null(runner);
        assert_true(err.message[0] != 0);
    }
    model_free(model);
    tiny_remove(&tiny);
}

/* ---- Allocation */
static void steps_allocate_nothing(void **state)
{
    (void)state;
    struct tiny models[] = {{0}, {.experts = 4, .used = 2, .type = TENSOR_Q8_0}};
    for (size_t m = 0; m < 2; m++) {
        int32_t ids[PROMPT];
        struct session s;
        tiny_write(&models[m]);
        session_open(&s, &(struct session_params){.path = models[m].path});
        make_ids(ids, PROMPT, s.n_vocab, 2);
        size_t before = atomic_load(&allocations);
        for (int round = 0; round < 3; round++) {
            session_restart(&s);
            session_feed(&s, ids, PROMPT, 32, PHASE_PREFILL, NULL);
            for (int i = 0; i < 40; i++)
                session_feed(&s, &ids[i], 1, 1, PHASE_DECODE, NULL);
        }
        assert_int_equal(atomic_load(&allocations), before);
        session_close(&s);
        tiny_remove(&models[m]);
    }
    assert_true(atomic_load(&allocations) > 0); /* the counter does count */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_rows_are_independent), cmocka_unit_test(recorded_models_are_independent),
        cmocka_unit_test(cache_types_agree),         cmocka_unit_test(bad_rows_are_refused),
        cmocka_unit_test(bad_params_are_refused),    cmocka_unit_test(steps_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
