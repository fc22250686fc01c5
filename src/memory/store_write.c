/* What each kind of write does, inside the writer's transaction. A job that can't be done (a conversation
 * that is not there, others who were first) is found out before anything of it is written, so that the
 * transaction goes on with the next one; what fails later costs the transaction, whose jobs are then tried
 * one by one. Every kind may be repeated without harm.
 *
 * A user's deletion takes his rows here; the dictionaries that hold pieces of his texts are retired, their
 * rows are rewritten and the file is purged afterwards (store_train.c), and only then is the job done. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "memory/store_int.h"

/* ---- Statements, in short */

static void start(struct store_writer *writer, unsigned statement)
{
    writer->db->driver->start(writer->db, statement);
}

static void put_int(struct store_writer *writer, int64_t value)
{
    writer->db->driver->bind_int(writer->db, value);
}

static void put_text(struct store_writer *writer, const char *text)
{
    writer->db->driver->bind_text(writer->db, text, text ? strlen(text) : 0);
}

static void put_blob(struct store_writer *writer, const void *bytes, size_t len)
{
    writer->db->driver->bind_blob(writer->db, bytes, len);
}

static enum ph_status run(struct store_writer *writer, struct ph_err *err)
{
    return writer->db->driver->step(writer->db, NULL, err);
}

/* The same, counting the rows that it changes. */
static enum ph_status run_counting(struct store_writer *writer, size_t *count, struct ph_err *err)
{
    bool row;
    enum ph_status status = writer->db->driver->step(writer->db, &row, err);
    if (status == PH_OK)
        *count += (size_t)writer->db->driver->changes(writer->db);
    return status;
}

/* The first row's first column; 0: no row. */
static enum ph_status ask(struct store_writer *writer, int64_t *out, bool *found, struct ph_err *err)
{
    enum ph_status status = writer->db->driver->step(writer->db, found, err);
    *out = status == PH_OK && *found ? writer->db->driver->column_int(writer->db, 0) : 0;
    return status;
}

static enum ph_status run_for(struct store_writer *writer, unsigned statement, int64_t number,
                              struct ph_err *err)
{
    start(writer, statement);
    put_int(writer, number);
    return run(writer, err);
}

/* The job's outcome, which leaves the transaction as it was. */
static enum ph_status refuse(struct store_job *job, enum ph_status status, const char *what, const char *name)
{
    job->status = ph_fail(&job->err, status, what, name);
    return PH_OK;
}

/* ---- State */

enum ph_status store_state_lock(struct store_writer *writer, struct ph_err *err)
{
    bool row;
    start(writer, STORE_SQL_STATE_LOCK);
    enum ph_status status = writer->db->driver->step(writer->db, &row, err);
    if (status == PH_OK && !row)
        status = ph_fail(err, PH_ERR_FORMAT, "the store has lost its state; restore it from a backup");
    if (status != PH_OK)
        return status;
    int64_t (*column)(struct store_db *, unsigned) = writer->db->driver->column_int;
    writer->state = (struct store_state){.schema = column(writer->db, 0),
                                         .number = column(writer->db, 1),
                                         .dictionary = column(writer->db, 2),
                                         .purge = column(writer->db, 3)};
    if (writer->state.schema > STORE_SCHEMA)
        return ph_fail(err, PH_ERR_UNSUPPORTED,
                       "a newer program has changed the store meanwhile (schema %" PRId64
                       "); restart with it",
                       writer->state.schema);
    return PH_OK;
}

enum ph_status store_state_write(struct store_writer *writer, struct ph_err *err)
{
    start(writer, STORE_SQL_STATE_WRITE);
    put_int(writer, writer->state.number);
    put_int(writer, writer->state.dictionary);
    put_int(writer, writer->state.purge);
    return run(writer, err);
}

/* ---- Users and conversations */

static enum ph_status find_user(struct store_writer *writer, const char *name, int64_t *out,
                                struct ph_err *err)
{
    bool found;
    start(writer, STORE_SQL_USER_NUMBER);
    put_text(writer, name);
    return ask(writer, out, &found, err);
}

