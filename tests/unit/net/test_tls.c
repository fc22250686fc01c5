/* TLS: the server's edge and the client against each other and against OpenSSL's own client. */
#include "test_support.h"

#include <sys/socket.h>

#include "client_support.h"
#include "tls_support.h"

struct fixture {
    char dir[64], cert[80], key[80], cert2[80], key2[80];
    struct test_server server;
};

static void name_files(struct fixture *f)
{
    memcpy(f->dir, "/tmp/pharos-tls-XXXXXX", sizeof "/tmp/pharos-tls-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->cert, sizeof f->cert, "%s/cert.pem", f->dir);
    snprintf(f->key, sizeof f->key, "%s/key.pem", f->dir);
    snprintf(f->cert2, sizeof f->cert2, "%s/cert2.pem", f->dir);
    snprintf(f->key2, sizeof f->key2, "%s/key2.pem", f->dir);
}

static void remove_files(struct fixture *f)
{
    unlink(f->cert);
    unlink(f->key);
    unlink(f->cert2);
    unlink(f->key2);
    assert_int_equal(rmdir(f->dir), 0);
}

static int setup_with(void **state, const struct http_limits *limits)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    name_files(f);
    test_make_certificate(f->cert, f->key, "IP:127.0.0.1,DNS:localhost", 2);
    test_server_start_tls(&f->server, limits, f->cert, f->key);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, NULL);
}

static int setup_hasty(void **state)
{
    struct http_limits limits;
    http_limits_default(&limits);
    limits.header_deadline_ms = 100;
    limits.idle_deadline_ms = 300;
    return setup_with(state, &limits);
}

static int setup_single(void **state)
{
    struct http_limits limits;
    http_limits_default(&limits);
    limits.connections_max = 1;
    return setup_with(state, &limits);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    test_server_stop(&f->server);
    remove_files(f);
    free(f);
    return 0;
}

static void call(struct test_client *client, struct test_reply *reply, const char *host, uint16_t port,
                 const char *path, struct http_call_params *params)
{
    char url[200];
    snprintf(url, sizeof url, "https://%s:%u%s", host, (unsigned)port, path);
    params->url = url;
    test_reply_init(reply, client);
    test_call(reply, port, path, params);
}

/* ---- Our client ---- */

static void our_client_and_our_server_understand_each_other(void **state)
{
    struct fixture *f = *state;
    struct http_client_params client_params = {.ca_file = f->cert};
    struct http_call_params params = {0};
    struct test_client client;
    struct test_reply reply;
    struct http_client_stats stats;
    test_client_open(&client, &client_params);
    for (int i = 0; i < 5; i++) {
        call(&client, &reply, "127.0.0.1", f->server.port, "/stream", &params);
        assert_string_equal(reply.message, "");
        assert_string_equal(reply.body, "onetwothree");
        test_reply_release(&reply);
    }
    http_client_stats(client.http, &stats);
    assert_int_equal(stats.connects_total, 1);
    call(&client, &reply, "localhost", f->server.port, "/later", &params);
    assert_string_equal(reply.body, "late");
    test_reply_release(&reply);
    test_client_close(&client);
}

static void a_client_for_plain_http_says_so(void **state)
{
    struct fixture *f = *state;
    struct http_client_params client_params = {.plain_only = true};
    struct http_call_params params = {0};
    struct test_client client;
    struct test_reply reply;
    test_client_open(&client, &client_params);
    call(&client, &reply, "127.0.0.1", f->server.port, "/stream", &params);
    assert_int_equal(reply.how, HTTP_CALL_TLS);
    assert_non_null(strstr(reply.message, "http:// only"));
    test_reply_release(&reply);
    test_client_close(&client);
}

static void big_bodies_travel_both_ways(void **state)
{
    struct fixture *f = *state;
    struct http_client_params client_params = {.ca_file = f->cert};
    size_t len = 3000000;
    char *body = malloc(len);
    assert_non_null(body);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)(i * 7 + i / 1000);
    struct http_call_params params = {.method = "POST", .body = body, .body_len = len};
    struct test_client client;
    struct test_reply reply;
    test_client_open(&client, &client_params);
    call(&client, &reply, "127.0.0.1", f->server.port, "/echo", &params);
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_int_equal(reply.body_len, len);
    assert_memory_equal(reply.body, body, len);
    test_reply_release(&reply);
    params = (struct http_call_params){0};
    call(&client, &reply, "127.0.0.1", f->server.port, "/flood", &params); /* under back-pressure */
    assert_int_equal(reply.how, HTTP_CALL_WHOLE);
    assert_int_equal(reply.body_len, FLOOD_BYTES);
    test_reply_release(&reply);
    test_client_close(&client);
    free(body);
}

