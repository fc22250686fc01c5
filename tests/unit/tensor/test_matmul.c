/* Matrix products of every kernel set this machine has: against exact sums, against the reference, and
 * against themselves under other numbers of rows and lanes (T1). */
#include "test_support.h"

#include <math.h>

#include "base/mem.h"
#include "tensor/kernels_int.h"
#include "tensor_random.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const enum tensor_type types[] = {
    TENSOR_F32,  TENSOR_F16,  TENSOR_BF16,   TENSOR_Q8_0,   TENSOR_Q4_0,  TENSOR_Q4_1,
    TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q2_K,   TENSOR_Q3_K,   TENSOR_Q4_K,  TENSOR_Q5_K,
    TENSOR_Q6_K, TENSOR_Q8_K, TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4,
};
static const char *const sets[] = {"ref", "avx2", "avx512", "avx512bf16", "amx"};

struct test_product {
    struct matrix w;
    float *x, *y;
    void *workspace;
    size_t n;
    enum phase phase;
};

static void run_product(struct lane *lane, void *ud)
{
    struct test_product *p = ud;
    struct act act;
    act_init(&act, p->x, p->n, p->w.cols, p->workspace);
    tensor_matmul(lane, &p->w, &act, p->y, p->w.rows, p->phase);
}

static struct pool *make_pool(const char *set, unsigned lanes)
{
    const struct kernels *k = kernels_select(set);
    struct pool *pool;
    struct ph_err err;
    if (!k)
        return NULL;
    assert_int_equal(pool_create(&pool, lanes, 0, k, &err), PH_OK);
    return pool;
}

struct product_case {
    struct test_product p;
    float *weights; /* as the blocks say, in floats */
    void *blocks;
};

static void make_case(struct product_case *c, uint64_t *rng, enum tensor_type type, size_t rows, size_t cols,
                      size_t n)
{
    *c = (struct product_case){0};
    c->weights = mem_alloc(rows * cols * sizeof *c->weights);
    c->blocks = mem_alloc(tensor_row_bytes(type, cols) * rows);
    c->p.x = mem_alloc(n * cols * sizeof(float));
    c->p.y = mem_alloc(n * rows * sizeof(float));
    c->p.workspace = mem_alloc_aligned(64, act_workspace_bytes(n, cols));
    random_fill(rng, c->weights, rows * cols, 0.05f);
    random_fill(rng, c->p.x, n * cols, 1.0f);
    tensor_quantize(type, c->weights, c->blocks, rows * cols);
    tensor_dequantize(type, c->blocks, c->weights, rows * cols);
    c->p.w = (struct matrix){type, rows, cols, c->blocks};
    c->p.n = n;
}

static void free_case(struct product_case *c)
{
    mem_free(c->weights);
    mem_free(c->blocks);
    mem_free(c->p.x);
    mem_free(c->p.y);
    mem_free(c->p.workspace);
}

/* L2 distance of the results from exact sums over the weights as stored, relative to the L2 norm of all
 * products (which is what the sums of random terms come to, without the accidents of cancellation). */
static double distance_from_exact(const struct product_case *c)
{
    double error = 0, norm = 0;
    size_t rows = c->p.w.rows, cols = c->p.w.cols;
    for (size_t i = 0; i < c->p.n; i++) {
        for (size_t r = 0; r < rows; r++) {
            double sum = 0;
            for (size_t j = 0; j < cols; j++) {
                double product = (double)c->weights[r * cols + j] * (double)c->p.x[i * cols + j];
                sum += product;
                norm += product * product;
            }
            error += pow(sum - (double)c->p.y[i * rows + r], 2);
        }
    }
    return sqrt(error / norm);
}

