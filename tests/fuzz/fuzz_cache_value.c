/* Bytes of a shared cache: as a value, and, as if its digest were right, as the recording in one. What passes
 * the check is played through the encoder of the dialect that the first byte names, whole and streamed, and
 * what comes out is JSON. */
#include <stdlib.h>
#include <string.h>

#include "gateway/gateway_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static const struct {
    const struct chat_edge *edge;
    enum chat_kind kind;
    const char *body;
} requests[] = {
    {&chat_edge_openai, CHAT_KIND_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"},
    {&chat_edge_openai, CHAT_KIND_CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"n\":3,\"logprobs\":true,\"top_logprobs\":2,"
     "\"max_tokens\":9}"},
    {&chat_edge_openai, CHAT_KIND_COMPLETION, "{\"prompt\":[\"x\",\"y\"],\"logprobs\":2,\"max_tokens\":9}"},
    {&chat_edge_anthropic, CHAT_KIND_CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":9}"},
    {&chat_edge_responses, CHAT_KIND_CHAT, "{\"input\":\"x\"}"},
    {&chat_edge_responses, CHAT_KIND_CHAT, "{\"input\":\"x\",\"max_output_tokens\":9}"}};
#define REQUEST_COUNT (sizeof requests / sizeof *requests)

static bool check_event(void *ud, const char *name, const char *data, size_t len)
{
    struct arena *arena = ud;
    struct json *json;
    (void)name;
    require(strcmp(data, "[DONE]") == 0 || json_parse(arena, data, len, &json, NULL) == PH_OK);
    return true;
}

static void check_out(const struct chat_request *request, const struct buf *out)
{
    struct arena arena;
    struct json *json;
    struct chat_sse sse;
    arena_init(&arena, (size_t)1 << 30);
    chat_sse_init(&sse, 1 << 26);
    if (request->stream)
        require(chat_sse_feed(&sse, out->data, out->len, check_event, &arena) == PH_OK);
    else
        require(json_parse(&arena, out->data, out->len, &json, NULL) == PH_OK);
    chat_sse_release(&sse);
    arena_release(&arena);
}

static void play(const struct chat_edge *edge, const struct recording *recording,
                 const struct chat_request *request)
{
    static const struct chat_reply reply = {"id_1", "model", 0};
    struct arena arena, scratch;
    struct chat_event event;
    struct buf out;
    size_t at = 0;
    arena_init(&arena, (size_t)1 << 28);
    arena_init(&scratch, (size_t)1 << 28);
    buf_init(&out, (size_t)1 << 28);
    struct chat_encoder *encoder = edge->encoder_new(&arena, request, &reply, 1);
    require(encoder != NULL);
    do {
        arena_clear(&scratch);
        require(recording_next(recording, &at, &scratch, &event));
        edge->encode(encoder, &event, &out);
    } while (event.kind != CHAT_EVENT_DONE);
    require(buf_status(&out) == PH_OK);
    check_out(request, &out);
    buf_release(&out);
    arena_release(&scratch);
    arena_release(&arena);
}

static void fuzz_recording(const uint8_t *bytes, size_t len, unsigned which)
{
    struct arena arena, scratch;
    struct json *body;
    struct chat_request request;
    struct chat_fault fault;
    struct recording recording;
    const char *text = requests[which].body;
    arena_init(&arena, 1 << 20);
    arena_init(&scratch, (size_t)1 << 28);
    recording_init(&recording, (size_t)1 << 22);
    buf_append(&recording.bytes, bytes, len);
    require(json_parse(&arena, text, strlen(text), &body, NULL) == PH_OK);
    require(requests[which].edge->decode(&arena, requests[which].kind, body, &request, &fault) == PH_OK);
    for (int stream = 0; stream < 2; stream++) {
        request.stream = stream;
        if (recording_is_whole(&recording, &request, &scratch))
            play(requests[which].edge, &recording, &request);
    }
    recording_release(&recording);
    arena_release(&scratch);
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct cache *cache;
    static const struct cache_key key = {{0}};
    struct cache_params params = {.bytes_max = 1 << 16, .ttl_ns = 100, .clock = clock_system()};
    struct cache_value value;
    if (!cache)
        require(cache_create(&cache, &params) == PH_OK);
    if (cache_value_read(cache, &key, (const char *)bytes, len, &value))
        require(strlen(value.model) + value.len < len);
    if (len)
        fuzz_recording(bytes + 1, len - 1, bytes[0] % REQUEST_COUNT);
    return 0;
}
