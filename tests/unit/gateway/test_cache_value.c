/* Answers as they lie outside: what was written is read, and nothing else is. */
#include "gateway/gateway_int.h"
#include "test_support.h"

static const struct cache_key test_key = {{1, 2, 3}};

static struct cache *open_cache(void)
{
    struct cache *cache;
    struct cache_params params = {.bytes_max = 1 << 20, .ttl_ns = 100, .clock = clock_system()};
    assert_int_equal(cache_create(&cache, &params), PH_OK);
    return cache;
}

static void write_value(struct cache *cache, struct buf *out)
{
    struct cache_value value = {1234567890123, "model", "recording", 9};
    buf_init(out, 1 << 16);
    assert_true(cache_value_write(cache, &test_key, &value, out));
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    struct cache *cache = open_cache();
    struct cache_value value;
    struct buf bytes;
    char name[CACHE_VALUE_NAME_MAX];
    write_value(cache, &bytes);
    assert_true(cache_value_read(cache, &test_key, bytes.data, bytes.len, &value));
    assert_true(value.made_unix_ms == 1234567890123 && value.len == 9);
    assert_string_equal(value.model, "model");
    assert_memory_equal(value.bytes, "recording", 9);
    cache_value_name(&test_key, name);
    assert_string_equal(name,
                        "pharos:answer:1:0102030000000000000000000000000000000000000000000000000000000000");
    struct buf small;
    buf_init(&small, 20);
    assert_false(cache_value_write(cache, &test_key, &value, &small));
    buf_release(&small);
    buf_release(&bytes);
    cache_free(cache);
}

static void nothing_else_is_read(void **state)
{
    (void)state;
    struct cache *cache = open_cache();
    struct cache_key other = test_key;
    struct cache_value value;
    struct buf bytes;
    write_value(cache, &bytes);
    for (size_t len = 0; len < bytes.len; len++) {
        char *exact = malloc(len ? len : 1); /* so that a sanitizer sees a byte too far */
        assert_non_null(exact);
        memcpy(exact, bytes.data, len);
        assert_false(cache_value_read(cache, &test_key, exact, len, &value));
        free(exact);
        bytes.data[len] ^= 0x10;
        assert_false(cache_value_read(cache, &test_key, bytes.data, bytes.len, &value));
        bytes.data[len] ^= 0x10;
    }
    other.bytes[31] = 1;
    assert_false(cache_value_read(cache, &other, bytes.data, bytes.len, &value));
    assert_true(cache_value_read(cache, &test_key, bytes.data, bytes.len, &value));
    buf_release(&bytes);
    cache_free(cache);
}

/* A letter an event; capitals are of the second choice. */
static void add(struct recording *r, char letter)
{
    struct chat_event e = {.kind = CHAT_EVENT_TEXT, .text = {"t", 1}, .tokens = 1};
    char low = letter | 0x20;
    e.choice = letter != low && letter != '.' && letter != '!';
    if (low == 'r') {
        e.kind = CHAT_EVENT_ROLE;
    } else if (low == 'h') {
        e.kind = CHAT_EVENT_REASONING;
    } else if (low == 'x') {
        e.choice = (size_t)1 << 40;
    } else if (low == 'n' || low == 'a' || low == 'i') { /* a call's name, its arguments, a wild index */
        e.kind = CHAT_EVENT_TOOL_CALL;
        e.tool_call.name = low == 'a' ? NULL : "look";
        e.tool_call.index = low == 'i' ? (size_t)1 << 40 : 0;
    } else if (low == 's' || low == 'l' || low == 'f') {
        e.kind = CHAT_EVENT_FINISH;
        e.finish = low == 's'   ? CHAT_FINISH_STOP
                   : low == 'l' ? CHAT_FINISH_LENGTH
                                : CHAT_FINISH_CONTENT_FILTER;
    } else if (low == 'u' || low == 'w') {
        e.kind = CHAT_EVENT_USAGE;
        e.usage.prompt_tokens = low == 'w' ? UINT64_MAX : 1;
    } else if (letter == '.') {
        e.kind = CHAT_EVENT_DONE;
    }
    recording_add(r, &e);
}

static bool is_whole(const char *letters, size_t choices, size_t max_tokens)
{
    struct chat_request request = {.kind = CHAT_KIND_CHAT, .choices = choices, .max_tokens = max_tokens};
    struct recording r;
    struct arena arena;
    recording_init(&r, 1 << 20);
    arena_init(&arena, 1 << 20);
    for (; *letters; letters++)
        add(&r, *letters);
    bool whole = recording_is_whole(&r, &request, &arena);
    arena_release(&arena);
    recording_release(&r);
    return whole;
}

static void only_whole_answers_are_played(void **state)
{
    (void)state;
    static const struct {
        const char *letters;
        size_t choices, max_tokens;
        bool whole;
    } cases[] = {
        {"rttsu.", 1, 0, true},  {"rhthnaasu.", 1, 0, true}, {"urtsuu.", 1, 0, true},
        {"rsu.", 1, 0, true},    {"rRtTtSsu.", 2, 0, true},  {"rtlu.", 1, 9, true},
        {"rtlu.", 1, 0, false},  {"rtfu.", 1, 9, false},     {"", 1, 0, false},
        {"rttsu", 1, 0, false},  {"rttu.", 1, 0, false},     {"rtts.", 1, 0, false},
        {"ttsu.", 1, 0, false},  {"rrtsu.", 1, 0, false},    {"rtstu.", 1, 0, false},
        {"rtssu.", 1, 0, false}, {"rtsu.t", 1, 0, false},    {"rtsu..", 1, 0, false},
        {"rtsu.", 2, 0, false},  {"rtRTsSu.", 1, 0, false},  {"rtRTsu.", 2, 0, false},
        {"rtxsu.", 1, 0, false}, {"rasu.", 1, 0, false},     {"rnisu.", 1, 0, false},
        {"rtswu.", 1, 0, false}, {"rnRAsSu.", 2, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (is_whole(cases[i].letters, cases[i].choices, cases[i].max_tokens) != cases[i].whole)
            fail_msg("%s of %zu is %s", cases[i].letters, cases[i].choices,
                     cases[i].whole ? "refused" : "taken");
}

/* An encoder looks through the parts it has when another one comes. */
static void parts_are_counted(void **state)
{
    (void)state;
    char letters[3 * CACHE_BLOCKS_MAX + 8];
    for (int calls = 0; calls < 2; calls++)
        for (size_t parts = CACHE_BLOCKS_MAX - 1; parts < CACHE_BLOCKS_MAX + 2; parts++) {
            size_t len = 0;
            letters[len++] = 'r';
            for (size_t i = 0; i < parts; i++) {
                letters[len++] = calls ? 'n' : i % 2 ? 't' : 'h';
                letters[len++] = calls ? 'a' : i % 2 ? 't' : 'h'; /* goes on: no new part */
            }
            memcpy(letters + len, "su.", 4);
            assert_int_equal(is_whole(letters, 1, 0), parts <= CACHE_BLOCKS_MAX);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(nothing_else_is_read),
        cmocka_unit_test(only_whole_answers_are_played),
        cmocka_unit_test(parts_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
