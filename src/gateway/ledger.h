/* ledger: what every request may cost before it starts, and what it did cost after, whatever ends it.
 *
 * Money is counted in picodollars (1e-12 USD), so that a token of 0.0375 USD a million is a whole number.
 *
 * A hold is a reservation: the prompt at its price, and as many tokens of output as were asked for and can be
 * paid from every budget that applies (the station's, the tier's, the provider's, the key's; calendar months,
 * UTC). Holds live in a mapped file, counted up in place as tokens come, so that a killed station has lost
 * nothing that it had counted: the next one settles what it finds there. Settled holds go to a journal of
 * fixed records with checksums, one file a day, in batches. The rules are in the README.
 *
 * A request belongs to the day and month in which it was reserved, however long it runs.
 *
 * Names and request ids are kept to the lengths of ledger_record; of a longer one the beginning and a
 * checksum.
 *
 * Thread: the loop's; ledger_read and the report: any. */
#ifndef PHAROS_GATEWAY_LEDGER_H
#define PHAROS_GATEWAY_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"

#define LEDGER_PICO_PER_USD INT64_C(1000000000000)

/* Whole picodollars, and back. Negative USD, where they say "no limit", is -1. */
int64_t ledger_pico(double usd);
double ledger_usd(int64_t pico);

enum ledger_tier { LEDGER_LOCAL, LEDGER_SUBSCRIPTION, LEDGER_PREMIUM, LEDGER_TIER_COUNT };
const char *ledger_tier_name(enum ledger_tier tier); /* "local", ... */

/* Picodollars a token. What a flat subscription or this machine answers has price 0. */
struct ledger_price {
    int64_t input, cached_input, cache_write, output;
};

enum ledger_scope { LEDGER_STATION, LEDGER_BY_TIER, LEDGER_BY_PROVIDER, LEDGER_BY_KEY, LEDGER_SCOPE_COUNT };

struct ledger;

struct ledger_params {
    const char *dir; /* made if absent, 0700 */
    const struct clock_source *clock;
};
/* Reads this month's journal, settles what a killed station left behind (counted in `recovered`, may be
 * NULL). PH_ERR_BUSY: another station uses this directory; the message names its process. */
PH_MUST_USE enum ph_status ledger_open(struct ledger **out, const struct ledger_params *params,
                                       size_t *recovered, struct ph_err *err);
void ledger_close(
    struct ledger *ledger); /* writes everything; holds left open count as aborted; NULL: fine */

/* Once a second, from a timer: writes what was settled and has it brought to the disk by a thread of its own.
 * (A full batch is written without waiting for it.) */
void ledger_tick(struct ledger *ledger);
/* NULL: all is well. Else what keeps the journal from being written, for a person: budgets are held on, the
 * records wait in the mapped file and are tried again with each tick. Valid until the next tick. */
const char *ledger_problem(const struct ledger *ledger);

/* A month's limit; 0: nothing may be spent; negative: no limit. `name`: of tier, provider or key; "" for the
 * station. May be called again at any time. */
PH_MUST_USE enum ph_status ledger_set_budget(struct ledger *ledger, enum ledger_scope scope, const char *name,
                                             int64_t pico_month);

struct ledger_ask {
    const char *request_id; /* of the client's request; several attempts share it */
    const char *key_id;     /* "": nobody's */
    const char *model, *provider;
    enum ledger_tier tier;
    struct ledger_price price;
    struct ledger_price
        premium;            /* what premium would have cost for the same, for the report; zeros: unknown */
    uint64_t prompt_tokens; /* leaning upwards when estimated */
    uint64_t output_tokens_max;
    uint64_t output_tokens_bound; /* as far as a running hold may grow beyond it; less: not at all */
};

struct ledger_hold;

/* Which budget said no, and when it begins anew. */
struct ledger_refusal {
    enum ledger_scope scope;
    char name[64];
    int64_t limit_pico, spent_pico, held_pico;
    int64_t renews_unix_s;
};

