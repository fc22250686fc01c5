/* /v1/conversations and its items, GET and DELETE /v1/responses/ID, POST /v1/context: what is kept, as
 * OpenAI's own servers show it.
 *
 * Every handler reads what was asked on the loop and gives the rest to a helper thread, because a store may
 * take its time. There a job has an arena of its own (that of an exchange belongs to the loop), fills `out`
 * or its fault, and the reply is sent on the loop again. Nobody is told whether something of another user
 * exists: the store is only ever asked for the caller's own. */
#include <stdlib.h>
#include <string.h>

#include "gateway/gateway_int.h"

#define JOB_BYTES_MAX (256u << 20)
#define PAGE_DEFAULT 20

struct job {
    struct gateway *gateway;
    struct http_exchange *exchange;
    struct arena arena;
    void (*work)(struct job *job);
    const char *user;                /* NULL: nobody said */
    const char *id, *part, *part_id; /* of the path: "ID/items/ITEM" */
    const struct json *body;         /* NULL: none */
    const char *after;
    bool ascending;
    size_t limit;
    struct remember_wishes wishes;
    bool has_counter;
    struct memory_counter counter;
    struct store_feedback feedback;
    struct store *store;
    struct buf out;
    bool failed;
    struct chat_fault fault;
};

/* ---- A job's course */

static void fail(struct job *job, int status, const char *code, const char *param, const char *what,
                 const char *name)
{
    job->failed = true;
    chat_fault_set(&job->fault, status, code, param, what, name);
}

/* false: the fault says why. */
static bool check(struct job *job, enum ph_status status, const struct ph_err *err, const char *code)
{
    if (status == PH_OK)
        return true;
    job->failed = true;
    remember_fault(err, &job->fault);
    if (status == PH_ERR_NOTFOUND && code)
        job->fault.code = code;
    return false;
}

static void do_work(void *ud)
{
    struct job *job = ud;
    struct ph_err err;
    if (check(job, memory_store(job->gateway->memory, &job->store, &err), &err, NULL))
        job->work(job);
}

static void on_worked(void *ud)
{
    struct job *job = ud;
    if (!job->failed && buf_status(&job->out) != PH_OK)
        fail(job, 503, NULL, NULL, "out of memory%s", "");
    if (job->failed)
        gateway_reply_fault(job->gateway, job->exchange, &job->fault);
    else
        gateway_reply(job->gateway, job->exchange, 200, JSON_TYPE, &job->out);
}

static void release(void *ud)
{
    struct job *job = ud;
    arena_release(&job->arena);
    buf_release(&job->out);
}

/* The value of ?name=..., percent-decoded, in the arena; NULL: absent, or no memory. */
static const char *query_value(struct arena *arena, const char *query, const char *name)
{
    size_t name_len = strlen(name);
    while (query && *query) {
        size_t len = strcspn(query, "&");
        if (len > name_len && query[name_len] == '=' && strncmp(query, name, name_len) == 0) {
            char *text = arena_strndup(arena, query + name_len + 1, len - name_len - 1), *to = text;
            for (const char *from = text; from && *from; from++) {
                char hex[3] = {from[0] == '%' ? from[1] : 0, 0, 0};
                hex[1] = hex[0] ? from[2] : 0;
                char *end = hex;
                unsigned long byte = strtoul(hex, &end, 16);
                bool coded = hex[1] && end == hex + 2 && byte;
                *to++ = coded ? (char)byte : (*from == '+' ? ' ' : *from);
                from += coded ? 2 : 0;
            }
            if (to)
                *to = 0;
            return text;
        }
        query += len + (query[len] == '&');
    }
    return NULL;
}

static bool read_page(struct job *job, const char *query, struct chat_fault *fault)
{
    struct arena *arena = http_exchange_arena(job->exchange);
    const char *limit = query_value(arena, query, "limit"), *order = query_value(arena, query, "order");
    job->after = query_value(arena, query, "after");
    job->ascending = order && strcmp(order, "asc") == 0;
    job->limit = PAGE_DEFAULT;
    if (order && !job->ascending && strcmp(order, "desc") != 0) {
        chat_fault_set(fault, 400, NULL, "order", "order must be asc or desc");
        return false;
    }
    if (!limit)
        return true;
    char *end;
    unsigned long n = strtoul(limit, &end, 10);
    job->limit = n;
    if (end != limit && !*end && n >= 1 && n <= MEMORY_PAGE_MAX)
        return true;
    chat_fault_set(fault, 400, NULL, "limit", "limit must be a whole number from 1 to %d", MEMORY_PAGE_MAX);
    return false;
}

