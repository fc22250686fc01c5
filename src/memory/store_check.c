/* stat and verify: the whole store walked through. verify reads one snapshot, so that what a station writes
 * meanwhile is no fault; stat reads what is there when it gets there. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "memory/store_int.h"

#define WALK_ROWS 512
#define ARENA_BYTES ((size_t)512 << 20)
#define FAULT_BYTES 512
#define PROGRESS_ROWS 8192

struct check {
    struct store *store;
    struct store_db *db;
    struct arena arena;
    struct store_stat *stat; /* NULL: verify, which unpacks every row */
    int64_t faults, done, total;
    void (*fn)(void *ud, const char *fault);
    void (*progress)(void *ud, int64_t done, int64_t total);
    void *ud;
    struct ph_err *err;
};

static void PH_PRINTF(2, 3) tell(struct check *check, const char *fmt, ...)
{
    char fault[FAULT_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(fault, sizeof fault, fmt, args);
    va_end(args);
    check->faults++;
    if (check->fn)
        check->fn(check->ud, fault);
}

static enum ph_status count(struct check *check, unsigned statement, int64_t *out)
{
    return store_query_int(check->db, statement, out, check->err);
}

/* ---- Rows of messages */

static enum ph_status check_row(struct check *check, struct store_row *row)
{
    struct ph_err why = {.code = PH_OK};
    if (check->stat) {
        check->stat->stored_bytes += (int64_t)row->body.len;
        check->stat->text_bytes += (int64_t)store_codec_unpacked(&row->body);
        return PH_OK;
    }
    enum ph_status status = store_row_unpack(check->store, check->db, &check->arena, row, &why);
    if (status == PH_ERR_FORMAT || status == PH_ERR_NOTFOUND)
        tell(check,
             "message %" PRId64 " of conversation %" PRId64 " can't be read (coding %" PRId64
             "): restore it from a backup, or delete the conversation",
             row->message.seq, row->message.conversation, row->body.coding);
    return status == PH_ERR_FORMAT || status == PH_ERR_NOTFOUND ? PH_OK : status;
}

static void show(struct check *check)
{
    if (check->progress && check->done % PROGRESS_ROWS < WALK_ROWS)
        check->progress(check->ud, check->done, check->total);
}

static enum ph_status walk_messages(struct check *check)
{
    struct store_db *db = check->db;
    int64_t conversation = -1, seq = -1;
    struct store_rows rows = {.count = 1};
    enum ph_status status = count(check, STORE_SQL_MESSAGES_COUNT, &check->total);
    while (status == PH_OK && rows.count) {
        arena_clear(&check->arena);
        rows = (struct store_rows){.items = NULL};
        db->driver->start(db, STORE_SQL_MESSAGES_WALK);
        db->driver->bind_int(db, conversation);
        db->driver->bind_int(db, seq);
        db->driver->bind_int(db, WALK_ROWS);
        status = store_rows_take(db, &check->arena, WALK_ROWS, true, &rows, check->err);
        for (size_t i = 0; status == PH_OK && i < rows.count; i++)
            status = check_row(check, &rows.items[i]);
        if (status != PH_OK || rows.count == 0)
            break;
        conversation = rows.items[rows.count - 1].message.conversation;
        seq = rows.items[rows.count - 1].message.seq;
        check->done += (int64_t)rows.count;
        show(check);
    }
    return status;
}

/* ---- stat */

enum ph_status store_stat(struct store *store, struct store_stat *out,
                          void (*progress)(void *ud, int64_t done, int64_t total), void *ud,
                          struct ph_err *err)
{
    struct store_conn *conn = NULL;
    *out = (struct store_stat){.backend = store->driver->name, .schema = STORE_SCHEMA};
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    struct check check = {
        .store = store, .db = conn->db, .stat = out, .progress = progress, .ud = ud, .err = err};
    const struct {
        unsigned statement;
        int64_t *value;
    } counts[] = {
        {STORE_SQL_USER_COUNT, &out->users},         {STORE_SQL_CONVERSATION_COUNT, &out->conversations},
        {STORE_SQL_RESPONSE_COUNT, &out->responses}, {STORE_SQL_FEEDBACK_COUNT, &out->feedback},
        {STORE_SQL_VECTOR_COUNT, &out->vectors},     {STORE_SQL_DICTIONARY_COUNT, &out->dictionaries}};
    for (size_t i = 0; status == PH_OK && i < sizeof counts / sizeof counts[0]; i++)
        status = count(&check, counts[i].statement, counts[i].value);
    arena_init(&check.arena, ARENA_BYTES);
    if (status == PH_OK)
        status = walk_messages(&check);
    out->messages = check.done;
    arena_release(&check.arena);
    if (status == PH_OK)
        status = conn->db->driver->file_bytes(conn->db, &out->file_bytes, err);
    store_reader_put(store, conn);
    return status;
}

/* ---- verify */

static void on_finding(void *ud, const char *finding)
{
    tell(ud, "the database says: %s; restore the store from a backup", finding);
}

/* Each row of the statement is a fault, told by its first two columns. */
static enum ph_status check_rows(struct check *check, unsigned statement, const char *fault)
{
    struct store_db *db = check->db;
    bool row = true;
    enum ph_status status = PH_OK;
    db->driver->start(db, statement);
    while ((status = db->driver->step(db, &row, check->err)) == PH_OK && row)
        tell(check, "%s (number %" PRId64 "); restore the store from a backup", fault,
             db->driver->column_int(db, 0));
    return status;
}

static enum ph_status check_numbers(struct check *check)
{
    int64_t last = 0;
    bool row = false;
    struct store_db *db = check->db;
    enum ph_status status = count(check, STORE_SQL_CHECK_NUMBERS, &last);
    db->driver->start(db, STORE_SQL_STATE_READ);
    if (status == PH_OK)
        status = db->driver->step(db, &row, check->err);
    if (status == PH_OK && (!row || db->driver->column_int(db, 1) < last))
        tell(check, "the store's own number is behind its messages (%" PRId64 "); restore it from a backup",
             last);
    return status;
}

static enum ph_status check_references(struct check *check)
{
    static const struct {
        unsigned statement;
        const char *fault;
    } rows[] = {
        {STORE_SQL_CHECK_COUNTS, "a conversation does not have the messages that it counts"},
        {STORE_SQL_CHECK_OWNERS, "a message is in no conversation of its user"},
        {STORE_SQL_CHECK_USERS, "a conversation belongs to nobody"},
        {STORE_SQL_CHECK_VECTORS, "a vector has no message"},
    };
    enum ph_status status = check_numbers(check);
    for (size_t i = 0; status == PH_OK && i < sizeof rows / sizeof rows[0]; i++)
        status = check_rows(check, rows[i].statement, rows[i].fault);
    return status;
}

enum ph_status store_verify(struct store *store, int64_t *faults, void (*fn)(void *ud, const char *fault),
                            void (*progress)(void *ud, int64_t done, int64_t total), void *ud,
                            struct ph_err *err)
{
    struct store_conn *conn = NULL;
    *faults = 0;
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    struct check check = {
        .store = store, .db = conn->db, .fn = fn, .progress = progress, .ud = ud, .err = err};
    arena_init(&check.arena, ARENA_BYTES);
    status = conn->db->driver->check(conn->db, on_finding, &check, err);
    if (status == PH_OK)
        status = conn->db->driver->begin(conn->db, STORE_DB_READ, err);
    if (status == PH_OK)
        status = walk_messages(&check);
    if (status == PH_OK)
        status = check_references(&check);
    conn->db->driver->rollback(conn->db);
    arena_release(&check.arena);
    store_reader_put(store, conn);
    *faults = check.faults;
    return status;
}
