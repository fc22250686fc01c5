/* What an instruction set provides for products of floats (product.c). */
#ifndef PHAROS_TENSOR_PRODUCT_INT_H
#define PHAROS_TENSOR_PRODUCT_INT_H

#include "tensor/tensor.h"

/* Before a short loop whose variables are to stay in registers. */
#define UNROLLED _Pragma("GCC unroll 16")

/* Rows of an operand over a stretch of depth, as they lie in the caller's memory. */
struct product_strip {
    const float *data; /* the first row at the first depth */
    size_t stride;
    bool across; /* stored [depth][rows], else [rows][depth] */
    bool bf16;   /* round while packing */
    size_t rows, depth;
};

/* c [rows][columns] = (+= with `add`) a [rows][depth] times packed b [depth][columns], where b was packed to
 * the depth of b_depth >= depth. a is packed; or, where the kernel reads floats in place, its whole
 * micro-tiles begin at `place`, steps of floats apart, and `a` has the rest of the rows, packed. */
struct product_block {
    const void *a, *b;
    const float *place; /* NULL: all of a is packed */
    size_t row_step, depth_step;
    size_t rows, columns, depth, b_depth;
    float *c;
    size_t c_stride;
    bool add;
};

/* `depth`: how much of it is packed and multiplied at a time, a multiple of 32 and at most PRODUCT_DEPTH_MAX.
 * A packed operand is a sequence of micro-panels, each `tile_rows` rows of a or `tile_columns` columns of b,
 * in the order in which the micro-kernel reads them. Missing rows, columns and depth are zero. A micro-panel
 * has tile_rows (tile_columns) * depth rounded up to `depth_step` elements of `element_bytes`. */
#define PRODUCT_DEPTH_MAX 512
struct product_kernel {
    uint32_t tile_rows, tile_columns, depth_step, depth, element_bytes;
    uint32_t block_rows; /* that make reading packed b from the last-level cache cheap enough */
    bool in_place;       /* reads floats of a where they are */
    void (*pack_a)(const struct product_strip *strip, void *panels);
    void (*pack_b)(const struct product_strip *strip, void *panels);
    void (*multiply)(const struct product_block *block);
};

extern const struct product_kernel product_ref, product_avx2, product_avx512, product_avx512bf16, product_amx;

#endif
