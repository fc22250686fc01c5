/* The store's contract, the same for every database: the suite is run once for each. */
#include "store_support.h"

#include <inttypes.h>
#include <uv.h>

#include "base/buf.h"

/* ---- What goes in comes out */

static void test_message_comes_back_whole(void **state)
{
    struct store_test *test = *state;
    static const char with_zero[] = "before\0after \xF0\x9F\x98\x80";
    struct store_message given[] = {
        {.id = "msg_abc",
         .role = "assistant",
         .name = "Ann\xC3\xA9",
         .content = with_zero,
         .content_len = sizeof with_zero - 1,
         .extra = "{\"tool_calls\":[{\"id\":\"c\\u0000\"}]}",
         .tokens = 12,
         .created_ms = 1234567890123},
        {.role = "speaker 2", .content_kind = STORE_CONTENT_NONE},
        {.role = "user",
         .content = "[{\"type\":\"text\"}]",
         .content_len = 17,
         .content_kind = STORE_CONTENT_JSON},
        {.role = "user", .content = "", .content_len = 0},
    };
    struct store_append append = {.user = "u",
                                  .key = "k",
                                  .domain = "d",
                                  .metadata = "{\"a\":1}",
                                  .messages = given,
                                  .count = 4,
                                  .at = STORE_AT_END};
    struct store_result result;
    assert_int_equal(store_test_append(test, &append, &result), PH_OK);
    assert_true(result.new_user && result.new_conversation);
    assert_int_equal(result.added, 4);
    assert_int_equal(result.first_seq, 0);
    assert_int_equal(result.next_seq, 4);
    store_test_reopen(test);
    struct store_messages got = store_test_messages(test, "u", "k");
    assert_int_equal(got.count, 4);
    assert_string_equal(got.items[0].id, "msg_abc");
    assert_string_equal(got.items[0].role, "assistant");
    assert_string_equal(got.items[0].name, "Ann\xC3\xA9");
    assert_string_equal(got.items[0].extra, given[0].extra);
    assert_int_equal(got.items[0].content_len, sizeof with_zero - 1);
    assert_memory_equal(got.items[0].content, with_zero, sizeof with_zero - 1);
    assert_int_equal(got.items[0].tokens, 12);
    assert_int_equal(got.items[0].created_ms, 1234567890123);
    assert_int_equal(got.items[0].number, result.first_number);
    assert_string_equal(got.items[1].id, "msg_1");
    assert_string_equal(got.items[1].role, "speaker 2");
    assert_int_equal(got.items[1].content_kind, STORE_CONTENT_NONE);
    assert_int_equal(got.items[1].created_ms, test->now_ms);
    assert_int_equal(got.items[2].content_kind, STORE_CONTENT_JSON);
    assert_int_equal(got.items[3].content_len, 0);
    struct store_conversation conversation = store_test_conversation(test, "u", "k");
    assert_string_equal(conversation.domain, "d");
    assert_string_equal(conversation.metadata, "{\"a\":1}");
    assert_string_equal(conversation.user_name, "u");
    assert_int_equal(conversation.created_ms, 1234567890123);
    assert_int_equal(conversation.updated_ms, test->now_ms);
    assert_int_equal(conversation.messages, 4);
    assert_int_equal(conversation.last_message, got.items[3].number);
    store_test_sound(test);
}

static void test_large_messages_come_back(void **state)
{
    struct store_test *test = *state;
    size_t len = (size_t)20 << 20;
    char *content = malloc(len);
    uint64_t bits = 88172645463325252u;
    for (size_t i = 0; i < len; i++) {
        bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
        content[i] = (char)(bits >> 32 & 0xff);
    }
    struct store_message message = {.role = "user", .content = content, .content_len = len};
    struct store_append append = {
        .user = "u", .key = "k", .messages = &message, .count = 1, .at = STORE_AT_END};
    assert_int_equal(store_test_append(test, &append, NULL), PH_OK);
    struct store_messages got = store_test_messages(test, "u", "k");
    assert_int_equal(got.items[0].content_len, len);
    assert_memory_equal(got.items[0].content, content, len);
    free(content);
}

