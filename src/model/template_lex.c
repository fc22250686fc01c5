/* Tokens of a chat template, with the whitespace rules of trim_blocks and lstrip_blocks on.
 *
 * Between tags everything is data. "{{" opens an expression, "{%" a statement, "{#" a comment.
 *   {%- {{- {#-   drop the whitespace before, lines included        -%} -}} -#}  drop what follows likewise
 *   {% {#         at the start of a line drop the blanks before     {%+ {#+      don't
 *   %} #}         drop one newline that follows                     +%} +#}      don't
 * A tag ends at its closing mark only outside of brackets, so that {{ {"a": {}} }} is one expression. */
#include "model/template_int.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

#define BRACKETS_MAX 512

struct lexer {
    struct text source;
    size_t at;
    bool line_start; /* the text that comes next begins a line: nothing was printed on it yet */
    struct token_stream *out;
    enum ph_status status;
    struct ph_err *err;
    size_t bracket_count;
    char brackets[BRACKETS_MAX]; /* the closing ones we wait for */
};

void template_where(struct text source, size_t pos, char *out, size_t size)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < pos && i < source.len; i++) {
        column++;
        if (source.at[i] == '\n') {
            line++;
            column = 1;
        }
    }
    struct buf text;
    buf_init(&text, size - 1);
    buf_printf(&text, "line %zu column %zu", line, column);
    memcpy(out, text.data ? text.data : "", text.data ? text.len + 1 : 1);
    buf_release(&text);
}

static void fail(struct lexer *lx, size_t pos, const char *what)
{
    if (lx->status != PH_OK)
        return;
    char where[64];
    template_where(lx->source, pos, where, sizeof where);
    lx->status = ph_fail(lx->err, PH_ERR_FORMAT, "chat template %s: %s", where, what);
    lx->at = lx->source.len;
}

static void push(struct lexer *lx, enum token_kind kind, size_t pos, struct text text)
{
    struct token_stream *out = lx->out;
    if (lx->status != PH_OK)
        return;
    if (out->len == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 256;
        struct token *items = mem_realloc(out->items, cap, sizeof *items);
        if (!items) {
            lx->status = ph_fail(lx->err, PH_ERR_NOMEM, "no memory for the tokens of a chat template");
            lx->at = lx->source.len;
            return;
        }
        out->items = items;
        out->cap = cap;
    }
    out->items[out->len++] = (struct token){.kind = kind, .pos = (uint32_t)pos, .text = text};
}

static bool looking_at(const struct lexer *lx, size_t at, const char *what)
{
    size_t len = strlen(what);
    return lx->source.len - at >= len && memcmp(lx->source.at + at, what, len) == 0;
}

static struct text span(const struct lexer *lx, size_t begin, size_t end)
{
    return (struct text){lx->source.at + begin, end - begin};
}

static char byte_at(const struct lexer *lx, size_t at)
{
    return at < lx->source.len ? lx->source.at[at] : '\0';
}

static size_t skip_space(const struct lexer *lx, size_t at)
{
    struct text rest = span(lx, at, lx->source.len);
    return at + (rest.len - text_strip(rest, (struct text){0}, true, false).len);
}

/* ---- data and the marks around tags ---- */

/* Data before a tag that opens at `end` with `sign` after its mark. */
static void push_data(struct lexer *lx, size_t begin, size_t end, char sign, bool strips_line)
{
    struct text data = span(lx, begin, end);
    if (sign == '-') {
        data = text_strip(data, (struct text){0}, false, true);
    } else if (sign != '+' && strips_line) {
        size_t line = data.len;
        while (line > 0 && data.at[line - 1] != '\n')
            line--;
        struct text last_line = {data.at + line, data.len - line};
        if ((line > 0 || lx->line_start) && text_strip(last_line, (struct text){0}, true, false).len == 0)
            data.len = line;
    }
    if (data.len)
        push(lx, TOKEN_DATA, begin, data);
}

/* After a tag whose closing mark (two bytes) begins at `at`; `before` is the sign in front of it. */
static void after_tag(struct lexer *lx, size_t at, char before, bool trims_newline)
{
    size_t end = at + 2;
    if (before == '-')
        end = skip_space(lx, end);
    else if (before != '+' && trims_newline && byte_at(lx, end) == '\n')
        end++;
    lx->at = end;
    lx->line_start = lx->source.at[end - 1] == '\n';
}

static char sign_at(const struct lexer *lx, size_t at)
{
    char c = byte_at(lx, at);
    return c == '-' || c == '+' ? c : '\0';
}

