/* A model of an account elsewhere. One call is one attempt: a pass of the account, a POST, a reader over what
 * comes back, events to the sink.
 *
 * What a reply is, is decided by its head: a status other than 2xx is a fault, whose body the codec reads; an
 * event stream or a JSON object goes to the codec's reader, whatever was asked for; anything else under a 200
 * is a server that is not the one we mean to talk to. DONE is only said when the reader has said that the
 * reply was whole.
 *
 * Back-pressure: a sink that says "no more" pauses the call. Of what comes all the same, events of a piece
 * that the reader was fed already go on to the sink, later pieces wait in `pending`; so may the end.
 *
 * Counting: events carry tokens as counted from their deltas (provider_tokens.c). The last USAGE is the
 * provider's when it came after the last FINISH, else ours, estimated and marked so.
 *
 * Invariants:
 *  R1  The pass is given back before the last event is emitted: the sink may start the next attempt inside
 *      it, and must find the account's new state.
 *  R2  `http` is NULL from the moment `end` is called; a call is freed when neither net nor a function of
 *      this file further down the stack still uses it (`depth`).
 *  R3  After a call is dead no event of it is emitted, whatever the reader still says. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "provider/provider_int.h"
#include "provider/provider_remote_int.h"

#define RATIO_DELTAS_MIN 8 /* shorter replies teach nothing about deltas, or about speed */
#define SPEED_SAMPLES 8    /* the length of the running averages */
#define UPSTREAM_ID_BYTES_MAX 128

struct remote {
    struct provider base;
    struct provider_account *account;
    struct account_lane *lane;
    char *upstream;
    struct token_ratio prompts, deltas;
    double prefill_tokens_s, decode_tokens_s; /* running averages; 0: nothing measured yet */
};

enum remote_phase {
    REMOTE_HEAD,  /* nothing came yet */
    REMOTE_READ,  /* the reader is fed */
    REMOTE_FAULT, /* the body of a reply that is an error is collected */
    REMOTE_EMBED  /* the body of embeddings is collected */
};

struct remote_call {
    struct provider_call base;
    struct remote *remote;
    struct net_loop *loop;
    struct arena arena; /* the post, the reader */
    struct chat_post post;
    struct account_pass pass;
    struct http_call *http; /* R2 */

    const struct chat_request *request; /* NULL: embeddings */
    const struct chat_embed_request *embed;
    struct provider_sink sink;
    struct provider_embed_sink embed_sink;

    enum remote_phase phase;
    struct chat_reader *reader;
    bool is_stream;
    struct buf body;    /* FAULT, EMBED */
    struct buf pending; /* READ: pieces that wait for provider_resume */
    bool blocked, hung_up, dead;
    bool has_ended; /* the end waits too */
    bool was_sent;  /* known at the end: else it can have cost nothing */
    enum http_call_end how;
    char end_message[PH_ERR_MESSAGE_MAX];
    struct net_wake *wake; /* a turn of the loop was asked for */
    unsigned depth;

    int http_status;
    uint64_t hint_ms;
    char upstream_id[UPSTREAM_ID_BYTES_MAX];
    uint64_t sent_ns, head_ns, first_ns, last_ns;

    struct delta_count count;
    struct chat_event usage; /* the last one that came */
    size_t finished;         /* choices */
    bool usage_came, usage_final;
    bool reasons; /* REASONING was seen */
};

static uint64_t now_ns(const struct remote_call *call)
{
    return clock_monotonic_ns(account_params(call->remote->account)->clock);
}

/* ---- The end of a call */

static void call_free(struct remote_call *call)
{
    arena_release(&call->arena);
    buf_release(&call->body);
    buf_release(&call->pending);
    net_wake_close(call->wake);
    mem_free(call);
}

static void enter(struct remote_call *call)
{
    call->depth++;
}

/* false: the call is gone. */
static bool leave(struct remote_call *call)
{
    call->depth--;
    if (!call->dead)
        return true;
    if (call->depth == 0)
        call_free(call);
    return false;
}

