/* Training a language model: from token files to a model file, exactly resumable.
 *
 * train.h includes this. A trainer holds everything a run is: weights, moments, positions in the data, the
 * step. What it does next follows from these and its settings alone (L3 for the lanes), so a checkpoint of
 * them goes on as if nothing had happened, bit for bit. Thread: one; work is shared out over the pool. */
#ifndef PHAROS_TRAIN_TRAINER_H
#define PHAROS_TRAIN_TRAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/model.h"
#include "train/layers.h"
#include "train/ranks.h"

/* ---- Settings ---- */

struct trainer_source {
    const char *path; /* a token file */
    double weight;    /* its share of the windows, relative to the others'; 0 for all: by their sizes */
};

#define TRAINER_SOURCES_MAX 64

/* Which activations are computed twice instead of kept. AUTO: as memory allows, see decoder_fit. */
enum trainer_recompute { RECOMPUTE_AUTO, RECOMPUTE_ALWAYS, RECOMPUTE_NEVER };

/* Zeros in `model` are chosen by the trainer, or are what `init` has (another number is an error, but for the
 * context and rope_base). */
struct trainer_params {
    const struct trainer_source *sources;
    size_t source_count;
    const char *tokenizer;       /* GGUF with the vocabulary of the token files; NULL: that of `init` */
    const char *init;            /* GGUF of the llama architecture to begin from; NULL: random weights */
    struct decoder_config model; /* vocab is the tokenizer's; tied is `init`'s */
    struct ranks *ranks; /* each takes its share of every batch; NULL: alone. Steps, validation, load and save
                          * are then collective */
    enum trainer_recompute recompute;
    uint64_t memory;          /* bytes that a run may take; 0: most of what is available */
    size_t batch, accumulate; /* windows a micro-batch, micro-batches a step */
    size_t time;              /* tokens a window predicts; 0: 256, or the context where that is shorter */
    uint64_t steps;           /* in all; 0: `tokens`, or one epoch */
    uint64_t tokens;
    double rate, floor; /* of learning, peak and end; floor below 0: a tenth, or 0 where not cosine */
    uint64_t warmup;    /* steps; UINT64_MAX: a tenth of all, at most 100 */
    enum schedule_kind schedule;
    double cooldown; /* share of all steps in which a schedule that is not cosine falls */
    double decay, beta1, beta2, eps, clip;
    bool muon; /* for the hidden matrices, see struct adamw */
    uint64_t seed;
    size_t validation_windows; /* 0: no validation */
};
void trainer_params_default(struct trainer_params *params);

/* ---- Life ---- */

struct trainer;

/* Opens the data and the tokenizer, allocates everything that steps need, sets the first weights. Strings
 * need not outlive the call; the pool must. */
PH_MUST_USE enum ph_status trainer_create(struct trainer **out, struct pool *pool,
                                          const struct trainer_params *params, struct ph_err *err);
void trainer_free(struct trainer *trainer);
const struct trainer_params *trainer_params(const struct trainer *trainer); /* nothing left to choose */
struct decoder *trainer_decoder(struct trainer *trainer);
double trainer_flops_per_token(const struct trainer *trainer); /* forward, backward, all products */
uint64_t trainer_step_tokens(const struct trainer *trainer);   /* predicted positions a step */
uint64_t trainer_step_at(const struct trainer *trainer);       /* steps done */
uint64_t trainer_step_end(const struct trainer *trainer);      /* the run's last step */
double trainer_epoch(const struct trainer *trainer);           /* windows given, in epochs of all data */

struct trainer_report {
    uint64_t step, tokens; /* done, this one included */
    double loss;           /* nats a predicted token, before the step */
    double norm, rate;
};

/* One step: forward, backward, update. Allocates nothing. PH_ERR_LIMIT: the loss or the gradient is not a
 * number any more; the weights may be spoilt, so the trainer is only good for freeing. */
PH_MUST_USE enum ph_status trainer_step(struct trainer *trainer, struct trainer_report *report,
                                        struct ph_err *err);
/* From now on the rate falls over `steps` steps, with which the run ends. PH_ERR_ARG: it is a
 * cosine, which falls anyway. */
