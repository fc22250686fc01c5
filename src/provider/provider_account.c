/* An account elsewhere: its keys, which of them may be used now, and whether it makes sense to ask at all.
 *
 * Two things can be wrong with a key. It can be refused: then it is put aside, and one call at a time tries
 * it again, later and later, so that one that recovers comes back by itself. Or it was too fast: then it
 * rests for as long as the provider says, or longer each time when it does not say. What holds for the whole
 * account (401, 402) is the key's; what may hold for a model alone (403, 429: limits are counted by model) is
 * the key's in that model's lane.
 *
 * Likewise two breakers: the account's counts calls that found no connection, a lane's those that were
 * answered badly or not at all.
 *
 * Which key: the one that this conversation had before, because providers' prompt caches belong to a key's
 * organisation; else one that is due for its trial; else the one limited least recently, then the one with
 * the fewest calls. Conversations are remembered by hash in a small table where newer ones displace older
 * ones: a wrong guess costs a cache, nothing else.
 *
 * Invariants:
 *  A1  A pass that probes something (a key aside, an open breaker) is the only one to do so, and gives it
 *      back with a verdict or without.
 *  A2  A verdict on what was sent before a state began does not change that state: a burst that is refused
 *      as one is one refusal.
 *  A3  A secret leaves this file only through account_pass_secret. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "provider/provider_account_int.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* Good, or not to be used until a time. */
struct key_state {
    uint64_t until_ns, since_ns; /* since: of the last refusal; 0: never */
    unsigned strikes;            /* refusals in a row */
    bool aside;                  /* refused, not merely too fast: one at a time tries it */
    bool probing;
};

struct account_key {
    char *secret;  /* NULL: the account needs none */
    char hint[24]; /* its place: "1" */
    struct key_state state;
    size_t running;
};

struct sticky_place {
    uint64_t hash;
    uint32_t key_plus_1; /* 0: empty */
};

struct provider_account {
    struct provider_account_params params; /* strings owned, but for the keys: those are below */
    char *name, *base_url;
    struct http_header *headers;
    size_t header_count;
    struct account_key *keys; /* [key_count], at least one */
    size_t key_count;
    struct breaker line;
    struct sticky_place *sticky; /* [ACCOUNT_STICKY_MAX]; NULL: there is no choice */
};

struct account_lane {
    struct provider_account *account;
    struct key_state *keys; /* [account->key_count] */
    struct breaker breaker;
    size_t running;
};

static uint64_t now_ns(const struct provider_account *account)
{
    return clock_monotonic_ns(account->params.clock);
}

/* ---- Life */

static void wipe(char *secret)
{
    volatile char *at = secret; /* so that the compiler does not find it useless */
    while (at && *at)
        *at++ = 0;
}

static bool copy_keys(struct provider_account *account, const struct provider_account_params *params)
{
    account->key_count = params->key_count ? params->key_count : 1;
    account->keys = mem_calloc(account->key_count, sizeof *account->keys);
    if (account->key_count > 1)
        account->sticky = mem_calloc(ACCOUNT_STICKY_MAX, sizeof *account->sticky);
    bool ok = account->keys && (account->key_count == 1 || account->sticky);
    for (size_t i = 0; ok && i < params->key_count; i++) {
        snprintf(account->keys[i].hint, sizeof account->keys[i].hint, "%zu", i + 1);
        account->keys[i].secret = mem_strdup(params->keys[i]);
        ok = account->keys[i].secret != NULL;
    }
    return ok;
}

static bool copy_headers(struct provider_account *account, const struct provider_account_params *params)
{
    account->headers = mem_calloc(params->header_count + 1, sizeof *account->headers);
    for (size_t i = 0; account->headers && i < params->header_count; i++) {
        char *name = mem_strdup(params->headers[i].name), *value = mem_strdup(params->headers[i].value);
        account->headers[account->header_count++] = (struct http_header){name, value};
        if (!name || !value)
            return false;
    }
    return account->headers != NULL;
}

