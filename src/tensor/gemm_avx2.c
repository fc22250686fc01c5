/* Prefill on AVX2: F32 FMA for floats, byte products for codes. Panels are unpacked through the plain
 * description of each format. */
#include <immintrin.h>

#define VECTOR_BYTES 32
#define GEMM_ROWS 4
#define Q8_ROWS 2
#define Q8_VECTORS 2
#include "tensor/gemm_body.h"
#include "tensor/gemm_q8_body.h"
#include "tensor/kernels_avx2_int.h"
#include "tensor/unpack_body.h"

/* ---- Floats ---- */

static inline gemm_vector gemm_fma(gemm_vector a, gemm_vector b, gemm_vector c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static const struct gemm gemm_f32 = GEMM_FLOATS(FORM_F32T, gemm_write);
static const struct gemm gemm_f16 = GEMM_FLOATS(FORM_F16T, gemm_write);
static const struct gemm gemm_bf16 = GEMM_FLOATS(FORM_BF16T, gemm_write);

static void unpack_row_floats(enum tensor_type type, const uint8_t *p, size_t len, float *to)
{
    if (type == TENSOR_F32)
        memcpy(to, p, len * 4);
    for (size_t i = 0; type == TENSOR_BF16 && i < len; i++)
        to[i] = float_of_bits((uint32_t)load_u16(p + 2 * i) << 16);
    for (size_t i = 0; type == TENSOR_F16 && i < len; i++)
        to[i] = _cvtsh_ss(load_u16(p + 2 * i));
    memset(to + len, 0, -len % 32 * 4);
}

static void unpack_floats(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len,
                          uint8_t *panel, size_t stride)
{
    size_t row_bytes = tensor_row_bytes(w->type, w->cols);
    const uint8_t *p = (const uint8_t *)w->data + row * row_bytes + tensor_row_bytes(w->type, from);
    for (size_t r = 0; r < rows; r++, p += row_bytes, panel += stride)
        unpack_row_floats(w->type, p, len, (float *)(void *)panel);
}

/* ---- Quantised weights ---- */

INLINE q8_floats q8_fma(q8_floats a, q8_floats b, q8_floats c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* VPMADDUBSW adds pairs in 16 bits: unsigned codes below 64 cannot overflow them, and signed ones give their
 * magnitude and lend their sign to the inputs. */
INLINE q8_ints q8_dot(q8_ints sums, q8_ints codes, q8_ints inputs, bool wide)
{
    __m256i c = (__m256i)codes, x = (__m256i)inputs;
    __m256i pairs =
        wide ? _mm256_maddubs_epi16(_mm256_abs_epi8(c), _mm256_sign_epi8(x, c)) : _mm256_maddubs_epi16(c, x);
    return (q8_ints)_mm256_add_epi32((__m256i)sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

Q8_MULTIPLY(multiply_32, .group = 32, .block = 32)
Q8_MULTIPLY(multiply_32_wide, .group = 32, .block = 32, .wide = true)
Q8_MULTIPLY(multiply_32_offset, .group = 32, .block = 32, .has_offset = true)
Q8_MULTIPLY(multiply_k32_wide, .group = 32, .block = 256, .wide = true)
Q8_MULTIPLY(multiply_k32_offset, .group = 32, .block = 256, .has_offset = true)
Q8_MULTIPLY(multiply_k16, .group = 16, .block = 256)
Q8_MULTIPLY(multiply_k16_offset, .group = 16, .block = 256, .has_offset = true)

static const struct gemm gemm_32 = Q8_GEMM(FORM_Q8T, multiply_32, gemm_write);
static const struct gemm gemm_32_wide = Q8_GEMM(FORM_Q8T, multiply_32_wide, gemm_write);
static const struct gemm gemm_32_offset = Q8_GEMM(FORM_Q8T, multiply_32_offset, gemm_write);
static const struct gemm gemm_k32_wide = Q8_GEMM(FORM_Q8KT, multiply_k32_wide, gemm_write);
static const struct gemm gemm_k32_offset = Q8_GEMM(FORM_Q8KT, multiply_k32_offset, gemm_write);
static const struct gemm gemm_k16 = Q8_GEMM(FORM_Q8KT, multiply_k16, gemm_write);
static const struct gemm gemm_k16_offset = Q8_GEMM(FORM_Q8KT, multiply_k16_offset, gemm_write);

static void unpack_q8(enum tensor_type type, int zero, const struct matrix *w, size_t row, size_t rows,
                      size_t from, size_t len, uint8_t *panel)
{
    const struct tensor_format *f = tensor_format((uint32_t)type);
    const struct format_ops *op = format_ops(type);
    size_t row_bytes = tensor_row_bytes(type, w->cols), unit = f->block_len == 32 ? 32 : 16;
    const uint8_t *p = (const uint8_t *)w->data + row * row_bytes + tensor_row_bytes(type, from);
    struct q8_panel *to = (struct q8_panel *)(void *)panel;
    struct unpacked u = {0};
    to->zero = zero;
    for (size_t r = 0; r < rows; r++, p += row_bytes) {
        const uint8_t *block = p;
        for (size_t i = 0; i < len; i += f->block_len, block += f->block_bytes) {
            unpack_block[type](block, &u);
            for (size_t j = 0; j < f->block_len; j++)
                to->codes[r][i + j] = (uint8_t)(u.q[j] + zero);
            for (size_t j = 0; j < f->block_len; j += unit) {
                to->scales[r][(i + j) / unit] = u.scale[j / op->group];
                if (op->has_min)
                    to->offsets[r][(i + j) / unit] = -u.min[j / op->group];
            }
        }
    }
}

#define UNPACKER(name, type, zero)                                                                  \
    static void unpack_##name##_panel(const struct matrix *w, size_t row, size_t rows, size_t from, \
                                      size_t len, uint8_t *panel, size_t stride)                    \
    {                                                                                               \
        (void)stride;                                                                               \
        unpack_q8(type, zero, w, row, rows, from, len, panel);                                      \
    }

UNPACKER(q4_0, TENSOR_Q4_0, 8)
UNPACKER(q4_1, TENSOR_Q4_1, 0)
UNPACKER(q5_0, TENSOR_Q5_0, 16)
UNPACKER(q5_1, TENSOR_Q5_1, 0)
UNPACKER(q8_0, TENSOR_Q8_0, 0)
UNPACKER(iq4_nl, TENSOR_IQ4_NL, 0)
UNPACKER(mxfp4, TENSOR_MXFP4, 12)
UNPACKER(q2_k, TENSOR_Q2_K, 0)
UNPACKER(q3_k, TENSOR_Q3_K, 4)
UNPACKER(q4_k, TENSOR_Q4_K, 0)
UNPACKER(q5_k, TENSOR_Q5_K, 0)
UNPACKER(q6_k, TENSOR_Q6_K, 32)
UNPACKER(iq4_xs, TENSOR_IQ4_XS, 0)

#define PANELS(form, gemm, unpack)                               \
    {                                                            \
        gemm_run, FORM_BIT(form), Q8_PANEL_ROWS, &(gemm), unpack \
    }

const struct kernels kernels_avx2 = {
    .name = "avx2",
    .vector = &vector_avx2,
    .peak = &peak_avx2,
    .product = {&product_avx2, &product_avx2},
    .decode =
        {
            [TENSOR_F32] = DOT(dot_avx2_f32),
            [TENSOR_F16] = DOT_OF(FORM_F16, dot_avx2_f16),
            [TENSOR_BF16] = DOT_OF(FORM_BF16, dot_avx2_bf16),
            [TENSOR_Q4_0] = DOT_Q8(dot_avx2_q4_0),
            [TENSOR_Q4_1] = DOT_Q8(dot_avx2_q4_1),
            [TENSOR_Q5_0] = DOT_Q8(dot_avx2_q5_0),
            [TENSOR_Q5_1] = DOT_Q8(dot_avx2_q5_1),
            [TENSOR_Q8_0] = DOT_Q8(dot_avx2_q8_0),
            [TENSOR_IQ4_NL] = DOT_Q8(dot_avx2_iq4_nl),
            [TENSOR_MXFP4] = DOT_Q8(dot_avx2_mxfp4),
            [TENSOR_Q2_K] = DOT_Q8K(dot_avx2_q2_k),
            [TENSOR_Q3_K] = DOT_Q8K(dot_avx2_q3_k),
            [TENSOR_Q4_K] = DOT_Q8K(dot_avx2_q4_k),
            [TENSOR_Q5_K] = DOT_Q8K(dot_avx2_q5_k),
            [TENSOR_Q6_K] = DOT_Q8K(dot_avx2_q6_k),
            [TENSOR_IQ4_XS] = DOT_Q8K(dot_avx2_iq4_xs),
            [TENSOR_Q8_K] = DOT_Q8K(mm_ref_q8k),
        },
    .prefill = {
        [TENSOR_F32] = PANELS(FORM_F32T, gemm_f32, unpack_floats),
        [TENSOR_F16] = PANELS(FORM_F16T, gemm_f16, unpack_floats),
        [TENSOR_BF16] = PANELS(FORM_BF16T, gemm_bf16, unpack_floats),
        [TENSOR_Q4_0] = PANELS(FORM_Q8T, gemm_32, unpack_q4_0_panel),
        [TENSOR_Q4_1] = PANELS(FORM_Q8T, gemm_32_offset, unpack_q4_1_panel),
        [TENSOR_Q5_0] = PANELS(FORM_Q8T, gemm_32, unpack_q5_0_panel),
        [TENSOR_Q5_1] = PANELS(FORM_Q8T, gemm_32_offset, unpack_q5_1_panel),
        [TENSOR_Q8_0] = PANELS(FORM_Q8T, gemm_32_wide, unpack_q8_0_panel),
        [TENSOR_IQ4_NL] = PANELS(FORM_Q8T, gemm_32_wide, unpack_iq4_nl_panel),
        [TENSOR_MXFP4] = PANELS(FORM_Q8T, gemm_32, unpack_mxfp4_panel),
        [TENSOR_Q2_K] = PANELS(FORM_Q8KT, gemm_k16_offset, unpack_q2_k_panel),
        [TENSOR_Q3_K] = PANELS(FORM_Q8KT, gemm_k16, unpack_q3_k_panel),
        [TENSOR_Q4_K] = PANELS(FORM_Q8KT, gemm_k32_offset, unpack_q4_k_panel),
        [TENSOR_Q5_K] = PANELS(FORM_Q8KT, gemm_k32_offset, unpack_q5_k_panel),
        [TENSOR_Q6_K] = PANELS(FORM_Q8KT, gemm_k16, unpack_q6_k_panel),
        [TENSOR_IQ4_XS] = PANELS(FORM_Q8KT, gemm_k32_wide, unpack_iq4_xs_panel),
        [TENSOR_Q8_K] = DOT_Q8K(mm_ref_q8k),
    }};
