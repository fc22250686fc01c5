/* Faults: what went wrong, in a dialect's terms. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "chat/chat.h"

#define SECRET_BYTES_MIN 8 /* a shorter one would be found in ordinary words */

static const char *type_of(int http_status)
{
    switch (http_status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    default:
        return http_status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static enum chat_cause cause_of(int http_status)
{
    if (http_status == 429)
        return CHAT_CAUSE_RATE;
    return http_status >= 500 ? CHAT_CAUSE_OURS : CHAT_CAUSE_REQUEST;
}

const char *chat_cause_name(enum chat_cause cause)
{
    static const char *const names[CHAT_CAUSE_COUNT] = {
        "station", "request", "key",     "rate",    "overloaded", "server", "network",
        "timeout", "cut",     "context", "refused", "no_model",   "unable", "budget"};
    return names[cause];
}

void chat_fault_set(struct chat_fault *fault, int http_status, const char *code, const char *param,
                    const char *fmt, ...)
{
    *fault = (struct chat_fault){.http_status = http_status,
                                 .type = type_of(http_status),
                                 .code = code,
                                 .param = param,
                                 .cause = cause_of(http_status)};
    struct ph_err cut; /* messages end at a character boundary, as everywhere */
    char message[2 * PH_ERR_MESSAGE_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    (void)ph_fail(&cut, PH_ERR_ARG, "%s", message);
    snprintf(fault->message, sizeof fault->message, "%s", cut.message);
}

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '*';
}

/* Providers' prefixes, or masked but for its ends ("xa***ey"), or long and of letters and digits without a
 * gap, as no word and no model's name is. */
static bool looks_like_key(const char *word, size_t len)
{
    static const char *const prefixes[] = {"sk-",  "sk_",  "pk-",  "gsk_",   "xai-",  "hf_",
                                           "AIza", "tgp_", "csk-", "nvapi-", "pplx-", "fw_"};
    bool letter = false, digit = false;
    for (size_t i = 0; len >= 6 && i + 3 <= len; i++)
        if (memcmp(word + i, "***", 3) == 0)
            return true;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (len >= 10 && strncmp(word, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    for (size_t i = 0; i < len; i++) {
        if (word[i] == '-')
            return false;
        digit = digit || (word[i] >= '0' && word[i] <= '9');
        letter = letter || (word[i] >= 'A');
    }
    return len >= 32 && letter && digit;
}

static const char mark[] = "[key]";
static_assert(sizeof mark <= SECRET_BYTES_MIN, "what takes a secret's place is shorter");

void chat_scrub_secret(char *text, const char *secret)
{
    size_t len = strlen(secret);
    char *to = text, *from = text;
    for (char *found; len >= SECRET_BYTES_MIN && (found = strstr(from, secret)); from = found + len) {
        memmove(to, from, (size_t)(found - from));
        to += found - from;
        memcpy(to, mark, sizeof mark - 1);
        to += sizeof mark - 1;
    }
    memmove(to, from, strlen(from) + 1);
}

void chat_scrub(char *message)
{
    char *to = message;
    for (const char *from = message; *from;) {
        size_t len = 0;
        while (is_key_char(from[len]))
            len++;
        bool key = looks_like_key(from, len); /* longer than its mark */
        const char *word = key ? mark : from;
        size_t word_len = key ? sizeof mark - 1 : (len ? len : 1);
        memmove(to, word, word_len);
        to += word_len;
        from += len ? len : 1;
    }
    *to = 0;
}

struct chat_event chat_fault_event(const struct chat_fault *fault, enum ph_status status)
{
    struct chat_event event = {.kind = CHAT_EVENT_ERROR};
    event.error.status = status;
    event.error.http_status = fault->http_status;
    event.error.type = fault->type;
    event.error.code = fault->code;
    event.error.param = fault->param;
    event.error.message = fault->message;
    event.error.retry_after_s = fault->retry_after_s;
    event.error.cause = fault->cause;
    return event;
}

size_t chat_choice_count(const struct chat_request *request)
{
    size_t prompts = request->kind == CHAT_KIND_COMPLETION ? request->prompt_count : 1;
    return prompts * request->choices;
}