/* ---- Idempotence and conflicts */

static void test_ids_are_stored_once(void **state)
{
    struct store_test *test = *state;
    struct store_message messages[] = {store_test_message("a", "1"), store_test_message("b", "2"),
                                       store_test_message("c", "3"), store_test_message("b", "again")};
    struct store_append append = {
        .user = "u", .key = "k", .messages = messages, .count = 2, .at = STORE_AT_END};
    struct store_result result;
    assert_int_equal(store_test_append(test, &append, &result), PH_OK);
    assert_int_equal(store_test_append(test, &append, &result), PH_OK);
    assert_int_equal(result.added, 0);
    assert_int_equal(result.present, 2);
    append.count = 4; /* the whole history and one more, that twice */
    assert_int_equal(store_test_append(test, &append, &result), PH_OK);
    assert_int_equal(result.added, 1);
    assert_int_equal(result.present, 3);
    assert_int_equal(result.first_seq, 2);
    append.key = "other"; /* ids are a conversation's own */
    assert_int_equal(store_test_append(test, &append, &result), PH_OK);
    assert_int_equal(result.added, 3);
    struct store_messages got = store_test_messages(test, "u", "k");
    assert_int_equal(got.count, 3);
    assert_string_equal(got.items[2].id, "c");
    assert_memory_equal(got.items[1].content, "2", 1);
    store_test_sound(test);
}

static void test_places_are_taken_once(void **state)
{
    struct store_test *test = *state;
    struct store_message messages[] = {store_test_message(NULL, "1"), store_test_message(NULL, "2"),
                                       store_test_message(NULL, "3")};
    struct store_append append = {.user = "u", .key = "k", .messages = messages, .count = 2, .at = 0};
    struct store_result result;
    assert_int_equal(store_test_append(test, &append, &result), PH_OK);
    append.count = 3;
    assert_int_equal(store_test_append(test, &append, &result), PH_OK);
    assert_int_equal(result.added, 1);
    assert_int_equal(result.present, 2);
    assert_int_equal(result.first_seq, 2);
    append.at = 4; /* a hole */
    assert_int_equal(store_test_append(test, &append, &result), PH_ERR_CONFLICT);
    messages[0].id = "msg_0";
    append.at = STORE_AT_END;
    append.count = 1;
    assert_int_equal(store_test_append(test, &append, &result), PH_OK);
    assert_int_equal(result.present, 1);
    messages[0].id = "msg_7"; /* a place that is not the next one */
    assert_int_equal(store_test_append(test, &append, &result), PH_ERR_CONFLICT);
    messages[0].id = "msg_3";
    assert_int_equal(store_test_append(test, &append, &result), PH_OK);
    assert_int_equal(result.added, 1);
    assert_int_equal(store_test_messages(test, "u", "k").count, 4);
    store_test_sound(test);
}

static void test_racing_writers_are_told(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "u", "k", 2);
    struct store_message mine = store_test_message("mine", "x"), theirs = store_test_message("theirs", "y");
    struct store_append append = {.user = "u", .key = "k", .messages = &theirs, .count = 1, .at = 2};
    assert_int_equal(store_test_append(test, &append, NULL), PH_OK);
    append.messages = &mine;
    assert_int_equal(store_test_append(test, &append, NULL), PH_ERR_CONFLICT);
    assert_non_null(strstr(test->err.message, "k"));
    append.messages = &theirs; /* repeated: it is there where it was wanted */
    assert_int_equal(store_test_append(test, &append, NULL), PH_OK);
    assert_int_equal(store_test_messages(test, "u", "k").count, 3);
}

static void test_must_exist_makes_nothing(void **state)
{
    struct store_test *test = *state;
    struct store_message message = store_test_message("a", "1");
    struct store_append append = {
        .user = "u", .key = "k", .messages = &message, .count = 1, .at = STORE_AT_END, .must_exist = true};
    struct store_user user;
    assert_int_equal(store_test_append(test, &append, NULL), PH_ERR_NOTFOUND);
    assert_int_equal(store_find_user(test->store, &test->arena, "u", &user, NULL), PH_ERR_NOTFOUND);
}

