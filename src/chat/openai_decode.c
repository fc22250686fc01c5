/* OpenAI bodies into chat requests.
 *
 * Method: scalars are rows of a table (name, kind, range, place in the request); what has structure
 * (messages, prompt, stop, logit_bias, tools) has a function each. Clients send unknown members and nulls all
 * the time: both are as if absent. A known member of the wrong type or range is a fault that names it;
 * nothing is guessed, because a misread limit costs money.
 *
 * What is well-formed but cannot be done (a JSON response format, a suffix) is decoded here and refused by
 * the provider that cannot do it: another one may.
 *
 * Texts point into the body's document where they are used as they came, so `arena` must be the document's.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chat/openai_int.h"

static struct chat_text text_of(const struct json *string)
{
    return (struct chat_text){string->u.str.text, string->u.str.len};
}

/* ---- Scalars */

#define AT SCALAR_AT
#define ROWS(table)                         \
    {                                       \
        table, sizeof table / sizeof *table \
    }

/* Later rows win where two names share a place. */
static const struct scalar shared_scalars[] = {
    {"model", SCALAR_TEXT, 0, 0, AT(model), 0, SCALAR_WRITTEN_APART},
    {"user", SCALAR_TEXT, 0, 0, AT(user), 0, SCALAR_WRITTEN_IF_NAMED},
    {"stream", SCALAR_BOOL, 0, 0, AT(stream), 0, SCALAR_WRITTEN_APART},
    {"ignore_eos", SCALAR_BOOL, 0, 0, AT(ignore_end), 0, SCALAR_WRITTEN_IF_NAMED},
    {"n", SCALAR_SIZE, 1, CHAT_CHOICES_MAX, AT(choices), 0, SCALAR_WRITTEN},
    {"max_tokens", SCALAR_SIZE, 1, 1e9, AT(max_tokens), 0, SCALAR_WRITTEN_APART},
    {"max_completion_tokens", SCALAR_SIZE, 1, 1e9, AT(max_tokens), 0, SCALAR_WRITTEN_APART},
    {"temperature", SCALAR_DOUBLE, 0, 2, AT(sampling.temperature), AT(sampling.has_temperature),
     SCALAR_WRITTEN},
    {"top_p", SCALAR_DOUBLE, 0, 1, AT(sampling.top_p), AT(sampling.has_top_p), SCALAR_WRITTEN},
    {"min_p", SCALAR_DOUBLE, 0, 1, AT(sampling.min_p), AT(sampling.has_min_p), SCALAR_WRITTEN_IF_NAMED},
    {"top_k", SCALAR_INT, -1, 1e9, AT(sampling.top_k), AT(sampling.has_top_k), SCALAR_WRITTEN_IF_NAMED},
    {"repeat_penalty", SCALAR_DOUBLE, 0.01, 100, AT(sampling.repeat_penalty), AT(sampling.has_repeat_penalty),
     SCALAR_WRITTEN_IF_NAMED},
    {"repetition_penalty", SCALAR_DOUBLE, 0.01, 100, AT(sampling.repeat_penalty),
     AT(sampling.has_repeat_penalty), SCALAR_WRITTEN_IF_NAMED},
    {"frequency_penalty", SCALAR_DOUBLE, -2, 2, AT(sampling.frequency_penalty), 0, SCALAR_WRITTEN},
    {"presence_penalty", SCALAR_DOUBLE, -2, 2, AT(sampling.presence_penalty), 0, SCALAR_WRITTEN},
    {"seed", SCALAR_INT, -9.3e18, 9.3e18, AT(sampling.seed), AT(sampling.has_seed), SCALAR_WRITTEN},
    {"reasoning_effort", SCALAR_TEXT, 0, 0, AT(reasoning_effort), 0, SCALAR_WRITTEN},
};

