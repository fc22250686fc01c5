/* Prefill in int8, written once with the compiler's vector types for the sets that include it, which
 * define before:
 *
 *   VECTOR_BYTES   width of a vector: one lane for each input row
 *   Q8_ROWS        weight rows whose sums are kept in registers at a time
 *   Q8_VECTORS     vectors of input rows likewise
 *   q8_fma(a, b, c)
 *   q8_dot(sums, codes, inputs, wide)   sums += products of four codes with four inputs in each lane
 *
 * The arithmetic is ggml's: integer sums of a group are exact, then come the weight group's scale and the
 * input block's scale. Four codes of a weight row are broadcast and multiplied with four inputs of many rows.
 * Codes are unsigned; the surplus `zero * sum of inputs` is where the integer sums begin. */
#include "tensor/gemm_q8_int.h"

typedef float q8_floats __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t q8_ints __attribute__((vector_size(VECTOR_BYTES)));

INLINE q8_floats q8_fma(q8_floats a, q8_floats b, q8_floats c);
INLINE q8_ints q8_dot(q8_ints sums, q8_ints codes, q8_ints inputs, bool wide);

/* One vector of input rows: planes PLANE_STRIDE apart, and its sums [Q8_PANEL_ROWS][TILE_ROWS]. */
struct q8_vector {
    const uint8_t *codes, *scales, *begin, *factor;
    float *sums;
};

INLINE q8_floats q8_floats_at(const uint8_t *plane, size_t index)
{
    return *(const q8_floats *)(const void *)(plane + index * PLANE_STRIDE);
}

INLINE q8_ints q8_ints_at(const uint8_t *plane, size_t index)
{
    return *(const q8_ints *)(const void *)(plane + index * PLANE_STRIDE);
}

INLINE q8_floats q8_splat(float x)
{
    return x - (q8_floats){0};
}

INLINE q8_ints q8_four_codes(const uint8_t *codes)
{
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return four - (q8_ints){0};
}

/* A group's products, scaled: integer sums of codes [k, k + group). */
INLINE void q8_group(const struct q8_shape shape, const struct q8_panel *panel, size_t row,
                     const struct q8_vector *x, int n, size_t k, q8_floats part[Q8_ROWS][Q8_VECTORS])
{
    q8_ints sums[Q8_ROWS][Q8_VECTORS];
    size_t unit = k / Q8_UNIT(shape);
    for (int r = 0; r < Q8_ROWS; r++)
        for (int v = 0; v < n; v++)
            sums[r][v] = q8_ints_at(x[v].begin, unit);
    for (size_t quad = k / 4; quad < (k + shape.group) / 4; quad++) {
        q8_ints inputs[Q8_VECTORS];
        for (int v = 0; v < n; v++)
            inputs[v] = q8_ints_at(x[v].codes, quad);
        for (int r = 0; r < Q8_ROWS; r++) {
            q8_ints codes = q8_four_codes(panel->codes[row + (size_t)r] + 4 * quad);
            for (int v = 0; v < n; v++)
                sums[r][v] = q8_dot(sums[r][v], codes, inputs[v], shape.wide);
        }
    }
    for (int r = 0; r < Q8_ROWS; r++) {
        q8_floats scale = q8_splat(panel->scales[row + (size_t)r][unit]);
        for (int v = 0; v < n; v++) {
            q8_floats sum = __builtin_convertvector(sums[r][v], q8_floats);
            part[r][v] = q8_fma(sum, scale, part[r][v]);
        }
    }
}

