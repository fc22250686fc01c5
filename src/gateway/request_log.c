/* The request log: a line of JSON for each answer, and, when that was asked for, what was said.
 *
 * A line is the answer's record (route_book.c). With bodies it also has "request", the body as it was read,
 * and "reply", an object a choice with its texts joined. Each is at most REQUEST_LOG_TEXT_BYTES_MAX, and so
 * is the work: of a longer string its beginning is taken, and a request that is longer nevertheless is given
 * as the text of its beginning.
 *
 * No secret goes in. Headers are not written at all. In texts, the keys and header values of every account
 * and the very key that the caller came with are looked for, and what has the shape of a key (chat_scrub): in
 * strings as they are meant, before escapes are written. A text that was cut before loses MARGIN_BYTES more
 * at its end, where half a key might be. */
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utf8.h"
#include "gateway/gateway_int.h"

#define MARGIN_BYTES 1024
#define TAKEN_BYTES_MAX (REQUEST_LOG_TEXT_BYTES_MAX + MARGIN_BYTES)
#define LINE_BYTES_MAX ((size_t)16 << 20) /* escapes make it longer, and so does the record */

enum said { SAID_TEXT, SAID_REASONING, SAID_TOOLS, SAID_COUNT };
static const char *const said_names[SAID_COUNT] = {"text", "reasoning", "tool_calls"};

struct heard {
    struct buf text;
    bool was_cut; /* there was more */
};
struct heard_choice {
    struct heard said[SAID_COUNT];
};

struct request_log_entry {
    const struct gateway *gateway;
    const struct http_request *http;
    const struct json *body;
    struct heard_choice *choices;
    size_t choice_count;
    size_t room; /* bytes that may still be heard, of all choices together */
    bool request_was_cut, reply_was_cut;
};

/* ---- What is said */

static void release_entry(void *ud)
{
    struct request_log_entry *entry = ud;
    for (size_t i = 0; i < entry->choice_count; i++)
        for (size_t k = 0; k < SAID_COUNT; k++)
            buf_release(&entry->choices[i].said[k].text);
}

struct request_log_entry *request_log_begin(const struct gateway *gateway, struct http_exchange *exchange,
                                            const struct chat_request *request)
{
    struct arena *arena = http_exchange_arena(exchange);
    if (gateway->request_log_fd < 0 || !gateway->request_log_bodies)
        return NULL;
    struct request_log_entry *entry = arena_calloc(arena, 1, sizeof *entry);
    size_t count = chat_choice_count(request);
    struct heard_choice *choices = entry ? arena_calloc(arena, count, sizeof *choices) : NULL;
    if (!choices)
        return NULL;
    *entry = (struct request_log_entry){.gateway = gateway,
                                        .http = http_exchange_request(exchange),
                                        .body = request->raw,
                                        .choices = choices,
                                        .choice_count = count,
                                        .room = TAKEN_BYTES_MAX};
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < SAID_COUNT; k++)
            buf_init(&choices[i].said[k].text, TAKEN_BYTES_MAX);
    return arena_on_release(arena, release_entry, entry) == 0 ? entry : NULL;
}

static void hear(struct request_log_entry *entry, struct heard *said, const char *text, size_t len)
{
    size_t taken = len < entry->room ? len : entry->room;
    said->was_cut = said->was_cut || taken < len;
    entry->room -= taken;
    if (text)
        buf_append(&said->text, text, taken);
}

void request_log_hear(struct request_log_entry *entry, const struct chat_event *event)
{
    if (!entry || event->choice >= entry->choice_count)
        return;
    struct heard *said = entry->choices[event->choice].said, *tools = &said[SAID_TOOLS];
    if (event->kind == CHAT_EVENT_TEXT)
        hear(entry, &said[SAID_TEXT], event->text.text, event->text.len);
    if (event->kind == CHAT_EVENT_REASONING)
        hear(entry, &said[SAID_REASONING], event->text.text, event->text.len);
    if (event->kind != CHAT_EVENT_TOOL_CALL)
        return;
    if (event->tool_call.name) {
        if (tools->text.len)
            hear(entry, tools, "\n", 1);
        hear(entry, tools, event->tool_call.name, strlen(event->tool_call.name));
        hear(entry, tools, " ", 1);
    }
    hear(entry, tools, event->tool_call.arguments.text, event->tool_call.arguments.len);
}

void request_log_forget(struct request_log_entry *entry)
{
    if (!entry)
        return;
    entry->room = TAKEN_BYTES_MAX;
    for (size_t i = 0; i < entry->choice_count; i++)
        for (size_t k = 0; k < SAID_COUNT; k++) {
            buf_clear(&entry->choices[i].said[k].text);
            entry->choices[i].said[k].was_cut = false;
        }
}

/* ---- Without secrets */

/* The caller's key, as it came: after the last space of "Bearer KEY". */
static void scrub_header(const struct http_request *http, const char *name, char *text)
{
    const char *value = http_request_header(http, name), *space = value ? strrchr(value, ' ') : NULL;
    if (value)
        chat_scrub_secret(text, space ? space + 1 : value);
}

static void scrub(const struct request_log_entry *entry, char *text)
{
    static const char *const names[] = {"authorization", "x-api-key", "x-goog-api-key", "api-key"};
    const struct gateway *gateway = entry->gateway;
    for (size_t i = 0; i < gateway->account_count; i++)
        if (gateway->accounts[i].account)
            provider_account_scrub(gateway->accounts[i].account, text);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        scrub_header(entry->http, names[i], text);
    chat_scrub(text);
}

