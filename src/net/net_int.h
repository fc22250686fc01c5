/* net, private: what libuv does not bring along. */
#ifndef PHAROS_NET_NET_INT_H
#define PHAROS_NET_NET_INT_H

#include <uv.h>

#include "net/net.h"

uv_loop_t *net_loop_uv(struct net_loop *loop);

/* Has the system notice a host that vanished without a word (power, network): it is asked after probe_s of
 * silence, and the connection fails once it has owed an acknowledgement for silence_ms, of a question or of
 * data. Where the system knows no such limit its own applies, some minutes. */
void net_socket_probe_peer(uv_tcp_t *tcp, unsigned probe_s, unsigned silence_ms);

/* Never inherited by a child, never blocking. -1: errno. */
int net_socket_open(int family, int type, int protocol);
void net_socket_close(int fd); /* any descriptor; -1 is fine */

/* Bytes that the other end has not acknowledged yet; 0 where the system does not say. */
size_t net_socket_unacknowledged(const uv_tcp_t *tcp);

/* Runs `work` on a thread of its own that nobody waits for, and that may outlive the loop; false: none. */
bool net_run_detached(void (*work)(void *ud), void *ud);

#endif
