/* The store in one SQLite file. WAL with synchronous FULL: a commit is one append to the log and one sync;
 * readers never wait for the writer. secure_delete overwrites what is deleted; after a user is deleted the
 * file is rewritten whole (VACUUM), because pages that were rearranged keep copies that secure_delete does
 * not know of, and the log is emptied. References are checked with every statement. */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "base/file.h"
#include "base/mem.h"
#include "memory/store_db_int.h"

#define WRITER_CACHE_KIB 65536
#define LOG_PAGES 8192 /* the log is folded into the file when it has so many */
#define LOG_KEPT_BYTES (64 << 20)
#define LOG_RETRY_MS 5
#define PURGE_WAIT_MS 100

struct sqlite_db {
    struct store_db base;
    sqlite3 *handle;
    const char *const *sql;
    sqlite3_stmt **statements; /* [count]; NULL: not prepared yet */
    size_t count;
    sqlite3_stmt *current;
    int bound;             /* parameters of it that have their value */
    enum ph_status failed; /* of a start or a bind, for the next step */
    char path[PATH_BYTES_MAX];
};

static struct sqlite_db *db_of(struct store_db *db)
{
    return (struct sqlite_db *)db;
}

static enum ph_status status_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return PH_OK;
    case SQLITE_NOMEM:
        return PH_ERR_NOMEM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return PH_ERR_BUSY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return PH_ERR_FORMAT;
    case SQLITE_CONSTRAINT:
        return PH_ERR_CONFLICT;
    case SQLITE_TOOBIG:
        return PH_ERR_LIMIT;
    case SQLITE_ERROR: /* a statement of ours that this file can't follow: it has other tables, or none */
        return PH_ERR_UNSUPPORTED;
    default:
        return PH_ERR_IO;
    }
}

/* What a person can do about it. */
static const char *advice(int code)
{
    switch (code & 0xff) {
    case SQLITE_FULL:
        return "; make room on the disk";
    case SQLITE_BUSY:
        return "; another process writes to it for very long";
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return "; `pharos store verify` says what is damaged, a backup mends it";
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return "; look at the owner and the rights of the file and its folder";
    default:
        return "";
    }
}

static enum ph_status fail(struct sqlite_db *db, int code, struct ph_err *err)
{
    int extended = db->handle ? sqlite3_extended_errcode(db->handle) : code;
    if ((extended & 0xff) != (code & 0xff))
        extended = code;
    return ph_fail(err, status_of(code), "%s: %s (SQLite %d)%s", db->path,
                   db->handle && (code & 0xff) != SQLITE_NOMEM ? sqlite3_errmsg(db->handle)
                                                               : sqlite3_errstr(code),
                   extended, advice(code));
}

/* ---- Statements */

static void end_current(struct sqlite_db *db)
{
    if (!db->current)
        return;
    (void)sqlite3_reset(db->current); /* what failed was told by the step */
    (void)sqlite3_clear_bindings(db->current);
    db->current = NULL;
}

static void sqlite_start(struct store_db *base, unsigned statement)
{
    struct sqlite_db *db = db_of(base);
    end_current(db);
    db->bound = 0;
    db->failed = PH_OK;
    sqlite3_stmt **prepared = &db->statements[statement];
    if (!*prepared) {
        int code =
            sqlite3_prepare_v3(db->handle, db->sql[statement], -1, SQLITE_PREPARE_PERSISTENT, prepared, NULL);
        if (code != SQLITE_OK) {
            db->failed = status_of(code);
            return;
        }
    }
    db->current = *prepared;
}

static void note_bound(struct sqlite_db *db, int code)
{
    if (code != SQLITE_OK && db->failed == PH_OK)
        db->failed = status_of(code);
}

static void sqlite_bind_int(struct store_db *base, int64_t value)
{
    struct sqlite_db *db = db_of(base);
    if (db->current)
        note_bound(db, sqlite3_bind_int64(db->current, ++db->bound, value));
}

static void sqlite_bind_text(struct store_db *base, const char *text, size_t len)
{
    struct sqlite_db *db = db_of(base);
    if (db->current)
        note_bound(db,
                   text ? sqlite3_bind_text64(db->current, ++db->bound, text, len, SQLITE_STATIC, SQLITE_UTF8)
                        : sqlite3_bind_null(db->current, ++db->bound));
}

static void sqlite_bind_blob(struct store_db *base, const void *bytes, size_t len)
{
    struct sqlite_db *db = db_of(base);
    if (db->current) /* a NULL pointer would be NULL, no empty blob */
        note_bound(db, sqlite3_bind_blob64(db->current, ++db->bound, len ? bytes : "", len, SQLITE_STATIC));
}