static void an_aborted_stream_is_cut(void **state)
{
    struct fixture *f = *state;
    struct http_client_params client_params = {.ca_file = f->cert};
    struct http_call_params params = {0};
    struct test_client client;
    struct test_reply reply;
    test_client_open(&client, &client_params);
    call(&client, &reply, "127.0.0.1", f->server.port, "/abort", &params);
    assert_int_equal(reply.how, HTTP_CALL_CUT);
    assert_string_equal(reply.body, "partial");
    test_reply_release(&reply);
    test_client_close(&client);
}

static void hang_up(struct test_reply *reply, char event)
{
    if (event == 'B')
        http_call_hang_up(reply->call, 5000);
}

static void hanging_up_reaches_the_server(void **state)
{
    struct fixture *f = *state;
    struct http_client_params client_params = {.ca_file = f->cert};
    char url[100];
    struct http_call_params params = {.url = url};
    struct test_client client;
    struct test_reply reply;
    snprintf(url, sizeof url, "https://127.0.0.1:%u/held-stream", (unsigned)f->server.port);
    test_client_open(&client, &client_params);
    test_reply_init(&reply, &client);
    reply.on_event = hang_up;
    test_call(&reply, 0, "/", &params);
    assert_int_equal(reply.how, HTTP_CALL_CUT);
    assert_string_equal(reply.body, "begun");
    assert_true(test_wait_count(&f->server.gone_count, 1));
    test_reply_release(&reply);
    test_client_close(&client);
}

static void certificates_are_checked(void **state)
{
    struct fixture *f = *state;
    struct test_server other;
    struct test_client trusting, plain;
    struct test_reply reply;
    struct http_client_params client_params = {.ca_file = f->cert};
    struct http_call_params params = {0};
    static const struct {
        const char *name;
        int days;
    } bad[] = {{"DNS:elsewhere.example", 2}, {"IP:127.0.0.1", -1}};
    test_client_open(&plain, NULL);
    call(&plain, &reply, "127.0.0.1", f->server.port, "/hello", &params);
    assert_int_equal(reply.how, HTTP_CALL_TLS);
    assert_true(*reply.message != 0);
    assert_int_equal(f->server.handled_count, 0);
    test_client_close(&plain);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_make_certificate(f->cert2, f->key2, bad[i].name, bad[i].days);
        test_server_start_tls(&other, NULL, f->cert2, f->key2);
        client_params.ca_file = f->cert2;
        test_client_open(&trusting, &client_params);
        call(&trusting, &reply, "127.0.0.1", other.port, "/hello", &params);
        assert_int_equal(reply.how, HTTP_CALL_TLS);
        assert_int_equal(other.handled_count, 0);
        test_client_close(&trusting);
        test_server_stop(&other);
    }
}

/* ---- OpenSSL's client ---- */

static void a_clean_end_says_so(void **state)
{
    struct fixture *f = *state;
    static const char close_request[] = "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    char out[4000];
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        struct test_tls tls;
        assert_int_equal(test_tls_connect(&tls, f->server.port, versions[i], "http/1.1"), 1);
        assert_int_equal(SSL_version(tls.ssl), versions[i]);
        const unsigned char *protocol;
        unsigned protocol_len;
        SSL_get0_alpn_selected(tls.ssl, &protocol, &protocol_len);
        assert_int_equal(protocol_len, 8);
        assert_memory_equal(protocol, "http/1.1", 8);
        assert_true(SSL_write(tls.ssl, close_request, sizeof close_request - 1) > 0);
        assert_int_equal(test_tls_read(&tls, out, sizeof out), SSL_ERROR_ZERO_RETURN);
        assert_non_null(strstr(out, "\r\n\r\nhello"));
        test_tls_close(&tls);
    }
}

