/* Values of the interpreter: making them, lists, ordered dicts, and JSON that becomes them.
 *
 * All memory is the render's arena, so nothing is freed singly. A dict keeps its entries in order of
 * insertion; from DICT_INDEX_MIN entries on it has an open-addressing index beside them. Numbers and booleans
 * that are equal are the same key, as in Python. Every walk over a container costs steps. */
#include "model/template_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DICT_INDEX_MIN 9

const struct tv tv_undefined = {.kind = TV_UNDEFINED};
const struct tv tv_none = {.kind = TV_NONE};

struct tv tv_bool(bool value)
{
    return (struct tv){TV_BOOL, {.boolean = value}};
}

struct tv tv_int(int64_t value)
{
    return (struct tv){TV_INT, {.integer = value}};
}

struct tv tv_size(size_t value)
{
    return tv_int((int64_t)value);
}

struct tv tv_float(double value)
{
    return (struct tv){TV_FLOAT, {.number = value}};
}

struct tv tv_text(struct text text)
{
    return (struct tv){TV_STRING, {.text = text}};
}

struct text text_of(const char *literal)
{
    return (struct text){literal, strlen(literal)};
}

struct tv tv_literal(const char *text)
{
    return tv_text(text_of(text));
}

struct tv tv_named_undefined(struct text name)
{
    return (struct tv){TV_UNDEFINED, {.text = name}};
}

bool text_equal(struct text a, struct text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

bool text_is(struct text text, const char *literal)
{
    return text_equal(text, text_of(literal));
}

struct tv tv_string_copy(struct render *r, const char *bytes, size_t len)
{
    char *copy = render_alloc(r, len);
    if (!copy)
        return tv_literal("");
    if (len)
        memcpy(copy, bytes, len);
    render_charge_bytes(r, len);
    return tv_text((struct text){copy, len});
}

struct tv tv_buf(struct render *r, struct buf *buf)
{
    enum ph_status status = buf_status(buf);
    struct tv result = tv_literal("");
    if (status != PH_OK)
        render_fail(r, status, "a string is longer than %u bytes", TEMPLATE_OUTPUT_BYTES_MAX);
    else if (buf->len)
        result = tv_string_copy(r, buf->data, buf->len);
    buf_release(buf);
    return result;
}

struct tv tv_callable_new(struct render *r, struct tv_callable callable)
{
    struct tv_callable *copy = render_alloc(r, sizeof *copy);
    if (!copy)
        return tv_undefined;
    *copy = callable;
    return (struct tv){TV_CALLABLE, {.callable = copy}};
}

/* ---- kinds ---- */

bool tv_is_integral(struct tv v)
{
    return v.kind == TV_INT || v.kind == TV_BOOL;
}

bool tv_is_number(struct tv v)
{
    return tv_is_integral(v) || v.kind == TV_FLOAT || v.kind == TV_BIGINT;
}

int64_t tv_integer(struct tv v)
{
    return v.kind == TV_BOOL ? v.u.boolean : v.u.integer;
}

double tv_number(struct tv v)
{
    if (v.kind == TV_FLOAT)
        return v.u.number;
    if (v.kind != TV_BIGINT)
        return (double)tv_integer(v);
    char digits[400] = {0}; /* a double has 309 digits before its point */
    memcpy(digits, v.u.text.at, v.u.text.len < sizeof digits ? v.u.text.len : sizeof digits - 1);
    return strtod(digits, NULL);
}

bool tv_truth(struct tv v)
{
    switch (v.kind) {
    case TV_UNDEFINED:
    case TV_NONE:
        return false;
    case TV_BOOL:
    case TV_INT:
        return tv_integer(v) != 0;
    case TV_FLOAT:
        return v.u.number != 0;
    case TV_STRING:
        return v.u.text.len > 0;
    case TV_LIST:
        return v.u.list->len > 0;
    case TV_DICT:
        return v.u.dict->len > 0;
    default:
        return true;
    }
}

const char *tv_type_name(struct tv v)
{
    static const char *const names[] = {
        [TV_UNDEFINED] = "undefined", [TV_NONE] = "None",
        [TV_BOOL] = "bool",           [TV_INT] = "int",
        [TV_BIGINT] = "int",          [TV_FLOAT] = "float",
        [TV_STRING] = "str",          [TV_LIST] = "list",
        [TV_DICT] = "dict",           [TV_NAMESPACE] = "namespace",
        [TV_LOOP] = "loop",           [TV_CALLABLE] = "function",
    };
    return v.kind == TV_LIST && v.u.list->is_tuple ? "tuple" : names[v.kind];
}

/* ---- lists ---- */

struct tv tv_list_new(struct render *r, size_t cap)
{
    struct tv_list *list = render_alloc(r, sizeof *list);
    if (!list)
        return tv_undefined;
    struct tv *items = cap ? render_alloc(r, cap * sizeof *items) : NULL;
    *list = (struct tv_list){.items = items, .cap = items ? cap : 0};
    return (struct tv){TV_LIST, {.list = list}};
}

bool tv_push(struct render *r, struct tv list, struct tv item)
{
    if (list.kind != TV_LIST || r->status != PH_OK)
        return false;
    struct tv_list *l = list.u.list;
    if (l->len == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        struct tv *items = render_alloc(r, cap * sizeof *items);
        if (!items)
            return false;
        if (l->len)
            memcpy(items, l->items, l->len * sizeof *items);
        l->items = items;
        l->cap = cap;
    }
    l->items[l->len++] = item;
    return true;
}

static struct tv list_of_characters(struct render *r, struct text text)
{
    struct tv list = tv_list_new(r, text.len);
    render_charge(r, text.len);
    for (size_t i = 0; i < text.len && r->status == PH_OK;) {
        struct text rest = {text.at + i, text.len - i};
        size_t len = text_offset(rest, 1);
        tv_push(r, list, tv_text((struct text){rest.at, len}));
        i += len;
    }
    return list;
}

struct tv tv_list_of(struct render *r, struct tv v)
{
    if (v.kind == TV_LIST)
        return v;
    if (v.kind == TV_STRING)
        return list_of_characters(r, v.u.text);
    struct tv list = tv_list_new(r, v.kind == TV_DICT ? v.u.dict->len : 0);
    if (v.kind == TV_DICT) {
        render_charge(r, v.u.dict->len);
        for (size_t i = 0; i < v.u.dict->len; i++)
            tv_push(r, list, v.u.dict->entries[i].key);
    } else if (v.kind != TV_UNDEFINED) {
        render_fail(r, PH_ERR_ARG, "'%s' cannot be iterated over", tv_type_name(v));
    }
    return list;
}

/* ---- dicts ---- */

struct tv tv_dict_new(struct render *r)
{
    struct tv_dict *dict = render_alloc(r, sizeof *dict);
    if (!dict)
        return tv_undefined;
    *dict = (struct tv_dict){0};
    return (struct tv){TV_DICT, {.dict = dict}};
}

static uint32_t hash_bytes(const void *bytes, size_t len)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 16777619u;
    return hash ^ (hash >> 15);
}

