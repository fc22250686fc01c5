/* Reading: blocking calls on connections lent for their time.
 *
 * A statement is stepped to its end (or to a page's) before anything is unpacked: unpacking may need a
 * dictionary that another process has trained since, and reading that is a statement of its own. One that was
 * retired in between has gone with all its rows, so a read that misses a dictionary reads its rows again. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "memory/store_int.h"

#define READ_TRIES 5
#define PAGE_ROWS 500
#define PAGE_ARENA_BYTES ((size_t)512 << 20)
#define ROWS_FIRST 16
#define ID_ROOM 24 /* "msg_" and a number */

static enum ph_status no_memory(struct ph_err *err)
{
    return ph_fail(err, PH_ERR_NOMEM, "what was read from the store is larger than the memory for it");
}

/* ---- Statements, in short */

static void put_text(struct store_db *db, const char *text)
{
    db->driver->bind_text(db, text, strlen(text));
}

enum ph_status store_query_int(struct store_db *db, unsigned statement, int64_t *out, struct ph_err *err)
{
    bool row;
    db->driver->start(db, statement);
    enum ph_status status = db->driver->step(db, &row, err);
    *out = status == PH_OK && row ? db->driver->column_int(db, 0) : 0;
    return status;
}

enum ph_status store_dictionary_load(struct store *store, struct store_db *db, int64_t dictionary,
                                     struct ph_err *err)
{
    bool row = false;
    if (store_codec_has(&store->codec, dictionary))
        return PH_OK;
    db->driver->start(db, STORE_SQL_DICTIONARY_FIND);
    db->driver->bind_int(db, dictionary);
    enum ph_status status = db->driver->step(db, &row, err);
    if (status != PH_OK)
        return status;
    if (!row)
        return ph_fail(err, PH_ERR_NOTFOUND, "the store's dictionary %" PRId64 " is missing", dictionary);
    size_t len;
    const void *bytes = db->driver->column_blob(db, 0, &len);
    return store_codec_add(&store->codec, dictionary, bytes, len, err);
}

/* ---- Rows of messages */

static enum ph_status grow_rows(struct arena *arena, struct store_rows *rows, struct ph_err *err)
{
    size_t room = rows->room ? rows->room * 2 : ROWS_FIRST;
    struct store_row *items = arena_alloc(arena, room * sizeof *items);
    if (!items)
        return no_memory(err);
    if (rows->count)
        memcpy(items, rows->items, rows->count * sizeof *items);
    rows->items = items;
    rows->room = room;
    return PH_OK;
}

static const char *take_id(struct store_db *db, struct arena *arena, unsigned column, int64_t seq)
{
    size_t len;
    const char *id = db->driver->column_text(db, column, &len);
    char *made = len ? arena_strndup(arena, id, len) : arena_alloc(arena, ID_ROOM);
    if (made && len == 0)
        snprintf(made, ID_ROOM, "msg_%" PRId64, seq);
    return made;
}

static enum ph_status take_row(struct store_db *db, struct arena *arena, bool owner, struct store_row *row,
                               struct ph_err *err)
{
    const struct store_driver *driver = db->driver;
    *row = (struct store_row){.message = {.number = driver->column_int(db, 0),
                                          .conversation = driver->column_int(db, 1),
                                          .seq = driver->column_int(db, 2),
                                          .tokens = driver->column_int(db, 4),
                                          .created_ms = driver->column_int(db, 5)},
                              .body = {.coding = driver->column_int(db, 6)},
                              .owner = owner ? driver->column_int(db, 8) : 0};
    const void *bytes = driver->column_blob(db, 7, &row->body.len);
    char *kept = arena_alloc(arena, row->body.len + 1);
    row->message.id = take_id(db, arena, 3, row->message.seq);
    if (!kept || !row->message.id)
        return no_memory(err);
    memcpy(kept, bytes, row->body.len);
    row->body.bytes = kept;
    return PH_OK;
}

enum ph_status store_rows_take(struct store_db *db, struct arena *arena, size_t max, bool owner,
                               struct store_rows *rows, struct ph_err *err)
{
    bool row = true;
    enum ph_status status = PH_OK;
    rows->whole = false;
    while (rows->count < max && rows->bytes < STORE_PAGE_BYTES) {
        status = db->driver->step(db, &row, err);
        if (status != PH_OK || !row)
            break;
        if (rows->count == rows->room)
            status = grow_rows(arena, rows, err);
        if (status == PH_OK)
            status = take_row(db, arena, owner, &rows->items[rows->count], err);
        if (status != PH_OK)
            break;
        rows->bytes += rows->items[rows->count++].body.len;
    }
    rows->whole = status == PH_OK && !row;
    return status;
}

