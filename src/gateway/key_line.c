/* A key as one line of the file: a JSON object whose members are a table here. A member that a key does not
 * have is not written; members that are not ours stay as they are. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/utf8.h"
#include "gateway/keys_int.h"

#define COUNT_MAX ((int64_t)1 << 53) /* what every reader of JSON keeps exactly */

/* Whole numbers; 0 is not written. */
static const struct {
    const char *name;
    size_t offset;
} counts[] = {
    {"rpm", offsetof(struct key, rpm)},
    {"tpm", offsetof(struct key, tpm)},
    {"concurrency", offsetof(struct key, concurrency)},
    {"created_at", offsetof(struct key, created_unix_s)},
    {"expires_at", offsetof(struct key, expires_unix_s)},
    {"revoked_at", offsetof(struct key, revoked_unix_s)},
};
#define COUNT_COUNT (sizeof counts / sizeof counts[0])

static int64_t *count_at(struct key *key, size_t i)
{
    return (int64_t *)((char *)key + counts[i].offset);
}

static int64_t count_of(const struct key *key, size_t i)
{
    return *(const int64_t *)((const char *)key + counts[i].offset);
}

/* ---- Reading */

/* Text that may stand in a terminal and a log. */
static bool is_printable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return false;
    return utf8_valid(text, len);
}

static enum ph_status read_text(const struct json *value, const char *member, char *out, size_t size,
                                struct ph_err *err)
{
    if (!json_is(value, JSON_STRING))
        return ph_fail(err, PH_ERR_FORMAT, "\"%s\" is no text", member);
    if (value->u.str.len >= size || !is_printable(value->u.str.text, value->u.str.len))
        return ph_fail(err, PH_ERR_FORMAT, "\"%s\" is longer than %zu bytes or has control characters",
                       member, size - 1);
    memcpy(out, value->u.str.text, value->u.str.len);
    out[value->u.str.len] = 0;
    return PH_OK;
}

