/* What can be done with values: compare, look into, slice, compute. Python's semantics, with the kindness of
 * other template engines where Python would stop: an attribute of something undefined is undefined, and
 * adding something to a string that is not one (None, a number) joins its text. */
#include "model/template_int.h"

#include <math.h>
#include <string.h>

/* ---- equality and order ---- */

static bool lists_equal(struct render *r, const struct tv_list *a, const struct tv_list *b)
{
    if (a->is_tuple != b->is_tuple || a->len != b->len)
        return false;
    render_charge(r, a->len);
    for (size_t i = 0; i < a->len && r->status == PH_OK; i++)
        if (!tv_equal(r, a->items[i], b->items[i]))
            return false;
    return true;
}

static bool dicts_equal(struct render *r, struct tv_dict *a, struct tv_dict *b)
{
    if (a->len != b->len)
        return false;
    render_charge(r, a->len);
    for (size_t i = 0; i < a->len && r->status == PH_OK; i++) {
        struct tv *other = tv_dict_find(r, b, a->entries[i].key);
        if (!other || !tv_equal(r, a->entries[i].value, *other))
            return false;
    }
    return true;
}

static bool numbers_equal(struct tv a, struct tv b)
{
    if (a.kind == TV_BIGINT && b.kind == TV_BIGINT)
        return text_equal(a.u.text, b.u.text);
    if (tv_is_integral(a) && tv_is_integral(b))
        return tv_integer(a) == tv_integer(b);
    return tv_number(a) == tv_number(b);
}

static bool containers_equal(struct render *r, struct tv a, struct tv b)
{
    bool equal = false;
    if (render_enter(r))
        equal = a.kind == TV_LIST ? lists_equal(r, a.u.list, b.u.list) : dicts_equal(r, a.u.dict, b.u.dict);
    render_leave(r);
    return equal;
}

bool tv_equal(struct render *r, struct tv a, struct tv b)
{
    if (tv_is_number(a) && tv_is_number(b))
        return numbers_equal(a, b);
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case TV_STRING:
        if (a.u.text.len == b.u.text.len)
            render_charge_bytes(r, a.u.text.len);
        return text_equal(a.u.text, b.u.text);
    case TV_LIST:
    case TV_DICT:
        return containers_equal(r, a, b);
    case TV_NAMESPACE:
        return a.u.dict == b.u.dict;
    case TV_LOOP:
        return a.u.loop == b.u.loop;
    case TV_CALLABLE:
        return a.u.callable == b.u.callable;
    default:
        return true; /* undefined, none */
    }
}

static int compare_lists(struct render *r, const struct tv_list *a, const struct tv_list *b)
{
    for (size_t i = 0; i < a->len && i < b->len && r->status == PH_OK; i++)
        if (!tv_equal(r, a->items[i], b->items[i]))
            return tv_compare(r, a->items[i], b->items[i]);
    return (a->len > b->len) - (a->len < b->len);
}

