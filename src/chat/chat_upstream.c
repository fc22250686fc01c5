/* What a provider's refusal means.
 *
 * Providers agree on little: the same words come with status 400, 403, 429 or 500, under "error", "detail",
 * "message", as text, as a page of HTML, or in mid-stream with no status at all. Two tables decide. `classes`
 * says what a status means when nothing else is known, and which causes the words may turn it into; `clues`
 * are the words: codes and types are compared whole, messages searched, both without regard to case. They are
 * what OpenAI, Azure, Anthropic, Gemini, Together, Groq, DeepSeek, Mistral, xAI, DashScope, OpenRouter, vLLM,
 * TGI, llama.cpp, LM Studio and Ollama write.
 *
 * The fault that comes out speaks to our client: its status and code are those that OpenAI's clients act on,
 * its message is the provider's, shortened and without keys. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat_int.h"

#define MESSAGE_BYTES_MAX 400 /* of the provider's; ours goes around it */
#define MAY(cause) (1u << (cause))
#define MAY_BE_ANY_REQUEST                                                                              \
    (MAY(CHAT_CAUSE_KEY) | MAY(CHAT_CAUSE_CONTEXT) | MAY(CHAT_CAUSE_REFUSED) | MAY(CHAT_CAUSE_UNABLE) | \
     MAY(CHAT_CAUSE_NO_MODEL))

/* The first row that holds the status. */
static const struct status_class {
    int first, last;
    enum chat_cause cause;
    unsigned may_be; /* with other words */
} classes[] = {
    {401, 402, CHAT_CAUSE_KEY, 0},
    {403, 403, CHAT_CAUSE_KEY, MAY(CHAT_CAUSE_REFUSED) | MAY(CHAT_CAUSE_NO_MODEL)},
    {404, 404, CHAT_CAUSE_NO_MODEL, MAY(CHAT_CAUSE_UNABLE)},
    {408, 409, CHAT_CAUSE_SERVER, 0},
    {413, 413, CHAT_CAUSE_CONTEXT, 0},
    {425, 425, CHAT_CAUSE_SERVER, 0},
    {429, 429, CHAT_CAUSE_RATE, MAY(CHAT_CAUSE_KEY) | MAY(CHAT_CAUSE_CONTEXT) | MAY(CHAT_CAUSE_OVERLOADED)},
    {400, 499, CHAT_CAUSE_REQUEST, MAY_BE_ANY_REQUEST},
    {503, 503, CHAT_CAUSE_OVERLOADED, 0},
    {529, 529, CHAT_CAUSE_OVERLOADED, 0},
    {500, 599, CHAT_CAUSE_SERVER, MAY(CHAT_CAUSE_CONTEXT) | MAY(CHAT_CAUSE_OVERLOADED)},
    {0, 999, CHAT_CAUSE_SERVER, MAY_BE_ANY_REQUEST | MAY(CHAT_CAUSE_OVERLOADED)}, /* only words are known */
};

struct clue {
    enum chat_cause cause;
    const char *text; /* lower case */
};

static const struct clue code_clues[] = {
    {CHAT_CAUSE_KEY, "insufficient_quota"},
    {CHAT_CAUSE_KEY, "invalid_api_key"},
    {CHAT_CAUSE_KEY, "api_key_invalid"},
    {CHAT_CAUSE_KEY, "billing_hard_limit_reached"},
    {CHAT_CAUSE_KEY, "billing_not_active"},
    {CHAT_CAUSE_KEY, "account_deactivated"},
    {CHAT_CAUSE_CONTEXT, "context_length_exceeded"},
    {CHAT_CAUSE_CONTEXT, "exceed_context_size_error"},
    {CHAT_CAUSE_CONTEXT, "model_context_window_exceeded"},
    {CHAT_CAUSE_CONTEXT, "string_above_max_length"},
    {CHAT_CAUSE_CONTEXT, "request_too_large"},
    {CHAT_CAUSE_REFUSED, "content_filter"},
    {CHAT_CAUSE_REFUSED, "content_policy_violation"},
    {CHAT_CAUSE_REFUSED, "data_inspection_failed"},
    {CHAT_CAUSE_REFUSED, "responsibleaipolicyviolation"},
    {CHAT_CAUSE_REFUSED, "invalid_prompt"},
    {CHAT_CAUSE_NO_MODEL, "model_not_found"},
    {CHAT_CAUSE_NO_MODEL, "model_not_available"},
    {CHAT_CAUSE_NO_MODEL, "model_decommissioned"},
    {CHAT_CAUSE_NO_MODEL, "deploymentnotfound"},
    {CHAT_CAUSE_NO_MODEL, "invalid_model"},
    {CHAT_CAUSE_UNABLE, "unsupported_content"},
    {CHAT_CAUSE_UNABLE, "unsupported_parameter"},
    {CHAT_CAUSE_UNABLE, "unsupported_value"},
    {CHAT_CAUSE_OVERLOADED, "overloaded_error"},
    {CHAT_CAUSE_OVERLOADED, "engine_overloaded"},
};

