/* Requests for text in every dialect: decode, admit, let an answer be found, pass its events on.
 *
 * Nothing of a reply is sent before the first event that says something, so that whatever fails until then
 * has its proper status. After that a failure is an error chunk and a broken connection: a stream that ends
 * cleanly would be taken for a whole answer.
 *
 * Between decoding and the answer an exchange may wait for a shared cache (cache_visit.c). It is in the list
 * and hears of its client's going by then; what wakes it, a value, none, or the end of its time, is go_on.
 *
 * A chat that names a conversation waits twice more (remember.c): before it is admitted, while a helper
 * thread builds what the model gets to see; and at its end, which leaves only when the reply is durable. A
 * client that goes in either wait is noticed when it is over.
 *
 * The chat_exchange lives in its exchange's arena, and so does the answer. The exchange ends when the answer
 * is over: by DONE, by ERROR, or, when the client has gone, after what was bought has been counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/id.h"
#include "gateway/gateway_int.h"

#define ROUTE_TEXT_MAX 512
#define ROUTE_TEXT_USUAL 250
#define RECORD_BYTES_MAX (64u << 10)
#define DEADLINE_S_MAX 86400

struct chat_exchange {
    struct gateway *gateway;
    struct http_exchange *exchange;
    const struct chat_edge *edge;
    struct chat_exchange *next, **link; /* in the gateway's list; link NULL: not in it */
    struct caller caller;
    struct answer *answer; /* NULL: none yet, or a hit of the cache */
    struct chat_request request;
    struct cache_visit cached;
    struct remembering *memory;  /* NULL: the chat is in no conversation */
    struct recall *recall;       /* NULL: its input names no items */
    bool is_loading, is_storing; /* it waits for memory ... */
    bool is_gone;                /* ... and its client has gone meanwhile */
    struct request_log_entry *log;
    struct chat_reply reply;
    struct chat_encoder *encoder;
    struct buf out; /* encoded, not written */
    bool begun;     /* the reply's head was sent */
    bool is_over;
    bool has_written; /* since the last tick: what comes often looks at no clock */
    uint64_t start_ns, silent_since_ns;
    size_t estimated_tokens;
    struct answer_sample sample;
    char id[ID_TEXT_MAX];
};

static uint64_t now_ns(const struct chat_exchange *chat)
{
    return clock_monotonic_ns(chat->gateway->clock);
}

/* ---- The end, which comes once */

static void unlink_chat(struct chat_exchange *chat)
{
    if (!chat->link)
        return;
    *chat->link = chat->next;
    if (chat->next)
        chat->next->link = chat->link;
    chat->link = NULL;
}

static void link_chat(struct chat_exchange *chat)
{
    struct gateway *gateway = chat->gateway;
    chat->next = gateway->chats;
    chat->link = &gateway->chats;
    if (chat->next)
        chat->next->link = &chat->next;
    gateway->chats = chat;
}

static void keep_record(struct chat_exchange *chat)
{
    struct gateway *gateway = chat->gateway;
    struct buf record;
    buf_init(&record, RECORD_BYTES_MAX);
    if (chat->answer) {
        answer_write_record(chat->answer, chat->id, &record);
        feedback_note_answer(chat->answer, chat->id);
    } else {
        cache_visit_write_record(&chat->cached, &chat->caller, chat->id, &record);
    }
    route_book_add(gateway->book, chat->id, http_exchange_request(chat->exchange)->id, &record);
    if (buf_status(&record) == PH_OK)
        request_log_write(gateway, chat->log, &record);
    buf_release(&record);
}

static void over(struct chat_exchange *chat, enum outcome outcome, bool broken)
{
    struct answer_sample *sample = &chat->sample;
    unlink_chat(chat);
    chat->is_over = true;
    chat->gateway->open_chats--;
    sample->outcome = outcome;
    sample->stream_broken = broken;
    sample->duration_ns = now_ns(chat) - chat->start_ns;
    if (chat->answer || chat->cached.is_hit)
        keep_record(chat);
    if (chat->cached.is_hit) { /* no model's work: nothing was used, its times are not its own */
        admission_end(chat->gateway, &chat->caller, 0);
        return;
    }
    if (chat->answer)
        sample->model = answer_model(chat->answer);
    uint64_t used = sample->prompt_tokens + sample->completion_tokens;
    admission_end(chat->gateway, &chat->caller, used ? used : chat->estimated_tokens);
    metrics_answer(chat->gateway->metrics, sample);
}

