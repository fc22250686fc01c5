#include "chat/chat.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct chat_request request;
    struct chat_reply reply;
    struct chat_encoder *encoder;
    struct buf out;
};

static void begin(struct fixture *f, const char *body)
{
    struct json *json;
    struct chat_fault fault;
    arena_init(&f->arena, 1 << 22);
    if (json_parse(&f->arena, body, strlen(body), &json, NULL) != PH_OK ||
        chat_edge_responses.decode(&f->arena, CHAT_KIND_CHAT, json, &f->request, &fault) != PH_OK)
        fail_msg("%s", body);
    f->reply = (struct chat_reply){"resp_7", "m", 1700000000};
    f->encoder = chat_edge_responses.encoder_new(&f->arena, &f->request, &f->reply, 0);
    assert_non_null(f->encoder);
    buf_init(&f->out, 1 << 22);
}

static void end(struct fixture *f)
{
    assert_int_equal(buf_status(&f->out), PH_OK);
    buf_release(&f->out);
    arena_release(&f->arena);
}

static void say(struct fixture *f, struct chat_event event)
{
    chat_edge_responses.encode(f->encoder, &event, &f->out);
}

#define TEXT(s)          \
    {                    \
        s, sizeof(s) - 1 \
    }
#define SAY(f, ...) say((f), (struct chat_event){__VA_ARGS__})

static void say_end(struct fixture *f, enum chat_finish finish)
{
    SAY(f, .kind = CHAT_EVENT_FINISH, .finish = finish);
    SAY(f, .kind = CHAT_EVENT_USAGE,
        .usage = {.prompt_tokens = 5,
                  .cached_tokens = 2,
                  .cache_write_tokens = 1,
                  .completion_tokens = 9,
                  .reasoning_tokens = 4});
    SAY(f, .kind = CHAT_EVENT_DONE);
}

/* Finds `text`, and goes on behind it: what is expected must come in this order. */
static void expect(const char **at, const char *text)
{
    const char *found = strstr(*at, text);
    if (!found)
        fail_msg("not found: %s\nin: %s", text, *at);
    *at = found + strlen(text);
}

static size_t count_of(const char *text, const char *piece)
{
    size_t count = 0;
    while ((text = strstr(text, piece)) != NULL) {
        count++;
        text += strlen(piece);
    }
    return count;
}

#define USAGE                                                                                           \
    "\"usage\":{\"input_tokens\":5,\"input_tokens_details\":{\"cached_tokens\":2,"                      \
    "\"cache_write_tokens\":1},\"output_tokens\":9,\"output_tokens_details\":{\"reasoning_tokens\":4}," \
    "\"total_tokens\":14}"

static void a_text_streams(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, "{\"input\":\"hi\",\"stream\":true,\"temperature\":0.5,\"conversation\":\"c\"}");
    SAY(&f, .kind = CHAT_EVENT_PROGRESS);
    assert_string_equal(f.out.data, ": keep-alive\n\n");
    SAY(&f, .kind = CHAT_EVENT_ROLE);
    SAY(&f, .kind = CHAT_EVENT_TEXT, .text = TEXT("He\"l"));
    SAY(&f, .kind = CHAT_EVENT_TEXT, .text = TEXT("lo"));
    say_end(&f, CHAT_FINISH_STOP);
    const char *at = f.out.data;
    expect(&at, "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,"
                "\"response\":{\"id\":\"resp_7\",\"object\":\"response\",\"created_at\":1700000000,"
                "\"status\":\"in_progress\",\"error\":null,\"incomplete_details\":null,\"model\":\"m\","
                "\"output\":[]");
    expect(&at, "\"temperature\":0.5");
    expect(&at, "\"conversation\":{\"id\":\"c\"}");
    expect(&at, "\"usage\":null}}\n\nevent: response.in_progress\n");
    expect(&at, "\n\nevent: response.output_item.added\ndata: {\"type\":\"response.output_item.added\","
                "\"sequence_number\":2,\"output_index\":0,\"item\":{\"id\":\"msg_7_0\",\"type\":\"message\","
                "\"status\":\"in_progress\",\"role\":\"assistant\",\"content\":[]}}\n\n");
    expect(&at,
           "event: response.content_part.added\ndata: {\"type\":\"response.content_part.added\","
           "\"sequence_number\":3,\"item_id\":\"msg_7_0\",\"output_index\":0,\"content_index\":0,\"part\":"
           "{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[],\"logprobs\":[]}}\n\n");
    expect(&at, "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\","
                "\"sequence_number\":4,\"item_id\":\"msg_7_0\",\"output_index\":0,\"content_index\":0,"
                "\"delta\":\"He\\\"l\",\"logprobs\":[]}\n\n");
    expect(&at, "\"delta\":\"lo\",\"logprobs\":[]}\n\n");
    expect(&at, "event: response.output_text.done\n");
    expect(&at, "\"sequence_number\":6,\"item_id\":\"msg_7_0\",\"output_index\":0,\"content_index\":0,"
                "\"text\":\"He\\\"llo\",\"logprobs\":[]}\n\n");
    expect(&at, "event: response.content_part.done\n");
    expect(&at, "event: response.output_item.done\n");
    expect(&at, "\"status\":\"completed\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\","
                "\"text\":\"He\\\"llo\",\"annotations\":[],\"logprobs\":[]}]}}\n\n");
    expect(&at, "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":9,");
    expect(&at, "\"status\":\"completed\"");
    expect(&at, "\"output\":[{\"id\":\"msg_7_0\"");
    expect(&at, USAGE "}}\n\n");
    assert_string_equal(at, "");
    end(&f);
}

