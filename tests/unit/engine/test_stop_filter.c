#include "base/buf.h"
#include "engine/engine_int.h"
#include "test_support.h"

/* Feeds `text` in pieces of `piece` bytes; answers what a reader would see, up to the first stop string. */
static const char *through(const char *text, size_t piece, const char *const *words, bool *matched)
{
    static char memory[256], shown[256];
    struct engine_text stops[4];
    struct stop_filter filter = {.stops = stops, .held = {.data = memory, .cap = 256, .max = 255}};
    for (; words[filter.count]; filter.count++)
        stops[filter.count] = (struct engine_text){words[filter.count], strlen(words[filter.count])};
    size_t len = 0, text_len = strlen(text);
    memory[0] = 0;
    *matched = false;
    for (size_t at = 0; at < text_len && !*matched; at += piece) {
        buf_append(&filter.held, text + at, text_len - at < piece ? text_len - at : piece);
        size_t ready;
        *matched = stop_filter_scan(&filter, &ready);
        memcpy(shown + len, filter.held.data, ready);
        len += ready;
        stop_filter_drop(&filter, ready);
    }
    if (!*matched) {
        memcpy(shown + len, filter.held.data, filter.held.len);
        len += filter.held.len;
    }
    shown[len] = 0;
    return shown;
}

static void stops_do_not_depend_on_token_borders(void **state)
{
    (void)state;
    static const struct {
        const char *text, *stops[4], *shown;
        bool matched;
    } cases[] = {
        {"hello world", {NULL}, "hello world", false},
        {"hello world", {"wor"}, "hello ", true},
        {"hello world", {"world!"}, "hello world", false},
        {"aaab", {"aab"}, "a", true},
        {"abababc", {"ababc"}, "ab", true},
        {"xabcd", {"abcd", "bc"}, "xa", true},
        {"xabcd", {"abc", "bc"}, "x", true},
        {"<|end|>tail", {"<|end|>"}, "", true},
        {"a<|en d", {"<|end|>"}, "a<|en d", false},
        {"caf\xC3\xA9 \xE2\x82\xAC", {"\xE2\x82\xAC"}, "caf\xC3\xA9 ", true},
        {"\n\nUser:", {"\n\nUser", "\n\nA"}, "", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t piece = 1; piece < 12; piece++) {
            bool matched;
            assert_string_equal(through(cases[i].text, piece, cases[i].stops, &matched), cases[i].shown);
            assert_int_equal(matched, cases[i].matched);
        }
}

static void text_is_held_only_while_it_may_be_a_stop(void **state)
{
    (void)state;
    char memory[64] = "";
    const struct engine_text stop = {"STOP", 4};
    struct stop_filter filter = {.stops = &stop, .count = 1, .held = {.data = memory, .cap = 64, .max = 63}};
    static const struct {
        const char *piece;
        size_t ready;
    } steps[] = {{"ab", 2}, {"S", 0}, {"T", 0}, {"x", 3}, {"SS", 1}, {"TO", 0}, {"ST", 3}, {"O", 0}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        size_t ready;
        buf_puts(&filter.held, steps[i].piece);
        assert_false(stop_filter_scan(&filter, &ready));
        assert_int_equal(ready, steps[i].ready);
        stop_filter_drop(&filter, ready);
    }
    size_t ready;
    buf_puts(&filter.held, "P");
    assert_true(stop_filter_scan(&filter, &ready));
    assert_int_equal(ready, 0);
    assert_ptr_equal(filter.held.data, memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stops_do_not_depend_on_token_borders),
        cmocka_unit_test(text_is_held_only_while_it_may_be_a_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
