/* embedder: runs an embedding model for many callers at once, as engine.h runs language models.
 *
 * An open embedder holds one model and one thread, which alone touches its encoder. Callers tokenise on their
 * own threads and submit jobs of texts; texts of several jobs go through the model in one run. Jobs take
 * turns run by run, so that nobody waits for a whole book of somebody else; background jobs go only where
 * nobody waits.
 *
 * A text's vector depends on the text alone, never on its company, bit for bit (E2 of encoder.c).
 *
 * Thread: every function may be called from any thread. */
#ifndef PHAROS_ENGINE_EMBEDDER_H
#define PHAROS_ENGINE_EMBEDDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"
#include "model/model.h"

struct embedder;
struct embedder_job;

struct embedder_params {
    const char *model_path;
    unsigned threads;    /* 0: one a CPU */
    const char *kernels; /* NULL: best */
    size_t context_len;  /* 0: what the model was trained with, at most ENCODER_CONTEXT_DEFAULT_MAX */
    size_t rows_max;     /* tokens in one run; 0: default */
    size_t queue_max;    /* jobs waiting; 0: default */
};

/* Maps the model, makes every buffer, starts the thread. PH_ERR_UNSUPPORTED: no embedding model. */
PH_MUST_USE enum ph_status embedder_open(struct embedder **out, const struct embedder_params *params,
                                         struct ph_err *err);
/* The same of an open model, which is the embedder's from now on (also after a failure). */
PH_MUST_USE enum ph_status embedder_open_model(struct embedder **out, struct model *model,
                                               const struct embedder_params *params, struct ph_err *err);
/* Jobs that are not done end as cancelled (their callbacks come before it returns); jobs still held stay
 * valid until they are freed. */
void embedder_free(struct embedder *embedder);

const struct model *embedder_model(const struct embedder *embedder);
size_t embedder_width(const struct embedder *embedder); /* numbers of a vector */
size_t embedder_context_len(const struct embedder *embedder);

/* Appends the tokens of a text, those at both ends included. A text that is too long is cut, its last token
 * kept, when `cut` is not NULL; *cut says how many tokens were left out. Else PH_ERR_LIMIT names both
 * lengths. */
PH_MUST_USE enum ph_status embedder_tokenize(const struct embedder *embedder, const char *text, size_t len,
                                             size_t *cut, struct token_list *out, struct ph_err *err);

/* ---- Jobs */
struct embedder_text {
    const int32_t *tokens;
    size_t len; /* 1 .. embedder_context_len */
};

struct embedder_request {
    const struct embedder_text *texts; /* copied */
    size_t count;
    bool background; /* only when nobody else waits */
    bool raw;        /* not normalised */
    /* Called on the embedder's thread when the job is over; must be quick and call nothing of the embedder.
     * Not called any more once embedder_job_free has returned. May be NULL. */
    void (*done)(void *ud);
    void *ud;
};

/* PH_ERR_BUSY: the queue is full; PH_ERR_LIMIT: a text is too long; PH_ERR_ARG: an empty text, a token id
 * that is none. */
PH_MUST_USE enum ph_status embedder_submit(struct embedder *embedder, const struct embedder_request *request,
                                           struct embedder_job **out, struct ph_err *err);
bool embedder_job_over(struct embedder_job *job);
/* Blocks until the job is over. PH_ERR_CANCELLED: the embedder was closed. */
PH_MUST_USE enum ph_status embedder_job_wait(struct embedder_job *job);
/* [count][embedder_width] of a job that is over with PH_OK; lives as long as the job. */
const float *embedder_job_vectors(const struct embedder_job *job);
void embedder_job_free(struct embedder_job *job); /* cancels when not over; NULL is fine */

/* All of it, blocking: out [count][embedder_width]. */
PH_MUST_USE enum ph_status embedder_run(struct embedder *embedder, const struct embedder_request *request,
                                        float *out, struct ph_err *err);

struct embedder_stats {
    size_t waiting; /* jobs */
    uint64_t texts, tokens, runs, busy_ns;
};
void embedder_stats_read(struct embedder *embedder, struct embedder_stats *out);

#endif