static void the_whole_object(void **state)
{
    (void)state;
    struct fixture f;
    struct json *json;
    begin(&f, "{\"input\":\"hi\",\"instructions\":\"i\",\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]}");
    SAY(&f, .kind = CHAT_EVENT_PROGRESS);
    SAY(&f, .kind = CHAT_EVENT_ROLE);
    SAY(&f, .kind = CHAT_EVENT_TEXT, .text = TEXT("Hel"));
    SAY(&f, .kind = CHAT_EVENT_TEXT, .text = TEXT("lo"));
    assert_int_equal(f.out.len, 0);
    say_end(&f, CHAT_FINISH_LENGTH);
    assert_int_equal(json_parse(&f.arena, f.out.data, f.out.len, &json, NULL), PH_OK);
    static const char *const required[] = {"id",
                                           "created_at",
                                           "error",
                                           "incomplete_details",
                                           "instructions",
                                           "metadata",
                                           "model",
                                           "object",
                                           "parallel_tool_calls",
                                           "temperature",
                                           "tool_choice",
                                           "tools",
                                           "top_p",
                                           "output"};
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        if (!json_get(json, required[i]))
            fail_msg("%s is missing", required[i]);
    assert_true(json_text_is(json_get(json, "status"), "incomplete"));
    assert_true(json_text_is(json_get(json_get(json, "incomplete_details"), "reason"), "max_output_tokens"));
    const struct json *item = json_at(json_get(json, "output"), 0);
    assert_true(json_text_is(json_get(item, "status"), "incomplete"));
    assert_true(json_text_is(json_get(json_at(json_get(item, "content"), 0), "text"), "Hello"));
    assert_non_null(strstr(f.out.data, USAGE));
    assert_non_null(strstr(f.out.data, "\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]"));
    end(&f);
}

static void say_call(struct fixture *f, size_t index, const char *id, const char *name, const char *piece)
{
    SAY(f, .kind = CHAT_EVENT_TOOL_CALL,
        .tool_call = {.index = index, .id = id, .name = name, .arguments = {piece, strlen(piece)}});
}

