/* Acceptance: tests from a YAML file, each a load and what is wanted of its figures.
 *
 *   tests:
 *     - name: first token
 *       mode: closed
 *       concurrency: 1
 *       requests: 50
 *       want: [ttft_p50_ms < 100, success_percent >= 100]
 *
 * A figure that could not be had fails whatever was wanted of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/file.h"
#include "ops/load_int.h"

#define TESTS_MAX 256
#define DEFAULT_TOKENS 64
#define DEFAULT_REQUESTS 32

struct raw_test {
    char *name, *machine, *slo;
    int mode;
    int64_t concurrency, requests, warmup, prompt_tokens, max_tokens, turns;
    double rate, duration_s, timeout_s, think_s;
    bool whole, ignore_end;
    struct config_list want;
};
struct raw_criteria {
    struct config_list tests;
};

static const char *const mode_names[] = {"closed", "open", "agents", NULL};
static const enum load_mode modes[] = {LOAD_CLOSED, LOAD_OPEN, LOAD_AGENTS};

#define AT(member_) offsetof(struct raw_test, member_)
static const struct config_field test_fields[] = {
    {.key = "name",
     .type = CONFIG_STRING,
     .offset = AT(name),
     .required = true,
     .help = "what it is called in the verdict"},
    {.key = "machine",
     .type = CONFIG_STRING,
     .offset = AT(machine),
     .help = "only for this class of machines (--machine); absent: for all"},
    {.key = "mode",
     .type = CONFIG_ENUM,
     .offset = AT(mode),
     .names = mode_names,
     .help = "closed, open or agents"},
    {.key = "concurrency",
     .type = CONFIG_INT,
     .offset = AT(concurrency),
     .min = 1,
     .max = LOAD_IN_FLIGHT_MAX,
     .help = "clients or agents (1)"},
    {.key = "rate",
     .type = CONFIG_DOUBLE,
     .offset = AT(rate),
     .min = 0.001,
     .max = 1e6,
     .help = "open: requests a second"},
    {.key = "requests",
     .type = CONFIG_INT,
     .offset = AT(requests),
     .min = 1,
     .max = 1e7,
     .help = "how many (32, where no duration is said)"},
    {.key = "duration_s",
     .type = CONFIG_DOUBLE,
     .offset = AT(duration_s),
     .min = 0.1,
     .max = 1e6,
     .help = "how long"},
    {.key = "warmup",
     .type = CONFIG_INT,
     .offset = AT(warmup),
     .min = 0,
     .max = 1e6,
     .help = "requests before, not counted"},
    {.key = "prompt_tokens",
     .type = CONFIG_INT,
     .offset = AT(prompt_tokens),
     .min = 1,
     .max = LOAD_TOKENS_MAX,
     .help = "length of the prompts (64)"},
    {.key = "max_tokens",
     .type = CONFIG_INT,
     .offset = AT(max_tokens),
     .min = 1,
     .max = LOAD_TOKENS_MAX,
     .help = "length of the answers (64)"},
    {.key = "think_s",
     .type = CONFIG_DOUBLE,
     .offset = AT(think_s),
     .min = 0,
     .max = 1e5,
     .help = "agents: mean time between turns"},
    {.key = "turns",
     .type = CONFIG_INT,
     .offset = AT(turns),
     .min = 1,
     .max = 1e5,
     .help = "agents: turns of a conversation (4)"},
    {.key = "timeout_s",
     .type = CONFIG_DOUBLE,
     .offset = AT(timeout_s),
     .min = 0.001,
     .max = 1e5,
     .help = "of a request (300)"},
    {.key = "whole", .type = CONFIG_BOOL, .offset = AT(whole), .help = "not streamed"},
    {.key = "ignore_eos",
     .type = CONFIG_BOOL,
     .offset = AT(ignore_end),
     .help = "answers of exactly max_tokens"},
    {.key = "slo", .type = CONFIG_STRING, .offset = AT(slo), .help = "as --slo, for goodput"},
    {.key = "want",
     .type = CONFIG_LIST,
     .offset = AT(want),
     .required = true,
     .help = "criteria: FIGURE <|<=|>|>= NUMBER"},
    {.key = NULL}};
static const struct config_field fields[] = {{.key = "tests",
                                              .type = CONFIG_LIST,
                                              .offset = offsetof(struct raw_criteria, tests),
                                              .required = true,
                                              .fields = test_fields,
                                              .item_size = sizeof(struct raw_test),
                                              .help = "one after the other"},
                                             {.key = NULL}};

/* ---- Texts */

