/* One request of a load: its body, its reply piece by piece, and what kind of end it had.
 *
 * The clock is read once for whatever one read of the socket brought: pieces that came together have the same
 * time. The station's own reader of OpenAI's dialect decides what a piece is, so that any server it can be
 * connected to can be measured too. */
#include <stdio.h>
#include <string.h>

#include "ops/load_int.h"

#define ARENA_BYTES_MAX ((size_t)256 << 20)
#define PIECES_MAX ((size_t)1 << 20)
#define REFUSAL_BYTES_MAX ((size_t)64 << 10)
#define REPLY_BYTES_MAX ((size_t)1 << 30)
#define CONNECT_TIMEOUT_MS 10000

uint64_t load_now_ns(const struct load_wire *wire)
{
    return clock_monotonic_ns(wire->clock) - wire->start_ns;
}

/* ---- What is sent */

void load_put_url(struct buf *out, const struct load_target *target, const char *path)
{
    size_t len = strlen(target->url);
    while (len && target->url[len - 1] == '/')
        len--;
    if (len >= 3 && memcmp(target->url + len - 3, "/v1", 3) == 0)
        len -= 3;
    if (strncmp(target->url, "http://", 7) != 0 && strncmp(target->url, "https://", 8) != 0)
        buf_puts(out, "http://");
    buf_append(out, target->url, len);
    buf_puts(out, path);
}

size_t load_headers(const struct load_target *target, struct buf *bearer,
                    struct http_header out[LOAD_HEADERS_MAX])
{
    out[0] = (struct http_header){"content-type", "application/json"};
    if (!target->key)
        return 1;
    buf_puts(bearer, "Bearer ");
    buf_puts(bearer, target->key);
    out[1] = (struct http_header){"authorization", bearer->data ? bearer->data : ""};
    return 2;
}

