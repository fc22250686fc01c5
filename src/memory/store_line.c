/* A conversation as a line of JSON, both ways.
 *
 * What a line says comes out as it went in: members of a message that the store has no column for are its
 * `extra`. A time that does not fit whole milliseconds, or is absent, is there too ("created_at": the number
 * as it was, or null for none), and is what is written again. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "memory/store_int.h"

#define CREATED_S_MAX 1e12
#define ID_ROOM 32

/* ---- Reading */

struct reader {
    struct arena *arena;
    size_t index; /* of the message */
    struct ph_err *err;
};

static enum ph_status no_memory(struct ph_err *err)
{
    return ph_fail(err, PH_ERR_NOMEM, "the line needs more memory than it may have");
}

/* A text without 0 bytes; absent and null are NULL. */
static enum ph_status take_text(const struct json *object, const char *key, const char **out,
                                struct ph_err *err)
{
    const struct json *value = json_get(object, key);
    *out = NULL;
    if (json_is_absent(value))
        return PH_OK;
    if (!json_is(value, JSON_STRING))
        return ph_fail(err, PH_ERR_FORMAT, "\"%s\" is no text", key);
    if (strlen(value->u.str.text) != value->u.str.len)
        return ph_fail(err, PH_ERR_FORMAT, "\"%s\" has a zero character in it", key);
    *out = value->u.str.text;
    return PH_OK;
}

static const char *write_json(struct arena *arena, const struct json *value)
{
    struct buf text;
    buf_init(&text, STORE_LINE_BYTES_MAX);
    json_write(&text, value);
    const char *kept = buf_status(&text) == PH_OK ? arena_strndup(arena, text.data, text.len) : NULL;
    buf_release(&text);
    return kept;
}

static enum ph_status take_content(const struct reader *reader, const struct json *object,
                                   struct store_message *out)
{
    const struct json *value = json_get(object, "content");
    if (json_is(value, JSON_STRING)) {
        out->content = value->u.str.text;
        out->content_len = value->u.str.len;
    } else if (json_is_absent(value))
        out->content_kind = STORE_CONTENT_NONE;
    else {
        out->content_kind = STORE_CONTENT_JSON;
        out->content = write_json(reader->arena, value);
        if (!out->content)
            return no_memory(reader->err);
        out->content_len = strlen(out->content);
    }
    return PH_OK;
}

static struct json *seconds_json(struct arena *arena, int64_t ms)
{
    return ms % 1000 ? json_new_double(arena, (double)ms / 1000) : json_new_int(arena, ms / 1000);
}

/* `keep`: what is to be kept in extra; NULL: nothing. */
static enum ph_status take_created(const struct reader *reader, const struct json *object,
                                   struct store_message *out, struct json **keep)
{
    const struct json *value = json_get(object, "created_at");
    double seconds;
    *keep = NULL;
    if (json_is_absent(value)) {
        *keep = json_new(reader->arena, JSON_NULL);
        return *keep ? PH_OK : no_memory(reader->err);
    }
    if (!json_is(value, JSON_NUMBER) || !json_to_double(value, &seconds) || !(fabs(seconds) < CREATED_S_MAX))
        return ph_fail(reader->err, PH_ERR_FORMAT, "message %zu: \"created_at\" is no time in Unix seconds",
                       reader->index);
    out->created_ms = (int64_t)llround(seconds * 1000);
    const struct json *same = seconds_json(reader->arena, out->created_ms);
    if (!same)
        return no_memory(reader->err);
    if (out->created_ms == 0 || !json_equal(same, value)) { /* 0 would be taken as not said */
        *keep = json_copy(reader->arena, value);
        return *keep ? PH_OK : no_memory(reader->err);
    }
    return PH_OK;
}

static bool is_tokens(const struct json *value, int64_t *tokens)
{
    return json_is(value, JSON_NUMBER) && json_to_int64(value, tokens) && *tokens > 0;
}

