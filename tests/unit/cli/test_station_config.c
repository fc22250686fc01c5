/* The configuration as a person writes it: what is read, what is refused and where, what is left out. */
#include <unistd.h>

#include "base/log.h"
#include "cli/station_int.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct station_config config;
    struct ph_err err;
    char path[64], model[64];
};

static void write_file(char path[64], const char *text)
{
    snprintf(path, 64, "/tmp/pharos-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* `yaml` has %s where a model file's path stands. */
static enum ph_status read_config(struct fixture *f, const char *yaml)
{
    char text[4096];
    write_file(f->model, "GGUF");
    const char *place = strstr(yaml, "%s");
    if (place)
        snprintf(text, sizeof text, "%.*s%s%s", (int)(place - yaml), yaml, f->model, place + 2);
    else
        snprintf(text, sizeof text, "%s", yaml);
    write_file(f->path, text);
    arena_init(&f->arena, 1 << 20);
    station_config_default(&f->config);
    enum ph_status status = station_config_read(&f->arena, f->path, &f->config, &f->err);
    if (status == PH_OK)
        status = station_config_check(&f->arena, &f->config, &f->err);
    unlink(f->path);
    unlink(f->model);
    return status;
}

static int quiet(void **state)
{
    (void)state;
    log_setup(2, LOG_ERROR, false);
    return 0;
}

static void the_documented_example_is_read(void **state)
{
    (void)state;
    struct fixture f;
    setenv("PHAROS_TEST_KEY", "secret", 1);
    enum ph_status status = read_config(
        &f,
        "listen: 127.0.0.1:8080\n"
        "data: /var/lib/pharos\n"
        "models:\n"
        "  - {id: small, tier: local, path: %s, context: 4096}\n"
        "  - {id: coder, tier: local, command: \"llama-server -m coder.gguf --port {port}\", api: openai, "
        "ttl_s: 300, memory_mb: 9000}\n"
        "  - {id: big, tier: subscription, provider: together, upstream: meta-llama/Llama-3-70b-chat-hf,\n"
        "     traits: {family: llama, architecture: dense, parameters_b: 70, training: rlhf}}\n"
        "  - {id: judge, tier: premium, provider: openai, upstream: gpt-4o,\n"
        "     price: {input_usd_per_mtok: 2.5, output_usd_per_mtok: 10}}\n"
        "providers:\n"
        "  together: {api: openai, base_url: https://api.together.xyz/v1, key: ${PHAROS_TEST_KEY}, "
        "monthly_usd: 200, rpm: 600}\n"

        "routes:\n"
        "  - {model: auto, policy: cascade, order: [local, subscription, premium], escalate_below: 0.6}\n"
        "  - {model: prod, policy: weighted, weights: {small: 90, candidate: 10}}\n"
        "budgets: {premium_usd_month: 180}\n"
        "cache: {max_mb: 64, shared: true}\n"
        "engines: {memory_mb: 24000}\n"
        "memory: {store: sqlite, embedding: null}\n");
    if (status != PH_OK)
        fail_msg("%s", f.err.message);
    const struct station_config *c = &f.config;
    const struct station_model *models = c->models.items;
    assert_int_equal(c->models.count, 4);
    assert_string_equal(models[0].id, "small");
    assert_int_equal(models[0].context, 4096);
    assert_int_equal(models[1].memory_mb, 9000);
    assert_int_equal(c->engines.memory_mb, 24000);
    assert_string_equal(c->host, "127.0.0.1");
    assert_int_equal(c->port, 8080);
    assert_string_equal(c->data, "/var/lib/pharos");
    const struct station_provider *provider = c->providers.items;
    assert_int_equal(c->providers.count, 2);
    assert_string_equal(provider->name, "together");
    assert_string_equal(provider->key, "secret");
    assert_int_equal(provider->rpm, 600);
    const struct station_route *routes = c->routes.items;
    assert_int_equal(c->routes.count, 2);
    assert_int_equal(routes[0].order.count, 3);
    assert_true(routes[0].escalate_below == 0.6);
    assert_int_equal(routes[0].policy, GATEWAY_CASCADE);
    assert_int_equal(routes[1].policy, GATEWAY_WEIGHTED);
    assert_true(models[3].price.input == 2.5 && models[3].price.output == 10);
    assert_string_equal(models[2].upstream, "meta-llama/Llama-3-70b-chat-hf");
    assert_int_equal(json_count(routes[1].weights), 2);
    assert_true(c->budgets.premium_usd_month == 180);
    assert_true(c->cache.max_mb == 64 && c->cache.ttl_s == 3600 && c->cache.shared);
    assert_string_equal(c->memory.store, "sqlite");
    arena_release(&f.arena);
}

static void faults_say_what_and_where(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *text;
    } cases[] = {
        {"models:\n  - {id: a, path: %s}\nmodles: []\n", ":3: "},
        {"models:\n  - {id: a, pth: %s}\n", "pth"},
        {"models:\n  - {path: %s}\n", "id"},
        {"models:\n  - {id: a, path: %s, context: -1}\n", "context"},
        {"models:\n  - {id: a, path: %s, tier: cheap}\n", "cheap"},
        {"models:\n  - {id: a, path: %s}\nroutes: [{model: x, policy: magic}]\n", "magic"},
        {"models:\n  - {id: a, path: %s}\nbudgets: {premium_usd_month: much}\n", "premium_usd_month"},
        {"models:\n  - {id: a, path: %s}\n  - {id: a, path: x.gguf}\n", "two models are called a"},
        {"models:\n  - {id: a, path: /nowhere/x.gguf}\n", "/nowhere/x.gguf"},
        {"models: []\n", "no model"},
        {"models:\n  - {id: a, path: %s}\ncache: {ttl_s: 60}\n", "max_mb"},
        {"models:\n  - {id: a, path: %s}\ncache: {max_mb: 1, ttl_s: 0}\n", "ttl_s"},
        {"models:\n  - {id: a, command: x}\n", "{port}"},
        {"models:\n  - {id: a, command: \"x {port}\", memory_mb: -1}\n", "memory_mb"},
        {"models:\n  - {id: a}\n", "path"},
        {"models:\n  - {id: a, path: %s, command: \"x {port}\"}\n", "several"},
        {"models:\n  - {id: a, provider: nobody}\n", "nobody"},
        {"models:\n  - {id: a, path: %s, price: {input: 3}}\n", "input"},
        {"models:\n  - {id: a, path: %s}\ntls: {certificate: x.pem}\n", "key is missing"},
        {"listen: nonsense\nmodels:\n  - {id: a, path: %s}\n", "nonsense"},
        {"listen: 127.0.0.1:99999\nmodels:\n  - {id: a, path: %s}\n", "99999"},
        {"providers: {x: {key: \"${PHAROS_TEST_UNSET}\"}}\nmodels:\n  - {id: a, path: %s}\n",
         "PHAROS_TEST_UNSET"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        if (read_config(&f, cases[i].yaml) == PH_OK)
            fail_msg("accepted: %s", cases[i].yaml);
        if (!strstr(f.err.message, cases[i].text))
            fail_msg("no \"%s\" in: %s", cases[i].text, f.err.message);
        arena_release(&f.arena);
    }
}

static void addresses(void **state)
{
    (void)state;
    static const struct {
        const char *listen, *host;
        uint16_t port;
    } cases[] = {{"127.0.0.1:1", "127.0.0.1", 1}, {"localhost:80", "localhost", 80},
                 {"\"[::1]:9\"", "::1", 9},       {"\":8080\"", "0.0.0.0", 8080},
                 {"8081", "127.0.0.1", 8081},     {"0.0.0.0:0", "0.0.0.0", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        char yaml[256];
        snprintf(yaml, sizeof yaml, "listen: %s\nmodels:\n  - {id: a, path: %%s}\n", cases[i].listen);
        if (read_config(&f, yaml) != PH_OK)
            fail_msg("%s: %s", cases[i].listen, f.err.message);
        assert_string_equal(f.config.host, cases[i].host);
        assert_int_equal(f.config.port, cases[i].port);
        arena_release(&f.arena);
    }
}

static void models_of_the_command_line_are_named_by_their_files(void **state)
{
    (void)state;
    struct arena arena;
    struct station_config config;
    arena_init(&arena, 1 << 20);
    station_config_default(&config);
    assert_int_equal(station_config_add_model(&arena, &config, "/a/b.c/model-Q8_0.gguf", NULL), PH_OK);
    assert_int_equal(station_config_add_model(&arena, &config, "plain", NULL), PH_OK);
    const struct station_model *models = config.models.items;
    assert_int_equal(config.models.count, 2);
    assert_string_equal(models[0].id, "model-Q8_0");
    assert_string_equal(models[0].path, "/a/b.c/model-Q8_0.gguf");
    assert_string_equal(models[1].id, "plain");
    arena_release(&arena);
}

static void the_request_log_has_a_short_form(void **state)
{
    (void)state;
    static const struct {
        const char *yaml;
        bool bodies;
    } cases[] = {{"request_log: /a/b.jsonl\nmodels:\n  - {id: a, path: %s}\n", false},
                 {"request_log: {path: /a/b.jsonl}\nmodels:\n  - {id: a, path: %s}\n", false},
                 {"request_log: {path: /a/b.jsonl, bodies: true}\nmodels:\n  - {id: a, path: %s}\n", true}};
    struct fixture f;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(read_config(&f, cases[i].yaml), PH_OK);
        assert_string_equal(f.config.request_log.path, "/a/b.jsonl");
        assert_int_equal(f.config.request_log.bodies, cases[i].bodies);
        arena_release(&f.arena);
    }
    assert_int_equal(read_config(&f, "request_log:\nmodels:\n  - {id: a, path: %s}\n"), PH_OK);
    assert_null(f.config.request_log.path);
    arena_release(&f.arena);
    assert_int_equal(read_config(&f, "request_log: [/a]\nmodels:\n  - {id: a, path: %s}\n"), PH_ERR_FORMAT);
    arena_release(&f.arena);
}

static void the_shared_cache_has_an_address(void **state)
{
    (void)state;
    static const struct {
        const char *url, *password; /* redis_password */
        struct gateway_redis at;
        const char *fault; /* NULL: it is right */
    } cases[] = {
        {"redis://cache", NULL, {.host = "cache", .port = 6379}, NULL},
        {"redis://10.0.0.1:7000/12", NULL, {.host = "10.0.0.1", .port = 7000, .database = 12}, NULL},
        {"redis://[::1]:7000/", NULL, {.host = "::1", .port = 7000}, NULL},
        {"redis://[fe80::2]", NULL, {.host = "fe80::2", .port = 6379}, NULL},
        {"redis://:p@h", NULL, {.host = "h", .password = "p", .port = 6379}, NULL},
        {"redis://u%40:p:a/s@s%25%2f@h:1/2",
         NULL,
         {.host = "h", .user = "u@", .password = "p:a/s@s%/", .port = 1, .database = 2},
         NULL},
        {"redis://u@h", "hunter2", {.host = "h", .user = "u", .password = "hunter2", .port = 6379}, NULL},
        {"redis://h", "hunter2", {.host = "h", .password = "hunter2", .port = 6379}, NULL},
        {NULL, NULL, {0}, NULL},
        {NULL, "hunter2", {0}, "without redis"},
        {"redis://u@h", NULL, {0}, "without a password"},
        {"redis://:hunter2@h", "hunter2", {0}, "one password"},
        {"redis://h", "hunter 2", {0}, "redis_password: the key: a key has no spaces"},
        {"redis://h", "file:/nowhere/hunter2", {0}, "redis_password: "},
        {"redis://h", "", {0}, "is the variable set?"},
        {"rediss://:hunter2@h", NULL, {0}, "tunnel"},
        {"unix:///run/redis", NULL, {0}, "redis://HOST:PORT/NUMBER"},
        {"redis://", NULL, {0}, "names no host"},
        {"redis://:hunter2@", NULL, {0}, "names no host"},
        {"redis://:hunter2@:7000", NULL, {0}, "names no host"},
        {"redis://[::1", NULL, {0}, "names no host"},
        {"redis://[::1]7", NULL, {0}, "port"},
        {"redis://h:0", NULL, {0}, "port"},
        {"redis://h:65536", NULL, {0}, "port"},
        {"redis://:hunter2@h:6379x", NULL, {0}, "port"},
        {"redis://h:-1", NULL, {0}, "port"},
        {"redis://h/one", NULL, {0}, "database's number"},
        {"redis://h/0/1", NULL, {0}, "database's number"},
        {"redis://h/0?tls=1", NULL, {0}, "database's number"},
        {"redis://:hunter2%@h", NULL, {0}, "%25"},
        {"redis://:hunter2%2@h", NULL, {0}, "%25"},
        {"redis://:hunter2%00@h", NULL, {0}, "%25"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena;
        struct gateway_redis at;
        struct ph_err err = {0};
        arena_init(&arena, 1 << 20);
        enum ph_status status =
            station_redis_read(&arena, "memory", cases[i].url, cases[i].password, &at, &err);
        const struct gateway_redis *right = &cases[i].at;
        const char *texts[][2] = {
            {at.host, right->host}, {at.user, right->user}, {at.password, right->password}};
        if (cases[i].fault) {
            if (status == PH_OK || !strstr(err.message, cases[i].fault))
                fail_msg("%s: %s", cases[i].url, err.message);
            assert_true(!strstr(err.message, "hunter") || strstr(err.message, "/nowhere/hunter2"));
        } else {
            if (status != PH_OK)
                fail_msg("%s: %s", cases[i].url, err.message);
            for (int k = 0; k < 3; k++) {
                assert_int_equal(texts[k][0] == NULL, texts[k][1] == NULL);
                if (texts[k][0])
                    assert_string_equal(texts[k][0], texts[k][1]);
            }
            assert_true(at.port == right->port && at.database == right->database);
        }
        arena_release(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_documented_example_is_read),
        cmocka_unit_test(faults_say_what_and_where),
        cmocka_unit_test(the_request_log_has_a_short_form),
        cmocka_unit_test(addresses),
        cmocka_unit_test(models_of_the_command_line_are_named_by_their_files),
        cmocka_unit_test(the_shared_cache_has_an_address),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
