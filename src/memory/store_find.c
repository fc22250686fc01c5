/* Reading what is not messages: users, conversations, responses, feedback, vectors. */
#include <inttypes.h>
#include <string.h>

#include "memory/store_int.h"

#define WALK_ARENA_BYTES ((size_t)512 << 20)
#define WALK_ROWS 256

static enum ph_status no_memory(struct ph_err *err)
{
    return ph_fail(err, PH_ERR_NOMEM, "what was read from the store is larger than the memory for it");
}

static void put_text(struct store_db *db, const char *text)
{
    db->driver->bind_text(db, text, strlen(text));
}

/* NULL: out of memory. */
static const char *take_text(struct store_db *db, struct arena *arena, unsigned column)
{
    size_t len;
    const char *text = db->driver->column_text(db, column, &len);
    return arena_strndup(arena, text, len);
}

/* ---- Users */

static enum ph_status take_user(struct store_db *db, struct arena *arena, struct store_user *out,
                                struct ph_err *err)
{
    int64_t (*column)(struct store_db *, unsigned) = db->driver->column_int;
    *out = (struct store_user){.number = column(db, 0),
                               .name = take_text(db, arena, 1),
                               .created_ms = column(db, 2),
                               .deletions = column(db, 3),
                               .last_message = column(db, 4)};
    return out->name ? PH_OK : no_memory(err);
}

enum ph_status store_find_user(struct store *store, struct arena *arena, const char *name,
                               struct store_user *out, struct ph_err *err)
{
    struct store_conn *conn = NULL;
    bool row = false;
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    conn->db->driver->start(conn->db, STORE_SQL_USER_FIND);
    put_text(conn->db, name);
    status = conn->db->driver->step(conn->db, &row, err);
    if (status == PH_OK && row)
        status = take_user(conn->db, arena, out, err);
    store_reader_put(store, conn);
    return status == PH_OK && !row ? ph_fail(err, PH_ERR_NOTFOUND, "there is no user %s", name) : status;
}

static size_t clamp_limit(size_t limit)
{
    return limit == 0 || limit > STORE_PAGE_MAX ? STORE_PAGE_MAX : limit;
}

enum ph_status store_list_users(struct store *store, struct arena *arena, int64_t after, size_t limit,
                                struct store_users *out, struct ph_err *err)
{
    struct store_conn *conn = NULL;
    bool row = true;
    limit = clamp_limit(limit);
    *out = (struct store_users){.items = arena_calloc(arena, limit, sizeof *out->items)};
    if (!out->items)
        return no_memory(err);
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    conn->db->driver->start(conn->db, STORE_SQL_USER_LIST);
    conn->db->driver->bind_int(conn->db, after);
    conn->db->driver->bind_int(conn->db, (int64_t)limit + 1);
    while (status == PH_OK) {
        status = conn->db->driver->step(conn->db, &row, err);
        out->more = status == PH_OK && row && out->count == limit;
        if (status != PH_OK || !row || out->more)
            break;
        status = take_user(conn->db, arena, &out->items[out->count++], err);
    }
    store_reader_put(store, conn);
    return status;
}

/* ---- Conversations */

static enum ph_status take_conversation(struct store_db *db, struct arena *arena,
                                        struct store_conversation *out, struct ph_err *err)
{
    int64_t (*column)(struct store_db *, unsigned) = db->driver->column_int;
    *out = (struct store_conversation){.number = column(db, 0),
                                       .user = column(db, 1),
                                       .user_name = take_text(db, arena, 2),
                                       .key = take_text(db, arena, 3),
                                       .domain = take_text(db, arena, 4),
                                       .metadata = take_text(db, arena, 5),
                                       .created_ms = column(db, 6),
                                       .updated_ms = column(db, 7),
                                       .next_seq = column(db, 8),
                                       .messages = column(db, 9),
                                       .last_message = column(db, 10)};
    return out->user_name && out->key && out->domain && out->metadata ? PH_OK : no_memory(err);
}

