#include "fake_provider.h"

#include "net/net_int.h"
#include "test_support.h"

#define DEADLINE_MS 20000
#define FLOOD_LINES 20000

/* ---- What it plays */

#define CHUNK(delta, finish)                                                                               \
    "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":" \
    "[{\"index\":0,\"delta\":" delta ",\"finish_reason\":" finish "}]}\n\n"
#define WORD(w) CHUNK("{\"content\":\"" w "\"}", "null")
#define FIRST CHUNK("{\"role\":\"assistant\",\"content\":\"\"}", "null")
#define STOP CHUNK("{}", "\"stop\"")
#define USAGE(p, c)                                                                                     \
    "data: "                                                                                            \
    "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[]," \
    "\"usage\":{\"prompt_tokens\":" #p ",\"completion_tokens\":" #c ",\"total_tokens\":9}}\n\n"
#define DONE "data: [DONE]\n\n"
#define SSE "text/event-stream"
#define JSON "application/json"
#define ERROR_BODY(message) "{\"error\":{\"message\":\"" message "\",\"type\":\"x\",\"code\":null}}"
#define WHOLE                                                                                                \
    "{\"id\":\"c1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0," \
    "\"message\":{\"role\":\"assistant\",\"content\":\"Hello there\"},\"finish_reason\":\"stop\"}],"         \
    "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":2,\"total_tokens\":14}}"

enum ending { END_CLEAN, END_ABORT, END_HOLD, END_FLOOD };

static const struct scene {
    const char *name;
    int status;
    const char *type, *body, *header, *value; /* header NULL: none */
    enum ending ending;                       /* CLEAN: one piece, with its length */
} scenes[] = {
    {"good", 200, SSE "; charset=utf-8", FIRST WORD("Hel") WORD("lo") STOP USAGE(12, 2) DONE, "request-id",
     "up-1", END_CLEAN},
    {"no-usage", 200, SSE, FIRST WORD("a") WORD("b") WORD("c") STOP DONE, NULL, NULL, END_CLEAN},
    {"whole", 200, JSON, WHOLE, NULL, NULL, END_CLEAN},
    {"html", 200, "text/html", "<html>Login</html>", NULL, NULL, END_CLEAN},
    {"refused", 401, JSON, ERROR_BODY("Incorrect API key provided: sk-fake-secret-1."), NULL, NULL,
     END_CLEAN},
    {"unpaid", 402, JSON, ERROR_BODY("Insufficient credits"), NULL, NULL, END_CLEAN},
    {"forbidden", 403, JSON, ERROR_BODY("no access"), NULL, NULL, END_CLEAN},
    {"limited", 429, JSON, ERROR_BODY("slow down"), "retry-after", "7", END_CLEAN},
    {"broken", 500, JSON, ERROR_BODY("boom"), NULL, NULL, END_CLEAN},
    {"gateway", 502, "text/html", "<html><h1>Bad gateway</h1></html>", NULL, NULL, END_CLEAN},
    {"busy", 503, JSON, ERROR_BODY("overloaded"), "retry-after", "3", END_CLEAN},
    {"moved", 302, "text/html", "elsewhere", "location", "http://127.0.0.1:1/", END_CLEAN},
    {"bad-request", 400, JSON, ERROR_BODY("temperature is wrong"), NULL, NULL, END_CLEAN},
    {"error-200", 200, JSON, ERROR_BODY("quietly broken"), NULL, NULL, END_CLEAN},
    {"half-line", 200, SSE, FIRST WORD("Hel") "data: {\"id\":\"c1\",\"choi\n\n" WORD("lo"), NULL, NULL,
     END_CLEAN},
    {"mid-error", 200, SSE, FIRST WORD("Hel") "data: " ERROR_BODY("fell over") "\n\n", NULL, NULL, END_CLEAN},
    {"short", 200, SSE, FIRST WORD("Hel"), NULL, NULL, END_CLEAN},
    {"cut", 200, SSE, FIRST WORD("Hel") WORD("lo"), NULL, NULL, END_ABORT},
    {"late-cut", 200, SSE, FIRST WORD("Hel") STOP USAGE(12, 1) DONE, NULL, NULL, END_ABORT},
    {"stall", 200, SSE, FIRST WORD("Hel") WORD("lo") WORD("!"), NULL, NULL, END_HOLD},
    {"silent", 0, NULL, NULL, NULL, NULL, END_HOLD},
    {"flood", 200, SSE, FIRST, NULL, NULL, END_FLOOD},
    {"endless-error", 500, "text/plain", "x", NULL, NULL, END_FLOOD},
};

static void on_gone(void *ud)
{
    ((struct fake_provider *)ud)->gone_count++;
}

static void hold(struct fake_provider *fake, struct http_exchange *exchange, bool silent)
{
    assert_true(fake->held_count < FAKE_HELD_MAX);
    fake->held_silent[fake->held_count] = silent;
    fake->held[fake->held_count++] = exchange;
    http_on_gone(exchange, on_gone, fake);
}

/* More than any buffer on the way holds, as fast as it is taken. */
static void flood(void *ud)
{
    struct fake_provider *fake = ud;
    struct http_exchange *exchange = fake->held[fake->held_count - 1];
    char line[2048]; /* a word, and a comment so that less fits into what is on the way */
    size_t len = (size_t)snprintf(line, sizeof line, "%s:%1024s\n\n", WORD("word "), "");
    while (fake->flooded < FLOOD_LINES && fake->gone_count == 0) {
        fake->flooded++;
        if (!http_stream_write(exchange, line, len))
            return;
    }
    fake->held_count--;
    http_stream_write(exchange, STOP USAGE(12, 20000) DONE, strlen(STOP USAGE(12, 20000) DONE));
    http_stream_end(exchange);
}

static void play(struct fake_provider *fake, struct http_exchange *exchange, const struct scene *scene)
{
    if (scene->header)
        http_set_header(exchange, scene->header, scene->value);
    if (scene->ending == END_CLEAN) {
        http_reply(exchange, scene->status, scene->type, scene->body, strlen(scene->body));
        return;
    }
    if (scene->status) {
        http_stream_begin(exchange, scene->status, scene->type, flood, fake);
        http_stream_write(exchange, scene->body, strlen(scene->body));
    }
    if (scene->ending == END_ABORT) {
        http_stream_abort(exchange);
        return;
    }
    hold(fake, exchange, scene->status == 0);
    if (scene->ending == END_FLOOD)
        flood(fake);
}

static void keep(char *into, size_t size, const char *text)
{
    snprintf(into, size, "%s", text ? text : "");
}

static void play_embeddings(struct http_exchange *exchange)
{
    static const char body[] = "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,"
                               "\"embedding\":[0.5,-1]},{\"object\":\"embedding\",\"index\":1,\"embedding\":"
                               "[2,3]}],\"model\":\"m\",\"usage\":{\"prompt_tokens\":5,\"total_tokens\":5}}";
    http_reply(exchange, 200, JSON, body, strlen(body));
}

static void on_request(void *ud, struct http_exchange *exchange)
{
    struct fake_provider *fake = ud;
    const struct http_request *request = http_exchange_request(exchange);
    fake->request_count++;
    keep(fake->authorization, sizeof fake->authorization, http_request_header(request, "authorization"));
    keep(fake->request_id, sizeof fake->request_id, http_request_header(request, "x-request-id"));
    keep(fake->path, sizeof fake->path, request->path);
    keep(fake->body, sizeof fake->body, request->body);
    if (strstr(request->path, "/good/embeddings")) {
        play_embeddings(exchange);
        return;
    }
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        size_t len = strlen(scenes[i].name);
        if (strncmp(request->path + 1, scenes[i].name, len) == 0 && request->path[len + 1] == '/') {
            play(fake, exchange, &scenes[i]);
            return;
        }
    }
    http_reply(exchange, 404, JSON, "{\"error\":{\"message\":\"no such model\"}}", 38);
}

static void encode_error(void *ud, int status, const char *message, struct buf *out)
{
    (void)ud;
    buf_printf(out, "{\"error\":\"%d %s\"}", status, message);
}

/* ---- Life */

static void too_late(void *ud)
{
    (void)ud;
    fail_msg("the deadline of the test has passed");
}

void fake_open(struct fake_provider *fake)
{
    struct ph_err err;
    *fake = (struct fake_provider){0};
    struct http_server_params params = {.host = "127.0.0.1",
                                        .clock = clock_system(),
                                        .handle = on_request,
                                        .encode_error = encode_error,
                                        .ud = fake};
    http_limits_default(&params.limits);
    if (net_loop_create(&fake->loop, &err) != PH_OK ||
        http_server_open(&fake->server, fake->loop, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    struct http_client_params client = {.loop = fake->loop, .clock = clock_system(), .user_agent = "test"};
    if (http_client_open(&fake->client, &client, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_int_equal(net_timer_open(&fake->deadline, fake->loop, too_late, fake), PH_OK);
    net_timer_start(fake->deadline, DEADLINE_MS, 0);
    snprintf(fake->url, sizeof fake->url, "http://127.0.0.1:%u", http_server_port(fake->server));
}

static void on_stopped(void *ud)
{
    struct fake_provider *fake = ud;
    net_loop_stop(fake->loop);
}

void fake_close(struct fake_provider *fake)
{
    for (size_t i = 0; i < fake->held_count; i++)
        if (fake->held_silent[i])
            http_reply(fake->held[i], 503, JSON, "{}", 2);
        else
            http_stream_abort(fake->held[i]);
    http_client_close(fake->client);
    net_timer_close(fake->deadline);
    http_server_stop(fake->server, on_stopped, fake);
    net_loop_run(fake->loop);
    net_loop_free(fake->loop);
}

struct look {
    struct net_timer *timer;
    const bool *flag;
    uv_loop_t *loop;
};

static void look_again(void *ud)
{
    struct look *look = ud;
    if (*look->flag)
        uv_stop(look->loop);
}

void fake_run_until(struct fake_provider *fake, const bool *flag)
{
    struct look look = {.flag = flag, .loop = net_loop_uv(fake->loop)};
    assert_int_equal(net_timer_open(&look.timer, fake->loop, look_again, &look), PH_OK);
    net_timer_start(look.timer, 1, 1);
    net_loop_run(fake->loop);
    net_timer_close(look.timer);
}

static void wait_is_over(void *ud)
{
    struct fake_wait *wait = ud;
    wait->over = true;
    net_timer_close(wait->timer);
}

void fake_wait_begin(struct fake_wait *wait, struct fake_provider *fake, uint64_t ms)
{
    *wait = (struct fake_wait){0};
    assert_int_equal(net_timer_open(&wait->timer, fake->loop, wait_is_over, wait), PH_OK);
    net_timer_start(wait->timer, ms, 0);
}

/* ---- Asking */

static void on_timer(void *ud)
{
    struct ask *ask = ud;
    ask->paused = false;
    provider_resume(ask->call);
}

static void take_note(struct ask *ask)
{
    struct provider_call_note note;
    provider_call_note(ask->call, &note);
    keep(ask->key_hint, sizeof ask->key_hint, note.key_hint);
    keep(ask->upstream_id, sizeof ask->upstream_id, note.upstream_id);
    ask->upstream_status = note.http_status;
}

static void take_error(struct ask *ask, const struct chat_event *event)
{
    ask->fault.http_status = event->error.http_status;
    ask->fault.cause = event->error.cause;
    ask->fault.retry_after_s = event->error.retry_after_s;
    keep(ask->fault.message, sizeof ask->fault.message, event->error.message);
    keep(ask->fault_code, sizeof ask->fault_code, event->error.code);
}

static bool take_text(struct ask *ask, const struct chat_event *event)
{
    ask->texts++;
    ask->bytes += event->text.len;
    if (ask->text.len + event->text.len < ask->text.max)
        buf_append(&ask->text, event->text.text, event->text.len);
    if (ask->texts == ask->cancel_at) {
        provider_cancel(ask->call);
        ask->over = true;
    } else if (ask->texts == ask->hang_up_at) {
        provider_hang_up(ask->call, ask->drain_ms);
    } else if (ask->pause_at && ask->texts % ask->pause_at == 0) {
        ask->paused = true;
        net_timer_start(ask->timer, 1, 0);
        return false;
    }
    return ask->stop_at == 0 || ask->texts < ask->stop_at;
}

static bool on_event(void *ud, const struct chat_event *event)
{
    struct ask *ask = ud;
    assert_false(ask->over);
    if (ask->count < ASK_EVENTS_MAX)
        ask->kinds[ask->count++] = event->kind;
    ask->tokens += event->tokens;
    if (event->kind == CHAT_EVENT_USAGE) {
        ask->prompt_tokens = event->usage.prompt_tokens;
        ask->completion_tokens = event->usage.completion_tokens;
        ask->usage_estimated = event->usage.estimated;
    } else if (event->kind == CHAT_EVENT_TEXT && event->text.len) {
        return take_text(ask, event);
    } else if (event->kind == CHAT_EVENT_ERROR || event->kind == CHAT_EVENT_DONE) {
        ask->is_done = event->kind == CHAT_EVENT_DONE;
        if (!ask->is_done)
            take_error(ask, event);
        take_note(ask);
        ask->over = true;
        if (ask->at_end)
            ask->at_end(ask);
    }
    return true;
}

static void on_embeddings(void *ud, const struct chat_embeddings *embeddings, const struct chat_fault *fault)
{
    struct ask *ask = ud;
    assert_false(ask->over);
    if (fault)
        ask->fault = *fault;
    if (embeddings) {
        ask->embed_count = embeddings->count;
        ask->embed_width = embeddings->width;
        ask->embed_first = embeddings->values[0];
        ask->prompt_tokens = embeddings->prompt_tokens;
    }
    ask->over = true;
}

void ask_init(struct ask *ask, struct fake_provider *fake, bool stream)
{
    char body[256];
    struct ph_err err;
    struct json *json;
    *ask = (struct ask){.fake = fake};
    arena_init(&ask->arena, 1 << 26);
    buf_init(&ask->text, 1 << 16);
    snprintf(
        body, sizeof body,
        "{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"Say hello to me\"}],\"stream\":%s}",
        stream ? "true" : "false");
    if (json_parse(&ask->arena, body, strlen(body), &json, &err) != PH_OK ||
        chat_edge_openai.decode(&ask->arena, CHAT_KIND_CHAT, json, &ask->request, &ask->fault) != PH_OK)
        fail_msg("the request of the test is wrong");
    ask->request.request_id = "req-of-client";
    assert_int_equal(net_timer_open(&ask->timer, fake->loop, on_timer, ask), PH_OK);
}

void ask_start(struct ask *ask, struct provider *provider)
{
    struct provider_sink sink = {on_event, ask};
    size_t count = ask->count;
    if (provider_start(provider, ask->fake->loop, &ask->request, &sink, &ask->call, &ask->fault) != PH_OK) {
        keep(ask->fault_code, sizeof ask->fault_code, ask->fault.code);
        ask->over = true;
    }
    assert_int_equal(ask->count, count); /* nothing inside provider_start */
}

void ask_embed(struct ask *ask, struct provider *provider)
{
    static const struct chat_prompt inputs[] = {{.text = {"one", 3}}, {.text = {"two", 3}}};
    struct provider_embed_sink sink = {on_embeddings, ask};
    ask->embed = (struct chat_embed_request){.arena = &ask->arena,
                                             .model = "x",
                                             .inputs = inputs,
                                             .input_count = 2,
                                             .request_id = "req-of-client"};
    if (provider_embed(provider, ask->fake->loop, &ask->embed, &sink, &ask->call, &ask->fault) != PH_OK)
        ask->over = true;
}

void ask_run(struct ask *ask, struct provider *provider)
{
    ask_start(ask, provider);
    fake_run_until(ask->fake, &ask->over);
}

void ask_release(struct ask *ask)
{
    net_timer_close(ask->timer);
    buf_release(&ask->text);
    arena_release(&ask->arena);
}
