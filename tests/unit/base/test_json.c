/* The parser against a table of texts of every kind that RFC 8259 allows, forbids or leaves open; the kinds
 * are those of the public JSON test suite (y, n and i there), the texts are ours. */
#include "base/json.h"
#include "base/limits.h"
#include "test_support.h"

struct text {
    const char *bytes;
    size_t len;
    const char *written; /* what must come out; NULL: as it went in */
};

#define T(bytes)                       \
    {                                  \
        bytes, sizeof(bytes) - 1, NULL \
    }
#define W(bytes, written)                 \
    {                                     \
        bytes, sizeof(bytes) - 1, written \
    }
#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define FFFD "\xEF\xBF\xBD"

static const struct text accepted[] = {
    /* arrays */
    T("[]"),
    W("[[]   ]", "[[]]"),
    T("[\"\"]"),
    T("[\"a\"]"),
    T("[false]"),
    W("[null, 1, \"1\", {}]", "[null,1,\"1\",{}]"),
    T("[null]"),
    W("[1\n]", "[1]"),
    W(" [1]", "[1]"),
    T("[1,null,null,null,2]"),
    W("[2] ", "[2]"),
    T("[[[[]]],[]]"),
    W("[\r\n\t ]", "[]"),
    W("\n[\n1\n,\n2\n]\n", "[1,2]"),
    /* numbers keep their text */
    T("[123e65]"),
    T("[0e+1]"),
    T("[0e1]"),
    W("[ 4]", "[4]"),
    T("[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]"),
    T("[20e1]"),
    T("[-0]"),
    T("[-123]"),
    T("[-1]"),
    T("[1E22]"),
    T("[1E-2]"),
    T("[1E+2]"),
    T("[123.456e78]"),
    T("[123.456789]"),
    T("[1e-2]"),
    T("[1e+2]"),
    T("[0]"),
    T("[0.5]"),
    T("[0E5]"),
    T("[-0.0e-0]"),
    T("[12345678901234567890123456789]"),
    T("[100000000000000000000000000000001.10]"),
    T("[9007199254740993]"),
    T("[1.0000000000000000000001]"),
    /* objects */
    T("{}"),
    T("{\"a\":[]}"),
    W("{\"asd\":\"sdf\", \"dfg\":\"fgh\"}", "{\"asd\":\"sdf\",\"dfg\":\"fgh\"}"),
    T("{\"asd\":\"sdf\"}"),
    T("{\"a\":\"b\",\"a\":\"c\"}"),
    T("{\"a\":\"b\",\"a\":\"b\"}"),
    T("{\"\":0}"),
    W("{\"foo\\u0000bar\": 42}", "{\"foo\\u0000bar\":42}"),
    W("{ \"min\": -1.0e+28, \"max\": 1.0e+28 }", "{\"min\":-1.0e+28,\"max\":1.0e+28}"),
    T("{\"x\":[{\"id\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}],\"id\":\"x\"}"),
    W("{\"title\":\"\\u041f\\u043e\\u043b\" }", "{\"title\":\"\xD0\x9F\xD0\xBE\xD0\xBB\"}"),
    W("{\n\"a\"\n:\n\"b\"\n}", "{\"a\":\"b\"}"),
    T("{\"b\":1,\"a\":2,\"c\":3}"),
    W("{\"\\\"\\\\\\/\":1}", "{\"\\\"\\\\/\":1}"),
    W("{\"a\" : 1 , \"b\" : 2 }", "{\"a\":1,\"b\":2}"),
    /* strings */
    W("[\"\\u0060\\u012a\\u12AB\"]", "[\"`\xC4\xAA\xE1\x8A\xAB\"]"),
    W("[\"\\uD801\\udc37\"]", "[\"\xF0\x90\x90\xB7\"]"),
    W("[\"\\ud83d\\ude39\\ud83d\\udc8d\"]", "[\"\xF0\x9F\x98\xB9\xF0\x9F\x92\x8D\"]"),
    W("[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]", "[\"\\\"\\\\/\\b\\f\\n\\r\\t\"]"),
    T("[\"\\\\u0000\"]"),
    T("[\"\\\"\"]"),
    T("[\"a/*b*/c/*d//e\"]"),
    T("[\"\\\\a\"]"),
    T("[\"\\\\n\"]"),
    T("[\"\\u0012\"]"),
    W("[\"\\uFFFF\"]", "[\"\xEF\xBF\xBF\"]"),
    T("[\"asd\"]"),
    W("[ \"asd\"]", "[\"asd\"]"),
    W("[\"\\uDBFF\\uDFFF\"]", "[\"\xF4\x8F\xBF\xBF\"]"),
    W("[\"new\\u00A0line\"]", "[\"new\xC2\xA0line\"]"),
    T("[\"\xF4\x8F\xBF\xBF\"]"),
    T("[\"\xEF\xBF\xBF\"]"),
    T("[\"\\u0000\"]"),
    W("[\"\\u002c\"]", "[\",\"]"),
    T("[\"\xCF\x80\"]"),
    T("[\"\xF0\x9B\xBF\xBF\"]"),
    T("[\"asd \"]"),
    T("\" \""),
    W("[\"\\uD834\\uDd1e\"]", "[\"\xF0\x9D\x84\x9E\"]"),
    W("[\"\\u0821\"]", "[\"\xE0\xA0\xA1\"]"),
    W("[\"\\u0123\"]", "[\"\xC4\xA3\"]"),
    T("[\"\xE2\x80\xA8\"]"),
    T("[\"\xE2\x80\xA9\"]"),
    W("[\"\\u0061\\u30af\\u30EA\\u30b9\"]", "[\"a\xE3\x82\xAF\xE3\x83\xAA\xE3\x82\xB9\"]"),
    T("[\"new\\u000bline\"]"),
    T("[\"\x7F\"]"),
    W("[\"\\uA66D\"]", "[\"\xEA\x99\xAD\"]"),
    W("[\"\\u005C\"]", "[\"\\\\\"]"),
    T("[\"\xE2\x8D\x82\xE3\x88\xB4\xE2\x8D\x82\"]"),
    W("[\"\\u200B\"]", "[\"\xE2\x80\x8B\"]"),
    W("[\"\\u2064\"]", "[\"\xE2\x81\xA4\"]"),
    W("[\"\\uFDD0\"]", "[\"\xEF\xB7\x90\"]"),
    W("[\"\\uFFFE\"]", "[\"\xEF\xBF\xBE\"]"),
    W("[\"\\uD83F\\uDFFE\"]", "[\"\xF0\x9F\xBF\xBE\"]"),
    W("[\"\\u0022\"]", "[\"\\\"\"]"),
    W("[\"\\u001f\\u0020\"]", "[\"\\u001f \"]"),
    T("[\"a\x7F"
      "a\"]"),
    T("[\"\xE2\x82\xAC\xF0\x9D\x84\x9E\"]"),
    /* lone values and white space */
    T("false"),
    T("42"),
    T("-0.1"),
    T("null"),
    T("\"asd\""),
    T("true"),
    T("\"\""),
    W("[\"a\"]\n", "[\"a\"]"),
    T("[true]"),
    W(" [] ", "[]"),
    W("\t\r\n 1 \t\r\n", "1"),
    W("[ true , false\t,\rnull ]", "[true,false,null]"),
    T("0"),
    T("-0"),
    T("1e9"),
    /* left open by the RFC: numbers of any size are text to us */
    T("[123.456e-789]"),
    T("[0.4e00669999999999999999999999999999999999999999999999999999999999999999999999999]"),
    T("[-1e+9999]"),
    T("[1.5e+9999]"),
    T("[-123123e100000]"),
    T("[123123e100000]"),
    T("[123e-10000000]"),
    T("[-123123123123123123123123123123]"),
    T("[100000000000000000000]"),
    T("[-237462374673276894279832749832423479823246327846]"),
    /* left open: escapes of lone surrogates become U+FFFD, each one */
    W("{\"\\uDFAA\":0}", "{\"" FFFD "\":0}"),
    W("[\"\\uDADA\"]", "[\"" FFFD "\"]"),
    W("[\"\\uD888\\u1234\"]", "[\"" FFFD "\xE1\x88\xB4\"]"),
    W("[\"\\uD800\\n\"]", "[\"" FFFD "\\n\"]"),
    W("[\"\\uDd1ea\"]", "[\"" FFFD "a\"]"),
    W("[\"\\uD800\\uD800\\n\"]", "[\"" FFFD FFFD "\\n\"]"),
    W("[\"\\ud800\"]", "[\"" FFFD "\"]"),
    W("[\"\\ud800abc\"]", "[\"" FFFD "abc\"]"),
    W("[\"\\uDd1e\\uD834\"]", "[\"" FFFD FFFD "\"]"),
    W("[\"\\uDFAA\"]", "[\"" FFFD "\"]"),
    W("[\"\\uD800\\uE000\\uD800\\uDBFF\"]", "[\"" FFFD "\xEE\x80\x80" FFFD FFFD "\"]"),
    W("[\"\\uD800\\uD83D\\uDE00\"]", "[\"" FFFD "\xF0\x9F\x98\x80\"]"),
};

