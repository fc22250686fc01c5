/* The parser.
 *
 * The text is copied into the arena once, with zeros behind it, and parsed in place: a string stays where it
 * is and gets its terminator over the closing quote, an escaped one shrinks towards its start, a number gets
 * its terminator over the delimiter behind it once that has been read. A node is the only other allocation.
 * The zeros are a sentinel (no rule accepts a 0 byte), so nothing asks for the end of the text at each step.
 *
 * Invariants:
 *  1. `at` never passes `end`: every rule that advances has seen a byte that is not 0, or is a string's.
 *  2. Bytes behind `at` are untouched; bytes before it may be overwritten. Messages quote the caller's text.
 *  3. There is no recursion. An open container has no next sibling yet, so its `next` holds its parent until
 *     it closes. */
#include "base/json.h"

#include <string.h>

#include "base/json_int.h"
#include "base/utf8.h"

struct parser {
    struct arena *arena;
    char *copy; /* the text, JSON_WORD_BYTES zeros behind it */
    char *end;
    char *number_end; /* byte to be zeroed when the delimiter there has been read; else `end` */
    size_t depth;
    enum ph_status status; /* of the failure */
    const char *fault;     /* what was wrong, set with fault_at */
    const char *fault_at;
};

static char *fail(struct parser *p, const char *at, enum ph_status status, const char *fault)
{
    p->fault_at = at;
    p->status = status;
    p->fault = fault;
    return NULL;
}

static char *fail_format(struct parser *p, const char *at, const char *fault)
{
    return fail(p, at, PH_ERR_FORMAT, fault);
}

static char *skip_space(char *at)
{
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
        at++;
    return at;
}

/* Skips the bytes of a string that stand for themselves. The zeros behind the text stop it. */
static char *skip_plain(char *at)
{
    uint64_t mask;
    while (!(mask = json_special_mask(json_load_word(at))))
        at += JSON_WORD_BYTES;
    return at + json_mask_index(mask);
}

