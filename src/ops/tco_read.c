/* Reading what tco.c reckons with: the scenario, the prices, a log of power. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "ops/tco_int.h"

#define DAYS_MONTH (365.25 / 12)
#define CSV_BYTES_MAX ((size_t)64 << 20)
#define CSV_HEADER "time,part,sensor,celsius,watt,"

#define ROW(key_, type_, struct_, member_, help_) \
    .key = (key_), .type = (type_), .offset = offsetof(struct struct_, member_), .help = (help_)
#define MONEY .min = 0, .max = 1e12

static const char *const replaces_names[] = {"everything", "hardware", NULL};

static const struct config_field hardware_fields[] = {
    {ROW("name", CONFIG_STRING, tco_hardware, name, "what it is"), .required = true},
    {ROW("price_usd", CONFIG_DOUBLE, tco_hardware, price_usd, "what was paid, or what it would sell for"),
     .required = true, MONEY},
    {ROW("years", CONFIG_DOUBLE, tco_hardware, years, "how long it serves"), .required = true, .min = 0.05,
     .max = 50},
    {ROW("residual_usd", CONFIG_DOUBLE, tco_hardware, residual_usd, "what it sells for then (0)"), MONEY},
    {.key = NULL}};

static const struct config_field power_fields[] = {
    {ROW("load_w", CONFIG_DOUBLE, tco_power, load_w, "watts at the wall while it works"), MONEY},
    {ROW("load_hours_day", CONFIG_DOUBLE, tco_power, load_hours_day, "for so long"), .min = 0, .max = 24},
    {ROW("idle_w", CONFIG_DOUBLE, tco_power, idle_w, "watts while it waits"), MONEY},
    {ROW("idle_hours_day", CONFIG_DOUBLE, tco_power, idle_hours_day, "for so long"), .min = 0, .max = 24},
    {ROW("kwh_month", CONFIG_DOUBLE, tco_power, kwh_month, "as a meter has it"), MONEY},
    {ROW("csv", CONFIG_STRING, tco_power, csv, "what `pharos monitor thermal --csv` wrote")},
    {ROW("rest_w", CONFIG_DOUBLE, tco_power, rest_w, "watts beside what its sensors see"), MONEY},
    {ROW("usd_per_kwh", CONFIG_DOUBLE, tco_power, usd_per_kwh, "price"), MONEY},
    {.key = NULL}};

static const struct config_field subscription_fields[] = {
    {ROW("name", CONFIG_STRING, tco_subscription, name, "whose"), .required = true},
    {ROW("usd_month", CONFIG_DOUBLE, tco_subscription, usd_month, "a month"), .required = true, MONEY},
    {.key = NULL}};

static const struct config_field offer_fields[] = {
    {ROW("name", CONFIG_STRING, tco_offer, name, "one of the prices, or of your own"), .required = true},
    {ROW("usd_month", CONFIG_DOUBLE, tco_offer, usd_month, "by the month"), MONEY},
    {ROW("usd_hour", CONFIG_DOUBLE, tco_offer, usd_hour, "by the hour"), MONEY},
    {ROW("hours_month", CONFIG_DOUBLE, tco_offer, hours_month, "how many of them (all)"), .min = 0,
     .max = 1e6},
    {ROW("input_usd_per_mtok", CONFIG_DOUBLE, tco_offer, input_usd_per_mtok, "by the token"), MONEY},
    {ROW("output_usd_per_mtok", CONFIG_DOUBLE, tco_offer, output_usd_per_mtok, "by the token"), MONEY},
    {ROW("replaces", CONFIG_ENUM, tco_offer, replaces, "hardware: your accounts come on top (everything)"),
     .names = replaces_names},
    {ROW("date", CONFIG_STRING, tco_offer, date, "when that was its price")},
    {ROW("source", CONFIG_STRING, tco_offer, source, "who says so")},
    {.key = NULL}};

static const struct config_field scenario_fields[] = {
    {ROW("name", CONFIG_STRING, tco, name, "what this is about")},
    {ROW("days_month", CONFIG_DOUBLE, tco, days_month, "days of a month (30.4375)"), .min = 1, .max = 31},
    {ROW("hardware", CONFIG_LIST, tco, hardware, "what was bought"), .fields = hardware_fields,
     .item_size = sizeof(struct tco_hardware)},
    {.key = "power",
     .type = CONFIG_STRUCT,
     .offset = offsetof(struct tco, power),
     .fields = power_fields,
     .help = "electricity"},
    {ROW("subscriptions", CONFIG_LIST, tco, subscriptions, "paid by the month"),
     .fields = subscription_fields, .item_size = sizeof(struct tco_subscription)},
    {ROW("premium_usd_month", CONFIG_DOUBLE, tco, premium_usd_month, "accounts paid by use"), MONEY},
    {.key = "tokens",
     .type = CONFIG_STRUCT,
     .fields =
         (const struct config_field[]){
             {ROW("input_month", CONFIG_DOUBLE, tco, tokens.input_month, "read"), MONEY},
             {ROW("output_month", CONFIG_DOUBLE, tco, tokens.output_month, "written"), MONEY},
             {.key = NULL}},
     .help = "what is served"},
    {ROW("contexts_month", CONFIG_DOUBLE, tco, contexts_month, "contexts built"), MONEY},
    {ROW("compare", CONFIG_LIST, tco, compare, "with what"), .fields = offer_fields,
     .item_size = sizeof(struct tco_offer), .takes_scalar = true},
    {.key = NULL}};

struct price_list {
    struct config_list prices; /* struct tco_offer */
};
static const struct config_field price_fields[] = {
    {ROW("prices", CONFIG_LIST, price_list, prices, "what others charge"), .required = true,
     .fields = offer_fields, .item_size = sizeof(struct tco_offer)},
    {.key = NULL}};

