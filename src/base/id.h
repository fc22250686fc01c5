/* Identifiers: public ones that people see, and generation-checked ones between modules. */
#ifndef PHAROS_BASE_ID_H
#define PHAROS_BASE_ID_H

#include <stddef.h>

#include "base/clock.h"

#define ID_TEXT_MAX 48

/* Writes the prefix ("req-", at most 20 characters) and 24 letters and digits (about 142 random bits). */
void id_make(struct rng *rng, const char *prefix, char out[ID_TEXT_MAX]);

#endif
