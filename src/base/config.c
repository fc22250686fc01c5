/* Fills structs from a tree of YAML by a table.
 *
 * The tree is walked beside the table, with the path walked so far on a small stack for messages. There is
 * one function a type, chosen by the table; recursion is bounded by the tree's depth. */
#include "base/config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_int.h"
#include "base/file.h"
#include "base/limits.h"

#define PATH_TEXT_MAX 200
#define SUGGESTION_LEN_MAX 40
#define SUGGESTION_DISTANCE_MAX 3 /* exclusive */

struct step {
    const char *key; /* NULL for an item */
    size_t index;
};

struct filler {
    struct arena *arena;
    const char *source;
    struct ph_err *err;
    struct step path[CONFIG_DEPTH_MAX + 1];
    size_t depth;
    char path_text[PATH_TEXT_MAX];
};

/* "models[0].price" or "the file"; valid until the next call. */
static const char *path_of(struct filler *f)
{
    size_t len = 0;
    f->path_text[0] = 0;
    for (size_t i = 0; i < f->depth && len < PATH_TEXT_MAX; i++) {
        char *at = f->path_text + len;
        int wrote = f->path[i].key ? snprintf(at, PATH_TEXT_MAX - len, "%s%s", i ? "." : "", f->path[i].key)
                                   : snprintf(at, PATH_TEXT_MAX - len, "[%zu]", f->path[i].index);
        len += wrote > 0 ? (size_t)wrote : 0;
    }
    return f->depth ? f->path_text : "the configuration";
}

static enum ph_status fail_value(struct filler *f, const struct config_node *node, const char *expected)
{
    const char *path = path_of(f);
    if (node->kind == CONFIG_SEQUENCE)
        return ph_fail(f->err, PH_ERR_FORMAT, "%s:%zu: %s must be %s, not a list", f->source, node->line,
                       path, expected);
    if (node->kind == CONFIG_MAPPING)
        return ph_fail(f->err, PH_ERR_FORMAT, "%s:%zu: %s must be %s, not a mapping", f->source, node->line,
                       path, expected);
    if (config_is_null(node))
        return ph_fail(f->err, PH_ERR_FORMAT, "%s:%zu: %s must be %s; nothing is given", f->source,
                       node->line, path, expected);
    if (node->expanded) /* perhaps a secret: not shown */
        return ph_fail(f->err, PH_ERR_FORMAT, "%s:%zu: %s must be %s; what the environment gives is not",
                       f->source, node->line, path, expected);
    return ph_fail(f->err, PH_ERR_FORMAT, "%s:%zu: %s must be %s, not %s%.60s%s", f->source, node->line, path,
                   expected, node->quoted ? "the text \"" : "\"", node->text, "\"");
}

static enum ph_status fail_memory(struct filler *f)
{
    return ph_fail(f->err, PH_ERR_NOMEM, "%s: no memory for the configuration", f->source);
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Edit distance with swaps of neighbours (optimal string alignment); longer texts are infinitely far. */
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][SUGGESTION_LEN_MAX + 1];
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len > SUGGESTION_LEN_MAX || b_len > SUGGESTION_LEN_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && above2[j - 2] + 1 < row[j])
                row[j] = above2[j - 2] + 1;
        }
    }
    return rows[a_len % 3][b_len];
}

struct suggestion {
    const char *wanted, *best;
    size_t distance;
    struct buf all; /* every name, for when none is near */
};

static void suggest_begin(struct suggestion *s, const char *wanted)
{
    *s = (struct suggestion){.wanted = wanted, .distance = SUGGESTION_DISTANCE_MAX};
    buf_init(&s->all, 300);
}

static void suggest_name(struct suggestion *s, const char *name)
{
    size_t far = distance(s->wanted, name);
    if (far < s->distance && far < strlen(name)) {
        s->best = name;
        s->distance = far;
    }
    buf_printf(&s->all, "%s%s", s->all.len ? ", " : "", name);
}

