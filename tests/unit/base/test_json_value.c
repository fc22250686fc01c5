/* Access, comparison, building and numbers. */
#include <math.h>

#include "base/json.h"
#include "test_support.h"

static int setup(void **state)
{
    struct arena *arena = calloc(1, sizeof *arena);
    arena_init(arena, 8u << 20);
    *state = arena;
    return 0;
}

static int teardown(void **state)
{
    arena_release(*state);
    free(*state);
    return 0;
}

static struct json *parse(struct arena *arena, const char *text)
{
    struct json *doc;
    struct ph_err err = {0};
    if (json_parse(arena, text, strlen(text), &doc, &err) != PH_OK)
        fail_msg("%s: %s", text, err.message);
    return doc;
}

static void assert_written(const struct json *value, const char *expected)
{
    struct buf buf;
    buf_init(&buf, 1 << 20);
    json_write(&buf, value);
    assert_int_equal(buf_status(&buf), PH_OK);
    assert_string_equal(buf.data, expected);
    buf_release(&buf);
}

static void access_finds_what_is_there(void **state)
{
    const struct json *doc = parse(*state, "{\"a\":1,\"b\":[true,null,\"x\\u0000y\"],\"a\":2,\"\":{}}");
    int64_t n;
    assert_true(json_to_int64(json_get(doc, "a"), &n));
    assert_int_equal(n, 2);
    assert_int_equal(json_count(doc), 4);
    assert_int_equal(json_count(json_get(doc, "b")), 3);
    assert_true(json_is_bool(json_at(json_get(doc, "b"), 0)));
    assert_true(json_is_absent(json_at(json_get(doc, "b"), 1)));
    assert_int_equal(json_at(json_get(doc, "b"), 2)->u.str.len, 3);
    assert_memory_equal(json_text(json_at(json_get(doc, "b"), 2), ""), "x\0y", 4);
    assert_false(json_text_is(json_at(json_get(doc, "b"), 2), "x"));
    assert_null(json_at(json_get(doc, "b"), 3));
    assert_true(json_is(json_get(doc, ""), JSON_OBJECT));
    assert_string_equal(json_text(json_get(doc, "a"), "fallback"), "fallback");
}

static void absent_values_answer_as_null(void **state)
{
    (void)state;
    double d;
    int64_t n;
    assert_null(json_get(NULL, "a"));
    assert_null(json_get(json_get(NULL, "a"), "b"));
    assert_null(json_at(NULL, 0));
    assert_null(json_first(NULL));
    assert_true(json_is(NULL, JSON_NULL));
    assert_true(json_is_absent(NULL));
    assert_false(json_is_bool(NULL));
    assert_int_equal(json_count(NULL), 0);
    assert_null(json_text(NULL, NULL));
    assert_false(json_to_double(NULL, &d));
    assert_false(json_to_int64(NULL, &n));
    assert_false(json_text_is(NULL, ""));
    assert_true(json_equal(NULL, NULL));
    assert_written(NULL, "null");
}

static void integers_are_exact(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        int64_t value;
    } cases[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"0e99999999999999999999", true, 0},
        {"0.000", true, 0},
        {"42", true, 42},
        {"3.0", true, 3},
        {"3.00000000000000000000000000000000", true, 3},
        {"1e3", true, 1000},
        {"1E+3", true, 1000},
        {"1.5e1", true, 15},
        {"1500e-2", true, 15},
        {"-12.50e1", true, -125},
        {"0.00012e5", true, 12},
        {"9007199254740993", true, 9007199254740993},
        {"9223372036854775807", true, INT64_MAX},
        {"9223372036854775808", false, 0},
        {"-9223372036854775808", true, INT64_MIN},
        {"-9223372036854775809", false, 0},
        {"9223372036854775807.0", true, INT64_MAX},
        {"922337203685477580.7e1", true, INT64_MAX},
        {"9.9e18", false, 0},
        {"1e19", false, 0},
        {"99999999999999999999", false, 0},
        {"1.5", false, 0},
        {"1e-1", false, 0},
        {"1e-99999999999999999999", false, 0},
        {"1e99999999999999999999", false, 0},
        {"\"1\"", false, 0},
        {"true", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = 0;
        bool ok = json_to_int64(parse(*state, cases[i].text), &value);
        if (ok != cases[i].ok || value != cases[i].value)
            fail_msg("%s read as %lld (%d)", cases[i].text, (long long)value, ok);
    }
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 11;
}

