/* A load for HTTP proxies in front of chat APIs, and what it saw, as one line of JSON.
 *
 * bench_load whole  --port P [--connections C] [--seconds T] [--warm W]   requests one after the other on C connections
 * bench_load stream --port P [--connections S] [--seconds T] [--warm W]   S streams; each that ends begins again
 * bench_load hold   --port P [--connections N] [--seconds T] [--streams S]  N idle connections beside S streams that go on;
 *                   at the end every idle one asks /health (or --health PATH) and must get 200
 * Further: --model M, --key K, --path /v1/chat/completions, --requests R (ends after R, whatever T says),
 * --headers "a: b\r\nc: d\r\n" (added as they are).
 *
 * One thread, epoll. Latency is from the first byte sent to the last byte read; what begins in the warm-up is not counted.
 * Replies must be 200 with a length or in chunks; anything else is an error, counted, and its connection is opened anew. */
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
#include <time.h>
#include <unistd.h>

#define LATENCIES_MAX (8u << 20)
#define EVENTS 256
#define READ_MAX 65536
#define HEAD_MAX 4096

enum reading { HEAD, LENGTH, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER };

struct conn {
    int fd;
    bool is_stream, is_idle, waiting; /* waiting: for a reply */
    enum reading reading;
    size_t left, head_len;
    bool counted; /* its request began after the warm-up */
    bool after_newline;
    uint64_t begun_ns;
    char head[HEAD_MAX];
};

struct load {
    const char *mode, *model, *key, *path, *health, *headers;
    unsigned port, connections, streams;
    double seconds, warm;
    uint64_t requests_max;
    int epoll;
    struct conn *conns;
    char request[8192], health_request[512];
    size_t request_len, health_request_len;
    uint64_t start_ns, count_from_ns, end_ns;
    uint64_t done, errors, events, bytes, first_error_status;
    uint32_t *latencies_ns100; /* in tenths of a microsecond */
    size_t latency_count;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Connections */

static bool conn_open(struct load *l, struct conn *c)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)l->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) {
        l->errors++;
        return false;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    return epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event) == 0;
}

static void begin(struct load *l, struct conn *c)
{
    const char *bytes = c->is_idle ? l->health_request : l->request;
    size_t len = c->is_idle ? l->health_request_len : l->request_len;
    c->reading = HEAD;
    c->head_len = 0;
    c->waiting = true;
    c->begun_ns = now_ns();
    c->counted = c->begun_ns >= l->count_from_ns;
    if (send(c->fd, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
        l->errors++; /* its reply will not come: the end counts it */
}

static void failed(struct load *l, struct conn *c)
{
    l->errors++;
    close(c->fd);
    c->waiting = false;
    if (!c->is_idle && now_ns() < l->end_ns && conn_open(l, c))
        begin(l, c);
}

static void finished(struct load *l, struct conn *c)
{
    uint64_t now = now_ns();
    c->waiting = false;
    if (c->counted) {
        l->done++;
        if (l->latency_count < LATENCIES_MAX)
            l->latencies_ns100[l->latency_count++] = (uint32_t)((now - c->begun_ns) / 100);
    }
    if (!c->is_idle && now < l->end_ns && (!l->requests_max || l->done < l->requests_max))
        begin(l, c);
    else if (l->requests_max && l->done >= l->requests_max)
        l->end_ns = now;
}

/* ---- Replies */

static bool head_ends(struct load *l, struct conn *c)
{
    c->head[c->head_len] = 0;
    unsigned long status = strtoul(c->head + 9, NULL, 10);
    if (status != 200) {
        if (!l->first_error_status)
            l->first_error_status = status;
        return false;
    }
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->left = length ? strtoul(length + 17, NULL, 10) : 0;
    c->reading = length ? LENGTH : CHUNK_SIZE;
    c->after_newline = false;
    return length || strcasestr(c->head, "chunked");
}

/* Events end with an empty line. */
static void count_events(struct load *l, struct conn *c, const char *bytes, size_t len)
{
    if (now_ns() < l->count_from_ns)
        return;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == '\n' && c->after_newline)
            l->events++;
        c->after_newline = bytes[i] == '\n';
    }
}

static size_t take(struct load *l, struct conn *c, const char *bytes, size_t len)
{
    size_t n = len < c->left ? len : c->left;
    if (c->is_stream)
        count_events(l, c, bytes, n);
    c->left -= n;
    return n;
}

