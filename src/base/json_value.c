/* Access to a document, comparison, and building one. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json_int.h"

static bool is_list(const struct json *value)
{
    return value && value->type >= JSON_ARRAY;
}

static bool key_is(const struct json *member, const char *key, size_t key_len)
{
    return member->key_len == key_len && *member->key == *key && memcmp(member->key, key, key_len) == 0;
}

const struct json *json_find(const struct json *object, const char *key, size_t key_len)
{
    const struct json *found = NULL;
    JSON_EACH (member, object)
        if (key_is(member, key, key_len))
            found = member;
    return found;
}

const struct json *json_first(const struct json *list_value)
{
    return is_list(list_value) ? list_value->u.list.first : NULL;
}

const struct json *json_at(const struct json *array, size_t index)
{
    const struct json *item = json_is(array, JSON_ARRAY) ? array->u.list.first : NULL;
    while (item && index-- > 0)
        item = item->next;
    return item;
}

bool json_is_bool(const struct json *value)
{
    return json_is(value, JSON_TRUE) || json_is(value, JSON_FALSE);
}

bool json_is_absent(const struct json *value)
{
    return json_is(value, JSON_NULL);
}

size_t json_count(const struct json *value)
{
    return is_list(value) ? value->u.list.count : 0;
}

const char *json_text(const struct json *value, const char *fallback)
{
    return json_is(value, JSON_STRING) ? value->u.str.text : fallback;
}

bool json_text_is(const struct json *value, const char *text)
{
    size_t len = strlen(text);
    return json_is(value, JSON_STRING) && value->u.str.len == len &&
           memcmp(value->u.str.text, text, len) == 0;
}

static bool equal(const struct json *a, const struct json *b, size_t depth);

static bool arrays_equal(const struct json *a, const struct json *b, size_t depth)
{
    const struct json *y = b->u.list.first;
    for (const struct json *x = a->u.list.first; x; x = x->next, y = y->next)
        if (!y || !equal(x, y, depth))
            return false;
    return !y;
}

static bool names_match_in_order(const struct json *a, const struct json *b)
{
    const struct json *y = b->u.list.first;
    for (const struct json *x = a->u.list.first; x; x = x->next, y = y->next)
        if (!y || !key_is(x, y->key, y->key_len))
            return false;
    return !y;
}

static bool is_shadowed(const struct json *object, const struct json *member)
{
    return json_find(object, member->key, member->key_len) != member;
}

/* Every pair of values is compared at most once, here and below, or the cost would double at each level. */
static bool ordered_objects_equal(const struct json *a, const struct json *b, size_t depth)
{
    const struct json *y = b->u.list.first;
    for (const struct json *x = a->u.list.first; x; x = x->next, y = y->next)
        if (!equal(x, y, depth) && !is_shadowed(a, x))
            return false;
    return true;
}

static bool objects_equal(const struct json *a, const struct json *b, size_t depth)
{
    if (names_match_in_order(a, b))
        return ordered_objects_equal(a, b, depth);
    JSON_EACH (y, b)
        if (!json_find(a, y->key, y->key_len))
            return false;
    JSON_EACH (x, a) {
        const struct json *y = json_find(b, x->key, x->key_len);
        if (!y || (!is_shadowed(a, x) && !equal(x, y, depth)))
            return false;
    }
    return true;
}

static bool equal(const struct json *a, const struct json *b, size_t depth)
{
    enum json_type type = a ? a->type : JSON_NULL;
    if (!json_is(b, type) || depth > JSON_TREE_DEPTH_MAX)
        return false;
    switch (type) {
    case JSON_NUMBER:
        return json_numbers_equal(a, b);
    case JSON_STRING:
        return a->u.str.len == b->u.str.len && memcmp(a->u.str.text, b->u.str.text, a->u.str.len) == 0;
    case JSON_ARRAY:
        return arrays_equal(a, b, depth + 1);
    case JSON_OBJECT:
        return objects_equal(a, b, depth + 1);
    case JSON_NULL:
    case JSON_FALSE:
    case JSON_TRUE:
    default:
        return true;
    }
}

bool json_equal(const struct json *a, const struct json *b)
{
    return equal(a, b, 0);
}

static struct json *new_text(struct arena *arena, enum json_type type, const char *text, size_t len)
{
    struct json *node = arena_calloc(arena, 1, sizeof *node);
    char *copy = node ? arena_strndup(arena, text, len) : NULL;
    if (!copy)
        return NULL;
    node->type = type;
    node->u.str.text = copy;
    node->u.str.len = len;
    return node;
}