static enum ph_status need_user(struct store_writer *writer, struct store_job *job, const char *name,
                                struct ph_err *err)
{
    enum ph_status status = find_user(writer, name, &job->result.user, err);
    if (status != PH_OK || job->result.user)
        return status;
    job->result.user = ++writer->state.number;
    job->result.new_user = true;
    start(writer, STORE_SQL_USER_INSERT);
    put_int(writer, job->result.user);
    put_text(writer, name);
    put_int(writer, clock_unix_ms(writer->store->clock));
    return run(writer, err);
}

/* Fills the result's user, conversation and next_seq; conversation 0: it is not there. */
static enum ph_status find_conversation(struct store_writer *writer, struct store_job *job, const char *user,
                                        const char *key, struct ph_err *err)
{
    bool found = false;
    enum ph_status status = find_user(writer, user, &job->result.user, err);
    if (status != PH_OK || !job->result.user)
        return status;
    start(writer, STORE_SQL_CONVERSATION_STATE);
    put_text(writer, key);
    put_int(writer, job->result.user);
    status = ask(writer, &job->result.conversation, &found, err);
    if (status == PH_OK && found)
        job->result.next_seq = writer->db->driver->column_int(writer->db, 1);
    return status;
}

static enum ph_status make_conversation(struct store_writer *writer, struct store_job *job,
                                        struct ph_err *err)
{
    const struct store_append *append = &job->write.u.append;
    int64_t created = append->count ? append->messages[0].created_ms : clock_unix_ms(writer->store->clock);
    enum ph_status status = job->result.user ? PH_OK : need_user(writer, job, append->user, err);
    if (status != PH_OK)
        return status;
    job->result.conversation = ++writer->state.number;
    job->result.new_conversation = true;
    start(writer, STORE_SQL_CONVERSATION_INSERT);
    put_int(writer, job->result.conversation);
    put_int(writer, job->result.user);
    put_text(writer, append->key);
    put_text(writer, append->domain);
    put_text(writer, append->metadata);
    put_int(writer, created);
    put_int(writer, created);
    return run(writer, err);
}

static enum ph_status bump_user(struct store_writer *writer, int64_t user, struct ph_err *err)
{
    return run_for(writer, STORE_SQL_USER_BUMP, user, err);
}

/* ---- Append */

/* Whether the conversation has the append's message i already. */
static enum ph_status is_present(struct store_writer *writer, const struct store_job *job, size_t i,
                                 bool *present, struct ph_err *err)
{
    const struct store_append *append = &job->write.u.append;
    const char *id = append->messages[i].id;
    int64_t place = 0, ignored;
    *present = false;
    if (job->result.next_seq == 0)
        return PH_OK;
    if (!id || store_place_of(id, &place)) { /* deleted ones were there, too */
        *present = id                           ? place < job->result.next_seq
                   : append->at == STORE_AT_END ? false
                                                : append->at + (int64_t)i < job->result.next_seq;
        return PH_OK;
    }
    start(writer, STORE_SQL_MESSAGE_SEQ_BY_ID);
    put_int(writer, job->result.conversation);
    put_text(writer, id);
    return ask(writer, &ignored, present, err);
}

/* The body as this transaction's dictionary packs it: the one that it was packed with may be retired. */
static enum ph_status current_body(struct store_writer *writer, struct store_job *job,
                                   struct store_body *body, struct ph_err *err)
{
    struct store_codec *codec = &writer->store->codec;
    const char *bytes;
    size_t len;
    if (body->coding <= 0 || body->coding == writer->state.dictionary)
        return PH_OK;
    enum ph_status status = store_codec_unpack(codec, &job->arena, body, &bytes, &len, err);
    return status == PH_OK
               ? store_codec_pack(codec, &job->arena, writer->state.dictionary, bytes, len, body, err)
               : status;
}

