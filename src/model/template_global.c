/* Tests (x is ...) and the functions every template can call. */
#include "model/template_int.h"

#include <string.h>
#include <time.h>

#define RANGE_MAX 100000 /* as Jinja's sandbox */

/* ---- tests by kind ---- */

enum { KIND_COUNT = TV_CALLABLE + 1 };

#define IS(kind) (1u << (kind))

static struct tv is_kind(struct tv v, unsigned kinds)
{
    return tv_bool((IS(v.kind) & kinds) != 0);
}

#define KIND_TEST(function, kinds)                                                      \
    static struct tv function(struct render *r, struct tv self, const struct tv *slots, \
                              const struct tv_args *args)                               \
    {                                                                                   \
        (void)r, (void)slots, (void)args;                                               \
        return is_kind(self, kinds);                                                    \
    }

#define ITERABLE (IS(TV_STRING) | IS(TV_LIST) | IS(TV_DICT))

KIND_TEST(t_defined, ~IS(TV_UNDEFINED))
KIND_TEST(t_undefined, IS(TV_UNDEFINED))
KIND_TEST(t_none, IS(TV_NONE))
KIND_TEST(t_boolean, IS(TV_BOOL))
KIND_TEST(t_integer, IS(TV_INT) | IS(TV_BIGINT))
KIND_TEST(t_float, IS(TV_FLOAT))
KIND_TEST(t_number, IS(TV_INT) | IS(TV_BIGINT) | IS(TV_FLOAT) | IS(TV_BOOL))
KIND_TEST(t_string, IS(TV_STRING))
KIND_TEST(t_mapping, IS(TV_DICT))
KIND_TEST(t_sequence, ITERABLE)
KIND_TEST(t_iterable, ITERABLE | IS(TV_UNDEFINED))
KIND_TEST(t_callable, IS(TV_CALLABLE))

/* ---- tests of values ---- */

static struct tv t_true(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)r, (void)slots, (void)args;
    return tv_bool(self.kind == TV_BOOL && self.u.boolean);
}

static struct tv t_false(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)r, (void)slots, (void)args;
    return tv_bool(self.kind == TV_BOOL && !self.u.boolean);
}

static struct tv remainder_of(struct render *r, struct tv self, struct tv divisor)
{
    return tv_binary(r, TOKEN_MOD, self, divisor);
}

static struct tv t_odd(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    return tv_bool(tv_equal(r, remainder_of(r, self, tv_int(2)), tv_int(1)));
}

static struct tv t_even(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    return tv_bool(tv_equal(r, remainder_of(r, self, tv_int(2)), tv_int(0)));
}

static struct tv t_divisible(struct render *r, struct tv self, const struct tv *slots,
                             const struct tv_args *args)
{
    (void)args;
    return tv_bool(tv_equal(r, remainder_of(r, self, slots[0]), tv_int(0)));
}

static bool is_cased_as(struct render *r, struct tv self, const char *how)
{
    struct text text = tv_str(r, self);
    bool same = text_equal(text_map(r, text, how).u.text, text);
    return same && !text_equal(text_map(r, text, "swapcase").u.text, text);
}

static struct tv t_lower(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    return tv_bool(is_cased_as(r, self, "lower"));
}

static struct tv t_upper(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    return tv_bool(is_cased_as(r, self, "upper"));
}

#define RELATION_TEST(function, op)                                                     \
    static struct tv function(struct render *r, struct tv self, const struct tv *slots, \
                              const struct tv_args *args)                               \
    {                                                                                   \
        (void)args;                                                                     \
        return tv_bool(tv_relation(r, op, self, slots[0]));                             \
    }

RELATION_TEST(t_eq, TOKEN_EQ)
RELATION_TEST(t_ne, TOKEN_NE)
RELATION_TEST(t_lt, TOKEN_LT)
RELATION_TEST(t_le, TOKEN_LE)
RELATION_TEST(t_gt, TOKEN_GT)
RELATION_TEST(t_ge, TOKEN_GE)
RELATION_TEST(t_in, TOKEN_IN)

static struct tv t_sameas(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)args;
    if (self.kind != slots[0].kind)
        return tv_bool(false);
    if (self.kind == TV_LIST || self.kind == TV_DICT)
        return tv_bool(self.u.list == slots[0].u.list); /* either pointer */
    return tv_bool(tv_equal(r, self, slots[0]));
}

