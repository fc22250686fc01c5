/* From messages in a store to vectors of a user: indexing that goes on where it was, and what the vectors
 * know of deletions. */
#include <math.h>
#include <stdio.h>

#include <uv.h>

#include "base/file.h"
#include "engine/embedder.h"
#include "memory/embed.h"
#include "memory/lexical.h"
#include "memory/vectors.h"
#include "model/tiny_bert.h"
#include "store_support.h"

struct fixture {
    struct store_test *store;
    struct embed_space *space;
    struct vector_home *home;
    struct vectors *vectors;
    char words[128], dir[128];
};

static void open_lexical(struct fixture *f)
{
    embed_space_free(f->space);
    if (embed_space_lexical(&f->space, f->store->store, f->words, &f->store->err) != PH_OK)
        fail_msg("%s", f->store->err.message);
}

static void fixture_open(struct fixture *f, void **state)
{
    *f = (struct fixture){.store = *state};
    snprintf(f->words, sizeof f->words, "%s/words", f->store->dir);
    snprintf(f->dir, sizeof f->dir, "%s-vectors", f->store->dir);
    assert_int_equal(vector_home_open(&f->home, f->dir, &f->store->err), PH_OK);
}

static void fixture_close(struct fixture *f)
{
    vectors_close(f->vectors);
    vector_home_close(f->home);
    embed_space_free(f->space);
    assert_int_equal(file_remove_dir(f->dir, NULL), PH_OK);
}

static int64_t user_number(struct fixture *f, const char *name)
{
    struct store_user user;
    assert_int_equal(store_find_user(f->store->store, &f->store->arena, name, &user, &f->store->err), PH_OK);
    return user.number;
}

static void open_vectors(struct fixture *f, const char *user)
{
    struct vectors_params params = {.home = f->home,
                                    .user = user_number(f, user),
                                    .space = embed_space_name(f->space),
                                    .width = embed_space_width(f->space)};
    vectors_close(f->vectors);
    assert_int_equal(vectors_open(&f->vectors, &params, &f->store->err), PH_OK);
}

static void update(struct fixture *f, size_t count)
{
    if (vectors_update(f->vectors, f->store->store, &f->store->err) != PH_OK)
        fail_msg("%s", f->store->err.message);
    assert_int_equal(vectors_count(f->vectors), count);
}

static struct embed_index_result run_index(struct fixture *f, bool (*progress)(void *, int64_t, int64_t),
                                           void *ud, enum ph_status want)
{
    struct embed_index_result result;
    struct embed_index_params params = {
        .store = f->store->store, .space = f->space, .progress = progress, .ud = ud};
    assert_int_equal(embed_index(&params, &result, &f->store->err), want);
    return result;
}

/* The message that is nearest to a text. */
static int64_t nearest(struct fixture *f, const char *text)
{
    float query[1024];
    struct vectors_hit hit = {0};
    struct embed_text one = {text, strlen(text)};
    assert_true(embed_space_width(f->space) <= 1024);
    assert_int_equal(embed_texts(f->space, &one, 1, false, query, &f->store->err), PH_OK);
    (void)vectors_search(f->vectors, query, 1, NULL, &hit);
    return hit.message;
}

static void say(struct fixture *f, const char *user, const char *key, const char *text, int kind)
{
    struct store_message message = store_test_message(NULL, text);
    message.content_kind = kind;
    struct store_append append = {
        .user = user, .key = key, .messages = &message, .count = 1, .at = STORE_AT_END};
    assert_int_equal(store_test_append(f->store, &append, NULL), PH_OK);
}

static void test_index_and_find(void **state)
{
    struct fixture f;
    fixture_open(&f, state);
    say(&f, "ann", "a", "the lighthouse in norway was cold", STORE_CONTENT_TEXT);
    say(&f, "ann", "a",
        "[{\"type\":\"text\",\"text\":\"my knee hurts\"},{\"type\":\"image_url\"},"
        "{\"type\":\"text\",\"text\":\"after the marathon\"}]",
        STORE_CONTENT_JSON);
    say(&f, "ann", "b", "", STORE_CONTENT_TEXT);
    say(&f, "bob", "a", "bob's lighthouse is in chile", STORE_CONTENT_TEXT);
    say(&f, "ann", "b", "two eggs and a pinch of salt", STORE_CONTENT_TEXT);
    open_lexical(&f);
    struct embed_index_result result = run_index(&f, NULL, NULL, PH_OK);
    assert_int_equal(result.users, 2);
    assert_int_equal(result.messages, 5);
    assert_int_equal(result.embedded, 4);
    open_vectors(&f, "ann");
    update(&f, 3);
    struct store_messages a = store_test_messages(f.store, "ann", "a");
    assert_int_equal(nearest(&f, "norwegian lighthouses"), a.items[0].number);
    assert_int_equal(nearest(&f, "marathon knees"), a.items[1].number);
    result = run_index(&f, NULL, NULL, PH_OK);
    assert_int_equal(result.embedded, 0);
    say(&f, "ann", "c", "a flight to lisbon", STORE_CONTENT_TEXT);
    result = run_index(&f, NULL, NULL, PH_OK);
    assert_int_equal(result.embedded, 1);
    update(&f, 4);
    open_vectors(&f, "bob"); /* nothing of ann's */
    update(&f, 1);
    fixture_close(&f);
}

