#include "base/clock.h"

#include <stdio.h>
#include <string.h>

#include <uv.h>

#define NS_PER_MS 1000000
#define DAYS_PER_ERA 146097 /* 400 Gregorian years */
#define DAYS_TO_1970 719468 /* from 0000-03-01 */

static uint64_t system_monotonic_ns(void *ud)
{
    (void)ud;
    return uv_hrtime();
}

static int64_t system_unix_ms(void *ud)
{
    (void)ud;
    uv_timeval64_t now;
    if (uv_gettimeofday(&now) != 0)
        return 0;
    return now.tv_sec * 1000 + now.tv_usec / 1000;
}

const struct clock_source *clock_system(void)
{
    static const struct clock_source source = {system_monotonic_ns, system_unix_ms, NULL};
    return &source;
}

uint64_t clock_monotonic_ns(const struct clock_source *clock)
{
    return clock->monotonic_ns(clock->ud);
}

int64_t clock_unix_ms(const struct clock_source *clock)
{
    return clock->unix_ms(clock->ud);
}

double clock_cpu_seconds(void)
{
    uv_rusage_t used;
    if (uv_getrusage(&used) != 0)
        return 0;
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static int64_t floor_div(int64_t value, int64_t by)
{
    return value / by - (value % by < 0);
}

int64_t clock_day(int64_t unix_ms)
{
    return floor_div(unix_ms, CLOCK_MS_PER_DAY);
}

/* Years begin in March here, so that the leap day is the last of its year and months have a linear rule:
 * (153 * month + 2) / 5 days lie before a month. */
struct clock_date clock_date(int64_t days)
{
    int64_t era = floor_div(days + DAYS_TO_1970, DAYS_PER_ERA);
    int64_t day_of_era = days + DAYS_TO_1970 - era * DAYS_PER_ERA;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / (DAYS_PER_ERA - 1)) / 365;
    int64_t day = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day + 2) / 153;
    day -= (153 * month + 2) / 5;
    month += month < 10 ? 3 : -9;
    return (struct clock_date){era * 400 + year_of_era + (month <= 2), (int)month, (int)day + 1};
}

int64_t clock_day_of(struct clock_date date)
{
    int64_t year = date.year - (date.month <= 2), month = date.month > 2 ? date.month - 3 : date.month + 9;
    int64_t era = floor_div(year, 400), year_of_era = year - era * 400;
    int64_t day_of_year = (153 * month + 2) / 5 + date.day - 1;
    return era * DAYS_PER_ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           DAYS_TO_1970;
}

void clock_format_utc(int64_t unix_ms, char out[CLOCK_UTC_TEXT_MAX])
{
    struct clock_date date = clock_date(clock_day(unix_ms));
    int64_t ms = unix_ms - clock_day(unix_ms) * CLOCK_MS_PER_DAY;
    snprintf(out, CLOCK_UTC_TEXT_MAX, "%04lld-%02hhu-%02hhuT%02hhu:%02hhu:%02hhu.%03huZ",
             (long long)date.year, (unsigned char)date.month, (unsigned char)date.day,
             (unsigned char)(ms / 3600000), (unsigned char)(ms / 60000 % 60), (unsigned char)(ms / 1000 % 60),
             (unsigned short)(ms % 1000));
}

static bool digits(const char *text, size_t count, int64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *out = *out * 10 + (text[i] - '0');
    }
    return true;
}

bool clock_date_parse(const char *text, int64_t *unix_days)
{
    int64_t year, month, day;
    if (strlen(text) != 10 || !digits(text, 4, &year) || text[4] != '-' || !digits(text + 5, 2, &month) ||
        text[7] != '-' || !digits(text + 8, 2, &day) || month < 1 || month > 12 || day < 1)
        return false;
    *unix_days = clock_day_of((struct clock_date){year, (int)month, (int)day});
    return clock_date(*unix_days).month == (int)month; /* else it lies beyond the month's end */
}

int entropy_fill(void *bytes, size_t len)
{
    return uv_random(NULL, NULL, bytes, len, 0, NULL) == 0 ? 0 : -1;
}
