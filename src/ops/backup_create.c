/* Making a snapshot: files are cut into chunks, new chunks are written, the list comes last.
 *
 * C1. The list is written when every chunk that it names is on the disk. Until then nothing names what
 *     this run wrote, and what was there before was not touched but where it was damaged.
 * C2. A chunk that is there is used when it was read back and is right; once a run. The exception are
 *     files that have not changed since the newest snapshot, by their stamps: their chunks must be there,
 *     and are read by `verify`, and by a full run. A stamp is no proof when the file changed shortly
 *     before it was read (the clock of a file system is coarse), so such a file is read again.
 * C3. Weights, and files as large, are cut into equal pieces: they are replaced or appended to. Databases and
 *     smaller files are cut by their content. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "ops/backup_int.h"

#define STAMP_AGE_NS INT64_C(2000000000)
#define PACK_PROBE 16 /* of chunks that do not pack, one in so many is tried again */
#define EVEN_BYTES_MIN (UINT64_C(256) << 20)
#define HOST_BYTES 256

struct maker {
    const struct backup_create *create;
    struct backup_made *made;
    struct repository repository;
    struct arena arena;
    struct cutter cutter;
    struct scratch scratch;
    struct backup_list before; /* the newest snapshot; empty: none */
    struct backup_list list;
    struct digest_map seen;    /* chunks that are known to be right */
    struct digest_map written; /* by this run: to be synced */
    uint8_t *window, *spare;   /* [BACKUP_CHUNK_BYTES_MAX] each */
    struct hasher whole;       /* of the file at hand */
    uint64_t done, total;
    int64_t now_ms;
};

static void progress(struct maker *m, uint64_t bytes)
{
    const struct backup_place *at = &m->create->at;
    m->done += bytes;
    if (at->progress)
        at->progress(at->ud, m->done, m->total);
}

/* ---- One chunk */

static enum ph_status is_there(struct maker *m, const struct backup_chunk *chunk, bool *there,
                               struct ph_err *err)
{
    enum ph_status status = chunk_read(&m->repository, chunk, m->spare, err);
    *there = status == PH_OK;
    if (status == PH_ERR_FORMAT)
        m->made->mended++;
    return status == PH_ERR_FORMAT || status == PH_ERR_NOTFOUND ? PH_OK : status;
}

static enum ph_status put_chunk(struct maker *m, const uint8_t *bytes, struct backup_chunk *chunk,
                                bool *packs, struct ph_err *err)
{
    bool there = true;
    if (digest_map_find(&m->seen, &chunk->digest, NULL))
        return PH_OK;
    enum ph_status status = is_there(m, chunk, &there, err);
    if (status == PH_OK && !there) {
        status =
            chunk_write(&m->repository, &chunk->digest, bytes, chunk->bytes, packs, &m->made->new_bytes, err);
        m->made->new_chunks++;
        if (status == PH_OK && !digest_map_at(&m->written, &chunk->digest))
            status = ph_fail(err, PH_ERR_NOMEM, "no memory for so many chunks");
    }
    if (status == PH_OK && !digest_map_at(&m->seen, &chunk->digest))
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for so many chunks");
    return status;
}

/* ---- One file, read */

struct pieces {
    struct backup_chunk *items;
    size_t count, capacity;
    bool packs;
    size_t since_probe;
};

static bool room_for_piece(struct maker *m, struct pieces *pieces)
{
    if (pieces->count < pieces->capacity)
        return true;
    size_t capacity = pieces->capacity ? 2 * pieces->capacity : 16;
    struct backup_chunk *larger = arena_calloc(&m->arena, capacity, sizeof *larger);
    if (!larger)
        return false;
    if (pieces->count)
        memcpy(larger, pieces->items, pieces->count * sizeof *larger);
    pieces->items = larger;
    pieces->capacity = capacity;
    return true;
}

