/* The HTTP client: who gets which connection, what the sinks are told, and when a call has waited too long.
 *
 * Two rules make it simple:
 *
 *   1. No sink is called inside a caller's call. What a caller changes leaves its trace in `news`, and a turn
 *      of the loop (an idle handle, as in the server) delivers it before the loop sleeps. What comes from a
 *      socket is told at once, in the callback that read it.
 *   2. A call has its channel to itself, from the request to the end of the reply. A reply that ended as it
 *      should leaves its channel to the origin, for the next call; any other end closes it. HTTP/1.1 without
 *      pipelining: what goes wrong on a connection concerns one call.
 *
 * Time. The limits of calls need no timer each: a call knows when it is due, a piece that arrives moves that
 * by a store, and one timer looks through all calls when the earliest of them may be due, at most once in
 * HTTP_CALL_TICK_MS. Thousands of calls are looked through in microseconds. A call that has heard nothing is
 * given up at the second look: where the loop itself was late, what it waits for may have come and not been
 * read. */
#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "net/http_client_int.h"

/* ---- Turns and news ---- */

static void on_turn(uv_idle_t *handle)
{
    http_client_deliver(handle->data);
}

void http_client_tell(struct http_call *call)
{
    struct http_client *client = call->client;
    if (http_link_is_alone(&call->news))
        http_link_append(&client->news, &call->news);
    if (!client->is_closing)
        uv_idle_start(&client->turn, on_turn);
}

void http_client_deliver(struct http_client *client)
{
    while (!http_link_is_alone(&client->news)) {
        struct http_call *call = HTTP_CONTAINER(client->news.next, struct http_call, news);
        http_link_remove(&call->news);
        http_call_deliver(call);
    }
    if (!client->is_closing)
        uv_idle_stop(&client->turn);
}

/* ---- Time limits ---- */

static void on_deadline(uv_timer_t *timer)
{
    struct http_client *client = timer->data;
    uint64_t now_ms = uv_now(client->uv), next_ms = UINT64_MAX;
    client->deadline_due_ms = UINT64_MAX;
    client->scanned_ms = now_ms;
    for (struct http_link *link = client->calls.next; link != &client->calls; link = link->next) {
        struct http_call *call = HTTP_CONTAINER(link, struct http_call, link);
        uint64_t due_ms = http_call_due_ms(call);
        if (due_ms <= now_ms && !http_call_take_grace(call, now_ms)) {
            http_call_expire(call, now_ms);
            continue;
        }
        if (due_ms <= now_ms)
            due_ms = now_ms + HTTP_CALL_TICK_MS;
        if (due_ms < next_ms)
            next_ms = due_ms;
    }
    http_client_arm(client, next_ms);
    http_client_deliver(client);
}

void http_client_arm(struct http_client *client, uint64_t due_ms)
{
    if (due_ms >= client->deadline_due_ms || client->is_closing)
        return;
    uint64_t now_ms = uv_now(client->uv);
    client->deadline_due_ms = due_ms;
    if (due_ms < client->scanned_ms + HTTP_CALL_TICK_MS)
        due_ms = client->scanned_ms + HTTP_CALL_TICK_MS;
    uv_timer_start(&client->deadline_timer, on_deadline, due_ms > now_ms ? due_ms - now_ms : 0, 0);
}

/* ---- Channels ---- */

static struct http_channel *oldest_idle(struct http_client *client)
{
    return http_link_is_alone(&client->idle) ? NULL
                                             : HTTP_CONTAINER(client->idle.next, struct http_channel, age);
}

void http_client_keep(struct http_channel *channel)
{
    struct http_client *client = channel->client;
    channel->call = NULL;
    channel->was_used = true;
    channel->idle_since_ms = uv_now(client->uv);
    http_channel_read(channel, true);
    http_link_append(channel->origin->idle.next, &channel->link); /* that is, at the front */
    http_link_append(&client->idle, &channel->age);
    if (++client->idle_count > client->idle_max)
        http_channel_close(oldest_idle(client));
}

void http_client_forget_idle(struct http_channel *channel)
{
    if (http_link_is_alone(&channel->age))
        return;
    http_link_remove(&channel->link);
    http_link_remove(&channel->age);
    channel->client->idle_count--;
}