static enum ph_status insert_message(struct store_writer *writer, struct store_job *job, size_t i,
                                     struct ph_err *err)
{
    const struct store_message *message = &job->write.u.append.messages[i];
    struct store_body *body = &job->bodies[i];
    struct store_result *result = &job->result;
    enum ph_status status = current_body(writer, job, body, err);
    if (status != PH_OK)
        return status;
    int64_t place, number = ++writer->state.number;
    bool by_place = store_place_of(message->id, &place);
    if (by_place && place != result->next_seq)
        return ph_fail(err, PH_ERR_CONFLICT, "message id %s is the store's own, of another place",
                       message->id);
    if (result->added++ == 0) {
        result->first_number = number;
        result->first_seq = result->next_seq;
    }
    start(writer, STORE_SQL_MESSAGE_INSERT);
    put_int(writer, result->conversation);
    put_int(writer, result->next_seq++);
    put_int(writer, result->user);
    put_int(writer, number);
    put_text(writer, by_place ? NULL : message->id);
    put_int(writer, message->tokens);
    put_int(writer, message->created_ms);
    put_int(writer, body->coding);
    put_blob(writer, body->bytes, body->len);
    return run(writer, err);
}

static enum ph_status grow_conversation(struct store_writer *writer, const struct store_job *job,
                                        struct ph_err *err)
{
    const struct store_append *append = &job->write.u.append;
    int64_t updated = append->messages[0].created_ms;
    for (size_t i = 1; i < append->count; i++)
        if (append->messages[i].created_ms > updated)
            updated = append->messages[i].created_ms;
    start(writer, STORE_SQL_CONVERSATION_GROW);
    put_int(writer, job->result.conversation);
    put_int(writer, job->result.next_seq);
    put_int(writer, (int64_t)job->result.added);
    put_int(writer, writer->state.number);
    put_int(writer, updated);
    return run(writer, err);
}

static enum ph_status put_response(struct store_writer *writer, const struct store_job *job,
                                   const struct store_response *response, struct ph_err *err)
{
    start(writer, STORE_SQL_RESPONSE_PUT);
    put_int(writer, job->result.user);
    put_text(writer, response->id);
    put_int(writer, job->write.kind == STORE_APPEND ? job->result.conversation : response->conversation);
    put_int(writer, job->write.kind == STORE_APPEND ? job->result.next_seq : response->end_seq);
    put_text(writer, response->previous);
    put_int(writer, response->created_ms);
    put_int(writer, job->response_body.coding);
    put_blob(writer, job->response_body.bytes, job->response_body.len);
    return run(writer, err);
}

/* Finds the first message that is new, and whether it may go to the conversation's end. */
static enum ph_status look(struct store_writer *writer, struct store_job *job, size_t *first_new,
                           struct ph_err *err)
{
    const struct store_append *append = &job->write.u.append;
    bool present = true;
    enum ph_status status = PH_OK;
    size_t i = 0;
    for (; status == PH_OK && i < append->count; i++) {
        status = is_present(writer, job, i, &present, err);
        if (!present)
            break;
    }
    *first_new = i;
    if (status != PH_OK || i == append->count)
        return status;
    if (append->at != STORE_AT_END && append->at + (int64_t)i != job->result.next_seq)
        return refuse(job, PH_ERR_CONFLICT, "conversation %s does not end where the messages begin",
                      append->key);
    return PH_OK;
}

static enum ph_status append_messages(struct store_writer *writer, struct store_job *job, size_t first_new,
                                      struct ph_err *err)
{
    const struct store_append *append = &job->write.u.append;
    enum ph_status status = PH_OK;
    job->result.present = first_new;
    job->result.first_seq = append->at == STORE_AT_END ? job->result.next_seq : append->at;
    for (size_t i = first_new; status == PH_OK && i < append->count; i++) {
        bool present = false;
        if (i > first_new)
            status = is_present(writer, job, i, &present, err);
        if (status == PH_OK && present)
            job->result.present++;
        else if (status == PH_OK)
            status = insert_message(writer, job, i, err);
    }
    if (status == PH_OK && job->result.added)
        status = grow_conversation(writer, job, err);
    if (status == PH_OK && append->response)
        status = put_response(writer, job, append->response, err);
    return status;
}

static enum ph_status apply_append(struct store_writer *writer, struct store_job *job, struct ph_err *err)
{
    const struct store_append *append = &job->write.u.append;
    size_t first_new = 0;
    enum ph_status status = find_conversation(writer, job, append->user, append->key, err);
    if (status != PH_OK)
        return status;
    if (!job->result.conversation && append->must_exist)
        return refuse(job, PH_ERR_NOTFOUND, "there is no conversation %s", append->key);
    status = look(writer, job, &first_new, err);
    if (status == PH_OK && job->status == PH_OK && !job->result.conversation)
        status = make_conversation(writer, job, err);
    if (status != PH_OK || job->status != PH_OK)
        return status;
    return append_messages(writer, job, first_new, err);
}

