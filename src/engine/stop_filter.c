/* Stop strings across token borders.
 *
 * New text is appended to the held text and searched end by end: the stop string that is complete first wins,
 * the longest when several end at the same byte, so that the outcome does not depend on how the text was cut
 * into tokens. What remains held is the longest tail that is a proper beginning of some stop string; when it
 * comes to nothing later, it is let go then. Stop strings are valid UTF-8, so a cut never splits a character.
 * Texts between two calls are a token long and stops are few: the plain quadratic search is the fast one. */
#include <string.h>

#include "engine/engine_int.h"

/* The longest stop string that ends at text[end). */
static size_t stop_ending_at(const struct stop_filter *filter, const char *text, size_t end)
{
    size_t longest = 0;
    for (size_t i = 0; i < filter->count; i++) {
        const struct engine_text *stop = &filter->stops[i];
        if (stop->len <= end && stop->len > longest &&
            memcmp(text + end - stop->len, stop->text, stop->len) == 0)
            longest = stop->len;
    }
    return longest;
}

static bool begins_a_stop(const struct stop_filter *filter, const char *tail, size_t len)
{
    for (size_t i = 0; i < filter->count; i++)
        if (filter->stops[i].len > len && memcmp(tail, filter->stops[i].text, len) == 0)
            return true;
    return false;
}

bool stop_filter_scan(struct stop_filter *filter, size_t *ready)
{
    const char *text = filter->held.data;
    size_t len = filter->held.len;
    *ready = len;
    if (filter->count == 0)
        return false;
    for (size_t end = filter->seen + 1; end <= len; end++) {
        size_t stop_len = stop_ending_at(filter, text, end);
        if (stop_len > 0) {
            *ready = end - stop_len;
            return true;
        }
    }
    filter->seen = len;
    size_t start = 0;
    while (start < len && !begins_a_stop(filter, text + start, len - start))
        start++;
    *ready = start;
    return false;
}

void stop_filter_drop(struct stop_filter *filter, size_t len)
{
    buf_consume(&filter->held, len);
    filter->seen = filter->seen > len ? filter->seen - len : 0;
}
