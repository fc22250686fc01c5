/* pharos cost tco: total cost of ownership. Reads the scenario and the ledger, prints what ops/tco.h makes of
 * them; knows no arithmetic of its own but how many days the ledger has. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/cli_int.h"
#include "gateway/ledger.h"
#include "ops/tco.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define OUTPUT_BYTES_MAX ((size_t)16 << 20)
#define LEDGERS_MAX 8

struct args {
    const char *scenario, *data, *prices;
    size_t days;
    bool example, json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("SCENARIO", "F", CLI_TEXT, struct args, scenario,
                "YAML: hardware, power, subscriptions, tokens, what to compare with")},
    {CLI_OPTION("--example", NULL, CLI_SWITCH, struct args, example, "print a scenario to begin with")},
    {CLI_OPTION("--data", "DIR", CLI_TEXT, struct args, data,
                "take tokens and premium costs that the scenario leaves out from the ledger there")},
    {CLI_OPTION("--days", "N", CLI_COUNT, struct args, days, "the last days of the ledger that count (30)"),
     .min = 1, .max = 366},
    {CLI_OPTION("--prices", "F", CLI_TEXT, struct args, prices, "what others charge, YAML (those shipped)")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    CLI_OPTIONS_END};
static const struct cli_usage usage = {
    "cost tco", "SCENARIO [--data DIR] [--prices F] | --example",
    "What the station costs a month in all, what a million tokens and contexts cost, and what others would\n"
    "charge for the same: every line with its arithmetic, and every assumption.",
    options};

/* ---- The ledger */

struct counting {
    struct tco_counted counted;
    int64_t first_day, last_day;
    __int128 pico;
};

static bool count_record(void *ud, const struct ledger_record *record)
{
    struct counting *c = ud;
    int64_t day = clock_day(record->unix_ms);
    c->first_day = c->first_day == 0 || day < c->first_day ? day : c->first_day;
    c->counted.input += (double)record->usage.prompt_tokens;
    c->counted.output += (double)record->usage.output_tokens;
    c->counted.requests += 1;
    c->pico += record->cost_pico;
    return true;
}

/* Of the days since the first record: a station that is a week old has no month to tell of. */
static enum ph_status count_ledger(const struct args *args, struct tco_counted *out, struct ph_err *err)
{
    char data[PATH_BYTES_MAX], dir[PATH_BYTES_MAX + 16];
    uint64_t damaged = 0;
    struct counting c = {.last_day = clock_day(clock_unix_ms(clock_system()))};
    enum ph_status status = cli_data_dir(args->data, data, err);
    for (int n = 1; n <= LEDGERS_MAX && status == PH_OK; n++) {
        snprintf(dir, sizeof dir, n > 1 ? "%s/ledger.%d" : "%s/ledger", data, n);
        if (file_exists(dir))
            status = ledger_read(dir, c.last_day - (int64_t)args->days + 1, c.last_day, count_record, &c,
                                 &damaged, err);
    }
    if (status == PH_OK && damaged)
        (void)cli_error(CLI_EXIT_OK, "%" PRIu64 " records of the ledger are damaged and do not count",
                        damaged);
    *out = c.counted;
    out->days = c.counted.requests > 0 ? (double)(c.last_day - c.first_day + 1) : 0;
    out->paid_usd = (double)c.pico / (double)LEDGER_PICO_PER_USD;
    return status;
}

/* ---- Printing */

static void print_line(struct buf *out, const struct tco_line *line)
{
    buf_printf(out, "  %-24s %12.2f   %s\n", line->what, line->usd_month, line->arithmetic);
}

static void print_compared(struct buf *out, const struct tco_report *r, const struct tco_compared *c)
{
    print_line(out, &c->offer);
    buf_printf(out, "  %-24s ", "");
    if (c->saved_usd >= 0)
        buf_printf(out, "you save %.2f (%.0f %%)", c->saved_usd, 100 * c->saved_share);
    else
        buf_printf(out, "it is cheaper by %.2f", -c->saved_usd);
    if (r->hardware_usd > 0 && c->payback_months < 0)
        buf_puts(out, "; the hardware never pays for itself");
    else if (r->hardware_usd > 0)
        buf_printf(out, "; the hardware pays for itself in %.1f months%s", c->payback_months,
                   c->payback_months > r->longest_months ? ", longer than it serves" : "");
    if (c->date || c->source)
        buf_printf(out, " (%s%s%s)", c->date ? c->date : "", c->date && c->source ? ", " : "",
                   c->source ? c->source : "");
    buf_putc(out, '\n');
}

