/* net, private: the HTTP client's structs, shared by http_client.c (the client, sockets, time), http_call.c
 * (what a caller asks for) and http_call_reply.c (what comes back). Everything here belongs to the loop's
 * thread. */
#ifndef PHAROS_NET_HTTP_CLIENT_INT_H
#define PHAROS_NET_HTTP_CLIENT_INT_H

#include <curl/curl.h>

#include "base/limits.h"
#include "net/http_link_int.h"
#include "net/net_int.h"

/* One descriptor that curl uses, and what the loop watches it for. */
struct http_socket {
    uv_poll_t poll;
    struct http_client *client;
    struct http_call *call; /* that used it last, until it is over; its `fd` is this one, or another by now */
    curl_socket_t fd;
    int wanted;        /* by curl: UV_READABLE, UV_WRITABLE; 0: nothing for now */
    int watched;       /* by the loop: may be more */
    bool is_connected; /* carried a request: curl tells before it closes it */
};

struct http_client {
    CURLM *multi;
    uv_loop_t *uv;
    uv_timer_t curl_timer;
    uv_timer_t deadline_timer; /* the earliest deadline of a call; may fire for nothing */
    uint64_t deadline_due_ms;  /* UINT64_MAX: not running */
    uint64_t scanned_ms;       /* when the deadlines were looked through last */
    uv_idle_t turn;            /* active while curl is due or there is news */
    int handles_open;
    bool curl_is_due;
    bool is_closing;

    struct http_link calls;       /* all that have not ended */
    struct http_link news;        /* calls with something to tell their sinks */
    struct http_call *delivering; /* whose sink is being called; NULL once it has gone in the meantime */

    struct http_link spares; /* calls of the past, their easy handles ready for the next */
    size_t spare_count;
    struct buf spare_body;
    struct http_header *fields; /* for the head that is being told */
    size_t field_room;

    struct http_socket **sockets; /* by descriptor, which are small numbers */
    size_t socket_room;

    struct tls_roots *roots; /* trusted besides the system's; NULL: none */
    char *user_agent;
    size_t idle_max;
    struct http_client_stats stats;
};

enum http_call_phase {
    HTTP_CALL_CONNECTING, /* also waiting for its turn to connect */
    HTTP_CALL_ASKING,     /* connected: from the request to the end of the reply's head */
    HTTP_CALL_READING     /* the body */
};

struct http_call {
    struct http_link link; /* client->calls or ->spares */
    struct http_link news; /* client->news, or alone */
    struct http_client *client;
    CURL *easy;
    struct http_call_sink sink;

    /* The request; `strings` and `nodes` are curl's header list in two pieces of memory. */
    char *url; /* the easy handle has it, and what follows from it, already */
    struct buf strings;
    struct curl_slist *nodes;
    size_t node_room;
    uint32_t connect_ms, head_ms, silence_ms;
    size_t body_bytes_max;

    /* Where it stands. */
    enum http_call_phase phase;
    curl_socket_t fd; /* CURL_SOCKET_BAD: none yet, or closed */
    uint64_t phase_due_ms, total_due_ms;
    bool is_attached; /* curl works on it */
    bool is_paused;
    bool is_draining; /* hung up */
    bool forbids_reuse;

    /* The reply. */
    struct buf head; /* name, value, name, value ... each terminated */
    size_t field_count, head_bytes;
    int status;
    bool expects_status_line, head_is_whole, head_is_told;
    struct buf body; /* arrived and not told */
    size_t body_bytes;

    /* The end. */
    bool is_over;   /* as far as curl goes */
    bool has_left;  /* `end` is running, or it was cancelled */
    bool is_judged; /* `how` and `message` are set: by a callback that had to stop curl */
    enum http_call_end how;
    char message[CURL_ERROR_SIZE];
    char curl_message[CURL_ERROR_SIZE];
};

/* ---- http_client.c ---- */
void http_client_wake(struct http_client *client);              /* a turn before the loop sleeps */
void http_client_tell(struct http_call *call);                  /* there is news for its sink */
void http_client_arm(struct http_client *client, uint64_t due); /* a deadline to look at, then */
void http_client_count(struct http_client *client);             /* calls came or went */
void http_client_connected(struct http_call *call);             /* its socket is a connection */
void http_client_part(struct http_call *call);                  /* from its socket */
curl_socket_t http_client_open_socket(void *ud, curlsocktype purpose, struct curl_sockaddr *address);
int http_client_close_socket(void *ud, curl_socket_t fd);

/* ---- http_call.c ---- */
void http_call_destroy(struct http_call *call); /* a spare one */
/* It is over, as far as curl goes; the sink is told in a turn. A call that was over stays as it was. */
void http_call_finish(struct http_call *call, enum http_call_end how, const char *message);
void http_call_leave(struct http_call *call);            /* curl and the client's lists; the struct stays */
void http_call_give_back(struct http_call *call);        /* to the spares */
uint64_t http_call_due_ms(const struct http_call *call); /* UINT64_MAX: none */
void http_call_expire(struct http_call *call, uint64_t now_ms);

/* ---- http_call_reply.c ---- */
size_t http_call_on_header(char *bytes, size_t size, size_t count, void *ud); /* curl's callbacks */
size_t http_call_on_body(char *bytes, size_t size, size_t count, void *ud);
int http_call_on_ready(void *ud, char *remote, char *local, int remote_port, int local_port);
void http_call_conclude(struct http_call *call, CURLcode code); /* curl is done with it */
void http_call_deliver(struct http_call *call);                 /* calls the sink */

/* ---- tls_roots.c ---- */
enum ph_status tls_roots_load(struct tls_roots **out, const char *path, struct ph_err *err);
void tls_roots_free(struct tls_roots *roots);
CURLcode tls_roots_on_context(CURL *easy, void *context, void *roots); /* CURLOPT_SSL_CTX_FUNCTION */

#endif