/* "ID", "ID/items", "ID/items/ITEM". */
static bool read_rest(struct job *job, const char *rest)
{
    char *text = arena_strdup(http_exchange_arena(job->exchange), rest);
    job->id = text;
    char *slash = text ? strchr(text, '/') : NULL;
    if (slash) {
        *slash = 0;
        job->part = slash + 1;
        slash = strchr(slash + 1, '/');
    }
    if (slash) {
        *slash = 0;
        job->part_id = slash[1] ? slash + 1 : NULL;
    }
    return text != NULL;
}

static bool read_job(struct job *job, const struct visit *visit, bool has_body, struct chat_fault *fault)
{
    const struct http_request *http = http_exchange_request(job->exchange);
    const char *user = query_value(http_exchange_arena(job->exchange), http->query, "user");
    if (!job->gateway->memory) {
        chat_fault_set(fault, 400, "memory_off", NULL,
                       "this station remembers nothing (memory: {store: off} in its configuration)");
        return false;
    }
    if (!read_rest(job, visit->rest)) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return false;
    }
    struct json *body = NULL;
    if (has_body && http->body_len && !gateway_body(job->exchange, &body, fault))
        return false;
    if (body && !json_is(body, JSON_OBJECT)) {
        chat_fault_set(fault, 400, "invalid_json", NULL, "the body must be a JSON object");
        return false;
    }
    job->body = body;
    if (!user)
        user = json_text(json_get(body, "user"), NULL);
    return remember_user(job->exchange, visit->caller, user, &job->user, fault) &&
           read_page(job, http->query, fault);
}

/* NULL: it was refused, and the exchange is over. */
static struct job *job_new(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit,
                           bool has_body)
{
    struct arena *arena = http_exchange_arena(exchange);
    struct job *job = arena_calloc(arena, 1, sizeof *job);
    struct chat_fault fault;
    bool ok = job && arena_on_release(arena, release, job) == 0;
    if (!ok)
        chat_fault_set(&fault, 503, NULL, NULL, "out of memory");
    if (ok) {
        job->gateway = gateway;
        job->exchange = exchange;
        arena_init(&job->arena, JOB_BYTES_MAX);
        buf_init(&job->out, CHAT_REPLY_BYTES_MAX);
        ok = read_job(job, visit, has_body, &fault);
    }
    if (ok)
        return job;
    gateway_reply_fault(gateway, exchange, &fault);
    return NULL;
}

static void start(struct job *job, void (*work)(struct job *job))
{
    struct chat_fault fault;
    job->work = work;
    if (net_work(job->gateway->loop, do_work, on_worked, job) == PH_OK)
        return;
    chat_fault_set(&fault, 503, "server_overloaded", NULL,
                   "too many requests wait for the store; try again in a second");
    fault.retry_after_s = 1;
    gateway_reply_fault(job->gateway, job->exchange, &fault);
}

static void refuse(struct gateway *gateway, struct http_exchange *exchange)
{
    struct chat_fault fault;
    const struct http_request *http = http_exchange_request(exchange);
    chat_fault_set(&fault, 404, "unknown_url", NULL, "there is nothing at %.40s %.200s", http->method,
                   http->path);
    gateway_reply_fault(gateway, exchange, &fault);
}

/* ---- Conversations */

static bool find(struct job *job, struct store_conversation *out)
{
    struct ph_err err;
    enum ph_status status = store_find_conversation(job->store, &job->arena, job->user, job->id, out, &err);
    if (status != PH_ERR_NOTFOUND)
        return check(job, status, &err, NULL);
    fail(job, 404, "conversation_not_found", NULL, "there is no conversation \"%.100s\"", job->id);
    return false;
}