/* ---- Other kinds */

static enum ph_status apply_update(struct store_writer *writer, struct store_job *job, struct ph_err *err)
{
    const struct store_update *update = &job->write.u.update;
    enum ph_status status = find_conversation(writer, job, update->user, update->key, err);
    if (status != PH_OK)
        return status;
    if (!job->result.conversation)
        return refuse(job, PH_ERR_NOTFOUND, "there is no conversation %s", update->key);
    const char *values[] = {update->metadata, update->domain};
    static const unsigned statements[] = {STORE_SQL_CONVERSATION_METADATA, STORE_SQL_CONVERSATION_DOMAIN};
    for (size_t i = 0; status == PH_OK && i < 2; i++)
        if (values[i]) {
            start(writer, statements[i]);
            put_int(writer, job->result.conversation);
            put_text(writer, values[i]);
            status = run(writer, err);
        }
    return status;
}

static enum ph_status apply_respond(struct store_writer *writer, struct store_job *job, struct ph_err *err)
{
    enum ph_status status = need_user(writer, job, job->write.user, err);
    return status == PH_OK ? put_response(writer, job, &job->write.u.response, err) : status;
}

static enum ph_status apply_feedback(struct store_writer *writer, struct store_job *job, struct ph_err *err)
{
    const struct store_feedback *feedback = &job->write.u.feedback;
    enum ph_status status = need_user(writer, job, job->write.user, err);
    if (status != PH_OK)
        return status;
    double millionths = feedback->score * 1e6;
    start(writer, STORE_SQL_FEEDBACK_PUT);
    put_int(writer, ++writer->state.number);
    put_int(writer, job->result.user);
    put_text(writer, feedback->response);
    put_int(writer, (int64_t)(millionths < 0 ? millionths - 0.5 : millionths + 0.5));
    put_text(writer, feedback->note);
    put_int(writer, feedback->created_ms);
    return run(writer, err);
}

static enum ph_status need_space(struct store_writer *writer, const char *name, int64_t *space,
                                 struct ph_err *err)
{
    bool found;
    start(writer, STORE_SQL_SPACE_NUMBER);
    put_text(writer, name);
    enum ph_status status = ask(writer, space, &found, err);
    if (status != PH_OK || found)
        return status;
    *space = ++writer->state.number;
    start(writer, STORE_SQL_SPACE_INSERT);
    put_int(writer, *space);
    put_text(writer, name);
    return run(writer, err);
}

static enum ph_status apply_embed(struct store_writer *writer, struct store_job *job, struct ph_err *err)
{
    const struct store_embeddings *embeddings = &job->write.u.embeddings;
    int64_t space = 0;
    enum ph_status status = need_space(writer, embeddings->space, &space, err);
    job->result.user = embeddings->user;
    for (size_t i = 0; status == PH_OK && i < embeddings->count; i++) {
        start(writer, STORE_SQL_VECTOR_PUT);
        put_int(writer, embeddings->user);
        put_int(writer, space);
        put_int(writer, embeddings->items[i].message);
        put_blob(writer, embeddings->items[i].bytes, embeddings->items[i].len);
        status = run_counting(writer, &job->result.added, err);
    }
    return status;
}

/* ---- Deleting */

