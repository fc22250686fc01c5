#include "chat/chat.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct chat_request request;
    struct chat_reply reply;
    struct chat_encoder *encoder;
    struct buf out;
};

static void begin(struct fixture *f, enum chat_kind kind, bool stream, size_t n)
{
    static const struct chat_prompt prompt = {.text = {"p", 1}};
    arena_init(&f->arena, 1 << 22);
    f->request = (struct chat_request){.arena = &f->arena, .kind = kind, .stream = stream, .choices = n};
    f->request.prompts = &prompt;
    f->request.prompt_count = 1;
    f->reply = (struct chat_reply){"id-1", "m\"1", 1700000000};
    buf_init(&f->out, 1 << 22);
}

static void open_encoder(struct fixture *f)
{
    f->encoder = chat_edge_openai.encoder_new(&f->arena, &f->request, &f->reply, 0);
    assert_non_null(f->encoder);
}

static void end(struct fixture *f)
{
    buf_release(&f->out);
    arena_release(&f->arena);
}

static void say(struct fixture *f, struct chat_event event)
{
    chat_edge_openai.encode(f->encoder, &event, &f->out);
}

static void say_text(struct fixture *f, size_t choice, const char *text)
{
    say(f, (struct chat_event){.kind = CHAT_EVENT_TEXT, .choice = choice, .text = {text, strlen(text)}});
}

static void say_end(struct fixture *f, size_t choice, enum chat_finish finish)
{
    say(f, (struct chat_event){.kind = CHAT_EVENT_FINISH, .choice = choice, .finish = finish});
}

static void say_usage_and_done(struct fixture *f)
{
    say(f, (struct chat_event){.kind = CHAT_EVENT_USAGE, .usage = {.prompt_tokens = 5}}); /* so far */
    say(f, (struct chat_event){
               .kind = CHAT_EVENT_USAGE,
               .usage = {
                   .prompt_tokens = 5, .cached_tokens = 2, .completion_tokens = 3, .reasoning_tokens = 1}});
    say(f, (struct chat_event){.kind = CHAT_EVENT_DONE});
}

#define HEAD "\"id\":\"id-1\",\"object\":\"%s\",\"created\":1700000000,\"model\":\"m\\\"1\","

static void check(struct fixture *f, const char *expected, const char *object)
{
    struct buf text; /* every HEAD in `expected` is written as @ */
    buf_init(&text, 1 << 20);
    for (; *expected; expected++) {
        if (*expected == '@')
            buf_printf(&text, HEAD, object);
        else
            buf_putc(&text, *expected);
    }
    assert_int_equal(buf_status(&f->out), PH_OK);
    assert_string_equal(f->out.data, text.data);
    buf_release(&text);
}

static void chat_streams(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, CHAT_KIND_CHAT, true, 1);
    open_encoder(&f);
    say(&f, (struct chat_event){.kind = CHAT_EVENT_PROGRESS});
    say(&f, (struct chat_event){.kind = CHAT_EVENT_ROLE});
    say_text(&f, 0, "h\n\"i");
    say_end(&f, 0, CHAT_FINISH_STOP);
    say_usage_and_done(&f);
    check(&f,
          ": keep-alive\n\n"
          "data: {@\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
          "\"logprobs\":null,\"finish_reason\":null}]}\n\n"
          "data: {@\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\\n\\\"i\"},"
          "\"logprobs\":null,\"finish_reason\":null}]}\n\n"
          "data: {@\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n"
          "data: [DONE]\n\n",
          "chat.completion.chunk");
    end(&f);
}

static void usage_chunk_comes_only_when_asked_for(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, CHAT_KIND_CHAT, true, 2);
    f.request.include_usage = true;
    open_encoder(&f);
    say_text(&f, 1, "x");
    say_end(&f, 1, CHAT_FINISH_LENGTH);
    say_usage_and_done(&f);
    check(&f,
          "data: {@\"choices\":[{\"index\":1,\"delta\":{\"content\":\"x\"},\"logprobs\":null,"
          "\"finish_reason\":null}],\"usage\":null}\n\n"
          "data: {@\"choices\":[{\"index\":1,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}],"
          "\"usage\":null}\n\n"
          "data: {@\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8,"
          "\"prompt_tokens_details\":{\"cached_tokens\":2},"
          "\"completion_tokens_details\":{\"reasoning_tokens\":1}}}\n\n"
          "data: [DONE]\n\n",
          "chat.completion.chunk");
    end(&f);
}

