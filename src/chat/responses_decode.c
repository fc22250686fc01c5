/* Bodies of OpenAI's Responses API into chat requests.
 *
 * There a conversation is a list of items: messages, calls of functions, their outputs, thoughts. Here it is
 * a list of messages, as all other dialects have it. What the assistant did in one turn (thoughts, text,
 * calls) becomes one message, because other providers demand the results of calls right behind the message
 * that made them. Invariants:
 *  I1  the last message is open while items of the assistant follow each other; only it grows, so that parts
 *      and calls of all messages lie in two arrays, one stretch for each message;
 *  I2  an item adds at most one message, one call, and as many parts as its content has, so that one look at
 *      the list says how large the arrays must be;
 *  I3  a thought keeps its text and its seal (encrypted_content), in the order it came in.
 *
 * Items that are only named (item_reference) are passed over, and said to be there: whoever keeps them puts
 * them into the body, and it is decoded again.
 *
 * What only OpenAI's own servers can do is refused by name: files and prompts kept there, built-in tools,
 * work in the background. Everything else unknown is as if absent. */
#include <string.h>

#include "chat/decode_int.h"
#include "chat/responses_int.h"

struct items {
    struct decoder *d;
    struct chat_message *messages;
    struct chat_part *parts;
    struct chat_tool_call *calls;
    size_t message_count, part_count, call_count;
    bool open;    /* the last message is the assistant's, and may grow (I1) */
    size_t index; /* of the item being read */
};

static struct chat_text text_of(const struct json *string)
{
    return (struct chat_text){string->u.str.text, string->u.str.len};
}

/* ---- Messages and their parts */

static struct chat_message *begin_message(struct items *s, enum chat_role role)
{
    struct chat_message *message = &s->messages[s->message_count++];
    message->role = role;
    message->parts = s->parts + s->part_count;
    message->tool_calls = s->calls + s->call_count;
    s->open = role == CHAT_ASSISTANT;
    return message;
}

static struct chat_message *last_message(struct items *s)
{
    return &s->messages[s->message_count - 1];
}

static bool has_text(const struct chat_message *message)
{
    for (size_t i = 0; i < message->part_count; i++)
        if (message->parts[i].kind != CHAT_PART_REASONING)
            return true;
    return false;
}

static struct chat_part *add_part(struct items *s, enum chat_part_kind kind, const struct json *raw)
{
    struct chat_part *part = &s->parts[s->part_count++];
    part->kind = kind;
    part->raw = raw;
    last_message(s)->part_count++;
    return part;
}

/* Text parts are the message's content, joined by line ends; one alone needs no list. */
static enum ph_status join_text(struct items *s, struct chat_message *message)
{
    size_t len = 0, count = 0;
    for (size_t i = 0; i < message->part_count; i++)
        if (message->parts[i].kind == CHAT_PART_TEXT) {
            len += message->parts[i].text.len + 1;
            message->content = message->parts[i].text;
            count++;
        }
    if (count > 1) {
        char *text = arena_alloc(s->d->arena, len);
        if (!text)
            return decode_no_memory(s->d);
        size_t at = 0;
        for (size_t i = 0; i < message->part_count; i++) {
            const struct chat_part *part = &message->parts[i];
            if (part->kind != CHAT_PART_TEXT)
                continue;
            memcpy(text + at, part->text.text, part->text.len);
            at += part->text.len;
            text[at++] = '\n';
        }
        text[at - 1] = 0;
        message->content = (struct chat_text){text, at - 1};
    }
    if (message->part_count == 1 && count == 1) {
        message->parts = NULL;
        message->part_count = 0;
    }
    return PH_OK;
}

/* ---- Parts of a content */

/* Names a member of the item that is being read. */
#define ITEM_PATH(s, fmt, ...) decode_path((s)->d, "input[%zu]" fmt, (s)->index, __VA_ARGS__)

static enum ph_status refuse_file_id(struct items *s, size_t at)
{
    return decode_unable(s->d, ITEM_PATH(s, ".content[%zu].file_id", at),
                         "input[%zu].content[%zu] names a file that is kept elsewhere: send its bytes as a "
                         "data URL, or its address",
                         s->index, at);
}

