/* Inside the chat template interpreter: tokens, syntax tree, values, the state of a render, builtins.
 *
 * Failure is sticky. A parser or a render that failed keeps the first reason and goes on returning harmless
 * values (NULL nodes are never evaluated, undefined is valid everywhere); whoever loops or has effects looks
 * at `status` first. */
#ifndef PHAROS_MODEL_TEMPLATE_INT_H
#define PHAROS_MODEL_TEMPLATE_INT_H

#include "base/limits.h"
#include "model/model.h"

/* ---- values ---- */

enum tv_kind {
    TV_UNDEFINED, /* text: the name that was looked for, or empty */
    TV_NONE,
    TV_BOOL,
    TV_INT,
    TV_BIGINT, /* text: an integer of a JSON document beyond 64 bits; printed, never computed with */
    TV_FLOAT,
    TV_STRING, /* text: valid UTF-8 */
    TV_LIST,
    TV_DICT,
    TV_NAMESPACE, /* dict whose members are attributes that `set` may write */
    TV_LOOP,
    TV_CALLABLE
};

struct text {
    const char *at;
    size_t len;
};

struct tv {
    enum tv_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct text text;
        struct tv_list *list;
        struct tv_dict *dict;
        struct tv_loop *loop;
        struct tv_callable *callable;
    } u;
};

struct tv_list {
    struct tv *items;
    size_t len, cap;
    bool is_tuple;
};

struct tv_entry {
    struct tv key, value;
};

struct tv_dict {
    struct tv_entry *entries; /* in order of insertion */
    size_t len, cap;
    uint32_t *slots; /* hash index: entry + 1, 0 is free; NULL while small */
    size_t slot_count;
};

struct tv_loop {
    const struct node *node;
    struct tv_scope *outer;
    const struct tv *items;
    size_t len, index;
    int64_t depth0;
    struct tv last_changed; /* arguments of the last loop.changed() */
};

enum callable_kind { CALL_BUILTIN, CALL_MACRO, CALL_CYCLER };

struct tv_callable {
    enum callable_kind kind;
    const struct builtin *builtin;
    struct tv self; /* what a method is bound to; a joiner's or cycler's state */
    const struct node *macro;
    struct tv_scope *scope; /* where the macro was defined */
};

/* ---- syntax tree ---- */

enum node_kind {
    /* expressions */
    NODE_CONST,
    NODE_NAME,
    NODE_LIST,
    NODE_TUPLE,
    NODE_DICT, /* list of NODE_PAIR: a key, b value */
    NODE_PAIR,
    NODE_ATTR,  /* a, value: name */
    NODE_ITEM,  /* a[b] */
    NODE_SLICE, /* a[b.a : b.b : b.c], b is a NODE_BOUNDS */
    NODE_BOUNDS,
    NODE_CALL,    /* a, list of arguments */
    NODE_FILTER,  /* a, value: name, list of arguments */
    NODE_TEST,    /* a, value: name, list of arguments, op: negated */
    NODE_CAPTURE, /* the text a filter block captured */
    NODE_COND,    /* a if b else c */
    NODE_AND,
    NODE_OR,
    NODE_NOT,
    NODE_UNARY,   /* op a */
    NODE_BINARY,  /* a op b */
    NODE_CONCAT,  /* list, joined by ~ */
    NODE_COMPARE, /* a, list of NODE_OPERAND */
    NODE_OPERAND, /* op a */
    /* arguments and parameters */
    NODE_ARG,       /* a */
    NODE_KWARG,     /* value: name, a */
    NODE_STAR,      /* *a */
    NODE_STAR_STAR, /* **a */
    NODE_PARAM,     /* name, a: default or NULL */
    /* statements */
    NODE_DATA,  /* value */
    NODE_PRINT, /* a */
    NODE_IF,    /* list of NODE_BRANCH: a test or NULL, body */
    NODE_BRANCH,
    NODE_FOR,       /* a target, b iterable, c filter or NULL, body, other, op: recursive */
    NODE_SET,       /* a target, b value */
    NODE_SET_BLOCK, /* a target, b filters over the capture or NULL, body */
    NODE_MACRO,     /* name, list of NODE_PARAM, body */
    NODE_CALL_BLOCK,
    NODE_FILTER_BLOCK, /* b filters over the capture, body */
    NODE_SCOPE,        /* list of NODE_SET (with), body */
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_DO, /* a: evaluated for its effects */
    NODE_KIND_COUNT
};

