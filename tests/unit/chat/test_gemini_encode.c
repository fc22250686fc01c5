/* Requests as Gemini is asked, made from bodies of the Responses API and from hand-made messages. */
#include "chat/chat.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct chat_request request;
    struct chat_target target;
    struct chat_post post;
    struct chat_fault fault;
};

static void begin(struct fixture *f, const char *body, const char *model)
{
    struct json *json;
    arena_init(&f->arena, 1 << 22);
    f->target = (struct chat_target){.base_url = "https://g/v1beta", .model = model, .key = "k"};
    if (json_parse(&f->arena, body, strlen(body), &json, NULL) != PH_OK ||
        chat_edge_responses.decode(&f->arena, CHAT_KIND_CHAT, json, &f->request, &f->fault) != PH_OK)
        fail_msg("%s: %s", body, f->fault.message);
}

static void check_body(struct fixture *f, const char *expected)
{
    struct json *json;
    if (chat_codec_gemini.encode(&f->arena, &f->request, &f->target, &f->post, &f->fault) != PH_OK)
        fail_msg("%s", f->fault.message);
    assert_int_equal(json_parse(&f->arena, f->post.body, f->post.body_len, &json, NULL), PH_OK);
    assert_string_equal(f->post.body, expected);
    arena_release(&f->arena);
}

static void check(const char *body, const char *model, const char *expected)
{
    struct fixture f;
    begin(&f, body, model);
    check_body(&f, expected);
}

#define HI "\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"hi\"}]}]"
#define IN "\"input\":\"hi\""