enum ph_status store_find_conversation(struct store *store, struct arena *arena, const char *user,
                                       const char *key, struct store_conversation *out, struct ph_err *err)
{
    struct store_conn *conn = NULL;
    bool row = false, second = false;
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    struct store_db *db = conn->db;
    db->driver->start(db, user ? STORE_SQL_CONVERSATION_FIND : STORE_SQL_CONVERSATION_FIND_ANY);
    put_text(db, key);
    if (user)
        put_text(db, user);
    status = db->driver->step(db, &row, err);
    if (status == PH_OK && row)
        status = take_conversation(db, arena, out, err);
    if (status == PH_OK && row)
        status = db->driver->step(db, &second, err);
    store_reader_put(store, conn);
    if (status == PH_OK && second)
        return ph_fail(err, PH_ERR_ARG, "several users have a conversation %s; name the user, too", key);
    return status == PH_OK && !row ? ph_fail(err, PH_ERR_NOTFOUND, "there is no conversation %s", key)
                                   : status;
}

enum ph_status store_find_owned(struct store *store, const char *user, const char *id, int64_t *conversation,
                                struct ph_err *err)
{
    struct store_conn *conn = NULL;
    bool row = false;
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    conn->db->driver->start(conn->db, STORE_SQL_MESSAGE_OWNED);
    put_text(conn->db, user);
    put_text(conn->db, id);
    status = conn->db->driver->step(conn->db, &row, err);
    if (status == PH_OK && row)
        *conversation = conn->db->driver->column_int(conn->db, 0);
    store_reader_put(store, conn);
    return status == PH_OK && !row ? ph_fail(err, PH_ERR_NOTFOUND, "there is no message %s", id) : status;
}

static unsigned page_statement(const struct store_filter *filter)
{
    static const unsigned statements[2][2][2] = {
        {{STORE_SQL_PAGE_ANY, STORE_SQL_PAGE_ANY_UP}, {STORE_SQL_PAGE_DOMAIN, STORE_SQL_PAGE_DOMAIN_UP}},
        {{STORE_SQL_PAGE_OWNER, STORE_SQL_PAGE_OWNER_UP}, {STORE_SQL_PAGE_BOTH, STORE_SQL_PAGE_BOTH_UP}}};
    bool domain = filter->domain && filter->domain[0];
    if (filter->by_number)
        return STORE_SQL_PAGE_NUMBER;
    return statements[filter->user != NULL][domain][filter->oldest_first];
}

static void start_page(struct store_db *db, const struct store_filter *filter, int64_t owner, size_t limit)
{
    int64_t edge = filter->by_number ? 0 : filter->oldest_first ? INT64_MIN : INT64_MAX;
    db->driver->start(db, page_statement(filter));
    db->driver->bind_int(db, owner);
    put_text(db, filter->domain ? filter->domain : "");
    db->driver->bind_int(db, filter->from_ms ? filter->from_ms : INT64_MIN);
    db->driver->bind_int(db, filter->to_ms ? filter->to_ms : INT64_MAX);
    db->driver->bind_int(db, filter->after_number && !filter->by_number ? filter->after_ms : edge);
    db->driver->bind_int(db, filter->after_number ? filter->after_number : edge);
    db->driver->bind_int(db, (int64_t)limit + 1);
}

static enum ph_status find_owner(struct store_db *db, const char *user, int64_t *owner, struct ph_err *err)
{
    bool row = false;
    db->driver->start(db, STORE_SQL_USER_NUMBER);
    put_text(db, user);
    enum ph_status status = db->driver->step(db, &row, err);
    *owner = status == PH_OK && row ? db->driver->column_int(db, 0) : 0;
    return status;
}

enum ph_status store_list_conversations(struct store *store, struct arena *arena,
                                        const struct store_filter *filter, struct store_conversations *out,
                                        struct ph_err *err)
{
    struct store_conn *conn = NULL;
    int64_t owner = 0;
    bool row = true;
    size_t limit = clamp_limit(filter->limit);
    *out = (struct store_conversations){.items = arena_calloc(arena, limit, sizeof *out->items)};
    if (!out->items)
        return no_memory(err);
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status == PH_OK && filter->user)
        status = find_owner(conn->db, filter->user, &owner, err);
    if (status != PH_OK || (filter->user && !owner)) {
        store_reader_put(store, conn);
        return status;
    }
    start_page(conn->db, filter, owner, limit);
    while (status == PH_OK) {
        status = conn->db->driver->step(conn->db, &row, err);
        out->more = status == PH_OK && row && out->count == limit;
        if (status != PH_OK || !row || out->more)
            break;
        status = take_conversation(conn->db, arena, &out->items[out->count++], err);
    }
    store_reader_put(store, conn);
    return status;
}