/* Fails with the reason and what could have been meant. */
static enum ph_status suggest_fail(struct filler *f, struct suggestion *s, size_t line, const char *what,
                                   const char *path)
{
    enum ph_status status;
    if (s->best)
        status = ph_fail(f->err, PH_ERR_FORMAT, "%s:%zu: unknown %s \"%.60s\" in %s; did you mean \"%s\"?",
                         f->source, line, what, s->wanted, path, s->best);
    else
        status = ph_fail(f->err, PH_ERR_FORMAT, "%s:%zu: unknown %s \"%.60s\" in %s; known are %s", f->source,
                         line, what, s->wanted, path, s->all.data ? s->all.data : "none");
    buf_release(&s->all);
    return status;
}

static enum ph_status fill_struct(struct filler *f, const struct config_node *node,
                                  const struct config_field *fields, void *out);
static enum ph_status fill_value(struct filler *f, const struct config_node *node,
                                 const struct config_field *field, void *out);

static enum ph_status fill_string(struct filler *f, const struct config_node *node,
                                  const struct config_field *field, void *out)
{
    const char **text = out;
    if (node->kind != CONFIG_SCALAR || (field->required && config_is_null(node)))
        return fail_value(f, node, "a text");
    *text = config_is_null(node) ? NULL : node->text;
    return PH_OK;
}

static enum ph_status fill_bool(struct filler *f, const struct config_node *node,
                                const struct config_field *field, void *out)
{
    (void)field;
    bool is_true = config_is_typed(node) && strcmp(node->text, "true") == 0;
    if (!is_true && !(config_is_typed(node) && strcmp(node->text, "false") == 0))
        return fail_value(f, node, "true or false");
    *(bool *)out = is_true;
    return PH_OK;
}

static bool is_bounded(const struct config_field *field)
{
    return field->min < 0 || field->min > 0 || field->max < 0 || field->max > 0;
}

static enum ph_status check_bounds(struct filler *f, const struct config_node *node,
                                   const struct config_field *field, double value)
{
    if (!is_bounded(field) || (value >= field->min && value <= field->max))
        return PH_OK;
    char expected[96];
    snprintf(expected, sizeof expected, "from %.15g to %.15g", field->min, field->max);
    return fail_value(f, node, expected);
}

static enum ph_status fill_int(struct filler *f, const struct config_node *node,
                               const struct config_field *field, void *out)
{
    bool typed = config_is_typed(node);
    size_t sign = typed && (*node->text == '-' || *node->text == '+');
    if (!typed || node->text[sign] == 0 || node->text[sign + strspn(node->text + sign, "0123456789")] != 0)
        return fail_value(f, node, "a whole number");
    errno = 0;
    long long value = strtoll(node->text, NULL, 10);
    if (errno == ERANGE)
        return fail_value(f, node, "a whole number of at most 64 bits");
    enum ph_status status = check_bounds(f, node, field, (double)value);
    if (status == PH_OK)
        *(int64_t *)out = value;
    return status;
}

/* Decimal notation only: no hexadecimal, no "inf". */
static bool read_double(const struct config_node *node, double *out)
{
    if (!config_is_typed(node) || *node->text == 0 || node->text[strspn(node->text, "0123456789+-.eE")] != 0)
        return false;
    char *end;
    *out = strtod(node->text, &end);
    return *end == 0 && isfinite(*out);
}

static enum ph_status fill_double(struct filler *f, const struct config_node *node,
                                  const struct config_field *field, void *out)
{
    double value;
    if (!read_double(node, &value))
        return fail_value(f, node, "a number");
    enum ph_status status = check_bounds(f, node, field, value);
    if (status == PH_OK)
        *(double *)out = value;
    return status;
}