static const struct text refused[] = {
    /* arrays */
    T("[1 true]"),
    T("[a\xE5]"),
    T("[\"\": 1]"),
    T("[\"\"],"),
    T("[,1]"),
    T("[1,,2]"),
    T("[\"x\",,]"),
    T("[\"x\"]]"),
    T("[\"\",]"),
    T("[\"x\""),
    T("[x"),
    T("[3[4]]"),
    T("[\xFF]"),
    T("[1:2]"),
    T("[,]"),
    T("[-]"),
    T("[   , \"\"]"),
    T("[\"a\",\n4\n,1,"),
    T("[1,]"),
    T("[1,,]"),
    T("[\"\va\"\\f]"),
    T("[*]"),
    T("[\"\""),
    T("[1,"),
    T("[1,\n1\n,1"),
    T("[{}"),
    T("[}"),
    T("[1}"),
    T("[[1]"),
    T("[1 2]"),
    T("[\f1]"),
    T("[ , ]"),
    /* literals */
    T("[fals]"),
    T("[nul]"),
    T("[tru]"),
    T("[True]"),
    T("[FALSE]"),
    T("[NULL]"),
    T("[truee]"),
    T("[nulll]"),
    T("[t]"),
    T("n"),
    T("tru"),
    T("[undefined]"),
    T("true false"),
    T("truefalse"),
    T("[true1]"),
    T("[nul\0]"),
    /* numbers */
    T("[++1234]"),
    T("[+1]"),
    T("[+Inf]"),
    T("[-01]"),
    T("[-1.0.]"),
    T("[-2.]"),
    T("[-NaN]"),
    T("[.-1]"),
    T("[.2e-3]"),
    T("[0.1.2]"),
    T("[0.3e+]"),
    T("[0.3e]"),
    T("[0.e1]"),
    T("[0E+]"),
    T("[0E]"),
    T("[0e+]"),
    T("[0e]"),
    T("[1.0e+]"),
    T("[1.0e-]"),
    T("[1.0e]"),
    T("[1 000.0]"),
    T("[1eE2]"),
    T("[2.e+3]"),
    T("[2.e-3]"),
    T("[2.e3]"),
    T("[9.e+]"),
    T("[Inf]"),
    T("[NaN]"),
    T("[\xEF\xBC\x91]"),
    T("[1+2]"),
    T("[0x1]"),
    T("[0x42]"),
    T("[Infinity]"),
    T("[0e+-1]"),
    T("[-123.123foo]"),
    T("[123\xE5]"),
    T("[1e1\xE5]"),
    T("[0\xE5]"),
    T("[-Infinity]"),
    T("[-foo]"),
    T("[- 1]"),
    T("[-012]"),
    T("[-.123]"),
    T("[-1x]"),
    T("[1ea]"),
    T("[1.]"),
    T("[.123]"),
    T("[1.2a-3]"),
    T("[1.8011670033376514H-308]"),
    T("[012]"),
    T("[00]"),
    T("[-00]"),
    T("-"),
    T("1."),
    T("1e"),
    T("1e+"),
    T("0."),
    T("[1_000]"),
    T("[1,5.]"),
    T("[--1]"),
    T("[1e2.5]"),
    T("[1 .5]"),
    T("[0,1e]"),
    T("01"),
    /* objects */
    T("[\"x\", truth]"),
    T("{[: \"x\"}\n"),
    T("{\"x\", null}"),
    T("{\"x\"::\"b\"}"),
    T("{\xF0\x9F\x87\xA8\xF0\x9F\x87\xAD}"),
    T("{\"a\":\"a\" 123}"),
    T("{key: 'value'}"),
    T("{\"\xB9\":\"0\",}"),
    T("{\"a\" b}"),
    T("{:\"b\"}"),
    T("{\"a\" \"b\"}"),
    T("{\"a\":"),
    T("{\"a\""),
    T("{1:1}"),
    T("{9999E9999:1}"),
    T("{null:null,null:null}"),
    T("{\"id\":0,,,,,}"),
    T("{'a':0}"),
    T("{\"id\":0,}"),
    T("{\"a\":\"b\"}/**/"),
    T("{\"a\":\"b\"}/**//"),
    T("{\"a\":\"b\"}//"),
    T("{\"a\":\"b\"}/"),
    T("{\"a\":\"b\",,\"c\":\"d\"}"),
    T("{a: \"b\"}"),
    T("{\"a\":\"a"),
    T("{ \"foo\" : \"bar\", \"a\" }"),
    T("{\"a\":\"b\"}#"),
    T("{\"a\":}"),
    T("{,}"),
    T("{\"a\":1,"),
    T("{\"a\":1"),
    T("{"),
    T("{\"a\":1]"),
    T("{\"a\":1 \"b\":2}"),
    T("{\"a\"=1}"),
    T("{\"a\":1;\"b\":2}"),
    T("{{}}"),
    T("{[]:1}"),
    T("{\"a\":1,,}"),
    T("{true:1}"),
    T("{\"a\\u00\":1}"),
    /* strings */
    T("[\"\\uD800\\\"]"),
    T("[\"\\uD800\\u\"]"),
    T("[\"\\uD800\\u1\"]"),
    T("[\"\\uD800\\u1x\"]"),
    T("[\xC3\xA9]"),
    T("[\"\\\x00\"]"),
    T("[\"\\x00\"]"),
    T("[\"\\\\\\\"]"),
    T("[\"\\\t\"]"),
    T("[\"\\\xF0\x9F\x8C\x80\"]"),
    T("[\"\\\"]"),
    T("[\"\\u00A\"]"),
    T("[\"\\uD834\\uDd\"]"),
    T("[\"\\uD800\\uD800\\x\"]"),
    T("[\"\\u\xE5\"]"),
    T("[\"\\a\"]"),
    T("[\"\\uqqqq\"]"),
    T("[\"\\\xE5\"]"),
    T("[\\u0020\"asd\"]"),
    T("[\\n]"),
    T("\""),
    T("['single quote']"),
    T("abc"),
    T("[\"\\"),
    T("[\"a\x00"
      "a\"]"),
    T("[\"new\nline\"]"),
    T("[\"\t\"]"),
    T("\"\\UA66D\""),
    T("\"x"),
    T("\"\\u12"),
    T("\"\\"),
    T("\"\\u"),
    T("\"\\uD800\\u"),
    T("\"\\uD800\\"),
    T("[\"\x1F\"]"),
    T("[\"a\rb\"]"),
    T("[\"\\'\"]"),
    T("[\"\\0\"]"),
    T("[\"\\u 123\"]"),
    T("[\"\\u-123\"]"),
    T("[\"\\U0041\"]"),
    T("[\"asd]"),
    T("[\"a\" \"b\"]"),
    T("\"a\"\""),
    T("[\"\\u{41}\"]"),
    /* bytes that are not UTF-8; left open by the RFC, refused here */
    T("[\"\xE6\x97\xA5\xD1\x88\xFA\"]"),
    T("[\"\xED\xA0\x80\"]"),
    T("[\"\xED\xBF\xBF\"]"),
    T("[\"\xF4\x90\x80\x80\"]"),
    T("[\"\x81\"]"),
    T("[\"\xE9\"]"),
    T("[\"\xFF\"]"),
    T("[\"\xC0\xAF\"]"),
    T("[\"\xFC\x83\xBF\xBF\xBF\xBF\"]"),
    T("[\"\xFC\x80\x80\x80\x80\x80\"]"),
    T("[\"\xE0\xFF\"]"),
    T("[\"\xE0\x80\xAF\"]"),
    T("[\"\xF0\x80\x80\xAF\"]"),
    T("[\"\xC3"),
    T("[\"\xE2\x82\"]"),
    T("[\"\xF0\x9F\x98\"]"),
    T("{\"\xFF\":1}"),
    T("\xFF\xFE[\x00\"\x00\xE9\x00\"\x00]\x00"),
    T("\x00[\x00\"\x00\xE9\x00\"\x00]"),
    /* structure */
    T("<.>"),
    T("[<null>]"),
    T("[1]x"),
    T("[1]]"),
    T("[\"asd]"),
    T("a\xC3\xA5"),
    T("[True]"),
    T("1]"),
    T("{\"x\": true,"),
    T("[][]"),
    T("]"),
    T("}"),
    T("\xEF\xBB{}"),
    T("\xE5"),
    T("["),
    T(""),
    T("[\x00]"),
    T("2@"),
    T("{}}"),
    T("{\"\":"),
    T("{\"a\":/*comment*/\"b\"}"),
    T("{\"a\": true} \"x\""),
    T("['"),
    T("[,"),
    T("[{"),
    T("[\"a"),
    T("[\"a\""),
    T("{,"),
    T("{["),
    T("{\"a"),
    T("{'a'"),
    T("[\"\\{[\"\\{[\"\\{[\"\\{"),
    T("\xC3\xA9"),
    T("*"),
    T("{\"a\":\"b\"}#{}"),
    T("[\\u000A\"\"]"),
    T("[1"),
    T("[ false, nul"),
    T("[ true, fals"),
    T("[ false, tru"),
    T("{\"asd\":\"asd\""),
    T("[\xE2\x81\xA0]"),
    T("\xE2\x81\xA0[]"),
    T("\xC2\x85[]"),
    T("[\f]"),
    T(" "),
    T("\n\n"),
    T("\v[]"),
    T("\xEF\xBB\xBF{}"),
    T("\xEF\xBB\xBF"),
    T("[1]\0"),
    T("\0"),
    T("null\0"),
    T("12\0"),
    T("//\n1"),
    T("1 2"),
    T("1,2"),
    T("\"a\",\"b\""),
    T(","),
    T(":"),
    T("[1]//"),
    T("\xC2\xA0[]"),
    T("[]\x1A"),
};