/* Byte by byte, and many requests in one record. */
static void records_may_be_cut_anyhow(void **state)
{
    struct fixture *f = *state;
    static const char hello[] = "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n";
    static const char last[] = "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    char *batch = malloc(64 * sizeof hello + sizeof last), *out = malloc(100000);
    assert_non_null(batch);
    assert_non_null(out);
    *batch = 0;
    size_t len = 0;
    for (int i = 0; i < 64; i++, len += sizeof hello - 1)
        memcpy(batch + len, hello, sizeof hello - 1);
    memcpy(batch + len, last, sizeof last);
    len += sizeof last - 1;
    struct test_tls tls;
    assert_int_equal(test_tls_connect(&tls, f->server.port, TLS1_3_VERSION, NULL), 1);
    for (size_t i = 0; i < sizeof hello - 1; i++)
        assert_int_equal(SSL_write(tls.ssl, hello + i, 1), 1);
    assert_true(SSL_write(tls.ssl, batch, (int)len) > 0);
    assert_int_equal(test_tls_read(&tls, out, 100000), SSL_ERROR_ZERO_RETURN);
    size_t replies = 0;
    for (const char *at = strstr(out, "\r\n\r\nhello"); at; at = strstr(at + 1, "\r\n\r\nhello"))
        replies++;
    assert_int_equal(replies, 66);
    test_tls_close(&tls);
    free(batch);
    free(out);
}

static void what_the_server_does_not_speak_is_refused(void **state)
{
    struct fixture *f = *state;
    struct test_tls tls;
    assert_int_not_equal(test_tls_connect(&tls, f->server.port, TLS1_1_VERSION, NULL), 1);
    test_tls_close(&tls);
    assert_int_not_equal(test_tls_connect(&tls, f->server.port, TLS1_3_VERSION, "h2"), 1);
    test_tls_close(&tls);
    assert_int_equal(test_tls_connect(&tls, f->server.port, TLS1_3_VERSION, NULL), 1);
    test_tls_close(&tls);
    assert_int_equal(f->server.handled_count, 0);
}

static void sessions_resume_by_ticket(void **state)
{
    struct fixture *f = *state;
    static const char request[] = "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    char out[4000];
    struct test_tls tls;
    assert_int_equal(test_tls_connect(&tls, f->server.port, TLS1_3_VERSION, NULL), 1);
    assert_true(SSL_write(tls.ssl, request, sizeof request - 1) > 0);
    assert_int_equal(test_tls_read(&tls, out, sizeof out), SSL_ERROR_ZERO_RETURN);
    SSL_SESSION *session = SSL_get1_session(tls.ssl);
    assert_true(SSL_SESSION_is_resumable(session));
    int fd = test_connect(f->server.port);
    SSL *again = SSL_new(tls.context);
    SSL_set_fd(again, fd);
    SSL_set_session(again, session);
    assert_int_equal(SSL_connect(again), 1);
    assert_true(SSL_session_reused(again));
    SSL_free(again);
    close(fd);
    SSL_SESSION_free(session);
    test_tls_close(&tls);
}

/* Noise instead of a handshake, in the middle of one, and instead of a record; then all is well for others. */
static void noise_ends_its_connection_only(void **state)
{
    struct fixture *f = *state;
    char out[4000];
    int end = 0;
    static const char *const noises[] = {"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n",
                                         "\x16\x03\x01\x00\x05hello", "\x15\x03\x01\x00\x02\x02\x28",
                                         "\xff\xff\xff\xff\xff\xff\xff\xff"};
    for (size_t i = 0; i < sizeof noises / sizeof *noises; i++) {
        int fd = test_connect(f->server.port);
        size_t len = i == 1 ? 10 : i == 2 ? 7 : strlen(noises[i]);
        assert_true(test_send(fd, noises[i], len));
        test_read(fd, out, sizeof out, NULL, &end);
        assert_int_not_equal(end, 0);
        close(fd);
    }
    struct test_tls tls;
    assert_int_equal(test_tls_connect(&tls, f->server.port, TLS1_3_VERSION, NULL), 1);
    assert_true(test_send(tls.fd, "\x17\x03\x03\x00\x20this is not sealed, not at all!!", 5 + 32));
    assert_int_equal(test_tls_read(&tls, out, sizeof out), SSL_ERROR_SSL); /* told by an alert */
    test_tls_close(&tls);
    assert_int_equal(test_tls_connect(&tls, f->server.port, TLS1_3_VERSION, NULL), 1);
    test_tls_close(&tls);
    assert_int_equal(f->server.handled_count, 0);
}

static void a_handshake_has_the_time_of_a_head(void **state)
{
    struct fixture *f = *state;
    char out[100];
    int end = 0, fd = test_connect(f->server.port);
    uint64_t began = test_now_ms();
    assert_true(test_send(fd, "\x16\x03\x01", 3));
    test_read(fd, out, sizeof out, NULL, &end);
    assert_int_not_equal(end, 0);
    assert_true(test_now_ms() - began >= 95);
    close(fd);
    /* ... and an open connection that of an idle one, after which it ends in order. */
    struct test_tls tls;
    began = test_now_ms();
    assert_int_equal(test_tls_connect(&tls, f->server.port, TLS1_3_VERSION, NULL), 1);
    assert_int_equal(test_tls_read(&tls, out, sizeof out), SSL_ERROR_ZERO_RETURN);
    assert_true(test_now_ms() - began >= 290);
    test_tls_close(&tls);
}