static void lex_comment(struct lexer *lx, size_t begin)
{
    size_t text = begin + 2 + (sign_at(lx, begin + 2) != '\0');
    for (size_t i = text; i + 1 < lx->source.len; i++) {
        if (!looking_at(lx, i, "#}"))
            continue;
        char before = i > text ? sign_at(lx, i - 1) : '\0';
        after_tag(lx, i, before, true);
        return;
    }
    fail(lx, begin, "a comment {# is not closed by #}");
}

/* If a {% word %} stands at `at`, returns the byte after its closing mark's sign; else 0. */
static size_t match_word_tag(const struct lexer *lx, size_t at, const char *word, char *before, size_t *close)
{
    if (!looking_at(lx, at, "{%"))
        return 0;
    size_t i = at + 2;
    i += sign_at(lx, i) != '\0';
    i = skip_space(lx, i);
    if (!looking_at(lx, i, word))
        return 0;
    i = skip_space(lx, i + strlen(word));
    *before = sign_at(lx, i);
    i += *before != '\0';
    *close = i;
    return looking_at(lx, i, "%}") ? i + 2 : 0;
}

/* {% raw %} ... {% endraw %}; the newline after the opening tag stays. */
static bool lex_raw(struct lexer *lx, size_t begin)
{
    char before = '\0', sign = '\0';
    size_t close = 0;
    if (!match_word_tag(lx, begin, "raw", &before, &close) || before == '+')
        return false;
    after_tag(lx, close, before, false);
    size_t data = lx->at;
    for (size_t i = data; i < lx->source.len; i++) {
        if (!match_word_tag(lx, i, "endraw", &before, &close))
            continue;
        sign = sign_at(lx, i + 2);
        push_data(lx, data, i, sign, true);
        after_tag(lx, close, before, true);
        return true;
    }
    fail(lx, begin, "{% raw %} is not closed by {% endraw %}");
    return true;
}

/* ---- inside a tag ---- */

static bool is_name_byte(char c, bool first)
{
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
    return letter || (!first && c >= '0' && c <= '9');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static size_t skip_digits(const struct lexer *lx, size_t at)
{
    while (is_digit(byte_at(lx, at)) || (byte_at(lx, at) == '_' && is_digit(byte_at(lx, at + 1))))
        at++;
    return at;
}

static void lex_number(struct lexer *lx)
{
    size_t begin = lx->at, end = begin;
    char kind = (char)(byte_at(lx, begin + 1) | 0x20);
    if (byte_at(lx, begin) == '0' && (kind == 'x' || kind == 'o' || kind == 'b')) {
        end += 2;
        while (is_name_byte(byte_at(lx, end), false))
            end++;
        push(lx, TOKEN_INTEGER, begin, span(lx, begin, end));
        lx->at = end;
        return;
    }
    enum token_kind token = TOKEN_INTEGER;
    bool member = begin > 0 && lx->source.at[begin - 1] == '.'; /* x.0.1 is two indices */
    end = skip_digits(lx, end);
    if (!member && byte_at(lx, end) == '.' && is_digit(byte_at(lx, end + 1))) {
        end = skip_digits(lx, end + 1);
        token = TOKEN_FLOAT;
    }
    if ((byte_at(lx, end) | 0x20) == 'e') {
        char sign = sign_at(lx, end + 1);
        size_t digits = end + 1 + (sign != '\0');
        if (is_digit(byte_at(lx, digits))) {
            end = skip_digits(lx, digits);
            token = TOKEN_FLOAT;
        }
    }
    push(lx, token, begin, span(lx, begin, end));
    lx->at = end;
}

static void lex_string(struct lexer *lx)
{
    size_t begin = lx->at;
    char quote = byte_at(lx, begin);
    for (size_t i = begin + 1; i < lx->source.len; i++) {
        if (lx->source.at[i] == '\\') {
            i++;
        } else if (lx->source.at[i] == quote) {
            push(lx, TOKEN_STRING, begin, span(lx, begin + 1, i));
            lx->at = i + 1;
            return;
        }
    }
    fail(lx, begin, "a string is not closed");
}

static void track_brackets(struct lexer *lx, char c)
{
    static const char open[] = "([{", close[] = ")]}";
    const char *opens = strchr(open, c);
    if (opens) {
        if (lx->bracket_count == BRACKETS_MAX) {
            fail(lx, lx->at, "brackets are nested too deeply");
            return;
        }
        lx->brackets[lx->bracket_count++] = close[opens - open];
    } else if (strchr(close, c)) {
        if (lx->bracket_count == 0 || lx->brackets[lx->bracket_count - 1] != c) {
            fail(lx, lx->at, "a closing bracket has no opening one");
            return;
        }
        lx->bracket_count--;
    }
}

static void lex_operator(struct lexer *lx)
{
    static const struct {
        const char *text;
        enum token_kind kind;
    } operators[] = {
        {"//", TOKEN_FLOOR_DIV}, {"**", TOKEN_POW},   {"==", TOKEN_EQ},       {"!=", TOKEN_NE},
        {"<=", TOKEN_LE},        {">=", TOKEN_GE},    {"+", TOKEN_ADD},       {"-", TOKEN_SUB},
        {"*", TOKEN_MUL},        {"/", TOKEN_DIV},    {"%", TOKEN_MOD},       {"~", TOKEN_TILDE},
        {"<", TOKEN_LT},         {">", TOKEN_GT},     {"=", TOKEN_ASSIGN},    {".", TOKEN_DOT},
        {",", TOKEN_COMMA},      {":", TOKEN_COLON},  {";", TOKEN_SEMICOLON}, {"|", TOKEN_PIPE},
        {"(", TOKEN_LPAREN},     {")", TOKEN_RPAREN}, {"[", TOKEN_LBRACKET},  {"]", TOKEN_RBRACKET},
        {"{", TOKEN_LBRACE},     {"}", TOKEN_RBRACE},
    };
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!looking_at(lx, lx->at, operators[i].text))
            continue;
        track_brackets(lx, operators[i].text[0]);
        size_t len = strlen(operators[i].text);
        push(lx, operators[i].kind, lx->at, span(lx, lx->at, lx->at + len));
        lx->at += len;
        return;
    }
    fail(lx, lx->at, "unexpected character");
}

