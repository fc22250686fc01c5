/* rates: requests and tokens in sliding minutes, and requests at the same time, for each key and provider.
 *
 * A limit holds for every 60 seconds, wherever they begin. A minute is kept in seconds, so what was taken
 * counts for 60 to 61 of them. Memory: one line for each name that was used within a minute, at most
 * RATES_NAMES_MAX; names are those of keys and of the configuration, never a stranger's.
 *
 * Thread: the loop's. */
#ifndef PHAROS_GATEWAY_RATES_H
#define PHAROS_GATEWAY_RATES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"

struct rates;
PH_MUST_USE enum ph_status rates_create(struct rates **out, const struct clock_source *clock);
void rates_free(struct rates *rates);

struct rate_limits {
    int64_t rpm, tpm, concurrency; /* 0: none */
};

/* What one request has taken. All 0: nothing, and giving it back does nothing. */
struct rate_take {
    void *line; /* whose */
    int64_t second;
    uint64_t tokens;
};

/* Takes one request of `tokens` for `who` (a key's account, or "provider:NAME"). Or says when to come again:
 * *retry_after_s is the least number of seconds after which it would be let in if nobody else came (a request
 * that runs may end at any time: 1), and *which is "requests", "tokens" or "concurrent requests". A request
 * of more tokens than a minute has is let in when the minute has none. Who cannot be
 * counted (no memory) is refused. */
bool rates_take(struct rates *rates, const char *who, const struct rate_limits *limits, uint64_t tokens,
                struct rate_take *take, uint32_t *retry_after_s, const char **which);
/* The request is over and used this many tokens: the second in which it was let in is put right, as far as it
 * still counts; what it used beyond that counts from now. Once for each take. */
void rates_give(struct rates *rates, struct rate_take *take, uint64_t tokens_used);
/* How much of the window is used, 0 to 1 (the fullest of the three); to fill a subscription first. */
double rates_used(const struct rates *rates, const char *who, const struct rate_limits *limits);

#endif