static const struct clue message_clues[] = {
    {CHAT_CAUSE_KEY, "incorrect api key"},
    {CHAT_CAUSE_KEY, "invalid api key"},
    {CHAT_CAUSE_KEY, "api key not valid"},
    {CHAT_CAUSE_KEY, "api key expired"},
    {CHAT_CAUSE_KEY, "credit balance is too low"},
    {CHAT_CAUSE_KEY, "insufficient balance"},
    {CHAT_CAUSE_KEY, "insufficient credits"},
    {CHAT_CAUSE_KEY, "specified api usage limits"},
    {CHAT_CAUSE_KEY, "api key not found"},
    {CHAT_CAUSE_KEY, "credits are depleted"},
    {CHAT_CAUSE_KEY, "spending cap"},
    {CHAT_CAUSE_KEY, "user location is not supported"},
    {CHAT_CAUSE_KEY, "enable billing"},
    {CHAT_CAUSE_CONTEXT, "maximum context length"},
    {CHAT_CAUSE_CONTEXT, "maximum model length"},
    {CHAT_CAUSE_CONTEXT, "maximum prompt length"},
    {CHAT_CAUSE_CONTEXT, "maximum allowed input length"},
    {CHAT_CAUSE_CONTEXT, "maximum number of tokens allowed"},
    {CHAT_CAUSE_CONTEXT, "context length exceeded"},
    {CHAT_CAUSE_CONTEXT, "exceeded context length"},
    {CHAT_CAUSE_CONTEXT, "exceeded max context length"},
    {CHAT_CAUSE_CONTEXT, "the context window"},
    {CHAT_CAUSE_CONTEXT, "exceed context window"},
    {CHAT_CAUSE_CONTEXT, "model context window"},
    {CHAT_CAUSE_CONTEXT, "context window exceed"},
    {CHAT_CAUSE_CONTEXT, "exceed context limit"},
    {CHAT_CAUSE_CONTEXT, "available context size"},
    {CHAT_CAUSE_CONTEXT, "configured context size"},
    {CHAT_CAUSE_CONTEXT, "context size has been exceeded"},
    {CHAT_CAUSE_CONTEXT, "longer than the model's context length"},
    {CHAT_CAUSE_CONTEXT, "greater than the context length"},
    {CHAT_CAUSE_CONTEXT, "model's context length is only"},
    {CHAT_CAUSE_CONTEXT, "exceeded model token limit"},
    {CHAT_CAUSE_CONTEXT, "prompt is too long"},
    {CHAT_CAUSE_CONTEXT, "prompt too long"},
    {CHAT_CAUSE_CONTEXT, "input is too long"},
    {CHAT_CAUSE_CONTEXT, "prompt exceeds max length"},
    {CHAT_CAUSE_CONTEXT, "input tokens exceed"},
    {CHAT_CAUSE_CONTEXT, "range of input length should be"},
    {CHAT_CAUSE_CONTEXT, "`inputs` tokens + `max_new_tokens`"},
    {CHAT_CAUSE_CONTEXT, "`inputs` must have less than"},
    {CHAT_CAUSE_CONTEXT, "reduce the length of the"},
    {CHAT_CAUSE_CONTEXT, "request too large for"},
    {CHAT_CAUSE_CONTEXT, "request payload size exceeds"},
    {CHAT_CAUSE_REFUSED, "content management policy"},
    {CHAT_CAUSE_REFUSED, "content policy"},
    {CHAT_CAUSE_REFUSED, "content exists risk"},
    {CHAT_CAUSE_REFUSED, "content filter"},
    {CHAT_CAUSE_REFUSED, "content_filter"},
    {CHAT_CAUSE_REFUSED, "content filtering policy"},
    {CHAT_CAUSE_REFUSED, "inappropriate content"},
    {CHAT_CAUSE_REFUSED, "safety system"},
    {CHAT_CAUSE_REFUSED, "usage polic"},
    {CHAT_CAUSE_REFUSED, "flagged"},
    {CHAT_CAUSE_UNABLE, "support image"},
    {CHAT_CAUSE_UNABLE, "image input"},
    {CHAT_CAUSE_UNABLE, "image_url is only supported"},
    {CHAT_CAUSE_UNABLE, "unknown variant `image_url`"},
    {CHAT_CAUSE_UNABLE, "not a multimodal"},
    {CHAT_CAUSE_UNABLE, "support multimodal"},
    {CHAT_CAUSE_UNABLE, "support vision"},
    {CHAT_CAUSE_UNABLE, "support audio"},
    {CHAT_CAUSE_UNABLE, "audio input"},
    {CHAT_CAUSE_UNABLE, "support tool"},
    {CHAT_CAUSE_UNABLE, "support function"},
    {CHAT_CAUSE_UNABLE, "tool choice requires"},
    {CHAT_CAUSE_UNABLE, "tools param requires"},
    {CHAT_CAUSE_UNABLE, "tool use is not supported"},
    {CHAT_CAUSE_UNABLE, "is not supported with this model"},
    {CHAT_CAUSE_UNABLE, "does not support this"},
    {CHAT_CAUSE_UNABLE, "support assistant message prefill"},
    {CHAT_CAUSE_UNABLE, "support the effort parameter"},
    {CHAT_CAUSE_UNABLE, "thinking is not supported"},
    {CHAT_CAUSE_UNABLE, "not supported for this model"},
    {CHAT_CAUSE_UNABLE, "not supported on this model"},
    {CHAT_CAUSE_UNABLE, "deprecated for this model"},
    {CHAT_CAUSE_UNABLE, "be specified for this model"},
    {CHAT_CAUSE_UNABLE, "maximum allowed number of output tokens"},
    {CHAT_CAUSE_UNABLE, "is not enabled for"},
    {CHAT_CAUSE_UNABLE, "invalid `signature` in"}, /* a thought that another provider sealed */
    {CHAT_CAUSE_UNABLE, "thought signature"},
    {CHAT_CAUSE_UNABLE, "thought_signature"},
    {CHAT_CAUSE_NO_MODEL, "model not exist"},
    {CHAT_CAUSE_NO_MODEL, "model not found"},
    {CHAT_CAUSE_NO_MODEL, "no such model"},
    {CHAT_CAUSE_NO_MODEL, "invalid model"},
    {CHAT_CAUSE_NO_MODEL, "unknown model"},
    {CHAT_CAUSE_NO_MODEL, "is not a valid model"},
    {CHAT_CAUSE_NO_MODEL, "does not have access to model"},
    {CHAT_CAUSE_NO_MODEL, "or you do not have access to it"},
    {CHAT_CAUSE_OVERLOADED, "overloaded"},
    {CHAT_CAUSE_OVERLOADED, "at capacity"},
};

