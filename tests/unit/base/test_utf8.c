#include "base/utf8.h"
#include "test_support.h"

/* Written from the bit layout alone, without the table under test. */
static size_t slow_encode(uint32_t cp, unsigned char *out)
{
    if (cp < 0x80) {
        out[0] = (unsigned char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (unsigned char)(0xC0 + cp / 64);
        out[1] = (unsigned char)(0x80 + cp % 64);
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (unsigned char)(0xE0 + cp / 4096);
        out[1] = (unsigned char)(0x80 + cp / 64 % 64);
        out[2] = (unsigned char)(0x80 + cp % 64);
        return 3;
    }
    out[0] = (unsigned char)(0xF0 + cp / 262144);
    out[1] = (unsigned char)(0x80 + cp / 4096 % 64);
    out[2] = (unsigned char)(0x80 + cp / 64 % 64);
    out[3] = (unsigned char)(0x80 + cp % 64);
    return 4;
}

static bool is_scalar(uint32_t cp)
{
    return cp <= 0x10FFFF && (cp < 0xD800 || cp > 0xDFFF);
}

static void every_code_point_encodes_and_decodes(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp < 0x120000; cp++) {
        unsigned char expected[4] = {0};
        char text[UTF8_LEN_MAX];
        size_t len = slow_encode(cp, expected);
        uint32_t back = 0;
        if (!is_scalar(cp)) {
            assert_int_equal(utf8_encode(cp, text), 0);
            assert_int_equal(utf8_decode((char *)expected, len, &back), 0);
            assert_false(utf8_valid((char *)expected, len));
            continue;
        }
        assert_int_equal(utf8_encode(cp, text), len);
        assert_memory_equal(text, expected, len);
        assert_int_equal(utf8_decode(text, len, &back), len);
        assert_int_equal(back, cp);
        assert_true(utf8_valid(text, len));
        for (size_t cut = 1; cut < len; cut++) {
            assert_int_equal(utf8_decode(text, cut, &back), 0);
            assert_int_equal(utf8_incomplete_tail(text, cut), cut);
        }
        assert_int_equal(utf8_incomplete_tail(text, len), 0);
    }
}

/* All sequences of two bytes, and of three with a few thirds: valid exactly when some code points encode so.
 */
static void short_sequences_agree_with_enumeration(void **state)
{
    (void)state;
    static unsigned char ok2[65536];
    for (uint32_t cp = 0; cp < 0x800; cp++) {
        unsigned char text[4];
        if (slow_encode(cp, text) == 2)
            ok2[text[0] << 8 | text[1]] = 1;
    }
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++) {
            char text[2] = {(char)a, (char)b};
            bool expected = (a < 0x80 && b < 0x80) || ok2[a << 8 | b];
            assert_int_equal(utf8_valid(text, 2), expected);
        }
}

static void broken_text_is_refused_wherever_it_stands(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\x80",         "\xBF",         "\xC0\x80",         "\xC1\xBF",         "\xE0\x9F\xBF",
        "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
        "\xFE",         "\xFF",         "\xE2\x82",         "\xF0\x9F\x98",     "\xC3(",
        "\xE2(\xA1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (size_t lead = 0; lead < 20; lead++) {
            char text[64];
            memset(text, 'a', sizeof text);
            memcpy(text + lead, bad[i], strlen(bad[i]));
            assert_false(utf8_valid(text, sizeof text));
            assert_false(utf8_valid(text, lead + strlen(bad[i])));
            assert_true(utf8_valid(text, lead));
        }
    }
}

static void next_replaces_maximal_parts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t read;
        uint32_t code_point;
    } cases[] = {
        {"a", 1, 'a'},
        {"\xF0\x9F\x98\x80", 4, 0x1F600},
        {"\xF0\x9F\x98z", 3, UTF8_REPLACEMENT},
        {"\xF0\x9Fz", 2, UTF8_REPLACEMENT},
        {"\xF0z", 1, UTF8_REPLACEMENT},
        {"\x80\x80", 1, UTF8_REPLACEMENT},
        {"\xED\xA0\x80", 1, UTF8_REPLACEMENT},
        {"\xE2\x82", 2, UTF8_REPLACEMENT},
        {"\xC0\x80", 1, UTF8_REPLACEMENT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t cp = 0;
        assert_int_equal(utf8_next(cases[i].text, strlen(cases[i].text), &cp), cases[i].read);
        assert_int_equal(cp, cases[i].code_point);
    }
}

static void tails_that_can_never_become_valid_are_not_incomplete(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t tail;
    } cases[] = {{"", 0},
                 {"abc", 0},
                 {"a\x80", 0},
                 {"a\xE2", 1},
                 {"a\xE2\x82", 2},
                 {"a\xED\xA0", 0},
                 {"a\xF0\x9F\x98", 3},
                 {"a\xF0\x80", 0},
                 {"a\xC0", 0},
                 {"a\xF5", 0},
                 {"a\xC3\xA9", 0},
                 {"\x80\x80\x80\x80", 0},
                 {"\xE2\x82\xAC\x82", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(utf8_incomplete_tail(cases[i].text, strlen(cases[i].text)), cases[i].tail);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_encodes_and_decodes),
        cmocka_unit_test(short_sequences_agree_with_enumeration),
        cmocka_unit_test(broken_text_is_refused_wherever_it_stands),
        cmocka_unit_test(next_replaces_maximal_parts),
        cmocka_unit_test(tails_that_can_never_become_valid_are_not_incomplete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