static void write_conversation(const struct store_conversation *conversation, struct buf *out)
{
    buf_puts(out, "{\"id\":");
    json_write_string(out, conversation->key, strlen(conversation->key));
    buf_printf(out, ",\"object\":\"conversation\",\"created_at\":%lld,\"metadata\":%s}",
               (long long)(conversation->created_ms / 1000),
               *conversation->metadata ? conversation->metadata : "{}");
}

static bool write_store(struct job *job, const struct store_write *write)
{
    struct ph_err err;
    return check(job, store_write(job->store, write, NULL, &err), &err, NULL);
}

/* The metadata as JSON text; "": none. */
static bool read_metadata(struct job *job, const char **out)
{
    const struct json *metadata = json_get(job->body, "metadata");
    struct buf text;
    *out = "";
    if (json_is_absent(metadata))
        return true;
    if (!json_is(metadata, JSON_OBJECT)) {
        fail(job, 400, NULL, "metadata", "metadata must be an object%s", "");
        return false;
    }
    buf_init(&text, STORE_METADATA_BYTES_MAX);
    json_write(&text, metadata);
    bool ok = buf_status(&text) == PH_OK;
    *out = ok ? arena_strndup(&job->arena, text.data, text.len) : NULL;
    buf_release(&text);
    if (!*out)
        fail(job, 413, NULL, "metadata", "metadata is too large%s", "");
    return *out != NULL;
}

/* The items with those that were named only; NULL: the fault says why not. */
static const struct json *whole_items(struct job *job, const char *user, int64_t conversation,
                                      const struct json *items)
{
    const struct json *whole =
        remember_resolve(job->store, &job->arena, user, conversation, items, &job->fault);
    if (whole)
        return whole;
    job->failed = true;
    if (job->fault.param)
        job->fault.param = "items";
    return NULL;
}

/* The body's items as messages to store, with their ids. */
static bool read_items(struct job *job, const char *user, int64_t conversation, struct memory_message **out,
                       size_t *count)
{
    const struct json *items = json_get(job->body, "items");
    const struct chat_message *list;
    *count = 0;
    if (json_is_absent(items) || (json_is(items, JSON_ARRAY) && json_count(items) == 0))
        return true;
    if (!json_is(items, JSON_ARRAY) || json_count(items) > MEMORY_ITEMS_MAX) {
        fail(job, 400, NULL, "items", "items must be an array of at most 20 items%s", "");
        return false;
    }
    if (!(items = whole_items(job, user, conversation, items)))
        return false;
    if (chat_items_decode(&job->arena, items, "items", &list, count, &job->fault) != PH_OK) {
        job->failed = true;
        return false;
    }
    struct memory_message *messages = arena_calloc(&job->arena, *count + 1, sizeof *messages);
    for (size_t i = 0; messages && i < *count; i++) {
        char id[ID_TEXT_MAX];
        memory_make_id(job->gateway->memory, "msg_", id);
        messages[i].chat = list[i];
        messages[i].id = arena_strdup(&job->arena, id);
    }
    *out = messages;
    if (!messages)
        fail(job, 503, NULL, NULL, "out of memory%s", "");
    return messages != NULL;
}

static bool append(struct job *job, const struct store_append *to, const struct memory_message *messages,
                   size_t count)
{
    struct store_write write = {.kind = STORE_APPEND, .u.append = *to};
    struct store_message *list = arena_calloc(&job->arena, count + 1, sizeof *list);
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < count; i++)
        ok = messages[i].id && memory_message_write(&job->arena, &messages[i], NULL, &list[i]);
    if (!ok) {
        fail(job, 503, NULL, NULL, "out of memory%s", "");
        return false;
    }
    write.u.append.messages = list;
    write.u.append.count = count;
    write.u.append.at = STORE_AT_END;
    return write_store(job, &write);
}

static void create_conversation(struct job *job)
{
    struct store_conversation made;
    struct memory_message *messages = NULL;
    struct store_append to = {.user = job->user ? job->user : MEMORY_USER_LOCAL};
    char id[ID_TEXT_MAX];
    size_t count;
    memory_make_id(job->gateway->memory, "conv_", id);
    job->id = to.key = id;
    if (!read_metadata(job, &to.metadata) || !read_items(job, to.user, 0, &messages, &count) ||
        !append(job, &to, messages, count) || !find(job, &made))
        return;
    write_conversation(&made, &job->out);
}

