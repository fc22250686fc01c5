/* Messages and prompts in OpenAI's shape, from the struct.
 *
 * Used where the client spoke another dialect, or where the messages were changed; a message that still is
 * what an OpenAI client sent goes as it came. The rest is written for the many engines that speak this API
 * and know its old core: the role system instead of developer, text as a string unless there are media.
 *
 * What the dialect cannot say: thoughts are left out. An image in a tool's result is shown by the user right
 * after the results, because a tool message is text only. A file by its URL, a sound by its URL, and parts
 * that only another dialect knows are refused with cause UNABLE: the answer would be about less than was
 * asked. */
#include <stdio.h>
#include <string.h>

#include "chat/openai_int.h"

/* Longer ids of calls are refused with status 400. Those that carry another provider's seal are longer. */
#define CALL_ID_BYTES_MAX 40

struct builder {
    struct arena *arena;
    const struct chat_request *request;
    struct json *list;  /* of messages */
    struct json *shown; /* media of tool results, waiting for the last of these results; NULL: none */
    struct chat_fault *fault;
    bool failed; /* out of memory */
};

/* The text is not copied: it lives as long as the request. */
struct json *openai_text(struct arena *arena, struct chat_text text)
{
    struct json *node = json_new(arena, JSON_NULL);
    if (!node)
        return NULL;
    node->type = JSON_STRING;
    node->u.str.text = text.len ? text.text : "";
    node->u.str.len = text.len;
    return node;
}

static struct json *word(struct builder *b, const char *text)
{
    return openai_text(b->arena, (struct chat_text){text, strlen(text)});
}

static struct json *object(struct builder *b)
{
    struct json *node = json_new(b->arena, JSON_OBJECT);
    b->failed = b->failed || !node;
    return node;
}

static void put(struct builder *b, struct json *into, const char *name, struct json *value)
{
    if (!json_set(b->arena, into, name, value))
        b->failed = true;
}

static void push(struct builder *b, struct json *list, struct json *value)
{
    if (!json_push(list, value))
        b->failed = true;
}

/* ---- Ids of calls */

static bool is_long(const char *id)
{
    return id && strlen(id) > CALL_ID_BYTES_MAX;
}

static bool has_long_id(const struct chat_message *m)
{
    bool found = is_long(m->tool_call_id);
    for (size_t i = 0; i < m->tool_call_count; i++)
        found = found || is_long(m->tool_calls[i].id);
    return found;
}

bool openai_ids_fit(const struct chat_request *request)
{
    for (size_t i = 0; i < request->message_count; i++)
        if (has_long_id(&request->messages[i]))
            return false;
    return true;
}

