/* Bodies of /v1/messages: what must be refused, and what comes of the rest. */
#include "chat/chat.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct chat_request request;
    struct chat_fault fault;
};

static enum ph_status decode(struct fixture *f, const char *body)
{
    struct json *json;
    struct ph_err err;
    memset(f, 0, sizeof *f);
    arena_init(&f->arena, 1 << 24);
    if (json_parse(&f->arena, body, strlen(body), &json, &err) != PH_OK)
        fail_msg("%s: %s", body, err.message);
    return chat_edge_anthropic.decode(&f->arena, CHAT_KIND_CHAT, json, &f->request, &f->fault);
}

static void must_decode(struct fixture *f, const char *body)
{
    if (decode(f, body) != PH_OK)
        fail_msg("%s: %s", body, f->fault.message);
}

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define MAX "\"max_tokens\":5"
#define WITH(rest) "{" USER "," MAX "," rest "}"
#define SAYS(role, blocks) "{" MAX ",\"messages\":[{\"role\":\"" role "\",\"content\":[" blocks "]}]}"

static const struct {
    const char *body, *param;
} bad[] = {
    {"[]", NULL},
    {"{}", "messages"},
    {"{" USER "}", "max_tokens"},
    {"{" USER ",\"max_tokens\":null}", "max_tokens"},
    {"{" USER ",\"max_tokens\":0}", "max_tokens"},
    {"{" USER ",\"max_tokens\":\"5\"}", "max_tokens"},
    {"{" USER ",\"max_tokens\":1.5}", "max_tokens"},
    {"{" MAX ",\"messages\":{}}", "messages"},
    {"{" MAX ",\"messages\":[]}", "messages"},
    {"{" MAX ",\"messages\":[5]}", "messages[0]"},
    {"{" MAX ",\"messages\":[{\"content\":\"x\"}]}", "messages[0].role"},
    {"{" MAX ",\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0].role"},
    {"{" MAX ",\"messages\":[{\"role\":\"user\"}]}", "messages[0].content"},
    {"{" MAX ",\"messages\":[{\"role\":\"user\",\"content\":{}}]}", "messages[0].content"},
    {SAYS("user", "5"), "messages[0].content[0]"},
    {SAYS("user", "{\"text\":\"x\"}"), "messages[0].content[0].type"},
    {SAYS("user", "{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"text\"}"), "messages[0].content[1].text"},
    {SAYS("user", "{\"type\":\"image\"}"), "messages[0].content[0].source"},
    {SAYS("user", "{\"type\":\"image\",\"source\":{\"type\":\"cloud\"}}"),
     "messages[0].content[0].source.type"},
    {SAYS("user", "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\"}}"),
     "messages[0].content[0].source.data"},
    {SAYS("user", "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":\"AA==\"}}"),
     "messages[0].content[0].source.media_type"},
    {SAYS("user", "{\"type\":\"document\",\"source\":{\"type\":\"url\"}}"),
     "messages[0].content[0].source.url"},
    {SAYS("user", "{\"type\":\"tool_result\"}"), "messages[0].content[0].tool_use_id"},
    {SAYS("user", "{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":5}"),
     "messages[0].content[0].content"},
    {SAYS("user", "{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":[{\"type\":\"text\"}]}"),
     "messages[0].content[0].content[0].text"},
    {SAYS("assistant", "{\"type\":\"tool_use\",\"name\":\"f\",\"input\":{}}"), "messages[0].content[0].id"},
    {SAYS("assistant", "{\"type\":\"tool_use\",\"id\":\"a\",\"input\":{}}"), "messages[0].content[0].name"},
    {SAYS("assistant", "{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":\"{}\"}"),
     "messages[0].content[0].input"},
    {SAYS("assistant", "{\"type\":\"thinking\"}"), "messages[0].content[0].thinking"},
    {WITH("\"system\":5"), "system"},
    {WITH("\"system\":[{\"type\":\"text\",\"text\":5}]"), "system[0].text"},
    {WITH("\"model\":5"), "model"},
    {WITH("\"stream\":\"yes\""), "stream"},
    {WITH("\"temperature\":1.1"), "temperature"},
    {WITH("\"top_p\":-1"), "top_p"},
    {WITH("\"top_k\":0.5"), "top_k"},
    {WITH("\"stop_sequences\":5"), "stop_sequences"},
    {WITH("\"stop_sequences\":[5]"), "stop_sequences"},
    {WITH("\"tools\":{}"), "tools"},
    {WITH("\"tools\":[5]"), "tools[0]"},
    {WITH("\"tools\":[{\"type\":5}]"), "tools[0].type"},
    {WITH("\"tools\":[{\"input_schema\":{}}]"), "tools[0].name"},
    {WITH("\"tools\":[{\"name\":\"f\"}]"), "tools[0].input_schema"},
    {WITH("\"tool_choice\":{\"type\":\"perhaps\"}"), "tool_choice.type"},
    {WITH("\"tool_choice\":{\"type\":\"tool\"}"), "tool_choice.name"},
    {WITH("\"thinking\":5"), "thinking"},
    {WITH("\"thinking\":{\"type\":\"enabled\"}"), "thinking.budget_tokens"},
    {WITH("\"metadata\":5"), "metadata"},
    {WITH("\"output_config\":{\"format\":{\"type\":\"xml\"}}"), "output_config.format"},
};

static void faults_name_the_parameter(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fixture f;
        if (decode(&f, bad[i].body) == PH_OK)
            fail_msg("accepted: %s", bad[i].body);
        assert_int_equal(f.fault.http_status, 400);
        assert_true(f.fault.message[0]);
        const char *param = f.fault.param ? f.fault.param : "none";
        if (strcmp(param, bad[i].param ? bad[i].param : "none") != 0)
            fail_msg("%s: %s", bad[i].body, param);
        arena_release(&f.arena);
    }
}

static void unknown_members_and_nulls_are_accepted(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f,
                WITH("\"model\":null,\"system\":null,\"stream\":null,\"temperature\":null,\"top_p\":null,"
                     "\"top_k\":null,\"stop_sequences\":null,\"tools\":null,\"tool_choice\":null,"
                     "\"thinking\":null,\"metadata\":null,\"output_config\":null,\"service_tier\":\"auto\","
                     "\"context_management\":{\"edits\":[]},\"zzz\":[1]"));
    assert_int_equal(f.request.dialect, CHAT_ANTHROPIC);
    assert_int_equal(f.request.choices, 1);
    assert_int_equal(f.request.reasoning_tokens, -1);
    assert_int_equal(f.request.message_count, 1);
    assert_non_null(json_get(f.request.raw, "zzz"));
    assert_false(f.request.continue_final_message);
    arena_release(&f.arena);
}

