/* Products of floats: every kernel set and form of storage against sums in double, odd shapes, and the same
 * bits with any number of lanes. */
#include "test_support.h"

#include "base/mem.h"
#include "tensor/tensor.h"
#include "tensor_random.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { GAP = 5 };

static const char *const sets[] = {"ref", "avx2", "avx512", "avx512bf16", "amx"};
static const struct shape {
    size_t m, n, k;
} shapes[] = {
    {1, 1, 1},   {3, 1, 2},     {1, 33, 17},  {17, 3, 33},  {33, 17, 3},   {12, 32, 64},
    {4, 96, 96}, {96, 172, 1},  {13, 31, 31}, {45, 49, 65}, {36, 96, 172}, {70, 172, 300},
    {7, 5, 513}, {2, 40, 4200}, {300, 8, 9},  {3, 3100, 3}, {31, 65, 257},
};

static void run_product(struct lane *lane, void *ud)
{
    tensor_product(lane, ud);
}

struct matrices {
    struct product p;
    float *a, *b, *c, *before;
    size_t c_len;
};

static void make_matrices(struct matrices *t, const struct shape *s, size_t form, uint64_t *rng)
{
    bool a_t = form & 1, b_t = form & 2;
    size_t a_rows = a_t ? s->k : s->m, b_rows = b_t ? s->n : s->k;
    struct product p = {.m = s->m,
                        .n = s->n,
                        .k = s->k,
                        .a_stride = (a_t ? s->m : s->k) + GAP,
                        .b_stride = (b_t ? s->k : s->n) + GAP,
                        .c_stride = s->n + GAP,
                        .a_transposed = a_t,
                        .b_transposed = b_t,
                        .accumulate = form & 4};
    size_t a_len = a_rows * p.a_stride - GAP, b_len = b_rows * p.b_stride - GAP; /* nothing after the last */
    t->c_len = s->m * p.c_stride;
    p.a = t->a = mem_alloc(a_len * sizeof(float));
    p.b = t->b = mem_alloc(b_len * sizeof(float));
    p.c = t->c = mem_alloc(t->c_len * sizeof(float));
    t->before = mem_alloc(t->c_len * sizeof(float));
    p.workspace = mem_alloc_aligned(64, tensor_product_workspace_bytes(s->m, s->n, s->k));
    random_fill(rng, t->a, a_len, 1.0f);
    random_fill(rng, t->b, b_len, 1.0f);
    random_fill(rng, t->before, t->c_len, 1.0f);
    t->p = p;
}

static void free_matrices(struct matrices *t)
{
    mem_free(t->a);
    mem_free(t->b);
    mem_free(t->c);
    mem_free(t->before);
    mem_free(t->p.workspace);
}

static double element(const struct product *p, const float *m, bool transposed, size_t stride, size_t row,
                      size_t column)
{
    float value = transposed ? m[column * stride + row] : m[row * stride + column];
    return (double)(p->bf16 ? tensor_bf16_to_f32(tensor_f32_to_bf16(value)) : value);
}

/* Each element in double, then the sum of its terms' magnitudes. */
static double *expected(const struct matrices *t)
{
    const struct product *p = &t->p;
    double *want = mem_alloc(2 * p->m * p->n * sizeof *want);
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            double sum = p->accumulate ? (double)t->before[i * p->c_stride + j] : 0.0, size = fabs(sum);
            for (size_t k = 0; k < p->k; k++) {
                double term = element(p, p->a, p->a_transposed, p->a_stride, i, k) *
                              element(p, p->b, p->b_transposed, p->b_stride, k, j);
                sum += term;
                size += fabs(term);
            }
            want[2 * (i * p->n + j)] = sum;
            want[2 * (i * p->n + j) + 1] = size;
        }
    return want;
}

static void check(const struct matrices *t, const double *want, const char *set)
{
    const struct product *p = &t->p;
    for (size_t i = 0; i < p->m; i++) {
        const float *row = p->c + i * p->c_stride;
        for (size_t j = 0; j < p->n; j++, want += 2)
            if (!(fabs((double)row[j] - want[0]) <= want[1] * 2e-6))
                fail_msg("%s, %zu x %zu x %zu, a%s b%s%s%s: element %zu, %zu is %g, not %g", set, p->m, p->n,
                         p->k, p->a_transposed ? "^T" : "", p->b_transposed ? "^T" : "",
                         p->accumulate ? " +=" : "", p->bf16 ? " bf16" : "", i, j, (double)row[j], want[0]);
        if (memcmp(row + p->n, t->before + i * p->c_stride + p->n, GAP * sizeof *row) != 0)
            fail_msg("%s, %zu x %zu x %zu: written beyond row %zu", set, p->m, p->n, p->k, i);
    }
}

