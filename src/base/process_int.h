/* For tests: what the system says, read below another root directory. */
#ifndef PHAROS_BASE_PROCESS_INT_H
#define PHAROS_BASE_PROCESS_INT_H

#include "base/process.h"

uint64_t memory_available_under(const char *root, uint64_t mapped);
bool group_memory_under(const char *root, long group, struct process_memory *out);

#endif