static void everything_said_is_read(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f,
                WITH("\"model\":\"claude-x\",\"stream\":true,\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,"
                     "\"stop_sequences\":[\"a\",\"\",\"bc\"],\"thinking\":{\"type\":\"enabled\",\"budget_"
                     "tokens\":2048},\"output_config\":{\"effort\":\"xhigh\"},\"metadata\":{\"user_id\":"
                     "\"u\",\"conversation_id\":\"c\"}"));
    const struct chat_request *r = &f.request;
    assert_string_equal(r->model, "claude-x");
    assert_true(r->stream && r->max_tokens == 5);
    assert_true(r->sampling.has_temperature && r->sampling.temperature == 0.5);
    assert_true(r->sampling.has_top_p && r->sampling.top_p == 0.9);
    assert_true(r->sampling.has_top_k && r->sampling.top_k == 40);
    assert_int_equal(r->stop_count, 2);
    assert_string_equal(r->stops[1].text, "bc");
    assert_int_equal(r->reasoning_tokens, 2048);
    assert_string_equal(r->reasoning_effort, "high");
    assert_string_equal(r->user, "u");
    assert_string_equal(r->conversation, "c");
    arena_release(&f.arena);
    must_decode(&f, WITH("\"stop_sequences\":\"END\",\"thinking\":{\"type\":\"disabled\"}"));
    assert_int_equal(f.request.stop_count, 1);
    assert_string_equal(f.request.stops[0].text, "END");
    assert_int_equal(f.request.reasoning_tokens, 0);
    arena_release(&f.arena);
    must_decode(&f, WITH("\"thinking\":{\"type\":\"adaptive\",\"display\":\"omitted\"}"));
    assert_int_equal(f.request.reasoning_tokens, -1);
    arena_release(&f.arena);
}

/* ---- Messages, as lines */

static void put_media(struct buf *out, const char *kind, const struct chat_part *part)
{
    buf_printf(out, "  %s type=%s data=%s url=%s name=%s\n", kind, part->media_type ? part->media_type : "-",
               part->data.text ? part->data.text : "-", part->url ? part->url : "-",
               part->filename ? part->filename : "-");
}

