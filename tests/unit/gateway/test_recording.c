/* Recordings come back as they went in, damaged ones come back as nothing, and answers are judged by them. */
#include "gateway/gateway_int.h"
#include "test_support.h"

static struct chat_text text_of(const char *text)
{
    return (struct chat_text){text, strlen(text)};
}

static void add_text(struct recording *r, const char *text, double logprob)
{
    struct chat_token_logprob token = {7, text_of(text), logprob};
    struct chat_event event = {.kind = CHAT_EVENT_TEXT, .tokens = 1, .text = text_of(text)};
    event.logprobs = logprob <= 0 ? &token : NULL;
    event.logprob_count = logprob <= 0;
    recording_add(r, &event);
}

static void add_finish(struct recording *r, enum chat_finish finish)
{
    struct chat_event event = {.kind = CHAT_EVENT_FINISH, .finish = finish, .stop_text = "END"};
    recording_add(r, &event);
}

static void everything_comes_back(void **state)
{
    (void)state;
    static const struct chat_token_logprob tokens[2] = {{1, {"a\0b", 3}, -0.5}, {-2, {"c", 1}, -1e-300}};
    static const struct chat_token_logprob top[4] = {
        {1, {"a", 1}, -0.5}, {0, {NULL, 0}, 0}, {3, {"", 0}, -7}, {4, {"d", 1}, -9}};
    struct recording r;
    struct arena arena;
    size_t at = 0;
    struct chat_event e = {.kind = CHAT_EVENT_TEXT, .choice = 300, .tokens = 2, .text = {"a\0bc", 4}};
    e.logprobs = tokens;
    e.logprob_count = 2;
    e.top = top;
    e.top_count = 2;
    recording_init(&r, 1 << 20);
    arena_init(&arena, 1 << 20);
    recording_add(&r, &e);
    e = (struct chat_event){.kind = CHAT_EVENT_TOOL_CALL};
    e.tool_call.index = 3;
    e.tool_call.id = "call";
    e.tool_call.arguments = text_of("{}");
    recording_add(&r, &e);
    e = (struct chat_event){.kind = CHAT_EVENT_REASONING, .signature = "seal", .redacted = true};
    recording_add(&r, &e);
    add_finish(&r, CHAT_FINISH_TOOL_CALLS);
    e = (struct chat_event){.kind = CHAT_EVENT_USAGE};
    e.usage.prompt_tokens = UINT64_MAX;
    e.usage.estimated = true;
    recording_add(&r, &e);

    assert_true(recording_next(&r, &at, &arena, &e));
    assert_int_equal(e.kind, CHAT_EVENT_TEXT);
    assert_int_equal(e.choice, 300);
    assert_int_equal(e.tokens, 2);
    assert_memory_equal(e.text.text, "a\0bc", 5);
    assert_int_equal(e.logprob_count, 2);
    assert_int_equal(e.logprobs[1].id, -2);
    assert_true(e.logprobs[1].logprob == -1e-300);
    assert_memory_equal(e.logprobs[0].token.text, "a\0b", 3);
    assert_null(e.top[1].token.text);
    assert_non_null(e.top[2].token.text);
    assert_string_equal(e.top[3].token.text, "d");
    assert_true(recording_next(&r, &at, &arena, &e));
    assert_int_equal(e.tool_call.index, 3);
    assert_string_equal(e.tool_call.id, "call");
    assert_null(e.tool_call.name);
    assert_string_equal(e.tool_call.arguments.text, "{}");
    assert_true(recording_next(&r, &at, &arena, &e));
    assert_string_equal(e.signature, "seal");
    assert_true(e.redacted);
    assert_null(e.text.text);
    assert_true(recording_next(&r, &at, &arena, &e));
    assert_int_equal(e.finish, CHAT_FINISH_TOOL_CALLS);
    assert_string_equal(e.stop_text, "END");
    assert_true(recording_next(&r, &at, &arena, &e));
    assert_true(e.usage.prompt_tokens == UINT64_MAX && e.usage.estimated);
    assert_false(recording_next(&r, &at, &arena, &e));
    arena_release(&arena);
    recording_release(&r);
}

/* Where a token was not among the likeliest, providers list it besides: one more than anybody may ask for. */
static void the_longest_row_comes_back(void **state)
{
    (void)state;
    struct chat_token_logprob top[ENGINE_LOGPROBS_MAX + 1];
    struct chat_token_logprob token = {1, {"t", 1}, -9};
    struct chat_event e = {.kind = CHAT_EVENT_TEXT, .text = {"t", 1}, .logprobs = &token, .logprob_count = 1};
    struct recording r;
    struct arena arena;
    size_t at = 0;
    for (int i = 0; i <= ENGINE_LOGPROBS_MAX; i++)
        top[i] = (struct chat_token_logprob){i, {"", 0}, -i};
    e.top = top;
    e.top_count = ENGINE_LOGPROBS_MAX + 1;
    recording_init(&r, 1 << 20);
    arena_init(&arena, 1 << 20);
    recording_add(&r, &e);
    assert_true(recording_next(&r, &at, &arena, &e));
    assert_int_equal(e.top_count, ENGINE_LOGPROBS_MAX + 1);
    assert_true(e.top[ENGINE_LOGPROBS_MAX].logprob == -ENGINE_LOGPROBS_MAX);
    arena_release(&arena);
    recording_release(&r);
}

