#include "test_support.h"

#include <math.h>

#include "format_vectors.h"
#include "tensor/formats_int.h"
#include "tensor_random.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint64_t fnv(const void *data, size_t len)
{
    const uint8_t *bytes = data;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t len = strlen(hex) / 2;
    for (size_t i = 0; i < len; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return len;
}

static void real_blocks_give_ggmls_values_bit_for_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(format_vectors); i++) {
        const struct format_vector *v = &format_vectors[i];
        const struct tensor_format *f = tensor_format((uint32_t)v->type);
        uint8_t bytes[512];
        float values[256];
        size_t len = from_hex(v->hex, bytes) / f->block_bytes * f->block_len;
        tensor_dequantize(v->type, bytes, values, len);
        if (fnv(values, len * sizeof *values) != v->hash)
            fail_msg("%s: other values than ggml's", f->name);
    }
}

static void formats_are_found_by_number_and_name(void **state)
{
    (void)state;
    assert_null(tensor_format(4)); /* Q4_2, long gone */
    assert_null(tensor_format(1000));
    assert_null(tensor_format_by_name("Q9_K"));
    assert_int_equal(tensor_format_by_name("q4_k")->type, TENSOR_Q4_K);
    assert_int_equal(tensor_row_bytes(TENSOR_Q6_K, 512), 420);
    assert_int_equal(tensor_row_bytes(TENSOR_BF16, 3), 6);
}

static void halves_convert_both_ways(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float value = tensor_f16_to_f32((uint16_t)bits);
        if (value == value)
            assert_int_equal(tensor_f32_to_f16(value), bits);
    }
    assert_int_equal(tensor_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(tensor_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(tensor_f32_to_f16(0x1p-25f), 0);   /* a tie goes to the even one */
    assert_int_equal(tensor_f32_to_f16(0x1.8p-24f), 2); /* and here upwards */
    assert_int_equal(tensor_f32_to_f16(-1e-30f), 0x8000);
    assert_int_equal(tensor_f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
    assert_int_equal(tensor_f32_to_bf16(1.0f + 0x3p-8f), 0x3f82);
    assert_true(isnan(tensor_bf16_to_f32(tensor_f32_to_bf16(NAN))));
    assert_true(isnan(tensor_f16_to_f32(tensor_f32_to_f16(NAN))));
}

/* Greatest relative error (L2) of normally distributed values, a little above what the format is known for.
 */
static const struct {
    enum tensor_type type;
    double error;
} bounds[] = {
    {TENSOR_F32, 0.0},    {TENSOR_F16, 3e-4},   {TENSOR_BF16, 2e-3},   {TENSOR_Q8_0, 6e-3},
    {TENSOR_Q4_0, 0.09},  {TENSOR_Q4_1, 0.082}, {TENSOR_Q5_0, 0.046},  {TENSOR_Q5_1, 0.041},
    {TENSOR_Q2_K, 0.29},  {TENSOR_Q3_K, 0.16},  {TENSOR_Q4_K, 0.075},  {TENSOR_Q5_K, 0.038},
    {TENSOR_Q6_K, 0.019}, {TENSOR_Q8_K, 8e-3},  {TENSOR_IQ4_NL, 0.08}, {TENSOR_IQ4_XS, 0.081},
    {TENSOR_MXFP4, 0.12},
};

static void quantised_values_stay_near(void **state)
{
    (void)state;
    enum { LEN = 256 * 24 };
    static float x[LEN], y[LEN];
    static uint8_t bytes[LEN * 4];
    uint64_t rng = 7;
    for (size_t i = 0; i < LEN; i++)
        x[i] = random_normal(&rng) * 0.02f;
    for (size_t i = 0; i < COUNT(bounds); i++) {
        tensor_quantize(bounds[i].type, x, bytes, LEN);
        tensor_dequantize(bounds[i].type, bytes, y, LEN);
        double error = 0, norm = 0;
        for (size_t j = 0; j < LEN; j++) {
            error += pow((double)x[j] - (double)y[j], 2);
            norm += pow((double)x[j], 2);
        }
        if (!(sqrt(error / norm) <= bounds[i].error))
            fail_msg("%s: error %g", tensor_format(bounds[i].type)->name, sqrt(error / norm));
    }
}

static void quantising_what_was_quantised_changes_little(void **state)
{
    (void)state;
    uint64_t rng = 8;
    float x[256], y[256], z[256];
    uint8_t bytes[1024];
    for (size_t i = 0; i < 256; i++)
        x[i] = random_normal(&rng);
    for (size_t i = 0; i < COUNT(bounds); i++) {
        tensor_quantize(bounds[i].type, x, bytes, 256);
        tensor_dequantize(bounds[i].type, bytes, y, 256);
        tensor_quantize(bounds[i].type, y, bytes, 256);
        tensor_dequantize(bounds[i].type, bytes, z, 256);
        double error = 0, norm = 0;
        for (size_t j = 0; j < 256; j++) {
            error += pow((double)z[j] - (double)y[j], 2);
            norm += pow((double)y[j], 2);
        }
        assert_true(sqrt(error / norm) <= 0.7 * bounds[i].error + 1e-9);
    }
}

/* Whatever comes in, what comes out is finite, and zero stays zero. */
static void quantisers_take_any_input(void **state)
{
    (void)state;
    static const float odd[] = {0.0f, -0.0f, 1e-45f,   -1e-40f, 1e-20f,   1e20f, -3.4e38f, 3.4e38f,
                                1.0f, -1.0f, INFINITY, NAN,     65504.0f, 7e4f,  1e-8f,    -128.0f};
    uint64_t rng = 9;
    float x[256], y[256];
    uint8_t bytes[1024];
    for (int round = 0; round < 200; round++) {
        size_t kinds = 1 + (size_t)round % COUNT(odd);
        for (size_t j = 0; j < 256; j++)
            x[j] = odd[random_u64(&rng) % kinds];
        for (size_t i = 0; i < COUNT(bounds); i++) {
            tensor_quantize(bounds[i].type, x, bytes, 256);
            tensor_dequantize(bounds[i].type, bytes, y, 256);
            for (size_t j = 0; j < 256; j++) {
                if (!isfinite(y[j]) || (kinds == 1 && y[j] != 0.0f))
                    fail_msg("%s: %g became %g", tensor_format(bounds[i].type)->name, (double)x[j],
                             (double)y[j]);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_blocks_give_ggmls_values_bit_for_bit),
        cmocka_unit_test(formats_are_found_by_number_and_name),
        cmocka_unit_test(halves_convert_both_ways),
        cmocka_unit_test(quantised_values_stay_near),
        cmocka_unit_test(quantising_what_was_quantised_changes_little),
        cmocka_unit_test(quantisers_take_any_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
