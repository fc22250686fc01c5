/* A turn of a chat: what of a request is new, what of the conversation the model gets to see, what is stored.
 *
 * Recognising. A client sends its new messages alone, or the whole history with them, as it knows it. The
 * messages that are not system messages at the beginning are laid against the path of the conversation:
 *  - the end of the path is found in the request, with all that is before it in either, or with the message
 *    before it: what follows it is new. Nothing follows when a question is asked again that has no answer.
 *  - else, when the request has something that an assistant said (so it is a history), and a stretch of it is
 *    found further up in the path: the history was edited. What follows that stretch is new, and is a branch:
 *    the path goes on from there, what it left stays in the store.
 *  - else all of it is new.
 * System messages at the beginning hold for the conversation until others come; they are stored when they are
 * not those that hold already. A reply's beginning that the client gives is part of the reply.
 *
 * Choosing. What is new goes whole. When the rest of the path fits too, it goes whole and in order, so that
 * prompt caches hit. Else the newest `keep_recent` messages go, and context_build chooses among those before
 * them. Calls of tools and their results go together or not at all. Where something was left out between two
 * messages of one speaker they are joined: many templates demand that speakers take turns. */
#include <string.h>

#include "base/mem.h"
#include "memory/memory_int.h"

#define TURN_BYTES_MAX (512u << 20)
#define LOOK_BACK_MAX 64 /* messages at a request's end that may be where it leaves the path */
#define JOINT "\n\n"
#define BEGINNING "(An earlier part of this conversation.)"

/* One turn while it is being made. */
struct making {
    struct memory *memory;
    const struct memory_turn_params *params;
    struct memory_turn *turn;
    struct memory_user *user;
    struct store *store;
    struct history *history; /* NULL: a new conversation */
    struct arena *arena;     /* the turn's */
    struct ph_err *err;
    int64_t end;  /* the path ends before this seq */
    bool is_past; /* ... and others have come since */
    size_t *path, *head, path_count, head_count;
    size_t instructions, sent_head, sent_count; /* of the request's messages: instructions, head, the rest */
    const struct chat_message *sent;            /* the rest */
    size_t fresh_from;                          /* in `sent`: what is new */
    size_t known;                               /* of the path's end: sent too */
    bool *takes;                                /* one a message of the path: it is sent */
};

static enum ph_status no_memory(struct making *m)
{
    return ph_fail(m->err, PH_ERR_NOMEM, "no memory for this turn of the conversation");
}

static const struct memory_message *at(const struct making *m, size_t place)
{
    return &m->history->list[m->path[place]];
}

/* ---- Recognising */

static bool is_system(const struct chat_message *message)
{
    return message->role == CHAT_SYSTEM || message->role == CHAT_DEVELOPER;
}

static void divide_request(struct making *m)
{
    const struct chat_request *request = m->params->request;
    size_t count = request->message_count;
    m->instructions = request->instruction_count < count ? request->instruction_count : count;
    size_t i = m->instructions;
    while (i < count && is_system(&request->messages[i]))
        i++;
    m->sent_head = i - m->instructions;
    m->sent = request->messages + i;
    m->sent_count = count - i;
    if (request->continue_final_message && m->sent_count &&
        m->sent[m->sent_count - 1].role == CHAT_ASSISTANT) {
        m->sent_count--;
        m->turn->begun = m->sent[m->sent_count].content;
    }
}

/* How many messages before and at `sent[s]` and path[p] say the same, going back. */
static size_t run_back(const struct making *m, const uint64_t *prints, size_t s, size_t p)
{
    size_t run = 0;
    while (run <= s && run <= p && memory_says_same(at(m, p - run), &m->sent[s - run], prints[s - run]))
        run++;
    return run;
}

/* Is a stretch of this length, ending there, more than a coincidence? */
static bool is_telling(size_t run, size_t s, size_t p)
{
    return run && (run >= 2 || run == s + 1 || run == p + 1);
}

