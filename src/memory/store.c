/* Opening and closing a store: its connections, its schema, its writer's thread.
 *
 * Who owns what: the writer's connection is the writer's thread's; connections for reading are lent to
 * whoever reads, for the time of one call, and made as they are needed, up to readers_max. A connection that
 * failed is as good as new when it is taken next: drivers see to that. */
#include <inttypes.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "memory/store_int.h"

#define TRIES_MAX 8 /* of a schema's making that loses its server each time */

/* ---- Readers */

enum ph_status store_reader_take(struct store *store, struct store_conn **out, struct ph_err *err)
{
    uv_mutex_lock(&store->readers_mutex);
    while (!store->readers && store->readers_open == store->readers_max)
        uv_cond_wait(&store->readers_free, &store->readers_mutex);
    struct store_conn *conn = store->readers;
    if (conn)
        store->readers = conn->next;
    else
        store->readers_open++;
    uv_mutex_unlock(&store->readers_mutex);
    *out = conn;
    if (conn)
        return PH_OK;
    struct store_params params = store->params;
    params.must_exist = true;
    params.is_further = store->is_open;
    conn = mem_calloc(1, sizeof *conn);
    enum ph_status status = conn ? store->driver->open(&params, store_sql, STORE_SQL_COUNT, &conn->db, err)
                                 : ph_fail(err, PH_ERR_NOMEM, "no memory for a connection to the store");
    if (status == PH_OK) {
        *out = conn;
        return PH_OK;
    }
    mem_free(conn);
    uv_mutex_lock(&store->readers_mutex);
    store->readers_open--;
    uv_cond_signal(&store->readers_free);
    uv_mutex_unlock(&store->readers_mutex);
    return status;
}

void store_reader_put(struct store *store, struct store_conn *conn)
{
    if (!conn)
        return;
    conn->db->driver->rollback(conn->db); /* nothing stays open */
    uv_mutex_lock(&store->readers_mutex);
    conn->next = store->readers;
    store->readers = conn;
    uv_cond_signal(&store->readers_free);
    uv_mutex_unlock(&store->readers_mutex);
}

/* ---- Schema */

static enum ph_status read_state(struct store_db *db, struct store_state *state, struct ph_err *err)
{
    bool row;
    db->driver->start(db, STORE_SQL_STATE_READ);
    enum ph_status status = db->driver->step(db, &row, err);
    if (status == PH_OK && row)
        *state = (struct store_state){.schema = db->driver->column_int(db, 0),
                                      .number = db->driver->column_int(db, 1),
                                      .dictionary = db->driver->column_int(db, 2),
                                      .purge = db->driver->column_int(db, 3)};
    return status;
}

static enum ph_status migrate(struct store_db *db, struct store_state *state, struct ph_err *err)
{
    enum ph_status status = read_state(db, state, err);
    if (status == PH_OK && state->schema > STORE_SCHEMA)
        return ph_fail(err, PH_ERR_UNSUPPORTED,
                       "the store has schema %" PRId64 ", this program knows %d; use a newer one",
                       state->schema, STORE_SCHEMA);
    if (status != PH_OK || state->schema == STORE_SCHEMA)
        return status;
    for (int64_t version = state->schema; status == PH_OK && version < STORE_SCHEMA; version++)
        status = db->driver->exec(db, store_migrations[version], err);
    if (status != PH_OK)
        return status;
    db->driver->start(db, STORE_SQL_STATE_SCHEMA);
    db->driver->bind_int(db, STORE_SCHEMA);
    state->schema = STORE_SCHEMA;
    return db->driver->step(db, NULL, err);
}

/* All of it in one transaction, so that two processes that open a new store do not both make it. */
static enum ph_status set_up_schema(struct store_db *db, struct store_state *state, struct ph_err *err)
{
    enum ph_status status = db->driver->begin(db, STORE_DB_SCHEMA, err);
    if (status == PH_OK)
        status = db->driver->exec(db, store_schema_begin, err);
    db->driver->start(db, STORE_SQL_STATE_INSERT);
    if (status == PH_OK)
        status = db->driver->step(db, NULL, err);
    if (status == PH_OK)
        status = migrate(db, state, err);
    if (status == PH_OK)
        return db->driver->commit(db, err);
    db->driver->rollback(db);
    return status;
}

static enum ph_status check_schema(const struct store_state *state, struct ph_err *err)
{
    if (state->schema == STORE_SCHEMA)
        return PH_OK;
    return ph_fail(err, PH_ERR_UNSUPPORTED,
                   "the store has schema %" PRId64 ", this program needs %d; start the station once",
                   state->schema, STORE_SCHEMA);
}

/* ---- Opening */

