#include <fcntl.h>
#include <uv.h>

#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "test_support.h"

/* What the sink received since the last call. Lines go through a pipe, as they would to a collector. */
static int ends[2];

static const char *take_output(void)
{
    static char text[1 << 16];
    ssize_t len = read(ends[0], text, sizeof text - 1);
    text[len > 0 ? len : 0] = 0;
    return text;
}

static int setup(void **state)
{
    (void)state;
    if (pipe(ends) != 0)
        return -1;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    log_setup(2, LOG_INFO, false);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static void human_lines_are_plain_and_safe(void **state)
{
    (void)state;
    log_setup(ends[1], LOG_INFO, false);
    log_info("engine", "loaded %s in %d ms", "caf\xC3\xA9.gguf", 12);
    const char *line = take_output();
    assert_int_equal(strspn(line, "0123456789-T:.Z"), 24);
    assert_string_equal(line + 24, " info  engine: loaded caf\xC3\xA9.gguf in 12 ms\n");
    log_error("net", "%s", "a\nb\r\t\x1b[2J\x7f\xC2\x85\xE2\x80\xAE\xFFz \"q\" \\");
    assert_string_equal(take_output() + 24,
                        " error net: a\\nb\\u000d\\u0009\\u001b[2J\\u007f\\u0085\\u202e\\xffz "
                        "\"q\" \\\n");
}

static void json_lines_are_json(void **state)
{
    (void)state;
    log_setup(ends[1], LOG_DEBUG, true);
    log_debug("a\"b", "%s", "line\nquote\" back\\ \x01\xFF \xE2\x82\xAC");
    const char *line = take_output();
    assert_true(line[strlen(line) - 1] == '\n');
    struct arena arena;
    arena_init(&arena, 1 << 16);
    struct json *doc;
    assert_int_equal(json_parse(&arena, line, strlen(line), &doc, NULL), PH_OK);
    assert_int_equal(json_count(doc), 4);
    assert_true(json_text_is(json_get(doc, "level"), "debug"));
    assert_true(json_text_is(json_get(doc, "area"), "a\"b"));
    assert_true(json_text_is(json_get(doc, "message"), "line\nquote\" back\\ \x01\xEF\xBF\xBD \xE2\x82\xAC"));
    assert_int_equal(strlen(json_text(json_get(doc, "time"), "")), 24);
    arena_release(&arena);
}

static void levels_are_filtered_and_named(void **state)
{
    (void)state;
    enum log_level level = LOG_INFO;
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_DEBUG);
    assert_true(log_level_parse("error", &level));
    assert_int_equal(level, LOG_ERROR);
    assert_false(log_level_parse("Error", &level));
    assert_false(log_level_parse("", &level));
    log_setup(ends[1], LOG_WARN, false);
    assert_true(log_enabled(LOG_WARN));
    assert_false(log_enabled(LOG_INFO));
    log_info("a", "silent");
    log_debug("a", "silent");
    assert_string_equal(take_output(), "");
    log_warn("a", "heard");
    assert_non_null(strstr(take_output(), "warn  a: heard"));
}

/* Whatever the length and wherever a character or an escape falls, a line is one line within its limit. */
static void long_messages_are_cut_at_a_character(void **state)
{
    (void)state;
    static const char *const units[] = {"x", "\xE2\x82\xAC", "\x01", "\"", "\xF0\x9F\x98\x80", "\xFF"};
    static char text[3 * LOG_LINE_BYTES_MAX];
    struct arena arena;
    arena_init(&arena, 1 << 20);
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        for (size_t shift = 0; shift < 8; shift++) {
            size_t len = shift;
            memset(text, 's', shift);
            while (len < sizeof text - 8) {
                memcpy(text + len, units[u], strlen(units[u]));
                len += strlen(units[u]);
            }
            text[len] = 0;
            for (int json = 0; json < 2; json++) {
                log_setup(ends[1], LOG_INFO, json);
                log_info("area", "%s", text);
                const char *line = take_output();
                size_t line_len = strlen(line);
                assert_in_range(line_len, LOG_LINE_BYTES_MAX - 20, LOG_LINE_BYTES_MAX);
                assert_ptr_equal(strchr(line, '\n'), line + line_len - 1);
                assert_non_null(strstr(line, json ? "...\"}\n" : "...\n"));
                struct json *doc;
                if (json)
                    assert_int_equal(json_parse(&arena, line, line_len, &doc, NULL), PH_OK);
                arena_clear(&arena);
            }
        }
    }
    arena_release(&arena);
}

enum { THREADS = 4, LINES = 200 };

static void write_lines(void *ud)
{
    char fill[700];
    memset(fill, *(const char *)ud, sizeof fill - 1);
    fill[sizeof fill - 1] = 0;
    for (int i = 0; i < LINES; i++)
        log_info("t", "%s", fill);
}

static void lines_of_threads_do_not_mix(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    int fd = fileno(file);
    fcntl(fd, F_SETFL, O_APPEND);
    log_setup(fd, LOG_INFO, false);
    uv_thread_t threads[THREADS];
    static const char names[THREADS + 1] = "abcd";
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(uv_thread_create(&threads[i], write_lines, (void *)&names[i]), 0);
    for (int i = 0; i < THREADS; i++)
        uv_thread_join(&threads[i]);
    rewind(file);
    char line[2000];
    int lines = 0;
    for (; fgets(line, sizeof line, file); lines++) {
        const char *body = strstr(line, "t: ");
        assert_non_null(body);
        body += 3;
        char unit[2] = {*body, 0};
        assert_int_equal(strspn(body, unit), 699);
        assert_string_equal(body + 699, "\n");
    }
    assert_int_equal(lines, THREADS * LINES);
    fclose(file);
}

static void a_closed_sink_is_survived(void **state)
{
    (void)state;
    log_setup(-1, LOG_INFO, false);
    log_info("a", "nobody hears this");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(human_lines_are_plain_and_safe, setup, teardown),
        cmocka_unit_test_setup_teardown(json_lines_are_json, setup, teardown),
        cmocka_unit_test_setup_teardown(levels_are_filtered_and_named, setup, teardown),
        cmocka_unit_test_setup_teardown(long_messages_are_cut_at_a_character, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_of_threads_do_not_mix, setup, teardown),
        cmocka_unit_test_setup_teardown(a_closed_sink_is_survived, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