static void thoughts_text_and_mixed_calls(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, "{\"input\":\"hi\",\"stream\":true}");
    SAY(&f, .kind = CHAT_EVENT_ROLE);
    SAY(&f, .kind = CHAT_EVENT_REASONING, .text = TEXT("hm"));
    SAY(&f, .kind = CHAT_EVENT_REASONING, .text = TEXT("m"), .signature = "seal");
    SAY(&f, .kind = CHAT_EVENT_TEXT, .text = TEXT("look"));
    say_call(&f, 0, "call_a", "f", "");
    say_call(&f, 1, NULL, "g", "{");
    say_call(&f, 0, NULL, NULL, "{}");
    say_call(&f, 1, NULL, NULL, "}");
    say_end(&f, CHAT_FINISH_TOOL_CALLS);
    const char *at = f.out.data;
    expect(&at,
           "\"item\":{\"id\":\"rs_7_0\",\"type\":\"reasoning\",\"status\":\"in_progress\",\"summary\":[],"
           "\"content\":[],\"encrypted_content\":null}}\n\nevent: response.content_part.added\n");
    expect(&at,
           "\"part\":{\"type\":\"reasoning_text\",\"text\":\"\"}}\n\nevent: response.reasoning_text.delta\n");
    expect(&at, "event: response.reasoning_text.done\n");
    expect(&at, "\"text\":\"hmm\"}\n\nevent: response.content_part.done\n");
    expect(&at, "event: response.output_item.done\n");
    expect(&at, "\"summary\":[],\"content\":[{\"type\":\"reasoning_text\",\"text\":\"hmm\"}],"
                "\"encrypted_content\":\"seal\"}}\n\nevent: response.output_item.added\n");
    expect(&at, "\"output_index\":1,\"item\":{\"id\":\"msg_7_1\"");
    expect(&at, "event: response.output_item.done\n"); /* the message, before the call begins */
    expect(&at, "\"output_index\":2,\"item\":{\"id\":\"fc_7_2\",\"type\":\"function_call\",\"status\":"
                "\"in_progress\",\"call_id\":\"call_a\",\"name\":\"f\",\"arguments\":\"\"}}\n\n");
    expect(&at, "\"call_id\":\"call_7_3\",\"name\":\"g\",\"arguments\":\"\"}}\n\n");
    expect(&at, "event: response.function_call_arguments.delta\n");
    expect(&at, "\"item_id\":\"fc_7_3\",\"output_index\":3,\"delta\":\"{\"}\n\n");
    expect(&at, "\"item_id\":\"fc_7_2\",\"output_index\":2,\"delta\":\"{}\"}\n\n");
    expect(&at, "event: response.function_call_arguments.done\n");
    expect(&at, "\"output_index\":2,\"name\":\"f\",\"arguments\":\"{}\"}\n\n");
    expect(&at, "\"output_index\":3,\"name\":\"g\",\"arguments\":\"{}\"}\n\n");
    expect(&at, "event: response.completed\n");
    size_t events = count_of(f.out.data, "event: ");
    for (size_t i = 0; i < events; i++) {
        char number[48];
        snprintf(number, sizeof number, "\"sequence_number\":%zu,", i);
        assert_int_equal(count_of(f.out.data, number), 1);
    }
    end(&f);
}

static void calls_with_free_text(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, "{\"input\":\"hi\",\"stream\":true}");
    SAY(&f, .kind = CHAT_EVENT_TOOL_CALL, .tool_call = {.id = "c", .name = "patch", .custom = true});
    SAY(&f, .kind = CHAT_EVENT_TOOL_CALL, .tool_call = {.arguments = TEXT("***"), .custom = true});
    say_end(&f, CHAT_FINISH_TOOL_CALLS);
    const char *at = f.out.data;
    expect(&at, "\"item\":{\"id\":\"ctc_7_0\",\"type\":\"custom_tool_call\",\"status\":\"in_progress\","
                "\"call_id\":\"c\",\"name\":\"patch\",\"input\":\"\"}}\n\n"
                "event: response.custom_tool_call_input.delta\n");
    expect(&at, "\"delta\":\"***\"}\n\nevent: response.custom_tool_call_input.done\n");
    expect(&at, "\"item_id\":\"ctc_7_0\",\"output_index\":0,\"input\":\"***\"}\n\n"
                "event: response.output_item.done\n");
    end(&f);
}