/* A long one becomes the same short one wherever it stands. */
static struct json *call_id(struct builder *b, const char *id)
{
    if (!is_long(id))
        return word(b, id ? id : "");
    uint64_t hash = 0xCBF29CE484222325u;
    for (const char *c = id; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001B3u; /* FNV-1a */
    char text[32];
    snprintf(text, sizeof text, "call_%016llx", (unsigned long long)hash);
    return json_new_string(b->arena, text, strlen(text));
}

/* ---- Parts */

static enum ph_status unable(struct builder *b, const char *what)
{
    chat_fault_set(b->fault, 400, "unsupported_content", "messages",
                   "%s cannot be sent to a provider that speaks OpenAI's API", what);
    b->fault->cause = CHAT_CAUSE_UNABLE;
    return PH_ERR_UNSUPPORTED;
}

static struct json *media_url(struct builder *b, const struct chat_part *part)
{
    if (part->url)
        return word(b, part->url);
    static const char mid[] = ";base64,";
    const char *type = part->media_type ? part->media_type : "application/octet-stream";
    size_t type_len = strlen(type), head = 5 + type_len + sizeof mid - 1;
    char *text = arena_alloc(b->arena, head + part->data.len + 1);
    if (!text) {
        b->failed = true;
        return NULL;
    }
    memcpy(text, "data:", 5);
    memcpy(text + 5, type, type_len);
    memcpy(text + 5 + type_len, mid, sizeof mid - 1);
    if (part->data.len)
        memcpy(text + head, part->data.text, part->data.len);
    text[head + part->data.len] = 0;
    return openai_text(b->arena, (struct chat_text){text, head + part->data.len});
}

static enum ph_status build_text(struct builder *b, const struct chat_part *part, struct json *out)
{
    put(b, out, "type", word(b, "text"));
    put(b, out, "text", openai_text(b->arena, part->text));
    return PH_OK;
}

static enum ph_status build_image(struct builder *b, const struct chat_part *part, struct json *out)
{
    struct json *image = object(b);
    put(b, image, "url", media_url(b, part));
    if (part->detail)
        put(b, image, "detail", word(b, part->detail));
    put(b, out, "type", word(b, "image_url"));
    put(b, out, "image_url", image);
    return PH_OK;
}

static enum ph_status build_audio(struct builder *b, const struct chat_part *part, struct json *out)
{
    const char *type = part->media_type ? part->media_type : "";
    const char *slash = strchr(type, '/');
    if (!part->data.text || !slash)
        return unable(b, "sound without its data");
    struct json *audio = object(b);
    put(b, audio, "data", openai_text(b->arena, part->data));
    put(b, audio, "format", word(b, strcmp(slash + 1, "mpeg") == 0 ? "mp3" : slash + 1));
    put(b, out, "type", word(b, "input_audio"));
    put(b, out, "input_audio", audio);
    return PH_OK;
}

static enum ph_status build_file(struct builder *b, const struct chat_part *part, struct json *out)
{
    if (!part->data.text)
        return unable(b, "a file by its address");
    struct json *file = object(b);
    put(b, file, "filename", word(b, part->filename ? part->filename : "file.pdf")); /* one is needed */
    put(b, file, "file_data", media_url(b, part));
    put(b, out, "type", word(b, "file"));
    put(b, out, "file", file);
    return PH_OK;
}

static enum ph_status build_other(struct builder *b, const struct chat_part *part, struct json *out)
{
    (void)out;
    return unable(b, json_text(json_get(part->raw, "type"), "this content"));
}

static enum ph_status build_part(struct builder *b, const struct chat_part *part, struct json *list)
{
    static enum ph_status (*const builders[])(struct builder *, const struct chat_part *,
                                              struct json *) = {[CHAT_PART_TEXT] = build_text,
                                                                [CHAT_PART_IMAGE] = build_image,
                                                                [CHAT_PART_AUDIO] = build_audio,
                                                                [CHAT_PART_FILE] = build_file,
                                                                [CHAT_PART_OTHER] = build_other};
    if (part->kind == CHAT_PART_REASONING)
        return PH_OK;
    if (b->request->dialect == CHAT_OPENAI && part->raw) {
        push(b, list, json_share(b->arena, part->raw));
        return PH_OK;
    }
    struct json *out = object(b);
    enum ph_status status = builders[part->kind](b, part, out);
    push(b, list, out);
    return status;
}

static bool is_media(const struct chat_part *part)
{
    return part->kind != CHAT_PART_TEXT && part->kind != CHAT_PART_REASONING;
}

static bool has_media(const struct chat_message *message)
{
    for (size_t i = 0; i < message->part_count; i++)
        if (is_media(&message->parts[i]))
            return true;
    return false;
}

/* ---- Messages */

static enum ph_status build_parts(struct builder *b, const struct chat_message *m, struct json *out)
{
    struct json *parts = json_new(b->arena, JSON_ARRAY);
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < m->part_count && status == PH_OK; i++)
        status = build_part(b, &m->parts[i], parts);
    put(b, out, "content", parts);
    return status;
}

static enum ph_status build_content(struct builder *b, const struct chat_message *m, struct json *out)
{
    if (m->role != CHAT_TOOL && has_media(m))
        return build_parts(b, m, out);
    bool none = !m->content.text && m->tool_call_count;
    put(b, out, "content", none ? json_new(b->arena, JSON_NULL) : openai_text(b->arena, m->content));
    return PH_OK;
}

static struct json *build_call(struct builder *b, const struct chat_tool_call *call)
{
    const char *type = call->custom ? "custom" : "function";
    struct json *inside = object(b), *out = object(b);
    put(b, inside, "name", word(b, call->name));
    put(b, inside, call->custom ? "input" : "arguments", openai_text(b->arena, call->arguments));
    put(b, out, "id", call_id(b, call->id));
    put(b, out, "type", word(b, type));
    put(b, out, type, inside);
    return out;
}

