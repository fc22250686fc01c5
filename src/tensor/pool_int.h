/* What the matrix products ask of the pool beyond the public header. */
#ifndef PHAROS_TENSOR_POOL_INT_H
#define PHAROS_TENSOR_POOL_INT_H

#include "tensor/tensor.h"

/* Every lane's own scratch for unpacked weights and sums (struct lane's `panel`), page-aligned. */
#define POOL_PANEL_BYTES ((size_t)1 << 20)

const struct kernels *pool_kernels(const struct pool *pool);

#endif
