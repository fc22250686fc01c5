/* A Redis client for a cache: one connection, and nobody who waits for it.
 *
 * The protocol (RESP 2) is hiredis's: it formats commands and reads replies. The socket is ours, because
 * hiredis's own connections look names up while the loop stands still, are inherited by child processes, and
 * take in whatever a server sends. Here the way is the HTTP client's (net_dial.c), and what is read has a
 * limit: arrays and what is longer than a value may be end the connection. So that an honest server never
 * sends such a thing, a value is asked for by GETRANGE, up to one byte more than it may have.
 *
 * States: RESTING (until the next try) -> CONNECTING -> GREETING (password, database, PING) -> READY;
 * whatever goes wrong leads back to RESTING, twice as long as before unless the connection had held for
 * REDIS_STEADY_MS.
 *
 * Replies come in the order of the commands, so those that wait are a ring; a ticket is a command's number.
 * Three time limits, all kept by one timer:
 *  - a look-up's own: it hears "not there", its reply is dropped when it comes;
 *  - while the oldest command is older than late_ms, nothing new is sent: its reply could only come later
 *    still. So a server that hangs costs those few requests their time that asked before it was noticed;
 *  - a connection that owes a reply for REDIS_REPLY_TIMEOUT_MS is given up.
 *
 * Invariants:
 *  R1  `dial` is there in CONNECTING only, `link` in GREETING and READY; a link that was left has no client.
 *  R2  ring entries first_ticket .. first_ticket + waiting - 1 are those sent and not replied to.
 *
 * An error reply is logged by its first word: the rest may repeat what was sent, a password too. */
#include <stdio.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/net_dial_int.h"

#define READ_BYTES ((size_t)64 << 10)
#define LINE_BYTES_MAX 512 /* an error, a status, a number */
#define ARGUMENTS_MAX 5
#define WORD_MAX 24

enum redis_state { RESTING, CONNECTING, GREETING, READY };

enum command { AUTH, SELECT, PING, GET, SET };
static const char *const command_names[] = {"AUTH", "SELECT", "PING", "GETRANGE", "SET"};

struct waiting {
    enum command command;
    uint64_t sent_ns, deadline_ns;                          /* deadline: of a look-up */
    void (*found)(void *ud, const char *bytes, size_t len); /* NULL: nobody waits any more */
    void *ud;
};

/* A socket and what outlives its client. */
struct link {
    uv_tcp_t *tcp;
    struct redis_client *client; /* NULL: it was left */
};

struct sending {
    uv_write_t request;
    char *command; /* hiredis's */
};

struct redis_client {
    struct redis_params params; /* strings are owned */
    struct net_timer *timer;
    enum redis_state state;
    struct link *link;
    struct net_names *names;
    struct net_dial *dial;
    redisReader *reader;
    int reply_type;   /* of the last reply */
    struct buf reply; /* its text */
    struct waiting ring[REDIS_WAITING_MAX];
    uint64_t first_ticket; /* never 0 */
    size_t waiting;
    uint64_t due_ns; /* RESTING: the next try; READY: steady since; else: this must have happened */
    uint64_t rest_ms;
    char last_byte[24]; /* what is asked for of a value: one byte more than may be */
    bool is_steady;
    bool has_told_gone;
    unsigned told_refused;     /* commands whose refusal was logged, as bits; since it came back */
    bool is_inside, is_closed; /* closed inside of a callback: it goes afterwards */
    struct redis_stats stats;
    char input[READ_BYTES];
};

static void schedule(struct redis_client *client);
static void fail(struct redis_client *client, const char *why);

static uint64_t now_ns(const struct redis_client *client)
{
    return clock_monotonic_ns(client->params.clock);
}

static uint64_t ns_of(uint64_t ms)
{
    return ms * 1000000;
}

/* Every callback of the loop begins and ends so. Closed in between, the client goes at the end. */
static void enter(struct redis_client *client)
{
    client->is_inside = true;
}

static void leave(struct redis_client *client)
{
    client->is_inside = false;
    if (client->is_closed)
        redis_client_close(client);
    else
        schedule(client);
}