/* Whether a member has a column of its own. */
static bool has_column(const struct json *member)
{
    static const char *const always[] = {"role", "content", "created_at"};
    static const char *const texts[] = {"id", "name"};
    int64_t tokens;
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        if (strcmp(member->key, always[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(member->key, texts[i]) == 0)
            return json_is(member, JSON_STRING) && member->u.str.len;
    return strcmp(member->key, "tokens") == 0 && is_tokens(member, &tokens);
}

static enum ph_status take_extra(const struct reader *reader, const struct json *object, struct json *created,
                                 struct store_message *out)
{
    struct json *extra = json_new(reader->arena, JSON_OBJECT);
    bool lost = !extra;
    JSON_EACH (member, object)
        if (!has_column(json_find(object, member->key, member->key_len))) /* of several, the last counts */
            lost = lost || !json_set(reader->arena, extra, member->key, json_copy(reader->arena, member));
    if (created)
        lost = lost || !json_set(reader->arena, extra, "created_at", created);
    if (lost)
        return no_memory(reader->err);
    if (json_count(extra) == 0)
        return PH_OK;
    out->extra = write_json(reader->arena, extra);
    return out->extra ? PH_OK : no_memory(reader->err);
}

static enum ph_status take_message(const struct reader *reader, const struct json *object,
                                   struct store_message *out)
{
    struct json *created = NULL;
    struct ph_err why;
    if (!json_is(object, JSON_OBJECT))
        return ph_fail(reader->err, PH_ERR_FORMAT, "message %zu is no object", reader->index);
    enum ph_status status = take_text(object, "role", &out->role, &why);
    if (status == PH_OK && (!out->role || !out->role[0]))
        status = ph_fail(&why, PH_ERR_FORMAT, "\"role\" is missing");
    if (status == PH_OK)
        status = take_text(object, "name", &out->name, &why);
    if (status == PH_OK)
        status = take_text(object, "id", &out->id, &why);
    if (status != PH_OK)
        return ph_fail(reader->err, status, "message %zu: %s", reader->index, why.message);
    int64_t tokens;
    out->tokens = is_tokens(json_get(object, "tokens"), &tokens) ? tokens : 0;
    status = take_content(reader, object, out);
    if (status == PH_OK)
        status = take_created(reader, object, out, &created);
    return status == PH_OK ? take_extra(reader, object, created, out) : status;
}

/* Messages without ids are known by their place; where others have some, the place is said as one. */
static enum ph_status settle_ids(struct arena *arena, struct store_append *out,
                                 struct store_message *messages, struct ph_err *err)
{
    bool named = false;
    for (size_t i = 0; i < out->count; i++)
        named = named || (messages[i].id && messages[i].id[0]);
    out->at = named ? STORE_AT_END : 0;
    for (size_t i = 0; named && i < out->count; i++) {
        if (messages[i].id && messages[i].id[0])
            continue;
        char *id = arena_alloc(arena, ID_ROOM);
        if (!id)
            return no_memory(err);
        snprintf(id, ID_ROOM, "msg_%zu", i);
        messages[i].id = id;
    }
    return PH_OK;
}

static enum ph_status take_messages(struct arena *arena, const struct json *list, struct store_append *out,
                                    struct ph_err *err)
{
    struct reader reader = {.arena = arena, .err = err};
    if (!json_is(list, JSON_ARRAY))
        return ph_fail(err, PH_ERR_FORMAT, "\"messages\" is missing, or no list");
    out->count = json_count(list);
    if (out->count > STORE_APPEND_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "more than %u messages in one line", STORE_APPEND_MAX);
    struct store_message *messages = arena_calloc(arena, out->count, sizeof *messages);
    if (!messages)
        return no_memory(err);
    out->messages = messages;
    enum ph_status status = PH_OK;
    JSON_EACH (object, list)
        if (status == PH_OK)
            status = take_message(&reader, object, &messages[reader.index++]);
    return status == PH_OK ? settle_ids(arena, out, messages, err) : status;
}

enum ph_status store_line_read(struct arena *arena, const char *text, size_t len, struct store_append *out,
                               struct ph_err *err)
{
    struct json *line = NULL;
    *out = (struct store_append){.user = NULL};
    enum ph_status status = json_parse(arena, text, len, &line, err);
    if (status != PH_OK)
        return status;
    if (!json_is(line, JSON_OBJECT))
        return ph_fail(err, PH_ERR_FORMAT, "the line is no JSON object");
    status = take_text(line, "id", &out->key, err);
    if (status == PH_OK && (!out->key || !out->key[0]))
        status = ph_fail(err, PH_ERR_FORMAT,
                         "\"id\" is missing: without it nobody can tell what is there already");
    if (status == PH_OK)
        status = take_text(line, "user", &out->user, err);
    if (!out->user || !out->user[0])
        out->user = STORE_LINE_USER;
    if (status == PH_OK)
        status = take_text(line, "domain", &out->domain, err);
    const struct json *metadata = json_get(line, "metadata");
    if (status == PH_OK && !json_is_absent(metadata)) {
        if (!json_is(metadata, JSON_OBJECT))
            return ph_fail(err, PH_ERR_FORMAT, "\"metadata\" is no object");
        out->metadata = write_json(arena, metadata);
        if (!out->metadata)
            return no_memory(err);
    }
    return status == PH_OK ? take_messages(arena, json_get(line, "messages"), out, err) : status;
}

/* ---- Writing */

static void put_member(struct buf *out, const char *key, const char *text, size_t len)
{
    buf_printf(out, ",\"%s\":", key);
    json_write_string(out, text, len);
}

/* JSON that others gave may have line ends between its parts. */
static void put_json(struct buf *out, struct arena *scratch, const char *text, size_t len)
{
    struct json *value = NULL;
    if (json_parse(scratch, text, len, &value, NULL) == PH_OK)
        json_write(out, value);
    else
        json_write_string(out, text, len);
}

static void put_extra(struct buf *out, const struct json *extra)
{
    JSON_EACH (member, extra) {
        if (strcmp(member->key, "created_at") == 0)
            continue;
        buf_putc(out, ',');
        json_write_string(out, member->key, member->key_len);
        buf_putc(out, ':');
        json_write(out, member);
    }
}

static void put_created(struct buf *out, struct arena *scratch, const struct store_message *message,
                        const struct json *extra)
{
    const struct json *kept = json_get(extra, "created_at"); /* none: NULL; "there was none": null */
    if (kept && json_is(kept, JSON_NULL))
        return;
    buf_puts(out, ",\"created_at\":");
    json_write(out, kept ? kept : seconds_json(scratch, message->created_ms));
}

static void put_message(struct buf *out, struct arena *scratch, const struct store_message *message,
                        size_t index)
{
    struct json *extra = NULL;
    int64_t place;
    if (message->extra[0] &&
        json_parse(scratch, message->extra, strlen(message->extra), &extra, NULL) != PH_OK)
        extra = NULL; /* checked when it was stored */
    buf_puts(out, "{\"role\":");
    json_write_string(out, message->role, strlen(message->role));
    if (message->name[0])
        put_member(out, "name", message->name, strlen(message->name));
    if (message->content_kind == STORE_CONTENT_TEXT)
        put_member(out, "content", message->content, message->content_len);
    else {
        buf_puts(out, ",\"content\":");
        if (message->content_kind == STORE_CONTENT_JSON)
            put_json(out, scratch, message->content, message->content_len);
        else
            buf_puts(out, "null");
    }
    put_created(out, scratch, message, extra);
    if (!store_place_of(message->id, &place) || place != (int64_t)index)
        put_member(out, "id", message->id, strlen(message->id));
    if (message->tokens > 0)
        buf_printf(out, ",\"tokens\":%" PRId64, message->tokens);
    put_extra(out, extra);
    buf_putc(out, '}');
}

void store_line_write(struct buf *out, struct arena *scratch, const struct store_conversation *conversation,
                      const struct store_messages *messages)
{
    buf_puts(out, "{\"id\":");
    json_write_string(out, conversation->key, strlen(conversation->key));
    put_member(out, "user", conversation->user_name, strlen(conversation->user_name));
    if (conversation->domain[0])
        put_member(out, "domain", conversation->domain, strlen(conversation->domain));
    if (conversation->metadata[0]) {
        buf_puts(out, ",\"metadata\":");
        put_json(out, scratch, conversation->metadata, strlen(conversation->metadata));
    }
    buf_puts(out, ",\"messages\":[");
    for (size_t i = 0; i < messages->count; i++) {
        if (i)
            buf_putc(out, ',');
        put_message(out, scratch, &messages->items[i], i);
    }
    buf_puts(out, "]}\n");
}
