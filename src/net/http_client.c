/* The HTTP client: libcurl's multi interface on our loop.
 *
 * Three rules make it simple:
 *
 *   1. No sink is called inside curl. Curl's callbacks put what arrived into the call (http_call_reply.c) and
 *      the call into `news`; when curl has returned, the news is delivered. So a sink may start, pause and
 *      cancel any call, which curl's own callbacks may not.
 *   2. No sink is called inside a caller's call. What a caller changes leaves its trace in `news` or in
 *      curl's timer, and a turn of the loop (an idle handle, as in the server) goes on with it before the
 *      loop sleeps.
 *   3. A socket is watched from the day it is opened to the day it is closed. Curl drops its interest at the
 *      end of every reply and takes it up again at the next request; libuv would make that two system calls
 *      each. So interest in reading is kept, and dropped only when an event comes that nobody wants: the
 *      other end has closed an idle connection, and curl finds that out when it wants to use it.
 *
 * Time. Curl has one timer for what it wants itself. The time limits of calls are ours, since curl has no
 * such four: each call knows when it is due, a piece that arrives moves that by a store, and one timer looks
 * through all calls when the earliest of them may be due, at most once in HTTP_CALL_TICK_MS. Thousands of
 * calls are looked through in microseconds, and a request touches no timer but curl's.
 *
 * Names are resolved on curl's own threads. A call that ends while its name is being looked up leaves that
 * thread behind (CURLOPT_QUICK_EXIT); joining it would hold the loop for as long as the name server is
 * silent. */
#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "net/http_client_int.h"

#define SOCKET_ROOM_MIN 64

static void drive(struct http_client *client, curl_socket_t fd, int events);

/* ---- Turns and news ---- */

static void on_turn(uv_idle_t *handle)
{
    struct http_client *client = handle->data;
    uv_idle_stop(handle);
    drive(client, CURL_SOCKET_TIMEOUT, 0);
}

void http_client_wake(struct http_client *client)
{
    if (!client->is_closing)
        uv_idle_start(&client->turn, on_turn);
}

void http_client_tell(struct http_call *call)
{
    if (http_link_is_alone(&call->news))
        http_link_append(&call->client->news, &call->news);
}

static void deliver(struct http_client *client)
{
    while (!http_link_is_alone(&client->news)) {
        struct http_call *call = HTTP_CONTAINER(client->news.next, struct http_call, news);
        http_link_remove(&call->news);
        http_call_deliver(call);
    }
}

/* Lets curl work: on a socket, or on what its timer has come for. */
static void drive(struct http_client *client, curl_socket_t fd, int events)
{
    int running = 0, left = 0;
    if (fd != CURL_SOCKET_TIMEOUT || client->curl_is_due) {
        if (fd == CURL_SOCKET_TIMEOUT)
            client->curl_is_due = false;
        curl_multi_socket_action(client->multi, fd, events, &running);
    }
    for (CURLMsg *m = curl_multi_info_read(client->multi, &left); m;
         m = curl_multi_info_read(client->multi, &left)) {
        char *call = NULL;
        if (m->msg == CURLMSG_DONE && curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &call) == CURLE_OK)
            http_call_conclude((struct http_call *)(void *)call, m->data.result);
    }
    deliver(client);
}