static void show_conversation(struct job *job)
{
    struct store_conversation conversation;
    if (find(job, &conversation))
        write_conversation(&conversation, &job->out);
}

static void update_conversation(struct job *job)
{
    struct store_conversation conversation;
    const char *metadata;
    if (!find(job, &conversation) || !read_metadata(job, &metadata))
        return;
    struct store_write write = {.kind = STORE_UPDATE,
                                .u.update = {.user = conversation.user_name,
                                             .key = job->id,
                                             .metadata = *metadata ? metadata : "{}"}};
    if (write_store(job, &write) && find(job, &conversation))
        write_conversation(&conversation, &job->out);
}

static void delete_conversation(struct job *job)
{
    struct store_conversation conversation;
    if (!find(job, &conversation))
        return;
    struct store_write write = {
        .kind = STORE_DELETE_CONVERSATION, .user = conversation.user_name, .key = job->id};
    if (!write_store(job, &write))
        return;
    memory_forget(job->gateway->memory, &conversation);
    buf_puts(&job->out, "{\"id\":");
    json_write_string(&job->out, job->id, strlen(job->id));
    buf_puts(&job->out, ",\"object\":\"conversation.deleted\",\"deleted\":true}");
}

/* ---- Items */

/* A page being filled: items as JSON, in the order asked for. */
struct page {
    struct job *job;
    const struct json *items[MEMORY_PAGE_MAX + 1];
    size_t count;
};

/* Adds those of a message's items that come behind `skip` (SIZE_MAX: all of them do). false: it is full, or
 * there is no memory. */
static bool add_items(struct page *page, const struct store_message *stored, size_t skip, bool skips)
{
    const struct json *list = remember_items(&page->job->arena, stored);
    size_t count = json_count(list);
    if (!list) {
        fail(page->job, 503, NULL, NULL, "out of memory%s", "");
        return false;
    }
    for (size_t n = 0; n < count; n++) {
        size_t at = page->job->ascending ? n : count - 1 - n;
        if (skips && (page->job->ascending ? at <= skip : at >= skip))
            continue;
        if (page->count > page->job->limit)
            return false;
        page->items[page->count++] = json_at(list, at);
    }
    return page->count <= page->job->limit;
}

static void write_item_id(struct buf *out, const struct json *item)
{
    const char *id = json_text(json_get(item, "id"), NULL);
    if (id)
        json_write_string(out, id, strlen(id));
    else
        buf_puts(out, "null");
}

static void write_page(struct page *page, struct buf *out)
{
    size_t limit = page->job->limit;
    bool more = page->count > limit;
    size_t count = more ? limit : page->count;
    buf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < count; i++) {
        buf_puts(out, i ? "," : "");
        json_write(out, page->items[i]);
    }
    buf_puts(out, "],\"first_id\":");
    write_item_id(out, count ? page->items[0] : NULL);
    buf_puts(out, ",\"last_id\":");
    write_item_id(out, count ? page->items[count - 1] : NULL);
    buf_printf(out, ",\"has_more\":%s}", more ? "true" : "false");
}

/* A message by an item's id. */
static bool find_item(struct job *job, int64_t conversation, const char *item, struct store_message *out,
                      size_t *index)
{
    struct ph_err err;
    enum ph_status status = remember_item_find(job->store, &job->arena, conversation, item, out, index, &err);
    if (status != PH_ERR_NOTFOUND)
        return check(job, status, &err, NULL);
    fail(job, 404, "item_not_found", NULL, "there is no item \"%.100s\" in this conversation", item);
    return false;
}

static void list_items(struct job *job)
{
    struct store_conversation conversation;
    struct store_message after;
    struct store_messages messages;
    struct page page = {.job = job};
    struct ph_err err;
    size_t index = 0;
    if (!find(job, &conversation) ||
        (job->after && !find_item(job, conversation.number, job->after, &after, &index)))
        return;
    struct store_range range = {
        .conversation = conversation.number, .limit = job->limit + 2, .newest_first = !job->ascending};
    if (job->after && job->ascending)
        range.from_seq = after.seq;
    else if (job->after)
        range.to_seq = after.seq + 1;
    if (!check(job, store_read_messages(job->store, &job->arena, &range, &messages, &err), &err, NULL))
        return;
    for (size_t i = 0; i < messages.count; i++)
        if (!add_items(&page, &messages.items[i], index, job->after && messages.items[i].seq == after.seq))
            break;
    if (!job->failed)
        write_page(&page, &job->out);
}

