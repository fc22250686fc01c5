#include <math.h>

#include "base/config.h"
#include "base/limits.h"
#include "test_support.h"

/* A schema with every type in every place. */
struct price {
    double input, output;
};

struct model {
    const char *id;
    int tier;
    const char *path;
    int64_t context;
    struct price price;
    const struct json *traits;
    struct config_list stop;
};

struct provider {
    const char *name;
    const char *base_url;
    const char *key;
    int64_t rpm;
};

struct settings {
    const char *listen;
    const char *data;
    bool quiet;
    double ratio;
    int64_t any;
    struct config_list models;
    struct config_list providers;
    struct config_list origins;
    struct {
        int store;
        const char *embedding;
        bool on;
    } memory;
    const struct json *extra;
};

static const char *const tiers[] = {"local", "subscription", "premium", NULL};
static const char *const stores[] = {"none", "sqlite", NULL};

static const struct config_field price_fields[] = {
    {.key = "input_usd_per_mtok",
     .type = CONFIG_DOUBLE,
     .offset = offsetof(struct price, input),
     .min = 0,
     .max = 1e6},
    {.key = "output_usd_per_mtok", .type = CONFIG_DOUBLE, .offset = offsetof(struct price, output)},
    {0},
};

static const struct config_field model_fields[] = {
    {.key = "id", .type = CONFIG_STRING, .offset = offsetof(struct model, id), .required = true},
    {.key = "tier", .type = CONFIG_ENUM, .offset = offsetof(struct model, tier), .names = tiers},
    {.key = "path", .type = CONFIG_STRING, .offset = offsetof(struct model, path)},
    {.key = "context", .type = CONFIG_INT, .offset = offsetof(struct model, context), .min = 1, .max = 65536},
    {.key = "price", .type = CONFIG_STRUCT, .offset = offsetof(struct model, price), .fields = price_fields},
    {.key = "traits", .type = CONFIG_FREE, .offset = offsetof(struct model, traits)},
    {.key = "stop", .type = CONFIG_LIST, .offset = offsetof(struct model, stop)},
    {0},
};

static const struct config_field provider_fields[] = {
    {.key = "base_url", .type = CONFIG_STRING, .offset = offsetof(struct provider, base_url)},
    {.key = "key", .type = CONFIG_STRING, .offset = offsetof(struct provider, key)},
    {.key = "rpm", .type = CONFIG_INT, .offset = offsetof(struct provider, rpm)},
    {0},
};

static const struct config_field memory_fields[] = {
    {.key = "store", .type = CONFIG_ENUM, .offset = 0, .names = stores, .required = true},
    {.key = "embedding",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings, memory.embedding) - offsetof(struct settings, memory)},
    {.key = "on",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct settings, memory.on) - offsetof(struct settings, memory)},
    {0},
};

static const struct config_field fields[] = {
    {.key = "listen", .type = CONFIG_STRING, .offset = offsetof(struct settings, listen)},
    {.key = "data", .type = CONFIG_STRING, .offset = offsetof(struct settings, data)},
    {.key = "quiet", .type = CONFIG_BOOL, .offset = offsetof(struct settings, quiet)},
    {.key = "ratio", .type = CONFIG_DOUBLE, .offset = offsetof(struct settings, ratio), .min = -1, .max = 1},
    {.key = "any", .type = CONFIG_INT, .offset = offsetof(struct settings, any)},
    {.key = "models",
     .type = CONFIG_LIST,
     .offset = offsetof(struct settings, models),
     .fields = model_fields,
     .item_size = sizeof(struct model)},
    {.key = "providers",
     .type = CONFIG_MAP,
     .offset = offsetof(struct settings, providers),
     .fields = provider_fields,
     .item_size = sizeof(struct provider)},
    {.key = "origins", .type = CONFIG_LIST, .offset = offsetof(struct settings, origins)},
    {.key = "memory",
     .type = CONFIG_STRUCT,
     .offset = offsetof(struct settings, memory),
     .fields = memory_fields},
    {.key = "extra", .type = CONFIG_FREE, .offset = offsetof(struct settings, extra)},
    {0},
};

