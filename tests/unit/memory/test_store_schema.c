/* Stores of other times: one of schema 1 is brought up to date with all that is in it, a newer one is left
 * alone; and dictionaries, how they come and go. */
#include "store_support.h"

#include "base/file.h"
#include "memory/store_int.h"

static void exec(struct store_db *db, const char *sql)
{
    struct ph_err err = {.code = PH_OK};
    enum ph_status status = db->driver->exec(db, sql, &err);
    if (status != PH_OK)
        print_message("%s\n", err.message);
    assert_int_equal(status, PH_OK);
}

static struct store_db *open_raw(const struct store_test *test)
{
    struct store_params params = {.dir = test->dir};
    struct store_db *db = NULL;
    assert_int_equal(store_driver_sqlite.open(&params, store_sql, STORE_SQL_COUNT, &db, NULL), PH_OK);
    return db;
}

static void test_schema_1_is_brought_up(void **state)
{
    struct store_test *test = *state;
    store_test_close(test);
    test->backend->remove(test->dir, test->url);
    assert_true(test->backend->make(test->dir, test->url));
    struct store_db *db = open_raw(test);
    exec(db, store_schema_begin);
    exec(db, store_migrations[0]);
    exec(db, "INSERT INTO state VALUES (1, 1, 3, 0, 0);"
             "INSERT INTO users VALUES (1, 'ann', 5, 0);"
             "INSERT INTO conversations VALUES (2, 1, 'k', '', '', 6, 7, 1, 1, 3);"
             "INSERT INTO messages VALUES (2, 0, 1, 3, NULL, 9, 7, -1, CAST('uold times' AS BLOB));");
    db->driver->close(db);
    store_test_open(test);
    struct store_messages got = store_test_messages(test, "ann", "k");
    assert_int_equal(got.count, 1);
    assert_string_equal(got.items[0].content, "old times");
    assert_string_equal(got.items[0].role, "user");
    assert_int_equal(got.items[0].tokens, 9);
    struct store_write write = {
        .kind = STORE_RESPOND, .user = "ann", .u.response = {.id = "r", .json = "{}", .json_len = 2}};
    assert_int_equal(store_write(test->store, &write, NULL, &test->err), PH_OK);
    store_test_fill(test, "ann", "k", 2);
    store_test_reopen(test);
    assert_int_equal(store_test_messages(test, "ann", "k").count, 3);
    struct store_stat stat;
    assert_int_equal(store_stat(test->store, &stat, NULL, NULL, &test->err), PH_OK);
    assert_int_equal(stat.schema, STORE_SCHEMA);
    assert_int_equal(stat.responses, 1);
    store_test_sound(test);
}

static void test_newer_schema_is_refused(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "ann", "k", 1);
    store_test_close(test);
    struct store_db *db = open_raw(test);
    exec(db, "UPDATE state SET schema = 99");
    db->driver->close(db);
    struct store_params params = {.dir = test->dir, .clock = &test->clock};
    assert_int_equal(store_open(&test->store, &params, &test->err), PH_ERR_UNSUPPORTED);
    assert_non_null(strstr(test->err.message, "99"));
    params.read_only = true;
    assert_int_equal(store_open(&test->store, &params, &test->err), PH_ERR_UNSUPPORTED);
    db = open_raw(test);
    exec(db, "UPDATE state SET schema = 2");
    db->driver->close(db);
    store_test_open(test);
    assert_int_equal(store_test_messages(test, "ann", "k").count, 1);
}

/* ---- Dictionaries */

static void tidy(struct store_test *test)
{
    struct store_write write = {.kind = STORE_TIDY};
    assert_int_equal(store_write(test->store, &write, NULL, &test->err), PH_OK);
}

static int64_t dictionaries(struct store_test *test, double *share)
{
    struct store_stat stat;
    assert_int_equal(store_stat(test->store, &stat, NULL, NULL, &test->err), PH_OK);
    *share = stat.text_bytes ? (double)stat.stored_bytes / (double)stat.text_bytes : 1;
    return stat.dictionaries;
}

static bool is_in_file(const struct store_test *test, const char *name, const char *text)
{
    char path[128];
    struct buf bytes;
    bool found = false;
    snprintf(path, sizeof path, "%s/%s", test->dir, name);
    if (!file_exists(path))
        return false;
    buf_init(&bytes, (size_t)64 << 20);
    assert_int_equal(file_read(path, &bytes, NULL), PH_OK);
    for (size_t i = 0; i + strlen(text) <= bytes.len && !found; i++)
        found = memcmp(bytes.data + i, text, strlen(text)) == 0;
    buf_release(&bytes);
    return found;
}

