/* Packing of floats for products, after product_body.h, which says for which sizes. The set defines before:
 *
 *   PRODUCT_VECTOR   the set's table of vector operations
 */
/* Rows of a micro-panel from [depth][rows]. */
INLINE void product_pack_across(const float *from, size_t stride, size_t rows, size_t depth, size_t width,
                                float *to)
{
    for (size_t k = 0; k < depth; k++, from += stride, to += width) {
        if (rows == width) {
            memcpy(to, from, width * sizeof *to);
        } else {
            memcpy(to, from, rows * sizeof *to);
            memset(to + rows, 0, (width - rows) * sizeof *to);
        }
    }
}

static inline product_quad product_quad_at(const float *p)
{
    return *(const product_quad_any *)(const void *)p;
}

/* Four depths of four rows, transposed. */
INLINE void product_pack_quad(const float *from, size_t stride, size_t width, float *to)
{
    product_quad r0 = product_quad_at(from), r1 = product_quad_at(from + stride);
    product_quad r2 = product_quad_at(from + 2 * stride), r3 = product_quad_at(from + 3 * stride);
    product_quad low01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
    product_quad high01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
    product_quad low23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
    product_quad high23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
    *(product_quad_any *)(void *)to = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
    *(product_quad_any *)(void *)(to + width) = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
    *(product_quad_any *)(void *)(to + 2 * width) = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
    *(product_quad_any *)(void *)(to + 3 * width) = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

/* Rows of a micro-panel from [rows][depth], four by four. */
INLINE void product_pack_along(const float *from, size_t stride, size_t rows, size_t depth, size_t width,
                               float *to)
{
    size_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *quad = from + r * stride;
        size_t k = 0;
        for (; k + 4 <= depth; k += 4)
            product_pack_quad(quad + k, stride, width, to + k * width + r);
        for (; k < depth; k++)
            for (size_t i = 0; i < 4; i++)
                to[k * width + r + i] = quad[i * stride + k];
    }
    for (; r < width; r++)
        for (size_t k = 0; k < depth; k++)
            to[k * width + r] = r < rows ? from[r * stride + k] : 0.0f;
}

INLINE void product_pack(const struct product_strip *s, size_t width, float *to)
{
    for (size_t r = 0; r < s->rows; r += width, to += width * s->depth) {
        size_t rows = s->rows - r < width ? s->rows - r : width;
        if (s->across)
            product_pack_across(s->data + r, s->stride, rows, s->depth, width, to);
        else
            product_pack_along(s->data + r * s->stride, s->stride, rows, s->depth, width, to);
        if (s->bf16)
            PRODUCT_VECTOR.round_bf16(to, to, width * s->depth);
    }
}

static void product_pack_a(const struct product_strip *strip, void *panels)
{
    product_pack(strip, PRODUCT_ROWS, panels);
}

static void product_pack_b(const struct product_strip *strip, void *panels)
{
    product_pack(strip, PRODUCT_COLUMNS, panels);
}
