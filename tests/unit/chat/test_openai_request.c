/* What OpenAI-compatible providers are sent. */
#include <math.h>

#include "chat/chat.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct chat_request request;
    struct chat_target target;
    struct chat_post post;
    struct chat_fault fault;
    enum ph_status status;
};

static void begin(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    arena_init(&f->arena, 1 << 22);
    f->target = (struct chat_target){.base_url = "http://h/v1", .model = "up", .key = "k"};
    f->request = (struct chat_request){.arena = &f->arena,
                                       .dialect = CHAT_ANTHROPIC,
                                       .choices = 1,
                                       .reasoning_tokens = -1,
                                       .raw = json_new(&f->arena, JSON_OBJECT)};
}

static void decode(struct fixture *f, enum chat_kind kind, const char *body)
{
    struct json *document;
    begin(f);
    assert_int_equal(json_parse(&f->arena, body, strlen(body), &document, NULL), PH_OK);
    if (chat_edge_openai.decode(&f->arena, kind, document, &f->request, &f->fault) != PH_OK)
        fail_msg("%s: %s", body, f->fault.message);
}

static void encode(struct fixture *f)
{
    f->status = chat_codec_openai.encode(&f->arena, &f->request, &f->target, &f->post, &f->fault);
}

static void check_body(struct fixture *f, const char *expected)
{
    encode(f);
    if (f->status != PH_OK)
        fail_msg("%s", f->fault.message);
    assert_string_equal(f->post.body, expected);
    assert_int_equal(f->post.body_len, strlen(expected));
    arena_release(&f->arena);
}

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

/* ---- The same dialect */