static int setup(void **state)
{
    struct arena *arena = calloc(1, sizeof *arena);
    arena_init(arena, 16u << 20);
    setenv("TEST_CONFIG_KEY", "sk-{1}: [a], #b", 1);
    setenv("TEST_CONFIG_PORT", "8081", 1);
    setenv("TEST_CONFIG_EMPTY", "", 1);
    setenv("TEST_CONFIG_BROKEN", "\xFF", 1);
    unsetenv("TEST_CONFIG_UNSET");
    *state = arena;
    return 0;
}

static int teardown(void **state)
{
    arena_release(*state);
    free(*state);
    return 0;
}

static struct settings parse(struct arena *arena, const char *text)
{
    struct settings settings = {.listen = "default", .any = 7, .memory.on = true};
    struct ph_err err = {0};
    if (config_parse(arena, "t.yaml", text, strlen(text), fields, &settings, &err) != PH_OK)
        fail_msg("%s\n%s", text, err.message);
    return settings;
}

static void assert_json(const struct json *value, const char *expected)
{
    struct buf buf;
    buf_init(&buf, 1 << 16);
    json_write(&buf, value);
    assert_string_equal(buf.data, expected);
    buf_release(&buf);
}

static void a_full_file_fills_every_field(void **state)
{
    struct settings s = parse(
        *state, "# The station\n"
                "listen: 127.0.0.1:8080\n"
                "data: \"/var/lib/pharos\"\n"
                "quiet: true\n"
                "ratio: -0.5\n"
                "models:\n"
                "  - {id: small, tier: local, path: models/default.gguf, context: 4096}\n"
                "  - {id: coder, tier: subscription, stop: [\"a b\", c],\n"
                "     traits: {family: llama, parameters_b: 70, x: [1.50, .5, null, ~, 'no', yes]}}\n"
                "  - id: judge\n"
                "    tier: premium\n"
                "    price: {input_usd_per_mtok: 2.5, output_usd_per_mtok: 10}\n"
                "providers:\n"
                "  together: {base_url: https://api.together.xyz/v1, key: ${TEST_CONFIG_KEY}, rpm: 600}\n"
                "  empty:\n"
                "origins: [http://a, \"http://b\"]\n"
                "memory: {store: sqlite, embedding: null}\n"
                "extra:\n"
                "  - a: 1\n"
                "  - \"1\"\n"
                "  - |\n"
                "    two\n"
                "    lines\n");
    assert_string_equal(s.listen, "127.0.0.1:8080");
    assert_string_equal(s.data, "/var/lib/pharos");
    assert_true(s.quiet);
    assert_true(fabs(s.ratio + 0.5) < 1e-12);
    assert_int_equal(s.any, 7);
    assert_int_equal(s.models.count, 3);
    const struct model *models = s.models.items;
    assert_string_equal(models[0].id, "small");
    assert_int_equal(models[0].tier, 0);
    assert_int_equal(models[0].context, 4096);
    assert_null(models[0].traits);
    assert_int_equal(models[1].tier, 1);
    assert_int_equal(models[1].stop.count, 2);
    assert_string_equal(((char **)models[1].stop.items)[0], "a b");
    assert_string_equal(((char **)models[1].stop.items)[1], "c");
    assert_json(models[1].traits,
                "{\"family\":\"llama\",\"parameters_b\":70,\"x\":[1.50,0.5,null,null,\"no\",\"yes\"]}");
    assert_int_equal(models[2].tier, 2);
    assert_true(models[2].price.input > 2.49 && models[2].price.output > 9.99);
    const struct provider *providers = s.providers.items;
    assert_int_equal(s.providers.count, 2);
    assert_string_equal(providers[0].name, "together");
    assert_string_equal(providers[0].base_url, "https://api.together.xyz/v1");
    assert_string_equal(providers[0].key, "sk-{1}: [a], #b");
    assert_int_equal(providers[0].rpm, 600);
    assert_string_equal(providers[1].name, "empty");
    assert_null(providers[1].key);
    assert_int_equal(s.origins.count, 2);
    assert_string_equal(((char **)s.origins.items)[1], "http://b");
    assert_int_equal(s.memory.store, 1);
    assert_null(s.memory.embedding);
    assert_true(s.memory.on);
    assert_json(s.extra, "[{\"a\":1},\"1\",\"two\\nlines\\n\"]");
}

