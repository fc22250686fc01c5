/* OpenAI bodies into chat requests.
 *
 * Method: scalars are rows of a table (name, kind, range, place in the request); what has structure
 * (messages, prompt, stop, logit_bias, tools) has a function each. Clients send unknown members and nulls all
 * the time: both are as if absent. A known member of the wrong type or range is a fault that names it;
 * nothing is guessed, because a misread limit costs money.
 *
 * What is well-formed but cannot be done (a JSON response format, a suffix) is decoded here and refused by
 * the provider that cannot do it: another one may. The one exception is content that struct chat_message
 * cannot hold, images and sounds.
 *
 * Texts point into the body's document where they are used as they came, so `arena` must be the document's.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat_int.h"

struct decoder {
    struct arena *arena;
    const struct json *body;
    struct chat_request *out;
    struct chat_fault *fault;
};

/* ---- Faults */

static const char *path(struct decoder *d, const char *fmt, ...) PH_PRINTF(2, 3);
static const char *path(struct decoder *d, const char *fmt, ...)
{
    char text[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return arena_strdup(d->arena, text);
}

#define REFUSE(d, param, ...) \
    (chat_fault_set((d)->fault, 400, NULL, (param), __VA_ARGS__), (enum ph_status)PH_ERR_ARG)

static enum ph_status no_memory(struct decoder *d)
{
    chat_fault_set(d->fault, 503, NULL, NULL, "the request needs more memory than one may take");
    return PH_ERR_NOMEM;
}

/* "a string", for messages. */
static const char *type_name(const struct json *value)
{
    static const char *const names[] = {"null",     "a boolean", "a boolean", "a number",
                                        "a string", "an array",  "an object"};
    return names[value ? value->type : JSON_NULL];
}

static struct chat_text text_of(const struct json *string)
{
    return (struct chat_text){string->u.str.text, string->u.str.len};
}

/* ---- Scalars */

enum scalar_kind { SCALAR_BOOL, SCALAR_DOUBLE, SCALAR_SIZE, SCALAR_INT, SCALAR_TEXT };

struct scalar {
    const char *name;
    enum scalar_kind kind;
    double min, max;
    size_t offset;
    size_t given_offset; /* of a bool that is set when the value is there; 0: none (no bool sits there) */
};

#define AT(member) offsetof(struct chat_request, member)

/* Later rows win where two names share a place. */
static const struct scalar scalars[] = {
    {"model", SCALAR_TEXT, 0, 0, AT(model), 0},
    {"user", SCALAR_TEXT, 0, 0, AT(user), 0},
    {"stream", SCALAR_BOOL, 0, 0, AT(stream), 0},
    {"ignore_eos", SCALAR_BOOL, 0, 0, AT(ignore_end), 0},
    {"n", SCALAR_SIZE, 1, CHAT_CHOICES_MAX, AT(choices), 0},
    {"max_tokens", SCALAR_SIZE, 1, 1e9, AT(max_tokens), 0},
    {"max_completion_tokens", SCALAR_SIZE, 1, 1e9, AT(max_tokens), 0},
    {"temperature", SCALAR_DOUBLE, 0, 2, AT(sampling.temperature), AT(sampling.has_temperature)},
    {"top_p", SCALAR_DOUBLE, 0, 1, AT(sampling.top_p), AT(sampling.has_top_p)},
    {"min_p", SCALAR_DOUBLE, 0, 1, AT(sampling.min_p), AT(sampling.has_min_p)},
    {"top_k", SCALAR_INT, -1, 1e9, AT(sampling.top_k), AT(sampling.has_top_k)},
    {"repeat_penalty", SCALAR_DOUBLE, 0.01, 100, AT(sampling.repeat_penalty),
     AT(sampling.has_repeat_penalty)},
    {"repetition_penalty", SCALAR_DOUBLE, 0.01, 100, AT(sampling.repeat_penalty),
     AT(sampling.has_repeat_penalty)},
    {"frequency_penalty", SCALAR_DOUBLE, -2, 2, AT(sampling.frequency_penalty), 0},
    {"presence_penalty", SCALAR_DOUBLE, -2, 2, AT(sampling.presence_penalty), 0},
    {"seed", SCALAR_INT, -9.3e18, 9.3e18, AT(sampling.seed), AT(sampling.has_seed)},
};

static const struct scalar chat_scalars[] = {
    {"logprobs", SCALAR_BOOL, 0, 0, AT(logprobs), 0},
    {"top_logprobs", SCALAR_SIZE, 0, ENGINE_LOGPROBS_MAX, AT(top_logprobs), 0},
    {"continue_final_message", SCALAR_BOOL, 0, 0, AT(continue_final_message), 0},
};

static const struct scalar completion_scalars[] = {
    {"echo", SCALAR_BOOL, 0, 0, AT(echo), 0},
    {"logprobs", SCALAR_SIZE, 0, ENGINE_LOGPROBS_MAX, AT(top_logprobs), AT(logprobs)},
};

static enum ph_status decode_integer(struct decoder *d, const struct scalar *row, const struct json *value,
                                     int64_t *out)
{
    if (!json_is(value, JSON_NUMBER) || !json_to_int64(value, out))
        return REFUSE(d, row->name, "%s must be an integer%s%s", row->name,
                      json_is(value, JSON_NUMBER) ? "" : ", not ",
                      json_is(value, JSON_NUMBER) ? "" : type_name(value));
    if ((double)*out < row->min || (double)*out > row->max)
        return REFUSE(d, row->name, "%s is %lld; it must be from %.0f to %.0f", row->name, (long long)*out,
                      row->min, row->max);
    return PH_OK;
}

static enum ph_status decode_double(struct decoder *d, const struct scalar *row, const struct json *value,
                                    double *out)
{
    if (!json_to_double(value, out))
        return REFUSE(d, row->name, "%s must be a number, not %s", row->name, type_name(value));
    if (*out < row->min || *out > row->max)
        return REFUSE(d, row->name, "%s is %g; it must be from %g to %g", row->name, *out, row->min,
                      row->max);
    return PH_OK;
}

static enum ph_status decode_scalar(struct decoder *d, const struct scalar *row)
{
    const struct json *value = json_get(d->body, row->name);
    void *place = (char *)d->out + row->offset;
    int64_t integer = 0;
    enum ph_status status = PH_OK;
    if (json_is_absent(value))
        return PH_OK;
    switch (row->kind) {
    case SCALAR_BOOL:
        if (!json_is_bool(value))
            return REFUSE(d, row->name, "%s must be true or false, not %s", row->name, type_name(value));
        *(bool *)place = value->type == JSON_TRUE;
        break;
    case SCALAR_TEXT:
        if (!json_is(value, JSON_STRING))
            return REFUSE(d, row->name, "%s must be a string, not %s", row->name, type_name(value));
        *(const char **)place = value->u.str.text;
        break;
    case SCALAR_DOUBLE:
        status = decode_double(d, row, value, place);
        break;
    case SCALAR_SIZE:
        status = decode_integer(d, row, value, &integer);
        *(size_t *)place = (size_t)integer;
        break;
    case SCALAR_INT: /* top_k and seed: both 64 bits */
        status = decode_integer(d, row, value, &integer);
        *(int64_t *)place = integer;
        break;
    }
    if (status == PH_OK && row->given_offset)
        *(bool *)((char *)d->out + row->given_offset) = true;
    return status;
}

static enum ph_status decode_scalars(struct decoder *d, const struct scalar *rows, size_t count)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < count && status == PH_OK; i++)
        status = decode_scalar(d, &rows[i]);
    return status;
}