static enum ph_status parse_exact(struct arena *arena, const char *bytes, size_t len, struct json **doc,
                                  struct ph_err *err)
{
    char *exact = malloc(len ? len : 1); /* the sanitizer sees a read behind the end */
    memcpy(exact, bytes, len);
    enum ph_status status = json_parse(arena, exact, len, doc, err);
    memset(exact, '#', len); /* the document must not need it */
    free(exact);
    return status;
}

static void what_json_allows_comes_out_as_it_went_in(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(accepted); i++) {
        const struct text *t = &accepted[i];
        const char *expected = t->written ? t->written : t->bytes;
        struct arena arena;
        struct json *doc;
        struct ph_err err = {0};
        struct buf buf;
        arena_init(&arena, 1 << 20);
        buf_init(&buf, 1 << 20);
        if (parse_exact(&arena, t->bytes, t->len, &doc, &err) != PH_OK)
            fail_msg("%s: %s", t->bytes, err.message);
        json_write(&buf, doc);
        assert_string_equal(buf.data, expected);
        assert_int_equal(buf.len, strlen(expected));
        buf_release(&buf);
        arena_release(&arena);
    }
}

static void what_json_forbids_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        const struct text *t = &refused[i];
        struct arena arena;
        struct json *doc;
        struct ph_err err = {0};
        arena_init(&arena, 1 << 20);
        enum ph_status status = parse_exact(&arena, t->bytes, t->len, &doc, &err);
        if (status != PH_ERR_FORMAT)
            fail_msg("taken: %.*s", (int)t->len, t->bytes);
        assert_null(doc);
        assert_int_equal(err.code, PH_ERR_FORMAT);
        assert_memory_equal(err.message, "JSON, byte ", 11);
        assert_int_equal(json_parse(&arena, t->bytes, t->len, &doc, NULL), PH_ERR_FORMAT);
        arena_release(&arena);
    }
}

