#include "base/arena.h"
#include "base/buf.h"
#include "test_support.h"

static void arena_aligns_and_keeps_contents(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 1 << 20);
    unsigned char *blocks[200];
    for (size_t i = 0; i < 200; i++) {
        blocks[i] = arena_alloc(&arena, i);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % 16, 0);
        memset(blocks[i], (int)i, i);
    }
    for (size_t i = 0; i < 200; i++)
        for (size_t j = 0; j < i; j++)
            assert_int_equal(blocks[i][j], i);
    arena_release(&arena);
}

static void arena_refuses_beyond_its_budget(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 10000);
    assert_null(arena_alloc(&arena, 10001));
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_calloc(&arena, SIZE_MAX / 2, 3));
    size_t got = 0;
    while (arena_alloc(&arena, 100))
        got += 100;
    assert_in_range(got, 8000, 10000);
    assert_true(arena.bytes <= arena.bytes_max);
    arena_clear(&arena);
    assert_non_null(arena_alloc(&arena, 9000));
    arena_release(&arena);
}

static int order[3], order_len;
static void note(void *ud)
{
    order[order_len++] = *(int *)ud;
}

static void arena_runs_cleanups_in_reverse(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 1 << 16);
    int ids[3] = {1, 2, 3};
    for (int i = 0; i < 3; i++)
        assert_int_equal(arena_on_release(&arena, note, &ids[i]), 0);
    arena_release(&arena);
    assert_int_equal(order_len, 3);
    assert_int_equal(order[0], 3);
    assert_int_equal(order[2], 1);
}

static void buf_fails_sticky_at_its_maximum(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 10);
    buf_puts(&buf, "12345");
    buf_printf(&buf, "%d", 67890);
    assert_int_equal(buf_status(&buf), PH_OK);
    assert_string_equal(buf.data, "1234567890");
    buf_putc(&buf, 'x');
    assert_int_equal(buf_status(&buf), PH_ERR_LIMIT);
    assert_int_equal(buf.len, 10);
    buf_clear(&buf);
    buf_puts(&buf, "abc");
    buf_consume(&buf, 2);
    assert_string_equal(buf.data, "c");
    assert_int_equal(buf_status(&buf), PH_OK);
    buf_release(&buf);
}

static void numbers_in_decimal(void **state)
{
    (void)state;
    static const struct {
        int64_t value;
        unsigned decimals;
        const char *text;
    } cases[] = {{0, 0, "0"},
                 {0, 3, "0"},
                 {1500, 3, "1.5"},
                 {1000, 3, "1"},
                 {1001, 3, "1.001"},
                 {-1, 3, "-0.001"},
                 {5, 12, "0.000000000005"},
                 {INT64_MAX, 0, "9223372036854775807"},
                 {INT64_MIN, 18, "-9.223372036854775808"},
                 {INT64_MIN, 0, "-9223372036854775808"}};
    struct buf b;
    buf_init(&b, 100);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf_clear(&b);
        buf_put_fixed(&b, cases[i].value, cases[i].decimals);
        assert_string_equal(b.data, cases[i].text);
    }
    buf_clear(&b);
    buf_put_uint(&b, UINT64_MAX);
    buf_put_uint(&b, 0);
    assert_string_equal(b.data, "184467440737095516150");
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_in_decimal),
        cmocka_unit_test(arena_aligns_and_keeps_contents),
        cmocka_unit_test(arena_refuses_beyond_its_budget),
        cmocka_unit_test(arena_runs_cleanups_in_reverse),
        cmocka_unit_test(buf_fails_sticky_at_its_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
