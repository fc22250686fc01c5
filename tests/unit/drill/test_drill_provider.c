/* The provider that fails as it is told to: what is right when nothing is wrong, and each fault as its callers
 * see it on the wire. */
#include <sys/socket.h>

#include "base/arena.h"
#include "base/json.h"
#include "drill/drill_int.h"
#include "net/client_support.h"
#include "test_support.h"

#define SHORT_MS 200

struct fixture {
    struct test_client client;
    struct drill_provider *provider;
    struct test_reply reply;
    bool stopped;
};

static void fixture_open(struct fixture *f)
{
    struct ph_err err;
    *f = (struct fixture){.stopped = false};
    test_client_open(&f->client, NULL);
    if (drill_provider_open(&f->provider, f->client.loop, clock_system(), &err) != PH_OK)
        fail_msg("%s", err.message);
    test_reply_init(&f->reply, &f->client);
}

static void on_stopped(void *ud)
{
    *(bool *)ud = true;
}

static void fixture_close(struct fixture *f)
{
    test_reply_release(&f->reply);
    drill_provider_stop(f->provider, on_stopped, &f->stopped);
    assert_true(test_client_turn(&f->client, &f->stopped));
    test_client_close(&f->client);
}

/* What the four ask with: the words are the user's last message, `said` what was answered of it. */
static void make_body(enum drill_api api, bool is_stream, const char *words, const char *said, char *out,
                      size_t size)
{
    char more[256] = "";
    if (api == DRILL_GEMINI) {
        if (said)
            snprintf(more, sizeof more, ",{\"role\":\"model\",\"parts\":[{\"text\":\"%s\"}]}", said);
        snprintf(out, size, "{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"%s\"}]}%s]}", words,
                 more);
        return;
    }
    if (said)
        snprintf(more, sizeof more,
                 ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"%s\"}]}", said);
    snprintf(out, size,
             "{\"model\":\"m\",\"max_tokens\":9,\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":"
             "\"old\"},"
             "{\"role\":\"user\",\"content\":\"%s\"}%s]}",
             is_stream ? "true" : "false", words, more);
}

static const char *path_of(enum drill_api api, bool is_stream)
{
    if (api == DRILL_GEMINI)
        return is_stream ? "/models/m:streamGenerateContent" : "/models/m:generateContent";
    return api == DRILL_ANTHROPIC ? "/messages" : "/chat/completions";
}

static void ask(struct fixture *f, enum drill_api api, const char *fault, bool is_stream, const char *words,
                const char *said, const char *key)
{
    char base[DRILL_URL_MAX], path[256], body[1024];
    size_t index;
    unsigned port = 0;
    (void)drill_fault_find(fault, &index);
    drill_provider_url(f->provider, api, index, base);
    const char *rest = strchr(strstr(base, "//") + 2, '/');
    port = (unsigned)strtoul(strchr(strstr(base, "//"), ':') + 1, NULL, 10);
    snprintf(path, sizeof path, "%s%s", rest, path_of(api, is_stream));
    make_body(api, is_stream, words, said, body, sizeof body);
    struct http_header headers[] = {{"x-api-key", key ? key : drill_provider_key(f->provider)}};
    struct http_call_params params = {.method = "POST",
                                      .headers = headers,
                                      .header_count = 1,
                                      .body = body,
                                      .body_len = strlen(body),
                                      .head_timeout_ms = SHORT_MS,
                                      .silence_timeout_ms = SHORT_MS,
                                      .body_bytes_max = (size_t)1 << 18};
    test_reply_release(&f->reply);
    test_reply_init(&f->reply, &f->client);
    test_call(&f->reply, (uint16_t)port, path, &params);
}

/* ---- Nothing wrong */

static void each_says_back_what_it_is_told(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f);
    for (int api = 0; api < DRILL_API_COUNT; api++)
        for (int stream = 0; stream < 2; stream++) {
            ask(&f, (enum drill_api)api, "ok", stream, "one two", NULL, NULL);
            assert_int_equal(f.reply.how, HTTP_CALL_WHOLE);
            assert_int_equal(f.reply.status, 200);
            assert_non_null(strstr(f.reply.body, stream ? "\"one\"" : "\"one two\""));
            if (stream)
                assert_non_null(strstr(f.reply.body, "\" two\""));
            assert_null(strstr(f.reply.body, "old"));
        }
    fixture_close(&f);
}

static void an_answer_is_continued(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f);
    for (int api = 0; api < DRILL_API_COUNT; api++) {
        ask(&f, (enum drill_api)api, "ok", false, "one two", "one", NULL);
        assert_non_null(strstr(f.reply.body, "\" two\""));
        ask(&f, (enum drill_api)api, "ok", false, "one two", "uno", NULL);
        assert_non_null(strstr(f.reply.body, "not how this answer began"));
    }
    fixture_close(&f);
}

