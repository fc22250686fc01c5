/* Prefill on AMX tiles (Intel Sapphire Rapids and later): every format is unpacked to BF16 and
 * multiplied by TDPBF16PS, which adds 16 x 16 x 32 products into F32 sums in 16 cycles.
 *
 * BF16 instead of INT8: with a scale for every 32 inputs, integer tiles would have to be read back,
 * scaled and added outside the tile unit after every half-filled instruction, which costs more than
 * twice the arithmetic saved. BF16 inputs are also closer to the exact product than inputs rounded to
 * 8 bits of a block's greatest element.
 *
 * Tiles: 0..3 sums (two panels of 16 weight rows x two groups of 16 inputs), 4..5 weights, 6..7
 * inputs. F16 weights are the exact sum of two BF16 numbers, and inputs are so to 16 bits: three
 * products make one. */
#include "tensor/unpack_avx512_int.h"

#define PANEL_ROWS 32
#define HALF_STRETCH ((size_t)TILE_STRETCH / 2)

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void tiles_begin(void)
{
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
}

static void tiles_finish(void)
{
    _tile_release();
}

/* ---- Multiply ---- */

#define PANEL_STRIDE (TILE_STRETCH * 2)                 /* bytes from weight row to weight row */
#define PANEL_HALF ((size_t)16 * PANEL_STRIDE)          /* the second sixteen rows */
#define PANEL_PLANE ((size_t)PANEL_ROWS * PANEL_STRIDE) /* the low parts of F16 weights */

#define HALF_SUMS (16 * TILE_ROWS)
#define GROUP_SUMS (PANEL_ROWS * TILE_ROWS)

/* One pass over a stretch: sums in tiles 0..3 += weights at a * inputs at b0, b1 */
static inline void pass_2x2(const uint8_t *a, const uint8_t *b0, const uint8_t *b1, size_t len)
{
    for (size_t k = 0; k < len; k += 32, a += 64, b0 += 1024, b1 += 1024) {
        _tile_loadd(4, a, PANEL_STRIDE);
        _tile_loadd(6, b0, 64);
        _tile_loadd(7, b1, 64);
        _tile_loadd(5, a + PANEL_HALF, PANEL_STRIDE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

static inline void pass_2x1(const uint8_t *a, const uint8_t *b, size_t len)
{
    for (size_t k = 0; k < len; k += 32, a += 64, b += 1024) {
        _tile_loadd(4, a, PANEL_STRIDE);
        _tile_loadd(6, b, 64);
        _tile_loadd(5, a + PANEL_HALF, PANEL_STRIDE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
    }
}

/* Two groups of inputs at `b` and a stride further, or one; `low`: their low parts, or NULL. */
static inline void multiply_pair(const uint8_t *a, const uint8_t *b, const uint8_t *low, size_t stride,
                                 size_t len, float *sums)
{
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + GROUP_SUMS, 64);
    _tile_loadd(2, sums + HALF_SUMS, 64);
    _tile_loadd(3, sums + GROUP_SUMS + HALF_SUMS, 64);
    pass_2x2(a, b, b + stride, len);
    if (low) {
        pass_2x2(a + PANEL_PLANE, b, b + stride, len);
        pass_2x2(a, low, low + stride, len);
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + GROUP_SUMS, 64);
    _tile_stored(2, sums + HALF_SUMS, 64);
    _tile_stored(3, sums + GROUP_SUMS + HALF_SUMS, 64);
}

static inline void multiply_one(const uint8_t *a, const uint8_t *b, const uint8_t *low, size_t len,
                                float *sums)
{
    _tile_loadd(0, sums, 64);
    _tile_loadd(2, sums + HALF_SUMS, 64);
    pass_2x1(a, b, len);
    if (low) {
        pass_2x1(a + PANEL_PLANE, b, len);
        pass_2x1(a, low, len);
    }
    _tile_stored(0, sums, 64);
    _tile_stored(2, sums + HALF_SUMS, 64);
}

/* `split`: weights and inputs have low parts. Half the stretch at a time, which the nearest cache
 * holds beside the inputs that stream past it. */
static inline void multiply(const struct gemm_part *p, bool split)
{
    size_t stride = p->inputs[0].stride;
    for (size_t k = 0; k < p->len; k += HALF_STRETCH) {
        size_t len = p->len - k < HALF_STRETCH ? p->len - k : HALF_STRETCH, at = k * TILE_ROWS * 2;
        const uint8_t *a = p->panel + k * 2;
        for (size_t g = 0; g < p->groups; g += 2) {
            const uint8_t *b = p->inputs[0].data + g * stride + at;
            const uint8_t *low = split ? p->inputs[1].data + g * stride + at : NULL;
            gemm_look_ahead(p->ahead);
            if (g + 2 <= p->groups)
                multiply_pair(a, b, low, stride, len, p->sums + g * GROUP_SUMS);
            else
                multiply_one(a, b, low, len, p->sums + g * GROUP_SUMS);
        }
    }
}

static void multiply_bf16(const struct gemm_part *p)
{
    multiply(p, false);
}

static void multiply_split(const struct gemm_part *p)
{
    multiply(p, true);
}

/* ---- Unpack (quantised formats: unpack_avx512.c) ---- */

static const uint8_t *row_at(const struct matrix *w, size_t row, size_t from)
{
    return (const uint8_t *)w->data + (row * w->cols + from) * 2;
}

static void unpack_bf16(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, uint8_t *to,
                        size_t stride)
{
    for (size_t r = 0; r < rows; r++, to += stride) {
        memcpy(to, row_at(w, row + r, from), len * 2);
        memset(to + len * 2, 0, -len % 32 * 2);
    }
}

/* The high parts, and a plane further on the low parts. */
static void unpack_f16(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, uint8_t *to,
                       size_t stride)
{
    for (size_t r = 0; r < rows; r++, to += stride) {
        const uint8_t *halves = row_at(w, row + r, from);
        for (size_t i = 0; i < (len + 31) / 32 * 32; i += 16) {
            __mmask16 mask = lanes_below(i, len);
            __m512 x = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves + i * 2));
            __m256bh high = _mm512_cvtneps_pbh(x);
            __m512i back = _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)high), 16);
            __m256bh low = _mm512_cvtneps_pbh(_mm512_sub_ps(x, (__m512)back));
            _mm256_storeu_si256((__m256i *)(void *)(to + i * 2), (__m256i)high);
            _mm256_storeu_si256((__m256i *)(void *)(to + PANEL_PLANE + i * 2), (__m256i)low);
        }
    }
}

