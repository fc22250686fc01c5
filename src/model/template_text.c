/* Strings: code points, blanks, case, search, replacement, splitting. Python's rules, by the Unicode data of
 * utf8proc. Every string is valid UTF-8, so an index in code points is found by counting lead bytes. */
#include "model/template_int.h"

#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

#define CONCAT_SLACK_MIN 256 /* from here on a concatenation leaves room to grow */

bool code_point_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xC0) == 0x80;
}

size_t text_count(struct text text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += !is_continuation(text.at[i]);
    return count;
}

size_t text_offset(struct text text, size_t index)
{
    size_t at = 0;
    while (at < text.len && index > 0) {
        at++;
        while (at < text.len && is_continuation(text.at[at]))
            at++;
        index--;
    }
    return at;
}

static uint32_t decode(struct text text, size_t at, size_t *len)
{
    uint32_t c = UTF8_REPLACEMENT;
    *len = utf8_decode(text.at + at, text.len - at, &c);
    if (*len == 0)
        *len = 1;
    return c;
}

static bool is_stripped(struct text text, size_t at, size_t len, struct text chars)
{
    if (!chars.at) {
        size_t read;
        return code_point_is_space(decode(text, at, &read));
    }
    for (size_t i = 0; i < chars.len;) {
        size_t next = i + text_offset((struct text){chars.at + i, chars.len - i}, 1);
        if (next - i == len && memcmp(chars.at + i, text.at + at, len) == 0)
            return true;
        i = next;
    }
    return false;
}

struct text text_strip(struct text text, struct text chars, bool left, bool right)
{
    while (left && text.len > 0) {
        size_t len = text_offset(text, 1);
        if (!is_stripped(text, 0, len, chars))
            break;
        text.at += len;
        text.len -= len;
    }
    while (right && text.len > 0) {
        size_t at = text.len - 1;
        while (at > 0 && is_continuation(text.at[at]))
            at--;
        if (!is_stripped(text, at, text.len - at, chars))
            break;
        text.len = at;
    }
    return text;
}

/* Concatenation in a loop is quadratic unless the newest string may grow where it ends: strings are never
 * changed, only the unused bytes after the newest one are filled. */
struct tv text_concat(struct render *r, struct text a, struct text b)
{
    if (a.len == 0 || b.len == 0)
        return tv_text(a.len ? a : b);
    render_charge_bytes(r, b.len);
    if (r->tail && a.at + a.len == r->tail && b.len <= r->tail_room) {
        char *end = (char *)r->tail; /* our own memory, behind the string's last byte */
        memcpy(end, b.at, b.len);
        r->tail += b.len;
        r->tail_room -= b.len;
        return tv_text((struct text){a.at, a.len + b.len});
    }
    size_t len = a.len + b.len, size = len < CONCAT_SLACK_MIN ? len : len * 2;
    render_charge_bytes(r, a.len);
    if (len > TEMPLATE_OUTPUT_BYTES_MAX)
        return render_fail(r, PH_ERR_LIMIT, "a string is longer than %u bytes", TEMPLATE_OUTPUT_BYTES_MAX);
    char *bytes = render_alloc(r, size);
    if (!bytes)
        return tv_literal("");
    memcpy(bytes, a.at, a.len);
    memcpy(bytes + a.len, b.at, b.len);
    if (size > len) {
        r->tail = bytes + len;
        r->tail_room = size - len;
    }
    return tv_text((struct text){bytes, len});
}

/* Rabin-Karp: linear whatever the texts are. */
static const char *find_rolling(struct text haystack, struct text needle, bool last)
{
    const uint64_t prime = 2147483647, base = 263;
    uint64_t wanted = 0, hash = 0, top = 1;
    const char *found = NULL;
    for (size_t i = 0; i < needle.len; i++) {
        wanted = (wanted * base + (unsigned char)needle.at[i]) % prime;
        hash = (hash * base + (unsigned char)haystack.at[i]) % prime;
        top = i ? top * base % prime : 1;
    }
    for (size_t i = 0;; i++) {
        if (hash == wanted && memcmp(haystack.at + i, needle.at, needle.len) == 0) {
            found = haystack.at + i;
            if (!last)
                return found;
        }
        if (i + needle.len >= haystack.len)
            return found;
        uint64_t gone = (unsigned char)haystack.at[i] * top % prime;
        hash = ((hash + prime - gone) * base + (unsigned char)haystack.at[i + needle.len]) % prime;
    }
}

/* Plain search is fastest on text, but quadratic on texts made for that: when the comparisons outgrow the
 * progress, the rest is searched in linear time. */
