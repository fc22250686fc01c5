/* The room that engines share: who may start, and who must stop for it.
 *
 * What is available is either the operator's limit less what running engines count for, or what the system
 * says could be taken, less two things it cannot know: what has been promised and not been taken yet (an
 * engine that is still loading; one whose need is known and not reached), and pages of model files that
 * engines have mapped. The system calls those free, because it could drop them; an engine whose weights are
 * dropped reads them from the disk again for every token.
 *
 * An engine counts for what it needs or has taken, whichever is more; one whose need the operator has stated
 * counts for that against the operator's limit.
 *
 *   fits                                   it may start
 *   fits when those have left that do      wait
 *   fits when idle ones leave, too         tell them, least recently used first, and wait
 *   fits when busy ones leave, too         wait until they are idle; nobody is stopped before that helps
 *   fits in no case                        no
 *
 * An engine at work is never stopped. Whoever waits asks again when something has changed, and again from
 * its own timer: nothing is reserved for it, so that no promise can be left behind. */
#include <stdio.h>

#include "base/mem.h"
#include "base/process.h"
#include "provider/provider_room_int.h"

struct provider_room {
    uint64_t limit;
    uint64_t (*available)(void *ud, uint64_t mapped);
    void *ud;
    uint64_t claimed;
    struct room_member *members;
};

/* Models that run in this process are mapped, too. */
static uint64_t system_available(void *ud, uint64_t mapped)
{
    struct process_memory own;
    (void)ud;
    return process_memory_beside(process_own_memory(&own) ? mapped + own.file : mapped);
}

enum ph_status provider_room_create(struct provider_room **out, const struct provider_room_params *params,
                                    struct ph_err *err)
{
    struct provider_room *room = *out = mem_calloc(1, sizeof *room);
    if (!room)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    room->limit = params->limit_bytes;
    room->available = params->available ? params->available : system_available;
    room->ud = params->ud;
    return PH_OK;
}

void provider_room_free(struct provider_room *room)
{
    mem_free(room);
}

void room_enter(struct provider_room *room, struct room_member *member)
{
    member->next = room->members;
    room->members = member;
}

void room_exit(struct provider_room *room, struct room_member *member)
{
    struct room_member **link = &room->members;
    while (*link && *link != member)
        link = &(*link)->next;
    if (*link)
        *link = member->next;
}

/* ---- Figures */

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t less(uint64_t from, uint64_t bytes)
{
    return from > bytes ? from - bytes : 0;
}

static uint64_t counts_for(const struct provider_room *room, const struct room_view *view)
{
    return room->limit && view->stated ? view->need : larger(view->need, view->taken.resident);
}

struct tally {
    uint64_t available, leaving, idle, busy;
};

static struct tally tally(const struct provider_room *room, const struct room_member *but)
{
    struct tally sum = {0};
    uint64_t counted = 0, promised = room->claimed, mapped = 0;
    for (struct room_member *m = room->members; m; m = m->next) {
        struct room_view view;
        if (m == but)
            continue;
        m->view(m, &view);
        if (view.part == ROOM_AWAY || view.part == ROOM_WAITS)
            continue;
        promised += less(view.need, view.taken.resident);
        mapped += view.taken.file;
        counted += counts_for(room, &view);
        *(view.part == ROOM_LEAVING ? &sum.leaving
          : view.part == ROOM_IDLE  ? &sum.idle
                                    : &sum.busy) += counts_for(room, &view);
    }
    sum.available =
        room->limit ? less(room->limit, counted) : less(room->available(room->ud, mapped), promised);
    return sum;
}

/* ---- Asking */

static struct room_member *longest(const struct provider_room *room, enum room_part part, uint64_t from_ns,
                                   const struct room_member *but)
{
    struct room_member *found = NULL;
    uint64_t since = UINT64_MAX;
    for (struct room_member *m = room->members; m; m = m->next) {
        struct room_view view;
        m->view(m, &view);
        if (m != but && view.part == part && view.since_ns >= from_ns && view.since_ns < since) {
            since = view.since_ns;
            found = m;
        }
    }
    return found;
}

/* Idle ones leave until `missing` bytes are on their way. */
static void make_room(struct provider_room *room, uint64_t missing, const struct room_member *but)
{
    struct room_member *m;
    while (missing && (m = longest(room, ROOM_IDLE, 0, but)) != NULL) {
        struct room_view view;
        m->view(m, &view);
        missing = less(missing, counts_for(room, &view));
        m->leave(m);
    }
}

enum room_answer room_ask(struct provider_room *room, const struct room_member *member, bool may_stop_others,
                          struct room_figures *out)
{
    struct room_view view;
    member->view(member, &view);
    struct tally sum = tally(room, member);
    uint64_t missing = less(view.need, sum.available);
    *out = (struct room_figures){view.need, sum.available, sum.idle + sum.leaving, sum.busy, room->limit};
    if (missing == 0)
        return ROOM_YES;
    if (missing > sum.leaving + sum.idle + sum.busy)
        return ROOM_NO;
    if (may_stop_others && missing > sum.leaving && missing <= sum.leaving + sum.idle)
        make_room(room, missing - sum.leaving, member);
    return ROOM_LATER;
}

void room_changed(struct provider_room *room)
{
    struct room_view view;
    struct room_member *m;
    for (uint64_t from = 0; (m = longest(room, ROOM_WAITS, from, NULL)) != NULL; from = view.since_ns + 1) {
        m->view(m, &view);
        m->wake(m);
    }
}

static uint64_t mib(uint64_t bytes)
{
    return (bytes + (1 << 20) - 1) >> 20;
}

void room_say(const struct room_figures *figures, char *out, size_t size)
{
    char limit[64] = "";
    if (figures->limit)
        snprintf(limit, sizeof limit, " of the %llu MiB that engines may take",
                 (unsigned long long)mib(figures->limit));
    snprintf(out, size,
             "it needs %llu MiB; %llu MiB%s are available, idle engines have %llu MiB, busy ones %llu MiB",
             (unsigned long long)mib(figures->need), (unsigned long long)(figures->available >> 20), limit,
             (unsigned long long)(figures->idle >> 20), (unsigned long long)(figures->busy >> 20));
}

/* ---- What loads in this process */

void provider_room_claim(struct provider_room *room, uint64_t bytes)
{
    struct tally sum = tally(room, NULL);
    room->claimed += bytes;
    if (!room->limit)
        make_room(room, less(bytes, sum.available + sum.leaving), NULL);
}

void provider_room_unclaim(struct provider_room *room, uint64_t bytes)
{
    room->claimed = less(room->claimed, bytes);
    room_changed(room);
}
