/* net, private: the HTTP client's structs, shared by http_client.c (the client: who gets which connection,
 * time), http_origin.c (where requests go), http_channel.c (connections), http_call.c (what a caller asks
 * for) and http_call_reply.c (what comes back). Everything here belongs to the loop's thread. */
#ifndef PHAROS_NET_HTTP_CLIENT_INT_H
#define PHAROS_NET_HTTP_CLIENT_INT_H

#include "base/limits.h"
#include "net/http_link_int.h"
#include "net/http_reply_int.h"
#include "net/http_url_int.h"
#include "net/net_dial_int.h"
#include "net/tls_int.h"

struct http_client {
    struct net_loop *loop;
    uv_loop_t *uv;
    struct net_names *names;
    struct tls_context *tls;
    uv_timer_t deadline_timer; /* the earliest deadline of a call; may fire for nothing */
    uint64_t deadline_due_ms;  /* UINT64_MAX: not running */
    uint64_t scanned_ms;       /* when the deadlines were looked through last */
    uv_idle_t turn;            /* active while there is news */
    int handles_open;
    bool is_closing;

    struct http_link calls;       /* all that have not ended */
    struct http_link waiting;     /* calls without a connection, because there are too many */
    struct http_link news;        /* calls with something to tell their sinks */
    struct http_call *delivering; /* whose sink is being called; NULL once it has gone in the meantime */

    struct http_link spares; /* calls of the past, their memory ready for the next */
    size_t spare_count;
    struct http_header *fields; /* for the head that is being told */
    size_t field_room;

    struct http_link origins; /* the one asked last first */
    struct http_link idle;    /* channels, the one unused for longest first */
    size_t idle_count, idle_max;
    size_t channel_count, channels_max;
    char *read_buffer;  /* HTTP_READ_BYTES: one for all channels */
    char *plain_buffer; /* what a read buffer of TLS meant; NULL until there is a channel with TLS */

    char *user_agent;
    struct http_client_stats stats;
};

/* ---- http_origin.c: where requests go ---- */

/* Scheme, host and port (RFC 9110, 4.3.1), and the way there: its next hop is a proxy, or itself. */
struct http_origin {
    struct http_link link; /* client->origins */
    struct http_link idle; /* channels, the one used last first */
    size_t users;          /* calls and channels */
    bool is_tls;
    uint16_t port;
    uint16_t hop_port;
    char *host;
    char *authority;         /* as in a Host header */
    char *hop_host;          /* where to connect */
    char *proxy_credentials; /* NULL: none */
    bool has_proxy;
};

/* Counts as a user until it is left. PH_ERR_ARG: the environment names a proxy of an unknown kind. */
PH_MUST_USE enum ph_status http_origin_enter(struct http_origin **out, struct http_client *client,
                                             const struct http_url *url, struct ph_err *err);
void http_origin_leave(struct http_origin *origin); /* NULL is fine */
void http_origin_put_connect(struct buf *out,
                             const struct http_origin *origin); /* a proxy's CONNECT request */

/* ---- http_channel.c: one connection, used by one call after another ---- */

enum http_channel_phase {
    HTTP_CHANNEL_DIALLING,
    HTTP_CHANNEL_TUNNELLING, /* a proxy was asked for the way */
    HTTP_CHANNEL_SHAKING,    /* TLS */
    HTTP_CHANNEL_OPEN,       /* idle, or carrying a call */
    HTTP_CHANNEL_CLOSED      /* its memory goes when libuv says so */
};

struct http_channel {
    struct http_link link; /* origin->idle, or alone */
    struct http_link age;  /* client->idle, or alone */
    struct http_client *client;
    struct http_origin *origin;
    struct http_call *call; /* NULL: idle */
    enum http_channel_phase phase;
    struct net_dial *dial;     /* DIALLING */
    uv_tcp_t *tcp;             /* from then on */
    struct tls_conn *tls;      /* NULL: plain */
    struct http_reply *tunnel; /* TUNNELLING: the proxy's answer */
    struct buf out;            /* bytes that libuv is writing, where they are ours */
    size_t sealed;             /* TLS: bytes of the call's request that went into records */
    uint64_t idle_since_ms;
    bool is_reading, is_writing, is_shut;
    bool was_used; /* carried a whole reply: it may be found dead */
    uv_write_t write;
    uv_shutdown_t shutdown;
};