static void test_bad_writes_are_refused(void **state)
{
    struct store_test *test = *state;
    char long_name[STORE_USER_BYTES_MAX + 2];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    struct store_message good = store_test_message("a", "1"), bad = good;
    struct store_append append = {.user = "u", .key = "k", .messages = &good, .count = 1, .at = STORE_AT_END};
    struct store_append wrong = append;
    wrong.user = "";
    assert_int_equal(store_test_append(test, &wrong, NULL), PH_ERR_ARG);
    wrong.user = long_name;
    assert_int_equal(store_test_append(test, &wrong, NULL), PH_ERR_LIMIT);
    wrong.user = "\xff";
    assert_int_equal(store_test_append(test, &wrong, NULL), PH_ERR_ARG);
    wrong = append;
    wrong.metadata = "[1]";
    assert_int_equal(store_test_append(test, &wrong, NULL), PH_ERR_ARG);
    wrong = append;
    wrong.messages = &bad;
    bad.role = "";
    assert_int_equal(store_test_append(test, &wrong, NULL), PH_ERR_ARG);
    bad = good;
    bad.extra = "{";
    assert_int_equal(store_test_append(test, &wrong, NULL), PH_ERR_ARG);
    bad = good;
    bad.content_len = (size_t)STORE_MESSAGE_BYTES_MAX + 1;
    assert_int_equal(store_test_append(test, &wrong, NULL), PH_ERR_LIMIT);
    assert_int_equal(store_test_append(test, &append, NULL), PH_OK);
}

/* ---- Reading */

static void test_ranges(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "u", "k", 2500);
    store_test_fill(test, "u", "other", 3);
    int64_t conversation = store_test_conversation(test, "u", "k").number;
    static const struct {
        struct store_range range;
        size_t count;
        int64_t first, last;
        bool more;
    } cases[] = {
        {{.from_seq = 0}, 2500, 0, 2499, false},
        {{.from_seq = 10, .to_seq = 20}, 10, 10, 19, false},
        {{.from_seq = 10, .limit = 5}, 5, 10, 14, true},
        {{.newest_first = true, .limit = 20}, 20, 2499, 2480, true},
        {{.newest_first = true, .to_seq = 20, .limit = 20}, 20, 19, 0, false},
        {{.from_seq = 2490, .limit = 10}, 10, 2490, 2499, false},
        {{.from_seq = 3000}, 0, 0, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store_range range = cases[i].range;
        struct store_messages got;
        range.conversation = conversation;
        assert_int_equal(store_read_messages(test->store, &test->arena, &range, &got, &test->err), PH_OK);
        assert_int_equal(got.count, cases[i].count);
        assert_int_equal(got.more, cases[i].more);
        if (got.count) {
            assert_int_equal(got.items[0].seq, cases[i].first);
            assert_int_equal(got.items[got.count - 1].seq, cases[i].last);
        }
    }
    struct store_message one;
    assert_int_equal(store_find_message(test->store, &test->arena, conversation, "msg_77", &one, &test->err),
                     PH_OK);
    assert_int_equal(one.seq, 77);
    assert_int_equal(store_find_message(test->store, &test->arena, conversation, "msg_2500", &one, NULL),
                     PH_ERR_NOTFOUND);
    assert_int_equal(store_find_message(test->store, &test->arena, conversation, "nobody", &one, NULL),
                     PH_ERR_NOTFOUND);
}

struct walk {
    int64_t last;
    size_t count, stop_at;
};

static enum ph_status on_message(void *ud, const struct store_message *message)
{
    struct walk *walk = ud;
    assert_true(message->number > walk->last);
    walk->last = message->number;
    return ++walk->count == walk->stop_at ? PH_ERR_CANCELLED : PH_OK;
}