static void products_are_sums(void **state)
{
    (void)state;
    uint64_t rng = 11;
    struct ph_err err;
    struct pool *pools[COUNT(sets)] = {NULL};
    for (size_t i = 0; i < COUNT(sets); i++) {
        const struct kernels *k = kernels_select(sets[i]);
        if (k)
            assert_int_equal(pool_create(&pools[i], 2, 0, k, &err), PH_OK);
        else
            printf("SKIP: %s is not here\n", sets[i]);
    }
    for (size_t s = 0; s < COUNT(shapes) * 16; s++) {
        struct matrices t;
        make_matrices(&t, &shapes[s / 16], s & 7, &rng);
        t.p.bf16 = s & 8;
        double *want = expected(&t);
        for (size_t i = 0; i < COUNT(sets); i++) {
            memcpy(t.c, t.before, t.c_len * sizeof *t.c);
            if (!pools[i])
                continue;
            pool_run(pools[i], run_product, &t.p);
            check(&t, want, sets[i]);
        }
        mem_free(want);
        free_matrices(&t);
    }
    for (size_t i = 0; i < COUNT(sets); i++)
        pool_free(pools[i]);
}

static void lanes_change_no_bit(void **state)
{
    (void)state;
    static const struct shape large[] = {{700, 172, 600}, {96, 128, 1000}, {5, 3200, 40}, {40, 33, 4500}};
    uint64_t rng = 12;
    struct ph_err err;
    for (size_t i = 0; i < COUNT(sets); i++) {
        const struct kernels *k = kernels_select(sets[i]);
        if (!k)
            continue;
        for (size_t s = 0; s < COUNT(large) * 2; s++) {
            struct matrices t;
            make_matrices(&t, &large[s / 2], s % 8, &rng);
            t.p.bf16 = s & 1;
            float *one = mem_alloc(t.c_len * sizeof *one);
            for (unsigned lanes = 1; lanes <= 5; lanes += 2) {
                struct pool *pool;
                assert_int_equal(pool_create(&pool, lanes, 0, k, &err), PH_OK);
                memcpy(t.c, t.before, t.c_len * sizeof *t.c);
                pool_run(pool, run_product, &t.p);
                pool_free(pool);
                if (lanes == 1)
                    memcpy(one, t.c, t.c_len * sizeof *one);
                else if (memcmp(one, t.c, t.c_len * sizeof *one) != 0)
                    fail_msg("%s: product %zu differs with %u lanes", sets[i], s, lanes);
            }
            mem_free(one);
            free_matrices(&t);
        }
    }
}

/* An empty sum is zero, or leaves c; no rows or columns, nothing happens. */
static void empty_products(void **state)
{
    (void)state;
    struct ph_err err;
    float c[6] = {1, 2, 3, 4, 5, 6}, x[6] = {0};
    struct product p = {.m = 2, .n = 3, .a = x, .b = x, .a_stride = 3, .b_stride = 3, .c_stride = 3, .c = c};
    _Alignas(64) uint8_t workspace[64];
    struct pool *pool;
    assert_true(tensor_product_workspace_bytes(2, 3, 0) <= sizeof workspace);
    assert_int_equal(pool_create(&pool, 2, 0, kernels_select(NULL), &err), PH_OK);
    p.workspace = workspace;
    p.accumulate = true;
    pool_run(pool, run_product, &p);
    assert_true(c[0] == 1 && c[5] == 6);
    p.accumulate = false;
    p.m = 0;
    pool_run(pool, run_product, &p);
    p.m = 2;
    p.n = 0;
    pool_run(pool, run_product, &p);
    assert_true(c[0] == 1 && c[5] == 6);
    p.n = 3;
    pool_run(pool, run_product, &p);
    for (size_t i = 0; i < 6; i++)
        assert_true(c[i] == 0);
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_sums),
        cmocka_unit_test(lanes_change_no_bit),
        cmocka_unit_test(empty_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
