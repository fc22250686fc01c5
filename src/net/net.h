/* net: the event loop, the HTTP/1.1 server, the HTTP client, a Redis client, child processes. Knows nothing
 * of models or chats.
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
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/name_bit.h"
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
    uint32_t header_names; /* bits of their names: NAME_BIT */
    const char *body;      /* terminated */
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
    /* PEM files: TLS 1.2 and newer on every connection. Both or none; certificate with its chain. */
    const char *tls_certificate, *tls_key;
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
static inline const char *http_request_header(const struct http_request *request,
                                              const char *lower_name); /* NULL: absent */
const char *http_header_find(const struct http_header *headers, size_t count, const char *lower_name);
struct arena *http_exchange_arena(struct http_exchange *exchange); /* dies with the exchange */

static inline const char *http_request_header(const struct http_request *request, const char *lower_name)
{
    bool may_be = request->header_names & NAME_BIT(lower_name, strlen(lower_name));
    return may_be ? http_header_find(request->headers, request->header_count, lower_name) : NULL;
}

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

/* The same in two steps, for a handler that has something to put away: sent at once, then ended. */
void http_reply_send(struct http_exchange *exchange, int status, const char *content_type, const void *body,
                     size_t len);
void http_reply_done(struct http_exchange *exchange);

/* A streamed reply (chunked; to an HTTP/1.0 client: until close). http_stream_write copies; it answers false
 * when the write queue holds more than its limit: then stop, and go on when on_drain is called. What was
 * written leaves before the loop sleeps; a handler that goes on in spite of false is cut off in the end. */
void http_stream_begin(struct http_exchange *exchange, int status, const char *content_type,
                       void (*on_drain)(void *ud), void *ud);
bool http_stream_write(struct http_exchange *exchange, const void *bytes, size_t len);
void http_stream_end(struct http_exchange *exchange); /* a clean end: the exchange is gone after the call */
/* An unclean end, which the client can tell from a clean one: what was written is delivered, the terminating
 * chunk is never sent, the connection is reset. Before the reply has begun: a reset instead of one. The
 * exchange is gone after the call. */
void http_stream_abort(struct http_exchange *exchange);

/* ---- HTTP client ----
 *
 * Connections belong to the client and are kept for the next call to the same origin (the largest lever there
 * is: 2x and more). HTTP/1.1 over http:// and https://; certificates are always checked; redirects are not
 * followed; proxies as the environment says (HTTPS_PROXY, NO_PROXY), never for loopback. */
struct http_client;

struct http_client_params {
    struct net_loop *loop;
    const struct clock_source *clock;
    size_t connections_max;      /* open at the same time; more calls wait. 0: default */
    size_t idle_connections_max; /* kept for later. 0: default */
    const char *ca_file;         /* PEM, trusted besides the system's; NULL: none */
    bool plain_only; /* no call goes to https://, so no certificates are read, which takes 25 ms */
    const char *user_agent;
};
PH_MUST_USE enum ph_status http_client_open(struct http_client **out, const struct http_client_params *params,
                                            struct ph_err *err);
/* Every call must be over; inside the last one's `end` is fine. Closing is asynchronous; the memory goes by
 * itself. NULL is fine. */
void http_client_close(struct http_client *client);

enum http_call_end {
    HTTP_CALL_WHOLE,           /* the reply ended as its framing says */
    HTTP_CALL_NO_NAME,         /* DNS */
    HTTP_CALL_NO_CONNECTION,   /* refused, unreachable */
    HTTP_CALL_TLS,             /* handshake or certificate */
    HTTP_CALL_TIMEOUT_CONNECT, /* name, connection and handshake took too long */
    HTTP_CALL_TIMEOUT_HEAD,    /* nothing came in time */
    HTTP_CALL_TIMEOUT_SILENCE, /* nothing more came in time */
    HTTP_CALL_TIMEOUT_TOTAL,
    HTTP_CALL_CUT,       /* the connection ended in the middle of the reply (or before it) */
    HTTP_CALL_TOO_LARGE, /* head or body beyond its limit */
    HTTP_CALL_BAD_REPLY, /* not HTTP */
    HTTP_CALL_UNSENT,    /* hung up before anything of the request had gone out */
    HTTP_CALL_FAILED     /* of ours: no memory, no descriptors */
};

struct http_call_params {
    const char *method; /* "GET", "POST" */
    const char *url;
    const struct http_header *headers;
    size_t header_count;
    const void *body; /* lives until the call is over */
    size_t body_len;
    uint32_t connect_timeout_ms; /* 0: default, as below */
    uint32_t head_timeout_ms;    /* from the request to the head of the reply */
    uint32_t silence_timeout_ms; /* between pieces of the body; not while paused */
    uint32_t total_timeout_ms;   /* 0: none */
    size_t body_bytes_max;       /* 0: default */
};

