/* How a write gets to the writer: checked, copied into a job of its own (texts packed already, on the thread
 * of whoever asks), and put into the bounded queue. Nothing is queued that the writer would have to refuse
 * for its form. */
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "memory/store_int.h"

#define JOB_BYTES_MAX ((size_t)STORE_QUEUE_BYTES_MAX)
#define JSON_SCRATCH_BYTES ((size_t)64 << 20)

/* ---- Checks */

static enum ph_status check_text(const char *what, const char *text, size_t len_min, size_t len_max,
                                 struct ph_err *err)
{
    size_t len = text ? strlen(text) : 0;
    if (len < len_min)
        return ph_fail(err, PH_ERR_ARG, "%s is missing", what);
    if (len > len_max)
        return ph_fail(err, PH_ERR_LIMIT, "%s is longer than %zu bytes", what, len_max);
    if (len && !utf8_valid(text, len))
        return ph_fail(err, PH_ERR_ARG, "%s is not UTF-8", what);
    return PH_OK;
}

/* Absent, or one JSON object: it is written out as it is when the store is exported. */
static enum ph_status check_object(const char *what, const char *text, size_t len_max, struct ph_err *err)
{
    enum ph_status status = check_text(what, text, 0, len_max, err);
    if (status != PH_OK || !text || !text[0])
        return status;
    struct arena scratch;
    struct json *value = NULL;
    arena_init(&scratch, JSON_SCRATCH_BYTES);
    status = json_parse(&scratch, text, strlen(text), &value, NULL);
    if (status != PH_OK || value->type != JSON_OBJECT)
        status = ph_fail(err, PH_ERR_ARG, "%s is no JSON object", what);
    arena_release(&scratch);
    return status;
}

static enum ph_status check_message(const struct store_message *message, struct ph_err *err)
{
    enum ph_status status = check_text("a message's id", message->id, 0, STORE_ID_BYTES_MAX, err);
    if (status == PH_OK)
        status = check_text("a message's role", message->role, 1, STORE_ROLE_BYTES_MAX, err);
    if (status == PH_OK)
        status = check_text("a message's name", message->name, 0, STORE_NAME_BYTES_MAX, err);
    if (status == PH_OK)
        status = check_object("a message's extra", message->extra, STORE_MESSAGE_BYTES_MAX, err);
    if (status != PH_OK)
        return status;
    size_t extra = message->extra ? strlen(message->extra) : 0;
    if (message->content_len > STORE_MESSAGE_BYTES_MAX - extra)
        return ph_fail(err, PH_ERR_LIMIT, "a message is longer than %u bytes", STORE_MESSAGE_BYTES_MAX);
    if (message->content_kind < STORE_CONTENT_TEXT || message->content_kind > STORE_CONTENT_NONE ||
        (message->content_len && !message->content))
        return ph_fail(err, PH_ERR_ARG, "a message's content is of no known kind");
    return PH_OK;
}

static enum ph_status check_response(const struct store_response *response, struct ph_err *err)
{
    enum ph_status status = check_text("a response's id", response->id, 1, STORE_ID_BYTES_MAX, err);
    if (status == PH_OK)
        status = check_text("the previous response's id", response->previous, 0, STORE_ID_BYTES_MAX, err);
    if (status == PH_OK && response->json_len > STORE_RESPONSE_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "a response is longer than %u bytes", STORE_RESPONSE_BYTES_MAX);
    return status;
}

static enum ph_status check_names(const char *user, const char *key, bool keyed, struct ph_err *err)
{
    enum ph_status status = check_text("the user's name", user, 1, STORE_USER_BYTES_MAX, err);
    if (status == PH_OK && keyed)
        status = check_text("the conversation's id", key, 1, STORE_KEY_BYTES_MAX, err);
    return status;
}

/* ---- Copies. Each answers NULL for NULL, and notes in the job when there is no memory. */

static const char *copy(struct store_job *job, const char *text)
{
    char *made = text ? arena_strdup(&job->arena, text) : NULL;
    if (text && !made)
        job->status = PH_ERR_NOMEM;
    return made;
}

static void *copy_bytes(struct store_job *job, const void *bytes, size_t len)
{
    void *made = arena_alloc(&job->arena, len ? len : 1);
    if (!made)
        job->status = PH_ERR_NOMEM;
    else if (len)
        memcpy(made, bytes, len);
    return made;
}

