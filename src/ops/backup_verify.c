/* Verifying: everything is read back, databases and models are restored and opened.
 *
 * V1. Every byte of the repository is under some sum: a bit that changed anywhere is a fault, and so is a
 *     file that is gone. With `all`, that includes chunks that no snapshot names.
 * V2. One fault does not hide others: after each the check goes on.
 * V3. A file that is the same in several snapshots is read once when it is right, and again when it is
 *     not, so that every snapshot that has it is named. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "memory/store.h"
#include "model/model.h"
#include "ops/backup_int.h"

struct checker {
    const struct backup_verify *verify;
    struct backup_verified *out;
    struct repository repository;
    struct arena arena;
    struct scratch scratch;
    struct hasher whole;
    struct digest_map right; /* files, by their chunks, kind and rows */
    struct digest_map named; /* chunks of snapshots */
    uint8_t *window;
    struct backup_list *lists;
    size_t list_count;
    uint64_t done, total;
    const char *snapshot, *file; /* at hand */
};

static void tell(struct checker *c, const struct digest *chunk, int64_t offset, const char *fmt, ...)
    PH_PRINTF(4, 5);

static void tell(struct checker *c, const struct digest *chunk, int64_t offset, const char *fmt, ...)
{
    struct ph_err what;
    char name[DIGEST_TEXT_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what.message, sizeof what.message, fmt, args);
    va_end(args);
    if (chunk)
        digest_text(chunk, name);
    const struct backup_fault fault = {.snapshot = c->snapshot,
                                       .file = c->file,
                                       .chunk = chunk ? name : NULL,
                                       .offset = offset,
                                       .what = what.message};
    c->out->faults++;
    if (c->verify->fault)
        c->verify->fault(c->verify->at.ud, &fault);
}

static void progress(struct checker *c, uint64_t bytes)
{
    const struct backup_place *at = &c->verify->at;
    c->done += bytes;
    if (at->progress)
        at->progress(at->ud, c->done, c->total);
}

/* ---- Opened */

static enum ph_status check_rows(struct checker *c, const struct backup_entry *entry, const char *path,
                                 struct ph_err *err)
{
    struct backup_rows *rows;
    size_t count;
    enum ph_status status = backup_sqlite_count(path, &c->arena, &rows, &count, err);
    if (status != PH_OK)
        return status;
    if (count != entry->row_count)
        tell(c, NULL, -1, "it has %zu tables; it had %zu when it was backed up", count, entry->row_count);
    for (size_t i = 0; i < count && i < entry->row_count; i++)
        if (strcmp(rows[i].table, entry->rows[i].table) != 0 || rows[i].count != entry->rows[i].count)
            tell(c, NULL, -1, "table %.60s has %" PRId64 " rows; %.60s had %" PRId64 " when it was backed up",
                 rows[i].table, rows[i].count, entry->rows[i].table, entry->rows[i].count);
    return PH_OK;
}

static void on_store_fault(void *ud, const char *fault)
{
    tell(ud, NULL, -1, "the store: %s", fault);
}

/* As a station opens it; it reads every message. */
static enum ph_status check_store(struct checker *c, struct ph_err *err)
{
    struct store *store = NULL;
    int64_t faults = 0;
    const struct store_params params = {
        .dir = c->scratch.dir, .clock = c->verify->at.clock, .must_exist = true, .read_only = true};
    enum ph_status status = store_open(&store, &params, err);
    if (status == PH_OK)
        status = store_verify(store, &faults, on_store_fault, NULL, c, err);
    store_close(store);
    return status;
}

static bool is_store(const struct backup_entry *entry)
{
    const char *slash = strrchr(entry->path, '/');
    return strcmp(slash ? slash + 1 : entry->path, "store.db") == 0;
}

