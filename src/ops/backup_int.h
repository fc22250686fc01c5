/* What the files of backups share. */
#ifndef PHAROS_OPS_BACKUP_INT_H
#define PHAROS_OPS_BACKUP_INT_H

#include <openssl/types.h>

#include "base/buf.h"
#include "base/file.h"
#include "ops/backup.h"

#define DIGEST_BYTES 32
#define DIGEST_TEXT_BYTES 65 /* hex, with its zero */

/* ---- Sums (backup_digest.c) */

struct digest {
    uint8_t bytes[DIGEST_BYTES];
};
bool digest_equal(const struct digest *a, const struct digest *b);
void digest_text(const struct digest *digest, char out[DIGEST_TEXT_BYTES]);
bool digest_parse(const char *text, size_t len, struct digest *out); /* 64 lower-case hex digits */

struct hasher {
    EVP_MD_CTX *context;
    bool failed;
};
PH_MUST_USE enum ph_status hasher_open(struct hasher *hasher, struct ph_err *err);
void hasher_close(struct hasher *hasher);
void hasher_begin(struct hasher *hasher);
void hasher_add(struct hasher *hasher, const void *bytes, size_t len);
/* false: the library failed at some point since begin. */
PH_MUST_USE bool hasher_end(struct hasher *hasher, struct digest *out);

/* A set of sums, each with a number. */
struct digest_map {
    struct digest_slot *slots;
    size_t capacity, count;
};
/* Where the number of the sum lies; 0 when it is new. NULL: no memory. Good until the next call. */
int64_t *digest_map_at(struct digest_map *map, const struct digest *digest);
bool digest_map_find(const struct digest_map *map, const struct digest *digest, int64_t *value);
void digest_map_release(struct digest_map *map);

/* ---- Where to cut (backup_cut.c) */

#define CUT_BYTES_MAX ((size_t)512 << 10)
struct cutter {
    uint64_t gear[256];
};
void cutter_init(struct cutter *cutter);
/* Length of the next chunk of bytes[len): content-defined. All of it when len is at most the least length.
 * `len` is at least CUT_BYTES_MAX, or all there is. */
size_t cutter_cut(const struct cutter *cutter, const uint8_t *bytes, size_t len);

/* ---- A snapshot's list (backup_list.c) */

struct backup_chunk {
    struct digest digest;
    uint32_t bytes;
};
struct backup_rows {
    const char *table;
    int64_t count;
};
struct backup_entry {
    const char *path, *from;
    enum backup_kind kind;
    uint64_t bytes;
    unsigned mode;            /* 0600, 0644, ...: never more for others than reading */
    struct file_stamp stamp;  /* when it was read; zeroes: it must be read again */
    struct digest digest;     /* of the whole file */
    struct backup_rows *rows; /* of a database's tables */
    size_t row_count;
    struct backup_chunk *chunks;
    size_t chunk_count;
};
struct backup_list {
    char id[BACKUP_ID_BYTES];
    int64_t created_ms;
    const char *host, *version;
    const char **left_out;
    size_t left_out_count;
    struct backup_entry *entries;
    size_t count;
};
/* A path that stays where it is put: relative, of plain names. */
bool backup_path_is_safe(const char *path, size_t len);
/* The list's JSON, one line without its end. */
void backup_list_write(const struct backup_list *list, struct buf *out);
/* Hostile text; everything is checked but `id`, which is not in it. Lies in the arena. */
PH_MUST_USE enum ph_status backup_list_parse(struct arena *arena, const char *text, size_t len,
                                             struct backup_list *out, struct ph_err *err);
/* "20261122T021023042Z-", to the millisecond, and the sum's first 16 digits. */
void backup_id_make(int64_t created_ms, const struct digest *digest, char out[BACKUP_ID_BYTES]);
bool backup_id_is(const char *text);

/* ---- A text with its sum on a second line (backup_seal.c) */

PH_MUST_USE enum ph_status seal_write(const char *path, const struct buf *text, struct digest *digest,
                                      struct ph_err *err);
/* Fills `text` with the first line, without its end. PH_ERR_FORMAT: not what was written. */
PH_MUST_USE enum ph_status seal_read(const char *path, struct buf *text, struct digest *digest,
                                     struct ph_err *err);
PH_MUST_USE enum ph_status seal_digest(const char *text, size_t len, struct digest *out, struct ph_err *err);

/* ---- The repository (backup_repository.c) */

