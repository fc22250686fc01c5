#include "cli/cli_int.h"
#include "test_support.h"

static void ids_are_read_strictly(void **state)
{
    (void)state;
    struct token_list list = {0};
    struct ph_err err;
    assert_int_equal(cli_ids_parse(" 1,2, 30\t4 2147483647,", 22, &list, &err), PH_OK);
    const int32_t want[] = {1, 2, 30, 4, INT32_MAX};
    assert_int_equal(list.len, 5);
    assert_memory_equal(list.ids, want, sizeof want);
    static const char *const bad[] = {"x",   "1,-2", "1.5", "2147483648", "99999999999999999999",
                                      "1;2", "0x10"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(cli_ids_parse(bad[i], strlen(bad[i]), &list, &err), PH_ERR_ARG);
    struct buf out;
    buf_init(&out, 100);
    cli_ids_write(&out, want, 5);
    assert_string_equal(out.data, "1,2,30,4,2147483647");
    buf_release(&out);
    token_list_release(&list);
}

static void hex_goes_both_ways(void **state)
{
    (void)state;
    struct buf out, back;
    struct ph_err err;
    buf_init(&out, 100);
    buf_init(&back, 100);
    assert_int_equal(cli_hex_parse("00ffA5a5\r", 9, &out, &err), PH_OK);
    assert_int_equal(out.len, 4);
    assert_memory_equal(out.data, "\x00\xFF\xA5\xA5", 4);
    cli_hex_write(&back, out.data, out.len);
    assert_string_equal(back.data, "00ffa5a5");
    assert_int_equal(cli_hex_parse("0", 1, &out, &err), PH_ERR_FORMAT);
    assert_int_equal(cli_hex_parse("0g", 2, &out, &err), PH_ERR_FORMAT);
    assert_non_null(strstr(err.message, "column 2"));
    buf_release(&out);
    buf_release(&back);
}

static void lines_end_where_they_end(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t lines;
    } cases[] = {{"", 0}, {"\n", 1}, {"a", 1}, {"a\n", 1}, {"a\n\nb", 3}, {"\n\n", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t cursor = 0, len, lines = 0, bytes = 0;
        const char *line;
        while (cli_next_line(cases[i].text, strlen(cases[i].text), &cursor, &line, &len)) {
            lines++;
            bytes += len;
            assert_null(memchr(line, '\n', len));
        }
        assert_int_equal(lines, cases[i].lines);
        assert_in_range(bytes, 0, strlen(cases[i].text));
    }
}

static void adapters_have_scales(void **state)
{
    (void)state;
    const struct cli_list items = {{"a.gguf", "b.gguf:0.5", "c:/d.gguf", "e:-2", "f:", "g:x1"}, 6};
    static const struct {
        const char *path;
        float scale;
    } want[] = {{"a.gguf", 1}, {"b.gguf", 0.5f}, {"c:/d.gguf", 1}, {"e", -2}, {"f:", 1}, {"g:x1", 1}};
    struct arena arena;
    const char *const *paths;
    float *scales;
    arena_init(&arena, 1 << 16);
    assert_int_equal(cli_loras_parse(&arena, &items, &paths, &scales, NULL), PH_OK);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(paths[i], want[i].path);
        assert_true(scales[i] == want[i].scale);
    }
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_read_strictly),
        cmocka_unit_test(hex_goes_both_ways),
        cmocka_unit_test(lines_end_where_they_end),
        cmocka_unit_test(adapters_have_scales),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
