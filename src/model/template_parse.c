/* Expressions of a chat template: recursive descent over Jinja's grammar.
 *
 * Loosest first: a if b else c | or | and | not | comparisons, chained | + - | ~ | * / // % | ** | unary,
 * which binds to a primary with its subscripts and calls; filters and tests follow that. Mind that in Jinja
 * ~ binds tighter than +, ** is left-associative, and a filter binds tighter than any operator but unary
 * minus. Only nesting recurses; chains of operators are loops, so depth is bounded by parser_enter. */
#include "model/template_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

const struct token *parser_peek(const struct parser *p, size_t ahead)
{
    size_t at = p->at + ahead;
    return &p->tokens[at < p->len ? at : p->len - 1];
}

void parser_fail(struct parser *p, const struct token *at, const char *fmt, ...)
{
    if (p->status != PH_OK)
        return;
    char what[256], where[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    template_where(p->t->source, at->pos, where, sizeof where);
    p->status = ph_fail(p->err, PH_ERR_FORMAT, "chat template %s: %s", where, what);
    p->at = p->len - 1; /* the end: every loop stops */
}

static void fail_memory(struct parser *p)
{
    if (p->status == PH_OK)
        p->status = ph_fail(p->err, PH_ERR_NOMEM, "no memory for the syntax tree of a chat template");
    p->at = p->len - 1;
}

struct node *parser_node(struct parser *p, enum node_kind kind)
{
    static const struct tv undefined = {.kind = TV_UNDEFINED};
    struct node *node = arena_calloc(&p->t->arena, 1, sizeof *node);
    if (!node) {
        fail_memory(p);
        return NULL;
    }
    node->kind = (uint8_t)kind;
    node->pos = parser_peek(p, 0)->pos;
    node->value = undefined;
    return node;
}

/* A node with up to two operands; NULL when memory is short, which is reported. */
static struct node *node_of(struct parser *p, enum node_kind kind, uint32_t pos, struct node *a,
                            struct node *b)
{
    struct node *node = parser_node(p, kind);
    if (node) {
        node->pos = pos;
        node->a = a;
        node->b = b;
    }
    return node;
}

bool parser_enter(struct parser *p)
{
    if (p->depth >= TEMPLATE_DEPTH_MAX)
        parser_fail(p, parser_peek(p, 0), "nested deeper than %d levels", TEMPLATE_DEPTH_MAX);
    p->depth++;
    return p->status == PH_OK;
}

void parser_leave(struct parser *p)
{
    p->depth--;
}

bool parser_skip(struct parser *p, enum token_kind kind)
{
    if (parser_peek(p, 0)->kind != kind)
        return false;
    p->at += kind != TOKEN_END;
    return true;
}

static bool token_is_word(const struct token *token, const char *word)
{
    return token->kind == TOKEN_NAME && text_is(token->text, word);
}

bool parser_at_word(const struct parser *p, const char *word)
{
    return token_is_word(parser_peek(p, 0), word);
}

bool parser_skip_word(struct parser *p, const char *word)
{
    if (!parser_at_word(p, word))
        return false;
    p->at++;
    return true;
}

void parser_expect(struct parser *p, enum token_kind kind, const char *what)
{
    const struct token *token = parser_peek(p, 0);
    if (parser_skip(p, kind))
        return;
    if (token->kind == TOKEN_END)
        parser_fail(p, token, "expected %s, but the template ends here", what);
    else
        parser_fail(p, token, "expected %s, found '%.*s'", what,
                    (int)(token->text.len < 40 ? token->text.len : 40), token->text.at);
}

/* ---- constants ---- */

static struct node *constant(struct parser *p, const struct token *token, struct tv value)
{
    struct node *node = parser_node(p, NODE_CONST);
    if (node) {
        node->pos = token->pos;
        node->value = value;
    }
    return node;
}

/* The digits without underscores, terminated, in the arena. */
static struct text plain_digits(struct parser *p, struct text digits)
{
    char *plain = arena_strndup(&p->t->arena, digits.at, digits.len);
    if (!plain) {
        fail_memory(p);
        return (struct text){"0", 1};
    }
    size_t len = 0;
    for (size_t i = 0; i < digits.len; i++)
        if (digits.at[i] != '_')
            plain[len++] = digits.at[i];
    plain[len] = '\0';
    return (struct text){plain, len};
}

static struct node *parse_number(struct parser *p, const struct token *token)
{
    struct text digits = plain_digits(p, token->text);
    if (token->kind == TOKEN_FLOAT)
        return constant(p, token, tv_float(strtod(digits.at, NULL)));
    int base = 10;
    const char *first = digits.at;
    if (digits.len > 2 && digits.at[0] == '0' && digits.at[1] > '9') {
        int mark = digits.at[1] | 0x20;
        base = mark == 'x' ? 16 : mark == 'o' ? 8 : 2;
        first += 2;
    }
    uint64_t value = 0;
    for (const char *c = first; *c; c++) {
        int digit = *c <= '9' ? *c - '0' : (*c | 0x20) - 'a' + 10;
        if (digit < 0 || digit >= base) {
            parser_fail(p, token, "'%s' is not a number", digits.at);
            return NULL;
        }
        if (value > ((uint64_t)INT64_MAX - (uint64_t)digit) / (uint64_t)base) {
            struct tv big = {.kind = TV_BIGINT, .u.text = digits};
            if (base != 10)
                parser_fail(p, token, "'%s' is too large", digits.at);
            return constant(p, token, big);
        }
        value = value * (uint64_t)base + (uint64_t)digit;
    }
    return constant(p, token, tv_int((int64_t)value));
}

static size_t put_code_point(char *out, uint32_t code_point)
{
    size_t len = utf8_encode(code_point, out);
    return len ? len : utf8_encode(UTF8_REPLACEMENT, out);
}

/* Reads up to `max` digits of a base; returns how many there were. */
static size_t read_digits(const char *at, size_t len, size_t max, uint32_t base, uint32_t *value)
{
    size_t n = 0;
    *value = 0;
    for (; n < len && n < max; n++) {
        char c = at[n];
        uint32_t digit = c >= '0' && c <= '9'                     ? (uint32_t)(c - '0')
                         : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (uint32_t)((c | 0x20) - 'a' + 10)
                                                                  : 99;
        if (digit >= base)
            break;
        *value = *value * base + digit;
    }
    return n;
}

/* One escape, as Python reads it: in[0] follows the backslash. Returns the bytes read; 0: keep as it is. */
static size_t unescape_one(const char *in, size_t len, char *out, size_t *out_len)
{
    static const char letters[] = "abfnrtv\\'\"", meanings[] = "\a\b\f\n\r\t\v\\'\"";
    static const struct {
        char mark;
        size_t digits;
    } hex[] = {{'x', 2}, {'u', 4}, {'U', 8}};
    uint32_t value = 0;
    const char *letter = in[0] ? strchr(letters, in[0]) : NULL;
    if (letter) {
        out[0] = meanings[letter - letters];
        *out_len = 1;
        return 1;
    }
    if (in[0] == '\n') {
        *out_len = 0;
        return 1;
    }
    size_t octal = read_digits(in, len, 3, 8, &value);
    if (octal) {
        *out_len = put_code_point(out, value);
        return octal;
    }
    for (size_t i = 0; i < sizeof hex / sizeof *hex; i++) {
        if (in[0] != hex[i].mark || read_digits(in + 1, len - 1, hex[i].digits, 16, &value) != hex[i].digits)
            continue;
        *out_len = put_code_point(out, value);
        return 1 + hex[i].digits;
    }
    return 0;
}

static size_t unescape(struct text in, char *out)
{
    size_t len = 0;
    for (size_t i = 0; i < in.len;) {
        size_t read = 0, written = 0;
        if (in.at[i] == '\\' && i + 1 < in.len)
            read = unescape_one(in.at + i + 1, in.len - i - 1, out + len, &written);
        if (read) {
            i += 1 + read;
            len += written;
        } else {
            out[len++] = in.at[i++];
        }
    }
    return len;
}

/* Adjacent literals are one string. No escape is longer than its text. */
static struct node *parse_string(struct parser *p)
{
    const struct token *first = parser_peek(p, 0);
    size_t size = 0, len = 0;
    for (size_t i = 0; parser_peek(p, i)->kind == TOKEN_STRING; i++)
        size += parser_peek(p, i)->text.len;
    char *bytes = arena_alloc(&p->t->arena, size + UTF8_LEN_MAX);
    if (!bytes) {
        fail_memory(p);
        return NULL;
    }
    while (parser_peek(p, 0)->kind == TOKEN_STRING) {
        len += unescape(parser_peek(p, 0)->text, bytes + len);
        p->at++;
    }
    return constant(p, first, tv_text((struct text){bytes, len}));
}

/* ---- primaries ---- */

static struct node *parse_name(struct parser *p)
{
    static const struct {
        const char *word;
        struct tv value;
    } words[] = {
        {"true", {TV_BOOL, {.boolean = true}}},
        {"True", {TV_BOOL, {.boolean = true}}},
        {"false", {TV_BOOL, {.boolean = false}}},
        {"False", {TV_BOOL, {.boolean = false}}},
        {"none", {.kind = TV_NONE}},
        {"None", {.kind = TV_NONE}},
    };
    const struct token *token = parser_peek(p, 0);
    struct node *node = parser_node(p, NODE_NAME);
    p->at++;
    if (!node)
        return NULL;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!text_is(token->text, words[i].word))
            continue;
        node->kind = NODE_CONST;
        node->value = words[i].value;
        return node;
    }
    node->name = parser_intern(p, token->text);
    node->value = tv_named_undefined(p->status == PH_OK ? p->t->names.names[node->name] : token->text);
    return node;
}

