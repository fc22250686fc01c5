/* The cache behind the cache: what goes out and comes back, and a Redis that is silent, slow, wrong or full of
 * other people's bytes while requests wait for it. */
#include <unistd.h>

#include "base/log.h"
#include "gateway/gateway_int.h"
#include "gateway/gateway_support.h"
#include "net/redis_support.h"
#include "test_support.h"

static const struct script scripts[] = {{"ok", "rabsu.", GATEWAY_TOOLS}, {"silent", "w", 0}};
static char reply[1 << 18];

#define LONG_WAIT_MS 10000 /* for what comes; for what does not, 0: the default */

static void fixture_open(struct gateway_fixture *f, const struct fake_redis *fake, uint32_t wait_ms,
                         uint32_t grace_ms, size_t keys)
{
    struct gateway_redis redis = {.host = "127.0.0.1", .port = fake->port, .wait_ms = wait_ms};
    gateway_fixture_open(
        f, &(struct gateway_fixture_params){.scripts = scripts,
                                            .script_count = sizeof scripts / sizeof *scripts,
                                            .cache = {.bytes_max = 1 << 20, .ttl_s = 60, .redis = redis},
                                            .stop_grace_ms = grace_ms,
                                            .key_count = keys,
                                            .key_concurrency = 1});
}

static long metric(const struct gateway_fixture *f, const char *name)
{
    char line[80];
    snprintf(line, sizeof line, "\npharos_%s ", name);
    gateway_get(f, "/metrics", reply, sizeof reply);
    const char *at = strstr(reply, line);
    if (!at)
        fail_msg("no %s", name);
    return strtol(at + strlen(line), NULL, 10);
}

static void wait_for(const struct gateway_fixture *f, const char *name, long value)
{
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (metric(f, name) != value && test_now_ms() < until)
        test_pause();
    assert_int_equal(metric(f, name), value);
}

static void open_ready(struct gateway_fixture *f, const struct fake_redis *fake, uint32_t wait_ms)
{
    fixture_open(f, fake, wait_ms, LONG_WAIT_MS, 0);
    wait_for(f, "cache_redis_up", 1);
}

/* true: a hit. */
static bool ask(const struct gateway_fixture *f, struct question q)
{
    assert_int_equal(gateway_read(f, &q, reply, sizeof reply), 1);
    expect_text(reply, "HTTP/1.1 200 OK\r\n", true);
    expect_text(reply, "b\"", true);
    return strstr(reply, "x-pharos-cache: hit\r\n") != NULL;
}

static const struct question plain = {.model = "ok"};

static void another_station_plays_it(void **state)
{
    (void)state;
    static const char *const paths[] = {"/v1/chat/completions", "/v1/messages", "/v1/responses"};
    for (int i = 0; i < 6; i++) {
        struct fake_redis fake;
        struct gateway_fixture one, two;
        fake_redis_start(&fake, FAKE_HONEST);
        struct question q = {.model = "ok",
                             .path = paths[i / 2],
                             .stream = i % 2,
                             .more = i / 2 == 2 ? ",\"input\":\"x\"" : ",\"max_tokens\":9"};
        open_ready(&one, &fake, LONG_WAIT_MS);
        assert_false(ask(&one, q));
        assert_true(ask(&one, q)); /* its own memory */
        assert_true(test_wait_count(&fake.sets, 1));
        assert_int_equal(atomic_load(&fake.gets), 1);
        gateway_fixture_close(&one);
        open_ready(&two, &fake, LONG_WAIT_MS);
        q.stream = !q.stream;
        assert_true(ask(&two, q));
        expect_text(reply,
                    q.stream ? "content-type: text/event-stream\r\n" : "content-type: application/json\r\n",
                    true);
        assert_true(ask(&two, q)); /* by now in its memory */
        assert_int_equal(atomic_load(&script_counts.started), 0);
        assert_int_equal(atomic_load(&fake.gets), 2);
        assert_int_equal(metric(&two, "cache_redis_hits_total"), 1);
        assert_int_equal(metric(&two, "cache_hits_total"), 2);
        assert_int_equal(metric(&two, "cache_redis_seconds_count"), 1);
        gateway_fixture_close(&two);
        assert_int_equal(fake.values[0].ttl_s, 60);
        fake_redis_stop(&fake);
    }
}

