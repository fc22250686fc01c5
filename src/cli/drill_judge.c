/* The judge of a drill: was a reply what a client should get when a provider fails so?
 *
 * It reads the three dialects by itself and not through the house's codecs, which are what is being judged.
 *
 *  J1  With a healthy provider behind the faulty one the answer is whole, and its text is the right one.
 *  J2  Alone, nothing looks like a whole answer. Before a word was said there is an error of the dialect with
 *      one of the fault's statuses; after it the stream has the right beginning, an error, and a broken end.
 *  J3  Keys of providers are in no reply. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli/drill_cell_int.h"

#define SHOWN_MAX 80
#define MESSAGE_BYTES_MIN 10
#define TEXT_BYTES_MAX ((size_t)1 << 20)

struct reading {
    struct arena *arena;
    enum drill_edge edge;
    struct buf text;
    const struct json *error; /* NULL: none */
    bool error_in_shape;      /* where the dialect has it */
    bool finished;            /* why it ends was said */
    bool said_end;            /* the dialect's last word */
    bool is_bad;              /* not what the dialect is made of */
};

/* ---- Cells */

static const struct {
    const char *name, *path;
} edges[DRILL_EDGE_COUNT] = {[DRILL_EDGE_OPENAI] = {"openai", "/v1/chat/completions"},
                             [DRILL_EDGE_ANTHROPIC] = {"anthropic", "/v1/messages"},
                             [DRILL_EDGE_RESPONSES] = {"responses", "/v1/responses"}};

const char *drill_edge_name(enum drill_edge edge)
{
    return edges[edge].name;
}

void drill_title(const struct drill_cell *cell, char out[DRILL_TITLE_MAX])
{
    snprintf(out, DRILL_TITLE_MAX, "%s %s, %s, asked in %s's dialect, %s", drill_api_name(cell->api),
             drill_faults[cell->fault].name, cell->is_backed ? "with a second provider" : "alone",
             edges[cell->edge].name, cell->is_stream ? "streamed" : "whole");
}

void drill_model(const struct drill_cell *cell, char out[DRILL_MODEL_MAX])
{
    snprintf(out, DRILL_MODEL_MAX, "drill/%s/%s%s/%d", drill_api_name(cell->api),
             drill_faults[cell->fault].name, cell->is_backed ? "+ok" : "",
             1 + 2 * (int)cell->edge + cell->is_stream);
}

const char *drill_path(const struct drill_cell *cell)
{
    return edges[cell->edge].path;
}

void drill_body(const struct drill_cell *cell, const char *text, struct buf *out)
{
    char model[DRILL_MODEL_MAX];
    drill_model(cell, model);
    buf_printf(out, "{\"model\":\"%s\",\"stream\":%s,", model, cell->is_stream ? "true" : "false");
    if (cell->edge == DRILL_EDGE_ANTHROPIC)
        buf_puts(out, "\"max_tokens\":1000,");
    buf_puts(out, cell->edge == DRILL_EDGE_RESPONSES ? "\"input\":"
                                                     : "\"messages\":[{\"role\":\"user\",\"content\":");
    json_write_string(out, text, strlen(text));
    buf_puts(out, cell->edge == DRILL_EDGE_RESPONSES ? "}" : "}]}");
}

/* ---- Reading */

static void add_text(struct reading *r, const struct json *text)
{
    if (json_is(text, JSON_STRING))
        buf_append(&r->text, text->u.str.text, text->u.str.len);
}

static void take_error(struct reading *r, const struct json *error, bool is_in_shape)
{
    r->error = error;
    r->error_in_shape = is_in_shape;
}

static void read_openai(struct reading *r, const struct json *event)
{
    if (!json_is_absent(json_get(event, "error"))) {
        take_error(r, json_get(event, "error"), true);
        return;
    }
    JSON_EACH (choice, json_get(event, "choices")) {
        add_text(r, json_get(json_get(choice, "delta"), "content"));
        add_text(r, json_get(json_get(choice, "message"), "content"));
        r->finished = r->finished || json_is(json_get(choice, "finish_reason"), JSON_STRING);
    }
}

static void read_anthropic(struct reading *r, const struct json *event)
{
    const char *type = json_text(json_get(event, "type"), "");
    if (json_get(event, "error")) {
        take_error(r, json_get(event, "error"), strcmp(type, "error") == 0);
    } else if (strcmp(type, "content_block_delta") == 0) {
        add_text(r, json_get(json_get(event, "delta"), "text"));
    } else if (strcmp(type, "message_delta") == 0) {
        r->finished = json_is(json_get(json_get(event, "delta"), "stop_reason"), JSON_STRING);
    } else if (strcmp(type, "message_stop") == 0) {
        r->said_end = true;
    } else if (strcmp(type, "message") == 0) {
        JSON_EACH (block, json_get(event, "content"))
            add_text(r, json_get(block, "text"));
        r->finished = json_is(json_get(event, "stop_reason"), JSON_STRING);
    }
}