/* Words that stand for a status where none came. */
static const struct {
    const char *word;
    int http_status;
} statuses[] = {
    {"invalid_request_error", 400},
    {"invalid_argument", 400},
    {"badrequesterror", 400},
    {"failed_precondition", 400},
    {"authentication_error", 401},
    {"unauthenticated", 401},
    {"billing_error", 402},
    {"permission_error", 403},
    {"permission_denied", 403},
    {"not_found_error", 404},
    {"not_found", 404},
    {"notfounderror", 404},
    {"rate_limit_error", 429},
    {"rate_limit_exceeded", 429},
    {"resource_exhausted", 429},
    {"too_many_requests", 429},
    {"insufficient_quota", 429},
    {"requests", 429},
    {"tokens", 429},
    {"overloaded_error", 529},
    {"unavailable", 503},
    {"unavailable_error", 503},
    {"deadline_exceeded", 504},
    {"timeout_error", 504},
};

/* How the client is told. Status 0: the provider's own. */
static const struct {
    int http_status;
    const char *code; /* NULL: the provider's own */
} answers[CHAT_CAUSE_COUNT] = {
    [CHAT_CAUSE_KEY] = {502, "provider_key_refused"},
    [CHAT_CAUSE_RATE] = {429, "rate_limit_exceeded"},
    [CHAT_CAUSE_OVERLOADED] = {503, "provider_overloaded"},
    [CHAT_CAUSE_SERVER] = {502, "provider_error"},
    [CHAT_CAUSE_CONTEXT] = {400, "context_length_exceeded"},
    [CHAT_CAUSE_REFUSED] = {400, "content_filter"},
    [CHAT_CAUSE_NO_MODEL] = {404, "model_not_found"},
    [CHAT_CAUSE_UNABLE] = {400, NULL},
    [CHAT_CAUSE_REQUEST] = {0, NULL},
};

