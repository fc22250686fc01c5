/* Chat events into Anthropic message bodies: server-sent events, or one object at the end.
 *
 * A message is a list of content blocks: text, thinking, tool_use. Events of one kind go on in the open
 * block; another kind closes it and opens the next. Streams only remember which blocks there were; whole
 * replies collect the blocks' texts and write them out at DONE.
 *
 * What clients need, and would break without (seen with the official packages):
 *  A1  message_start comes first, then blocks with start, deltas and stop, then message_delta with the stop
 *      reason, then message_stop, without which the helpers throw;
 *  A2  every event has its name in an `event:` line too: unnamed ones are skipped;
 *  A3  block indices count from 0 without a gap, because clients push blocks and look them up by index;
 *  A4  usage of message_delta replaces that of message_start: the latter may be an estimate;
 *  A5  a failure is `event: error`, and nothing follows it. */
#include <string.h>

#include "chat/anthropic_int.h"

enum block_kind { BLOCK_TEXT, BLOCK_THINKING, BLOCK_REDACTED, BLOCK_TOOL };

struct block {
    enum block_kind kind;
    size_t call;           /* TOOL: the index of its events */
    const char *id, *name; /* TOOL */
    const char *signature; /* THINKING, REDACTED */
    struct buf text;       /* whole replies: text, thought, arguments */
};

struct chat_encoder {
    struct arena *arena;
    const struct chat_request *request;
    const struct chat_reply *reply;
    struct block *blocks;
    size_t count, room;
    bool begun, open; /* the last block may go on */
    enum ph_status status;
    enum chat_finish finish;
    const char *stop_text;
    uint64_t input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens;
};

static void encoder_release(void *ud)
{
    struct chat_encoder *e = ud;
    for (size_t i = 0; i < e->count; i++)
        buf_release(&e->blocks[i].text);
}

static struct chat_encoder *encoder_new(struct arena *arena, const struct chat_request *request,
                                        const struct chat_reply *reply, uint64_t prompt_tokens)
{
    struct chat_encoder *e = arena_calloc(arena, 1, sizeof *e);
    if (!e)
        return NULL;
    *e = (struct chat_encoder){
        .arena = arena, .request = request, .reply = reply, .input_tokens = prompt_tokens};
    return arena_on_release(arena, encoder_release, e) == 0 ? e : NULL;
}

/* ---- Pieces */

static void write_text(struct buf *out, struct chat_text text)
{
    json_write_string(out, text.len ? text.text : "", text.len);
}

static void write_string(struct buf *out, const char *text)
{
    json_write_string(out, text ? text : "", text ? strlen(text) : 0);
}

static void write_string_or_null(struct buf *out, const char *text)
{
    if (text)
        write_string(out, text);
    else
        buf_puts(out, "null");
}

static const char *stop_reason(const struct chat_encoder *e)
{
    static const char *const names[] = {"end_turn", "end_turn", "max_tokens", "tool_use", "refusal"};
    bool stopped = e->finish == CHAT_FINISH_NONE || e->finish == CHAT_FINISH_STOP;
    if (!stopped)
        return names[e->finish];
    if (e->stop_text)
        return "stop_sequence";
    for (size_t i = 0; i < e->count; i++)
        if (e->blocks[i].kind == BLOCK_TOOL) /* some providers say "stop" after a call that was demanded */
            return "tool_use";
    return names[e->finish];
}

static void write_usage(const struct chat_encoder *e, struct buf *out)
{
    buf_printf(out,
               "\"usage\":{\"input_tokens\":%llu,\"cache_creation_input_tokens\":%llu,"
               "\"cache_read_input_tokens\":%llu,\"output_tokens\":%llu",
               (unsigned long long)e->input_tokens, (unsigned long long)e->cache_write_tokens,
               (unsigned long long)e->cached_tokens, (unsigned long long)e->output_tokens);
    if (e->reasoning_tokens)
        buf_printf(out, ",\"output_tokens_details\":{\"thinking_tokens\":%llu}",
                   (unsigned long long)e->reasoning_tokens);
    buf_putc(out, '}');
}

static void write_stop(const struct chat_encoder *e, bool ended, struct buf *out)
{
    buf_puts(out, "\"stop_reason\":");
    write_string_or_null(out, ended ? stop_reason(e) : NULL);
    buf_puts(out, ",\"stop_sequence\":");
    write_string_or_null(out, ended ? e->stop_text : NULL);
}

