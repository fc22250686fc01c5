/* UTF-8 (RFC 3629), strict: no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef PHAROS_BASE_UTF8_H
#define PHAROS_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT 0xFFFDu
#define UTF8_LEN_MAX 4

bool utf8_valid(const char *text, size_t len);

/* Decodes one code point of text[0..len), len >= 1. Returns the bytes read (1..4), or 0 when the bytes there
 * are not valid UTF-8 (truncated included). */
size_t utf8_decode(const char *text, size_t len, uint32_t *code_point);

/* The same for text that may be broken: reads one code point, or U+FFFD for the longest run of bytes that
 * begins a character and does not finish it (Unicode 15, section 3.9). Returns the bytes read, at least 1. */
size_t utf8_next(const char *text, size_t len, uint32_t *code_point);

size_t utf8_encode(uint32_t code_point, char out[UTF8_LEN_MAX]); /* 0: not a scalar value */

/* How many trailing bytes of text form the beginning of a character that is not complete yet (0..3); such a
 * tail may become valid with more bytes. Bytes that can never become valid count as 0. */
size_t utf8_incomplete_tail(const char *text, size_t len);

#endif
