/* Sliding minutes: a ring of seconds for each name, and their sums.
 *
 * A window is the running second and the 60 before it, so that 60 seconds that begin anywhere are always
 * inside one. A second that leaves is subtracted and emptied, so no take costs more than the seconds since
 * the last one, 64 at most.
 *
 * Invariants of a line: (1) a sum is what its ring holds; (2) nothing outside the window is in the ring;
 * (3) a second holds at least the tokens of the takes made in it that have not been given back: what a
 * request used beyond its take is put into the second in which that was known.
 *
 * Lines that have been idle for a window are forgotten when the table would grow, which is when it has
 * doubled since the last time; a line with a take in it stays where it is. */
#include "gateway/rates.h"

#include "base/limits.h"
#include "base/mem.h"
#include "gateway/names_int.h"

#define NS_PER_S 1000000000u
#define RING 64
#define WINDOW_S 61 /* of them count */
#define SWEEP_MIN 64
#define TOKENS_MAX ((uint64_t)1 << 40) /* of one take: no sum overflows */

struct rate_line {
    struct name_entry name;
    int64_t second; /* the newest in the ring */
    uint64_t requests_sum, tokens_sum;
    int64_t running;
    uint32_t requests[RING];
    uint64_t tokens[RING];
};

struct rates {
    struct names lines;
    const struct clock_source *clock;
    size_t sweep_at; /* lines */
};

enum ph_status rates_create(struct rates **out, const struct clock_source *clock)
{
    *out = mem_calloc(1, sizeof **out);
    if (!*out)
        return PH_ERR_NOMEM;
    (*out)->clock = clock;
    (*out)->sweep_at = SWEEP_MIN;
    return PH_OK;
}

void rates_free(struct rates *rates)
{
    if (!rates)
        return;
    names_release(&rates->lines);
    mem_free(rates);
}

/* ---- A line's window */

static size_t slot_of(int64_t second)
{
    return (size_t)second % RING;
}

static void drop_second(struct rate_line *line, int64_t second)
{
    size_t slot = slot_of(second);
    line->requests_sum -= line->requests[slot];
    line->tokens_sum -= line->tokens[slot];
    line->requests[slot] = 0;
    line->tokens[slot] = 0;
}

static void advance(struct rate_line *line, int64_t second)
{
    int64_t steps = second - line->second;
    if (steps > WINDOW_S)
        steps = WINDOW_S; /* the whole window leaves */
    for (int64_t i = 1; i <= steps; i++)
        drop_second(line, line->second + i - WINDOW_S + RING);
    if (second > line->second)
        line->second = second;
}

/* In how many seconds `room` of one kind is there, when the ring holds more than that now. */
static uint32_t seconds_until(const struct rate_line *line, uint64_t sum, uint64_t room, bool tokens)
{
    for (uint32_t wait = 1; wait < WINDOW_S; wait++) {
        size_t slot = slot_of(line->second + wait - WINDOW_S + RING);
        sum -= tokens ? line->tokens[slot] : line->requests[slot];
        if (sum <= room)
            return wait;
    }
    return WINDOW_S;
}

/* The longest wait of all limits; 0: none. */
static uint32_t wait_for(const struct rate_line *line, const struct rate_limits *limits, uint64_t tokens,
                         const char **which)
{
    uint32_t wait = 0;
    if (limits->concurrency > 0 && line->running >= limits->concurrency) {
        wait = 1;
        *which = "concurrent requests";
    }
    if (limits->rpm > 0 && line->requests_sum >= (uint64_t)limits->rpm) {
        uint32_t requests = seconds_until(line, line->requests_sum, (uint64_t)limits->rpm - 1, false);
        *which = "requests";
        wait = requests;
    }
    uint64_t tpm = limits->tpm > 0 ? (uint64_t)limits->tpm : 0;
    if (tpm && line->tokens_sum && line->tokens_sum + tokens > tpm) {
        uint32_t more = seconds_until(line, line->tokens_sum, tokens < tpm ? tpm - tokens : 0, true);
        if (more > wait) {
            *which = "tokens";
            wait = more;
        }
    }
    return wait;
}

