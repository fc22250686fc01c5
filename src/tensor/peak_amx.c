/* Peaks of the AMX set: tiles for BF16 and INT8, AVX-512 for floats and for reading. */
#include <immintrin.h>

#include "tensor/kernels_int.h"
#include "tensor/tiles_amx_int.h"

static void tiles_begin(void)
{
    static const uint8_t zeros[1024];
    tiles_configure();
    _tile_loadd(4, zeros, 64);
    _tile_loadd(5, zeros, 64);
    _tile_loadd(6, zeros, 64);
    _tile_loadd(7, zeros, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static uint64_t peak_bf16(uint64_t rounds)
{
    tiles_begin();
    for (uint64_t r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return rounds * 4 * 16 * 16 * 32 * 2;
}

static uint64_t peak_int8(uint64_t rounds)
{
    tiles_begin();
    for (uint64_t r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
    return rounds * 4 * 16 * 16 * 64 * 2;
}

static uint64_t peak_f32(uint64_t rounds)
{
    return peak_avx512.f32(rounds);
}

static uint64_t read_all(const void *data, size_t bytes)
{
    return peak_avx512.read(data, bytes);
}

const struct peak_kernels peak_amx = {peak_f32, peak_bf16, peak_int8, read_all};
