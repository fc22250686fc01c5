/* Rows of messages as they lie in the store, of any bytes: what unpacks is a message that is packed and read
 * again as the same, and every text of it ends where it says. */
#include <stdlib.h>
#include <string.h>

#include "memory/memory.h"
#include "memory/store_int.h"

#define ARENA_BYTES_MAX ((size_t)256 << 20)
#define DICTIONARY 7

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Of raw content: zstd takes it as what texts may begin with. */
static const char dictionary[] = "user assistant {\"tool_calls\":[{\"id\":\"call_1\",\"function\":{\"name\":"
                                 "\"f\",\"arguments\":\"{}\"}}],\"tool_call_id\":\"call_1\",\"metadata\":{}}";

static void pack_again(struct store_codec *codec, struct arena *arena, const struct store_message *message)
{
    const char *joined, *again;
    size_t joined_len, again_len;
    struct store_body body;
    require(store_message_join(arena, message, &joined, &joined_len, NULL) == PH_OK);
    for (int64_t number = 0; number <= DICTIONARY; number += DICTIONARY) {
        require(store_codec_pack(codec, arena, number, joined, joined_len, &body, NULL) == PH_OK);
        require(store_codec_unpacked(&body) == joined_len);
        require(store_codec_unpack(codec, arena, &body, &again, &again_len, NULL) == PH_OK);
        require(again_len == joined_len && memcmp(again, joined, joined_len) == 0);
    }
}

/* As the path of requests takes it: what it can read it can write, and read again as the same. */
static void read_as_chat(struct arena *arena, struct store_message *stored)
{
    struct memory_message message, again;
    struct store_message written;
    stored->id = "msg_1";
    if (!memory_message_read(arena, stored, &message))
        return;
    require(memory_message_write(arena, &message, NULL, &written));
    written.id = written.id ? written.id : "msg_1";
    require(memory_message_read(arena, &written, &again));
    require(again.chat.role == message.chat.role && again.print == message.print);
}

static void check(struct store_codec *codec, struct arena *arena, const struct store_body *body)
{
    struct store_message message = {.number = 1};
    const char *bytes;
    size_t len;
    struct ph_err err = {.code = PH_OK};
    enum ph_status status = store_codec_unpack(codec, arena, body, &bytes, &len, &err);
    if (status != PH_OK) {
        require(err.message[0]);
        return;
    }
    require(len == store_codec_unpacked(body) && bytes[len] == 0);
    if (!store_message_split(bytes, len, &message))
        return;
    require(message.content >= bytes && message.content + message.content_len == bytes + len);
    pack_again(codec, arena, &message);
    read_as_chat(arena, &message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t codings[] = {STORE_CODING_RAW, STORE_CODING_PLAIN, DICTIONARY};
    struct store_codec codec = {.dictionaries = NULL};
    struct arena arena;
    require(store_codec_init(&codec, NULL) == PH_OK);
    require(store_codec_add(&codec, DICTIONARY, dictionary, sizeof dictionary - 1, NULL) == PH_OK);
    arena_init(&arena, ARENA_BYTES_MAX);
    for (size_t i = 0; i < sizeof codings / sizeof codings[0]; i++) {
        const struct store_body body = {codings[i], data, size};
        check(&codec, &arena, &body);
    }
    arena_release(&arena);
    store_codec_release(&codec);
    return 0;
}
