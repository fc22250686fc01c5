/* Prefill of BF16 weights with VDPBF16PS, which adds the products of two pairs in each lane: twice the rate
 * of F32. And the table of CPUs that have it: other formats are those of AVX-512. */
#include "tensor/kernels_avx512_int.h"

#define PANEL_ROWS ((size_t)32)
#define STRIDE (TILE_STRETCH * 2 + 64) /* bytes; rows then do not meet in the same sets of a cache */
#define ROWS 8                         /* weight rows whose sums are kept in registers at a time */
#define GROUPS 2                       /* groups of input rows likewise */

/* ROWS weight rows against n groups. */
INLINE void multiply_rows(const uint8_t *panel, const uint8_t *const *inputs, float *const *sums, int n,
                          size_t len)
{
    __m512 s[ROWS][GROUPS];
    for (int r = 0; r < ROWS; r++)
        for (int g = 0; g < n; g++)
            s[r][g] = _mm512_loadu_ps(sums[g] + r * TILE_ROWS);
    for (size_t pair = 0; pair < (len + 1) / 2; pair++) {
        __m512bh x[GROUPS];
        for (int g = 0; g < n; g++)
            x[g] = (__m512bh)_mm512_loadu_si512(inputs[g] + pair * TILE_ROWS * 4);
        for (int r = 0; r < ROWS; r++) {
            __m512bh w = (__m512bh)_mm512_set1_epi32((int)load_u32(panel + (size_t)r * STRIDE + pair * 4));
            for (int g = 0; g < n; g++)
                s[r][g] = _mm512_dpbf16_ps(s[r][g], w, x[g]);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int g = 0; g < n; g++)
            _mm512_storeu_ps(sums[g] + r * TILE_ROWS, s[r][g]);
}

static void multiply(const struct gemm_part *p)
{
    for (size_t group = 0; group < p->groups; group += GROUPS) {
        size_t left = p->groups - group, n = left < GROUPS ? left : GROUPS;
        for (size_t i = 0; i < n; i++)
            gemm_look_ahead(p->ahead);
        for (size_t row = 0; row < PANEL_ROWS; row += ROWS) {
            const uint8_t *inputs[GROUPS];
            float *sums[GROUPS];
            for (size_t g = 0; g < n; g++) {
                inputs[g] = p->inputs.data + (group + g) * p->inputs.stride;
                sums[g] = p->sums + ((group + g) * PANEL_ROWS + row) * TILE_ROWS;
            }
            if (n == GROUPS)
                multiply_rows(p->panel + row * STRIDE, inputs, sums, GROUPS, p->len);
            else
                multiply_rows(p->panel + row * STRIDE, inputs, sums, 1, p->len);
        }
    }
}

static const struct gemm gemm_bf16 = {FORM_BF16P, PANEL_ROWS,        STRIDE, PANEL_ROWS *STRIDE,
                                      multiply,   gemm_write_avx512, NULL,   NULL};

const struct kernels kernels_avx512bf16 = {.name = "avx512bf16",
                                           .vector = &vector_avx512,
                                           .peak = &peak_avx512bf16,
                                           .product = {&product_avx512, &product_avx512bf16},
                                           .decode = DECODE_AVX512,
                                           .prefill = {
                                               PREFILL_AVX512,
                                               [TENSOR_F16] = PREFILL_AVX512_F16,
                                               [TENSOR_BF16] = PANELS(FORM_BF16P, gemm_bf16, unpack_bf16),
                                           }};