static enum ph_status sqlite_step(struct store_db *base, bool *row, struct ph_err *err)
{
    struct sqlite_db *db = db_of(base);
    if (row)
        *row = false;
    if (!db->current || db->failed != PH_OK)
        return fail(db, db->handle ? sqlite3_errcode(db->handle) : SQLITE_MISUSE, err);
    int code = sqlite3_step(db->current);
    if (code == SQLITE_ROW) {
        if (row)
            *row = true;
        return PH_OK;
    }
    if (code == SQLITE_DONE)
        return PH_OK;
    enum ph_status status = fail(db, code, err);
    end_current(db);
    return status;
}

static int64_t sqlite_column_int(struct store_db *base, unsigned column)
{
    return sqlite3_column_int64(db_of(base)->current, (int)column);
}

static const char *sqlite_column_text(struct store_db *base, unsigned column, size_t *len)
{
    sqlite3_stmt *statement = db_of(base)->current;
    const unsigned char *text = sqlite3_column_text(statement, (int)column);
    if (len)
        *len = text ? (size_t)sqlite3_column_bytes(statement, (int)column) : 0;
    return text ? (const char *)text : "";
}

static const void *sqlite_column_blob(struct store_db *base, unsigned column, size_t *len)
{
    sqlite3_stmt *statement = db_of(base)->current;
    const void *bytes = sqlite3_column_blob(statement, (int)column);
    *len = bytes ? (size_t)sqlite3_column_bytes(statement, (int)column) : 0;
    return bytes ? bytes : "";
}

static int64_t sqlite_changes(struct store_db *base)
{
    return sqlite3_changes64(db_of(base)->handle);
}

/* ---- Transactions */

static enum ph_status sqlite_exec(struct store_db *base, const char *script, struct ph_err *err)
{
    struct sqlite_db *db = db_of(base);
    end_current(db);
    int code = sqlite3_exec(db->handle, script, NULL, NULL, NULL);
    return code == SQLITE_OK ? PH_OK : fail(db, code, err);
}

static enum ph_status sqlite_begin(struct store_db *base, enum store_db_mode mode, struct ph_err *err)
{
    return sqlite_exec(base, mode == STORE_DB_READ ? "BEGIN" : "BEGIN IMMEDIATE", err);
}

