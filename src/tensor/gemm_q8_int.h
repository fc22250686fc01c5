/* Prefill in int8: what a panel of quantised weights is, for the sets that multiply codes with codes. */
#ifndef PHAROS_TENSOR_GEMM_Q8_INT_H
#define PHAROS_TENSOR_GEMM_Q8_INT_H

#include "tensor/kernels_int.h"

#define Q8_PANEL_ROWS 32
#define Q8_CODE_STRIDE (TILE_STRETCH + 64) /* so that rows do not meet in the same sets of a cache */

/* w = scale * (code - zero) + offset. Scales and offsets: one for each block of 32 in the formats with such
 * blocks, one for each sixteen codes in those with blocks of 256. Offsets count only where a format has
 * minima. */
struct q8_panel {
    uint8_t codes[Q8_PANEL_ROWS][Q8_CODE_STRIDE];
    float scales[Q8_PANEL_ROWS][TILE_STRETCH / 16];
    float offsets[Q8_PANEL_ROWS][TILE_STRETCH / 16];
    int32_t zero;
};

/* What a product must know of a format at compile time. */
struct q8_shape {
    size_t group;    /* codes that share a scale: 16 or 32 */
    size_t block;    /* codes that share a scale of the inputs: 32 (FORM_Q8T) or 256 (FORM_Q8KT) */
    bool has_offset; /* the format has minima */
    bool wide;       /* codes of 8 bits, signed: not every set can take them unsigned */
};

/* Codes from one scale of a panel to the next. */
#define Q8_UNIT(shape) ((shape).block == 32 ? (size_t)32 : (size_t)16)

#define PLANE_STRIDE (TILE_ROWS * 4) /* bytes from quad to quad, and from one scale or sum to the next */

/* What the sums of inputs add: beginnings of integer sums, and factors of the weights' offsets. */
struct q8_surplus {
    _Alignas(64) int32_t begin[TILE_STRETCH / 16][TILE_ROWS];
    _Alignas(64) float factor[TILE_STRETCH / 16][TILE_ROWS];
};

_Static_assert(offsetof(struct q8_tile, scales) == offsetof(struct q8k_tile, scales), "one place for scales");

INLINE void q8_surplus_32(const struct q8_tile *tile, int32_t zero, size_t len, struct q8_surplus *out)
{
    for (size_t b = 0; b < len / 32; b++) {
        for (size_t i = 0; i < TILE_ROWS; i++) {
            out->begin[b][i] = -zero * tile->sums[b][i];
            out->factor[b][i] = tile->scaled_sums[b][i];
        }
    }
}

INLINE void q8_surplus_256(const struct q8k_tile *tile, size_t group, int32_t zero, size_t len,
                           struct q8_surplus *out)
{
    for (size_t k = 0; k < len; k += group) {
        size_t unit = k / 16;
        for (size_t i = 0; i < TILE_ROWS; i++) {
            int32_t sum = tile->sums[unit][i] + (group == 32 ? tile->sums[unit + 1][i] : 0);
            out->begin[unit][i] = -zero * sum;
            out->factor[unit][i] = tile->scales[k / 256][i] * (float)sum;
        }
    }
}

/* For one group of input rows. */
INLINE void q8_surplus(const struct q8_shape shape, const uint8_t *inputs, int32_t zero, size_t len,
                       struct q8_surplus *out)
{
    if (shape.block == 32)
        q8_surplus_32((const struct q8_tile *)(const void *)inputs, zero, len, out);
    else
        q8_surplus_256((const struct q8k_tile *)(const void *)inputs, shape.group, zero, len, out);
}

#endif
