/* Clock and random source as parameters, so that tests drive them. */
#ifndef PHAROS_BASE_CLOCK_H
#define PHAROS_BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct clock_source {
    uint64_t (*monotonic_ns)(void *ud); /* never goes back; for deadlines and durations */
    int64_t (*unix_ms)(void *ud);       /* wall clock */
    void *ud;
};

const struct clock_source *clock_system(void);
uint64_t clock_monotonic_ns(const struct clock_source *clock);
int64_t clock_unix_ms(const struct clock_source *clock);
double clock_cpu_seconds(void); /* that this process has used, all threads */

/* "2026-11-21T00:14:22.123Z" */
#define CLOCK_UTC_TEXT_MAX 64
void clock_format_utc(int64_t unix_ms, char out[CLOCK_UTC_TEXT_MAX]);

/* The proleptic Gregorian calendar: days since 1970-01-01 and dates; month 1 to 12, day 1 to 31. */
#define CLOCK_MS_PER_DAY 86400000
struct clock_date {
    int64_t year;
    int month, day;
};
int64_t clock_day(int64_t unix_ms); /* the day it lies in, UTC */
struct clock_date clock_date(int64_t day);
int64_t clock_day_of(struct clock_date date); /* days beyond the month's end count on */
/* "2026-11-21" to days since 1970; false: it is no day of the calendar. */
bool clock_date_parse(const char *text, int64_t *unix_days);

/* xoshiro256** 1.0 (Blackman and Vigna 2018), seeded through splitmix64. Not for secrets. Owner: the caller.
 */
struct rng {
    uint64_t state[4];
};

void rng_init(struct rng *rng, uint64_t seed);
uint64_t rng_u64(struct rng *rng);
float rng_float(struct rng *rng);   /* uniform in [0, 1), 24 bits */
double rng_double(struct rng *rng); /* uniform in [0, 1), 53 bits */
/* Fisher and Yates: every order as likely as any other. */
void rng_shuffle(struct rng *rng, uint64_t *items, size_t count);

/* Bytes fit for secrets, from the operating system. Returns 0, or -1 when it has none. */
int entropy_fill(void *bytes, size_t len);

#endif
