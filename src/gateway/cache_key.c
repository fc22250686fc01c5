/* What makes two requests the same.
 *
 * The request is walked and fed to SHA-256 as pieces, each with its kind and length before it, so that no two
 * different walks give the same bytes. Members go in the order of their names; the same name twice stays
 * twice, in the order it came, because not every reader takes the last one. A number goes by its value where
 * that is exact (1, 1.0 and 1e0 are one), else as it was written.
 *
 * Left out is what cannot change what a model says: how the reply is sent, who asks for statistics' sake,
 * and hints for a provider's own caches. Of the metadata only the task stays: routes may choose by it. */
#include <stdlib.h>
#include <string.h>

#include "gateway/cache_int.h"

/* Members of the body. "model" is fed by its meaning. */
static const char *const left_out[] = {"model",    "stream",           "stream_options",    "user",
                                       "metadata", "prompt_cache_key", "safety_identifier", "store"};

/* Decimal texts of so many characters are told apart by their doubles. */
#define EXACT_NUMBER_LEN_MAX 15

struct key_walk {
    EVP_MD_CTX *hasher;
    struct arena *arena;
    bool failed;
};

static void feed(struct key_walk *walk, char kind, const void *bytes, size_t len)
{
    unsigned char head[9] = {(unsigned char)kind};
    for (int i = 0; i < 8; i++)
        head[1 + i] = (unsigned char)((uint64_t)len >> 8 * i & 0xff);
    if (EVP_DigestUpdate(walk->hasher, head, sizeof head) != 1 ||
        (len && EVP_DigestUpdate(walk->hasher, bytes, len) != 1))
        walk->failed = true;
}

/* A count, or a mark without bytes. */
static void feed_head(struct key_walk *walk, char kind, size_t count)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)count >> 8 * i & 0xff);
    feed(walk, kind, bytes, sizeof bytes);
}

static void feed_string(struct key_walk *walk, const char *text)
{
    if (text)
        feed(walk, 's', text, strlen(text));
    else
        feed_head(walk, 'z', 0);
}

static void feed_number(struct key_walk *walk, const struct json *value)
{
    double number;
    if (value->u.str.len > EXACT_NUMBER_LEN_MAX || !json_to_double(value, &number)) {
        feed(walk, 'w', value->u.str.text, value->u.str.len);
        return;
    }
    number += 0.0; /* -0 is 0 */
    feed(walk, 'n', &number, sizeof number);
}

/* ---- Objects */

struct member {
    const struct json *value;
    size_t index; /* as it came */
};

static int compare_members(const void *a, const void *b)
{
    const struct member *m = a, *n = b;
    size_t m_len = m->value->key_len, n_len = n->value->key_len;
    int order = memcmp(m->value->key, n->value->key, m_len < n_len ? m_len : n_len);
    if (order == 0)
        order = (m_len > n_len) - (m_len < n_len);
    return order ? order : (m->index > n->index) - (m->index < n->index);
}

static bool is_left_out(const struct json *member)
{
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        if (member->key_len == strlen(left_out[i]) && strcmp(member->key, left_out[i]) == 0)
            return true;
    return false;
}

static void feed_value(struct key_walk *walk, const struct json *value);

static void feed_object(struct key_walk *walk, const struct json *object, bool is_body)
{
    struct member *members = arena_alloc(walk->arena, json_count(object) * sizeof *members);
    size_t count = 0;
    if (!members) {
        walk->failed = true;
        return;
    }
    JSON_EACH (member, object) {
        if (is_body && is_left_out(member))
            continue;
        members[count] = (struct member){member, count};
        count++;
    }
    qsort(members, count, sizeof *members, compare_members);
    feed_head(walk, 'o', count);
    for (size_t i = 0; i < count; i++) {
        feed(walk, 'k', members[i].value->key, members[i].value->key_len);
        feed_value(walk, members[i].value);
    }
}

/* The parser bounds the depth. */
static void feed_value(struct key_walk *walk, const struct json *value)
{
    switch (value->type) {
    case JSON_NULL:
    case JSON_FALSE:
    case JSON_TRUE:
        feed_head(walk, 'c', value->type);
        break;
    case JSON_NUMBER:
        feed_number(walk, value);
        break;
    case JSON_STRING:
        feed(walk, 's', value->u.str.text, value->u.str.len);
        break;
    case JSON_ARRAY:
        feed_head(walk, 'a', json_count(value));
        JSON_EACH (item, value)
            feed_value(walk, item);
        break;
    case JSON_OBJECT:
        feed_object(walk, value, false);
        break;
    }
}

/* Nothing, "" and "default" ask for the same. */
static const char *name_asked_for(const struct chat_request *request)
{
    bool is_default = !request->model || !*request->model || strcmp(request->model, "default") == 0;
    return is_default ? NULL : request->model;
}

bool cache_key_make(struct cache *cache, struct arena *arena, const char *dialect, const char *account,
                    const struct chat_request *request, struct cache_key *out)
{
    struct key_walk walk = {cache->hasher, arena, false};
    if (!json_is(request->raw, JSON_OBJECT) || EVP_DigestInit_ex2(walk.hasher, cache->sha256, NULL) != 1)
        return false;
    feed_string(&walk, dialect);
    feed_head(&walk, 'e', request->kind);
    feed_string(&walk, cache->params.shared ? NULL : account);
    const char *name = name_asked_for(request);
    feed_string(&walk, name);
    if (!name) /* another station may have another default */
        feed_string(&walk, cache->params.default_model);
    feed_string(&walk, request->api_version);
    feed_string(&walk, request->api_betas);
    feed_string(&walk, json_text(json_get(request->metadata, "task"), NULL));
    feed_object(&walk, request->raw, true);
    return !walk.failed && EVP_DigestFinal_ex(walk.hasher, out->bytes, NULL) == 1;
}
