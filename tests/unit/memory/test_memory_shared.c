/* Conversations in a Redis that stations share: what one station put there the other takes, and whatever the
 * Redis does or holds, a turn is what it would be without it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "memory/memory_int.h"
#include "net/net_support.h"
#include "net/redis_support.h"
#include "test_support.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define LONG_WAIT_MS 20000 /* for what does come */
#define SHORT_WAIT_MS 40   /* for what does not */

struct fixture {
    char dir[64];
    struct fake_redis fake;
    struct net_loop *loop;
    struct net_wake *stop;
    uv_thread_t thread;
    struct hot *hot;
    struct memory *plain; /* of a station without a Redis, which says what is right */
    struct arena arena;
};

/* ---- A loop on a thread, as a station has it */

static void run_loop(void *ud)
{
    net_loop_run(ud);
}

static void on_stop(void *ud)
{
    struct fixture *f = ud;
    hot_close(f->hot);
    net_wake_close(f->stop);
    net_loop_stop(f->loop);
}

static void start_loop(struct fixture *f, uint32_t wait_ms)
{
    struct ph_err err;
    assert_int_equal(net_loop_create(&f->loop, &err), PH_OK);
    const struct hot_params params = {.loop = f->loop,
                                      .clock = clock_system(),
                                      .host = "127.0.0.1",
                                      .port = f->fake.port,
                                      .wait_ms = wait_ms,
                                      .ttl_s = 77};
    assert_int_equal(hot_open(&f->hot, &params), PH_OK);
    assert_int_equal(net_wake_open(&f->stop, f->loop, on_stop, f), PH_OK);
    assert_int_equal(uv_thread_create(&f->thread, run_loop, f->loop), 0);
}

static void stop_loop(struct fixture *f)
{
    net_wake_call(f->stop);
    uv_thread_join(&f->thread);
    hot_free(f->hot);
    net_loop_free(f->loop);
}

/* Until the Redis has taken so many values; `again` is put until it takes the first. */
static void wait_for_sets(struct fixture *f, size_t count, const char *again)
{
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (atomic_load(&f->fake.sets) < count && test_now_ms() < until) {
        if (again)
            hot_put(f->hot, again, "x", 1);
        test_pause();
    }
    assert_true(atomic_load(&f->fake.sets) >= count);
}

