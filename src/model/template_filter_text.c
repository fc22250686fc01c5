/* Filters that make text or numbers. Whatever comes in is first made a string, as Jinja does. */
#include "model/template_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tv f_case(struct render *r, struct tv self, const char *how)
{
    return text_map(r, tv_str(r, self), how);
}

static struct tv f_upper(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    return f_case(r, self, "upper");
}

static struct tv f_lower(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    return f_case(r, self, "lower");
}

static struct tv f_title(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    return f_case(r, self, "words");
}

static struct tv f_capitalize(struct render *r, struct tv self, const struct tv *slots,
                              const struct tv_args *args)
{
    (void)slots, (void)args;
    return f_case(r, self, "capitalize");
}

static struct tv f_string(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)slots, (void)args;
    return tv_text(tv_str(r, self));
}

static struct tv f_trim(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots;
    return call_builtin(r, string_method_find(text_of("strip")), tv_text(tv_str(r, self)), args);
}

static struct tv f_replace(struct render *r, struct tv self, const struct tv *slots,
                           const struct tv_args *args)
{
    (void)args;
    int64_t count = tv_is_integral(slots[2]) ? tv_integer(slots[2]) : -1;
    return text_replace(r, tv_str(r, self), tv_str(r, slots[0]), tv_str(r, slots[1]), count);
}

static struct tv f_escape(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)slots, (void)args;
    static const char special[] = "&<>'\"";
    static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct text text = tv_str(r, self);
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    for (size_t i = 0; i < text.len; i++) {
        const char *found = text.at[i] ? strchr(special, text.at[i]) : NULL;
        if (found)
            buf_puts(&out, entities[found - special]);
        else
            buf_putc(&out, text.at[i]);
    }
    render_charge_bytes(r, text.len);
    return tv_buf(r, &out);
}

/* A width may be given as the text to indent with. */
static struct tv f_indent(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)args;
    struct text rest = tv_str(r, self), line = {"", 0};
    struct tv unit =
        slots[0].kind == TV_STRING
            ? slots[0]
            : tv_binary(r, TOKEN_MUL, tv_literal(" "), slots[0].kind == TV_UNDEFINED ? tv_int(4) : slots[0]);
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    size_t ending = 1;
    if (r->status != PH_OK)
        return tv_undefined;
    render_charge_bytes(r, rest.len);
    for (bool first = true; ending && buf_status(&out) == PH_OK; first = false) {
        if (!text_next_line(&rest, &line, &ending))
            line = (struct text){"", 0}, ending = 0;
        if (!first)
            buf_putc(&out, '\n');
        if (first ? tv_truth(slots[1]) : line.len || tv_truth(slots[2]))
            buf_append(&out, unit.u.text.at, unit.u.text.len);
        buf_append(&out, line.at, line.len);
    }
    return tv_buf(r, &out);
}

static struct tv f_center(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    struct tv width = slots[0].kind == TV_UNDEFINED ? tv_int(80) : slots[0];
    const struct tv_args own = {.items = &width, .len = 1};
    (void)args;
    return call_builtin(r, string_method_find(text_of("center")), tv_text(tv_str(r, self)), &own);
}

static struct tv f_truncate(struct render *r, struct tv self, const struct tv *slots,
                            const struct tv_args *args)
{
    (void)args;
    struct text text = tv_str(r, self), end = slots[2].kind == TV_STRING ? slots[2].u.text : text_of("...");
    int64_t length = tv_is_integral(slots[0]) ? tv_integer(slots[0]) : 255;
    int64_t leeway = tv_is_integral(slots[3]) ? tv_integer(slots[3]) : 5;
    int64_t keep = length - (int64_t)text_count(end);
    if (length < 0 || keep < 0 || leeway < 0 || leeway > INT64_MAX - length)
        return render_fail(r, PH_ERR_ARG, "truncate() needs a length that its ending fits into");
    if ((int64_t)text_count(text) <= length + leeway)
        return tv_text(text);
    text.len = text_offset(text, (size_t)keep);
    if (!tv_truth(slots[1])) {
        size_t at = text.len;
        while (at > 0 && text.at[at - 1] != ' ')
            at--;
        text.len = at > 0 ? at - 1 : text.len;
    }
    return text_concat(r, text, end);
}

