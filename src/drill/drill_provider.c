/* The provider: an HTTP server on loopback whose addresses are faults.
 *
 *   POST /<api>/<fault>/<path of the API>     fault "ok": none
 *
 * A stream's tokens go out first; the fault follows PAUSE_MS later, so that it falls into a stream that has
 * begun and not into its beginning. What is held (hang, stall, endless) is held until its client goes, which
 * a caller with time limits does.
 *
 * A speech lives in its exchange's arena and ends it once: by a reply, an end, an abort, or when its client
 * has gone. */
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/id.h"
#include "base/mem.h"
#include "drill/drill_int.h"

#define PAUSE_MS 30
#define STOP_GRACE_MS 100
#define WORDS_BYTES_MAX ((size_t)1 << 20)
#define ENDLESS_PIECE 131072
#define ENDLESS_EVERY_MS 1
#define RETRY_AFTER_S "1"
#define STREAM_TYPE "text/event-stream; charset=utf-8"
#define JSON_TYPE "application/json"
#define HTML_TYPE "text/html"

struct drill_provider {
    struct net_loop *loop;
    struct http_server *server;
    uint16_t closed_port; /* nobody listens there */
    uint64_t requests;
    char key[DRILL_KEY_MAX];
    void (*stopped)(void *ud);
    void *stopped_ud;
};

struct speech {
    struct drill_provider *provider;
    struct http_exchange *exchange;
    struct drill_ask ask;
    enum drill_act act;
    const char *fault; /* its name */
    struct net_timer *timer;
    bool is_full; /* the client reads more slowly than is written */
    struct buf out;
};

/* ---- The end */

static void close_timer(struct speech *speech)
{
    net_timer_close(speech->timer);
    speech->timer = NULL;
}

static void cut(struct speech *speech)
{
    struct http_exchange *exchange = speech->exchange;
    close_timer(speech);
    http_stream_abort(exchange); /* the speech is gone */
}

static void on_gone(void *ud)
{
    cut(ud);
}

static void reply(struct speech *speech, int status, const char *type)
{
    close_timer(speech);
    http_reply(speech->exchange, status, type, speech->out.data, speech->out.len);
}

static void reply_text(struct speech *speech, int status, const char *type, const char *text)
{
    buf_clear(&speech->out);
    buf_puts(&speech->out, text);
    reply(speech, status, type);
}

static void reply_error(struct speech *speech, const char *fault)
{
    buf_clear(&speech->out);
    int status = drill_words_error(speech->ask.api, fault, speech->provider->key, &speech->out);
    if (strcmp(fault, "429-retry") == 0 && speech->ask.api != DRILL_GEMINI) /* that one says it in the body */
        http_set_header(speech->exchange, "retry-after", RETRY_AFTER_S);
    reply(speech, status, JSON_TYPE);
}

/* ---- Streams */

static void write_out(struct speech *speech)
{
    (void)http_stream_write(speech->exchange, speech->out.data, speech->out.len);
    buf_clear(&speech->out);
}

static void on_drain(void *ud)
{
    struct speech *speech = ud;
    speech->is_full = false;
}

/* A piece at a time, by a timer: who writes until he is told to stop is never told when nobody is there. */
static void pump(void *ud)
{
    struct speech *speech = ud;
    char piece[ENDLESS_PIECE];
    memset(piece, speech->ask.is_stream ? 'x' : ' ', sizeof piece);
    if (!speech->is_full)
        speech->is_full = !http_stream_write(speech->exchange, piece, sizeof piece);
}

/* Says up to `most` tokens. */
static size_t say(struct speech *speech, size_t most)
{
    const char *text = speech->ask.text;
    size_t sent = 0;
    drill_words_begin(&speech->ask, &speech->out);
    for (size_t len; sent < most && (len = drill_words_token(text)) > 0; text += len)
        drill_words_piece(&speech->ask, text, len, ++sent, &speech->out);
    return sent;
}

/* What comes after the first tokens. */
static void on_pause_over(void *ud)
{
    struct speech *speech = ud;
    struct http_exchange *exchange = speech->exchange;
    switch (speech->act) {
    case ACT_STALL:
        close_timer(speech);
        return;
    case ACT_HALF_JSON:
        buf_puts(&speech->out, "data: {\"id\":\"x\",\"choi\n\n");
        break;
    case ACT_ERROR:
        drill_words_error_event(speech->ask.api, &speech->out);
        break;
    case ACT_NO_FINISH:
        break;
    default: /* CUT */
        cut(speech);
        return;
    }
    write_out(speech);
    close_timer(speech);
    http_stream_end(exchange);
}

