/* What a station costs a month, beside what others would charge for the same tokens.
 *
 * Every amount is a line with its arithmetic, and every total the sum of its lines. What was bought is never
 * free: hardware without a price is an error. Whatever was not said by the reader of the result, but taken as
 * given, is listed as an assumption. Money is in US dollars. Thread: any. */
#ifndef PHAROS_OPS_TCO_H
#define PHAROS_OPS_TCO_H

#include "base/arena.h"
#include "base/config.h"
#include "base/status.h"

struct tco_hardware {
    char *name;
    double price_usd, years, residual_usd; /* residual: what it sells for in the end */
};

struct tco_power { /* one of: load and idle, kwh_month, csv */
    double load_w, load_hours_day, idle_w, idle_hours_day;
    double kwh_month;
    char *csv;     /* as `pharos monitor thermal` writes it */
    double rest_w; /* beside what its sensors see */
    double usd_per_kwh;
};

struct tco_subscription {
    char *name;
    double usd_month;
};

enum tco_replaces { TCO_EVERYTHING, TCO_HARDWARE };

struct tco_offer { /* by the month, the hour or the token */
    char *name;
    double usd_month, usd_hour, hours_month;
    double input_usd_per_mtok, output_usd_per_mtok;
    int replaces; /* TCO_HARDWARE: subscriptions and premium accounts come on top */
    char *date, *source;
};

struct tco {
    char *name;
    double days_month;
    struct config_list hardware; /* struct tco_hardware */
    struct tco_power power;
    struct config_list subscriptions; /* struct tco_subscription */
    double premium_usd_month;         /* negative: not said */
    struct {
        double input_month, output_month; /* negative: not said */
    } tokens;
    double contexts_month;      /* negative: not said */
    struct config_list compare; /* struct tco_offer */
};

/* What a ledger has counted, over so many days. */
struct tco_counted {
    double days, input, output, requests, paid_usd;
};

struct tco_line {
    const char *what, *arithmetic;
    double usd_month;
};

struct tco_compared {
    struct tco_line offer; /* with what comes on top */
    const char *date, *source;
    double saved_usd, saved_share; /* of the offer; negative: the offer is cheaper */
    double payback_months;         /* negative: never */
};

struct tco_report {
    struct tco_line *lines;
    size_t line_count, hardware_count;     /* the first ones are hardware */
    double total_usd, running_usd;         /* running: without hardware */
    double hardware_usd, longest_months;   /* what was paid for it; how long the last of it serves */
    double input, output, contexts;        /* a month */
    double usd_per_mtok, usd_per_mcontext; /* negative: nothing was served */
    struct tco_compared *compared;
    size_t compared_count;
    const char **assumptions;
    size_t assumption_count;
};

/* Reads a scenario; the error names file, line and key. */
PH_MUST_USE enum ph_status tco_read(struct arena *arena, const char *path, struct tco *out,
                                    struct ph_err *err);
/* Adds the prices of a file, NULL: of those that come along, to the offers that only have a name.
 * PH_ERR_NOTFOUND: one is not there; the message lists what is. */
PH_MUST_USE enum ph_status tco_price(struct arena *arena, const char *path, struct tco *tco,
                                     struct ph_err *err);
/* `counted` NULL: there is no ledger. PH_ERR_ARG: something that can't be done without is missing, or is said
 * twice. */
PH_MUST_USE enum ph_status tco_compute(struct arena *arena, const struct tco *tco,
                                       const struct tco_counted *counted, struct tco_report *out,
                                       struct ph_err *err);

/* A scenario to begin with, and the shipped prices, as they lie in the source. */
struct tco_text {
    const char *text;
    size_t len;
};
struct tco_text tco_example(void);
struct tco_text tco_prices(void);

#endif
