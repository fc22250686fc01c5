#include "base/base64.h"
#include "test_support.h"

/* RFC 4648, section 10, and two with the digits beyond letters. */
static const struct {
    const char *bytes, *text;
    size_t len;
} vectors[] = {{"", "", 0},
               {"f", "Zg==", 1},
               {"fo", "Zm8=", 2},
               {"foo", "Zm9v", 3},
               {"foob", "Zm9vYg==", 4},
               {"fooba", "Zm9vYmE=", 5},
               {"foobar", "Zm9vYmFy", 6},
               {"\xFB\xFF\xBF", "+/+/", 3},
               {"\0\0\0", "AAAA", 3}};

static void known_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        unsigned char bytes[16];
        size_t text_len = strlen(vectors[i].text), bare = strcspn(vectors[i].text, "=");
        struct buf out;
        buf_init(&out, 100);
        base64_write(&out, vectors[i].bytes, vectors[i].len);
        assert_int_equal(out.len, text_len);
        if (text_len)
            assert_memory_equal(out.data, vectors[i].text, text_len);
        buf_release(&out);
        assert_int_equal(base64_read(vectors[i].text, text_len, bytes), vectors[i].len);
        assert_memory_equal(bytes, vectors[i].bytes, vectors[i].len);
        assert_int_equal(base64_read(vectors[i].text, bare, bytes), vectors[i].len);
        assert_memory_equal(bytes, vectors[i].bytes, vectors[i].len);
    }
}

static void what_is_none_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "A", "AAAAA", "====", "A===", "Zg=", "Zg==Zg==", "Zm9v\n", "Zm 9", "Zm-_"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        unsigned char bytes[16];
        if (base64_read(bad[i], strlen(bad[i]), bytes) != BASE64_BAD)
            fail_msg("taken: %s", bad[i]);
    }
}

static void every_byte_comes_back(void **state)
{
    (void)state;
    unsigned char bytes[256], back[BASE64_BYTES_MAX(344)];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    for (size_t len = 0; len <= sizeof bytes; len++) {
        struct buf out;
        buf_init(&out, 1000);
        base64_write(&out, bytes, len);
        assert_int_equal(base64_read(out.len ? out.data : "", out.len, back), len);
        assert_memory_equal(bytes, back, len);
        buf_release(&out);
    }
}

static void a_full_buffer_is_said(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 7);
    base64_write(&out, "foob", 4);
    assert_int_equal(buf_status(&out), PH_ERR_LIMIT);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_texts),
        cmocka_unit_test(what_is_none_is_refused),
        cmocka_unit_test(every_byte_comes_back),
        cmocka_unit_test(a_full_buffer_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
