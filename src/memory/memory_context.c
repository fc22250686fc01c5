/* A context for whoever asks for one: items with their scores and reasons, as POST /v1/context and
 * `pharos context` give them. */
#include <string.h>

#include "base/mem.h"
#include "memory/memory_int.h"

struct building {
    struct memory *memory;
    const struct memory_context_params *params;
    struct arena *arena;
    struct memory_user *user;
    struct store *store;
    struct history *history; /* when a conversation was named */
    struct memory_context *out;
    struct ph_err *err;
};

static uint32_t cost_in_history(void *ud, int64_t number)
{
    struct building *b = ud;
    size_t low = 0, high = b->history->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (b->history->list[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == b->history->count || b->history->list[low].number != number)
        return COST_NEVER;
    return history_cost(b->history, low, b->params->counter);
}

/* Without a conversation the model's own counts need the texts of candidates, one by one. */
static uint32_t cost_in_store(void *ud, int64_t number)
{
    struct building *b = ud;
    struct store_messages found;
    struct memory_message message;
    if (store_read_numbers(b->store, b->arena, b->user->number, &number, 1, &found, NULL) != PH_OK ||
        found.count != 1 || found.items[0].number != number ||
        !memory_message_read(b->arena, &found.items[0], &message))
        return COST_NEVER;
    return memory_cost(&message.chat, b->params->counter);
}

/* The keys of conversations, by their numbers. */
static enum ph_status name_conversations(struct building *b)
{
    struct store_filter filter = {.user = b->user->name};
    struct store_conversations page = {.more = true};
    size_t missing = b->out->count;
    for (size_t i = 0; b->params->conversation && i < b->out->count; i++)
        b->out->items[i].conversation = b->params->conversation;
    if (b->params->conversation)
        return PH_OK;
    while (page.more && missing) {
        enum ph_status status = store_list_conversations(b->store, b->arena, &filter, &page, b->err);
        if (status != PH_OK)
            return status;
        for (size_t c = 0; c < page.count; c++)
            for (size_t i = 0; i < b->out->count; i++)
                if (b->out->items[i].message.conversation == page.items[c].number) {
                    b->out->items[i].conversation = page.items[c].key;
                    missing--;
                }
        if (page.count == 0)
            break;
        filter.after_ms = page.items[page.count - 1].updated_ms;
        filter.after_number = page.items[page.count - 1].number;
    }
    return PH_OK;
}

static enum ph_status take_result(struct building *b, const struct context_result *result)
{
    struct store_messages messages;
    int64_t *numbers = arena_alloc(b->arena, (result->count + 1) * sizeof *numbers);
    b->out->items = arena_calloc(b->arena, result->count + 1, sizeof *b->out->items);
    if (!numbers || !b->out->items)
        return ph_fail(b->err, PH_ERR_NOMEM, "no memory for the context");
    for (size_t i = 0; i < result->count; i++)
        numbers[i] = result->items[i].message;
    enum ph_status status = result->count ? store_read_numbers(b->store, b->arena, b->user->number, numbers,
                                                               result->count, &messages, b->err)
                                          : PH_OK;
    if (status != PH_OK)
        return status;
    for (size_t i = 0; i < result->count; i++) {
        if (messages.items[i].number == 0) /* deleted meanwhile */
            continue;
        struct memory_context_item *item = &b->out->items[b->out->count++];
        item->message = messages.items[i];
        item->item = result->items[i];
        item->conversation = "";
    }
    b->out->tokens = result->tokens;
    b->out->turns = result->turns;
    b->out->candidates = result->candidates;
    return name_conversations(b);
}

static enum ph_status build(struct building *b, const struct store_conversation *conversation)
{
    const struct memory_context_params *params = b->params;
    struct context_result result;
    bool was_there;
    enum ph_status status = memory_user_refresh(b->user, b->store, b->arena, b->err);
    if (status == PH_OK && params->counter && conversation->number)
        status = history_load(b->memory, b->user, b->store, conversation, &b->history, &was_there, b->err);
    if (status == PH_OK)
        status = memory_user_index(b->memory, b->user, b->err);
    struct context_request request = {.conversation = conversation->number,
                                      .query = params->query,
                                      .query_len = params->query_len,
                                      .query_name = params->query_name,
                                      .budget_tokens = params->budget_tokens,
                                      .strategy = b->out->strategy,
                                      .keep_recent = params->keep_recent,
                                      .now = clock_unix_ms(b->memory->clock) / 1000,
                                      .cost_ud = b};
    if (params->counter)
        request.cost = b->history ? cost_in_history : cost_in_store;
    if (status == PH_OK) {
        memory_find_near(b->memory, b->user, b->arena, &request);
        status = context_build(b->user->index, &request, b->arena, &result, b->err);
    }
    return status == PH_OK ? take_result(b, &result) : status;
}

enum ph_status memory_context_build(struct memory *memory, struct arena *arena,
                                    const struct memory_context_params *params, struct memory_context *out,
                                    struct ph_err *err)
{
    struct building b = {.memory = memory, .params = params, .arena = arena, .out = out, .err = err};
    struct store_conversation conversation = {.number = 0};
    const char *user = params->user ? params->user : MEMORY_USER_LOCAL;
    *out = (struct memory_context){.count = 0};
    enum ph_status status = memory_store(memory, &b.store, err);
    out->strategy = memory_strategy(memory, params->strategy);
    if (status == PH_OK && params->conversation) {
        status =
            store_find_conversation(b.store, arena, params->user, params->conversation, &conversation, err);
        if (status == PH_ERR_NOTFOUND)
            return ph_fail(err, status, "there is no conversation \"%.100s\"", params->conversation);
        user = conversation.user_name;
    }
    if (status != PH_OK)
        return status;
    b.user = memory_enter(memory, user);
    if (!b.user)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the context");
    status = build(&b, &conversation);
    memory_leave(memory, b.user);
    return status;
}