struct json *json_new(struct arena *arena, enum json_type type)
{
    if (type == JSON_NUMBER)
        return json_new_int(arena, 0);
    if (type == JSON_STRING)
        return json_new_string(arena, "", 0);
    struct json *node = arena_calloc(arena, 1, sizeof *node);
    if (node)
        node->type = type;
    return node;
}

struct json *json_new_string(struct arena *arena, const char *text, size_t len)
{
    return new_text(arena, JSON_STRING, text, len);
}

struct json *json_new_int(struct arena *arena, int64_t value)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRId64, value);
    return new_text(arena, JSON_NUMBER, text, (size_t)len);
}

struct json *json_new_double(struct arena *arena, double value)
{
    char text[JSON_DOUBLE_TEXT_MAX];
    size_t len = json_format_double(value, text);
    return len ? new_text(arena, JSON_NUMBER, text, len) : json_new(arena, JSON_NULL);
}

/* Takes every member of that name out, except `keep`. */
static void remove_members(struct json *object, const char *key, size_t key_len, const struct json *keep)
{
    struct json *last = NULL;
    struct json **link = &object->u.list.first;
    while (*link) {
        struct json *member = *link;
        if (member != keep && key_is(member, key, key_len)) {
            *link = member->next;
            member->next = NULL;
            object->u.list.count--;
        } else {
            last = member;
            link = &member->next;
        }
    }
    object->u.list.last = last;
}

static void append(struct json *list, struct json *value)
{
    value->next = NULL;
    if (list->u.list.last)
        list->u.list.last->next = value;
    else
        list->u.list.first = value;
    list->u.list.last = value;
    list->u.list.count++;
    if (value->key)
        list->u.list.names |= NAME_BIT(value->key, value->key_len);
}

struct json *json_set(struct arena *arena, struct json *object, const char *key, struct json *value)
{
    if (!value || !json_is(object, JSON_OBJECT))
        return NULL;
    size_t key_len = strlen(key);
    struct json *old = (struct json *)json_find(object, key, key_len);
    const char *name = old ? old->key : arena_strndup(arena, key, key_len);
    if (!name || key_len > UINT32_MAX)
        return NULL;
    value->key = name;
    value->key_len = (uint32_t)key_len;
    value->key_is_plain = old && old->key_is_plain;
    if (!old) {
        append(object, value);
        return value;
    }
    value->next = old->next;
    old->next = value;
    if (object->u.list.last == old)
        object->u.list.last = value;
    object->u.list.count++;
    remove_members(object, key, key_len, value);
    return value;
}

struct json *json_push(struct json *array, struct json *value)
{
    if (!value || !json_is(array, JSON_ARRAY))
        return NULL;
    append(array, value);
    return value;
}

void json_remove(struct json *object, const char *key)
{
    if (json_get(object, key))
        remove_members(object, key, strlen(key), NULL);
}

static struct json *copy(struct arena *arena, const struct json *value, size_t depth)
{
    if (depth > JSON_TREE_DEPTH_MAX)
        return NULL;
    if (json_is(value, JSON_NUMBER) || json_is(value, JSON_STRING))
        return new_text(arena, value->type, value->u.str.text, value->u.str.len);
    struct json *made = json_new(arena, value ? value->type : JSON_NULL);
    if (!made)
        return NULL;
    JSON_EACH (item, value) {
        struct json *child = copy(arena, item, depth + 1);
        if (!child)
            return NULL;
        if (item->key) {
            child->key = arena_strndup(arena, item->key, item->key_len);
            child->key_len = item->key_len;
            if (!child->key)
                return NULL;
        }
        append(made, child);
    }
    return made;
}

struct json *json_copy(struct arena *arena, const struct json *value)
{
    return copy(arena, value, 0);
}

static struct json *share_node(struct arena *arena, const struct json *value)
{
    struct json *node = arena_alloc(arena, sizeof *node);
    if (node) {
        *node = *value;
        node->next = NULL;
    }
    return node;
}

struct json *json_share(struct arena *arena, const struct json *value)
{
    struct json *root = value ? share_node(arena, value) : json_new(arena, JSON_NULL);
    if (!root)
        return NULL;
    root->key = NULL;
    root->key_len = 0;
    root->key_is_plain = false;
    if (!is_list(root))
        return root;
    root->u.list.first = root->u.list.last = NULL;
    JSON_EACH (member, value) {
        struct json *node = share_node(arena, member);
        if (!node)
            return NULL;
        if (root->u.list.last)
            root->u.list.last->next = node;
        else
            root->u.list.first = node;
        root->u.list.last = node;
    }
    return root;
}
