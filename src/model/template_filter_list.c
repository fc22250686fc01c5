/* Filters over containers, and what is shared by those that order things. */
#include "model/template_int.h"

#include <string.h>

/* ---- ordering ---- */

static void merge(struct render *r, const struct tv *keys, bool reverse, size_t *order, size_t *scratch,
                  size_t begin, size_t middle, size_t end)
{
    size_t a = begin, b = middle, at = begin;
    while (a < middle && b < end) {
        int before = tv_compare(r, keys[order[b]], keys[order[a]]);
        bool take_b = reverse ? before > 0 : before < 0; /* equals keep their order either way */
        scratch[at++] = take_b ? order[b++] : order[a++];
    }
    while (a < middle)
        scratch[at++] = order[a++];
    while (b < end)
        scratch[at++] = order[b++];
}

size_t *tv_sort_order(struct render *r, const struct tv *keys, size_t len, bool reverse)
{
    size_t *order = render_alloc(r, (len + 1) * sizeof *order);
    size_t *scratch = render_alloc(r, (len + 1) * sizeof *scratch);
    if (!order || !scratch)
        return NULL;
    for (size_t i = 0; i < len; i++)
        order[i] = i;
    for (size_t width = 1; width < len && r->status == PH_OK; width *= 2) {
        render_charge(r, len);
        for (size_t begin = 0; begin < len; begin += 2 * width) {
            size_t middle = begin + width < len ? begin + width : len;
            size_t end = middle + width < len ? middle + width : len;
            merge(r, keys, reverse, order, scratch, begin, middle, end);
        }
        size_t *held = order;
        order = scratch;
        scratch = held;
    }
    return r->status == PH_OK ? order : NULL;
}

/* What items are compared by: an attribute of theirs, letters of either case alike unless asked. */
static struct tv key_of(struct render *r, struct tv item, struct tv attribute, bool case_sensitive)
{
    if (attribute.kind != TV_UNDEFINED && attribute.kind != TV_NONE)
        item = tv_path(r, item, attribute);
    return item.kind == TV_STRING && !case_sensitive ? text_map(r, item.u.text, "lower") : item;
}

static struct tv *keys_of(struct render *r, const struct tv_list *list, struct tv attribute,
                          bool case_sensitive)
{
    struct tv *keys = render_alloc(r, (list->len + 1) * sizeof *keys);
    render_charge(r, list->len);
    for (size_t i = 0; keys && i < list->len && r->status == PH_OK; i++)
        keys[i] = key_of(r, list->items[i], attribute, case_sensitive);
    return r->status == PH_OK ? keys : NULL;
}

/* The items of what a filter got; nothing for none, false and 0. */
static struct tv items_of(struct render *r, struct tv v)
{
    render_charge(r, v.kind == TV_LIST ? v.u.list->len : 0);
    return tv_truth(v) ? tv_list_of(r, v) : tv_list_new(r, 0);
}

static struct tv sorted(struct render *r, struct tv list, const struct tv *keys, bool reverse)
{
    size_t *order = keys ? tv_sort_order(r, keys, list.u.list->len, reverse) : NULL;
    struct tv result = tv_list_new(r, order ? list.u.list->len : 0);
    for (size_t i = 0; order && i < list.u.list->len; i++)
        tv_push(r, result, list.u.list->items[order[i]]);
    return result;
}

static struct tv f_sort(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)args;
    struct tv list = items_of(r, self);
    if (r->status != PH_OK)
        return tv_undefined;
    return sorted(r, list, keys_of(r, list.u.list, slots[2], tv_truth(slots[1])), tv_truth(slots[0]));
}

static struct tv dict_items(struct render *r, struct tv dict)
{
    const struct tv_args none = {0};
    return call_builtin(r, dict_method_find(text_of("items")), dict, &none);
}

static struct tv f_dictsort(struct render *r, struct tv self, const struct tv *slots,
                            const struct tv_args *args)
{
    (void)args;
    if (self.kind != TV_DICT)
        return render_fail(r, PH_ERR_ARG, "dictsort needs a dict, not '%s'", tv_type_name(self));
    bool by_value = slots[1].kind == TV_STRING && text_is(slots[1].u.text, "value");
    struct tv list = dict_items(r, self);
    if (r->status != PH_OK)
        return tv_undefined;
    struct tv *keys = keys_of(r, list.u.list, tv_int(by_value), tv_truth(slots[0]));
    return sorted(r, list, keys, tv_truth(slots[2]));
}