static void check_opens(struct checker *c, const struct backup_entry *entry, const char *path)
{
    struct gguf *gguf = NULL;
    struct ph_err err;
    enum ph_status status = PH_OK;
    if (entry->kind == BACKUP_GGUF) {
        status = gguf_open(&gguf, path, &err);
        gguf_free(gguf);
    } else {
        status = check_rows(c, entry, path, &err);
        if (status == PH_OK)
            status = is_store(entry) ? check_store(c, &err) : backup_sqlite_check(path, &err);
    }
    if (status != PH_OK)
        tell(c, NULL, -1, "restored, it does not open: %s", err.message);
}

/* ---- Read back */

/* Hashes the file's chunks and writes them to `file` (NULL: nowhere). *whole: none was missing or damaged. */
static enum ph_status read_chunks(struct checker *c, const struct backup_entry *entry, struct file_at *file,
                                  bool *whole, struct ph_err *err)
{
    uint64_t offset = 0;
    struct digest sum;
    struct ph_err reason;
    enum ph_status status = PH_OK;
    *whole = true;
    hasher_begin(&c->whole);
    for (size_t i = 0; i < entry->chunk_count && status == PH_OK; i++) {
        const struct backup_chunk *chunk = &entry->chunks[i];
        if (chunk_read(&c->repository, chunk, c->window, &reason) != PH_OK) {
            tell(c, &chunk->digest, (int64_t)offset, "%s", reason.message);
            *whole = false;
        } else if (file) {
            status = file_at_write(file, offset, c->window, chunk->bytes, err);
        }
        hasher_add(&c->whole, c->window, chunk->bytes);
        offset += chunk->bytes;
        progress(c, chunk->bytes);
    }
    if (!hasher_end(&c->whole, &sum))
        return ph_fail(err, PH_ERR_INTERNAL, "SHA-256 cannot be computed");
    if (*whole && status == PH_OK && !digest_equal(&sum, &entry->digest)) {
        tell(c, NULL, -1, "its chunks are right, but together have not the SHA-256 of the file");
        *whole = false;
    }
    return status;
}

static enum ph_status check_room(const struct checker *c, const struct backup_entry *entry,
                                 struct ph_err *err)
{
    uint64_t free_bytes;
    enum ph_status status = file_free_bytes(c->scratch.dir, &free_bytes, err);
    if (status != PH_OK || free_bytes >= entry->bytes)
        return status;
    return ph_fail(
        err, PH_ERR_IO,
        "%.200s has %.1f GB and is opened in %.200s, where %.1f GB are free; name a directory with more "
        "room with --scratch DIR",
        entry->path, (double)entry->bytes * 1e-9, c->scratch.dir, (double)free_bytes * 1e-9);
}

static enum ph_status check_opened_entry(struct checker *c, const struct backup_entry *entry,
                                         struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct file_at file;
    bool whole = false;
    enum ph_status status = check_room(c, entry, err);
    scratch_path(&c->scratch, entry->kind == BACKUP_GGUF ? "model.gguf" : "store.db", path);
    if (status == PH_OK)
        status = file_at_open(&file, path, true, err);
    if (status != PH_OK)
        return status;
    status = read_chunks(c, entry, &file, &whole, err);
    file_at_close(&file);
    if (status == PH_OK && whole)
        check_opens(c, entry, path);
    char parent[PATH_BYTES_MAX];
    memcpy(parent, c->scratch.dir, sizeof parent);
    *strrchr(parent, '/') = 0;
    scratch_close(&c->scratch); /* a database may have left its journal */
    enum ph_status again = scratch_open(&c->scratch, parent, status == PH_OK ? err : NULL);
    return status == PH_OK ? again : status;
}