static void failure_in_a_stream_ends_without_done(void **state)
{
    (void)state;
    struct fixture f;
    struct chat_fault fault;
    begin(&f, CHAT_KIND_CHAT, true, 1);
    open_encoder(&f);
    chat_fault_set(&fault, 500, NULL, NULL, "it broke: %d", 7);
    say(&f, chat_fault_event(&fault, PH_ERR_INTERNAL));
    check(&f,
          "data: {\"error\":{\"message\":\"it broke: 7\",\"type\":\"server_error\",\"param\":null,"
          "\"code\":null}}\n\n",
          "");
    end(&f);
}

static void chat_whole(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, CHAT_KIND_CHAT, false, 2);
    open_encoder(&f);
    say(&f, (struct chat_event){.kind = CHAT_EVENT_PROGRESS});
    say(&f, (struct chat_event){.kind = CHAT_EVENT_ROLE});
    say_text(&f, 0, "a");
    say_text(&f, 1, "x");
    say_text(&f, 0, "b");
    say_end(&f, 0, CHAT_FINISH_STOP);
    say_end(&f, 1, CHAT_FINISH_LENGTH);
    assert_int_equal(f.out.len, 0);
    say_usage_and_done(&f);
    check(&f,
          "{@\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"ab\",\"refusal\":"
          "null},"
          "\"logprobs\":null,\"finish_reason\":\"stop\"},"
          "{\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"x\",\"refusal\":null},"
          "\"logprobs\":null,\"finish_reason\":\"length\"}],"
          "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8,"
          "\"prompt_tokens_details\":{\"cached_tokens\":2},"
          "\"completion_tokens_details\":{\"reasoning_tokens\":1}}}",
          "chat.completion");
    end(&f);
}

static void say_call(struct fixture *f, size_t index, const char *id, const char *name, const char *arguments)
{
    say(f, (struct chat_event){
               .kind = CHAT_EVENT_TOOL_CALL,
               .tool_call = {
                   .index = index, .id = id, .name = name, .arguments = {arguments, strlen(arguments)}}});
}

static void tool_calls_stream(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, CHAT_KIND_CHAT, true, 1);
    open_encoder(&f);
    say_call(&f, 0, "call-1", "f", "");
    say_call(&f, 0, NULL, NULL, "{\"x\"");
    check(&f,
          "data: {@\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call-1\","
          "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]},\"logprobs\":null,"
          "\"finish_reason\":null}]}\n\n"
          "data: {@\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,"
          "\"function\":{\"arguments\":\"{\\\"x\\\"\"}}]},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
          "chat.completion.chunk");
    end(&f);
}

static void tool_calls_whole(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, CHAT_KIND_CHAT, false, 1);
    open_encoder(&f);
    say_call(&f, 0, "a", "f", "{\"x\"");
    say_call(&f, 0, NULL, NULL, ":1}");
    say_call(&f, 1, "b", "g", "{}");
    say_end(&f, 0, CHAT_FINISH_TOOL_CALLS);
    say_usage_and_done(&f);
    check(
        &f,
        "{@\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,\"refusal\":null,"
        "\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","
        "\"arguments\":\"{\\\"x\\\":1}\"}},{\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"g\","
        "\"arguments\":\"{}\"}}]},\"logprobs\":null,\"finish_reason\":\"tool_calls\"}],"
        "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8,"
        "\"prompt_tokens_details\":{\"cached_tokens\":2},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":1}}}",
        "chat.completion");
    end(&f);
}

static void say_custom(struct fixture *f, const char *id, const char *name, const char *input)
{
    say(f, (struct chat_event){
               .kind = CHAT_EVENT_TOOL_CALL,
               .tool_call = {.id = id, .name = name, .arguments = {input, strlen(input)}, .custom = true}});
}

