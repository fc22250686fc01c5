/* Bodies of POST /v1/messages into chat requests.
 *
 * Method: scalars are rows of a table, content blocks are rows of another (type, reader). A message of this
 * dialect holds blocks that are messages of their own in ours: every tool_result of a user's turn becomes a
 * TOOL message, and they come before what the user says, as in the dialects that have that role. tool_use
 * becomes a call of its message.
 *
 * Three kinds of blocks end as text, so that every model can read them: text, search results, and documents
 * whose source is text. A block that only a provider of this dialect understands (server tools, uploaded
 * files) becomes a part OTHER, and a tool that only it has stays in `tools` as it came: other providers
 * refuse both, and a route may go to one that does not.
 *
 * Unknown members and nulls are as if absent; a known member of the wrong type is a fault that names it. */
#include <stdio.h>
#include <string.h>

#include "chat/anthropic_int.h"
#include "chat/decode_int.h"

/* The messages as they are read. */
struct turns {
    struct decoder *d;
    struct chat_message *list; /* room for all that may come */
    size_t count;
};

/* Where in the body: for messages of faults. */
#define NOWHERE SIZE_MAX
struct place {
    size_t message;      /* NOWHERE: in `system` */
    size_t block, inner; /* of its content, of that block's content; NOWHERE: not in one */
};

/* ---- Faults */

static const char *path(struct decoder *d, struct place place, const char *member)
{
    char text[160], block[40] = "", inner[40] = "";
    if (place.block != NOWHERE)
        snprintf(block, sizeof block, place.message == NOWHERE ? "[%zu]" : ".content[%zu]", place.block);
    if (place.inner != NOWHERE)
        snprintf(inner, sizeof inner, ".content[%zu]", place.inner);
    const char *dot = *member ? "." : "";
    if (place.message == NOWHERE)
        snprintf(text, sizeof text, "system%s%s%s", block, dot, member);
    else
        snprintf(text, sizeof text, "messages[%zu]%s%s%s%s", place.message, block, inner, dot, member);
    const char *copy = arena_strdup(d->arena, text);
    return copy ? copy : "messages";
}

/* A member of a block or message is not what it must be. */
static enum ph_status refuse(struct decoder *d, struct place place, const char *member, const char *wanted,
                             const struct json *found)
{
    const char *where = path(d, place, member);
    return DECODE_REFUSE(d, where, "%s must be %s, not %s", where, wanted, decode_type_name(found));
}

/* ---- Text */

static struct chat_text text_of(const struct json *string)
{
    return (struct chat_text){string->u.str.text, string->u.str.len};
}

static enum ph_status keep(struct decoder *d, struct buf *text, struct chat_text *out)
{
    const char *copy = NULL;
    if (buf_status(text) == PH_OK)
        copy = arena_strndup(d->arena, text->len ? text->data : "", text->len);
    *out = (struct chat_text){copy, text->len};
    buf_release(text);
    return copy ? PH_OK : decode_no_memory(d);
}

static void add_line(struct buf *text, const struct json *line)
{
    if (!json_is(line, JSON_STRING) || line->u.str.len == 0)
        return;
    if (text->len)
        buf_putc(text, '\n');
    buf_append(text, line->u.str.text, line->u.str.len);
}

/* A string, or the texts of an array of blocks. */
static void add_lines(struct buf *text, const struct json *content)
{
    add_line(text, content);
    if (json_is(content, JSON_ARRAY))
        JSON_EACH (block, content)
            add_line(text, json_get(block, "text"));
}

static enum ph_status join_text_parts(struct decoder *d, const struct chat_part *parts, size_t count,
                                      struct chat_text *out)
{
    struct buf text;
    bool any = false;
    buf_init(&text, HTTP_BODY_BYTES_MAX);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].kind != CHAT_PART_TEXT)
            continue;
        if (any)
            buf_putc(&text, '\n');
        any = true;
        buf_append(&text, parts[i].text.text, parts[i].text.len);
    }
    if (any || count == 0)
        return keep(d, &text, out);
    buf_release(&text);
    return PH_OK;
}

/* ---- Content blocks that are parts */

