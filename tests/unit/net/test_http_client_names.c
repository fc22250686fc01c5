/* The HTTP client and names: a slow name server holds nothing up, every address is tried. This program has a
 * getaddrinfo of its own, found before the system's. */
#include "test_support.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "client_support.h"

#define SLOW_MS 600

static atomic_size_t asked, answered;

static const struct {
    const char *name;
    uint32_t addresses[3]; /* 0: no more */
} hosts[] = {
    {"here.test", {0x7f000001}},
    {"dead-first.test", {0x7f000003, 0x7f000001}},
    {"silent-first.test", {0x7f000002, 0x7f000001}},
    {"all-dead.test", {0x7f000003, 0x7f000004}},
};

struct found {
    struct addrinfo info;
    struct sockaddr_in address;
};

static int list_addresses(const uint32_t *addresses, struct addrinfo **out)
{
    for (; *addresses; addresses++) {
        struct found *found = calloc(1, sizeof *found);
        if (!found)
            return EAI_MEMORY;
        found->address.sin_family = AF_INET;
        found->address.sin_addr.s_addr = htonl(*addresses);
        found->info = (struct addrinfo){.ai_family = AF_INET,
                                        .ai_socktype = SOCK_STREAM,
                                        .ai_protocol = IPPROTO_TCP,
                                        .ai_addrlen = sizeof found->address,
                                        .ai_addr = (struct sockaddr *)&found->address};
        *out = &found->info;
        out = &found->info.ai_next;
    }
    return 0;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    (void)service;
    (void)hints;
    asked++;
    if (name && strncmp(name, "slow-", 5) == 0)
        uv_sleep(SLOW_MS);
    answered++;
    for (size_t i = 0; name && i < sizeof hosts / sizeof *hosts; i++) {
        if (strcmp(name, hosts[i].name) == 0)
            return list_addresses(hosts[i].addresses, out);
    }
    return EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *info)
{
    while (info) {
        struct addrinfo *next = info->ai_next;
        free(info);
        info = next;
    }
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

struct last_call {
    struct net_loop *loop;
    struct http_client *client;
    enum http_call_end how;
};

static void close_in_end(void *ud, enum http_call_end how, const char *message)
{
    struct last_call *last = ud;
    (void)message;
    last->how = how;
    http_client_close(last->client);
    net_loop_stop(last->loop);
}

static void ignore_head(void *ud, int status, const struct http_header *headers, size_t header_count)
{
    (void)ud;
    (void)status;
    (void)headers;
    (void)header_count;
}

static bool ignore_body(void *ud, const char *bytes, size_t len)
{
    (void)ud;
    (void)bytes;
    (void)len;
    return true;
}

/* The answer is on its way through the table of names when that is closed. */
static void the_client_may_be_closed_when_there_is_no_name(void **state)
{
    (void)state;
    struct last_call last = {.how = HTTP_CALL_WHOLE};
    struct http_call *call;
    const struct http_call_sink sink = {ignore_head, ignore_body, close_in_end, &last};
    assert_int_equal(net_loop_create(&last.loop, NULL), PH_OK);
    const struct http_client_params params = {.loop = last.loop, .clock = clock_system()};
    assert_int_equal(http_client_open(&last.client, &params, NULL), PH_OK);
    const struct http_call_params get = {.method = "GET", .url = "http://nowhere.test/"};
    assert_int_equal(http_call_start(&call, last.client, &get, &sink, NULL), PH_OK);
    net_loop_run(last.loop);
    net_loop_free(last.loop);
    assert_int_equal(last.how, HTTP_CALL_NO_NAME);
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
    start(&cancelled, &client, "http://slow-a.test/", 0);
    start(&late, &client, "http://slow-b.test/", 50);
    start(&hung, &client, "http://slow-c.test/", 0);
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

/* A socket on 127.0.0.2 and a port that nobody answers: its queue is full. */
static int silent_listener(uint16_t port, int *fillers, size_t count)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(0x7f000002);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 0), 0);
    for (size_t i = 0; i < count; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, sizeof address);
    }
    return listener;
}

static void every_address_has_its_chance(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        enum http_call_end how;
    } cases[] = {{"dead-first.test", HTTP_CALL_WHOLE},
                 {"silent-first.test", HTTP_CALL_WHOLE},
                 {"all-dead.test", HTTP_CALL_NO_CONNECTION}};
    struct test_client client;
    struct test_server server;
    int fillers[8];
    test_client_open(&client, NULL);
    test_server_start(&server, NULL);
    int listener = silent_listener(server.port, fillers, sizeof fillers / sizeof *fillers);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char url[100];
        struct test_reply reply;
        snprintf(url, sizeof url, "http://%s:%u/hello", cases[i].host, (unsigned)server.port);
        uint64_t began = test_now_ms();
        start(&reply, &client, url, 5000);
        assert_true(test_client_turn(&client, &reply.ended));
        assert_int_equal(reply.how, cases[i].how);
        assert_true(test_now_ms() - began < 3000); /* the silent one was not waited for */
        test_reply_release(&reply);
    }
    test_client_close(&client);
    test_server_stop(&server);
    for (size_t i = 0; i < sizeof fillers / sizeof *fillers; i++)
        close(fillers[i]);
    close(listener);
}

/* What is asked for by many at the same time is looked up once. */
static void one_lookup_serves_all(void **state)
{
    (void)state;
    enum { N = 20 };
    struct test_client client;
    struct test_server server;
    struct test_reply replies[N];
    char url[100];
    test_client_open(&client, NULL);
    test_server_start(&server, NULL);
    size_t before = asked;
    snprintf(url, sizeof url, "http://here.test:%u/hello", (unsigned)server.port);
    for (int i = 0; i < N; i++)
        start(&replies[i], &client, url, 0);
    for (int i = 0; i < N; i++) {
        assert_true(test_client_turn(&client, &replies[i].ended));
        assert_int_equal(replies[i].how, HTTP_CALL_WHOLE);
        test_reply_release(&replies[i]);
    }
    assert_int_equal(asked, before + 1);
    test_client_close(&client);
    test_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_looked_up),
        cmocka_unit_test(the_client_may_be_closed_when_there_is_no_name),
        cmocka_unit_test(a_slow_name_server_holds_nothing_up),
        cmocka_unit_test(every_address_has_its_chance),
        cmocka_unit_test(one_lookup_serves_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