static enum ph_status finish_copy(const struct store_job *job, struct ph_err *err)
{
    return job->status == PH_OK
               ? PH_OK
               : ph_fail(err, job->status, "a write to the store is larger than %zu bytes", JOB_BYTES_MAX);
}

/* ---- Kinds */

static enum ph_status take_response(struct store *store, struct store_job *job, struct store_response *to,
                                    const struct store_response *from, struct ph_err *err)
{
    enum ph_status status = check_response(from, err);
    if (status != PH_OK)
        return status;
    *to = *from;
    to->id = copy(job, from->id);
    to->previous = copy(job, from->previous ? from->previous : "");
    to->json = NULL;
    if (to->created_ms == 0)
        to->created_ms = clock_unix_ms(store->clock);
    return store_codec_pack(&store->codec, &job->arena, STORE_CODING_PLAIN, from->json, from->json_len,
                            &job->response_body, err);
}

static enum ph_status take_message(struct store *store, struct store_job *job, struct arena *scratch,
                                   struct store_message *to, const struct store_message *from,
                                   struct store_body *body, struct ph_err *err)
{
    const char *bytes;
    size_t len;
    enum ph_status status = check_message(from, err);
    if (status == PH_OK)
        status = store_message_join(scratch, from, &bytes, &len, err);
    if (status == PH_OK)
        status =
            store_codec_pack(&store->codec, scratch, atomic_load(&store->dictionary), bytes, len, body, err);
    if (status != PH_OK)
        return status;
    body->bytes = copy_bytes(job, body->bytes, body->len);
    bool named = from->id && from->id[0];
    *to = (struct store_message){
        .id = named ? copy(job, from->id) : NULL, .tokens = from->tokens, .created_ms = from->created_ms};
    if (to->created_ms == 0)
        to->created_ms = clock_unix_ms(store->clock);
    return PH_OK;
}

static enum ph_status take_messages(struct store *store, struct store_job *job,
                                    const struct store_append *from, struct ph_err *err)
{
    struct store_append *to = &job->write.u.append;
    struct store_message *messages = arena_calloc(&job->arena, from->count, sizeof *messages);
    struct arena scratch;
    job->bodies = arena_calloc(&job->arena, from->count, sizeof *job->bodies);
    if (!messages || !job->bodies)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a write to the store");
    arena_init(&scratch, (size_t)4 * STORE_MESSAGE_BYTES_MAX);
    enum ph_status status = PH_OK;
    for (size_t i = 0; status == PH_OK && i < from->count; i++) {
        status = take_message(store, job, &scratch, &messages[i], &from->messages[i], &job->bodies[i], err);
        arena_clear(&scratch);
    }
    arena_release(&scratch);
    to->messages = messages;
    job->rows = from->count;
    return status;
}

static enum ph_status take_append(struct store *store, struct store_job *job, const struct store_append *from,
                                  struct ph_err *err)
{
    struct store_append *to = &job->write.u.append;
    enum ph_status status = check_names(from->user, from->key, true, err);
    if (status == PH_OK)
        status = check_text("the domain", from->domain, 0, STORE_DOMAIN_BYTES_MAX, err);
    if (status == PH_OK)
        status = check_object("the conversation's metadata", from->metadata, STORE_METADATA_BYTES_MAX, err);
    if (status != PH_OK)
        return status;
    if (from->count > STORE_APPEND_MAX || from->at < STORE_AT_END)
        return ph_fail(err, PH_ERR_LIMIT, "more than %u messages in one write, or before the first one",
                       STORE_APPEND_MAX);
    *to = *from;
    to->user = copy(job, from->user);
    to->key = copy(job, from->key);
    to->domain = copy(job, from->domain ? from->domain : "");
    to->metadata = copy(job, from->metadata ? from->metadata : "");
    status = take_messages(store, job, from, err);
    if (status != PH_OK || !from->response)
        return status;
    struct store_response *response = arena_calloc(&job->arena, 1, sizeof *response);
    to->response = response;
    return response ? take_response(store, job, response, from->response, err)
                    : ph_fail(err, PH_ERR_NOMEM, "no memory for a write to the store");
}

