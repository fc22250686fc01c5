/* Replies in the form of Gemini's (tests/unit/chat/gemini), each with the events that must come of it,
 * however the bytes are cut. */
#include <dirent.h>

#include "base/file.h"
#include "chat/chat.h"
#include "test_support.h"

#define DATA_DIR "tests/unit/chat/gemini"

/* ---- Events as lines */

static void put_text(struct buf *out, struct chat_text text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.text[i] == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, text.text[i]);
    buf_putc(out, '\n');
}

static void put_logprobs(struct buf *out, const struct chat_event *event)
{
    for (size_t i = 0; i < event->logprob_count; i++) {
        buf_printf(out, "  %d %s %g", event->logprobs[i].id, event->logprobs[i].token.text,
                   event->logprobs[i].logprob);
        const struct chat_token_logprob *row = event->top + i * event->top_count;
        for (size_t k = 0; event->top && k < event->top_count && row[k].token.text; k++)
            buf_printf(out, " (%s %g)", row[k].token.text, row[k].logprob);
        buf_putc(out, '\n');
    }
}

static void put_event(void *ud, const struct chat_event *event)
{
    static const char *const reasons[] = {"none", "stop", "length", "tool_calls", "content_filter"};
    struct buf *out = ud;
    if (event->choice)
        buf_printf(out, "%zu: ", event->choice);
    switch (event->kind) {
    case CHAT_EVENT_ROLE:
        buf_puts(out, "role\n");
        break;
    case CHAT_EVENT_TEXT:
    case CHAT_EVENT_REASONING:
        buf_puts(out, event->kind == CHAT_EVENT_TEXT ? "text " : "reasoning ");
        put_text(out, event->text);
        put_logprobs(out, event);
        break;
    case CHAT_EVENT_TOOL_CALL:
        buf_printf(out, "call %zu %s %s\narguments %zu ", event->tool_call.index, event->tool_call.id,
                   event->tool_call.name, event->tool_call.index);
        put_text(out, event->tool_call.arguments);
        break;
    case CHAT_EVENT_FINISH:
        buf_printf(out, "finish %s\n", reasons[event->finish]);
        break;
    case CHAT_EVENT_USAGE:
        buf_printf(out, "usage prompt %d cached %d completion %d reasoning %d\n",
                   (int)event->usage.prompt_tokens, (int)event->usage.cached_tokens,
                   (int)event->usage.completion_tokens, (int)event->usage.reasoning_tokens);
        break;
    default:
        fail_msg("a codec must not emit event %d", (int)event->kind);
    }
}

/* ---- Reading */

static const struct chat_request one = {.choices = 1};

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
    uint32_t state = 1;
    enum ph_status status = PH_OK;
    arena_init(&arena, 1 << 24);
    struct chat_reader_params params = {input->request, input->is_stream, put_event, out};
    struct chat_reader *reader = chat_codec_gemini.reader_new(&arena, &params);
    assert_non_null(reader);
    for (size_t at = 0; at < input->len && status == PH_OK;) {
        size_t piece = cut ? cut(&state) : input->len;
        piece = piece < input->len - at ? piece : input->len - at;
        char *copy = malloc(piece); /* so that a sanitizer sees a byte read too many */
        assert_non_null(copy);
        memcpy(copy, input->bytes + at, piece);
        status = chat_codec_gemini.feed(reader, copy, piece, &fault);
        free(copy);
        at += piece;
    }
    if (status == PH_OK)
        status = chat_codec_gemini.end(reader, &fault);
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

static void recorded_replies_become_their_events(void **state)
{
    (void)state;
    size_t count = 0;
    DIR *dir = opendir(DATA_DIR);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct buf reply, expected;
        char events[300];
        const char *dot = strrchr(entry->d_name, '.');
        if (strcmp(dot, ".sse") != 0 && strcmp(dot, ".json") != 0)
            continue;
        snprintf(events, sizeof events, "%.*s.events", (int)(dot - entry->d_name), entry->d_name);
        load(entry->d_name, &reply);
        load(events, &expected);
        struct input input = {reply.data, reply.len, strcmp(dot, ".sse") == 0, &one};
        check_reply(entry->d_name, &input, expected.data);
        buf_release(&reply);
        buf_release(&expected);
        count++;
    }
    closedir(dir);
    assert_true(count >= 30);
}

