/* Addresses of requests and proxies: who goes by one, what it is asked, and TLS through its tunnel. */
#include "test_support.h"

#include <poll.h>
#include <sys/socket.h>

#include "client_support.h"
#include "net/http_url_int.h"
#include "tls_support.h"

/* ---- Which ---- */

static void the_environment_names_proxies_and_exceptions(void **state)
{
    (void)state;
    static const struct {
        const char *no_proxy, *host;
        bool goes_by_proxy;
    } cases[] = {
        {"", "far.test", true},
        {"", "localhost", false},
        {"", "my.localhost", false},
        {"", "127.0.0.5", false},
        {"", "::1", false},
        {"", "128.0.0.1", true},
        {"*", "far.test", false},
        {"far.test", "far.test", false},
        {"far.test", "FAR.test", false},
        {"far.test", "a.far.test", false},
        {".far.test", "far.test", false},
        {"far.test", "notfar.test", true},
        {"a.test, far.test", "far.test", false},
        {"a.test,b.test", "far.test", true},
        {"10.0.0.0/8", "10.200.3.4", false},
        {"10.0.0.0/8", "11.0.0.1", true},
        {"192.168.16.0/20", "192.168.31.255", false},
        {"192.168.16.0/20", "192.168.32.0", true},
        {"10.1.2.3", "10.1.2.3", false},
        {"fd00::/8", "fd12::1", false},
        {"fd00::/8", "fe12::1", true},
        {"10.0.0.0/8", "far.test", true},
        {"10.0.0.0/999", "10.0.0.1", true},
    };
    setenv("http_proxy", "http://plain:1", 1);
    setenv("HTTPS_PROXY", "http://tls:1", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setenv("no_proxy", cases[i].no_proxy, 1);
        const char *plain = http_proxy_find(false, cases[i].host),
                   *tls = http_proxy_find(true, cases[i].host);
        if ((plain != NULL) != cases[i].goes_by_proxy || (tls != NULL) != cases[i].goes_by_proxy)
            fail_msg("no_proxy=%s: %s goes the wrong way", cases[i].no_proxy, cases[i].host);
        if (plain) {
            assert_string_equal(plain, "http://plain:1");
            assert_string_equal(tls, "http://tls:1");
        }
    }
    unsetenv("http_proxy");
    unsetenv("HTTPS_PROXY");
    unsetenv("no_proxy");
    assert_null(http_proxy_find(false, "far.test"));
    setenv("ALL_PROXY", "http://all:1", 1);
    assert_string_equal(http_proxy_find(true, "far.test"), "http://all:1");
    unsetenv("ALL_PROXY");
}

static void addresses_are_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_tls;
        uint16_t port;
        bool has_port;
        const char *user, *host, *path;
    } cases[] = {
        {"http://a.test", false, 80, false, "", "a.test", ""},
        {"HTTPS://a.test/", true, 443, false, "", "a.test", "/"},
        {"https://a.test:443/x?y#z", true, 443, false, "", "a.test", "/x?y"},
        {"https://a_b.test:8443?q", true, 8443, true, "", "a_b.test", "?q"},
        {"http://u:p%40@a.test:81/v1", false, 81, true, "u:p%40", "a.test", "/v1"},
        {"http://u@v@a.test/", false, 80, false, "u@v", "a.test", "/"},
        {"http://[fe80::1]:8080/v1/@x", false, 8080, true, "", "fe80::1", "/v1/@x"},
        {"http://127.0.0.1:/", false, 80, false, "", "127.0.0.1", "/"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_url url;
        assert_null(http_url_parse(&url, cases[i].text));
        assert_int_equal(url.is_tls, cases[i].is_tls);
        assert_int_equal(url.port, cases[i].port);
        assert_int_equal(url.has_port, cases[i].has_port);
        const struct http_piece pieces[] = {url.user, url.host, url.path};
        const char *const wants[] = {cases[i].user, cases[i].host, cases[i].path};
        for (size_t p = 0; p < 3; p++) {
            assert_int_equal(pieces[p].len, strlen(wants[p]));
            assert_true(!pieces[p].len || memcmp(pieces[p].at, wants[p], pieces[p].len) == 0);
        }
    }
}

