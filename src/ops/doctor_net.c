/* Checks that need the network: whether the port can be had, and whether providers answer. All questions go
 * out together, and none waits longer than DEADLINE_MS. */
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "net/net.h"
#include "ops/doctor_int.h"

#define DEADLINE_MS 4000
#define REPLY_BYTES_MAX ((size_t)64 << 10)
#define WORDS_BYTES 240
#define URL_BYTES 1024
#define ASKS_MAX 64

struct ask {
    struct asks *all;
    char url[URL_BYTES];
    struct buf reply;
    int status;
    bool has_our_id; /* x-request-id as a station gives it */
    enum http_call_end how;
    char why[WORDS_BYTES];
};
struct asks {
    struct net_loop *loop;
    struct http_client *client;
    size_t left;
};

static void on_head(void *ud, int status, const struct http_header *headers, size_t header_count)
{
    struct ask *ask = ud;
    const char *id = http_header_find(headers, header_count, "x-request-id");
    ask->status = status;
    ask->has_our_id = id && strncmp(id, "req-", 4) == 0;
}

static bool on_body(void *ud, const char *bytes, size_t len)
{
    buf_append(&((struct ask *)ud)->reply, bytes, len);
    return true;
}

static void leave(struct asks *all)
{
    if (--all->left)
        return;
    http_client_close(all->client);
    net_loop_stop(all->loop);
}

static void on_end(void *ud, enum http_call_end how, const char *message)
{
    struct ask *ask = ud;
    ask->how = how;
    snprintf(ask->why, sizeof ask->why, "%s", message);
    leave(ask->all);
}

static bool start(struct ask *ask, const struct http_header *headers, size_t header_count)
{
    struct http_call *call;
    struct ph_err err;
    const struct http_call_params params = {.method = "GET",
                                            .url = ask->url,
                                            .headers = headers,
                                            .header_count = header_count,
                                            .connect_timeout_ms = DEADLINE_MS,
                                            .total_timeout_ms = DEADLINE_MS,
                                            .body_bytes_max = REPLY_BYTES_MAX};
    const struct http_call_sink sink = {on_head, on_body, on_end, ask};
    if (http_call_start(&call, ask->all->client, &params, &sink, &err) == PH_OK)
        return true;
    snprintf(ask->why, sizeof ask->why, "%.200s", err.message);
    return false;
}

/* `providers` NULL: no headers. */
static enum ph_status ask_all(const struct doctor_subject *subject, struct ask *asks, size_t count,
                              const struct doctor_provider *providers, struct ph_err *err)
{
    struct asks all = {.left = count + 1};
    enum ph_status status = net_loop_create(&all.loop, err);
    if (status != PH_OK)
        return status;
    const struct http_client_params params = {.loop = all.loop,
                                              .clock = subject->clock,
                                              .ca_file = subject->ca_file,
                                              .user_agent = "pharos-doctor"};
    status = http_client_open(&all.client, &params, err);
    for (size_t i = 0; status == PH_OK && i < count; i++) {
        asks[i].all = &all;
        asks[i].how = HTTP_CALL_FAILED;
        buf_init(&asks[i].reply, REPLY_BYTES_MAX);
        if (!start(&asks[i], providers ? providers[i].headers : NULL,
                   providers ? providers[i].header_count : 0))
            all.left--;
    }
    if (status == PH_OK) {
        leave(&all);
        net_loop_run(all.loop);
    }
    net_loop_free(all.loop);
    return status;
}

/* ---- The port */

static void no_handle(void *ud, struct http_exchange *exchange)
{
    (void)ud;
    http_reply(exchange, 503, "text/plain", "", 0);
}

static void no_error(void *ud, int status, const char *message, struct buf *out)
{
    (void)ud;
    (void)status;
    (void)message;
    (void)out;
}

static void on_stopped(void *ud)
{
    net_loop_stop(ud);
}

/* Whether the address can be listened on: it is tried, as the station would. */
static enum ph_status try_address(const struct doctor_subject *subject, struct ph_err *err)
{
    struct net_loop *loop;
    struct http_server *server = NULL;
    enum ph_status status = net_loop_create(&loop, err);
    if (status != PH_OK)
        return status;
    struct http_server_params params = {.host = subject->host,
                                        .port = subject->port,
                                        .clock = subject->clock,
                                        .handle = no_handle,
                                        .encode_error = no_error};
    http_limits_default(&params.limits);
    status = http_server_open(&server, loop, &params, err);
    if (status == PH_OK)
        http_server_stop(server, on_stopped, loop);
    else
        net_loop_stop(loop);
    net_loop_run(loop);
    net_loop_free(loop);
    return status;
}

static bool is_station(const struct ask *ask, char version[32])
{
    struct arena arena;
    struct json *body = NULL;
    arena_init(&arena, REPLY_BYTES_MAX * 32);
    bool is = ask->how == HTTP_CALL_WHOLE && ask->has_our_id && ask->reply.data &&
              json_parse(&arena, ask->reply.data, ask->reply.len, &body, NULL) == PH_OK &&
              json_text_is(json_get(body, "status"), "ok") && json_text(json_get(body, "version"), NULL);
    if (is)
        snprintf(version, 32, "%s", json_text(json_get(body, "version"), ""));
    arena_release(&arena);
    return is;
}

