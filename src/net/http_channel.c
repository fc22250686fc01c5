/* One connection of the HTTP client's, from the dial to the close: by a proxy's tunnel where there is one,
 * under TLS where the origin wants it, for one call after another.
 *
 * A channel is opened for a call and carries one at a time. It always reads, so that an idle one hears of its
 * end, except while its call is paused: then TCP holds the other end back. What it reads goes into a buffer
 * that all channels share, is opened there (TLS) and handed to the call in one piece; so is every record that
 * has arrived, since one that waited inside OpenSSL would wait for an event that never comes.
 *
 * A request is offered to the socket at once, straight from the call's memory; what the socket does not take
 * libuv writes when it can. A failing write says nothing by itself: a server may answer and close before it
 * has read all, and the answer counts. Reading tells the rest.
 *
 * Closing is at once for the call, and later for the memory: libuv may still hold the handle. So a callback's
 * channel can be looked at after its call was told something, and says CLOSED then. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "net/http_client_int.h"

#define SEAL_BYTES_AT_ONCE (4 * TLS_RECORD_BYTES_MAX)

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer);
static void write_out(struct http_channel *channel);

static uv_stream_t *stream_of(struct http_channel *channel)
{
    return (uv_stream_t *)channel->tcp;
}

/* ---- Closing ---- */

static void destroy(struct http_channel *channel)
{
    tls_conn_free(channel->tls);
    buf_release(&channel->out);
    mem_free(channel->tcp);
    mem_free(channel);
}

static void on_closed(uv_handle_t *handle)
{
    destroy(handle->data);
}

static void drop_tunnel(struct http_channel *channel)
{
    if (channel->tunnel)
        http_reply_release(channel->tunnel);
    mem_free(channel->tunnel);
    channel->tunnel = NULL;
}

void http_channel_close(struct http_channel *channel)
{
    struct http_client *client = channel->client;
    if (channel->phase == HTTP_CHANNEL_CLOSED)
        return;
    if (channel->phase == HTTP_CHANNEL_OPEN)
        client->stats.connections--;
    channel->phase = HTTP_CHANNEL_CLOSED;
    client->channel_count--;
    http_client_forget_idle(channel);
    net_dial_cancel(channel->dial);
    channel->dial = NULL;
    drop_tunnel(channel);
    http_origin_leave(channel->origin);
    channel->origin = NULL;
    channel->call = NULL;
    if (channel->tcp)
        uv_close((uv_handle_t *)channel->tcp, on_closed);
    else
        destroy(channel);
}

/* The call hears why, and goes without its channel. */
static void fail(struct http_channel *channel, enum http_call_end how, const char *why)
{
    if (channel->call)
        http_call_finish(channel->call, how, why);
    else
        http_channel_close(channel);
}

/* ---- Writing ---- */

static void on_written(uv_write_t *request, int status)
{
    (void)status; /* reading tells */
    struct http_channel *channel = request->data;
    channel->is_writing = false;
    buf_release(&channel->out);
    if (channel->phase != HTTP_CHANNEL_CLOSED)
        write_out(channel);
}

/* The rest of some bytes, which stay where they are until they are written. */
static void write_later(struct http_channel *channel, uv_buf_t *bufs, unsigned count, size_t taken)
{
    while (count && taken >= bufs->len) {
        taken -= bufs->len;
        bufs++;
        count--;
    }
    if (!count)
        return;
    bufs->base += taken;
    bufs->len -= taken;
    channel->write.data = channel;
    channel->is_writing = uv_write(&channel->write, stream_of(channel), bufs, count, on_written) == 0;
}

/* What a socket that is broken takes is nothing, and no reason to stop. */
static size_t offer(struct http_channel *channel, const uv_buf_t *bufs, unsigned count)
{
    int n = uv_try_write(stream_of(channel), bufs, count);
    return n > 0 ? (size_t)n : 0;
}

/* A text of ours: TLS's records, a request to a proxy. It moves to `out` when it cannot go at once. */
static void write_text(struct http_channel *channel, struct buf *text)
{
    if (!text->len || channel->is_writing)
        return;
    uv_buf_t all = uv_buf_init(text->data, (unsigned)text->len);
    size_t taken = offer(channel, &all, 1);
    if (taken == text->len) {
        buf_clear(text);
        return;
    }
    channel->out = *text;
    buf_init(text, SIZE_MAX);
    write_later(channel, &all, 1, taken);
    if (!channel->is_writing)
        buf_release(&channel->out);
}