static enum ph_status take_image(struct items *s, const struct json *value, size_t at)
{
    const struct json *url = json_get(value, "image_url");
    if (json_is(url, JSON_OBJECT)) /* as chats have it */
        url = json_get(url, "url");
    if (json_is_absent(url) && !json_is_absent(json_get(value, "file_id")))
        return refuse_file_id(s, at);
    if (!json_is(url, JSON_STRING))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, ".content[%zu].image_url", at),
                             "input[%zu].content[%zu].image_url must be a URL or a data URL", s->index, at);
    struct chat_part *part = add_part(s, CHAT_PART_IMAGE, value);
    part->detail = json_text(json_get(value, "detail"), NULL);
    return decode_media_url(s->d, url, part);
}

static enum ph_status take_file(struct items *s, const struct json *value, size_t at)
{
    const struct json *data = json_get(value, "file_data"), *url = json_get(value, "file_url");
    if (!json_is(data, JSON_STRING) && !json_is(url, JSON_STRING)) {
        if (!json_is_absent(json_get(value, "file_id")))
            return refuse_file_id(s, at);
        return DECODE_REFUSE(s->d, ITEM_PATH(s, ".content[%zu].file_data", at),
                             "input[%zu].content[%zu] needs file_data or file_url", s->index, at);
    }
    struct chat_part *part = add_part(s, CHAT_PART_FILE, value);
    part->filename = json_text(json_get(value, "filename"), NULL);
    if (!json_is(data, JSON_STRING)) {
        part->url = url->u.str.text;
        return PH_OK;
    }
    enum ph_status status = decode_media_url(s->d, data, part);
    if (status == PH_OK && part->url) { /* bare base64: what people send are PDFs */
        part->url = NULL;
        part->media_type = "application/pdf";
        part->data = text_of(data);
    }
    return status;
}

static enum ph_status take_audio(struct items *s, const struct json *value, size_t at)
{
    const struct json *audio = json_get(value, "input_audio"), *data = json_get(audio, "data");
    if (!json_is(data, JSON_STRING))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, ".content[%zu].input_audio.data", at),
                             "input[%zu].content[%zu].input_audio.data must be base64 text", s->index, at);
    struct chat_part *part = add_part(s, CHAT_PART_AUDIO, value);
    bool mp3 = json_text_is(json_get(audio, "format"), "mp3");
    part->media_type = mp3 ? "audio/mpeg" : "audio/wav";
    part->data = text_of(data);
    return PH_OK;
}

static enum ph_status take_text(struct items *s, const struct json *value, size_t at)
{
    const char *member = json_text_is(json_get(value, "type"), "refusal") ? "refusal" : "text";
    const struct json *text = json_get(value, member);
    if (!json_is(text, JSON_STRING))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, ".content[%zu].%s", at, member),
                             "input[%zu].content[%zu].%s must be a string", s->index, at, member);
    add_part(s, CHAT_PART_TEXT, value)->text = text_of(text);
    return PH_OK;
}

static enum ph_status take_part(struct items *s, const struct json *value, size_t at)
{
    static const struct {
        const char *type;
        enum ph_status (*take)(struct items *, const struct json *, size_t);
    } kinds[] = {{"input_text", take_text}, {"output_text", take_text},  {"text", take_text},
                 {"refusal", take_text},    {"input_image", take_image}, {"image_url", take_image},
                 {"input_file", take_file}, {"input_audio", take_audio}};
    const struct json *type = json_get(value, "type");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (json_text_is(type, kinds[i].type))
            return kinds[i].take(s, value, at);
    if (json_is(type, JSON_STRING))
        return decode_unable(s->d, ITEM_PATH(s, ".content[%zu].type", at),
                             "input[%zu].content[%zu] is of type \"%.40s\", which is not known here",
                             s->index, at, type->u.str.text);
    return DECODE_REFUSE(s->d, ITEM_PATH(s, ".content[%zu]", at),
                         "input[%zu].content[%zu] must be an object with a type", s->index, at);
}

/* `member`: content, or the output of a function. */
static enum ph_status take_content(struct items *s, const struct json *content, const char *member)
{
    enum ph_status status = PH_OK;
    size_t at = 0;
    if (json_is(content, JSON_STRING)) {
        add_part(s, CHAT_PART_TEXT, NULL)->text = text_of(content);
        return PH_OK;
    }
    if (!json_is(content, JSON_ARRAY))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, ".%s", member),
                             "input[%zu].%s must be a string or an array of parts, not %s", s->index, member,
                             decode_type_name(content));
    JSON_EACH (value, content) {
        if (status == PH_OK)
            status = take_part(s, value, at++);
    }
    return status;
}

