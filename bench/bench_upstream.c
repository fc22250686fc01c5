/* An upstream that costs next to nothing, to measure proxies against: OpenAI chat replies of 1 KB, and streams.
 *
 * bench_upstream [--chunks N] [--period-ms P] prints its port and serves until killed. A request with
 * "stream":true is answered with N events, one every P ms, each stream at its own moment of the period; any
 * other with one fixed reply. One thread, epoll; nothing is parsed but where a request ends. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define CONNECTIONS_MAX 65536
#define REQUEST_MAX 16384
#define PERIOD_MAX 1000
#define EVENTS 256

struct conn {
    int fd;
    size_t in_len, out_len;
    const char *out;   /* what could not be written yet */
    unsigned left;     /* events of its stream; 0: none is running */
    struct conn *next; /* in its moment's list */
    char in[REQUEST_MAX];
};

struct text {
    char bytes[4096];
    size_t len;
};

struct upstream {
    int epoll, listener, timer;
    unsigned chunks, period_ms, tick;
    struct conn *conns[CONNECTIONS_MAX];
    struct conn *moments[PERIOD_MAX]; /* streams, by when in the period they speak */
    struct text whole, stream_head, event, last;
};

/* ---- What is said */

static void say_chunk(struct text *out, const char *payload)
{
    int n = snprintf(out->bytes + out->len, sizeof out->bytes - out->len, "%zx\r\n%s\r\n", strlen(payload),
                     payload);
    out->len += (size_t)n;
}