static void test_catching_up(void **state)
{
    struct store_test *test = *state;
    for (int i = 0; i < 4; i++) {
        store_test_fill(test, "ann", i % 2 ? "a" : "b", 400);
        store_test_fill(test, "bob", "a", 100);
    }
    struct store_user ann;
    assert_int_equal(store_find_user(test->store, &test->arena, "ann", &ann, &test->err), PH_OK);
    struct walk walk = {.stop_at = 0};
    assert_int_equal(store_each_message(test->store, ann.number, 0, on_message, &walk, &test->err), PH_OK);
    assert_int_equal(walk.count, 1600);
    assert_int_equal(walk.last, ann.last_message);
    walk.count = 0;
    assert_int_equal(store_each_message(test->store, ann.number, walk.last, on_message, &walk, NULL), PH_OK);
    assert_int_equal(walk.count, 0);
    store_test_fill(test, "bob", "new", 1);
    store_test_fill(test, "ann", "new", 5);
    assert_int_equal(store_each_message(test->store, ann.number, walk.last, on_message, &walk, NULL), PH_OK);
    assert_int_equal(walk.count, 5);
    walk = (struct walk){.stop_at = 7};
    assert_int_equal(store_each_message(test->store, ann.number, 0, on_message, &walk, NULL),
                     PH_ERR_CANCELLED);
    assert_int_equal(walk.count, 7);
}

static void test_numbers_are_a_users_own(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "ann", "k", 3);
    store_test_fill(test, "bob", "k", 3);
    struct store_messages anns = store_test_messages(test, "ann", "k"), got;
    struct store_messages bobs = store_test_messages(test, "bob", "k");
    int64_t ann = store_test_conversation(test, "ann", "k").user;
    int64_t numbers[] = {anns.items[2].number, bobs.items[0].number, anns.items[0].number, 999999};
    assert_int_equal(store_read_numbers(test->store, &test->arena, ann, numbers, 4, &got, &test->err), PH_OK);
    assert_int_equal(got.count, 4);
    assert_int_equal(got.items[0].seq, 2);
    assert_int_equal(got.items[1].number, 0);
    assert_int_equal(got.items[2].number, anns.items[0].number);
    assert_int_equal(got.items[3].number, 0);
}

static size_t list(struct store_test *test, struct store_filter filter, char *keys, size_t room)
{
    struct store_conversations page;
    size_t count = 0, len = 0;
    keys[0] = 0;
    do {
        assert_int_equal(store_list_conversations(test->store, &test->arena, &filter, &page, &test->err),
                         PH_OK);
        for (size_t i = 0; i < page.count; i++, count++)
            len += (size_t)snprintf(keys + len, room - len, "%s.%s ", page.items[i].user_name,
                                    page.items[i].key);
        if (page.count) {
            filter.after_ms = page.items[page.count - 1].updated_ms;
            filter.after_number = page.items[page.count - 1].number;
        }
    } while (page.more);
    return count;
}

static void add_dated(struct store_test *test, const char *user, const char *key, const char *domain,
                      int64_t ms)
{
    struct store_message message = store_test_message(NULL, "x");
    message.created_ms = ms;
    struct store_append append = {
        .user = user, .key = key, .domain = domain, .messages = &message, .count = 1, .at = STORE_AT_END};
    assert_int_equal(store_test_append(test, &append, NULL), PH_OK);
}

