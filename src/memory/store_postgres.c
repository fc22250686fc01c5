/* The store in a PostgreSQL database, in the schema `pharos`.
 *
 * P1. Who writes holds one advisory lock from the beginning of his transaction to its end: stations that
 *     share a database write one after the other, and the numbers that the transaction takes become visible
 *     in their order. PostgreSQL shows a transaction's rows before it gives its locks back, so whoever takes
 *     the next numbers, and whoever sees them, sees all smaller ones.
 * P2. Statements whose rows nobody wants are put off: they go out in one pipeline and are answered together,
 *     at the next statement whose rows are wanted or before the commit. A group of messages costs a few
 *     round trips instead of one for each.
 * P3. A transaction that writes begins with a mark: its number, in the row of this connection's own in the
 *     table `commits`. When the answer to its commit is lost, that row is looked at over a new connection
 *     that has first taken the lock of P1: by then the transaction has ended, and its mark is there or not.
 *     So a commit is kept or not, and never "not known", as long as the server comes back; what was not kept
 *     may be repeated. (The server's own txid_status does not do: after a crash it gives the ids anew that it
 *     had not written down, and tells of another's transaction that it was committed.)
 * P4. A statement of its own (reading) that finds its connection gone is sent again over a new one, as long
 *     as none of its rows was handed out.
 *
 * Values travel in binary, integers as 64 bits, so that every parameter's type is known from how it was bound
 * and no text form of bytes is ever made. Rows are taken from the wire one by one unless there is a pipeline.
 * The SQL is SQLite's (store_sql_int.h) with its few own words replaced: `words`. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "memory/store_postgres_int.h"

#define PARAMETERS_MAX 16
#define PIPELINE_MAX 256 /* their answers fit into the socket's buffers: neither side waits for the other */
#define TRIES_MAX 4      /* of a statement or a beginning that loses its connection each time */
#define SQL_BYTES_MAX 65536
#define RESOLVE_TRIES_MAX 20
#define LOCK "SELECT pg_advisory_xact_lock(1346912594, 1398034258)" /* "PHAR", "STOR" */
#define OID_INT8 20
#define OID_TEXT 25
#define OID_BYTEA 17

struct postgres_db {
    struct store_db base;
    struct pg_link link;
    const char *const *sql;
    size_t count;
    uint64_t *prepared; /* [count] the session in which each was prepared; 0: in none */

    bool open;                /* a transaction is, */
    enum store_db_mode mode;  /* of this kind, */
    uint64_t number;          /* the last one that wrote had this number, */
    enum ph_status broken;    /* what ended it before its rollback: the connection was lost */
    struct ph_err broken_err; /* in words */

    unsigned statement;
    bool started, sent; /* the current statement: begun, and handed to the server */
    int bound;
    uint64_t ints[PARAMETERS_MAX]; /* in the order of the wire */
    const char *values[PARAMETERS_MAX];
    int lengths[PARAMETERS_MAX], formats[PARAMETERS_MAX];
    Oid types[PARAMETERS_MAX];

    PGresult *result; /* rows at hand, */
    int row;          /* the one that is read, */
    bool streaming;   /* and more may come */
    int64_t changed;
    size_t pending; /* put off; above 0: the connection is in pipeline mode */
};

static struct postgres_db *db_of(struct store_db *db)
{
    return (struct postgres_db *)db;
}

/* ---- Words */

struct word {
    const char *sqlite, *postgres;
};
static const struct word words[] = {
    {"INTEGER", "BIGINT"},
    {"BLOB", "BYTEA"},
    {"TEXT", "TEXT COLLATE \"C\""}, /* compared by bytes; no index depends on the server's locale */
    {"WITHOUT", ""},
    {"ROWID", ""},
};

static const char *translation(const char *word, size_t len)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strlen(words[i].sqlite) == len && memcmp(words[i].sqlite, word, len) == 0)
            return words[i].postgres;
    return NULL;
}

/* No literal of ours holds a word or a question mark. */
static void translate(const char *sql, struct buf *out)
{
    while (*sql) {
        size_t len = 0;
        while (isalnum((unsigned char)sql[len]) || sql[len] == '_')
            len++;
        const char *other = len ? translation(sql, len) : NULL;
        if (other)
            buf_puts(out, other);
        else if (len)
            buf_append(out, sql, len);
        else
            buf_putc(out, *sql == '?' ? '$' : *sql);
        sql += len ? len : 1;
    }
}