/* The message's members up to its content; the caller closes the object. */
static void write_head(const struct chat_encoder *e, struct buf *out)
{
    buf_puts(out, "{\"id\":");
    write_string(out, e->reply->id);
    buf_puts(out, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    write_string(out, e->reply->model);
    buf_puts(out, ",\"content\":[");
}

static const char *error_type(int http_status)
{
    static const struct {
        int http_status;
        const char *type;
    } types[] = {{401, "authentication_error"}, {402, "billing_error"},    {403, "permission_error"},
                 {404, "not_found_error"},      {408, "timeout_error"},    {413, "request_too_large"},
                 {429, "rate_limit_error"},     {503, "overloaded_error"}, {504, "timeout_error"},
                 {529, "overloaded_error"}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].http_status == http_status)
            return types[i].type;
    return http_status >= 500 ? "api_error" : "invalid_request_error";
}

static void write_error(struct buf *out, const char *type, const char *prefix, const char *message,
                        const char *request_id)
{
    struct buf text;
    buf_init(&text, CHAT_REPLY_BYTES_MAX);
    buf_puts(&text, prefix);
    buf_puts(&text, message);
    buf_puts(out, "{\"type\":\"error\",\"error\":{\"type\":");
    write_string(out, type);
    buf_puts(out, ",\"message\":");
    json_write_string(out, text.len ? text.data : "", text.len);
    buf_puts(out, "},\"request_id\":");
    write_string_or_null(out, request_id);
    buf_putc(out, '}');
    buf_release(&text);
}

/* Agents look for these words to know that they should shorten the conversation. */
static const char *error_prefix(enum chat_cause cause, const char *message)
{
    static const char words[] = "prompt is too long";
    return cause == CHAT_CAUSE_CONTEXT && !strstr(message, words) ? "prompt is too long: " : "";
}

/* ---- Blocks */

/* NULL: out of memory, which sticks. */
static struct block *add_block(struct chat_encoder *e, enum block_kind kind)
{
    if (e->count == e->room) {
        size_t room = e->room ? 2 * e->room : 4;
        struct block *blocks = arena_calloc(e->arena, room, sizeof *blocks);
        if (!blocks) {
            e->status = PH_ERR_NOMEM;
            return NULL;
        }
        if (e->count)
            memcpy(blocks, e->blocks, e->count * sizeof *blocks);
        e->blocks = blocks;
        e->room = room;
    }
    struct block *block = &e->blocks[e->count++];
    *block = (struct block){.kind = kind};
    buf_init(&block->text, CHAT_REPLY_BYTES_MAX);
    e->open = true;
    return block;
}

static const char *copy(struct chat_encoder *e, const char *text)
{
    const char *kept = text ? arena_strdup(e->arena, text) : NULL;
    if (text && !kept)
        e->status = PH_ERR_NOMEM;
    return kept;
}

/* `arguments` must be an object here; what a model wrote may be none. */
static void write_input(const struct block *block, struct buf *out)
{
    struct arena scratch;
    struct json *input = NULL;
    arena_init(&scratch, HTTP_REQUEST_ARENA_BYTES_MAX);
    if (block->text.len == 0) {
        buf_puts(out, "{}");
    } else if (json_parse(&scratch, block->text.data, block->text.len, &input, NULL) == PH_OK &&
               json_is(input, JSON_OBJECT)) {
        json_write(out, input);
    } else {
        buf_puts(out, "{\"INVALID_JSON\":");
        json_write_string(out, block->text.data, block->text.len);
        buf_putc(out, '}');
    }
    arena_release(&scratch);
}

/* A block as it begins in a stream (empty), or whole. */
static void write_block(const struct block *block, bool whole, struct buf *out)
{
    struct chat_text text = {block->text.data, whole ? block->text.len : 0};
    switch (block->kind) {
    case BLOCK_TEXT:
        buf_puts(out, "{\"type\":\"text\",\"text\":");
        write_text(out, text);
        break;
    case BLOCK_THINKING:
        buf_puts(out, "{\"type\":\"thinking\",\"thinking\":");
        write_text(out, text);
        buf_puts(out, ",\"signature\":");
        write_string(out, whole ? block->signature : NULL);
        break;
    case BLOCK_REDACTED:
        buf_puts(out, "{\"type\":\"redacted_thinking\",\"data\":");
        write_string(out, block->signature);
        break;
    case BLOCK_TOOL:
        buf_puts(out, "{\"type\":\"tool_use\",\"id\":");
        write_string(out, block->id);
        buf_puts(out, ",\"name\":");
        write_string(out, block->name);
        buf_puts(out, ",\"input\":");
        if (whole)
            write_input(block, out);
        else
            buf_puts(out, "{}");
        break;
    }
    buf_putc(out, '}');
}

