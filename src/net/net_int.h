/* net, private: what the HTTP server needs of the loop and of sockets. */
#ifndef PHAROS_NET_NET_INT_H
#define PHAROS_NET_NET_INT_H

#include <uv.h>

#include "net/net.h"

uv_loop_t *net_loop_uv(struct net_loop *loop);

/* Bytes that the other end has not acknowledged yet; 0 where the system does not say. */
size_t net_socket_unacknowledged(const uv_tcp_t *tcp);

#endif