/* ---- Responses */

static enum ph_status take_response(struct store *store, struct store_db *db, struct arena *arena,
                                    struct store_response *out, struct ph_err *err)
{
    int64_t (*column)(struct store_db *, unsigned) = db->driver->column_int;
    struct store_body body = {.coding = column(db, 6)};
    *out = (struct store_response){.id = take_text(db, arena, 0),
                                   .user = column(db, 1),
                                   .conversation = column(db, 2),
                                   .end_seq = column(db, 3),
                                   .previous = take_text(db, arena, 4),
                                   .created_ms = column(db, 5)};
    if (!out->id || !out->previous)
        return no_memory(err);
    body.bytes = db->driver->column_blob(db, 7, &body.len);
    return store_codec_unpack(&store->codec, arena, &body, &out->json, &out->json_len, err);
}

enum ph_status store_find_response(struct store *store, struct arena *arena, const char *user, const char *id,
                                   struct store_response *out, struct ph_err *err)
{
    struct store_conn *conn = NULL;
    bool row = false;
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    conn->db->driver->start(conn->db, STORE_SQL_RESPONSE_FIND);
    put_text(conn->db, user);
    put_text(conn->db, id);
    status = conn->db->driver->step(conn->db, &row, err);
    if (status == PH_OK && row)
        status = take_response(store, conn->db, arena, out, err);
    store_reader_put(store, conn);
    return status == PH_OK && !row ? ph_fail(err, PH_ERR_NOTFOUND, "there is no response %s", id) : status;
}

/* ---- Walks. One page is read, its connection given back, then its rows are handed out. */

struct walk {
    unsigned statement;
    int64_t values[3]; /* parameters before the limit; the last of them is where to go on from */
    size_t count;
    size_t item_size;
    enum ph_status (*take)(struct store_db *db, struct arena *arena, void *item, int64_t *position,
                           struct ph_err *err);
    enum ph_status (*give)(void *ud, const void *item);
    void *ud;
};

static enum ph_status read_page(struct store *store, struct arena *arena, struct walk *walk, char *items,
                                size_t *count, struct ph_err *err)
{
    struct store_conn *conn = NULL;
    bool row = true;
    size_t bytes_before = arena->bytes;
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    conn->db->driver->start(conn->db, walk->statement);
    for (size_t i = 0; i < walk->count; i++)
        conn->db->driver->bind_int(conn->db, walk->values[i]);
    conn->db->driver->bind_int(conn->db, WALK_ROWS);
    for (*count = 0;
         status == PH_OK && *count < WALK_ROWS && arena->bytes - bytes_before < STORE_PAGE_BYTES;) {
        status = conn->db->driver->step(conn->db, &row, err);
        if (status != PH_OK || !row)
            break;
        status = walk->take(conn->db, arena, items + *count * walk->item_size, &walk->values[walk->count - 1],
                            err);
        ++*count;
    }
    store_reader_put(store, conn);
    return status;
}

static enum ph_status run_walk(struct store *store, struct walk *walk, struct ph_err *err)
{
    struct arena arena;
    enum ph_status status = PH_OK;
    size_t count = 1;
    arena_init(&arena, WALK_ARENA_BYTES);
    while (status == PH_OK && count) {
        arena_clear(&arena);
        char *items = arena_calloc(&arena, WALK_ROWS, walk->item_size);
        status = items ? read_page(store, &arena, walk, items, &count, err) : no_memory(err);
        for (size_t i = 0; status == PH_OK && i < count; i++)
            status = walk->give(walk->ud, items + i * walk->item_size);
    }
    arena_release(&arena);
    return status;
}

/* ---- Feedback */

struct feedback_reader {
    enum ph_status (*fn)(void *ud, const struct store_feedback *feedback);
    void *ud;
};

