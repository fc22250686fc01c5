/* Chat requests to Google's Gemini: generateContent and streamGenerateContent.
 *
 * A conversation is there a list of contents of two roles, user and model, each a list of parts; system
 * messages are apart from it, wherever they stood; results of calls are parts of a user's content, and carry
 * the name of the function, which is looked up by the call's id. Messages of the same role that follow each
 * other become one content, because the results of one turn's calls must lie in one.
 *
 * Decisions:
 *  - Schemas go out as they came, as parametersJsonSchema and responseJsonSchema: the older members take a
 *    part of OpenAPI's dialect, and what a translation would have to drop ($ref, additionalProperties) the
 *    model then does not keep to.
 *  - A call's signature comes back through its id (gemini_seal.c). Calls that another provider made have
 *    none; for the turn that is under way, where Gemini 3 and later refuse a call without one, they get the
 *    word that Google documents for histories from elsewhere.
 *  - It does not go on from the beginning of an answer: that is documented nowhere, and models differ in
 *    whether they repeat it.
 *  - Thoughts stay here: the signatures say all that Gemini wants to know of them.
 *  - Thinking is a level from Gemini 3 on, a budget before, nothing before 2.5. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/gemini_int.h"

struct writer {
    struct arena *arena;
    const struct chat_request *request;
    const struct chat_target *target;
    struct chat_fault *fault;
    struct buf *out;
    int version;       /* of the model, 25 for 2.5; 0: not said by its name, -1: not a Gemini */
    size_t turn_begin; /* the first message behind the last one of the user */
};

static enum ph_status no_memory(struct writer *w)
{
    chat_fault_set(w->fault, 503, NULL, NULL, "the request needs more memory than one may take");
    return PH_ERR_NOMEM;
}

#define UNABLE(w, param, ...)                                              \
    (chat_fault_set((w)->fault, 400, "unsupported", (param), __VA_ARGS__), \
     (w)->fault->cause = CHAT_CAUSE_UNABLE, (enum ph_status)PH_ERR_UNSUPPORTED)

static void put_text(struct buf *out, const char *text)
{
    json_write_string(out, text, strlen(text));
}

/* {"a":1,"b":2}: writes what stands before a member's value. */
static void put_name(struct buf *out, const char *name)
{
    if (out->len && out->data[out->len - 1] != '{')
        buf_putc(out, ',');
    buf_printf(out, "\"%s\":", name);
}

/* Before an element of an array. */
static void put_comma(struct buf *out)
{
    if (out->len && out->data[out->len - 1] != '[')
        buf_putc(out, ',');
}

/* ---- Parts */

static void put_text_part(struct writer *w, struct chat_text text)
{
    if (text.len == 0)
        return; /* Gemini refuses empty ones */
    put_comma(w->out);
    buf_puts(w->out, "{\"text\":");
    json_write_string(w->out, text.text, text.len);
    buf_putc(w->out, '}');
}

/* Gemini wants to know what a medium is, also behind an address. */
static const char *media_type_of(const struct chat_part *part)
{
    static const char *const by_ending[][2] = {
        {".png", "image/png"},       {".jpg", "image/jpeg"},  {".jpeg", "image/jpeg"},
        {".webp", "image/webp"},     {".heic", "image/heic"}, {".gif", "image/gif"},
        {".pdf", "application/pdf"}, {".txt", "text/plain"},  {".md", "text/plain"},
        {".csv", "text/csv"},        {".html", "text/html"},  {".json", "application/json"},
        {".mp3", "audio/mpeg"},      {".wav", "audio/wav"},   {".ogg", "audio/ogg"},
        {".flac", "audio/flac"},     {".mp4", "video/mp4"},
    };
    const char *name = part->filename ? part->filename : (part->url ? part->url : "");
    size_t len = strcspn(name, "?#");
    if (part->media_type)
        return part->media_type;
    for (size_t i = 0; i < sizeof by_ending / sizeof by_ending[0]; i++) {
        size_t ending = strlen(by_ending[i][0]);
        if (len > ending && strncmp(name + len - ending, by_ending[i][0], ending) == 0)
            return by_ending[i][1];
    }
    if (part->kind == CHAT_PART_IMAGE)
        return "image/jpeg";
    return part->kind == CHAT_PART_AUDIO ? "audio/wav" : "application/pdf";
}