/* A text cut anywhere is no text, unless it is a number. */
static void every_prefix_is_refused(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\\n\\uD83D\\uDE00\":[1.5e+3,-0,true,false,null,\"\xE4\xB8\x96\"],\"b\":{}}";
    for (size_t len = 0; len < sizeof text - 1; len++) {
        struct arena arena;
        struct json *doc;
        struct ph_err err = {0};
        arena_init(&arena, 1 << 20);
        assert_int_equal(parse_exact(&arena, text, len, &doc, &err), PH_ERR_FORMAT);
        arena_release(&arena);
    }
}

static void errors_name_the_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "JSON, byte 0 (line 1): expected a value; the text ends here"},
        {"{\"a\": 1,\n \"b\": 2,\n}",
         "JSON, byte 18 (line 3): expected a member's name in double quotes; found '}'"},
        {"[1,\n2\n3]", "JSON, byte 6 (line 3): expected ',' or ']' in an array; found '3'"},
        {"{\"a\":1 x", "JSON, byte 7 (line 1): expected ',' or '}' in an object; found 'x'"},
        {"{\"a\" 1}", "JSON, byte 5 (line 1): expected ':' behind a member's name; found '1'"},
        {"[1,2", "JSON, byte 4 (line 1): expected ',' or ']' in an array; the text ends here"},
        {"[\"abc", "JSON, byte 1 (line 1): this string has no closing quote; found '\"'"},
        {"[\"a\nb\"]",
         "JSON, byte 3 (line 1): control characters in a string must be escaped; found byte 0x0A"},
        {"[\"a\xFF\"]", "JSON, byte 3 (line 1): invalid UTF-8 in a string; found byte 0xFF"},
        {"[\"ab\\x\"]", "JSON, byte 4 (line 1): unknown escape in a string; found '\\'"},
        {"[\"\\u12G4\"]", "JSON, byte 2 (line 1): \\u needs four hexadecimal digits; found '\\'"},
        {"[01]", "JSON, byte 1 (line 1): a number can't begin with 0; found '0'"},
        {"[-x]", "JSON, byte 2 (line 1): expected a digit; found 'x'"},
        {"[1.x]", "JSON, byte 3 (line 1): expected a digit behind the decimal point; found 'x'"},
        {"[1e+]", "JSON, byte 4 (line 1): expected a digit in the exponent; found ']'"},
        {"[1] 2", "JSON, byte 4 (line 1): text behind the end of the document; found '2'"},
        {"\xEF\xBB\xBF{}", "JSON, byte 0 (line 1): expected a value; found byte 0xEF (a byte order mark: "
                           "send the text without it)"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena arena;
        struct json *doc;
        struct ph_err err = {0};
        arena_init(&arena, 1 << 20);
        assert_int_equal(json_parse(&arena, cases[i].text, strlen(cases[i].text), &doc, &err), PH_ERR_FORMAT);
        assert_string_equal(err.message, cases[i].message);
        arena_release(&arena);
    }
}

