/* Chat events into OpenAI bodies: server-sent events, or one object at the end.
 *
 * A stream's chunks share all but their choices, so that the head of a chunk is written once and copied. A
 * whole reply is collected choice by choice in buffers that hang on the arena; their texts are written out at
 * DONE. Log-probabilities are kept as finished JSON pieces, so that collecting them costs no structures.
 *
 * What clients need, and would break without (seen with the official packages):
 *  O1  the first delta of a choice carries its role;
 *  O2  the last chunk of a choice carries finish_reason, all before it carry null;
 *  O3  a usage chunk has an empty choices array and comes only when it was asked for; then every other chunk
 *      has usage null;
 *  O4  a failure is a chunk {"error": ...} and no [DONE]. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "chat/chat_int.h"

#define HEAD_BYTES_USUAL 200
#define WHOLE_BYTES_USUAL 600 /* of a whole reply, without its text */

struct choice {
    struct buf text, reasoning;              /* not streaming */
    struct buf logprobs;                     /* chat: entries of content; completions: of tokens */
    struct buf values, offsets, top;         /* completions: the parallel arrays */
    struct buf calls;                        /* tool calls, each without its closing brackets */
    bool in_call;                            /* the last one of `calls` is still open */
    size_t call_count, logprob_count, chars; /* chars: code points of text so far, for text_offset */
    enum chat_finish finish;
};

struct chat_encoder {
    const struct chat_request *request;
    const struct chat_reply *reply;
    struct buf head; /* {"id":...,"model":...,  up to the choices; a stream's with "data: " before it */
    struct choice *choices;
    size_t choice_count;
    struct choice delta; /* for streams: the logprobs of one delta */
    bool has_usage;
    uint64_t prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens;
};

static bool is_chat(const struct chat_encoder *e)
{
    return e->request->kind == CHAT_KIND_CHAT;
}

/* ---- Making one */

static void choice_init(struct choice *c)
{
    struct buf *all[] = {&c->text, &c->reasoning, &c->logprobs, &c->values, &c->offsets, &c->top, &c->calls};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_init(all[i], CHAT_REPLY_BYTES_MAX);
}

static void choice_clear(struct choice *c)
{
    struct buf *all[] = {&c->text, &c->reasoning, &c->logprobs, &c->values, &c->offsets, &c->top, &c->calls};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_clear(all[i]);
    c->logprob_count = 0;
}

static void choice_release(struct choice *c)
{
    struct buf *all[] = {&c->text, &c->reasoning, &c->logprobs, &c->values, &c->offsets, &c->top, &c->calls};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_release(all[i]);
}

static enum ph_status choice_status(const struct choice *c)
{
    const struct buf *all[] = {&c->text,    &c->reasoning, &c->logprobs, &c->values,
                               &c->offsets, &c->top,       &c->calls};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i]->status != PH_OK)
            return all[i]->status;
    return PH_OK;
}

static void encoder_release(void *ud)
{
    struct chat_encoder *e = ud;
    buf_release(&e->head);
    choice_release(&e->delta);
    for (size_t i = 0; i < e->choice_count; i++)
        choice_release(&e->choices[i]);
}

static void write_head(struct chat_encoder *e)
{
    static const char *const objects[2][2] = {{"text_completion", "text_completion"},
                                              {"chat.completion", "chat.completion.chunk"}};
    struct buf *head = &e->head;
    if (!buf_reserve(head, HEAD_BYTES_USUAL)) /* once, instead of doubling its way up */
        return;
    buf_puts(head, e->request->stream ? "data: {\"id\":" : "{\"id\":");
    json_write_string(head, e->reply->id, strlen(e->reply->id));
    buf_puts(head, ",\"object\":\"");
    buf_puts(head, objects[is_chat(e)][e->request->stream]);
    buf_puts(head, "\",\"created\":");
    buf_put_fixed(head, e->reply->created_unix_s, 0);
    buf_puts(head, ",\"model\":");
    json_write_string(head, e->reply->model, strlen(e->reply->model));
    buf_puts(head, ",\"choices\":[");
}