static void put_part(struct buf *out, const struct chat_part *part)
{
    if (part->cache_control)
        buf_puts(out, "  *");
    if (part->kind == CHAT_PART_TEXT)
        buf_printf(out, "  text %s\n", part->text.text);
    else if (part->kind == CHAT_PART_IMAGE)
        put_media(out, "image", part);
    else if (part->kind == CHAT_PART_FILE)
        put_media(out, "file", part);
    else if (part->kind == CHAT_PART_REASONING)
        buf_printf(out, "  reasoning %s sealed %s\n", part->text.text ? part->text.text : "-",
                   part->signature ? part->signature : "-");
    else
        buf_printf(out, "  other %s\n", json_text(json_get(part->raw, "type"), "-"));
}

static void put_messages(struct buf *out, const struct chat_request *request)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    for (size_t i = 0; i < request->message_count; i++) {
        const struct chat_message *m = &request->messages[i];
        buf_printf(out, "%s%s%s%s: %s\n", roles[m->role], m->tool_call_id ? " of " : "",
                   m->tool_call_id ? m->tool_call_id : "", m->tool_failed ? " failed" : "",
                   m->content.text ? m->content.text : "-");
        for (size_t k = 0; k < m->part_count; k++)
            put_part(out, &m->parts[k]);
        for (size_t k = 0; k < m->tool_call_count; k++)
            buf_printf(out, "  call %s %s %s\n", m->tool_calls[k].id, m->tool_calls[k].name,
                       m->tool_calls[k].arguments.text);
    }
    if (request->continue_final_message)
        buf_puts(out, "goes on\n");
}

static const struct {
    const char *body, *expected;
} conversations[] = {
    {"{" MAX ",\"system\":\"Be brief.\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},"
     "{\"role\":\"assistant\",\"content\":\"The answer is (\"}]}",
     "system: Be brief.\nuser: hi\nassistant: The answer is (\ngoes on\n"},
    {"{" MAX ",\"system\":\"\",\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}", "user: \n"},
    {"{" MAX ",\"system\":[{\"type\":\"text\",\"text\":\"A\",\"cache_control\":{\"type\":\"ephemeral\"}},"
     "{\"type\":\"text\",\"text\":\"B\",\"cache_control\":null}],\"messages\":[{\"role\":\"user\","
     "\"content\":"
     "[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},{\"role\":\"system\","
     "\"content\":"
     "\"later\"}]}",
     "system: A\nB\n  *  text A\n  text B\nuser: a\nb\n  text a\n  text b\nsystem: later\n"},
    {SAYS("user", "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":"
                  "\"iVBO\"}},{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"https://x/y.jpg\"}},"
                  "{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_id\":\"file_1\"}},"
                  "{\"type\":\"document\",\"title\":\"T\",\"source\":{\"type\":\"base64\",\"media_type\":"
                  "\"application/pdf\",\"data\":\"JVBE\"}},{\"type\":\"text\",\"text\":\"what?\"}"),
     "user: what?\n  image type=image/png data=iVBO url=- name=-\n"
     "  image type=- data=- url=https://x/y.jpg name=-\n  other image\n"
     "  file type=application/pdf data=JVBE url=- name=T\n  text what?\n"},
    {SAYS("user",
          "{\"type\":\"document\",\"title\":\"T\",\"context\":\"C\",\"source\":{\"type\":\"text\","
          "\"media_type\":\"text/plain\",\"data\":\"D\"}},"
          "{\"type\":\"document\",\"source\":{\"type\":\"content\",\"content\":[{\"type\":\"text\","
          "\"text\":\"E\"},{\"type\":\"text\",\"text\":\"F\"}]}},"
          "{\"type\":\"search_result\",\"source\":\"https://s\",\"title\":\"S\",\"content\":[{\"type\":"
          "\"text\",\"text\":\"G\"}]},{\"type\":\"container_upload\",\"file_id\":\"f\"}"),
     "user: T\nC\nD\nE\nF\nS\nhttps://s\nG\n  text T\nC\nD\n  text E\nF\n  text S\nhttps://s\nG\n"
     "  other container_upload\n"},
    {"{" MAX ",\"messages\":[{\"role\":\"user\",\"content\":\"go\"},"
     "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"Hm\",\"signature\":\"S\"},"
     "{\"type\":\"redacted_thinking\",\"data\":\"R\"},{\"type\":\"text\",\"text\":\"I look\"},"
     "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":{\"x\":1.50}},"
     "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"g\"}]},"
     "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"first\"},"
     "{\"type\":\"tool_result\",\"tool_use_id\":\"t1\",\"content\":\"42\"},"
     "{\"type\":\"tool_result\",\"tool_use_id\":\"t2\",\"is_error\":true,\"content\":[{\"type\":\"text\","
     "\"text\":\"no\"},{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"u\"}}]},"
     "{\"type\":\"text\",\"text\":\"last\"}]}]}",
     "user: go\nassistant: I look\n  reasoning Hm sealed S\n  reasoning - sealed R\n  text I look\n"
     "  call t1 f {\"x\":1.50}\n  call t2 g {}\ntool of t1: 42\ntool of t2 failed: no\n  text no\n"
     "  image type=- data=- url=u name=-\nuser: first\nlast\n  text first\n  text last\n"},
    {"{" MAX
     ",\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":"
     "\"f\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t\"}]"
     "}]}",
     "assistant: -\n  call t f {}\ntool of t: \n"},
    {SAYS("assistant", "{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":\"web_search\",\"input\":{}},"
                       "{\"type\":\"text\",\"text\":\"x\"}"),
     "assistant: x\n  other server_tool_use\n  text x\ngoes on\n"},
};

static void conversations_become_messages(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof conversations / sizeof conversations[0]; i++) {
        struct fixture f;
        struct buf out;
        buf_init(&out, 1 << 20);
        must_decode(&f, conversations[i].body);
        put_messages(&out, &f.request);
        assert_string_equal(out.data, conversations[i].expected);
        buf_release(&out);
        arena_release(&f.arena);
    }
}