/* ---- Streams; in whole replies nothing is written until the end */

/* Up to the members that follow the type; the caller ends it with end_event. False: not a stream. */
static bool begin_event(const struct chat_encoder *e, const char *name, struct buf *out)
{
    if (!e->request->stream)
        return false;
    buf_printf(out, "event: %s\ndata: {\"type\":\"%s\"", name, name);
    return true;
}

static void end_event(struct buf *out)
{
    buf_puts(out, "}\n\n");
}

static void begin_message(struct chat_encoder *e, struct buf *out)
{
    if (e->begun)
        return;
    e->begun = true;
    if (!begin_event(e, "message_start", out))
        return;
    buf_puts(out, ",\"message\":");
    write_head(e, out);
    buf_puts(out, "],");
    write_stop(e, false, out);
    buf_putc(out, ',');
    write_usage(e, out);
    buf_putc(out, '}');
    end_event(out);
}

static void close_block(struct chat_encoder *e, struct buf *out)
{
    if (e->open && begin_event(e, "content_block_stop", out)) {
        buf_printf(out, ",\"index\":%zu", e->count - 1);
        end_event(out);
    }
    e->open = false;
}

static void announce_block(struct chat_encoder *e, struct buf *out)
{
    if (!begin_event(e, "content_block_start", out))
        return;
    buf_printf(out, ",\"index\":%zu,\"content_block\":", e->count - 1);
    write_block(&e->blocks[e->count - 1], false, out);
    end_event(out);
}

/* One delta of a block: {"type":"text_delta","text":"..."} and its likes. */
static void write_delta(const struct chat_encoder *e, const struct block *block, const char *type,
                        const char *member, struct chat_text text, struct buf *out)
{
    if (!begin_event(e, "content_block_delta", out))
        return;
    buf_printf(out, ",\"index\":%zu,\"delta\":{\"type\":\"%s\",\"%s\":", (size_t)(block - e->blocks), type,
               member);
    write_text(out, text);
    buf_putc(out, '}');
    end_event(out);
}

static struct block *go_on(struct chat_encoder *e, enum block_kind kind, struct buf *out)
{
    if (e->open && e->blocks[e->count - 1].kind == kind)
        return &e->blocks[e->count - 1];
    close_block(e, out);
    struct block *block = add_block(e, kind);
    if (block)
        announce_block(e, out);
    return block;
}

static void add_text(struct chat_encoder *e, struct block *block, struct chat_text text)
{
    if (e->request->stream || text.len == 0)
        return;
    buf_append(&block->text, text.text, text.len);
    if (block->text.status != PH_OK)
        e->status = block->text.status;
}

static void encode_text(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    struct block *block = event->text.len ? go_on(e, BLOCK_TEXT, out) : NULL;
    if (!block)
        return;
    add_text(e, block, event->text);
    write_delta(e, block, "text_delta", "text", event->text, out);
}

static void encode_redacted(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    close_block(e, out);
    struct block *block = add_block(e, BLOCK_REDACTED);
    if (!block)
        return;
    block->signature = copy(e, event->signature);
    announce_block(e, out);
    close_block(e, out);
}

static void encode_reasoning(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    if (event->redacted) {
        encode_redacted(e, event, out);
        return;
    }
    bool any = event->text.len || event->signature;
    struct block *block = any ? go_on(e, BLOCK_THINKING, out) : NULL;
    if (!block)
        return;
    add_text(e, block, event->text);
    if (event->text.len)
        write_delta(e, block, "thinking_delta", "thinking", event->text, out);
    if (event->signature) { /* the thought's end */
        struct chat_text signature = {event->signature, strlen(event->signature)};
        block->signature = copy(e, event->signature);
        write_delta(e, block, "signature_delta", "signature", signature, out);
        close_block(e, out);
    }
}

/* Arguments that come late, when another call has begun, still find their block. Some providers give every
 * call the same index: another id is another call. */
static struct block *block_of_call(struct chat_encoder *e, const struct chat_event *event)
{
    const char *id = event->tool_call.name ? event->tool_call.id : NULL;
    for (size_t i = e->count; i-- > 0;) {
        struct block *block = &e->blocks[i];
        if (block->kind == BLOCK_TOOL && block->call == event->tool_call.index)
            return id && block->id && strcmp(id, block->id) != 0 ? NULL : block;
    }
    return NULL;
}

