#include "chat/chat.h"
#include "test_support.h"

static void keys_are_scrubbed_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *message, *expected;
    } rows[] = {
        {"", ""},
        {"invalid x-api-key", "invalid x-api-key"},
        {"Incorrect API key provided: sk-proj-****************abcd. You can find",
         "Incorrect API key provided: [key]. You can find"},
        {"bad key sk-ant-api03-AAAA-bbbb_cccc", "bad key [key]"},
        {"key AIzaSyA1234567890abcdef is blocked", "key [key] is blocked"},
        {"Bearer 0123456789abcdef0123456789abcdef!", "Bearer [key]!"},
        {"model claude-3-5-sonnet-20241022 is gone (req_011CUwZTS7TYAH8UyTro83sP)",
         "model claude-3-5-sonnet-20241022 is gone (req_011CUwZTS7TYAH8UyTro83sP)"},
        {"max_tokens: 10000 > 4096, sk-1", "max_tokens: 10000 > 4096, sk-1"},
        {"\xc3\xa9sk-0123456789\xc3\xa9", "\xc3\xa9[key]\xc3\xa9"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "%s", rows[i].message);
        chat_scrub(text);
        assert_string_equal(text, rows[i].expected);
    }
}

static void a_secret_is_scrubbed_wherever_it_is(void **state)
{
    (void)state;
    static const struct {
        const char *text, *secret, *expected;
    } rows[] = {{"", "12345678", ""},
                {"12345678", "12345678", "[key]"},
                {"a12345678b1234567812345678c", "12345678", "a[key]b[key][key]c"},
                {"1234567812345", "12345678", "[key]12345"},
                {"1234567", "1234567", "1234567"},
                {"nothing", "", "nothing"},
                {"aaaaaaaaaaaaaaaaa", "aaaaaaaa", "[key][key]a"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s", rows[i].text);
        chat_scrub_secret(text, rows[i].secret);
        assert_string_equal(text, rows[i].expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keys_are_scrubbed_and_nothing_else),
                                       cmocka_unit_test(a_secret_is_scrubbed_wherever_it_is)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
