/* Chat and completion requests: decode, find who answers, pass events on.
 *
 * Nothing of a reply is sent before the first event, so that whatever fails until then has its proper status.
 * After that a failure is an error chunk and a broken connection: a stream that ends cleanly would be taken
 * for a whole answer.
 *
 * The chat_exchange lives in its exchange's arena; its provider call ends before it: by DONE, by ERROR, or by
 * being cancelled because the client has gone. */
#include <string.h>

#include "base/id.h"
#include "base/log.h"
#include "gateway/gateway_int.h"

struct chat_exchange {
    struct gateway *gateway;
    struct http_exchange *exchange;
    struct chat_exchange *next;
    struct provider_call *call; /* NULL: over */
    struct chat_request request;
    struct chat_reply reply;
    struct chat_encoder *encoder;
    struct buf out; /* encoded, not written */
    bool begun;     /* the reply's head was sent */
    uint64_t start_ns, first_token_ns, last_write_ns;
    struct answer answer;
    char id[ID_TEXT_MAX];
};

static uint64_t now_ns(const struct chat_exchange *chat)
{
    return clock_monotonic_ns(chat->gateway->clock);
}

/* ---- The end, which comes once */

static void unlink_chat(struct chat_exchange *chat)
{
    struct chat_exchange **link = &chat->gateway->chats;
    while (*link && *link != chat)
        link = &(*link)->next;
    if (*link)
        *link = chat->next;
}

static void over(struct chat_exchange *chat, enum outcome outcome, bool broken)
{
    unlink_chat(chat);
    chat->call = NULL;
    chat->answer.outcome = outcome;
    chat->answer.stream_broken = broken;
    chat->answer.duration_ns = now_ns(chat) - chat->start_ns;
    metrics_answer(chat->gateway->metrics, &chat->answer);
}

static enum outcome outcome_of(int http_status)
{
    if (http_status == 429)
        return OUTCOME_RATE_LIMITED;
    return http_status >= 500 ? OUTCOME_SERVER : OUTCOME_INVALID;
}

static void end_with_fault(struct chat_exchange *chat, const struct chat_fault *fault)
{
    over(chat, outcome_of(fault->http_status), chat->begun);
    if (!chat->begun) {
        gateway_reply_fault(chat->gateway, chat->exchange, fault);
        return;
    }
    struct chat_event event = chat_fault_event(fault, PH_ERR_INTERNAL);
    buf_clear(&chat->out);
    chat_edge_openai.encode(chat->encoder, &event, &chat->out);
    (void)http_stream_write(chat->exchange, chat->out.data, chat->out.len);
    http_stream_abort(chat->exchange);
}

static void end_with_error(struct chat_exchange *chat, const struct chat_event *event)
{
    struct chat_fault fault;
    chat_fault_set(&fault, event->error.http_status, event->error.code, event->error.param, "%s",
                   event->error.message);
    fault.type = event->error.type;
    fault.retry_after_s = event->error.retry_after_s;
    end_with_fault(chat, &fault);
}

static void end_well(struct chat_exchange *chat)
{
    over(chat, OUTCOME_OK, false);
    if (chat->begun)
        http_stream_end(chat->exchange);
    else
        gateway_reply(chat->gateway, chat->exchange, 200, JSON_TYPE, &chat->out);
}

static void on_gone(void *ud)
{
    struct chat_exchange *chat = ud;
    if (chat->call)
        provider_cancel(chat->call);
    over(chat, OUTCOME_CLIENT_GONE, true);
    if (chat->begun)
        http_stream_abort(chat->exchange);
    else
        http_reply(chat->exchange, 499, NULL, NULL, 0); /* nobody reads it */
}

/* ---- Events */

static void measure(struct chat_exchange *chat, const struct chat_event *event)
{
    struct answer *answer = &chat->answer;
    if (event->kind == CHAT_EVENT_ROLE && !answer->first_token_ns) {
        answer->first_token_ns = now_ns(chat) - chat->start_ns;
    } else if (event->kind == CHAT_EVENT_FINISH) {
        struct answer_choice choice = {event->timing.queue_ns, event->timing.prefill_ns,
                                       event->timing.decode_ns, event->timing.tokens};
        metrics_choice(chat->gateway->metrics, answer->provider, &choice);
    } else if (event->kind == CHAT_EVENT_USAGE) {
        answer->prompt_tokens = event->usage.prompt_tokens;
        answer->cached_tokens = event->usage.cached_tokens;
        answer->completion_tokens = event->usage.completion_tokens;
    }
}

static void on_drain(void *ud)
{
    struct chat_exchange *chat = ud;
    if (chat->call)
        provider_resume(chat->call);
}

static bool write_out(struct chat_exchange *chat)
{
    if (chat->out.len == 0)
        return true;
    if (!chat->begun) {
        metrics_status(chat->gateway->metrics, 200);
        http_set_header(chat->exchange, "cache-control", "no-cache");
        http_set_header(chat->exchange, "x-accel-buffering", "no"); /* nginx must not collect a stream */
        http_stream_begin(chat->exchange, 200, "text/event-stream", on_drain, chat);
        chat->begun = true;
    }
    chat->last_write_ns = now_ns(chat);
    bool more = http_stream_write(chat->exchange, chat->out.data, chat->out.len);
    buf_clear(&chat->out);
    return more;
}

