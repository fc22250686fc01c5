/* Start-time fair queueing (Goyal, Vin, Cheng 1996) between keys of equal weight.
 *
 * Virtual time is the start tag of the request let in last. A request's start is virtual time, or the end of
 * its key's one before where that is later; its end is its start and its cost. The line whose first request
 * has the lowest start is next. So keys that always have somebody waiting get equal cost through, and a key
 * that has had less than its share starts at virtual time, which is before everybody who has had it. Between
 * equal starts, which requests of equal cost have all the time, it is before them too: else it would wait for
 * a round of the others.
 *
 * Start and end are the line's: only its first request can be next, and when that one is gone, let in or
 * not, the one behind it has its turn. So leaving changes nothing for the others, and a line is in the heap
 * once.
 *
 * Lines with nobody in them are kept while their end lies in the future of virtual time, else they are as
 * good as new and are forgotten when the table has doubled. When the gate is empty, virtual time is the end
 * of all.
 *
 * Invariants outside of a callback: (1) running < running_max only when nobody waits; (2) the heap has just
 * the lines in which somebody waits; (3) no line in the heap starts before virtual time. */
#include "gateway/gate.h"

#include <assert.h>

#include "base/limits.h"
#include "base/mem.h"
#include "gateway/names_int.h"

#define COST_MAX ((uint64_t)1 << 32)
#define SWEEP_MIN 64
#define IDLE_LINES_MAX RATES_NAMES_MAX

struct gate_line {
    struct name_entry name; /* the key's */
    uint64_t start, finish; /* of its first one who waits; of its last one let in */
    uint64_t order;         /* when it came to have that start */
    bool ahead;             /* it starts where it ended: it has had its share so far */
    size_t heap_at;
    size_t waiting;
    struct gate_ticket *first, *last;
};

struct gate {
    struct names lines;
    struct gate_line **heap;
    size_t heap_len;
    size_t running, running_max, waiting, waiting_max;
    uint64_t now, finish_max, order;
    size_t sweep_at; /* lines */
    bool calling;
};

enum ph_status gate_create(struct gate **out, size_t running_max, size_t waiting_max)
{
    struct gate *gate = mem_calloc(1, sizeof *gate);
    *out = NULL;
    if (!gate)
        return PH_ERR_NOMEM;
    *gate = (struct gate){.running_max = running_max ? running_max : 1,
                          .waiting_max = waiting_max,
                          .sweep_at = SWEEP_MIN,
                          .heap = mem_calloc(waiting_max + 1, sizeof(struct gate_line *))};
    if (!gate->heap) {
        mem_free(gate);
        return PH_ERR_NOMEM;
    }
    *out = gate;
    return PH_OK;
}

void gate_free(struct gate *gate)
{
    if (!gate)
        return;
    assert(gate->running == 0 && gate->waiting == 0);
    names_release(&gate->lines);
    mem_free(gate->heap);
    mem_free(gate);
}

/* ---- The heap of lines, the next one first */

static bool is_before(const struct gate_line *a, const struct gate_line *b)
{
    if (a->start != b->start)
        return a->start < b->start;
    return a->ahead != b->ahead ? b->ahead : a->order < b->order;
}

static void place(struct gate *gate, struct gate_line *line, size_t at)
{
    gate->heap[at] = line;
    line->heap_at = at;
}

static void sift_up(struct gate *gate, struct gate_line *line, size_t at)
{
    while (at > 0 && is_before(line, gate->heap[(at - 1) / 2])) {
        place(gate, gate->heap[(at - 1) / 2], at);
        at = (at - 1) / 2;
    }
    place(gate, line, at);
}

static void sift_down(struct gate *gate, struct gate_line *line, size_t at)
{
    for (size_t child; (child = 2 * at + 1) < gate->heap_len; at = child) {
        if (child + 1 < gate->heap_len && is_before(gate->heap[child + 1], gate->heap[child]))
            child++;
        if (!is_before(gate->heap[child], line))
            break;
        place(gate, gate->heap[child], at);
    }
    place(gate, line, at);
}

static void heap_remove(struct gate *gate, const struct gate_line *line)
{
    size_t at = line->heap_at;
    struct gate_line *last = gate->heap[--gate->heap_len];
    if (last == line)
        return;
    sift_up(gate, last, at);
    sift_down(gate, last, last->heap_at);
}

/* ---- Lines */

static bool is_over(const struct name_entry *entry, void *ud)
{
    const struct gate_line *line = (const struct gate_line *)entry;
    return line->waiting == 0 && line->finish <= *(const uint64_t *)ud;
}

