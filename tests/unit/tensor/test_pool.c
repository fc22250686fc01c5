#include "test_support.h"

#include <stdatomic.h>

#include "base/mem.h"
#include "tensor/tensor.h"

enum { ITEMS = 997, STEPS = 40 };

struct work {
    _Atomic uint32_t taken[STEPS][ITEMS];
    uint32_t before[STEPS]; /* plain memory, written by one lane, read by all after the barrier */
    _Atomic uint32_t wrong;
};

static void take_and_meet(struct lane *lane, void *ud)
{
    struct work *w = ud;
    for (uint32_t step = 0; step < STEPS; step++) {
        size_t first, end;
        while (lane_take(lane, ITEMS, 1 + step % 7, &first, &end))
            for (size_t i = first; i < end; i++)
                atomic_fetch_add(&w->taken[step][i], 1);
        if (step % 3 == 0)
            continue; /* loops may follow each other without a barrier */
        if (lane->index == step % lane->count)
            w->before[step] = step;
        lane_barrier(lane);
        if (w->before[step] != step)
            atomic_fetch_add(&w->wrong, 1);
        lane_barrier(lane);
    }
}

static void every_item_is_taken_once_by_any_number_of_lanes(void **state)
{
    (void)state;
    for (unsigned lanes = 1; lanes <= 9; lanes += 2) {
        struct pool *pool;
        struct ph_err err;
        assert_int_equal(pool_create(&pool, lanes, 0, kernels_select("ref"), &err), PH_OK);
        assert_int_equal(pool_lanes(pool), lanes);
        for (int run = 0; run < 6; run++) {
            struct work *w = mem_calloc(1, sizeof *w);
            pool_run(pool, take_and_meet, w);
            for (uint32_t step = 0; step < STEPS; step++)
                for (size_t i = 0; i < ITEMS; i++)
                    assert_int_equal(w->taken[step][i], 1);
            assert_int_equal(w->wrong, 0);
            mem_free(w);
        }
        pool_free(pool);
    }
}

struct taper {
    size_t runs, first_run, last_run, taken;
    _Atomic uint32_t by_all;
};

static void take_tapered(struct lane *lane, void *ud)
{
    struct taper *t = ud;
    size_t first, end, longest = SIZE_MAX;
    while (lane_take_tapered(lane, ITEMS, &first, &end)) {
        atomic_fetch_add(&t->by_all, (uint32_t)(end - first));
        assert_in_range(end - first, 1, longest);
        longest = end - first;
        if (lane->count > 1)
            continue;
        t->first_run = t->runs++ ? t->first_run : end - first;
        t->last_run = end - first;
        assert_int_equal(first, t->taken);
        t->taken = end;
    }
}

static void tapered_loops_take_all_in_shrinking_runs(void **state)
{
    (void)state;
    for (unsigned lanes = 1; lanes <= 4; lanes++) {
        struct pool *pool;
        struct ph_err err;
        struct taper t = {0};
        assert_int_equal(pool_create(&pool, lanes, 0, kernels_select("ref"), &err), PH_OK);
        pool_run(pool, take_tapered, &t);
        assert_int_equal(t.by_all, ITEMS);
        if (lanes == 1) {
            assert_int_equal(t.taken, ITEMS);
            assert_in_range(t.first_run, ITEMS / 4, ITEMS / 2);
            assert_int_equal(t.last_run, 1);
            assert_in_range(t.runs, 2, 20);
        }
        pool_free(pool);
    }
}

static void count_runs(struct lane *lane, void *ud)
{
    (void)lane;
    atomic_fetch_add((_Atomic uint32_t *)ud, 1);
}

static void many_short_runs_end(void **state)
{
    (void)state;
    struct pool *pool;
    struct ph_err err;
    assert_int_equal(pool_create(&pool, 3, 0, kernels_select("ref"), &err), PH_OK);
    _Atomic uint32_t runs = 0;
    for (int i = 0; i < 3000; i++)
        pool_run(pool, count_runs, (void *)&runs);
    assert_int_equal(runs, 9000);
    pool_free(pool);
}

static void write_scratch(struct lane *lane, void *ud)
{
    assert_int_equal((uintptr_t)lane->scratch % 64, 0);
    memset(lane->scratch, (int)lane->index, 1000);
    lane_barrier(lane);
    const uint8_t *bytes = lane->scratch;
    for (size_t i = 0; i < 1000; i++)
        if (bytes[i] != lane->index)
            atomic_fetch_add((_Atomic uint32_t *)ud, 1);
}

static void scratch_belongs_to_its_lane(void **state)
{
    (void)state;
    struct pool *pool;
    struct ph_err err;
    assert_int_equal(pool_create(&pool, 4, 1000, kernels_select(NULL), &err), PH_OK);
    _Atomic uint32_t wrong = 0;
    pool_run(pool, write_scratch, (void *)&wrong);
    assert_int_equal(wrong, 0);
    pool_free(pool);
}

static void impossible_pools_are_refused_in_words(void **state)
{
    (void)state;
    struct pool *pool;
    struct ph_err err;
    assert_int_equal(pool_create(&pool, 100000, 0, kernels_select("ref"), &err), PH_ERR_LIMIT);
    assert_non_null(strstr(err.message, "100000"));
    assert_int_equal(pool_create(&pool, 2, SIZE_MAX / 2, kernels_select("ref"), &err), PH_ERR_NOMEM);
    assert_null(pool);
}

static void default_is_one_lane_a_cpu(void **state)
{
    (void)state;
    struct pool *pool;
    struct ph_err err;
    assert_int_equal(pool_create(&pool, 0, 0, kernels_select("ref"), &err), PH_OK);
    assert_in_range(pool_lanes(pool), 1, 1024);
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_taken_once_by_any_number_of_lanes),
        cmocka_unit_test(tapered_loops_take_all_in_shrinking_runs),
        cmocka_unit_test(many_short_runs_end),
        cmocka_unit_test(scratch_belongs_to_its_lane),
        cmocka_unit_test(impossible_pools_are_refused_in_words),
        cmocka_unit_test(default_is_one_lane_a_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
