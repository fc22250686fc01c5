/* Databases: copied whole while others write, counted, checked.
 *
 * A read transaction is held over the whole copy, so that it is of one moment, however long it takes and
 * however much is committed meanwhile (in WAL mode neither waits for the other). What was committed before
 * the copy began is in it. */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "ops/backup_int.h"

#define WAIT_MS 30000
#define PAGES_AT_ONCE 4096
#define TABLES_MAX 1000

bool backup_is_sqlite(const char *path)
{
    static const char magic[16] = "SQLite format 3";
    char head[sizeof magic];
    struct file_at file;
    struct ph_err err;
    size_t got = 0;
    if (file_at_open(&file, path, false, &err) != PH_OK)
        return false;
    bool read = file_at_read(&file, 0, head, sizeof head, &got, &err) == PH_OK;
    file_at_close(&file);
    return read && got == sizeof head && memcmp(head, magic, sizeof head) == 0;
}

static enum ph_status fail(sqlite3 *db, const char *path, const char *doing, struct ph_err *err)
{
    int code = db ? sqlite3_errcode(db) & 0xff : SQLITE_NOMEM;
    bool damaged = code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
    return ph_fail(err,
                   damaged               ? PH_ERR_FORMAT
                   : code == SQLITE_BUSY ? PH_ERR_BUSY
                                         : PH_ERR_IO,
                   "cannot %s %s: %s%s", doing, path, db ? sqlite3_errmsg(db) : "no memory",
                   damaged ? "; `pharos store verify` says more, an older backup mends it" : "");
}

static enum ph_status open_db(const char *path, int flags, sqlite3 **out, struct ph_err *err)
{
    int code = sqlite3_open_v2(path, out, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK)
        (void)sqlite3_busy_timeout(*out, WAIT_MS);
    if (code == SQLITE_OK)
        return PH_OK;
    enum ph_status status = fail(*out, path, "open", err);
    sqlite3_close(*out);
    *out = NULL;
    return status;
}

enum ph_status backup_sqlite_copy(const char *from, const char *to, struct ph_err *err)
{
    sqlite3 *source = NULL, *copy = NULL;
    enum ph_status status = open_db(from, SQLITE_OPEN_READWRITE, &source, err);
    if (status == PH_OK)
        status = open_db(to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &copy, err);
    if (status == PH_OK && sqlite3_exec(copy, "PRAGMA synchronous = OFF", NULL, NULL, NULL) != SQLITE_OK)
        status = fail(copy, to, "set up", err);
    if (status == PH_OK &&
        sqlite3_exec(source, "BEGIN; SELECT count(*) FROM sqlite_master", NULL, NULL, NULL) != SQLITE_OK)
        status = fail(source, from, "read", err);
    sqlite3_backup *backup = status == PH_OK ? sqlite3_backup_init(copy, "main", source, "main") : NULL;
    if (status == PH_OK && !backup)
        status = fail(copy, from, "copy", err);
    int code = SQLITE_OK;
    while (status == PH_OK && code == SQLITE_OK)
        code = sqlite3_backup_step(backup, PAGES_AT_ONCE);
    if (backup)
        (void)sqlite3_backup_finish(backup);
    if (status == PH_OK && code != SQLITE_DONE)
        status = fail(copy, from, "copy", err);
    sqlite3_close(source);
    if (sqlite3_close(copy) != SQLITE_OK && status == PH_OK)
        status = ph_fail(err, PH_ERR_IO, "cannot close the copy %s", to);
    return status;
}

/* ---- Counting: tables by name, as data; what SQLite keeps for itself (sqlite_...) is left out */

static enum ph_status table_names(sqlite3 *db, const char *path, struct arena *arena,
                                  struct backup_rows **out, size_t *count, struct ph_err *err)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db,
                                  "SELECT name FROM sqlite_master WHERE type = 'table' AND "
                                  "name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
                                  -1, &statement, NULL);
    struct backup_rows *rows = arena_calloc(arena, TABLES_MAX, sizeof *rows);
    *count = 0;
    while (code == SQLITE_OK && rows && *count < TABLES_MAX && sqlite3_step(statement) == SQLITE_ROW) {
        const unsigned char *name = sqlite3_column_text(statement, 0);
        rows[*count].table = name ? arena_strdup(arena, (const char *)name) : NULL;
        code = rows[(*count)++].table ? SQLITE_OK : SQLITE_NOMEM;
    }
    bool ended = sqlite3_finalize(statement) == SQLITE_OK && code == SQLITE_OK && rows;
    *out = rows;
    return ended ? PH_OK : fail(db, path, "list the tables of", err);
}

static enum ph_status count_table(sqlite3 *db, const char *path, struct backup_rows *row, struct ph_err *err)
{
    sqlite3_stmt *statement = NULL;
    char *sql = sqlite3_mprintf("SELECT count(*) FROM \"%w\"", row->table);
    bool done = sql && sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
                sqlite3_step(statement) == SQLITE_ROW;
    if (done)
        row->count = sqlite3_column_int64(statement, 0);
    enum ph_status status = done ? PH_OK : fail(db, path, "count the rows of", err);
    sqlite3_finalize(statement);
    sqlite3_free(sql);
    return status;
}

enum ph_status backup_sqlite_count(const char *path, struct arena *arena, struct backup_rows **out,
                                   size_t *count, struct ph_err *err)
{
    sqlite3 *db = NULL;
    enum ph_status status = open_db(path, SQLITE_OPEN_READWRITE, &db, err);
    if (status == PH_OK)
        status = table_names(db, path, arena, out, count, err);
    for (size_t i = 0; status == PH_OK && i < *count; i++)
        status = count_table(db, path, &(*out)[i], err);
    sqlite3_close(db);
    return status;
}

enum ph_status backup_sqlite_check(const char *path, struct ph_err *err)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    enum ph_status status = open_db(path, SQLITE_OPEN_READWRITE, &db, err);
    if (status != PH_OK)
        return status;
    const unsigned char *said = NULL;
    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        said = sqlite3_column_text(statement, 0);
    if (!said)
        status = fail(db, path, "check", err);
    else if (strcmp((const char *)said, "ok") != 0)
        status = ph_fail(err, PH_ERR_FORMAT, "SQLite finds: %.200s", (const char *)said);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return status;
}
