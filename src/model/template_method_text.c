/* Methods of strings, as Python has them. */
#include "model/template_int.h"

#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

#define STRIP_SET_MAX 1024

#define METHOD(function)                                                                \
    static struct tv function(struct render *r, struct tv self, const struct tv *slots, \
                              const struct tv_args *args)

static struct tv strip(struct render *r, struct tv self, struct tv chars, bool left, bool right)
{
    if (chars.kind != TV_UNDEFINED && chars.kind != TV_NONE && chars.kind != TV_STRING)
        return render_fail(r, PH_ERR_ARG, "strip() needs a string, not '%s'", tv_type_name(chars));
    struct text set = chars.kind == TV_STRING ? chars.u.text : (struct text){0};
    if (chars.kind == TV_STRING && set.len == 0)
        return self;
    if (set.len > STRIP_SET_MAX)
        return render_fail(r, PH_ERR_LIMIT, "strip() takes at most %d bytes of characters", STRIP_SET_MAX);
    render_charge_bytes(r, self.u.text.len);
    return tv_text(text_strip(self.u.text, set, left, right));
}

METHOD(m_strip)
{
    (void)args;
    return strip(r, self, slots[0], true, true);
}

METHOD(m_lstrip)
{
    (void)args;
    return strip(r, self, slots[0], true, false);
}

METHOD(m_rstrip)
{
    (void)args;
    return strip(r, self, slots[0], false, true);
}

static int64_t count_or_all(struct tv v)
{
    return tv_is_integral(v) && tv_integer(v) >= 0 ? tv_integer(v) : -1;
}

METHOD(m_split)
{
    (void)args;
    return text_split(r, self.u.text, slots[0], count_or_all(slots[1]), false);
}

METHOD(m_rsplit)
{
    (void)args;
    return text_split(r, self.u.text, slots[0], count_or_all(slots[1]), true);
}

METHOD(m_splitlines)
{
    (void)args;
    struct tv list = tv_list_new(r, 0);
    struct text rest = self.u.text, line;
    size_t ending;
    render_charge_bytes(r, rest.len * 16);
    while (r->status == PH_OK && text_next_line(&rest, &line, &ending)) {
        if (tv_truth(slots[0]))
            line.len += ending;
        tv_push(r, list, tv_text(line));
    }
    return list;
}

static struct tv partition(struct render *r, struct tv self, struct tv by, bool from_right)
{
    struct tv parts = text_split(r, self.u.text, by, 1, from_right), result = tv_list_new(r, 3);
    if (r->status != PH_OK)
        return tv_undefined;
    bool found = parts.u.list->len == 2;
    struct tv whole = parts.u.list->items[0], empty = tv_literal("");
    if (found || !from_right)
        tv_push(r, result, whole);
    tv_push(r, result, found ? by : empty);
    tv_push(r, result, found ? parts.u.list->items[1] : empty);
    if (!found && from_right)
        tv_push(r, result, whole);
    result.u.list->is_tuple = true;
    return result;
}

METHOD(m_partition)
{
    (void)args;
    return partition(r, self, slots[0], false);
}

METHOD(m_rpartition)
{
    (void)args;
    return partition(r, self, slots[0], true);
}

METHOD(m_replace)
{
    (void)args;
    if (slots[0].kind != TV_STRING || slots[1].kind != TV_STRING)
        return render_fail(r, PH_ERR_ARG, "replace() needs two strings");
    return text_replace(r, self.u.text, slots[0].u.text, slots[1].u.text, count_or_all(slots[2]));
}

/* ---- searching ---- */

/* self[start:end], and how many code points stand before it */
static struct text window(struct render *r, struct tv self, const struct tv *slots, size_t *before)
{
    struct tv part = tv_slice(r, self, slots[1], slots[2], tv_none);
    *before = 0;
    if (part.kind != TV_STRING)
        return (struct text){"", 0};
    if (part.u.text.len)
        *before = text_count((struct text){self.u.text.at, (size_t)(part.u.text.at - self.u.text.at)});
    else if (tv_is_integral(slots[1]) && tv_integer(slots[1]) > 0)
        *before = (size_t)tv_integer(slots[1]);
    return part.u.text;
}

static bool ends_with(struct text text, struct text end, bool at_start)
{
    if (end.len > text.len)
        return false;
    return text_equal((struct text){at_start ? text.at : text.at + text.len - end.len, end.len}, end);
}

/* One string, or a tuple of them of which any may match. */
static struct tv affix(struct render *r, struct tv self, const struct tv *slots, bool at_start)
{
    size_t before;
    struct text text = window(r, self, slots, &before);
    struct tv list = slots[0];
    if (slots[0].kind == TV_STRING)
        return tv_bool(ends_with(text, slots[0].u.text, at_start));
    if (list.kind != TV_LIST)
        return render_fail(r, PH_ERR_ARG, "startswith() and endswith() need a string, not '%s'",
                           tv_type_name(list));
    for (size_t i = 0; i < list.u.list->len; i++) {
        struct tv item = list.u.list->items[i];
        if (item.kind == TV_STRING && ends_with(text, item.u.text, at_start))
            return tv_bool(true);
    }
    return tv_bool(false);
}