/* ---- Failures */

/* Every failure of a statement goes through here: a lost connection ends the transaction. */
static enum ph_status fail(struct postgres_db *db, const PGresult *result, struct ph_err *err)
{
    bool lost = false;
    struct ph_err reason = {.code = PH_OK};
    enum ph_status status = pg_link_fail(&db->link, result, &lost, &reason);
    if (err)
        *err = reason;
    if (lost) {
        db->broken = status;
        db->broken_err = reason;
        pg_link_drop(&db->link);
        db->pending = 0;
        db->streaming = false;
    }
    return status;
}

/* Only what writes is tried again as a whole, by others: for who reads, a lost server is a failure. */
static enum ph_status told(bool writes, enum ph_status status, struct ph_err *err)
{
    if (status != PH_ERR_CANCELLED || writes)
        return status;
    if (err)
        err->code = PH_ERR_IO;
    return PH_ERR_IO;
}

static bool writes(const struct postgres_db *db)
{
    return db->open && db->mode != STORE_DB_READ;
}

static enum ph_status tell_broken(const struct postgres_db *db, struct ph_err *err)
{
    if (err)
        *err = db->broken_err;
    return db->broken;
}

static void clear_result(struct postgres_db *db)
{
    if (db->result)
        db->link.pq.PQclear(db->result);
    db->result = NULL;
}

/* ---- Pipeline */

/* Everything that was put off is answered; the last one's rows are kept when `rows` is set. */
static enum ph_status take_answers(struct postgres_db *db, bool rows, struct ph_err *err)
{
    const struct pq *pq = &db->link.pq;
    enum ph_status status = PH_OK;
    size_t answered = 0, count = db->pending;
    while (db->link.conn) {
        PGresult *result = pq->PQgetResult(db->link.conn);
        ExecStatusType kind = result ? pq->PQresultStatus(result) : PGRES_EMPTY_QUERY;
        bool over = kind == PGRES_PIPELINE_SYNC;
        if (!result && (++answered > count + 1 || pq->PQstatus(db->link.conn) == CONNECTION_BAD)) {
            if (status == PH_OK)
                status = fail(db, NULL, err);
            pg_link_drop(&db->link); /* no end in sight: not a state to go on in */
        } else if (kind == PGRES_FATAL_ERROR && status == PH_OK)
            status = fail(db, result, err);
        else if (kind == PGRES_TUPLES_OK || kind == PGRES_COMMAND_OK) {
            if (rows && answered + 1 == count) {
                db->result = result;
                result = NULL;
            }
        }
        pq->PQclear(result);
        if (over)
            break;
    }
    db->pending = 0;
    if (db->link.conn && !pq->PQexitPipelineMode(db->link.conn) && status == PH_OK)
        status = fail(db, NULL, err);
    if (status != PH_OK)
        clear_result(db);
    return status;
}

static enum ph_status flush(struct postgres_db *db, bool rows, struct ph_err *err)
{
    if (db->broken != PH_OK)
        return tell_broken(db, err);
    if (db->pending == 0)
        return PH_OK;
    if (!db->link.pq.PQpipelineSync(db->link.conn))
        return fail(db, NULL, err);
    return take_answers(db, rows, err);
}

/* ---- Statements */

static void end_current(struct postgres_db *db)
{
    clear_result(db);
    while (db->streaming && db->link.conn) {
        PGresult *result = db->link.pq.PQgetResult(db->link.conn);
        if (!result)
            break;
        db->link.pq.PQclear(result);
    }
    db->streaming = db->started = db->sent = false;
}

static void postgres_start(struct store_db *base, unsigned statement)
{
    struct postgres_db *db = db_of(base);
    end_current(db);
    db->statement = statement;
    db->started = true;
    db->bound = 0;
    db->changed = 0;
}

static void put_value(struct postgres_db *db, const void *bytes, size_t len, Oid type)
{
    if (db->bound < PARAMETERS_MAX) {
        db->values[db->bound] = bytes;
        db->lengths[db->bound] = (int)len;
        db->formats[db->bound] = 1;
        db->types[db->bound] = type;
    }
    db->bound++;
}

static uint64_t swap_to_wire(uint64_t value)
{
    unsigned char bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(value >> (56 - 8 * i));
    uint64_t out;
    memcpy(&out, bytes, sizeof out);
    return out;
}