static void test_dictionary_comes_and_goes(void **state)
{
    struct store_test *test = *state;
    double share;
    for (int i = 0; i < 6; i++) {
        store_test_fill(test, "annabel the first", i % 2 ? "a" : "b", 500);
        store_test_fill(test, "bobolink the second", i % 2 ? "a" : "b", 500);
    }
    tidy(test);
    assert_int_equal(dictionaries(test, &share), 1);
    assert_true(share < 0.4);
    store_test_reopen(test);
    struct store_messages got = store_test_messages(test, "bobolink the second", "a");
    assert_int_equal(got.count, 1500);
    assert_string_equal(got.items[700].content, "what bobolink the second said as number 200");
    store_test_sound(test);
    store_test_fill(test, "annabel the first", "c", 7000);
    tidy(test); /* one for more messages takes the old one's place */
    assert_int_equal(dictionaries(test, &share), 1);
    assert_true(share < 0.4);
    assert_int_equal(store_test_delete(test, STORE_DELETE_USER, "annabel the first", NULL, NULL), PH_OK);
    store_test_close(test);
    static const char *const names[] = {"store.db", "store.db-wal", "store.db-shm"};
    for (size_t i = 0; i < 3; i++)
        assert_false(is_in_file(test, names[i], "annabel"));
    store_test_open(test);
    got = store_test_messages(test, "bobolink the second", "a");
    assert_string_equal(got.items[1499].content, "what bobolink the second said as number 499");
    store_test_sound(test);
    assert_int_equal(store_test_delete(test, STORE_DELETE_USER, "bobolink the second", NULL, NULL), PH_OK);
    assert_int_equal(dictionaries(test, &share), 0);
    store_test_close(test);
    for (size_t i = 0; i < 3; i++)
        assert_false(is_in_file(test, names[i], "bobolink"));
    store_test_open(test);
}

/* Another process replaces the dictionary that this one packs and reads with. */
static void test_dictionary_changes_under_our_hands(void **state)
{
    struct store_test *test = *state, other = *test;
    double share;
    arena_init(&other.arena, (size_t)64 << 20);
    store_test_fill(test, "ann", "a", 3000);
    tidy(test);
    store_test_open(&other);
    assert_int_equal(store_test_messages(&other, "ann", "a").count, 3000);
    store_test_fill(test, "bob", "b", 9000);
    tidy(test);
    assert_int_equal(dictionaries(test, &share), 1);
    store_test_fill(&other, "ann", "a", 10); /* packed with the old one, and packed anew by the writer */
    struct store_messages got = store_test_messages(&other, "ann", "a");
    assert_int_equal(got.count, 3010);
    assert_string_equal(got.items[3009].content, "what ann said as number 9");
    store_test_sound(test);
    store_test_close(&other);
    arena_release(&other.arena);
}

/* ---- The codec */

static void test_codec_refuses_damage(void **state)
{
    (void)state;
    struct store_codec codec;
    struct arena arena;
    char text[4096];
    arena_init(&arena, (size_t)64 << 20);
    assert_int_equal(store_codec_init(&codec, NULL), PH_OK);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "the quick brown fox jumps over a lazy dog "[i % 42];
    for (size_t len = 0; len <= sizeof text; len = len < 300 ? len + 1 : len * 2) {
        struct store_body body;
        const char *back;
        size_t back_len;
        assert_int_equal(store_codec_pack(&codec, &arena, 0, text, len, &body, NULL), PH_OK);
        assert_true(body.len <= len);
        assert_int_equal(store_codec_unpack(&codec, &arena, &body, &back, &back_len, NULL), PH_OK);
        assert_int_equal(back_len, len);
        assert_memory_equal(back, text, len);
        for (size_t cut = 0; body.coding == STORE_CODING_PLAIN && cut < body.len; cut++) {
            struct store_body less = {body.coding, body.bytes, cut};
            assert_int_equal(store_codec_unpack(&codec, &arena, &less, &back, &back_len, NULL),
                             PH_ERR_FORMAT);
        }
        body.coding = 77;
        assert_int_equal(store_codec_unpack(&codec, &arena, &body, &back, &back_len, NULL), PH_ERR_NOTFOUND);
        arena_clear(&arena);
    }
    store_codec_release(&codec);
    arena_release(&arena);
}

static void on_fault(void *ud, const char *fault)
{
    assert_non_null(strstr(fault, "conversation"));
    ++*(int *)ud;
}

static void test_verify_finds_damage(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "ann", "k", 20);
    store_test_close(test);
    struct store_db *db = open_raw(test);
    exec(db, "UPDATE messages SET coding = 12345 WHERE seq = 3; UPDATE conversations SET messages = 19;");
    db->driver->close(db);
    store_test_open(test);
    int told = 0;
    int64_t faults = 0;
    assert_int_equal(store_verify(test->store, &faults, on_fault, NULL, &told, &test->err), PH_OK);
    assert_int_equal(faults, 2);
    assert_int_equal(told, 2);
    struct store_messages got;
    struct store_range range = {.conversation = store_test_conversation(test, "ann", "k").number};
    assert_int_equal(store_read_messages(test->store, &test->arena, &range, &got, &test->err), PH_ERR_FORMAT);
}

#define TEST(name)                                                                        \
    {                                                                                     \
#name, name, store_test_setup, store_test_teardown, (void *)&store_backend_sqlite \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_schema_1_is_brought_up),           TEST(test_newer_schema_is_refused),
        TEST(test_dictionary_comes_and_goes),        TEST(test_dictionary_changes_under_our_hands),
        cmocka_unit_test(test_codec_refuses_damage), TEST(test_verify_finds_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