static int hex(char byte)
{
    return byte >= '0' && byte <= '9'                 ? byte - '0'
           : (byte | 32) >= 'a' && (byte | 32) <= 'f' ? (byte | 32) - 'a' + 10
                                                      : -1;
}

/* One step of a reply; how many bytes it took. *end: the reply is complete; *bad: it is none that we want. */
static size_t step(struct load *l, struct conn *c, const char *bytes, size_t len, bool *end, bool *bad)
{
    size_t n = 1;
    switch (c->reading) {
    case HEAD:
        c->head[c->head_len++] = bytes[0];
        if (c->head_len + 1 == HEAD_MAX)
            *bad = true;
        else if (c->head_len > 3 && memcmp(c->head + c->head_len - 4, "\r\n\r\n", 4) == 0)
            *bad = !head_ends(l, c);
        *end = c->reading == LENGTH && c->left == 0;
        break;
    case LENGTH:
        n = take(l, c, bytes, len);
        *end = c->left == 0;
        break;
    case CHUNK_SIZE:
        if (hex(bytes[0]) >= 0)
            c->left = c->left * 16 + (size_t)hex(bytes[0]);
        else if (bytes[0] == '\n') {
            c->reading = c->left ? CHUNK : TRAILER;
            c->head_len = 0;
        }
        break;
    case CHUNK:
        n = take(l, c, bytes, len);
        if (c->left == 0)
            c->reading = CHUNK_END;
        break;
    case CHUNK_END:
        if (bytes[0] == '\n')
            c->reading = CHUNK_SIZE;
        break;
    case TRAILER:
        *end = bytes[0] == '\n';
        break;
    }
    return n;
}

static void readable(struct load *l, struct conn *c)
{
    static char bytes[READ_MAX];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        failed(l, c);
        return;
    }
    l->bytes += (uint64_t)n;
    bool end = false, bad = false;
    for (size_t at = 0; at < (size_t)n && !end && !bad;)
        at += step(l, c, bytes + at, (size_t)n - at, &end, &bad);
    if (bad)
        failed(l, c);
    else if (end)
        finished(l, c);
}

static void run_until(struct load *l, uint64_t until_ns, bool (*early)(const struct load *))
{
    struct epoll_event events[EVENTS];
    while (now_ns() < until_ns && now_ns() < l->end_ns + 60000000000u && !early(l)) {
        int n = epoll_wait(l->epoll, events, EVENTS, 50);
        for (int i = 0; i < n; i++)
            readable(l, events[i].data.ptr);
    }
}

static bool over(const struct load *l)
{
    return now_ns() >= l->end_ns;
}

static bool none_waits(const struct load *l)
{
    for (unsigned i = 0; i < l->connections; i++)
        if (l->conns[i].is_idle && l->conns[i].waiting)
            return false;
    return true;
}

/* ---- The run */

