/* Between reading YAML (config_yaml.c) and filling structs (config.c): a tree that knows its lines. */
#ifndef PHAROS_BASE_CONFIG_INT_H
#define PHAROS_BASE_CONFIG_INT_H

#include "base/config.h"

enum config_kind { CONFIG_SCALAR, CONFIG_SEQUENCE, CONFIG_MAPPING };

struct config_node {
    enum config_kind kind;
    bool quoted;   /* SCALAR: in quotes or as a block, so certainly text */
    bool expanded; /* SCALAR: came from the environment, at least in part */
    size_t line;   /* counted from 1 */
    size_t key_line;
    const char *key;  /* in a mapping; terminated, without 0 bytes */
    const char *text; /* SCALAR; likewise */
    struct config_node *first, *last, *next;
    size_t count;
};

/* The one document of `text`; an empty text is an empty mapping. Environment variables are expanded,
 * duplicate keys refused. */
PH_MUST_USE enum ph_status config_yaml_load(struct arena *arena, const char *source, const char *text,
                                            size_t len, struct config_node **out, struct ph_err *err);

bool config_is_null(const struct config_node *node);  /* nothing, `~` or `null`, unquoted */
bool config_is_typed(const struct config_node *node); /* a scalar that may be a number or a bool */

#endif
