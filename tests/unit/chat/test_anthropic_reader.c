/* Replies as Anthropic sends them (tests/unit/chat/anthropic), each with the events that must come of it. */
#include <dirent.h>

#include "base/file.h"
#include "chat/chat.h"
#include "test_support.h"

#define DATA_DIR "tests/unit/chat/anthropic"

/* ---- Events as lines */

static void put_text(struct buf *out, const char *before, struct chat_text text)
{
    buf_puts(out, before);
    for (size_t i = 0; i < text.len; i++)
        if (text.text[i] == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, text.text[i]);
    buf_putc(out, '\n');
}

static void put_reasoning(struct buf *out, const struct chat_event *event)
{
    if (event->text.len)
        put_text(out, "reasoning ", event->text);
    if (event->signature)
        buf_printf(out, "%s %s\n", event->redacted ? "redacted" : "signature", event->signature);
}

static void put_event(void *ud, const struct chat_event *event)
{
    static const char *const reasons[] = {"none", "stop", "length", "tool_calls", "content_filter"};
    struct buf *out = ud;
    char before[48];
    switch (event->kind) {
    case CHAT_EVENT_ROLE:
        buf_puts(out, "role\n");
        break;
    case CHAT_EVENT_TEXT:
        put_text(out, "text ", event->text);
        break;
    case CHAT_EVENT_REASONING:
        put_reasoning(out, event);
        break;
    case CHAT_EVENT_TOOL_CALL:
        if (event->tool_call.name)
            buf_printf(out, "call %zu %s %s\n", event->tool_call.index, event->tool_call.id,
                       event->tool_call.name);
        snprintf(before, sizeof before, "arguments %zu ", event->tool_call.index);
        if (event->tool_call.arguments.len)
            put_text(out, before, event->tool_call.arguments);
        break;
    case CHAT_EVENT_FINISH:
        buf_printf(out, "finish %s%s%s\n", reasons[event->finish], event->stop_text ? " at " : "",
                   event->stop_text ? event->stop_text : "");
        break;
    case CHAT_EVENT_USAGE:
        buf_printf(out, "usage prompt %d cached %d written %d completion %d reasoning %d\n",
                   (int)event->usage.prompt_tokens, (int)event->usage.cached_tokens,
                   (int)event->usage.cache_write_tokens, (int)event->usage.completion_tokens,
                   (int)event->usage.reasoning_tokens);
        break;
    default:
        fail_msg("a codec must not emit event %d", (int)event->kind);
    }
}

/* ---- Reading */

struct input {
    const char *bytes;
    size_t len;
    bool is_stream;
    const struct chat_request *request;
};

/* `cut` says how many bytes come next; NULL: all of them. */
static void read_reply(const struct input *input, size_t (*cut)(uint32_t *state), struct buf *out)
{
    struct arena arena;
    struct chat_fault fault = {0};
    struct chat_request request = {.choices = 1};
    uint32_t state = 1;
    enum ph_status status = PH_OK;
    arena_init(&arena, 1 << 24);
    struct chat_reader_params params = {input->request ? input->request : &request, input->is_stream,
                                        put_event, out};
    struct chat_reader *reader = chat_codec_anthropic.reader_new(&arena, &params);
    assert_non_null(reader);
    for (size_t at = 0; at < input->len && status == PH_OK;) {
        size_t piece = cut ? cut(&state) : input->len;
        piece = piece < input->len - at ? piece : input->len - at;
        char *copy = malloc(piece); /* so that a sanitizer sees a byte read too many */
        assert_non_null(copy);
        memcpy(copy, input->bytes + at, piece);
        status = chat_codec_anthropic.feed(reader, copy, piece, &fault);
        free(copy);
        at += piece;
    }
    if (status == PH_OK)
        status = chat_codec_anthropic.end(reader, &fault);
    if (status != PH_OK) {
        assert_true(fault.message[0] && fault.http_status >= 400);
        buf_printf(out, "fault %s\n", chat_cause_name(fault.cause));
    } else {
        buf_puts(out, "ok\n");
    }
    arena_release(&arena);
}