static struct tv f_wordcount(struct render *r, struct tv self, const struct tv *slots,
                             const struct tv_args *args)
{
    (void)slots, (void)args;
    struct text text = tv_str(r, self);
    size_t words = 0;
    bool inside = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        bool letter = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                      c == '_' || (unsigned char)c >= 0x80;
        words += letter && !inside;
        inside = letter;
    }
    return tv_size(words);
}

static struct tv f_urlencode(struct render *r, struct tv self, const struct tv *slots,
                             const struct tv_args *args)
{
    (void)slots, (void)args;
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~/";
    struct text text = tv_str(r, self);
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] && strchr(safe, text.at[i]))
            buf_putc(&out, text.at[i]);
        else
            buf_printf(&out, "%%%02X", (unsigned)(unsigned char)text.at[i]);
    }
    return tv_buf(r, &out);
}

static struct tv f_format(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)slots;
    struct tv values = args->named_len ? tv_dict_new(r) : tv_list_new(r, args->len);
    if (r->status != PH_OK)
        return tv_undefined;
    for (size_t i = 0; i < args->named_len; i++)
        tv_dict_set(r, values.u.dict, tv_text(args->named[i].name), args->named[i].value);
    for (size_t i = 0; !args->named_len && i < args->len; i++)
        tv_push(r, values, args->items[i]);
    if (values.kind == TV_LIST)
        values.u.list->is_tuple = true;
    return format_percent(r, tv_str(r, self), values);
}

/* ---- JSON ---- */

static struct text separator(struct render *r, struct tv pair, size_t index, const char *fallback)
{
    if (pair.kind != TV_LIST || index >= pair.u.list->len)
        return text_of(fallback);
    return tv_str(r, pair.u.list->items[index]);
}

static struct tv f_tojson(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)args;
    if (self.kind == TV_UNDEFINED) /* within a list or dict it is null */
        return render_fail(r, PH_ERR_ARG, "'%.*s' is undefined and cannot be written as JSON",
                           (int)(self.u.text.len < 80 ? self.u.text.len : 80),
                           self.u.text.len ? self.u.text.at : "");
    struct json_style style = {.ascii = tv_truth(slots[0]), .sort = tv_truth(slots[3])};
    if (slots[1].kind == TV_STRING)
        style.indent = slots[1].u.text;
    else if (tv_is_integral(slots[1]))
        style.indent = tv_binary(r, TOKEN_MUL, tv_literal(" "), slots[1]).u.text;
    if (tv_is_integral(slots[1]) && !style.indent.at)
        style.indent = text_of("");
    style.item_separator = separator(r, slots[2], 0, style.indent.at ? "," : ", ");
    style.key_separator = separator(r, slots[2], 1, ": ");
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    if (r->status == PH_OK)
        print_json(r, &out, self, &style);
    return tv_buf(r, &out);
}

static struct tv f_from_json(struct render *r, struct tv self, const struct tv *slots,
                             const struct tv_args *args)
{
    (void)slots, (void)args;
    struct text text = tv_str(r, self);
    struct json *json = NULL;
    struct ph_err err = {0};
    render_charge(r, text.len);
    if (json_parse(&r->arena, text.at, text.len, &json, &err) != PH_OK)
        return render_fail(r, PH_ERR_ARG, "from_json: %s", err.message);
    return tv_from_json(r, json);
}

/* ---- numbers ---- */

static struct tv f_abs(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    if (self.kind == TV_FLOAT)
        return tv_float(fabs(self.u.number));
    if (tv_is_integral(self))
        return tv_integer(self) < 0 ? tv_unary(r, TOKEN_SUB, self) : tv_int(tv_integer(self));
    return render_fail(r, PH_ERR_ARG, "abs() needs a number, not '%s'", tv_type_name(self));
}

/* A whole text that strtod takes, blanks around it aside. */
static bool text_to_double(struct text text, double *out)
{
    char digits[128];
    text = text_strip(text, (struct text){0}, true, true);
    if (text.len == 0 || text.len >= sizeof digits || memchr(text.at, 'x', text.len))
        return false;
    memcpy(digits, text.at, text.len);
    digits[text.len] = '\0';
    char *end = NULL;
    *out = strtod(digits, &end);
    return end == digits + text.len;
}

