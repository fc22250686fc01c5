/* Files: read-only maps, bounded reads, atomic writes. The operating system's words reach the error message.
 */
#ifndef PHAROS_BASE_FILE_H
#define PHAROS_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

struct file_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t len;
};

/* Maps a regular file read-only and shared. A file that shrinks later raises SIGBUS on access: model files
 * are meant to be replaced by rename, never written in place. */
PH_MUST_USE enum ph_status file_map_open(struct file_map *map, const char *path, struct ph_err *err);
void file_map_release(struct file_map *map);

/* Appends a whole file, or standard input when path is "-", to out (PH_ERR_LIMIT beyond out->max). On failure
 * its text is as before. */
PH_MUST_USE enum ph_status file_read(const char *path, struct buf *out, struct ph_err *err);

/* Writes to a temporary file beside `path`, fsyncs it, renames it over `path`, fsyncs the directory: after a
 * crash the old content or the new is there, never a mixture (and perhaps a stray ".pharos-tmp-*" beside it).
 * A failure leaves nothing behind. A symbolic link at `path` is replaced. mode e.g. 0644, less the umask.
 * PH_ERR_ARG: a directory, a device or the like is there. */
PH_MUST_USE enum ph_status file_write_atomic(const char *path, const void *bytes, size_t len, unsigned mode,
                                             struct ph_err *err);

/* The same for a file too large to hold: opened under a temporary name beside `path`, written in pieces, and
 * renamed by file_out_commit. Commit and abandon both release the struct; after a failed commit nothing is
 * left behind. */
struct file_out {
    int fd;
    char *temp, *path;
};
PH_MUST_USE enum ph_status file_out_open(struct file_out *out, const char *path, unsigned mode,
                                         struct ph_err *err);
PH_MUST_USE enum ph_status file_out_write(struct file_out *out, const void *bytes, size_t len,
                                          struct ph_err *err);
/* Overwrites bytes written before (a header whose content is known only at the end); the next file_out_write
 * goes on where the last one ended. */
PH_MUST_USE enum ph_status file_out_rewrite(struct file_out *out, uint64_t offset, const void *bytes,
                                            size_t len, struct ph_err *err);
PH_MUST_USE enum ph_status file_out_commit(struct file_out *out, struct ph_err *err);
/* The same, but nothing has reached the disk yet: file_sync does that, for many files at once at less cost.
 * Until then a power cut may leave anything under the name. */
PH_MUST_USE enum ph_status file_out_commit_unsynced(struct file_out *out, struct ph_err *err);
void file_out_abandon(struct file_out *out);

/* Whether what is at `path`, if anything, is a file that may be replaced: for a file that is written after
 * hours of work, better asked before. PH_ERR_ARG as above. */
PH_MUST_USE enum ph_status file_out_check(const char *path, struct ph_err *err);

/* ---- What is written in place: journals, and state that outlives a killed process */

/* A regular file read and written at offsets; one that may be written is made (0600) where absent. */
struct file_at {
    int fd;
    char *path;
};
PH_MUST_USE enum ph_status file_at_open(struct file_at *file, const char *path, bool write,
                                        struct ph_err *err);
PH_MUST_USE enum ph_status file_at_len(const struct file_at *file, uint64_t *len, struct ph_err *err);
/* *got is less than len at the file's end only. */
PH_MUST_USE enum ph_status file_at_read(const struct file_at *file, uint64_t offset, void *bytes, size_t len,
                                        size_t *got, struct ph_err *err);
/* All of it, or an error and perhaps a part: a retry at the same offset mends that. */
PH_MUST_USE enum ph_status file_at_write(const struct file_at *file, uint64_t offset, const void *bytes,
                                         size_t len, struct ph_err *err);
PH_MUST_USE enum ph_status file_at_cut(const struct file_at *file, uint64_t len, struct ph_err *err);
void file_at_close(struct file_at *file); /* zeroes it; a file never opened is fine when zeroed */
/* What was written to the file, by whomever, and its name reach the disk. */
PH_MUST_USE enum ph_status file_sync(const char *path, struct ph_err *err);

/* Memory that is a file (0600; made, or grown with zeroes, to `len` bytes which the disk really has): what is
 * stored there outlives the process, whatever ends it. Not a power cut: then any page may be old. */
struct file_shared {
    uint8_t *data;
    size_t len;
};
PH_MUST_USE enum ph_status file_shared_open(struct file_shared *map, const char *path, size_t len,
                                            struct ph_err *err);