static void append(struct node ***tail, struct node *item)
{
    if (!item)
        return;
    **tail = item;
    *tail = &item->next;
}

/* Items up to a closing bracket; a comma may follow the last. */
static struct node *parse_items(struct parser *p, enum node_kind kind, enum token_kind close,
                                struct node *(*item)(struct parser *p))
{
    struct node *node = parser_node(p, kind), *list = NULL, **tail = &list;
    p->at++;
    while (p->status == PH_OK && parser_peek(p, 0)->kind != close) {
        append(&tail, item(p));
        if (parser_peek(p, 0)->kind != close)
            parser_expect(p, TOKEN_COMMA, "',' or a closing bracket");
    }
    parser_expect(p, close, "a closing bracket");
    if (node)
        node->list = list;
    return node;
}

static struct node *parse_pair(struct parser *p)
{
    uint32_t pos = parser_peek(p, 0)->pos;
    struct node *key = parse_expression(p);
    parser_expect(p, TOKEN_COLON, "':' after a key");
    return node_of(p, NODE_PAIR, pos, key, parse_expression(p));
}

static bool ends_expression_list(const struct parser *p)
{
    enum token_kind kind = parser_peek(p, 0)->kind;
    return kind == TOKEN_RPAREN || kind == TOKEN_BLOCK_END || kind == TOKEN_PRINT_END || kind == TOKEN_END ||
           kind == TOKEN_ASSIGN || parser_at_word(p, "in") || parser_at_word(p, "recursive");
}