static enum ph_status take_piece(struct maker *m, struct pieces *pieces, const uint8_t *bytes, size_t len,
                                 struct ph_err *err)
{
    if (!room_for_piece(m, pieces))
        return ph_fail(err, PH_ERR_NOMEM, "no memory for so many chunks");
    struct backup_chunk *chunk = &pieces->items[pieces->count++];
    chunk->bytes = (uint32_t)len;
    hasher_add(&m->whole, bytes, len);
    hasher_begin(&m->repository.hasher);
    hasher_add(&m->repository.hasher, bytes, len);
    if (!hasher_end(&m->repository.hasher, &chunk->digest))
        return ph_fail(err, PH_ERR_INTERNAL, "SHA-256 cannot be computed");
    if (!pieces->packs && ++pieces->since_probe == PACK_PROBE) {
        pieces->since_probe = 0;
        pieces->packs = true;
    }
    enum ph_status status = put_chunk(m, bytes, chunk, &pieces->packs, err);
    progress(m, len);
    return status;
}

/* Reads up to `bytes` of the file; what is appended meanwhile belongs to the next snapshot. */
static enum ph_status read_pieces(struct maker *m, const struct file_at *file, bool evenly, uint64_t bytes,
                                  struct pieces *pieces, struct ph_err *err)
{
    uint64_t offset = 0; /* of the window's end in the file */
    size_t have = 0;
    enum ph_status status = PH_OK;
    for (bool ended = false; status == PH_OK;) {
        size_t at = 0, room = BACKUP_CHUNK_BYTES_MAX - have, got = 0;
        uint64_t left = bytes - offset;
        if (!ended)
            status =
                file_at_read(file, offset, m->window + have, left < room ? (size_t)left : room, &got, err);
        offset += got;
        have += got;
        ended = ended || got < room;
        while (status == PH_OK && at < have && (ended || evenly || have - at >= CUT_BYTES_MAX)) {
            size_t len = evenly ? have - at : cutter_cut(&m->cutter, m->window + at, have - at);
            status = take_piece(m, pieces, m->window + at, len, err);
            at += len;
        }
        have -= at;
        memmove(m->window, m->window + at, have);
        if (ended && have == 0)
            break;
    }
    return status;
}

static enum ph_status read_file(struct maker *m, const char *path, struct backup_entry *entry,
                                struct ph_err *err)
{
    struct file_at file;
    struct pieces pieces = {.packs = true};
    uint64_t bytes = 0;
    enum ph_status status = file_at_open(&file, path, false, err);
    if (status != PH_OK)
        return status;
    hasher_begin(&m->whole);
    status = file_at_len(&file, &bytes, err);
    if (status == PH_OK && bytes > BACKUP_FILE_BYTES_MAX)
        status = ph_fail(err, PH_ERR_LIMIT, "%s is larger than a backup takes", path);
    bool evenly = entry->kind == BACKUP_GGUF || (entry->kind == BACKUP_FILE && bytes >= EVEN_BYTES_MIN);
    if (status == PH_OK)
        status = read_pieces(m, &file, evenly, bytes, &pieces, err);
    file_at_close(&file);
    if (status == PH_OK && !hasher_end(&m->whole, &entry->digest))
        status = ph_fail(err, PH_ERR_INTERNAL, "SHA-256 cannot be computed");
    entry->chunks = pieces.items;
    entry->chunk_count = pieces.count;
    entry->bytes = 0;
    for (size_t i = 0; i < pieces.count; i++)
        entry->bytes += pieces.items[i].bytes;
    return status;
}

static enum ph_status read_database(struct maker *m, const char *path, struct backup_entry *entry,
                                    struct ph_err *err)
{
    char copy[PATH_BYTES_MAX];
    struct ph_err ignored;
    scratch_path(&m->scratch, "copy.db", copy);
    entry->stamp = (struct file_stamp){0};
    enum ph_status status = backup_sqlite_copy(path, copy, err);
    if (status == PH_OK)
        status = backup_sqlite_count(copy, &m->arena, &entry->rows, &entry->row_count, err);
    if (status == PH_OK)
        status = read_file(m, copy, entry, err);
    if (file_exists(copy))
        (void)!file_remove(copy, &ignored);
    return status;
}

/* ---- One file that has not changed */

static const struct backup_entry *find_before(const struct maker *m, const struct backup_source *source)
{
    for (size_t i = 0; i < m->before.count; i++)
        if (strcmp(m->before.entries[i].path, source->path) == 0 &&
            strcmp(m->before.entries[i].from, source->from) == 0)
            return &m->before.entries[i];
    return NULL;
}

static bool has_chunks(const struct maker *m, const struct backup_entry *entry)
{
    char path[PATH_BYTES_MAX];
    for (size_t i = 0; i < entry->chunk_count; i++) {
        chunk_path(&m->repository, &entry->chunks[i].digest, path);
        if (!file_exists(path))
            return false;
    }
    return true;
}