/* ---- Messages */

/* The text of one content part, NULL when it has none (an image). */
static const struct json *part_text(const struct json *part)
{
    static const char *const kinds[][2] = {
        {"text", "text"}, {"input_text", "text"}, {"output_text", "text"}, {"refusal", "refusal"}};
    const struct json *type = json_get(part, "type");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (json_text_is(type, kinds[i][0]))
            return json_get(part, kinds[i][1]);
    return NULL;
}

static enum ph_status check_part(struct decoder *d, const struct json *part, size_t message, size_t index)
{
    if (!json_is(part, JSON_OBJECT))
        return REFUSE(d, path(d, "messages[%zu].content[%zu]", message, index),
                      "messages[%zu].content[%zu] must be an object with a type, not %s", message, index,
                      type_name(part));
    if (json_is(part_text(part), JSON_STRING))
        return PH_OK;
    const char *type = json_text(json_get(part, "type"), "");
    if (strcmp(type, "text") == 0)
        return REFUSE(d, path(d, "messages[%zu].content[%zu].text", message, index),
                      "messages[%zu].content[%zu].text must be a string", message, index);
    chat_fault_set(d->fault, 400, "unsupported_content",
                   path(d, "messages[%zu].content[%zu].type", message, index),
                   "messages[%zu].content[%zu] is of type \"%.40s\"; this station reads text parts only",
                   message, index, type);
    return PH_ERR_UNSUPPORTED;
}