static enum ph_status take_update(struct store_job *job, const struct store_update *from, struct ph_err *err)
{
    enum ph_status status = check_names(from->user, from->key, true, err);
    if (status == PH_OK)
        status = check_text("the domain", from->domain, 0, STORE_DOMAIN_BYTES_MAX, err);
    if (status == PH_OK)
        status = check_object("the conversation's metadata", from->metadata, STORE_METADATA_BYTES_MAX, err);
    job->write.u.update = (struct store_update){.user = copy(job, from->user),
                                                .key = copy(job, from->key),
                                                .domain = copy(job, from->domain),
                                                .metadata = copy(job, from->metadata)};
    return status;
}

static enum ph_status take_feedback(struct store *store, struct store_job *job,
                                    const struct store_feedback *from, struct ph_err *err)
{
    enum ph_status status = check_text("the response's id", from->response, 1, STORE_ID_BYTES_MAX, err);
    if (status == PH_OK)
        status = check_text("the note", from->note, 0, STORE_NOTE_BYTES_MAX, err);
    if (status == PH_OK && !(from->score >= -1 && from->score <= 1))
        status = ph_fail(err, PH_ERR_ARG, "a score is a number from -1 to 1");
    struct store_feedback *to = &job->write.u.feedback;
    *to = *from;
    to->response = copy(job, from->response);
    to->note = copy(job, from->note ? from->note : "");
    if (to->created_ms == 0)
        to->created_ms = clock_unix_ms(store->clock);
    return status;
}

static enum ph_status take_vectors(struct store_job *job, const struct store_embeddings *from,
                                   struct ph_err *err)
{
    enum ph_status status = check_text("the space's name", from->space, 1, STORE_SPACE_BYTES_MAX, err);
    if (status == PH_OK && from->count > STORE_APPEND_MAX)
        status = ph_fail(err, PH_ERR_LIMIT, "more than %u vectors in one write", STORE_APPEND_MAX);
    if (status != PH_OK)
        return status;
    struct store_vector *items = arena_calloc(&job->arena, from->count, sizeof *items);
    if (!items)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a write to the store");
    for (size_t i = 0; i < from->count; i++) {
        if (from->items[i].len > STORE_VECTOR_BYTES_MAX)
            return ph_fail(err, PH_ERR_LIMIT, "a vector is larger than %u bytes", STORE_VECTOR_BYTES_MAX);
        items[i] = from->items[i];
        items[i].bytes = copy_bytes(job, items[i].bytes, items[i].len);
    }
    job->write.u.embeddings = (struct store_embeddings){
        .user = from->user, .space = copy(job, from->space), .items = items, .count = from->count};
    job->rows = from->count;
    return PH_OK;
}

/* Kinds that are all in `user`, `key` and `id`. */
static enum ph_status take_names(struct store_job *job, const struct store_write *from, struct ph_err *err)
{
    static const struct {
        bool user, key, id;
    } needs[STORE_WRITE_KIND_COUNT] = {
        [STORE_RESPOND] = {.user = true},
        [STORE_FEEDBACK] = {.user = true},
        [STORE_DELETE_USER] = {.user = true},
        [STORE_DELETE_CONVERSATION] = {.user = true, .key = true},
        [STORE_DELETE_MESSAGE] = {.user = true, .key = true, .id = true},
        [STORE_DELETE_RESPONSE] = {.user = true, .id = true},
        [STORE_DELETE_SPACE] = {.id = true},
        [STORE_TIDY] = {.user = false},
    };
    enum ph_status status = PH_OK;
    if (needs[from->kind].user)
        status = check_names(from->user, from->key, needs[from->kind].key, err);
    if (status == PH_OK && needs[from->kind].id)
        status = check_text("the id", from->id, 1, STORE_ID_BYTES_MAX, err);
    job->write.user = copy(job, from->user);
    job->write.key = copy(job, from->key);
    job->write.id = copy(job, from->id);
    return status;
}

static enum ph_status take(struct store *store, struct store_job *job, const struct store_write *from,
                           struct ph_err *err)
{
    if ((unsigned)from->kind >= STORE_WRITE_KIND_COUNT)
        return ph_fail(err, PH_ERR_ARG, "a write of no known kind");
    job->write.kind = from->kind;
    enum ph_status status = take_names(job, from, err);
    if (status != PH_OK)
        return status;
    switch (from->kind) {
    case STORE_APPEND:
        status = take_append(store, job, &from->u.append, err);
        break;
    case STORE_UPDATE:
        status = take_update(job, &from->u.update, err);
        break;
    case STORE_RESPOND:
        status = take_response(store, job, &job->write.u.response, &from->u.response, err);
        break;
    case STORE_FEEDBACK:
        status = take_feedback(store, job, &from->u.feedback, err);
        break;
    case STORE_EMBED:
        status = take_vectors(job, &from->u.embeddings, err);
        break;
    default:
        break;
    }
    return status == PH_OK ? finish_copy(job, err) : status;
}

