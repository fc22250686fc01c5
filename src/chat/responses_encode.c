/* Chat events into OpenAI's Responses API: typed server-sent events, or one object at the end.
 *
 * A response is a list of items: thoughts, a message, calls of functions. Items are collected whether the
 * reply streams or not, because a stream tells each of them three times: in deltas, when it is done, and in
 * the response that ends it all. An item begins with the first event of its kind; a message or a thought is
 * done when something else begins, a call when the choice has finished (so that pieces of two calls may come
 * mixed).
 *
 * What clients need, and would break without (seen with the official packages):
 *  R1  response.created comes first, and every event carries the next sequence_number from 0;
 *  R2  an item is added before its parts, a part before its deltas; indices are places in those lists;
 *  R3  the text of a done event is the sum of its deltas;
 *  R4  a failure is response.failed, then an event `error` that has the error flat (the documented form) and
 *      nested (without which the packages' iterators take the stream for a whole one);
 *  R5  ids are made from the reply's id, so that the same reply is the same bytes.
 *
 * Thoughts are told as a summary when the request asks for one, which all clients show; else as the
 * reasoning text that they are. Their seal is `encrypted_content`, and comes back in it. */
#include <stdio.h>
#include <string.h>

#include "chat/responses_int.h"

enum item_kind { ITEM_REASONING, ITEM_MESSAGE, ITEM_CALL, ITEM_CUSTOM_CALL };

struct item {
    enum item_kind kind;
    struct item *next;
    size_t output_index, call_index;
    const char *call_id, *name; /* calls */
    struct buf text;            /* or arguments */
    struct buf logprobs;        /* MESSAGE: JSON, without the brackets */
    struct buf seal;            /* REASONING */
    bool has_part;              /* its one part was added */
    bool done;
    const char *status;
};

struct chat_encoder {
    struct arena *arena;
    const struct chat_request *request;
    const struct chat_reply *reply;
    struct buf echo; /* the members of a response that repeat the request */
    struct item *first, *last;
    size_t item_count, sequence;
    bool begun, summaries;
    enum chat_finish finish;
    bool has_usage;
    uint64_t prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens, reasoning_tokens;
    enum ph_status status; /* what could not be collected */
};

static bool is_call(const struct item *item)
{
    return item->kind == ITEM_CALL || item->kind == ITEM_CUSTOM_CALL;
}

/* What a call is made with. */
static const char *call_member(const struct item *item)
{
    return item->kind == ITEM_CALL ? "arguments" : "input";
}

/* ---- Making one */

static void encoder_release(void *ud)
{
    struct chat_encoder *e = ud;
    buf_release(&e->echo);
    for (struct item *item = e->first; item; item = item->next) {
        buf_release(&item->text);
        buf_release(&item->logprobs);
        buf_release(&item->seal);
    }
}

/* Every response repeats these; what the request did not say has the value that the API documents. */
static void write_echo(struct chat_encoder *e)
{
    static const struct {
        const char *name, *otherwise;
    } members[] = {
        {"instructions", "null"},
        {"max_output_tokens", "null"},
        {"max_tool_calls", "null"},
        {"metadata", "{}"},
        {"parallel_tool_calls", "true"},
        {"prompt_cache_key", "null"},
        {"reasoning", "{\"effort\":null,\"summary\":null}"},
        {"safety_identifier", "null"},
        {"temperature", "null"}, /* the model's own, which is not known here */
        {"text", "{\"format\":{\"type\":\"text\"}}"},
        {"tool_choice", "\"auto\""},
        {"tools", "[]"},
        {"top_logprobs", "0"},
        {"top_p", "null"},
        {"truncation", "\"disabled\""},
        {"user", "null"},
    };
    const struct json *raw = e->request->dialect == CHAT_RESPONSES ? e->request->raw : NULL;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const struct json *value = json_get(raw, members[i].name);
        buf_printf(&e->echo, ",\"%s\":", members[i].name);
        if (json_is_absent(value))
            buf_puts(&e->echo, members[i].otherwise);
        else
            json_write(&e->echo, value);
    }
    buf_puts(&e->echo, ",\"conversation\":");
    if (e->request->conversation) {
        buf_puts(&e->echo, "{\"id\":");
        json_write_string(&e->echo, e->request->conversation, strlen(e->request->conversation));
        buf_putc(&e->echo, '}');
    } else {
        buf_puts(&e->echo, "null");
    }
    const char *previous = e->request->previous_response;
    buf_puts(&e->echo, ",\"background\":false,\"previous_response_id\":");
    if (previous)
        json_write_string(&e->echo, previous, strlen(previous));
    else
        buf_puts(&e->echo, "null");
    buf_printf(&e->echo, ",\"service_tier\":\"default\",\"store\":%s",
               e->request->is_kept ? "true" : "false");
}