static enum ph_status fill_enum(struct filler *f, const struct config_node *node,
                                const struct config_field *field, void *out)
{
    if (node->kind != CONFIG_SCALAR || config_is_null(node))
        return fail_value(f, node, "a name");
    for (int i = 0; field->names[i]; i++) {
        if (strcmp(field->names[i], node->text) == 0) {
            *(int *)out = i;
            return PH_OK;
        }
    }
    struct suggestion s;
    suggest_begin(&s, node->text);
    for (int i = 0; field->names[i]; i++)
        suggest_name(&s, field->names[i]);
    return suggest_fail(f, &s, node->line, "value", path_of(f));
}

static enum ph_status fill_embedded(struct filler *f, const struct config_node *node,
                                    const struct config_field *field, void *out)
{
    if (field->takes_scalar && node->kind == CONFIG_SCALAR)
        return fill_value(f, node, field->fields, (char *)out + field->fields->offset);
    return fill_struct(f, node, field->fields, out);
}

static enum ph_status fill_list_item(struct filler *f, const struct config_node *item,
                                     const struct config_field *field, void *out)
{
    static const struct config_field text = {.type = CONFIG_STRING, .required = true};
    return field->fields ? fill_embedded(f, item, field, out) : fill_string(f, item, &text, out);
}

static enum ph_status fill_list(struct filler *f, const struct config_node *node,
                                const struct config_field *field, void *out)
{
    struct config_list *list = out;
    if (node->kind != CONFIG_SEQUENCE)
        return fail_value(f, node, "a list");
    size_t size = field->fields ? field->item_size : sizeof(char *);
    char *items = arena_calloc(f->arena, node->count, size);
    if (!items)
        return fail_memory(f);
    size_t index = 0;
    for (const struct config_node *item = node->first; item; item = item->next, index++) {
        f->path[f->depth++] = (struct step){NULL, index};
        enum ph_status status = fill_list_item(f, item, field, items + index * size);
        if (status != PH_OK)
            return status;
        f->depth--;
    }
    *list = (struct config_list){items, node->count};
    return PH_OK;
}

static enum ph_status fill_map(struct filler *f, const struct config_node *node,
                               const struct config_field *field, void *out)
{
    struct config_list *list = out;
    if (node->kind != CONFIG_MAPPING)
        return fail_value(f, node, "a mapping of names");
    char *items = arena_calloc(f->arena, node->count, field->item_size);
    if (!items)
        return fail_memory(f);
    char *item = items;
    for (const struct config_node *member = node->first; member;
         member = member->next, item += field->item_size) {
        *(const char **)(void *)item = member->key;
        f->path[f->depth++] = (struct step){member->key, 0};
        enum ph_status status = fill_struct(f, member, field->fields, item);
        if (status != PH_OK)
            return status;
        f->depth--;
    }
    *list = (struct config_list){items, node->count};
    return PH_OK;
}

/* An unquoted scalar is what JSON makes of it; a number that only YAML writes so (+1, .5) is rewritten. */
static struct json *scalar_to_json(struct arena *arena, const struct config_node *node)
{
    double number;
    struct json *value = NULL;
    if (config_is_null(node))
        return json_new(arena, JSON_NULL);
    if (config_is_typed(node) && read_double(node, &number)) {
        if (json_parse(arena, node->text, strlen(node->text), &value, NULL) == PH_OK)
            return value;
        return json_new_double(arena, number);
    }
    if (config_is_typed(node) && (strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0))
        return json_new(arena, *node->text == 't' ? JSON_TRUE : JSON_FALSE);
    return json_new_string(arena, node->text, strlen(node->text));
}

static struct json *to_json(struct arena *arena, const struct config_node *node)
{
    if (node->kind == CONFIG_SCALAR)
        return scalar_to_json(arena, node);
    bool object = node->kind == CONFIG_MAPPING;
    struct json *list = json_new(arena, object ? JSON_OBJECT : JSON_ARRAY);
    for (const struct config_node *item = node->first; item; item = item->next) {
        struct json *value = to_json(arena, item);
        if (!(object ? json_set(arena, list, item->key, value) : json_push(list, value)))
            return NULL;
    }
    return list;
}

