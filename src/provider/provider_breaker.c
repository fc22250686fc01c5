/* A circuit breaker (Nygard, Release It!, 2007).
 *
 * Failures count in a window of two halves: the current one, and the one before for as long as the current
 * lasts. That many failures open it only when they are also half of all verdicts: a busy provider that loses
 * one request in a thousand is not a broken one. */
#include "provider/provider_account_int.h"

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define HALF_NS (BREAKER_WINDOW_S * NS_PER_S / 2)

static void turn_window(struct breaker *breaker, uint64_t now_ns)
{
    uint64_t passed = (now_ns - breaker->window_ns) / HALF_NS;
    if (passed == 0)
        return;
    breaker->failed[1] = passed == 1 ? breaker->failed[0] : 0;
    breaker->succeeded[1] = passed == 1 ? breaker->succeeded[0] : 0;
    breaker->failed[0] = breaker->succeeded[0] = 0;
    breaker->window_ns = now_ns;
}

bool breaker_is_shut(const struct breaker *breaker)
{
    return breaker->until_ns != 0;
}

bool breaker_admits(const struct breaker *breaker, uint64_t now_ns)
{
    return breaker->until_ns == 0 || (now_ns >= breaker->until_ns && !breaker->probing);
}

bool breaker_enter(struct breaker *breaker)
{
    breaker->probing = breaker->until_ns != 0;
    return breaker->probing;
}

void breaker_succeeded(struct breaker *breaker, uint64_t now_ns, bool probe)
{
    if (probe) {
        *breaker = (struct breaker){.window_ns = now_ns};
        return;
    }
    turn_window(breaker, now_ns);
    breaker->succeeded[0]++;
}

static void open_breaker(struct breaker *breaker, uint64_t now_ns, uint64_t hint_ms)
{
    uint64_t wait_s = BREAKER_OPEN_S;
    for (unsigned i = 0; i < breaker->strikes && wait_s < BREAKER_OPEN_MAX_S; i++)
        wait_s *= 2;
    if (wait_s > BREAKER_OPEN_MAX_S)
        wait_s = BREAKER_OPEN_MAX_S;
    uint64_t wait_ns = wait_s * NS_PER_S;
    if (hint_ms * NS_PER_MS > wait_ns)
        wait_ns = hint_ms * NS_PER_MS;
    breaker->until_ns = now_ns + wait_ns;
    breaker->strikes++;
    breaker->probing = false;
}

bool breaker_failed(struct breaker *breaker, uint64_t now_ns, bool probe, uint64_t hint_ms)
{
    if (probe) {
        open_breaker(breaker, now_ns, hint_ms);
        return true;
    }
    if (breaker_is_shut(breaker))
        return false; /* it was on its way before */
    turn_window(breaker, now_ns);
    breaker->failed[0]++;
    unsigned failed = breaker->failed[0] + breaker->failed[1];
    unsigned succeeded = breaker->succeeded[0] + breaker->succeeded[1];
    if (failed < BREAKER_FAILURES_MAX || failed < succeeded)
        return false;
    open_breaker(breaker, now_ns, hint_ms);
    return true;
}

void breaker_abandoned(struct breaker *breaker, bool probe)
{
    if (probe)
        breaker->probing = false;
}
