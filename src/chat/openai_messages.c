/* The messages of OpenAI chat bodies.
 *
 * Content is text or an array of parts; a table says what the types of parts are. What this dialect alone
 * knows, or will know one day, stays a part of kind OTHER with its JSON: a provider of the dialect gets it as
 * it came, every other refuses it. Texts of the parts are also joined, for whoever looks for text only. */
#include <string.h>

#include "chat/openai_int.h"

static struct chat_text text_of(const struct json *string)
{
    return (struct chat_text){string->u.str.text, string->u.str.len};
}

/* ---- Parts of content */

struct part_place {
    size_t message, index;
};

static enum ph_status refuse_part(struct decoder *d, struct part_place at, const char *member,
                                  const char *what)
{
    return DECODE_REFUSE(d, decode_path(d, "messages[%zu].content[%zu]%s", at.message, at.index, member),
                         "messages[%zu].content[%zu]%s %s", at.message, at.index, member, what);
}

static enum ph_status decode_text_part(struct decoder *d, struct part_place at, const char *member,
                                       struct chat_part *out)
{
    const struct json *text = json_get(out->raw, member + 1);
    if (!json_is(text, JSON_STRING))
        return refuse_part(d, at, member, "must be a string");
    out->text = text_of(text);
    return PH_OK;
}

/* {"url": ...}, or the text itself, as some clients and the Responses API have it. */
static enum ph_status decode_image(struct decoder *d, struct part_place at, const char *member,
                                   struct chat_part *out)
{
    const struct json *image = json_get(out->raw, member + 1);
    const struct json *url = json_is(image, JSON_OBJECT) ? json_get(image, "url") : image;
    if (!json_is(url, JSON_STRING) || url->u.str.len == 0)
        return refuse_part(d, at, member, "needs a url");
    out->detail = json_text(json_get(url == image ? out->raw : image, "detail"), NULL);
    return decode_media_url(d, url, out);
}

static enum ph_status decode_audio(struct decoder *d, struct part_place at, const char *member,
                                   struct chat_part *out)
{
    const struct json *audio = json_get(out->raw, member + 1), *data = json_get(audio, "data");
    const char *format = json_text(json_get(audio, "format"), "");
    if (!json_is(data, JSON_STRING))
        return refuse_part(d, at, member, "needs data, a base64 text");
    out->data = text_of(data);
    out->media_type = strcmp(format, "mp3") == 0 ? "audio/mpeg" : decode_path(d, "audio/%.40s", format);
    return out->media_type ? PH_OK : decode_no_memory(d);
}

/* A file that was uploaded before has an id, which means something to one provider only. */
static enum ph_status decode_file(struct decoder *d, struct part_place at, const char *member,
                                  struct chat_part *out)
{
    const struct json *file = json_get(out->raw, member + 1), *data = json_get(file, "file_data");
    out->filename = json_text(json_get(file, "filename"), NULL);
    if (json_is(json_get(file, "file_id"), JSON_STRING)) {
        out->kind = CHAT_PART_OTHER;
        return PH_OK;
    }
    if (!json_is(data, JSON_STRING))
        return refuse_part(d, at, member, "needs file_data or file_id");
    if (strncmp(data->u.str.text, "data:", 5) == 0)
        return decode_media_url(d, data, out);
    out->data = text_of(data);
    out->media_type = "application/pdf"; /* what the API takes there */
    return PH_OK;
}

static const struct part_type {
    const char *name;
    enum chat_part_kind kind;
    enum ph_status (*decode)(struct decoder *d, struct part_place at, const char *member,
                             struct chat_part *out);
    const char *member; /* that holds it, with the dot of its path */
} part_types[] = {
    {"text", CHAT_PART_TEXT, decode_text_part, ".text"},
    {"input_text", CHAT_PART_TEXT, decode_text_part, ".text"},
    {"output_text", CHAT_PART_TEXT, decode_text_part, ".text"},
    {"refusal", CHAT_PART_TEXT, decode_text_part, ".refusal"},
    {"image_url", CHAT_PART_IMAGE, decode_image, ".image_url"},
    {"input_image", CHAT_PART_IMAGE, decode_image, ".image_url"},
    {"input_audio", CHAT_PART_AUDIO, decode_audio, ".input_audio"},
    {"file", CHAT_PART_FILE, decode_file, ".file"},
};

