/* Statements: what they print goes to render.out; where a body's text is wanted as a value, the end of the
 * output is cut off again.
 *
 * Scopes: a loop's body, a macro, a block that is captured and `with` see outward and bind inward; `if` makes
 * none. A loop uses one scope for all its rounds, emptied before each, as Python's function locals are. */
#include "model/template_int.h"

#include <string.h>

struct tv exec_captured(struct render *r, const struct node *body)
{
    size_t begin = r->out.len;
    exec_body(r, body);
    if (r->status != PH_OK || r->out.len == begin)
        return tv_literal("");
    struct tv text = tv_string_copy(r, r->out.data + begin, r->out.len - begin);
    r->out.len = begin;
    r->out.data[begin] = '\0';
    return text;
}

static struct tv_scope *push_scope(struct render *r, struct tv_scope *parent)
{
    struct tv_scope *scope = render_alloc(r, sizeof *scope);
    if (!scope)
        return NULL;
    *scope = (struct tv_scope){.parent = parent};
    r->scope = scope;
    return scope;
}

static enum flow exec_data(struct render *r, const struct node *node)
{
    buf_append(&r->out, node->value.u.text.at, node->value.u.text.len);
    return FLOW_NEXT;
}

static enum flow exec_print(struct render *r, const struct node *node)
{
    struct tv value = eval(r, node->a);
    if (r->status == PH_OK)
        print_str(r, &r->out, value);
    return FLOW_NEXT;
}

static enum flow exec_if(struct render *r, const struct node *node)
{
    for (const struct node *branch = node->list; branch && r->status == PH_OK; branch = branch->next)
        if (!branch->a || eval_truth(r, branch->a))
            return exec_body(r, branch->body);
    return FLOW_NEXT;
}

/* ---- loops ---- */

/* The items for which the loop's own `if` holds. */
static struct tv filter_items(struct render *r, const struct node *node, const struct tv_list *items)
{
    struct tv kept = tv_list_new(r, 0);
    for (size_t i = 0; i < items->len && r->status == PH_OK; i++) {
        scope_clear(r, r->scope);
        assign(r, node->a, items->items[i]);
        if (eval_truth(r, node->c))
            tv_push(r, kept, items->items[i]);
    }
    return kept;
}

/* A dict unpacked into two variables gives its pairs; Jinja would unpack the letters of a key. */
static struct tv loop_items(struct render *r, const struct node *target, struct tv iterable)
{
    bool pairs = iterable.kind == TV_DICT && target->kind == NODE_TUPLE;
    if (pairs) {
        const struct tv_args none = {0};
        iterable = call_builtin(r, dict_method_find(text_of("items")), iterable, &none);
    }
    return tv_list_of(r, iterable);
}

static void run_loop(struct render *r, const struct node *node, struct tv_loop *loop)
{
    for (size_t i = 0; i < loop->len && r->status == PH_OK; i++) {
        loop->index = i;
        scope_clear(r, r->scope);
        scope_bind(r, r->scope, r->t->name_loop, (struct tv){TV_LOOP, {.loop = loop}});
        assign(r, node->a, loop->items[i]);
        if (exec_body(r, node->body) == FLOW_BREAK)
            break;
    }
}

static void loop_over(struct render *r, const struct node *node, struct tv iterable, int64_t depth0)
{
    struct tv_scope *outer = r->scope;
    struct tv_loop *loop = render_alloc(r, sizeof *loop);
    struct tv items = loop_items(r, node->a, iterable);
    if (!loop || r->status != PH_OK || !push_scope(r, outer))
        return;
    if (node->c)
        items = filter_items(r, node, items.u.list);
    if (r->status == PH_OK && items.u.list->len == 0) {
        r->scope = outer;
        exec_body(r, node->other);
    } else if (r->status == PH_OK) {
        *loop = (struct tv_loop){.node = node,
                                 .outer = outer,
                                 .items = items.u.list->items,
                                 .len = items.u.list->len,
                                 .depth0 = depth0};
        run_loop(r, node, loop);
    }
    r->scope = outer;
}

static enum flow exec_for(struct render *r, const struct node *node)
{
    struct tv iterable = eval(r, node->b);
    r->node = node;
    if (r->status == PH_OK)
        loop_over(r, node, iterable, 0);
    return FLOW_NEXT;
}

/* loop(children) inside of a recursive loop */
struct tv exec_loop(struct render *r, const struct node *node, struct tv_scope *outer, struct tv iterable,
                    int64_t depth0)
{
    struct tv_scope *caller = r->scope;
    size_t begin = r->out.len;
    struct tv text = tv_literal("");
    r->scope = outer;
    if (render_enter(r))
        loop_over(r, node, iterable, depth0);
    render_leave(r);
    r->scope = caller;
    if (r->status == PH_OK && r->out.len > begin) {
        text = tv_string_copy(r, r->out.data + begin, r->out.len - begin);
        r->out.len = begin;
        r->out.data[begin] = '\0';
    }
    return text;
}

