/* Prefill in F32, written once with the compiler's vector types for the sets that include it, which
 * define before:
 *
 *   VECTOR_BYTES   width of a vector
 *   GEMM_ROWS      weight rows whose sums are kept in registers at a time
 *   gemm_fma(a, b, c)
 *
 * A vector holds one input of several rows; weights are broadcast. */
#include "tensor/kernels_int.h"

#define GEMM_PANEL_ROWS 32
#define GEMM_VECTORS (TILE_ROWS * 4 / VECTOR_BYTES) /* of a group */

typedef float gemm_vector __attribute__((vector_size(VECTOR_BYTES)));

static inline gemm_vector gemm_fma(gemm_vector a, gemm_vector b, gemm_vector c);

static inline __attribute__((always_inline)) void gemm_block(const float *panel, const gemm_vector *inputs,
                                                             size_t len, gemm_vector *sums)
{
    gemm_vector s[GEMM_ROWS][GEMM_VECTORS];
    for (int r = 0; r < GEMM_ROWS; r++)
        for (int v = 0; v < GEMM_VECTORS; v++)
            s[r][v] = sums[r * GEMM_VECTORS + v];
    for (size_t k = 0; k < len; k++, inputs += GEMM_VECTORS) {
        for (int r = 0; r < GEMM_ROWS; r++) {
            gemm_vector w = panel[(size_t)r * TILE_STRETCH + k] - (gemm_vector){0};
            for (int v = 0; v < GEMM_VECTORS; v++)
                s[r][v] = gemm_fma(w, inputs[v], s[r][v]);
        }
    }
    for (int r = 0; r < GEMM_ROWS; r++)
        for (int v = 0; v < GEMM_VECTORS; v++)
            sums[r * GEMM_VECTORS + v] = s[r][v];
}

static void gemm_multiply(const struct gemm_part *p)
{
    const float *panel = (const float *)(const void *)p->panel;
    for (size_t g = 0; g < p->groups; g++) {
        const uint8_t *inputs = p->inputs.data + g * p->inputs.stride;
        float *sums = p->sums + g * GEMM_PANEL_ROWS * TILE_ROWS;
        gemm_look_ahead(p->ahead);
        for (size_t r = 0; r < GEMM_PANEL_ROWS; r += GEMM_ROWS)
            gemm_block(panel + r * TILE_STRETCH, (const gemm_vector *)(const void *)inputs, p->len,
                       (gemm_vector *)(void *)(sums + r * TILE_ROWS));
    }
}

#define GEMM_FLOATS(form, write)                                                                          \
    {                                                                                                     \
        form, GEMM_PANEL_ROWS, TILE_STRETCH * 4, GEMM_PANEL_ROWS *TILE_STRETCH * 4, gemm_multiply, write, \
            NULL, NULL                                                                                    \
    }