static void postgres_bind_int(struct store_db *base, int64_t value)
{
    struct postgres_db *db = db_of(base);
    uint64_t *slot = &db->ints[db->bound < PARAMETERS_MAX ? db->bound : 0];
    *slot = swap_to_wire((uint64_t)value);
    put_value(db, slot, sizeof *slot, OID_INT8);
}

static void postgres_bind_text(struct store_db *base, const char *text, size_t len)
{
    put_value(db_of(base), text, len, OID_TEXT);
}

static void postgres_bind_blob(struct store_db *base, const void *bytes, size_t len)
{
    put_value(db_of(base), len ? bytes : "", len, OID_BYTEA);
}

static enum ph_status prepare(struct postgres_db *db, const char *name, struct ph_err *err)
{
    const struct pq *pq = &db->link.pq;
    struct buf text;
    if (db->prepared[db->statement] == db->link.sessions)
        return PH_OK;
    enum ph_status status = flush(db, false, err);
    if (status != PH_OK)
        return status;
    buf_init(&text, SQL_BYTES_MAX);
    translate(db->sql[db->statement], &text);
    status = buf_status(&text);
    if (status != PH_OK) {
        buf_release(&text);
        return ph_fail(err, status, "no memory for a statement of the store");
    }
    PGresult *result = pq->PQprepare(db->link.conn, name, text.data, db->bound, db->types);
    if (!result || pq->PQresultStatus(result) != PGRES_COMMAND_OK)
        status = fail(db, result, err);
    else
        db->prepared[db->statement] = db->link.sessions;
    pq->PQclear(result);
    buf_release(&text);
    return status;
}

/* Hands the current statement to the server: put off, or with its rows to follow. */
static enum ph_status hand_over(struct postgres_db *db, bool put_off, struct ph_err *err)
{
    const struct pq *pq = &db->link.pq;
    char name[24];
    if (db->broken != PH_OK)
        return tell_broken(db, err);
    if (!db->started || db->bound > PARAMETERS_MAX)
        return ph_fail(err, PH_ERR_INTERNAL,
                       "a statement of the store was not begun, or has too many values");
    snprintf(name, sizeof name, "s%u", db->statement);
    enum ph_status status = prepare(db, name, err);
    if (status != PH_OK)
        return status;
    if (put_off && db->pending == 0 && !pq->PQenterPipelineMode(db->link.conn))
        return fail(db, NULL, err);
    if (!pq->PQsendQueryPrepared(db->link.conn, name, db->bound, db->values, db->lengths, db->formats, 1))
        return fail(db, NULL, err);
    db->sent = true;
    db->row = -1;
    if (put_off || db->pending) {
        db->pending++;
        return put_off && db->pending < PIPELINE_MAX ? PH_OK : flush(db, !put_off, err);
    }
    (void)pq->PQsetSingleRowMode(db->link.conn);
    db->streaming = true;
    return PH_OK;
}

static void note_changed(struct postgres_db *db)
{
    const char *text = db->result ? db->link.pq.PQcmdTuples(db->result) : "";
    db->changed = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        db->changed = db->changed * 10 + (*text - '0');
}

static enum ph_status next_row(struct postgres_db *db, bool *row, struct ph_err *err)
{
    const struct pq *pq = &db->link.pq;
    for (;;) {
        if (db->result && ++db->row < pq->PQntuples(db->result)) {
            *row = true;
            return PH_OK;
        }
        if (!db->streaming) {
            if (db->result)
                note_changed(db);
            clear_result(db);
            return PH_OK;
        }
        PGresult *result = pq->PQgetResult(db->link.conn);
        if (!result) {
            db->streaming = false;
            if (pq->PQstatus(db->link.conn) == CONNECTION_BAD)
                return fail(db, NULL, err);
            continue;
        }
        clear_result(db);
        ExecStatusType kind = pq->PQresultStatus(result);
        if (kind != PGRES_SINGLE_TUPLE && kind != PGRES_TUPLES_OK && kind != PGRES_COMMAND_OK) {
            enum ph_status status = fail(db, result, err);
            pq->PQclear(result);
            end_current(db);
            return status;
        }
        db->result = result;
        db->row = -1;
    }
}

static enum ph_status first_row(struct postgres_db *db, bool *row, struct ph_err *err)
{
    enum ph_status status = hand_over(db, false, err);
    return status == PH_OK ? next_row(db, row, err) : status;
}

