/* net, private: addresses of machines (net_names.c, net_addresses.c). */
#ifndef PHAROS_NET_NET_NAMES_INT_H
#define PHAROS_NET_NET_NAMES_INT_H

#include "net/http_link_int.h"
#include "net/net_int.h"

#define NET_NAME_BYTES_MAX 253 /* RFC 1035, 2.3.4, as text */
#define NET_ADDRESSES_MAX 16   /* of one name; more are not tried */

union net_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* In the order in which they are to be tried; ports are 0. None: `why` says why. */
struct net_addresses {
    union net_address list[NET_ADDRESSES_MAX];
    size_t count;
    const char *why; /* static */
};

/* A numeric address, or a name that means this machine (RFC 6761, 6.3): false for everything else. */
bool net_addresses_literal(struct net_addresses *out, const char *host);
/* Asks the system; may take half a minute. Any thread. */
void net_addresses_resolve(struct net_addresses *out, const char *name);

/* Names that are looked up, and answers that are kept. Loop's thread. */
struct net_names;
struct net_names *net_names_open(struct net_loop *loop); /* NULL: no memory */
/* Nobody may be asking any more. Does not wait for a name server. NULL is fine. */
void net_names_close(struct net_names *names);

/* Asked before and still good; NULL: ask. Valid until the next call. */
const struct net_addresses *net_names_known(struct net_names *names, const char *name);
void net_names_distrust(struct net_names *names, const char *name); /* nobody answered there */

/* Belongs to who asks, in one place until it is answered or withdrawn. */
struct net_name_ask {
    struct http_link link;
    void (*answered)(void *ud, const struct net_addresses *answer); /* once, from the loop */
    void *ud;
};
bool net_names_ask(struct net_names *names, const char *name,
                   struct net_name_ask *ask);                      /* false: no memory */
static inline void net_name_ask_withdraw(struct net_name_ask *ask) /* also when it was answered */
{
    http_link_remove(&ask->link);
}

#endif
