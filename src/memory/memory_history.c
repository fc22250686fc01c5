/* Conversations in memory: the messages of one, as chats have them, caught up from the store by seq: whoever
 * else writes to it, another station too, what is here is never older than the store was at this call.
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
    buf_release(&history->packed);
    mem_free(history->list);
    mem_free(history->notes);
    mem_free(history->chosen);
    mem_free(history->model);
    mem_free(history->key);
    mem_free(history);
}

static struct history *history_new(const struct memory *memory, const struct store_conversation *conversation)
{
    struct history *history = mem_calloc(1, sizeof *history);
    if (!history)
        return NULL;
    arena_init(&history->arena, HISTORY_BYTES_MAX);
    history->key = mem_strdup(conversation->key);
    history->number = conversation->number;
    buf_init(&history->packed, MEMORY_HOT_BYTES_MAX);
    if (memory->hot)
        hot_value_begin(&history->packed);
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
    struct history_note *notes = mem_realloc(history->notes, capacity, sizeof *notes);
    if (notes)
        history->notes = notes;
    if (!list || !notes)
        return false;
    history->capacity = capacity;
    return true;
}

static bool is_system(const struct memory_message *message)
{
    return message->chat.role == CHAT_SYSTEM || message->chat.role == CHAT_DEVELOPER;
}

static struct history_note note_of(const struct memory_message *message)
{
    uint32_t flags = (message->is_head ? HISTORY_HEAD : 0) | (is_system(message) ? HISTORY_SYSTEM : 0) |
                     (message->is_branch ? HISTORY_BRANCH : 0) |
                     (message->chat.tool_call_count ? HISTORY_CALLS : 0) |
                     (message->chat.role == CHAT_TOOL ? HISTORY_RESULT : 0);
    return (struct history_note){.flags = flags, .estimate = message->tokens};
}

/* One that became too large for the shared cache is none of its business any more. */
static void pack(struct history *history, const struct store_message *message)
{
    if (!history->packed.len)
        return;
    hot_value_add(&history->packed, message);
    if (buf_status(&history->packed) == PH_OK)
        return;
    buf_release(&history->packed);
    buf_init(&history->packed, 0);
}

enum ph_status history_take(struct history *history, const struct store_messages *messages)
{
    if (!reserve(history, messages->count))
        return PH_ERR_NOMEM;
    for (size_t i = 0; i < messages->count; i++) {
        struct memory_message *message = &history->list[history->count];
        if (!memory_message_read(&history->arena, &messages->items[i], message))
            return PH_ERR_NOMEM;
        history->notes[history->count++] = note_of(message);
        history->next_seq = messages->items[i].seq + 1;
        pack(history, &messages->items[i]);
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
    if (status == PH_OK && history_take(history, &messages) != PH_OK)
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

/* A history for a conversation that is not in memory, from wherever it is had first. */
static enum ph_status make(struct memory *memory, struct memory_user *user, struct store *store,
                           const struct store_conversation *conversation, struct history **out,
                           struct ph_err *err)
{
    struct history *history = history_new(memory, conversation);
    enum ph_status status =
        history ? history_recall(memory, user, store, conversation, history, err) : PH_ERR_NOMEM;
    if (status == PH_ERR_CONFLICT) {
        history_free(history);
        history = history_new(memory, conversation);
    }
    *out = history;
    if (!history)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the conversation \"%.100s\"", conversation->key);
    return status == PH_ERR_CONFLICT || status == PH_ERR_NOTFOUND ? PH_OK : status;
}

enum ph_status history_load(struct memory *memory, struct memory_user *user, struct store *store,
                            const struct store_conversation *conversation, struct history **out,
                            bool *was_there, struct ph_err *err)
{
    struct history *history = find(user, conversation);
    enum ph_status status = PH_OK;
    *was_there = history != NULL;
    if (!history)
        status = make(memory, user, store, conversation, &history, err);
    if (status == PH_OK)
        status = catch_up(history, store, conversation, err);
    if (status != PH_OK) {
        history_free(history);
        return status;
    }
    history_share(memory, user, conversation, history);
    while (user->history_count >= MEMORY_USER_CONVERSATIONS_MAX)
        drop_oldest(user);
    history->next = user->histories;
    user->histories = history;
    user->history_count++;
    *out = history;
    return PH_OK;
}

/* ---- The path */

/* The first message whose seq is not below. */
static size_t find_seq(const struct history *history, int64_t seq)
{
    size_t low = 0, high = history->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (history->list[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void history_path(const struct history *history, int64_t end, size_t *path, size_t *count, size_t *head,
                  size_t *head_count)
{
    size_t n = 0, heads = 0, stop = find_seq(history, end);
    bool in_head = false; /* the message before was one of a head */
    for (size_t i = 0; i < stop; i++) {
        uint32_t flags = history->notes[i].flags;
        if (flags & HISTORY_BRANCH)
            while (n && history->list[path[n - 1]].seq > history->list[i].after)
                n--;
        bool is_head = (flags & HISTORY_HEAD) || (n == 0 && (flags & HISTORY_SYSTEM));
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
    struct history_note *note = &history->notes[index];
    if (!counter)
        return note->estimate;
    if (!history->model || strcmp(history->model, counter->model) != 0) {
        mem_free(history->model);
        history->model = mem_strdup(counter->model);
        for (size_t i = 0; i < history->count; i++)
            history->notes[i].counted = 0;
    }
    if (!note->counted)
        note->counted = memory_cost(&history->list[index].chat, counter);
    return note->counted;
}