/* ---- How ---- */

static void start(struct test_reply *reply, struct test_client *client, const char *url)
{
    struct http_call_params params = {.url = url};
    test_reply_init(reply, client);
    assert_int_equal(test_call_start(reply, 0, "/", &params), PH_OK);
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
    snprintf(url, sizeof url, "http://me:p%%40ss@127.0.0.1:%u", (unsigned)proxy.port);
    setenv("http_proxy", url, 1);
    static const char *const near[] = {"127.0.0.1", "localhost"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(url, sizeof url, "http://%s:%u/hello", near[i], (unsigned)server.port);
        start(&reply, &client, url);
        assert_true(test_client_turn(&client, &reply.ended));
        assert_string_equal(reply.body, "hello");
        test_reply_release(&reply);
        start(&reply, &client, "http://far.test/x");
        assert_true(test_client_turn(&client, &reply.ended));
        assert_string_equal(reply.body, "proxy");
        assert_non_null(strstr(proxy.request, "GET http://far.test/x HTTP/1.1\r\nhost: far.test\r\n"));
        assert_non_null(strstr(proxy.request, "\r\nproxy-authorization: Basic bWU6cEBzcw==\r\n"));
        test_reply_release(&reply);
    }
    unsetenv("http_proxy");
    test_client_close(&client);
    test_server_stop(&server);
    test_peer_stop(&proxy);
}

/* A URL's own name and password are its credentials, unless the caller has others. */
static void a_url_may_carry_credentials(void **state)
{
    (void)state;
    static const struct test_script script = {"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", THEN_CLOSE};
    static const struct http_header own = {"authorization", "Bearer x"};
    struct test_client client;
    struct test_peer peer;
    struct test_reply reply;
    char url[100];
    test_client_open(&client, NULL);
    test_peer_start(&peer, &script, 1);
    snprintf(url, sizeof url, "http://me:p%%40ss@127.0.0.1:%u/v1", (unsigned)peer.port);
    for (size_t i = 0; i < 2; i++) {
        struct http_call_params params = {.url = url, .headers = &own, .header_count = i};
        test_reply_init(&reply, &client);
        test_call(&reply, 0, "/", &params);
        assert_int_equal(reply.how, HTTP_CALL_WHOLE);
        assert_non_null(strstr(peer.request, i ? "\r\nauthorization: Bearer x\r\n"
                                               : "\r\nauthorization: Basic bWU6cEBzcw==\r\n"));
        assert_null(strstr(peer.request, i ? "Basic" : "Bearer"));
        assert_null(strstr(peer.request, "me:p"));
    }
    test_client_close(&client);
    test_peer_stop(&peer);
}

/* ---- Through a tunnel ---- */

/* Accepts one connection, answers its CONNECT with `answer`, and relays to `target` where that is 200. */
struct tunnel {
    int listener;
    uint16_t port, target;
    const char *answer;
    char request[1000];
    uv_thread_t thread;
};

