/* net, private: what the HTTP server needs of the loop. */
#ifndef PHAROS_NET_NET_INT_H
#define PHAROS_NET_NET_INT_H

#include <uv.h>

#include "net/net.h"

uv_loop_t *net_loop_uv(struct net_loop *loop);

#endif