static void doubles_read_as_the_c_library_does(void **state)
{
    uint64_t random = 7;
    for (int i = 0; i < 20000; i++) {
        char text[64];
        int digits = (int)(next_random(&random) % 20) + 1;
        size_t len =
            (size_t)snprintf(text, sizeof text, "%s%d.", i % 3 ? "" : "-", (int)(next_random(&random) % 10));
        for (int k = 0; k < digits; k++)
            text[len++] = (char)('0' + next_random(&random) % 10);
        snprintf(text + len, sizeof text - len, "e%d", (int)(next_random(&random) % 60) - 30);
        double value = 0;
        assert_true(json_to_double(parse(*state, text), &value));
        double expected = strtod(text, NULL);
        if (memcmp(&value, &expected, sizeof value) != 0)
            fail_msg("%s read as %.17g", text, value);
        if (i % 1000 == 0)
            arena_clear(*state);
    }
    double value;
    assert_false(json_to_double(parse(*state, "1e400"), &value));
    assert_false(json_to_double(parse(*state, "\"1\""), &value));
    assert_true(json_to_double(parse(*state, "1e-400"), &value));
    assert_true(json_to_double(parse(*state, "-0"), &value));
    assert_true(signbit(value));
}

static void assert_double_text(double value, const char *expected)
{
    struct buf buf;
    buf_init(&buf, 100);
    json_write_double(&buf, value);
    assert_string_equal(buf.data, expected);
    buf_release(&buf);
}

static void doubles_write_shortest(void **state)
{
    (void)state;
    assert_double_text(0, "0");
    assert_double_text(-0.0, "-0");
    assert_double_text(0.1, "0.1");
    assert_double_text(1.0 / 3, "0.3333333333333333");
    assert_double_text(0.1 + 0.2, "0.30000000000000004");
    assert_double_text(1e21, "1e+21");
    assert_double_text(5e-324, "5e-324");
    assert_double_text(1.7976931348623157e308, "1.7976931348623157e+308");
    assert_double_text(NAN, "null");
    assert_double_text(INFINITY, "null");
    uint64_t random = 3;
    struct buf buf;
    buf_init(&buf, 100);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = next_random(&random) << 33 ^ next_random(&random);
        double value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        buf_clear(&buf);
        json_write_double(&buf, value);
        assert_true(strtod(buf.data, NULL) == value);
    }
    buf_release(&buf);
}

