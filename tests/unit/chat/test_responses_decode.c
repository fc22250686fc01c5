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
    arena_init(&f->arena, 1 << 24);
    if (json_parse(&f->arena, body, strlen(body), &json, &err) != PH_OK)
        fail_msg("%s: %s", body, err.message);
    return chat_edge_responses.decode(&f->arena, CHAT_KIND_CHAT, json, &f->request, &f->fault);
}

static void must_decode(struct fixture *f, const char *body)
{
    if (decode(f, body) != PH_OK)
        fail_msg("%s: %s", body, f->fault.message);
}

static void json_is_written_as(const struct json *value, const char *expected)
{
    struct buf out;
    buf_init(&out, 1 << 16);
    json_write(&out, value);
    assert_string_equal(out.data, expected);
    buf_release(&out);
}

/* ---- Refused, with the parameter that the answer names */

#define IN "\"input\":\"hi\""
#define ITEM(text) "{\"input\":[" text "]}"
#define PART(text) ITEM("{\"role\":\"user\",\"content\":[" text "]}")

static const struct {
    const char *body, *param;
    enum chat_cause cause;
} bad[] = {
    {"[]", NULL, CHAT_CAUSE_REQUEST},
    {"{}", "input", CHAT_CAUSE_REQUEST},
    {"{\"input\":null}", "input", CHAT_CAUSE_REQUEST},
    {"{\"input\":5}", "input", CHAT_CAUSE_REQUEST},
    {"{\"input\":[]}", "input", CHAT_CAUSE_REQUEST},
    {ITEM("{\"type\":\"reasoning\",\"summary\":[]}"), "input", CHAT_CAUSE_REQUEST},
    {ITEM("1"), "input[0]", CHAT_CAUSE_REQUEST},
    {ITEM("{\"role\":\"wizard\",\"content\":\"x\"}"), "input[0].role", CHAT_CAUSE_REQUEST},
    {ITEM("{\"role\":\"user\"}"), "input[0].content", CHAT_CAUSE_REQUEST},
    {PART("\"x\""), "input[0].content[0]", CHAT_CAUSE_REQUEST},
    {PART("{\"type\":\"input_text\"}"), "input[0].content[0].text", CHAT_CAUSE_REQUEST},
    {PART("{\"type\":\"hologram\"}"), "input[0].content[0].type", CHAT_CAUSE_UNABLE},
    {PART("{\"type\":\"input_image\",\"file_id\":\"f\"}"), "input[0].content[0].file_id", CHAT_CAUSE_UNABLE},
    {PART("{\"type\":\"input_image\"}"), "input[0].content[0].image_url", CHAT_CAUSE_REQUEST},
    {PART("{\"type\":\"input_file\",\"file_id\":\"f\"}"), "input[0].content[0].file_id", CHAT_CAUSE_UNABLE},
    {PART("{\"type\":\"input_file\"}"), "input[0].content[0].file_data", CHAT_CAUSE_REQUEST},
    {PART("{\"type\":\"input_audio\"}"), "input[0].content[0].input_audio.data", CHAT_CAUSE_REQUEST},
    {ITEM("{\"type\":\"item_reference\"}"), "input[0].id", CHAT_CAUSE_REQUEST},
    {ITEM("{\"type\":\"item_reference\",\"id\":7}"), "input[0].id", CHAT_CAUSE_REQUEST},
    {ITEM("{\"type\":\"web_search_call\",\"id\":\"ws_1\"}"), "input[0].type", CHAT_CAUSE_UNABLE},
    {ITEM("{\"type\":\"function_call\",\"call_id\":\"c\"}"), "input[0].name", CHAT_CAUSE_REQUEST},
    {ITEM("{\"type\":\"function_call\",\"name\":\"f\"}"), "input[0].call_id", CHAT_CAUSE_REQUEST},
    {ITEM("{\"type\":\"function_call\",\"name\":\"f\",\"call_id\":\"c\",\"arguments\":{}}"),
     "input[0].arguments", CHAT_CAUSE_REQUEST},
    {ITEM("{\"type\":\"function_call_output\",\"output\":\"x\"}"), "input[0].call_id", CHAT_CAUSE_REQUEST},
    {ITEM("{\"type\":\"function_call_output\",\"call_id\":\"c\"}"), "input[0].output", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"instructions\":[]}", "instructions", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"previous_response_id\":1}", "previous_response_id", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"previous_response_id\":\"resp_1\",\"conversation\":\"c\"}", "previous_response_id",
     CHAT_CAUSE_REQUEST},
    {"{" IN ",\"store\":\"no\"}", "store", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"background\":true}", "background", CHAT_CAUSE_UNABLE},
    {"{" IN ",\"prompt\":{\"id\":\"p\"}}", "prompt", CHAT_CAUSE_UNABLE},
    {"{" IN ",\"tools\":{}}", "tools", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"tools\":[{\"type\":\"web_search\"}]}", "tools[0].type", CHAT_CAUSE_UNABLE},
    {"{" IN ",\"tools\":[{\"type\":\"function\"}]}", "tools[0].name", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":1}]}", "tools[0].parameters",
     CHAT_CAUSE_REQUEST},
    {"{" IN ",\"tool_choice\":\"maybe\"}", "tool_choice", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"tool_choice\":{\"type\":\"file_search\"}}", "tool_choice.type", CHAT_CAUSE_UNABLE},
    {"{" IN ",\"tool_choice\":{\"type\":\"function\"}}", "tool_choice.name", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"tool_choice\":{\"type\":\"allowed_tools\"}}", "tool_choice.tools", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"parallel_tool_calls\":1}", "parallel_tool_calls", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"max_output_tokens\":0}", "max_output_tokens", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"temperature\":3}", "temperature", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"text\":{\"format\":{\"type\":\"xml\"}}}", "text.format.type", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\"}}}", "text.format.schema",
     CHAT_CAUSE_REQUEST},
    {"{" IN ",\"reasoning\":{\"effort\":5}}", "reasoning.effort", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"include\":\"x\"}", "include", CHAT_CAUSE_REQUEST},
    {"{" IN ",\"conversation\":5}", "conversation", CHAT_CAUSE_REQUEST},
};