static void add_new_items(struct job *job)
{
    struct store_conversation conversation;
    struct memory_message *messages = NULL;
    struct page page = {.job = job};
    size_t count;
    job->ascending = true;
    job->limit = MEMORY_PAGE_MAX;
    if (!find(job, &conversation) ||
        !read_items(job, conversation.user_name, conversation.number, &messages, &count))
        return;
    if (count == 0) {
        fail(job, 400, NULL, "items", "items is missing or empty%s", "");
        return;
    }
    struct store_append to = {.user = conversation.user_name, .key = job->id, .must_exist = true};
    if (!append(job, &to, messages, count))
        return;
    for (size_t i = 0; i < count; i++) {
        struct store_message stored;
        size_t index;
        if (!find_item(job, conversation.number, messages[i].id, &stored, &index) ||
            !add_items(&page, &stored, 0, false))
            return;
    }
    write_page(&page, &job->out);
}

static void show_item(struct job *job)
{
    struct store_conversation conversation;
    struct store_message message;
    size_t index;
    if (!find(job, &conversation) || !find_item(job, conversation.number, job->part_id, &message, &index))
        return;
    const struct json *item = json_at(remember_items(&job->arena, &message), index);
    if (item)
        json_write(&job->out, item);
    else
        fail(job, 404, "item_not_found", NULL, "there is no item \"%.100s\" in this conversation",
             job->part_id);
}

static void delete_item(struct job *job)
{
    struct store_conversation conversation;
    struct store_message message;
    size_t index;
    if (!find(job, &conversation) || !find_item(job, conversation.number, job->part_id, &message, &index))
        return;
    struct store_write write = {
        .kind = STORE_DELETE_MESSAGE, .user = conversation.user_name, .key = job->id, .id = message.id};
    if (!write_store(job, &write))
        return;
    memory_forget(job->gateway->memory, &conversation);
    write_conversation(&conversation, &job->out);
}

/* ---- Responses */

static bool find_response(struct job *job, struct memory_response *out)
{
    struct ph_err err;
    enum ph_status status =
        memory_find_response(job->gateway->memory, &job->arena, job->user, job->id, out, &err);
    if (status != PH_ERR_NOTFOUND)
        return check(job, status, &err, NULL);
    fail(job, 404, "response_not_found", NULL, "there is no response \"%.100s\"", job->id);
    return false;
}

static void show_response(struct job *job)
{
    struct memory_response response;
    if (find_response(job, &response))
        json_write(&job->out, response.response);
}

static void delete_response(struct job *job)
{
    struct memory_response response;
    if (!find_response(job, &response))
        return;
    struct store_write write = {
        .kind = STORE_DELETE_RESPONSE, .user = job->user ? job->user : MEMORY_USER_LOCAL, .id = job->id};
    if (!write_store(job, &write))
        return;
    buf_puts(&job->out, "{\"id\":");
    json_write_string(&job->out, job->id, strlen(job->id));
    buf_puts(&job->out, ",\"object\":\"response.deleted\",\"deleted\":true}");
}

/* Where `after` stands in a list of `count` messages' ids, in the order asked for; count: it does not. */
static size_t find_after(const struct job *job, const struct json *input, size_t count, size_t *index)
{
    char id[CHAT_ITEM_ID_MAX] = "";
    (void)chat_item_id_read(job->after, id, index);
    for (size_t i = 0; i < count; i++) {
        const struct json *name = json_at(input, job->ascending ? i : count - 1 - i);
        if (json_text_is(name, id) || json_text_is(name, job->after))
            return i;
    }
    return count;
}