static bool is_unchanged(const struct maker *m, const struct backup_source *source,
                         const struct file_stamp *stamp, const struct backup_entry *before)
{
    return before && !m->create->full && source->kind != BACKUP_SQLITE && before->kind == source->kind &&
           before->stamp.inode && file_stamp_equal(&before->stamp, stamp) && has_chunks(m, before);
}

/* ---- All files */

static enum ph_status take_source(struct maker *m, const struct backup_source *source, struct ph_err *err)
{
    struct backup_entry *entry = &m->list.entries[m->list.count];
    struct file_entry found;
    *entry = (struct backup_entry){.path = source->path, .from = source->from, .kind = source->kind};
    enum ph_status status = file_inspect(source->from, &found, err);
    if (status == PH_ERR_NOTFOUND && source->may_vanish)
        return PH_OK;
    if (status != PH_OK)
        return status;
    const struct backup_entry *before = find_before(m, source);
    if (is_unchanged(m, source, &found.stamp, before)) {
        *entry = *before;
        m->made->unchanged++;
        progress(m, entry->bytes);
    } else {
        int64_t settled_ns = (m->now_ms - m->now_ms % 1000) * 1000000 - STAMP_AGE_NS;
        bool is_settled = found.stamp.modified_ns < settled_ns && found.stamp.changed_ns < settled_ns;
        entry->mode = found.mode & 0777;
        entry->stamp = is_settled ? found.stamp : (struct file_stamp){0};
        status = source->kind == BACKUP_SQLITE ? read_database(m, source->from, entry, err)
                                               : read_file(m, source->from, entry, err);
        if (status == PH_ERR_NOTFOUND && source->may_vanish)
            return PH_OK;
        if (entry->bytes != found.stamp.bytes)
            entry->stamp = (struct file_stamp){0};
    }
    if (status != PH_OK)
        return status;
    m->list.count++;
    m->made->bytes += entry->bytes;
    return PH_OK;
}

static enum ph_status take_all(struct maker *m, struct ph_err *err)
{
    const struct backup_set *set = m->create->set;
    m->list.entries = arena_calloc(&m->arena, set->count + 1, sizeof *m->list.entries);
    if (!m->list.entries)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for so many files");
    for (size_t i = 0; i < set->count; i++) {
        struct file_stamp stamp;
        file_stamp(set->items[i].from, &stamp);
        m->total += stamp.bytes;
    }
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < set->count && status == PH_OK; i++)
        status = take_source(m, &set->items[i], err);
    m->made->files = m->list.count;
    return status;
}

/* ---- The list, last (C1) */

static enum ph_status sync_written(struct maker *m, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < m->list.count && status == PH_OK; i++)
        for (size_t c = 0; c < m->list.entries[i].chunk_count && status == PH_OK; c++) {
            const struct digest *digest = &m->list.entries[i].chunks[c].digest;
            char path[PATH_BYTES_MAX];
            int64_t *synced =
                digest_map_find(&m->written, digest, NULL) ? digest_map_at(&m->written, digest) : NULL;
            if (!synced || *synced)
                continue;
            chunk_path(&m->repository, digest, path);
            status = file_sync(path, err);
            *synced = 1;
        }
    return status;
}

static enum ph_status save_list(struct maker *m, struct ph_err *err)
{
    char temp[PATH_BYTES_MAX], path[PATH_BYTES_MAX];
    struct buf text;
    struct digest digest;
    buf_init(&text, BACKUP_LIST_BYTES_MAX);
    backup_list_write(&m->list, &text);
    enum ph_status status = buf_status(&text);
    if (status != PH_OK)
        status = ph_fail(err, status, "the list of this snapshot would be too large: it has too many files");
    if (status == PH_OK)
        status = seal_digest(text.data, text.len, &digest, err);
    if (status == PH_OK) {
        backup_id_make(m->list.created_ms, &digest, m->made->id);
        repository_list_path(&m->repository, m->made->id, path);
        scratch_path(&m->scratch, "list.json", temp);
        status = seal_write(temp, &text, &digest, err);
    }
    if (status == PH_OK)
        status = file_rename(temp, path, err);
    buf_release(&text);
    return status;
}