static void build_calls(struct builder *b, const struct chat_message *m, struct json *out)
{
    struct json *calls = m->tool_call_count ? json_new(b->arena, JSON_ARRAY) : NULL;
    for (size_t i = 0; i < m->tool_call_count; i++)
        push(b, calls, build_call(b, &m->tool_calls[i]));
    if (calls)
        put(b, out, "tool_calls", calls);
}

static enum ph_status keep_media(struct builder *b, const struct chat_message *m)
{
    enum ph_status status = PH_OK;
    if (m->role != CHAT_TOOL || !has_media(m))
        return PH_OK;
    if (!b->shown)
        b->shown = json_new(b->arena, JSON_ARRAY);
    for (size_t i = 0; i < m->part_count && status == PH_OK; i++)
        if (is_media(&m->parts[i]))
            status = build_part(b, &m->parts[i], b->shown);
    return status;
}

/* Every result of a message's calls comes before anything else. */
static void show_media(struct builder *b)
{
    if (!b->shown)
        return;
    struct json *out = object(b);
    put(b, out, "role", word(b, "user"));
    put(b, out, "content", b->shown);
    push(b, b->list, out);
    b->shown = NULL;
}

/* As it came, but for ids that are too long. */
static struct json *raw_message(struct builder *b, const struct chat_message *m)
{
    struct json *out = json_share(b->arena, m->raw);
    if (is_long(m->tool_call_id))
        put(b, out, "tool_call_id", call_id(b, m->tool_call_id));
    if (has_long_id(m))
        build_calls(b, m, out);
    return out;
}

static enum ph_status build_message(struct builder *b, const struct chat_message *m)
{
    static const char *const roles[] = {[CHAT_SYSTEM] = "system",
                                        [CHAT_DEVELOPER] = "system",
                                        [CHAT_USER] = "user",
                                        [CHAT_ASSISTANT] = "assistant",
                                        [CHAT_TOOL] = "tool"};
    if (m->role != CHAT_TOOL)
        show_media(b);
    if (b->request->dialect == CHAT_OPENAI && m->raw) {
        push(b, b->list, raw_message(b, m));
        return PH_OK;
    }
    struct json *out = object(b);
    put(b, out, "role", word(b, roles[m->role]));
    enum ph_status status = build_content(b, m, out);
    if (status == PH_OK)
        status = keep_media(b, m);
    if (m->name && m->role != CHAT_TOOL)
        put(b, out, "name", word(b, m->name));
    if (m->role == CHAT_TOOL)
        put(b, out, "tool_call_id", call_id(b, m->tool_call_id));
    build_calls(b, m, out);
    push(b, b->list, out);
    return status;
}

enum ph_status openai_messages(struct arena *arena, const struct chat_request *request, struct json **out,
                               struct chat_fault *fault)
{
    struct builder b = {.arena = arena, .request = request, .fault = fault};
    enum ph_status status = PH_OK;
    *out = b.list = json_new(arena, JSON_ARRAY);
    for (size_t i = 0; i < request->message_count && status == PH_OK; i++)
        status = build_message(&b, &request->messages[i]);
    show_media(&b);
    return status == PH_OK && b.failed ? PH_ERR_NOMEM : status;
}

/* ---- Prompts */

static struct json *build_prompt(struct arena *arena, const struct chat_prompt *prompt)
{
    if (!prompt->ids)
        return openai_text(arena, prompt->text);
    struct json *list = json_new(arena, JSON_ARRAY);
    for (size_t i = 0; i < prompt->id_count && list; i++)
        if (!json_push(list, json_new_int(arena, prompt->ids[i])))
            return NULL;
    return list;
}

enum ph_status openai_prompt_list(struct arena *arena, const struct chat_prompt *prompts, size_t count,
                                  struct json **out)
{
    if (count == 1 && !(prompts->ids && prompts->id_count == 0)) { /* [] alone would be no prompt */
        *out = build_prompt(arena, prompts);
        return *out ? PH_OK : PH_ERR_NOMEM;
    }
    *out = json_new(arena, JSON_ARRAY);
    for (size_t i = 0; i < count && *out; i++)
        if (!json_push(*out, build_prompt(arena, &prompts[i])))
            return PH_ERR_NOMEM;
    return *out ? PH_OK : PH_ERR_NOMEM;
}
