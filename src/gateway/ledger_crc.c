/* CRC-32C: Castagnoli's polynomial as in iSCSI (RFC 3720). By the processor's own instruction where it has
 * one (ledger_crc_sse42.c: 8 times as fast), else by slicing (Kounavis and Berry 2005): eight tables, eight
 * bytes a step. */
#include "gateway/ledger_int.h"

#define POLYNOMIAL 0x82F63B78u /* bits reversed */

static uint64_t get64(const uint8_t *at)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

uint32_t crc32c_by_tables(const struct crc32c *crc, const uint8_t *bytes, size_t len)
{
    const uint32_t(*t)[256] = crc->table;
    uint32_t sum = ~0u;
    for (; len >= 8; bytes += 8, len -= 8) {
        uint64_t word = get64(bytes) ^ sum;
        sum = t[7][word & 255] ^ t[6][word >> 8 & 255] ^ t[5][word >> 16 & 255] ^ t[4][word >> 24 & 255] ^
              t[3][word >> 32 & 255] ^ t[2][word >> 40 & 255] ^ t[1][word >> 48 & 255] ^ t[0][word >> 56];
    }
    for (; len > 0; bytes++, len--)
        sum = sum >> 8 ^ t[0][(sum ^ *bytes) & 255];
    return ~sum;
}

void crc32c_init(struct crc32c *crc)
{
    crc->run = crc32c_by_tables;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        crc->run = crc32c_sse42;
#endif
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? POLYNOMIAL : 0);
        crc->table[0][i] = value;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (size_t t = 1; t < 8; t++) {
            uint32_t before = crc->table[t - 1][i];
            crc->table[t][i] = before >> 8 ^ crc->table[0][before & 255];
        }
}

uint32_t crc32c(const struct crc32c *crc, const uint8_t *bytes, size_t len)
{
    return crc->run(crc, bytes, len);
}
