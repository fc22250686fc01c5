/* The arithmetic of what a station costs. Each amount is made together with the text that says how, by one
 * call, so that neither can be without the other; totals add up the lines and nothing else. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "ops/tco_int.h"

#define HOURS_DAY 24.0
#define MONTHS_YEAR 12.0
#define TEXT_BYTES_MAX 512
#define ASSUMPTIONS_MAX 32
#define OTHER_LINES 2 /* electricity, premium accounts */

struct sum {
    struct arena *arena;
    const struct tco *tco;
    const struct tco_counted *counted;
    struct tco_report *report;
    double on_top_usd; /* subscriptions and premium accounts: hardware from elsewhere does not replace them */
    bool no_memory;
    struct ph_err *err;
};

/* ---- Texts */

static const char *say(struct sum *s, const char *fmt, va_list args)
{
    char text[TEXT_BYTES_MAX];
    vsnprintf(text, sizeof text, fmt, args);
    char *kept = arena_strdup(s->arena, text);
    s->no_memory |= !kept;
    return kept ? kept : "";
}

PH_PRINTF(2, 3) static void assume(struct sum *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    if (s->report->assumption_count < ASSUMPTIONS_MAX)
        s->report->assumptions[s->report->assumption_count++] = say(s, fmt, args);
    va_end(args);
}

PH_PRINTF(4, 5)
static struct tco_line line(struct sum *s, const char *what, double usd_month, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    struct tco_line made = {.what = what, .arithmetic = say(s, fmt, args), .usd_month = usd_month};
    va_end(args);
    return made;
}

static void add(struct sum *s, struct tco_line made)
{
    s->report->lines[s->report->line_count++] = made;
    s->report->total_usd += made.usd_month;
}

/* ---- Hardware */

static enum ph_status add_hardware(struct sum *s)
{
    const struct tco_hardware *items = s->tco->hardware.items;
    size_t worthless = 0;
    for (size_t i = 0; i < s->tco->hardware.count; i++) {
        const struct tco_hardware *item = &items[i];
        if (item->price_usd <= 0)
            return ph_fail(s->err, PH_ERR_ARG,
                           "hardware %s has no price_usd: what was bought is not free; say what was paid, or "
                           "what it would sell for today",
                           item->name);
        if (item->residual_usd > item->price_usd)
            return ph_fail(s->err, PH_ERR_ARG, "hardware %s sells for more than it cost", item->name);
        for (size_t j = 0; j < i; j++)
            if (strcmp(items[j].name, item->name) == 0)
                return ph_fail(s->err, PH_ERR_ARG, "hardware %s is there twice: say a count in its name",
                               item->name);
        double months = item->years * MONTHS_YEAR, lost = item->price_usd - item->residual_usd;
        add(s, item->residual_usd > 0
                   ? line(s, item->name, lost / months, "(%.10g - %.10g) USD / %.10g months", item->price_usd,
                          item->residual_usd, months)
                   : line(s, item->name, lost / months, "%.10g USD / %.10g months", item->price_usd, months));
        worthless += item->residual_usd <= 0;
        s->report->longest_months = fmax(s->report->longest_months, months);
        s->report->hardware_usd += item->price_usd;
    }
    if (worthless)
        assume(s, "hardware without a residual_usd (%zu of %zu) is worth nothing when its years are over",
               worthless, s->tco->hardware.count);
    else if (!s->tco->hardware.count)
        assume(s, "no hardware of your own is used: none is in the scenario");
    s->report->hardware_count = s->report->line_count;
    return PH_OK;
}

/* ---- Electricity */

static enum ph_status check_power(const struct sum *s)
{
    const struct tco_power *power = &s->tco->power;
    int ways = (power->load_w > 0 || power->idle_w > 0) + (power->kwh_month > 0) + (power->csv != NULL);
    if (ways != 1)
        return ph_fail(s->err, PH_ERR_ARG,
                       "power: say it in one way: load_w and idle_w with hours, kwh_month, or csv (%s)",
                       ways ? "now there are several" : "nothing runs without it");
    if (power->load_hours_day + power->idle_hours_day > HOURS_DAY)
        return ph_fail(s->err, PH_ERR_ARG, "power: a day has %.10g hours, not %.10g", HOURS_DAY,
                       power->load_hours_day + power->idle_hours_day);
    return power->usd_per_kwh > 0 ? PH_OK
                                  : ph_fail(s->err, PH_ERR_ARG,
                                            "power: usd_per_kwh is missing: what is paid "
                                            "for a kilowatt-hour");
}

