/* net, private: what a child process is to the operating system (net_process_posix.c). */
#ifndef PHAROS_NET_NET_PROCESS_INT_H
#define PHAROS_NET_NET_PROCESS_INT_H

#include "net/net_int.h"

struct child {
    int pid;      /* of the command */
    int group;    /* its number, which is the watcher's */
    int lifeline; /* the watcher reads the other end; -1: none any more */
};

PH_MUST_USE enum ph_status child_start(struct child *child, const struct net_process_params *params,
                                       struct ph_err *err);
/* Whether the command has ended; then its exit code, or 128 + signal. */
bool child_reap(const struct child *child, int *code);
void child_signal(const struct child *child, int signal_number); /* to the whole group */
bool child_group_lives(const struct child *child);
void child_release_watcher(struct child *child); /* somebody else looks after the group now */
void child_forget(struct child *child);

#endif
