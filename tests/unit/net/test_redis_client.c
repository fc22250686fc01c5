/* The Redis client beside a Redis that does what it should not: every look-up hears once, in time, and what
 * went wrong is over as soon as the server is right again. */
#include <fcntl.h>

#include "base/limits.h"
#include "base/log.h"
#include "net/net_int.h"
#include "net/net_support.h"
#include "net/redis_support.h"
#include "test_support.h"

#define VALUE_MAX 4096
#define WAIT_MS 40         /* for what does not come */
#define LONG_WAIT_MS 10000 /* for what does */

struct fixture {
    struct fake_redis fake;
    struct net_loop *loop;
    struct redis_client *client;
    uint32_t wait_ms;
};

static struct redis_stats stats(struct fixture *f)
{
    struct redis_stats s;
    redis_client_stats(f->client, &s);
    return s;
}

static void turn(struct fixture *f)
{
    if (uv_run(net_loop_uv(f->loop), UV_RUN_NOWAIT))
        test_pause();
}

static void turn_until_ready(struct fixture *f, bool ready)
{
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (stats(f).is_ready != ready && test_now_ms() < until)
        turn(f);
    assert_int_equal(stats(f).is_ready, ready);
}

static void open_client(struct fixture *f, const struct redis_params *more)
{
    struct redis_params params = more ? *more : (struct redis_params){.host = "127.0.0.1"};
    struct ph_err err;
    assert_int_equal(net_loop_create(&f->loop, &err), PH_OK);
    params.loop = f->loop;
    params.clock = clock_system();
    params.port = f->fake.port;
    params.value_bytes_max = VALUE_MAX;
    params.late_ms = f->wait_ms;
    assert_int_equal(redis_client_open(&f->client, &params), PH_OK);
}

static void open_both(struct fixture *f, uint32_t wait_ms, const struct redis_params *more)
{
    f->wait_ms = wait_ms;
    fake_redis_start(&f->fake, FAKE_HONEST);
    open_client(f, more);
    turn_until_ready(f, true);
}

static void close_both(struct fixture *f)
{
    redis_client_close(f->client);
    net_loop_free(f->loop);
    fake_redis_stop(&f->fake);
}

struct look {
    struct fixture *f;
    size_t calls;
    char *bytes; /* NULL: not there */
    size_t len;
    bool closes; /* the client, inside */
};

static void on_found(void *ud, const char *bytes, size_t len)
{
    struct look *look = ud;
    look->calls++;
    look->len = len;
    free(look->bytes);
    look->bytes = bytes ? malloc(len) : NULL;
    if (bytes)
        memcpy(look->bytes, bytes, len);
    if (look->closes) {
        redis_client_close(look->f->client);
        look->f->client = NULL;
    }
}

/* How long it took, in ms; -1: it was not asked at all. */
static int look_up(struct look *look, const char *name)
{
    uint64_t start = test_now_ms();
    look->calls = 0;
    if (!redis_client_get(look->f->client, name, look->f->wait_ms, on_found, look))
        return -1;
    assert_int_equal(look->calls, 0); /* not inside */
    while (!look->calls && test_now_ms() < start + TEST_DEADLINE_MS)
        turn(look->f);
    assert_int_equal(look->calls, 1);
    return (int)(test_now_ms() - start);
}

static bool is_there(struct look *look, const char *text)
{
    return look->bytes && look->len == strlen(text) && memcmp(look->bytes, text, look->len) == 0;
}

static void store(struct fixture *f, const char *name, const char *text)
{
    uint64_t before = stats(f).stored, until = test_now_ms() + TEST_DEADLINE_MS;
    assert_true(redis_client_set(f->client, name, text, strlen(text), 77));
    while (stats(f).stored == before && test_now_ms() < until)
        turn(f);
    assert_int_equal(stats(f).stored, before + 1);
}

/* ---- Tests */

