/* Connects to a host: its addresses one after another, without waiting long for any of them (RFC 8305).
 *
 * Each address is an attempt of its own. The next one begins when the last has failed, or has been silent for
 * NET_DIAL_NEXT_MS; the first to be connected wins and the others are closed. There is no limit of time: the
 * caller cancels.
 *
 * Everything happens in callbacks of the loop, also what is known at once: one timer takes the next step. */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "net/net_dial_int.h"

struct attempt {
    uv_tcp_t tcp; /* first: the winner's memory goes to the caller by it */
    uv_connect_t request;
    struct net_dial *dial;
    struct http_link link; /* dial->attempts */
};

struct net_dial {
    uv_timer_t timer;
    struct net_names *names;
    struct net_name_ask ask;
    struct net_addresses addresses;
    size_t next;
    struct http_link attempts;
    uint16_t port;
    int error; /* the first attempt's that failed: it was the best address */
    bool is_literal, is_over;
    net_dial_fn *done;
    void *ud;
    char host[NET_NAME_BYTES_MAX + 1];
};

static void on_timer(uv_timer_t *timer);

static void free_attempt(uv_handle_t *handle)
{
    mem_free(handle->data);
}

static void drop_attempt(struct attempt *attempt)
{
    http_link_remove(&attempt->link);
    attempt->dial = NULL;
    uv_close((uv_handle_t *)&attempt->tcp, free_attempt);
}

static void free_dial(uv_handle_t *handle)
{
    mem_free(handle->data);
}

void net_dial_cancel(struct net_dial *dial)
{
    if (!dial)
        return;
    dial->is_over = true;
    net_name_ask_withdraw(&dial->ask);
    while (!http_link_is_alone(&dial->attempts))
        drop_attempt(HTTP_CONTAINER(dial->attempts.next, struct attempt, link));
    uv_close((uv_handle_t *)&dial->timer, free_dial);
}

static void finish(struct net_dial *dial, enum net_dial_end how, uv_tcp_t *tcp, const char *why)
{
    net_dial_fn *done = dial->done;
    void *ud = dial->ud;
    net_dial_cancel(dial);
    done(ud, how, tcp, why);
}

/* The next step, in the loop's next turn. */
static void soon(struct net_dial *dial)
{
    uv_timer_start(&dial->timer, on_timer, 0, 0);
}

static void note_failure(struct net_dial *dial, int error)
{
    if (!dial->error)
        dial->error = error;
}

static void on_connect(uv_connect_t *request, int status)
{
    struct attempt *attempt = request->data;
    struct net_dial *dial = attempt->dial;
    if (!dial) /* closed meanwhile */
        return;
    if (status != 0) {
        note_failure(dial, status);
        drop_attempt(attempt);
        soon(dial);
        return;
    }
    http_link_remove(&attempt->link);
    uv_tcp_nodelay(&attempt->tcp, 1);
    net_socket_probe_peer(&attempt->tcp, HTTP_PEER_PROBE_S, HTTP_PEER_SILENCE_MS);
    finish(dial, NET_DIAL_DONE, &attempt->tcp, NULL);
}

/* 0, or libuv's error. */
static int try_address(struct net_dial *dial, union net_address address)
{
    struct attempt *attempt = mem_calloc(1, sizeof *attempt);
    if (!attempt)
        return UV_ENOMEM;
    if (address.any.sa_family == AF_INET6)
        address.v6.sin6_port = htons(dial->port);
    else
        address.v4.sin_port = htons(dial->port);
    attempt->dial = dial;
    attempt->tcp.data = attempt->request.data = attempt;
    int rc = uv_tcp_init(dial->timer.loop, &attempt->tcp);
    if (rc != 0) {
        mem_free(attempt);
        return rc;
    }
    attempt->tcp.data = attempt;
    http_link_append(&dial->attempts, &attempt->link);
    rc = uv_tcp_connect(&attempt->request, &attempt->tcp, &address.any, on_connect);
    if (rc != 0)
        drop_attempt(attempt);
    return rc;
}

static void on_answer(void *ud, const struct net_addresses *answer)
{
    struct net_dial *dial = ud;
    dial->addresses = *answer;
    if (answer->count)
        soon(dial);
    else
        finish(dial, NET_DIAL_NO_NAME, NULL, answer->why);
}

/* All were tried and none is under way. */
static void give_up(struct net_dial *dial)
{
    bool is_ours = dial->error == UV_ENOMEM || dial->error == UV_EMFILE || dial->error == UV_ENFILE;
    if (!dial->is_literal)
        net_names_distrust(dial->names, dial->host);
    finish(dial, is_ours ? NET_DIAL_FAILED : NET_DIAL_NO_CONNECTION, NULL, uv_strerror(dial->error));
}

static void find_addresses(struct net_dial *dial)
{
    dial->is_literal = net_addresses_literal(&dial->addresses, dial->host);
    if (dial->is_literal)
        return;
    const struct net_addresses *known = net_names_known(dial->names, dial->host);
    if (known)
        dial->addresses = *known;
    else if (!net_names_ask(dial->names, dial->host, &dial->ask))
        finish(dial, NET_DIAL_FAILED, NULL, "no memory for a name");
}

static void on_timer(uv_timer_t *timer)
{
    struct net_dial *dial = timer->data;
    while (dial->next < dial->addresses.count) {
        int rc = try_address(dial, dial->addresses.list[dial->next++]);
        if (rc == 0) {
            if (dial->next < dial->addresses.count)
                uv_timer_start(&dial->timer, on_timer, NET_DIAL_NEXT_MS, 0);
            return;
        }
        note_failure(dial, rc);
    }
    if (http_link_is_alone(&dial->attempts))
        give_up(dial);
}

static void on_start(uv_timer_t *timer)
{
    struct net_dial *dial = timer->data;
    find_addresses(dial);
    if (!dial->is_over && dial->addresses.count)
        on_timer(timer);
}

struct net_dial *net_dial_start(struct net_loop *loop, struct net_names *names, const char *host,
                                uint16_t port, net_dial_fn *done, void *ud)
{
    struct net_dial *dial = strlen(host) <= NET_NAME_BYTES_MAX ? mem_calloc(1, sizeof *dial) : NULL;
    if (!dial)
        return NULL;
    uv_timer_init(net_loop_uv(loop), &dial->timer);
    dial->timer.data = dial;
    dial->names = names;
    dial->port = port;
    dial->done = done;
    dial->ud = ud;
    dial->ask.answered = on_answer;
    dial->ask.ud = dial;
    http_link_init(&dial->ask.link);
    http_link_init(&dial->attempts);
    memcpy(dial->host, host, strlen(host) + 1);
    uv_timer_start(&dial->timer, on_start, 0, 0);
    return dial;
}
