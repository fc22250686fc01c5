/* The trained selector: word vectors, and the weights that turn what is known about a candidate into a score;
 * and the cases that it is trained and measured on.
 *
 * Thread: after loading nothing changes; any. */
#ifndef PHAROS_MEMORY_SPT_H
#define PHAROS_MEMORY_SPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "memory/context.h"

#define SPT_WIDTH 96 /* of a word's and of a turn's vector */

struct spt;

/* A file of `pharos train spt`. Errors name the file and what is wrong in it. */
PH_MUST_USE enum ph_status spt_open(struct spt **out, const char *path, struct ph_err *err);
/* The one that comes with the program, models/spt.gguf. */
PH_MUST_USE enum ph_status spt_open_shipped(struct spt **out, struct ph_err *err);
void spt_close(struct spt *spt); /* NULL is fine */

/* ---- Training ---- */

struct spt_training {
    /* Plain text, paragraphs between empty lines: words are learned from it and from the cases' messages. */
    const char *const *texts;
    size_t text_count;
    const char *const *cases; /* files */
    size_t case_count;
    const char *teacher;  /* an embedding model whose meanings the word vectors learn; NULL: none */
    const char *words_of; /* a selector whose word vectors are kept; NULL: they are learned */
    const char *skip;     /* a source or a case's id that is left out; NULL: none */
    const char *out;      /* the selector's file */
    size_t words_max;     /* 0: 24,000 */
    size_t questions_max; /* of one file of cases, spread over it; 0: 3,000 */
    size_t made_up;       /* questions for a case that has none; 0: 24 */
    size_t epochs;        /* of the linear ranker; 0: 20 */
    size_t set_epochs;    /* of the set transformer; 0: there is none */
    uint64_t seed;
    void (*note)(void *ud, const char *text); /* what is done, and what came of it; may be NULL */
    void *ud;
};
PH_MUST_USE enum ph_status spt_train(const struct spt_training *training, struct ph_err *err);

/* ---- Cases: JSON lines, docs/MEMORY.md has the format ---- */

struct spt_question {
    const char *query, *name; /* name: who asks, or NULL */
    size_t query_len;
    const char *kind; /* "single", "reply": for tables; "" */
    uint32_t after;   /* candidates: messages[after .. before - 1] */
    uint32_t before;
    const uint32_t *evidence; /* messages that answer it, ascending */
    size_t evidence_count;
    float quality; /* its weight in training, 0..1; 1 where the line says none */
};

struct spt_case {
    const char *id, *source;
    struct index_turn *messages; /* message: 1 + its place in the case; conversation 1 */
    size_t message_count;
    struct spt_question *questions;
    size_t question_count;
};

/* Calls `each` with every case of a file; what it gets lives until it returns. A line that is not a case ends
 * the reading: PH_ERR_FORMAT with file and line. `each` may stop it with another status than PH_OK. */
PH_MUST_USE enum ph_status spt_cases_read(const char *path,
                                          enum ph_status (*each)(void *ud, const struct spt_case *one),
                                          void *ud, struct ph_err *err);

/* An index of the case's messages. */
PH_MUST_USE enum ph_status spt_case_index(const struct spt_case *one, const struct index_params *params,
                                          struct memory_index **out, struct ph_err *err);

#endif