static void check_json(const struct json *value, const char *expected)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    json_write(&out, value);
    assert_string_equal(out.data, expected);
    buf_release(&out);
}

static void tools_have_openais_shape(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(
        &f, WITH("\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"},"
                 "\"cache_control\":{\"type\":\"ephemeral\"}},{\"type\":\"custom\",\"name\":\"g\",\"input_"
                 "schema\":{\"type\":\"object\"},\"strict\":true},{\"type\":\"web_search_20250305\",\"name\":"
                 "\"web_search\",\"max_uses\":5}],\"tool_choice\":{\"type\":\"any\",\"disable_parallel_tool_"
                 "use\":true}"));
    check_json(
        f.request.tools,
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":"
        "\"object\"}}},{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{\"type\":"
        "\"object\"},\"strict\":true}},{\"type\":\"web_search_20250305\",\"name\":\"web_search\",\"max_"
        "uses\":"
        "5}]");
    check_json(f.request.tool_choice, "\"required\"");
    assert_true(f.request.single_tool_call);
    arena_release(&f.arena);
    must_decode(&f,
                WITH("\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{\"type\":\"tool\","
                     "\"name\":\"f\"}"));
    check_json(f.request.tool_choice, "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}");
    arena_release(&f.arena);
    must_decode(&f,
                WITH("\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{\"type\":\"none\"}"));
    assert_null(f.request.tools);
    arena_release(&f.arena);
}

static void formats_have_openais_shape(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, WITH("\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":"
                         "\"object\"}}}"));
    check_json(
        f.request.response_format,
        "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"output\",\"schema\":{\"type\":\"object\"},"
        "\"strict\":true}}");
    arena_release(&f.arena);
}

static void other_providers_refuse_what_is_theirs(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        WITH("\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]"),
        SAYS("user", "{\"type\":\"container_upload\",\"file_id\":\"f\"}"),
        SAYS("user", "{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_id\":\"f\"}}"),
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct fixture f;
        struct chat_post post;
        struct chat_target target = {.base_url = "https://h/v1", .model = "m"};
        must_decode(&f, bodies[i]);
        assert_int_equal(chat_codec_openai.encode(&f.arena, &f.request, &target, &post, &f.fault),
                         PH_ERR_UNSUPPORTED);
        assert_int_equal(f.fault.cause, CHAT_CAUSE_UNABLE);
        assert_int_equal(chat_codec_anthropic.encode(&f.arena, &f.request, &target, &post, &f.fault), PH_OK);
        arena_release(&f.arena);
    }
}

static void counting_needs_no_limit(void **state)
{
    (void)state;
    static const char body[] = "{" USER "}";
    struct fixture f;
    struct json *json;
    arena_init(&f.arena, 1 << 20);
    assert_int_equal(json_parse(&f.arena, body, sizeof body - 1, &json, NULL), PH_OK);
    assert_int_equal(chat_anthropic_count_decode(&f.arena, json, &f.request, &f.fault), PH_OK);
    assert_int_equal(f.request.message_count, 1);
    arena_release(&f.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_name_the_parameter), cmocka_unit_test(unknown_members_and_nulls_are_accepted),
        cmocka_unit_test(everything_said_is_read),   cmocka_unit_test(conversations_become_messages),
        cmocka_unit_test(tools_have_openais_shape),  cmocka_unit_test(formats_have_openais_shape),
        cmocka_unit_test(counting_needs_no_limit),   cmocka_unit_test(other_providers_refuse_what_is_theirs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
