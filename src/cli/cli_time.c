/* Durations and days as people write them: 90s, 30m, 24h, 30d, 2w; 2027-01-31. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "cli/cli_int.h"

#define DAY_S 86400
#define DURATION_MAX_S (INT64_C(100) * 366 * DAY_S)

static const struct {
    char name;
    int64_t seconds;
} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', DAY_S}, {'w', INT64_C(7) * DAY_S}};

static bool parse(const char *text, int64_t *seconds)
{
    char *end;
    errno = 0;
    long long count = strtoll(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || errno)
        return false;
    *seconds = 0;
    if (count == 0 && !*end)
        return true;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (end[0] == units[i].name && !end[1] && count <= DURATION_MAX_S / units[i].seconds) {
            *seconds = count * units[i].seconds;
            return true;
        }
    return false;
}

enum ph_status cli_duration_parse(const char *text, int64_t *seconds, struct ph_err *err)
{
    if (parse(text, seconds))
        return PH_OK;
    return ph_fail(err, PH_ERR_ARG, "\"%s\" is no time span; write 30m, 24h, 30d or 2w, up to 100 years",
                   text);
}

enum ph_status cli_until_parse(const char *text, int64_t now_unix_s, int64_t *unix_s, struct ph_err *err)
{
    int64_t days, seconds;
    if (clock_date_parse(text, &days))
        *unix_s = (days + 1) * DAY_S;
    else if (parse(text, &seconds))
        *unix_s = now_unix_s + seconds;
    else
        return ph_fail(
            err, PH_ERR_ARG,
            "\"%s\" is neither a time span nor a day; write 30d, or 2027-01-31 for the end of that "
            "day in UTC",
            text);
    return PH_OK;
}