static void whole_replies_are_json(void **state)
{
    (void)state;
    struct fixture f;
    struct arena arena;
    struct json *value;
    arena_init(&arena, 1 << 20);
    fixture_open(&f);
    for (int api = 0; api < DRILL_API_COUNT; api++) {
        ask(&f, (enum drill_api)api, "ok", false, "a \\\"b\\\" \\n c", NULL, NULL);
        assert_int_equal(json_parse(&arena, f.reply.body, f.reply.body_len, &value, NULL), PH_OK);
        for (size_t i = 0; i < drill_fault_count; i++) {
            if (drill_fault_act(i) != ACT_REFUSE)
                continue;
            ask(&f, (enum drill_api)api, drill_faults[i].name, true, "x", NULL, NULL);
            assert_int_equal(json_parse(&arena, f.reply.body, f.reply.body_len, &value, NULL), PH_OK);
            assert_non_null(json_get(json_get(value, "error"), "message"));
            assert_in_range(f.reply.status, 400, 599);
        }
    }
    fixture_close(&f);
    arena_release(&arena);
}

static void another_key_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f);
    ask(&f, DRILL_OPENAI, "ok", false, "one", NULL, "sk-drill-no");
    assert_int_equal(f.reply.status, 401);
    ask(&f, DRILL_OPENAI, "ok", false, "one", NULL, "");
    assert_int_equal(f.reply.status, 401);
    assert_null(strstr(f.reply.body, drill_provider_key(f.provider)));
    fixture_close(&f);
}

static void what_is_no_request_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f);
    struct http_header headers[] = {{"x-api-key", drill_provider_key(f.provider)}};
    struct http_call_params params = {
        .method = "POST", .headers = headers, .header_count = 1, .body = "{", .body_len = 1};
    static const struct {
        const char *path;
        int status;
    } rows[] = {{"/openai/ok/chat/completions", 400},
                {"/openai/ok/elsewhere", 400},
                {"/openai/none/x", 404},
                {"/nobody/ok/x", 404},
                {"/openai", 404},
                {"/", 404}};
    char base[DRILL_URL_MAX];
    drill_provider_url(f.provider, DRILL_OPENAI, drill_fault_count, base);
    uint16_t port = (uint16_t)strtoul(strrchr(base, ':') + 1, NULL, 10);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        test_reply_release(&f.reply);
        test_reply_init(&f.reply, &f.client);
        test_call(&f.reply, port, rows[i].path, &params);
        assert_int_equal(f.reply.status, rows[i].status);
    }
    fixture_close(&f);
}

/* ---- Faults */

static void faults_are_what_they_are_called(void **state)
{
    (void)state;
    static const struct row {
        const char *fault;
        int status;
        bool is_stream;
        enum http_call_end how;
        const char *has;     /* in the body; NULL: nothing particular */
        const char *has_not; /* likewise */
    } rows[] = {
        {"reset", 0, true, HTTP_CALL_CUT, NULL, NULL},
        {"hang", 0, true, HTTP_CALL_TIMEOUT_HEAD, NULL, NULL},
        {"stall", 200, true, HTTP_CALL_TIMEOUT_SILENCE, "\" c\"", "\" d\""},
        {"stall", 200, false, HTTP_CALL_TIMEOUT_SILENCE, "{", "}}"},
        {"cut", 200, true, HTTP_CALL_CUT, "\" c\"", "\" d\""},
        {"cut", 200, false, HTTP_CALL_CUT, "{", "}}"},
        {"half-json", 200, true, HTTP_CALL_WHOLE, "choi\n", "[DONE]"},
        {"half-json", 200, false, HTTP_CALL_WHOLE, "{", "}}"},
        {"error", 200, true, HTTP_CALL_WHOLE, "\"error\":", "[DONE]"},
        {"no-finish", 200, true, HTTP_CALL_WHOLE, "\" c\"", "stop"},
        {"502-html", 502, true, HTTP_CALL_WHOLE, "<html>", NULL},
        {"wrong-type", 200, true, HTTP_CALL_WHOLE, "<!doctype", NULL},
        {"200-error", 200, true, HTTP_CALL_WHOLE, "\"error\":", NULL},
        {"empty", 200, true, HTTP_CALL_WHOLE, NULL, "{"},
        {"endless", 200, true, HTTP_CALL_TOO_LARGE, "xxxx", NULL},
        {"endless", 200, false, HTTP_CALL_TOO_LARGE, "    ", NULL},
        {"401", 401, true, HTTP_CALL_WHOLE, DRILL_KEY_PREFIX, NULL},
        {"429-retry", 429, true, HTTP_CALL_WHOLE, "\"error\":", NULL},
    };
    struct fixture f;
    fixture_open(&f);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        ask(&f, DRILL_OPENAI, row->fault, row->is_stream, "a b c d e f", NULL, NULL);
        if (f.reply.how != row->how || f.reply.status != row->status)
            fail_msg("%s: status %d, end %d: %s", row->fault, f.reply.status, (int)f.reply.how,
                     f.reply.message);
        if (row->has && !strstr(f.reply.body, row->has))
            fail_msg("%s: \"%s\" is not in %s", row->fault, row->has, f.reply.body);
        if (row->has_not && f.reply.body && strstr(f.reply.body, row->has_not))
            fail_msg("%s: \"%s\" is in %s", row->fault, row->has_not, f.reply.body);
    }
    fixture_close(&f);
}