/* Text parts become lines of one text. */
static enum ph_status join_parts(struct decoder *d, const struct json *parts, size_t message,
                                 struct chat_text *out)
{
    size_t index = 0, len = 0;
    JSON_EACH (part, parts) {
        enum ph_status status = check_part(d, part, message, index++);
        if (status != PH_OK)
            return status;
        len += part_text(part)->u.str.len + 1;
    }
    char *text = arena_alloc(d->arena, len + 1);
    if (!text)
        return no_memory(d);
    size_t at = 0;
    JSON_EACH (part, parts) {
        const struct json *string = part_text(part);
        if (at)
            text[at++] = '\n';
        if (string->u.str.len)
            memcpy(text + at, string->u.str.text, string->u.str.len);
        at += string->u.str.len;
    }
    text[at] = 0;
    *out = (struct chat_text){text, at};
    return PH_OK;
}

static enum ph_status decode_content(struct decoder *d, const struct json *content, size_t index,
                                     struct chat_message *out)
{
    if (json_is(content, JSON_STRING)) {
        out->content = text_of(content);
        return PH_OK;
    }
    if (json_is(content, JSON_ARRAY))
        return join_parts(d, content, index, &out->content);
    if (!json_is_absent(content))
        return REFUSE(d, path(d, "messages[%zu].content", index),
                      "messages[%zu].content must be a string or an array of parts, not %s", index,
                      type_name(content));
    if (out->role != CHAT_ASSISTANT)
        return REFUSE(d, path(d, "messages[%zu].content", index), "messages[%zu].content is missing", index);
    return PH_OK;
}

static enum ph_status decode_tool_call(struct decoder *d, const struct json *call, size_t index,
                                       struct chat_tool_call *out)
{
    const struct json *function = json_get(call, "function");
    const struct json *arguments = json_get(function, "arguments");
    if (!json_is(json_get(function, "name"), JSON_STRING))
        return REFUSE(d, path(d, "messages[%zu].tool_calls", index),
                      "messages[%zu].tool_calls: every call needs function.name", index);
    out->id = json_text(json_get(call, "id"), NULL);
    out->name = json_text(json_get(function, "name"), "");
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
    return copy ? PH_OK : no_memory(d);
}

static enum ph_status decode_tool_calls(struct decoder *d, const struct json *calls, size_t index,
                                        struct chat_message *out)
{
    if (json_is_absent(calls))
        return PH_OK;
    if (!json_is(calls, JSON_ARRAY))
        return REFUSE(d, path(d, "messages[%zu].tool_calls", index),
                      "messages[%zu].tool_calls must be an array, not %s", index, type_name(calls));
    struct chat_tool_call *list = arena_calloc(d->arena, json_count(calls), sizeof *list);
    if (!list)
        return no_memory(d);
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
    return REFUSE(d, path(d, "messages[%zu].role", index),
                  "messages[%zu].role is \"%.40s\"; it must be system, developer, user, assistant or tool",
                  index, json_text(role, ""));
}

