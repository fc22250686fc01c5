/* Vector operations and attention of every kernel set, against the C library in double precision. */
#include "test_support.h"

#include "base/mem.h"
#include "tensor/tensor.h"
#include "tensor_random.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const sets[] = {"ref", "avx2", "avx512", "avx512bf16", "amx"};
static const size_t lengths[] = {1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 100, 129, 1000};

static void near(const char *what, double got, double expected, double relative, double absolute)
{
    if (!(fabs(got - expected) <= relative * fabs(expected) + absolute) && got != expected)
        fail_msg("%s: %.9g, not %.9g", what, got, expected);
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(0.79788456080286535588 * x * (1 + 0.044715 * x * x)));
}

static void activations_are_precise(void **state)
{
    (void)state;
    enum { LEN = 4001 };
    static float x[LEN], y[LEN];
    for (size_t s = 0; s < COUNT(sets); s++) {
        const struct kernels *k = kernels_select(sets[s]);
        for (int i = 0; k && i < LEN; i++)
            x[i] = (float)(i - 2000) * 0.011f;
        if (!k)
            continue;
        memcpy(y, x, sizeof y);
        tensor_silu(k, y, LEN);
        for (size_t i = 0; i < LEN; i++)
            near("silu", (double)y[i], silu((double)x[i]), 5e-7, 1e-37);
        memcpy(y, x, sizeof y);
        tensor_gelu(k, y, LEN);
        for (size_t i = 0; i < LEN; i++) { /* one step of F16, where the last bit decides the rounding */
            double h = (double)tensor_f16_to_f32(tensor_f32_to_f16(x[i]));
            double y0 = x[i] <= -10 ? 0 : x[i] >= 10 ? (double)x[i] : gelu(h);
            near("gelu", (double)y[i], y0, 5e-4, 6e-8);
        }
        memcpy(y, x, sizeof y);
        tensor_softcap(k, y, LEN, 3.0f);
        for (size_t i = 0; i < LEN; i++)
            near("softcap", (double)y[i], 3 * tanh((double)x[i] / 3), 5e-7, 0);
        memcpy(y, x, sizeof y);
        tensor_silu_mul(k, y, x, LEN);
        for (size_t i = 0; i < LEN; i++)
            near("silu_mul", (double)y[i], silu((double)x[i]) * (double)x[i], 6e-7, 1e-36);
    }
}

static void exponentials_are_precise_and_saturate(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(sets); s++) {
        const struct kernels *k = kernels_select(sets[s]);
        if (!k)
            continue;
        for (double x = -100; x < 0; x += 0.0137) {
            float pair[2] = {(float)x, 0.0f}; /* softmax of (x, 0) is e^x / (1 + e^x) */
            tensor_softmax(k, pair, 2);
            double e = exp((double)(float)x);
            near("exp", (double)pair[0], e / (1 + e), 3e-7, 3e-45);
        }
        float masked[5] = {-INFINITY, 1.0f, -INFINITY, 1.0f, -3e38f};
        tensor_softmax(k, masked, 5);
        assert_true(masked[0] == 0.0f && masked[1] == 0.5f && masked[4] == 0.0f);
        float large[3] = {1e30f, -1e30f, 3e38f};
        tensor_silu(k, large, 3);
        assert_true(large[0] == 1e30f && large[1] == 0.0f && large[2] == 3e38f);
    }
}

static void sums_and_norms_take_any_length(void **state)
{
    (void)state;
    uint64_t rng = 1;
    float x[1000], w[1000], b[1000], y[1001];
    random_fill(&rng, x, 1000, 1.0f);
    random_fill(&rng, w, 1000, 1.0f);
    random_fill(&rng, b, 1000, 1.0f);
    for (size_t s = 0; s < COUNT(sets); s++) {
        const struct kernels *k = kernels_select(sets[s]);
        for (size_t l = 0; k && l < COUNT(lengths); l++) {
            size_t len = lengths[l];
            double dot = 0, squares = 0, mean = 0, variance = 0;
            for (size_t i = 0; i < len; i++) {
                dot += (double)x[i] * (double)w[i];
                squares += (double)x[i] * (double)x[i];
                mean += (double)x[i] / (double)len;
            }
            for (size_t i = 0; i < len; i++)
                variance += pow((double)x[i] - mean, 2) / (double)len;
            near("dot", (double)tensor_dot(k, x, w, len), dot, 1e-6, 1e-5);
            y[len] = 42.0f;
            tensor_rms_norm(k, y, x, w, len, 1e-5f);
            for (size_t i = 0; i < len; i++)
                near("rms", (double)y[i], (double)x[i] * (double)w[i] / sqrt(squares / (double)len + 1e-5),
                     1e-6, 0);
            tensor_layer_norm(k, y, x, w, b, len, 1e-5f);
            for (size_t i = 0; i < len; i++)
                near("layer norm", (double)y[i],
                     ((double)x[i] - mean) / sqrt(variance + 1e-5) * (double)w[i] + (double)b[i], 1e-6, 1e-5);
            memcpy(y, x, len * sizeof *y);
            tensor_axpy(k, y, 2.5f, w, len);
            tensor_add(k, y, b, len);
            tensor_mul(k, y, w, len);
            tensor_scale(k, y, -0.5f, len);
            for (size_t i = 0; i < len; i++)
                near("elementwise", (double)y[i],
                     -0.5 * (double)w[i] * ((double)x[i] + 2.5 * (double)w[i] + (double)b[i]), 1e-6, 1e-5);
            assert_true(y[len] == 42.0f); /* nothing writes past the end */
        }
    }
}

