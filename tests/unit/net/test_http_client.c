/* The HTTP client against the server of net: requests, reuse, limits, pausing, cancelling, hanging up. */
#include "test_support.h"

#include "base/limits.h"
#include "client_support.h"

struct fixture {
    struct test_server server;
    struct test_client client;
};

static int setup(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    assert_non_null(f);
    test_server_start(&f->server, NULL);
    test_client_open(&f->client, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    test_client_close(&f->client);
    test_server_stop(&f->server);
    free(f);
    return 0;
}

static struct http_client_stats stats_of(struct fixture *f)
{
    struct http_client_stats stats;
    http_client_stats(f->client.http, &stats);
    return stats;
}

static void gets_a_reply(void **state)
{
    struct fixture *f = *state;
    struct test_reply reply;
    test_reply_init(&reply, &f->client);
    test_call(&reply, f->server.port, "/hello", NULL);
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body, "hello");
    assert_string_equal(reply.events, "HBE");
    assert_non_null(strstr(reply.head, "content-type=text/plain\n"));
    assert_non_null(strstr(reply.head, "content-length=5\n"));
    test_reply_release(&reply);
}

static void say_so(struct test_reply *reply, char event)
{
    struct fixture *f = reply->ud;
    f->server.client_has_it = f->server.client_has_it || event == 'B';
}

/* The reply is there before its handler is done, and the connection carries the next one. */
static void a_reply_sent_early_is_not_held_up(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        struct test_reply reply;
        test_reply_init(&reply, &f->client);
        reply.on_event = say_so;
        reply.ud = f;
        uint64_t began = test_now_ms();
        test_call(&reply, f->server.port, i ? "/hello" : "/two-steps", NULL);
        assert_int_equal(reply.how, HTTP_CALL_WHOLE);
        assert_string_equal(reply.body, i ? "hello" : "first");
        assert_true(test_now_ms() - began < TEST_DEADLINE_MS); /* else the handler gave up */
        test_reply_release(&reply);
    }
    assert_int_equal(stats_of(f).connects_total, 1);
}

static void sends_method_headers_and_body(void **state)
{
    struct fixture *f = *state;
    struct test_peer peer;
    static const struct test_script script[] = {{"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", THEN_CLOSE}};
    test_peer_start(&peer, script, 1);
    struct http_header headers[] = {
        {"authorization", "Bearer x"}, {"x-empty", ""}, {"content-length", "999"}};
    struct http_call_params params = {
        .method = "POST", .headers = headers, .header_count = 3, .body = "{\"a\":1}", .body_len = 7};
    struct test_reply reply;
    test_reply_init(&reply, &f->client);
    test_call(&reply, peer.port, "/v1/x?y=z", &params);
    test_peer_stop(&peer);
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_string_equal(reply.events, "HE");
    assert_non_null(strstr(peer.request, "POST /v1/x?y=z HTTP/1.1\r\n"));
    assert_non_null(strstr(peer.request, "\r\nauthorization: Bearer x\r\n"));
    assert_non_null(strstr(peer.request, "\r\nx-empty:\r\n"));
    assert_non_null(strstr(peer.request, "\r\ncontent-length: 7\r\n"));
    assert_null(strstr(peer.request, "999"));
    assert_null(strstr(peer.request, "Expect"));
    assert_null(strstr(peer.request, "urlencoded"));
    assert_non_null(strstr(peer.request, "\r\n\r\n{\"a\":1}"));
    test_reply_release(&reply);
}

