/* Events into what Anthropic's clients read: exact bytes, and back through the reader. */
#include "chat/chat.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct chat_request request;
    struct chat_reply reply;
    struct chat_encoder *encoder;
    struct buf out;
};

static void open_fixture(struct fixture *f, bool stream)
{
    memset(f, 0, sizeof *f);
    arena_init(&f->arena, 1 << 24);
    buf_init(&f->out, 1 << 20);
    f->request =
        (struct chat_request){.arena = &f->arena, .choices = 1, .stream = stream, .request_id = "req_1"};
    f->reply = (struct chat_reply){"msg_1", "m\"1", 1700000000};
    f->encoder = chat_edge_anthropic.encoder_new(&f->arena, &f->request, &f->reply, 12);
    assert_non_null(f->encoder);
}

static void close_fixture(struct fixture *f)
{
    buf_release(&f->out);
    arena_release(&f->arena);
}

static void say(struct fixture *f, const struct chat_event *event)
{
    chat_edge_anthropic.encode(f->encoder, event, &f->out);
    assert_int_equal(buf_status(&f->out), PH_OK);
}

static void check(struct fixture *f, const char *expected)
{
    const char *found = f->out.len ? f->out.data : "";
    if (strcmp(found, expected) != 0)
        fail_msg("got:\n%s\nexpected:\n%s", found, expected);
    buf_clear(&f->out);
    close_fixture(f);
}

static struct chat_event text(enum chat_event_kind kind, const char *words)
{
    return (struct chat_event){.kind = kind, .text = {words, strlen(words)}};
}

static struct chat_event signature(const char *seal, bool redacted)
{
    return (struct chat_event){
        .kind = CHAT_EVENT_REASONING, .text = {"", 0}, .signature = seal, .redacted = redacted};
}

static struct chat_event call(size_t index, const char *id, const char *name, const char *arguments)
{
    struct chat_event event = {.kind = CHAT_EVENT_TOOL_CALL};
    event.tool_call.index = index;
    event.tool_call.id = id;
    event.tool_call.name = name;
    event.tool_call.arguments = (struct chat_text){arguments, strlen(arguments)};
    return event;
}

static struct chat_event usage(uint64_t prompt, uint64_t cached, uint64_t written, uint64_t completion)
{
    struct chat_event event = {.kind = CHAT_EVENT_USAGE};
    event.usage.prompt_tokens = prompt;
    event.usage.cached_tokens = cached;
    event.usage.cache_write_tokens = written;
    event.usage.completion_tokens = completion;
    return event;
}

static void say_all(struct fixture *f, const struct chat_event *events, size_t count)
{
    for (size_t i = 0; i < count; i++)
        say(f, &events[i]);
}
#define SAY(f, ...)                                              \
    do {                                                         \
        const struct chat_event events_[] = {__VA_ARGS__};       \
        say_all((f), events_, sizeof events_ / sizeof *events_); \
    } while (0)

#define ROLE ((struct chat_event){.kind = CHAT_EVENT_ROLE})
#define PROGRESS ((struct chat_event){.kind = CHAT_EVENT_PROGRESS})
#define DONE ((struct chat_event){.kind = CHAT_EVENT_DONE})
#define FINISH(how) ((struct chat_event){.kind = CHAT_EVENT_FINISH, .finish = (how)})

#define MESSAGE_START                                                                                      \
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":"      \
    "\"message\",\"role\":\"assistant\",\"model\":\"m\\\"1\",\"content\":[],\"stop_reason\":null,\"stop_"  \
    "sequence\":null,\"usage\":{\"input_tokens\":12,\"cache_creation_input_tokens\":0,\"cache_read_input_" \
    "tokens\":0,\"output_tokens\":0}}}\n\n"
#define EVENT(name, rest) "event: " name "\ndata: {\"type\":\"" name "\"" rest "}\n\n"
#define BLOCK(index, block) \
    EVENT("content_block_start", ",\"index\":" index ",\"content_block\":{\"type\":" block "}")
#define DELTA(index, delta) \
    EVENT("content_block_delta", ",\"index\":" index ",\"delta\":{\"type\":" delta "}")