static void go_on_later(struct speech *speech)
{
    bool is_endless = speech->act == ACT_ENDLESS;
    if (net_timer_open(&speech->timer, speech->provider->loop, is_endless ? pump : on_pause_over, speech) !=
        PH_OK)
        cut(speech);
    else if (is_endless)
        net_timer_start(speech->timer, ENDLESS_EVERY_MS, ENDLESS_EVERY_MS);
    else
        net_timer_start(speech->timer, PAUSE_MS, 0);
}

static void stream(struct speech *speech)
{
    struct http_exchange *exchange = speech->exchange;
    http_stream_begin(exchange, 200, STREAM_TYPE, on_drain, speech);
    if (speech->act == ACT_HEALTHY) {
        size_t sent = say(speech, SIZE_MAX);
        drill_words_end(&speech->ask, sent, &speech->out);
        write_out(speech);
        http_stream_end(exchange);
    } else if (speech->act == ACT_ENDLESS) {
        buf_puts(&speech->out, "data: {\"endless\": \"");
        write_out(speech);
        go_on_later(speech);
    } else {
        (void)say(speech, DRILL_AFTER);
        write_out(speech);
        go_on_later(speech);
    }
}

/* A reply in one piece, or half of one. */
static void answer_whole(struct speech *speech)
{
    drill_words_whole(&speech->ask, &speech->out);
    if (speech->act == ACT_HEALTHY) {
        reply(speech, 200, JSON_TYPE);
        return;
    }
    speech->out.len /= 2;
    if (speech->act == ACT_HALF_JSON) {
        reply(speech, 200, JSON_TYPE);
        return;
    }
    http_stream_begin(speech->exchange, 200, JSON_TYPE, on_drain, speech);
    write_out(speech);
    if (speech->act != ACT_STALL && speech->act != ACT_ENDLESS)
        speech->act = ACT_CUT; /* an error, or an end that is none, has no other form here */
    go_on_later(speech);
}

/* ---- Requests */

static void perform(struct speech *speech)
{
    static const char proxy[] = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
                                "<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
    static const char sign_in[] =
        "<!doctype html><title>Sign in</title><p>Please sign in to the hotel's network.";
    switch (speech->act) {
    case ACT_NOTHING:
    case ACT_HANG:
        return; /* on_gone ends it */
    case ACT_REFUSE:
        reply_error(speech, speech->fault);
        return;
    case ACT_HTML:
        reply_text(speech, 502, HTML_TYPE, proxy);
        return;
    case ACT_SIGN_IN:
        reply_text(speech, 200, HTML_TYPE, sign_in);
        return;
    case ACT_ERROR_200:
        (void)drill_words_error(speech->ask.api, "500", "", &speech->out);
        reply(speech, 200, JSON_TYPE);
        return;
    case ACT_EMPTY:
        reply(speech, 200, JSON_TYPE);
        return;
    case ACT_RESET:
        cut(speech);
        return;
    default:
        if (speech->ask.is_stream)
            stream(speech);
        else
            answer_whole(speech);
    }
}

static bool shows_key(const struct drill_provider *provider, const struct http_request *request)
{
    static const char *const names[] = {"authorization", "x-api-key", "x-goog-api-key"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *shown = http_request_header(request, names[i]);
        if (shown && i == 0 && strncmp(shown, "Bearer ", 7) == 0)
            shown += 7;
        if (shown && strcmp(shown, provider->key) == 0)
            return true;
    }
    return false;
}

/* "/openai/cut/rest": NULL when there is no such place. */
static const char *read_path(const char *path, enum drill_api *api, size_t *fault)
{
    char part[2][32];
    for (int i = 0; i < 2; i++) {
        const char *end = *path == '/' ? strchr(path + 1, '/') : NULL;
        size_t len = end ? (size_t)(end - path - 1) : 0;
        if (!end || len >= sizeof part[i])
            return NULL;
        memcpy(part[i], path + 1, len);
        part[i][len] = 0;
        path = end;
    }
    if (!drill_api_find(part[0], api) || (!drill_fault_find(part[1], fault) && strcmp(part[1], "ok") != 0))
        return NULL;
    return path;
}

static void release_out(void *ud)
{
    buf_release(ud);
}

