/* Messages as items, for what is kept and shown again: a conversation's items, the input of a response.
 *
 * An item's id is made from its message's, so that nothing has to remember it: the items of an assistant's
 * message are numbered in the order in which its reply told them (thoughts, text, calls), all others are one
 * item. What is written here is what responses_decode.c reads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/responses_int.h"

/* ---- Reading */

enum ph_status chat_items_decode(struct arena *arena, const struct json *items, const char *list,
                                 const struct chat_message **out, size_t *count, struct chat_fault *fault)
{
    static const char input[] = "input";
    struct chat_request request = {.arena = arena};
    enum ph_status status = responses_decode_items(arena, items, &request, fault);
    *out = request.messages;
    *count = request.message_count;
    size_t len = sizeof input - 1;
    if (status == PH_OK || strlen(list) != len)
        return status;
    if (strncmp(fault->message, input, len) == 0)
        memcpy(fault->message, list, len);
    if (fault->param && strncmp(fault->param, input, len) == 0) {
        char *param = arena_strdup(arena, fault->param);
        if (param)
            memcpy(param, list, len);
        fault->param = param;
    }
    return status;
}

/* Without a type it may be a message, too. */
const char *chat_item_refers(const struct json *item)
{
    const struct json *type = json_get(item, "type");
    bool is_bare = json_is_absent(type) && json_is_absent(json_get(item, "role")) &&
                   json_is_absent(json_get(item, "content"));
    return is_bare || json_text_is(type, "item_reference") ? json_text(json_get(item, "id"), NULL) : NULL;
}

bool chat_item_id_read(const char *item, char message[CHAT_ITEM_ID_MAX], size_t *index)
{
    const char *cut = strchr(item, '_');
    const char *end = cut ? strchr(cut + 1, '_') : NULL;
    size_t len = cut ? (end ? (size_t)(end - cut) : strlen(cut)) : 0;
    *index = 0;
    if (len < 2 || len + sizeof "msg" > CHAT_ITEM_ID_MAX)
        return false;
    if (end) {
        char *rest;
        unsigned long n = strtoul(end + 1, &rest, 10);
        if (rest == end + 1 || *rest || n > CHAT_MESSAGES_MAX)
            return false;
        *index = n;
    }
    memcpy(message, "msg", 3);
    memcpy(message + 3, cut, len);
    message[3 + len] = 0;
    return true;
}

/* ---- Parts */

static void put_text(struct buf *out, struct chat_text text)
{
    json_write_string(out, text.len ? text.text : "", text.len);
}

static void put_string(struct buf *out, const char *text)
{
    if (text)
        json_write_string(out, text, strlen(text));
    else
        buf_puts(out, "null");
}

static void write_output_text(struct chat_text text, struct buf *out)
{
    buf_puts(out, "{\"type\":\"output_text\",\"text\":");
    put_text(out, text);
    buf_puts(out, ",\"annotations\":[],\"logprobs\":[]}");
}

static void write_input_text(struct chat_text text, struct buf *out)
{
    buf_puts(out, "{\"type\":\"input_text\",\"text\":");
    put_text(out, text);
    buf_putc(out, '}');
}

/* Bytes as a data URL; base64 needs no escapes. */
static void write_data_url(const struct chat_part *part, struct buf *out)
{
    buf_printf(out, "\"data:%.100s;base64,",
               part->media_type ? part->media_type : "application/octet-stream");
    buf_append(out, part->data.text, part->data.len);
    buf_putc(out, '"');
}

static void write_image(const struct chat_part *part, struct buf *out)
{
    buf_puts(out, "{\"type\":\"input_image\",\"detail\":");
    put_string(out, part->detail ? part->detail : "auto");
    buf_puts(out, ",\"image_url\":");
    if (part->url)
        put_string(out, part->url);
    else
        write_data_url(part, out);
    buf_putc(out, '}');
}

static void write_file(const struct chat_part *part, struct buf *out)
{
    buf_puts(out, "{\"type\":\"input_file\",\"filename\":");
    put_string(out, part->filename);
    buf_puts(out, part->url ? ",\"file_url\":" : ",\"file_data\":");
    if (part->url)
        put_string(out, part->url);
    else
        write_data_url(part, out);
    buf_putc(out, '}');
}

static void write_audio(const struct chat_part *part, struct buf *out)
{
    bool mp3 = part->media_type && strcmp(part->media_type, "audio/mpeg") == 0;
    buf_puts(out, "{\"type\":\"input_audio\",\"input_audio\":{\"data\":");
    put_text(out, part->data);
    buf_printf(out, ",\"format\":\"%s\"}}", mp3 ? "mp3" : "wav");
}

/* What only one dialect knows is kept as the text that it is. */
static void write_other(const struct chat_part *part, struct buf *out)
{
    struct buf text;
    buf_init(&text, CHAT_PROMPT_BYTES_MAX);
    json_write(&text, part->raw);
    write_input_text((struct chat_text){text.data ? text.data : "", text.len}, out);
    buf_release(&text);
}