/* Some records of what the request still has to say. */
static void seal(struct http_channel *channel)
{
    const struct http_call *call = channel->call;
    size_t head = call->request.len, all = head + call->body_len, end = channel->sealed + SEAL_BYTES_AT_ONCE;
    while (channel->sealed < all && channel->sealed < end) {
        size_t at = channel->sealed;
        const char *bytes = at < head ? call->request.data + at : call->body + (at - head);
        size_t len = (at < head ? head : all) - at;
        if (len > TLS_RECORD_BYTES_MAX)
            len = TLS_RECORD_BYTES_MAX;
        if (!tls_conn_seal(channel->tls, bytes, len))
            return; /* reading tells */
        channel->sealed += len;
    }
}

/* Under TLS, as long as the socket takes it: one record follows the other. */
static void write_out(struct http_channel *channel)
{
    if (!channel->tls)
        return;
    size_t before = SIZE_MAX;
    while (!channel->is_writing && before != channel->sealed) {
        before = channel->sealed;
        if (channel->call && channel->call->phase != HTTP_CALL_CONNECTING)
            seal(channel);
        write_text(channel, tls_conn_wire(channel->tls));
    }
}

void http_channel_send(struct http_channel *channel)
{
    const struct http_call *call = channel->call;
    channel->sealed = 0;
    if (channel->tls) {
        write_out(channel);
        return;
    }
    uv_buf_t bufs[2] = {{.base = call->request.data, .len = call->request.len},
                        {.base = (char *)(uintptr_t)call->body, .len = call->body_len}};
    unsigned count = call->body_len ? 2 : 1;
    write_later(channel, bufs, count, offer(channel, bufs, count));
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    (void)request;
    (void)status; /* what fails has no other end any more */
}

void http_channel_shut(struct http_channel *channel)
{
    if (channel->is_shut)
        return;
    channel->is_shut = true;
    if (channel->tls) {
        tls_conn_say_end(channel->tls);
        write_text(channel, tls_conn_wire(channel->tls));
    }
    (void)uv_shutdown(&channel->shutdown, stream_of(channel), on_shutdown);
}

/* ---- Opening ---- */

static void become_open(struct http_channel *channel)
{
    channel->phase = HTTP_CHANNEL_OPEN;
    channel->client->stats.connections++;
    channel->client->stats.connects_total++;
    http_call_ready(channel->call);
}

/* The client's first word comes from asking for what there is to read. */
static void shake(struct http_channel *channel)
{
    size_t n = 0;
    struct http_client *client = channel->client;
    channel->phase = HTTP_CHANNEL_SHAKING;
    if (!client->tls) {
        fail(channel, HTTP_CALL_TLS, "this client was opened for http:// only");
        return;
    }
    if (!client->plain_buffer)
        client->plain_buffer = mem_alloc(HTTP_CALL_READ_BYTES + TLS_RECORD_BYTES_MAX);
    channel->tls = tls_conn_create(client->tls, channel->origin->host);
    if (!channel->tls || !client->plain_buffer) {
        fail(channel, HTTP_CALL_FAILED, "no memory for TLS");
        return;
    }
    (void)tls_conn_read(channel->tls, client->plain_buffer, TLS_RECORD_BYTES_MAX, &n);
    write_out(channel);
}

static void begin(struct http_channel *channel)
{
    if (channel->origin->is_tls)
        shake(channel);
    else
        become_open(channel);
}

static void ask_proxy(struct http_channel *channel)
{
    struct buf text;
    buf_init(&text, SIZE_MAX);
    channel->phase = HTTP_CHANNEL_TUNNELLING;
    channel->tunnel = mem_alloc(sizeof *channel->tunnel);
    http_origin_put_connect(&text, channel->origin);
    if (channel->tunnel) {
        http_reply_init(channel->tunnel);
        http_reply_clear(channel->tunnel, true, 0);
    }
    if (!channel->tunnel || buf_status(&text) != PH_OK)
        fail(channel, HTTP_CALL_FAILED, "no memory for a proxy");
    else
        write_text(channel, &text);
    buf_release(&text);
}

static void on_dialled(void *ud, enum net_dial_end how, uv_tcp_t *tcp, const char *why)
{
    static const enum http_call_end ends[] = {[NET_DIAL_NO_NAME] = HTTP_CALL_NO_NAME,
                                              [NET_DIAL_NO_CONNECTION] = HTTP_CALL_NO_CONNECTION,
                                              [NET_DIAL_FAILED] = HTTP_CALL_FAILED};
    struct http_channel *channel = ud;
    struct http_client *client = channel->client;
    channel->dial = NULL;
    if (how != NET_DIAL_DONE) {
        fail(channel, ends[how], why);
    } else {
        channel->tcp = tcp;
        tcp->data = channel;
        http_channel_read(channel, true);
        if (channel->origin->has_proxy && channel->origin->is_tls)
            ask_proxy(channel);
        else
            begin(channel);
    }
    http_client_deliver(client);
}

