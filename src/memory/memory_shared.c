/* Conversations from the cache that stations share (hot.h), and into it.
 *
 * A conversation goes there whole, as rows of the store, when it has grown by a part since it last went
 * there; so each message is written a few times in its life. It comes from there when it is not in this
 * process, and holds only if the store says so:
 *  S1  nothing was deleted from this user since (store_user.deletions);
 *  S2  its last message is in the store at that place, word for word: ids are not made twice, and what is
 *      before a message never changes but by S1, so a value of another store, or of a time before a backup
 *      was put back, does not pass;
 *  S3  with what the store has behind that, there are as many messages as the store counts.
 * S2 costs nothing: it is one row more of the read that catches up. What does not hold is read from the
 * store, and put in its place. */
#include <string.h>

#include "base/mem.h"
#include "memory/hot.h"
#include "memory/memory_int.h"

#define SCRATCH_BYTES_MAX (1u << 30)

static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool same_message(const struct store_message *a, const struct store_message *b)
{
    return a->number == b->number && a->seq == b->seq && a->created_ms == b->created_ms &&
           a->content_kind == b->content_kind && a->content_len == b->content_len &&
           (!a->content_len || memcmp(a->content, b->content, a->content_len) == 0) &&
           same_text(a->id, b->id) && same_text(a->role, b->role) && same_text(a->name, b->name) &&
           same_text(a->extra, b->extra);
}

/* S3 */
static bool is_whole(const struct history *history, const struct store_conversation *conversation)
{
    size_t count = history->count;
    while (count && history->list[count - 1].seq >= conversation->next_seq)
        count--; /* stored since the conversation was looked up */
    return (int64_t)count == conversation->messages;
}

/* Fills an empty history. PH_ERR_CONFLICT: the value does not hold. */
static enum ph_status take_value(struct history *history, struct store *store,
                                 const struct store_conversation *conversation,
                                 const struct store_messages *value, struct arena *arena, struct ph_err *err)
{
    const struct store_message *last = &value->items[value->count - 1];
    struct store_range range = {.conversation = history->number, .from_seq = last->seq};
    struct store_messages rest;
    enum ph_status status = store_read_messages(store, arena, &range, &rest, err);
    if (status != PH_OK)
        return status;
    if (!rest.count || !same_message(&rest.items[0], last)) /* S2 */
        return PH_ERR_CONFLICT;
    rest.items++;
    rest.count--;
    status = history_take(history, value);
    if (status == PH_OK)
        status = history_take(history, &rest);
    if (status != PH_OK)
        return ph_fail(err, status, "no memory for the conversation \"%.100s\"", conversation->key);
    history->shared_count = value->count;
    return is_whole(history, conversation) ? PH_OK : PH_ERR_CONFLICT;
}

enum ph_status history_recall(struct memory *memory, struct memory_user *user, struct store *store,
                              const struct store_conversation *conversation, struct history *history,
                              struct ph_err *err)
{
    char name[MEMORY_HOT_NAME_MAX];
    struct arena arena;
    struct buf bytes;
    struct store_messages value;
    int64_t deletions;
    if (!memory->hot || conversation->messages < MEMORY_HOT_MESSAGES_MIN ||
        !hot_value_name(conversation, name))
        return PH_ERR_NOTFOUND;
    arena_init(&arena, SCRATCH_BYTES_MAX);
    buf_init(&bytes, MEMORY_HOT_BYTES_MAX);
    enum ph_status status = PH_ERR_NOTFOUND;
    if (hot_get(memory->hot, name, &bytes)) {
        status = PH_ERR_CONFLICT;
        if (hot_value_read(&arena, name, bytes.data, bytes.len, &deletions, &value) &&
            deletions == user->deletions) /* S1 */
            status = take_value(history, store, conversation, &value, &arena, err);
    }
    buf_release(&bytes);
    arena_release(&arena);
    memory_count_shared(memory, status);
    return status;
}

void history_share(struct memory *memory, const struct memory_user *user,
                   const struct store_conversation *conversation, struct history *history)
{
    char name[MEMORY_HOT_NAME_MAX];
    size_t grown = history->count - history->shared_count;
    if (!memory->hot || !history->packed.len || buf_status(&history->packed) != PH_OK ||
        grown < MEMORY_HOT_MESSAGES_MIN || grown < history->shared_count / MEMORY_HOT_GROWTH ||
        !hot_value_name(conversation, name) ||
        !hot_value_seal(&history->packed, name, user->deletions, history->count))
        return;
    hot_put(memory->hot, name, history->packed.data, history->packed.len);
    history->shared_count = history->count;
}

void memory_forget(struct memory *memory, const struct store_conversation *conversation)
{
    char name[MEMORY_HOT_NAME_MAX];
    if (memory->hot && hot_value_name(conversation, name))
        hot_drop(memory->hot, name);
}