static struct waiting *waiting_at(struct redis_client *client, size_t i)
{
    return &client->ring[(client->first_ticket + i) % REDIS_WAITING_MAX];
}

/* ---- Replies, as hiredis's reader finds them. It shows a text in its own buffer, which it may move before
 * it returns: so the text is copied at once. */

static void *keep_text(const redisReadTask *task, char *text, size_t len)
{
    struct redis_client *client = task->privdata;
    client->reply_type = task->type;
    buf_clear(&client->reply);
    buf_append(&client->reply, text, len);
    return client;
}

static void *refuse_array(const redisReadTask *task, int count)
{
    (void)task, (void)count;
    return NULL; /* the reader fails: nothing that is asked here has such a reply */
}

static void *keep_number(const redisReadTask *task, long long number)
{
    (void)number;
    return keep_text(task, NULL, 0);
}

static void *keep_nil(const redisReadTask *task)
{
    return keep_text(task, NULL, 0);
}

static void free_nothing(void *reply)
{
    (void)reply;
}

/* The first word of an error, in capitals as Redis has them: WRONGPASS, LOADING, OOM. */
static void error_word(const struct redis_client *client, char out[WORD_MAX])
{
    size_t len = 0;
    const struct buf *text = &client->reply;
    while (len < text->len && len < WORD_MAX - 1 && text->data[len] >= 'A' && text->data[len] <= 'Z') {
        out[len] = text->data[len];
        len++;
    }
    out[len] = 0;
    if (!len)
        snprintf(out, WORD_MAX, "an error");
}

static void tell_refused(struct redis_client *client, enum command command)
{
    char word[WORD_MAX];
    client->stats.refusals++;
    if (client->told_refused & 1u << command)
        return;
    client->told_refused |= 1u << command;
    error_word(client, word);
    log_warn("redis", "%s:%u answers %s with %s", client->params.host, (unsigned)client->params.port,
             command_names[command], word);
}

static void become_ready(struct redis_client *client)
{
    client->state = READY;
    client->is_steady = false;
    client->due_ns = now_ns(client) + ns_of(REDIS_STEADY_MS);
    client->stats.is_ready = true;
    if (!client->stats.connects++)
        log_info("redis", "connected to %s:%u", client->params.host, (unsigned)client->params.port);
}

static void greeted(struct redis_client *client, enum command command)
{
    if (client->reply_type == REDIS_REPLY_ERROR) {
        char word[WORD_MAX], why[80];
        client->stats.refusals++;
        error_word(client, word);
        snprintf(why, sizeof why, "it answers %s with %s", command_names[command], word);
        fail(client, why);
    } else if (command == PING) {
        become_ready(client);
    }
}

static void take_reply(struct redis_client *client)
{
    if (!client->waiting) {
        fail(client, "it sends what nobody asked for");
        return;
    }
    struct waiting done = *waiting_at(client, 0);
    bool is_error = client->reply_type == REDIS_REPLY_ERROR;
    client->first_ticket++;
    client->waiting--;
    if (done.command < GET) {
        greeted(client, done.command);
        return;
    }
    if (is_error)
        tell_refused(client, done.command);
    client->stats.stored += done.command == SET && !is_error;
    bool is_there = client->reply_type == REDIS_REPLY_STRING && buf_status(&client->reply) == PH_OK &&
                    client->reply.len > 0 && client->reply.len <= client->params.value_bytes_max;
    if (done.found)
        done.found(done.ud, is_there ? client->reply.data : NULL, is_there ? client->reply.len : 0);
}

/* ---- Sending */

static void on_sent(uv_write_t *request, int status)
{
    struct sending *sending = request->data;
    struct link *link = (struct link *)request->handle->data;
    redisFreeCommand(sending->command);
    mem_free(sending);
    if (status == 0 || !link->client)
        return;
    struct redis_client *client = link->client;
    enter(client);
    fail(client, uv_strerror(status));
    leave(client);
}

