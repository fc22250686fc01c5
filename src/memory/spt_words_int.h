/* memory, private: word vectors learned from plain text. */
#ifndef PHAROS_MEMORY_SPT_WORDS_INT_H
#define PHAROS_MEMORY_SPT_WORDS_INT_H

#include "memory/spt_int.h"

struct spt_words; /* texts that were read */

#define SPT_WORD_TEXT 24

struct spt_word_table {
    size_t count;
    uint64_t *stems;              /* ascending */
    float *rarities;              /* [count], near 1 for rare words */
    float *weights;               /* [count], in the direction of a text */
    int8_t *vectors;              /* [count][SPT_WIDTH], unit length x 127 */
    char (*texts)[SPT_WORD_TEXT]; /* [count]: a word of the stem, for questions that are made up */
};

PH_MUST_USE enum ph_status spt_words_create(struct spt_words **out, struct ph_err *err);
void spt_words_free(struct spt_words *words);
/* Words are near each other within one call's text only. PH_ERR_LIMIT: enough was read. */
PH_MUST_USE enum ph_status spt_words_add(struct spt_words *words, const char *text, size_t len);
/* Vectors of the `max` commonest words. */
PH_MUST_USE enum ph_status spt_words_train(const struct spt_words *words, size_t max, uint64_t seed,
                                           struct spt_word_table *table, struct ph_err *err);
/* Jacobi's rotations: g [n][n] becomes diagonal, v its eigenvectors in columns. */
void symmetric_diagonalise(double *g, double *v, size_t n);
void spt_word_table_release(struct spt_word_table *table);

#endif