static void read_output(struct reading *r, const struct json *response)
{
    JSON_EACH (item, json_get(response, "output"))
        if (json_text_is(json_get(item, "type"), "message"))
            JSON_EACH (part, json_get(item, "content"))
                add_text(r, json_get(part, "text"));
}

static void read_responses(struct reading *r, const struct json *event)
{
    const char *type = json_text(json_get(event, "type"), "");
    if (strcmp(type, "error") == 0) {
        take_error(r, event, true);
    } else if (strcmp(type, "response.failed") == 0) {
        take_error(r, json_get(json_get(event, "response"), "error"), true);
    } else if (strcmp(type, "response.output_text.delta") == 0) {
        add_text(r, json_get(event, "delta"));
    } else if (strcmp(type, "response.completed") == 0 || strcmp(type, "response.incomplete") == 0) {
        r->finished = r->said_end = true;
    } else if (!json_is_absent(json_get(event, "error"))) {
        take_error(r, json_get(event, "error"), true);
    } else if (json_text_is(json_get(event, "object"), "response")) {
        read_output(r, event);
        r->finished = json_text_is(json_get(event, "status"), "completed");
    }
}

static void read_value(struct reading *r, const char *text, size_t len)
{
    static void (*const read[DRILL_EDGE_COUNT])(struct reading *, const struct json *) = {
        [DRILL_EDGE_OPENAI] = read_openai,
        [DRILL_EDGE_ANTHROPIC] = read_anthropic,
        [DRILL_EDGE_RESPONSES] = read_responses};
    struct json *value;
    if (json_parse(r->arena, text, len, &value, NULL) != PH_OK || !json_is(value, JSON_OBJECT))
        r->is_bad = true;
    else
        read[r->edge](r, value);
}

static void read_stream(struct reading *r, const char *body, size_t len)
{
    const char *end = body + len;
    for (const char *line = body, *next; line < end; line = next) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t line_len = (size_t)((stop ? stop : end) - line);
        next = stop ? stop + 1 : end;
        if (line_len && line[line_len - 1] == '\r')
            line_len--;
        if (line_len < 6 || memcmp(line, "data: ", 6) != 0)
            continue;
        if (line_len == 12 && memcmp(line + 6, "[DONE]", 6) == 0)
            r->said_end = true;
        else
            read_value(r, line + 6, line_len - 6);
    }
}

static void read_reply(struct reading *r, const struct drill_cell *cell, const struct drill_reply *reply)
{
    if (cell->is_stream && reply->status == 200) {
        read_stream(r, reply->body, reply->body_len);
    } else {
        read_value(r, reply->body, reply->body_len);
        r->said_end = !r->error && !r->is_bad;
    }
}

/* ---- Judging */

static void show(struct buf *out, const char *text, size_t len)
{
    size_t shown = len < SHOWN_MAX ? len : SHOWN_MAX;
    while (shown < len && shown && ((unsigned char)text[shown] & 0xC0) == 0x80)
        shown--;
    json_write_string(out, text, shown);
    if (shown < len)
        buf_puts(out, "...");
}

static const char *message_of(const struct reading *r)
{
    return json_text(json_get(r->error, "message"), "");
}

static bool is_text_right(const struct reading *r, const char *text)
{
    return r->text.len == strlen(text) && (!r->text.len || memcmp(r->text.data, text, r->text.len) == 0);
}

static bool is_whole(const struct reading *r, const struct drill_reply *reply)
{
    return reply->status == 200 && reply->is_complete && !r->error && !r->is_bad && r->finished &&
           r->said_end;
}

static void judge_backed(const struct drill_cell *cell, const struct reading *r, const char *text,
                         const struct drill_reply *reply, struct buf *problem)
{
    bool has_begun = cell->is_stream && drill_faults[cell->fault].traits & DRILL_SPEAKS;
    if (!is_whole(r, reply)) {
        buf_printf(problem, "a second provider was there, and no whole answer came: status %d, ",
                   reply->status);
        if (r->error) {
            buf_puts(problem, "the error ");
            show(problem, message_of(r), strlen(message_of(r)));
        } else {
            buf_puts(problem, reply->is_complete ? "without its last word" : "and a broken connection");
        }
    } else if (!is_text_right(r, text)) {
        buf_puts(problem, "the answer is not the right one: ");
        show(problem, r->text.data ? r->text.data : "", r->text.len);
    } else if (!has_begun && reply->attempts >= 0 && reply->attempts < 2) {
        buf_puts(problem, "the faulty provider was never asked");
    }
}

