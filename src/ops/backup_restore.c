/* Restoring: each file is put together under a name of its own, and gets its name when it is whole.
 *
 * What a run needs lies in `to`/.pharos-restore: whose snapshot it is, a lock, and the part of the file at
 * hand. A run that was killed is taken up by the next: files under their names are hashed and kept, a part is
 * hashed chunk by chunk and written on from the first that is not right.
 *
 * A1. Nothing lies under its name that is not, byte by byte, what the list says, synced before it got the
 *     name.
 * A2. Nothing is written outside `to`: paths are plain (L1 in backup_list.c), and no directory below `to`
 *     is entered through a link. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ops/backup_int.h"

#define WORK_DIR ".pharos-restore"

struct mender {
    const struct backup_restore *restore;
    struct backup_restored *out;
    struct repository repository;
    struct arena arena;
    struct backup_list list;
    struct hasher whole;
    uint8_t *window; /* [BACKUP_CHUNK_BYTES_MAX] */
    char work[PATH_BYTES_MAX];
    int lock;
    uint64_t done, total;
};

static void progress(struct mender *m, uint64_t bytes)
{
    const struct backup_place *at = &m->restore->at;
    m->done += bytes;
    if (at->progress)
        at->progress(at->ud, m->done, m->total);
}

static void tell(struct mender *m, const struct backup_entry *entry, const struct digest *chunk,
                 int64_t offset, const char *what)
{
    char name[DIGEST_TEXT_BYTES];
    if (chunk)
        digest_text(chunk, name);
    const struct backup_fault fault = {.snapshot = m->list.id,
                                       .file = entry->path,
                                       .chunk = chunk ? name : NULL,
                                       .offset = offset,
                                       .what = what};
    if (m->restore->fault)
        m->restore->fault(m->restore->at.ud, &fault);
}

/* ---- One file */

static enum ph_status digest_of(struct mender *m, const void *bytes, size_t len, struct digest *out,
                                struct ph_err *err)
{
    struct hasher *hasher = &m->repository.hasher;
    hasher_begin(hasher);
    hasher_add(hasher, bytes, len);
    return hasher_end(hasher, out) ? PH_OK : ph_fail(err, PH_ERR_INTERNAL, "SHA-256 cannot be computed");
}

/* Whether the file has the chunk at this place; then it is in m->window. */
static enum ph_status has_chunk(struct mender *m, const struct file_at *file, uint64_t offset,
                                const struct backup_chunk *chunk, bool *has, struct ph_err *err)
{
    size_t got;
    struct digest sum;
    *has = false;
    enum ph_status status = file_at_read(file, offset, m->window, chunk->bytes, &got, err);
    if (status != PH_OK || got < chunk->bytes)
        return status;
    status = digest_of(m, m->window, got, &sum, err);
    *has = status == PH_OK && digest_equal(&sum, &chunk->digest);
    return status;
}

/* *right false: a chunk is missing or damaged, which was told. */
static enum ph_status write_chunks(struct mender *m, const struct backup_entry *entry, struct file_at *file,
                                   bool *right, struct ph_err *err)
{
    uint64_t offset = 0;
    bool had = true; /* all chunks until here were there */
    struct digest sum;
    enum ph_status status = PH_OK;
    hasher_begin(&m->whole);
    for (size_t i = 0; i < entry->chunk_count && status == PH_OK; i++) {
        const struct backup_chunk *chunk = &entry->chunks[i];
        struct ph_err reason;
        if (had)
            status = has_chunk(m, file, offset, chunk, &had, err);
        if (status == PH_OK && !had && chunk_read(&m->repository, chunk, m->window, &reason) != PH_OK) {
            tell(m, entry, &chunk->digest, (int64_t)offset, reason.message);
            *right = false;
            return PH_OK;
        }
        if (status == PH_OK && !had)
            status = file_at_write(file, offset, m->window, chunk->bytes, err);
        hasher_add(&m->whole, m->window, chunk->bytes);
        offset += chunk->bytes;
        progress(m, chunk->bytes);
    }
    *right = hasher_end(&m->whole, &sum) && digest_equal(&sum, &entry->digest);
    if (status == PH_OK && !*right)
        tell(m, entry, NULL, -1, "its chunks are right, but together have not the SHA-256 of the file");
    return status == PH_OK ? file_at_cut(file, entry->bytes, err) : status;
}

/* Whether the file under its name is what it should be. */
static enum ph_status is_there(struct mender *m, const struct backup_entry *entry, const char *path,
                               bool *there, struct ph_err *err)
{
    struct file_at file;
    struct file_entry found;
    uint64_t offset = 0;
    enum ph_status status = file_inspect(path, &found, err);
    *there = status == PH_OK && found.is_regular && !found.is_link && found.stamp.bytes == entry->bytes;
    if (status == PH_ERR_NOTFOUND)
        return PH_OK;
    if (status != PH_OK || !*there)
        return status;
    status = file_at_open(&file, path, false, err);
    if (status != PH_OK)
        return status;
    for (size_t i = 0; i < entry->chunk_count && status == PH_OK && *there; i++) {
        status = has_chunk(m, &file, offset, &entry->chunks[i], there, err);
        offset += entry->chunks[i].bytes;
    }
    file_at_close(&file);
    return status;
}

