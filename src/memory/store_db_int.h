/* Below the store's logic: one connection to a database that speaks SQL, behind a table of functions. The
 * logic is written once, above it; a driver (store_sqlite.c, store_postgres.c) knows no table by name.
 *
 * Statements are known by number (store_sql_int.h), prepared once a connection, when first needed. Their text
 * is written so that SQLite takes it as it is: parameters ?1, ?2, ... in order of binding; types INTEGER (64
 * bits), TEXT, BLOB; tables may be WITHOUT ROWID. Another driver translates those words, or brings its own
 * text for a statement.
 *
 * A connection has one current statement:
 *
 *     db->start(db, STORE_SQL_X);            ends what was current
 *     db->bind_int(db, 7); db->bind_text(db, "a", 1);        in order; bytes must live until the next start
 *     while ((status = db->step(db, &row, err)) == PH_OK && row)
 *         db->column_int(db, 0) ...          valid until the next step or start
 *
 * A failed bind is told by the next step. Statuses: PH_ERR_IO the disk or the server (full, gone, refused);
 * PH_ERR_BUSY another process holds the lock for longer than STORE_LOCK_WAIT_MS; PH_ERR_FORMAT the database
 * is damaged; PH_ERR_CONFLICT a constraint; PH_ERR_NOMEM; PH_ERR_CANCELLED the server was lost, or others
 * were in the way: nothing of the transaction is kept, and it may be tried again; PH_ERR_TIMEOUT no server
 * could be reached for a while. Errors say what failed in the database's words, and nothing that was bound.
 * Thread: one at a time. */
#ifndef PHAROS_MEMORY_STORE_DB_INT_H
#define PHAROS_MEMORY_STORE_DB_INT_H

#include "memory/store.h"

enum store_db_mode {
    STORE_DB_READ,  /* a snapshot: all statements see the same state */
    STORE_DB_WRITE, /* sees what was committed before it began; others who write wait */
    STORE_DB_SCHEMA /* the same, when there may be no table yet */
};

/* The first member of each driver's connection. */
struct store_db {
    const struct store_driver *driver;
};

struct store_driver {
    const char *name; /* store_stat's `backend` */

    /* `sql` [count]: the statements' text, by number; lives longer than the connection. PH_ERR_NOTFOUND:
     * params->must_exist and there is none. */
    enum ph_status (*open)(const struct store_params *params, const char *const *sql, size_t count,
                           struct store_db **out, struct ph_err *err);
    void (*close)(struct store_db *db);

    /* Statements without parameters and results, separated by ';'. */
    enum ph_status (*exec)(struct store_db *db, const char *script, struct ph_err *err);

    /* A connection that was lost is made anew here; one lost since fails every call until the rollback. */
    enum ph_status (*begin)(struct store_db *db, enum store_db_mode mode, struct ph_err *err);
    /* PH_OK: durable. PH_ERR_CANCELLED: it is not kept. Else the transaction is over, and whether it was kept
     * is not known. */
    enum ph_status (*commit)(struct store_db *db, struct ph_err *err);
    void (*rollback)(struct store_db *db); /* none open: fine */

    void (*start)(struct store_db *db, unsigned statement);
    void (*bind_int)(struct store_db *db, int64_t value);
    void (*bind_text)(struct store_db *db, const char *text, size_t len); /* UTF-8 without 0; NULL: NULL */
    void (*bind_blob)(struct store_db *db, const void *bytes, size_t len);
    /* `row` NULL: no rows are wanted, and inside a transaction the statement may be put off, its failure told
     * as late as by the commit. Outside a transaction a statement is one of its own. */
    enum ph_status (*step)(struct store_db *db, bool *row, struct ph_err *err);
    int64_t (*column_int)(struct store_db *db, unsigned column);                   /* NULL: 0 */
    const char *(*column_text)(struct store_db *db, unsigned column, size_t *len); /* terminated; NULL: "" */
    const void *(*column_blob)(struct store_db *db, unsigned column, size_t *len);
    int64_t (*changes)(struct store_db *db); /* rows that the last statement changed, stepped with a `row` */

    /* What was deleted is gone from the files, too. Outside a transaction. PH_ERR_BUSY: somebody reads an
     * older state, try again later. */
    enum ph_status (*purge)(struct store_db *db, struct ph_err *err);
    /* The database's own check of its files and references, each finding told in its words. */
    enum ph_status (*check)(struct store_db *db, void (*fn)(void *ud, const char *finding), void *ud,
                            struct ph_err *err);
    enum ph_status (*file_bytes)(struct store_db *db, int64_t *out, struct ph_err *err);
};

extern const struct store_driver store_driver_sqlite;
extern const struct store_driver store_driver_postgres;

#endif