static bool find_end(struct making *m, const uint64_t *prints)
{
    size_t lowest = m->sent_count > LOOK_BACK_MAX ? m->sent_count - LOOK_BACK_MAX : 0;
    for (size_t s = m->sent_count; s-- > lowest;) {
        size_t run = run_back(m, prints, s, m->path_count - 1);
        if (is_telling(run, s, m->path_count - 1)) {
            m->fresh_from = s + 1;
            m->known = run;
            return true;
        }
    }
    return false;
}

static bool has_assistant(const struct making *m)
{
    for (size_t i = 0; i < m->sent_count; i++)
        if (m->sent[i].role == CHAT_ASSISTANT)
            return true;
    return false;
}

static void find_branch(struct making *m, const uint64_t *prints)
{
    size_t lowest = m->sent_count > LOOK_BACK_MAX ? m->sent_count - LOOK_BACK_MAX : 0;
    if (!has_assistant(m))
        return;
    for (size_t s = m->sent_count; s-- > lowest;)
        for (size_t p = m->path_count; p-- > 0;) {
            size_t run = run_back(m, prints, s, p);
            if (!is_telling(run, s, p))
                continue;
            m->fresh_from = s + 1;
            m->known = run;
            m->turn->is_branch = true;
            m->turn->after = at(m, p)->seq;
            m->path_count = p + 1;
            return;
        }
}

static enum ph_status recognise(struct making *m)
{
    m->fresh_from = 0;
    if (m->sent_count == 0 || m->path_count == 0)
        return PH_OK;
    uint64_t *prints = arena_alloc(m->arena, m->sent_count * sizeof *prints);
    if (!prints)
        return no_memory(m);
    for (size_t i = 0; i < m->sent_count; i++)
        prints[i] = memory_message_print(&m->sent[i]);
    if (!find_end(m, prints))
        find_branch(m, prints);
    return PH_OK;
}

/* ---- What is to be stored */

/* The system messages sent are those that hold already. */
static bool head_holds(const struct making *m)
{
    if (m->sent_head != m->head_count)
        return false;
    const struct chat_message *sent = m->params->request->messages + m->instructions;
    for (size_t i = 0; i < m->sent_head; i++)
        if (m->history->list[m->head[i]].print != memory_message_print(&sent[i]))
            return false;
    return true;
}

static bool add_fresh(struct making *m, const struct chat_message *message, bool is_head)
{
    struct memory_turn *turn = m->turn;
    struct memory_message *fresh = &turn->fresh[turn->fresh_count];
    char id[ID_TEXT_MAX];
    memory_make_id(m->memory, "msg_", id);
    *fresh = (struct memory_message){.id = arena_strdup(m->arena, id),
                                     .is_head = is_head,
                                     .tokens = memory_cost(message, m->params->counter)};
    if (turn->is_branch && turn->fresh_count == 0) {
        fresh->is_branch = true;
        fresh->after = turn->after;
    }
    turn->fresh_count++;
    return fresh->id && memory_chat_copy(m->arena, message, &fresh->chat);
}

static enum ph_status list_fresh(struct making *m)
{
    const struct chat_message *head = m->params->request->messages + m->instructions;
    size_t heads = m->sent_head && !head_holds(m) ? m->sent_head : 0;
    m->turn->fresh = arena_calloc(m->arena, heads + m->sent_count + 1, sizeof *m->turn->fresh);
    bool ok = m->turn->fresh != NULL;
    for (size_t i = 0; ok && i < heads; i++)
        ok = add_fresh(m, &head[i], true);
    for (size_t i = m->fresh_from; ok && i < m->sent_count; i++)
        ok = add_fresh(m, &m->sent[i], false);
    return ok ? PH_OK : no_memory(m);
}

/* ---- Choosing */

static uint32_t cost_of(const struct making *m, size_t place)
{
    return history_cost(m->history, m->path[place], m->params->counter);
}

static bool has_calls(const struct making *m, size_t place)
{
    return m->history->notes[m->path[place]].flags & HISTORY_CALLS;
}

static bool is_result(const struct making *m, size_t place)
{
    return m->history->notes[m->path[place]].flags & HISTORY_RESULT;
}

