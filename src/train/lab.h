/* The quantisation lab: what each number format costs a model, and the smallest assignment of formats
 * within a stated loss.
 *
 * A candidate is a format for every matrix of the model. It is made in memory (nothing is written but what
 * the caller keeps) and run on a text beside the original: the mean Kullback-Leibler divergence of its
 * predictions from the original's, perplexity, how often both think the same token likeliest; and it is
 * timed.
 *
 * The text is divided: its first part is for learning (importance of inputs, sensitivity of tensors), its
 * last for measuring, so that no figure is of text that the candidate was fitted to.
 *
 * Sensitivity: every matrix is quantised alone, to 4 bits and to 8, and the divergence measured. In between
 * and beyond, the divergence grows with the squared rounding error (weighted by the inputs' mean squares);
 * what the 8-bit one costs beyond that line is the rounding of activations, which all quantised formats
 * share. Steps from format to format, cheapest divergence a saved byte first, make a path of assignments;
 * the last one on it whose measured loss is within the bound is the answer ("mixed"). */
#ifndef PHAROS_TRAIN_LAB_H
#define PHAROS_TRAIN_LAB_H

#include "base/buf.h"
#include "base/status.h"
#include "model/model.h"

#define LAB_NAME_MAX 24

struct lab_params {
    const char *model;
    size_t window;     /* tokens a window, BOS included */
    size_t tokens_max; /* measured; as many again are learnt from. Less where logits would need over 1 GiB */
    unsigned threads;
    const char *kernels; /* NULL: best */
    bool timed;          /* measure speeds too */
    bool again;          /* take a model that is quantised already as the original */
    /* false: stop. May be NULL. */
    bool (*progress)(void *ud, const char *what, uint64_t done, uint64_t total);
    void *ud;
};

struct lab_speed {
    double decode, prefill; /* tokens/s, medians */
    double p50_ms, p95_ms;  /* of one decoded token */
    double decode_limit;    /* tokens/s at the bandwidth with which memory of this size was read */
    bool quiet;             /* the threads had their cores for 90 % of the time */
};

struct lab_row {
    char name[LAB_NAME_MAX]; /* "Q4_K_M", "mixed" */
    bool weighted;           /* rounded by importance */
    uint64_t file_bytes, weight_bytes;
    uint64_t memory_bytes; /* weights and the KV cache (F16) of one full context */
    double nll, ppl;       /* nats a token */
    double kl, kl_error;   /* nats a token, and its standard error over windows */
    double top1;           /* share of tokens where the original's likeliest is also this one's */
    struct lab_speed speed;
};

/* Loss of a row: nats of divergence, or percent of perplexity more than the original's. */
struct lab_bound {
    double value;
    bool percent;
};

struct lab;

/* Opens the original. PH_ERR_ARG: it is quantised already. */
PH_MUST_USE enum ph_status lab_create(struct lab **out, const struct lab_params *params, struct ph_err *err);
void lab_free(struct lab *lab);
const struct model *lab_model(const struct lab *lab);

/* Takes the text (copied), runs the original on it. The original is row 0. */
PH_MUST_USE enum ph_status lab_read(struct lab *lab, const int32_t *tokens, size_t count, const char *dataset,
                                    struct ph_err *err);
/* Adds a row for a mixture. */
PH_MUST_USE enum ph_status lab_measure(struct lab *lab, const struct mixture *mixture, bool weighted,
                                       struct ph_err *err);
/* Finds the smallest assignment within the bound and adds its row, if even one is. */
PH_MUST_USE enum ph_status lab_search(struct lab *lab, struct lab_bound bound, struct ph_err *err);

const struct lab_row *lab_rows(const struct lab *lab, size_t *count);
double lab_loss(const struct lab *lab, const struct lab_row *row, bool percent);
/* The smallest file within the bound; NULL: none. */
const struct lab_row *lab_smallest(const struct lab *lab, struct lab_bound bound);
/* Writes the row's model as a file. */
PH_MUST_USE enum ph_status lab_write(struct lab *lab, const struct lab_row *row, const char *path,
                                     struct ph_err *err);

/* ---- Reports */
void lab_table(const struct lab *lab, bool markdown, struct buf *out);
void lab_csv(const struct lab *lab, struct buf *out);
void lab_json(const struct lab *lab, struct lab_bound bound, struct buf *out);
/* Of each matrix: bytes, what quantising it alone costs, and the format it has in "mixed". */
void lab_tensors_csv(const struct lab *lab, struct buf *out);
/* lab.csv, tensors.csv, lab.md, loss.svg and speed.svg in a folder, which is made. */
PH_MUST_USE enum ph_status lab_report(const struct lab *lab, struct lab_bound bound, const char *folder,
                                      struct ph_err *err);

#endif