static void rotation_keeps_both_orders(void **state)
{
    (void)state;
    float table[] = {0.6f, 0.8f, 1.0f, 0.0f, 0.0f, 1.0f};
    for (size_t s = 0; s < COUNT(sets); s++) {
        const struct kernels *k = kernels_select(sets[s]);
        if (!k)
            continue;
        float a[] = {1, 2, 3, 4, 5, 6, 7}, b[] = {1, 2, 3, 4, 5, 6, 7};
        static const double adjacent[] = {0.6 - 1.6, 0.8 + 1.2, 3, 4, -6, 5, 7};
        static const double halves[] = {0.6 - 3.2, 2, -6, 0.8 + 2.4, 5, 3, 7};
        tensor_rope(k, a, table, 3, false);
        tensor_rope(k, b, table, 3, true);
        for (size_t i = 0; i < 7; i++) {
            near("adjacent", (double)a[i], adjacent[i], 1e-6, 1e-6);
            near("halves", (double)b[i], halves[i], 1e-6, 1e-6);
        }
    }
}

/* ---- Attention ---- */

enum { PAGES = 5, PAGE_LEN = 16, GROUP_MAX = 9, DIM_MAX = 96 };

struct cache {
    float k[PAGES * PAGE_LEN * DIM_MAX], v[PAGES * PAGE_LEN * DIM_MAX]; /* as stored, in floats */
    uint8_t k_bytes[PAGES][PAGE_LEN * DIM_MAX * 4], v_bytes[PAGES][PAGE_LEN * DIM_MAX * 4];
    const void *k_pages[PAGES], *v_pages[PAGES];
};

static void fill_cache(struct cache *c, const struct kernels *k, enum tensor_type type, size_t dim_k,
                       size_t dim_v, uint64_t *rng)
{
    random_fill(rng, c->k, PAGES * PAGE_LEN * DIM_MAX, 1.0f);
    random_fill(rng, c->v, PAGES * PAGE_LEN * DIM_MAX, 1.0f);
    for (size_t p = 0; p < PAGES; p++) {
        for (size_t i = 0; i < PAGE_LEN; i++) {
            float *key = c->k + (p * PAGE_LEN + i) * dim_k, *value = c->v + (p * PAGE_LEN + i) * dim_v;
            uint8_t *k_row = c->k_bytes[p] + i * tensor_row_bytes(type, dim_k);
            uint8_t *v_row = c->v_bytes[p] + i * tensor_row_bytes(type, dim_v);
            tensor_kv_store(k, type, key, k_row, dim_k);
            tensor_kv_store(k, type, value, v_row, dim_v);
            tensor_dequantize(type, k_row, key, dim_k);
            tensor_dequantize(type, v_row, value, dim_v);
        }
        c->k_pages[p] = c->k_bytes[p];
        c->v_pages[p] = c->v_bytes[p];
    }
}

static void attend_plainly(const struct attn *a, const struct cache *c, const float *q, size_t head,
                           double *out)
{
    double logits[PAGES * PAGE_LEN], top = a->sinks ? (double)a->sinks[head] : -INFINITY, sum;
    for (size_t j = a->first; j < a->end; j++) {
        double dot = 0;
        for (size_t i = 0; i < a->head_dim_k; i++)
            dot += (double)q[i] * (double)c->k[j * a->head_dim_k + i];
        dot *= (double)a->scale;
        logits[j] = a->softcap > 0 ? (double)a->softcap * tanh(dot / (double)a->softcap) : dot;
        top = fmax(top, logits[j]);
    }
    sum = a->sinks ? exp((double)a->sinks[head] - top) : 0;
    for (size_t j = a->first; j < a->end; j++)
        sum += exp(logits[j] - top);
    for (size_t i = 0; i < a->head_dim_v; i++) {
        out[i] = 0;
        for (size_t j = a->first; j < a->end; j++)
            out[i] += exp(logits[j] - top) / sum * (double)c->v[j * a->head_dim_v + i];
    }
}

