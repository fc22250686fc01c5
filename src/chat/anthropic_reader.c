/* Replies of Anthropic providers into chat events, streamed or whole.
 *
 * A stream is events with JSON data, named twice (`event:` and "type"); blocks come one after the other, so
 * that the reader remembers one. What it does not know (pings, citations, blocks of server tools, events of
 * the future) it skips. FINISH waits for message_stop: a stream that ends before it was cut, and nobody has
 * said otherwise. A whole reply is collected and its blocks emitted as if each came in one delta.
 *
 * Tokens of a prompt are said in three parts, new, read from a cache and written to one; prompt_tokens is
 * their sum. message_delta repeats what changed since message_start. */
#include <string.h>

#include "chat/anthropic_int.h"

#define EVENT_ARENA_BYTES_MAX ((size_t)8 * CHAT_SSE_EVENT_BYTES_MAX)
#define WHOLE_ARENA_BYTES_MAX ((size_t)4 * CHAT_REPLY_BYTES_MAX)

enum block_kind { BLOCK_NONE, BLOCK_TEXT, BLOCK_THINKING, BLOCK_TOOL };

struct chat_reader {
    struct arena *arena;
    struct chat_reader_params params;
    struct chat_sse sse;
    struct buf body;      /* whole replies */
    struct buf input;     /* a tool's input that came with its block's beginning */
    struct arena scratch; /* one event's document */
    struct chat_fault *fault;
    enum ph_status status; /* of the event in work */
    bool begun, stopped, ending, sums_told;
    enum block_kind block; /* the open one */
    bool has_arguments;    /* TOOL: some have come */
    size_t call_count;
    struct chat_text lost_space; /* at the beginning of the answer it is not news */
    enum chat_finish finish;
    char stop_text[ENGINE_STOP_BYTES_MAX + 1];
    bool has_stop_text;
    uint64_t input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens;
};

static void reader_release(void *ud)
{
    struct chat_reader *r = ud;
    chat_sse_release(&r->sse);
    buf_release(&r->body);
    buf_release(&r->input);
    arena_release(&r->scratch);
}

static struct chat_reader *reader_new(struct arena *arena, const struct chat_reader_params *params)
{
    struct chat_reader *r = arena_calloc(arena, 1, sizeof *r);
    if (!r)
        return NULL;
    r->arena = arena;
    r->params = *params;
    r->lost_space = anthropic_lost_space(params->request);
    chat_sse_init(&r->sse, CHAT_SSE_EVENT_BYTES_MAX);
    buf_init(&r->body, CHAT_REPLY_BYTES_MAX);
    buf_init(&r->input, CHAT_REPLY_BYTES_MAX);
    arena_init_pooled(&r->scratch, params->is_stream ? EVENT_ARENA_BYTES_MAX : WHOLE_ARENA_BYTES_MAX,
                      arena->pool);
    return arena_on_release(arena, reader_release, r) == 0 ? r : NULL;
}

/* ---- Emitting */

static void emit(struct chat_reader *r, const struct chat_event *event)
{
    r->params.event(r->params.ud, event);
}

/* The answer goes on from a beginning that was sent without the white space at its end. */
static struct chat_text without_lost_space(struct chat_reader *r, struct chat_text text)
{
    struct chat_text *lost = &r->lost_space;
    while (lost->len && text.len && *text.text == *lost->text) {
        text = (struct chat_text){text.text + 1, text.len - 1};
        *lost = (struct chat_text){lost->text + 1, lost->len - 1};
    }
    if (text.len)
        lost->len = 0;
    return text;
}

static void emit_text(struct chat_reader *r, enum chat_event_kind kind, const struct json *value)
{
    if (!json_is(value, JSON_STRING))
        return;
    struct chat_event event = {.kind = kind, .text = {value->u.str.text, value->u.str.len}};
    if (kind == CHAT_EVENT_TEXT)
        event.text = without_lost_space(r, event.text);
    if (event.text.len)
        emit(r, &event);
}

static void emit_signature(struct chat_reader *r, const struct json *signature, bool redacted)
{
    if (!json_is(signature, JSON_STRING) || signature->u.str.len == 0)
        return;
    struct chat_event event = {.kind = CHAT_EVENT_REASONING,
                               .text = {"", 0},
                               .signature = signature->u.str.text,
                               .redacted = redacted};
    emit(r, &event);
}

