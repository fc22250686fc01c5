/* What goes out to an Anthropic provider: its own dialect untouched, others translated or refused. */
#include "chat/chat.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct chat_request request;
    struct chat_target target;
    struct chat_post post;
    struct chat_fault fault;
};

static void decode(struct fixture *f, const struct chat_edge *edge, const char *body)
{
    struct json *json;
    struct ph_err err;
    memset(f, 0, sizeof *f);
    arena_init(&f->arena, 1 << 26);
    f->target = (struct chat_target){
        .base_url = "https://h/v1", .model = "claude-sonnet-4-5", .key = "sk-ant-api03-test"};
    if (json_parse(&f->arena, body, strlen(body), &json, &err) != PH_OK)
        fail_msg("%s: %s", body, err.message);
    if (edge->decode(&f->arena, CHAT_KIND_CHAT, json, &f->request, &f->fault) != PH_OK)
        fail_msg("%s: %s", body, f->fault.message);
}

static enum ph_status encode(struct fixture *f)
{
    return chat_codec_anthropic.encode(&f->arena, &f->request, &f->target, &f->post, &f->fault);
}

static void check_body(struct fixture *f, const char *expected)
{
    if (encode(f) != PH_OK)
        fail_msg("%s", f->fault.message);
    struct json *json;
    assert_int_equal(json_parse(&f->arena, f->post.body, f->post.body_len, &json, NULL), PH_OK);
    if (strlen(expected) != f->post.body_len || memcmp(expected, f->post.body, f->post.body_len) != 0)
        fail_msg("got:\n%.*s\nexpected:\n%s", (int)f->post.body_len, f->post.body, expected);
    arena_release(&f->arena);
}

static const char *header(const struct chat_post *post, const char *name)
{
    for (size_t i = 0; i < post->header_count; i++)
        if (strcmp(post->headers[i].name, name) == 0)
            return post->headers[i].value;
    return "none";
}

/* ---- This dialect */

static void this_dialect_goes_out_as_it_came(void **state)
{
    (void)state;
    struct fixture f;
    decode(&f, &chat_edge_anthropic,
           "{\"zzz\":{\"b\":1.0,\"a\":[]},\"max_tokens\":5,\"system\":[{\"type\":\"text\",\"text\":\"s\","
           "\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}}],\"model\":\"mine\",\"messages\":[{"
           "\"content\":\"hi\",\"role\":\"user\",\"x\":1e3}],\"stop_sequences\":\"END\",\"tools\":[{\"type\":"
           "\"web_"
           "search_20250305\",\"name\":\"web_search\"}],\"metadata\":{\"conversation_id\":\"c\",\"user_id\":"
           "\"u\"},"
           "\"temperature\":1.0,\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}}");
    check_body(
        &f,
        "{\"zzz\":{\"b\":1.0,\"a\":[]},\"max_tokens\":5,\"system\":[{\"type\":\"text\",\"text\":\"s\","
        "\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}}],\"model\":\"claude-sonnet-4-5\","
        "\"messages\":[{\"content\":\"hi\",\"role\":\"user\",\"x\":1e3}],\"stop_sequences\":\"END\","
        "\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}],\"metadata\":{\"user_id\":"
        "\"u\"},\"temperature\":1.0,\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}}");
}

