/* Messages of chats as the store keeps them, and back.
 *
 * Plain text is kept as it is. A content with media is kept as the JSON of its parts, in the shape that the
 * Conversations API shows. What goes with a message (calls, their ids, thoughts with their seals, how a reply
 * ended, how it belongs into a history) is an object beside it, `extra`, whose other members stay.
 *
 * A print is equal for messages that say the same: clients send a history back with other white space at its
 * ends, other marks for caches, without thoughts, with arguments of calls written anew. */
#include <string.h>

#include "base/buf.h"
#include "memory/memory_int.h"

#define EXTRA_BYTES_MAX (64u << 20)
#define IMAGE_TOKENS 1600 /* as the provider module has it for media */
#define AROUND_TOKENS 6   /* what templates put around a message, with a known tokenizer */

static const char *const role_names[] = {[CHAT_SYSTEM] = "system",
                                         [CHAT_DEVELOPER] = "developer",
                                         [CHAT_USER] = "user",
                                         [CHAT_ASSISTANT] = "assistant",
                                         [CHAT_TOOL] = "tool"};
#define ROLE_COUNT (sizeof role_names / sizeof role_names[0])

const char *memory_role_name(enum chat_role role)
{
    return role_names[role];
}

/* ---- Prints */

struct printer {
    uint64_t hash;
};

