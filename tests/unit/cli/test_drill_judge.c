/* The judge of a drill must be able to say no: replies that are right, and each way in which one is not. */
#include "base/json.h"
#include "cli/drill_cell_int.h"
#include "test_support.h"

#define TEXT "one two three four"

/* ---- Replies that are as they should be */

#define ERROR_MEMBERS(type) "\"message\":\"the provider failed us\",\"type\":\"" type "\""
#define OPENAI_ERROR(type) "{\"error\":{" ERROR_MEMBERS(type) ",\"param\":null,\"code\":null}}"
#define ANTHROPIC_ERROR(type) "{\"type\":\"error\",\"error\":{" ERROR_MEMBERS(type) "}}"

#define OPENAI_WHOLE(text) \
    "{\"choices\":[{\"message\":{\"content\":\"" text "\"},\"finish_reason\":\"stop\"}],\"error\":null}"
#define OPENAI_DELTA(text) \
    "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"},\"finish_reason\":null}]}\n\n"
#define OPENAI_FINISH "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define OPENAI_DONE "data: [DONE]\n\n"
#define OPENAI_STREAM(text) ": alive\n\n" OPENAI_DELTA("one") OPENAI_DELTA(text) OPENAI_FINISH OPENAI_DONE
#define OPENAI_BROKEN OPENAI_DELTA("one two") "data: " OPENAI_ERROR("server_error") "\n\n"

#define ANTHROPIC_WHOLE(text)                                                \
    "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"" text \
    "\"}],\"stop_reason\":\"end_turn\"}"
#define ANTHROPIC_DELTA(text)                                                                         \
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"" text \
    "\"}}\n\n"
#define ANTHROPIC_FINISH \
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n"
#define ANTHROPIC_STOP "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
#define ANTHROPIC_BROKEN ANTHROPIC_DELTA("one two") "data: " ANTHROPIC_ERROR("api_error") "\n\n"

#define RESPONSES_WHOLE(text)                                                                             \
    "{\"object\":\"response\",\"status\":\"completed\",\"error\":null,\"output\":[{\"type\":\"message\"," \
    "\"content\":[{\"type\":\"output_text\",\"text\":\"" text "\"}]}]}"
#define RESPONSES_DELTA(text) "data: {\"type\":\"response.output_text.delta\",\"delta\":\"" text "\"}\n\n"
#define RESPONSES_END "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\"}}\n\n"
#define RESPONSES_BROKEN       \
    RESPONSES_DELTA("one two") \
    "data: {\"type\":\"error\",\"code\":null,\"message\":\"the provider failed us\",\"param\":null}\n\n"

enum { ALONE, BACKED };
enum { WHOLE, STREAM };

struct row {
    const char *fault;
    enum drill_edge edge;
    int is_stream, is_backed;
    struct drill_reply reply;
    const char *problem; /* a part of it; NULL: it holds */
};

#define REPLY(status_, body_)                                                    \
    {                                                                            \
        .status = (status_), .body = (body_), .is_complete = true, .attempts = 2 \
    }
#define CUT(status_, body_)                                 \
    {                                                       \
        .status = (status_), .body = (body_), .attempts = 1 \
    }
#define OPENAI DRILL_EDGE_OPENAI
#define ANTHROPIC DRILL_EDGE_ANTHROPIC
#define RESPONSES DRILL_EDGE_RESPONSES

static void judge(const struct row *row)
{
    struct arena arena;
    struct buf problem;
    struct drill_cell cell = {
        .api = DRILL_GEMINI, .edge = row->edge, .is_stream = row->is_stream, .is_backed = row->is_backed};
    struct drill_reply reply = row->reply;
    reply.body_len = strlen(reply.body);
    arena_init(&arena, 1 << 20);
    buf_init(&problem, 1000);
    assert_true(drill_fault_find(row->fault, &cell.fault));
    drill_judge(&arena, &cell, TEXT, &reply, &problem);
    if (!row->problem && problem.len)
        fail_msg("%s: it should hold: %s: %s", row->fault, problem.data, reply.body);
    if (row->problem && (!problem.len || !strstr(problem.data, row->problem)))
        fail_msg("%s: not \"%s\" but \"%s\": %s", row->fault, row->problem, problem.len ? problem.data : "",
                 reply.body);
    buf_release(&problem);
    arena_release(&arena);
}

static void judge_all(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        judge(&rows[i]);
}

