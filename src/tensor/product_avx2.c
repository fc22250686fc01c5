/* Products of floats on AVX2 and FMA: a micro-tile of 4 x 24 in twelve of the sixteen registers. */
#include <immintrin.h>

#define VECTOR_BYTES 32
#define PRODUCT_ROWS 4
#define PRODUCT_VECTORS 3
#define PRODUCT_UNIT 1
#define PRODUCT_VECTOR vector_avx2
#include "tensor/product_body.h"
#include "tensor/product_pack_body.h"

static inline product_vector product_fma(const float *a, product_vector b, product_vector c)
{
    return _mm256_fmadd_ps(_mm256_set1_ps(*a), b, c);
}

const struct product_kernel product_avx2 = PRODUCT_KERNEL(256, product_pack_a, product_pack_b);