/* ---- bindings ---- */

static enum flow exec_set(struct render *r, const struct node *node)
{
    struct tv value = eval(r, node->b);
    r->node = node;
    assign(r, node->a, value);
    return FLOW_NEXT;
}

/* A body's text, through filters if there are any. */
static struct tv captured_text(struct render *r, const struct node *body, const struct node *filters)
{
    struct tv_scope *outer = r->scope;
    struct tv text = tv_literal("");
    if (push_scope(r, outer))
        text = exec_captured(r, body);
    r->scope = outer;
    if (!filters)
        return text;
    struct tv before = r->captured;
    r->captured = text;
    text = eval(r, filters);
    r->captured = before;
    return text;
}

static enum flow exec_set_block(struct render *r, const struct node *node)
{
    struct tv text = captured_text(r, node->body, node->b);
    assign(r, node->a, text);
    return FLOW_NEXT;
}

static enum flow exec_filter_block(struct render *r, const struct node *node)
{
    struct tv text = captured_text(r, node->body, node->b);
    if (r->status == PH_OK)
        print_str(r, &r->out, text);
    return FLOW_NEXT;
}

static enum flow exec_scope(struct render *r, const struct node *node)
{
    struct tv_scope *outer = r->scope, *inner = push_scope(r, outer);
    for (const struct node *set = node->list; set && inner && r->status == PH_OK; set = set->next) {
        r->scope = outer; /* values of `with` don't see each other */
        struct tv value = eval(r, set->b);
        r->scope = inner;
        assign(r, set->a, value);
    }
    enum flow flow = exec_body(r, node->body);
    r->scope = outer;
    return flow;
}

/* ---- macros ---- */

static struct tv make_macro(struct render *r, const struct node *node)
{
    return tv_callable_new(r, (struct tv_callable){.kind = CALL_MACRO, .macro = node, .scope = r->scope});
}

static enum flow exec_macro(struct render *r, const struct node *node)
{
    scope_bind(r, r->scope, node->name, make_macro(r, node));
    return FLOW_NEXT;
}

static enum flow exec_call_block(struct render *r, const struct node *node)
{
    struct tv callee = eval(r, node->a->a);
    struct tv_args args;
    args_eval(r, node->a->list, &args);
    struct tv_kwarg *named = render_alloc(r, (args.named_len + 1) * sizeof *named);
    if (!named || r->status != PH_OK)
        return FLOW_NEXT;
    if (args.named_len)
        memcpy(named, args.named, args.named_len * sizeof *named);
    named[args.named_len] = (struct tv_kwarg){text_of("caller"), make_macro(r, node)};
    args.named = named;
    args.named_len++;
    r->node = node;
    struct tv result = call_value(r, callee, &args);
    if (r->status == PH_OK)
        print_str(r, &r->out, result);
    return FLOW_NEXT;
}

static enum flow exec_break(struct render *r, const struct node *node)
{
    (void)r;
    (void)node;
    return FLOW_BREAK;
}

static enum flow exec_continue(struct render *r, const struct node *node)
{
    (void)r;
    (void)node;
    return FLOW_CONTINUE;
}

static enum flow exec_do(struct render *r, const struct node *node)
{
    (void)eval(r, node->a);
    return FLOW_NEXT;
}

static enum flow exec(struct render *r, const struct node *node)
{
    static enum flow (*const functions[NODE_KIND_COUNT])(struct render *, const struct node *) = {
        [NODE_DATA] = exec_data,   [NODE_PRINT] = exec_print,
        [NODE_IF] = exec_if,       [NODE_FOR] = exec_for,
        [NODE_SET] = exec_set,     [NODE_SET_BLOCK] = exec_set_block,
        [NODE_MACRO] = exec_macro, [NODE_CALL_BLOCK] = exec_call_block,
        [NODE_SCOPE] = exec_scope, [NODE_FILTER_BLOCK] = exec_filter_block,
        [NODE_BREAK] = exec_break, [NODE_CONTINUE] = exec_continue,
        [NODE_DO] = exec_do,
    };
    r->node = node;
    r->steps++;
    return functions[node->kind](r, node);
}

enum flow exec_body(struct render *r, const struct node *first)
{
    enum flow flow = FLOW_NEXT;
    if (render_enter(r))
        for (const struct node *node = first; node && r->status == PH_OK && flow == FLOW_NEXT;
             node = node->next)
            flow = exec(r, node);
    render_leave(r);
    if (buf_status(&r->out) != PH_OK)
        render_fail(r, PH_ERR_LIMIT, "the prompt is longer than %u bytes", TEMPLATE_OUTPUT_BYTES_MAX);
    return flow;
}