#define STOP(index) EVENT("content_block_stop", ",\"index\":" index)
#define MESSAGE_DELTA(reason, sequence, input, output)                                                  \
    EVENT("message_delta", ",\"delta\":{\"stop_reason\":" reason ",\"stop_sequence\":" sequence         \
                           "},\"usage\":{\"input_tokens\":" input                                       \
                           ",\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_" \
                           "tokens\":" output "}")
#define MESSAGE_STOP EVENT("message_stop", "")

static void a_stream_has_its_events_in_order(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, true);
    SAY(&f, PROGRESS, ROLE, usage(20, 0, 0, 1), text(CHAT_EVENT_TEXT, ""), text(CHAT_EVENT_TEXT, "Hel\n"),
        PROGRESS, text(CHAT_EVENT_TEXT, "lo"), FINISH(CHAT_FINISH_STOP), usage(20, 0, 0, 3), DONE);
    check(&f, EVENT("ping", "") MESSAGE_START BLOCK("0", "\"text\",\"text\":\"\"")
                  DELTA("0", "\"text_delta\",\"text\":\"Hel\\n\"") EVENT("ping", "")
                      DELTA("0", "\"text_delta\",\"text\":\"lo\"") STOP("0")
                          MESSAGE_DELTA("\"end_turn\"", "null", "20", "3") MESSAGE_STOP);
}

static void blocks_open_and_close(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, true);
    SAY(&f, ROLE, text(CHAT_EVENT_REASONING, "Hm"), signature("S1", false), signature("R1", true),
        signature("S2", false), text(CHAT_EVENT_TEXT, "a"), call(0, "t0", "f", ""),
        call(0, NULL, NULL, "{\"x\""), call(0, NULL, NULL, ":1}"), call(1, "t1", "g", "{}"),
        call(0, NULL, NULL, " "), FINISH(CHAT_FINISH_TOOL_CALLS), usage(12, 0, 0, 9), DONE);
    check(&f,
          MESSAGE_START BLOCK("0", "\"thinking\",\"thinking\":\"\",\"signature\":\"\"") DELTA(
              "0", "\"thinking_delta\",\"thinking\":\"Hm\"") DELTA("0",
                                                                   "\"signature_delta\",\"signature\":\"S1\"")
              STOP("0") BLOCK("1", "\"redacted_thinking\",\"data\":\"R1\"") STOP("1")
                  BLOCK("2", "\"thinking\",\"thinking\":\"\",\"signature\":\"\"")
                      DELTA("2", "\"signature_delta\",\"signature\":\"S2\"") STOP("2")
                          BLOCK("3", "\"text\",\"text\":\"\"") DELTA("3", "\"text_delta\",\"text\":\"a\"")
                              STOP("3") BLOCK("4", "\"tool_use\",\"id\":\"t0\",\"name\":\"f\",\"input\":{}")
                                  DELTA("4", "\"input_json_delta\",\"partial_json\":\"{\\\"x\\\"\"")
                                      DELTA("4", "\"input_json_delta\",\"partial_json\":\":1}\"") STOP("4")
                                          BLOCK("5", "\"tool_use\",\"id\":\"t1\",\"name\":\"g\",\"input\":{}")
                                              DELTA("5", "\"input_json_delta\",\"partial_json\":\"{}\"")
                                                  DELTA("4", "\"input_json_delta\",\"partial_json\":\" \"")
                                                      STOP("5") MESSAGE_DELTA("\"tool_use\"", "null", "12",
                                                                              "9") MESSAGE_STOP);
}

static void nothing_said_is_a_message_too(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, true);
    SAY(&f, DONE);
    check(&f, MESSAGE_START MESSAGE_DELTA("\"end_turn\"", "null", "12", "0") MESSAGE_STOP);
    open_fixture(&f, false);
    SAY(&f, DONE);
    check(&f,
          "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\\\"1\",\"content\":[],"
          "\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":12,\"cache_"
          "creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":0}}");
}

