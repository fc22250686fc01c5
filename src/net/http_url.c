/* Addresses of requests: RFC 3986 as far as http and https use it (RFC 9110, 4.2). */
#include <string.h>

#include "base/base64.h"
#include "net/http_parse_int.h"
#include "net/http_url_int.h"

static bool take(const char **at, const char *prefix)
{
    size_t i = 0;
    for (; prefix[i]; i++) {
        if (http_lower((*at)[i]) != prefix[i])
            return false;
    }
    *at += i;
    return true;
}

static bool parse_port(struct http_url *url, const char *at, const char *end)
{
    uint32_t port = 0;
    if (at == end) /* "host:" is the scheme's own */
        return true;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9' || (port = port * 10 + (uint32_t)(*at - '0')) > UINT16_MAX)
            return false;
    }
    url->has_port = port != url->port;
    url->port = (uint16_t)port;
    return port != 0;
}

static bool is_address_v6(struct http_piece piece)
{
    char text[INET6_ADDRSTRLEN];
    struct sockaddr_in6 address;
    if (piece.len >= sizeof text)
        return false;
    memcpy(text, piece.at, piece.len);
    text[piece.len] = 0;
    return uv_ip6_addr(text, 0, &address) == 0;
}

static bool is_name(struct http_piece piece)
{
    for (size_t i = 0; i < piece.len; i++)
        if (!http_char_is((unsigned char)piece.at[i], HTTP_CHAR_HOST) || piece.at[i] == ':')
            return false;
    return piece.len > 0 && piece.len <= NET_NAME_BYTES_MAX;
}

static const char *parse_authority(struct http_url *url, const char *at, const char *end)
{
    for (const char *c = at; c < end; c++)
        if (*c == '@')
            url->user = (struct http_piece){at, (size_t)(c - at)};
    if (url->user.at)
        at += url->user.len + 1;
    const char *close = *at == '[' ? memchr(at, ']', (size_t)(end - at)) : NULL;
    const char *host_end = close ? close + 1 : at;
    if (!close)
        while (host_end < end && *host_end != ':')
            host_end++;
    url->host = close ? (struct http_piece){at + 1, (size_t)(close - at - 1)}
                      : (struct http_piece){at, (size_t)(host_end - at)};
    if (close ? !is_address_v6(url->host) : !is_name(url->host))
        return "the host in the address of a request is no name (a name beyond ASCII is written xn--...) and "
               "no numeric address";
    bool is_port_good = host_end == end || (*host_end == ':' && parse_port(url, host_end + 1, end));
    return is_port_good ? NULL : "the port in the address of a request is no number from 1 to 65535";
}

const char *http_url_parse(struct http_url *out, const char *text)
{
    *out = (struct http_url){0};
    const char *at = text;
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c <= ' ' || *c == 0x7f)
            return "the address of a request has a blank or control character in it";
    out->is_tls = take(&at, "https://");
    if (!out->is_tls && !take(&at, "http://"))
        return "the address of a request must begin with http:// or https://";
    out->port = out->is_tls ? 443 : 80;
    const char *path = at + strcspn(at, "/?#");
    out->path = (struct http_piece){path, strcspn(path, "#")};
    return parse_authority(out, at, path);
}

void http_url_put_credentials(struct buf *out, struct http_piece user)
{
    struct buf plain;
    buf_init(&plain, user.len);
    for (size_t i = 0; i < user.len; i++) {
        bool is_encoded = user.at[i] == '%' && i + 2 < user.len && http_hex_value(user.at[i + 1]) >= 0 &&
                          http_hex_value(user.at[i + 2]) >= 0;
        buf_putc(&plain, is_encoded
                             ? (char)(http_hex_value(user.at[i + 1]) * 16 + http_hex_value(user.at[i + 2]))
                             : user.at[i]);
        i += is_encoded ? 2 : 0;
    }
    buf_puts(out, "Basic ");
    base64_write(out, plain.data ? plain.data : "", plain.len);
    if (buf_status(&plain) != PH_OK && out->status == PH_OK)
        out->status = buf_status(&plain);
    buf_release(&plain);
}
