/* What the JSON files share: the scan for bytes that a string can't hold as they are, and numbers. */
#ifndef PHAROS_BASE_JSON_INT_H
#define PHAROS_BASE_JSON_INT_H

#include <stdint.h>

#include "base/json.h"
#include "base/limits.h"

/* A tree may join parsed documents, so it may be deeper than one of them; deeper than this it is refused. */
#define JSON_TREE_DEPTH_MAX (2 * JSON_DEPTH_MAX)

#define JSON_WORD_BYTES 8

/* Eight bytes, the first one lowest, whatever the machine's byte order; compilers make one load of it. */
static inline uint64_t json_load_word(const char *text)
{
    const unsigned char *b = (const unsigned char *)text;
    return (uint64_t)b[0] | (uint64_t)b[1] << 8 | (uint64_t)b[2] << 16 | (uint64_t)b[3] << 24 |
           (uint64_t)b[4] << 32 | (uint64_t)b[5] << 40 | (uint64_t)b[6] << 48 | (uint64_t)b[7] << 56;
}

/* Marks the high bit of every byte that is a quote, a backslash, a control character or not ASCII. The
 * subtractions may borrow into bytes above a marked one, so only the lowest mark is exact; none means none
 * (Mycroft's test, see Warren, Hacker's Delight, 6-1). */
static inline uint64_t json_special_mask(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t quote = word ^ (ones * '"');
    uint64_t backslash = word ^ (ones * '\\');
    return (word | (word - ones * 0x20) | (quote - ones) | (backslash - ones)) & (ones * 0x80);
}

/* Index of the lowest marked byte of a mask that is not 0. */
static inline size_t json_mask_index(uint64_t mask)
{
    return (size_t)__builtin_ctzll(mask) / 8;
}

static inline bool json_is_special(char c)
{
    unsigned char byte = (unsigned char)c;
    return byte < 0x20 || byte >= 0x80 || byte == '"' || byte == '\\';
}

#define JSON_DOUBLE_TEXT_MAX 32

/* Shortest text that reads back equal; returns its length, 0 when value is not finite. */
size_t json_format_double(double value, char out[JSON_DOUBLE_TEXT_MAX]);

bool json_numbers_equal(const struct json *a, const struct json *b); /* by exact value */

#endif