static void prepare(struct upstream *u)
{
    static const char chunk[] =
        "data: {\"id\":\"chatcmpl-BenchBenchBenchBenchBenchBench\",\"object\":\"chat.completion.chunk\","
        "\"created\":1700000000,\"model\":\"bench\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_"
        "0\",\"choices\":[{\"index\":0,\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s}]}\n\n";
    char body[2048], words[640], payload[1024];
    memset(words, 'w', sizeof words - 1);
    for (size_t i = 5; i < sizeof words - 1; i += 6)
        words[i] = ' ';
    words[sizeof words - 1] = 0;
    int len = snprintf(
        body, sizeof body,
        "{\"id\":\"chatcmpl-BenchBenchBenchBenchBenchBench\",\"object\":\"chat.completion\",\"created\":"
        "1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"%s\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
        "\"prompt_tokens\":250,\"completion_tokens\":107,\"total_tokens\":357,\"prompt_tokens_details\":{"
        "\"cached_tokens\":0}}}",
        words);
    u->whole.len = (size_t)snprintf(
        u->whole.bytes, sizeof u->whole.bytes,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", len, body);
    u->stream_head.len =
        (size_t)snprintf(u->stream_head.bytes, sizeof u->stream_head.bytes,
                         "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: "
                         "chunked\r\n\r\n");
    snprintf(payload, sizeof payload, chunk, "\"role\":\"assistant\",\"content\":\"\"", "null");
    say_chunk(&u->stream_head, payload);
    snprintf(payload, sizeof payload, chunk, "\"content\":\" words\"", "null");
    say_chunk(&u->event, payload);
    snprintf(payload, sizeof payload, chunk, "", "\"stop\"");
    say_chunk(&u->last, payload);
    snprintf(payload, sizeof payload,
             "data: {\"id\":\"chatcmpl-BenchBenchBenchBenchBenchBench\",\"object\":\"chat.completion.chunk\","
             "\"created\":1700000000,\"model\":\"bench\",\"choices\":[],\"usage\":{\"prompt_tokens\":250,"
             "\"completion_tokens\":%u,\"total_tokens\":%u}}\n\n",
             u->chunks, 250 + u->chunks);
    say_chunk(&u->last, payload);
    say_chunk(&u->last, "data: [DONE]\n\n");
    memcpy(u->last.bytes + u->last.len, "0\r\n\r\n", 5);
    u->last.len += 5;
}

/* ---- Connections */

static void leave_moment(struct upstream *u, struct conn *c)
{
    for (unsigned i = 0; i < u->period_ms; i++)
        for (struct conn **p = &u->moments[i]; *p; p = &(*p)->next)
            if (*p == c) {
                *p = c->next;
                return;
            }
}

static void conn_close(struct upstream *u, struct conn *c)
{
    if (c->left)
        leave_moment(u, c);
    u->conns[c->fd] = NULL;
    close(c->fd);
    free(c);
}

static void watch(struct upstream *u, struct conn *c, bool writing)
{
    struct epoll_event event = {.events = EPOLLIN | (writing ? (uint32_t)EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(u->epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* false: the connection is broken. */
static bool send_text(struct upstream *u, struct conn *c, const char *bytes, size_t len)
{
    ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return false;
    size_t done = n > 0 ? (size_t)n : 0;
    if (done < len) {
        c->out = bytes + done;
        c->out_len = len - done;
        watch(u, c, true);
    }
    return true;
}

static const char *header_length(const char *head, size_t len)
{
    for (const char *p = head; p + 15 < head + len; p++)
        if (*p == '\n' && strncasecmp(p + 1, "content-length:", 15) == 0)
            return p + 16;
    return NULL;
}

/* How long the first request in the buffer is; 0: it is not complete. */
static size_t request_len(const struct conn *c, bool *is_stream)
{
    const char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = (size_t)(end - c->in) + 4;
    const char *length = header_length(c->in, head);
    size_t total = head + (length ? strtoul(length, NULL, 10) : 0);
    if (c->in_len < total)
        return 0;
    *is_stream = memmem(end, total - head + 4, "\"stream\":true", 13) ||
                 memmem(end, total - head + 4, "\"stream\": true", 14);
    return total;
}

static bool answer(struct upstream *u, struct conn *c)
{
    bool is_stream = false;
    size_t len = request_len(c, &is_stream);
    if (!len || c->out_len || c->left)
        return c->in_len < sizeof c->in;
    memmove(c->in, c->in + len, c->in_len - len);
    c->in_len -= len;
    if (!is_stream)
        return send_text(u, c, u->whole.bytes, u->whole.len);
    struct conn **moment = &u->moments[(unsigned)rand() % u->period_ms];
    c->left = u->chunks;
    c->next = *moment;
    *moment = c;
    return send_text(u, c, u->stream_head.bytes, u->stream_head.len);
}

static void readable(struct upstream *u, struct conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    c->in_len += n > 0 ? (size_t)n : 0;
    if (n <= 0 || !answer(u, c))
        conn_close(u, c);
}

static void writable(struct upstream *u, struct conn *c)
{
    const char *bytes = c->out;
    size_t len = c->out_len;
    c->out_len = 0;
    if (!send_text(u, c, bytes, len))
        conn_close(u, c);
    else if (!c->out_len)
        watch(u, c, false);
}

/* Every stream of this moment says one event more, or its end. A reader that is behind is waited for. */
static void speak(struct upstream *u)
{
    struct conn *next, **moment = &u->moments[u->tick++ % u->period_ms];
    for (struct conn *c = *moment; c; c = next) {
        next = c->next;
        if (c->out_len)
            continue;
        bool is_last = c->left == 1;
        if (!send_text(u, c, u->event.bytes, u->event.len)) {
            conn_close(u, c);
            continue;
        }
        if (!is_last) {
            c->left--;
            continue;
        }
        if (c->out_len)
            continue;
        leave_moment(u, c);
        c->left = 0;
        if (!send_text(u, c, u->last.bytes, u->last.len))
            conn_close(u, c);
    }
}

static void accept_all(struct upstream *u)
{
    int fd;
    while ((fd = accept4(u->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct conn *c = fd < CONNECTIONS_MAX ? calloc(1, sizeof *c) : NULL;
        if (!c) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        c->fd = fd;
        u->conns[fd] = c;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(u->epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_anywhere(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&address, &len))
        return -1;
    *port = ntohs(address.sin_port);
    return fd;
}

static void serve(struct upstream *u)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(u->epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            uint64_t ticks;
            if (fd == u->listener)
                accept_all(u);
            else if (fd == u->timer) {
                if (read(fd, &ticks, sizeof ticks) == sizeof ticks)
                    for (uint64_t t = 0; t < ticks && t < u->period_ms; t++)
                        speak(u);
            } else {
                if (u->conns[fd] && events[i].events & EPOLLOUT)
                    writable(u, u->conns[fd]);
                if (u->conns[fd] && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                    readable(u, u->conns[fd]);
            }
        }
    }
}

int main(int argc, char **argv)
{
    static struct upstream u = {.chunks = 200, .period_ms = 20};
    for (int i = 1; i + 1 < argc; i += 2) {
        unsigned value = (unsigned)strtoul(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--chunks") == 0 && value > 0)
            u.chunks = value;
        else if (strcmp(argv[i], "--period-ms") == 0 && value > 0 && value <= PERIOD_MAX)
            u.period_ms = value;
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    uint16_t port = 0;
    u.listener = listen_anywhere(&port);
    u.epoll = epoll_create1(0);
    u.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (u.listener < 0 || u.epoll < 0 || u.timer < 0) {
        perror("bench_upstream");
        return 1;
    }
    prepare(&u);
    struct itimerspec tick = {{0, 1000000}, {0, 1000000}};
    timerfd_settime(u.timer, 0, &tick, NULL);
    int fds[] = {u.listener, u.timer};
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fds[i]};
        epoll_ctl(u.epoll, EPOLL_CTL_ADD, fds[i], &event);
    }
    printf("%u\n", port);
    fflush(stdout);
    serve(&u);
}