static enum ph_status read_text(struct decoder *d, const struct json *block, struct place place,
                                struct chat_part *out)
{
    const struct json *text = json_get(block, "text");
    if (!json_is(text, JSON_STRING))
        return refuse(d, place, "text", "a string", text);
    out->kind = CHAT_PART_TEXT;
    out->text = text_of(text);
    return PH_OK;
}

/* Bytes or an address, for images and documents; a file that was uploaded is known to the provider only. */
static enum ph_status read_source(struct decoder *d, const struct json *block, struct place place,
                                  struct chat_part *out)
{
    const struct json *source = json_get(block, "source");
    const char *type = json_text(json_get(source, "type"), "");
    if (!json_is(source, JSON_OBJECT))
        return refuse(d, place, "source", "an object", source);
    if (strcmp(type, "base64") == 0) {
        const struct json *data = json_get(source, "data");
        const struct json *media_type = json_get(source, "media_type");
        if (!json_is(data, JSON_STRING))
            return refuse(d, place, "source.data", "a string", data);
        if (!json_is(media_type, JSON_STRING))
            return refuse(d, place, "source.media_type", "a string", media_type);
        out->data = text_of(data);
        out->media_type = media_type->u.str.text;
        return PH_OK;
    }
    if (strcmp(type, "url") == 0) {
        if (!json_is(json_get(source, "url"), JSON_STRING))
            return refuse(d, place, "source.url", "a string", json_get(source, "url"));
        out->url = json_text(json_get(source, "url"), "");
        return PH_OK;
    }
    if (strcmp(type, "file") == 0) {
        out->kind = CHAT_PART_OTHER;
        return PH_OK;
    }
    const char *where = path(d, place, "source.type");
    return DECODE_REFUSE(d, where, "%s is \"%.40s\"; it must be base64, url, file, or text for a document",
                         where, type);
}

static enum ph_status read_image(struct decoder *d, const struct json *block, struct place place,
                                 struct chat_part *out)
{
    out->kind = CHAT_PART_IMAGE;
    return read_source(d, block, place, out);
}

static enum ph_status read_document(struct decoder *d, const struct json *block, struct place place,
                                    struct chat_part *out)
{
    const struct json *source = json_get(block, "source");
    bool plain = json_text_is(json_get(source, "type"), "text");
    out->filename = json_text(json_get(block, "title"), NULL);
    out->kind = CHAT_PART_FILE;
    if (!plain && !json_text_is(json_get(source, "type"), "content"))
        return read_source(d, block, place, out);
    struct buf text;
    buf_init(&text, HTTP_BODY_BYTES_MAX);
    add_line(&text, json_get(block, "title"));
    add_line(&text, json_get(block, "context"));
    add_lines(&text, json_get(source, plain ? "data" : "content"));
    out->kind = CHAT_PART_TEXT;
    return keep(d, &text, &out->text);
}

static enum ph_status read_search_result(struct decoder *d, const struct json *block, struct place place,
                                         struct chat_part *out)
{
    (void)place;
    struct buf text;
    buf_init(&text, HTTP_BODY_BYTES_MAX);
    add_line(&text, json_get(block, "title"));
    add_line(&text, json_get(block, "source"));
    add_lines(&text, json_get(block, "content"));
    out->kind = CHAT_PART_TEXT;
    return keep(d, &text, &out->text);
}

static enum ph_status read_thinking(struct decoder *d, const struct json *block, struct place place,
                                    struct chat_part *out)
{
    const struct json *thinking = json_get(block, "thinking");
    if (!json_is(thinking, JSON_STRING))
        return refuse(d, place, "thinking", "a string", thinking);
    out->kind = CHAT_PART_REASONING;
    out->text = text_of(thinking);
    out->signature = json_text(json_get(block, "signature"), NULL);
    return PH_OK;
}

static enum ph_status read_redacted_thinking(struct decoder *d, const struct json *block, struct place place,
                                             struct chat_part *out)
{
    (void)d, (void)place;
    out->kind = CHAT_PART_REASONING;
    out->signature = json_text(json_get(block, "data"), NULL);
    return PH_OK;
}

