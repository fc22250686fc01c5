#include <stdatomic.h>
#include <uv.h>

#include "base/queue.h"
#include "test_support.h"

#define MS ((uint64_t)1000000)

static void order_and_bounds_are_kept(void **state)
{
    (void)state;
    struct queue *queue;
    int items[7];
    assert_int_equal(queue_create(&queue, 0), PH_ERR_ARG);
    assert_null(queue);
    assert_int_equal(queue_create(&queue, SIZE_MAX / 2), PH_ERR_NOMEM);
    assert_int_equal(queue_create(&queue, 3), PH_OK);
    assert_null(queue_get(queue));
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 3; i++)
            assert_int_equal(queue_put(queue, &items[i]), PH_OK);
        assert_int_equal(queue_put(queue, &items[3]), PH_ERR_BUSY);
        assert_int_equal(queue_len(queue), 3);
        assert_ptr_equal(queue_get(queue), &items[0]);
        assert_int_equal(queue_put(queue, &items[4]), PH_OK);
        assert_ptr_equal(queue_get(queue), &items[1]);
        assert_ptr_equal(queue_wait(queue, 0), &items[2]);
        assert_ptr_equal(queue_wait(queue, UINT64_MAX), &items[4]);
        assert_int_equal(queue_len(queue), 0);
    }
    queue_free(queue);
    queue_free(NULL);
}

static void waiting_ends_with_the_timeout(void **state)
{
    (void)state;
    struct queue *queue;
    assert_int_equal(queue_create(&queue, 1), PH_OK);
    uint64_t start = uv_hrtime();
    assert_null(queue_wait(queue, 20 * MS));
    assert_true(uv_hrtime() - start >= 20 * MS);
    queue_free(queue);
}

static void a_closed_queue_gives_what_it_holds(void **state)
{
    (void)state;
    struct queue *queue;
    int item;
    assert_int_equal(queue_create(&queue, 2), PH_OK);
    assert_int_equal(queue_put(queue, &item), PH_OK);
    queue_close(queue);
    assert_int_equal(queue_put(queue, &item), PH_ERR_CANCELLED);
    assert_ptr_equal(queue_wait(queue, UINT64_MAX), &item);
    assert_null(queue_wait(queue, UINT64_MAX));
    queue_free(queue);
}

struct waiter {
    struct queue *queue;
    uv_sem_t about_to_wait;
};

static void wait_for_close(void *ud)
{
    struct waiter *waiter = ud;
    uv_sem_post(&waiter->about_to_wait);
    assert_null(queue_wait(waiter->queue, UINT64_MAX));
}

/* Many rounds, so that the waiters are asleep in some and still on their way in others. */
static void closing_wakes_every_waiter(void **state)
{
    (void)state;
    for (int round = 0; round < 50; round++) {
        struct waiter waiter;
        uv_thread_t threads[3];
        assert_int_equal(queue_create(&waiter.queue, 2), PH_OK);
        assert_int_equal(uv_sem_init(&waiter.about_to_wait, 0), 0);
        for (int i = 0; i < 3; i++)
            assert_int_equal(uv_thread_create(&threads[i], wait_for_close, &waiter), 0);
        for (int i = 0; i < 3; i++)
            uv_sem_wait(&waiter.about_to_wait);
        uv_sleep(round % 3 ? 0 : 1);
        queue_close(waiter.queue);
        for (int i = 0; i < 3; i++)
            uv_thread_join(&threads[i]);
        uv_sem_destroy(&waiter.about_to_wait);
        queue_free(waiter.queue);
    }
}

enum { PRODUCERS = 3, CONSUMERS = 3, ITEMS = 5000 };

struct item {
    int producer, number;
};

struct shared {
    struct queue *queue;
    struct item items[PRODUCERS][ITEMS];
    atomic_int taken[PRODUCERS][ITEMS];
    atomic_int next_producer;
    atomic_int disorder;
};

static void produce(void *ud)
{
    struct shared *shared = ud;
    int me = atomic_fetch_add(&shared->next_producer, 1);
    for (int i = 0; i < ITEMS; i++) {
        shared->items[me][i] = (struct item){me, i};
        while (queue_put(shared->queue, &shared->items[me][i]) == PH_ERR_BUSY)
            uv_sleep(0);
    }
}

/* One consumer sees the items of one producer in their order, whoever else takes some between. */
static void consume(void *ud)
{
    struct shared *shared = ud;
    int last[PRODUCERS] = {-1, -1, -1};
    for (struct item *item; (item = queue_wait(shared->queue, UINT64_MAX));) {
        if (item->number <= last[item->producer])
            atomic_fetch_add(&shared->disorder, 1);
        last[item->producer] = item->number;
        atomic_fetch_add(&shared->taken[item->producer][item->number], 1);
    }
}

static void nothing_is_lost_or_doubled_between_threads(void **state)
{
    (void)state;
    struct shared *shared = calloc(1, sizeof *shared);
    uv_thread_t producers[PRODUCERS], consumers[CONSUMERS];
    assert_int_equal(queue_create(&shared->queue, 16), PH_OK);
    for (int i = 0; i < CONSUMERS; i++)
        assert_int_equal(uv_thread_create(&consumers[i], consume, shared), 0);
    for (int i = 0; i < PRODUCERS; i++)
        assert_int_equal(uv_thread_create(&producers[i], produce, shared), 0);
    for (int i = 0; i < PRODUCERS; i++)
        uv_thread_join(&producers[i]);
    queue_close(shared->queue);
    for (int i = 0; i < CONSUMERS; i++)
        uv_thread_join(&consumers[i]);
    for (int p = 0; p < PRODUCERS; p++)
        for (int i = 0; i < ITEMS; i++)
            assert_int_equal(shared->taken[p][i], 1);
    assert_int_equal(shared->disorder, 0);
    queue_free(shared->queue);
    free(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_and_bounds_are_kept),
        cmocka_unit_test(waiting_ends_with_the_timeout),
        cmocka_unit_test(a_closed_queue_gives_what_it_holds),
        cmocka_unit_test(closing_wakes_every_waiter),
        cmocka_unit_test(nothing_is_lost_or_doubled_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