struct node {
    uint8_t kind; /* enum node_kind */
    uint8_t op;   /* enum token_kind of an operator, or a flag */
    uint32_t pos; /* byte in the source, for messages */
    uint32_t name;
    struct node *next; /* sibling */
    struct node *a, *b, *c;
    struct node *list, *body, *other;
    struct tv value;
    const struct builtin *builtin; /* of filters and tests; NULL: unknown, an error when reached */
};

enum token_kind {
    TOKEN_END,
    TOKEN_DATA,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_PRINT_BEGIN,
    TOKEN_PRINT_END,
    TOKEN_NAME,
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_STRING,
    TOKEN_ADD,
    TOKEN_SUB,
    TOKEN_MUL,
    TOKEN_DIV,
    TOKEN_FLOOR_DIV,
    TOKEN_MOD,
    TOKEN_POW,
    TOKEN_TILDE,
    TOKEN_EQ,
    TOKEN_NE,
    TOKEN_LT,
    TOKEN_LE,
    TOKEN_GT,
    TOKEN_GE,
    TOKEN_IN,     /* made by the parser of names */
    TOKEN_NOT_IN, /* made by the parser of names */
    TOKEN_ASSIGN,
    TOKEN_DOT,
    TOKEN_COMMA,
    TOKEN_COLON,
    TOKEN_SEMICOLON,
    TOKEN_PIPE,
    TOKEN_LPAREN,
    TOKEN_RPAREN,
    TOKEN_LBRACKET,
    TOKEN_RBRACKET,
    TOKEN_LBRACE,
    TOKEN_RBRACE
};

struct token {
    enum token_kind kind;
    uint32_t pos;
    struct text
        text; /* DATA: to be printed; STRING: between the quotes, escaped; NAME, numbers: as written */
};

struct name_table {
    struct text *names;
    size_t len, cap;
    uint32_t *slots; /* hash index: name + 1 */
    size_t slot_count;
};

struct chat_template {
    struct arena arena;
    struct text source; /* newlines are \n, a last one is dropped */
    struct node *body;
    struct name_table names;
    uint32_t name_loop, name_caller, name_varargs, name_kwargs;
};

/* Tokens of a source, in mem_alloc'd memory. */
struct token_stream {
    struct token *items;
    size_t len, cap;
};

PH_MUST_USE enum ph_status template_lex(struct text source, struct token_stream *out, struct ph_err *err);
PH_MUST_USE enum ph_status template_parse(struct chat_template *t, const struct token_stream *tokens,
                                          struct ph_err *err);
/* Points to the name's number plus 1; NULL: the template does not mention it. */
const uint32_t *template_name_find(const struct name_table *table, struct text name);
/* Writes "line L column C" of a byte of the source. */
void template_where(struct text source, size_t pos, char *out, size_t size);

/* ---- the parser's own interface between expressions and statements ---- */

struct parser {
    struct chat_template *t;
    const struct token *tokens;
    size_t at, len; /* tokens[len - 1] is TOKEN_END */
    unsigned depth;
    enum ph_status status;
    struct ph_err *err;
};

const struct token *parser_peek(const struct parser *p, size_t ahead);
struct node *parser_node(struct parser *p, enum node_kind kind);
void parser_fail(struct parser *p, const struct token *at, const char *fmt, ...) PH_PRINTF(3, 4);
bool parser_enter(struct parser *p); /* one level deeper; false: too deep, reported */
void parser_leave(struct parser *p);
bool parser_skip(struct parser *p, enum token_kind kind);
bool parser_skip_word(struct parser *p, const char *word);
bool parser_at_word(const struct parser *p, const char *word);
void parser_expect(struct parser *p, enum token_kind kind, const char *what);
uint32_t parser_intern(struct parser *p, struct text name);
struct node *parse_expression(struct parser *p);
struct node *parse_expression_list(struct parser *p, bool conditional); /* a, b: a tuple */
struct node *parse_primary(struct parser *p);
struct node *parse_filters(struct parser *p, struct node *input); /* name|name(...), the first one inline */
struct node *parse_params(struct parser *p);

