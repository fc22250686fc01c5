/* Characters as tokenizers see them: Unicode 15.1 classes, lower case, base letters, and a decoder that takes
 * any bytes. Tokenizers were trained against these rules, so they differ from base/utf8.h on purpose:
 * surrogates and overlong forms decode to what they spell. */
#ifndef PHAROS_MODEL_UNICODE_INT_H
#define PHAROS_MODEL_UNICODE_INT_H

#include <stddef.h>
#include <stdint.h>

enum { /* classes: at most one of the general categories, and SPACE */
       UNICODE_LETTER = 1,
       UNICODE_NUMBER = 2,
       UNICODE_PUNCTUATION = 4,
       UNICODE_SYMBOL = 8,
       UNICODE_MARK = 16,
       UNICODE_SPACE = 32,
       UNICODE_CONTROL = 64 /* category C but for unassigned points */
};

#define UNICODE_POINT_MAX 0x10ffffu

/* `count` points from `first` on map to target, target + step, target + 2 step, ... */
struct unicode_run {
    uint32_t first;
    uint16_t count, step;
    uint32_t target;
};

extern const uint32_t unicode_class_ranges[]; /* first point << 8 | classes, ascending */
extern const size_t unicode_class_range_count;
extern const uint8_t unicode_ascii_classes[128];
extern const struct unicode_run unicode_lower_runs[], unicode_base_runs[];
extern const size_t unicode_lower_run_count, unicode_base_run_count;

uint32_t unicode_class(uint32_t point);
uint32_t unicode_lower(uint32_t point); /* the first character of the full mapping */
uint32_t unicode_base(uint32_t point);  /* the first character of the canonical decomposition */

/* Decodes one point of text[0..len), len >= 1, and returns the bytes read, at least 1. A byte that begins
 * nothing, or something too short, or beyond U+10FFFF, reads as one U+FFFD. */
size_t unicode_decode(const char *text, size_t len, uint32_t *point);
size_t unicode_encode(uint32_t point, char out[4]); /* point <= UNICODE_POINT_MAX; surrogates pass */

#endif
