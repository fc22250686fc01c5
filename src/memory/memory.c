/* The door: the store behind it, opened when it is first needed, and what of its users is kept in memory.
 *
 * A user in memory has an index and some conversations. Both only ever lag behind the store, and are caught
 * up by numbers at each use, so it does not matter who else writes to it. When something was deleted
 * (store_user.deletions), they are made anew.
 *
 * Invariants:
 *  M1  a user that somebody has entered is not evicted;
 *  M2  the memory's lock is never held while a user's is waited for, or while the store is read;
 *  M3  what is kept is bounded: beyond bytes_max users go, least recently used first. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "memory/memory_int.h"

#define SCRATCH_BYTES_MAX (64u << 20)

static bool copy(char **out, const char *text)
{
    *out = text ? mem_strdup(text) : NULL;
    return *out || !text;
}

enum ph_status memory_create(struct memory **out, const struct memory_params *params, struct ph_err *err)
{
    struct memory *memory = mem_calloc(1, sizeof *memory);
    uint64_t seed;
    *out = NULL;
    if (!memory || uv_mutex_init(&memory->lock) != 0) {
        mem_free(memory);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the store");
    }
    memory->clock = params->clock;
    memory->must_exist = params->must_exist;
    memory->read_only = params->read_only;
    memory->hot = params->hot;
    memory->bytes_max = params->bytes_max ? params->bytes_max : MEMORY_BYTES_MAX;
    if (entropy_fill(&seed, sizeof seed) != 0 || !copy(&memory->dir, params->dir) ||
        !copy(&memory->postgres, params->postgres) || !copy(&memory->selector, params->selector)) {
        memory_free(memory);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the store");
    }
    rng_init(&memory->rng, seed);
    *out = memory;
    return PH_OK;
}

static void drop_histories(struct memory_user *user)
{
    while (user->histories) {
        struct history *next = user->histories->next;
        history_free(user->histories);
        user->histories = next;
    }
    user->history_count = 0;
}

static void user_free(struct memory_user *user)
{
    drop_histories(user);
    memory_index_free(user->index);
    vectors_close(user->vectors);
    uv_mutex_destroy(&user->lock);
    mem_free(user->name);
    mem_free(user);
}

void memory_free(struct memory *memory)
{
    if (!memory)
        return;
    store_close(memory->store);
    for (size_t i = 0; i < memory->user_count; i++)
        user_free(memory->users[i]);
    mem_free(memory->users);
    uv_mutex_destroy(&memory->lock);
    mem_free(memory->dir);
    mem_free(memory->postgres);
    mem_free(memory->selector);
    spt_close(memory->spt);
    memory_near_release(memory);
    mem_free(memory);
}

/* Without it contexts are still built. */
static void open_selector(struct memory *memory)
{
    struct ph_err err;
    enum ph_status status = memory->selector ? spt_open(&memory->spt, memory->selector, &err)
                                             : spt_open_shipped(&memory->spt, &err);
    if (status != PH_OK) {
        memory->spt = NULL;
        log_warn("memory", "the trained selector cannot be used: %s", err.message);
    }
}

enum context_strategy memory_strategy(const struct memory *memory, enum context_strategy wanted)
{
    if (wanted == CONTEXT_STRATEGY_COUNT)
        wanted = CONTEXT_SPT;
    return wanted == CONTEXT_SPT && !memory->spt ? CONTEXT_HYBRID : wanted;
}

enum ph_status memory_store(struct memory *memory, struct store **out, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    uv_mutex_lock(&memory->lock);
    if (!memory->store) {
        struct store_params params = {.dir = memory->dir,
                                      .postgres = memory->postgres,
                                      .clock = memory->clock,
                                      .must_exist = memory->must_exist,
                                      .read_only = memory->read_only};
        struct ph_err reason = {.code = PH_ERR_IO};
        status = store_open(&memory->store, &params, &reason);
        if (status != PH_OK) { /* whatever is wrong with it, it is not the caller's fault */
            memory->store = NULL;
            status = memory->must_exist && status == PH_ERR_NOTFOUND ? status : PH_ERR_IO;
            (void)ph_fail(err, status, "%s", reason.message);
        } else {
            open_selector(memory);
        }
    }
    *out = memory->store;
    uv_mutex_unlock(&memory->lock);
    return status;
}

void memory_make_id(struct memory *memory, const char *prefix, char out[ID_TEXT_MAX])
{
    uv_mutex_lock(&memory->lock);
    id_make(&memory->rng, prefix, out);
    uv_mutex_unlock(&memory->lock);
}

/* ---- Users */

static size_t user_bytes(const struct memory_user *user)
{
    size_t bytes = sizeof *user + (user->index ? memory_index_bytes(user->index) : 0);
    for (const struct history *h = user->histories; h; h = h->next)
        bytes += sizeof *h + h->arena.bytes + h->capacity * (sizeof *h->list + sizeof *h->notes) +
                 h->chosen_count * sizeof *h->chosen + h->packed.len;
    return bytes;
}

/* Under the memory's lock. NULL: not there. */
static struct memory_user *find_user(const struct memory *memory, const char *name)
{
    for (size_t i = 0; i < memory->user_count; i++)
        if (strcmp(memory->users[i]->name, name) == 0)
            return memory->users[i];
    return NULL;
}

static struct memory_user *add_user(struct memory *memory, const char *name)
{
    if (memory->user_count == memory->user_capacity) {
        size_t capacity = memory->user_capacity * 2 + 16;
        struct memory_user **users = mem_realloc(memory->users, capacity, sizeof *users);
        if (!users)
            return NULL;
        memory->users = users;
        memory->user_capacity = capacity;
    }
    struct memory_user *user = mem_calloc(1, sizeof *user);
    if (!user)
        return NULL;
    user->name = mem_strdup(name);
    if (!user->name || uv_mutex_init(&user->lock) != 0) {
        mem_free(user->name);
        mem_free(user);
        return NULL;
    }
    memory->users[memory->user_count++] = user;
    return user;
}