/* What is the same for two files that need not both be read. */
static enum ph_status recipe_of(struct checker *c, const struct backup_entry *entry, struct digest *out,
                                struct ph_err *err)
{
    struct hasher *hasher = &c->whole;
    hasher_begin(hasher);
    hasher_add(hasher, &entry->kind, sizeof entry->kind);
    hasher_add(hasher, entry->digest.bytes, DIGEST_BYTES);
    for (size_t i = 0; i < entry->chunk_count; i++)
        hasher_add(hasher, entry->chunks[i].digest.bytes, DIGEST_BYTES);
    for (size_t i = 0; i < entry->row_count; i++) {
        hasher_add(hasher, entry->rows[i].table, strlen(entry->rows[i].table) + 1);
        hasher_add(hasher, &entry->rows[i].count, sizeof entry->rows[i].count);
    }
    return hasher_end(hasher, out) ? PH_OK : ph_fail(err, PH_ERR_INTERNAL, "SHA-256 cannot be computed");
}

static enum ph_status check_entry(struct checker *c, const struct backup_entry *entry, struct ph_err *err)
{
    struct digest recipe;
    size_t faults = c->out->faults;
    bool whole;
    c->file = entry->path;
    enum ph_status status = recipe_of(c, entry, &recipe, err);
    if (status != PH_OK)
        return status;
    c->out->files++;
    if (digest_map_find(&c->right, &recipe, NULL)) {
        progress(c, entry->bytes);
        return PH_OK;
    }
    c->out->bytes += entry->bytes;
    status = entry->kind == BACKUP_FILE ? read_chunks(c, entry, NULL, &whole, err)
                                        : check_opened_entry(c, entry, err);
    for (size_t i = 0; i < entry->chunk_count && status == PH_OK; i++)
        if (!digest_map_at(&c->named, &entry->chunks[i].digest))
            status = ph_fail(err, PH_ERR_NOMEM, "no memory for so many chunks");
    if (status == PH_OK && faults == c->out->faults && !digest_map_at(&c->right, &recipe))
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for so many files");
    return status;
}

/* ---- Which snapshots */

static void check_state(struct checker *c, char (*ids)[BACKUP_ID_BYTES], size_t count)
{
    struct repository *repository = &c->repository;
    if (!repository->has_state)
        tell(c, NULL, -1, "%s; `pharos backup create --rebuild` makes it anew",
             repository->state_fault.message);
    for (size_t i = 0; repository->has_state && i < repository->id_count; i++) {
        bool there = false;
        for (size_t k = 0; k < count && !there; k++)
            there = strcmp(ids[k], repository->ids[i]) == 0;
        c->snapshot = repository->ids[i];
        if (!there)
            tell(c, NULL, -1, "its list is missing: the snapshot is lost, unless another copy of %s has it",
                 repository->at->dir);
    }
    c->snapshot = NULL;
}

static enum ph_status read_lists(struct checker *c, struct ph_err *err)
{
    char(*ids)[BACKUP_ID_BYTES];
    char chosen[BACKUP_ID_BYTES];
    size_t count;
    struct ph_err reason;
    enum ph_status status = repository_snapshots(&c->repository, &c->arena, &ids, &count, err);
    if (status == PH_OK && (!c->verify->all || (count == 0 && c->repository.id_count == 0)))
        status = repository_choose(&c->repository, c->verify->id, chosen, err);
    if (status != PH_OK)
        return status;
    check_state(c, ids, count);
    c->lists = arena_calloc(&c->arena, count + 1, sizeof *c->lists);
    if (!c->lists)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for so many snapshots");
    for (size_t i = 0; i < count; i++) {
        struct backup_list *list = &c->lists[c->list_count];
        if (!c->verify->all && strcmp(ids[i], chosen) != 0)
            continue;
        c->snapshot = ids[i];
        if (repository_read_list(&c->repository, &c->arena, ids[i], list, &reason) != PH_OK) {
            tell(c, NULL, -1, "%s", reason.message);
            continue;
        }
        for (size_t k = 0; k < list->count; k++)
            c->total += list->entries[k].bytes;
        c->list_count++;
    }
    c->snapshot = NULL;
    return PH_OK;
}