static enum ph_status apply_delete_user(struct store_writer *writer, struct store_job *job,
                                        struct ph_err *err)
{
    static const unsigned rows[] = {STORE_SQL_VECTORS_DELETE_USER, STORE_SQL_FEEDBACK_DELETE,
                                    STORE_SQL_RESPONSES_DELETE};
    enum ph_status status = find_user(writer, job->write.user, &job->result.user, err);
    if (status != PH_OK)
        return status;
    int64_t user = job->result.user;
    if (!user)
        return refuse(job, PH_ERR_NOTFOUND, "there is no user %s", job->write.user);
    for (size_t i = 0; status == PH_OK && i < sizeof rows / sizeof rows[0]; i++)
        status = run_for(writer, rows[i], user, err);
    start(writer, STORE_SQL_MESSAGES_DELETE_USER);
    put_int(writer, user);
    if (status == PH_OK)
        status = run_counting(writer, &job->result.added, err);
    if (status == PH_OK)
        status = run_for(writer, STORE_SQL_CONVERSATIONS_DELETE, user, err);
    bool row = status == PH_OK;
    start(writer, STORE_SQL_DICTIONARIES_RETIRE);
    put_int(writer, user);
    while (status == PH_OK && row) {
        status = writer->db->driver->step(writer->db, &row, err);
        if (status == PH_OK && row &&
            writer->db->driver->column_int(writer->db, 0) == writer->state.dictionary)
            writer->state.dictionary = writer->train_at = 0;
    }
    if (status == PH_OK)
        status = run_for(writer, STORE_SQL_USER_DELETE, user, err);
    writer->state.purge = 1;
    return status;
}

static enum ph_status run_for_two(struct store_writer *writer, unsigned statement, int64_t a, int64_t b,
                                  struct ph_err *err)
{
    start(writer, statement);
    put_int(writer, a);
    put_int(writer, b);
    return run(writer, err);
}

static enum ph_status apply_delete_conversation(struct store_writer *writer, struct store_job *job,
                                                struct ph_err *err)
{
    enum ph_status status = find_conversation(writer, job, job->write.user, job->write.key, err);
    if (status != PH_OK)
        return status;
    int64_t user = job->result.user, conversation = job->result.conversation;
    if (!conversation)
        return refuse(job, PH_ERR_NOTFOUND, "there is no conversation %s", job->write.key);
    status = run_for_two(writer, STORE_SQL_VECTORS_DELETE_CONVERSATION, user, conversation, err);
    if (status == PH_OK)
        status = run_for_two(writer, STORE_SQL_RESPONSES_UNLINK, user, conversation, err);
    start(writer, STORE_SQL_MESSAGES_DELETE);
    put_int(writer, conversation);
    if (status == PH_OK)
        status = run_counting(writer, &job->result.added, err);
    if (status == PH_OK)
        status = run_for(writer, STORE_SQL_CONVERSATION_DELETE, conversation, err);
    return status == PH_OK ? bump_user(writer, user, err) : status;
}

static enum ph_status apply_delete_message(struct store_writer *writer, struct store_job *job,
                                           struct ph_err *err)
{
    int64_t seq = 0, number = 0;
    bool found = false;
    enum ph_status status = find_conversation(writer, job, job->write.user, job->write.key, err);
    if (status != PH_OK)
        return status;
    int64_t conversation = job->result.conversation;
    if (conversation) {
        bool by_place = store_place_of(job->write.id, &seq);
        start(writer, by_place ? STORE_SQL_MESSAGE_SEQ_BY_PLACE : STORE_SQL_MESSAGE_SEQ_BY_ID);
        put_int(writer, conversation);
        if (by_place)
            put_int(writer, seq);
        else
            put_text(writer, job->write.id);
        status = ask(writer, &seq, &found, err);
    }
    if (status != PH_OK)
        return status;
    if (!found)
        return refuse(job, PH_ERR_NOTFOUND, "there is no message %s", job->write.id);
    start(writer, STORE_SQL_MESSAGE_DELETE);
    put_int(writer, conversation);
    put_int(writer, seq);
    status = ask(writer, &number, &found, err);
    if (status == PH_OK)
        status = run_for_two(writer, STORE_SQL_VECTORS_DELETE_MESSAGE, job->result.user, number, err);
    if (status == PH_OK)
        status = run_for(writer, STORE_SQL_CONVERSATION_SHRINK, conversation, err);
    job->result.added = 1;
    return status == PH_OK ? bump_user(writer, job->result.user, err) : status;
}

static enum ph_status apply_delete_response(struct store_writer *writer, struct store_job *job,
                                            struct ph_err *err)
{
    enum ph_status status = find_user(writer, job->write.user, &job->result.user, err);
    if (status != PH_OK)
        return status;
    start(writer, STORE_SQL_RESPONSE_DELETE);
    put_int(writer, job->result.user);
    put_text(writer, job->write.id);
    status = run_counting(writer, &job->result.added, err);
    return status == PH_OK && job->result.added == 0
               ? refuse(job, PH_ERR_NOTFOUND, "there is no response %s", job->write.id)
               : status;
}