/* Nothing comes any more: R3. */
static void call_kill(struct remote_call *call)
{
    call->dead = true;
    if (call->http)
        http_call_cancel(call->http);
    call->http = NULL;
    if (call->depth == 0)
        call_free(call);
}

static void emit_last(struct remote_call *call, const struct chat_event *event)
{
    struct provider_sink sink = call->sink;
    enter(call);
    if (call->http)
        http_call_cancel(call->http);
    call->http = NULL;
    sink.event(sink.ud, event);
    call->dead = true;
    (void)leave(call);
}

static enum ph_status status_of(enum chat_cause cause)
{
    switch (cause) {
    case CHAT_CAUSE_REQUEST:
        return PH_ERR_ARG;
    case CHAT_CAUSE_CONTEXT:
        return PH_ERR_LIMIT;
    case CHAT_CAUSE_TIMEOUT:
        return PH_ERR_TIMEOUT;
    case CHAT_CAUSE_RATE:
    case CHAT_CAUSE_OVERLOADED:
        return PH_ERR_BUSY;
    case CHAT_CAUSE_UNABLE:
        return PH_ERR_UNSUPPORTED;
    default:
        return PH_ERR_IO;
    }
}

/* The fault is dressed already. */
static void fail(struct remote_call *call, const struct chat_fault *fault)
{
    log_debug("provider", "%s: %s (%s)", call->remote->base.model_id, fault->message,
              chat_cause_name(fault->cause));
    account_leave(&call->pass, fault, call->http_status, call->hint_ms);
    if (call->embed) {
        struct provider_embed_sink sink = call->embed_sink;
        enter(call);
        sink.done(sink.ud, NULL, fault);
        call->dead = true;
        if (call->http)
            http_call_cancel(call->http);
        call->http = NULL;
        (void)leave(call);
        return;
    }
    struct chat_event event = chat_fault_event(fault, status_of(fault->cause));
    emit_last(call, &event);
}

/* A fault of the reader or of a body: the codec's words. */
static void fail_dressed(struct remote_call *call, struct chat_fault *fault)
{
    if (call->hint_ms)
        fault->retry_after_s = (uint32_t)((call->hint_ms + 999) / 1000);
    else
        call->hint_ms = (uint64_t)fault->retry_after_s * 1000;
    remote_fault_dress(fault, &call->pass, call->http_status);
    fail(call, fault);
}

static void fail_ended(struct remote_call *call, enum http_call_end how, const char *message)
{
    struct chat_fault fault;
    remote_fault_of_end(&fault, provider_account_name(call->remote->account), how, message);
    account_pass_scrub(&call->pass, fault.message);
    fail(call, &fault);
}

/* ---- Events */

/* A running average of tokens a second. */
static void measure(double *speed, double tokens, uint64_t ns)
{
    if (!(tokens > 0) || ns == 0)
        return;
    double now = tokens * 1e9 / (double)ns;
    *speed += *speed > 0 ? (now - *speed) / SPEED_SAMPLES : now;
}

/* What a reply that reported its usage says about this model. */
static void learn(struct remote_call *call)
{
    struct remote *remote = call->remote;
    uint64_t shown = call->usage.usage.completion_tokens;
    if (!call->reasons) /* thoughts that were not shown are no deltas */
        shown -= shown > call->usage.usage.reasoning_tokens ? call->usage.usage.reasoning_tokens : shown;
    struct prompt_weight weight = prompt_weigh(call->request);
    if (weight.media == 0 && weight.known == 0)
        token_ratio_learn(&remote->prompts, weight.text, (double)call->usage.usage.prompt_tokens);
    if (!call->is_stream || call->count.deltas < RATIO_DELTAS_MIN)
        return;
    token_ratio_learn(&remote->deltas, call->count.weight, (double)shown);
    measure(&remote->decode_tokens_s, (double)shown, call->last_ns - call->first_ns);
    measure(&remote->prefill_tokens_s, (double)call->usage.usage.prompt_tokens,
            call->first_ns - call->sent_ns);
}