/* Every beginning of a stream is a cut one, and its events are a beginning of the whole one's. */
static void every_beginning_is_cut(void **state)
{
    (void)state;
    struct buf reply, whole;
    load("calls.sse", &reply);
    load("calls.events", &whole);
    const char *last = strstr(reply.data, "\"finishReason\"");
    assert_non_null(last);
    for (size_t len = 0; len < (size_t)(last - reply.data); len++) {
        struct buf out;
        struct input input = {reply.data, len, true, &one};
        buf_init(&out, 1 << 20);
        read_reply(&input, cut_anywhere, &out);
        size_t events = out.len - strlen("fault cut\n");
        if (strcmp(out.data + events, "fault cut\n") != 0 || strncmp(out.data, whole.data, events) != 0)
            fail_msg("%zu bytes:\n%s", len, out.data);
        buf_release(&out);
    }
    buf_release(&reply);
    buf_release(&whole);
}

static void check_text(const char *text, bool is_stream, const struct chat_request *request,
                       const char *expected)
{
    struct input input = {text, strlen(text), is_stream, request};
    check_reply(text, &input, expected);
}

static void several_candidates(void **state)
{
    (void)state;
    static const struct chat_request two = {.choices = 2};
    check_text(
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"b\"}]},\"index\":1}]}\n\n"
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]},\"finishReason\":\"STOP\"},"
        "{\"finishReason\":\"MAX_TOKENS\",\"index\":1}]}\n\n",
        true, &two, "1: role\n1: text b\nrole\ntext a\nfinish stop\n1: finish length\nok\n");
    check_text("{\"candidates\":[{\"finishReason\":\"STOP\"}]}", false, &two, "fault cut\n");
}

static void log_probabilities(void **state)
{
    (void)state;
    static const struct chat_request asked = {.choices = 1, .logprobs = true, .top_logprobs = 2};
    static const char reply[] =
        "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true},{\"text\":\"ab\"}]},"
        "\"finishReason\":\"STOP\",\"logprobsResult\":{\"topCandidates\":["
        "{\"candidates\":[{\"token\":\"a\",\"tokenId\":7,\"logProbability\":-0.5},{\"token\":\"x\","
        "\"logProbability\":-2}]},{\"candidates\":[{\"token\":\"b\",\"tokenId\":8}]}],"
        "\"chosenCandidates\":[{\"token\":\"a\",\"tokenId\":7,\"logProbability\":-0.5},"
        "{\"token\":\"b\",\"tokenId\":8}]}}]}";
    check_text(reply, false, &asked,
               "role\nreasoning hm\ntext ab\n  7 a -0.5 (a -0.5) (x -2)\n  8 b 0 (b 0)\nfinish stop\nok\n");
    check_text(reply, false, &one, "role\nreasoning hm\ntext ab\nfinish stop\nok\n");
}

/* ---- Replies that are no 200 */

