/* Bytes of a shared Redis as a conversation: as they are, and, as if their digest were right, as the messages of one.
 * What passes is written again and is the same. */
#include <stdlib.h>
#include <string.h>

#include "memory/memory_int.h"

#define NAME "pharos:talk:1:00"
#define HEAD_BYTES 32 /* hot_value.c */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check(const char *bytes, size_t len)
{
    struct arena arena;
    struct buf again;
    struct store_messages messages;
    int64_t deletions;
    arena_init(&arena, 64 << 20);
    buf_init(&again, 64 << 20);
    if (hot_value_read(&arena, NAME, bytes, len, &deletions, &messages)) {
        hot_value_begin(&again);
        for (size_t i = 0; i < messages.count; i++)
            hot_value_add(&again, &messages.items[i]);
        require(messages.count && hot_value_seal(&again, NAME, deletions, messages.count));
        struct store_messages same;
        require(hot_value_read(&arena, NAME, again.data, again.len, &deletions, &same));
        require(same.count == messages.count);
        for (size_t i = 0; i < same.count; i++)
            require(same.items[i].seq == messages.items[i].seq &&
                    strcmp(same.items[i].id, messages.items[i].id) == 0 &&
                    same.items[i].content_len == messages.items[i].content_len &&
                    memcmp(same.items[i].content, messages.items[i].content, same.items[i].content_len) == 0);
    }
    buf_release(&again);
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct buf value;
    check((const char *)bytes, len);
    if (!len)
        return 0;
    buf_init(&value, 64 << 20);
    hot_value_begin(&value);
    buf_append(&value, (const char *)bytes + 1, len - 1);
    require(value.len >= HEAD_BYTES && hot_value_seal(&value, NAME, 7, bytes[0]));
    check(value.data, value.len);
    buf_release(&value);
    return 0;
}