static void put_media_part(struct writer *w, const struct chat_part *part)
{
    put_comma(w->out);
    buf_printf(w->out, "{\"%s\":{\"mimeType\":", part->data.text ? "inlineData" : "fileData");
    put_text(w->out, media_type_of(part));
    buf_printf(w->out, ",\"%s\":", part->data.text ? "data" : "fileUri");
    if (part->data.text)
        json_write_string(w->out, part->data.text, part->data.len);
    else
        put_text(w->out, part->url);
    buf_puts(w->out, "}}");
}

static bool is_media(const struct chat_part *part)
{
    return part->kind == CHAT_PART_IMAGE || part->kind == CHAT_PART_AUDIO || part->kind == CHAT_PART_FILE;
}

/* All parts of a message, or its media only (what a tool's result cannot hold as text). */
static enum ph_status put_parts(struct writer *w, size_t index, bool media_only)
{
    const struct chat_message *message = &w->request->messages[index];
    if (message->part_count == 0 && !media_only)
        put_text_part(w, message->content);
    for (size_t i = 0; i < message->part_count; i++) {
        const struct chat_part *part = &message->parts[i];
        if (part->kind == CHAT_PART_TEXT && !media_only)
            put_text_part(w, part->text);
        else if (is_media(part) && (part->data.text || part->url))
            put_media_part(w, part);
        else if (part->kind == CHAT_PART_OTHER || is_media(part))
            return UNABLE(w, NULL, "messages[%zu].content[%zu] is of a kind that Gemini does not know", index,
                          i);
    }
    return PH_OK;
}

/* ---- Calls and their results */

static bool is_object(struct writer *w, struct chat_text text)
{
    struct json *json;
    return json_parse(w->arena, text.text, text.len, &json, NULL) == PH_OK && json_is(json, JSON_OBJECT);
}

/* Text that is to be an object: as it is, or as a member of one. */
static void put_object(struct writer *w, struct chat_text text, const char *member)
{
    if (text.len && is_object(w, text)) {
        buf_append(w->out, text.text, text.len);
        return;
    }
    buf_printf(w->out, "{\"%s\":", member);
    json_write_string(w->out, text.len ? text.text : "", text.len);
    buf_putc(w->out, '}');
}

static enum ph_status put_call(struct writer *w, size_t index, size_t at)
{
    const struct chat_tool_call *call = &w->request->messages[index].tool_calls[at];
    struct gemini_seal seal;
    if (gemini_unseal(w->arena, call->id ? call->id : "", &seal) != PH_OK)
        return no_memory(w);
    if (!seal.signature && at == 0 && index >= w->turn_begin && w->version >= 30)
        seal.signature = "skip_thought_signature_validator";
    put_comma(w->out);
    buf_puts(w->out, "{\"functionCall\":{");
    if (seal.id) {
        put_name(w->out, "id");
        put_text(w->out, seal.id);
    }
    put_name(w->out, "name");
    put_text(w->out, call->name);
    put_name(w->out, "args");
    if (call->arguments.len)
        put_object(w, call->arguments, "input");
    else
        buf_puts(w->out, "{}");
    buf_putc(w->out, '}');
    if (seal.signature) {
        put_name(w->out, "thoughtSignature");
        put_text(w->out, seal.signature);
    }
    buf_putc(w->out, '}');
    return PH_OK;
}

/* The function that a result belongs to: the newest call of that id before it. */
static const char *name_of_result(const struct writer *w, size_t index)
{
    const struct chat_message *result = &w->request->messages[index];
    for (size_t i = index; i > 0 && result->tool_call_id; i--) {
        const struct chat_message *message = &w->request->messages[i - 1];
        for (size_t k = 0; k < message->tool_call_count; k++)
            if (message->tool_calls[k].id && strcmp(message->tool_calls[k].id, result->tool_call_id) == 0)
                return message->tool_calls[k].name;
    }
    return result->name;
}