static enum ph_status read_id(const struct json *value, const char *member, char out[KEY_ID_LEN + 1],
                              struct ph_err *err)
{
    const char *text = json_text(value, "");
    if (!key_id_is_valid(text))
        return ph_fail(err, PH_ERR_FORMAT, "\"%s\" is no key's id", member);
    memcpy(out, text, KEY_ID_LEN + 1);
    return PH_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum ph_status read_hash(const struct json *value, uint8_t out[KEY_HASH_BYTES], struct ph_err *err)
{
    const char *text = json_text(value, "");
    bool good = strlen(text) == 2 * KEY_HASH_BYTES;
    for (size_t i = 0; good && i < KEY_HASH_BYTES; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        good = high >= 0 && low >= 0;
        out[i] = (uint8_t)(good ? high << 4 | low : 0);
    }
    return good ? PH_OK : ph_fail(err, PH_ERR_FORMAT, "\"sha256\" is not 64 hexadecimal digits");
}

static enum ph_status read_scopes(const struct json *list, struct key *out, struct ph_err *err)
{
    if (json_is_absent(list))
        return PH_OK;
    if (!json_is(list, JSON_ARRAY) || json_count(list) > KEY_SCOPES_MAX)
        return ph_fail(err, PH_ERR_FORMAT, "\"scopes\" is no list of at most %d", KEY_SCOPES_MAX);
    JSON_EACH (item, list) {
        enum ph_status status = read_text(item, "scopes", out->scopes[out->scope_count], KEY_SCOPE_MAX, err);
        if (status != PH_OK)
            return status;
        out->scope_count++;
    }
    return PH_OK;
}

static enum ph_status read_numbers(const struct json *object, struct key *out, struct ph_err *err)
{
    for (size_t i = 0; i < COUNT_COUNT; i++) {
        const struct json *value = json_get(object, counts[i].name);
        int64_t *count = count_at(out, i);
        if (!json_is_absent(value) && (!json_to_int64(value, count) || *count < 0 || *count > COUNT_MAX))
            return ph_fail(err, PH_ERR_FORMAT, "\"%s\" is no whole number from 0 to 2^53", counts[i].name);
    }
    const struct json *budget = json_get(object, "budget_usd_month");
    out->budget_usd_month = -1;
    if (!json_is_absent(budget) &&
        (!json_to_double(budget, &out->budget_usd_month) || out->budget_usd_month < 0))
        return ph_fail(err, PH_ERR_FORMAT, "\"budget_usd_month\" is no number from 0");
    return PH_OK;
}

enum ph_status key_line_read(const struct json *object, struct key *out, struct ph_err *err)
{
    *out = (struct key){0};
    if (!json_is(object, JSON_OBJECT))
        return ph_fail(err, PH_ERR_FORMAT, "this is no JSON object");
    enum ph_status status = read_id(json_get(object, "id"), "id", out->id, err);
    const struct json *account = json_get(object, "account"), *next = json_get(object, "replaced_by");
    memcpy(out->account, out->id, sizeof out->account);
    if (status == PH_OK && !json_is_absent(account))
        status = read_id(account, "account", out->account, err);
    if (status == PH_OK && !json_is_absent(next))
        status = read_id(next, "replaced_by", out->replaced_by, err);
    if (status == PH_OK && !json_is_absent(json_get(object, "name")))
        status = read_text(json_get(object, "name"), "name", out->name, sizeof out->name, err);
    if (status == PH_OK && !json_is_absent(json_get(object, "user")))
        status = read_text(json_get(object, "user"), "user", out->user, sizeof out->user, err);
    if (status == PH_OK)
        status = read_scopes(json_get(object, "scopes"), out, err);
    if (status == PH_OK)
        status = read_numbers(object, out, err);
    if (status == PH_OK)
        status = read_hash(json_get(object, "sha256"), out->hash, err);
    return status;
}

/* ---- Writing */

struct line_writer {
    struct arena *arena;
    struct json *object;
    bool failed; /* no memory for one of its members */
};

static void set(struct line_writer *w, const char *member, struct json *value)
{
    w->failed |= !json_set(w->arena, w->object, member, value);
}

static void set_text(struct line_writer *w, const char *member, const char *text)
{
    set(w, member, json_new_string(w->arena, text, strlen(text)));
}

static void set_scopes(struct line_writer *w, const struct key *key)
{
    struct json *list = json_new(w->arena, JSON_ARRAY);
    for (size_t i = 0; i < key->scope_count; i++)
        w->failed |= !json_push(list, json_new_string(w->arena, key->scopes[i], strlen(key->scopes[i])));
    set(w, "scopes", list);
}

static void set_hash(struct line_writer *w, const struct key *key)
{
    char hex[2 * KEY_HASH_BYTES + 1];
    bytes_hex(hex, key->hash, KEY_HASH_BYTES);
    set_text(w, "sha256", hex);
}

enum ph_status key_line_update(struct arena *arena, struct json *object, const struct key *key)
{
    struct line_writer w = {.arena = arena, .object = object};
    set_text(&w, "id", key->id);
    set_text(&w, "name", key->name);
    if (key->user[0])
        set_text(&w, "user", key->user);
    if (strcmp(key->account, key->id) != 0)
        set_text(&w, "account", key->account);
    if (key->scope_count)
        set_scopes(&w, key);
    if (key->budget_usd_month >= 0)
        set(&w, "budget_usd_month", json_new_double(arena, key->budget_usd_month));
    for (size_t i = 0; i < COUNT_COUNT; i++)
        if (count_of(key, i))
            set(&w, counts[i].name, json_new_int(arena, count_of(key, i)));
    if (key->replaced_by[0])
        set_text(&w, "replaced_by", key->replaced_by);
    set_hash(&w, key);
    return w.failed ? PH_ERR_NOMEM : PH_OK;
}

/* ---- What people give */

static bool is_scope(const char *scope)
{
    static const char models[] = "models:";
    return strcmp(scope, "chat") == 0 || strcmp(scope, "read") == 0 || strcmp(scope, "admin") == 0 ||
           (strncmp(scope, models, sizeof models - 1) == 0 && scope[sizeof models - 1]);
}

enum ph_status key_spec_check(const struct key *spec, struct ph_err *err)
{
    if (!is_printable(spec->name, strlen(spec->name)))
        return ph_fail(err, PH_ERR_ARG, "the name is not UTF-8, or has control characters");
    if (!is_printable(spec->user, strlen(spec->user)))
        return ph_fail(err, PH_ERR_ARG, "the user is not UTF-8, or has control characters");
    if (spec->scope_count > KEY_SCOPES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "a key has at most %d scopes", KEY_SCOPES_MAX);
    for (size_t i = 0; i < spec->scope_count; i++)
        if (!is_scope(spec->scopes[i]) || !is_printable(spec->scopes[i], strlen(spec->scopes[i])))
            return ph_fail(err, PH_ERR_ARG, "\"%s\" is no scope; there are chat, read, admin, models:NAME",
                           spec->scopes[i]);
    if (isnan(spec->budget_usd_month) || isinf(spec->budget_usd_month))
        return ph_fail(err, PH_ERR_ARG, "the budget is no number");
    for (size_t i = 0; i < COUNT_COUNT; i++)
        if (count_of(spec, i) < 0 || count_of(spec, i) > COUNT_MAX)
            return ph_fail(err, PH_ERR_ARG, "%s is not between 0 and 2^53", counts[i].name);
    return PH_OK;
}
