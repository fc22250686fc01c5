/* How four providers speak, as far as text goes. What they make different is kept, for it is what is stumbled
 * over: Together says its role in every delta, calls the end "eos" and has its usage in the last chunk;
 * Anthropic counts the prompt at the beginning and the output at the end; Gemini repeats its sums in every
 * chunk, ends its lines with CR LF, and has an answer in an array. */
#include <stdio.h>
#include <string.h>

#include "drill/drill_int.h"

#define MODEL "drill"
#define BYTES_A_TOKEN 4
#define TEXT_TOKENS(len) (((len) + BYTES_A_TOKEN - 1) / BYTES_A_TOKEN)

/* ---- Requests */

/* The text of a message's content: a string, or the first text of its parts. */
static const char *content_text(const struct json *content)
{
    if (json_is(content, JSON_STRING))
        return json_text(content, "");
    JSON_EACH (part, content)
        if (json_get(part, "text"))
            return json_text(json_get(part, "text"), "");
    return "";
}

/* Answers the text less what was said of it; a beginning that is another text's is answered with what can't
 * be right. */
static const char *rest_of(const char *text, const char *said)
{
    size_t len = strlen(said);
    return strncmp(text, said, len) == 0 ? text + len : "(that is not how this answer began)";
}

static bool read_messages(const struct json *messages, const char *member, struct drill_ask *out)
{
    const char *asked = NULL, *said = "";
    JSON_EACH (message, messages) {
        const char *text = content_text(json_get(message, member));
        bool is_user = json_text_is(json_get(message, "role"), "user");
        if (is_user)
            asked = text;
        said = is_user ? "" : text;
        out->prompt_tokens += 3 + TEXT_TOKENS(strlen(text));
    }
    out->text = asked ? rest_of(asked, said) : "";
    return asked != NULL;
}

bool drill_words_read(enum drill_api api, const char *path, const struct json *body, struct drill_ask *out)
{
    static const char *const paths[] = {[DRILL_OPENAI] = "/chat/completions",
                                        [DRILL_TOGETHER] = "/chat/completions",
                                        [DRILL_ANTHROPIC] = "/messages"};
    *out = (struct drill_ask){.api = api};
    if (api == DRILL_GEMINI) {
        const char *method = strchr(path, ':');
        if (!method)
            return false;
        out->is_stream = strcmp(method, ":streamGenerateContent") == 0;
        return (out->is_stream || strcmp(method, ":generateContent") == 0) &&
               read_messages(json_get(body, "contents"), "parts", out);
    }
    out->is_stream = json_is(json_get(body, "stream"), JSON_TRUE);
    return strcmp(path, paths[api]) == 0 && read_messages(json_get(body, "messages"), "content", out);
}

size_t drill_words_token(const char *text)
{
    size_t len = 0;
    while (text[len] == ' ')
        len++;
    while (text[len] && text[len] != ' ')
        len++;
    return len;
}

static size_t count_tokens(const char *text)
{
    size_t count = 0;
    for (size_t len; (len = drill_words_token(text)) > 0; text += len)
        count++;
    return count;
}

/* ---- OpenAI, Together */

static void openai_usage(const struct drill_ask *ask, size_t output, struct buf *out)
{
    buf_printf(out, "{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"total_tokens\":%zu}",
               ask->prompt_tokens, output, ask->prompt_tokens + output);
}

static void openai_begin_chunk(struct buf *out)
{
    buf_puts(out, "data: {\"id\":\"chatcmpl-" MODEL "\",\"object\":\"chat.completion.chunk\","
                  "\"created\":1700000000,\"model\":\"" MODEL "\",\"choices\":[");
}

/* text NULL: none. */
static void openai_delta(const struct drill_ask *ask, const char *text, size_t len, const char *finish,
                         struct buf *out)
{
    openai_begin_chunk(out);
    buf_puts(out, "{\"index\":0,\"delta\":{");
    if (ask->api == DRILL_TOGETHER)
        buf_puts(out, text ? "\"role\":\"assistant\",\"token_id\":7," : "\"role\":\"assistant\"");
    if (text) {
        buf_puts(out, "\"content\":");
        json_write_string(out, text, len);
    }
    buf_printf(out, "},\"logprobs\":null,\"finish_reason\":%s}],\"usage\":", finish);
}