static size_t cut_bytes(uint32_t *state)
{
    (void)state;
    return 1;
}

static size_t cut_anywhere(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return 1 + (*state >> 16) % 97;
}

static void check_reply(const char *name, const struct input *input, const char *expected)
{
    size_t (*const cuts[])(uint32_t *) = {NULL, cut_bytes, cut_anywhere};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        struct buf out;
        buf_init(&out, 1 << 20);
        read_reply(input, cuts[i], &out);
        if (strcmp(out.data, expected) != 0)
            fail_msg("%s, cut %zu:\n%s--- expected:\n%s", name, i, out.data, expected);
        buf_release(&out);
    }
}

static void load(const char *name, struct buf *out)
{
    char path[512];
    struct ph_err err;
    snprintf(path, sizeof path, DATA_DIR "/%s", name);
    buf_init(out, 1 << 20);
    if (file_read(path, out, &err) != PH_OK)
        fail_msg("%s", err.message);
    buf_puts(out, "");
}

static void with_crlf(const struct buf *text, struct buf *out)
{
    buf_init(out, 1 << 20);
    for (size_t i = 0; i < text->len; i++) {
        if (text->data[i] == '\n')
            buf_putc(out, '\r');
        buf_putc(out, text->data[i]);
    }
}

static void check_file(const char *name, const char *dot)
{
    struct buf reply, crlf, expected;
    char events[300];
    snprintf(events, sizeof events, "%.*s.events", (int)(dot - name), name);
    load(name, &reply);
    load(events, &expected);
    bool stream = strcmp(dot, ".sse") == 0;
    struct input input = {reply.data, reply.len, stream, NULL};
    check_reply(name, &input, expected.data);
    if (stream && reply.len) {
        with_crlf(&reply, &crlf);
        struct input other = {crlf.data, crlf.len, true, NULL};
        check_reply(name, &other, expected.data);
        buf_release(&crlf);
    }
    buf_release(&reply);
    buf_release(&expected);
}

static void recorded_replies_become_their_events(void **state)
{
    (void)state;
    size_t count = 0;
    DIR *dir = opendir(DATA_DIR);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (strcmp(dot, ".sse") == 0 || strcmp(dot, ".json") == 0) {
            check_file(entry->d_name, dot);
            count++;
        }
    }
    closedir(dir);
    assert_true(count >= 18);
}

/* Every beginning of a stream is a cut one, and its events are a beginning of the whole one's. */
static void every_beginning_is_cut(void **state)
{
    (void)state;
    struct buf reply, whole;
    load("thinking.sse", &reply);
    load("thinking.events", &whole);
    for (size_t len = 0; len + 2 < reply.len; len++) {
        struct buf out;
        struct input input = {reply.data, len, true, NULL};
        buf_init(&out, 1 << 20);
        read_reply(&input, NULL, &out);
        char *fault = strstr(out.data, "fault cut\n");
        if (!fault || memcmp(out.data, whole.data, (size_t)(fault - out.data)) != 0)
            fail_msg("%zu bytes: %s", len, out.data);
        buf_release(&out);
    }
    buf_release(&reply);
    buf_release(&whole);
}

