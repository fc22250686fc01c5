/* YAML to a tree, through libyaml's events.
 *
 * `${NAME}` must also work inside {braces}, where YAML itself would end a plain scalar at the `{`. So before
 * libyaml sees the text, every `${NAME}` is rewritten with private characters in the place of `${` and `}`,
 * and `$${` with a third; the scalars that come out are then expanded from those. No line is moved by that. A
 * text that already holds one of the three characters is refused. A value from the environment is data: it is
 * put in after YAML has been parsed and can't add structure. */
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "base/buf.h"
#include "base/config_int.h"
#include "base/limits.h"
#include "base/utf8.h"

#define MARK_LEN 4
#define MARK_OPEN "\xF4\x8F\xBF\xB0"    /* U+10FFF0 for `${` of a variable */
#define MARK_CLOSE "\xF4\x8F\xBF\xB1"   /* U+10FFF1 for its `}` */
#define MARK_LITERAL "\xF4\x8F\xBF\xB2" /* U+10FFF2 for `$${` */
#define MARKED_GROWTH_MAX 3             /* `${A}` becomes 9 bytes */

struct loader {
    yaml_parser_t parser;
    yaml_event_t event;
    struct arena *arena;
    const char *source;
    struct buf marked; /* what libyaml reads */
    struct ph_err *err;
    enum ph_status status;
};

#define fail_line(l, line, code, fmt, ...) \
    ((l)->status = ph_fail((l)->err, (code), "%s:%zu: " fmt, (l)->source, (size_t)(line), __VA_ARGS__))

static bool fail_memory(struct loader *l)
{
    l->status = ph_fail(l->err, PH_ERR_NOMEM, "%s: no memory for the configuration", l->source);
    return false;
}

static size_t line_of_offset(const char *text, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset; i++)
        line += text[i] == '\n';
    return line;
}

static bool is_name_byte(char c, bool first)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (!first && c >= '0' && c <= '9');
}

/* The length of `${NAME}` at text, or 0. */
static size_t variable_len(const char *text, size_t len)
{
    if (len < 4 || text[0] != '$' || text[1] != '{')
        return 0;
    size_t i = 2;
    while (i < len && is_name_byte(text[i], i == 2))
        i++;
    return i > 2 && i < len && text[i] == '}' ? i + 1 : 0;
}

static void mark_variables(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t variable = variable_len(text + i, len - i);
        if (variable > 0) {
            buf_puts(out, MARK_OPEN);
            buf_append(out, text + i + 2, variable - 3);
            buf_puts(out, MARK_CLOSE);
            i += variable;
        } else if (len - i >= 3 && memcmp(text + i, "$${", 3) == 0) {
            buf_puts(out, MARK_LITERAL);
            i += 3;
        } else {
            const char *dollar = memchr(text + i + 1, '$', len - i - 1);
            size_t next = dollar ? (size_t)(dollar - text) : len;
            buf_append(out, text + i, next - i);
            i = next;
        }
    }
}

/* What libyaml would say without a line, or not notice. */
static bool check_text(struct loader *l, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint32_t c;
        size_t read = utf8_decode(text + i, len - i, &c);
        const char *fault = NULL;
        if (read == 0)
            fault = "invalid UTF-8";
        else if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7F)
            fault = "a control character";
        else if (c >= 0x10FFF0 && c <= 0x10FFF2)
            fault = "a private character (U+10FFF0 to U+10FFF2) that has a meaning of its own here";
        if (fault) {
            fail_line(l, line_of_offset(text, i), PH_ERR_FORMAT, "%s, byte 0x%02x", fault,
                      (unsigned char)text[i]);
            return false;
        }
        i += read;
    }
    return true;
}

/* libyaml's words for a tab in the indentation say nothing of tabs. */
static bool line_begins_with_tab(const char *text, size_t line)
{
    while (--line > 0 && (text = strchr(text, '\n')))
        text++;
    return text && text[strspn(text, " ")] == '\t';
}

static bool report_yaml(struct loader *l)
{
    const yaml_parser_t *p = &l->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return fail_memory(l);
    size_t line = p->error == YAML_READER_ERROR ? line_of_offset(l->marked.data, p->problem_offset)
                                                : p->problem_mark.line + 1;
    bool tab = line_begins_with_tab(l->marked.data, line);
    fail_line(l, line, PH_ERR_FORMAT, "not YAML: %s%s%s%s", p->problem ? p->problem : "unknown problem",
              p->context ? " " : "", p->context ? p->context : "",
              tab ? " (indent with spaces, not tabs)" : "");
    return false;
}

static size_t event_line(const struct loader *l)
{
    return l->event.start_mark.line + 1;
}