static void what_the_station_decides_is_written(void **state)
{
    (void)state;
    struct fixture f;
    decode(&f, &chat_edge_anthropic,
           "{\"max_tokens\":5,\"stream\":false,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    f.request.max_tokens = 3;
    f.request.stream = true;
    check_body(&f, "{\"max_tokens\":3,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
                   "\"model\":\"claude-sonnet-4-5\"}");
    decode(&f, &chat_edge_anthropic,
           "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    f.request.stream = true;
    check_body(&f, "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
                   "\"model\":\"claude-sonnet-4-5\",\"stream\":true}");
}

static void unsealed_thoughts_are_taken_out(void **state)
{
    (void)state;
    struct fixture f;
    decode(&f, &chat_edge_anthropic,
           "{\"max_tokens\":5000,\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024},\"messages\":[{"
           "\"role\":"
           "\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
           "\"thinking\":\"t\","
           "\"signature\":\"\"}]},{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":"
           "\"t\"},{"
           "\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"S\"},{\"type\":\"text\",\"text\":\"b\"}]"
           ",\"y\":1},{"
           "\"role\":\"user\",\"content\":\"c\"}],\"model\":\"m\"}");
    check_body(
        &f,
        "{\"max_tokens\":5000,\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
        "\"content\":[{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"S\"},{\"type\":\"text\","
        "\"text\":\"b\"}],\"y\":1},{\"role\":\"user\",\"content\":\"c\"}],\"model\":\"claude-sonnet-4-5\"}");
}

/* The context builder leaves some out and adds others; the answer's beginning is already known. */
static void changed_messages_keep_the_rest(void **state)
{
    (void)state;
    struct fixture f;
    decode(&f, &chat_edge_anthropic,
           "{\"max_tokens\":5,\"system\":\"s\",\"zzz\":1,\"thinking\":{\"type\":\"adaptive\"},\"messages\":[{"
           "\"role\":\"user\",\"content\":[{"
           "\"type\":"
           "\"text\",\"text\":\"a\",\"citations\":[]},{\"type\":\"image\",\"source\":{\"type\":\"file\","
           "\"file_id\":"
           "\"f\"}}]}],\"model\":\"m\"}");
    struct chat_message messages[4] = {
        f.request.messages[0],
        {.role = CHAT_USER, .content = {"older", 5}},
        f.request.messages[1],
        {.role = CHAT_ASSISTANT, .content = {"It is ", 6}},
    };
    f.request.messages = messages;
    f.request.message_count = 4;
    f.request.messages_changed = f.request.continue_final_message = true;
    check_body(
        &f,
        "{\"max_tokens\":5,\"zzz\":1,\"model\":\"claude-sonnet-4-5\",\"system\":[{\"type\":\"text\",\"text\":"
        "\"s\"}],\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"older\"},{"
        "\"type\":"
        "\"text\",\"text\":\"a\",\"citations\":[]},{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_"
        "id\":\"f\"}}]},{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"It is\"}]}]}");
    decode(&f, &chat_edge_anthropic,
           "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
    messages[0] = f.request.messages[0];
    messages[1] = messages[3];
    f.request.messages = messages;
    f.request.message_count = 2;
    f.request.messages_changed = f.request.continue_final_message = true;
    f.target.model = "claude-opus-4-6";
    assert_int_equal(encode(&f), PH_ERR_UNSUPPORTED);
    assert_int_equal(f.fault.cause, CHAT_CAUSE_UNABLE);
    arena_release(&f.arena);
}

static void headers_say_who_and_how(void **state)
{
    (void)state;
    static const struct {
        const char *said, *wanted, *sent;
    } versions[] = {{NULL, NULL, "2023-06-01"},
                    {"2026-10-21", NULL, "2026-10-21"},
                    {"latest\r\nx: y", NULL, "2023-06-01"},
                    {"2026-10-211", NULL, "2023-06-01"},
                    {"2026-10-21", "2023-01-01", "2023-01-01"}};
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        struct fixture f;
        decode(&f, &chat_edge_anthropic,
               "{\"max_tokens\":5,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
        f.request.api_version = versions[i].said;
        f.request.api_betas = "context-1m-2025-08-07";
        f.request.request_id = "r1";
        f.target.api_version = versions[i].wanted;
        assert_int_equal(encode(&f), PH_OK);
        assert_string_equal(f.post.url, "https://h/v1/messages");
        assert_string_equal(header(&f.post, "anthropic-version"), versions[i].sent);
        assert_string_equal(header(&f.post, "anthropic-beta"), "context-1m-2025-08-07");
        assert_string_equal(header(&f.post, "x-api-key"), "sk-ant-api03-test");
        assert_string_equal(header(&f.post, "content-type"), "application/json");
        assert_string_equal(header(&f.post, "accept"), "text/event-stream");
        assert_string_equal(header(&f.post, "x-request-id"), "r1");
        arena_release(&f.arena);
    }
    struct fixture f;
    decode(&f, &chat_edge_openai, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
    f.request.api_betas = "x";
    f.target.key = NULL;
    assert_int_equal(encode(&f), PH_OK);
    assert_string_equal(header(&f.post, "x-api-key"), "none");
    assert_string_equal(header(&f.post, "anthropic-beta"), "none");
    arena_release(&f.arena);
}

/* ---- Other dialects */

#define START "{\"model\":\"claude-sonnet-4-5\",\"max_tokens\":8192,\"stream\":false"
#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define HI ",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}]"
#define TEXT(text) "{\"type\":\"text\",\"text\":\"" text "\"}"
#define TURN(role, blocks) "{\"role\":\"" role "\",\"content\":[" blocks "]}"
#define FUNCTION                                                                                \
    "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":" \
    "{\"type\":\"object\",\"properties\":{}}}}"
#define TOOL "{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\",\"properties\":{}}}"

static const struct {
    const char *body, *expected;
} translations[] = {
    {"{" USER "}", START HI "}"},
    {"{" USER ",\"max_tokens\":7,\"stream\":true,\"temperature\":1.7,\"top_p\":0.5,\"top_k\":4,\"seed\":1,"
     "\"frequency_penalty\":1,\"logit_bias\":{\"5\":1},\"stop\":\"END\",\"user\":\"u\"}",
     "{\"model\":\"claude-sonnet-4-5\",\"max_tokens\":7,\"stream\":true" HI
     ",\"temperature\":1,\"top_k\":4,\"stop_sequences\":[\"END\"],\"metadata\":{\"user_id\":\"u\"}}"},
    {"{" USER ",\"top_p\":0.5}", START HI ",\"top_p\":0.5}"},
    {"{\"messages\":[{\"role\":\"system\",\"content\":\"A\"},{\"role\":\"assistant\",\"content\":\"Welcome\"}"
     ","
     "{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"  "
     "\"},{\"role\":\"user\",\"content\":"
     "\"b\"},{\"role\":\"developer\",\"content\":\"B\"},{\"role\":\"assistant\",\"content\":\"\"}]}",
     START ",\"system\":[" TEXT("A") "," TEXT("B") "],\"messages\":[" TURN("user", TEXT(".")) "," TURN(
         "assistant", TEXT("Welcome")) "," TURN("user", TEXT("a") "," TEXT("b")) "]}"},
    {"{\"messages\":[{\"role\":\"system\",\"content\":\"Do it\"}]}",
     START ",\"messages\":[" TURN("user", TEXT("Do it")) "]}"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}",
     START ",\"messages\":[{\"role\":\"user\",\"content\":\".\"}]}"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"I \\n\"}],"
     "\"continue_final_message\":true}",
     START ",\"messages\":[" TURN("user", TEXT("hi")) "," TURN("assistant", TEXT("I")) "]}"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":null,\"tool_"
     "calls\":[{"
     "\"id\":\"functions.f:0\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":"
     " 1.50}\"}},"
     "{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"oops\"}}]},{\"role\":"
     "\"tool\","
     "\"tool_call_id\":\"functions.f:0\",\"content\":\"42\"},{\"role\":\"tool\",\"tool_call_id\":\"c2\","
     "\"content\":"
     "\"\"},{\"role\":\"user\",\"content\":\"and?\"}],\"tools\":[" FUNCTION "],\"tool_choice\":\"required\"}",
     START ",\"messages\":[" TURN("user", TEXT("hi")) "," TURN(
         "assistant",
         "{\"type\":\"tool_use\",\"id\":\"functions_f_0\",\"name\":\"f\",\"input\":{\"x\":1.50}}"
         ","
         "{\"type\":\"tool_use\",\"id\":\"c2\",\"name\":\"f\",\"input\":{\"INVALID_JSON\":"
         "\"oops\"}}") "," TURN("user", "{\"type\":\"tool_result\",\"tool_use_id\":\"functions_f_0\","
                                        "\"content\":\"42\"},"
                                        "{\"type\":\"tool_result\",\"tool_use_id\":\"c2\"}," TEXT(
                                            "and?")) "],\"tools\":[" TOOL
                                                     "],\"tool_choice\":{\"type\":\"any\"}}"},
    {"{" USER ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"g\"}}],\"tool_choice\":{\"type\":"
     "\"function\","
     "\"function\":{\"name\":\"g\"}}}",
     START HI ",\"tools\":[{\"name\":\"g\",\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{"
              "\"type\":\"tool\","
              "\"name\":\"g\"}}"},
    /* tools were called before, none may be now: the API wants to know them all the same */
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":"
     "\"c\","
     "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]},{\"role\":\"tool\",\"tool_"
     "call_id\":"
     "\"c\",\"content\":\"1\"}]}",
     START ",\"messages\":[" TURN("user", TEXT("hi")) "," TURN(
         "assistant", "{\"type\":\"tool_use\",\"id\":"
                      "\"c\",\"name\":\"f\",\"input\":{"
                      "}}") "," TURN("user", "{\"type\":\"tool_result\",\"tool_use_id\":\"c\",\"content\":"
                                             "\"1\"}") "],\"tools\":[{\"name\":\"f\","
                                                       "\"input_schema\":{\"type\":"
                                                       "\"object\"}}],\"tool_"
                                                       "choice\":{\"type\":\"none\"}"
                                                       "}"},
    {"{" USER ",\"response_format\":{\"type\":\"text\"}}", START HI "}"},
    {"{" USER
     ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"type\":"
     "\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
     "\"additionalProperties\":"
     "true}},\"b\":{\"type\":\"object\"}}}}}}",
     START HI ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\","
              "\"properties\":"
              "{\"a\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"additionalProperties\":true}},"
              "\"b\":{\"type\":"
              "\"object\",\"additionalProperties\":false}},\"additionalProperties\":false}}}}"},
};

static void other_dialects_are_translated(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof translations / sizeof translations[0]; i++) {
        struct fixture f;
        decode(&f, &chat_edge_openai, translations[i].body);
        f.request.reasoning_tokens = -1;
        check_body(&f, translations[i].expected);
    }
}

static void parts_become_blocks(void **state)
{
    (void)state;
    static const struct chat_part parts[] = {
        {.kind = CHAT_PART_TEXT, .text = {"see", 3}},
        {.kind = CHAT_PART_IMAGE, .media_type = "image/png", .data = {"iVBO", 4}},
        {.kind = CHAT_PART_IMAGE, .url = "https://x/y.png"},
        {.kind = CHAT_PART_FILE, .media_type = "application/pdf", .data = {"JVBE", 4}, .filename = "a.pdf"},
        {.kind = CHAT_PART_REASONING, .text = {"foreign", 7}, .signature = "G"},
    };
    static const struct chat_message message = {
        .role = CHAT_USER, .content = {"see", 3}, .parts = parts, .part_count = 5};
    struct fixture f;
    decode(&f, &chat_edge_openai, "{" USER ",\"max_tokens\":3}");
    f.request.messages = &message;
    f.request.reasoning_tokens = -1;
    check_body(
        &f,
        "{\"model\":\"claude-sonnet-4-5\",\"max_tokens\":3,\"stream\":false,\"messages\":[" TURN(
            "user",
            TEXT("see") ",{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\","
                        "\"data\":\"iVBO\"}},{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":"
                        "\"https://x/y.png\"}},{\"type\":\"document\",\"source\":{\"type\":\"base64\","
                        "\"media_type\":\"application/pdf\",\"data\":\"JVBE\"},\"title\":\"a.pdf\"}") "]}");
}

/* ---- Models differ */

static void check_setting(const char *model, const char *body, const char *expected)
{
    struct fixture f;
    decode(&f, &chat_edge_openai, body);
    const char *effort = json_text(json_get(f.request.raw, "reasoning_effort"), NULL);
    f.request.reasoning_effort = effort;
    f.request.reasoning_tokens = -1;
    f.target.model = model;
    if (encode(&f) != PH_OK)
        fail_msg("%s", f.fault.message);
    const char *rest = strstr(f.post.body, HI);
    assert_non_null(rest);
    rest += strlen(HI);
    if (strcmp(rest, expected) != 0)
        fail_msg("%s: got %s expected %s", model, rest, expected);
    arena_release(&f.arena);
}

static void models_get_what_they_know(void **state)
{
    (void)state;
    static const char high[] =
        "{" USER ",\"temperature\":0.5,\"reasoning_effort\":\"high\",\"max_tokens\":40000}";
    static const char none[] = "{" USER ",\"temperature\":0.5,\"reasoning_effort\":\"none\"}";
    static const char little[] = "{" USER ",\"reasoning_effort\":\"high\",\"max_tokens\":1500}";
    static const char forced[] =
        "{" USER ",\"reasoning_effort\":\"low\",\"tools\":[" FUNCTION "],\"tool_choice\":\"required\"}";
    check_setting("claude-3-5-haiku-latest", high, ",\"temperature\":0.5}");
    check_setting("claude-3-7-sonnet-20250219", high,
                  ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":16384}}");
    check_setting("anthropic/claude-haiku-4.5", high,
                  ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":16384}}");
    check_setting("claude-sonnet-4-20250514", none, ",\"temperature\":0.5}");
    check_setting("claude-sonnet-4-20250514", little, "}");
    check_setting("claude-opus-4-6", high,
                  ",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"high\"}}");
    check_setting("claude-opus-4-6", none, ",\"output_config\":{\"effort\":\"low\"},\"temperature\":0.5}");
    check_setting("claude-opus-4-7", none, ",\"output_config\":{\"effort\":\"low\"}}");
    check_setting("claude-opus-5-5", high,
                  ",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"high\"}}");
    check_setting("claude-sonnet-5", "{" USER ",\"temperature\":0.5,\"top_k\":3}", "}");
    check_setting("deepseek-chat", "{" USER ",\"temperature\":0.5}", ",\"temperature\":0.5}");
    check_setting("claude-opus-5", forced,
                  ",\"tools\":[" TOOL
                  "],\"tool_choice\":{\"type\":\"any\"},\"output_config\":{\"effort\":\"low\"}}");
}

static const struct {
    const char *model, *body, *param;
} refusals[] = {
    {"claude-sonnet-4-5", "{" USER ",\"n\":2}", "n"},
    {"claude-sonnet-4-5", "{" USER ",\"logprobs\":true}", "logprobs"},
    {"claude-sonnet-4-5", "{" USER ",\"response_format\":{\"type\":\"json_object\"}}", "response_format"},
    {"claude-3-opus-20240229",
     "{" USER ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{}}}}",
     "response_format"},
    {"claude-sonnet-4-5", "{" USER ",\"stop\":\"\\n\"}", "stop"},
    {"claude-sonnet-4-5", "{" USER ",\"tools\":[" FUNCTION "],\"tool_choice\":{\"type\":\"allowed_tools\"}}",
     "tool_choice"},
    {"claude-sonnet-4-6",
     "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}],\"continue_final_message\":true}",
     "continue_final_message"},
    {"claude-sonnet-4-5",
     "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":"
     "\"f\","
     "\"arguments\":\"{}\"}}]}]}",
     "messages"},
};

