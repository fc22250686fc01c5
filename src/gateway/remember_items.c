/* Items by their ids: what OpenAI's Responses and Conversations call an item is a message here, or a part of
 * one (chat_item_id_read says which), so whoever names an item names a place in a message.
 *
 * An input may hold references instead of items: {"type": "item_reference", "id": "msg_..."}, or the id
 * alone. They are exchanged for the items themselves before anybody else reads the input; so one reading of
 * items serves both, and an assistant's items that were named one by one become one message again. A
 * reference names no conversation. It is looked for where the request belongs, then where the one before it
 * was found, then by the response that said it, and at last among all conversations of this user: never
 * elsewhere, so what another user has is as unknown as what nobody has. */
#include <string.h>

#include "gateway/gateway_int.h"

#define RECALL_BYTES_MAX (256u << 20)

enum ph_status remember_item_find(struct store *store, struct arena *arena, int64_t conversation,
                                  const char *item, struct store_message *out, size_t *index,
                                  struct ph_err *err)
{
    char id[CHAT_ITEM_ID_MAX] = "";
    enum ph_status status = PH_ERR_NOTFOUND;
    *index = 0;
    if (strlen(item) <= STORE_ID_BYTES_MAX)
        status = store_find_message(store, arena, conversation, item, out, err);
    if (status == PH_ERR_NOTFOUND && chat_item_id_read(item, id, index))
        status = store_find_message(store, arena, conversation, id, out, err);
    if (status == PH_ERR_NOTFOUND && strncmp(id, "msg_", 4) == 0) /* imported with an id of its own */
        status = store_find_message(store, arena, conversation, id + 4, out, err);
    return status == PH_ERR_NOTFOUND ? ph_fail(err, status, "there is no item \"%.100s\"", item) : status;
}

const struct json *remember_items(struct arena *arena, const struct store_message *stored)
{
    struct memory_message message;
    struct json *list = NULL;
    struct buf text;
    if (!memory_message_read(arena, stored, &message))
        return NULL;
    buf_init(&text, CHAT_REPLY_BYTES_MAX);
    buf_putc(&text, '[');
    (void)chat_items_write(&message.chat, stored->id, message.is_cut, &text);
    buf_putc(&text, ']');
    if (buf_status(&text) != PH_OK || json_parse(arena, text.data, text.len, &list, NULL) != PH_OK)
        list = NULL;
    buf_release(&text);
    return list;
}

/* ---- References */

struct resolving {
    struct store *store;
    struct arena *arena;
    const char *user;
    int64_t conversation; /* where the last one was found, or the request belongs; 0: nowhere yet */
    struct chat_fault *fault;
};

static enum ph_status find_by_response(struct resolving *r, const char *item, struct store_message *out,
                                       size_t *index, struct ph_err *err)
{
    char id[CHAT_ITEM_ID_MAX], name[CHAT_ITEM_ID_MAX + 1] = "resp_";
    struct store_response response;
    if (!chat_item_id_read(item, id, index))
        return ph_fail(err, PH_ERR_NOTFOUND, "not an id of ours");
    memcpy(name + 5, id + 4, strlen(id + 4) + 1); /* behind "msg_" */
    enum ph_status status = store_find_response(r->store, r->arena, r->user, name, &response, err);
    if (status != PH_OK)
        return status;
    return remember_item_find(r->store, r->arena, response.conversation, item, out, index, err);
}

static enum ph_status find_anywhere(struct resolving *r, const char *item, struct store_message *out,
                                    size_t *index, struct ph_err *err)
{
    char id[CHAT_ITEM_ID_MAX] = "";
    const char *const names[] = {item, chat_item_id_read(item, id, index) ? id : NULL, *id ? id + 4 : NULL};
    enum ph_status status = PH_ERR_NOTFOUND;
    int64_t conversation;
    for (size_t i = 0; status == PH_ERR_NOTFOUND && i < sizeof names / sizeof names[0]; i++)
        if (names[i] && strlen(names[i]) <= STORE_ID_BYTES_MAX)
            status = store_find_owned(r->store, r->user, names[i], &conversation, err);
    if (status != PH_OK)
        return status == PH_ERR_NOTFOUND ? ph_fail(err, status, "there is no such item") : status;
    return remember_item_find(r->store, r->arena, conversation, item, out, index, err);
}

/* The item that a reference names; NULL: the fault says why not. */
static const struct json *find_item(struct resolving *r, const char *item)
{
    struct store_message message = {.conversation = 0};
    struct ph_err err = {.code = PH_OK};
    size_t index = 0;
    enum ph_status status = PH_ERR_NOTFOUND;
    if (r->conversation)
        status = remember_item_find(r->store, r->arena, r->conversation, item, &message, &index, &err);
    if (status == PH_ERR_NOTFOUND)
        status = find_by_response(r, item, &message, &index, &err);
    if (status == PH_ERR_NOTFOUND)
        status = find_anywhere(r, item, &message, &index, &err);
    if (status != PH_OK && status != PH_ERR_NOTFOUND) {
        remember_fault(&err, r->fault);
        return NULL;
    }
    const struct json *items = status == PH_OK ? remember_items(r->arena, &message) : NULL;
    if (status == PH_OK && !items) {
        chat_fault_set(r->fault, 503, NULL, NULL, "out of memory");
        return NULL;
    }
    const struct json *found = json_at(items, index);
    if (found)
        r->conversation = message.conversation;
    else /* in OpenAI's own words, which clients look for */
        chat_fault_set(r->fault, 404, NULL, "input", "Item with id '%.100s' not found.", item);
    return found;
}