METHOD(m_startswith)
{
    (void)args;
    return affix(r, self, slots, true);
}

METHOD(m_endswith)
{
    (void)args;
    return affix(r, self, slots, false);
}

static struct tv find(struct render *r, struct tv self, const struct tv *slots, bool last, bool must)
{
    size_t before;
    struct text text = window(r, self, slots, &before);
    if (slots[0].kind != TV_STRING)
        return render_fail(r, PH_ERR_ARG, "find() needs a string, not '%s'", tv_type_name(slots[0]));
    render_charge_bytes(r, text.len);
    const char *found = last ? text_find_last(text, slots[0].u.text) : text_find(text, slots[0].u.text);
    if (!found || before > text_count(self.u.text))
        return must ? render_fail(r, PH_ERR_ARG, "the string searched for is not there") : tv_int(-1);
    return tv_size(before + text_count((struct text){text.at, (size_t)(found - text.at)}));
}

METHOD(m_find)
{
    (void)args;
    return find(r, self, slots, false, false);
}

METHOD(m_rfind)
{
    (void)args;
    return find(r, self, slots, true, false);
}

METHOD(m_index)
{
    (void)args;
    return find(r, self, slots, false, true);
}

METHOD(m_rindex)
{
    (void)args;
    return find(r, self, slots, true, true);
}

METHOD(m_count)
{
    (void)args;
    size_t before, count = 0;
    struct text text = window(r, self, slots, &before);
    if (slots[0].kind != TV_STRING)
        return render_fail(r, PH_ERR_ARG, "count() needs a string, not '%s'", tv_type_name(slots[0]));
    struct text needle = slots[0].u.text;
    if (needle.len == 0)
        return tv_size(text_count(text) + 1);
    render_charge_bytes(r, text.len);
    for (const char *found; (found = text_find(text, needle)); count++) {
        text.len -= (size_t)(found - text.at) + needle.len;
        text.at = found + needle.len;
    }
    return tv_size(count);
}

static struct tv remove_affix(struct tv self, struct tv affix_value, bool at_start)
{
    struct text text = self.u.text;
    if (affix_value.kind != TV_STRING || !ends_with(text, affix_value.u.text, at_start))
        return self;
    size_t cut = affix_value.u.text.len;
    return tv_text((struct text){at_start ? text.at + cut : text.at, text.len - cut});
}

METHOD(m_removeprefix)
{
    (void)r, (void)args;
    return remove_affix(self, slots[0], true);
}

METHOD(m_removesuffix)
{
    (void)r, (void)args;
    return remove_affix(self, slots[0], false);
}

/* ---- making ---- */

#define CASE_METHOD(function, how)            \
    METHOD(function)                          \
    {                                         \
        (void)slots, (void)args;              \
        return text_map(r, self.u.text, how); \
    }

CASE_METHOD(m_upper, "upper")
CASE_METHOD(m_lower, "lower")
CASE_METHOD(m_title, "title")
CASE_METHOD(m_capitalize, "capitalize")
CASE_METHOD(m_swapcase, "swapcase")

METHOD(m_join)
{
    (void)args;
    struct tv list = tv_list_of(r, slots[0]);
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    for (size_t i = 0; r->status == PH_OK && i < list.u.list->len; i++) {
        struct tv item = list.u.list->items[i];
        if (item.kind != TV_STRING)
            render_fail(r, PH_ERR_ARG, "join() needs strings, not '%s'", tv_type_name(item));
        if (i)
            buf_append(&out, self.u.text.at, self.u.text.len);
        print_str(r, &out, item);
        render_charge(r, 4);
    }
    return tv_buf(r, &out);
}

METHOD(m_format)
{
    (void)slots;
    return format_braces(r, self.u.text, args);
}

static void put_repeated(struct buf *out, struct text text, size_t count)
{
    for (size_t i = 0; i < count && buf_status(out) == PH_OK; i++)
        buf_append(out, text.at, text.len);
}

/* share: how much of the padding goes left, in halves */
static struct tv pad(struct render *r, struct tv self, const struct tv *slots, int share)
{
    if (!tv_is_integral(slots[0]))
        return render_fail(r, PH_ERR_ARG, "a width must be an integer, not '%s'", tv_type_name(slots[0]));
    struct text fill = slots[1].kind == TV_STRING ? slots[1].u.text : text_of(" ");
    int64_t width = tv_integer(slots[0]), have = (int64_t)text_count(self.u.text);
    if (width <= have)
        return self;
    if (width > TEMPLATE_OUTPUT_BYTES_MAX)
        return render_fail(r, PH_ERR_LIMIT, "a string is longer than %u bytes", TEMPLATE_OUTPUT_BYTES_MAX);
    size_t room = (size_t)(width - have);
    size_t left = share == 2 ? room : share == 0 ? 0 : room / 2 + (room & (size_t)width & 1);
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    put_repeated(&out, fill, left);
    buf_append(&out, self.u.text.at, self.u.text.len);
    put_repeated(&out, fill, room - left);
    return tv_buf(r, &out);
}