static void openai_begin(const struct drill_ask *ask, struct buf *out)
{
    if (ask->api == DRILL_TOGETHER)
        return;
    openai_begin_chunk(out);
    buf_puts(out, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
                  "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n");
}

static void openai_piece(const struct drill_ask *ask, const char *text, size_t len, size_t sent,
                         struct buf *out)
{
    (void)sent;
    openai_delta(ask, text, len, "null", out);
    buf_puts(out, "null}\n\n");
}

static void openai_end(const struct drill_ask *ask, size_t sent, struct buf *out)
{
    bool is_together = ask->api == DRILL_TOGETHER;
    openai_delta(ask, NULL, 0, is_together ? "\"eos\"" : "\"stop\"", out);
    if (!is_together) {
        buf_puts(out, "null}\n\n");
        openai_begin_chunk(out);
        buf_puts(out, "],\"usage\":");
    }
    openai_usage(ask, sent, out);
    buf_puts(out, "}\n\ndata: [DONE]\n\n");
}

static void openai_whole(const struct drill_ask *ask, struct buf *out)
{
    buf_puts(out, "{\"id\":\"chatcmpl-" MODEL "\",\"object\":\"chat.completion\",\"created\":1700000000,"
                  "\"model\":\"" MODEL "\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                  "\"content\":");
    json_write_string(out, ask->text, strlen(ask->text));
    buf_printf(out, ",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"%s\"}],\"usage\":",
               ask->api == DRILL_TOGETHER ? "eos" : "stop");
    openai_usage(ask, count_tokens(ask->text), out);
    buf_putc(out, '}');
}

/* ---- Anthropic */

static void anthropic_message(const struct drill_ask *ask, const char *text, size_t output, struct buf *out)
{
    buf_puts(out, "{\"id\":\"msg_01" MODEL "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"" MODEL
                  "\",\"content\":[");
    if (text) {
        buf_puts(out, "{\"type\":\"text\",\"text\":");
        json_write_string(out, text, strlen(text));
        buf_putc(out, '}');
    }
    buf_printf(out,
               "],\"stop_reason\":%s,\"stop_sequence\":null,\"usage\":{\"input_tokens\":%zu,"
               "\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":%zu}}",
               text ? "\"end_turn\"" : "null", ask->prompt_tokens, output);
}