static void equality_goes_by_meaning(void **state)
{
    static const struct {
        const char *a, *b;
        bool equal;
    } cases[] = {
        {"1", "1.0", true},
        {"1", "10e-1", true},
        {"0", "-0.0e5", true},
        {"100", "1e2", true},
        {"-1", "1", false},
        {"1e400", "10e399", true},
        {"1e400", "1e401", false},
        {"9007199254740993", "9007199254740992", false},
        {"0.1", "0.10000000000000001", false},
        {"12.5", "1.25e1", true},
        {"1", "\"1\"", false},
        {"null", "false", false},
        {"true", "true", true},
        {"\"a\"", "\"\\u0061\"", true},
        {"\"a\"", "\"ab\"", false},
        {"\"a\\u0000b\"", "\"a\\u0000c\"", false},
        {"[1,2]", "[1,2]", true},
        {"[1,2]", "[2,1]", false},
        {"[1,2]", "[1,2,3]", false},
        {"[1,2,3]", "[1,2]", false},
        {"[]", "{}", false},
        {"{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", true},
        {"{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":2}", false},
        {"{\"a\":1,\"b\":2}", "{\"a\":1}", false},
        {"{\"a\":1}", "{\"a\":1,\"b\":2}", false},
        {"{\"a\":1,\"a\":2}", "{\"a\":2}", true},
        {"{\"a\":1,\"a\":2}", "{\"a\":1}", false},
        {"{\"a\":1,\"a\":2}", "{\"a\":3,\"a\":2}", true},
        {"{\"a\":1,\"a\":2}", "{\"a\":1,\"b\":2}", false},
        {"{\"a\":1,\"b\":2}", "{\"a\":1,\"a\":1}", false},
        {"{\"x\":[{\"a\":null}]}", "{\"x\":[{\"a\":null}]}", true},
        {"{\"x\":[{\"a\":null}]}", "{\"x\":[{}]}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct json *a = parse(*state, cases[i].a), *b = parse(*state, cases[i].b);
        if (json_equal(a, b) != cases[i].equal || json_equal(b, a) != cases[i].equal)
            fail_msg("%s and %s", cases[i].a, cases[i].b);
        assert_true(json_equal(a, a) && json_equal(b, b));
    }
}

/* Two objects a level whose order differs, unequal at the bottom: a comparison that looks at a child twice a
 * level would never end. */
static void equality_is_not_exponential_in_depth(void **state)
{
    struct json *a = json_new_int(*state, 1), *b = json_new_int(*state, 2);
    for (int i = 0; i < 200; i++) {
        struct json *x = json_new(*state, JSON_OBJECT), *y = json_new(*state, JSON_OBJECT);
        json_set(*state, x, "k", a);
        json_set(*state, x, "l", json_new(*state, JSON_NULL));
        if (i % 2)
            json_set(*state, y, "l", json_new(*state, JSON_NULL));
        json_set(*state, y, "k", b);
        if (i % 2 == 0)
            json_set(*state, y, "l", json_new(*state, JSON_NULL));
        a = x;
        b = y;
    }
    assert_false(json_equal(a, b));
}

static void builders_build(void **state)
{
    struct json *doc = json_new(*state, JSON_OBJECT);
    struct json *list = json_set(*state, doc, "list", json_new(*state, JSON_ARRAY));
    json_push(list, json_new_int(*state, INT64_MIN));
    json_push(list, json_new_double(*state, 0.5));
    json_push(list, json_new_double(*state, NAN));
    json_push(list, json_new_string(*state, "a\"\\\n\x01\0z", 7));
    json_push(list, json_new(*state, JSON_TRUE));
    json_set(*state, doc, "e", json_new(*state, JSON_STRING));
    assert_written(
        doc, "{\"list\":[-9223372036854775808,0.5,null,\"a\\\"\\\\\\n\\u0001\\u0000z\",true],\"e\":\"\"}");
    assert_null(json_set(*state, NULL, "a", json_new_int(*state, 1)));
    assert_null(json_set(*state, list, "a", json_new_int(*state, 1)));
    assert_null(json_set(*state, doc, "a", NULL));
    assert_null(json_push(NULL, json_new_int(*state, 1)));
    assert_null(json_push(doc, json_new_int(*state, 1)));
    assert_null(json_push(list, NULL));
}

static void set_replaces_in_place_and_leaves_no_duplicate(void **state)
{
    struct json *doc = parse(*state, "{\"m\":1,\"a\":2,\"m\":3,\"b\":4}");
    json_set(*state, doc, "m", json_new_int(*state, 9));
    assert_written(doc, "{\"a\":2,\"m\":9,\"b\":4}");
    assert_int_equal(json_count(doc), 3);
    json_set(*state, doc, "b", json_new_int(*state, 5));
    json_set(*state, doc, "c", json_new_int(*state, 6));
    assert_written(doc, "{\"a\":2,\"m\":9,\"b\":5,\"c\":6}");
    json_remove(doc, "c");
    json_remove(doc, "a");
    json_remove(doc, "nothing");
    json_set(*state, doc, "d", json_new_int(*state, 7));
    assert_written(doc, "{\"m\":9,\"b\":5,\"d\":7}");
    json_remove(doc, "m");
    json_remove(doc, "b");
    json_remove(doc, "d");
    assert_written(doc, "{}");
    json_set(*state, doc, "z", json_new_int(*state, 1));
    assert_written(doc, "{\"z\":1}");
}

static void copies_are_deep(void **state)
{
    struct arena other;
    arena_init(&other, 1 << 20);
    const char *text = "{\"a\":[1,2.50,{\"b\":\"x\\u0000y\",\"a\":null}],\"a\":false,\"\":1e400}";
    struct json *copied = json_copy(*state, parse(&other, text));
    arena_release(&other);
    assert_written(copied, text);
    assert_null(copied->next);
    assert_null(copied->key);
}

static void shared_roots_are_apart(void **state)
{
    static const char text[] = "{\"a\":[1,2],\"b\":{\"c\":3},\"a\":4}";
    struct json *doc = parse(*state, text);
    struct json *root = json_share(*state, doc);
    json_set(*state, root, "b", json_new_int(*state, 9));
    json_set(*state, root, "d", json_share(*state, json_get(doc, "b")));
    json_remove(root, "a");
    assert_written(root, "{\"b\":9,\"d\":{\"c\":3}}");
    assert_written(doc, text);
    struct json *list = json_share(*state, json_first(doc));
    assert_null(list->key);
    json_push(list, json_new_int(*state, 5));
    assert_written(list, "[1,2,5]");
    assert_written(doc, text);
    assert_written(json_share(*state, NULL), "null");
    assert_written(json_share(*state, parse(*state, "{}")), "{}");
}

static void absurd_depth_is_refused_everywhere(void **state)
{
    struct json *deep = json_new(*state, JSON_ARRAY);
    for (int i = 0; i < 20000; i++) {
        struct json *outer = json_new(*state, JSON_ARRAY);
        json_push(outer, deep);
        deep = outer;
    }
    struct buf buf;
    buf_init(&buf, 1 << 20);
    json_write(&buf, deep);
    assert_int_equal(buf_status(&buf), PH_ERR_LIMIT);
    assert_null(json_copy(*state, deep));
    assert_false(json_equal(deep, deep));
    buf_release(&buf);
}

static void writer_repairs_broken_text(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 1000);
    static const char text[] = "a\xF0\x9F\x98z\xFF/\xE2\x82\xAC\x7F\xED\xA0\x80 long enough for words\xC3";
    json_write_string(&buf, text, sizeof text - 1);
    assert_string_equal(buf.data,
                        "\"a\xEF\xBF\xBDz\xEF\xBF\xBD/\xE2\x82\xAC\x7F\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                        " long enough for words\xEF\xBF\xBD\"");
    buf_release(&buf);
}