static void bad_bodies_name_the_parameter(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fixture f;
        if (decode(&f, bad[i].body) == PH_OK)
            fail_msg("accepted: %s", bad[i].body);
        if (bad[i].param ? !f.fault.param || strcmp(f.fault.param, bad[i].param) != 0 : !!f.fault.param)
            fail_msg("%s: param %s: %s", bad[i].body, f.fault.param, f.fault.message);
        assert_int_equal(f.fault.http_status, 400);
        assert_int_equal(f.fault.cause, bad[i].cause);
        arena_release(&f.arena);
    }
}

/* ---- Accepted */

static void a_string_is_a_users_message(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, "{\"model\":\"m\",\"input\":\"hi\",\"instructions\":\"be brief\",\"store\":true,"
                    "\"truncation\":\"auto\",\"background\":false,\"unheard_of\":{},\"tools\":null}");
    assert_int_equal(f.request.dialect, CHAT_RESPONSES);
    assert_int_equal(f.request.message_count, 2);
    assert_int_equal(f.request.messages[0].role, CHAT_SYSTEM);
    assert_string_equal(f.request.messages[0].content.text, "be brief");
    assert_int_equal(f.request.messages[1].role, CHAT_USER);
    assert_string_equal(f.request.messages[1].content.text, "hi");
    assert_int_equal(f.request.messages[1].part_count, 0);
    assert_int_equal(f.request.choices, 1);
    assert_int_equal(f.request.reasoning_tokens, -1);
    assert_null(f.request.tools);
    assert_null(f.request.tool_choice);
    arena_release(&f.arena);
}

/* A turn as an agent sends it back. */
static const char agent_turn[] =
    "{\"input\":["
    "{\"type\":\"message\",\"role\":\"developer\",\"content\":[{\"type\":\"input_text\",\"text\":\"rules\"}]}"
    ","
    "{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"weather\"},"
    "{\"type\":\"input_text\",\"text\":\"in Paris\"}]},"
    "{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[{\"type\":\"summary_text\",\"text\":\"hm\"},"
    "{\"type\":\"summary_text\",\"text\":\"tools\"}],\"encrypted_content\":\"c2VhbA==\"},"
    "{\"type\":\"message\",\"id\":\"msg_1\",\"role\":\"assistant\",\"status\":\"completed\","
    "\"content\":[{\"type\":\"output_text\",\"text\":\"Let me look\",\"annotations\":[]}]},"
    "{\"type\":\"function_call\",\"id\":\"fc_1\",\"call_id\":\"call_1\",\"name\":\"weather\","
    "\"arguments\":\"{\\\"city\\\":\\\"Paris\\\"}\"},"
    "{\"type\":\"function_call\",\"id\":\"fc_2\",\"call_id\":\"call_2\",\"name\":\"time\","
    "\"arguments\":\"{}\"},"
    "{\"type\":\"function_call_output\",\"call_id\":\"call_1\",\"output\":\"sunny\"},"
    "{\"type\":\"function_call_output\",\"call_id\":\"call_2\","
    "\"output\":[{\"type\":\"input_text\",\"text\":\"noon\"}]},"
    "{\"type\":\"reasoning\",\"id\":\"rs_2\",\"summary\":[],\"encrypted_content\":\"b25seQ==\"},"
    "{\"role\":\"assistant\",\"content\":\"Sunny at noon\"},"
    "{\"role\":\"assistant\",\"content\":\"Anything else?\"}]}";

