/* Thousands of generated documents, whole and damaged, read by us and by jansson. */
#include "base/clock.h"
#include "base/json.h"
#include "json_oracle.h"
#include "test_support.h"

#define GENERATED_DEPTH_MAX 6

static uint64_t below(struct rng *rng, uint64_t count)
{
    return rng_u64(rng) % count;
}

static void put_space(struct rng *rng, struct buf *out)
{
    while (below(rng, 4) == 0)
        buf_putc(out, " \t\n\r"[below(rng, 4)]);
}

static void put_string(struct rng *rng, struct buf *out)
{
    static const char *const pieces[] = {"a",
                                         "plain text of some length",
                                         "\xC3\xA9",
                                         "\xE4\xB8\x96\xE7\x95\x8C",
                                         "\xF0\x9F\x98\x80",
                                         "\\\"",
                                         "\\\\",
                                         "\\/",
                                         "\\b\\f\\n\\r\\t",
                                         "\\u0041",
                                         "\\u00e9",
                                         "\\uD83D\\uDE00",
                                         "\\u4E16",
                                         "\x7F",
                                         "\xEE\x80\x80",
                                         "/",
                                         "'",
                                         "{[:,]}",
                                         "\xF4\x8F\xBF\xBF"};
    buf_putc(out, '"');
    for (uint64_t count = below(rng, 6); count > 0; count--)
        buf_puts(out, pieces[below(rng, sizeof pieces / sizeof pieces[0])]);
    if (below(rng, 40) == 0)
        buf_puts(out, "\\u0000");
    buf_putc(out, '"');
}

static void put_digits(struct rng *rng, struct buf *out, uint64_t count)
{
    while (count-- > 0)
        buf_putc(out, (char)('0' + below(rng, 10)));
}

static void put_number(struct rng *rng, struct buf *out)
{
    buf_puts(out, below(rng, 2) ? "-" : "");
    if (below(rng, 5) == 0) {
        buf_putc(out, '0');
    } else {
        buf_putc(out, (char)('1' + below(rng, 9)));
        put_digits(rng, out, below(rng, 18));
    }
    if (below(rng, 3) == 0) {
        buf_putc(out, '.');
        put_digits(rng, out, 1 + below(rng, 20));
    }
    if (below(rng, 4) == 0) {
        buf_putc(out, "eE"[below(rng, 2)]);
        buf_puts(out, (const char *const[]){"", "+", "-"}[below(rng, 3)]);
        put_digits(rng, out, 1 + below(rng, 2));
    }
}

static void put_value(struct rng *rng, struct buf *out, unsigned depth)
{
    put_space(rng, out);
    uint64_t kind = below(rng, depth < GENERATED_DEPTH_MAX ? 9 : 5);
    if (kind < 3) {
        buf_puts(out, (const char *const[]){"null", "true", "false"}[kind]);
    } else if (kind == 3) {
        put_number(rng, out);
    } else if (kind == 4) {
        put_string(rng, out);
    } else {
        bool object = kind & 1;
        buf_putc(out, object ? '{' : '[');
        uint64_t count = below(rng, 6);
        for (uint64_t i = 0; i < count; i++) {
            buf_puts(out, i ? "," : "");
            if (object) {
                put_space(rng, out);
                put_string(rng, out);
                put_space(rng, out);
                buf_putc(out, ':');
            }
            put_value(rng, out, depth + 1);
        }
        put_space(rng, out);
        buf_putc(out, object ? '}' : ']');
    }
    put_space(rng, out);
}

static void assert_agree(const struct json *ours, const struct oracle_node *theirs);

static void assert_objects_agree(const struct json *ours, const struct oracle_node *theirs)
{
    size_t distinct = 0;
    JSON_EACH (member, ours) {
        assert_int_equal(strlen(member->key), member->key_len);
        const struct json *effective = json_get(ours, member->key);
        if (effective == member) {
            const struct oracle_node *node = oracle_get(theirs, member->key);
            assert_non_null(node);
            assert_agree(member, node);
            distinct++;
        }
    }
    assert_int_equal(distinct, oracle_count(theirs));
}

static void assert_agree(const struct json *ours, const struct oracle_node *theirs)
{
    int64_t integer = 0;
    double real = 0, expected;
    size_t len, index = 0;
    switch (oracle_type(theirs)) {
    case 'n':
        assert_true(json_is_absent(ours));
        break;
    case 't':
        assert_true(json_is(ours, JSON_TRUE));
        break;
    case 'f':
        assert_true(json_is(ours, JSON_FALSE));
        break;
    case 'i':
        assert_true(json_to_int64(ours, &integer));
        assert_true(integer == oracle_integer(theirs));
        break;
    case 'r':
        assert_true(json_to_double(ours, &real));
        expected = oracle_real(theirs);
        assert_memory_equal(&real, &expected, sizeof real);
        break;
    case 's':
        assert_true(json_is(ours, JSON_STRING));
        const char *text = oracle_string(theirs, &len);
        assert_int_equal(ours->u.str.len, len);
        assert_memory_equal(ours->u.str.text, text, len + 1);
        break;
    case 'a':
        assert_true(json_is(ours, JSON_ARRAY));
        assert_int_equal(json_count(ours), oracle_count(theirs));
        JSON_EACH (item, ours)
            assert_agree(item, oracle_at(theirs, index++));
        break;
    default:
        assert_true(json_is(ours, JSON_OBJECT));
        assert_objects_agree(ours, theirs);
    }
}