static struct chat_encoder *openai_encoder_new(struct arena *arena, const struct chat_request *request,
                                               const struct chat_reply *reply, uint64_t prompt_tokens)
{
    (void)prompt_tokens; /* said at the end */
    size_t count = chat_choice_count(request);
    struct chat_encoder *e = arena_calloc(arena, 1, sizeof *e);
    struct choice *choices = arena_calloc(arena, count, sizeof *choices);
    if (!e || !choices)
        return NULL;
    *e = (struct chat_encoder){.request = request, .reply = reply, .choices = choices, .choice_count = count};
    buf_init(&e->head, CHAT_REPLY_BYTES_MAX);
    choice_init(&e->delta);
    for (size_t i = 0; i < count; i++)
        choice_init(&choices[i]);
    if (arena_on_release(arena, encoder_release, e) != 0)
        return NULL;
    write_head(e);
    if (buf_status(&e->head) != PH_OK)
        return NULL; /* the arena releases what was made */
    return e;
}

/* ---- Pieces */

static const char *finish_name(enum chat_finish finish)
{
    static const char *const names[] = {"null", "\"stop\"", "\"length\"", "\"tool_calls\"",
                                        "\"content_filter\""};
    return names[finish];
}

static void comma(struct buf *out)
{
    if (out->len)
        buf_putc(out, ',');
}

static size_t count_chars(struct chat_text text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += ((unsigned char)text.text[i] & 0xC0) != 0x80;
    return count;
}

static void write_text(struct buf *out, struct chat_text text)
{
    json_write_string(out, text.len ? text.text : "", text.len);
}

static void write_usage(const struct chat_encoder *e, struct buf *out)
{
    buf_puts(out, "\"usage\":{\"prompt_tokens\":");
    buf_put_uint(out, e->prompt_tokens);
    buf_puts(out, ",\"completion_tokens\":");
    buf_put_uint(out, e->completion_tokens);
    buf_puts(out, ",\"total_tokens\":");
    buf_put_uint(out, e->prompt_tokens + e->completion_tokens);
    buf_puts(out, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    buf_put_uint(out, e->cached_tokens);
    buf_puts(out, "},\"completion_tokens_details\":{\"reasoning_tokens\":");
    buf_put_uint(out, e->reasoning_tokens);
    buf_puts(out, "}}");
}

/* {"token":..,"logprob":..,"bytes":[..]  without the closing bracket. */
static void write_chat_token(struct buf *out, const struct chat_token_logprob *token)
{
    buf_puts(out, "{\"token\":");
    write_text(out, token->token);
    buf_puts(out, ",\"logprob\":");
    json_write_double(out, token->logprob);
    buf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < token->token.len; i++) {
        buf_puts(out, i ? "," : "");
        buf_put_uint(out, (unsigned char)token->token.text[i]);
    }
    buf_putc(out, ']');
}

static void add_chat_logprob(struct choice *c, const struct chat_token_logprob *token,
                             const struct chat_token_logprob *top, size_t top_count)
{
    comma(&c->logprobs);
    write_chat_token(&c->logprobs, token);
    buf_puts(&c->logprobs, ",\"top_logprobs\":[");
    for (size_t i = 0; i < top_count && top[i].token.text; i++) {
        if (i)
            buf_putc(&c->logprobs, ',');
        write_chat_token(&c->logprobs, &top[i]);
        buf_putc(&c->logprobs, '}');
    }
    buf_puts(&c->logprobs, "]}");
}

/* A token that is no text on its own (part of a character) is spelt in bytes, as OpenAI does, so that the
 * members of a top_logprobs object stay distinct. */
static void write_completion_token(struct buf *out, struct chat_text token)
{
    if (token.len == 0 || utf8_valid(token.text, token.len)) {
        write_text(out, token);
        return;
    }
    buf_puts(out, "\"bytes:");
    for (size_t i = 0; i < token.len; i++)
        buf_printf(out, "\\\\x%02x", (unsigned char)token.text[i]);
    buf_putc(out, '"');
}