static void feed(struct printer *p, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        p->hash = (p->hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    p->hash = (p->hash ^ 0x1f) * UINT64_C(0x100000001b3);
}

static void feed_string(struct printer *p, const char *text)
{
    feed(p, text ? text : "", text ? strlen(text) : 0);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static struct chat_text trim(struct chat_text text)
{
    while (text.len && is_space(text.text[text.len - 1]))
        text.len--;
    while (text.len && is_space(*text.text)) {
        text.text++;
        text.len--;
    }
    return text;
}

uint64_t memory_message_print(const struct chat_message *message)
{
    struct printer p = {UINT64_C(0xcbf29ce484222325)};
    struct chat_text text = trim(message->content);
    feed_string(&p, role_names[message->role == CHAT_DEVELOPER ? CHAT_SYSTEM : message->role]);
    feed(&p, text.text, text.len);
    feed_string(&p, message->tool_call_id);
    for (size_t i = 0; i < message->part_count; i++) {
        const struct chat_part *part = &message->parts[i];
        if (part->kind == CHAT_PART_REASONING || part->kind == CHAT_PART_TEXT ||
            part->kind == CHAT_PART_OTHER)
            continue;
        feed_string(&p, part->url);
        feed(&p, part->data.text, part->data.len);
    }
    for (size_t i = 0; i < message->tool_call_count; i++) {
        feed_string(&p, message->tool_calls[i].id);
        feed_string(&p, message->tool_calls[i].name);
    }
    return p.hash;
}

/* A cut reply is the same as what its reader has of it, whoever got more. */
bool memory_says_same(const struct memory_message *stored, const struct chat_message *message, uint64_t print)
{
    if (stored->print == print)
        return true;
    if (!stored->is_cut || message->role != CHAT_ASSISTANT || message->tool_call_count)
        return false;
    struct chat_text a = trim(stored->chat.content), b = trim(message->content);
    size_t len = a.len < b.len ? a.len : b.len;
    return len && memcmp(a.text, b.text, len) == 0;
}

/* ---- What one costs */

uint32_t memory_cost(const struct chat_message *message, const struct memory_counter *counter)
{
    const char *name = message->name ? message->name : role_names[message->role];
    uint64_t sum = counter ? AROUND_TOKENS : 0;
    if (counter)
        sum += counter->count(counter->ud, message->content.text ? message->content.text : "",
                              message->content.len);
    else
        sum += memory_token_estimate(name, message->content.len);
    for (size_t i = 0; i < message->part_count; i++) {
        enum chat_part_kind kind = message->parts[i].kind;
        if (kind == CHAT_PART_IMAGE || kind == CHAT_PART_AUDIO || kind == CHAT_PART_FILE)
            sum += IMAGE_TOKENS + (kind == CHAT_PART_IMAGE ? 0 : message->parts[i].data.len / 32);
        else if (kind == CHAT_PART_OTHER)
            sum += IMAGE_TOKENS;
    }
    for (size_t i = 0; i < message->tool_call_count; i++)
        sum += memory_token_estimate(message->tool_calls[i].name, message->tool_calls[i].arguments.len) +
               AROUND_TOKENS;
    return sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
}

/* ---- Writing */

static void put_member(struct buf *out, const char *name)
{
    buf_puts(out, out->len ? ",\"" : "{\"");
    buf_puts(out, name);
    buf_puts(out, "\":");
}

static void put_text(struct buf *out, const char *text, size_t len)
{
    json_write_string(out, len ? text : "", len);
}

static void put_string(struct buf *out, const char *text)
{
    put_text(out, text ? text : "", text ? strlen(text) : 0);
}

/* In the shape of OpenAI's chats, which is what people import and export. */
static void write_calls(const struct chat_message *m, struct buf *out)
{
    put_member(out, "tool_calls");
    for (size_t i = 0; i < m->tool_call_count; i++) {
        const struct chat_tool_call *call = &m->tool_calls[i];
        buf_puts(out, i ? ",{\"id\":" : "[{\"id\":");
        put_string(out, call->id);
        buf_puts(out, call->custom ? ",\"type\":\"custom\",\"custom\":{\"name\":"
                                   : ",\"type\":\"function\",\"function\":{\"name\":");
        put_string(out, call->name);
        buf_puts(out, call->custom ? ",\"input\":" : ",\"arguments\":");
        put_text(out, call->arguments.text, call->arguments.len);
        buf_puts(out, "}}");
    }
    buf_putc(out, ']');
}

static void write_thoughts(const struct chat_message *m, struct buf *out)
{
    size_t count = 0;
    for (size_t i = 0; i < m->part_count; i++) {
        const struct chat_part *part = &m->parts[i];
        if (part->kind != CHAT_PART_REASONING)
            continue;
        if (count++ == 0)
            put_member(out, "reasoning");
        buf_puts(out, count > 1 ? ",{\"text\":" : "[{\"text\":");
        put_text(out, part->text.text, part->text.len);
        if (part->signature) {
            buf_puts(out, ",\"signature\":");
            put_string(out, part->signature);
        }
        buf_putc(out, '}');
    }
    if (count)
        buf_putc(out, ']');
}

static void write_extra(const struct memory_message *message, const char *finish, struct buf *out)
{
    const struct chat_message *m = &message->chat;
    if (m->tool_call_count)
        write_calls(m, out);
    if (m->tool_call_id) {
        put_member(out, "tool_call_id");
        put_string(out, m->tool_call_id);
    }
    if (m->tool_failed) {
        put_member(out, "tool_failed");
        buf_puts(out, "true");
    }
    write_thoughts(m, out);
    if (finish) {
        put_member(out, "finish");
        put_string(out, finish);
    }
    if (message->is_head) {
        put_member(out, "head");
        buf_puts(out, "true");
    }
    if (message->is_branch) {
        put_member(out, "after");
        buf_printf(out, "%lld", (long long)message->after);
    }
    if (out->len)
        buf_putc(out, '}');
}

static bool has_media(const struct chat_message *m)
{
    for (size_t i = 0; i < m->part_count; i++)
        if (m->parts[i].kind != CHAT_PART_TEXT && m->parts[i].kind != CHAT_PART_REASONING)
            return true;
    return false;
}

/* The buffer's text in the arena; NULL: no memory. */
static const char *settle(struct arena *arena, struct buf *text)
{
    const char *kept =
        buf_status(text) == PH_OK ? arena_strndup(arena, text->data ? text->data : "", text->len) : NULL;
    buf_release(text);
    return kept;
}

bool memory_message_write(struct arena *arena, const struct memory_message *message, const char *finish,
                          struct store_message *out)
{
    const struct chat_message *m = &message->chat;
    struct buf text;
    *out = (struct store_message){.id = message->id,
                                  .role = role_names[m->role],
                                  .name = m->name,
                                  .content = m->content.text ? m->content.text : "",
                                  .content_len = m->content.text ? m->content.len : 0,
                                  .content_kind = m->content.text ? STORE_CONTENT_TEXT : STORE_CONTENT_NONE,
                                  .tokens = message->tokens};
    buf_init(&text, EXTRA_BYTES_MAX);
    write_extra(message, finish, &text);
    out->extra = settle(arena, &text);
    if (!out->extra || !has_media(m))
        return out->extra != NULL;
    buf_init(&text, EXTRA_BYTES_MAX);
    chat_parts_write(m, &text);
    out->content_len = text.len;
    out->content_kind = STORE_CONTENT_JSON;
    out->content = settle(arena, &text);
    return out->content != NULL;
}

/* ---- Reading */

static bool read_calls(struct arena *arena, const struct json *list, struct chat_message *m)
{
    size_t count = json_count(list);
    if (!json_is(list, JSON_ARRAY) || count == 0)
        return true;
    struct chat_tool_call *calls = arena_calloc(arena, count, sizeof *calls);
    if (!calls)
        return false;
    m->tool_calls = calls;
    JSON_EACH (item, list) {
        const struct json *function = json_get(item, "function"), *custom = json_get(item, "custom");
        const struct json *what = custom ? custom : function;
        const struct json *arguments = json_get(what, custom ? "input" : "arguments");
        const char *id = json_text(json_get(item, "id"), "");
        *calls++ = (struct chat_tool_call){
            .id = id,
            .name = json_text(json_get(what, "name"), ""),
            .custom = custom != NULL,
            .arguments = {json_text(arguments, custom ? "" : "{}"),
                          json_is(arguments, JSON_STRING) ? arguments->u.str.len : (custom ? 0 : 2)}};
    }
    m->tool_call_count = count;
    return true;
}

/* Thoughts are parts before the text, which becomes a part too. */
static bool read_thoughts(struct arena *arena, const struct json *list, struct chat_message *m)
{
    size_t count = json_count(list), at = 0;
    if (!json_is(list, JSON_ARRAY) || count == 0)
        return true;
    struct chat_part *parts = arena_calloc(arena, count + m->part_count + 1, sizeof *parts);
    if (!parts)
        return false;
    JSON_EACH (item, list) {
        const struct json *text = json_get(item, "text");
        parts[at] = (struct chat_part){.kind = CHAT_PART_REASONING,
                                       .signature = json_text(json_get(item, "signature"), NULL)};
        if (json_is(text, JSON_STRING))
            parts[at].text = (struct chat_text){text->u.str.text, text->u.str.len};
        at++;
    }
    if (m->part_count)
        memcpy(parts + at, m->parts, m->part_count * sizeof *parts);
    else if (m->content.len)
        parts[at] = (struct chat_part){.kind = CHAT_PART_TEXT, .text = m->content};
    m->part_count = at + (m->part_count ? m->part_count : (m->content.len ? 1 : 0));
    m->parts = parts;
    return true;
}

bool memory_message_about(struct arena *arena, const char *extra, const char **about, size_t *about_len)
{
    struct json *value;
    struct buf text;
    *about = NULL;
    *about_len = 0;
    if (!strchr(extra, '{') || json_parse(arena, extra, strlen(extra), &value, NULL) != PH_OK)
        return true;
    buf_init(&text, MEMORY_ABOUT_BYTES_MAX);
    JSON_EACH (one, json_get(value, "metadata")) {
        if (!json_is(one, JSON_STRING) || !memchr(one->u.str.text, ' ', one->u.str.len))
            continue; /* a name or a key is no text */
        buf_append(&text, one->u.str.text, one->u.str.len);
        buf_putc(&text, '\n');
    }
    bool enough = true;
    if (text.len) {
        *about = arena_strndup(arena, text.data, text.len);
        *about_len = text.len;
        enough = *about;
    }
    buf_release(&text);
    return enough;
}

static bool read_extra(struct arena *arena, const char *extra, struct memory_message *out)
{
    struct json *value;
    int64_t after;
    if (!*extra)
        return true;
    if (json_parse(arena, extra, strlen(extra), &value, NULL) != PH_OK)
        return true; /* somebody else's; the message is still there */
    out->chat.tool_call_id = json_text(json_get(value, "tool_call_id"), NULL);
    out->chat.tool_failed = json_is(json_get(value, "tool_failed"), JSON_TRUE);
    out->is_cut = json_text_is(json_get(value, "finish"), "cut");
    out->is_head = json_is(json_get(value, "head"), JSON_TRUE);
    if (json_to_int64(json_get(value, "after"), &after)) {
        out->is_branch = true;
        out->after = after;
    }
    return read_calls(arena, json_get(value, "tool_calls"), &out->chat) &&
           read_thoughts(arena, json_get(value, "reasoning"), &out->chat);
}

/* The parts of a content that is JSON. What cannot be read as parts is the text that it is. */
static bool read_parts(struct arena *arena, struct chat_message *m)
{
    struct json *content;
    const struct chat_message *list;
    struct chat_fault fault;
    size_t count;
    if (json_parse(arena, m->content.text, m->content.len, &content, NULL) != PH_OK)
        return true;
    struct json *items = json_new(arena, JSON_ARRAY), *item = json_new(arena, JSON_OBJECT);
    if (!json_set(arena, item, "role", json_new_string(arena, "user", 4)) ||
        !json_set(arena, item, "content", content) || !json_push(items, item))
        return false;
    if (chat_items_decode(arena, items, "items", &list, &count, &fault) != PH_OK || count != 1)
        return true;
    m->content = list[0].content;
    m->parts = list[0].parts;
    m->part_count = list[0].part_count;
    return true;
}

static enum chat_role read_role(const char *text, const char **name)
{
    for (size_t i = 0; i < ROLE_COUNT; i++)
        if (strcmp(text, role_names[i]) == 0)
            return (enum chat_role)i;
    if (!*name && *text)
        *name = text;
    return CHAT_USER;
}

bool memory_message_read(struct arena *arena, const struct store_message *stored, struct memory_message *out)
{
    *out = (struct memory_message){.number = stored->number,
                                   .seq = stored->seq,
                                   .created_ms = stored->created_ms,
                                   .id = arena_strdup(arena, stored->id),
                                   .extra = arena_strdup(arena, stored->extra ? stored->extra : "")};
    struct chat_message *m = &out->chat;
    const char *name = stored->name && *stored->name ? stored->name : NULL;
    m->role = read_role(stored->role, &name);
    m->name = name ? arena_strdup(arena, name) : NULL;
    if (stored->content_kind != STORE_CONTENT_NONE) {
        m->content.text = arena_strndup(arena, stored->content, stored->content_len);
        m->content.len = stored->content_len;
        if (!m->content.text)
            return false;
    }
    if (!out->id || !out->extra || (name && !m->name))
        return false;
    if (stored->content_kind == STORE_CONTENT_JSON && !read_parts(arena, m))
        return false;
    if (!read_extra(arena, out->extra, out))
        return false;
    out->print = memory_message_print(m);
    out->tokens = memory_cost(m, NULL);
    return true;
}

/* ---- Copies */

static bool copy_text(struct arena *arena, struct chat_text *text)
{
    if (!text->text)
        return true;
    text->text = arena_strndup(arena, text->text, text->len);
    return text->text != NULL;
}

static bool copy_string(struct arena *arena, const char **text)
{
    if (!*text)
        return true;
    *text = arena_strdup(arena, *text);
    return *text != NULL;
}

static bool copy_part(struct arena *arena, struct chat_part *part)
{
    part->raw = NULL;
    part->cache_control = NULL;
    return copy_text(arena, &part->text) && copy_text(arena, &part->data) &&
           copy_string(arena, &part->media_type) && copy_string(arena, &part->url) &&
           copy_string(arena, &part->detail) && copy_string(arena, &part->filename) &&
           copy_string(arena, &part->signature);
}

static bool copy_parts(struct arena *arena, const struct chat_message *from, struct chat_message *to)
{
    struct chat_part *parts = arena_calloc(arena, from->part_count, sizeof *parts);
    bool ok = parts != NULL;
    for (size_t i = 0; ok && i < from->part_count; i++) {
        parts[i] = from->parts[i];
        ok = copy_part(arena, &parts[i]);
    }
    to->parts = parts;
    return ok;
}

static bool copy_calls(struct arena *arena, const struct chat_message *from, struct chat_message *to)
{
    struct chat_tool_call *calls = arena_calloc(arena, from->tool_call_count, sizeof *calls);
    bool ok = calls != NULL;
    for (size_t i = 0; ok && i < from->tool_call_count; i++) {
        calls[i] = from->tool_calls[i];
        ok = copy_string(arena, &calls[i].id) && copy_string(arena, &calls[i].name) &&
             copy_text(arena, &calls[i].arguments);
    }
    to->tool_calls = calls;
    return ok;
}

bool memory_chat_copy(struct arena *arena, const struct chat_message *from, struct chat_message *to)
{
    *to = *from;
    to->raw = NULL;
    return copy_text(arena, &to->content) && copy_string(arena, &to->name) &&
           copy_string(arena, &to->tool_call_id) && (!from->part_count || copy_parts(arena, from, to)) &&
           (!from->tool_call_count || copy_calls(arena, from, to));
}