static void attention_matches_the_definition(void **state)
{
    (void)state;
    static const struct {
        enum tensor_type type;
        size_t group, dim_k, dim_v, first, end;
        float softcap;
        bool sinks;
    } cases[] = {
        {TENSOR_F32, 1, 64, 64, 0, 1, 0, false},    {TENSOR_F32, 4, 24, 24, 0, 80, 0, false},
        {TENSOR_F16, 8, 64, 64, 0, 33, 0, false},   {TENSOR_F16, 3, 80, 96, 7, 55, 20, false},
        {TENSOR_Q8_0, 4, 32, 64, 16, 48, 0, false}, {TENSOR_Q8_0, 1, 96, 96, 15, 80, 0, true},
        {TENSOR_F32, 2, 5, 7, 3, 20, 5, true},      {TENSOR_F16, 9, 40, 40, 31, 32, 0, true},
        {TENSOR_F16, 5, 3, 1, 0, 17, 0, false},     {TENSOR_F32, 6, 64, 96, 0, 79, 0, false},
        {TENSOR_F16, 7, 96, 64, 1, 78, 0, false},   {TENSOR_F16, 2, 64, 64, 0, 80, 30, false},
    };
    struct cache *c = mem_alloc(sizeof *c);
    uint64_t rng = 5;
    float q[GROUP_MAX * DIM_MAX], sinks[GROUP_MAX], out[GROUP_MAX * DIM_MAX];
    double expected[DIM_MAX];
    for (size_t s = 0; s < COUNT(sets); s++) {
        const struct kernels *k = kernels_select(sets[s]);
        for (size_t i = 0; k && i < COUNT(cases); i++) {
            fill_cache(c, k, cases[i].type, cases[i].dim_k, cases[i].dim_v, &rng);
            random_fill(&rng, q, GROUP_MAX * DIM_MAX, 1.0f);
            random_fill(&rng, sinks, GROUP_MAX, 1.0f);
            struct attn a = {.type = cases[i].type,
                             .page_len = PAGE_LEN,
                             .head_dim_k = cases[i].dim_k,
                             .head_dim_v = cases[i].dim_v,
                             .k_pages = c->k_pages,
                             .v_pages = c->v_pages,
                             .first = cases[i].first,
                             .end = cases[i].end,
                             .scale = 0.3f,
                             .softcap = cases[i].softcap,
                             .sinks = cases[i].sinks ? sinks : NULL};
            void *scratch = mem_alloc(
                tensor_attend_scratch_bytes(cases[i].group, PAGE_LEN, cases[i].dim_k, cases[i].dim_v));
            tensor_attend(k, &a, q, cases[i].group, out, scratch);
            mem_free(scratch);
            for (size_t h = 0; h < cases[i].group; h++) {
                attend_plainly(&a, c, q + h * a.head_dim_k, h, expected);
                for (size_t d = 0; d < a.head_dim_v; d++)
                    near("attention", (double)out[h * a.head_dim_v + d], expected[d], 1e-5, 3e-6);
            }
        }
    }
    mem_free(c);
}

static void attention_to_nothing_is_zero(void **state)
{
    (void)state;
    for (size_t s = 0; s < COUNT(sets); s++) {
        const struct kernels *k = kernels_select(sets[s]);
        if (!k)
            continue;
        float q[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8] = {9, 9, 9, 9, 9, 9, 9, 9};
        struct attn a = {.type = TENSOR_F32, .page_len = 16, .head_dim_k = 8, .head_dim_v = 8, .scale = 1};
        void *scratch = mem_alloc(tensor_attend_scratch_bytes(1, 16, 8, 8));
        tensor_attend(k, &a, q, 1, out, scratch);
        mem_free(scratch);
        for (size_t i = 0; i < 8; i++)
            assert_true(out[i] == 0.0f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_are_precise),
        cmocka_unit_test(exponentials_are_precise_and_saturate),
        cmocka_unit_test(sums_and_norms_take_any_length),
        cmocka_unit_test(rotation_keeps_both_orders),
        cmocka_unit_test(attention_matches_the_definition),
        cmocka_unit_test(attention_to_nothing_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