static bool outgrows(size_t comparisons, size_t progress, size_t needle_len)
{
    return needle_len > 64 && comparisons > 64 + progress * 64 / needle_len;
}

const char *text_find(struct text haystack, struct text needle)
{
    if (needle.len == 0)
        return haystack.at ? haystack.at : "";
    const char *at = haystack.at, *end = haystack.at + haystack.len;
    for (size_t tries = 0; haystack.len && (size_t)(end - at) >= needle.len; tries++, at++) {
        if (outgrows(tries, (size_t)(at - haystack.at), needle.len))
            return find_rolling((struct text){at, (size_t)(end - at)}, needle, false);
        at = memchr(at, needle.at[0], (size_t)(end - at) - needle.len + 1);
        if (!at || memcmp(at, needle.at, needle.len) == 0)
            return at;
    }
    return NULL;
}

const char *text_find_last(struct text haystack, struct text needle)
{
    if (needle.len > haystack.len || !haystack.at)
        return NULL;
    for (size_t tries = 0, at = haystack.len - needle.len;; tries++, at--) {
        if (outgrows(tries, tries, needle.len))
            return find_rolling((struct text){haystack.at, at + needle.len}, needle, true);
        if (memcmp(haystack.at + at, needle.at, needle.len) == 0)
            return haystack.at + at;
        if (at == 0)
            return NULL;
    }
}

/* Every code point's front, and the end, matches an empty string. */
static void replace_empty(struct buf *out, struct text text, struct text new, int64_t count)
{
    size_t at = 0;
    while (count != 0) {
        buf_append(out, new.at, new.len);
        count--;
        size_t len = text_offset((struct text){text.at + at, text.len - at}, 1);
        if (len == 0 || buf_status(out) != PH_OK)
            return;
        buf_append(out, text.at + at, len);
        at += len;
    }
    buf_append(out, text.at + at, text.len - at);
}

struct tv text_replace(struct render *r, struct text text, struct text old, struct text new, int64_t count)
{
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    render_charge_bytes(r, text.len);
    if (old.len == 0) {
        replace_empty(&out, text, new, count);
        return tv_buf(r, &out);
    }
    const char *found = count != 0 ? text_find(text, old) : NULL;
    if (!found)
        return tv_text(text);
    while (found && count != 0 && buf_status(&out) == PH_OK) {
        size_t before = (size_t)(found - text.at);
        buf_append(&out, text.at, before);
        buf_append(&out, new.at, new.len);
        text.at += before + old.len;
        text.len -= before + old.len;
        found = text_find(text, old);
        count--;
    }
    buf_append(&out, text.at, text.len);
    return tv_buf(r, &out);
}

/* ---- splitting ---- */