/* The one used last, unless it is so old that something on the way may have forgotten it. */
static struct http_channel *take_idle(struct http_client *client, struct http_origin *origin)
{
    while (!http_link_is_alone(&origin->idle)) {
        struct http_channel *channel = HTTP_CONTAINER(origin->idle.next, struct http_channel, link);
        if (uv_now(client->uv) - channel->idle_since_ms < HTTP_CALL_IDLE_AGE_MS) {
            http_client_forget_idle(channel);
            return channel;
        }
        http_channel_close(channel);
    }
    return NULL;
}

static bool has_room(struct http_client *client)
{
    struct http_channel *idle = client->channel_count < client->channels_max ? NULL : oldest_idle(client);
    if (idle)
        http_channel_close(idle);
    return client->channel_count < client->channels_max;
}

void http_client_connect(struct http_call *call, bool is_fresh)
{
    struct http_client *client = call->client;
    struct http_channel *idle = is_fresh ? NULL : take_idle(client, call->origin);
    if (idle) {
        idle->call = call;
        call->channel = idle;
        http_call_ready(call);
    } else if (!has_room(client)) {
        http_link_append(&client->waiting, &call->waiting);
    } else if (!http_channel_open(client, call)) {
        http_call_finish(call, HTTP_CALL_FAILED, "no memory for a connection to another machine");
    }
}

void http_client_serve_waiting(struct http_client *client)
{
    while (!http_link_is_alone(&client->waiting)) {
        struct http_call *call = HTTP_CONTAINER(client->waiting.next, struct http_call, waiting);
        if (http_link_is_alone(&call->origin->idle) && !has_room(client))
            return;
        http_link_remove(&call->waiting);
        http_client_connect(call, false);
    }
}

/* ---- The client ---- */

static void free_client(struct http_client *client)
{
    net_names_close(client->names);
    tls_context_free(client->tls);
    mem_free(client->read_buffer);
    mem_free(client->plain_buffer);
    mem_free(client->fields);
    mem_free(client->user_agent);
    mem_free(client);
}

static void init_handles(struct http_client *client)
{
    uv_timer_init(client->uv, &client->deadline_timer);
    uv_idle_init(client->uv, &client->turn);
    client->deadline_timer.data = client->turn.data = client;
    client->handles_open = 2;
}

static void init(struct http_client *client, const struct http_client_params *params)
{
    client->loop = params->loop;
    client->uv = net_loop_uv(params->loop);
    client->deadline_due_ms = UINT64_MAX;
    client->channels_max = params->connections_max ? params->connections_max : HTTP_CALL_CONNECTIONS_MAX;
    client->idle_max = params->idle_connections_max ? params->idle_connections_max : HTTP_CALL_IDLE_MAX;
    http_link_init(&client->calls);
    http_link_init(&client->waiting);
    http_link_init(&client->news);
    http_link_init(&client->spares);
    http_link_init(&client->origins);
    http_link_init(&client->idle);
}

enum ph_status http_client_open(struct http_client **out, const struct http_client_params *params,
                                struct ph_err *err)
{
    struct http_client *client = mem_calloc(1, sizeof *client);
    if (!client)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for an HTTP client");
    init(client, params);
    client->read_buffer = mem_alloc(HTTP_CALL_READ_BYTES);
    client->user_agent = mem_strdup(params->user_agent ? params->user_agent : "pharos");
    enum ph_status status =
        params->plain_only ? PH_OK : tls_client_context(&client->tls, params->ca_file, err);
    if (status == PH_OK && client->read_buffer && client->user_agent)
        client->names = net_names_open(client->loop);
    if (status == PH_OK && !client->names)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for an HTTP client");
    if (status != PH_OK) {
        free_client(client);
        return status;
    }
    init_handles(client);
    *out = client;
    return PH_OK;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http_client *client = handle->data;
    if (--client->handles_open == 0)
        free_client(client);
}

void http_client_close(struct http_client *client)
{
    if (!client)
        return;
    assert(http_link_is_alone(&client->calls) && "a call of this HTTP client is not over");
    client->is_closing = true;
    while (!http_link_is_alone(&client->spares)) {
        struct http_call *call = HTTP_CONTAINER(client->spares.next, struct http_call, link);
        http_link_remove(&call->link);
        http_call_destroy(call);
    }
    while (oldest_idle(client))
        http_channel_close(oldest_idle(client));
    net_names_close(client->names);
    client->names = NULL;
    uv_close((uv_handle_t *)&client->deadline_timer, on_handle_closed);
    uv_close((uv_handle_t *)&client->turn, on_handle_closed);
}

void http_client_stats(const struct http_client *client, struct http_client_stats *out)
{
    *out = client->stats;
}