static struct tv extreme(struct render *r, struct tv self, const struct tv *slots, int sign)
{
    struct tv list = items_of(r, self);
    struct tv *keys = r->status == PH_OK ? keys_of(r, list.u.list, slots[1], tv_truth(slots[0])) : NULL;
    if (!keys || list.u.list->len == 0)
        return tv_undefined;
    size_t best = 0;
    for (size_t i = 1; i < list.u.list->len; i++)
        if (tv_compare(r, keys[i], keys[best]) * sign > 0)
            best = i;
    return list.u.list->items[best];
}

static struct tv f_min(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)args;
    return extreme(r, self, slots, -1);
}

static struct tv f_max(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)args;
    return extreme(r, self, slots, 1);
}

static struct tv f_unique(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)args;
    struct tv list = items_of(r, self), result = tv_list_new(r, 0), seen = tv_dict_new(r);
    struct tv *keys = r->status == PH_OK ? keys_of(r, list.u.list, slots[1], tv_truth(slots[0])) : NULL;
    for (size_t i = 0; keys && i < list.u.list->len && r->status == PH_OK; i++) {
        if (tv_dict_find(r, seen.u.dict, keys[i]))
            continue;
        tv_dict_set(r, seen.u.dict, keys[i], tv_none);
        tv_push(r, result, list.u.list->items[i]);
    }
    return result;
}

static struct tv f_groupby(struct render *r, struct tv self, const struct tv *slots,
                           const struct tv_args *args)
{
    (void)args;
    struct tv list = items_of(r, self), groups = tv_list_new(r, 0), members = tv_undefined;
    if (r->status != PH_OK)
        return tv_undefined;
    bool case_sensitive = tv_truth(slots[2]);
    list = sorted(r, list, keys_of(r, list.u.list, slots[0], case_sensitive), false);
    struct tv *keys = r->status == PH_OK ? keys_of(r, list.u.list, slots[0], case_sensitive) : NULL;
    for (size_t i = 0; keys && i < list.u.list->len && r->status == PH_OK; i++) {
        if (i == 0 || !tv_equal(r, keys[i], keys[i - 1])) {
            struct tv group = tv_list_new(r, 2);
            members = tv_list_new(r, 0);
            tv_push(r, group, tv_path(r, list.u.list->items[i], slots[0]));
            tv_push(r, group, members);
            if (r->status == PH_OK)
                group.u.list->is_tuple = true;
            tv_push(r, groups, group);
        }
        tv_push(r, members, list.u.list->items[i]);
    }
    return groups;
}

/* ---- picking and shaping ---- */

static struct tv f_first(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    if (self.kind == TV_STRING)
        return tv_item(r, self, tv_int(0));
    struct tv list = tv_list_of(r, self);
    return r->status == PH_OK && list.u.list->len ? list.u.list->items[0] : tv_undefined;
}

static struct tv f_last(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    if (self.kind == TV_STRING)
        return tv_item(r, self, tv_int(-1));
    struct tv list = tv_list_of(r, self);
    return r->status == PH_OK && list.u.list->len ? list.u.list->items[list.u.list->len - 1] : tv_undefined;
}

static struct tv f_length(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)slots, (void)args;
    return tv_length(r, self);
}

static struct tv f_list(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    struct tv list = tv_list_of(r, self), copy = tv_list_new(r, 0);
    for (size_t i = 0; r->status == PH_OK && i < list.u.list->len; i++)
        tv_push(r, copy, list.u.list->items[i]);
    if (r->status == PH_OK)
        render_charge(r, copy.u.list->len);
    return copy;
}

static struct tv f_items(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    if (self.kind == TV_DICT)
        return dict_items(r, self);
    if (self.kind == TV_UNDEFINED || self.kind == TV_NONE)
        return tv_list_new(r, 0);
    return render_fail(r, PH_ERR_ARG, "items needs a dict, not '%s'", tv_type_name(self));
}