static struct node *parse_or(struct parser *p);

struct node *parse_expression_list(struct parser *p, bool conditional)
{
    uint32_t pos = parser_peek(p, 0)->pos;
    struct node *first = conditional ? parse_expression(p) : parse_or(p);
    if (parser_peek(p, 0)->kind != TOKEN_COMMA)
        return first;
    struct node *tuple = node_of(p, NODE_TUPLE, pos, NULL, NULL), *list = first;
    struct node **tail = first ? &first->next : &list;
    while (p->status == PH_OK && parser_skip(p, TOKEN_COMMA) && !ends_expression_list(p))
        append(&tail, conditional ? parse_expression(p) : parse_or(p));
    if (tuple)
        tuple->list = list;
    return tuple;
}

static struct node *parse_parenthesis(struct parser *p)
{
    struct node *inner = parser_node(p, NODE_TUPLE);
    p->at++;
    if (parser_peek(p, 0)->kind != TOKEN_RPAREN)
        inner = parse_expression_list(p, true);
    parser_expect(p, TOKEN_RPAREN, "')'");
    return inner;
}

struct node *parse_primary(struct parser *p)
{
    const struct token *token = parser_peek(p, 0);
    switch (token->kind) {
    case TOKEN_NAME:
        return parse_name(p);
    case TOKEN_STRING:
        return parse_string(p);
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
        p->at++;
        return parse_number(p, token);
    case TOKEN_LPAREN:
        return parse_parenthesis(p);
    case TOKEN_LBRACKET:
        return parse_items(p, NODE_LIST, TOKEN_RBRACKET, parse_expression);
    case TOKEN_LBRACE:
        return parse_items(p, NODE_DICT, TOKEN_RBRACE, parse_pair);
    default:
        parser_expect(p, TOKEN_NAME, "an expression");
        return NULL;
    }
}