static enum ph_status put_result(struct writer *w, size_t index)
{
    const struct chat_message *result = &w->request->messages[index];
    const char *name = name_of_result(w, index);
    struct gemini_seal seal;
    if (!name) {
        chat_fault_set(
            w->fault, 400, NULL, "messages",
            "messages[%zu] is the result of the tool call \"%.60s\", which no message before it made", index,
            result->tool_call_id ? result->tool_call_id : "");
        return PH_ERR_ARG;
    }
    if (gemini_unseal(w->arena, result->tool_call_id ? result->tool_call_id : "", &seal) != PH_OK)
        return no_memory(w);
    put_comma(w->out);
    buf_puts(w->out, "{\"functionResponse\":{");
    if (seal.id) {
        put_name(w->out, "id");
        put_text(w->out, seal.id);
    }
    put_name(w->out, "name");
    put_text(w->out, name);
    put_name(w->out, "response");
    if (result->tool_failed) {
        buf_puts(w->out, "{\"error\":");
        json_write_string(w->out, result->content.len ? result->content.text : "", result->content.len);
        buf_putc(w->out, '}');
    } else {
        put_object(w, result->content, "output");
    }
    buf_puts(w->out, "}}");
    return put_parts(w, index, true);
}

/* ---- Contents */

enum side { SIDE_NONE, SIDE_SYSTEM, SIDE_USER, SIDE_RESULTS, SIDE_MODEL };

static bool says_nothing(const struct chat_message *message)
{
    for (size_t i = 0; i < message->part_count; i++)
        if (message->parts[i].kind != CHAT_PART_REASONING &&
            (message->parts[i].kind != CHAT_PART_TEXT || message->parts[i].text.len))
            return false;
    return message->tool_call_count == 0 && (message->part_count || message->content.len == 0);
}

static enum side side_of(const struct chat_message *message)
{
    switch (message->role) {
    case CHAT_SYSTEM:
    case CHAT_DEVELOPER:
        return SIDE_SYSTEM;
    case CHAT_TOOL:
        return SIDE_RESULTS;
    case CHAT_ASSISTANT:
        return says_nothing(message) ? SIDE_NONE : SIDE_MODEL; /* a content without parts is refused */
    default:
        return SIDE_USER;
    }
}

static enum ph_status put_message(struct writer *w, size_t index)
{
    const struct chat_message *message = &w->request->messages[index];
    if (message->role == CHAT_TOOL)
        return put_result(w, index);
    if (message->role == CHAT_USER && says_nothing(message))
        put_text_part(w, (struct chat_text){" ", 1});
    enum ph_status status = put_parts(w, index, false);
    for (size_t i = 0; i < message->tool_call_count && status == PH_OK; i++)
        status = put_call(w, index, i);
    return status;
}

static void open_content(struct writer *w, enum side side)
{
    put_comma(w->out);
    buf_printf(w->out, "{\"role\":\"%s\",\"parts\":[", side == SIDE_MODEL ? "model" : "user");
}

/* `system_too`: there is nothing but system messages; then they are what is asked. */
static enum ph_status put_contents(struct writer *w, bool system_too)
{
    enum side open = SIDE_NONE;
    enum ph_status status = PH_OK;
    put_name(w->out, "contents");
    buf_putc(w->out, '[');
    for (size_t i = 0; i < w->request->message_count && status == PH_OK; i++) {
        enum side side = side_of(&w->request->messages[i]);
        if (side == SIDE_NONE || (side == SIDE_SYSTEM && !system_too))
            continue;
        if (side != open) {
            buf_puts(w->out, open == SIDE_NONE ? "" : "]}");
            open_content(w, side);
        }
        open = side;
        status = put_message(w, i);
    }
    buf_puts(w->out, open == SIDE_NONE ? "]" : "]}]");
    return status;
}