/* Aliases, anchors and tags would give the text a second reading. */
static bool check_event(struct loader *l)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (l->event.type) {
    case YAML_ALIAS_EVENT:
        anchor = l->event.data.alias.anchor;
        break;
    case YAML_SCALAR_EVENT:
        anchor = l->event.data.scalar.anchor;
        tag = l->event.data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = l->event.data.sequence_start.anchor;
        tag = l->event.data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = l->event.data.mapping_start.anchor;
        tag = l->event.data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor)
        fail_line(l, event_line(l), PH_ERR_UNSUPPORTED,
                  "anchors and aliases (\"%s\") are not supported; quote the text if a * or & begins it",
                  (const char *)anchor);
    else if (tag)
        fail_line(l, event_line(l), PH_ERR_UNSUPPORTED,
                  "tags (\"%s\") are not supported; quote the text if a ! begins it", (const char *)tag);
    return !anchor && !tag;
}

static bool next_event(struct loader *l)
{
    yaml_event_delete(&l->event);
    memset(&l->event, 0, sizeof l->event);
    if (!yaml_parser_parse(&l->parser, &l->event))
        return report_yaml(l);
    return check_event(l);
}

/* One variable, `text` behind its opening mark; answers what is behind the closing one. */
static const char *expand_variable(struct loader *l, struct buf *out, const char *text)
{
    char name[256];
    const char *close = strstr(text, MARK_CLOSE);
    size_t len = close ? (size_t)(close - text) : sizeof name;
    if (len >= sizeof name) {
        fail_line(l, event_line(l), PH_ERR_FORMAT,
                  "the name of an environment variable is longer than %zu bytes", sizeof name - 1);
        return NULL;
    }
    memcpy(name, text, len);
    name[len] = 0;
    const char *value = getenv(name);
    if (!value) {
        fail_line(l, event_line(l), PH_ERR_NOTFOUND,
                  "the environment variable %s is not set (write $${%s} for the text itself)", name, name);
        return NULL;
    }
    if (!utf8_valid(value, strlen(value))) {
        fail_line(l, event_line(l), PH_ERR_FORMAT, "the environment variable %s is not UTF-8", name);
        return NULL;
    }
    buf_puts(out, value);
    return close + MARK_LEN;
}

/* Up to the next byte that may begin a mark. A `${` there was not a variable. */
static const char *copy_plain(struct loader *l, struct buf *out, const char *text)
{
    size_t len = strcspn(text, "\xF4");
    for (size_t i = 0; i + 1 < len; i++) {
        if (text[i] == '$' && text[i + 1] == '{') {
            fail_line(
                l, event_line(l), PH_ERR_FORMAT, "%s",
                "\"${\" must be followed by a variable's name and \"}\"; write \"$${\" for the text itself");
            return NULL;
        }
    }
    buf_append(out, text, len);
    return text + len;
}

/* The scalar of the current event with its variables put in, in the arena; NULL on failure. */
static char *expand_scalar(struct loader *l, bool *expanded)
{
    const char *text = (const char *)l->event.data.scalar.value;
    if (memchr(text, 0, l->event.data.scalar.length)) {
        fail_line(l, event_line(l), PH_ERR_FORMAT, "%s", "a 0 byte in a text");
        return NULL;
    }
    struct buf out;
    buf_init(&out, CONFIG_BYTES_MAX);
    buf_append(&out, "", 0);
    text = copy_plain(l, &out, text);
    while (text && *text) {
        if (strncmp(text, MARK_OPEN, MARK_LEN) == 0) {
            *expanded = true;
            text = expand_variable(l, &out, text + MARK_LEN);
        } else if (strncmp(text, MARK_LITERAL, MARK_LEN) == 0) {
            buf_puts(&out, "${");
            text += MARK_LEN;
        } else {
            buf_putc(&out, *text++);
        }
        text = text ? copy_plain(l, &out, text) : NULL;
    }
    char *copy = text && buf_status(&out) == PH_OK ? arena_strndup(l->arena, out.data, out.len) : NULL;
    buf_release(&out);
    if (!copy && l->status == PH_OK)
        fail_memory(l);
    return copy;
}

static struct config_node *new_node(struct loader *l, enum config_kind kind)
{
    struct config_node *node = arena_calloc(l->arena, 1, sizeof *node);
    if (!node) {
        fail_memory(l);
        return NULL;
    }
    node->kind = kind;
    node->line = event_line(l);
    return node;
}

static void append(struct config_node *parent, struct config_node *node)
{
    if (parent->last)
        parent->last->next = node;
    else
        parent->first = node;
    parent->last = node;
    parent->count++;
}

static struct config_node *read_node(struct loader *l, size_t depth);

