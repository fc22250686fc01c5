/* What libuv does not tell about a socket. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "net/net_int.h"

/* Keep-alive alone would do for a silent connection only: data that waits for its acknowledgement puts it
 * off, and is itself given up after a quarter of an hour. TCP_USER_TIMEOUT (RFC 5482) bounds both; it also
 * ends a connection whose window stays shut, which the write stall does sooner when much is queued. */
void net_socket_probe_peer(uv_tcp_t *tcp, unsigned probe_s, unsigned silence_ms)
{
    uv_tcp_keepalive(tcp, 1, probe_s);
#if defined(TCP_USER_TIMEOUT) && defined(TCP_KEEPINTVL)
    uv_os_fd_t fd;
    int interval_s = (int)probe_s;
    if (uv_fileno((const uv_handle_t *)tcp, &fd) != 0)
        return;
    /* A socket that refuses these works without them. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms);
#else
    (void)silence_ms;
#endif
}

/* The terminal's "output queue" request means, on a Linux socket, bytes not yet acknowledged (tcp(7)). */
size_t net_socket_unacknowledged(const uv_tcp_t *tcp)
{
    int count = 0;
#ifdef TIOCOUTQ
    uv_os_fd_t fd;
    if (uv_fileno((const uv_handle_t *)tcp, &fd) != 0 || ioctl(fd, TIOCOUTQ, &count) != 0 || count < 0)
        count = 0;
#else
    (void)tcp;
#endif
    return (size_t)count;
}