static enum ph_status put_system(struct writer *w)
{
    enum ph_status status = PH_OK;
    put_name(w->out, "systemInstruction");
    buf_puts(w->out, "{\"parts\":[");
    for (size_t i = 0; i < w->request->message_count && status == PH_OK; i++)
        if (side_of(&w->request->messages[i]) == SIDE_SYSTEM)
            status = put_parts(w, i, false);
    buf_puts(w->out, "]}");
    return status;
}

static enum ph_status put_messages(struct writer *w)
{
    size_t counts[SIDE_MODEL + 1] = {0};
    for (size_t i = 0; i < w->request->message_count; i++) {
        counts[side_of(&w->request->messages[i])]++;
        if (w->request->messages[i].role == CHAT_USER)
            w->turn_begin = i + 1;
    }
    size_t said = counts[SIDE_USER] + counts[SIDE_RESULTS] + counts[SIDE_MODEL];
    enum ph_status status = put_contents(w, said == 0);
    if (status == PH_OK && counts[SIDE_SYSTEM] && said)
        status = put_system(w);
    return status;
}

/* ---- Tools */

static void put_member(struct buf *out, const char *name, const struct json *value)
{
    if (json_is_absent(value))
        return;
    put_name(out, name);
    json_write(out, value);
}

static enum ph_status put_tools(struct writer *w)
{
    size_t index = 0;
    put_name(w->out, "tools");
    buf_puts(w->out, "[{\"functionDeclarations\":[");
    JSON_EACH (tool, w->request->tools) {
        const struct json *function = json_get(tool, "function");
        if (!json_is(function, JSON_OBJECT))
            return UNABLE(w, NULL, "tools[%zu] is a \"%.40s\" tool; Gemini is given function tools only",
                          index, json_text(json_get(tool, "type"), "?"));
        index++;
        put_comma(w->out);
        buf_putc(w->out, '{');
        put_member(w->out, "name", json_get(function, "name"));
        put_member(w->out, "description", json_get(function, "description"));
        put_member(w->out, "parametersJsonSchema", json_get(function, "parameters"));
        buf_putc(w->out, '}');
    }
    buf_puts(w->out, "]}]");
    return PH_OK;
}

static void put_allowed(struct writer *w, const struct json *tools)
{
    buf_puts(w->out, ",\"allowedFunctionNames\":[");
    JSON_EACH (tool, tools) {
        const struct json *name = json_get(json_get(tool, "function"), "name");
        if (!json_is(name, JSON_STRING))
            continue;
        put_comma(w->out);
        json_write(w->out, name);
    }
    buf_putc(w->out, ']');
}

static void put_tool_choice(struct writer *w)
{
    const struct json *choice = w->request->tool_choice, *some = json_get(choice, "allowed_tools");
    bool named = json_is(json_get(choice, "function"), JSON_OBJECT);
    bool must = json_text_is(choice, "required") || named || json_text_is(json_get(some, "mode"), "required");
    if (!must && !some)
        return; /* automatic is how it is when nothing is said */
    put_name(w->out, "toolConfig");
    buf_printf(w->out, "{\"functionCallingConfig\":{\"mode\":\"%s\"", must ? "ANY" : "VALIDATED");
    if (some)
        put_allowed(w, json_get(some, "tools"));
    if (named) {
        buf_puts(w->out, ",\"allowedFunctionNames\":[");
        put_text(w->out, json_text(json_get(json_get(choice, "function"), "name"), ""));
        buf_putc(w->out, ']');
    }
    buf_puts(w->out, "}}");
}

/* ---- How to answer */

static void put_number(struct buf *out, const char *name, double value)
{
    put_name(out, name);
    json_write_double(out, value);
}

static void put_count(struct buf *out, const char *name, uint64_t value)
{
    put_name(out, name);
    buf_printf(out, "%llu", (unsigned long long)value);
}