static bool stop_after_two(void *ud, int64_t done, int64_t total)
{
    int *calls = ud;
    assert_true(done <= total && total == 1000);
    return ++*calls < 2;
}

static void test_resume(void **state)
{
    struct fixture f;
    int calls = 0;
    fixture_open(&f, state);
    store_test_fill(f.store, "ann", "a", 1000);
    open_lexical(&f);
    struct embed_index_result first = run_index(&f, stop_after_two, &calls, PH_ERR_CANCELLED);
    assert_int_equal(first.embedded, 512);
    struct embed_index_result rest = run_index(&f, NULL, NULL, PH_OK);
    assert_int_equal(rest.embedded, 488);
    open_vectors(&f, "ann");
    update(&f, 1000);
    open_vectors(&f, "ann"); /* from its file */
    assert_int_equal(vectors_count(f.vectors), 1000);
    fixture_close(&f);
}

static void test_deletions(void **state)
{
    struct fixture f;
    fixture_open(&f, state);
    store_test_fill(f.store, "ann", "a", 20);
    store_test_fill(f.store, "ann", "b", 10);
    open_lexical(&f);
    (void)run_index(&f, NULL, NULL, PH_OK);
    open_vectors(&f, "ann");
    update(&f, 30);
    struct store_messages b = store_test_messages(f.store, "ann", "b");
    float x[LEXICAL_WIDTH];
    assert_true(vectors_get(f.vectors, b.items[0].number, x));
    assert_int_equal(store_test_delete(f.store, STORE_DELETE_CONVERSATION, "ann", "b", NULL), PH_OK);
    update(&f, 20);
    assert_false(vectors_get(f.vectors, b.items[0].number, x));
    struct store_messages a = store_test_messages(f.store, "ann", "a");
    assert_int_equal(store_test_delete(f.store, STORE_DELETE_MESSAGE, "ann", "a", a.items[3].id), PH_OK);
    update(&f, 19);
    assert_false(vectors_get(f.vectors, a.items[3].number, x));
    assert_int_equal(store_test_delete(f.store, STORE_DELETE_USER, "ann", NULL, NULL), PH_OK);
    update(&f, 0);
    fixture_close(&f);
}

/* A file of another state of the store: as many vectors, of the same messages, other numbers. */
static void test_other_store(void **state)
{
    struct fixture f;
    float x[LEXICAL_WIDTH] = {1}, y[LEXICAL_WIDTH];
    fixture_open(&f, state);
    store_test_fill(f.store, "ann", "a", 5);
    open_lexical(&f);
    (void)run_index(&f, NULL, NULL, PH_OK);
    open_vectors(&f, "ann");
    struct store_messages a = store_test_messages(f.store, "ann", "a");
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(vectors_add(f.vectors, a.items[i].number, 1, x, &f.store->err), PH_OK);
    update(&f, 5);
    assert_true(vectors_get(f.vectors, a.items[4].number, y));
    assert_true(fabsf(y[0]) < 0.9f);
    fixture_close(&f);
}

/* Statistics of a few messages are outgrown: another space, and everything is indexed again. */
static void test_statistics(void **state)
{
    struct fixture f;
    char before[256];
    fixture_open(&f, state);
    open_lexical(&f);
    snprintf(before, sizeof before, "%s", embed_space_name(f.space));
    open_lexical(&f);
    assert_string_equal(before, embed_space_name(f.space));
    store_test_fill(f.store, "ann", "a", 200);
    open_lexical(&f);
    assert_string_not_equal(before, embed_space_name(f.space));
    snprintf(before, sizeof before, "%s", embed_space_name(f.space));
    store_test_fill(f.store, "ann", "b", 200);
    open_lexical(&f);
    assert_string_equal(before, embed_space_name(f.space));
    (void)run_index(&f, NULL, NULL, PH_OK);
    open_vectors(&f, "ann");
    update(&f, 400);
    assert_int_equal(embed_lexical_forget(f.store->store, f.words, &f.store->err), PH_OK);
    assert_false(file_exists(f.words));
    update(&f, 0);
    assert_int_equal(embed_lexical_forget(f.store->store, f.words, &f.store->err), PH_OK);
    fixture_close(&f);
}

