/* memory, private: the set transformer, which corrects the linear ranker's scores of candidates with an eye
 * on all of them. */
#ifndef PHAROS_MEMORY_SPT_SET_INT_H
#define PHAROS_MEMORY_SPT_SET_INT_H

#include "memory/features_int.h"
#include "memory/spt_train_int.h"
#include "model/model.h"
#include "train/train.h"

#define SET_WIDTH 32
#define SET_HEADS 4
#define SET_INNER 64
#define SET_LAYERS 2
#define SET_READ 128 /* candidates, the best of the linear ranker */
/* A candidate, as it is read: its features; how far the linear ranker puts it behind the first; the kind of
 * talk; its vector times the query's. */
#define SET_INPUTS (FEATURE_COUNT + 1 + TALK_COUNT + SPT_WIDTH)

/* Slices of one flat array of parameters. */
enum set_slice {
    SET_IN,
    SET_IN_BIAS,
    SET_NORM,
    SET_NORM_BIAS,
    SET_HEAD,
    SET_BLOCKS, /* from here on SET_BLOCK_SLICES for each layer */
};

enum set_block_slice {
    BLOCK_NORM_1,
    BLOCK_NORM_1_BIAS,
    BLOCK_QKV, /* [3 SET_WIDTH][SET_WIDTH] */
    BLOCK_QKV_BIAS,
    BLOCK_OUT,
    BLOCK_OUT_BIAS,
    BLOCK_NORM_2,
    BLOCK_NORM_2_BIAS,
    BLOCK_UP,
    BLOCK_UP_BIAS,
    BLOCK_DOWN,
    BLOCK_DOWN_BIAS,
    SET_BLOCK_SLICES
};

#define SET_SLICES (SET_BLOCKS + SET_LAYERS * SET_BLOCK_SLICES)

struct set_layout {
    struct param slices[SET_SLICES];
    size_t len; /* of all */
};
void set_layout_make(struct set_layout *layout);

/* What is read of one question. */
struct set_list {
    size_t count;
    const float *const *features; /* [count], of FEATURE_COUNT */
    const int8_t *const *vectors; /* [count], of SPT_WIDTH */
    const int8_t *query;          /* [SPT_WIDTH] */
    const float *scores;          /* the linear ranker's, [count] */
    enum talk talk;
};
void set_read(const struct set_list *list, float *inputs); /* [count][SET_INPUTS] */

struct spt_set; /* weights ready for use; immutable */
/* Of a file's tensors; *out NULL where it has none. */
PH_MUST_USE enum ph_status spt_set_open(struct spt_set **out, const struct gguf *gguf, struct ph_err *err);
void spt_set_close(struct spt_set *set);
/* corrections [count], to be added to list->scores. PH_ERR_NOMEM only. */
PH_MUST_USE enum ph_status spt_set_run(const struct spt_set *set, const struct set_list *list,
                                       struct arena *arena, float *corrections);
/* Its tensors: all descriptions, then, after everybody else's, all data of w [layout->len]. */
void spt_set_describe(struct gguf_writer *writer, const struct set_layout *layout);
void spt_set_write(struct gguf_writer *writer, const struct set_layout *layout, const float *w);

/* ---- Training, spt_set_fit.c ---- */

struct set_fit;
PH_MUST_USE enum ph_status set_fit_create(struct set_fit **out, uint64_t seed, struct ph_err *err);
void set_fit_free(struct set_fit *fit);
float *set_fit_weights(struct set_fit *fit); /* [set_layout's len] */
/* scores [count] = the list's own with the corrections; count <= CANDIDATES_MAX. */
void set_fit_forward(struct set_fit *fit, const struct set_list *list, float *scores);
/* Of the last forward: adds the weights' gradients, given those of the scores. */
void set_fit_backward(struct set_fit *fit, const float *dscores);
float *set_fit_gradients(struct set_fit *fit); /* like the weights */
/* Learns to correct the linear ranker of `weights`. *loss: of the last epoch, in nats. PH_ERR_NOMEM. */
PH_MUST_USE enum ph_status set_fit_learn(struct set_fit *fit, const struct spt_example *examples,
                                         size_t count, const float weights[TALK_COUNT][FEATURE_COUNT],
                                         size_t epochs, uint64_t seed, double *loss);

#endif
