/* Expressions: a tree walk, one function a kind of node. Failure and the budgets of steps and depth live
 * here too, because every path comes through eval(). */
#include "model/template_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- failure and budgets ---- */

struct tv render_fail(struct render *r, enum ph_status code, const char *fmt, ...)
{
    if (r->status != PH_OK)
        return tv_undefined;
    char what[PH_ERR_MESSAGE_MAX], where[64] = "";
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (r->node)
        template_where(r->t->source, r->node->pos, where, sizeof where);
    r->status = ph_fail(r->err, code, "chat template %s: %s", where, what);
    return tv_undefined;
}

bool render_enter(struct render *r)
{
    r->depth++;
    if (r->depth > TEMPLATE_EVAL_DEPTH_MAX)
        render_fail(r, PH_ERR_LIMIT, "nested deeper than %d levels", TEMPLATE_EVAL_DEPTH_MAX);
    return r->status == PH_OK;
}

void render_leave(struct render *r)
{
    r->depth--;
}

static void count_steps(struct render *r, uint64_t steps)
{
    r->steps += steps;
    if (r->steps > TEMPLATE_STEPS_MAX)
        render_fail(r, PH_ERR_LIMIT, "rendering takes more than %d steps", TEMPLATE_STEPS_MAX);
}

void render_charge(struct render *r, size_t items)
{
    count_steps(r, items / 4);
}

void render_charge_bytes(struct render *r, size_t bytes)
{
    count_steps(r, bytes / 256);
}

void *render_alloc(struct render *r, size_t size)
{
    void *memory = r->status == PH_OK ? arena_alloc(&r->arena, size) : NULL;
    if (!memory)
        render_fail(r, PH_ERR_LIMIT, "rendering takes more than %u bytes of memory",
                    TEMPLATE_ARENA_BYTES_MAX);
    return memory;
}

/* ---- variables ---- */

void scope_bind(struct render *r, struct tv_scope *scope, uint32_t name, struct tv value)
{
    if (!scope->parent) {
        r->globals[name] = value;
        return;
    }
    size_t passed = 0;
    for (struct tv_binding *b = scope->first; b; b = b->next, passed++) {
        if (b->name == name) {
            b->value = value;
            return;
        }
    }
    render_charge(r, passed / 4);
    struct tv_binding *binding = r->spare;
    if (binding)
        r->spare = binding->next;
    else
        binding = render_alloc(r, sizeof *binding);
    if (!binding)
        return;
    *binding = (struct tv_binding){name, value, scope->first};
    scope->first = binding;
}

void scope_clear(struct render *r, struct tv_scope *scope)
{
    while (scope->first) {
        struct tv_binding *binding = scope->first;
        scope->first = binding->next;
        binding->next = r->spare;
        r->spare = binding;
    }
}

static struct tv eval_name(struct render *r, const struct node *node)
{
    size_t passed = 0;
    for (const struct tv_scope *scope = r->scope; scope->parent; scope = scope->parent) {
        for (const struct tv_binding *b = scope->first; b; b = b->next, passed++)
            if (b->name == node->name)
                return b->value;
    }
    render_charge(r, passed / 4);
    struct tv value = r->globals[node->name];
    return value.kind == TV_UNDEFINED ? node->value : value;
}

static void assign_all(struct render *r, const struct node *targets, struct tv value)
{
    struct tv list = tv_list_of(r, value);
    size_t wanted = 0;
    for (const struct node *target = targets; target; target = target->next)
        wanted++;
    if (r->status != PH_OK)
        return;
    if (list.u.list->len != wanted) {
        render_fail(r, PH_ERR_ARG, "%zu values cannot be unpacked into %zu variables", list.u.list->len,
                    wanted);
        return;
    }
    const struct tv *items = list.u.list->items;
    for (const struct node *target = targets; target; target = target->next)
        assign(r, target, *items++);
}

void assign(struct render *r, const struct node *target, struct tv value)
{
    if (r->status != PH_OK)
        return;
    if (target->kind == NODE_NAME) {
        scope_bind(r, r->scope, target->name, value);
    } else if (target->kind == NODE_TUPLE) {
        assign_all(r, target->list, value);
    } else {
        struct tv object = eval(r, target->a);
        if (object.kind == TV_NAMESPACE || object.kind == TV_DICT)
            tv_dict_set(r, object.u.dict, target->value, value);
        else
            render_fail(r, PH_ERR_ARG, "only attributes of a namespace can be set, not of '%s'",
                        tv_type_name(object));
    }
}

/* ---- one function a kind ---- */

static struct tv eval_const(struct render *r, const struct node *node)
{
    (void)r;
    return node->value;
}

static struct tv eval_list(struct render *r, const struct node *node)
{
    struct tv list = tv_list_new(r, 0);
    for (const struct node *item = node->list; item && r->status == PH_OK; item = item->next)
        tv_push(r, list, eval(r, item));
    if (list.kind == TV_LIST)
        list.u.list->is_tuple = node->kind == NODE_TUPLE;
    return list;
}

static struct tv eval_dict(struct render *r, const struct node *node)
{
    struct tv dict = tv_dict_new(r);
    for (const struct node *pair = node->list; pair && r->status == PH_OK; pair = pair->next) {
        struct tv key = eval(r, pair->a);
        struct tv value = eval(r, pair->b);
        if (r->status == PH_OK)
            tv_dict_set(r, dict.u.dict, key, value);
    }
    return dict;
}

static struct tv eval_attr(struct render *r, const struct node *node)
{
    struct tv object = eval(r, node->a);
    r->node = node;
    return tv_attribute(r, object, node->value.u.text);
}