static void prepare(struct load *l)
{
    char body[2048], words[700];
    for (size_t i = 0; i < sizeof words - 1; i++)
        words[i] = i % 6 == 5 ? ' ' : 'p';
    words[sizeof words - 1] = 0;
    bool is_stream = strcmp(l->mode, "whole") != 0;
    int len = snprintf(
        body, sizeof body,
        "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
        "{\"role\":\"user\",\"content\":\"%s\"}],\"temperature\":0.7,\"max_tokens\":%d%s}",
        l->model, words, is_stream ? 100000 : 512,
        is_stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
    l->request_len = (size_t)snprintf(
        l->request, sizeof l->request,
        "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%u\r\nauthorization: Bearer %s\r\naccept: application/json\r\n"
        "user-agent: OpenAI/JS 6.49.0\r\nx-stainless-lang: js\r\nx-stainless-package-version: 6.49.0\r\n"
        "x-stainless-os: Linux\r\nx-stainless-arch: x64\r\nx-stainless-runtime: "
        "node\r\nx-stainless-retry-count: 0\r\n"
        "%scontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
        l->path, l->port, l->key, l->headers, len, body);
    l->health_request_len =
        (size_t)snprintf(l->health_request, sizeof l->health_request,
                         "GET %s HTTP/1.1\r\nhost: 127.0.0.1:%u\r\nauthorization: Bearer %s\r\n\r\n",
                         l->health, l->port, l->key);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_us(const struct load *l, double share)
{
    if (!l->latency_count)
        return 0;
    return 0.1 * l->latencies_ns100[(size_t)(share * (double)(l->latency_count - 1))];
}

static void report(struct load *l, unsigned open)
{
    double seconds = (double)(now_ns() - l->count_from_ns) * 1e-9;
    qsort(l->latencies_ns100, l->latency_count, sizeof *l->latencies_ns100, by_value);
    printf("{\"done\": %llu, \"errors\": %llu, \"error_status\": %llu, \"seconds\": %.3f, \"per_s\": %.1f, "
           "\"events\": %llu, "
           "\"bytes\": %llu, \"open\": %u, \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": "
           "%.1f}\n",
           (unsigned long long)l->done, (unsigned long long)l->errors,
           (unsigned long long)l->first_error_status, seconds, (double)l->done / seconds,
           (unsigned long long)l->events, (unsigned long long)l->bytes, open, percentile_us(l, 0.5),
           percentile_us(l, 0.9), percentile_us(l, 0.99), percentile_us(l, 1));
}

static unsigned open_all(struct load *l)
{
    bool holds = strcmp(l->mode, "hold") == 0;
    unsigned open = 0;
    for (unsigned i = 0; i < l->connections; i++) {
        struct conn *c = &l->conns[i];
        c->is_idle = holds && i >= l->streams;
        c->is_stream = !c->is_idle && strcmp(l->mode, "whole") != 0;
        if (conn_open(l, c)) {
            open++;
            if (!c->is_idle)
                begin(l, c);
        }
    }
    return open;
}

static void run(struct load *l)
{
    l->start_ns = now_ns();
    l->count_from_ns = l->start_ns + (uint64_t)(l->warm * 1e9);
    l->end_ns = l->count_from_ns + (uint64_t)(l->seconds * 1e9);
    unsigned open = open_all(l);
    if (strcmp(l->mode, "hold") == 0) /* opening thousands takes its time */
        l->end_ns = now_ns() + (uint64_t)(l->seconds * 1e9);
    run_until(l, UINT64_MAX, over);
    if (strcmp(l->mode, "hold") == 0) {
        printf("{\"open\": %u, \"errors\": %llu, \"events\": %llu, ", open, (unsigned long long)l->errors,
               (unsigned long long)l->events);
        for (unsigned i = l->streams; i < l->connections; i++)
            begin(l, &l->conns[i]);
        l->done = 0;
        run_until(l, now_ns() + 20000000000u, none_waits);
        printf("\"answered\": %llu}\n", (unsigned long long)l->done);
        return;
    }
    report(l, open);
}

static bool read_options(struct load *l, int argc, char **argv)
{
    for (int i = 2; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--port") == 0)
            l->port = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(name, "--connections") == 0)
            l->connections = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(name, "--streams") == 0)
            l->streams = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(name, "--seconds") == 0)
            l->seconds = strtod(value, NULL);
        else if (strcmp(name, "--warm") == 0)
            l->warm = strtod(value, NULL);
        else if (strcmp(name, "--requests") == 0)
            l->requests_max = strtoull(value, NULL, 10);
        else if (strcmp(name, "--model") == 0)
            l->model = value;
        else if (strcmp(name, "--key") == 0)
            l->key = value;
        else if (strcmp(name, "--path") == 0)
            l->path = value;
        else if (strcmp(name, "--health") == 0)
            l->health = value;
        else if (strcmp(name, "--headers") == 0)
            l->headers = value;
        else
            return false;
    }
    l->connections += strcmp(l->mode, "hold") == 0 ? l->streams : 0;
    return l->port && l->connections;
}

int main(int argc, char **argv)
{
    static struct load l = {.model = "bench",
                            .key = "none",
                            .path = "/v1/chat/completions",
                            .health = "/health",
                            .headers = "",
                            .connections = 1,
                            .seconds = 2};
    l.mode = argc > 1 ? argv[1] : "";
    if (!read_options(&l, argc, argv)) {
        fprintf(stderr, "bench_load: whole|stream|hold --port P ...; see the head of bench/bench_load.c\n");
        return 2;
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    l.epoll = epoll_create1(0);
    l.conns = calloc(l.connections, sizeof *l.conns);
    l.latencies_ns100 = malloc(LATENCIES_MAX * sizeof *l.latencies_ns100);
    if (l.epoll < 0 || !l.conns || !l.latencies_ns100)
        return 1;
    prepare(&l);
    run(&l);
    return 0;
}
