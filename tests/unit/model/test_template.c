#include "base/file.h"
#include "template_bench.h"
#include "test_support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define PACK TEST_SHARED_DIR "/conformance/chat_templates/"

/* ---- the reference pack ---- */

static struct json *load_json(struct bench *bench, const char *path)
{
    struct buf file;
    struct json *json = NULL;
    buf_init(&file, 64 << 20);
    assert_int_equal(file_read(path, &file, &bench->err), PH_OK);
    assert_int_equal(json_parse(&bench->arena, file.data, file.len, &json, &bench->err), PH_OK);
    buf_release(&file);
    return json;
}

static struct json *case_vars(struct bench *bench, const struct json *pack, const struct json *test_case)
{
    struct json *vars = json_new(&bench->arena, JSON_OBJECT);
    const char *name = json_text(json_get(test_case, "conversation"), "");
    JSON_EACH (member, json_get(json_get(pack, "conversations"), name)) {
        json_set(&bench->arena, vars, member->key, json_copy(&bench->arena, member));
    }
    json_set(&bench->arena, vars, "bos_token", json_copy(&bench->arena, json_get(pack, "bos_token")));
    json_set(&bench->arena, vars, "eos_token", json_copy(&bench->arena, json_get(pack, "eos_token")));
    return vars;
}

static bool agrees(const struct bench *bench, enum ph_status status, const struct json *test_case)
{
    const char *expected = json_text(json_get(test_case, "expected"), NULL);
    const char *other = json_text(json_get(test_case, "jinja2"), NULL);
    bool disputed = json_is(json_get(test_case, "jinja2_agrees"), JSON_FALSE);
    if (json_get(test_case, "error"))
        return status != PH_OK;
    if (status != PH_OK)
        return disputed && json_get(test_case, "jinja2_error");
    return strcmp(bench_text(bench), expected) == 0 ||
           (disputed && other && strcmp(bench_text(bench), other) == 0);
}

static void the_pack_renders_byte_for_byte(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct bench bench;
    bench_init(&bench);
    struct json *pack = load_json(&bench, PACK "cases.json");
    assert_true(json_to_int64(json_get(pack, "now_unix_utc"), &bench.now_ms));
    bench.now_ms *= 1000;
    size_t count = 0;
    JSON_EACH (test_case, json_get(pack, "cases")) {
        const char *name = json_text(json_get(test_case, "template"), "");
        char path[512];
        struct buf source;
        snprintf(path, sizeof path, PACK "templates/%s", name);
        buf_init(&source, 1 << 20);
        assert_int_equal(file_read(path, &source, &bench.err), PH_OK);
        struct json *vars = case_vars(&bench, pack, test_case);
        enum ph_status status = bench_render_json(&bench, source.data, source.len, vars);
        if (!agrees(&bench, status, test_case))
            fail_msg("%s, %s: %s", name, json_text(json_get(test_case, "conversation"), ""),
                     status == PH_OK ? bench_text(&bench) : bench.err.message);
        buf_release(&source);
        count++;
    }
    assert_true(count >= 246);
    bench_release(&bench);
}

/* Where Jinja2 would refuse and llama.cpp goes on, so do we. */
static void other_engines_kindness(void **state)
{
    (void)state;
    static const struct {
        const char *source, *expected;
    } cases[] = {
        {"{{ 'a' + none + missing + 1 }}", "a1"},
        {"[{{ missing.x.y }}]", "[]"},
        {"{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}{{ l.pop() }}{{ l }}", "[1, 2]2[1]"},
        {"{% for k, v in {'a': 1, 'b': 2} %}{{ k }}{{ v }}{% endfor %}", "a1b2"},
        {"{% set d = {} %}{% set d.x = 1 %}{{ d }}", "{'x': 1}"},
        {"{{ none|map('upper')|list }}{{ [missing]|tojson }}", "[][null]"},
        {"{% set s = '[1, {\"a\": 2.0}]' %}{{ s|from_json }}", "[1, {'a': 2.0}]"},
    };
    struct bench bench;
    bench_init(&bench);
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (bench_render(&bench, cases[i].source, "{}") != PH_OK)
            fail_msg("%s: %s", cases[i].source, bench.err.message);
        assert_string_equal(bench_text(&bench), cases[i].expected);
    }
    bench_release(&bench);
}

/* Numbers come out as they came in, and members of dicts keep their order however many there are. */
static void json_passes_through(void **state)
{
    (void)state;
    static const char *const documents[] = {
        "[123456789012345678901234567890, -9223372036854775808, -9223372036854775809, 0, -0.0, 1.5]",
        "{\"z\": 1, \"a\": 2, \"m\": {\"10\": 1, \"9\": 2}, \"\": null}",
        "{\"k0\": 0, \"k1\": 1, \"k2\": 2, \"k3\": 3, \"k4\": 4, \"k5\": 5, \"k6\": 6, \"k7\": 7, \"k8\": 8, "
        "\"k9\": 9, \"k10\": 10, \"k11\": 11, \"k12\": 12, \"k13\": 13, \"k14\": 14, \"k15\": 15, \"k16\": "
        "16}",
    };
    struct bench bench;
    bench_init(&bench);
    for (size_t i = 0; i < COUNT(documents); i++) {
        char vars[1024];
        snprintf(vars, sizeof vars, "{\"x\": %s}", documents[i]);
        assert_int_equal(bench_render(&bench, "{{ x|tojson }}", vars), PH_OK);
        assert_string_equal(bench_text(&bench), documents[i]);
    }
    assert_int_equal(bench_render(&bench,
                                  "{% for i in range(200) %}{% if i not in d and false %}{% endif %}"
                                  "{% set d = dict(d, x=i) %}{{ '' if d.x == i else 'wrong' }}"
                                  "{% endfor %}{{ d['k11'] }}{{ d.pop('k3') }}{{ d|length }}",
                                  "{\"d\": {\"k1\":1,\"k2\":2,\"k3\":3,\"k4\":4,\"k5\":5,\"k6\":6,\"k7\":7,"
                                  "\"k8\":8,\"k9\":9,\"k10\":10,\"k11\":11}}"),
                     PH_OK);
    assert_string_equal(bench_text(&bench), "11310");
    bench_release(&bench);
}