static enum ph_status decode_part(struct decoder *d, const struct json *value, struct part_place at,
                                  struct chat_part *out)
{
    if (!json_is(value, JSON_OBJECT))
        return refuse_part(d, at, "", "must be an object with a type");
    *out = (struct chat_part){.kind = CHAT_PART_OTHER, .raw = value};
    const struct json *mark = json_get(value, "cache_control");
    out->cache_control = json_is_absent(mark) ? NULL : mark;
    for (const struct part_type *type = part_types;
         type < part_types + sizeof part_types / sizeof *part_types; type++)
        if (json_text_is(json_get(value, "type"), type->name)) {
            out->kind = type->kind;
            return type->decode(d, at, type->member, out);
        }
    return PH_OK;
}

/* Text parts become lines of one text. None: no text. */
static enum ph_status join_texts(struct decoder *d, struct chat_message *out)
{
    size_t len = 0, at = 0;
    bool any = out->part_count == 0;
    for (size_t i = 0; i < out->part_count; i++) {
        any = any || out->parts[i].kind == CHAT_PART_TEXT;
        len += out->parts[i].text.len + 1;
    }
    char *text = any ? arena_alloc(d->arena, len + 1) : NULL;
    if (!text)
        return any ? decode_no_memory(d) : PH_OK;
    for (size_t i = 0; i < out->part_count; i++) {
        struct chat_text piece = out->parts[i].text;
        if (out->parts[i].kind != CHAT_PART_TEXT)
            continue;
        if (at)
            text[at++] = '\n';
        if (piece.len)
            memcpy(text + at, piece.text, piece.len);
        at += piece.len;
    }
    text[at] = 0;
    out->content = (struct chat_text){text, at};
    return PH_OK;
}

static enum ph_status decode_parts(struct decoder *d, const struct json *list, size_t message,
                                   struct chat_message *out)
{
    struct chat_part *parts = arena_calloc(d->arena, json_count(list), sizeof *parts);
    if (!parts)
        return decode_no_memory(d);
    out->parts = parts;
    JSON_EACH (value, list) {
        struct part_place at = {message, out->part_count};
        enum ph_status status = decode_part(d, value, at, &parts[out->part_count++]);
        if (status != PH_OK)
            return status;
    }
    return join_texts(d, out);
}

/* ---- Messages */

static enum ph_status decode_content(struct decoder *d, const struct json *content, size_t index,
                                     struct chat_message *out)
{
    if (json_is(content, JSON_STRING)) {
        out->content = text_of(content);
        return PH_OK;
    }
    if (json_is(content, JSON_ARRAY))
        return decode_parts(d, content, index, out);
    if (!json_is_absent(content))
        return DECODE_REFUSE(d, decode_path(d, "messages[%zu].content", index),
                             "messages[%zu].content must be a string or an array of parts, not %s", index,
                             decode_type_name(content));
    if (out->role != CHAT_ASSISTANT)
        return DECODE_REFUSE(d, decode_path(d, "messages[%zu].content", index),
                             "messages[%zu].content is missing", index);
    return PH_OK;
}

static enum ph_status decode_tool_call(struct decoder *d, const struct json *call, size_t index,
                                       struct chat_tool_call *out)
{
    out->custom = json_text_is(json_get(call, "type"), "custom");
    const struct json *inside = json_get(call, out->custom ? "custom" : "function");
    const struct json *arguments = json_get(inside, out->custom ? "input" : "arguments");
    if (!json_is(json_get(inside, "name"), JSON_STRING))
        return DECODE_REFUSE(d, decode_path(d, "messages[%zu].tool_calls", index),
                             "messages[%zu].tool_calls: every call needs function.name", index);
    out->id = json_text(json_get(call, "id"), NULL);
    out->name = json_text(json_get(inside, "name"), "");
    if (json_is(arguments, JSON_STRING)) {
        out->arguments = text_of(arguments);
        return PH_OK;
    }
    out->arguments = (struct chat_text){"{}", 2};
    if (json_is_absent(arguments))
        return PH_OK;
    struct buf text; /* some clients send the object itself */
    buf_init(&text, HTTP_BODY_BYTES_MAX);
    json_write(&text, arguments);
    const char *copy = buf_status(&text) == PH_OK ? arena_strndup(d->arena, text.data, text.len) : NULL;
    out->arguments = (struct chat_text){copy, text.len};
    buf_release(&text);
    return copy ? PH_OK : decode_no_memory(d);
}