enum ph_status provider_account_create(struct provider_account **out,
                                       const struct provider_account_params *params, struct ph_err *err)
{
    *out = NULL;
    if (params->key_count > ACCOUNT_KEYS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: %zu keys are given, at most %d are possible", params->name,
                       params->key_count, ACCOUNT_KEYS_MAX);
    if (params->header_count > ACCOUNT_HEADERS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: %zu headers are given, at most %d are possible", params->name,
                       params->header_count, ACCOUNT_HEADERS_MAX);
    struct provider_account *account = mem_calloc(1, sizeof *account);
    if (!account)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    account->params = *params;
    account->name = mem_strdup(params->name);
    account->base_url = mem_strdup(params->base_url);
    bool copied = copy_keys(account, params) && copy_headers(account, params);
    if (!copied || !account->name || !account->base_url) {
        provider_account_free(account);
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    }
    account->params.name = account->name;
    account->params.base_url = account->base_url;
    account->params.headers = account->headers;
    account->params.keys = NULL; /* A3 */
    *out = account;
    return PH_OK;
}

void provider_account_free(struct provider_account *account)
{
    if (!account)
        return;
    for (size_t i = 0; account->keys && i < account->key_count; i++) {
        wipe(account->keys[i].secret);
        mem_free(account->keys[i].secret);
    }
    for (size_t i = 0; i < account->header_count; i++) {
        mem_free((char *)account->headers[i].name);
        mem_free((char *)account->headers[i].value);
    }
    mem_free(account->headers);
    mem_free(account->keys);
    mem_free(account->sticky);
    mem_free(account->name);
    mem_free(account->base_url);
    mem_free(account);
}

const char *provider_account_name(const struct provider_account *account)
{
    return account->name;
}

const struct provider_account_params *account_params(const struct provider_account *account)
{
    return &account->params;
}

bool account_move(struct provider_account *account, const char *base_url)
{
    char *copy = mem_strdup(base_url);
    if (!copy)
        return false;
    mem_free(account->base_url);
    account->params.base_url = account->base_url = copy;
    account->line = (struct breaker){0};
    return true;
}

enum ph_status account_lane_create(struct account_lane **out, struct provider_account *account,
                                   struct ph_err *err)
{
    struct account_lane *lane = *out = mem_calloc(1, sizeof *lane);
    if (lane)
        lane->keys = mem_calloc(account->key_count, sizeof *lane->keys);
    if (lane && lane->keys) {
        lane->account = account;
        return PH_OK;
    }
    mem_free(lane);
    *out = NULL;
    return ph_fail(err, PH_ERR_NOMEM, "out of memory");
}

void account_lane_free(struct account_lane *lane)
{
    if (!lane)
        return;
    mem_free(lane->keys);
    mem_free(lane);
}

void account_lane_forget(struct account_lane *lane)
{
    lane->breaker = (struct breaker){0};
    memset(lane->keys, 0, lane->account->key_count * sizeof *lane->keys);
}

/* ---- States of a key */

static bool state_admits(const struct key_state *state, uint64_t now)
{
    return now >= state->until_ns && !(state->aside && state->probing);
}

static bool state_enter(struct key_state *state)
{
    state->probing = state->aside;
    return state->aside;
}

static uint64_t doubled(uint64_t first, unsigned times, uint64_t most)
{
    for (; times > 0 && first < most; times--)
        first *= 2;
    return first < most ? first : most;
}

/* `began`: when what was refused was sent. Answers for how many seconds it is put aside; 0: it was before. */
static uint64_t state_refused(struct key_state *state, uint64_t now, uint64_t began, bool probe)
{
    if (!probe && began <= state->since_ns)
        return 0; /* A2 */
    if (!state->aside)
        state->strikes = 0;
    uint64_t wait_s = doubled(ACCOUNT_ASIDE_S, state->strikes++, ACCOUNT_ASIDE_MAX_S);
    state->aside = true;
    state->probing = false;
    state->since_ns = now;
    state->until_ns = now + wait_s * NS_PER_S;
    return wait_s;
}

static void state_limited(struct key_state *state, uint64_t now, uint64_t began, uint64_t hint_ms)
{
    if (state->aside)
        return;
    if (began > state->since_ns) {
        uint64_t rest_ms = doubled(ACCOUNT_REST_MS, state->strikes++, ACCOUNT_REST_MAX_MS);
        state->since_ns = now;
        hint_ms = hint_ms ? hint_ms : rest_ms;
    }
    if (now + hint_ms * NS_PER_MS > state->until_ns)
        state->until_ns = now + hint_ms * NS_PER_MS;
}

/* true: it had been refused and is good again. */
static bool state_good(struct key_state *state, uint64_t began, bool probe)
{
    if (state->aside && !probe)
        return false; /* A2 */
    bool was_aside = state->aside;
    if (probe || began > state->since_ns)
        *state = (struct key_state){.since_ns = state->since_ns};
    return was_aside;
}

