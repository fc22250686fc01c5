/* drill: a provider that fails as it is told to, for fault drills.
 *
 * It speaks the APIs of four providers on a port of loopback, and says back what it is told: its answer is
 * the text of the user's last message, less what the assistant has said of it already. So whoever asks knows
 * what is right, and one request's answer can't be taken for another's. Which API it speaks and how it fails
 * is in the address: a fault is an address to be used as base_url.
 *
 * What a fault is, and what a client may be told of it, is the table drill_faults. Thread: the loop's. */
#ifndef PHAROS_DRILL_DRILL_H
#define PHAROS_DRILL_DRILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"
#include "net/net.h"

/* ---- What there is */

enum drill_api { DRILL_OPENAI, DRILL_TOGETHER, DRILL_ANTHROPIC, DRILL_GEMINI, DRILL_API_COUNT };
const char *drill_api_name(enum drill_api api);  /* "openai", ... */
const char *drill_api_codec(enum drill_api api); /* the dialect it speaks: "openai", "anthropic", "gemini" */

#define DRILL_STATUSES_MAX 4
#define DRILL_AFTER 3 /* words that are said before a fault in the middle */

enum drill_trait {                      /* bits */
                   DRILL_SPEAKS = 1,    /* a stream has begun before it */
                   DRILL_SAYS_WHEN = 2, /* the client is told when to come again */
                   DRILL_ALONE = 4 /* one at a time: it takes much of a processor, a resolver or a line */
};
struct drill_fault {
    const char *name; /* "cut" */
    const char *what; /* "three tokens, then the connection breaks" */
    unsigned traits;
    int statuses[DRILL_STATUSES_MAX]; /* what a client may be told when nobody else can answer; 0 ends them */
};
extern const struct drill_fault drill_faults[];
extern const size_t drill_fault_count;
/* Indices; false: there is none of this name. */
bool drill_fault_find(const char *name, size_t *index);
bool drill_api_find(const char *name, enum drill_api *api);

/* ---- The provider */

#define DRILL_KEY_PREFIX "sk-drill-" /* a reply to a client that has this in it leaks a key */
#define DRILL_KEY_MAX 64
#define DRILL_URL_MAX 128

struct drill_provider;
PH_MUST_USE enum ph_status drill_provider_open(struct drill_provider **out, struct net_loop *loop,
                                               const struct clock_source *clock, struct ph_err *err);
/* What requests must show as their key; every other one is refused. */
const char *drill_provider_key(const struct drill_provider *provider);
/* The base URL behind which it speaks this API and has this fault; fault == drill_fault_count: none. */
void drill_provider_url(const struct drill_provider *provider, enum drill_api api, size_t fault,
                        char out[DRILL_URL_MAX]);
uint64_t drill_provider_requests(const struct drill_provider *provider);
/* Cuts what is running; `stopped` runs once on the loop, then the provider is gone. */
void drill_provider_stop(struct drill_provider *provider, void (*stopped)(void *ud), void *ud);

#endif