/* Any prefix, and any byte changed: no read beyond the end (the sanitizers judge), and an end. */
static void damage_is_survived(void **state)
{
    (void)state;
    struct recording r, cut;
    struct arena arena;
    struct chat_event e;
    recording_init(&r, 1 << 20);
    arena_init(&arena, 1 << 20);
    add_text(&r, "hello", -1);
    add_text(&r, " world", -2);
    add_finish(&r, CHAT_FINISH_STOP);
    for (size_t len = 0; len < r.bytes.len; len++)
        for (int change = 0; change < 256; change += 51) {
            size_t at = 0, count = 0;
            recording_init(&cut, 1 << 20);
            buf_append(&cut.bytes, r.bytes.data, len + 1);
            cut.bytes.data[len] = (char)(cut.bytes.data[len] + change);
            while (recording_next(&cut, &at, &arena, &e))
                count++;
            assert_true(count <= 3);
            recording_release(&cut);
        }
    arena_release(&arena);
    recording_release(&r);
}

/* Alive and failed are never recorded; whoever wrote them anyway is not believed. */
static void what_is_never_written_is_never_read(void **state)
{
    (void)state;
    static const char kinds[] = {CHAT_EVENT_PROGRESS, CHAT_EVENT_ERROR, CHAT_EVENT_DONE + 1};
    struct arena arena;
    struct chat_event e;
    arena_init(&arena, 1 << 20);
    for (size_t i = 0; i < sizeof kinds; i++) {
        struct recording r;
        size_t at = 0;
        recording_init(&r, 1 << 10);
        buf_append(&r.bytes, (char[]){kinds[i], 0, 0}, 3);
        assert_false(recording_next(&r, &at, &arena, &e));
        recording_release(&r);
    }
    arena_release(&arena);
}

static double confidence(double logprob, size_t tokens, double weak, size_t weak_tokens,
                         enum chat_finish finish)
{
    struct recording r;
    recording_init(&r, 1 << 20);
    for (size_t i = 0; i < tokens; i++)
        add_text(&r, "word ", i >= tokens / 2 && i < tokens / 2 + weak_tokens ? weak : logprob);
    add_finish(&r, finish);
    double value = cascade_confidence(&r);
    recording_release(&r);
    return value;
}

static void confidence_falls_with_doubt(void **state)
{
    (void)state;
    double sure = confidence(-0.02, 100, 0, 0, CHAT_FINISH_STOP);
    double stretch = confidence(-0.02, 100, -2, 8, CHAT_FINISH_STOP);
    double unsure = confidence(-1.5, 100, 0, 0, CHAT_FINISH_STOP);
    assert_true(sure > 0.95 && sure <= 1);
    assert_true(stretch < 0.6 && stretch > unsure);
    assert_true(unsure < 0.3);
    assert_true(confidence(-0.02, 100, 0, 0, CHAT_FINISH_LENGTH) < 0.4);
    assert_true(confidence(-0.02, 3, 0, 0, CHAT_FINISH_STOP) > 0.95); /* shorter than a stretch */
    assert_true(confidence(1, 5, 1, 1, CHAT_FINISH_STOP) < 0);        /* no log-probabilities */
    assert_true(confidence(1, 0, 1, 0, CHAT_FINISH_STOP) == 0);       /* says nothing */
}

static double agreement(const char *a, const char *b)
{
    struct recording x, y;
    recording_init(&x, 1 << 20);
    recording_init(&y, 1 << 20);
    add_text(&x, a, 1);
    add_text(&y, b, 1);
    double value = cascade_agreement(&x, &y);
    recording_release(&x);
    recording_release(&y);
    return value;
}

static void agreement_is_about_what_is_said(void **state)
{
    (void)state;
    assert_true(agreement("Paris.", "paris") > 0.999);
    assert_true(agreement("Paris", "London") < 0.1);
    assert_true(agreement("It was 1912.", "It was 1915.") < 0.75);
    assert_true(agreement("The answer is that the moon goes around the earth",
                          "The moon goes around the earth, that is the answer") > 0.75);
    assert_true(agreement("", "something") == 0);
}

static void the_book_forgets_the_oldest(void **state)
{
    (void)state;
    struct route_book *book = route_book_create(8);
    struct buf json;
    size_t len;
    char a[32], b[32];
    assert_non_null(book);
    for (int i = 0; i < 1000; i++) {
        buf_init(&json, 1000);
        buf_printf(&json, "{\"n\":%d}", i);
        snprintf(a, sizeof a, "resp-%d", i);
        snprintf(b, sizeof b, "req-%d", i % 3 ? i : 0); /* some share a name: the newest is found */
        route_book_add(book, a, b, &json);
        buf_release(&json);
        for (int k = i; k >= 0 && k > i - 12; k--) {
            snprintf(a, sizeof a, "resp-%d", k);
            const char *found = route_book_find(book, a, &len);
            assert_int_equal(found != NULL, k > i - 8);
            snprintf(b, sizeof b, "{\"n\":%d}", k);
            if (found)
                assert_string_equal(found, b);
        }
    }
    assert_non_null(route_book_find(book, "req-998", &len));
    assert_non_null(route_book_find(book, "req-0", &len));
    assert_null(route_book_find(book, "nothing", &len));
    route_book_free(book);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_back),       cmocka_unit_test(the_longest_row_comes_back),
        cmocka_unit_test(damage_is_survived),          cmocka_unit_test(what_is_never_written_is_never_read),
        cmocka_unit_test(confidence_falls_with_doubt), cmocka_unit_test(agreement_is_about_what_is_said),
        cmocka_unit_test(the_book_forgets_the_oldest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