static enum ph_status read_part(struct decoder *d, const struct json *block, struct place place,
                                struct chat_part *out)
{
    static const struct {
        const char *type;
        enum ph_status (*read)(struct decoder *d, const struct json *block, struct place place,
                               struct chat_part *out);
    } readers[] = {{"text", read_text},         {"image", read_image},
                   {"document", read_document}, {"search_result", read_search_result},
                   {"thinking", read_thinking}, {"redacted_thinking", read_redacted_thinking}};
    const struct json *type = json_get(block, "type"), *mark = json_get(block, "cache_control");
    if (!json_is(block, JSON_OBJECT))
        return refuse(d, place, "", "an object with a type", block);
    if (!json_is(type, JSON_STRING))
        return refuse(d, place, "type", "a string", type);
    *out = (struct chat_part){.kind = CHAT_PART_OTHER, .raw = block};
    if (json_is(mark, JSON_OBJECT))
        out->cache_control = mark;
    for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++)
        if (json_text_is(type, readers[i].type))
            return readers[i].read(d, block, place, out);
    return PH_OK;
}

/* ---- Messages */

static struct chat_message *add_message(struct turns *turns, enum chat_role role)
{
    struct chat_message *message = &turns->list[turns->count++];
    message->role = role;
    return message;
}

static enum ph_status read_tool_use(struct decoder *d, const struct json *block, struct place place,
                                    struct chat_tool_call *out)
{
    const struct json *id = json_get(block, "id"), *name = json_get(block, "name");
    const struct json *input = json_get(block, "input");
    if (!json_is(id, JSON_STRING))
        return refuse(d, place, "id", "a string", id);
    if (!json_is(name, JSON_STRING))
        return refuse(d, place, "name", "a string", name);
    if (!json_is_absent(input) && !json_is(input, JSON_OBJECT))
        return refuse(d, place, "input", "an object", input);
    struct buf text;
    buf_init(&text, HTTP_BODY_BYTES_MAX);
    if (json_is_absent(input))
        buf_puts(&text, "{}");
    else
        json_write(&text, input);
    out->id = id->u.str.text;
    out->name = name->u.str.text;
    return keep(d, &text, &out->arguments);
}

static enum ph_status read_parts(struct decoder *d, const struct json *blocks, struct place place,
                                 struct chat_message *out)
{
    struct chat_part *parts = arena_calloc(d->arena, json_count(blocks), sizeof *parts);
    size_t count = 0;
    if (!parts)
        return decode_no_memory(d);
    JSON_EACH (block, blocks) {
        struct place at = place;
        *(place.block == NOWHERE ? &at.block : &at.inner) = count;
        enum ph_status status = read_part(d, block, at, &parts[count++]);
        if (status != PH_OK)
            return status;
    }
    out->parts = parts;
    out->part_count = count;
    return join_text_parts(d, parts, count, &out->content);
}

static enum ph_status read_tool_result(struct turns *turns, const struct json *block, struct place place)
{
    struct decoder *d = turns->d;
    const struct json *id = json_get(block, "tool_use_id"), *content = json_get(block, "content");
    struct chat_message *message = add_message(turns, CHAT_TOOL);
    if (!json_is(id, JSON_STRING))
        return refuse(d, place, "tool_use_id", "a string", id);
    message->tool_call_id = id->u.str.text;
    message->tool_failed = json_is(json_get(block, "is_error"), JSON_TRUE);
    message->content = (struct chat_text){"", 0};
    if (json_is(content, JSON_STRING))
        message->content = text_of(content);
    else if (json_is(content, JSON_ARRAY))
        return read_parts(d, content, place, message);
    else if (!json_is_absent(content))
        return refuse(d, place, "content", "a string or an array of blocks", content);
    return PH_OK;
}

static bool block_is(const struct json *block, const char *type)
{
    return json_text_is(json_get(block, "type"), type);
}

/* The blocks of a turn that are no messages of their own. */
static enum ph_status read_blocks(struct decoder *d, const struct json *blocks, struct place place,
                                  struct chat_message *out)
{
    size_t room = json_count(blocks), part_count = 0, call_count = 0;
    struct chat_part *parts = arena_calloc(d->arena, room, sizeof *parts);
    struct chat_tool_call *calls = arena_calloc(d->arena, room, sizeof *calls);
    if (!parts || !calls)
        return decode_no_memory(d);
    place.block = 0;
    JSON_EACH (block, blocks) {
        enum ph_status status = PH_OK;
        if (out->role == CHAT_ASSISTANT && block_is(block, "tool_use"))
            status = read_tool_use(d, block, place, &calls[call_count++]);
        else if (out->role != CHAT_USER || !block_is(block, "tool_result"))
            status = read_part(d, block, place, &parts[part_count++]);
        if (status != PH_OK)
            return status;
        place.block++;
    }
    out->parts = parts;
    out->part_count = part_count;
    out->tool_calls = calls;
    out->tool_call_count = call_count;
    if (part_count == 0 && call_count)
        return PH_OK; /* a turn that only calls tools has no content */
    return join_text_parts(d, parts, part_count, &out->content);
}

