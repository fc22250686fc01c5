/* Codes of 8 bits: every kernel set's sums are the definition's, exactly; codes stand for their vectors; dot
 * products with halves. */
#include "base/mem.h"
#include "tensor/tensor.h"
#include "tensor_random.h"
#include "test_support.h"

#define ROWS 7
#define LEN_MAX 700

static const char *const sets[] = {"ref", "avx2", "avx512", "avx512bf16", "amx"};
static const size_t lens[] = {1, 3, 16, 31, 32, 33, 63, 64, 65, 100, 128, 255, 256, 384, 511, 700};

static void fill_codes(uint64_t *rng, int8_t *codes, size_t len, bool extreme)
{
    for (size_t i = 0; i < len; i++)
        codes[i] =
            extreme ? (random_u64(rng) & 1 ? 127 : -127) : (int8_t)((int)(random_u64(rng) % 255) - 127);
}

static void sums_are_exact(void **state)
{
    (void)state;
    static int8_t query[LEN_MAX], rows[ROWS * LEN_MAX];
    uint64_t rng = 3;
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++)
        for (size_t l = 0; l < 2 * sizeof lens / sizeof *lens; l++) {
            const struct kernels *k = kernels_select(sets[s]);
            size_t len = lens[l / 2];
            int32_t got[ROWS];
            if (!k)
                continue;
            fill_codes(&rng, query, len, l % 2);
            fill_codes(&rng, rows, ROWS * len, l % 2);
            tensor_codes_dot(k, query, rows, ROWS, len, got);
            for (size_t r = 0; r < ROWS; r++) {
                int32_t want = 0;
                for (size_t i = 0; i < len; i++)
                    want += query[i] * rows[r * len + i];
                if (got[r] != want)
                    fail_msg("%s, %zu codes, row %zu: %d, not %d", sets[s], len, r, (int)got[r], (int)want);
            }
        }
}

static void codes_stand_for_vectors(void **state)
{
    (void)state;
    float x[LEN_MAX];
    int8_t codes[LEN_MAX];
    uint64_t rng = 4;
    random_fill(&rng, x, LEN_MAX, 3.0f);
    x[5] = -20.0f;
    float scale = tensor_codes_make(x, codes, LEN_MAX);
    assert_int_equal(codes[5], -127);
    for (size_t i = 0; i < LEN_MAX; i++)
        assert_true(fabsf(x[i] - scale * (float)codes[i]) <= scale * 0.501f);
    const float odd[4] = {0, NAN, INFINITY, -1};
    assert_true(tensor_codes_make(odd, codes, 4) >= 0); /* anything, but no code out of range */
    for (size_t i = 0; i < 4; i++)
        assert_true(codes[i] >= -127);
    const float zeros[3] = {0, 0, 0};
    assert_true(tensor_codes_make(zeros, codes, 3) == 0.0f && codes[0] == 0);
}

static void halves_are_multiplied(void **state)
{
    (void)state;
    float a[LEN_MAX], b[LEN_MAX];
    uint16_t halves[LEN_MAX];
    uint64_t rng = 5;
    random_fill(&rng, a, LEN_MAX, 1.0f);
    random_fill(&rng, b, LEN_MAX, 1.0f);
    for (size_t i = 0; i < LEN_MAX; i++)
        halves[i] = tensor_f32_to_f16(b[i]);
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++)
        for (size_t l = 0; l < sizeof lens / sizeof *lens; l++) {
            const struct kernels *k = kernels_select(sets[s]);
            double want = 0, size = 1;
            if (!k)
                continue;
            for (size_t i = 0; i < lens[l]; i++) {
                want += (double)a[i] * (double)tensor_f16_to_f32(halves[i]);
                size += fabs((double)a[i] * (double)b[i]);
            }
            float got = tensor_dot_f16(k, a, halves, lens[l]);
            if (!(fabs((double)got - want) <= 1e-6 * size))
                fail_msg("%s, %zu halves: %g, not %g", sets[s], lens[l], (double)got, want);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_exact),
        cmocka_unit_test(codes_stand_for_vectors),
        cmocka_unit_test(halves_are_multiplied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