static void test_lists(void **state)
{
    struct store_test *test = *state;
    char keys[512];
    add_dated(test, "ann", "1", "law", 1000);
    add_dated(test, "bob", "2", "law", 2000);
    add_dated(test, "ann", "3", "", 3000);
    add_dated(test, "ann", "4", "law", 3000);
    add_dated(test, "bob", "5", NULL, 5000);
    list(test, (struct store_filter){.limit = 2}, keys, sizeof keys);
    assert_string_equal(keys, "bob.5 ann.4 ann.3 bob.2 ann.1 ");
    list(test, (struct store_filter){.limit = 2, .oldest_first = true}, keys, sizeof keys);
    assert_string_equal(keys, "ann.1 bob.2 ann.3 ann.4 bob.5 ");
    list(test, (struct store_filter){.user = "ann", .limit = 1}, keys, sizeof keys);
    assert_string_equal(keys, "ann.4 ann.3 ann.1 ");
    list(test, (struct store_filter){.domain = "law"}, keys, sizeof keys);
    assert_string_equal(keys, "ann.4 bob.2 ann.1 ");
    list(test, (struct store_filter){.domain = "law", .user = "ann", .oldest_first = true}, keys,
         sizeof keys);
    assert_string_equal(keys, "ann.1 ann.4 ");
    list(test, (struct store_filter){.from_ms = 2000, .to_ms = 5000}, keys, sizeof keys);
    assert_string_equal(keys, "ann.4 ann.3 bob.2 ");
    assert_int_equal(list(test, (struct store_filter){.user = "eve"}, keys, sizeof keys), 0);
    struct store_users users;
    assert_int_equal(store_list_users(test->store, &test->arena, 0, 1, &users, &test->err), PH_OK);
    assert_true(users.more);
    assert_string_equal(users.items[0].name, "ann");
    assert_int_equal(store_list_users(test->store, &test->arena, users.items[0].number, 5, &users, NULL),
                     PH_OK);
    assert_int_equal(users.count, 1);
    assert_string_equal(users.items[0].name, "bob");
}

static void test_keys_are_a_users_own(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "ann", "same", 1);
    store_test_fill(test, "bob", "same", 2);
    store_test_fill(test, "bob", "his", 3);
    struct store_conversation found;
    assert_int_equal(store_test_conversation(test, "ann", "same").messages, 1);
    assert_int_equal(store_find_conversation(test->store, &test->arena, "ann", "his", &found, NULL),
                     PH_ERR_NOTFOUND);
    assert_int_equal(store_find_conversation(test->store, &test->arena, NULL, "his", &found, NULL), PH_OK);
    assert_string_equal(found.user_name, "bob");
    assert_int_equal(store_find_conversation(test->store, &test->arena, NULL, "same", &found, &test->err),
                     PH_ERR_ARG);
    assert_non_null(strstr(test->err.message, "user"));
}

static void test_messages_are_found_for_their_user(void **state)
{
    struct store_test *test = *state;
    struct store_message message = store_test_message("item", "x");
    struct store_append append = {.user = "ann", .key = "a", .messages = &message, .count = 1, .at = -1};
    struct store_result first, second;
    int64_t conversation = 0;
    assert_int_equal(store_test_append(test, &append, &first), PH_OK);
    append.key = "b";
    assert_int_equal(store_test_append(test, &append, &second), PH_OK);
    store_test_fill(test, "bob", "a", 1);
    assert_int_equal(store_find_owned(test->store, "ann", "item", &conversation, &test->err), PH_OK);
    assert_int_equal(conversation, second.conversation); /* the newest */
    assert_int_equal(store_test_delete(test, STORE_DELETE_CONVERSATION, "ann", "b", NULL), PH_OK);
    assert_int_equal(store_find_owned(test->store, "ann", "item", &conversation, &test->err), PH_OK);
    assert_int_equal(conversation, first.conversation);
    for (size_t i = 0; i < 3; i++) {
        const char *const tries[3][2] = {{"bob", "item"}, {"nobody", "item"}, {"ann", "other"}};
        assert_int_equal(store_find_owned(test->store, tries[i][0], tries[i][1], &conversation, &test->err),
                         PH_ERR_NOTFOUND);
    }
}

/* ---- Changing and deleting */

static void test_update(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "u", "k", 1);
    struct store_write write = {.kind = STORE_UPDATE,
                                .u.update = {.user = "u", .key = "k", .metadata = "{\"b\":2}"}};
    assert_int_equal(store_write(test->store, &write, NULL, &test->err), PH_OK);
    write.u.update = (struct store_update){.user = "u", .key = "k", .domain = "law"};
    assert_int_equal(store_write(test->store, &write, NULL, &test->err), PH_OK);
    struct store_conversation got = store_test_conversation(test, "u", "k");
    assert_string_equal(got.metadata, "{\"b\":2}");
    assert_string_equal(got.domain, "law");
    write.u.update.key = "none";
    assert_int_equal(store_write(test->store, &write, NULL, NULL), PH_ERR_NOTFOUND);
}