static enum ph_status apply_delete_space(struct store_writer *writer, struct store_job *job,
                                         struct ph_err *err)
{
    int64_t space = 0;
    bool found;
    start(writer, STORE_SQL_SPACE_NUMBER);
    put_text(writer, job->write.id);
    enum ph_status status = ask(writer, &space, &found, err);
    if (status != PH_OK)
        return status;
    if (!found)
        return refuse(job, PH_ERR_NOTFOUND, "there is no space %s", job->write.id);
    start(writer, STORE_SQL_VECTORS_DELETE_SPACE);
    put_int(writer, space);
    status = run_counting(writer, &job->result.added, err);
    return status == PH_OK ? run_for(writer, STORE_SQL_SPACE_DELETE, space, err) : status;
}

/* ---- A trained dictionary */

static enum ph_status add_donors(struct store_writer *writer, const struct store_install *install,
                                 int64_t dictionary, size_t *count, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; status == PH_OK && i < install->donor_count; i++) {
        start(writer, STORE_SQL_DONOR_INSERT);
        put_int(writer, dictionary);
        put_int(writer, install->donors[i]);
        status = run_counting(writer, count, err);
    }
    return status;
}

/* One whose donors are not all there any more must not come in: somebody was deleted meanwhile. */
static enum ph_status apply_install(struct store_writer *writer, struct store_job *job, struct ph_err *err)
{
    const struct store_install *install = &job->install;
    int64_t dictionary = ++writer->state.number;
    size_t donors = 0;
    enum ph_status status = add_donors(writer, install, dictionary, &donors, err);
    if (status != PH_OK)
        return status;
    if (donors != install->donor_count) {
        job->status = PH_ERR_CONFLICT;
        writer->train_at = 0;
        return run_for(writer, STORE_SQL_DONORS_DELETE, dictionary, err);
    }
    start(writer, STORE_SQL_DICTIONARY_INSERT);
    put_int(writer, dictionary);
    put_blob(writer, install->dictionary.bytes, install->dictionary.len);
    put_int(writer, install->trained_at);
    put_int(writer, clock_unix_ms(writer->store->clock));
    status = run(writer, err);
    if (status == PH_OK)
        status = store_codec_add(&writer->store->codec, dictionary, install->dictionary.bytes,
                                 install->dictionary.len, err);
    if (status == PH_OK)
        status = run_for(writer, STORE_SQL_DICTIONARIES_REPLACE, dictionary, err);
    store_train_installed(writer);
    writer->state.dictionary = dictionary;
    job->result.first_number = dictionary;
    return status;
}

static enum ph_status apply_tidy(struct store_writer *writer, struct store_job *job, struct ph_err *err)
{
    (void)job;
    (void)err;
    store_train_hasten(writer);
    return PH_OK;
}

/* ---- The table */

enum ph_status store_apply(struct store_writer *writer, struct store_job *job, struct ph_err *err)
{
    static enum ph_status (*const kinds[])(struct store_writer *, struct store_job *, struct ph_err *) = {
        [STORE_APPEND] = apply_append,
        [STORE_UPDATE] = apply_update,
        [STORE_RESPOND] = apply_respond,
        [STORE_FEEDBACK] = apply_feedback,
        [STORE_EMBED] = apply_embed,
        [STORE_DELETE_USER] = apply_delete_user,
        [STORE_DELETE_CONVERSATION] = apply_delete_conversation,
        [STORE_DELETE_MESSAGE] = apply_delete_message,
        [STORE_DELETE_RESPONSE] = apply_delete_response,
        [STORE_DELETE_SPACE] = apply_delete_space,
        [STORE_TIDY] = apply_tidy,
        [STORE_INSTALL] = apply_install,
    };
    assert((size_t)job->write.kind < sizeof kinds / sizeof kinds[0]);
    job->result = (struct store_result){.user = 0};
    job->status = PH_OK;
    job->err = (struct ph_err){.code = PH_OK};
    return kinds[job->write.kind](writer, job, err);
}