enum ph_status store_row_unpack(struct store *store, struct store_db *db, struct arena *arena,
                                struct store_row *row, struct ph_err *err)
{
    const char *bytes;
    size_t len;
    enum ph_status status = store_dictionary_load(store, db, row->body.coding, err);
    if (status == PH_OK)
        status = store_codec_unpack(&store->codec, arena, &row->body, &bytes, &len, err);
    if (status == PH_OK && !store_message_split(bytes, len, &row->message))
        status = ph_fail(err, PH_ERR_FORMAT,
                         "message %" PRId64 " in conversation %" PRId64
                         " is damaged; `pharos store verify` says more",
                         row->message.seq, row->message.conversation);
    return status;
}

/* One way to ask for messages: which statement, and its parameters but for the last, the limit. */
struct question {
    unsigned statement;
    int64_t values[3];
    size_t count;
};

static enum ph_status ask_once(struct store *store, struct store_db *db, struct arena *arena,
                               const struct question *question, size_t limit, struct store_rows *rows,
                               struct ph_err *err)
{
    *rows = (struct store_rows){.items = NULL};
    db->driver->start(db, question->statement);
    for (size_t i = 0; i < question->count; i++)
        db->driver->bind_int(db, question->values[i]);
    db->driver->bind_int(db, limit > INT64_MAX / 2 ? INT64_MAX : (int64_t)limit);
    enum ph_status status = store_rows_take(db, arena, limit, false, rows, err);
    for (size_t i = 0; status == PH_OK && i < rows->count; i++)
        status = store_row_unpack(store, db, arena, &rows->items[i], err);
    return status;
}

static enum ph_status ask(struct store *store, struct arena *arena, const struct question *question,
                          size_t limit, struct store_rows *rows, struct ph_err *err)
{
    struct store_conn *conn = NULL;
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    status = PH_ERR_NOTFOUND;
    for (size_t i = 0; status == PH_ERR_NOTFOUND && i < READ_TRIES; i++)
        status = ask_once(store, conn->db, arena, question, limit, rows, err);
    store_reader_put(store, conn);
    return status == PH_ERR_NOTFOUND ? ph_fail(err, PH_ERR_FORMAT,
                                               "a dictionary of the store is missing; `pharos store verify` "
                                               "says which")
                                     : status;
}

/* ---- Messages */

static enum ph_status add_messages(struct arena *arena, const struct store_rows *rows,
                                   struct store_messages *out, size_t *room, struct ph_err *err)
{
    if (out->count + rows->count > *room) {
        size_t wanted = (out->count + rows->count) * (out->count ? 2 : 1);
        struct store_message *items = arena_alloc(arena, wanted * sizeof *items);
        if (!items)
            return no_memory(err);
        if (out->count)
            memcpy(items, out->items, out->count * sizeof *items);
        out->items = items;
        *room = wanted;
    }
    for (size_t i = 0; i < rows->count; i++)
        out->items[out->count++] = rows->items[i].message;
    return PH_OK;
}

enum ph_status store_read_messages(struct store *store, struct arena *arena, const struct store_range *range,
                                   struct store_messages *out, struct ph_err *err)
{
    struct question question = {
        range->newest_first ? STORE_SQL_MESSAGES_RANGE_BACK : STORE_SQL_MESSAGES_RANGE,
        {range->conversation, range->from_seq, range->to_seq ? range->to_seq : INT64_MAX},
        3};
    size_t limit = range->limit ? range->limit : SIZE_MAX, room = 0;
    enum ph_status status = PH_OK;
    bool whole = false;
    *out = (struct store_messages){.items = NULL};
    while (status == PH_OK && !whole && out->count < limit) {
        struct store_rows rows;
        size_t wanted = limit - out->count;
        status = ask(store, arena, &question, wanted == SIZE_MAX ? wanted : wanted + 1, &rows, err);
        if (status != PH_OK)
            break;
        whole = rows.whole;
        if (rows.count > wanted) { /* the one more than was asked for */
            rows.count = wanted;
            out->more = true;
        }
        if (rows.count == 0)
            break;
        question.values[range->newest_first ? 2 : 1] =
            rows.items[rows.count - 1].message.seq + (range->newest_first ? 0 : 1);
        status = add_messages(arena, &rows, out, &room, err);
    }
    return status;
}