static enum ph_status on_feedback(void *ud, const struct store_feedback *feedback)
{
    *(struct store_feedback *)ud = *feedback;
    assert_string_equal(feedback->note, "well\nsaid");
    return PH_OK;
}

static void test_responses_and_feedback(void **state)
{
    struct store_test *test = *state;
    struct store_message message = store_test_message("a", "1");
    struct store_response response = {.id = "resp_1",
                                      .previous = "resp_0",
                                      .json = "{\"x\":1}",
                                      .json_len = 7},
                          got;
    struct store_append append = {
        .user = "u", .key = "k", .messages = &message, .count = 1, .at = STORE_AT_END, .response = &response};
    assert_int_equal(store_test_append(test, &append, NULL), PH_OK);
    assert_int_equal(store_find_response(test->store, &test->arena, "u", "resp_1", &got, &test->err), PH_OK);
    assert_string_equal(got.previous, "resp_0");
    assert_string_equal(got.json, "{\"x\":1}");
    assert_int_equal(got.end_seq, 1);
    assert_int_equal(got.conversation, store_test_conversation(test, "u", "k").number);
    assert_int_equal(store_find_response(test->store, &test->arena, "eve", "resp_1", &got, NULL),
                     PH_ERR_NOTFOUND);
    struct store_write write = {
        .kind = STORE_FEEDBACK, .user = "u", .u.feedback = {.response = "resp_1", .score = 1, .note = "x"}};
    assert_int_equal(store_write(test->store, &write, NULL, &test->err), PH_OK);
    write.u.feedback.score = -0.25;
    write.u.feedback.note = "well\nsaid";
    assert_int_equal(store_write(test->store, &write, NULL, &test->err), PH_OK);
    struct store_feedback last = {.score = 0};
    assert_int_equal(store_each_feedback(test->store, on_feedback, &last, &test->err), PH_OK);
    assert_true(last.score == -0.25);
    write.u.feedback.score = 1.5;
    assert_int_equal(store_write(test->store, &write, NULL, NULL), PH_ERR_ARG);
    assert_int_equal(store_test_delete(test, STORE_DELETE_CONVERSATION, "u", "k", NULL), PH_OK);
    assert_int_equal(store_find_response(test->store, &test->arena, "u", "resp_1", &got, NULL), PH_OK);
    assert_int_equal(got.conversation, 0);
    assert_int_equal(store_test_delete(test, STORE_DELETE_RESPONSE, "u", NULL, "resp_1"), PH_OK);
    assert_int_equal(store_test_delete(test, STORE_DELETE_RESPONSE, "u", NULL, "resp_1"), PH_ERR_NOTFOUND);
}

static enum ph_status on_vector(void *ud, const struct store_vector *vector)
{
    int64_t *sum = ud;
    assert_int_equal(vector->len, 4);
    *sum += vector->message + *(const unsigned char *)vector->bytes;
    return PH_OK;
}