static struct memory *open_memory(struct fixture *f, struct hot *hot)
{
    struct memory *memory;
    struct ph_err err;
    struct memory_params params = {.dir = f->dir, .clock = clock_system(), .hot = hot};
    if (memory_create(&memory, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    return memory;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    log_setup(2, LOG_ERROR, false);
    snprintf(f->dir, sizeof f->dir, "/tmp/pharos-shared-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    arena_init(&f->arena, ARENA_BYTES_MAX);
    fake_redis_start(&f->fake, FAKE_HONEST);
    f->plain = open_memory(f, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    memory_free(f->plain);
    fake_redis_stop(&f->fake);
    arena_release(&f->arena);
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* ---- Conversations */

static void store_now(struct fixture *f, const struct store_write *write)
{
    struct store *store;
    struct ph_err err;
    assert_int_equal(memory_store(f->plain, &store, &err), PH_OK);
    if (store_write(store, write, NULL, &err) != PH_OK)
        fail_msg("%s", err.message);
}

/* Messages FROM to TO, "KEY n", of two who take turns; the fifth of each ten has parts and more. */
static void say(struct fixture *f, const char *key, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        char text[64], id[32];
        bool is_rich = i % 10 == 5;
        snprintf(id, sizeof id, "msg_%s%zu", key, i);
        snprintf(text, sizeof text, is_rich ? "[{\"type\":\"input_text\",\"text\":\"%s %zu\"}]" : "%s %zu",
                 key, i);
        struct store_message message = {.id = id,
                                        .role = i % 2 ? "assistant" : "user",
                                        .name = is_rich ? "Ann" : NULL,
                                        .content = text,
                                        .content_len = strlen(text),
                                        .content_kind = is_rich ? STORE_CONTENT_JSON : STORE_CONTENT_TEXT,
                                        .extra = is_rich ? "{\"metadata\":{\"a\":\"b\"}}" : ""};
        store_now(f, &(struct store_write){
                         .kind = STORE_APPEND,
                         .u.append = {
                             .user = "u", .key = key, .messages = &message, .count = 1, .at = STORE_AT_END}});
    }
}

/* What a model would be sent. */
static const char *sent(struct fixture *f, struct memory *memory, const char *key)
{
    struct chat_message question = {.role = CHAT_USER, .content = {"question", 8}};
    struct chat_request request = {.messages = &question, .message_count = 1, .choices = 1};
    struct memory_turn_params params = {.user = "u", .conversation = key, .request = &request};
    struct memory_turn turn;
    struct ph_err err;
    struct buf out;
    if (memory_turn_open(memory, &params, &turn, &err) != PH_OK)
        fail_msg("%s", err.message);
    buf_init(&out, ARENA_BYTES_MAX);
    for (size_t i = 0; i < turn.message_count; i++) {
        const struct chat_message *m = &turn.messages[i];
        buf_printf(&out, "%d %s: ", (int)m->role, m->name ? m->name : "");
        buf_append(&out, m->content.text, m->content.len);
        buf_putc(&out, '\n');
    }
    memory_turn_release(&turn);
    const char *text = arena_strndup(&f->arena, out.data, out.len);
    buf_release(&out);
    return text;
}

/* A station that begins now and is asked once is right; what the Redis had to do with it. */
static struct memory_stats check(struct fixture *f, const char *key)
{
    struct memory *memory = open_memory(f, f->hot);
    struct memory_stats stats = {.turns = 0};
    assert_string_equal(sent(f, memory, key), sent(f, f->plain, key));
    assert_string_equal(sent(f, memory, key), sent(f, f->plain, key)); /* in memory now */
    uv_mutex_lock(&memory->lock);
    stats = (struct memory_stats){.shared_hits = memory->shared_hits,
                                  .shared_misses = memory->shared_misses,
                                  .shared_refused = memory->shared_refused};
    uv_mutex_unlock(&memory->lock);
    memory_free(memory);
    return stats;
}

static void test_one_station_puts_another_takes(void **state)
{
    struct fixture *f = *state;
    start_loop(f, LONG_WAIT_MS);
    wait_for_sets(f, 1, "probe");
    say(f, "talk", 0, 120);
    size_t sets = atomic_load(&f->fake.sets);
    struct memory_stats first = check(f, "talk");
    assert_int_equal(first.shared_misses, 1);
    wait_for_sets(f, sets + 1, NULL);
    struct memory_stats second = check(f, "talk");
    assert_int_equal(second.shared_hits, 1);
    say(f, "talk", 120, 125); /* what it does not have is the store's */
    assert_int_equal(check(f, "talk").shared_hits, 1);
    say(f, "talk", 125, 160); /* so much more goes there again */
    sets = atomic_load(&f->fake.sets);
    assert_int_equal(check(f, "talk").shared_hits, 1);
    wait_for_sets(f, sets + 1, NULL);
    assert_int_equal(check(f, "talk").shared_hits, 1);
    assert_int_equal(f->fake.values[f->fake.value_count - 1].ttl_s, 77);
    size_t gets = atomic_load(&f->fake.gets);
    say(f, "short", 0, MEMORY_HOT_MESSAGES_MIN - 1); /* not worth a question */
    assert_int_equal(check(f, "short").shared_misses, 0);
    assert_int_equal(atomic_load(&f->fake.gets), gets);
    stop_loop(f);
}

/* One that keeps talking puts it there without ever having loaded it whole. */
static void test_a_growing_conversation_is_there(void **state)
{
    struct fixture *f = *state;
    start_loop(f, LONG_WAIT_MS);
    wait_for_sets(f, 1, "probe");
    struct memory *memory = open_memory(f, f->hot);
    for (size_t i = 0; i < 50; i += 2) {
        say(f, "talk", i, i + 2);
        assert_string_equal(sent(f, memory, "talk"), sent(f, f->plain, "talk"));
    }
    wait_for_sets(f, 1 + 3, NULL); /* at 16, 32, 48 */
    memory_free(memory);
    assert_int_equal(check(f, "talk").shared_hits, 1);
    stop_loop(f);
}

static void test_what_was_deleted_does_not_come_back(void **state)
{
    struct fixture *f = *state;
    start_loop(f, LONG_WAIT_MS);
    wait_for_sets(f, 1, "probe");
    say(f, "talk", 0, 40);
    size_t sets = atomic_load(&f->fake.sets);
    (void)check(f, "talk");
    wait_for_sets(f, sets + 1, NULL);
    struct memory *hot = open_memory(f, f->hot);
    assert_non_null(strstr(sent(f, hot, "talk"), "talk 7\n"));
    store_now(f, &(struct store_write){
                     .kind = STORE_DELETE_MESSAGE, .user = "u", .key = "talk", .id = "msg_talk7"});
    assert_null(strstr(sent(f, hot, "talk"), "talk 7\n")); /* of another station, in memory here */
    memory_free(hot);
    assert_null(strstr(sent(f, f->plain, "talk"), "talk 7\n"));
    struct memory_stats stats = check(f, "talk");
    assert_int_equal(stats.shared_hits, 1); /* put anew by the station that had it in memory */
    store_now(f, &(struct store_write){.kind = STORE_DELETE_USER, .user = "u"});
    say(f, "talk", 100, 140);
    stats = check(f, "talk");
    assert_int_equal(stats.shared_hits, 0);
    stop_loop(f);
}

/* ---- Wrong values */

static size_t flip(void *ud, char *bytes, size_t len)
{
    size_t at = *(size_t *)ud;
    if (at < len)
        bytes[at] = (char)(bytes[at] ^ 1);
    return len;
}

static size_t shorten(void *ud, char *bytes, size_t len)
{
    (void)bytes;
    size_t to = *(size_t *)ud;
    return to < len ? to : len;
}

/* The conversation as it ought to lie there. */
static void find_stored(struct fixture *f, const char *key, struct store_conversation *conversation,
                        struct store_messages *messages)
{
    struct store *store;
    struct ph_err err;
    assert_int_equal(memory_store(f->plain, &store, &err), PH_OK);
    assert_int_equal(store_find_conversation(store, &f->arena, "u", key, conversation, &err), PH_OK);
    struct store_range range = {.conversation = conversation->number};
    assert_int_equal(store_read_messages(store, &f->arena, &range, messages, &err), PH_OK);
}

static void put_value(struct fixture *f, const struct store_conversation *of,
                      const struct store_messages *messages, int64_t deletions)
{
    char name[MEMORY_HOT_NAME_MAX];
    struct buf value;
    buf_init(&value, MEMORY_HOT_BYTES_MAX);
    hot_value_begin(&value);
    for (size_t i = 0; i < messages->count; i++)
        hot_value_add(&value, &messages->items[i]);
    assert_true(hot_value_name(of, name) && hot_value_seal(&value, name, deletions, messages->count));
    fake_redis_put(&f->fake, name, value.data, value.len);
    buf_release(&value);
}

/* It is refused, and the right one put in its place. */
static void check_refused(struct fixture *f, const char *key)
{
    size_t sets = atomic_load(&f->fake.sets);
    assert_int_equal(check(f, key).shared_refused, 1);
    wait_for_sets(f, sets + 1, NULL);
}

static void test_damaged_values_are_refused(void **state)
{
    struct fixture *f = *state;
    struct store_conversation conversation;
    struct store_messages messages;
    start_loop(f, LONG_WAIT_MS);
    wait_for_sets(f, 1, "probe");
    say(f, "talk", 0, 20);
    find_stored(f, "talk", &conversation, &messages);
    put_value(f, &conversation, &messages, 0);
    assert_int_equal(check(f, "talk").shared_hits, 1);
    for (size_t at = 0; at < 400; at += 13) {
        put_value(f, &conversation, &messages, 0);
        fake_redis_change(&f->fake, flip, &at);
        check_refused(f, "talk");
        put_value(f, &conversation, &messages, 0);
        size_t len = at + 1; /* nothing at all is not there */
        fake_redis_change(&f->fake, shorten, &len);
        check_refused(f, "talk");
    }
    stop_loop(f);
}

/* Whole and sealed, and still not this conversation: S1, S2, S3 of memory_shared.c. */
static void test_values_of_other_stores_are_refused(void **state)
{
    struct fixture *f = *state;
    struct store_conversation talk, other;
    struct store_messages messages, foreign, changed;
    start_loop(f, LONG_WAIT_MS);
    wait_for_sets(f, 1, "probe");
    say(f, "talk", 0, 20);
    say(f, "other", 0, 20);
    find_stored(f, "talk", &talk, &messages);
    find_stored(f, "other", &other, &foreign);
    put_value(f, &talk, &foreign, 0);
    check_refused(f, "talk");
    put_value(f, &talk, &messages, 1); /* something was deleted there, or here */
    check_refused(f, "talk");
    find_stored(f, "talk", &talk, &changed);
    changed.items[19].content = "forged!";
    put_value(f, &talk, &changed, 0);
    check_refused(f, "talk");
    find_stored(f, "talk", &talk, &changed);
    changed.items[19].seq += 5; /* behind the end */
    put_value(f, &talk, &changed, 0);
    check_refused(f, "talk");
    find_stored(f, "talk", &talk, &changed);
    changed.items++; /* one is missing */
    changed.count--;
    put_value(f, &talk, &changed, 0);
    check_refused(f, "talk");
    put_value(f, &talk, &messages, 0);
    assert_int_equal(check(f, "talk").shared_hits, 1);
    stop_loop(f);
}

/* ---- Wrong servers */

static void test_whatever_it_does_turns_are_right(void **state)
{
    struct fixture *f = *state;
    say(f, "talk", 0, 40);
    for (int manner = 0; manner < FAKE_MANNERS; manner++) {
        fake_redis_behave(&f->fake, FAKE_HONEST);
        start_loop(f, SHORT_WAIT_MS);
        fake_redis_behave(&f->fake, (enum fake_manner)manner);
        for (int i = 0; i < 5; i++)
            (void)check(f, "talk");
        fake_redis_drop(&f->fake);
        (void)check(f, "talk");
        stop_loop(f);
    }
}

struct asking {
    struct hot *hot;
    bool found;
};

static void ask(void *ud)
{
    struct asking *asking = ud;
    struct buf out;
    buf_init(&out, 1024);
    asking->found = hot_get(asking->hot, "never", &out);
    buf_release(&out);
}

/* Who waits when it is closed goes on at once; who comes later does not wait. */
static void test_closing_while_they_wait(void **state)
{
    struct fixture *f = *state;
    struct asking asking[4];
    uv_thread_t threads[4];
    start_loop(f, LONG_WAIT_MS);
    wait_for_sets(f, 1, "probe");
    fake_redis_behave(&f->fake, FAKE_SILENT);
    uint64_t before = test_now_ms();
    for (int i = 0; i < 4; i++) {
        asking[i] = (struct asking){f->hot, true};
        assert_int_equal(uv_thread_create(&threads[i], ask, &asking[i]), 0);
    }
    while (atomic_load(&f->fake.gets) < 1 && test_now_ms() < before + TEST_DEADLINE_MS)
        test_pause();
    net_wake_call(f->stop);
    uv_thread_join(&f->thread);
    for (int i = 0; i < 4; i++) {
        uv_thread_join(&threads[i]);
        assert_false(asking[i].found);
    }
    ask(&asking[0]);
    hot_put(f->hot, "late", "x", 1);
    assert_false(asking[0].found);
    assert_true(test_now_ms() - before < LONG_WAIT_MS);
    hot_free(f->hot);
    net_loop_free(f->loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_station_puts_another_takes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_growing_conversation_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_deleted_does_not_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_values_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_of_other_stores_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_whatever_it_does_turns_are_right, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_while_they_wait, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