/* false: no memory, or no connection any more. */
static bool send_command(struct redis_client *client, enum command command, int count,
                         const char *const arguments[ARGUMENTS_MAX], const size_t lengths[ARGUMENTS_MAX])
{
    struct sending *sending = mem_alloc(sizeof *sending);
    if (!sending)
        return false;
    int len = redisFormatCommandArgv(&sending->command, count, (const char **)arguments, lengths);
    if (len <= 0) {
        mem_free(sending);
        return false;
    }
    uv_buf_t bytes = uv_buf_init(sending->command, (unsigned)len);
    sending->request.data = sending;
    if (uv_write(&sending->request, (uv_stream_t *)client->link->tcp, &bytes, 1, on_sent) != 0) {
        redisFreeCommand(sending->command);
        mem_free(sending);
        return false;
    }
    *waiting_at(client, client->waiting++) = (struct waiting){.command = command, .sent_ns = now_ns(client)};
    return true;
}

static bool send_texts(struct redis_client *client, enum command command, const char *const *words, int count)
{
    const char *arguments[ARGUMENTS_MAX] = {command_names[command]};
    size_t lengths[ARGUMENTS_MAX] = {strlen(command_names[command])};
    for (int i = 0; i < count; i++) {
        arguments[i + 1] = words[i];
        lengths[i + 1] = strlen(words[i]);
    }
    return send_command(client, command, count + 1, arguments, lengths);
}

/* Nothing new goes out behind a reply that is late, or when much waits already. */
static bool may_send(struct redis_client *client, size_t len)
{
    bool may =
        client->state == READY && client->waiting < REDIS_WAITING_MAX &&
        uv_stream_get_write_queue_size((uv_stream_t *)client->link->tcp) + len <= REDIS_QUEUE_BYTES_MAX &&
        (!client->waiting || now_ns(client) - waiting_at(client, 0)->sent_ns < ns_of(client->params.late_ms));
    client->stats.skipped += !may;
    return may;
}

uint64_t redis_client_get(struct redis_client *client, const char *key, uint32_t timeout_ms,
                          void (*found)(void *ud, const char *bytes, size_t len), void *ud)
{
    const char *const words[] = {key, "0", client->last_byte};
    if (!may_send(client, 0) || !send_texts(client, GET, words, 3))
        return 0;
    struct waiting *waiting = waiting_at(client, client->waiting - 1);
    waiting->found = found;
    waiting->ud = ud;
    waiting->deadline_ns = waiting->sent_ns + ns_of(timeout_ms);
    schedule(client);
    return client->first_ticket + client->waiting - 1;
}

void redis_client_cancel(struct redis_client *client, uint64_t ticket)
{
    if (ticket - client->first_ticket < client->waiting)
        client->ring[ticket % REDIS_WAITING_MAX].found = NULL;
}

bool redis_client_set(struct redis_client *client, const char *key, const void *bytes, size_t len,
                      uint32_t ttl_s)
{
    char seconds[16];
    if (len > client->params.value_bytes_max || !may_send(client, len))
        return false;
    int digits = snprintf(seconds, sizeof seconds, "%u", (unsigned)ttl_s);
    const char *const arguments[ARGUMENTS_MAX] = {"SET", key, bytes, "EX", seconds};
    const size_t lengths[ARGUMENTS_MAX] = {3, strlen(key), len, 2, (size_t)digits};
    bool sent = send_command(client, SET, ARGUMENTS_MAX, arguments, lengths);
    schedule(client);
    return sent;
}

/* ---- The end of a connection */

static void free_link(uv_handle_t *handle)
{
    struct link *link = handle->data;
    mem_free(link->tcp);
    mem_free(link);
}

static void leave_link(struct redis_client *client)
{
    net_dial_cancel(client->dial);
    client->dial = NULL;
    if (client->link) {
        client->link->client = NULL;
        uv_close((uv_handle_t *)client->link->tcp, free_link);
    }
    client->link = NULL;
    if (client->reader)
        redisReaderFree(client->reader);
    client->reader = NULL;
}

/* Everybody who waits goes on without. */
static void release_waiting(struct redis_client *client)
{
    size_t count = client->waiting;
    for (; count; count--) {
        struct waiting one = *waiting_at(client, 0);
        client->first_ticket++;
        client->waiting--;
        if (one.found)
            one.found(one.ud, NULL, 0);
    }
}