static bool text_to_integer(struct text text, int64_t base, int64_t *out)
{
    char digits[80];
    text = text_strip(text, (struct text){0}, true, true);
    if (text.len == 0 || text.len >= sizeof digits || base < 0 || base > 36 || base == 1)
        return false;
    memcpy(digits, text.at, text.len);
    digits[text.len] = '\0';
    char *end = NULL;
    long long value = strtoll(digits, &end, (int)base);
    *out = value;
    return end == digits + text.len && value != INT64_MAX && value != INT64_MIN;
}

static struct tv f_int(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)r, (void)args;
    struct tv fallback = slots[0].kind == TV_UNDEFINED ? tv_int(0) : slots[0];
    int64_t base = tv_is_integral(slots[1]) ? tv_integer(slots[1]) : 10, value = 0;
    double number = 0;
    if (tv_is_integral(self))
        return tv_int(tv_integer(self));
    if (self.kind == TV_BIGINT)
        return self;
    if (self.kind == TV_STRING && text_to_integer(self.u.text, base, &value))
        return tv_int(value);
    bool is_number =
        self.kind == TV_FLOAT || (self.kind == TV_STRING && text_to_double(self.u.text, &number));
    if (self.kind == TV_FLOAT)
        number = self.u.number;
    return is_number && fabs(number) < 9.2e18 ? tv_int((int64_t)number) : fallback;
}

static struct tv f_float(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)r, (void)args;
    double number = 0;
    if (tv_is_number(self))
        return tv_float(tv_number(self));
    if (self.kind == TV_STRING && text_to_double(self.u.text, &number))
        return tv_float(number);
    return slots[0].kind == TV_UNDEFINED ? tv_float(0) : slots[0];
}

/* Python's round() goes by the exact binary value, which is what printf rounds too. */
static double round_to(double value, int64_t precision)
{
    char digits[400];
    if (precision < 0) {
        double unit = pow(10, (double)-precision);
        return rint(value / unit) * unit;
    }
    snprintf(digits, sizeof digits, "%.*f", precision > 30 ? 30 : (int)precision, value);
    return strtod(digits, NULL);
}

static struct tv f_round(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)args;
    int64_t precision = tv_is_integral(slots[0]) ? tv_integer(slots[0]) : 0;
    if (!tv_is_number(self))
        return render_fail(r, PH_ERR_ARG, "round() needs a number, not '%s'", tv_type_name(self));
    bool common = slots[1].kind != TV_STRING || text_is(slots[1].u.text, "common");
    if (common && self.kind != TV_FLOAT && precision >= 0)
        return self.kind == TV_BOOL ? tv_int(self.u.boolean) : self;
    double value = tv_number(self), unit = pow(10, (double)precision);
    if (common && self.kind != TV_FLOAT)
        return tv_int((int64_t)round_to(value, precision));
    if (common)
        return tv_float(isfinite(value) ? round_to(value, precision) : value);
    if (text_is(slots[1].u.text, "ceil"))
        return tv_float(ceil(value * unit) / unit);
    if (text_is(slots[1].u.text, "floor"))
        return tv_float(floor(value * unit) / unit);
    return render_fail(r, PH_ERR_ARG, "round() knows the methods common, ceil and floor");
}

static const struct builtin filters[] = {
    {"upper", "", f_upper},
    {"lower", "", f_lower},
    {"title", "", f_title},
    {"capitalize", "", f_capitalize},
    {"string", "", f_string},
    {"safe", "", f_string},
    {"trim", "?chars", f_trim},
    {"strip", "?chars", f_trim},
    {"replace", "old new ?count", f_replace},
    {"escape", "", f_escape},
    {"e", "", f_escape},
    {"forceescape", "", f_escape},
    {"indent", "?width ?first ?blank", f_indent},
    {"center", "?width", f_center},
    {"truncate", "?length ?killwords ?end ?leeway", f_truncate},
    {"wordcount", "", f_wordcount},
    {"urlencode", "", f_urlencode},
    {"format", "*", f_format},
    {"tojson", "?ensure_ascii ?indent ?separators ?sort_keys", f_tojson},
    {"from_json", "", f_from_json},
    {"fromjson", "", f_from_json},
    {"abs", "", f_abs},
    {"int", "?default ?base", f_int},
    {"float", "?default", f_float},
    {"round", "?precision ?method", f_round},
};

const struct builtin *text_filter_find(struct text name)
{
    return builtin_find(filters, sizeof filters / sizeof *filters, name);
}
