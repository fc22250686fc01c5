/* Gemini's replies, whole and streamed, cut where the input says: events in their order, or a fault; the calls
 * they make go back into a request that is JSON. Then the same bytes as an error, and as a conversation. */
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool condition)
{
    if (!condition)
        abort();
}

#define CALLS_MAX 4

struct watch {
    struct arena *arena;
    bool role[2], finished[2];
    struct chat_tool_call calls[CALLS_MAX];
    size_t call_count;
};

static void on_event(void *ud, const struct chat_event *event)
{
    struct watch *watch = ud;
    require(event->choice < 2);
    if (event->kind == CHAT_EVENT_ROLE) {
        require(!watch->role[event->choice]);
        watch->role[event->choice] = true;
        return;
    }
    require(event->kind == CHAT_EVENT_USAGE ||
            (watch->role[event->choice] && !watch->finished[event->choice]));
    if (event->kind == CHAT_EVENT_FINISH) {
        require(event->finish != CHAT_FINISH_NONE);
        watch->finished[event->choice] = true;
    }
    if (event->kind == CHAT_EVENT_TOOL_CALL && watch->call_count < CALLS_MAX) {
        struct chat_tool_call *call = &watch->calls[watch->call_count];
        const struct chat_text arguments = event->tool_call.arguments;
        call->id = arena_strdup(watch->arena, event->tool_call.id);
        call->name = arena_strdup(watch->arena, event->tool_call.name);
        call->arguments =
            (struct chat_text){arena_strndup(watch->arena, arguments.text, arguments.len), arguments.len};
        watch->call_count += call->id && call->name && call->arguments.text;
    }
}

static void ask(struct arena *arena, struct chat_request *request)
{
    const struct chat_target target = {.base_url = "http://x", .model = "gemini-3", .key = "k"};
    struct chat_post post;
    struct chat_fault fault;
    struct json *json;
    if (chat_codec_gemini.encode(arena, request, &target, &post, &fault) != PH_OK)
        require(fault.http_status >= 400 && fault.message[0]);
    else
        require(json_parse(arena, post.body, post.body_len, &json, NULL) == PH_OK);
}

static void read_reply(const uint8_t *bytes, size_t len, bool is_stream, size_t piece)
{
    struct arena arena;
    struct chat_fault fault = {0};
    arena_init(&arena, 1 << 24);
    struct chat_request request = {.arena = &arena, .choices = 2, .logprobs = true, .reasoning_tokens = -1};
    struct watch watch = {.arena = &arena};
    struct chat_reader_params params = {&request, is_stream, on_event, &watch};
    struct chat_reader *reader = chat_codec_gemini.reader_new(&arena, &params);
    enum ph_status status = PH_OK;
    for (size_t at = 0; at < len && status == PH_OK; at += piece)
        status = chat_codec_gemini.feed(reader, (const char *)bytes + at, len - at < piece ? len - at : piece,
                                        &fault);
    if (status == PH_OK)
        status = chat_codec_gemini.end(reader, &fault);
    require(status == PH_OK ? watch.finished[0] && watch.finished[1] : fault.message[0] != 0);
    struct chat_message message = {
        .role = CHAT_ASSISTANT, .tool_calls = watch.calls, .tool_call_count = watch.call_count};
    request.messages = &message;
    request.message_count = 1;
    request.choices = 1;
    ask(&arena, &request);
    arena_release(&arena);
}

static void read_request(const uint8_t *bytes, size_t len)
{
    struct arena arena;
    struct json *body;
    struct chat_request request;
    struct chat_fault fault;
    arena_init(&arena, 1 << 24);
    chat_codec_gemini.fault(&arena, 400, (const char *)bytes, len, &fault);
    require(fault.message[0] && fault.http_status >= 400);
    if (json_parse(&arena, (const char *)bytes, len, &body, NULL) == PH_OK &&
        chat_edge_responses.decode(&arena, CHAT_KIND_CHAT, body, &request, &fault) == PH_OK)
        ask(&arena, &request);
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    read_reply(bytes + 1, len - 1, true, 1 + bytes[0]);
    read_reply(bytes + 1, len - 1, false, 1 + bytes[0]);
    read_request(bytes, len);
    return 0;
}
