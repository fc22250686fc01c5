/* The loop itself: wake-ups, timers, jobs, signals, stopping. */
#include "test_support.h"

#include <signal.h>

#include "base/limits.h"
#include "net_support.h"

struct fixture {
    struct net_loop *loop;
    struct net_wake *wake;
    struct net_timer *timer;
    uv_sem_t sem;
    atomic_size_t calls, seen;
    int signal_number;
    atomic_bool is_over;
    bool inside;
};

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    struct ph_err err;
    assert_int_equal(net_loop_create(&f->loop, &err), PH_OK);
    assert_int_equal(uv_sem_init(&f->sem, 0), 0);
}

static void teardown(struct fixture *f)
{
    net_loop_free(f->loop);
    uv_sem_destroy(&f->sem);
}

static void finish_on_wake(void *ud)
{
    struct fixture *f = ud;
    f->calls++;
    net_wake_close(f->wake);
    net_loop_stop(f->loop);
}

static void several_wakes_are_one(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(net_wake_open(&f.wake, f.loop, finish_on_wake, &f), PH_OK);
    for (int i = 0; i < 100; i++)
        net_wake_call(f.wake);
    net_loop_run(f.loop);
    assert_int_equal(f.calls, 1);
    teardown(&f);
}

static void look(void *ud)
{
    struct fixture *f = ud;
    f->calls = f->seen;
    if (f->is_over) {
        net_wake_close(f->wake);
        net_loop_stop(f->loop);
    }
}

static void run_loop(void *ud)
{
    net_loop_run(((struct fixture *)ud)->loop);
}

static void call_thousand_times(void *ud)
{
    struct fixture *f = ud;
    for (int i = 0; i < 1000; i++) {
        f->seen++;
        net_wake_call(f->wake);
    }
}

/* The last call is never lost: after it the loop sees all that was done before it. */
static void wakes_come_from_any_thread(void **state)
{
    (void)state;
    struct fixture f;
    uv_thread_t threads[4], runner;
    setup(&f);
    assert_int_equal(net_wake_open(&f.wake, f.loop, look, &f), PH_OK);
    assert_int_equal(uv_thread_create(&runner, run_loop, &f), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(uv_thread_create(&threads[i], call_thousand_times, &f), 0);
    for (int i = 0; i < 4; i++)
        uv_thread_join(&threads[i]);
    assert_true(test_wait_count(&f.calls, 4000));
    f.is_over = true;
    net_wake_call(f.wake);
    uv_thread_join(&runner);
    teardown(&f);
}

static void close_before_called(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(net_wake_open(&f.wake, f.loop, finish_on_wake, &f), PH_OK);
    net_wake_call(f.wake);
    net_wake_close(f.wake);
    net_loop_stop(f.loop);
    net_loop_run(f.loop);
    assert_int_equal(f.calls, 0);
    teardown(&f);
}

static void tick(void *ud)
{
    struct fixture *f = ud;
    assert_false(f->inside);
    if (++f->calls == 3) {
        net_timer_stop(f->timer);
        f->inside = true;
        net_timer_start(f->timer, 0, 0); /* not called inside this */
        f->inside = false;
    } else if (f->calls == 4) {
        net_timer_close(f->timer);
        net_loop_stop(f->loop);
    }
}

static void timers_repeat_and_stop(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(net_timer_open(&f.timer, f.loop, tick, &f), PH_OK);
    uint64_t began = test_now_ms();
    net_timer_start(f.timer, 20, 10);
    net_loop_run(f.loop);
    assert_int_equal(f.calls, 4);
    assert_true(test_now_ms() - began >= 38);
    teardown(&f);
}

static void wait_for_leave(void *ud)
{
    struct fixture *f = ud;
    uv_sem_wait(&f->sem);
    f->seen++;
}

static void job_done(void *ud)
{
    struct fixture *f = ud;
    if (++f->calls == NET_WORK_MAX)
        net_loop_stop(f->loop);
}

static void jobs_are_bounded_and_all_done(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    for (int i = 0; i < NET_WORK_MAX; i++)
        assert_int_equal(net_work(f.loop, wait_for_leave, job_done, &f), PH_OK);
    assert_int_equal(net_work(f.loop, wait_for_leave, job_done, &f), PH_ERR_BUSY);
    for (int i = 0; i < NET_WORK_MAX; i++)
        uv_sem_post(&f.sem);
    net_loop_run(f.loop);
    assert_int_equal(f.calls, NET_WORK_MAX);
    assert_int_equal(f.seen, NET_WORK_MAX);
    teardown(&f);
}

static void note_signal(void *ud, int number)
{
    struct fixture *f = ud;
    f->signal_number = number;
    net_loop_stop(f->loop);
}

static void signals_arrive_on_the_loop(void **state)
{
    (void)state;
    static const int numbers[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        setup(&f);
        assert_int_equal(net_on_signal(f.loop, note_signal, &f), PH_OK);
        raise(numbers[i]);
        net_loop_run(f.loop);
        assert_int_equal(f.signal_number, numbers[i]);
        teardown(&f);
    }
}

static void a_loop_that_never_ran_can_be_freed(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(net_on_signal(f.loop, note_signal, &f), PH_OK);
    teardown(&f);
}

static void ignore(void *ud, struct http_exchange *exchange)
{
    (void)ud;
    (void)exchange;
}

static void ignore_error(void *ud, int status, const char *message, struct buf *out)
{
    (void)ud;
    (void)status;
    (void)message;
    (void)out;
}

/* What a person gets wrong in `listen:` is said in words. */
static void opening_says_what_is_wrong(void **state)
{
    (void)state;
    struct fixture f;
    struct ph_err err = {0};
    struct http_server *first = NULL, *second = NULL;
    struct http_server_params params = {
        .host = "example.org", .clock = clock_system(), .handle = ignore, .encode_error = ignore_error};
    http_limits_default(&params.limits);
    setup(&f);
    assert_int_equal(http_server_open(&first, f.loop, &params, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "example.org"));
    params.host = "localhost";
    assert_int_equal(http_server_open(&first, f.loop, &params, &err), PH_OK);
    params.port = http_server_port(first);
    assert_int_not_equal(params.port, 0);
    assert_int_equal(http_server_open(&second, f.loop, &params, &err), PH_ERR_IO);
    assert_non_null(strstr(err.message, "address already in use"));
    http_server_stop(first, NULL, NULL);
    net_loop_stop(f.loop);
    net_loop_run(f.loop);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_wakes_are_one),
        cmocka_unit_test(wakes_come_from_any_thread),
        cmocka_unit_test(close_before_called),
        cmocka_unit_test(timers_repeat_and_stop),
        cmocka_unit_test(jobs_are_bounded_and_all_done),
        cmocka_unit_test(signals_arrive_on_the_loop),
        cmocka_unit_test(a_loop_that_never_ran_can_be_freed),
        cmocka_unit_test(opening_says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
