/* CRC-32C by SSE 4.2's instruction. */
#include <nmmintrin.h>
#include <string.h>

#include "gateway/ledger_int.h"

uint32_t crc32c_sse42(const struct crc32c *crc, const uint8_t *bytes, size_t len)
{
    uint64_t sum = UINT32_MAX;
    (void)crc;
    for (; len >= 8; bytes += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, bytes, sizeof word);
        sum = _mm_crc32_u64(sum, word);
    }
    for (; len > 0; bytes++, len--)
        sum = _mm_crc32_u8((uint32_t)sum, *bytes);
    return ~(uint32_t)sum;
}