static bool is_line_end(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool text_next_line(struct text *rest, struct text *line, size_t *ending)
{
    size_t end = 0, len = 0;
    if (rest->len == 0)
        return false;
    while (end < rest->len && !is_line_end(decode(*rest, end, &len)))
        end += len;
    *line = (struct text){rest->at, end};
    *ending = end < rest->len ? len : 0;
    if (*ending && rest->at[end] == '\r' && end + 1 < rest->len && rest->at[end + 1] == '\n')
        *ending = 2;
    rest->at += end + *ending;
    rest->len -= end + *ending;
    return true;
}

static void push_span(struct render *r, struct tv list, const char *begin, const char *end)
{
    tv_push(r, list, tv_text((struct text){begin, (size_t)(end - begin)}));
}

static void split_blanks(struct render *r, struct tv list, struct text text, int64_t max)
{
    for (;;) {
        text = text_strip(text, (struct text){0}, true, false);
        if (text.len == 0 || r->status != PH_OK)
            return;
        size_t end = 0, len = 0;
        while (max != 0 && end < text.len && !code_point_is_space(decode(text, end, &len)))
            end += len;
        if (max == 0)
            end = text.len;
        push_span(r, list, text.at, text.at + end);
        text.at += end;
        text.len -= end;
        max--;
    }
}

static void rsplit_blanks(struct render *r, struct tv list, struct text text, int64_t max)
{
    for (;;) {
        text = text_strip(text, (struct text){0}, false, true);
        if (text.len == 0 || r->status != PH_OK)
            return;
        size_t begin = max == 0 ? 0 : text.len;
        while (begin > 0) {
            size_t at = begin - 1, len;
            while (at > 0 && is_continuation(text.at[at]))
                at--;
            if (code_point_is_space(decode(text, at, &len)))
                break;
            begin = at;
        }
        push_span(r, list, text.at + begin, text.at + text.len);
        text.len = begin;
        max--;
    }
}

static void split_at(struct render *r, struct tv list, struct text text, struct text by, int64_t max)
{
    const char *found;
    while (max != 0 && r->status == PH_OK && (found = text_find(text, by))) {
        push_span(r, list, text.at, found);
        text.len -= (size_t)(found - text.at) + by.len;
        text.at = found + by.len;
        max--;
    }
    push_span(r, list, text.at, text.at + text.len);
}

static void rsplit_at(struct render *r, struct tv list, struct text text, struct text by, int64_t max)
{
    const char *found;
    while (max != 0 && r->status == PH_OK && (found = text_find_last(text, by))) {
        render_charge_bytes(r, text.len / 16);
        push_span(r, list, found + by.len, text.at + text.len);
        text.len = (size_t)(found - text.at);
        max--;
    }
    push_span(r, list, text.at, text.at + text.len);
}

static void reverse(struct tv list)
{
    struct tv_list *l = list.u.list;
    for (size_t i = 0; i < l->len / 2; i++) {
        struct tv held = l->items[i];
        l->items[i] = l->items[l->len - 1 - i];
        l->items[l->len - 1 - i] = held;
    }
}

struct tv text_split(struct render *r, struct text text, struct tv separator, int64_t max, bool from_right)
{
    struct tv list = tv_list_new(r, 4);
    if (list.kind != TV_LIST)
        return list;
    bool by_blanks = separator.kind == TV_NONE || separator.kind == TV_UNDEFINED;
    if (!by_blanks && separator.kind != TV_STRING)
        return render_fail(r, PH_ERR_ARG, "a separator must be a string, not '%s'", tv_type_name(separator));
    if (!by_blanks && separator.u.text.len == 0)
        return render_fail(r, PH_ERR_ARG, "a separator must not be empty");
    render_charge_bytes(r, text.len);
    if (by_blanks && from_right)
        rsplit_blanks(r, list, text, max);
    else if (by_blanks)
        split_blanks(r, list, text, max);
    else if (from_right)
        rsplit_at(r, list, text, separator.u.text, max);
    else
        split_at(r, list, text, separator.u.text, max);
    render_charge(r, list.u.list->len);
    if (from_right)
        reverse(list);
    return list;
}

/* ---- case ---- */

static bool is_cased(uint32_t c)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
           category == UTF8PROC_CATEGORY_LT;
}

static void put(struct buf *out, uint32_t c)
{
    char bytes[UTF8_LEN_MAX];
    buf_append(out, bytes, utf8_encode(c, bytes));
}

enum letter_case { LOWER, UPPER, TITLE, SWAP };

static void put_cased(struct buf *out, uint32_t c, enum letter_case want)
{
    utf8proc_int32_t point = (utf8proc_int32_t)c;
    if (want == SWAP)
        want = utf8proc_category(point) == UTF8PROC_CATEGORY_LU ? LOWER : UPPER;
    if (c == 0xDF && want != LOWER) { /* sharp s has no capital of its own */
        buf_puts(out, want == UPPER ? "SS" : "Ss");
        return;
    }
    if (c == 0x130 && want == LOWER) { /* dotted I keeps its dot */
        buf_puts(out, "i\xCC\x87");
        return;
    }
    put(out, (uint32_t)(want == LOWER   ? utf8proc_tolower(point)
                        : want == UPPER ? utf8proc_toupper(point)
                                        : utf8proc_totitle(point)));
}

/* A capital sigma becomes the final small one at the end of a word. */
static bool is_final_sigma(struct text text, size_t at, uint32_t before)
{
    size_t len, next = at + 2;
    return is_cased(before) && !(next < text.len && is_cased(decode(text, next, &len)));
}

static bool begins_word(uint32_t before)
{
    return code_point_is_space(before) || (before < 128 && before && strchr("-({[<", (int)before));
}

/* lower, upper, swapcase, capitalize (first letter), title (each run of letters, as str.title), words (each
 * word, as the filter title). */
struct tv text_map(struct render *r, struct text text, const char *how)
{
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    render_charge_bytes(r, text.len * 8);
    uint32_t before = ' ';
    for (size_t i = 0, len; i < text.len; i += len) {
        uint32_t c = decode(text, i, &len);
        enum letter_case want = LOWER;
        if (how[0] == 'u')
            want = UPPER;
        else if (how[0] == 's')
            want = SWAP;
        else if (how[0] == 'c' && i == 0)
            want = TITLE;
        else if (how[0] == 't' && !is_cased(before))
            want = TITLE;
        else if (how[0] == 'w' && begins_word(before))
            want = UPPER;
        if (c == 0x3A3 && want == LOWER && is_final_sigma(text, i, before))
            put(&out, 0x3C2);
        else
            put_cased(&out, c, want);
        before = c;
    }
    return tv_buf(r, &out);
}