/* Four hexadecimal digits, or -1. */
static int32_t read_hex4(const char *at)
{
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        int32_t digit;
        if (at[i] >= '0' && at[i] <= '9')
            digit = at[i] - '0';
        else if (at[i] >= 'a' && at[i] <= 'f')
            digit = at[i] - 'a' + 10;
        else if (at[i] >= 'A' && at[i] <= 'F')
            digit = at[i] - 'A' + 10;
        else
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* `at` is on the 'u'. A pair of surrogates is one character; a lone one becomes U+FFFD, because clients that
 * cut a string by UTF-16 units do send it and refusing would lose the whole request. */
static char *read_unicode_escape(struct parser *p, char *at, char **out)
{
    int32_t unit = read_hex4(at + 1);
    if (unit < 0)
        return fail_format(p, at - 1, "\\u needs four hexadecimal digits");
    at += 5;
    uint32_t code_point = (uint32_t)unit;
    if (unit >= 0xD800 && unit <= 0xDBFF && at[0] == '\\' && at[1] == 'u') {
        int32_t low = read_hex4(at + 2);
        if (low >= 0xDC00 && low <= 0xDFFF) {
            code_point = 0x10000 + ((uint32_t)(unit - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
            at += 6;
        }
    }
    size_t len = utf8_encode(code_point, *out);
    *out += len ? len : utf8_encode(UTF8_REPLACEMENT, *out);
    return at;
}

/* `at` is on the backslash. */
static char *read_escape(struct parser *p, char *at, char **out)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    char name = at[1];
    if (name == 'u')
        return read_unicode_escape(p, at + 1, out);
    const char *found = name ? strchr(names, name) : NULL;
    if (!found)
        return fail_format(p, at, "unknown escape in a string");
    *(*out)++ = values[found - names];
    return at + 2;
}

/* The string from its first byte that does not stand for itself; `out` is where that byte belongs. */
static char *read_string_rest(struct parser *p, char *start, char *at, size_t *len)
{
    char *out = at;
    while (*at != '"') {
        unsigned char c = (unsigned char)*at;
        char *from = at;
        if (c == '\\') {
            at = read_escape(p, at, &out);
            if (!at)
                return NULL;
            continue;
        }
        if (c >= 0x80) {
            uint32_t code_point;
            size_t char_len = utf8_decode(at, (size_t)(p->end - at), &code_point);
            if (char_len == 0)
                return fail_format(p, at, "invalid UTF-8 in a string");
            at += char_len;
        } else if (at == p->end) {
            return fail_format(p, start - 1, "this string has no closing quote");
        } else if (c < 0x20) {
            return fail_format(p, at, "control characters in a string must be escaped");
        } else {
            at = skip_plain(at);
        }
        if (out != from)
            memmove(out, from, (size_t)(at - from));
        out += at - from;
    }
    *out = 0;
    *len = (size_t)(out - start);
    return at + 1;
}

/* `at` is behind the opening quote; the answer is behind the closing one. */
static char *read_string(struct parser *p, char *at, size_t *len, bool *is_plain)
{
    char *stop = skip_plain(at);
    *is_plain = *stop == '"';
    if (!*is_plain)
        return read_string_rest(p, at, stop, len);
    *stop = 0;
    *len = (size_t)(stop - at);
    return stop + 1;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char *skip_digits(char *at)
{
    while (is_digit(*at))
        at++;
    return at;
}

static char *read_number(struct parser *p, char *at, struct json *node)
{
    char *start = at;
    if (*at == '-')
        at++;
    if (!is_digit(*at))
        return fail_format(p, at, "expected a digit");
    if (*at == '0' && is_digit(at[1]))
        return fail_format(p, at, "a number can't begin with 0");
    at = skip_digits(at);
    if (*at == '.') {
        if (!is_digit(at[1]))
            return fail_format(p, at + 1, "expected a digit behind the decimal point");
        at = skip_digits(at + 1);
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        if (*at == '+' || *at == '-')
            at++;
        if (!is_digit(*at))
            return fail_format(p, at, "expected a digit in the exponent");
        at = skip_digits(at);
    }
    node->type = JSON_NUMBER;
    node->u.str.text = start;
    node->u.str.len = (size_t)(at - start);
    p->number_end = at;
    return at;
}

/* The zeros behind the text make eight bytes readable anywhere in it. */
static char *read_literal(struct parser *p, char *at, struct json *node)
{
    if (memcmp(at, "true", 4) == 0)
        node->type = JSON_TRUE;
    else if (memcmp(at, "null", 4) == 0)
        node->type = JSON_NULL;
    else if (memcmp(at, "false", 5) == 0)
        node->type = JSON_FALSE;
    else
        return fail_format(p, at, "expected a value");
    return at + (node->type == JSON_FALSE ? 5 : 4);
}

/* Reads a scalar, or the opening bracket of a container. */
static char *read_value(struct parser *p, char *at, struct json *node)
{
    bool is_plain;
    switch (*at) {
    case '"':
        node->type = JSON_STRING;
        node->u.str.text = at + 1;
        at = read_string(p, at + 1, &node->u.str.len, &is_plain);
        node->is_plain = is_plain;
        return at;
    case '{':
    case '[':
        node->type = *at == '{' ? JSON_OBJECT : JSON_ARRAY;
        node->u.list.first = node->u.list.last = NULL;
        node->u.list.count = node->u.list.names = 0;
        return at + 1;
    default:
        return *at == '-' || is_digit(*at) ? read_number(p, at, node) : read_literal(p, at, node);
    }
}

/* A member's name and the colon behind it. */
static char *read_key(struct parser *p, char *at, struct json *node)
{
    if (*at != '"')
        return fail_format(p, at, "expected a member's name in double quotes");
    size_t len;
    bool is_plain;
    node->key = at + 1;
    char *behind = read_string(p, at + 1, &len, &is_plain);
    if (!behind)
        return NULL;
    node->key_is_plain = is_plain;
    if (len > UINT32_MAX)
        return fail(p, at, PH_ERR_LIMIT, "this member's name is too long");
    node->key_len = (uint32_t)len;
    at = skip_space(behind);
    if (*at != ':')
        return fail_format(p, at, "expected ':' behind a member's name");
    return skip_space(at + 1);
}

static void link_last(struct json *parent, struct json *node)
{
    if (parent->u.list.last)
        parent->u.list.last->next = node;
    else
        parent->u.list.first = node;
    parent->u.list.last = node;
    parent->u.list.count++;
    if (node->key)
        parent->u.list.names |= NAME_BIT(node->key, node->key_len);
}

/* Reads one value with its key and hangs it on its parent. */
static char *read_node(struct parser *p, char *at, struct json *parent, struct json **out)
{
    struct json *node = arena_alloc(p->arena, sizeof *node);
    if (!node)
        return fail(p, at, PH_ERR_NOMEM, "no memory left for this document");
    node->key = NULL;
    node->key_len = 0;
    node->is_plain = node->key_is_plain = false;
    node->next = NULL;
    if (parent && parent->type == JSON_OBJECT) {
        at = read_key(p, at, node);
        if (!at)
            return NULL;
    }
    at = read_value(p, at, node);
    if (!at)
        return NULL;
    if (parent)
        link_last(parent, node);
    *out = node;
    return at;
}

/* Enters a container that has just been opened, unless it is empty; `*parent` becomes what is open then. */
static char *enter(struct parser *p, char *at, struct json *node, struct json **parent)
{
    if (p->depth == JSON_DEPTH_MAX)
        return fail(p, at - 1, PH_ERR_LIMIT, "arrays and objects are nested too deep");
    at = skip_space(at);
    if (*at == (node->type == JSON_OBJECT ? '}' : ']'))
        return at + 1;
    p->depth++;
    node->next = *parent;
    *parent = node;
    return at;
}

/* Behind a value: a comma leads to the next one, a bracket closes the parent. Stops where a value must follow
 * or where nothing is open any more. */
static char *leave(struct parser *p, char *at, struct json **parent)
{
    for (;;) {
        at = skip_space(at);
        char c = *at;
        *p->number_end = 0;
        p->number_end = p->end;
        struct json *open = *parent;
        if (!open)
            return at;
        bool object = open->type == JSON_OBJECT;
        if (c == ',')
            return skip_space(at + 1);
        if (c != (object ? '}' : ']'))
            return fail_format(
                p, at, object ? "expected ',' or '}' in an object" : "expected ',' or ']' in an array");
        at++;
        *parent = open->next;
        open->next = NULL;
        p->depth--;
    }
}

static struct json *parse_document(struct parser *p)
{
    struct json *root = NULL, *parent = NULL;
    char *at = skip_space(p->copy);
    do {
        struct json *node;
        at = read_node(p, at, parent, &node);
        if (!at)
            return NULL;
        if (!root)
            root = node;
        struct json *before = parent;
        if (node->type >= JSON_ARRAY) {
            at = enter(p, at, node, &parent);
            if (!at)
                return NULL;
        }
        if (parent == before) {
            at = leave(p, at, &parent);
            if (!at)
                return NULL;
        }
    } while (parent);
    if (at != p->end) {
        fail_format(p, at, "text behind the end of the document");
        return NULL;
    }
    return root;
}

/* Puts the failure into words: where it is, and the byte found there. */
static enum ph_status report(const struct parser *p, const char *text, size_t len, struct ph_err *err)
{
    size_t offset = (size_t)(p->fault_at - p->copy);
    size_t line = 1;
    for (size_t i = 0; i < offset; i++)
        line += text[i] == '\n';
    if (offset >= len)
        return ph_fail(err, p->status, "JSON, byte %zu (line %zu): %s; the text ends here", offset, line,
                       p->fault);
    unsigned char c = (unsigned char)text[offset];
    const char *hint = len >= 3 && offset == 0 && memcmp(text, "\xEF\xBB\xBF", 3) == 0
                           ? " (a byte order mark: send the text without it)"
                           : "";
    if (c > 0x20 && c < 0x7F)
        return ph_fail(err, p->status, "JSON, byte %zu (line %zu): %s; found '%c'", offset, line, p->fault,
                       c);
    return ph_fail(err, p->status, "JSON, byte %zu (line %zu): %s; found byte 0x%02X%s", offset, line,
                   p->fault, c, hint);
}

enum ph_status json_parse(struct arena *arena, const char *text, size_t len, struct json **out,
                          struct ph_err *err)
{
    *out = NULL;
    struct parser p = {.arena = arena};
    p.copy = len < SIZE_MAX - JSON_WORD_BYTES ? arena_alloc(arena, len + JSON_WORD_BYTES) : NULL;
    if (!p.copy)
        return ph_fail(err, PH_ERR_NOMEM, "JSON: no memory for a text of %zu bytes", len);
    if (len)
        memcpy(p.copy, text, len);
    memset(p.copy + len, 0, JSON_WORD_BYTES);
    p.end = p.number_end = p.copy + len;
    *out = parse_document(&p);
    return *out ? PH_OK : report(&p, text, len, err);
}
