#include "base/utf8.h"

#include <string.h>

#define WORD_HIGH_BITS 0x8080808080808080u

/* One row a class of lead bytes: how many bytes the character has and, since overlong forms, surrogates and
 * what lies above U+10FFFF all show in the second byte, the range of that byte (RFC 3629, section 4). */
struct lead {
    unsigned char len;
    unsigned char second_min, second_max;
};

static const struct lead leads[] = {{0, 0, 0},       {2, 0x80, 0xBF}, {3, 0xA0, 0xBF}, {3, 0x80, 0xBF},
                                    {3, 0x80, 0x9F}, {4, 0x90, 0xBF}, {4, 0x80, 0xBF}, {4, 0x80, 0x8F}};

/* The row of each byte from 0xC0 on; those below begin nothing. */
static const unsigned char lead_rows[] = {
    0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* C0: C0 and C1 could only be overlong */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* D0 */
    2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, /* E0: overlong, surrogates */
    5, 6, 6, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* F0: overlong, the end of Unicode */
};

/* How many bytes of text[0..len) agree with one character of `*want` bytes; 0 for a byte that starts none. */
static size_t match(const unsigned char *text, size_t len, size_t *want)
{
    *want = 1;
    if (text[0] < 0x80)
        return 1;
    if (text[0] < 0xC0)
        return 0;
    const struct lead *lead = &leads[lead_rows[text[0] - 0xC0]];
    if (lead->len == 0)
        return 0;
    *want = lead->len;
    if (len < 2 || text[1] < lead->second_min || text[1] > lead->second_max)
        return 1;
    size_t got = 2;
    while (got < lead->len && got < len && (text[got] & 0xC0) == 0x80)
        got++;
    return got;
}

static uint32_t assemble(const unsigned char *text, size_t len)
{
    static const unsigned char lead_mask[UTF8_LEN_MAX + 1] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t code_point = text[0] & lead_mask[len];
    for (size_t i = 1; i < len; i++)
        code_point = code_point << 6 | (text[i] & 0x3Fu);
    return code_point;
}

size_t utf8_decode(const char *text, size_t len, uint32_t *code_point)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t want;
    if (match(bytes, len, &want) != want)
        return 0;
    *code_point = assemble(bytes, want);
    return want;
}

size_t utf8_next(const char *text, size_t len, uint32_t *code_point)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t want;
    size_t got = match(bytes, len, &want);
    *code_point = got == want ? assemble(bytes, want) : UTF8_REPLACEMENT;
    return got ? got : 1;
}

bool utf8_valid(const char *text, size_t len)
{
    const unsigned char *at = (const unsigned char *)text;
    const unsigned char *const end = at + len;
    while (at < end) {
        uint64_t word;
        if ((size_t)(end - at) >= sizeof word) {
            memcpy(&word, at, sizeof word);
            if (!(word & WORD_HIGH_BITS)) {
                at += sizeof word;
                continue;
            }
        }
        size_t want;
        if (match(at, (size_t)(end - at), &want) != want)
            return false;
        at += want;
    }
    return true;
}

size_t utf8_encode(uint32_t code_point, char out[UTF8_LEN_MAX])
{
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF))
        return 0;
    static const unsigned char lead_bits[UTF8_LEN_MAX + 1] = {0, 0, 0xC0, 0xE0, 0xF0};
    size_t len = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code_point & 0x3F));
        code_point >>= 6;
    }
    out[0] = (char)(lead_bits[len] | code_point);
    return len;
}

size_t utf8_incomplete_tail(const char *text, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)text;
    for (size_t tail = 1; tail < UTF8_LEN_MAX && tail <= len; tail++) {
        const unsigned char *lead = bytes + len - tail;
        if ((*lead & 0xC0) == 0x80)
            continue;
        size_t want;
        return match(lead, tail, &want) == tail && tail < want ? tail : 0;
    }
    return 0;
}
