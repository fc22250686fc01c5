/* ops, private: the probe's parts. */
#ifndef PHAROS_OPS_PROBE_INT_H
#define PHAROS_OPS_PROBE_INT_H

#include "ops/probe.h"

/* Read speed and fsync of the disk that `dir` is on; `scale` 1: a full measurement. A failure is said in
 * notes->disk and leaves the figures 0. */
void probe_disk(struct machine *out, const char *dir, double scale, struct probe_notes *notes);

#endif