/* What it answered: its own input, by its messages' ids. */
static void list_input(struct job *job)
{
    struct memory_response response;
    struct page page = {.job = job};
    struct store_message message;
    size_t skip = 0, from = 0, count, index;
    if (!find_response(job, &response))
        return;
    count = json_count(response.input);
    if (job->after && (from = find_after(job, response.input, count, &skip)) == count) {
        fail(job, 404, "item_not_found", "after", "there is no item \"%.100s\" in this input", job->after);
        return;
    }
    for (size_t i = from; i < count && page.count <= job->limit; i++) {
        size_t at = job->ascending ? i : count - 1 - i;
        const char *name = json_text(json_at(response.input, at), "");
        if (!find_item(job, response.stored.conversation, name, &message, &index)) {
            if (job->fault.http_status != 404)
                return;
            job->failed = false; /* it was deleted since */
            continue;
        }
        if (!add_items(&page, &message, skip, job->after && i == from))
            break;
    }
    if (!job->failed)
        write_page(&page, &job->out);
}

/* ---- Contexts */

struct question {
    struct chat_text query;
    const char *name, *conversation;
};

/* `query`, or the last message of a user in `messages`. */
static bool read_question(struct job *job, struct question *out)
{
    const struct json *query = json_get(job->body, "query");
    *out = (struct question){.conversation = json_text(json_get(job->body, "conversation"), NULL)};
    if (json_is(json_get(job->body, "conversation"), JSON_OBJECT))
        out->conversation = json_text(json_get(json_get(job->body, "conversation"), "id"), NULL);
    if (json_is(query, JSON_STRING)) {
        out->query = (struct chat_text){query->u.str.text, query->u.str.len};
        return true;
    }
    JSON_EACH (message, json_get(job->body, "messages")) {
        const struct json *content = json_get(message, "content");
        if (json_text_is(json_get(message, "role"), "user") && json_is(content, JSON_STRING)) {
            out->query = (struct chat_text){content->u.str.text, content->u.str.len};
            out->name = json_text(json_get(message, "name"), NULL);
        }
    }
    if (out->query.text)
        return true;
    fail(job, 400, NULL, "query", "query must be a text, or messages must have one of a user%s", "");
    return false;
}

static void build_context(struct job *job)
{
    struct question question;
    struct memory_context context;
    struct ph_err err;
    bool explain = json_is(json_get(job->body, "explain"), JSON_TRUE);
    uint64_t began = clock_monotonic_ns(job->gateway->clock);
    if (!read_question(job, &question))
        return;
    struct memory_context_params params = {.user = job->user,
                                           .conversation = question.conversation,
                                           .query = question.query.text,
                                           .query_len = question.query.len,
                                           .query_name = question.name,
                                           .budget_tokens = job->wishes.budget_tokens,
                                           .keep_recent = job->wishes.keep_recent,
                                           .strategy = job->wishes.strategy,
                                           .counter = job->has_counter ? &job->counter : NULL};
    enum ph_status status = memory_context_build(job->gateway->memory, &job->arena, &params, &context, &err);
    if (!check(job, status, &err, NULL))
        return;
    double ms = (double)(clock_monotonic_ns(job->gateway->clock) - began) / 1e6;
    memory_context_write(&context, &params, explain, ms, &job->out);
}

static bool read_number(struct job *job, const char *name, uint32_t max, uint32_t *out,
                        struct chat_fault *fault)
{
    const struct json *value = json_get(job->body, name);
    int64_t n;
    if (json_is_absent(value))
        return true;
    if (json_to_int64(value, &n) && n >= 0 && n <= max) {
        *out = (uint32_t)n;
        return true;
    }
    chat_fault_set(fault, 400, NULL, name, "%s must be a whole number up to %u", name, (unsigned)max);
    return false;
}

static bool read_context(struct job *job, struct chat_fault *fault)
{
    const char *strategy = json_text(json_get(job->body, "strategy"), NULL);
    const char *model = json_text(json_get(job->body, "model"), NULL);
    struct remember_wishes *wishes = &job->wishes;
    size_t index;
    *wishes = (struct remember_wishes){.budget_tokens = 1024, .strategy = CONTEXT_STRATEGY_COUNT};
    if (strategy && !context_strategy_find(strategy, &wishes->strategy)) {
        chat_fault_set(fault, 400, "unknown_strategy", "strategy", "there is no strategy \"%.40s\"",
                       strategy);
        return false;
    }
    if (model && !gateway_find(job->gateway, model, &index, fault))
        return false;
    job->has_counter = model && remember_counter(job->gateway, index, &job->counter);
    return read_number(job, "budget_tokens", MEMORY_CONTEXT_BUDGET_MAX, &wishes->budget_tokens, fault) &&
           read_number(job, "keep_recent", CHAT_MESSAGES_MAX, &wishes->keep_recent, fault);
}