void doctor_port(struct doctor *doctor)
{
    const struct doctor_subject *subject = doctor->subject;
    bool everywhere = strcmp(subject->host, "0.0.0.0") == 0 || strcmp(subject->host, "::") == 0;
    const char *host = everywhere ? "127.0.0.1" : subject->host;
    bool is_six = strchr(host, ':') != NULL;
    struct ask ask = {.status = 0};
    struct ph_err err;
    char version[32];
    enum ph_status taken = try_address(subject, &err);
    if (taken == PH_OK) {
        if (subject->port)
            doctor_say(doctor, DOCTOR_OK, "", "%s port %u is free", subject->host, (unsigned)subject->port);
        else
            doctor_say(doctor, DOCTOR_OK, "", "%s can be listened on", subject->host);
        return;
    }
    snprintf(ask.url, sizeof ask.url, "%s://%s%.200s%s:%u/health", subject->tls ? "https" : "http",
             is_six ? "[" : "", host, is_six ? "]" : "", (unsigned)subject->port);
    struct ph_err ignored;
    if (ask_all(subject, &ask, 1, NULL, &ignored) == PH_OK && is_station(&ask, version))
        doctor_say(doctor, DOCTOR_OK, "", "a station (%s) answers on %s port %u", version, subject->host,
                   (unsigned)subject->port);
    else
        doctor_say(doctor, DOCTOR_FAIL,
                   ask.how == HTTP_CALL_WHOLE
                       ? "another program has it: stop that, or choose another with listen:"
                       : "choose another address with listen: HOST:PORT",
                   "%s", err.message);
    buf_release(&ask.reply);
}

/* ---- Providers */

static void judge(struct doctor *doctor, const struct doctor_provider *provider, const struct ask *ask)
{
    static const struct {
        enum http_call_end how;
        const char *advice;
    } advices[] = {
        {HTTP_CALL_NO_NAME, "is base_url right, and can this machine look up names?"},
        {HTTP_CALL_NO_CONNECTION, "is it running, and does a firewall or a proxy stand between?"},
        {HTTP_CALL_TLS, "is the clock right, and is its certificate known here (ca_file)?"},
        {HTTP_CALL_TIMEOUT_CONNECT, "does a firewall or a proxy stand between?"},
    };
    const char *advice = "look at its status page; try again later";
    if (ask->how != HTTP_CALL_WHOLE && ask->how != HTTP_CALL_TOO_LARGE) {
        for (size_t i = 0; i < sizeof advices / sizeof *advices; i++)
            if (advices[i].how == ask->how)
                advice = advices[i].advice;
        doctor_say(doctor, DOCTOR_FAIL, advice, "%s: %s: %s", provider->name, provider->url, ask->why);
    } else if (provider->header_count && (ask->status == 401 || ask->status == 403)) {
        doctor_say(doctor, DOCTOR_FAIL, "put a valid key where the configuration says",
                   "%s refuses the key (%d)", provider->name, ask->status);
    } else if (ask->status >= 500) {
        doctor_say(doctor, DOCTOR_WARN, advice, "%s answers with status %d", provider->name, ask->status);
    } else {
        doctor_say(doctor, DOCTOR_OK, "", "%s %s", provider->name,
                   !provider->header_count ? "can be reached (no key was sent)"
                   : ask->status == 200    ? "takes the key"
                                           : "can be reached; it does not say whether it takes the key");
    }
}

void doctor_providers(struct doctor *doctor)
{
    const struct doctor_subject *subject = doctor->subject;
    static const char models[] = "/models";
    size_t count = subject->provider_count < ASKS_MAX ? subject->provider_count : ASKS_MAX;
    struct arena arena;
    struct ph_err err;
    if (count == 0) {
        doctor_say(doctor, DOCTOR_SKIP, "", "no provider is configured");
        return;
    }
    arena_init(&arena, ASKS_MAX * 2 * sizeof(struct ask));
    struct ask *asks = arena_calloc(&arena, count, sizeof *asks);
    for (size_t i = 0; asks && i < count; i++)
        snprintf(asks[i].url, sizeof asks[i].url, "%.*s%s", URL_BYTES - (int)sizeof models,
                 subject->providers[i].url, models);
    enum ph_status status = asks ? ask_all(subject, asks, count, subject->providers, &err)
                                 : ph_fail(&err, PH_ERR_NOMEM, "no memory to ask providers");
    for (size_t i = 0; status == PH_OK && i < count; i++)
        judge(doctor, &subject->providers[i], &asks[i]);
    for (size_t i = 0; asks && i < count; i++)
        buf_release(&asks[i].reply);
    arena_release(&arena);
    if (status != PH_OK)
        doctor_say(doctor, DOCTOR_SKIP, "", "%s", err.message);
    if (count < subject->provider_count)
        doctor_say(doctor, DOCTOR_SKIP, "", "%zu more providers were not asked",
                   subject->provider_count - count);
}
