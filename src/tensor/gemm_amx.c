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
#include <immintrin.h>

#include "tensor/kernels_avx512_int.h"
#include "tensor/unpack_body.h"

#define PANEL_ROWS 32
#define DEPTH 512

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

#define PANEL_STRIDE (DEPTH * 2)                        /* bytes from weight row to weight row */
#define PANEL_HALF ((size_t)16 * PANEL_STRIDE)          /* the second sixteen rows */
#define PANEL_PLANE ((size_t)PANEL_ROWS * PANEL_STRIDE) /* the low parts of F16 weights */

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

/* `split`: weights and inputs have low parts. */
static inline void multiply(const struct gemm_part *p, bool split)
{
    const uint8_t *a = p->panel;
    size_t at = p->from * TILE_ROWS * 2, stride = p->inputs[0].stride;
    size_t half = 16 * TILE_ROWS, whole = PANEL_ROWS * TILE_ROWS;
    size_t g = 0;
    for (; g + 2 <= p->groups; g += 2) {
        const uint8_t *b = p->inputs[0].data + g * stride + at, *low = p->inputs[1].data + g * stride + at;
        float *sums = p->sums + g * whole;
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + whole, 64);
        _tile_loadd(2, sums + half, 64);
        _tile_loadd(3, sums + whole + half, 64);
        pass_2x2(a, b, b + stride, p->len);
        if (split) {
            pass_2x2(a + PANEL_PLANE, b, b + stride, p->len);
            pass_2x2(a, low, low + stride, p->len);
        }
        _tile_stored(0, sums, 64);
        _tile_stored(1, sums + whole, 64);
        _tile_stored(2, sums + half, 64);
        _tile_stored(3, sums + whole + half, 64);
    }
    if (g < p->groups) {
        const uint8_t *b = p->inputs[0].data + g * stride + at, *low = p->inputs[1].data + g * stride + at;
        float *sums = p->sums + g * whole;
        _tile_loadd(0, sums, 64);
        _tile_loadd(2, sums + half, 64);
        pass_2x1(a, b, p->len);
        if (split) {
            pass_2x1(a + PANEL_PLANE, b, p->len);
            pass_2x1(a, low, p->len);
        }
        _tile_stored(0, sums, 64);
        _tile_stored(2, sums + half, 64);
    }
}

static void multiply_bf16(const struct gemm_part *p)
{
    multiply(p, false);
}

static void multiply_f16(const struct gemm_part *p)
{
    multiply(p, true);
}

/* ---- Unpack ---- */

static inline __m512i to_bf16(__m512 first, __m512 second)
{
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

static inline __m512 floats_of(const int8_t *q)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)q)));
}

/* One row's stretch of a quantised format; `len` a multiple of the block. */
static void unpack_row(enum tensor_type type, const uint8_t *block, size_t len, uint8_t *to)
{
    const struct tensor_format *f = tensor_format((uint32_t)type);
    const struct format_ops *op = format_ops(type);
    struct unpacked u;
    for (size_t i = 0; i < len; i += f->block_len, block += f->block_bytes) {
        unpack_block[type](block, &u);
        for (size_t j = 0; j < f->block_len; j += 32, to += 64) {
            size_t g0 = j / op->group, g1 = (j + 16) / op->group;
            __m512 first = _mm512_mul_ps(floats_of(u.q + j), _mm512_set1_ps(u.scale[g0]));
            __m512 second = _mm512_mul_ps(floats_of(u.q + j + 16), _mm512_set1_ps(u.scale[g1]));
            if (op->has_min) {
                first = _mm512_sub_ps(first, _mm512_set1_ps(u.min[g0]));
                second = _mm512_sub_ps(second, _mm512_set1_ps(u.min[g1]));
            }
            _mm512_storeu_si512(to, to_bf16(first, second));
        }
    }
}

static const uint8_t *row_at(const struct matrix *w, size_t row, size_t from)
{
    return (const uint8_t *)w->data + row * tensor_row_bytes(w->type, w->cols) +
           tensor_row_bytes(w->type, from);
}

static void clear_rows(uint8_t *panel, size_t rows)
{
    memset(panel + rows * PANEL_STRIDE, 0, (PANEL_ROWS - rows) * PANEL_STRIDE);
}

static void unpack_blocks(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len,
                          void *panel)
{
    for (size_t r = 0; r < rows; r++)
        unpack_row(w->type, row_at(w, row + r, from), len, (uint8_t *)panel + r * PANEL_STRIDE);
    clear_rows(panel, rows);
}

static void unpack_bf16(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, void *panel)
{
    uint8_t *to = panel;
    for (size_t r = 0; r < rows; r++, to += PANEL_STRIDE) {
        memcpy(to, row_at(w, row + r, from), len * 2);
        memset(to + len * 2, 0, -len % 32 * 2);
    }
    clear_rows(panel, rows);
}

static void unpack_f16(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, void *panel)
{
    uint8_t *to = panel;
    for (size_t r = 0; r < rows; r++, to += PANEL_STRIDE) {
        const uint8_t *halves = row_at(w, row + r, from);
        for (size_t i = 0; i < len; i += 16) {
            __mmask16 mask = len - i >= 16 ? 0xffff : (__mmask16)((1u << (len - i)) - 1);
            __m512 x = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves + i * 2));
            __m256bh high = _mm512_cvtneps_pbh(x);
            __m512 rest =
                _mm512_sub_ps(x, (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)high), 16));
            _mm256_storeu_si256((__m256i *)(void *)(to + i * 2), (__m256i)high);
            _mm256_storeu_si256((__m256i *)(void *)(to + PANEL_PLANE + i * 2),
                                (__m256i)_mm512_cvtneps_pbh(rest));
        }
        size_t done = (len + 15) / 16 * 16;
        memset(to + done * 2, 0, -done % 32 * 2);
        memset(to + PANEL_PLANE + done * 2, 0, -done % 32 * 2);
    }
    clear_rows(panel, rows);
    clear_rows((uint8_t *)panel + PANEL_PLANE, rows);
}

#define ONE_FORM               \
    {                          \
        FORM_BF16T, FORM_BF16T \
    }
#define TWO_FORMS              \
    {                          \
        FORM_BF16T, FORM_BF16L \
    }

const struct gemm gemm_amx_blocks = {ONE_FORM,      PANEL_ROWS,    DEPTH,       2,
                                     unpack_blocks, multiply_bf16, tiles_begin, tiles_finish};
const struct gemm gemm_amx_bf16 = {ONE_FORM,    PANEL_ROWS,    DEPTH,       2,
                                   unpack_bf16, multiply_bf16, tiles_begin, tiles_finish};
const struct gemm gemm_amx_f16 = {TWO_FORMS,  PANEL_ROWS,   DEPTH,       4,
                                  unpack_f16, multiply_f16, tiles_begin, tiles_finish};
