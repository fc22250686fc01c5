/* The least that a proxy can do: every byte that arrives on one side is written to the other, once. Nothing is
 * looked at. What it costs is the kernel's share in the cost of any proxy on this machine.
 *
 * bench_relay UPSTREAM_PORT prints its port and serves until killed. One thread, epoll; a write that does not
 * take everything ends the connection, which the benchmark would see as an error. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 65536
#define EVENTS 256

static int other[DESCRIPTORS_MAX]; /* by descriptor: the connection's other side; 0: none */

static struct sockaddr_in loopback(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void watch(int epoll, int fd)
{
    int on = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void pair(int epoll, int listener, unsigned upstream)
{
    struct sockaddr_in address = loopback(upstream);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    int to = fd < 0 ? -1 : socket(AF_INET, SOCK_STREAM, 0);
    if (to < 0 || to >= DESCRIPTORS_MAX || connect(to, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        close(to);
        return;
    }
    other[fd] = to;
    other[to] = fd;
    watch(epoll, fd);
    watch(epoll, to);
}

static void part(int fd)
{
    int to = other[fd];
    other[fd] = other[to] = 0;
    close(fd);
    close(to);
}

static void relay(int fd)
{
    static char bytes[65536];
    if (!other[fd]) /* closed by an event before this one */
        return;
    ssize_t n = read(fd, bytes, sizeof bytes);
    if (n <= 0 || write(other[fd], bytes, (size_t)n) != n)
        part(fd);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof address;
    struct rlimit limit = {.rlim_cur = DESCRIPTORS_MAX, .rlim_max = DESCRIPTORS_MAX};
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (argc != 2) {
        fprintf(stderr, "bench_relay UPSTREAM_PORT\n");
        return 2;
    }
    unsigned upstream = (unsigned)strtoul(argv[1], NULL, 10);
    int epoll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, len) != 0 || listen(listener, 4096) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &len) != 0) {
        perror("bench_relay");
        return 1;
    }
    watch(epoll, listener);
    printf("%u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                pair(epoll, listener, upstream);
            else
                relay(events[i].data.fd);
        }
    }
}