static void a_wait_is_said_as_each_says_it(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f);
    for (int api = 0; api < DRILL_API_COUNT; api++) {
        ask(&f, (enum drill_api)api, "429-retry", false, "x", NULL, NULL);
        bool in_head = strstr(f.reply.head, "retry-after=1") != NULL;
        assert_int_equal(in_head, api != DRILL_GEMINI);
        assert_int_equal(strstr(f.reply.body, "\"retryDelay\":\"1s\"") != NULL, api == DRILL_GEMINI);
    }
    fixture_close(&f);
}

static void nobody_is_where_nobody_shall_be(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f);
    ask(&f, DRILL_OPENAI, "refused", true, "x", NULL, NULL);
    assert_int_equal(f.reply.how, HTTP_CALL_NO_CONNECTION);
    char url[DRILL_URL_MAX];
    size_t index;
    assert_true(drill_fault_find("tls", &index));
    drill_provider_url(f.provider, DRILL_GEMINI, index, url);
    assert_int_equal(strncmp(url, "https://127.0.0.1:", 18), 0);
    assert_true(drill_fault_find("dns", &index));
    drill_provider_url(f.provider, DRILL_GEMINI, index, url);
    assert_non_null(strstr(url, ".invalid:"));
    fixture_close(&f);
}

static void stopping_cuts_what_is_held(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f);
    ask(&f, DRILL_ANTHROPIC, "stall", true, "a b c d", NULL, NULL);
    assert_int_equal(drill_provider_requests(f.provider), 1);
    fixture_close(&f); /* it asserts that the end comes */
}

/* Who is gone is never told to wait, and takes whatever is written. */
static void an_endless_body_ends_with_its_client(void **state)
{
    (void)state;
    struct fixture f;
    char base[DRILL_URL_MAX], request[512];
    static const char body[] = "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    size_t index;
    fixture_open(&f);
    assert_true(drill_fault_find("endless", &index));
    drill_provider_url(f.provider, DRILL_OPENAI, index, base);
    uint16_t port = (uint16_t)strtoul(strrchr(base, ':') + 1, NULL, 10);
    snprintf(request, sizeof request,
             "POST /openai/endless/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: %s\r\n"
             "content-length: %zu\r\n\r\n%s",
             drill_provider_key(f.provider), sizeof body - 1, body);
    struct linger reset = {1, 0};
    int fd = test_connect(port);
    assert_true(fd >= 0 && test_send_text(fd, request));
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(fd);
    ask(&f, DRILL_OPENAI, "ok", false, "one", NULL, NULL);
    assert_int_equal(f.reply.status, 200);
    assert_int_equal(drill_provider_requests(f.provider), 2);
    fixture_close(&f);
}

static void the_table_is_sound(void **state)
{
    (void)state;
    struct buf body;
    size_t index;
    enum drill_api api;
    buf_init(&body, 4096);
    for (size_t i = 0; i < drill_fault_count; i++) {
        const struct drill_fault *fault = &drill_faults[i];
        assert_true(drill_fault_find(fault->name, &index) && index == i);
        assert_true(fault->statuses[0] >= 400 && fault->statuses[DRILL_STATUSES_MAX - 1] == 0);
        if (drill_fault_act(i) != ACT_REFUSE)
            continue;
        buf_clear(&body); /* its own words, not those of the table's last row */
        (void)drill_words_error(DRILL_OPENAI, fault->name, "", &body);
        assert_null(strstr(body.data, "cannot be read"));
    }
    buf_release(&body);
    assert_false(drill_fault_find("ok", &index));
    assert_false(drill_api_find("cohere", &api));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_says_back_what_it_is_told),
        cmocka_unit_test(an_answer_is_continued),
        cmocka_unit_test(whole_replies_are_json),
        cmocka_unit_test(another_key_is_refused),
        cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(faults_are_what_they_are_called),
        cmocka_unit_test(a_wait_is_said_as_each_says_it),
        cmocka_unit_test(nobody_is_where_nobody_shall_be),
        cmocka_unit_test(stopping_cuts_what_is_held),
        cmocka_unit_test(an_endless_body_ends_with_its_client),
        cmocka_unit_test(the_table_is_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