static void custom_calls_have_an_input(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, CHAT_KIND_CHAT, true, 1);
    open_encoder(&f);
    say_custom(&f, "c", "sh", "ls");
    say_custom(&f, NULL, NULL, " -l");
    check(&f,
          "data: {@\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\","
          "\"type\":\"custom\",\"custom\":{\"name\":\"sh\",\"input\":\"ls\"}}]},\"logprobs\":null,"
          "\"finish_reason\":null}]}\n\n"
          "data: {@\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,"
          "\"custom\":{\"input\":\" -l\"}}]},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
          "chat.completion.chunk");
    end(&f);
    begin(&f, CHAT_KIND_CHAT, false, 1);
    open_encoder(&f);
    say_custom(&f, "c", "sh", "ls");
    say_custom(&f, NULL, NULL, " -l");
    say_end(&f, 0, CHAT_FINISH_TOOL_CALLS);
    say(&f, (struct chat_event){.kind = CHAT_EVENT_DONE});
    assert_non_null(strstr(f.out.data, "\"tool_calls\":[{\"id\":\"c\",\"type\":\"custom\",\"custom\":{"
                                       "\"name\":\"sh\",\"input\":\"ls -l\"}}]"));
    end(&f);
}

static void say_thought(struct fixture *f, const char *text)
{
    say(f, (struct chat_event){.kind = CHAT_EVENT_REASONING,
                               .text = {text, text ? strlen(text) : 0},
                               .signature = text ? NULL : "seal"});
}

static void thoughts_are_reasoning_content(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, CHAT_KIND_CHAT, true, 1);
    open_encoder(&f);
    say_thought(&f, "hm");
    say_thought(&f, NULL);
    check(&f,
          "data: {@\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"},\"logprobs\":null,"
          "\"finish_reason\":null}]}\n\n",
          "chat.completion.chunk");
    end(&f);
    begin(&f, CHAT_KIND_CHAT, false, 1);
    open_encoder(&f);
    say_thought(&f, "hm");
    say_thought(&f, "m");
    say_thought(&f, NULL);
    say_text(&f, 0, "yes");
    say_end(&f, 0, CHAT_FINISH_STOP);
    say(&f, (struct chat_event){.kind = CHAT_EVENT_DONE});
    assert_non_null(
        strstr(f.out.data, "\"content\":\"yes\",\"refusal\":null,\"reasoning_content\":\"hmm\"}"));
    end(&f);
    begin(&f, CHAT_KIND_COMPLETION, true, 1); /* has no place for them */
    open_encoder(&f);
    say_thought(&f, "hm");
    assert_int_equal(f.out.len, 0);
    end(&f);
}

/* "é" arrives as two tokens: half a character, then the other half. */
static void say_halves(struct fixture *f)
{
    static const struct chat_token_logprob first = {1, {"\xC3", 1}, -0.5}, second = {2, {"\xA9", 1}, -1};
    static const struct chat_token_logprob top[] = {{1, {"\xC3", 1}, -0.5}, {7, {"e", 1}, -2}, {-1, {0}, 0}};
    say(f, (struct chat_event){.kind = CHAT_EVENT_TEXT,
                               .text = {"", 0},
                               .logprobs = &first,
                               .logprob_count = 1,
                               .top = top,
                               .top_count = 3}); /* rows end before */
    say(f, (struct chat_event){.kind = CHAT_EVENT_TEXT,
                               .text = {"\xC3\xA9", 2},
                               .logprobs = &second,
                               .logprob_count = 1,
                               .top = top,
                               .top_count = 3}); /* rows end before */
}

static void chat_logprobs_carry_bytes(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, CHAT_KIND_CHAT, false, 1);
    f.request.logprobs = true;
    f.request.top_logprobs = 2;
    open_encoder(&f);
    say_halves(&f);
    say_end(&f, 0, CHAT_FINISH_STOP);
    say_usage_and_done(&f);
    struct json *body;
    assert_int_equal(json_parse(&f.arena, f.out.data, f.out.len, &body, NULL), PH_OK);
    const struct json *choice = json_at(json_get(body, "choices"), 0);
    assert_string_equal(json_text(json_get(json_get(choice, "message"), "content"), NULL), "\xC3\xA9");
    const struct json *content = json_get(json_get(choice, "logprobs"), "content");
    assert_int_equal(json_count(content), 2);
    const struct json *token = json_at(content, 0);
    double value;
    assert_string_equal(json_text(json_get(token, "token"), NULL), "\xEF\xBF\xBD");
    assert_true(json_to_double(json_at(json_get(token, "bytes"), 0), &value) && value == 0xC3);
    assert_true(json_to_double(json_get(token, "logprob"), &value) && value == -0.5);
    assert_int_equal(json_count(json_get(token, "top_logprobs")), 2);
    assert_true(json_text_is(json_get(json_at(json_get(token, "top_logprobs"), 1), "token"), "e"));
    end(&f);
}