static void address_and_headers(void **state)
{
    (void)state;
    static const struct {
        const char *model, *stream, *url;
    } cases[] = {
        {"gemini-2.5-flash", "false", "https://g/v1beta/models/gemini-2.5-flash:generateContent"},
        {"gemini-2.5-flash", "true",
         "https://g/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"},
        {"models/x", "false", "https://g/v1beta/models/x:generateContent"},
        {"tunedModels/x", "false", "https://g/v1beta/tunedModels/x:generateContent"},
        {"a b?#\r\n", "false", "https://g/v1beta/models/a%20b%3F%23%0D%0A:generateContent"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        char body[64];
        snprintf(body, sizeof body, "{" IN ",\"stream\":%s}", cases[i].stream);
        begin(&f, body, cases[i].model);
        assert_int_equal(chat_codec_gemini.encode(&f.arena, &f.request, &f.target, &f.post, &f.fault), PH_OK);
        assert_string_equal(f.post.url, cases[i].url);
        assert_int_equal(f.post.header_count, 2);
        assert_string_equal(f.post.headers[0].name, "content-type");
        assert_string_equal(f.post.headers[1].name, "x-goog-api-key");
        assert_string_equal(f.post.headers[1].value, "k");
        assert_string_equal(f.post.body, "{" HI ",\"generationConfig\":{}}");
        assert_int_equal(f.post.body_len, strlen(f.post.body));
        arena_release(&f.arena);
    }
}

static void roles(void **state)
{
    (void)state;
    check(
        "{\"instructions\":\"be brief\",\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\","
        "\"content\":\"b\"},{\"role\":\"developer\",\"content\":\"later\"},{\"role\":\"assistant\","
        "\"content\":"
        "\"c\"},{\"role\":\"assistant\",\"content\":\"\"},{\"role\":\"user\",\"content\":\"\"}]}",
        "m",
        "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"a\"},{\"text\":\"b\"}]},"
        "{\"role\":\"model\",\"parts\":[{\"text\":\"c\"}]},{\"role\":\"user\",\"parts\":[{\"text\":\" \"}]}],"
        "\"systemInstruction\":{\"parts\":[{\"text\":\"be brief\"},{\"text\":\"later\"}]},"
        "\"generationConfig\":{}}");
    /* Nothing but instructions: they are what is asked. */
    check("{\"input\":[{\"role\":\"system\",\"content\":\"hi\"}]}", "m", "{" HI ",\"generationConfig\":{}}");
}

static void media(void **state)
{
    (void)state;
    check("{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"see\"},"
          "{\"type\":\"input_image\",\"image_url\":\"data:image/png;base64,QUJD\"},"
          "{\"type\":\"input_image\",\"image_url\":\"https://x/a.webp?w=1\"},"
          "{\"type\":\"input_file\",\"filename\":\"a.csv\",\"file_url\":\"https://x/a\"},"
          "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"QUJD\",\"format\":\"wav\"}}]}]}",
          "m",
          "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"see\"},"
          "{\"inlineData\":{\"mimeType\":\"image/png\",\"data\":\"QUJD\"}},"
          "{\"fileData\":{\"mimeType\":\"image/webp\",\"fileUri\":\"https://x/a.webp?w=1\"}},"
          "{\"fileData\":{\"mimeType\":\"text/csv\",\"fileUri\":\"https://x/a\"}},"
          "{\"inlineData\":{\"mimeType\":\"audio/wav\",\"data\":\"QUJD\"}}]}],\"generationConfig\":{}}");
}

#define CALL(id, name, arguments)                                                                         \
    "{\"type\":\"function_call\",\"call_id\":\"" id "\",\"name\":\"" name "\",\"arguments\":\"" arguments \
    "\"}"
#define RESULT(id, output) \
    "{\"type\":\"function_call_output\",\"call_id\":\"" id "\",\"output\":\"" output "\"}"

static void calls_and_results(void **state)
{
    (void)state;
    check(
        "{\"input\":[{\"role\":\"user\",\"content\":\"q\"}," CALL(
            "call_1_sig_CiQB-_Qx8w", "f",
            "{\\\"a\\\":1}") "," CALL("gem_x7", "g",
                                      "") "," RESULT("call_1_sig_CiQB-_Qx8w",
                                                     "{\\\"ok\\\":true}") "," RESULT("gem_x7", "sunny") "]}",
        "gemini-3-pro-preview",
        "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"q\"}]},{\"role\":\"model\",\"parts\":["
        "{\"functionCall\":{\"name\":\"f\",\"args\":{\"a\":1}},\"thoughtSignature\":\"CiQB+/Qx8w==\"},"
        "{\"functionCall\":{\"id\":\"x7\",\"name\":\"g\",\"args\":{}}}]},{\"role\":\"user\",\"parts\":["
        "{\"functionResponse\":{\"name\":\"f\",\"response\":{\"ok\":true}}},"
        "{\"functionResponse\":{\"id\":\"x7\",\"name\":\"g\",\"response\":{\"output\":\"sunny\"}}}]}],"
        "\"generationConfig\":{}}");
}

/* Calls of another provider: in the turn that is under way Gemini 3 wants a signature. */
static void calls_from_elsewhere(void **state)
{
    (void)state;
    static const char body[] = "{\"input\":[" CALL("a", "f", "{}") "," RESULT(
        "a",
        "1") ",{\"role\":\"user\",\"content\":\"q\"}," CALL("b", "f",
                                                            "broken") "," CALL("c", "f",
                                                                               "{}") "," RESULT("b",
                                                                                                "2") "]}";
#define ELSEWHERE(seal)                                                                                      \
    "{\"contents\":[{\"role\":\"model\",\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":{}}}]},"       \
    "{\"role\":\"user\",\"parts\":[{\"functionResponse\":{\"name\":\"f\",\"response\":{\"output\":\"1\"}}}]" \
    "},"                                                                                                     \
    "{\"role\":\"user\",\"parts\":[{\"text\":\"q\"}]},{\"role\":\"model\",\"parts\":["                       \
    "{\"functionCall\":{\"name\":\"f\",\"args\":{\"input\":\"broken\"}}" seal "},"                           \
    "{\"functionCall\":{\"name\":\"f\",\"args\":{}}}]},{\"role\":\"user\",\"parts\":["                       \
    "{\"functionResponse\":{\"name\":\"f\",\"response\":{\"output\":\"2\"}}}]}],\"generationConfig\":{}}"
    check(body, "gemini-3-flash", ELSEWHERE(",\"thoughtSignature\":\"skip_thought_signature_validator\""));
    check(body, "gemini-2.5-flash", ELSEWHERE(""));
}

static void a_failed_tool_says_error(void **state)
{
    (void)state;
    static const struct chat_tool_call call = {.id = "a", .name = "f"};
    static const struct chat_part image = {
        .kind = CHAT_PART_IMAGE, .media_type = "image/png", .data = {"QUJD", 4}};
    static const struct chat_message messages[] = {
        {.role = CHAT_ASSISTANT, .tool_calls = &call, .tool_call_count = 1},
        {.role = CHAT_TOOL,
         .tool_call_id = "a",
         .tool_failed = true,
         .content = {"no", 2},
         .parts = &image,
         .part_count = 1},
    };
    struct fixture f;
    begin(&f, "{" IN "}", "m");
    f.request.messages = messages;
    f.request.message_count = 2;
    check_body(
        &f, "{\"contents\":[{\"role\":\"model\",\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":{}}}]},"
            "{\"role\":\"user\",\"parts\":[{\"functionResponse\":{\"name\":\"f\",\"response\":{\"error\":"
            "\"no\"}}},{\"inlineData\":{\"mimeType\":\"image/png\",\"data\":\"QUJD\"}}]}],"
            "\"generationConfig\":{}}");
}

