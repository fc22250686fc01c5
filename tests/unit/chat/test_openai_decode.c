#include <math.h>

#include "chat/chat.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct chat_request request;
    struct chat_fault fault;
};

static enum ph_status decode(struct fixture *f, enum chat_kind kind, const char *body)
{
    struct json *json;
    struct ph_err err;
    arena_init(&f->arena, 1 << 24);
    if (json_parse(&f->arena, body, strlen(body), &json, &err) != PH_OK)
        fail_msg("%s: %s", body, err.message);
    return chat_edge_openai.decode(&f->arena, kind, json, &f->request, &f->fault);
}

static void must_decode(struct fixture *f, enum chat_kind kind, const char *body)
{
    if (decode(f, kind, body) != PH_OK)
        fail_msg("%s: %s", body, f->fault.message);
}

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define PARTS(part) "{\"messages\":[{\"role\":\"user\",\"content\":[" part "]}]}"

/* ---- What must be refused, and the parameter that the answer names */

static const struct {
    const char *body, *param;
} bad_chats[] = {
    {"[]", NULL},
    {"\"x\"", NULL},
    {"{}", "messages"},
    {"{\"messages\":null}", "messages"},
    {"{\"messages\":\"hi\"}", "messages"},
    {"{\"messages\":[]}", "messages"},
    {"{\"messages\":[1]}", "messages[0]"},
    {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages[0].content"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content"},
    {"{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role"},
    {"{\"messages\":[{\"role\":\"wizard\",\"content\":\"x\"}]}", "messages[0].role"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "messages[0].content[0]"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", "messages[0].content[0].text"},
    {PARTS("{\"type\":\"text\",\"text\":5}"), "messages[0].content[0].text"},
    {PARTS("{\"type\":\"refusal\"}"), "messages[0].content[0].refusal"},
    {PARTS("{\"type\":\"image_url\"}"), "messages[0].content[0].image_url"},
    {PARTS("{\"type\":\"image_url\",\"image_url\":{\"url\":\"\"}}"), "messages[0].content[0].image_url"},
    {PARTS("{\"type\":\"input_audio\",\"input_audio\":{}}"), "messages[0].content[0].input_audio"},
    {PARTS("{\"type\":\"file\",\"file\":{\"filename\":\"x\"}}"), "messages[0].content[0].file"},
    {PARTS("5"), "messages[0].content[0]"},
    {"{" USER ",\"parallel_tool_calls\":1}", "parallel_tool_calls"},
    {"{" USER ",\"reasoning_effort\":1}", "reasoning_effort"},
    {"{" USER ",\"tools\":[5]}", "tools[0].type"},
    {"{" USER ",\"tools\":[{\"type\":5}]}", "tools[0].type"},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":{}}]}", "messages[0].tool_calls"},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\"}]}]}", "messages[0].tool_calls"},
    {"{" USER ",\"max_tokens\":0}", "max_tokens"},
    {"{" USER ",\"max_tokens\":-5}", "max_tokens"},
    {"{" USER ",\"max_tokens\":1.5}", "max_tokens"},
    {"{" USER ",\"max_tokens\":\"5\"}", "max_tokens"},
    {"{" USER ",\"max_tokens\":1e30}", "max_tokens"},
    {"{" USER ",\"max_completion_tokens\":0}", "max_completion_tokens"},
    {"{" USER ",\"temperature\":2.1}", "temperature"},
    {"{" USER ",\"temperature\":-0.1}", "temperature"},
    {"{" USER ",\"temperature\":\"hot\"}", "temperature"},
    {"{" USER ",\"top_p\":1.01}", "top_p"},
    {"{" USER ",\"n\":0}", "n"},
    {"{" USER ",\"n\":33}", "n"},
    {"{" USER ",\"stream\":\"yes\"}", "stream"},
    {"{" USER ",\"stream\":1}", "stream"},
    {"{" USER ",\"model\":5}", "model"},
    {"{" USER ",\"user\":5}", "user"},
    {"{" USER ",\"seed\":\"x\"}", "seed"},
    {"{" USER ",\"seed\":1.5}", "seed"},
    {"{" USER ",\"frequency_penalty\":3}", "frequency_penalty"},
    {"{" USER ",\"presence_penalty\":-3}", "presence_penalty"},
    {"{" USER ",\"logprobs\":5}", "logprobs"},
    {"{" USER ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs"},
    {"{" USER ",\"top_logprobs\":2}", "top_logprobs"},
    {"{" USER ",\"stop\":5}", "stop"},
    {"{" USER ",\"stop\":[5]}", "stop"},
    {"{" USER
     ",\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\",\"k\",\"l\",\"m\",\"n\","
     "\"o\",\"p\",\"q\"]}",
     "stop"},
    {"{" USER ",\"logit_bias\":[1]}", "logit_bias"},
    {"{" USER ",\"logit_bias\":{\"cat\":1}}", "logit_bias"},
    {"{" USER ",\"logit_bias\":{\"-1\":1}}", "logit_bias"},
    {"{" USER ",\"logit_bias\":{\"5\":101}}", "logit_bias"},
    {"{" USER ",\"logit_bias\":{\"99999999999\":1}}", "logit_bias"},
    {"{" USER ",\"tools\":{}}", "tools"},
    {"{" USER ",\"tools\":[{\"type\":\"function\"}]}", "tools[0].function.name"},
    {"{" USER ",\"tool_choice\":5}", "tool_choice"},
    {"{" USER ",\"tool_choice\":\"perhaps\"}", "tool_choice"},
    {"{" USER ",\"response_format\":\"text\"}", "response_format"},
    {"{" USER ",\"metadata\":\"x\"}", "metadata"},
    {"{" USER ",\"stream_options\":5}", "stream_options"},
    {"{" USER ",\"stream_options\":{\"include_usage\":5}}", "stream_options.include_usage"},
    {"{" USER ",\"continue_final_message\":true}", "continue_final_message"},
};