static void state_abandoned(struct key_state *state, bool probe)
{
    if (probe)
        state->probing = false;
}

/* ---- Choosing a key */

static bool key_admits(const struct account_lane *lane, size_t i, uint64_t now)
{
    return state_admits(&lane->account->keys[i].state, now) && state_admits(&lane->keys[i], now);
}

static bool key_is_trial(const struct account_lane *lane, size_t i)
{
    return lane->account->keys[i].state.aside || lane->keys[i].aside;
}

static bool is_better(const struct account_lane *lane, size_t a, size_t b)
{
    bool a_trial = key_is_trial(lane, a), b_trial = key_is_trial(lane, b);
    if (a_trial != b_trial)
        return a_trial;
    if (lane->keys[a].since_ns != lane->keys[b].since_ns)
        return lane->keys[a].since_ns < lane->keys[b].since_ns;
    return lane->account->keys[a].running < lane->account->keys[b].running;
}

static bool choose_key(struct account_lane *lane, uint64_t sticky, uint64_t now, size_t *out)
{
    struct provider_account *account = lane->account;
    struct sticky_place *place =
        sticky && account->sticky ? &account->sticky[sticky % ACCOUNT_STICKY_MAX] : NULL;
    if (place && place->key_plus_1 && place->hash == sticky) {
        *out = place->key_plus_1 - 1;
        if (key_admits(lane, *out, now) && !key_is_trial(lane, *out))
            return true;
    }
    bool found = false;
    for (size_t i = 0; i < account->key_count; i++)
        if (key_admits(lane, i, now) && (!found || is_better(lane, i, *out))) {
            *out = i;
            found = true;
        }
    if (found && place)
        *place = (struct sticky_place){sticky, (uint32_t)*out + 1};
    return found;
}

/* ---- What can be said about it */