static struct tv t_filter(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    (void)slots, (void)args;
    return tv_bool(filter_find(tv_str(r, self)) != NULL);
}

static struct tv t_test(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)slots, (void)args;
    return tv_bool(test_find(tv_str(r, self)) != NULL);
}

static struct tv t_escaped(struct render *r, struct tv self, const struct tv *slots,
                           const struct tv_args *args)
{
    (void)r, (void)self, (void)slots, (void)args;
    return tv_bool(false);
}

static const struct builtin tests[] = {
    {"defined", "", t_defined},
    {"undefined", "", t_undefined},
    {"none", "", t_none},
    {"boolean", "", t_boolean},
    {"integer", "", t_integer},
    {"float", "", t_float},
    {"number", "", t_number},
    {"string", "", t_string},
    {"mapping", "", t_mapping},
    {"sequence", "", t_sequence},
    {"iterable", "", t_iterable},
    {"callable", "", t_callable},
    {"true", "", t_true},
    {"false", "", t_false},
    {"odd", "", t_odd},
    {"even", "", t_even},
    {"divisibleby", "num", t_divisible},
    {"lower", "", t_lower},
    {"upper", "", t_upper},
    {"eq", "other", t_eq},
    {"equalto", "other", t_eq},
    {"==", "other", t_eq},
    {"ne", "other", t_ne},
    {"!=", "other", t_ne},
    {"lt", "other", t_lt},
    {"lessthan", "other", t_lt},
    {"<", "other", t_lt},
    {"le", "other", t_le},
    {"<=", "other", t_le},
    {"gt", "other", t_gt},
    {"greaterthan", "other", t_gt},
    {">", "other", t_gt},
    {"ge", "other", t_ge},
    {">=", "other", t_ge},
    {"in", "seq", t_in},
    {"sameas", "other", t_sameas},
    {"filter", "", t_filter},
    {"test", "", t_test},
    {"escaped", "", t_escaped},
};

const struct builtin *test_find(struct text name)
{
    return builtin_find(tests, sizeof tests / sizeof *tests, name);
}

/* ---- functions ---- */

static struct tv g_range(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)self;
    size_t given = args->len;
    int64_t bounds[3] = {0, 0, 1};
    for (size_t i = 0; i < given; i++) {
        if (!tv_is_integral(slots[i]))
            return render_fail(r, PH_ERR_ARG, "range() needs integers, not '%s'", tv_type_name(slots[i]));
        bounds[i] = tv_integer(slots[i]);
    }
    int64_t start = given == 1 ? 0 : bounds[0], stop = given == 1 ? bounds[0] : bounds[1], step = bounds[2];
    if (step == 0)
        return render_fail(r, PH_ERR_ARG, "the step of range() must not be 0");
    struct tv list = tv_list_new(r, 0);
    for (int64_t n = 0, at = start; step > 0 ? at < stop : at > stop; n++) {
        if (n >= RANGE_MAX)
            return render_fail(r, PH_ERR_LIMIT, "range() has more than %d items", RANGE_MAX);
        if (!tv_push(r, list, tv_int(at)) || __builtin_add_overflow(at, step, &at))
            break;
    }
    if (r->status == PH_OK)
        render_charge(r, list.u.list->len);
    return list;
}

/* The members of `args`, named ones over those of a dict given first. */
static struct tv new_dict(struct render *r, const struct tv_args *args)
{
    struct tv dict = tv_dict_new(r);
    if (dict.kind == TV_DICT && args->len) {
        const struct tv_args own = {.items = args->items, .len = 1};
        call_builtin(r, dict_method_find(text_of("update")), dict, &own);
    }
    for (size_t i = 0; i < args->named_len && r->status == PH_OK; i++)
        tv_dict_set(r, dict.u.dict, tv_text(args->named[i].name), args->named[i].value);
    return dict;
}

static struct tv g_dict(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)self, (void)slots;
    return new_dict(r, args);
}

static struct tv g_namespace(struct render *r, struct tv self, const struct tv *slots,
                             const struct tv_args *args)
{
    (void)self, (void)slots;
    struct tv dict = new_dict(r, args);
    if (dict.kind == TV_DICT)
        dict.kind = TV_NAMESPACE;
    return dict;
}