static bool on_event(void *ud, const struct chat_event *event)
{
    struct chat_exchange *chat = ud;
    struct chat_fault fault;
    measure(chat, event);
    if (event->kind == CHAT_EVENT_ERROR) {
        end_with_error(chat, event);
        return true;
    }
    if (event->kind == CHAT_EVENT_PROGRESS)
        return true; /* the timer sees to comment lines */
    chat_edge_openai.encode(chat->encoder, event, &chat->out);
    if (buf_status(&chat->out) != PH_OK) {
        if (event->kind != CHAT_EVENT_DONE)
            provider_cancel(chat->call);
        chat_fault_set(&fault, 500, NULL, NULL, "the reply does not fit into memory");
        end_with_fault(chat, &fault);
        return true;
    }
    bool more = chat->request.stream ? write_out(chat) : true;
    if (event->kind == CHAT_EVENT_DONE)
        end_well(chat);
    return more;
}

/* Streams that have been silent get a comment line: proxies and clients cut connections that look dead. */
void gateway_chats_tick(struct gateway *gateway)
{
    static const struct chat_event alive = {.kind = CHAT_EVENT_PROGRESS};
    uint64_t now = clock_monotonic_ns(gateway->clock);
    for (struct chat_exchange *chat = gateway->chats; chat; chat = chat->next)
        if (chat->request.stream && now - chat->last_write_ns >= CHAT_KEEPALIVE_MS * (uint64_t)1000000) {
            chat_edge_openai.encode(chat->encoder, &alive, &chat->out);
            (void)write_out(chat);
        }
}

/* ---- The request */

static void release_out(void *ud)
{
    buf_release(ud);
}

static struct chat_exchange *chat_new(struct gateway *gateway, struct http_exchange *exchange)
{
    struct arena *arena = http_exchange_arena(exchange);
    struct chat_exchange *chat = arena_calloc(arena, 1, sizeof *chat);
    if (!chat)
        return NULL;
    chat->gateway = gateway;
    chat->exchange = exchange;
    chat->start_ns = chat->last_write_ns = clock_monotonic_ns(gateway->clock);
    buf_init(&chat->out, CHAT_REPLY_BYTES_MAX);
    return arena_on_release(arena, release_out, &chat->out) == 0 ? chat : NULL;
}

static bool decode(struct chat_exchange *chat, enum chat_kind kind, struct chat_fault *fault)
{
    struct json *body;
    struct arena *arena = http_exchange_arena(chat->exchange);
    return gateway_body(chat->exchange, &body, fault) &&
           chat_edge_openai.decode(arena, kind, body, &chat->request, fault) == PH_OK &&
           gateway_find(chat->gateway, chat->request.model, &chat->answer.provider, fault);
}

static bool start(struct chat_exchange *chat, struct provider *provider, struct chat_fault *fault)
{
    struct gateway *gateway = chat->gateway;
    struct provider_sink sink = {on_event, chat};
    id_make(&gateway->rng, chat->request.kind == CHAT_KIND_CHAT ? "chatcmpl" : "cmpl", chat->id);
    chat->reply =
        (struct chat_reply){chat->id, provider_model_id(provider), clock_unix_ms(gateway->clock) / 1000};
    chat->encoder =
        chat_edge_openai.encoder_new(http_exchange_arena(chat->exchange), &chat->request, &chat->reply, 0);
    if (!chat->encoder) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return false;
    }
    return provider_start(provider, gateway->loop, &chat->request, &sink, &chat->call, fault) == PH_OK;
}

static void handle_request(struct gateway *gateway, struct http_exchange *exchange, enum chat_kind kind)
{
    struct chat_fault fault;
    struct chat_exchange *chat = chat_new(gateway, exchange);
    if (!chat) {
        chat_fault_set(&fault, 503, NULL, NULL, "out of memory");
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    if (!decode(chat, kind, &fault)) {
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    struct provider *provider = gateway->providers[chat->answer.provider];
    chat->answer.operation = kind == CHAT_KIND_CHAT ? OPERATION_CHAT : OPERATION_COMPLETION;
    gateway_set_route(exchange, provider);
    if (!start(chat, provider, &fault)) {
        end_with_fault(chat, &fault);
        return;
    }
    chat->answer.overhead_ns = now_ns(chat) - chat->start_ns;
    chat->next = gateway->chats;
    gateway->chats = chat;
    http_on_gone(exchange, on_gone, chat);
}

void handle_chat_completions(struct gateway *gateway, struct http_exchange *exchange, const char *rest)
{
    (void)rest;
    handle_request(gateway, exchange, CHAT_KIND_CHAT);
}

void handle_completions(struct gateway *gateway, struct http_exchange *exchange, const char *rest)
{
    (void)rest;
    handle_request(gateway, exchange, CHAT_KIND_COMPLETION);
}
