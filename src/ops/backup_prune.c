/* Letting snapshots go, and chunks that nobody uses, in that order and never at once.
 *
 * P1. A chunk is deleted when an earlier run found it unused, when that is a grace period ago, and when no
 *     list that is there now names it, those included that this run removes. So whoever reads a list as it
 *     goes has time to finish.
 * P2. While a list cannot be read, nobody knows what it names: nothing is deleted then.
 * P3. The state is saved before anything is removed: killed between, a snapshot that should go is still
 *     there and the next run removes it. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ops/backup_int.h"

struct pruner {
    const struct backup_prune *prune;
    struct backup_pruned *out;
    struct repository repository;
    struct arena arena;
    struct backup_snapshot *snapshots; /* newest first */
    size_t count;
    const char **why;          /* of each: why it stays; NULL: it goes */
    struct backup_list *lists; /* of each */
    struct digest_map used;    /* chunks that lists name; 0: only lists that go */
    struct digest_map since;   /* unused ones, as earlier runs found them */
    struct unused_chunk *unused;
    size_t unused_count, unused_capacity;
    bool is_whole; /* every list could be read */
    int64_t now_ms;
    struct ph_err *err;
};

/* ---- What stays */

static int64_t period_of(enum backup_period period, int64_t unix_ms)
{
    int64_t day = clock_day(unix_ms);
    struct clock_date date = clock_date(day);
    switch (period) {
    case BACKUP_DAILY:
        return day;
    case BACKUP_WEEKLY:
        return (day + 3) / 7; /* 1970-01-01 was a Thursday */
    case BACKUP_MONTHLY:
        return date.year * 12 + date.month;
    default:
        return date.year;
    }
}

static void choose(struct pruner *p)
{
    static const char *const names[BACKUP_PERIODS] = {"daily", "weekly", "monthly", "yearly"};
    for (size_t i = 0; i < p->count && i < p->prune->keep_last; i++)
        p->why[i] = "last";
    for (size_t period = 0; period < BACKUP_PERIODS; period++) {
        size_t left = p->prune->keep[period];
        int64_t last = INT64_MIN;
        for (size_t i = 0; i < p->count && left; i++) {
            int64_t now = period_of((enum backup_period)period, p->snapshots[i].created_ms);
            if (now == last || p->snapshots[i].problem)
                continue;
            last = now;
            left--;
            p->why[i] = p->why[i] ? p->why[i] : names[period];
        }
    }
    for (size_t i = 0; i < p->count; i++) {
        if (p->snapshots[i].problem)
            p->why[i] = "damaged";
        p->out->kept += p->why[i] != NULL;
        p->out->removed += p->why[i] == NULL;
        if (p->prune->decided)
            p->prune->decided(p->prune->at.ud, &p->snapshots[i], p->why[i]);
    }
}

/* ---- What lists name */

static void read_snapshot(struct pruner *p, const char *id, struct backup_snapshot *out,
                          struct backup_list *list)
{
    struct ph_err reason;
    memcpy(out->id, id, sizeof out->id);
    if (repository_read_list(&p->repository, &p->arena, id, list, &reason) != PH_OK) {
        repository_note(&p->repository, "%s; no chunk is deleted as long as it is there", reason.message);
        out->problem = "damaged";
        *list = (struct backup_list){.count = 0};
        p->is_whole = false;
        return;
    }
    out->created_ms = list->created_ms;
    out->files = list->count;
    for (size_t i = 0; i < list->count; i++)
        out->bytes += list->entries[i].bytes;
}

static enum ph_status read_snapshots(struct pruner *p, struct ph_err *err)
{
    char(*ids)[BACKUP_ID_BYTES];
    enum ph_status status = repository_snapshots(&p->repository, &p->arena, &ids, &p->count, err);
    if (status != PH_OK)
        return status;
    p->snapshots = arena_calloc(&p->arena, p->count + 1, sizeof *p->snapshots);
    p->why = arena_calloc(&p->arena, p->count + 1, sizeof *p->why);
    p->lists = arena_calloc(&p->arena, p->count + 1, sizeof *p->lists);
    if (!p->snapshots || !p->why || !p->lists)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for so many snapshots");
    for (size_t i = 0; i < p->count; i++)
        read_snapshot(p, ids[p->count - 1 - i], &p->snapshots[i], &p->lists[i]);
    return PH_OK;
}

static enum ph_status note_used(struct pruner *p, const struct backup_entry *entry, bool stays,
                                struct ph_err *err)
{
    for (size_t i = 0; i < entry->chunk_count; i++) {
        int64_t *used = digest_map_at(&p->used, &entry->chunks[i].digest);
        if (!used)
            return ph_fail(err, PH_ERR_NOMEM, "no memory for so many chunks");
        *used |= stays;
    }
    return PH_OK;
}

static enum ph_status note_all_used(struct pruner *p, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < p->count; i++)
        for (size_t k = 0; k < p->lists[i].count && status == PH_OK; k++)
            status = note_used(p, &p->lists[i].entries[k], p->why[i] != NULL, err);
    return status;
}

/* ---- What nobody uses */