static struct speech *speech_new(struct drill_provider *provider, struct http_exchange *exchange)
{
    struct arena *arena = http_exchange_arena(exchange);
    struct speech *speech = arena_calloc(arena, 1, sizeof *speech);
    if (!speech)
        return NULL;
    *speech = (struct speech){.provider = provider, .exchange = exchange};
    buf_init(&speech->out, WORDS_BYTES_MAX);
    return arena_on_release(arena, release_out, &speech->out) == 0 ? speech : NULL;
}

static void handle(void *ud, struct http_exchange *exchange)
{
    struct drill_provider *provider = ud;
    const struct http_request *request = http_exchange_request(exchange);
    enum drill_api api;
    size_t fault;
    struct json *body;
    provider->requests++;
    const char *path = read_path(request->path, &api, &fault);
    struct speech *speech = path ? speech_new(provider, exchange) : NULL;
    if (!speech) {
        http_reply(exchange, path ? 503 : 404, NULL, NULL, 0);
        return;
    }
    speech->ask.api = api;
    speech->act = drill_fault_act(fault);
    speech->fault = fault < drill_fault_count ? drill_faults[fault].name : "ok";
    if (!shows_key(provider, request)) {
        reply_error(speech, "key");
    } else if (json_parse(http_exchange_arena(exchange), request->body, request->body_len, &body, NULL) !=
                   PH_OK ||
               !drill_words_read(api, path, body, &speech->ask)) {
        reply_error(speech, "bad");
    } else {
        http_on_gone(exchange, on_gone, speech);
        perform(speech);
    }
}

/* ---- Life */

static void encode_error(void *ud, int status, const char *message, struct buf *out)
{
    (void)ud, (void)status;
    buf_puts(out, "{\"error\":{\"message\":");
    json_write_string(out, message, strlen(message));
    buf_puts(out, "}}");
}

enum ph_status drill_provider_open(struct drill_provider **out, struct net_loop *loop,
                                   const struct clock_source *clock, struct ph_err *err)
{
    struct drill_provider *provider = *out = mem_calloc(1, sizeof *provider);
    uint64_t seed;
    char id[ID_TEXT_MAX];
    struct rng rng;
    if (!provider)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    if (entropy_fill(&seed, sizeof seed) != 0)
        seed = clock_monotonic_ns(clock);
    rng_init(&rng, seed);
    id_make(&rng, "", id);
    snprintf(provider->key, sizeof provider->key, DRILL_KEY_PREFIX "%.30s", id);
    provider->loop = loop;
    provider->closed_port = net_free_port();
    struct http_server_params params = {
        .host = "127.0.0.1", .clock = clock, .handle = handle, .encode_error = encode_error, .ud = provider};
    http_limits_default(&params.limits);
    params.limits.stop_grace_ms = STOP_GRACE_MS;
    enum ph_status status = http_server_open(&provider->server, loop, &params, err);
    if (status != PH_OK) {
        mem_free(provider);
        *out = NULL;
    }
    return status;
}

const char *drill_provider_key(const struct drill_provider *provider)
{
    return provider->key;
}

uint64_t drill_provider_requests(const struct drill_provider *provider)
{
    return provider->requests;
}

void drill_provider_url(const struct drill_provider *provider, enum drill_api api, size_t fault,
                        char out[DRILL_URL_MAX])
{
    const char *name = fault < drill_fault_count ? drill_faults[fault].name : "ok";
    unsigned port = http_server_port(provider->server);
    const char *host = "http://127.0.0.1";
    if (strcmp(name, "refused") == 0) {
        port = provider->closed_port;
    } else if (strcmp(name, "dns") == 0) {
        host = "http://no-such-host.invalid";
    } else if (strcmp(name, "tls") == 0) {
        host = "https://127.0.0.1"; /* it answers a handshake with what is none */
    }
    snprintf(out, DRILL_URL_MAX, "%s:%u/%s/%s", host, port, drill_api_name(api), name);
}

static void on_stopped(void *ud)
{
    struct drill_provider *provider = ud;
    void (*stopped)(void *) = provider->stopped;
    void *stopped_ud = provider->stopped_ud;
    mem_free(provider);
    stopped(stopped_ud);
}

void drill_provider_stop(struct drill_provider *provider, void (*stopped)(void *ud), void *ud)
{
    provider->stopped = stopped;
    provider->stopped_ud = ud;
    http_server_stop(provider->server, on_stopped, provider);
}