/* ---- errors ---- */

static void errors_say_where(void **state)
{
    (void)state;
    static const struct {
        const char *source, *where;
        enum ph_status status;
    } cases[] = {
        {"a\nb {% if x %}", "line 2 column 13", PH_ERR_FORMAT},
        {"{{ 'abc }}", "line 1 column 4", PH_ERR_FORMAT},
        {"\n\n  {% frobnicate %}", "line 3 column 6", PH_ERR_FORMAT},
        {"{{ 1 + }}", "line 1 column 8", PH_ERR_FORMAT},
        {"{# never closed", "line 1 column 1", PH_ERR_FORMAT},
        {"x\n{{ 1 + [] }}", "line 2 column 6", PH_ERR_ARG},
        {"{{ x|nofilter }}", "line 1 column 6", PH_ERR_UNSUPPORTED},
        {"{{ raise_exception('only this') }}", "only this", PH_ERR_ARG},
        {"{{ raise_exception('') }}", "gives no reason", PH_ERR_ARG},
    };
    struct bench bench;
    bench_init(&bench);
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(bench_render(&bench, cases[i].source, "{}"), cases[i].status);
        if (!strstr(bench.err.message, cases[i].where))
            fail_msg("%s: %s", cases[i].source, bench.err.message);
    }
    bench_release(&bench);
}

/* Texts made to be slow to search are searched in linear time; each of these would take minutes otherwise. */
static void searches_are_linear(void **state)
{
    (void)state;
    static const struct {
        const char *source, *expected;
    } cases[] = {
        {"{% set h = 'a' * 2000000 %}{% set n = 'a' * 900000 ~ 'b' %}{{ n in h }}{{ n in h ~ n }}",
         "FalseTrue"},
        {"{% set h = 'a' * 2000000 %}{% set n = 'b' ~ 'a' * 900000 %}{{ h.rfind(n) }}{{ (n ~ h).rfind(n) }}",
         "-10"},
        {"{% set h = ('a' * 3000 ~ 'b') * 500 %}{% set n = 'a' * 2999 ~ 'b' %}{{ h.split(n)|length }}"
         "{{ h.rsplit(n)|length }}{{ h.count(n) }}{{ h.replace(n, '')|length }}",
         "501501500500"},
    };
    struct bench bench;
    bench_init(&bench);
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (bench_render(&bench, cases[i].source, "{}") != PH_OK)
            fail_msg("%s: %s", cases[i].source, bench.err.message);
        assert_string_equal(bench_text(&bench), cases[i].expected);
    }
    bench_release(&bench);
}

/* Whatever a template does ends within the budgets. */
static void hostile_templates_end(void **state)
{
    (void)state;
    static const char *const sources[] = {
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l=[ns.l] %}{% endfor %}{{ ns.l }}",
        "{% set l = [] %}{{ l.append(l) }}{{ l }}",
        "{% set l = [] %}{% set k = [] %}{{ l.append(k) }}{{ k.append(l) }}{{ l == k }}",
        "{{ 'x' * 99999999999 }}",
        "{{ ['x'] * 99999999999 }}",
        "{{ range(99999999999) }}",
        "{{ '%99999999d' % 3 }}",
        "{{ '{:99999999}'.format(3) }}",
        "{{ 'x'|center(999999999) }}",
        "{{ 9 ** 99999999 }}",
        "{{ 'a'|indent(999999999999) }}",
        "{% for x in [1,2] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ [1]|batch(99999999999, 1)|list }}",
        "{{ [1]|slice(99999999999)|list }}",
    };
    struct bench bench;
    bench_init(&bench);
    for (size_t i = 0; i < COUNT(sources); i++) {
        if (bench_render(&bench, sources[i], "{}") == PH_OK)
            fail_msg("rendered: %s", sources[i]);
    }
    struct buf deep;
    buf_init(&deep, 1 << 20);
    buf_puts(&deep, "{{ ");
    for (int i = 0; i < 100000; i++)
        buf_putc(&deep, '(');
    struct json *vars = json_new(&bench.arena, JSON_OBJECT);
    assert_int_equal(bench_render_json(&bench, deep.data, deep.len, vars), PH_ERR_FORMAT);
    buf_clear(&deep);
    buf_puts(&deep, "{{ 1");
    for (int i = 0; i < 100000; i++)
        buf_puts(&deep, "+1");
    buf_puts(&deep, " }}");
    assert_int_equal(bench_render_json(&bench, deep.data, deep.len, vars), PH_ERR_LIMIT);
    buf_release(&deep);
    bench_release(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pack_renders_byte_for_byte),
        cmocka_unit_test(other_engines_kindness),
        cmocka_unit_test(json_passes_through),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(searches_are_linear),
        cmocka_unit_test(hostile_templates_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