static const struct {
    const char *body, *param;
} bad_completions[] = {
    {"{}", "prompt"},
    {"{\"prompt\":null}", "prompt"},
    {"{\"prompt\":5}", "prompt"},
    {"{\"prompt\":[]}", "prompt"},
    {"{\"prompt\":[\"a\",5]}", "prompt"},
    {"{\"prompt\":[5,\"a\"]}", "prompt"},
    {"{\"prompt\":[-1]}", "prompt"},
    {"{\"prompt\":[1.5]}", "prompt"},
    {"{\"prompt\":[4294967296]}", "prompt"},
    {"{\"prompt\":[[1],[\"x\"]]}", "prompt"},
    {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs"},
    {"{\"prompt\":\"a\",\"logprobs\":-1}", "logprobs"},
    {"{\"prompt\":\"a\",\"echo\":1}", "echo"},
    {"{\"prompt\":\"a\",\"suffix\":1}", "suffix"},
    {"{\"prompt\":\"a\",\"best_of\":3}", "best_of"},
    {"{\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\"],\"n\":32}", "n"},
};

static void check_bad(enum chat_kind kind, const char *body, const char *param)
{
    struct fixture f;
    if (decode(&f, kind, body) == PH_OK)
        fail_msg("accepted: %s", body);
    if (f.fault.http_status != 400 || strcmp(f.fault.type, "invalid_request_error") != 0 ||
        !f.fault.message[0])
        fail_msg("%s: status %d, type %s", body, f.fault.http_status, f.fault.type);
    if (!param != !f.fault.param || (param && strcmp(param, f.fault.param) != 0))
        fail_msg("%s: param %s, expected %s", body, f.fault.param ? f.fault.param : "null",
                 param ? param : "null");
    arena_release(&f.arena);
}

static void faults_name_the_parameter(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_chats / sizeof bad_chats[0]; i++)
        check_bad(CHAT_KIND_CHAT, bad_chats[i].body, bad_chats[i].param);
    for (size_t i = 0; i < sizeof bad_completions / sizeof bad_completions[0]; i++)
        check_bad(CHAT_KIND_COMPLETION, bad_completions[i].body, bad_completions[i].param);
}

/* ---- What must be accepted */