static enum outcome outcome_of(int http_status)
{
    if (http_status == 429)
        return OUTCOME_RATE_LIMITED;
    return http_status >= 500 ? OUTCOME_SERVER : OUTCOME_INVALID;
}

static void set_reply_headers(struct chat_exchange *chat)
{
    struct buf text;
    if (!chat->cached.is_hit && !chat->answer)
        return;
    buf_init(&text, ROUTE_TEXT_MAX);
    if (!buf_reserve(&text, ROUTE_TEXT_USUAL))
        return;
    if (chat->cached.is_hit) {
        cache_visit_route_text(&chat->cached, &text);
        http_set_header(chat->exchange, CACHE_HEADER, "hit");
    } else {
        answer_route_text(chat->answer, &text);
        remember_route_text(chat->memory, &text);
    }
    http_set_header(chat->exchange, ROUTE_HEADER, text.data);
    buf_release(&text);
    if (chat->edge == &chat_edge_anthropic)
        http_set_header(chat->exchange, "request-id", http_exchange_request(chat->exchange)->id);
}

static void end_with_fault(struct chat_exchange *chat, const struct chat_fault *fault)
{
    if (!chat->begun) {
        set_reply_headers(chat);
        if (chat->answer && answer_was_retried(chat->answer))
            http_set_header(chat->exchange, "x-should-retry", "false");
    }
    over(chat, outcome_of(fault->http_status), chat->begun);
    if (!chat->begun) {
        gateway_reply_fault(chat->gateway, chat->exchange, fault);
        return;
    }
    struct chat_event event = chat_fault_event(fault, PH_ERR_INTERNAL);
    buf_clear(&chat->out);
    chat->edge->encode(chat->encoder, &event, &chat->out);
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
    fault.cause = event->error.cause;
    end_with_fault(chat, &fault);
}

/* The client does not wait for what is put away. */
static void end_well(struct chat_exchange *chat)
{
    if (chat->begun) {
        over(chat, OUTCOME_OK, false);
        http_stream_end(chat->exchange);
        return;
    }
    set_reply_headers(chat);
    metrics_status(chat->gateway->metrics, 200);
    http_reply_send(chat->exchange, 200, JSON_TYPE, chat->out.data, chat->out.len);
    over(chat, OUTCOME_OK, false);
    http_reply_done(chat->exchange);
}

/* Nobody reads any more. */
static void end_unread(void *ud)
{
    struct chat_exchange *chat = ud;
    over(chat, OUTCOME_CLIENT_GONE, true);
    if (chat->begun)
        http_stream_abort(chat->exchange);
    else
        http_reply(chat->exchange, 499, NULL, NULL, 0);
}

static void on_gone(void *ud)
{
    struct chat_exchange *chat = ud;
    unlink_chat(chat);
    chat->is_gone = true;
    if (chat->is_loading || chat->is_storing)
        return;
    remember_cut(chat->memory, chat->id);
    (void)cache_visit_cancel(&chat->cached);
    if (!chat->answer || answer_abandon(chat->answer, end_unread, chat))
        end_unread(chat);
}

/* ---- Events */

static void measure(struct chat_exchange *chat, const struct chat_event *event)
{
    struct answer_sample *sample = &chat->sample;
    if (chat->cached.is_hit)
        return;
    if (event->kind == CHAT_EVENT_ROLE && !sample->first_token_ns) {
        sample->first_token_ns = now_ns(chat) - chat->start_ns;
    } else if (event->kind == CHAT_EVENT_FINISH) {
        struct choice_sample choice = {event->timing.queue_ns, event->timing.prefill_ns,
                                       event->timing.decode_ns, event->timing.tokens};
        metrics_choice(chat->gateway->metrics, answer_model(chat->answer), &choice);
    } else if (event->kind == CHAT_EVENT_USAGE) {
        sample->prompt_tokens = event->usage.prompt_tokens;
        sample->cached_tokens = event->usage.cached_tokens;
        sample->completion_tokens = event->usage.completion_tokens;
    }
}

