/* Python's two ways of formatting: "%5.2f" % x and "{:>5.2f}".format(x). Both come down to one specification
 * of fill, alignment, sign, width, precision and type, applied to one value. */
#include "model/template_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH_MAX 4096
#define PRECISION_MAX 512

struct spec {
    struct text fill;
    char align;    /* < > ^ =, 0: by type */
    char sign;     /* + - blank, 0 */
    char grouping; /* , or _, 0: none */
    bool alternate;
    int width, precision; /* -1: none */
    char type;            /* 0: by value */
};

static const struct spec plain_spec = {.fill = {" ", 1}, .width = -1, .precision = -1};

/* ---- numbers as digits ---- */

static void float_digits(char *out, size_t size, const struct spec *s, double magnitude)
{
    int precision = s->precision < 0 ? 6 : s->precision;
    switch (s->type) {
    case 'f':
    case 'F':
        snprintf(out, size, s->alternate ? "%#.*f" : "%.*f", precision, magnitude);
        break;
    case 'e':
        snprintf(out, size, s->alternate ? "%#.*e" : "%.*e", precision, magnitude);
        break;
    case 'E':
        snprintf(out, size, s->alternate ? "%#.*E" : "%.*E", precision, magnitude);
        break;
    case 'G':
        snprintf(out, size, s->alternate ? "%#.*G" : "%.*G", precision, magnitude);
        break;
    case '%':
        snprintf(out, size, "%.*f%%", precision, magnitude * 100);
        break;
    default:
        snprintf(out, size, s->alternate ? "%#.*g" : "%.*g", precision, magnitude);
    }
}

static void integer_digits(char *out, size_t size, const struct spec *s, uint64_t magnitude)
{
    static const char digits[] = "0123456789abcdef", capitals[] = "0123456789ABCDEF";
    unsigned base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    const char *letters = s->type == 'X' ? capitals : digits;
    char reversed[72];
    size_t len = 0, at = 0;
    do {
        reversed[len++] = letters[magnitude % base];
        magnitude /= base;
    } while (magnitude);
    if (s->alternate && base != 10) {
        out[at++] = '0';
        out[at++] = s->type;
    }
    while (len > 0 && at + 1 < size)
        out[at++] = reversed[--len];
    out[at] = '\0';
}

/* ---- fields ---- */

static void put_fill(struct buf *out, const struct spec *s, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buf_append(out, s->fill.at, s->fill.len);
}

static void put_padded(struct buf *out, const struct spec *s, struct text prefix, struct text body,
                       char align)
{
    size_t have = prefix.len + text_count(body);
    size_t pad = s->width > 0 && (size_t)s->width > have ? (size_t)s->width - have : 0;
    align = s->align ? s->align : align;
    size_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    put_fill(out, s, left);
    buf_append(out, prefix.at, prefix.len);
    if (align == '=')
        put_fill(out, s, pad);
    buf_append(out, body.at, body.len);
    if (align == '<' || align == '^')
        put_fill(out, s, pad - left);
}

