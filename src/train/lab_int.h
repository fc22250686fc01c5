/* What the lab's files share. */
#ifndef PHAROS_TRAIN_LAB_INT_H
#define PHAROS_TRAIN_LAB_INT_H

#include "train/lab.h"

#define LAB_TYPES 40 /* type ids are below this */
#define LAB_ROWS_MAX 64
#define LAB_POINTS_MAX 64

/* A matrix that quantising touches. */
struct lab_tensor {
    const struct gguf_tensor *tensor; /* of the original */
    float *weights;                   /* importance, or NULL */
    void *blocks[LAB_TYPES][2];       /* made so far: by type, and weighted or not */
    double kl_high, kl_low;           /* measured alone: 8 bits, 4 bits */
    double activation, slope;         /* divergence = activation + slope * error */
    bool sensitive;                   /* the three above are known */
};

/* Windows of the text and what the original predicts there. */
struct lab_set {
    const int32_t *tokens;
    size_t windows;
    float *logprobs; /* [windows * (window - 1)][n_vocab] */
    double nll;      /* of the original, a token */
};

struct lab_point {
    double file_bytes, kl;
};

struct lab {
    struct lab_params params;
    struct gguf *gguf; /* the original's, for tensors */
    struct model *model;
    struct pool *pool; /* for quantising */
    struct lab_tensor *tensors;
    size_t tensor_count, n_vocab;
    size_t blocks_bytes;
    int32_t *tokens;
    struct lab_set learn, test;
    struct importance *importance;
    struct lab_row rows[LAB_ROWS_MAX];
    enum tensor_type *types[LAB_ROWS_MAX]; /* [tensor_count] of each row */
    size_t row_count;
    struct lab_point points[LAB_POINTS_MAX]; /* assignments that the search measured */
    size_t point_count;
};

/* An assignment in being: a model over the original's file with some tensors replaced. */
struct lab_candidate {
    struct model *model;
    uint64_t weight_bytes, file_bytes;
};

struct lab_result {
    double nll, kl, kl_error, top1;
};

PH_MUST_USE enum ph_status lab_tell(const struct lab *lab, const char *what, uint64_t done, uint64_t total,
                                    struct ph_err *err);

/* types [tensor_count]. The candidate holds memory of the lab's until the next is built. */
PH_MUST_USE enum ph_status lab_build(struct lab *lab, const enum tensor_type *types, bool weighted,
                                     struct lab_candidate *out, struct ph_err *err);
/* Runs a model over a set. */
PH_MUST_USE enum ph_status lab_run(struct lab *lab, const struct model *model, const struct lab_set *set,
                                   struct lab_result *out, struct ph_err *err);
/* Builds, runs over the test set, times when asked, and adds a row. */
PH_MUST_USE enum ph_status lab_add_row(struct lab *lab, const char *name, const enum tensor_type *types,
                                       bool weighted, struct ph_err *err);
PH_MUST_USE enum ph_status lab_time(const struct lab *lab, const struct model *model, struct lab_speed *out,
                                    struct ph_err *err);

#endif