static enum ph_status fill_free(struct filler *f, const struct config_node *node,
                                const struct config_field *field, void *out)
{
    (void)field;
    const struct json *value = to_json(f->arena, node);
    if (!value)
        return fail_memory(f);
    *(const struct json **)out = value;
    return PH_OK;
}

static enum ph_status fill_value(struct filler *f, const struct config_node *node,
                                 const struct config_field *field, void *out)
{
    static enum ph_status (*const fill[])(struct filler *, const struct config_node *,
                                          const struct config_field *, void *) = {
        [CONFIG_STRING] = fill_string, [CONFIG_BOOL] = fill_bool, [CONFIG_INT] = fill_int,
        [CONFIG_DOUBLE] = fill_double, [CONFIG_ENUM] = fill_enum, [CONFIG_STRUCT] = fill_embedded,
        [CONFIG_LIST] = fill_list,     [CONFIG_MAP] = fill_map,   [CONFIG_FREE] = fill_free,
    };
    bool is_container =
        field->type == CONFIG_LIST || field->type == CONFIG_MAP || field->type == CONFIG_STRUCT;
    if (is_container && config_is_null(node) && !field->required)
        return PH_OK; /* a heading with everything under it commented out */
    return fill[field->type](f, node, field, out);
}

static enum ph_status fail_unknown_key(struct filler *f, const struct config_node *member,
                                       const struct config_field *fields)
{
    struct suggestion s;
    suggest_begin(&s, member->key);
    for (; fields->key; fields++)
        suggest_name(&s, fields->key);
    return suggest_fail(f, &s, member->key_line, "key", path_of(f));
}

static const struct config_node *find_member(const struct config_node *mapping, const char *key)
{
    const struct config_node *member = mapping->first;
    while (member && strcmp(member->key, key) != 0)
        member = member->next;
    return member;
}

static enum ph_status fill_struct(struct filler *f, const struct config_node *node,
                                  const struct config_field *fields, void *out)
{
    if (node->kind != CONFIG_MAPPING && !config_is_null(node))
        return fail_value(f, node, "a mapping of keys to values");
    for (const struct config_node *member = node->first; member; member = member->next) {
        const struct config_field *field = fields;
        while (field->key && strcmp(field->key, member->key) != 0)
            field++;
        if (!field->key)
            return fail_unknown_key(f, member, fields);
        f->path[f->depth++] = (struct step){member->key, 0};
        enum ph_status status = fill_value(f, member, field, (char *)out + field->offset);
        if (status != PH_OK)
            return status;
        f->depth--;
    }
    for (; fields->key; fields++)
        if (fields->required && !find_member(node, fields->key))
            return ph_fail(f->err, PH_ERR_FORMAT, "%s:%zu: %s needs the key \"%s\"", f->source, node->line,
                           path_of(f), fields->key);
    return PH_OK;
}

enum ph_status config_parse(struct arena *arena, const char *source, const char *text, size_t len,
                            const struct config_field *fields, void *out, struct ph_err *err)
{
    struct config_node *root;
    enum ph_status status = config_yaml_load(arena, source, text, len, &root, err);
    if (status != PH_OK)
        return status;
    struct filler f = {.arena = arena, .source = source, .err = err};
    return fill_struct(&f, root, fields, out);
}

enum ph_status config_read(struct arena *arena, const char *path, const struct config_field *fields,
                           void *out, struct ph_err *err)
{
    struct buf text;
    buf_init(&text, CONFIG_BYTES_MAX);
    enum ph_status status = file_read(path, &text, err);
    if (status == PH_OK)
        status = config_parse(arena, path, text.data ? text.data : "", text.len, fields, out, err);
    buf_release(&text);
    return status;
}