/* ---- Items */

static enum ph_status take_message(struct items *s, const struct json *item)
{
    static const struct {
        const char *name;
        enum chat_role role;
    } roles[] = {{"user", CHAT_USER},
                 {"assistant", CHAT_ASSISTANT},
                 {"system", CHAT_SYSTEM},
                 {"developer", CHAT_DEVELOPER}};
    const struct json *role = json_get(item, "role");
    size_t i = 0;
    while (i < sizeof roles / sizeof roles[0] && !json_text_is(role, roles[i].name))
        i++;
    if (i == sizeof roles / sizeof roles[0])
        return DECODE_REFUSE(s->d, ITEM_PATH(s, "%s", ".role"),
                             "input[%zu].role is \"%.40s\"; it must be user, assistant, system or developer",
                             s->index, json_text(role, ""));
    bool grows = s->open && roles[i].role == CHAT_ASSISTANT &&
                 (last_message(s)->tool_call_count || !has_text(last_message(s)));
    if (!grows)
        begin_message(s, roles[i].role);
    return take_content(s, json_get(item, "content"), "content");
}

static enum ph_status take_call(struct items *s, const struct json *item)
{
    const struct json *name = json_get(item, "name"), *id = json_get(item, "call_id");
    bool custom = json_text_is(json_get(item, "type"), "custom_tool_call");
    const char *member = custom ? "input" : "arguments";
    const struct json *arguments = json_get(item, member);
    if (!json_is(name, JSON_STRING))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, "%s", ".name"), "input[%zu].name is missing", s->index);
    if (!json_is(id, JSON_STRING))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, "%s", ".call_id"), "input[%zu].call_id is missing", s->index);
    if (!json_is_absent(arguments) && !json_is(arguments, JSON_STRING))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, ".%s", member), "input[%zu].%s must be a string, not %s",
                             s->index, member, decode_type_name(arguments));
    struct chat_message *message = s->open ? last_message(s) : begin_message(s, CHAT_ASSISTANT);
    struct chat_tool_call *call = &s->calls[s->call_count++];
    call->id = id->u.str.text;
    call->name = name->u.str.text;
    call->custom = custom;
    call->arguments = (struct chat_text){custom ? "" : "{}", custom ? 0 : 2};
    if (!json_is_absent(arguments))
        call->arguments = text_of(arguments);
    message->tool_call_count++;
    return PH_OK;
}

static enum ph_status take_output(struct items *s, const struct json *item)
{
    const struct json *id = json_get(item, "call_id");
    if (!json_is(id, JSON_STRING))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, "%s", ".call_id"), "input[%zu].call_id is missing", s->index);
    begin_message(s, CHAT_TOOL)->tool_call_id = id->u.str.text;
    return take_content(s, json_get(item, "output"), "output");
}

/* A thought is its raw text, or summaries of it, or only a seal: then it has no text at all. */
static enum ph_status take_reasoning(struct items *s, const struct json *item)
{
    const char *seal = json_text(json_get(item, "encrypted_content"), NULL);
    const struct json *texts = json_get(item, "content");
    if (json_count(texts) == 0)
        texts = json_get(item, "summary");
    if (json_count(texts) == 0 && !seal)
        return PH_OK;
    if (!s->open || (has_text(last_message(s)) && !last_message(s)->tool_call_count))
        begin_message(s, CHAT_ASSISTANT);
    struct chat_part *part = NULL;
    JSON_EACH (value, texts) {
        const struct json *text = json_get(value, "text");
        if (!json_is(text, JSON_STRING))
            return DECODE_REFUSE(s->d, ITEM_PATH(s, "%s", ".summary"),
                                 "input[%zu]: a thought's parts must have text", s->index);
        part = add_part(s, CHAT_PART_REASONING, item);
        part->text = text_of(text);
    }
    if (!part)
        part = add_part(s, CHAT_PART_REASONING, item);
    part->signature = seal;
    return PH_OK;
}

