/* provider, private: what a supervised engine leaves on the disk: its log and the number of its process. */
#ifndef PHAROS_PROVIDER_PROVIDER_ENGINE_INT_H
#define PHAROS_PROVIDER_PROVIDER_ENGINE_INT_H

#include "base/buf.h"
#include "base/limits.h"
#include "base/status.h"

struct engine_files {
    char *dir, *log, *old_log, *pid; /* paths, owned */
};
/* DIR/<model>.log, .log.1 and .pid; characters of the model's id that are not fit for a name become '_'. */
PH_MUST_USE enum ph_status engine_files_init(struct engine_files *files, const char *dir,
                                             const char *model_id, struct ph_err *err);
void engine_files_release(struct engine_files *files);
/* The log of the last run becomes the old one. The folder is made where it is not. */
PH_MUST_USE enum ph_status engine_files_turn(const struct engine_files *files, struct ph_err *err);
/* Appends the end of the log as one line, at most bytes_max. */
void engine_files_tail(const struct engine_files *files, size_t bytes_max, struct buf *out);

/* Remembers a process group, and forgets it. */
void engine_files_note(const struct engine_files *files, int pid);
void engine_files_forget(const struct engine_files *files);
/* Ends the group that a killed station has left behind, if it is still the same one. */
void engine_files_end_orphan(const struct engine_files *files);

#endif