static size_t delta_bytes(const struct chat_event *event)
{
    if (event->kind != CHAT_EVENT_TOOL_CALL)
        return event->text.text ? event->text.len : 0;
    size_t bytes = event->tool_call.arguments.text ? event->tool_call.arguments.len : 0;
    return bytes + (event->tool_call.name ? strlen(event->tool_call.name) : 0);
}

static void take_delta(struct remote_call *call, struct chat_event *event)
{
    size_t known = event->tokens ? event->tokens : event->logprob_count;
    event->tokens = delta_count_add(&call->count, &call->remote->deltas, delta_bytes(event), known);
    if (!call->first_ns)
        call->first_ns = now_ns(call);
    call->reasons = call->reasons || event->kind == CHAT_EVENT_REASONING;
}

static void on_reader_event(void *ud, const struct chat_event *from)
{
    struct remote_call *call = ud;
    struct chat_event event = *from;
    if (call->dead)
        return;
    account_pass_alive(&call->pass);
    switch (event.kind) {
    case CHAT_EVENT_TEXT:
    case CHAT_EVENT_REASONING:
    case CHAT_EVENT_TOOL_CALL:
        take_delta(call, &event);
        break;
    case CHAT_EVENT_FINISH:
        call->finished++;
        call->usage_final = false;
        call->last_ns = now_ns(call);
        break;
    case CHAT_EVENT_USAGE:
        call->usage = event;
        call->usage_came = true;
        call->usage_final = call->finished >= chat_choice_count(call->request);
        break;
    default:
        break;
    }
    if (!call->sink.event(call->sink.ud, &event) && !call->hung_up)
        call->blocked = true;
}

/* What came is counted, the rest is estimated. */
static void emit_estimate(struct remote_call *call)
{
    struct chat_event event = {.kind = CHAT_EVENT_USAGE};
    uint64_t counted = (uint64_t)(call->count.tokens + 0.5);
    if (call->usage_came)
        event.usage = call->usage.usage;
    if (event.usage.prompt_tokens == 0 && call->was_sent) {
        struct prompt_weight weight = prompt_weigh(call->request);
        event.usage.prompt_tokens = prompt_guess(&weight, &call->remote->prompts);
    }
    if (event.usage.completion_tokens < counted)
        event.usage.completion_tokens = counted;
    event.usage.estimated = call->was_sent;
    (void)call->sink.event(call->sink.ud, &event);
}

/* The reply is whole, or nobody wants the rest of it. */
static void finish(struct remote_call *call)
{
    enter(call);
    if (call->usage_final)
        learn(call);
    else
        emit_estimate(call);
    if (!leave(call))
        return;
    if (call->phase == REMOTE_READ)
        account_leave(&call->pass, NULL, call->http_status, 0);
    else
        account_abandon(&call->pass); /* it was hung up before it could say anything */
    emit_last(call, &(struct chat_event){.kind = CHAT_EVENT_DONE});
}

/* ---- What net says */

static const char *header(const struct http_header *headers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(headers[i].name, name) == 0)
            return headers[i].value;
    return NULL;
}

static void keep_upstream_id(struct remote_call *call, const struct http_header *headers, size_t count)
{
    const char *ours = call->embed ? call->embed->request_id : call->request->request_id;
    static const char *const names[] = {"x-request-id", "request-id", "x-goog-request-id", "cf-ray"};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !call->upstream_id[0]; i++) {
        const char *id = header(headers, count, names[i]);
        size_t len = id ? strlen(id) : 0;
        if (len == 0 || len >= sizeof call->upstream_id || (ours && strcmp(id, ours) == 0))
            continue; /* some give ours back */
        memcpy(call->upstream_id, id, len + 1);
    }
}

static void begin_reader(struct remote_call *call, const char *content_type)
{
    enum remote_body body = remote_body_of(content_type);
    struct chat_fault fault;
    if (body == REMOTE_BODY_OTHER) {
        chat_fault_set(&fault, 502, NULL, NULL, "the reply is %.64s, not an event stream and not JSON",
                       content_type);
        fault.cause = CHAT_CAUSE_SERVER;
        fail_dressed(call, &fault);
        return;
    }
    call->phase = REMOTE_READ;
    call->is_stream = body == REMOTE_BODY_STREAM || (body == REMOTE_BODY_UNKNOWN && call->request->stream);
    struct chat_reader_params params = {
        .request = call->request, .is_stream = call->is_stream, .event = on_reader_event, .ud = call};
    call->reader = account_params(call->remote->account)->codec->reader_new(&call->arena, &params);
    if (call->reader)
        return;
    chat_fault_set(&fault, 503, NULL, NULL, "out of memory");
    fail(call, &fault);
}

