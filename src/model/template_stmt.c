/* Statements of a chat template: a table of words, each with the function that reads on from there. */
#include "model/template_int.h"

#include <string.h>

/* ---- names ---- */

static uint32_t hash_text(struct text text)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < text.len; i++)
        hash = (hash ^ (unsigned char)text.at[i]) * 16777619u;
    return hash;
}

static bool grow_names(struct arena *arena, struct name_table *table)
{
    size_t cap = table->cap ? table->cap * 2 : 64, slot_count = cap * 2;
    struct text *names = arena_calloc(arena, cap, sizeof *names);
    uint32_t *slots = arena_calloc(arena, slot_count, sizeof *slots);
    if (!names || !slots)
        return false;
    for (size_t i = 0; i < table->len; i++) {
        names[i] = table->names[i];
        size_t slot = hash_text(names[i]) & (slot_count - 1);
        while (slots[slot])
            slot = (slot + 1) & (slot_count - 1);
        slots[slot] = (uint32_t)i + 1;
    }
    *table = (struct name_table){names, table->len, cap, slots, slot_count};
    return true;
}

const uint32_t *template_name_find(const struct name_table *table, struct text name)
{
    size_t slot = hash_text(name) & (table->slot_count - 1);
    for (; table->slots[slot]; slot = (slot + 1) & (table->slot_count - 1))
        if (text_equal(table->names[table->slots[slot] - 1], name))
            return &table->slots[slot];
    return NULL;
}

uint32_t parser_intern(struct parser *p, struct text name)
{
    struct name_table *table = &p->t->names;
    if (table->len == table->cap && !grow_names(&p->t->arena, table)) {
        parser_fail(p, parser_peek(p, 0), "no memory for names");
        return 0;
    }
    size_t slot = hash_text(name) & (table->slot_count - 1);
    for (; table->slots[slot]; slot = (slot + 1) & (table->slot_count - 1))
        if (text_equal(table->names[table->slots[slot] - 1], name))
            return table->slots[slot] - 1;
    table->names[table->len] = name;
    table->slots[slot] = (uint32_t)++table->len;
    return table->slots[slot] - 1;
}

/* ---- helpers ---- */

static struct node *parse_body(struct parser *p, const char *const *ends);

/* Statements up to a tag whose word is one of `ends`; that word is the next token. */
static struct node *parse_until(struct parser *p, const char *const *ends)
{
    struct node *body = NULL;
    if (parser_enter(p))
        body = parse_body(p, ends);
    parser_leave(p);
    return body;
}

static void end_tag(struct parser *p)
{
    parser_expect(p, TOKEN_BLOCK_END, "'%}'");
}

/* A body, its closing word and the end of that tag. */
static struct node *parse_closed_by(struct parser *p, const char *end)
{
    const char *const ends[] = {end, NULL};
    end_tag(p);
    struct node *body = parse_until(p, ends);
    parser_skip_word(p, end);
    end_tag(p);
    return body;
}

static uint32_t expect_name(struct parser *p, const char *what)
{
    const struct token *token = parser_peek(p, 0);
    parser_expect(p, TOKEN_NAME, what);
    return p->status == PH_OK ? parser_intern(p, token->text) : 0;
}

/* A name, an attribute of a name, or a list of such, in parentheses or not. */
static struct node *parse_target(struct parser *p)
{
    if (!parser_enter(p)) {
        parser_leave(p);
        return NULL;
    }
    struct node *list = NULL, **tail = &list;
    uint32_t pos = parser_peek(p, 0)->pos;
    bool is_tuple = false;
    while (p->status == PH_OK) {
        struct node *item;
        if (parser_skip(p, TOKEN_LPAREN)) {
            item = parse_target(p);
            parser_expect(p, TOKEN_RPAREN, "')'");
        } else {
            item = parser_node(p, NODE_NAME);
            uint32_t name = expect_name(p, "the name of a variable");
            if (item)
                item->name = name;
        }
        while (item && parser_skip(p, TOKEN_DOT)) {
            struct node *attribute = parser_node(p, NODE_ATTR);
            const struct token *token = parser_peek(p, 0);
            parser_expect(p, TOKEN_NAME, "a name after '.'");
            if (!attribute)
                break;
            attribute->a = item;
            attribute->value = tv_text(token->text);
            item = attribute;
        }
        if (!item)
            break;
        *tail = item;
        tail = &item->next;
        if (!parser_skip(p, TOKEN_COMMA))
            break;
        is_tuple = true;
        if (parser_peek(p, 0)->kind != TOKEN_NAME && parser_peek(p, 0)->kind != TOKEN_LPAREN)
            break;
    }
    parser_leave(p);
    if (!is_tuple)
        return list;
    struct node *tuple = parser_node(p, NODE_TUPLE);
    if (tuple) {
        tuple->pos = pos;
        tuple->list = list;
    }
    return tuple;
}

