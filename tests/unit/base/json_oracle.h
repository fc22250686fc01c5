/* jansson as an oracle, behind names of its own, since its header and ours can't be included together. */
#ifndef PHAROS_TESTS_JSON_ORACLE_H
#define PHAROS_TESTS_JSON_ORACLE_H

#include <stddef.h>

struct oracle_node; /* borrowed from its document */

/* 'n'ull, 't'rue, 'f'alse, 'i'nteger, 'r'eal, 's'tring, 'a'rray, 'o'bject */
struct oracle_node *oracle_parse(const char *text, size_t len, char reason[160]); /* NULL: refused, and why */
void oracle_free(struct oracle_node *document);
char oracle_type(const struct oracle_node *node);
long long oracle_integer(const struct oracle_node *node);
double oracle_real(const struct oracle_node *node);
const char *oracle_string(const struct oracle_node *node, size_t *len);
size_t oracle_count(const struct oracle_node *node);
const struct oracle_node *oracle_at(const struct oracle_node *array, size_t index);
const struct oracle_node *oracle_get(const struct oracle_node *object, const char *key);

#endif