/* The first message of the group that this one is in: a call and its results, or it alone. */
static size_t group_begin(const struct making *m, size_t place)
{
    size_t first = place;
    while (first > 0 && is_result(m, first))
        first--;
    return has_calls(m, first) ? first : place;
}

static size_t group_end(const struct making *m, size_t first)
{
    size_t end = first + 1;
    while (has_calls(m, first) && end < m->path_count && is_result(m, end))
        end++;
    return end;
}

static uint32_t fixed_cost(struct making *m)
{
    const struct chat_request *request = m->params->request;
    uint64_t sum = m->params->counter ? MEMORY_TURN_MARGIN_TOKENS : 0;
    size_t own = m->instructions + m->sent_head;
    for (size_t i = 0; i < own; i++)
        sum += memory_cost(&request->messages[i], m->params->counter);
    for (size_t i = 0; !m->sent_head && i < m->head_count; i++)
        sum += history_cost(m->history, m->head[i], m->params->counter);
    for (size_t i = m->fresh_from; i < m->sent_count; i++)
        sum += memory_cost(&m->sent[i], m->params->counter);
    if (m->turn->begun.len)
        sum += memory_cost(&m->sent[m->sent_count], m->params->counter);
    return sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
}

/* The newest ones, whole groups, as far as they fit. Answers the first of them. */
static size_t take_recent(struct making *m, uint32_t *left)
{
    size_t first = m->path_count;
    while (first > 0 && m->path_count - first < m->params->keep_recent) {
        size_t begin = group_begin(m, first - 1);
        uint64_t cost = 0;
        for (size_t i = begin; i < first; i++)
            cost += cost_of(m, i);
        if (cost > *left)
            break;
        *left -= (uint32_t)cost;
        for (size_t i = begin; i < first; i++)
            m->takes[i] = true;
        first = begin;
    }
    return first;
}

static struct chat_text query_of(const struct making *m)
{
    for (size_t i = m->sent_count; i-- > m->fresh_from;)
        if (m->sent[i].role == CHAT_USER && m->sent[i].content.len)
            return m->sent[i].content;
    for (size_t i = m->path_count; i-- > 0;)
        if (at(m, i)->chat.role == CHAT_USER && at(m, i)->chat.content.len)
            return at(m, i)->chat.content;
    return (struct chat_text){"", 0};
}