static void fail(struct redis_client *client, const char *why)
{
    if (client->state == RESTING)
        return;
    leave_link(client);
    client->stats.failures++;
    client->stats.is_ready = false;
    client->rest_ms = client->is_steady || !client->rest_ms ? REDIS_RETRY_MS : 2 * client->rest_ms;
    if (client->rest_ms > REDIS_RETRY_MAX_MS)
        client->rest_ms = REDIS_RETRY_MAX_MS;
    client->is_steady = false;
    client->state = RESTING;
    client->due_ns = now_ns(client) + ns_of(client->rest_ms);
    if (!client->has_told_gone)
        log_warn("redis", "%s:%u is not to be had (%s); trying again until it is", client->params.host,
                 (unsigned)client->params.port, why);
    client->has_told_gone = true;
    release_waiting(client);
}

/* ---- Reading */

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *out)
{
    struct link *link = handle->data;
    (void)wanted;
    *out = link->client ? uv_buf_init(link->client->input, (unsigned)READ_BYTES) : uv_buf_init(NULL, 0);
}

static void take_input(struct redis_client *client, size_t len)
{
    struct link *link = client->link;
    void *found = NULL;
    if (redisReaderFeed(client->reader, client->input, len) != REDIS_OK) {
        fail(client, "no memory for its replies");
        return;
    }
    while (client->link == link) {
        if (redisReaderGetReply(client->reader, &found) != REDIS_OK) {
            fail(client, "it does not speak as Redis does");
            return;
        }
        if (!found)
            break;
        take_reply(client);
    }
    if (client->link == link && client->reader->len > client->params.value_bytes_max + READ_BYTES)
        fail(client, "a reply is too long");
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *bytes)
{
    struct link *link = stream->data;
    struct redis_client *client = link->client;
    (void)bytes;
    if (!client || count == 0)
        return;
    enter(client);
    if (count > 0)
        take_input(client, (size_t)count);
    else
        fail(client, count == UV_EOF ? "it closed the connection" : uv_strerror((int)count));
    leave(client);
}

/* ---- Connecting */

static void greet(struct redis_client *client)
{
    static redisReplyObjectFunctions functions = {keep_text, refuse_array, keep_number, keep_nil,
                                                  free_nothing};
    const struct redis_params *params = &client->params;
    char database[16];
    client->reader = redisReaderCreateWithFunctions(&functions);
    if (!client->reader) {
        fail(client, "no memory");
        return;
    }
    client->reader->privdata = client;
    client->state = GREETING;
    snprintf(database, sizeof database, "%u", params->database);
    const char *const login[] = {params->user, params->password}, *const select[] = {database};
    bool sent =
        !params->password || send_texts(client, AUTH, login + !params->user, 1 + (params->user != NULL));
    sent = sent && (!params->database || send_texts(client, SELECT, select, 1));
    if (!sent || !send_texts(client, PING, NULL, 0))
        fail(client, "nothing can be sent to it");
}

static void free_tcp(uv_handle_t *handle)
{
    mem_free(handle);
}

static bool take_link(struct redis_client *client, uv_tcp_t *tcp)
{
    struct link *link = mem_alloc(sizeof *link);
    if (!link) {
        uv_close((uv_handle_t *)tcp, free_tcp);
        return false;
    }
    *link = (struct link){.tcp = tcp, .client = client};
    tcp->data = link;
    client->link = link;
    return true;
}

static void on_dialled(void *ud, enum net_dial_end how, uv_tcp_t *tcp, const char *why)
{
    struct redis_client *client = ud;
    enter(client);
    client->dial = NULL;
    if (how != NET_DIAL_DONE) {
        fail(client, why);
    } else if (!take_link(client, tcp)) {
        fail(client, "no memory");
    } else {
        int rc = uv_read_start((uv_stream_t *)tcp, on_alloc, on_read);
        if (rc == 0)
            greet(client);
        else
            fail(client, uv_strerror(rc));
    }
    leave(client);
}

static void begin(struct redis_client *client)
{
    const struct redis_params *params = &client->params;
    client->due_ns = now_ns(client) + ns_of(REDIS_CONNECT_TIMEOUT_MS);
    client->state = CONNECTING;
    client->dial =
        net_dial_start(params->loop, client->names, params->host, params->port, on_dialled, client);
    if (!client->dial)
        fail(client, "no memory");
}