static struct tv f_reverse(struct render *r, struct tv self, const struct tv *slots,
                           const struct tv_args *args)
{
    (void)slots, (void)args;
    if (self.kind == TV_STRING)
        return tv_slice(r, self, tv_none, tv_none, tv_int(-1));
    return tv_slice(r, items_of(r, self), tv_none, tv_none, tv_int(-1));
}

static struct tv f_join(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)args;
    struct tv list = tv_list_of(r, self);
    struct text between = slots[0].kind == TV_UNDEFINED ? text_of("") : tv_str(r, slots[0]);
    struct buf out;
    buf_init(&out, TEMPLATE_OUTPUT_BYTES_MAX);
    for (size_t i = 0; r->status == PH_OK && i < list.u.list->len; i++) {
        struct tv item = list.u.list->items[i];
        if (i)
            buf_append(&out, between.at, between.len);
        if (slots[1].kind != TV_UNDEFINED && slots[1].kind != TV_NONE)
            item = tv_path(r, item, slots[1]);
        print_str(r, &out, item);
        render_charge(r, 4);
    }
    return tv_buf(r, &out);
}

static struct tv f_sum(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)args;
    struct tv list = items_of(r, self), total = slots[1].kind == TV_UNDEFINED ? tv_int(0) : slots[1];
    for (size_t i = 0; r->status == PH_OK && i < list.u.list->len; i++) {
        struct tv item = list.u.list->items[i];
        if (slots[0].kind != TV_UNDEFINED && slots[0].kind != TV_NONE)
            item = tv_path(r, item, slots[0]);
        total = tv_binary(r, TOKEN_ADD, total, item);
    }
    return total;
}

static struct tv f_batch(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)args;
    struct tv list = items_of(r, self), result = tv_list_new(r, 0), batch = tv_undefined;
    if (!tv_is_integral(slots[0]) || tv_integer(slots[0]) < 1)
        return render_fail(r, PH_ERR_ARG, "batch() needs a count above 0");
    size_t count = (size_t)tv_integer(slots[0]);
    for (size_t i = 0; r->status == PH_OK && i < list.u.list->len; i++) {
        if (i % count == 0) {
            batch = tv_list_new(r, 0);
            tv_push(r, result, batch);
        }
        tv_push(r, batch, list.u.list->items[i]);
    }
    bool fills = slots[1].kind != TV_UNDEFINED && slots[1].kind != TV_NONE;
    while (fills && batch.kind == TV_LIST && batch.u.list->len < count && tv_push(r, batch, slots[1]))
        render_charge(r, 4);
    return result;
}

static struct tv f_slice(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)args;
    struct tv list = items_of(r, self), result = tv_list_new(r, 0);
    if (!tv_is_integral(slots[0]) || tv_integer(slots[0]) < 1)
        return render_fail(r, PH_ERR_ARG, "slice() needs a count above 0");
    int64_t count = tv_integer(slots[0]), at = 0;
    bool fills = slots[1].kind != TV_UNDEFINED && slots[1].kind != TV_NONE;
    for (int64_t i = 0; i < count && r->status == PH_OK; i++) {
        int64_t len = (int64_t)list.u.list->len, extra = len % count;
        int64_t end = at + len / count + (i < extra);
        struct tv part = tv_slice(r, list, tv_int(at), tv_int(end), tv_none);
        if (fills && extra && i >= extra)
            tv_push(r, part, slots[1]);
        tv_push(r, result, part);
        render_charge(r, 4);
        at = end;
    }
    return result;
}

static struct tv f_default(struct render *r, struct tv self, const struct tv *slots,
                           const struct tv_args *args)
{
    (void)r;
    bool missing = self.kind == TV_UNDEFINED || (tv_truth(slots[1]) && !tv_truth(self));
    if (!missing)
        return self;
    return args->len || args->named_len ? slots[0] : tv_literal("");
}

static struct tv f_attr(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)args;
    struct text name = tv_str(r, slots[0]);
    bool only_methods = self.kind == TV_DICT && !dict_method_find(name);
    return only_methods ? tv_named_undefined(name) : tv_attribute(r, self, name);
}

/* ---- map, select, reject ---- */

static struct tv_args after(const struct tv_args *args, size_t count)
{
    struct tv_args rest = *args;
    rest.items = args->len > count ? args->items + count : NULL;
    rest.len = args->len > count ? args->len - count : 0;
    return rest;
}