static void on_head(void *ud, int status, const struct http_header *headers, size_t count)
{
    struct remote_call *call = ud;
    const struct clock_source *clock = account_params(call->remote->account)->clock;
    call->http_status = status;
    call->head_ns = now_ns(call);
    keep_upstream_id(call, headers, count);
    if (status < 200 || status > 299) {
        call->phase = REMOTE_FAULT;
        call->hint_ms = retry_hint_ms(status, headers, count, clock_unix_ms(clock));
    } else if (call->embed) {
        call->phase = REMOTE_EMBED;
    } else {
        begin_reader(call, header(headers, count, "content-type"));
    }
}

static void conclude(struct remote_call *call, enum http_call_end how, const char *message);

/* false: the call is gone. */
static bool feed(struct remote_call *call, const char *bytes, size_t len)
{
    struct chat_fault fault;
    enter(call);
    enum ph_status status =
        account_params(call->remote->account)->codec->feed(call->reader, bytes, len, &fault);
    if (!leave(call))
        return false;
    if (status == PH_OK)
        return true;
    fail_dressed(call, &fault);
    return false;
}

static bool on_read_body(struct remote_call *call, const char *bytes, size_t len)
{
    if (!call->blocked && call->pending.len == 0)
        return feed(call, bytes, len) ? !call->blocked : true;
    buf_append(&call->pending, bytes, len);
    if (buf_status(&call->pending) == PH_OK)
        return false;
    fail_ended(call, HTTP_CALL_TOO_LARGE, "it went on sending although it was told to pause");
    return true;
}

static bool on_body(void *ud, const char *bytes, size_t len)
{
    struct remote_call *call = ud;
    if (call->phase == REMOTE_READ)
        return on_read_body(call, bytes, len);
    size_t room = call->body.max - call->body.len;
    buf_append(&call->body, bytes, len < room ? len : room);
    if (len <= room && buf_status(&call->body) == PH_OK)
        return true;
    if (call->phase == REMOTE_FAULT)
        conclude(call, HTTP_CALL_WHOLE, ""); /* what came is enough to say what is wrong */
    else
        fail_ended(call, HTTP_CALL_TOO_LARGE, "the reply is too large");
    return true;
}

static void conclude_fault(struct remote_call *call)
{
    struct chat_fault fault = {0};
    if (call->http_status < 400) {
        chat_fault_set(&fault, 502, NULL, NULL,
                       "it answered with status %d: its address (base_url) may be wrong", call->http_status);
        fault.cause = CHAT_CAUSE_NO_MODEL;
    } else {
        const char *body = call->body.len ? call->body.data : "";
        account_params(call->remote->account)
            ->codec->fault(&call->arena, call->http_status, body, call->body.len, &fault);
    }
    fail_dressed(call, &fault);
}

static void conclude_embed(struct remote_call *call)
{
    struct chat_fault fault = {0};
    struct chat_embeddings embeddings;
    const char *body = call->body.len ? call->body.data : "";
    if (chat_embed_read(&call->arena, body, call->body.len, &embeddings, &fault) != PH_OK) {
        fail_dressed(call, &fault);
        return;
    }
    if (embeddings.count != call->embed->input_count) {
        chat_fault_set(&fault, 502, NULL, NULL, "%zu embeddings came for %zu inputs", embeddings.count,
                       call->embed->input_count);
        fault.cause = CHAT_CAUSE_SERVER;
        fail_dressed(call, &fault);
        return;
    }
    struct provider_embed_sink sink = call->embed_sink;
    account_leave(&call->pass, NULL, call->http_status, 0);
    enter(call);
    sink.done(sink.ud, &embeddings, NULL);
    call->dead = true;
    (void)leave(call);
}