static enum ph_status read_turn(struct turns *turns, const struct json *value, enum chat_role role,
                                struct place place)
{
    struct decoder *d = turns->d;
    const struct json *content = json_get(value, "content");
    size_t results = 0;
    if (json_is(content, JSON_STRING)) {
        struct chat_message *message = add_message(turns, role);
        message->content = text_of(content);
        message->raw = value;
        return PH_OK;
    }
    if (!json_is(content, JSON_ARRAY))
        return refuse(d, place, "content", "a string or an array of blocks", content);
    place.block = 0;
    JSON_EACH (block, content) {
        if (role == CHAT_USER && block_is(block, "tool_result")) {
            enum ph_status status = read_tool_result(turns, block, place);
            if (status != PH_OK)
                return status;
            results++;
        }
        place.block++;
    }
    if (results && results == json_count(content))
        return PH_OK; /* the user said nothing */
    place.block = NOWHERE;
    struct chat_message *message = add_message(turns, role);
    message->raw = results ? NULL : value;
    return read_blocks(d, content, place, message);
}

static enum ph_status read_message(struct turns *turns, const struct json *value, size_t index)
{
    struct decoder *d = turns->d;
    static const struct {
        const char *name;
        enum chat_role role;
    } roles[] = {{"user", CHAT_USER}, {"assistant", CHAT_ASSISTANT}, {"system", CHAT_SYSTEM}};
    struct place place = {index, NOWHERE, NOWHERE};
    const struct json *role = json_get(value, "role");
    if (!json_is(value, JSON_OBJECT))
        return refuse(d, place, "", "an object", value);
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (json_text_is(role, roles[i].name))
            return read_turn(turns, value, roles[i].role, place);
    const char *where = path(d, place, "role");
    return DECODE_REFUSE(d, where, "%s is \"%.40s\"; it must be user or assistant", where,
                         json_text(role, ""));
}

static enum ph_status read_system(struct turns *turns)
{
    struct decoder *d = turns->d;
    const struct json *system = json_get(d->body, "system");
    struct place place = {NOWHERE, NOWHERE, NOWHERE};
    if (json_is_absent(system) || (json_is(system, JSON_STRING) && system->u.str.len == 0))
        return PH_OK;
    if (json_is(system, JSON_ARRAY) && json_count(system) == 0)
        return PH_OK;
    if (json_is(system, JSON_STRING)) {
        add_message(turns, CHAT_SYSTEM)->content = text_of(system);
        return PH_OK;
    }
    if (!json_is(system, JSON_ARRAY))
        return refuse(d, place, "", "a string or an array of text blocks", system);
    return read_parts(d, system, place, add_message(turns, CHAT_SYSTEM));
}

static size_t count_messages(const struct json *messages)
{
    size_t count = 1; /* the system's */
    JSON_EACH (message, messages) {
        count++;
        JSON_EACH (block, json_get(message, "content"))
            count += block_is(block, "tool_result");
    }
    return count;
}