static struct tv named(const struct tv_args *args, const char *name)
{
    for (size_t i = 0; i < args->named_len; i++)
        if (text_is(args->named[i].name, name))
            return args->named[i].value;
    return tv_undefined;
}

static struct tv f_map(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots;
    struct tv list = items_of(r, self), result = tv_list_new(r, 0), path = named(args, "attribute");
    struct tv fallback = named(args, "default");
    const struct builtin *filter = NULL;
    if (args->len && args->items[0].kind == TV_STRING)
        filter = filter_find(args->items[0].u.text);
    if (path.kind == TV_UNDEFINED && !filter)
        return render_fail(r, PH_ERR_ARG, "map() needs the name of a filter, or attribute=");
    struct tv_args rest = after(args, 1);
    for (size_t i = 0; r->status == PH_OK && i < list.u.list->len; i++) {
        struct tv item = list.u.list->items[i];
        item = path.kind == TV_UNDEFINED ? call_builtin(r, filter, item, &rest) : tv_path(r, item, path);
        tv_push(r, result, item.kind == TV_UNDEFINED ? fallback : item);
        render_charge(r, 4);
    }
    return result;
}

/* skip: how many arguments stand before the name of the test (the attribute's path, or none) */
static struct tv pick(struct render *r, struct tv self, const struct tv_args *args, size_t skip, bool wanted)
{
    struct tv list = items_of(r, self), result = tv_list_new(r, 0);
    struct tv_args rest = after(args, skip + 1);
    const struct builtin *test = NULL;
    if (args->len < skip)
        return render_fail(r, PH_ERR_ARG, "the name of an attribute is missing");
    if (args->len > skip) {
        test = args->items[skip].kind == TV_STRING ? test_find(args->items[skip].u.text) : NULL;
        if (!test)
            return render_fail(r, PH_ERR_ARG, "the test to pick by is not known");
    }
    for (size_t i = 0; r->status == PH_OK && i < list.u.list->len; i++) {
        struct tv item = list.u.list->items[i];
        struct tv subject = skip ? tv_path(r, item, args->items[0]) : item;
        if (tv_truth(test ? call_builtin(r, test, subject, &rest) : subject) == wanted)
            tv_push(r, result, item);
        render_charge(r, 4);
    }
    return result;
}

static struct tv f_select(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)slots;
    return pick(r, self, args, 0, true);
}

static struct tv f_reject(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)slots;
    return pick(r, self, args, 0, false);
}

static struct tv f_selectattr(struct render *r, struct tv self, const struct tv *slots,
                              const struct tv_args *args)
{
    (void)slots;
    return pick(r, self, args, 1, true);
}

static struct tv f_rejectattr(struct render *r, struct tv self, const struct tv *slots,
                              const struct tv_args *args)
{
    (void)slots;
    return pick(r, self, args, 1, false);
}

static const struct builtin filters[] = {
    {"length", "", f_length},
    {"count", "", f_length},
    {"default", "?default_value ?boolean", f_default},
    {"d", "?default_value ?boolean", f_default},
    {"join", "?d ?attribute", f_join},
    {"list", "", f_list},
    {"items", "", f_items},
    {"first", "", f_first},
    {"last", "", f_last},
    {"map", "*", f_map},
    {"select", "*", f_select},
    {"reject", "*", f_reject},
    {"selectattr", "*", f_selectattr},
    {"rejectattr", "*", f_rejectattr},
    {"sort", "?reverse ?case_sensitive ?attribute", f_sort},
    {"dictsort", "?case_sensitive ?by ?reverse", f_dictsort},
    {"unique", "?case_sensitive ?attribute", f_unique},
    {"groupby", "attribute ?default ?case_sensitive", f_groupby},
    {"min", "?case_sensitive ?attribute", f_min},
    {"max", "?case_sensitive ?attribute", f_max},
    {"sum", "?attribute ?start", f_sum},
    {"reverse", "", f_reverse},
    {"batch", "linecount ?fill_with", f_batch},
    {"slice", "slices ?fill_with", f_slice},
    {"attr", "name", f_attr},
};

const struct builtin *list_filter_find(struct text name)
{
    return builtin_find(filters, sizeof filters / sizeof *filters, name);
}