static bool is_due(const struct pruner *p, const struct digest *digest)
{
    int64_t since_ms;
    return p->is_whole && !digest_map_find(&p->used, digest, NULL) &&
           digest_map_find(&p->since, digest, &since_ms) && since_ms <= p->now_ms &&
           p->now_ms - since_ms >= p->prune->grace_ms;
}

static enum ph_status mark(struct pruner *p, const struct digest *digest)
{
    if (p->unused_count == p->unused_capacity) {
        size_t capacity = p->unused_capacity ? 2 * p->unused_capacity : 256;
        struct unused_chunk *larger = mem_realloc(p->unused, capacity, sizeof *larger);
        if (!larger)
            return ph_fail(p->err, PH_ERR_NOMEM, "no memory for so many chunks");
        p->unused = larger;
        p->unused_capacity = capacity;
    }
    struct unused_chunk *unused = &p->unused[p->unused_count++];
    *unused = (struct unused_chunk){*digest, p->now_ms};
    if (!digest_map_find(&p->used, digest, NULL)) /* it was used until now: what was found before is past */
        (void)digest_map_find(&p->since, digest, &unused->since_ms);
    return PH_OK;
}

/* A chunk that is due stays marked until it is gone: killed before that, the next run deletes it. */
static enum ph_status on_chunk(void *ud, const struct digest *digest, const char *path, uint64_t bytes)
{
    struct pruner *p = ud;
    int64_t stays = 0;
    (void)path;
    if (!digest || (digest_map_find(&p->used, digest, &stays) && stays))
        return PH_OK;
    if (is_due(p, digest)) {
        p->out->deleted_chunks++;
        p->out->deleted_bytes += bytes;
    } else {
        p->out->waiting_chunks++;
    }
    return mark(p, digest);
}

static enum ph_status find_unused(struct pruner *p, struct ph_err *err)
{
    for (size_t i = 0; i < p->repository.unused_count; i++) {
        int64_t *since_ms = digest_map_at(&p->since, &p->repository.unused[i].digest);
        if (!since_ms)
            return ph_fail(err, PH_ERR_NOMEM, "no memory for so many chunks");
        *since_ms = p->repository.unused[i].since_ms;
    }
    return chunk_each(&p->repository, on_chunk, p, err);
}

/* ---- Done */

static int compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

static bool is_there(const struct pruner *p, const char *id)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->snapshots[i].id, id) == 0)
            return true;
    return false;
}

static enum ph_status save(struct pruner *p, struct ph_err *err)
{
    const struct repository *repository = &p->repository;
    char(*ids)[BACKUP_ID_BYTES] = arena_calloc(&p->arena, p->count + repository->id_count + 1, sizeof *ids);
    size_t count = 0;
    if (!ids)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for so many snapshots");
    for (size_t i = 0; i < p->count; i++)
        if (p->why[i])
            memcpy(ids[count++], p->snapshots[i].id, BACKUP_ID_BYTES);
    for (size_t i = 0; i < repository->id_count; i++) /* what is missing goes on being missed */
        if (!is_there(p, repository->ids[i]))
            memcpy(ids[count++], repository->ids[i], BACKUP_ID_BYTES);
    qsort(ids, count, sizeof *ids, compare_ids);
    return repository_save(&p->repository, ids, count, p->unused, p->unused_count, err);
}

static enum ph_status remove_all(struct pruner *p, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < p->count && status == PH_OK; i++) {
        repository_list_path(&p->repository, p->snapshots[i].id, path);
        if (!p->why[i])
            status = file_remove(path, err);
    }
    for (size_t i = 0; i < p->unused_count && status == PH_OK; i++) {
        chunk_path(&p->repository, &p->unused[i].digest, path);
        if (is_due(p, &p->unused[i].digest))
            status = file_remove(path, err);
    }
    return status;
}

static enum ph_status run(struct pruner *p, struct ph_err *err)
{
    if (!p->repository.has_state)
        return ph_fail(err, PH_ERR_FORMAT, "%s; `pharos backup create --rebuild` makes it anew",
                       p->repository.state_fault.message);
    enum ph_status status = read_snapshots(p, err);
    if (status != PH_OK)
        return status;
    choose(p);
    if (p->count && !p->out->kept)
        return ph_fail(err, PH_ERR_ARG, "no snapshot would stay; say how many do, as with --keep-last 7");
    status = note_all_used(p, err);
    if (status == PH_OK)
        status = find_unused(p, err);
    if (status == PH_OK && !p->prune->dry_run)
        status = save(p, err);
    return status == PH_OK && !p->prune->dry_run ? remove_all(p, err) : status;
}

enum ph_status backup_prune(const struct backup_prune *prune, struct backup_pruned *out, struct ph_err *err)
{
    struct pruner p = {
        .prune = prune, .out = out, .now_ms = clock_unix_ms(prune->at.clock), .is_whole = true, .err = err};
    *out = (struct backup_pruned){.kept = 0};
    enum ph_status status = repository_open(&p.repository, &prune->at, REPOSITORY_WRITE, err);
    if (status != PH_OK)
        return status;
    arena_init(&p.arena, BACKUP_ARENA_BYTES_MAX);
    status = run(&p, err);
    mem_free(p.unused);
    digest_map_release(&p.used);
    digest_map_release(&p.since);
    arena_release(&p.arena);
    repository_close(&p.repository);
    return status;
}