static void nothing_it_does_is_an_error(void **state)
{
    (void)state;
    for (int manner = FAKE_SILENT; manner < FAKE_MANNERS; manner++) {
        struct fake_redis fake;
        struct gateway_fixture f;
        char more[32];
        fake_redis_start(&fake, FAKE_HONEST);
        open_ready(&f, &fake, manner == FAKE_SILENT ? 0 : LONG_WAIT_MS);
        fake_redis_behave(&fake, (enum fake_manner)manner);
        if (manner >= FAKE_DEAF)
            fake_redis_drop(&fake);
        for (int i = 0; i < 8; i++) {
            snprintf(more, sizeof more, ",\"seed\":%d", i);
            struct question q = {.model = "ok", .stream = i % 2, .more = more};
            bool hit = ask(&f, q);
            assert_true(!hit || manner == FAKE_TWICE);
        }
        assert_true(ask(&f, (struct question){.model = "ok", .more = ",\"seed\":3"}));
        fake_redis_behave(&fake, FAKE_HONEST);
        fake_redis_drop(&fake);
        uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
        for (int i = 100; metric(&f, "cache_redis_stores_total") == 0 && test_now_ms() < until; i++) {
            snprintf(more, sizeof more, ",\"seed\":%d", i);
            ask(&f, (struct question){.model = "ok", .more = more});
        }
        assert_true(metric(&f, "cache_redis_stores_total") > 0);
        gateway_fixture_close(&f);
        fake_redis_stop(&fake);
    }
}

static void who_leaves_while_waiting_leaves_nothing(void **state)
{
    (void)state;
    struct fake_redis fake;
    struct gateway_fixture f;
    char headers[160];
    fake_redis_start(&fake, FAKE_HONEST);
    fixture_open(&f, &fake, LONG_WAIT_MS, 0, 1);
    wait_for(&f, "cache_redis_up", 1);
    fake_redis_behave(&fake, FAKE_SILENT);
    snprintf(headers, sizeof headers, "authorization: Bearer %s\r\n", f.key_texts[0]);
    struct question q = {.model = "ok", .headers = headers};
    int fd = gateway_ask(&f, &q);
    assert_true(test_wait_count(&fake.gets, 1));
    close(fd);
    wait_for(&f, "http_exchanges", 1); /* this question's own */
    fake_redis_behave(&fake, FAKE_HONEST);
    fake_redis_drop(&fake); /* whoever were still called would hear of it now */
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    do /* the key has one place, and gets it back */
        gateway_read(&f, &q, reply, sizeof reply);
    while (strstr(reply, "HTTP/1.1 429") && test_now_ms() < until);
    expect_text(reply, "HTTP/1.1 200 OK\r\n", true);
    assert_int_equal(atomic_load(&script_counts.started), 1);
    gateway_fixture_close(&f);
    fake_redis_stop(&fake);
}

/* Within its time it is answered; beyond it, it is let go. */
static void stopping_waits_for_who_waits(void **state)
{
    (void)state;
    for (int in_time = 0; in_time < 2; in_time++) {
        struct fake_redis fake;
        struct gateway_fixture f;
        int end = 0;
        fake_redis_start(&fake, FAKE_HONEST);
        fixture_open(&f, &fake, in_time ? 200 : LONG_WAIT_MS, in_time ? LONG_WAIT_MS : 200, 0);
        wait_for(&f, "cache_redis_up", 1);
        fake_redis_behave(&fake, FAKE_SILENT);
        int fd = gateway_ask(&f, &plain);
        assert_true(test_wait_count(&fake.gets, 1));
        gateway_fixture_close(&f); /* returns */
        test_read(fd, reply, sizeof reply, NULL, &end);
        close(fd);
        assert_int_not_equal(end, 0);
        expect_text(reply, "\"content\":\"ab\"", in_time);
        assert_int_equal(atomic_load(&script_counts.started), in_time);
        fake_redis_stop(&fake);
    }
}

static void deadlines_hold_while_waiting(void **state)
{
    (void)state;
    struct fake_redis fake;
    struct gateway_fixture f;
    struct question q = {.model = "silent", .headers = "x-request-timeout: 0.02\r\n"};
    fake_redis_start(&fake, FAKE_HONEST);
    open_ready(&f, &fake, LONG_WAIT_MS);
    fake_redis_behave(&fake, FAKE_SILENT);
    gateway_read(&f, &q, reply, sizeof reply);
    expect_text(reply, "HTTP/1.1 504", true);
    assert_int_equal(atomic_load(&fake.gets), 1);
    q.headers = "x-request-timeout: 0.0001\r\n"; /* no time to ask at all */
    gateway_read(&f, &q, reply, sizeof reply);
    expect_text(reply, "HTTP/1.1 504", true);
    assert_int_equal(atomic_load(&fake.gets), 1);
    gateway_fixture_close(&f);
    fake_redis_stop(&fake);
}