static void stop_reasons_are_theirs(void **state)
{
    (void)state;
    static const struct {
        enum chat_finish finish;
        const char *stop_text, *reason, *sequence;
        bool called;
    } rows[] = {
        {CHAT_FINISH_STOP, NULL, "\"end_turn\"", "null", false},
        {CHAT_FINISH_STOP, "END\"", "\"stop_sequence\"", "\"END\\\"\"", false},
        {CHAT_FINISH_STOP, NULL, "\"tool_use\"", "null", true}, /* OpenAI's, when a function was demanded */
        {CHAT_FINISH_LENGTH, NULL, "\"max_tokens\"", "null", false},
        {CHAT_FINISH_TOOL_CALLS, NULL, "\"tool_use\"", "null", true},
        {CHAT_FINISH_CONTENT_FILTER, NULL, "\"refusal\"", "null", false},
        {CHAT_FINISH_NONE, NULL, "\"end_turn\"", "null", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fixture f;
        char expected[200];
        char stop_text[16] = "";
        open_fixture(&f, true);
        if (rows[i].called)
            SAY(&f, ROLE, call(0, "t", "f", "{}"));
        if (rows[i].stop_text)
            snprintf(stop_text, sizeof stop_text, "%s", rows[i].stop_text);
        struct chat_event finish = FINISH(rows[i].finish);
        finish.stop_text = rows[i].stop_text ? stop_text : NULL;
        SAY(&f, finish);
        memset(stop_text, 'x', 4); /* texts of an event are gone when it has returned */
        SAY(&f, DONE);
        snprintf(expected, sizeof expected, "\"delta\":{\"stop_reason\":%s,\"stop_sequence\":%s}",
                 rows[i].reason, rows[i].sequence);
        if (!strstr(f.out.data, expected))
            fail_msg("%zu: %s not in %s", i, expected, f.out.data);
        close_fixture(&f);
    }
}

static void usage_is_in_three_parts(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, false);
    struct chat_event all = usage(1000, 700, 200, 50);
    all.usage.reasoning_tokens = 30;
    SAY(&f, ROLE, all, DONE);
    assert_non_null(strstr(f.out.data, "\"usage\":{\"input_tokens\":100,\"cache_creation_input_tokens\":200,"
                                       "\"cache_read_input_tokens\":700,\"output_tokens\":50,\"output_tokens_"
                                       "details\":{\"thinking_tokens\":30}}"));
    close_fixture(&f);
    open_fixture(&f, false); /* a provider that counts cached tokens apart */
    SAY(&f, ROLE, usage(10, 700, 0, 5), DONE);
    assert_non_null(strstr(f.out.data, "\"input_tokens\":0,"));
    close_fixture(&f);
}

static void a_whole_message_has_its_blocks(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, false);
    SAY(&f, PROGRESS, ROLE, text(CHAT_EVENT_REASONING, "H"), text(CHAT_EVENT_REASONING, "m"),
        signature("S1", false), signature("R1", true), text(CHAT_EVENT_TEXT, "a\""),
        text(CHAT_EVENT_TEXT, "b"), call(0, "t0", "f", "{\"x\":"), call(1, "t1", "g", ""),
        call(0, NULL, NULL, "1.50}"), call(2, "t2", "h", "[broken"), call(2, "t3", "i", "{\"a\":"),
        call(2, NULL, NULL, "0}"), FINISH(CHAT_FINISH_TOOL_CALLS), usage(12, 0, 0, 9), DONE);
    check(&f,
          "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\\\"1\",\"content\":["
          "{\"type\":\"thinking\",\"thinking\":\"Hm\",\"signature\":\"S1\"},"
          "{\"type\":\"redacted_thinking\",\"data\":\"R1\"},"
          "{\"type\":\"text\",\"text\":\"a\\\"b\"},"
          "{\"type\":\"tool_use\",\"id\":\"t0\",\"name\":\"f\",\"input\":{\"x\":1.50}},"
          "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"g\",\"input\":{}},"
          "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"h\",\"input\":{\"INVALID_JSON\":\"[broken\"}},{"
          "\"type\":\"tool_use\",\"id\":\"t3\",\"name\":\"i\",\"input\":{\"a\":0}}],"
          "\"stop_reason\":\"tool_use\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":12,\"cache_"
          "creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":9}}");
}

/* ---- Faults */