/* Tuples hash by their length only: they are rare as keys, and equality decides. */
static uint32_t hash_key(struct tv key)
{
    if (key.kind == TV_STRING || key.kind == TV_BIGINT)
        return hash_bytes(key.u.text.at, key.u.text.len);
    if (tv_is_number(key)) {
        double number = tv_number(key) + 0.0; /* -0 is 0 */
        return hash_bytes(&number, sizeof number);
    }
    return key.kind == TV_LIST ? (uint32_t)key.u.list->len : (uint32_t)key.kind;
}

static bool check_key(struct render *r, struct tv key)
{
    bool fits = key.kind != TV_DICT && key.kind != TV_NAMESPACE && key.kind != TV_LOOP &&
                !(key.kind == TV_LIST && !key.u.list->is_tuple);
    if (!fits)
        render_fail(r, PH_ERR_ARG, "'%s' cannot be a key", tv_type_name(key));
    return fits;
}

static bool same_key(struct render *r, struct tv a, struct tv b)
{
    if (a.kind == TV_STRING && b.kind == TV_STRING)
        return text_equal(a.u.text, b.u.text);
    return tv_equal(r, a, b);
}

static size_t find_slot(struct render *r, const struct tv_dict *dict, struct tv key)
{
    size_t mask = dict->slot_count - 1, slot = hash_key(key) & mask, probes = 0;
    while (dict->slots[slot] && !same_key(r, dict->entries[dict->slots[slot] - 1].key, key)) {
        slot = (slot + 1) & mask;
        probes++;
    }
    render_charge(r, probes);
    return slot;
}

static void build_index(struct render *r, struct tv_dict *dict)
{
    size_t count = 16;
    while (count < dict->cap * 2)
        count *= 2;
    dict->slots = render_alloc(r, count * sizeof *dict->slots);
    if (!dict->slots)
        return;
    memset(dict->slots, 0, count * sizeof *dict->slots);
    dict->slot_count = count;
    render_charge(r, dict->len);
    for (size_t i = 0; i < dict->len; i++)
        dict->slots[find_slot(r, dict, dict->entries[i].key)] = (uint32_t)i + 1;
}