/* Whatever ended it: when the reader has everything, the reply is whole, as after a reset that came behind
 * the last byte. */
static void conclude_read(struct remote_call *call, enum http_call_end how, const char *message)
{
    struct chat_fault fault = {0};
    enter(call);
    enum ph_status status = account_params(call->remote->account)->codec->end(call->reader, &fault);
    if (!leave(call))
        return;
    if (status == PH_OK || call->hung_up)
        finish(call);
    else if (how == HTTP_CALL_WHOLE)
        fail_dressed(call, &fault);
    else
        fail_ended(call, how, message);
}

/* Of its own, with no need of our hanging up. */
static bool has_failed_before(enum http_call_end how)
{
    return how == HTTP_CALL_NO_NAME || how == HTTP_CALL_NO_CONNECTION || how == HTTP_CALL_TLS ||
           how == HTTP_CALL_TIMEOUT_CONNECT || how == HTTP_CALL_FAILED;
}

static void conclude(struct remote_call *call, enum http_call_end how, const char *message)
{
    switch (call->phase) {
    case REMOTE_HEAD:
        call->was_sent = how != HTTP_CALL_UNSENT;
        if (call->hung_up && !has_failed_before(how))
            finish(call);
        else
            fail_ended(call, how, message);
        break;
    case REMOTE_READ:
        conclude_read(call, how, message);
        break;
    case REMOTE_FAULT:
        conclude_fault(call);
        break;
    case REMOTE_EMBED:
        if (how == HTTP_CALL_WHOLE)
            conclude_embed(call);
        else
            fail_ended(call, how, message);
        break;
    }
}

static void on_end(void *ud, enum http_call_end how, const char *message)
{
    struct remote_call *call = ud;
    call->http = NULL;
    if (!call->blocked && call->pending.len == 0) {
        conclude(call, how, message);
        return;
    }
    size_t len = strlen(message);
    len = len < sizeof call->end_message ? len : sizeof call->end_message - 1;
    memcpy(call->end_message, message, len);
    call->has_ended = true;
    call->how = how;
}

/* ---- Going on after a pause */

static void go_on(void *ud)
{
    struct remote_call *call = ud;
    net_wake_close(call->wake);
    call->wake = NULL;
    if (call->blocked)
        return; /* another "no more" came in between */
    struct buf pending = call->pending;
    buf_init(&call->pending, PROVIDER_PENDING_BYTES_MAX);
    bool alive = pending.len == 0 || feed(call, pending.data, pending.len);
    buf_release(&pending);
    if (!alive || call->blocked)
        return;
    if (call->has_ended)
        conclude(call, call->how, call->end_message);
    else if (call->http)
        http_call_resume(call->http);
}

/* Not here and now: callbacks do not run inside the call that asks for them. */
static void go_on_soon(struct remote_call *call)
{
    if (call->pending.len == 0 && !call->has_ended) {
        if (call->http)
            http_call_resume(call->http);
        return;
    }
    if (call->wake)
        return;
    if (net_wake_open(&call->wake, call->loop, go_on, call) == PH_OK)
        net_wake_call(call->wake);
    else
        call->wake = NULL, go_on(call);
}

static void remote_resume(struct provider_call *base)
{
    struct remote_call *call = (struct remote_call *)base;
    if (!call->blocked)
        return;
    call->blocked = false;
    go_on_soon(call);
}

static void remote_cancel(struct provider_call *base)
{
    struct remote_call *call = (struct remote_call *)base;
    account_abandon(&call->pass);
    call_kill(call);
}

static void remote_hang_up(struct provider_call *base, uint32_t drain_ms)
{
    struct remote_call *call = (struct remote_call *)base;
    if (call->embed) {
        remote_cancel(base);
        return;
    }
    bool was_blocked = call->blocked;
    call->hung_up = true;
    call->blocked = false;
    if (call->http)
        http_call_hang_up(call->http, drain_ms);
    if (was_blocked)
        go_on_soon(call);
}

