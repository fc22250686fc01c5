#include "model/unicode_int.h"

#define REPLACEMENT 0xfffdu

uint32_t unicode_class(uint32_t point)
{
    size_t low = 0, high = unicode_class_range_count; /* the range is in [low, high) */
    if (point < 128)
        return unicode_ascii_classes[point];
    if (point > UNICODE_POINT_MAX)
        return 0;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (unicode_class_ranges[middle] >> 8 <= point)
            low = middle;
        else
            high = middle;
    }
    return unicode_class_ranges[low] & 0xff;
}

static uint32_t map_point(const struct unicode_run *runs, size_t count, uint32_t point)
{
    size_t low = 0, high = count; /* runs before low begin at or before the point */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (runs[middle].first <= point)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return point;
    const struct unicode_run *run = &runs[low - 1];
    uint32_t index = point - run->first;
    return index < run->count ? run->target + index * run->step : point;
}

uint32_t unicode_lower(uint32_t point)
{
    return map_point(unicode_lower_runs, unicode_lower_run_count, point);
}

uint32_t unicode_base(uint32_t point)
{
    return map_point(unicode_base_runs, unicode_base_run_count, point);
}

size_t unicode_decode(const char *text, size_t len, uint32_t *point)
{
    const unsigned char *bytes = (const unsigned char *)text;
    uint32_t first = bytes[0];
    size_t need = first < 0x80   ? 1
                  : first < 0xc0 ? 0
                  : first < 0xe0 ? 2
                  : first < 0xf0 ? 3
                  : first < 0xf8 ? 4
                                 : 0;
    if (need == 1) {
        *point = first;
        return 1;
    }
    *point = REPLACEMENT;
    if (need == 0 || need > len)
        return 1;
    uint32_t value = first & (0x7fu >> need);
    for (size_t i = 1; i < need; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 1;
        value = value << 6 | (bytes[i] & 0x3f);
    }
    if (value > UNICODE_POINT_MAX)
        return 1;
    *point = value;
    return need;
}

size_t unicode_encode(uint32_t point, char out[4])
{
    static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t len = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--, point >>= 6)
        out[i] = (char)(0x80 | (point & 0x3f));
    out[0] = (char)(first[len] | point);
    return len;
}