static enum ph_status decode_messages(struct decoder *d)
{
    const struct json *messages = json_get(d->body, "messages");
    if (json_is_absent(messages))
        return DECODE_REFUSE(d, "messages", "messages is missing: give an array of messages");
    if (!json_is(messages, JSON_ARRAY))
        return DECODE_REFUSE(d, "messages", "messages must be an array, not %s", decode_type_name(messages));
    size_t count = count_messages(messages);
    if (json_count(messages) == 0)
        return DECODE_REFUSE(d, "messages", "messages is empty: give at least one message");
    if (count > CHAT_MESSAGES_MAX)
        return DECODE_REFUSE(d, "messages",
                             "messages has %zu messages and tool results; at most %d are accepted", count,
                             CHAT_MESSAGES_MAX);
    struct turns turns = {.d = d, .list = arena_calloc(d->arena, count, sizeof *turns.list)};
    if (!turns.list)
        return decode_no_memory(d);
    enum ph_status status = read_system(&turns);
    size_t index = 0;
    JSON_EACH (message, messages) {
        if (status == PH_OK)
            status = read_message(&turns, message, index++);
    }
    d->out->messages = turns.list;
    d->out->message_count = turns.count;
    if (status == PH_OK) {
        const struct chat_message *last = &turns.list[turns.count - 1];
        d->out->continue_final_message =
            last->role == CHAT_ASSISTANT && last->tool_call_count == 0 && last->content.text;
    }
    return status;
}

/* ---- Tools */

static bool set_text(struct decoder *d, struct json *object, const char *key, const char *text)
{
    return json_set(d->arena, object, key, json_new_string(d->arena, text, strlen(text)));
}

/* Members that have the same meaning in both shapes, whatever their values. */
static bool take_over(struct decoder *d, struct json *object, const char *key, const struct json *value)
{
    return json_is_absent(value) || json_set(d->arena, object, key, json_copy(d->arena, value));
}

static struct json *function_tool(struct decoder *d, const struct json *tool)
{
    struct json *outer = json_new(d->arena, JSON_OBJECT), *function = json_new(d->arena, JSON_OBJECT);
    bool ok = set_text(d, outer, "type", "function") &&
              set_text(d, function, "name", json_text(json_get(tool, "name"), "")) &&
              take_over(d, function, "description", json_get(tool, "description")) &&
              take_over(d, function, "parameters", json_get(tool, "input_schema")) &&
              take_over(d, function, "strict", json_get(tool, "strict")) &&
              json_set(d->arena, outer, "function", function);
    return ok ? outer : NULL;
}

static enum ph_status refuse_tool(struct decoder *d, size_t index, const char *member, const char *wanted,
                                  const struct json *found)
{
    char where[64];
    snprintf(where, sizeof where, "tools[%zu]%s%s", index, *member ? "." : "", member);
    return DECODE_REFUSE(d, arena_strdup(d->arena, where), "%s must be %s, not %s", where, wanted,
                         decode_type_name(found));
}

static enum ph_status decode_tools(struct decoder *d)
{
    const struct json *tools = json_get(d->body, "tools");
    size_t index = 0;
    if (json_is_absent(tools))
        return PH_OK;
    if (!json_is(tools, JSON_ARRAY))
        return DECODE_REFUSE(d, "tools", "tools must be an array, not %s", decode_type_name(tools));
    struct json *list = json_new(d->arena, JSON_ARRAY);
    JSON_EACH (tool, tools) {
        const struct json *type = json_get(tool, "type");
        bool theirs = !json_is_absent(type) && !json_text_is(type, "custom");
        if (!json_is(tool, JSON_OBJECT))
            return refuse_tool(d, index, "", "an object", tool);
        if (theirs && !json_is(type, JSON_STRING))
            return refuse_tool(d, index, "type", "a string", type);
        if (!theirs && !json_is(json_get(tool, "name"), JSON_STRING))
            return refuse_tool(d, index, "name", "a string", json_get(tool, "name"));
        if (!theirs && !json_is(json_get(tool, "input_schema"), JSON_OBJECT))
            return refuse_tool(d, index, "input_schema", "an object", json_get(tool, "input_schema"));
        if (!json_push(list, theirs ? json_copy(d->arena, tool) : function_tool(d, tool)))
            return decode_no_memory(d);
        index++;
    }
    if (index)
        d->out->tools = list;
    return PH_OK;
}

static struct json *named_choice(struct decoder *d, const char *name)
{
    struct json *choice = json_new(d->arena, JSON_OBJECT), *function = json_new(d->arena, JSON_OBJECT);
    bool ok = set_text(d, choice, "type", "function") && set_text(d, function, "name", name) &&
              json_set(d->arena, choice, "function", function);
    return ok ? choice : NULL;
}