/* Connects for a call; false: no memory. The call hears by http_call_ready or http_call_failed. */
bool http_channel_open(struct http_client *client, struct http_call *call);
void http_channel_send(struct http_channel *channel); /* its call's request */
void http_channel_read(struct http_channel *channel, bool is_wanted);
void http_channel_shut(struct http_channel *channel); /* our half, behind what is being written */
void http_channel_close(struct http_channel *channel);

/* ---- http_call.c, http_call_reply.c ---- */

enum http_call_phase {
    HTTP_CALL_CONNECTING, /* also waiting for its turn to connect */
    HTTP_CALL_ASKING,     /* connected: from the request to the end of the reply's head */
    HTTP_CALL_READING     /* the body */
};

#define HTTP_CALL_MESSAGE_BYTES 200

struct http_call {
    struct http_link link;    /* client->calls or ->spares */
    struct http_link news;    /* client->news, or alone */
    struct http_link waiting; /* client->waiting, or alone */
    struct http_client *client;
    struct http_origin *origin;
    struct http_channel *channel; /* NULL: none yet, or gone */
    struct http_call_sink sink;

    /* The request. */
    struct buf request; /* all but the body */
    const char *body;
    size_t body_len;
    bool is_for_head;
    uint32_t connect_ms, head_ms, silence_ms;
    size_t body_bytes_max;

    /* Where it stands. */
    enum http_call_phase phase;
    uint64_t phase_due_ms, total_due_ms;
    bool is_late; /* it was due, and has heard nothing since */
    bool is_paused;
    bool is_draining;  /* hung up */
    bool was_replaced; /* its first connection was dead */
    struct http_reply reply;
    bool head_is_told;

    /* The end. */
    bool is_over;  /* as far as its connection goes */
    bool has_left; /* `end` is running, or it was cancelled */
    enum http_call_end how;
    char message[HTTP_CALL_MESSAGE_BYTES];
};

/* ---- http_client.c ---- */
void http_client_tell(struct http_call *call);                  /* there is news for its sink */
void http_client_deliver(struct http_client *client);           /* all news; only from the loop */
void http_client_arm(struct http_client *client, uint64_t due); /* a deadline to look at, then */
/* A channel for a call: an idle one unless `is_fresh`, a new one, or a turn in the queue. */
void http_client_connect(struct http_call *call, bool is_fresh);
void http_client_keep(struct http_channel *channel);        /* it is idle now */
void http_client_forget_idle(struct http_channel *channel); /* it is not any more; also when it was not */
void http_client_serve_waiting(struct http_client *client); /* there may be room for a call that waits */

/* ---- http_call.c ---- */
void http_call_destroy(struct http_call *call); /* a spare one */
/* It is over, as far as its connection goes; the sink is told in a turn. A call that was over stays as it
 * was. */
void http_call_finish(struct http_call *call, enum http_call_end how, const char *message);
void http_call_leave(struct http_call *call);            /* its connection and the client's lists */
void http_call_give_back(struct http_call *call);        /* to the spares */
uint64_t http_call_due_ms(const struct http_call *call); /* UINT64_MAX: none */
/* It is due, for silence, and that for the first time: it has until the next look. */
bool http_call_take_grace(struct http_call *call, uint64_t now_ms);
void http_call_expire(struct http_call *call, uint64_t now_ms);

/* ---- http_call_reply.c ---- */
void http_call_ready(struct http_call *call); /* its channel is open: the request goes out */
/* Bytes came for it; they are changed. Calls the sink. */
void http_call_take(struct http_call *call, char *bytes, size_t len);
void http_call_lost(struct http_call *call, bool is_clean); /* its channel has ended; clean: in order */
void http_call_deliver(struct http_call *call);             /* calls the sink with what was put off */

#endif
