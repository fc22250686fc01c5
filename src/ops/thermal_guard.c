/* The guard: levels and what moves between them, as a table.
 *
 *      NORMAL --warn--> WARN --still, after admit_less_after_s--> ADMIT LESS
 *         (any of these) --critical--> HOLD --still, after stop_after_s--> STOP
 *      HOLD, STOP       --cool below critical for resume_after_s--> ADMIT LESS
 *      WARN, ADMIT LESS --cool below warn for resume_after_s--> NORMAL
 *
 * "Still" is a temperature at or above the threshold now; cool is one below the threshold less the margin,
 * all the time. So:
 *  G1  at or above critical the level is HOLD or STOP after every step;
 *  G2  a level that was reached by a threshold is left downwards only when the temperature has crossed the
 *      whole margin below it, so noise within the margin moves nothing back and forth;
 *  G3  when it stays cool, NORMAL comes by itself within twice resume_after_s. */
#include <string.h>

#include "ops/thermal.h"

enum threshold { AT_WARN, AT_CRITICAL };
enum dwell { DWELL_NONE, DWELL_ADMIT_LESS, DWELL_STOP, DWELL_RESUME };

#define BIT(level_) (1u << (level_))

static const struct rule {
    unsigned from; /* bits */
    enum threshold threshold;
    bool is_up; /* at or above it; else cool below it */
    enum dwell dwell;
    enum thermal_level to;
} rules[] = {
    {BIT(THERMAL_NORMAL) | BIT(THERMAL_WARN) | BIT(THERMAL_ADMIT_LESS), AT_CRITICAL, true, DWELL_NONE,
     THERMAL_HOLD},
    {BIT(THERMAL_HOLD), AT_CRITICAL, true, DWELL_STOP, THERMAL_STOP},
    {BIT(THERMAL_NORMAL), AT_WARN, true, DWELL_NONE, THERMAL_WARN},
    {BIT(THERMAL_WARN), AT_WARN, true, DWELL_ADMIT_LESS, THERMAL_ADMIT_LESS},
    {BIT(THERMAL_HOLD) | BIT(THERMAL_STOP), AT_CRITICAL, false, DWELL_RESUME, THERMAL_ADMIT_LESS},
    {BIT(THERMAL_WARN) | BIT(THERMAL_ADMIT_LESS), AT_WARN, false, DWELL_RESUME, THERMAL_NORMAL},
};

const char *thermal_level_name(enum thermal_level level)
{
    static const char *const names[THERMAL_LEVEL_COUNT] = {"normal", "warn", "admit less", "hold", "stop"};
    return names[level];
}

const char *thermal_level_action(enum thermal_level level)
{
    static const char *const actions[THERMAL_LEVEL_COUNT] = {
        "nothing is held back", "nothing is held back yet", "fewer requests run at a time",
        "no new requests here: they go elsewhere, or are refused",
        "running requests end, started engines are stopped"};
    return actions[level];
}

void thermal_limits_default(struct thermal_limits *limits)
{
    *limits = (struct thermal_limits){.warn_c = 85,
                                      .critical_c = 90,
                                      .margin_c = 5,
                                      .admit_less_after_s = 30,
                                      .stop_after_s = 20,
                                      .resume_after_s = 30};
}

void thermal_guard_init(struct thermal_guard *guard, const struct thermal_limits *limits, uint64_t now_ns)
{
    *guard = (struct thermal_guard){.limits = *limits, .entered_ns = now_ns};
}

static double threshold_c(const struct thermal_guard *guard, enum threshold threshold)
{
    return threshold == AT_WARN ? guard->limits.warn_c : guard->limits.critical_c;
}

static uint64_t dwell_ns(const struct thermal_guard *guard, enum dwell dwell)
{
    const struct thermal_limits *limits = &guard->limits;
    const double seconds[] = {0, limits->admit_less_after_s, limits->stop_after_s, limits->resume_after_s};
    return (uint64_t)(seconds[dwell] * 1e9);
}

static void see_cool(struct thermal_guard *guard, double celsius, uint64_t now_ns)
{
    for (int i = 0; i < THERMAL_THRESHOLDS; i++) {
        bool is_cool = celsius < threshold_c(guard, (enum threshold)i) - guard->limits.margin_c;
        if (is_cool && !guard->is_cool[i])
            guard->cool_since_ns[i] = now_ns;
        guard->is_cool[i] = is_cool;
    }
}

static bool applies(const struct thermal_guard *guard, const struct rule *rule, double celsius,
                    uint64_t now_ns)
{
    if (!(rule->from & BIT(guard->level)))
        return false;
    uint64_t since = guard->entered_ns;
    if (rule->is_up) {
        if (!(celsius >= threshold_c(guard, rule->threshold)))
            return false;
    } else {
        if (!guard->is_cool[rule->threshold])
            return false;
        if (guard->cool_since_ns[rule->threshold] > since)
            since = guard->cool_since_ns[rule->threshold];
    }
    return now_ns - since >= dwell_ns(guard, rule->dwell);
}

bool thermal_guard_step(struct thermal_guard *guard, bool is_known, double celsius, uint64_t now_ns)
{
    if (is_known) {
        guard->read_ns = now_ns;
        guard->last_c = celsius;
    } else {
        bool is_stale = now_ns - guard->read_ns >= (uint64_t)THERMAL_STALE_S * 1000000000;
        celsius = guard->read_ns && !is_stale ? guard->last_c : -1000;
    }
    see_cool(guard, celsius, now_ns);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (applies(guard, &rules[i], celsius, now_ns)) {
            guard->level = rules[i].to;
            guard->entered_ns = now_ns;
            return true;
        }
    return false;
}