static void values_come_back(void **state)
{
    (void)state;
    static char large[VALUE_MAX + 1];
    struct fixture f;
    struct look look = {.f = &f};
    open_both(
        &f, LONG_WAIT_MS,
        &(struct redis_params){.host = "localhost", .user = "me", .password = "pass word", .database = 7});
    assert_string_equal(f.fake.login, "AUTH me pass word SELECT 7 ");
    assert_true(look_up(&look, "a") >= 0 && !look.bytes);
    store(&f, "a", "one\r\n+two");
    assert_int_equal(f.fake.values[0].ttl_s, 77);
    assert_true(look_up(&look, "a") >= 0 && is_there(&look, "one\r\n+two"));
    memset(large, 'l', sizeof large);
    assert_false(redis_client_set(f.client, "large", large, sizeof large, 1));
    fake_redis_put(&f.fake, "large", large, sizeof large);
    assert_true(look_up(&look, "large") >= 0 && !look.bytes);
    fake_redis_put(&f.fake, "large", large, VALUE_MAX);
    assert_true(look_up(&look, "large") >= 0 && look.len == VALUE_MAX);
    struct redis_stats s = stats(&f);
    assert_true(s.connects == 1 && !s.failures && !s.refusals && !s.late && !s.skipped);
    free(look.bytes);
    close_both(&f);
}

static void whatever_it_does_is_over_afterwards(void **state)
{
    (void)state;
    char path[] = "/tmp/pharos-redis-XXXXXX", log[65536] = "";
    int fd = mkstemp(path);
    log_setup(fd, LOG_INFO, false);
    for (int manner = FAKE_SILENT; manner < FAKE_MANNERS; manner++) {
        struct fixture f;
        struct look look = {.f = &f};
        open_both(&f, manner == FAKE_SILENT ? WAIT_MS : LONG_WAIT_MS, NULL);
        fake_redis_put(&f.fake, "a", "one", 3);
        fake_redis_behave(&f.fake, (enum fake_manner)manner);
        bool hellos_fail = manner == FAKE_DEAF || manner == FAKE_LOADING;
        if (hellos_fail) {
            fake_redis_drop(&f.fake);
            turn_until_ready(&f, false);
            assert_int_equal(look_up(&look, "a"), -1);
        } else {
            int took = look_up(&look, "a");
            assert_true(took >= 0 && took < LONG_WAIT_MS);
            assert_true(manner == FAKE_TWICE || !look.bytes);
            assert_int_equal(stats(&f).late, manner == FAKE_SILENT);
            assert_int_equal(stats(&f).refusals, manner == FAKE_ERROR);
        }
        fake_redis_behave(&f.fake, FAKE_HONEST);
        fake_redis_drop(&f.fake);
        uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
        while ((look_up(&look, "a") < 0 || !is_there(&look, "one")) && test_now_ms() < until)
            turn(&f);
        assert_true(is_there(&look, "one"));
        free(look.bytes);
        close_both(&f);
    }
    log_setup(2, LOG_ERROR, false);
    ssize_t len = pread(fd, log, sizeof log - 1, 0);
    assert_true(len > 0);
    assert_non_null(strstr(log, "answers GETRANGE with OOM"));
    assert_non_null(strstr(log, "does not speak as Redis does"));
    assert_null(strstr(log, "hunter2"));
    close(fd);
    unlink(path);
}

/* One that hangs costs a wait once, not every time. */
static void a_late_one_is_not_asked(void **state)
{
    (void)state;
    struct fixture f;
    struct look look = {.f = &f}, other = {.f = &f};
    open_both(&f, WAIT_MS, NULL);
    fake_redis_behave(&f.fake, FAKE_SILENT);
    assert_true(look_up(&look, "a") >= WAIT_MS - 1);
    while (redis_client_get(f.client, "a", WAIT_MS, on_found, &other)) /* until it is late */
        turn(&f);
    size_t asked = atomic_load(&f.fake.gets);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(look_up(&look, "a"), -1);
        assert_false(redis_client_set(f.client, "a", "b", 1, 1));
        turn(&f);
    }
    assert_int_equal(atomic_load(&f.fake.gets), asked);
    assert_true(stats(&f).is_ready && stats(&f).skipped >= 200);
    free(other.bytes);
    close_both(&f);
}