static void remote_note(const struct provider_call *base, struct provider_call_note *out)
{
    const struct remote_call *call = (const struct remote_call *)base;
    *out = (struct provider_call_note){.key_hint = account_pass_hint(&call->pass),
                                       .http_status = call->http_status,
                                       .upstream_id = call->upstream_id[0] ? call->upstream_id : NULL,
                                       .sent_ns = call->sent_ns,
                                       .head_ns = call->head_ns};
}

/* ---- Beginning */

static struct remote_call *call_new(struct remote *remote, struct net_loop *loop, const struct arena *request)
{
    struct remote_call *call = mem_calloc(1, sizeof *call);
    if (!call)
        return NULL;
    call->base.ops = remote->base.ops;
    call->remote = remote;
    call->loop = loop;
    call->was_sent = true;
    arena_init_pooled(&call->arena, PROVIDER_ARENA_BYTES_MAX, request->pool);
    buf_init(&call->pending, PROVIDER_PENDING_BYTES_MAX);
    buf_init(&call->body, PROVIDER_FAULT_BYTES_MAX);
    return call;
}

static struct chat_target target_of(const struct remote_call *call)
{
    const struct provider_account_params *params = account_params(call->remote->account);
    return (struct chat_target){.base_url = params->base_url,
                                .model = call->remote->upstream,
                                .key = account_pass_secret(&call->pass),
                                .max_completion = params->max_completion,
                                .no_stream_usage = params->no_stream_usage};
}

static enum ph_status send_post(struct remote_call *call, bool is_stream, const char *request_id,
                                struct ph_err *err)
{
    const struct provider_account_params *params = account_params(call->remote->account);
    struct http_header headers[CHAT_POST_HEADERS_MAX + ACCOUNT_HEADERS_MAX + 1];
    size_t count = 0;
    for (size_t i = 0; i < call->post.header_count; i++)
        headers[count++] = (struct http_header){call->post.headers[i].name, call->post.headers[i].value};
    for (size_t i = 0; i < params->header_count; i++)
        headers[count++] = params->headers[i];
    if (request_id)
        headers[count++] = (struct http_header){"x-request-id", request_id};
    struct http_call_params post = {
        .method = "POST",
        .url = call->post.url,
        .headers = headers,
        .header_count = count,
        .body = call->post.body,
        .body_len = call->post.body_len,
        .connect_timeout_ms = params->connect_timeout_ms,
        .head_timeout_ms = params->head_timeout_ms,
        .silence_timeout_ms = params->silence_timeout_ms,
        .body_bytes_max = params->reply_bytes_max,
    };
    if (!is_stream && !post.head_timeout_ms)
        post.head_timeout_ms = PROVIDER_WHOLE_TIMEOUT_MS;
    struct http_call_sink sink = {on_head, on_body, on_end, call};
    call->sent_ns = now_ns(call);
    return http_call_start(&call->http, params->client, &post, &sink, err);
}

/* The rest of a beginning: the request was encoded with `status`; `fault` says why not. */
static enum ph_status begin(struct remote_call *call, enum ph_status status, bool is_stream,
                            const char *request_id, struct arena *arena, struct chat_fault *fault)
{
    if (status == PH_OK) {
        struct ph_err err = {0};
        status = send_post(call, is_stream, request_id, &err);
        if (status != PH_OK)
            remote_fault_of_end(fault, call->remote->base.name, HTTP_CALL_FAILED, err.message);
    } else {
        remote_fault_keep(fault, arena); /* its strings may be in the call's own */
    }
    if (status == PH_OK)
        return PH_OK;
    account_abandon(&call->pass);
    call_free(call);
    return status;
}

static enum ph_status no_memory(struct chat_fault *fault)
{
    chat_fault_set(fault, 503, NULL, NULL, "out of memory");
    return PH_ERR_NOMEM;
}