static void faults_are_theirs(void **state)
{
    (void)state;
    static const struct {
        int http_status, shown;
        const char *type;
    } rows[] = {
        {400, 400, "invalid_request_error"},
        {401, 401, "authentication_error"},
        {402, 402, "billing_error"},
        {403, 403, "permission_error"},
        {404, 404, "not_found_error"},
        {405, 405, "invalid_request_error"},
        {413, 413, "request_too_large"},
        {429, 429, "rate_limit_error"},
        {500, 500, "api_error"},
        {502, 502, "api_error"},
        {503, 529, "overloaded_error"},
        {504, 504, "timeout_error"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct chat_fault fault;
        struct buf out;
        char expected[200];
        buf_init(&out, 4096);
        chat_fault_set(&fault, rows[i].http_status, NULL, NULL, "no \"luck\"");
        chat_edge_anthropic.encode_fault(&fault, i % 2 ? "req_7" : NULL, &out);
        snprintf(expected, sizeof expected,
                 "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"no \\\"luck\\\"\"},"
                 "\"request_id\":%s}",
                 rows[i].type, i % 2 ? "\"req_7\"" : "null");
        assert_string_equal(out.data, expected);
        assert_int_equal(chat_edge_anthropic.fault_status(&fault), rows[i].shown);
        buf_release(&out);
    }
}

static void errors_in_a_stream_have_their_event(void **state)
{
    (void)state;
    struct fixture f;
    struct chat_fault fault;
    chat_fault_set(&fault, 400, "context_length_exceeded", NULL, "9000 tokens do not fit");
    fault.cause = CHAT_CAUSE_CONTEXT;
    open_fixture(&f, true);
    SAY(&f, ROLE, chat_fault_event(&fault, PH_ERR_LIMIT));
    check(&f, MESSAGE_START "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_"
                            "error\",\"message\":\"prompt is too long: 9000 tokens do not fit\"},\"request_"
                            "id\":\"req_1\"}\n\n");
    open_fixture(&f, false);
    chat_fault_set(&fault, 503, NULL, NULL, "busy");
    SAY(&f, ROLE, chat_fault_event(&fault, PH_ERR_BUSY));
    check(&f,
          "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"},\"request_id\":"
          "\"req_1\"}");
}

static void counts_are_said(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 100);
    chat_anthropic_count_encode(2095, &out);
    assert_string_equal(out.data, "{\"input_tokens\":2095}");
    buf_release(&out);
}

/* ---- There and back */

struct pair {
    struct chat_encoder *encoder;
    struct buf *out;
};

static void pass_on(void *ud, const struct chat_event *event)
{
    struct pair *pair = ud;
    chat_edge_anthropic.encode(pair->encoder, event, pair->out);
}

/* What the reader makes of the encoder's bytes, encoded again, are the same bytes. */
static void what_was_encoded_reads_the_same(void **state)
{
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        struct fixture f, again;
        struct chat_fault fault;
        open_fixture(&f, stream == 1);
        open_fixture(&again, stream == 1);
        SAY(&f, ROLE, text(CHAT_EVENT_REASONING, "Hm"), signature("S1", false), signature("R1", true),
            text(CHAT_EVENT_TEXT, "a\n\xC3\xA9"), call(0, "t0", "f", "{\"x\":1}"), call(1, "t1", "g", "{}"),
            FINISH(CHAT_FINISH_TOOL_CALLS), usage(12, 3, 4, 9), DONE);
        struct pair pair = {again.encoder, &again.out};
        struct chat_reader_params params = {&f.request, stream == 1, pass_on, &pair};
        struct chat_reader *reader = chat_codec_anthropic.reader_new(&f.arena, &params);
        assert_int_equal(chat_codec_anthropic.feed(reader, f.out.data, f.out.len, &fault), PH_OK);
        assert_int_equal(chat_codec_anthropic.end(reader, &fault), PH_OK);
        SAY(&again, DONE);
        assert_string_equal(again.out.data, f.out.data);
        close_fixture(&again);
        close_fixture(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_has_its_events_in_order),
        cmocka_unit_test(blocks_open_and_close),
        cmocka_unit_test(nothing_said_is_a_message_too),
        cmocka_unit_test(stop_reasons_are_theirs),
        cmocka_unit_test(usage_is_in_three_parts),
        cmocka_unit_test(a_whole_message_has_its_blocks),
        cmocka_unit_test(faults_are_theirs),
        cmocka_unit_test(errors_in_a_stream_have_their_event),
        cmocka_unit_test(counts_are_said),
        cmocka_unit_test(what_was_encoded_reads_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
