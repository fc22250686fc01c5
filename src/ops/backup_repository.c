/* The repository as a whole: its lock, its list of snapshots, and what is read when that is lost.
 *
 * R1. repository.json names every snapshot that was finished, so that one whose list disappears is missed.
 *     A list that is there and not named is of a run that was killed after its last step: it counts, and
 *     the next writer names it.
 * R2. Reading takes no lock: what a list names is deleted no earlier than a grace period after the list
 *     was. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/json.h"
#include "base/mem.h"
#include "ops/backup_int.h"

#define STATE_FILE "repository.json"
#define STATE_VERSION 1
#define PACKED_BYTES_MAX (1 + DIGEST_BYTES + ZSTD_COMPRESSBOUND(BACKUP_CHUNK_BYTES_MAX))

/* The directory's name was checked for its length when it was opened. */
void repository_path(const struct repository *repository, const char *name, char out[PATH_BYTES_MAX])
{
    snprintf(out, PATH_BYTES_MAX, "%.*s/%.*s", PATH_BYTES_MAX - 130, repository->at->dir, 120, name);
}

void repository_list_path(const struct repository *repository, const char *id, char out[PATH_BYTES_MAX])
{
    char name[BACKUP_ID_BYTES + 24];
    snprintf(name, sizeof name, "snapshots/%.36s.json", id);
    repository_path(repository, name, out);
}

void repository_note(const struct repository *repository, const char *fmt, ...)
{
    struct ph_err line;
    va_list args;
    va_start(args, fmt);
    vsnprintf(line.message, sizeof line.message, fmt, args);
    va_end(args);
    if (repository->at->note)
        repository->at->note(repository->at->ud, line.message);
}

/* ---- repository.json */

static enum ph_status parse_state(struct repository *repository, const struct json *root, struct ph_err *err)
{
    const struct json *snapshots = json_get(root, "snapshots"), *unused = json_get(root, "unused");
    int64_t version;
    repository->ids = arena_calloc(&repository->arena, json_count(snapshots) + 1, sizeof *repository->ids);
    repository->unused = arena_calloc(&repository->arena, json_count(unused) + 1, sizeof *repository->unused);
    if (!repository->ids || !repository->unused)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to read " STATE_FILE);
    if (!json_to_int64(json_get(root, "pharos_repository"), &version) || version != STATE_VERSION)
        return ph_fail(err, PH_ERR_UNSUPPORTED,
                       STATE_FILE " is of another format; a newer pharos may know it");
    JSON_EACH (item, snapshots) {
        const char *id = json_text(item, "");
        if (!backup_id_is(id))
            return ph_fail(err, PH_ERR_FORMAT, STATE_FILE " is damaged: a snapshot's name is none");
        memcpy(repository->ids[repository->id_count++], id, BACKUP_ID_BYTES);
    }
    JSON_EACH (item, unused) {
        struct unused_chunk *chunk = &repository->unused[repository->unused_count++];
        const char *digest = json_text(json_at(item, 0), "");
        if (!digest_parse(digest, strlen(digest), &chunk->digest) ||
            !json_to_int64(json_at(item, 1), &chunk->since_ms))
            return ph_fail(err, PH_ERR_FORMAT, STATE_FILE " is damaged: a chunk's name is none");
    }
    return PH_OK;
}

static enum ph_status read_state(struct repository *repository, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct buf text;
    struct digest digest;
    struct json *root = NULL;
    repository_path(repository, STATE_FILE, path);
    enum ph_status status = seal_read(path, &text, &digest, err);
    if (status == PH_OK)
        status = json_parse(&repository->arena, text.data, text.len, &root, err);
    if (status == PH_OK)
        status = parse_state(repository, root, err);
    buf_release(&text);
    return status;
}

enum ph_status repository_save(struct repository *repository, char (*ids)[BACKUP_ID_BYTES], size_t id_count,
                               const struct unused_chunk *unused, size_t unused_count, struct ph_err *err)
{
    char path[PATH_BYTES_MAX], digest[DIGEST_TEXT_BYTES];
    struct buf text;
    struct digest sum;
    buf_init(&text, BACKUP_LIST_BYTES_MAX);
    buf_printf(&text, "{\"pharos_repository\":%d,\"snapshots\":[", STATE_VERSION);
    for (size_t i = 0; i < id_count; i++)
        buf_printf(&text, "%s\"%s\"", i ? "," : "", ids[i]);
    buf_puts(&text, "],\"unused\":[");
    for (size_t i = 0; i < unused_count; i++) {
        digest_text(&unused[i].digest, digest);
        buf_printf(&text, "%s[\"%s\",%" PRId64 "]", i ? "," : "", digest, unused[i].since_ms);
    }
    buf_puts(&text, "]}");
    repository_path(repository, STATE_FILE, path);
    enum ph_status status = seal_write(path, &text, &sum, err);
    buf_release(&text);
    return status;
}