/* count times `open`, then `middle`, then count times `close` */
static enum ph_status parse_nested(const char *open, const char *middle, const char *close, size_t count,
                                   struct json **doc, struct arena *arena)
{
    struct buf text;
    buf_init(&text, 4u << 20);
    for (size_t i = 0; i < count; i++)
        buf_puts(&text, open);
    buf_puts(&text, middle);
    for (size_t i = 0; i < count; i++)
        buf_puts(&text, close);
    enum ph_status status = json_parse(arena, text.data, text.len, doc, NULL);
    buf_release(&text);
    return status;
}

static void depth_is_limited(void **state)
{
    (void)state;
    static const struct {
        const char *open, *middle, *close;
        size_t count;
        enum ph_status status;
    } cases[] = {
        {"[", "", "]", JSON_DEPTH_MAX, PH_OK},
        {"[", "", "]", JSON_DEPTH_MAX + 1, PH_ERR_LIMIT},
        {"{\"a\":", "1", "}", JSON_DEPTH_MAX, PH_OK},
        {"{\"a\":", "1", "}", JSON_DEPTH_MAX + 1, PH_ERR_LIMIT},
        {"[{\"\":", "{}", "}]", JSON_DEPTH_MAX / 2, PH_ERR_LIMIT},
        {"[", "", "", 100000, PH_ERR_LIMIT},
        {"{\"a\":", "", "", 100000, PH_ERR_LIMIT},
        {"[{\"\":", "", "", 50000, PH_ERR_LIMIT},
        {"", "[[],[[]],[],{},{\"a\":[]}]", "", 1, PH_OK},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena arena;
        struct json *doc;
        arena_init(&arena, 16u << 20);
        assert_int_equal(
            parse_nested(cases[i].open, cases[i].middle, cases[i].close, cases[i].count, &doc, &arena),
            cases[i].status);
        arena_release(&arena);
    }
    struct arena arena; /* depth is counted down again */
    struct json *doc;
    arena_init(&arena, 16u << 20);
    assert_int_equal(parse_nested("", "[[[]],[[]],[[]]", ",[[[[]]]]", 1000, &doc, &arena), PH_ERR_FORMAT);
    assert_int_equal(parse_nested("[[]],", "", "", 1000, &doc, &arena), PH_ERR_FORMAT);
    struct buf wide;
    buf_init(&wide, 1 << 20);
    buf_puts(&wide, "[0");
    for (int i = 0; i < 1000; i++)
        buf_puts(&wide, ",[{\"a\":[]}]");
    buf_puts(&wide, "]");
    assert_int_equal(json_parse(&arena, wide.data, wide.len, &doc, NULL), PH_OK);
    assert_int_equal(json_count(doc), 1001);
    buf_release(&wide);
    arena_release(&arena);
}

