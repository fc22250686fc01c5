/* What libuv does not tell about a socket. */
#include <sys/ioctl.h>

#include "net/net_int.h"

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
