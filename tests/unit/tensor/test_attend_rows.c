/* Attention of several positions at once: each row as tensor_attend answers it, and untouched by its
 * company. */
#include "base/mem.h"
#include "tensor/tensor.h"
#include "tensor_random.h"
#include "test_support.h"

#define PAGES 6
#define PAGE_LEN_MAX 40
#define DIM_MAX 96
#define ROWS_MAX 37
#define GROUP_MAX 8
#define ROW_FLOATS (GROUP_MAX * DIM_MAX + 5) /* rows do not touch */

static const char *const sets[] = {"ref", "avx2", "avx512", "avx512bf16", "amx"};

struct fixture {
    uint8_t k_bytes[PAGES][PAGE_LEN_MAX * DIM_MAX * 4], v_bytes[PAGES][PAGE_LEN_MAX * DIM_MAX * 4];
    const void *k_pages[PAGES], *v_pages[PAGES];
    float q[ROWS_MAX * ROW_FLOATS], many[ROWS_MAX * ROW_FLOATS], one[ROW_FLOATS];
    float sinks[GROUP_MAX];
};

struct shape {
    enum tensor_type type;
    size_t page_len, group, dim_k, dim_v, rows, end, window;
    float softcap;
    bool sinks, both_ways;
};

static const struct shape shapes[] = {
    {TENSOR_F32, 32, 1, 64, 64, 1, 1, 0, 0, false, false},
    {TENSOR_F32, 32, 2, 64, 64, 37, 1, 0, 0, false, false},
    {TENSOR_F16, 32, 4, 96, 96, 32, 100, 0, 0, false, false},
    {TENSOR_F16, 32, 3, 24, 40, 33, 60, 16, 0, true, false},
    {TENSOR_Q8_0, 32, 8, 32, 64, 20, 150, 64, 0, true, false},
    {TENSOR_F32, 40, 1, 7, 5, 9, 90, 1, 3, false, false},
    {TENSOR_F16, 12, 5, 80, 8, 17, 30, 0, 20, false, false},
    {TENSOR_F32, 32, 7, 16, 16, 5, 31, 40, 0, false, false},
    {TENSOR_F32, 32, 1, 32, 32, 37, 37, 0, 0, false, true},
    {TENSOR_F32, 32, 2, 64, 64, 3, 3, 0, 0, false, true},
    {TENSOR_F32, 40, 3, 7, 5, 20, 81, 0, 3, false, true},
};

static void fill(struct fixture *f, const struct kernels *k, const struct shape *s, uint64_t *rng)
{
    float row[DIM_MAX];
    for (size_t p = 0; p < PAGES; p++) {
        f->k_pages[p] = f->k_bytes[p];
        f->v_pages[p] = f->v_bytes[p];
        for (size_t i = 0; i < s->page_len; i++) {
            random_fill(rng, row, s->dim_k, 1.0f);
            tensor_kv_store(k, s->type, row, f->k_bytes[p] + i * tensor_row_bytes(s->type, s->dim_k),
                            s->dim_k);
            random_fill(rng, row, s->dim_v, 1.0f);
            tensor_kv_store(k, s->type, row, f->v_bytes[p] + i * tensor_row_bytes(s->type, s->dim_v),
                            s->dim_v);
        }
    }
    random_fill(rng, f->q, ROWS_MAX * ROW_FLOATS, 1.0f);
    random_fill(rng, f->sinks, GROUP_MAX, 1.0f);
}

static struct attn describe(const struct fixture *f, const struct shape *s, size_t row)
{
    size_t end = s->both_ways ? s->end : s->end + row;
    return (struct attn){.type = s->type,
                         .page_len = s->page_len,
                         .head_dim_k = s->dim_k,
                         .head_dim_v = s->dim_v,
                         .k_pages = f->k_pages,
                         .v_pages = f->v_pages,
                         .first = s->window && end > s->window ? end - s->window : 0,
                         .end = end,
                         .scale = 0.3f,
                         .softcap = s->softcap,
                         .sinks = s->sinks ? f->sinks : NULL,
                         .both_ways = s->both_ways};
}

static void run_rows(const struct kernels *k, const struct fixture *f, const struct shape *s, size_t first,
                     size_t rows, float *out)
{
    struct attn a = describe(f, s, first);
    void *scratch =
        mem_alloc(tensor_attend_rows_scratch_bytes(rows, s->group, s->page_len, s->dim_k, s->dim_v));
    assert_non_null(scratch);
    tensor_attend_rows(k, &a, s->window, f->q + first * ROW_FLOATS, ROW_FLOATS, rows, s->group, out,
                       ROW_FLOATS, scratch);
    mem_free(scratch);
}

static void rows_match_single_positions(void **state)
{
    (void)state;
    struct fixture *f = mem_calloc(1, sizeof *f);
    uint64_t rng = 9;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
            const struct kernels *k = kernels_select(sets[i]);
            const struct shape *s = &shapes[j];
            if (!k)
                continue;
            fill(f, k, s, &rng);
            run_rows(k, f, s, 0, s->rows, f->many);
            for (size_t row = 0; row < s->rows; row++) {
                struct attn a = describe(f, s, row);
                void *scratch =
                    mem_alloc(tensor_attend_scratch_bytes(s->group, s->page_len, s->dim_k, s->dim_v));
                tensor_attend(k, &a, f->q + row * ROW_FLOATS, s->group, f->one, scratch);
                mem_free(scratch);
                for (size_t d = 0; d < s->group * s->dim_v; d++)
                    if (!(fabsf(f->one[d] - f->many[row * ROW_FLOATS + d]) <= 3e-5f))
                        fail_msg("%s, shape %zu, row %zu, value %zu: %g, alone %g", sets[i], j, row, d,
                                 (double)f->many[row * ROW_FLOATS + d], (double)f->one[d]);
            }
        }
    mem_free(f);
}

/* T1: bit for bit the same whatever rows share the call, even where a later position's key is not a number.
 * */
static void rows_do_not_touch_each_other(void **state)
{
    (void)state;
    struct fixture *f = mem_calloc(1, sizeof *f);
    uint64_t rng = 10;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
            const struct kernels *k = kernels_select(sets[i]);
            const struct shape *s = &shapes[j];
            if (!k)
                continue;
            fill(f, k, s, &rng);
            if (s->type == TENSOR_F32) { /* what only the last row may see */
                size_t last = s->end + s->rows - 2, page = last / s->page_len, at = last % s->page_len;
                memset(f->v_bytes[page] + at * s->dim_v * 4, 0xff, s->dim_v * 4);
                memset(f->k_bytes[page] + at * s->dim_k * 4, 0xff, s->dim_k * 4);
            }
            run_rows(k, f, s, 0, s->rows, f->many);
            for (size_t row = 0; row + 1 < s->rows; row++) {
                run_rows(k, f, s, row, 1, f->one);
                assert_memory_equal(f->one, f->many + row * ROW_FLOATS, s->group * s->dim_v * sizeof(float));
                for (size_t d = 0; d < s->group * s->dim_v; d++)
                    assert_true(isfinite(f->one[d]));
            }
        }
    mem_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_match_single_positions),
        cmocka_unit_test(rows_do_not_touch_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