static void a_request_goes_out_as_it_came(void **state)
{
    (void)state;
    static const struct {
        enum chat_kind kind;
        const char *body, *sent;
    } cases[] = {
        /* Order, numbers, unknown members and marks stay. */
        {CHAT_KIND_CHAT,
         "{\"zzz\":{\"a\":1.50},\"model\":\"auto\",\"temperature\":0.70,\"top_k\":40,\"messages\":[{\"role\":"
         "\"system\","
         "\"content\":[{\"type\":\"text\",\"text\":\"x\",\"cache_control\":{\"type\":\"ephemeral\"}}]},{"
         "\"content\":\"y\","
         "\"role\":\"user\",\"odd\":null}],\"seed\":50e-1,\"stop\":[\"\",\"a\"],\"max_"
         "tokens\":5,"
         "\"logit_bias\":{\"5\":-100},\"user\":\"u\",\"reasoning_effort\":\"low\",\"stream\":false,"
         "\"parallel_tool_calls\":true,\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"f\"}}],\"tool_"
         "choice\":\"none\"}",
         NULL},
        {CHAT_KIND_CHAT, "{\"model\":\"auto\",\"stream\":true," MESSAGES "}",
         "{\"model\":\"up\",\"stream\":true," MESSAGES ",\"stream_options\":{\"include_usage\":true}}"},
        {CHAT_KIND_CHAT,
         "{" MESSAGES
         ",\"stream\":true,\"stream_options\":{\"include_obfuscation\":false,\"include_usage\":false}}",
         "{" MESSAGES ",\"stream\":true,\"model\":\"up\",\"stream_options\":{\"include_obfuscation\":false,"
         "\"include_usage\":true}}"},
        /* Options of a stream are refused without one; what is the station's stays here. */
        {CHAT_KIND_CHAT,
         "{\"model\":\"auto\"," MESSAGES
         ",\"stream_options\":{\"include_usage\":true},\"metadata\":{\"a\":\"b\"}}",
         "{\"model\":\"up\"," MESSAGES "}"},
        {CHAT_KIND_CHAT,
         "{\"model\":\"auto\"," MESSAGES
         ",\"store\":true,\"metadata\":{\"a\":\"b\",\"conversation_id\":\"c\"}}",
         "{\"model\":\"up\"," MESSAGES ",\"store\":true,\"metadata\":{\"a\":\"b\"}}"},
        {CHAT_KIND_CHAT,
         "{\"model\":\"auto\"," MESSAGES ",\"store\":true,\"metadata\":{\"conversation_id\":\"c\"}}",
         "{\"model\":\"up\"," MESSAGES ",\"store\":true}"},
        {CHAT_KIND_CHAT,
         "{\"model\":\"auto\",\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}],\"continue_final_"
         "message\":true}",
         "{\"model\":\"up\",\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}],\"continue_final_"
         "message\":true,"
         "\"add_generation_prompt\":false}"},
        {CHAT_KIND_COMPLETION,
         "{\"model\":\"auto\",\"prompt\":[[1,2],[3]],\"logprobs\":2,\"echo\":true,\"suffix\":\"s\",\"max_"
         "tokens\":3}",
         "{\"model\":\"up\",\"prompt\":[[1,2],[3]],\"logprobs\":2,\"echo\":true,\"suffix\":\"s\",\"max_"
         "tokens\":3}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        decode(&f, cases[i].kind, cases[i].body);
        if (cases[i].sent) {
            check_body(&f, cases[i].sent);
            continue;
        }
        char sent[2048];
        const char *model = strstr(cases[i].body, "\"auto\"");
        snprintf(sent, sizeof sent, "%.*s\"up\"%s", (int)(model - cases[i].body), cases[i].body, model + 6);
        check_body(&f, sent);
    }
}

static void what_the_struct_says_wins(void **state)
{
    (void)state;
    struct fixture f;
    static const struct chat_text stop = {"END", 3};
    static const struct chat_logit_bias bias[] = {{7, 1.5f}, {8, -INFINITY}};
    decode(&f, CHAT_KIND_CHAT,
           "{\"model\":\"auto\"," MESSAGES
           ",\"temperature\":1,\"top_p\":0.5,\"max_completion_tokens\":9,\"n\":2,\"stop\":\"a\",\"top_k\":4,"
           "\"logprobs\":true,\"top_logprobs\":3,\"seed\":5,\"response_format\":{\"type\":\"json_object\"},"
           "\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"auto\",\"user\":\"u\"}");
    f.request.sampling.temperature = 0.25;
    f.request.sampling.has_top_p = false;
    f.request.sampling.top_k = 8;
    f.request.sampling.has_min_p = true; /* nobody named it: an engine may not know it */
    f.request.sampling.min_p = 0.1;
    f.request.max_tokens = 4;
    f.request.choices = 1;
    f.request.stops = &stop;
    f.request.sampling.logit_bias = bias;
    f.request.sampling.logit_bias_count = 2;
    f.request.logprobs = false;
    f.request.top_logprobs = 0;
    f.request.response_format = NULL;
    f.request.tools = NULL;
    f.request.tool_choice = NULL;
    f.request.stream = true;
    f.request.sampling.frequency_penalty = 0.5;
    check_body(&f, "{\"model\":\"up\"," MESSAGES
                   ",\"temperature\":0.25,\"max_completion_tokens\":4,\"n\":1,\"top_k\":8,\"logprobs\":false,"
                   "\"seed\":5,\"user\":\"u\",\"frequency_penalty\":0.5,\"stop\":[\"END\"],"
                   "\"logit_bias\":{\"7\":1.5,\"8\":-100},\"stream\":true,"
                   "\"stream_options\":{\"include_usage\":true}}");
}

static void the_limit_has_the_name_that_the_provider_knows(void **state)
{
    (void)state;
    static const struct {
        const char *limit;
        size_t now;
        bool max_completion;
        const char *sent;
    } cases[] = {
        {",\"max_tokens\":5", 5, false, ",\"max_tokens\":5"},
        {",\"max_tokens\":5", 4, false, ",\"max_tokens\":4"},
        {",\"max_tokens\":5", 5, true, ",\"max_completion_tokens\":5"},
        {",\"max_completion_tokens\":5", 5, false, ",\"max_completion_tokens\":5"},
        {",\"max_completion_tokens\":5", 4, false, ",\"max_completion_tokens\":4"},
        {",\"max_tokens\":5,\"max_completion_tokens\":6", 4, false, ",\"max_completion_tokens\":4"},
        {"", 4, false, ",\"max_tokens\":4"},
        {"", 4, true, ",\"max_completion_tokens\":4"},
        {",\"max_tokens\":5", 0, false, ""},
        {",\"max_tokens\":null", 0, true, ",\"max_tokens\":null"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        char body[256], sent[256];
        snprintf(body, sizeof body, "{\"model\":\"a\"," MESSAGES "%s}", cases[i].limit);
        snprintf(sent, sizeof sent, "{\"model\":\"up\"," MESSAGES "%s}", cases[i].sent);
        decode(&f, CHAT_KIND_CHAT, body);
        f.request.max_tokens = cases[i].now;
        f.target.max_completion = cases[i].max_completion;
        check_body(&f, sent);
    }
}

static void engines_without_stream_options_get_none(void **state)
{
    (void)state;
    struct fixture f;
    decode(&f, CHAT_KIND_CHAT,
           "{\"model\":\"a\"," MESSAGES ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    f.target.no_stream_usage = true;
    check_body(&f, "{\"model\":\"up\"," MESSAGES ",\"stream\":true}");
}

static void changed_messages_are_built_and_the_others_kept(void **state)
{
    (void)state;
    struct fixture f;
    decode(&f, CHAT_KIND_CHAT,
           "{\"model\":\"a\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"odd\":1}],\"z\":1}");
    struct chat_message list[2] = {f.request.messages[0], {.role = CHAT_ASSISTANT, .content = {"so far", 6}}};
    f.request.messages = list;
    f.request.message_count = 2;
    f.request.messages_changed = true;
    f.request.continue_final_message = true;
    check_body(&f, "{\"model\":\"up\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"odd\":1},"
                   "{\"role\":\"assistant\",\"content\":\"so far\"}],\"z\":1,\"continue_final_message\":true,"
                   "\"add_generation_prompt\":false}");

    static const int32_t ids[] = {4, 5};
    static const struct chat_prompt prompts[] = {{.text = {"a", 1}}, {.ids = ids, .id_count = 2}};
    decode(&f, CHAT_KIND_COMPLETION, "{\"model\":\"a\",\"prompt\":\"p\"}");
    f.request.prompts = prompts;
    f.request.prompt_count = 2;
    f.request.messages_changed = true;
    check_body(&f, "{\"model\":\"up\",\"prompt\":[\"a\",[4,5]]}");

    decode(&f, CHAT_KIND_COMPLETION, "{\"model\":\"a\",\"prompt\":[[]]}");
    f.request.messages_changed = true;
    check_body(&f, "{\"model\":\"up\",\"prompt\":[[]]}");
}

static void the_clients_body_is_not_touched(void **state)
{
    (void)state;
    struct fixture f;
    static const char body[] = "{\"model\":\"a\"," MESSAGES ",\"metadata\":{\"conversation_id\":\"c\"},"
                               "\"stream\":true,\"stream_options\":{\"x\":1},\"store\":true}";
    decode(&f, CHAT_KIND_CHAT, body);
    encode(&f);
    assert_int_equal(f.status, PH_OK);
    struct buf text;
    buf_init(&text, 1 << 16);
    json_write(&text, f.request.raw);
    assert_string_equal(text.data, body);
    buf_release(&text);
    arena_release(&f.arena);
}

/* ---- Another dialect */

static const struct json *parse(struct fixture *f, const char *text)
{
    struct json *value;
    assert_int_equal(json_parse(&f->arena, text, strlen(text), &value, NULL), PH_OK);
    return value;
}

static void another_dialect_is_translated(void **state)
{
    (void)state;
    struct fixture f;
    static const struct chat_tool_call calls[] = {{"c1", "f", {"{\"x\":1}", 7}, false},
                                                  {"c2", "g", {"{}", 2}, false}};
    static const struct json mark = {.type = JSON_TRUE};
    static const struct chat_part asked[] = {
        {.kind = CHAT_PART_TEXT, .text = {"what", 4}, .cache_control = &mark},
        {.kind = CHAT_PART_IMAGE, .media_type = "image/png", .data = {"iVBO", 4}, .detail = "low"},
        {.kind = CHAT_PART_IMAGE, .url = "http://x/y"},
        {.kind = CHAT_PART_AUDIO, .media_type = "audio/mpeg", .data = {"AA==", 4}},
        {.kind = CHAT_PART_FILE, .media_type = "application/pdf", .data = {"JVBE", 4}},
    };
    static const struct chat_part thought[] = {
        {.kind = CHAT_PART_REASONING, .text = {"hm", 2}, .signature = "s"},
        {.kind = CHAT_PART_TEXT, .text = {"ok", 2}}};
    static const struct chat_part result[] = {
        {.kind = CHAT_PART_TEXT, .text = {"see", 3}},
        {.kind = CHAT_PART_IMAGE, .media_type = "image/png", .data = {"AAAA", 4}}};
    const struct chat_message messages[] = {
        {.role = CHAT_DEVELOPER, .content = {"be brief", 8}},
        {.role = CHAT_USER, .content = {"what", 4}, .parts = asked, .part_count = 5, .name = "ann"},
        {.role = CHAT_ASSISTANT, .content = {"ok", 2}, .parts = thought, .part_count = 2},
        {.role = CHAT_ASSISTANT, .tool_calls = calls, .tool_call_count = 2},
        {.role = CHAT_TOOL, .content = {"see", 3}, .parts = result, .part_count = 2, .tool_call_id = "c1"},
        {.role = CHAT_TOOL, .content = {"42", 2}, .tool_call_id = "c2", .tool_failed = true},
        {.role = CHAT_USER, .content = {"go on", 5}}};
    static const struct chat_text stop = {"END", 3};
    begin(&f);
    f.request.raw = parse(&f, "{\"max_tokens\":7,\"top_k\":3,\"metadata\":{\"user_id\":\"u\"}}");
    f.request.messages = messages;
    f.request.message_count = sizeof messages / sizeof *messages;
    f.request.tools = parse(&f, "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]");
    f.request.tool_choice = parse(&f, "\"required\"");
    f.request.single_tool_call = true;
    f.request.sampling.has_temperature = f.request.sampling.has_top_k = true;
    f.request.sampling.temperature = 0.5;
    f.request.sampling.top_k = 3;
    f.request.max_tokens = 7;
    f.request.stops = &stop;
    f.request.stop_count = 1;
    f.request.reasoning_tokens = 1024;
    f.request.user = "u";
    f.request.metadata = parse(&f, "{\"user_id\":\"u\"}");
    f.request.stream = true;
    check_body(
        &f,
        "{\"model\":\"up\",\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"what\"},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,iVBO\",\"detail\":\"low\"}},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x/y\"}},"
        "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"AA==\",\"format\":\"mp3\"}},"
        "{\"type\":\"file\",\"file\":{\"filename\":\"file.pdf\",\"file_data\":\"data:application/"
        "pdf;base64,JVBE\"}}],"
        "\"name\":\"ann\"},"
        "{\"role\":\"assistant\",\"content\":\"ok\"},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\","
        "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}},{\"id\":\"c2\",\"type\":\"function\","
        "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},"
        "{\"role\":\"tool\",\"content\":\"see\",\"tool_call_id\":\"c1\"},"
        "{\"role\":\"tool\",\"content\":\"42\",\"tool_call_id\":\"c2\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
        "\"data:image/png;base64,AAAA\"}}]},"
        "{\"role\":\"user\",\"content\":\"go on\"}],"
        "\"temperature\":0.5,\"max_tokens\":7,\"stop\":[\"END\"],"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"required\","
        "\"parallel_tool_calls\":false,\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
}

static void what_cannot_be_said_is_refused(void **state)
{
    (void)state;
    static const struct chat_part parts[] = {{.kind = CHAT_PART_OTHER},
                                             {.kind = CHAT_PART_FILE, .url = "http://x"},
                                             {.kind = CHAT_PART_AUDIO, .url = "http://x"}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct fixture f;
        const struct chat_message message = {.role = CHAT_USER, .parts = &parts[i], .part_count = 1};
        begin(&f);
        f.request.messages = &message;
        f.request.message_count = 1;
        encode(&f);
        assert_int_equal(f.status, PH_ERR_UNSUPPORTED);
        assert_int_equal(f.fault.cause, CHAT_CAUSE_UNABLE);
        arena_release(&f.arena);
    }
}

static void tools_of_another_provider_are_refused(void **state)
{
    (void)state;
    static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
                                "{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]";
    struct fixture f;
    begin(&f);
    f.request.tools = parse(&f, tools);
    encode(&f);
    assert_int_equal(f.status, PH_ERR_UNSUPPORTED);
    assert_int_equal(f.fault.cause, CHAT_CAUSE_UNABLE);
    assert_non_null(strstr(f.fault.message, "web_search"));
    arena_release(&f.arena);
}

/* ---- Around the body */

static const char *header(const struct fixture *f, const char *name)
{
    for (size_t i = 0; i < f->post.header_count; i++)
        if (strcmp(f->post.headers[i].name, name) == 0)
            return f->post.headers[i].value;
    return NULL;
}

static void address_and_headers(void **state)
{
    (void)state;
    struct fixture f;
    decode(&f, CHAT_KIND_CHAT, "{" MESSAGES ",\"stream\":true}");
    f.request.request_id = "req-1";
    encode(&f);
    assert_string_equal(f.post.url, "http://h/v1/chat/completions");
    assert_string_equal(header(&f, "authorization"), "Bearer k");
    assert_string_equal(header(&f, "content-type"), "application/json");
    assert_string_equal(header(&f, "accept"), "text/event-stream");
    assert_string_equal(header(&f, "x-request-id"), "req-1");
    arena_release(&f.arena);
    decode(&f, CHAT_KIND_COMPLETION, "{\"prompt\":\"a\"}");
    f.target.key = NULL;
    encode(&f);
    assert_string_equal(f.post.url, "http://h/v1/completions");
    assert_null(header(&f, "authorization"));
    assert_null(header(&f, "x-request-id"));
    assert_string_equal(header(&f, "accept"), "application/json");
    arena_release(&f.arena);
}

static void little_memory_is_a_fault(void **state)
{
    (void)state;
    size_t failed = 0;
    for (size_t bytes = 0; bytes < 40000; bytes += 512) {
        struct fixture f;
        decode(&f, CHAT_KIND_CHAT, "{\"model\":\"a\"," MESSAGES ",\"stream\":true,\"stop\":\"a\",\"n\":2}");
        struct arena little;
        arena_init(&little, bytes);
        f.request.messages_changed = true;
        f.request.max_tokens = 5;
        f.status = chat_codec_openai.encode(&little, &f.request, &f.target, &f.post, &f.fault);
        if (f.status != PH_OK) {
            assert_int_equal(f.fault.http_status, 503);
            failed++;
        }
        arena_release(&little);
        arena_release(&f.arena);
    }
    assert_true(failed > 0 && failed < 79);
}

static void codecs_have_names(void **state)
{
    (void)state;
    assert_ptr_equal(chat_codec_find("openai"), &chat_codec_openai);
    assert_null(chat_codec_find("nobody"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_goes_out_as_it_came),
        cmocka_unit_test(what_the_struct_says_wins),
        cmocka_unit_test(the_limit_has_the_name_that_the_provider_knows),
        cmocka_unit_test(engines_without_stream_options_get_none),
        cmocka_unit_test(changed_messages_are_built_and_the_others_kept),
        cmocka_unit_test(the_clients_body_is_not_touched),
        cmocka_unit_test(another_dialect_is_translated),
        cmocka_unit_test(what_cannot_be_said_is_refused),
        cmocka_unit_test(tools_of_another_provider_are_refused),
        cmocka_unit_test(address_and_headers),
        cmocka_unit_test(little_memory_is_a_fault),
        cmocka_unit_test(codecs_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