/* A statement of its own: over a new connection when the old one is gone (P4). */
static enum ph_status first_row_alone(struct postgres_db *db, bool *row, struct ph_err *err)
{
    enum ph_status status = PH_ERR_CANCELLED;
    bool reads = strncmp(db->sql[db->statement], "SELECT", 6) == 0;
    for (int i = 0; status == PH_ERR_CANCELLED && i < (reads ? TRIES_MAX : 1); i++) {
        db->broken = PH_OK;
        db->started = true;
        db->sent = false;
        status = pg_link_need(&db->link, err);
        if (status == PH_OK)
            status = first_row(db, row, err);
    }
    db->broken = PH_OK;
    return status;
}

static enum ph_status postgres_step(struct store_db *base, bool *row, struct ph_err *err)
{
    struct postgres_db *db = db_of(base);
    bool ignored = false, *to = row ? row : &ignored;
    *to = false;
    if (!row && writes(db))
        return hand_over(db, true, err);
    if (db->sent)
        return told(writes(db), db->broken == PH_OK ? next_row(db, to, err) : tell_broken(db, err), err);
    enum ph_status status = db->open ? first_row(db, to, err) : first_row_alone(db, to, err);
    while (status == PH_OK && !row && *to) { /* to its end */
        *to = false;
        status = next_row(db, to, err);
    }
    return told(writes(db), status, err);
}

/* ---- Columns */

static int64_t postgres_column_int(struct store_db *base, unsigned column)
{
    struct postgres_db *db = db_of(base);
    const struct pq *pq = &db->link.pq;
    if (!db->result || pq->PQgetisnull(db->result, db->row, (int)column))
        return 0;
    const unsigned char *bytes = (const unsigned char *)pq->PQgetvalue(db->result, db->row, (int)column);
    int len = pq->PQgetlength(db->result, db->row, (int)column);
    uint64_t value = len > 0 && bytes[0] & 0x80 ? UINT64_MAX : 0; /* of 2, 4 or 8 bytes, with its sign */
    for (int i = 0; i < len && i < 8; i++)
        value = value << 8 | bytes[i];
    return (int64_t)value;
}

static const char *postgres_column_text(struct store_db *base, unsigned column, size_t *len)
{
    struct postgres_db *db = db_of(base);
    const struct pq *pq = &db->link.pq;
    bool none = !db->result || pq->PQgetisnull(db->result, db->row, (int)column);
    if (len)
        *len = none ? 0 : (size_t)pq->PQgetlength(db->result, db->row, (int)column);
    return none ? "" : pq->PQgetvalue(db->result, db->row, (int)column);
}

static const void *postgres_column_blob(struct store_db *base, unsigned column, size_t *len)
{
    return postgres_column_text(base, column, len);
}

static int64_t postgres_changes(struct store_db *base)
{
    return db_of(base)->changed;
}

/* ---- Transactions */

static void postgres_rollback(struct store_db *base)
{
    struct postgres_db *db = db_of(base);
    end_current(db);
    if (db->pending)
        (void)flush(db, false, NULL);
    if (db->link.conn && db->link.pq.PQtransactionStatus(db->link.conn) != PQTRANS_IDLE &&
        pg_link_run(&db->link, "ROLLBACK", NULL, 0, NULL, NULL) != PH_OK)
        pg_link_drop(&db->link);
    db->open = false;
    db->broken = PH_OK;
}

static enum ph_status run(struct postgres_db *db, const char *sql, char *value, size_t len,
                          struct ph_err *err)
{
    bool lost = false;
    struct ph_err reason = {.code = PH_OK};
    enum ph_status status = pg_link_run(&db->link, sql, value, len, &lost, &reason);
    if (status != PH_OK && err)
        *err = reason;
    if (lost) {
        db->broken = status;
        db->broken_err = reason;
        pg_link_drop(&db->link);
    }
    return status;
}

/* The mark of P3. Rows of stations that were closed go when one is opened a day later. */
#define MARKS                                                                                       \
    "CREATE TABLE IF NOT EXISTS pharos.commits (station TEXT PRIMARY KEY, number BIGINT NOT NULL, " \
    "at TIMESTAMPTZ NOT NULL); DELETE FROM pharos.commits WHERE at < now() - interval '1 day'"
#define MARK                                                                                          \
    "INSERT INTO pharos.commits (station, number, at) VALUES ('%s', %" PRIu64 ", now()) ON CONFLICT " \
    "(station) DO UPDATE SET number = excluded.number, at = excluded.at"

