/* secret: keys of accounts elsewhere, as the configuration names them. Never log one, never put one into an
 * error. */
#ifndef PHAROS_CLI_SECRET_INT_H
#define PHAROS_CLI_SECRET_INT_H

#include "base/arena.h"
#include "base/status.h"

#define SECRET_FILE_PREFIX "file:"

/* The secrets that a value stands for: itself, or the lines of PATH when it is "file:PATH" (trimmed; empty
 * ones and those that begin with # are passed over), at most ACCOUNT_KEYS_MAX. The file must be its owner's
 * alone. All in the arena. PH_ERR_FORMAT: something that no key can have; the error names file and line. */
PH_MUST_USE enum ph_status secret_read(struct arena *arena, const char *value, const char *const **out,
                                       size_t *count, struct ph_err *err);

#endif