static enum ph_status remote_start(struct provider *provider, struct net_loop *loop,
                                   const struct chat_request *request, const struct provider_sink *sink,
                                   struct provider_call **out, struct chat_fault *fault)
{
    struct remote *remote = (struct remote *)provider;
    *out = NULL;
    struct remote_call *call = call_new(remote, loop, request->arena);
    if (!call)
        return no_memory(fault);
    uint64_t sticky = account_params(remote->account)->key_count > 1 ? remote_sticky(request) : 0;
    enum ph_status status = account_enter(remote->lane, sticky, &call->pass, fault);
    if (status != PH_OK) {
        call_free(call);
        return status;
    }
    call->request = request;
    call->sink = *sink;
    struct chat_target target = target_of(call);
    status =
        account_params(remote->account)->codec->encode(&call->arena, request, &target, &call->post, fault);
    status = begin(call, status, request->stream, request->request_id, request->arena, fault);
    if (status == PH_OK)
        *out = &call->base;
    return status;
}

static enum ph_status remote_embed(struct provider *provider, struct net_loop *loop,
                                   const struct chat_embed_request *request,
                                   const struct provider_embed_sink *sink, struct provider_call **out,
                                   struct chat_fault *fault)
{
    struct remote *remote = (struct remote *)provider;
    if (account_params(remote->account)->codec != &chat_codec_openai) {
        chat_fault_set(fault, 400, "unsupported", "model", "%s (%s) has no embeddings that are known here",
                       provider->model_id, provider->name);
        fault->cause = CHAT_CAUSE_UNABLE;
        return PH_ERR_UNSUPPORTED;
    }
    struct remote_call *call = call_new(remote, loop, request->arena);
    if (!call)
        return no_memory(fault);
    enum ph_status status = account_enter(remote->lane, 0, &call->pass, fault);
    if (status != PH_OK) {
        call_free(call);
        return status;
    }
    call->embed = request;
    call->embed_sink = *sink;
    call->body.max = HTTP_CALL_BODY_BYTES_MAX;
    struct chat_target target = target_of(call);
    status = chat_embed_post(&call->arena, request, &target, &call->post, fault);
    status = begin(call, status, false, request->request_id, request->arena, fault);
    if (status == PH_OK)
        *out = &call->base;
    return status;
}

/* ---- The provider's other functions */

static void remote_state(const struct provider *provider, struct provider_state *out)
{
    const struct remote *remote = (const struct remote *)provider;
    account_state(remote->lane, out);
    out->prefill_tokens_s = remote->prefill_tokens_s;
    out->decode_tokens_s = remote->decode_tokens_s;
}

static size_t remote_count(struct provider *provider, const struct chat_request *request, bool *exact)
{
    struct remote *remote = (struct remote *)provider;
    struct prompt_weight weight = prompt_weigh(request);
    *exact = weight.text == 0 && weight.media == 0; /* ids were given */
    return prompt_estimate(&weight, &remote->prompts);
}

void remote_forget(struct provider *provider)
{
    account_lane_forget(((struct remote *)provider)->lane);
}

static void remote_free(struct provider *provider)
{
    struct remote *remote = (struct remote *)provider;
    account_lane_free(remote->lane);
    mem_free(remote->upstream);
    mem_free(remote);
}

enum ph_status provider_remote_create(struct provider **out, const char *model_id,
                                      struct provider_account *account, const char *upstream,
                                      size_t context_len, struct ph_err *err)
{
    static const struct provider_ops ops = {
        .kind = "remote",
        .start = remote_start,
        .resume = remote_resume,
        .cancel = remote_cancel,
        .hang_up = remote_hang_up,
        .note = remote_note,
        .embed = remote_embed,
        .state = remote_state,
        .count = remote_count,
        .free = remote_free,
    };
    *out = NULL;
    struct remote *remote = mem_calloc(1, sizeof *remote);
    if (!remote || provider_init(&remote->base, &ops, model_id) != 0) {
        mem_free(remote);
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    }
    remote->account = account;
    remote->base.name = provider_account_name(account);
    remote->base.context_len = context_len;
    remote->base.ready = true;
    remote->upstream = mem_strdup(upstream ? upstream : model_id);
    if (!remote->upstream || account_lane_create(&remote->lane, account, err) != PH_OK) {
        provider_free(&remote->base);
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    }
    *out = &remote->base;
    return PH_OK;
}