static bool play_hit(struct chat_exchange *chat);

static void on_drain(void *ud)
{
    struct chat_exchange *chat = ud;
    if (chat->is_over || chat->is_storing)
        return;
    if (chat->cached.is_hit)
        (void)play_hit(chat);
    else if (chat->answer)
        answer_resume(chat->answer);
}

static bool write_out(struct chat_exchange *chat)
{
    if (chat->out.len == 0)
        return true;
    if (!chat->begun) {
        metrics_status(chat->gateway->metrics, 200);
        set_reply_headers(chat);
        http_set_header(chat->exchange, "cache-control", "no-cache");
        http_set_header(chat->exchange, "x-accel-buffering", "no"); /* nginx must not collect a stream */
        http_stream_begin(chat->exchange, 200, "text/event-stream", on_drain, chat);
        chat->begun = true;
    }
    chat->has_written = true;
    bool more = http_stream_write(chat->exchange, chat->out.data, chat->out.len);
    buf_clear(&chat->out);
    return more;
}

static void too_large(struct chat_exchange *chat)
{
    struct chat_fault fault;
    chat_fault_set(&fault, 500, NULL, NULL, "the reply does not fit into memory");
    end_with_fault(chat, &fault);
}

/* The reply is durable, or will not be: its end may leave. */
static void on_stored(void *ud, const struct chat_fault *fault)
{
    struct chat_exchange *chat = ud;
    chat->is_storing = false;
    if (chat->is_gone) {
        end_unread(chat);
    } else if (fault) {
        end_with_fault(chat, fault);
    } else {
        if (chat->request.stream)
            (void)write_out(chat);
        end_well(chat);
    }
}

/* true: its end waits for that. */
static bool store(struct chat_exchange *chat)
{
    struct chat_fault fault;
    chat->is_storing = remember_store(chat->memory, chat->id, chat->encoder, on_stored, &fault);
    if (!chat->is_storing)
        end_with_fault(chat, &fault);
    return chat->is_storing;
}

static bool on_event(void *ud, const struct chat_event *event)
{
    struct chat_exchange *chat = ud;
    if (chat->is_over)
        return true;
    measure(chat, event);
    if (event->kind == CHAT_EVENT_ERROR) {
        remember_cut(chat->memory, chat->id);
        end_with_error(chat, event);
        return true;
    }
    if (event->kind == CHAT_EVENT_PROGRESS)
        return true; /* the timer sees to comment lines */
    cache_visit_record(&chat->cached, event);
    request_log_hear(chat->log, event);
    remember_hear(chat->memory, event);
    bool is_last = event->kind == CHAT_EVENT_DONE;
    if (is_last && remember_holds(chat->memory) && !store(chat))
        return true;
    chat->edge->encode(chat->encoder, event, &chat->out);
    if (is_last)
        cache_visit_keep(&chat->cached, chat->answer);
    if (buf_status(&chat->out) != PH_OK) { /* sticky: what follows is lost, and said at the end */
        if (is_last && !chat->is_storing)
            too_large(chat);
        return true;
    }
    if (remember_holds(chat->memory))
        return true;
    bool more = chat->request.stream ? write_out(chat) : true;
    if (is_last)
        end_well(chat);
    return more;
}

/* true: the exchange is over, and gone. false: on_drain goes on. */
static bool play_hit(struct chat_exchange *chat)
{
    struct chat_event event;
    while (cache_visit_next(&chat->cached, &event)) {
        bool is_last = event.kind == CHAT_EVENT_DONE;
        bool more = on_event(chat, &event);
        if (is_last)
            return true;
        if (!more)
            return false;
    }
    struct chat_fault fault;
    chat_fault_set(&fault, 503, NULL, NULL, "out of memory");
    end_with_fault(chat, &fault);
    return true;
}