static void no_more_wait_than_there_is_room(void **state)
{
    (void)state;
    struct fixture f;
    struct look look = {.f = &f};
    size_t sent = 0;
    open_both(&f, LONG_WAIT_MS, NULL);
    fake_redis_behave(&f.fake, FAKE_SILENT);
    for (int i = 0; i < 2 * REDIS_WAITING_MAX; i++)
        sent += redis_client_get(f.client, "a", 1, on_found, &look) != 0;
    assert_true(sent == REDIS_WAITING_MAX);
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (look.calls < sent && test_now_ms() < until)
        turn(&f);
    assert_int_equal(look.calls, sent);
    close_both(&f);
}

static void who_was_cancelled_is_not_called(void **state)
{
    (void)state;
    struct fixture f;
    struct look gone = {.f = &f}, look = {.f = &f};
    open_both(&f, LONG_WAIT_MS, NULL);
    fake_redis_put(&f.fake, "a", "one", 3);
    uint64_t ticket = redis_client_get(f.client, "a", LONG_WAIT_MS, on_found, &gone);
    assert_true(ticket);
    redis_client_cancel(f.client, ticket);
    assert_true(look_up(&look, "a") >= 0 && is_there(&look, "one"));
    redis_client_cancel(f.client, ticket); /* long over */
    redis_client_cancel(f.client, ticket + 100);
    assert_int_equal(gone.calls, 0);
    free(look.bytes);
    close_both(&f);
}

static void closing_tells_nobody(void **state)
{
    (void)state;
    for (int inside = 0; inside < 2; inside++) {
        struct fixture f;
        struct look first = {.f = &f, .closes = inside}, second = {.f = &f};
        open_both(&f, LONG_WAIT_MS, NULL);
        assert_true(redis_client_get(f.client, "a", LONG_WAIT_MS, on_found, &first));
        assert_true(redis_client_get(f.client, "a", LONG_WAIT_MS, on_found, &second));
        uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
        while (inside && !first.calls && test_now_ms() < until)
            turn(&f);
        assert_int_equal(first.calls, inside);
        if (!inside)
            redis_client_close(f.client);
        uv_run(net_loop_uv(f.loop), UV_RUN_NOWAIT);
        assert_int_equal(second.calls, 0);
        net_loop_free(f.loop);
        fake_redis_stop(&f.fake);
    }
}

static void nobody_there_is_no_error(void **state)
{
    (void)state;
    struct fixture f;
    struct look look = {.f = &f};
    fake_redis_start(&f.fake, FAKE_HONEST);
    uint16_t port = f.fake.port;
    fake_redis_stop(&f.fake);
    f.fake.port = port;
    f.wait_ms = LONG_WAIT_MS;
    open_client(&f, &(struct redis_params){.host = "localhost"});
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (stats(&f).failures < 3 && test_now_ms() < until) {
        assert_int_equal(look_up(&look, "a"), -1);
        turn(&f);
    }
    assert_true(stats(&f).failures >= 3 && !stats(&f).is_ready && stats(&f).skipped > 0);
    redis_client_close(f.client);
    net_loop_free(f.loop);
    open_client(&f, &(struct redis_params){.host = "no.such.name.invalid"});
    redis_client_close(f.client); /* while the name is being looked up, or before */
    net_loop_free(f.loop);
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
        cmocka_unit_test(values_come_back),
        cmocka_unit_test(whatever_it_does_is_over_afterwards),
        cmocka_unit_test(a_late_one_is_not_asked),
        cmocka_unit_test(no_more_wait_than_there_is_room),
        cmocka_unit_test(who_was_cancelled_is_not_called),
        cmocka_unit_test(closing_tells_nobody),
        cmocka_unit_test(nobody_there_is_no_error),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
