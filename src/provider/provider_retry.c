/* When a provider says to come again. Providers say it in many ways:
 *
 *   retry-after-ms: 1500                            OpenAI
 *   retry-after: 20 | Fri, 31 Dec 1999 23:59:59 GMT RFC 9110, 10.2.3, all three forms of a date
 *   x-ratelimit-reset-tokens: 6m0.5s                OpenAI and its likes, with -remaining-tokens beside it
 *   x-ratelimit-reset: 1732190400 | 12              seconds since 1970 (or milliseconds), or from now
 *   anthropic-ratelimit-tokens-reset: 2026-...Z     RFC 3339, with -remaining beside it
 *
 * The first two are meant and win. The others are sent with every reply and say something about a 429 only.
 * Of them those count whose allowance is used up: the latest, since all must be over; when none says that it
 * is, the soonest. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "provider/provider_account_int.h"

#define EPOCH_S_MIN 1e9 /* a larger number counts from 1970 */
#define EPOCH_MS_MIN 1e12

static const char *find(const struct http_header *headers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(headers[i].name, name) == 0)
            return headers[i].value;
    return NULL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A decimal without sign or exponent. Answers where it ends; NULL: none begins here. */
static const char *read_decimal(const char *at, double *out)
{
    double value = 0, place = 1;
    if (!is_digit(*at))
        return NULL;
    for (; is_digit(*at); at++)
        value = value * 10 + (*at - '0');
    if (*at == '.')
        for (at++; is_digit(*at); at++)
            value += (*at - '0') * (place /= 10);
    *out = value;
    return at;
}

/* "1h6m0.5s", "250ms": as Go writes durations. */
static bool read_duration(const char *text, double *out_ms)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"ms", 1},  {"us", 1e-3}, {"ns", 1e-6},           {"h", 3.6e6},
                 {"m", 6e4}, {"s", 1e3},   {"d", CLOCK_MS_PER_DAY}};
    *out_ms = 0;
    while (*text) {
        double value;
        size_t unit = 0;
        text = read_decimal(text, &value);
        if (!text)
            return false;
        while (unit < sizeof units / sizeof units[0] &&
               strncmp(text, units[unit].name, strlen(units[unit].name)) != 0)
            unit++;
        if (unit == sizeof units / sizeof units[0])
            return false;
        text += strlen(units[unit].name);
        *out_ms += value * units[unit].ms;
    }
    return true;
}

/* ---- Dates */

struct date {
    int64_t year, month, day, hour, minute; /* month and day from 1 */
    double second, offset_minutes;
};

static double date_ms(const struct date *date)
{
    double minutes = (double)(date->hour * 60 + date->minute) - date->offset_minutes;
    struct clock_date day = {date->year, (int)date->month, (int)date->day};
    return (double)clock_day_of(day) * CLOCK_MS_PER_DAY + minutes * 6e4 + date->second * 1e3;
}

static bool date_is_sane(const struct date *date)
{
    return date->year >= 1970 && date->year < 10000 && date->month >= 1 && date->month <= 12 &&
           date->day >= 1 && date->day <= 31 && date->hour < 24 && date->minute < 60 && date->second <= 61;
}

/* Exactly `digits` of them, then `mark` (0: anything). */
static const char *read_field(const char *at, int digits, char mark, int64_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++, at++) {
        if (!is_digit(*at))
            return NULL;
        *out = *out * 10 + (*at - '0');
    }
    if (mark && *at != mark && !(mark == 'T' && (*at == 't' || *at == ' ')))
        return NULL;
    return mark ? at + 1 : at;
}

/* RFC 3339. */
static bool read_timestamp(const char *at, struct date *date)
{
    int64_t hours = 0, minutes = 0;
    if ((at = read_field(at, 4, '-', &date->year)) == NULL ||
        (at = read_field(at, 2, '-', &date->month)) == NULL ||
        (at = read_field(at, 2, 'T', &date->day)) == NULL ||
        (at = read_field(at, 2, ':', &date->hour)) == NULL ||
        (at = read_field(at, 2, ':', &date->minute)) == NULL ||
        (at = read_decimal(at, &date->second)) == NULL)
        return false;
    if (*at == '+' || *at == '-') {
        double sign = *at == '-' ? -1 : 1;
        if ((at = read_field(at + 1, 2, ':', &hours)) == NULL || !read_field(at, 2, 0, &minutes))
            return false;
        date->offset_minutes = sign * (double)(hours * 60 + minutes);
    }
    return date_is_sane(date);
}

