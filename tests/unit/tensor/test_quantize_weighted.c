/* Quantising where elements do not count alike. */
#include <math.h>

#include "tensor/tensor.h"
#include "tensor_random.h"
#include "test_support.h"

#define LEN 8192

static const enum tensor_type searched[] = {
    TENSOR_Q4_0, TENSOR_Q4_1, TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q8_0,   TENSOR_Q2_K,   TENSOR_Q3_K,
    TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_Q8_K, TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4};
#define SEARCHED (sizeof searched / sizeof *searched)

struct numbers {
    float x[LEN], w[LEN];
};

/* Weights of a network's kind, with a few outliers; squared activations, a few of them great, some 0. */
static struct numbers *make(uint64_t seed)
{
    struct numbers *n = calloc(1, sizeof *n);
    assert_non_null(n);
    for (size_t i = 0; i < LEN; i++) {
        n->x[i] = 0.05f * random_normal(&seed) * (random_u64(&seed) % 100 == 0 ? 4.0f : 1.0f);
        n->w[i] = random_u64(&seed) % 50 == 0 ? 0.0f : expf(1.5f * random_normal(&seed));
    }
    return n;
}

static double distance(enum tensor_type type, const uint8_t *blocks, const struct numbers *n, size_t from,
                       size_t len)
{
    static float y[LEN];
    double sum = 0;
    tensor_dequantize(type, blocks + tensor_row_bytes(type, from), y, len);
    for (size_t i = 0; i < len; i++)
        sum += (double)n->w[from + i] * pow((double)y[i] - (double)n->x[from + i], 2);
    return sum;
}

/* Every block at least as near, all together clearly nearer. What has few codes gains most. */
static void weights_bring_what_counts_nearer(void **state)
{
    (void)state;
    static uint8_t plain[4 * LEN], weighted[4 * LEN];
    struct numbers *n = make(1);
    for (size_t t = 0; t < SEARCHED; t++) {
        enum tensor_type type = searched[t];
        const struct tensor_format *format = tensor_format((uint32_t)type);
        tensor_quantize(type, n->x, plain, LEN);
        tensor_quantize_weighted(type, n->x, n->w, weighted, LEN);
        for (size_t at = 0; at < LEN; at += format->block_len) {
            double a = distance(type, weighted, n, at, format->block_len);
            double b = distance(type, plain, n, at, format->block_len);
            if (a > b * 1.0001)
                fail_msg("%s: block at %zu is at %g, plainly at %g", format->name, at, a, b);
        }
        double share = distance(type, weighted, n, 0, LEN) / distance(type, plain, n, 0, LEN);
        double most = type == TENSOR_Q8_K ? 1 : type == TENSOR_Q8_0 || type == TENSOR_Q6_K ? 0.95 : 0.9;
        if (getenv("PHAROS_TEST_SHOW"))
            printf("%-7s %.3f\n", format->name, share);
        if (!(share <= most))
            fail_msg("%s: weighted error falls to %.3f only", format->name, share);
    }
    free(n);
}

static void no_weights_are_the_plain_rule(void **state)
{
    (void)state;
    static uint8_t plain[4 * LEN], weighted[4 * LEN];
    static float zeros[LEN];
    struct numbers *n = make(2);
    for (size_t t = 0; t < SEARCHED; t++) {
        size_t bytes = tensor_row_bytes(searched[t], LEN);
        tensor_quantize(searched[t], n->x, plain, LEN);
        tensor_quantize_weighted(searched[t], n->x, NULL, weighted, LEN);
        assert_memory_equal(plain, weighted, bytes);
        tensor_quantize_weighted(searched[t], n->x, zeros, weighted, LEN);
        assert_memory_equal(plain, weighted, bytes);
    }
    free(n);
}

/* Numbers and weights at the ends of what floats can say, and no numbers at all. */
static void hostile_numbers_end_in_finite_ones(void **state)
{
    (void)state;
    static const float odd[] = {0.0f,     -0.0f,    1e-45f,    -1e-38f, 1e38f,
                                -3.4e38f, INFINITY, -INFINITY, NAN,     1.0f};
    static uint8_t blocks[4 * 256];
    float x[256], w[256], y[256];
    uint64_t seed = 3;
    for (size_t round = 0; round < 200; round++)
        for (size_t t = 0; t < SEARCHED; t++) {
            for (size_t i = 0; i < 256; i++) {
                x[i] = odd[random_u64(&seed) % 10];
                w[i] = odd[random_u64(&seed) % 10];
            }
            tensor_quantize_weighted(searched[t], x, w, blocks, 256);
            tensor_dequantize(searched[t], blocks, y, 256);
            for (size_t i = 0; i < 256; i++)
                if (!isfinite(y[i]))
                    fail_msg("type %d: %g with weight %g becomes %g", (int)searched[t], (double)x[i],
                             (double)w[i], (double)y[i]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_bring_what_counts_nearer),
        cmocka_unit_test(no_weights_are_the_plain_rule),
        cmocka_unit_test(hostile_numbers_end_in_finite_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