static enum ph_status take_item(struct items *s, const struct json *item)
{
    static const struct {
        const char *type;
        enum ph_status (*take)(struct items *, const struct json *);
    } kinds[] = {{"message", take_message},
                 {"function_call", take_call},
                 {"function_call_output", take_output},
                 {"custom_tool_call", take_call},
                 {"custom_tool_call_output", take_output},
                 {"reasoning", take_reasoning}};
    const struct json *type = json_get(item, "type");
    if (!json_is(item, JSON_OBJECT))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, "%s", ""), "input[%zu] must be an object, not %s", s->index,
                             decode_type_name(item));
    if (chat_item_refers(item)) {
        s->d->out->refers = true;
        return PH_OK;
    }
    if (json_is_absent(type))
        return take_message(s, item);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (json_text_is(type, kinds[i].type))
            return kinds[i].take(s, item);
    if (json_text_is(type, "item_reference"))
        return DECODE_REFUSE(s->d, ITEM_PATH(s, "%s", ".id"), "input[%zu] refers to an item without its id",
                             s->index);
    return decode_unable(s->d, ITEM_PATH(s, "%s", ".type"),
                         "input[%zu] is of type \"%.40s\", which only OpenAI's own tools make", s->index,
                         json_text(type, "?"));
}

/* ---- The list */

/* I2 */
static size_t parts_of(const struct json *item)
{
    size_t count = 1;
    const char *const lists[] = {"content", "summary", "output"};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        count += json_count(json_get(item, lists[i]));
    return count;
}

static enum ph_status items_init(struct items *s, const struct json *input)
{
    size_t items = 2, parts = 2; /* instructions, and an input that is a string */
    JSON_EACH (item, input) {
        parts += parts_of(item);
        items++;
    }
    s->messages = arena_calloc(s->d->arena, items, sizeof *s->messages);
    s->parts = arena_calloc(s->d->arena, parts, sizeof *s->parts);
    s->calls = arena_calloc(s->d->arena, items, sizeof *s->calls);
    return s->messages && s->parts && s->calls ? PH_OK : decode_no_memory(s->d);
}

static enum ph_status take_input(struct items *s, const struct json *input)
{
    enum ph_status status = PH_OK;
    if (json_is(input, JSON_STRING)) {
        begin_message(s, CHAT_USER);
        add_part(s, CHAT_PART_TEXT, NULL)->text = text_of(input);
    }
    if (json_is(input, JSON_ARRAY))
        JSON_EACH (item, input) {
            if (status == PH_OK)
                status = take_item(s, item);
            s->index++;
        }
    return status;
}

static enum ph_status check_input(struct decoder *d, const struct json *input)
{
    if (json_is_absent(input))
        return DECODE_REFUSE(d, "input", "input is missing: give a string or an array of items");
    if (!json_is(input, JSON_STRING) && !json_is(input, JSON_ARRAY))
        return DECODE_REFUSE(d, "input", "input must be a string or an array of items, not %s",
                             decode_type_name(input));
    if (json_is(input, JSON_ARRAY) && json_count(input) == 0)
        return DECODE_REFUSE(d, "input", "input is empty: give at least one item");
    if (json_count(input) > CHAT_MESSAGES_MAX)
        return DECODE_REFUSE(d, "input", "input has %zu items; at most %d are accepted", json_count(input),
                             CHAT_MESSAGES_MAX);
    return PH_OK;
}

static enum ph_status decode_input(struct decoder *d)
{
    const struct json *input = json_get(d->body, "input"), *instructions = json_get(d->body, "instructions");
    struct items s = {.d = d};
    enum ph_status status = check_input(d, input);
    if (status == PH_OK && !json_is_absent(instructions) && !json_is(instructions, JSON_STRING))
        return DECODE_REFUSE(d, "instructions", "instructions must be a string, not %s",
                             decode_type_name(instructions));
    if (status == PH_OK)
        status = items_init(&s, input);
    if (status != PH_OK)
        return status;
    if (json_is(instructions, JSON_STRING) && instructions->u.str.len) {
        begin_message(&s, CHAT_SYSTEM);
        add_part(&s, CHAT_PART_TEXT, NULL)->text = text_of(instructions);
        d->out->instruction_count = 1;
    }
    status = take_input(&s, input);
    for (size_t i = 0; i < s.message_count && status == PH_OK; i++)
        status = join_text(&s, &s.messages[i]);
    if (status == PH_OK && s.message_count == 0 && !d->out->refers)
        return DECODE_REFUSE(d, "input", "input holds nothing to answer");
    d->out->messages = s.messages;
    d->out->message_count = s.message_count;
    return status;
}

