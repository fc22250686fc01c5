/* Bodies of the Responses API: whatever parses as JSON is decoded, handed to templates, and answered, whole
 * and streamed, by events that the input chooses; what comes out is JSON. */
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static bool check_event(void *ud, const char *name, const char *data, size_t len)
{
    struct json *json;
    int64_t number;
    size_t *sequence = ud;
    struct arena arena;
    arena_init(&arena, 1 << 26);
    require(json_parse(&arena, data, len, &json, NULL) == PH_OK &&
            json_text_is(json_get(json, "type"), name));
    require(json_to_int64(json_get(json, "sequence_number"), &number) && (size_t)number == (*sequence)++);
    arena_release(&arena);
    return true;
}

static void check(struct chat_request *request, const struct buf *out)
{
    struct chat_sse sse;
    struct json *json;
    size_t sequence = 0;
    chat_sse_init(&sse, 1 << 24);
    if (request->stream)
        require(chat_sse_feed(&sse, out->data, out->len, check_event, &sequence) == PH_OK && sequence > 0);
    else
        require(json_parse(request->arena, out->data, out->len, &json, NULL) == PH_OK);
    chat_sse_release(&sse);
}

static void answer(struct chat_request *request, const uint8_t *script, size_t len)
{
    static const struct chat_reply reply = {"resp_1", "model", 0};
    static const struct chat_token_logprob token = {1, {"a\xC3", 2}, -1};
    static const struct chat_event pool[] = {
        {.kind = CHAT_EVENT_ROLE},
        {.kind = CHAT_EVENT_TEXT, .text = {"a\"\n", 3}},
        {.kind = CHAT_EVENT_TEXT, .text = {"\xC3", 1}, .logprobs = &token, .logprob_count = 1},
        {.kind = CHAT_EVENT_REASONING, .text = {"r", 1}},
        {.kind = CHAT_EVENT_REASONING, .text = {"r", 1}, .signature = "s"},
        {.kind = CHAT_EVENT_REASONING, .redacted = true, .signature = "s"},
        {.kind = CHAT_EVENT_TOOL_CALL, .tool_call = {.index = 0, .id = "i", .name = "n"}},
        {.kind = CHAT_EVENT_TOOL_CALL, .tool_call = {.index = 1, .arguments = {"{", 1}}},
        {.kind = CHAT_EVENT_PROGRESS},
        {.kind = CHAT_EVENT_USAGE},
        {.kind = CHAT_EVENT_FINISH, .finish = CHAT_FINISH_LENGTH},
    };
    static const struct chat_event ends[] = {
        {.kind = CHAT_EVENT_DONE},
        {.kind = CHAT_EVENT_ERROR, .error = {.http_status = 500, .type = "server_error", .message = "m"}}};
    struct buf out;
    buf_init(&out, 1 << 26);
    struct chat_encoder *encoder = chat_edge_responses.encoder_new(request->arena, request, &reply, 0);
    for (size_t i = 0; encoder && i < len && i < 32; i++)
        chat_edge_responses.encode(encoder, &pool[script[i] % (sizeof pool / sizeof pool[0])], &out);
    if (encoder)
        chat_edge_responses.encode(encoder, &ends[len % 2], &out);
    if (encoder && buf_status(&out) == PH_OK)
        check(request, &out);
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct arena arena;
    struct json *body;
    struct chat_request request;
    struct chat_fault fault;
    arena_init(&arena, 1 << 24);
    if (json_parse(&arena, (const char *)bytes, len, &body, NULL) == PH_OK) {
        if (chat_edge_responses.decode(&arena, CHAT_KIND_CHAT, body, &request, &fault) == PH_OK) {
            require(request.message_count > 0);
            (void)chat_template_messages(&arena, &request, false);
            answer(&request, bytes, len);
        } else {
            require(fault.http_status >= 400 && fault.message[0]);
        }
    }
    arena_release(&arena);
    return 0;
}