METHOD(m_ljust)
{
    (void)args;
    return pad(r, self, slots, 0);
}

METHOD(m_center)
{
    (void)args;
    return pad(r, self, slots, 1);
}

METHOD(m_rjust)
{
    (void)args;
    return pad(r, self, slots, 2);
}

METHOD(m_zfill)
{
    (void)args;
    struct text text = self.u.text, sign = {text.at, text.len && (*text.at == '-' || *text.at == '+')};
    struct tv digits = tv_text((struct text){text.at + sign.len, text.len - sign.len});
    struct tv width = tv_binary(r, TOKEN_SUB, slots[0], tv_size(sign.len));
    const struct tv padding[2] = {width, tv_literal("0")};
    if (r->status != PH_OK)
        return tv_undefined;
    return text_concat(r, sign, pad(r, digits, padding, 2).u.text);
}

/* ---- what all characters are ---- */

static bool is_letter(utf8proc_category_t c)
{
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static bool has_class(uint32_t point, char class)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)point);
    switch (class) {
    case 's':
        return code_point_is_space(point);
    case 'a':
        return is_letter(c);
    case 'd':
        return c == UTF8PROC_CATEGORY_ND;
    case '7':
        return point < 128;
    case 'n':
        return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
    default: /* letters and digits */
        return is_letter(c) || (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
    }
}

static struct tv all_are(struct tv self, char class)
{
    struct text text = self.u.text;
    for (size_t i = 0; i < text.len;) {
        uint32_t point = UTF8_REPLACEMENT;
        size_t len = utf8_decode(text.at + i, text.len - i, &point);
        if (!has_class(point, class))
            return tv_bool(false);
        i += len ? len : 1;
    }
    return tv_bool(text.len > 0 || class == '7');
}

#define CLASS_METHOD(function, class)                 \
    METHOD(function)                                  \
    {                                                 \
        (void)slots, (void)args;                      \
        render_charge_bytes(r, self.u.text.len * 16); \
        return all_are(self, class);                  \
    }

CLASS_METHOD(m_isspace, 's')
CLASS_METHOD(m_isalpha, 'a')
CLASS_METHOD(m_isdigit, 'd')
CLASS_METHOD(m_isnumeric, 'n')
CLASS_METHOD(m_isalnum, 'w')
CLASS_METHOD(m_isascii, '7')

static struct tv is_test(struct render *r, struct tv self, const char *test)
{
    const struct tv_args none = {0};
    return call_builtin(r, test_find(text_of(test)), self, &none);
}

METHOD(m_islower)
{
    (void)slots, (void)args;
    return is_test(r, self, "lower");
}

METHOD(m_isupper)
{
    (void)slots, (void)args;
    return is_test(r, self, "upper");
}

static const struct builtin methods[] = {
    {"strip", "?chars", m_strip},
    {"lstrip", "?chars", m_lstrip},
    {"rstrip", "?chars", m_rstrip},
    {"split", "?sep ?maxsplit", m_split},
    {"rsplit", "?sep ?maxsplit", m_rsplit},
    {"splitlines", "?keepends", m_splitlines},
    {"partition", "sep", m_partition},
    {"rpartition", "sep", m_rpartition},
    {"replace", "old new ?count", m_replace},
    {"startswith", "prefix ?start ?end", m_startswith},
    {"endswith", "suffix ?start ?end", m_endswith},
    {"find", "sub ?start ?end", m_find},
    {"rfind", "sub ?start ?end", m_rfind},
    {"index", "sub ?start ?end", m_index},
    {"rindex", "sub ?start ?end", m_rindex},
    {"count", "sub ?start ?end", m_count},
    {"removeprefix", "prefix", m_removeprefix},
    {"removesuffix", "suffix", m_removesuffix},
    {"upper", "", m_upper},
    {"lower", "", m_lower},
    {"casefold", "", m_lower},
    {"title", "", m_title},
    {"capitalize", "", m_capitalize},
    {"swapcase", "", m_swapcase},
    {"join", "iterable", m_join},
    {"format", "*", m_format},
    {"ljust", "width ?fillchar", m_ljust},
    {"rjust", "width ?fillchar", m_rjust},
    {"center", "width ?fillchar", m_center},
    {"zfill", "width", m_zfill},
    {"isspace", "", m_isspace},
    {"isalpha", "", m_isalpha},
    {"isdigit", "", m_isdigit},
    {"isdecimal", "", m_isdigit},
    {"isnumeric", "", m_isnumeric},
    {"isalnum", "", m_isalnum},
    {"isascii", "", m_isascii},
    {"islower", "", m_islower},
    {"isupper", "", m_isupper},
};

const struct builtin *string_method_find(struct text name)
{
    return builtin_find(methods, sizeof methods / sizeof *methods, name);
}
