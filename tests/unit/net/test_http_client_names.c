/* The HTTP client and names: a slow name server holds nothing up, proxies are asked where they should be. This
 * program has a getaddrinfo of its own, which curl finds before the system's. */
#include "test_support.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "client_support.h"

#define SLOW_MS 600

static atomic_size_t asked, answered;

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    (void)hints;
    asked++;
    if (name && strcmp(name, "slow.test") == 0)
        uv_sleep(SLOW_MS);
    answered++;
    if (!name || strcmp(name, "here.test") != 0)
        return EAI_NONAME;
    struct {
        struct addrinfo info;
        struct sockaddr_in address;
    } *found = calloc(1, sizeof *found);
    if (!found)
        return EAI_MEMORY;
    found->address.sin_family = AF_INET;
    found->address.sin_port = htons(service ? (uint16_t)strtoul(service, NULL, 10) : 0);
    found->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    found->info = (struct addrinfo){.ai_family = AF_INET,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_protocol = IPPROTO_TCP,
                                    .ai_addrlen = sizeof found->address,
                                    .ai_addr = (struct sockaddr *)&found->address};
    *out = &found->info;
    return 0;
}

void freeaddrinfo(struct addrinfo *info)
{
    free(info);
}

static void start(struct test_reply *reply, struct test_client *client, const char *url, uint32_t connect_ms)
{
    struct http_call_params params = {.url = url, .connect_timeout_ms = connect_ms};
    test_reply_init(reply, client);
    assert_int_equal(test_call_start(reply, 0, "/", &params), PH_OK);
}

static void names_are_looked_up(void **state)
{
    (void)state;
    struct test_client client;
    struct test_server server;
    struct test_reply reply;
    char url[100];
    test_client_open(&client, NULL);
    test_server_start(&server, NULL);
    snprintf(url, sizeof url, "http://here.test:%u/hello", (unsigned)server.port);
    for (int i = 0; i < 3; i++) {
        start(&reply, &client, url, 0);
        assert_true(test_client_turn(&client, &reply.ended));
        assert_int_equal(reply.how, HTTP_CALL_WHOLE);
        test_reply_release(&reply);
    }
    assert_int_equal(asked, 1);
    start(&reply, &client, "http://nowhere.test/", 0);
    assert_true(test_client_turn(&client, &reply.ended));
    assert_int_equal(reply.how, HTTP_CALL_NO_NAME);
    test_client_close(&client);
    test_server_stop(&server);
}

/* Cancelled, timed out, hung up and closed while the name server is silent: nobody waits for it. */
static void a_slow_name_server_holds_nothing_up(void **state)
{
    (void)state;
    struct test_client client;
    struct test_reply cancelled, late, hung;
    size_t before = answered;
    test_client_open(&client, NULL);
    uint64_t began = test_now_ms();
    start(&cancelled, &client, "http://slow.test/a", 0);
    start(&late, &client, "http://slow.test/b", 50);
    start(&hung, &client, "http://slow.test/c", 0);
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (asked < before + 3 && test_now_ms() < until)
        test_client_turn_for(&client, 1);
    http_call_cancel(cancelled.call);
    http_call_hang_up(hung.call, 1000);
    assert_true(test_client_turn(&client, &hung.ended));
    assert_int_equal(hung.how, HTTP_CALL_UNSENT);
    assert_true(test_client_turn(&client, &late.ended));
    assert_int_equal(late.how, HTTP_CALL_TIMEOUT_CONNECT);
    test_client_close(&client);
    assert_int_equal(answered, before);
    assert_true(test_now_ms() - began < SLOW_MS);
    assert_true(test_wait_count(&answered, before + 3)); /* their threads end by themselves */
    uv_sleep(20);
}

static void proxies_are_for_other_machines(void **state)
{
    (void)state;
    static const struct test_script script = {"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nproxy",
                                              THEN_CLOSE};
    struct test_client client;
    struct test_peer proxy;
    struct test_server server;
    struct test_reply reply;
    char url[100];
    test_client_open(&client, NULL);
    test_peer_start(&proxy, &script, 1);
    test_server_start(&server, NULL);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", (unsigned)proxy.port);
    setenv("http_proxy", url, 1);
    static const char *const near[] = {"127.0.0.1", "localhost"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(url, sizeof url, "http://%s:%u/hello", near[i], (unsigned)server.port);
        start(&reply, &client, url, 0);
        assert_true(test_client_turn(&client, &reply.ended));
        assert_string_equal(reply.body, "hello");
        test_reply_release(&reply);
        start(&reply, &client, "http://far.test/x", 0); /* the same handle, now by proxy */
        assert_true(test_client_turn(&client, &reply.ended));
        assert_string_equal(reply.body, "proxy");
        assert_non_null(strstr(proxy.request, "GET http://far.test/x HTTP/1.1\r\n"));
        test_reply_release(&reply);
    }
    unsetenv("http_proxy");
    test_client_close(&client);
    test_server_stop(&server);
    test_peer_stop(&proxy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_looked_up),
        cmocka_unit_test(a_slow_name_server_holds_nothing_up),
        cmocka_unit_test(proxies_are_for_other_machines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
