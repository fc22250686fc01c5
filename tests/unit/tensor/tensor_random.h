/* Reproducible numbers for the tensor tests. */
#ifndef PHAROS_TESTS_TENSOR_RANDOM_H
#define PHAROS_TESTS_TENSOR_RANDOM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* splitmix64 (Steele, Lea and Flood 2014) */
static inline uint64_t random_u64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline double random_unit(uint64_t *state)
{
    return (double)(random_u64(state) >> 11) * 0x1p-53;
}

static inline float random_normal(uint64_t *state)
{
    double u = random_unit(state) + 1e-300, v = random_unit(state);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static inline void random_fill(uint64_t *state, float *x, size_t len, float scale)
{
    for (size_t i = 0; i < len; i++)
        x[i] = random_normal(state) * scale;
}

#endif
