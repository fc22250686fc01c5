/* memory/lexical: the embedding that needs no model.
 *
 * A text becomes LEXICAL_WIDTH numbers of length 1: its words, pairs of neighbouring words and pieces of
 * words (runs of 3 and 4 characters) are hashed to places with a sign (Weinberger et al. 2009), each as heavy
 * as it is rare in what was counted before. Texts that share rare words are near; so are texts with typing
 * mistakes and other endings, because most pieces of their words are the same. It knows no synonyms.
 *
 * Statistics say in how many texts a feature occurred, in a sketch of fixed size that errs upwards only
 * (Cormode and Muthukrishnan 2005). Vectors can be compared when they were made with the same statistics, so
 * these are counted once, kept in a file, and named: the name is that of the space of vectors.
 *
 * Thread: any number may embed at the same time while nobody adds. */
#ifndef PHAROS_MEMORY_LEXICAL_H
#define PHAROS_MEMORY_LEXICAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define LEXICAL_WIDTH 256
#define LEXICAL_NAME_MAX 32

struct lexical;

/* Without statistics every feature is as heavy as its kind. */
PH_MUST_USE enum ph_status lexical_create(struct lexical **out, struct ph_err *err);
void lexical_free(struct lexical *lexical);
/* Counts a text's features, of LEXICAL_TEXTS_MAX texts at most. UTF-8; other bytes are skipped. */
void lexical_add(struct lexical *lexical, const char *text, size_t len);
uint64_t lexical_texts(const struct lexical *lexical); /* counted so far */
/* "lexical-" and the hash of the statistics. */
void lexical_name(const struct lexical *lexical, char out[LEXICAL_NAME_MAX]);
/* A text without a letter or digit is all zeros. PH_ERR_NOMEM leaves `out` as it was. */
PH_MUST_USE enum ph_status lexical_embed(const struct lexical *lexical, const char *text, size_t len,
                                         float out[LEXICAL_WIDTH]);

/* The statistics, in a file of the owner's alone. PH_ERR_NOTFOUND: there is none; PH_ERR_FORMAT: it is none
 * of ours, or damaged. */
PH_MUST_USE enum ph_status lexical_read(struct lexical **out, const char *path, struct ph_err *err);
PH_MUST_USE enum ph_status lexical_remove(const char *path, struct ph_err *err);
PH_MUST_USE enum ph_status lexical_write(const struct lexical *lexical, const char *path, struct ph_err *err);

#endif