/* UTF-8 orders bytes as it orders code points. */
static int compare_texts(struct text a, struct text b)
{
    size_t least = a.len < b.len ? a.len : b.len;
    int order = least ? memcmp(a.at, b.at, least) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

int tv_compare(struct render *r, struct tv a, struct tv b)
{
    if (tv_is_integral(a) && tv_is_integral(b))
        return (tv_integer(a) > tv_integer(b)) - (tv_integer(a) < tv_integer(b));
    if (tv_is_number(a) && tv_is_number(b)) {
        double x = tv_number(a), y = tv_number(b);
        return (x > y) - (x < y);
    }
    if (a.kind == TV_STRING && b.kind == TV_STRING) {
        render_charge_bytes(r, a.u.text.len);
        return compare_texts(a.u.text, b.u.text);
    }
    int order = 0;
    if (a.kind == TV_LIST && b.kind == TV_LIST) {
        if (render_enter(r))
            order = compare_lists(r, a.u.list, b.u.list);
        render_leave(r);
        return order;
    }
    render_fail(r, PH_ERR_ARG, "'%s' and '%s' have no order", tv_type_name(a), tv_type_name(b));
    return 0;
}

bool tv_contains(struct render *r, struct tv container, struct tv item)
{
    switch (container.kind) {
    case TV_STRING:
        if (item.kind != TV_STRING) {
            render_fail(r, PH_ERR_ARG, "'in' a string needs a string, not '%s'", tv_type_name(item));
            return false;
        }
        render_charge_bytes(r, container.u.text.len);
        return text_find(container.u.text, item.u.text) != NULL;
    case TV_LIST:
        render_charge(r, container.u.list->len);
        for (size_t i = 0; i < container.u.list->len && r->status == PH_OK; i++)
            if (tv_equal(r, container.u.list->items[i], item))
                return true;
        return false;
    case TV_DICT:
        return tv_dict_find(r, container.u.dict, item) != NULL;
    case TV_UNDEFINED:
        return false;
    default:
        render_fail(r, PH_ERR_ARG, "'in' needs a container, not '%s'", tv_type_name(container));
        return false;
    }
}

static bool is_relation_true(enum token_kind op, int order)
{
    return op == TOKEN_LT ? order < 0 : op == TOKEN_LE ? order <= 0 : op == TOKEN_GT ? order > 0 : order >= 0;
}

bool tv_relation(struct render *r, enum token_kind op, struct tv a, struct tv b)
{
    switch (op) {
    case TOKEN_EQ:
        return tv_equal(r, a, b);
    case TOKEN_NE:
        return !tv_equal(r, a, b);
    case TOKEN_IN:
        return tv_contains(r, b, a);
    case TOKEN_NOT_IN:
        return !tv_contains(r, b, a);
    default:
        if ((a.kind == TV_FLOAT && isnan(a.u.number)) || (b.kind == TV_FLOAT && isnan(b.u.number)))
            return false;
        return is_relation_true(op, tv_compare(r, a, b));
    }
}

/* ---- looking into values ---- */

struct tv tv_length(struct render *r, struct tv v)
{
    switch (v.kind) {
    case TV_STRING:
        render_charge_bytes(r, v.u.text.len);
        return tv_size(text_count(v.u.text));
    case TV_LIST:
        return tv_size(v.u.list->len);
    case TV_DICT:
        return tv_size(v.u.dict->len);
    case TV_UNDEFINED:
        return tv_int(0);
    default:
        return render_fail(r, PH_ERR_ARG, "'%s' has no length", tv_type_name(v));
    }
}

static struct tv loop_attribute(struct tv_loop *loop, struct text name)
{
    size_t index = loop->index, len = loop->len;
    bool first = index == 0, last = index + 1 == len;
    const struct {
        const char *name;
        struct tv value;
    } attributes[] = {
        {"index", tv_size(index + 1)},
        {"index0", tv_size(index)},
        {"first", tv_bool(first)},
        {"last", tv_bool(last)},
        {"length", tv_size(len)},
        {"revindex", tv_size(len - index)},
        {"revindex0", tv_size(len - index - 1)},
        {"depth", tv_int(loop->depth0 + 1)},
        {"depth0", tv_int(loop->depth0)},
        {"previtem", first ? tv_undefined : loop->items[index - 1]},
        {"nextitem", last ? tv_undefined : loop->items[index + 1]},
    };
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (text_is(name, attributes[i].name))
            return attributes[i].value;
    return tv_named_undefined(name);
}

static struct tv bind_method(struct render *r, struct tv self, struct text name)
{
    const struct builtin *method = method_find(self, name);
    if (!method)
        return tv_named_undefined(name);
    return tv_callable_new(r, (struct tv_callable){.kind = CALL_BUILTIN, .builtin = method, .self = self});
}

struct tv tv_attribute(struct render *r, struct tv v, struct text name)
{
    struct tv *member = NULL;
    if (v.kind == TV_NAMESPACE) {
        member = tv_dict_find(r, v.u.dict, tv_text(name));
        return member ? *member : tv_named_undefined(name);
    }
    struct tv found = v.kind == TV_LOOP ? loop_attribute(v.u.loop, name) : tv_undefined;
    if (found.kind != TV_UNDEFINED)
        return found;
    found = bind_method(r, v, name); /* before members, as Jinja has it: x.items is the method */
    if (found.kind == TV_UNDEFINED && v.kind == TV_DICT)
        member = tv_dict_find(r, v.u.dict, tv_text(name));
    if (v.kind == TV_CALLABLE && found.kind == TV_UNDEFINED)
        return render_fail(r, PH_ERR_ARG, "a function has no attribute '%.*s'",
                           (int)(name.len < 40 ? name.len : 40), name.at);
    return member ? *member : found;
}

/* Python's index: negative ones count from the end. -1: out of range. */
static int64_t wrap_index(int64_t index, size_t len)
{
    int64_t n = (int64_t)len;
    index = index < 0 ? index + n : index;
    return index >= 0 && index < n ? index : -1;
}

static struct tv character_at(struct render *r, struct text text, int64_t index)
{
    render_charge_bytes(r, text.len);
    int64_t at = wrap_index(index, text_count(text));
    if (at < 0)
        return tv_undefined;
    size_t begin = text_offset(text, (size_t)at);
    size_t len = text_offset((struct text){text.at + begin, text.len - begin}, 1);
    return tv_text((struct text){text.at + begin, len});
}

struct tv tv_item(struct render *r, struct tv v, struct tv key)
{
    if (v.kind == TV_DICT) {
        struct tv *member = tv_dict_find(r, v.u.dict, key);
        if (member)
            return *member;
    } else if (tv_is_integral(key) && v.kind == TV_LIST) {
        int64_t at = wrap_index(tv_integer(key), v.u.list->len);
        return at < 0 ? tv_undefined : v.u.list->items[at];
    } else if (tv_is_integral(key) && v.kind == TV_STRING) {
        return character_at(r, v.u.text, tv_integer(key));
    }
    return key.kind == TV_STRING ? tv_attribute(r, v, key.u.text) : tv_undefined;
}

struct slice {
    int64_t start, step;
    size_t count;
};

static bool bound(struct render *r, struct tv v, int64_t fallback, int64_t *out)
{
    *out = fallback;
    if (v.kind == TV_NONE || v.kind == TV_UNDEFINED)
        return true;
    if (!tv_is_integral(v)) {
        render_fail(r, PH_ERR_ARG, "a slice needs integers, not '%s'", tv_type_name(v));
        return false;
    }
    *out = tv_integer(v);
    return true;
}

static int64_t clamp(int64_t value, int64_t len, int64_t least, int64_t most)
{
    if (value < 0)
        value = value < -len ? least : value + len;
    return value < least ? least : value > most ? most : value;
}

static bool resolve_slice(struct render *r, const struct tv bounds[3], size_t size, struct slice *out)
{
    int64_t len = (int64_t)size, start, stop, step;
    if (!bound(r, bounds[2], 1, &step))
        return false;
    if (step == 0) {
        render_fail(r, PH_ERR_ARG, "the step of a slice must not be 0");
        return false;
    }
    if (step < -len - 1)
        step = -len - 1; /* as good as any larger one, and safe to add */
    if (step > len + 1)
        step = len + 1;
    int64_t least = step > 0 ? 0 : -1, most = step > 0 ? len : len - 1;
    if (!bound(r, bounds[0], step > 0 ? 0 : INT64_MAX, &start) ||
        !bound(r, bounds[1], step > 0 ? INT64_MAX : INT64_MIN, &stop))
        return false;
    start = clamp(start, len, least, most);
    stop = clamp(stop, len, least, most);
    int64_t distance = step > 0 ? stop - start : start - stop, stride = step > 0 ? step : -step;
    *out = (struct slice){start, step, distance > 0 ? (size_t)((distance + stride - 1) / stride) : 0};
    return true;
}

static struct tv slice_text(struct render *r, struct text text, struct slice slice)
{
    if (slice.step == 1 || slice.count == 0) {
        size_t begin = text_offset(text, (size_t)slice.start);
        struct text rest = {text.at + begin, text.len - begin};
        return tv_text((struct text){rest.at, slice.count ? text_offset(rest, slice.count) : 0});
    }
    struct tv characters = tv_list_of(r, tv_text(text));
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    for (size_t i = 0; i < slice.count && r->status == PH_OK; i++) {
        struct text c = characters.u.list->items[slice.start + (int64_t)i * slice.step].u.text;
        buf_append(&out, c.at, c.len);
    }
    return tv_buf(r, &out);
}

struct tv tv_slice(struct render *r, struct tv v, struct tv start, struct tv stop, struct tv step)
{
    const struct tv bounds[3] = {start, stop, step};
    struct slice slice;
    if (v.kind == TV_STRING) {
        render_charge_bytes(r, v.u.text.len);
        if (!resolve_slice(r, bounds, text_count(v.u.text), &slice))
            return tv_undefined;
        return slice_text(r, v.u.text, slice);
    }
    if (v.kind != TV_LIST)
        return render_fail(r, PH_ERR_ARG, "'%s' cannot be sliced", tv_type_name(v));
    if (!resolve_slice(r, bounds, v.u.list->len, &slice))
        return tv_undefined;
    struct tv result = tv_list_new(r, slice.count);
    render_charge(r, slice.count);
    for (size_t i = 0; i < slice.count; i++)
        if (!tv_push(r, result, v.u.list->items[slice.start + (int64_t)i * slice.step]))
            break;
    if (result.kind == TV_LIST)
        result.u.list->is_tuple = v.u.list->is_tuple;
    return result;
}

struct tv tv_path(struct render *r, struct tv v, struct tv path)
{
    if (path.kind != TV_STRING)
        return tv_item(r, v, path);
    struct text rest = path.u.text;
    while (rest.len && r->status == PH_OK) {
        const char *dot = memchr(rest.at, '.', rest.len);
        struct text part = {rest.at, dot ? (size_t)(dot - rest.at) : rest.len};
        int64_t index = 0;
        bool is_index = part.len > 0 && part.len < 10;
        for (size_t i = 0; i < part.len; i++) {
            is_index = is_index && part.at[i] >= '0' && part.at[i] <= '9';
            index = is_index ? index * 10 + (part.at[i] - '0') : 0;
        }
        v = tv_item(r, v, is_index ? tv_int(index) : tv_text(part));
        rest.at += part.len + (dot != NULL);
        rest.len -= part.len + (dot != NULL);
    }
    return v;
}

/* ---- arithmetic ---- */

static struct tv overflow(struct render *r)
{
    return render_fail(r, PH_ERR_ARG, "a result does not fit into 64 bits");
}

static struct tv power(struct render *r, int64_t base, int64_t exponent)
{
    if (exponent < 0)
        return tv_float(pow((double)base, (double)exponent));
    int64_t result = 1;
    bool over = false;
    for (; exponent > 0 && !over; exponent >>= 1) {
        if (exponent & 1)
            over = __builtin_mul_overflow(result, base, &result);
        if (exponent > 1)
            over = __builtin_mul_overflow(base, base, &base) || over;
    }
    return over ? overflow(r) : tv_int(result);
}

static struct tv floor_divide(struct render *r, int64_t a, int64_t b, bool want_remainder)
{
    if (b == 0)
        return render_fail(r, PH_ERR_ARG, "division by zero");
    if (b == -1) /* INT64_MIN / -1 traps */
        return want_remainder ? tv_int(0) : a == INT64_MIN ? overflow(r) : tv_int(-a);
    int64_t quotient = a / b, remainder = a % b;
    if (remainder != 0 && (remainder < 0) != (b < 0)) {
        quotient--;
        remainder += b;
    }
    return tv_int(want_remainder ? remainder : quotient);
}

static struct tv integer_op(struct render *r, enum token_kind op, int64_t a, int64_t b)
{
    int64_t result = 0;
    switch (op) {
    case TOKEN_ADD:
        return __builtin_add_overflow(a, b, &result) ? overflow(r) : tv_int(result);
    case TOKEN_SUB:
        return __builtin_sub_overflow(a, b, &result) ? overflow(r) : tv_int(result);
    case TOKEN_MUL:
        return __builtin_mul_overflow(a, b, &result) ? overflow(r) : tv_int(result);
    case TOKEN_DIV:
        return b ? tv_float((double)a / (double)b) : render_fail(r, PH_ERR_ARG, "division by zero");
    case TOKEN_POW:
        return power(r, a, b);
    default:
        return floor_divide(r, a, b, op == TOKEN_MOD);
    }
}

static struct tv float_op(struct render *r, enum token_kind op, double a, double b)
{
    if (b == 0 && (op == TOKEN_DIV || op == TOKEN_FLOOR_DIV || op == TOKEN_MOD))
        return render_fail(r, PH_ERR_ARG, "division by zero");
    double remainder;
    switch (op) {
    case TOKEN_ADD:
        return tv_float(a + b);
    case TOKEN_SUB:
        return tv_float(a - b);
    case TOKEN_MUL:
        return tv_float(a * b);
    case TOKEN_DIV:
        return tv_float(a / b);
    case TOKEN_FLOOR_DIV:
        return tv_float(floor(a / b));
    case TOKEN_POW:
        return tv_float(pow(a, b));
    default:
        remainder = fmod(a, b);
        if (remainder == 0)
            return tv_float(copysign(0, b));
        return tv_float((remainder < 0) != (b < 0) ? remainder + b : remainder);
    }
}

static struct tv repeat_text(struct render *r, struct text text, int64_t count)
{
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    if (text.len > 0 && count > (int64_t)TEMPLATE_OUTPUT_BYTES_MAX)
        return render_fail(r, PH_ERR_LIMIT, "a string is longer than %u bytes", TEMPLATE_OUTPUT_BYTES_MAX);
    for (int64_t i = 0; text.len && i < count && buf_status(&out) == PH_OK; i++)
        buf_append(&out, text.at, text.len);
    return tv_buf(r, &out);
}

static struct tv repeat_list(struct render *r, const struct tv_list *list, int64_t count)
{
    struct tv result = tv_list_new(r, 0);
    for (int64_t i = 0; list->len && i < count && r->status == PH_OK; i++) {
        render_charge(r, list->len);
        for (size_t k = 0; k < list->len; k++)
            if (!tv_push(r, result, list->items[k]))
                break;
    }
    if (result.kind == TV_LIST)
        result.u.list->is_tuple = list->is_tuple;
    return result;
}

static struct tv join_lists(struct render *r, const struct tv_list *a, const struct tv_list *b)
{
    struct tv result = tv_list_new(r, a->len + b->len);
    render_charge(r, a->len + b->len);
    for (size_t i = 0; i < a->len; i++)
        tv_push(r, result, a->items[i]);
    for (size_t i = 0; i < b->len; i++)
        tv_push(r, result, b->items[i]);
    if (result.kind == TV_LIST)
        result.u.list->is_tuple = a->is_tuple;
    return result;
}

static struct tv multiply(struct render *r, struct tv a, struct tv b)
{
    if (tv_is_integral(a)) {
        struct tv held = a;
        a = b;
        b = held;
    }
    if (tv_is_integral(b) && a.kind == TV_STRING)
        return repeat_text(r, a.u.text, tv_integer(b));
    if (tv_is_integral(b) && a.kind == TV_LIST)
        return repeat_list(r, a.u.list, tv_integer(b));
    return render_fail(r, PH_ERR_ARG, "'%s' and '%s' cannot be multiplied", tv_type_name(a), tv_type_name(b));
}

/* Joins to strings what other engines join to them. */
static bool joins_text(struct tv a)
{
    return a.kind == TV_STRING || a.kind == TV_NONE || a.kind == TV_UNDEFINED || tv_is_number(a);
}

static struct text joined_text(struct render *r, struct tv v)
{
    return v.kind == TV_NONE ? text_of("") : tv_str(r, v);
}

static struct tv wrong_operands(struct render *r, struct tv a, struct tv b)
{
    if (a.kind != TV_UNDEFINED && b.kind != TV_UNDEFINED)
        return render_fail(r, PH_ERR_ARG, "this operator does not take '%s' and '%s'", tv_type_name(a),
                           tv_type_name(b));
    struct text name = a.kind == TV_UNDEFINED ? a.u.text : b.u.text;
    return render_fail(r, PH_ERR_ARG, "'%.*s' is undefined", (int)(name.len < 80 ? name.len : 80),
                       name.len ? name.at : "");
}

struct tv tv_binary(struct render *r, enum token_kind op, struct tv a, struct tv b)
{
    if (tv_is_integral(a) && tv_is_integral(b))
        return integer_op(r, op, tv_integer(a), tv_integer(b));
    if (tv_is_number(a) && tv_is_number(b))
        return float_op(r, op, tv_number(a), tv_number(b));
    if (op == TOKEN_ADD && (a.kind == TV_STRING || b.kind == TV_STRING) && joins_text(a) && joins_text(b))
        return text_concat(r, joined_text(r, a), joined_text(r, b));
    if (op == TOKEN_ADD && a.kind == TV_LIST && b.kind == TV_LIST && a.u.list->is_tuple == b.u.list->is_tuple)
        return join_lists(r, a.u.list, b.u.list);
    if (op == TOKEN_MOD && a.kind == TV_STRING)
        return format_percent(r, a.u.text, b);
    if (op == TOKEN_MUL)
        return multiply(r, a, b);
    return wrong_operands(r, a, b);
}

static struct tv negate_text(struct render *r, struct tv big, bool negate)
{
    struct text digits = big.u.text;
    if (!negate)
        return big;
    if (digits.at[0] == '-')
        return (struct tv){TV_BIGINT, {.text = {digits.at + 1, digits.len - 1}}};
    big.u.text = text_concat(r, text_of("-"), digits).u.text;
    return big;
}

struct tv tv_unary(struct render *r, enum token_kind op, struct tv a)
{
    if (tv_is_integral(a)) {
        int64_t result = tv_integer(a);
        bool over = op == TOKEN_SUB && __builtin_sub_overflow((int64_t)0, result, &result);
        return over ? overflow(r) : tv_int(result);
    }
    if (a.kind == TV_FLOAT)
        return tv_float(op == TOKEN_SUB ? -a.u.number : a.u.number);
    if (a.kind == TV_BIGINT)
        return negate_text(r, a, op == TOKEN_SUB);
    return render_fail(r, PH_ERR_ARG, "'%s' is not a number", tv_type_name(a));
}