static bool make_encoder(struct chat_exchange *chat)
{
    chat->encoder = chat->edge->encoder_new(http_exchange_arena(chat->exchange), &chat->request, &chat->reply,
                                            chat->estimated_tokens);
    return chat->encoder != NULL;
}

static bool on_restart(void *ud)
{
    struct chat_exchange *chat = ud;
    if (chat->request.stream || chat->begun)
        return false;
    buf_clear(&chat->out);
    cache_visit_restart(&chat->cached);
    remember_restart(chat->memory);
    request_log_forget(chat->log);
    return make_encoder(chat);
}

/* Streams that have been silent get a comment line: proxies and clients cut connections that look dead. */
void gateway_chats_tick(struct gateway *gateway)
{
    static const struct chat_event alive = {.kind = CHAT_EVENT_PROGRESS};
    uint64_t now = clock_monotonic_ns(gateway->clock);
    for (struct chat_exchange *chat = gateway->chats; chat; chat = chat->next) {
        if (chat->has_written)
            chat->silent_since_ns = now;
        chat->has_written = false;
        if (chat->request.stream && !remember_holds(chat->memory) &&
            now - chat->silent_since_ns >= CHAT_KEEPALIVE_MS * (uint64_t)1000000) {
            chat->edge->encode(chat->encoder, &alive, &chat->out);
            (void)write_out(chat);
        }
    }
}

/* ---- The request */

static void release_out(void *ud)
{
    buf_release(ud);
}

static struct chat_exchange *chat_new(struct gateway *gateway, struct http_exchange *exchange,
                                      const struct visit *visit)
{
    struct arena *arena = http_exchange_arena(exchange);
    struct chat_exchange *chat = arena_calloc(arena, 1, sizeof *chat);
    if (!chat)
        return NULL;
    chat->gateway = gateway;
    chat->exchange = exchange;
    chat->caller = *visit->caller;
    chat->edge = gateway_edge(http_exchange_request(exchange));
    chat->start_ns = chat->silent_since_ns = clock_monotonic_ns(gateway->clock);
    buf_init(&chat->out, CHAT_REPLY_BYTES_MAX);
    return arena_on_release(arena, release_out, &chat->out) == 0 ? chat : NULL;
}

/* The SDKs say how long they wait. */
static uint64_t deadline_of(const struct chat_exchange *chat)
{
    const struct http_request *http = http_exchange_request(chat->exchange);
    const char *text = http_request_header(http, "x-stainless-timeout");
    if (!text)
        text = http_request_header(http, "x-request-timeout");
    char *end;
    double seconds = text ? strtod(text, &end) : 0;
    if (!text || end == text || !(seconds > 0) || seconds > DEADLINE_S_MAX)
        return 0;
    return chat->start_ns + (uint64_t)(seconds * 1e9);
}

static bool decode(struct chat_exchange *chat, enum chat_kind kind, const struct json *body,
                   struct chat_fault *fault)
{
    struct arena *arena = http_exchange_arena(chat->exchange);
    const struct http_request *http = http_exchange_request(chat->exchange);
    if (chat->edge->decode(arena, kind, body, &chat->request, fault) != PH_OK)
        return false;
    chat->request.api_version = http_request_header(http, "anthropic-version");
    chat->request.api_betas = http_request_header(http, "anthropic-beta");
    chat->request.request_id = http->id;
    if (!chat->request.conversation)
        chat->request.conversation = http_request_header(http, "x-conversation-id");
    return true;
}

/* The name in replies is the one asked for: clients look it up in what they know. */
static const char *reply_model(const struct chat_exchange *chat)
{
    const char *name = chat->request.model;
    bool is_default = !name || !*name || strcmp(name, "default") == 0;
    size_t index = gateway_default(chat->gateway, 0);
    return is_default ? provider_model_id(chat->gateway->models[index].provider) : name;
}