static enum ph_status init_locks(struct store *store, struct ph_err *err)
{
    struct store_queue *queue = &store->queue;
    queue->last = &queue->first;
    if (uv_mutex_init(&queue->mutex) != 0 || uv_cond_init(&queue->filled) != 0 ||
        uv_cond_init(&queue->drained) != 0 || uv_mutex_init(&store->readers_mutex) != 0 ||
        uv_cond_init(&store->readers_free) != 0)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a lock");
    return store_codec_init(&store->codec, err);
}

static enum ph_status keep_params(struct store *store, const struct store_params *params, struct ph_err *err)
{
    store->params = *params;
    store->clock = params->clock;
    store->driver = params->postgres ? &store_driver_postgres : &store_driver_sqlite;
    store->readers_max = params->readers ? params->readers : STORE_READERS_DEFAULT;
    if (store->readers_max > STORE_READERS_MAX)
        store->readers_max = STORE_READERS_MAX;
    store->params.dir = mem_strdup(params->dir ? params->dir : "");
    store->params.postgres = params->postgres ? mem_strdup(params->postgres) : NULL;
    if (!store->params.dir || (params->postgres && !store->params.postgres))
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a store");
    return PH_OK;
}

static enum ph_status begin_writing(struct store *store, struct ph_err *err)
{
    struct store_writer *writer = &store->writer;
    int64_t trained_at = 0;
    enum ph_status status = PH_ERR_CANCELLED;
    for (int i = 0; status == PH_ERR_CANCELLED && i < TRIES_MAX; i++)
        status = set_up_schema(writer->db, &writer->state, err);
    if (status == PH_ERR_CANCELLED && err)
        err->code = PH_ERR_IO;
    if (status == PH_ERR_CANCELLED)
        status = PH_ERR_IO;
    if (status == PH_OK && writer->state.dictionary)
        status = store_dictionary_load(store, writer->db, writer->state.dictionary, err);
    if (status == PH_OK)
        status = store_query_int(writer->db, STORE_SQL_DICTIONARY_TRAINED_AT, &trained_at, err);
    writer->db->driver->rollback(writer->db); /* ends the statement */
    if (status != PH_OK)
        return status;
    atomic_store(&store->dictionary, writer->state.dictionary);
    writer->trained_at = trained_at;
    writer->train_at = store_train_next(trained_at);
    if (uv_thread_create(&store->writer_thread, store_writer_run, store) != 0)
        return ph_fail(err, PH_ERR_NOMEM, "no thread for the store's writer");
    store->writing = true;
    return PH_OK;
}

static enum ph_status begin_reading(struct store *store, struct ph_err *err)
{
    struct store_conn *conn = NULL;
    struct store_state state = {.schema = 0};
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status == PH_OK)
        status = read_state(conn->db, &state, err);
    store_reader_put(store, conn);
    if (status == PH_ERR_UNSUPPORTED) /* whoever began to make it was killed over that */
        return ph_fail(err, PH_ERR_NOTFOUND, "%s: there is no store here yet; start the station, or import",
                       store->params.dir);
    return status == PH_OK ? check_schema(&state, err) : status;
}

enum ph_status store_open(struct store **out, const struct store_params *params, struct ph_err *err)
{
    struct store *store = mem_calloc(1, sizeof *store);
    if (!store)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a store");
    enum ph_status status = init_locks(store, err);
    if (status != PH_OK) { /* nothing else is there yet */
        mem_free(store);
        return status;
    }
    store_writer_init(&store->writer, store);
    status = keep_params(store, params, err);
    if (status == PH_OK && params->read_only)
        status = begin_reading(store, err);
    else if (status == PH_OK) {
        status = store->driver->open(&store->params, store_sql, STORE_SQL_COUNT, &store->writer.db, err);
        if (status == PH_OK)
            status = begin_writing(store, err);
    }
    if (status != PH_OK) {
        store_close(store);
        return status;
    }
    store->is_open = true;
    *out = store;
    return PH_OK;
}

static void stop_writing(struct store *store)
{
    if (!store->writing)
        return;
    uv_mutex_lock(&store->queue.mutex);
    store->queue.closed = true;
    uv_cond_broadcast(&store->queue.filled);
    uv_cond_broadcast(&store->queue.drained);
    uv_mutex_unlock(&store->queue.mutex);
    uv_thread_join(&store->writer_thread);
}

void store_close(struct store *store)
{
    if (!store)
        return;
    stop_writing(store);
    for (struct store_conn *next, *conn = store->readers; conn; conn = next) {
        next = conn->next;
        conn->db->driver->close(conn->db);
        mem_free(conn);
    }
    store_writer_release(&store->writer); /* the last one: SQLite folds its log into the file then */
    store_codec_release(&store->codec);
    uv_cond_destroy(&store->readers_free);
    uv_mutex_destroy(&store->readers_mutex);
    uv_cond_destroy(&store->queue.drained);
    uv_cond_destroy(&store->queue.filled);
    uv_mutex_destroy(&store->queue.mutex);
    mem_free((char *)store->params.postgres);
    mem_free((char *)store->params.dir);
    mem_free(store);
}