static enum ph_status decode_tool_calls(struct decoder *d, const struct json *calls, size_t index,
                                        struct chat_message *out)
{
    if (json_is_absent(calls))
        return PH_OK;
    if (!json_is(calls, JSON_ARRAY))
        return DECODE_REFUSE(d, decode_path(d, "messages[%zu].tool_calls", index),
                             "messages[%zu].tool_calls must be an array, not %s", index,
                             decode_type_name(calls));
    struct chat_tool_call *list = arena_calloc(d->arena, json_count(calls), sizeof *list);
    if (!list)
        return decode_no_memory(d);
    enum ph_status status = PH_OK;
    size_t count = 0;
    JSON_EACH (call, calls) {
        if (status == PH_OK)
            status = decode_tool_call(d, call, index, &list[count++]);
    }
    out->tool_calls = list;
    out->tool_call_count = count;
    return status;
}

static enum ph_status decode_role(struct decoder *d, const struct json *role, size_t index,
                                  enum chat_role *out)
{
    static const struct {
        const char *name;
        enum chat_role role;
    } roles[] = {{"system", CHAT_SYSTEM},       {"developer", CHAT_DEVELOPER}, {"user", CHAT_USER},
                 {"assistant", CHAT_ASSISTANT}, {"tool", CHAT_TOOL},           {"function", CHAT_TOOL}};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (json_text_is(role, roles[i].name)) {
            *out = roles[i].role;
            return PH_OK;
        }
    return DECODE_REFUSE(
        d, decode_path(d, "messages[%zu].role", index),
        "messages[%zu].role is \"%.40s\"; it must be system, developer, user, assistant or tool", index,
        json_text(role, ""));
}

static enum ph_status decode_message(struct decoder *d, const struct json *value, size_t index,
                                     struct chat_message *out)
{
    if (!json_is(value, JSON_OBJECT))
        return DECODE_REFUSE(d, decode_path(d, "messages[%zu]", index),
                             "messages[%zu] must be an object, not %s", index, decode_type_name(value));
    out->raw = value;
    out->name = json_text(json_get(value, "name"), NULL);
    out->tool_call_id = json_text(json_get(value, "tool_call_id"), NULL);
    enum ph_status status = decode_role(d, json_get(value, "role"), index, &out->role);
    if (status == PH_OK)
        status = decode_tool_calls(d, json_get(value, "tool_calls"), index, out);
    if (status == PH_OK)
        status = decode_content(d, json_get(value, "content"), index, out);
    return status;
}

enum ph_status openai_decode_messages(struct decoder *d)
{
    const struct json *messages = json_get(d->body, "messages");
    if (json_is_absent(messages))
        return DECODE_REFUSE(d, "messages", "messages is missing: give an array of messages");
    if (!json_is(messages, JSON_ARRAY))
        return DECODE_REFUSE(d, "messages", "messages must be an array, not %s", decode_type_name(messages));
    size_t count = json_count(messages);
    if (count == 0)
        return DECODE_REFUSE(d, "messages", "messages is empty: give at least one message");
    if (count > CHAT_MESSAGES_MAX)
        return DECODE_REFUSE(d, "messages", "messages has %zu messages; at most %d are accepted", count,
                             CHAT_MESSAGES_MAX);
    struct chat_message *list = arena_calloc(d->arena, count, sizeof *list);
    if (!list)
        return decode_no_memory(d);
    enum ph_status status = PH_OK;
    size_t index = 0;
    JSON_EACH (message, messages) {
        if (status == PH_OK)
            status = decode_message(d, message, index, &list[index]);
        index++;
    }
    d->out->messages = list;
    d->out->message_count = count;
    return status;
}