static void what_would_change_the_answer_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct fixture f;
        decode(&f, &chat_edge_openai, refusals[i].body);
        f.target.model = refusals[i].model;
        if (encode(&f) != PH_ERR_UNSUPPORTED)
            fail_msg("not refused: %s", refusals[i].body);
        assert_int_equal(f.fault.cause, CHAT_CAUSE_UNABLE);
        assert_string_equal(f.fault.param, refusals[i].param);
        arena_release(&f.arena);
    }
    static const struct chat_part parts[] = {
        {.kind = CHAT_PART_AUDIO},
        {.kind = CHAT_PART_OTHER},
        {.kind = CHAT_PART_IMAGE},
        {.kind = CHAT_PART_FILE, .media_type = "text/csv", .data = {"A", 1}}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        struct chat_message message = {.role = CHAT_USER, .parts = &parts[i], .part_count = 1};
        struct fixture f;
        decode(&f, &chat_edge_openai, "{" USER "}");
        f.request.messages = &message;
        assert_int_equal(encode(&f), PH_ERR_UNSUPPORTED);
        assert_int_equal(f.fault.cause, CHAT_CAUSE_UNABLE);
        arena_release(&f.arena);
    }
}

/* ---- There and back: a translated request says the same */

static void a_translation_decodes_to_the_same(void **state)
{
    (void)state;
    struct fixture f, again;
    decode(&f, &chat_edge_anthropic,
           "{\"max_tokens\":5,\"system\":[{\"type\":\"text\",\"text\":\"s\",\"cache_control\":{\"type\":"
           "\"ephemeral\"}}],"
           "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":"
           "\"image\",\"source\":"
           "{\"type\":\"base64\",\"media_type\":\"image/"
           "png\",\"data\":\"AAAA\"}}]},{\"role\":\"assistant\",\"content\":[{"
           "\"type\":\"text\",\"text\":\"b\"},{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{"
           "\"x\":1}}]},{"
           "\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"is_error\":true,"
           "\"content\":[{"
           "\"type\":\"text\",\"text\":\"no\"}]},{\"type\":\"text\",\"text\":\"c\"}]}],\"tools\":[{\"name\":"
           "\"f\",\"input_"
           "schema\":{\"type\":\"object\"}}],\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_"
           "use\":true},"
           "\"stop_sequences\":[\"END\"],\"metadata\":{\"user_id\":\"u\"},\"model\":\"m\",\"stream\":true}");
    f.request.raw = NULL; /* as if it had come in another dialect's words */
    assert_int_equal(encode(&f), PH_OK);
    decode(&again, &chat_edge_anthropic, f.post.body);
    const struct chat_request *a = &f.request, *b = &again.request;
    assert_int_equal(a->message_count, b->message_count);
    for (size_t i = 0; i < a->message_count; i++) {
        const struct chat_message *x = &a->messages[i], *y = &b->messages[i];
        assert_int_equal(x->role, y->role);
        assert_string_equal(x->content.text ? x->content.text : "-", y->content.text ? y->content.text : "-");
        assert_int_equal(x->part_count, y->part_count);
        assert_int_equal(x->tool_call_count, y->tool_call_count);
        assert_int_equal(x->tool_failed, y->tool_failed);
        for (size_t k = 0; k < x->part_count; k++)
            assert_true(json_equal(x->parts[k].raw, y->parts[k].raw));
        for (size_t k = 0; k < x->tool_call_count; k++)
            assert_string_equal(x->tool_calls[k].arguments.text, y->tool_calls[k].arguments.text);
    }
    assert_true(json_equal(a->tools, b->tools) && json_equal(a->tool_choice, b->tool_choice));
    assert_true(a->single_tool_call && b->single_tool_call && b->stream && b->max_tokens == 5);
    assert_string_equal(b->stops[0].text, "END");
    assert_string_equal(b->user, "u");
    arena_release(&f.arena);
    arena_release(&again.arena);
}