static void relay(int a, int b)
{
    struct pollfd fds[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
    while (poll(fds, 2, TEST_DEADLINE_MS) > 0) {
        for (int i = 0; i < 2; i++) {
            char bytes[4096];
            ssize_t n = fds[i].revents ? recv(fds[i].fd, bytes, sizeof bytes, 0) : -1;
            if (fds[i].revents && (n <= 0 || !test_send(fds[1 - i].fd, bytes, (size_t)n)))
                return;
        }
    }
}

static void run_tunnel(void *ud)
{
    struct tunnel *tunnel = ud;
    size_t len = 0;
    int fd = accept(tunnel->listener, NULL, NULL);
    while (!strstr(tunnel->request, "\r\n\r\n") && len + 1 < sizeof tunnel->request) {
        ssize_t n = recv(fd, tunnel->request + len, sizeof tunnel->request - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    test_send_text(fd, tunnel->answer);
    if (strstr(tunnel->answer, " 200 ")) {
        int server = test_connect(tunnel->target);
        relay(fd, server);
        close(server);
    }
    close(fd);
}

static void tunnel_start(struct tunnel *tunnel, uint16_t target, const char *answer)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    memset(tunnel, 0, sizeof *tunnel);
    tunnel->target = target;
    tunnel->answer = answer;
    tunnel->listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(tunnel->listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(tunnel->listener, 4), 0);
    assert_int_equal(getsockname(tunnel->listener, (struct sockaddr *)&address, &len), 0);
    tunnel->port = ntohs(address.sin_port);
    assert_int_equal(uv_thread_create(&tunnel->thread, run_tunnel, tunnel), 0);
}

static void tls_goes_through_a_tunnel(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        enum http_call_end how;
        const char *message;
    } cases[] = {
        {"HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n", HTTP_CALL_WHOLE, ""},
        {"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", HTTP_CALL_NO_CONNECTION, "status 407"},
        {"SSH-2.0\r\n\r\n", HTTP_CALL_NO_CONNECTION, "status line"},
        {"", HTTP_CALL_NO_CONNECTION, "closed"},
    };
    char dir[] = "/tmp/pharos-proxy-XXXXXX", cert[80], key[80], proxy[100];
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof cert, "%s/cert.pem", dir);
    snprintf(key, sizeof key, "%s/key.pem", dir);
    test_make_certificate(cert, key, "DNS:far.test", 2);
    struct test_server server;
    struct http_client_params client_params = {.ca_file = cert};
    test_server_start_tls(&server, NULL, cert, key);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tunnel tunnel;
        struct test_client client;
        struct test_reply reply;
        tunnel_start(&tunnel, server.port, cases[i].answer);
        snprintf(proxy, sizeof proxy, "127.0.0.1:%u", (unsigned)tunnel.port);
        setenv("https_proxy", proxy, 1);
        test_client_open(&client, &client_params);
        start(&reply, &client, "https://far.test/hello");
        assert_true(test_client_turn(&client, &reply.ended));
        assert_int_equal(reply.how, cases[i].how);
        assert_non_null(strstr(reply.message, cases[i].message));
        assert_string_equal(reply.body ? reply.body : "", i ? "" : "hello");
        test_client_close(&client);
        uv_thread_join(&tunnel.thread);
        assert_non_null(strstr(tunnel.request, "CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\n"));
        close(tunnel.listener);
        test_reply_release(&reply);
    }
    unsetenv("https_proxy");
    test_server_stop(&server);
    unlink(cert);
    unlink(key);
    assert_int_equal(rmdir(dir), 0);
}

static void proxies_of_other_kinds_are_refused(void **state)
{
    (void)state;
    static const char *const kinds[] = {"socks5://127.0.0.1:1080", "https://secret@127.0.0.1:1",
                                        "http://[::zz]"};
    struct test_client client;
    test_client_open(&client, NULL);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct http_call_params params = {.method = "GET", .url = "https://far.test/"};
        struct http_call_sink sink = {0};
        struct http_call *call = NULL;
        struct ph_err err = {0};
        setenv("https_proxy", kinds[i], 1);
        assert_int_equal(http_call_start(&call, client.http, &params, &sink, &err), PH_ERR_ARG);
        assert_non_null(strstr(err.message, "https_proxy"));
        assert_null(strstr(err.message, "secret"));
    }
    unsetenv("https_proxy");
    test_client_close(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_environment_names_proxies_and_exceptions),
        cmocka_unit_test(addresses_are_taken_apart),
        cmocka_unit_test(proxies_are_for_other_machines),
        cmocka_unit_test(a_url_may_carry_credentials),
        cmocka_unit_test(tls_goes_through_a_tunnel),
        cmocka_unit_test(proxies_of_other_kinds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
