#include "net/redis_support.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/net_support.h"

#define WORDS_MAX 8

struct fake_connection {
    int fd;
    char *bytes;
    size_t len, cap;
};

struct words {
    char *at[WORDS_MAX];
    size_t len[WORDS_MAX];
    int count;
};

/* ---- Values */

static struct fake_value *value_of(struct fake_redis *fake, const char *name)
{
    for (size_t i = 0; i < fake->value_count; i++)
        if (strcmp(fake->values[i].name, name) == 0)
            return &fake->values[i];
    return NULL;
}

static void put(struct fake_redis *fake, const char *name, const void *bytes, size_t len, unsigned ttl_s)
{
    struct fake_value *value = value_of(fake, name);
    if (!value) {
        if (fake->value_count == FAKE_VALUES_MAX || strlen(name) >= sizeof value->name)
            abort();
        value = &fake->values[fake->value_count++];
        *value = (struct fake_value){.ttl_s = 0};
        memcpy(value->name, name, strlen(name) + 1);
    }
    free(value->bytes);
    value->bytes = malloc(len + 1);
    if (!value->bytes)
        abort();
    memcpy(value->bytes, bytes, len);
    value->len = len;
    value->ttl_s = ttl_s;
}

void fake_redis_put(struct fake_redis *fake, const char *name, const void *bytes, size_t len)
{
    uv_mutex_lock(&fake->lock);
    put(fake, name, bytes, len, 0);
    uv_mutex_unlock(&fake->lock);
}

void fake_redis_change(struct fake_redis *fake, size_t (*change)(void *ud, char *bytes, size_t len), void *ud)
{
    uv_mutex_lock(&fake->lock);
    for (size_t i = 0; i < fake->value_count; i++)
        fake->values[i].len = change(ud, fake->values[i].bytes, fake->values[i].len);
    uv_mutex_unlock(&fake->lock);
}

/* ---- Replies. false: the connection is to be closed */

static bool get(struct fake_redis *fake, int fd, const char *name, size_t last)
{
    char head[32];
    uv_mutex_lock(&fake->lock);
    const struct fake_value *value = value_of(fake, name);
    size_t len = value ? value->len : 0;
    len = len > last + 1 ? last + 1 : len;
    snprintf(head, sizeof head, "$%zu\r\n", len);
    bool sent =
        test_send_text(fd, head) && (!len || test_send(fd, value->bytes, len)) && test_send_text(fd, "\r\n");
    uv_mutex_unlock(&fake->lock);
    return sent;
}

static bool be_honest(struct fake_redis *fake, int fd, const struct words *words)
{
    if (strcmp(words->at[0], "GETRANGE") == 0)
        return get(fake, fd, words->at[1], strtoul(words->at[3], NULL, 10));
    uv_mutex_lock(&fake->lock);
    put(fake, words->at[1], words->at[2], words->len[2], (unsigned)strtoul(words->at[4], NULL, 10));
    uv_mutex_unlock(&fake->lock);
    atomic_fetch_add(&fake->sets, 1);
    return test_send_text(fd, "+OK\r\n");
}

static bool flood(int fd)
{
    static const char block[65536] = {'x'};
    bool sent = test_send_text(fd, "$2000000000\r\n");
    while (sent)
        sent = test_send(fd, block, sizeof block);
    return false;
}

static bool answer(struct fake_redis *fake, int fd, const struct words *words)
{
    static const char *const replies[FAKE_MANNERS] = {[FAKE_ERROR] = "-OOM hunter2 is what you said\r\n",
                                                      [FAKE_GARBAGE] = "HTTP/1.1 400 Bad Request\r\n\r\n",
                                                      [FAKE_HALF] = "$100\r\nhalf",
                                                      [FAKE_ARRAY] = "*1000000000\r\n",
                                                      [FAKE_NUMBER] = ":1\r\n"};
    enum fake_manner manner = (enum fake_manner)atomic_load(&fake->manner);
    atomic_fetch_add(&fake->gets, strcmp(words->at[0], "GETRANGE") == 0);
    if (manner == FAKE_HONEST)
        return be_honest(fake, fd, words);
    if (manner == FAKE_TWICE)
        return be_honest(fake, fd, words) && be_honest(fake, fd, words);
    if (manner == FAKE_ENDLESS)
        return flood(fd);
    if (!replies[manner])
        return manner != FAKE_CUT;
    return test_send_text(fd, replies[manner]) && manner != FAKE_HALF;
}

static bool greet(struct fake_redis *fake, int fd, const struct words *words)
{
    enum fake_manner manner = (enum fake_manner)atomic_load(&fake->manner);
    size_t used = strlen(fake->login);
    for (int i = 0; i < words->count && strcmp(words->at[0], "PING") != 0; i++)
        used += (size_t)snprintf(fake->login + used, sizeof fake->login - used, "%s ", words->at[i]);
    atomic_fetch_add(&fake->hellos, strcmp(words->at[0], "PING") == 0);
    if (manner == FAKE_DEAF)
        return true;
    return test_send_text(fd, manner == FAKE_LOADING ? "-LOADING hunter2\r\n" : "+OK\r\n");
}

static bool obey(struct fake_redis *fake, int fd, const struct words *words)
{
    bool is_hello = strcmp(words->at[0], "GETRANGE") != 0 && strcmp(words->at[0], "SET") != 0;
    return is_hello ? greet(fake, fd, words) : answer(fake, fd, words);
}

