/* n-gram language models: the baseline beside which a trained model's validation loss is reported.
 *
 * Interpolated modified Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1998). With c the count
 * of an n-gram of the model's order, and for shorter ones the number of different tokens seen before them,
 *
 *     P(w | h) = (c(hw) - D(c(hw))) / c(h.) + (D(1) n1 + D(2) n2 + D(3) n3) / c(h.) * P(w | h')
 *
 * where c(h.) sums c(hw) over all w; n1, n2 and n3 say how many w have a count of 1, of 2, of 3 and more; h'
 * is h without its first token; D(0) = 0 and D(c) = D(3) for c > 3. A context that was not seen leaves all to
 * the shorter one; below the single token lies 1 / (size of the vocabulary). Discounts are estimated for each
 * length from its counts of counts; where these are too few to tell, they are 1/2, 1 and 3/2.
 *
 * Text is one stream of tokens: documents joined end to end, as a language model trained on windows sees
 * them, so a history may reach across an end of text. What lies before the stream counts as one more token,
 * of no vocabulary. Thread: one while creating; reading is free for all. */
#ifndef PHAROS_TRAIN_NGRAM_H
#define PHAROS_TRAIN_NGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "train/corpus.h"

#define NGRAM_ORDER_MAX 6
#define NGRAM_DISCOUNTS 3 /* D(1), D(2), D(3) */

struct ngram;

struct ngram_stats {
    size_t order;
    uint64_t tokens;                                    /* trained on */
    uint64_t grams[NGRAM_ORDER_MAX];                    /* different ones, of length index + 1 */
    double discounts[NGRAM_ORDER_MAX][NGRAM_DISCOUNTS]; /* of length index + 1 */
    uint64_t bytes, bytes_peak;                         /* memory: of the model; while it was made */
};

/* From a stream of ids below n_vocab. PH_ERR_ARG: an order out of [1, NGRAM_ORDER_MAX], fewer tokens than
 * that, or a token out of the vocabulary; PH_ERR_LIMIT: 2^32 tokens or more. Needs 16 bytes a token beside
 * the model, which takes 24 bytes an n-gram, 8 one of the full length. `progress` may be NULL. */
PH_MUST_USE enum ph_status ngram_create(struct ngram **out, const int32_t *tokens, size_t count,
                                        size_t n_vocab, size_t order,
                                        void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                                        struct ph_err *err);
/* From the training parts of token files, one after the other. PH_ERR_ARG: not all of one vocabulary. */
PH_MUST_USE enum ph_status ngram_train(struct ngram **out, const struct corpus *const *corpora, size_t count,
                                       size_t order,
                                       void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                                       struct ph_err *err);
void ngram_free(struct ngram *ngram);
void ngram_stats(const struct ngram *ngram, struct ngram_stats *out);

/* Of a token after history[0..len), oldest first; more than order - 1 tokens of it make no difference. In
 * (0, 1), and over the whole vocabulary they sum to 1. */
double ngram_probability(const struct ngram *ngram, const int32_t *history, size_t len, int32_t token);

struct ngram_loss {
    uint64_t tokens;
    double nats;  /* sum of -ln P */
    double bytes; /* of the text that those tokens spell */
};

struct ngram_score {
    struct ngram_loss all, targets; /* every predicted token; those that count in a model's loss */
};

/* Adds a part of a token file to `score`: its joined documents, all tokens but the first. With `time` only as
 * many as batches of windows that long have (see batcher). `piece_bytes` [n_vocab]: the text bytes of each
 * token; without, NULL, the part's text is shared out evenly over its tokens. */
void ngram_score(const struct ngram *ngram, const struct corpus *corpus, enum corpus_part part, size_t time,
                 const uint32_t *piece_bytes, struct ngram_score *score,
                 void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud);

#endif