static void print_text(struct buf *out, const struct tco *tco, const struct tco_report *r)
{
    buf_printf(out, "%s, USD a month\n", tco->name ? tco->name : "This station");
    for (size_t i = 0; i < r->line_count; i++)
        print_line(out, &r->lines[i]);
    buf_printf(out, "  %-24s %12.2f   the sum of these\n", "total", r->total_usd);
    buf_printf(out, "  %-24s %12.2f   without hardware\n", "running", r->running_usd);
    if (r->usd_per_mtok >= 0)
        buf_printf(out, "  %-24s %12.4f   %.2f USD / (%.6g M in + %.6g M out)\n", "a million tokens",
                   r->usd_per_mtok, r->total_usd, r->input / 1e6, r->output / 1e6);
    if (r->usd_per_mcontext >= 0)
        buf_printf(out, "  %-24s %12.2f   %.2f USD / %.6g M\n", "a million contexts", r->usd_per_mcontext,
                   r->total_usd, r->contexts / 1e6);
    if (r->compared_count)
        buf_puts(out, "\nThe same from others, USD a month\n");
    for (size_t i = 0; i < r->compared_count; i++)
        print_compared(out, r, &r->compared[i]);
    buf_puts(out, "\nAssumed\n");
    for (size_t i = 0; i < r->assumption_count; i++)
        buf_printf(out, "  - %s\n", r->assumptions[i]);
}

static void json_text_member(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "\"%s\":", name);
    if (text)
        json_write_string(out, text, strlen(text));
    else
        buf_puts(out, "null");
    buf_putc(out, ',');
}

static void json_line(struct buf *out, const struct tco_line *line)
{
    json_text_member(out, "name", line->what);
    json_text_member(out, "arithmetic", line->arithmetic);
    buf_printf(out, "\"usd_month\":%.12g", line->usd_month);
}

/* What there is none of is null. */
static void json_known(struct buf *out, const char *name, double value)
{
    value < 0 ? buf_printf(out, ",\"%s\":null", name) : buf_printf(out, ",\"%s\":%.12g", name, value);
}

static void print_json(struct buf *out, const struct tco *tco, const struct tco_report *r)
{
    buf_putc(out, '{');
    json_text_member(out, "name", tco->name);
    buf_puts(out, "\"lines\":[");
    for (size_t i = 0; i < r->line_count; i++) {
        buf_puts(out, i ? ",{" : "{");
        json_line(out, &r->lines[i]);
        buf_printf(out, ",\"hardware\":%s}", i < r->hardware_count ? "true" : "false");
    }
    buf_printf(out, "],\"total_usd_month\":%.12g,\"running_usd_month\":%.12g,\"hardware_usd\":%.12g",
               r->total_usd, r->running_usd, r->hardware_usd);
    buf_printf(out, ",\"input_tokens_month\":%.12g,\"output_tokens_month\":%.12g", r->input, r->output);
    json_known(out, "contexts_month", r->contexts);
    json_known(out, "usd_per_mtok", r->usd_per_mtok);
    json_known(out, "usd_per_mcontext", r->usd_per_mcontext);
    buf_puts(out, ",\"compared\":[");
    for (size_t i = 0; i < r->compared_count; i++) {
        const struct tco_compared *c = &r->compared[i];
        buf_puts(out, i ? ",{" : "{");
        json_text_member(out, "date", c->date);
        json_text_member(out, "source", c->source);
        json_line(out, &c->offer);
        buf_printf(out, ",\"saved_usd_month\":%.12g,\"saved_share\":%.12g", c->saved_usd, c->saved_share);
        json_known(out, "payback_months", c->payback_months);
        buf_putc(out, '}');
    }
    buf_puts(out, "],\"assumptions\":[");
    for (size_t i = 0; i < r->assumption_count; i++) {
        buf_puts(out, i ? "," : "");
        json_write_string(out, r->assumptions[i], strlen(r->assumptions[i]));
    }
    buf_puts(out, "]}\n");
}

/* ---- The command */

static enum ph_status reckon(struct arena *arena, const struct args *args, struct buf *out,
                             struct ph_err *err)
{
    struct tco tco;
    struct tco_report report;
    struct tco_counted counted = {.days = 0};
    enum ph_status status = tco_read(arena, args->scenario, &tco, err);
    if (status == PH_OK)
        status = tco_price(arena, args->prices, &tco, err);
    if (status == PH_OK)
        status = count_ledger(args, &counted, err);
    if (status == PH_OK)
        status = tco_compute(arena, &tco, &counted, &report, err);
    if (status == PH_OK)
        (args->json ? print_json : print_text)(out, &tco, &report);
    return status == PH_OK ? cli_flush(out, err) : status;
}

int cmd_cost_tco(int argc, char **argv)
{
    struct args args = {.days = 30};
    struct arena arena;
    struct buf out;
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    if (args.example) {
        struct tco_text example = tco_example();
        fwrite(example.text, 1, example.len, stdout);
        return CLI_EXIT_OK;
    }
    if (!args.scenario)
        return cli_error(CLI_EXIT_USAGE,
                         "cost tco: a scenario is missing; pharos cost tco --example > mine.yaml "
                         "prints one to begin with");
    arena_init(&arena, ARENA_BYTES_MAX);
    buf_init(&out, OUTPUT_BYTES_MAX);
    exit_code = reckon(&arena, &args, &out, &err) == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
    buf_release(&out);
    arena_release(&arena);
    return exit_code;
}