/* A handle that has sent one method sends another next. */
static void methods_follow_each_other(void **state)
{
    static const struct {
        const char *method, *body, *reply;
    } cases[] = {
        {"POST", "abc", "abc"}, {"GET", "", ""},    {"HEAD", "", NULL},
        {"POST", "", ""},       {"DELETE", "", ""}, {"PUT", "defg", "defg"},
        {"GET", "hi", "hi"},    {"HEAD", "", NULL}, {"POST", "z", "z"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[60];
        struct http_call_params params = {
            .method = cases[i].method, .body = cases[i].body, .body_len = strlen(cases[i].body)};
        struct test_reply reply;
        test_reply_init(&reply, &f->client);
        test_call(&reply, f->server.port, "/echo", &params);
        assert_int_equal(reply.how, HTTP_CALL_WHOLE);
        snprintf(want, sizeof want, "x-method=%s\n", cases[i].method);
        assert_non_null(strstr(reply.head, want));
        assert_string_equal(reply.body ? reply.body : "", cases[i].reply ? cases[i].reply : "");
        test_reply_release(&reply);
    }
    assert_int_equal(stats_of(f).connects_total, 1);
}

static void big_bodies_travel_both_ways(void **state)
{
    struct fixture *f = *state;
    size_t len = 5000000;
    char *body = malloc(len);
    assert_non_null(body);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)(i * 7 + i / 1000);
    struct http_call_params params = {.method = "POST", .body = body, .body_len = len};
    struct test_reply reply;
    test_reply_init(&reply, &f->client);
    test_call(&reply, f->server.port, "/echo", &params);
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_int_equal(reply.body_len, len);
    assert_memory_equal(reply.body, body, len);
    test_reply_release(&reply);
    free(body);
}

static void a_connection_is_kept_and_used_again(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 50; i++) {
        struct test_reply reply;
        test_reply_init(&reply, &f->client);
        test_call(&reply, f->server.port, i % 2 ? "/hello" : "/stream", NULL);
        assert_int_equal(reply.how, HTTP_CALL_WHOLE);
        assert_string_equal(reply.body, i % 2 ? "hello" : "onetwothree");
        test_reply_release(&reply);
    }
    struct http_client_stats stats = stats_of(f);
    assert_int_equal(stats.calls, 0);
    assert_int_equal(stats.calls_total, 50);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(stats.connects_total, 1);
}

static void many_calls_at_once_and_all_connections_are_kept(void **state)
{
    enum { N = 200 };
    struct fixture *f = *state;
    static struct test_reply replies[N];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            test_reply_init(&replies[i], &f->client);
            assert_int_equal(test_call_start(&replies[i], f->server.port, "/hold", NULL), PH_OK);
        }
        uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
        while (f->server.held_count < N && test_now_ms() < until)
            test_client_turn_for(&f->client, 2);
        assert_int_equal(stats_of(f).connections, N);
        test_server_release(&f->server);
        for (int i = 0; i < N; i++) {
            assert_true(test_client_turn(&f->client, &replies[i].ended));
            assert_int_equal(replies[i].how, HTTP_CALL_WHOLE);
            assert_string_equal(replies[i].body, "released");
            test_reply_release(&replies[i]);
        }
    }
    assert_int_equal(stats_of(f).connects_total, N);
}

static void calls_beyond_the_connections_wait(void **state)
{
    enum { N = 7 };
    (void)state;
    struct test_server server;
    struct test_client client;
    struct http_client_params params = {.connections_max = 2, .idle_connections_max = 2};
    struct http_client_stats stats;
    struct test_reply replies[N];
    test_server_start(&server, NULL);
    test_client_open(&client, &params);
    for (int i = 0; i < N; i++) {
        test_reply_init(&replies[i], &client);
        assert_int_equal(test_call_start(&replies[i], server.port, "/later", NULL), PH_OK);
    }
    for (int i = 0; i < N; i++) {
        assert_true(test_client_turn(&client, &replies[i].ended));
        assert_string_equal(replies[i].body, "late");
        test_reply_release(&replies[i]);
    }
    http_client_stats(client.http, &stats);
    assert_int_equal(stats.connects_total, 2);
    test_client_close(&client);
    test_server_stop(&server);
}

static void idle_connections_beyond_their_limit_are_closed(void **state)
{
    enum { N = 5 };
    (void)state;
    struct test_server server;
    struct test_client client;
    struct http_client_params params = {.idle_connections_max = 2};
    struct http_client_stats stats;
    struct test_reply replies[N];
    test_server_start(&server, NULL);
    test_client_open(&client, &params);
    for (int i = 0; i < N; i++) {
        test_reply_init(&replies[i], &client);
        assert_int_equal(test_call_start(&replies[i], server.port, "/later", NULL), PH_OK);
    }
    for (int i = 0; i < N; i++) {
        assert_true(test_client_turn(&client, &replies[i].ended));
        test_reply_release(&replies[i]);
    }
    http_client_stats(client.http, &stats);
    assert_int_equal(stats.connects_total, N);
    assert_true(stats.connections <= 3); /* the last one to end counts as running */
    test_client_close(&client);
    test_server_stop(&server);
}

/* ---- What a sink may do ---- */

