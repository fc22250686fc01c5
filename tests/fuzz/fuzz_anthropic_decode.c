/* Anthropic bodies: whatever parses as JSON is decoded, sent on as it came and translated, and answered. What
 * is sent on must be JSON, and decode again unless it was not what clients may send. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const char *const models[] = {"claude-sonnet-4-5", "claude-opus-4-6", "claude-sonnet-5", "other"};

static void send_on(struct chat_request *request, const char *model)
{
    struct chat_target target = {.base_url = "http://h/v1", .model = model, .key = "k"};
    struct chat_post post;
    struct chat_fault fault;
    struct json *body;
    struct chat_request again;
    if (chat_codec_anthropic.encode(request->arena, request, &target, &post, &fault) != PH_OK) {
        assert(fault.http_status >= 400 && fault.message[0]);
        return;
    }
    enum ph_status status = json_parse(request->arena, post.body, post.body_len, &body, NULL);
    assert(status == PH_OK || status == PH_ERR_NOMEM);
    if (status == PH_OK && request->raw == NULL) {
        status = chat_edge_anthropic.decode(request->arena, CHAT_KIND_CHAT, body, &again, &fault);
        if (status != PH_OK && status != PH_ERR_NOMEM)
            abort();
    }
}

static void answer(const struct chat_request *request)
{
    static const struct chat_reply reply = {"id", "model", 0};
    struct buf out;
    buf_init(&out, 1 << 24);
    struct chat_encoder *encoder = chat_edge_anthropic.encoder_new(request->arena, request, &reply, 0);
    const struct chat_event events[] = {
        {.kind = CHAT_EVENT_ROLE},
        {.kind = CHAT_EVENT_REASONING, .text = {"a\xC3", 2}, .signature = "s"},
        {.kind = CHAT_EVENT_TEXT, .text = {"a\xC3", 2}},
        {.kind = CHAT_EVENT_FINISH, .finish = CHAT_FINISH_STOP},
        {.kind = CHAT_EVENT_DONE},
    };
    for (size_t i = 0; encoder && i < sizeof events / sizeof events[0]; i++)
        chat_edge_anthropic.encode(encoder, &events[i], &out);
    assert(!encoder || buf_status(&out) != PH_OK || out.len > 0);
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct arena arena;
    struct json *body;
    struct chat_request request;
    struct chat_fault fault;
    arena_init(&arena, 1 << 26);
    if (json_parse(&arena, (const char *)bytes, len, &body, NULL) == PH_OK) {
        if (chat_anthropic_count_decode(&arena, body, &request, &fault) == PH_OK) {
            (void)chat_template_messages(&arena, &request, false);
            answer(&request);
            for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
                send_on(&request, models[i]);
                struct chat_request other = request;
                other.messages_changed = true;
                send_on(&other, models[i]);
                other.raw = NULL;
                send_on(&other, models[i]);
                other.dialect = CHAT_OPENAI;
                send_on(&other, models[i]);
            }
        } else {
            assert(fault.http_status >= 400 && strlen(fault.message) > 0);
        }
    }
    arena_release(&arena);
    return 0;
}