/* ---- rendering ---- */

struct tv_binding {
    uint32_t name;
    struct tv value;
    struct tv_binding *next;
};

struct tv_scope {
    struct tv_scope *parent; /* NULL: the root, whose variables are render.globals */
    struct tv_binding *first;
};

struct render {
    const struct chat_template *t;
    const struct clock_source *clock;
    struct arena arena;
    struct buf out;
    struct tv *globals; /* by name */
    struct tv_scope root;
    struct tv_scope *scope;
    struct tv_binding *spare; /* bindings to use again */
    struct tv captured;       /* what NODE_CAPTURE means */
    const char *tail;         /* end of the newest concatenation, which can grow in place */
    size_t tail_room;
    const struct node *node; /* where we are, for messages */
    uint64_t steps;
    unsigned depth;
    enum ph_status status;
    struct ph_err *err;
};

/* The first failure wins. Returns undefined. `fmt` says what; where is added. */
struct tv render_fail(struct render *r, enum ph_status code, const char *fmt, ...) PH_PRINTF(3, 4);
bool render_enter(struct render *r);
void render_leave(struct render *r);
void render_charge(struct render *r, size_t items); /* work in proportion to items costs steps */
void render_charge_bytes(struct render *r, size_t bytes);
void *render_alloc(struct render *r, size_t size); /* NULL: failed, reported */
struct tv eval(struct render *r, const struct node *node);
bool eval_truth(struct render *r, const struct node *node);
void assign(struct render *r, const struct node *target, struct tv value);
void scope_bind(struct render *r, struct tv_scope *scope, uint32_t name, struct tv value);
void scope_clear(struct render *r, struct tv_scope *scope);
enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };
enum flow exec_body(struct render *r, const struct node *first);
struct tv exec_captured(struct render *r, const struct node *body); /* what the body prints, as a string */
struct tv exec_loop(struct render *r, const struct node *node, struct tv_scope *outer, struct tv iterable,
                    int64_t depth0);

/* ---- calls ---- */

struct tv_kwarg {
    struct text name;
    struct tv value;
};

struct tv_args {
    struct tv *items;
    size_t len;
    struct tv_kwarg *named;
    size_t named_len;
};

#define BUILTIN_PARAMS_MAX 6

/* params: names in order, separated by blanks, '?' before an optional one; "*": takes `args` as they are.
 * A slot that was not given is undefined. */
struct builtin {
    const char *name;
    const char *params;
    struct tv (*fn)(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args);
};

void args_eval(struct render *r, const struct node *list, struct tv_args *out);
struct tv call_builtin(struct render *r, const struct builtin *builtin, struct tv self,
                       const struct tv_args *args);
struct tv call_value(struct render *r, struct tv callee, const struct tv_args *args);
struct tv call_macro(struct render *r, const struct tv_callable *macro, const struct tv_args *args);

const struct builtin *builtin_find(const struct builtin *table, size_t len, struct text name);
const struct builtin *filter_find(struct text name);
const struct builtin *test_find(struct text name);
const struct builtin *global_find(struct text name);
const struct builtin *method_find(struct tv self, struct text name);
const struct builtin *text_filter_find(struct text name);
const struct builtin *list_filter_find(struct text name);
const struct builtin *string_method_find(struct text name);
const struct builtin *list_method_find(struct text name);
const struct builtin *dict_method_find(struct text name);
const struct builtin *loop_method_find(struct text name);
const struct builtin *cycler_method_find(struct text name);

/* ---- operations on values ---- */