/* If the tag closes here, moves past it. */
static bool lex_close(struct lexer *lx, const char *mark, bool is_block)
{
    size_t at = lx->at;
    char sign = sign_at(lx, at);
    if (sign == '+' && !is_block)
        sign = '\0';
    size_t close = at + (sign != '\0');
    if (lx->bracket_count || !looking_at(lx, close, mark))
        return false;
    push(lx, is_block ? TOKEN_BLOCK_END : TOKEN_PRINT_END, close, span(lx, close, close + 2));
    if (lx->status == PH_OK)
        after_tag(lx, close, sign, is_block);
    return true;
}

static void lex_tag(struct lexer *lx, size_t begin)
{
    bool is_block = lx->source.at[begin + 1] == '%';
    const char *mark = is_block ? "%}" : "}}";
    push(lx, is_block ? TOKEN_BLOCK_BEGIN : TOKEN_PRINT_BEGIN, begin, span(lx, begin, begin + 2));
    lx->at = begin + 2;
    lx->at += sign_at(lx, lx->at) != '\0';
    lx->bracket_count = 0;
    while (lx->status == PH_OK) {
        lx->at = skip_space(lx, lx->at);
        if (lx->at >= lx->source.len) {
            fail(lx, begin, is_block ? "a tag {% is not closed by %}" : "a tag {{ is not closed by }}");
            return;
        }
        if (lex_close(lx, mark, is_block))
            return;
        char c = lx->source.at[lx->at];
        if (is_name_byte(c, true)) {
            size_t end = lx->at;
            while (is_name_byte(byte_at(lx, end), false))
                end++;
            push(lx, TOKEN_NAME, lx->at, span(lx, lx->at, end));
            lx->at = end;
        } else if (is_digit(c)) {
            lex_number(lx);
        } else if (c == '"' || c == '\'') {
            lex_string(lx);
        } else {
            lex_operator(lx);
        }
    }
}

/* Where the next tag opens, or the end. */
static size_t find_tag(const struct lexer *lx)
{
    for (size_t i = lx->at; i + 1 < lx->source.len; i++) {
        char next = lx->source.at[i + 1];
        if (lx->source.at[i] == '{' && (next == '{' || next == '%' || next == '#'))
            return i;
    }
    return lx->source.len;
}

enum ph_status template_lex(struct text source, struct token_stream *out, struct ph_err *err)
{
    struct lexer lx = {.source = source, .line_start = true, .out = out, .err = err};
    while (lx.status == PH_OK && lx.at < source.len) {
        size_t tag = find_tag(&lx);
        if (tag == source.len) {
            push_data(&lx, lx.at, tag, '\0', false);
            lx.at = tag;
            break;
        }
        char kind = source.at[tag + 1];
        push_data(&lx, lx.at, tag, sign_at(&lx, tag + 2), kind != '{');
        if (lx.status != PH_OK)
            break;
        if (kind == '#')
            lex_comment(&lx, tag);
        else if (kind == '{' || !lex_raw(&lx, tag))
            lex_tag(&lx, tag);
    }
    push(&lx, TOKEN_END, source.len, (struct text){source.at + source.len, 0});
    return lx.status;
}
