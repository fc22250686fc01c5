/* Who may call a station that asks for no key.
 *
 * A station on loopback trusts everybody on its machine, and the browser on that machine runs pages from
 * everywhere. Two ways lead from such a page to us, and both are closed here:
 *  - DNS rebinding: the page's own name is made to resolve to 127.0.0.1; then it is same-origin with us, but
 *    its name stands in Host. So Host must be something that public DNS does not hand out.
 *  - Plain cross-site requests: a form or a "simple" fetch needs no preflight; it cannot read our answer, but
 *    it can make us work. Browsers put Origin on every such request. So an http(s) Origin must be of this
 *    machine, or the very host that we are reached as.
 * Programs send no Origin and pass. Applications with their own scheme (app://, vscode-webview://,
 * chrome-extension://) were installed by the user and pass too; "null" may be anybody and does not. */
#include <ctype.h>
#include <string.h>

#include "gateway/gateway_int.h"

#define HOST_BYTES_MAX 256

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* The name in "name:port" or "[v6]:port", lower case, without brackets and a final dot. false: not a host. */
static bool host_name(const char *host, size_t len, char out[HOST_BYTES_MAX])
{
    const char *end = host + len;
    if (len && host[0] == '[') {
        const char *close = memchr(host, ']', len);
        if (!close)
            return false;
        host++;
        end = close;
    } else {
        const char *colon = memchr(host, ':', len);
        end = colon ? colon : end;
    }
    if (end > host && end[-1] == '.')
        end--;
    len = (size_t)(end - host);
    if (len == 0 || len >= HOST_BYTES_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        out[i] = (char)tolower((unsigned char)host[i]);
    out[len] = 0;
    return true;
}

static bool is_v4(const char *name)
{
    unsigned parts = 0;
    for (;; name++) {
        unsigned value = 0, digits = 0;
        for (; *name >= '0' && *name <= '9' && digits < 4; name++, digits++)
            value = value * 10 + (unsigned)(*name - '0');
        if (digits == 0 || digits > 3 || value > 255)
            return false;
        if (++parts == 4)
            return *name == 0;
        if (*name != '.')
            return false;
    }
}

static bool is_v6(const char *name)
{
    return strchr(name, ':') && strspn(name, "0123456789abcdef:.%") == strlen(name);
}

bool origin_is_loopback_address(const char *host)
{
    char name[HOST_BYTES_MAX];
    if (strcmp(host, "::1") == 0)
        return true;
    return host_name(host, strlen(host), name) &&
           ((is_v4(name) && strncmp(name, "127.", 4) == 0) || strcmp(name, "::1") == 0 ||
            strcmp(name, "localhost") == 0 || ends_with(name, ".localhost"));
}

bool origin_host_is_safe(const char *host)
{
    char name[HOST_BYTES_MAX];
    if (!host_name(host, strlen(host), name))
        return false;
    return is_v4(name) || is_v6(name) || strcmp(name, "localhost") == 0 || ends_with(name, ".localhost") ||
           ends_with(name, ".internal"); /* host.docker.internal; reserved by ICANN for private use */
}

bool origin_is_allowed(const char *origin, const char *host)
{
    const char *authority = strstr(origin, "://");
    if (!authority)
        return false;
    bool is_web = strncmp(origin, "http://", 7) == 0 || strncmp(origin, "https://", 8) == 0;
    authority += 3;
    return !is_web || origin_is_loopback_address(authority) || (host && strcmp(authority, host) == 0);
}