enum ph_status responses_decode_items(struct arena *arena, const struct json *items, struct chat_request *out,
                                      struct chat_fault *fault)
{
    struct decoder d = {arena, NULL, out, fault};
    struct items s = {.d = &d};
    enum ph_status status = check_input(&d, items);
    if (status == PH_OK)
        status = items_init(&s, items);
    if (status == PH_OK)
        status = take_input(&s, items);
    for (size_t i = 0; i < s.message_count && status == PH_OK; i++)
        status = join_text(&s, &s.messages[i]);
    out->messages = s.messages;
    out->message_count = s.message_count;
    return status;
}

/* ---- The rest of the body */

static const struct scalar scalars[] = {
    {"model", SCALAR_TEXT, 0, 0, SCALAR_AT(model), 0, SCALAR_WRITTEN},
    {"safety_identifier", SCALAR_TEXT, 0, 0, SCALAR_AT(user), 0, SCALAR_WRITTEN},
    {"user", SCALAR_TEXT, 0, 0, SCALAR_AT(user), 0, SCALAR_WRITTEN},
    {"stream", SCALAR_BOOL, 0, 0, SCALAR_AT(stream), 0, SCALAR_WRITTEN},
    {"max_output_tokens", SCALAR_SIZE, 1, 1e9, SCALAR_AT(max_tokens), 0, SCALAR_WRITTEN},
    {"temperature", SCALAR_DOUBLE, 0, 2, SCALAR_AT(sampling.temperature), SCALAR_AT(sampling.has_temperature),
     SCALAR_WRITTEN},
    {"top_p", SCALAR_DOUBLE, 0, 1, SCALAR_AT(sampling.top_p), SCALAR_AT(sampling.has_top_p), SCALAR_WRITTEN},
    {"top_logprobs", SCALAR_SIZE, 0, ENGINE_LOGPROBS_MAX, SCALAR_AT(top_logprobs), 0, SCALAR_WRITTEN},
};

/* Format {"type", "name", "schema", ...} becomes {"type", "json_schema": {"name", "schema", ...}}. */
static enum ph_status decode_text(struct decoder *d)
{
    const struct json *text = NULL;
    enum ph_status status = decode_object(d, "text", &text);
    const struct json *format = json_get(text, "format"), *type = json_get(format, "type");
    if (status != PH_OK || json_is_absent(format) || json_text_is(type, "text"))
        return status;
    if (json_text_is(type, "json_object")) {
        d->out->response_format = format;
        return PH_OK;
    }
    if (!json_text_is(type, "json_schema"))
        return DECODE_REFUSE(d, "text.format.type",
                             "text.format.type is \"%.40s\"; it must be text, json_object or json_schema",
                             json_text(type, ""));
    if (!json_is(json_get(format, "schema"), JSON_OBJECT))
        return DECODE_REFUSE(d, "text.format.schema", "text.format.schema must be an object");
    struct json *outer = json_new(d->arena, JSON_OBJECT), *inner = json_copy(d->arena, format);
    if (!inner || !json_set(d->arena, outer, "type", json_copy(d->arena, type)))
        return decode_no_memory(d);
    json_remove(inner, "type");
    if (!json_set(d->arena, outer, "json_schema", inner))
        return decode_no_memory(d);
    d->out->response_format = outer;
    return PH_OK;
}

static enum ph_status decode_reasoning(struct decoder *d)
{
    const struct json *reasoning = NULL;
    enum ph_status status = decode_object(d, "reasoning", &reasoning);
    const struct json *effort = json_get(reasoning, "effort");
    if (status != PH_OK || json_is_absent(effort))
        return status;
    if (!json_is(effort, JSON_STRING))
        return DECODE_REFUSE(d, "reasoning.effort", "reasoning.effort must be a string, not %s",
                             decode_type_name(effort));
    d->out->reasoning_effort = effort->u.str.text;
    if (json_text_is(effort, "none"))
        d->out->reasoning_tokens = 0;
    return PH_OK;
}

