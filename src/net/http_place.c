/* Where requests go: scheme, host and port, with the proxy that the environment names for it and with the
 * connections that are kept. A place lives as long as a call or a connection of it does. */
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

static void put_authority(struct buf *out, const struct http_place *place, bool with_port)
{
    bool is_v6 = strchr(place->host, ':') != NULL;
    buf_puts(out, is_v6 ? "[" : "");
    buf_puts(out, place->host);
    buf_puts(out, is_v6 ? "]" : "");
    if (with_port) {
        buf_putc(out, ':');
        buf_put_uint(out, place->port);
    }
}

void http_place_put_connect(struct buf *out, const struct http_place *place)
{
    buf_puts(out, "CONNECT ");
    put_authority(out, place, true);
    buf_puts(out, " HTTP/1.1\r\nhost: ");
    put_authority(out, place, true);
    if (place->gate_credentials) {
        buf_puts(out, "\r\nproxy-authorization: ");
        buf_puts(out, place->gate_credentials);
    }
    buf_puts(out, "\r\n\r\n");
}

static void destroy(struct http_place *place)
{
    mem_free(place->host);
    mem_free(place->authority);
    mem_free(place->gate_host);
    mem_free(place->gate_credentials);
    mem_free(place);
}

static enum ph_status go_by_proxy(struct http_place *place, const char *proxy, struct ph_err *err)
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
        place->has_proxy = true;
        place->gate_host = copy(url.host);
        place->gate_port = url.port;
        place->gate_credentials = buf_take(&credentials);
    }
    buf_release(&text);
    return status;
}

static enum ph_status find_way(struct http_place *place, struct ph_err *err)
{
    const char *proxy = http_proxy_find(place->is_tls, place->host);
    if (proxy)
        return go_by_proxy(place, proxy, err);
    place->gate_host = mem_strdup(place->host);
    place->gate_port = place->port;
    return PH_OK;
}

static enum ph_status create(struct http_place **out, const struct http_url *url, struct ph_err *err)
{
    struct http_place *place = mem_calloc(1, sizeof *place);
    if (!place)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a request to another machine");
    struct buf authority;
    buf_init(&authority, SIZE_MAX);
    enum ph_status status = PH_OK;
    place->is_tls = url->is_tls;
    place->port = url->port;
    http_link_init(&place->idle);
    place->host = copy(url->host);
    if (place->host) {
        put_authority(&authority, place, url->has_port);
        status = find_way(place, err);
    }
    place->authority = buf_take(&authority);
    if (status == PH_OK && (!place->gate_host || !place->authority))
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for a request to another machine");
    if (status == PH_OK)
        *out = place;
    else
        destroy(place);
    return status;
}

static bool is_at(const struct http_place *place, const struct http_url *url)
{
    return place->port == url->port && place->is_tls == url->is_tls &&
           strncmp(place->host, url->host.at, url->host.len) == 0 && !place->host[url->host.len];
}

static struct http_place *find(struct http_client *client, const struct http_url *url)
{
    for (struct http_link *link = client->places.next; link != &client->places; link = link->next) {
        struct http_place *place = HTTP_CONTAINER(link, struct http_place, link);
        if (is_at(place, url))
            return place;
    }
    return NULL;
}

enum ph_status http_place_enter(struct http_place **out, struct http_client *client,
                                const struct http_url *url, struct ph_err *err)
{
    struct http_place *place = find(client, url);
    enum ph_status status = place ? PH_OK : create(&place, url, err);
    if (status != PH_OK)
        return status;
    if (place->users)
        http_link_remove(&place->link);
    http_link_append(client->places.next, &place->link); /* that is, at the front */
    place->users++;
    *out = place;
    return PH_OK;
}

void http_place_leave(struct http_place *place)
{
    if (!place || --place->users)
        return;
    http_link_remove(&place->link);
    destroy(place);
}