/* ---- Lists of snapshots */

struct found {
    struct arena *arena;
    struct ph_err *err;
    char (*ids)[BACKUP_ID_BYTES];
    size_t count, capacity;
};

static enum ph_status on_list(void *ud, const struct file_entry *entry)
{
    struct found *found = ud;
    char id[BACKUP_ID_BYTES];
    if (strlen(entry->name) != BACKUP_ID_BYTES - 1 + 5 ||
        strcmp(entry->name + BACKUP_ID_BYTES - 1, ".json") != 0)
        return PH_OK;
    memcpy(id, entry->name, BACKUP_ID_BYTES - 1);
    id[BACKUP_ID_BYTES - 1] = 0;
    if (!backup_id_is(id))
        return PH_OK;
    if (found->count == found->capacity) {
        size_t capacity = found->capacity ? 2 * found->capacity : 64;
        char(*larger)[BACKUP_ID_BYTES] = arena_calloc(found->arena, capacity, sizeof *larger);
        if (!larger)
            return ph_fail(found->err, PH_ERR_NOMEM, "no memory for so many snapshots");
        if (found->count)
            memcpy(larger, found->ids, found->count * sizeof *larger);
        found->ids = larger;
        found->capacity = capacity;
    }
    memcpy(found->ids[found->count++], id, BACKUP_ID_BYTES);
    return PH_OK;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

enum ph_status repository_snapshots(struct repository *repository, struct arena *arena,
                                    char (**ids)[BACKUP_ID_BYTES], size_t *count, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct found found = {.arena = arena, .err = err};
    repository_path(repository, "snapshots", path);
    enum ph_status status = file_exists(path) ? file_each(path, on_list, &found, err) : PH_OK;
    if (found.count)
        qsort(found.ids, found.count, sizeof *found.ids, compare_ids);
    *ids = found.ids;
    *count = found.count;
    return status;
}

enum ph_status repository_read_list(struct repository *repository, struct arena *arena, const char *id,
                                    struct backup_list *out, struct ph_err *err)
{
    char path[PATH_BYTES_MAX], expected[BACKUP_ID_BYTES];
    struct buf text;
    struct digest digest;
    struct ph_err reason;
    repository_list_path(repository, id, path);
    enum ph_status status = seal_read(path, &text, &digest, err);
    if (status == PH_OK) {
        status = backup_list_parse(arena, text.data, text.len, out, &reason);
        if (status != PH_OK)
            (void)ph_fail(err, status, "%s: %s", path, reason.message);
    }
    buf_release(&text);
    if (status != PH_OK)
        return status;
    backup_id_make(out->created_ms, &digest, expected);
    memcpy(out->id, expected, sizeof out->id);
    if (strcmp(id, expected) != 0)
        return ph_fail(err, PH_ERR_FORMAT, "%s is not what was written: by its sum it is %s", path, expected);
    return PH_OK;
}

enum ph_status repository_choose(struct repository *repository, const char *id, char out[BACKUP_ID_BYTES],
                                 struct ph_err *err)
{
    char(*ids)[BACKUP_ID_BYTES];
    size_t count, matches = 0, len = id ? strlen(id) : 0;
    enum ph_status status = repository_snapshots(repository, &repository->arena, &ids, &count, err);
    if (status != PH_OK)
        return status;
    for (size_t i = 0; i < count; i++) {
        if (len && strncmp(ids[i], id, len) != 0)
            continue;
        memcpy(out, ids[i], BACKUP_ID_BYTES);
        matches++;
    }
    if (matches == 0)
        return ph_fail(err, PH_ERR_NOTFOUND,
                       "there is no snapshot%s%.40s in %s; `pharos backup ls` lists them", len ? " " : "",
                       len ? id : "", repository->at->dir);
    if (len && matches > 1)
        return ph_fail(err, PH_ERR_ARG, "%zu snapshots in %s begin with %.40s; write more of the name",
                       matches, repository->at->dir, id);
    return PH_OK;
}

/* ---- Opening */

static enum ph_status on_stray_dir(void *ud, const struct file_entry *entry)
{
    const struct repository *repository = ud;
    char path[PATH_BYTES_MAX];
    repository_path(repository, entry->name, path);
    if (entry->is_dir && !entry->is_link &&
        strncmp(entry->name, SCRATCH_PREFIX, sizeof SCRATCH_PREFIX - 1) == 0)
        scratch_remove_stray(path);
    return PH_OK;
}

static enum ph_status on_shard(void *ud, const struct file_entry *entry)
{
    const struct repository *repository = ud;
    char path[PATH_BYTES_MAX], name[16];
    snprintf(name, sizeof name, "chunks/%.2s", entry->name);
    repository_path(repository, name, path);
    if (entry->is_dir && strlen(entry->name) == 2)
        file_remove_strays(path);
    return PH_OK;
}

/* What killed writers left. */
static void tidy(struct repository *repository)
{
    char path[PATH_BYTES_MAX];
    struct ph_err err;
    file_remove_strays(repository->at->dir);
    (void)!file_each(repository->at->dir, on_stray_dir, repository, &err);
    repository_path(repository, "snapshots", path);
    file_remove_strays(path);
    repository_path(repository, "chunks", path);
    (void)!file_each(path, on_shard, repository, &err);
}

static enum ph_status on_entry(void *ud, const struct file_entry *entry)
{
    bool *other = ud;
    *other = *other || (strcmp(entry->name, "lock") != 0 && strcmp(entry->name, "lost+found") != 0 &&
                        strncmp(entry->name, ".pharos-", 8) != 0);
    return PH_OK;
}

/* A new one goes into an empty directory, so that nobody's photographs become part of it. */
static enum ph_status make(struct repository *repository, struct ph_err *err)
{
    const char *dir = repository->at->dir;
    char path[PATH_BYTES_MAX];
    bool other = false;
    enum ph_status status = file_make_private_dir(dir, err);
    repository_path(repository, STATE_FILE, path);
    if (status != PH_OK || file_exists(path))
        return status;
    repository_path(repository, "snapshots", path);
    if (file_exists(path))
        return PH_OK;
    status = file_each(dir, on_entry, &other, err);
    if (status == PH_OK && other)
        return ph_fail(err, PH_ERR_ARG,
                       "%s is no repository of backups and is not empty; name an empty directory", dir);
    return status;
}

static enum ph_status make_folders(struct repository *repository, struct ph_err *err)
{
    static const char *const folders[] = {"chunks", "snapshots"};
    char path[PATH_BYTES_MAX];
    enum ph_status status = PH_OK;
    repository_path(repository, "snapshots", path);
    bool is_new = !repository->has_state && !file_exists(path);
    if (is_new) {
        repository->state_fault.message[0] = 0;
        status = repository_save(repository, NULL, 0, NULL, 0, err);
        repository->has_state = status == PH_OK;
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders && status == PH_OK; i++) {
        repository_path(repository, folders[i], path);
        status = file_make_private_dir(path, err);
    }
    return status;
}

static enum ph_status take_lock(struct repository *repository, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct ph_err reason;
    repository_path(repository, "lock", path);
    enum ph_status status = file_lock(path, &repository->lock, &reason);
    if (status == PH_ERR_BUSY)
        return ph_fail(err, status, "another backup is at work in %s: %s", repository->at->dir,
                       reason.message);
    return status == PH_OK ? PH_OK : ph_fail(err, status, "%s", reason.message);
}

static enum ph_status open_tools(struct repository *repository, struct ph_err *err)
{
    repository->packed = mem_alloc(PACKED_BYTES_MAX);
    repository->packing = ZSTD_createCCtx();
    repository->unpacking = ZSTD_createDCtx();
    if (!repository->packed || !repository->packing || !repository->unpacking)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to pack chunks");
    return hasher_open(&repository->hasher, err);
}

enum ph_status repository_open(struct repository *repository, const struct backup_place *at,
                               enum repository_mode mode, struct ph_err *err)
{
    *repository = (struct repository){.at = at, .lock = -1};
    arena_init(&repository->arena, BACKUP_ARENA_BYTES_MAX);
    if (strlen(at->dir) + 130 >= PATH_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%.200s... is too long a path for a repository", at->dir);
    enum ph_status status = open_tools(repository, err);
    if (status == PH_OK && mode == REPOSITORY_MAKE)
        status = make(repository, err);
    if (status == PH_OK && !file_exists(at->dir))
        status = ph_fail(err, PH_ERR_NOTFOUND, "there is no directory %s; is its disk mounted?", at->dir);
    if (status == PH_OK && mode != REPOSITORY_READ)
        status = take_lock(repository, err);
    if (status == PH_OK)
        repository->has_state = read_state(repository, &repository->state_fault) == PH_OK;
    if (status == PH_OK && mode == REPOSITORY_MAKE)
        status = make_folders(repository, err);
    if (status == PH_OK && mode != REPOSITORY_READ)
        tidy(repository);
    if (status != PH_OK)
        repository_close(repository);
    return status;
}

void repository_close(struct repository *repository)
{
    file_unlock(repository->lock);
    repository->lock = -1;
    hasher_close(&repository->hasher);
    ZSTD_freeCCtx(repository->packing);
    ZSTD_freeDCtx(repository->unpacking);
    mem_free(repository->packed);
    arena_release(&repository->arena);
    *repository = (struct repository){.lock = -1};
}