static void add_completion_logprob(struct choice *c, const struct chat_token_logprob *token,
                                   const struct chat_token_logprob *top, size_t top_count, size_t offset)
{
    comma(&c->logprobs);
    write_completion_token(&c->logprobs, token->token);
    comma(&c->values);
    json_write_double(&c->values, token->logprob);
    comma(&c->offsets);
    buf_put_uint(&c->offsets, offset);
    if (top_count == 0)
        return;
    comma(&c->top);
    buf_putc(&c->top, '{');
    for (size_t i = 0; i < top_count && top[i].token.text; i++) {
        if (i)
            buf_putc(&c->top, ',');
        write_completion_token(&c->top, top[i].token);
        buf_putc(&c->top, ':');
        json_write_double(&c->top, top[i].logprob);
    }
    buf_putc(&c->top, '}');
}

/* Offsets count characters of the choice's text so far. A token that only begins a character has the offset
 * where that character will be. */
static void add_logprobs(const struct chat_encoder *e, struct choice *c, size_t *chars,
                         const struct chat_event *event)
{
    size_t offset = *chars;
    if (!e->request->logprobs)
        return;
    for (size_t i = 0; i < event->logprob_count; i++) {
        const struct chat_token_logprob *top = event->top ? event->top + i * event->top_count : NULL;
        size_t top_count = top ? event->top_count : 0;
        if (is_chat(e))
            add_chat_logprob(c, &event->logprobs[i], top, top_count);
        else
            add_completion_logprob(c, &event->logprobs[i], top, top_count, offset);
        offset += count_chars(event->logprobs[i].token);
        c->logprob_count++;
    }
    *chars += count_chars(event->text);
}

static void write_logprobs(const struct chat_encoder *e, const struct choice *c, struct buf *out)
{
    if (!e->request->logprobs || (e->request->stream && c->logprob_count == 0)) {
        buf_puts(out, "\"logprobs\":null");
        return;
    }
    if (is_chat(e)) {
        buf_puts(out, "\"logprobs\":{\"content\":[");
        buf_append(out, c->logprobs.data, c->logprobs.len);
        buf_puts(out, "],\"refusal\":null}");
        return;
    }
    buf_puts(out, "\"logprobs\":{\"tokens\":[");
    buf_append(out, c->logprobs.data, c->logprobs.len);
    buf_puts(out, "],\"token_logprobs\":[");
    buf_append(out, c->values.data, c->values.len);
    buf_puts(out, "],\"top_logprobs\":");
    if (e->request->top_logprobs) {
        buf_putc(out, '[');
        buf_append(out, c->top.data, c->top.len);
        buf_putc(out, ']');
    } else {
        buf_puts(out, "null");
    }
    buf_puts(out, ",\"text_offset\":[");
    buf_append(out, c->offsets.data, c->offsets.len);
    buf_puts(out, "]}");
}

/* ---- Errors */

static void write_error(struct buf *out, const char *message, const char *type, const char *param,
                        const char *code)
{
    const struct {
        const char *name, *value;
    } members[] = {{"message", message}, {"type", type}, {"param", param}, {"code", code}};
    buf_puts(out, "{\"error\":{");
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        buf_printf(out, "%s\"%s\":", i ? "," : "", members[i].name);
        if (members[i].value)
            json_write_string(out, members[i].value, strlen(members[i].value));
        else
            buf_puts(out, "null");
    }
    buf_puts(out, "}}");
}

static void openai_encode_fault(const struct chat_fault *fault, const char *request_id, struct buf *out)
{
    (void)request_id; /* it is in the header x-request-id */
    write_error(out, fault->message, fault->type, fault->param, fault->code);
}

/* ---- Streams */

static void begin_chunk(const struct chat_encoder *e, struct buf *out)
{
    buf_append(out, e->head.data, e->head.len);
}

