/* net, private: addresses of requests, and which proxy they go by (http_url.c, http_proxy.c). */
#ifndef PHAROS_NET_HTTP_URL_INT_H
#define PHAROS_NET_HTTP_URL_INT_H

#include "base/buf.h"
#include "net/net_names_int.h"

/* Pieces of the text that was parsed, not terminated. */
struct http_piece {
    const char *at;
    size_t len;
};

struct http_url {
    bool is_tls;
    uint16_t port;          /* the scheme's own where none is written */
    bool has_port;          /* another than the scheme's own */
    struct http_piece user; /* "name:password", percent-encoded; len 0: none */
    struct http_piece host; /* without brackets */
    struct http_piece path; /* from '/' or '?' on, without the fragment; may be empty: "/" */
};

/* http://, https:// and nothing else. NULL, or why not: one sentence without the URL, which may hold keys. */
const char *http_url_parse(struct http_url *out, const char *text);

/* "Basic ..." (RFC 7617) from a URL's user. */
void http_url_put_credentials(struct buf *out, struct http_piece user);

/* The proxy that the environment names for such an origin: http_proxy, https_proxy, HTTPS_PROXY, all_proxy,
 * ALL_PROXY, but for what no_proxy lists and for this machine. NULL: none. (HTTP_PROXY in capitals is not
 * asked: a CGI server sets it from a header of its client's.) */
const char *http_proxy_find(bool is_tls, const char *host);

#endif