PH_MUST_USE enum ph_status trainer_cool_down(struct trainer *trainer, uint64_t steps, struct ph_err *err);

struct trainer_validation {
    uint64_t windows, tokens; /* tokens: predicted */
    double loss;              /* nats a token */
    double bits_per_byte;     /* of the text the predicted tokens spell */
};

/* On held-out windows, spread evenly over the held-out text, always the same. `all`: on every one of them.
 * windows 0: nothing is held out. */
PH_MUST_USE enum ph_status trainer_validate(struct trainer *trainer, bool all, struct trainer_validation *out,
                                            struct ph_err *err);

/* ---- Pruning: see prune.h ---- */

struct prune_params {
    size_t heads, ff; /* that stay in each layer; 0: `keep` of them */
    double keep;      /* share, above 0, at most 1 */
    uint64_t windows; /* of the data, whose gradients decide */
};

/* The trainer goes on with a smaller model and fresh moments. */
PH_MUST_USE enum ph_status trainer_prune(struct trainer *trainer, const struct prune_params *params,
                                         void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                                         struct ph_err *err);

/* ---- Checkpoints ---- */

/* Writes a checkpoint file, atomically. PH_ERR_LIMIT: the weights are spoilt, no loss comes of them. */
PH_MUST_USE enum ph_status trainer_save(struct trainer *trainer, const char *path, struct ph_err *err);
/* Goes on from a checkpoint. Settings that would make the run another one must agree: PH_ERR_ARG names the
 * first that does not. With `adapt` they may differ, but for the model's sizes and its vocabulary: each
 * data file goes on where it was, and new shares hold from here on; with another time or seed all begin
 * anew. */
PH_MUST_USE enum ph_status trainer_load(struct trainer *trainer, const char *path, bool adapt,
                                        struct ph_err *err);

/* ---- A model file ---- */

/* F32, with the tokenizer's keys. `name`: general.name. */
PH_MUST_USE enum ph_status trainer_export(struct trainer *trainer, const char *path, const char *name,
                                          struct ph_err *err);
/* The same in a number format; NULL or F32: as trained. */
PH_MUST_USE enum ph_status trainer_export_as(struct trainer *trainer, const char *path, const char *name,
                                             const struct mixture *type, struct ph_err *err);

/* ---- A run in a directory: loss.csv, checkpoint-0 and checkpoint-1 in turn, model.gguf at its end ---- */

struct run_params {
    const char *dir;
    const char *model;                         /* where the model file goes; NULL: model.gguf in dir */
    const char *name;                          /* general.name */
    const struct mixture *type;                /* NULL or F32: as trained */
    uint64_t validate_every, checkpoint_every; /* steps; 0: at the end only */
    uint64_t export_every;                     /* model files on the way; 0: at the end only */
    double checkpoint_minutes;                 /* 0: by steps only */
    uint64_t cool_now;                         /* steps to cool down over, from here on; 0: as planned */
    bool adapt;                                /* see trainer_load */
};

struct run_report {
    struct trainer_report step;
    const struct trainer_validation *validation; /* after this step; NULL: none */
    double tokens_per_s;                         /* of late */
    double left_s;
};

struct run_hooks {
    void (*step)(void *ud, const struct run_report *report); /* may be NULL */
    void (*note)(void *ud, const char *text);                /* what one should know; may be NULL */
    bool (*stop)(void *ud);                                  /* asked between steps; may be NULL */
    void *ud;
};

struct run_result {
    uint64_t begun_at, ended_at;          /* steps */
    bool stopped;                         /* before its end; a checkpoint was written */
    struct trainer_report last;           /* step 0: none was needed */
    struct trainer_validation validation; /* on all that is held out, at the end */
};

/* Resumes where the directory has a checkpoint, else begins; ends with a checkpoint and, unless stopped, a
 * model file. On failure the last good checkpoints are still there. */
PH_MUST_USE enum ph_status trainer_run(struct trainer *trainer, const struct run_params *params,
                                       const struct run_hooks *hooks, struct run_result *result,
                                       struct ph_err *err);

#endif