static void a_turn_of_the_assistant_is_one_message(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, agent_turn);
    const struct chat_message *m = f.request.messages;
    static const enum chat_role roles[] = {CHAT_DEVELOPER, CHAT_USER,      CHAT_ASSISTANT, CHAT_TOOL,
                                           CHAT_TOOL,      CHAT_ASSISTANT, CHAT_ASSISTANT};
    assert_int_equal(f.request.message_count, sizeof roles / sizeof roles[0]);
    for (size_t i = 0; i < f.request.message_count; i++)
        assert_int_equal(m[i].role, roles[i]);
    assert_string_equal(m[1].content.text, "weather\nin Paris");
    assert_int_equal(m[1].part_count, 2);
    assert_int_equal(m[2].part_count, 3);
    assert_int_equal(m[2].parts[0].kind, CHAT_PART_REASONING);
    assert_string_equal(m[2].parts[0].text.text, "hm");
    assert_null(m[2].parts[0].signature);
    assert_string_equal(m[2].parts[1].signature, "c2VhbA==");
    assert_string_equal(m[2].content.text, "Let me look");
    assert_int_equal(m[2].tool_call_count, 2);
    assert_string_equal(m[2].tool_calls[0].id, "call_1");
    assert_string_equal(m[2].tool_calls[0].arguments.text, "{\"city\":\"Paris\"}");
    assert_string_equal(m[2].tool_calls[1].name, "time");
    assert_string_equal(m[3].tool_call_id, "call_1");
    assert_string_equal(m[4].content.text, "noon");
    assert_null(m[5].parts[0].text.text); /* sealed, nothing to read */
    assert_string_equal(m[5].parts[0].signature, "b25seQ==");
    assert_string_equal(m[5].content.text, "Sunny at noon");
    assert_string_equal(m[6].content.text, "Anything else?");
    arena_release(&f.arena);
}

static void media_are_parts(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(
        &f, PART("{\"type\":\"input_image\",\"detail\":\"low\",\"image_url\":\"data:image/png;base64,QUJD\"},"
                 "{\"type\":\"input_image\",\"image_url\":\"https://x/y.png\"},"
                 "{\"type\":\"input_file\",\"filename\":\"a.pdf\",\"file_data\":\"QUJD\"},"
                 "{\"type\":\"input_file\",\"file_url\":\"https://x/y.pdf\"},"
                 "{\"type\":\"input_audio\",\"input_audio\":{\"format\":\"mp3\",\"data\":\"QUJD\"}}"));
    const struct chat_message *m = f.request.messages;
    assert_null(m->content.text);
    assert_int_equal(m->part_count, 5);
    assert_int_equal(m->parts[0].kind, CHAT_PART_IMAGE);
    assert_string_equal(m->parts[0].media_type, "image/png");
    assert_string_equal(m->parts[0].data.text, "QUJD");
    assert_int_equal(m->parts[0].data.len, 4);
    assert_string_equal(m->parts[0].detail, "low");
    assert_null(m->parts[0].url);
    assert_string_equal(m->parts[1].url, "https://x/y.png");
    assert_int_equal(m->parts[2].kind, CHAT_PART_FILE);
    assert_string_equal(m->parts[2].media_type, "application/pdf");
    assert_string_equal(m->parts[2].filename, "a.pdf");
    assert_null(m->parts[2].url);
    assert_string_equal(m->parts[3].url, "https://x/y.pdf");
    assert_int_equal(m->parts[4].kind, CHAT_PART_AUDIO);
    assert_string_equal(m->parts[4].media_type, "audio/mpeg");
    arena_release(&f.arena);
}