static void emit_arguments(struct chat_reader *r, const char *text, size_t len)
{
    struct chat_event event = {.kind = CHAT_EVENT_TOOL_CALL};
    event.tool_call.index = r->call_count - 1;
    event.tool_call.arguments = (struct chat_text){text, len};
    emit(r, &event);
    r->has_arguments = true;
}

static void emit_call(struct chat_reader *r, const struct json *block)
{
    struct chat_event event = {.kind = CHAT_EVENT_TOOL_CALL};
    event.tool_call.index = r->call_count++;
    event.tool_call.id = json_text(json_get(block, "id"), "");
    event.tool_call.name = json_text(json_get(block, "name"), "");
    event.tool_call.arguments = (struct chat_text){"", 0};
    r->has_arguments = false;
    emit(r, &event);
}

static void emit_usage(struct chat_reader *r)
{
    struct chat_event event = {.kind = CHAT_EVENT_USAGE};
    event.usage.prompt_tokens = r->input_tokens + r->cached_tokens + r->cache_write_tokens;
    event.usage.cached_tokens = r->cached_tokens;
    event.usage.cache_write_tokens = r->cache_write_tokens;
    event.usage.completion_tokens = r->output_tokens;
    event.usage.reasoning_tokens = r->reasoning_tokens;
    emit(r, &event);
}

static void emit_end(struct chat_reader *r)
{
    struct chat_event event = {.kind = CHAT_EVENT_FINISH, .finish = r->finish};
    if (event.finish == CHAT_FINISH_NONE)
        event.finish = r->call_count ? CHAT_FINISH_TOOL_CALLS : CHAT_FINISH_STOP;
    event.stop_text = r->has_stop_text ? r->stop_text : NULL;
    emit(r, &event);
    if (r->sums_told)
        emit_usage(r);
    r->stopped = true;
}

/* ---- What both forms have */

/* Absent, null and 0 change nothing: compatible providers send zeros for what they said before. */
static void take_count(const struct json *usage, const char *name, uint64_t *out)
{
    int64_t value;
    if (json_to_int64(json_get(usage, name), &value) && value > 0)
        *out = (uint64_t)value;
}

static void take_usage(struct chat_reader *r, const struct json *usage)
{
    take_count(usage, "input_tokens", &r->input_tokens);
    take_count(usage, "cache_read_input_tokens", &r->cached_tokens);
    take_count(usage, "cache_creation_input_tokens", &r->cache_write_tokens);
    take_count(usage, "output_tokens", &r->output_tokens);
    take_count(json_get(usage, "output_tokens_details"), "thinking_tokens", &r->reasoning_tokens);
}

/* At the end. What a message's beginning says of its output is a guess; where the end says nothing, it is not
 * made out to be the sum. */
static void take_sums(struct chat_reader *r, const struct json *usage)
{
    bool is_told = json_is(json_get(usage, "output_tokens"), JSON_NUMBER);
    if (is_told && !r->sums_told)
        r->output_tokens = 0; /* message_start said 1 before there was any; the end may be 0 */
    r->sums_told = r->sums_told || is_told;
    take_usage(r, usage);
}

static void take_stop(struct chat_reader *r, const struct json *from)
{
    static const struct {
        const char *reason;
        enum chat_finish finish;
    } reasons[] = {{"end_turn", CHAT_FINISH_STOP},
                   {"stop_sequence", CHAT_FINISH_STOP},
                   {"pause_turn", CHAT_FINISH_STOP},
                   {"max_tokens", CHAT_FINISH_LENGTH},
                   {"model_context_window_exceeded", CHAT_FINISH_LENGTH},
                   {"tool_use", CHAT_FINISH_TOOL_CALLS},
                   {"refusal", CHAT_FINISH_CONTENT_FILTER}};
    const struct json *reason = json_get(from, "stop_reason"), *text = json_get(from, "stop_sequence");
    if (json_is(reason, JSON_STRING))
        r->finish = CHAT_FINISH_STOP;
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (json_text_is(reason, reasons[i].reason))
            r->finish = reasons[i].finish;
    if (json_is(text, JSON_STRING) && text->u.str.len < sizeof r->stop_text) {
        memcpy(r->stop_text, text->u.str.text, text->u.str.len + 1);
        r->has_stop_text = true;
    }
}

