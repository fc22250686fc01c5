/* A run's files. */
#ifndef PHAROS_TRAIN_RUN_INT_H
#define PHAROS_TRAIN_RUN_INT_H

#include <stdio.h>

#include "train/trainer_int.h"

#define CURVE_BYTES_MAX ((size_t)1 << 30)

struct curve {
    const char *path;
    FILE *file;   /* NULL: closed, perhaps by a failure */
    uint64_t len; /* bytes of whole rows */
};

/* Rows of steps after `step` are cut off. */
PH_MUST_USE enum ph_status curve_open(struct curve *curve, const char *path, uint64_t step,
                                      struct ph_err *err);
/* false: the row could not be written, and nothing of it is there. */
bool curve_add(struct curve *curve, const struct run_report *report);
void curve_close(struct curve *curve);
/* A chart of the rows so far. */
PH_MUST_USE enum ph_status curve_draw(const char *csv, const char *svg, const char *title,
                                      struct ph_err *err);

#endif