/* ---- Values of others, with everything about them right but one thing */

static struct cache_key key_of(const char *name)
{
    struct cache_key key;
    const char *hex = name + strlen(name) - 2 * CACHE_KEY_BYTES;
    for (size_t i = 0; i < CACHE_KEY_BYTES; i++)
        key.bytes[i] = (unsigned char)strtoul((char[]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
    return key;
}

static void record(struct recording *r, const char *kinds)
{
    recording_init(r, 1 << 16);
    for (; *kinds; kinds++) {
        struct chat_event event = {.kind = CHAT_EVENT_TEXT, .text = {"elsewhere b", 11}};
        if (*kinds != 'a')
            event.kind = *kinds == 'r'   ? CHAT_EVENT_ROLE
                         : *kinds == 's' ? CHAT_EVENT_FINISH
                         : *kinds == 'u' ? CHAT_EVENT_USAGE
                                         : CHAT_EVENT_DONE;
        event.finish = CHAT_FINISH_STOP;
        recording_add(r, &event);
    }
}

static void put_value(struct fake_redis *fake, const char *model, const char *kinds, int64_t made_unix_ms)
{
    struct cache *cache;
    struct cache_params params = {.bytes_max = 1 << 20, .ttl_ns = 100, .clock = clock_system()};
    struct cache_key key = key_of(fake->values[0].name);
    struct recording r;
    struct buf bytes;
    assert_int_equal(cache_create(&cache, &params), PH_OK);
    record(&r, kinds);
    buf_init(&bytes, 1 << 16);
    struct cache_value value = {made_unix_ms, model, r.bytes.data, r.bytes.len};
    assert_true(cache_value_write(cache, &key, &value, &bytes));
    fake_redis_put(fake, fake->values[0].name, bytes.data, bytes.len);
    buf_release(&bytes);
    recording_release(&r);
    cache_free(cache);
}

static void values_of_others_are_looked_at(void **state)
{
    (void)state;
    static const struct {
        const char *model, *kinds;
        int64_t age_ms;
        bool hit;
    } cases[] = {
        {"ok", "rasu.", 0, true},     {"ok", "rasu.", -3600000, true}, /* its clock is ahead */
        {"ok", "rasu.", 59000, true}, {"ok", "rasu.", 60000, false},   {"stranger", "rasu.", 0, false},
        {"", "rasu.", 0, false},      {"ok", "rasu", 0, false},        {"ok", "rau.", 0, false},
        {"ok", "asu.", 0, false},     {"ok", "rasu.r", 0, false},      {"silent", "rasu.", 0, true}};
    struct fake_redis fake;
    struct gateway_fixture f;
    fake_redis_start(&fake, FAKE_HONEST);
    open_ready(&f, &fake, LONG_WAIT_MS);
    assert_false(ask(&f, plain));
    assert_true(test_wait_count(&fake.sets, 1));
    gateway_fixture_close(&f);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_ready(&f, &fake, LONG_WAIT_MS);
        put_value(&fake, cases[i].model, cases[i].kinds, clock_unix_ms(clock_system()) - cases[i].age_ms);
        bool hit = ask(&f, plain);
        if (hit != cases[i].hit)
            fail_msg("%s %s, %lld ms old: %s", cases[i].model, cases[i].kinds, (long long)cases[i].age_ms,
                     hit ? "taken" : "refused");
        expect_text(reply, "elsewhere", hit);
        assert_int_equal(metric(&f, "cache_redis_refused_total"), !hit);
        gateway_fixture_close(&f);
    }
    fake_redis_stop(&fake);
}

static int quiet(void **state)
{
    (void)state;
    log_setup(2, LOG_ERROR, false);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_station_plays_it),
        cmocka_unit_test(nothing_it_does_is_an_error),
        cmocka_unit_test(who_leaves_while_waiting_leaves_nothing),
        cmocka_unit_test(stopping_waits_for_who_waits),
        cmocka_unit_test(deadlines_hold_while_waiting),
        cmocka_unit_test(values_of_others_are_looked_at),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