static enum ph_status find_seq(struct store *store, int64_t conversation, const char *id, int64_t *seq,
                               struct ph_err *err)
{
    struct store_conn *conn = NULL;
    bool row = false;
    int64_t place = 0;
    bool by_place = store_place_of(id, &place);
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    struct store_db *db = conn->db;
    db->driver->start(db, by_place ? STORE_SQL_MESSAGE_SEQ_BY_PLACE : STORE_SQL_MESSAGE_SEQ_BY_ID);
    db->driver->bind_int(db, conversation);
    if (by_place)
        db->driver->bind_int(db, place);
    else
        put_text(db, id);
    status = db->driver->step(db, &row, err);
    if (status == PH_OK && row)
        *seq = db->driver->column_int(db, 0);
    store_reader_put(store, conn);
    return status == PH_OK && !row ? ph_fail(err, PH_ERR_NOTFOUND, "there is no message %s", id) : status;
}

enum ph_status store_find_message(struct store *store, struct arena *arena, int64_t conversation,
                                  const char *id, struct store_message *out, struct ph_err *err)
{
    int64_t seq = 0;
    struct store_messages found;
    enum ph_status status = find_seq(store, conversation, id, &seq, err);
    if (status != PH_OK)
        return status;
    struct store_range range = {.conversation = conversation, .from_seq = seq, .to_seq = seq + 1};
    status = store_read_messages(store, arena, &range, &found, err);
    if (status == PH_OK && found.count == 0)
        return ph_fail(err, PH_ERR_NOTFOUND, "there is no message %s", id);
    if (status == PH_OK)
        *out = found.items[0];
    return status;
}

/* Each message is a statement of its own, or all are a transaction, because to begin one costs as much as to
 * read a message. */
static enum ph_status read_numbers_once(struct store *store, struct store_db *db, struct arena *arena,
                                        int64_t user, const int64_t *numbers, size_t count, bool together,
                                        struct store_messages *out, struct ph_err *err)
{
    struct store_rows rows = {.items = NULL};
    enum ph_status status = together ? db->driver->begin(db, STORE_DB_READ, err) : PH_OK;
    for (size_t i = 0; status == PH_OK && i < count; i++) {
        rows.count = rows.bytes = 0;
        db->driver->start(db, STORE_SQL_MESSAGE_BY_NUMBER);
        db->driver->bind_int(db, user);
        db->driver->bind_int(db, numbers[i]);
        status = store_rows_take(db, arena, 1, false, &rows, err);
        if (status == PH_OK && rows.count)
            status = store_row_unpack(store, db, arena, &rows.items[0], err);
        out->items[i] =
            status == PH_OK && rows.count ? rows.items[0].message : (struct store_message){.seq = 0};
    }
    if (together)
        db->driver->rollback(db);
    return status;
}

enum ph_status store_read_numbers(struct store *store, struct arena *arena, int64_t user,
                                  const int64_t *numbers, size_t count, struct store_messages *out,
                                  struct ph_err *err)
{
    struct store_conn *conn = NULL;
    *out = (struct store_messages){.items = arena_calloc(arena, count, sizeof *out->items), .count = count};
    if (!out->items)
        return no_memory(err);
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    /* From the second time on one by one: so a connection that was lost is waited for. */
    for (size_t i = 0; i < READ_TRIES; i++) {
        status =
            read_numbers_once(store, conn->db, arena, user, numbers, count, i == 0 && count > 1, out, err);
        if (status == PH_OK || (i > 0 && status != PH_ERR_NOTFOUND))
            break;
    }
    store_reader_put(store, conn);
    return status;
}

enum ph_status store_each_message(struct store *store, int64_t user, int64_t after,
                                  enum ph_status (*fn)(void *ud, const struct store_message *message),
                                  void *ud, struct ph_err *err)
{
    struct question question = {STORE_SQL_MESSAGES_AFTER, {user, after}, 2};
    struct store_rows rows = {.whole = false};
    struct arena arena;
    enum ph_status status = PH_OK;
    arena_init(&arena, PAGE_ARENA_BYTES);
    while (status == PH_OK && !rows.whole) {
        arena_clear(&arena);
        status = ask(store, &arena, &question, PAGE_ROWS, &rows, err);
        if (status != PH_OK || rows.count == 0)
            break;
        for (size_t i = 0; status == PH_OK && i < rows.count; i++)
            status = fn(ud, &rows.items[i].message);
        question.values[1] = rows.items[rows.count - 1].message.number;
    }
    arena_release(&arena);
    return status;
}