static const struct {
    int http_status;
    const char *body;
    enum chat_cause cause;
    int answer;
    const char *code;
    uint32_t retry_after_s;
} failures[] = {
    {400,
     "{\"error\":{\"code\":400,\"message\":\"API key not valid. Please pass a valid API key.\",\"status\":"
     "\"INVALID_ARGUMENT\",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":"
     "\"API_KEY_INVALID\",\"domain\":\"googleapis.com\"}]}}",
     CHAT_CAUSE_KEY, 502, "provider_key_refused", 0},
    {400,
     "{\"error\":{\"code\":400,\"message\":\"x\",\"status\":\"INVALID_ARGUMENT\",\"details\":[{\"reason\":"
     "\"API_KEY_EXPIRED\"}]}}",
     CHAT_CAUSE_KEY, 502, "provider_key_refused", 0},
    {401, "{\"error\":{\"code\":401,\"message\":\"x\",\"status\":\"UNAUTHENTICATED\"}}", CHAT_CAUSE_KEY, 502,
     "provider_key_refused", 0},
    {403,
     "{\"error\":{\"code\":403,\"message\":\"Consumer 'api_key:AIzaSyD-1234567890abcdef' has been "
     "suspended.\",\"status\":\"PERMISSION_DENIED\"}}",
     CHAT_CAUSE_KEY, 502, "provider_key_refused", 0},
    {400,
     "{\"error\":{\"code\":400,\"message\":\"User location is not supported for the API use.\",\"status\":"
     "\"FAILED_PRECONDITION\"}}",
     CHAT_CAUSE_KEY, 502, "provider_key_refused", 0},
    {400,
     "{\"error\":{\"code\":400,\"message\":\"The input token count (1200293) exceeds the maximum number of "
     "tokens allowed (1048576).\",\"status\":\"INVALID_ARGUMENT\"}}",
     CHAT_CAUSE_CONTEXT, 400, "context_length_exceeded", 0},
    {400,
     "{\"error\":{\"code\":400,\"message\":\"Function calling is not enabled for models/gemma-3-1b-it\","
     "\"status\":\"INVALID_ARGUMENT\"}}",
     CHAT_CAUSE_UNABLE, 400, NULL, 0},
    {400,
     "[{\"error\":{\"code\":400,\"message\":\"Invalid value at "
     "'contents'\",\"status\":\"INVALID_ARGUMENT\"}}]",
     CHAT_CAUSE_REQUEST, 400, NULL, 0},
    {404,
     "{\"error\":{\"code\":404,\"message\":\"models/gemini-9 is not found for API version "
     "v1beta\",\"status\":"
     "\"NOT_FOUND\"}}",
     CHAT_CAUSE_NO_MODEL, 404, "model_not_found", 0},
    {429,
     "[{\"error\":{\"code\":429,\"message\":\"You exceeded your current quota.\",\"status\":"
     "\"RESOURCE_EXHAUSTED\",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.QuotaFailure\"},"
     "{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"34.07s\"}]}}]",
     CHAT_CAUSE_RATE, 429, "rate_limit_exceeded", 35},
    {429,
     "{\"error\":{\"code\":429,\"message\":\"Quota exceeded. Please retry in 37.82626638s.\",\"status\":"
     "\"RESOURCE_EXHAUSTED\"}}",
     CHAT_CAUSE_RATE, 429, "rate_limit_exceeded", 38},
    {429,
     "{\"error\":{\"code\":429,\"message\":\"Your prepayment credits are depleted.\",\"status\":"
     "\"RESOURCE_EXHAUSTED\"}}",
     CHAT_CAUSE_KEY, 502, "provider_key_refused", 0},
    {500, "{\"error\":{\"code\":500,\"message\":\"x\",\"status\":\"INTERNAL\"}}", CHAT_CAUSE_SERVER, 502,
     "provider_error", 0},
    {503, "{\"error\":{\"code\":503,\"message\":\"The model is overloaded.\",\"status\":\"UNAVAILABLE\"}}",
     CHAT_CAUSE_OVERLOADED, 503, "provider_overloaded", 0},
    {502, "<html><title>502 Bad Gateway</title></html>", CHAT_CAUSE_SERVER, 502, "provider_error", 0},
    {500, "", CHAT_CAUSE_SERVER, 502, "provider_error", 0},
    {429, "{\"error\":{\"code\":4", CHAT_CAUSE_RATE, 429, "rate_limit_exceeded", 0},
};

static void failures_say_what_to_do(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        struct arena arena;
        struct chat_fault fault;
        arena_init(&arena, 1 << 20);
        chat_codec_gemini.fault(&arena, failures[i].http_status, failures[i].body, strlen(failures[i].body),
                                &fault);
        if (fault.cause != failures[i].cause || fault.http_status != failures[i].answer ||
            fault.retry_after_s != failures[i].retry_after_s ||
            strcmp(fault.code ? fault.code : "", failures[i].code ? failures[i].code : "") != 0)
            fail_msg("%s: %s %d %s %u: %s", failures[i].body, chat_cause_name(fault.cause), fault.http_status,
                     fault.code, fault.retry_after_s, fault.message);
        assert_true(fault.message[0]);
        assert_null(strstr(fault.message, "AIza"));
        arena_release(&arena);
    }
}

/* A stream of any length takes the memory of its longest event. */
static void a_long_stream_does_not_grow(void **state)
{
    (void)state;
    static const char piece[] = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"abc\"}]}}]}\n\n";
    struct arena arena;
    struct chat_fault fault;
    struct buf out;
    arena_init(&arena, 1 << 20);
    buf_init(&out, 1 << 24);
    struct chat_reader_params params = {&one, true, put_event, &out};
    struct chat_reader *reader = chat_codec_gemini.reader_new(&arena, &params);
    size_t before = arena.bytes;
    for (int i = 0; i < 10000; i++)
        assert_int_equal(chat_codec_gemini.feed(reader, piece, sizeof piece - 1, &fault), PH_OK);
    assert_int_equal(arena.bytes, before);
    arena_release(&arena);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_replies_become_their_events),
        cmocka_unit_test(every_beginning_is_cut),
        cmocka_unit_test(several_candidates),
        cmocka_unit_test(log_probabilities),
        cmocka_unit_test(failures_say_what_to_do),
        cmocka_unit_test(a_long_stream_does_not_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