static void right_ones_hold(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"cut", OPENAI, WHOLE, BACKED, REPLY(200, OPENAI_WHOLE(TEXT)), NULL},
        {"cut", OPENAI, STREAM, BACKED, REPLY(200, OPENAI_STREAM(" two three four")), NULL},
        {"500", ANTHROPIC, WHOLE, BACKED, REPLY(200, ANTHROPIC_WHOLE(TEXT)), NULL},
        {"500", ANTHROPIC, STREAM, BACKED, REPLY(200, ANTHROPIC_DELTA(TEXT) ANTHROPIC_FINISH ANTHROPIC_STOP),
         NULL},
        {"tls", RESPONSES, WHOLE, BACKED, REPLY(200, RESPONSES_WHOLE(TEXT)), NULL},
        {"tls", RESPONSES, STREAM, BACKED, REPLY(200, RESPONSES_DELTA(TEXT) RESPONSES_END), NULL},
        {"cut", OPENAI, WHOLE, ALONE, REPLY(502, OPENAI_ERROR("server_error")), NULL},
        {"cut", ANTHROPIC, WHOLE, ALONE, REPLY(502, ANTHROPIC_ERROR("api_error")), NULL},
        {"cut", RESPONSES, WHOLE, ALONE, REPLY(502, OPENAI_ERROR("server_error")), NULL},
        {"cut", OPENAI, STREAM, ALONE, CUT(200, OPENAI_BROKEN), NULL},
        {"cut", ANTHROPIC, STREAM, ALONE, CUT(200, ANTHROPIC_BROKEN), NULL},
        {"cut", RESPONSES, STREAM, ALONE, CUT(200, RESPONSES_BROKEN), NULL},
        {"hang", ANTHROPIC, STREAM, ALONE, REPLY(504, ANTHROPIC_ERROR("timeout_error")), NULL},
        {"overloaded", ANTHROPIC, STREAM, ALONE, REPLY(529, ANTHROPIC_ERROR("overloaded_error")), NULL},
        {"429", OPENAI, WHOLE, ALONE, REPLY(429, OPENAI_ERROR("rate_limit_error")), NULL},
    };
    judge_all(rows, sizeof rows / sizeof *rows);
}

static void with_a_second_provider_the_right_answer_must_come(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"cut", OPENAI, WHOLE, BACKED, REPLY(502, OPENAI_ERROR("server_error")), "no whole answer came"},
        {"cut", OPENAI, WHOLE, BACKED, REPLY(200, OPENAI_WHOLE("one two")), "not the right one"},
        {"cut", OPENAI, WHOLE, BACKED, REPLY(200, OPENAI_WHOLE("")), "not the right one"},
        {"cut", OPENAI, STREAM, BACKED, CUT(200, OPENAI_STREAM(" two three four")), "broken connection"},
        {"cut", OPENAI, STREAM, BACKED, REPLY(200, OPENAI_DELTA(TEXT) OPENAI_FINISH), "last word"},
        {"cut", OPENAI, STREAM, BACKED, REPLY(200, OPENAI_DELTA(TEXT) OPENAI_DONE), "last word"},
        {"cut", OPENAI, STREAM, BACKED, REPLY(200, OPENAI_STREAM(" one two three four")),
         "not the right one"},
        {"cut", ANTHROPIC, STREAM, BACKED, REPLY(200, ANTHROPIC_DELTA(TEXT) ANTHROPIC_FINISH), "last word"},
        {"cut", ANTHROPIC, STREAM, BACKED, CUT(200, ANTHROPIC_BROKEN), "the provider failed us"},
        {"cut", RESPONSES, STREAM, BACKED, REPLY(200, RESPONSES_DELTA(TEXT)), "last word"},
        {"cut", OPENAI, WHOLE, BACKED, REPLY(200, "<html>"), "not of this dialect"},
        {"500",
         OPENAI,
         WHOLE,
         BACKED,
         {.status = 200, .body = OPENAI_WHOLE(TEXT), .is_complete = true, .attempts = 1},
         "never asked"},
    };
    judge_all(rows, sizeof rows / sizeof *rows);
}

