/* Processes that train together, each on its share of a step's windows.
 *
 * train.h includes this. In a build with WITH_MPI=1 the ranks are those that mpirun started; otherwise, and
 * where NULL stands for a struct ranks, a process is alone: rank 0 of 1. Every call with a `len` is
 * collective: all ranks make the same ones in the same order, from the thread that opened them.
 *
 * A rank that can't go on ends them all: nothing here fails half-way and lets the others wait. */
#ifndef PHAROS_TRAIN_RANKS_H
#define PHAROS_TRAIN_RANKS_H

#include <stddef.h>

#include "base/status.h"

struct ranks;

/* *out is NULL where a process is alone. PH_ERR_UNSUPPORTED: mpirun started several, but this build is not
 * one for it. */
PH_MUST_USE enum ph_status ranks_open(struct ranks **out, struct ph_err *err);
void ranks_close(struct ranks *ranks);   /* waits for the others */
void ranks_end_all(struct ranks *ranks); /* does not return where there are others */

unsigned ranks_index(const struct ranks *ranks);
unsigned ranks_count(const struct ranks *ranks);
unsigned ranks_here(const struct ranks *ranks); /* on this machine */

/* x [len] becomes the sum of all ranks' x, added up in their order: the same bits on each and every time. */
void ranks_sum(struct ranks *ranks, float *x, size_t len);
void ranks_sum_doubles(struct ranks *ranks, double *x, size_t len);
/* Rank 0's bytes to all. */
void ranks_broadcast(struct ranks *ranks, void *bytes, size_t len);

#endif