/* Thousands separators between the digits before the point. */
static size_t group_digits(const char *digits, char separator, char *out, size_t size)
{
    size_t whole = strspn(digits, "0123456789"), len = strlen(digits), at = 0;
    for (size_t i = 0; i < len && at + 2 < size; i++) {
        if (i > 0 && i < whole && (whole - i) % 3 == 0)
            out[at++] = separator;
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return at;
}

static void put_number(struct buf *out, const struct spec *s, bool negative, const char *digits)
{
    char grouped[2 * (PRECISION_MAX + 400)];
    struct text body = text_of(digits);
    if (s->grouping)
        body = (struct text){grouped, group_digits(digits, s->grouping, grouped, sizeof grouped)};
    const char *sign = negative ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "";
    put_padded(out, s, text_of(sign), body, '>');
}

static struct tv put_float(struct render *r, struct buf *out, const struct spec *s, double value)
{
    char digits[PRECISION_MAX + 400];
    struct spec adjusted = *s;
    if (!s->type && s->precision < 0) {
        struct buf repr;
        buf_init(&repr, sizeof digits - 1);
        print_float(&repr, fabs(value));
        snprintf(digits, sizeof digits, "%s", repr.data ? repr.data : "");
        buf_release(&repr);
    } else if (isnan(value) || isinf(value)) {
        snprintf(digits, sizeof digits, "%s", isnan(value) ? "nan" : "inf");
    } else {
        float_digits(digits, sizeof digits, &adjusted, fabs(value));
    }
    if (r->status == PH_OK)
        put_number(out, s, signbit(value) && !isnan(value), digits);
    return tv_undefined;
}

static struct tv put_string(struct render *r, struct buf *out, const struct spec *s, struct text text)
{
    if (s->precision >= 0)
        text.len = text_offset(text, (size_t)s->precision);
    if (r->status == PH_OK)
        put_padded(out, s, (struct text){"", 0}, text, '<');
    return tv_undefined;
}

static struct tv put_integer(struct render *r, struct buf *out, const struct spec *s, int64_t value)
{
    char digits[80];
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    integer_digits(digits, sizeof digits, s, magnitude);
    if (r->status == PH_OK)
        put_number(out, s, value < 0, digits);
    return tv_undefined;
}

static struct tv wrong_type(struct render *r, char type, struct tv v)
{
    return render_fail(r, PH_ERR_ARG, "format '%c' does not take '%s'", type, tv_type_name(v));
}

static struct tv put_value(struct render *r, struct buf *out, const struct spec *s, struct tv v)
{
    bool wants_float = s->type && strchr("eEfFgG%", s->type);
    bool wants_integer = s->type && strchr("dboxXni", s->type);
    if (s->type == 's' || (!s->type && !tv_is_number(v)) || (!s->type && v.kind == TV_BOOL))
        return put_string(r, out, s, tv_str(r, v));
    if (!tv_is_number(v))
        return wrong_type(r, s->type, v);
    if (v.kind == TV_BIGINT && !wants_float) {
        put_padded(out, s, (struct text){"", 0}, v.u.text, '>');
        return tv_undefined;
    }
    if (wants_float || v.kind == TV_FLOAT) {
        if (wants_integer)
            return wrong_type(r, s->type, v);
        return put_float(r, out, s, tv_number(v));
    }
    if (!wants_integer && s->type)
        return wrong_type(r, s->type, v);
    return put_integer(r, out, s, tv_integer(v));
}

/* ---- reading specifications ---- */

struct cursor {
    struct text rest;
};

static char peek(const struct cursor *c)
{
    return c->rest.len ? *c->rest.at : '\0';
}

static char next(struct cursor *c)
{
    char byte = peek(c);
    if (c->rest.len) {
        c->rest.at++;
        c->rest.len--;
    }
    return byte;
}

static bool accept(struct cursor *c, const char *any, char *out)
{
    char byte = peek(c);
    if (!byte || !strchr(any, byte))
        return false;
    *out = next(c);
    return true;
}

static int read_number(struct render *r, struct cursor *c, int most)
{
    int value = -1;
    while (peek(c) >= '0' && peek(c) <= '9') {
        value = (value < 0 ? 0 : value * 10) + (next(c) - '0');
        if (value > most) {
            render_fail(r, PH_ERR_LIMIT, "a width or precision is above %d", most);
            return 0;
        }
    }
    return value;
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static struct spec read_spec(struct render *r, struct text text)
{
    struct spec s = plain_spec;
    struct cursor c = {text};
    char flag = '\0';
    size_t fill = text_offset(text, 1);
    if (fill < text.len && strchr("<>^=", text.at[fill])) {
        s.fill = (struct text){text.at, fill};
        s.align = text.at[fill];
        c.rest = (struct text){text.at + fill + 1, text.len - fill - 1};
    } else {
        accept(&c, "<>^=", &s.align);
    }
    accept(&c, "+- ", &s.sign);
    s.alternate = accept(&c, "#", &flag);
    if (accept(&c, "0", &flag) && !s.align) {
        s.fill = (struct text){"0", 1};
        s.align = '=';
    }
    s.width = read_number(r, &c, WIDTH_MAX);
    accept(&c, ",_", &s.grouping);
    if (accept(&c, ".", &flag))
        s.precision = read_number(r, &c, PRECISION_MAX);
    s.type = next(&c);
    if (c.rest.len)
        render_fail(r, PH_ERR_ARG, "the format '%.*s' is not understood", (int)(text.len % 64), text.at);
    return s;
}

/* ---- "%..." % args ---- */

struct percent {
    struct tv args; /* a tuple of them, a dict, or the one argument */
    size_t used;
};

static struct tv next_argument(struct render *r, struct percent *p)
{
    bool is_tuple = p->args.kind == TV_LIST && p->args.u.list->is_tuple;
    size_t have = is_tuple ? p->args.u.list->len : 1;
    if (p->used >= have)
        return render_fail(r, PH_ERR_ARG, "not enough arguments for the format string");
    p->used++;
    return is_tuple ? p->args.u.list->items[p->used - 1] : p->args;
}

static struct tv keyed_argument(struct render *r, struct cursor *c, struct tv args)
{
    const char *close = c->rest.len ? memchr(c->rest.at, ')', c->rest.len) : NULL;
    if (!close || args.kind != TV_DICT)
        return render_fail(r, PH_ERR_ARG, "a format with %%(name) needs a dict");
    struct text name = {c->rest.at, (size_t)(close - c->rest.at)};
    c->rest.len -= name.len + 1;
    c->rest.at = close + 1;
    struct tv *found = tv_dict_find(r, args.u.dict, tv_text(name));
    return found ? *found : render_fail(r, PH_ERR_ARG, "the format names a key that is not there");
}

static void percent_flags(struct cursor *c, struct spec *s)
{
    char flag;
    while (accept(c, "-+ #0", &flag)) {
        if (flag == '-')
            s->align = '<';
        else if (flag == '#')
            s->alternate = true;
        else if (flag != '0')
            s->sign = flag;
        else if (s->align != '<')
            s->align = '=', s->fill = (struct text){"0", 1};
    }
    if (s->align == '<')
        s->fill = (struct text){" ", 1};
}

static void put_percent(struct render *r, struct buf *out, struct cursor *c, struct percent *p)
{
    struct spec s = plain_spec;
    char flag = '\0';
    bool keyed = accept(c, "(", &flag);
    struct tv v = keyed ? keyed_argument(r, c, p->args) : tv_undefined;
    percent_flags(c, &s);
    s.width = read_number(r, c, WIDTH_MAX);
    if (accept(c, ".", &flag)) {
        s.precision = read_number(r, c, PRECISION_MAX);
        s.precision = s.precision < 0 ? 0 : s.precision;
    }
    s.type = next(c);
    if (s.type == '%') {
        buf_putc(out, '%');
        return;
    }
    if (!s.type || !strchr("sradiuxXoeEfFgGc", s.type)) {
        render_fail(r, PH_ERR_ARG, "the format string has an unknown conversion");
        return;
    }
    v = keyed ? v : next_argument(r, p);
    if (strchr("sra", s.type)) {
        if (s.type != 's') {
            struct buf repr;
            buf_init(&repr, TEMPLATE_OUTPUT_BYTES_MAX);
            print_repr(r, &repr, v);
            v = tv_buf(r, &repr);
        }
        s.align = s.align == '<' ? '<' : '>';
        s.fill = (struct text){" ", 1};
        put_string(r, out, &s, tv_str(r, v));
        return;
    }
    if (strchr("diu", s.type)) {
        s.type = 'd';
        if (v.kind == TV_FLOAT && fabs(v.u.number) < 9e18)
            v = tv_int((int64_t)v.u.number);
    }
    s.precision = strchr("eEfFgG", s.type) ? s.precision : -1;
    put_value(r, out, &s, v);
}

struct tv format_percent(struct render *r, struct text format, struct tv args)
{
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    struct cursor c = {format};
    struct percent p = {.args = args};
    while (c.rest.len && r->status == PH_OK && buf_status(&out) == PH_OK) {
        char byte = next(&c);
        if (byte == '%')
            put_percent(r, &out, &c, &p);
        else
            buf_putc(&out, byte);
    }
    bool is_tuple = args.kind == TV_LIST && args.u.list->is_tuple;
    bool single = args.kind != TV_DICT && args.kind != TV_LIST; /* a list counts as a mapping */
    bool unused = is_tuple ? p.used < args.u.list->len : single && p.used == 0;
    if (unused && r->status == PH_OK)
        render_fail(r, PH_ERR_ARG, "not all arguments were converted by the format string");
    return tv_buf(r, &out);
}

/* ---- "{...}".format(...) ---- */

struct braces {
    const struct tv_args *args;
    size_t used;
};

static struct tv base_field(struct render *r, struct text name, struct braces *b)
{
    size_t index = 0;
    bool is_index = name.len > 0 && name.len < 6;
    for (size_t i = 0; i < name.len; i++) {
        is_index = is_index && name.at[i] >= '0' && name.at[i] <= '9';
        index = is_index ? index * 10 + (size_t)(name.at[i] - '0') : 0;
    }
    if (name.len == 0)
        index = b->used++;
    if (name.len == 0 || is_index)
        return index < b->args->len ? b->args->items[index]
                                    : render_fail(r, PH_ERR_ARG, "the format string needs more arguments");
    for (size_t i = 0; i < b->args->named_len; i++)
        if (text_equal(b->args->named[i].name, name))
            return b->args->named[i].value;
    return render_fail(r, PH_ERR_ARG, "the format string names '%.*s', which was not given",
                       (int)(name.len < 40 ? name.len : 40), name.at);
}

static size_t span_until(struct text text, const char *stops)
{
    size_t len = 0;
    while (len < text.len && !strchr(stops, text.at[len]))
        len++;
    return len;
}

/* name, then .attribute and [index] */
static struct tv field_value(struct render *r, struct text path, struct braces *b)
{
    size_t len = span_until(path, ".[");
    struct tv v = base_field(r, (struct text){path.at, len}, b);
    while (len < path.len && r->status == PH_OK) {
        bool bracket = path.at[len] == '[';
        path = (struct text){path.at + len + 1, path.len - len - 1};
        len = span_until(path, bracket ? "]" : ".[");
        v = tv_path(r, v, tv_text((struct text){path.at, len}));
        len += bracket && len < path.len;
    }
    return v;
}

static void put_braces(struct render *r, struct buf *out, struct text field, struct braces *b)
{
    size_t len = span_until(field, "!:");
    struct tv v = field_value(r, (struct text){field.at, len}, b);
    char conversion = '\0';
    if (len + 1 < field.len && field.at[len] == '!') {
        conversion = field.at[len + 1];
        len += 2;
    }
    struct spec s = plain_spec;
    if (len < field.len && field.at[len] == ':')
        s = read_spec(r, (struct text){field.at + len + 1, field.len - len - 1});
    else if (len < field.len)
        render_fail(r, PH_ERR_ARG, "a field of the format string is not understood");
    if (conversion == 'r') {
        struct buf repr;
        buf_init(&repr, TEMPLATE_OUTPUT_BYTES_MAX);
        print_repr(r, &repr, v);
        v = tv_buf(r, &repr);
    } else if (conversion) {
        v = tv_text(tv_str(r, v));
    }
    put_value(r, out, &s, v);
}

struct tv format_braces(struct render *r, struct text format, const struct tv_args *args)
{
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    struct cursor c = {format};
    struct braces b = {.args = args};
    while (c.rest.len && r->status == PH_OK && buf_status(&out) == PH_OK) {
        char byte = next(&c);
        if ((byte == '{' || byte == '}') && peek(&c) == byte) {
            buf_putc(&out, next(&c));
        } else if (byte == '{') {
            size_t len = span_until(c.rest, "}");
            if (len == c.rest.len) {
                render_fail(r, PH_ERR_ARG, "the format string has '{' without '}'");
                break;
            }
            put_braces(r, &out, (struct text){c.rest.at, len}, &b);
            c.rest = (struct text){c.rest.at + len + 1, c.rest.len - len - 1};
        } else if (byte == '}') {
            render_fail(r, PH_ERR_ARG, "the format string has '}' without '{'");
        } else {
            buf_putc(&out, byte);
        }
    }
    return tv_buf(r, &out);
}
