/* A key as text: made, read, mistyped. */
#include "base/clock.h"
#include "gateway/keys_int.h"
#include "test_support.h"

/* Its checksum is of another implementation (zlib's CRC-32). */
#define KNOWN "sk-pharos-2Wq9fKxZ-7hVtQmRcXyE4uPzJ8nBsGdFaLk3W5jHo9TvMrC2eYwSx-5vQvfV"

static void a_known_key_is_read(void **state)
{
    struct key_parts parts;
    (void)state;
    assert_true(key_text_parse(KNOWN, strlen(KNOWN), &parts));
    assert_string_equal(parts.id, "2Wq9fKxZ");
    assert_memory_equal(parts.secret, "7hVtQmRcXyE4uPzJ8nBsGdFaLk3W5jHo9TvMrC2eYwSx", KEY_SECRET_LEN);
}

static void a_new_key_is_read_and_no_two_are_alike(void **state)
{
    char texts[64][KEY_TEXT_MAX];
    struct key_parts made, read;
    (void)state;
    for (size_t i = 0; i < 64; i++) {
        assert_true(key_text_make(texts[i], &made));
        assert_true(key_text_parse(texts[i], strlen(texts[i]), &read));
        assert_string_equal(made.id, read.id);
        assert_ptr_equal(made.secret, read.secret);
        assert_true(key_id_is_valid(made.id));
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(memcmp(texts[i] + 10, texts[k] + 10, KEY_ID_LEN), 0);
    }
}

/* Each of 58 letters a 58th of the time: 64 keys of 44 letters; chi-squared of 57 degrees, far out. */
static void letters_are_drawn_evenly(void **state)
{
    size_t counts[128] = {0}, drawn = 0;
    struct key_parts parts;
    char text[KEY_TEXT_MAX];
    (void)state;
    for (size_t i = 0; i < 400; i++) {
        assert_true(key_text_make(text, &parts));
        for (size_t k = 0; k < KEY_SECRET_LEN; k++, drawn++)
            counts[(unsigned char)parts.secret[k]]++;
    }
    double expected = (double)drawn / 58, chi = 0;
    size_t kinds = 0;
    for (size_t c = 0; c < 128; c++)
        if (counts[c]) {
            chi += ((double)counts[c] - expected) * ((double)counts[c] - expected) / expected;
            kinds++;
        }
    assert_int_equal(kinds, 58);
    assert_true(chi < 57 + 6 * 10.7);
}

static void every_single_mistake_is_told(void **state)
{
    struct key_parts parts;
    char text[KEY_TEXT_MAX];
    size_t len = strlen(KNOWN);
    (void)state;
    for (size_t at = 0; at < len; at++)
        for (int c = 1; c < 256; c++) {
            memcpy(text, KNOWN, len + 1);
            text[at] = (char)c;
            assert_true(text[at] == KNOWN[at] || !key_text_parse(text, len, &parts));
        }
    for (size_t at = 0; at + 1 < len; at++) {
        memcpy(text, KNOWN, len + 1);
        text[at] = KNOWN[at + 1];
        text[at + 1] = KNOWN[at];
        assert_true(KNOWN[at] == KNOWN[at + 1] || !key_text_parse(text, len, &parts));
    }
}

static void another_length_is_no_key(void **state)
{
    struct key_parts parts;
    (void)state;
    for (size_t len = 0; len < strlen(KNOWN); len++)
        assert_false(key_text_parse(KNOWN, len, &parts));
    assert_false(key_text_parse(KNOWN "V", strlen(KNOWN) + 1, &parts));
    assert_false(key_text_parse(KNOWN "\0", strlen(KNOWN) + 1, &parts));
}

static void ids_are_eight_letters(void **state)
{
    (void)state;
    assert_true(key_id_is_valid("2Wq9fKxZ"));
    const char *const bad[] = {"",         "2Wq9fKx",  "2Wq9fKxZ2", "2Wq9fKx0",
                               "2Wq9fKxO", "2Wq9fKxI", "2Wq9fKxl",  "2Wq9-KxZ"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(key_id_is_valid(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_known_key_is_read),      cmocka_unit_test(a_new_key_is_read_and_no_two_are_alike),
        cmocka_unit_test(letters_are_drawn_evenly), cmocka_unit_test(every_single_mistake_is_told),
        cmocka_unit_test(another_length_is_no_key), cmocka_unit_test(ids_are_eight_letters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
