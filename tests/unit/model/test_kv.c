/* Pages of the KV cache: taken, given back, never shared, never lost. */
#include "forward_support.h"
#include "tiny_model.h"

struct fixture {
    struct tiny tiny;
    struct model *model;
    struct runner *runner;
};

static void open_fixture(struct fixture *f, const struct runner_params *params)
{
    struct ph_err err = {0};
    *f = (struct fixture){0};
    tiny_write(&f->tiny);
    assert_int_equal(model_open(&f->model, f->tiny.path, false, &err), PH_OK);
    if (runner_create(&f->runner, f->model, params, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static void close_fixture(struct fixture *f)
{
    runner_free(f->runner);
    model_free(f->model);
    tiny_remove(&f->tiny);
}

static void budgets_become_pages(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, &(struct runner_params){.threads = 1});
    size_t page_len = runner_kv_page_len(f.runner);
    assert_int_equal(runner_context_len(f.runner), 256);
    assert_int_equal(runner_kv_pages_total(f.runner), 256 / page_len); /* one full context */
    close_fixture(&f);
    /* two layers, keys and values, two heads of 16 floats */
    size_t page_bytes = page_len * 2 * 2 * 2 * 16 * 4;
    open_fixture(&f, &(struct runner_params){.threads = 1, .kv_bytes_max = 5 * page_bytes + 1});
    assert_int_equal(runner_kv_pages_total(f.runner), 5);
    close_fixture(&f);
    open_fixture(
        &f, &(struct runner_params){.threads = 1, .kv_type = TENSOR_F16, .kv_bytes_max = 5 * page_bytes});
    assert_int_equal(runner_kv_pages_total(f.runner), 10);
    close_fixture(&f);
}

static void pages_are_reserved_and_given_back(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, &(struct runner_params){.threads = 1, .context_len = 100, .sequences_max = 2});
    size_t len = runner_kv_page_len(f.runner), total = runner_kv_pages_total(f.runner);
    assert_int_equal(total, (100 + len - 1) / len);
    struct kv_seq *a = kv_seq_take(f.runner), *b = kv_seq_take(f.runner);
    assert_non_null(a);
    assert_non_null(b);
    assert_null(kv_seq_take(f.runner));
    assert_int_equal(kv_seq_reserve(f.runner, a, 1), PH_OK);
    assert_int_equal(kv_seq_reserve(f.runner, a, len), PH_OK);
    assert_int_equal(runner_kv_pages_free(f.runner), total - 1);
    assert_int_equal(kv_seq_reserve(f.runner, a, len + 1), PH_OK);
    assert_int_equal(runner_kv_pages_free(f.runner), total - 2);
    assert_int_equal(kv_seq_reserve(f.runner, a, 101), PH_ERR_LIMIT);
    assert_int_equal(kv_seq_reserve(f.runner, b, 100), PH_ERR_NOMEM); /* keeps what it got */
    assert_int_equal(runner_kv_pages_free(f.runner), 0);
    kv_seq_truncate(f.runner, a, len);
    assert_int_equal(runner_kv_pages_free(f.runner), 1);
    kv_seq_truncate(f.runner, a, 0);
    assert_int_equal(kv_seq_reserve(f.runner, b, 100), PH_OK);
    kv_seq_give(f.runner, b);
    assert_int_equal(runner_kv_pages_free(f.runner), total);
    b = kv_seq_take(f.runner);
    assert_non_null(b);
    assert_int_equal(kv_seq_len(b), 0);
    kv_seq_give(f.runner, b);
    kv_seq_give(f.runner, a);
    close_fixture(&f);
}

/* A sequence whose pages are scattered, because another one was cut back in between, says what a neat one
 * says. */
static void order_of_pages_does_not_matter(void **state)
{
    (void)state;
    struct tiny tiny = {0};
    struct session neat, mixed;
    int32_t ids[150];
    tiny_write(&tiny);
    const struct session_params params = {.path = tiny.path, .sequences = 2, .kv_contexts = 2};
    session_open(&neat, &params);
    session_open(&mixed, &params);
    for (size_t i = 0; i < 150; i++)
        ids[i] = (int32_t)(3 + i * 7 % (TINY_VOCAB - 3));
    session_feed(&neat, ids, 150, 50, PHASE_PREFILL, NULL);
    struct kv_seq *other = kv_seq_take(mixed.runner);
    for (size_t at = 0; at < 150; at += 50) {
        assert_int_equal(kv_seq_reserve(mixed.runner, other, at + 40), PH_OK);
        session_feed(&mixed, ids + at, 50, 50, PHASE_PREFILL, NULL);
        kv_seq_truncate(mixed.runner, other, at / 2);
    }
    /* and one that is cut back and goes on */
    session_feed(&mixed, ids, 20, 20, PHASE_PREFILL, NULL);
    kv_seq_truncate(mixed.runner, mixed.seq, 149);
    session_feed(&mixed, ids + 149, 1, 1, PHASE_PREFILL, NULL);
    for (size_t i = 0; i < neat.n_vocab; i++)
        assert_true(neat.logits[i] == mixed.logits[i]);
    kv_seq_give(mixed.runner, other);
    session_close(&neat);
    session_close(&mixed);
    tiny_remove(&tiny);
}

/* A huge budget costs nothing before it is used. */
static void untouched_pages_cost_nothing(void **state)
{
    (void)state;
    struct fixture f;
    if (SANITIZED)
        skip(); /* shadow memory counts too */
    open_fixture(&f, &(struct runner_params){.threads = 1, .kv_bytes_max = (size_t)4 << 30});
    assert_true(runner_kv_pages_total(f.runner) > 100000);
    FILE *status = fopen("/proc/self/statm", "r");
    if (status) {
        char line[256] = "";
        assert_non_null(fgets(line, sizeof line, status));
        char *resident = strchr(line, ' ');
        assert_non_null(resident);
        assert_true(strtoul(resident, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) < (size_t)2 << 30);
        fclose(status);
    }
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budgets_become_pages),
        cmocka_unit_test(pages_are_reserved_and_given_back),
        cmocka_unit_test(order_of_pages_does_not_matter),
        cmocka_unit_test(untouched_pages_cost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