static int64_t month_of(const char *name)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (int64_t i = 0; i < 12; i++)
        if (strncmp(months + 3 * i, name, 3) == 0)
            return i + 1;
    return 0;
}

static void take_number(struct date *date, int64_t number, size_t digits)
{
    if (digits <= 2 && date->day == 0)
        date->day = number;
    else
        date->year = digits > 2 ? number : number + (number < 70 ? 2000 : 1900);
}

/* The three forms of RFC 9110, 5.6.7, told apart by what their words look like. */
static bool read_http_date(const char *at, struct date *date)
{
    while (*at) {
        double value;
        const char *end = read_decimal(at, &value);
        if (end && *end == ':') {
            at = read_field(at, 2, ':', &date->hour);
            at = at ? read_field(at, 2, ':', &date->minute) : NULL;
            at = at ? read_decimal(at, &date->second) : NULL;
            if (!at)
                return false;
        } else if (end) {
            take_number(date, value < 1e5 ? (int64_t)value : 0, (size_t)(end - at));
            at = end;
        } else {
            int64_t month = month_of(at);
            size_t letters = strspn(at, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
            if (month && letters == 3 && date->month == 0)
                date->month = month;
            at += letters ? letters : 1;
        }
    }
    return date_is_sane(date);
}

/* ---- Headers */

/* Whatever form it has, in ms from now; negative: none that is known. */
static double read_when(const char *text, int64_t now_unix_ms)
{
    double value;
    const char *end = read_decimal(text, &value);
    if (end && *end == 0) {
        if (value >= EPOCH_MS_MIN)
            return value - (double)now_unix_ms;
        return value >= EPOCH_S_MIN ? value * 1e3 - (double)now_unix_ms : value * 1e3;
    }
    if (read_duration(text, &value))
        return value;
    struct date date = {0};
    if (read_timestamp(text, &date))
        return date_ms(&date) - (double)now_unix_ms;
    date = (struct date){0};
    if (read_http_date(text, &date))
        return date_ms(&date) - (double)now_unix_ms;
    return -1;
}

static uint64_t bounded_ms(double ms)
{
    if (!(ms > 0))
        return 0;
    return ms < ACCOUNT_HINT_MAX_S * 1e3 ? (uint64_t)ceil(ms) : (uint64_t)ACCOUNT_HINT_MAX_S * 1000;
}

static double reset_ms(const struct http_header *headers, size_t count, int64_t now_unix_ms)
{
    static const struct {
        const char *reset, *remaining;
    } limits[] = {
        {"x-ratelimit-reset-requests", "x-ratelimit-remaining-requests"},
        {"x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"},
        {"x-ratelimit-reset", "x-ratelimit-remaining"},
        {"anthropic-ratelimit-requests-reset", "anthropic-ratelimit-requests-remaining"},
        {"anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-tokens-remaining"},
        {"anthropic-ratelimit-input-tokens-reset", "anthropic-ratelimit-input-tokens-remaining"},
        {"anthropic-ratelimit-output-tokens-reset", "anthropic-ratelimit-output-tokens-remaining"},
    };
    double latest_used_up = 0, soonest = 0;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const char *reset = find(headers, count, limits[i].reset);
        const char *remaining = find(headers, count, limits[i].remaining);
        double ms = reset ? read_when(reset, now_unix_ms) : -1, left;
        if (!(ms > 0))
            continue;
        if (soonest == 0 || ms < soonest)
            soonest = ms;
        if (remaining && read_decimal(remaining, &left) && left == 0 && ms > latest_used_up)
            latest_used_up = ms;
    }
    return latest_used_up > 0 ? latest_used_up : soonest;
}

uint64_t retry_hint_ms(int http_status, const struct http_header *headers, size_t count, int64_t now_unix_ms)
{
    double ms;
    const char *text = find(headers, count, "retry-after-ms");
    if (text && read_decimal(text, &ms))
        return bounded_ms(ms);
    text = find(headers, count, "retry-after");
    if (text && (ms = read_when(text, now_unix_ms)) >= 0)
        return bounded_ms(ms);
    return http_status == 429 ? bounded_ms(reset_ms(headers, count, now_unix_ms)) : 0;
}
