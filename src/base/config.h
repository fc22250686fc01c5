/* YAML configuration with a typed schema.
 *
 * A schema is a table; reading a file fills a zeroed struct through the table's offsets. Unknown keys,
 * duplicate keys, wrong types and values out of range are errors that name file, line and key, and a misspelt
 * key gets a suggestion.
 * `${NAME}` in a scalar reads the environment (unset = error), `$${` is a literal `${`. Aliases, tags and
 * several documents are refused: a configuration has one reading. Strings and lists live in the given arena.
 * Thread: one at a time. */
#ifndef PHAROS_BASE_CONFIG_H
#define PHAROS_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/status.h"

enum config_type {
    CONFIG_STRING, /* char * */
    CONFIG_BOOL,   /* bool */
    CONFIG_INT,    /* int64_t, within [min, max] */
    CONFIG_DOUBLE, /* double, within [min, max] */
    CONFIG_ENUM,   /* int, index into `names` */
    CONFIG_STRUCT, /* embedded struct described by `fields` */
    CONFIG_LIST,   /* struct config_list of structs (`fields`) or of strings (`fields` NULL) */
    CONFIG_MAP,    /* struct config_list of structs, each with its key in its first member (char *) */
    CONFIG_FREE    /* const struct json *: any YAML kept as JSON */
};

struct config_list {
    void *items; /* array of structs, or of char * */
    size_t count;
};

struct config_field {
    const char *key; /* NULL ends a table */
    enum config_type type;
    size_t offset; /* in the struct that the table describes */
    bool required;
    double min, max;                   /* INT, DOUBLE; both 0 = no bounds */
    const char *const *names;          /* ENUM: NULL-terminated */
    const struct config_field *fields; /* STRUCT, LIST, MAP */
    bool takes_scalar;                 /* STRUCT, LIST: a scalar is its first field */
    size_t item_size;                  /* LIST, MAP of structs */
    const char *help;                  /* one line, for documentation */
};

/* Reads YAML `text` (named `source` in errors) into `out`, whose fields keep their values where the text is
 * silent. */
PH_MUST_USE enum ph_status config_parse(struct arena *arena, const char *source, const char *text, size_t len,
                                        const struct config_field *fields, void *out, struct ph_err *err);
PH_MUST_USE enum ph_status config_read(struct arena *arena, const char *path,
                                       const struct config_field *fields, void *out, struct ph_err *err);

#endif
