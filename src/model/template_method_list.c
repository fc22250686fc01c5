/* Methods of lists, dicts, loops and cyclers. Those that change a list or dict change it for everyone who
 * holds it, as in Python. */
#include "model/template_int.h"

#include <string.h>

#define METHOD(function)                                                                \
    static struct tv function(struct render *r, struct tv self, const struct tv *slots, \
                              const struct tv_args *args)

static bool check_mutable(struct render *r, struct tv self)
{
    if (self.u.list->is_tuple)
        render_fail(r, PH_ERR_ARG, "a tuple cannot be changed");
    return r->status == PH_OK;
}

/* ---- lists ---- */

METHOD(list_append)
{
    (void)args;
    if (check_mutable(r, self))
        tv_push(r, self, slots[0]);
    return tv_none;
}

METHOD(list_extend)
{
    (void)args;
    struct tv more = tv_list_of(r, slots[0]);
    size_t len = r->status == PH_OK ? more.u.list->len : 0;
    render_charge(r, len);
    for (size_t i = 0; i < len && check_mutable(r, self); i++)
        tv_push(r, self, more.u.list->items[i]);
    return tv_none;
}

static int64_t position(struct tv index, size_t len, int64_t fallback)
{
    int64_t at = tv_is_integral(index) ? tv_integer(index) : fallback;
    return at < 0 ? at + (int64_t)len : at;
}

METHOD(list_insert)
{
    (void)args;
    struct tv_list *list = self.u.list;
    int64_t at = position(slots[0], list->len, 0);
    size_t index = at < 0 ? 0 : (size_t)at > list->len ? list->len : (size_t)at;
    if (!check_mutable(r, self) || !tv_push(r, self, slots[1]))
        return tv_none;
    render_charge(r, list->len - index);
    memmove(&list->items[index + 1], &list->items[index], (list->len - 1 - index) * sizeof *list->items);
    list->items[index] = slots[1];
    return tv_none;
}

METHOD(list_pop)
{
    (void)args;
    struct tv_list *list = self.u.list;
    int64_t at = position(slots[0], list->len, -1);
    if (!check_mutable(r, self))
        return tv_undefined;
    if (at < 0 || (size_t)at >= list->len)
        return render_fail(r, PH_ERR_ARG, "pop() from an index that is not there");
    struct tv item = list->items[at];
    list->len--;
    render_charge(r, list->len - (size_t)at);
    memmove(&list->items[at], &list->items[at + 1], (list->len - (size_t)at) * sizeof item);
    return item;
}

static int64_t index_of(struct render *r, struct tv self, struct tv item)
{
    render_charge(r, self.u.list->len);
    for (size_t i = 0; i < self.u.list->len && r->status == PH_OK; i++)
        if (tv_equal(r, self.u.list->items[i], item))
            return (int64_t)i;
    return -1;
}

METHOD(list_index)
{
    (void)args;
    int64_t at = index_of(r, self, slots[0]);
    return at < 0 ? render_fail(r, PH_ERR_ARG, "the item is not in the list") : tv_int(at);
}

METHOD(list_remove)
{
    int64_t at = index_of(r, self, slots[0]);
    const struct tv index = tv_int(at);
    if (at < 0)
        return render_fail(r, PH_ERR_ARG, "the item is not in the list");
    (void)list_pop(r, self, &index, args);
    return tv_none;
}

METHOD(list_count)
{
    (void)args;
    int64_t count = 0;
    render_charge(r, self.u.list->len);
    for (size_t i = 0; i < self.u.list->len && r->status == PH_OK; i++)
        count += tv_equal(r, self.u.list->items[i], slots[0]);
    return tv_int(count);
}

METHOD(list_clear)
{
    (void)slots, (void)args;
    if (check_mutable(r, self))
        self.u.list->len = 0;
    return tv_none;
}

METHOD(list_copy)
{
    (void)slots, (void)args;
    return tv_slice(r, self, tv_none, tv_none, tv_none);
}

/* In place, by way of the filter of the same name. */
static struct tv reorder(struct render *r, struct tv self, const char *filter, const struct tv_args *args)
{
    struct tv ordered = call_builtin(r, filter_find(text_of(filter)), self, args);
    if (check_mutable(r, self))
        memcpy(self.u.list->items, ordered.u.list->items, self.u.list->len * sizeof *self.u.list->items);
    return tv_none;
}

METHOD(list_reverse)
{
    (void)slots;
    return self.u.list->len ? reorder(r, self, "reverse", args) : tv_none;
}

METHOD(list_sort)
{
    (void)args;
    struct tv_kwarg named[] = {{text_of("reverse"), slots[0]}, {text_of("case_sensitive"), tv_bool(true)}};
    const struct tv_args own = {.named = named, .named_len = 2};
    return self.u.list->len ? reorder(r, self, "sort", &own) : tv_none;
}

static const struct builtin list_methods[] = {
    {"append", "object", list_append},
    {"extend", "iterable", list_extend},
    {"insert", "index object", list_insert},
    {"pop", "?index", list_pop},
    {"index", "value", list_index},
    {"remove", "value", list_remove},
    {"count", "value", list_count},
    {"clear", "", list_clear},
    {"copy", "", list_copy},
    {"reverse", "", list_reverse},
    {"sort", "?reverse", list_sort},
};

const struct builtin *list_method_find(struct text name)
{
    return builtin_find(list_methods, sizeof list_methods / sizeof *list_methods, name);
}

/* ---- dicts ---- */

METHOD(dict_keys)
{
    (void)slots, (void)args;
    return tv_list_of(r, self);
}