enum ph_status tco_read(struct arena *arena, const char *path, struct tco *out, struct ph_err *err)
{
    *out = (struct tco){
        .days_month = DAYS_MONTH, .premium_usd_month = -1, .tokens = {-1, -1}, .contexts_month = -1};
    return config_read(arena, path, scenario_fields, out, err);
}

static bool has_price(const struct tco_offer *offer)
{
    return offer->usd_month > 0 || offer->usd_hour > 0 || offer->input_usd_per_mtok > 0 ||
           offer->output_usd_per_mtok > 0;
}

static enum ph_status fail_unknown(const struct price_list *list, const char *name, struct ph_err *err)
{
    char names[256] = "";
    const struct tco_offer *prices = list->prices.items;
    for (size_t i = 0, len = 0; i < list->prices.count && len < sizeof names; i++)
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : "", prices[i].name);
    return ph_fail(err, PH_ERR_NOTFOUND, "compare: \"%s\" has no price here, and is none of %s", name, names);
}

enum ph_status tco_price(struct arena *arena, const char *path, struct tco *tco, struct ph_err *err)
{
    struct price_list list = {.prices = {NULL, 0}};
    struct tco_text shipped = tco_prices();
    enum ph_status status =
        path ? config_read(arena, path, price_fields, &list, err)
             : config_parse(arena, "prices.yaml", shipped.text, shipped.len, price_fields, &list, err);
    struct tco_offer *offers = tco->compare.items;
    const struct tco_offer *prices = list.prices.items;
    for (size_t i = 0; i < tco->compare.count && status == PH_OK; i++) {
        size_t at = 0;
        if (has_price(&offers[i]))
            continue;
        while (at < list.prices.count && strcmp(prices[at].name, offers[i].name) != 0)
            at++;
        if (at == list.prices.count)
            return fail_unknown(&list, offers[i].name, err);
        double hours = offers[i].hours_month;
        offers[i] = prices[at];
        offers[i].hours_month = hours > 0 ? hours : prices[at].hours_month;
    }
    return status;
}

/* ---- A log of power */

/* The text of a line's field; NULL: the line has fewer. */
static const char *field_at(const char *line, size_t number)
{
    for (; line && number; number--) {
        line = strpbrk(line, ",\n");
        line = line && *line == ',' ? line + 1 : NULL;
    }
    return line;
}

/* Lines of one time are the sensors of one measurement: they add up. */
enum ph_status tco_watts_read(const char *path, struct tco_watts *out, struct ph_err *err)
{
    struct buf text;
    double sum = 0;
    const char *last = NULL;
    size_t last_len = 0;
    *out = (struct tco_watts){.count = 0};
    buf_init(&text, CSV_BYTES_MAX);
    enum ph_status status = file_read(path, &text, err);
    if (status == PH_OK)
        buf_putc(&text, 0);
    if (status == PH_OK &&
        (buf_status(&text) != PH_OK || strncmp(text.data, CSV_HEADER, sizeof CSV_HEADER - 1) != 0))
        status =
            ph_fail(err, PH_ERR_FORMAT, "%s:1: is no log of pharos monitor thermal --csv: it begins with %s",
                    path, CSV_HEADER "...");
    for (const char *line = status == PH_OK ? strchr(text.data, '\n') : NULL; line && line[1];
         line = strchr(line + 1, '\n')) {
        const char *watt = field_at(line + 1, 4);
        size_t len = strcspn(line + 1, ",\n");
        char *end;
        double value = watt ? strtod(watt, &end) : 0;
        if (!watt || end == watt || !(value >= 0 && value < 1e6))
            continue; /* this sensor tells none */
        sum += value;
        out->count += !last || len != last_len || memcmp(last, line + 1, len) != 0;
        last = line + 1;
        last_len = len;
    }
    buf_release(&text);
    out->mean = out->count ? sum / (double)out->count : 0;
    if (status == PH_OK && !out->count)
        return ph_fail(err, PH_ERR_FORMAT, "%s: no sensor in it tells watts; say load_w and idle_w", path);
    return status;
}
