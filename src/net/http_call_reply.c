/* What comes back to a call, and what its sink is told.
 *
 * A piece that was read is parsed as a whole, its body moved together, and told: the head, the bytes, then
 * the end. The sink may do anything to any call meanwhile, its own too; `client->delivering` says whether
 * ours is still there. */
#include <string.h>

#include "base/mem.h"
#include "net/http_client_int.h"

static void expect(struct http_call *call, enum http_call_phase phase, uint32_t limit_ms)
{
    call->phase = phase;
    call->is_late = false; /* something has happened since */
    if (call->is_draining)
        return;
    call->phase_due_ms = uv_now(call->client->uv) + limit_ms;
    http_client_arm(call->client, http_call_due_ms(call));
}

void http_call_ready(struct http_call *call)
{
    http_reply_clear(&call->reply, call->is_for_head, call->body_bytes_max);
    expect(call, HTTP_CALL_ASKING, call->head_ms);
    http_channel_send(call->channel);
}

/* ---- Telling the sink ---- */

static bool make_fields(struct http_client *client, size_t count)
{
    if (count <= client->field_room)
        return true;
    struct http_header *fields = mem_realloc(client->fields, count, sizeof *fields);
    if (!fields)
        return false;
    client->fields = fields;
    client->field_room = count;
    return true;
}

static void tell_head(struct http_call *call)
{
    struct http_client *client = call->client;
    const struct http_reply *reply = &call->reply;
    const char *at = reply->text.data;
    call->head_is_told = true;
    if (!make_fields(client, reply->field_count)) {
        http_call_finish(call, HTTP_CALL_FAILED, "no memory for the head of a reply");
        client->delivering = NULL;
        return;
    }
    for (size_t i = 0; i < reply->field_count; i++) {
        client->fields[i].name = at;
        at += strlen(at) + 1;
        client->fields[i].value = at;
        at += strlen(at) + 1;
    }
    call->sink.head(call->sink.ud, reply->status, client->fields, reply->field_count);
}

static void tell_body(struct http_call *call, const char *bytes, size_t len)
{
    struct http_client *client = call->client;
    bool goes_on = call->sink.body(call->sink.ud, bytes, len);
    if (client->delivering != call || goes_on || call->is_draining)
        return;
    call->is_paused = true;
    http_channel_read(call->channel, false);
}

/* It leaves first: the sink may close the client now. */
void http_call_deliver(struct http_call *call)
{
    if (!call->is_over || call->is_paused)
        return;
    http_call_leave(call);
    call->sink.end(call->sink.ud, call->how, call->message);
    http_call_give_back(call);
}

/* ---- What comes ---- */

static void finish_as_parsed(struct http_call *call)
{
    static const enum http_call_end ends[] = {[HTTP_REPLY_WHOLE] = HTTP_CALL_WHOLE,
                                              [HTTP_REPLY_BAD] = HTTP_CALL_BAD_REPLY,
                                              [HTTP_REPLY_TOO_LARGE] = HTTP_CALL_TOO_LARGE,
                                              [HTTP_REPLY_NO_MEMORY] = HTTP_CALL_FAILED};
    const struct http_reply *reply = &call->reply;
    http_call_finish(call, ends[reply->state], reply->why ? reply->why : "");
}

void http_call_take(struct http_call *call, char *bytes, size_t len)
{
    struct http_client *client = call->client;
    struct http_reply *reply = &call->reply;
    size_t body_len = 0;
    http_reply_feed(reply, bytes, len, &body_len);
    client->delivering = call;
    if (reply->has_head) {
        expect(call, HTTP_CALL_READING, call->silence_ms);
        if (!call->head_is_told)
            tell_head(call);
    }
    if (client->delivering == call && body_len)
        tell_body(call, bytes, body_len);
    if (client->delivering == call && reply->state != HTTP_REPLY_GOES_ON)
        finish_as_parsed(call);
    client->delivering = NULL;
}

/* A kept connection may have been closed by the other end while our request was on its way: once, it goes by
 * a new one. */
static bool replace(struct http_call *call)
{
    struct http_channel *dead = call->channel;
    if (!dead->was_used || call->reply.has_begun || call->was_replaced || call->is_draining)
        return false;
    call->was_replaced = true;
    call->channel = NULL;
    http_channel_close(dead);
    expect(call, HTTP_CALL_CONNECTING, call->connect_ms);
    http_client_connect(call, true);
    return true;
}

void http_call_lost(struct http_call *call, bool is_clean)
{
    struct http_reply *reply = &call->reply;
    if (replace(call))
        return;
    if (is_clean)
        http_reply_end(reply);
    if (reply->state == HTTP_REPLY_WHOLE)
        finish_as_parsed(call);
    else
        http_call_finish(call, HTTP_CALL_CUT,
                         reply->has_head    ? "the connection ended in the middle of the reply"
                         : reply->has_begun ? "the connection ended within the head of the reply"
                                            : "the connection ended without a reply");
}