static void completion_logprobs_are_parallel_arrays(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, CHAT_KIND_COMPLETION, false, 1);
    f.request.logprobs = true;
    f.request.top_logprobs = 2;
    open_encoder(&f);
    say(&f, (struct chat_event){.kind = CHAT_EVENT_ROLE});
    say_halves(&f);
    say_end(&f, 0, CHAT_FINISH_STOP);
    say_usage_and_done(&f);
    check(&f,
          "{@\"choices\":[{\"index\":0,\"text\":\"\xC3\xA9\",\"logprobs\":{"
          "\"tokens\":[\"bytes:\\\\xc3\",\"bytes:\\\\xa9\"],\"token_logprobs\":[-0.5,-1],"
          "\"top_logprobs\":[{\"bytes:\\\\xc3\":-0.5,\"e\":-2},{\"bytes:\\\\xc3\":-0.5,\"e\":-2}],"
          "\"text_offset\":[0,0]},\"finish_reason\":\"stop\"}],"
          "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8,"
          "\"prompt_tokens_details\":{\"cached_tokens\":2},"
          "\"completion_tokens_details\":{\"reasoning_tokens\":1}}}",
          "text_completion");
    end(&f);
}

static void completions_stream(void **state)
{
    (void)state;
    struct fixture f;
    static const struct chat_token_logprob token = {1, {"hi", 2}, -0.25};
    begin(&f, CHAT_KIND_COMPLETION, true, 1);
    f.request.logprobs = true;
    open_encoder(&f);
    say(&f, (struct chat_event){.kind = CHAT_EVENT_ROLE});
    say_text(&f, 0, "\xC3\xA9");
    say(&f, (struct chat_event){
                .kind = CHAT_EVENT_TEXT, .text = {"hi", 2}, .logprobs = &token, .logprob_count = 1});
    say_end(&f, 0, CHAT_FINISH_LENGTH);
    say_usage_and_done(&f);
    check(
        &f,
        "data: "
        "{@\"choices\":[{\"index\":0,\"text\":\"\xC3\xA9\",\"logprobs\":null,\"finish_reason\":null}]}\n\n"
        "data: {@\"choices\":[{\"index\":0,\"text\":\"hi\",\"logprobs\":{\"tokens\":[\"hi\"],"
        "\"token_logprobs\":[-0.25],\"top_logprobs\":null,\"text_offset\":[1]},\"finish_reason\":null}]}\n\n"
        "data: "
        "{@\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"length\"}]}\n\n"
        "data: [DONE]\n\n",
        "text_completion");
    end(&f);
}

static void faults_have_openai_types(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *type;
    } cases[] = {{400, "invalid_request_error"}, {401, "authentication_error"},  {403, "permission_error"},
                 {404, "invalid_request_error"}, {413, "invalid_request_error"}, {429, "rate_limit_error"},
                 {500, "server_error"},          {503, "server_error"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct chat_fault fault;
        chat_fault_set(&fault, cases[i].status, "c", "p", "m");
        assert_string_equal(fault.type, cases[i].type);
        struct buf out;
        char expected[256];
        buf_init(&out, 4096);
        chat_edge_openai.encode_fault(&fault, NULL, &out);
        snprintf(expected, sizeof expected,
                 "{\"error\":{\"message\":\"m\",\"type\":\"%s\",\"param\":\"p\",\"code\":\"c\"}}",
                 cases[i].type);
        assert_string_equal(out.data, expected);
        buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_streams),
        cmocka_unit_test(usage_chunk_comes_only_when_asked_for),
        cmocka_unit_test(failure_in_a_stream_ends_without_done),
        cmocka_unit_test(chat_whole),
        cmocka_unit_test(tool_calls_stream),
        cmocka_unit_test(tool_calls_whole),
        cmocka_unit_test(custom_calls_have_an_input),
        cmocka_unit_test(thoughts_are_reasoning_content),
        cmocka_unit_test(chat_logprobs_carry_bytes),
        cmocka_unit_test(completion_logprobs_are_parallel_arrays),
        cmocka_unit_test(completions_stream),
        cmocka_unit_test(faults_have_openai_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