static struct chat_encoder *responses_encoder_new(struct arena *arena, const struct chat_request *request,
                                                  const struct chat_reply *reply, uint64_t prompt_tokens)
{
    (void)prompt_tokens; /* said at the end */
    struct chat_encoder *e = arena_calloc(arena, 1, sizeof *e);
    if (!e)
        return NULL;
    const struct json *raw = request->dialect == CHAT_RESPONSES ? request->raw : NULL;
    const struct json *reasoning = json_get(raw, "reasoning");
    *e = (struct chat_encoder){.arena = arena, .request = request, .reply = reply};
    e->summaries = !json_is_absent(json_get(reasoning, "summary")) ||
                   !json_is_absent(json_get(reasoning, "generate_summary"));
    buf_init(&e->echo, CHAT_REPLY_BYTES_MAX);
    if (arena_on_release(arena, encoder_release, e) != 0)
        return NULL;
    write_echo(e);
    return buf_status(&e->echo) == PH_OK ? e : NULL;
}

/* ---- Pieces */

static void write_buf(struct buf *out, const struct buf *text)
{
    json_write_string(out, text->len ? text->data : "", text->len);
}

static void write_text(struct buf *out, struct chat_text text)
{
    json_write_string(out, text.len ? text.text : "", text.len);
}

static void write_or_null(struct buf *out, const char *text)
{
    if (text)
        json_write_string(out, text, strlen(text));
    else
        buf_puts(out, "null");
}

/* R5: "msg_..." from "resp_...". */
static void write_item_id(const struct chat_encoder *e, const struct item *item, struct buf *out)
{
    static const char *const prefixes[] = {"rs", "msg", "fc", "ctc"};
    const char *cut = strpbrk(e->reply->id, "_-");
    buf_printf(out, "\"%s_%.64s_%zu\"", prefixes[item->kind], cut ? cut + 1 : e->reply->id,
               item->output_index);
}

static void write_token(struct buf *out, const struct chat_token_logprob *token)
{
    buf_puts(out, "{\"token\":");
    write_text(out, token->token);
    buf_puts(out, ",\"logprob\":");
    json_write_double(out, token->logprob);
    buf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < token->token.len; i++)
        buf_printf(out, "%s%u", i ? "," : "", (unsigned char)token->token.text[i]);
    buf_putc(out, ']');
}

static void write_logprobs(struct buf *out, const struct chat_event *event)
{
    for (size_t i = 0; i < event->logprob_count; i++) {
        buf_puts(out, i ? "," : "");
        write_token(out, &event->logprobs[i]);
        buf_puts(out, ",\"top_logprobs\":[");
        const struct chat_token_logprob *row = event->top ? event->top + i * event->top_count : NULL;
        for (size_t k = 0; row && k < event->top_count && row[k].token.text; k++) {
            buf_puts(out, k ? "," : "");
            write_token(out, &row[k]);
            buf_putc(out, '}');
        }
        buf_puts(out, "]}");
    }
}