static enum ph_status add_measured(struct sum *s)
{
    const struct tco_power *power = &s->tco->power;
    struct tco_watts watts;
    enum ph_status status = tco_watts_read(power->csv, &watts, s->err);
    if (status != PH_OK)
        return status;
    double kwh = (watts.mean + power->rest_w) * HOURS_DAY * s->tco->days_month / 1000;
    add(s, line(s, "electricity", kwh * power->usd_per_kwh,
                "(%.4g W measured + %.10g W) x 24 h x %.10g days / 1000 x %.10g USD/kWh", watts.mean,
                power->rest_w, s->tco->days_month, power->usd_per_kwh));
    assume(s, "the mean of %zu measurements in %s holds day and night", watts.count, power->csv);
    if (power->rest_w <= 0)
        assume(s, "what the sensors cannot see (board, disks, fans, the power supply's loss) takes nothing");
    return PH_OK;
}

static enum ph_status add_power(struct sum *s)
{
    const struct tco_power *power = &s->tco->power;
    enum ph_status status = check_power(s);
    if (status != PH_OK || power->csv)
        return status == PH_OK ? add_measured(s) : status;
    if (power->kwh_month > 0) {
        add(s, line(s, "electricity", power->kwh_month * power->usd_per_kwh, "%.10g kWh x %.10g USD/kWh",
                    power->kwh_month, power->usd_per_kwh));
        return PH_OK;
    }
    double wh_day = power->load_w * power->load_hours_day + power->idle_w * power->idle_hours_day;
    add(s, line(s, "electricity", wh_day * s->tco->days_month / 1000 * power->usd_per_kwh,
                "(%.10g W x %.10g h + %.10g W x %.10g h) x %.10g days / 1000 x %.10g USD/kWh", power->load_w,
                power->load_hours_day, power->idle_w, power->idle_hours_day, s->tco->days_month,
                power->usd_per_kwh));
    double off = HOURS_DAY - power->load_hours_day - power->idle_hours_day;
    if (off > 0)
        assume(s, "%.10g hours a day it is switched off", off);
    return PH_OK;
}

/* ---- Accounts */

static double to_month(const struct sum *s, double counted)
{
    return counted / s->counted->days * s->tco->days_month;
}

static void add_accounts(struct sum *s)
{
    const struct tco_subscription *items = s->tco->subscriptions.items;
    size_t before = s->report->line_count;
    for (size_t i = 0; i < s->tco->subscriptions.count; i++)
        add(s, line(s, items[i].name, items[i].usd_month, "%.10g USD a month", items[i].usd_month));
    if (s->tco->premium_usd_month >= 0)
        add(s, line(s, "premium accounts", s->tco->premium_usd_month, "%.10g USD a month, as stated",
                    s->tco->premium_usd_month));
    else if (s->counted)
        add(s, line(s, "premium accounts", to_month(s, s->counted->paid_usd),
                    "%.6g USD in %.4g days of the ledger x %.10g days", s->counted->paid_usd,
                    s->counted->days, s->tco->days_month));
    else
        assume(s, "no premium account is paid for: none was stated, and there is no ledger");
    for (size_t i = before; i < s->report->line_count; i++)
        s->on_top_usd += s->report->lines[i].usd_month;
}

/* ---- What was served */

static enum ph_status take_tokens(struct sum *s)
{
    struct tco_report *r = s->report;
    bool said = s->tco->tokens.input_month >= 0 && s->tco->tokens.output_month >= 0;
    if (!said && !s->counted)
        return ph_fail(
            s->err, PH_ERR_ARG,
            "how many tokens are served? Say tokens: {input_month: N, output_month: N}, or name the "
            "data of a station that has a ledger (--data)");
    r->input = said ? s->tco->tokens.input_month : to_month(s, s->counted->input);
    r->output = said ? s->tco->tokens.output_month : to_month(s, s->counted->output);
    r->contexts = s->tco->contexts_month;
    if (said)
        assume(s, "%.10g tokens in and %.10g out a month are served, as stated", r->input, r->output);
    else
        assume(s, "every month is as the %.4g days of the ledger", s->counted->days);
    if (r->contexts < 0 && s->counted) {
        r->contexts = to_month(s, s->counted->requests);
        assume(s, "every request of the ledger had a context built for it");
    }
    double tokens = r->input + r->output;
    r->usd_per_mtok = tokens > 0 ? r->total_usd / tokens * 1e6 : -1;
    r->usd_per_mcontext = r->contexts > 0 ? r->total_usd / r->contexts * 1e6 : -1;
    return PH_OK;
}

