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

static inline int32_t codes_dot(const int8_t *query, const int8_t *row, size_t len, int32_t query_sum)
{
    int32_t sum = 0;
    (void)query_sum;
    for (size_t i = 0; i < len; i++)
        sum += query[i] * row[i];
    return sum;
}

static inline vf load_part(const float *p, size_t len)
{
    return plain_load_part(p, len);
}

static inline void store_part(float *p, vf v, size_t len)
{
    plain_store_part(p, v, len);
}

static inline vf max_of(vf a, vf b)
{
    return plain_max(a, b);
}

static inline vf min_of(vf a, vf b)
{
    return plain_min(a, b);
}

static inline float fold_sum(vf v)
{
    return plain_fold_sum(v);
}

static inline float fold_max(vf v)
{
    return plain_fold_max(v);
}

static inline vf times_power(vf v, vi k)
{
    return plain_times_power(v, k);
}

static inline vf vector_swap(vf v)
{
    return __builtin_shufflevector(v, v, 1, 0, 3, 2);
}

static inline vf vector_even(vf v)
{
    return __builtin_shufflevector(v, v, 0, 0, 2, 2);
}

static inline vf vector_odd(vf v)
{
    return __builtin_shufflevector(v, v, 1, 1, 3, 3);
}
