#include "base/mem.h"
#include "base/status.h"
#include "test_support.h"

static void failing_fills_code_and_message(void **state)
{
    (void)state;
    struct ph_err err;
    assert_int_equal(ph_fail(&err, PH_ERR_IO, "cannot read %s", "x"), PH_ERR_IO);
    assert_int_equal(err.code, PH_ERR_IO);
    assert_string_equal(err.message, "cannot read x");
    assert_int_equal(ph_fail(NULL, PH_ERR_BUSY, "nobody reads this"), PH_ERR_BUSY);
}

static void messages_are_one_printable_line(void **state)
{
    (void)state;
    struct ph_err err;
    (void)ph_fail(&err, PH_ERR_IO,
                  "a\r\nb\tc\x1b[2J\x7f \xC3\xA9 \xFF\xE2\x82 \xED\xA0\x80 \xF0\x9F\x98\x80");
    assert_string_equal(err.message, "a  b c?[2J? \xC3\xA9 ??? ??? \xF0\x9F\x98\x80");
}

static void long_messages_end_at_a_character(void **state)
{
    (void)state;
    char text[2 * PH_ERR_MESSAGE_MAX];
    for (size_t lead = 0; lead < 5; lead++) {
        memset(text, 'x', sizeof text);
        for (size_t i = lead; i + 5 < sizeof text; i += 4)
            memcpy(text + i, "\xF0\x9F\x98\x80", 4);
        text[sizeof text - 5] = 0;
        struct ph_err err;
        (void)ph_fail(&err, PH_ERR_IO, "%s", text);
        size_t len = strlen(err.message);
        assert_in_range(len, PH_ERR_MESSAGE_MAX - 4, PH_ERR_MESSAGE_MAX - 1);
        assert_int_equal(len % 4, lead % 4);
        assert_memory_equal(err.message, text, len);
    }
}

static void every_status_has_a_name(void **state)
{
    (void)state;
    for (int a = 0; a < PH_STATUS_COUNT; a++)
        for (int b = 0; b < a; b++)
            assert_string_not_equal(ph_status_name((enum ph_status)a), ph_status_name((enum ph_status)b));
    assert_string_equal(ph_status_name(PH_OK), "ok");
    assert_string_equal(ph_status_name(PH_STATUS_COUNT), "unknown status");
}

static void sizes_that_overflow_get_no_memory(void **state)
{
    (void)state;
    char *old = mem_alloc(4);
    assert_null(mem_calloc(SIZE_MAX / 2, 3));
    assert_null(mem_realloc(old, SIZE_MAX / 2, 3));
    mem_free(old); /* survived */
    for (size_t alignment = 16; alignment <= 4096; alignment *= 2) {
        unsigned char *memory = mem_alloc_aligned(alignment, 100);
        assert_int_equal((uintptr_t)memory % alignment, 0);
        for (int i = 0; i < 100; i++)
            assert_int_equal(memory[i], 0);
        mem_free(memory);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_fills_code_and_message),
        cmocka_unit_test(messages_are_one_printable_line),
        cmocka_unit_test(long_messages_end_at_a_character),
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(sizes_that_overflow_get_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
