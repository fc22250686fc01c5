/* Where requests go: scheme, host and port, with the proxy that the environment names for it and with the
 * connections that are kept. An origin lives as long as a call or a connection of it does. */
#include <string.h>

#include "base/mem.h"
#include "net/http_client_int.h"

static char *copy(struct http_piece piece)
{
    char *text = mem_alloc(piece.len + 1);
    if (!text)
        return NULL;
    memcpy(text, piece.at, piece.len);
    text[piece.len] = 0;
    return text;
}

static void put_authority(struct buf *out, const struct http_origin *origin, bool with_port)
{
    bool is_v6 = strchr(origin->host, ':') != NULL;
    buf_puts(out, is_v6 ? "[" : "");
    buf_puts(out, origin->host);
    buf_puts(out, is_v6 ? "]" : "");
    if (with_port) {
        buf_putc(out, ':');
        buf_put_uint(out, origin->port);
    }
}

void http_origin_put_connect(struct buf *out, const struct http_origin *origin)
{
    buf_puts(out, "CONNECT ");
    put_authority(out, origin, true);
    buf_puts(out, " HTTP/1.1\r\nhost: ");
    put_authority(out, origin, true);
    if (origin->proxy_credentials) {
        buf_puts(out, "\r\nproxy-authorization: ");
        buf_puts(out, origin->proxy_credentials);
    }
    buf_puts(out, "\r\n\r\n");
}

static void destroy(struct http_origin *origin)
{
    mem_free(origin->host);
    mem_free(origin->authority);
    mem_free(origin->hop_host);
    mem_free(origin->proxy_credentials);
    mem_free(origin);
}

static enum ph_status go_by_proxy(struct http_origin *origin, const char *proxy, struct ph_err *err)
{
    struct http_url url;
    struct buf text;
    buf_init(&text, HTTP_CALL_HEAD_BYTES_MAX);
    buf_puts(&text, strstr(proxy, "://") ? "" : "http://"); /* the scheme may be left out */
    buf_puts(&text, proxy);
    enum ph_status status = buf_status(&text);
    if (status != PH_OK) {
        status = ph_fail(err, status, "no memory for the address of a proxy");
    } else if (http_url_parse(&url, text.data) != NULL || url.is_tls) {
        status = ph_fail(err, PH_ERR_ARG,
                         "the environment names a proxy (http_proxy, https_proxy or all_proxy) that is not "
                         "of the form http://HOST:PORT");
    } else {
        struct buf credentials;
        buf_init(&credentials, SIZE_MAX);
        if (url.user.len)
            http_url_put_credentials(&credentials, url.user);
        origin->has_proxy = true;
        origin->hop_host = copy(url.host);
        origin->hop_port = url.port;
        origin->proxy_credentials = buf_take(&credentials);
    }
    buf_release(&text);
    return status;
}

static enum ph_status find_way(struct http_origin *origin, struct ph_err *err)
{
    const char *proxy = http_proxy_find(origin->is_tls, origin->host);
    if (proxy)
        return go_by_proxy(origin, proxy, err);
    origin->hop_host = mem_strdup(origin->host);
    origin->hop_port = origin->port;
    return PH_OK;
}

static enum ph_status create(struct http_origin **out, const struct http_url *url, struct ph_err *err)
{
    struct http_origin *origin = mem_calloc(1, sizeof *origin);
    if (!origin)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a request to another machine");
    struct buf authority;
    buf_init(&authority, SIZE_MAX);
    enum ph_status status = PH_OK;
    origin->is_tls = url->is_tls;
    origin->port = url->port;
    http_link_init(&origin->idle);
    origin->host = copy(url->host);
    if (origin->host) {
        put_authority(&authority, origin, url->has_port);
        status = find_way(origin, err);
    }
    origin->authority = buf_take(&authority);
    if (status == PH_OK && (!origin->hop_host || !origin->authority))
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for a request to another machine");
    if (status == PH_OK)
        *out = origin;
    else
        destroy(origin);
    return status;
}

static bool is_at(const struct http_origin *origin, const struct http_url *url)
{
    return origin->port == url->port && origin->is_tls == url->is_tls &&
           strncmp(origin->host, url->host.at, url->host.len) == 0 && !origin->host[url->host.len];
}

static struct http_origin *find(struct http_client *client, const struct http_url *url)
{
    for (struct http_link *link = client->origins.next; link != &client->origins; link = link->next) {
        struct http_origin *origin = HTTP_CONTAINER(link, struct http_origin, link);
        if (is_at(origin, url))
            return origin;
    }
    return NULL;
}

enum ph_status http_origin_enter(struct http_origin **out, struct http_client *client,
                                 const struct http_url *url, struct ph_err *err)
{
    struct http_origin *origin = find(client, url);
    enum ph_status status = origin ? PH_OK : create(&origin, url, err);
    if (status != PH_OK)
        return status;
    if (origin->users)
        http_link_remove(&origin->link);
    http_link_append(client->origins.next, &origin->link); /* that is, at the front */
    origin->users++;
    *out = origin;
    return PH_OK;
}

void http_origin_leave(struct http_origin *origin)
{
    if (!origin || --origin->users)
        return;
    http_link_remove(&origin->link);
    destroy(origin);
}