/* ---- Commands. One at the front of the bytes, its words ended by a zero; 0: not all of it is there */

static size_t read_number(const char *bytes, size_t len, size_t at, char mark, size_t *out)
{
    const char *end = at < len ? memchr(bytes + at, '\n', len - at) : NULL;
    if (!end)
        return 0;
    if (bytes[at] != mark)
        abort();
    *out = strtoul(bytes + at + 1, NULL, 10);
    return (size_t)(end + 1 - bytes);
}

static size_t read_command(char *bytes, size_t len, struct words *out)
{
    size_t count, at = read_number(bytes, len, 0, '*', &count);
    if (!at || count > WORDS_MAX)
        return 0;
    out->count = (int)count;
    for (size_t i = 0; i < count; i++) {
        at = read_number(bytes, len, at, '$', &out->len[i]);
        if (!at || at + out->len[i] + 2 > len)
            return 0;
        out->at[i] = bytes + at;
        at += out->len[i] + 2;
    }
    for (size_t i = 0; i < count; i++)
        out->at[i][out->len[i]] = 0;
    return at;
}

static bool take_commands(struct fake_redis *fake, struct fake_connection *c)
{
    struct words words;
    for (size_t used; (used = read_command(c->bytes, c->len, &words)) != 0;) {
        if (!obey(fake, c->fd, &words))
            return false;
        memmove(c->bytes, c->bytes + used, c->len - used);
        c->len -= used;
    }
    return true;
}

static bool read_more(struct fake_redis *fake, struct fake_connection *c)
{
    if (c->len == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 65536;
        c->bytes = realloc(c->bytes, c->cap);
        if (!c->bytes)
            abort();
    }
    ssize_t n = recv(c->fd, c->bytes + c->len, c->cap - c->len, 0);
    if (n <= 0)
        return false;
    c->len += (size_t)n;
    return take_commands(fake, c);
}

/* ---- The thread */

static void close_connection(struct fake_connection **c)
{
    if (!*c)
        return;
    close((*c)->fd);
    free((*c)->bytes);
    free(*c);
    *c = NULL;
}

static void take_connection(struct fake_redis *fake)
{
    int fd = accept(fake->listener, NULL, NULL), on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a reply is several writes */
    for (size_t i = 0; i < FAKE_CONNECTIONS_MAX && fd >= 0; i++)
        if (!fake->connections[i]) {
            fake->connections[i] = calloc(1, sizeof *fake->connections[i]);
            if (!fake->connections[i])
                abort();
            fake->connections[i]->fd = fd;
            atomic_fetch_add(&fake->connects, 1);
            return;
        }
    abort();
}

static void look(struct fake_redis *fake)
{
    struct pollfd fds[FAKE_CONNECTIONS_MAX + 2];
    for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++)
        fds[i] =
            (struct pollfd){.fd = fake->connections[i] ? fake->connections[i]->fd : -1, .events = POLLIN};
    fds[FAKE_CONNECTIONS_MAX] = (struct pollfd){.fd = fake->listener, .events = POLLIN};
    fds[FAKE_CONNECTIONS_MAX + 1] = (struct pollfd){.fd = fake->wake[0], .events = POLLIN};
    char byte;
    if (poll(fds, FAKE_CONNECTIONS_MAX + 2, -1) <= 0)
        return;
    for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++)
        if (fds[i].revents && !read_more(fake, fake->connections[i]))
            close_connection(&fake->connections[i]);
    if (fds[FAKE_CONNECTIONS_MAX].revents)
        take_connection(fake);
    if (fds[FAKE_CONNECTIONS_MAX + 1].revents && read(fake->wake[0], &byte, 1) == 1)
        for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++)
            close_connection(&fake->connections[i]);
}

static void run(void *ud)
{
    struct fake_redis *fake = ud;
    while (!atomic_load(&fake->ends))
        look(fake);
}

void fake_redis_start(struct fake_redis *fake, enum fake_manner manner)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    memset(fake, 0, sizeof *fake);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fake->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (fake->listener < 0 || bind(fake->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fake->listener, 16) != 0 ||
        getsockname(fake->listener, (struct sockaddr *)&address, &len) != 0 || pipe(fake->wake) != 0 ||
        uv_mutex_init(&fake->lock) != 0)
        abort();
    fake->port = ntohs(address.sin_port);
    atomic_store(&fake->manner, (int)manner);
    if (uv_thread_create(&fake->thread, run, fake) != 0)
        abort();
}

void fake_redis_behave(struct fake_redis *fake, enum fake_manner manner)
{
    atomic_store(&fake->manner, (int)manner);
}

void fake_redis_drop(struct fake_redis *fake)
{
    if (write(fake->wake[1], "x", 1) != 1)
        abort();
}

void fake_redis_stop(struct fake_redis *fake)
{
    atomic_store(&fake->ends, true);
    fake_redis_drop(fake);
    uv_thread_join(&fake->thread);
    for (size_t i = 0; i < FAKE_CONNECTIONS_MAX; i++)
        close_connection(&fake->connections[i]);
    for (size_t i = 0; i < fake->value_count; i++)
        free(fake->values[i].bytes);
    close(fake->listener);
    close(fake->wake[0]);
    close(fake->wake[1]);
    uv_mutex_destroy(&fake->lock);
}
