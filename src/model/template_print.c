/* Values as text: str() and repr() as Python prints them, and JSON as Python's json.dumps writes it. */
#include "model/template_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

#define FLOAT_DIGITS_MAX 17 /* enough to tell any two doubles apart */

/* ---- floats ---- */

/* The fewest decimal digits that read back as the same number, and its decimal exponent. */
static size_t shortest_digits(double value, char digits[FLOAT_DIGITS_MAX + 1], int *exponent)
{
    char text[40] = {0};
    for (int precision = 14; precision < FLOAT_DIGITS_MAX; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    const char *e = strchr(text, 'e');
    *exponent = (int)strtol(e + 1, NULL, 10);
    size_t len = 0;
    for (const char *c = text; c < e; c++)
        if (*c >= '0' && *c <= '9')
            digits[len++] = *c;
    while (len > 1 && digits[len - 1] == '0')
        len--;
    return len;
}

void print_float(struct buf *out, double value)
{
    if (isnan(value) || isinf(value)) {
        buf_puts(out, isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    char digits[FLOAT_DIGITS_MAX + 1];
    int exponent;
    if (signbit(value))
        buf_putc(out, '-');
    size_t len = shortest_digits(fabs(value), digits, &exponent);
    if (exponent < -4 || exponent >= 16) {
        buf_append(out, digits, 1);
        if (len > 1)
            buf_putc(out, '.');
        buf_append(out, digits + 1, len - 1);
        buf_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    for (int i = exponent < 0 ? exponent : 0; i <= exponent || i < (int)len || i < exponent + 2; i++) {
        if (i == exponent + 1)
            buf_putc(out, '.');
        buf_putc(out, i >= 0 && i < (int)len ? digits[i] : '0');
    }
}

/* ---- str and repr ---- */

static bool is_printable(uint32_t c)
{
    if (c < 0x7F)
        return c >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

static void repr_character(struct buf *out, const char *bytes, size_t len, uint32_t c, char quote)
{
    static const char escaped[] = "\n\r\t\\", letters[] = "nrt\\";
    const char *found = c && c < 128 ? strchr(escaped, (int)c) : NULL;
    if (found)
        buf_printf(out, "\\%c", letters[found - escaped]);
    else if (c == (uint32_t)quote)
        buf_printf(out, "\\%c", quote);
    else if (is_printable(c))
        buf_append(out, bytes, len);
    else if (c < 0x100)
        buf_printf(out, "\\x%02" PRIx32, c);
    else
        buf_printf(out, c < 0x10000 ? "\\u%04" PRIx32 : "\\U%08" PRIx32, c);
}

static void repr_text(struct buf *out, struct text text)
{
    bool has_single = text.len && memchr(text.at, '\'', text.len);
    bool has_double = text.len && memchr(text.at, '"', text.len);
    char quote = has_single && !has_double ? '"' : '\'';
    buf_putc(out, quote);
    for (size_t i = 0; i < text.len;) {
        uint32_t c = UTF8_REPLACEMENT;
        size_t len = utf8_decode(text.at + i, text.len - i, &c);
        len = len ? len : 1;
        repr_character(out, text.at + i, len, c, quote);
        i += len;
    }
    buf_putc(out, quote);
}

static void repr_list(struct render *r, struct buf *out, const struct tv_list *list)
{
    buf_putc(out, list->is_tuple ? '(' : '[');
    for (size_t i = 0; i < list->len && r->status == PH_OK; i++) {
        if (i)
            buf_puts(out, ", ");
        print_repr(r, out, list->items[i]);
    }
    if (list->is_tuple && list->len == 1)
        buf_putc(out, ',');
    buf_putc(out, list->is_tuple ? ')' : ']');
}

static void repr_dict(struct render *r, struct buf *out, const struct tv_dict *dict)
{
    buf_putc(out, '{');
    for (size_t i = 0; i < dict->len && r->status == PH_OK; i++) {
        if (i)
            buf_puts(out, ", ");
        print_repr(r, out, dict->entries[i].key);
        buf_puts(out, ": ");
        print_repr(r, out, dict->entries[i].value);
    }
    buf_putc(out, '}');
}

static void print_scalar(struct buf *out, struct tv v)
{
    switch (v.kind) {
    case TV_NONE:
        buf_puts(out, "None");
        break;
    case TV_BOOL:
        buf_puts(out, v.u.boolean ? "True" : "False");
        break;
    case TV_INT:
        buf_printf(out, "%" PRId64, v.u.integer);
        break;
    case TV_FLOAT:
        print_float(out, v.u.number);
        break;
    case TV_BIGINT:
    case TV_STRING:
        buf_append(out, v.u.text.at, v.u.text.len);
        break;
    case TV_UNDEFINED:
        break;
    default:
        buf_printf(out, "<%s>", tv_type_name(v));
    }
}

void print_repr(struct render *r, struct buf *out, struct tv v)
{
    render_charge(r, 1);
    if (!render_enter(r)) {
        render_leave(r);
        return;
    }
    if (v.kind == TV_STRING)
        repr_text(out, v.u.text);
    else if (v.kind == TV_UNDEFINED)
        buf_puts(out, "Undefined");
    else if (v.kind == TV_LIST)
        repr_list(r, out, v.u.list);
    else if (v.kind == TV_DICT)
        repr_dict(r, out, v.u.dict);
    else
        print_scalar(out, v);
    render_leave(r);
}

void print_str(struct render *r, struct buf *out, struct tv v)
{
    if (v.kind == TV_LIST || v.kind == TV_DICT)
        print_repr(r, out, v);
    else
        print_scalar(out, v);
}

struct text tv_str(struct render *r, struct tv v)
{
    if (v.kind == TV_STRING || v.kind == TV_BIGINT)
        return v.u.text;
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    print_str(r, &out, v);
    return tv_buf(r, &out).u.text;
}

/* ---- JSON ---- */

static void json_unit(struct buf *out, uint32_t unit)
{
    buf_printf(out, "\\u%04" PRIx32, unit);
}

static void json_character(struct buf *out, const char *bytes, size_t len, uint32_t c, bool ascii)
{
    static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *found = c && c < 128 ? strchr(escaped, (int)c) : NULL;
    if (found) {
        buf_printf(out, "\\%c", letters[found - escaped]);
    } else if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000)) {
        json_unit(out, c);
    } else if (ascii && c >= 0x10000) {
        json_unit(out, 0xD800 + ((c - 0x10000) >> 10));
        json_unit(out, 0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
        buf_append(out, bytes, len);
    }
}

static void json_text_value(struct buf *out, struct text text, bool ascii)
{
    buf_putc(out, '"');
    for (size_t i = 0; i < text.len;) {
        uint32_t c = UTF8_REPLACEMENT;
        size_t len = utf8_decode(text.at + i, text.len - i, &c);
        len = len ? len : 1;
        json_character(out, text.at + i, len, c, ascii);
        i += len;
    }
    buf_putc(out, '"');
}

static void json_scalar(struct render *r, struct buf *out, struct tv v, bool ascii)
{
    switch (v.kind) {
    case TV_NONE:
    case TV_UNDEFINED:
        buf_puts(out, "null");
        break;
    case TV_BOOL:
        buf_puts(out, v.u.boolean ? "true" : "false");
        break;
    case TV_STRING:
        json_text_value(out, v.u.text, ascii);
        break;
    case TV_FLOAT:
        if (isnan(v.u.number))
            buf_puts(out, "NaN");
        else if (isinf(v.u.number))
            buf_puts(out, v.u.number < 0 ? "-Infinity" : "Infinity");
        else
            print_float(out, v.u.number);
        break;
    case TV_INT:
    case TV_BIGINT:
        print_scalar(out, v);
        break;
    default:
        render_fail(r, PH_ERR_ARG, "'%s' cannot be written as JSON", tv_type_name(v));
    }
}

struct json_printer {
    struct render *r;
    struct buf *out;
    const struct json_style *style;
    size_t level;
};

static void json_value(struct json_printer *p, struct tv v);

static void json_newline(const struct json_printer *p)
{
    if (!p->style->indent.at)
        return;
    buf_putc(p->out, '\n');
    for (size_t i = 0; i < p->level && buf_status(p->out) == PH_OK; i++)
        buf_append(p->out, p->style->indent.at, p->style->indent.len);
}

static void json_separate(const struct json_printer *p, size_t index)
{
    if (index)
        buf_append(p->out, p->style->item_separator.at, p->style->item_separator.len);
    json_newline(p);
}

static void json_key(struct json_printer *p, struct tv key)
{
    if (key.kind == TV_STRING) {
        json_scalar(p->r, p->out, key, p->style->ascii);
    } else {
        buf_putc(p->out, '"');
        json_scalar(p->r, p->out, key, p->style->ascii);
        buf_putc(p->out, '"');
    }
    buf_append(p->out, p->style->key_separator.at, p->style->key_separator.len);
}

static void json_members(struct json_printer *p, const struct tv_dict *dict)
{
    size_t *order = NULL;
    if (p->style->sort && dict->len > 1) {
        struct tv *keys = render_alloc(p->r, dict->len * sizeof *keys);
        for (size_t i = 0; keys && i < dict->len; i++)
            keys[i] = dict->entries[i].key;
        order = keys ? tv_sort_order(p->r, keys, dict->len, false) : NULL;
        if (!order)
            return;
    }
    for (size_t i = 0; i < dict->len && p->r->status == PH_OK; i++) {
        const struct tv_entry *entry = &dict->entries[order ? order[i] : i];
        json_separate(p, i);
        json_key(p, entry->key);
        json_value(p, entry->value);
    }
}

static void json_container(struct json_printer *p, struct tv v)
{
    bool is_dict = v.kind == TV_DICT;
    size_t len = is_dict ? v.u.dict->len : v.u.list->len;
    buf_putc(p->out, is_dict ? '{' : '[');
    p->level++;
    if (is_dict)
        json_members(p, v.u.dict);
    for (size_t i = 0; !is_dict && i < len && p->r->status == PH_OK; i++) {
        json_separate(p, i);
        json_value(p, v.u.list->items[i]);
    }
    p->level--;
    if (len)
        json_newline(p);
    buf_putc(p->out, is_dict ? '}' : ']');
}

static void json_value(struct json_printer *p, struct tv v)
{
    render_charge(p->r, 1);
    if (v.kind != TV_LIST && v.kind != TV_DICT) {
        json_scalar(p->r, p->out, v, p->style->ascii);
        return;
    }
    if (render_enter(p->r))
        json_container(p, v);
    render_leave(p->r);
}

void print_json(struct render *r, struct buf *out, struct tv v, const struct json_style *style)
{
    struct json_printer p = {.r = r, .out = out, .style = style};
    json_value(&p, v);
}