static void begin_message(struct chat_reader *r)
{
    struct chat_event event = {.kind = CHAT_EVENT_ROLE};
    if (r->begun)
        return;
    r->begun = true;
    emit(r, &event);
}

static void begin_block(struct chat_reader *r, const struct json *block)
{
    const struct json *type = json_get(block, "type"), *input = json_get(block, "input");
    r->block = BLOCK_NONE;
    buf_clear(&r->input);
    if (json_text_is(type, "text")) {
        r->block = BLOCK_TEXT;
        emit_text(r, CHAT_EVENT_TEXT, json_get(block, "text"));
    } else if (json_text_is(type, "thinking")) {
        r->block = BLOCK_THINKING;
        emit_text(r, CHAT_EVENT_REASONING, json_get(block, "thinking"));
        emit_signature(r, json_get(block, "signature"), false);
    } else if (json_text_is(type, "redacted_thinking")) {
        emit_signature(r, json_get(block, "data"), true);
    } else if (json_text_is(type, "tool_use")) {
        r->block = BLOCK_TOOL;
        emit_call(r, block);
        if (json_count(input))
            json_write(&r->input, input);
    }
}

static enum ph_status broken(struct chat_reader *r, enum ph_status status, const char *what)
{
    (void)upstream_broken(r->fault, CHAT_CAUSE_SERVER, what);
    return status;
}

/* A call without deltas has the arguments that came with its beginning, mostly none. */
static void end_block(struct chat_reader *r)
{
    if (r->block == BLOCK_TOOL && !r->has_arguments) {
        if (buf_status(&r->input) != PH_OK)
            r->status = broken(r, buf_status(&r->input), "the provider's reply has too long a tool call");
        else if (r->input.len)
            emit_arguments(r, r->input.data, r->input.len);
        else
            emit_arguments(r, "{}", 2);
    }
    r->block = BLOCK_NONE;
}

/* ---- Streams */

static void on_message_start(struct chat_reader *r, const struct json *data)
{
    take_usage(r, json_get(json_get(data, "message"), "usage"));
    begin_message(r);
    emit_usage(r);
}

static void on_block_start(struct chat_reader *r, const struct json *data)
{
    begin_message(r);
    end_block(r); /* one that was not ended */
    begin_block(r, json_get(data, "content_block"));
}

static void on_block_delta(struct chat_reader *r, const struct json *data)
{
    const struct json *delta = json_get(data, "delta"), *type = json_get(delta, "type");
    const struct json *arguments = json_get(delta, "partial_json");
    begin_message(r);
    if (json_text_is(type, "text_delta"))
        emit_text(r, CHAT_EVENT_TEXT, json_get(delta, "text"));
    else if (json_text_is(type, "thinking_delta"))
        emit_text(r, CHAT_EVENT_REASONING, json_get(delta, "thinking"));
    else if (json_text_is(type, "signature_delta"))
        emit_signature(r, json_get(delta, "signature"), false);
    else if (r->block == BLOCK_TOOL && json_is(arguments, JSON_STRING) && arguments->u.str.len)
        emit_arguments(r, arguments->u.str.text, arguments->u.str.len);
}

static void on_block_stop(struct chat_reader *r, const struct json *data)
{
    (void)data;
    end_block(r);
}

static void on_message_delta(struct chat_reader *r, const struct json *data)
{
    take_stop(r, json_get(data, "delta"));
    take_sums(r, json_get(data, "usage"));
}

static void on_message_stop(struct chat_reader *r, const struct json *data)
{
    (void)data;
    begin_message(r);
    end_block(r);
    emit_end(r);
}

static enum ph_status refused(struct chat_reader *r, const struct json *reply)
{
    struct upstream_error error;
    if (upstream_error_read(r->arena, reply, &error))
        upstream_fault(r->arena, 0, &error, r->fault);
    else
        (void)upstream_broken(r->fault, CHAT_CAUSE_SERVER, "the provider reported an error and no reason");
    return PH_ERR_IO;
}

static void on_error(struct chat_reader *r, const struct json *data)
{
    r->status = refused(r, data);
}