/* ---- The queue */

enum ph_status store_job_new(struct store_job **out, struct ph_err *err)
{
    struct store_job *job = mem_calloc(1, sizeof *job);
    if (!job)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a write to the store");
    arena_init(&job->arena, JOB_BYTES_MAX);
    *out = job;
    return PH_OK;
}

void store_job_free(struct store_job *job)
{
    if (!job)
        return;
    arena_release(&job->arena);
    mem_free(job);
}

static bool is_full(const struct store_queue *queue, const struct store_job *job)
{
    return queue->count >= STORE_QUEUE_MAX ||
           (queue->count && queue->bytes + job->bytes > STORE_QUEUE_BYTES_MAX);
}

static void put(struct store_queue *queue, struct store_job *job)
{
    job->next = NULL;
    *queue->last = job;
    queue->last = &job->next;
    queue->count++;
    queue->bytes += job->bytes;
    uv_cond_signal(&queue->filled);
}

enum ph_status store_job_put(struct store *store, struct store_job *job, bool wait, struct ph_err *err)
{
    struct store_queue *queue = &store->queue;
    job->bytes = job->arena.bytes + sizeof *job;
    uv_mutex_lock(&queue->mutex);
    while (wait && !queue->closed && is_full(queue, job))
        uv_cond_wait(&queue->drained, &queue->mutex);
    enum ph_status status = PH_OK;
    if (queue->closed)
        status = ph_fail(err, PH_ERR_CANCELLED, "the store is closing");
    else if (is_full(queue, job))
        status =
            ph_fail(err, PH_ERR_BUSY, "%zu writes wait for the store; try again in a moment", queue->count);
    if (status == PH_OK)
        put(queue, job);
    uv_mutex_unlock(&queue->mutex);
    return status;
}

void store_job_put_always(struct store *store, struct store_job *job)
{
    job->bytes = job->arena.bytes + sizeof *job;
    uv_mutex_lock(&store->queue.mutex);
    put(&store->queue, job);
    uv_mutex_unlock(&store->queue.mutex);
}

static enum ph_status submit(struct store *store, const struct store_write *write, struct store_done done,
                             bool wait, struct ph_err *err)
{
    struct store_job *job = NULL;
    if (!store->writing)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "the store was opened for reading only");
    enum ph_status status = store_job_new(&job, err);
    if (status == PH_OK)
        status = take(store, job, write, err);
    if (status == PH_OK) {
        job->done = done;
        status = store_job_put(store, job, wait, err);
    }
    if (status != PH_OK)
        store_job_free(job);
    return status;
}

enum ph_status store_submit(struct store *store, const struct store_write *write, struct store_done done,
                            struct ph_err *err)
{
    return submit(store, write, done, false, err);
}

size_t store_queued(struct store *store)
{
    uv_mutex_lock(&store->queue.mutex);
    size_t count = store->queue.count;
    uv_mutex_unlock(&store->queue.mutex);
    return count;
}

/* ---- Waiting */

struct waiter {
    uv_sem_t done;
    enum ph_status status;
    struct store_result *result;
    struct ph_err *err;
};

static void wake(void *ud, enum ph_status status, const struct store_result *result, const struct ph_err *err)
{
    struct waiter *waiter = ud;
    waiter->status = status;
    if (waiter->result)
        *waiter->result = *result;
    if (waiter->err && err)
        *waiter->err = *err;
    uv_sem_post(&waiter->done);
}

enum ph_status store_write(struct store *store, const struct store_write *write, struct store_result *result,
                           struct ph_err *err)
{
    struct waiter waiter = {.result = result, .err = err};
    if (uv_sem_init(&waiter.done, 0) != 0)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a lock");
    enum ph_status status = submit(store, write, (struct store_done){wake, &waiter}, true, err);
    if (status == PH_OK) {
        uv_sem_wait(&waiter.done);
        status = waiter.status;
    }
    uv_sem_destroy(&waiter.done);
    return status;
}