static bool too_many(const struct json *items, struct chat_fault *fault)
{
    size_t count = 0;
    JSON_EACH (item, items)
        count += chat_item_refers(item) != NULL;
    if (count <= MEMORY_REFERENCES_MAX)
        return false;
    chat_fault_set(fault, 400, NULL, "input", "input has %zu references to items; at most %d are looked up",
                   count, MEMORY_REFERENCES_MAX);
    return true;
}

static struct json *resolve(struct resolving *r, const struct json *items)
{
    struct json *list = json_new(r->arena, JSON_ARRAY);
    if (too_many(items, r->fault))
        return NULL;
    JSON_EACH (item, items) {
        const char *id = chat_item_refers(item);
        const struct json *whole = id ? find_item(r, id) : item;
        if (!whole)
            return NULL;
        if (!json_push(list, json_copy(r->arena, whole))) {
            chat_fault_set(r->fault, 503, NULL, NULL, "out of memory");
            return NULL;
        }
    }
    return list;
}

struct json *remember_resolve(struct store *store, struct arena *arena, const char *user,
                              int64_t conversation, const struct json *items, struct chat_fault *fault)
{
    struct resolving r = {store, arena, user, conversation, fault};
    return resolve(&r, items);
}

/* ---- Of a request */

struct recall {
    struct gateway *gateway;
    struct arena arena;
    const struct chat_request *request;
    const char *user;
    struct json *input; /* with items only; NULL: the fault says why not */
    struct chat_fault fault;
    void (*ready)(void *ud);
    void *ud;
};

/* Where the request belongs, and to whom: as memory_turn_open will see it. */
static enum ph_status find_place(struct recall *recall, struct resolving *r, struct ph_err *err)
{
    const struct chat_request *request = recall->request;
    struct memory_response response;
    struct store_conversation conversation;
    enum ph_status status = PH_OK;
    r->user = recall->user ? recall->user : MEMORY_USER_LOCAL;
    if (request->previous_response) {
        status = memory_find_response(recall->gateway->memory, r->arena, recall->user,
                                      request->previous_response, &response, err);
        r->conversation = status == PH_OK ? response.stored.conversation : 0;
    } else if (request->conversation && strlen(request->conversation) <= STORE_KEY_BYTES_MAX) {
        status = store_find_conversation(r->store, r->arena, recall->user, request->conversation,
                                         &conversation, err);
        if (status == PH_OK) {
            r->conversation = conversation.number;
            r->user = conversation.user_name;
        }
    }
    return status == PH_ERR_NOTFOUND ? PH_OK : status; /* that is said when the turn is opened */
}

/* A helper thread. */
static void look_up(void *ud)
{
    struct recall *recall = ud;
    struct ph_err err;
    struct resolving r = {.arena = &recall->arena, .fault = &recall->fault};
    enum ph_status status = memory_store(recall->gateway->memory, &r.store, &err);
    if (status == PH_OK)
        status = find_place(recall, &r, &err);
    if (status == PH_OK)
        recall->input = resolve(&r, json_get(recall->request->raw, "input"));
    else
        remember_fault(&err, &recall->fault);
}

static void on_looked_up(void *ud)
{
    struct recall *recall = ud;
    recall->ready(recall->ud);
}

static void release(void *ud)
{
    struct recall *recall = ud;
    arena_release(&recall->arena);
}

struct recall *remember_recall(struct gateway *gateway, struct http_exchange *exchange,
                               const struct caller *caller, const struct chat_request *request,
                               void (*ready)(void *ud), void *ud, struct chat_fault *fault)
{
    struct arena *arena = http_exchange_arena(exchange);
    struct recall *recall = arena_calloc(arena, 1, sizeof *recall);
    if (!recall || arena_on_release(arena, release, recall) != 0) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return NULL;
    }
    arena_init(&recall->arena, RECALL_BYTES_MAX);
    recall->gateway = gateway;
    recall->request = request;
    recall->ready = ready;
    recall->ud = ud;
    if (!remember_user(exchange, caller, request->user, &recall->user, fault))
        return NULL;
    if (net_work(gateway->loop, look_up, on_looked_up, recall) == PH_OK)
        return recall;
    chat_fault_set(fault, 503, "server_overloaded", NULL,
                   "too many conversations are being loaded; try again in a second");
    fault->retry_after_s = 1;
    return NULL;
}

const struct json *remember_recalled(struct recall *recall, struct chat_fault *fault)
{
    struct json *body = recall->input ? json_share(&recall->arena, recall->request->raw) : NULL;
    if (!recall->input)
        *fault = recall->fault;
    else if (!json_set(&recall->arena, body, "input", recall->input))
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
    else
        return body;
    return NULL;
}