static void unknown_members_and_nulls_are_accepted(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, CHAT_KIND_CHAT,
                "{" USER ",\"model\":null,\"temperature\":null,\"top_p\":null,\"n\":null,\"stream\":null,"
                "\"stop\":null,\"max_tokens\":null,\"max_completion_tokens\":null,\"logit_bias\":null,"
                "\"logprobs\":null,\"top_logprobs\":null,\"seed\":null,\"tools\":null,\"tool_choice\":null,"
                "\"response_format\":null,\"user\":null,\"metadata\":null,\"stream_options\":null,"
                "\"frequency_penalty\":null,\"presence_penalty\":null,\"store\":false,"
                "\"parallel_tool_calls\":true,\"service_tier\":\"auto\",\"zzz\":{\"a\":[1,2]}}");
    assert_null(f.request.model);
    assert_false(f.request.sampling.has_temperature);
    assert_int_equal(f.request.choices, 1);
    assert_int_equal(f.request.max_tokens, 0);
    assert_false(f.request.stream);
    assert_non_null(json_get(f.request.raw, "zzz"));
    arena_release(&f.arena);
}

static void everything_said_is_read(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(
        &f, CHAT_KIND_CHAT,
        "{" USER ",\"model\":\"small\",\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,\"min_p\":0.1,"
        "\"repetition_penalty\":1.1,\"n\":3,\"stream\":true,\"stop\":[\"a\",\"\",\"bc\"],"
        "\"max_tokens\":7,\"max_completion_tokens\":9,\"logit_bias\":{\"5\":-100,\"6\":1.5},"
        "\"logprobs\":true,\"top_logprobs\":4,\"seed\":-3,\"user\":\"u\","
        "\"metadata\":{\"conversation_id\":\"c\"},\"stream_options\":{\"include_usage\":true},"
        "\"frequency_penalty\":0.25,\"presence_penalty\":-0.5,\"ignore_eos\":true,"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"auto\","
        "\"response_format\":{\"type\":\"text\"},\"chat_template_kwargs\":{\"enable_thinking\":false}}");
    const struct chat_request *r = &f.request;
    assert_string_equal(r->model, "small");
    assert_true(r->sampling.has_temperature && r->sampling.temperature == 0.5);
    assert_true(r->sampling.has_top_p && r->sampling.top_p == 0.9);
    assert_true(r->sampling.has_top_k && r->sampling.top_k == 40);
    assert_true(r->sampling.has_min_p && r->sampling.min_p == 0.1);
    assert_true(r->sampling.has_repeat_penalty && r->sampling.repeat_penalty == 1.1);
    assert_true(r->sampling.has_seed && r->sampling.seed == (uint64_t)-3);
    assert_true(r->sampling.frequency_penalty == 0.25 && r->sampling.presence_penalty == -0.5);
    assert_int_equal(r->choices, 3);
    assert_true(r->stream && r->include_usage && r->logprobs && r->ignore_end);
    assert_int_equal(r->stop_count, 2);
    assert_string_equal(r->stops[1].text, "bc");
    assert_int_equal(r->max_tokens, 9);
    assert_int_equal(r->sampling.logit_bias_count, 2);
    assert_int_equal(r->sampling.logit_bias[0].id, 5);
    assert_true(isinf(r->sampling.logit_bias[0].bias) && r->sampling.logit_bias[0].bias < 0);
    assert_true(r->sampling.logit_bias[1].bias == 1.5f);
    assert_int_equal(r->top_logprobs, 4);
    assert_string_equal(r->user, "u");
    assert_string_equal(r->conversation, "c");
    assert_int_equal(json_count(r->tools), 1);
    assert_non_null(r->template_vars);
    arena_release(&f.arena);
}

static void tool_choice_none_hides_the_tools(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, CHAT_KIND_CHAT,
                "{" USER ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
                "\"tool_choice\":\"none\"}");
    assert_null(f.request.tools);
    arena_release(&f.arena);
}

static void content_parts_join_as_lines(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(
        &f, CHAT_KIND_CHAT,
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"be brief\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"input_text\",\"text\":\"b\\u0000c\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\","
        "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}},"
        "{\"function\":{\"name\":\"g\",\"arguments\":{\"y\":2}}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"42\"}]}");
    const struct chat_message *m = f.request.messages;
    assert_int_equal(f.request.message_count, 4);
    assert_int_equal(m[0].role, CHAT_DEVELOPER);
    assert_int_equal(m[1].content.len, 5);
    assert_memory_equal(m[1].content.text, "a\nb\0c", 6);
    assert_null(m[2].content.text);
    assert_int_equal(m[2].tool_call_count, 2);
    assert_string_equal(m[2].tool_calls[0].arguments.text, "{\"x\":1}");
    assert_string_equal(m[2].tool_calls[1].arguments.text, "{\"y\":2}");
    assert_string_equal(m[3].tool_call_id, "c1");
    arena_release(&f.arena);
}