/* ---- what follows a primary: subscripts, calls, filters, tests ---- */

static struct node *parse_argument(struct parser *p)
{
    const struct token *token = parser_peek(p, 0);
    enum node_kind kind = NODE_ARG;
    if (token->kind == TOKEN_MUL)
        kind = NODE_STAR;
    else if (token->kind == TOKEN_POW)
        kind = NODE_STAR_STAR;
    else if (token->kind == TOKEN_NAME && parser_peek(p, 1)->kind == TOKEN_ASSIGN)
        kind = NODE_KWARG;
    p->at += kind == NODE_KWARG ? 2 : kind != NODE_ARG;
    struct node *node = node_of(p, kind, token->pos, parse_expression(p), NULL);
    if (node && kind == NODE_KWARG)
        node->value = tv_text(token->text);
    return node;
}

static struct node *parse_arguments(struct parser *p)
{
    struct node *call = parse_items(p, NODE_CALL, TOKEN_RPAREN, parse_argument);
    return call ? call->list : NULL;
}

static struct node *parse_call(struct parser *p, struct node *callee)
{
    struct node *node = node_of(p, NODE_CALL, callee ? callee->pos : 0, callee, NULL);
    struct node *list = parse_arguments(p);
    if (node)
        node->list = list;
    return node;
}

/* One bound of a slice, or NULL where it is left out. */
static struct node *parse_bound(struct parser *p)
{
    enum token_kind kind = parser_peek(p, 0)->kind;
    return kind == TOKEN_COLON || kind == TOKEN_RBRACKET ? NULL : parse_expression(p);
}

static struct node *parse_subscript(struct parser *p, struct node *object)
{
    uint32_t pos = parser_peek(p, 0)->pos;
    p->at++;
    struct node *first = parse_bound(p);
    if (!parser_skip(p, TOKEN_COLON)) {
        if (first && parser_peek(p, 0)->kind == TOKEN_COMMA)
            parser_fail(p, parser_peek(p, 0), "a subscript has one index");
        parser_expect(p, TOKEN_RBRACKET, "']'");
        if (!first)
            parser_fail(p, parser_peek(p, 0), "an index is missing in []");
        return node_of(p, NODE_ITEM, pos, object, first);
    }
    struct node *second = parse_bound(p);
    struct node *third = parser_skip(p, TOKEN_COLON) ? parse_bound(p) : NULL;
    parser_expect(p, TOKEN_RBRACKET, "']'");
    struct node *bounds = node_of(p, NODE_BOUNDS, pos, first, second);
    if (bounds)
        bounds->c = third;
    return node_of(p, NODE_SLICE, pos, object, bounds);
}

static struct node *parse_member(struct parser *p, struct node *object)
{
    uint32_t pos = parser_peek(p, 0)->pos;
    p->at++;
    const struct token *name = parser_peek(p, 0);
    if (name->kind == TOKEN_INTEGER) {
        p->at++;
        return node_of(p, NODE_ITEM, pos, object, parse_number(p, name));
    }
    parser_expect(p, TOKEN_NAME, "a name after '.'");
    struct node *node = node_of(p, NODE_ATTR, pos, object, NULL);
    if (node)
        node->value = tv_text(name->text);
    return node;
}