static void alone_the_right_error_must_come(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"cut", OPENAI, WHOLE, ALONE, REPLY(200, OPENAI_WHOLE("one two")), "looks like a whole answer"},
        {"cut", OPENAI, STREAM, ALONE, REPLY(200, OPENAI_STREAM("")), "looks like a whole answer"},
        {"401", OPENAI, WHOLE, ALONE, REPLY(401, OPENAI_ERROR("server_error")), "status 401"},
        {"hang", OPENAI, WHOLE, ALONE, REPLY(502, OPENAI_ERROR("server_error")), "status 502"},
        {"500", OPENAI, WHOLE, ALONE, REPLY(200, OPENAI_ERROR("server_error")), "status 200"},
        {"cut", OPENAI, STREAM, ALONE, REPLY(502, OPENAI_ERROR("server_error")), "was not passed on"},
        {"cut", OPENAI, STREAM, ALONE, CUT(200, "data: " OPENAI_ERROR("server_error") "\n\n"),
         "was not passed on"},
        {"cut", OPENAI, STREAM, ALONE,
         CUT(200, OPENAI_DELTA("uno") "data: " OPENAI_ERROR("server_error") "\n\n"), "not the beginning"},
        {"cut", OPENAI, STREAM, ALONE, CUT(200, OPENAI_DELTA("one two")), "no error"},
        {"cut", OPENAI, STREAM, ALONE, REPLY(200, OPENAI_BROKEN), "ends as a whole one does"},
        {"cut", OPENAI, STREAM, ALONE, CUT(200, OPENAI_BROKEN OPENAI_DONE), "ends as a whole one does"},
        {"cut", ANTHROPIC, STREAM, ALONE, CUT(200, ANTHROPIC_BROKEN ANTHROPIC_STOP),
         "ends as a whole one does"},
        {"cut", RESPONSES, STREAM, ALONE, CUT(200, RESPONSES_BROKEN RESPONSES_END),
         "ends as a whole one does"},
        {"500", ANTHROPIC, WHOLE, ALONE, REPLY(502, OPENAI_ERROR("api_error")), "shape of the dialect"},
        {"500", OPENAI, WHOLE, ALONE, REPLY(502, ANTHROPIC_ERROR("server_error")), "no \"param\""},
        {"500", OPENAI, WHOLE, ALONE, REPLY(502, "{\"detail\":\"no\"}"), "no error"},
        {"500", OPENAI, WHOLE, ALONE, REPLY(502, "Bad Gateway"), "not of this dialect"},
        {"500", OPENAI, WHOLE, ALONE,
         REPLY(502,
               "{\"error\":{\"message\":\"no\",\"type\":\"server_error\",\"param\":null,\"code\":null}}"),
         "nothing a person could use"},
        {"500", OPENAI, WHOLE, ALONE, REPLY(502, OPENAI_ERROR("invalid_request_error")), "does not belong"},
        {"429", OPENAI, WHOLE, ALONE, REPLY(429, OPENAI_ERROR("server_error")), "does not belong"},
    };
    judge_all(rows, sizeof rows / sizeof *rows);
}

static void a_wait_is_passed_on(void **state)
{
    (void)state;
    struct row row = {"429-retry", OPENAI, WHOLE, ALONE, REPLY(429, OPENAI_ERROR("rate_limit_error")), NULL};
    row.reply.retry_after = 1;
    judge(&row);
    row.reply.retry_after = -1;
    row.problem = "retry-after";
    judge(&row);
}

static void a_key_in_a_reply_is_seen(void **state)
{
    (void)state;
    struct row row = {"401",
                      OPENAI,
                      WHOLE,
                      BACKED,
                      REPLY(200, OPENAI_WHOLE("Incorrect API key provided: sk-drill-x")),
                      "key is in the reply"};
    judge(&row);
    row.reply.body = OPENAI_WHOLE(TEXT);
    row.reply.leaks_in_header = true;
    judge(&row);
}

/* Every cell of an API and a fault has a model of its own: none sees what another did to a breaker. */
static void cells_have_models_of_their_own(void **state)
{
    (void)state;
    char names[12][DRILL_MODEL_MAX], title[DRILL_TITLE_MAX];
    struct buf body;
    buf_init(&body, 4096);
    for (int i = 0; i < 12; i++) {
        struct drill_cell cell = {.api = DRILL_TOGETHER,
                                  .edge = (enum drill_edge)(i / 4),
                                  .is_stream = i % 2,
                                  .is_backed = i / 2 % 2};
        struct arena arena;
        struct json *value;
        drill_model(&cell, names[i]);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(names[i], names[k]);
        buf_clear(&body);
        drill_body(&cell, "a \"b\"\n", &body);
        arena_init(&arena, 1 << 16);
        assert_int_equal(json_parse(&arena, body.data, body.len, &value, NULL), PH_OK);
        assert_true(json_text_is(json_get(value, "model"), names[i]));
        arena_release(&arena);
        drill_title(&cell, title);
        assert_non_null(strstr(title, cell.is_backed ? "second" : "alone"));
    }
    assert_string_equal(names[0], "drill/together/refused/1");
    assert_string_equal(names[11], "drill/together/refused+ok/6");
    buf_release(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_ones_hold),
        cmocka_unit_test(with_a_second_provider_the_right_answer_must_come),
        cmocka_unit_test(alone_the_right_error_must_come),
        cmocka_unit_test(a_wait_is_passed_on),
        cmocka_unit_test(a_key_in_a_reply_is_seen),
        cmocka_unit_test(cells_have_models_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
