/* net, private: a connection to a host by its name (net_dial.c). Loop's thread. */
#ifndef PHAROS_NET_NET_DIAL_INT_H
#define PHAROS_NET_NET_DIAL_INT_H

#include "net/net_names_int.h"

enum net_dial_end { NET_DIAL_DONE, NET_DIAL_NO_NAME, NET_DIAL_NO_CONNECTION, NET_DIAL_FAILED /* of ours */ };

struct net_dial;
/* Once, from the loop, and the dial is gone. DONE: `tcp` is connected, without delay, probed, and the
 * caller's: uv_close it, and mem_free it when that is over. Otherwise `why` is for people. */
typedef void net_dial_fn(void *ud, enum net_dial_end how, uv_tcp_t *tcp, const char *why);

struct net_dial *net_dial_start(struct net_loop *loop, struct net_names *names, const char *host,
                                uint16_t port, net_dial_fn *done, void *ud); /* NULL: no memory */
void net_dial_cancel(struct net_dial *dial); /* `done` is not called; NULL is fine */

#endif
