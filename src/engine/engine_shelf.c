/* The shelf: KV pages of prompts that are over, kept for whoever sends the same again and goes on.
 *
 * A conversation sends its whole history with every turn; what the last turn's prompt has in the cache
 * already need not be computed again. Only positions that were fed as prompt are kept, because generated
 * tokens were computed in the other phase, and a text must not depend on what ran before it (E1): with T1,
 * the kept numbers are exactly those a new prefill would give.
 *
 * An entry has one owner: taking it moves its pages to the new sequence. It is only taken by a prompt that
 * shares the greater part of it, so that a common system prompt does not cost another conversation its
 * history. Shelved pages count as free: whoever needs them gets them, the least recently used entry first. */
#include <string.h>

#include "base/mem.h"
#include "engine/engine_int.h"

#define SHELF_PROMPT_MIN 32 /* tokens; shorter ones are quicker computed than kept */

static size_t pages_of(const struct engine *engine, size_t len)
{
    size_t page_len = runner_kv_page_len(engine->runner);
    return (len + page_len - 1) / page_len;
}

bool shelf_open(struct shelf *shelf, size_t context_len)
{
    if (uv_mutex_init(&shelf->mutex) != 0)
        return false;
    shelf->has_mutex = true;
    shelf->context_len = context_len;
    shelf->tokens = mem_alloc(SHELF_LEN_MAX * context_len * sizeof *shelf->tokens); /* touched when used */
    for (size_t i = 0; shelf->tokens && i < SHELF_LEN_MAX; i++)
        shelf->entries[i].tokens = shelf->tokens + i * context_len;
    return shelf->tokens != NULL;
}

void shelf_release(struct shelf *shelf)
{
    if (shelf->has_mutex)
        uv_mutex_destroy(&shelf->mutex);
    mem_free(shelf->tokens);
}

static void remove_entry(struct engine *engine, struct shelf_entry *entry)
{
    uv_mutex_lock(&engine->shelf.mutex);
    engine->shelf.pages -= pages_of(engine, entry->len);
    entry->kv = NULL;
    entry->len = 0;
    uv_mutex_unlock(&engine->shelf.mutex);
}

bool shelf_drop_oldest(struct engine *engine, const struct shelf_entry *keep)
{
    struct shelf_entry *oldest = NULL;
    for (size_t i = 0; i < SHELF_LEN_MAX; i++) {
        struct shelf_entry *entry = &engine->shelf.entries[i];
        if (entry->kv && entry != keep && (!oldest || entry->used < oldest->used))
            oldest = entry;
    }
    if (!oldest)
        return false;
    kv_seq_give(engine->runner, oldest->kv);
    remove_entry(engine, oldest);
    return true;
}

static struct shelf_entry *free_entry(struct engine *engine)
{
    for (;;) {
        for (size_t i = 0; i < SHELF_LEN_MAX; i++)
            if (!engine->shelf.entries[i].kv)
                return &engine->shelf.entries[i];
        (void)shelf_drop_oldest(engine, NULL);
    }
}

void shelf_put(struct engine *engine, struct kv_seq *kv, const int32_t *tokens, size_t prompt_len)
{
    size_t len = kv_seq_len(kv) < prompt_len ? kv_seq_len(kv) : prompt_len;
    if (len < SHELF_PROMPT_MIN) {
        kv_seq_give(engine->runner, kv);
        return;
    }
    struct shelf_entry *entry = free_entry(engine);
    kv_seq_truncate(engine->runner, kv, len);
    uv_mutex_lock(&engine->shelf.mutex);
    memcpy(entry->tokens, tokens, len * sizeof *tokens);
    entry->kv = kv;
    entry->len = len;
    entry->used = ++engine->shelf.clock;
    engine->shelf.pages += pages_of(engine, len);
    uv_mutex_unlock(&engine->shelf.mutex);
}

static size_t common_len(const int32_t *a, const int32_t *b, size_t len)
{
    size_t i = 0;
    while (i < len && a[i] == b[i])
        i++;
    return i;
}

struct shelf_entry *shelf_find(struct engine *engine, const int32_t *tokens, size_t len, size_t *common)
{
    struct shelf_entry *best = NULL;
    *common = 0;
    for (size_t i = 0; i < SHELF_LEN_MAX; i++) {
        struct shelf_entry *entry = &engine->shelf.entries[i];
        if (!entry->kv)
            continue;
        size_t n = common_len(entry->tokens, tokens, entry->len < len ? entry->len : len);
        if (n >= SHELF_PROMPT_MIN && 2 * n > entry->len && n > *common) {
            best = entry;
            *common = n;
        }
    }
    return best;
}

size_t shelf_look(struct engine *engine, const int32_t *tokens, size_t len)
{
    size_t common;
    uv_mutex_lock(&engine->shelf.mutex);
    (void)shelf_find(engine, tokens, len, &common);
    uv_mutex_unlock(&engine->shelf.mutex);
    return common;
}

struct kv_seq *shelf_take(struct engine *engine, struct shelf_entry *entry, size_t common)
{
    struct kv_seq *kv = entry->kv;
    remove_entry(engine, entry);
    kv_seq_truncate(engine->runner, kv, common);
    return kv;
}
