/* Prefill on AVX2: panels in F32, unpacked through the plain description of each format. */
#include <immintrin.h>

#define VECTOR_BYTES 32
#define GEMM_ROWS 4
#include "tensor/gemm_body.h"
#include "tensor/kernels_avx2_int.h"
#include "tensor/unpack_body.h"

static inline gemm_vector gemm_fma(gemm_vector a, gemm_vector b, gemm_vector c)
{
    return _mm256_fmadd_ps(a, b, c);
}

const struct gemm gemm_avx2 = GEMM_TABLE(gemm_write);

static void unpack_row_blocks(enum tensor_type type, const uint8_t *block, size_t len, float *to)
{
    const struct tensor_format *f = tensor_format((uint32_t)type);
    const struct format_ops *op = format_ops(type);
    struct unpacked u;
    memset(u.min, 0, sizeof u.min);
    for (size_t i = 0; i < len; i += f->block_len, block += f->block_bytes) {
        unpack_block[type](block, &u);
        for (size_t j = 0; j < f->block_len; j += 8, to += 8) {
            __m128i codes = _mm_loadl_epi64((const __m128i *)(const void *)(u.q + j));
            __m256 v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
            size_t g = j / op->group;
            _mm256_storeu_ps(to, _mm256_fmsub_ps(v, _mm256_set1_ps(u.scale[g]), _mm256_set1_ps(u.min[g])));
        }
    }
}

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

void unpack_avx2(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, uint8_t *panel,
                 size_t stride)
{
    size_t row_bytes = tensor_row_bytes(w->type, w->cols);
    const uint8_t *p = (const uint8_t *)w->data + row * row_bytes + tensor_row_bytes(w->type, from);
    for (size_t r = 0; r < rows; r++, p += row_bytes, panel += stride) {
        if (format_ops(w->type)->group)
            unpack_row_blocks(w->type, p, len, (float *)(void *)panel);
        else
            unpack_row_floats(w->type, p, len, (float *)(void *)panel);
    }
}