static enum ph_status on_chunk(void *ud, const struct digest *digest, const char *path, uint64_t bytes)
{
    struct checker *c = ud;
    struct backup_chunk chunk;
    struct ph_err reason;
    (void)bytes;
    if (!digest) {
        if (!strstr(path, "/.pharos-tmp-"))
            repository_note(&c->repository, "%s is no chunk; it is not looked at", path);
        return PH_OK;
    }
    if (digest_map_find(&c->named, digest, NULL))
        return PH_OK;
    chunk.digest = *digest;
    enum ph_status status = chunk_length(&c->repository, digest, &chunk.bytes, &reason);
    if (status == PH_OK)
        status = chunk_read(&c->repository, &chunk, c->window, &reason);
    if (status != PH_OK && status != PH_ERR_NOTFOUND) /* somebody prunes meanwhile */
        tell(c, digest, -1, "%s; no snapshot uses it, `pharos backup prune` removes it", reason.message);
    return PH_OK;
}

static enum ph_status check_all(struct checker *c, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < c->list_count && status == PH_OK; i++) {
        c->snapshot = c->lists[i].id;
        for (size_t k = 0; k < c->lists[i].count && status == PH_OK; k++)
            status = check_entry(c, &c->lists[i].entries[k], err);
        c->out->snapshots++;
    }
    c->snapshot = c->file = NULL;
    return status == PH_OK && c->verify->all ? chunk_each(&c->repository, on_chunk, c, err) : status;
}

enum ph_status backup_verify(const struct backup_verify *verify, struct backup_verified *out,
                             struct ph_err *err)
{
    struct checker c = {.verify = verify, .out = out};
    struct ph_err reason;
    *out = (struct backup_verified){.faults = 0};
    enum ph_status status = repository_open(&c.repository, &verify->at, REPOSITORY_READ, err);
    if (status != PH_OK)
        return status;
    arena_init(&c.arena, BACKUP_ARENA_BYTES_MAX);
    c.window = mem_calloc(1, BACKUP_CHUNK_BYTES_MAX);
    status = c.window ? hasher_open(&c.whole, err) : ph_fail(err, PH_ERR_NOMEM, "no memory to read chunks");
    if (status == PH_OK)
        status = scratch_open(&c.scratch, verify->scratch ? verify->scratch : verify->at.dir, &reason);
    if (status != PH_OK && c.window && c.whole.context)
        (void)ph_fail(err, status, "%s; name a directory for copies with --scratch DIR", reason.message);
    if (status == PH_OK)
        status = read_lists(&c, err);
    if (status == PH_OK)
        status = check_all(&c, err);
    scratch_close(&c.scratch);
    hasher_close(&c.whole);
    digest_map_release(&c.right);
    digest_map_release(&c.named);
    mem_free(c.window);
    arena_release(&c.arena);
    repository_close(&c.repository);
    return status;
}

enum ph_status backup_list(const struct backup_place *at, struct arena *arena, struct backup_snapshot **out,
                           size_t *count, struct ph_err *err)
{
    struct repository repository;
    char(*ids)[BACKUP_ID_BYTES];
    enum ph_status status = repository_open(&repository, at, REPOSITORY_READ, err);
    if (status != PH_OK)
        return status;
    status = repository_snapshots(&repository, arena, &ids, count, err);
    *out = status == PH_OK ? arena_calloc(arena, *count + 1, sizeof **out) : NULL;
    if (status == PH_OK && !*out)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for so many snapshots");
    for (size_t i = 0; i < *count && status == PH_OK; i++) {
        struct backup_snapshot *snapshot = &(*out)[i];
        struct backup_list list;
        struct ph_err reason;
        memcpy(snapshot->id, ids[i], sizeof snapshot->id);
        if (repository_read_list(&repository, &repository.arena, ids[i], &list, &reason) != PH_OK) {
            snapshot->problem = arena_strdup(arena, reason.message);
            continue;
        }
        snapshot->created_ms = list.created_ms;
        snapshot->files = list.count;
        for (size_t k = 0; k < list.count; k++)
            snapshot->bytes += list.entries[k].bytes;
    }
    repository_close(&repository);
    return status;
}