/* A joiner keeps whether it was used in a dict of one member. */
static struct tv joiner_call(struct render *r, struct tv self, const struct tv *slots,
                             const struct tv_args *args)
{
    (void)slots, (void)args;
    struct tv *used = tv_dict_find(r, self.u.dict, tv_literal("used"));
    struct tv *separator = tv_dict_find(r, self.u.dict, tv_literal("separator"));
    if (!used || !separator)
        return tv_undefined;
    struct tv text = tv_truth(*used) ? *separator : tv_literal("");
    *used = tv_bool(true);
    return text;
}

static struct tv g_joiner(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    static const struct builtin call = {"joiner", "", joiner_call};
    (void)self, (void)args;
    struct tv state = tv_dict_new(r);
    if (r->status != PH_OK)
        return tv_undefined;
    tv_dict_set(r, state.u.dict, tv_literal("used"), tv_bool(false));
    tv_dict_set(r, state.u.dict, tv_literal("separator"),
                slots[0].kind == TV_UNDEFINED ? tv_literal(", ") : slots[0]);
    return tv_callable_new(r, (struct tv_callable){.kind = CALL_BUILTIN, .builtin = &call, .self = state});
}

static struct tv cycler_call(struct render *r, struct tv self, const struct tv *slots,
                             const struct tv_args *args)
{
    (void)self, (void)slots, (void)args;
    return render_fail(r, PH_ERR_ARG, "a cycler is asked with .next()");
}

/* A cycler keeps its items, and behind them the index of the current one. */
static struct tv g_cycler(struct render *r, struct tv self, const struct tv *slots,
                          const struct tv_args *args)
{
    static const struct builtin call = {"cycler", "*", cycler_call};
    (void)self, (void)slots;
    struct tv state = tv_list_new(r, args->len + 1);
    if (args->len == 0)
        return render_fail(r, PH_ERR_ARG, "cycler() needs at least one item");
    for (size_t i = 0; i < args->len; i++)
        tv_push(r, state, args->items[i]);
    tv_push(r, state, tv_int(0));
    return tv_callable_new(r, (struct tv_callable){.kind = CALL_CYCLER, .builtin = &call, .self = state});
}

/* The message is the template's own and stands alone: it is written for whoever sent the conversation. */
static struct tv g_raise(struct render *r, struct tv self, const struct tv *slots, const struct tv_args *args)
{
    (void)self, (void)args;
    struct text message = tv_str(r, slots[0]);
    if (message.len == 0)
        message = text_of("the chat template refuses this conversation and gives no reason");
    if (r->status == PH_OK)
        r->status =
            ph_fail(r->err, PH_ERR_ARG, "%.*s", (int)(message.len < 400 ? message.len : 400), message.at);
    return tv_undefined;
}

static struct tv g_strftime(struct render *r, struct tv self, const struct tv *slots,
                            const struct tv_args *args)
{
    (void)self, (void)args;
    struct text format = tv_str(r, slots[0]);
    char pattern[256], text[1024];
    time_t now = (time_t)(clock_unix_ms(r->clock) / 1000);
    struct tm utc;
    if (format.len + 2 > sizeof pattern || !gmtime_r(&now, &utc))
        return render_fail(r, PH_ERR_ARG, "strftime_now() needs a format of at most %zu bytes",
                           sizeof pattern - 2);
    memcpy(pattern, format.at, format.len);
    memcpy(pattern + format.len, ".", 2); /* so that an empty result can be told from a failure */
    size_t len = strftime(text, sizeof text, pattern, &utc);
    if (len == 0)
        return render_fail(r, PH_ERR_ARG, "strftime_now() makes a text that is too long");
    return tv_string_copy(r, text, len - 1);
}

static const struct builtin globals[] = {
    {"range", "start ?stop ?step", g_range},
    {"dict", "*", g_dict},
    {"namespace", "*", g_namespace},
    {"joiner", "?sep", g_joiner},
    {"cycler", "*", g_cycler},
    {"raise_exception", "message", g_raise},
    {"strftime_now", "format", g_strftime},
};

const struct builtin *global_find(struct text name)
{
    return builtin_find(globals, sizeof globals / sizeof *globals, name);
}
