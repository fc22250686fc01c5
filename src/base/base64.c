/* Base64, three bytes or four characters at a time. */
#include "base/base64.h"

#include <stdint.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_write(struct buf *out, const void *bytes, size_t len)
{
    const unsigned char *in = bytes;
    size_t text_len = len / 3 * 4 + (len % 3 ? 4 : 0);
    char *to = buf_reserve(out, text_len);
    if (!to)
        return;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t group = (uint32_t)in[i] << 16;
        group |= i + 1 < len ? (uint32_t)in[i + 1] << 8 : 0;
        group |= i + 2 < len ? in[i + 2] : 0;
        *to++ = digits[group >> 18];
        *to++ = digits[group >> 12 & 63];
        *to++ = i + 1 < len ? digits[group >> 6 & 63] : '=';
        *to++ = i + 2 < len ? digits[group & 63] : '=';
    }
    buf_grew(out, text_len);
}

/* 64: no digit. */
static uint32_t value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (uint32_t)(c - '0') + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

size_t base64_read(const char *text, size_t len, void *out)
{
    unsigned char *to = out;
    uint32_t group = 0;
    size_t count = 0;
    if (len % 4 == 0)
        for (int i = 0; i < 2 && len && text[len - 1] == '='; i++)
            len--;
    for (size_t i = 0; i < len; i++) {
        uint32_t value = value_of(text[i]);
        if (value > 63)
            return BASE64_BAD;
        group = group << 6 | value;
        if (i % 4 == 3) {
            to[count++] = (unsigned char)(group >> 16);
            to[count++] = (unsigned char)(group >> 8);
            to[count++] = (unsigned char)group;
        }
    }
    switch (len % 4) {
    case 1:
        return BASE64_BAD;
    case 2:
        to[count++] = (unsigned char)(group >> 4);
        break;
    case 3:
        to[count++] = (unsigned char)(group >> 10);
        to[count++] = (unsigned char)(group >> 2);
        break;
    default:
        break;
    }
    return count;
}
