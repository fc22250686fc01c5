/* Several products as one step: the bits of each by itself, whatever the formats, rows and lanes (T1). */
#include "test_support.h"

#include "base/mem.h"
#include "tensor/tensor.h"
#include "tensor_random.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { COLS = 512, MATRICES = 5, INPUTS_MOST = 35, ROWS_ALL = 1 + 700 + 37 + 64 + 301, GAP = 3 };

static const size_t rows_of[MATRICES] = {1, 700, 37, 64, 301};
static const enum tensor_type mixes[][MATRICES] = {
    {TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_Q8_0, TENSOR_F16},
    {TENSOR_Q4_0, TENSOR_Q8_0, TENSOR_Q4_1, TENSOR_MXFP4, TENSOR_Q4_0},
    {TENSOR_BF16, TENSOR_F32, TENSOR_Q8_0, TENSOR_IQ4_XS, TENSOR_Q5_K},
};
static const char *const sets[] = {"ref", "avx2", "avx512", "amx"};

struct step {
    struct matmul matmuls[MATRICES];
    const float *x;
    void *workspace;
    size_t n;
    enum phase phase;
    bool together;
};

static void run_step(struct lane *lane, void *ud)
{
    struct step *s = ud;
    struct act act;
    act_init(&act, s->x, s->n, COLS, s->workspace);
    if (s->together)
        tensor_matmuls(lane, s->matmuls, MATRICES, &act, s->phase);
    for (size_t i = 0; i < MATRICES && !s->together; i++)
        tensor_matmul(lane, &s->matmuls[i].w, &act, s->matmuls[i].y, s->matmuls[i].y_stride, s->phase);
}

static void make_step(struct step *s, uint64_t *rng, const enum tensor_type *types)
{
    float *floats = mem_alloc(700 * COLS * sizeof *floats), *x = mem_alloc(INPUTS_MOST * COLS * sizeof *x);
    float *y = mem_alloc(INPUTS_MOST * (ROWS_ALL + MATRICES * GAP) * sizeof *y);
    *s = (struct step){.x = x, .workspace = mem_alloc_aligned(64, act_workspace_bytes(INPUTS_MOST, COLS))};
    random_fill(rng, x, INPUTS_MOST * COLS, 1.0f);
    for (size_t i = 0; i < MATRICES; i++) {
        size_t rows = rows_of[i];
        void *blocks = mem_alloc(tensor_row_bytes(types[i], COLS) * rows);
        random_fill(rng, floats, rows * COLS, 0.05f);
        tensor_quantize(types[i], floats, blocks, rows * COLS);
        s->matmuls[i] = (struct matmul){{types[i], rows, COLS, blocks}, y, rows + GAP};
        y += INPUTS_MOST * (rows + GAP);
    }
    mem_free(floats);
}

static void free_step(struct step *s)
{
    for (size_t i = 0; i < MATRICES; i++)
        mem_free((void *)(uintptr_t)s->matmuls[i].w.data);
    mem_free((void *)(uintptr_t)s->x);
    mem_free(s->matmuls[0].y);
    mem_free(s->workspace);
}

static void compare(struct pool *one, struct pool *many, struct step *s, const char *set)
{
    size_t len = INPUTS_MOST * (ROWS_ALL + MATRICES * GAP);
    float *y = s->matmuls[0].y, *apart = mem_alloc(len * sizeof *apart);
    memset(y, 0x5a, len * sizeof *y);
    s->together = false;
    pool_run(one, run_step, s);
    memcpy(apart, y, len * sizeof *y);
    memset(y, 0x5a, len * sizeof *y);
    s->together = true;
    pool_run(many, run_step, s);
    if (memcmp(apart, y, len * sizeof *y) != 0)
        fail_msg("%s, %u lanes, %zu rows, phase %d: together is not what each is apart", set,
                 pool_lanes(many), s->n, (int)s->phase);
    mem_free(apart);
}

static void together_is_what_each_is_apart(void **state)
{
    (void)state;
    static const size_t ns[] = {1, 6, INPUTS_MOST};
    uint64_t rng = 7;
    struct ph_err err;
    for (size_t mix = 0; mix < COUNT(mixes); mix++) {
        struct step s;
        make_step(&s, &rng, mixes[mix]);
        for (size_t i = 0; i < COUNT(sets); i++) {
            const struct kernels *k = kernels_select(sets[i]);
            struct pool *one, *many;
            if (!k)
                continue;
            assert_int_equal(pool_create(&one, 1, 0, k, &err), PH_OK);
            for (unsigned lanes = 1; lanes <= 5; lanes += 2) {
                assert_int_equal(pool_create(&many, lanes, 0, k, &err), PH_OK);
                for (size_t n = 0; n < COUNT(ns); n++) {
                    s.n = ns[n];
                    for (s.phase = PHASE_DECODE; s.phase <= PHASE_PREFILL; s.phase++)
                        compare(one, many, &s, sets[i]);
                }
                pool_free(many);
            }
            pool_free(one);
        }
        free_step(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(together_is_what_each_is_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