static void start_another(struct test_reply *reply, char event)
{
    struct test_reply *next = reply->ud;
    if (event == 'E' && next)
        assert_int_equal(test_call_start(next, *(uint16_t *)next->ud, "/hello", NULL), PH_OK);
}

static void a_sink_starts_the_next_call(void **state)
{
    struct fixture *f = *state;
    struct test_reply first, second;
    test_reply_init(&first, &f->client);
    test_reply_init(&second, &f->client);
    first.on_event = start_another;
    first.ud = &second;
    second.ud = &f->server.port;
    test_call(&first, f->server.port, "/hello", NULL);
    assert_true(test_client_turn(&f->client, &second.ended));
    assert_string_equal(second.body, "hello");
    assert_int_equal(stats_of(f).connects_total, 1);
    test_reply_release(&first);
    test_reply_release(&second);
}

static void cancel_on(struct test_reply *reply, char event)
{
    if (event == *(const char *)reply->ud) {
        http_call_cancel(reply->call);
        reply->ended = true;
    }
}

static void a_sink_cancels_its_own_call(void **state)
{
    struct fixture *f = *state;
    for (const char *event = "HB"; *event; event++) {
        struct test_reply reply;
        test_reply_init(&reply, &f->client);
        reply.on_event = cancel_on;
        reply.ud = (void *)(uintptr_t)event;
        test_call(&reply, f->server.port, "/flood", NULL);
        test_client_turn_for(&f->client, 5);
        assert_int_equal(stats_of(f).calls, 0);
        assert_string_equal(reply.events, *event == 'H' ? "H" : "HB");
        test_reply_release(&reply);
    }
    assert_int_equal(stats_of(f).connections, 0);
}

static void cancel_the_other(struct test_reply *reply, char event)
{
    struct test_reply *other = reply->ud;
    if (event == 'H' && !other->ended) {
        http_call_cancel(other->call);
        other->ended = reply->ended = true;
    }
}

static void a_sink_cancels_another_call(void **state)
{
    struct fixture *f = *state;
    struct test_reply a, b;
    test_reply_init(&a, &f->client);
    test_reply_init(&b, &f->client);
    a.on_event = b.on_event = cancel_the_other;
    a.ud = &b;
    b.ud = &a;
    assert_int_equal(test_call_start(&a, f->server.port, "/hello", NULL), PH_OK);
    assert_int_equal(test_call_start(&b, f->server.port, "/hello", NULL), PH_OK);
    assert_true(test_client_turn(&f->client, &a.ended));
    test_client_turn_for(&f->client, 5);
    assert_true((*a.events == 'H') != (*b.events == 'H'));
    assert_int_equal(stats_of(f).calls, 0);
    test_reply_release(&a);
    test_reply_release(&b);
}

static void a_cancelled_call_is_noticed_by_the_server(void **state)
{
    struct fixture *f = *state;
    struct test_reply reply;
    test_reply_init(&reply, &f->client);
    assert_int_equal(test_call_start(&reply, f->server.port, "/hold", NULL), PH_OK);
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (f->server.held_count < 1 && test_now_ms() < until)
        test_client_turn_for(&f->client, 1);
    http_call_cancel(reply.call);
    assert_true(test_wait_count(&f->server.gone_count, 1));
    assert_string_equal(reply.events, "");
    assert_int_equal(stats_of(f).connections, 0);
}

static void a_call_may_be_cancelled_before_anything_happened(void **state)
{
    struct fixture *f = *state;
    struct test_reply reply;
    test_reply_init(&reply, &f->client);
    assert_int_equal(test_call_start(&reply, f->server.port, "/hello", NULL), PH_OK);
    http_call_cancel(reply.call);
    test_client_turn_for(&f->client, 5);
    assert_string_equal(reply.events, "");
    assert_int_equal(stats_of(f).calls, 0);
}

/* ---- Pausing ---- */