static enum ph_status save_state(struct maker *m, struct ph_err *err)
{
    char(*ids)[BACKUP_ID_BYTES];
    size_t count;
    enum ph_status status = repository_snapshots(&m->repository, &m->arena, &ids, &count, err);
    if (status != PH_OK)
        return status;
    /* What the state names and is not there stays named, so that it goes on being missed. */
    char(*all)[BACKUP_ID_BYTES] = arena_calloc(&m->arena, count + m->repository.id_count + 1, sizeof *all);
    size_t all_count = 0;
    if (!all)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for so many snapshots");
    for (size_t a = 0, b = 0; a < count || b < m->repository.id_count;) {
        int order = a == count ? 1 : b == m->repository.id_count ? -1 : strcmp(ids[a], m->repository.ids[b]);
        memcpy(all[all_count++], order <= 0 ? ids[a] : m->repository.ids[b], BACKUP_ID_BYTES);
        a += order <= 0;
        b += order >= 0;
    }
    return repository_save(&m->repository, all, all_count, m->repository.unused, m->repository.unused_count,
                           err);
}

/* ---- The run */

static enum ph_status check_state(struct maker *m, struct ph_err *err)
{
    if (m->create->rebuild)
        m->repository.id_count = 0;
    if (m->repository.has_state || m->create->rebuild)
        return PH_OK;
    return ph_fail(
        err, PH_ERR_FORMAT,
        "%s; `pharos backup create --rebuild` makes the list of snapshots anew from those that are there",
        m->repository.state_fault.message);
}

static enum ph_status read_before(struct maker *m, struct ph_err *err)
{
    char(*ids)[BACKUP_ID_BYTES];
    struct ph_err reason;
    size_t count;
    enum ph_status status = repository_snapshots(&m->repository, &m->arena, &ids, &count, err);
    if (status != PH_OK || count == 0)
        return status;
    if (repository_read_list(&m->repository, &m->arena, ids[count - 1], &m->before, &reason) != PH_OK) {
        repository_note(&m->repository, "%s; every file is read again", reason.message);
        m->before = (struct backup_list){.count = 0};
    }
    if (m->before.created_ms > m->now_ms)
        repository_note(&m->repository,
                        "the clock is behind that of %s, which goes on counting as the newest", m->before.id);
    return PH_OK;
}

static enum ph_status prepare(struct maker *m, struct ph_err *err)
{
    cutter_init(&m->cutter);
    m->window = mem_alloc(BACKUP_CHUNK_BYTES_MAX);
    m->spare = mem_alloc(BACKUP_CHUNK_BYTES_MAX);
    char *host = arena_calloc(&m->arena, 1, HOST_BYTES);
    if (!m->window || !m->spare || !host)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to read files");
    if (gethostname(host, HOST_BYTES - 1) != 0)
        host[0] = 0;
    m->list = (struct backup_list){.created_ms = m->now_ms,
                                   .host = host,
                                   .version = m->create->version,
                                   .left_out = m->create->set->left_out,
                                   .left_out_count = m->create->set->left_out_count};
    enum ph_status status = hasher_open(&m->whole, err);
    if (status == PH_OK)
        status = check_state(m, err);
    if (status == PH_OK)
        status = read_before(m, err);
    return status == PH_OK ? scratch_open(&m->scratch, m->create->at.dir, err) : status;
}

enum ph_status backup_create(const struct backup_create *create, struct backup_made *made, struct ph_err *err)
{
    struct maker m = {.create = create, .made = made, .now_ms = clock_unix_ms(create->at.clock)};
    *made = (struct backup_made){.files = 0};
    enum ph_status status = repository_open(&m.repository, &create->at, REPOSITORY_MAKE, err);
    if (status != PH_OK)
        return status;
    arena_init(&m.arena, BACKUP_ARENA_BYTES_MAX);
    status = prepare(&m, err);
    if (status == PH_OK)
        status = take_all(&m, err);
    if (status == PH_OK)
        status = sync_written(&m, err);
    if (status == PH_OK)
        status = save_list(&m, err);
    if (status == PH_OK)
        status = save_state(&m, err);
    scratch_close(&m.scratch);
    hasher_close(&m.whole);
    digest_map_release(&m.seen);
    digest_map_release(&m.written);
    mem_free(m.window);
    mem_free(m.spare);
    arena_release(&m.arena);
    repository_close(&m.repository);
    return status;
}
