/* What libuv does not tell about a socket, and a thread that nobody waits for. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "net/net_int.h"

/* Keep-alive alone would do for a silent connection only: data that waits for its acknowledgement puts it
 * off, and is itself given up after a quarter of an hour. TCP_USER_TIMEOUT (RFC 5482) bounds both; it also
 * ends a connection whose window stays shut, which the write stall does sooner when much is queued. */
static void probe(int fd, unsigned probe_s, unsigned silence_ms)
{
    int on = 1, interval_s = (int)probe_s;
    /* A socket that refuses these works without them. */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
#ifdef TCP_KEEPIDLE
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &interval_s, sizeof interval_s);
#endif
#ifdef TCP_KEEPINTVL
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
#endif
#ifdef TCP_USER_TIMEOUT
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms);
#else
    (void)silence_ms;
#endif
}

void net_socket_probe_peer(uv_tcp_t *tcp, unsigned probe_s, unsigned silence_ms)
{
    uv_os_fd_t fd;
    if (uv_fileno((const uv_handle_t *)tcp, &fd) == 0)
        probe(fd, probe_s, silence_ms);
}

int net_socket_open(int family, int type, int protocol)
{
    return socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
}

void net_socket_close(int fd)
{
    if (fd >= 0)
        close(fd);
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

bool net_run_detached(void (*work)(void *ud), void *ud)
{
    uv_thread_t thread;
    return uv_thread_create(&thread, work, ud) == 0 && pthread_detach(thread) == 0;
}
