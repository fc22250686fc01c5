/* Records of the ledger: 256 bytes, one request's attempt each.
 *
 * A record stands for itself: the names are in it, not numbers that another record explains, so that a
 * damaged one costs itself and nothing else, a reader needs no state, and recovery after a crash can write
 * any record to any day. That costs bytes (a million requests: 256 MB), which are cheap beside the prompts
 * that were paid for; numbered names would halve them. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "gateway/ledger_int.h"

#define FNV_OFFSET 2166136261u
#define FNV_PRIME 16777619u
#define FIT_TAIL_BYTES 9 /* '~' and 8 hexadecimal digits */
#define FLAG_ESTIMATED 1u

/* ---- Little-endian numbers */

static uint64_t get64(const uint8_t *at)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void put64(uint8_t *at, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static void put32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

uint64_t record_get(const uint8_t *record, enum record_field field)
{
    return get64(record + field);
}

int64_t record_time(const uint8_t *record)
{
    return (int64_t)record_get(record, RECORD_TIME);
}

int64_t record_day(const uint8_t *record)
{
    return clock_day(record_time(record));
}

/* ---- Texts */

void record_fit(const char *text, uint8_t *field, size_t size)
{
    size_t len = strnlen(text, size);
    if (len < size) {
        memcpy(field, text, len);
        memset(field + len, 0, size - len);
        return;
    }
    uint32_t sum = FNV_OFFSET;
    for (const char *at = text; *at; at++)
        sum = (sum ^ (uint8_t)*at) * FNV_PRIME;
    char tail[FIT_TAIL_BYTES + 1];
    snprintf(tail, sizeof tail, "~%08x", (unsigned)sum);
    len = size - 1 - FIT_TAIL_BYTES;
    len -= utf8_incomplete_tail(text, len);
    memset(field, 0, size);
    memcpy(field, text, len);
    memcpy(field + len, tail, FIT_TAIL_BYTES);
}

void record_fit_name(enum ledger_scope scope, const char *name, char out[RECORD_NAME_BYTES_MAX])
{
    size_t size = scope == LEDGER_BY_KEY ? RECORD_PROVIDER - RECORD_KEY : RECORD_MODEL - RECORD_PROVIDER;
    record_fit(name, (uint8_t *)out, size);
}

/* ---- Whole records */

void record_begin(uint8_t record[RECORD_BYTES], const struct ledger_ask *ask, uint64_t sequence,
                  int64_t unix_ms)
{
    put64(record + RECORD_SEQUENCE, sequence);
    put64(record + RECORD_TIME, (uint64_t)unix_ms);
    record[RECORD_TIER] = (uint8_t)ask->tier;
    record_fit(ask->key_id, record + RECORD_KEY, RECORD_PROVIDER - RECORD_KEY);
    record_fit(ask->provider, record + RECORD_PROVIDER, RECORD_MODEL - RECORD_PROVIDER);
    record_fit(ask->model, record + RECORD_MODEL, RECORD_REQUEST - RECORD_MODEL);
    record_fit(ask->request_id, record + RECORD_REQUEST, RECORD_BYTES - RECORD_REQUEST);
}

void record_end(const struct crc32c *crc, uint8_t record[RECORD_BYTES], const struct ledger_ending *ending)
{
    const struct ledger_usage *usage = &ending->usage;
    record[RECORD_VERSION] = LEDGER_FORMAT_VERSION;
    record[RECORD_OUTCOME] = (uint8_t)ending->outcome;
    record[RECORD_FLAGS] = usage->estimated ? FLAG_ESTIMATED : 0;
    record[RECORD_FLAGS + 1] = 0;
    put64(record + RECORD_PROMPT, usage->prompt_tokens);
    put64(record + RECORD_CACHED, usage->cached_tokens);
    put64(record + RECORD_CACHE_WRITE, usage->cache_write_tokens);
    put64(record + RECORD_OUTPUT, usage->output_tokens);
    put64(record + RECORD_COST, (uint64_t)ending->cost_pico);
    put64(record + RECORD_PREMIUM, (uint64_t)ending->premium_pico);
    put32(record + RECORD_CRC,
          crc32c(crc, record + RECORD_VERSION, (size_t)RECORD_BYTES - (size_t)RECORD_VERSION));
}

bool record_read(const struct crc32c *crc, const uint8_t record[RECORD_BYTES], struct ledger_record *out)
{
    uint32_t sum = crc32c(crc, record + RECORD_VERSION, (size_t)RECORD_BYTES - (size_t)RECORD_VERSION);
    if ((uint32_t)get64(record + RECORD_CRC) != sum || record[RECORD_VERSION] != LEDGER_FORMAT_VERSION ||
        record[RECORD_OUTCOME] >= LEDGER_OUTCOME_COUNT || record[RECORD_TIER] >= LEDGER_TIER_COUNT)
        return false;
    if (record[RECORD_PROVIDER - 1] || record[RECORD_MODEL - 1] || record[RECORD_REQUEST - 1] ||
        record[RECORD_BYTES - 1])
        return false;
    *out = (struct ledger_record){
        .unix_ms = record_time(record),
        .sequence = record_get(record, RECORD_SEQUENCE),
        .request_id = (const char *)record + RECORD_REQUEST,
        .key_id = (const char *)record + RECORD_KEY,
        .model = (const char *)record + RECORD_MODEL,
        .provider = (const char *)record + RECORD_PROVIDER,
        .tier = (enum ledger_tier)record[RECORD_TIER],
        .outcome = (enum ledger_outcome)record[RECORD_OUTCOME],
        .usage = {.prompt_tokens = record_get(record, RECORD_PROMPT),
                  .cached_tokens = record_get(record, RECORD_CACHED),
                  .cache_write_tokens = record_get(record, RECORD_CACHE_WRITE),
                  .output_tokens = record_get(record, RECORD_OUTPUT),
                  .estimated = (record[RECORD_FLAGS] & FLAG_ESTIMATED) != 0},
        .cost_pico = (int64_t)record_get(record, RECORD_COST),
        .premium_pico = (int64_t)record_get(record, RECORD_PREMIUM),
    };
    return true;
}

/* ---- Money */

/* A prompt that is said to be shorter than its cached parts is as long as those. */
int64_t ledger_pico(double usd)
{
    return usd < 0 ? -1 : (int64_t)(usd * (double)LEDGER_PICO_PER_USD);
}

double ledger_usd(int64_t pico)
{
    return (double)pico / (double)LEDGER_PICO_PER_USD;
}

int64_t ledger_cost(const struct ledger_price *price, const struct ledger_usage *usage)
{
    __int128 cached = (__int128)usage->cached_tokens + usage->cache_write_tokens;
    __int128 fresh = usage->prompt_tokens > cached ? usage->prompt_tokens - cached : 0;
    const struct part {
        __int128 tokens;
        int64_t price;
    } parts[] = {{fresh, price->input},
                 {usage->cached_tokens, price->cached_input},
                 {usage->cache_write_tokens, price->cache_write},
                 {usage->output_tokens, price->output}};
    __int128 sum = 0; /* each product is below 2^127 / 4 */
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (parts[i].price > 0)
            sum += parts[i].tokens > INT64_MAX ? (__int128)INT64_MAX : parts[i].tokens * parts[i].price;
    return sum > INT64_MAX ? INT64_MAX : (int64_t)sum;
}

const char *ledger_tier_name(enum ledger_tier tier)
{
    static const char *const names[] = {"local", "subscription", "premium"};
    static_assert(sizeof names / sizeof names[0] == LEDGER_TIER_COUNT, "a name for each tier");
    return names[tier];
}
