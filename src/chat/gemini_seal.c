/* Gemini's signatures inside the ids of tool calls.
 *
 * Gemini seals what it thought before a call into `thoughtSignature` and refuses the next request when the
 * call comes back without it. No client of another dialect has a place for that, but all of them send a
 * call's id back as it was, in every dialect. So the id carries the seal; nothing has to be remembered here,
 * and a conversation goes on after a restart, or on another station.
 *
 *     id       = base [ "_sig_" base64url | "_sigx_" hex ]
 *     base     = "gem_" Gemini's id | the id that was made here
 *
 * Letters, digits, "_" and "-" are what other providers accept in an id, should the conversation move on to
 * them. A signature is base64; one that is not in its usual form is carried in hex, so that what comes back
 * is always what came. */
#include <string.h>

#include "base/bytes.h"
#include "chat/gemini_int.h"

static const char own[] = "gem_", sealed[] = "_sig_", sealed_hex[] = "_sigx_";

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_plain_id(const char *id)
{
    for (const char *c = id; *c; c++)
        if (!is_alnum(*c) && *c != '_' && *c != '-')
            return false;
    return *id && strlen(id) <= 64 &&
           !strstr(id, "_sig"); /* with a mark behind it: the mark is found first */
}

/* Padded to fours, "=" at the end only. */
static bool is_usual_base64(const char *text, size_t len)
{
    size_t body = len;
    while (body && len - body < 2 && text[body - 1] == '=')
        body--;
    for (size_t i = 0; i < body; i++)
        if (!is_alnum(text[i]) && text[i] != '+' && text[i] != '/')
            return false;
    return len && len % 4 == 0;
}

static void put_base64url(char *to, const char *from, size_t len)
{
    for (size_t i = 0; i < len && from[i] != '='; i++)
        *to++ = from[i] == '+' ? '-' : (from[i] == '/' ? '_' : from[i]);
    *to = 0;
}

const char *gemini_seal(struct arena *arena, const char *made, const struct gemini_seal *seal)
{
    bool has_id = seal->id && is_plain_id(seal->id);
    const char *base = has_id ? seal->id : made, *signature = seal->signature ? seal->signature : "";
    size_t base_len = strlen(base), len = strlen(signature);
    char *id = arena_alloc(arena, sizeof own + base_len + sizeof sealed_hex + 2 * len + 1);
    if (!id)
        return NULL;
    char *to = id;
    if (has_id) {
        memcpy(to, own, sizeof own - 1);
        to += sizeof own - 1;
    }
    memcpy(to, base, base_len + 1);
    to += base_len;
    if (len == 0)
        return id;
    if (is_usual_base64(signature, len)) {
        memcpy(to, sealed, sizeof sealed - 1);
        put_base64url(to + sizeof sealed - 1, signature, len);
    } else {
        memcpy(to, sealed_hex, sizeof sealed_hex - 1);
        bytes_hex(to + sizeof sealed_hex - 1, signature, len);
    }
    return id;
}

static void get_base64(char *to, const char *from)
{
    size_t len = 0;
    for (; *from; from++)
        to[len++] = *from == '-' ? '+' : (*from == '_' ? '/' : *from);
    while (len % 4)
        to[len++] = '=';
    to[len] = 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool get_hex(char *to, const char *from)
{
    for (; from[0] && from[1]; from += 2) {
        int high = hex_value(from[0]), low = hex_value(from[1]);
        if (high < 0 || low < 0)
            return false;
        *to++ = (char)(high * 16 + low);
    }
    *to = 0;
    return !from[0];
}

enum ph_status gemini_unseal(struct arena *arena, const char *id, struct gemini_seal *out)
{
    bool has_id = strncmp(id, own, sizeof own - 1) == 0;
    const char *base = has_id ? id + sizeof own - 1 : id;
    const char *mark = strstr(base, sealed), *mark_hex = strstr(base, sealed_hex);
    bool in_hex = mark_hex && (!mark || mark_hex < mark);
    const char *cut = in_hex ? mark_hex : mark;
    const char *text = cut ? cut + (in_hex ? sizeof sealed_hex : sizeof sealed) - 1 : NULL;
    *out = (struct gemini_seal){0};
    if (has_id) {
        out->id = arena_strndup(arena, base, cut ? (size_t)(cut - base) : strlen(base));
        if (!out->id)
            return PH_ERR_NOMEM;
    }
    if (!text || !*text)
        return PH_OK;
    char *signature = arena_alloc(arena, strlen(text) + 4);
    if (!signature)
        return PH_ERR_NOMEM;
    if (!in_hex)
        get_base64(signature, text);
    else if (!get_hex(signature, text))
        return PH_OK; /* not one of ours */
    out->signature = signature;
    return PH_OK;
}