static bool read_number(const char *text, const char **end, double *out)
{
    char *after;
    *out = strtod(text, &after);
    *end = after;
    return after != text && isfinite(*out) && *out >= 0;
}

/* "200ms", "2s", "1.5" (seconds) */
static bool read_seconds(const char *text, const char **end, double *out)
{
    if (!read_number(text, end, out))
        return false;
    if (strncmp(*end, "ms", 2) == 0) {
        *out *= 1e-3;
        *end += 2;
    } else if (**end == 's') {
        *end += 1;
    }
    return *out > 0;
}

enum ph_status load_slo_parse(const char *text, struct load_slo *out, struct ph_err *err)
{
    const struct {
        const char *name;
        double *value;
    } rows[] = {{"ttft=", &out->ttft_s}, {"tpot=", &out->tpot_s}, {"e2e=", &out->e2e_s}};
    *out = (struct load_slo){0};
    for (const char *at = text;;) {
        size_t i = 0;
        while (i < 3 && strncmp(at, rows[i].name, strlen(rows[i].name)) != 0)
            i++;
        if (i == 3 || !read_seconds(at + strlen(rows[i].name), &at, rows[i].value) || (*at && *at != ','))
            return ph_fail(err, PH_ERR_ARG,
                           "\"%s\" is no SLO: write ttft=200ms,tpot=50ms,e2e=10s, or some of them", text);
        if (!*at)
            return PH_OK;
        at++;
    }
}

/* "ttft_p50_ms < 100" */
static enum ph_status read_want(const char *text, struct load_want *out, struct ph_err *err)
{
    static const char *const signs[] = {
        [LOAD_BELOW] = "<", [LOAD_AT_MOST] = "<=", [LOAD_ABOVE] = ">", [LOAD_AT_LEAST] = ">="};
    size_t name_len = strcspn(text, " <>="), sign_len, how;
    const char *sign = text + name_len + strspn(text + name_len, " "), *end = sign;
    sign_len = strspn(sign, "<>=");
    *out = (struct load_want){.text = text, .metric = load_metric_find(text, name_len)};
    if (!out->metric)
        return ph_fail(err, PH_ERR_ARG,
                       "\"%.80s\": there is no figure \"%.*s\"; they are what --json prints as metrics, like "
                       "ttft_p95_ms or success_percent",
                       text, (int)(name_len < 40 ? name_len : 40), text);
    for (how = 0; how < 4; how++)
        if (strlen(signs[how]) == sign_len && strncmp(sign, signs[how], sign_len) == 0)
            break;
    bool has_number = how < 4 && read_number(sign + sign_len, &end, &out->limit);
    if (!has_number || end[strspn(end, " ")])
        return ph_fail(err, PH_ERR_ARG,
                       "\"%.80s\" is no criterion: write FIGURE < NUMBER, or <=, >, >=", text);
    out->how = (enum load_how)how;
    return PH_OK;
}

/* ---- Tests */

static enum ph_status read_wants(struct arena *arena, const struct raw_test *raw, struct load_test *out,
                                 struct ph_err *err)
{
    struct load_want *wants = arena_calloc(arena, raw->want.count, sizeof *wants);
    char *const *texts = raw->want.items;
    enum ph_status status = wants ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "out of memory");
    for (size_t i = 0; status == PH_OK && i < raw->want.count; i++)
        status = read_want(texts[i], &wants[i], err);
    out->wants = wants;
    out->want_count = raw->want.count;
    return status;
}