struct unused_chunk {
    struct digest digest;
    int64_t since_ms;
};
struct repository {
    const struct backup_place *at;
    int lock; /* -1: reading */
    struct arena arena;
    char (*ids)[BACKUP_ID_BYTES]; /* of the list of snapshots, oldest first */
    size_t id_count;
    struct unused_chunk *unused;
    size_t unused_count;
    bool has_state;            /* repository.json is there and sound */
    struct ph_err state_fault; /* why not */
    struct hasher hasher;
    uint8_t *packed; /* a chunk as it lies on the disk */
    struct ZSTD_CCtx_s *packing;
    struct ZSTD_DCtx_s *unpacking;
};
enum repository_mode { REPOSITORY_READ, REPOSITORY_WRITE, REPOSITORY_MAKE };
PH_MUST_USE enum ph_status repository_open(struct repository *repository, const struct backup_place *at,
                                           enum repository_mode mode, struct ph_err *err);
void repository_close(struct repository *repository);
void repository_note(const struct repository *repository, const char *fmt, ...) PH_PRINTF(2, 3);
/* Ids of the snapshots whose lists are there, oldest first. */
PH_MUST_USE enum ph_status repository_snapshots(struct repository *repository, struct arena *arena,
                                                char (**ids)[BACKUP_ID_BYTES], size_t *count,
                                                struct ph_err *err);
PH_MUST_USE enum ph_status repository_save(struct repository *repository, char (*ids)[BACKUP_ID_BYTES],
                                           size_t id_count, const struct unused_chunk *unused,
                                           size_t unused_count, struct ph_err *err);
void repository_path(const struct repository *repository, const char *name, char out[PATH_BYTES_MAX]);
void repository_list_path(const struct repository *repository, const char *id, char out[PATH_BYTES_MAX]);
PH_MUST_USE enum ph_status repository_read_list(struct repository *repository, struct arena *arena,
                                                const char *id, struct backup_list *out, struct ph_err *err);
/* The snapshot that `id` names (its beginning will do when no other begins so), NULL: the newest. */
PH_MUST_USE enum ph_status repository_choose(struct repository *repository, const char *id,
                                             char out[BACKUP_ID_BYTES], struct ph_err *err);

/* ---- Chunks (backup_chunk.c) */

void chunk_path(const struct repository *repository, const struct digest *digest, char out[PATH_BYTES_MAX]);
/* Fills out[chunk->bytes]. PH_ERR_NOTFOUND: missing; PH_ERR_FORMAT: damaged; the message says no more than
 * that, for a fault that names the rest. */
PH_MUST_USE enum ph_status chunk_read(struct repository *repository, const struct backup_chunk *chunk,
                                      uint8_t *out, struct ph_err *err);
/* How many bytes a chunk says that it has, at most BACKUP_CHUNK_BYTES_MAX. */
PH_MUST_USE enum ph_status chunk_length(struct repository *repository, const struct digest *digest,
                                        uint32_t *out, struct ph_err *err);
/* Writes it, also over another; not synced. *helped: whether packing it made it smaller; asked for by
 * *helped. */
PH_MUST_USE enum ph_status chunk_write(struct repository *repository, const struct digest *digest,
                                       const uint8_t *bytes, size_t len, bool *helped, uint64_t *stored,
                                       struct ph_err *err);
/* Tells of every file in the directories of chunks; digest NULL: its name is no chunk's. */
PH_MUST_USE enum ph_status chunk_each(const struct repository *repository,
                                      enum ph_status (*fn)(void *ud, const struct digest *digest,
                                                           const char *path, uint64_t bytes),
                                      void *ud, struct ph_err *err);

/* ---- Databases (backup_sqlite.c) */

bool backup_is_sqlite(const char *path); /* by its first bytes */
/* A consistent copy of a database that others may be writing to. */
PH_MUST_USE enum ph_status backup_sqlite_copy(const char *from, const char *to, struct ph_err *err);
PH_MUST_USE enum ph_status backup_sqlite_count(const char *path, struct arena *arena,
                                               struct backup_rows **out, size_t *count, struct ph_err *err);
/* SQLite's own check of the whole file. PH_ERR_FORMAT: the first thing it found. */
PH_MUST_USE enum ph_status backup_sqlite_check(const char *path, struct ph_err *err);

/* ---- A file of the scratch directory (backup_scratch.c) */

/* Locked by its process, so that a writer can tell what a killed one left. */
struct scratch {
    char dir[PATH_BYTES_MAX]; /* "": not open */
    int lock;
};
#define SCRATCH_PREFIX ".pharos-scratch-"
PH_MUST_USE enum ph_status scratch_open(struct scratch *scratch, const char *parent, struct ph_err *err);
void scratch_path(const struct scratch *scratch, const char *name, char out[PATH_BYTES_MAX]);
void scratch_close(struct scratch *scratch); /* with all that is in it; once more, or zeroed: fine */
void scratch_remove_stray(const char *dir);  /* unless somebody is using it */

#endif