/* The key of the current event; NULL when it is none or not new. */
static const char *read_key(struct loader *l, const struct config_node *mapping)
{
    if (l->event.type != YAML_SCALAR_EVENT) {
        fail_line(l, event_line(l), PH_ERR_UNSUPPORTED, "%s", "a key must be a plain text");
        return NULL;
    }
    if (mapping->count == CONFIG_KEYS_MAX) {
        fail_line(l, event_line(l), PH_ERR_LIMIT, "more than %d keys in one mapping", CONFIG_KEYS_MAX);
        return NULL;
    }
    bool expanded = false;
    const char *key = expand_scalar(l, &expanded);
    for (const struct config_node *node = mapping->first; key && node; node = node->next) {
        if (strcmp(node->key, key) == 0) {
            fail_line(l, event_line(l), PH_ERR_FORMAT, "the key \"%s\" is here twice, first in line %zu", key,
                      node->key_line);
            return NULL;
        }
    }
    return key;
}

static bool read_members(struct loader *l, struct config_node *mapping, size_t depth)
{
    while (next_event(l) && l->event.type != YAML_MAPPING_END_EVENT) {
        size_t key_line = event_line(l);
        const char *key = read_key(l, mapping);
        struct config_node *value = key && next_event(l) ? read_node(l, depth + 1) : NULL;
        if (!value)
            return false;
        value->key = key;
        value->key_line = key_line;
        append(mapping, value);
    }
    return l->status == PH_OK;
}

static bool read_items(struct loader *l, struct config_node *sequence, size_t depth)
{
    while (next_event(l) && l->event.type != YAML_SEQUENCE_END_EVENT) {
        struct config_node *item = read_node(l, depth + 1);
        if (!item)
            return false;
        append(sequence, item);
    }
    return l->status == PH_OK;
}

static struct config_node *read_scalar(struct loader *l)
{
    struct config_node *node = new_node(l, CONFIG_SCALAR);
    if (!node)
        return NULL;
    node->quoted = l->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->text = expand_scalar(l, &node->expanded);
    return node->text ? node : NULL;
}

/* The node that the current event begins. Recursion is bounded by CONFIG_DEPTH_MAX. */
static struct config_node *read_node(struct loader *l, size_t depth)
{
    if (l->event.type == YAML_SCALAR_EVENT)
        return read_scalar(l);
    if (depth == CONFIG_DEPTH_MAX) {
        fail_line(l, event_line(l), PH_ERR_LIMIT, "nested deeper than %d levels", CONFIG_DEPTH_MAX);
        return NULL;
    }
    bool mapping = l->event.type == YAML_MAPPING_START_EVENT;
    struct config_node *node = new_node(l, mapping ? CONFIG_MAPPING : CONFIG_SEQUENCE);
    if (!node || !(mapping ? read_members(l, node, depth) : read_items(l, node, depth)))
        return NULL;
    return node;
}

static struct config_node *read_document(struct loader *l)
{
    if (!next_event(l) || !next_event(l)) /* the stream's start, then the document's or the stream's end */
        return NULL;
    if (l->event.type == YAML_STREAM_END_EVENT)
        return new_node(l, CONFIG_MAPPING);
    struct config_node *root = next_event(l) ? read_node(l, 0) : NULL;
    if (!root || !next_event(l) || !next_event(l)) /* the document's end, the stream's */
        return NULL;
    if (l->event.type != YAML_STREAM_END_EVENT) {
        fail_line(l, event_line(l), PH_ERR_UNSUPPORTED, "%s", "a second document; a configuration is one");
        return NULL;
    }
    return root;
}

enum ph_status config_yaml_load(struct arena *arena, const char *source, const char *text, size_t len,
                                struct config_node **out, struct ph_err *err)
{
    *out = NULL;
    if (len > CONFIG_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: longer than %u bytes", source, CONFIG_BYTES_MAX);
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        text += 3;
        len -= 3;
    }
    struct loader l = {.arena = arena, .source = source, .err = err};
    if (!check_text(&l, text, len))
        return l.status;
    buf_init(&l.marked, (size_t)CONFIG_BYTES_MAX * MARKED_GROWTH_MAX);
    buf_append(&l.marked, "", 0);
    mark_variables(&l.marked, text, len);
    if (buf_status(&l.marked) != PH_OK || !yaml_parser_initialize(&l.parser)) {
        buf_release(&l.marked);
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for the configuration", source);
    }
    yaml_parser_set_encoding(&l.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&l.parser, (const unsigned char *)l.marked.data, l.marked.len);
    *out = read_document(&l);
    yaml_event_delete(&l.event);
    yaml_parser_delete(&l.parser);
    buf_release(&l.marked);
    return *out ? PH_OK : l.status;
}

bool config_is_null(const struct config_node *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (node->kind != CONFIG_SCALAR || node->quoted || node->expanded)
        return false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(node->text, words[i]) == 0)
            return true;
    return false;
}

bool config_is_typed(const struct config_node *node)
{
    return node->kind == CONFIG_SCALAR && (!node->quoted || node->expanded);
}