static void make_id(struct chat_exchange *chat)
{
    const char *prefix = chat->request.kind == CHAT_KIND_COMPLETION ? "cmpl-" : chat->edge->id_prefix;
    id_make(&chat->gateway->rng, prefix, chat->id);
}

static bool prepare(struct chat_exchange *chat, struct chat_fault *fault)
{
    struct gateway *gateway = chat->gateway;
    make_id(chat);
    chat->reply = (struct chat_reply){chat->id, reply_model(chat), clock_unix_ms(gateway->clock) / 1000};
    if (!make_encoder(chat)) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return false;
    }
    chat->cached = (struct cache_visit){.gateway = gateway, .request = &chat->request};
    bool is_whole = !chat->request.conversation && !chat->request.previous_response;
    if (!chat->memory || is_whole) /* else what was said before is not in the request: it has no key */
        cache_visit_begin(&chat->cached, gateway, http_exchange_request(chat->exchange), chat->edge->name,
                          &chat->caller, &chat->request);
    chat->log = request_log_begin(gateway, chat->exchange, &chat->request);
    return true;
}

static bool start(struct chat_exchange *chat, struct chat_fault *fault)
{
    struct answer_params params = {.gateway = chat->gateway,
                                   .request = &chat->request,
                                   .caller = &chat->caller,
                                   .request_id = http_exchange_request(chat->exchange)->id,
                                   .deadline_ns = deadline_of(chat),
                                   .event = on_event,
                                   .restart = on_restart,
                                   .ud = chat};
    return answer_start(http_exchange_arena(chat->exchange), &params, &chat->answer, fault);
}

/* When it is known whether a cache has the answer. false: the exchange is over, and gone. */
static bool go_on(struct chat_exchange *chat)
{
    struct chat_fault fault;
    if (chat->cached.is_hit)
        return !play_hit(chat);
    if (!start(chat, &fault)) {
        end_with_fault(chat, &fault);
        return false;
    }
    chat->sample.overhead_ns = now_ns(chat) - chat->start_ns;
    return true;
}

/* It waited in the list, and hears of a client that goes. */
static void on_looked_up(void *ud)
{
    (void)go_on(ud);
}

/* What is asked is known: it is admitted, and answered. */
static void admit(struct chat_exchange *chat)
{
    struct chat_fault fault;
    chat->estimated_tokens = route_estimate_tokens(&chat->request);
    if (!admission_begin(chat->gateway, &chat->caller, chat->estimated_tokens, &fault)) {
        gateway_reply_fault(chat->gateway, chat->exchange, &fault);
        return;
    }
    chat->gateway->open_chats++;
    if (!prepare(chat, &fault) || (chat->memory && !remember_ask(chat->memory, &fault))) {
        end_with_fault(chat, &fault);
        return;
    }
    bool waits = cache_visit_wait(&chat->cached, deadline_of(chat), on_looked_up, chat);
    if (!waits && !go_on(chat))
        return;
    link_chat(chat);
    if (!chat->memory)
        http_on_gone(chat->exchange, on_gone, chat);
}

/* The conversation is here. */
static void on_remembered(void *ud)
{
    struct chat_exchange *chat = ud;
    struct chat_fault fault;
    chat->is_loading = false;
    if (chat->is_gone)
        http_reply(chat->exchange, 499, NULL, NULL, 0);
    else if (!remember_apply(chat->memory, &fault))
        gateway_reply_fault(chat->gateway, chat->exchange, &fault);
    else
        admit(chat);
}

/* What this station cannot remember. */
static bool may_answer(const struct chat_exchange *chat, struct chat_fault *fault)
{
    if (chat->gateway->memory || (!chat->request.previous_response && !chat->request.refers))
        return true;
    if (chat->request.refers)
        chat_fault_set(fault, 400, "unsupported_parameter", "input",
                       "input refers to items by their ids, and none are kept here (memory: off); send the "
                       "items themselves, as the client's option store: false does");
    else
        chat_fault_set(fault, 400, "unsupported_parameter", "previous_response_id",
                       "previous_response_id: responses are not kept here (memory: off); send the whole "
                       "conversation in input");
    return false;
}