static void on_curl_time(uv_timer_t *timer)
{
    struct http_client *client = timer->data;
    client->curl_is_due = true;
    drive(client, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *ud)
{
    (void)multi;
    struct http_client *client = ud;
    client->curl_is_due = timeout_ms == 0;
    if (client->is_closing)
        return 0;
    if (timeout_ms > 0)
        uv_timer_start(&client->curl_timer, on_curl_time, (uint64_t)timeout_ms, 0);
    else if (uv_is_active((uv_handle_t *)&client->curl_timer))
        uv_timer_stop(&client->curl_timer);
    if (timeout_ms == 0)
        http_client_wake(client);
    return 0;
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
        if (due_ms <= now_ms)
            http_call_expire(call, now_ms);
        else if (due_ms < next_ms)
            next_ms = due_ms;
    }
    http_client_arm(client, next_ms);
    deliver(client);
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

/* ---- Sockets ---- */

static void on_socket_event(uv_poll_t *poll, int status, int events);

static void free_socket(uv_handle_t *handle)
{
    mem_free(handle->data);
}

static struct http_socket *find_socket(struct http_client *client, curl_socket_t fd)
{
    return (size_t)fd < client->socket_room ? client->sockets[fd] : NULL;
}

static bool make_room(struct http_client *client, size_t index)
{
    if (index < client->socket_room)
        return true;
    size_t room = client->socket_room ? client->socket_room : SOCKET_ROOM_MIN;
    while (room <= index)
        room *= 2;
    struct http_socket **sockets = mem_realloc(client->sockets, room, sizeof(struct http_socket *));
    if (!sockets)
        return false;
    memset(sockets + client->socket_room, 0, (room - client->socket_room) * sizeof *sockets);
    client->sockets = sockets;
    client->socket_room = room;
    return true;
}

static struct http_socket *watch_socket(struct http_client *client, curl_socket_t fd)
{
    struct http_socket *sock = make_room(client, (size_t)fd) ? mem_calloc(1, sizeof *sock) : NULL;
    if (!sock || uv_poll_init_socket(client->uv, &sock->poll, fd) != 0) {
        mem_free(sock);
        return NULL;
    }
    sock->poll.data = sock;
    sock->client = client;
    sock->fd = fd;
    client->sockets[fd] = sock;
    return sock;
}

static void forget_socket(struct http_socket *sock)
{
    if (sock->call)
        http_client_part(sock->call);
    if (sock->is_connected)
        sock->client->stats.connections--;
    sock->client->sockets[sock->fd] = NULL;
    uv_close((uv_handle_t *)&sock->poll, free_socket);
}

/* Everything that curl wants is watched, and nothing else but reading. */
static void adjust(struct http_socket *sock)
{
    int missing = sock->wanted & ~sock->watched;
    if (!missing && !(sock->watched & ~sock->wanted & UV_WRITABLE))
        return;
    int events = sock->wanted | (sock->watched & UV_READABLE);
    sock->watched = uv_poll_start(&sock->poll, events, on_socket_event) == 0 ? events : 0;
}

static void on_socket_event(uv_poll_t *poll, int status, int events)
{
    struct http_socket *sock = poll->data;
    struct http_client *client = sock->client;
    curl_socket_t fd = sock->fd;
    if (status < 0) { /* libuv has stopped watching; curl asks the socket itself */
        sock->watched = 0;
        events = sock->wanted;
    }
    if (!(events & sock->wanted)) {
        if (status >= 0)
            uv_poll_stop(poll);
        sock->watched = 0;
        adjust(sock);
        return;
    }
    int action = (events & UV_READABLE ? CURL_CSELECT_IN : 0) |
                 (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0) | (status < 0 ? CURL_CSELECT_ERR : 0);
    drive(client, fd, action);
    sock = status < 0 && !client->is_closing ? find_socket(client, fd) : NULL;
    if (sock)
        adjust(sock);
}

/* Curl tells what it wants of a descriptor. To answer -1 would end every call, so a descriptor that cannot be
 * watched leaves its call to its time limit. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ud, void *unused)
{
    (void)unused;
    struct http_client *client = ud;
    struct http_socket *sock = find_socket(client, fd);
    char *call = NULL;
    if (!sock && what != CURL_POLL_REMOVE)
        sock = watch_socket(client, fd);
    if (!sock)
        return 0;
    if (what == CURL_POLL_REMOVE && !sock->is_connected) {
        forget_socket(sock); /* one of curl's own, or closed already without a word */
        return 0;
    }
    sock->wanted = what == CURL_POLL_IN      ? UV_READABLE
                   : what == CURL_POLL_OUT   ? UV_WRITABLE
                   : what == CURL_POLL_INOUT ? UV_READABLE | UV_WRITABLE
                                             : 0;
    adjust(sock);
    if (sock->wanted && curl_easy_getinfo(easy, CURLINFO_PRIVATE, &call) == CURLE_OK) {
        sock->call = (struct http_call *)(void *)call;
        sock->call->fd = fd;
        if (sock->call->phase != HTTP_CALL_CONNECTING)
            http_client_connected(sock->call);
    }
    return 0;
}

/* Asked when a request is about to be sent, and when curl speaks of its socket after that: a connection that
 * is made at once is sent on before curl has spoken of it. While a dead one is being replaced there is no
 * peer yet. */