static void sqlite_rollback(struct store_db *base)
{
    struct sqlite_db *db = db_of(base);
    end_current(db);
    if (!sqlite3_get_autocommit(db->handle))
        (void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
}

static enum ph_status sqlite_commit(struct store_db *base, struct ph_err *err)
{
    enum ph_status status = sqlite_exec(base, "COMMIT", err);
    if (status != PH_OK)
        sqlite_rollback(base);
    return status;
}

/* ---- Opening */

static void sqlite_close(struct store_db *base)
{
    struct sqlite_db *db = db_of(base);
    if (!db)
        return;
    for (size_t i = 0; db->statements && i < db->count; i++)
        sqlite3_finalize(db->statements[i]);
    sqlite3_close(db->handle);
    mem_free(db->statements);
    mem_free(db);
}

/* SQLite would make the file as the umask has it; its log and index get the file's own rights. */
static enum ph_status make_file(const struct store_params *params, const char *path, struct ph_err *err)
{
    if (file_exists(path))
        return PH_OK;
    if (params->must_exist)
        return ph_fail(err, PH_ERR_NOTFOUND,
                       "%s: there is no store here; `pharos serve` or `pharos store import` makes one", path);
    struct file_at file;
    enum ph_status status = file_make_private_dir(params->dir, err);
    if (status == PH_OK)
        status = file_at_open(&file, path, true, err);
    if (status == PH_OK)
        file_at_close(&file);
    return status;
}

/* Of two that open a new file at once, SQLite refuses one the change of its journal without waiting: both
 * would read it while each waits for the other to be alone. One step back and again. */
static enum ph_status use_log(struct sqlite_db *db, struct ph_err *err)
{
    uint64_t end_ns = uv_hrtime() + (uint64_t)STORE_LOCK_WAIT_MS * 1000000;
    enum ph_status status = sqlite_exec(&db->base, "PRAGMA journal_mode = WAL", err);
    while (status == PH_ERR_BUSY && uv_hrtime() < end_ns) {
        uv_sleep(LOG_RETRY_MS);
        status = sqlite_exec(&db->base, "PRAGMA journal_mode = WAL", err);
    }
    return status;
}

static enum ph_status set_up(struct sqlite_db *db, const struct store_params *params, struct ph_err *err)
{
    char pragmas[512];
    int len = snprintf(pragmas, sizeof pragmas,
                       "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;"
                       "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
                       "PRAGMA cache_size = -%d; PRAGMA wal_autocheckpoint = %d;"
                       "PRAGMA journal_size_limit = %d;",
                       WRITER_CACHE_KIB, LOG_PAGES, LOG_KEPT_BYTES);
    if (len < 0 || (size_t)len >= sizeof pragmas)
        return ph_fail(err, PH_ERR_INTERNAL, "%s: its settings are too long", params->dir);
    (void)sqlite3_extended_result_codes(db->handle, 1);
    (void)sqlite3_busy_timeout(db->handle, STORE_LOCK_WAIT_MS);
    (void)sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    enum ph_status status = use_log(db, err);
    return status == PH_OK ? sqlite_exec(&db->base, pragmas, err) : status;
}

static enum ph_status sqlite_open(const struct store_params *params, const char *const *sql, size_t count,
                                  struct store_db **out, struct ph_err *err)
{
    struct sqlite_db *db = mem_calloc(1, sizeof *db);
    if (!db)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a connection to the store");
    db->base.driver = &store_driver_sqlite;
    db->sql = sql;
    db->count = count;
    enum ph_status status = PH_OK;
    int len = snprintf(db->path, sizeof db->path, "%s/store.db", params->dir);
    if (len < 0 || (size_t)len >= sizeof db->path)
        status = ph_fail(err, PH_ERR_LIMIT, "%.200s...: the store's path is too long", params->dir);
    db->statements = mem_calloc(count, sizeof *db->statements);
    if (status == PH_OK && !db->statements)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for a connection to the store");
    if (status == PH_OK)
        status = make_file(params, db->path, err);
    if (status == PH_OK) {
        int code = sqlite3_open_v2(db->path, &db->handle,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
        status = code == SQLITE_OK ? set_up(db, params, err) : fail(db, code, err);
    }
    if (status != PH_OK) {
        sqlite_close(&db->base);
        return status;
    }
    *out = &db->base;
    return PH_OK;
}

/* ---- Looking after the file */

static enum ph_status sqlite_purge(struct store_db *base, struct ph_err *err)
{
    struct sqlite_db *db = db_of(base);
    (void)sqlite3_busy_timeout(db->handle, PURGE_WAIT_MS); /* it is tried again */
    enum ph_status status = sqlite_exec(base, "VACUUM", err);
    int code = status == PH_OK
                   ? sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL)
                   : SQLITE_OK;
    if (code != SQLITE_OK)
        status = fail(db, code, err);
    (void)sqlite3_busy_timeout(db->handle, STORE_LOCK_WAIT_MS);
    return status;
}

static enum ph_status tell_rows(struct sqlite_db *db, const char *sql,
                                void (*fn)(void *ud, const char *finding), void *ud, struct ph_err *err)
{
    sqlite3_stmt *statement = NULL;
    end_current(db);
    int code = sqlite3_prepare_v2(db->handle, sql, -1, &statement, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(statement);
        const unsigned char *text = code == SQLITE_ROW ? sqlite3_column_text(statement, 0) : NULL;
        if (text && strcmp((const char *)text, "ok") != 0)
            fn(ud, (const char *)text);
    }
    enum ph_status status = code == SQLITE_DONE ? PH_OK : fail(db, code, err);
    sqlite3_finalize(statement);
    return status;
}

static enum ph_status sqlite_check(struct store_db *base, void (*fn)(void *ud, const char *finding), void *ud,
                                   struct ph_err *err)
{
    struct sqlite_db *db = db_of(base);
    enum ph_status status = tell_rows(db, "PRAGMA integrity_check", fn, ud, err);
    if (status == PH_OK)
        status = tell_rows(db,
                           "SELECT 'a row of ' || \"table\" || ' refers to a row of ' || parent || "
                           "' that is not there' FROM pragma_foreign_key_check",
                           fn, ud, err);
    return status;
}

static enum ph_status sqlite_file_bytes(struct store_db *base, int64_t *out, struct ph_err *err)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    struct sqlite_db *db = db_of(base);
    (void)err;
    *out = 0;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char path[PATH_BYTES_MAX + 8];
        struct file_stamp stamp;
        snprintf(path, sizeof path, "%s%s", db->path, suffixes[i]);
        file_stamp(path, &stamp);
        *out += (int64_t)stamp.bytes;
    }
    return PH_OK;
}

const struct store_driver store_driver_sqlite = {
    .name = "sqlite",
    .open = sqlite_open,
    .close = sqlite_close,
    .exec = sqlite_exec,
    .begin = sqlite_begin,
    .commit = sqlite_commit,
    .rollback = sqlite_rollback,
    .start = sqlite_start,
    .bind_int = sqlite_bind_int,
    .bind_text = sqlite_bind_text,
    .bind_blob = sqlite_bind_blob,
    .step = sqlite_step,
    .column_int = sqlite_column_int,
    .column_text = sqlite_column_text,
    .column_blob = sqlite_column_blob,
    .changes = sqlite_changes,
    .purge = sqlite_purge,
    .check = sqlite_check,
    .file_bytes = sqlite_file_bytes,
};
