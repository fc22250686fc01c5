#include "chat/chat.h"
#include "test_support.h"

/* Events as text: "name|data" and a line end; a 0 byte shows as '0'. */
struct seen {
    char text[4096];
    size_t len, count, stop_after;
};

static void put(struct seen *seen, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len && seen->len + 1 < sizeof seen->text; i++)
        seen->text[seen->len++] = bytes[i] ? bytes[i] : '0';
    seen->text[seen->len] = 0;
}

static bool on_event(void *ud, const char *name, const char *data, size_t len)
{
    struct seen *seen = ud;
    assert_int_equal(data[len], 0);
    put(seen, name, strlen(name));
    put(seen, "|", 1);
    put(seen, data, len);
    put(seen, "\n", 1);
    return ++seen->count != seen->stop_after;
}

static enum ph_status feed_in(const char *bytes, size_t len, size_t piece, size_t max, struct seen *seen)
{
    struct chat_sse sse;
    enum ph_status status = PH_OK;
    chat_sse_init(&sse, max);
    for (size_t at = 0; at < len && status == PH_OK; at += piece)
        status = chat_sse_feed(&sse, bytes + at, len - at < piece ? len - at : piece, on_event, seen);
    chat_sse_release(&sse);
    return status;
}

/* The examples and rules of the standard. */
static const struct stream {
    const char *bytes;
    size_t len;
    const char *events;
} streams[] = {
#define STREAM(bytes, events)           \
    {                                   \
        bytes, sizeof bytes - 1, events \
    }
    STREAM("data: YHOO\ndata: +2\ndata: 10\n\n", "|YHOO\n+2\n10\n"),
    STREAM(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
           "|first event\n|second event\n| third event\n"),
    STREAM("data\n\ndata\ndata\n\ndata:", "|\n|\n\n"),
    STREAM("data:test\n\ndata: test\n\n", "|test\n|test\n"),
    STREAM("event: add\ndata: 1\n\nevent: remove\ndata: 2\n\ndata: 3\n\n", "add|1\nremove|2\n|3\n"),
    STREAM("event: a\nevent: b\ndata: x\n\n", "b|x\n"),
    STREAM("event: lost\n\ndata: x\n\n", "|x\n"), /* a name without data is forgotten */
    STREAM("data: a\r\n\r\ndata: b\r\rdata: c\n\n", "|a\n|b\n|c\n"),
    STREAM("data: a\r\ndata: b\r\n\r\n", "|a\nb\n"),
    STREAM("\n\r\n\r\r\ndata: a\n\n", "|a\n"),
    STREAM("\xEF\xBB\xBF"
           "data: a\n\n\xEF\xBB\xBF"
           "data: b\n\n",
           "|a\n"), /* a mark elsewhere is part of a name that nobody knows */
    STREAM("Data: a\ndatas: b\ndat: c\n data: d\n\n", ""),
    STREAM("retry: 10\n: comment: data: x\ndata: a:b: c\n\n", "|a:b: c\n"),
    STREAM("data: a\0b\n\n", "|a0b\n"),
    STREAM("data: {\"a\":1}\n\ndata: [DONE]\n\n", "|{\"a\":1}\n|[DONE]\n"),
    STREAM("data: never ended\n", ""),
    STREAM("", ""),
};

static void reads_what_the_standard_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++) {
        struct seen seen = {0};
        assert_int_equal(feed_in(streams[i].bytes, streams[i].len, SIZE_MAX / 2, 1000, &seen), PH_OK);
        assert_string_equal(seen.text, streams[i].events);
    }
}

static void cuts_change_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++)
        for (size_t piece = 1; piece < 20; piece++) {
            struct seen seen = {0};
            assert_int_equal(feed_in(streams[i].bytes, streams[i].len, piece, 1000, &seen), PH_OK);
            assert_string_equal(seen.text, streams[i].events);
        }
}

static void long_lines_and_events_are_refused_whatever_the_cuts(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *events;
        enum ph_status status;
    } cases[] = {
        {"data: 1234\n\n", "|1234\n", PH_OK},
        {"data: 12345\n\n", "", PH_ERR_LIMIT},
        {"data: x\n\ndata: 123456789", "|x\n", PH_ERR_LIMIT},
        {"data:12345\ndata:1234\n\n", "|12345\n1234\n", PH_OK},
        {"data:12345\ndata:12345\n\n", "", PH_ERR_LIMIT},
        {":12345678901234567890\n\n", "", PH_ERR_LIMIT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t piece = 1; piece < 30; piece++) {
            struct seen seen = {0};
            assert_int_equal(feed_in(cases[i].bytes, strlen(cases[i].bytes), piece, 10, &seen),
                             cases[i].status);
            assert_string_equal(seen.text, cases[i].events);
        }
}

static void an_event_comes_with_its_last_byte(void **state)
{
    (void)state;
    struct chat_sse sse;
    struct seen seen = {0};
    chat_sse_init(&sse, 100);
    assert_int_equal(chat_sse_feed(&sse, "data: a\r\n\r", 10, on_event, &seen), PH_OK);
    assert_string_equal(seen.text, "|a\n");
    assert_int_equal(chat_sse_feed(&sse, "\n", 1, on_event, &seen), PH_OK);
    assert_int_equal(chat_sse_feed(&sse, "data: b\n\n", 9, on_event, &seen), PH_OK);
    assert_string_equal(seen.text, "|a\n|b\n");
    chat_sse_release(&sse);
}

static void the_reader_may_stop(void **state)
{
    (void)state;
    struct seen seen = {.stop_after = 2};
    static const char bytes[] = "data: 1\n\ndata: 2\n\ndata: 3\n\n";
    assert_int_equal(feed_in(bytes, sizeof bytes - 1, 1000, 100, &seen), PH_ERR_CANCELLED);
    assert_string_equal(seen.text, "|1\n|2\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_the_standard_says),
        cmocka_unit_test(cuts_change_nothing),
        cmocka_unit_test(long_lines_and_events_are_refused_whatever_the_cuts),
        cmocka_unit_test(an_event_comes_with_its_last_byte),
        cmocka_unit_test(the_reader_may_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
