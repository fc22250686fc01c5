/* net, private: the server's structs, shared by http_server.c (table, deadlines, stop), http_conn.c (bytes in
 * and out) and http_exchange.c (request and reply). Everything here belongs to the loop's thread. */
#ifndef PHAROS_NET_HTTP_INT_H
#define PHAROS_NET_HTTP_INT_H

#include "base/limits.h"
#include "net/http_link_int.h"
#include "net/http_parse_int.h"
#include "net/net_int.h"
#include "net/tls_int.h"

/* ---- Deadlines. All of one kind last equally long, so each kind's list is in order of expiry as it grows.
 * ---- */
enum http_deadline_kind {
    HTTP_DEADLINE_IDLE,   /* for a request's first byte */
    HTTP_DEADLINE_HEAD,   /* from there to the end of the head */
    HTTP_DEADLINE_BODY,   /* from there to the end of the body */
    HTTP_DEADLINE_LINGER, /* for the client to close */
    HTTP_DEADLINE_RESET,  /* for another look at what it has not acknowledged, before a reset */
    HTTP_DEADLINE_STALL,  /* for the client to read anything of what waits for it */
    HTTP_DEADLINE_COUNT
};

struct http_deadline {
    struct http_link link; /* in its kind's list, or alone */
    uint64_t due_ms;
};

struct http_write; /* bytes that libuv owes to the socket */

enum http_phase {
    HTTP_CONN_IDLE,   /* between requests */
    HTTP_CONN_HEAD,   /* reading a head */
    HTTP_CONN_BODY,   /* reading a body */
    HTTP_CONN_BUSY,   /* an exchange is with its handler */
    HTTP_CONN_ENDING, /* the last bytes are being written, then linger or reset */
    HTTP_CONN_LINGER, /* our end is shut; what still arrives is thrown away */
    HTTP_CONN_CLOSED  /* uv_close was called; only its callback may follow */
};

struct http_conn {
    uv_tcp_t tcp;
    struct http_server *server;
    struct tls_conn *tls;                /* NULL: plain */
    struct http_link link;               /* server->conns */
    struct http_link ready;              /* server->ready, or alone */
    struct http_deadline read_deadline;  /* IDLE, HEAD, BODY, LINGER, RESET */
    struct http_deadline write_deadline; /* STALL */
    enum http_phase phase;
    bool is_refused; /* beyond the connection limit: counted apart */
    bool is_reserve; /* server->reserve, in use */
    bool is_reading;
    bool saw_eof;
    bool ends_by_reset;      /* ENDING: with a reset instead of a close */
    uint32_t unacknowledged; /* ... what the last look found ... */
    uint32_t looks_left;     /* ... and how many may still find the same */
    bool wants_drain;
    struct http_reader *parser;     /* HEAD, BODY */
    struct http_exchange *exchange; /* BUSY */
    uint64_t received_ns;
    size_t body_bytes;  /* of the request being read, counted in server->body_bytes */
    struct buf pending; /* read ahead, while BUSY */
    struct buf out;     /* not yet offered to the socket; not yet sealed */
    struct http_write *writing;
    uv_shutdown_t shutdown;
    char peer[56];
};

#define HTTP_SPARE_PARSERS 4

struct http_server {
    uv_loop_t *uv;
    const struct clock_source *clock;
    struct http_limits limits;
    void (*handle)(void *ud, struct http_exchange *exchange);
    void (*encode_error)(void *ud, int status, const char *message, struct buf *out);
    void *ud;

    uv_tcp_t listener;
    uv_timer_t timer; /* the earliest deadline; may fire for nothing */
    uv_timer_t grace;
    uv_idle_t turn; /* active while `ready` or `gone` has something */
    int handles_open;
    uint16_t port;

    struct http_link conns;
    struct http_link ready; /* connections to be looked at before the loop sleeps */
    struct http_link gone;  /* exchanges whose on_gone is to be called */
    struct http_link deadlines[HTTP_DEADLINE_COUNT];
    uint64_t timer_due_ms; /* UINT64_MAX: not running */

    char *read_buffer;       /* one for all connections: what is not used up at once goes to conn->pending */
    struct tls_context *tls; /* NULL: plain */
    char *plain_buffer;      /* TLS: what a record of the read buffer meant */
    struct buf spare_out;
    struct arena_pool pool; /* of exchanges' arenas */
    struct http_reader *spare_parsers[HTTP_SPARE_PARSERS];
    size_t spare_parser_count;

    struct rng rng;
    int64_t date_s;
    char date[32];

    struct http_conn *reserve; /* to take and close a connection when there is no memory for one */
    bool accept_waits;         /* even that one was in use: libuv holds a descriptor */

    struct http_stats stats;
    size_t body_bytes; /* of all requests that are being read or with a handler */
    size_t refusing;
    bool is_stopping, has_stopped;
    void (*stopped)(void *ud);
    void *stopped_ud;
};

struct http_reply_header {
    struct http_reply_header *next;
    const char *name, *value;
};

struct http_exchange {
    struct http_conn *conn; /* NULL: the client has gone */
    struct http_server *server;
    struct http_link gone_link; /* server->gone, or alone */
    struct arena arena;
    struct http_request request;
    char *body; /* its memory; NULL when empty */
    struct http_reply_header *headers, **headers_end;
    bool is_head, is_http10, keep_alive;
    bool is_streaming;
    bool was_told_gone;
    void (*on_gone)(void *ud);
    void *gone_ud;
    void (*on_drain)(void *ud);
    void *drain_ud;
};

/* ---- http_server.c ---- */
void http_deadline_set(struct http_server *server, struct http_deadline *deadline,
                       enum http_deadline_kind kind);
void http_deadline_cancel(struct http_deadline *deadline);
struct http_reader *http_server_take_parser(struct http_server *server); /* NULL: no memory */
void http_server_give_parser(struct http_server *server, struct http_reader *parser);
void http_server_wake(struct http_server *server);  /* the loop takes a turn before it sleeps */
void http_server_lost_conn(struct http_conn *conn); /* its handle is closed: forget and free it */

/* ---- http_conn.c ---- */
void http_conn_accept(struct http_server *server); /* takes one connection from the listener */
void http_conn_turn(struct http_conn *conn);       /* reads ahead, flushes, ends: whatever can go on */
void http_conn_soon(struct http_conn *conn);       /* a turn before the loop sleeps */
void http_conn_close(struct http_conn *conn, bool reset);
void http_conn_expired(struct http_conn *conn, enum http_deadline_kind kind);
void http_conn_stop(struct http_conn *conn); /* the server is stopping: idle ones close */
/* What is appended to it goes out before the loop sleeps. NULL: the connection is closed. */
struct buf *http_conn_out(struct http_conn *conn);
void http_conn_put(struct http_conn *conn, const void *bytes, size_t len);
void http_conn_flush(struct http_conn *conn);
size_t http_conn_queue_len(const struct http_conn *conn); /* bytes the socket has not taken yet */
/* The exchange has ended: the next request may come, or the connection ends. */
void http_conn_finish(struct http_conn *conn, bool keep_alive, bool reset);

/* ---- http_exchange.c ---- */
struct http_exchange *http_exchange_create(struct http_conn *conn,
                                           struct http_reader *parser); /* NULL: no memory */
void http_exchange_orphan(struct http_exchange *exchange);              /* its connection is gone */
void http_exchange_tell_gone(struct http_exchange *exchange);
/* A reply of net's own, to a request that never became an exchange. */
void http_put_error(struct http_conn *conn, int status, const char *message, bool is_head);

#endif
