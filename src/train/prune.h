/* Structured pruning: whole attention heads and feed-forward columns leave a decoder; a smaller one remains.
 *
 * train.h includes this. A head leaves with all that share its keys and values, so that what remains is of
 * the llama architecture: fewer heads of the same width (d is no longer heads x head_dim), fewer columns. */
#ifndef PHAROS_TRAIN_PRUNE_H
#define PHAROS_TRAIN_PRUNE_H

#include "train/layers.h"

#define PRUNE_FF_MULTIPLE ((size_t)16)

/* What leaving a structure out would change in the loss, to first order: |sum of w dL/dw| over the weights
 * that read its output, for each batch by itself, added up over batches (Molchanov et al. 2019). */
struct saliency {
    size_t layers, groups, columns; /* a group: the heads of one key and value head */
    double *of_groups;              /* [layers][groups] */
    double *of_columns;             /* [layers][columns] */
};

PH_MUST_USE enum ph_status saliency_init(struct saliency *saliency, const struct decoder *decoder,
                                         struct ph_err *err);
void saliency_release(struct saliency *saliency);
/* Takes the decoder's gradients, those of one batch. Small batches: over many examples, changes of opposite
 * sign would cancel. */
void saliency_add(struct saliency *saliency, struct decoder *decoder);

/* A decoder of the `heads` and `ff` columns of each layer that matter most, for steps of batch x time.
 * PH_ERR_ARG: heads are not whole groups, columns no multiple of PRUNE_FF_MULTIPLE, or there are fewer. */
PH_MUST_USE enum ph_status decoder_prune(struct decoder **out, struct pool *pool, struct decoder *from,
                                         const struct saliency *saliency, size_t heads, size_t ff,
                                         size_t batch, size_t time, struct ph_err *err);

#endif