static void test_vectors(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "ann", "k", 3);
    store_test_fill(test, "bob", "k", 1);
    struct store_messages messages = store_test_messages(test, "ann", "k");
    int64_t user = store_test_conversation(test, "ann", "k").user, count, last, sum = 0;
    struct store_vector items[] = {{messages.items[0].number, "\1abc", 4},
                                   {messages.items[2].number, "\2abc", 4},
                                   {store_test_messages(test, "bob", "k").items[0].number, "\3abc", 4}};
    struct store_write write = {
        .kind = STORE_EMBED, .u.embeddings = {.user = user, .space = "lexical", .items = items, .count = 3}};
    struct store_result result;
    assert_int_equal(store_write(test->store, &write, &result, &test->err), PH_OK);
    assert_int_equal(result.added, 2); /* bob's message is not ann's */
    assert_int_equal(store_write(test->store, &write, &result, &test->err), PH_OK);
    assert_int_equal(store_count_vectors(test->store, user, "lexical", &count, &last, &test->err), PH_OK);
    assert_int_equal(count, 2);
    assert_int_equal(last, messages.items[2].number);
    assert_int_equal(store_each_vector(test->store, user, "lexical", 0, on_vector, &sum, &test->err), PH_OK);
    assert_int_equal(sum, messages.items[0].number + messages.items[2].number + 3);
    assert_int_equal(store_count_vectors(test->store, user, "other", &count, &last, &test->err), PH_OK);
    assert_int_equal(count, 0);
    assert_int_equal(store_test_delete(test, STORE_DELETE_MESSAGE, "ann", "k", "msg_2"), PH_OK);
    assert_int_equal(store_count_vectors(test->store, user, "lexical", &count, &last, &test->err), PH_OK);
    assert_int_equal(count, 1);
    assert_int_equal(store_test_delete(test, STORE_DELETE_SPACE, NULL, NULL, "lexical"), PH_OK);
    assert_int_equal(store_count_vectors(test->store, user, "lexical", &count, &last, &test->err), PH_OK);
    assert_int_equal(count, 0);
    store_test_sound(test);
}

static void test_deleting(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "ann", "k", 5);
    store_test_fill(test, "ann", "l", 5);
    struct store_user before, after;
    assert_int_equal(store_find_user(test->store, &test->arena, "ann", &before, &test->err), PH_OK);
    assert_int_equal(store_test_delete(test, STORE_DELETE_MESSAGE, "ann", "k", "msg_4"), PH_OK);
    assert_int_equal(store_test_delete(test, STORE_DELETE_MESSAGE, "ann", "k", "msg_4"), PH_ERR_NOTFOUND);
    assert_int_equal(store_find_user(test->store, &test->arena, "ann", &after, &test->err), PH_OK);
    assert_true(after.deletions > before.deletions);
    assert_int_equal(store_test_conversation(test, "ann", "k").messages, 4);
    store_test_fill(test, "ann", "k", 1); /* a place is given once */
    struct store_messages got = store_test_messages(test, "ann", "k");
    assert_int_equal(got.items[got.count - 1].seq, 5);
    store_test_sound(test);
    assert_int_equal(store_test_delete(test, STORE_DELETE_CONVERSATION, "bob", "k", NULL), PH_ERR_NOTFOUND);
    assert_int_equal(store_test_delete(test, STORE_DELETE_CONVERSATION, "ann", "k", NULL), PH_OK);
    struct store_conversation gone;
    assert_int_equal(store_find_conversation(test->store, &test->arena, "ann", "k", &gone, NULL),
                     PH_ERR_NOTFOUND);
    assert_int_equal(store_test_messages(test, "ann", "l").count, 5);
    int64_t number = before.number;
    assert_int_equal(store_test_delete(test, STORE_DELETE_USER, "ann", NULL, NULL), PH_OK);
    assert_int_equal(store_test_delete(test, STORE_DELETE_USER, "ann", NULL, NULL), PH_ERR_NOTFOUND);
    store_test_fill(test, "ann", "l", 1);
    assert_int_equal(store_find_user(test->store, &test->arena, "ann", &after, &test->err), PH_OK);
    assert_true(after.number > number);
    store_test_sound(test);
}

/* ---- Many at once */

struct counter {
    uv_mutex_t mutex;
    size_t done;
    int64_t last_number;
    bool out_of_order;
};

static void on_done(void *ud, enum ph_status status, const struct store_result *result,
                    const struct ph_err *err)
{
    struct counter *counter = ud;
    assert_int_equal(status, PH_OK);
    assert_null(err);
    uv_mutex_lock(&counter->mutex);
    counter->out_of_order |= result->first_number <= counter->last_number;
    counter->last_number = result->first_number;
    counter->done++;
    uv_mutex_unlock(&counter->mutex);
}

#define THREADS 4
#define APPENDS 300

struct worker {
    struct store_test *test;
    struct counter *counter;
    char key[16];
    uv_thread_t thread;
};

