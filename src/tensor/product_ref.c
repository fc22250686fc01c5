/* Products of floats for any CPU: the baseline instruction set's 16-byte vectors. */
#define VECTOR_BYTES 16
#define PRODUCT_ROWS 4
#define PRODUCT_VECTORS 2
#define PRODUCT_UNIT 1
#define PRODUCT_VECTOR vector_ref
#include "tensor/product_body.h"
#include "tensor/product_pack_body.h"

static inline product_vector product_fma(const float *a, product_vector b, product_vector c)
{
    return c + *a * b;
}

const struct product_kernel product_ref = PRODUCT_KERNEL(256, product_pack_a, product_pack_b);
