/* memory, private: what is in a selector's file. */
#ifndef PHAROS_MEMORY_SPT_INT_H
#define PHAROS_MEMORY_SPT_INT_H

#include "memory/spt.h"

int32_t spt_word(const struct spt *spt, uint64_t stem);            /* its row; -1: unknown. spt NULL: -1 */
const int8_t *spt_word_vector(const struct spt *spt, int32_t row); /* [SPT_WIDTH], unit length x 127 */
float spt_word_weight(const struct spt *spt, int32_t row);         /* a rare word says more */
float spt_word_rarity(const struct spt *spt,
                      int32_t row);                 /* its idf in the language; of an unknown word too */
float spt_cosine(const int8_t *a, const int8_t *b); /* of two such vectors */
/* The direction of a sum of vectors; all 0 where the sum is. */
void spt_direction(const float sum[SPT_WIDTH], int8_t out[SPT_WIDTH]);
/* [FEATURE_COUNT], features_int.h; talk: of enum talk. */
const float *spt_weights(const struct spt *spt, unsigned talk);
struct spt_set;
/* The set transformer, and how much its corrections count; NULL: the linear ranker stands alone there. */
const struct spt_set *spt_set_of(const struct spt *spt, unsigned talk, float *share);

struct spt_word_table;
struct spt_bytes {
    const uint8_t *data;
    size_t len;
};
struct spt_bytes spt_shipped(void); /* a file */

/* The words of a file, to be trained with again; their texts are empty. false: no memory. */
bool spt_copy_words(const struct spt *spt, struct spt_word_table *table);
struct spt_ranker {
    const float *weights; /* [TALK_COUNT][FEATURE_COUNT] */
    const float *set;     /* the set transformer's, spt_set_int.h; NULL: none */
    const float *shares;  /* [TALK_COUNT] how much it counts */
};
PH_MUST_USE enum ph_status spt_write(const char *path, const struct spt_word_table *words,
                                     const struct spt_ranker *ranker, struct ph_err *err);

#endif
