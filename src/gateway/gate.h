/* gate: who comes next when not all can.
 *
 * A gate lets running_max through at a time. Those who wait stand in a line for each key, and lines take
 * turns by what they have cost so far (start-time fair queueing, Goyal 1996), so that 98 busy agents with one
 * key, or with 98, do not starve one person: who has used less than the others share comes next.
 *
 * Thread: the loop's. */
#ifndef PHAROS_GATEWAY_GATE_H
#define PHAROS_GATEWAY_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct gate;
struct gate_line;

/* A place in the gate or before it; of its caller's memory, and not moved while gate is set. */
struct gate_ticket {
    struct gate *gate;      /* NULL: not in it */
    struct gate_line *line; /* waiting in it; NULL: running */
    struct gate_ticket *previous, *next;
    uint64_t cost;
    void (*fn)(void *ud);
    void *ud;
};

/* At least 1 may run; waiting_max 0: nobody waits. */
PH_MUST_USE enum ph_status gate_create(struct gate **out, size_t running_max, size_t waiting_max);
/* Every ticket must have left. NULL is fine. */
void gate_free(struct gate *gate);
void gate_resize(struct gate *gate, size_t running_max); /* may call the fn of tickets that wait */

/* PH_OK and *entered: go on now. PH_OK and not: `fn` is called when it is this ticket's turn: from the
 * gate_leave or gate_resize that made room, never from gate_enter, and never inside another fn (whose
 * gate_leave only makes room, for after it). PH_ERR_BUSY: too many wait, all together or of this key: a line
 * may be at most twice as long as there are free places left, so that the room never is all one key's.
 * `cost`: tokens of prompt and reply, roughly. */
PH_MUST_USE enum ph_status gate_enter(struct gate *gate, const char *key_id, uint64_t cost,
                                      struct gate_ticket *ticket, void (*fn)(void *ud), void *ud,
                                      bool *entered);
/* Done, or no longer waiting; lets the next one in. A ticket that is not in a gate: nothing. */
void gate_leave(struct gate_ticket *ticket);
size_t gate_running(const struct gate *gate);
size_t gate_waiting(const struct gate *gate);

#endif