static void tools(void **state)
{
    (void)state;
#define TOOLS                                                                                                \
    "\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\",\"strict\":true,\"parameters\":" \
    "{\"type\":\"object\",\"$defs\":{},\"additionalProperties\":false}},{\"type\":\"function\",\"name\":"    \
    "\"g\"}]"
#define DECLARED                                                                                            \
    "\"tools\":[{\"functionDeclarations\":[{\"name\":\"f\",\"description\":\"d\",\"parametersJsonSchema\":" \
    "{\"type\":\"object\",\"$defs\":{},\"additionalProperties\":false}},{\"name\":\"g\"}]}]"
    static const char *const choices[][2] = {
        {"", ""},
        {",\"tool_choice\":\"auto\"", ""},
        {",\"tool_choice\":\"required\"", ",\"toolConfig\":{\"functionCallingConfig\":{\"mode\":\"ANY\"}}"},
        {",\"tool_choice\":{\"type\":\"function\",\"name\":\"g\"}",
         ",\"toolConfig\":{\"functionCallingConfig\":{\"mode\":\"ANY\",\"allowedFunctionNames\":[\"g\"]}}"},
    };
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        char body[600], expected[600];
        snprintf(body, sizeof body, "{" IN "," TOOLS "%s}", choices[i][0]);
        snprintf(expected, sizeof expected, "{" HI "," DECLARED "%s,\"generationConfig\":{}}", choices[i][1]);
        check(body, "m", expected);
    }
    check("{" IN "," TOOLS ",\"tool_choice\":\"none\"}", "m", "{" HI ",\"generationConfig\":{}}");
}

static void how_to_answer(void **state)
{
    (void)state;
    static const struct chat_text stops[] = {{"END", 3}, {"\n", 1}};
    struct fixture f;
    begin(&f,
          "{" IN ",\"temperature\":0.5,\"top_p\":0.25,\"max_output_tokens\":7,\"top_logprobs\":3,\"text\":"
          "{\"format\":{\"type\":\"json_schema\",\"name\":\"n\",\"schema\":{\"type\":\"object\"}}}}",
          "m");
    f.request.sampling.has_top_k = f.request.sampling.has_seed = true;
    f.request.sampling.top_k = 40;
    f.request.sampling.seed = 0x100000001; /* their seed has 31 bits */
    f.request.sampling.frequency_penalty = 1;
    f.request.sampling.presence_penalty = -1;
    f.request.stops = stops;
    f.request.stop_count = 2;
    f.request.choices = 3;
    check_body(&f, "{" HI ",\"generationConfig\":{\"temperature\":0.5,\"topP\":0.25,\"topK\":40,"
                   "\"frequencyPenalty\":1,\"presencePenalty\":-1,\"seed\":0,\"maxOutputTokens\":7,"
                   "\"candidateCount\":3,\"stopSequences\":[\"END\",\"\\n\"],\"responseLogprobs\":true,"
                   "\"logprobs\":3,\"responseMimeType\":\"application/json\",\"responseJsonSchema\":"
                   "{\"type\":\"object\"}}}");
    check("{" IN ",\"text\":{\"format\":{\"type\":\"json_object\"}}}", "m",
          "{" HI ",\"generationConfig\":{\"responseMimeType\":\"application/json\"}}");
}

