/* What Python's Jinja2 3.1 (sandboxed, trim_blocks and lstrip_blocks on, loop controls, plain JSON in tojson)
 * makes of statements and whitespace, recorded: an interpreter that
 * differs from it in any of these prints prompts a model was not trained on. */
#include "template_bench.h"
#include "test_support.h"

static const char vars[] =
    "{\"s\": \"Hello, World\", \"u\": \"na\303\257ve \344\275\240\345\245\275 \360\237\231\202 "
    "\303\204\303\226\303\237\", \"e\": \"\", \"ws\": \"  \\t x y \\n \", \"n\": 42, \"neg\": -"
    "7, \"f\": 3.14159, \"big\": 123456789012345678901234567890, \"z\": 0, \"fl\": 1e+22, \"sm"
    "\": 1.5e-07, \"t\": true, \"fa\": false, \"no\": null, \"l\": [3, 1, 2], \"ls\": [\"b\", "
    "\"A\", \"c\", \"a\"], \"ll\": [[1, 2], [3, 4]], \"el\": [], \"d\": {\"b\": 1, \"a\": [1, {"
    "\"x\": null, \"y\": true}], \"C\": \"it's\"}, \"ed\": {}, \"users\": [{\"name\": \"Bob\", "
    "\"age\": 30, \"active\": true, \"tags\": [\"x\"]}, {\"name\": \"alice\", \"age\": 25, \"ac"
    "tive\": false}, {\"name\": \"Carl\", \"age\": 30, \"active\": true, \"addr\": {\"city\": "
    "\"Oslo\"}}], \"msg\": {\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \""
    "hi\"}, {\"type\": \"image\"}], \"items\": 5, \"keys\": \"k\"}, \"ml\": \"line1\\n  line2\\"
    "n\\nline4\\n\", \"html\": \"<a href='x'>\\\"&\\\"</a>\", \"nums\": [1, 2.5, -3, true], \"j"
    "s\": {\"k\": \"\303\251\342\200\250\177\\u0001\\\"\\\\/\", \"f\": 1.0, \"i\": 10, \"n\": n"
    "ull, \"l\": [], \"d\": {}}}";