/* ---- Words */

static bool same_word(const char *text, const char *word)
{
    if (!text)
        return false;
    while (*text && tolower((unsigned char)*text) == *word) {
        text++;
        word++;
    }
    return *text == *word;
}

static bool begins_with(const char *text, const char *word)
{
    for (; *word; text++, word++)
        if (tolower((unsigned char)*text) != *word)
            return false;
    return true;
}

static const char *find_word(const char *text, const char *word)
{
    for (; *text; text++)
        if (begins_with(text, word))
            return text;
    return NULL;
}

static const struct status_class *class_of(int http_status)
{
    const struct status_class *row = classes;
    while (row->last < 999 && (http_status < row->first || http_status > row->last))
        row++;
    return row;
}

static int status_of(const struct upstream_error *error)
{
    if (error->number >= 400 && error->number <= 599)
        return error->number;
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (same_word(error->type, statuses[i].word) || same_word(error->code, statuses[i].word))
            return statuses[i].http_status;
    return 0;
}

static enum chat_cause cause_of(int http_status, const struct upstream_error *error)
{
    const struct status_class *row = class_of(http_status);
    for (size_t i = 0; i < sizeof code_clues / sizeof *code_clues; i++)
        if ((row->may_be & MAY(code_clues[i].cause)) &&
            (same_word(error->code, code_clues[i].text) || same_word(error->type, code_clues[i].text)))
            return code_clues[i].cause;
    for (size_t i = 0; error->message && i < sizeof message_clues / sizeof *message_clues; i++)
        if ((row->may_be & MAY(message_clues[i].cause)) && find_word(error->message, message_clues[i].text))
            return message_clues[i].cause;
    return row->cause;
}

/* "Please try again in 1m26.4s", "Please retry in 350ms": rounded up. */
static uint32_t retry_after(const char *message)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ms", 0.001}, {"h", 3600}, {"m", 60}, {"s", 1}};
    double seconds = 0;
    const char *again = find_word(message, "try again in "), *retry = find_word(message, "retry in ");
    for (const char *at = again ? again + 13 : (retry ? retry + 9 : ""); *at >= '0' && *at <= '9';) {
        char *end;
        double value = strtod(at, &end);
        size_t unit = 0;
        while (unit < sizeof units / sizeof *units && !begins_with(end, units[unit].name))
            unit++;
        if (unit == sizeof units / sizeof *units)
            break;
        seconds += value * units[unit].seconds;
        at = end + strlen(units[unit].name);
    }
    return seconds < 86400 ? (uint32_t)(seconds + 0.999) : 86400;
}

/* ---- Reading errors */

static const char *first_text(const struct json *object, const char *const names[])
{
    for (; *names; names++) {
        const char *text = json_text(json_get(object, *names), "");
        if (*text)
            return text;
    }
    return NULL;
}

static void read_number(const struct json *object, struct upstream_error *out)
{
    static const char *const names[] = {"code", "status", "status_code", "http_status_code"};
    for (size_t i = 0; i < sizeof names / sizeof *names && !out->number; i++) {
        const struct json *value = json_get(object, names[i]);
        int64_t number = json_is(value, JSON_STRING) ? strtol(value->u.str.text, NULL, 10) : 0;
        if (json_to_int64(value, &number) || number)
            out->number = number >= 400 && number <= 599 ? (int)number : 0;
    }
}

/* Routers say "Provider returned error" and keep what it was in metadata.raw. */
static const char *message_of(struct arena *arena, const struct json *object)
{
    static const char *const names[] = {"message", "msg", "detail", "error_msg", "error", NULL};
    const char *message = first_text(object, names);
    const char *raw = json_text(json_get(json_get(object, "metadata"), "raw"), "");
    if (!*raw)
        return message;
    struct buf text;
    buf_init(&text, 4 * MESSAGE_BYTES_MAX);
    buf_printf(&text, "%.100s: %.*s", message ? message : "error", 3 * MESSAGE_BYTES_MAX, raw);
    const char *copy = buf_status(&text) == PH_OK ? arena_strdup(arena, text.data) : NULL;
    buf_release(&text);
    return copy ? copy : message;
}