/* ---- Lines by name */

static int64_t now_of(const struct rates *rates)
{
    return (int64_t)(clock_monotonic_ns(rates->clock) / NS_PER_S);
}

static bool is_over(const struct name_entry *entry, void *ud)
{
    const struct rate_line *line = (const struct rate_line *)entry;
    return line->running == 0 && *(const int64_t *)ud - line->second >= WINDOW_S;
}

static struct rate_line *line_of(struct rates *rates, const char *who, int64_t second)
{
    struct rate_line *line = names_find(&rates->lines, who);
    if (line)
        return line;
    if (rates->lines.count >= rates->sweep_at) {
        names_sweep(&rates->lines, is_over, &second);
        rates->sweep_at = 2 * rates->lines.count > SWEEP_MIN ? 2 * rates->lines.count : SWEEP_MIN;
        if (rates->sweep_at > RATES_NAMES_MAX)
            rates->sweep_at = RATES_NAMES_MAX;
    }
    if (rates->lines.count >= RATES_NAMES_MAX)
        return NULL;
    line = names_add(&rates->lines, who, sizeof *line);
    if (line)
        line->second = second;
    return line;
}

/* ---- Taking and giving */

bool rates_take(struct rates *rates, const char *who, const struct rate_limits *limits, uint64_t tokens,
                struct rate_take *take, uint32_t *retry_after_s, const char **which)
{
    *take = (struct rate_take){0};
    *retry_after_s = 0;
    *which = "";
    if (limits->rpm <= 0 && limits->tpm <= 0 && limits->concurrency <= 0)
        return true;
    int64_t second = now_of(rates);
    struct rate_line *line = line_of(rates, who, second);
    if (!line) {
        *retry_after_s = 1;
        *which = "concurrent requests";
        return false;
    }
    if (tokens > TOKENS_MAX)
        tokens = TOKENS_MAX;
    advance(line, second);
    *retry_after_s = wait_for(line, limits, tokens, which);
    if (*retry_after_s)
        return false;
    size_t slot = slot_of(line->second);
    line->requests[slot]++;
    line->requests_sum++;
    line->tokens[slot] += tokens;
    line->tokens_sum += tokens;
    line->running++;
    *take = (struct rate_take){.line = line, .second = line->second, .tokens = tokens};
    return true;
}

void rates_give(struct rates *rates, struct rate_take *take, uint64_t tokens_used)
{
    struct rate_line *line = take->line;
    if (!line)
        return;
    if (tokens_used > TOKENS_MAX)
        tokens_used = TOKENS_MAX;
    advance(line, now_of(rates));
    line->running--;
    if (tokens_used > take->tokens) {
        line->tokens[slot_of(line->second)] += tokens_used - take->tokens;
        line->tokens_sum += tokens_used - take->tokens;
    } else if (line->second - take->second < WINDOW_S) {
        line->tokens[slot_of(take->second)] -= take->tokens - tokens_used;
        line->tokens_sum -= take->tokens - tokens_used;
    }
    *take = (struct rate_take){0};
}

static double share(uint64_t used, int64_t limit)
{
    if (limit <= 0)
        return 0;
    return used >= (uint64_t)limit ? 1 : (double)used / (double)limit;
}

double rates_used(const struct rates *rates, const char *who, const struct rate_limits *limits)
{
    struct rate_line *line = names_find(&rates->lines, who);
    if (!line)
        return 0;
    advance(line, now_of(rates));
    double used = share(line->requests_sum, limits->rpm), tokens = share(line->tokens_sum, limits->tpm);
    double running = share((uint64_t)line->running, limits->concurrency);
    used = tokens > used ? tokens : used;
    return running > used ? running : used;
}