/* ---- Offers */

static struct tco_line price_offer(struct sum *s, const struct tco_offer *offer)
{
    const struct tco_report *r = s->report;
    double top = offer->replaces == TCO_HARDWARE ? s->on_top_usd : 0;
    char more[64] = "";
    if (top > 0)
        snprintf(more, sizeof more, " + %.2f USD of accounts", top);
    if (offer->usd_month > 0)
        return line(s, offer->name, offer->usd_month + top, "%.10g USD a month%s", offer->usd_month, more);
    if (offer->usd_hour > 0) {
        double hours = offer->hours_month > 0 ? offer->hours_month : HOURS_DAY * s->tco->days_month;
        if (offer->hours_month <= 0)
            assume(s, "%s is rented day and night (hours_month: says otherwise)", offer->name);
        else if (hours > HOURS_DAY * s->tco->days_month)
            assume(s, "%s: %.10g hours are more than a month has, so several are rented", offer->name, hours);
        return line(s, offer->name, offer->usd_hour * hours + top, "%.10g USD/h x %.10g h%s", offer->usd_hour,
                    hours, more);
    }
    return line(s, offer->name,
                (r->input * offer->input_usd_per_mtok + r->output * offer->output_usd_per_mtok) / 1e6 + top,
                "%.10g M in x %.10g USD + %.10g M out x %.10g USD%s", r->input / 1e6,
                offer->input_usd_per_mtok, r->output / 1e6, offer->output_usd_per_mtok, more);
}

static void compare(struct sum *s)
{
    const struct tco_offer *offers = s->tco->compare.items;
    struct tco_report *r = s->report;
    for (size_t i = 0; i < s->tco->compare.count; i++) {
        struct tco_compared *c = &r->compared[r->compared_count++];
        *c = (struct tco_compared){.offer = price_offer(s, &offers[i]),
                                   .date = offers[i].date,
                                   .source = offers[i].source,
                                   .payback_months = -1};
        c->saved_usd = c->offer.usd_month - r->total_usd;
        c->saved_share = c->offer.usd_month > 0 ? c->saved_usd / c->offer.usd_month : 0;
        double saved_running = c->offer.usd_month - r->running_usd;
        if (saved_running > 0)
            c->payback_months = r->hardware_usd / saved_running;
        if (!offers[i].date)
            assume(s, "the price of %s is today's: it has no date", offers[i].name);
    }
    if (r->compared_count)
        assume(s, "what is compared answers as well as what runs here: a price says nothing about that");
}

enum ph_status tco_compute(struct arena *arena, const struct tco *tco, const struct tco_counted *counted,
                           struct tco_report *out, struct ph_err *err)
{
    *out = (struct tco_report){.input = 0};
    struct sum s = {.arena = arena, .tco = tco, .counted = counted, .report = out, .err = err};
    out->lines =
        arena_calloc(arena, tco->hardware.count + tco->subscriptions.count + OTHER_LINES, sizeof *out->lines);
    out->compared = arena_calloc(arena, tco->compare.count + 1, sizeof *out->compared);
    out->assumptions = arena_calloc(arena, ASSUMPTIONS_MAX, sizeof *out->assumptions);
    if (!out->lines || !out->compared || !out->assumptions)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    if (counted && counted->days <= 0)
        s.counted = NULL;
    enum ph_status status = add_hardware(&s);
    if (status == PH_OK)
        status = add_power(&s);
    if (status != PH_OK)
        return status;
    add_accounts(&s);
    for (size_t i = out->hardware_count; i < out->line_count; i++)
        out->running_usd += out->lines[i].usd_month;
    status = take_tokens(&s);
    if (status == PH_OK)
        compare(&s);
    assume(&s, "nobody's time is paid: not for setting it up, not for looking after it");
    if (status == PH_OK && s.no_memory)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    return status;
}
