/* What a backup is made of: the files of a station, by their names in the snapshot.
 *
 * A data directory is taken whole but for a table of exceptions, not file by file: what a later version keeps
 * there is in its backups without anybody's having thought of it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/model.h"
#include "ops/backup_int.h"

#define DEPTH_MAX 16

static bool grow(struct arena *arena, void **items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    size_t larger = *capacity ? 2 * *capacity : 32;
    void *copy = arena_calloc(arena, larger, size);
    if (!copy)
        return false;
    if (count)
        memcpy(copy, *items, count * size);
    *items = copy;
    *capacity = larger;
    return true;
}

enum ph_status backup_set_leave_out(struct backup_set *set, struct ph_err *err, const char *fmt, ...)
{
    struct ph_err line;
    va_list args;
    va_start(args, fmt);
    vsnprintf(line.message, sizeof line.message, fmt, args);
    va_end(args);
    char *text = arena_strdup(set->arena, line.message);
    void *items = set->left_out;
    if (!text ||
        !grow(set->arena, &items, set->left_out_count, &set->left_out_capacity, sizeof *set->left_out))
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the list of files");
    set->left_out = items;
    set->left_out[set->left_out_count++] = text;
    return PH_OK;
}

static enum backup_kind kind_of(const char *path)
{
    struct gguf *gguf = NULL;
    struct ph_err err;
    size_t len = strlen(path);
    if (backup_is_sqlite(path))
        return BACKUP_SQLITE;
    if (len < 5 || strcmp(path + len - 5, ".gguf") != 0 || gguf_open(&gguf, path, &err) != PH_OK)
        return BACKUP_FILE;
    gguf_free(gguf);
    return BACKUP_GGUF;
}

static enum ph_status add(struct backup_set *set, const char *from, const char *path, bool may_vanish,
                          struct ph_err *err)
{
    struct backup_source source = {.kind = kind_of(from), .may_vanish = may_vanish};
    void *items = set->items;
    if (set->count == BACKUP_FILES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "there are more than %d files to back up", BACKUP_FILES_MAX);
    source.from = arena_strdup(set->arena, from);
    source.path = arena_strdup(set->arena, path);
    if (!source.from || !source.path ||
        !grow(set->arena, &items, set->count, &set->capacity, sizeof *set->items))
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the list of files");
    set->items = items;
    set->items[set->count++] = source;
    return PH_OK;
}

/* ---- Single files */

static bool has_path(const struct backup_set *set, const char *path)
{
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->items[i].path, path) == 0)
            return true;
    return false;
}

enum ph_status backup_set_add(struct backup_set *set, const char *folder, const char *from,
                              struct ph_err *err)
{
    char path[BACKUP_PATH_BYTES_MAX];
    struct file_entry entry;
    const char *slash = strrchr(from, '/'), *name = slash ? slash + 1 : from;
    enum ph_status status = file_inspect(from, &entry, err);
    if (status != PH_OK)
        return status;
    if (!entry.is_regular)
        return ph_fail(err, PH_ERR_ARG, "%s is no regular file and cannot be backed up", from);
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->items[i].from, from) == 0)
            return PH_OK;
    for (unsigned n = 1; n == 1 || has_path(set, path); n++) {
        char number[16] = "";
        if (n > 1)
            snprintf(number, sizeof number, "%u-", n);
        int len = snprintf(path, sizeof path, "%s/%s%s", folder, number, name);
        if (len < 0 || (size_t)len >= sizeof path || !backup_path_is_safe(path, (size_t)len))
            return ph_fail(err, PH_ERR_ARG, "%s has a name that no backup takes: rename it", from);
    }
    return add(set, from, path, false, err);
}

/* ---- A data directory */

static const struct exception {
    const char *name;   /* a trailing or leading * is any text */
    bool at_top;        /* only in the data directory itself */
    bool beside_sqlite; /* only what belongs to a database, whose copy is whole without it */
} exceptions[] = {
    {"logs", true, false},      {"drill", true, false},   {"vectors", true, false},
    {"lock", false, false},     {"*.lock", false, false}, {".pharos-tmp-*", false, false},
    {"holds", false, false},    {"*-wal", false, true},   {"*-shm", false, true},
    {"*-journal", false, true},
};

