/* provider, private: memory that engines take from one another (provider_room.c). */
#ifndef PHAROS_PROVIDER_PROVIDER_ROOM_INT_H
#define PHAROS_PROVIDER_PROVIDER_ROOM_INT_H

#include "base/process.h"
#include "provider/provider.h"

enum room_part {
    ROOM_AWAY,    /* has no process and wants none */
    ROOM_WAITS,   /* wants to start */
    ROOM_BUSY,    /* starts, or works */
    ROOM_IDLE,    /* runs, and nobody uses it */
    ROOM_LEAVING, /* is being stopped */
};

struct room_view {
    enum room_part part;
    uint64_t since_ns; /* WAITS, IDLE: since when */
    uint64_t need;     /* bytes: what it is known, or thought, to take; 0: nobody knows */
    bool stated;       /* the need, by the operator: then it counts as it was said */
    struct process_memory taken;
};

/* One engine, as the room sees it; embedded by its owner. */
struct room_member {
    struct room_member *next;
    void (*view)(const struct room_member *member, struct room_view *out);
    void (*leave)(struct room_member *member); /* IDLE: it is to stop */
    void (*wake)(struct room_member *member);  /* WAITS: to ask again, in a turn of the loop */
};
void room_enter(struct provider_room *room, struct room_member *member);
void room_exit(struct provider_room *room, struct room_member *member);

enum room_answer {
    ROOM_YES,   /* it may start */
    ROOM_LATER, /* others are stopping, or must become idle first: it will be woken */
    ROOM_NO,    /* not even if all others stopped */
};
struct room_figures { /* bytes */
    uint64_t need, available, idle, busy;
    uint64_t limit; /* 0: the system's memory is what limits */
};
/* May a member start? `may_stop_others`: idle ones are told to leave when that is enough, least recently used
 * first. */
PH_MUST_USE enum room_answer room_ask(struct provider_room *room, const struct room_member *member,
                                      bool may_stop_others, struct room_figures *out);
/* Something became free, or idle, or smaller: those that wait are woken, longest waiting first. */
void room_changed(struct provider_room *room);
/* "it needs 900 MiB, 120 MiB are available ..." */
void room_say(const struct room_figures *figures, char *out, size_t size);

#endif
