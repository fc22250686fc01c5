/* A small vocabulary, token files of made-up text, and trainers on them, for the tests of training. */
#ifndef PHAROS_TESTS_TRAIN_TRAINING_H
#define PHAROS_TESTS_TRAIN_TRAINING_H

#include "test_support.h"
#include "train/trainer_int.h"

#define TRAINING_FILES 3

struct training {
    char dir[64], vocab[96], other_vocab[96], data[TRAINING_FILES][96];
    struct trainer_source sources[TRAINING_FILES];
};

/* data[0] has some 900 tokens to train on, data[1] half of that, data[2] counts every other token only. */
void training_open(struct training *t);
void training_close(struct training *t); /* removes the directory and what is in it */

/* d 8, 1 layer, windows of 12, batches of 4, 30 steps, on data[0]. */
struct trainer_params training_params(struct training *t);
struct trainer *training_start(const struct trainer_params *params, struct pool *pool);
struct pool *training_pool(unsigned lanes);
/* Steps, with their losses in losses[0..count). */
void training_steps(struct trainer *trainer, size_t count, double *losses);
/* Weights and both moments are the same, bit for bit. */
void assert_same_state(struct trainer *a, struct trainer *b);
void training_path(const struct training *t, const char *name, char path[160]);

#endif