void load_put_body(const struct load_target *target, const struct load_body *body, struct buf *out)
{
    buf_puts(out, "{\"model\":");
    json_write_string(out, target->model, strlen(target->model));
    if (target->api == LOAD_COMPLETION) {
        buf_puts(out, ",\"prompt\":");
        json_write_string(out, body->text, body->text_len);
    } else if (body->messages) {
        buf_puts(out, ",\"messages\":");
        buf_puts(out, body->messages);
    } else {
        buf_puts(out, ",\"messages\":[{\"role\":\"user\",\"content\":");
        json_write_string(out, body->text, body->text_len);
        buf_puts(out, "}]");
    }
    buf_puts(out, ",\"max_tokens\":");
    buf_put_uint(out, body->max_tokens);
    if (body->ignore_end)
        buf_puts(out, ",\"ignore_eos\":true");
    if (!body->whole)
        buf_puts(out, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    buf_putc(out, '}');
}

/* ---- Life */

void load_call_init(struct load_call *call, struct load_wire *wire, void (*ended)(struct load_call *call),
                    void *ud)
{
    *call = (struct load_call){.wire = wire, .ended = ended, .ud = ud};
    arena_init_pooled(&call->arena, ARENA_BYTES_MAX, &wire->pool);
    buf_init(&call->body, LOAD_BODY_BYTES_MAX);
    buf_init(&call->times, PIECES_MAX * sizeof(uint64_t));
    buf_init(&call->answer, LOAD_BODY_BYTES_MAX);
    buf_init(&call->refusal, REFUSAL_BYTES_MAX);
}

void load_call_release(struct load_call *call)
{
    arena_release(&call->arena);
    buf_release(&call->body);
    buf_release(&call->times);
    buf_release(&call->answer);
    buf_release(&call->refusal);
}

static void say(struct load_call *call, const char *words)
{
    snprintf(call->words, sizeof call->words, "%.*s", LOAD_WORDS_MAX - 1, words);
}

static void finish(struct load_call *call, enum load_error error)
{
    struct load_sample *sample = &call->sample;
    sample->error = error;
    sample->chunk_count = call->times.len / sizeof(uint64_t);
    if (sample->counted == LOAD_COUNTED_NOT && sample->is_stream && sample->chunk_count) {
        sample->tokens_out = sample->chunk_count;
        sample->counted = LOAD_COUNTED_CHUNKS;
    }
    if (error == LOAD_OK && !sample->chunk_count && !sample->tokens_out) {
        sample->error = LOAD_EMPTY;
        say(call, "an answer without a token");
    }
    call->reader = NULL;
    sample->end_ns = load_now_ns(call->wire);
}

static void end(struct load_call *call, enum load_error error)
{
    finish(call, error);
    arena_clear(&call->arena);
    call->ended(call);
}

void load_call_cancel(struct load_call *call)
{
    if (!call->http)
        return;
    http_call_cancel(call->http);
    call->http = NULL;
    finish(call, LOAD_UNFINISHED);
    arena_clear(&call->arena);
}

/* ---- What comes */

static void on_event(void *ud, const struct chat_event *event)
{
    struct load_call *call = ud;
    if (event->kind == CHAT_EVENT_USAGE) {
        call->sample.tokens_in = event->usage.prompt_tokens;
        call->sample.tokens_out = event->usage.completion_tokens;
        call->sample.counted = LOAD_COUNTED_USAGE;
        return;
    }
    bool is_text = event->kind == CHAT_EVENT_TEXT || event->kind == CHAT_EVENT_REASONING;
    if (!(is_text && event->text.len) && event->kind != CHAT_EVENT_TOOL_CALL)
        return;
    buf_append(&call->times, &call->sample.end_ns, sizeof call->sample.end_ns);
    call->wire->pieces++;
    if (call->keep_answer && event->kind == CHAT_EVENT_TEXT)
        buf_append(&call->answer, event->text.text, event->text.len);
}

static void on_head(void *ud, int status, const struct http_header *headers, size_t header_count)
{
    struct load_call *call = ud;
    call->sample.status = status;
    if (status != 200)
        return;
    const char *type = http_header_find(headers, header_count, "content-type");
    call->sample.is_stream = type && strncmp(type, "text/event-stream", 17) == 0;
    call->reader = chat_codec_openai.reader_new(
        &call->arena, &(struct chat_reader_params){.request = &call->wire->request,
                                                   .is_stream = call->sample.is_stream,
                                                   .event = on_event,
                                                   .ud = call});
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* The reader gives bytes that are no reply and an error that the server sent the same cause; what tells them
 * apart is whose words they are. */
static enum load_error kind_of(const struct load_call *call)
{
    const struct chat_fault *fault = &call->fault;
    if (fault->cause == CHAT_CAUSE_CUT)
        return LOAD_CUT;
    bool is_broken = fault->cause == CHAT_CAUSE_SERVER && (begins(fault->message, "the provider's reply") ||
                                                           begins(fault->message, "the provider sent"));
    return is_broken ? LOAD_BAD_REPLY : LOAD_IN_STREAM;
}

static bool on_body(void *ud, const char *bytes, size_t len)
{
    struct load_call *call = ud;
    if (call->broken != LOAD_OK)
        return true;
    if (!call->reader) {
        size_t room = REFUSAL_BYTES_MAX - call->refusal.len;
        buf_append(&call->refusal, bytes, len < room ? len : room);
        return true;
    }
    call->sample.end_ns = load_now_ns(call->wire); /* so far; the time of the pieces in these bytes */
    if (chat_codec_openai.feed(call->reader, bytes, len, &call->fault) == PH_OK)
        return true;
    say(call, call->fault.message);
    call->broken = kind_of(call);
    http_call_hang_up(call->http, 0);
    return true;
}

static enum load_error kind_of_status(struct load_call *call)
{
    int status = call->sample.status;
    chat_codec_openai.fault(&call->arena, status, call->refusal.data ? call->refusal.data : "",
                            call->refusal.len, &call->fault);
    say(call, call->fault.message);
    return status == 429                    ? LOAD_RATE
           : status >= 400 && status <= 499 ? LOAD_CLIENT
           : status >= 500                  ? LOAD_SERVER
                                            : LOAD_BAD_REPLY;
}

static enum load_error kind_of_end(enum http_call_end how)
{
    switch (how) {
    case HTTP_CALL_NO_NAME:
    case HTTP_CALL_NO_CONNECTION:
    case HTTP_CALL_TLS:
        return LOAD_REFUSED;
    case HTTP_CALL_TIMEOUT_CONNECT:
    case HTTP_CALL_TIMEOUT_HEAD:
    case HTTP_CALL_TIMEOUT_SILENCE:
    case HTTP_CALL_TIMEOUT_TOTAL:
        return LOAD_TIMEOUT;
    case HTTP_CALL_CUT:
        return LOAD_CUT;
    case HTTP_CALL_TOO_LARGE:
    case HTTP_CALL_BAD_REPLY:
        return LOAD_BAD_REPLY;
    default:
        return LOAD_OURS;
    }
}

static void on_end(void *ud, enum http_call_end how, const char *message)
{
    struct load_call *call = ud;
    call->http = NULL;
    call->sample.end_ns = load_now_ns(call->wire);
    if (call->broken != LOAD_OK) {
        end(call, call->broken);
    } else if (how != HTTP_CALL_WHOLE) {
        say(call, message);
        end(call, kind_of_end(how));
    } else if (call->sample.status != 200) {
        end(call, kind_of_status(call));
    } else if (!call->reader) {
        end(call, LOAD_OURS);
    } else if (chat_codec_openai.end(call->reader, &call->fault) != PH_OK) {
        say(call, call->fault.message);
        end(call, kind_of(call));
    } else {
        end(call, buf_status(&call->times) == PH_OK ? LOAD_OK : LOAD_OURS);
    }
}

enum ph_status load_call_send(struct load_call *call, struct ph_err *err)
{
    const struct load_wire *wire = call->wire;
    const struct load_sample *told = &call->sample;
    uint32_t timeout_ms = wire->timeout_ms;
    struct http_call_params params = {.method = "POST",
                                      .url = wire->url.data,
                                      .headers = wire->headers,
                                      .header_count = wire->header_count,
                                      .body = call->body.data,
                                      .body_len = call->body.len,
                                      .connect_timeout_ms =
                                          timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms : CONNECT_TIMEOUT_MS,
                                      .head_timeout_ms = timeout_ms,
                                      .silence_timeout_ms = timeout_ms,
                                      .total_timeout_ms = timeout_ms,
                                      .body_bytes_max = REPLY_BYTES_MAX};
    struct http_call_sink sink = {on_head, on_body, on_end, call};
    if (buf_status(&call->body) != PH_OK)
        return ph_fail(err, PH_ERR_LIMIT, "a prompt is too long: a request has at most %zu bytes",
                       LOAD_BODY_BYTES_MAX);
    call->sample = (struct load_sample){
        .intended_ns = told->intended_ns, .is_warmup = told->is_warmup, .sent_ns = load_now_ns(wire)};
    call->broken = LOAD_OK;
    call->reader = NULL;
    call->words[0] = 0;
    call->fault = (struct chat_fault){0};
    buf_clear(&call->times);
    buf_clear(&call->answer);
    buf_clear(&call->refusal);
    return http_call_start(&call->http, wire->client, &params, &sink, err);
}