static const struct scalar chat_scalars[] = {
    {"logprobs", SCALAR_BOOL, 0, 0, AT(logprobs), 0, SCALAR_WRITTEN},
    {"top_logprobs", SCALAR_SIZE, 0, ENGINE_LOGPROBS_MAX, AT(top_logprobs), 0, SCALAR_WRITTEN},
    {"continue_final_message", SCALAR_BOOL, 0, 0, AT(continue_final_message), 0, SCALAR_WRITTEN_APART},
};

static const struct scalar completion_scalars[] = {
    {"echo", SCALAR_BOOL, 0, 0, AT(echo), 0, SCALAR_WRITTEN},
    {"logprobs", SCALAR_SIZE, 0, ENGINE_LOGPROBS_MAX, AT(top_logprobs), AT(logprobs), SCALAR_WRITTEN},
};

const struct openai_rows openai_shared_rows = ROWS(shared_scalars);
const struct openai_rows openai_kind_rows[] = {
    [CHAT_KIND_CHAT] = ROWS(chat_scalars), [CHAT_KIND_COMPLETION] = ROWS(completion_scalars)};

/* ---- Prompts of completions */

static enum ph_status decode_ids(struct decoder *d, const char *name, const struct json *array,
                                 struct chat_prompt *out)
{
    int32_t *ids = arena_calloc(d->arena, json_count(array), sizeof *ids);
    if (!ids)
        return decode_no_memory(d);
    size_t count = 0;
    JSON_EACH (item, array) {
        int64_t id;
        if (!json_to_int64(item, &id) || id < 0 || id > INT32_MAX)
            return DECODE_REFUSE(d, name, "%s: element %zu of a token array is not a token id", name, count);
        ids[count++] = (int32_t)id;
    }
    *out = (struct chat_prompt){.ids = ids, .id_count = count};
    return PH_OK;
}

static enum ph_status decode_one_prompt(struct decoder *d, const char *name, const struct json *value,
                                        struct chat_prompt *out)
{
    if (json_is(value, JSON_STRING)) {
        *out = (struct chat_prompt){.text = text_of(value)};
        return PH_OK;
    }
    if (json_is(value, JSON_ARRAY))
        return decode_ids(d, name, value, out);
    return DECODE_REFUSE(d, name, "%s must be a string, an array of strings, or token ids; not %s", name,
                         decode_type_name(value));
}

enum ph_status openai_decode_prompts(struct decoder *d, const char *name, size_t count_max,
                                     const struct chat_prompt **out, size_t *out_count)
{
    const struct json *value = json_get(d->body, name);
    if (json_is_absent(value))
        return DECODE_REFUSE(d, name, "%s is missing: give a string or token ids", name);
    if (json_is(value, JSON_ARRAY) && json_count(value) == 0)
        return DECODE_REFUSE(d, name, "%s is an empty array: give a string or token ids", name);
    bool many = json_is(value, JSON_ARRAY) && !json_is(json_first(value), JSON_NUMBER);
    size_t count = many ? json_count(value) : 1;
    if (count > count_max)
        return DECODE_REFUSE(d, name, "%s has %zu elements; at most %zu are answered in one request", name,
                             count, count_max);
    struct chat_prompt *list = arena_calloc(d->arena, count, sizeof *list);
    if (!list)
        return decode_no_memory(d);
    *out = list;
    *out_count = count;
    if (!many)
        return decode_one_prompt(d, name, value, list);
    enum ph_status status = PH_OK;
    size_t index = 0;
    JSON_EACH (item, value) {
        if (status == PH_OK)
            status = decode_one_prompt(d, name, item, &list[index++]);
    }
    return status;
}

