/* Replies of Anthropic providers: any bytes, whole or cut, make the same events in their right order. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct watch {
    uint64_t hash; /* of all that was emitted */
    size_t roles, finishes, calls;
};

static void mix(struct watch *w, const void *bytes, size_t len)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < len; i++)
        w->hash = (w->hash ^ at[i]) * 1099511628211u;
}

static void mix_text(struct watch *w, struct chat_text text)
{
    mix(w, &text.len, sizeof text.len);
    if (text.len)
        mix(w, text.text, text.len);
}

static void watch_event(void *ud, const struct chat_event *event)
{
    struct watch *w = ud;
    mix(w, &event->kind, sizeof event->kind);
    assert(event->kind == CHAT_EVENT_ROLE || w->roles == 1);
    assert(w->finishes == 0 || event->kind == CHAT_EVENT_USAGE);
    switch (event->kind) {
    case CHAT_EVENT_ROLE:
        assert(w->roles++ == 0);
        break;
    case CHAT_EVENT_TEXT:
    case CHAT_EVENT_REASONING:
        assert(event->text.len || event->signature);
        mix_text(w, event->text);
        break;
    case CHAT_EVENT_TOOL_CALL:
        if (event->tool_call.name)
            assert(event->tool_call.index == w->calls++ && event->tool_call.id);
        assert(event->tool_call.index < w->calls);
        mix_text(w, event->tool_call.arguments);
        break;
    case CHAT_EVENT_FINISH:
        assert(event->finish != CHAT_FINISH_NONE);
        w->finishes++;
        break;
    case CHAT_EVENT_USAGE:
        mix(w, &event->usage.prompt_tokens, sizeof event->usage.prompt_tokens);
        break;
    default:
        abort();
    }
}

static enum ph_status read_reply(const uint8_t *bytes, size_t len, size_t step, bool is_stream,
                                 struct watch *watch)
{
    struct arena arena;
    struct chat_fault fault = {0};
    struct chat_request request = {.choices = 1};
    struct chat_reader_params params = {&request, is_stream, watch_event, watch};
    enum ph_status status = PH_OK;
    *watch = (struct watch){.hash = 1469598103934665603u};
    arena_init(&arena, 1 << 22);
    struct chat_reader *reader = chat_codec_anthropic.reader_new(&arena, &params);
    for (size_t at = 0; at < len && status == PH_OK; at += step)
        status = chat_codec_anthropic.feed(reader, (const char *)bytes + at,
                                           step < len - at ? step : len - at, &fault);
    if (status == PH_OK)
        status = chat_codec_anthropic.end(reader, &fault);
    assert(status == PH_OK ? watch->finishes == 1 : fault.http_status >= 400 && fault.message[0]);
    arena_release(&arena);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    for (int stream = 0; stream < 2; stream++) {
        struct watch whole, cut;
        enum ph_status status = read_reply(bytes, len, len ? len : 1, stream == 1, &whole);
        assert(read_reply(bytes, len, 1, stream == 1, &cut) == status && cut.hash == whole.hash);
        assert(read_reply(bytes, len, 7, stream == 1, &cut) == status && cut.hash == whole.hash);
    }
    return 0;
}