static void summaries_are_told_when_asked_for(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, "{\"input\":\"hi\",\"stream\":true,\"reasoning\":{\"summary\":\"auto\"}}");
    SAY(&f, .kind = CHAT_EVENT_REASONING, .text = TEXT("hm"));
    SAY(&f, .kind = CHAT_EVENT_REASONING, .redacted = true, .signature = "sealed");
    SAY(&f, .kind = CHAT_EVENT_TEXT, .text = TEXT("x"));
    say_end(&f, CHAT_FINISH_CONTENT_FILTER);
    const char *at = f.out.data;
    expect(&at, "event: response.reasoning_summary_part.added\n");
    expect(&at, "\"summary_index\":0,\"part\":{\"type\":\"summary_text\",\"text\":\"\"}}\n\n"
                "event: response.reasoning_summary_text.delta\n");
    expect(&at, "\"summary_index\":0,\"delta\":\"hm\"}\n\n");
    expect(&at, "event: response.reasoning_summary_text.done\n");
    expect(&at, "event: response.reasoning_summary_part.done\n");
    expect(&at, "\"summary\":[{\"type\":\"summary_text\",\"text\":\"hm\"}],\"encrypted_content\":null}}\n\n");
    expect(&at, "\"id\":\"rs_7_1\"");
    expect(&at, "\"summary\":[],\"encrypted_content\":\"sealed\"}}\n\n");
    expect(&at, "event: response.incomplete\n");
    expect(&at, "\"incomplete_details\":{\"reason\":\"content_filter\"}");
    end(&f);
}

static void log_probabilities(void **state)
{
    (void)state;
    static const struct chat_token_logprob token = {7, TEXT("hi"), -0.5};
    static const struct chat_token_logprob top[] = {{7, TEXT("hi"), -0.5}, {8, TEXT("ho"), -1.5}};
#define HI "\"token\":\"hi\",\"logprob\":-0.5,\"bytes\":[104,105]"
#define ONE                                                                  \
    "{" HI ",\"top_logprobs\":[{" HI "},{\"token\":\"ho\",\"logprob\":-1.5," \
    "\"bytes\":[104,111]}]}"
    struct fixture f;
    begin(&f, "{\"input\":\"hi\",\"stream\":true,\"top_logprobs\":2}");
    for (int i = 0; i < 2; i++)
        SAY(&f, .kind = CHAT_EVENT_TEXT, .text = TEXT("hi"), .logprobs = &token, .logprob_count = 1,
            .top = top, .top_count = 2);
    say_end(&f, CHAT_FINISH_STOP);
    const char *at = f.out.data;
    expect(&at, "\"delta\":\"hi\",\"logprobs\":[" ONE "]}\n\n");
    expect(&at, "\"text\":\"hihi\",\"logprobs\":[" ONE "," ONE "]}\n\n");
    end(&f);
}

static void a_failure_is_told_twice(void **state)
{
    (void)state;
    struct fixture f;
    struct chat_fault fault;
    begin(&f, "{\"input\":\"hi\",\"stream\":true}");
    SAY(&f, .kind = CHAT_EVENT_TEXT, .text = TEXT("ha"));
    chat_fault_set(&fault, 502, NULL, NULL, "it broke");
    say(&f, chat_fault_event(&fault, PH_ERR_IO));
    const char *at = f.out.data;
    expect(&at, "event: response.failed\n");
    expect(&at, "\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"it broke\"}");
    expect(&at, "\"status\":\"incomplete\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\","
                "\"text\":\"ha\"");
    expect(&at, "event: error\ndata: {\"type\":\"error\",\"sequence_number\":6,\"code\":null,\"message\":"
                "\"it broke\",\"param\":null,\"error\":{\"type\":\"server_error\",\"code\":null,"
                "\"message\":\"it broke\",\"param\":null}}\n\n");
    assert_string_equal(at, "");
    end(&f);
    begin(&f, "{\"input\":\"hi\"}");
    say(&f, chat_fault_event(&fault, PH_ERR_IO));
    assert_string_equal(f.out.data,
                        "{\"error\":{\"message\":\"it broke\",\"type\":\"server_error\",\"param\":null,"
                        "\"code\":null}}");
    end(&f);
}

static void an_empty_answer_is_an_empty_message(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, "{\"input\":\"hi\"}");
    SAY(&f, .kind = CHAT_EVENT_ROLE);
    say_end(&f, CHAT_FINISH_STOP);
    assert_non_null(strstr(f.out.data, "\"content\":[{\"type\":\"output_text\",\"text\":\"\","));
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_streams),
        cmocka_unit_test(the_whole_object),
        cmocka_unit_test(thoughts_text_and_mixed_calls),
        cmocka_unit_test(calls_with_free_text),
        cmocka_unit_test(summaries_are_told_when_asked_for),
        cmocka_unit_test(log_probabilities),
        cmocka_unit_test(a_failure_is_told_twice),
        cmocka_unit_test(an_empty_answer_is_an_empty_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