static void tools_take_the_shape_of_chats(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, "{" IN ",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\","
                    "\"parameters\":{\"type\":\"object\"},\"strict\":true},"
                    "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}],"
                    "\"tool_choice\":{\"type\":\"function\",\"name\":\"f\"},\"parallel_tool_calls\":false}");
    json_is_written_as(f.request.tools,
                       "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\","
                       "\"parameters\":{\"type\":\"object\"},\"strict\":true}},"
                       "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]");
    json_is_written_as(f.request.tool_choice, "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}");
    assert_true(f.request.single_tool_call);
    arena_release(&f.arena);
    must_decode(&f, "{" IN ",\"tools\":[{\"type\":\"function\",\"name\":\"f\"},{\"type\":\"function\","
                    "\"name\":\"g\"}],\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"required\","
                    "\"tools\":[{\"type\":\"function\",\"name\":\"g\"}]}}");
    json_is_written_as(f.request.tools, "[{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]");
    json_is_written_as(f.request.tool_choice, "\"required\"");
    arena_release(&f.arena);
    must_decode(&f, "{" IN ",\"tools\":[{\"type\":\"function\",\"name\":\"f\"}],\"tool_choice\":\"none\"}");
    assert_null(f.request.tools);
    arena_release(&f.arena);
}

static void custom_tools_take_text(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(
        &f, "{\"input\":[{\"type\":\"custom_tool_call\",\"call_id\":\"c\",\"name\":\"patch\",\"input\":"
            "\"*** Begin\"},{\"type\":\"custom_tool_call_output\",\"call_id\":\"c\",\"output\":\"ok\"}],"
            "\"tools\":[{\"type\":\"custom\",\"name\":\"patch\",\"description\":\"d\",\"format\":{\"type\":"
            "\"grammar\",\"syntax\":\"lark\",\"definition\":\"start: x\"}},{\"type\":\"custom\",\"name\":"
            "\"t\",\"format\":{\"type\":\"text\"}}],\"tool_choice\":{\"type\":\"custom\",\"name\":\"t\"}}");
    assert_int_equal(f.request.message_count, 2);
    assert_true(f.request.messages[0].tool_calls[0].custom);
    assert_string_equal(f.request.messages[0].tool_calls[0].arguments.text, "*** Begin");
    assert_string_equal(f.request.messages[1].tool_call_id, "c");
    json_is_written_as(
        f.request.tools,
        "[{\"type\":\"custom\",\"custom\":{\"name\":\"patch\",\"description\":\"d\",\"format\":"
        "{\"type\":\"grammar\",\"grammar\":{\"syntax\":\"lark\",\"definition\":\"start: x\"}}}},"
        "{\"type\":\"custom\",\"custom\":{\"name\":\"t\",\"format\":{\"type\":\"text\"}}}]");
    json_is_written_as(f.request.tool_choice, "{\"type\":\"custom\",\"custom\":{\"name\":\"t\"}}");
    arena_release(&f.arena);
}

static void the_rest_of_the_body(void **state)
{
    (void)state;
    struct fixture f;
    must_decode(&f, "{" IN ",\"max_output_tokens\":7,\"temperature\":0.5,\"top_p\":0.25,\"top_logprobs\":3,"
                    "\"stream\":true,\"user\":\"u\",\"safety_identifier\":\"s\","
                    "\"metadata\":{\"conversation_id\":\"m\"},\"conversation\":{\"id\":\"c\"},"
                    "\"reasoning\":{\"effort\":\"none\"},\"text\":{\"format\":{\"type\":\"json_schema\","
                    "\"name\":\"n\",\"schema\":{\"type\":\"object\"},\"strict\":true}}}");
    assert_int_equal(f.request.max_tokens, 7);
    assert_true(f.request.sampling.has_temperature && f.request.sampling.temperature == 0.5);
    assert_true(f.request.sampling.has_top_p && f.request.sampling.top_p == 0.25);
    assert_true(f.request.logprobs && f.request.top_logprobs == 3);
    assert_true(f.request.stream);
    assert_string_equal(f.request.user, "u");
    assert_string_equal(f.request.conversation, "c");
    assert_string_equal(f.request.reasoning_effort, "none");
    assert_int_equal(f.request.reasoning_tokens, 0);
    json_is_written_as(f.request.response_format,
                       "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"type\":"
                       "\"object\"},\"strict\":true}}");
    arena_release(&f.arena);
    must_decode(&f, "{" IN ",\"include\":[\"message.output_text.logprobs\"],\"conversation\":\"c2\","
                    "\"text\":{\"format\":{\"type\":\"text\"}}}");
    assert_true(f.request.logprobs && f.request.top_logprobs == 0);
    assert_string_equal(f.request.conversation, "c2");
    assert_null(f.request.response_format);
    arena_release(&f.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_bodies_name_the_parameter),
        cmocka_unit_test(a_string_is_a_users_message),
        cmocka_unit_test(a_turn_of_the_assistant_is_one_message),
        cmocka_unit_test(media_are_parts),
        cmocka_unit_test(tools_take_the_shape_of_chats),
        cmocka_unit_test(custom_tools_take_text),
        cmocka_unit_test(the_rest_of_the_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
