/* What goes wrong between us and a provider, in the client's terms; and other small readings of a request
 * and a reply. */
#include <stdio.h>
#include <string.h>

#include "provider/provider_remote_int.h"

/* What a client sees for a cause. Status 0: what the codec said. */
struct face {
    int http_status;
    const char *code;
};

static struct face face_of(enum chat_cause cause)
{
    static const struct face faces[CHAT_CAUSE_COUNT] = {
        [CHAT_CAUSE_KEY] = {502, "provider_key_rejected"},
        [CHAT_CAUSE_BUDGET] = {502, "provider_key_rejected"},
        [CHAT_CAUSE_OVERLOADED] = {503, "provider_overloaded"},
        [CHAT_CAUSE_SERVER] = {502, "provider_error"},
        [CHAT_CAUSE_NETWORK] = {502, "provider_unreachable"},
        [CHAT_CAUSE_TIMEOUT] = {504, "provider_timeout"},
        [CHAT_CAUSE_CUT] = {502, "provider_reply_cut"},
        [CHAT_CAUSE_NO_MODEL] = {502, "provider_model_not_found"},
        [CHAT_CAUSE_RATE] = {429, NULL},
    };
    return faces[cause];
}

/* Of the request, not of the provider: the message stays as it is, for clients that read it. */
static bool is_about_request(enum chat_cause cause)
{
    return cause == CHAT_CAUSE_REQUEST || cause == CHAT_CAUSE_CONTEXT || cause == CHAT_CAUSE_REFUSED ||
           cause == CHAT_CAUSE_UNABLE || cause == CHAT_CAUSE_OURS;
}

void remote_fault_of_end(struct chat_fault *fault, const char *provider, enum http_call_end how,
                         const char *message)
{
    static const enum chat_cause causes[] = {
        [HTTP_CALL_WHOLE] = CHAT_CAUSE_CUT,
        [HTTP_CALL_NO_NAME] = CHAT_CAUSE_NETWORK,
        [HTTP_CALL_NO_CONNECTION] = CHAT_CAUSE_NETWORK,
        [HTTP_CALL_TLS] = CHAT_CAUSE_NETWORK,
        [HTTP_CALL_TIMEOUT_CONNECT] = CHAT_CAUSE_TIMEOUT,
        [HTTP_CALL_TIMEOUT_HEAD] = CHAT_CAUSE_TIMEOUT,
        [HTTP_CALL_TIMEOUT_SILENCE] = CHAT_CAUSE_TIMEOUT,
        [HTTP_CALL_TIMEOUT_TOTAL] = CHAT_CAUSE_TIMEOUT,
        [HTTP_CALL_CUT] = CHAT_CAUSE_CUT,
        [HTTP_CALL_TOO_LARGE] = CHAT_CAUSE_SERVER,
        [HTTP_CALL_BAD_REPLY] = CHAT_CAUSE_SERVER,
        [HTTP_CALL_UNSENT] = CHAT_CAUSE_OURS,
        [HTTP_CALL_FAILED] = CHAT_CAUSE_OURS,
    };
    enum chat_cause cause = causes[how];
    struct face face = face_of(cause);
    chat_fault_set(fault, face.http_status ? face.http_status : 503, face.code, NULL, "%s: %s", provider,
                   message);
    fault->cause = cause;
}

void remote_fault_dress(struct chat_fault *fault, const struct account_pass *pass, int http_status)
{
    struct chat_fault from = *fault;
    struct face face = face_of(from.cause);
    const char *name = account_pass_name(pass), *hint = account_pass_hint(pass);
    account_pass_scrub(pass, from.message);
    chat_scrub(from.message);
    int status = face.http_status ? face.http_status : from.http_status;
    const char *code = face.code ? face.code : from.code;
    if (is_about_request(from.cause))
        chat_fault_set(fault, status, code, from.param, "%s", from.message);
    else if (from.cause == CHAT_CAUSE_KEY && hint)
        chat_fault_set(fault, status, code, NULL, "%s refused key %s (%d): %s", name, hint, http_status,
                       from.message);
    else
        chat_fault_set(fault, status, code, NULL, "%s: %s", name, from.message);
    if (!face.http_status && from.type)
        fault->type = from.type;
    fault->cause = from.cause;
    fault->retry_after_s = from.retry_after_s;
}

void remote_fault_keep(struct chat_fault *fault, struct arena *arena)
{
    const char **strings[] = {&fault->type, &fault->code, &fault->param};
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++)
        if (*strings[i])
            *strings[i] = arena_strdup(arena, *strings[i]);
}

/* ---- Media types */

static bool begins_with(const char *text, const char *word)
{
    size_t i = 0;
    while (word[i] && (text[i] | 0x20) == word[i])
        i++;
    return word[i] == 0 && (text[i] == 0 || text[i] == ';' || text[i] == ' ' || text[i] == '\t');
}

enum remote_body remote_body_of(const char *content_type)
{
    if (!content_type || !*content_type)
        return REMOTE_BODY_UNKNOWN;
    if (begins_with(content_type, "text/event-stream"))
        return REMOTE_BODY_STREAM;
    if (begins_with(content_type, "application/json") ||
        begins_with(content_type, "application/problem+json"))
        return REMOTE_BODY_JSON;
    return REMOTE_BODY_OTHER;
}

/* ---- Conversations */

#define HASH_BASIS UINT64_C(0xcbf29ce484222325)
#define HASH_FACTOR UINT64_C(0x9e3779b97f4a7c15)

static uint64_t hash_word(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * HASH_FACTOR;
    return hash ^ hash >> 29;
}

/* Eight bytes a step, because a conversation may begin with a whole book. */
static uint64_t hash_bytes(uint64_t hash, const char *bytes, size_t len)
{
    uint64_t word, rest = len;
    for (; len >= sizeof word; bytes += sizeof word, len -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = hash_word(hash, word);
    }
    for (; len; bytes++, len--)
        rest = rest << 8 | (unsigned char)*bytes;
    return hash_word(hash, rest);
}

/* Without a name a conversation is known by its beginning, up to what its user said first: that is also what
 * a prompt cache would have of it. */
uint64_t remote_sticky(const struct chat_request *request)
{
    uint64_t hash = HASH_BASIS;
    if (request->conversation)
        return hash_bytes(hash, request->conversation, strlen(request->conversation));
    if (request->user)
        hash = hash_bytes(hash, request->user, strlen(request->user));
    if (request->kind != CHAT_KIND_CHAT)
        return request->user ? hash : 0;
    for (size_t i = 0; i < request->message_count; i++) {
        const struct chat_message *message = &request->messages[i];
        if (message->content.text)
            hash = hash_bytes(hash, message->content.text, message->content.len);
        if (message->role == CHAT_USER)
            break;
    }
    return hash;
}