/* A head that does not end gets its 408 sealed. */
static void refusals_are_sealed(void **state)
{
    struct fixture *f = *state;
    char out[4000];
    struct test_tls tls;
    assert_int_equal(test_tls_connect(&tls, f->server.port, TLS1_3_VERSION, NULL), 1);
    assert_true(SSL_write(tls.ssl, "GET /hello HT", 13) > 0);
    assert_int_equal(test_tls_read(&tls, out, sizeof out), SSL_ERROR_ZERO_RETURN);
    assert_non_null(strstr(out, "HTTP/1.1 408 "));
    test_tls_close(&tls);
}

static void beyond_the_limit_there_is_no_handshake(void **state)
{
    struct fixture *f = *state;
    struct test_tls first, second;
    assert_int_equal(test_tls_connect(&first, f->server.port, TLS1_3_VERSION, NULL), 1);
    assert_int_not_equal(test_tls_connect(&second, f->server.port, TLS1_3_VERSION, NULL), 1);
    test_tls_close(&second);
    test_tls_close(&first);
}

/* ---- Files ---- */

static void write_text(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static void bad_files_are_named(void **state)
{
    (void)state;
    struct fixture f;
    struct net_loop *loop;
    name_files(&f);
    test_make_certificate(f.cert, f.key, "IP:127.0.0.1", 2);
    test_make_certificate(f.cert2, f.key2, "IP:127.0.0.1", 2);
    char junk[90];
    snprintf(junk, sizeof junk, "%s/junk.pem", f.dir);
    write_text(junk, "-----BEGIN CERTIFICATE-----\nnothing\n");
    const struct {
        const char *certificate, *key, *named;
    } cases[] = {{f.cert, NULL, "key"},
                 {NULL, f.key, "certificate"},
                 {"/no/such/cert.pem", f.key, "/no/such/cert.pem"},
                 {f.cert, "/no/such/key.pem", "/no/such/key.pem"},
                 {junk, f.key, junk},
                 {f.cert, junk, junk},
                 {f.key, f.key, f.key},
                 {f.cert, f.cert, f.cert},
                 {f.cert, f.key2, f.key2}};
    assert_int_equal(net_loop_create(&loop, NULL), PH_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_server *server = NULL;
        struct ph_err err = {0};
        struct http_server_params params = {.host = "127.0.0.1",
                                            .clock = clock_system(),
                                            .tls_certificate = cases[i].certificate,
                                            .tls_key = cases[i].key};
        http_limits_default(&params.limits);
        assert_int_equal(http_server_open(&server, loop, &params, &err), PH_ERR_ARG);
        assert_non_null(strstr(err.message, cases[i].named));
        assert_null(server);
    }
    net_loop_free(loop);

    struct test_client client;
    struct http_client *http = NULL;
    const char *const roots[] = {"/no/such/roots.pem", junk, f.key};
    test_client_open(&client, NULL);
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        struct ph_err err = {0};
        struct http_client_params params = {
            .loop = client.loop, .clock = clock_system(), .ca_file = roots[i]};
        assert_int_not_equal(http_client_open(&http, &params, &err), PH_OK);
        assert_non_null(strstr(err.message, roots[i]));
    }
    test_client_close(&client);
    unlink(junk);
    remove_files(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(our_client_and_our_server_understand_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(big_bodies_travel_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(an_aborted_stream_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(hanging_up_reaches_the_server, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_for_plain_http_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(certificates_are_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(a_clean_end_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(records_may_be_cut_anyhow, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_server_does_not_speak_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(sessions_resume_by_ticket, setup, teardown),
        cmocka_unit_test_setup_teardown(noise_ends_its_connection_only, setup, teardown),
        cmocka_unit_test_setup_teardown(a_handshake_has_the_time_of_a_head, setup_hasty, teardown),
        cmocka_unit_test_setup_teardown(refusals_are_sealed, setup_hasty, teardown),
        cmocka_unit_test_setup_teardown(beyond_the_limit_there_is_no_handshake, setup_single, teardown),
        cmocka_unit_test(bad_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
