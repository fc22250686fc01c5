/* Which proxy the environment names, and for whom it does not. What the variables mean is custom, not a
 * standard; curl(1) has the most complete description. */
#include <stdlib.h>
#include <string.h>

#include "net/http_parse_int.h"
#include "net/http_url_int.h"

static const char *from_environment(const char *const *names)
{
    for (; *names; names++) {
        const char *value = getenv(*names);
        if (value)
            return value;
    }
    return NULL;
}

static bool is_this_machine(const char *host)
{
    struct net_addresses addresses;
    if (!net_addresses_literal(&addresses, host))
        return false;
    const union net_address *address = &addresses.list[0];
    if (address->any.sa_family == AF_INET)
        return (ntohl(address->v4.sin_addr.s_addr) >> 24) == 127;
    static const struct in6_addr loopback = IN6ADDR_LOOPBACK_INIT;
    return memcmp(&address->v6.sin6_addr, &loopback, sizeof loopback) == 0;
}

/* "example.com" and ".example.com": the name itself and all below it. */
static bool is_name_within(const char *host, struct http_piece domain)
{
    while (domain.len && *domain.at == '.') {
        domain.at++;
        domain.len--;
    }
    size_t len = strlen(host);
    if (!domain.len || len < domain.len || (len > domain.len && host[len - domain.len - 1] != '.'))
        return false;
    for (size_t i = 0; i < domain.len; i++)
        if (http_lower(domain.at[i]) != http_lower(host[len - domain.len + i]))
            return false;
    return true;
}

/* "10.0.0.0/8", "fd00::/8", or an address alone. */
static bool is_address_within(const char *host, struct http_piece net)
{
    char text[INET6_ADDRSTRLEN + 4];
    unsigned char ours[16], theirs[16];
    if (net.len >= sizeof text)
        return false;
    memcpy(text, net.at, net.len);
    text[net.len] = 0;
    char *slash = strchr(text, '/');
    if (slash)
        *slash = 0;
    int family = strchr(text, ':') ? AF_INET6 : AF_INET;
    unsigned long bits = family == AF_INET6 ? 128 : 32;
    if (slash && strtoul(slash + 1, NULL, 10) < bits)
        bits = strtoul(slash + 1, NULL, 10);
    if (uv_inet_pton(family, text, theirs) != 0 || uv_inet_pton(family, host, ours) != 0)
        return false;
    unsigned rest = bits % 8 ? (0xff00u >> (bits % 8)) & 0xffu : 0;
    return memcmp(ours, theirs, bits / 8) == 0 &&
           (!rest || ((ours[bits / 8] ^ theirs[bits / 8]) & rest) == 0);
}

static bool is_excepted(const char *host, const char *list)
{
    while (*list) {
        list += strspn(list, ", \t");
        struct http_piece entry = {list, strcspn(list, ", \t")};
        if ((entry.len == 1 && *entry.at == '*') || is_name_within(host, entry) ||
            is_address_within(host, entry))
            return true;
        list += entry.len;
    }
    return false;
}

const char *http_proxy_find(bool is_tls, const char *host)
{
    static const char *const plain[] = {"http_proxy", "all_proxy", "ALL_PROXY", NULL};
    static const char *const tls[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", NULL};
    static const char *const not [] = {"no_proxy", "NO_PROXY", NULL};
    const char *proxy = from_environment(is_tls ? tls : plain);
    if (!proxy || !*proxy || is_this_machine(host))
        return NULL;
    const char *except = from_environment(not );
    return except && is_excepted(host, except) ? NULL : proxy;
}
