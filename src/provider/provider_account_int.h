/* provider, private: an account's keys and breakers, as its models use them. Loop's thread. */
#ifndef PHAROS_PROVIDER_PROVIDER_ACCOUNT_INT_H
#define PHAROS_PROVIDER_PROVIDER_ACCOUNT_INT_H

#include "provider/provider.h"

/* ---- When a provider says to come again (provider_retry.c) */

/* In ms from now, at most ACCOUNT_HINT_MAX_S; 0: it did not say. */
uint64_t retry_hint_ms(int http_status, const struct http_header *headers, size_t count, int64_t now_unix_ms);

/* ---- Circuit breaker (provider_breaker.c)
 *
 * Closed, it counts. Too many failures in a window, and it is open: nobody is let through until a time. Then
 * one call is, the probe, until it has a verdict; it closes the breaker or opens it for longer. */
struct breaker {
    uint64_t window_ns;               /* when the current half of the window began */
    unsigned failed[2], succeeded[2]; /* in the current half, in the one before */
    unsigned strikes;                 /* openings since it last was closed */
    uint64_t until_ns;                /* open until then; 0: closed */
    bool probing;
};
bool breaker_is_shut(const struct breaker *breaker); /* the probe is due or on its way, or it is too early */
bool breaker_admits(const struct breaker *breaker, uint64_t now_ns);
/* Of one who was admitted; true: it is the probe, and must come to one of the verdicts below. */
bool breaker_enter(struct breaker *breaker);
void breaker_succeeded(struct breaker *breaker, uint64_t now_ns, bool probe);
/* `hint_ms`: not before that, said the provider; 0: nothing. true: this opened it. */
bool breaker_failed(struct breaker *breaker, uint64_t now_ns, bool probe, uint64_t hint_ms);
void breaker_abandoned(struct breaker *breaker, bool probe); /* no verdict */

/* ---- A model's lane through an account (provider_account.c) */

struct account_lane;
struct account_pass { /* one attempt's, while it lasts */
    struct account_lane *lane;
    size_t key;
    uint64_t began_ns;
    bool probes_key, probes_lane_key, probes_lane, probes_line;
    bool alive;
};

PH_MUST_USE enum ph_status account_lane_create(struct account_lane **out, struct provider_account *account,
                                               struct ph_err *err);
void account_lane_forget(struct account_lane *lane); /* what was learned: good as new */
void account_lane_free(struct account_lane *lane);   /* no pass may be out; NULL is fine */

const struct provider_account_params *account_params(const struct provider_account *account);
/* Another address, as after a restart; what was learned about the old one is forgotten. false: no memory. */
bool account_move(struct provider_account *account, const char *base_url);

/* The best key there is, or a fault that says why there is none, with the cause of provider_state. `sticky`:
 * a number for the conversation, whose prompt cache belongs to a key; 0: none. */
PH_MUST_USE enum ph_status account_enter(struct account_lane *lane, uint64_t sticky,
                                         struct account_pass *pass, struct chat_fault *fault);
const char *account_pass_name(const struct account_pass *pass);   /* the account's */
const char *account_pass_secret(const struct account_pass *pass); /* NULL: no key is needed */
const char *account_pass_hint(const struct account_pass *pass);   /* "1"; NULL: no key is needed */
/* A reply has begun as it should. May be said more than once. */
void account_pass_alive(struct account_pass *pass);
/* The pass ends. fault NULL: the reply was whole. http_status: the provider's, 0: none. */
void account_leave(struct account_pass *pass, const struct chat_fault *fault, int http_status,
                   uint64_t hint_ms);
void account_abandon(struct account_pass *pass); /* ends without a verdict */
void account_state(const struct account_lane *lane, struct provider_state *out);
/* Takes the key out of a text, in place. */
void account_pass_scrub(const struct account_pass *pass, char *text);

#endif