static enum ph_status decode_message(struct decoder *d, const struct json *value, size_t index,
                                     struct chat_message *out)
{
    if (!json_is(value, JSON_OBJECT))
        return REFUSE(d, path(d, "messages[%zu]", index), "messages[%zu] must be an object, not %s", index,
                      type_name(value));
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

static enum ph_status decode_messages(struct decoder *d)
{
    const struct json *messages = json_get(d->body, "messages");
    if (json_is_absent(messages))
        return REFUSE(d, "messages", "messages is missing: give an array of messages");
    if (!json_is(messages, JSON_ARRAY))
        return REFUSE(d, "messages", "messages must be an array, not %s", type_name(messages));
    size_t count = json_count(messages);
    if (count == 0)
        return REFUSE(d, "messages", "messages is empty: give at least one message");
    if (count > CHAT_MESSAGES_MAX)
        return REFUSE(d, "messages", "messages has %zu messages; at most %d are accepted", count,
                      CHAT_MESSAGES_MAX);
    struct chat_message *list = arena_calloc(d->arena, count, sizeof *list);
    if (!list)
        return no_memory(d);
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

/* ---- Prompts of completions */

static enum ph_status decode_ids(struct decoder *d, const struct json *array, struct chat_prompt *out)
{
    int32_t *ids = arena_calloc(d->arena, json_count(array), sizeof *ids);
    if (!ids)
        return no_memory(d);
    size_t count = 0;
    JSON_EACH (item, array) {
        int64_t id;
        if (!json_to_int64(item, &id) || id < 0 || id > INT32_MAX)
            return REFUSE(d, "prompt", "prompt: element %zu of a token array is not a token id", count);
        ids[count++] = (int32_t)id;
    }
    *out = (struct chat_prompt){.ids = ids, .id_count = count};
    return PH_OK;
}

static enum ph_status decode_one_prompt(struct decoder *d, const struct json *value, struct chat_prompt *out)
{
    if (json_is(value, JSON_STRING)) {
        *out = (struct chat_prompt){.text = text_of(value)};
        return PH_OK;
    }
    if (json_is(value, JSON_ARRAY))
        return decode_ids(d, value, out);
    return REFUSE(d, "prompt", "prompt must be a string, an array of strings, or token ids; not %s",
                  type_name(value));
}

static enum ph_status decode_prompts(struct decoder *d)
{
    const struct json *prompt = json_get(d->body, "prompt");
    if (json_is_absent(prompt))
        return REFUSE(d, "prompt", "prompt is missing: give a string or token ids");
    if (json_is(prompt, JSON_ARRAY) && json_count(prompt) == 0)
        return REFUSE(d, "prompt", "prompt is an empty array: give a string or token ids");
    bool many = json_is(prompt, JSON_ARRAY) && !json_is(json_first(prompt), JSON_NUMBER);
    size_t count = many ? json_count(prompt) : 1;
    if (count > CHAT_SEQUENCES_MAX)
        return REFUSE(d, "prompt", "prompt has %zu prompts; at most %d are answered in one request", count,
                      CHAT_SEQUENCES_MAX);
    struct chat_prompt *list = arena_calloc(d->arena, count, sizeof *list);
    if (!list)
        return no_memory(d);
    d->out->prompts = list;
    d->out->prompt_count = count;
    if (!many)
        return decode_one_prompt(d, prompt, list);
    enum ph_status status = PH_OK;
    size_t index = 0;
    JSON_EACH (item, prompt) {
        if (status == PH_OK)
            status = decode_one_prompt(d, item, &list[index++]);
    }
    return status;
}

static enum ph_status decode_completion(struct decoder *d)
{
    enum ph_status status = decode_prompts(d);
    if (status != PH_OK)
        return status;
    const struct json *suffix = json_get(d->body, "suffix");
    if (json_is(suffix, JSON_STRING) && suffix->u.str.len)
        d->out->suffix = text_of(suffix);
    else if (!json_is_absent(suffix) && !json_is(suffix, JSON_STRING))
        return REFUSE(d, "suffix", "suffix must be a string, not %s", type_name(suffix));
    int64_t best_of;
    const struct json *value = json_get(d->body, "best_of");
    if (json_is_absent(value))
        return PH_OK;
    if (!json_to_int64(value, &best_of) || best_of < 1)
        return REFUSE(d, "best_of", "best_of must be an integer of at least 1");
    if (best_of > (int64_t)d->out->choices) /* it would sample more than it returns and keep the likeliest */
        return REFUSE(d, "best_of", "best_of is %lld; values above n are not supported", (long long)best_of);
    return PH_OK;
}

/* ---- What both kinds share */

static enum ph_status decode_stops(struct decoder *d)
{
    const struct json *stop = json_get(d->body, "stop");
    if (json_is_absent(stop))
        return PH_OK;
    bool one = json_is(stop, JSON_STRING);
    if (!one && !json_is(stop, JSON_ARRAY))
        return REFUSE(d, "stop", "stop must be a string or an array of strings, not %s", type_name(stop));
    size_t count = one ? 1 : json_count(stop);
    if (count > CHAT_STOP_COUNT_MAX)
        return REFUSE(d, "stop", "stop has %zu strings; at most %d are accepted", count, CHAT_STOP_COUNT_MAX);
    struct chat_text *list = arena_calloc(d->arena, count, sizeof *list);
    if (!list)
        return no_memory(d);
    size_t kept = 0;
    for (const struct json *item = one ? stop : json_first(stop); item; item = one ? NULL : item->next) {
        if (!json_is(item, JSON_STRING))
            return REFUSE(d, "stop", "stop must hold strings only, not %s", type_name(item));
        if (item->u.str.len > ENGINE_STOP_BYTES_MAX)
            return REFUSE(d, "stop", "a stop string has %zu bytes; at most %d are accepted", item->u.str.len,
                          ENGINE_STOP_BYTES_MAX);
        if (item->u.str.len) /* editors that split a list at commas send empty ones; they stop nothing */
            list[kept++] = text_of(item);
    }
    d->out->stops = list;
    d->out->stop_count = kept;
    return PH_OK;
}

static enum ph_status decode_logit_bias(struct decoder *d)
{
    const struct json *object = json_get(d->body, "logit_bias");
    if (json_is_absent(object))
        return PH_OK;
    if (!json_is(object, JSON_OBJECT))
        return REFUSE(d, "logit_bias", "logit_bias must be an object of token ids, not %s",
                      type_name(object));
    if (json_count(object) > ENGINE_LOGIT_BIAS_MAX)
        return REFUSE(d, "logit_bias", "logit_bias has %zu tokens; at most %d are accepted",
                      json_count(object), ENGINE_LOGIT_BIAS_MAX);
    struct chat_logit_bias *list = arena_calloc(d->arena, json_count(object), sizeof *list);
    if (!list)
        return no_memory(d);
    size_t count = 0;
    JSON_EACH (item, object) {
        char *end;
        double bias;
        long long id = strtoll(item->key, &end, 10);
        if (item->key[0] < '0' || item->key[0] > '9' || *end || id > INT32_MAX)
            return REFUSE(d, "logit_bias", "logit_bias: \"%.40s\" is not a token id", item->key);
        if (!json_to_double(item, &bias) || bias < -100 || bias > 100)
            return REFUSE(d, "logit_bias", "logit_bias: the value of %.40s must be a number from -100 to 100",
                          item->key);
        /* -100 is documented as a ban. */
        list[count++] = (struct chat_logit_bias){(int32_t)id, bias <= -100 ? -INFINITY : (float)bias};
    }
    d->out->sampling.logit_bias = list;
    d->out->sampling.logit_bias_count = count;
    return PH_OK;
}

static enum ph_status decode_tools(struct decoder *d)
{
    const struct json *tools = json_get(d->body, "tools");
    if (json_is_absent(tools))
        return PH_OK;
    if (!json_is(tools, JSON_ARRAY))
        return REFUSE(d, "tools", "tools must be an array, not %s", type_name(tools));
    size_t index = 0;
    JSON_EACH (tool, tools) {
        const struct json *type = json_get(tool, "type");
        if (!json_is_absent(type) && !json_text_is(type, "function"))
            return REFUSE(d, path(d, "tools[%zu].type", index),
                          "tools[%zu].type is \"%.40s\"; only function tools are supported", index,
                          json_text(type, "?"));
        if (!json_is(json_get(json_get(tool, "function"), "name"), JSON_STRING))
            return REFUSE(d, path(d, "tools[%zu].function.name", index),
                          "tools[%zu].function.name is missing", index);
        index++;
    }
    if (index)
        d->out->tools = tools;
    return PH_OK;
}

/* An object member that is kept as it came. */
static enum ph_status decode_object(struct decoder *d, const char *name, const struct json **out)
{
    const struct json *value = json_get(d->body, name);
    if (json_is_absent(value))
        return PH_OK;
    if (!json_is(value, JSON_OBJECT))
        return REFUSE(d, name, "%s must be an object, not %s", name, type_name(value));
    *out = value;
    return PH_OK;
}

static enum ph_status decode_choices_about_tools(struct decoder *d)
{
    const struct json *choice = json_get(d->body, "tool_choice");
    if (json_is_absent(choice))
        return PH_OK;
    bool word =
        json_text_is(choice, "none") || json_text_is(choice, "auto") || json_text_is(choice, "required");
    if (!word && !json_is(choice, JSON_OBJECT))
        return REFUSE(d, "tool_choice", "tool_choice must be none, auto, required or an object");
    d->out->tool_choice = choice;
    if (json_text_is(choice, "none"))
        d->out->tools = NULL;
    return PH_OK;
}

static enum ph_status decode_stream_options(struct decoder *d)
{
    const struct json *options = NULL;
    enum ph_status status = decode_object(d, "stream_options", &options);
    const struct json *usage = json_get(options, "include_usage");
    if (status != PH_OK || json_is_absent(usage))
        return status;
    if (!json_is_bool(usage))
        return REFUSE(d, "stream_options.include_usage",
                      "stream_options.include_usage must be true or false, not %s", type_name(usage));
    d->out->include_usage = usage->type == JSON_TRUE;
    return PH_OK;
}

static enum ph_status decode_shared(struct decoder *d)
{
    static enum ph_status (*const steps[])(struct decoder *) = {
        decode_stops, decode_logit_bias, decode_tools, decode_choices_about_tools, decode_stream_options};
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && status == PH_OK; i++)
        status = steps[i](d);
    if (status == PH_OK)
        status = decode_object(d, "response_format", &d->out->response_format);
    if (status == PH_OK)
        status = decode_object(d, "metadata", &d->out->metadata);
    if (status == PH_OK)
        status = decode_object(d, "chat_template_kwargs", &d->out->template_vars);
    d->out->conversation = json_text(json_get(d->out->metadata, "conversation_id"), NULL);
    return status;
}

static enum ph_status decode_kind(struct decoder *d)
{
    enum ph_status status;
    if (d->out->kind == CHAT_KIND_COMPLETION) {
        status =
            decode_scalars(d, completion_scalars, sizeof completion_scalars / sizeof *completion_scalars);
        return status == PH_OK ? decode_completion(d) : status;
    }
    status = decode_scalars(d, chat_scalars, sizeof chat_scalars / sizeof *chat_scalars);
    if (status == PH_OK)
        status = decode_messages(d);
    if (status == PH_OK && d->out->top_logprobs && !d->out->logprobs)
        return REFUSE(d, "top_logprobs", "top_logprobs needs logprobs: true");
    if (status == PH_OK && d->out->continue_final_message &&
        d->out->messages[d->out->message_count - 1].role != CHAT_ASSISTANT)
        return REFUSE(d, "continue_final_message",
                      "continue_final_message needs a last message of role assistant");
    return status;
}

enum ph_status openai_decode(struct arena *arena, enum chat_kind kind, const struct json *body,
                             struct chat_request *out, struct chat_fault *fault)
{
    struct decoder d = {arena, body, out, fault};
    *out = (struct chat_request){.arena = arena, .kind = kind, .choices = 1, .raw = body};
    if (!json_is(body, JSON_OBJECT))
        return REFUSE(&d, NULL, "the body must be a JSON object, not %s", type_name(body));
    enum ph_status status = decode_scalars(&d, scalars, sizeof scalars / sizeof scalars[0]);
    if (status == PH_OK)
        status = decode_kind(&d);
    if (status == PH_OK)
        status = decode_shared(&d);
    if (status == PH_OK && chat_choice_count(out) > CHAT_SEQUENCES_MAX)
        return REFUSE(&d, "n", "n times the number of prompts is %zu; at most %d choices are answered",
                      chat_choice_count(out), CHAT_SEQUENCES_MAX);
    return status;
}
