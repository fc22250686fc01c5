/* hot: conversations that stations share through a Redis, so that one which did not serve a conversation
 * before need not read all of it from the store.
 *
 * It may lose everything at any time. Whoever gets a value from it asks the store whether it still holds
 * (memory_shared.c); what cannot be had in time is not there. This is the bridge from helper threads, which
 * wait, to the client on the loop, which does not. */
#ifndef PHAROS_MEMORY_HOT_H
#define PHAROS_MEMORY_HOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "net/net.h"

struct hot;

struct hot_params {
    struct net_loop *loop;
    const struct clock_source *clock;
    const char *host;
    uint16_t port;
    const char *user, *password; /* NULL: none */
    unsigned database;
    uint32_t wait_ms; /* the most a look-up waits */
    uint32_t ttl_s;   /* of a value */
};
/* On the loop's thread, as hot_close and hot_stats: the first of them ends all waiting and closes what is on
 * the loop. hot_free is for when nobody is inside any more. NULL is fine for both. */
PH_MUST_USE enum ph_status hot_open(struct hot **out, const struct hot_params *params);
void hot_close(struct hot *hot);
void hot_free(struct hot *hot);
void hot_stats(const struct hot *hot, struct redis_stats *out);

/* Appends the value of this name; waits for wait_ms at most. false: it is not there. Any thread but the
 * loop's. */
bool hot_get(struct hot *hot, const char *name, struct buf *out);
/* Whether it arrives is never said. Any thread. */
void hot_put(struct hot *hot, const char *name, const void *bytes, size_t len);
/* Nobody finds it there from some moment soon on, if the Redis hears of it. Any thread. */
void hot_drop(struct hot *hot, const char *name);

#endif
