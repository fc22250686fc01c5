/* Request targets (RFC 9112, 3.2): origin-form, absolute-form (what clients send to a proxy: the host in it
 * wins over Host, and this server serves one host, so it is checked and dropped) and "*" for OPTIONS, which
 * becomes
 * "/". The path is percent-decoded once, here, so that every handler compares the same text; escapes that are
 * broken or that decode to NUL are refused, the query is left alone. Dot segments stay as they are: paths are
 * names of routes, not of files. Works in place: decoding only ever shortens. */
#include "net/http_parse_int.h"

#include <string.h>

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + ('a' - 'A') : c) : NULL;
    return found ? (int)(found - digits) : -1;
}

static const char *decode_path(char *path)
{
    const char *from = path;
    char *to = path;
    while (*from) {
        if (*from != '%') {
            *to++ = *from++;
            continue;
        }
        int high = hex_digit(from[1]);
        int low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0)
            return "the path has a percent sign that two hexadecimal digits do not follow";
        if (high == 0 && low == 0)
            return "the path has a %00";
        *to++ = (char)(high << 4 | low);
        from += 3;
    }
    *to = 0;
    return NULL;
}

bool http_authority_is_valid(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!http_char_is((unsigned char)text[i], HTTP_CHAR_AUTHORITY))
            return false;
    size_t host = 0;
    if (len && text[0] == '[') { /* an IP literal: the colons inside are not the port's */
        while (host < len && text[host] != ']')
            host++;
        if (host++ == len)
            return false;
    } else {
        while (host < len && text[host] != ':' && text[host] != '[' && text[host] != ']')
            host++;
    }
    if (host == len)
        return true;
    if (text[host] != ':')
        return false;
    for (size_t i = host + 1; i < len; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return true;
}

static size_t scheme_len(const char *target)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++) {
        size_t i = 0;
        while (schemes[k][i] && (target[i] | 0x20) == (schemes[k][i] | 0x20))
            i++;
        if (!schemes[k][i])
            return i;
    }
    return 0;
}

const char *http_target_split(struct http_parser *parser, uint32_t target)
{
    char *at = parser->text.data + target;
    size_t scheme = scheme_len(at);
    if (scheme) {
        size_t host = strcspn(at + scheme, "/?");
        if (host == 0 || at[scheme] == ':' || !http_authority_is_valid(at + scheme, host))
            return "the host in the request target is not a host and an optional port";
        at += scheme + host;
        if (*at != '/')
            *--at = '/'; /* over the host's last character: the path is empty, which means "/" */
    } else if (strcmp(at, "*") == 0 && strcmp(http_parser_method(parser), "OPTIONS") == 0) {
        *at = '/';
    }
    if (*at != '/')
        return "the request target is neither a path nor an http URL";
    char *query = strchr(at, '?');
    if (query)
        *query++ = 0;
    else
        query = at + strlen(at);
    parser->path = (uint32_t)(at - parser->text.data);
    parser->query = (uint32_t)(query - parser->text.data);
    return decode_path(at);
}