/* The least recently used one that nobody has entered, taken out; NULL: none. */
static struct memory_user *take_oldest(struct memory *memory)
{
    size_t oldest = memory->user_count;
    for (size_t i = 0; i < memory->user_count; i++)
        if (memory->users[i]->refs == 0 &&
            (oldest == memory->user_count || memory->users[i]->used < memory->users[oldest]->used))
            oldest = i;
    if (oldest == memory->user_count)
        return NULL;
    struct memory_user *user = memory->users[oldest];
    memory->users[oldest] = memory->users[--memory->user_count];
    return user;
}

static size_t all_bytes(const struct memory *memory)
{
    size_t bytes = 0;
    for (size_t i = 0; i < memory->user_count; i++)
        bytes += memory->users[i]->bytes;
    return bytes;
}

/* M1, M3 */
static void evict(struct memory *memory)
{
    size_t bytes = all_bytes(memory);
    while (bytes > memory->bytes_max || memory->user_count > MEMORY_USERS_MAX) {
        struct memory_user *user = take_oldest(memory);
        if (!user)
            return;
        bytes -= user->bytes;
        user_free(user);
    }
}

/* M2 */
struct memory_user *memory_enter(struct memory *memory, const char *name)
{
    uv_mutex_lock(&memory->lock);
    struct memory_user *user = find_user(memory, name);
    if (!user)
        user = add_user(memory, name);
    if (user) {
        user->refs++;
        user->used = ++memory->clock_uses;
    }
    uv_mutex_unlock(&memory->lock);
    if (user)
        uv_mutex_lock(&user->lock);
    return user;
}

void memory_leave(struct memory *memory, struct memory_user *user)
{
    size_t bytes = user_bytes(user);
    uv_mutex_unlock(&user->lock);
    uv_mutex_lock(&memory->lock);
    user->bytes = bytes;
    user->refs--;
    evict(memory);
    uv_mutex_unlock(&memory->lock);
}

enum ph_status memory_user_refresh(struct memory_user *user, struct store *store, struct arena *scratch,
                                   struct ph_err *err)
{
    struct store_user stored;
    enum ph_status status = store_find_user(store, scratch, user->name, &stored, err);
    if (status == PH_ERR_NOTFOUND)
        stored = (struct store_user){.number = 0};
    else if (status != PH_OK)
        return status;
    if (stored.number == user->number && stored.deletions == user->deletions)
        return PH_OK;
    drop_histories(user);
    memory_index_free(user->index);
    user->index = NULL;
    user->number = stored.number;
    user->deletions = stored.deletions;
    return PH_OK;
}

/* ---- The index */

struct indexing {
    struct memory_index *index;
    struct arena scratch; /* of one message */
};

static enum ph_status index_message(void *ud, const struct store_message *stored)
{
    struct indexing *indexing = ud;
    struct memory_message message;
    arena_clear(&indexing->scratch);
    if (!memory_message_read(&indexing->scratch, stored, &message))
        return PH_ERR_NOMEM;
    struct index_turn turn = {.message = stored->number,
                              .conversation = stored->conversation,
                              .role = memory_role_name(message.chat.role),
                              .name = message.chat.name,
                              .text = message.chat.content.text ? message.chat.content.text : "",
                              .text_len = message.chat.content.len,
                              .created_at = stored->created_ms / 1000,
                              .tokens = message.tokens};
    if (!memory_message_about(&indexing->scratch, message.extra, &turn.about, &turn.about_len))
        return PH_ERR_NOMEM;
    return memory_index_add(indexing->index, &turn);
}

enum ph_status memory_user_index(const struct memory *memory, struct memory_user *user, struct ph_err *err)
{
    struct index_params params = {.spt = memory->spt};
    struct indexing indexing;
    if (!user->index) {
        enum ph_status made = memory_index_create(&user->index, &params, err);
        if (made != PH_OK)
            return made;
    }
    indexing.index = user->index;
    arena_init(&indexing.scratch, SCRATCH_BYTES_MAX);
    enum ph_status status = store_each_message(memory->store, user->number, memory_index_last(user->index),
                                               index_message, &indexing, err);
    arena_release(&indexing.scratch);
    if (status == PH_ERR_NOMEM)
        (void)ph_fail(err, status, "no memory for the index of %.100s", user->name);
    return status;
}

/* ---- What there is */

void memory_stats_read(struct memory *memory, struct memory_stats *out)
{
    uv_mutex_lock(&memory->lock);
    *out = (struct memory_stats){.users = memory->user_count,
                                 .bytes = all_bytes(memory),
                                 .turns = memory->turns,
                                 .hits = memory->hits,
                                 .is_shared = memory->hot != NULL,
                                 .shared_hits = memory->shared_hits,
                                 .shared_misses = memory->shared_misses,
                                 .shared_refused = memory->shared_refused};
    uv_mutex_unlock(&memory->lock);
    if (memory->hot)
        hot_stats(memory->hot, &out->redis);
}

void memory_count_shared(struct memory *memory, enum ph_status status)
{
    uv_mutex_lock(&memory->lock);
    memory->shared_hits += status == PH_OK;
    memory->shared_misses += status == PH_ERR_NOTFOUND;
    memory->shared_refused += status == PH_ERR_CONFLICT;
    uv_mutex_unlock(&memory->lock);
}

void memory_count_turn(struct memory *memory, bool was_in_memory)
{
    uv_mutex_lock(&memory->lock);
    memory->turns++;
    memory->hits += was_in_memory;
    uv_mutex_unlock(&memory->lock);
}