#define BEGIN_WRITE "BEGIN ISOLATION LEVEL READ COMMITTED; " LOCK
#define BEGIN_READ "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

/* The name in the mark comes with the connection. */
static void begin_script(const struct postgres_db *db, enum store_db_mode mode, char *out, size_t len)
{
    if (mode == STORE_DB_WRITE)
        snprintf(out, len, BEGIN_WRITE "; " MARK, db->link.station, db->number);
    else
        snprintf(out, len, "%s", mode == STORE_DB_READ ? BEGIN_READ : BEGIN_WRITE);
}

static enum ph_status make_schema(struct postgres_db *db, struct ph_err *err)
{
    char there[8];
    enum ph_status status =
        run(db, "SELECT count(*) FROM pg_namespace WHERE nspname = 'pharos'", there, sizeof there, err);
    if (status == PH_OK && there[0] == '0')
        status = run(db, "CREATE SCHEMA pharos", NULL, 0, err);
    return status == PH_OK ? run(db, MARKS, NULL, 0, err) : status;
}

static enum ph_status postgres_begin(struct store_db *base, enum store_db_mode mode, struct ph_err *err)
{
    struct postgres_db *db = db_of(base);
    char script[640];
    db->number += mode == STORE_DB_WRITE;
    enum ph_status status = PH_ERR_CANCELLED;
    for (int i = 0; status == PH_ERR_CANCELLED && i < TRIES_MAX; i++) {
        postgres_rollback(base);
        status = pg_link_need(&db->link, err);
        begin_script(db, mode, script, sizeof script);
        if (status == PH_OK)
            status = run(db, script, NULL, 0, err);
    }
    if (status == PH_OK && mode == STORE_DB_SCHEMA)
        status = make_schema(db, err);
    if (status != PH_OK) {
        postgres_rollback(base);
        return told(mode != STORE_DB_READ, status, err);
    }
    db->open = true;
    db->mode = mode;
    return PH_OK;
}

static enum ph_status tell_not_kept(const struct postgres_db *db, struct ph_err *err)
{
    return ph_fail(err, PH_ERR_CANCELLED, "PostgreSQL at %s: the connection was lost before a commit",
                   db->link.place);
}

/* What became of the transaction whose commit was not answered (P3). PH_OK: it is kept. */
static enum ph_status resolve(struct postgres_db *db, struct ph_err *err)
{
    char sql[320], kept[8] = "";
    struct ph_err reason = {.code = PH_OK};
    if (db->mode == STORE_DB_SCHEMA) /* it may be repeated whether or not */
        return tell_not_kept(db, err);
    snprintf(sql, sizeof sql,
             "BEGIN; " LOCK
             "; SELECT count(*) FROM pharos.commits WHERE station = '%s' AND number = %" PRIu64,
             db->link.station, db->number);
    enum ph_status status = PH_ERR_CANCELLED;
    for (int i = 0; status != PH_OK && status != PH_ERR_TIMEOUT && i < RESOLVE_TRIES_MAX; i++) {
        postgres_rollback(&db->base);
        status = pg_link_need(&db->link, &reason);
        if (status == PH_OK)
            status = run(db, sql, kept, sizeof kept, &reason);
    }
    postgres_rollback(&db->base);
    if (status == PH_OK)
        return kept[0] == '1' ? PH_OK : tell_not_kept(db, err);
    return ph_fail(err, PH_ERR_TIMEOUT, "%s; the connection was lost during a commit, which may be kept",
                   reason.message);
}

static enum ph_status postgres_commit(struct store_db *base, struct ph_err *err)
{
    struct postgres_db *db = db_of(base);
    char tag[16] = "";
    end_current(db);
    enum ph_status status = flush(db, false, err);
    if (status != PH_OK) {
        postgres_rollback(base);
        return status;
    }
    const struct pq *pq = &db->link.pq;
    PGresult *result = pq->PQexec(db->link.conn, "COMMIT");
    if (result && pq->PQresultStatus(result) == PGRES_COMMAND_OK)
        snprintf(tag, sizeof tag, "%s", pq->PQcmdStatus(result));
    else
        status = fail(db, result, err);
    pq->PQclear(result);
    bool unknown = db->broken != PH_OK;
    postgres_rollback(base);
    if (unknown && db->mode != STORE_DB_READ)
        return resolve(db, err);
    if (status == PH_OK && strcmp(tag, "COMMIT") != 0)
        status =
            ph_fail(err, PH_ERR_IO, "PostgreSQL at %s: the transaction had failed before", db->link.place);
    return status;
}

