/* memory, private: what is in a selector's file. */
#ifndef PHAROS_MEMORY_SPT_INT_H
#define PHAROS_MEMORY_SPT_INT_H

#include "memory/spt.h"

int32_t spt_word(const struct spt *spt, uint64_t stem);            /* its row; -1: unknown. spt NULL: -1 */
const int8_t *spt_word_vector(const struct spt *spt, int32_t row); /* [SPT_WIDTH], unit length x 127 */
float spt_word_weight(const struct spt *spt, int32_t row);         /* a rare word says more */
float spt_cosine(const int8_t *a, const int8_t *b);                /* of two such vectors */
/* The direction of a sum of vectors; all 0 where the sum is. */
void spt_direction(const float sum[SPT_WIDTH], int8_t out[SPT_WIDTH]);
const float *spt_weights(const struct spt *spt); /* [FEATURE_COUNT], features_int.h */

#endif