static const struct {
    const char *source, *expected;
} cases[] = {
    {"{% for x in l %}{{ loop.index }}/{{ loop.length }}:{{ x }}{% if not loop.last %}, {% endif"
     " %}{% endfor %}",
     "1/3:3, 2/3:1, 3/3:2"},
    {"{% for x in l %}{{ loop.previtem }}-{{ x }}-{{ loop.nextitem }};{% endfor %}", "-3-1;3-1-2;1-2-;"},
    {"{% for x in l if x > 1 %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.f"
     "irst }}{{ x }} {% endfor %}",
     "021True3 110False2 "},
    {"{% for x in el %}x{% else %}none{% endfor %}", "none"},
    {"{% for x in l if x > 100 %}x{% else %}none{% endfor %}", "none"},
    {"{% for k in d %}{{ k }},{% endfor %}", "b,a,C,"},
    {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "b=1;a=[1, {'x': None, 'y': True}];C=it's;"},
    {"{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}", "a=[1, {'x': None, 'y': True}];b=1;C=it's;"},
    {"{% for (a, b) in ll %}{{ a }}{{ b }};{% endfor %}", "12;34;"},
    {"{% for a, (b, c) in [(1,(2,3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123"},
    {"{% for c in 'a\303\261\360\237\231\202' %}[{{ c }}]{% endfor %}", "[a][\303\261][\360\237\231\202]"},
    {"{% for x in undefinedvar %}x{% else %}E{% endfor %}", "E"},
    {"{% for i in range(5) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{"
     "% endif %}{{ i }}{% endfor %}",
     "013"},
    {"{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }};{% endfor %}{{ x }}", "2;3;1"},
    {"{% set ns = namespace(x=1) %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "4"},
    {"{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b is defined }}", "1False"},
    {"{% set a, b = 1, 2 %}{{ a }}{{ b }}", "12"},
    {"{% set (a, b) = [3, 4] %}{{ a }}{{ b }}", "34"},
    {"{% set a = 1, 2 %}{{ a }}", "(1, 2)"},
    {"{% set x %}hello {{ n }}{% endset %}[{{ x }}]", "[hello 42]"},
    {"{% set x | upper %}hello {{ n }}{% endset %}[{{ x }}]", "[HELLO 42]"},
    {"{% set x | replace('l','L') | trim %}  hello {% endset %}[{{ x }}]", "[heLLo]"},
    {"{% filter upper %}abc {{ s }}{% endfilter %}", "ABC HELLO, WORLD"},
    {"{% filter indent(2) | upper %}a\nb{% endfilter %}", "A\n  B"},
    {"{% if n > 100 %}a{% elif n > 40 %}b{% else %}c{% endif %}", "b"},
    {"{% if fa %}a{% elif no %}b{% elif e %}c{% endif %}|", "|"},
    {"{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1,3) }}|{{ "
     "m(1,c='y') }}|{{ m(a=5,b=6,c=7) }}|{{ m() }}",
     "12x|13x|12y|567|2x"},
    {"{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "11"},
    {"{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1,2,k=3) }}", "(1, 2){'k': 3}"},
    {"{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(5) }}", "54321"},
    {"{% set g = 5 %}{% macro m() %}{{ g }}{% endmacro %}{% set g = 6 %}{{ m() }}", "6"},
    {"{% macro m() %}{{ g }}{% endmacro %}{% set g = 6 %}{{ m() }}", "6"},
    {"{% macro m() %}{% set g = 9 %}{{ g }}{% endmacro %}{% set g = 6 %}{{ m() }}{{ g }}", "96"},
    {"{% for i in [1,2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "12"},
    {"{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}body {{ n }}{% endcall %}", "<body 42>"},
    {"{% macro w(xs) %}{% for x in xs %}<{{ caller(x) }}>{% endfor %}{% endmacro %}{% call(y) w("
     "[1,2]) %}y={{ y }}{% endcall %}",
     "<y=1><y=2>"},
    {"{% macro w() %}{{ caller is defined }}{% endmacro %}{{ w() }}{% call w() %}{% endcall %}", "FalseTrue"},
    {"{% with a=1, b=2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "12False"},
    {"{% generation %}gen{{ n }}{% endgeneration %}x", "gen42x"},
    {"{% generation %}\n  gen{{ n }}\n{% endgeneration %}\nx", "  gen42\nx"},
    {"{% raw %}{{ x }}{% if %}{% endraw %}", "{{ x }}{% if %}"},
    {"a\n{% raw %}\n  {{ x }}\n{% endraw %}\nb", "a\n\n  {{ x }}\nb"},
    {"a {%- raw -%} {{ x }} {%- endraw -%} b", "a{{ x }}b"},
    {"a {# comment #} b", "a  b"},
    {"a\n  {# comment #}\nb", "a\nb"},
    {"a {#- c -#} b", "ab"},
    {"a {#- c #}\n b", "a b"},
    {"{#-#}x", "x"},
    {"{# a\nb\n#}c", "c"},
    {"a\n  {% if true %}\n    b\n  {% endif %}\nc", "a\n    b\nc"},
    {"a\n  {%- if true %}\n    b\n  {%- endif %}\nc", "a    bc"},
    {"a\n  {% if true -%}\n    b\n  {% endif -%}\nc", "a\nb\nc"},
    {"a\n  {%+ if true %}\n    b\n  {%+ endif %}\nc", "a\n      b\n  c"},
    {"a\n  {% if true +%}\n    b\n  {% endif +%}\nc", "a\n\n    b\n\nc"},
    {"a\n  {{ n }}\nb", "a\n  42\nb"},
    {"a\n  {{- n -}}\nb", "a42b"},
    {"a  {{ n }}  {% if true %}  x{% endif %}", "a  42    x"},
    {"  {% if true %}x{% endif %}", "x"},
    {"\t {% if true %}x{% endif %}\n", "x"},
    {"x\n", "x"},
    {"x\n\n", "x\n"},
    {"\n\nx", "\n\nx"},
    {"x\r\n{% if true %}\r\ny\r\n{% endif %}\r\nz\r\n", "x\ny\nz"},
    {"{{ 'a\r\nb' }}", "a\nb"},
    {"{% if true %}{% if true %}\n  {% if true %}\n x{% endif %}{% endif %}{% endif %}", " x"},
    {"{{ {'a': {'b': 1}} }}", "{'a': {'b': 1}}"},
    {"{{ {'a': {'b': 1}}}}", "{'a': {'b': 1}}"},
    {"{{ '}}' }}{{ \"{{\" }}", "}}{{"},
    {"{{ '%}' }}{% if '%}' %}x{% endif %}", "%}x"},
    {"{ {x} }{ % %}", "{ {x} }{ % %}"},
    {"{{- 1 }} {{ 2 -}} 3", "1 23"},
    {"{% for x in [[1,[2,3]],[4]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ "
     "x }}@{{ loop.depth }}{% endif %}{% endfor %}",
     "(1@2(2@33@3))(4@2)"},
    {"{% for i in [1,1,2] %}{{ loop.changed(i) }}{{ loop.cycle('a','b') }}{% endfor %}", "TrueaFalsebTruea"},
    {"{% set j = joiner(',') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}", "3,1,2"},
    {"{% set c = cycler('a','b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "aba"},
    {"{% for i in l %}{% for k in l %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}",
     "1231;1232;1233;"},
    {"{% for i in l %}{% set outer = loop %}{% for k in l %}{{ outer.index }}{% endfor %}{% endfor %}",
     "111222333"},
    {"{% set x = 5 %}{% if true %}{% set x = 6 %}{% endif %}{{ x }}", "6"},
    {"{% for i in [1,2,3] %}{% if loop.first %}{% set a = i %}{% endif %}{{ a }}{% endfor %}", "1"},
    {"{% for a in [1] %}{% for a in [2] %}{{ a }}{% endfor %}{{ a }}{% endfor %}{{ a is defined }}",
     "21False"},
    {"{{ n if n }}{{ n if not n }}|{{ 'a' if no else 'b' }}", "42|b"},
    {"{% if false %}{{ raise_exception('x') }}{% endif %}ok", "ok"},
    {"{{ strftime_now('%Y-%m-%d %H:%M:%S %d %b %B %A %a %j %y %p %I') }}",
     "2026-01-01 11:04:05 01 Jan January Thursday Thu 001 26 AM 11"},
    {"{{ strftime_now('') }}", ""},
    {"{% for x in l -%}\n  {{ x }}\n{%- endfor %}", "312"},
    {"{%for x in l%}{{x}}{%endfor%}", "312"},
    {"{%- for x in l -%}  {{ x }}  {%- endfor -%}", "312"},
    {"{% if n == 42 and (s or e) %}y{% endif %}", "y"},
    {"{% if n is defined and n is not none and n != '' %}y{% endif %}", "y"},
    {"{% if not (n is defined) %}y{% else %}n{% endif %}", "n"},
    {"{% if 'a' in s or 'e' in s %}y{% endif %}", "y"},
    {"{% set m = {'role':'user'} %}{{ m.role }}{{ m['role'] }}{{ m.get('role') }}", "useruseruser"},
    {"{{ users[0].name ~ ' is ' ~ users[0].age }}", "Bob is 30"},
    {"{{ (users | map(attribute='name') | list)[0] }}", "Bob"},
    {"{{ users | selectattr('active') | list | length }}", "2"},
    {"{{ 'A' if users|selectattr('age','gt',29)|list else 'B' }}", "A"},
    {"{% set content = ' x ' %}{{ content | trim + '!' }}", "x!"},
    {"{{ '\\n' }}{{ \"\\t\" }}{{ '\\\\' }}", "\n\t\\"},
    {"{{ 1 }}{# c #}{{ 2 }}", "12"},
    {"{{ [1,2,3] | join(', ') }}{{ ['a'] + ['b'] }}", "1, 2, 3['a', 'b']"},
    {"{% set l2 = l + [9] %}{{ l2 | tojson }}", "[3, 1, 2, 9]"},
    {"{% for item in [{'a':1},{'a':2}] %}{{ item.a }}{{ ',' if not loop.last }}{% endfor %}", "1,2"},
    {"{% macro t(x, ident='') %}{{ ident }}{{ x }}\n{% for i in [1] %}\n{{ ident }}  {{ i }}\n{%"
     " endfor %}{% endmacro %}{{ t('a') }}{{ t('b','  ') }}",
     "a\n  1\n  b\n    1\n"},
    {"{%- macro r(m) -%}\n  {%- if m.content is string -%}\n {{ m.content }}\n {%- else -%}\n {%"
     "- for c in m.content -%}{{ c.text if c.type == 'text' else '<img>' }}{%- endfor -%}\n {%- "
     "endif -%}\n{%- endmacro -%}\n{{ r(msg) }}",
     "hi<img>"},
    {"{% set ns = namespace(found=false, items=[]) %}{% for x in l %}{% if x == 1 %}{% set ns.fo"
     "und = true %}{% set ns.items = ns.items + [x] %}{% endif %}{% endfor %}{{ ns.found }}{{ ns"
     ".items }}",
     "True[1]"},
    {"{{ dict(a=1).items() | list }}{{ namespace(a=1).a }}", "[('a', 1)]1"},
    {"{% set ns = namespace(d) %}{{ ns.b }}", "1"},
    {"{% set d2 = dict(d, z=1) %}{{ d2 | length }}", "4"},
    {"{% macro m(a,b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1,2]) }}{{ m(**{'a':1,'b':2}) }}{{ m("
     "1, **{'b':3}) }}",
     "121213"},
    {"{{ n.x }}", ""},
    {"{{ no.x }}", ""},
    {"{{ s.x is defined }}", "False"},
    {"{{ no['x'] is defined }}", "False"},
    {"{% if false %}{{ s | nofilter }}{% endif %}x", "x"},
    {"x }} y", "x }} y"},
    {"x %} y", "x %} y"},
    {"x #} y", "x #} y"},
    {"{{ 'a' 'b' ~ 'c' }}", "abc"},
    {"{% for message in [msg] %}{{ message.role }}{{ message['content'][0]['text'] }}{% endfor %}", "userhi"},
    {"{{ [1,2,3]|select('in',[1,3])|list }}{{ ['a','b']|map('string')|map('upper')|join }}", "[1, 3]AB"},
    {"{% set x = [] %}{% for i in range(3) %}{% set x = x + [i] %}{% endfor %}{{ x }}", "[]"},
    {"{{ ''|default('a') }}{{ ''|default('a', true) }}{{ none|default('a') }}", "aNone"},
    {"{{ loop }}", ""},
    {"{% for x in l %}{{ loop.foo is defined }}{% endfor %}", "FalseFalseFalse"},
    {"{%- set x=1 -%}\n\n{{ x }}\n\n{%- set y=2 %}\n{{ y }}", "12"},
    {"a\n\n\n{% set x = 1 %}\n\n\nb", "a\n\n\n\n\nb"},
    {"{% set x = 1 %}{% set y = 2 %}\nb", "b"},
    {"a {% set x = 1 %} b\n c", "a  b\n c"},
    {"a\n{% if true %}x\n{% endif %}\nb", "a\nx\nb"},
    {"<div>\n    {% for i in [1,2] %}\n        {% if i == 1 %}\n        one\n        {% else %}"
     "\n        two\n        {% endif %}\n    {% endfor %}\n</div>\n",
     "<div>\n        one\n        two\n</div>"},
    {"{{ '{:02d}'.format(5) }}:{{ '%02d' % 7 }}", "05:07"},
    {"{{ s[:5] + '...' if s|length > 5 else s }}", "Hello..."},
    {"{{ (s + '!')[0:3] }}", "Hel"},
    {"{{ {'a':1}['a'] }}{{ {'a':1}.a }}{{ [1,2][0] }}{{ 'abc'[1:] }}{{ (1,2)[1] }}", "111bc2"},
    {"{% set x = {'a': [1,2,{'b': 'c'}]} %}{{ x.a[2].b }}{{ x['a'][2]['b'] }}", "cc"},
    {"{% set x = 'a' if n > 1 else 'b' %}{{ x }}", "a"},
    {"{% set tools = tools if tools is defined else none %}{{ tools }}", "None"},
    {"{{ tools is defined and tools is not none and tools|length > 0 }}", "False"},
    {"{% if (n > 1) or (n < 0) and not fa %}y{% endif %}", "y"},
    {"{{ 5 if true else 6 if false else 7 }}", "5"},
    {"{{ 1 if false else 2 if false else 3 }}", "3"},
    {"{{ not true and false }}{{ not (true and false) }}", "FalseTrue"},
    {"{{ 'a' in 'abc' and 'd' not in 'abc' }}", "True"},
    {"{{ 2 * 3 ~ 4 }}", "64"},
    {"{{ -1 ** 2 }}", "1"},
    {"{{ 10 - 2 - 3 }}", "5"},
    {"{{ 100 / 10 / 2 }}", "5.0"},
    {"{{ 2 ** -1 }}", "0.5"},
    {"{{ 7 // 2 * 2 + 7 % 2 }}", "7"},
};

static void every_case_agrees(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench);
    struct buf source;
    buf_init(&source, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf_clear(&source);
        buf_printf(&source, "%s", cases[i].source);
        if (bench_render(&bench, source.data, vars) != PH_OK)
            fail_msg("%s: %s", cases[i].source, bench.err.message);
        if (strcmp(bench_text(&bench), cases[i].expected) != 0)
            fail_msg("%s: '%s', not '%s'", cases[i].source, bench_text(&bench), cases[i].expected);
    }
    buf_release(&source);
    bench_release(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case_agrees)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
