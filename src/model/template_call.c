/* Calls: arguments are evaluated once, then bound to a builtin's slots by its table entry, or to a macro's
 * parameters. */
#include "model/template_int.h"

#include <string.h>

/* ---- arguments ---- */

static void count_args(const struct node *list, size_t *items, size_t *named)
{
    for (const struct node *arg = list; arg; arg = arg->next) {
        *items += arg->kind == NODE_ARG;
        *named += arg->kind == NODE_KWARG;
    }
}

/* *values and **members */
static void spread(struct render *r, enum node_kind kind, struct tv v, struct tv_args *args)
{
    bool named = kind == NODE_STAR_STAR;
    if (named && v.kind != TV_DICT) {
        render_fail(r, PH_ERR_ARG, "'**' needs a dict, not '%s'", tv_type_name(v));
        return;
    }
    struct tv list = named ? tv_undefined : tv_list_of(r, v);
    size_t more = named ? v.u.dict->len : list.kind == TV_LIST ? list.u.list->len : 0;
    size_t have = named ? args->named_len : args->len;
    size_t size = named ? sizeof *args->named : sizeof *args->items;
    char *grown = render_alloc(r, (have + more) * size);
    render_charge(r, have + more);
    if (!grown || r->status != PH_OK)
        return;
    if (have)
        memcpy(grown, named ? (const void *)args->named : (const void *)args->items, have * size);
    if (!named) {
        args->items = (struct tv *)(void *)grown;
        for (size_t i = 0; i < more; i++)
            args->items[args->len++] = list.u.list->items[i];
        return;
    }
    args->named = (struct tv_kwarg *)(void *)grown;
    for (size_t i = 0; i < more; i++) {
        const struct tv_entry *entry = &v.u.dict->entries[i];
        args->named[args->named_len++] = (struct tv_kwarg){tv_str(r, entry->key), entry->value};
    }
}

void args_eval(struct render *r, const struct node *list, struct tv_args *out)
{
    size_t items = 0, named = 0;
    *out = (struct tv_args){0};
    if (!list)
        return;
    count_args(list, &items, &named);
    out->items = items ? render_alloc(r, items * sizeof *out->items) : NULL;
    out->named = named ? render_alloc(r, named * sizeof *out->named) : NULL;
    if (r->status != PH_OK)
        return;
    /* Spread arguments come after all positional and named ones: Jinja allows them nowhere else. */
    for (const struct node *arg = list; arg && r->status == PH_OK; arg = arg->next) {
        if (arg->kind == NODE_ARG)
            out->items[out->len++] = eval(r, arg->a);
        else if (arg->kind == NODE_KWARG)
            out->named[out->named_len++] = (struct tv_kwarg){arg->value.u.text, eval(r, arg->a)};
    }
    for (const struct node *arg = list; arg && r->status == PH_OK; arg = arg->next)
        if (arg->kind == NODE_STAR || arg->kind == NODE_STAR_STAR)
            spread(r, arg->kind, eval(r, arg->a), out);
}

/* ---- builtins ---- */

const struct builtin *builtin_find(const struct builtin *table, size_t len, struct text name)
{
    for (size_t i = 0; i < len; i++)
        if (text_is(name, table[i].name))
            return &table[i];
    return NULL;
}

const struct builtin *filter_find(struct text name)
{
    const struct builtin *found = text_filter_find(name);
    return found ? found : list_filter_find(name);
}

const struct builtin *method_find(struct tv self, struct text name)
{
    switch (self.kind) {
    case TV_STRING:
        return string_method_find(name);
    case TV_LIST:
        return list_method_find(name);
    case TV_DICT:
        return dict_method_find(name);
    case TV_LOOP:
        return loop_method_find(name);
    case TV_CALLABLE:
        return self.u.callable->kind == CALL_CYCLER ? cycler_method_find(name) : NULL;
    default:
        return NULL;
    }
}

struct param {
    struct text name;
    bool optional;
};

static size_t read_params(const char *list, struct param *out)
{
    size_t len = 0;
    while (*list && len < BUILTIN_PARAMS_MAX) {
        bool optional = *list == '?';
        list += optional;
        size_t size = strcspn(list, " ");
        out[len++] = (struct param){{list, size}, optional};
        list += size;
        list += *list == ' ';
    }
    return len;
}

static bool bind_named(const struct param *params, size_t count, const struct tv_kwarg *arg, struct tv *slots,
                       bool *given)
{
    for (size_t i = 0; i < count; i++) {
        if (text_equal(params[i].name, arg->name) && !given[i]) {
            slots[i] = arg->value;
            given[i] = true;
            return true;
        }
    }
    return false;
}

