/* Conversations in memory: the messages of one, as chats have them, caught up from the store by seq.
 *
 * A conversation is a tree. A message that was stored with `after` S begins a branch: what has a seq above S
 * is not part of the history any more (an answer made anew, a question put otherwise), though it stays in
 * the store. The path is what is left from the beginning to the end. */
#include <string.h>

#include "base/mem.h"
#include "memory/memory_int.h"

#define HISTORY_BYTES_MAX (1u << 30)

void history_free(struct history *history)
{
    if (!history)
        return;
    arena_release(&history->arena);
    mem_free(history->list);
    mem_free(history->counted);
    mem_free(history->chosen);
    mem_free(history->model);
    mem_free(history->key);
    mem_free(history);
}

static struct history *history_new(const struct store_conversation *conversation)
{
    struct history *history = mem_calloc(1, sizeof *history);
    if (!history)
        return NULL;
    arena_init(&history->arena, HISTORY_BYTES_MAX);
    history->key = mem_strdup(conversation->key);
    history->number = conversation->number;
    if (history->key)
        return history;
    history_free(history);
    return NULL;
}

static bool reserve(struct history *history, size_t more)
{
    if (history->count + more <= history->capacity)
        return true;
    size_t capacity = (history->count + more) * 3 / 2 + 16;
    struct memory_message *list = mem_realloc(history->list, capacity, sizeof *list);
    if (list)
        history->list = list;
    uint32_t *counted = mem_realloc(history->counted, capacity, sizeof *counted);
    if (counted)
        history->counted = counted;
    if (!list || !counted)
        return false;
    history->capacity = capacity;
    return true;
}

static enum ph_status take_messages(struct history *history, const struct store_messages *messages)
{
    if (!reserve(history, messages->count))
        return PH_ERR_NOMEM;
    for (size_t i = 0; i < messages->count; i++) {
        if (!memory_message_read(&history->arena, &messages->items[i], &history->list[history->count]))
            return PH_ERR_NOMEM;
        history->counted[history->count++] = 0;
        history->next_seq = messages->items[i].seq + 1;
    }
    return PH_OK;
}

static enum ph_status catch_up(struct history *history, struct store *store,
                               const struct store_conversation *conversation, struct ph_err *err)
{
    struct arena scratch;
    struct store_messages messages;
    struct store_range range = {.conversation = history->number, .from_seq = history->next_seq};
    if (history->next_seq >= conversation->next_seq)
        return PH_OK;
    arena_init(&scratch, HISTORY_BYTES_MAX);
    enum ph_status status = store_read_messages(store, &scratch, &range, &messages, err);
    if (status == PH_OK && take_messages(history, &messages) != PH_OK)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for the conversation \"%.100s\"", conversation->key);
    if (status == PH_OK && history->next_seq < conversation->next_seq)
        history->next_seq = conversation->next_seq;
    arena_release(&scratch);
    return status;
}

/* Takes it out of the user's list. NULL: it is not there, or not the same any more. */
static struct history *find(struct memory_user *user, const struct store_conversation *conversation)
{
    for (struct history **link = &user->histories; *link; link = &(*link)->next) {
        struct history *history = *link;
        if (history->number != conversation->number)
            continue;
        *link = history->next;
        user->history_count--;
        return history;
    }
    return NULL;
}

static void drop_oldest(struct memory_user *user)
{
    struct history **link = &user->histories;
    while ((*link)->next)
        link = &(*link)->next;
    history_free(*link);
    *link = NULL;
    user->history_count--;
}

enum ph_status history_load(struct memory_user *user, struct store *store,
                            const struct store_conversation *conversation, struct history **out,
                            bool *was_there, struct ph_err *err)
{
    struct history *history = find(user, conversation);
    *was_there = history != NULL;
    if (!history)
        history = history_new(conversation);
    if (!history)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the conversation \"%.100s\"", conversation->key);
    enum ph_status status = catch_up(history, store, conversation, err);
    if (status != PH_OK) {
        history_free(history);
        return status;
    }
    while (user->history_count >= MEMORY_USER_CONVERSATIONS_MAX)
        drop_oldest(user);
    history->next = user->histories;
    user->histories = history;
    user->history_count++;
    *out = history;
    return PH_OK;
}

/* ---- The path */

static bool is_system(const struct memory_message *message)
{
    return message->chat.role == CHAT_SYSTEM || message->chat.role == CHAT_DEVELOPER;
}

void history_path(const struct history *history, int64_t end, size_t *path, size_t *count, size_t *head,
                  size_t *head_count)
{
    size_t n = 0, heads = 0;
    bool in_head = false; /* the message before was one of a head */
    for (size_t i = 0; i < history->count && history->list[i].seq < end; i++) {
        const struct memory_message *message = &history->list[i];
        if (message->is_branch)
            while (n && history->list[path[n - 1]].seq > message->after)
                n--;
        bool is_head = message->is_head || (n == 0 && is_system(message));
        if (is_head) {
            heads = in_head ? heads : 0;
            head[heads++] = i;
        } else {
            path[n++] = i;
        }
        in_head = is_head;
    }
    *count = n;
    *head_count = heads;
}

/* ---- Costs */

uint32_t history_cost(struct history *history, size_t index, const struct memory_counter *counter)
{
    if (!counter)
        return history->list[index].tokens;
    if (!history->model || strcmp(history->model, counter->model) != 0) {
        mem_free(history->model);
        history->model = mem_strdup(counter->model);
        if (history->count)
            memset(history->counted, 0, history->count * sizeof *history->counted);
    }
    if (!history->counted[index])
        history->counted[index] = memory_cost(&history->list[index].chat, counter);
    return history->counted[index];
}