/* PH_ERR_LIMIT: a budget does not even pay for the prompt and one token; `refusal` says which. What costs
 * nothing is never refused. PH_ERR_BUSY: more holds than LEDGER_HOLDS_MAX, or as many records as there is
 * room for wait for the disk. Only stores, but for the first one of a month, which looks for its journal: any
 * other status is that this could not be read. */
PH_MUST_USE enum ph_status ledger_reserve(struct ledger *ledger, const struct ledger_ask *ask,
                                          struct ledger_hold **out, struct ledger_refusal *refusal);
/* How much output the hold pays for: at first at most what was asked, and what the provider should be told as
 * the most to answer. Becomes less or more while the stream runs. */
uint64_t ledger_hold_output_max(const struct ledger_hold *hold);
/* The output so far, as counted from the stream; costs a store. May be put right downwards. A hold that is
 * used up grows, within output_tokens_bound and while every budget has room, for the count may be an
 * estimate that is too high. false: it cannot grow, stop here. That is the first token beyond what was
 * granted at first (a provider that obeys never gets there); where it has grown, or a budget has become
 * tighter since (a prompt was longer than thought, a limit was lowered), the last one that it pays for;
 * where deltas hold many tokens the last before one as large as this would pass that. */
bool ledger_count(struct ledger_hold *hold, uint64_t output_tokens);
/* The provider has said how long the prompt really is (Anthropic does, at once): the hold follows. */
bool ledger_count_prompt(struct ledger_hold *hold, uint64_t prompt_tokens, uint64_t cached_tokens,
                         uint64_t cache_write_tokens);

enum ledger_outcome {
    LEDGER_WHOLE,
    LEDGER_ABORTED, /* by the client */
    LEDGER_CUT,     /* by the budget */
    LEDGER_FAILED,  /* by the provider: what came is what counts; nothing came: nothing */
    LEDGER_CRASHED, /* the station was killed */
    LEDGER_UNUSED,  /* nothing was sent: costs nothing, leaves no record */
    LEDGER_OUTCOME_COUNT
};

/* prompt_tokens are all of them, the cached and the newly cached ones too. */
struct ledger_usage {
    uint64_t prompt_tokens, cached_tokens, cache_write_tokens, output_tokens;
    bool estimated; /* counted here, not said by the provider */
};
/* What it costs at this price, picodollars; too large a sum is INT64_MAX. */
int64_t ledger_cost(const struct ledger_price *price, const struct ledger_usage *usage);
/* Ends the hold, which is gone. `usage` NULL: what was counted. */
void ledger_settle(struct ledger *ledger, struct ledger_hold *hold, const struct ledger_usage *usage,
                   enum ledger_outcome outcome);

/* This month so far. limit < 0: none. Beyond what 64 bits hold: the largest value. */
struct ledger_sum {
    int64_t limit_pico, spent_pico, held_pico;
};
struct ledger_sum ledger_sum(const struct ledger *ledger, enum ledger_scope scope, const char *name);

/* ---- Reading what was written, also while a station runs ---- */

struct ledger_record {
    int64_t unix_ms;   /* when it was reserved */
    uint64_t sequence; /* no two records have the same */
    const char *request_id, *key_id, *model, *provider;
    enum ledger_tier tier;
    enum ledger_outcome outcome;
    struct ledger_usage usage;
    int64_t cost_pico, premium_pico; /* premium 0: unknown, or nothing */
};
/* Calls fn for every record from day to day (Unix days, both included), in order of the journal. A torn or
 * damaged record is skipped and counted. fn answers false to stop. */
PH_MUST_USE enum ph_status ledger_read(const char *dir, int64_t day_from, int64_t day_to,
                                       bool (*fn)(void *ud, const struct ledger_record *record), void *ud,
                                       uint64_t *damaged, struct ph_err *err);

#endif
