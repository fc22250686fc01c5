/* ops, private: what a power log says. */
#ifndef PHAROS_OPS_TCO_INT_H
#define PHAROS_OPS_TCO_INT_H

#include <stddef.h>

#include "ops/tco.h"

struct tco_watts {
    double mean; /* of all sensors together, W */
    size_t count;
};
/* Reads a file of `pharos monitor thermal --csv`. PH_ERR_FORMAT: it is none, or no sensor in it has watts. */
PH_MUST_USE enum ph_status tco_watts_read(const char *path, struct tco_watts *out, struct ph_err *err);

#endif