struct http_call;
struct http_call_sink {
    /* The final head (1xx are skipped); headers are valid during the call. */
    void (*head)(void *ud, int status, const struct http_header *headers, size_t header_count);
    /* Answers false to pause: then no more comes until http_call_resume (a little may still come). */
    bool (*body)(void *ud, const char *bytes, size_t len);
    /* Once, also after a failure before any head; the call is gone when it returns. `message` is for
     * people, without the URL. A kept connection that turns out dead before a byte of a reply came is
     * replaced once by the client itself. */
    void (*end)(void *ud, enum http_call_end how, const char *message);
    void *ud;
};
/* Begins; callbacks come later, on the loop. Strings and headers are copied, the body is not. */
PH_MUST_USE enum ph_status http_call_start(struct http_call **out, struct http_client *client,
                                           const struct http_call_params *params,
                                           const struct http_call_sink *sink, struct ph_err *err);
void http_call_resume(struct http_call *call);
void http_call_cancel(struct http_call *call); /* no callback any more; the connection is closed */
/* Says goodbye in order: our half of the connection is shut, so that the other end stops its work, while what
 * it has sent until then still comes to `body`, for at most drain_ms; then `end` with whatever ended it. What
 * was billed is what was sent, so this is how an unwanted answer is counted to its last token. */
void http_call_hang_up(struct http_call *call, uint32_t drain_ms);

struct http_client_stats {
    size_t calls;                         /* now */
    size_t connections;                   /* open, idle ones too */
    uint64_t calls_total, connects_total; /* connects: new connections; the rest was reuse */
};
void http_client_stats(const struct http_client *client, struct http_client_stats *out);

/* ---- Redis client ----
 *
 * For values that may be lost. One connection, made in the background and made again, ever later, when it is
 * gone; nobody waits for that, and nothing here fails a caller: what cannot be had in time is "not there". */
struct redis_client;

struct redis_params {
    struct net_loop *loop;
    const struct clock_source *clock;
    const char *host; /* a name or a numeric address */
    uint16_t port;
    const char *user, *password; /* NULL: none; never logged */
    unsigned database;
    size_t value_bytes_max; /* longer values are not there, and are not sent */
    uint32_t late_ms;       /* while a reply is owed for longer, nothing more is asked */
};
PH_MUST_USE enum ph_status redis_client_open(struct redis_client **out, const struct redis_params *params);
/* Who still waits is not called any more. Closing is asynchronous; the memory goes by itself. NULL is fine.
 */
void redis_client_close(struct redis_client *client);

/* 0: not now (no connection, it is late with what it was asked before, too many wait). Else `found` comes
 * once, later: with the value, valid during the call, or with NULL when it is not there or was not there
 * within timeout_ms. */
uint64_t redis_client_get(struct redis_client *client, const char *key, uint32_t timeout_ms,
                          void (*found)(void *ud, const char *bytes, size_t len), void *ud);
void redis_client_cancel(struct redis_client *client, uint64_t ticket); /* `found` does not come */
/* Whether it arrives is never said. false: not now. */
bool redis_client_set(struct redis_client *client, const char *key, const void *bytes, size_t len,
                      uint32_t ttl_s);

struct redis_stats {
    bool is_ready;
    uint64_t connects; /* connections that said hello */
    uint64_t failures; /* that could not be made, or ended */
    uint64_t refusals; /* replies that were errors */
    uint64_t late;     /* look-ups that had no reply in time */
    uint64_t skipped;  /* look-ups and values not sent at all */
    uint64_t stored;   /* values it has */
};
void redis_client_stats(const struct redis_client *client, struct redis_stats *out);

/* ---- Child processes ---- */
struct net_process;

struct net_process_params {
    const char *command;    /* run by /bin/sh -c, in a process group of its own */
    const char *log_path;   /* stdout and stderr are appended to it; NULL: dropped */
    const char *const *env; /* "NAME=value", added to ours; NULL-terminated, or NULL */
    /* Once, when it has ended: exit code, or 128 + signal. Its group may still have members; they are killed
     * before this is called. */
    void (*ended)(void *ud, int code);
    void *ud;
};
/* Nothing of it outlives us, however we end: a watcher in its group sees to that. */
PH_MUST_USE enum ph_status net_process_start(struct net_process **out, struct net_loop *loop,
                                             const struct net_process_params *params, struct ph_err *err);
int net_process_pid(const struct net_process *process);   /* of the command */
int net_process_group(const struct net_process *process); /* of all that it starts */
/* SIGTERM to the whole group, SIGKILL after grace_ms; `ended` comes. Asked again: with less grace. */
void net_process_stop(struct net_process *process, uint32_t grace_ms);
/* After `ended`. NULL is fine. */
void net_process_free(struct net_process *process);
/* A TCP port on 127.0.0.1 that nobody listened on a moment ago; 0: none. */
uint16_t net_free_port(void);
bool net_port_is_free(uint16_t port); /* nobody listens on it */

#endif