static void append_many(void *ud)
{
    struct worker *worker = ud;
    for (int i = 0; i < APPENDS; i++) {
        char content[32];
        snprintf(content, sizeof content, "%s says %d", worker->key, i);
        struct store_message message = store_test_message(NULL, content);
        struct store_write write = {
            .kind = STORE_APPEND,
            .u.append = {.user = "u", .key = worker->key, .messages = &message, .count = 1, .at = i}};
        struct store_done done = {on_done, worker->counter};
        while (store_submit(worker->test->store, &write, done, NULL) == PH_ERR_BUSY)
            uv_sleep(1);
    }
}

static void test_many_writers(void **state)
{
    struct store_test *test = *state;
    struct worker workers[THREADS];
    struct counter counter = {.done = 0};
    uv_mutex_init(&counter.mutex);
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.test = test, .counter = &counter};
        snprintf(workers[i].key, sizeof workers[i].key, "k%zu", i);
        assert_int_equal(uv_thread_create(&workers[i].thread, append_many, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        uv_thread_join(&workers[i].thread);
    store_test_close(test); /* writes what waits */
    assert_int_equal(counter.done, THREADS * APPENDS);
    assert_false(counter.out_of_order);
    store_test_open(test);
    for (size_t i = 0; i < THREADS; i++) {
        struct store_messages got = store_test_messages(test, "u", workers[i].key);
        assert_int_equal(got.count, APPENDS);
        for (size_t j = 0; j < got.count; j++) {
            char content[32];
            snprintf(content, sizeof content, "k%zu says %zu", i, j);
            assert_string_equal(got.items[j].content, content);
        }
    }
    store_test_sound(test);
    uv_mutex_destroy(&counter.mutex);
}

static void test_two_stores_at_once(void **state)
{
    struct store_test *test = *state, other = *test;
    store_test_open(&other);
    for (int i = 0; i < 20; i++)
        store_test_fill(i % 2 ? test : &other, "u", "k", 3);
    assert_int_equal(store_test_messages(test, "u", "k").count, 60);
    store_test_close(&other);
    store_test_sound(test);
}

#define EACH_BACKEND(test, backend)                                                            \
    {                                                                                          \
#test " (" #backend ")", test, store_test_setup, store_test_teardown, (void *)&backend \
    }

#define SUITE(backend)                                                                                      \
    EACH_BACKEND(test_message_comes_back_whole, backend),                                                   \
        EACH_BACKEND(test_large_messages_come_back, backend),                                               \
        EACH_BACKEND(test_ids_are_stored_once, backend), EACH_BACKEND(test_places_are_taken_once, backend), \
        EACH_BACKEND(test_racing_writers_are_told, backend),                                                \
        EACH_BACKEND(test_must_exist_makes_nothing, backend),                                               \
        EACH_BACKEND(test_bad_writes_are_refused, backend), EACH_BACKEND(test_ranges, backend),             \
        EACH_BACKEND(test_catching_up, backend), EACH_BACKEND(test_numbers_are_a_users_own, backend),       \
        EACH_BACKEND(test_lists, backend), EACH_BACKEND(test_keys_are_a_users_own, backend),                \
        EACH_BACKEND(test_messages_are_found_for_their_user, backend), EACH_BACKEND(test_update, backend),  \
        EACH_BACKEND(test_responses_and_feedback, backend), EACH_BACKEND(test_vectors, backend),            \
        EACH_BACKEND(test_deleting, backend), EACH_BACKEND(test_many_writers, backend),                     \
        EACH_BACKEND(test_two_stores_at_once, backend)

int main(void)
{
    const struct CMUnitTest sqlite[] = {SUITE(store_backend_sqlite)};
    const struct CMUnitTest postgres[] = {SUITE(store_backend_postgres)};
    int failed = cmocka_run_group_tests(sqlite, NULL, NULL);
    if (store_test_start_postgres()) {
        failed += cmocka_run_group_tests(postgres, NULL, NULL);
        store_test_stop_postgres();
    }
    return failed;
}