static enum ph_status decode_completion(struct decoder *d)
{
    const struct json *suffix = json_get(d->body, "suffix");
    if (json_is(suffix, JSON_STRING) && suffix->u.str.len)
        d->out->suffix = text_of(suffix);
    else if (!json_is_absent(suffix) && !json_is(suffix, JSON_STRING))
        return DECODE_REFUSE(d, "suffix", "suffix must be a string, not %s", decode_type_name(suffix));
    int64_t best_of;
    const struct json *value = json_get(d->body, "best_of");
    if (json_is_absent(value))
        return PH_OK;
    if (!json_to_int64(value, &best_of) || best_of < 1)
        return DECODE_REFUSE(d, "best_of", "best_of must be an integer of at least 1");
    if (best_of > (int64_t)d->out->choices) /* it would sample more than it returns and keep the likeliest */
        return DECODE_REFUSE(d, "best_of", "best_of is %lld; values above n are not supported",
                             (long long)best_of);
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
        return DECODE_REFUSE(d, "stop", "stop must be a string or an array of strings, not %s",
                             decode_type_name(stop));
    size_t count = one ? 1 : json_count(stop);
    if (count > CHAT_STOP_COUNT_MAX)
        return DECODE_REFUSE(d, "stop", "stop has %zu strings; at most %d are accepted", count,
                             CHAT_STOP_COUNT_MAX);
    struct chat_text *list = arena_calloc(d->arena, count, sizeof *list);
    if (!list)
        return decode_no_memory(d);
    size_t kept = 0;
    for (const struct json *item = one ? stop : json_first(stop); item; item = one ? NULL : item->next) {
        if (!json_is(item, JSON_STRING))
            return DECODE_REFUSE(d, "stop", "stop must hold strings only, not %s", decode_type_name(item));
        if (item->u.str.len > ENGINE_STOP_BYTES_MAX)
            return DECODE_REFUSE(d, "stop", "a stop string has %zu bytes; at most %d are accepted",
                                 item->u.str.len, ENGINE_STOP_BYTES_MAX);
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
        return DECODE_REFUSE(d, "logit_bias", "logit_bias must be an object of token ids, not %s",
                             decode_type_name(object));
    if (json_count(object) > ENGINE_LOGIT_BIAS_MAX)
        return DECODE_REFUSE(d, "logit_bias", "logit_bias has %zu tokens; at most %d are accepted",
                             json_count(object), ENGINE_LOGIT_BIAS_MAX);
    struct chat_logit_bias *list = arena_calloc(d->arena, json_count(object), sizeof *list);
    if (!list)
        return decode_no_memory(d);
    size_t count = 0;
    JSON_EACH (item, object) {
        char *end;
        double bias;
        long long id = strtoll(item->key, &end, 10);
        if (item->key[0] < '0' || item->key[0] > '9' || *end || id > INT32_MAX)
            return DECODE_REFUSE(d, "logit_bias", "logit_bias: \"%.40s\" is not a token id", item->key);
        if (!json_to_double(item, &bias) || bias < -100 || bias > 100)
            return DECODE_REFUSE(d, "logit_bias",
                                 "logit_bias: the value of %.40s must be a number from -100 to 100",
                                 item->key);
        /* -100 is documented as a ban. */
        list[count++] = (struct chat_logit_bias){(int32_t)id, bias <= -100 ? -INFINITY : (float)bias};
    }
    d->out->sampling.logit_bias = list;
    d->out->sampling.logit_bias_count = count;
    return PH_OK;
}

/* Function tools are checked. Others (custom, web_search) are known to some providers. */
static enum ph_status decode_tools(struct decoder *d)
{
    const struct json *tools = json_get(d->body, "tools");
    if (json_is_absent(tools))
        return PH_OK;
    if (!json_is(tools, JSON_ARRAY))
        return DECODE_REFUSE(d, "tools", "tools must be an array, not %s", decode_type_name(tools));
    size_t index = 0;
    JSON_EACH (tool, tools) {
        const struct json *type = json_get(tool, "type");
        bool function = json_is_absent(type) || json_text_is(type, "function");
        if (!json_is(tool, JSON_OBJECT) || (!json_is_absent(type) && !json_is(type, JSON_STRING)))
            return DECODE_REFUSE(d, decode_path(d, "tools[%zu].type", index),
                                 "tools[%zu] must be an object with a type", index);
        if (function && !json_is(json_get(json_get(tool, "function"), "name"), JSON_STRING))
            return DECODE_REFUSE(d, decode_path(d, "tools[%zu].function.name", index),
                                 "tools[%zu].function.name is missing", index);
        index++;
    }
    if (index)
        d->out->tools = tools;
    return PH_OK;
}

static enum ph_status decode_parallel(struct decoder *d)
{
    const struct json *value = json_get(d->body, "parallel_tool_calls");
    if (!json_is_absent(value) && !json_is_bool(value))
        return DECODE_REFUSE(d, "parallel_tool_calls", "parallel_tool_calls must be true or false, not %s",
                             decode_type_name(value));
    d->out->single_tool_call = json_is(value, JSON_FALSE);
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
        return DECODE_REFUSE(d, "tool_choice", "tool_choice must be none, auto, required or an object");
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
        return DECODE_REFUSE(d, "stream_options.include_usage",
                             "stream_options.include_usage must be true or false, not %s",
                             decode_type_name(usage));
    d->out->include_usage = usage->type == JSON_TRUE;
    return PH_OK;
}

static enum ph_status decode_structures(struct decoder *d)
{
    static enum ph_status (*const steps[])(struct decoder *) = {
        decode_stops,    decode_logit_bias,          decode_tools,
        decode_parallel, decode_choices_about_tools, decode_stream_options};
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

static enum ph_status decode_options(struct decoder *d, enum chat_kind kind)
{
    *d->out = (struct chat_request){
        .arena = d->arena, .kind = kind, .choices = 1, .reasoning_tokens = -1, .raw = d->body};
    enum ph_status status = decode_scalars(d, openai_shared_rows.rows, openai_shared_rows.count);
    if (status == PH_OK)
        status = decode_scalars(d, openai_kind_rows[kind].rows, openai_kind_rows[kind].count);
    if (status == PH_OK)
        status = decode_structures(d);
    return status == PH_OK && kind == CHAT_KIND_COMPLETION ? decode_completion(d) : status;
}

/* ---- The door */

static enum ph_status decode_chat(struct decoder *d)
{
    enum ph_status status = openai_decode_messages(d);
    if (status == PH_OK && d->out->top_logprobs && !d->out->logprobs)
        return DECODE_REFUSE(d, "top_logprobs", "top_logprobs needs logprobs: true");
    if (status == PH_OK && d->out->continue_final_message &&
        d->out->messages[d->out->message_count - 1].role != CHAT_ASSISTANT)
        return DECODE_REFUSE(d, "continue_final_message",
                             "continue_final_message needs a last message of role assistant");
    return status;
}

static enum ph_status keep_as_came(struct decoder *d)
{
    struct chat_request *copy = arena_alloc(d->arena, sizeof *copy);
    if (!copy)
        return decode_no_memory(d);
    *copy = *d->out;
    d->out->as_came = copy;
    return PH_OK;
}

enum ph_status openai_decode(struct arena *arena, enum chat_kind kind, const struct json *body,
                             struct chat_request *out, struct chat_fault *fault)
{
    struct decoder d = {arena, body, out, fault};
    *out = (struct chat_request){.arena = arena, .kind = kind, .choices = 1, .raw = body};
    if (!json_is(body, JSON_OBJECT))
        return DECODE_REFUSE(&d, NULL, "the body must be a JSON object, not %s", decode_type_name(body));
    enum ph_status status = decode_options(&d, kind);
    if (status == PH_OK)
        status = keep_as_came(&d);
    if (status == PH_OK && kind == CHAT_KIND_CHAT)
        status = decode_chat(&d);
    if (status == PH_OK && kind == CHAT_KIND_COMPLETION)
        status = openai_decode_prompts(&d, "prompt", CHAT_SEQUENCES_MAX, &out->prompts, &out->prompt_count);
    if (status == PH_OK && chat_choice_count(out) > CHAT_SEQUENCES_MAX)
        return DECODE_REFUSE(&d, "n", "n times the number of prompts is %zu; at most %d choices are answered",
                             chat_choice_count(out), CHAT_SEQUENCES_MAX);
    return status;
}