/* ---- Feedback */

static void store_feedback(struct job *job)
{
    struct store_response response;
    struct ph_err err;
    const char *user = job->user ? job->user : MEMORY_USER_LOCAL;
    struct store_write write = {.kind = STORE_FEEDBACK, .user = user, .u.feedback = job->feedback};
    if (job->out.len == 0) { /* nobody else knows it */
        const char *id = job->feedback.response;
        enum ph_status status = store_find_response(job->store, &job->arena, user, id, &response, &err);
        if (status == PH_ERR_NOTFOUND)
            fail(job, 404, "route_not_found", "response_id", "no answer \"%.100s\" is remembered", id);
        else if (check(job, status, &err, NULL))
            buf_puts(&job->out, "{\"response_id\":");
        if (job->failed)
            return;
        json_write_string(&job->out, id, strlen(id));
        buf_puts(&job->out, ",\"score\":");
        json_write_double(&job->out, job->feedback.score);
        buf_putc(&job->out, '}');
    }
    (void)write_store(job, &write);
}

void remember_verdict(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit,
                      const struct buf *line, const char *response_id, double score, const char *note)
{
    struct visit plain = {visit->caller, ""};
    struct job *job = job_new(gateway, exchange, &plain, true);
    if (!job)
        return;
    if (line)
        buf_append(&job->out, line->data, line->len);
    job->feedback = (struct store_feedback){.response = response_id, .score = score, .note = note};
    start(job, store_feedback);
}

/* ---- Handlers */

void handle_conversation_create(struct gateway *gateway, struct http_exchange *exchange,
                                const struct visit *visit)
{
    struct job *job = job_new(gateway, exchange, visit, true);
    if (job)
        start(job, create_conversation);
}

/* What a path of a conversation, or of a response, means by this method. */
static void begin(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit,
                  const char *part, void (*whole)(struct job *job), void (*list)(struct job *job),
                  void (*one)(struct job *job))
{
    bool has_body = strcmp(http_exchange_request(exchange)->method, "POST") == 0;
    struct job *job = job_new(gateway, exchange, visit, has_body);
    if (!job)
        return;
    void (*work)(struct job *) = NULL;
    bool is_part = job->part && strcmp(job->part, part) == 0;
    if (!*job->id || (job->part && !is_part))
        work = NULL;
    else if (!job->part)
        work = whole;
    else
        work = job->part_id ? one : list;
    if (work)
        start(job, work);
    else
        refuse(gateway, exchange);
}

void handle_conversation_get(struct gateway *gateway, struct http_exchange *exchange,
                             const struct visit *visit)
{
    begin(gateway, exchange, visit, "items", show_conversation, list_items, show_item);
}

void handle_conversation_post(struct gateway *gateway, struct http_exchange *exchange,
                              const struct visit *visit)
{
    begin(gateway, exchange, visit, "items", update_conversation, add_new_items, NULL);
}

void handle_conversation_delete(struct gateway *gateway, struct http_exchange *exchange,
                                const struct visit *visit)
{
    begin(gateway, exchange, visit, "items", delete_conversation, NULL, delete_item);
}

void handle_response_get(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    begin(gateway, exchange, visit, "input_items", show_response, list_input, NULL);
}

void handle_response_delete(struct gateway *gateway, struct http_exchange *exchange,
                            const struct visit *visit)
{
    begin(gateway, exchange, visit, "input_items", delete_response, NULL, NULL);
}

void handle_context(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    struct job *job = job_new(gateway, exchange, visit, true);
    struct chat_fault fault;
    if (!job)
        return;
    if (read_context(job, &fault))
        start(job, build_context);
    else
        gateway_reply_fault(gateway, exchange, &fault);
}
