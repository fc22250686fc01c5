/* Products of floats rounded to BF16 with VDPBF16PS: the micro-tile of AVX-512 on pairs. */
#include <immintrin.h>
#include <string.h>

#define VECTOR_BYTES 64
#define PRODUCT_ROWS 12
#define PRODUCT_VECTORS 2
#define PRODUCT_UNIT 2
#include "tensor/product_body.h"
#include "tensor/product_pairs_body.h"

static inline product_vector product_fma(const float *a, product_vector b, product_vector c)
{
    uint32_t pair;
    memcpy(&pair, a, sizeof pair);
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_set1_epi32((int)pair), (__m512bh)b);
}

static void pack_a(const struct product_strip *strip, void *panels)
{
    squares_pack(strip, PRODUCT_ROWS, PRODUCT_UNIT, panels);
}

static void pack_b(const struct product_strip *strip, void *panels)
{
    squares_pack(strip, PRODUCT_COLUMNS, PRODUCT_UNIT, panels);
}

const struct product_kernel product_avx512bf16 = PRODUCT_KERNEL(512, pack_a, pack_b);