static void media_become_parts(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, CHAT_KIND_CHAT,
                PARTS("{\"type\":\"text\",\"text\":\"what\",\"cache_control\":{\"type\":\"ephemeral\"}},"
                      "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/"
                      "png;base64,iVBO\",\"detail\":\"low\"}},"
                      "{\"type\":\"image_url\",\"image_url\":\"http://x/y.png\"},"
                      "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"UklG\",\"format\":\"mp3\"}},"
                      "{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\",\"file_data\":\"data:application/"
                      "pdf;base64,JVBE\"}},"
                      "{\"type\":\"file\",\"file\":{\"file_id\":\"file-1\"}},"
                      "{\"type\":\"video_url\",\"video_url\":{\"url\":\"http://v\"}},"
                      "{\"type\":\"text\",\"text\":\"is this\"},"
                      "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,\"}}"));
    const struct chat_message *m = &f.request.messages[0];
    const struct chat_part *p = m->parts;
    assert_int_equal(m->part_count, 9);
    assert_string_equal(m->content.text, "what\nis this");
    assert_int_equal(p[0].kind, CHAT_PART_TEXT);
    assert_true(json_text_is(json_get(p[0].cache_control, "type"), "ephemeral"));
    assert_int_equal(p[1].kind, CHAT_PART_IMAGE);
    assert_string_equal(p[1].media_type, "image/png");
    assert_string_equal(p[1].data.text, "iVBO");
    assert_string_equal(p[1].detail, "low");
    assert_null(p[1].url);
    assert_int_equal(p[2].kind, CHAT_PART_IMAGE);
    assert_string_equal(p[2].url, "http://x/y.png");
    assert_int_equal(p[3].kind, CHAT_PART_AUDIO);
    assert_string_equal(p[3].media_type, "audio/mpeg");
    assert_int_equal(p[3].data.len, 4);
    assert_int_equal(p[4].kind, CHAT_PART_FILE);
    assert_string_equal(p[4].filename, "a.pdf");
    assert_string_equal(p[4].media_type, "application/pdf");
    assert_string_equal(p[4].data.text, "JVBE");
    assert_int_equal(p[5].kind, CHAT_PART_OTHER);
    assert_int_equal(p[6].kind, CHAT_PART_OTHER);
    assert_true(json_text_is(json_get(p[6].raw, "type"), "video_url"));
    assert_string_equal(p[8].url, "data:,");
    arena_release(&f.arena);
}

static void an_image_alone_is_no_text(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, CHAT_KIND_CHAT, PARTS("{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x\"}}"));
    assert_null(f.request.messages[0].content.text);
    assert_int_equal(f.request.messages[0].part_count, 1);
    arena_release(&f.arena);
}

static void tools_of_every_type_are_kept(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, CHAT_KIND_CHAT,
                "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"i\",\"type\":\"custom\","
                "\"custom\":{\"name\":\"sh\",\"input\":\"ls\"}}]}],\"tools\":[{\"type\":\"web_search\"},"
                "{\"type\":\"custom\",\"custom\":{\"name\":\"sh\"}}],\"parallel_tool_calls\":false,"
                "\"reasoning_effort\":\"high\"}");
    assert_int_equal(json_count(f.request.tools), 2);
    assert_true(f.request.single_tool_call);
    assert_string_equal(f.request.reasoning_effort, "high");
    assert_int_equal(f.request.reasoning_tokens, -1);
    assert_true(f.request.messages[0].tool_calls[0].custom);
    assert_string_equal(f.request.messages[0].tool_calls[0].arguments.text, "ls");
    arena_release(&f.arena);
}