static const struct gemm gemm_bf16 = {{FORM_BF16T, FORM_BF16T}, PANEL_ROWS,  PANEL_STRIDE, 1, multiply_bf16,
                                      gemm_write_avx512,        tiles_begin, tiles_finish};
static const struct gemm gemm_split = {{FORM_BF16T, FORM_BF16L}, PANEL_ROWS,  PANEL_STRIDE, 2, multiply_split,
                                       gemm_write_avx512,        tiles_begin, tiles_finish};

#define TILES(unpack)                                                  \
    {                                                                  \
        gemm_run, FORM_BIT(FORM_BF16T), PANEL_ROWS, &gemm_bf16, unpack \
    }
#define SPLIT_TILES(unpack)                                                                    \
    {                                                                                          \
        gemm_run, FORM_BIT(FORM_BF16T) | FORM_BIT(FORM_BF16L), PANEL_ROWS, &gemm_split, unpack \
    }

const struct kernels kernels_amx = {.name = "amx",
                                    .vector = &vector_avx512,
                                    .peak = &peak_amx,
                                    .decode = DECODE_AVX512,
                                    .prefill = {
                                        [TENSOR_F32] = PREFILL_AVX512_F32,
                                        [TENSOR_F16] = SPLIT_TILES(unpack_f16),
                                        [TENSOR_BF16] = TILES(unpack_bf16),
                                        [TENSOR_Q4_0] = TILES(unpack_bf16_q4_0),
                                        [TENSOR_Q4_1] = TILES(unpack_bf16_q4_1),
                                        [TENSOR_Q5_0] = TILES(unpack_bf16_q5_0),
                                        [TENSOR_Q5_1] = TILES(unpack_bf16_q5_1),
                                        [TENSOR_Q8_0] = TILES(unpack_bf16_q8_0),
                                        [TENSOR_Q2_K] = TILES(unpack_bf16_q2_k),
                                        [TENSOR_Q3_K] = TILES(unpack_bf16_q3_k),
                                        [TENSOR_Q4_K] = TILES(unpack_bf16_q4_k),
                                        [TENSOR_Q5_K] = TILES(unpack_bf16_q5_k),
                                        [TENSOR_Q6_K] = TILES(unpack_bf16_q6_k),
                                        [TENSOR_Q8_K] = TILES(unpack_bf16_q8_k),
                                        [TENSOR_IQ4_NL] = TILES(unpack_bf16_iq4_nl),
                                        [TENSOR_IQ4_XS] = TILES(unpack_bf16_iq4_xs),
                                        [TENSOR_MXFP4] = TILES(unpack_bf16_mxfp4),
                                    }};