static void dispatch(struct chat_reader *r, const struct json *data, const char *name)
{
    static const struct {
        const char *type;
        void (*on)(struct chat_reader *r, const struct json *data);
    } handlers[] = {{"content_block_delta", on_block_delta},
                    {"content_block_start", on_block_start},
                    {"content_block_stop", on_block_stop},
                    {"message_start", on_message_start},
                    {"message_delta", on_message_delta},
                    {"message_stop", on_message_stop},
                    {"error", on_error}};
    const char *type = json_text(json_get(data, "type"), name);
    for (size_t i = 0; i < sizeof handlers / sizeof handlers[0]; i++)
        if (strcmp(type, handlers[i].type) == 0)
            handlers[i].on(r, data);
}

static bool on_sse(void *ud, const char *name, const char *data, size_t len)
{
    struct chat_reader *r = ud;
    struct json *document = NULL;
    struct ph_err err;
    if (r->stopped || strcmp(data, "[DONE]") == 0)
        return true;
    arena_clear(&r->scratch);
    r->status = json_parse(&r->scratch, data, len, &document, &err);
    if (r->status == PH_OK)
        dispatch(r, document, name);
    else if (!r->ending || r->status != PH_ERR_FORMAT)
        broken(r, r->status,
               r->status == PH_ERR_NOMEM ? "an event of the provider's reply is too large"
                                         : "an event of the provider's reply is no JSON");
    return r->status == PH_OK;
}

static enum ph_status feed(struct chat_reader *r, const char *bytes, size_t len, struct chat_fault *fault)
{
    r->fault = fault;
    if (!r->params.is_stream) {
        buf_append(&r->body, bytes, len);
        enum ph_status status = buf_status(&r->body);
        return status == PH_OK ? PH_OK : broken(r, status, "the provider's reply is too long");
    }
    enum ph_status status = chat_sse_feed(&r->sse, bytes, len, on_sse, r);
    if (status == PH_ERR_CANCELLED)
        return r->status; /* the fault is filled */
    return status == PH_OK ? PH_OK : broken(r, status, "an event of the provider's reply is too long");
}

/* ---- The end */

static enum ph_status cut(struct chat_reader *r)
{
    return upstream_broken(r->fault, CHAT_CAUSE_CUT, "the provider's reply ended before its end was said");
}

static enum ph_status read_whole(struct chat_reader *r)
{
    struct json *reply = NULL;
    struct ph_err err;
    enum ph_status status = json_parse(&r->scratch, r->body.data, r->body.len, &reply, &err);
    const struct json *content = json_get(reply, "content");
    struct upstream_error error;
    if (status == PH_ERR_FORMAT && r->body.data[0] == '{')
        return cut(r);
    if (status != PH_OK)
        return broken(r, status, "the provider's reply is no JSON");
    if (!json_is(content, JSON_ARRAY) && upstream_error_read(r->arena, reply, &error)) {
        upstream_fault(r->arena, 0, &error, r->fault);
        return PH_ERR_IO;
    }
    if (!json_is(content, JSON_ARRAY))
        return broken(r, PH_ERR_FORMAT, "the provider's reply is no message");
    take_sums(r, json_get(reply, "usage"));
    take_stop(r, reply);
    begin_message(r);
    JSON_EACH (block, content) {
        begin_block(r, block);
        end_block(r);
    }
    if (r->status == PH_OK)
        emit_end(r);
    return r->status;
}

/* The last event's empty line may be missing; if more is, the stream was cut. */
static enum ph_status end_stream(struct chat_reader *r)
{
    r->ending = true;
    enum ph_status status = r->stopped ? PH_OK : chat_sse_feed(&r->sse, "\n\n", 2, on_sse, r);
    if (status == PH_ERR_CANCELLED && r->status != PH_ERR_FORMAT)
        return r->status; /* the fault is filled: an error event */
    return r->stopped ? PH_OK : cut(r);
}

static enum ph_status end(struct chat_reader *r, struct chat_fault *fault)
{
    r->fault = fault;
    if (r->params.is_stream)
        return end_stream(r);
    return r->body.len ? read_whole(r) : cut(r);
}

const struct chat_codec chat_codec_anthropic = {
    .name = "anthropic",
    .continues = anthropic_continues,
    .encode = anthropic_request,
    .reader_new = reader_new,
    .feed = feed,
    .end = end,
    .fault = upstream_fault_of_body,
};