/* A beginning of the answer goes out without the white space at its end, and the reply may repeat it. */
static void lost_space_is_not_said_twice(void **state)
{
    (void)state;
    static const struct {
        const char *beginning, *reply, *expected;
    } rows[] = {
        {"Hello ", " world", "text world\n"}, {"Hello ", "world", "text world\n"},
        {"a\n\n", "\nb", "text b\n"},         {"a\n", "\n\nb", "text \\nb\n"},
        {"Hello", " world", "text  world\n"}, {" ", " ", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char json[200], escaped[64] = "";
        for (const char *c = rows[i].reply; *c; c++)
            snprintf(escaped + strlen(escaped), 8, *c == '\n' ? "\\n" : "%c", *c);
        snprintf(json, sizeof json,
                 "{\"content\":[{\"type\":\"text\",\"text\":\"%s\"}],\"stop_reason\":\"end_turn\"}", escaped);
        struct chat_message message = {.role = CHAT_ASSISTANT,
                                       .content = {rows[i].beginning, strlen(rows[i].beginning)}};
        struct chat_request request = {
            .messages = &message, .message_count = 1, .choices = 1, .continue_final_message = true};
        struct input input = {json, strlen(json), false, &request};
        struct buf out;
        char expected[100];
        buf_init(&out, 1 << 20);
        read_reply(&input, NULL, &out);
        snprintf(expected, sizeof expected, "role\n%sfinish stop\n", rows[i].expected);
        if (strncmp(out.data, expected, strlen(expected)) != 0)
            fail_msg("%zu: %s", i, out.data);
        buf_release(&out);
    }
}

/* ---- What is said instead of a reply */

static const struct {
    int http_status;
    const char *body;
    enum chat_cause cause;
} refusals[] = {
#define ERROR(type, message)                                                      \
    "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\"" message \
    "\"},\"request_id\":\"req_011CSHoEeqs5C35K2UUqR7Fy\"}"
    {400, ERROR("invalid_request_error", "messages: text content blocks must be non-empty"),
     CHAT_CAUSE_REQUEST},
    {400, ERROR("invalid_request_error", "prompt is too long: 209353 tokens > 199999 maximum"),
     CHAT_CAUSE_CONTEXT},
    {400,
     ERROR("invalid_request_error",
           "input length and `max_tokens` exceed context limit: 199211 + 21333 > 200000, decrease input "
           "length or `max_tokens` and try again"),
     CHAT_CAUSE_CONTEXT},
    {400,
     ERROR("invalid_request_error",
           "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."),
     CHAT_CAUSE_KEY},
    {400,
     ERROR("invalid_request_error",
           "You have reached your specified API usage limits. You will regain access on 2026-12-01."),
     CHAT_CAUSE_KEY},
    {400, ERROR("invalid_request_error", "Output blocked by content filtering policy"), CHAT_CAUSE_REFUSED},
    {400,
     ERROR("invalid_request_error",
           "This model does not support assistant message prefill. The conversation must end with a user "
           "message."),
     CHAT_CAUSE_UNABLE},
    {400, ERROR("invalid_request_error", "`temperature` is deprecated for this model."), CHAT_CAUSE_UNABLE},
    {400,
     ERROR("invalid_request_error",
           "`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
     CHAT_CAUSE_UNABLE},
    {400, ERROR("invalid_request_error", "This model does not support the effort parameter."),
     CHAT_CAUSE_UNABLE},
    {400,
     ERROR("invalid_request_error",
           "max_tokens: 10000 > 4096, which is the maximum allowed number of output tokens for "
           "claude-3-5-sonnet-20240620"),
     CHAT_CAUSE_UNABLE},
    {400, ERROR("invalid_request_error", "messages.1.content.0: Invalid `signature` in `thinking` block"),
     CHAT_CAUSE_UNABLE},
    {401, ERROR("authentication_error", "invalid x-api-key"), CHAT_CAUSE_KEY},
    {402, ERROR("billing_error", "Check your payment details"), CHAT_CAUSE_KEY},
    {403, ERROR("permission_error", "Your API key does not have permission to use the specified resource."),
     CHAT_CAUSE_KEY},
    {404, ERROR("not_found_error", "model: claude-9"), CHAT_CAUSE_NO_MODEL},
    {413, ERROR("request_too_large", "Request exceeds the maximum size"), CHAT_CAUSE_CONTEXT},
    {429, ERROR("rate_limit_error", "This request would exceed your organization's rate limit"),
     CHAT_CAUSE_RATE},
    {500, ERROR("api_error", "Internal server error"), CHAT_CAUSE_SERVER},
    {503, "upstream connect error or disconnect/reset before headers", CHAT_CAUSE_OVERLOADED},
    {502, "<html><head><title>502 Bad Gateway</title></head></html>", CHAT_CAUSE_SERVER},
    {529, ERROR("overloaded_error", "Overloaded"), CHAT_CAUSE_OVERLOADED},
    {529, "", CHAT_CAUSE_OVERLOADED},
};

static void refusals_have_their_cause(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct arena arena;
        struct chat_fault fault;
        arena_init(&arena, 1 << 20);
        chat_codec_anthropic.fault(&arena, refusals[i].http_status, refusals[i].body,
                                   strlen(refusals[i].body), &fault);
        if (fault.cause != refusals[i].cause)
            fail_msg("%d %s: cause %s, expected %s", refusals[i].http_status, refusals[i].body,
                     chat_cause_name(fault.cause), chat_cause_name(refusals[i].cause));
        assert_true(fault.message[0] && fault.type[0]);
        arena_release(&arena);
    }
}

static void keys_do_not_come_back(void **state)
{
    (void)state;
    static const char body[] =
        ERROR("authentication_error", "invalid x-api-key sk-ant-api03-AbCdEf0123_-xyz");
    struct arena arena;
    struct chat_fault fault;
    arena_init(&arena, 1 << 20);
    chat_codec_anthropic.fault(&arena, 401, body, sizeof body - 1, &fault);
    assert_null(strstr(fault.message, "AbCdEf"));
    assert_non_null(strstr(fault.message, "invalid x-api-key"));
    arena_release(&arena);
}

/* ---- Memory */

static void count_event(void *ud, const struct chat_event *event)
{
    (void)event;
    ++*(size_t *)ud;
}

static void a_long_stream_does_not_grow_the_arena(void **state)
{
    (void)state;
    static const char delta[] = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\","
                                "\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"token\"}}\n\n";
    struct arena arena;
    struct chat_request request = {.choices = 1};
    struct chat_fault fault;
    size_t events = 0;
    arena_init(&arena, 1 << 16);
    struct chat_reader_params params = {&request, true, count_event, &events};
    struct chat_reader *reader = chat_codec_anthropic.reader_new(&arena, &params);
    size_t bytes = arena.bytes;
    for (size_t i = 0; i < 5000; i++)
        assert_int_equal(chat_codec_anthropic.feed(reader, delta, sizeof delta - 1, &fault), PH_OK);
    assert_int_equal(events, 5001);
    assert_int_equal(arena.bytes, bytes);
    arena_release(&arena);
}

static void too_long_an_event_is_refused(void **state)
{
    (void)state;
    static char bytes[1 << 16];
    struct arena arena;
    struct chat_request request = {.choices = 1};
    struct chat_fault fault;
    size_t events = 0, fed = 0;
    enum ph_status status = PH_OK;
    memset(bytes, 'x', sizeof bytes);
    arena_init(&arena, 1 << 16);
    struct chat_reader_params params = {&request, true, count_event, &events};
    struct chat_reader *reader = chat_codec_anthropic.reader_new(&arena, &params);
    while (status == PH_OK && fed < 2 * (size_t)CHAT_SSE_EVENT_BYTES_MAX) {
        status = chat_codec_anthropic.feed(reader, bytes, sizeof bytes, &fault);
        fed += sizeof bytes;
    }
    assert_int_equal(status, PH_ERR_LIMIT);
    assert_int_equal(fault.cause, CHAT_CAUSE_SERVER);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_replies_become_their_events),
        cmocka_unit_test(every_beginning_is_cut),
        cmocka_unit_test(lost_space_is_not_said_twice),
        cmocka_unit_test(refusals_have_their_cause),
        cmocka_unit_test(keys_do_not_come_back),
        cmocka_unit_test(a_long_stream_does_not_grow_the_arena),
        cmocka_unit_test(too_long_an_event_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