/* The place of a number in the path; path_count: it is not there. */
static size_t place_of(const struct making *m, int64_t number)
{
    size_t low = 0, high = m->path_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (at(m, middle)->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < m->path_count && at(m, low)->number == number ? low : m->path_count;
}

static uint32_t cost_callback(void *ud, int64_t number)
{
    const struct making *m = ud;
    size_t place = place_of(m, number);
    if (place < m->path_count)
        return cost_of(m, place);
    return COST_NEVER; /* not of this path */
}

/* A group that was chosen in part is made whole, or left out. */
static void settle_groups(struct making *m, size_t end, uint32_t *left)
{
    for (size_t first = 0; first < end;) {
        size_t last = group_end(m, first), taken = 0;
        uint64_t missing = 0;
        for (size_t i = first; i < last; i++) {
            taken += m->takes[i];
            missing += m->takes[i] ? 0 : cost_of(m, i);
        }
        bool whole = taken && missing <= *left;
        if (whole)
            *left -= (uint32_t)missing;
        for (size_t i = first; i < last; i++) {
            if (!whole && m->takes[i])
                *left += cost_of(m, i);
            m->takes[i] = whole;
        }
        first = last;
    }
}

static enum ph_status keep_chosen(struct making *m)
{
    struct history *history = m->history;
    int64_t *numbers = mem_realloc(history->chosen, m->path_count + 1, sizeof *numbers);
    if (!numbers)
        return no_memory(m);
    history->chosen = numbers;
    history->chosen_count = 0;
    for (size_t i = 0; i < m->path_count; i++)
        if (m->takes[i])
            numbers[history->chosen_count++] = at(m, i)->number;
    return PH_OK;
}

/* What is said before an answer that would stand at the beginning: templates want a user there. */
static const struct chat_message beginning = {.role = CHAT_USER,
                                              .content = {BEGINNING, sizeof BEGINNING - 1}};

static bool needs_beginning(const struct making *m)
{
    size_t first = 0;
    while (first < m->path_count && !m->takes[first])
        first++;
    return first > 0 && first < m->path_count && at(m, first)->chat.role == CHAT_ASSISTANT;
}

static enum ph_status choose(struct making *m, uint32_t left)
{
    struct context_result result;
    struct arena scratch;
    struct chat_text query = query_of(m);
    uint32_t before = memory_cost(&beginning, m->params->counter);
    left -= before < left ? before : left;
    size_t recent = take_recent(m, &left);
    enum context_strategy strategy = memory_strategy(m->memory, m->params->strategy);
    m->turn->strategy = context_strategy_name(strategy);
    if (recent == 0 || left == 0)
        return PH_OK;
    enum ph_status status = memory_user_index(m->memory, m->user, m->err);
    if (status != PH_OK)
        return status;
    struct context_request request = {.conversation = m->history->number,
                                      .query = query.text,
                                      .query_len = query.len,
                                      .budget_tokens = left,
                                      .strategy = strategy,
                                      .before = at(m, recent - 1)->number + 1,
                                      .now = clock_unix_ms(m->memory->clock) / 1000,
                                      .previous = m->history->chosen,
                                      .previous_count = m->history->chosen_count,
                                      .cost = cost_callback,
                                      .cost_ud = m};
    arena_init(&scratch, TURN_BYTES_MAX);
    memory_find_near(m->memory, m->user, &scratch, &request);
    status = context_build(m->user->index, &request, &scratch, &result, m->err);
    for (size_t i = 0; status == PH_OK && i < result.count; i++) {
        size_t place = place_of(m, result.items[i].message);
        if (place >= recent || m->takes[place] || cost_of(m, place) > left)
            continue;
        m->takes[place] = true;
        left -= cost_of(m, place);
    }
    arena_release(&scratch);
    if (status == PH_OK)
        settle_groups(m, recent, &left);
    return status == PH_OK ? keep_chosen(m) : status;
}

static enum ph_status select_path(struct making *m)
{
    uint32_t fixed = fixed_cost(m), budget = m->params->budget_tokens;
    uint64_t all = 0;
    m->takes = arena_calloc(m->arena, m->path_count + 1, sizeof *m->takes);
    if (!m->takes)
        return no_memory(m);
    for (size_t i = 0; i < m->path_count; i++)
        all += cost_of(m, i);
    m->turn->strategy = "all";
    m->turn->budget_tokens = budget;
    if (budget && fixed + all > budget) {
        enum ph_status status = choose(m, fixed < budget ? budget - fixed : 0);
        if (status != PH_OK)
            return status;
    } else {
        memset(m->takes, true, m->path_count * sizeof *m->takes);
    }
    uint64_t tokens = fixed + (needs_beginning(m) ? memory_cost(&beginning, m->params->counter) : 0);
    for (size_t i = 0; i < m->path_count; i++)
        if (m->takes[i]) {
            tokens += cost_of(m, i);
            m->turn->chosen++;
        }
    m->turn->history = m->path_count;
    m->turn->tokens = tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
    return PH_OK;
}

/* ---- What is sent */

/* Thoughts go back only where a provider asks for them: with calls whose results it waits for. */
static void drop_thoughts(struct chat_message *message)
{
    const struct chat_part *parts = message->parts;
    size_t skip = 0;
    if (message->tool_call_count || !message->part_count)
        return;
    while (skip < message->part_count && parts[skip].kind == CHAT_PART_REASONING)
        skip++;
    message->parts = parts + skip;
    message->part_count -= skip;
    if (message->part_count == 1 && message->parts[0].kind == CHAT_PART_TEXT) {
        message->parts = NULL;
        message->part_count = 0;
    }
}

static bool may_join(const struct chat_message *a, const struct chat_message *b)
{
    return a->role == b->role && a->role != CHAT_TOOL && !a->part_count && !b->part_count &&
           !a->tool_call_count && !b->tool_call_count &&
           (a->name == b->name || (a->name && b->name && strcmp(a->name, b->name) == 0));
}

static bool join(struct arena *arena, struct chat_message *to, const struct chat_message *from)
{
    size_t len = to->content.len + sizeof JOINT - 1 + from->content.len;
    char *text = arena_alloc(arena, len + 1);
    if (!text)
        return false;
    memcpy(text, to->content.len ? to->content.text : "", to->content.len);
    memcpy(text + to->content.len, JOINT, sizeof JOINT - 1);
    if (from->content.len)
        memcpy(text + to->content.len + sizeof JOINT - 1, from->content.text, from->content.len);
    text[len] = 0;
    to->content = (struct chat_text){text, len};
    return true;
}

static bool send_path(struct making *m)
{
    struct memory_turn *turn = m->turn;
    size_t first = turn->message_count, before = m->path_count; /* the message sent last */
    for (size_t i = 0; i < m->path_count; i++) {
        if (!m->takes[i])
            continue;
        struct chat_message message;
        if (!memory_chat_copy(m->arena, &at(m, i)->chat, &message))
            return false;
        drop_thoughts(&message);
        if (turn->message_count == first && i > 0 && message.role == CHAT_ASSISTANT)
            turn->messages[turn->message_count++] = beginning;
        struct chat_message *last =
            turn->message_count > first ? &turn->messages[turn->message_count - 1] : NULL; /* of the path */
        if (last && before + 1 != i && may_join(last, &message)) {
            if (!join(m->arena, last, &message))
                return false;
        } else {
            turn->messages[turn->message_count++] = message;
        }
        before = i;
    }
    return true;
}

/* The request is what would be sent: then it goes as it came, with all that its dialect says besides. */
static bool is_as_sent(const struct making *m)
{
    return m->turn->chosen == m->path_count && m->known == m->path_count && m->known == m->fresh_from &&
           (m->sent_head || !m->head_count);
}

static enum ph_status write_messages(struct making *m)
{
    struct memory_turn *turn = m->turn;
    const struct chat_request *request = m->params->request;
    turn->messages = arena_calloc(m->arena, turn->chosen + m->head_count + request->message_count + 2,
                                  sizeof *turn->messages);
    bool ok = turn->messages != NULL;
    if (!ok)
        return no_memory(m);
    if (is_as_sent(m)) {
        memcpy(turn->messages, request->messages, request->message_count * sizeof *turn->messages);
        turn->message_count = request->message_count;
        return PH_OK;
    }
    turn->is_changed = true;
    size_t own = m->instructions + m->sent_head;
    for (size_t i = 0; i < own; i++)
        turn->messages[turn->message_count++] = request->messages[i];
    for (size_t i = 0; ok && !m->sent_head && i < m->head_count; i++)
        ok = memory_chat_copy(m->arena, &m->history->list[m->head[i]].chat,
                              &turn->messages[turn->message_count++]);
    ok = ok && send_path(m);
    for (size_t i = m->fresh_from; ok && i < m->sent_count; i++)
        turn->messages[turn->message_count++] = m->sent[i];
    if (turn->begun.text)
        turn->messages[turn->message_count++] = m->sent[m->sent_count];
    return ok ? PH_OK : no_memory(m);
}

/* ---- Whose it is */

static enum ph_status not_found(struct making *m)
{
    if (m->params->previous_response)
        return ph_fail(m->err, PH_ERR_NOTFOUND, "there is no response \"%.100s\"",
                       m->params->previous_response);
    return ph_fail(m->err, PH_ERR_NOTFOUND, "there is no conversation \"%.100s\"",
                   m->params->conversation ? m->params->conversation : "");
}

/* Who, and where: NULL user becomes the conversation's own, or "local". */
static enum ph_status find_conversation(struct making *m, struct store_conversation *out)
{
    struct memory_turn *turn = m->turn;
    enum ph_status status =
        store_find_conversation(m->store, m->arena, m->params->user, turn->key, out, m->err);
    turn->user = status == PH_OK ? out->user_name : (m->params->user ? m->params->user : MEMORY_USER_LOCAL);
    if (status == PH_ERR_NOTFOUND && !turn->must_exist) {
        out->number = 0;
        return PH_OK;
    }
    return status == PH_ERR_NOTFOUND ? not_found(m) : status;
}

static enum ph_status find_previous(struct making *m)
{
    struct memory_response response;
    const char *id = m->params->previous_response;
    m->end = INT64_MAX;
    if (!id) {
        m->turn->key = m->params->conversation;
        return PH_OK;
    }
    enum ph_status status = memory_find_response(m->memory, m->arena, m->params->user, id, &response, m->err);
    if (status != PH_OK)
        return status == PH_ERR_NOTFOUND ? not_found(m) : status;
    if (!response.stored.conversation || !response.key)
        return not_found(m);
    m->turn->key = response.key;
    m->turn->previous = id;
    m->turn->must_exist = true;
    m->end = response.stored.end_seq;
    return PH_OK;
}

static enum ph_status load(struct making *m, const struct store_conversation *conversation)
{
    bool was_there = false;
    enum ph_status status = PH_OK;
    if (conversation->number)
        status = memory_user_refresh(m->user, m->store, m->arena, m->err);
    if (status == PH_OK && conversation->number)
        status = history_load(m->memory, m->user, m->store, conversation, &m->history, &was_there, m->err);
    memory_count_turn(m->memory, was_there);
    if (status != PH_OK || !m->history)
        return status;
    size_t count = m->history->count;
    m->path = arena_alloc(m->arena, (count + 1) * sizeof *m->path);
    m->head = arena_alloc(m->arena, (count + 1) * sizeof *m->head);
    if (!m->path || !m->head)
        return no_memory(m);
    history_path(m->history, m->end, m->path, &m->path_count, m->head, &m->head_count);
    if (count && m->history->list[count - 1].seq >= m->end) { /* others have gone on since */
        m->turn->is_branch = true;
        m->turn->after = m->path_count ? at(m, m->path_count - 1)->seq : -1;
    }
    return PH_OK;
}

static enum ph_status make(struct making *m, const struct store_conversation *conversation)
{
    enum ph_status status = load(m, conversation);
    divide_request(m);
    if (status == PH_OK && !m->params->previous_response) /* there only what is new is sent */
        status = recognise(m);
    if (status == PH_OK)
        status = list_fresh(m);
    if (status == PH_OK)
        status = select_path(m);
    return status == PH_OK ? write_messages(m) : status;
}

/* A conversation without a name is the response's own. */
static bool name_conversation(struct making *m)
{
    char id[ID_TEXT_MAX];
    if (m->turn->key)
        return true;
    memory_make_id(m->memory, "conv_", id);
    m->turn->key = arena_strdup(m->arena, id);
    return m->turn->key != NULL;
}

enum ph_status memory_turn_open(struct memory *memory, const struct memory_turn_params *params,
                                struct memory_turn *turn, struct ph_err *err)
{
    struct making m = {.memory = memory, .params = params, .turn = turn, .arena = &turn->arena, .err = err};
    struct store_conversation conversation = {.number = 0};
    *turn = (struct memory_turn){.must_exist = params->must_exist, .unkept = params->unkept};
    arena_init(&turn->arena, TURN_BYTES_MAX);
    enum ph_status status = memory_store(memory, &m.store, err);
    if (status == PH_OK)
        status = find_previous(&m);
    if (status == PH_OK && !name_conversation(&m))
        status = no_memory(&m);
    if (status == PH_OK)
        status = find_conversation(&m, &conversation);
    if (status != PH_OK)
        return status;
    m.user = memory_enter(memory, turn->user);
    if (!m.user)
        return no_memory(&m);
    status = make(&m, &conversation);
    memory_leave(memory, m.user);
    return status;
}

void memory_turn_release(struct memory_turn *turn)
{
    arena_release(&turn->arena);
}

/* ---- Storing */

enum ph_status memory_turn_ask(struct memory *memory, const struct memory_turn *turn, struct store_done done,
                               struct ph_err *err)
{
    struct store *store;
    struct arena arena;
    if (turn->unkept || turn->fresh_count == 0) {
        if (done.fn)
            done.fn(done.ud, PH_OK, NULL, NULL);
        return PH_OK;
    }
    enum ph_status status = memory_store(memory, &store, err);
    if (status != PH_OK)
        return status;
    arena_init(&arena, TURN_BYTES_MAX);
    struct store_message *messages = arena_calloc(&arena, turn->fresh_count, sizeof *messages);
    bool ok = messages != NULL;
    for (size_t i = 0; ok && i < turn->fresh_count; i++)
        ok = memory_message_write(&arena, &turn->fresh[i], NULL, &messages[i]);
    struct store_write write = {.kind = STORE_APPEND,
                                .u.append = {.user = turn->user,
                                             .key = turn->key,
                                             .messages = messages,
                                             .count = turn->fresh_count,
                                             .at = STORE_AT_END,
                                             .must_exist = turn->must_exist}};
    status =
        ok ? store_submit(store, &write, done, err) : ph_fail(err, PH_ERR_NOMEM, "no memory to store it");
    arena_release(&arena);
    return status;
}

static const char *write_response(struct arena *arena, const struct memory_turn *turn,
                                  const struct memory_reply *reply, size_t *len)
{
    struct buf out;
    buf_init(&out, STORE_RESPONSE_BYTES_MAX);
    buf_puts(&out, "{\"conversation\":");
    json_write_string(&out, turn->key, strlen(turn->key));
    buf_puts(&out, ",\"input\":[");
    for (size_t i = 0; i < turn->fresh_count; i++)
        buf_printf(&out, i ? ",\"%s\"" : "\"%s\"", turn->fresh[i].id);
    buf_puts(&out, "],\"response\":");
    buf_append(&out, reply->response, reply->response_len);
    buf_putc(&out, '}');
    *len = out.len;
    const char *text = buf_status(&out) == PH_OK ? arena_strndup(arena, out.data, out.len) : NULL;
    buf_release(&out);
    return text;
}

enum ph_status memory_turn_reply(struct memory *memory, const struct memory_turn *turn,
                                 const struct memory_reply *reply, struct store_done done, struct ph_err *err)
{
    struct store *store;
    struct arena arena;
    struct store_message message;
    struct store_response response = {.id = reply->response_id, .previous = turn->previous};
    struct memory_message what = {.id = reply->id,
                                  .chat = reply->chat,
                                  .is_branch = turn->is_branch && turn->fresh_count == 0,
                                  .after = turn->after,
                                  .tokens = (uint32_t)(reply->tokens < UINT32_MAX ? reply->tokens : 0)};
    enum ph_status status = memory_store(memory, &store, err);
    if (status != PH_OK)
        return status;
    arena_init(&arena, TURN_BYTES_MAX);
    bool ok = memory_message_write(&arena, &what, reply->is_cut ? "cut" : reply->finish, &message);
    if (ok && reply->response_id) {
        response.json = write_response(&arena, turn, reply, &response.json_len);
        ok = response.json != NULL;
    }
    struct store_write write = {.kind = STORE_APPEND,
                                .u.append = {.user = turn->user,
                                             .key = turn->key,
                                             .messages = &message,
                                             .count = 1,
                                             .at = STORE_AT_END,
                                             .must_exist = turn->must_exist,
                                             .response = reply->response_id ? &response : NULL}};
    status =
        ok ? store_submit(store, &write, done, err) : ph_fail(err, PH_ERR_NOMEM, "no memory to store it");
    arena_release(&arena);
    return status;
}

enum ph_status memory_find_response(struct memory *memory, struct arena *arena, const char *user,
                                    const char *id, struct memory_response *out, struct ph_err *err)
{
    struct store *store;
    struct json *value;
    *out = (struct memory_response){.key = NULL};
    enum ph_status status = memory_store(memory, &store, err);
    if (status == PH_OK)
        status = store_find_response(store, arena, user ? user : MEMORY_USER_LOCAL, id, &out->stored, err);
    if (status == PH_OK)
        status = json_parse(arena, out->stored.json, out->stored.json_len, &value, err);
    if (status != PH_OK)
        return status;
    out->key = json_text(json_get(value, "conversation"), NULL);
    out->input = json_get(value, "input");
    out->response = json_get(value, "response");
    return PH_OK;
}