static enum ph_status decode_tool_choice(struct decoder *d)
{
    static const char *const words[][2] = {{"auto", "auto"}, {"any", "required"}, {"none", "none"}};
    const struct json *choice = json_get(d->body, "tool_choice");
    const struct json *type = json_get(choice, "type"), *name = json_get(choice, "name");
    struct json *translated = NULL;
    if (json_is_absent(choice))
        return PH_OK;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (json_text_is(type, words[i][0]))
            translated = json_new_string(d->arena, words[i][1], strlen(words[i][1]));
    if (json_text_is(type, "tool")) {
        if (!json_is(name, JSON_STRING))
            return DECODE_REFUSE(d, "tool_choice.name", "tool_choice.name must be a string, not %s",
                                 decode_type_name(name));
        translated = named_choice(d, name->u.str.text);
    } else if (!translated) {
        return DECODE_REFUSE(d, "tool_choice.type", "tool_choice.type must be auto, any, tool or none");
    }
    if (!translated)
        return decode_no_memory(d);
    d->out->tool_choice = translated;
    d->out->single_tool_call = json_is(json_get(choice, "disable_parallel_tool_use"), JSON_TRUE);
    if (json_text_is(type, "none"))
        d->out->tools = NULL;
    return PH_OK;
}

/* ---- The rest */

static const struct scalar scalars[] = {
    {"model", SCALAR_TEXT, 0, 0, SCALAR_AT(model), 0, SCALAR_WRITTEN},
    {"stream", SCALAR_BOOL, 0, 0, SCALAR_AT(stream), 0, SCALAR_WRITTEN},
    {"max_tokens", SCALAR_SIZE, 1, 1e9, SCALAR_AT(max_tokens), 0, SCALAR_WRITTEN},
    {"temperature", SCALAR_DOUBLE, 0, 1, SCALAR_AT(sampling.temperature), SCALAR_AT(sampling.has_temperature),
     SCALAR_WRITTEN},
    {"top_p", SCALAR_DOUBLE, 0, 1, SCALAR_AT(sampling.top_p), SCALAR_AT(sampling.has_top_p), SCALAR_WRITTEN},
    {"top_k", SCALAR_INT, -1, 1e9, SCALAR_AT(sampling.top_k), SCALAR_AT(sampling.has_top_k), SCALAR_WRITTEN},
};

static enum ph_status decode_settings(struct decoder *d)
{
    return decode_scalars(d, scalars, sizeof scalars / sizeof scalars[0]);
}

static enum ph_status decode_stops(struct decoder *d)
{
    const struct json *stops = json_get(d->body, "stop_sequences");
    bool one = json_is(stops, JSON_STRING); /* not by the book, but sent */
    size_t count = one ? 1 : json_count(stops), kept = 0;
    if (json_is_absent(stops))
        return PH_OK;
    if (!one && !json_is(stops, JSON_ARRAY))
        return DECODE_REFUSE(d, "stop_sequences", "stop_sequences must be an array of strings, not %s",
                             decode_type_name(stops));
    if (count > CHAT_STOP_COUNT_MAX)
        return DECODE_REFUSE(d, "stop_sequences", "stop_sequences has %zu strings; at most %d are accepted",
                             count, CHAT_STOP_COUNT_MAX);
    struct chat_text *list = arena_calloc(d->arena, count, sizeof *list);
    if (!list)
        return decode_no_memory(d);
    for (const struct json *item = one ? stops : json_first(stops); item; item = one ? NULL : item->next) {
        if (!json_is(item, JSON_STRING))
            return DECODE_REFUSE(d, "stop_sequences", "stop_sequences must hold strings only, not %s",
                                 decode_type_name(item));
        if (item->u.str.len > ENGINE_STOP_BYTES_MAX)
            return DECODE_REFUSE(d, "stop_sequences",
                                 "a stop sequence has %zu bytes; at most %d are accepted", item->u.str.len,
                                 ENGINE_STOP_BYTES_MAX);
        if (item->u.str.len)
            list[kept++] = text_of(item);
    }
    d->out->stops = list;
    d->out->stop_count = kept;
    return PH_OK;
}

