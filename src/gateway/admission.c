/* Admission: whose request it is, what it may do, and whether it comes too fast.
 *
 * Both ways of showing a key are taken on every path, because clients mix them. Without any key in the file a
 * station on loopback serves everybody on its machine; as soon as there is one, everybody needs one. */
#include <string.h>
#include <strings.h>

#include "gateway/gateway_int.h"

const char *caller_account(const struct caller *caller)
{
    return caller->key ? caller->key->account : "";
}

bool caller_may_see(const struct gateway *gateway, const struct caller *caller, const char *record,
                    size_t len)
{
    struct arena scratch;
    struct json *value = NULL;
    bool may = !caller->key || key_allows(caller->key, "admin");
    if (may)
        return true;
    arena_init(&scratch, HTTP_REQUEST_ARENA_BYTES_MAX);
    if (json_parse(&scratch, record, len, &value, NULL) == PH_OK) {
        const char *id = json_text(json_get(value, "key"), "");
        for (size_t i = 0; i < keys_count(gateway->keys) && !may; i++) {
            const struct key *key = keys_at(gateway->keys, i);
            may = strcmp(key->id, id) == 0 && strcmp(key->account, caller->key->account) == 0;
        }
    }
    arena_release(&scratch);
    return may;
}

/* The key as shown; NULL: none. */
static const char *shown_key(const struct http_request *request)
{
    const char *bearer = http_request_header(request, "authorization");
    if (bearer && strncasecmp(bearer, "bearer ", 7) == 0) {
        bearer += 7;
        while (*bearer == ' ')
            bearer++;
        if (*bearer)
            return bearer;
    }
    return http_request_header(request, "x-api-key");
}

static bool refuse(struct chat_fault *fault, const char *text)
{
    chat_fault_set(fault, 401, "invalid_api_key", NULL, "%s", text);
    return false;
}

bool admission_check(struct gateway *gateway, const struct http_request *request, const char *scope,
                     struct caller *out, struct chat_fault *fault)
{
    static const char *const words[] = {
        [KEY_MALFORMED] =
            "this is not a key of this station: keys look like sk-pharos-... (`pharos keys create`)",
        [KEY_UNKNOWN] = "this key is not known here; it may belong to another station",
        [KEY_REVOKED] = "this key was revoked",
        [KEY_EXPIRED] = "this key has expired; `pharos keys create` makes a new one"};
    *out = (struct caller){.key = NULL};
    if (!scope || (gateway->local_only && (!gateway->keys || !keys_on(gateway->keys))))
        return true;
    const char *text = shown_key(request);
    if (!text || !*text)
        return refuse(fault, "a key is needed: send Authorization: Bearer sk-pharos-..., or x-api-key");
    if (!gateway->keys)
        return refuse(fault, words[KEY_UNKNOWN]);
    enum key_verdict verdict = keys_check(gateway->keys, text, strlen(text), &out->key);
    if (verdict != KEY_OK) {
        out->key = NULL;
        return refuse(fault, words[verdict]);
    }
    if (key_allows(out->key, scope))
        return true;
    chat_fault_set(fault, 403, "key_not_allowed", NULL, "this key may not do this: it lacks the scope \"%s\"",
                   scope);
    return false;
}

bool admission_begin(struct gateway *gateway, struct caller *caller, uint64_t tokens,
                     struct chat_fault *fault)
{
    const struct key *key = caller->key;
    if (!key || (!key->rpm && !key->tpm && !key->concurrency))
        return true;
    struct rate_limits limits = {key->rpm, key->tpm, key->concurrency};
    uint32_t retry_after_s = 0;
    const char *which = "";
    if (rates_take(gateway->rates, key->account, &limits, tokens, &caller->take, &retry_after_s, &which))
        return true;
    chat_fault_set(fault, 429, "rate_limit_exceeded", NULL,
                   "this key has used its %s of this minute; try again in %u s", which,
                   (unsigned)retry_after_s);
    fault->retry_after_s = retry_after_s;
    return false;
}

void admission_end(struct gateway *gateway, struct caller *caller, uint64_t tokens_used)
{
    rates_give(gateway->rates, &caller->take, tokens_used);
}
