/* Addresses of a machine, as text and from the system. */
#include <string.h>

#include "net/net_names_int.h"

static void add(struct net_addresses *out, const struct sockaddr *address)
{
    union net_address *next = &out->list[out->count];
    if (out->count == NET_ADDRESSES_MAX)
        return;
    if (address->sa_family == AF_INET)
        memcpy(&next->v4, address, sizeof next->v4);
    else if (address->sa_family == AF_INET6)
        memcpy(&next->v6, address, sizeof next->v6);
    else
        return;
    out->count++;
}

static void add_literal(struct net_addresses *out, const char *text)
{
    union net_address address = {0};
    if (uv_ip4_addr(text, 0, &address.v4) == 0 || uv_ip6_addr(text, 0, &address.v6) == 0)
        add(out, &address.any);
}

static bool ends_in(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

bool net_addresses_literal(struct net_addresses *out, const char *host)
{
    *out = (struct net_addresses){0};
    if (strcmp(host, "localhost") == 0 || ends_in(host, ".localhost")) {
        add_literal(out, "127.0.0.1");
        add_literal(out, "::1");
    } else {
        add_literal(out, host);
    }
    return out->count > 0;
}

/* The system has sorted them by preference (RFC 6724). The two families take turns, so that a network that
 * has one of them in name only costs one attempt (RFC 8305, 4). */
static void interleave(struct net_addresses *out, const struct addrinfo *found)
{
    int family = found ? found->ai_family : 0;
    const struct addrinfo *same = found, *other = found;
    while (same || other) {
        while (same && same->ai_family != family)
            same = same->ai_next;
        while (other && other->ai_family == family)
            other = other->ai_next;
        if (same) {
            add(out, same->ai_addr);
            same = same->ai_next;
        }
        if (other) {
            add(out, other->ai_addr);
            other = other->ai_next;
        }
    }
}

void net_addresses_resolve(struct net_addresses *out, const char *name)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *found = NULL;
    *out = (struct net_addresses){0};
    int rc = getaddrinfo(name, NULL, &hints, &found);
    if (rc != 0) {
        out->why = gai_strerror(rc);
        return;
    }
    interleave(out, found);
    freeaddrinfo(found);
    if (!out->count)
        out->why = "the name has no address";
}