static void a_full_buffer_stops_the_writer(void **state)
{
    const char *text = "{\"a\":[1,true,false,null,\"b\\n\\u00e9\",{}]}";
    const struct json *doc = parse(*state, text);
    for (size_t max = 0; max < 60; max++) {
        struct buf buf;
        buf_init(&buf, max);
        json_write(&buf, doc);
        bool fits = max >= strlen(text) - 4;
        assert_int_equal(buf_status(&buf), fits ? PH_OK : PH_ERR_LIMIT);
        buf_release(&buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(access_finds_what_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(absent_values_answer_as_null, setup, teardown),
        cmocka_unit_test_setup_teardown(integers_are_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(doubles_read_as_the_c_library_does, setup, teardown),
        cmocka_unit_test_setup_teardown(doubles_write_shortest, setup, teardown),
        cmocka_unit_test_setup_teardown(equality_goes_by_meaning, setup, teardown),
        cmocka_unit_test_setup_teardown(equality_is_not_exponential_in_depth, setup, teardown),
        cmocka_unit_test_setup_teardown(builders_build, setup, teardown),
        cmocka_unit_test_setup_teardown(set_replaces_in_place_and_leaves_no_duplicate, setup, teardown),
        cmocka_unit_test_setup_teardown(shared_roots_are_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(copies_are_deep, setup, teardown),
        cmocka_unit_test_setup_teardown(absurd_depth_is_refused_everywhere, setup, teardown),
        cmocka_unit_test_setup_teardown(writer_repairs_broken_text, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_buffer_stops_the_writer, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