static void pausing_holds_the_sender_back(void **state)
{
    struct fixture *f = *state;
    struct test_reply reply;
    test_reply_init(&reply, &f->client);
    reply.pauses = true;
    struct http_call_params params = {.silence_timeout_ms = 100};
    assert_int_equal(test_call_start(&reply, f->server.port, "/flood", &params), PH_OK);
    assert_true(test_wait_count(&f->server.handled_count, 0));
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (f->server.stall_count < 1 && test_now_ms() < until)
        test_client_turn_for(&f->client, 5);
    test_client_turn_for(&f->client, 150); /* longer than the silence that would end it */
    assert_false(reply.ended);
    size_t before = reply.body_len;
    assert_true(before > 0 && before < 1000000);
    for (int i = 0; i < 10; i++) { /* one piece a resume, and never inside it */
        http_call_resume(reply.call);
        assert_int_equal(reply.body_len, before);
        until = test_now_ms() + TEST_DEADLINE_MS;
        while (reply.body_len == before && test_now_ms() < until)
            test_client_turn_for(&f->client, 1);
        assert_true(reply.body_len > before && reply.body_len <= before + HTTP_CALL_READ_BYTES);
        before = reply.body_len;
    }
    reply.pauses = false;
    http_call_resume(reply.call);
    assert_true(test_client_turn(&f->client, &reply.ended));
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_int_equal(reply.body_len, FLOOD_BYTES);
    test_reply_release(&reply);
}

/* The last piece pauses; the end waits for the resume. */
static void the_end_waits_for_a_resume(void **state)
{
    struct fixture *f = *state;
    struct test_reply reply;
    test_reply_init(&reply, &f->client);
    reply.pauses = true;
    assert_int_equal(test_call_start(&reply, f->server.port, "/hello", NULL), PH_OK);
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (!reply.body && test_now_ms() < until)
        test_client_turn_for(&f->client, 1);
    test_client_turn_for(&f->client, 20);
    assert_string_equal(reply.events, "HB");
    http_call_resume(reply.call);
    assert_string_equal(reply.events, "HB");
    assert_true(test_client_turn(&f->client, &reply.ended));
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_string_equal(reply.body, "hello");
    test_reply_release(&reply);
}

static void only_the_whole_limit_runs_while_paused(void **state)
{
    struct fixture *f = *state;
    struct test_reply reply;
    test_reply_init(&reply, &f->client);
    reply.pauses = true;
    struct http_call_params params = {.silence_timeout_ms = 40, .total_timeout_ms = 150};
    uint64_t began = test_now_ms();
    test_call(&reply, f->server.port, "/flood", &params);
    assert_int_equal(reply.how, HTTP_CALL_TIMEOUT_TOTAL);
    assert_true(test_now_ms() - began >= 140);
    test_reply_release(&reply);
}

/* ---- Hanging up ---- */

static void hang_up_on_body(struct test_reply *reply, char event)
{
    if (event == 'B' && !strchr(reply->events, 'E') && strlen(reply->events) == 2)
        http_call_hang_up(reply->call, 5000);
}

static void hanging_up_tells_the_server(void **state)
{
    struct fixture *f = *state;
    struct test_reply reply;
    test_reply_init(&reply, &f->client);
    reply.on_event = hang_up_on_body;
    test_call(&reply, f->server.port, "/held-stream", NULL);
    assert_int_equal(reply.how, HTTP_CALL_CUT);
    assert_string_equal(reply.body, "begun");
    assert_true(test_wait_count(&f->server.gone_count, 1));
    assert_int_equal(stats_of(f).connections, 0);
    test_reply_release(&reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gets_a_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reply_sent_early_is_not_held_up, setup, teardown),
        cmocka_unit_test_setup_teardown(sends_method_headers_and_body, setup, teardown),
        cmocka_unit_test_setup_teardown(methods_follow_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(big_bodies_travel_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(a_connection_is_kept_and_used_again, setup, teardown),
        cmocka_unit_test_setup_teardown(many_calls_at_once_and_all_connections_are_kept, setup, teardown),
        cmocka_unit_test(calls_beyond_the_connections_wait),
        cmocka_unit_test(idle_connections_beyond_their_limit_are_closed),
        cmocka_unit_test_setup_teardown(a_sink_starts_the_next_call, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sink_cancels_its_own_call, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sink_cancels_another_call, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_call_is_noticed_by_the_server, setup, teardown),
        cmocka_unit_test_setup_teardown(a_call_may_be_cancelled_before_anything_happened, setup, teardown),
        cmocka_unit_test_setup_teardown(pausing_holds_the_sender_back, setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_waits_for_a_resume, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_whole_limit_runs_while_paused, setup, teardown),
        cmocka_unit_test_setup_teardown(hanging_up_tells_the_server, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