static void put_sampling(struct writer *w)
{
    const struct chat_sampling *s = &w->request->sampling;
    if (s->has_temperature)
        put_number(w->out, "temperature", s->temperature);
    if (s->has_top_p)
        put_number(w->out, "topP", s->top_p);
    if (s->has_top_k && s->top_k > 0)
        put_count(w->out, "topK", (uint64_t)s->top_k);
    if (s->frequency_penalty != 0)
        put_number(w->out, "frequencyPenalty", s->frequency_penalty);
    if (s->presence_penalty != 0)
        put_number(w->out, "presencePenalty", s->presence_penalty);
    if (s->has_seed) /* theirs has 32 bits with a sign */
        put_count(w->out, "seed", (s->seed ^ s->seed >> 32) & 0x7FFFFFFF);
}

static void put_limits(struct writer *w)
{
    const struct chat_request *request = w->request;
    if (request->max_tokens)
        put_count(w->out, "maxOutputTokens", request->max_tokens);
    if (request->choices > 1)
        put_count(w->out, "candidateCount", request->choices);
    if (request->stop_count) {
        put_name(w->out, "stopSequences");
        buf_putc(w->out, '[');
        for (size_t i = 0; i < request->stop_count; i++) {
            put_comma(w->out);
            json_write_string(w->out, request->stops[i].text, request->stops[i].len);
        }
        buf_putc(w->out, ']');
    }
    if (request->logprobs) {
        put_name(w->out, "responseLogprobs");
        buf_puts(w->out, "true");
        if (request->top_logprobs)
            put_count(w->out, "logprobs", request->top_logprobs);
    }
}

static void put_format(struct writer *w)
{
    const struct json *format = w->request->response_format;
    const struct json *schema = json_get(json_get(format, "json_schema"), "schema");
    if (!json_text_is(json_get(format, "type"), "json_object") && !schema)
        return;
    put_name(w->out, "responseMimeType");
    buf_puts(w->out, "\"application/json\"");
    put_member(w->out, "responseJsonSchema", schema);
}

/* Google's own table for the words of OpenAI. Gemini 3 cannot be kept from thinking; it can think little. */
static const struct effort {
    const char *name, *level;
    int64_t budget;
} efforts[] = {
    {"none", "low", 0},      {"minimal", "low", 1024}, {"low", "low", 1024},   {"medium", "medium", 8192},
    {"high", "high", 24576}, {"xhigh", "high", 24576}, {"max", "high", 24576},
};

static const char *level_of_budget(int64_t tokens)
{
    if (tokens <= 4096)
        return "low";
    return tokens <= 16384 ? "medium" : "high";
}

/* What every model of 2.5 takes; the pro ones cannot be kept from thinking. */
static int64_t fitting_budget(const struct writer *w, int64_t budget)
{
    if (budget == 0)
        return strstr(w->target->model, "pro") ? 128 : 0;
    return budget < 512 ? 512 : (budget > 24576 ? 24576 : budget);
}

/* The first pro of Gemini 3 knows two levels only. */
static const char *fitting_level(const struct writer *w, const char *level)
{
    bool two = w->version == 30 && strstr(w->target->model, "pro");
    return two && strcmp(level, "medium") == 0 ? "high" : level;
}

static void put_thinking(struct writer *w)
{
    const struct effort *effort = NULL;
    for (size_t i = 0; i < sizeof efforts / sizeof efforts[0] && w->request->reasoning_effort; i++)
        if (strcmp(w->request->reasoning_effort, efforts[i].name) == 0)
            effort = &efforts[i];
    int64_t budget =
        w->request->reasoning_tokens >= 0 || !effort ? w->request->reasoning_tokens : effort->budget;
    if (budget < 0 || w->version < 0 || (w->version > 0 && w->version < 25))
        return;
    const char *level = effort ? effort->level : level_of_budget(budget);
    put_name(w->out, "thinkingConfig");
    buf_printf(w->out, "{\"includeThoughts\":%s", budget > 0 ? "true" : "false");
    if (w->version >= 30)
        buf_printf(w->out, ",\"thinkingLevel\":\"%s\"}", fitting_level(w, level));
    else
        buf_printf(w->out, ",\"thinkingBudget\":%lld}", (long long)fitting_budget(w, budget));
}

