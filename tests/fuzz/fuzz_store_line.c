/* Lines of `pharos store import`: a line that is read is written, and read again as the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory/store.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)

/* What the store would answer for an append. */
static struct store_messages stored(struct arena *arena, const struct store_append *append)
{
    struct store_messages messages = {arena_calloc(arena, append->count, sizeof *messages.items),
                                      append->count, false};
    if (!messages.items)
        abort();
    for (size_t i = 0; i < append->count; i++) {
        struct store_message *message = &messages.items[i];
        char *id = arena_alloc(arena, 32);
        *message = append->messages[i];
        snprintf(id, 32, "msg_%zu", i);
        message->id = message->id && message->id[0] ? message->id : id;
        message->name = message->name ? message->name : "";
        message->extra = message->extra ? message->extra : "";
        message->content = message->content ? message->content : "";
    }
    return messages;
}

static void write_line(struct buf *out, struct arena *arena, const struct store_append *append)
{
    struct store_messages messages = stored(arena, append);
    struct store_conversation conversation = {.key = append->key,
                                              .user_name = append->user,
                                              .domain = append->domain ? append->domain : "",
                                              .metadata = append->metadata ? append->metadata : ""};
    store_line_write(out, arena, &conversation, &messages);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct store_append append, again;
    struct ph_err err = {.code = PH_OK};
    struct buf first, second;
    arena_init(&arena, ARENA_BYTES_MAX);
    buf_init(&first, ARENA_BYTES_MAX);
    buf_init(&second, ARENA_BYTES_MAX);
    if (store_line_read(&arena, (const char *)data, size, &append, &err) == PH_OK) {
        write_line(&first, &arena, &append);
        if (buf_status(&first) != PH_OK || memchr(first.data, '\n', first.len - 1))
            abort();
        if (store_line_read(&arena, first.data, first.len - 1, &again, &err) != PH_OK)
            abort();
        write_line(&second, &arena, &again);
        if (first.len != second.len || memcmp(first.data, second.data, first.len) != 0)
            abort();
    } else if (!err.message[0])
        abort();
    buf_release(&first);
    buf_release(&second);
    arena_release(&arena);
    return 0;
}