/* The request is whole. */
static void proceed(struct chat_exchange *chat)
{
    struct chat_fault fault;
    struct gateway *gateway = drill_gateway(chat->gateway, &chat->request, &chat->caller);
    if (chat->gateway != gateway)
        chat->caller = (struct caller){.key = NULL}; /* a drill uses up nobody's minute */
    chat->gateway = gateway;
    if (!may_answer(chat, &fault)) {
        gateway_reply_fault(gateway, chat->exchange, &fault);
        return;
    }
    if (!remember_wants(gateway, &chat->request)) {
        admit(chat);
        return;
    }
    chat->is_loading = true;
    chat->memory =
        remember_begin(gateway, chat->exchange, &chat->caller, &chat->request, on_remembered, chat, &fault);
    if (chat->memory)
        http_on_gone(chat->exchange, on_gone, chat);
    else
        gateway_reply_fault(gateway, chat->exchange, &fault);
}

/* The items that its input named are here. */
static void on_recalled(void *ud)
{
    struct chat_exchange *chat = ud;
    struct chat_fault fault;
    const struct json *body = NULL;
    chat->is_loading = false;
    if (chat->is_gone)
        http_reply(chat->exchange, 499, NULL, NULL, 0);
    else if (!(body = remember_recalled(chat->recall, &fault)) || !decode(chat, CHAT_KIND_CHAT, body, &fault))
        gateway_reply_fault(chat->gateway, chat->exchange, &fault);
    else
        proceed(chat);
}

static void recall(struct chat_exchange *chat)
{
    struct chat_fault fault;
    chat->is_loading = true;
    chat->recall = remember_recall(chat->gateway, chat->exchange, &chat->caller, &chat->request, on_recalled,
                                   chat, &fault);
    if (chat->recall)
        http_on_gone(chat->exchange, on_gone, chat);
    else
        gateway_reply_fault(chat->gateway, chat->exchange, &fault);
}

static void handle_request(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit,
                           enum chat_kind kind)
{
    struct chat_fault fault;
    struct json *body;
    struct chat_exchange *chat = chat_new(gateway, exchange, visit);
    if (!chat) {
        chat_fault_set(&fault, 503, NULL, NULL, "out of memory");
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    if (!gateway_body(exchange, &body, &fault) || !decode(chat, kind, body, &fault)) {
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    chat->sample.operation = kind == CHAT_KIND_CHAT ? OPERATION_CHAT : OPERATION_COMPLETION;
    if (chat->request.refers && gateway->memory)
        recall(chat);
    else
        proceed(chat);
}

void handle_chat_completions(struct gateway *gateway, struct http_exchange *exchange,
                             const struct visit *visit)
{
    handle_request(gateway, exchange, visit, CHAT_KIND_CHAT);
}

void handle_completions(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    handle_request(gateway, exchange, visit, CHAT_KIND_COMPLETION);
}

void handle_messages(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    handle_request(gateway, exchange, visit, CHAT_KIND_CHAT);
}

/* How many tokens a prompt has, by the model that would be asked first. */
void handle_count_tokens(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    struct arena *arena = http_exchange_arena(exchange);
    struct route_choice *choice = arena_calloc(arena, 1, sizeof *choice);
    struct chat_request request;
    struct chat_fault fault;
    struct json *json;
    struct buf body;
    if (!choice || !gateway_body(exchange, &json, &fault) ||
        chat_anthropic_count_decode(arena, json, &request, &fault) != PH_OK ||
        !route_choose(gateway, arena, &request, route_needs(&request), visit->caller, choice, &fault)) {
        if (!choice)
            chat_fault_set(&fault, 503, NULL, NULL, "out of memory");
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    struct provider *provider = gateway->models[choice->list[0].model].provider;
    buf_init(&body, 256);
    chat_anthropic_count_encode(provider_count_tokens(provider, &request, NULL), &body);
    gateway_reply(gateway, exchange, 200, JSON_TYPE, &body);
    buf_release(&body);
}

void handle_responses(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    handle_request(gateway, exchange, visit, CHAT_KIND_CHAT);
}