static struct node *parse_postfix(struct parser *p, struct node *node)
{
    while (p->status == PH_OK) {
        enum token_kind kind = parser_peek(p, 0)->kind;
        if (kind == TOKEN_DOT)
            node = parse_member(p, node);
        else if (kind == TOKEN_LBRACKET)
            node = parse_subscript(p, node);
        else if (kind == TOKEN_LPAREN)
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

/* Dotted names are one name. */
static struct text parse_dotted(struct parser *p, const char *what)
{
    const struct token *first = parser_peek(p, 0);
    parser_expect(p, TOKEN_NAME, what);
    struct text name = first->text;
    while (parser_peek(p, 0)->kind == TOKEN_DOT && parser_peek(p, 1)->kind == TOKEN_NAME) {
        struct text part = parser_peek(p, 1)->text;
        name.len = (size_t)(part.at + part.len - name.at);
        p->at += 2;
    }
    return name;
}

static struct node *parse_filter(struct parser *p, struct node *input)
{
    struct node *node = node_of(p, NODE_FILTER, parser_peek(p, 0)->pos, input, NULL);
    struct text name = parse_dotted(p, "the name of a filter");
    struct node *list = parser_peek(p, 0)->kind == TOKEN_LPAREN ? parse_arguments(p) : NULL;
    if (!node)
        return NULL;
    node->value = tv_text(name);
    node->builtin = filter_find(name);
    node->list = list;
    return node;
}

struct node *parse_filters(struct parser *p, struct node *input)
{
    do {
        input = parse_filter(p, input);
    } while (p->status == PH_OK && parser_skip(p, TOKEN_PIPE));
    return input;
}

/* A test may take one argument without parentheses: x is divisibleby 3. */
static bool begins_test_argument(const struct parser *p)
{
    static const char *const words[] = {"else", "or", "and", "if", "in", "not", "is", "recursive"};
    switch (parser_peek(p, 0)->kind) {
    case TOKEN_STRING:
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
    case TOKEN_LBRACKET:
    case TOKEN_LBRACE:
        return true;
    case TOKEN_NAME:
        break;
    default:
        return false;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (parser_at_word(p, words[i]))
            return false;
    return true;
}

static struct node *parse_test(struct parser *p, struct node *input)
{
    struct node *node = node_of(p, NODE_TEST, parser_peek(p, 0)->pos, input, NULL);
    p->at++;
    bool negated = parser_skip_word(p, "not");
    struct text name = parse_dotted(p, "the name of a test");
    struct node *list = NULL;
    if (parser_peek(p, 0)->kind == TOKEN_LPAREN) {
        list = parse_arguments(p);
    } else if (begins_test_argument(p)) {
        uint32_t pos = parser_peek(p, 0)->pos;
        list = node_of(p, NODE_ARG, pos, parse_postfix(p, parse_primary(p)), NULL);
    }
    if (!node)
        return NULL;
    node->op = negated;
    node->value = tv_text(name);
    node->builtin = test_find(name);
    node->list = list;
    return node;
}

static struct node *parse_filters_and_tests(struct parser *p, struct node *node)
{
    while (p->status == PH_OK) {
        if (parser_skip(p, TOKEN_PIPE))
            node = parse_filter(p, node);
        else if (parser_at_word(p, "is"))
            node = parse_test(p, node);
        else if (parser_peek(p, 0)->kind == TOKEN_LPAREN)
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

/* ---- operators ---- */

static struct node *parse_unary(struct parser *p, bool filters)
{
    if (!parser_enter(p)) {
        parser_leave(p);
        return NULL;
    }
    const struct token *token = parser_peek(p, 0);
    struct node *node;
    if (token->kind == TOKEN_SUB || token->kind == TOKEN_ADD) {
        p->at++;
        node = node_of(p, NODE_UNARY, token->pos, parse_unary(p, false), NULL);
        if (node)
            node->op = (uint8_t)token->kind;
    } else {
        node = parse_primary(p);
    }
    node = parse_postfix(p, node);
    if (filters)
        node = parse_filters_and_tests(p, node);
    parser_leave(p);
    return node;
}

/* Levels of left-associative operators, tightest first; level 2 is '~', which gathers its operands. */
enum { LEVEL_POW, LEVEL_MUL, LEVEL_CONCAT, LEVEL_ADD };

static bool is_level_operator(enum token_kind kind, int level)
{
    switch (level) {
    case LEVEL_POW:
        return kind == TOKEN_POW;
    case LEVEL_MUL:
        return kind >= TOKEN_MUL && kind <= TOKEN_MOD;
    case LEVEL_CONCAT:
        return kind == TOKEN_TILDE;
    default:
        return kind == TOKEN_ADD || kind == TOKEN_SUB;
    }
}

static struct node *parse_level(struct parser *p, int level)
{
    struct node *left = level == LEVEL_POW ? parse_unary(p, true) : parse_level(p, level - 1);
    struct node *concat = NULL, **tail = left ? &left->next : NULL;
    while (p->status == PH_OK && is_level_operator(parser_peek(p, 0)->kind, level)) {
        const struct token *op = parser_peek(p, 0);
        p->at++;
        struct node *right = level == LEVEL_POW ? parse_unary(p, true) : parse_level(p, level - 1);
        if (level != LEVEL_CONCAT) {
            left = node_of(p, NODE_BINARY, op->pos, left, right);
            if (left)
                left->op = (uint8_t)op->kind;
            continue;
        }
        concat = concat ? concat : node_of(p, NODE_CONCAT, op->pos, NULL, NULL);
        if (tail)
            append(&tail, right);
    }
    if (!concat)
        return left;
    concat->list = left;
    return concat;
}

static enum token_kind comparison_at(const struct parser *p, size_t *tokens)
{
    const struct token *token = parser_peek(p, 0);
    *tokens = 1;
    if (token->kind >= TOKEN_EQ && token->kind <= TOKEN_GE)
        return token->kind;
    if (token_is_word(token, "in"))
        return TOKEN_IN;
    *tokens = 2;
    if (token_is_word(token, "not") && token_is_word(parser_peek(p, 1), "in"))
        return TOKEN_NOT_IN;
    return TOKEN_END;
}

static struct node *parse_compare(struct parser *p)
{
    struct node *first = parse_level(p, LEVEL_ADD), *compare = NULL, **tail = NULL;
    size_t tokens = 0;
    enum token_kind op;
    while (p->status == PH_OK && (op = comparison_at(p, &tokens)) != TOKEN_END) {
        uint32_t pos = parser_peek(p, 0)->pos;
        p->at += tokens;
        if (!compare) {
            compare = node_of(p, NODE_COMPARE, pos, first, NULL);
            tail = compare ? &compare->list : NULL;
        }
        struct node *operand = node_of(p, NODE_OPERAND, pos, parse_level(p, LEVEL_ADD), NULL);
        if (operand && tail) {
            operand->op = (uint8_t)op;
            append(&tail, operand);
        }
    }
    return compare ? compare : first;
}

static struct node *parse_not(struct parser *p)
{
    uint32_t pos = parser_peek(p, 0)->pos;
    bool negated = false, any = false;
    while (parser_skip_word(p, "not")) {
        negated = !negated;
        any = true;
    }
    struct node *node = parse_compare(p);
    if (any)
        node = node_of(p, NODE_NOT, pos, node, NULL);
    if (any && !negated)
        node = node_of(p, NODE_NOT, pos, node, NULL);
    return node;
}

static struct node *parse_and(struct parser *p)
{
    struct node *left = parse_not(p);
    while (p->status == PH_OK && parser_at_word(p, "and")) {
        uint32_t pos = parser_peek(p, 0)->pos;
        p->at++;
        left = node_of(p, NODE_AND, pos, left, parse_not(p));
    }
    return left;
}

static struct node *parse_or(struct parser *p)
{
    struct node *left = parse_and(p);
    while (p->status == PH_OK && parser_at_word(p, "or")) {
        uint32_t pos = parser_peek(p, 0)->pos;
        p->at++;
        left = node_of(p, NODE_OR, pos, left, parse_and(p));
    }
    return left;
}

struct node *parse_expression(struct parser *p)
{
    if (!parser_enter(p)) {
        parser_leave(p);
        return NULL;
    }
    struct node *node = parse_or(p);
    while (p->status == PH_OK && parser_at_word(p, "if")) {
        struct node *cond = node_of(p, NODE_COND, parser_peek(p, 0)->pos, node, NULL);
        p->at++;
        struct node *test = parse_or(p);
        struct node *other = parser_skip_word(p, "else") ? parse_expression(p) : NULL;
        if (cond) {
            cond->b = test;
            cond->c = other;
        }
        node = cond;
    }
    parser_leave(p);
    return node;
}