static bool bind_slots(struct render *r, const struct builtin *builtin, const struct tv_args *args,
                       struct tv *slots)
{
    struct param params[BUILTIN_PARAMS_MAX];
    bool given[BUILTIN_PARAMS_MAX] = {false};
    size_t count = read_params(builtin->params, params);
    if (args->len > count) {
        render_fail(r, PH_ERR_ARG, "%s() takes at most %zu arguments, not %zu", builtin->name, count,
                    args->len);
        return false;
    }
    for (size_t i = 0; i < args->len; i++) {
        slots[i] = args->items[i];
        given[i] = true;
    }
    for (size_t i = 0; i < args->named_len; i++) {
        struct text name = args->named[i].name;
        if (bind_named(params, count, &args->named[i], slots, given))
            continue;
        render_fail(r, PH_ERR_ARG, "%s() has no argument '%.*s', or was given it twice", builtin->name,
                    (int)(name.len < 40 ? name.len : 40), name.at);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (given[i] || params[i].optional)
            continue;
        render_fail(r, PH_ERR_ARG, "%s() needs its argument '%.*s'", builtin->name, (int)params[i].name.len,
                    params[i].name.at);
        return false;
    }
    return true;
}

struct tv call_builtin(struct render *r, const struct builtin *builtin, struct tv self,
                       const struct tv_args *args)
{
    struct tv slots[BUILTIN_PARAMS_MAX] = {{.kind = TV_UNDEFINED}};
    if (r->status != PH_OK)
        return tv_undefined;
    if (builtin->params[0] != '*' && !bind_slots(r, builtin, args, slots))
        return tv_undefined;
    struct tv result = tv_undefined;
    if (render_enter(r))
        result = builtin->fn(r, self, slots, args);
    render_leave(r);
    return r->status == PH_OK ? result : tv_undefined;
}

/* ---- macros ---- */

static bool is_taken(const bool *taken, size_t i)
{
    return taken && taken[i];
}

static struct tv find_named(struct tv_args *args, bool *taken, struct text name, bool *found)
{
    for (size_t i = 0; i < args->named_len; i++) {
        if (is_taken(taken, i) || !text_equal(args->named[i].name, name))
            continue;
        taken[i] = true;
        *found = true;
        return args->named[i].value;
    }
    *found = false;
    return tv_undefined;
}

/* What no parameter took: varargs, kwargs and caller. */
static void bind_rest(struct render *r, struct tv_scope *scope, const struct tv_args *args, size_t used,
                      const bool *taken)
{
    struct tv varargs = tv_list_new(r, 0), kwargs = tv_dict_new(r);
    if (r->status != PH_OK)
        return;
    varargs.u.list->is_tuple = true;
    for (size_t i = used; i < args->len; i++)
        tv_push(r, varargs, args->items[i]);
    for (size_t i = 0; i < args->named_len; i++) {
        if (is_taken(taken, i))
            continue;
        if (text_is(args->named[i].name, "caller"))
            scope_bind(r, scope, r->t->name_caller, args->named[i].value);
        else
            tv_dict_set(r, kwargs.u.dict, tv_text(args->named[i].name), args->named[i].value);
    }
    scope_bind(r, scope, r->t->name_varargs, varargs);
    scope_bind(r, scope, r->t->name_kwargs, kwargs);
}

static void bind_params(struct render *r, const struct node *macro, struct tv_args *args)
{
    struct tv_scope *scope = r->scope;
    size_t used = 0;
    bool *taken = args->named_len ? render_alloc(r, args->named_len) : NULL;
    if (taken)
        memset(taken, 0, args->named_len);
    for (const struct node *param = macro->list; param && r->status == PH_OK; param = param->next) {
        bool found = used < args->len;
        render_charge(r, args->named_len);
        struct tv value =
            found ? args->items[used++] : find_named(args, taken, r->t->names.names[param->name], &found);
        if (!found)
            value = param->a ? eval(r, param->a) : tv_named_undefined(r->t->names.names[param->name]);
        scope_bind(r, scope, param->name, value);
    }
    if (r->status == PH_OK && (used < args->len || args->named_len))
        bind_rest(r, scope, args, used, taken);
}

struct tv call_macro(struct render *r, const struct tv_callable *macro, const struct tv_args *args)
{
    struct tv_scope *caller = r->scope, *scope = render_alloc(r, sizeof *scope);
    struct tv_args own = *args;
    struct tv text = tv_literal("");
    if (!scope)
        return tv_undefined;
    *scope = (struct tv_scope){.parent = macro->scope};
    r->scope = scope;
    if (render_enter(r)) {
        bind_params(r, macro->macro, &own);
        text = exec_captured(r, macro->macro->body);
    }
    render_leave(r);
    r->scope = caller;
    return text;
}

struct tv call_value(struct render *r, struct tv callee, const struct tv_args *args)
{
    if (callee.kind == TV_LOOP && args->len == 1) {
        const struct tv_loop *loop = callee.u.loop;
        if (!loop->node->op)
            return render_fail(r, PH_ERR_ARG, "loop() needs a loop marked 'recursive'");
        return exec_loop(r, loop->node, loop->outer, args->items[0], loop->depth0 + 1);
    }
    if (callee.kind == TV_UNDEFINED)
        return render_fail(r, PH_ERR_ARG, "'%.*s' is undefined and cannot be called",
                           (int)(callee.u.text.len < 80 ? callee.u.text.len : 80),
                           callee.u.text.len ? callee.u.text.at : "");
    if (callee.kind != TV_CALLABLE)
        return render_fail(r, PH_ERR_ARG, "'%s' cannot be called", tv_type_name(callee));
    if (callee.u.callable->kind == CALL_MACRO)
        return call_macro(r, callee.u.callable, args);
    return call_builtin(r, callee.u.callable->builtin, callee.u.callable->self, args);
}
