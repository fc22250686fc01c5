/* OpenAI bodies: whatever parses as JSON is decoded, handed to templates, and answered. */
#include <assert.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void answer(const struct chat_request *request)
{
    static const struct chat_reply reply = {"id", "model", 0};
    struct buf out;
    buf_init(&out, 1 << 24);
    struct chat_encoder *encoder = chat_edge_openai.encoder_new(request->arena, request, &reply, 0);
    size_t last = chat_choice_count(request) - 1;
    const struct chat_event events[] = {
        {.kind = CHAT_EVENT_ROLE, .choice = last},
        {.kind = CHAT_EVENT_TEXT, .choice = last, .text = {"a\xC3", 2}},
        {.kind = CHAT_EVENT_FINISH, .choice = last, .finish = CHAT_FINISH_STOP},
        {.kind = CHAT_EVENT_USAGE},
        {.kind = CHAT_EVENT_DONE},
    };
    for (size_t i = 0; encoder && i < sizeof events / sizeof events[0]; i++)
        chat_edge_openai.encode(encoder, &events[i], &out);
    assert(!encoder || buf_status(&out) != PH_OK || out.len > 0);
    buf_release(&out);
}

static void decode(const uint8_t *bytes, size_t len, enum chat_kind kind)
{
    struct arena arena;
    struct json *body;
    struct chat_request request;
    struct chat_fault fault;
    arena_init(&arena, 1 << 24);
    if (json_parse(&arena, (const char *)bytes, len, &body, NULL) == PH_OK) {
        if (chat_edge_openai.decode(&arena, kind, body, &request, &fault) == PH_OK) {
            (void)chat_template_messages(&arena, &request, false);
            answer(&request);
        } else {
            assert(fault.http_status >= 400 && strlen(fault.message) > 0);
        }
    }
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    decode(bytes, len, CHAT_KIND_CHAT);
    decode(bytes, len, CHAT_KIND_COMPLETION);
    return 0;
}