bool http_channel_open(struct http_client *client, struct http_call *call)
{
    struct http_channel *channel = mem_calloc(1, sizeof *channel);
    if (!channel)
        return false;
    channel->dial = net_dial_start(client->loop, client->names, call->origin->hop_host,
                                   call->origin->hop_port, on_dialled, channel);
    if (!channel->dial) {
        mem_free(channel);
        return false;
    }
    channel->client = client;
    channel->origin = call->origin;
    channel->origin->users++;
    channel->call = call;
    buf_init(&channel->out, SIZE_MAX);
    http_link_init(&channel->link);
    http_link_init(&channel->age);
    client->channel_count++;
    call->channel = channel;
    return true;
}

/* ---- Reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    struct http_channel *channel = handle->data;
    *buffer = uv_buf_init(channel->client->read_buffer, HTTP_CALL_READ_BYTES);
}

void http_channel_read(struct http_channel *channel, bool is_wanted)
{
    if (is_wanted == channel->is_reading || !channel->tcp)
        return;
    channel->is_reading = is_wanted;
    if (is_wanted)
        (void)uv_read_start(stream_of(channel), on_alloc,
                            on_read); /* a socket that has gone tells by its time */
    else
        uv_read_stop(stream_of(channel));
}

static void on_tunnel_bytes(struct http_channel *channel, char *bytes, size_t len)
{
    char why[HTTP_CALL_MESSAGE_BYTES];
    struct http_reply *tunnel = channel->tunnel;
    size_t body_len = 0;
    http_reply_feed(tunnel, bytes, len, &body_len);
    if (tunnel->state == HTTP_REPLY_GOES_ON)
        return;
    bool is_open = tunnel->state == HTTP_REPLY_WHOLE && tunnel->status / 100 == 2;
    if (tunnel->state == HTTP_REPLY_WHOLE)
        snprintf(why, sizeof why, "the proxy answered with status %d", tunnel->status);
    else
        snprintf(why, sizeof why, "the proxy: %s", tunnel->why);
    drop_tunnel(channel);
    if (is_open)
        begin(channel);
    else
        fail(channel, HTTP_CALL_NO_CONNECTION, why);
}

/* Bytes as they were meant. An idle channel expects none: the other end is out of step, or closing. */
static void on_bytes(struct http_channel *channel, char *bytes, size_t len)
{
    if (channel->phase == HTTP_CHANNEL_TUNNELLING)
        on_tunnel_bytes(channel, bytes, len);
    else if (channel->call)
        http_call_take(channel->call, bytes, len);
    else
        http_channel_close(channel);
}

static void on_end(struct http_channel *channel, bool is_clean)
{
    if (channel->phase == HTTP_CHANNEL_TUNNELLING)
        fail(channel, HTTP_CALL_NO_CONNECTION, "the proxy closed the connection");
    else if (channel->phase == HTTP_CHANNEL_SHAKING)
        fail(channel, HTTP_CALL_TLS, "the connection ended in the middle of the TLS handshake");
    else if (channel->call)
        http_call_lost(channel->call, is_clean);
    else
        http_channel_close(channel);
}

/* It is told why, by TLS, and so is the call. */
static void refuse_peer(struct http_channel *channel)
{
    write_text(channel, tls_conn_wire(channel->tls));
    fail(channel, HTTP_CALL_TLS, tls_conn_why(channel->tls));
}

static void on_shaken(struct http_channel *channel, enum tls_event event)
{
    if (tls_conn_is_open(channel->tls))
        become_open(channel);
    else if (event == TLS_BROKEN)
        refuse_peer(channel);
}

static void on_sealed(struct http_channel *channel, const char *bytes, size_t len)
{
    char *plain = channel->client->plain_buffer;
    size_t room = HTTP_CALL_READ_BYTES + TLS_RECORD_BYTES_MAX, got = 0;
    enum tls_event event = TLS_BYTES;
    tls_conn_feed(channel->tls, bytes, len);
    while (event == TLS_BYTES && got < room) {
        size_t n = 0;
        event = tls_conn_read(channel->tls, plain + got, room - got, &n);
        got += n;
    }
    if (channel->phase == HTTP_CHANNEL_SHAKING)
        on_shaken(channel, event);
    if (channel->phase != HTTP_CHANNEL_CLOSED)
        write_out(channel); /* TLS may have to say something of its own */
    if (channel->phase != HTTP_CHANNEL_CLOSED && got)
        on_bytes(channel, plain, got);
    if (channel->phase != HTTP_CHANNEL_CLOSED && (event == TLS_END || event == TLS_BROKEN))
        on_end(channel, event == TLS_END);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct http_channel *channel = stream->data;
    struct http_client *client = channel->client;
    if (n < 0)
        on_end(channel, n == UV_EOF && !channel->tls); /* TLS says its end itself, or was cut */
    else if (n > 0 && channel->tls)
        on_sealed(channel, buffer->base, (size_t)n);
    else if (n > 0)
        on_bytes(channel, buffer->base, (size_t)n);
    http_client_deliver(client);
}