/* The scan looks at eight bytes at once: put what it must find at every place of strings of every length. */
static void the_scan_finds_every_byte_at_every_place(void **state)
{
    (void)state;
    static const struct {
        const char *raw;
        const char *meaning; /* NULL: refused */
    } specials[] = {{"\\n", "\n"},
                    {"\\u00e9", "\xC3\xA9"},
                    {"\xC3\xA9", "\xC3\xA9"},
                    {"\x01", NULL},
                    {"\x1F", NULL},
                    {"\x7F", "\x7F"},
                    {"\x80", NULL},
                    {"\xFF", NULL},
                    {" ", " "},
                    {"!", "!"},
                    {"#", "#"},
                    {"[", "["},
                    {"]", "]"},
                    {"\n", NULL},
                    {"\\\"", "\""},
                    {"\\\\", "\\"},
                    {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"}};
    struct arena arena;
    arena_init(&arena, 1 << 20);
    for (size_t s = 0; s < COUNT(specials); s++) {
        for (size_t before = 0; before < 18; before++) {
            for (size_t behind = 0; behind < 10; behind++) {
                char text[64], expected[64];
                int len = snprintf(text, sizeof text, "\"%.*s%s%.*s\"", (int)before, "abcdefghijklmnopqr",
                                   specials[s].raw, (int)behind, "ABCDEFGHIJ");
                struct json *doc;
                enum ph_status status = parse_exact(&arena, text, (size_t)len, &doc, NULL);
                assert_int_equal(status, specials[s].meaning ? PH_OK : PH_ERR_FORMAT);
                if (status != PH_OK)
                    continue;
                snprintf(expected, sizeof expected, "%.*s%s%.*s", (int)before, "abcdefghijklmnopqr",
                         specials[s].meaning, (int)behind, "ABCDEFGHIJ");
                assert_string_equal(json_text(doc, ""), expected);
                struct buf written;
                struct json *again;
                buf_init(&written, 1000);
                json_write_string(&written, expected, strlen(expected));
                assert_int_equal(parse_exact(&arena, written.data, written.len, &again, NULL), PH_OK);
                assert_true(json_equal(doc, again));
                buf_release(&written);
            }
            arena_clear(&arena);
        }
    }
    arena_release(&arena);
}

static void big_tokens_are_read(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    struct arena arena;
    struct json *doc;
    struct buf text;
    arena_init(&arena, 16u << 20);
    buf_init(&text, 2 * SIZE);
    for (int i = 0; i < SIZE; i++)
        buf_putc(&text, (char)('1' + i % 9));
    assert_int_equal(json_parse(&arena, text.data, text.len, &doc, NULL), PH_OK);
    assert_int_equal(doc->u.str.len, SIZE);
    assert_true(json_equal(doc, doc));
    int64_t integer;
    double real;
    assert_false(json_to_int64(doc, &integer));
    assert_false(json_to_double(doc, &real));
    text.data[0] = text.data[SIZE - 1] = '"';
    assert_int_equal(json_parse(&arena, text.data, text.len, &doc, NULL), PH_OK);
    assert_int_equal(doc->u.str.len, SIZE - 2);
    memset(text.data + 1, '\\', SIZE - 2);
    assert_int_equal(json_parse(&arena, text.data, text.len, &doc, NULL), PH_OK);
    assert_int_equal(doc->u.str.len, SIZE / 2 - 1);
    memset(text.data, ' ', SIZE);
    text.data[SIZE / 2] = '7';
    assert_int_equal(json_parse(&arena, text.data, text.len, &doc, NULL), PH_OK);
    assert_true(json_to_int64(doc, &integer) && integer == 7);
    buf_release(&text);
    arena_release(&arena);
}

/* With every budget from nothing upwards every allocation fails once. */
static void memory_may_end_anywhere(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\":[1,2,[3,{\"b\":null}]],\"c\":\"text\",\"d\":{\"e\":[true]},\"f\":-1.5e3}";
    unsigned failures = 0;
    for (size_t budget = 0;; budget += 16) {
        struct arena arena;
        struct json *doc = NULL;
        struct ph_err err = {0};
        arena_init(&arena, budget);
        enum ph_status status = json_parse(&arena, text, sizeof text - 1, &doc, &err);
        struct json *copied = doc ? json_copy(&arena, doc) : NULL;
        struct json *set =
            doc ? json_set(&arena, doc, "new member", json_new_string(&arena, "value", 5)) : NULL;
        if (status != PH_OK) {
            assert_int_equal(status, PH_ERR_NOMEM);
            assert_int_equal(err.code, PH_ERR_NOMEM);
            assert_null(doc);
            failures++;
        }
        assert_true(!copied || json_count(copied) == 4);
        assert_true(!doc || json_count(doc) == (set ? 5 : 4));
        arena_release(&arena);
        if (copied && set)
            break;
    }
    assert_true(failures > 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_json_allows_comes_out_as_it_went_in),
        cmocka_unit_test(what_json_forbids_is_refused),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(errors_name_the_place),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(the_scan_finds_every_byte_at_every_place),
        cmocka_unit_test(big_tokens_are_read),
        cmocka_unit_test(memory_may_end_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