/* A budget is exact; "adaptive" leaves the amount to the model, and to the effort that was asked for. */
static enum ph_status decode_thinking(struct decoder *d)
{
    static const char *const efforts[][2] = {
        {"low", "low"}, {"medium", "medium"}, {"high", "high"}, {"xhigh", "high"}, {"max", "high"}};
    const struct json *thinking = NULL;
    const struct json *effort = json_get(json_get(d->body, "output_config"), "effort");
    for (size_t i = 0; i < sizeof efforts / sizeof efforts[0]; i++)
        if (json_text_is(effort, efforts[i][0]))
            d->out->reasoning_effort = efforts[i][1];
    enum ph_status status = decode_object(d, "thinking", &thinking);
    const struct json *type = json_get(thinking, "type"), *budget = json_get(thinking, "budget_tokens");
    if (json_text_is(type, "disabled"))
        d->out->reasoning_tokens = 0;
    if (!json_text_is(type, "enabled"))
        return status;
    if (!json_to_int64(budget, &d->out->reasoning_tokens) || d->out->reasoning_tokens < 1 ||
        d->out->reasoning_tokens > 1000000000)
        return DECODE_REFUSE(d, "thinking.budget_tokens",
                             "thinking.budget_tokens must be a positive integer");
    return PH_OK;
}

static enum ph_status decode_metadata(struct decoder *d)
{
    enum ph_status status = decode_object(d, "metadata", &d->out->metadata);
    d->out->user = json_text(json_get(d->out->metadata, "user_id"), NULL);
    d->out->conversation = json_text(json_get(d->out->metadata, "conversation_id"), NULL);
    return status;
}

/* {"type":"json_schema","schema":{}} in output_config.format, formerly output_format. */
static enum ph_status decode_format(struct decoder *d)
{
    const struct json *format = json_get(json_get(d->body, "output_config"), "format");
    if (json_is_absent(format))
        format = json_get(d->body, "output_format");
    if (json_is_absent(format))
        return PH_OK;
    if (!json_text_is(json_get(format, "type"), "json_schema") ||
        !json_is(json_get(format, "schema"), JSON_OBJECT))
        return DECODE_REFUSE(d, "output_config.format",
                             "output_config.format must be {\"type\":\"json_schema\",\"schema\":{...}}");
    struct json *outer = json_new(d->arena, JSON_OBJECT), *inner = json_new(d->arena, JSON_OBJECT);
    bool ok = set_text(d, outer, "type", "json_schema") && set_text(d, inner, "name", "output") &&
              take_over(d, inner, "schema", json_get(format, "schema")) &&
              json_set(d->arena, inner, "strict", json_new(d->arena, JSON_TRUE)) &&
              json_set(d->arena, outer, "json_schema", inner);
    d->out->response_format = outer;
    return ok ? PH_OK : decode_no_memory(d);
}

/* ---- The doors */

static enum ph_status decode(struct arena *arena, const struct json *body, struct chat_request *out,
                             struct chat_fault *fault)
{
    static enum ph_status (*const steps[])(struct decoder *) = {
        decode_settings,    decode_messages, decode_stops,    decode_tools,
        decode_tool_choice, decode_thinking, decode_metadata, decode_format};
    struct decoder d = {.arena = arena, .body = body, .out = out, .fault = fault};
    *out = (struct chat_request){.arena = arena,
                                 .kind = CHAT_KIND_CHAT,
                                 .dialect = CHAT_ANTHROPIC,
                                 .choices = 1,
                                 .reasoning_tokens = -1,
                                 .include_usage = true,
                                 .raw = body};
    if (!json_is(body, JSON_OBJECT))
        return DECODE_REFUSE(&d, NULL, "the body must be a JSON object, not %s", decode_type_name(body));
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && status == PH_OK; i++)
        status = steps[i](&d);
    return status;
}

enum ph_status anthropic_decode(struct arena *arena, enum chat_kind kind, const struct json *body,
                                struct chat_request *out, struct chat_fault *fault)
{
    (void)kind; /* the dialect has one */
    enum ph_status status = decode(arena, body, out, fault);
    if (status == PH_OK && out->max_tokens == 0) {
        chat_fault_set(fault, 400, NULL, "max_tokens", "max_tokens is missing: give a positive integer");
        return PH_ERR_ARG;
    }
    return status;
}

enum ph_status chat_anthropic_count_decode(struct arena *arena, const struct json *body,
                                           struct chat_request *out, struct chat_fault *fault)
{
    return decode(arena, body, out, fault);
}