static bool write_part(const struct chat_part *part, struct buf *out)
{
    switch (part->kind) {
    case CHAT_PART_TEXT:
        write_input_text(part->text, out);
        return true;
    case CHAT_PART_IMAGE:
        write_image(part, out);
        return true;
    case CHAT_PART_AUDIO:
        write_audio(part, out);
        return true;
    case CHAT_PART_FILE:
        write_file(part, out);
        return true;
    case CHAT_PART_OTHER:
        write_other(part, out);
        return true;
    case CHAT_PART_REASONING:
        break;
    }
    return false;
}

void chat_parts_write(const struct chat_message *message, struct buf *out)
{
    bool any = false;
    buf_putc(out, '[');
    if (message->part_count == 0 && message->content.text) {
        write_input_text(message->content, out);
        any = true;
    }
    for (size_t i = 0; i < message->part_count; i++) {
        if (message->parts[i].kind == CHAT_PART_REASONING)
            continue;
        if (any)
            buf_putc(out, ',');
        any = write_part(&message->parts[i], out) || any;
    }
    buf_putc(out, ']');
}

/* ---- Items */

struct writer {
    struct buf *out;
    const char *tail; /* of the message's id, behind "msg_" */
    const char *status;
    size_t count;
};

static void begin_item(struct writer *w, const char *prefix, const char *type, bool is_numbered)
{
    buf_puts(w->out, w->count ? ",{\"id\":\"" : "{\"id\":\"");
    buf_printf(w->out, "%s_%.64s", prefix, w->tail);
    if (is_numbered)
        buf_printf(w->out, "_%zu", w->count);
    buf_printf(w->out, "\",\"type\":\"%s\",\"status\":\"%s\"", type, w->status);
    w->count++;
}

static void write_thought(struct writer *w, const struct chat_part *part)
{
    begin_item(w, "rs", "reasoning", true);
    buf_puts(w->out, ",\"summary\":[],\"content\":[");
    if (part->text.len) {
        buf_puts(w->out, "{\"type\":\"reasoning_text\",\"text\":");
        put_text(w->out, part->text);
        buf_putc(w->out, '}');
    }
    buf_puts(w->out, "],\"encrypted_content\":");
    put_string(w->out, part->signature);
    buf_putc(w->out, '}');
}

static void write_call(struct writer *w, const struct chat_tool_call *call)
{
    begin_item(w, call->custom ? "ctc" : "fc", call->custom ? "custom_tool_call" : "function_call", true);
    buf_puts(w->out, ",\"call_id\":");
    put_string(w->out, call->id);
    buf_puts(w->out, ",\"name\":");
    put_string(w->out, call->name);
    buf_puts(w->out, call->custom ? ",\"input\":" : ",\"arguments\":");
    put_text(w->out, call->arguments);
    buf_putc(w->out, '}');
}

static void write_assistant(struct writer *w, const struct chat_message *message)
{
    for (size_t i = 0; i < message->part_count; i++)
        if (message->parts[i].kind == CHAT_PART_REASONING)
            write_thought(w, &message->parts[i]);
    if (message->content.len || !message->tool_call_count) {
        begin_item(w, "msg", "message", true);
        buf_puts(w->out, ",\"role\":\"assistant\",\"content\":[");
        write_output_text(message->content, w->out);
        buf_puts(w->out, "]}");
    }
    for (size_t i = 0; i < message->tool_call_count; i++)
        write_call(w, &message->tool_calls[i]);
}

static void write_output(struct writer *w, const struct chat_message *message)
{
    begin_item(w, "fco", "function_call_output", false);
    buf_puts(w->out, ",\"call_id\":");
    put_string(w->out, message->tool_call_id);
    buf_puts(w->out, ",\"output\":");
    if (message->part_count)
        chat_parts_write(message, w->out);
    else
        put_text(w->out, message->content);
    buf_putc(w->out, '}');
}

size_t chat_items_write(const struct chat_message *message, const char *id, bool is_cut, struct buf *out)
{
    static const char *const roles[] = {[CHAT_SYSTEM] = "system",
                                        [CHAT_DEVELOPER] = "developer",
                                        [CHAT_USER] = "user",
                                        [CHAT_ASSISTANT] = "assistant",
                                        [CHAT_TOOL] = "tool"};
    const char *cut = strchr(id, '_');
    struct writer w = {out, cut ? cut + 1 : id, is_cut ? "incomplete" : "completed", 0};
    if (message->role == CHAT_ASSISTANT) {
        write_assistant(&w, message);
    } else if (message->role == CHAT_TOOL) {
        write_output(&w, message);
    } else {
        begin_item(&w, "msg", "message", false);
        buf_printf(out, ",\"role\":\"%s\",\"content\":", roles[message->role]);
        chat_parts_write(message, out);
        buf_putc(out, '}');
    }
    return w.count;
}