static struct gate_line *line_of(struct gate *gate, const char *key_id)
{
    struct gate_line *line = names_find(&gate->lines, key_id);
    if (line)
        return line;
    if (gate->lines.count >= gate->sweep_at) {
        uint64_t all = UINT64_MAX;
        names_sweep(&gate->lines, is_over, &gate->now);
        if (gate->lines.count >= IDLE_LINES_MAX + gate->waiting_max)
            names_sweep(&gate->lines, is_over, &all);
        gate->sweep_at = 2 * gate->lines.count > SWEEP_MIN ? 2 * gate->lines.count : SWEEP_MIN;
        if (gate->sweep_at > IDLE_LINES_MAX + gate->waiting_max)
            gate->sweep_at = IDLE_LINES_MAX + gate->waiting_max;
    }
    return names_add(&gate->lines, key_id, sizeof *line);
}

static void queue_up(struct gate *gate, struct gate_line *line, struct gate_ticket *ticket)
{
    ticket->line = line;
    ticket->previous = line->last;
    ticket->next = NULL;
    *(line->last ? &line->last->next : &line->first) = ticket;
    line->last = ticket;
    line->waiting++;
    gate->waiting++;
    if (line->waiting > 1)
        return;
    line->ahead = line->finish > gate->now;
    line->start = line->ahead ? line->finish : gate->now;
    line->order = gate->order++;
    sift_up(gate, line, gate->heap_len++);
}

/* Takes a ticket out of its line, which stays in the heap. */
static void unlink_ticket(struct gate *gate, struct gate_ticket *ticket)
{
    struct gate_line *line = ticket->line;
    *(ticket->previous ? &ticket->previous->next : &line->first) = ticket->next;
    *(ticket->next ? &ticket->next->previous : &line->last) = ticket->previous;
    ticket->previous = ticket->next = NULL;
    ticket->line = NULL;
    line->waiting--;
    gate->waiting--;
}

/* ---- Letting in */

/* A request of this line, which starts at line->start, runs from now on. */
static void let_in(struct gate *gate, struct gate_line *line, uint64_t cost)
{
    gate->now = line->start;
    line->finish = line->start + cost;
    if (line->finish > gate->finish_max)
        gate->finish_max = line->finish;
    gate->running++;
}

static void let_next_in(struct gate *gate)
{
    struct gate_line *line = gate->heap[0];
    struct gate_ticket *ticket = line->first;
    unlink_ticket(gate, ticket);
    let_in(gate, line, ticket->cost);
    if (line->waiting) {
        line->start = line->finish;
        line->ahead = true;
        line->order = gate->order++;
        sift_down(gate, line, 0);
    } else {
        heap_remove(gate, line);
    }
    ticket->fn(ticket->ud); /* the ticket may be gone after this */
}

/* A callback that leaves, enters or resizes comes back here through the loop, not through the stack. */
static void let_in_who_may(struct gate *gate)
{
    if (gate->calling)
        return;
    gate->calling = true;
    while (gate->running < gate->running_max && gate->waiting > 0)
        let_next_in(gate);
    gate->calling = false;
    if (gate->running == 0)
        gate->now = gate->finish_max;
}

enum ph_status gate_enter(struct gate *gate, const char *key_id, uint64_t cost, struct gate_ticket *ticket,
                          void (*fn)(void *ud), void *ud, bool *entered)
{
    struct gate_line *line = line_of(gate, key_id);
    *ticket = (struct gate_ticket){0};
    *entered = false;
    if (!line)
        return PH_ERR_NOMEM;
    cost = cost < 1 ? 1 : cost > COST_MAX ? COST_MAX : cost;
    if (gate->running < gate->running_max && gate->waiting == 0) {
        line->start = line->finish > gate->now ? line->finish : gate->now;
        let_in(gate, line, cost);
        *entered = true;
    } else if (gate->waiting >= gate->waiting_max ||
               line->waiting >= 2 * (gate->waiting_max - gate->waiting)) {
        return PH_ERR_BUSY;
    }
    *ticket = (struct gate_ticket){.gate = gate, .cost = cost, .fn = fn, .ud = ud};
    if (!*entered)
        queue_up(gate, line, ticket);
    return PH_OK;
}

void gate_leave(struct gate_ticket *ticket)
{
    struct gate *gate = ticket->gate;
    if (!gate)
        return;
    struct gate_line *line = ticket->line;
    ticket->gate = NULL;
    if (!line) {
        gate->running--;
        let_in_who_may(gate);
        return;
    }
    unlink_ticket(gate, ticket);
    if (line->waiting == 0)
        heap_remove(gate, line);
}

void gate_resize(struct gate *gate, size_t running_max)
{
    gate->running_max = running_max ? running_max : 1;
    let_in_who_may(gate);
}

size_t gate_running(const struct gate *gate)
{
    return gate->running;
}

size_t gate_waiting(const struct gate *gate)
{
    return gate->waiting;
}
