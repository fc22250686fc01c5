/* Vector operations for any CPU: the baseline instruction set's 16-byte vectors. */
#define VECTOR_BYTES 16
#define VECTOR_TABLE vector_ref
#include "tensor/vector_body.h"

static inline vf vector_fma(vf a, vf b, vf c)
{
    return a * b + c;
}

static inline vf vector_load_f16(const uint16_t *p)
{
    return (vf){tensor_f16_to_f32(p[0]), tensor_f16_to_f32(p[1]), tensor_f16_to_f32(p[2]),
                tensor_f16_to_f32(p[3])};
}

static inline void vector_store_f16(uint16_t *p, vf v)
{
    for (size_t i = 0; i < VECTOR_LEN; i++)
        p[i] = tensor_f32_to_f16(v[i]);
}