static bool is_float(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

/* What rounding the inputs may cost: nothing in F32, half a step of F16 or BF16, 8 bits of a block's greatest
 * element otherwise. */
static double error_bound(enum tensor_type type)
{
    return type == TENSOR_F32 ? 3e-6 : type == TENSOR_F16 ? 5e-4 : type == TENSOR_BF16 ? 4e-3 : 2e-2;
}

static void products_are_near_the_exact_sums(void **state)
{
    (void)state;
    uint64_t rng = 1;
    for (size_t s = 0; s < COUNT(sets); s++) {
        struct pool *pool = make_pool(sets[s], 2);
        if (!pool)
            continue;
        for (size_t t = 0; t < COUNT(types); t++) {
            size_t cols[] = {tensor_format(types[t])->block_len, is_float(types[t]) ? 173 : 768, 512};
            for (size_t i = 0; i < 9; i++) {
                static const size_t ns[] = {1, 5, 35};
                struct product_case c;
                make_case(&c, &rng, types[t], 1 + i * 9, cols[i % 3], ns[i / 3]);
                for (c.p.phase = PHASE_DECODE; c.p.phase <= PHASE_PREFILL; c.p.phase++) {
                    pool_run(pool, run_product, &c.p);
                    double distance = distance_from_exact(&c);
                    if (!(distance <= error_bound(types[t])))
                        fail_msg("%s %s phase %d: %zu x %zu, %zu rows: distance %g", sets[s],
                                 tensor_format(types[t])->name, (int)c.p.phase, c.p.w.rows, c.p.w.cols, c.p.n,
                                 distance);
                }
                free_case(&c);
            }
        }
        pool_free(pool);
    }
}

/* T3: the same integers and scales, only summed in another order. */
static void products_agree_with_the_reference(void **state)
{
    (void)state;
    uint64_t rng = 2;
    struct pool *ref = make_pool("ref", 1);
    for (size_t s = 1; s < COUNT(sets); s++) {
        struct pool *pool = make_pool(sets[s], 1);
        if (!pool)
            continue;
        for (size_t t = 0; t < COUNT(types); t++) {
            struct product_case c;
            make_case(&c, &rng, types[t], 43, is_float(types[t]) ? 531 : 1280, 39);
            size_t len = c.p.n * c.p.w.rows;
            float *expected = mem_alloc(len * sizeof *expected);
            pool_run(ref, run_product, &c.p);
            memcpy(expected, c.p.y, len * sizeof *expected);
            for (c.p.phase = PHASE_DECODE; c.p.phase <= PHASE_PREFILL; c.p.phase++) {
                memset(c.p.y, 0, len * sizeof *c.p.y);
                pool_run(pool, run_product, &c.p);
                double error = 0, norm = 0;
                for (size_t i = 0; i < len; i++) {
                    error += pow((double)expected[i] - (double)c.p.y[i], 2);
                    norm += pow((double)expected[i], 2);
                }
                if (!(sqrt(error / norm) <= 5e-6))
                    fail_msg("%s %s phase %d: distance %g", sets[s], tensor_format(types[t])->name,
                             (int)c.p.phase, sqrt(error / norm));
            }
            mem_free(expected);
            free_case(&c);
        }
        pool_free(pool);
    }
    pool_free(ref);
}

/* T1: the first n rows of a call with many rows, and a call with n rows, give the same bits, for any lanes.
 */
static void rows_do_not_depend_on_company(void **state)
{
    (void)state;
    enum { ROWS = 37, MOST = 40 };
    uint64_t rng = 3;
    for (size_t s = 0; s < COUNT(sets); s++) {
        for (unsigned lanes = 1; lanes <= 3; lanes++) {
            struct pool *pool = make_pool(sets[s], lanes);
            if (!pool)
                continue;
            for (size_t t = 0; t < COUNT(types); t++) {
                struct product_case c;
                make_case(&c, &rng, types[t], ROWS, is_float(types[t]) ? 77 : 512, MOST);
                float *all = mem_alloc(ROWS * MOST * sizeof *all);
                for (c.p.phase = PHASE_DECODE; c.p.phase <= PHASE_PREFILL; c.p.phase++) {
                    struct pool *one = make_pool(sets[s], 1);
                    c.p.n = MOST;
                    pool_run(one, run_product, &c.p);
                    memcpy(all, c.p.y, ROWS * MOST * sizeof *all);
                    pool_free(one);
                    for (size_t n = lanes; n <= MOST; n += lanes == 1 ? 1 : 3) {
                        c.p.n = n;
                        pool_run(pool, run_product, &c.p);
                        if (memcmp(all, c.p.y, ROWS * n * sizeof *all) != 0)
                            fail_msg("%s %s phase %d: %zu rows in %u lanes differ", sets[s],
                                     tensor_format(types[t])->name, (int)c.p.phase, n, lanes);
                    }
                }
                mem_free(all);
                free_case(&c);
            }
            pool_free(pool);
        }
    }
}

/* Blocks at the ends of their ranges: all codes least or greatest, scales from denormal to large. */
static void extreme_blocks_agree_with_the_reference(void **state)
{
    (void)state;
    enum { ROWS = 5, COLS = 512, N = 3 };
    uint64_t rng = 4;
    struct pool *ref = make_pool("ref", 1);
    for (size_t t = 0; t < COUNT(types); t++) {
        if (is_float(types[t]))
            continue;
        for (int round = 0; round < 6; round++) {
            struct product_case c;
            make_case(&c, &rng, types[t], ROWS, COLS, N);
            const struct tensor_format *f = tensor_format(types[t]);
            size_t bytes = tensor_row_bytes(types[t], COLS) * ROWS;
            static const uint8_t fills[] = {0x00, 0xff, 0x80, 0x7f, 0x08, 0x88};
            uint8_t *blocks = c.blocks;
            for (size_t i = 0; i < bytes; i++) /* the codes; scale bytes keep what the quantiser wrote */
                if (i % f->block_bytes >= 20 && i % f->block_bytes < f->block_bytes - 20)
                    blocks[i] = fills[round];
            for (size_t i = 0; f->block_len == 32 && i < bytes; i++)
                if (i % f->block_bytes >= 8)
                    blocks[i] = fills[round];
            for (size_t i = 0; i < N * COLS; i++)
                c.p.x[i] = round % 2 ? (i % 2 ? 1e30f : -1e30f) : 1e-30f * (float)(i % 5);
            if (types[t] == TENSOR_Q8_K)
                memset(c.p.x, 0, N * COLS * sizeof *c.p.x);
            float expected[ROWS * N];
            pool_run(ref, run_product, &c.p);
            memcpy(expected, c.p.y, sizeof expected);
            for (size_t s = 1; s < COUNT(sets); s++) {
                struct pool *pool = make_pool(sets[s], 1);
                if (!pool)
                    continue;
                pool_run(pool, run_product, &c.p);
                double scale = 0;
                for (size_t i = 0; i < ROWS * N; i++)
                    scale = fmax(scale, fabs((double)expected[i]));
                for (size_t i = 0; i < ROWS * N; i++) {
                    double diff = fabs((double)expected[i] - (double)c.p.y[i]);
                    if (!(diff <= 1e-4 * scale + 1e-36) && isfinite(expected[i]))
                        fail_msg("%s %s fill %02x: %g, not %g", sets[s], f->name, fills[round],
                                 (double)c.p.y[i], (double)expected[i]);
                }
                pool_free(pool);
            }
            free_case(&c);
        }
    }
    pool_free(ref);
}

static void sets_are_chosen_by_name(void **state)
{
    (void)state;
    assert_string_equal(kernels_name(kernels_select("ref")), "ref");
    assert_null(kernels_select("mmx"));
    assert_non_null(kernels_select(NULL));
}

/* Kernels may look at the next row's blocks while they finish a short row: whatever lies there, here scales
 * that are NaN, is not to be heard of. Row 0 is as it was, row 1 is not a number. */
static void a_short_row_ends_where_it_ends(void **state)
{
    (void)state;
    static const enum tensor_type formats[] = {TENSOR_Q8_0, TENSOR_Q4_0,   TENSOR_Q4_1,  TENSOR_Q5_0,
                                               TENSOR_Q5_1, TENSOR_IQ4_NL, TENSOR_MXFP4, TENSOR_Q6_K};
    uint64_t rng = 11;
    struct pool *pool = make_pool(NULL, 1);
    for (size_t t = 0; t < sizeof formats / sizeof *formats; t++)
        for (size_t blocks = 1; blocks < 20; blocks += 3) {
            size_t cols = blocks * tensor_format(formats[t])->block_len;
            size_t row_bytes = tensor_row_bytes(formats[t], cols);
            struct product_case c;
            make_case(&c, &rng, formats[t], 40, cols, 2);
            pool_run(pool, run_product, &c.p);
            float first = c.p.y[0], second = c.p.y[c.p.w.rows];
            assert_true(isfinite(first) && isfinite(second));
            memset((uint8_t *)c.blocks + row_bytes, 0xff, 39 * row_bytes);
            pool_run(pool, run_product, &c.p);
            assert_memory_equal(&c.p.y[0], &first, sizeof first);
            assert_memory_equal(&c.p.y[c.p.w.rows], &second, sizeof second);
            if (formats[t] != TENSOR_MXFP4) /* E8M0 has numbers only, in this reading */
                assert_true(!isfinite(c.p.y[1]));
            free_case(&c);
        }
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_are_chosen_by_name),
        cmocka_unit_test(products_are_near_the_exact_sums),
        cmocka_unit_test(products_agree_with_the_reference),
        cmocka_unit_test(rows_do_not_depend_on_company),
        cmocka_unit_test(extreme_blocks_agree_with_the_reference),
        cmocka_unit_test(a_short_row_ends_where_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