static enum ph_status decode_include(struct decoder *d)
{
    const struct json *include = json_get(d->body, "include");
    if (!json_is_absent(include) && !json_is(include, JSON_ARRAY))
        return DECODE_REFUSE(d, "include", "include must be an array of strings, not %s",
                             decode_type_name(include));
    JSON_EACH (name, include) {
        if (json_text_is(name, "message.output_text.logprobs"))
            d->out->logprobs = true;
    }
    if (d->out->top_logprobs)
        d->out->logprobs = true;
    return PH_OK;
}

static enum ph_status decode_conversation(struct decoder *d)
{
    const struct json *conversation = json_get(d->body, "conversation");
    const struct json *id = json_is(conversation, JSON_OBJECT) ? json_get(conversation, "id") : conversation;
    enum ph_status status = decode_object(d, "metadata", &d->out->metadata);
    if (status != PH_OK)
        return status;
    d->out->conversation = json_text(json_get(d->out->metadata, "conversation_id"), NULL);
    if (json_is_absent(conversation))
        return PH_OK;
    if (!json_is(id, JSON_STRING))
        return DECODE_REFUSE(d, "conversation", "conversation must be an id or an object with an id");
    d->out->conversation = id->u.str.text;
    d->out->must_exist = true;
    return PH_OK;
}

/* Whether earlier replies are kept is the gateway's to say; prompts and work for later are not. */
static enum ph_status decode_kept(struct decoder *d)
{
    const struct json *previous = json_get(d->body, "previous_response_id");
    const struct json *store = json_get(d->body, "store");
    if (!json_is_absent(previous) && !json_is(previous, JSON_STRING))
        return DECODE_REFUSE(d, "previous_response_id", "previous_response_id must be a string, not %s",
                             decode_type_name(previous));
    if (!json_is_absent(previous) && !json_is_absent(json_get(d->body, "conversation")))
        return DECODE_REFUSE(d, "previous_response_id",
                             "previous_response_id and conversation cannot be given together");
    if (!json_is_absent(store) && !json_is_bool(store))
        return DECODE_REFUSE(d, "store", "store must be true or false, not %s", decode_type_name(store));
    d->out->previous_response = json_text(previous, NULL);
    d->out->unkept = json_is(store, JSON_FALSE);
    if (json_is(json_get(d->body, "background"), JSON_TRUE))
        return decode_unable(d, "background", "background: this station answers while you wait; use stream");
    if (!json_is_absent(json_get(d->body, "prompt")))
        return decode_unable(d, "prompt", "prompt: prompts are not kept here; send instructions and input");
    return PH_OK;
}

static enum ph_status decode_parallel(struct decoder *d)
{
    const struct json *parallel = json_get(d->body, "parallel_tool_calls");
    if (!json_is_absent(parallel) && !json_is_bool(parallel))
        return DECODE_REFUSE(d, "parallel_tool_calls", "parallel_tool_calls must be true or false, not %s",
                             decode_type_name(parallel));
    d->out->single_tool_call = json_is(parallel, JSON_FALSE);
    return PH_OK;
}

enum ph_status responses_decode(struct arena *arena, enum chat_kind kind, const struct json *body,
                                struct chat_request *out, struct chat_fault *fault)
{
    static enum ph_status (*const steps[])(struct decoder *) = {
        decode_kept,     decode_input,     decode_text,    responses_decode_tools,
        decode_parallel, decode_reasoning, decode_include, decode_conversation,
    };
    struct decoder d = {arena, body, out, fault};
    (void)kind; /* there are chats only */
    *out = (struct chat_request){.arena = arena,
                                 .kind = CHAT_KIND_CHAT,
                                 .dialect = CHAT_RESPONSES,
                                 .choices = 1,
                                 .reasoning_tokens = -1,
                                 .include_usage = true,
                                 .raw = body};
    if (!json_is(body, JSON_OBJECT))
        return DECODE_REFUSE(&d, NULL, "the body must be a JSON object, not %s", decode_type_name(body));
    enum ph_status status = decode_scalars(&d, scalars, sizeof scalars / sizeof scalars[0]);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && status == PH_OK; i++)
        status = steps[i](&d);
    return status;
}