static bool is_status_right(const struct drill_fault *fault, int status)
{
    for (size_t i = 0; i < DRILL_STATUSES_MAX && fault->statuses[i]; i++)
        if (fault->statuses[i] == status)
            return true;
    return false;
}

/* NULL: its type is one that clients know for this status. */
static const char *wrong_type(const struct reading *r, int status)
{
    static const char *const late[] = {"server_error", "api_error", "overloaded_error", "timeout_error"};
    const char *type = json_text(json_get(r->error, "type"), "");
    if (status == 429)
        return strcmp(type, "rate_limit_error") == 0 || strcmp(type, "insufficient_quota") == 0 ? NULL : type;
    for (size_t i = 0; i < sizeof late / sizeof *late; i++)
        if (status == 200 || strcmp(type, late[i]) == 0)
            return NULL;
    return type;
}

static void judge_error(const struct drill_cell *cell, const struct reading *r,
                        const struct drill_reply *reply, struct buf *problem)
{
    static const char *const members[] = {"message", "type", "param", "code"};
    const char *message = message_of(r);
    bool is_anthropic = cell->edge == DRILL_EDGE_ANTHROPIC;
    if (!r->error || !r->error_in_shape) {
        buf_puts(problem, r->error ? "its error has not the shape of the dialect" : "it has no error");
        return;
    }
    for (size_t i = 0; i < (is_anthropic ? 2 : sizeof members / sizeof *members); i++)
        if (!json_get(r->error, members[i]) && !(r->text.len && cell->edge == DRILL_EDGE_RESPONSES)) {
            buf_printf(problem, "its error has no \"%s\"", members[i]);
            return;
        }
    if (strlen(message) < MESSAGE_BYTES_MIN || strstr(message, "<html")) {
        buf_puts(problem, "its error says nothing a person could use: ");
        show(problem, message, strlen(message));
    } else if (wrong_type(r, reply->status)) {
        buf_printf(problem, "its error's type \"%.40s\" does not belong to status %d",
                   wrong_type(r, reply->status), reply->status);
    } else if (drill_faults[cell->fault].traits & DRILL_SAYS_WHEN && reply->retry_after < 1) {
        buf_puts(problem, "the provider said when to come again, and the client is not told (retry-after)");
    }
}

static void judge_alone(const struct drill_cell *cell, const struct reading *r, const char *text,
                        const struct drill_reply *reply, struct buf *problem)
{
    const struct drill_fault *fault = &drill_faults[cell->fault];
    bool has_begun = cell->is_stream && fault->traits & DRILL_SPEAKS;
    if (is_whole(r, reply)) {
        buf_puts(problem, "what the provider broke off looks like a whole answer");
    } else if (has_begun && (reply->status != 200 || !r->text.len)) {
        buf_printf(problem, "a stream that had begun was not passed on: status %d, %zu bytes of text",
                   reply->status, r->text.len);
    } else if (has_begun && (r->text.len > strlen(text) || memcmp(r->text.data, text, r->text.len) != 0)) {
        buf_puts(problem, "its text is not the beginning of the right one: ");
        show(problem, r->text.data, r->text.len);
    } else if (has_begun && (r->said_end || r->finished || reply->is_complete)) {
        buf_puts(problem, "a broken stream ends as a whole one does");
    } else if (!has_begun && !is_status_right(fault, reply->status)) {
        buf_printf(problem, "status %d is not one for this fault", reply->status);
    } else if (!has_begun && r->text.len) {
        buf_puts(problem, "there is text where there should be an error only");
    } else {
        judge_error(cell, r, reply, problem);
    }
}

void drill_judge(struct arena *arena, const struct drill_cell *cell, const char *text,
                 const struct drill_reply *reply, struct buf *problem)
{
    struct reading r = {.arena = arena, .edge = cell->edge};
    buf_init(&r.text, TEXT_BYTES_MAX);
    read_reply(&r, cell, reply);
    if (reply->leaks_in_header || strstr(reply->body, DRILL_KEY_PREFIX))
        buf_puts(problem, "a provider's key is in the reply");
    else if (r.is_bad)
        buf_printf(problem, "status %d, and a body that is not of this dialect", reply->status);
    else if (cell->is_backed)
        judge_backed(cell, &r, text, reply, problem);
    else
        judge_alone(cell, &r, text, reply, problem);
    buf_release(&r.text);
}