void http_client_connected(struct http_call *call)
{
    struct http_client *client = call->client;
    struct http_socket *sock = call->fd != CURL_SOCKET_BAD ? find_socket(client, call->fd) : NULL;
    if (!sock || sock->is_connected || !net_socket_has_peer(sock->fd))
        return;
    sock->is_connected = true;
    client->stats.connections++;
    client->stats.connects_total++;
}

void http_client_part(struct http_call *call)
{
    struct http_socket *sock = call->fd != CURL_SOCKET_BAD ? find_socket(call->client, call->fd) : NULL;
    if (sock && sock->call == call)
        sock->call = NULL;
    call->fd = CURL_SOCKET_BAD;
}

/* Curl 7.88 closes what did not connect without our callback, and may at once have the same descriptor again
 * for the next address: the system has forgotten that it was watched, and libuv must be told. */
curl_socket_t http_client_open_socket(void *ud, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    int fd = net_socket_open(address->family, address->socktype, address->protocol);
    struct http_socket *stale = fd < 0 ? NULL : find_socket(ud, fd);
    if (stale) {
        uv_poll_stop(&stale->poll);
        stale->watched = 0;
        adjust(stale);
    }
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

int http_client_close_socket(void *ud, curl_socket_t fd)
{
    struct http_socket *sock = find_socket(ud, fd);
    if (sock)
        forget_socket(sock);
    net_socket_close(fd);
    return 0;
}

/* ---- The client ---- */

/* Curl counts the connections that are in use among those it keeps. */
void http_client_count(struct http_client *client)
{
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)(client->stats.calls + client->idle_max));
}

static void free_client(struct http_client *client)
{
    if (client->multi)
        curl_multi_cleanup(client->multi);
    tls_roots_free(client->roots);
    buf_release(&client->spare_body);
    mem_free(client->fields);
    mem_free(client->sockets);
    mem_free(client->user_agent);
    mem_free(client);
}

static enum ph_status set_up_curl(struct http_client *client, const struct http_client_params *params)
{
    size_t connections_max = params->connections_max ? params->connections_max : HTTP_CALL_CONNECTIONS_MAX;
    client->idle_max = params->idle_connections_max ? params->idle_connections_max : HTTP_CALL_IDLE_MAX;
    client->user_agent = mem_strdup(params->user_agent ? params->user_agent : "pharos");
    /* Curl counts these calls; what it sets up is used until the process ends. */
    if (!client->user_agent || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return PH_ERR_NOMEM;
    client->multi = curl_multi_init();
    if (!client->multi)
        return PH_ERR_NOMEM;
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_multi_setopt(client->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)connections_max);
    http_client_count(client);
    return PH_OK;
}

static void init_handles(struct http_client *client)
{
    uv_timer_init(client->uv, &client->curl_timer);
    uv_timer_init(client->uv, &client->deadline_timer);
    uv_idle_init(client->uv, &client->turn);
    client->curl_timer.data = client->deadline_timer.data = client->turn.data = client;
    client->handles_open = 3;
}

enum ph_status http_client_open(struct http_client **out, const struct http_client_params *params,
                                struct ph_err *err)
{
    struct http_client *client = mem_calloc(1, sizeof *client);
    if (!client)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for an HTTP client");
    client->uv = net_loop_uv(params->loop);
    client->deadline_due_ms = UINT64_MAX;
    http_link_init(&client->calls);
    http_link_init(&client->news);
    http_link_init(&client->spares);
    buf_init(&client->spare_body, SIZE_MAX);
    enum ph_status status = params->ca_file ? tls_roots_load(&client->roots, params->ca_file, err) : PH_OK;
    if (status == PH_OK && set_up_curl(client, params) != PH_OK)
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
    curl_multi_cleanup(client->multi); /* closes the connections */
    client->multi = NULL;
    uv_close((uv_handle_t *)&client->curl_timer, on_handle_closed);
    uv_close((uv_handle_t *)&client->deadline_timer, on_handle_closed);
    uv_close((uv_handle_t *)&client->turn, on_handle_closed);
}

void http_client_stats(const struct http_client *client, struct http_client_stats *out)
{
    *out = client->stats;
}
