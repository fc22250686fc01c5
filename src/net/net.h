/* net: the event loop and the HTTP/1.1 server. Knows nothing of models or chats.
 *
 * One loop a thread (libuv); a connection never leaves its loop. The parser is our own and strict (RFC 9112):
 * no obsolete line folding, no bare CR, no space before a colon, no conflicting or doubled Content-Length, no
 * Transfer-Encoding beside Content-Length; what is refused gets a status and a closed connection, so that no
 * proxy in front can read it otherwise.
 *
 * A handler is called with a complete request; it answers at once or later, on the loop's thread only.
 * Closing is asynchronous; callbacks never run inside the call that registered them.
 *
 * Limits and deadlines: limits.h, HTTP_*. */
#ifndef PHAROS_NET_NET_H
#define PHAROS_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"

/* ---- Loop ---- */
struct net_loop;

/* Also calls process_keep_on_bad_writes: a client that has gone is an error of a write, not our end. */
PH_MUST_USE enum ph_status net_loop_create(struct net_loop **out, struct ph_err *err);
/* Until net_loop_stop was called and everything is closed: wake-ups, timers and servers by their owners,
 * signal handlers by the loop. */
void net_loop_run(struct net_loop *loop);
void net_loop_stop(struct net_loop *loop); /* any thread */
void net_loop_free(struct net_loop *loop); /* after run has returned */

/* A wake-up call from any thread into the loop: several calls before the loop gets to it are one. */
struct net_wake;
PH_MUST_USE enum ph_status net_wake_open(struct net_wake **out, struct net_loop *loop, void (*fn)(void *ud),
                                         void *ud);
void net_wake_call(struct net_wake *wake); /* any thread */
void net_wake_close(
    struct net_wake *wake); /* loop's thread; fn is not called any more; memory goes later by itself */

struct net_timer;
PH_MUST_USE enum ph_status net_timer_open(struct net_timer **out, struct net_loop *loop, void (*fn)(void *ud),
                                          void *ud);
void net_timer_start(struct net_timer *timer, uint64_t delay_ms, uint64_t repeat_ms);
void net_timer_stop(struct net_timer *timer);
void net_timer_close(struct net_timer *timer);

/* Calls fn(ud) on the loop when SIGTERM or SIGINT arrives (signal number in the argument). */
PH_MUST_USE enum ph_status net_on_signal(struct net_loop *loop, void (*fn)(void *ud, int signal_number),
                                         void *ud);

/* Runs `work` on a helper thread, then `done` on the loop (long tokenising, files). PH_ERR_BUSY when too many
 * wait. */
PH_MUST_USE enum ph_status net_work(struct net_loop *loop, void (*work)(void *ud), void (*done)(void *ud),
                                    void *ud);

/* ---- HTTP server ---- */
struct http_server;
struct http_exchange; /* one request and its reply */

struct http_header {
    const char *name; /* lower case */
    const char *value;
};

struct http_request {
    const char *method;
    const char *path;  /* decoded, without the query; always begins with '/' */
    const char *query; /* as sent, without '?'; "" when none */
    const struct http_header *headers;
    size_t header_count;
    const char *body; /* terminated */
    size_t body_len;
    const char *peer;     /* "127.0.0.1:4711" */
    const char *id;       /* "req-...", also the reply's x-request-id; a sane one from the client is kept */
    uint64_t received_ns; /* monotonic, first byte of the request */
};

struct http_limits {
    size_t body_bytes_max;
    size_t connections_max;
    uint32_t header_deadline_ms, body_deadline_ms, idle_deadline_ms, write_stall_deadline_ms, stop_grace_ms;
};
void http_limits_default(struct http_limits *limits);

struct http_server_params {
    const char *host; /* numeric address, or localhost */
    uint16_t port;    /* 0: any free one */
    struct http_limits limits;
    const struct clock_source *clock;
    void (*handle)(void *ud, struct http_exchange *exchange);
    /* The body of a reply that net itself makes (400, 408, 413, 414, 417, 431, 501, 503, 505): appends JSON
     * to out. */
    void (*encode_error)(void *ud, int status, const char *message, struct buf *out);
    void *ud;
};

PH_MUST_USE enum ph_status http_server_open(struct http_server **out, struct net_loop *loop,
                                            const struct http_server_params *params, struct ph_err *err);
uint16_t http_server_port(const struct http_server *server);
/* Graceful stop: no new connections, idle ones close, running exchanges may finish within stop_grace_ms and
 * are then cut. `stopped` runs once, on the loop, when the last connection is gone and the last exchange was
 * ended by its handler; after it returns the server frees itself. */
void http_server_stop(struct http_server *server, void (*stopped)(void *ud), void *ud);

struct http_stats {
    size_t connections; /* now, without those that are being told that the table is full */
    size_t exchanges;   /* now with a handler */
    uint64_t accepted_total, refused_total; /* connections; refused: beyond connections_max, or no memory */
    uint64_t requests_total;                /* that reached the handler */
    uint64_t bytes_read, bytes_written;
};
void http_server_stats(const struct http_server *server, struct http_stats *out);

/* ---- One exchange (loop's thread) ---- */
const struct http_request *http_exchange_request(const struct http_exchange *exchange);
const char *http_request_header(const struct http_request *request,
                                const char *lower_name);           /* NULL: absent */
struct arena *http_exchange_arena(struct http_exchange *exchange); /* dies with the exchange */

/* Called once when the client has gone before the reply was complete: stop working. The exchange is still
 * valid until it is ended or aborted, but writes go nowhere (and answer true). Gone means: closed, reset, cut
 * by a deadline, or shut its sending half, as nginx and Node judge it. Registered late, it still comes. */
void http_on_gone(struct http_exchange *exchange, void (*fn)(void *ud), void *ud);

/* Adds a reply header before the reply begins. A name or value that is not one (CR, LF, other controls) drops
 * the header, and so do the names that are net's own: content-length, transfer-encoding, connection (a value
 * of "close" is obeyed), date, x-request-id. */
void http_set_header(struct http_exchange *exchange, const char *name, const char *value);

/* A whole reply; ends the exchange. The bytes are copied. */
void http_reply(struct http_exchange *exchange, int status, const char *content_type, const void *body,
                size_t len);

/* A streamed reply (chunked; to an HTTP/1.0 client: until close). http_stream_write copies; it answers false
 * when the write queue holds more than its limit: then stop, and go on when on_drain is called. What was
 * written leaves before the loop sleeps; a handler that goes on in spite of false is cut off in the end. */
void http_stream_begin(struct http_exchange *exchange, int status, const char *content_type,
                       void (*on_drain)(void *ud), void *ud);
bool http_stream_write(struct http_exchange *exchange, const void *bytes, size_t len);
void http_stream_end(struct http_exchange *exchange); /* a clean end: the exchange is gone after the call */
/* An unclean end, which the client can tell from a clean one: what was written is delivered, the terminating
 * chunk is never sent, the connection is reset. The exchange is gone after the call. */
void http_stream_abort(struct http_exchange *exchange);

#endif