/* Where we read more than jansson does. */
static bool is_known_difference(const char *reason)
{
    static const char *const reasons[] = {
        "too big",
        "real number overflow", /* numbers are kept as text */
        "invalid Unicode",      /* a lone surrogate escape reads as U+FFFD */
        "NUL byte in object key",
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (strstr(reason, reasons[i]))
            return true;
    return false;
}

/* Reads the text with both; answers whether both took it. */
static bool compare(struct arena *arena, const char *text, size_t len)
{
    struct json *ours;
    struct ph_err err = {0};
    char reason[160] = "";
    char *exact = malloc(len ? len : 1); /* so that the sanitizer sees a read behind the end */
    memcpy(exact, text, len);
    enum ph_status status = json_parse(arena, exact, len, &ours, &err);
    free(exact);
    struct oracle_node *theirs = oracle_parse(text, len, reason);
    if (status == PH_OK && !theirs && !is_known_difference(reason))
        fail_msg("only jansson refuses (%s): %.*s", reason, (int)len, text);
    if (status != PH_OK && theirs)
        fail_msg("only we refuse (%s): %.*s", err.message, (int)len, text);
    if (status == PH_OK && theirs)
        assert_agree(ours, theirs);
    bool both = status == PH_OK && theirs;
    if (theirs)
        oracle_free(theirs);
    return both;
}

static void assert_round_trip(struct arena *arena, const char *text, size_t len)
{
    struct json *first, *second;
    struct buf once, twice;
    buf_init(&once, 1 << 20);
    buf_init(&twice, 1 << 20);
    assert_int_equal(json_parse(arena, text, len, &first, NULL), PH_OK);
    json_write(&once, first);
    assert_int_equal(json_parse(arena, once.data, once.len, &second, NULL), PH_OK);
    json_write(&twice, second);
    assert_true(json_equal(first, second));
    assert_true(json_equal(second, json_copy(arena, first)));
    assert_string_equal(once.data, twice.data);
    assert_true(compare(arena, once.data, once.len));
    buf_release(&once);
    buf_release(&twice);
}

static void whole_documents_read_the_same(void **state)
{
    (void)state;
    struct rng rng;
    struct arena arena;
    struct buf text;
    rng_init(&rng, 1);
    arena_init(&arena, 64u << 20);
    buf_init(&text, 1 << 20);
    unsigned both = 0;
    for (int i = 0; i < 10000; i++) {
        buf_clear(&text);
        put_value(&rng, &text, 0);
        if (compare(&arena, text.data, text.len)) {
            both++;
            assert_round_trip(&arena, text.data, text.len);
        }
        arena_clear(&arena);
    }
    assert_true(both > 9000);
    buf_release(&text);
    arena_release(&arena);
}

/* Not with 0 bytes: jansson takes one for the end of the text. */
static void damage(struct rng *rng, struct buf *text)
{
    static const char bytes[] = "\"\\{}[],:0123456789.-+eEtrufalsn \n\x01\x7F\x80\xBF\xC3\xE2\xED\xF0\xFF/u";
    for (uint64_t edits = 1 + below(rng, 3); edits > 0 && text->len > 0; edits--) {
        size_t at = below(rng, text->len);
        char byte = below(rng, 8) ? bytes[below(rng, sizeof bytes - 1)] : (char)(1 + below(rng, 255));
        switch (below(rng, 4)) {
        case 0:
            text->data[at] = byte;
            break;
        case 1: /* out */
            memmove(text->data + at, text->data + at + 1, text->len - at);
            text->len--;
            break;
        case 2: /* in */
            buf_putc(text, 0);
            memmove(text->data + at + 1, text->data + at, text->len - at - 1);
            text->data[at] = byte;
            break;
        default: /* off */
            text->len = at;
            text->data[at] = 0;
        }
    }
}

static void damaged_documents_are_refused_alike(void **state)
{
    (void)state;
    struct rng rng;
    struct arena arena;
    struct buf text;
    rng_init(&rng, 2);
    arena_init(&arena, 64u << 20);
    buf_init(&text, 1 << 20);
    unsigned both = 0;
    for (int i = 0; i < 30000; i++) {
        buf_clear(&text);
        put_value(&rng, &text, 4);
        damage(&rng, &text);
        both += compare(&arena, text.data, text.len);
        arena_clear(&arena);
    }
    assert_true(both > 2000 && both < 20000); /* the damage neither always nor never breaks it */
    buf_release(&text);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_documents_read_the_same),
        cmocka_unit_test(damaged_documents_are_refused_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
