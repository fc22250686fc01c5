/* The process as a whole: what it asks of the operating system once. Thread: any. */
#ifndef PHAROS_BASE_PROCESS_H
#define PHAROS_BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* From now on, writing to a pipe or connection whose reader has gone, or beyond the size a file may have, is
 * an error of the write and not a signal that ends the process without a word. */
void process_keep_on_bad_writes(void);

/* As many open files and connections as the system lets this process have; answers that number. */
uint64_t process_allow_files(void);

/* Whether the reader of standard output has gone, as in `pharos complete ... | head -1`. */
bool process_stdout_is_deaf(void);

/* How many columns the terminal behind a descriptor has; 0: it is none, or does not say. */
unsigned process_terminal_columns(int fd);

/* From now on SIGINT and SIGTERM are remembered instead of ending the process; the second one ends it. */
void process_catch_stop(void);
bool process_stop_asked(void);

/* Gives up for good what a server does not need, before it has threads: capabilities (that of binding a port
 * below 1024 stays where it was and is asked for), core dumps, debuggers, rights by set-user-ID programs, and
 * system calls that mount, trace, load modules or set clocks; files are made for their owner alone.
 * The superuser becomes the owner of the directory `data`; where that is the superuser too, what is left of
 * its power is to read and write everybody's files. */
PH_MUST_USE enum ph_status process_drop_rights(const char *data, bool low_port, struct ph_err *err);

/* Tells the service manager that started this process, "READY=1"; false: there is none. See sd_notify(3). */
bool process_notify(const char *text);
/* How often it wants to hear "WATCHDOG=1"; 0: it does not. */
uint64_t process_watchdog_us(void);

/* Bytes that could be taken now without swapping or running into a container's limit. */
uint64_t process_memory_available(void);
/* The same when so many bytes of files that somebody has mapped are to stay in memory: the system counts them
 * as there to take, for it could drop them. */
uint64_t process_memory_beside(uint64_t mapped);

/* What the processes of a group have in memory; what several share is counted once. false: there are none, or
 * the system does not say. Reads much of /proc: for a helper thread. */
struct process_memory {
    uint64_t resident; /* bytes, */
    uint64_t file;     /* of which pages of files; see process_memory_beside */
};
bool process_group_memory(long group, struct process_memory *out);
bool process_own_memory(struct process_memory *out); /* quick */

#endif