struct node *parse_params(struct parser *p)
{
    struct node *list = NULL, **tail = &list;
    bool had_default = false;
    parser_expect(p, TOKEN_LPAREN, "'(' and the parameters");
    while (p->status == PH_OK && parser_peek(p, 0)->kind != TOKEN_RPAREN) {
        struct node *param = parser_node(p, NODE_PARAM);
        uint32_t name = expect_name(p, "the name of a parameter");
        if (!param)
            break;
        param->name = name;
        if (parser_skip(p, TOKEN_ASSIGN)) {
            param->a = parse_expression(p);
            had_default = true;
        } else if (had_default) {
            parser_fail(p, parser_peek(p, 0), "a parameter without default follows one with a default");
        }
        *tail = param;
        tail = &param->next;
        if (parser_peek(p, 0)->kind != TOKEN_RPAREN)
            parser_expect(p, TOKEN_COMMA, "',' or ')'");
    }
    parser_expect(p, TOKEN_RPAREN, "')'");
    return list;
}

/* ---- statements: the word was read, `node` is theirs to fill ---- */

static void parse_if(struct parser *p, struct node *node)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node->kind = NODE_IF;
    struct node **tail = &node->list;
    bool has_test = true;
    for (;;) {
        struct node *branch = parser_node(p, NODE_BRANCH);
        if (!branch || p->status != PH_OK)
            return;
        branch->a = has_test ? parse_expression_list(p, true) : NULL;
        end_tag(p);
        branch->body = parse_until(p, ends);
        *tail = branch;
        tail = &branch->next;
        if (parser_skip_word(p, "endif"))
            break;
        has_test = parser_skip_word(p, "elif");
        if (!has_test)
            parser_skip_word(p, "else");
    }
    end_tag(p);
}

static void parse_for(struct parser *p, struct node *node)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    node->kind = NODE_FOR;
    node->a = parse_target(p);
    if (!parser_skip_word(p, "in"))
        parser_fail(p, parser_peek(p, 0), "expected 'in' after the variables of a for");
    node->b = parse_expression_list(p, false);
    if (parser_skip_word(p, "if"))
        node->c = parse_expression(p);
    node->op = parser_skip_word(p, "recursive");
    end_tag(p);
    node->body = parse_until(p, ends);
    if (parser_skip_word(p, "else")) {
        node->other = parse_closed_by(p, "endfor");
        return;
    }
    parser_skip_word(p, "endfor");
    end_tag(p);
}

/* What filters of a block apply to. */
static struct node *parse_captured(struct parser *p)
{
    return parse_filters(p, parser_node(p, NODE_CAPTURE));
}

static void parse_set(struct parser *p, struct node *node)
{
    node->a = parse_target(p);
    if (parser_skip(p, TOKEN_ASSIGN)) {
        node->kind = NODE_SET;
        node->b = parse_expression_list(p, true);
        end_tag(p);
        return;
    }
    node->kind = NODE_SET_BLOCK;
    if (parser_skip(p, TOKEN_PIPE))
        node->b = parse_captured(p);
    node->body = parse_closed_by(p, "endset");
}

static void parse_macro(struct parser *p, struct node *node)
{
    node->kind = NODE_MACRO;
    node->name = expect_name(p, "the name of a macro");
    node->list = parse_params(p);
    node->body = parse_closed_by(p, "endmacro");
}

static void parse_call_block(struct parser *p, struct node *node)
{
    node->kind = NODE_CALL_BLOCK;
    if (parser_peek(p, 0)->kind == TOKEN_LPAREN)
        node->list = parse_params(p);
    const struct token *at = parser_peek(p, 0);
    node->a = parse_expression(p);
    if (p->status == PH_OK && (!node->a || node->a->kind != NODE_CALL))
        parser_fail(p, at, "a call block needs a call");
    node->body = parse_closed_by(p, "endcall");
}

static void parse_filter_block(struct parser *p, struct node *node)
{
    node->kind = NODE_FILTER_BLOCK;
    node->b = parse_captured(p);
    node->body = parse_closed_by(p, "endfilter");
}