/* Appends a text without its secrets. A zero byte, which ends what can be searched, begins a new piece. */
static void put_scrubbed(const struct request_log_entry *entry, struct buf *out, const char *text, size_t len)
{
    struct buf piece;
    buf_init(&piece, TAKEN_BYTES_MAX);
    for (size_t at = 0; at <= len;) {
        size_t n = strnlen(text + at, len - at);
        buf_clear(&piece);
        buf_append(&piece, text + at, n);
        if (n && buf_status(&piece) == PH_OK) {
            scrub(entry, piece.data);
            buf_puts(out, piece.data);
        }
        at += n + 1;
        if (at <= len)
            buf_putc(out, 0);
    }
    buf_release(&piece);
}

/* ---- Writing */

static size_t cut(const char *text, size_t len, size_t len_max)
{
    return len <= len_max ? len : len_max - utf8_incomplete_tail(text, len_max);
}

/* As a JSON string. `was_cut`: the text goes on after its end. true: what is written is not all of it. */
static bool put_text(const struct request_log_entry *entry, struct buf *out, const char *text, size_t len,
                     bool was_cut)
{
    struct buf clean;
    buf_init(&clean, 2 * (size_t)TAKEN_BYTES_MAX);
    was_cut = was_cut || len > TAKEN_BYTES_MAX;
    put_scrubbed(entry, &clean, text, len < TAKEN_BYTES_MAX ? len : TAKEN_BYTES_MAX);
    size_t most = !was_cut                   ? REQUEST_LOG_TEXT_BYTES_MAX
                  : clean.len > MARGIN_BYTES ? clean.len - MARGIN_BYTES
                                             : 0;
    size_t shown = cut(clean.data, clean.len, most);
    json_write_string(out, clean.data ? clean.data : "", shown);
    buf_release(&clean);
    return was_cut || shown < clean.len;
}

/* As json_write does, with scrubbed strings, and no further than is shown. As deep as the parser lets values
 * be. */
static void put_json(struct request_log_entry *entry, struct buf *out, const struct json *value)
{
    bool is_object = value->type == JSON_OBJECT;
    size_t index = 0;
    if (value->type == JSON_STRING) {
        entry->request_was_cut |= put_text(entry, out, value->u.str.text, value->u.str.len, false);
        return;
    }
    if (!is_object && value->type != JSON_ARRAY) {
        json_write(out, value);
        return;
    }
    buf_putc(out, is_object ? '{' : '[');
    JSON_EACH (item, value) {
        if (out->len > REQUEST_LOG_TEXT_BYTES_MAX)
            return;
        if (index++)
            buf_putc(out, ',');
        if (is_object) {
            entry->request_was_cut |= put_text(entry, out, item->key, item->key_len, false);
            buf_putc(out, ':');
        }
        put_json(entry, out, item);
    }
    buf_putc(out, is_object ? '}' : ']');
}

static void put_request(struct request_log_entry *entry, struct buf *out)
{
    struct buf text;
    buf_init(&text, LINE_BYTES_MAX);
    if (entry->body)
        put_json(entry, &text, entry->body);
    buf_puts(out, ",\"request\":");
    if (!text.len) {
        buf_puts(out, "null");
    } else if (text.len <= REQUEST_LOG_TEXT_BYTES_MAX) {
        buf_append(out, text.data, text.len);
    } else {
        entry->request_was_cut = true;
        json_write_string(out, text.data, cut(text.data, text.len, REQUEST_LOG_TEXT_BYTES_MAX));
    }
    if (entry->request_was_cut)
        buf_puts(out, ",\"request_truncated\":true");
    buf_release(&text);
}

static void put_choice(struct request_log_entry *entry, struct buf *out, const struct heard_choice *choice)
{
    buf_putc(out, '{');
    for (size_t k = 0; k < SAID_COUNT; k++) {
        const struct heard *said = &choice->said[k];
        if (k != SAID_TEXT && !said->text.len)
            continue;
        if (k != SAID_TEXT)
            buf_putc(out, ',');
        json_write_string(out, said_names[k], strlen(said_names[k]));
        buf_putc(out, ':');
        entry->reply_was_cut |=
            put_text(entry, out, said->text.data ? said->text.data : "", said->text.len, said->was_cut);
    }
    buf_putc(out, '}');
}

static void put_reply(struct request_log_entry *entry, struct buf *out)
{
    buf_puts(out, ",\"reply\":[");
    for (size_t i = 0; i < entry->choice_count; i++) {
        if (i)
            buf_putc(out, ',');
        put_choice(entry, out, &entry->choices[i]);
    }
    buf_putc(out, ']');
    if (entry->reply_was_cut)
        buf_puts(out, ",\"reply_truncated\":true");
}

/* One write a line: lines of several stations that share a file stay whole. */
void request_log_write(const struct gateway *gateway, struct request_log_entry *entry,
                       const struct buf *record)
{
    struct buf line;
    if (gateway->request_log_fd < 0 || !record->len)
        return;
    buf_init(&line, LINE_BYTES_MAX);
    buf_append(&line, record->data, record->len - 1);
    if (entry) {
        put_request(entry, &line);
        put_reply(entry, &line);
    }
    buf_append(&line, "}\n", 2);
    if (buf_status(&line) != PH_OK)
        log_warn("gateway", "no memory for a line of the request log");
    else if (write(gateway->request_log_fd, line.data, line.len) != (ssize_t)line.len)
        log_warn("gateway", "the request log cannot be written");
    buf_release(&line);
}
