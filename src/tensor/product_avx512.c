/* Products of floats on AVX-512: a micro-tile of 12 x 32 in twenty-four of the thirty-two registers. */
#include <immintrin.h>

#define VECTOR_BYTES 64
#define PRODUCT_ROWS 12
#define PRODUCT_VECTORS 2
#define PRODUCT_UNIT 1
#define PRODUCT_VECTOR vector_avx512
#include "tensor/product_body.h"
#include "tensor/product_pack_body.h"

static inline product_vector product_fma(const float *a, product_vector b, product_vector c)
{
    return _mm512_fmadd_ps(_mm512_set1_ps(*a), b, c);
}

const struct product_kernel product_avx512 = PRODUCT_KERNEL(256, product_pack_a, product_pack_b);