static enum ph_status postgres_exec(struct store_db *base, const char *script, struct ph_err *err)
{
    struct postgres_db *db = db_of(base);
    struct buf text;
    end_current(db);
    enum ph_status status = flush(db, false, err);
    if (status != PH_OK)
        return status;
    buf_init(&text, SQL_BYTES_MAX);
    translate(script, &text);
    status = buf_status(&text);
    if (status == PH_OK)
        status = run(db, text.data ? text.data : "", NULL, 0, err);
    else
        status = ph_fail(err, status, "no memory for a script of the store");
    buf_release(&text);
    return status;
}

/* ---- Opening */

static void postgres_close(struct store_db *base)
{
    struct postgres_db *db = db_of(base);
    if (!db)
        return;
    end_current(db);
    pg_link_release(&db->link);
    mem_free(db->prepared);
    mem_free(db);
}

static enum ph_status look_for_store(struct postgres_db *db, struct ph_err *err)
{
    char count[24];
    enum ph_status status = run(db,
                                "SELECT count(*) FROM pg_class c JOIN pg_namespace n "
                                "ON n.oid = c.relnamespace WHERE n.nspname = 'pharos' AND c.relkind = 'r'",
                                count, sizeof count, err);
    if (status == PH_OK && strcmp(count, "0") == 0)
        return ph_fail(err, PH_ERR_NOTFOUND,
                       "PostgreSQL at %s: there is no store here; `pharos serve` or `pharos store import` "
                       "makes one",
                       db->link.place);
    return status;
}

static enum ph_status postgres_open(const struct store_params *params, const char *const *sql, size_t count,
                                    struct store_db **out, struct ph_err *err)
{
    struct postgres_db *db = mem_calloc(1, sizeof *db);
    if (!db)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a connection to the store");
    db->base.driver = &store_driver_postgres;
    db->sql = sql;
    db->count = count;
    db->prepared = mem_calloc(count, sizeof *db->prepared);
    enum ph_status status =
        db->prepared ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for a connection to the store");
    if (status == PH_OK)
        status = pg_link_init(&db->link, params, err);
    if (status == PH_OK && params->is_further)
        status = pg_link_need(&db->link, err);
    else if (status == PH_OK)
        status = pg_link_open(&db->link, err);
    if (status == PH_OK && params->must_exist && !params->is_further)
        status = look_for_store(db, err);
    if (status != PH_OK) {
        postgres_close(&db->base);
        return told(false, status, err);
    }
    *out = &db->base;
    return PH_OK;
}

/* ---- Looking after the tables */

/* A query of its own, asked again over a new connection when the old one is gone (P4). */
static enum ph_status query(struct postgres_db *db, const char *sql, PGresult **out, struct ph_err *err)
{
    const struct pq *pq = &db->link.pq;
    enum ph_status status = PH_ERR_CANCELLED;
    for (int i = 0; status == PH_ERR_CANCELLED && i < TRIES_MAX; i++) {
        bool lost = false;
        status = pg_link_need(&db->link, err);
        if (status != PH_OK)
            break;
        *out = pq->PQexec(db->link.conn, sql);
        if (*out && pq->PQresultStatus(*out) == PGRES_TUPLES_OK)
            break;
        status = pg_link_fail(&db->link, *out, &lost, err);
        pq->PQclear(*out);
        *out = NULL;
        if (lost)
            pg_link_drop(&db->link);
    }
    return status;
}

/* The texts of a query's first column, each handed to fn; outside a transaction. */
static enum ph_status each_text(struct postgres_db *db, const char *sql,
                                enum ph_status (*fn)(void *ud, const char *text, struct ph_err *err),
                                void *ud, struct ph_err *err)
{
    const struct pq *pq = &db->link.pq;
    PGresult *result = NULL;
    enum ph_status status = query(db, sql, &result, err);
    for (int i = 0; status == PH_OK && i < pq->PQntuples(result); i++)
        status = fn(ud, pq->PQgetvalue(result, i, 0), err);
    pq->PQclear(result);
    return told(false, status, err);
}