static void silence_keeps_what_was_there(void **state)
{
    static const char *const texts[] = {"",  "\n# only a comment\n",           "---\n",         "{}",
                                        "~", "models:\nproviders:\nmemory:\n", "\xEF\xBB\xBF{}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct settings s = parse(*state, texts[i]);
        assert_string_equal(s.listen, "default");
        assert_int_equal(s.any, 7);
        assert_int_equal(s.models.count, 0);
        assert_true(s.memory.on);
    }
    assert_null(parse(*state, "listen: null").listen);
    assert_string_equal(parse(*state, "listen: 'null'").listen, "null");
    assert_string_equal(parse(*state, "listen: ''").listen, "");
}

static void variables_are_put_in_as_data(void **state)
{
    static const struct {
        const char *text, *listen;
    } cases[] = {
        {"listen: ${TEST_CONFIG_KEY}", "sk-{1}: [a], #b"},
        {"{listen: ${TEST_CONFIG_KEY}, any: 1}", "sk-{1}: [a], #b"},
        {"listen: 'x${TEST_CONFIG_PORT}y${TEST_CONFIG_PORT}'", "x8081y8081"},
        {"listen: \"a\\n${TEST_CONFIG_PORT}\"", "a\n8081"},
        {"listen: ${TEST_CONFIG_EMPTY}", ""},
        {"listen: a$${HOME}", "a${HOME}"},
        {"listen: a$$${HOME}", "a$${HOME}"},
        {"listen: '$${'", "${"},
        {"listen: $ {x} $x $", "$ {x} $x $"},
        {"# ${TEST_CONFIG_UNSET} ${\nlisten: a", "a"},
        {"listen: \xF4\x8F\xBF\xAF${TEST_CONFIG_PORT}\xF4\x80\x80\x80", "\xF4\x8F\xBF\xAF"
                                                                        "8081\xF4\x80\x80\x80"},
        {"listen: |\n  a\n  ${TEST_CONFIG_PORT}\n", "a\n8081\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(parse(*state, cases[i].text).listen, cases[i].listen);
    assert_int_equal(parse(*state, "any: ${TEST_CONFIG_PORT}").any, 8081);
    assert_int_equal(parse(*state, "any: '${TEST_CONFIG_PORT}'").any, 8081);
    assert_json(
        parse(*state, "extra: [${TEST_CONFIG_PORT}, '${TEST_CONFIG_PORT}', ${TEST_CONFIG_EMPTY}]").extra,
        "[8081,8081,\"\"]");
}

static void every_error_names_its_line(void **state)
{
    static const struct {
        const char *text;
        enum ph_status status;
        const char *message; /* begins the error, or is in it after a '*' */
    } cases[] = {
        /* keys */
        {"data: x\nlistn: y\n", PH_ERR_FORMAT,
         "t.yaml:2: unknown key \"listn\" in the configuration; did you mean \"listen\"?"},
        {"\nquite: true", PH_ERR_FORMAT, "*did you mean \"quiet\""},
        {"zzz: 1", PH_ERR_FORMAT,
         "t.yaml:1: unknown key \"zzz\" in the configuration; known are listen, data, quiet"},
        {"models:\n  - id: a\n    contxet: 5\n", PH_ERR_FORMAT,
         "t.yaml:3: unknown key \"contxet\" in models[0]; did you mean \"context\"?"},
        {"models:\n  - {id: a}\n  - {id: b,\n     price: {inputs: 5}}\n", PH_ERR_FORMAT,
         "t.yaml:4: unknown key \"inputs\" in models[1].price; known are input_usd_per_mtok, "
         "output_usd_per_mtok"},
        {"providers:\n  x:\n    kye: 1\n", PH_ERR_FORMAT,
         "t.yaml:3: unknown key \"kye\" in providers.x; did you mean \"key\"?"},
        {"data: a\nany: 1\n\ndata: b\n", PH_ERR_FORMAT,
         "t.yaml:4: the key \"data\" is here twice, first in line 1"},
        {"providers:\n  a: {}\n  a: {}\n", PH_ERR_FORMAT,
         "t.yaml:3: the key \"a\" is here twice, first in line 2"},
        {"extra:\n  x: {y: 1,\n z: 2, y: 3}\n", PH_ERR_FORMAT, "t.yaml:3: the key \"y\" is here twice"},
        {"? [a, b]\n: c\n", PH_ERR_UNSUPPORTED, "t.yaml:1: a key must be"},
        {"models:\n- tier: local\n", PH_ERR_FORMAT, "t.yaml:2: models[0] needs the key \"id\""},
        {"models: [{id: a},\n  {}]\n", PH_ERR_FORMAT, "t.yaml:2: models[1] needs the key \"id\""},
        {"models: [~]", PH_ERR_FORMAT, "t.yaml:1: models[0] needs the key \"id\""},
        {"data: a\nmemory: {on: true}\n", PH_ERR_FORMAT, "t.yaml:2: memory needs the key \"store\""},
        {"models:\n- id:\n", PH_ERR_FORMAT, "t.yaml:2: models[0].id must be a text; nothing is given"},
        /* types */
        {"listen: [a]", PH_ERR_FORMAT, "t.yaml:1: listen must be a text, not a list"},
        {"listen: {a: b}", PH_ERR_FORMAT, "t.yaml:1: listen must be a text, not a mapping"},
        {"\nquiet: yes", PH_ERR_FORMAT, "t.yaml:2: quiet must be true or false, not \"yes\""},
        {"quiet: 'true'", PH_ERR_FORMAT, "t.yaml:1: quiet must be true or false, not the text \"true\""},
        {"quiet:", PH_ERR_FORMAT, "t.yaml:1: quiet must be true or false; nothing is given"},
        {"any: ten", PH_ERR_FORMAT, "t.yaml:1: any must be a whole number, not \"ten\""},
        {"any: 1.5", PH_ERR_FORMAT, "t.yaml:1: any must be a whole number"},
        {"any: 0x10", PH_ERR_FORMAT, "t.yaml:1: any must be a whole number"},
        {"any: '5'", PH_ERR_FORMAT, "t.yaml:1: any must be a whole number, not the text \"5\""},
        {"any: -", PH_ERR_FORMAT, "*"},
        {"any: +", PH_ERR_FORMAT, "t.yaml:1: any must be a whole number"},
        {"any: [1]", PH_ERR_FORMAT, "t.yaml:1: any must be a whole number, not a list"},
        {"any: 9223372036854775808", PH_ERR_FORMAT,
         "t.yaml:1: any must be a whole number of at most 64 bits"},
        {"ratio: high", PH_ERR_FORMAT, "t.yaml:1: ratio must be a number, not \"high\""},
        {"ratio: inf", PH_ERR_FORMAT, "t.yaml:1: ratio must be a number"},
        {"ratio: nan", PH_ERR_FORMAT, "t.yaml:1: ratio must be a number"},
        {"ratio: 1e999", PH_ERR_FORMAT, "t.yaml:1: ratio must be a number"},
        {"ratio: 0x1p3", PH_ERR_FORMAT, "t.yaml:1: ratio must be a number"},
        {"ratio: 1-1", PH_ERR_FORMAT, "t.yaml:1: ratio must be a number"},
        {"ratio: 1.01", PH_ERR_FORMAT, "t.yaml:1: ratio must be from -1 to 1, not \"1.01\""},
        {"ratio: -1.01", PH_ERR_FORMAT, "t.yaml:1: ratio must be from -1 to 1"},
        {"models:\n- id: a\n  context: 0\n", PH_ERR_FORMAT,
         "t.yaml:3: models[0].context must be from 1 to 65536"},
        {"models:\n- id: a\n  context: 65537\n", PH_ERR_FORMAT,
         "t.yaml:3: models[0].context must be from 1 to 65536"},
        {"models:\n- id: a\n  tier: locla\n", PH_ERR_FORMAT,
         "t.yaml:3: unknown value \"locla\" in models[0].tier; did you mean \"local\"?"},
        {"models:\n- id: a\n  tier: best\n", PH_ERR_FORMAT, "*known are local, subscription, premium"},
        {"models: small", PH_ERR_FORMAT, "t.yaml:1: models must be a list, not \"small\""},
        {"models: {id: a}", PH_ERR_FORMAT, "t.yaml:1: models must be a list, not a mapping"},
        {"models: [a]", PH_ERR_FORMAT, "t.yaml:1: models[0] must be a mapping"},
        {"providers: [a]", PH_ERR_FORMAT, "t.yaml:1: providers must be a mapping"},
        {"providers: {a: b}", PH_ERR_FORMAT, "t.yaml:1: providers.a must be a mapping"},
        {"memory: on", PH_ERR_FORMAT, "t.yaml:1: memory must be a mapping"},
        {"origins: [a,\n[b]]", PH_ERR_FORMAT, "t.yaml:2: origins[1] must be a text, not a list"},
        {"origins:\n- a\n-\n", PH_ERR_FORMAT, "t.yaml:3: origins[1] must be a text; nothing is given"},
        {"- a\n- b\n", PH_ERR_FORMAT,
         "t.yaml:1: the configuration must be a mapping of keys to values, not a list"},
        {"just words", PH_ERR_FORMAT, "t.yaml:1: the configuration must be a mapping"},
        /* the environment */
        {"data: a\nlisten: ${TEST_CONFIG_UNSET}\n", PH_ERR_NOTFOUND,
         "t.yaml:2: the environment variable TEST_CONFIG_UNSET is not set"},
        {"listen: ${not-a-name}", PH_ERR_FORMAT, "t.yaml:1: \"${\" must be followed by a variable's name"},
        {"a: 1\nlisten: '${'", PH_ERR_FORMAT, "t.yaml:2: \"${\" must be followed"},
        {"listen: ${TEST_CONFIG_BROKEN}", PH_ERR_FORMAT, "*is not UTF-8"},
        {"quiet: ${TEST_CONFIG_KEY}", PH_ERR_FORMAT,
         "t.yaml:1: quiet must be true or false; what the environment gives is not"},
        {"\nlisten: a\xF4\x8F\xBF\xB0z", PH_ERR_FORMAT, "t.yaml:2: a private character"},
        /* what YAML has and we refuse */
        {"data: &x a\n", PH_ERR_UNSUPPORTED, "t.yaml:1: anchors and aliases (\"x\")"},
        {"data: a\nlisten: *x\n", PH_ERR_UNSUPPORTED, "t.yaml:2: anchors and aliases (\"x\")"},
        {"models: &m\n- {id: a}\n", PH_ERR_UNSUPPORTED, "t.yaml:1: anchors"},
        {"memory: &m {store: none}\n", PH_ERR_UNSUPPORTED, "t.yaml:1: anchors"},
        {"data: a\nany: !!int 5\n", PH_ERR_UNSUPPORTED, "t.yaml:2: tags (\"tag:yaml.org,2002:int\")"},
        {"models: !x []\n", PH_ERR_UNSUPPORTED, "t.yaml:1: tags (\"!x\")"},
        {"memory: !x {}\n", PH_ERR_UNSUPPORTED, "t.yaml:1: tags (\"!x\")"},
        {"data: a\n---\ndata: b\n", PH_ERR_UNSUPPORTED, "t.yaml:2: a second document"},
        /* what is not YAML */
        {"data: a\nlisten: \"abc\n", PH_ERR_FORMAT, "*not YAML:"},
        {"data: a\nmodels: [\n", PH_ERR_FORMAT, "*not YAML:"},
        {"data: a\nlisten: b: c\n", PH_ERR_FORMAT, "t.yaml:2: not YAML: mapping values are not allowed"},
        {"memory:\n\tstore: none\n", PH_ERR_FORMAT, "t.yaml:2: not YAML:"},
        {"memory:\n\tstore: none\n", PH_ERR_FORMAT, "*indent with spaces, not tabs"},
        {"data: a\n\nlisten: a\xC3(\n", PH_ERR_FORMAT, "t.yaml:3: invalid UTF-8, byte 0xc3"},
        {"data: a\nlisten: a\x01\n", PH_ERR_FORMAT, "t.yaml:2: a control character, byte 0x01"},
        {"data: a\nlisten: \"a\\0b\"\n", PH_ERR_FORMAT, "t.yaml:2: a 0 byte in a text"},
        {"data: a\nlisten: a\xEF\xBF\xBF\n", PH_ERR_FORMAT, "t.yaml:2: not YAML:"},
        {"extra:\n [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", PH_ERR_LIMIT,
         "t.yaml:2: nested deeper than 16 levels"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct settings settings = {0};
        struct ph_err err = {0};
        enum ph_status status =
            config_parse(*state, "t.yaml", cases[i].text, strlen(cases[i].text), fields, &settings, &err);
        const char *expected = cases[i].message;
        bool matches = *expected == '*' ? strstr(err.message, expected + 1) != NULL
                                        : strncmp(err.message, expected, strlen(expected)) == 0;
        if (status != cases[i].status || !matches)
            fail_msg("case %zu: %s\ngave %s: %s", i, cases[i].text, ph_status_name(status), err.message);
        assert_null(strstr(err.message, "sk-")); /* no message shows what the environment holds */
    }
}

static void the_deepest_nesting_allowed_works(void **state)
{
    assert_json(parse(*state, "extra: [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]").extra,
                "[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]");
}

static void too_much_is_refused(void **state)
{
    struct settings settings = {0};
    struct ph_err err = {0};
    struct buf buf;
    buf_init(&buf, 4 << 20);
    while (buf.len <= CONFIG_BYTES_MAX)
        buf_puts(&buf, "# comment\n");
    assert_int_equal(config_parse(*state, "t.yaml", buf.data, buf.len, fields, &settings, &err),
                     PH_ERR_LIMIT);
    buf_clear(&buf);
    buf_puts(&buf, "extra:\n");
    for (int i = 0; i <= CONFIG_KEYS_MAX; i++)
        buf_printf(&buf, "  k%d: 1\n", i);
    assert_int_equal(config_parse(*state, "t.yaml", buf.data, buf.len, fields, &settings, &err),
                     PH_ERR_LIMIT);
    assert_non_null(strstr(err.message, "t.yaml:4098: more than 4096 keys"));
    buf_release(&buf);
}

/* With every budget from nothing upwards: out of memory or the whole result, and never anything else. */
static void memory_may_end_anywhere(void **state)
{
    (void)state;
    static const char text[] =
        "data: a\nmodels: [{id: x, stop: [a, b], traits: {a: [1, .5, b, null, true]}}]\n"
        "providers: {p: {key: ${TEST_CONFIG_KEY}}}\nmemory: {store: none}\n";
    bool succeeded = false;
    unsigned failures = 0;
    for (size_t budget = 0; !succeeded; budget += 16) {
        struct settings settings = {0};
        struct arena arena;
        struct ph_err err = {0};
        arena_init(&arena, budget);
        enum ph_status status = config_parse(&arena, "t", text, sizeof text - 1, fields, &settings, &err);
        if (status != PH_OK) {
            assert_int_equal(status, PH_ERR_NOMEM);
            assert_int_equal(err.code, PH_ERR_NOMEM);
            failures++;
        }
        succeeded = status == PH_OK;
        arena_release(&arena);
    }
    assert_true(failures > 30);
}

static void files_are_read(void **state)
{
    struct settings settings = {0};
    struct ph_err err = {0};
    char path[] = "/tmp/test_config.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "data: x\nanny: 1\n", 16), 16);
    close(fd);
    assert_int_equal(config_read(*state, path, fields, &settings, &err), PH_ERR_FORMAT);
    assert_memory_equal(err.message, path, strlen(path));
    assert_non_null(
        strstr(err.message, ":2: unknown key \"anny\" in the configuration; did you mean \"any\"?"));
    unlink(path);
    assert_int_equal(config_read(*state, path, fields, &settings, &err), PH_ERR_NOTFOUND);
    assert_non_null(strstr(err.message, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_full_file_fills_every_field, setup, teardown),
        cmocka_unit_test_setup_teardown(silence_keeps_what_was_there, setup, teardown),
        cmocka_unit_test_setup_teardown(variables_are_put_in_as_data, setup, teardown),
        cmocka_unit_test_setup_teardown(every_error_names_its_line, setup, teardown),
        cmocka_unit_test_setup_teardown(the_deepest_nesting_allowed_works, setup, teardown),
        cmocka_unit_test_setup_teardown(too_much_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_may_end_anywhere, setup, teardown),
        cmocka_unit_test_setup_teardown(files_are_read, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