static void put_config(struct writer *w)
{
    put_name(w->out, "generationConfig");
    buf_putc(w->out, '{');
    put_sampling(w);
    put_limits(w);
    put_format(w);
    put_thinking(w);
    buf_putc(w->out, '}');
}

/* ---- The post */

/* "gemini-2.5-flash" is 25, "models/gemini-3-pro-preview" 30, "gemini-flash-latest" 0, "gemma-3" -1. */
static int version_of(const char *model)
{
    const char *name = strstr(model, "gemini");
    char *end;
    if (!name)
        return -1;
    if (strncmp(name, "gemini-", 7) != 0 || name[7] < '0' || name[7] > '9')
        return 0;
    long major = strtol(name + 7, &end, 10);
    long minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
    return major < 100 && minor >= 0 && minor < 10 ? (int)(major * 10 + minor) : 0;
}

static enum ph_status put_body(struct writer *w)
{
    buf_putc(w->out, '{');
    enum ph_status status = put_messages(w);
    if (status != PH_OK)
        return status;
    if (json_count(w->request->tools)) {
        status = put_tools(w);
        if (status != PH_OK)
            return status;
        put_tool_choice(w);
    }
    put_config(w);
    buf_putc(w->out, '}');
    if (buf_status(w->out) == PH_ERR_LIMIT)
        return UNABLE(w, NULL, "the request is longer than %d bytes in Gemini's form", CHAT_PROMPT_BYTES_MAX);
    return buf_status(w->out) == PH_OK ? PH_OK : no_memory(w);
}

static bool is_url_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("-._~/", c));
}

/* A name with a folder ("tunedModels/x") says itself where it lies. */
static const char *make_url(struct writer *w)
{
    const char *model = w->target->model;
    const char *method = w->request->stream ? ":streamGenerateContent?alt=sse" : ":generateContent";
    struct buf url;
    buf_init(&url, HTTP_TARGET_BYTES_MAX);
    buf_printf(&url, "%s/%s", w->target->base_url, strchr(model, '/') ? "" : "models/");
    for (const char *c = model; *c; c++)
        if (is_url_char(*c))
            buf_putc(&url, *c);
        else
            buf_printf(&url, "%%%02X", (unsigned char)*c);
    buf_puts(&url, method);
    const char *copy = buf_status(&url) == PH_OK ? arena_strndup(w->arena, url.data, url.len) : NULL;
    buf_release(&url);
    return copy;
}

static void release_body(void *ud)
{
    buf_release(ud);
}

enum ph_status gemini_encode(struct arena *arena, const struct chat_request *request,
                             const struct chat_target *target, struct chat_post *out,
                             struct chat_fault *fault)
{
    struct writer w = {.arena = arena, .request = request, .target = target, .fault = fault};
    w.version = version_of(target->model);
    if (request->kind != CHAT_KIND_CHAT)
        return UNABLE(&w, NULL, "Gemini answers chats only, not bare prompts");
    if (request->continue_final_message)
        return UNABLE(&w, "continue_final_message", "Gemini does not go on from the beginning of an answer");
    const char *url = make_url(&w);
    w.out = arena_alloc(arena, sizeof *w.out);
    if (!url || !w.out)
        return no_memory(&w);
    buf_init(w.out, CHAT_PROMPT_BYTES_MAX);
    if (arena_on_release(arena, release_body, w.out) != 0)
        return no_memory(&w);
    enum ph_status status = put_body(&w);
    if (status != PH_OK)
        return status;
    *out = (struct chat_post){.url = url, .body = w.out->data, .body_len = w.out->len};
    out->headers[out->header_count++] = (struct chat_header){"content-type", "application/json"};
    if (target->key)
        out->headers[out->header_count++] = (struct chat_header){"x-goog-api-key", target->key};
    return PH_OK;
}
