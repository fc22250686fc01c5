/* provider, private: what a supervised engine leaves on the disk (its log, the number of its process, what it
 * needed), and looks at it from a helper thread. */
#ifndef PHAROS_PROVIDER_PROVIDER_ENGINE_INT_H
#define PHAROS_PROVIDER_PROVIDER_ENGINE_INT_H

#include "base/buf.h"
#include "base/limits.h"
#include "base/process.h"
#include "base/status.h"
#include "net/net.h"

struct engine_files {
    char *dir, *log, *old_log, *pid, *memory; /* paths, owned */
};
/* DIR/<model>.log, .log.1, .pid and .memory; characters of the model's id that are not fit for a name become
 * '_'. */
PH_MUST_USE enum ph_status engine_files_init(struct engine_files *files, const char *dir,
                                             const char *model_id, struct ph_err *err);
void engine_files_release(struct engine_files *files);
/* The log of the last run becomes the old one. The folder is made where it is not. */
PH_MUST_USE enum ph_status engine_files_turn(const struct engine_files *files, struct ph_err *err);
/* Appends the end of the log as one line, at most bytes_max. */
void engine_files_tail(const struct engine_files *files, size_t bytes_max, struct buf *out);
/* A log of more than bytes_max becomes the old one, with its last bytes_max, while the engine goes on writing
 * to it. What it writes between the copy and the cut is lost. */
void engine_files_bound_log(const struct engine_files *files, uint64_t bytes_max);

/* Remembers a process and its group, and forgets them. */
void engine_files_note(const struct engine_files *files, int pid, int group);
void engine_files_forget(const struct engine_files *files);
/* Ends the group that a killed station has left behind, if it is still the same one. */
void engine_files_end_orphan(const struct engine_files *files);

/* ---- How much memory a command needs (provider_engine_need.c) */

/* What was measured when this very command last ran; 0: it never did. */
uint64_t engine_need_recall(const struct engine_files *files, const char *command);
void engine_need_remember(const struct engine_files *files, const char *command, uint64_t bytes);
/* The size of the GGUF files that a command names, all parts of split ones; 0: none. */
uint64_t engine_need_guess(const char *command);

/* ---- A look at a running engine (provider_engine_look.c) */

struct engine_look;
struct engine_look_sink {
    void (*seen)(void *ud, const struct process_memory *memory); /* once; memory NULL: nothing to be seen */
    void *ud;
};
/* Measures a process group and bounds its log on a helper thread. `files` must live until `seen`. NULL: no
 * helper, or no memory. */
struct engine_look *engine_look_start(struct net_loop *loop, const struct engine_files *files, int group,
                                      const struct engine_look_sink *sink);

#endif
