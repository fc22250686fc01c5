/* Prefill of BF16 weights on AMX tiles (Intel Sapphire Rapids and later): TDPBF16PS adds 16 x 16 x 32
 * products into F32 sums in 16 cycles. And the AMX table: other formats are those of AVX-512.
 *
 * Quantised weights stay with VNNI: a scale for every 32 codes means that a half-filled TDPBSSD is stored,
 * read back and scaled in vectors each time, which measured no more than 10 % above VNNI.
 *
 * Tiles: 0..3 sums (two panels of 16 weight rows x two groups of 16 inputs), 4..5 weights, 6..7 inputs. */
#include "tensor/kernels_avx512_int.h"
#include "tensor/tiles_amx_int.h"

#define PANEL_ROWS 32
#define HALF_STRETCH ((size_t)TILE_STRETCH / 2)

static void tiles_begin(void)
{
    tiles_configure();
}

static void tiles_finish(void)
{
    _tile_release();
}

/* ---- Multiply ---- */

#define PANEL_STRIDE (TILE_STRETCH * 2)        /* bytes from weight row to weight row */
#define PANEL_HALF ((size_t)16 * PANEL_STRIDE) /* the second sixteen rows */

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

/* Two groups of inputs at `b` and a stride further, or one. */
static inline void multiply_pair(const uint8_t *a, const uint8_t *b, size_t stride, size_t len, float *sums)
{
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + GROUP_SUMS, 64);
    _tile_loadd(2, sums + HALF_SUMS, 64);
    _tile_loadd(3, sums + GROUP_SUMS + HALF_SUMS, 64);
    pass_2x2(a, b, b + stride, len);
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + GROUP_SUMS, 64);
    _tile_stored(2, sums + HALF_SUMS, 64);
    _tile_stored(3, sums + GROUP_SUMS + HALF_SUMS, 64);
}

static inline void multiply_one(const uint8_t *a, const uint8_t *b, size_t len, float *sums)
{
    _tile_loadd(0, sums, 64);
    _tile_loadd(2, sums + HALF_SUMS, 64);
    pass_2x1(a, b, len);
    _tile_stored(0, sums, 64);
    _tile_stored(2, sums + HALF_SUMS, 64);
}

/* Half the stretch at a time, which the nearest cache holds beside the inputs that stream past it. */
static void multiply(const struct gemm_part *p)
{
    size_t stride = p->inputs.stride;
    for (size_t k = 0; k < p->len; k += HALF_STRETCH) {
        size_t len = p->len - k < HALF_STRETCH ? p->len - k : HALF_STRETCH, at = k * TILE_ROWS * 2;
        const uint8_t *a = p->panel + k * 2;
        for (size_t g = 0; g < p->groups; g += 2) {
            const uint8_t *b = p->inputs.data + g * stride + at;
            gemm_look_ahead(p->ahead);
            if (g + 2 <= p->groups)
                multiply_pair(a, b, stride, len, p->sums + g * GROUP_SUMS);
            else
                multiply_one(a, b, len, p->sums + g * GROUP_SUMS);
        }
    }
}

static const struct gemm gemm_bf16 = {FORM_BF16P, PANEL_ROWS,        PANEL_STRIDE, PANEL_ROWS *PANEL_STRIDE,
                                      multiply,   gemm_write_avx512, tiles_begin,  tiles_finish};

const struct kernels kernels_amx = {.name = "amx",
                                    .vector = &vector_avx512,
                                    .peak = &peak_amx,
                                    .product = {&product_avx512, &product_amx},
                                    .decode = DECODE_AVX512,
                                    .prefill = {
                                        PREFILL_AVX512,
                                        [TENSOR_F16] = PREFILL_AVX512_F16,
                                        [TENSOR_BF16] = PANELS(FORM_BF16P, gemm_bf16, unpack_bf16),
                                    }};