static void parse_with(struct parser *p, struct node *node)
{
    node->kind = NODE_SCOPE;
    struct node **tail = &node->list;
    while (p->status == PH_OK && parser_peek(p, 0)->kind != TOKEN_BLOCK_END) {
        struct node *set = parser_node(p, NODE_SET);
        if (!set)
            break;
        set->a = parser_node(p, NODE_NAME);
        uint32_t name = expect_name(p, "the name of a variable");
        if (set->a)
            set->a->name = name;
        parser_expect(p, TOKEN_ASSIGN, "'='");
        set->b = parse_expression(p);
        *tail = set;
        tail = &set->next;
        if (!parser_skip(p, TOKEN_COMMA))
            break;
    }
    node->body = parse_closed_by(p, "endwith");
}

/* Marks what the model wrote, for training; prints its body. */
static void parse_generation(struct parser *p, struct node *node)
{
    node->kind = NODE_SCOPE;
    node->body = parse_closed_by(p, "endgeneration");
}

static void parse_break(struct parser *p, struct node *node)
{
    node->kind = NODE_BREAK;
    end_tag(p);
}

static void parse_continue(struct parser *p, struct node *node)
{
    node->kind = NODE_CONTINUE;
    end_tag(p);
}

static void parse_do(struct parser *p, struct node *node)
{
    node->kind = NODE_DO;
    node->a = parse_expression_list(p, true);
    end_tag(p);
}

static const struct {
    const char *word;
    void (*parse)(struct parser *p, struct node *node);
} statements[] = {
    {"if", parse_if},           {"for", parse_for},
    {"set", parse_set},         {"macro", parse_macro},
    {"call", parse_call_block}, {"filter", parse_filter_block},
    {"with", parse_with},       {"generation", parse_generation},
    {"break", parse_break},     {"continue", parse_continue},
    {"do", parse_do},
};

static struct node *parse_statement(struct parser *p)
{
    const struct token *word = parser_peek(p, 0);
    struct node *node = parser_node(p, NODE_DATA);
    parser_expect(p, TOKEN_NAME, "the name of a statement");
    if (!node || p->status != PH_OK)
        return NULL;
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (text_is(word->text, statements[i].word)) {
            statements[i].parse(p, node);
            return node;
        }
    }
    parser_fail(p, word, "'%.*s' is not a statement this interpreter knows, or its opening tag is missing",
                (int)(word->text.len < 40 ? word->text.len : 40), word->text.at);
    return NULL;
}

static struct node *parse_print(struct parser *p)
{
    struct node *node = parser_node(p, NODE_PRINT);
    p->at++;
    struct node *expression = parse_expression_list(p, true);
    parser_expect(p, TOKEN_PRINT_END, "'}}'");
    if (node)
        node->a = expression;
    return node;
}

static bool at_end_word(const struct parser *p, const char *const *ends)
{
    for (; *ends; ends++)
        if (parser_at_word(p, *ends))
            return true;
    return false;
}

static struct node *parse_body(struct parser *p, const char *const *ends)
{
    struct node *first = NULL, **tail = &first;
    while (p->status == PH_OK) {
        const struct token *token = parser_peek(p, 0);
        struct node *node = NULL;
        if (token->kind == TOKEN_END) {
            if (*ends)
                parser_fail(p, token, "expected {%% %s %%}, but the template ends here", *ends);
            break;
        }
        if (token->kind == TOKEN_DATA) {
            node = parser_node(p, NODE_DATA);
            p->at++;
            if (node)
                node->value = tv_text(token->text);
        } else if (token->kind == TOKEN_PRINT_BEGIN) {
            node = parse_print(p);
        } else {
            parser_expect(p, TOKEN_BLOCK_BEGIN, "text or a tag");
            if (at_end_word(p, ends))
                break;
            node = parse_statement(p);
        }
        if (!node)
            break;
        *tail = node;
        tail = &node->next;
    }
    return first;
}

enum ph_status template_parse(struct chat_template *t, const struct token_stream *tokens, struct ph_err *err)
{
    static const char *const no_end[] = {NULL};
    struct parser p = {.t = t, .tokens = tokens->items, .len = tokens->len, .err = err};
    t->name_loop = parser_intern(&p, text_of("loop"));
    t->name_caller = parser_intern(&p, text_of("caller"));
    t->name_varargs = parser_intern(&p, text_of("varargs"));
    t->name_kwargs = parser_intern(&p, text_of("kwargs"));
    t->body = parse_body(&p, no_end);
    return p.status;
}