static enum ph_status read_test(struct arena *arena, const struct raw_test *raw, struct load_test *out,
                                struct ph_err *err)
{
    bool is_open = modes[raw->mode] == LOAD_OPEN;
    *out =
        (struct load_test){.name = raw->name,
                           .machine = raw->machine,
                           .prompt_tokens = raw->prompt_tokens ? (size_t)raw->prompt_tokens : DEFAULT_TOKENS};
    out->params =
        (struct load_params){.mode = modes[raw->mode],
                             .concurrency = raw->concurrency ? (size_t)raw->concurrency
                                            : is_open        ? LOAD_IN_FLIGHT_MAX
                                                             : 1,
                             .rate_per_s = raw->rate,
                             .requests = raw->requests         ? (size_t)raw->requests
                                         : raw->duration_s > 0 ? 0
                                                               : DEFAULT_REQUESTS,
                             .duration_s = raw->duration_s,
                             .warmup = (size_t)raw->warmup,
                             .think_s = raw->think_s,
                             .turns = raw->turns ? (size_t)raw->turns : 4,
                             .max_tokens = raw->max_tokens ? (size_t)raw->max_tokens : DEFAULT_TOKENS,
                             .timeout_s = raw->timeout_s,
                             .whole = raw->whole,
                             .ignore_end = raw->ignore_end,
                             .speed = 1};
    if (is_open && raw->rate <= 0)
        return ph_fail(err, PH_ERR_ARG, "an open loop needs its `rate`");
    if (!is_open && raw->rate > 0)
        return ph_fail(err, PH_ERR_ARG, "`rate` is for `mode: open`");
    if (!raw->want.count)
        return ph_fail(err, PH_ERR_ARG, "it wants nothing");
    enum ph_status status = raw->slo ? load_slo_parse(raw->slo, &out->slo, err) : PH_OK;
    return status == PH_OK ? read_wants(arena, raw, out, err) : status;
}

enum ph_status load_criteria_parse(struct arena *arena, const char *source, const char *text, size_t len,
                                   struct load_criteria *out, struct ph_err *err)
{
    struct raw_criteria raw = {{0}};
    struct ph_err why;
    *out = (struct load_criteria){0};
    enum ph_status status = config_parse(arena, source, text, len, fields, &raw, err);
    if (status != PH_OK)
        return status;
    if (!raw.tests.count || raw.tests.count > TESTS_MAX)
        return ph_fail(err, PH_ERR_ARG, "%s: it has %zu tests; 1 to %d are wanted", source, raw.tests.count,
                       TESTS_MAX);
    struct load_test *tests = arena_calloc(arena, raw.tests.count, sizeof *tests);
    const struct raw_test *items = raw.tests.items;
    if (!tests)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < raw.tests.count; i++) {
        status = read_test(arena, &items[i], &tests[i], &why);
        if (status != PH_OK)
            return ph_fail(err, status, "%s: test \"%.80s\": %s", source, items[i].name, why.message);
    }
    *out = (struct load_criteria){tests, raw.tests.count};
    return PH_OK;
}

enum ph_status load_criteria_read(struct arena *arena, const char *path, struct load_criteria *out,
                                  struct ph_err *err)
{
    struct buf text;
    buf_init(&text, CONFIG_BYTES_MAX);
    enum ph_status status = file_read(path, &text, err);
    if (status == PH_OK)
        status = load_criteria_parse(arena, path, text.data ? text.data : "", text.len, out, err);
    buf_release(&text);
    return status;
}

/* ---- Verdicts */

struct load_verdict load_judge(const char *test, const struct load_want *want,
                               const struct load_summary *summary)
{
    double value = load_metric_value(want->metric, summary);
    bool holds = want->how == LOAD_BELOW     ? value < want->limit
                 : want->how == LOAD_AT_MOST ? value <= want->limit
                 : want->how == LOAD_ABOVE   ? value > want->limit
                                             : value >= want->limit;
    return (struct load_verdict){.test = test, .want = want, .measured = value, .holds = holds};
}

void load_put_verdict(const struct load_verdict *verdict, struct buf *out)
{
    double limit = verdict->want->limit, by = fabs(verdict->measured - limit);
    bool is_upper = verdict->want->how == LOAD_BELOW || verdict->want->how == LOAD_AT_MOST;
    if (verdict->holds) {
        buf_puts(out, "holds");
        return;
    }
    if (!isfinite(verdict->measured)) {
        buf_puts(out, "FAILS: there was nothing to measure");
        return;
    }
    buf_printf(out, "FAILS by %.2f", by);
    if (limit > 0)
        buf_printf(out, " (%.0f %% too %s)", 100 * by / limit, is_upper ? "much" : "little");
}
