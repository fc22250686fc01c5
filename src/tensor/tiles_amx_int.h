/* AMX tiles in their full shape: all eight of sixteen rows of 64 bytes. */
#ifndef PHAROS_TENSOR_TILES_AMX_INT_H
#define PHAROS_TENSOR_TILES_AMX_INT_H

#include <immintrin.h>
#include <stdint.h>

/* LDTILECFG's operand (Intel SDM volume 2, chapter 3). */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static inline void tiles_configure(void)
{
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
}

#endif