static void anthropic_begin(const struct drill_ask *ask, struct buf *out)
{
    buf_puts(out, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
    anthropic_message(ask, NULL, 1, out);
    buf_puts(out, "}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
                  "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
                  "event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

static void anthropic_piece(const struct drill_ask *ask, const char *text, size_t len, size_t sent,
                            struct buf *out)
{
    (void)ask, (void)sent;
    buf_puts(out, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
                  "\"delta\":{\"type\":\"text_delta\",\"text\":");
    json_write_string(out, text, len);
    buf_puts(out, "}}\n\n");
}

static void anthropic_end(const struct drill_ask *ask, size_t sent, struct buf *out)
{
    (void)ask;
    buf_printf(out,
               "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
               "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
               "\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":%zu}}\n\n"
               "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
               sent);
}

static void anthropic_whole(const struct drill_ask *ask, struct buf *out)
{
    anthropic_message(ask, ask->text, count_tokens(ask->text), out);
}

/* ---- Gemini */

static void gemini_reply(const struct drill_ask *ask, const char *text, size_t len, bool is_last, size_t sent,
                         struct buf *out)
{
    buf_puts(out, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":");
    json_write_string(out, text, len);
    buf_printf(out,
               "}],\"role\":\"model\"}%s,\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":%zu,"
               "\"candidatesTokenCount\":%zu,\"totalTokenCount\":%zu},\"modelVersion\":\"" MODEL "\"}",
               is_last ? ",\"finishReason\":\"STOP\"" : "", ask->prompt_tokens, sent,
               ask->prompt_tokens + sent);
}

static void gemini_begin(const struct drill_ask *ask, struct buf *out)
{
    (void)ask, (void)out;
}

static void gemini_piece(const struct drill_ask *ask, const char *text, size_t len, size_t sent,
                         struct buf *out)
{
    buf_puts(out, "data: ");
    gemini_reply(ask, text, len, false, sent, out);
    buf_puts(out, "\r\n\r\n");
}

static void gemini_end(const struct drill_ask *ask, size_t sent, struct buf *out)
{
    buf_puts(out, "data: ");
    gemini_reply(ask, "", 0, true, sent, out);
    buf_puts(out, "\r\n\r\n");
}

static void gemini_whole(const struct drill_ask *ask, struct buf *out)
{
    gemini_reply(ask, ask->text, strlen(ask->text), true, count_tokens(ask->text), out);
}

/* ---- Errors: for each fault that is one, what the four say. %s: the key, which a careless one repeats. */

struct words {
    int status;
    const char *body;
};

#define OPENAI_ERROR(type, code, message) \
    "{\"error\":{\"message\":\"" message "\",\"type\":\"" type "\",\"param\":null,\"code\":" code "}}"
#define ANTHROPIC_ERROR(type, message) \
    "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\"" message "\"}}"
#define GEMINI_ERROR(code, name, message) \
    "{\"error\":{\"code\":" code ",\"message\":\"" message "\",\"status\":\"" name "\"}}"

static const struct error_row {
    const char *fault;
    struct words openai, together, anthropic, gemini;
} errors[] = {
    {"401",
     {401, OPENAI_ERROR("invalid_request_error", "\"invalid_api_key\"", "Incorrect API key provided: %s.")},
     {401, OPENAI_ERROR("invalid_request_error", "\"invalid_api_key\"", "Invalid API key provided: %s")},
     {401, ANTHROPIC_ERROR("authentication_error", "invalid x-api-key %s")},
     {401, GEMINI_ERROR("401", "UNAUTHENTICATED", "Request had invalid credentials: %s.")}},
    {"402",
     {402, OPENAI_ERROR("billing_error", "\"billing_hard_limit_reached\"", "Billing limit reached.")},
     {402, OPENAI_ERROR("credit_limit", "\"credit_limit\"", "Credit limit exceeded.")},
     {402, ANTHROPIC_ERROR("billing_error", "Your account has a billing problem.")},
     {402, GEMINI_ERROR("402", "FAILED_PRECONDITION", "Billing is not enabled for this project.")}},
    {"403",
     {403, OPENAI_ERROR("request_forbidden", "\"unsupported_country_region_territory\"",
                        "Country, region, or territory not supported")},
     {403, OPENAI_ERROR("invalid_request_error", "null", "You do not have access to this model.")},
     {403, ANTHROPIC_ERROR("permission_error", "Your API key may not use the specified resource.")},
     {403, GEMINI_ERROR("403", "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")}},
    {"429",
     {429, OPENAI_ERROR("tokens", "\"rate_limit_exceeded\"", "Rate limit reached for requests.")},
     {429, OPENAI_ERROR("rate_limit", "\"rate_limit\"", "You have reached the rate limit of this model.")},
     {429, ANTHROPIC_ERROR("rate_limit_error", "This request would exceed your rate limit.")},
     {429, GEMINI_ERROR("429", "RESOURCE_EXHAUSTED", "Resource has been exhausted (check quota).")}},
    {"429-retry",
     {429, OPENAI_ERROR("tokens", "\"rate_limit_exceeded\"", "Rate limit reached for requests.")},
     {429, OPENAI_ERROR("rate_limit", "\"rate_limit\"", "You have reached the rate limit of this model.")},
     {429, ANTHROPIC_ERROR("rate_limit_error", "This request would exceed your rate limit.")},
     {429, "{\"error\":{\"code\":429,\"message\":\"Resource has been exhausted.\",\"status\":"
           "\"RESOURCE_EXHAUSTED\",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\","
           "\"retryDelay\":\"1s\"}]}}"}},
    {"quota",
     {429, OPENAI_ERROR("insufficient_quota", "\"insufficient_quota\"",
                        "You exceeded your current quota, please check your plan.")},
     {429, OPENAI_ERROR("insufficient_quota", "\"insufficient_quota\"", "You exceeded your current quota.")},
     {400, ANTHROPIC_ERROR("invalid_request_error",
                           "Your credit balance is too low to access the Anthropic API.")},
     {429, GEMINI_ERROR("429", "RESOURCE_EXHAUSTED",
                        "You exceeded your current quota, please check your plan and billing details.")}},
    {"500",
     {500, OPENAI_ERROR("server_error", "null", "The server had an error while processing your request.")},
     {500, OPENAI_ERROR("server_error", "null", "Internal server error")},
     {500, ANTHROPIC_ERROR("api_error", "Internal server error")},
     {500, GEMINI_ERROR("500", "INTERNAL", "An internal error has occurred.")}},
    {"overloaded",
     {503, OPENAI_ERROR("service_unavailable_error", "null", "That model is currently overloaded.")},
     {503, OPENAI_ERROR("service_unavailable", "null", "The server is overloaded or not ready yet.")},
     {529, ANTHROPIC_ERROR("overloaded_error", "Overloaded")},
     {503, GEMINI_ERROR("503", "UNAVAILABLE", "The model is overloaded. Please try again later.")}},
    {"key", /* not a fault: a request without the right key */
     {401, OPENAI_ERROR("invalid_request_error", "\"invalid_api_key\"", "Incorrect API key provided.")},
     {401, OPENAI_ERROR("invalid_request_error", "\"invalid_api_key\"", "Invalid API key provided.")},
     {401, ANTHROPIC_ERROR("authentication_error", "invalid x-api-key")},
     {400, GEMINI_ERROR("400", "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")}},
    {"bad", /* nor is this */
     {400, OPENAI_ERROR("invalid_request_error", "null", "This request cannot be read.")},
     {400, OPENAI_ERROR("invalid_request_error", "null", "This request cannot be read.")},
     {400, ANTHROPIC_ERROR("invalid_request_error", "messages: this request cannot be read")},
     {400, GEMINI_ERROR("400", "INVALID_ARGUMENT", "contents: this request cannot be read")}},
};

static const struct words *error_words(enum drill_api api, const char *fault)
{
    size_t i = 0;
    while (i + 1 < sizeof errors / sizeof *errors && strcmp(errors[i].fault, fault) != 0)
        i++;
    const struct error_row *row = &errors[i];
    const struct words *const each[DRILL_API_COUNT] = {&row->openai, &row->together, &row->anthropic,
                                                       &row->gemini};
    return each[api];
}

int drill_words_error(enum drill_api api, const char *fault, const char *key, struct buf *out)
{
    const struct words *words = error_words(api, fault);
    const char *gap = strstr(words->body, "%s");
    if (gap) {
        buf_append(out, words->body, (size_t)(gap - words->body));
        buf_puts(out, key);
        buf_puts(out, gap + 2);
    } else {
        buf_puts(out, words->body);
    }
    return words->status;
}

/* ---- All of them */

static const struct dialect {
    void (*begin)(const struct drill_ask *ask, struct buf *out);
    void (*piece)(const struct drill_ask *ask, const char *text, size_t len, size_t sent, struct buf *out);
    void (*end)(const struct drill_ask *ask, size_t sent, struct buf *out);
    void (*whole)(const struct drill_ask *ask, struct buf *out);
    const char *error_event, *error_fault;
} dialects[DRILL_API_COUNT] = {
    [DRILL_OPENAI] = {openai_begin, openai_piece, openai_end, openai_whole, "", "500"},
    [DRILL_TOGETHER] = {openai_begin, openai_piece, openai_end, openai_whole, "", "500"},
    [DRILL_ANTHROPIC] = {anthropic_begin, anthropic_piece, anthropic_end, anthropic_whole, "event: error\n",
                         "overloaded"},
    [DRILL_GEMINI] = {gemini_begin, gemini_piece, gemini_end, gemini_whole, "", "overloaded"}};

void drill_words_begin(const struct drill_ask *ask, struct buf *out)
{
    dialects[ask->api].begin(ask, out);
}

void drill_words_piece(const struct drill_ask *ask, const char *text, size_t len, size_t sent,
                       struct buf *out)
{
    dialects[ask->api].piece(ask, text, len, sent, out);
}

void drill_words_end(const struct drill_ask *ask, size_t sent, struct buf *out)
{
    dialects[ask->api].end(ask, sent, out);
}

void drill_words_whole(const struct drill_ask *ask, struct buf *out)
{
    dialects[ask->api].whole(ask, out);
}

void drill_words_error_event(enum drill_api api, struct buf *out)
{
    const struct dialect *dialect = &dialects[api];
    buf_printf(out, "%sdata: ", dialect->error_event);
    (void)drill_words_error(api, dialect->error_fault, "", out);
    buf_puts(out, "\n\n");
}