/* ---- Time */

static void release_late(struct redis_client *client, uint64_t now)
{
    for (size_t i = 0; i < client->waiting; i++) {
        struct waiting *one = waiting_at(client, i);
        if (!one->found || one->deadline_ns > now)
            continue;
        void (*found)(void *ud, const char *bytes, size_t len) = one->found;
        one->found = NULL;
        client->stats.late++;
        found(one->ud, NULL, 0);
    }
}

static void on_timer(void *ud)
{
    struct redis_client *client = ud;
    uint64_t now = now_ns(client);
    enter(client);
    release_late(client, now);
    if (client->state == RESTING) {
        if (now >= client->due_ns)
            begin(client);
    } else if (client->state != READY) {
        if (now >= client->due_ns)
            fail(client, "it does not answer");
    } else if (client->waiting && now >= waiting_at(client, 0)->sent_ns + ns_of(REDIS_REPLY_TIMEOUT_MS)) {
        fail(client, "it does not answer any more");
    } else if (!client->is_steady && now >= client->due_ns) {
        client->is_steady = true;
        if (client->has_told_gone)
            log_info("redis", "%s:%u is back", client->params.host, (unsigned)client->params.port);
        if (client->has_told_gone)
            client->told_refused = 0;
        client->has_told_gone = false;
    }
    leave(client);
}

static void earlier(uint64_t *due, uint64_t other)
{
    if (other < *due)
        *due = other;
}

static void schedule(struct redis_client *client)
{
    uint64_t due = UINT64_MAX, now = now_ns(client);
    if (client->is_closed || client->is_inside)
        return; /* leave() sees to it */
    if (client->state != READY || !client->is_steady)
        due = client->due_ns;
    if (client->state == READY && client->waiting)
        earlier(&due, waiting_at(client, 0)->sent_ns + ns_of(REDIS_REPLY_TIMEOUT_MS));
    for (size_t i = 0; i < client->waiting; i++)
        if (waiting_at(client, i)->found)
            earlier(&due, waiting_at(client, i)->deadline_ns);
    if (due == UINT64_MAX)
        net_timer_stop(client->timer);
    else
        net_timer_start(client->timer, due > now ? (due - now) / 1000000 + 1 : 0, 0);
}

/* ---- Life */

static void free_client(struct redis_client *client)
{
    net_names_close(client->names);
    buf_release(&client->reply);
    mem_free((char *)client->params.host);
    mem_free((char *)client->params.user);
    mem_free((char *)client->params.password);
    mem_free(client);
}

/* NULL stays NULL; false: no memory. */
static bool own(const char **text)
{
    const char *given = *text;
    *text = given ? mem_strdup(given) : NULL;
    return !given || *text;
}

enum ph_status redis_client_open(struct redis_client **out, const struct redis_params *params)
{
    struct redis_client *client = mem_calloc(1, sizeof *client);
    *out = NULL;
    if (!client)
        return PH_ERR_NOMEM;
    client->params = *params;
    client->first_ticket = 1;
    snprintf(client->last_byte, sizeof client->last_byte, "%zu", params->value_bytes_max);
    buf_init(&client->reply, params->value_bytes_max + LINE_BYTES_MAX);
    bool ok = own(&client->params.host);
    ok = own(&client->params.user) && ok;
    ok = own(&client->params.password) && ok;
    client->names = ok ? net_names_open(params->loop) : NULL;
    if (!client->names || net_timer_open(&client->timer, params->loop, on_timer, client) != PH_OK) {
        free_client(client);
        return PH_ERR_NOMEM;
    }
    schedule(client); /* RESTING, due at once */
    *out = client;
    return PH_OK;
}

void redis_client_close(struct redis_client *client)
{
    if (!client)
        return;
    for (size_t i = 0; i < client->waiting; i++)
        waiting_at(client, i)->found = NULL;
    client->is_closed = true;
    if (client->is_inside)
        return;
    leave_link(client);
    net_timer_close(client->timer);
    free_client(client);
}

void redis_client_stats(const struct redis_client *client, struct redis_stats *out)
{
    *out = client->stats;
}