extern const struct tv tv_undefined;
extern const struct tv tv_none;
struct tv tv_bool(bool value);
struct tv tv_int(int64_t value);
struct tv tv_size(size_t value);
struct tv tv_float(double value);
struct tv tv_text(struct text text);
struct tv tv_literal(const char *text);
struct tv tv_named_undefined(struct text name);
struct text text_of(const char *literal);
bool text_is(struct text text, const char *literal);
bool text_equal(struct text a, struct text b);
struct tv tv_string_copy(struct render *r, const char *bytes, size_t len);
struct tv tv_buf(struct render *r, struct buf *buf); /* its bytes as a string; releases it */
struct tv tv_from_json(struct render *r, const struct json *json);
struct tv tv_callable_new(struct render *r, struct tv_callable callable);

bool tv_is_number(struct tv v);   /* int, float, bool */
bool tv_is_integral(struct tv v); /* int, bool */
int64_t tv_integer(struct tv v);
double tv_number(struct tv v);
bool tv_truth(struct tv v);
const char *tv_type_name(struct tv v); /* as Python calls it */
bool tv_equal(struct render *r, struct tv a, struct tv b);
int tv_compare(struct render *r, struct tv a, struct tv b); /* fails for types without an order */
bool tv_contains(struct render *r, struct tv container, struct tv item);
struct tv tv_length(struct render *r, struct tv v);
struct tv tv_attribute(struct render *r, struct tv v, struct text name);
struct tv tv_item(struct render *r, struct tv v, struct tv key);
struct tv tv_slice(struct render *r, struct tv v, struct tv start, struct tv stop, struct tv step);
struct tv tv_path(struct render *r, struct tv v, struct tv path); /* "a.b.0", or an integer */
struct tv tv_binary(struct render *r, enum token_kind op, struct tv a, struct tv b);
struct tv tv_unary(struct render *r, enum token_kind op, struct tv a);
bool tv_relation(struct render *r, enum token_kind op, struct tv a, struct tv b);

struct tv tv_list_new(struct render *r, size_t cap);
bool tv_push(struct render *r, struct tv list, struct tv item);
/* A stable order of keys, in new memory; NULL: failed. */
size_t *tv_sort_order(struct render *r, const struct tv *keys, size_t len, bool reverse);
struct tv tv_list_of(struct render *r, struct tv v); /* iterates: a list or tuple is itself, else a new one */
struct tv tv_dict_new(struct render *r);
struct tv *tv_dict_find(struct render *r, struct tv_dict *dict, struct tv key); /* NULL: absent */
void tv_dict_set(struct render *r, struct tv_dict *dict, struct tv key, struct tv value);
bool tv_dict_remove(struct render *r, struct tv_dict *dict, struct tv key);

/* ---- text ---- */

struct text tv_str(struct render *r, struct tv v); /* as str() */
void print_str(struct render *r, struct buf *out, struct tv v);
void print_repr(struct render *r, struct buf *out, struct tv v);
void print_float(struct buf *out, double value); /* as Python's repr */

struct json_style {
    bool ascii, sort;
    struct text indent; /* a level's; at NULL: everything on one line */
    struct text item_separator, key_separator;
};
void print_json(struct render *r, struct buf *out, struct tv v, const struct json_style *style);

struct tv format_percent(struct render *r, struct text format, struct tv args);
struct tv format_braces(struct render *r, struct text format, const struct tv_args *args);

struct tv text_concat(struct render *r, struct text a, struct text b);
struct text text_strip(struct text text, struct text chars, bool left,
                       bool right);                 /* chars.at NULL: blanks */
size_t text_count(struct text text);                /* code points */
size_t text_offset(struct text text, size_t index); /* byte of a code point; len when past the end */
struct tv text_map(struct render *r, struct text text, const char *how); /* upper lower title capitalize... */
bool code_point_is_space(uint32_t c);
const char *text_find(struct text haystack, struct text needle); /* NULL: absent */
const char *text_find_last(struct text haystack, struct text needle);
struct tv text_replace(struct render *r, struct text text, struct text old, struct text new, int64_t count);
bool text_next_line(struct text *rest, struct text *line, size_t *ending); /* false: rest was empty */
struct tv text_split(struct render *r, struct text text, struct tv separator, int64_t max, bool from_right);

#endif