static struct tv_entry *find_entry(struct render *r, struct tv_dict *dict, struct tv key)
{
    if (!check_key(r, key))
        return NULL;
    if (dict->slots) {
        uint32_t entry = dict->slots[find_slot(r, dict, key)];
        return entry ? &dict->entries[entry - 1] : NULL;
    }
    for (size_t i = 0; i < dict->len; i++)
        if (same_key(r, dict->entries[i].key, key))
            return &dict->entries[i];
    return NULL;
}

struct tv *tv_dict_find(struct render *r, struct tv_dict *dict, struct tv key)
{
    struct tv_entry *entry = find_entry(r, dict, key);
    return entry ? &entry->value : NULL;
}

static bool grow_dict(struct render *r, struct tv_dict *dict)
{
    size_t cap = dict->cap ? dict->cap * 2 : 8;
    struct tv_entry *entries = render_alloc(r, cap * sizeof *entries);
    if (!entries)
        return false;
    if (dict->len)
        memcpy(entries, dict->entries, dict->len * sizeof *entries);
    dict->entries = entries;
    dict->cap = cap;
    dict->slots = NULL;
    return true;
}

void tv_dict_set(struct render *r, struct tv_dict *dict, struct tv key, struct tv value)
{
    struct tv_entry *entry = find_entry(r, dict, key);
    if (r->status != PH_OK)
        return;
    if (entry) {
        entry->value = value;
        return;
    }
    if (dict->len == dict->cap && !grow_dict(r, dict))
        return;
    dict->entries[dict->len++] = (struct tv_entry){key, value};
    if (dict->slots)
        dict->slots[find_slot(r, dict, key)] = (uint32_t)dict->len;
    else if (dict->len >= DICT_INDEX_MIN)
        build_index(r, dict);
}

bool tv_dict_remove(struct render *r, struct tv_dict *dict, struct tv key)
{
    struct tv_entry *entry = find_entry(r, dict, key);
    if (!entry)
        return false;
    size_t index = (size_t)(entry - dict->entries);
    render_charge(r, dict->len - index);
    memmove(entry, entry + 1, (dict->len - index - 1) * sizeof *entry);
    dict->len--;
    if (dict->slots)
        build_index(r, dict);
    return true;
}

/* ---- JSON ---- */

static struct tv number_of(struct text text)
{
    bool integral = true;
    for (size_t i = 0; i < text.len; i++)
        integral = integral && (text.at[i] == '-' || (text.at[i] >= '0' && text.at[i] <= '9'));
    if (!integral)
        return tv_float(strtod(text.at, NULL)); /* JSON texts are terminated */
    bool negative = text.at[0] == '-';
    int64_t value = 0;
    for (size_t i = negative; i < text.len; i++) {
        int64_t digit = text.at[i] - '0';
        if (__builtin_mul_overflow(value, 10, &value) ||
            (negative ? __builtin_sub_overflow(value, digit, &value)
                      : __builtin_add_overflow(value, digit, &value)))
            return (struct tv){TV_BIGINT, {.text = text}};
    }
    return tv_int(value);
}

static struct tv container_of(struct render *r, const struct json *json)
{
    if (!render_enter(r)) {
        render_leave(r);
        return tv_undefined;
    }
    size_t count = json_count(json);
    bool is_array = json_is(json, JSON_ARRAY);
    struct tv result = is_array ? tv_list_new(r, count) : tv_dict_new(r);
    JSON_EACH (item, json) {
        if (r->status != PH_OK)
            break;
        struct tv value = tv_from_json(r, item);
        if (is_array)
            tv_push(r, result, value);
        else
            tv_dict_set(r, result.u.dict, tv_text((struct text){item->key, item->key_len}), value);
    }
    render_leave(r);
    return result;
}

struct tv tv_from_json(struct render *r, const struct json *json)
{
    struct text text = {NULL, 0};
    if (json_is_absent(json))
        return tv_none;
    switch (json->type) {
    case JSON_FALSE:
    case JSON_TRUE:
        return tv_bool(json->type == JSON_TRUE);
    case JSON_NUMBER:
    case JSON_STRING:
        text = (struct text){json->u.str.text, json->u.str.len};
        return json->type == JSON_NUMBER ? number_of(text) : tv_text(text);
    default:
        return container_of(r, json);
    }
}