static struct tv eval_item(struct render *r, const struct node *node)
{
    struct tv object = eval(r, node->a);
    struct tv key = eval(r, node->b);
    r->node = node;
    return r->status == PH_OK ? tv_item(r, object, key) : tv_undefined;
}

static struct tv eval_slice(struct render *r, const struct node *node)
{
    struct tv object = eval(r, node->a);
    struct tv start = node->b->a ? eval(r, node->b->a) : tv_none;
    struct tv stop = node->b->b ? eval(r, node->b->b) : tv_none;
    struct tv step = node->b->c ? eval(r, node->b->c) : tv_none;
    r->node = node;
    return r->status == PH_OK ? tv_slice(r, object, start, stop, step) : tv_undefined;
}

static struct tv eval_call(struct render *r, const struct node *node)
{
    struct tv callee = eval(r, node->a);
    struct tv_args args;
    args_eval(r, node->list, &args);
    r->node = node;
    return r->status == PH_OK ? call_value(r, callee, &args) : tv_undefined;
}

static struct tv eval_filter(struct render *r, const struct node *node)
{
    struct tv input = eval(r, node->a);
    struct tv_args args;
    args_eval(r, node->list, &args);
    r->node = node;
    if (!node->builtin)
        return render_fail(r, PH_ERR_UNSUPPORTED, "there is no filter '%.*s'", (int)node->value.u.text.len,
                           node->value.u.text.at);
    return r->status == PH_OK ? call_builtin(r, node->builtin, input, &args) : tv_undefined;
}

static struct tv eval_test(struct render *r, const struct node *node)
{
    struct tv input = eval(r, node->a);
    struct tv_args args;
    args_eval(r, node->list, &args);
    r->node = node;
    if (!node->builtin)
        return render_fail(r, PH_ERR_UNSUPPORTED, "there is no test '%.*s'", (int)node->value.u.text.len,
                           node->value.u.text.at);
    if (r->status != PH_OK)
        return tv_undefined;
    bool result = tv_truth(call_builtin(r, node->builtin, input, &args));
    return tv_bool(result != (bool)node->op);
}

static struct tv eval_capture(struct render *r, const struct node *node)
{
    (void)node;
    return r->captured;
}

static struct tv eval_cond(struct render *r, const struct node *node)
{
    if (eval_truth(r, node->b))
        return eval(r, node->a);
    return node->c ? eval(r, node->c) : tv_undefined;
}

static struct tv eval_and(struct render *r, const struct node *node)
{
    struct tv left = eval(r, node->a);
    return tv_truth(left) ? eval(r, node->b) : left;
}

static struct tv eval_or(struct render *r, const struct node *node)
{
    struct tv left = eval(r, node->a);
    return tv_truth(left) ? left : eval(r, node->b);
}

static struct tv eval_not(struct render *r, const struct node *node)
{
    return tv_bool(!eval_truth(r, node->a));
}

static struct tv eval_unary(struct render *r, const struct node *node)
{
    struct tv operand = eval(r, node->a);
    r->node = node;
    return r->status == PH_OK ? tv_unary(r, node->op, operand) : tv_undefined;
}

static struct tv eval_binary(struct render *r, const struct node *node)
{
    struct tv left = eval(r, node->a);
    struct tv right = eval(r, node->b);
    r->node = node;
    return r->status == PH_OK ? tv_binary(r, node->op, left, right) : tv_undefined;
}

static struct tv eval_concat(struct render *r, const struct node *node)
{
    struct tv result = tv_literal("");
    for (const struct node *item = node->list; item && r->status == PH_OK; item = item->next) {
        struct text text = tv_str(r, eval(r, item));
        if (r->status == PH_OK)
            result = text_concat(r, result.u.text, text);
    }
    return result;
}

static struct tv eval_compare(struct render *r, const struct node *node)
{
    struct tv left = eval(r, node->a);
    for (const struct node *operand = node->list; operand; operand = operand->next) {
        struct tv right = eval(r, operand->a);
        r->node = operand;
        if (r->status != PH_OK || !tv_relation(r, operand->op, left, right))
            return tv_bool(false);
        left = right;
    }
    return tv_bool(true);
}

struct tv eval(struct render *r, const struct node *node)
{
    static struct tv (*const functions[NODE_KIND_COUNT])(struct render *, const struct node *) = {
        [NODE_CONST] = eval_const,   [NODE_NAME] = eval_name,       [NODE_LIST] = eval_list,
        [NODE_TUPLE] = eval_list,    [NODE_DICT] = eval_dict,       [NODE_ATTR] = eval_attr,
        [NODE_ITEM] = eval_item,     [NODE_SLICE] = eval_slice,     [NODE_CALL] = eval_call,
        [NODE_FILTER] = eval_filter, [NODE_TEST] = eval_test,       [NODE_CAPTURE] = eval_capture,
        [NODE_COND] = eval_cond,     [NODE_AND] = eval_and,         [NODE_OR] = eval_or,
        [NODE_NOT] = eval_not,       [NODE_UNARY] = eval_unary,     [NODE_BINARY] = eval_binary,
        [NODE_CONCAT] = eval_concat, [NODE_COMPARE] = eval_compare,
    };
    struct tv result = tv_undefined;
    r->node = node;
    count_steps(r, 1);
    if (render_enter(r))
        result = functions[node->kind](r, node);
    render_leave(r);
    return r->status == PH_OK ? result : tv_undefined;
}

bool eval_truth(struct render *r, const struct node *node)
{
    return tv_truth(eval(r, node)) && r->status == PH_OK;
}
