/* JSON (RFC 8259): a DOM in an arena, and a writer.
 *
 * What goes through us must come out as it came in: objects keep the order of their members, unknown members
 * stay, duplicate members stay (json_get finds the last, as most parsers do), numbers keep their text. Input
 * is strict: UTF-8 without surrogates or overlong forms, no trailing commas, no leading zeros, no text after
 * the value, depth limited. One leniency: a lone surrogate escape (\uD83D, from clients that cut strings by
 * UTF-16 units) reads as U+FFFD. Strings are stored unescaped, may contain 0 bytes; they, names and numbers
 * are terminated for convenience. Thread: a document belongs to its arena's owner. */
#ifndef PHAROS_BASE_JSON_H
#define PHAROS_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/name_bit.h"
#include "base/status.h"

enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type : 8;
    bool is_plain : 1;     /* STRING: known to need no escapes */
    bool key_is_plain : 1; /* so is the name */
    uint32_t key_len;      /* member name, when the parent is an object */
    const char *key;       /* terminated; NULL for elements and roots */
    struct json *next;     /* next sibling */
    union {
        struct {
            const char *text; /* STRING: unescaped; NUMBER: as written */
            size_t len;
        } str;
        struct {
            struct json *first;
            struct json *last;
            uint32_t count;
            uint32_t names; /* bits of the members' names, of removed ones too: no bit, no member */
        } list;             /* ARRAY, OBJECT */
    } u;
};

/* Parses exactly one value. On failure `err` names byte offset and line. `text` need not outlive the call. */
PH_MUST_USE enum ph_status json_parse(struct arena *arena, const char *text, size_t len, struct json **out,
                                      struct ph_err *err);

/* Reading. All accept NULL and answer as for JSON_NULL, so that chains need no checks. */
static inline const struct json *json_get(const struct json *object, const char *key); /* NULL when absent */
const struct json *json_at(const struct json *array, size_t index); /* walks; use JSON_EACH for loops */
static inline bool json_is(const struct json *value, enum json_type type);
bool json_is_bool(const struct json *value);
bool json_is_absent(const struct json *value);                         /* NULL or JSON_NULL */
size_t json_count(const struct json *value);                           /* elements or members; 0 otherwise */
const char *json_text(const struct json *value, const char *fallback); /* STRING's bytes, else fallback */
bool json_to_double(const struct json *value, double *out); /* false: not a number, or not finite */
bool json_to_int64(const struct json *value,
                   int64_t *out); /* false: not an integer in range; 3.0 and 1e3 are integers */
bool json_text_is(const struct json *value, const char *text);

/* Deep, by meaning: numbers by exact value (1 = 1.0 = 10e-1), members in any order, a duplicate member by its
 * last value. Quadratic in the members of an object when their order differs. */
bool json_equal(const struct json *a, const struct json *b);

#define JSON_EACH(item, list_value) \
    for (const struct json *item = json_first(list_value); item; item = item->next)
const struct json *json_first(const struct json *list_value);

/* Most names that a reader of a dialect asks for are absent. */
const struct json *json_find(const struct json *object, const char *key, size_t key_len); /* for json_get */

static inline const struct json *json_get(const struct json *object, const char *key)
{
    size_t len = strlen(key);
    if (!object || object->type != JSON_OBJECT || !(object->u.list.names & NAME_BIT(key, len)))
        return NULL;
    return json_find(object, key, len);
}

static inline bool json_is(const struct json *value, enum json_type type)
{
    return (value ? value->type : JSON_NULL) == type;
}

/* Building in an arena. Every constructor returns NULL when out of memory. json_set and json_push return the
 * value they hung up, which must be a root; given a NULL value or container they do nothing but return NULL.
 * Text is copied. */
struct json *json_new(struct arena *arena, enum json_type type); /* NULL, FALSE, TRUE, ARRAY, OBJECT */
struct json *json_new_string(struct arena *arena, const char *text, size_t len);
struct json *json_new_int(struct arena *arena, int64_t value);
struct json *json_new_double(struct arena *arena, double value); /* not finite: null */

/* The value takes the place of the last member of that name; other duplicates go, so that no reader can see
 * the old value. */
struct json *json_set(struct arena *arena, struct json *object, const char *key, struct json *value);
struct json *json_push(struct json *array, struct json *value);
void json_remove(struct json *object, const char *key);                /* every member of that name */
struct json *json_copy(struct arena *arena, const struct json *value); /* a root, deep */
/* A root whose own members or elements may be set, pushed and removed; what hangs below them is still that of
 * `value`, whose arena must live as long, and must not be changed. */
struct json *json_share(struct arena *arena, const struct json *value);

/* Writing. Compact; text is escaped as RFC 8259 asks and no further ("/" and non-ASCII stay); invalid UTF-8
 * becomes U+FFFD. Failures stick to the buffer; a tree nested absurdly deep is PH_ERR_LIMIT. Numbers are
 * written with their own text, a number that is not finite as null. */
void json_write(struct buf *out, const struct json *value);
void json_write_string(struct buf *out, const char *text, size_t len); /* with the quotes */
void json_write_double(struct buf *out, double value); /* shortest text that reads back equal */

#endif
