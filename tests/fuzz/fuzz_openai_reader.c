/* Replies of OpenAI-compatible providers: cut anywhere, they are the same events and the same end; events
 * come in the order that providers promise; what was read can be told to a client. The first byte chooses
 * stream or whole, chat or completion, and how long the pieces are. */
#include <assert.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define CHOICES 2

struct reading {
    struct arena arena;
    struct chat_request request;
    struct chat_encoder *encoder;
    struct buf out; /* as the client would read it */
    bool begun[CHOICES], finished[CHOICES];
    enum ph_status status;
    struct chat_fault fault;
};

static void on_event(void *ud, const struct chat_event *event)
{
    struct reading *t = ud;
    assert(event->kind <= CHAT_EVENT_USAGE && event->kind != CHAT_EVENT_PROGRESS);
    assert(event->choice < CHOICES);
    if (event->kind != CHAT_EVENT_USAGE) {
        assert(!t->finished[event->choice]);
        assert(t->begun[event->choice] == (event->kind != CHAT_EVENT_ROLE));
        t->begun[event->choice] = true;
        t->finished[event->choice] = event->kind == CHAT_EVENT_FINISH;
    }
    if (event->kind == CHAT_EVENT_TOOL_CALL) {
        struct chat_event told = *event; /* ids may be made here, each time another */
        told.tool_call.id = event->tool_call.id ? "id" : NULL;
        chat_edge_openai.encode(t->encoder, &told, &t->out);
        return;
    }
    chat_edge_openai.encode(t->encoder, event, &t->out);
}

static void read_reply(struct reading *t, unsigned mode, const char *bytes, size_t len, size_t piece)
{
    static const struct chat_reply reply = {.id = "id", .model = "model"};
    static const struct chat_prompt prompt = {.text = {"p", 1}};
    memset(t, 0, sizeof *t);
    arena_init(&t->arena, 1 << 26);
    buf_init(&t->out, 1 << 24);
    t->request = (struct chat_request){.arena = &t->arena,
                                       .kind = mode & 2 ? CHAT_KIND_COMPLETION : CHAT_KIND_CHAT,
                                       .choices = CHOICES,
                                       .prompts = &prompt,
                                       .prompt_count = 1,
                                       .stream = true,
                                       .include_usage = true,
                                       .logprobs = true,
                                       .top_logprobs = 2};
    t->encoder = chat_edge_openai.encoder_new(&t->arena, &t->request, &reply, 0);
    struct chat_reader_params params = {&t->request, mode & 1, on_event, t};
    struct chat_reader *reader = chat_codec_openai.reader_new(&t->arena, &params);
    assert(reader && t->encoder);
    for (size_t at = 0; at < len && t->status == PH_OK; at += piece)
        t->status =
            chat_codec_openai.feed(reader, bytes + at, len - at < piece ? len - at : piece, &t->fault);
    if (t->status == PH_OK)
        t->status = chat_codec_openai.end(reader, &t->fault);
    assert(t->status == PH_OK ? t->finished[0] && t->finished[1] : *t->fault.message != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len < 2)
        return 0;
    struct reading whole, cut;
    const char *text = (const char *)bytes + 1;
    read_reply(&whole, bytes[0], text, len - 1, len);
    read_reply(&cut, bytes[0], text, len - 1, (bytes[0] >> 2) % 16u + 1);
    assert(whole.status == cut.status && whole.fault.cause == cut.fault.cause);
    assert(whole.out.len == cut.out.len &&
           (!whole.out.len || !memcmp(whole.out.data, cut.out.data, cut.out.len)));
    struct reading *both[] = {&whole, &cut};
    for (size_t i = 0; i < 2; i++) {
        arena_release(&both[i]->arena);
        buf_release(&both[i]->out);
    }
    return 0;
}