static void prompts_come_in_four_shapes(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, CHAT_KIND_COMPLETION,
                "{\"prompt\":\"abc\",\"logprobs\":0,\"echo\":true,\"suffix\":\"\"}");
    assert_int_equal(f.request.prompt_count, 1);
    assert_string_equal(f.request.prompts[0].text.text, "abc");
    assert_null(f.request.prompts[0].ids);
    assert_true(f.request.logprobs && f.request.top_logprobs == 0 && f.request.echo);
    assert_null(f.request.suffix.text);
    arena_release(&f.arena);

    must_decode(&f, CHAT_KIND_COMPLETION, "{\"prompt\":[\"a\",\"b\"],\"n\":2}");
    assert_int_equal(f.request.prompt_count, 2);
    assert_int_equal(chat_choice_count(&f.request), 4);
    assert_string_equal(f.request.prompts[1].text.text, "b");
    arena_release(&f.arena);

    must_decode(&f, CHAT_KIND_COMPLETION, "{\"prompt\":[1,2,3]}");
    assert_int_equal(f.request.prompt_count, 1);
    assert_int_equal(f.request.prompts[0].id_count, 3);
    assert_int_equal(f.request.prompts[0].ids[2], 3);
    arena_release(&f.arena);

    must_decode(&f, CHAT_KIND_COMPLETION, "{\"prompt\":[[1,2],[3]]}");
    assert_int_equal(f.request.prompt_count, 2);
    assert_int_equal(f.request.prompts[0].id_count, 2);
    assert_int_equal(f.request.prompts[1].ids[0], 3);
    arena_release(&f.arena);
}

/* ---- What templates get */

static void check_vars(const char *messages, bool keep_developer, const char *expected)
{
    struct fixture f;
    char body[2048];
    snprintf(body, sizeof body, "{\"messages\":%s}", messages);
    must_decode(&f, CHAT_KIND_CHAT, body);
    struct json *vars = chat_template_messages(&f.arena, &f.request, keep_developer);
    struct buf text;
    buf_init(&text, 1 << 20);
    json_write(&text, vars);
    assert_string_equal(text.data, expected);
    buf_release(&text);
    arena_release(&f.arena);
}

static void template_messages_are_plain(void **state)
{
    (void)state;
    check_vars("[{\"role\":\"developer\",\"content\":\"d\",\"name\":null}]", false,
               "[{\"role\":\"system\",\"content\":\"d\"}]");
    check_vars("[{\"role\":\"developer\",\"content\":\"d\"}]", true,
               "[{\"role\":\"developer\",\"content\":\"d\"}]");
    check_vars("[{\"content\":\"x\",\"role\":\"assistant\",\"tool_calls\":[],\"reasoning_content\":\"r\"}]",
               false, "[{\"role\":\"assistant\",\"content\":\"x\",\"reasoning_content\":\"r\"}]");
    check_vars("[{\"role\":\"assistant\"}]", false, "[{\"role\":\"assistant\",\"content\":\"\"}]");
    check_vars(
        "[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"i\",\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"arguments\":\"{\\\"x\\\": [1]}\"}}]}]",
        false,
        "[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"i\",\"type\":\"function\","
        "\"function\":{\"name\":\"f\",\"arguments\":{\"x\":[1]}}}]}]");
    check_vars("[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":"
               "{\"name\":\"f\",\"arguments\":\"{bad\"}}]}]",
               false,
               "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"type\":\"function\","
               "\"function\":{\"name\":\"f\",\"arguments\":\"{bad\"}}]}]");
}

static void a_small_arena_is_a_fault_not_a_crash(void **state)
{
    (void)state;
    const char *body =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"aaaaaaaa\"}]}],"
        "\"stop\":[\"x\"],\"logit_bias\":{\"1\":1}}";
    for (size_t bytes = 4096; bytes < 6000; bytes += 16) {
        struct arena document, arena;
        struct json *json;
        struct chat_request request;
        struct chat_fault fault;
        arena_init(&document, 1 << 20);
        arena_init(&arena, bytes - 4096);
        assert_int_equal(json_parse(&document, body, strlen(body), &json, NULL), PH_OK);
        enum ph_status status = chat_edge_openai.decode(&arena, CHAT_KIND_CHAT, json, &request, &fault);
        if (status != PH_OK)
            assert_int_equal(fault.http_status, 503);
        arena_release(&arena);
        arena_release(&document);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_name_the_parameter),
        cmocka_unit_test(unknown_members_and_nulls_are_accepted),
        cmocka_unit_test(everything_said_is_read),
        cmocka_unit_test(tool_choice_none_hides_the_tools),
        cmocka_unit_test(content_parts_join_as_lines),
        cmocka_unit_test(media_become_parts),
        cmocka_unit_test(an_image_alone_is_no_text),
        cmocka_unit_test(tools_of_every_type_are_kept),
        cmocka_unit_test(prompts_come_in_four_shapes),
        cmocka_unit_test(template_messages_are_plain),
        cmocka_unit_test(a_small_arena_is_a_fault_not_a_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