static void thinking(void **state)
{
    (void)state;
    static const struct {
        const char *model, *effort;
        int64_t tokens;
        const char *expected;
    } cases[] = {
        {"gemini-2.5-flash", NULL, -1, ""},
        {"gemini-2.5-flash", "none", 0,
         "\"thinkingConfig\":{\"includeThoughts\":false,\"thinkingBudget\":0}"},
        {"gemini-2.5-flash", "medium", -1,
         "\"thinkingConfig\":{\"includeThoughts\":true,\"thinkingBudget\":8192}"},
        {"gemini-2.5-pro", NULL, 2000,
         "\"thinkingConfig\":{\"includeThoughts\":true,\"thinkingBudget\":2000}"},
        {"gemini-2.5-pro", "none", 0,
         "\"thinkingConfig\":{\"includeThoughts\":false,\"thinkingBudget\":128}"},
        {"gemini-2.5-pro", NULL, 60000,
         "\"thinkingConfig\":{\"includeThoughts\":true,\"thinkingBudget\":24576}"},
        {"gemini-flash-latest", "low", -1,
         "\"thinkingConfig\":{\"includeThoughts\":true,\"thinkingBudget\":1024}"},
        {"gemini-3-pro-preview", "high", -1,
         "\"thinkingConfig\":{\"includeThoughts\":true,\"thinkingLevel\":\"high\"}"},
        {"gemini-3.1-flash", "none", 0,
         "\"thinkingConfig\":{\"includeThoughts\":false,\"thinkingLevel\":\"low\"}"},
        {"models/gemini-3-pro", NULL, 10000,
         "\"thinkingConfig\":{\"includeThoughts\":true,\"thinkingLevel\":\"high\"}"},
        {"models/gemini-3-flash", NULL, 10000,
         "\"thinkingConfig\":{\"includeThoughts\":true,\"thinkingLevel\":\"medium\"}"},
        {"gemini-2.0-flash", "high", -1, ""},
        {"gemini-1.5-pro", "high", -1, ""},
        {"gemma-3-27b-it", "high", -1, ""},
        {"gemini-3-pro", "enormous", -1, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        char expected[300];
        begin(&f, "{" IN "}", cases[i].model);
        f.request.reasoning_effort = cases[i].effort;
        f.request.reasoning_tokens = cases[i].tokens;
        snprintf(expected, sizeof expected, "{" HI ",\"generationConfig\":{%s}}", cases[i].expected);
        check_body(&f, expected);
    }
}

static void what_it_cannot_do(void **state)
{
    (void)state;
    static const struct chat_part other = {.kind = CHAT_PART_OTHER};
    static const struct chat_message strange = {.role = CHAT_USER, .parts = &other, .part_count = 1};
    static const struct chat_message lost = {.role = CHAT_TOOL, .tool_call_id = "x", .content = {"1", 1}};
    for (int i = 0; i < 5; i++) {
        struct fixture f;
        begin(&f, "{" IN "}", "m");
        if (i == 0)
            f.request.kind = CHAT_KIND_COMPLETION;
        else if (i == 1)
            f.request.continue_final_message = true;
        else if (i == 2)
            f.request.messages = &strange;
        else if (i == 3)
            f.request.messages = &lost;
        else if (json_parse(&f.arena, "[{\"type\":\"custom\"}]", 19, (struct json **)(void *)&f.request.tools,
                            NULL) != PH_OK)
            fail();
        assert_int_not_equal(chat_codec_gemini.encode(&f.arena, &f.request, &f.target, &f.post, &f.fault),
                             PH_OK);
        assert_int_equal(f.fault.http_status, 400);
        assert_int_equal(f.fault.cause, i == 3 ? CHAT_CAUSE_REQUEST : CHAT_CAUSE_UNABLE);
        arena_release(&f.arena);
    }
}

/* ---- What came with a call comes back with it */

struct caught {
    struct arena *arena;
    struct chat_tool_call call;
};

static void catch_call(void *ud, const struct chat_event *event)
{
    struct caught *caught = ud;
    if (event->kind != CHAT_EVENT_TOOL_CALL)
        return;
    caught->call.id = arena_strdup(caught->arena, event->tool_call.id);
    caught->call.name = arena_strdup(caught->arena, event->tool_call.name);
    for (const char *c = caught->call.id; *c; c++)
        assert_true((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                    *c == '_' || *c == '-');
}

static void signatures_come_back(void **state)
{
    (void)state;
    static const struct {
        const char *part, *back;
    } cases[] = {
        {"\"thoughtSignature\":\"QUJD\"", "\"thoughtSignature\":\"QUJD\""},
        {"\"thoughtSignature\":\"QUI=\"", "\"thoughtSignature\":\"QUI=\""},
        {"\"thoughtSignature\":\"+/+/+/8=\"", "\"thoughtSignature\":\"+/+/+/8=\""},
        {"\"thoughtSignature\":\"QUI\"", "\"thoughtSignature\":\"QUI\""},
        {"\"thoughtSignature\":\"a_b-c\\\"\\u00e9 \"", "\"thoughtSignature\":\"a_b-c\\\"\xC3\xA9 \""},
        {"\"thoughtSignature\":\"\"", "\"functionCall\":{\"name\":\"f\",\"args\":{}}}"},
        {"\"x\":1", "\"functionCall\":{\"name\":\"f\",\"args\":{}}}"},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        struct chat_message message = {.role = CHAT_ASSISTANT, .tool_call_count = 1};
        char reply[300];
        bool with_id = i >= sizeof cases / sizeof cases[0];
        size_t at = i % (sizeof cases / sizeof cases[0]);
        begin(&f, "{" IN "}", "gemini-2.5-flash");
        struct caught caught = {.arena = &f.arena};
        struct chat_reader_params params = {&f.request, false, catch_call, &caught};
        struct chat_reader *reader = chat_codec_gemini.reader_new(&f.arena, &params);
        snprintf(reply, sizeof reply,
                 "{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{%s\"name\":\"f\"},%s}]},"
                 "\"finishReason\":\"STOP\"}]}",
                 with_id ? "\"id\":\"sig_7\"," : "", cases[at].part);
        assert_int_equal(chat_codec_gemini.feed(reader, reply, strlen(reply), &f.fault), PH_OK);
        assert_int_equal(chat_codec_gemini.end(reader, &f.fault), PH_OK);
        message.tool_calls = &caught.call;
        f.request.messages = &message;
        assert_int_equal(chat_codec_gemini.encode(&f.arena, &f.request, &f.target, &f.post, &f.fault), PH_OK);
        assert_int_equal(strstr(f.post.body, "\"id\":\"sig_7\"") != NULL, with_id);
        if (!with_id && !strstr(f.post.body, cases[at].back))
            fail_msg("%s\n%s\n%s", cases[at].part, caught.call.id, f.post.body);
        if (at < 5)
            assert_non_null(strstr(f.post.body, cases[at].back));
        arena_release(&f.arena);
    }
}

/* A conversation that moves on to OpenAI, which refuses long ids: a call and its result agree on a short one. */
static void sealed_ids_are_short_elsewhere(void **state)
{
    (void)state;
#define SEALED "call_0123456789abcdef_sig_QUJDQUJDQUJDQUJDQUJD"
    static const char *const bodies[] = {
        "{\"input\":[" CALL(SEALED, "f", "{}") "," RESULT(SEALED, "1") "]}",
        "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"" SEALED
        "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"" SEALED "\",\"content\":\"1\",\"x\":1}]}"};
    const struct chat_edge *const edges[] = {&chat_edge_responses, &chat_edge_openai};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f = {.target = {.base_url = "http://x", .model = "m"}};
        struct json *json;
        arena_init(&f.arena, 1 << 22);
        assert_int_equal(json_parse(&f.arena, bodies[i], strlen(bodies[i]), &json, NULL), PH_OK);
        assert_int_equal(edges[i]->decode(&f.arena, CHAT_KIND_CHAT, json, &f.request, &f.fault), PH_OK);
        assert_int_equal(chat_codec_openai.encode(&f.arena, &f.request, &f.target, &f.post, &f.fault), PH_OK);
        assert_int_equal(json_parse(&f.arena, f.post.body, f.post.body_len, &json, NULL), PH_OK);
        const struct json *messages = json_get(json, "messages");
        const struct json *call = json_at(json_get(json_at(messages, 0), "tool_calls"), 0);
        const char *id = json_text(json_get(call, "id"), "");
        assert_true(strlen(id) > 5 && strlen(id) <= 40);
        assert_true(json_text_is(json_get(json_at(messages, 1), "tool_call_id"), id));
        assert_true(i == 0 || json_get(json_at(messages, 1), "x"));
        arena_release(&f.arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(address_and_headers),
        cmocka_unit_test(roles),
        cmocka_unit_test(media),
        cmocka_unit_test(calls_and_results),
        cmocka_unit_test(calls_from_elsewhere),
        cmocka_unit_test(a_failed_tool_says_error),
        cmocka_unit_test(tools),
        cmocka_unit_test(how_to_answer),
        cmocka_unit_test(thinking),
        cmocka_unit_test(what_it_cannot_do),
        cmocka_unit_test(signatures_come_back),
        cmocka_unit_test(sealed_ids_are_short_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
