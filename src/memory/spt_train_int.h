/* memory, private: what the selector's training is made of. */
#ifndef PHAROS_MEMORY_SPT_TRAIN_INT_H
#define PHAROS_MEMORY_SPT_TRAIN_INT_H

#include "base/clock.h"
#include "memory/features_int.h"
#include "memory/spt_words_int.h"

/* A question that was made up from a case's own turns; in the arena. evidence_count 0: these turns give
 * none. */
PH_MUST_USE enum ph_status spt_make_up(const struct memory_index *index, const struct spt_word_table *words,
                                       struct rng *rng, struct arena *arena, struct spt_question *question);

/* Texts for spt_distil, a sample of each file's. */
struct spt_sample {
    char **texts;
    size_t count, capacity;
    size_t first, seen; /* of the file at hand: where its own begin, how many came by */
    struct rng rng;
};
void spt_sample_file(struct spt_sample *sample); /* the next one begins */
/* Its sentences come by. PH_ERR_NOMEM. */
PH_MUST_USE enum ph_status spt_sample_add(struct spt_sample *sample, const char *text, size_t len);
void spt_sample_release(struct spt_sample *sample);
/* Makes vectors and weights anew, so that a text's direction is near to what the teacher, an embedding
 * model, says of it. `agreement`: mean cosine on texts that were not learned from. */
PH_MUST_USE enum ph_status spt_distil(struct spt_word_table *words, const struct spt_sample *sample,
                                      const char *teacher, uint64_t seed, double *agreement,
                                      struct ph_err *err);

struct spt_example { /* a question's candidates */
    size_t count;
    float (*features)[FEATURE_COUNT];
    int8_t (*vectors)[SPT_WIDTH]; /* of the candidates */
    int8_t query[SPT_WIDTH];
    float *relevance; /* above 0: evidence; below 0: neither evidence nor counted against */
    float weight;
    uint32_t source;
    enum talk talk;
};

/* The listwise softmax's minimum over the examples of a talk (convex): Adam on small batches. weights
 * [FEATURE_COUNT]: where it starts, what it is drawn to, and where it ends. *used: examples of that talk.
 * Returns the mean loss of the last epoch. */
double spt_fit(const struct spt_example *examples, size_t all, enum talk talk, size_t epochs, uint64_t seed,
               float *weights, size_t *used);

#endif