static void test_model(void **state)
{
    struct fixture f;
    struct tiny_bert tiny = {.type = TENSOR_F32}, other_tiny = {.type = TENSOR_Q8_0};
    struct embedder *embedder, *other;
    struct embed_space *other_space;
    struct ph_err err;
    tiny_bert_write(&tiny);
    tiny_bert_write(&other_tiny);
    struct embedder_params params = {.model_path = tiny.path, .threads = 1};
    struct embedder_params other_params = {.model_path = other_tiny.path, .threads = 1};
    assert_int_equal(embedder_open(&embedder, &params, &err), PH_OK);
    assert_int_equal(embedder_open(&other, &other_params, &err), PH_OK);
    fixture_open(&f, state);
    say(&f, "ann", "a", "ab cd", STORE_CONTENT_TEXT);
    say(&f, "ann", "a", "xyz xyz xyz", STORE_CONTENT_TEXT);
    char longer[1001]; /* beyond what the model reads: cut */
    for (size_t i = 0; i < 1000; i++)
        longer[i] = i % 2 ? ' ' : 'q';
    longer[1000] = 0;
    say(&f, "ann", "a", longer, STORE_CONTENT_TEXT);
    assert_int_equal(embed_space_of_model(&f.space, embedder, &err), PH_OK);
    assert_int_equal(embed_space_of_model(&other_space, other, &err), PH_OK);
    assert_string_not_equal(embed_space_name(f.space), embed_space_name(other_space));
    struct embed_index_result result = run_index(&f, NULL, NULL, PH_OK);
    assert_int_equal(result.embedded, 3);
    open_vectors(&f, "ann");
    update(&f, 3);
    struct store_messages a = store_test_messages(f.store, "ann", "a");
    assert_int_equal(nearest(&f, "xyz xyz xyz"), a.items[1].number);
    assert_int_equal(nearest(&f, "ab cd"), a.items[0].number);
    embed_space_free(other_space);
    fixture_close(&f);
    embedder_free(embedder);
    embedder_free(other);
    tiny_bert_remove(&tiny);
    tiny_bert_remove(&other_tiny);
}

static struct store *give_store(void *ud)
{
    return ((struct fixture *)ud)->store->store;
}

/* Until so many vectors were made, or a long time has passed. */
static void wait_for(struct embed_worker *worker, int64_t embedded)
{
    struct embed_worker_stats stats = {0};
    for (int i = 0; i < 2000 && stats.embedded < embedded; i++) {
        embed_worker_stats_read(worker, &stats);
        uv_sleep(5);
    }
    assert_int_equal(stats.embedded, embedded);
    assert_false(stats.failed);
}

static void test_worker(void **state)
{
    struct fixture f;
    struct tiny_bert tiny = {.type = TENSOR_F32};
    struct embedder *embedder;
    struct embed_worker *worker;
    struct ph_err err;
    tiny_bert_write(&tiny);
    fixture_open(&f, state);
    struct embedder_params params = {.model_path = tiny.path, .threads = 1};
    assert_int_equal(embedder_open(&embedder, &params, &err), PH_OK);
    store_test_fill(f.store, "ann", "a", 300);
    struct embed_worker_params how = {.embedder = embedder, .store = give_store, .ud = &f, .interval_ms = 5};
    assert_int_equal(embed_worker_start(&worker, &how, &err), PH_OK);
    wait_for(worker, 300);
    store_test_fill(f.store, "bob", "a", 20); /* while it runs */
    say(&f, "ann", "a", "one more", STORE_CONTENT_TEXT);
    wait_for(worker, 321);
    embed_worker_stop(worker);
    assert_int_equal(embed_space_of_model(&f.space, embedder, &err), PH_OK);
    open_vectors(&f, "ann");
    update(&f, 301);
    fixture_close(&f);
    embedder_free(embedder);
    tiny_bert_remove(&tiny);
}

int main(void)
{
#define TEST(function)                                                                        \
    cmocka_unit_test_prestate_setup_teardown(function, store_test_setup, store_test_teardown, \
                                             (void *)(uintptr_t)&store_backend_sqlite)
    const struct CMUnitTest tests[] = {
        TEST(test_index_and_find), TEST(test_resume), TEST(test_deletions), TEST(test_other_store),
        TEST(test_statistics),     TEST(test_model),  TEST(test_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
