/* Backups of a station: snapshots in a repository, which is a directory on another disk.
 *
 * A snapshot is a list of files; a file is a list of chunks; a chunk is named by the SHA-256 of its bytes and
 * is kept once, whoever uses it. Everything in a repository is checked by a SHA-256: chunks by their names,
 * the lists by a line of their own. A snapshot's name ends in its list's sum.
 *
 *   repository.json       which snapshots there are, which chunks nobody uses since when
 *   snapshots/ID.json     the list of a snapshot, written last
 *   chunks/ab/abcd...     a chunk
 *   lock                  of who changes something; reading needs no lock
 *
 * A copied database is consistent however much is written to it meanwhile. Killed at any moment, a repository
 * is as it was before, but for chunks that the next run finds and uses.
 *
 * A repository is read as what it may be: somebody else's bytes. Nothing is restored whose sum is wrong,
 * nothing is written outside the place that was named, no list or chunk takes more memory than BACKUP_*_MAX
 * allow. It is not encrypted. Thread: one at a time. */
#ifndef PHAROS_OPS_BACKUP_H
#define PHAROS_OPS_BACKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/status.h"

#define BACKUP_CHUNK_BYTES_MAX ((size_t)4 << 20)
#define BACKUP_LIST_BYTES_MAX ((size_t)64 << 20)
#define BACKUP_FILES_MAX 100000
#define BACKUP_FILE_BYTES_MAX (UINT64_C(1) << 48)
#define BACKUP_PATH_BYTES_MAX 1024 /* of a file in a snapshot */
#define BACKUP_ID_BYTES 37         /* "20261122T021023042Z-0123456789abcdef", with its zero */
#define BACKUP_ARENA_BYTES_MAX ((size_t)1 << 30)

enum backup_kind {
    BACKUP_FILE,   /* bytes */
    BACKUP_SQLITE, /* a database: copied by SQLite; checked by opening it, rows counted */
    BACKUP_GGUF    /* a model: checked by parsing it */
};

/* Where it happens and who is told. All may be NULL but dir and clock. */
struct backup_place {
    const char *dir; /* the repository */
    const struct clock_source *clock;
    void (*progress)(void *ud, uint64_t done, uint64_t total); /* bytes */
    void (*note)(void *ud, const char *text);                  /* a line that somebody should read */
    void *ud;
};

/* ---- What is kept */

struct backup_source {
    const char *from; /* on this machine */
    const char *path; /* in the snapshot: "data/keys.jsonl" */
    enum backup_kind kind;
    bool may_vanish; /* no error when it is not there any more */
};
struct backup_set {
    struct arena *arena;
    struct backup_source *items;
    size_t count, capacity;
    const char **left_out; /* what is not in the backup, and what to do about it: a line each */
    size_t left_out_count, left_out_capacity;
};

/* A file under "folder/" by its own name; another file of the same name gets a number. PH_OK also for one
 * that is in the set already. Its kind is seen from its bytes. */
PH_MUST_USE enum ph_status backup_set_add(struct backup_set *set, const char *folder, const char *from,
                                          struct ph_err *err);
/* All of a station's data directory but what is made anew: logs, indexes, locks, journals of databases; and
 * but `secrets`, paths. */
PH_MUST_USE enum ph_status backup_set_add_data(struct backup_set *set, const char *dir,
                                               const char *const *secrets, size_t secret_count,
                                               struct ph_err *err);
PH_MUST_USE enum ph_status backup_set_leave_out(struct backup_set *set, struct ph_err *err, const char *fmt,
                                                ...) PH_PRINTF(3, 4);

/* ---- Making one */

struct backup_create {
    struct backup_place at;
    const struct backup_set *set;
    const char *version; /* of the program */
    bool full;           /* reads every file again, and every chunk that is there: damaged ones are mended */
    bool rebuild;        /* makes the list of snapshots anew when it is lost or damaged */
};
struct backup_made {
    char id[BACKUP_ID_BYTES];
    size_t files, unchanged;        /* unchanged: not read again */
    uint64_t bytes;                 /* of the files */
    uint64_t new_bytes, new_chunks; /* written to the repository */
    uint64_t mended;                /* chunks that were there and damaged */
};
/* PH_ERR_BUSY: another one is at work there. */
PH_MUST_USE enum ph_status backup_create(const struct backup_create *create, struct backup_made *made,
                                         struct ph_err *err);

/* ---- Looking */

struct backup_snapshot {
    char id[BACKUP_ID_BYTES];
    int64_t created_ms;
    size_t files;
    uint64_t bytes;
    const char *problem; /* NULL: none; else nothing else is known */
};
/* Oldest first, in the arena. */
PH_MUST_USE enum ph_status backup_list(const struct backup_place *at, struct arena *arena,
                                       struct backup_snapshot **out, size_t *count, struct ph_err *err);

/* What is wrong, and where: what does not apply is NULL, offset -1. */
struct backup_fault {
    const char *snapshot, *file, *chunk;
    int64_t offset; /* in the file */
    const char *what;
};
struct backup_verify {
    struct backup_place at;
    const char *id;      /* NULL: the newest */
    bool all;            /* every snapshot, and chunks that none uses */
    const char *scratch; /* a directory for copies that are opened; NULL: the repository */
    void (*fault)(void *ud, const struct backup_fault *fault);
};
struct backup_verified {
    size_t snapshots, files, faults;
    uint64_t bytes; /* of files, each state of one counted once */
};
/* Every byte is read back and hashed; databases and models are put together in the scratch directory and
 * opened. PH_OK: it was done, and `faults` says what came of it. */
PH_MUST_USE enum ph_status backup_verify(const struct backup_verify *verify, struct backup_verified *out,
                                         struct ph_err *err);

/* ---- Bringing it back */

struct backup_restore {
    struct backup_place at;
    const char *id; /* NULL: the newest */
    const char *to;
    bool overwrite; /* `to` may hold other files, and those of the same names are replaced */
    void (*fault)(void *ud, const struct backup_fault *fault);
};
struct backup_restored {
    char id[BACKUP_ID_BYTES];
    size_t files, kept, failed; /* kept: they were there, from a run that was cut short */
    uint64_t bytes;
    const char **left_out; /* in the arena given */
    size_t left_out_count;
};
/* A file gets its name when all of it is on the disk and its sum is right; a run that was cut short is taken
 * up where it ended. PH_OK with failed > 0: those files are damaged, and were told; the others are there. */
PH_MUST_USE enum ph_status backup_restore(const struct backup_restore *restore, struct arena *arena,
                                          struct backup_restored *out, struct ph_err *err);

/* ---- Letting go */

enum backup_period { BACKUP_DAILY, BACKUP_WEEKLY, BACKUP_MONTHLY, BACKUP_YEARLY, BACKUP_PERIODS };
struct backup_prune {
    struct backup_place at;
    size_t keep_last;
    size_t keep[BACKUP_PERIODS]; /* the newest snapshot of so many days, weeks (from Monday), ..., in UTC */
    int64_t grace_ms; /* a chunk that nobody uses stays for so long, and till the next run at least */
    bool dry_run;
    void (*decided)(void *ud, const struct backup_snapshot *snapshot,
                    const char *why); /* why NULL: it goes */
};
struct backup_pruned {
    size_t kept, removed;
    uint64_t deleted_chunks, deleted_bytes; /* now */
    uint64_t waiting_chunks;                /* unused, for a later run */
};
PH_MUST_USE enum ph_status backup_prune(const struct backup_prune *prune, struct backup_pruned *out,
                                        struct ph_err *err);

#endif
