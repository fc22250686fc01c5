#include "base/bytes.h"

#include <string.h>

#include "test_support.h"

static void test_numbers_are_little_endian(void **state)
{
    unsigned char bytes[10];
    (void)state;
    memset(bytes, 0xaa, sizeof bytes);
    bytes_put_le(bytes + 1, 0x0102030405060708, 8);
    assert_memory_equal(bytes, "\xaa\x08\x07\x06\x05\x04\x03\x02\x01\xaa", 10);
    assert_int_equal(bytes_get_le(bytes + 1, 8), 0x0102030405060708);
    assert_int_equal(bytes_get_le(bytes + 1, 2), 0x0708);
    bytes_put_le(bytes, 0xfffefdfc, 2); /* what does not fit is not there */
    assert_memory_equal(bytes, "\xfc\xfd\x07", 3);
    assert_int_equal(bytes_get_le(bytes, 0), 0);
}

static void test_hexadecimal(void **state)
{
    char out[9] = "????????";
    (void)state;
    bytes_hex(out, "\x00\x9f\xe0\xff", 4);
    assert_string_equal(out, "009fe0ff");
    bytes_hex(out, "", 0);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_are_little_endian),
        cmocka_unit_test(test_hexadecimal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