static void read_object(struct arena *arena, const struct json *object, struct upstream_error *out)
{
    static const char *const types[] = {"type", "status", "error_type", NULL};
    static const char *const codes[] = {"code", NULL}, *const params[] = {"param", NULL};
    out->message = message_of(arena, object);
    out->type = first_text(object, types);
    out->code = first_text(object, codes);
    out->param = first_text(object, params);
    read_number(object, out);
}

bool upstream_error_read(struct arena *arena, const struct json *value, struct upstream_error *out)
{
    *out = (struct upstream_error){0};
    if (json_is(value, JSON_ARRAY)) /* Gemini, outside of streams */
        value = json_first(value);
    const struct json *error = json_get(value, "error"), *detail = json_get(value, "detail");
    bool reply = !json_is_absent(json_get(value, "choices"));
    if (json_is(error, JSON_OBJECT)) {
        read_object(arena, error, out);
        return true;
    }
    bool says_so = json_text_is(json_get(value, "object"), "error") ||
                   json_text_is(json_get(value, "type"), "error") || json_is(error, JSON_TRUE);
    if (says_so || *json_text(error, "") || (!reply && json_is(detail, JSON_STRING))) {
        read_object(arena, value, out);
        return true;
    }
    if (!reply && json_is(detail, JSON_ARRAY)) { /* FastAPI's list of what is wrong */
        read_object(arena, json_first(detail), out);
        out->number = 422;
        return true;
    }
    if (!reply && json_is(json_get(value, "errors"), JSON_ARRAY)) {
        read_object(arena, json_first(json_get(value, "errors")), out);
        return true;
    }
    return false;
}

/* ---- Faults */

/* "OpenAI's words": the client's libraries choose their exception by the status, and look at the code. */
void upstream_fault(struct arena *arena, int http_status, const struct upstream_error *error,
                    struct chat_fault *out)
{
    if (http_status < 400)
        http_status = status_of(error);
    enum chat_cause cause = cause_of(http_status, error);
    bool own_words = !answers[cause].code;
    int status = answers[cause].http_status ? answers[cause].http_status : http_status;
    if (status < 400 || status > 499)
        status = own_words ? 400 : status;
    const char *code = answers[cause].code;
    if (own_words && error->code)
        code = arena_strdup(arena, error->code);
    const char *param = own_words && error->param ? arena_strdup(arena, error->param) : NULL;
    if (error->message)
        chat_fault_set(out, status, code, param, "%.*s", MESSAGE_BYTES_MAX, error->message);
    else
        chat_fault_set(out, status, code, param, "the provider answered with status %d and no message",
                       http_status);
    chat_scrub(out->message);
    out->cause = cause;
    if ((cause == CHAT_CAUSE_RATE || cause == CHAT_CAUSE_OVERLOADED) && error->message)
        out->retry_after_s = retry_after(error->message);
}

/* A page of HTML says what it is in its title. */
static const char *page_message(struct arena *arena, int http_status, const char *body)
{
    const char *title = find_word(body, "<title>");
    size_t len = title ? strcspn(title + 7, "<") : 0;
    struct buf text;
    buf_init(&text, MESSAGE_BYTES_MAX);
    buf_printf(&text, "the provider answered with status %d and a web page", http_status);
    if (len)
        buf_printf(&text, ": %.*s", len < 100 ? (int)len : 100, title + 7);
    const char *copy = buf_status(&text) == PH_OK ? arena_strdup(arena, text.data) : NULL;
    buf_release(&text);
    return copy;
}

void upstream_fault_of_body(struct arena *arena, int http_status, const char *body, size_t len,
                            struct chat_fault *out)
{
    struct upstream_error error = {0};
    struct json *value;
    if (json_parse(arena, body, len, &value, NULL) == PH_OK) {
        if (!upstream_error_read(arena, value, &error))
            read_object(arena, value, &error);
    } else {
        const char *text = arena_strndup(arena, body, len < 4096 ? len : 4096);
        text = text ? text + strspn(text, " \t\r\n") : "";
        error.message = *text == '<' ? page_message(arena, http_status, text) : *text ? text : NULL;
    }
    upstream_fault(arena, http_status, &error, out);
}

enum ph_status upstream_broken(struct chat_fault *fault, enum chat_cause cause, const char *what)
{
    chat_fault_set(fault, 502, cause == CHAT_CAUSE_CUT ? "provider_cut" : "provider_error", NULL, "%s", what);
    fault->cause = cause;
    return PH_ERR_FORMAT;
}