static void encode_call(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    struct block *block = block_of_call(e, event);
    if (!block) {
        close_block(e, out);
        block = add_block(e, BLOCK_TOOL);
        if (!block)
            return;
        block->call = event->tool_call.index;
        block->id = copy(e, event->tool_call.id);
        block->name = copy(e, event->tool_call.name);
        announce_block(e, out);
    }
    if (event->tool_call.arguments.len == 0)
        return;
    add_text(e, block, event->tool_call.arguments);
    write_delta(e, block, "input_json_delta", "partial_json", event->tool_call.arguments, out);
}

/* ---- The end */

static void take_usage(struct chat_encoder *e, const struct chat_event *event)
{
    uint64_t cached = event->usage.cached_tokens, written = event->usage.cache_write_tokens;
    uint64_t all = event->usage.prompt_tokens;
    e->cached_tokens = cached;
    e->cache_write_tokens = written;
    e->input_tokens = all > cached + written ? all - cached - written : 0;
    e->output_tokens = event->usage.completion_tokens;
    e->reasoning_tokens = event->usage.reasoning_tokens;
}

static void write_whole(const struct chat_encoder *e, struct buf *out)
{
    write_head(e, out);
    for (size_t i = 0; i < e->count; i++) {
        if (i)
            buf_putc(out, ',');
        write_block(&e->blocks[i], true, out);
    }
    buf_puts(out, "],");
    write_stop(e, true, out);
    buf_putc(out, ',');
    write_usage(e, out);
    buf_putc(out, '}');
}

static void encode_done(struct chat_encoder *e, struct buf *out)
{
    if (!e->request->stream) {
        write_whole(e, out);
        return;
    }
    begin_message(e, out);
    close_block(e, out);
    begin_event(e, "message_delta", out);
    buf_puts(out, ",\"delta\":{");
    write_stop(e, true, out);
    buf_puts(out, "},");
    write_usage(e, out);
    end_event(out);
    begin_event(e, "message_stop", out);
    end_event(out);
}

static void encode_error(const struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    const char *message = event->error.message ? event->error.message : "";
    if (e->request->stream)
        buf_puts(out, "event: error\ndata: ");
    write_error(out, error_type(event->error.http_status), error_prefix(event->error.cause, message), message,
                e->request->request_id);
    if (e->request->stream)
        buf_puts(out, "\n\n");
}

static void encode(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    bool content = event->kind == CHAT_EVENT_TEXT || event->kind == CHAT_EVENT_REASONING ||
                   event->kind == CHAT_EVENT_TOOL_CALL;
    if (event->kind == CHAT_EVENT_ROLE || content)
        begin_message(e, out);
    switch (event->kind) {
    case CHAT_EVENT_ROLE:
        break;
    case CHAT_EVENT_TEXT:
        encode_text(e, event, out);
        break;
    case CHAT_EVENT_REASONING:
        encode_reasoning(e, event, out);
        break;
    case CHAT_EVENT_TOOL_CALL:
        encode_call(e, event, out);
        break;
    case CHAT_EVENT_PROGRESS:
        if (begin_event(e, "ping", out))
            end_event(out);
        break;
    case CHAT_EVENT_FINISH:
        e->finish = event->finish;
        e->stop_text = copy(e, event->stop_text);
        if (e->output_tokens == 0)
            e->output_tokens = event->timing.tokens; /* until usage says */
        break;
    case CHAT_EVENT_USAGE:
        take_usage(e, event);
        break;
    case CHAT_EVENT_ERROR:
        encode_error(e, event, out);
        break;
    case CHAT_EVENT_DONE:
        encode_done(e, out);
        break;
    }
    if (e->status != PH_OK)
        out->status = e->status;
}

static void encode_fault(const struct chat_fault *fault, const char *request_id, struct buf *out)
{
    write_error(out, error_type(fault->http_status), error_prefix(fault->cause, fault->message),
                fault->message, request_id);
}

static int fault_status(const struct chat_fault *fault)
{
    return fault->http_status == 503 ? 529 : fault->http_status;
}

void chat_anthropic_count_encode(uint64_t tokens, struct buf *out)
{
    buf_printf(out, "{\"input_tokens\":%llu}", (unsigned long long)tokens);
}

const struct chat_edge chat_edge_anthropic = {
    .name = "anthropic",
    .id_prefix = "msg_",
    .decode = anthropic_decode,
    .encoder_new = encoder_new,
    .encode = encode,
    .encode_fault = encode_fault,
    .fault_status = fault_status,
};