static void end_chunk(const struct chat_encoder *e, struct buf *out)
{
    buf_puts(out, e->request->include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

static void begin_item(size_t index, struct buf *out)
{
    buf_puts(out, "{\"index\":");
    buf_put_uint(out, index);
    buf_putc(out, ',');
}

static void end_choice(enum chat_finish finish, struct buf *out)
{
    buf_puts(out, ",\"finish_reason\":");
    buf_puts(out, finish_name(finish));
    buf_putc(out, '}');
}

/* What a call says depends on the kind of its tool. */
static const char *call_type(const struct chat_event *event)
{
    return event->tool_call.custom ? "custom" : "function";
}

static const char *call_member(const struct chat_event *event)
{
    return event->tool_call.custom ? "input" : "arguments";
}

/* "id":..,"type":"function","function":{"name":.. */
static void write_call_head(const struct chat_event *event, struct buf *out)
{
    const char *id = event->tool_call.id ? event->tool_call.id : "";
    buf_puts(out, "\"id\":");
    json_write_string(out, id, strlen(id));
    buf_printf(out, ",\"type\":\"%s\",\"%s\":{\"name\":", call_type(event), call_type(event));
    json_write_string(out, event->tool_call.name, strlen(event->tool_call.name));
}

static void write_call_delta(const struct chat_event *event, struct buf *out)
{
    buf_puts(out, "\"tool_calls\":[");
    begin_item(event->tool_call.index, out);
    if (event->tool_call.name) {
        write_call_head(event, out);
        buf_putc(out, ',');
    } else {
        buf_printf(out, "\"%s\":{", call_type(event));
    }
    buf_printf(out, "\"%s\":", call_member(event));
    write_text(out, event->tool_call.arguments);
    buf_puts(out, "}}]");
}

/* The inside of a chat's delta. */
static void write_delta(const struct chat_event *event, struct buf *out)
{
    if (event->kind == CHAT_EVENT_ROLE) {
        buf_puts(out, "\"role\":\"assistant\",\"content\":\"\"");
    } else if (event->kind == CHAT_EVENT_TOOL_CALL) {
        write_call_delta(event, out);
    } else if (event->kind == CHAT_EVENT_REASONING) {
        buf_puts(out, "\"reasoning_content\":");
        write_text(out, event->text);
    } else if (event->kind == CHAT_EVENT_TEXT) {
        buf_puts(out, "\"content\":");
        write_text(out, event->text);
    }
}

/* Does OpenAI's dialect have a place for it? A completion has text and an end; a thought's seal has none. */
static bool can_say(const struct chat_encoder *e, const struct chat_event *event)
{
    if (event->kind == CHAT_EVENT_REASONING && event->text.len == 0)
        return false;
    return is_chat(e) || event->kind == CHAT_EVENT_TEXT || event->kind == CHAT_EVENT_FINISH;
}

/* One chunk with one choice. */
static void stream_choice_event(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    if (!can_say(e, event))
        return;
    if (e->request->logprobs)
        choice_clear(&e->delta);
    if (event->kind == CHAT_EVENT_TEXT)
        add_logprobs(e, &e->delta, &e->choices[event->choice].chars, event);
    begin_chunk(e, out);
    begin_item(event->choice, out);
    if (is_chat(e)) {
        buf_puts(out, "\"delta\":{");
        write_delta(event, out);
        buf_puts(out, "},");
    } else {
        buf_puts(out, "\"text\":");
        write_text(out, event->text);
        buf_putc(out, ',');
    }
    write_logprobs(e, &e->delta, out);
    end_choice(event->kind == CHAT_EVENT_FINISH ? event->finish : CHAT_FINISH_NONE, out);
    end_chunk(e, out);
    if (choice_status(&e->delta) != PH_OK)
        out->status = choice_status(&e->delta);
}

/* ---- Whole replies */

static void close_call(struct choice *c)
{
    if (c->in_call)
        buf_puts(&c->calls, "\"}}");
    c->in_call = false;
}

/* Argument pieces join inside one JSON string: each is written without its quotes. */
static void collect_call(struct choice *c, const struct chat_event *event)
{
    struct buf piece;
    if (event->tool_call.name) {
        close_call(c);
        comma(&c->calls);
        buf_putc(&c->calls, '{');
        write_call_head(event, &c->calls);
        buf_printf(&c->calls, ",\"%s\":\"", call_member(event));
        c->in_call = true;
        c->call_count++;
    }
    buf_init(&piece, CHAT_REPLY_BYTES_MAX);
    write_text(&piece, event->tool_call.arguments);
    if (piece.len >= 2)
        buf_append(&c->calls, piece.data + 1, piece.len - 2);
    if (piece.status != PH_OK)
        c->calls.status = piece.status;
    buf_release(&piece);
}

static void collect(struct chat_encoder *e, const struct chat_event *event)
{
    struct choice *c = &e->choices[event->choice];
    if (event->kind == CHAT_EVENT_TEXT) {
        add_logprobs(e, c, &c->chars, event);
        buf_append(&c->text, event->text.text, event->text.len);
    } else if (event->kind == CHAT_EVENT_REASONING) {
        buf_append(&c->reasoning, event->text.text, event->text.len);
    } else if (event->kind == CHAT_EVENT_TOOL_CALL) {
        collect_call(c, event);
    } else if (event->kind == CHAT_EVENT_FINISH) {
        close_call(c);
        c->finish = event->finish;
    }
}

static void write_message(const struct choice *c, struct buf *out)
{
    buf_puts(out, "\"message\":{\"role\":\"assistant\",\"content\":");
    if (c->call_count && c->text.len == 0)
        buf_puts(out, "null");
    else
        write_text(out, (struct chat_text){c->text.data, c->text.len});
    buf_puts(out, ",\"refusal\":null");
    if (c->reasoning.len) {
        buf_puts(out, ",\"reasoning_content\":");
        write_text(out, (struct chat_text){c->reasoning.data, c->reasoning.len});
    }
    if (c->call_count) {
        buf_puts(out, ",\"tool_calls\":[");
        buf_append(out, c->calls.data, c->calls.len);
        buf_putc(out, ']');
    }
    buf_puts(out, "},");
}

static void write_whole(const struct chat_encoder *e, struct buf *out)
{
    if (!buf_reserve(out, WHOLE_BYTES_USUAL + e->choices[0].text.len))
        return;
    buf_append(out, e->head.data, e->head.len);
    for (size_t i = 0; i < e->choice_count; i++) {
        const struct choice *c = &e->choices[i];
        buf_puts(out, i ? "," : "");
        begin_item(i, out);
        if (is_chat(e)) {
            write_message(c, out);
        } else {
            buf_puts(out, "\"text\":");
            write_text(out, (struct chat_text){c->text.data, c->text.len});
            buf_putc(out, ',');
        }
        write_logprobs(e, c, out);
        end_choice(c->finish, out);
        if (choice_status(c) != PH_OK)
            out->status = choice_status(c);
    }
    buf_puts(out, "],");
    write_usage(e, out);
    buf_putc(out, '}');
}

/* ---- The door */

static void encode_end(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    bool stream = e->request->stream;
    if (event->kind == CHAT_EVENT_ERROR) {
        buf_puts(out, stream ? "data: " : "");
        write_error(out, event->error.message, event->error.type, event->error.param, event->error.code);
        buf_puts(out, stream ? "\n\n" : "");
    } else if (stream) {
        if (e->request->include_usage && e->has_usage) {
            begin_chunk(e, out);
            buf_puts(out, "],");
            write_usage(e, out);
            buf_puts(out, "}\n\n");
        }
        buf_puts(out, "data: [DONE]\n\n");
    } else {
        write_whole(e, out);
    }
}

static void openai_encode(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    switch (event->kind) {
    case CHAT_EVENT_ROLE:
    case CHAT_EVENT_TEXT:
    case CHAT_EVENT_REASONING:
    case CHAT_EVENT_TOOL_CALL:
    case CHAT_EVENT_FINISH:
        if (e->request->stream)
            stream_choice_event(e, event, out);
        else
            collect(e, event);
        break;
    case CHAT_EVENT_PROGRESS:
        if (e->request->stream)
            buf_puts(out, ": keep-alive\n\n");
        break;
    case CHAT_EVENT_USAGE: /* sums so far: the last one is said at the end */
        e->has_usage = true;
        e->prompt_tokens = event->usage.prompt_tokens;
        e->cached_tokens = event->usage.cached_tokens;
        e->completion_tokens = event->usage.completion_tokens;
        e->reasoning_tokens = event->usage.reasoning_tokens;
        break;
    case CHAT_EVENT_ERROR:
    case CHAT_EVENT_DONE:
        encode_end(e, event, out);
        break;
    }
}

static int openai_fault_status(const struct chat_fault *fault)
{
    return fault->http_status;
}

const struct chat_edge chat_edge_openai = {
    .name = "openai",
    .id_prefix = "chatcmpl-",
    .decode = openai_decode,
    .encoder_new = openai_encoder_new,
    .encode = openai_encode,
    .encode_fault = openai_encode_fault,
    .fault_status = openai_fault_status,
};