/* The one part of a message or thought: empty when it is added, whole when it is done. */
static void write_part(const struct chat_encoder *e, const struct item *item, bool whole, struct buf *out)
{
    static const struct buf nothing;
    const char *type = e->summaries ? "summary_text" : "reasoning_text";
    buf_printf(out, "{\"type\":\"%s\",\"text\":", item->kind == ITEM_MESSAGE ? "output_text" : type);
    write_buf(out, whole ? &item->text : &nothing);
    if (item->kind == ITEM_MESSAGE) {
        buf_puts(out, ",\"annotations\":[],\"logprobs\":[");
        if (whole)
            buf_append(out, item->logprobs.data, item->logprobs.len);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
}

static void write_part_list(const struct chat_encoder *e, const struct item *item, bool whole,
                            struct buf *out)
{
    buf_putc(out, '[');
    if (whole && item->has_part)
        write_part(e, item, true, out);
    buf_putc(out, ']');
}

/* `whole`: as it is now; else as it was when it was added. */
static void write_item(const struct chat_encoder *e, const struct item *item, bool whole, struct buf *out)
{
    static const char *const types[] = {"reasoning", "message", "function_call", "custom_tool_call"};
    buf_puts(out, "{\"id\":");
    write_item_id(e, item, out);
    buf_printf(out, ",\"type\":\"%s\",\"status\":\"%s\"", types[item->kind],
               whole ? item->status : "in_progress");
    if (item->kind == ITEM_MESSAGE) {
        buf_puts(out, ",\"role\":\"assistant\",\"content\":");
        write_part_list(e, item, whole, out);
    } else if (item->kind == ITEM_REASONING) {
        buf_puts(out, ",\"summary\":");
        write_part_list(e, item, whole && e->summaries, out);
        if (!e->summaries) {
            buf_puts(out, ",\"content\":");
            write_part_list(e, item, whole, out);
        }
        buf_puts(out, ",\"encrypted_content\":");
        write_or_null(out, whole && item->seal.len ? item->seal.data : NULL);
    } else {
        buf_puts(out, ",\"call_id\":");
        write_or_null(out, item->call_id);
        buf_puts(out, ",\"name\":");
        write_or_null(out, item->name);
        buf_printf(out, ",\"%s\":", call_member(item));
        write_buf(out, whole ? &item->text : &(const struct buf){0});
    }
    buf_putc(out, '}');
}

/* ---- Responses */

static void write_usage(const struct chat_encoder *e, struct buf *out)
{
    if (!e->has_usage) {
        buf_puts(out, ",\"usage\":null");
        return;
    }
    buf_printf(out,
               ",\"usage\":{\"input_tokens\":%llu,\"input_tokens_details\":{\"cached_tokens\":%llu,"
               "\"cache_write_tokens\":%llu},\"output_tokens\":%llu,\"output_tokens_details\":"
               "{\"reasoning_tokens\":%llu},\"total_tokens\":%llu}",
               (unsigned long long)e->prompt_tokens, (unsigned long long)e->cached_tokens,
               (unsigned long long)e->cache_write_tokens, (unsigned long long)e->completion_tokens,
               (unsigned long long)e->reasoning_tokens,
               (unsigned long long)(e->prompt_tokens + e->completion_tokens));
}

/* The words that the API has for errors inside a response. */
static const char *error_code(const struct chat_event *event)
{
    if (event->error.code)
        return event->error.code;
    if (event->error.http_status == 429)
        return "rate_limit_exceeded";
    return event->error.http_status < 500 ? "invalid_prompt" : "server_error";
}

static const char *incomplete_reason(const struct chat_encoder *e)
{
    if (e->finish == CHAT_FINISH_LENGTH)
        return "max_output_tokens";
    return e->finish == CHAT_FINISH_CONTENT_FILTER ? "content_filter" : NULL;
}

/* `error`: NULL unless the response has failed. */
static void write_response(const struct chat_encoder *e, const char *status, const struct chat_event *error,
                           struct buf *out)
{
    const char *reason = strcmp(status, "incomplete") == 0 ? incomplete_reason(e) : NULL;
    buf_puts(out, "{\"id\":");
    json_write_string(out, e->reply->id, strlen(e->reply->id));
    buf_printf(out, ",\"object\":\"response\",\"created_at\":%lld,\"status\":\"%s\",\"error\":",
               (long long)e->reply->created_unix_s, status);
    if (error) {
        buf_puts(out, "{\"code\":");
        write_or_null(out, error_code(error));
        buf_puts(out, ",\"message\":");
        write_or_null(out, error->error.message);
        buf_putc(out, '}');
    } else {
        buf_puts(out, "null");
    }
    buf_printf(out, reason ? ",\"incomplete_details\":{\"reason\":\"%s\"}" : ",\"incomplete_details\":null",
               reason);
    buf_puts(out, ",\"model\":");
    json_write_string(out, e->reply->model, strlen(e->reply->model));
    buf_puts(out, ",\"output\":[");
    for (const struct item *item = e->first; item; item = item->next) {
        buf_puts(out, item == e->first ? "" : ",");
        write_item(e, item, true, out);
    }
    buf_putc(out, ']');
    buf_append(out, e->echo.data, e->echo.len);
    write_usage(e, out);
    buf_putc(out, '}');
}

void chat_responses_write(struct chat_encoder *encoder, struct buf *out)
{
    write_response(encoder, incomplete_reason(encoder) ? "incomplete" : "completed", NULL, out);
}

/* ---- Events of the stream */

static void open_event(struct chat_encoder *e, const char *type, struct buf *out)
{
    buf_printf(out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%zu", type, type, e->sequence++);
}

static void close_event(struct buf *out)
{
    buf_puts(out, "}\n\n");
}

static void say_response(struct chat_encoder *e, const char *type, const char *status,
                         const struct chat_event *error, struct buf *out)
{
    open_event(e, type, out);
    buf_puts(out, ",\"response\":");
    write_response(e, status, error, out);
    close_event(out);
}

static void begin(struct chat_encoder *e, struct buf *out)
{
    if (e->begun || !e->request->stream)
        return;
    e->begun = true;
    say_response(e, "response.created", "in_progress", NULL, out);
    say_response(e, "response.in_progress", "in_progress", NULL, out);
}

/* An event about an item as a whole. */
static void say_item(struct chat_encoder *e, const struct item *item, bool done, struct buf *out)
{
    if (!e->request->stream)
        return;
    open_event(e, done ? "response.output_item.done" : "response.output_item.added", out);
    buf_printf(out, ",\"output_index\":%zu,\"item\":", item->output_index);
    write_item(e, item, done, out);
    close_event(out);
}

/* The names of what happens inside an item. */
struct item_events {
    const char *part_added, *delta, *text_done, *part_done, *part_index;
};

static const struct item_events *events_of(const struct chat_encoder *e, const struct item *item)
{
    static const struct item_events message = {"response.content_part.added", "response.output_text.delta",
                                               "response.output_text.done", "response.content_part.done",
                                               "content_index"},
                                    thought = {"response.content_part.added", "response.reasoning_text.delta",
                                               "response.reasoning_text.done", "response.content_part.done",
                                               "content_index"},
                                    summary = {"response.reasoning_summary_part.added",
                                               "response.reasoning_summary_text.delta",
                                               "response.reasoning_summary_text.done",
                                               "response.reasoning_summary_part.done", "summary_index"},
                                    call = {NULL, "response.function_call_arguments.delta",
                                            "response.function_call_arguments.done", NULL, NULL},
                                    custom = {NULL, "response.custom_tool_call_input.delta",
                                              "response.custom_tool_call_input.done", NULL, NULL};
    if (item->kind == ITEM_CALL)
        return &call;
    if (item->kind == ITEM_CUSTOM_CALL)
        return &custom;
    if (item->kind == ITEM_MESSAGE)
        return &message;
    return e->summaries ? &summary : &thought;
}

static void open_item_event(struct chat_encoder *e, const struct item *item, const char *type,
                            struct buf *out)
{
    const char *part_index = events_of(e, item)->part_index;
    open_event(e, type, out);
    buf_puts(out, ",\"item_id\":");
    write_item_id(e, item, out);
    buf_printf(out, ",\"output_index\":%zu", item->output_index);
    if (part_index)
        buf_printf(out, ",\"%s\":0", part_index);
}

static void say_part(struct chat_encoder *e, const struct item *item, bool done, struct buf *out)
{
    const struct item_events *events = events_of(e, item);
    const char *type = done ? events->part_done : events->part_added;
    if (!e->request->stream || !type)
        return;
    open_item_event(e, item, type, out);
    buf_puts(out, ",\"part\":");
    write_part(e, item, done, out);
    close_event(out);
}

static void say_delta(struct chat_encoder *e, const struct item *item, struct chat_text delta,
                      const struct chat_event *event, struct buf *out)
{
    if (!e->request->stream)
        return;
    open_item_event(e, item, events_of(e, item)->delta, out);
    buf_puts(out, ",\"delta\":");
    write_text(out, delta);
    if (item->kind == ITEM_MESSAGE) {
        buf_puts(out, ",\"logprobs\":[");
        write_logprobs(out, event);
        buf_putc(out, ']');
    }
    close_event(out);
}

static void say_text_done(struct chat_encoder *e, const struct item *item, struct buf *out)
{
    if (!e->request->stream)
        return;
    open_item_event(e, item, events_of(e, item)->text_done, out);
    if (item->kind == ITEM_CALL) {
        buf_puts(out, ",\"name\":");
        write_or_null(out, item->name);
    }
    buf_printf(out, ",\"%s\":", is_call(item) ? call_member(item) : "text");
    write_buf(out, &item->text);
    if (item->kind == ITEM_MESSAGE) {
        buf_puts(out, ",\"logprobs\":[");
        buf_append(out, item->logprobs.data, item->logprobs.len);
        buf_putc(out, ']');
    }
    close_event(out);
}

/* ---- Items */

static void finish_item(struct chat_encoder *e, struct item *item, const char *status, struct buf *out)
{
    if (item->done)
        return;
    item->done = true;
    item->status = status;
    if (item->has_part || is_call(item))
        say_text_done(e, item, out);
    if (item->has_part)
        say_part(e, item, true, out);
    say_item(e, item, true, out);
}

static void finish_items(struct chat_encoder *e, bool calls_too, const char *last_status, struct buf *out)
{
    for (struct item *item = e->first; item; item = item->next)
        if (calls_too || !is_call(item))
            finish_item(e, item, item == e->last ? last_status : "completed", out);
}

/* NULL: out of memory, which is kept in `status`. */
static struct item *add_item(struct chat_encoder *e, enum item_kind kind, const struct chat_event *event,
                             struct buf *out)
{
    finish_items(e, false, "completed", out);
    struct item *item = arena_calloc(e->arena, 1, sizeof *item);
    if (!item) {
        e->status = PH_ERR_NOMEM;
        return NULL;
    }
    *item = (struct item){.kind = kind, .output_index = e->item_count, .status = "in_progress"};
    buf_init(&item->text, CHAT_REPLY_BYTES_MAX);
    buf_init(&item->logprobs, CHAT_REPLY_BYTES_MAX);
    buf_init(&item->seal, CHAT_REPLY_BYTES_MAX);
    if (is_call(item)) {
        char made[96];
        const char *cut = strpbrk(e->reply->id, "_-");
        snprintf(made, sizeof made, "call_%.64s_%zu", cut ? cut + 1 : e->reply->id, e->item_count);
        item->call_index = event->tool_call.index;
        item->call_id = arena_strdup(e->arena, event->tool_call.id ? event->tool_call.id : made);
        item->name = arena_strdup(e->arena, event->tool_call.name ? event->tool_call.name : "");
        if (!item->call_id || !item->name) {
            e->status = PH_ERR_NOMEM;
            return NULL;
        }
    }
    *(e->last ? &e->last->next : &e->first) = item;
    e->last = item;
    e->item_count++;
    say_item(e, item, false, out);
    return item;
}

static void keep_status(struct chat_encoder *e, const struct buf *buf)
{
    if (buf->status != PH_OK && e->status == PH_OK)
        e->status = buf->status;
}

static void add_text(struct chat_encoder *e, struct item *item, struct chat_text delta,
                     const struct chat_event *event, struct buf *out)
{
    if (!item->has_part && !is_call(item)) {
        item->has_part = true;
        say_part(e, item, false, out);
    }
    if (delta.len == 0 && event->logprob_count == 0)
        return;
    buf_append(&item->text, delta.text, delta.len);
    if (item->kind == ITEM_MESSAGE && event->logprob_count) {
        if (item->logprobs.len)
            buf_putc(&item->logprobs, ',');
        write_logprobs(&item->logprobs, event);
    }
    keep_status(e, &item->text);
    keep_status(e, &item->logprobs);
    say_delta(e, item, delta, event, out);
}

static struct item *open_item(struct chat_encoder *e, enum item_kind kind, const struct chat_event *event,
                              struct buf *out)
{
    if (e->last && e->last->kind == kind && !e->last->done)
        return e->last;
    return add_item(e, kind, event, out);
}

static void take_text(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    if (event->text.len == 0 && event->logprob_count == 0)
        return;
    struct item *item = open_item(e, ITEM_MESSAGE, event, out);
    if (item)
        add_text(e, item, event->text, event, out);
}

/* A seal ends its thought; one without text is an item that has nothing else. */
static void take_reasoning(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    if (event->text.len == 0 && !event->signature)
        return;
    if (event->redacted) /* an item of its own */
        finish_items(e, false, "completed", out);
    struct item *item = open_item(e, ITEM_REASONING, event, out);
    if (!item)
        return;
    if (!event->redacted)
        add_text(e, item, event->text, event, out);
    if (event->signature) {
        buf_puts(&item->seal, event->signature);
        keep_status(e, &item->seal);
        finish_item(e, item, "completed", out);
    }
}

static void take_call(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    struct item *item = NULL;
    for (struct item *other = e->first; other; other = other->next)
        if (is_call(other) && other->call_index == event->tool_call.index)
            item = other;
    if (!item)
        item = add_item(e, event->tool_call.custom ? ITEM_CUSTOM_CALL : ITEM_CALL, event, out);
    if (item)
        add_text(e, item, event->tool_call.arguments, event, out);
}

/* An answer without anything in it is an empty message, not no output. */
static void take_finish(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    e->finish = event->finish;
    if (!e->first) {
        struct item *item = add_item(e, ITEM_MESSAGE, event, out);
        if (item)
            add_text(e, item, (struct chat_text){"", 0}, event, out);
    }
    finish_items(e, true, incomplete_reason(e) ? "incomplete" : "completed", out);
}

/* ---- The end */

static void write_error(const struct chat_event *event, bool with_brackets, struct buf *out)
{
    const struct {
        const char *name, *value;
    } members[] = {{"type", event->error.type},
                   {"code", event->error.code},
                   {"message", event->error.message},
                   {"param", event->error.param}};
    buf_puts(out, with_brackets ? ",\"error\":{" : "");
    for (size_t i = with_brackets ? 0 : 1; i < sizeof members / sizeof members[0]; i++) {
        buf_printf(out, "%s\"%s\":", with_brackets && i == 0 ? "" : ",", members[i].name);
        write_or_null(out, members[i].value);
    }
    buf_puts(out, with_brackets ? "}" : "");
}

/* R4 */
static void encode_error(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    for (struct item *item = e->first; item; item = item->next)
        if (!item->done)
            item->status = "incomplete";
    say_response(e, "response.failed", "failed", event, out);
    open_event(e, "error", out);
    write_error(event, false, out);
    write_error(event, true, out);
    close_event(out);
}

static void encode_whole_error(const struct chat_event *event, struct buf *out)
{
    struct chat_fault fault = {.http_status = event->error.http_status,
                               .type = event->error.type,
                               .code = event->error.code,
                               .param = event->error.param};
    snprintf(fault.message, sizeof fault.message, "%s", event->error.message);
    chat_edge_openai.encode_fault(&fault, NULL, out);
}

static void encode_done(struct chat_encoder *e, struct buf *out)
{
    const char *status = incomplete_reason(e) ? "incomplete" : "completed";
    finish_items(e, true, status, out);
    if (!e->request->stream)
        write_response(e, status, NULL, out);
    else
        say_response(e, incomplete_reason(e) ? "response.incomplete" : "response.completed", status, NULL,
                     out);
}

static void take_usage(struct chat_encoder *e, const struct chat_event *event)
{
    e->has_usage = true;
    e->prompt_tokens = event->usage.prompt_tokens;
    e->cached_tokens = event->usage.cached_tokens;
    e->cache_write_tokens = event->usage.cache_write_tokens;
    e->completion_tokens = event->usage.completion_tokens;
    e->reasoning_tokens = event->usage.reasoning_tokens;
}

static void responses_encode(struct chat_encoder *e, const struct chat_event *event, struct buf *out)
{
    if (event->kind != CHAT_EVENT_PROGRESS && event->kind != CHAT_EVENT_USAGE)
        begin(e, out);
    switch (event->kind) {
    case CHAT_EVENT_ROLE:
        break;
    case CHAT_EVENT_TEXT:
        take_text(e, event, out);
        break;
    case CHAT_EVENT_REASONING:
        take_reasoning(e, event, out);
        break;
    case CHAT_EVENT_TOOL_CALL:
        take_call(e, event, out);
        break;
    case CHAT_EVENT_PROGRESS:
        buf_puts(out, e->request->stream ? ": keep-alive\n\n" : "");
        break;
    case CHAT_EVENT_FINISH:
        take_finish(e, event, out);
        break;
    case CHAT_EVENT_USAGE:
        take_usage(e, event);
        break;
    case CHAT_EVENT_ERROR:
        if (e->request->stream)
            encode_error(e, event, out);
        else
            encode_whole_error(event, out);
        break;
    case CHAT_EVENT_DONE:
        encode_done(e, out);
        break;
    }
    if (e->status != PH_OK && out->status == PH_OK)
        out->status = e->status;
}

static void responses_encode_fault(const struct chat_fault *fault, const char *request_id, struct buf *out)
{
    chat_edge_openai.encode_fault(fault, request_id, out);
}

static int responses_fault_status(const struct chat_fault *fault)
{
    return chat_edge_openai.fault_status(fault);
}

const struct chat_edge chat_edge_responses = {
    .name = "responses",
    .id_prefix = "resp_",
    .decode = responses_decode,
    .encoder_new = responses_encoder_new,
    .encode = responses_encode,
    .encode_fault = responses_encode_fault,
    .fault_status = responses_fault_status,
};