/* Q8_ROWS weight rows against n vectors of input rows. */
INLINE void q8_rows(const struct q8_shape shape, const struct q8_panel *panel, size_t row,
                    const struct q8_vector *x, int n, size_t len)
{
    q8_floats sums[Q8_ROWS][Q8_VECTORS];
    for (int r = 0; r < Q8_ROWS; r++)
        for (int v = 0; v < n; v++)
            sums[r][v] = q8_floats_at((const uint8_t *)x[v].sums, row + (size_t)r);
    for (size_t from = 0; from < len; from += shape.block) {
        q8_floats part[Q8_ROWS][Q8_VECTORS] = {0};
        for (size_t k = 0; k < shape.block; k += shape.group)
            q8_group(shape, panel, row, x, n, from + k, part);
        for (int v = 0; v < n; v++) {
            q8_floats scale = q8_floats_at(x[v].scales, from / shape.block);
            for (int r = 0; r < Q8_ROWS; r++)
                sums[r][v] = q8_fma(part[r][v], scale, sums[r][v]);
        }
        for (size_t k = from; shape.has_offset && k < from + shape.block; k += shape.group) {
            size_t unit = k / Q8_UNIT(shape);
            for (int v = 0; v < n; v++) {
                q8_floats factor = q8_floats_at(x[v].factor, unit);
                for (int r = 0; r < Q8_ROWS; r++)
                    sums[r][v] = q8_fma(factor, q8_splat(panel->offsets[row + (size_t)r][unit]), sums[r][v]);
            }
        }
    }
    for (int r = 0; r < Q8_ROWS; r++)
        for (int v = 0; v < n; v++)
            *(q8_floats *)(void *)(x[v].sums + (row + (size_t)r) * TILE_ROWS) = sums[r][v];
}

/* The vectors of one group of input rows. */
INLINE void q8_group_vectors(const struct q8_shape shape, const struct gemm_part *p, size_t group,
                             struct q8_surplus *surplus, struct q8_vector *x)
{
    const struct q8_panel *panel = (const struct q8_panel *)(const void *)p->panel;
    const uint8_t *inputs = p->inputs.data + group * p->inputs.stride;
    const uint8_t *scales = inputs + offsetof(struct q8_tile, scales);
    q8_surplus(shape, inputs, panel->zero, p->len, surplus);
    float *sums = p->sums + group * Q8_PANEL_ROWS * TILE_ROWS;
    for (size_t at = 0; at < PLANE_STRIDE; at += VECTOR_BYTES, x++)
        *x = (struct q8_vector){inputs + at, scales + at, (const uint8_t *)surplus->begin + at,
                                (const uint8_t *)surplus->factor + at, sums + at / 4};
}

#define VECTORS_A_GROUP (PLANE_STRIDE / VECTOR_BYTES)
#define GROUPS_A_PASS (Q8_VECTORS / VECTORS_A_GROUP)

INLINE void q8_multiply(const struct q8_shape shape, const struct gemm_part *p)
{
    const struct q8_panel *panel = (const struct q8_panel *)(const void *)p->panel;
    struct q8_surplus surplus[GROUPS_A_PASS];
    struct q8_vector x[Q8_VECTORS];
    for (size_t g = 0; g < p->groups; g += GROUPS_A_PASS) {
        size_t left = p->groups - g, count = left < GROUPS_A_PASS ? left : GROUPS_A_PASS;
        for (size_t i = 0; i < count; i++) {
            gemm_look_ahead(p->ahead);
            q8_group_vectors(shape, p, g + i, &surplus[i], x + i * VECTORS_A_GROUP);
        }
        for (size_t row = 0; row < Q8_PANEL_ROWS; row += Q8_ROWS) {
            if (count == GROUPS_A_PASS)
                q8_rows(shape, panel, row, x, Q8_VECTORS, p->len);
            else
                q8_rows(shape, panel, row, x, VECTORS_A_GROUP, p->len);
        }
    }
}

/* A `multiply` for a shape, and a struct gemm with it. */
#define Q8_MULTIPLY(name, ...)                          \
    static void name(const struct gemm_part *p)         \
    {                                                   \
        q8_multiply((struct q8_shape){__VA_ARGS__}, p); \
    }
#define Q8_GEMM(form, multiply, write)                                                            \
    {                                                                                             \
        form, Q8_PANEL_ROWS, Q8_CODE_STRIDE, sizeof(struct q8_panel), multiply, write, NULL, NULL \
    }