static enum ph_status rewrite_table(void *ud, const char *name, struct ph_err *err)
{
    struct postgres_db *db = ud;
    char sql[256];
    snprintf(sql, sizeof sql, "VACUUM (FULL, ANALYZE) pharos.%s", name); /* quoted by the server */
    return run(db, sql, NULL, 0, err);
}

/* A rewritten table still holds what an older transaction of somebody may see, so there must be none. */
static enum ph_status postgres_purge(struct store_db *base, struct ph_err *err)
{
    struct postgres_db *db = db_of(base);
    char others[24] = "";
    postgres_rollback(base);
    enum ph_status status = pg_link_need(&db->link, err);
    if (status == PH_OK)
        status = run(db,
                     "SET lock_timeout = 500; SELECT count(*) FROM pg_stat_activity WHERE "
                     "datname = current_database() AND pid <> pg_backend_pid() AND "
                     "backend_xmin IS NOT NULL",
                     others, sizeof others, err);
    if (status == PH_OK && strcmp(others, "0") != 0)
        status = ph_fail(err, PH_ERR_BUSY, "PostgreSQL at %s: somebody reads an older state", db->link.place);
    if (status == PH_OK)
        status = each_text(db, "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'pharos'",
                           rewrite_table, db, err);
    if (db->link.conn) {
        char restore[64];
        snprintf(restore, sizeof restore, "SET lock_timeout = %d", STORE_LOCK_WAIT_MS);
        if (run(db, restore, NULL, 0, NULL) != PH_OK)
            pg_link_drop(&db->link);
    }
    db->broken = PH_OK;
    return status;
}

struct finding_reader {
    void (*fn)(void *ud, const char *finding);
    void *ud;
};

static enum ph_status tell_finding(void *ud, const char *text, struct ph_err *err)
{
    const struct finding_reader *reader = ud;
    (void)err;
    reader->fn(reader->ud, text);
    return PH_OK;
}

/* PostgreSQL keeps its references itself; what it can say about its files without more rights is this. */
static enum ph_status postgres_check(struct store_db *base, void (*fn)(void *ud, const char *finding),
                                     void *ud, struct ph_err *err)
{
    static const char *const questions[] = {
        "SELECT 'the index ' || c.relname || ' is not valid; REINDEX makes it anew' FROM pg_index i "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'pharos' AND NOT (i.indisvalid AND i.indisready)",
        "SELECT 'the reference ' || conname || ' was never checked' FROM pg_constraint k "
        "JOIN pg_namespace n ON n.oid = k.connamespace WHERE n.nspname = 'pharos' AND NOT k.convalidated",
        "SELECT checksum_failures || ' pages of the database have wrong checksums; restore a backup' "
        "FROM pg_stat_database WHERE datname = current_database() AND checksum_failures > 0",
    };
    struct postgres_db *db = db_of(base);
    struct finding_reader reader = {fn, ud};
    enum ph_status status = PH_OK;
    end_current(db);
    for (size_t i = 0; status == PH_OK && i < sizeof questions / sizeof questions[0]; i++)
        status = each_text(db, questions[i], tell_finding, &reader, err);
    return status;
}

static enum ph_status add_number(void *ud, const char *text, struct ph_err *err)
{
    int64_t *sum = ud;
    int64_t value = 0;
    (void)err;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (*text - '0');
    *sum += value;
    return PH_OK;
}

static enum ph_status postgres_file_bytes(struct store_db *base, int64_t *out, struct ph_err *err)
{
    end_current(db_of(base));
    *out = 0;
    return each_text(db_of(base),
                     "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n "
                     "ON n.oid = c.relnamespace WHERE n.nspname = 'pharos' AND c.relkind = 'r'",
                     add_number, out, err);
}

const struct store_driver store_driver_postgres = {
    .name = "postgres",
    .open = postgres_open,
    .close = postgres_close,
    .exec = postgres_exec,
    .begin = postgres_begin,
    .commit = postgres_commit,
    .rollback = postgres_rollback,
    .start = postgres_start,
    .bind_int = postgres_bind_int,
    .bind_text = postgres_bind_text,
    .bind_blob = postgres_bind_blob,
    .step = postgres_step,
    .column_int = postgres_column_int,
    .column_text = postgres_column_text,
    .column_blob = postgres_column_blob,
    .changes = postgres_changes,
    .purge = postgres_purge,
    .check = postgres_check,
    .file_bytes = postgres_file_bytes,
};