static enum ph_status take_feedback(struct store_db *db, struct arena *arena, void *item, int64_t *position,
                                    struct ph_err *err)
{
    struct store_feedback *out = item;
    int64_t (*column)(struct store_db *, unsigned) = db->driver->column_int;
    *out = (struct store_feedback){.user = column(db, 1),
                                   .response = take_text(db, arena, 2),
                                   .score = (double)column(db, 3) / 1e6,
                                   .note = take_text(db, arena, 4),
                                   .created_ms = column(db, 5)};
    *position = column(db, 0);
    return out->response && out->note ? PH_OK : no_memory(err);
}

static enum ph_status give_feedback(void *ud, const void *item)
{
    const struct feedback_reader *reader = ud;
    return reader->fn(reader->ud, item);
}

enum ph_status store_each_feedback(struct store *store,
                                   enum ph_status (*fn)(void *ud, const struct store_feedback *feedback),
                                   void *ud, struct ph_err *err)
{
    struct feedback_reader reader = {fn, ud};
    struct walk walk = {.statement = STORE_SQL_FEEDBACK_AFTER,
                        .count = 1,
                        .item_size = sizeof(struct store_feedback),
                        .take = take_feedback,
                        .give = give_feedback,
                        .ud = &reader};
    return run_walk(store, &walk, err);
}

/* ---- Vectors */

static enum ph_status find_space(struct store *store, const char *space, int64_t *out, struct ph_err *err)
{
    struct store_conn *conn = NULL;
    bool row = false;
    enum ph_status status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    conn->db->driver->start(conn->db, STORE_SQL_SPACE_NUMBER);
    put_text(conn->db, space);
    status = conn->db->driver->step(conn->db, &row, err);
    *out = status == PH_OK && row ? conn->db->driver->column_int(conn->db, 0) : 0;
    store_reader_put(store, conn);
    return status;
}

struct vector_reader {
    enum ph_status (*fn)(void *ud, const struct store_vector *vector);
    void *ud;
};

static enum ph_status take_vector(struct store_db *db, struct arena *arena, void *item, int64_t *position,
                                  struct ph_err *err)
{
    struct store_vector *out = item;
    const void *bytes = db->driver->column_blob(db, 1, &out->len);
    void *kept = arena_alloc(arena, out->len);
    if (!kept)
        return no_memory(err);
    memcpy(kept, bytes, out->len);
    out->bytes = kept;
    out->message = *position = db->driver->column_int(db, 0);
    return PH_OK;
}

static enum ph_status give_vector(void *ud, const void *item)
{
    const struct vector_reader *reader = ud;
    return reader->fn(reader->ud, item);
}

enum ph_status store_each_vector(struct store *store, int64_t user, const char *space, int64_t after,
                                 enum ph_status (*fn)(void *ud, const struct store_vector *vector), void *ud,
                                 struct ph_err *err)
{
    struct vector_reader reader = {fn, ud};
    struct walk walk = {.statement = STORE_SQL_VECTORS_AFTER,
                        .values = {user, 0, after},
                        .count = 3,
                        .item_size = sizeof(struct store_vector),
                        .take = take_vector,
                        .give = give_vector,
                        .ud = &reader};
    enum ph_status status = find_space(store, space, &walk.values[1], err);
    return status == PH_OK && walk.values[1] ? run_walk(store, &walk, err) : status;
}

enum ph_status store_count_vectors(struct store *store, int64_t user, const char *space, int64_t *count,
                                   int64_t *last, struct ph_err *err)
{
    struct store_conn *conn = NULL;
    int64_t number = 0;
    bool row = false;
    *count = *last = 0;
    enum ph_status status = find_space(store, space, &number, err);
    if (status == PH_OK)
        status = store_reader_take(store, &conn, err);
    if (status != PH_OK)
        return status;
    conn->db->driver->start(conn->db, STORE_SQL_VECTORS_LAST);
    conn->db->driver->bind_int(conn->db, user);
    conn->db->driver->bind_int(conn->db, number);
    status = conn->db->driver->step(conn->db, &row, err);
    if (status == PH_OK && row) {
        *count = conn->db->driver->column_int(conn->db, 0);
        *last = conn->db->driver->column_int(conn->db, 1);
    }
    store_reader_put(store, conn);
    return status;
}