/* The directories above a file, none of them a link (A2). */
static enum ph_status make_folders(const struct mender *m, const struct backup_entry *entry,
                                   struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct file_entry found;
    enum ph_status status = PH_OK;
    for (const char *slash = strchr(entry->path, '/'); slash && status == PH_OK;
         slash = strchr(slash + 1, '/')) {
        snprintf(path, sizeof path, "%s/%.*s", m->restore->to, (int)(slash - entry->path), entry->path);
        status = file_exists(path) ? PH_OK : file_make_dirs(path, 0700, err);
        if (status == PH_OK)
            status = file_inspect(path, &found, err);
        if (status == PH_OK && (found.is_link || !found.is_dir))
            status = ph_fail(err, PH_ERR_ARG, "%s is a link or no directory; move it away", path);
    }
    return status;
}

/* A database that is replaced under a journal of another would be made of both. */
static enum ph_status check_journal(const struct backup_entry *entry, const char *path, struct ph_err *err)
{
    static const char *const suffixes[] = {"-wal", "-journal"};
    char journal[PATH_BYTES_MAX];
    for (size_t i = 0; entry->kind == BACKUP_SQLITE && i < sizeof suffixes / sizeof *suffixes; i++) {
        int len = snprintf(journal, sizeof journal, "%s%s", path, suffixes[i]);
        if (len > 0 && (size_t)len < sizeof journal && file_exists(journal))
            return ph_fail(
                err, PH_ERR_ARG,
                "%s belongs to the database that is there: stop its station; if none runs, remove it",
                journal);
    }
    return PH_OK;
}

static enum ph_status put_file(struct mender *m, const struct backup_entry *entry, const char *path,
                               struct ph_err *err)
{
    char part[PATH_BYTES_MAX], digest[DIGEST_TEXT_BYTES];
    struct file_at file;
    bool right = true;
    digest_text(&entry->digest, digest);
    snprintf(part, sizeof part, "%.*s/%s", PATH_BYTES_MAX - 80, m->work, digest);
    enum ph_status status = make_folders(m, entry, err);
    if (status == PH_OK)
        status = check_journal(entry, path, err);
    if (status == PH_OK)
        status = file_at_open(&file, part, true, err);
    if (status != PH_OK)
        return status;
    status = write_chunks(m, entry, &file, &right, err);
    file_at_close(&file);
    if (status == PH_OK && !right) {
        m->out->failed++;
        return file_remove(part, err);
    }
    if (status == PH_OK)
        status = file_set_mode(part, entry->mode, err);
    if (status == PH_OK)
        status = file_sync(part, err);
    if (status == PH_OK)
        status = file_rename(part, path, err);
    if (status == PH_OK)
        m->out->bytes += entry->bytes;
    return status;
}

static enum ph_status restore_entry(struct mender *m, const struct backup_entry *entry, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    bool there;
    int len = snprintf(path, sizeof path, "%s/%s", m->restore->to, entry->path);
    if (len < 0 || (size_t)len >= sizeof path - 16)
        return ph_fail(err, PH_ERR_LIMIT, "%.200s... is too long a path", path);
    enum ph_status status = is_there(m, entry, path, &there, err);
    if (status != PH_OK)
        return status;
    m->out->files++;
    if (there) {
        m->out->kept++;
        progress(m, entry->bytes);
        return PH_OK;
    }
    if (file_exists(path) && !m->restore->overwrite)
        return ph_fail(err, PH_ERR_ARG, "%s is there and is another; move it away, or use --overwrite", path);
    return put_file(m, entry, path, err);
}

/* ---- The place */

static enum ph_status on_any(void *ud, const struct file_entry *entry)
{
    bool *any = ud;
    *any = *any || strcmp(entry->name, "lost+found") != 0;
    return PH_OK;
}

/* The work directory may be there without a name in it: of a run that was killed at its very beginning or
 * end. */
static enum ph_status check_begun(const struct mender *m, const char *name, struct ph_err *err)
{
    struct buf text;
    enum ph_status status = PH_OK;
    buf_init(&text, BACKUP_ID_BYTES);
    if (file_exists(name))
        status = file_read(name, &text, err);
    if (status == PH_OK && text.data && strcmp(text.data, m->list.id) != 0 && !m->restore->overwrite)
        status =
            ph_fail(err, PH_ERR_ARG,
                    "%s holds the beginning of a restore of %.40s; finish that, name another place, or use "
                    "--overwrite",
                    m->restore->to, text.data);
    buf_release(&text);
    return status;
}

/* A place that is not empty is refused, unless nothing is left to do there: a run that ended a moment before
 * it could say so may be repeated. */