static bool breakers_admit(const struct account_lane *lane, uint64_t now)
{
    return breaker_admits(&lane->account->line, now) && breaker_admits(&lane->breaker, now);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* When a state that admits nobody may change; 0: when its probe comes back. */
static uint64_t state_until(const struct key_state *state, uint64_t now)
{
    return state->until_ns > now ? state->until_ns : 0;
}

static void describe_keys(const struct account_lane *lane, uint64_t now, struct provider_state *out)
{
    const struct provider_account *account = lane->account;
    out->why = CHAT_CAUSE_KEY;
    for (size_t i = 0; i < account->key_count; i++) {
        const struct key_state *key = &account->keys[i].state, *own = &lane->keys[i];
        uint64_t at = later(state_until(key, now), state_until(own, now));
        if (key_admits(lane, i, now)) {
            out->usable = true;
            return;
        }
        if (!key->aside && !own->aside)
            out->why = CHAT_CAUSE_RATE;
        if (at && (out->usable_at_ns == 0 || at < out->usable_at_ns))
            out->usable_at_ns = at;
    }
}

/* Nothing was ever wrong, so that no clock need be read: routes look at many. */
static bool is_untroubled(const struct account_lane *lane)
{
    const struct key_state *key = &lane->account->keys[0].state, *own = &lane->keys[0];
    uint64_t trouble = lane->account->line.until_ns | lane->breaker.until_ns | key->until_ns | own->until_ns;
    return trouble == 0 && !key->aside && !own->aside;
}

void account_state(const struct account_lane *lane, struct provider_state *out)
{
    out->running = lane->running;
    out->usable = true;
    out->usable_at_ns = 0;
    if (is_untroubled(lane))
        return;
    uint64_t now = now_ns(lane->account);
    out->usable = false;
    if (breakers_admit(lane, now)) {
        describe_keys(lane, now, out);
    } else {
        uint64_t at = later(lane->account->line.until_ns, lane->breaker.until_ns);
        out->why = CHAT_CAUSE_OVERLOADED;
        out->usable_at_ns = at > now ? at : 0;
    }
}

static void refuse(const struct account_lane *lane, const struct provider_state *state,
                   struct chat_fault *fault)
{
    const char *name = lane->account->name;
    uint64_t now = now_ns(lane->account);
    if (state->why == CHAT_CAUSE_KEY)
        chat_fault_set(fault, 502, "provider_keys_rejected", NULL,
                       "%s accepts none of its keys at present; check them and its balance", name);
    else if (state->why == CHAT_CAUSE_RATE)
        chat_fault_set(fault, 429, "rate_limit_exceeded", NULL,
                       "%s: every key has reached its rate limit; try again later", name);
    else
        chat_fault_set(fault, 503, "provider_unavailable", NULL,
                       "%s has failed too often just now; it is left alone for a moment", name);
    fault->cause = state->why;
    if (state->usable_at_ns > now)
        fault->retry_after_s = (uint32_t)((state->usable_at_ns - now + NS_PER_S - 1) / NS_PER_S);
    else if (state->why != CHAT_CAUSE_KEY)
        fault->retry_after_s = 1;
}

/* ---- Passes */

enum ph_status account_enter(struct account_lane *lane, uint64_t sticky, struct account_pass *pass,
                             struct chat_fault *fault)
{
    struct provider_account *account = lane->account;
    uint64_t now = now_ns(account);
    size_t key = 0;
    if (!breakers_admit(lane, now) || !choose_key(lane, sticky, now, &key)) {
        struct provider_state state = {0};
        account_state(lane, &state);
        refuse(lane, &state, fault);
        return PH_ERR_BUSY;
    }
    *pass = (struct account_pass){.lane = lane, .key = key, .began_ns = now};
    pass->probes_line = breaker_enter(&account->line);
    pass->probes_lane = breaker_enter(&lane->breaker);
    pass->probes_key = state_enter(&account->keys[key].state);
    pass->probes_lane_key = state_enter(&lane->keys[key]);
    account->keys[key].running++;
    lane->running++;
    return PH_OK;
}

static struct account_key *key_of(const struct account_pass *pass)
{
    return &pass->lane->account->keys[pass->key];
}

const char *account_pass_name(const struct account_pass *pass)
{
    return pass->lane->account->name;
}

const char *account_pass_secret(const struct account_pass *pass)
{
    return key_of(pass)->secret;
}

const char *account_pass_hint(const struct account_pass *pass)
{
    return key_of(pass)->secret ? key_of(pass)->hint : NULL;
}

/* The pass gives back what it probes; those that have had their verdict are marked so. */
static void give_back(struct account_pass *pass)
{
    struct account_lane *lane = pass->lane;
    breaker_abandoned(&lane->account->line, pass->probes_line);
    breaker_abandoned(&lane->breaker, pass->probes_lane);
    state_abandoned(&key_of(pass)->state, pass->probes_key);
    state_abandoned(&lane->keys[pass->key], pass->probes_lane_key);
    pass->probes_line = pass->probes_lane = pass->probes_key = pass->probes_lane_key = false;
}

static void line_is_good(struct account_pass *pass, uint64_t now)
{
    struct provider_account *account = pass->lane->account;
    if (pass->probes_line)
        log_info("provider", "%s can be reached again", account->name);
    breaker_succeeded(&account->line, now, pass->probes_line);
    pass->probes_line = false;
}

static void key_is_good(struct account_pass *pass)
{
    bool again = state_good(&key_of(pass)->state, pass->began_ns, pass->probes_key);
    again = state_good(&pass->lane->keys[pass->key], pass->began_ns, pass->probes_lane_key) || again;
    if (again)
        log_info("provider", "%s: key %s is accepted again", pass->lane->account->name, key_of(pass)->hint);
    pass->probes_key = pass->probes_lane_key = false;
}

static void lane_is_good(struct account_pass *pass, uint64_t now)
{
    if (pass->probes_lane)
        log_info("provider", "%s works again", pass->lane->account->name);
    breaker_succeeded(&pass->lane->breaker, now, pass->probes_lane);
    pass->probes_lane = false;
}

/* Only the probes need it: others count at their end, when it is known whether the reply was whole. */
void account_pass_alive(struct account_pass *pass)
{
    uint64_t now = now_ns(pass->lane->account);
    if (pass->alive)
        return;
    pass->alive = true;
    key_is_good(pass);
    if (pass->probes_line)
        line_is_good(pass, now);
    if (pass->probes_lane)
        lane_is_good(pass, now);
}

static enum log_level trouble(const struct account_pass *pass)
{
    return pass->lane->account->params.is_drill ? LOG_DEBUG : LOG_WARN;
}

static void key_was_refused(struct account_pass *pass, uint64_t now, int http_status)
{
    bool lane_only = http_status == 403;
    struct key_state *state = lane_only ? &pass->lane->keys[pass->key] : &key_of(pass)->state;
    bool *probes = lane_only ? &pass->probes_lane_key : &pass->probes_key;
    uint64_t wait_s = state_refused(state, now, pass->began_ns, *probes);
    *probes = false;
    if (wait_s)
        log_write(trouble(pass), "provider", "%s: key %s was refused (%d); it is tried again in %llu s",
                  pass->lane->account->name, key_of(pass)->hint, http_status, (unsigned long long)wait_s);
}

static void breaker_failure(struct account_pass *pass, struct breaker *breaker, bool *probes, uint64_t now,
                            uint64_t hint_ms, enum chat_cause cause)
{
    if (breaker_failed(breaker, now, *probes, hint_ms))
        log_write(trouble(pass), "provider", "%s is left alone for %llu s (%s)", pass->lane->account->name,
                  (unsigned long long)((breaker->until_ns - now) / NS_PER_S), chat_cause_name(cause));
    *probes = false;
}

/* What a cause says about the account. */
enum effect {
    EFFECT_NONE,
    EFFECT_ANSWERED, /* no fault of the provider */
    EFFECT_REFUSED,
    EFFECT_LIMITED,
    EFFECT_SICK,
    EFFECT_UNREACHED
};

static enum effect effect_of(enum chat_cause cause)
{
    static const enum effect effects[CHAT_CAUSE_COUNT] = {
        [CHAT_CAUSE_OURS] = EFFECT_NONE,         [CHAT_CAUSE_REQUEST] = EFFECT_ANSWERED,
        [CHAT_CAUSE_KEY] = EFFECT_REFUSED,       [CHAT_CAUSE_RATE] = EFFECT_LIMITED,
        [CHAT_CAUSE_OVERLOADED] = EFFECT_SICK,   [CHAT_CAUSE_SERVER] = EFFECT_SICK,
        [CHAT_CAUSE_NETWORK] = EFFECT_UNREACHED, [CHAT_CAUSE_TIMEOUT] = EFFECT_SICK,
        [CHAT_CAUSE_CUT] = EFFECT_SICK,          [CHAT_CAUSE_CONTEXT] = EFFECT_ANSWERED,
        [CHAT_CAUSE_REFUSED] = EFFECT_ANSWERED,  [CHAT_CAUSE_NO_MODEL] = EFFECT_ANSWERED,
        [CHAT_CAUSE_UNABLE] = EFFECT_NONE,       [CHAT_CAUSE_BUDGET] = EFFECT_REFUSED,
    };
    return effects[cause];
}

static void leave(struct account_pass *pass)
{
    give_back(pass);
    key_of(pass)->running--;
    pass->lane->running--;
}

void account_leave(struct account_pass *pass, const struct chat_fault *fault, int http_status,
                   uint64_t hint_ms)
{
    struct account_lane *lane = pass->lane;
    uint64_t now = now_ns(lane->account);
    enum effect effect = fault ? effect_of(fault->cause) : EFFECT_ANSWERED;
    if (effect == EFFECT_ANSWERED || effect == EFFECT_REFUSED || effect == EFFECT_LIMITED || http_status)
        line_is_good(pass, now);
    switch (effect) {
    case EFFECT_NONE:
        break;
    case EFFECT_ANSWERED:
        key_is_good(pass);
        lane_is_good(pass, now);
        break;
    case EFFECT_REFUSED:
        key_was_refused(pass, now, http_status);
        break;
    case EFFECT_LIMITED:
        state_limited(&lane->keys[pass->key], now, pass->began_ns, hint_ms);
        break;
    case EFFECT_SICK:
        breaker_failure(pass, &lane->breaker, &pass->probes_lane, now, hint_ms, fault->cause);
        break;
    case EFFECT_UNREACHED:
        breaker_failure(pass, &lane->account->line, &pass->probes_line, now, 0, fault->cause);
        break;
    }
    leave(pass);
}

void account_abandon(struct account_pass *pass)
{
    leave(pass);
}

void account_pass_scrub(const struct account_pass *pass, char *text)
{
    const char *secret = account_pass_secret(pass);
    if (secret)
        chat_scrub_secret(text, secret);
}

void provider_account_scrub(const struct provider_account *account, char *text)
{
    for (size_t i = 0; i < account->key_count; i++)
        if (account->keys[i].secret)
            chat_scrub_secret(text, account->keys[i].secret);
    for (size_t i = 0; i < account->header_count; i++)
        chat_scrub_secret(text, account->headers[i].value);
}
