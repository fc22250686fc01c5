/* Calls nothing of jansson that our library has by the same name (json_equal, json_copy). */
#include "json_oracle.h"

#include <stdio.h>

#include <jansson.h>

static const json_t *json_of(const struct oracle_node *node)
{
    return (const json_t *)(const void *)node;
}

struct oracle_node *oracle_parse(const char *text, size_t len, char reason[160])
{
    json_error_t error;
    json_t *document = json_loadb(text, len, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (!document)
        snprintf(reason, 160, "%s", error.text);
    return (struct oracle_node *)(void *)document;
}

void oracle_free(struct oracle_node *document)
{
    json_decref((json_t *)(void *)document);
}

char oracle_type(const struct oracle_node *node)
{
    static const char types[] = {
        [JSON_OBJECT] = 'o', [JSON_ARRAY] = 'a', [JSON_STRING] = 's', [JSON_INTEGER] = 'i',
        [JSON_REAL] = 'r',   [JSON_TRUE] = 't',  [JSON_FALSE] = 'f',  [JSON_NULL] = 'n'};
    return types[json_typeof(json_of(node))];
}

long long oracle_integer(const struct oracle_node *node)
{
    return json_integer_value(json_of(node));
}

double oracle_real(const struct oracle_node *node)
{
    return json_real_value(json_of(node));
}

const char *oracle_string(const struct oracle_node *node, size_t *len)
{
    *len = json_string_length(json_of(node));
    return json_string_value(json_of(node));
}

size_t oracle_count(const struct oracle_node *node)
{
    return json_array_size(json_of(node)) + json_object_size(json_of(node));
}

const struct oracle_node *oracle_at(const struct oracle_node *array, size_t index)
{
    return (const struct oracle_node *)(const void *)json_array_get(json_of(array), index);
}

const struct oracle_node *oracle_get(const struct oracle_node *object, const char *key)
{
    return (const struct oracle_node *)(const void *)json_object_get(json_of(object), key);
}