void file_shared_release(struct file_shared *map);

bool file_exists(const char *path);
/* Cuts a file off after `len` bytes. */
PH_MUST_USE enum ph_status file_truncate(const char *path, uint64_t len, struct ph_err *err);

/* A directory, made unless it is there; its parent must be. */
PH_MUST_USE enum ph_status file_make_dir(const char *path, struct ph_err *err);
/* The same with every directory above it; those that were not there get the mode, less the umask. */
PH_MUST_USE enum ph_status file_make_dirs(const char *path, unsigned mode, struct ph_err *err);

/* Removes the files of a directory whose names begin with `prefix`. */
PH_MUST_USE enum ph_status file_remove_prefixed(const char *dir, const char *prefix, struct ph_err *err);
/* Removes a directory and the files in it; one that is not there is no error. What cannot be removed (a
 * directory in it) stays. */
PH_MUST_USE enum ph_status file_remove_dir(const char *path, struct ph_err *err);

/* ---- What is there */

/* Tells one state of a file from another, for the price of a stat. All 0: there is none. */
struct file_stamp {
    uint64_t device, inode, bytes;
    int64_t modified_ns, changed_ns; /* its content; also its mode and name */
};
void file_stamp(const char *path, struct file_stamp *out);
bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b);

struct file_entry {
    const char *name;        /* in its directory; of file_inspect: the path that was asked for */
    bool is_regular, is_dir; /* neither: a device, a pipe, a link that leads nowhere */
    bool is_link;            /* the rest is about what it leads to */
    unsigned mode;           /* permission bits */
    unsigned long owner;
    struct file_stamp stamp;
};
/* PH_ERR_NOTFOUND: there is nothing. */
PH_MUST_USE enum ph_status file_inspect(const char *path, struct file_entry *out, struct ph_err *err);
/* Tells fn of each entry of a directory but "." and "..", in no order. fn answers PH_OK to go on; anything
 * else ends the walk, which answers it. What disappears meanwhile may be left out. */
PH_MUST_USE enum ph_status file_each(const char *dir,
                                     enum ph_status (*fn)(void *ud, const struct file_entry *entry), void *ud,
                                     struct ph_err *err);
/* What this user may still write to the file system that holds `path`. */
PH_MUST_USE enum ph_status file_free_bytes(const char *path, uint64_t *out, struct ph_err *err);

/* Gives a file a new name, which may be another's, who is gone then; durable. A link at `to` is replaced. */
PH_MUST_USE enum ph_status file_rename(const char *from, const char *to, struct ph_err *err);
PH_MUST_USE enum ph_status file_remove(const char *path, struct ph_err *err);
PH_MUST_USE enum ph_status file_set_mode(const char *path, unsigned mode, struct ph_err *err);

/* ---- What nobody else may see: keys, secrets */

/* Appends a whole file that holds secrets. PH_ERR_ARG: somebody but its owner may read or write it, or it is
 * neither this user's nor root's (the superuser may read anybody's); the message names the command that mends
 * it. PH_ERR_NOTFOUND: there is none. `stamp` (may be NULL) is of what was read. On failure the buffer's text
 * is as before. */
PH_MUST_USE enum ph_status file_read_private(const char *path, struct buf *out, struct file_stamp *stamp,
                                             struct ph_err *err);
/* file_write_atomic for such a file: mode 0600. What the superuser writes belongs to the directory's owner,
 * locks too. */
PH_MUST_USE enum ph_status file_write_private(const char *path, const void *bytes, size_t len,
                                              struct ph_err *err);
/* A directory for such files, made (0700, its parents too) unless it is there. PH_ERR_ARG: others may write
 * in it. */
PH_MUST_USE enum ph_status file_make_private_dir(const char *path, struct ph_err *err);
/* file_lock, for up to timeout_ms. */
PH_MUST_USE enum ph_status file_lock_wait(const char *path, unsigned timeout_ms, int *lock,
                                          struct ph_err *err);

/* Removes what interrupted writers left in a directory of which the caller is the only writer. */
void file_remove_strays(const char *dir);
/* Locks a file, made where absent, for this process until it ends or closes *lock (file_unlock).
 * PH_ERR_BUSY: another process has it; the message names it. */
PH_MUST_USE enum ph_status file_lock(const char *path, int *lock, struct ph_err *err);
void file_unlock(int lock);

#endif