static bool matches(const char *name, const char *pattern)
{
    size_t len = strlen(name), want = strlen(pattern);
    if (pattern[0] == '*')
        return len >= want - 1 && strcmp(name + len - (want - 1), pattern + 1) == 0;
    if (pattern[want - 1] == '*')
        return strncmp(name, pattern, want - 1) == 0;
    return strcmp(name, pattern) == 0;
}

static bool belongs_to_sqlite(const char *path)
{
    char database[PATH_BYTES_MAX];
    const char *dash = strrchr(path, '-');
    snprintf(database, sizeof database, "%.*s", (int)(dash - path), path);
    return backup_is_sqlite(database);
}

static bool is_exception(const char *path, const char *name, unsigned depth)
{
    for (size_t i = 0; i < sizeof exceptions / sizeof *exceptions; i++)
        if (matches(name, exceptions[i].name) && (!exceptions[i].at_top || depth == 0) &&
            (!exceptions[i].beside_sqlite || belongs_to_sqlite(path)))
            return true;
    return false;
}

struct walk {
    struct backup_set *set;
    const struct file_entry *secrets;
    size_t secret_count;
    const char *dir, *path; /* on this machine, in the snapshot */
    unsigned depth;
    struct ph_err *err;
};

static enum ph_status walk_dir(const struct walk *walk);

static bool is_secret(const struct walk *walk, const struct file_entry *entry)
{
    for (size_t i = 0; i < walk->secret_count; i++)
        if (walk->secrets[i].stamp.inode == entry->stamp.inode &&
            walk->secrets[i].stamp.device == entry->stamp.device)
            return true;
    return false;
}

static enum ph_status on_entry(void *ud, const struct file_entry *entry)
{
    const struct walk *walk = ud;
    char from[PATH_BYTES_MAX], path[BACKUP_PATH_BYTES_MAX];
    int from_len = snprintf(from, sizeof from, "%s/%s", walk->dir, entry->name);
    int path_len = snprintf(path, sizeof path, "%s/%s", walk->path, entry->name);
    if (from_len < 0 || (size_t)from_len >= sizeof from)
        return ph_fail(walk->err, PH_ERR_LIMIT, "%.200s... is too long a path", from);
    if (is_exception(from, entry->name, walk->depth) || is_secret(walk, entry))
        return PH_OK;
    if (path_len < 0 || (size_t)path_len >= sizeof path || !backup_path_is_safe(path, (size_t)path_len))
        return backup_set_leave_out(walk->set, walk->err, "%s has a name that no backup takes: rename it",
                                    from);
    if (entry->is_dir) {
        const struct walk below = {.set = walk->set,
                                   .secrets = walk->secrets,
                                   .secret_count = walk->secret_count,
                                   .dir = from,
                                   .path = path,
                                   .depth = walk->depth + 1,
                                   .err = walk->err};
        return walk_dir(&below);
    }
    return entry->is_regular ? add(walk->set, from, path, true, walk->err) : PH_OK;
}

static enum ph_status walk_dir(const struct walk *walk)
{
    if (walk->depth > DEPTH_MAX)
        return ph_fail(walk->err, PH_ERR_LIMIT,
                       "%s lies more than %d directories deep; does a link lead back?", walk->dir, DEPTH_MAX);
    return file_each(walk->dir, on_entry, (void *)walk, walk->err);
}

enum ph_status backup_set_add_data(struct backup_set *set, const char *dir, const char *const *secrets,
                                   size_t secret_count, struct ph_err *err)
{
    struct ph_err ignored;
    struct file_entry *entries = arena_calloc(set->arena, secret_count + 1, sizeof *entries);
    struct walk walk = {.set = set, .secrets = entries, .dir = dir, .path = "data", .err = err};
    if (!entries)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the list of files");
    for (size_t i = 0; i < secret_count; i++)
        if (file_inspect(secrets[i], &entries[walk.secret_count], &ignored) == PH_OK)
            walk.secret_count++;
    if (!file_exists(dir))
        return ph_fail(err, PH_ERR_NOTFOUND,
                       "there is no data directory %s; name the station's with --data DIR", dir);
    return walk_dir(&walk);
}