static enum ph_status check_complete(struct mender *m, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    bool there = true;
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < m->list.count && there && status == PH_OK; i++) {
        snprintf(path, sizeof path, "%.*s/%s", PATH_BYTES_MAX - BACKUP_PATH_BYTES_MAX - 2, m->restore->to,
                 m->list.entries[i].path);
        status = is_there(m, &m->list.entries[i], path, &there, err);
    }
    if (status != PH_OK || there)
        return status;
    return ph_fail(err, PH_ERR_ARG,
                   "%s is not empty; name an empty directory, or replace what is there with --overwrite",
                   m->restore->to);
}

static enum ph_status prepare_place(struct mender *m, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    bool any = false;
    const char *to = m->restore->to;
    if (strlen(to) + BACKUP_PATH_BYTES_MAX >= PATH_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%.200s... is too long a path to restore to", to);
    enum ph_status status = file_make_private_dir(to, err);
    snprintf(m->work, sizeof m->work, "%s/" WORK_DIR, to);
    if (status == PH_OK && !file_exists(m->work) && !m->restore->overwrite) {
        status = file_each(to, on_any, &any, err);
        if (status == PH_OK && any)
            return check_complete(m, err);
    }
    if (status == PH_OK)
        status = file_make_private_dir(m->work, err);
    snprintf(path, sizeof path, "%.*s/lock", PATH_BYTES_MAX - 8, m->work);
    if (status == PH_OK)
        status = file_lock(path, &m->lock, err);
    snprintf(path, sizeof path, "%.*s/snapshot", PATH_BYTES_MAX - 16, m->work);
    if (status == PH_OK)
        status = check_begun(m, path, err);
    return status == PH_OK ? file_write_atomic(path, m->list.id, strlen(m->list.id), 0600, err) : status;
}

static enum ph_status check_room(const struct mender *m, struct ph_err *err)
{
    uint64_t free_bytes, wanted = 0;
    enum ph_status status = file_free_bytes(m->restore->to, &free_bytes, err);
    for (size_t i = 0; i < m->list.count; i++) {
        char path[PATH_BYTES_MAX];
        struct file_stamp stamp;
        snprintf(path, sizeof path, "%.*s/%s", PATH_BYTES_MAX - BACKUP_PATH_BYTES_MAX - 2, m->restore->to,
                 m->list.entries[i].path);
        file_stamp(path, &stamp);
        wanted += stamp.bytes == m->list.entries[i].bytes ? 0 : m->list.entries[i].bytes;
    }
    if (status != PH_OK || wanted <= free_bytes)
        return status;
    return ph_fail(err, PH_ERR_IO, "%s has room for %.1f GB; the snapshot needs %.1f GB", m->restore->to,
                   (double)free_bytes * 1e-9, (double)wanted * 1e-9);
}

/* ---- The run */

static enum ph_status prepare(struct mender *m, struct ph_err *err)
{
    char id[BACKUP_ID_BYTES];
    m->window = mem_calloc(1, BACKUP_CHUNK_BYTES_MAX);
    enum ph_status status =
        m->window ? hasher_open(&m->whole, err) : ph_fail(err, PH_ERR_NOMEM, "no memory to read chunks");
    if (status == PH_OK)
        status = repository_choose(&m->repository, m->restore->id, id, err);
    if (status == PH_OK)
        status = repository_read_list(&m->repository, &m->arena, id, &m->list, err);
    if (status == PH_OK)
        status = prepare_place(m, err);
    for (size_t i = 0; status == PH_OK && i < m->list.count; i++)
        m->total += m->list.entries[i].bytes;
    return status == PH_OK ? check_room(m, err) : status;
}

enum ph_status backup_restore(const struct backup_restore *restore, struct arena *arena,
                              struct backup_restored *out, struct ph_err *err)
{
    struct mender m = {.restore = restore, .out = out, .lock = -1};
    *out = (struct backup_restored){.files = 0};
    enum ph_status status = repository_open(&m.repository, &restore->at, REPOSITORY_READ, err);
    if (status != PH_OK)
        return status;
    arena_init(&m.arena, BACKUP_ARENA_BYTES_MAX);
    status = prepare(&m, err);
    for (size_t i = 0; i < m.list.count && status == PH_OK; i++)
        status = restore_entry(&m, &m.list.entries[i], err);
    if (status == PH_OK && out->failed == 0)
        status = file_remove_dir(m.work, err);
    file_unlock(m.lock);
    if (status == PH_OK) {
        memcpy(out->id, m.list.id, sizeof out->id);
        out->left_out = arena_calloc(arena, m.list.left_out_count + 1, sizeof *out->left_out);
        for (size_t i = 0; out->left_out && i < m.list.left_out_count; i++) {
            const char *line = arena_strdup(arena, m.list.left_out[i]);
            if (line)
                out->left_out[out->left_out_count++] = line;
        }
    }
    hasher_close(&m.whole);
    mem_free(m.window);
    arena_release(&m.arena);
    repository_close(&m.repository);
    return status;
}