/* ---- Short of memory: an error, whenever it happens */

static void memory_may_be_short(void **state)
{
    (void)state;
    static const char body[] = "{\"max_tokens\":5,\"system\":[{\"type\":\"text\",\"text\":\"s\"}],"
                               "\"messages\":[{\"role\":\"user\",\"content\":"
                               "[{\"type\":\"text\",\"text\":\"a\"}]},{\"role\":\"assistant\",\"content\":[{"
                               "\"type\":\"tool_use\",\"id\":\"t\","
                               "\"name\":\"f\",\"input\":{\"x\":1}}]},{\"role\":\"user\",\"content\":[{"
                               "\"type\":\"tool_result\",\"tool_use_id\":"
                               "\"t\"}]}],\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}]"
                               ",\"output_config\":{\"format\":{"
                               "\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}},\"tool_choice\":{"
                               "\"type\":\"tool\",\"name\":\"f\"}}";
    struct arena document;
    struct json *json;
    size_t done = 0;
    arena_init(&document, 1 << 20);
    assert_int_equal(json_parse(&document, body, sizeof body - 1, &json, NULL), PH_OK);
    for (size_t budget = 0; budget < 16384; budget += 48) {
        struct fixture f = {.target = {.base_url = "https://h/v1", .model = "claude-sonnet-4-5"}};
        arena_init(&f.arena, budget);
        enum ph_status status =
            chat_edge_anthropic.decode(&f.arena, CHAT_KIND_CHAT, json, &f.request, &f.fault);
        f.request.raw = NULL;
        if (status == PH_OK)
            status = encode(&f);
        assert_true(status == PH_OK || (status == PH_ERR_NOMEM && f.fault.http_status == 503));
        done += status == PH_OK;
        arena_release(&f.arena);
    }
    assert_true(done > 0 && done < 16384 / 48);
    arena_release(&document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(this_dialect_goes_out_as_it_came),
        cmocka_unit_test(what_the_station_decides_is_written),
        cmocka_unit_test(unsealed_thoughts_are_taken_out),
        cmocka_unit_test(changed_messages_keep_the_rest),
        cmocka_unit_test(headers_say_who_and_how),
        cmocka_unit_test(other_dialects_are_translated),
        cmocka_unit_test(parts_become_blocks),
        cmocka_unit_test(models_get_what_they_know),
        cmocka_unit_test(what_would_change_the_answer_is_refused),
        cmocka_unit_test(a_translation_decodes_to_the_same),
        cmocka_unit_test(memory_may_be_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
