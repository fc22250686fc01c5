/* Request targets (RFC 9112, 3.2): origin-form, absolute-form (what clients send to a proxy: the host in it
 * wins over Host, and this server serves one host, so it is checked and dropped) and "*" for OPTIONS, which
 * becomes
 * "/". The path is percent-decoded once, here, so that every handler compares the same text; escapes that are
 * broken or that decode to NUL are refused, the query is left alone. Dot segments stay as they are: paths are
 * names of routes, not of files. Works in place: decoding only ever shortens. */
#include "net/http_parse_int.h"

#include <string.h>

static const char *decode_path(char *path)
{
    const char *from = path;
    char *to = path;
    while (*from) {
        if (*from != '%') {
            *to++ = *from++;
            continue;
        }
        int high = http_hex_value(from[1]);
        int low = high < 0 ? -1 : http_hex_value(from[2]);
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

/* An IP literal at the front of text: its length with the brackets, or 0. Its colons are not the port's. */
static size_t literal_len(const char *text, size_t len)
{
    size_t i = 1;
    while (i < len && (http_hex_value(text[i]) >= 0 || text[i] == ':' || text[i] == '.'))
        i++;
    return i > 1 && i < len && text[i] == ']' ? i + 1 : 0;
}

static size_t name_len(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && text[i] != ':' && http_char_is((unsigned char)text[i], HTTP_CHAR_HOST))
        i++;
    return i;
}

static bool is_port(const char *digits, size_t len)
{
    unsigned port = 0;
    for (size_t i = 0; i < len; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return false;
        port = port * 10 + (unsigned)(digits[i] - '0');
        if (port > UINT16_MAX)
            return false;
    }
    return len > 0;
}

bool http_authority_is_valid(const char *text, size_t len)
{
    if (len == 0)
        return true;
    size_t host = text[0] == '[' ? literal_len(text, len) : name_len(text, len);
    if (host == 0)
        return false;
    return host == len || (text[host] == ':' && is_port(text + host + 1, len - host - 1));
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

const char *http_target_split(struct http_reader *parser, uint32_t target)
{
    char *at = parser->text.data + target;
    size_t scheme = scheme_len(at);
    if (scheme) {
        size_t host = strcspn(at + scheme, "/?");
        if (host == 0 || !http_authority_is_valid(at + scheme, host))
            return "the host in the request target is not a host and an optional port";
        at += scheme + host;
        if (*at != '/')
            *--at = '/'; /* over the host's last character: the path is empty, which means "/" */
    } else if (strcmp(at, "*") == 0 && strcmp(http_reader_method(parser), "OPTIONS") == 0) {
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