METHOD(dict_values)
{
    (void)slots, (void)args;
    struct tv list = tv_list_new(r, self.u.dict->len);
    render_charge(r, self.u.dict->len);
    for (size_t i = 0; i < self.u.dict->len; i++)
        tv_push(r, list, self.u.dict->entries[i].value);
    return list;
}

METHOD(dict_items)
{
    (void)slots, (void)args;
    struct tv list = tv_list_new(r, self.u.dict->len);
    render_charge(r, self.u.dict->len * 4);
    for (size_t i = 0; i < self.u.dict->len && r->status == PH_OK; i++) {
        struct tv pair = tv_list_new(r, 2);
        tv_push(r, pair, self.u.dict->entries[i].key);
        tv_push(r, pair, self.u.dict->entries[i].value);
        tv_push(r, list, pair);
        if (r->status == PH_OK)
            pair.u.list->is_tuple = true;
    }
    return list;
}

METHOD(dict_get)
{
    (void)args;
    struct tv *found = tv_dict_find(r, self.u.dict, slots[0]);
    return found ? *found : args->len + args->named_len > 1 ? slots[1] : tv_none;
}

METHOD(dict_pop)
{
    struct tv *found = tv_dict_find(r, self.u.dict, slots[0]);
    struct tv value = found ? *found : slots[1];
    if (!found && args->len + args->named_len < 2)
        return render_fail(r, PH_ERR_ARG, "pop() of a key that is not there");
    if (found)
        tv_dict_remove(r, self.u.dict, slots[0]);
    return value;
}

METHOD(dict_setdefault)
{
    struct tv *found = tv_dict_find(r, self.u.dict, slots[0]);
    struct tv value = found ? *found : args->len + args->named_len > 1 ? slots[1] : tv_none;
    if (!found)
        tv_dict_set(r, self.u.dict, slots[0], value);
    return value;
}

/* From a dict, or from pairs. */
static void update_from(struct render *r, struct tv_dict *dict, struct tv from)
{
    if (from.kind == TV_DICT) {
        render_charge(r, from.u.dict->len);
        for (size_t i = 0; i < from.u.dict->len && r->status == PH_OK; i++)
            tv_dict_set(r, dict, from.u.dict->entries[i].key, from.u.dict->entries[i].value);
        return;
    }
    struct tv list = tv_list_of(r, from);
    for (size_t i = 0; r->status == PH_OK && i < list.u.list->len; i++) {
        struct tv pair = tv_list_of(r, list.u.list->items[i]);
        if (r->status == PH_OK && pair.u.list->len == 2)
            tv_dict_set(r, dict, pair.u.list->items[0], pair.u.list->items[1]);
        else
            render_fail(r, PH_ERR_ARG, "a dict is made of pairs");
    }
}

METHOD(dict_update)
{
    (void)slots;
    for (size_t i = 0; i < args->len; i++)
        update_from(r, self.u.dict, args->items[i]);
    for (size_t i = 0; i < args->named_len && r->status == PH_OK; i++)
        tv_dict_set(r, self.u.dict, tv_text(args->named[i].name), args->named[i].value);
    return tv_none;
}

METHOD(dict_copy)
{
    (void)slots, (void)args;
    struct tv copy = tv_dict_new(r);
    if (copy.kind == TV_DICT)
        update_from(r, copy.u.dict, self);
    return copy;
}

METHOD(dict_clear)
{
    (void)r, (void)slots, (void)args;
    *self.u.dict = (struct tv_dict){0};
    return tv_none;
}

static const struct builtin dict_methods[] = {
    {"keys", "", dict_keys},           {"values", "", dict_values},
    {"items", "", dict_items},         {"get", "key ?default", dict_get},
    {"pop", "key ?default", dict_pop}, {"setdefault", "key ?default", dict_setdefault},
    {"update", "*", dict_update},      {"copy", "", dict_copy},
    {"clear", "", dict_clear},
};

const struct builtin *dict_method_find(struct text name)
{
    return builtin_find(dict_methods, sizeof dict_methods / sizeof *dict_methods, name);
}

/* ---- loops and cyclers ---- */

METHOD(loop_cycle)
{
    (void)slots;
    if (args->len == 0)
        return render_fail(r, PH_ERR_ARG, "loop.cycle() needs at least one item");
    return args->items[self.u.loop->index % args->len];
}

METHOD(loop_changed)
{
    (void)slots;
    struct tv now = tv_list_new(r, args->len);
    for (size_t i = 0; i < args->len; i++)
        tv_push(r, now, args->items[i]);
    bool changed = !tv_equal(r, now, self.u.loop->last_changed);
    self.u.loop->last_changed = now;
    return tv_bool(changed);
}

static const struct builtin loop_methods[] = {{"cycle", "*", loop_cycle}, {"changed", "*", loop_changed}};

const struct builtin *loop_method_find(struct text name)
{
    return builtin_find(loop_methods, sizeof loop_methods / sizeof *loop_methods, name);
}

METHOD(cycler_next)
{
    (void)r, (void)slots, (void)args;
    struct tv_list *state = self.u.callable->self.u.list;
    struct tv *index = &state->items[state->len - 1];
    struct tv item = state->items[index->u.integer];
    *index = tv_int((index->u.integer + 1) % (int64_t)(state->len - 1));
    return item;
}

METHOD(cycler_reset)
{
    (void)r, (void)slots, (void)args;
    struct tv_list *state = self.u.callable->self.u.list;
    state->items[state->len - 1] = tv_int(0);
    return tv_none;
}

static const struct builtin cycler_methods[] = {{"next", "", cycler_next}, {"reset", "", cycler_reset}};

const struct builtin *cycler_method_find(struct text name)
{
    return builtin_find(cycler_methods, sizeof cycler_methods / sizeof *cycler_methods, name);
}
