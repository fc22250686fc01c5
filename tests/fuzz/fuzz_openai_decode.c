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

/* What was accepted can be sent on, and what is sent is accepted again. */
static void forward(const struct chat_request *request, bool build)
{
    static const struct chat_target target = {.base_url = "http://h/v1", .model = "m", .key = "k"};
    struct chat_request again, changed = *request;
    struct chat_post post;
    struct chat_fault fault;
    struct json *body;
    changed.messages_changed = build;
    if (chat_codec_openai.encode(request->arena, &changed, &target, &post, &fault) != PH_OK) {
        assert(*fault.message);
        return;
    }
    if (json_parse(request->arena, post.body, post.body_len, &body, NULL) == PH_OK &&
        chat_edge_openai.decode(request->arena, request->kind, body, &again, &fault) != PH_OK)
        assert(fault.http_status == 503); /* the arena is full */
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
            forward(&request, false);
            forward(&request, true);
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
