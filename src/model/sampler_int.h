/* The stages of the sampling chain, each on its own, so that tests can apply them in any order. */
#ifndef PHAROS_MODEL_SAMPLER_INT_H
#define PHAROS_MODEL_SAMPLER_INT_H

#include "model/model.h"

/* The tokens still possible, in any order. All logits are finite. */
struct candidate_set {
    struct candidate *items;
    size_t len;
};

/* One candidate a token, in order of id. NaN and -inf are dropped, so an id is its index only without them.
 */
void candidates_load(struct candidate_set *set, const float *logits, size_t n_vocab);
void candidates_bias(struct candidate_set *set, const struct logit_bias *bias, size_t count);
/* counts [n_vocab]: how often each token was seen in the window */
void candidates_penalize(struct candidate_set *set, const uint32_t *counts, float repeat, float frequency,
                         float presence);
void candidates_top_n_sigma(struct candidate_set *set, float n);
void candidates_top_k(struct candidate_set *set, size_t k);
void candidates_typical(struct candidate_set *set, float p, size_t min_keep);
void candidates_top_p(struct candidate_set *set, float p, size_t min_keep);
void candidates_min_p(struct candidate_set *set, float p, size_t min_keep);
void candidates_temperature(struct candidate_set *set, float temperature);
void candidates_softmax(struct candidate_set *set); /* fills p */

#endif
